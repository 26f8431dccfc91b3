//! The short cuts that nearly all packets take: Ethernet with at most two tags, IPv4 without fragments or IPv6 without
//! extension headers, TCP or UDP; and such a frame in one tunnel like VXLAN.
//!
//! They give what the long way gives, or nothing: whatever is unusual or wrong is the long way's business (a test compares
//! them). All values stay in registers until the result is written, once; the long way, whose parts refer to each other in
//! memory, takes four times as long.

use super::ip::{self, Ip};
use super::layers::{Cursor, Layer, Stack};
use super::link::{IPV4, IPV6, Link};
use super::transport;
use super::tunnel::{self, Ports};
use super::{Decoded, Transport, u16_at};
use crate::packet::{LinkType, Packet};
use crate::record::{Protocol, TunnelKind};

/// What [`transport::put_together`] takes.
pub(super) struct Plain<'a> {
    pub(super) link: Link<'a>,
    pub(super) ip: Ip<'a>,
    pub(super) ports: (u16, u16),
    pub(super) transport: Transport<'a>,
}

/// Who takes what was decoded. There is a copy of it for each kind of packet: where addresses of both versions meet, nothing
/// stays in registers. Not a closure, for these are not always inlined.
pub(crate) trait Take<'a> {
    /// What comes of it.
    type Taken;

    /// Takes a packet.
    fn take(self, decoded: Decoded<'a>) -> Self::Taken;
}

/// A packet that is not in a tunnel, for `taker`.
#[inline(always)]
pub(super) fn plain<'a, T: Take<'a>>(packet: &Packet<'a>, ports: &Ports, taker: T) -> Option<T::Taken> {
    if packet.link_type != LinkType::ETHERNET {
        return None;
    }
    let cursor = Cursor { data: packet.data, on_wire: packet.wire_len };
    let (link, kind) = ethernet(cursor, packet.vlan)?;
    network(link, kind, ip::most(packet, &link), Untunnelled { ports, taker })
}

/// What a frame is read for.
trait Then<'a> {
    type Result;

    fn then(self, plain: Plain<'a>) -> Option<Self::Result>;
}

/// To be handed on, unless it carries another packet.
struct Untunnelled<'p, T> {
    ports: &'p Ports,
    taker: T,
}

impl<'a, T: Take<'a>> Then<'a> for Untunnelled<'_, T> {
    type Result = T::Taken;

    #[inline(always)]
    fn then(self, Plain { link, ip, ports, transport }: Plain<'a>) -> Option<T::Taken> {
        if tunnel::may_open(ip.protocol, ip.payload, self.ports) {
            return None;
        }
        Some(self.taker.take(transport::put_together(&link, &ip, Some(ports), transport)))
    }
}

/// To be looked at.
struct Whole;

impl<'a> Then<'a> for Whole {
    type Result = Plain<'a>;

    #[inline(always)]
    fn then(self, plain: Plain<'a>) -> Option<Plain<'a>> {
        Some(plain)
    }
}

/// A packet in a tunnel like VXLAN: a frame in UDP; with what carries it.
#[inline(always)]
pub(super) fn in_tunnel<'a>(
    packet: &Packet<'a>,
    ports: &Ports,
) -> Option<(Plain<'a>, TunnelKind, Option<u32>, Plain<'a>)> {
    if packet.link_type != LinkType::ETHERNET {
        return None;
    }
    let (link, kind) = ethernet(Cursor { data: packet.data, on_wire: packet.wire_len }, packet.vlan)?;
    let outer = network(link, kind, ip::most(packet, &link), Whole)?;
    let Transport::Udp { payload, payload_len } = outer.transport else { return None };
    let inside = tunnel::in_udp(outer.ports.1, Cursor { data: payload, on_wire: payload_len }, ports)?;
    if inside.layer != Layer::Ethernet {
        return None;
    }
    let (link, kind) = ethernet(inside.cursor, None)?;
    let inner = network(link, kind, u32::MAX, Whole)?;
    let ends = !tunnel::may_open(inner.ip.protocol, inner.ip.payload, ports);
    let is_inside = ends && inside.fits(&outer.link, &inner.link, &inner.ip);
    is_inside.then_some((outer, inside.kind, inside.id, inner))
}

#[inline(always)]
fn network<'a, T: Then<'a>>(link: Link<'a>, kind: u16, most: u32, what: T) -> Option<T::Result> {
    match (kind, link.payload.first()? >> 4) {
        (IPV4 | IPV6, 4) => with_ports(link, ip::plain_v4(link.payload, most)?, what),
        (IPV4 | IPV6, 6) => with_ports(link, ip::plain_v6(link.payload, most)?, what),
        (_, _) => None,
    }
}

#[inline(always)]
fn with_ports<'a, T: Then<'a>>(link: Link<'a>, ip: Ip<'a>, what: T) -> Option<T::Result> {
    match ip.protocol {
        Protocol::TCP => {
            let (ports, transport) = transport::segment(ip.payload, ip.payload_len).ok()?;
            what.then(Plain { link, ip, ports, transport })
        }
        Protocol::UDP => {
            let (ports, transport) = transport::datagram(ip.payload, ip.payload_len)?;
            what.then(Plain { link, ip, ports, transport })
        }
        Protocol(_) => None,
    }
}

