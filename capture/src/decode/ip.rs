//! IPv4 (RFC 791) and IPv6 (RFC 8200) with extension headers.
//!
//! Lengths come from the header, so that a snap length changes no figure; a total length of zero (segmentation offload,
//! BIG TCP) is the wire's, and so is one that claims more than a packet had that was seen to pass ([`most`]). Padding after the total length is not
//! payload. Addresses are those of the fixed header, also
//! with a routing header.

use std::net::IpAddr;

use super::link::Link;
use super::{DecodeError, Decoded, Fragment, u16_at, u32_at};
use crate::packet::Packet;
use crate::record::Protocol;

/// Extension headers that are followed.
const MAX_EXTENSIONS: usize = 16;

/// Offset, and the bit that says that more fragments follow.
const PLACE: u16 = 0x3fff;

/// The smallest payload of an Ethernet frame, less the fixed header: what is above is no padding.
const MAX_PADDED: u32 = 46;

/// Source and destination. Numbers stay in registers, where addresses would be copied about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ends {
    V4(u32, u32),
    V6(u128, u128),
}

impl Ends {
    #[inline(always)]
    pub(super) fn src(self) -> IpAddr {
        match self {
            Self::V4(src, _) => IpAddr::V4(src.into()),
            Self::V6(src, _) => IpAddr::V6(src.into()),
        }
    }

    #[inline(always)]
    pub(super) fn dst(self) -> IpAddr {
        match self {
            Self::V4(_, dst) => IpAddr::V4(dst.into()),
            Self::V6(_, dst) => IpAddr::V6(dst.into()),
        }
    }

    pub(super) const fn is_v6(self) -> bool {
        matches!(self, Self::V6(_, _))
    }

    fn of(decoded: &Decoded<'_>) -> Option<Self> {
        match (decoded.src, decoded.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Some(Self::V4(src.to_bits(), dst.to_bits())),
            (IpAddr::V6(src), IpAddr::V6(dst)) => Some(Self::V6(src.to_bits(), dst.to_bits())),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }
}

/// An IP packet, before its transport header is read.
#[derive(Debug, Clone)]
pub(super) struct Ip<'a> {
    pub(super) ends: Ends,
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

/// How long a frame's outermost IP packet may be at most. A short frame whose header claims 64 KiB would make anybody the top talker, and whatever
/// comes after it on its connection a retransmission. What is inside a tunnel may be cut by whoever mirrors it.
#[inline(always)]
pub(super) const fn most(packet: &Packet<'_>, link: &Link<'_>) -> u32 {
    if packet.was_seen() { link.on_wire } else { u32::MAX }
}

/// Parses the IP header and what extends it, of a packet of at most so many bytes.
pub(super) fn parse<'a>(link: &Link<'a>, most: u32) -> Result<Ip<'a>, DecodeError> {
    match *link.payload.first().ok_or(DecodeError::IpCut)? >> 4 {
        4 => v4(link.payload, link.on_wire, most),
        6 => v6(link.payload, link.on_wire, most),
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
        ends: Ends::of(part).ok_or(DecodeError::IpMalformed)?,
        protocol,
        dscp: part.dscp,
        id: part.ip_id,
        total_len: part.ip_bytes,
        payload,
        payload_len: len,
        fragment: None,
    };
    if ip.ends.is_v6() || ip.protocol == Protocol::AH { extensions(ip) } else { Ok(ip) }
}

/// IPv4 of which nothing is unusual.
#[inline(always)]
pub(super) fn plain_v4(data: &[u8], most: u32) -> Option<Ip<'_>> {
    let (ip, place) = fixed_v4(data, 0, most).ok()?;
    (place & PLACE == 0).then_some(ip)
}

/// The packet, and its fragment field. A total length of zero is `unstated`.
#[inline(always)]
fn fixed_v4(data: &[u8], unstated: u32, most: u32) -> Result<(Ip<'_>, u16), DecodeError> {
    let header = data.first_chunk::<20>().ok_or(DecodeError::IpCut)?;
    let [b0, tos, l0, l1, i0, i1, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let header_len = u32::from(b0 & 0x0f) * 4;
    let total_len = match u32::from(u16::from_be_bytes([l0, l1])) {
        0 => unstated,
        total => total.min(most),
    };
    if header_len < 20 || total_len < header_len {
        return Err(DecodeError::IpMalformed);
    }
    let payload_len = total_len - header_len;
    let ip = Ip {
        ends: Ends::V4(u32::from_be_bytes([s0, s1, s2, s3]), u32::from_be_bytes([d0, d1, d2, d3])),
        protocol: Protocol(protocol),
        dscp: tos >> 2,
        id: Some(u16::from_be_bytes([i0, i1])),
        total_len,
        payload: cut(data.get(header_len as usize..).ok_or(DecodeError::IpCut)?, payload_len),
        payload_len,
        fragment: None,
    };
    Ok((ip, u16::from_be_bytes([f0, f1])))
}

/// IPv6 with a length. What may follow is its next header's business.
#[inline(always)]
pub(super) fn plain_v6(data: &[u8], most: u32) -> Option<Ip<'_>> {
    let (header, rest) = data.split_first_chunk::<40>()?;
    let [b0, b1, _, _, l0, l1, protocol, ..] = *header;
    let payload_len = u32::from(u16::from_be_bytes([l0, l1]));
    if payload_len == 0 {
        return None;
    }
    Some(fixed_v6(header, (b0, b1, protocol), rest, payload_len.min(most.saturating_sub(40))))
}

#[inline(always)]
fn fixed_v6<'a>(header: &[u8; 40], (b0, b1, protocol): (u8, u8, u8), rest: &'a [u8], payload_len: u32) -> Ip<'a> {
    let address = |at: usize| {
        let bytes = header.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u128::from_be_bytes(*bytes))
    };
    Ip {
        ends: Ends::V6(address(8), address(24)),
        protocol: Protocol(protocol),
        dscp: ((b0 & 0x0f) << 2) | (b1 >> 6),
        id: None,
        total_len: payload_len.saturating_add(40),
        payload: cut(rest, payload_len),
        payload_len,
        fragment: None,
    }
}

fn v4(data: &[u8], on_wire: u32, most: u32) -> Result<Ip<'_>, DecodeError> {
    let (mut ip, place) = fixed_v4(data, on_wire, most)?;
    if place & PLACE != 0 {
        let id = ip.id.map(u32::from).unwrap_or_default();
        ip.fragment = Some(Fragment::of(&ip, id, u32::from(place & 0x1fff) * 8, place & 0x2000 != 0));
    }
    if ip.protocol == Protocol::AH { extensions(ip) } else { Ok(ip) }
}

/// Captured bytes without the link layer's padding.
#[inline(always)]
fn cut(payload: &[u8], len: u32) -> &[u8] {
    payload.get(..len as usize).unwrap_or(payload)
}

fn v6(data: &[u8], on_wire: u32, most: u32) -> Result<Ip<'_>, DecodeError> {
    let (header, rest) = data.split_first_chunk::<40>().ok_or(DecodeError::IpCut)?;
    let [b0, b1, _, _, l0, l1, protocol, ..] = *header;
    let payload_len = match u32::from(u16::from_be_bytes([l0, l1])) {
        0 => unstated(protocol, rest, on_wire),
        stated => stated.min(most.saturating_sub(40)),
    };
    extensions(fixed_v6(header, (b0, b1, protocol), rest, payload_len))
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
    let v6 = ip.ends.is_v6();
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
