//! What is known of an identity besides its keys: a log by source, merged field by field.
//!
//! As of a time, each source says what it last said up to then (or, before it said anything, what it said first: a pod
//! has its labels before they are told). Of each field the source that counts most and knows it decides
//! ([`super::sources`]).

use std::sync::Arc;

use super::sources::Sources;
use crate::identity::{Identity, Member};

/// What a source said of an identity from a time on.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) source: u8,
    pub(super) from: i64,
    pub(super) learned_at: i64,
    pub(super) identity: Arc<Identity>,
}

/// Versions of an identity, each with its beginning; the first also holds before.
pub(super) type Versions = Arc<[(i64, Arc<Identity>)]>;

/// Adds what was told to a log in the order of (source, from); whether that is new.
pub(super) fn tell(log: &mut Vec<Told>, told: Told) -> bool {
    let place = (told.source, told.from);
    let at = log.partition_point(|own| (own.source, own.from) < place);
    if let Some(same) = log.get_mut(at).filter(|own| (own.source, own.from) == place) {
        if same.identity == told.identity || same.learned_at > told.learned_at {
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
        .is_some_and(|own| own.identity == told.identity)
    {
        return false;
    }
    // One that says the same from later on says nothing more.
    if log.get(at).filter(of_source).is_some_and(|own| own.identity == told.identity)
        && let Some(next) = log.get_mut(at)
    {
        *next = told;
        return true;
    }
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
    if let [only] = log
        && only.identity.identity == *id
    {
        return Arc::new([(only.from, only.identity.clone())]);
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
        let mut ranked: Vec<&Identity> = Vec::with_capacity(said.len());
        let mut order: Vec<&&Told> = said.iter().collect();
        order.sort_by_key(|told| sources.rank(told.source, of_container));
        ranked.extend(order.iter().map(|told| &*told.identity));
        ranked
    };
    let (general, container) = (ranked(false), ranked(true));
    let first = |ranked: &[&Identity], field: fn(&Identity) -> &Option<Arc<str>>| {
        ranked.iter().find_map(|identity| field(identity).clone())
    };
    Identity {
        identity: id.clone(),
        cluster: first(&general, |own| &own.cluster),
        host: first(&general, |own| &own.host),
        namespace: first(&general, |own| &own.namespace),
        pod: first(&general, |own| &own.pod),
        container: first(&container, |own| &own.container),
        workload: first(&general, |own| &own.workload),
        workload_kind: first(&general, |own| &own.workload_kind),
        service: first(&general, |own| &own.service),
        image: first(&container, |own| &own.image),
        zone: first(&general, |own| &own.zone),
        labels: general.iter().map(|own| &own.labels).find(|labels| !labels.is_empty()).cloned().unwrap_or_default(),
        containers: container
            .iter()
            .map(|own| &own.containers)
            .find(|own| !own.is_empty())
            .cloned()
            .unwrap_or_default(),
    }
}

/// The versions of a pod as one of its containers: with that container's name and image.
pub(super) fn of_member(versions: &Versions, member: &Member, log: &[Told]) -> Versions {
    let told = log.iter().find_map(|told| told.identity.image.clone());
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
