//! A source has told all that holds: what it does not name has ended.
//!
//! That may be of tens of thousands of pods. What is to be done is found at once, which is little, and done in portions, so that
//! whoever owns the timeline can look something up in between.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Timeline;
use super::history::{Claim, Context};
use super::keys::Place;
use super::sources::UNCERTAIN;
use super::view::View;
use crate::event::{Snapshot, Stopped};
use crate::identity::Interval;

/// What is still to be done of a snapshot.
#[derive(Debug)]
pub(super) enum Step {
    /// A claim that it does not confirm ended.
    Close { place: Place, claim: Claim, to: i64, unheard: bool, at: i64 },
    /// It confirms a claim; its attributes may be new.
    Confirm { interval: Interval, at: i64 },
    /// It tells of something new.
    Begin { interval: Interval, at: i64 },
}

impl Timeline {
    /// Notes what is to be done.
    pub(super) fn reconcile(&mut self, snapshot: &Snapshot) {
        let at = snapshot.at;
        let number = self.source(&snapshot.source);
        let confirmed = self.compare(snapshot, number);
        for interval in snapshot.present.iter().cloned() {
            let place = self.view.names.place(&interval.key);
            let subject = self.view.subjects.number(&interval.identity.identity);
            let is_confirmed = place.zip(subject).is_some_and(|own| confirmed.contains(&own));
            let step = if is_confirmed { Step::Confirm { interval, at } } else { Step::Begin { interval, at } };
            self.pending.push_back(step);
        }
    }

    /// Whether something is still to be done.
    pub fn is_busy(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Does the next `most` steps of what is still to be done.
    pub fn advance(&mut self, most: usize) {
        for _ in 0..most {
            match self.pending.pop_front() {
                Some(Step::Close { place, claim, to, unheard, at }) => self.close(place, &claim, (to, unheard, at)),
                Some(Step::Confirm { interval, at }) => {
                    let from = interval.valid_from.max(at);
                    self.describe(&interval.identity, from, interval.learned_at, &interval.source);
                }
                Some(Step::Begin { mut interval, at }) => {
                    interval.valid_from = self.beginning(&interval, at);
                    self.learn(&interval);
                }
                None => return,
            }
        }
    }

    /// What lasts, and what ended, of all that the source left open.
    fn compare(&mut self, snapshot: &Snapshot, source: u8) -> HashSet<(Place, u32)> {
        let stopped: HashMap<&str, &Stopped> = snapshot.stopped.iter().map(|own| (&*own.identity, own)).collect();
        let mut named: HashMap<(Place, u32), i64> = HashMap::with_capacity(snapshot.present.len());
        for interval in &snapshot.present {
            let subject = self.view.subjects.number(&interval.identity.identity);
            if let Some((place, subject)) = self.view.names.place(&interval.key).zip(subject) {
                named.insert((place, subject), interval.valid_from);
            }
        }
        let mut confirmed = HashSet::new();
        let pending = &mut self.pending;
        let View { histories, subjects, sources, .. } = &self.view;
        let open = self.open.entry(source).or_default();
        open.retain(|(place, subject)| {
            let context = Context { place: *place, subjects, sources };
            let lasting = histories.get(place).and_then(|history| history.open_of(*subject, source, context));
            let (Some(claim), Some(known)) = (lasting, subjects.get(*subject)) else { return false };
            // It lasted until then for sure.
            let sure = snapshot.heard.unwrap_or(claim.learned_at).max(claim.from);
            if named.get(&(*place, *subject)).is_some_and(|from| *from <= sure) {
                confirmed.insert((*place, *subject));
                return true;
            }
            let same_run = stopped.get(&*known.id).filter(|stopped| stopped.from <= sure);
            let to = same_run.map_or(sure, |stopped| stopped.to).max(claim.from);
            let (claim, unheard) = (*claim, same_run.is_none());
            pending.push_back(Step::Close { place: *place, claim, to, unheard, at: snapshot.at });
            false
        });
        confirmed
    }

    fn close(&mut self, place: Place, claim: &Claim, (to, unheard, learned_at): (i64, bool, i64)) {
        let Some(history) = self.view.histories.get_mut(&place).map(Arc::make_mut) else { return };
        let Some(own) = history.find_mut(claim.subject, claim.source, claim.from) else { return };
        own.close(to, unheard, learned_at);
        self.touch(claim.subject);
        self.resolve(place, claim.from);
    }

    /// Since when what a snapshot newly tells holds: not before another's end, if that is known.
    fn beginning(&mut self, interval: &Interval, at: i64) -> i64 {
        let (from, source) = (interval.valid_from, self.source(&interval.source));
        let place = self.place_of(&interval.key);
        let known = self.view.histories.get(&place).and_then(|history| history.last_end(source, at));
        let is_loose = self.view.sources.is_loose(source);
        let late = if is_loose { from.saturating_add(UNCERTAIN).min(from.max(at)) } else { from };
        known.map_or(late, |known| known.max(late))
    }
}
