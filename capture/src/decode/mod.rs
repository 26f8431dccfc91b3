//! Packet bytes to the innermost packet's addresses, ports and transport fields.
//!
//! The way down: [`link`] and [`layers`] to IP, [`ip`], [`transport`], and through [`tunnel`]s to the next IP packet, at
//! most [`MAX_TUNNELS`] times. What nearly all packets are (Ethernet, IP, TCP or UDP) costs a few comparisons more for all
//! the rest.
//!
//! Invariants:
//! * any bytes give a value or a [`DecodeError`] that names the layer; nothing is allocated, nothing panics;
//! * lengths are the wire's, from headers; payloads are what was captured of them;
//! * a tunnel whose inside cannot be decoded is the packet that it is; but if the snap length alone is in the way, it is
//!   the inside that cannot be read, as it would be without the tunnel;
//! * of a fragmented packet each fragment is decoded alone; the flow engine joins them and has [`Decoder::join`] go on.
//!
//! Limits: MACsec, encrypted 802.11, ESP, WireGuard and compressed headers are not opened; what samples other packets (sFlow) is no
//! tunnel.
#![allow(clippy::inline_always, reason = "measured: a call copies what else stays in registers, see `fast`")]

mod error;
mod fast;
mod gre;
mod icmp;
mod ip;
mod layers;
mod link;
mod relay;
mod seldom;
mod transport;
mod tunnel;
mod wlan;

use std::net::IpAddr;

pub use self::error::DecodeError;
pub(crate) use self::fast::Take;
pub use self::icmp::{Quote, quote};
pub(crate) use self::icmp::{answers as icmp_answers, asks_for_echo, ports as icmp_ports};
use self::ip::{Ends, Ip};
use self::layers::Stack;
use self::link::Link;
pub(crate) use self::link::cooked_place;
use self::transport::Parsed;
use self::tunnel::{Inside, Ports};
pub use self::tunnel::{Sealed, TunnelPorts, sealed};
use crate::packet::{LinkType, Packet};
use crate::record::{MAX_TUNNELS, Protocol, Tunnel, TunnelStack};

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
    /// Outer VLAN id of the innermost frame.
    pub vlan: Option<u16>,
    /// Inner VLAN id of the innermost frame.
    pub vlan_inner: Option<u16>,
    /// DSCP.
    pub dscp: u8,
    /// Identification of IPv4.
    pub ip_id: Option<u16>,
    /// Which part of a larger packet this is. Its transport is then [`Transport::Other`] with this part's share of the
    /// payload; TCP's, which is not counted by packet, with none.
    pub fragment: Option<Fragment<'a>>,
    /// Tunnel around the packet.
    pub tunnel: Option<Tunnel>,
    /// Ids of the tunnels around the innermost tunnel, mixed into one number; 0 without.
    pub tunnel_scope: u32,
    /// Carries a packet that has a flow of its own, so that this one's flow must not count in totals.
    pub carrier: bool,
    /// Length of the IP packet from its header (the wire's, not the snap length's), bytes.
    pub ip_bytes: u32,
    /// Transport header and payload.
    pub transport: Transport<'a>,
}

impl<'a> Decoded<'a> {
    /// A packet of which nothing else is known.
    pub fn new(src: IpAddr, dst: IpAddr, protocol: Protocol, transport: Transport<'a>) -> Self {
        Self {
            src,
            dst,
            protocol,
            src_port: None,
            dst_port: None,
            src_mac: None,
            dst_mac: None,
            vlan: None,
            vlan_inner: None,
            dscp: 0,
            ip_id: None,
            fragment: None,
            tunnel: None,
            tunnel_scope: 0,
            carrier: false,
            ip_bytes: 0,
            transport,
        }
    }
}

/// A fragment of an IP packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// Identification: 16 bits in IPv4.
    pub id: u32,
    /// Where its data begin in the packet's, bytes.
    pub offset: u32,
    /// Whether others follow it.
    pub more: bool,
    /// What the divided data begin with: a transport, or an extension header of IPv6.
    pub protocol: Protocol,
    /// Captured data.
    pub data: &'a [u8],
    /// Length of the data on the wire.
    pub len: u32,
}

