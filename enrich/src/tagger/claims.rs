//! Which of several observations of the same packets is the primary one.
//!
//! The client's own interface, else the server's, else the first on the path, else an exporter that only told of it. The choice is open until the first row of
//! the flow leaves the tagger, be it a slice or a transaction, and stays from then on for as long as the flow is seen there: so
//! slices never change sides, a transaction is primary where its flow is, and nothing counts twice.
//!
//! A flow that was over at the primary point and goes on elsewhere is another one, of which the choice is open again: a container that
//! is started again may have its address and ports, and another interface. So flows with the same ends take turns, and each observation
//! is one of the turn in which it began: what others see as one flow all the time has packets that count in an earlier turn.
//!
//! Where requests go one way and answers another, each point sees one direction: these are no observations of the same packets. So beside the
//! primary point there may be a second one, for the direction that the first does not see.
//!
//! Two networks may have the same addresses: flows of one are not observations of those of the other. That is known once both
//! networks are, which is when rows leave; what is seen where no network is known is an observation of whichever flow came first.
//!
//! Choices are kept of so many flows; beyond, half of them is forgotten: flows that are over first, then those that were not seen for the
//! longest. Who is forgotten too early may count twice, and nobody does because there is no room.
//!
//! Slices that are still open are shown with the choice as of now, which settles nothing. When another observation takes the
//! claim over, the one that was shown as primary is not that any more: it is named in [`Claims::demoted`].

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use wiretag_capture::{ObservedAt, Protocol, Source};

use super::observation::{End, Observation};

/// A choice is forgotten after so long without a row of the primary point; longer than the idle timeouts, ns.
const CLAIM_LIFE: i64 = 400_000_000_000;
/// The packets of one flow pass its observation points on a node within this time, ns.
const PASSAGE: i64 = 250_000_000;
/// Turns of a flow at most.
const MOST_TURNS: usize = 8;

/// The same at every observation point, in either orientation, and on both sides of a translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FlowKey {
    protocol: Protocol,
    ends: [End; 2],
    /// Where addresses overlap: the network.
    network: Option<u32>,
}

impl FlowKey {
    /// Of the two ends as they are everywhere.
    pub(super) fn of(protocol: Protocol, [one, two]: [End; 2]) -> Self {
        Self { protocol, ends: if one <= two { [one, two] } else { [two, one] }, network: None }
    }

    /// Of a flow whose ends are others in another network.
    pub(super) fn within(self, network: Option<u32>) -> Self {
        Self { network, ..self }
    }
}

/// Which directions of a flow an observation has packets of: from its lesser end, from its greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Directions([bool; 2]);

impl Directions {
    /// Of the two ends as they are everywhere, and who of them sent. Who tells of no packets may have had any.
    pub(super) fn of([one, two]: [End; 2], [by_one, by_two]: [bool; 2]) -> Self {
        if !by_one && !by_two {
            return Self([true; 2]);
        }
        Self(if one <= two { [by_one, by_two] } else { [by_two, by_one] })
    }

    fn and(self, other: Self) -> Self {
        let ([one, two], [own, other]) = (self.0, other.0);
        Self([one || own, two || other])
    }

    /// Whether both have packets of one direction.
    fn overlap(self, other: Self) -> bool {
        self.0.into_iter().zip(other.0).any(|(own, other)| own && other)
    }
}

/// An observation point of a flow. A translated one may come in and leave by one interface, on either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Spot {
    netns: u64,
    interface: u32,
    side: Side,
}

/// Which ends the packets had there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    /// Those of the flow.
    Own,
    /// Those on the other side of a translation.
    Translated,
}

impl Spot {
    fn of(key: &FlowKey, seen: &Observation) -> Self {
        let here = FlowKey::of(seen.protocol, [seen.client, seen.server]);
        let side = if here.ends == key.ends { Side::Own } else { Side::Translated };
        Self { netns: seen.netns, interface: seen.interface, side }
    }
}

/// Which observation point of a flow is the primary one, so far.
struct Claim {
    rank: u8,
    since: i64,
    /// It is the beginning of a flow there.
    begins: bool,
    spot: Spot,
    /// What it has had packets of.
    directions: Directions,
    /// A row has left with this choice: it stays.
    settled: bool,
    /// When the primary point had a row the last time.
    seen: i64,
    /// When the last flow began there that is known.
    latest: i64,
    /// When it was over there; `None`: it goes on, as far as is known.
    over: Option<i64>,
    /// The open slice that was last shown as the primary one.
    shown: Option<OpenSlice>,
}

