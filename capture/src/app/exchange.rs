//! What the parsers share: ends, times, and exchanges that are over.

pub(crate) use crate::flow::{End, micros};
use crate::transaction::Exchange;

/// An exchange that is over, until the engine takes it.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Who asked.
    pub(crate) asker: End,
    pub(crate) exchange: Exchange,
}

/// When a message passed: its first byte and its last, ns since the epoch.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Passed {
    pub(crate) first: i64,
    pub(crate) last: i64,
}

impl Passed {
    /// In one packet.
    pub(crate) const fn at(time: i64) -> Self {
        Self { first: time, last: time }
    }
}

/// The value itself if the flow is over and nobody asks for it again, else a copy: texts are counted by whoever holds them,
/// and a count that is not in the cache is waited for.
pub(crate) fn give<T: Clone + Default>(value: &mut T, over: bool) -> T {
    if over { std::mem::take(value) } else { value.clone() }
}
