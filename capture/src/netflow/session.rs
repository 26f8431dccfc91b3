//! What must be remembered of an exporter from one message to the next: for each version and observation domain, as templates are told
//! for these. With IPFIX over UDP they are of a transport address (RFC 7011, 8), with NetFlow v9 of an address, whatever its port (RFC 3954, 5.1).
//!
//! Messages are counted by port all the same: several processes of an address that have one source id count each for themselves.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::counters::NetflowCounters;
use super::message::{Format, Header};
use super::sampling::{Samplers, Told as Sampling};
use super::sequence::{Contents, Sequence, Step, Unit};
use super::template::{Dialect, News, Scope, Templates};
use super::told::Told;

/// Sessions that are remembered at most.
const MOST_SESSIONS: usize = 1024;
/// Fields of templates, names of interfaces and rates of sampling of all of them at most: some thirty megabytes.
const MOST_KEPT: usize = 1 << 18;
/// Names of interfaces and rates of sampling of a session at most: large routers have thousands of interfaces.
const MOST_OPTIONS: usize = 1 << 14;
/// Ports of a session from which messages are counted.
const MOST_PORTS: usize = 64;
/// An uptime that is so much shorter than the one before is that of an exporter that has started anew, and not of a message that was overtaken, ms.
const RESTARTED: u32 = 60_000;
/// Interfaces without a name whose number is kept as text.
const MOST_NUMBERS: usize = 256;

/// Who speaks, in which format, of which domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SessionKey {
    exporter: IpAddr,
    /// `None` with NetFlow v9.
    port: Option<u16>,
    version: u16,
    domain: u32,
}

impl SessionKey {
    pub(super) fn new(from: SocketAddr, header: &Header) -> Self {
        let port = match header.format {
            Format::V5 { .. } | Format::Sets(Dialect::Ipfix) => Some(from.port()),
            Format::Sets(Dialect::V9) => None,
        };
        Self { exporter: from.ip(), port, version: header.version, domain: header.domain }
    }
}

/// See the module documentation.
pub(super) struct Session {
    /// The exporter's address as text.
    pub(super) node: Arc<str>,
    pub(super) templates: Templates,
    pub(super) samplers: Samplers,
    pub(super) booted: Option<u64>,
    /// Names that options told.
    interfaces: HashMap<u64, Arc<str>>,
    /// Of interfaces without a name: saves making the text for each record.
    numbers: HashMap<u64, Arc<str>>,
    ports: HashMap<u16, Port>,
    heard: i64,
}

/// The messages of a port.
struct Port {
    sequence: Sequence,
    /// Number and uptime of the last one.
    last: (u32, Option<u32>),
}

impl Session {
    fn new(key: &SessionKey) -> Self {
        Self {
            node: key.exporter.to_string().into(),
            templates: Templates::default(),
            samplers: Samplers::default(),
            booted: None,
            interfaces: HashMap::new(),
            numbers: HashMap::new(),
            ports: HashMap::new(),
            heard: i64::MIN,
        }
    }

    /// Takes a record of options; false if there is no room for all that it says.
    pub(super) fn learn(&mut self, told: Told, sampling: &Sampling, scope: Scope) -> bool {
        let has_room = |session: &Self| session.samplers.len() + session.interfaces.len() < MOST_OPTIONS;
        let is_known = self.samplers.learn(sampling, scope, has_room(self));
        let (booted, interface) = told.options();
        self.booted = booted.or(self.booted);
        let Some((number, name)) = interface else { return is_known };
        let fits = has_room(self) || self.interfaces.contains_key(&number);
        if fits {
            self.interfaces.insert(number, name.into());
        }
        fits && is_known
    }

    /// What it takes of memory, in things that are kept.
    pub(super) fn kept(&self) -> usize {
        self.templates.fields() + self.samplers.len() + self.interfaces.len()
    }

