//! The pods that there are, and what each change of one means for the timeline.
//!
//! * A pod has its addresses from the moment that it is known to until it is over (phase Succeeded or Failed, which is how an
//!   evicted pod ends too) or deleted. One that is being deleted still sends until its containers have finished.
//! * What is known of a pod is the version with the highest number, whatever comes late or twice.
//! * If the address of a pod that ends is that of another one that lives, it is that one's again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::clock::Clocks;
use super::namespaces::Namespaces;
use super::owners::Owners;
use super::pod::Seen;
use super::tell::{Teller, Tombs, When};
use crate::event::Stopped;
use crate::identity::{Identity, Interval};
use crate::timeline::UNCERTAIN;

#[derive(Debug)]
struct Known {
    version: u64,
    identity: Arc<Identity>,
    node: Arc<str>,
    created: i64,
    /// Addresses that it has, and since when.
    ips: Vec<(IpAddr, i64)>,
    ended: Option<i64>,
    aliases: Vec<Arc<str>>,
}

/// What the pods depend on.
pub(super) struct Surroundings<'a> {
    pub(super) clocks: &'a mut Clocks,
    pub(super) owners: &'a mut Owners,
    pub(super) zones: &'a HashMap<Arc<str>, Arc<str>>,
    pub(super) namespaces: &'a Namespaces,
    pub(super) tombs: &'a mut Tombs,
    pub(super) teller: &'a mut Teller,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Pods {
    known: HashMap<Arc<str>, Known>,
    /// Pods that live, by address.
    holders: HashMap<IpAddr, Vec<Arc<str>>>,
}

impl Pods {
    pub(super) fn uids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.known.keys()
    }

    /// A version of a pod.
    pub(super) fn apply(&mut self, seen: &Seen, when: When, around: &mut Surroundings<'_>) {
        if around.tombs.has(&seen.uid) {
            return;
        }
        let uid = seen.uid.clone();
        if self.known.get(&uid).is_some_and(|known| seen.version != 0 && seen.version <= known.version) {
            return;
        }
        let known = self.known.remove(&uid);
        seen.measure(around.clocks, when);
        let is_new = known.is_none();
        // A pod that was over before it was heard of sends nothing any more.
        let is_past = is_new && seen.is_over && !when.is_live();
        let mut known = known.unwrap_or_else(|| Known::new(seen, when));
        known.version = seen.version;
        known.node = seen.node.clone();
        let identity = named(seen, around);
        if (is_new || *known.identity != identity) && !is_past {
            known.identity = Arc::new(identity);
            let from = if is_new { known.created } else { when.at };
            around.teller.described(&known.identity, from, when.at);
        }
        known.call(seen, when, is_past, around.teller);
        if known.ended.is_none() {
            if seen.is_over {
                known.short_life(seen, when, around);
                self.end(&uid, &mut known, seen.end(around.clocks, when), when, around.teller);
            } else if !seen.host_network {
                self.address(seen, &mut known, when, around);
            }
        }
        self.known.insert(uid, known);
    }

    /// It was deleted; `last` is its last version, if that was told.
    pub(super) fn gone(&mut self, uid: &Arc<str>, last: Option<&Seen>, when: When, around: &mut Surroundings<'_>) {
        if around.tombs.has(uid) {
            return;
        }
        around.tombs.add(uid);
        let Some(mut known) = self.known.remove(uid) else {
            // Perhaps an earlier run knew it.
            around.teller.ended(uid, last.map_or(when.sure, |last| last.end(around.clocks, when)), when.at);
            return;
        };
        if known.ended.is_none() {
            let end = last.map_or(when.sure, |last| last.end(around.clocks, when));
            self.end(uid, &mut known, end, when, around.teller);
        }
    }

    /// The addresses that it has now.
    fn address(&mut self, seen: &Seen, known: &mut Known, when: When, around: &mut Surroundings<'_>) {
        let first = known.ips.is_empty();
        // A status that is being made anew has none for a moment.
        if seen.ips.is_empty() {
            return;
        }
        // A new sandbox.
        for (ip, from) in known.ips.extract_if(.., |(ip, _)| !seen.ips.contains(ip)) {
            let to = when.sure.max(from);
            let key = around.teller.ip(ip);
            around.teller.learned(around.teller.until(key, &known.identity, (from, to), when.at));
            self.release(ip, &seen.uid, to, when, around.teller);
        }
        for ip in &seen.ips {
            if known.ips.iter().any(|(own, _)| own == ip) {
                continue;
            }
            let begun = if first { seen.begin(around.clocks, when) } else { when.at };
            known.ips.push((*ip, begun));
            let from = to_tell(begun, when);
            let holders = self.holders.entry(*ip).or_default();
            if !holders.contains(&seen.uid) {
                holders.push(seen.uid.clone());
            }
            let interval = around.teller.interval(around.teller.ip(*ip), &known.identity, from, when.at);
            around.teller.learned(interval);
        }
    }

    fn end(&mut self, uid: &Arc<str>, known: &mut Known, at: i64, when: When, teller: &mut Teller) {
        let begun = known.ips.iter().map(|(_, from)| *from).max();
        let at = begun.map_or(at, |begun| at.max(begun));
        known.ended = Some(at);
        teller.ended(uid, at, when.at);
        for (ip, _) in std::mem::take(&mut known.ips) {
            self.release(ip, uid, at, when, teller);
        }
    }

    /// From `to` on `uid` has the address no longer.
    fn release(&mut self, ip: IpAddr, uid: &Arc<str>, to: i64, when: When, teller: &mut Teller) {
        let Some(holders) = self.holders.get_mut(&ip) else { return };
        holders.retain(|own| own != uid);
        let Some(other) = holders.last().cloned() else {
            self.holders.remove(&ip);
            return;
        };
        let Some(other) = self.known.get_mut(&other) else { return };
        let key = teller.ip(ip);
        for (_, from) in other.ips.iter_mut().filter(|(own, _)| *own == ip) {
            *from = to.max(*from + 1);
            let interval = teller.interval(key.clone(), &other.identity, to_tell(*from, when), when.at);
            teller.learned(interval);
        }
    }

    /// Describes the pods of which something that other objects tell has changed; it holds from a time on, but not before they
    /// were there.
    pub(super) fn renew(
        &mut self,
        of: impl Fn(&Identity, &str) -> Option<Identity>,
        (from, learned_at): (i64, i64),
        teller: &mut Teller,
    ) {
        for known in self.known.values_mut().filter(|known| known.ended.is_none()) {
            if let Some(identity) = of(&known.identity, &known.node) {
                known.identity = Arc::new(identity);
                teller.described(&known.identity, from.max(known.created), learned_at);
            }
        }
    }

    /// Describes one pod anew.
    pub(super) fn renew_one(&mut self, uid: &str, change: impl Fn(&mut Identity), at: i64, teller: &mut Teller) {
        let Some(known) = self.known.get_mut(uid).filter(|known| known.ended.is_none()) else { return };
        let mut identity = (*known.identity).clone();
        change(&mut identity);
        if identity != *known.identity {
            known.identity = Arc::new(identity);
            // Its owner was there before it.
            teller.described(&known.identity, known.created, at);
        }
    }

    /// What holds now, and what has ended though its object is there.
    pub(super) fn present(&self, at: i64, teller: &Teller, present: &mut Vec<Interval>, stopped: &mut Vec<Stopped>) {
        for (uid, known) in &self.known {
            if let Some(to) = known.ended {
                stopped.push(Stopped { identity: uid.clone(), from: known.created, to });
            }
            let intervals =
                known.ips.iter().map(|(ip, from)| teller.interval(teller.ip(*ip), &known.identity, *from, at));
            present.extend(intervals);
        }
    }
}

