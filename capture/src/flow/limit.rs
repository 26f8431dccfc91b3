//! The limits of the table: so many flows, and so many bytes.
//!
//! Counted is what the engine holds: slots, index and queues of the table, which grow in steps and stay when flows end; what
//! flows own beside their slots (a handshake, missing segments, what parsers of applications keep); the ways back of tunnels;
//! fragments. Each flow is weighed after each of its packets, which costs a few instructions, so the sum is always there. Not
//! counted are records and transactions on their way out, which whoever takes them bounds.
//!
//! Invariants:
//! * the table takes at most three quarters of the memory, so that there is some for what flows own after any flood: then a
//!   new flow takes the slot of the least valuable one. So it does when the others own so much that the table cannot grow;
//!   of equal value are then first those that own something;
//! * when flows own too much, the least valuable of those that own something is evicted until it fits: eviction always frees
//!   memory, and those that own nothing stay;
//! * a packet adds less than 90 kB before that, and one step of the table is always allowed.

use super::key::Key;
use super::moment::Moment;
use super::table::Table;
use super::{Engine, FragmentLimits};
use crate::record::{EndReason, FlowRecord};

/// Who is to be evicted.
type Choice = fn(&mut Table, Moment) -> Option<(u32, super::class::Value)>;

impl Engine {
    /// Bytes of memory held, as they are counted against [`FlowConfig::flow_memory`](super::FlowConfig::flow_memory).
    pub fn memory_bytes(&self) -> usize {
        self.own_bytes() + self.table.owned_bytes() + self.fragments.memory_bytes()
    }

    /// What stays when flows end.
    fn own_bytes(&self) -> usize {
        self.table.own_bytes() + self.pairs.memory_bytes()
    }

    /// Evicts a flow if one must go before another with this key may come.
    pub(super) fn make_room(&mut self, key: &Key, out: &mut Vec<FlowRecord>) {
        let growth = self.table.growth() + self.pairs.growth(key);
        let most = self.config.flow_memory;
        if self.table.len() >= self.config.max_flows.max(1) || (growth > 0 && self.own_bytes() + growth > most / 4 * 3)
        {
            self.evict(Table::least_valuable, out);
        } else if growth > 0 && self.memory_bytes() + growth > most {
            self.evict(Table::least_valuable_heavy, out);
        }
    }

    /// Evicts flows until the memory suffices.
    #[inline]
    pub(super) fn keep_within_memory(&mut self, out: &mut Vec<FlowRecord>) {
        while self.memory_bytes() > self.config.flow_memory && self.evict(Table::least_valuable_owner, out) {}
    }

    /// Evicts a flow; whether there was one.
    #[cold]
    pub(super) fn evict(&mut self, choose: Choice, out: &mut Vec<FlowRecord>) -> bool {
        let Some((slot, value)) = choose(&mut self.table, Moment::of(self.clock)) else { return false };
        if self.table.get(slot).is_some_and(|flow| !flow.is_shadow) {
            self.counters.evict(value.as_str());
        }
        self.end_flow(slot, EndReason::Evicted, out);
        true
    }
}

impl FragmentLimits {
    /// With an eighth of the memory at most.
    pub(super) fn within(self, memory: usize) -> Self {
        Self { bytes: self.bytes.min(memory / 8), ..self }
    }
}
