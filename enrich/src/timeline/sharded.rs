//! A map that is cheap to copy as a whole: a copy shares all parts, and a part is copied when it is written next.
//!
//! Most of what is looked up is not in the processor's caches, so what counts is how many lines of memory are read one after
//! the other: here the part's own, which are few for all, and the entry's.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::fast::RandomState;

/// Parts: few enough that a copy costs microseconds, many enough that a part of a million entries is small.
pub(super) const PARTS: usize = 8192;

/// See the module documentation.
#[derive(Debug, Clone)]
pub(super) struct Sharded<K, V> {
    parts: Vec<Part<K, V>>,
    hasher: RandomState,
}

impl<K, V> Default for Sharded<K, V> {
    fn default() -> Self {
        // All parts are one and empty, until they are written.
        let slots: Arc<[Option<Slot<K, V>>]> = Arc::new([]);
        let parts = std::iter::repeat_n(slots, PARTS).map(|slots| Part { slots, used: 0 });
        Self { parts: parts.collect(), hasher: RandomState::default() }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Sharded<K, V> {
    #[inline]
    pub(super) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let hash = self.hasher.hash_one(key);
        let part = self.parts.get(part_of(hash))?;
        part.slots.get(part.find(hash as u32, key)?)?.as_ref().map(|slot| &slot.value)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let hash = self.hasher.hash_one(key);
        let part = self.parts.get_mut(part_of(hash))?;
        let at = part.find(hash as u32, key)?;
        part.value_mut(at)
    }

    /// The value of a key, made if there is none.
    pub(super) fn entry(&mut self, key: &K, make: impl FnOnce() -> V) -> Option<&mut V> {
        let hash = self.hasher.hash_one(key);
        let part = self.parts.get_mut(part_of(hash))?;
        let known = part.find(hash as u32, key);
        let at = known.or_else(|| part.insert(Slot { hash: hash as u32, key: key.clone(), value: make() }))?;
        part.value_mut(at)
    }

    pub(super) fn remove(&mut self, key: &K) {
        let hash = self.hasher.hash_one(key);
        let Some(part) = self.parts.get_mut(part_of(hash)) else { return };
        if let Some(at) = part.find(hash as u32, key) {
            part.remove(at);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.parts.iter().flat_map(Part::iter)
    }

    /// Entries of one part.
    pub(super) fn part(&self, number: usize) -> impl Iterator<Item = (&K, &V)> {
        self.parts.get(number).into_iter().flat_map(Part::iter)
    }
}

/// The upper bits choose the part; its slots use the lower ones.
fn part_of(hash: u64) -> usize {
    ((hash >> 40) as usize) % PARTS
}

/// A table with open addressing: an entry is at its home or behind it, never behind one that is nearer to its own home (Robin Hood).
#[derive(Debug, Clone)]
struct Part<K, V> {
    slots: Arc<[Option<Slot<K, V>>]>,
    used: usize,
}

#[derive(Debug, Clone)]
struct Slot<K, V> {
    hash: u32,
    key: K,
    value: V,
}

/// Where an entry is at home among so many slots, which are one at least.
fn home(hash: u32, slots: usize) -> usize {
    ((u64::from(hash) * slots as u64) >> 32) as usize
}

/// How far behind its home a slot is.
fn distance(hash: u32, at: usize, slots: usize) -> usize {
    let home = home(hash, slots);
    if at >= home { at - home } else { at + slots - home }
}

/// The slot behind another; the first is behind the last.
fn after(at: usize, slots: usize) -> usize {
    if at + 1 == slots { 0 } else { at + 1 }
}

impl<K: Clone, V: Clone> Part<K, V> {
    #[inline]
    fn find<Q: Eq + ?Sized>(&self, hash: u32, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
    {
        let slots = self.slots.len();
        let mut at = home(hash, slots);
        for far in 0..slots {
            let slot = self.slots.get(at)?.as_ref()?;
            if slot.hash == hash && slot.key.borrow() == key {
                return Some(at);
            }
            if distance(slot.hash, at, slots) < far {
                return None;
            }
            at = after(at, slots);
        }
        None
    }

    fn value_mut(&mut self, at: usize) -> Option<&mut V> {
        Arc::make_mut(&mut self.slots).get_mut(at)?.as_mut().map(|slot| &mut slot.value)
    }

    /// Adds one that is not there; gives where it is.
    fn insert(&mut self, slot: Slot<K, V>) -> Option<usize> {
        let slots = self.slots.len();
        if (self.used + 1) * 5 > slots * 4 {
            let more = (slots + slots / 2).max(3);
            let old = std::mem::replace(&mut self.slots, (0..more).map(|_| None).collect());
            self.used = 0;
            self.refill(old);
        }
        self.used += 1;
        place(Arc::make_mut(&mut self.slots), slot)
    }

    fn refill(&mut self, mut old: Arc<[Option<Slot<K, V>>]>) {
        let slots = Arc::make_mut(&mut self.slots);
        for slot in Arc::make_mut(&mut old).iter_mut().filter_map(Option::take) {
            self.used += 1;
            place(slots, slot);
        }
    }

    fn remove(&mut self, at: usize) {
        let slots = Arc::make_mut(&mut self.slots);
        let (all, mut gap) = (slots.len(), at);
        self.used -= 1;
        // What is behind moves up, until one is at home.
        for _ in 0..all {
            let next = after(gap, all);
            let moved = slots.get_mut(next).and_then(|slot| slot.take_if(|own| distance(own.hash, next, all) > 0));
            let is_last = moved.is_none();
            if let Some(free) = slots.get_mut(gap) {
                *free = moved;
            }
            if is_last {
                return;
            }
            gap = next;
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.slots.iter().flatten().map(|slot| (&slot.key, &slot.value))
    }
}

/// Puts one into slots of which one is free; gives where it is.
fn place<K, V>(slots: &mut [Option<Slot<K, V>>], mut slot: Slot<K, V>) -> Option<usize> {
    let all = slots.len();
    let (mut at, mut far, mut placed) = (home(slot.hash, all), 0, None);
    for _ in 0..all {
        let own = slots.get_mut(at)?;
        let Some(resident) = own else {
            *own = Some(slot);
            return placed.or(Some(at));
        };
        let nearer = distance(resident.hash, at, all);
        if nearer < far {
            std::mem::swap(resident, &mut slot);
            placed = placed.or(Some(at));
            far = nearer;
        }
        at = after(at, all);
        far += 1;
    }
    placed
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn sorted(map: &Sharded<u64, u64>) -> BTreeMap<u64, u64> {
        map.iter().map(|(key, value)| (*key, *value)).collect()
    }

    proptest! {
        /// One part with hashes that meet holds what a map holds that is beyond doubt.
        #[test]
        fn a_part_is_a_map(steps in prop::collection::vec((0..60_u64, any::<bool>()), 0..300), homes in 1..40_u32) {
            let mut part: Part<u64, u64> = Part { slots: Arc::new([]), used: 0 };
            let mut expected = BTreeMap::new();
            let hash = |key: u64| (key as u32 % homes).wrapping_mul(u32::MAX / homes);
            for (number, (key, is_there)) in steps.into_iter().enumerate() {
                match (part.find(hash(key), &key), is_there) {
                    (Some(at), true) => *part.value_mut(at).expect("it is there") = number as u64,
                    (None, true) => {
                        let slot = Slot { hash: hash(key), key, value: number as u64 };
                        let at = part.insert(slot).expect("there is room");
                        prop_assert_eq!(part.find(hash(key), &key), Some(at));
                    }
                    (Some(at), false) => part.remove(at),
                    (None, false) => prop_assert!(!expected.contains_key(&key)),
                }
                if is_there { expected.insert(key, number as u64); } else { expected.remove(&key); }
                prop_assert_eq!(part.used, expected.len());
                for key in 0..60 {
                    let found = part.find(hash(key), &key).and_then(|at| part.slots[at].as_ref()).map(|slot| slot.value);
                    prop_assert_eq!(found, expected.get(&key).copied(), "{}", key);
                }
            }
        }
    }

    #[test]
    fn a_copy_stays_as_it_was() {
        let mut map: Sharded<u64, u64> = Sharded::default();
        for key in 0..100_000 {
            *map.entry(&key, || 0).expect("a value") = key;
        }
        let copy = map.clone();
        let before = sorted(&copy);
        for key in (0..100_000).step_by(2) {
            map.remove(&key);
        }
        for key in (1..100_000).step_by(2) {
            *map.get_mut(&key).expect("a value") += 1;
        }
        assert_eq!(sorted(&copy), before);
        assert_eq!(before, (0..100_000).map(|key| (key, key)).collect());
        assert_eq!(sorted(&map), (1..100_000).step_by(2).map(|key| (key, key + 1)).collect());
        assert_eq!((map.get(&2), map.get(&3), copy.get(&2)), (None, Some(&4), Some(&2)));
        let parts: usize = (0..PARTS).map(|part| map.part(part).count()).sum();
        assert_eq!(parts, 50_000);
    }
}
