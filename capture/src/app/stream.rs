//! One direction of a TCP connection as the bytes that its application sent: in order, each once, without copying where
//! segments arrive in order.
//!
//! Invariants:
//! * what arrives early is kept within the limits of [`early`](super::early); nothing is kept of what the reader steps over anyway
//!   ([`Reader::indifferent`]);
//! * what was seen before is dropped;
//! * what never comes, or was cut by the snap length, is a [`Reader::gap`]: as soon as the other end acknowledges it
//!   (RFC 9293, 3.4: then it was received, and only the capture missed it), or when no more can be kept;
//! * payload further ahead than [`MAX_AHEAD`] is garbage if it is alone, and what a capture sees after a long loss if the next
//!   segment continues it, or the other end acknowledges it;
//! * what was kept behind a gap has the time at which it passed; what waited for bytes that came, that of these.
//!
//! A direction begins at its SYN, else at the first payload that is seen. Sequence numbers wrap; all comparisons are
//! distances from the next byte. The payload of resets is a diagnostic (RFC 9293, 3.5.3), not part of the stream.

use super::early::{Early, Queue};
use crate::decode::{Tcp, flags};
use crate::memory;

/// Payload further ahead than this is not believed at once.
const MAX_AHEAD: u32 = 1 << 24;

/// Who reads the stream.
pub(crate) trait Reader {
    /// The next bytes.
    fn bytes(&mut self, bytes: &[u8]);

    /// That many bytes were not captured.
    fn gap(&mut self, length: u32);

    /// How many of the next bytes make no difference to the reader.
    fn indifferent(&self) -> u64;

    /// When what is handed on passed.
    fn time(&self) -> i64;

    /// What follows passed at another time.
    fn at(&mut self, time: i64);

    /// Steps over that many bytes if nothing comes of it but a count: the short way through a body.
    fn skip(&mut self, _length: u32) -> bool {
        false
    }
}

/// What kept segments waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waited {
    /// Bytes that came now.
    ForBytes,
    /// Bytes that never come.
    ForNothing,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// Number of the next byte.
    next: Option<u32>,
    /// Boxed because nearly all streams never have one.
    early: Option<Box<Queue>>,
}

impl Stream {
    /// A stream whose first byte is known.
    pub(crate) const fn starting_at(next: Option<u32>) -> Self {
        Self { next, early: None }
    }

    /// Hands what the segment brings to the reader; whether anything may have come of it.
    #[inline]
    pub(crate) fn segment(&mut self, segment: &Tcp<'_>, reader: &mut impl Reader) -> bool {
        let length = segment.payload_len;
        let mut seq = segment.seq;
        if segment.flags & flags::SYN != 0 {
            seq = seq.wrapping_add(1);
            self.next.get_or_insert(seq);
        }
        if length == 0 || segment.flags & flags::RST != 0 {
            if segment.flags & flags::FIN != 0 && self.next == Some(seq) {
                self.next = Some(seq.wrapping_add(1));
            }
            return false;
        }
        let bytes = segment.payload.get(..length as usize).unwrap_or(segment.payload);
        if *self.next.get_or_insert(seq) == seq && self.early.is_none() {
            self.next = Some(seq.wrapping_add(length));
            if reader.skip(length) {
                return false;
            }
            hand_on(bytes, length, reader);
        } else {
            self.place(seq, length, bytes, reader);
        }
        true
    }

    /// A segment of the other end acknowledged what came before its number. An acknowledgement alone may have overtaken the
    /// payload on its way to the capture; an answer has not. Whether
    /// anything may have come of it.
    #[inline]
    pub(crate) fn acknowledged(&mut self, answer: &Tcp<'_>, reader: &mut impl Reader) -> bool {
        if (self.early.is_some() || answer.payload_len > 0)
            && answer.flags & (flags::ACK | flags::RST) == flags::ACK
            && self.next.is_some_and(|next| (1..1 << 31).contains(&answer.ack.wrapping_sub(next)))
        {
            return self.close_acknowledged(answer.ack, reader);
        }
        false
    }

    /// Bytes of memory owned beside the structure itself.
    pub(crate) fn owned_bytes(&self) -> usize {
        self.early.as_ref().map_or(0, |early| memory::of_box::<Queue>() + early.owned_bytes())
    }

    /// Whether nothing is kept.
    pub(crate) fn is_even(&self) -> bool {
        self.early.is_none()
    }

    /// Nothing more comes: what is kept is handed on.
    pub(crate) fn flush(&mut self, reader: &mut impl Reader) {
        while self.early.is_some() {
            self.step_over(reader);
        }
    }

