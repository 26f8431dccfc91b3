//! What values hold on the heap, as the allocator sees it: every allocation costs a little more than what was asked for.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// What an allocation takes beside its bytes: its header, and half of the 16 bytes that sizes are rounded up to.
const OVERHEAD: usize = 16;

/// An allocation of so many bytes; none of none.
pub(crate) const fn of_bytes(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { bytes + OVERHEAD }
}

/// A box of a `T`, without what that owns.
pub(crate) const fn of_box<T>() -> usize {
    of_bytes(size_of::<T>())
}

/// A vector, without what its items own.
pub(crate) const fn of_vec<T>(vec: &Vec<T>) -> usize {
    of_bytes(vec.capacity() * size_of::<T>())
}

/// A queue, without what its items own.
pub(crate) fn of_queue<T>(queue: &VecDeque<T>) -> usize {
    of_bytes(queue.capacity() * size_of::<T>())
}

/// A text that may be shared: whoever holds it counts it.
pub(crate) fn of_text(text: Option<&Arc<str>>) -> usize {
    // Two counters stand before the text.
    text.map_or(0, |text| of_bytes(text.len() + 2 * size_of::<usize>()))
}

/// A tree, without what its items own: nodes have room for eleven, and six are in each where they came in order. The first stays.
pub(crate) fn of_tree<K, V>(tree: &BTreeMap<K, V>) -> usize {
    of_bytes(11 * size_of::<(K, V)>()) * (tree.len() / 6 + 1)
}

/// Bytes of a hash table: an item and a byte of its hash for each bucket, of which seven eighths may be in use.
pub(crate) fn of_map<K, V, S>(map: &HashMap<K, V, S>) -> usize {
    map.capacity() / 7 * 8 * (size_of::<(K, V)>() + 1)
}
