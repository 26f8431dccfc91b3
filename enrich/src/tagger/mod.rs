//! The join: flow records and transactions to tagged ones, and which of several observations is the primary one.
//!
//! ```text
//! record ──────┐                                   ┌─ held ─ primary? [claims] ─ who? [names] ─ tagged
//!              ├─ observation ─ where? ─ [claims] ─┤
//! transaction ─┘        [observation]              └─ held ─ …
//! ```
//!
//! Rows are held for a short time after they came, because what identity sources say arrives late, and because the other
//! observations of the same packets come in the meantime. A row with an end without a name waits longer while a source that
//! is told of things over a network has not been heard as of the row's time ([`PATIENCE`]), because its name may still come.
//! What is held is bounded: beyond the limit the oldest are tagged at once. Slices that are still open are named at once,
//! as of now: see [`Tagger::name_open`]. A transaction does not wait for its flow's record: each is tagged by itself, as of
//! its own time.
//!
//! Rows that were stored without a name are named by the same join when it is told at last ([`Again`]).

mod again;
mod claims;
mod connections;
mod names;
mod observation;
mod recent;
mod sockets;
mod translations;
mod variants;
mod within;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use wiretag_capture::{Direction, FlowRecord, ObservedAt, Source, Transaction};

pub use self::again::{Again, Links, NamesAgain, StoredEnd, StoredRow};
pub use self::claims::OpenSlice;
use self::claims::{Claims, Directions, FlowKey};
use self::connections::Connections;
use self::names::Namer;
use self::observation::{End, Observation, Observed};
use self::within::Within;
use crate::event::IdentityEvent;
use crate::tagged::{EndTag, Tagged, TaggedBy, TaggedFlow, TaggedTransaction};
use crate::timeline::View;

/// How long a row waits at most for a source that is not in touch, ns. A source that is away for longer is not waited for.
pub const PATIENCE: i64 = 60_000_000_000;
/// Interfaces of which it is known whose they are at most; beyond, the half that was not seen for the longest is forgotten.
const MOST_LINKS: usize = 65_536;
/// How often claims are looked through, ns.
const SWEEP: i64 = 10_000_000_000;

/// Limits of a tagger.
#[derive(Debug, Clone)]
pub struct TaggerConfig {
    /// Boot id: part of interface keys.
    pub boot: Arc<str>,
    /// How long a row waits for names, ns.
    pub hold: i64,
    /// Records held at most, and transactions.
    pub max_held: usize,
    /// Flows of which it is known which observation is the primary one, at most.
    pub max_claims: usize,
}

impl Default for TaggerConfig {
    fn default() -> Self {
        Self { boot: "".into(), hold: 2_000_000_000, max_held: 200_000, max_claims: 1_000_000 }
    }
}

/// What a tagger hands on.
#[derive(Debug, Default)]
pub struct TaggedRows {
    /// Slices of flows.
    pub flows: Vec<TaggedFlow>,
    /// Transactions.
    pub transactions: Vec<TaggedTransaction>,
}

