//! What events change.

use std::sync::Arc;

use super::Timeline;
use super::attributes::{self, Told};
use super::history::{Claim, Context};
use super::keys::{Place, name_of};
use super::subjects::{Alias, End, Scope};
use super::view::{Entry, View};
use crate::event::IdentityEvent;
use crate::identity::{Identity, Interval, Key, Member};

impl Timeline {
    /// Applies an event.
    pub fn apply(&mut self, event: &IdentityEvent) {
        self.begin(event.clone());
        self.advance(usize::MAX);
    }

    /// Begins to apply an event: what takes long is left to [`Self::advance`].
    pub fn begin(&mut self, event: IdentityEvent) {
        // In the order in which they were told.
        self.advance(usize::MAX);
        match event {
            IdentityEvent::Learned(interval) => self.learn(&interval),
            IdentityEvent::Described { identity, from, learned_at, source } => {
                self.describe(&identity, from, learned_at, &source);
            }
            IdentityEvent::Same { alias, identity, member, learned_at, source } => {
                self.same((&alias, &identity), member, learned_at, &source);
            }
            IdentityEvent::Ended { identity, at, learned_at, source } => {
                let source = self.source(&source);
                self.end(&identity, &End { at, learned_at, source, scope: Scope::All });
            }
            IdentityEvent::Parted { identity, network, at, learned_at, source } => {
                let source = self.source(&source);
                self.part((&identity, &network), (at, learned_at), source);
            }
            IdentityEvent::Network { index, netns, network, at } => {
                Arc::make_mut(&mut self.view.attachments).attach(netns, index, &network, at);
            }
            IdentityEvent::Reconciled(snapshot) => self.reconcile(snapshot),
            IdentityEvent::NamespaceGone { inode, at } => {
                Arc::make_mut(&mut self.view.attachments).detach_all(inode, at);
            }
            IdentityEvent::Heard { source, at } => {
                let number = self.source(&source);
                self.hear(number, at);
            }
            IdentityEvent::Translated(_) | IdentityEvent::Connected(_) | IdentityEvent::Namespace { .. } => {}
        }
    }

    /// A source is in touch.
    pub(super) fn hear(&mut self, source: u8, at: i64) {
        let before = Arc::make_mut(&mut self.view.sources).hear(source, at);
        self.note_heard(source, before, at);
    }

    pub(super) fn source(&mut self, source: &Arc<str>) -> u8 {
        Arc::make_mut(&mut self.view.sources).intern(source)
    }

    pub(super) fn place_of(&mut self, key: &Key) -> Place {
        if let Some(place) = self.view.names.place(key) {
            return place;
        }
        Arc::make_mut(&mut self.view.names).intern(name_of(key));
        // Its name is known now.
        self.view.names.place(key).unwrap_or(Place::Ip { network: 0, ip: std::net::Ipv4Addr::UNSPECIFIED.into() })
    }

    pub(super) fn subject_of(&mut self, id: &Arc<str>) -> u32 {
        self.view.subjects.intern(id)
    }

    /// Takes attributes; whether they are new.
    pub(super) fn describe(&mut self, identity: &Arc<Identity>, from: i64, learned_at: i64, source: &Arc<str>) {
        let (number, source) = (self.subject_of(&identity.identity), self.source(source));
        if attributes::is_bare(identity) {
            return;
        }
        let told = Told::new(source, (from, learned_at), identity, &mut self.shared);
        let Some(subject) = self.view.subjects.get_mut(number) else { return };
        if !attributes::tell(&mut subject.told, told) {
            return;
        }
        self.touch(number);
        self.forget_versions(number);
    }

    /// What is known of a subject besides its keys has changed.
    fn forget_versions(&mut self, number: u32) {
        self.view.subjects.forget_versions(number);
        for place in self.keys(self.view.subjects.canonical(number)) {
            if self.view.histories.get(&place).is_some_and(Entry::is_named)
                && let Some(entry) = self.view.histories.get_mut(&place)
            {
                entry.forget_name();
            }
        }
    }

    pub(super) fn learn(&mut self, interval: &Interval) {
        let Interval { key, identity, valid_from, valid_to, learned_at, source } = interval;
        let (place, subject) = (self.place_of(key), self.subject_of(&identity.identity));
        self.describe(identity, *valid_from, *learned_at, source);
        let source = self.source(source);
        let mut claim = Claim::new(subject, source, *valid_from, *learned_at);
        claim.to = valid_to.unwrap_or(i64::MAX);
        // One that has a history was noted with its first claim.
        self.note_key(place, subject, self.view.histories.get(&place).is_none());
        let View { histories, subjects, sources, .. } = &mut self.view;
        let context = Context { place, subjects, sources };
        let Some(history) = histories.entry(&place, Entry::default) else { return };
        let history = history.history_mut();
        // Of what was learned after a gap the beginning was taken later than its source tells.
        if claim.to != i64::MAX
            && let Some(open) = history.open_of(subject, source, context)
            && (claim.from..=claim.from.saturating_add(context.sources.slack(source))).contains(&open.from)
        {
            claim.from = open.from;
        }
        let mut since = claim.from;
        let mut news = claim.from;
        if let Some(same) = history.find_mut(subject, source, claim.from) {
            // What has ended does not begin again at the same time.
            if claim.to == i64::MAX || claim.to == same.to {
                return;
            }
            news = claim.to;
            same.close(claim.to, false, claim.learned_at);
        } else if let Some(lasting) = history.lasting(&claim, context) {
            if claim.to == i64::MAX {
                return;
            }
            (since, news) = (lasting.from, claim.to);
            lasting.close(claim.to, false, claim.learned_at);
        } else if !history.begin_earlier(&claim, context) {
            history.insert(claim);
        }
        self.touch(subject);
        self.resolve(place, since);
        self.note_late(place, news, source);
    }

