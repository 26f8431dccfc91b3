//! Fragments of IP packets (RFC 791, 3.2; RFC 8200, 4.5): which flow the later ones belong to, and what they say together.
//!
//! Invariants:
//! * memory is bounded by [`FragmentLimits`]; the oldest packets are given up first, and counted;
//! * what was captured of a packet is kept from its beginning on, so that a snap length hides bytes but no length;
//! * where fragments of IPv4 overlap, what came first counts (RFC 791 leaves it open); a packet of IPv6 with such fragments is
//!   not put together (RFC 8200, 4.5), unless one only repeats what is there;
//! * a packet that was put together is remembered for a moment: a capture may deliver fragments twice.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::config::SECOND;
use super::key::{End, Key};
use super::queue::Queues;
use super::related::Share;
use crate::decode::{Decoded, Fragment};
use crate::memory;
use crate::record::Protocol;

/// Bounds of joining fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FragmentLimits {
    /// Packets at a time of which fragments are missing.
    pub packets: usize,
    /// Bytes held for them.
    pub bytes: usize,
    /// Packet time from the first fragment seen, ns.
    pub timeout: i64,
}

impl Default for FragmentLimits {
    /// 1,024 packets, 4 MiB, 30 s.
    fn default() -> Self {
        Self { packets: 1024, bytes: 4 << 20, timeout: 30 * SECOND }
    }
}

/// The longest packet that fragments can make.
const MAX_LEN: u32 = 65_535;

/// Most separate parts of a packet.
const MAX_PARTS: usize = 64;

/// How long the fragments of a packet that is done with may be repeated, before its identification is another's.
const MEMORY: i64 = SECOND / 10;

/// What the fragments of one packet share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Whole {
    key: Key,
    end: End,
    id: u32,
}

impl Whole {
    /// `key` is that of a flow without ports. The identification is unique for a protocol in IPv4 (RFC 791), for a pair of
    /// addresses in IPv6.
    pub(super) fn new(mut key: Key, end: End, fragment: &Fragment<'_>) -> Self {
        key.forget_protocol_of_ipv6();
        Self { key, end, id: fragment.id }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Parts are missing.
    Open,
    /// Put together at this time.
    Joined(i64),
    /// Given up at this time.
    GivenUp(i64),
}

/// One packet in parts.
#[derive(Debug)]
struct Parts {
    whole: Whole,
    /// Clock at the first of them that came.
    since: i64,
    state: State,
    /// What was seen, `[from, to)`, in order, without overlaps.
    ranges: Vec<(u32, u32)>,
    len: Option<u32>,
    data: Vec<u8>,
    /// First byte that was not captured.
    cut: u32,
    first: Option<First>,
    orphans: Option<Orphans>,
}

/// What the first fragment says of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct First {
    pub(super) ports: Option<(u16, u16)>,
    pub(super) carrier: bool,
    /// The transport: behind what else of an IPv6 header was divided.
    pub(super) protocol: Protocol,
    /// What the divided data begin with.
    begins_with: Protocol,
}

/// Where fragments were counted: the flow without ports, its current slice, and the end that sent them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OrphansFlow {
    pub(super) key: Key,
    pub(super) end: End,
    pub(super) flow_id: u64,
    pub(super) slice: u32,
}

/// Fragments that came before the first one, and are counted in a flow without ports.
#[derive(Debug, Clone)]
pub(super) struct Orphans {
    pub(super) flow: OrphansFlow,
    pub(super) share: Share,
}

/// A packet put together.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) protocol: Protocol,
    /// What was captured, from the beginning.
    pub(super) data: Vec<u8>,
    pub(super) len: u32,
}

/// What a fragment brought about.
#[derive(Debug)]
pub(super) struct Step {
    /// Known once the first fragment was seen.
    pub(super) first: Option<First>,
    /// Fragments that the first one now gives a flow to.
    pub(super) orphans: Option<Orphans>,
    pub(super) joined: Option<Joined>,
    /// The capture delivered it before.
    pub(super) repeats: bool,
}

