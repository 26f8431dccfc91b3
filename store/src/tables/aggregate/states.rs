//! What is kept of each group while rows are read: states that can be merged in any order and grouping.

use datafusion::arrow::array::{Array, UInt64Array};
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::borrow::Cow;
use std::hash::BuildHasher;
use std::sync::Arc;

use super::sketches::Sketches;
use super::values::{Column, Interner, Seen, growth};
use crate::limits::{Budget, Held, LimitReached};
use crate::sketch::{Quantile, Sketch};

/// Values, or groups, that come to others before it is asked whether there is memory for more.
pub(super) const STEP: usize = 4_096;

/// What a state keeps of the values of its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// Number of rows.
    Rows,
    /// Sum and number of values.
    Sum,
    /// Least value.
    Least,
    /// Greatest value.
    Greatest,
    /// How values are distributed.
    Sketch,
    /// Which values there were.
    Distinct,
}

/// One state for each group.
#[derive(Debug)]
pub(crate) enum States {
    Rows(Vec<u64>),
    Sum(Vec<(u128, u64)>),
    Least(Vec<Option<i128>>),
    Greatest(Vec<Option<i128>>),
    Sketch(Sketches),
    Distinct(Distinct),
}

/// Distinct values of all groups.
#[derive(Debug)]
pub(crate) struct Distinct {
    values: Interner,
    /// Group and number of the value.
    seen: HashTable<(u32, u32)>,
    counts: Vec<u64>,
    hasher: RandomState,
    /// What values and pairs take.
    held: Held,
}

impl Distinct {
    fn new(hasher: &RandomState, budget: &Arc<Budget>) -> Self {
        Self {
            values: Interner::new(hasher.clone()),
            seen: HashTable::new(),
            counts: Vec::new(),
            hasher: hasher.clone(),
            held: Held::new(budget),
        }
    }

    /// Makes room for so many values more, if there is memory for it.
    fn reserve(&mut self, more: usize) -> Result<(), LimitReached> {
        let growth = growth(&self.seen, more) + self.values.growth(more);
        if growth > 0 {
            self.held.take(growth)?;
            let hasher = &self.hasher;
            self.seen.reserve(more, |known| hasher.hash_one(known));
            self.values.reserve(more);
        }
        self.account()
    }

    fn account(&mut self) -> Result<(), LimitReached> {
        self.held.set(self.values.bytes() + self.seen.allocation_size())
    }

    /// Adds the values of a column in `rows` to the group at the same place of `groups`.
    fn add(&mut self, column: &Column, rows: &[u32], groups: &[u32]) -> Result<(), LimitReached> {
        for (rows, groups) in rows.chunks(STEP).zip(groups.chunks(STEP)) {
            self.reserve(rows.len())?;
            let numbers = column.numbers(rows, &mut self.values);
            for ((row, group), number) in rows.iter().zip(groups).zip(numbers) {
                if column.get(*row as usize) != Seen::Null {
                    self.insert(*group, number);
                }
            }
        }
        self.account()
    }

    fn merge(&mut self, theirs: &Self, groups: &[u32]) -> Result<(), LimitReached> {
        let mut numbers = Vec::with_capacity(theirs.values.values().len());
        for values in theirs.values.values().chunks(STEP) {
            self.reserve(values.len())?;
            numbers.extend(values.iter().map(|value| self.values.number(value.seen())));
        }
        for (at, (group, number)) in theirs.seen.iter().enumerate() {
            if at.is_multiple_of(STEP) {
                self.reserve(STEP.min(theirs.seen.len() - at))?;
            }
            if let (Some(group), Some(number)) = (groups.get(*group as usize), numbers.get(*number as usize)) {
                self.insert(*group, *number);
            }
        }
        self.account()
    }

    fn insert(&mut self, group: u32, number: u32) {
        let (pair, hasher) = ((group, number), &self.hasher);
        let entry = self.seen.entry(hasher.hash_one(pair), |known| *known == pair, |known| hasher.hash_one(known));
        if let hashbrown::hash_table::Entry::Vacant(place) = entry {
            place.insert(pair);
            if let Some(count) = self.counts.get_mut(group as usize) {
                *count += 1;
            }
        }
    }
}

fn whole(value: Seen<'_>) -> Option<i128> {
    match value {
        Seen::Number(value) => Some(value.into()),
        Seen::Time(value) => Some(value.into()),
        Seen::Bool(_) | Seen::Text(_) | Seen::Null => None,
    }
}

impl States {
    pub(super) fn new(keeps: Keeps, hasher: &RandomState, budget: &Arc<Budget>) -> Self {
        match keeps {
            Keeps::Rows => Self::Rows(Vec::new()),
            Keeps::Sum => Self::Sum(Vec::new()),
            Keeps::Least => Self::Least(Vec::new()),
            Keeps::Greatest => Self::Greatest(Vec::new()),
            Keeps::Sketch => Self::Sketch(Sketches::default()),
            Keeps::Distinct => Self::Distinct(Distinct::new(hasher, budget)),
        }
    }