    pub(super) fn note_key(&mut self, place: Place, subject: u32, is_new: bool) {
        if is_new {
            self.note_place(place);
        }
        if self.view.subjects.get(subject).is_some_and(|own| !own.keys.contains(&place))
            && let Some(own) = self.view.subjects.get_mut(subject)
        {
            own.keys.reserve_exact(1 + own.keys.len() / 4);
            own.keys.push(place);
            own.had_keys = true;
        }
    }

    fn note_place(&mut self, place: Place) {
        if !self.view.ranges.has(place) {
            Arc::make_mut(&mut self.view.ranges).note(place);
        }
        if let Place::Ip { network, ip } = place
            && let Some(networks) = self.view.networks_of_ip.entry(&ip, Vec::new)
            && !networks.contains(&network)
        {
            networks.push(network);
            self.view.in_several += usize::from(networks.len() == 2);
        }
    }

    /// Keys of one, by the names that it was told of.
    fn keys(&self, subject: u32) -> Vec<Place> {
        let mut keys: Vec<Place> = Vec::new();
        for name in self.view.subjects.with_names(subject) {
            for place in self.view.subjects.get(name).into_iter().flat_map(|own| &own.keys) {
                if !keys.contains(place) {
                    keys.push(*place);
                }
            }
        }
        keys
    }

    /// Applies an end to all keys that it may free.
    fn end(&mut self, identity: &Arc<str>, end: &End) {
        let subject = self.subject_of(identity);
        if !self.view.subjects.end(subject, end.clone()) {
            return;
        }
        self.touch(subject);
        let names = self.view.subjects.with_names(subject);
        for place in self.keys(subject).into_iter().filter(|place| end.frees(*place)) {
            let since = self.view.histories.get(&place).and_then(|history| history.since(&names));
            self.resolve(place, since.unwrap_or(end.at));
            self.note_late(place, end.at, end.source);
            let canonical = self.view.subjects.canonical(subject);
            let mut claims = self.view.histories.get(&place).into_iter().flat_map(|history| history.iter());
            let ended = claims.any(|claim| claim.who == canonical && claim.held_to == end.at);
            if let Place::Interface { index, netns, .. } = place
                && ended
            {
                Arc::make_mut(&mut self.view.attachments).detach(netns, index, end.at);
            }
        }
    }

    fn part(&mut self, (identity, network): (&Arc<str>, &Arc<str>), (at, learned_at): (i64, i64), source: u8) {
        let subject = self.subject_of(identity);
        let end = |scope| End { at, learned_at, source, scope };
        // An interface is of the network that it is attached to.
        for place in self.keys(subject) {
            let Place::Interface { index, netns, .. } = place else { continue };
            let attached = self.view.attachments.network(netns, index, at.saturating_sub(1).into());
            if attached == Some(network) {
                self.end(identity, &end(Scope::Place(Box::new(place))));
            }
        }
        let number = Arc::make_mut(&mut self.view.names).intern(network);
        self.end(identity, &end(Scope::Network(number)));
    }

    fn same(&mut self, (name, of): (&Arc<str>, &Arc<str>), member: Option<Member>, learned_at: i64, source: &Arc<str>) {
        let source = self.source(source);
        let (name, of) = (self.subject_of(name), self.subject_of(of));
        let before = self.view.subjects.canonical(name);
        let alias = Alias { of, member: member.map(Arc::new), learned_at, source };
        if !self.view.subjects.link(name, alias) {
            return;
        }
        self.touch(name);
        self.forget_versions(before);
        self.forget_versions(of);
        for place in self.keys(name) {
            let names = self.view.subjects.with_names(of);
            if let Some(since) = self.view.histories.get(&place).and_then(|history| history.since(&names)) {
                self.resolve(place, since);
                self.note_late(place, since, source);
            }
        }
    }

    /// Computes a history anew from a time on, and notes what changed.
    pub(super) fn resolve(&mut self, place: Place, since: i64) {
        let View { histories, subjects, sources, .. } = &mut self.view;
        let context = Context { place, subjects, sources };
        let Some(history) = histories.get_mut(&place) else { return };
        let changed = history.history_mut().resolve(since, context);
        history.renew();
        self.note(place, &changed);
    }

    /// Keeps the set of what lasts.
    pub(super) fn note(&mut self, place: Place, changed: &[Claim]) {
        for claim in changed {
            let open = self.open.entry(claim.source).or_default();
            let lasts = |own: &Claim| own.is_open() && own.subject == claim.subject && own.source == claim.source;
            if self.view.histories.get(&place).is_some_and(|history| history.iter().any(lasts)) {
                open.insert((place, claim.subject));
            } else {
                open.remove(&(place, claim.subject));
            }
        }
    }

    /// What is known of a subject is to be persisted anew.
    pub(super) fn touch(&mut self, subject: u32) {
        self.touched.insert(subject);
    }

    /// Claims that last now, by source.
    pub fn lasting(&self) -> Vec<(Arc<str>, u64)> {
        self.open.iter().map(|(source, open)| (self.view.sources.name(*source), open.len() as u64)).collect()
    }
}
