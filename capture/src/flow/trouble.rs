//! What goes wrong on a connection: repetitions, holes, closed windows, resets. Kept apart from the connection, as most
//! slices have none of it.
//!
//! A *retransmission* is a segment whose sequence space was seen before in its direction. Of these
//! * *spurious* are those of which everything had been acknowledged when they passed (as Wireshark has it), and those
//!   that the receiver reports as received twice, from the first byte to the last (D-SACK, RFC 2883);
//! * *timeout* are those that come at least 200 ms (Linux's shortest timeout; RFC 6298 recommends a second) after the last
//!   segment of their direction. Tail loss probes (RFC 8985, 7) are among them: Linux waits as long where one segment is in
//!   flight, and nothing tells them apart;
//! * *fast* are others behind which something was selectively acknowledged (RFC 2018) when they passed: what senders recover
//!   by then (RFC 6675, RFC 8985), with fewer than three duplicates and after a partial acknowledgement too. Without that, those
//!   that follow three duplicate acknowledgements (RFC 5681, 3.2) within 200 ms, or two within 20 ms (Wireshark's rule: one may
//!   be missing from the capture). Wireshark's 20 ms alone would lose those whose sender is further away than that.
//!
//! The rest has no kind: what follows a timeout, earlier tail loss probes. A fast one that later proves spurious is both.

use super::duplicates::Earlier;
use super::moment::{Moment, units};
use super::options::Range;
use super::sequence::Holes;
use crate::memory;

/// Figures of one end in the slice.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) retransmits: u32,
    pub(super) fast: u32,
    pub(super) timeout: u32,
    pub(super) spurious: u32,
    pub(super) out_of_order: u32,
    pub(super) keep_alives: u32,
    pub(super) capture_duplicates: u32,
    pub(super) duplicate_acks: u32,
    pub(super) zero_windows: u32,
    pub(super) resets: u32,
    pub(super) retransmit_bytes: u64,
    /// Time with a closed window, ns, without the current one.
    zero_window: i64,
}

/// Duplicate acknowledgements in a row.
#[derive(Debug, Default)]
struct Duplicates {
    count: u32,
    last: i64,
}

/// What an end has of data beyond its acknowledgement.
#[derive(Debug, Clone, Copy)]
struct Selected {
    /// The number after the greatest.
    up_to: u32,
    /// The last one that it told of.
    range: Range,
}

/// Retransmissions remembered, in case the receiver says that it had them.
const REPEATS: usize = 16;

/// Duplicate acknowledgements that ask for a retransmission (RFC 5681).
const ASKING: u32 = 3;
/// Longest time from these to the retransmission, ns.
const ASKED: i64 = 200_000_000;
/// The same if one is missing.
const ASKED_BY_FEWER: i64 = 20_000_000;
/// Shortest retransmission timeout (and wait for a probe), ns.
const TIMEOUT: i64 = 200_000_000;

/// One end's.
#[derive(Debug, Default)]
pub(super) struct EndTrouble {
    pub(super) counts: Counts,
    /// Of the data that this end sends.
    pub(super) holes: Holes,
    /// When this end's window closed.
    zero_since: Option<i64>,
    duplicates: Duplicates,
    selected: Option<Selected>,
    /// Oldest first.
    repeats: Vec<Range>,
}

/// Both ends', by `End`.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    pub(super) ends: [EndTrouble; 2],
    /// SYNs after the first with its number.
    pub(super) syn_retries: u32,
    /// The reset that is taken for the end.
    pub(super) reset: Option<Reset>,
    /// What [`super::duplicates`] remembers since there was a copy.
    pub(super) earlier: Option<Box<Earlier>>,
}

/// A reset, in case that its receiver drops it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reset {
    pub(super) number: u32,
    /// Its number is beyond what was seen of its sender.
    pub(super) ahead: bool,
    /// The number after all that its receiver sent before.
    pub(super) sent: u32,
}

/// A segment that repeats what was seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Repetition {
    pub(super) time: i64,
    pub(super) range: Range,
    /// Payload bytes that were seen before.
    pub(super) old_payload: u32,
    /// When the direction's last segment with sequence space passed.
    pub(super) last_sent: Moment,
    /// The receiver's highest acknowledgement.
    pub(super) acknowledged: Option<u32>,
}

impl EndTrouble {
    /// Counts a retransmission of this end's, which `receiver` gets.
    pub(super) fn retransmission(&mut self, receiver: &Self, repetition: Repetition) {
        let Repetition { time, range, old_payload, last_sent, acknowledged } = repetition;
        self.counts.retransmits += 1;
        self.counts.retransmit_bytes += u64::from(old_payload);
        let reached = |number: u32| acknowledged.is_some_and(|ack| ack.wrapping_sub(number) < 1 << 31);
        if reached(range.1) {
            self.counts.spurious += 1;
            return;
        }
        if Moment::of(time).since(last_sent) >= units(TIMEOUT) {
            self.counts.timeout += 1;
        } else if receiver.has_beyond(range.1) || receiver.asks(time) {
            self.counts.fast += 1;
        }
        if self.repeats.len() >= REPEATS {
            self.repeats.remove(0);
        }
        self.repeats.push(range);
    }

