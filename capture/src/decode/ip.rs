//! IPv4 (RFC 791) and IPv6 (RFC 8200) with extension headers.
//!
//! Lengths come from the header, so that a snap length changes no figure; a total length of zero (segmentation offload,
//! BIG TCP) is the wire's. Padding after the total length is not payload. Addresses are those of the fixed header, also
//! with a routing header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::link::Link;
use super::{DecodeError, Decoded, Fragment, u16_at, u32_at};
use crate::record::Protocol;

/// Extension headers that are followed.
const MAX_EXTENSIONS: usize = 16;

/// The smallest payload of an Ethernet frame, less the fixed header: what is above is no padding.
const MAX_PADDED: u32 = 46;

/// An IP packet, before its transport header is read.
#[derive(Debug, Clone)]
pub(super) struct Ip<'a> {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) protocol: Protocol,
    pub(super) dscp: u8,
    /// IPv4 identification.
    pub(super) id: Option<u16>,
    /// Length of the whole packet on the wire.
    pub(super) total_len: u32,
    /// Captured bytes after the IP headers.
    pub(super) payload: &'a [u8],
    /// Bytes after the IP headers on the wire.
    pub(super) payload_len: u32,
    /// Which part of a larger packet this is.
    pub(super) fragment: Option<Fragment<'a>>,
}

impl Ip<'_> {
    /// Not the first fragment: no transport header.
    pub(super) fn is_later_fragment(&self) -> bool {
        self.fragment.as_ref().is_some_and(|fragment| fragment.offset > 0)
    }
}

/// Parses the IP header and what extends it.
#[inline]
pub(super) fn parse<'a>(link: &Link<'a>) -> Result<Ip<'a>, DecodeError> {
    match *link.payload.first().ok_or(DecodeError::IpCut)? >> 4 {
        4 => v4(link.payload, link.on_wire),
        6 => v6(link.payload, link.on_wire),
        _ => Err(DecodeError::IpMalformed),
    }
}

/// The packet whose fragments were put together: `payload` is what was captured of its `len` bytes, which begin with
/// `protocol`. `part` is any of its fragments.
pub(super) fn joined<'a>(
    part: &Decoded<'_>,
    protocol: Protocol,
    payload: &'a [u8],
    len: u32,
) -> Result<Ip<'a>, DecodeError> {
    let ip = Ip {
        src: part.src,
        dst: part.dst,
        protocol,
        dscp: part.dscp,
        id: part.ip_id,
        total_len: part.ip_bytes,
        payload,
        payload_len: len,
        fragment: None,
    };
    if ip.src.is_ipv6() || ip.protocol == Protocol::AH { extensions(ip) } else { Ok(ip) }
}

#[inline]
fn v4(data: &[u8], on_wire: u32) -> Result<Ip<'_>, DecodeError> {
    let header = data.first_chunk::<20>().ok_or(DecodeError::IpCut)?;
    let [b0, tos, l0, l1, i0, i1, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let header_len = u32::from(b0 & 0x0f) * 4;
    let total_len = match u32::from(u16::from_be_bytes([l0, l1])) {
        0 => on_wire,
        total => total,
    };
    if header_len < 20 || total_len < header_len {
        return Err(DecodeError::IpMalformed);
    }
    let payload = data.get(header_len as usize..).ok_or(DecodeError::IpCut)?;
    let payload_len = total_len - header_len;
    let mut ip = Ip {
        src: Ipv4Addr::new(s0, s1, s2, s3).into(),
        dst: Ipv4Addr::new(d0, d1, d2, d3).into(),
        protocol: Protocol(protocol),
        dscp: tos >> 2,
        id: Some(u16::from_be_bytes([i0, i1])),
        total_len,
        payload: cut(payload, payload_len),
        payload_len,
        fragment: None,
    };
    let place = u16::from_be_bytes([f0, f1]);
    if place & 0x3fff != 0 {
        let offset = u32::from(place & 0x1fff) * 8;
        let id = u32::from(u16::from_be_bytes([i0, i1]));
        ip.fragment = Some(Fragment::of(&ip, id, offset, place & 0x2000 != 0));
    }
    if ip.protocol == Protocol::AH { extensions(ip) } else { Ok(ip) }
}