#[inline(always)]
fn ethernet(cursor: Cursor<'_>, vlan: Option<(u16, u16)>) -> Option<(Link<'_>, u16)> {
    let (dst_mac, rest) = cursor.data.split_first_chunk::<6>()?;
    let (src_mac, rest) = rest.split_first_chunk::<6>()?;
    let mut stack = Stack { src_mac: Some(src_mac), dst_mac: Some(dst_mac), vlan: None, vlan_inner: None };
    if let Some((_, tci)) = vlan {
        stack.tag(tci);
    }
    let (mut kind, mut payload, mut header_len) = (u16_at(rest, 0)?, rest.get(2..)?, 14);
    for _ in 0..2 {
        if !matches!(kind, 0x8100 | 0x88a8) {
            break;
        }
        stack.tag(u16_at(payload, 0)?);
        (kind, payload) = (u16_at(payload, 2)?, payload.get(4..)?);
        header_len += 4;
    }
    let on_wire = cursor.on_wire.saturating_sub(header_len);
    let (vlan, vlan_inner) = (stack.vlan, stack.vlan_inner);
    Some((Link { src_mac: Some(src_mac), dst_mac: Some(dst_mac), vlan, vlan_inner, payload, on_wire }, kind))
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::super::{AsItIs, Decoder, TunnelPorts};
    use super::*;
    use crate::packet::Direction;

    fn built(kind: u8, payload: &[u8]) -> Vec<u8> {
        let start = || PacketBuilder::ethernet2([2; 6], [3; 6]);
        let mut frame = Vec::new();
        match kind {
            1 => start().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(40_000, 80).write(&mut frame, payload),
            2 => start().ipv6([1; 16], [2; 16], 64).tcp(40_000, 80, 1, 2).write(&mut frame, payload),
            3 => start().ipv6([1; 16], [2; 16], 64).udp(40_000, 4789).write(&mut frame, payload),
            _ => start().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).tcp(40_000, 80, 1, 2).write(&mut frame, payload),
        }
        .unwrap();
        if kind >= 8 {
            let gtpu = [0x30, 0xff, 0, frame.len() as u8, 0, 0, 5, 0];
            // VXLAN, the same without a next protocol, and GTP-U, which does not say either what is inside.
            let (port, header) = match kind {
                8..12 => (4789, [8, 0, 0, 0, 0, 0, 5, 0]),
                12..16 => (4790, [8, 0, 0, 0, 0, 0, 5, 0]),
                _ => (2152, gtpu),
            };
            let carried = [&header, frame.as_slice()].concat();
            frame.clear();
            let src_mac = if kind & 1 == 0 { [2; 6] } else { [4; 6] };
            let outer = PacketBuilder::ethernet2(src_mac, [3; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
            outer.udp(40_000, port).write(&mut frame, &carried).unwrap();
        } else if kind >= 4 {
            let tags = [0x81, 0, 0, kind, 0x81, 0, 0, 9];
            frame.splice(12..12, tags.iter().copied().take(if kind & 1 == 0 { 4 } else { 8 }));
        }
        frame
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

        #[test]
        fn the_short_cut_leads_where_the_long_way_leads(
            kind in 0_u8..20,
            payload in prop::collection::vec(any::<u8>(), 0..50),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            (cut, padding) in (any::<prop::sample::Index>(), 0_u32..9),
            (vlan, direction) in (prop::option::of(Just((0x8100, 7))), prop::option::of(Just(Direction::Ingress))),
        ) {
            let mut data = built(kind, &payload);
            for (at, value) in changes {
                let at = at.index(data.len());
                data[at] = value;
            }
            let wire_len = data.len() as u32 + padding;
            if cut.index(4) == 0 {
                data.truncate(cut.index(data.len()));
            }
            let link_type = LinkType::ETHERNET;
            let packet = Packet { time: 0, data: &data, wire_len, link_type, interface: 0, direction, vlan };
            let mut decoder = Decoder::new(TunnelPorts::default());
            let long = decoder.the_long_way(&packet);
            let carriers = decoder.carriers().to_vec();
            prop_assert_eq!(decoder.decode(&packet), long);
            prop_assert_eq!(decoder.carriers(), carriers);
        }
    }

    #[test]
    fn a_packet_longer_than_what_carries_it_is_not_inside() {
        for (kind, is_inside) in [(8, true), (12, false), (13, false), (16, false)] {
            let mut data = built(kind, b"payload");
            // The total length behind 50 bytes of outer headers and 14 of inner Ethernet.
            data[66] = 1;
            let (wire_len, link_type) = (data.len() as u32, LinkType::ETHERNET);
            let packet =
                Packet { time: 0, data: &data, wire_len, link_type, interface: 0, direction: None, vlan: None };
            let decoded = Decoder::new(TunnelPorts::default()).decode(&packet).unwrap();
            assert_eq!(decoded.tunnel.is_some(), is_inside, "{kind}");
        }
    }

    #[test]
    fn plain_packets_take_it() {
        for kind in 0..20 {
            let data = built(kind, b"payload");
            let (wire_len, link_type) = (data.len() as u32, LinkType::ETHERNET);
            let packet =
                Packet { time: 0, data: &data, wire_len, link_type, interface: 0, direction: None, vlan: None };
            let ports = Ports::new(TunnelPorts::default());
            let (plain, tunnel) = (plain(&packet, &ports, AsItIs).is_some(), in_tunnel(&packet, &ports).is_some());
            // The port of VXLAN alone needs a closer look.
            assert_eq!((plain, tunnel), (kind < 8 && kind != 3, kind >= 8), "{kind}");
        }
    }
}
