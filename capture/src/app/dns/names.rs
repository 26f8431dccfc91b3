//! Mnemonics of DNS parameters (IANA), and names in presentation format (RFC 1035, 5.1).

use std::borrow::Cow;
use std::fmt::Write as _;

/// Appends a label, lower case.
pub(super) fn write_label(name: &mut String, label: &[u8]) {
    if !name.is_empty() {
        name.push('.');
    }
    for &byte in label {
        match byte {
            b'.' | b'\\' => {
                name.push('\\');
                name.push(char::from(byte));
            }
            0x21..=0x7e => name.push(char::from(byte.to_ascii_lowercase())),
            // Writing to a `String` cannot fail.
            _ => drop(write!(name, "\\{byte:03}")),
        }
    }
}

/// Whether a type has a mnemonic.
pub(super) fn is_known_type(kind: u16) -> bool {
    matches!(type_name(kind), Cow::Borrowed(_))
}

/// IANA mnemonic of a response code, or `RCODEn`.
pub(super) fn rcode_name(code: u16) -> Cow<'static, str> {
    const NAMES: [&str; 12] = [
        "NOERROR",
        "FORMERR",
        "SERVFAIL",
        "NXDOMAIN",
        "NOTIMP",
        "REFUSED",
        "YXDOMAIN",
        "YXRRSET",
        "NXRRSET",
        "NOTAUTH",
        "NOTZONE",
        "DSOTYPENI",
    ];
    let extended = match code {
        16 => Some("BADVERS"),
        17 => Some("BADKEY"),
        18 => Some("BADTIME"),
        19 => Some("BADMODE"),
        20 => Some("BADNAME"),
        21 => Some("BADALG"),
        22 => Some("BADTRUNC"),
        23 => Some("BADCOOKIE"),
        _ => None,
    };
    let name = NAMES.get(usize::from(code)).copied().or(extended);
    name.map_or_else(|| format!("RCODE{code}").into(), Cow::Borrowed)
}

/// IANA mnemonic of a record type, or `TYPEn` (RFC 3597); 255 is `ANY` as tools write it.
pub(super) fn type_name(kind: u16) -> Cow<'static, str> {
    let name = match kind {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        10 => "NULL",
        11 => "WKS",
        12 => "PTR",
        13 => "HINFO",
        14 => "MINFO",
        15 => "MX",
        16 => "TXT",
        17 => "RP",
        18 => "AFSDB",
        24 => "SIG",
        25 => "KEY",
        28 => "AAAA",
        29 => "LOC",
        33 => "SRV",
        35 => "NAPTR",
        36 => "KX",
        37 => "CERT",
        39 => "DNAME",
        41 => "OPT",
        42 => "APL",
        43 => "DS",
        44 => "SSHFP",
        45 => "IPSECKEY",
        46 => "RRSIG",
        47 => "NSEC",
        48 => "DNSKEY",
        49 => "DHCID",
        50 => "NSEC3",
        51 => "NSEC3PARAM",
        52 => "TLSA",
        53 => "SMIMEA",
        55 => "HIP",
        59 => "CDS",
        60 => "CDNSKEY",
        61 => "OPENPGPKEY",
        62 => "CSYNC",
        63 => "ZONEMD",
        64 => "SVCB",
        65 => "HTTPS",
        99 => "SPF",
        108 => "EUI48",
        109 => "EUI64",
        249 => "TKEY",
        250 => "TSIG",
        251 => "IXFR",
        252 => "AXFR",
        255 => "ANY",
        256 => "URI",
        257 => "CAA",
        _ => return format!("TYPE{kind}").into(),
    };
    name.into()
}