/// See the module documentation.
pub(super) struct Fragments {
    limits: FragmentLimits,
    index: HashMap<Whole, u32, RandomState>,
    slots: Vec<Option<Parts>>,
    free: Vec<u32>,
    ages: Queues,
    bytes: usize,
    /// Bytes of memory that they take, with what says which of them are there.
    held: usize,
    /// Bytes of memory of the places of packets.
    places: usize,
    given_up: u64,
}

impl Fragments {
    pub(super) fn new(limits: FragmentLimits) -> Self {
        Self {
            limits,
            index: HashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            ages: Queues::new(1),
            bytes: 0,
            held: 0,
            places: 0,
            given_up: 0,
        }
    }

    /// Packets given up since the last call.
    pub(super) fn take_given_up(&mut self) -> u64 {
        std::mem::take(&mut self.given_up)
    }

    /// Bytes of memory held.
    #[inline]
    pub(super) fn memory_bytes(&self) -> usize {
        self.held + self.places
    }

    /// Bytes of the places of packets, whatever is in them.
    fn places(&self) -> usize {
        memory::of_map(&self.index)
            + memory::of_vec(&self.slots)
            + memory::of_vec(&self.free)
            + self.ages.memory_bytes()
    }

    /// Takes a fragment that was seen at `clock`.
    pub(super) fn add(&mut self, whole: Whole, decoded: &Decoded<'_>, fragment: &Fragment<'_>, clock: i64) -> Step {
        self.expire(clock);
        let slot = self.slot(whole, clock);
        let room = self.limits.bytes.saturating_sub(self.bytes);
        let Some(parts) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else {
            return Step { first: None, orphans: None, joined: None, repeats: false };
        };
        let before = (parts.data.len(), parts.owned_bytes());
        let repeats = parts.repeats(fragment);
        if parts.state == State::Open && !parts.insert(fragment, room) {
            parts.close(State::GivenUp(clock));
            self.given_up += 1;
        }
        if fragment.offset == 0 {
            parts.first.get_or_insert(First {
                ports: decoded.src_port.zip(decoded.dst_port),
                carrier: decoded.carrier,
                protocol: decoded.protocol,
                begins_with: fragment.protocol,
            });
        }
        let first = parts.first;
        let orphans = first.and_then(|_| parts.orphans.take());
        let held = parts.data.len();
        let joined = if parts.is_complete() { parts.join(clock) } else { None };
        let left = if joined.is_some() { 0 } else { held };
        self.bytes = (self.bytes + left).saturating_sub(before.0);
        self.held = (self.held + parts.owned_bytes()).saturating_sub(before.1);
        Step { first, orphans, joined, repeats }
    }

    /// Remembers in which flow a fragment without ports was counted.
    pub(super) fn orphan(&mut self, whole: &Whole, flow: OrphansFlow, share: &Share) {
        let slot = self.index.get(whole).copied();
        if let Some(parts) = slot.and_then(|slot| self.slots.get_mut(slot as usize)).and_then(Option::as_mut) {
            match &mut parts.orphans {
                Some(orphans) if orphans.flow == flow => orphans.share.add(share),
                // A slice that is over keeps what it has.
                _ => parts.orphans = Some(Orphans { flow, share: share.clone() }),
            }
        }
    }

    /// Gives up everything.
    pub(super) fn finish(&mut self) {
        while let Some(slot) = self.ages.first(0) {
            self.remove(slot);
        }
    }

    fn expire(&mut self, clock: i64) {
        let since = |slots: &[Option<Parts>], slot: u32| Some(slots.get(slot as usize)?.as_ref()?.since);
        while let Some(slot) = self.ages.first(0)
            && since(&self.slots, slot).is_none_or(|since| clock.saturating_sub(since) >= self.limits.timeout)
        {
            self.remove(slot);
        }
    }

