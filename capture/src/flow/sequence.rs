//! Which bytes of one TCP direction were seen: the span from the first to the highest byte, less a few holes.
//!
//! Numbers wrap (RFC 9293, 3.4); all comparisons are distances behind the highest byte seen. Memory is bounded: beyond
//! [`MAX_HOLES`] the oldest hole is forgotten, and what fills it later counts as repeated.
//!
//! A hole that the other side acknowledged holds segments that the capture missed. How many follows from its length and
//! the usual length of a segment, rounded up for each hole.

use super::end::TcpEnd;
use super::options::Range;
use crate::memory;

/// Most holes that are remembered for a direction.
const MAX_HOLES: usize = 256;

/// Holes and the start of the span are forgotten at this distance, well before numbers wrap onto them.
const MEMORY: u32 = 1 << 30;

/// A segment further ahead than this does not move the span: it is garbage, not loss. But payload does with which another segment
/// agrees, no further from it than this: so much may be missed where a capture is too slow.
pub(super) const MAX_JUMP: u32 = 1 << 24;

/// How a range divides into bytes never seen and seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Parts {
    /// New bytes at the front.
    pub(super) fresh: u32,
    /// New bytes that arrived after higher ones.
    pub(super) late: u32,
    /// Bytes seen before.
    pub(super) old: u32,
}

/// First byte, and the one after the highest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span {
    pub(super) first: u32,
    pub(super) next: u32,
}

/// Missing ranges, and what was missing in those that were forgotten.
#[derive(Debug, Default)]
pub(super) struct Holes {
    /// Oldest first.
    ranges: Vec<Range>,
    /// The other side's highest acknowledgement.
    acknowledged: Option<u32>,
    /// Usual length of a segment.
    segment: u32,
    /// The first number seen, if an older one came later. What was sent before is not missed: the capture had not begun.
    begun: Option<u32>,
    /// The end of the last hole that was counted in an earlier slice, and up to where its segments reach.
    counted: Option<Range>,
    /// Segments in acknowledged holes that were forgotten.
    missed: u32,
    /// Payload far ahead, with which no other segment agreed so far.
    far: Option<Range>,
}

impl Holes {
    /// No holes in what a sender of segments of this length sent.
    pub(super) fn none(acknowledged: Option<u32>, segment: u32) -> Self {
        Self { acknowledged, segment, ..Self::default() }
    }

