//! Who has series of their own: a bounded number of names or pairs, the largest of them.
//!
//! * A place that is free is for who comes next. Without one a name waits; what is observed of it meanwhile is `other`'s.
//! * A sweep, once a minute, gives places that became free to the largest of those who wait. Who waits and is twice as large as
//!   the smallest who has a place gets that one's.
//! * Who has to go is `other` from one sweep on and has its series for [`LEAVING`] more: what they counted last is shown and read before.
//! * Who was not observed for a quarter of an hour is forgotten, and its series with it.
//!
//! Sizes are bytes that fade, by half in five minutes. Who waits is remembered up to a number; beyond it the smallest are forgotten at each
//! sweep, and who comes between two is not remembered.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// Sweeps without an observation after which a name is forgotten: more than Prometheus' five minutes, and than the one between
/// two slices of a flow that goes on.
const QUIET: u32 = 15;
/// Sweeps from when nothing more is added to series until they end: more than what a new one counted is held
/// ([`HELD`](super::family::HELD)), and a minute.
pub(super) const LEAVING: u32 = 3;
/// How many times as large as the smallest one has to be to take its place: those of a size do not take turns.
const LARGER: u64 = 2;
/// Names that are remembered, for each place.
const REMEMBERED: usize = 4;

/// See the module documentation.
pub(super) struct Places<K> {
    most: usize,
    /// Of those named or leaving: they have series.
    taken: usize,
    entries: HashMap<K, Entry>,
}

struct Entry {
    bytes: u64,
    /// Sweeps since it was observed last.
    quiet: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Named,
    /// Has series for so many sweeps more, and gets nothing more.
    Leaving(u32),
    Waiting,
}

impl State {
    const fn is_leaving(self) -> bool {
        matches!(self, Self::Leaving(_))
    }
}

impl<K: Clone + Eq + Hash> Places<K> {
    pub(super) fn new(most: usize) -> Self {
        Self { most, taken: 0, entries: HashMap::new() }
    }

