//! Packet bytes to the innermost packet's addresses, ports and transport fields.

mod ip;
mod link;
mod transport;
mod vxlan;

use std::net::IpAddr;

use crate::packet::Packet;
use crate::record::{MAX_TUNNELS, Protocol, Tunnel, TunnelKind};

/// The innermost packet of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Source port; ICMP: Community ID's pairing of type and code. `None` without ports or in later fragments.
    pub src_port: Option<u16>,
    /// Destination port, as `src_port`.
    pub dst_port: Option<u16>,
    /// Link-layer source of the innermost frame.
    pub src_mac: Option<[u8; 6]>,
    /// Link-layer destination of the innermost frame.
    pub dst_mac: Option<[u8; 6]>,
    /// Outer VLAN id.
    pub vlan: Option<u16>,
    /// Inner VLAN id.
    pub vlan_inner: Option<u16>,
    /// DSCP.
    pub dscp: u8,
    /// Identification of the IPv4 header; IPv6 has none.
    pub ip_id: Option<u16>,
    /// Tunnel around the packet.
    pub tunnel: Option<Tunnel>,
    /// Length of the IP packet from its header (the wire's, not the snap length's), bytes.
    pub ip_bytes: u32,
    /// Transport header and payload.
    pub transport: Transport<'a>,
}

/// What follows the IP header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport<'a> {
    /// TCP, RFC 9293.
    Tcp(Tcp<'a>),
    /// UDP, RFC 768: payload as captured, and its length on the wire.
    Udp {
        /// Captured payload.
        payload: &'a [u8],
        /// Payload length on the wire.
        payload_len: u32,
    },
    /// ICMP or ICMPv6.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Payload length after the 8 byte header on the wire.
        payload_len: u32,
    },
    /// Any other protocol, or a later fragment.
    Other {
        /// Length after the IP header on the wire.
        payload_len: u32,
    },
}

/// A TCP segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tcp<'a> {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Flags, bit 0 FIN … bit 7 CWR.
    pub flags: u8,
    /// Window as in the header, not scaled.
    pub window: u16,
    /// Options, as captured.
    pub options: &'a [u8],
    /// Captured payload.
    pub payload: &'a [u8],
    /// Payload length on the wire.
    pub payload_len: u32,
}

/// Flag bits of the TCP header.
pub mod flags {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// PSH.
    pub const PSH: u8 = 0x08;
    /// ACK.
    pub const ACK: u8 = 0x10;
}

/// Why a packet belongs to no flow. Each is a counted reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DecodeError {
    /// The link type has no decoder.
    #[error("link type has no decoder")]
    LinkType,
    /// Not IP: ARP, LLDP, STP and the like.
    #[error("not an IP packet")]
    NotIp,
    /// Cut before the end of the link-layer header.
    #[error("cut in the link-layer header")]
    LinkCut,
    /// Cut before the end of the IP header.
    #[error("cut in the IP header")]
    IpCut,
    /// Version, header length or total length of the IP header contradict each other.
    #[error("malformed IP header")]
    IpMalformed,
    /// Cut before the end of the transport header.
    #[error("cut in the transport header")]
    TransportCut,
    /// Lengths in the transport header contradict each other.
    #[error("malformed transport header")]
    TransportMalformed,
}

impl DecodeError {
    /// Label of the reason in metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::LinkType => "link_type",
            Self::NotIp => "not_ip",
            Self::LinkCut => "link_cut",
            Self::IpCut => "ip_cut",
            Self::IpMalformed => "ip_malformed",
            Self::TransportCut => "transport_cut",
            Self::TransportMalformed => "transport_malformed",
        }
    }
}

/// Decodes down to the innermost packet: VXLAN is opened up to [`MAX_TUNNELS`] deep; a tunnel whose inside cannot be
/// decoded is the UDP flow that it is.
pub fn decode<'a>(packet: &Packet<'a>) -> Result<Decoded<'a>, DecodeError> {
    let link = link::parse(packet)?;
    let mut decoded = ip::decode(&link, packet.wire_len)?;
    for _ in 0..MAX_TUNNELS {
        let Some((inner, vni)) = vxlan::inner_frame(&decoded) else { break };
        let wire_len = vxlan::inner_len(&decoded);
        let Ok(inner) = link::ethernet(inner, None).and_then(|link| ip::decode(&link, wire_len)) else { break };
        let outer = decoded.tunnel.take();
        let (src, dst) = outer.as_ref().map_or((decoded.src, decoded.dst), |outer| (outer.src, outer.dst));
        let stack = outer.map(|outer| outer.stack).unwrap_or_default().with(TunnelKind::Vxlan);
        decoded = inner;
        decoded.tunnel = Some(Tunnel { stack, id: Some(vni), src, dst });
    }
    Ok(decoded)
}

/// Big-endian 16 bits at `at`.
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes))
}

/// Big-endian 32 bits at `at`.
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))
}
