//! What was told of one key, in the order of beginnings, and what follows from it: who held the key, and when.
//!
//! A claim is what one source told. When it ended, and whether it counts at all, follows from all that was told:
//!
//! 1. It ended when its source or an exact one says that it, or its identity, ended ([`Ending::Sure`]).
//! 2. Without that, when a source with inexact times says so, give or take [`super::UNCERTAIN`].
//! 3. Without that, when the source was last heard, if the source then no longer told of it ([`Ending::Unheard`]); or when the
//!    same source says that someone else begins to hold the key ([`Ending::Replaced`]). Such ends give way to better ones. The static
//!    file says each time all that holds: of it there are no such ends, and a key that it gives to two is held by both.
//! 4. A claim with inexact times has no say about times of which an exact one of the same key and identity knows.
//!
//! A key is held by many over its life (an address of a busy network by a new container every second). So beside each
//! claim stands the latest end of it and all before it: a search back stops there, and so does what is computed anew after
//! a change.

use std::collections::HashMap;

use super::keys::Place;
use super::sources::{Sources, UNCERTAIN};
use super::subjects::{End, Subjects};

/// How the end of a claim is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It lasts.
    Open,
    /// It was told.
    Sure,
    /// The source was away and then no longer told of it.
    Unheard,
    /// The same source told of another.
    Replaced,
}

/// What one source told of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent of each other, and a byte each in what there are millions of"
)]
pub(super) struct Claim {
    /// Of whom, by the name that was told.
    pub(super) subject: u32,
    pub(super) source: u8,
    pub(super) from: i64,
    /// Its end, if one was told of just this claim; [`i64::MAX`] otherwise.
    pub(super) to: i64,
    /// Whether `to` is only the time at which the source was last heard.
    pub(super) unheard: bool,
    pub(super) learned_at: i64,
    /// When `to` was learned.
    pub(super) closed_at: i64,
    /// Who that is. This and what follows is computed.
    pub(super) who: u32,
    pub(super) held_from: i64,
    pub(super) held_to: i64,
    /// Whether beginning and end may be off by [`UNCERTAIN`].
    pub(super) early: bool,
    pub(super) late: bool,
    pub(super) ending: Ending,
    /// An exact claim says the same.
    pub(super) covered: bool,
    /// Latest possible end of this and all before.
    reach: i64,
}

impl Claim {
    /// A claim as it was told.
    pub(super) fn new(subject: u32, source: u8, from: i64, learned_at: i64) -> Self {
        Self {
            subject,
            source,
            from,
            to: i64::MAX,
            unheard: false,
            learned_at,
            closed_at: learned_at,
            who: subject,
            held_from: from,
            held_to: i64::MAX,
            early: false,
            late: false,
            ending: Ending::Unheard,
            covered: false,
            reach: i64::MAX,
        }
    }

    /// Whether it lasts, by all that was told.
    pub(super) fn is_open(&self) -> bool {
        self.ending == Ending::Open
    }

    /// Whether it counts. One with an inexact time that ends where it begins was short, and somewhere near.
    fn is_held(&self) -> bool {
        !self.covered && (self.held_to > self.held_from || self.early || self.late)
    }

    /// Whether it may share an instant with `[from, to]`.
    pub(super) fn may_touch(&self, from: i64, to: i64) -> bool {
        self.is_held()
            && self.held_from.saturating_sub(slack(self.early)) <= to
            && self.held_to.saturating_add(slack(self.late)) > from
    }

    /// Until when it was there for certain: an end that is told late may have been earlier.
    pub(super) fn sure_to(&self) -> i64 {
        self.held_to.saturating_sub(slack(self.late))
    }

    fn ended(&self, before: i64) -> bool {
        self.held_to.saturating_add(UNCERTAIN) < before
    }

    /// The latest instant that it may reach.
    fn end(&self) -> i64 {
        self.held_to.max(self.from).saturating_add(slack(self.late))
    }

    /// Closes it, as its own source tells.
    pub(super) fn close(&mut self, to: i64, unheard: bool, learned_at: i64) {
        (self.to, self.unheard, self.closed_at) = (to, unheard, learned_at);
    }

    /// Whether it held at `at`, as far as is known, or began then give or take what its source may be off.
    pub(super) fn may_hold(&self, at: i64) -> bool {
        self.is_held() && self.held_from.saturating_sub(slack(self.early)) <= at && at < self.held_to
    }
}

/// What else the claims of a key depend on.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) place: Place,
    pub(super) subjects: &'a Subjects,
    pub(super) sources: &'a Sources,
}

