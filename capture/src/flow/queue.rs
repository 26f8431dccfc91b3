//! Slots in order of a time stamp: intrusive doubly linked queues, many over one array of links.
//!
//! Stamps never decrease within a queue because they are the engine's clock at the time of the push; so the first slot of
//! a queue whose slots share one timeout is always the next to expire, and nothing is ever scanned.

/// No slot.
const NONE: u32 = u32::MAX;

/// First and last slot of a queue.
#[derive(Debug, Clone, Copy)]
struct Queue {
    first: u32,
    last: u32,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    previous: u32,
    next: u32,
    stamp: i64,
    /// The queue that holds the slot; `N` if none does.
    queue: u8,
}

/// `N` queues; a slot is in at most one.
#[derive(Debug)]
pub(super) struct Queues<const N: usize> {
    queues: [Queue; N],
    links: Vec<Link>,
}

impl<const N: usize> Queues<N> {
    pub(super) fn new() -> Self {
        Self { queues: [Queue { first: NONE, last: NONE }; N], links: Vec::new() }
    }

    /// The slot that was pushed first, and when.
    pub(super) fn first(&self, queue: usize) -> Option<(u32, i64)> {
        let first = self.queues[queue].first;
        self.links.get(first as usize).map(|link| (first, link.stamp))
    }

    /// The stamp of a slot that is in a queue.
    pub(super) fn stamp(&self, slot: u32) -> Option<i64> {
        self.links.get(slot as usize).filter(|link| usize::from(link.queue) < N).map(|link| link.stamp)
    }

    /// Puts a slot at the end of a queue, out of the one it was in.
    pub(super) fn push(&mut self, queue: usize, slot: u32, stamp: i64) {
        let at = slot as usize;
        if at >= self.links.len() {
            self.links.resize(at + 1, Link { previous: NONE, next: NONE, stamp: 0, queue: N as u8 });
        }
        if self.queues[queue].last == slot {
            self.links[at].stamp = stamp;
            return;
        }
        self.remove(slot);
        let last = std::mem::replace(&mut self.queues[queue].last, slot);
        match self.links.get_mut(last as usize) {
            Some(link) => link.next = slot,
            None => self.queues[queue].first = slot,
        }
        self.links[at] = Link { previous: last, next: NONE, stamp, queue: queue as u8 };
    }

    /// Takes a slot out of its queue, if it is in one.
    pub(super) fn remove(&mut self, slot: u32) {
        let Some(&link) = self.links.get(slot as usize) else { return };
        let Some(queue) = self.queues.get_mut(usize::from(link.queue)) else { return };
        if queue.first == slot {
            queue.first = link.next;
        }
        if queue.last == slot {
            queue.last = link.previous;
        }
        if let Some(previous) = self.links.get_mut(link.previous as usize) {
            previous.next = link.next;
        }
        if let Some(next) = self.links.get_mut(link.next as usize) {
            next.previous = link.previous;
        }
        self.links[slot as usize].queue = N as u8;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_vectors(actions in prop::collection::vec((0_u32..12, 0_usize..3), 1..200)) {
            let mut queues = Queues::<2>::new();
            let mut model: [Vec<(u32, i64)>; 2] = Default::default();
            for (stamp, (slot, action)) in actions.into_iter().enumerate() {
                let stamp = stamp as i64;
                for queue in &mut model {
                    queue.retain(|entry| entry.0 != slot);
                }
                match model.get_mut(action) {
                    Some(queue) => { queue.push((slot, stamp)); queues.push(action, slot, stamp) }
                    None => queues.remove(slot),
                }
                for (queue, expected) in model.iter().enumerate() {
                    prop_assert_eq!(queues.first(queue), expected.first().copied());
                }
            }
        }
    }
}
