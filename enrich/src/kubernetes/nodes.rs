//! Nodes: identities of their own (`node:NAME`) at their internal addresses, so that what shares a node's network is at least
//! known by it; and the zones of their pods.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::objects::{Meta, Node};
use super::tell::{Teller, When};
use crate::identity::{Identity, Interval, NODE};

/// Where a node says its zone: the label of today, and the one before Kubernetes 1.17.
const ZONES: [&str; 2] = ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"];

#[derive(Debug)]
struct Known {
    uid: Arc<str>,
    version: u64,
    identity: Arc<Identity>,
    /// Addresses that it has, and since when.
    ips: Vec<(IpAddr, i64)>,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    /// By name: only one of a name is there at a time.
    known: HashMap<Arc<str>, Known>,
    /// Zones by name of the node.
    pub(super) zones: HashMap<Arc<str>, Arc<str>>,
}

impl Nodes {
    pub(super) fn uids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.known.values().map(|known| &known.uid)
    }

    /// A version of a node; true if its zone changed. `from` is since when it surely is there.
    pub(super) fn apply(&mut self, node: &Node, from: i64, when: When, teller: &mut Teller) -> bool {
        let meta = &node.metadata;
        let known = self.known.get(&meta.name);
        if known.is_some_and(|known| meta.version() != 0 && meta.version() <= known.version) {
            return false;
        }
        let zone = ZONES.iter().find_map(|label| meta.labels.get(*label)).cloned();
        let news = self.zones.get(&meta.name) != zone.as_ref();
        match &zone {
            Some(zone) => drop(self.zones.insert(meta.name.clone(), zone.clone())),
            None => drop(self.zones.remove(&meta.name)),
        }
        let identity = Arc::new(identity(meta, zone, teller));
        let known = self.known.entry(meta.name.clone()).or_insert_with(|| {
            teller.described(&identity, from, when.at);
            Known { uid: meta.uid.clone(), version: 0, identity: identity.clone(), ips: Vec::new() }
        });
        (known.uid, known.version) = (meta.uid.clone(), meta.version());
        if known.identity != identity {
            known.identity = identity;
            teller.described(&known.identity, when.at, when.at);
        }
        known.address(&ips(node), from, when, teller);
        news
    }

    /// It was deleted; true if its zone was known.
    pub(super) fn gone(&mut self, uid: &str, when: When, teller: &mut Teller) -> Option<Arc<str>> {
        let name = self.known.iter().find(|(_, known)| *known.uid == *uid).map(|(name, _)| name.clone())?;
        let known = self.known.remove(&name)?;
        teller.ended(&known.identity.identity, when.sure, when.at);
        self.zones.remove(&name);
        Some(name)
    }

    pub(super) fn present(&self, at: i64, teller: &Teller, present: &mut Vec<Interval>) {
        for known in self.known.values() {
            let interval = |(ip, from): &(IpAddr, i64)| teller.interval(teller.ip(*ip), &known.identity, *from, at);
            present.extend(known.ips.iter().map(interval));
        }
    }
}

impl Known {
    fn address(&mut self, ips: &[IpAddr], from: i64, when: When, teller: &mut Teller) {
        let first = self.ips.is_empty();
        for (ip, since) in self.ips.extract_if(.., |(ip, _)| !ips.contains(ip)) {
            let until = teller.until(teller.ip(ip), &self.identity, (since, when.sure.max(since)), when.at);
            teller.learned(until);
        }
        for ip in ips {
            if self.ips.iter().any(|(own, _)| own == ip) {
                continue;
            }
            let from = if first { from } else { when.at };
            self.ips.push((*ip, from));
            let interval = teller.interval(teller.ip(*ip), &self.identity, from, when.at);
            teller.learned(interval);
        }
    }
}

fn ips(node: &Node) -> Vec<IpAddr> {
    let internal = node.status.addresses.iter().filter(|own| own.kind == "InternalIP");
    let mut ips: Vec<IpAddr> = internal.filter_map(|own| own.address.parse().ok()).collect();
    ips.sort_unstable();
    ips.dedup();
    ips
}

fn identity(meta: &Meta, zone: Option<Arc<str>>, teller: &Teller) -> Identity {
    Identity {
        identity: format!("{NODE}{}", meta.name).into(),
        cluster: Some(teller.cluster.clone()),
        host: Some(meta.name.clone()),
        zone,
        ..Identity::default()
    }
}