/// Flow id and number of a slice that is open.
pub type OpenSlice = (u64, u32);

impl Claim {
    fn new(key: &FlowKey, directions: Directions, seen: &Observation, now: i64) -> Self {
        let rank = match (seen.source, seen.observed_at) {
            (Source::Netflow, _) => 3,
            (Source::Ring | Source::File, Some(ObservedAt::Client)) => 0,
            (Source::Ring | Source::File, Some(ObservedAt::Server)) => 1,
            (Source::Ring | Source::File, Some(ObservedAt::Path) | None) => 2,
        };
        let (since, spot) = (seen.since, Spot::of(key, seen));
        let (begins, over) = (seen.begins, seen.over);
        Self { rank, since, begins, spot, directions, settled: false, seen: now, latest: since, over, shown: None }
    }

    fn order(&self) -> (u8, i64, Spot) {
        (self.rank, self.since, self.spot)
    }

    /// Whether what another point, or a later flow, has seen is nothing of this flow: it comes late for its last packet, or, as a beginning that is
    /// behind that, late for its first.
    fn is_over_before(&self, own: &Self) -> bool {
        let late = |time: i64| own.since > time.saturating_add(PASSAGE);
        self.over.is_some_and(|over| late(over) || (own.begins && own.since > over && late(self.since)))
    }

    /// Another row of the same point.
    fn goes_on(&mut self, own: &Self) {
        self.directions = self.directions.and(own.directions);
        self.seen = self.seen.max(own.seen);
        self.latest = self.latest.max(own.latest);
        self.over = self.over.max(own.over).filter(|over| self.latest <= *over);
        if own.order() < self.order() && !self.settled {
            (self.rank, self.since) = (own.rank, own.since);
        }
    }
}

/// The choices for a flow.
struct Turn {
    first: Claim,
    /// For the direction that the first does not see.
    second: Option<Claim>,
}

impl Turn {
    fn new(first: Claim) -> Self {
        Self { first, second: None }
    }

    fn claims(&self) -> impl Iterator<Item = &Claim> {
        std::iter::once(&self.first).chain(&self.second)
    }

    fn is_over_before(&self, own: &Claim) -> bool {
        self.claims().all(|claim| claim.is_over_before(own))
    }

    /// The choice that an observation asks for: it, or another point.
    fn ask(&mut self, own: Claim, demoted: &mut Vec<OpenSlice>) -> &mut Claim {
        let directions = own.directions;
        let overlaps = |claim: &mut Claim| claim.directions.overlap(directions);
        if self.first.spot == own.spot {
            self.first.goes_on(&own);
            demoted.extend(self.second.take_if(overlaps).and_then(|second| second.shown));
            return &mut self.first;
        }
        let mut apart = !self.first.directions.overlap(own.directions);
        if let Some(second) = self.second.as_mut().filter(|second| second.spot == own.spot) {
            second.goes_on(&own);
            apart = !self.first.directions.overlap(second.directions);
            if !apart {
                demoted.extend(self.second.take().and_then(|second| second.shown));
            }
        }
        let spot = own.spot;
        if apart {
            let is_better = |second: &Claim| own.order() < second.order() && !second.settled;
            if self.second.as_ref().is_none_or(|second| second.spot != spot && is_better(second)) {
                demoted.extend(self.second.replace(own).and_then(|second| second.shown));
            }
        } else if own.order() < self.first.order() && !self.first.settled {
            demoted.extend(self.second.take_if(overlaps).and_then(|second| second.shown));
            demoted.extend(std::mem::replace(&mut self.first, own).shown);
        }
        match &mut self.second {
            Some(second) if second.spot == spot => second,
            Some(_) | None => &mut self.first,
        }
    }

    /// Whether something is left of it without what was not seen since `before`.
    fn forget(&mut self, before: i64) -> bool {
        self.second.take_if(|second| second.seen <= before);
        if self.first.seen <= before
            && let Some(second) = self.second.take()
        {
            self.first = second;
        }
        self.first.seen > before
    }
}

/// Those for flows with the same ends that came one after the other.
struct Turns {
    before: Vec<Turn>,
    last: Turn,
}