    /// Whether there is nothing to remember.
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.far.is_none()
    }

    /// Takes payload far ahead; the payload of before that agrees with it, if there is some.
    #[cold]
    fn agree(&mut self, seq: u32, length: u32) -> Option<Range> {
        let agrees = |far: &Range| seq.wrapping_sub(far.0).wrapping_add(MAX_JUMP) <= 2 * MAX_JUMP;
        let before = self.far.take().filter(agrees);
        if before.is_none() {
            self.far = Some((seq, seq.wrapping_add(length)));
        }
        before
    }

    /// Brings them up to the receiver's last acknowledgement, and the usual length of a segment.
    pub(super) fn settle(&mut self, sender: &TcpEnd, receiver: &TcpEnd) {
        self.acknowledged = receiver.acknowledged();
        self.segment = sender.usual_segment(receiver);
    }

    /// Whether one reaches up to this number.
    pub(super) fn end_at(&self, number: u32) -> bool {
        self.ranges.last().is_some_and(|(_, to)| *to == number)
    }

    /// Whether the last one reaches from before `end` up to this number.
    pub(super) fn last_has(&self, end: u32, number: u32) -> bool {
        let begins_before = |from: u32| (1..1 << 31).contains(&end.wrapping_sub(from));
        self.ranges.last().is_some_and(|(from, to)| *to == number && begins_before(*from))
    }

    /// Whether the receiver still waits for something in a hole.
    pub(super) fn are_awaited(&self) -> bool {
        let has = |to: u32| self.acknowledged.is_some_and(|ack| ack.wrapping_sub(to) < 1 << 31);
        self.ranges.last().is_some_and(|(_, to)| !has(*to))
    }

    /// Segments that the capture missed: those of holes that the other side acknowledged. What it acknowledged after
    /// `next`, the end of what was seen, is a hole too.
    pub(super) fn missed(&self, next: Option<u32>) -> u32 {
        let mut tail = next.zip(self.acknowledged).filter(|(next, ack)| ack.wrapping_sub(*next) < 1 << 31);
        let mut missed = self.missed;
        for &(from, mut to) in &self.ranges {
            // Only a number without data stands between.
            if let Some((_, end)) = tail.take_if(|(begin, _)| *begin == to) {
                to = end;
            }
            missed = missed.saturating_add(self.segments((from, to)));
        }
        missed.saturating_add(tail.map_or(0, |tail| self.segments(tail)))
    }

    /// Begins the next slice: what was counted is forgotten. For the first bytes of a hole that was acknowledged in part, or
    /// goes on, a segment was counted: it is not counted again for the others.
    pub(super) fn restart(&mut self) {
        (self.missed, self.far) = (0, None);
        let Some(ack) = self.acknowledged else { return };
        let has = |number: u32| ack.wrapping_sub(number) < 1 << 31;
        if let Some(&(from, to)) = self.ranges.iter().rfind(|(from, _)| has(*from)) {
            let bytes = self.segments((from, to)).saturating_mul(self.segment.max(1));
            self.counted = Some((to, self.uncounted((from, to)).wrapping_add(bytes)));
        }
        self.ranges.retain(|(_, to)| !has(*to));
        if let Some((from, _)) = self.ranges.first_mut().filter(|(from, _)| has(*from)) {
            *from = ack;
        }
    }

    pub(super) fn owned_bytes(&self) -> usize {
        memory::of_vec(&self.ranges)
    }

    /// Segments in the acknowledged part of a hole.
    fn segments(&self, (from, to): Range) -> u32 {
        let Some(ack) = self.acknowledged else { return 0 };
        let from = self.uncounted((from, to));
        let acknowledged = ack.wrapping_sub(from);
        if acknowledged >= 1 << 31 {
            return 0;
        }
        acknowledged.min(to.wrapping_sub(from)).div_ceil(self.segment.max(1))
    }

    /// Where in a hole begins what counts, and was not counted so far.
    fn uncounted(&self, (from, to): Range) -> u32 {
        let length = to.wrapping_sub(from);
        let counted = self.counted.filter(|(end, _)| end.wrapping_sub(from) <= length).map(|(_, reached)| reached);
        let before = |number: u32| Some(number.wrapping_sub(from)).filter(|before| *before < 1 << 31);
        let gone = self.begun.and_then(before).max(counted.and_then(before)).unwrap_or(0);
        from.wrapping_add(gone.min(length))
    }

    /// Takes the range out of the holes; the bytes that were missing.
    fn fill(&mut self, next: u32, begin: u32, stop: u32) -> u32 {
        let distance = |number: u32| next.wrapping_sub(number);
        let older = self.ranges.partition_point(|(_, to)| distance(*to) >= begin);
        let (mut filled, mut touched) = (0, older);
        let (mut before, mut after) = (None, None);
        for &(from, to) in self.ranges.get(older..).unwrap_or_default() {
            let (top, bottom) = (begin.min(distance(from)), stop.max(distance(to)));
            if top <= bottom {
                break;
            }
            filled += top - bottom;
            touched += 1;
            if distance(from) > top {
                before = Some((from, next.wrapping_sub(top)));
            }
            if bottom > distance(to) {
                after = Some((next.wrapping_sub(bottom), to));
            }
        }
        if touched > older {
            self.ranges.splice(older..touched, before.into_iter().chain(after));
            self.keep_within_bounds();
        }
        filled
    }

    /// A hole at the front.
    pub(super) fn remember(&mut self, from: u32, to: u32) {
        // Of two holes without data between them it is not known how many segments each had.
        if let Some(range) = self.ranges.last_mut().filter(|range| range.1 == from) {
            range.1 = to;
            return;
        }
        self.ranges.push((from, to));
        self.keep_within_bounds();
    }

    /// A hole before all that was seen.
    fn remember_before(&mut self, from: u32, to: u32) {
        self.ranges.insert(0, (from, to));
        self.keep_within_bounds();
    }

    fn keep_within_bounds(&mut self) {
        if self.ranges.len() > MAX_HOLES {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if !self.ranges.is_empty() {
            let range = self.ranges.remove(0);
            self.missed = self.missed.saturating_add(self.segments(range));
        }
    }

    /// Forgets what is too far behind the front.
    pub(super) fn forget_before(&mut self, next: u32) {
        let is_near = |number: u32| next.wrapping_sub(number) <= MEMORY;
        self.begun = self.begun.filter(|begun| is_near(*begun));
        self.counted = self.counted.filter(|(end, _)| is_near(*end));
        while self.ranges.first().is_some_and(|(from, _)| next.wrapping_sub(*from) > MEMORY) {
            self.forget_oldest();
        }
    }
}

impl Span {
    /// The span of a first segment of `length` bytes.
    pub(super) const fn begin(seq: u32, length: u32) -> Self {
        Self { first: seq, next: seq.wrapping_add(length) }
    }

