//! Everyone of whom something was told, by a number; which of them are the same; when they ended.
//!
//! What is told of another name (of a pod's sandbox, of a container in it) stays with that name, and is read as told of
//! the identity that the name stands for: so it does not matter which is told first.

use std::sync::{Arc, OnceLock};

use super::attributes::{self, Told, Versions};
use super::keys::Place;
use super::sharded::Sharded;
use super::sources::Sources;
use crate::identity::Member;

/// Names of names are followed so far; there is one step from a container to its pod.
const MOST_STEPS: usize = 4;

/// Ends of an identity that are remembered: one that is started again and again has many.
const MOST_ENDS: usize = 256;

/// What an end frees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// All keys.
    All,
    /// Those of a network.
    Network(u32),
    /// One.
    Place(Box<Place>),
}

/// An end that was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    pub(super) at: i64,
    pub(super) learned_at: i64,
    pub(super) source: u8,
    pub(super) scope: Scope,
}

impl End {
    pub(super) fn frees(&self, place: Place) -> bool {
        match &self.scope {
            Scope::All => true,
            Scope::Network(network) => place.network() == Some(*network),
            Scope::Place(own) => **own == place,
        }
    }
}

/// Whom a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Alias {
    pub(super) of: u32,
    pub(super) member: Option<Arc<Member>>,
    pub(super) learned_at: i64,
    pub(super) source: u8,
}

/// One of whom something was told.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) id: Arc<str>,
    pub(super) alias: Option<Box<Alias>>,
    /// The names that stand for it.
    pub(super) names: Vec<u32>,
    pub(super) told: Vec<Told>,
    /// Merged when they are asked for first.
    versions: OnceLock<Versions>,
    pub(super) keys: Vec<Place>,
    pub(super) ends: Vec<End>,
    pub(super) had_keys: bool,
}

const CHUNK: usize = 256;
type Chunk = Vec<Option<Arc<Subject>>>;

impl Subject {
    /// Whether its versions are merged.
    pub(super) fn has_versions(&self) -> bool {
        self.versions.get().is_some()
    }

    /// Whether nothing was told of it but its name.
    pub(super) fn is_bare(&self) -> bool {
        self.told.is_empty() && self.ends.is_empty() && self.keys.is_empty() && self.alias.is_none()
    }
}

/// See the module documentation.
#[derive(Debug, Clone, Default)]
pub(super) struct Subjects {
    numbers: Sharded<Arc<str>, u32, 8192>,
    chunks: Vec<Arc<Chunk>>,
    free: Arc<Vec<u32>>,
}

impl Subjects {
    pub(super) fn number(&self, id: &str) -> Option<u32> {
        self.numbers.get(id).copied()
    }

