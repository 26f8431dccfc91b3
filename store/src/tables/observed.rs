//! What a query did: for those who ask how it was answered, and for nobody else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Plans that are kept at most: an aggregation may go over the files several times.
const MOST_PLANS: usize = 8;

/// Collects while a query runs.
#[derive(Debug, Default)]
pub(super) struct Observed {
    plans: Mutex<Vec<String>>,
    runs: AtomicU64,
    memory: AtomicU64,
    in_range: AtomicU64,
    candidates: AtomicU64,
    opened: AtomicU64,
    found: AtomicU64,
    bytes: AtomicU64,
    groups: AtomicU64,
    pruned: AtomicU64,
    pruned_by_bloom: AtomicU64,
    rollups: AtomicU64,
    rolled_rows: AtomicU64,
}

/// What was done for a query.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Rows in memory that were looked at, open slices included.
    pub memory_rows: u64,
    /// Files of the table that have rows in the range of time.
    pub files_in_range: u64,
    /// Those of them that could not be left out: by time, or by the place where the page begins.
    pub files_candidates: u64,
    /// Those of them that were opened: a page is often full before.
    pub files_opened: u64,
    /// Plans that were run.
    pub plans: u64,
    /// Rows that the files gave: those that passed.
    pub rows_found: u64,
    /// Bytes that were read of files.
    pub bytes_read: u64,
    /// Parts of files that were read, and that were left out by the statistics of their columns, by their bloom filters.
    pub row_groups: u64,
    /// By statistics.
    pub row_groups_pruned: u64,
    /// By bloom filters.
    pub row_groups_pruned_by_bloom: u64,
    /// Roll-ups that were read in place of rows.
    pub rollups: u64,
    /// Their rows that were added up.
    pub rolled_rows: u64,
}

impl Observed {
    /// Rows in memory, files of the table in the range, and those that could not be left out.
    pub(super) fn looked_at(&self, memory: usize, in_range: usize, candidates: usize) {
        self.memory.fetch_add(memory as u64, Ordering::Relaxed);
        self.in_range.fetch_add(in_range as u64, Ordering::Relaxed);
        self.candidates.fetch_add(candidates as u64, Ordering::Relaxed);
    }

    /// Files are read.
    pub(super) fn opened(&self, files: usize) {
        self.opened.fetch_add(files as u64, Ordering::Relaxed);
    }

    /// Files are gone through, as the words say.
    pub(super) fn note(&self, plan: impl FnOnce() -> String) {
        self.runs.fetch_add(1, Ordering::Relaxed);
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if plans.len() < MOST_PLANS {
            plans.push(plan());
        }
    }

    /// A row group is looked at; what leaves it out, if something does.
    pub(super) fn group(&self, left_out: Option<LeftOut>) {
        self.groups.fetch_add(1, Ordering::Relaxed);
        match left_out {
            Some(LeftOut::Statistics) => self.pruned.fetch_add(1, Ordering::Relaxed),
            Some(LeftOut::Bloom) => self.pruned_by_bloom.fetch_add(1, Ordering::Relaxed),
            None => 0,
        };
    }

    /// Roll-ups were read, and so many of their rows added up.
    pub(super) fn rolled(&self, files: u64, rows: u64) {
        self.rollups.fetch_add(files, Ordering::Relaxed);
        self.rolled_rows.fetch_add(rows, Ordering::Relaxed);
    }

    /// Bytes were read.
    pub(super) fn read(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Rows passed.
    pub(super) fn found(&self, rows: usize) {
        self.found.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// What was done, and how.
    pub(super) fn work(&self) -> (Work, Vec<String>) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let work = Work {
            memory_rows: count(&self.memory),
            files_in_range: count(&self.in_range),
            files_candidates: count(&self.candidates),
            files_opened: count(&self.opened),
            plans: count(&self.runs),
            rows_found: count(&self.found),
            bytes_read: count(&self.bytes),
            row_groups: count(&self.groups),
            row_groups_pruned: count(&self.pruned),
            row_groups_pruned_by_bloom: count(&self.pruned_by_bloom),
            rollups: count(&self.rollups),
            rolled_rows: count(&self.rolled_rows),
        };
        (work, self.plans.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// What leaves a row group out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeftOut {
    /// Least and greatest values.
    Statistics,
    /// A bloom filter.
    Bloom,
}