impl Turns {
    /// See [`Turn::ask`], of the turn in which the observation began.
    fn ask(&mut self, own: Claim, demoted: &mut Vec<OpenSlice>) -> &mut Claim {
        let place = self.before.iter().position(|turn| !turn.is_over_before(&own));
        let is_of_last = self.last.claims().any(|claim| claim.spot == own.spot);
        if place.is_none() && self.last.is_over_before(&own) && !is_of_last {
            if self.before.len() + 1 >= MOST_TURNS {
                self.before.remove(0);
            }
            self.before.push(std::mem::replace(&mut self.last, Turn::new(own)));
            return &mut self.last.first;
        }
        let turn = place.and_then(|place| self.before.get_mut(place)).unwrap_or(&mut self.last);
        turn.ask(own, demoted)
    }

    /// What is forgotten first has the least: whether it goes on, as far as is known, and when it was seen.
    fn worth(&self) -> (bool, i64) {
        let goes_on = self.last.claims().any(|claim| claim.over.is_none());
        (goes_on, self.last.claims().map(|claim| claim.seen).max().unwrap_or(i64::MIN))
    }

    /// Whether something is left of them without what was not seen since `before`.
    fn forget(&mut self, before: i64) -> bool {
        self.before.retain_mut(|turn| turn.forget(before));
        if self.last.forget(before) {
            return true;
        }
        let left = self.before.pop();
        left.map(|turn| self.last = turn).is_some()
    }
}

/// See the module documentation.
pub(super) struct Claims {
    turns: HashMap<FlowKey, Turns>,
    /// Flows of which choices are kept.
    most: usize,
    /// Open slices that were shown as primary and are not any more. Whoever shows slices takes them.
    pub(super) demoted: Vec<OpenSlice>,
}

impl Claims {
    pub(super) fn new(most: usize) -> Self {
        Self { turns: HashMap::new(), most, demoted: Vec::new() }
    }

    /// An observation asks to be the primary one of its flow.
    pub(super) fn claim(&mut self, flow: (FlowKey, Directions), seen: &Observation, now: i64) {
        self.turn(flow, seen, now);
    }

    /// Whether this observation is a primary one; the answer stays.
    pub(super) fn settle(&mut self, flow: (FlowKey, Directions), seen: &Observation, now: i64) -> bool {
        let claim = self.turn(flow, seen, now);
        claim.settled = true;
        let own = claim.spot == Spot::of(&flow.0, seen);
        if own && seen.over.is_some() {
            // What was shown of it has ended.
            claim.shown = None;
        }
        own
    }

    /// Whether this observation of a slice that is open would be a primary one by now.
    pub(super) fn show(&mut self, flow: (FlowKey, Directions), seen: &Observation, now: i64, slice: OpenSlice) -> bool {
        let claim = self.turn(flow, seen, now);
        let own = claim.spot == Spot::of(&flow.0, seen);
        if own {
            claim.shown = Some(slice);
        }
        own
    }

    fn turn(&mut self, (key, directions): (FlowKey, Directions), seen: &Observation, now: i64) -> &mut Claim {
        let own = Claim::new(&key, directions, seen, now);
        if self.turns.len() >= self.most && !self.turns.contains_key(&key) {
            self.make_room();
        }
        match self.turns.entry(key) {
            Entry::Occupied(known) => known.into_mut().ask(own, &mut self.demoted),
            Entry::Vacant(free) => {
                let turns = Turns { before: Vec::new(), last: Turn::new(own) };
                &mut free.insert(turns).last.first
            }
        }
    }

    /// Forgets half of them.
    fn make_room(&mut self) {
        let mut worth: Vec<_> = self.turns.values().map(Turns::worth).collect();
        let half = worth.len() / 2;
        let (_, middle, _) = worth.select_nth_unstable(half);
        let middle = *middle;
        // Of those that are worth the same, some stay.
        let mut left = half.saturating_sub(worth.iter().filter(|own| **own > middle).count());
        self.turns.retain(|_, turns| {
            let is_middle = turns.worth() == middle;
            let stays = turns.worth() > middle || (is_middle && left > 0);
            left -= usize::from(is_middle && stays);
            stays
        });
    }

    /// Forgets what was not seen for long.
    pub(super) fn forget(&mut self, now: i64) {
        self.turns.retain(|_, turns| turns.forget(now.saturating_sub(CLAIM_LIFE)));
    }
}
