//! What happened in the store of a table since it was opened.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the store was opened, and the rows in memory now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableCounters {
    /// Rows handed to the store.
    pub received: u64,
    /// Rows written to files.
    pub written: u64,
    /// Rows dropped because memory was full and files could not be written.
    pub dropped: u64,
    /// Rows of what was erased: they came to no file.
    pub erased: u64,
    /// Rows of what was erased that were taken out of files.
    pub removed: u64,
    /// Rows in files that got a name later.
    pub retagged: u64,
    /// Rows in memory.
    pub recent: u64,
    /// Flushes that failed.
    pub failed_flushes: u64,
    /// Times that an answer was made without a file because it could not be read.
    pub unreadable_files: u64,
    /// Open slices that are shown now.
    pub open: u64,
    /// Versions of open slices that were not shown: there were too many.
    pub hidden: u64,
    /// Files of roll-ups that were written.
    pub rollups: u64,
    /// Rows in these.
    pub rollup_rows: u64,
    /// Hours and days of which no roll-up could be made.
    pub failed_rollups: u64,
}

/// The same, as it is counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) received: AtomicU64,
    pub(super) written: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) erased: AtomicU64,
    pub(super) removed: AtomicU64,
    pub(super) retagged: AtomicU64,
    pub(super) recent: AtomicU64,
    pub(super) failed_flushes: AtomicU64,
    pub(super) unreadable_files: AtomicU64,
    pub(super) open: AtomicU64,
    pub(super) hidden: AtomicU64,
    pub(super) rollups: AtomicU64,
    pub(super) rollup_rows: AtomicU64,
    pub(super) failed_rollups: AtomicU64,
}

impl Counts {
    pub(super) fn now(&self) -> TableCounters {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TableCounters {
            received: count(&self.received),
            written: count(&self.written),
            dropped: count(&self.dropped),
            erased: count(&self.erased),
            removed: count(&self.removed),
            retagged: count(&self.retagged),
            recent: count(&self.recent),
            failed_flushes: count(&self.failed_flushes),
            unreadable_files: count(&self.unreadable_files),
            open: count(&self.open),
            hidden: count(&self.hidden),
            rollups: count(&self.rollups),
            rollup_rows: count(&self.rollup_rows),
            failed_rollups: count(&self.failed_rollups),
        }
    }
}
