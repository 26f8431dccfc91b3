//! What is known of an identity besides its keys: a log by source, merged field by field.
//!
//! As of a time, each source says what it last said up to then (or, before it said anything, what it said first: a pod
//! has its labels before they are told). Of each field the source that counts most and knows it decides
//! ([`super::sources`]).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::sources::Sources;
use crate::identity::{Identity, Member};

/// What a source said of an identity from a time on. What pods of one workload share is there once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) source: u8,
    pub(super) from: i64,
    pub(super) learned_at: i64,
    /// All but id and names.
    pub(super) base: Arc<Identity>,
    pub(super) pod: Option<Arc<str>>,
    pub(super) container: Option<Arc<str>>,
}

impl Told {
    pub(super) fn new(source: u8, (from, learned_at): (i64, i64), identity: &Identity, shared: &mut Shared) -> Self {
        let (pod, container) = (identity.pod.clone(), identity.container.clone());
        Self { source, from, learned_at, base: shared.base(identity), pod, container }
    }

    /// The attributes, of `id`.
    pub(super) fn identity(&self, id: &Arc<str>) -> Identity {
        let (identity, pod, container) = (id.clone(), self.pod.clone(), self.container.clone());
        Identity { identity, pod, container, ..(*self.base).clone() }
    }

    fn says_the_same(&self, other: &Self) -> bool {
        self.base == other.base && self.pod == other.pod && self.container == other.container
    }
}

/// What many identities have in common: texts and attributes, each kept once.
#[derive(Debug, Default)]
pub(super) struct Shared {
    texts: HashSet<Arc<str>, RandomState>,
    bases: HashSet<Arc<Identity>, RandomState>,
    /// While a timeline is loaded: what a base that was given is here, by its address, at which it stays.
    loaded: HashMap<usize, Loaded, RandomState>,
}

#[derive(Debug)]
struct Loaded {
    _given: Arc<Identity>,
    known: Arc<Identity>,
}

impl Shared {
    /// A base that is loaded: many dossiers have one and the same, which is not compared again.
    pub(super) fn known(&mut self, base: &Arc<Identity>) -> Arc<Identity> {
        let address = Arc::as_ptr(base).addr();
        if let Some(Loaded { known, .. }) = self.loaded.get(&address) {
            return known.clone();
        }
        let known = self.bases.get(base).cloned().unwrap_or_else(|| self.base(base));
        self.loaded.insert(address, Loaded { _given: base.clone(), known: known.clone() });
        known
    }

    /// Nothing more is loaded.
    pub(super) fn loaded(&mut self) {
        self.loaded = HashMap::default();
    }

    fn base(&mut self, identity: &Identity) -> Arc<Identity> {
        let mut base = Identity { identity: Arc::default(), pod: None, container: None, ..identity.clone() };
        if let Some(known) = self.bases.get(&base) {
            return known.clone();
        }
        let fields = [
            &mut base.cluster,
            &mut base.host,
            &mut base.namespace,
            &mut base.workload,
            &mut base.workload_kind,
            &mut base.service,
            &mut base.image,
            &mut base.zone,
        ];
        for text in fields.into_iter().flatten() {
            *text = self.text(text);
        }
        let labels = std::mem::take(&mut base.labels).into_iter();
        base.labels = labels.map(|(name, value)| (self.text(&name), self.text(&value))).collect();
        let base = Arc::new(base);
        self.bases.insert(base.clone());
        base
    }

    fn text(&mut self, text: &Arc<str>) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return known.clone();
        }
        self.texts.insert(text.clone());
        text.clone()
    }

    /// Forgets what nobody has any more.
    pub(super) fn expire(&mut self) {
        self.bases.retain(|base| Arc::strong_count(base) > 1);
        self.texts.retain(|text| Arc::strong_count(text) > 1);
    }
}

/// Versions of an identity, each with its beginning; the first also holds before.
pub(super) type Versions = Arc<[(i64, Arc<Identity>)]>;

/// Adds what was told to a log in the order of (source, from); whether that is new.
pub(super) fn tell(log: &mut Vec<Told>, told: Told) -> bool {
    let place = (told.source, told.from);
    let at = log.partition_point(|own| (own.source, own.from) < place);
    if let Some(same) = log.get_mut(at).filter(|own| (own.source, own.from) == place) {
        if same.says_the_same(&told) || same.learned_at > told.learned_at {
            return false;
        }
        *same = told;
        return true;
    }
    let of_source = |own: &&Told| own.source == told.source;
    if at
        .checked_sub(1)
        .and_then(|before| log.get(before))
        .filter(of_source)
        .is_some_and(|own| own.says_the_same(&told))
    {
        return false;
    }
    // One that says the same from later on says nothing more.
    if log.get(at).filter(of_source).is_some_and(|own| own.says_the_same(&told))
        && let Some(next) = log.get_mut(at)
    {
        *next = told;
        return true;
    }
    // There are millions, and most have one or two.
    log.reserve_exact(1);
    log.insert(at, told);
    true
}

