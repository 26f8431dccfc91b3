//! The host's own addresses (`rtnetlink(7)`): at these, sockets say who it was. Parsing is pure.
//!
//! An address of wiretag's namespace is told as a [`Key::Socket`] without protocol and port (0): all of the address' sockets are
//! the namespace's. Whose it is has an id of its own (`host:NAME`): the cluster's node (`node:NAME`) may end and come again, and the host has
//! its addresses all the time.
//!
//! Of another namespace, [`own`] tells the addresses that are surely its holder's.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::netlink::{Asker, at, attribute};
use crate::event::IdentityEvent;
use crate::identity::{Identity, Interval, Key};

/// `RTM_GETADDR`, `RTM_NEWADDR`.
pub(super) const GET: u16 = 22;
const NEW: u16 = 20;
/// `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV6_IFADDR`.
pub(super) const GROUPS: u32 = 0x110;
/// The body of the request for all addresses: `ifaddrmsg` of no family.
pub(super) const ALL: [u8; HEADER] = [0; HEADER];

const HEADER: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
/// A further address of a subnet (IPv4), or one that is made up for a while (IPv6).
const SECONDARY: u32 = 0x01;
/// Another host has it.
const DUPLICATE: u32 = 0x08;

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Assigned {
    index: u32,
    ip: IpAddr,
    prefix: u8,
    /// Valid beyond its link.
    global: bool,
    flags: u32,
}

/// Addresses of the calling thread's network namespace, with the index of their interface, that no other host will have
/// while the namespace is there. Those that wander are left out: further addresses of a subnet, and single ones beside
/// a subnet's, as they are given to whoever leads a group.
pub(crate) fn own() -> io::Result<Vec<(u32, IpAddr)>> {
    let mut all = Vec::new();
    Asker::open(libc::NETLINK_ROUTE)?.dump(GET, &ALL, &mut |kind, body| all.extend(assigned(kind, body)))?;
    Ok(lasting(&all))
}

fn lasting(all: &[Assigned]) -> Vec<(u32, IpAddr)> {
    let is_single = |own: &Assigned| own.prefix >= if own.ip.is_ipv4() { 32 } else { 128 };
    let is_alone = |own: &Assigned| {
        let same =
            |other: &&Assigned| other.index == own.index && other.ip.is_ipv4() == own.ip.is_ipv4() && other.global;
        all.iter().filter(same).count() == 1
    };
    let lasts =
        |own: &&Assigned| own.global && own.flags & (SECONDARY | DUPLICATE) == 0 && (!is_single(own) || is_alone(own));
    all.iter().filter(lasts).filter(|own| !own.ip.is_loopback()).map(|own| (own.index, own.ip)).collect()
}

fn assigned(kind: u16, body: &[u8]) -> Option<Assigned> {
    let ip = parse(kind, body)?;
    let [_family, prefix, flags, scope, index @ ..] = *body.first_chunk::<HEADER>()?;
    let long = attribute(body.get(HEADER..)?, IFA_FLAGS).and_then(|value| at(value, 0)).map(u32::from_ne_bytes);
    let flags = long.unwrap_or_else(|| flags.into());
    let global = scope == libc::RT_SCOPE_UNIVERSE;
    Some(Assigned { index: u32::from_ne_bytes(index), ip, prefix, global, flags })
}

/// An address of a dump's message.
pub(super) fn parse(kind: u16, body: &[u8]) -> Option<IpAddr> {
    if kind != NEW {
        return None;
    }
    let attributes = body.get(HEADER..)?;
    // Of a point-to-point link `IFA_ADDRESS` is the other end.
    let own = attribute(attributes, IFA_LOCAL).or_else(|| attribute(attributes, IFA_ADDRESS))?;
    match i32::from(*body.first()?) {
        libc::AF_INET => at::<4>(own, 0).map(|ip| Ipv4Addr::from(ip).into()),
        libc::AF_INET6 => at::<16>(own, 0).map(|ip| Ipv6Addr::from(ip).into()),
        _ => None,
    }
}

/// The host's addresses over time.
#[derive(Debug)]
pub(super) struct Addresses {
    host: Arc<Identity>,
    boot: Arc<str>,
    known: HashMap<IpAddr, i64>,
}

impl Addresses {
    pub(super) fn new(host: &Arc<str>, boot: Arc<str>) -> Self {
        let identity = format!("host:{host}").into();
        let host = Arc::new(Identity { identity, host: Some(host.clone()), ..Identity::default() });
        Self { host, boot, known: HashMap::new() }
    }

