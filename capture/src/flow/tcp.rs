//! TCP per flow: sequence space, acknowledgements, windows, close.
//!
//! A segment that brings new data in order, or acknowledges some, touches this structure only; what else may happen is
//! in [`super::trouble`]. Definitions:
//! * *keep-alive*: one old byte or none just before the next number, without SYN, FIN or RST (RFC 9293, 3.8.4); neither
//!   it nor its answer is a retransmission or a duplicate acknowledgement. Where the capture begins with one its byte was sent
//!   before, which its answer shows. A byte that was not seen before, or that the other
//!   end did not acknowledge so far, is none: a connection is idle when it is asked whether it lives;
//! * *probe*: the next byte alone while the receiver's window is closed (RFC 9293, 3.8.6.1): nothing of all this, and new
//!   once what follows shows that it was taken;
//! * *duplicate acknowledgement* (RFC 5681, 2): no data, SYN or FIN; the greatest number acknowledged so far and the
//!   window of the last segment again, while data is outstanding; with a closed window it answers a probe and is none. If it
//!   acknowledges selectively what the last one did not, its window may be another (RFC 6675, 2): Linux' grows meanwhile;
//! * *missed*: holes that the other side acknowledged, see [`super::sequence`].
//!
//! Figures belong to the slice and restart with it; everything else carries on to the next.

mod figures;
mod reset;
mod state;

use super::duplicates::{Arrival, Recent};
use super::end::TcpEnd;
use super::handshake::{Handshake, Rtt};
use super::key::End;
use super::moment::Moment;
use super::options::{Options, Range};
use super::sequence::{Holes, MAX_JUMP, Parts};
use super::trouble::{EndTrouble, Repetition, Trouble};
use crate::decode::{Tcp, flags};
use crate::memory;
use crate::record::OrientedBy;

/// Payload bytes that a segment added to its direction.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    /// At the front, or with no payload seen behind them.
    pub(super) fresh: u32,
    /// In other holes.
    pub(super) late: u32,
    /// Of a datagram that the capture delivered before: it counts, and tells nothing.
    pub(super) again: u32,
}

/// A connection.
#[derive(Debug, Default)]
pub(super) struct TcpFlow {
    pub(super) ends: [TcpEnd; 2],
    pub(super) rtt: Rtt,
    recent: Recent,
    handshake: Option<Box<Handshake>>,
    pub(super) trouble: Option<Box<Trouble>>,
    scales: Scales,
    roles: Roles,
}

/// Window scale options by `End`, four bits each: zero is none, else one more than the shift count, which is at most 14.
#[derive(Debug, Clone, Copy, Default)]
struct Scales(u8);

impl Scales {
    fn get(self, end: End) -> Option<u8> {
        (self.0 >> (4 * end.index()) & 0x0f).checked_sub(1)
    }

    fn set(&mut self, end: End, scale: Option<u8>) {
        if self.get(end).is_none() {
            self.0 |= scale.map_or(0, |scale| scale.min(14) + 1) << (4 * end.index());
        }
    }
}

/// Who did what first.
#[derive(Debug, Clone, Copy, Default)]
struct Roles {
    /// Sent a SYN (without ACK).
    opener: Option<End>,
    /// Answered with a SYN-ACK.
    answerer: Option<End>,
    /// Reset the connection before it was closed, as far as is known.
    reset_by: Option<End>,
}

impl TcpFlow {
    fn end(&self, end: End) -> &TcpEnd {
        &self.ends[end.index()]
    }

    /// The end's trouble, from now on if there was none.
    #[cold]
    fn trouble(&mut self, end: End) -> &mut EndTrouble {
        &mut self.trouble.get_or_insert_default().ends[end.index()]
    }

    /// Whether this segment opens a new connection on the same addresses and ports.
    #[inline]
    pub(super) fn is_reopened_by(&self, from: End, segment: &Tcp<'_>) -> bool {
        segment.flags & (flags::SYN | flags::RST) == flags::SYN && self.is_another_syn(from, segment)
    }

