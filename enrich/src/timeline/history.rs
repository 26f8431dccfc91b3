//! Whom one key meant, in the order of beginnings.
//!
//! A key is held by many over its life (an address of a busy network by a new container every second), so a lookup does
//! not read all: beside each interval stands the latest end of it and all before it, and a search back stops there.

use crate::identity::Interval;

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct History {
    list: Vec<Interval>,
    /// Latest end of the intervals up to and including this one.
    reach: Vec<i64>,
}

fn end_of(interval: &Interval) -> i64 {
    interval.valid_to.unwrap_or(i64::MAX)
}

impl History {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Interval> {
        self.list.iter()
    }

    /// Intervals that share an instant with `[from, to]`, latest beginning first.
    pub(super) fn overlapping(&self, from: i64, to: i64) -> impl Iterator<Item = &Interval> {
        let begun = self.list.partition_point(|interval| interval.valid_from <= to);
        let (list, reach) = (self.list.iter().take(begun).rev(), self.reach.iter().take(begun).rev());
        let near = list.zip(reach).take_while(move |(_, reach)| **reach > from);
        near.map(|(interval, _)| interval).filter(move |interval| {
            let end = end_of(interval);
            end > from && end > interval.valid_from
        })
    }

    /// Inserts, or replaces the version of the same identity and beginning.
    pub(super) fn put(&mut self, interval: Interval) {
        let after = self.list.partition_point(|old| old.valid_from <= interval.valid_from);
        let same_begin = self.list.partition_point(|old| old.valid_from < interval.valid_from);
        let versions = self.list.get_mut(same_begin..after).unwrap_or_default();
        if let Some(old) = versions.iter_mut().find(|old| old.identity.identity == interval.identity.identity) {
            *old = interval;
        } else {
            self.list.insert(after, interval);
        }
        self.measure(same_begin);
    }

    /// Computes `reach` anew from an index on.
    fn measure(&mut self, from: usize) {
        self.reach.truncate(from);
        let mut reach = self.reach.last().copied().unwrap_or(i64::MIN);
        for interval in self.list.iter().skip(from) {
            reach = reach.max(end_of(interval));
            self.reach.push(reach);
        }
    }

    /// Takes in a new interval; what changes is added to `changed`.
    ///
    /// What the same source said of others and left open ends where the new one begins, and the other way round. Such an
    /// end is provisional: [`Self::end`] may still move it.
    pub(super) fn learn(&mut self, mut interval: Interval, changed: &mut Vec<Interval>) {
        let own = |old: &Interval| old.identity.identity == interval.identity.identity;
        let from = interval.valid_from;
        if let Some(old) = self.list.iter().rev().find(|old| own(old) && old.valid_from == from) {
            // What has ended does not begin again at the same time.
            interval.valid_to = interval.valid_to.or(old.valid_to);
            if old.identity == interval.identity && old.valid_to == interval.valid_to {
                return;
            }
            changed.push(interval.clone());
            self.put(interval);
            return;
        }
        let holds = self.overlapping(from, from).find(|old| own(old)).cloned();
        if let Some(mut old) = holds {
            if old.valid_to.is_none() && old.identity == interval.identity && interval.valid_to.is_none() {
                return;
            }
            old.valid_to = Some(from);
            old.learned_at = interval.learned_at;
            changed.push(old.clone());
            self.put(old);
        }
        let of_source = |old: &&Interval| old.source == interval.source;
        let open = self.overlapping(from, from).filter(of_source).filter(|old| old.valid_to.is_none());
        let open: Vec<Interval> = open.cloned().collect();
        for mut old in open.into_iter().filter(|old| old.valid_from < from) {
            old.valid_to = Some(from);
            old.learned_at = interval.learned_at;
            changed.push(old.clone());
            self.put(old);
        }
        let begun = self.list.partition_point(|old| old.valid_from <= from);
        if interval.valid_to.is_none()
            && let Some(next) = self.list.iter().skip(begun).find(of_source)
        {
            interval.valid_to = Some(next.valid_from);
        }
        changed.push(interval.clone());
        self.put(interval);
    }

    /// `identity` no longer holds the key at `at`.
    pub(super) fn end(&mut self, identity: &str, at: i64, learned_at: i64, changed: &mut Vec<Interval>) {
        let begun = self.list.partition_point(|old| old.valid_from <= at);
        let own = |old: &&Interval| &*old.identity.identity == identity;
        let mut ending: Vec<Interval> = self.overlapping(at, at).filter(own).cloned().collect();
        // One that ended only because the next began may have lasted longer: then the time in between is ambiguous.
        let last = self.list.iter().take(begun).rev().find(own);
        let provisional = |old: &&Interval| {
            let end = end_of(old);
            end < at && old.valid_from < end && self.begins_another(old, end)
        };
        ending.extend(last.filter(provisional).cloned());
        for mut interval in ending {
            interval.valid_to = Some(at);
            interval.learned_at = learned_at;
            changed.push(interval.clone());
            self.put(interval);
        }
    }

    fn begins_another(&self, than: &Interval, at: i64) -> bool {
        let from = self.list.partition_point(|old| old.valid_from < at);
        let begin = self.list.iter().skip(from).take_while(|old| old.valid_from == at);
        begin.filter(|old| old.source == than.source).any(|old| old.identity.identity != than.identity.identity)
    }

    /// The latest end that a source is sure of, up to `at`.
    pub(super) fn last_end(&self, source: &str, at: i64) -> Option<i64> {
        let own = self.list.iter().filter(|interval| &*interval.source == source);
        own.filter_map(|interval| interval.valid_to).filter(|end| *end <= at).max()
    }

    /// Forgets what ended before `before`.
    pub(super) fn expire(&mut self, before: i64) {
        let known = self.list.len();
        self.list.retain(|interval| end_of(interval) >= before);
        if self.list.len() != known {
            self.measure(0);
        }
    }
}