    /// Has room for so many groups.
    pub(super) fn resize(&mut self, groups: usize) {
        match self {
            Self::Rows(rows) => rows.resize(groups, 0),
            Self::Sum(sums) => sums.resize(groups, (0, 0)),
            Self::Least(values) | Self::Greatest(values) => values.resize(groups, None),
            Self::Sketch(sketches) => sketches.resize(groups),
            Self::Distinct(distinct) => distinct.counts.resize(groups, 0),
        }
    }

    /// Adds the values of `columns` in `rows` to the group at the same place of `groups`.
    pub(super) fn add(&mut self, columns: &[&Column], rows: &[u32], groups: &[u32]) -> Result<(), LimitReached> {
        if let Self::Rows(counts) = self {
            for group in groups {
                if let Some(count) = counts.get_mut(*group as usize) {
                    *count += 1;
                }
            }
            return Ok(());
        }
        for column in columns {
            if let Self::Distinct(distinct) = self {
                distinct.add(column, rows, groups)?;
                continue;
            }
            if let Column::Number(numbers) = column
                && self.add_numbers(numbers, rows, groups)
            {
                continue;
            }
            for (row, group) in rows.iter().zip(groups) {
                if let Some(value) = whole(column.get(*row as usize)) {
                    self.add_value(*group, value);
                }
            }
        }
        Ok(())
    }

    /// Adds numbers without asking for each what it is and what is kept of it, if that can be; most of what is asked for can.
    fn add_numbers(&mut self, numbers: &UInt64Array, rows: &[u32], groups: &[u32]) -> bool {
        let (nulls, numbers) = (numbers.nulls(), numbers.values());
        let values = rows.iter().zip(groups).filter_map(|(row, group)| {
            let there = nulls.is_none_or(|nulls| nulls.is_valid(*row as usize));
            Some((*group as usize, *numbers.get(*row as usize).filter(|_| there)?))
        });
        match self {
            Self::Sum(sums) => {
                for (group, value) in values {
                    if let Some((sum, count)) = sums.get_mut(group) {
                        *sum += u128::from(value);
                        *count += 1;
                    }
                }
            }
            Self::Sketch(sketches) => sketches.add(values.map(|(group, value)| (group as u32, value))),
            Self::Rows(_) | Self::Least(_) | Self::Greatest(_) | Self::Distinct(_) => return false,
        }
        true
    }

    fn add_value(&mut self, group: u32, value: i128) {
        let group = group as usize;
        match self {
            Self::Sum(sums) => {
                if let Some((sum, count)) = sums.get_mut(group) {
                    *sum += value.unsigned_abs();
                    *count += 1;
                }
            }
            Self::Least(values) => set(values, group, value, i128::min),
            Self::Greatest(values) => set(values, group, value, i128::max),
            Self::Sketch(sketches) => {
                sketches.add(std::iter::once((group as u32, u64::try_from(value).unwrap_or_default())));
            }
            Self::Rows(_) | Self::Distinct(_) => {}
        }
    }

    /// Adds so many rows to a group: for sources that have aggregated before.
    pub(crate) fn add_rows(&mut self, group: u32, rows: u64) {
        if let Self::Rows(counts) = self
            && let Some(count) = counts.get_mut(group as usize)
        {
            *count += rows;
        }
    }

    /// Adds a sum of so many values to a group.
    pub(crate) fn add_sum(&mut self, group: u32, sum: u128, values: u64) {
        if let Self::Sum(sums) = self
            && let Some((total, count)) = sums.get_mut(group as usize)
        {
            *total += sum;
            *count += values;
        }
    }

    /// Adds a distribution to a group.
    pub(crate) fn add_sketch(&mut self, group: u32, other: &Sketch) {
        if let Self::Sketch(sketches) = self {
            sketches.add_sketch(group, other);
        }
    }

    /// Adds states of the same kind; `groups` says which of ours each of theirs is.
    pub(super) fn merge(&mut self, other: Self, groups: &[u32]) -> Result<(), LimitReached> {
        match other {
            Self::Rows(counts) => counts.iter().zip(groups).for_each(|(rows, group)| self.add_rows(*group, *rows)),
            Self::Sum(sums) => sums.iter().zip(groups).for_each(|((sum, n), group)| self.add_sum(*group, *sum, *n)),
            Self::Least(values) | Self::Greatest(values) => {
                for (value, group) in values.iter().zip(groups) {
                    if let Some(value) = value {
                        self.add_value(*group, *value);
                    }
                }
            }
            Self::Sketch(theirs) => {
                if let Self::Sketch(ours) = self {
                    ours.merge(theirs, groups);
                }
            }
            Self::Distinct(theirs) => {
                if let Self::Distinct(ours) = self {
                    ours.merge(&theirs, groups)?;
                }
            }
        }
        Ok(())
    }

