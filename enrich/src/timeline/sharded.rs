//! A map that is cheap to copy as a whole: a copy shares all parts, and a part is copied when it is written next.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Parts: few enough that a copy costs microseconds, many enough that a part of a million entries is small.
pub(super) const PARTS: usize = 4096;

/// See the module documentation.
#[derive(Debug, Clone)]
pub(super) struct Sharded<K, V> {
    parts: Vec<Arc<HashTable<(K, V)>>>,
    hasher: RandomState,
}

impl<K, V> Default for Sharded<K, V> {
    fn default() -> Self {
        // All parts are one and empty, until they are written.
        let empty = Arc::new(HashTable::new());
        Self { parts: std::iter::repeat_n(empty, PARTS).collect(), hasher: RandomState::default() }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Sharded<K, V> {
    pub(super) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let hash = self.hasher.hash_one(key);
        let part = self.parts.get(part_of(hash))?;
        part.find(hash, |(own, _)| own.borrow() == key).map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let hash = self.hasher.hash_one(key);
        let part = Arc::make_mut(self.parts.get_mut(part_of(hash))?);
        part.find_mut(hash, |(own, _)| own == key).map(|(_, value)| value)
    }

    /// The value of a key, made if there is none.
    pub(super) fn entry(&mut self, key: &K, make: impl FnOnce() -> V) -> Option<&mut V> {
        let hash = self.hasher.hash_one(key);
        let hasher = &self.hasher;
        let part = Arc::make_mut(self.parts.get_mut(part_of(hash))?);
        let entry = part.entry(hash, |(own, _)| own == key, |(own, _)| hasher.hash_one(own));
        let entry = entry.or_insert_with(|| (key.clone(), make()));
        Some(&mut entry.into_mut().1)
    }

    pub(super) fn remove(&mut self, key: &K) {
        let hash = self.hasher.hash_one(key);
        let Some(part) = self.parts.get_mut(part_of(hash)) else { return };
        if let Ok(entry) = Arc::make_mut(part).find_entry(hash, |(own, _)| own == key) {
            entry.remove();
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.parts.iter().flat_map(|part| part.iter()).map(|(key, value)| (key, value))
    }

    /// Entries of one part.
    pub(super) fn part(&self, number: usize) -> impl Iterator<Item = (&K, &V)> {
        self.parts.get(number).into_iter().flat_map(|part| part.iter()).map(|(key, value)| (key, value))
    }
}

/// The upper bits choose the part; the table uses the others.
fn part_of(hash: u64) -> usize {
    ((hash >> 40) as usize) % PARTS
}