    /// The receiver says that it had this range of this end's data before.
    pub(super) fn received_twice(&mut self, (from, to): Range) {
        let begins = |repeat: &Range| repeat.0 == from && to.wrapping_sub(from) <= repeat.1.wrapping_sub(from);
        let Some(index) = self.repeats.iter().rposition(begins) else { return };
        // Frames that offload cut come as several segments.
        if let Some(repeat) = self.repeats.get_mut(index).filter(|repeat| repeat.1 != to) {
            repeat.0 = to;
        } else {
            self.repeats.remove(index);
            self.counts.spurious += 1;
        }
    }

    /// This end sent a duplicate acknowledgement.
    pub(super) fn duplicate_ack(&mut self, time: i64) {
        self.counts.duplicate_acks += 1;
        self.duplicates.count = self.duplicates.count.saturating_add(1);
        self.duplicates.last = time;
    }

    /// This end's acknowledgement advanced.
    pub(super) fn acknowledged(&mut self, ack: u32) {
        self.duplicates.count = 0;
        self.selected = self.selected.filter(|selected| is_behind(ack, selected.up_to));
    }

    /// Whether its duplicate acknowledgements ask for a retransmission.
    fn asks(&self, time: i64) -> bool {
        let (count, age) = (self.duplicates.count, time.saturating_sub(self.duplicates.last));
        (count >= ASKING && age <= ASKED) || (count + 1 == ASKING && age <= ASKED_BY_FEWER)
    }

    /// This end acknowledged a range selectively; whether the last time it told of another.
    pub(super) fn selects(&mut self, range: Range) -> bool {
        let before = self.selected;
        let greatest = before.map(|before| before.up_to).filter(|up_to| is_behind(range.1, *up_to));
        self.selected = Some(Selected { up_to: greatest.unwrap_or(range.1), range });
        before.is_none_or(|before| before.range != range)
    }

    /// Whether this end tells of the last range again, as it acknowledges it: Linux does so beside a FIN's acknowledgement.
    pub(super) fn told(&self, range: Range, ack: u32) -> bool {
        self.selected.is_some_and(|selected| selected.range == range && !is_behind(ack, range.1))
    }

    /// Whether this end acknowledged something selectively that comes after this number.
    fn has_beyond(&self, number: u32) -> bool {
        self.selected.is_some_and(|selected| is_behind(number, selected.up_to))
    }

    /// This end offers a window.
    pub(super) fn window(&mut self, time: i64, window: u16) {
        match (window, self.zero_since) {
            (0, since) => {
                self.counts.zero_windows += 1;
                self.zero_since = Some(since.unwrap_or(time));
            }
            (_, None) => {}
            (_, Some(since)) => {
                self.counts.zero_window += time.saturating_sub(since).max(0);
                self.zero_since = None;
            }
        }
    }

    /// Time with a closed window in the slice, ns, up to `end`.
    pub(super) fn zero_window(&self, end: i64) -> u64 {
        let current = self.zero_since.map_or(0, |since| end.saturating_sub(since).max(0));
        (self.counts.zero_window + current) as u64
    }

    fn restart(&mut self, end: i64) {
        self.counts = Counts::default();
        self.zero_since = self.zero_since.map(|since| since.max(end));
        self.holes.restart();
    }

    fn owned_bytes(&self) -> usize {
        self.holes.owned_bytes() + memory::of_vec(&self.repeats)
    }

    fn is_over(&self) -> bool {
        self.zero_since.is_none() && self.holes.is_empty() && self.selected.is_none()
    }
}

/// Whether a number comes before another.
fn is_behind(number: u32, other: u32) -> bool {
    (1..1 << 31).contains(&other.wrapping_sub(number))
}

impl Trouble {
    /// Begins the next slice after `end`; whether there is nothing left to remember.
    pub(super) fn restart(&mut self, end: i64) -> bool {
        let copied = self.ends.iter().any(|trouble| trouble.counts.capture_duplicates > 0);
        self.earlier = self.earlier.take().filter(|_| copied);
        self.ends.iter_mut().for_each(|trouble| trouble.restart(end));
        self.syn_retries = 0;
        self.earlier.is_none() && self.ends.iter().all(EndTrouble::is_over)
    }

    pub(super) fn owned_bytes(&self) -> usize {
        let earlier = self.earlier.as_ref().map_or(0, |_| memory::of_box::<Earlier>());
        memory::of_box::<Self>() + earlier + self.ends.iter().map(EndTrouble::owned_bytes).sum::<usize>()
    }
}
