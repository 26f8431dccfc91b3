//! The sockets of one network namespace over time: what dumps and ends tell of them, turned into identity events. Pure.
//!
//! **When.** A dump says what is there, the kernel tells each end as it happens. So a socket that the last dump did not have
//! began after it, and after the end of the one that had its address before it, and not before its process: the
//! latest of these is its beginning. Where ends may have been missed, it begins when it was first seen. A socket whose
//! end was not told ended when it was last seen.
//!
//! **What is told.** Sockets that listen are keys ([`Key::Socket`]). Of the connected ones only those are told
//! ([`IdentityEvent::Connected`]) that no listening socket of their container accounts for: clients, and what was accepted by a
//! socket that is gone. Sockets of processes that are in no container are known and not told.
//!
//! Limits: [`MOST_SOCKETS`] are known at once; what is beyond is counted.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::processes::{Owner, Owners, Searched};
use super::sock_diag::{Own, Socket, TCP};
use crate::event::{Connection, IdentityEvent};
use crate::identity::{Identity, Interval, Key};

/// Sockets known at once.
const MOST_SOCKETS: usize = 500_000;
/// Ends between two dumps that are remembered.
const MOST_ENDS: usize = 200_000;
/// Whose a socket is stays open for so long, ns: a process is in its container's group only a moment after it was made.
const PATIENCE: i64 = 3_000_000_000;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Whose {
    /// Not found yet.
    Open,
    /// In no container.
    Nobody,
    Container(Arc<str>),
}

#[derive(Debug)]
struct Tracked {
    socket: Socket,
    whose: Whose,
    from: i64,
    first_seen: i64,
    seen: i64,
    told: bool,
}

/// A key that was told, and how many sockets have it.
#[derive(Debug)]
struct Listening {
    sockets: usize,
    from: i64,
}

/// What could not be known, and what there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Sockets that ended before any dump saw them.
    pub(super) unseen: u64,
    /// Sockets beyond the limit.
    pub(super) beyond: u64,
    /// Sockets whose process was not found among as many as were looked into.
    pub(super) unowned: u64,
    /// Sockets whose process was not found among those that may be looked into.
    pub(super) denied: u64,
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Sockets {
    /// Network namespace in keys (0: wiretag's own), and its inode.
    netns: u64,
    inode: u64,
    boot: Arc<str>,
    /// Ports that the kernel gives out.
    ephemeral: RangeInclusive<u16>,
    tracked: HashMap<u64, Tracked>,
    listening: HashMap<(Arc<str>, u8, Own), Listening>,
    /// Sockets that listen on a port, by container.
    ports: HashMap<(Arc<str>, u8, u16), usize>,
    ends: Ends,
    /// Sockets whose container is not known yet.
    open: Vec<u64>,
    /// Connections whose container has become known.
    fresh: Vec<u64>,
    /// A listening socket has ended: what it had accepted is to be told.
    orphaned: bool,
    pub(super) count: Count,
}

/// What ended since the last dump.
#[derive(Debug, Default)]
struct Ends {
    cookies: HashMap<u64, i64>,
    connections: HashMap<(u8, Own, SocketAddr), i64>,
    ports: HashMap<(u8, u16), i64>,
    /// When the last dump began, if every end since was told.
    since: Option<i64>,
}

impl Ends {
    fn remember(&mut self, socket: &Socket, at: i64) {
        if self.cookies.len() >= MOST_ENDS {
            self.since = None;
            return;
        }
        self.cookies.insert(socket.cookie, at);
        match socket.peer {
            Some(peer) => self.connections.insert((socket.protocol, socket.own, peer), at),
            None => self.ports.insert((socket.protocol, socket.own.port), at),
        };
    }

    /// Before when a socket that was seen first at `at` cannot have begun.
    fn floor(&self, socket: &Socket, at: i64) -> i64 {
        let Some(since) = self.since else { return at };
        let before = match socket.peer {
            Some(peer) => self.connections.get(&(socket.protocol, socket.own, peer)),
            None => self.ports.get(&(socket.protocol, socket.own.port)),
        };
        before.map_or(since, |end| since.max(*end))
    }

    fn forget(&mut self, before: i64) {
        self.cookies.retain(|_, at| *at >= before);
        self.connections.retain(|_, at| *at >= before);
        self.ports.retain(|_, at| *at >= before);
        self.since = Some(before);
    }
}

