//! Follows the sockets of the host's namespace, and of those that several containers share: a round of dumps every second or
//! so, each end as it happens, and single sockets that are asked for when their connection begins.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use wiretag_capture::ring::{in_namespace, namespace_inode};

use super::addresses::{self, Addresses};
use super::conntrack::Connection;
use super::guests::Guests;
use super::netlink::{Asker, DATAGRAM, messages};
use super::numbers::KernelNumbers;
use super::processes::{Processes, Resident};
use super::sock_diag::{self, SOCK_DIAG_BY_FAMILY, TCP, UDP};
use super::sockets::Sockets;
use super::sys::{self, Netlink, Received};
use super::{INTERVAL, KernelConfig, LONGEST, SHARE, SOURCE, is_due, now};
use crate::event::{IdentityEvent, Snapshot};

const PROC: &str = "/proc";
/// Bytes of ends that may wait.
const BUFFER: i32 = 4 << 20;
/// Of the time, the part that may be spent on single sockets: one in so many; saved up at most [`SAVED`], ns.
const SINGLES: i64 = 10;
const SAVED: i64 = 50_000_000;
/// Namespaces of pods that are followed.
const MOST_NAMESPACES: usize = 512;

/// One network namespace.
struct Namespace {
    asker: Asker,
    ends: Netlink,
    sockets: Sockets,
}

impl Namespace {
    /// Opens it in the calling thread's namespace.
    fn open(sockets: Sockets) -> io::Result<Self> {
        let ends = Netlink::open(sock_diag::PROTOCOL, sock_diag::DESTROY_GROUPS, BUFFER)?;
        Ok(Self { asker: Asker::open(sock_diag::PROTOCOL)?, ends, sockets })
    }

    fn dump(&mut self) -> io::Result<Vec<sock_diag::Socket>> {
        let mut found = Vec::new();
        for request in sock_diag::requests() {
            let protocol = request.get(1).copied();
            self.asker.dump(SOCK_DIAG_BY_FAMILY, &request, &mut |_, body| {
                if sock_diag::is_used(protocol, body) {
                    found.extend(sock_diag::parse(protocol, body));
                }
            })?;
        }
        Ok(found)
    }

    /// Takes the ends that were told.
    fn take_ends(
        &mut self,
        buffer: &mut [u8],
        numbers: &KernelNumbers,
        out: &mut Vec<IdentityEvent>,
    ) -> io::Result<()> {
        loop {
            match self.ends.receive(buffer)? {
                Received::Datagram(datagram) => {
                    let at = now();
                    for message in messages(datagram).filter(|own| own.kind == SOCK_DIAG_BY_FAMILY) {
                        if let Some(socket) = sock_diag::parse(None, message.body) {
                            self.sockets.ended(&socket, at, out);
                        }
                    }
                }
                Received::Overrun => {
                    numbers.add_overrun();
                    self.sockets.missed();
                }
                Received::Nothing => return Ok(()),
            }
        }
    }
}

/// See the module documentation.
pub(super) struct WatchSockets {
    config: KernelConfig,
    host: Namespace,
    /// By inode.
    others: HashMap<u64, Namespace>,
    processes: Processes,
    guests: Guests,
    links: (Asker, Netlink),
    addresses: Addresses,
    buffer: Vec<u8>,
    due: i64,
    last: Option<i64>,
    is_first: bool,
    budget: Budget,
    numbers: Arc<KernelNumbers>,
}

/// Time that may be spent on single sockets.
struct Budget {
    left: i64,
    since: i64,
}

impl Budget {
    fn refill(&mut self, now: i64) {
        self.left = (self.left + (now - self.since).max(0) / SINGLES).min(SAVED);
        self.since = now;
    }
}