    fn is_another_syn(&self, from: End, segment: &Tcp<'_>) -> bool {
        let (sender, receiver) = (self.end(from), self.end(from.other()));
        let answers = segment.flags & flags::ACK != 0;
        if answers && receiver.isn().is_some_and(|isn| segment.ack == isn.wrapping_add(1)) {
            return false;
        }
        match sender.isn() {
            // A server that chooses another number for the same SYN (SYN cookies) is still the same attempt, unless it went
            // on from there: where the SYN is not captured, nothing else tells.
            Some(isn) => isn != segment.seq && (!answers || self.closed().is_some() || sender.spoke()),
            // Midstream so far: a late SYN fits in front of what was seen; a crossing SYN meets a SYN.
            None if sender.is_seen() => sender.span.first != segment.seq.wrapping_add(1),
            None if answers || receiver.isn().is_some() => false,
            None => receiver.spoke() && receiver.acknowledged() != Some(segment.seq.wrapping_add(1)),
        }
    }

    /// Whether a segment is of an older connection on the same ports, see [`TcpEnd::is_stale`].
    fn is_stale(&self, from: End, segment: &Tcp<'_>) -> bool {
        let Some(opener) = self.roles.opener else { return false };
        let answered = self.end(opener).spoke() || self.end(opener.other()).is_seen();
        !answered && self.end(opener).is_stale(from == opener, segment)
    }

    /// Counts a segment; the payload bytes that are new.
    pub(super) fn track(&mut self, from: End, time: i64, segment: &Tcp<'_>, arrival: Arrival<'_>) -> Progress {
        let options = Options::parse(segment.options);
        let is_copy = match self.trouble.as_deref_mut().and_then(|trouble| trouble.earlier.as_deref_mut()) {
            Some(earlier) => self.recent.is_copy_of_any(earlier, (from, segment), &options, arrival),
            None => self.recent.is_copy(None, (from, segment), &options, arrival),
        };
        if is_copy {
            self.track_copy(from, segment);
            return Progress::default();
        }
        let bits = segment.flags;
        self.ends[from.index()].flags |= bits;
        if self.handshake.is_some() && self.is_stale(from, segment) {
            if bits & flags::RST != 0 {
                self.trouble(from).counts.resets += 1;
            }
            return Progress::default();
        }
        if bits & flags::RST != 0 {
            return self.track_reset(from, segment);
        }
        if bits & flags::SYN != 0 {
            self.track_syn(from, time, segment, &options);
        } else if self.handshake.is_some() {
            self.track_handshake_ack(from, time, segment, &options);
        }
        let keep_alive = self.end(from).is_like_keep_alive(segment) && self.is_keep_alive(from, segment);
        if bits & flags::ACK != 0 {
            self.track_ack(from, time, segment, &options, keep_alive);
        }
        self.track_window(from, time, segment);
        if keep_alive {
            self.trouble(from).counts.keep_alives += 1;
            return Progress::default();
        }
        self.track_space(from, time, segment, &options)
    }

    /// A copy counts as a packet, and as one with a closed window; it tells nothing new.
    fn track_copy(&mut self, from: End, segment: &Tcp<'_>) {
        let closed = segment.window == 0 && segment.flags & (flags::SYN | flags::RST) == 0;
        let trouble = self.trouble.get_or_insert_default();
        trouble.earlier.get_or_insert_default();
        let counts = &mut trouble.ends[from.index()].counts;
        counts.capture_duplicates += 1;
        counts.zero_windows += u32::from(closed);
    }