    /// Records `length` bytes from `seq`. `opened` says that the SYN was seen, so that nothing can come before the
    /// span.
    pub(super) fn observe(&mut self, holes: &mut Holes, seq: u32, length: u32, opened: bool) -> Parts {
        let gap = seq.wrapping_sub(self.next);
        if (MAX_JUMP + 1..MEMORY * 2).contains(&gap) {
            // It counts, and moves nothing.
            let alone = Parts { fresh: length, ..Parts::default() };
            let before = if length > 0 { holes.agree(seq, length) } else { None };
            let Some((from, to)) = before else { return alone };
            self.observe_near(holes, from, to.wrapping_sub(from), opened);
        }
        self.observe_near(holes, seq, length, opened)
    }

    /// The same, wherever that is.
    #[inline]
    fn observe_near(&mut self, holes: &mut Holes, seq: u32, length: u32, opened: bool) -> Parts {
        let gap = seq.wrapping_sub(self.next);
        if gap < MEMORY * 2 {
            if gap > 0 {
                holes.remember(self.next, seq);
            }
            self.extend(holes, seq.wrapping_add(length), opened);
            return Parts { fresh: length, ..Parts::default() };
        }
        if length == 0 {
            return Parts::default();
        }
        self.observe_behind(holes, seq, length, opened)
    }

    /// A range that begins below the highest byte.
    fn observe_behind(&mut self, holes: &mut Holes, seq: u32, length: u32, opened: bool) -> Parts {
        let Self { first, next } = *self;
        let begin = next.wrapping_sub(seq);
        let fresh = length.saturating_sub(begin);
        let below = length - fresh;
        // Distances behind `next`: the range is (begin, stop], larger is older.
        let stop = begin - below;
        let mut late = holes.fill(next, begin, stop);
        let span = next.wrapping_sub(first);
        if begin > span && !opened && begin - span <= MAX_JUMP {
            late += begin - span.max(stop);
            holes.begun.get_or_insert(first);
            if stop > span {
                holes.remember_before(next.wrapping_sub(stop), first);
            }
            self.first = seq;
        }
        if fresh > 0 {
            self.extend(holes, seq.wrapping_add(length), opened);
        }
        Parts { fresh, late, old: below - late.min(below) }
    }

    /// Forgets a beginning that is too far behind the front.
    #[inline]
    pub(super) fn trim(&mut self) {
        if self.next.wrapping_sub(self.first) > MEMORY {
            self.first = self.next.wrapping_sub(MEMORY);
        }
    }