    /// Forgets what is kept.
    pub(crate) fn clear(&mut self) {
        self.early = None;
    }

    /// Goes on where the other end is; whether that can be.
    fn close_acknowledged(&mut self, ack: u32, reader: &mut impl Reader) -> bool {
        let is_acknowledged = |far: &Early| ack.wrapping_sub(far.end()) <= MAX_AHEAD;
        let far = self.early.as_mut().and_then(|early| early.far.take_if(|far| is_acknowledged(far)));
        let is_near = self.next.is_some_and(|next| ack.wrapping_sub(next) <= MAX_AHEAD);
        if far.is_none() && !is_near {
            return false;
        }
        if let Some(far) = far {
            self.go_on_at(&far, reader);
        }
        while let Some(next) = self.next
            && (1..=MAX_AHEAD).contains(&ack.wrapping_sub(next))
        {
            let first = self.early.as_ref().and_then(|early| early.first());
            if first.is_some_and(|first| ack.wrapping_sub(first.seq) < 1 << 31) {
                self.step_over(reader);
            } else {
                reader.gap(ack.wrapping_sub(next));
                self.next = Some(ack);
                self.deliver_early(Waited::ForNothing, reader);
            }
        }
        true
    }

    fn place(&mut self, seq: u32, length: u32, bytes: &[u8], reader: &mut impl Reader) {
        let Some(next) = self.next else { return };
        let ahead = seq.wrapping_sub(next);
        if ahead == 0 || ahead >= 1 << 31 || u64::from(ahead) <= reader.indifferent() {
            self.deliver(seq, length, bytes, reader);
            self.deliver_early(Waited::ForBytes, reader);
        } else if ahead <= MAX_AHEAD {
            self.keep(next, Early { seq, length, time: reader.time(), bytes: bytes.into() }, reader);
        } else if let Some(far) = self.early.as_mut().and_then(|early| early.far.take_if(|far| far.end() == seq)) {
            let now = reader.time();
            self.go_on_at(&far, reader);
            reader.at(now);
            self.deliver(seq, length, bytes, reader);
        } else {
            let far = Early { seq, length, time: reader.time(), bytes: bytes.into() };
            self.early.get_or_insert_default().far = Some(far);
        }
    }

    /// Goes on after a long loss; what waits for bytes before it is given up.
    fn go_on_at(&mut self, far: &Early, reader: &mut impl Reader) {
        self.flush(reader);
        reader.at(far.time);
        self.deliver(far.seq, far.length, &far.bytes, reader);
    }

    /// Hands on what is new of a segment, and a gap before it.
    fn deliver(&mut self, seq: u32, length: u32, bytes: &[u8], reader: &mut impl Reader) {
        let Some(next) = self.next else { return };
        let ahead = seq.wrapping_sub(next);
        if ahead < 1 << 31 {
            if ahead > 0 {
                reader.gap(ahead);
            }
            self.next = Some(seq.wrapping_add(length));
            hand_on(bytes, length, reader);
            return;
        }
        let repeated = next.wrapping_sub(seq);
        if repeated < length {
            self.next = Some(seq.wrapping_add(length));
            hand_on(bytes.get(repeated as usize..).unwrap_or_default(), length - repeated, reader);
        }
    }

    fn keep(&mut self, next: u32, segment: Early, reader: &mut impl Reader) {
        let now = reader.time();
        self.early.get_or_insert_default().add(next, segment);
        while self.early.as_ref().is_some_and(|early| early.is_overdue(now)) {
            self.step_over(reader);
        }
    }

    /// Gives up what is missing before the first segment that is kept.
    fn step_over(&mut self, reader: &mut impl Reader) {
        let Some(first) = self.early.as_mut().and_then(|early| early.take_first()) else {
            self.early = None;
            return;
        };
        reader.at(first.time);
        self.deliver(first.seq, first.length, &first.bytes, reader);
        self.deliver_early(Waited::ForNothing, reader);
    }

    /// Hands on the kept segments whose turn has come.
    fn deliver_early(&mut self, waited: Waited, reader: &mut impl Reader) {
        while let Some(next) = self.next
            && let Some(early) = &mut self.early
        {
            let ahead = early.first().map_or(0, |first| first.seq.wrapping_sub(next));
            if ahead < 1 << 31 && u64::from(ahead) > reader.indifferent() {
                return;
            }
            match early.take_first() {
                Some(first) => {
                    if waited == Waited::ForNothing {
                        reader.at(reader.time().max(first.time));
                    }
                    self.deliver(first.seq, first.length, &first.bytes, reader);
                }
                None => self.early = None,
            }
        }
    }
}

