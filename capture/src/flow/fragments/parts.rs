//! One packet in parts: what was seen of it, from its beginning on.

use super::{First, Joined, MAX_LEN, Orphans, Whole};
use crate::decode::Fragment;
use crate::flow::config::SECOND;
use crate::memory;

/// Most separate parts of a packet.
const MAX_PARTS: usize = 64;

/// How long the fragments of a packet that is done with may be repeated, before its identification is another's.
const MEMORY: i64 = SECOND / 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Parts are missing.
    Open,
    /// Put together at this time.
    Joined(i64),
    /// Given up at this time.
    GivenUp(i64),
}

/// One packet in parts.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) whole: Whole,
    /// Clock at the first of them that came.
    since: i64,
    pub(super) state: State,
    /// What was seen, `[from, to)`, in order, without overlaps.
    ranges: Vec<(u32, u32)>,
    len: Option<u32>,
    pub(super) data: Vec<u8>,
    /// First byte that was not captured.
    cut: u32,
    pub(super) first: Option<First>,
    pub(super) orphans: Option<Orphans>,
}

impl Parts {
    pub(super) const fn new(whole: Whole, since: i64) -> Self {
        Self {
            whole,
            since,
            state: State::Open,
            ranges: Vec::new(),
            len: None,
            data: Vec::new(),
            cut: u32::MAX,
            first: None,
            orphans: None,
        }
    }

    pub(super) fn owned_bytes(&self) -> usize {
        memory::of_vec(&self.data) + memory::of_vec(&self.ranges)
    }

    /// Whether it is over at `clock`.
    pub(super) fn is_old(&self, clock: i64, timeout: i64) -> bool {
        match self.state {
            State::Open => clock.saturating_sub(self.since) >= timeout,
            State::Joined(at) | State::GivenUp(at) => clock.saturating_sub(at) > MEMORY,
        }
    }

    /// Takes a fragment in, unless it contradicts the others or there is no room.
    pub(super) fn insert(&mut self, fragment: &Fragment<'_>, room: usize) -> bool {
        let (from, to) = (fragment.offset, fragment.offset.saturating_add(fragment.len));
        if to > MAX_LEN || self.len.is_some_and(|len| to > len || (!fragment.more && to != len)) {
            return false;
        }
        if !fragment.more {
            if self.ranges.last().is_some_and(|last| last.1 > to) {
                return false;
            }
            self.len = Some(to);
        }
        if from == to || self.has(from, to) {
            return true;
        }
        let overlaps = self.ranges.iter().any(|range| range.0 < to && from < range.1);
        if overlaps && self.whole.key.is_v6() {
            return false;
        }
        let most = self.data.len().saturating_add(room);
        let mut begin = from;
        while begin < to {
            // What is new begins here or behind the range that begins before, and ends where the next one begins.
            let at = self.ranges.partition_point(|range| range.0 <= begin);
            let known = at.checked_sub(1).and_then(|at| self.ranges.get(at)).map_or(begin, |range| range.1);
            let end = self.ranges.get(at).map_or(to, |range| range.0.min(to));
            if known < end && !self.take_in((begin.max(known), end), fragment, most) {
                return false;
            }
            begin = end.max(known);
        }
        true
    }

    /// Whether all of a range was seen.
    fn has(&self, from: u32, to: u32) -> bool {
        self.ranges.iter().any(|range| range.0 <= from && to <= range.1)
    }

    /// Whether the capture delivered a fragment before, for certain.
    pub(super) fn repeats(&self, fragment: &Fragment<'_>) -> bool {
        let (from, to) = (fragment.offset, fragment.offset.saturating_add(fragment.len));
        match self.state {
            State::Open => from < to && self.has(from, to),
            State::Joined(_) => true,
            State::GivenUp(_) => false,
        }
    }

    /// Takes in what a fragment has of a range that was not seen, if no more than `most` bytes are held then.
    fn take_in(&mut self, range: (u32, u32), fragment: &Fragment<'_>, most: usize) -> bool {
        let at = self.ranges.partition_point(|other| other.1 <= range.0);
        self.ranges.insert(at, range);
        self.ranges.dedup_by(|next, range| {
            let touches = range.1 == next.0;
            if touches {
                range.1 = next.1;
            }
            touches
        });
        self.ranges.len() <= MAX_PARTS && self.keep(range, fragment, most)
    }

