//! What was learned late: keys of which something new is known as of a time whose rows are tagged already. It says which stored rows
//! to look at again, and is small: an address or range, and since when.
//!
//! * What is learned as it happens is not late ([`PROMPT`]): rows wait so long.
//! * The end of an identity frees its keys since that end; before it nothing changes.
//! * A source that was away ([`IdentityEvent::Heard`]) had left everything open: whoever was asked for then was ambiguous, so that
//!   all rows of that time are looked at. So it is where a key is no address (an interface, a link-layer address, a port of every node).
//! * Of sockets nothing is noted: whose connection it was is not kept.
//! * Beyond [`MOST`] keys it is all rows since the earliest of them.
//!
//! [`IdentityEvent::Heard`]: crate::IdentityEvent::Heard

use std::collections::HashMap;
use std::net::IpAddr;

use super::Timeline;
use super::history::Claim;
use super::keys::Place;
use super::view::View;
use crate::tagger::PATIENCE;

/// What is known so soon after it began was known when its rows were tagged, ns.
pub const PROMPT: i64 = 2_000_000_000;
/// A source that is not heard for so long is away, ns: rows wait for it longer.
const AWAY: i64 = PATIENCE / 2;
/// Keys that are noted one by one at most.
const MOST: usize = 65_536;
/// Addresses that are looked for one by one at most: of more, all rows are looked at.
const FEW: usize = 64;
/// What lies so far back is looked at together, ns: an hour, a day, ever.
const AGES: [i64; 3] = [3_600_000_000_000, 86_400_000_000_000, i64::MAX];

/// See the module documentation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Late {
    /// Whoever it was, since then.
    anyone: Option<i64>,
    /// Who had an address in these ranges, since then.
    ranges: HashMap<(IpAddr, u8), i64>,
    /// A source was heard for the first time in this process: it may have been away before.
    first_heard: bool,
}

/// Stored rows to look at again: those that touch `[from, to)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateRows {
    /// First ns.
    pub from: i64,
    /// First ns after.
    pub to: i64,
    /// With one of these addresses, or in these ranges, on either side; empty: all.
    pub ranges: Vec<(IpAddr, u8)>,
}

impl Late {
    /// Whether nothing was late.
    pub fn is_empty(&self) -> bool {
        self.anyone.is_none() && self.ranges.is_empty() && !self.first_heard
    }

    /// Adds what else was.
    pub fn merge(&mut self, other: Self) {
        other.anyone.into_iter().for_each(|since| self.note_anyone(since));
        for (range, since) in other.ranges {
            self.note_range(range, since);
        }
        self.first_heard |= other.first_heard;
    }

    /// The rows to look at, as of `now`: few parts, the newest first. `known`: until when everything that was learned has been
    /// looked at, for a source of which nobody knows since when it was away.
    pub fn rows(mut self, now: i64, known: i64) -> Vec<LateRows> {
        if self.first_heard {
            self.note_anyone(known);
        }
        let since = self.anyone.unwrap_or(i64::MAX);
        let (mut ages, mut rest) = (Vec::new(), self.ranges);
        rest.retain(|_, own| *own < since);
        for age in AGES {
            let oldest = now.saturating_sub(age);
            let (some, older): (HashMap<_, _>, HashMap<_, _>) = rest.into_iter().partition(|(_, own)| *own >= oldest);
            rest = older;
            let Some(from) = some.values().copied().min() else { continue };
            let mut ranges: Vec<(IpAddr, u8)> = some.into_keys().collect();
            ranges.sort_unstable();
            if ranges.len() > FEW {
                ranges.clear();
            }
            ages.push(LateRows { from, to: now, ranges });
        }
        ages.extend(self.anyone.map(|from| LateRows { from, to: now, ranges: Vec::new() }));
        ages.retain(|rows| rows.from < rows.to);
        ages
    }

    fn note(&mut self, place: Place, since: i64) {
        match place {
            Place::Ip { ip, .. } => self.note_range((ip, full(ip)), since),
            Place::Range { ip, prefix, .. } => self.note_range((ip, prefix), since),
            Place::Service { ip, .. } if !ip.is_unspecified() => self.note_range((ip, full(ip)), since),
            Place::Service { .. } | Place::Interface { .. } | Place::Mac { .. } => self.note_anyone(since),
            Place::Socket { .. } => {}
        }
    }

    fn note_range(&mut self, range: (IpAddr, u8), since: i64) {
        if self.ranges.len() >= MOST && !self.ranges.contains_key(&range) {
            let earliest = self.ranges.drain().map(|(_, own)| own).min();
            self.note_anyone(earliest.unwrap_or(since).min(since));
            return;
        }
        let own = self.ranges.entry(range).or_insert(since);
        *own = since.min(*own);
    }