impl<'a> Context<'a> {
    /// Ends of the claim's identity, which is `canonical`, in the order of time.
    fn ends(self, claim: &Claim, canonical: u32) -> impl Iterator<Item = &'a End> {
        let other = (canonical != claim.subject).then_some(canonical);
        let subjects = std::iter::once(claim.subject).chain(other);
        let ends = subjects.filter_map(move |subject| self.subjects.get(subject)).flat_map(|subject| &subject.ends);
        ends.filter(move |end| end.frees(self.place))
    }

    /// Whether a claim may be the one that `new` goes on from, or that it ends: of a source that says each time all that holds, others
    /// stand beside it.
    fn is_neighbour(self, claim: &Claim, new: &Claim) -> bool {
        claim.source == new.source && (claim.subject == new.subject || !self.sources.is_complete(new.source))
    }

    /// Whether two claims are of two identities, or of two containers of one.
    fn is_another(self, claim: &Claim, next: &Claim) -> bool {
        if self.subjects.canonical(next.subject) != claim.who {
            return true;
        }
        let (one, other) = (self.subjects.member(claim.subject), self.subjects.member(next.subject));
        one.zip(other).is_some_and(|(one, other)| one.container != other.container)
    }

    /// The first end of a claim that `accept`ed sources tell.
    fn first_end(self, claim: &Claim, slack: i64, accept: impl Fn(u8) -> bool) -> Option<i64> {
        let after = claim.from.saturating_sub(slack);
        let ends = self.ends(claim, self.subjects.canonical(claim.subject));
        let accepted = ends.filter(|end| accept(end.source) && end.at >= after);
        accepted.map(|end| end.at.max(claim.from)).min()
    }

    /// The first ends of a claim, of which it is known who it is, that exact and that inexact sources tell.
    fn first_ends(self, claim: &Claim) -> (Option<i64>, Option<i64>) {
        let slack = self.sources.slack(claim.source);
        let (mut exact, mut vague) = (None, None);
        for end in self.ends(claim, claim.who) {
            let is_loose = self.sources.is_loose(end.source);
            let after = claim.from.saturating_sub(if is_loose { UNCERTAIN } else { slack });
            if end.at >= after {
                let first = if is_loose { &mut vague } else { &mut exact };
                *first = least(*first, Some(end.at.max(claim.from)));
            }
        }
        (exact, vague)
    }
}

/// When the last claim is sure: then the answer is its identity, and nothing else need be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sure {
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) subject: u32,
    pub(super) source: u8,
}

impl Default for Sure {
    /// Never.
    fn default() -> Self {
        Self { from: i64::MAX, to: i64::MIN, subject: 0, source: 0 }
    }
}

/// See the module documentation.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    claims: Vec<Claim>,
}

impl History {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Claim> {
        self.claims.iter()
    }

    /// The time of the last claim that holds in which nobody else can have held the key.
    pub(super) fn sure(&self) -> Sure {
        let held = self.claims.iter().enumerate().rev().find(|(_, claim)| claim.is_held());
        let Some((index, last)) = held else { return Sure::default() };
        let before = self.claims.iter().take(index).rev().take_while(|claim| claim.reach > last.held_from);
        // What is after the last one that holds is covered or empty.
        let others = before.filter(|claim| claim.is_held()).map(Claim::end).max();
        let from = others.map_or(last.held_from, |end| end.max(last.held_from));
        let Claim { subject, source, .. } = *last;
        Sure { from, to: last.sure_to(), subject, source }
    }

    /// Claims that may share an instant with `[from, to]`, latest beginning first.
    pub(super) fn touching(&self, from: i64, to: i64) -> impl Iterator<Item = &Claim> {
        let begun = self.claims.partition_point(|claim| claim.from.saturating_sub(UNCERTAIN) <= to);
        let near = self.claims.iter().take(begun).rev().take_while(move |claim| claim.reach > from);
        near.filter(move |claim| claim.may_touch(from, to))
    }

    /// The claim of one beginning.
    pub(super) fn find_mut(&mut self, subject: u32, source: u8, from: i64) -> Option<&mut Claim> {
        let first = self.claims.partition_point(|claim| claim.from < from);
        let mut same = self.claims.iter_mut().skip(first).take_while(|claim| claim.from == from);
        same.find(|claim| claim.subject == subject && claim.source == source)
    }

    /// The claim that, by all that its source told, lasts at `at`.
    pub(super) fn lasting(&mut self, new: &Claim, context: Context<'_>) -> Option<&mut Claim> {
        let begun = self.claims.partition_point(|claim| claim.from <= new.from);
        let last = self.claims.iter_mut().take(begun).rev().find(|claim| context.is_neighbour(claim, new))?;
        let is_same = last.subject == new.subject;
        let own_end = context.first_end(last, context.sources.slack(last.source), |source| source == last.source);
        (is_same && last.to == i64::MAX && own_end.is_none_or(|end| end > new.from)).then_some(last)
    }