    pub(super) fn get(&self, number: u32) -> Option<&Subject> {
        let (chunk, index) = (number as usize / CHUNK, number as usize % CHUNK);
        self.chunks.get(chunk)?.get(index)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Subject> {
        let (chunk, index) = (number as usize / CHUNK, number as usize % CHUNK);
        let chunk = Arc::make_mut(self.chunks.get_mut(chunk)?);
        chunk.get_mut(index)?.as_mut().map(Arc::make_mut)
    }

    /// Those of a chunk.
    pub(super) fn chunk(&self, number: usize) -> impl Iterator<Item = (u32, &Subject)> {
        let first = u32::try_from(number * CHUNK).unwrap_or(u32::MAX);
        let chunk = self.chunks.get(number).into_iter().flat_map(|chunk| chunk.iter());
        chunk.zip(first..).filter_map(|(subject, number)| Some((number, subject.as_deref()?)))
    }

    pub(super) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// The number of an id, which from now on is known.
    pub(super) fn intern(&mut self, id: &Arc<str>) -> u32 {
        if let Some(number) = self.number(id) {
            return number;
        }
        let subject = Subject {
            id: id.clone(),
            alias: None,
            names: Vec::new(),
            told: Vec::new(),
            versions: OnceLock::new(),
            keys: Vec::new(),
            ends: Vec::new(),
            had_keys: false,
        };
        let number = self.place(subject);
        if let Some(own) = self.numbers.entry(id, || number) {
            *own = number;
        }
        number
    }

    fn place(&mut self, subject: Subject) -> u32 {
        let reused = Arc::make_mut(&mut self.free).pop();
        if self.chunks.last().is_none_or(|chunk| chunk.len() >= CHUNK) && reused.is_none() {
            self.chunks.push(Arc::new(Vec::with_capacity(CHUNK)));
        }
        let chunk = reused.map_or(self.chunks.len().saturating_sub(1), |number| number as usize / CHUNK);
        let Some(list) = self.chunks.get_mut(chunk).map(Arc::make_mut) else { return u32::MAX };
        let subject = Some(Arc::new(subject));
        if let Some(number) = reused {
            if let Some(slot) = list.get_mut(number as usize % CHUNK) {
                *slot = subject;
            }
            return number;
        }
        list.push(subject);
        u32::try_from(chunk * CHUNK + list.len() - 1).unwrap_or(u32::MAX)
    }

    /// Forgets one; nobody may refer to it any more.
    pub(super) fn remove(&mut self, number: u32) {
        let Some(subject) = self.get(number).cloned() else { return };
        self.numbers.remove(&subject.id);
        for name in subject.names {
            if let Some(name) = self.get_mut(name) {
                name.alias = None;
            }
        }
        if let Some(of) = subject.alias.and_then(|alias| self.get_mut(alias.of)) {
            of.names.retain(|name| *name != number);
        }
        let (chunk, index) = (number as usize / CHUNK, number as usize % CHUNK);
        if let Some(slot) = self.chunks.get_mut(chunk).map(Arc::make_mut).and_then(|chunk| chunk.get_mut(index)) {
            *slot = None;
            Arc::make_mut(&mut self.free).push(number);
        }
    }

    /// Whom a name stands for in the end.
    pub(super) fn canonical(&self, number: u32) -> u32 {
        let mut own = number;
        for _ in 0..MOST_STEPS {
            match self.get(own).and_then(|subject| subject.alias.as_ref()) {
                Some(alias) => own = alias.of,
                None => break,
            }
        }
        own
    }

    /// The container of a pod that a name stands for.
    pub(super) fn member(&self, number: u32) -> Option<&Arc<Member>> {
        let mut own = number;
        for _ in 0..MOST_STEPS {
            let alias = self.get(own)?.alias.as_ref()?;
            if alias.member.is_some() {
                return alias.member.as_ref();
            }
            own = alias.of;
        }
        None
    }

    /// A name and all names that stand for it: of a pod whose containers restart for weeks there are thousands.
    pub(super) fn with_names(&self, number: u32) -> Vec<u32> {
        let mut all = vec![number];
        let mut next = 0;
        for _ in 0..MOST_STEPS {
            let step = all.get(next..).unwrap_or_default().to_vec();
            next = all.len();
            all.extend(step.into_iter().filter_map(|own| self.get(own)).flat_map(|subject| &subject.names));
        }
        all
    }

    /// `alias` is another name for `alias.of`; whether that is new. The latest word counts.
    pub(super) fn link(&mut self, name: u32, alias: Alias) -> bool {
        let of = alias.of;
        if self.canonical(of) == name || of == name {
            return false;
        }
        let Some(subject) = self.get_mut(name) else { return false };
        let old = subject.alias.as_deref();
        let is_same = old.is_some_and(|old| old.of == of && (alias.member.is_none() || old.member == alias.member));
        if is_same || old.is_some_and(|old| old.of != of && old.learned_at > alias.learned_at) {
            return false;
        }
        let before = subject.alias.replace(Box::new(alias)).map(|old| old.of);
        if let Some(before) = before.and_then(|before| self.get_mut(before)) {
            before.names.retain(|own| *own != name);
        }
        if let Some(subject) = self.get_mut(of) {
            subject.names.push(name);
        }
        true
    }

    /// Notes an end; whether it is new.
    pub(super) fn end(&mut self, number: u32, end: End) -> bool {
        let Some(subject) = self.get_mut(number) else { return false };
        let is_same = |own: &End| (own.at, own.source, &own.scope) == (end.at, end.source, &end.scope);
        if subject.ends.iter().any(is_same) {
            return false;
        }
        if subject.ends.len() >= MOST_ENDS {
            subject.ends.remove(0);
        }
        let at = subject.ends.partition_point(|own| own.at <= end.at);
        // There are millions, and most have one.
        subject.ends.reserve_exact(1);
        subject.ends.insert(at, end);
        true
    }

    /// What is known of an identity and of its names has changed.
    pub(super) fn forget_versions(&mut self, number: u32) {
        for own in self.with_names(self.canonical(number)) {
            if self.get(own).is_some_and(|own| own.versions.get().is_some())
                && let Some(own) = self.get_mut(own)
            {
                own.versions = OnceLock::new();
            }
        }
    }

    /// The versions of a name, kept for the next time.
    pub(super) fn versions(&self, number: u32, sources: &Sources) -> Option<&Versions> {
        let own = self.get(number)?;
        if let Some(known) = own.versions.get() {
            return Some(known);
        }
        let merged = self.merge(number, sources)?;
        Some(own.versions.get_or_init(|| merged))
    }

    /// The versions of a name, merged anew.
    pub(super) fn merge(&self, number: u32, sources: &Sources) -> Option<Versions> {
        let (own, canonical) = (self.get(number)?, self.canonical(number));
        if let Some(known) = own.versions.get() {
            return Some(known.clone());
        }
        let identity = self.get(canonical)?;
        let all = self.with_names(canonical);
        let own_words = all.iter().filter(|own| self.member(**own).is_none());
        let log: Vec<&Told> = own_words.filter_map(|own| self.get(*own)).flat_map(|own| &own.told).collect();
        let versions = attributes::merge(&identity.id, &log, sources);
        Some(match self.member(number) {
            Some(member) => attributes::of_member(&versions, member, &own.told),
            None => versions,
        })
    }
}
