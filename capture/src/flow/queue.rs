//! Many queues of slots: intrusive doubly linked lists over one array of links, eight bytes a slot.
//!
//! A slot is in at most one queue. The ends of a queue point to the queue itself (a number with the top bit set), so a
//! slot is taken out without knowing where it is.

use super::blocks::Blocks;

/// No slot and no queue.
const NONE: u32 = u32::MAX;
/// Numbers from here on are queues.
const QUEUE: u32 = 1 << 31;

/// First and last slot of a queue; both are [`NONE`] if it is empty.
#[derive(Debug, Clone, Copy)]
struct Queue {
    first: u32,
    last: u32,
}

/// Neighbours of a slot: slots, or the queue that ends there, or [`NONE`].
#[derive(Debug, Clone, Copy)]
struct Link {
    previous: u32,
    next: u32,
}

const UNLINKED: Link = Link { previous: NONE, next: NONE };

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Queues {
    queues: Box<[Queue]>,
    links: Blocks<Link>,
}

impl Queues {
    pub(super) fn new(count: usize) -> Self {
        Self { queues: vec![Queue { first: NONE, last: NONE }; count].into(), links: Blocks::new() }
    }

    /// The slot at the front.
    pub(super) fn first(&self, queue: usize) -> Option<u32> {
        self.queues.get(queue).map(|queue| queue.first).filter(|first| *first != NONE)
    }

    /// The slot at the end.
    pub(super) fn last(&self, queue: usize) -> Option<u32> {
        self.queues.get(queue).map(|queue| queue.last).filter(|last| *last != NONE)
    }

    /// The slot behind one in its queue.
    pub(super) fn after(&self, slot: u32) -> Option<u32> {
        self.links.get(slot).map(|link| link.next).filter(|next| next & QUEUE == 0)
    }

    /// Puts a slot at the end of a queue, out of the one it was in.
    pub(super) fn push(&mut self, queue: usize, slot: u32) {
        self.remove(slot);
        while self.links.len() <= slot {
            self.links.push(UNLINKED);
        }
        let Some(ends) = self.queues.get_mut(queue) else { return };
        let own = QUEUE | queue as u32;
        let last = std::mem::replace(&mut ends.last, slot);
        let previous = if let Some(link) = self.links.get_mut(last) {
            link.next = slot;
            last
        } else {
            ends.first = slot;
            own
        };
        if let Some(link) = self.links.get_mut(slot) {
            *link = Link { previous, next: own };
        }
    }

    /// Takes a slot out of its queue, if it is in one.
    pub(super) fn remove(&mut self, slot: u32) {
        let Some(link) = self.links.get_mut(slot) else { return };
        let Link { previous, next } = std::mem::replace(link, UNLINKED);
        if previous == NONE {
            return;
        }
        // A neighbour that is a queue means that the slot was at that end of it.
        let number = |end: u32| (end & !QUEUE) as usize;
        match self.links.get_mut(previous) {
            Some(link) => link.next = next,
            None => {
                if let Some(queue) = self.queues.get_mut(number(previous)) {
                    queue.first = if next & QUEUE == 0 { next } else { NONE };
                }
            }
        }
        match self.links.get_mut(next) {
            Some(link) => link.previous = previous,
            None => {
                if let Some(queue) = self.queues.get_mut(number(next)) {
                    queue.last = if previous & QUEUE == 0 { previous } else { NONE };
                }
            }
        }
    }

    /// Bytes by which it grows with a slot of this number, the next one.
    pub(super) fn growth(&self, slot: u32) -> usize {
        if self.links.len() <= slot { self.links.growth() } else { 0 }
    }

    /// Bytes of memory held.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.queues) + self.links.memory_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_vectors(actions in prop::collection::vec((0_u32..12, 0_usize..3), 1..200)) {
            let mut queues = Queues::new(2);
            let mut model: [Vec<u32>; 2] = Default::default();
            for (slot, action) in actions {
                for queue in &mut model {
                    queue.retain(|entry| *entry != slot);
                }
                match model.get_mut(action) {
                    Some(queue) => { queue.push(slot); queues.push(action, slot) }
                    None => queues.remove(slot),
                }
                for (queue, expected) in model.iter().enumerate() {
                    prop_assert_eq!(queues.first(queue), expected.first().copied());
                    prop_assert_eq!(queues.queues[queue].last, expected.last().copied().unwrap_or(NONE));
                }
            }
        }
    }
}
