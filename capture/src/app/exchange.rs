//! What the parsers share: ends, times, and exchanges that are over.

pub(crate) use crate::flow::End;
use crate::transaction::Exchange;

/// An exchange that is over, until the engine takes it.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Who asked.
    pub(crate) asker: End,
    pub(crate) exchange: Exchange,
}

/// Microseconds between two times of packets; `None` if the capture reordered them.
pub(crate) fn micros(from: i64, to: i64) -> Option<u64> {
    u64::try_from(to.checked_sub(from)?).ok().map(|nanos| nanos / 1000)
}
