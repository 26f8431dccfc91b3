//! When the packets of slices were.

use std::collections::HashMap;

use super::index::Block;

/// Slices by their flows: a packet is of one if it is not before the slice's first packet, and not after its last.
#[derive(Debug, Default)]
pub struct Slices {
    /// In order of time, and none meets the next.
    times: HashMap<u64, Vec<(i64, i64)>>,
}

impl Slices {
    /// Of flows, each with the times of a slice's first and last packet.
    pub fn new(slices: impl IntoIterator<Item = (u64, (i64, i64))>) -> Self {
        let mut times: HashMap<u64, Vec<(i64, i64)>> = HashMap::new();
        for (flow, slice) in slices {
            times.entry(flow).or_default().push(slice);
        }
        for slices in times.values_mut() {
            slices.sort_unstable();
            slices.dedup_by(|next, before| {
                let meet = next.0 <= before.1;
                if meet {
                    before.1 = before.1.max(next.1);
                }
                meet
            });
        }
        Self { times }
    }

    /// Whether the packet of this time is of a slice.
    pub(super) fn have(&self, flow: u64, time: i64) -> bool {
        self.meet(flow, time, time)
    }

    /// Whether the block may have a packet of a slice.
    pub(super) fn touch(&self, block: &Block) -> bool {
        block.flows.iter().any(|flow| self.meet(*flow, block.first, block.last))
    }

    fn meet(&self, flow: u64, first: i64, last: i64) -> bool {
        let Some(slices) = self.times.get(&flow) else { return false };
        let begun = slices.partition_point(|(start, _)| *start <= last);
        begun.checked_sub(1).and_then(|latest| slices.get(latest)).is_some_and(|(_, end)| *end >= first)
    }
}
