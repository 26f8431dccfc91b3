//! Whose socket a connection has at an address that containers share.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::recent::Recent;
use crate::event::Connection;
use crate::timeline::Span;

/// Connections that are kept.
const MOST: usize = 400_000;

/// Stands for all namespaces but wiretag's own: where both ends of a connection are known, nothing else has these.
const ELSEWHERE: u64 = u64::MAX;

/// Namespace, protocol, own end, other end.
type SocketKey = (u64, u8, Option<IpAddr>, u16, Option<SocketAddr>);

/// Whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whose {
    One(Arc<str>),
    Several,
    Nobody,
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Sockets {
    recent: Recent<SocketKey, Arc<str>>,
}

impl Default for Sockets {
    fn default() -> Self {
        Self { recent: Recent::new(MOST) }
    }
}

impl Sockets {
    /// Takes what was told.
    pub(super) fn take(&mut self, told: &Connection) {
        let netns = if told.netns != 0 && told.peer.is_some() { ELSEWHERE } else { told.netns };
        let key = (netns, told.protocol, told.ip, told.port, told.peer);
        self.recent.put(key, told.identity.clone(), told.from, told.to);
    }

    /// Who had the socket when the span began, if nobody else had it later in it.
    pub(super) fn find(&self, netns: u64, protocol: u8, own: SocketAddr, peer: SocketAddr, when: Span) -> Whose {
        if self.recent.is_empty() {
            return Whose::Nobody;
        }
        let (ip, port) = (own.ip(), own.port());
        // The most exact first: what is not connected takes what comes from anywhere.
        let exact = if netns == 0 { 0 } else { ELSEWHERE };
        let keys =
            [(exact, Some(ip), Some(peer)), (netns, Some(ip), None), (netns, Some(any(ip)), None), (netns, None, None)];
        let found = keys.iter().map(|(netns, ip, peer)| self.one(&(*netns, protocol, *ip, port, *peer), when));
        found.into_iter().find(|whose| *whose != Whose::Nobody).unwrap_or(Whose::Nobody)
    }

    /// The same of a connection with both ends, own and peer, in wiretag's own namespace or whichever else.
    pub(super) fn find_both(
        &self,
        on_host: bool,
        protocol: u8,
        (own, peer): (SocketAddr, SocketAddr),
        when: Span,
    ) -> Whose {
        if self.recent.is_empty() {
            return Whose::Nobody;
        }
        self.one(&(if on_host { 0 } else { ELSEWHERE }, protocol, Some(own.ip()), own.port(), Some(peer)), when)
    }

    fn one(&self, key: &SocketKey, when: Span) -> Whose {
        if self.recent.touching(key, when.from.into()).next().is_none() {
            return Whose::Nobody;
        }
        let mut whose = Whose::Nobody;
        for own in self.recent.touching(key, when) {
            whose = match whose {
                Whose::Nobody => Whose::One(own.value.clone()),
                Whose::One(known) if known == own.value => Whose::One(known),
                Whose::One(_) | Whose::Several => Whose::Several,
            };
        }
        whose
    }

    /// Sockets that found no room.
    pub(super) fn beyond(&self) -> u64 {
        self.recent.beyond()
    }

    /// Forgets what ended before `before`.
    pub(super) fn forget(&mut self, before: i64) {
        self.recent.forget(before);
    }
}

/// All addresses of a family.
pub(super) fn any(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
