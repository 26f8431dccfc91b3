//! Which resets end a connection: not those that the receiver drops, which are counted, and that is all.
//!
//! It drops what is out of its window (RFC 9293, 3.10.7.4), where that is known, and a number below what it acknowledged.
//! What the capture missed moves the window, so one window on either side of the next number that is awaited, or of the
//! next to be sent, will do. Before the receiver said anything but SYN its window is not looked at, but then a reset must
//! acknowledge that SYN (RFC 9293, 3.10.7.3).
//!
//! Of a number in the window that is not the next one the receiver asks (RFC 5961, 3.2), and the connection lives. Which
//! number it awaits shows only afterwards: by this question, or by an acknowledgement of what it sent later, for who
//! resets a connection has none any more. Then the reset ended nothing.

use super::{Progress, TcpFlow};
use crate::decode::{Tcp, flags};
use crate::flow::key::End;
use crate::flow::trouble::Reset;

impl TcpFlow {
    /// Resets may carry any number. The payload is a diagnostic (RFC 9293, 3.5.3).
    pub(super) fn track_reset(&mut self, from: End, segment: &Tcp<'_>) -> Progress {
        self.trouble(from).counts.resets += 1;
        if !self.is_reset_by(from, segment) {
            return Progress::default();
        }
        if self.roles.reset_by.is_none() && !self.closed_by_fins() {
            self.roles.reset_by = Some(from);
            let (next, sent) = (self.end(from).span.next, self.end(from.other()).sent_up_to());
            let ahead = segment.seq.wrapping_sub(next);
            let ahead = self.end(from).is_seen() && ahead > 0 && ahead < 1 << 31;
            self.trouble.get_or_insert_default().reset = Some(Reset { number: segment.seq, ahead, sent });
        }
        if segment.payload_len == 0 {
            return Progress::default();
        }
        let end = &mut self.ends[from.index()];
        let holes = &mut self.trouble.get_or_insert_default().ends[from.index()].holes;
        let parts = end.observe(holes, segment.seq, segment.payload_len);
        Progress { fresh: parts.fresh, late: parts.late, again: 0 }
    }

    /// Whether a reset ends the connection, see the module documentation.
    fn is_reset_by(&self, from: End, segment: &Tcp<'_>) -> bool {
        let (sender, receiver) = (self.end(from), self.end(from.other()));
        let (next, awaited) = (sender.is_seen().then_some(sender.span.next), receiver.acknowledged());
        if !receiver.spoke() {
            let only_asked = self.roles.opener == Some(from.other()) && next.is_none() && awaited.is_none();
            return !only_asked || segment.flags & flags::ACK != 0;
        }
        let seq = segment.seq;
        // Behind a FIN some (macOS) repeat its number, and are understood.
        let lowest = awaited.map(|awaited| awaited.wrapping_sub(u32::from(sender.finished())));
        if lowest.is_some_and(|lowest| seq.wrapping_sub(lowest) >= 1 << 31) {
            return false;
        }
        let window = receiver.window_now(sender, (self.scales.get(from.other()), self.scales.get(from)));
        let near = |number: u32| seq.wrapping_sub(number).wrapping_add(window) <= 2 * window;
        let unknown = next.is_none() && awaited.is_none();
        unknown || next.is_some_and(near) || awaited.is_some_and(near)
    }

    /// What follows a reset may show that it was dropped.
    #[cold]
    pub(super) fn track_after_reset(&mut self, from: End, segment: &Tcp<'_>, reset: Reset) {
        let is_behind = |number: u32, other: u32| (1..1 << 31).contains(&other.wrapping_sub(number));
        let lives = if self.roles.reset_by == Some(from) {
            self.end(from).acknowledged().is_some_and(|ack| is_behind(reset.sent, ack))
        } else {
            let asks = segment.payload_len == 0 && segment.flags & (flags::ACK | flags::FIN) == flags::ACK;
            reset.ahead && asks && is_behind(segment.ack, reset.number)
        };
        if lives {
            self.roles.reset_by = None;
            if let Some(trouble) = &mut self.trouble {
                trouble.reset = None;
            }
        }
    }
}