    /// Nothing more comes: what is kept can be asked for.
    pub(super) fn gather(&mut self) {
        if let Self::Sketch(sketches) = self {
            sketches.gather();
        }
    }

    /// Memory, about, without what holds it itself.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Rows(rows) => rows.capacity() * 8,
            Self::Sum(sums) => sums.capacity() * 32,
            Self::Least(values) | Self::Greatest(values) => values.capacity() * 32,
            Self::Sketch(sketches) => sketches.bytes(),
            Self::Distinct(distinct) => distinct.counts.capacity() * 8,
        }
    }

    pub(crate) fn rows(&self, group: u32) -> u64 {
        match self {
            Self::Rows(counts) => counts.get(group as usize).copied().unwrap_or_default(),
            Self::Distinct(distinct) => distinct.counts.get(group as usize).copied().unwrap_or_default(),
            Self::Sum(_) | Self::Least(_) | Self::Greatest(_) | Self::Sketch(_) => 0,
        }
    }

    /// Sum and number of values.
    pub(crate) fn sum(&self, group: u32) -> Option<(u128, u64)> {
        match self {
            Self::Sum(sums) => sums.get(group as usize).copied().filter(|(_, count)| *count > 0),
            Self::Rows(_) | Self::Least(_) | Self::Greatest(_) | Self::Sketch(_) | Self::Distinct(_) => None,
        }
    }

    pub(super) fn extreme(&self, group: u32) -> Option<i128> {
        match self {
            Self::Least(values) | Self::Greatest(values) => values.get(group as usize).copied().flatten(),
            Self::Rows(_) | Self::Sum(_) | Self::Sketch(_) | Self::Distinct(_) => None,
        }
    }

    /// The distribution of the values.
    pub(crate) fn sketch(&self, group: u32) -> Option<Cow<'_, Sketch>> {
        match self {
            Self::Sketch(sketches) => Some(sketches.of_group(group)),
            Self::Rows(_) | Self::Sum(_) | Self::Least(_) | Self::Greatest(_) | Self::Distinct(_) => None,
        }
    }

    pub(super) fn quantile(&self, group: u32, quantile: Quantile) -> Option<u64> {
        match self {
            Self::Sketch(sketches) => sketches.quantile(group, quantile),
            Self::Rows(_) | Self::Sum(_) | Self::Least(_) | Self::Greatest(_) | Self::Distinct(_) => None,
        }
    }
}

fn set(values: &mut [Option<i128>], group: usize, value: i128, choose: fn(i128, i128) -> i128) {
    if let Some(slot) = values.get_mut(group) {
        *slot = Some(slot.map_or(value, |before| choose(before, value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds numbers to the only group.
    fn add(distinct: &mut Distinct, numbers: std::ops::Range<u64>) -> Result<(), LimitReached> {
        distinct.counts.resize(1, 0);
        let rows: Vec<u32> = (0..).zip(numbers.clone()).map(|(row, _)| row).collect();
        let groups = vec![0; rows.len()];
        distinct.add(&Column::Number(numbers.collect::<Vec<_>>().into()), &rows, &groups)
    }

    #[test]
    fn sets_ask_for_memory_before_they_grow() {
        let budget = Arc::new(Budget::new(1 << 20));
        let mut distinct = Distinct::new(&RandomState::default(), &budget);
        let bytes = |distinct: &Distinct| distinct.values.bytes() + distinct.seen.allocation_size();
        let mut fit = 0;
        let error = loop {
            match add(&mut distinct, fit..fit + 1_000) {
                Ok(()) => fit += 1_000,
                Err(error) => break error,
            }
            assert_eq!((distinct.counts[0], budget.used()), (fit, bytes(&distinct)));
        };
        assert_eq!(error, LimitReached::Memory { mib: 1 });
        assert!(fit >= 5_000 && bytes(&distinct) <= 1 << 20, "{fit} in {}", bytes(&distinct));
        drop(distinct);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn sets_that_are_merged_ask_for_memory_too() {
        for (most, fits) in [(16 << 20, true), (900_000, false)] {
            let budget = Arc::new(Budget::new(most));
            let [mut ours, mut theirs] = [0; 2].map(|_| Distinct::new(&RandomState::default(), &budget));
            add(&mut ours, 0..6_000).expect("it fits");
            add(&mut theirs, 5_000..11_000).expect("it fits");
            assert_eq!(ours.merge(&theirs, &[0]).is_ok(), fits, "in {most}");
            if fits {
                assert_eq!(ours.counts, [11_000]);
            }
            drop((ours, theirs));
            assert_eq!(budget.used(), 0, "in {most}");
        }
    }
}
