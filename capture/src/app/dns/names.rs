//! Mnemonics of DNS parameters (IANA), and names in presentation format (RFC 1035, 5.1).

use std::borrow::Cow;
use std::fmt::Write as _;

/// All record types that have a mnemonic (IANA's registry of DNS parameters, RFC 6895), in order; 255 is `ANY` as tools write it.
#[rustfmt::skip]
const TYPES: [(u16, &str); 97] = [
    (1, "A"), (2, "NS"), (3, "MD"), (4, "MF"), (5, "CNAME"), (6, "SOA"), (7, "MB"), (8, "MG"), (9, "MR"),
    (10, "NULL"), (11, "WKS"), (12, "PTR"), (13, "HINFO"), (14, "MINFO"), (15, "MX"), (16, "TXT"), (17, "RP"),
    (18, "AFSDB"), (19, "X25"), (20, "ISDN"), (21, "RT"), (22, "NSAP"), (23, "NSAP-PTR"), (24, "SIG"), (25, "KEY"),
    (26, "PX"), (27, "GPOS"), (28, "AAAA"), (29, "LOC"), (30, "NXT"), (31, "EID"), (32, "NIMLOC"), (33, "SRV"),
    (34, "ATMA"), (35, "NAPTR"), (36, "KX"), (37, "CERT"), (38, "A6"), (39, "DNAME"), (40, "SINK"), (41, "OPT"),
    (42, "APL"), (43, "DS"), (44, "SSHFP"), (45, "IPSECKEY"), (46, "RRSIG"), (47, "NSEC"), (48, "DNSKEY"),
    (49, "DHCID"), (50, "NSEC3"), (51, "NSEC3PARAM"), (52, "TLSA"), (53, "SMIMEA"), (55, "HIP"), (56, "NINFO"),
    (57, "RKEY"), (58, "TALINK"), (59, "CDS"), (60, "CDNSKEY"), (61, "OPENPGPKEY"), (62, "CSYNC"), (63, "ZONEMD"),
    (64, "SVCB"), (65, "HTTPS"), (66, "DSYNC"), (67, "HHIT"), (68, "BRID"), (99, "SPF"), (100, "UINFO"),
    (101, "UID"), (102, "GID"), (103, "UNSPEC"), (104, "NID"), (105, "L32"), (106, "L64"), (107, "LP"),
    (108, "EUI48"), (109, "EUI64"), (128, "NXNAME"), (249, "TKEY"), (250, "TSIG"), (251, "IXFR"), (252, "AXFR"),
    (253, "MAILB"), (254, "MAILA"), (255, "ANY"), (256, "URI"), (257, "CAA"), (258, "AVC"), (259, "DOA"),
    (260, "AMTRELAY"), (261, "RESINFO"), (262, "WALLET"), (263, "CLA"), (264, "IPN"), (32768, "TA"), (32769, "DLV"),
];

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

/// IANA mnemonic of a record type, or `TYPEn` (RFC 3597).
pub(super) fn type_name(kind: u16) -> Cow<'static, str> {
    let found = TYPES.binary_search_by_key(&kind, |(number, _)| *number).ok().and_then(|at| TYPES.get(at));
    found.map_or_else(|| format!("TYPE{kind}").into(), |(_, name)| Cow::Borrowed(*name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_their_mnemonics() {
        assert!(TYPES.is_sorted_by_key(|(number, _)| *number));
        let names = [1, 9, 38, 54, 65, 106, 255, 260, 265, 32_769].map(type_name);
        assert_eq!(names, ["A", "MR", "A6", "TYPE54", "HTTPS", "L64", "ANY", "AMTRELAY", "TYPE265", "DLV"]);
    }
}
