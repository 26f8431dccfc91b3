//! Distributions of the values of many groups.
//!
//! Where groups are few, each value goes to its group's sketch at once. Where they are many, a group has few values, and most of the time
//! would go into finding its place in memory: there values wait in the order in which they come, and are put in the order of their groups
//! once, when all are there ([`Sketches::gather`]), or when so many wait that sketches take less memory.

use std::borrow::Cow;
use std::ops::Range;

use crate::sketch::{Quantile, Sketch, bucket_of, middle};

/// Groups of which each has its sketch at once.
const FEW: usize = 1_024;
/// Values that wait at most, of each group and at least.
const WAITING: usize = 32;
const LEAST_WAITING: usize = 1 << 16;
/// Values that are worth a thread.
const MANY: usize = 1 << 17;
/// Bits of a bucket's number.
const BUCKET: u32 = u16::BITS;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Sketches {
    groups: usize,
    /// Of the first groups, what does not wait.
    own: Vec<Sketch>,
    /// What they have on the heap, bytes.
    heap: usize,
    /// Values that wait: the group and the bucket.
    waiting: Vec<u64>,
    /// Those that were gathered.
    gathered: Gathered,
}

/// Buckets of values, those of a group behind each other in order.
#[derive(Debug, Default)]
struct Gathered {
    buckets: Vec<u16>,
    /// Where those of each group end.
    ends: Vec<usize>,
}

impl Gathered {
    fn of(waiting: &[u64], groups: usize) -> Self {
        let mut places = vec![0_usize; groups];
        let group_of = |value: u64| (value >> BUCKET) as usize;
        for value in waiting {
            if let Some(count) = places.get_mut(group_of(*value)) {
                *count += 1;
            }
        }
        let mut before = 0;
        for place in &mut places {
            before += std::mem::replace(place, before);
        }
        let mut buckets = vec![0; before];
        for value in waiting {
            let Some(place) = places.get_mut(group_of(*value)) else { continue };
            if let Some(bucket) = buckets.get_mut(*place) {
                *bucket = *value as u16;
            }
            *place += 1;
        }
        // Each place is behind the last of its group now.
        let mut gathered = Self { buckets, ends: places };
        gathered.sort();
        gathered
    }

    /// Puts the values of each group in order, of many by as many threads as there are processors.
    fn sort(&mut self) {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if self.buckets.len() < MANY { 1 } else { threads };
        let share = self.buckets.len().div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            let (mut rest, mut ends, mut done) = (self.buckets.as_mut_slice(), self.ends.as_slice(), 0);
            while !ends.is_empty() {
                let groups = ends.partition_point(|end| *end < done + share).saturating_add(1).min(ends.len());
                let (own, later) = ends.split_at(groups);
                let end = own.last().copied().unwrap_or(done);
                let (buckets, behind) = rest.split_at_mut(end - done);
                let begin = done;
                let mut work = move || sort_runs(buckets, own, begin);
                (rest, ends, done) = (behind, later, end);
                if ends.is_empty() { work() } else { drop(scope.spawn(work)) }
            }
        });
    }

    fn range(&self, group: usize) -> Range<usize> {
        let begin = group.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or_default();
        begin..self.ends.get(group).copied().unwrap_or(begin)
    }

    fn of_group(&self, group: usize) -> &[u16] {
        self.buckets.get(self.range(group)).unwrap_or_default()
    }
}

fn sort_runs(mut buckets: &mut [u16], ends: &[usize], begin: usize) {
    let mut done = begin;
    for end in ends {
        let Some((own, rest)) = buckets.split_at_mut_checked(end - done) else { return };
        own.sort_unstable();
        (buckets, done) = (rest, *end);
    }
}

impl Sketches {
    /// Has room for so many groups.
    pub(super) fn resize(&mut self, groups: usize) {
        self.groups = self.groups.max(groups);
    }

    /// Adds the value to its group, for each.
    pub(super) fn add(&mut self, values: impl Iterator<Item = (u32, u64)>) {
        if self.groups < FEW {
            self.own.resize_with(self.groups, Sketch::default);
            for (group, value) in values {
                if let Some(sketch) = self.own.get_mut(group as usize) {
                    let before = sketch.memory();
                    sketch.add(value);
                    self.heap += sketch.memory() - before;
                }
            }
            return;
        }
        self.waiting.extend(values.map(|(group, value)| u64::from(group) << BUCKET | u64::from(bucket_of(value))));
        self.bound();
    }

    /// Adds a distribution to a group.
    pub(super) fn add_sketch(&mut self, group: u32, other: &Sketch) {
        if let Some(sketch) = self.sketch(group) {
            let before = sketch.memory();
            sketch.merge(other);
            let after = sketch.memory();
            self.heap = self.heap + after - before;
        }
    }

