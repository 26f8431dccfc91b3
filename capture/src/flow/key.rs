//! What makes two packets belong to one flow, and the flow's stable id.
//!
//! A key holds both ends in canonical order (lower address and port first), so that both directions meet in one flow.
//! One-way ICMP messages (no counterpart in Community ID's table) keep their order: each direction is its own flow, as
//! it has its own Community ID.
//!
//! A million keys must be small: 56 bytes, all of it numbers. Both directions of a tunnel may have ids of their own (GTP-U's
//! always have, routed VNIs and GRE keys may): a key has that of the packet that began the flow, and [`super::table`] finds
//! the way back.

use std::hash::{BuildHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};

use siphasher::sip::SipHasher13;

use super::community_id::{self, CommunityId};
use crate::decode::{Decoded, Quote, Transport};
use crate::record::{Protocol, TunnelStack};

/// One of the two ends of a flow, in the key's order. Who is the client is a separate question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// First in the key.
    Low = 0,
    /// Second in the key.
    High = 1,
}

impl End {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Low => Self::High,
            Self::High => Self::Low,
        }
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// Identity of a flow within one engine.
#[derive(Debug, Clone, Copy, Eq)]
pub(super) struct Key {
    /// Lower address, then higher one: two numbers each for IPv6, else the first and the third number are 0.
    addresses: [u64; 4],
    /// Low end's port, then high end's; 0 without [`PORTS`].
    ports: u32,
    interface: u32,
    /// [`TunnelStack::bits`], the low 32.
    tunnels: u32,
    /// Id of the innermost tunnel, mixed with those of the others; 0 without [`TUNNEL_ID`].
    tunnel_id: u32,
    /// 0 is no VLAN's id.
    vlan: u16,
    vlan_inner: u16,
    /// The other bits of the tunnels.
    tunnels_deep: u16,
    protocol: Protocol,
    flags: u8,
}

impl PartialEq for Key {
    /// Without a branch for each field: nearly always all are equal.
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        let (own, its) = (self.addresses, other.addresses);
        let addresses = (own[0] ^ its[0]) | (own[1] ^ its[1]) | (own[2] ^ its[2]) | (own[3] ^ its[3]);
        let numbers = (self.ports ^ other.ports)
            | (self.interface ^ other.interface)
            | (self.tunnels ^ other.tunnels)
            | (self.tunnel_id ^ other.tunnel_id);
        let tags =
            (self.vlan ^ other.vlan) | (self.vlan_inner ^ other.vlan_inner) | (self.tunnels_deep ^ other.tunnels_deep);
        let rest = (self.protocol.0 ^ other.protocol.0) | (self.flags ^ other.flags);
        addresses | u64::from(numbers) | u64::from(tags) | u64::from(rest) == 0
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.addresses.hash(state);
        (self.ports, self.interface, self.tunnels, self.tunnel_id).hash(state);
        (self.vlan, self.vlan_inner, self.protocol, self.flags).hash(state);
    }
}

/// IPv6.
const V6: u8 = 1;
/// One direction only.
const ONE_WAY: u8 = 2;
/// There are ports.
const PORTS: u8 = 4;
/// The innermost tunnel, or one around it, has an id.
const TUNNEL_ID: u8 = 8;
/// Carries the packets of other flows.
const CARRIER: u8 = 16;

/// Address as two numbers, and port.
type Half = ([u64; 2], u16);

fn half(ip: IpAddr, port: u16) -> Half {
    let numbers = match ip {
        IpAddr::V4(ip) => [0, u64::from(ip.to_bits())],
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            [(bits >> 64) as u64, bits as u64]
        }
    };
    (numbers, port)
}

impl Key {
    /// No flow's.
    pub(super) const NONE: Self = Self {
        addresses: [0; 4],
        ports: 0,
        interface: 0,
        tunnels: 0,
        tunnel_id: 0,
        vlan: 0,
        vlan_inner: 0,
        tunnels_deep: 0,
        protocol: Protocol(0),
        flags: 0,
    };

    /// The key of a packet and the end that sent it.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "measured: it is written once, where it is kept")]
    pub(super) fn new(decoded: &Decoded<'_>, interface: u32) -> (Self, End) {
        let ports = decoded.src_port.zip(decoded.dst_port);
        let one_way = match decoded.transport {
            Transport::Icmp { kind, .. } => community_id::is_one_way(decoded.protocol, kind),
            Transport::Tcp(_) | Transport::Udp { .. } | Transport::Sctp { .. } | Transport::Other { .. } => false,
        };
        let (src, dst) = (decoded.src, decoded.dst);
        let (addresses, ports, mut flags, end) = pair((src, dst), ports, one_way);
        if decoded.carrier {
            flags |= CARRIER;
        }
        let (mut tunnels, mut tunnel_id) = (0, 0);
        if let Some(tunnel) = &decoded.tunnel {
            tunnels = tunnel.stack.bits();
            if tunnel.id.is_some() || decoded.tunnel_scope != 0 {
                flags |= TUNNEL_ID;
                tunnel_id = tunnel.id.unwrap_or_default() ^ decoded.tunnel_scope;
            }
        }
        let key = Self {
            addresses,
            ports,
            interface,
            tunnels: tunnels as u32,
            tunnel_id,
            vlan: decoded.vlan.unwrap_or_default(),
            vlan_inner: decoded.vlan_inner.unwrap_or_default(),
            tunnels_deep: (tunnels >> u32::BITS) as u16,
            protocol: decoded.protocol,
            flags,
        };
        (key, end)
    }

