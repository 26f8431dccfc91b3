//! Which of several observations of the same packets is the primary one.
//!
//! The client's own interface, else the server's, else the first on the path, else an exporter that only told of it. The choice is open until the first row of
//! the flow leaves the tagger, be it a slice or a transaction, and stays from then on for as long as the flow is seen there: so
//! slices never change sides, a transaction is primary where its flow is, and nothing counts twice.
//!
//! A flow that was over at the primary point and goes on elsewhere is another one, and the choice is open again: a container that
//! is started again may have its address and ports, and another interface. What began before that does not take part, for it has
//! packets that count already.
//!
//! Two networks may have the same addresses: flows of one are not observations of those of the other. That is known once both
//! networks are, which is when rows leave; what is seen where no network is known is an observation of whichever flow came first.
//!
//! Slices that are still open are shown with the choice as of now, which settles nothing. When another observation takes the
//! claim over, the one that was shown as primary is not that any more: it is named in [`Claims::demoted`].

use std::collections::HashMap;

use wiretag_capture::{ObservedAt, Protocol, Source};

use super::observation::{End, Observation};

/// A choice is forgotten after so long without a row of the primary point; longer than the idle timeouts, ns.
const CLAIM_LIFE: i64 = 400_000_000_000;
/// The packets of one flow pass its observation points on a node within this time, ns.
const PASSAGE: i64 = 250_000_000;
/// Choices that are kept at most.
const MOST_CLAIMS: usize = 1_000_000;

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
    spot: Spot,
    /// A row has left with this choice: it stays.
    settled: bool,
    /// When the primary point had a row the last time.
    seen: i64,
    /// When the flow was over there; `None`: it goes on, as far as is known.
    over: Option<i64>,
    /// The open slice that was last shown as the primary one.
    shown: Option<OpenSlice>,
}

/// Flow id and number of a slice that is open.
pub type OpenSlice = (u64, u32);

impl Claim {
    fn order(&self) -> (u8, i64, Spot) {
        (self.rank, self.since, self.spot)
    }

    /// Whether what is seen since `since` is nothing of this flow.
    fn is_over_before(&self, since: i64) -> bool {
        self.over.is_some_and(|over| since > over.saturating_add(PASSAGE))
    }
}

/// See the module documentation.
#[derive(Default)]
pub(super) struct Claims {
    claims: HashMap<FlowKey, Claim>,
    /// Open slices that were shown as primary and are not any more. Whoever shows slices takes them.
    pub(super) demoted: Vec<OpenSlice>,
}

impl Claims {
    /// An observation asks to be the primary one of its flow.
    pub(super) fn claim(&mut self, key: FlowKey, seen: &Observation, now: i64) {
        let rank = match (seen.source, seen.observed_at) {
            (Source::Netflow, _) => 3,
            (Source::Ring | Source::File, Some(ObservedAt::Client)) => 0,
            (Source::Ring | Source::File, Some(ObservedAt::Server)) => 1,
            (Source::Ring | Source::File, Some(ObservedAt::Path) | None) => 2,
        };
        let (since, spot) = (seen.since, Spot::of(&key, seen));
        let own = Claim { rank, since, spot, settled: false, seen: now, over: None, shown: None };
        let room = self.claims.len() < MOST_CLAIMS;
        match self.claims.get_mut(&key) {
            Some(claim) if claim.spot == spot => {
                claim.seen = now;
                claim.over = claim.over.filter(|over| since <= *over);
                if own.order() < claim.order() && !claim.settled {
                    (claim.rank, claim.since) = (rank, since);
                }
            }
            Some(claim) => {
                let is_better = own.order() < claim.order() && !claim.settled;
                if is_better || claim.is_over_before(since) {
                    self.demoted.extend(std::mem::replace(claim, own).shown);
                }
            }
            None if room => drop(self.claims.insert(key, own)),
            None => {}
        }
    }

    /// Whether this observation is the primary one; the answer stays.
    pub(super) fn settle(&mut self, key: FlowKey, seen: &Observation) -> bool {
        let Some(claim) = self.claims.get_mut(&key) else { return true };
        claim.settled = true;
        let own = claim.spot == Spot::of(&key, seen);
        if own && seen.over.is_some() {
            // What was shown of it has ended.
            (claim.over, claim.shown) = (claim.over.max(seen.over), None);
        }
        own
    }

    /// Whether this observation of a slice that is open would be the primary one by now.
    pub(super) fn show(&mut self, key: FlowKey, seen: &Observation, slice: OpenSlice) -> bool {
        let Some(claim) = self.claims.get_mut(&key) else { return true };
        let own = claim.spot == Spot::of(&key, seen);
        if own {
            claim.shown = Some(slice);
        }
        own
    }

    /// Forgets what was not seen for long.
    pub(super) fn forget(&mut self, now: i64) {
        self.claims.retain(|_, claim| now.saturating_sub(claim.seen) < CLAIM_LIFE);
    }
}