    /// Where the source told first of a later beginning of the same, it began when `new` does; whether that is so.
    pub(super) fn begin_earlier(&mut self, new: &Claim, context: Context<'_>) -> bool {
        let begun = self.claims.partition_point(|claim| claim.from <= new.from);
        let mut later = self.claims.iter().enumerate().skip(begun);
        let next = later.find(|(_, claim)| context.is_neighbour(claim, new));
        let Some((index, next)) = next.filter(|(_, next)| next.subject == new.subject) else { return false };
        let own_end = context.first_end(new, context.sources.slack(new.source), |source| source == new.source);
        let is_same = new.to == i64::MAX && next.to == i64::MAX && own_end.is_none_or(|end| end > next.from);
        if is_same {
            let same = self.claims.remove(index);
            self.insert(Claim { from: new.from, ..same });
        }
        is_same
    }

    /// The claim that a source left open, by all that it told.
    pub(super) fn open_of(&self, subject: u32, source: u8, context: Context<'_>) -> Option<&Claim> {
        let mut own = self.claims.iter().enumerate().rev().filter(|(_, claim)| claim.source == source);
        own.find(|(index, claim)| {
            let is_open = claim.subject == subject && claim.to == i64::MAX;
            is_open && self.own_end(*index, claim, context).is_none()
        })
        .map(|(_, claim)| claim)
    }

    /// The end of a claim by all that its own source told.
    fn own_end(&self, index: usize, claim: &Claim, context: Context<'_>) -> Option<i64> {
        let told = context.first_end(claim, context.sources.slack(claim.source), |source| source == claim.source);
        told.or_else(|| self.next_of_source(index, claim, context))
    }

    pub(super) fn insert(&mut self, claim: Claim) {
        let at = self.claims.partition_point(|own| own.from <= claim.from);
        // In order until it is computed.
        let reach = at.checked_sub(1).and_then(|before| self.claims.get(before)).map_or(i64::MIN, |own| own.reach);
        if self.claims.len() == self.claims.capacity() {
            self.claims.reserve_exact(1 + self.claims.len() / 4);
        }
        self.claims.insert(at, Claim { reach, ..claim });
    }

    /// Claims that ended after `after`, and only because their source told of another.
    pub(super) fn replaced_after(&self, source: u8, after: i64) -> impl Iterator<Item = &Claim> {
        let near = self.claims.iter().rev().take_while(move |claim| claim.reach > after);
        near.filter(move |claim| claim.source == source && claim.ending == Ending::Replaced && claim.held_to > after)
    }

    /// The latest end that a source is sure of, up to `at`.
    pub(super) fn last_end(&self, source: u8, at: i64) -> Option<i64> {
        let own = self.claims.iter().filter(|claim| claim.source == source && claim.held_to <= at);
        own.map(|claim| claim.held_to).max()
    }

    /// Earliest beginning of a claim of one of `subjects`.
    pub(super) fn since(&self, subjects: &[u32]) -> Option<i64> {
        self.claims.iter().find(|claim| subjects.contains(&claim.subject)).map(|claim| claim.from)
    }

    /// Computes anew what follows from what was told, as far as a change at `since` can matter; gives the
    /// claims that now last or no longer do.
    pub(super) fn resolve(&mut self, since: i64, context: Context<'_>) -> Vec<Claim> {
        let limit = since.saturating_sub(2 * UNCERTAIN);
        let ended = self.claims.partition_point(|claim| claim.reach < limit);
        let first = self.claims.partition_point(|claim| claim.from < limit).min(ended);
        let before: Vec<Claim> = self.claims.iter().skip(first).copied().collect();
        for index in first..self.claims.len() {
            let Some(mut claim) = self.claims.get(index).copied() else { continue };
            claim.who = context.subjects.canonical(claim.subject);
            claim.covered = false;
            claim.held_from = claim.from;
            self.end(index, &mut claim, context);
            if let Some(place) = self.claims.get_mut(index) {
                *place = claim;
            }
        }
        self.cover(first, context);
        let mut reach = first.checked_sub(1).and_then(|last| self.claims.get(last)).map_or(i64::MIN, |last| last.reach);
        for claim in self.claims.iter_mut().skip(first) {
            reach = reach.max(claim.end());
            claim.reach = reach;
        }
        let pairs = self.claims.iter().skip(first).zip(before);
        pairs.filter(|(now, before)| now.is_open() != before.is_open()).map(|(now, _)| *now).collect()
    }

