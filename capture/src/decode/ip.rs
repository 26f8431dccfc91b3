//! IPv4 (RFC 791) and IPv6 (RFC 8200) with extension headers.
//!
//! Lengths come from the header, so that a snap length changes no figure; a total length of zero (segmentation offload)
//! is the wire's. Padding after the total length is not payload.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::link::Link;
use super::{DecodeError, Decoded, transport, u16_at};
use crate::record::Protocol;

/// Extension headers that are followed.
const MAX_EXTENSIONS: usize = 16;

/// An IP packet, before its transport header is read.
pub(super) struct Ip<'a> {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) protocol: Protocol,
    pub(super) dscp: u8,
    /// Identification of the IPv4 header.
    pub(super) identification: Option<u16>,
    /// Length of the whole packet on the wire.
    pub(super) total_len: u32,
    /// Captured bytes after the IP headers.
    pub(super) payload: &'a [u8],
    /// Bytes after the IP headers on the wire.
    pub(super) payload_len: u32,
    /// Not the first fragment: no transport header.
    pub(super) later_fragment: bool,
}

/// Decodes the IP packet of a frame of `wire_len` bytes.
pub(super) fn decode<'a>(link: &Link<'a>, wire_len: u32) -> Result<Decoded<'a>, DecodeError> {
    let on_wire = wire_len.saturating_sub(link.header_len as u32);
    let first = *link.payload.first().ok_or(DecodeError::IpCut)?;
    let ip = match first >> 4 {
        4 => v4(link.payload, on_wire)?,
        6 => v6(link.payload, on_wire)?,
        _ => return Err(DecodeError::IpMalformed),
    };
    transport::decode(link, &ip)
}

fn v4(data: &[u8], on_wire: u32) -> Result<Ip<'_>, DecodeError> {
    let header = data.first_chunk::<20>().ok_or(DecodeError::IpCut)?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total_len = match u32::from(u16::from_be_bytes([header[2], header[3]])) {
        0 => on_wire,
        total => total,
    };
    if header_len < 20 || (total_len as usize) < header_len {
        return Err(DecodeError::IpMalformed);
    }
    let payload = data.get(header_len..).ok_or(DecodeError::IpCut)?;
    let payload_len = total_len - header_len as u32;
    let offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    let address = |at: usize| header.get(at..).and_then(|rest| rest.first_chunk::<4>()).copied().unwrap_or_default();
    Ok(Ip {
        src: Ipv4Addr::from(address(12)).into(),
        dst: Ipv4Addr::from(address(16)).into(),
        protocol: Protocol(header[9]),
        dscp: header[1] >> 2,
        identification: Some(u16::from_be_bytes([header[4], header[5]])),
        total_len,
        payload: cut(payload, payload_len),
        payload_len,
        later_fragment: offset != 0,
    })
}

/// Captured bytes without the link layer's padding.
fn cut(payload: &[u8], len: u32) -> &[u8] {
    payload.get(..len as usize).unwrap_or(payload)
}

fn v6(data: &[u8], on_wire: u32) -> Result<Ip<'_>, DecodeError> {
    let header = data.first_chunk::<40>().ok_or(DecodeError::IpCut)?;
    let stated = u32::from(u16::from_be_bytes([header[4], header[5]]));
    // A jumbogram (RFC 2675) or an offloaded segment states no length.
    let total_len = if stated == 0 && (header[6] == 0 || on_wire > 40) { on_wire } else { stated + 40 };
    let rest = cut(data, total_len);
    let mut ip = Ip {
        src: Ipv6Addr::from(data.get(8..).and_then(|r| r.first_chunk::<16>()).copied().unwrap_or_default()).into(),
        dst: Ipv6Addr::from(data.get(24..).and_then(|r| r.first_chunk::<16>()).copied().unwrap_or_default()).into(),
        protocol: Protocol(header[6]),
        dscp: ((header[0] & 0x0f) << 2) | (header[1] >> 6),
        identification: None,
        total_len,
        payload: rest.get(40..).unwrap_or_default(),
        payload_len: total_len.checked_sub(40).ok_or(DecodeError::IpMalformed)?,
        later_fragment: false,
    };
    for _ in 0..MAX_EXTENSIONS {
        if ip.later_fragment {
            return Ok(ip);
        }
        let Some(next) = extension(&mut ip)? else { return Ok(ip) };
        ip.protocol = Protocol(next);
    }
    Err(DecodeError::IpMalformed)
}

/// Steps over one extension header; `None` if the next header is none.
fn extension(ip: &mut Ip<'_>) -> Result<Option<u8>, DecodeError> {
    let length = |unit: usize, plus: usize| ip.payload.get(1).map(|len| (usize::from(*len) + plus) * unit);
    let len = match ip.protocol.0 {
        // Hop-by-hop, routing, destination options, mobility, HIP, shim6.
        0 | 43 | 60 | 135 | 139 | 140 => length(8, 1),
        // Authentication header counts 4 byte units, less two.
        51 => length(4, 2),
        44 => {
            let offset = u16_at(ip.payload, 2).ok_or(DecodeError::IpCut)? >> 3;
            ip.later_fragment = offset != 0;
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