impl<'a> Fragment<'a> {
    fn of(ip: &Ip<'a>, id: u32, offset: u32, more: bool) -> Self {
        Self { id, offset, more, protocol: ip.protocol, data: ip.payload, len: ip.payload_len }
    }
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
        /// Rest of the header: in an echo, identifier and sequence number; 0 if it was not captured.
        rest: u32,
        /// Captured payload after the 8 byte header: in errors, the packet that they are about.
        payload: &'a [u8],
        /// Payload length after the 8 byte header on the wire.
        payload_len: u32,
    },
    /// SCTP, RFC 9260.
    Sctp {
        /// Type of the first chunk, if it was captured.
        chunk: Option<u8>,
        /// Length after the common header on the wire.
        payload_len: u32,
    },
    /// Any other protocol, or a later fragment.
    Other {
        /// Length after the IP header on the wire.
        payload_len: u32,
    },
}

impl Transport<'_> {
    /// Length of the payload on the wire.
    pub const fn payload_len(&self) -> u32 {
        match self {
            Self::Tcp(segment) => segment.payload_len,
            Self::Udp { payload_len, .. }
            | Self::Icmp { payload_len, .. }
            | Self::Sctp { payload_len, .. }
            | Self::Other { payload_len } => *payload_len,
        }
    }

    /// Says another length of the payload on the wire.
    const fn set_payload_len(&mut self, len: u32) {
        match self {
            Self::Tcp(segment) => segment.payload_len = len,
            Self::Udp { payload_len, .. }
            | Self::Icmp { payload_len, .. }
            | Self::Sctp { payload_len, .. }
            | Self::Other { payload_len } => {
                *payload_len = len;
            }
        }
    }
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
    /// Length of the options on the wire, bytes.
    pub options_len: u8,
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

/// Decodes down to the innermost packet, with the usual ports of tunnels.
pub fn decode<'a>(packet: &Packet<'a>) -> Result<Decoded<'a>, DecodeError> {
    Decoder::new(TunnelPorts::default()).decode(packet)
}

/// Whether packets of this link type have a decoder.
pub fn reads(link_type: LinkType) -> bool {
    let nothing = Packet { time: 0, data: &[], wire_len: 0, link_type, interface: 0, direction: None, vlan: None };
    decode(&nothing) != Err(DecodeError::LinkType)
}

/// Decodes packets, and remembers of the last one what carried it.
#[derive(Debug)]
pub struct Decoder {
    ports: Ports,
    carriers: Vec<Decoded<'static>>,
}

impl Decoder {
    /// A decoder that opens tunnels on these ports.
    pub fn new(ports: TunnelPorts) -> Self {
        Self { ports: Ports::new(ports), carriers: Vec::with_capacity(MAX_TUNNELS) }
    }

    /// The packets around the last one that was decoded, joined or refused, outermost first: empty without tunnels.
    pub fn carriers(&self) -> &[Decoded<'static>] {
        &self.carriers
    }

