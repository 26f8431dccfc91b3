//! JA4, the fingerprint of a ClientHello, after the specification that FoxIO publishes (`technical_details/JA4.md` in
//! FoxIO-LLC/ja4, BSD 3-Clause), for example `t13d1516h2_8daaf6152771_e5627efa2ab1`.
//!
//! Where the specification and FoxIO's programs disagree: an ALPN value that begins or ends outside of ASCII is `99`, as
//! the programs write it. The other members of the family (JA4+) have another licence and are not here.

use sha2::{Digest, Sha256};

use super::Carrier;
use super::hello::ClientHello;

/// SNI and ALPN: they are in the first part already.
const LEFT_OUT: [u16; 2] = [0x0000, 0x0010];

/// The fingerprint.
pub(super) fn ja4(hello: &ClientHello<'_>, carrier: Carrier) -> String {
    let mut ciphers: Vec<u16> = hello.ciphers().filter(|cipher| !is_grease(*cipher)).collect();
    let mut extensions: Vec<u16> = hello.extensions().filter(|kind| !is_grease(*kind)).collect();
    let count = extensions.len();
    ciphers.sort_unstable();
    extensions.retain(|kind| !LEFT_OUT.contains(kind));
    extensions.sort_unstable();

    let mut extension_list = list(&extensions);
    let algorithms: Vec<u16> = hello.signature_algorithms().filter(|algorithm| !is_grease(*algorithm)).collect();
    if !algorithms.is_empty() {
        extension_list.push(b'_');
        extension_list.extend(list(&algorithms));
    }
    let letter = match carrier {
        Carrier::Tls => 't',
        Carrier::Dtls => 'd',
        Carrier::Quic => 'q',
    };
    format!(
        "{letter}{version}{name}{ciphers:02}{extensions:02}{alpn}_{cipher_hash}_{extension_hash}",
        version = version(hello, carrier),
        name = if hello.has_server_name() { 'd' } else { 'i' },
        ciphers = ciphers.len().min(99),
        extensions = count.min(99),
        alpn = alpn(hello.first_alpn().unwrap_or_default()),
        cipher_hash = hash(&list(&ciphers)),
        extension_hash = hash(&extension_list),
    )
}

/// The fingerprint of SSL 2.0's ClientHello, as FoxIO's programs have it: they find no cipher suites in it.
pub(super) fn ja4_of_ssl2(version: u16) -> String {
    format!("t{}i000000_{zeros}_{zeros}", version_code(version), zeros = "0".repeat(12))
}

/// Reserved values that clients send so that servers learn to ignore what they do not know (RFC 8701).
pub(super) const fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}

/// The highest version offered. Numbers of DTLS versions go down.
fn version(hello: &ClientHello<'_>, carrier: Carrier) -> &'static str {
    let mut offered = hello.supported_versions().into_iter().flatten().filter(|version| !is_grease(*version));
    let highest = match carrier {
        Carrier::Tls | Carrier::Quic => offered.max(),
        Carrier::Dtls => offered.by_ref().min(),
    };
    version_code(highest.unwrap_or(hello.legacy_version()))
}

const fn version_code(version: u16) -> &'static str {
    match version {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        0xfeff => "d1",
        0xfefd => "d2",
        0xfefc => "d3",
        _ => "00",
    }
}

/// First and last character of the first ALPN value.
fn alpn(value: &[u8]) -> String {
    let (Some(&first), Some(&last)) = (value.first(), value.last()) else { return "00".to_owned() };
    if !first.is_ascii() || !last.is_ascii() {
        "99".to_owned()
    } else if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        [char::from(first), char::from(last)].iter().collect()
    } else {
        format!("{:x}{:x}", first >> 4, last & 0x0f)
    }
}

/// Four hex digits each, joined by commas.
fn list(values: &[u16]) -> Vec<u8> {
    let mut text = Vec::with_capacity(5 * values.len());
    for value in values {
        if !text.is_empty() {
            text.push(b',');
        }
        let [high, low] = value.to_be_bytes();
        text.extend([high >> 4, high & 0x0f, low >> 4, low & 0x0f].map(digit));
    }
    text
}

/// First twelve hex digits of the SHA-256; zeros for an empty list.
fn hash(text: &[u8]) -> String {
    if text.is_empty() {
        return "0".repeat(12);
    }
    let hash = Sha256::digest(text);
    hash.iter().take(6).flat_map(|byte| [byte >> 4, byte & 0x0f].map(digit).map(char::from)).collect()
}

/// A hex digit; formatting would take several times as long.
const fn digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'a' - 10 + value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_specification() {
        assert_eq!(hash(b"002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9"), "8daaf6152771");
        let extensions = "0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01";
        assert_eq!(hash(extensions.as_bytes()), "6d807ffa2a79");
        assert_eq!(hash(format!("{extensions}_0403,0804,0401,0503,0805,0501,0806,0601").as_bytes()), "e5627efa2ab1");
        assert_eq!(hash(b""), "000000000000");
    }

    #[test]
    fn alpn_is_its_first_and_last_character() {
        for (value, expected) in [
            (&b""[..], "00"),
            (b"h2", "h2"),
            (b"http/1.1", "h1"),
            (b"x", "xx"),
            (b"\x0a\x1b", "0b"),
            (b"a.", "6e"),
            (b"-1", "21"),
            (b"\xab", "99"),
            (b"\xab\xcd", "99"),
            (b"0\xab", "99"),
        ] {
            assert_eq!(alpn(value), expected, "{value:?}");
        }
    }

    #[test]
    fn grease_is_told_from_its_neighbours() {
        assert_eq!((0..=u16::MAX).filter(|value| is_grease(*value)).count(), 16);
        assert!(is_grease(0x0a0a) && is_grease(0xfafa) && !is_grease(0x0a1a) && !is_grease(0x1301));
    }
}
