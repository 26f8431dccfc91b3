//! TCP (RFC 9293), UDP (RFC 768), ICMP (RFC 792), ICMPv6 (RFC 4443), SCTP ports (RFC 9260).

use super::ip::Ip;
use super::link::Link;
use super::{DecodeError, Decoded, Tcp, Transport, u16_at, u32_at};
use crate::record::Protocol;

/// Reads the transport header and puts everything together.
pub(super) fn decode<'a>(link: &Link<'a>, ip: &Ip<'a>) -> Result<Decoded<'a>, DecodeError> {
    let (src_port, dst_port, transport) = if ip.later_fragment {
        (None, None, Transport::Other { payload_len: ip.payload_len })
    } else {
        match ip.protocol {
            Protocol::TCP => tcp(ip)?,
            Protocol::UDP => udp(ip)?,
            Protocol::ICMP => icmp(ip, icmp4_ports)?,
            Protocol::ICMP6 => icmp(ip, icmp6_ports)?,
            Protocol::SCTP => sctp(ip)?,
            Protocol(_) => (None, None, Transport::Other { payload_len: ip.payload_len }),
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
        ip_id: ip.identification,
        tunnel: None,
        ip_bytes: ip.total_len,
        transport,
    })
}

type Parsed<'a> = Result<(Option<u16>, Option<u16>, Transport<'a>), DecodeError>;

fn tcp<'a>(ip: &Ip<'a>) -> Parsed<'a> {
    let data = ip.payload;
    let header = data.first_chunk::<20>().ok_or(DecodeError::TransportCut)?;
    let header_len = usize::from(header[12] >> 4) * 4;
    if header_len < 20 || header_len > ip.payload_len as usize {
        return Err(DecodeError::TransportMalformed);
    }
    // Options that the snap length cut are read as far as they go.
    let options = data.get(20..header_len.min(data.len())).unwrap_or_default();
    let segment = Tcp {
        seq: u32_at(data, 4).ok_or(DecodeError::TransportCut)?,
        ack: u32_at(data, 8).ok_or(DecodeError::TransportCut)?,
        flags: header[13],
        window: u16::from_be_bytes([header[14], header[15]]),
        options,
        payload: data.get(header_len..).unwrap_or_default(),
        payload_len: ip.payload_len - header_len as u32,
    };
    Ok((u16_at(data, 0), u16_at(data, 2), Transport::Tcp(segment)))
}

fn udp<'a>(ip: &Ip<'a>) -> Parsed<'a> {
    let data = ip.payload;
    if data.len() < 8 {
        return Err(DecodeError::TransportCut);
    }
    // The first fragment of a longer datagram states the length of the whole; zero is a jumbogram or offload.
    let stated = u32::from(u16_at(data, 4).unwrap_or(0));
    let payload_len =
        if (8..=ip.payload_len).contains(&stated) { stated - 8 } else { ip.payload_len.saturating_sub(8) };
    let captured = data.get(8..).unwrap_or_default();
    let payload = captured.get(..payload_len as usize).unwrap_or(captured);
    Ok((u16_at(data, 0), u16_at(data, 2), Transport::Udp { payload, payload_len }))
}

fn sctp<'a>(ip: &Ip<'a>) -> Parsed<'a> {
    let payload_len = ip.payload_len.saturating_sub(12);
    let src = u16_at(ip.payload, 0).ok_or(DecodeError::TransportCut)?;
    let dst = u16_at(ip.payload, 2).ok_or(DecodeError::TransportCut)?;
    Ok((Some(src), Some(dst), Transport::Other { payload_len }))
}

/// Type and code, as the ports of Community ID v1: a request and its reply make one pair, one-way messages keep type and
/// code.
fn icmp<'a>(ip: &Ip<'a>, ports: fn(u8) -> Option<u8>) -> Parsed<'a> {
    let kind = *ip.payload.first().ok_or(DecodeError::TransportCut)?;
    let code = *ip.payload.get(1).ok_or(DecodeError::TransportCut)?;
    let other = ports(kind).unwrap_or(code);
    let transport = Transport::Icmp { kind, code, payload_len: ip.payload_len.saturating_sub(8) };
    Ok((Some(kind.into()), Some(other.into()), transport))
}

/// The answering type of an ICMP message.
const fn icmp4_ports(kind: u8) -> Option<u8> {
    Some(match kind {
        0 => 8,
        8 => 0,
        9 => 10,
        10 => 9,
        13 => 14,
        14 => 13,
        15 => 16,
        16 => 15,
        17 => 18,
        18 => 17,
        _ => return None,
    })
}

/// The answering type of an ICMPv6 message.
const fn icmp6_ports(kind: u8) -> Option<u8> {
    Some(match kind {
        128 => 129,
        129 => 128,
        130 => 131,
        131 => 130,
        133 => 134,
        134 => 133,
        135 => 136,
        136 => 135,
        139 => 140,
        140 => 139,
        144 => 145,
        145 => 144,
        _ => return None,
    })
}