/// Captured bytes, then what the snap length cut.
#[inline]
fn hand_on(bytes: &[u8], length: u32, reader: &mut impl Reader) {
    if !bytes.is_empty() {
        reader.bytes(bytes);
    }
    let cut = length.saturating_sub(bytes.len() as u32);
    if cut > 0 {
        reader.gap(cut);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::early::{MAX_BYTES, MAX_SEGMENTS, PATIENCE};
    use super::*;

    /// What came, gaps as dots.
    #[derive(Default)]
    struct Log {
        text: Vec<u8>,
        indifferent: u64,
        time: i64,
    }

    impl Reader for Log {
        fn bytes(&mut self, bytes: &[u8]) {
            self.text.extend_from_slice(bytes);
        }

        fn gap(&mut self, length: u32) {
            self.text.extend(std::iter::repeat_n(b'.', length as usize));
        }

        fn indifferent(&self) -> u64 {
            self.indifferent.saturating_sub(self.text.len() as u64)
        }

        fn time(&self) -> i64 {
            self.time
        }

        fn at(&mut self, time: i64) {
            self.time = time;
        }
    }

    fn tcp(seq: u32, payload: &[u8], payload_len: u32) -> Tcp<'_> {
        Tcp { seq, ack: 0, flags: flags::ACK, window: 1, options: &[], options_len: 0, payload, payload_len }
    }

    fn play(segments: &[(u32, &str)]) -> (Stream, Log) {
        let (mut stream, mut log) = (Stream::default(), Log::default());
        for (seq, text) in segments {
            stream.segment(&tcp(*seq, text.as_bytes(), text.len() as u32), &mut log);
        }
        (stream, log)
    }

    #[test]
    fn early_segments_wait_and_repeated_bytes_are_dropped() {
        let base = u32::MAX - 2;
        let at = |offset: u32| base.wrapping_add(offset);
        let (stream, log) = play(&[(at(0), "ab"), (at(4), "ef"), (at(0), "ab"), (at(1), "bcde"), (at(6), "g")]);
        assert_eq!(log.text, b"abcdefg");
        assert!(stream.early.is_none());
    }

    #[test]
    fn what_the_other_end_acknowledged_was_missed_by_the_capture() {
        let (mut stream, mut log) = play(&[(0, "ab"), (4, "ef"), (8, "ij")]);
        assert_eq!(log.text, b"ab");
        stream.acknowledged(&Tcp { ack: 2, ..tcp(0, b"", 0) }, &mut log);
        assert_eq!(log.text, b"ab");
        stream.acknowledged(&Tcp { ack: 6, ..tcp(0, b"", 0) }, &mut log);
        assert_eq!(log.text, b"ab..ef");
        stream.acknowledged(&Tcp { ack: 10, ..tcp(0, b"", 0) }, &mut log);
        assert_eq!(log.text, b"ab..ef..ij");
        // Alone it may have overtaken the payload; an answer has not.
        stream.acknowledged(&Tcp { ack: 12, ..tcp(0, b"", 0) }, &mut log);
        assert_eq!(log.text, b"ab..ef..ij");
        stream.acknowledged(&Tcp { ack: 12, ..tcp(0, b"x", 1) }, &mut log);
        assert_eq!(log.text, b"ab..ef..ij..");
    }

    #[test]
    fn a_segment_cut_by_the_snap_length_has_a_gap_at_its_end() {
        let (mut stream, mut log) = (Stream::default(), Log::default());
        stream.segment(&tcp(5, b"abc", 10), &mut log);
        stream.segment(&tcp(15, b"d", 1), &mut log);
        assert_eq!(log.text, b"abc.......d");
    }

    #[test]
    fn nothing_is_kept_of_what_makes_no_difference() {
        let (mut stream, mut log) = (Stream::default(), Log { indifferent: 9, ..Log::default() });
        stream.segment(&tcp(0, b"ab", 2), &mut log);
        stream.segment(&tcp(8, b"ijkl", 4), &mut log);
        assert_eq!(log.text, b"ab......ijkl");
        assert!(stream.early.is_none());
        stream.segment(&tcp(20, b"x", 1), &mut log);
        assert!(stream.early.is_some());
    }

    #[test]
    fn a_window_is_kept_and_then_the_gap_is_given_up() {
        let (mut stream, mut log) = (Stream::default(), Log::default());
        stream.segment(&tcp(0, b"a", 1), &mut log);
        for offset in (3..).step_by(2).take(MAX_SEGMENTS) {
            stream.segment(&tcp(offset, b"x", 1), &mut log);
        }
        assert_eq!(log.text, b"a");
        stream.segment(&tcp(5000, b"x", 1), &mut log);
        assert_eq!(log.text, b"a..x");
        let large = vec![b'y'; 60_000];
        for offset in 0..8 {
            stream.segment(&tcp(10_000 + offset * 60_000, &large, 60_000), &mut log);
            assert!(stream.owned_bytes() <= MAX_BYTES + 64 * 1024, "{}", stream.owned_bytes());
        }
        assert!(!log.text.contains(&b'y') && !stream.is_even());
        stream.segment(&tcp(490_000, &large, 60_000), &mut log);
        assert!(log.text.len() == 550_000 && stream.is_even());
        stream.segment(&tcp(600_000, b"z", 1), &mut log);
        stream.flush(&mut log);
        assert!(log.text.ends_with(b".z") && stream.is_even());
    }

    #[test]
    fn what_is_far_ahead_is_believed_if_it_goes_on_there() {
        const FAR: u32 = MAX_AHEAD + 10;
        let far = [(0, "ab"), (4, "ef"), (FAR, "x")];
        // Alone, again, and elsewhere it is garbage.
        let (stream, log) =
            play(&[&far[..], &[(FAR, "x"), (2 * FAR, "y"), (FAR + 1, "z"), (2, "cd"), (6, "g")]].concat());
        assert!(log.text == b"abcdefg" && stream.is_even());
        let is_after_loss = |log: &Log, text: &[u8]| {
            let length = FAR as usize + text.len();
            log.text.len() == length && log.text.starts_with(b"ab..ef.") && log.text.ends_with(text)
        };
        let (stream, log) = play(&[&far[..], &[(FAR + 1, "y"), (FAR + 2, "z")]].concat());
        assert!(stream.is_even() && is_after_loss(&log, b"xyz"));
        // Acknowledged, here with a FIN; and not, as it came before.
        for (ack, believed) in [(FAR + 1, true), (FAR + 2, true), (FAR, false), (5 * FAR, false)] {
            let (mut stream, mut log) = play(&far);
            stream.acknowledged(&Tcp { ack, ..tcp(0, b"", 0) }, &mut log);
            assert_eq!(log.text.contains(&b'x'), believed, "{ack}");
            assert!(!believed || is_after_loss(&log, if ack == FAR + 1 { b"x" } else { b"x." }));
        }
    }

    #[test]
    fn what_nobody_acknowledges_is_not_waited_for_for_long() {
        let (mut stream, mut log) = play(&[(0, "ab"), (4, "ef")]);
        log.time = PATIENCE;
        stream.segment(&tcp(8, b"ij", 2), &mut log);
        assert_eq!(log.text, b"ab");
        log.time = PATIENCE + 1;
        stream.segment(&tcp(10, b"k", 1), &mut log);
        assert_eq!((&log.text[..], log.time), (&b"ab..ef"[..], 0));
    }

    proptest! {
        #[test]
        fn any_order_gives_the_same_bytes(
            base: u32,
            order in Just((0_usize..7).collect::<Vec<_>>()).prop_shuffle(),
            again in prop::collection::vec(0_usize..7, 0..4),
        ) {
            let text: Vec<u8> = (0..70).collect();
            let mut stream = Stream::starting_at(Some(base));
            let mut log = Log::default();
            for part in order.into_iter().chain(again) {
                let bytes = &text[part * 10..part * 10 + 10];
                stream.segment(&tcp(base.wrapping_add(part as u32 * 10), bytes, 10), &mut log);
            }
            prop_assert_eq!(log.text, text);
            prop_assert!(stream.early.is_none());
        }

        #[test]
        fn any_segments_are_survived_within_bounds(
            segments in prop::collection::vec((0_u32..400, 0_u32..60, 0_u32..60, any::<u8>(), 0_u32..400), 1..80),
        ) {
            let (mut stream, mut log) = (Stream::default(), Log::default());
            for (seq, captured, cut, flags, ack) in segments {
                let payload = vec![1; captured as usize];
                stream.segment(&Tcp { flags, ..tcp(seq, &payload, captured + cut) }, &mut log);
                stream.acknowledged(&Tcp { ack, ..tcp(0, b"x", 1) }, &mut log);
                prop_assert!(stream.early.as_ref().is_none_or(|early| early.first().is_some()));
            }
            // No byte twice: sequence numbers below 520 were sent, and their SYNs.
            prop_assert!(log.text.len() <= 521);
        }
    }
}
