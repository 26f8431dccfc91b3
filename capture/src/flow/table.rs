//! Where flows live: a hash table from key to slot, slots in blocks that never move, and the two timers' queues.
//!
//! Nothing depends on the order of the hash table, whose seed is random (keys come from the wire).

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::config::{CLOSED_LINGER, CLOSING_TIMEOUT, DNS_IDLE_TIMEOUT, FlowConfig};
use super::key::Key;
use super::queue::Queues;
use super::slice::Flow;

/// Flows in a block of memory.
const BLOCK: usize = 1024;

/// Which idle timeout a flow has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// A TCP connection that is not closed.
    Tcp = 0,
    /// UDP.
    Udp = 1,
    /// Other protocols.
    Other = 2,
    /// DNS over UDP with all queries answered.
    Answered = 3,
    /// A TCP connection that is closed, and both ends know.
    Closed = 4,
    /// A TCP connection that is closed, but a FIN was not acknowledged.
    Closing = 5,
}

const CLASSES: usize = 6;

/// What is due next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// The flow was idle for too long.
    Idle(u32),
    /// The slice lasted too long.
    Active(u32),
}

/// Key's hash and slot; the hash saves a look at the flow when they differ, and when the table grows.
#[derive(Debug)]
struct Entry {
    hash: u64,
    slot: u32,
}

/// See the module documentation.
pub(super) struct Table {
    seed: RandomState,
    index: HashTable<Entry>,
    blocks: Vec<Vec<Option<Flow>>>,
    free: Vec<u32>,
    idle: Queues<CLASSES>,
    active: Queues<1>,
    idle_timeouts: [i64; CLASSES],
    active_timeout: i64,
    /// Nothing is due before.
    next_due: i64,
}

impl Table {
    pub(super) fn new(config: &FlowConfig) -> Self {
        let udp = config.udp_idle_timeout;
        let tcp = config.tcp_idle_timeout;
        let other = config.other_idle_timeout;
        Self {
            seed: RandomState::default(),
            index: HashTable::new(),
            blocks: Vec::new(),
            free: Vec::new(),
            idle: Queues::new(),
            active: Queues::new(),
            idle_timeouts: [
                tcp,
                udp,
                other,
                udp.min(DNS_IDLE_TIMEOUT),
                tcp.min(CLOSED_LINGER),
                tcp.min(CLOSING_TIMEOUT),
            ],
            active_timeout: config.active_timeout,
            next_due: i64::MAX,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn hash(&self, key: &Key) -> u64 {
        key.hash(&self.seed)
    }

    pub(super) fn find(&self, hash: u64, key: &Key) -> Option<u32> {
        let same = |entry: &Entry| entry.hash == hash && self.get(entry.slot).is_some_and(|flow| flow.key == *key);
        self.index.find(hash, same).map(|entry| entry.slot)
    }

    fn get(&self, slot: u32) -> Option<&Flow> {
        let slot = slot as usize;
        self.blocks.get(slot / BLOCK)?.get(slot % BLOCK)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Flow> {
        let slot = slot as usize;
        self.blocks.get_mut(slot / BLOCK)?.get_mut(slot % BLOCK)?.as_mut()
    }

    /// Adds a flow whose key is not in the table.
    pub(super) fn insert(&mut self, hash: u64, flow: Flow) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| self.new_slot());
        if let Some(place) = self.blocks.get_mut(slot as usize / BLOCK).and_then(|b| b.get_mut(slot as usize % BLOCK)) {
            *place = Some(flow);
        }
        self.index.insert_unique(hash, Entry { hash, slot }, |entry| entry.hash);
        slot
    }

    /// One past the last slot; only when all others are taken.
    fn new_slot(&mut self) -> u32 {
        if self.blocks.last().is_none_or(|block| block.len() == BLOCK) {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        let full = (self.blocks.len() - 1) * BLOCK;
        let Some(block) = self.blocks.last_mut() else { return 0 };
        block.push(None);
        (full + block.len() - 1) as u32
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Flow> {
        let flow = self.blocks.get_mut(slot as usize / BLOCK)?.get_mut(slot as usize % BLOCK)?.take()?;
        let hash = self.hash(&flow.key);
        if let Ok(entry) = self.index.find_entry(hash, |entry| entry.slot == slot) {
            entry.remove();
        }
        self.idle.remove(slot);
        self.active.remove(slot);
        self.free.push(slot);
        Some(flow)
    }

    /// The flow was active at `clock`.
    pub(super) fn touch(&mut self, slot: u32, class: Class, clock: i64) {
        let class = class as usize;
        self.idle.push(class, slot, clock);
        self.next_due = self.next_due.min(clock.saturating_add(self.idle_timeouts[class]));
    }

    /// A slice of the flow began at `clock`.
    pub(super) fn begin_slice(&mut self, slot: u32, clock: i64) {
        self.active.push(0, slot, clock);
        self.next_due = self.next_due.min(clock.saturating_add(self.active_timeout));
    }

    /// The slice is not timed any more.
    pub(super) fn end_slice(&mut self, slot: u32) {
        self.active.remove(slot);
    }

    /// When the slice that is timed began.
    pub(super) fn slice_began(&self, slot: u32) -> Option<i64> {
        self.active.stamp(slot)
    }

    /// The earliest deadline if it is not after `now`. A flow that is idle for too long at the very moment when its slice
    /// lasted too long is idle.
    #[inline]
    pub(super) fn due(&mut self, now: i64) -> Option<Due> {
        if now < self.next_due { None } else { self.find_due(now) }
    }

    fn find_due(&mut self, now: i64) -> Option<Due> {
        let mut earliest = (i64::MAX, None);
        for (class, timeout) in self.idle_timeouts.iter().enumerate() {
            if let Some((slot, stamp)) = self.idle.first(class) {
                let deadline = stamp.saturating_add(*timeout);
                if deadline < earliest.0 {
                    earliest = (deadline, Some(Due::Idle(slot)));
                }
            }
        }
        if let Some((slot, stamp)) = self.active.first(0) {
            let deadline = stamp.saturating_add(self.active_timeout);
            if deadline < earliest.0 {
                earliest = (deadline, Some(Due::Active(slot)));
            }
        }
        self.next_due = earliest.0;
        earliest.1.filter(|_| earliest.0 <= now)
    }

    /// The flow that was quiet for the longest time.
    pub(super) fn least_recent(&self) -> Option<u32> {
        let firsts = (0..CLASSES).filter_map(|class| self.idle.first(class));
        firsts.min_by_key(|(_, stamp)| *stamp).map(|(slot, _)| slot)
    }

    /// All slots that hold a flow.
    pub(super) fn slots(&self) -> Vec<u32> {
        let slots = self.blocks.iter().flatten().zip(0..);
        slots.filter_map(|(flow, slot)| flow.is_some().then_some(slot)).collect()
    }
}