impl WatchSockets {
    /// Subscribes; the first round is due.
    pub(super) fn open(config: &KernelConfig, numbers: Arc<KernelNumbers>) -> io::Result<Self> {
        let inode = namespace_inode(Path::new("/proc/thread-self/ns/net")).map_err(io::Error::other)?;
        let mut host = Namespace::open(Sockets::new(0, inode, config.boot.clone(), ephemeral_ports()))?;
        host.dump()?;
        let links = Netlink::open(libc::NETLINK_ROUTE, addresses::GROUPS, 1 << 16)?;
        Ok(Self {
            config: config.clone(),
            host,
            others: HashMap::new(),
            processes: Processes::new(Path::new(PROC)),
            guests: Guests::new(config.boot.clone()),
            links: (Asker::open(libc::NETLINK_ROUTE)?, links),
            addresses: Addresses::new(&config.host, config.boot.clone()),
            buffer: vec![0; DATAGRAM],
            due: 0,
            last: None,
            is_first: true,
            budget: Budget { left: 0, since: now() },
            numbers,
        })
    }

    /// Whether the kernel answers.
    pub(super) fn check() -> io::Result<()> {
        let sockets = Sockets::new(0, 0, "".into(), ephemeral_ports());
        Namespace::open(sockets)?.dump().map(drop)
    }

    /// When the last round was that told everything; before the first, what an earlier run said.
    pub(super) fn heard(&self) -> Option<i64> {
        self.last.or(self.config.heard)
    }

    /// When the next round is due.
    pub(super) fn due(&self) -> i64 {
        self.due
    }

    /// What tells that there is something to take.
    pub(super) fn sockets(&self) -> impl Iterator<Item = &Netlink> {
        let others = self.others.values().map(|own| &own.ends);
        [&self.host.ends, &self.links.1].into_iter().chain(others)
    }

    /// Takes what there is; `begun` are connections that have just begun.
    pub(super) fn take(&mut self, begun: &[Connection], out: &mut Vec<IdentityEvent>) -> io::Result<()> {
        // What is told before the snapshot, and is not in it, would have ended with it.
        if self.is_first {
            return self.timed_round(out);
        }
        self.host.take_ends(&mut self.buffer, &self.numbers, out)?;
        for other in self.others.values_mut() {
            other.take_ends(&mut self.buffer, &self.numbers, out)?;
        }
        if !matches!(self.links.1.receive(&mut self.buffer)?, Received::Nothing) {
            while !matches!(self.links.1.receive(&mut self.buffer)?, Received::Nothing) {}
            self.take_addresses(out)?;
        }
        self.ask_for(begun, out)?;
        if is_due(self.due, now(), LONGEST) { self.timed_round(out) } else { Ok(()) }
    }

    fn timed_round(&mut self, out: &mut Vec<IdentityEvent>) -> io::Result<()> {
        let before = sys::own_time();
        let at = now();
        self.round(at, out)?;
        let took = sys::own_time() - before;
        self.numbers.add_round(took);
        self.last = Some(at);
        self.due = now() + (took * SHARE).clamp(INTERVAL, LONGEST);
        Ok(())
    }

    fn round(&mut self, at: i64, out: &mut Vec<IdentityEvent>) -> io::Result<()> {
        let mut told = Vec::new();
        self.take_addresses(&mut told)?;
        let dump = self.host.dump()?;
        self.host.take_ends(&mut self.buffer, &self.numbers, &mut told)?;
        self.processes.list(now());
        self.host.sockets.dumped(&dump, at, &mut self.processes, &mut told);
        self.round_of_others(at, &mut told)?;
        if std::mem::take(&mut self.is_first) {
            told = self.snapshot(told, at);
        }
        out.append(&mut told);
        let mut counts = self.host.sockets.count;
        let mut sockets = self.host.sockets.len();
        for other in self.others.values() {
            counts.beyond += other.sockets.count.beyond;
            counts.denied += other.sockets.count.denied;
            sockets += other.sockets.len();
        }
        self.numbers.set_sockets(sockets, counts);
        Ok(())
    }

    /// What the first round learned is all that holds: what an earlier run left open ends.
    fn snapshot(&self, told: Vec<IdentityEvent>, at: i64) -> Vec<IdentityEvent> {
        let (mut present, mut others) = (Vec::new(), Vec::new());
        for event in told {
            if let IdentityEvent::Learned(interval) = event {
                present.push(interval);
            } else {
                others.push(event);
            }
        }
        let (source, stopped, heard) = (SOURCE.into(), Vec::new(), self.config.heard);
        let snapshot = IdentityEvent::Reconciled(Snapshot { source, present, stopped, unclear: Vec::new(), heard, at });
        std::iter::once(snapshot).chain(others).collect()
    }