    fn keep(&mut self, (from, to): (u32, u32), fragment: &Fragment<'_>, most: usize) -> bool {
        let data = fragment.data.get((from - fragment.offset) as usize..).unwrap_or_default();
        let data = data.get(..(to - from) as usize).unwrap_or(data);
        if (data.len() as u32) < to - from {
            self.cut = self.cut.min(from + data.len() as u32);
        }
        let from = from as usize;
        let to = from + data.len();
        if to > self.data.len() {
            if to > most {
                return false;
            }
            if from == self.data.len() {
                self.data.extend_from_slice(data);
                return true;
            }
            self.data.resize(to, 0);
        }
        if let Some(place) = self.data.get_mut(from..to) {
            place.copy_from_slice(data);
        }
        true
    }

    pub(super) fn is_complete(&self) -> bool {
        self.state == State::Open && self.len.is_some_and(|len| self.ranges == [(0, len)])
    }

    pub(super) fn join(&mut self, clock: i64) -> Option<Joined> {
        let mut data = std::mem::take(&mut self.data);
        data.truncate(self.cut as usize);
        let joined = self.first.zip(self.len).map(|(first, len)| Joined { protocol: first.begins_with, data, len });
        self.close(State::Joined(clock));
        joined
    }

    pub(super) fn close(&mut self, state: State) {
        self.state = state;
        (self.ranges, self.data) = (Vec::new(), Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decode::{Decoded, Transport};
    use crate::flow::key::Key;
    use crate::record::Protocol;

    proptest! {
        /// Of what overlaps, the first counts, as in a plain map from place to byte.
        #[test]
        fn overlaps_are_as_in_a_map(
            parts in prop::collection::vec((0_u32..12, 1_u32..6, any::<bool>(), any::<u8>()), 1..40),
            v6: bool,
        ) {
            let (src, dst) = (std::net::IpAddr::from([10, 0, 0, 1]), std::net::IpAddr::from([10, 0, 0, 2]));
            let six = |ip: std::net::IpAddr| match ip {
                std::net::IpAddr::V4(ip) if v6 => std::net::IpAddr::V6(ip.to_ipv6_mapped()),
                std::net::IpAddr::V4(_) | std::net::IpAddr::V6(_) => ip,
            };
            let decoded = Decoded::new(six(src), six(dst), Protocol::UDP, Transport::Other { payload_len: 8 });
            let (key, end) = Key::new(&decoded, 1);
            let fragment = Fragment { id: 1, offset: 0, more: true, protocol: Protocol::UDP, data: &[], len: 0 };
            let mut held = Parts::new(Whole::new(key, end, &fragment), 0);
            let mut model = std::collections::BTreeMap::new();
            for (at, units, cut, filling) in parts {
                let (offset, len) = (at * 8, units * 8);
                let data = vec![filling; if cut { len as usize / 2 } else { len as usize }];
                let part = Fragment { offset, len, data: &data, ..fragment.clone() };
                let new = (offset..offset + len).filter(|byte| !model.contains_key(byte)).count();
                let taken = held.insert(&part, usize::MAX);
                prop_assert_eq!(taken, !v6 || new == 0 || new == len as usize);
                if !taken {
                    return Ok(());
                }
                for byte in offset..offset + len {
                    model.entry(byte).or_insert_with(|| data.get((byte - offset) as usize).copied());
                }
                prop_assert!(held.ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
                let seen = held.ranges.iter().flat_map(|(from, to)| *from..*to);
                prop_assert!(seen.eq(model.keys().copied()));
                let uncut = model.iter().take_while(|(_, value)| value.is_some());
                for (byte, value) in uncut.take_while(|(byte, _)| **byte < held.cut) {
                    prop_assert_eq!(held.data.get(*byte as usize).copied(), *value);
                }
                prop_assert!(model.iter().all(|(byte, value)| value.is_some() || *byte >= held.cut));
            }
        }
    }
}