/// The version as of a time.
pub(super) fn as_of(versions: &[(i64, Arc<Identity>)], at: i64) -> Option<&Arc<Identity>> {
    if let [(_, only)] = versions {
        return Some(only);
    }
    let begun = versions.partition_point(|(from, _)| *from <= at);
    versions.get(begun.saturating_sub(1)).map(|(_, identity)| identity)
}

/// Merges the logs of an identity and of its other names.
pub(super) fn merge(id: &Arc<str>, log: &[&Told], sources: &Sources) -> Versions {
    if let [only] = log {
        return Arc::new([(only.from, Arc::new(only.identity(id)))]);
    }
    let mut times: Vec<i64> = log.iter().map(|told| told.from).collect();
    times.sort_unstable();
    times.dedup();
    if times.is_empty() {
        return Arc::new([(0, Arc::new(Identity { identity: id.clone(), ..Identity::default() }))]);
    }
    let mut versions: Vec<(i64, Arc<Identity>)> = Vec::with_capacity(times.len());
    for at in times {
        let merged = merged(id, &said(log, at), sources);
        if versions.last().is_none_or(|(_, last)| **last != merged) {
            versions.push((at, Arc::new(merged)));
        }
    }
    versions.into()
}

/// What each source said last up to `at`, or first.
fn said<'a>(log: &[&'a Told], at: i64) -> Vec<&'a Told> {
    let mut said: Vec<&Told> = Vec::new();
    for told in log {
        match said.iter_mut().find(|own| own.source == told.source) {
            // A log may have several names of one identity: the latest counts, whoever it was told of.
            Some(own) => {
                let is_later =
                    told.from <= at && (own.from > at || (own.from, own.learned_at) < (told.from, told.learned_at));
                let is_earlier = own.from > at && told.from < own.from;
                if is_later || is_earlier {
                    *own = told;
                }
            }
            None => said.push(told),
        }
    }
    said
}

fn merged(id: &Arc<str>, said: &[&Told], sources: &Sources) -> Identity {
    let ranked = |of_container: bool| {
        let mut ranked: Vec<&Told> = said.to_vec();
        ranked.sort_by_key(|told| sources.rank(told.source, of_container));
        ranked
    };
    let (general, container) = (ranked(false), ranked(true));
    let first = |ranked: &[&Told], field: fn(&Identity) -> &Option<Arc<str>>| {
        ranked.iter().find_map(|told| field(&told.base).clone())
    };
    Identity {
        identity: id.clone(),
        cluster: first(&general, |own| &own.cluster),
        host: first(&general, |own| &own.host),
        namespace: first(&general, |own| &own.namespace),
        pod: general.iter().find_map(|told| told.pod.clone()),
        container: container.iter().find_map(|told| told.container.clone()),
        workload: first(&general, |own| &own.workload),
        workload_kind: first(&general, |own| &own.workload_kind),
        service: first(&general, |own| &own.service),
        image: first(&container, |own| &own.image),
        zone: first(&general, |own| &own.zone),
        labels: general
            .iter()
            .map(|told| &told.base.labels)
            .find(|labels| !labels.is_empty())
            .cloned()
            .unwrap_or_default(),
        containers: container
            .iter()
            .map(|told| &told.base.containers)
            .find(|own| !own.is_empty())
            .cloned()
            .unwrap_or_default(),
    }
}

/// The versions of a pod as one of its containers: with that container's name and image.
pub(super) fn of_member(versions: &Versions, member: &Member, log: &[Told]) -> Versions {
    let told = log.iter().find_map(|told| told.base.image.clone());
    let named = |identity: &Arc<Identity>| {
        let declared = identity.containers.iter().find(|own| own.container == member.container);
        let image = member.image.clone().or_else(|| declared?.image.clone()).or_else(|| told.clone());
        Arc::new(Identity { container: Some(member.container.clone()), image, ..(**identity).clone() })
    };
    versions.iter().map(|(from, identity)| (*from, named(identity))).collect()
}

/// Whether it says nothing but who it is.
pub(super) fn is_bare(identity: &Identity) -> bool {
    *identity == Identity { identity: identity.identity.clone(), ..Identity::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(zone: &str) -> Arc<Identity> {
        Arc::new(Identity { zone: Some(zone.into()), ..Identity::default() })
    }

    #[test]
    fn what_is_loaded_is_kept_once_and_is_what_was_given() {
        let mut shared = Shared::default();
        let (one, same, other) = (base("a"), base("a"), base("b"));
        let known: Vec<_> = [&one, &one, &same, &other].map(|given| shared.known(given)).into();
        for (given, known) in [&one, &one, &same, &other].into_iter().zip(&known) {
            assert_eq!(given, known);
        }
        assert!(Arc::ptr_eq(&known[0], &known[1]) && Arc::ptr_eq(&known[0], &known[2]));
        shared.loaded();
        assert_eq!(Arc::strong_count(&one), 1, "nothing given is held after that");
        // At the address of one that is gone may be another.
        drop((one, same, other));
        assert_eq!(shared.known(&base("c")), base("c"));
        drop(known);
        shared.loaded();
        shared.expire();
        assert!(shared.bases.is_empty(), "what nobody has any more is forgotten");
    }
}