    fn track_syn(&mut self, from: End, time: i64, segment: &Tcp<'_>, options: &Options) {
        let first = self.end(from).isn().is_none();
        if first {
            let (own, other) = pair(&mut self.ends, from);
            own.learn(segment, options);
            other.forget_foreign(segment.seq);
            self.scales.set(from, options.scale);
        }
        if segment.flags & flags::ACK != 0 {
            if !first && self.is_unsaid(from) && self.end(from).isn() != Some(segment.seq) {
                self.renumber(from, segment.seq);
            }
            if self.roles.answerer.is_none() {
                self.roles.answerer = Some(from);
                // Without the SYN the client's half can still be measured.
                if self.roles.opener.is_none() {
                    self.handshake.get_or_insert_default();
                }
            }
            if let Some(handshake) = &mut self.handshake
                && self.roles.opener != Some(from)
            {
                let complete = handshake.syn_ack(time, segment.seq, options);
                self.rtt.server = handshake.server_rtt();
                if let Some(rtt) = complete {
                    (self.rtt, self.handshake) = (rtt, None);
                }
            }
            return;
        }
        if !first {
            self.trouble.get_or_insert_default().syn_retries += 1;
        }
        match self.roles.opener {
            None => {
                self.roles.opener = Some(from);
                // Captured after its answer, it joins the handshake that the answer began.
                if self.roles.answerer.is_none() {
                    self.handshake = Some(Box::default());
                }
            }
            // Crossing SYNs: no half is a round trip.
            Some(opener) if opener != from => self.handshake = None,
            Some(_) => {}
        }
        if let Some(handshake) = &mut self.handshake {
            handshake.syn(time, options);
        }
    }

    /// Whether this end sent nothing but SYNs so far.
    pub(super) fn is_unsaid(&self, end: End) -> bool {
        !self.end(end).spoke()
    }

    /// A server that forgot its SYN-ACK (SYN cookies) answers the SYN again with another number: that one counts.
    #[cold]
    fn renumber(&mut self, from: End, seq: u32) {
        let (own, other) = pair(&mut self.ends, from);
        // What the other end agreed to holds; this is an old one that came late.
        if own.isn().is_some_and(|isn| other.acknowledged() == Some(isn.wrapping_add(1))) {
            return;
        }
        own.renumber(seq);
        other.forget_acknowledged();
        if let Some(trouble) = &mut self.trouble {
            trouble.ends[from.index()].holes = Holes::default();
        }
    }

    fn track_handshake_ack(&mut self, from: End, time: i64, segment: &Tcp<'_>, options: &Options) {
        let client = self.roles.opener.or(self.roles.answerer.map(End::other));
        let handshake = self.handshake.as_mut().filter(|_| client == Some(from));
        if let Some(rtt) = handshake.and_then(|handshake| handshake.client_ack(time, segment, options)) {
            self.rtt = rtt;
            self.handshake = None;
        }
    }

    fn track_ack(&mut self, from: End, time: i64, segment: &Tcp<'_>, options: &Options, keep_alive: bool) {
        let (own, other) = pair(&mut self.ends, from);
        // Far beyond what was sent, and what was acknowledged so far: not of this connection.
        let ahead = segment.ack.wrapping_sub(other.span.next);
        if other.is_seen() && ahead > MAX_JUMP && ahead < 1 << 31 && !own.goes_on_with(segment.ack) {
            return;
        }
        let advances = own.acknowledge(segment.ack);
        if advances {
            other.begin_behind_keep_alive(segment.ack);
            other.round_trips.acknowledged(time, segment.ack, options.timestamps.map(|(_, echo)| echo));
        }
        let selects = options.sack[0].is_some_and(|block| self.track_sack(from, segment.ack, block, options));
        if advances {
            if let Some(trouble) = &mut self.trouble {
                trouble.ends[from.index()].acknowledged(segment.ack);
            }
        } else if !keep_alive && self.end(from).repeats_ack(segment, self.end(from.other()), selects) {
            self.trouble(from).duplicate_ack(time);
        }
    }

