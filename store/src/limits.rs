//! How much one query may take, and what is said when it wants more.

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
        "the query needs more than {mib} MiB of memory; hint: ask for a shorter time, for fewer or coarser groups, or raise `queries.mib` in the configuration"
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
