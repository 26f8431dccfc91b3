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

/// Characters of a fingerprint.
const LENGTH: usize = 36;

/// The fingerprint. One list of numbers and one text serve for all that is sorted and hashed.
pub(super) fn ja4(hello: &ClientHello<'_>, carrier: Carrier) -> String {
    let (mut numbers, mut text) = (Vec::with_capacity(64), Vec::with_capacity(512));
    let fill = |numbers: &mut Vec<u16>, values: &mut dyn Iterator<Item = u16>| {
        numbers.clear();
        numbers.extend(values.filter(|value| !is_grease(*value)));
        numbers.len()
    };
    let ciphers = fill(&mut numbers, &mut hello.ciphers());
    numbers.sort_unstable();
    list(&mut text, &numbers);
    let cipher_hash = hash(&text);
    let extensions = fill(&mut numbers, &mut hello.extensions());
    numbers.retain(|kind| !LEFT_OUT.contains(kind));
    numbers.sort_unstable();
    text.clear();
    list(&mut text, &numbers);
    if fill(&mut numbers, &mut hello.signature_algorithms()) > 0 {
        text.push(b'_');
        list(&mut text, &numbers);
    }
    let extension_hash = hash(&text);
    let mut fingerprint = String::with_capacity(LENGTH);
    fingerprint.push(match carrier {
        Carrier::Tls => 't',
        Carrier::Dtls => 'd',
        Carrier::Quic => 'q',
    });
    fingerprint.push_str(version(hello, carrier));
    fingerprint.push(if hello.has_server_name() { 'd' } else { 'i' });
    for count in [ciphers, extensions] {
        let count = count.min(99) as u8;
        fingerprint.extend([count / 10, count % 10].map(digit).map(char::from));
    }
    fingerprint.extend(alpn(hello.first_alpn().unwrap_or_default()));
    for part in [cipher_hash, extension_hash] {
        fingerprint.push('_');
        fingerprint.extend(part.map(char::from));
    }
    fingerprint
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
fn alpn(value: &[u8]) -> [char; 2] {
    let (Some(&first), Some(&last)) = (value.first(), value.last()) else { return ['0'; 2] };
    if !first.is_ascii() || !last.is_ascii() {
        ['9'; 2]
    } else if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        [first, last].map(char::from)
    } else {
        [first >> 4, last & 0x0f].map(digit).map(char::from)
    }
}

/// Appends four hex digits each, joined by commas.
fn list(text: &mut Vec<u8>, values: &[u16]) {
    for (number, value) in values.iter().enumerate() {
        if number > 0 {
            text.push(b',');
        }
        let [high, low] = value.to_be_bytes();
        text.extend([high >> 4, high & 0x0f, low >> 4, low & 0x0f].map(digit));
    }
}

/// Hex digits of a hash that are shown.
const HASH_DIGITS: usize = 12;

/// The first hex digits of the SHA-256; zeros for an empty list.
fn hash(text: &[u8]) -> [u8; HASH_DIGITS] {
    let mut digits = [b'0'; HASH_DIGITS];
    if !text.is_empty() {
        for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(Sha256::digest(text)) {
            *pair = [byte >> 4, byte & 0x0f].map(digit);
        }
    }
    digits
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
        assert_eq!(
            hash(b"002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9"),
            *b"8daaf6152771"
        );
        let extensions = "0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01";
        assert_eq!(hash(extensions.as_bytes()), *b"6d807ffa2a79");
        assert_eq!(hash(format!("{extensions}_0403,0804,0401,0503,0805,0501,0806,0601").as_bytes()), *b"e5627efa2ab1");
        assert_eq!(hash(b""), *b"000000000000");
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
            assert_eq!(alpn(value).iter().collect::<String>(), expected, "{value:?}");
        }
    }

    #[test]
    fn grease_is_told_from_its_neighbours() {
        assert_eq!((0..=u16::MAX).filter(|value| is_grease(*value)).count(), 16);
        assert!(is_grease(0x0a0a) && is_grease(0xfafa) && !is_grease(0x0a1a) && !is_grease(0x1301));
    }
}