    /// Takes the first block of a selective acknowledgement; whether it selects what the last one did not.
    #[cold]
    fn track_sack(&mut self, from: End, ack: u32, block: Range, options: &Options) -> bool {
        if let Some(range) = options.received_twice(ack) {
            if let Some(trouble) = &mut self.trouble {
                let (own, other) = pair(&mut trouble.ends, from);
                if !own.told(range, ack) {
                    other.received_twice(range);
                }
            }
            return false;
        }
        let (own, other) = (self.end(from), self.end(from.other()));
        // Some firewalls renumber segments and leave the blocks.
        let (begin, end, sent) =
            (block.0.wrapping_sub(ack), block.1.wrapping_sub(ack), other.span.next.wrapping_sub(ack));
        let is_sent = other.is_seen() && begin < end && end <= sent && sent < 1 << 31;
        is_sent && own.acknowledged() == Some(ack) && self.trouble(from).selects(block)
    }

    /// Whether what looks like a keep-alive is one.
    #[cold]
    fn is_keep_alive(&self, from: End, segment: &Tcp<'_>) -> bool {
        let (own, other) = (self.end(from), self.end(from.other()));
        let holes = self.trouble.as_ref().map(|trouble| &trouble.ends[from.index()].holes);
        segment.payload_len == 0 || (own.may_be_idle(other) && holes.is_none_or(|holes| !holes.end_at(own.span.next)))
    }

    fn track_window(&mut self, from: End, time: i64, segment: &Tcp<'_>) {
        let is_syn = segment.flags & flags::SYN != 0;
        self.ends[from.index()].offer(segment.window, is_syn);
        if is_syn {
            return;
        }
        if segment.window == 0 {
            self.trouble(from).window(time, 0);
        } else if let Some(trouble) = &mut self.trouble {
            trouble.ends[from.index()].window(time, segment.window);
            if let Some(reset) = trouble.reset {
                self.track_after_reset(from, segment, reset);
            }
        }
    }

    /// SYN, payload and FIN take their places in sequence space one after the other.
    fn track_space(&mut self, from: End, time: i64, segment: &Tcp<'_>, options: &Options) -> Progress {
        let control = segment.flags & (flags::SYN | flags::FIN);
        let timestamp = options.timestamps.map(|(value, _)| value);
        let end = &mut self.ends[from.index()];
        if control == 0 && end.is_next(segment.seq) {
            let fresh = segment.payload_len;
            if fresh > 0 {
                if self.trouble.is_some() {
                    return self.track_next(from, time, fresh, timestamp);
                }
                end.advance(fresh);
                end.last_sent = Moment::of(time);
                end.round_trips.sent(time, end.span.next, timestamp);
            }
            return Progress { fresh, ..Progress::default() };
        }
        if control == 0 && segment.payload_len == 0 && end.is_behind(segment.seq) {
            return Progress::default();
        }
        self.track_parts(from, time, segment, timestamp)
    }

    /// New data in order where there may be holes, or a closed window to probe.
    #[inline(never)]
    fn track_next(&mut self, from: End, time: i64, fresh: u32, timestamp: Option<u32>) -> Progress {
        let (end, other) = pair(&mut self.ends, from);
        if fresh == 1 && other.is_full() {
            end.probe();
            return Progress::default();
        }
        end.advance(fresh);
        end.last_sent = Moment::of(time);
        let holes = self.trouble.as_mut().map(|trouble| &mut trouble.ends[from.index()].holes);
        let awaits = holes.filter(|holes| !holes.is_empty()).is_some_and(|holes| {
            holes.settle(end, other);
            holes.forget_before(end.span.next);
            holes.are_awaited()
        });
        if !awaits {
            end.round_trips.sent(time, end.span.next, timestamp);
        }
        Progress { fresh, ..Progress::default() }
    }

