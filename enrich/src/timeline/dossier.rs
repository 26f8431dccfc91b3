//! What is persisted: all that was told of one name, as it was told. A timeline is the sum of its dossiers.
//!
//! What was told later stands beside what was told before, each with the time at which it was learned: what was known at
//! some time are the dossiers [as of then](Dossier::as_known_at).

use std::sync::Arc;

use super::Timeline;
use super::attributes::{self, Told};
use super::history::{Claim, Context};
use super::keys::Place;
use super::subjects::{Alias, End, Scope};
use super::view::{Entry, View};
use crate::identity::{Identity, Key, Member};

/// See the module documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dossier {
    /// The name: an identity, or another name of one.
    pub id: Arc<str>,
    /// Whom it stands for.
    pub alias: Option<AliasFact>,
    /// What it is.
    pub attributes: Vec<AttributesFact>,
    /// Which keys it had.
    pub claims: Vec<ClaimFact>,
    /// When it ended.
    pub ends: Vec<EndFact>,
}

/// The name stands for an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasFact {
    /// Which.
    pub identity: Arc<str>,
    /// The container of the pod, if it is one.
    pub member: Option<Member>,
    /// The source.
    pub source: Arc<str>,
    /// When that was learned.
    pub learned_at: i64,
}

/// Attributes from a time on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributesFact {
    /// What the source knows, but for the id and the names below: many have that in common.
    pub base: Arc<Identity>,
    /// Name of the pod.
    pub pod: Option<Arc<str>>,
    /// Name of the container.
    pub container: Option<Arc<str>>,
    /// The source.
    pub source: Arc<str>,
    /// Since when.
    pub from: i64,
    /// When that was learned.
    pub learned_at: i64,
}

/// A key from a time on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimFact {
    /// Which.
    pub key: Key,
    /// The source.
    pub source: Arc<str>,
    /// Since when.
    pub from: i64,
    /// When that was learned.
    pub learned_at: i64,
    /// Its end, if the source told one of just this.
    pub closed: Option<Closed>,
}

/// The end of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// When.
    pub to: i64,
    /// Whether that is only when the source was last heard.
    pub unheard: bool,
    /// When that was learned.
    pub learned_at: i64,
}

/// The end of all keys, of those in a network, or of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndFact {
    /// When.
    pub at: i64,
    /// The source.
    pub source: Arc<str>,
    /// When that was learned.
    pub learned_at: i64,
    /// What it frees.
    pub frees: Frees,
}

/// What an end frees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frees {
    /// All keys.
    All,
    /// Those in a network.
    Network(Arc<str>),
    /// One.
    Key(Key),
}

impl Dossier {
    /// What of it was known at `at`; `None` if nothing.
    pub fn as_known_at(mut self, at: i64) -> Option<Self> {
        self.alias = self.alias.filter(|alias| alias.learned_at <= at);
        self.attributes.retain(|fact| fact.learned_at <= at);
        self.claims.retain(|fact| fact.learned_at <= at);
        for claim in &mut self.claims {
            claim.closed = claim.closed.filter(|closed| closed.learned_at <= at);
        }
        self.ends.retain(|fact| fact.learned_at <= at);
        let is_empty =
            self.alias.is_none() && self.attributes.is_empty() && self.claims.is_empty() && self.ends.is_empty();
        (!is_empty).then_some(self)
    }

    /// The latest time that it tells of; [`i64::MAX`] while something of it lasts. Of a name without a word of its own that is when it
    /// was told: nobody tells of its end, and who knows of it tells it again after a start.
    pub fn until(&self) -> i64 {
        let end = self.ends.iter().filter(|end| end.frees == Frees::All).map(|end| end.at).max();
        // An end does not end what began after it.
        let ended = |claim: &ClaimFact| end.filter(|end| *end >= claim.from);
        let closed = |claim: &ClaimFact| claim.closed.map(|closed| closed.to).or(ended(claim)).unwrap_or(i64::MAX);
        let learned = self.attributes.iter().map(|fact| fact.from.max(fact.learned_at)).max();
        let named = self.alias.as_ref().map(|alias| alias.learned_at);
        let own = self.claims.iter().map(closed).chain(end).chain(learned).chain(named).max();
        let lasts = self.claims.is_empty() && end.is_none() && (named.is_none() || learned.is_some());
        if lasts { i64::MAX } else { own.unwrap_or(i64::MAX) }
    }
}

impl View {
    /// All that was told of one name.
    pub fn dossier(&self, id: &str) -> Option<Dossier> {
        self.dossier_of(self.subjects.number(id)?)
    }

    /// All of them.
    pub fn dossiers(&self) -> impl Iterator<Item = Dossier> {
        let chunks = (0..self.subjects.chunks()).flat_map(|chunk| self.subjects.chunk(chunk));
        chunks.filter_map(|(number, _)| self.dossier_of(number))
    }

