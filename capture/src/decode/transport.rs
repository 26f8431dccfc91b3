//! TCP (RFC 9293), UDP (RFC 768), UDP-Lite (RFC 3828), ICMP (RFC 792), ICMPv6 (RFC 4443), SCTP's ports and first chunk
//! (RFC 9260).
//!
//! Checksums are not looked at: on veths they are filled in later, or never.

use super::icmp;
use super::ip::Ip;
use super::link::Link;
use super::{DecodeError, Decoded, Tcp, Transport, u16_at, u32_at};
use crate::record::Protocol;

/// Ports, if there are any, and what has them.
pub(super) type Parsed<'a> = (Option<(u16, u16)>, Transport<'a>);

/// Reads the transport header, if this is where it is.
pub(super) fn parse<'a>(ip: &Ip<'a>) -> Result<Parsed<'a>, DecodeError> {
    if ip.is_later_fragment() {
        return Ok(portless(ip));
    }
    let (ports, transport) = match ip.protocol {
        Protocol::TCP => segment(ip.payload, ip.payload_len)?,
        Protocol::UDP => datagram(ip.payload, ip.payload_len).ok_or(DecodeError::TransportCut)?,
        Protocol::UDP_LITE => udp_lite(ip)?,
        Protocol::ICMP | Protocol::ICMP6 => message(ip)?,
        Protocol::SCTP => sctp(ip)?,
        Protocol(_) => return Ok(portless(ip)),
    };
    Ok((Some(ports), transport))
}

/// A packet without transport header.
pub(super) const fn portless<'a>(ip: &Ip<'_>) -> Parsed<'a> {
    (None, Transport::Other { payload_len: ip.payload_len })
}

type WithPorts<'a> = ((u16, u16), Transport<'a>);

/// All that is known of a packet, written once.
#[inline(always)]
pub(super) fn put_together<'a>(
    link: &Link<'_>,
    ip: &Ip<'_>,
    ports: Option<(u16, u16)>,
    transport: Transport<'a>,
) -> Decoded<'a> {
    Decoded {
        src: ip.ends.src(),
        dst: ip.ends.dst(),
        protocol: ip.protocol,
        src_port: ports.map(|ports| ports.0),
        dst_port: ports.map(|ports| ports.1),
        src_mac: link.src_mac.copied(),
        dst_mac: link.dst_mac.copied(),
        vlan: link.vlan,
        vlan_inner: link.vlan_inner,
        dscp: ip.dscp,
        ip_id: ip.id,
        fragment: None,
        tunnel: None,
        tunnel_scope: 0,
        carrier: false,
        ip_bytes: ip.total_len,
        transport,
    }
}

/// A TCP segment of `len` bytes on the wire.
#[inline(always)]
pub(super) fn segment(data: &[u8], len: u32) -> Result<WithPorts<'_>, DecodeError> {
    let header = data.first_chunk::<20>().ok_or(DecodeError::TransportCut)?;
    let [s0, s1, d0, d1, n0, n1, n2, n3, a0, a1, a2, a3, offset, flags, w0, w1, ..] = *header;
    let header_len = usize::from(offset >> 4) * 4;
    if header_len < 20 || header_len > len as usize {
        return Err(DecodeError::TransportMalformed);
    }
    let segment = Tcp {
        seq: u32::from_be_bytes([n0, n1, n2, n3]),
        ack: u32::from_be_bytes([a0, a1, a2, a3]),
        flags,
        window: u16::from_be_bytes([w0, w1]),
        // Options that the snap length cut are read as far as they go.
        options: data.get(20..header_len.min(data.len())).unwrap_or_default(),
        options_len: (header_len - 20) as u8,
        payload: data.get(header_len..).unwrap_or_default(),
        payload_len: len - header_len as u32,
    };
    Ok(((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])), Transport::Tcp(segment)))
}

/// A UDP datagram of `len` bytes on the wire; `None` if its header is cut.
#[inline(always)]
pub(super) fn datagram(data: &[u8], len: u32) -> Option<WithPorts<'_>> {
    let (header, captured) = data.split_first_chunk::<8>()?;
    let [s0, s1, d0, d1, l0, l1, ..] = *header;
    // The first fragment of a longer datagram states the length of the whole; zero is a jumbogram or offload.
    let stated = u32::from(u16::from_be_bytes([l0, l1]));
    let payload_len = if (8..=len).contains(&stated) { stated - 8 } else { len.saturating_sub(8) };
    let payload = captured.get(..payload_len as usize).unwrap_or(captured);
    Some(((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])), Transport::Udp { payload, payload_len }))
}

/// Its header has the coverage of the checksum where UDP has the length.
fn udp_lite<'a>(ip: &Ip<'a>) -> Result<WithPorts<'a>, DecodeError> {
    let payload = ip.payload.get(8..).ok_or(DecodeError::TransportCut)?;
    let ports = quoted_ports(ip).ok_or(DecodeError::TransportCut)?;
    Ok((ports, Transport::Udp { payload, payload_len: ip.payload_len.saturating_sub(8) }))
}

fn sctp<'a>(ip: &Ip<'a>) -> Result<WithPorts<'a>, DecodeError> {
    let ports = quoted_ports(ip).ok_or(DecodeError::TransportCut)?;
    let chunk = ip.payload.get(12).copied();
    Ok((ports, Transport::Sctp { chunk, payload_len: ip.payload_len.saturating_sub(12) }))
}

fn message<'a>(ip: &Ip<'a>) -> Result<WithPorts<'a>, DecodeError> {
    let [kind, code] = *ip.payload.first_chunk::<2>().ok_or(DecodeError::TransportCut)?;
    let payload = ip.payload.get(8..).unwrap_or_default();
    let (rest, payload_len) = (u32_at(ip.payload, 4).unwrap_or_default(), ip.payload_len.saturating_sub(8));
    let transport = Transport::Icmp { kind, code, rest, payload, payload_len };
    Ok((icmp::ports(ip.protocol, kind, code), transport))
}

/// The ports of a packet of which little more than the IP header is there, as ICMP errors quote it.
pub(super) fn quoted_ports(ip: &Ip<'_>) -> Option<(u16, u16)> {
    if ip.is_later_fragment() {
        return None;
    }
    match ip.protocol {
        Protocol::TCP | Protocol::UDP | Protocol::UDP_LITE | Protocol::SCTP => {
            u16_at(ip.payload, 0).zip(u16_at(ip.payload, 2))
        }
        Protocol::ICMP | Protocol::ICMP6 => {
            let [kind, code] = *ip.payload.first_chunk::<2>()?;
            Some(icmp::ports(ip.protocol, kind, code))
        }
        Protocol(_) => None,
    }
}
