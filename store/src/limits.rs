//! How much one query may take, and what is said when it wants more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Memory of one query unless the configuration says otherwise, bytes.
pub const DEFAULT_MEMORY: usize = 256 << 20;
/// Groups in an answer at most.
pub const MOST_GROUPS: usize = 100_000;

/// A limit that a query reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitReached {
    /// Of memory.
    #[error(
        "the query needs more than {mib} MiB of memory; hint: ask for a shorter time, for fewer rows, for fewer or coarser groups, or raise `queries.mib` in the configuration"
    )]
    Memory {
        /// The limit.
        mib: usize,
    },
    /// Of groups in the answer.
    #[error(
        "the answer has {groups} groups, and {MOST_GROUPS} at most can be given; hint: end the query with `| limit 1000`, use `top`, or group by less"
    )]
    Groups {
        /// How many there would be.
        groups: usize,
    },
    /// Of time.
    #[error(
        "the query took longer than {seconds} s; hint: ask for a shorter time or less, or raise `queries.seconds` in the configuration"
    )]
    Time {
        /// The limit.
        seconds: u64,
    },
    /// Of queries at the same time.
    #[error(
        "{concurrent} queries run already, and none ended for {seconds} s; hint: try again later, or raise `queries.concurrent` in the configuration"
    )]
    Busy {
        /// The limit.
        concurrent: usize,
        /// How long it waited for its turn.
        seconds: u64,
    },
}

/// Memory of one query, shared by what works for it.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    most: usize,
}

impl Budget {
    pub(crate) fn new(most: usize) -> Self {
        Self { used: AtomicUsize::new(0), most }
    }

    /// One part of the work needs `now` bytes instead of `before`.
    pub(crate) fn change(&self, before: usize, now: usize) -> Result<(), LimitReached> {
        let used = if now >= before {
            self.used.fetch_add(now - before, Ordering::Relaxed) + (now - before)
        } else {
            self.used.fetch_sub(before - now, Ordering::Relaxed) - (before - now)
        };
        if used > self.most { Err(LimitReached::Memory { mib: self.most >> 20 }) } else { Ok(()) }
    }

    /// What is needed now, bytes.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// Memory that something of a query takes, until it is gone.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Held {
    /// Nothing yet.
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        Self { budget: budget.clone(), bytes: 0 }
    }

    /// It takes so many bytes now.
    pub(crate) fn set(&mut self, bytes: usize) -> Result<(), LimitReached> {
        let before = std::mem::replace(&mut self.bytes, bytes);
        self.budget.change(before, bytes)
    }

    /// It takes so many bytes more.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), LimitReached> {
        self.set(self.bytes.saturating_add(bytes))
    }

    /// It takes so many bytes less.
    pub(crate) fn give(&mut self, bytes: usize) {
        // What is given back cannot be too much.
        let _ = self.set(self.bytes.saturating_sub(bytes));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give(self.bytes);
    }
}

/// How much queries may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryLimits {
    /// How long one may take.
    pub time: std::time::Duration,
    /// Memory of one, bytes.
    pub memory: usize,
    /// How many may run at the same time.
    pub concurrent: usize,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self { time: std::time::Duration::from_secs(30), memory: DEFAULT_MEMORY, concurrent: 8 }
    }
}