impl Sockets {
    /// Nothing known yet. `netns` is the namespace as keys have it, `inode` its inode.
    pub(super) fn new(netns: u64, inode: u64, boot: Arc<str>, ephemeral: RangeInclusive<u16>) -> Self {
        Self {
            netns,
            inode,
            boot,
            ephemeral,
            tracked: HashMap::new(),
            listening: HashMap::new(),
            ports: HashMap::new(),
            ends: Ends::default(),
            open: Vec::new(),
            fresh: Vec::new(),
            orphaned: false,
            count: Count::default(),
        }
    }

    /// Sockets known now.
    pub(super) fn len(&self) -> usize {
        self.tracked.len()
    }

    /// Whether these are the sockets of the namespace with that inode.
    pub(super) fn is_of(&self, inode: u64) -> bool {
        self.inode == inode
    }

    /// Ends may have been missed.
    pub(super) fn missed(&mut self) {
        self.ends.since = None;
    }

    /// Takes a dump that began at `at`; every end that was told until after the dump has been taken before.
    pub(super) fn dumped(&mut self, dump: &[Socket], at: i64, owners: &mut dyn Owners, out: &mut Vec<IdentityEvent>) {
        for socket in dump {
            self.see(socket, at);
        }
        self.find_owners(at, owners, out);
        let gone: Vec<u64> = self.tracked.iter().filter(|(_, own)| own.seen < at).map(|(cookie, _)| *cookie).collect();
        for cookie in gone {
            let Some(tracked) = self.tracked.remove(&cookie) else { continue };
            let end = tracked.seen.max(tracked.from);
            self.end(&tracked, end, at, out);
        }
        self.tell_connections(out);
        self.ends.forget(at);
    }

    /// Takes one socket that was asked for. True if it was not known.
    pub(super) fn found(
        &mut self,
        socket: &Socket,
        at: i64,
        owners: &mut dyn Owners,
        out: &mut Vec<IdentityEvent>,
    ) -> bool {
        if self.tracked.contains_key(&socket.cookie) {
            return false;
        }
        self.see(socket, at);
        self.find_owners(at, owners, out);
        self.tell_connections(out);
        true
    }

    /// A socket ended.
    pub(super) fn ended(&mut self, socket: &Socket, at: i64, out: &mut Vec<IdentityEvent>) {
        self.ends.remember(socket, at);
        match self.tracked.remove(&socket.cookie) {
            Some(tracked) => self.end(&tracked, at.max(tracked.from), at, out),
            None => self.count.unseen += 1,
        }
    }

    fn see(&mut self, socket: &Socket, at: i64) {
        if let Some(known) = self.tracked.get_mut(&socket.cookie) {
            known.seen = at;
            return;
        }
        // Without an inode no process has it any more.
        if socket.inode == 0 || self.ends.cookies.contains_key(&socket.cookie) {
            return;
        }
        if self.tracked.len() >= MOST_SOCKETS {
            self.count.beyond += 1;
            return;
        }
        let from = self.ends.floor(socket, at);
        let tracked = Tracked { socket: *socket, whose: Whose::Open, from, first_seen: at, seen: at, told: false };
        self.tracked.insert(socket.cookie, tracked);
        self.open.push(socket.cookie);
    }

    fn find_owners(&mut self, at: i64, owners: &mut dyn Owners, out: &mut Vec<IdentityEvent>) {
        let mut wanted = HashSet::new();
        let mut by_inode = Vec::new();
        for cookie in std::mem::take(&mut self.open) {
            let Some(socket) = self.tracked.get(&cookie).map(|own| own.socket) else { continue };
            if let Some(container) = socket.cgroup.and_then(|cgroup| owners.of_cgroup(cgroup)) {
                self.belongs(cookie, Owner { container, started: None }, at, out);
            } else {
                wanted.insert(socket.inode);
                by_inode.push((cookie, socket.inode));
            }
        }
        if wanted.is_empty() {
            return;
        }
        let mut found = owners.find(self.inode, &wanted);
        for (cookie, inode) in by_inode {
            if let Some(owner) = found.owners.remove(&inode) {
                self.belongs(cookie, owner, at, out);
            } else if let Some(tracked) = self.tracked.get_mut(&cookie) {
                if at.saturating_sub(tracked.first_seen) > PATIENCE {
                    tracked.whose = Whose::Nobody;
                    match found.searched {
                        Searched::All => {}
                        Searched::Allowed => self.count.denied += 1,
                        Searched::Part => self.count.unowned += 1,
                    }
                } else {
                    self.open.push(cookie);
                }
            }
        }
    }

