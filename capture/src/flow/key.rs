//! What makes two packets belong to one flow, and the flow's stable id.
//!
//! A key holds both ends in canonical order (lower address and port first), so that both directions meet in one flow.
//! One-way ICMP messages (no counterpart in Community ID's table) keep their order: each direction is its own flow, as
//! it has its own Community ID.

use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use super::community_id;
use crate::decode::{Decoded, Transport};
use crate::record::{Protocol, TunnelStack};

/// One of the two ends of a flow, in the key's order. Who is the client is a separate question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// First in the key.
    Low = 0,
    /// Second in the key.
    High = 1,
}

impl End {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Low => Self::High,
            Self::High => Self::Low,
        }
    }

    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

/// Identity of a flow within one engine: one cache line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    /// Addresses as numbers, in halves (for the alignment); `bits` tells the family.
    addresses: [[u64; 2]; 2],
    /// Empty: no tunnel.
    tunnel: TunnelStack,
    tunnel_id: u32,
    interface: u32,
    ports: [u16; 2],
    /// Zero names no VLAN.
    vlan: u16,
    vlan_inner: u16,
    protocol: Protocol,
    bits: u8,
}

/// The addresses are IPv6.
const V6: u8 = 1;
/// A one-way ICMP message.
const ONE_WAY: u8 = 2;
/// The packet has ports.
const PORTS: u8 = 4;
/// The innermost tunnel has an id.
const TUNNEL_ID: u8 = 8;

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

const fn halves(number: u128) -> [u64; 2] {
    [(number >> 64) as u64, number as u64]
}

impl Key {
    /// The key of a packet and the end that sent it.
    pub(super) fn new(decoded: &Decoded<'_>, interface: u32) -> (Self, End) {
        let ports = decoded.src_port.zip(decoded.dst_port);
        let from = (number(decoded.src), ports.map(|p| p.0));
        let to = (number(decoded.dst), ports.map(|p| p.1));
        let one_way = match decoded.transport {
            Transport::Icmp { kind, .. } => community_id::is_one_way(decoded.protocol, kind),
            Transport::Tcp(_) | Transport::Udp { .. } | Transport::Other { .. } => false,
        };
        let end = if one_way || from <= to { End::Low } else { End::High };
        let (low, high) = match end {
            End::Low => (from, to),
            End::High => (to, from),
        };
        let bit = |condition: bool, bit: u8| if condition { bit } else { 0 };
        let tunnel_id = decoded.tunnel.as_ref().and_then(|tunnel| tunnel.id);
        let key = Self {
            addresses: [halves(low.0), halves(high.0)],
            tunnel: decoded.tunnel.as_ref().map(|tunnel| tunnel.stack).unwrap_or_default(),
            tunnel_id: tunnel_id.unwrap_or_default(),
            interface,
            ports: [low.1.unwrap_or_default(), high.1.unwrap_or_default()],
            vlan: decoded.vlan.unwrap_or_default(),
            vlan_inner: decoded.vlan_inner.unwrap_or_default(),
            protocol: decoded.protocol,
            bits: bit(decoded.src.is_ipv6(), V6)
                | bit(one_way, ONE_WAY)
                | bit(ports.is_some(), PORTS)
                | bit(tunnel_id.is_some(), TUNNEL_ID),
        };
        (key, end)
    }

    pub(super) fn hash(&self, state: &impl BuildHasher) -> u64 {
        let mut hasher = state.build_hasher();
        let [[a, b], [c, d]] = self.addresses;
        if self.bits & V6 != 0 {
            hasher.write_u64(a);
            hasher.write_u64(c);
        }
        hasher.write_u64(b);
        hasher.write_u64(d);
        let [low, high] = self.ports;
        hasher.write_u64(
            (u64::from(low) << 48)
                | (u64::from(high) << 32)
                | (u64::from(self.protocol.0) << 24)
                | u64::from(self.interface & 0x00ff_ffff),
        );
        if self.vlan != 0 || self.tunnel.depth() > 0 {
            hasher.write_u32((u32::from(self.vlan) << 16) | u32::from(self.vlan_inner));
            hasher.write_usize(self.tunnel.depth());
            hasher.write_u32(self.tunnel_id);
        }
        hasher.finish()
    }

    pub(super) fn ip(&self, end: End) -> IpAddr {
        let bits = self.address(end);
        // Of another family than IPv6, so the number came from 32 bits.
        if self.bits & V6 != 0 { IpAddr::V6(bits.into()) } else { IpAddr::V4((bits as u32).into()) }
    }

    fn address(&self, end: End) -> u128 {
        let [high, low] = self.addresses[end.index()];
        (u128::from(high) << 64) | u128::from(low)
    }

    pub(super) fn port(&self, end: End) -> Option<u16> {
        self.port_pair().map(|ports| ports[end.index()])
    }

    fn port_pair(&self) -> Option<[u16; 2]> {
        (self.bits & PORTS != 0).then_some(self.ports)
    }

    pub(super) const fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(super) const fn interface(&self) -> u32 {
        self.interface
    }

    pub(super) fn vlans(&self) -> (Option<u16>, Option<u16>) {
        let named = |id: u16| (id != 0).then_some(id);
        (named(self.vlan), named(self.vlan_inner))
    }

    /// Community ID v1, seed 0. `None` where the protocol has ports but this flow (later fragments) has not.
    pub(super) fn community_id(&self) -> Option<String> {
        let has_ports =
            matches!(self.protocol, Protocol::TCP | Protocol::UDP | Protocol::SCTP | Protocol::ICMP | Protocol::ICMP6);
        if has_ports && self.port_pair().is_none() {
            return None;
        }
        Some(community_id::of([self.ip(End::Low), self.ip(End::High)], self.protocol, self.port_pair()))
    }

    /// The id of a flow that began at `start`: stable over runs and machines. It takes the interface by name, for its
    /// number changes with a restart; `again` tells flows apart that begin with the same key at the same nanosecond.
    pub(super) fn flow_id(&self, node: &str, interface: &str, start: i64, again: u16) -> u64 {
        let mut bytes = Vec::with_capacity(96 + node.len() + interface.len());
        let mut text = |text: &str| {
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        };
        text(interface);
        text(node);
        text(&if self.tunnel.depth() > 0 { self.tunnel.to_string() } else { String::new() });
        let mut optional = |value: Option<u32>| {
            bytes.push(u8::from(value.is_some()));
            bytes.extend_from_slice(&value.unwrap_or_default().to_le_bytes());
        };
        let (vlan, vlan_inner) = self.vlans();
        optional((self.bits & TUNNEL_ID != 0).then_some(self.tunnel_id));
        optional(vlan.map(u32::from));
        optional(vlan_inner.map(u32::from));
        optional(self.port_pair().map(|[low, high]| (u32::from(low) << 16) | u32::from(high)));
        bytes.extend_from_slice(&self.address(End::Low).to_le_bytes());
        bytes.extend_from_slice(&self.address(End::High).to_le_bytes());
        let (v6, one_way) = (u8::from(self.bits & V6 != 0), u8::from(self.bits & ONE_WAY != 0));
        bytes.extend_from_slice(&[self.protocol.0, v6, one_way]);
        bytes.extend_from_slice(&start.to_le_bytes());
        if again > 0 {
            bytes.extend_from_slice(&again.to_le_bytes());
        }
        SipHasher13::new().hash(&bytes)
    }
}