    /// Adds others; `groups` says which of ours each of theirs is.
    pub(super) fn merge(&mut self, mut other: Self, groups: &[u32]) {
        other.settle_gathered();
        let ours = |value: u64| {
            let group = groups.get((value >> BUCKET) as usize)?;
            Some(u64::from(*group) << BUCKET | value & ((1 << BUCKET) - 1))
        };
        self.waiting.extend(other.waiting.iter().filter_map(|value| ours(*value)));
        for (sketch, group) in other.own.into_iter().zip(groups) {
            match self.sketch(*group) {
                Some(own) if own.is_empty() => *own = sketch,
                Some(own) => own.merge(&sketch),
                None => {}
            }
        }
        self.weigh();
        self.bound();
    }

    /// Puts all values where they can be asked for; what is added later has to be gathered, too.
    pub(super) fn gather(&mut self) {
        if !self.waiting.is_empty() {
            self.settle_gathered();
            self.gathered = Gathered::of(&std::mem::take(&mut self.waiting), self.groups);
        }
    }

    /// The distribution of a group.
    pub(super) fn of_group(&self, group: u32) -> Cow<'_, Sketch> {
        debug_assert!(self.waiting.is_empty(), "not gathered");
        let (group, gathered) = (group as usize, self.gathered.of_group(group as usize));
        match self.own.get(group) {
            Some(sketch) if gathered.is_empty() => Cow::Borrowed(sketch),
            sketch => {
                let mut sketch = sketch.cloned().unwrap_or_default();
                sketch.add_sorted(gathered);
                Cow::Owned(sketch)
            }
        }
    }

    /// See [`Sketch::quantile`].
    pub(super) fn quantile(&self, group: u32, quantile: Quantile) -> Option<u64> {
        let gathered = self.gathered.of_group(group as usize);
        if self.own.get(group as usize).is_some_and(|sketch| !sketch.is_empty()) {
            return self.of_group(group).quantile(quantile);
        }
        gathered.get(quantile.rank(gathered.len() as u64) as usize - 1).map(|bucket| middle(*bucket))
    }

    /// Memory, about.
    pub(super) fn bytes(&self) -> usize {
        let Gathered { buckets, ends } = &self.gathered;
        let sketches = self.own.capacity() * size_of::<Sketch>() + self.heap;
        sketches + self.waiting.capacity() * 8 + buckets.capacity() * 2 + ends.capacity() * 8
    }

    fn sketch(&mut self, group: u32) -> Option<&mut Sketch> {
        if self.own.len() < self.groups {
            self.own.resize_with(self.groups, Sketch::default);
        }
        self.own.get_mut(group as usize)
    }

    fn weigh(&mut self) {
        self.heap = self.own.iter().map(Sketch::memory).sum();
    }

    /// If too many wait, they go to their sketches.
    fn bound(&mut self) {
        if self.waiting.len() > self.groups.saturating_mul(WAITING).max(LEAST_WAITING) {
            self.gather();
            self.settle_gathered();
        }
    }

    fn settle_gathered(&mut self) {
        let gathered = std::mem::take(&mut self.gathered);
        if gathered.buckets.is_empty() {
            return;
        }
        self.own.resize_with(self.groups, Sketch::default);
        for (group, sketch) in self.own.iter_mut().enumerate() {
            sketch.add_sorted(gathered.of_group(group));
        }
        self.weigh();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Batch = (usize, Vec<(u32, u64)>);

    fn batches() -> impl Strategy<Value = Vec<Batch>> {
        let sizes = prop::sample::select(vec![1, 7, FEW - 1, FEW + 1, 3 * FEW]);
        let batch = (sizes, 0_usize..40_000, any::<u64>()).prop_map(|(groups, values, seed)| {
            let mut state = seed | 1;
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state >> 20
            };
            (groups, (0..values).map(|_| ((next() % groups as u64) as u32, next() >> (next() % 44))).collect())
        });
        prop::collection::vec(batch, 0..6)
    }

    fn of(batches: &[Batch]) -> Sketches {
        let mut sketches = Sketches::default();
        for (groups, values) in batches {
            sketches.resize(*groups);
            sketches.add(values.iter().copied());
        }
        sketches
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Whatever waits, is gathered and is merged when.
        #[test]
        fn groups_have_the_sketches_of_their_values(one in batches(), two in batches(), again in batches()) {
            let mut plain = vec![Sketch::default(); 3 * FEW];
            for (group, value) in one.iter().chain(&two).chain(&again).flat_map(|(_, values)| values) {
                plain[*group as usize].add(*value);
            }
            let mut all = of(&one);
            all.resize(3 * FEW);
            all.merge(of(&two), &(0..3 * FEW as u32).collect::<Vec<_>>());
            all.gather();
            all.add(again.iter().flat_map(|(_, values)| values.iter().copied()));
            all.gather();
            for (group, plain) in plain.iter().enumerate() {
                let group = group as u32;
                prop_assert_eq!(&*all.of_group(group), plain);
                for quantile in ["0", "30", "50", "99.9", "100"].into_iter().filter_map(Quantile::of_percent) {
                    prop_assert_eq!(all.quantile(group, quantile), plain.quantile(quantile));
                }
            }
        }
    }
}
