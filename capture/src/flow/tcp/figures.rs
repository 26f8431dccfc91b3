//! What a slice of a connection says of its ends.

use super::TcpFlow;
use crate::flow::key::End;
use crate::flow::sequence::Holes;
use crate::flow::trouble::EndTrouble;
use crate::record::Side;

impl TcpFlow {
    /// SYNs after the first with its number, in the slice.
    pub(in crate::flow) fn syn_retries(&self) -> u32 {
        self.trouble.as_ref().map_or(0, |trouble| trouble.syn_retries)
    }

    /// Writes the figures of one end in the slice that ended at `end_of_slice`.
    pub(in crate::flow) fn figures(&self, end: End, (end_of_slice, last): (i64, bool), side: &mut Side) {
        let (own, other) = (self.end(end), self.end(end.other()));
        let none = EndTrouble::default();
        let trouble = self.trouble.as_ref().map_or(&none, |trouble| &trouble.ends[end.index()]);
        let counts = &trouble.counts;
        side.packets_missed = self.missed(end, last);
        side.tcp_flags = Some(own.flags);
        side.retransmits = Some(counts.retransmits);
        side.retransmit_bytes = Some(counts.retransmit_bytes);
        side.fast_retransmits = Some(counts.fast);
        side.timeout_retransmits = Some(counts.timeout);
        side.spurious_retransmits = Some(counts.spurious);
        side.out_of_order = Some(counts.out_of_order);
        side.keep_alives = Some(counts.keep_alives);
        side.capture_duplicates = Some(counts.capture_duplicates);
        side.duplicate_acks = Some(counts.duplicate_acks);
        side.zero_windows = Some(counts.zero_windows);
        side.zero_window_us = Some(trouble.zero_window(end_of_slice) / 1000);
        side.resets = Some(counts.resets);
        side.mss = own.mss();
        let scales = (self.scales.get(end), self.scales.get(end.other()));
        side.window_scale = scales.0;
        side.window_max = own.window_max(other, scales);
        // What the other end's data took to be acknowledged by this one.
        if let Some((mean, greatest)) = other.round_trips.figures() {
            (side.rtt_avg_us, side.rtt_max_us) = (Some(mean), Some(greatest));
        }
    }

    /// Segments of this end's that the capture missed in the slice; `last` says that the flow is over. `None` if only
    /// one end was seen.
    pub(in crate::flow) fn missed(&self, end: End, last: bool) -> Option<u32> {
        let (own, other) = (self.end(end), self.end(end.other()));
        let acknowledged = other.acknowledged().filter(|_| own.is_seen())?;
        let next = last.then_some(own.sent_up_to());
        Some(match &self.trouble {
            Some(trouble) => trouble.ends[end.index()].holes.missed(next),
            None if next.is_none_or(|next| next == acknowledged) => 0,
            None => Holes::none(Some(acknowledged), own.usual_segment(other)).missed(next),
        })
    }

    /// What was acknowledged behind all that was seen is a hole from now on: it will not be seen any more.
    pub(in crate::flow) fn fall_silent(&mut self) {
        for end in [End::Low, End::High] {
            let (own, other) = (self.end(end), self.end(end.other()));
            let behind = |ack: u32| (1..1 << 31).contains(&ack.wrapping_sub(own.sent_up_to()));
            let Some(ack) = other.acknowledged().filter(|ack| own.is_seen() && behind(*ack)) else { continue };
            let from = own.sent_up_to();
            let trouble = self.trouble.get_or_insert_default();
            trouble.ends[end.index()].holes.remember(from, ack);
        }
    }

    /// Brings the holes up to the last acknowledgements.
    pub(in crate::flow) fn settle_holes(&mut self) {
        let [low, high] = &self.ends;
        if let Some(trouble) = &mut self.trouble {
            for (trouble, (own, other)) in trouble.ends.iter_mut().zip([(low, high), (high, low)]) {
                trouble.holes.settle(own, other);
            }
        }
    }
}
