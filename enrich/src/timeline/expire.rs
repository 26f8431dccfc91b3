//! What is old is forgotten.

use std::collections::HashMap;
use std::sync::Arc;

use super::Timeline;
use super::keys::Place;
use super::subjects::{Scope, Subject};

/// Parts that are looked through at a time.
const PORTION: usize = 16;

/// How far forgetting has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expiry {
    before: i64,
    /// Part of the histories, then chunk of the subjects.
    next: usize,
}

impl Timeline {
    /// Forgets what ended before `before`.
    pub fn expire(&mut self, before: i64) {
        self.expire_from(before);
        while self.expire_some() {}
    }

    /// Begins to forget what ended before `before`, unless that is being done: [`Self::expire_some`] goes on.
    pub fn expire_from(&mut self, before: i64) {
        self.expiry.get_or_insert(Expiry { before, next: 0 });
    }

    /// Forgets the next of what is old; whether there may be more.
    pub fn expire_some(&mut self) -> bool {
        let Some(Expiry { before, next }) = self.expiry else { return false };
        let parts = self.view.histories.parts();
        for part in next..next + PORTION {
            match part.checked_sub(parts) {
                None => self.expire_part(part, before),
                Some(chunk) => self.expire_subjects(chunk, before),
            }
        }
        let next = next + PORTION;
        if next < parts + self.view.subjects.chunks() {
            self.expiry = Some(Expiry { before, next });
            return true;
        }
        Arc::make_mut(&mut self.view.attachments).expire(before);
        self.shared.expire();
        self.expiry = None;
        false
    }

    fn expire_part(&mut self, part: usize, before: i64) {
        let old = self.view.histories.part(part).filter(|(_, history)| history.has_ended(before));
        let old: Vec<Place> = old.map(|(place, _)| *place).collect();
        for place in old {
            let Some(history) = self.view.histories.get_mut(&place) else { continue };
            let gone = history.history_mut().expire(before);
            history.renew();
            let left: Vec<u32> = history.iter().map(|claim| claim.subject).collect();
            for claim in gone.iter().filter(|claim| !left.contains(&claim.subject)) {
                if let Some(subject) = self.view.subjects.get_mut(claim.subject) {
                    subject.keys.retain(|own| *own != place);
                }
            }
            if left.is_empty() {
                self.view.histories.remove(&place);
                self.forget_network(place);
            }
        }
    }

    fn forget_network(&mut self, place: Place) {
        let Place::Ip { network, ip } = place else { return };
        let Some(networks) = self.view.networks_of_ip.get_mut(&ip) else { return };
        let known = networks.len();
        networks.retain(|own| *own != network);
        self.view.in_several -= usize::from(known > 1 && networks.len() <= 1);
        if networks.is_empty() {
            self.view.networks_of_ip.remove(&ip);
        }
    }

    fn expire_subjects(&mut self, chunk: usize, before: i64) {
        let subjects = &self.view.subjects;
        let has_keys = |subject: &Subject| {
            let mut names = subject.names.iter().flat_map(|name| subjects.with_names(*name));
            let has_own = |name| subjects.get(name).is_some_and(|name| !name.keys.is_empty());
            !subject.keys.is_empty() || names.any(has_own)
        };
        let is_over = |subject: &Subject| {
            let ended = subject.ends.iter().any(|end| end.scope == Scope::All && end.at < before);
            let told = subject.told.iter().map(|told| told.learned_at.max(told.from));
            let last = told.chain(subject.alias.iter().map(|alias| alias.learned_at)).max();
            let may_go = ended || subject.had_keys || subject.alias.is_some() || subject.is_bare();
            may_go && last.is_none_or(|last| last < before)
        };
        // A pod may have thousands of names, which stand or fall with it.
        let mut standing: HashMap<u32, bool> = HashMap::new();
        let mut stands = |subject: &Subject| {
            // A name is kept for as long as what it stands for.
            let of = subject.alias.as_ref().and_then(|alias| subjects.get(alias.of).zip(Some(alias.of)));
            of.is_some_and(|(of, number)| *standing.entry(number).or_insert_with(|| has_keys(of) || !is_over(of)))
        };
        let mut is_old = |(_, own): &(u32, &Subject)| {
            // One of whom there are only names goes after them.
            let is_named = own.is_bare() && !own.names.is_empty();
            !is_named && is_over(own) && !has_keys(own) && !stands(own)
        };
        let old = subjects.chunk(chunk).filter(|own| is_old(own));
        let old: Vec<u32> = old.map(|(number, _)| number).collect();
        let ended = |own: &Subject| own.ends.iter().any(|end| end.scope == Scope::All);
        let idle: Vec<u32> = subjects
            .chunk(chunk)
            .filter(|(_, own)| own.has_versions() && ended(own))
            .map(|(number, _)| number)
            .collect();
        // Who is gone is seldom looked up.
        for number in idle {
            self.view.subjects.forget_versions(number);
        }
        for number in old {
            self.touched.remove(&number);
            self.view.subjects.remove(number);
        }
    }
}
