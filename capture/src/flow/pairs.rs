//! The two directions of a flow in tunnels whose ids differ by direction.
//!
//! The receiver chooses a TEID (3GPP TS 29.281) and a PPTP call id; GRE keys are set for each direction; routed packets
//! carry the VNI of where they go (RFC 9135). So a packet without a flow joins the flow of the same kind of tunnels,
//! addresses and ports whose other end alone has spoken, whatever its id; from then on its id is that of the way back.
//! Packets in the same direction with different ids are different flows.
//!
//! Flows without tunnels cost nothing here. There are at most three entries for a flow.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::key::{End, Key};

/// See the module documentation.
#[derive(Default)]
pub(super) struct Pairs {
    /// By key without id: the last flow that began, and the end that began it.
    begun: HashMap<Key, (u32, End), RandomState>,
    /// By key with the id of the way back.
    ways_back: HashMap<Key, u32, RandomState>,
    /// The same, by flow.
    by_slot: HashMap<u32, Key, RandomState>,
}

impl Pairs {
    /// A flow began with a packet from `end`.
    pub(super) fn begin(&mut self, key: &Key, slot: u32, end: End) {
        if let Some(bare) = key.without_tunnel_id() {
            self.begun.insert(bare, (slot, end));
        }
    }

    /// The flow whose way back this is.
    pub(super) fn find(&self, key: &Key) -> Option<u32> {
        self.ways_back.get(key).copied()
    }

    /// A flow that a packet from `end` may answer.
    pub(super) fn unanswered(&self, key: &Key, end: End) -> Option<u32> {
        let (slot, begun_by) = *self.begun.get(&key.without_tunnel_id()?)?;
        (begun_by != end && !self.by_slot.contains_key(&slot)).then_some(slot)
    }

    /// `key` is that of the way back of a flow.
    pub(super) fn join(&mut self, key: Key, slot: u32) {
        self.ways_back.insert(key, slot);
        self.by_slot.insert(slot, key);
    }

    /// The flow ended.
    pub(super) fn end(&mut self, key: &Key, slot: u32) {
        let Some(bare) = key.without_tunnel_id() else { return };
        if self.begun.get(&bare).is_some_and(|begun| begun.0 == slot) {
            self.begun.remove(&bare);
        }
        if let Some(way_back) = self.by_slot.remove(&slot) {
            self.ways_back.remove(&way_back);
        }
    }
}