    pub(super) fn dossier_of(&self, number: u32) -> Option<Dossier> {
        let own = self.subjects.get(number)?;
        let source = |source: u8| self.sources.name(source);
        let alias = own.alias.as_ref().and_then(|alias| {
            let identity = self.subjects.get(alias.of)?.id.clone();
            let member = alias.member.as_deref().cloned();
            Some(AliasFact { identity, member, source: source(alias.source), learned_at: alias.learned_at })
        });
        let attributes = own.told.iter().map(|told| AttributesFact {
            base: told.base.clone(),
            pod: told.pod.clone(),
            container: told.container.clone(),
            source: source(told.source),
            from: told.from,
            learned_at: told.learned_at,
        });
        let ends = own.ends.iter().map(|end| EndFact {
            at: end.at,
            source: source(end.source),
            learned_at: end.learned_at,
            frees: match &end.scope {
                Scope::All => Frees::All,
                Scope::Network(network) => Frees::Network(self.names.name(*network)),
                Scope::Place(place) => Frees::Key(self.names.key(**place)),
            },
        });
        let claims = own.keys.iter().flat_map(|place| self.claims_of(number, *place));
        Some(Dossier {
            id: own.id.clone(),
            alias,
            attributes: attributes.collect(),
            claims: claims.collect(),
            ends: ends.collect(),
        })
    }

    fn claims_of(&self, number: u32, place: Place) -> impl Iterator<Item = ClaimFact> {
        let history = self.histories.get(&place).into_iter().flat_map(|history| history.iter());
        history.filter(move |claim| claim.subject == number).map(move |claim| ClaimFact {
            key: self.names.key(place),
            source: self.sources.name(claim.source),
            from: claim.from,
            learned_at: claim.learned_at,
            closed: (claim.to != i64::MAX).then_some(Closed {
                to: claim.to,
                unheard: claim.unheard,
                learned_at: claim.closed_at,
            }),
        })
    }
}

impl Timeline {
    /// Whether something was told that [`Self::take_changes`] has not given yet.
    pub fn has_changes(&self) -> bool {
        !self.touched.is_empty()
    }

    /// At most `most` dossiers in which something is new since they were last asked for, to be persisted.
    pub fn take_changes(&mut self, most: usize) -> Vec<Dossier> {
        let taken: Vec<u32> = self.touched.iter().copied().take(most).collect();
        for number in &taken {
            self.touched.remove(number);
        }
        taken.into_iter().filter_map(|number| self.view.dossier_of(number)).collect()
    }

    /// They could not be persisted: they are to be given again.
    pub fn keep_changes(&mut self, dossiers: &[Dossier]) {
        self.touched.extend(dossiers.iter().filter_map(|dossier| self.view.subjects.number(&dossier.id)));
    }

    /// Takes dossiers as they were persisted, into an empty timeline.
    pub fn load(&mut self, dossiers: impl IntoIterator<Item = Dossier>) {
        for dossier in dossiers {
            self.load_one(dossier);
        }
        self.loaded();
    }

    /// All that was persisted is loaded: what follows from it is computed.
    pub fn loaded(&mut self) {
        self.shared.loaded();
        let View { histories, subjects, sources, .. } = &mut self.view;
        let (subjects, sources) = (&*subjects, &*sources);
        let changed = histories.change_all(|place, entry| {
            let context = Context { place: *place, subjects, sources };
            let changed = entry.history_mut().resolve(i64::MIN, context);
            entry.renew();
            (*place, changed)
        });
        for (place, changed) in changed {
            self.note(place, &changed);
        }
    }

    /// Takes the next dossier; after the last one, [`Self::loaded`] is to be called.
    pub fn load_one(&mut self, dossier: Dossier) {
        let subject = self.subject_of(&dossier.id);
        let Dossier { alias, attributes, claims, ends, .. } = dossier;
        if let Some(AliasFact { identity, member, source, learned_at }) = alias {
            let (of, source) = (self.subject_of(&identity), self.source(&source));
            let member = member.map(Arc::new);
            self.view.subjects.link(subject, Alias { of, member, learned_at, source });
        }
        for AttributesFact { base, pod, container, source, from, learned_at } in attributes {
            let (source, base) = (self.source(&source), self.shared.known(&base));
            let told = Told { source, from, learned_at, base, pod, container };
            if let Some(own) = self.view.subjects.get_mut(subject) {
                attributes::tell(&mut own.told, told);
            }
        }
        for EndFact { at, source, learned_at, frees } in ends {
            let source = self.source(&source);
            let scope = match frees {
                Frees::All => Scope::All,
                Frees::Network(network) => Scope::Network(Arc::make_mut(&mut self.view.names).intern(&network)),
                Frees::Key(key) => Scope::Place(Box::new(self.place_of(&key))),
            };
            self.view.subjects.end(subject, End { at, learned_at, source, scope });
        }
        for ClaimFact { key, source, from, learned_at, closed } in claims {
            let (place, source) = (self.place_of(&key), self.source(&source));
            let mut claim = Claim::new(subject, source, from, learned_at);
            if let Some(Closed { to, unheard, learned_at }) = closed {
                claim.close(to, unheard, learned_at);
            }
            let mut is_new = false;
            let entry = self.view.histories.entry(&place, || {
                is_new = true;
                Entry::default()
            });
            if let Some(entry) = entry {
                entry.history_mut().insert(claim);
            }
            self.note_key(place, subject, is_new);
        }
    }
}
