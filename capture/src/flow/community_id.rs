//! Community ID v1 (github.com/corelight/community-id-spec): one id for a flow in every tool.

use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;

use sha1::block_api::compress;

use crate::record::Protocol;

const VERSION: &[u8; 2] = b"1:";
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Bytes that SHA-1 takes at once; most that are hashed are seed, IPv6 addresses, protocol and padding, ports: 40.
const BLOCK: usize = 64;
/// Where SHA-1 begins (FIPS 180-4, 5.3.1).
const START: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
/// Version, and 20 bytes in base 64.
const LENGTH: usize = 30;

/// An id as text, without an allocation: every flow has one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CommunityId([u8; LENGTH]);

impl CommunityId {
    /// An id that was written before; `None` if it cannot be one.
    pub fn from_text(text: &str) -> Option<Self> {
        let bytes = text.as_bytes().first_chunk().filter(|bytes| bytes.len() == text.len())?;
        text.starts_with("1:").then_some(Self(*bytes))
    }
}

impl Deref for CommunityId {
    type Target = str;

    fn deref(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for CommunityId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, formatter)
    }
}

/// Whether a message of this ICMP type has no counterpart in the specification's table, so that its flow has one
/// direction only.
pub const fn is_one_way(protocol: Protocol, kind: u8) -> bool {
    match protocol {
        Protocol::ICMP => !matches!(kind, 0 | 8 | 9 | 10 | 13..=18),
        Protocol::ICMP6 => !matches!(kind, 128..=131 | 133..=136 | 139 | 140 | 144 | 145),
        Protocol(_) => false,
    }
}

/// The id of ends that are in the specification's order already: lower address, then lower port, first; as sent for
/// one-way ICMP.
pub(super) fn of(addresses: [IpAddr; 2], protocol: Protocol, ports: Option<[u16; 2]>) -> CommunityId {
    // One block, padded here: a hasher that takes any length copies more than it hashes.
    let (mut bytes, mut length) = ([0; BLOCK], 2);
    let mut add = |part: &[u8]| {
        if let Some(place) = bytes.get_mut(length..length + part.len()) {
            place.copy_from_slice(part);
            length += part.len();
        }
    };
    for address in addresses {
        match address {
            IpAddr::V4(ip) => add(&ip.octets()),
            IpAddr::V6(ip) => add(&ip.octets()),
        }
    }
    add(&[protocol.0, 0]);
    for port in ports.into_iter().flatten() {
        add(&port.to_be_bytes());
    }
    let mut id = CommunityId([0; LENGTH]);
    let (version, text) = id.0.split_at_mut(VERSION.len());
    version.copy_from_slice(VERSION);
    text.copy_from_slice(&base64(&sha1(bytes, length)));
    id
}

/// SHA-1 of the first `length` bytes, which leave room for the padding; the others are zero (FIPS 180-4, 5.1.1).
fn sha1(mut block: [u8; BLOCK], length: usize) -> [u8; 20] {
    block[length] = 0x80;
    block[BLOCK - 2..].copy_from_slice(&(8 * length as u16).to_be_bytes());
    let (mut state, mut digest) = (START, [0; 20]);
    compress(&mut state, &[block]);
    for (bytes, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    digest
}

/// A digest in standard base 64 (RFC 4648, 4): 20 bytes are a byte less than seven groups, whose last digit is padding.
fn base64(digest: &[u8; 20]) -> [u8; 28] {
    let (mut bytes, mut text) = ([0; 21], [0; 28]);
    bytes[..20].copy_from_slice(digest);
    for ([a, b, c], digits) in bytes.as_chunks::<3>().0.iter().zip(text.as_chunks_mut::<4>().0) {
        let bits = u32::from_be_bytes([0, *a, *b, *c]);
        *digits = [18, 12, 6, 0].map(|shift| DIGITS[(bits >> shift & 63) as usize]);
    }
    text[27] = b'=';
    text
}

/// The id of what one end sends to another, whose ports are as in [`crate::Side::port`]; `None` where the protocol has ports
/// and they are not known.
pub(crate) fn between(
    from: (IpAddr, Option<u16>),
    to: (IpAddr, Option<u16>),
    protocol: Protocol,
) -> Option<CommunityId> {
    let has_ports =
        matches!(protocol, Protocol::TCP | Protocol::UDP | Protocol::SCTP | Protocol::ICMP | Protocol::ICMP6);
    let ports = from.1.zip(to.1).filter(|_| has_ports);
    if has_ports && ports.is_none() {
        return None;
    }
    let one_way = ports.is_some_and(|(kind, _)| is_one_way(protocol, kind as u8));
    let ordered = one_way || (from.0, ports.map(|ports| ports.0)) <= (to.0, ports.map(|ports| ports.1));
    let (addresses, ports) = match (ordered, ports) {
        (true, ports) => ([from.0, to.0], ports.map(|(from, to)| [from, to])),
        (false, ports) => ([to.0, from.0], ports.map(|(from, to)| [to, from])),
    };
    Some(of(addresses, protocol, ports))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(a: &str, b: &str, protocol: Protocol, ports: [u16; 2], expected: &str) {
        assert_eq!(&*of([a.parse().unwrap(), b.parse().unwrap()], protocol, Some(ports)), expected);
    }

    #[test]
    fn an_id_is_read_back() {
        let id = CommunityId::from_text("1:LQU9qZlK+B5F3KDmev6m5PMibrg=");
        assert_eq!(id.as_deref(), Some("1:LQU9qZlK+B5F3KDmev6m5PMibrg="));
        for wrong in ["", "1:abc=", "2:LQU9qZlK+B5F3KDmev6m5PMibrg=", "1:LQU9qZlK+B5F3KDmev6m5PMibrg=="] {
            assert_eq!(CommunityId::from_text(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn published_examples() {
        // From the specification's baseline.
        check("66.35.250.204", "128.232.110.120", Protocol::TCP, [80, 34855], "1:LQU9qZlK+B5F3KDmev6m5PMibrg=");
        check("8.8.8.8", "192.168.1.52", Protocol::UDP, [53, 54585], "1:d/FP5EW3wiY1vCndhwleRRKHowQ=");
        check("192.168.0.1", "192.168.0.89", Protocol::ICMP, [0, 8], "1:X0snYXpgwiv9TZtqg64sgzUn6Dk=");
        check("192.168.0.89", "192.168.0.1", Protocol::ICMP, [20, 0], "1:3o2RFccXzUgjl7zDpqmY7yJi8rI=");
    }
}
