//! What holds for a moment and is needed a little longer: values by key, each with its time, forgotten some minutes after
//! their end. Bounded: beyond the limit the oldest that have ended are forgotten first, and what finds no room is counted.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use crate::timeline::Span;

/// A value during `[from, to)`.
#[derive(Debug, Clone)]
pub(super) struct During<V> {
    pub(super) value: V,
    pub(super) from: i64,
    pub(super) to: i64,
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    values: HashMap<K, Vec<During<V>>>,
    /// Ends in the order in which they were told.
    ended: VecDeque<(i64, K)>,
    len: usize,
    most: usize,
    beyond: u64,
}

impl<K: Hash + Eq + Clone, V: PartialEq> Recent<K, V> {
    pub(super) fn new(most: usize) -> Self {
        Self { values: HashMap::new(), ended: VecDeque::new(), len: 0, most, beyond: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Values that found no room.
    pub(super) fn beyond(&self) -> u64 {
        self.beyond
    }

    /// Takes a value and its time, or its end if it is known.
    pub(super) fn put(&mut self, key: K, value: V, from: i64, to: Option<i64>) {
        if let Some(end) = to {
            self.ended.push_back((end, key.clone()));
        }
        let to = to.unwrap_or(i64::MAX);
        let known = self.values.get_mut(&key).into_iter().flatten();
        if let Some(known) = known.into_iter().find(|own| own.from == from && own.value == value) {
            known.to = known.to.min(to);
            return;
        }
        while self.len >= self.most {
            let Some((end, oldest)) = self.ended.pop_front() else {
                self.beyond += 1;
                return;
            };
            self.remove(&oldest, end.saturating_add(1));
        }
        self.values.entry(key).or_default().push(During { value, from, to });
        self.len += 1;
    }

    /// Values that share an instant with the span, in the order in which they were told.
    pub(super) fn touching(&self, key: &K, when: Span) -> impl Iterator<Item = &During<V>> {
        let all = self.values.get(key).into_iter().flatten();
        all.filter(move |own| own.from <= when.to && when.from < own.to)
    }

    /// Forgets what ended before `before`.
    pub(super) fn forget(&mut self, before: i64) {
        while let Some((_, key)) = self.ended.pop_front_if(|(end, _)| *end < before) {
            self.remove(&key, before);
        }
    }

    fn remove(&mut self, key: &K, before: i64) {
        let Some(values) = self.values.get_mut(key) else { return };
        let known = values.len();
        values.retain(|own| own.to >= before);
        self.len -= known - values.len();
        if values.is_empty() {
            self.values.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(recent: &Recent<u8, char>, key: u8, from: i64, to: i64) -> String {
        recent.touching(&key, Span { from, to }).map(|own| own.value).collect()
    }

    #[test]
    fn values_have_a_time_and_are_forgotten_after_it() {
        let mut recent = Recent::new(10);
        recent.put(1, 'a', 100, None);
        assert_eq!(values(&recent, 1, 500, 600), "a");
        recent.put(1, 'a', 100, Some(200));
        recent.put(1, 'b', 200, None);
        assert_eq!((values(&recent, 1, 150, 199), values(&recent, 1, 150, 200)), ("a".into(), "ab".into()));
        assert_eq!((values(&recent, 1, 200, 300), values(&recent, 1, 0, 99)), ("b".into(), String::new()));
        recent.forget(201);
        assert_eq!((values(&recent, 1, 0, 300), recent.is_empty()), ("b".into(), false));
    }

    #[test]
    fn beyond_the_limit_what_has_ended_goes_first_and_the_rest_is_counted() {
        let mut recent = Recent::new(2);
        recent.put(1, 'a', 1, Some(2));
        recent.put(2, 'b', 1, None);
        recent.put(3, 'c', 1, None);
        assert_eq!((values(&recent, 1, 1, 1), values(&recent, 3, 1, 1)), (String::new(), "c".into()));
        recent.put(4, 'd', 1, None);
        assert_eq!((values(&recent, 4, 1, 1), recent.beyond()), (String::new(), 1));
    }
}
