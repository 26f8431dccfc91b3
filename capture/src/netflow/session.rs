//! What must be remembered of an exporter from one message to the next: for each transport address, version and observation domain,
//! as templates are told for these (RFC 7011, 8; RFC 3954, 5.1).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::counters::NetflowCounters;
use super::sampling::{Samplers, Told as Sampling};
use super::sequence::{Contents, Sequence, Step, Unit};
use super::template::{News, Scope, Templates};
use super::told::Told;

/// Sessions that are remembered at most.
const MOST_SESSIONS: usize = 1024;
/// Fields of all their templates at most: some three megabytes.
const MOST_FIELDS: usize = 1 << 18;
/// Names of interfaces of a session at most.
const MOST_INTERFACES: usize = 256;

/// Who speaks, in which format, of which domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SessionKey {
    pub(super) from: SocketAddr,
    pub(super) version: u16,
    pub(super) domain: u32,
}

/// See the module documentation.
pub(super) struct Session {
    /// The exporter's address as text.
    pub(super) node: Arc<str>,
    pub(super) templates: Templates,
    pub(super) samplers: Samplers,
    pub(super) booted: Option<u64>,
    interfaces: HashMap<u64, Arc<str>>,
    sequence: Sequence,
    heard: i64,
}

impl Session {
    fn new(key: &SessionKey, wanted: Unit) -> Self {
        Self {
            node: key.from.ip().to_string().into(),
            templates: Templates::default(),
            samplers: Samplers::default(),
            booted: None,
            interfaces: HashMap::new(),
            sequence: Sequence::new(wanted),
            heard: i64::MIN,
        }
    }

    /// Takes a record of options.
    pub(super) fn learn(&mut self, told: Told, sampling: &Sampling, scope: Scope) {
        self.samplers.learn(sampling, scope);
        let (booted, interface) = told.options();
        self.booted = booted.or(self.booted);
        if let Some((number, name)) = interface
            && (self.interfaces.len() < MOST_INTERFACES || self.interfaces.contains_key(&number))
        {
            self.interfaces.insert(number, name.into());
        }
    }

    /// Takes the number of a message.
    pub(super) fn count(&mut self, number: u32, contents: Contents, counters: &mut NetflowCounters) {
        match self.sequence.next(number, contents) {
            Step::Next => {}
            Step::LostRecords(count) => counters.lost_records += count,
            Step::LostMessages(count) => counters.lost_datagrams += count,
            Step::Late => counters.late += 1,
            Step::Restart => counters.restarts += 1,
        }
    }
}

/// The interface of a record: its name in the record or in options, else its number.
pub(super) fn interface(session: &mut Session, told: &mut Told) -> Arc<str> {
    if let Some(name) = told.interface_name() {
        return name.into();
    }
    let Some(number) = told.interface_number() else { return "unknown".into() };
    if let Some(known) = session.interfaces.get(&number) {
        return known.clone();
    }
    let name: Arc<str> = format!("if{number}").into();
    if session.interfaces.len() < MOST_INTERFACES {
        session.interfaces.insert(number, name.clone());
    }
    name
}

/// The sessions of all exporters.
#[derive(Default)]
pub(super) struct Sessions {
    known: HashMap<SessionKey, Session>,
    /// Fields of all their templates.
    fields: usize,
}

impl Sessions {
    /// The session of a message. When there are too many, the one that was not heard for longest is forgotten.
    pub(super) fn of(
        &mut self,
        key: SessionKey,
        wanted: Unit,
        now: i64,
        counters: &mut NetflowCounters,
    ) -> &mut Session {
        if self.known.len() >= MOST_SESSIONS && !self.known.contains_key(&key) {
            self.forget_oldest(counters);
        }
        let session = self.known.entry(key).or_insert_with(|| Session::new(&key, wanted));
        session.heard = now;
        session
    }

    /// A session that had templates of so many fields has learnt others: memory is bounded over all sessions.
    pub(super) fn limit(&mut self, key: &SessionKey, before: usize, counters: &mut NetflowCounters) {
        let after = self.known.get(key).map_or(0, |session| session.templates.fields());
        self.fields = (self.fields + after).saturating_sub(before);
        while self.fields > MOST_FIELDS {
            self.forget_oldest(counters);
        }
    }

    fn forget_oldest(&mut self, counters: &mut NetflowCounters) {
        let oldest = self.known.iter().min_by_key(|(_, session)| session.heard).map(|(key, _)| *key);
        if let Some(session) = oldest.and_then(|key| self.known.remove(&key)) {
            self.fields = self.fields.saturating_sub(session.templates.fields());
            counters.forgotten += 1;
        } else {
            self.fields = 0;
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
