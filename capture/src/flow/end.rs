//! One end of a TCP connection: what every segment touches, in one cache line.

use super::moment::Moment;
use super::options::Options;
use super::rtt::RoundTrips;
use super::sequence::{Holes, MAX_JUMP, Parts, Span};
use crate::decode::{Tcp, flags};

/// A segment was seen: the span holds.
const SEEN: u8 = 1;
/// The SYN was seen: its number is the first of the span.
const OPENED: u8 = 2;
/// Something was acknowledged.
const ACKNOWLEDGED: u8 = 4;
/// A segment other than SYN and RST was sent.
const SPOKE: u8 = 8;
/// A FIN was sent.
const FINISHED: u8 = 16;
/// The SYN's options are not all there: what is not found in them may have been sent.
const CUT: u8 = 32;
/// The next byte was sent into a closed window: it is not known whether it was taken.
const PROBED: u8 = 64;

/// Segment size that every host accepts (RFC 9293, 3.7.1).
const DEFAULT_SEGMENT: u32 = 536;

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct TcpEnd {
    /// Sequence numbers sent.
    pub(super) span: Span,
    /// Greatest number acknowledged.
    ack: u32,
    /// When the last segment with sequence space was sent.
    pub(super) last_sent: Moment,
    /// Of the data that this end sends: the other's half.
    pub(super) round_trips: RoundTrips,
    /// Window of the last segment.
    window: u16,
    /// Greatest windows in the slice, as in the header: of SYNs, and of other segments.
    window_syn: u16,
    window_max: u16,
    mss: u16,
    /// Longest payload.
    largest: u16,
    marks: u8,
    /// TCP flags in the slice.
    pub(super) flags: u8,
}

impl TcpEnd {
    fn is(&self, mark: u8) -> bool {
        self.marks & mark != 0
    }

    pub(super) fn is_seen(&self) -> bool {
        self.is(SEEN)
    }

    pub(super) fn spoke(&self) -> bool {
        self.is(SPOKE)
    }

    pub(super) fn finished(&self) -> bool {
        self.is(FINISHED)
    }

    /// Sequence number of the SYN.
    pub(super) fn isn(&self) -> Option<u32> {
        self.is(OPENED).then_some(self.span.first)
    }

    pub(super) fn acknowledged(&self) -> Option<u32> {
        self.is(ACKNOWLEDGED).then_some(self.ack)
    }

    /// MSS option.
    pub(super) fn mss(&self) -> Option<u16> {
        Some(self.mss).filter(|mss| *mss != 0)
    }

    /// Greatest window offered in the slice, bytes; windows of SYNs are never scaled (RFC 7323, 2.2).
    pub(super) fn window_max(&self, other: &Self, scales: (Option<u8>, Option<u8>)) -> Option<u32> {
        let of_syn = u32::from(self.window_syn);
        let offered = match self.window_shift(other, scales) {
            Some(shift) => u32::from(self.window_max) << shift,
            None if self.window_max > 0 => return None,
            None => 0,
        };
        // A closed window is one that was offered, too.
        let any = self.flags & !flags::RST != 0;
        any.then_some(offered.max(of_syn))
    }

    /// It is known how to scale windows if both SYNs were seen, or one without the option.
    fn window_shift(&self, other: &Self, scales: (Option<u8>, Option<u8>)) -> Option<u8> {
        let said_all = |end: &Self| end.marks & (OPENED | CUT) == OPENED;
        match scales {
            (Some(scale), Some(_)) => Some(scale),
            (None, _) if said_all(self) => Some(0),
            (_, None) if said_all(other) => Some(0),
            (_, _) => None,
        }
    }

    /// Bytes that this end may take beyond the next: what it offered last or most, at least 64 KiB, at most 2³⁰.
    pub(super) fn window_now(&self, other: &Self, scales: (Option<u8>, Option<u8>)) -> u32 {
        let shift = self.window_shift(other, scales).unwrap_or(14);
        (u32::from(self.window.max(self.window_max)) << shift.min(14)).max(1 << 16)
    }