    /// Decodes down to the innermost packet.
    #[inline]
    pub fn decode<'a>(&mut self, packet: &Packet<'a>) -> Result<Decoded<'a>, DecodeError> {
        match fast::plain(packet, &self.ports, AsItIs) {
            Some(decoded) => {
                self.carriers.clear();
                Ok(decoded)
            }
            None => self.decode_unusual(packet),
        }
    }

    /// Decodes a packet that is not in a tunnel, as [`Self::decode`], if it is of the kind that nearly all packets are: TCP or
    /// UDP and no fragment. For `taker`, which keeps it: moving it would cost more than decoding.
    #[inline(always)]
    pub(crate) fn decode_plain<'a, T: Take<'a>>(&self, packet: &Packet<'a>, taker: T) -> Option<T::Taken> {
        fast::plain(packet, &self.ports, taker)
    }

    /// Decodes a packet that [`Self::decode_plain`] leaves alone, as [`Self::decode`] does.
    #[inline(never)]
    pub(crate) fn decode_unusual<'a>(&mut self, packet: &Packet<'a>) -> Result<Decoded<'a>, DecodeError> {
        self.carriers.clear();
        let Some((outer, kind, id, inner)) = fast::in_tunnel(packet, &self.ports) else {
            return self.the_long_way(packet);
        };
        let payload_len = outer.transport.payload_len();
        let transport = Transport::Other { payload_len };
        let carrier = transport::put_together(&outer.link, &outer.ip, Some(outer.ports), transport);
        self.carriers.push(Decoded { carrier: true, ..carrier });
        let (src, dst) = (outer.ip.ends.src(), outer.ip.ends.dst());
        let tunnel = Tunnel { stack: TunnelStack::default().with(kind), id, src, dst };
        let decoded = transport::put_together(&inner.link, &inner.ip, Some(inner.ports), inner.transport);
        Ok(Decoded { tunnel: Some(tunnel), ..decoded })
    }

    #[inline(never)]
    fn the_long_way<'a>(&mut self, packet: &Packet<'a>) -> Result<Decoded<'a>, DecodeError> {
        let link = link::parse(packet)?;
        let ip = ip::parse(&link, ip::most(packet, &link))?;
        if ip.fragment.is_some() {
            return Ok(fragment(&link, &ip, &self.ports));
        }
        let parsed = transport::parse(&ip)?;
        if tunnel::may_open(ip.protocol, ip.payload, &self.ports) {
            return self.open(link, ip, parsed, Around::default());
        }
        Ok(transport::put_together(&link, &ip, parsed.0, parsed.1))
    }

    /// Goes on after the last fragment: `data` are the captured bytes from the beginning of the divided data, which begin
    /// with `protocol` and are `len` bytes long. The packet has the share of the payload that `last` has, but for TCP,
    /// which has all.
    pub fn join<'a>(
        &mut self,
        last: &'a Decoded<'_>,
        protocol: Protocol,
        data: &'a [u8],
        len: u32,
    ) -> Result<Decoded<'a>, DecodeError> {
        let link = Link {
            src_mac: last.src_mac.as_ref(),
            dst_mac: last.dst_mac.as_ref(),
            vlan: last.vlan,
            vlan_inner: last.vlan_inner,
            payload: data,
            on_wire: len,
        };
        let ip = ip::joined(last, protocol, data, len)?;
        let (ports, mut transport) = transport::parse(&ip)?;
        let share = last.transport.payload_len();
        let around = Around { tunnel: last.tunnel.clone(), scope: last.tunnel_scope };
        if tunnel::may_open(ip.protocol, ip.payload, &self.ports) {
            let before = self.carriers.len();
            match (
                self.open(link, ip.clone(), (ports, transport.clone()), around.clone()),
                self.carriers.get_mut(before),
            ) {
                (Ok(inner), Some(carrier)) => {
                    carrier.transport.set_payload_len(share);
                    return Ok(inner);
                }
                (Err(_), _) => self.carriers.truncate(before),
                (Ok(_), None) => {}
            }
        }
        if ip.protocol != Protocol::TCP {
            transport.set_payload_len(share);
        }
        Ok(around.put_around(transport::put_together(&link, &ip, ports, transport)))
    }

    /// Goes through the tunnels for as long as there is a packet inside. An error if the snap length cut it.
    fn open<'a>(
        &mut self,
        mut link: Link<'a>,
        mut ip: Ip<'a>,
        mut parsed: Parsed<'a>,
        mut around: Around,
    ) -> Result<Decoded<'a>, DecodeError> {
        for _ in around.depth()..MAX_TUNNELS {
            let Some(inside) = tunnel::open(&ip, &parsed, &self.ports) else { break };
            let (inner_link, inner_ip, inner_parsed) = match inner(&link, &inside) {
                Ok(inner) if inside.fits(&link, &inner.0, &inner.1) => inner,
                Err(error) if error.is_cut() && inside.cursor.is_cut() => {
                    self.carriers.push(carrier(&link, &ip, &parsed, around));
                    return Err(error);
                }
                Ok(_) | Err(_) => break,
            };
            let outer = (ip.ends, around.clone());
            if inner_ip.fragment.is_some() {
                self.carriers.push(carrier(&link, &ip, &parsed, around));
                let piece = fragment(&inner_link, &inner_ip, &self.ports);
                return Ok(Around::inside(outer, &inside).put_around(piece));
            }
            self.carriers.push(carrier(&link, &ip, &parsed, around));
            around = Around::inside(outer, &inside);
            (link, ip, parsed) = (inner_link, inner_ip, inner_parsed);
        }
        Ok(around.put_around(transport::put_together(&link, &ip, parsed.0, parsed.1)))
    }
}

