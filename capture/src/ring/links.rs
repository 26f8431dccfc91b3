//! The interfaces of a network namespace: what there is, what changes, and which are captured.
//!
//! Netlink's multicast messages can be lost, so they only say *when* to look; what there is comes from a dump.

use std::time::Duration;

use super::netlink::{self, Progress};
use super::{RingError, sys};

/// `RTMGRP_LINK`.
const LINK_GROUP: u32 = 1;
const BUFFER: usize = 1 << 16;

/// Kind of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkKind {
    /// One end of a pair, the other of which is usually in a container.
    Veth,
    /// Linux bridge.
    Bridge,
    /// tun or tap.
    Tun,
    /// VXLAN end point.
    Vxlan,
    /// macvlan or macvtap.
    Macvlan,
    /// ipvlan or ipvtap: one of several with the link-layer address of the device below.
    Ipvlan,
    /// A routing domain of its own (VRF), which its ports are in.
    Vrf,
    /// A device that is not virtual.
    Physical,
    /// `lo`.
    Loopback,
    /// Any other virtual device.
    Other,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index in its namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: LinkKind,
    /// Link-layer address.
    pub mac: Option<[u8; 6]>,
    /// Administratively up.
    pub up: bool,
    /// Index of the bridge or VRF that it is a port of.
    pub master: Option<u32>,
    /// Index of the other end (veth) or of the lower device (macvlan, ipvlan, VLAN), in its own namespace.
    pub peer: Option<u32>,
    /// Namespace of `peer`, as this namespace numbers them; `None`: the same namespace.
    pub peer_namespace: Option<i32>,
}

impl Link {
    /// Its link-layer address, if no other interface beside it has the same.
    pub fn own_mac(&self) -> Option<[u8; 6]> {
        self.mac.filter(|_| self.kind != LinkKind::Ipvlan)
    }
}

/// The VRF that an interface is in, itself or by the bridge or bond that it is a port of.
pub fn vrf<'a>(link: &Link, links: &'a [Link]) -> Option<&'a Link> {
    let above = |index: Option<u32>| links.iter().find(|own| Some(own.index) == index);
    let first = above(link.master)?;
    [Some(first), above(first.master)].into_iter().flatten().find(|own| own.kind == LinkKind::Vrf)
}

/// The interfaces of the calling thread's namespace.
pub fn list() -> Result<Vec<Link>, RingError> {
    let socket = sys::Netlink::open(0)?;
    socket.send(&netlink::dump_request())?;
    let mut links = Vec::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match netlink::parse(socket.receive(&mut buffer)?, &mut links) {
            Progress::More => {}
            Progress::Done => return Ok(links),
            Progress::Refused(number) => {
                let source = std::io::Error::from_raw_os_error(-number);
                return Err(RingError::System { what: "list the interfaces", source });
            }
        }
    }
}

/// Says when interfaces change.
pub struct LinkWatcher {
    socket: sys::Netlink,
    buffer: Vec<u8>,
}

impl LinkWatcher {
    /// Watches the calling thread's namespace.
    pub fn open() -> Result<Self, RingError> {
        Ok(Self { socket: sys::Netlink::open(LINK_GROUP)?, buffer: vec![0; BUFFER] })
    }

    /// Waits for a change, at most `timeout`; true if there was one (or too many to be told).
    pub fn wait(&mut self, timeout: Duration) -> Result<bool, RingError> {
        let changed = self.socket.wait(timeout)?;
        let mut more = changed;
        while more {
            self.socket.receive(&mut self.buffer)?;
            more = self.socket.wait(Duration::ZERO)?;
        }
        Ok(changed)
    }

    /// What becomes readable with a change.
    pub(super) fn socket(&self) -> &sys::Netlink {
        &self.socket
    }
}

/// The interfaces to capture: with no pattern every veth, bridge and tap that is up, else those whose name matches one.
pub fn select<'a>(links: &'a [Link], patterns: &[String]) -> Vec<&'a Link> {
    let by_kind = |link: &Link| link.up && matches!(link.kind, LinkKind::Veth | LinkKind::Bridge | LinkKind::Tun);
    let wanted = |link: &&Link| is_selected(&link.name, patterns) && (!patterns.is_empty() || by_kind(link));
    links.iter().filter(wanted).collect()
}

/// Whether a name is one of these, or matches one of these patterns; without any, every name does.
pub fn is_selected(name: &str, patterns: &[String]) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| matches_pattern(pattern.as_bytes(), name.as_bytes()))
}

/// `*` is any number of characters, `?` is one. Linear in the product of the lengths.
fn matches_pattern(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut in_name, mut retry) = (0, 0, None);
    while in_name < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at + 1, in_name));
                at += 1;
            }
            Some(b'?') => (at, in_name) = (at + 1, in_name + 1),
            Some(byte) if name.get(in_name) == Some(byte) => (at, in_name) = (at + 1, in_name + 1),
            _ => {
                let Some((after_star, from)) = retry else { return false };
                retry = Some((after_star, from + 1));
                (at, in_name) = (after_star, from + 1);
            }
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vrf_holds_its_ports_and_those_of_a_bridge_in_it() {
        let link = |index: u32, kind: LinkKind, master: u32| {
            let (name, master) = (format!("link{index}"), Some(master).filter(|master| *master > 0));
            Link { index, name, kind, mac: None, up: true, master, peer: None, peer_namespace: None }
        };
        let links = [
            link(1, LinkKind::Vrf, 0),
            link(2, LinkKind::Physical, 1),
            link(3, LinkKind::Bridge, 1),
            link(4, LinkKind::Veth, 3),
            link(5, LinkKind::Bridge, 0),
            link(6, LinkKind::Veth, 5),
            link(7, LinkKind::Veth, 99),
        ];
        let inside = links.iter().filter(|link| vrf(link, &links).is_some_and(|vrf| vrf.index == 1));
        assert_eq!(inside.map(|link| link.index).collect::<Vec<_>>(), [2, 3, 4]);
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, matches) in [
            ("veth*", "veth12ab", true),
            ("veth*", "br-veth", false),
            ("*ab", "veth12ab", true),
            ("eth?", "eth0", true),
            ("eth?", "eth10", false),
            ("e*h*0", "eth-heth0", true),
            ("", "eth0", false),
        ] {
            assert_eq!(matches_pattern(pattern.as_bytes(), name.as_bytes()), matches, "{pattern} {name}");
        }
    }
}
