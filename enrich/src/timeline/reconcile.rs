//! A source has told all that holds: what it does not name has ended.
//!
//! That may be of tens of thousands of pods. So it is done in steps, one for each key, and whoever owns the timeline can look
//! something up in between.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::Timeline;
use super::history::{Claim, Context};
use super::keys::Place;
use super::sources::UNCERTAIN;
use super::view::View;
use crate::event::{Snapshot, Stopped};
use crate::identity::Interval;

/// How far a snapshot is worked through: first which keys it names, then what of all that was open it does not, then what
/// is new.
#[derive(Debug)]
pub(super) struct Reconciling {
    source: u8,
    heard: Option<i64>,
    at: i64,
    present: VecDeque<Interval>,
    /// How many it had at first; what is done is dropped at once.
    keys: usize,
    stopped: HashMap<Arc<str>, Stopped>,
    unclear: HashSet<Arc<str>>,
    named: HashMap<(Place, u32), i64>,
    open: Vec<(Place, u32)>,
    confirmed: HashSet<(Place, u32)>,
    next: usize,
}

impl Timeline {
    /// Begins to work through a snapshot.
    pub(super) fn reconcile(&mut self, snapshot: Snapshot) {
        let Snapshot { source, present, stopped, unclear, heard, at } = snapshot;
        let source = self.source(&source);
        let open = self.open.get(&source).into_iter().flatten().copied().collect();
        let stopped = stopped.into_iter().map(|own| (own.identity.clone(), own)).collect();
        let (named, confirmed) = (HashMap::with_capacity(present.len()), HashSet::new());
        self.reconciling = Some(Reconciling {
            source,
            heard,
            at,
            keys: present.len(),
            present: present.into(),
            stopped,
            unclear: unclear.into_iter().collect(),
            named,
            open,
            confirmed,
            next: 0,
        });
    }

    /// Whether an event is still being applied.
    pub fn is_busy(&self) -> bool {
        self.reconciling.is_some()
    }

    /// Does the next `most` steps of an event that takes long.
    pub fn advance(&mut self, most: usize) {
        let Some(mut own) = self.reconciling.take() else { return };
        for _ in 0..most {
            if !self.step(&mut own) {
                return;
            }
        }
        self.reconciling = Some(own);
    }

    /// The next step; false if there is none.
    fn step(&mut self, own: &mut Reconciling) -> bool {
        let next = own.next;
        own.next += 1;
        if let Some(interval) = own.present.get(next).filter(|_| next < own.keys) {
            let place = self.view.names.place(&interval.key);
            let subject = self.view.subjects.number(&interval.identity.identity);
            if let Some(key) = place.zip(subject) {
                own.named.insert(key, interval.valid_from);
            }
        } else if let Some((place, subject)) = own.open.get(next - own.keys).copied() {
            self.compare(own, place, subject);
        } else if let Some(interval) = own.present.pop_front() {
            self.begin_or_confirm(interval, own);
        } else {
            // Not before all of it is known.
            self.hear(own.source, own.at);
            return false;
        }
        true
    }

    /// Whether the snapshot confirms what the source left open; if not, it ended.
    fn compare(&mut self, own: &mut Reconciling, place: Place, subject: u32) {
        let View { histories, subjects, sources, .. } = &self.view;
        let context = Context { place, subjects, sources };
        let open = histories.get(&place).and_then(|history| history.open_of(subject, own.source, context));
        let (Some(claim), Some(known)) = (open.copied(), subjects.get(subject)) else { return };
        if own.unclear.contains(&known.id) {
            return;
        }
        // It lasted until then for sure.
        let sure = own.heard.unwrap_or(claim.learned_at).max(claim.from);
        if own.named.get(&(place, subject)).is_some_and(|from| *from <= sure) {
            own.confirmed.insert((place, subject));
            return;
        }
        let same_run = own.stopped.get(&known.id).filter(|stopped| stopped.from <= sure);
        let to = same_run.map_or(sure, |stopped| stopped.to).max(claim.from);
        let unheard = same_run.is_none();
        self.close(place, &claim, (to, unheard, own.at));
    }

    /// What the source left open when it was last heard lasts no longer than that, although it told of the next one, perhaps an hour later,
    /// before its snapshot.
    fn compare_replaced(&mut self, own: &Reconciling, place: Place) {
        let (Some(heard), Some(history)) = (own.heard, self.view.histories.get(&place)) else { return };
        let is_named = |claim: &Claim| own.named.contains_key(&(place, claim.subject));
        let replaced = history.replaced_after(own.source, heard);
        let left: Vec<Claim> =
            replaced.filter(|claim| claim.learned_at <= heard && !is_named(claim)).copied().collect();
        for claim in left {
            let known = self.view.subjects.get(claim.subject);
            let stopped = known.and_then(|known| own.stopped.get(&known.id)).filter(|stopped| stopped.from <= heard);
            let to = stopped.map_or(heard, |stopped| stopped.to).max(claim.from);
            self.close(place, &claim, (to, stopped.is_none(), own.at));
        }
    }

    fn close(&mut self, place: Place, claim: &Claim, (to, unheard, learned_at): (i64, bool, i64)) {
        let Some(history) = self.view.histories.get_mut(&place) else { return };
        let Some(own) = history.history_mut().find_mut(claim.subject, claim.source, claim.from) else { return };
        own.close(to, unheard, learned_at);
        self.touch(claim.subject);
        self.resolve(place, claim.from);
        self.note_late(place, to, claim.source);
    }

    fn begin_or_confirm(&mut self, mut interval: Interval, own: &Reconciling) {
        let place = self.view.names.place(&interval.key);
        let subject = self.view.subjects.number(&interval.identity.identity);
        if let Some(place) = place {
            self.compare_replaced(own, place);
        }
        if place.zip(subject).is_some_and(|key| own.confirmed.contains(&key)) {
            let from = interval.valid_from.max(own.at);
            self.describe(&interval.identity, from, interval.learned_at, &interval.source);
            return;
        }
        interval.valid_from = self.beginning(&interval, own);
        self.learn(&interval);
    }

    /// Since when what a snapshot newly tells holds: not before another's end, if that is known.
    fn beginning(&mut self, interval: &Interval, own: &Reconciling) -> i64 {
        let from = interval.valid_from;
        let place = self.place_of(&interval.key);
        let known = self.view.histories.get(&place).and_then(|history| history.last_end(own.source, own.at));
        // No leeway before it: what was before may have lasted longer than until its source was last heard.
        let is_loose = self.view.sources.is_loose(own.source);
        let late = if is_loose { from.saturating_add(UNCERTAIN) } else { from };
        known.map_or(late, |known| known.max(late))
    }
}
