//! A map that is cheap to copy as a whole: a copy shares all parts, and a part is copied when it is written next.
//!
//! Most of what is looked up is not in the processor's caches, so what counts is how many places of memory are read one after
//! the other. A part has its entries close together in the order in which they came, and beside them an index of eight bytes for
//! each, in which is searched: it stays in the caches, and so do the parts themselves if they are few. What is left is the
//! entry, and nothing for a key that is not there.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::Arc;

use foldhash::fast::RandomState;

/// See the module documentation. Parts are few enough that a copy costs microseconds and that they stay in the caches, and
/// many enough that copying one of them costs microseconds too.
#[derive(Debug, Clone)]
pub(super) struct Sharded<K, V, const PARTS: usize> {
    parts: Vec<Part<K, V>>,
    hasher: RandomState,
}

impl<K, V, const PARTS: usize> Default for Sharded<K, V, PARTS> {
    fn default() -> Self {
        // All parts are one and empty, until they are written.
        let parts = std::iter::repeat_n(Part::default(), PARTS).collect();
        Self { parts, hasher: RandomState::default() }
    }
}

impl<K: Hash + Eq + Clone, V: Clone, const PARTS: usize> Sharded<K, V, PARTS> {
    #[inline]
    pub(super) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let hash = self.hasher.hash_one(key);
        let part = self.parts.get(part_of(hash, PARTS))?;
        let (_, at) = part.find(hash as u32, key)?;
        part.slots.get(at)?.as_ref().map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let hash = self.hasher.hash_one(key);
        let part = self.parts.get_mut(part_of(hash, PARTS))?;
        let (_, at) = part.find(hash as u32, key)?;
        part.value_mut(at)
    }

    /// The value of a key, made if there is none.
    pub(super) fn entry(&mut self, key: &K, make: impl FnOnce() -> V) -> Option<&mut V> {
        let hash = self.hasher.hash_one(key);
        let part = self.parts.get_mut(part_of(hash, PARTS))?;
        let known = part.find(hash as u32, key).map(|(_, at)| at);
        let at = known.or_else(|| part.insert(hash as u32, (key.clone(), make())))?;
        part.value_mut(at)
    }

    pub(super) fn remove(&mut self, key: &K) {
        let hash = self.hasher.hash_one(key);
        let Some(part) = self.parts.get_mut(part_of(hash, PARTS)) else { return };
        if let Some((place, at)) = part.find(hash as u32, key) {
            part.remove(place, at);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.parts.iter().flat_map(Part::iter)
    }

    /// Changes every entry, on all processors; gives what comes of each.
    pub(super) fn change_all<R: Send>(&mut self, change: impl Fn(&K, &mut V) -> R + Sync) -> Vec<R>
    where
        K: Send + Sync,
        V: Send + Sync,
    {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let of_part = |part: &mut Part<K, V>| {
            // Parts without entries stay one.
            let slots = if part.used > 0 { Arc::make_mut(&mut part.slots) } else { &mut [] };
            slots.iter_mut().flatten().map(|(key, value)| change(key, value)).collect::<Vec<R>>()
        };
        std::thread::scope(|scope| {
            let shares = self.parts.chunks_mut(PARTS.div_ceil(processors));
            let started = shares.map(|parts| scope.spawn(|| parts.iter_mut().flat_map(of_part).collect::<Vec<R>>()));
            let started: Vec<_> = started.collect();
            started.into_iter().flat_map(|share| share.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
        })
    }

    /// Parts.
    pub(super) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Entries of one part.
    pub(super) fn part(&self, number: usize) -> impl Iterator<Item = (&K, &V)> {
        self.parts.get(number).into_iter().flat_map(Part::iter)
    }
}

/// The upper bits choose the part; its index uses the lower ones.
fn part_of(hash: u64, parts: usize) -> usize {
    ((hash >> 40) as usize) % parts
}

/// Entries, and an index with open addressing: an entry is at its home or behind it, never behind one that is nearer to its own
/// home (Robin Hood).
#[derive(Debug)]
struct Part<K, V> {
    index: Arc<[Pointer]>,
    slots: Arc<[Option<(K, V)>]>,
    used: usize,
}

impl<K, V> Default for Part<K, V> {
    fn default() -> Self {
        Self { index: Arc::new([]), slots: Arc::new([]), used: 0 }
    }
}

impl<K, V> Clone for Part<K, V> {
    fn clone(&self) -> Self {
        Self { index: self.index.clone(), slots: self.slots.clone(), used: self.used }
    }
}

/// Where an entry is.
#[derive(Debug, Clone, Copy)]
struct Pointer {
    hash: u32,
    /// Its number; none: free.
    slot: u32,
}

impl Pointer {
    const FREE: Self = Self { hash: 0, slot: u32::MAX };

    fn is_free(self) -> bool {
        self.slot == u32::MAX
    }
}

/// Where an entry is at home in an index of this size, which is one at least.
fn home(hash: u32, all: usize) -> usize {
    ((u64::from(hash) * all as u64) >> 32) as usize
}

/// How far behind its home a place is.
fn distance(hash: u32, place: usize, all: usize) -> usize {
    let home = home(hash, all);
    if place >= home { place - home } else { place + all - home }
}

/// The place behind another; the first is behind the last.
fn after(place: usize, all: usize) -> usize {
    if place + 1 == all { 0 } else { place + 1 }
}

impl<K: Clone, V: Clone> Part<K, V> {
    /// Its place in the index, and its number.
    #[inline]
    fn find<Q: Eq + ?Sized>(&self, hash: u32, key: &Q) -> Option<(usize, usize)>
    where
        K: Borrow<Q>,
    {
        let all = self.index.len();
        let mut place = home(hash, all);
        for far in 0..all {
            let own = *self.index.get(place)?;
            if own.is_free() {
                return None;
            }
            if own.hash == hash && self.slots.get(own.slot as usize)?.as_ref()?.0.borrow() == key {
                return Some((place, own.slot as usize));
            }
            if distance(own.hash, place, all) < far {
                return None;
            }
            place = after(place, all);
        }
        None
    }

    fn value_mut(&mut self, at: usize) -> Option<&mut V> {
        Arc::make_mut(&mut self.slots).get_mut(at)?.as_mut().map(|(_, value)| value)
    }

    /// Adds one that is not there; gives its number.
    fn insert(&mut self, hash: u32, slot: (K, V)) -> Option<usize> {
        let at = self.used;
        let pointer = Pointer { hash, slot: u32::try_from(at).ok()? };
        if at == self.slots.len() {
            let mut old = std::mem::replace(&mut self.slots, Arc::new([]));
            let old = Arc::make_mut(&mut old).iter_mut().map(Option::take);
            self.slots = old.chain(std::iter::repeat_with(|| None).take(2 + at / 4)).collect();
        }
        if (at + 1) * 3 > self.index.len() * 2 {
            let old = std::mem::replace(&mut self.index, vec![Pointer::FREE; 4 + at * 2].into());
            let index = Arc::make_mut(&mut self.index);
            old.iter().filter(|own| !own.is_free()).for_each(|own| put(index, *own));
        }
        put(Arc::make_mut(&mut self.index), pointer);
        *Arc::make_mut(&mut self.slots).get_mut(at)? = Some(slot);
        self.used += 1;
        Some(at)
    }

    fn remove(&mut self, place: usize, at: usize) {
        let index = Arc::make_mut(&mut self.index);
        take(index, place);
        self.used -= 1;
        // The last one takes its number.
        if let Some(moved) = index.iter_mut().find(|own| own.slot as usize == self.used) {
            moved.slot = at as u32;
        }
        let slots = Arc::make_mut(&mut self.slots);
        let last = slots.get_mut(self.used).and_then(Option::take);
        if let Some(slot) = slots.get_mut(at).filter(|_| at != self.used) {
            *slot = last;
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.slots.iter().flatten().map(|(key, value)| (key, value))
    }
}

/// Puts one into an index in which a place is free.
fn put(index: &mut [Pointer], mut pointer: Pointer) {
    let all = index.len();
    let (mut place, mut far) = (home(pointer.hash, all), 0);
    while let Some(own) = index.get_mut(place) {
        if own.is_free() {
            *own = pointer;
            return;
        }
        let nearer = distance(own.hash, place, all);
        if nearer < far {
            std::mem::swap(own, &mut pointer);
            far = nearer;
        }
        place = after(place, all);
        far += 1;
    }
}

/// Frees a place of an index: what is behind moves up, until one is at home.
fn take(index: &mut [Pointer], place: usize) {
    let (all, mut gap) = (index.len(), place);
    for _ in 0..all {
        let next = after(gap, all);
        let moved = index.get(next).copied().filter(|own| !own.is_free() && distance(own.hash, next, all) > 0);
        if let Some(free) = index.get_mut(gap) {
            *free = moved.unwrap_or(Pointer::FREE);
        }
        if moved.is_none() {
            return;
        }
        gap = next;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn sorted(map: &Sharded<u64, u64, 1024>) -> BTreeMap<u64, u64> {
        map.iter().map(|(key, value)| (*key, *value)).collect()
    }

    proptest! {
        /// One part with hashes that meet holds what a map holds that is beyond doubt.
        #[test]
        fn a_part_is_a_map(steps in prop::collection::vec((0..60_u64, any::<bool>()), 0..300), homes in 1..40_u32) {
            let mut part: Part<u64, u64> = Part::default();
            let mut expected = BTreeMap::new();
            let hash = |key: u64| (key as u32 % homes).wrapping_mul(u32::MAX / homes);
            for (number, (key, is_there)) in steps.into_iter().enumerate() {
                match (part.find(hash(key), &key), is_there) {
                    (Some((_, at)), true) => *part.value_mut(at).expect("it is there") = number as u64,
                    (None, true) => {
                        let at = part.insert(hash(key), (key, number as u64)).expect("there is room");
                        prop_assert_eq!(part.find(hash(key), &key).map(|(_, at)| at), Some(at));
                    }
                    (Some((place, at)), false) => part.remove(place, at),
                    (None, false) => prop_assert!(!expected.contains_key(&key)),
                }
                if is_there { expected.insert(key, number as u64); } else { expected.remove(&key); }
                prop_assert_eq!(part.used, expected.len());
                prop_assert_eq!(part.iter().map(|(key, value)| (*key, *value)).collect::<BTreeMap<_, _>>(), expected.clone());
                for key in 0..60 {
                    let found = part.find(hash(key), &key).and_then(|(_, at)| part.slots[at]).map(|(_, value)| value);
                    prop_assert_eq!(found, expected.get(&key).copied(), "{}", key);
                }
            }
        }
    }

    #[test]
    fn a_copy_stays_as_it_was() {
        let mut map: Sharded<u64, u64, 1024> = Sharded::default();
        for key in 0..100_000 {
            *map.entry(&key, || 0).expect("a value") = key;
        }
        let copy = map.clone();
        let before = sorted(&copy);
        let mut doubled = map.clone();
        let mut sums = doubled.change_all(|key, value| {
            *value *= 2;
            *key + *value
        });
        sums.sort_unstable();
        assert_eq!(sums, (0..100_000).map(|key| key * 3).collect::<Vec<u64>>());
        assert_eq!(sorted(&doubled), (0..100_000).map(|key| (key, key * 2)).collect());
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
        let parts: usize = (0..map.parts()).map(|part| map.part(part).count()).sum();
        assert_eq!(parts, 50_000);
    }
}
