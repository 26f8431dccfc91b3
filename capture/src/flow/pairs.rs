//! The two directions of a flow in tunnels whose ids differ by direction.
//!
//! The receiver chooses a TEID (3GPP TS 29.281) and a PPTP call id; GRE keys are set for each direction; routed packets
//! carry the VNI of where they go (RFC 9135). So a packet without a flow joins the flow of the same kind of tunnels,
//! addresses and ports whose other end alone has spoken, whatever its id; from then on its id is that of the way back.
//! Packets in the same direction with different ids are different flows.
//!
//! Where networks with the same addresses have one id for both directions each, packets of one may answer those of the
//! other. They were no pair once an end sends with the id that both directions of a flow would share: the other end with
//! the flow's own id, or the end that began the flow with that of its way back. Then they part, and each goes on as the
//! flow of its own id; what came until then stays where it was counted. Limit: networks that each have one direction
//! only look like a pair, and stay one.
//!
//! Flows without tunnels cost nothing here. There are at most three entries for a flow.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::Engine;
use super::key::{End, Key};
use crate::memory::of_map;

/// See the module documentation.
#[derive(Default)]
pub(super) struct Pairs {
    /// By key without id: the last flow that began, and the end that began it.
    begun: HashMap<Key, (u32, End), RandomState>,
    /// By key with the id of the way back: the flow, and the end that answers.
    ways_back: HashMap<Key, (u32, End), RandomState>,
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

    /// The flow whose way back this is, and the end that takes it.
    pub(super) fn find(&self, key: &Key) -> Option<(u32, End)> {
        self.ways_back.get(key).copied()
    }

    /// A flow that a packet from `end` may answer.
    pub(super) fn unanswered(&self, key: &Key, end: End) -> Option<u32> {
        let (slot, begun_by) = *self.begun.get(&key.without_tunnel_id()?)?;
        (begun_by != end && !self.by_slot.contains_key(&slot)).then_some(slot)
    }

    /// `key` is that of the way back of a flow, from `end`.
    pub(super) fn join(&mut self, key: Key, slot: u32, end: End) {
        self.ways_back.insert(key, (slot, end));
        self.by_slot.insert(slot, key);
    }

    /// It was not.
    fn part(&mut self, key: &Key) {
        if let Some((slot, _)) = self.ways_back.remove(key) {
            self.by_slot.remove(&slot);
        }
    }

    /// Bytes of memory held.
    pub(super) fn memory_bytes(&self) -> usize {
        of_map(&self.begun) + of_map(&self.ways_back) + of_map(&self.by_slot)
    }

    /// Bytes by which it grows with a flow of this key.
    pub(super) fn growth(&self, key: &Key) -> usize {
        let grows = key.without_tunnel_id().is_some() && self.begun.len() == self.begun.capacity();
        if grows { of_map(&self.begun) } else { 0 }
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

impl Engine {
    /// The flow of a packet from `end` with this key, which may be on its way back.
    pub(super) fn find(&self, key: &Key, end: End) -> Option<u32> {
        let way_back = || self.pairs.find(key).filter(|(_, answers)| *answers == end).map(|(slot, _)| slot);
        self.table.find(self.table.hash(key), key).or_else(way_back)
    }

    /// The flow of a packet of `sender`'s that an error quotes. The key has the id that the error came with, which is
    /// that of the way back, and may be the first one there.
    pub(super) fn find_quoted(&self, key: &Key, sender: End) -> Option<u32> {
        let way_back = || self.pairs.find(key).map(|(slot, _)| slot);
        let unanswered = || {
            let slot = self.pairs.unanswered(key, sender.other())?;
            self.table.get(slot).is_some_and(|flow| !flow.has_sent(sender.other())).then_some(slot)
        };
        self.table.find(self.table.hash(key), key).or_else(way_back).or_else(unanswered)
    }

    /// The flow of a tunnelled packet whose id no flow has: see the module documentation.
    #[cold]
    pub(super) fn find_pair(&mut self, key: &Key, end: End) -> Option<u32> {
        if let Some((slot, answers)) = self.pairs.find(key) {
            if answers == end && self.table.get(slot).is_some_and(|flow| flow.is_joined(end)) {
                return Some(slot);
            }
            self.pairs.part(key);
        }
        let slot = self.pairs.unanswered(key, end)?;
        let flow = self.table.get_mut(slot).filter(|flow| !flow.has_sent(end))?;
        flow.join(end);
        self.pairs.join(*key, slot, end);
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Decoded, Transport};
    use crate::record::{Protocol, Tunnel, TunnelKind, TunnelStack};

    fn key(id: Option<u32>) -> Key {
        let (src, dst) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let stack = TunnelStack::default().with(TunnelKind::Gtpu);
        let mut decoded = Decoded::new(src, dst, Protocol::UDP, Transport::Other { payload_len: 0 });
        decoded.tunnel = Some(Tunnel { stack, id, src, dst });
        Key::new(&decoded, 1).0
    }

    #[test]
    fn the_way_back_is_found_until_the_flow_ends() {
        let mut pairs = Pairs::default();
        pairs.begin(&key(Some(5)), 1, End::Low);
        assert_eq!(pairs.unanswered(&key(Some(9)), End::Low), None, "the same direction is another flow");
        assert_eq!(pairs.unanswered(&key(Some(9)), End::High), Some(1));
        pairs.join(key(Some(9)), 1, End::High);
        assert_eq!(pairs.find(&key(Some(9))), Some((1, End::High)));
        assert_eq!(pairs.unanswered(&key(Some(8)), End::High), None, "answered");
        pairs.end(&key(Some(5)), 1);
        assert_eq!((pairs.begun.len(), pairs.ways_back.len(), pairs.by_slot.len()), (0, 0, 0));
    }

    #[test]
    fn flows_without_ids_leave_nothing() {
        let mut pairs = Pairs::default();
        pairs.begin(&key(None), 1, End::Low);
        assert_eq!(pairs.begun.len(), 0);
    }
}