/// The beginning to tell: what had the address before may have lasted for all of a gap, so that after one there is no leeway before
/// the beginning.
fn to_tell(begun: i64, when: When) -> i64 {
    if when.is_live() { begun } else { begun.saturating_add(UNCERTAIN) }
}

impl Known {
    fn new(seen: &Seen, when: When) -> Self {
        Self {
            version: 0,
            identity: Arc::new(seen.identity.clone()),
            node: seen.node.clone(),
            created: seen.created.map_or(when.at, |created| created.min(when.at)),
            ips: Vec::new(),
            ended: None,
            aliases: Vec::new(),
        }
    }

    /// A pod that was over when its address was first heard had it for as long as it says that its containers ran.
    fn short_life(&self, seen: &Seen, when: When, around: &mut Surroundings<'_>) {
        if !self.ips.is_empty() || seen.host_network || !when.is_live() {
            return;
        }
        let (from, to) = (seen.begin(around.clocks, when), seen.end(around.clocks, when));
        for ip in seen.ips.iter().filter(|_| from < to) {
            let interval = around.teller.interval(around.teller.ip(*ip), &self.identity, from, when.at);
            around.teller.learned(Interval { valid_to: Some(to), ..interval });
        }
    }

    /// Tells its other names that were not told yet.
    fn call(&mut self, seen: &Seen, when: When, is_past: bool, teller: &mut Teller) {
        for (alias, member) in &seen.aliases {
            if !self.aliases.contains(alias) && !is_past {
                teller.same(alias.clone(), &seen.uid, member.clone(), when.at);
            }
        }
        self.aliases = seen.aliases.iter().map(|(alias, _)| alias.clone()).collect();
    }
}

/// What the pod says of itself, with its zone, its workload and the labels of its namespace.
fn named(seen: &Seen, around: &mut Surroundings<'_>) -> Identity {
    let mut identity = seen.identity.clone();
    identity.zone = around.zones.get(&seen.node).cloned();
    around.namespaces.label(identity.namespace.as_deref(), &mut identity.labels);
    if let Some(owner) = &seen.owner {
        let (kind, name) = around.owners.workload(owner, identity.namespace.as_ref(), &seen.uid);
        (identity.workload, identity.workload_kind) = (Some(name), Some(kind));
    }
    identity
}
