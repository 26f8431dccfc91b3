//! Fragments of IP packets (RFC 791, 3.2; RFC 8200, 4.5): which flow the later ones belong to, and what they say together.
//!
//! Invariants:
//! * memory is bounded by [`FragmentLimits`]; the oldest packets are given up first, and counted;
//! * what was captured of a packet is kept from its beginning on, so that a snap length hides bytes but no length;
//! * where fragments of IPv4 overlap, what came first counts (RFC 791 leaves it open); a packet of IPv6 with such fragments is
//!   not put together (RFC 8200, 4.5), unless one only repeats what is there;
//! * a packet that was put together is remembered for a moment, if there is room: a capture may deliver fragments twice.

mod parts;

use std::collections::HashMap;

use foldhash::fast::RandomState;

use self::parts::{Parts, State};
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

/// Queues of packets by age: those of which parts are missing, and those that are done with.
const OPEN: usize = 0;
const DONE: usize = 1;

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
            ages: Queues::new(2),
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
        let was_open = parts.state == State::Open;
        if was_open && !parts.insert(fragment, room) {
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
        if was_open && parts.state != State::Open {
            self.ages.push(DONE, slot);
        }
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
        while let Some(slot) = self.ages.first(OPEN).or_else(|| self.ages.first(DONE)) {
            self.remove(slot);
        }
    }

    fn expire(&mut self, clock: i64) {
        for queue in [OPEN, DONE] {
            while let Some(slot) = self.ages.first(queue)
                && let parts = self.slots.get(slot as usize).and_then(Option::as_ref)
                && parts.is_none_or(|parts| parts.is_old(clock, self.limits.timeout))
            {
                self.remove(slot);
            }
        }
    }

    fn slot(&mut self, whole: Whole, clock: i64) -> u32 {
        if let Some(slot) = self.index.get(&whole).copied() {
            return slot;
        }
        // There must be room for the packet, and for its bytes when it is as long as can be.
        while self.index.len() >= self.limits.packets.max(1)
            && let Some(oldest) = self.ages.first(DONE).or_else(|| self.ages.first(OPEN))
        {
            self.remove(oldest);
        }
        while self.bytes.saturating_add(MAX_LEN as usize) > self.limits.bytes
            && let Some(oldest) = self.ages.first(OPEN)
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
        self.ages.push(OPEN, slot);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decode::Transport;

    proptest! {
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