    /// Rules 1 to 3.
    fn end(&self, index: usize, claim: &mut Claim, context: Context<'_>) {
        let slack = context.sources.slack(claim.source);
        let told = (!claim.unheard && claim.to != i64::MAX).then_some(claim.to);
        let unheard = (claim.unheard && claim.to != i64::MAX).then_some(claim.to);
        let (exact, vague) = context.first_ends(claim);
        let (exact, vague) = if slack == 0 { (least(told, exact), vague) } else { (exact, least(told, vague)) };
        claim.early = slack > 0;
        claim.late = false;
        claim.ending = Ending::Sure;
        claim.held_to = match (exact, vague) {
            // Of the same end the exact time counts. Of two ends of an inexact claim the first counts.
            (Some(exact), Some(vague)) if slack > 0 && vague.saturating_add(slack) < exact => {
                claim.late = true;
                vague
            }
            (Some(exact), Some(_) | None) => exact,
            (None, Some(vague)) => {
                claim.late = true;
                vague
            }
            (None, None) => {
                claim.ending = Ending::Open;
                i64::MAX
            }
        };
        if let Some(unheard) = unheard.filter(|unheard| *unheard < claim.held_to) {
            (claim.held_to, claim.late, claim.ending) = (unheard, slack > 0, Ending::Unheard);
        }
        // An exact source knows better who began than an inexact one who ended.
        if (claim.ending == Ending::Open || (slack == 0 && claim.late))
            && let Some(next) = self.next_of_source(index, claim, context).filter(|next| *next < claim.held_to)
        {
            (claim.held_to, claim.late, claim.ending) = (next, slack > 0, Ending::Replaced);
        }
        claim.held_to = claim.held_to.max(claim.from);
    }

    /// When the same source says that someone else begins.
    fn next_of_source(&self, index: usize, claim: &Claim, context: Context<'_>) -> Option<i64> {
        if context.sources.is_complete(claim.source) {
            return None;
        }
        let later = self.claims.iter().skip(index + 1).filter(|next| next.from > claim.from);
        let mut of_source = later.filter(|next| next.source == claim.source);
        of_source.find(|next| context.is_another(claim, next)).map(|next| next.from)
    }

    /// Rule 4.
    fn cover(&mut self, first: usize, context: Context<'_>) {
        let is_loose = |claim: &Claim| context.sources.is_loose(claim.source);
        let mut exact: HashMap<u32, Vec<Claim>> = HashMap::new();
        let loose = self.claims.iter().skip(first).filter(|claim| is_loose(claim));
        if let Some(earliest) = loose.map(|claim| claim.from.saturating_sub(UNCERTAIN)).min() {
            // Also those before, which may have ended where an inexact one begins.
            let before = self.claims.iter().take(first).rev().take_while(|claim| claim.reach >= earliest);
            for claim in before.chain(self.claims.iter().skip(first)).filter(|claim| !is_loose(claim)) {
                exact.entry(claim.who).or_default().push(*claim);
            }
        }
        if exact.is_empty() {
            return;
        }
        for claim in self.claims.iter_mut().skip(first).filter(|claim| is_loose(claim)) {
            for known in exact.get(&claim.who).into_iter().flatten() {
                let apart = known.from > claim.held_to.saturating_add(UNCERTAIN)
                    || known.end() < claim.from.saturating_sub(UNCERTAIN);
                if apart {
                    continue;
                }
                match known.ending {
                    Ending::Open | Ending::Sure => claim.covered = true,
                    // It may have lasted longer, and the inexact one knows.
                    Ending::Unheard | Ending::Replaced => {
                        claim.held_from = claim.held_from.max(known.held_to);
                        claim.early = false;
                    }
                }
            }
        }
    }

    /// Whether something ended before `before`.
    pub(super) fn has_ended(&self, before: i64) -> bool {
        self.claims.iter().any(|claim| claim.ended(before))
    }

    /// Forgets what ended before `before`; gives what was forgotten.
    pub(super) fn expire(&mut self, before: i64) -> Vec<Claim> {
        let gone = self.claims.iter().copied().filter(|claim| claim.ended(before)).collect();
        self.claims.retain(|claim| !claim.ended(before));
        let mut reach = i64::MIN;
        for claim in &mut self.claims {
            reach = reach.max(claim.end());
            claim.reach = reach;
        }
        gone
    }
}

fn slack(is_loose: bool) -> i64 {
    if is_loose { UNCERTAIN } else { 0 }
}

fn least(one: Option<i64>, other: Option<i64>) -> Option<i64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