    /// Usual length of this end's segments, bytes: the longest payload, but not of a frame that offload will cut at what
    /// the other end accepts; while only short ones were seen, what the other end accepts.
    pub(super) fn usual_segment(&self, other: &Self) -> u32 {
        let (longest, mss) = (u32::from(self.largest), u32::from(other.mss));
        match mss {
            0 => longest.max(DEFAULT_SEGMENT),
            mss if longest >= mss / 2 => longest.min(mss),
            mss => mss,
        }
    }

    /// Takes the options of a SYN.
    pub(super) fn learn(&mut self, syn: &Tcp<'_>, options: &Options) {
        self.mss = options.mss.unwrap_or(self.mss);
        if syn.options.len() < usize::from(syn.options_len) {
            self.marks |= CUT;
        }
    }

    /// Whether a segment looks like a keep-alive, see the definition in [`super::tcp`].
    #[inline]
    pub(super) fn is_like_keep_alive(&self, segment: &Tcp<'_>) -> bool {
        segment.payload_len <= 1
            && segment.seq.wrapping_add(1) == self.span.next
            && segment.flags & (flags::SYN | flags::FIN | flags::RST) == 0
            && self.is_seen()
    }

    /// Takes the other end's acknowledgement of one byte where nothing was seen but the number before: midstream that was a
    /// keep-alive, whose byte is an old one.
    #[inline]
    pub(super) fn begin_behind_keep_alive(&mut self, ack: u32) {
        let Span { first, next } = self.span;
        if first == next && next.wrapping_add(1) == ack && self.marks & (SEEN | OPENED) == SEEN {
            self.span = Span::begin(ack, 0);
        }
    }

    /// Whether the other end may have everything that this one sent: it acknowledged that, or said nothing.
    pub(super) fn may_be_idle(&self, other: &Self) -> bool {
        other.acknowledged().is_none_or(|ack| ack.wrapping_sub(self.span.next) < 1 << 31)
    }

    /// Whether a segment is of an older connection on the same ports, this end's SYN being without answer so far: the other
    /// end's last FIN again, or its protest that it has a connection already (RFC 5961, 4), acknowledges something else and
    /// is dropped, but for a reset with the number that it asked for (RFC 9293, 3.10.7.3); the SYN is sent again.
    #[cold]
    pub(super) fn is_stale(&self, is_own: bool, segment: &Tcp<'_>) -> bool {
        let Some(isn) = self.isn() else { return false };
        let is_ours = |number: u32| number.wrapping_sub(isn) <= MAX_JUMP;
        match (segment.flags & flags::RST != 0, segment.flags & (flags::SYN | flags::ACK)) {
            (true, 0) if is_own => !is_ours(segment.seq),
            (_, flags::ACK) if !is_own => !is_ours(segment.ack),
            (true | false, _) => false,
        }
    }

    /// Whether an acknowledgement is not far beyond the last one: its data may be what the capture misses.
    #[cold]
    pub(super) fn goes_on_with(&self, ack: u32) -> bool {
        self.acknowledged().is_some_and(|last| ack.wrapping_sub(last) <= MAX_JUMP)
    }

    /// Takes an acknowledgement; whether it advances.
    #[inline]
    pub(super) fn acknowledge(&mut self, ack: u32) -> bool {
        let step = ack.wrapping_sub(self.ack);
        if self.is(ACKNOWLEDGED) && (step == 0 || step >= 1 << 31) {
            return false;
        }
        self.ack = ack;
        self.marks |= ACKNOWLEDGED;
        true
    }

    /// Whether an acknowledgement that does not advance is a duplicate, see [`super::tcp`]; `selects` says that it selects
    /// something new.
    pub(super) fn repeats_ack(&self, segment: &Tcp<'_>, other: &Self, selects: bool) -> bool {
        let outstanding = other.span.next.wrapping_sub(segment.ack);
        segment.ack == self.ack
            && segment.payload_len == 0
            && segment.flags & (flags::SYN | flags::FIN) == 0
            && segment.window != 0
            && (selects || segment.window == self.window)
            && other.is_seen()
            && outstanding > 0
            && outstanding < 1 << 31
    }