    /// Anything but new data in order.
    fn track_parts(&mut self, from: End, time: i64, segment: &Tcp<'_>, timestamp: Option<u32>) -> Progress {
        let Tcp { mut seq, flags: bits, payload_len, .. } = *segment;
        let (own, other) = pair(&mut self.ends, from);
        let probed = own.goes_on_after_probe(seq);
        if probed && payload_len == 1 && other.is_full() {
            own.probe();
            return Progress { fresh: 1, ..Progress::default() };
        }
        own.measure(payload_len);
        let receiver = other.acknowledged();
        let mut spare = EndTrouble::default();
        let known = self.trouble.is_some();
        let trouble = match &mut self.trouble {
            Some(trouble) => &mut trouble.ends[from.index()],
            None => &mut spare,
        };
        trouble.holes.settle(own, other);
        let begin = seq;
        let mut control = Parts::default();
        if bits & flags::SYN != 0 {
            let syn = own.observe_syn(&mut trouble.holes, seq);
            (control.old, control.late) = (syn.old, syn.late);
            seq = seq.wrapping_add(1);
        }
        let foremost = own.is_foremost(&trouble.holes, seq.wrapping_add(payload_len));
        let data = own.observe(&mut trouble.holes, seq, payload_len);
        seq = seq.wrapping_add(payload_len);
        if bits & flags::FIN != 0 {
            let fin = own.observe_fin(&mut trouble.holes, seq);
            (control.old, control.late) = (control.old + fin.old, control.late + fin.late);
            seq = seq.wrapping_add(1);
        }
        let (old, late) = (control.old + data.old, control.late + data.late);
        if let Some(ack) = receiver {
            own.begin_behind_keep_alive(ack);
        }
        let last_sent = own.last_sent;
        if seq != begin {
            own.last_sent = Moment::of(time);
        }
        if old > 0 || late > 0 {
            own.round_trips.disturbed(timestamp);
        } else if data.fresh > 0 && !trouble.holes.are_awaited() {
            own.round_trips.sent(time, own.span.next, timestamp);
        }
        if !known && (old > 0 || late > 0 || !trouble.holes.is_empty()) {
            self.trouble.get_or_insert_default().ends[from.index()] = spare;
        }
        if let Some(trouble) = &mut self.trouble {
            let (sender, acknowledger) = pair(&mut trouble.ends, from);
            if old > 0 {
                let range = (begin, seq);
                let old_payload = data.old;
                let repetition = Repetition { time, range, old_payload, last_sent, acknowledged: receiver };
                sender.retransmission(acknowledger, repetition);
            } else if late > 0 {
                sender.counts.out_of_order += 1;
            }
        }
        let (first, late) = if foremost { (data.late, 0) } else { (0, data.late) };
        Progress { fresh: data.fresh + first + u32::from(probed), late, again: 0 }
    }

    /// Number of each end's first payload byte, where its SYN was seen.
    pub(super) fn first_bytes(&self) -> [Option<u32>; 2] {
        [End::Low, End::High].map(|end| self.end(end).isn().map(|isn| isn.wrapping_add(1)))
    }

    /// The client, where SYN or SYN-ACK told.
    #[inline]
    pub(super) fn client(&self) -> Option<(End, OrientedBy)> {
        match (self.roles.opener, self.roles.answerer) {
            (Some(opener), _) => Some((opener, OrientedBy::Syn)),
            (None, Some(answerer)) => Some((answerer.other(), OrientedBy::SynAck)),
            (None, None) => None,
        }
    }

    /// Begins the next slice after `end`: figures restart.
    pub(super) fn restart_counts(&mut self, end: i64) {
        self.ends.iter_mut().for_each(TcpEnd::restart);
        if self.trouble.as_mut().is_some_and(|trouble| trouble.restart(end)) {
            self.trouble = None;
        }
        self.rtt = Rtt::default();
    }

    /// Bytes of memory owned beside the structure itself.
    pub(super) fn owned_bytes(&self) -> usize {
        self.handshake.as_ref().map_or(0, |_| memory::of_box::<Handshake>())
            + self.trouble.as_ref().map_or(0, |trouble| trouble.owned_bytes())
    }
}

/// This end's and the other's.
fn pair<T>(both: &mut [T; 2], from: End) -> (&mut T, &mut T) {
    let [low, high] = both;
    match from {
        End::Low => (low, high),
        End::High => (high, low),
    }
}