    /// Moves the front, and forgets what is too far behind it. The number of the SYN is kept: connections are told apart
    /// by it.
    fn extend(&mut self, holes: &mut Holes, next: u32, opened: bool) {
        self.next = next;
        if !opened {
            self.trim();
        }
        if !holes.is_empty() {
            holes.forget_before(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn parts(fresh: u32, late: u32, old: u32) -> Parts {
        Parts { fresh, late, old }
    }

    #[test]
    fn a_hole_is_filled_in_pieces() {
        let (mut seen, mut holes) = (Span::begin(100, 100), Holes::default());
        assert_eq!(seen.observe(&mut holes, 300, 100, true), parts(100, 0, 0));
        assert_eq!(seen.observe(&mut holes, 240, 10, true), parts(0, 10, 0));
        assert_eq!(seen.observe(&mut holes, 190, 60, true), parts(0, 40, 20));
        assert_eq!(seen.observe(&mut holes, 200, 300, true), parts(100, 50, 150));
        assert!(holes.is_empty());
    }

    #[test]
    fn numbers_wrap() {
        let (mut seen, mut holes) = (Span::begin(u32::MAX - 49, 100), Holes::default());
        assert_eq!(seen.observe(&mut holes, 100, 50, true), parts(50, 0, 0));
        assert_eq!(seen.observe(&mut holes, u32::MAX - 9, 110, true), parts(0, 50, 60));
        assert_eq!(seen.next, 150);
    }

    #[test]
    fn what_was_sent_before_the_capture_began_is_not_missed() {
        let mut seen = Span::begin(50_000, 1000);
        let mut holes = Holes { segment: 1000, acknowledged: Some(60_000), ..Holes::default() };
        assert_eq!(seen.observe(&mut holes, 10_000, 1000, false), parts(0, 1000, 0));
        assert_eq!(seen.observe(&mut holes, 53_000, 1000, false), parts(1000, 0, 0));
        assert_eq!(holes.missed(None), 2);
        // It is no repetition if it comes late.
        assert_eq!(seen.observe(&mut holes, 20_000, 1000, false), parts(0, 1000, 0));
        assert_eq!(seen.observe(&mut holes, 5000, 1000, false), parts(0, 1000, 0));
        assert_eq!(holes.missed(None), 2);
    }

    #[test]
    fn the_beginning_of_the_capture_is_forgotten_before_numbers_wrap_onto_it() {
        let mut seen = Span::begin(50_000, 1000);
        let mut holes = Holes { segment: 1000, ..Holes::default() };
        seen.observe(&mut holes, 10_000, 40_000, false);
        assert!(holes.is_empty());
        for _ in 0..3000 {
            seen.observe(&mut holes, seen.next, 1_000_000, false);
        }
        seen.observe(&mut holes, seen.next.wrapping_add(2000), 1000, false);
        holes.acknowledged = Some(seen.next);
        assert_eq!(holes.missed(None), 2);
    }

    #[test]
    fn beyond_so_many_the_oldest_hole_is_forgotten() {
        let (mut seen, mut holes) =
            (Span::begin(0, 1), Holes { acknowledged: Some(3), segment: 1, ..Holes::default() });
        for hole in 1..=MAX_HOLES as u32 + 2 {
            assert_eq!(seen.observe(&mut holes, 2 * hole, 1, true), parts(1, 0, 0));
        }
        assert_eq!((holes.ranges.len(), holes.ranges.first()), (MAX_HOLES, Some(&(5, 6))));
        // One of those that were forgotten was acknowledged.
        assert_eq!(holes.missed(None), 1);
        assert_eq!(
            seen.observe(&mut holes, 1, 2 * MAX_HOLES as u32, true),
            parts(0, MAX_HOLES as u32 - 2, MAX_HOLES as u32 + 2)
        );
        assert_eq!(holes.ranges, [(513, 514), (515, 516)]);
    }

    #[test]
    fn acknowledged_holes_are_missed_segments() {
        let mut seen = Span::begin(0, 1000);
        let mut holes = Holes { segment: 1000, ..Holes::default() };
        seen.observe(&mut holes, 2000, 1000, true);
        seen.observe(&mut holes, 5500, 1000, true);
        assert_eq!(holes.missed(None), 0);
        holes.acknowledged = Some(2500);
        assert_eq!(holes.missed(None), 1);
        holes.acknowledged = Some(4000);
        assert_eq!(holes.missed(None), 2);
        holes.restart();
        assert_eq!((holes.missed(None), holes.ranges.as_slice()), (0, [(4000, 5500)].as_slice()));
        holes.acknowledged = Some(4500);
        assert_eq!(holes.missed(None), 1);
        // The segment from 4000 on is counted only once.
        holes.restart();
        holes.acknowledged = Some(4600);
        assert_eq!(holes.missed(None), 0);
        holes.restart();
        holes.acknowledged = Some(6500);
        assert_eq!(holes.missed(None), 1);
        // Nor for those of a hole that goes on.
        assert_eq!(seen.observe(&mut holes, 7000, 0, true), parts(0, 0, 0));
        holes.acknowledged = Some(7000);
        assert_eq!(holes.missed(None), 2);
        holes.restart();
        assert_eq!(seen.observe(&mut holes, 7400, 0, true), parts(0, 0, 0));
        holes.acknowledged = Some(7500);
        assert_eq!(holes.missed(None), 0);
        assert_eq!(seen.observe(&mut holes, 7800, 0, true), parts(0, 0, 0));
        holes.acknowledged = Some(7800);
        assert_eq!(holes.missed(None), 1);
    }

    proptest! {
        #[test]
        fn agrees_with_a_set_of_bytes(base: u32, ranges in prop::collection::vec((0_u32..200, 1_u32..40), 1..60)) {
            // The origin is known, as after a SYN.
            let (mut seen, mut holes) = (Span::begin(base, 1), Holes::default());
            let mut model = BTreeSet::new();
            model.insert(0);
            for (offset, length) in ranges {
                let found = seen.observe(&mut holes, base.wrapping_add(offset), length, true);
                let top = model.last().copied().unwrap_or(0);
                let (mut fresh, mut late, mut old) = (0, 0, 0);
                for byte in offset..offset + length {
                    if !model.insert(byte) { old += 1 } else if byte > top { fresh += 1 } else { late += 1 }
                }
                prop_assert!(holes.ranges.is_sorted_by_key(|(from, to)| (from.wrapping_sub(base), to.wrapping_sub(base))));
                prop_assert_eq!(found, parts(fresh, late, old));
            }
        }
    }
}