    /// Takes the window of a segment other than RST.
    #[inline]
    pub(super) fn offer(&mut self, window: u16, is_syn: bool) {
        self.window = window;
        if is_syn {
            self.window_syn = self.window_syn.max(window);
        } else {
            self.window_max = self.window_max.max(window);
            self.marks |= SPOKE;
        }
    }

    /// Whether a segment continues what was seen.
    #[inline]
    pub(super) fn is_next(&self, seq: u32) -> bool {
        self.is_seen() && seq == self.span.next
    }

    pub(super) fn is_behind(&self, seq: u32) -> bool {
        self.is_seen() && seq.wrapping_sub(self.span.next) >= 1 << 31
    }

    /// Whether its last window was closed.
    pub(super) fn is_full(&self) -> bool {
        self.window == 0 && self.spoke()
    }

    /// Takes a probe of a closed window with the next byte (RFC 9293, 3.8.6.1): the byte stays the next one.
    #[cold]
    pub(super) fn probe(&mut self) {
        self.marks |= PROBED;
    }

    /// The number after all that was sent, probes included.
    pub(super) fn sent_up_to(&self) -> u32 {
        self.span.next.wrapping_add(u32::from(self.is(PROBED)))
    }

    /// Whether a segment with this number shows that the byte of a probe was taken, which then was sent.
    pub(super) fn goes_on_after_probe(&mut self, seq: u32) -> bool {
        let taken = self.is(PROBED) && self.span.next.wrapping_add(1) == seq;
        if taken {
            self.advance(1);
        }
        taken
    }

    /// Whether payload that ends here and was not seen before is the foremost: of what comes behind it the numbers of
    /// segments without payload are all that was seen.
    pub(super) fn is_foremost(&self, holes: &Holes, end: u32) -> bool {
        holes.last_has(end, self.span.next.wrapping_sub(u32::from(self.finished())))
    }

    /// New data in order.
    #[inline]
    pub(super) fn advance(&mut self, length: u32) {
        self.span.next = self.span.next.wrapping_add(length);
        self.marks &= !PROBED;
        self.measure(length);
        // Midstream the span's beginning must not be taken for something ahead one day.
        if !self.is(OPENED) {
            self.span.trim();
        }
    }

    /// Takes the length of a payload.
    #[inline]
    pub(super) fn measure(&mut self, length: u32) {
        self.largest = self.largest.max(u16::try_from(length).unwrap_or(u16::MAX));
    }

    /// Sequence space anywhere.
    pub(super) fn observe(&mut self, holes: &mut Holes, seq: u32, length: u32) -> Parts {
        if self.is_seen() {
            let parts = self.span.observe(holes, seq, length, self.is(OPENED));
            if parts.fresh > 0 {
                self.marks &= !PROBED;
            }
            return parts;
        }
        self.marks |= SEEN;
        self.span = Span::begin(seq, length);
        Parts { fresh: length, ..Parts::default() }
    }

    pub(super) fn observe_syn(&mut self, holes: &mut Holes, seq: u32) -> Parts {
        let parts = self.observe(holes, seq, 1);
        if !self.is(OPENED) {
            self.span.first = seq;
            self.marks |= OPENED;
        }
        parts
    }

    /// Its SYN goes out with another number.
    #[cold]
    pub(super) fn renumber(&mut self, seq: u32) {
        self.span = Span::begin(seq, 0);
    }

    /// What it acknowledged before the other end's SYN was seen, if that is not of the SYN's number (some send zero).
    pub(super) fn forget_foreign(&mut self, isn: u32) {
        if self.acknowledged().is_some_and(|ack| ack.wrapping_sub(isn) > MAX_JUMP) {
            self.forget_acknowledged();
        }
    }

    /// What it acknowledged was of another number.
    #[cold]
    pub(super) fn forget_acknowledged(&mut self) {
        self.marks &= !ACKNOWLEDGED;
    }

    pub(super) fn observe_fin(&mut self, holes: &mut Holes, seq: u32) -> Parts {
        self.marks |= FINISHED;
        self.observe(holes, seq, 1)
    }

    /// Begins the next slice.
    pub(super) fn restart(&mut self) {
        (self.flags, self.window_syn, self.window_max) = (0, 0, 0);
        self.round_trips.restart();
    }
}
