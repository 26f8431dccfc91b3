//! TCP (RFC 9293), UDP (RFC 768), UDP-Lite (RFC 3828), ICMP (RFC 792), ICMPv6 (RFC 4443), SCTP's ports (RFC 9260).
//!
//! Checksums are not looked at: on veths they are filled in later, or never.

use super::icmp;
use super::ip::Ip;
use super::link::Link;
use super::{DecodeError, Decoded, Tcp, Transport, u16_at, u32_at};
use crate::record::Protocol;

/// Reads the transport header and puts everything together.
#[inline]
pub(super) fn decode<'a>(link: &Link<'a>, ip: &Ip<'a>) -> Result<Decoded<'a>, DecodeError> {
    let (src_port, dst_port, transport) = if ip.is_later_fragment() {
        (None, None, Transport::Other { payload_len: ip.payload_len })
    } else {
        match ip.protocol {
            Protocol::TCP => tcp(ip)?,
            Protocol::UDP => udp(ip)?,
            protocol => rare(ip, protocol)?,
        }
    };
    Ok(Decoded {
        src: ip.src,
        dst: ip.dst,
        protocol: ip.protocol,
        src_port,
        dst_port,
        src_mac: link.src_mac,
        dst_mac: link.dst_mac,
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
    })
}

type Parsed<'a> = Result<(Option<u16>, Option<u16>, Transport<'a>), DecodeError>;

fn rare<'a>(ip: &Ip<'a>, protocol: Protocol) -> Parsed<'a> {
    match protocol {
        Protocol::ICMP | Protocol::ICMP6 => message(ip),
        Protocol::UDP_LITE => udp_lite(ip),
        Protocol::SCTP => sctp(ip),
        Protocol(_) => Ok((None, None, Transport::Other { payload_len: ip.payload_len })),
    }
}

#[inline]
fn tcp<'a>(ip: &Ip<'a>) -> Parsed<'a> {
    let data = ip.payload;
    let header = data.first_chunk::<20>().ok_or(DecodeError::TransportCut)?;
    let [s0, s1, d0, d1, n0, n1, n2, n3, a0, a1, a2, a3, offset, flags, w0, w1, ..] = *header;
    let header_len = usize::from(offset >> 4) * 4;
    if header_len < 20 || header_len > ip.payload_len as usize {
        return Err(DecodeError::TransportMalformed);
    }
    // Options that the snap length cut are read as far as they go.
    let options = data.get(20..header_len.min(data.len())).unwrap_or_default();
    let segment = Tcp {
        seq: u32::from_be_bytes([n0, n1, n2, n3]),
        ack: u32::from_be_bytes([a0, a1, a2, a3]),
        flags,
        window: u16::from_be_bytes([w0, w1]),
        options,
        payload: data.get(header_len..).unwrap_or_default(),
        payload_len: ip.payload_len - header_len as u32,
    };
    let ports = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
    Ok((Some(ports.0), Some(ports.1), Transport::Tcp(segment)))
}

#[inline]
fn udp<'a>(ip: &Ip<'a>) -> Parsed<'a> {
    let (header, captured) = ip.payload.split_first_chunk::<8>().ok_or(DecodeError::TransportCut)?;
    let [s0, s1, d0, d1, l0, l1, ..] = *header;
    // The first fragment of a longer datagram states the length of the whole; zero is a jumbogram or offload.
    let stated = u32::from(u16::from_be_bytes([l0, l1]));
    let payload_len =
        if (8..=ip.payload_len).contains(&stated) { stated - 8 } else { ip.payload_len.saturating_sub(8) };
    let payload = captured.get(..payload_len as usize).unwrap_or(captured);
    let ports = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
    Ok((Some(ports.0), Some(ports.1), Transport::Udp { payload, payload_len }))
}

/// Its header has the coverage of the checksum where UDP has the length.
fn udp_lite<'a>(ip: &Ip<'a>) -> Parsed<'a> {
    let payload = ip.payload.get(8..).ok_or(DecodeError::TransportCut)?;
    let payload_len = ip.payload_len.saturating_sub(8);
    Ok((u16_at(ip.payload, 0), u16_at(ip.payload, 2), Transport::Udp { payload, payload_len }))
}

fn sctp<'a>(ip: &Ip<'a>) -> Parsed<'a> {
    let payload_len = ip.payload_len.saturating_sub(12);
    u32_at(ip.payload, 0).ok_or(DecodeError::TransportCut)?;
    Ok((u16_at(ip.payload, 0), u16_at(ip.payload, 2), Transport::Other { payload_len }))
}

fn message<'a>(ip: &Ip<'a>) -> Parsed<'a> {
    let [kind, code] = *ip.payload.first_chunk::<2>().ok_or(DecodeError::TransportCut)?;
    let (src_port, dst_port) = icmp::ports(ip.protocol, kind, code);
    let payload = ip.payload.get(8..).unwrap_or_default();
    let transport = Transport::Icmp { kind, code, payload, payload_len: ip.payload_len.saturating_sub(8) };
    Ok((Some(src_port), Some(dst_port), transport))
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