    /// The key of the packet that an ICMP error quotes, if it was seen where the error, whose key this is, was; and its
    /// sender.
    pub(super) fn quoted(&self, quote: &Quote) -> (Self, End) {
        let one_way = match (quote.protocol, quote.ports) {
            (Protocol::ICMP | Protocol::ICMP6, Some((kind, _))) => community_id::is_one_way(quote.protocol, kind as u8),
            (Protocol(_), _) => false,
        };
        let (addresses, ports, flags, sender) = pair((quote.src, quote.dst), quote.ports, one_way);
        let flags = flags | (self.flags & TUNNEL_ID);
        (Self { addresses, ports, protocol: quote.protocol, flags, ..*self }, sender)
    }

    /// The key of the flow with the same ends that carries other packets.
    pub(super) const fn as_carrier(mut self) -> Self {
        self.flags |= CARRIER;
        self
    }

    /// For IPv6, whose fragments need not say the same protocol.
    pub(super) const fn forget_protocol_of_ipv6(&mut self) {
        if self.flags & V6 != 0 {
            self.protocol = Protocol(0);
        }
    }

    /// The tunnels around it.
    fn tunnels(&self) -> TunnelStack {
        TunnelStack::of_bits(u64::from(self.tunnels_deep) << u32::BITS | u64::from(self.tunnels))
    }

    /// Whether the addresses are those of IPv6.
    pub(super) const fn is_v6(&self) -> bool {
        self.flags & V6 != 0
    }

    /// Whether the flow's packets carry those of other flows.
    pub(super) const fn is_carrier(&self) -> bool {
        self.flags & CARRIER != 0
    }

    /// The key without the id of its tunnel, if it has one: both directions share it.
    pub(super) const fn without_tunnel_id(mut self) -> Option<Self> {
        if self.flags & TUNNEL_ID == 0 {
            return None;
        }
        self.flags &= !TUNNEL_ID;
        self.tunnel_id = 0;
        Some(self)
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "measured: the hasher's state stays in registers")]
    pub(super) fn seeded(&self, state: &impl BuildHasher) -> u64 {
        let mut hasher = state.build_hasher();
        let [low_high, low, high_high, high] = self.addresses;
        let rest = (u64::from(self.ports) << 32)
            | (u64::from(self.protocol.0) << 24)
            | u64::from(self.interface & 0x00ff_ffff);
        if self.flags & V6 == 0 {
            hasher.write_u64(low << 32 | high);
        } else {
            hasher.write_u64(low_high);
            hasher.write_u64(low);
            hasher.write_u64(high_high);
            hasher.write_u64(high);
        }
        hasher.write_u64(rest);
        let tags = (u64::from(self.vlan) << 32) | (u64::from(self.vlan_inner) << 16) | u64::from(self.flags & CARRIER);
        if tags != 0 || self.tunnels != 0 {
            hasher.write_u64(tags);
            hasher.write_u64((u64::from(self.tunnels) << 32) | u64::from(self.tunnel_id));
        }
        hasher.finish()
    }

    pub(super) fn ip(&self, end: End) -> IpAddr {
        let [low_high, low, high_high, high] = self.addresses;
        let (upper, lower) = match end {
            End::Low => (low_high, low),
            End::High => (high_high, high),
        };
        if self.flags & V6 == 0 {
            // The number came from 32 bits.
            IpAddr::V4((lower as u32).into())
        } else {
            IpAddr::V6(((u128::from(upper) << 64) | u128::from(lower)).into())
        }
    }

    pub(super) const fn port(&self, end: End) -> Option<u16> {
        if self.flags & PORTS == 0 {
            return None;
        }
        Some(match end {
            End::Low => (self.ports >> 16) as u16,
            End::High => self.ports as u16,
        })
    }

    pub(super) const fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(super) const fn interface(&self) -> u32 {
        self.interface
    }

    pub(super) fn vlans(&self) -> (Option<u16>, Option<u16>) {
        let id = |id: u16| (id != 0).then_some(id);
        (id(self.vlan), id(self.vlan_inner))
    }

    /// Community ID v1, seed 0. `None` where the protocol has ports but this flow (later fragments) has not.
    pub(super) fn community_id(&self) -> Option<CommunityId> {
        let has_ports =
            matches!(self.protocol, Protocol::TCP | Protocol::UDP | Protocol::SCTP | Protocol::ICMP | Protocol::ICMP6);
        let ports = self.port(End::Low).zip(self.port(End::High)).map(|(low, high)| [low, high]);
        if has_ports && ports.is_none() {
            return None;
        }
        // The specification knows no ports of other protocols.
        let ports = ports.filter(|_| has_ports);
        Some(community_id::of([self.ip(End::Low), self.ip(End::High)], self.protocol, ports))
    }

    /// The id of a flow that began at `start`: stable over runs and machines. `begun` has taken what all flows of an
    /// observation point have in common; `again` tells flows apart that begin with the same key at the same nanosecond.
    fn bytes_of_id(&self, start: i64, again: u16) -> ([u8; 80], usize) {
        let (mut bytes, mut length) = ([0; 80], 0);
        let mut add = |part: &[u8]| {
            if let Some(place) = bytes.get_mut(length..length + part.len()) {
                place.copy_from_slice(part);
                length += part.len();
            }
        };
        let mut optional = |value: Option<u32>| {
            add(&[u8::from(value.is_some())]);
            add(&value.unwrap_or_default().to_le_bytes());
        };
        optional((self.flags & TUNNEL_ID != 0).then_some(self.tunnel_id));
        let (vlan, vlan_inner) = self.vlans();
        optional(vlan.map(u32::from));
        optional(vlan_inner.map(u32::from));
        optional((self.flags & PORTS != 0).then_some(self.ports));
        let [low_high, low, high_high, high] = self.addresses;
        for number in [low, low_high, high, high_high] {
            add(&number.to_le_bytes());
        }
        add(&[self.protocol.0, self.flags & V6, u8::from(self.flags & ONE_WAY != 0)]);
        add(&start.to_le_bytes());
        if again > 0 {
            add(&again.to_le_bytes());
        }
        if self.is_carrier() {
            add(&[CARRIER]);
        }
        (bytes, length)
    }

    /// See [`Self::bytes_of_id`].
    pub(super) fn flow_id(&self, mut begun: SipHasher13, start: i64, again: u16) -> u64 {
        let (bytes, length) = self.bytes_of_id(start, again);
        begun.write(bytes.get(..length).unwrap_or_default());
        begun.finish()
    }
}

