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

/// The value itself if the flow is over and nobody asks for it again, else a copy: texts are counted by whoever holds them,
/// and a count that is not in the cache is waited for.
pub(crate) fn give<T: Clone + Default>(value: &mut T, over: bool) -> T {
    if over { std::mem::take(value) } else { value.clone() }
}