    /// A message from a port begins. Of an exporter that has started anew what its options told holds no more (NetFlow v9): it may sample in
    /// another way, or not at all, and would not say so. Templates hold until it tells others, which it does at once.
    pub(super) fn begin(&mut self, port: u16, header: &Header) {
        let Some(Port { last: (number, Some(uptime)), .. }) = self.ports.get(&port) else { return };
        let is_anew = |now: u32| header.number < *number && now < uptime.saturating_sub(RESTARTED);
        if header.clocks.uptime.is_some_and(is_anew) {
            self.samplers = Samplers::default();
            self.interfaces.clear();
        }
    }

    /// Takes the number of a message from a port.
    pub(super) fn count(&mut self, port: u16, header: &Header, contents: Contents, counters: &mut NetflowCounters) {
        if self.ports.len() >= MOST_PORTS && !self.ports.contains_key(&port) {
            // They are counted from their next message on.
            self.ports.clear();
        }
        let last = (header.number, header.clocks.uptime);
        let port =
            self.ports.entry(port).or_insert_with(|| Port { sequence: Sequence::new(wanted(header.format)), last });
        port.last = last;
        match port.sequence.next(header.number, contents) {
            Step::Next => {}
            Step::LostRecords(count) => counters.lost_records += count,
            Step::LostMessages(count) => counters.lost_datagrams += count,
            Step::Late => counters.late += 1,
            Step::Restart => counters.restarts += 1,
        }
    }
}

/// What the numbers of messages count.
const fn wanted(format: Format) -> Unit {
    match format {
        Format::V5 { .. } | Format::Sets(Dialect::Ipfix) => Unit::Before,
        Format::Sets(Dialect::V9) => Unit::Messages,
    }
}

/// The interface of a record: its name in the record or in options, else its number.
pub(super) fn interface(session: &mut Session, told: &mut Told) -> Arc<str> {
    if let Some(name) = told.interface_name() {
        return name.into();
    }
    let Some(number) = told.interface_number() else { return "unknown".into() };
    if let Some(known) = session.interfaces.get(&number).or_else(|| session.numbers.get(&number)) {
        return known.clone();
    }
    let name: Arc<str> = format!("if{number}").into();
    if session.numbers.len() < MOST_NUMBERS {
        session.numbers.insert(number, name.clone());
    }
    name
}

/// The sessions of all exporters.
#[derive(Default)]
pub(super) struct Sessions {
    known: HashMap<SessionKey, Session>,
    /// What all of them keep.
    kept: usize,
}

impl Sessions {
    /// The session of a message. When there are too many, the one that was not heard for longest is forgotten.
    pub(super) fn of(&mut self, key: SessionKey, now: i64, counters: &mut NetflowCounters) -> &mut Session {
        if self.known.len() >= MOST_SESSIONS && !self.known.contains_key(&key) {
            self.forget_oldest(counters);
        }
        let session = self.known.entry(key).or_insert_with(|| Session::new(&key));
        session.heard = now;
        session
    }

    /// A session that kept so much [`before`](Session::kept) has learnt something: memory is bounded over all sessions.
    pub(super) fn limit(&mut self, key: &SessionKey, before: usize, counters: &mut NetflowCounters) {
        let after = self.known.get(key).map_or(0, Session::kept);
        self.kept = (self.kept + after).saturating_sub(before);
        while self.kept > MOST_KEPT {
            self.forget_oldest(counters);
        }
    }

    fn forget_oldest(&mut self, counters: &mut NetflowCounters) {
        let oldest = self.known.iter().min_by_key(|(_, session)| session.heard).map(|(key, _)| *key);
        if let Some(session) = oldest.and_then(|key| self.known.remove(&key)) {
            self.kept = self.kept.saturating_sub(session.kept());
            counters.forgotten += 1;
        } else {
            self.kept = 0;
        }
    }

    /// Sessions, and their templates.
    pub(super) fn len(&self) -> (u64, u64) {
        (self.known.len() as u64, self.known.values().map(|session| session.templates.len() as u64).sum())
    }
}

/// Takes what a set of templates says.
pub(super) fn learn(session: &mut Session, news: News, of_options: bool, counters: &mut NetflowCounters) {
    if !session.templates.learn(news, of_options) {
        counters.forgotten += 1;
    }
}