    fn take_addresses(&mut self, out: &mut Vec<IdentityEvent>) -> io::Result<()> {
        let (mut there, at) = (HashSet::<IpAddr>::new(), now());
        self.links.0.dump(addresses::GET, &addresses::ALL, &mut |kind, body| {
            there.extend(addresses::parse(kind, body));
        })?;
        self.addresses.take(&there, at, out);
        Ok(())
    }

    /// Asks for the sockets of connections that the host has just opened.
    fn ask_for(&mut self, begun: &[Connection], out: &mut Vec<IdentityEvent>) -> io::Result<()> {
        for connection in begun {
            let [own, peer] = connection.original;
            if !matches!(connection.protocol, TCP | UDP) || !self.addresses.contains(own.ip()) {
                continue;
            }
            let (begin, before) = (now(), sys::own_time());
            self.budget.refill(begin);
            if self.budget.left <= 0 {
                self.numbers.add_deferred();
                continue;
            }
            let request = sock_diag::request_for(connection.protocol, own, peer);
            let parse = |body: &[u8]| sock_diag::parse(Some(connection.protocol), body);
            let found = self.host.asker.ask(SOCK_DIAG_BY_FAMILY, &request, parse)?;
            // Without a connected socket the kernel answers with the one that listens on the port.
            if let Some(socket) = found.filter(|own| own.protocol == UDP || own.peer == Some(peer)) {
                self.processes.refresh(begin);
                self.host.sockets.found(&socket, begin, &mut self.processes, out);
            }
            self.budget.left -= sys::own_time() - before;
        }
        Ok(())
    }

    /// The namespaces that several containers share.
    fn round_of_others(&mut self, at: i64, out: &mut Vec<IdentityEvent>) -> io::Result<()> {
        let shared = self.shared_namespaces();
        self.guests.take(&shared, at, out);
        for (_, mut gone) in self.others.extract_if(|inode, _| !shared.contains_key(inode)) {
            gone.sockets.dumped(&[], at, &mut self.processes, out);
        }
        for (inode, containers) in shared {
            let Some(resident) = containers.values().next() else { continue };
            let path = Path::new(PROC).join(resident.pid.to_string()).join("ns/net");
            if !self.others.contains_key(&inode) && self.others.len() < MOST_NAMESPACES {
                let sockets = Sockets::new(inode, inode, self.config.boot.clone(), ephemeral_ports());
                // A pod that is gone meanwhile is none to follow.
                if let Ok(Ok(namespace)) = in_namespace(&path, move || Namespace::open(sockets)) {
                    self.others.insert(inode, namespace);
                }
            }
            let Some(namespace) = self.others.get_mut(&inode) else { continue };
            // Of one pod that cannot be read the others do not suffer.
            let Ok(dump) = namespace.dump() else {
                namespace.sockets.missed();
                continue;
            };
            namespace.take_ends(&mut self.buffer, &self.numbers, out)?;
            namespace.sockets.dumped(&dump, at, &mut self.processes, out);
        }
        Ok(())
    }

    /// Namespaces with several containers. A pod with one container has a second one that only holds its
    /// namespace and has no sockets: to follow it is of no use, and of no harm.
    fn shared_namespaces(&self) -> HashMap<u64, HashMap<Arc<str>, Resident>> {
        let all = self.processes.by_namespace().into_iter();
        all.filter(|(inode, own)| !self.host.sockets.is_of(*inode) && own.len() > 1).collect()
    }
}

/// The ports that the kernel gives out (`ip_local_port_range`).
fn ephemeral_ports() -> std::ops::RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ports = text.split_whitespace().filter_map(|port| port.parse().ok());
    match (ports.next(), ports.next()) {
        (Some(first), Some(last)) => first..=last,
        _ => 32_768..=60_999,
    }
}
