//! What is open: the records that slices would have if they ended now, so that a crash loses no more than what came since
//! the last look, and so that a search shows what runs.
//!
//! * A walk ends nothing and changes no figure: with or without walks, the records of slices that end are the same.
//! * It goes over the slots of the table in portions of bounded cost, between bursts of packets. It gives each slice that had
//!   a packet since the walk before began; so what no walk has given yet is younger than the time between two walks.
//! * Flows pay no memory for it: whether there was a packet follows from when they were last touched. A slice that is
//!   touched while a walk goes on may be given twice without a change.

use super::Engine;
use super::interfaces::name;
use super::moment::Moment;
use super::slice::Point;
use crate::record::FlowRecord;

/// Slots that are looked at for each record that may be given: most flows of a large table are quiet.
const SLOTS_A_RECORD: usize = 16;

/// How far a walk is.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// The next slot.
    next: u32,
    /// When it began, and when the one before did.
    began: Option<Moment>,
    since: Option<Moment>,
}

impl Engine {
    /// Begins a walk over the slices that are open: those that had a packet since the walk before began, or everything.
    pub fn begin_walk(&mut self, everything: bool) {
        let walk = &mut self.walk;
        let since = walk.began.filter(|_| !everything);
        (walk.next, walk.since, walk.began) = (0, since, Some(Moment::of(self.clock)));
    }

    /// Appends at most `most` records of the slices that the walk is over, without an [`FlowRecord::end_reason`]; whether
    /// there may be more.
    pub fn walk_some(&mut self, most: usize, out: &mut Vec<FlowRecord>) -> bool {
        let now = Moment::of(self.clock);
        let recent = self.walk.since.map(|since| now.since(since));
        let slots = self.table.slot_count();
        let mut left = most;
        for _ in 0..most.saturating_mul(SLOTS_A_RECORD) {
            if left == 0 || self.walk.next >= slots {
                break;
            }
            let slot = self.walk.next;
            self.walk.next += 1;
            let Some(flow) = self.table.get_mut(slot) else { continue };
            if recent.is_some_and(|recent| now.since(flow.touched) > recent) || flow.is_empty() || flow.is_shadow {
                continue;
            }
            let interface = name(&mut self.interfaces, flow.key.interface());
            let point = Point { node: &self.config.node, source: self.config.source, interface };
            flow.record(None, point, out);
            left -= 1;
        }
        self.walk.next < slots
    }
}
