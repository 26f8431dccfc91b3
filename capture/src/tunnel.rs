//! Tunnels around a packet: which, and how they are told in one small value; and what keeps networks apart on one wire.

use std::net::IpAddr;

use crate::record::vocabulary;

vocabulary! {
    /// Encapsulations that are opened. IP in IP has the names of Linux' tunnel devices.
    pub TunnelKind {
        /// RFC 7348.
        Vxlan = "vxlan",
        /// draft-ietf-nvo3-vxlan-gpe.
        VxlanGpe = "vxlan-gpe",
        /// RFC 8926.
        Geneve = "geneve",
        /// RFC 2784, 2890.
        Gre = "gre",
        /// RFC 7637.
        Nvgre = "nvgre",
        /// draft-foschiano-erspan, types I, II and III.
        Erspan = "erspan",
        /// IPv4 in IPv4, RFC 2003.
        Ipip = "ipip",
        /// IPv6 in IPv4, RFC 4213.
        Sit = "sit",
        /// IPv4 in IPv6, RFC 2473.
        Ipip6 = "ipip6",
        /// IPv6 in IPv6, RFC 2473.
        Ip6ip6 = "ip6ip6",
        /// RFC 4380.
        Teredo = "teredo",
        /// 3GPP TS 29.281.
        Gtpu = "gtpu",
        /// RFC 7510.
        MplsUdp = "mpls-udp",
        /// RFC 4023.
        MplsIp = "mpls-ip",
        /// Version 2, RFC 2661.
        L2tp = "l2tp",
        /// RFC 3378.
        EtherIp = "etherip",
        /// draft-massar-v6ops-ayiya.
        Ayiya = "ayiya",
        /// Ethernet in SRv6 (RFC 8986), by its protocol number.
        Srv6 = "srv6",
        /// RFC 5415, 5416.
        Capwap = "capwap",
        /// RFC 9300.
        Lisp = "lisp",
        /// TaZmen sniffer protocol.
        Tzsp = "tzsp",
        /// Registers of PIM, RFC 7761.
        Pim = "pim",
    }
}

/// Most tunnels around a packet that are opened.
pub const MAX_TUNNELS: usize = 8;

/// Bits of a tunnel in the stack.
const BITS: usize = 5;

/// The tunnels around a packet, outermost first: at most [`MAX_TUNNELS`], five bits each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TunnelStack(u64);

const _: () = assert!(TunnelKind::ALL.len() < 1 << BITS && MAX_TUNNELS * BITS <= 48);

impl TunnelStack {
    /// With one more tunnel inside; a full stack stays as it is.
    #[must_use]
    pub const fn with(self, kind: TunnelKind) -> Self {
        let depth = self.depth();
        if depth == MAX_TUNNELS { self } else { Self(self.0 | (kind as u64 + 1) << (BITS * depth)) }
    }

    /// Number of tunnels.
    pub const fn depth(self) -> usize {
        ((u64::BITS - self.0.leading_zeros()) as usize).div_ceil(BITS)
    }

    /// All of it as a number of 48 bits, 0 without tunnels.
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    /// The stack of [`Self::bits`].
    pub(crate) const fn of_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The tunnels, outermost first.
    pub fn kinds(self) -> impl Iterator<Item = TunnelKind> {
        (0..self.depth()).filter_map(move |depth| {
            let number = (self.0 >> (BITS * depth)) as usize % (1 << BITS);
            TunnelKind::ALL.get(number.checked_sub(1)?).copied()
        })
    }
}

impl std::fmt::Display for TunnelStack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (depth, kind) in self.kinds().enumerate() {
            write!(f, "{}{kind}", if depth == 0 { "" } else { "+" })?;
        }
        Ok(())
    }
}

/// Tunnel around the innermost packet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tunnel {
    /// All tunnels.
    pub stack: TunnelStack,
    /// VNI, key, session or TEID of the innermost tunnel.
    pub id: Option<u32>,
    /// Outer source address of the first packet.
    pub src: IpAddr,
    /// Outer destination address of the first packet.
    pub dst: IpAddr,
}

/// What keeps networks apart that share a wire, and may number their addresses alike: the VLAN, and the innermost tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Wrapping {
    /// Outer VLAN id.
    pub vlan: Option<u16>,
    /// Inner VLAN id.
    pub vlan_inner: Option<u16>,
    /// The innermost tunnel, and its id ([`Tunnel::id`]).
    pub tunnel: Option<(TunnelKind, Option<u32>)>,
}

impl Wrapping {
    /// Of outer and inner VLAN id, and tunnel.
    pub fn of((vlan, vlan_inner): (Option<u16>, Option<u16>), tunnel: Option<&Tunnel>) -> Self {
        Self { vlan, vlan_inner, tunnel: tunnel.and_then(Tunnel::innermost) }
    }

    /// The network inside, as the static file may name it: `vlan:100`, `vlan:100.7` (two tags), `vxlan:5001`. None if nothing is around
    /// the packets, or a tunnel without an id.
    pub fn network(self) -> Option<String> {
        match (self.tunnel, self.vlan, self.vlan_inner) {
            (Some((kind, id)), _, _) => id.map(|id| format!("{kind}:{id}")),
            (None, Some(outer), Some(inner)) => Some(format!("vlan:{outer}.{inner}")),
            (None, Some(id), None) | (None, None, Some(id)) => Some(format!("vlan:{id}")),
            (None, None, None) => None,
        }
    }

    /// Whether a network has a name of those that [`Self::network`] gives.
    pub fn is_network(name: &str) -> bool {
        let Some((kind, id)) = name.split_once(':') else { return false };
        let is_id = |id: &str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
        match kind {
            "vlan" => id.split_once('.').map_or(is_id(id), |(outer, inner)| is_id(outer) && is_id(inner)),
            kind => is_id(id) && TunnelKind::ALL.iter().any(|own| own.as_str() == kind),
        }
    }
}

impl Tunnel {
    /// The innermost tunnel and its id.
    pub fn innermost(&self) -> Option<(TunnelKind, Option<u32>)> {
        self.stack.kinds().last().map(|kind| (kind, self.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_around_packets_names_the_network_inside() {
        let vlan = Wrapping { vlan: Some(100), ..Wrapping::default() };
        let two = Wrapping { vlan_inner: Some(7), ..vlan };
        let vxlan = Wrapping { tunnel: Some((TunnelKind::Vxlan, Some(5001))), ..two };
        let ipip = Wrapping { tunnel: Some((TunnelKind::Ipip, None)), ..vlan };
        let names = [vlan, two, vxlan, ipip, Wrapping::default()].map(Wrapping::network);
        assert_eq!(
            names.each_ref().map(Option::as_deref),
            [Some("vlan:100"), Some("vlan:100.7"), Some("vxlan:5001"), None, None]
        );
        assert!(names.iter().flatten().all(|name| Wrapping::is_network(name)));
        for other in ["", "shop", "vlan:", "vlan:x", "vlan:1.", "cluster:7", "vxlan:7/red", "vxlan"] {
            assert!(!Wrapping::is_network(other), "{other}");
        }
    }
}
