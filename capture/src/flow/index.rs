//! From hash to slot: open addressing with linear probing, eight bytes an entry.
//!
//! An entry holds 32 bits of the hash, which decide its place (so nothing else is looked at when the table grows or an entry
//! goes) and spare a look at the flow when they differ. At most seven eighths are in use, at least seven twelfths when it
//! only grows: it grows by half, for a flow's entry is a twentieth of what the flow takes. One cache line holds eight
//! entries, and where to look is known from the hash: [`Index::prefetch`] asks for it in advance.
//!
//! Removal moves what follows back (Knuth, vol. 3, 6.4, algorithm R), so there are no tombstones.

use super::sys;

/// Hash in the high half, slot plus one in the low one; zero is free.
type Entry = u64;

/// Entries of the smallest table.
const LEAST: usize = 64;

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: Vec<Entry>,
    len: usize,
}

const fn hash_of(entry: Entry) -> u32 {
    (entry >> 32) as u32
}

impl Index {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The hash as a part of its range is the place as a part of the table.
    #[inline]
    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.entries.len() as u64) >> 32) as usize
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        if at + 1 < self.entries.len() { at + 1 } else { 0 }
    }

    /// Steps from one place to another.
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.entries.len() - from }
    }

    #[inline]
    fn entry(&self, at: usize) -> Entry {
        self.entries.get(at).copied().unwrap_or_default()
    }

    /// Has the processor fetch where an entry with this hash would be.
    #[inline]
    pub(super) fn prefetch(&self, hash: u32) {
        if let Some(entry) = self.entries.get(self.home(hash)) {
            sys::prefetch(entry);
        }
    }

    /// The slot of the entry with this hash of which `is_it` holds.
    #[inline]
    pub(super) fn find(&self, hash: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash);
        loop {
            let entry = self.entry(at);
            if entry == 0 {
                return None;
            }
            if hash_of(entry) == hash {
                let slot = (entry as u32).wrapping_sub(1);
                if is_it(slot) {
                    return Some(slot);
                }
            }
            at = self.next(at);
        }
    }

    /// Adds an entry that is not there.
    pub(super) fn insert(&mut self, hash: u32, slot: u32) {
        if self.is_full() {
            self.grow();
        }
        self.put((u64::from(hash) << 32) | u64::from(slot.wrapping_add(1)));
        self.len += 1;
    }

    fn is_full(&self) -> bool {
        (self.len + 1) * 8 > self.entries.len() * 7
    }

    /// Bytes by which it grows with one more entry.
    pub(super) fn growth(&self) -> usize {
        if self.is_full() { (self.grown() - self.entries.len()) * size_of::<Entry>() } else { 0 }
    }

    /// How many entries it has when it has grown.
    fn grown(&self) -> usize {
        (self.entries.len() + self.entries.len() / 2).max(LEAST)
    }

    fn put(&mut self, entry: Entry) {
        let mut at = self.home(hash_of(entry));
        while self.entry(at) != 0 {
            at = self.next(at);
        }
        if let Some(place) = self.entries.get_mut(at) {
            *place = entry;
        }
    }

    fn grow(&mut self) {
        let grown = vec![0; self.grown()];
        let before = std::mem::replace(&mut self.entries, grown);
        for entry in before.into_iter().filter(|entry| *entry != 0) {
            self.put(entry);
        }
    }

    /// Removes the entry of a slot.
    pub(super) fn remove(&mut self, hash: u32, slot: u32) {
        let wanted = (u64::from(hash) << 32) | u64::from(slot.wrapping_add(1));
        let mut hole = self.home(hash);
        loop {
            match self.entry(hole) {
                0 => return,
                entry if entry == wanted => break,
                _ => hole = self.next(hole),
            }
        }
        self.len -= 1;
        let mut at = hole;
        loop {
            at = self.next(at);
            let entry = self.entry(at);
            // What stands between its home and here may go back to the hole if that is not before its home.
            if entry != 0 && self.distance(self.home(hash_of(entry)), at) < self.distance(hole, at) {
                continue;
            }
            if let Some(place) = self.entries.get_mut(hole) {
                *place = entry;
            }
            if entry == 0 {
                return;
            }
            hole = at;
        }
    }

    /// Bytes of memory held.
    pub(super) fn memory_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_set(actions in prop::collection::vec((0_u32..100, any::<bool>()), 1..300)) {
            // Hashes that crowd at both ends, so that runs are long and wrap.
            let hash = |slot: u32| [0, 7 << 24, u32::MAX, u32::MAX - (slot << 20)][slot as usize % 4];
            let (mut index, mut model) = (Index::default(), BTreeSet::new());
            for (slot, adds) in actions {
                if !adds {
                    index.remove(hash(slot), slot);
                    model.remove(&slot);
                } else if model.insert(slot) {
                    index.insert(hash(slot), slot);
                }
                prop_assert_eq!(index.len(), model.len());
                prop_assert_eq!(index.find(hash(slot), |other| other == slot).is_some(), adds);
            }
            for slot in 0..100 {
                let found = index.find(hash(slot), |other| other == slot);
                prop_assert_eq!(found.is_some(), model.contains(&slot));
            }
        }
    }

    #[test]
    fn an_empty_index_finds_nothing() {
        let mut index = Index::default();
        index.prefetch(1);
        index.remove(1, 1);
        assert_eq!(index.find(1, |_| true), None);
    }
}