    fn slot(&mut self, whole: Whole, clock: i64) -> u32 {
        if let Some(slot) = self.index.get(&whole).copied() {
            let state = self.slots.get(slot as usize).and_then(Option::as_ref).map(|parts| parts.state);
            match state {
                Some(State::Joined(at) | State::GivenUp(at)) if clock.saturating_sub(at) > MEMORY => self.remove(slot),
                Some(State::Open | State::Joined(_) | State::GivenUp(_)) | None => return slot,
            }
        }
        // There must be room for the packet, and for its bytes when it is as long as can be.
        while let Some(oldest) = self.ages.first(0)
            && (self.index.len() >= self.limits.packets.max(1)
                || self.bytes.saturating_add(MAX_LEN as usize) > self.limits.bytes)
        {
            self.remove(oldest);
        }
        let slot = self.free.pop().unwrap_or(self.slots.len() as u32);
        let parts = Some(Parts::new(whole, clock));
        match self.slots.get_mut(slot as usize) {
            Some(place) => *place = parts,
            None => self.slots.push(parts),
        }
        self.index.insert(whole, slot);
        self.ages.push(0, slot);
        self.places = self.places();
        slot
    }

    fn remove(&mut self, slot: u32) {
        self.ages.remove(slot);
        if let Some(parts) = self.slots.get_mut(slot as usize).and_then(Option::take) {
            self.index.remove(&parts.whole);
            self.bytes = self.bytes.saturating_sub(parts.data.len());
            self.held = self.held.saturating_sub(parts.owned_bytes());
            self.given_up += u64::from(parts.state == State::Open);
            self.free.push(slot);
        }
    }
}

impl Parts {
    const fn new(whole: Whole, since: i64) -> Self {
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

    fn owned_bytes(&self) -> usize {
        memory::of_vec(&self.data) + memory::of_vec(&self.ranges)
    }

    /// Takes a fragment in, unless it contradicts the others or there is no room.
    fn insert(&mut self, fragment: &Fragment<'_>, room: usize) -> bool {
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
    fn repeats(&self, fragment: &Fragment<'_>) -> bool {
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

    fn is_complete(&self) -> bool {
        self.state == State::Open && self.len.is_some_and(|len| self.ranges == [(0, len)])
    }

    fn join(&mut self, clock: i64) -> Option<Joined> {
        let mut data = std::mem::take(&mut self.data);
        data.truncate(self.cut as usize);
        let joined = self.first.zip(self.len).map(|(first, len)| Joined { protocol: first.begins_with, data, len });
        self.close(State::Joined(clock));
        joined
    }

    fn close(&mut self, state: State) {
        self.state = state;
        (self.ranges, self.data) = (Vec::new(), Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decode::Transport;

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

        /// Whatever comes, what is held is counted and bounded, and a packet that is put together is what was divided.
        #[test]
        fn memory_is_bounded_and_what_is_joined_is_right(
            fragments in prop::collection::vec((0_u32..4, 0_usize..8, any::<bool>(), 0_i64..20, any::<bool>()), 0..200),
        ) {
            let limits = FragmentLimits { packets: 3, bytes: 66_000, timeout: 40 };
            let mut all = Fragments::new(limits);
            let data: Vec<u8> = (0..64).collect();
            let (src, dst) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
            let decoded = Decoded::new(src, dst, Protocol::UDP, Transport::Other { payload_len: 8 });
            let (key, end) = Key::new(&decoded, 1);
            let (mut clock, mut seen) = (0, 0);
            for (id, at, long, wait, cut) in fragments {
                clock += wait;
                seen += 1;
                // Of the last part there is one length, or the end of the packet would be in doubt.
                let len = if long && at < 6 { 16 } else { 8 };
                let held = if cut { len / 2 } else { len };
                let (offset, protocol) = (at as u32 * 8, Protocol::UDP);
                let data = data.get(at * 8..at * 8 + held).unwrap();
                let fragment = Fragment { id, offset, more: at < 7, protocol, data, len: len as u32 };
                let step = all.add(Whole::new(key, end, &fragment), &decoded, &fragment, clock);
                if let Some(joined) = step.joined {
                    prop_assert_eq!(joined.len, 64);
                    prop_assert!(joined.data.iter().copied().eq(0..joined.data.len() as u8));
                }
                let held: usize = all.slots.iter().flatten().map(|parts| parts.data.len()).sum();
                prop_assert_eq!(all.bytes, held);
                prop_assert!(all.bytes <= limits.bytes && all.index.len() <= limits.packets);
                prop_assert!(all.slots.len() <= limits.packets);
            }
            all.finish();
            prop_assert_eq!((all.bytes, all.index.len()), (0, 0));
            prop_assert!(all.take_given_up() <= seen);
        }
    }
}
