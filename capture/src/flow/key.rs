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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    /// Addresses as numbers; `v6` tells the family.
    addresses: [u128; 2],
    ports: Option<[u16; 2]>,
    interface: u32,
    vlan: Option<u16>,
    vlan_inner: Option<u16>,
    tunnel: Option<(TunnelStack, Option<u32>)>,
    protocol: Protocol,
    v6: bool,
    one_way: bool,
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
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
        let key = Self {
            addresses: [low.0, high.0],
            ports: low.1.zip(high.1).map(|(low, high)| [low, high]),
            interface,
            vlan: decoded.vlan,
            vlan_inner: decoded.vlan_inner,
            tunnel: decoded.tunnel.as_ref().map(|tunnel| (tunnel.stack, tunnel.id)),
            protocol: decoded.protocol,
            v6: decoded.src.is_ipv6(),
            one_way,
        };
        (key, end)
    }

    pub(super) fn hash(&self, state: &impl BuildHasher) -> u64 {
        let mut hasher = state.build_hasher();
        hasher.write_u128(self.addresses[0]);
        hasher.write_u128(self.addresses[1]);
        let [low, high] = self.ports.unwrap_or_default();
        hasher.write_u64(
            (u64::from(low) << 48)
                | (u64::from(high) << 32)
                | (u64::from(self.protocol.0) << 24)
                | u64::from(self.interface & 0x00ff_ffff),
        );
        if self.vlan.is_some() || self.tunnel.is_some() {
            hasher.write_u32(
                (u32::from(self.vlan.unwrap_or_default()) << 16) | u32::from(self.vlan_inner.unwrap_or_default()),
            );
            let (stack, id) = self.tunnel.unwrap_or_default();
            hasher.write_usize(stack.depth());
            hasher.write_u32(id.unwrap_or_default());
        }
        hasher.finish()
    }

    pub(super) fn ip(&self, end: End) -> IpAddr {
        let bits = self.addresses[end.index()];
        // The family was IPv4 when `v6` is false, so the number came from 32 bits.
        if self.v6 { IpAddr::V6(bits.into()) } else { IpAddr::V4((bits as u32).into()) }
    }

    pub(super) fn port(&self, end: End) -> Option<u16> {
        self.ports.map(|ports| ports[end.index()])
    }

    pub(super) const fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(super) const fn interface(&self) -> u32 {
        self.interface
    }

    pub(super) const fn vlans(&self) -> (Option<u16>, Option<u16>) {
        (self.vlan, self.vlan_inner)
    }

    /// Community ID v1, seed 0. `None` where the protocol has ports but this flow (later fragments) has not.
    pub(super) fn community_id(&self) -> Option<String> {
        let has_ports =
            matches!(self.protocol, Protocol::TCP | Protocol::UDP | Protocol::SCTP | Protocol::ICMP | Protocol::ICMP6);
        if has_ports && self.ports.is_none() {
            return None;
        }
        Some(community_id::of([self.ip(End::Low), self.ip(End::High)], self.protocol, self.ports))
    }

    /// The id of a flow that began at `start`: stable over runs and machines. It takes the interface by name, for its
    /// number changes with a restart; `again` tells flows apart that begin with the same key at the same nanosecond.
    pub(super) fn flow_id(&self, node: &str, interface: &str, start: i64, again: u32) -> u64 {
        let mut bytes = Vec::with_capacity(96 + node.len() + interface.len());
        let mut text = |text: &str| {
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        };
        text(interface);
        text(node);
        text(&self.tunnel.map(|(stack, _)| stack.to_string()).unwrap_or_default());
        let mut optional = |value: Option<u32>| {
            bytes.push(u8::from(value.is_some()));
            bytes.extend_from_slice(&value.unwrap_or_default().to_le_bytes());
        };
        optional(self.tunnel.and_then(|(_, id)| id));
        optional(self.vlan.map(u32::from));
        optional(self.vlan_inner.map(u32::from));
        optional(self.ports.map(|[low, high]| (u32::from(low) << 16) | u32::from(high)));
        bytes.extend_from_slice(&self.addresses[0].to_le_bytes());
        bytes.extend_from_slice(&self.addresses[1].to_le_bytes());
        bytes.extend_from_slice(&[self.protocol.0, u8::from(self.v6), u8::from(self.one_way)]);
        bytes.extend_from_slice(&start.to_le_bytes());
        if again > 0 {
            bytes.extend_from_slice(&again.to_le_bytes());
        }
        SipHasher13::new().hash(&bytes)
    }
}
