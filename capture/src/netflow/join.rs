//! Two records, each of one direction, become one row.
//!
//! Most exporters tell each direction of a connection in a record of its own. Records wait for the other direction for
//! [`WAIT`]; it is the other half of one if exporter, ends and protocol are the same, the direction the opposite, and their times not more than [`APART`] apart;
//! of several, of the one that began nearest to it. Exporters that cut connections every few seconds, or tell all that they have at once, send several of
//! one direction and then those of the other.
//!
//! `flowDirection` (RFC 5102, 5.11.6) tells what comes in from what goes out. An exporter that looks at both at each of its interfaces
//! sees a connection twice, and its records go by pairs that are alike in it. One that looks at a single interface sees one direction of a
//! connection come in and the other go out: so what has no half of its kind when its wait ends takes one of the other kind, if the
//! interface of both is the same, or not told.
//!
//! Rows that are complete wait as long: so this appliance's own capture of the same
//! packets, if there is one, tells first of what is open, and is the primary observation.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::net::IpAddr;

use super::told::{End, Seen};
use crate::flow::is_one_way;
use crate::record::{EndReason, Protocol};

/// How long a record waits, ns.
pub const WAIT: i64 = 10_000_000_000;
/// Between the end of one direction and the start of the other at most, ns.
const APART: i64 = 5_000_000_000;
/// Records that wait at most.
const MOST: usize = 100_000;
/// Of these, records of one direction of the same ends at most.
const MOST_ALIKE: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    exporter: IpAddr,
    outgoing: bool,
    protocol: Protocol,
    low: End,
    high: End,
}

/// A record that waits, by its number.
struct Half {
    number: u64,
    seen: Seen,
}

/// See the module documentation.
#[derive(Default)]
pub(super) struct Joiner {
    /// The oldest first; none is the other half of another.
    halves: HashMap<Key, Vec<Half>>,
    /// How many these are.
    alone: usize,
    /// When the wait of a half ends, and of which; it may be gone by then.
    order: VecDeque<(i64, Key, u64)>,
    /// Rows that are complete, and when their wait ends.
    whole: VecDeque<(i64, Seen)>,
    numbers: u64,
    joined: u64,
}

impl Joiner {
    /// Takes a record.
    pub(super) fn push(&mut self, seen: Seen, now: i64) {
        let due = now.saturating_add(WAIT);
        let Some(key) = key(&seen) else { return self.whole.push_back((due, seen)) };
        if let Some(half) = self.take(key, |halves| nearest(halves, &seen, |_| true)) {
            self.joined += 1;
            return self.whole.push_back((due, join(half, &seen)));
        }
        self.numbers += 1;
        self.alone += 1;
        self.order.push_back((due, key, self.numbers));
        let halves = self.halves.entry(key).or_insert_with(|| Vec::with_capacity(1));
        halves.push(Half { number: self.numbers, seen });
        if halves.len() > MOST_ALIKE
            && let Some(oldest) = self.take(key, |_| Some(0))
        {
            let row = self.with_other_kind(key, oldest);
            self.whole.push_back((due, row));
        }
    }

    /// Takes out one of the halves of this key.
    fn take(&mut self, key: Key, place: impl FnOnce(&[Half]) -> Option<usize>) -> Option<Seen> {
        let Entry::Occupied(mut halves) = self.halves.entry(key) else { return None };
        let at = place(halves.get())?;
        let half = halves.get_mut().remove(at);
        if halves.get().is_empty() {
            halves.remove();
        }
        self.alone -= 1;
        Some(half.seen)
    }

    /// What a half becomes that found none of its kind.
    fn with_other_kind(&mut self, key: Key, seen: Seen) -> Seen {
        let is_here = |own: &Seen| own.interface == seen.interface;
        match self.take(Key { outgoing: !key.outgoing, ..key }, |halves| nearest(halves, &seen, is_here)) {
            Some(other) => {
                self.joined += 1;
                Seen { outgoing: false, ..join(seen, &other) }
            }
            None => seen,
        }
    }