    fn note_anyone(&mut self, since: i64) {
        self.anyone = Some(self.anyone.map_or(since, |own| own.min(since)));
    }

    /// Without what was known in time.
    fn before(mut self, prompt: i64) -> Self {
        self.anyone = self.anyone.filter(|since| *since < prompt);
        self.ranges.retain(|_, since| *since < prompt);
        self
    }
}

fn full(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

impl Timeline {
    /// What was learned since this was asked last and is late at `now`.
    pub fn take_late(&mut self, now: i64) -> Late {
        if self.late.is_empty() {
            return Late::default();
        }
        std::mem::take(&mut self.late).before(now.saturating_sub(PROMPT))
    }

    /// Something new is known of a key since this time, give or take what its source may be off.
    pub(super) fn note_late(&mut self, place: Place, since: i64, source: u8) {
        self.late.note(place, since.saturating_sub(self.view.sources.slack(source)));
    }

    /// A source was heard at `at`, and before that at `before`.
    pub(super) fn note_heard(&mut self, source: u8, before: i64, at: i64) {
        if !self.view.sources.is_loose(source) {
            return;
        }
        if before == i64::MIN {
            self.late.first_heard = true;
        } else if at.saturating_sub(before) > AWAY {
            self.late.note_anyone(before.saturating_sub(self.view.sources.slack(source)));
        }
    }
}

impl View {
    /// What was learned after `learned`, and late: after a restart, when nobody knows whether stored rows were looked at since.
    pub fn late_since(&self, learned: i64) -> Late {
        let mut late = Late::default();
        for (place, history) in self.histories.iter() {
            for claim in history.iter() {
                if let Some(since) = self.new_since(*place, claim, learned) {
                    late.note(*place, since.saturating_sub(self.sources.slack(claim.source)));
                }
            }
        }
        late
    }

    /// Since when it says something new, as of what was known at `learned`.
    fn new_since(&self, place: Place, claim: &Claim, learned: i64) -> Option<i64> {
        let mut since = None;
        let mut note = |at: i64, told: i64| {
            if told > learned && told.saturating_sub(at) > PROMPT {
                since = Some(since.map_or(at, |own: i64| own.min(at)));
            }
        };
        note(claim.from, claim.learned_at);
        if claim.to != i64::MAX {
            note(claim.to, claim.closed_at);
        }
        for number in [claim.subject, claim.who] {
            let Some(subject) = self.subjects.get(number) else { continue };
            for end in subject.ends.iter().filter(|end| end.frees(place)) {
                note(end.at, end.learned_at);
            }
            if let Some(alias) = &subject.alias {
                note(claim.from, alias.learned_at);
            }
        }
        since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> (IpAddr, u8) {
        ([10, 0, 0, last].into(), 32)
    }

    #[test]
    fn rows_are_few_parts_whatever_was_late() {
        const SECOND: i64 = 1_000_000_000;
        let now = 100 * 86_400 * SECOND;
        let mut late = Late::default();
        assert!(late.is_empty() && late.clone().rows(now, 0).is_empty());
        late.note_range(ip(1), now - 60 * SECOND);
        late.note_range(ip(2), now - 50 * SECOND);
        late.note_range(ip(2), now - 70 * SECOND);
        late.note_range(([10, 1, 0, 0].into(), 16), 0);
        let rows = late.clone().rows(now, 0);
        assert_eq!(
            rows,
            [
                LateRows { from: now - 70 * SECOND, to: now, ranges: vec![ip(1), ip(2)] },
                LateRows { from: 0, to: now, ranges: vec![([10, 1, 0, 0].into(), 16)] },
            ]
        );
        // A source that was away: all rows of that time, and what is older by itself.
        late.note_anyone(now - 600 * SECOND);
        let rows = late.rows(now, 0);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1], LateRows { from: now - 600 * SECOND, to: now, ranges: Vec::new() });
    }

    #[test]
    fn many_keys_are_one_part_and_bounded() {
        let mut late = Late::default();
        for number in 0..50_000_u32 {
            late.note_range((std::net::Ipv4Addr::from(number).into(), 32), i64::from(number) + 7);
        }
        assert_eq!(late.clone().rows(1_000_000, 0), [LateRows { from: 7, to: 1_000_000, ranges: Vec::new() }]);
        for number in 50_000..200_000_u32 {
            late.note_range((std::net::Ipv4Addr::from(number).into(), 32), i64::from(number));
        }
        assert!(late.ranges.len() <= MOST);
        assert_eq!(late.rows(1_000_000, 0).last().map(|rows| rows.from), Some(7));
    }
}