    pub(super) fn contains(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.known.contains_key(&ip)
    }

    /// These are the addresses at `at`.
    pub(super) fn take(&mut self, there: &HashSet<IpAddr>, at: i64, out: &mut Vec<IdentityEvent>) {
        let gone: Vec<IpAddr> = self.known.keys().filter(|ip| !there.contains(ip)).copied().collect();
        for ip in gone {
            if let Some(from) = self.known.remove(&ip) {
                out.push(self.event(ip, from, Some(at), at));
            }
        }
        for ip in there {
            if !self.known.contains_key(ip) {
                self.known.insert(*ip, at);
                out.push(self.event(*ip, at, None, at));
            }
        }
    }

    fn event(&self, ip: IpAddr, valid_from: i64, valid_to: Option<i64>, learned_at: i64) -> IdentityEvent {
        let key = Key::Socket { netns: 0, boot: self.boot.clone(), protocol: 0, ip: Some(ip), port: 0 };
        let (identity, source) = (self.host.clone(), super::SOURCE.into());
        IdentityEvent::Learned(Interval { key, identity, valid_from, valid_to, learned_at, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK_SCOPE: u8 = 253;

    /// A message of the kernel: family, prefix length, flags, scope, interface, address.
    fn message(prefix: u8, flags: u8, scope: u8, index: u32, ip: &str) -> Vec<u8> {
        let (family, bytes) = match ip.parse().expect("an address") {
            IpAddr::V4(ip) => (libc::AF_INET as u8, ip.octets().to_vec()),
            IpAddr::V6(ip) => (libc::AF_INET6 as u8, ip.octets().to_vec()),
        };
        let mut body = vec![family, prefix, flags, scope];
        body.extend(index.to_ne_bytes());
        body.extend((4 + bytes.len() as u16).to_ne_bytes());
        body.extend(IFA_ADDRESS.to_ne_bytes());
        body.extend(bytes);
        body
    }

    fn told(messages: &[Vec<u8>]) -> Vec<String> {
        let all: Vec<Assigned> = messages.iter().filter_map(|body| assigned(NEW, body)).collect();
        assert_eq!(all.len(), messages.len());
        lasting(&all).into_iter().map(|(index, ip)| format!("{index} {ip}")).collect()
    }

    #[test]
    fn addresses_that_may_wander_are_nobodys() {
        let found = told(&[
            message(8, 0x80, 254, 1, "127.0.0.1"),
            message(24, 0x80, 0, 2, "10.1.0.7"),
            message(64, 0, 0, 2, "fd00::7"),
            message(64, 0x80, LINK_SCOPE, 2, "fe80::7"),
            // A group's address: in the subnet, and alone.
            message(24, 0x81, 0, 2, "10.1.0.100"),
            message(32, 0x80, 0, 2, "10.1.0.101"),
            // Made up for a while, and somebody else's.
            message(64, 0x01, 0, 2, "fd00::1234"),
            message(64, 0x08, 0, 2, "fd00::9"),
            // As some plugins give it.
            message(32, 0x80, 0, 3, "10.2.0.7"),
        ]);
        assert_eq!(found, ["2 10.1.0.7", "2 fd00::7", "3 10.2.0.7"]);
    }

    /// A node that is deleted from the cluster, and registers again.
    #[test]
    fn the_host_has_its_addresses_whatever_becomes_of_the_node() {
        use crate::timeline::{Lookup, Timeline};
        let (mut addresses, mut timeline) = (Addresses::new(&"n1".into(), "boot".into()), Timeline::new());
        let (ip, mut told): (IpAddr, _) = ([10, 1, 0, 7].into(), Vec::new());
        addresses.take(&HashSet::from([ip]), 10, &mut told);
        let (identity, source) = ("node:n1".into(), "kubernetes".into());
        told.push(IdentityEvent::Ended { identity, at: 20, learned_at: 20, source });
        for event in &told {
            timeline.apply(event);
        }
        assert_ne!(timeline.socket((0, "boot"), 0, (ip, 0), 30), Lookup::None);
    }

    #[test]
    fn long_flags_count() {
        let mut body = message(64, 0, 0, 2, "fd00::9");
        body.extend([8, 0, 8, 0]);
        body.extend((0x800_u32 | DUPLICATE).to_ne_bytes());
        assert!(told(&[body]).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100)) {
            let _ = assigned(NEW, &bytes);
        }
    }
}