    /// Records that were the other half of one that waited, so far.
    pub(super) const fn joined(&self) -> u64 {
        self.joined
    }

    /// Records that wait, those of one direction and complete ones.
    pub(super) fn len(&self) -> usize {
        self.alone + self.whole.len()
    }

    /// Whether more wait than may.
    pub(super) fn is_full(&self) -> bool {
        // What is gone from among the halves takes room in the order too.
        self.len() > MOST || self.order.len() > 2 * MOST
    }

    /// The next whose wait is over, or that is one too many. The clock may be set back: what would wait for longer than twice the time does not.
    pub(super) fn next(&mut self, now: i64) -> Option<Seen> {
        let is_full = self.is_full();
        let is_over = |due: i64| is_full || due <= now || due > now.saturating_add(2 * WAIT);
        if let Some((_, seen)) = self.whole.pop_front_if(|(due, _)| is_over(*due)) {
            return Some(seen);
        }
        while let Some((_, key, number)) = self.order.pop_front_if(|(due, ..)| is_over(*due)) {
            if let Some(seen) = self.take(key, |halves| halves.iter().position(|half| half.number == number)) {
                return Some(self.with_other_kind(key, seen));
            }
        }
        None
    }
}

/// What both directions have in common; `None` for what has no other half.
fn key(seen: &Seen) -> Option<Key> {
    let [first, second] = seen.ends;
    let kind = first.1.unwrap_or_default() as u8;
    // Some exporters have room for both directions, and tell them in two records all the same.
    let has_both = seen.back.is_some_and(|back| back.packets > 0 && seen.there.packets > 0);
    if has_both || is_one_way(seen.protocol, kind) {
        return None;
    }
    let (low, high) = if first <= second { (first, second) } else { (second, first) };
    Some(Key { exporter: seen.exporter, outgoing: seen.outgoing, protocol: seen.protocol, low, high })
}

/// Where among these is the other half, of those that may be; of several the one that began nearest to it.
fn nearest(halves: &[Half], seen: &Seen, may_be: impl Fn(&Seen) -> bool) -> Option<usize> {
    let others = halves.iter().enumerate().filter(|(_, half)| is_other_half(&half.seen, seen) && may_be(&half.seen));
    others.min_by_key(|(_, half)| half.seen.start.abs_diff(seen.start)).map(|(at, _)| at)
}

fn is_other_half(one: &Seen, other: &Seen) -> bool {
    let [first, second] = one.ends;
    let is_opposite = other.ends == [second, first] && first != second;
    let meets = |one: &Seen, other: &Seen| other.start <= one.end.saturating_add(APART);
    // A record of nothing but the other direction is no half.
    let sent = one.there.packets > 0 && other.there.packets > 0;
    is_opposite && sent && meets(one, other) && meets(other, one)
}

fn join(one: Seen, other: &Seen) -> Seen {
    Seen {
        back: Some(other.there),
        start: one.start.min(other.start),
        end: one.end.max(other.end),
        replaced: one.replaced || other.replaced,
        // Where each was sent from, if told.
        macs: [one.macs[0].or(other.macs[1]), other.macs[0].or(one.macs[1])],
        end_reason: telling(one.end_reason, other.end_reason),
        initiator: one.initiator.or(other.initiator.map(|is_first| !is_first)),
        vlan: one.vlan.or(other.vlan),
        vlan_inner: one.vlan_inner.or(other.vlan_inner),
        ..one
    }
}

/// Of two reasons, the one that says more of the connection.
fn telling(one: Option<EndReason>, other: Option<EndReason>) -> Option<EndReason> {
    use EndReason as R;
    let worth = |reason| match reason {
        Some(R::Rst) => 4,
        Some(R::Fin) => 3,
        Some(R::Active | R::Evicted | R::Shutdown | R::Interrupted | R::EndOfInput) => 2,
        Some(R::Idle | R::Exported) => 1,
        None => 0,
    };
    if worth(other) > worth(one) { other } else { one }
}