/// Nothing is done with it.
struct AsItIs;

impl<'a> Take<'a> for AsItIs {
    type Taken = Decoded<'a>;

    #[inline(always)]
    fn take(self, decoded: Decoded<'a>) -> Decoded<'a> {
        decoded
    }
}

/// The tunnels around a packet.
#[derive(Debug, Clone, Default)]
struct Around {
    tunnel: Option<Tunnel>,
    /// See [`Decoded::tunnel_scope`].
    scope: u32,
}

impl Around {
    fn depth(&self) -> usize {
        self.tunnel.as_ref().map_or(0, |tunnel| tunnel.stack.depth())
    }

    /// One tunnel further in.
    fn inside((ends, outer): (Ends, Self), inside: &Inside<'_>) -> Self {
        let Self { tunnel, scope } = outer;
        // Any mixture that keeps different pairs apart will do.
        let mixed = |id: u32| scope.rotate_left(13).wrapping_mul(0x9e37_79b1) ^ id.wrapping_mul(0x85eb_ca6b);
        let (stack, id) = tunnel.as_ref().map_or((TunnelStack::default(), None), |tunnel| (tunnel.stack, tunnel.id));
        let (src, dst) = tunnel.map_or_else(|| (ends.src(), ends.dst()), |tunnel| (tunnel.src, tunnel.dst));
        let tunnel = Tunnel { stack: stack.with(inside.kind), id: inside.id, src, dst };
        Self { tunnel: Some(tunnel), scope: id.map_or(scope, mixed) }
    }

    fn put_around(self, mut decoded: Decoded<'_>) -> Decoded<'_> {
        (decoded.tunnel, decoded.tunnel_scope) = (self.tunnel, self.scope);
        decoded
    }
}

/// The packet inside, one tunnel down; of a fragment the transport is no matter.
fn inner<'a>(link: &Link<'a>, inside: &Inside<'a>) -> Result<(Link<'a>, Ip<'a>, Parsed<'a>), DecodeError> {
    let stack = if inside.has_frame() { Stack::default() } else { Stack::of(link) };
    let link = stack.walk(inside.cursor, inside.layer)?;
    let ip = ip::parse(&link, u32::MAX)?;
    let parsed = if ip.fragment.is_some() { transport::portless(&ip) } else { transport::parse(&ip)? };
    Ok((link, ip, parsed))
}

/// A packet that carries another one, without its bytes.
fn carrier(link: &Link<'_>, ip: &Ip<'_>, (ports, transport): &Parsed<'_>, around: Around) -> Decoded<'static> {
    let transport = Transport::Other { payload_len: transport.payload_len() };
    let carrier = transport::put_together(link, ip, *ports, transport);
    Decoded { carrier: true, ..around.put_around(carrier) }
}

/// A fragment: the first one has ports and may be seen to carry a tunnel, the others have addresses.
#[cold]
fn fragment<'a>(link: &Link<'a>, ip: &Ip<'a>, ports: &Ports) -> Decoded<'a> {
    let parsed = transport::parse(ip).unwrap_or_else(|_| transport::portless(ip));
    let carrier = tunnel::may_open(ip.protocol, ip.payload, ports) && carries(link, ip, &parsed, ports);
    let payload_len = if ip.protocol == Protocol::TCP { 0 } else { parsed.1.payload_len() };
    let seen = transport::quoted_ports(ip);
    let part = transport::put_together(link, ip, seen, Transport::Other { payload_len });
    Decoded { carrier, fragment: ip.fragment.clone(), ..part }
}

/// Whether a first fragment begins a packet with another one inside, as far as it goes.
fn carries(link: &Link<'_>, ip: &Ip<'_>, parsed: &Parsed<'_>, ports: &Ports) -> bool {
    if ip.is_later_fragment() {
        return false;
    }
    let Some(inside) = tunnel::open(ip, parsed, ports) else { return false };
    inner(link, &inside).map_or_else(DecodeError::is_cut, |_| true)
}

/// Big-endian 16 bits at `at`.
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes))
}

/// Big-endian 32 bits at `at`.
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))
}