/// Captured bytes without the link layer's padding.
#[inline]
fn cut(payload: &[u8], len: u32) -> &[u8] {
    payload.get(..len as usize).unwrap_or(payload)
}

#[inline]
fn v6(data: &[u8], on_wire: u32) -> Result<Ip<'_>, DecodeError> {
    let (header, rest) = data.split_first_chunk::<40>().ok_or(DecodeError::IpCut)?;
    let address = |at: usize| header.get(at..).and_then(|rest| rest.first_chunk::<16>()).copied().unwrap_or_default();
    let payload_len = match u32::from(u16::from_be_bytes([header[4], header[5]])) {
        0 => unstated(header[6], rest, on_wire),
        stated => stated,
    };
    let ip = Ip {
        src: Ipv6Addr::from(address(8)).into(),
        dst: Ipv6Addr::from(address(24)).into(),
        protocol: Protocol(header[6]),
        dscp: ((header[0] & 0x0f) << 2) | (header[1] >> 6),
        id: None,
        total_len: payload_len.saturating_add(40),
        payload: cut(rest, payload_len),
        payload_len,
        fragment: None,
    };
    match ip.protocol {
        Protocol::TCP | Protocol::UDP | Protocol::ICMP6 => Ok(ip),
        Protocol(_) => extensions(ip),
    }
}

/// Payload length of a packet that states none: that of a jumbogram's option (RFC 2675), or what an offloaded segment has
/// on the wire. A short frame is padding after an empty packet.
fn unstated(next: u8, rest: &[u8], on_wire: u32) -> u32 {
    let left = on_wire.saturating_sub(40);
    if next == 0
        && let Some([_, _, 0xc2, 4]) = rest.first_chunk::<4>()
        && let Some(jumbo) = u32_at(rest, 4)
        && jumbo > 0xffff
        && jumbo <= left
    {
        return jumbo;
    }
    if next == 59 || on_wire <= MAX_PADDED { 0 } else { left }
}

/// Follows the extension headers to the transport header, or to the end of what a fragment has.
fn extensions(mut ip: Ip<'_>) -> Result<Ip<'_>, DecodeError> {
    for _ in 0..MAX_EXTENSIONS {
        if ip.is_later_fragment() {
            return Ok(ip);
        }
        let Some(next) = extension(&mut ip)? else { return Ok(ip) };
        ip.protocol = Protocol(next);
        if let Some(fragment) = ip.fragment.as_mut().filter(|fragment| fragment.data.is_empty()) {
            // The fragment header was just read: here begins what is divided.
            (fragment.protocol, fragment.data, fragment.len) = (ip.protocol, ip.payload, ip.payload_len);
        }
    }
    Err(DecodeError::IpMalformed)
}

/// Steps over one extension header; `None` if the next header is none.
fn extension(ip: &mut Ip<'_>) -> Result<Option<u8>, DecodeError> {
    let v6 = ip.src.is_ipv6();
    let length = |unit: usize, plus: usize| ip.payload.get(1).map(|len| (usize::from(*len) + plus) * unit);
    let len = match ip.protocol.0 {
        // Hop-by-hop, routing, destination options, mobility, HIP, shim6.
        0 | 43 | 60 | 135 | 139 | 140 if v6 => length(8, 1),
        // The authentication header counts 4 byte units, less two (RFC 4302).
        51 => length(4, 2),
        44 if v6 => {
            let place = u16_at(ip.payload, 2).ok_or(DecodeError::IpCut)?;
            let id = u32_at(ip.payload, 4).ok_or(DecodeError::IpCut)?;
            // An atomic fragment (RFC 6946) is a whole packet.
            if place & 0xfff9 != 0 && ip.fragment.is_none() {
                let (offset, more) = (u32::from(place & 0xfff8), place & 1 != 0);
                ip.fragment = Some(Fragment { data: &[], ..Fragment::of(ip, id, offset, more) });
            }
            Some(8)
        }
        _ => return Ok(None),
    };
    let len = len.ok_or(DecodeError::IpCut)?;
    let next = *ip.payload.first().ok_or(DecodeError::IpCut)?;
    ip.payload = ip.payload.get(len..).ok_or(DecodeError::IpCut)?;
    ip.payload_len = ip.payload_len.checked_sub(len as u32).ok_or(DecodeError::IpMalformed)?;
    Ok(Some(next))
}
