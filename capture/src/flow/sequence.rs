//! Which bytes of one TCP direction were seen: the span from the first to the highest byte, less a few holes.
//!
//! Numbers wrap (RFC 9293, 3.4); all comparisons are distances behind the highest byte seen. Memory is bounded: beyond
//! [`MAX_HOLES`] the oldest hole is forgotten, and what fills it later counts as repeated.

/// Most holes that are remembered for a direction.
const MAX_HOLES: usize = 32;

/// Holes and the start of the span are forgotten at this distance, well before numbers wrap onto them.
const MEMORY: u32 = 1 << 30;

/// A segment without payload further ahead than this does not move the span: it is garbage, not loss.
const MAX_JUMP: u32 = 1 << 24;

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

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    /// First byte and the one after the highest.
    span: Option<(u32, u32)>,
    /// Missing ranges `[from, to)`.
    holes: Vec<(u32, u32)>,
}

impl Sequence {
    /// The number after the highest byte seen.
    pub(super) fn next(&self) -> Option<u32> {
        self.span.map(|(_, next)| next)
    }

    /// The lowest byte seen.
    pub(super) fn first(&self) -> Option<u32> {
        self.span.map(|(first, _)| first)
    }

    /// Records `length` bytes from `seq`. `opened` says that the SYN was seen, so that nothing can come before the
    /// span.
    pub(super) fn observe(&mut self, seq: u32, length: u32, opened: bool) -> Parts {
        let Some((first, next)) = self.span else {
            self.span = Some((seq, seq.wrapping_add(length)));
            return Parts { fresh: length, ..Parts::default() };
        };
        let gap = seq.wrapping_sub(next);
        if gap < MEMORY * 2 {
            if length == 0 && gap > MAX_JUMP {
                return Parts::default();
            }
            if gap > 0 {
                self.remember_hole(next, seq);
            }
            self.extend(first, seq.wrapping_add(length));
            return Parts { fresh: length, ..Parts::default() };
        }
        if length == 0 {
            return Parts::default();
        }
        self.observe_behind(seq, length, opened)
    }

    /// A range that begins below the highest byte.
    fn observe_behind(&mut self, seq: u32, length: u32, opened: bool) -> Parts {
        let Some((first, next)) = self.span else { return Parts::default() };
        let begin = next.wrapping_sub(seq);
        let fresh = length.saturating_sub(begin);
        let below = length - fresh;
        // Distances behind `next`: the range is (begin, stop], larger is older.
        let stop = begin - below;
        let mut late = self.fill(next, begin, stop);
        let span = next.wrapping_sub(first);
        let mut first = first;
        if begin > span && !opened && begin - span <= MAX_JUMP {
            late += begin - span.max(stop);
            if stop > span {
                self.remember_hole(next.wrapping_sub(stop), first);
            }
            first = seq;
        }
        if fresh > 0 {
            self.extend(first, seq.wrapping_add(length));
        } else {
            self.span = Some((first, next));
        }
        Parts { fresh, late, old: below - late.min(below) }
    }

    /// Takes the range out of the holes; the bytes that were missing.
    fn fill(&mut self, next: u32, begin: u32, stop: u32) -> u32 {
        let mut filled = 0;
        let mut index = 0;
        while let Some(&(from, to)) = self.holes.get(index) {
            let (hole_begin, hole_stop) = (next.wrapping_sub(from), next.wrapping_sub(to));
            let (top, bottom) = (begin.min(hole_begin), stop.max(hole_stop));
            if top <= bottom {
                index += 1;
                continue;
            }
            filled += top - bottom;
            let before = (hole_begin > top).then(|| (from, next.wrapping_sub(top)));
            let after = (bottom > hole_stop).then(|| (next.wrapping_sub(bottom), to));
            self.holes.splice(index..=index, before.into_iter().chain(after));
            index += usize::from(before.is_some()) + usize::from(after.is_some());
        }
        while self.holes.len() > MAX_HOLES {
            self.holes.remove(0);
        }
        filled
    }

    fn remember_hole(&mut self, from: u32, to: u32) {
        if self.holes.len() >= MAX_HOLES {
            self.holes.remove(0);
        }
        self.holes.push((from, to));
    }

    /// Moves the front, and forgets what is too far behind it.
    fn extend(&mut self, first: u32, next: u32) {
        let first = if next.wrapping_sub(first) > MEMORY { next.wrapping_sub(MEMORY) } else { first };
        self.span = Some((first, next));
        if !self.holes.is_empty() {
            self.holes.retain(|&(from, _)| next.wrapping_sub(from) <= MEMORY);
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
        let mut seen = Sequence::default();
        assert_eq!(seen.observe(100, 100, true), parts(100, 0, 0));
        assert_eq!(seen.observe(300, 100, true), parts(100, 0, 0));
        assert_eq!(seen.observe(240, 10, true), parts(0, 10, 0));
        assert_eq!(seen.observe(190, 60, true), parts(0, 40, 20));
        assert_eq!(seen.observe(200, 300, true), parts(100, 50, 150));
        assert!(seen.holes.is_empty());
    }

    #[test]
    fn numbers_wrap() {
        let mut seen = Sequence::default();
        seen.observe(u32::MAX - 49, 100, true);
        assert_eq!(seen.observe(100, 50, true), parts(50, 0, 0));
        assert_eq!(seen.observe(u32::MAX - 9, 110, true), parts(0, 50, 60));
        assert_eq!(seen.next(), Some(150));
    }

    proptest! {
        #[test]
        fn agrees_with_a_set_of_bytes(base: u32, ranges in prop::collection::vec((0_u32..200, 1_u32..40), 1..60)) {
            let mut seen = Sequence::default();
            let mut model = BTreeSet::new();
            // The origin is known, as after a SYN.
            seen.observe(base, 1, true);
            model.insert(0);
            for (offset, length) in ranges {
                let found = seen.observe(base.wrapping_add(offset), length, true);
                let top = model.last().copied().unwrap_or(0);
                let (mut fresh, mut late, mut old) = (0, 0, 0);
                for byte in offset..offset + length {
                    if !model.insert(byte) { old += 1 } else if byte > top { fresh += 1 } else { late += 1 }
                }
                prop_assert!(seen.holes.len() <= MAX_HOLES);
                prop_assert_eq!(found, parts(fresh, late, old));
            }
        }
    }
}