impl TaggedRows {
    /// Rows of both kinds.
    pub fn len(&self) -> usize {
        self.flows.len() + self.transactions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// See the module documentation.
pub struct Tagger {
    join: Join,
    records: Hold<FlowRecord>,
    transactions: Hold<Transaction>,
    swept: i64,
    /// The latest time that it was told.
    latest: i64,
}

/// Rows that wait, in the order in which they came.
struct Hold<R> {
    waiting: VecDeque<Held<R>>,
    /// Those with an end that may still get a name.
    unnamed: VecDeque<Held<R>>,
    most: usize,
}

struct Held<R> {
    netns: u64,
    record: R,
    due: i64,
    /// Its last packet.
    until: i64,
}

impl<R> Held<R> {
    /// Whether what a source will tell may still name it.
    fn hopes(&self, now: i64, heard: i64) -> bool {
        let is_away = heard < now.saturating_sub(PATIENCE);
        heard < self.until && !is_away && now < self.due.saturating_add(PATIENCE)
    }
}

impl<R> Hold<R> {
    fn new(most: usize) -> Self {
        Self { waiting: VecDeque::new(), unnamed: VecDeque::new(), most }
    }

    /// The next row that has waited long enough, or is one too many.
    fn due(&mut self, now: i64, heard: i64) -> Option<Held<R>> {
        let is_full = self.is_full();
        let unnamed = self.unnamed.pop_front_if(|held| is_full || !held.hopes(now, heard));
        unnamed.or_else(|| self.waiting.pop_front_if(|held| held.due <= now || is_full))
    }

    fn is_full(&self) -> bool {
        self.waiting.len() + self.unnamed.len() > self.most
    }

    fn take_all(&mut self) -> impl Iterator<Item = Held<R>> {
        self.unnamed.drain(..).chain(self.waiting.drain(..))
    }
}

/// What decides about rows.
struct Join {
    config: TaggerConfig,
    claims: Claims,
    names: Namer,
    connections: Connections,
    links: HashMap<(u64, u32), Link>,
    /// Counts what is looked for in `links`.
    looks: u64,
}

/// An interface.
struct Link {
    /// It is a single container's.
    container_side: bool,
    /// The last look for it.
    seen: u64,
}

impl Tagger {
    /// An empty tagger.
    pub fn new(config: TaggerConfig) -> Self {
        let (records, transactions) = (Hold::new(config.max_held), Hold::new(config.max_held));
        let claims = Claims::new(config.max_claims);
        let join = Join {
            config,
            claims,
            names: Namer::default(),
            connections: Connections::default(),
            links: HashMap::new(),
            looks: 0,
        };
        Self { join, records, transactions, swept: 0, latest: i64::MIN }
    }

    /// Says whether an interface is the one of a single container (the host's end of a veth, or inside its namespace).
    pub fn set_link(&mut self, netns: u64, index: u32, container_side: bool) {
        self.join.set_link(netns, index, container_side);
    }

    /// Takes what a source tells of single connections; of other events nothing.
    pub fn learn(&mut self, event: &IdentityEvent) {
        self.join.connections.learn(event);
    }

    /// Sockets and translations that found no room.
    pub fn connections_lost(&self) -> u64 {
        self.join.connections.beyond()
    }

    /// Takes a record whose slice has ended; `now` is the time from which it waits.
    pub fn push(&mut self, netns: u64, record: FlowRecord, now: i64) {
        self.records.waiting.push_back(self.join.arrive(netns, record, now));
    }

    /// Takes a transaction that is finished, as [`Self::push`] takes a record.
    pub fn push_transaction(&mut self, netns: u64, transaction: Transaction, now: i64) {
        self.transactions.waiting.push_back(self.join.arrive(netns, transaction, now));
    }

    /// Names slices that are still open, as far as is known by now. Whether one is the primary observation is as of now too:
    /// nothing is settled. What an earlier call said of others may have become untrue: [`Self::take_demoted`].
    pub fn name_open(&mut self, netns: u64, records: Vec<FlowRecord>, now: i64, timeline: &View) -> Vec<TaggedFlow> {
        // All claims first: the order in which the observations of one flow are told says nothing.
        let arrived: Vec<_> = records.into_iter().map(|record| self.join.arrive(netns, record, now)).collect();
        arrived.into_iter().map(|held| self.join.show(held, timeline)).collect()
    }

    /// Open slices that [`Self::name_open`] gave as primary and that are not any more: another observation of the same
    /// packets came forward.
    pub fn take_demoted(&mut self) -> Vec<OpenSlice> {
        std::mem::take(&mut self.join.claims.demoted)
    }

    /// Whether rows wait beyond the limit, so that [`Self::drain`] is due.
    pub fn is_full(&self) -> bool {
        self.records.is_full() || self.transactions.is_full()
    }

    /// Tags what has waited long enough, and the oldest beyond the limit.
    pub fn drain(&mut self, now: i64, timeline: &View, out: &mut TaggedRows) {
        if now < self.latest.saturating_sub(self.join.config.hold) {
            // The clock went back: what waits for a time would wait until it comes again, and with it all that comes behind it.
            self.flush(timeline, out);
            self.join.claims = Claims::new(self.join.config.max_claims);
            self.swept = now;
            self.latest = now;
        }
        self.latest = self.latest.max(now);
        let Self { join, records, transactions, .. } = self;
        join.drain(records, now, timeline, &mut out.flows);
        join.drain(transactions, now, timeline, &mut out.transactions);
        if now.saturating_sub(self.swept) > SWEEP {
            self.swept = now;
            self.join.claims.forget(now);
            self.join.connections.forget(now);
        }
    }

    /// Tags everything.
    pub fn flush(&mut self, timeline: &View, out: &mut TaggedRows) {
        let Self { join, records, transactions, .. } = self;
        out.flows.extend(records.take_all().map(|held| join.leave(held, timeline)));
        out.transactions.extend(transactions.take_all().map(|held| join.leave(held, timeline)));
    }
}

impl Join {
    /// Where was it seen, and might it be the primary observation?
    fn arrive<R: Observed>(&mut self, netns: u64, mut record: R, now: i64) -> Held<R> {
        let seen = record.observation(netns);
        if seen.source == Source::Ring {
            record.set_observed_at(self.observed_at(&seen));
        }
        let seen = record.observation(netns);
        // What never counts, as the packets of a tunnel around flows, takes nobody's place.
        if record.is_primary() {
            // As far as its ends are known by now.
            let ends = self.connections.ends(&seen);
            let flow = (FlowKey::of(seen.protocol, ends), Directions::of(ends, seen.sent));
            self.claims.claim(flow, &seen, now);
        }
        let until = seen.when.to;
        Held { netns, record, due: now.saturating_add(self.config.hold), until }
    }

    /// Tags what has waited long enough.
    fn drain<R: Observed>(&mut self, hold: &mut Hold<R>, now: i64, timeline: &View, out: &mut Vec<Tagged<R>>) {
        let heard = timeline.heard();
        while let Some(held) = hold.due(now, heard) {
            let may_wait = !hold.is_full() && held.hopes(now, heard);
            if may_wait && self.lacks_a_name(&held, timeline) {
                hold.unnamed.push_back(held);
            } else {
                out.push(self.leave(held, timeline));
            }
        }
    }

    fn lacks_a_name<R: Observed>(&mut self, held: &Held<R>, timeline: &View) -> bool {
        let seen = held.record.observation(held.netns);
        let (client, server) = self.names.of(&self.config.boot, &seen, timeline, &self.connections);
        // An address in a range that a file names may yet turn out to be somebody's own.
        let may_improve = |end: &EndTag| end.identity.is_none() || end.tagged_by == TaggedBy::Static;
        may_improve(&client) || may_improve(&server)
    }

    /// Is it the primary observation, and who were its ends?
    fn leave<R: Observed>(&mut self, held: Held<R>, timeline: &View) -> Tagged<R> {
        let Held { netns, mut record, due, .. } = held;
        let seen = record.observation(netns);
        if record.is_primary() {
            // Another key than when it came, if that it is translated, or that addresses overlap, was told after.
            let flow = self.flow(&seen, timeline);
            record.set_primary(self.claims.settle(flow, &seen, due));
        }
        let (client, server) = self.names.of(&self.config.boot, &seen, timeline, &self.connections);
        Tagged { record, client, server }
    }

    /// The flow that it is an observation of, and what of it.
    fn flow(&self, seen: &Observation, timeline: &View) -> (FlowKey, Directions) {
        let ends = self.connections.ends(seen);
        let key = FlowKey::of(seen.protocol, ends);
        let overlaps = |end: End| timeline.overlapping(end.0, seen.when);
        let is_unclear = seen.source == Source::Ring && (overlaps(seen.client) || overlaps(seen.server));
        let network = || Within::of(seen, timeline).network().and_then(|network| timeline.network_number(network));
        (key.within(is_unclear.then(network).flatten()), Directions::of(ends, seen.sent))
    }

    /// As [`Self::leave`], and nothing is decided.
    fn show(&mut self, held: Held<FlowRecord>, timeline: &View) -> TaggedFlow {
        let Held { netns, mut record, due, .. } = held;
        let seen = record.observation(netns);
        if record.primary {
            let flow = self.flow(&seen, timeline);
            record.primary = self.claims.show(flow, &seen, due, (record.flow_id, record.slice));
        }
        let (client, server) = self.names.of(&self.config.boot, &seen, timeline, &self.connections);
        Tagged { record, client, server }
    }

    fn set_link(&mut self, netns: u64, index: u32, container_side: bool) {
        if self.links.len() >= MOST_LINKS {
            let mut seen: Vec<u64> = self.links.values().map(|link| link.seen).collect();
            let (_, middle, _) = seen.select_nth_unstable(MOST_LINKS / 2);
            let middle = *middle;
            self.links.retain(|_, link| link.seen > middle);
        }
        self.looks += 1;
        self.links.insert((netns, index), Link { container_side, seen: self.looks });
    }

    fn observed_at(&mut self, seen: &Observation) -> ObservedAt {
        self.looks += 1;
        let looks = self.looks;
        let link = self.links.get_mut(&(seen.netns, seen.interface));
        let container_side = link.is_some_and(|link| {
            link.seen = looks;
            link.container_side
        });
        let Some(direction) = seen.client_direction.filter(|_| container_side) else { return ObservedAt::Path };
        match (seen.netns, direction) {
            // The host's end receives what the container sends; inside the container it is the other way round.
            (0, Direction::Ingress) | (1.., Direction::Egress) => ObservedAt::Client,
            (0, Direction::Egress) | (1.., Direction::Ingress) => ObservedAt::Server,
        }
    }
}