    fn belongs(&mut self, cookie: u64, owner: Owner, at: i64, out: &mut Vec<IdentityEvent>) {
        let Some(tracked) = self.tracked.get_mut(&cookie) else { return };
        let Owner { container, started } = owner;
        tracked.from = tracked.from.max(started.unwrap_or(i64::MIN)).min(tracked.first_seen);
        tracked.whose = Whose::Container(container.clone());
        let (socket, from) = (tracked.socket, tracked.from);
        if !listens(&self.ephemeral, &socket) {
            // The listening sockets of a dump may come after what they accepted.
            self.fresh.push(cookie);
            return;
        }
        tracked.told = true;
        *self.ports.entry((container.clone(), socket.protocol, socket.own.port)).or_default() += 1;
        let key = (container.clone(), socket.protocol, socket.own);
        if let Some(listening) = self.listening.get_mut(&key) {
            listening.sockets += 1;
            return;
        }
        self.listening.insert(key, Listening { sockets: 1, from });
        out.push(IdentityEvent::Learned(self.interval(&container, &socket, (from, None), at)));
    }

    /// Tells connections that no listening socket accounts for.
    fn tell_connections(&mut self, out: &mut Vec<IdentityEvent>) {
        let mut candidates = std::mem::take(&mut self.fresh);
        if std::mem::take(&mut self.orphaned) {
            candidates = self.tracked.keys().copied().collect();
        }
        for cookie in candidates {
            let Some(tracked) = self.tracked.get_mut(&cookie).filter(|own| !own.told) else { continue };
            let Whose::Container(container) = &tracked.whose else { continue };
            let Socket { protocol, own, .. } = tracked.socket;
            if !self.ports.contains_key(&(container.clone(), protocol, own.port)) {
                tracked.told = true;
                out.extend(connection(self.netns, tracked, None));
            }
        }
    }

    fn end(&mut self, tracked: &Tracked, end: i64, at: i64, out: &mut Vec<IdentityEvent>) {
        let Whose::Container(container) = &tracked.whose else { return };
        let socket = &tracked.socket;
        if !tracked.told {
            return;
        }
        if !listens(&self.ephemeral, socket) {
            out.extend(connection(self.netns, tracked, Some(end)));
            return;
        }
        let port = (container.clone(), socket.protocol, socket.own.port);
        if let Some(sockets) = self.ports.get_mut(&port) {
            *sockets -= 1;
            if *sockets == 0 {
                self.ports.remove(&port);
                self.orphaned = true;
            }
        }
        let key = (container.clone(), socket.protocol, socket.own);
        let Some(listening) = self.listening.get_mut(&key) else { return };
        listening.sockets -= 1;
        if listening.sockets == 0 {
            let from = listening.from;
            self.listening.remove(&key);
            out.push(IdentityEvent::Learned(self.interval(container, socket, (from, Some(end)), at)));
        }
    }

    fn interval(
        &self,
        container: &Arc<str>,
        socket: &Socket,
        (valid_from, valid_to): (i64, Option<i64>),
        at: i64,
    ) -> Interval {
        let Own { ip, port } = socket.own;
        let (netns, boot, protocol) = (self.netns, self.boot.clone(), socket.protocol);
        Interval {
            key: Key::Socket { netns, boot, protocol, ip, port },
            identity: Arc::new(Identity { identity: container.clone(), ..Identity::default() }),
            valid_from,
            valid_to,
            learned_at: at,
            source: super::SOURCE.into(),
        }
    }
}

/// Whether the socket is a key of its own: not connected, and on a port that somebody chose.
fn listens(ephemeral: &RangeInclusive<u16>, socket: &Socket) -> bool {
    socket.peer.is_none() && (socket.protocol == TCP || !ephemeral.contains(&socket.own.port))
}

fn connection(netns: u64, tracked: &Tracked, to: Option<i64>) -> Option<IdentityEvent> {
    let Whose::Container(identity) = &tracked.whose else { return None };
    let Socket { protocol, own, peer, .. } = tracked.socket;
    let Own { ip, port } = own;
    let (identity, from) = (identity.clone(), tracked.from);
    Some(IdentityEvent::Connected(Connection { netns, protocol, ip, port, peer, identity, from, to }))
}

#[cfg(test)]
mod tests;