/// What ids of flows at one observation point begin with: kept from one flow to the next, for there are few such points. An
/// id takes the interface by name, for its number changes with a restart.
#[derive(Default)]
pub(super) struct Ids {
    /// Interface, tunnels, and the hash so far.
    last: Option<(u32, TunnelStack, SipHasher13)>,
}

impl Ids {
    pub(super) fn begun(&self, key: &Key) -> Option<SipHasher13> {
        self.last.filter(|last| (last.0, last.1) == (key.interface, key.tunnels())).map(|last| last.2)
    }

    pub(super) fn begin(&mut self, key: &Key, node: &str, interface: &str) -> SipHasher13 {
        let mut hasher = SipHasher13::new();
        for text in [interface, node, &key.tunnels().to_string()] {
            hasher.write(&(text.len() as u64).to_le_bytes());
            hasher.write(text.as_bytes());
        }
        self.last = Some((key.interface, key.tunnels(), hasher));
        hasher
    }
}

/// Both ends in canonical order, the flags that they give, and which of them sent.
#[inline(always)]
#[expect(clippy::inline_always, reason = "measured: every packet comes here")]
fn pair((src, dst): (IpAddr, IpAddr), ports: Option<(u16, u16)>, one_way: bool) -> ([u64; 4], u32, u8, End) {
    let (src_port, dst_port) = ports.unwrap_or_default();
    let flags = if ports.is_some() { PORTS } else { 0 } | if one_way { ONE_WAY } else { 0 };
    if let (IpAddr::V4(src), IpAddr::V4(dst)) = (src, dst) {
        // One number each, which is compared as address and port are.
        let number = |ip: Ipv4Addr, port: u16| (u64::from(ip.to_bits()) << 16) | u64::from(port);
        let (from, to) = (number(src, src_port), number(dst, dst_port));
        let end = if one_way || from <= to { End::Low } else { End::High };
        let (low, high) = if end == End::Low { (from, to) } else { (to, from) };
        let ports = ((low as u32 & 0xffff) << 16) | (high as u32 & 0xffff);
        return ([0, low >> 16, 0, high >> 16], ports, flags, end);
    }
    let (from, to) = (half(src, src_port), half(dst, dst_port));
    let flags = if src.is_ipv6() { flags | V6 } else { flags };
    let end = if one_way || from <= to { End::Low } else { End::High };
    let (low, high) = match end {
        End::Low => (from, to),
        End::High => (to, from),
    };
    let addresses = [low.0[0], low.0[1], high.0[0], high.0[1]];
    (addresses, (u32::from(low.1) << 16) | u32::from(high.1), flags, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_small() {
        assert_eq!(size_of::<Key>(), 56);
    }
}
