//! The host's own addresses (`rtnetlink(7)`): at these, sockets say who it was. Parsing is pure.
//!
//! An address of wiretag's namespace is told as a [`Key::Socket`] without protocol and port (0): all of the address' sockets are
//! the namespace's.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::netlink::{at, attribute};
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
        let identity = format!("node:{host}").into();
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
