//! A source has told all that holds: what it does not name has ended.

use std::collections::{HashMap, HashSet};

use super::Timeline;
use super::history::{Context, Ending};
use super::keys::Place;
use super::sources::UNCERTAIN;
use super::view::View;
use crate::event::{Snapshot, Stopped};
use crate::identity::Interval;

/// How a claim ended that a snapshot does not confirm.
struct Closing {
    place: Place,
    subject: u32,
    from: i64,
    to: i64,
    unheard: bool,
}

impl Timeline {
    pub(super) fn reconcile(&mut self, snapshot: &Snapshot) {
        let Snapshot { source, present, at, .. } = snapshot;
        let number = self.source(source);
        let (confirmed, closings) = self.compare(snapshot, number);
        for closing in closings {
            self.close(&closing, number, *at);
        }
        for interval in present {
            let place = self.place(&interval.key);
            let subject = self.view.subjects.number(&interval.identity.identity);
            if subject.is_some_and(|subject| confirmed.contains(&(place, subject))) {
                let from = interval.valid_from.max(*at);
                self.describe(&interval.identity, from, interval.learned_at, source);
            } else {
                let valid_from = self.beginning(interval, place, number, *at);
                self.learn(&Interval { valid_from, ..interval.clone() });
            }
        }
    }

    /// What lasts, and what ended, of all that the source left open.
    fn compare(&mut self, snapshot: &Snapshot, source: u8) -> (HashSet<(Place, u32)>, Vec<Closing>) {
        let stopped: HashMap<&str, &Stopped> = snapshot.stopped.iter().map(|own| (&*own.identity, own)).collect();
        let mut named: HashMap<(Place, u32), i64> = HashMap::with_capacity(snapshot.present.len());
        for interval in &snapshot.present {
            let subject = self.view.subjects.number(&interval.identity.identity);
            if let Some((place, subject)) = self.view.names.place(&interval.key).zip(subject) {
                named.insert((place, subject), interval.valid_from);
            }
        }
        let (mut confirmed, mut closings) = (HashSet::new(), Vec::new());
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
            let (place, subject, from, unheard) = (*place, *subject, claim.from, same_run.is_none());
            closings.push(Closing { place, subject, from, to, unheard });
            false
        });
        (confirmed, closings)
    }

    fn close(&mut self, closing: &Closing, source: u8, learned_at: i64) {
        let Closing { place, subject, from, to, unheard } = *closing;
        let Some(history) = self.view.histories.get_mut(&place).map(std::sync::Arc::make_mut) else { return };
        let Some(claim) = history.find_mut(subject, source, from) else { return };
        (claim.to, claim.unheard, claim.learned_at) = (to, unheard, learned_at);
        self.resolve(place, from);
    }

    /// Since when what a snapshot newly tells holds: not before another's end, if that is known.
    fn beginning(&mut self, interval: &Interval, place: Place, source: u8, at: i64) -> i64 {
        let from = interval.valid_from;
        let known = self.view.histories.get(&place).and_then(|history| history.last_end(source, at));
        let late =
            if self.view.sources.is_loose(source) { from.saturating_add(UNCERTAIN).min(from.max(at)) } else { from };
        known.map_or(late, |known| known.max(late))
    }

    /// Claims that last now, by source.
    pub fn lasting(&mut self) -> Vec<(std::sync::Arc<str>, u64)> {
        let View { histories, sources, .. } = &self.view;
        let lasts = |place: &Place, subject: u32, source: u8| {
            let mut claims = histories.get(place).into_iter().flat_map(|history| history.iter());
            claims.any(|own| own.subject == subject && own.source == source && own.ending == Ending::Open)
        };
        let mut counts = Vec::new();
        for (source, open) in &mut self.open {
            open.retain(|(place, subject)| lasts(place, *subject, *source));
            counts.push((sources.name(*source), open.len() as u64));
        }
        counts
    }
}