    /// Whether what is observed of `key` now goes into series of its own.
    pub(super) fn observe(&mut self, key: &K, bytes: u64) -> bool {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.bytes = entry.bytes.saturating_add(bytes);
            entry.quiet = 0;
            return entry.state == State::Named;
        }
        let is_free = self.taken < self.most;
        if is_free || self.entries.len() < REMEMBERED * self.most {
            let state = if is_free { State::Named } else { State::Waiting };
            self.entries.insert(key.clone(), Entry { bytes, quiet: 0, state });
            self.taken += usize::from(is_free);
        }
        is_free
    }

    /// Gives places to others; who has no series any more, those included that are `gone`.
    pub(super) fn sweep(&mut self, is_gone: impl Fn(&K) -> bool) -> HashSet<K> {
        let mut ended = self.forget(is_gone);
        let mut waiting = self.of_state(State::Waiting);
        waiting.sort_by_key(|(bytes, _)| Reverse(*bytes));
        let mut named = self.of_state(State::Named);
        named.sort_by_key(|(bytes, _)| *bytes);

        let leaving = self.entries.values().filter(|entry| entry.state.is_leaving()).count();
        let rest = waiting.split_off(waiting.len().min(self.most.saturating_sub(named.len() + leaving)));
        for (_, key) in &waiting {
            self.set(key, State::Named);
            ended.remove(key);
        }
        // The largest wait for the places of those who leave already.
        let more = named.iter().zip(rest.iter().skip(leaving));
        for ((_, key), _) in more.take_while(|((small, _), (large, _))| *large > small.saturating_mul(LARGER)) {
            self.set(key, State::Leaving(LEAVING));
        }
        for (_, key) in rest.iter().skip(self.most) {
            self.entries.remove(key);
        }
        self.taken = named.len() + waiting.len() + leaving;
        ended
    }

    /// Forgets who is gone or quiet and lets sizes fade; who had series and has no place now.
    fn forget(&mut self, is_gone: impl Fn(&K) -> bool) -> HashSet<K> {
        let mut ended = HashSet::new();
        self.entries.retain(|key, entry| {
            entry.quiet += 1;
            entry.bytes = entry.bytes / 8 * 7;
            let stays = entry.quiet <= QUIET && !is_gone(key);
            let has_place = match entry.state {
                State::Named => stays,
                State::Leaving(sweeps) if sweeps > 1 => {
                    entry.state = State::Leaving(sweeps - 1);
                    stays
                }
                State::Leaving(_) => {
                    entry.state = State::Waiting;
                    false
                }
                State::Waiting => return stays,
            };
            if !has_place {
                ended.insert(key.clone());
            }
            stays
        });
        ended
    }

    fn of_state(&self, state: State) -> Vec<(u64, K)> {
        let entries = self.entries.iter().filter(|(_, entry)| entry.state == state);
        entries.map(|(key, entry)| (entry.bytes, key.clone())).collect()
    }

    fn set(&mut self, key: &K, state: State) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.state = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three places, of which `a`, `b` and `c` have one each.
    fn taken() -> Places<&'static str> {
        let mut places = Places::new(3);
        for (name, bytes) in [("a", 3000), ("b", 2000), ("c", 1000)] {
            assert!(places.observe(&name, bytes));
        }
        places
    }

    fn sweep(places: &mut Places<&'static str>) -> Vec<&'static str> {
        let mut ended: Vec<_> = places.sweep(|_| false).into_iter().collect();
        ended.sort_unstable();
        ended
    }

    #[test]
    fn who_grows_much_larger_than_the_smallest_has_its_place_some_sweeps_later() {
        let mut places = taken();
        assert!(!places.observe(&"d", 10_000), "no place is free");
        for _ in 0..LEAVING {
            assert!(sweep(&mut places).is_empty(), "what `c` counted last may not have been read yet");
            assert!(!places.observe(&"c", 1), "nothing is added to series that end");
            assert!(!places.observe(&"d", 1) && !places.observe(&"e", 1), "they count until they end");
        }
        assert_eq!(sweep(&mut places), ["c"]);
        assert!(places.observe(&"d", 1) && places.observe(&"a", 1) && places.observe(&"b", 1));
        assert!(!places.observe(&"c", 1) && !places.observe(&"e", 1));
    }

    #[test]
    fn those_of_a_size_do_not_take_turns() {
        let mut places = taken();
        places.observe(&"d", 1999);
        for _ in 0..3 {
            assert!(sweep(&mut places).is_empty());
        }
        assert!(places.observe(&"c", 1) && !places.observe(&"d", 1));
    }

    #[test]
    fn who_was_to_leave_and_is_the_largest_again_keeps_its_series() {
        let mut places = taken();
        places.observe(&"d", 10_000);
        for _ in 0..LEAVING {
            sweep(&mut places);
        }
        places.observe(&"c", 20_000);
        assert!(sweep(&mut places).is_empty(), "`c` has its place again, with what it counted");
        assert!(places.observe(&"c", 1) && !places.observe(&"d", 1));
    }

    #[test]
    fn a_place_that_is_free_is_for_the_largest_who_waits_and_then_for_who_comes() {
        let mut places = taken();
        places.observe(&"d", 1);
        for _ in 0..QUIET {
            places.observe(&"a", 1_000_000);
            places.observe(&"d", 0);
            assert!(sweep(&mut places).is_empty());
        }
        places.observe(&"a", 1);
        assert_eq!(sweep(&mut places), ["b", "c"], "not observed for a quarter of an hour");
        assert!(places.observe(&"d", 1) && places.observe(&"e", 1) && !places.observe(&"f", 1));
    }

    #[test]
    fn who_is_gone_ends_at_once() {
        let mut places = taken();
        places.observe(&"d", 1);
        assert_eq!(places.sweep(|name| *name == "a"), HashSet::from(["a"]));
        assert!(places.observe(&"d", 1) && !places.observe(&"a", 1));
    }

    /// Names that come once each, and one among them that comes again and again.
    #[test]
    fn no_more_are_remembered_than_so_many_and_the_small_are_forgotten_first() {
        let mut places = Places::new(10);
        let mut has_place = false;
        for round in 1..100_u64 {
            for name in 0..1000 {
                places.observe(&(round * 1000 + name), 500);
                has_place = places.observe(&0, 5);
            }
            assert_eq!(places.entries.len(), 40);
            places.sweep(|_| false);
            assert!(places.entries.len() <= 20, "{}", places.entries.len());
            let taken = places.entries.values().filter(|entry| entry.state != State::Waiting);
            assert_eq!((taken.count(), places.taken), (10, 10));
        }
        assert!(has_place, "it is the largest");
    }
}
