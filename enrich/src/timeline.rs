//! The identity timeline: which key meant whom, and when. A log of intervals, not a cache of the present.
//!
//! Invariants:
//! * intervals of one key and one identity do not overlap; intervals of one key and several identities may, and a lookup in the
//!   overlap is [`Lookup::Ambiguous`];
//! * a source that says a key means someone new from `t` on ends what the same source said before at `t`: within one source a
//!   key means one identity at a time;
//! * nothing is forgotten but by [`Timeline::expire`].
//!
//! A lookup takes the interval that contains the time. Only if none does, one that begins or ended within the tolerance of
//! it counts, because clocks and events lag.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::event::IdentityEvent;
use crate::identity::{ANY_NETWORK, Identity, Interval, Key};

/// How far events and packet clocks may be apart, ns.
pub const TOLERANCE: i64 = 500_000_000;

/// Answer of a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// Exactly one, and the source that said so.
    One(Arc<Identity>, Arc<str>),
    /// Several.
    Ambiguous(Vec<Arc<Identity>>),
    /// Nobody known.
    None,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Timeline {
    intervals: HashMap<Key, Vec<Interval>>,
    /// Networks in which an address was ever known.
    networks_of_ip: HashMap<IpAddr, BTreeSet<Arc<str>>>,
    network_of_interface: HashMap<(u64, u32), Arc<str>>,
    keys_of_identity: HashMap<Arc<str>, HashSet<Key>>,
}

impl Timeline {
    /// An empty timeline.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes intervals as they were persisted, latest version of each last.
    pub fn load(&mut self, intervals: Vec<Interval>) {
        for interval in intervals {
            self.put(interval);
        }
    }

    /// Applies an event; gives the intervals that are new or changed, to be persisted.
    pub fn apply(&mut self, event: &IdentityEvent) -> Vec<Interval> {
        match event {
            IdentityEvent::Learned(interval) => self.learn(interval),
            IdentityEvent::Ended { identity, at, learned_at } => self.end(identity, *at, *learned_at),
            IdentityEvent::Network { index, netns, network } => {
                self.network_of_interface.insert((*netns, *index), network.clone());
                Vec::new()
            }
            IdentityEvent::Reconciled { source, present, at } => self.reconcile(source, present, *at),
            IdentityEvent::NamespaceGone { inode } => {
                self.network_of_interface.retain(|(netns, _), _| netns != inode);
                Vec::new()
            }
            IdentityEvent::Namespace { .. } => Vec::new(),
        }
    }

    fn learn(&mut self, interval: &Interval) -> Vec<Interval> {
        let mut changed = Vec::new();
        let list = self.intervals.entry(interval.key.clone()).or_default();
        for old in list.iter_mut() {
            let other = old.identity.identity != interval.identity.identity;
            let open_until = old.valid_to.unwrap_or(i64::MAX);
            let runs_over = old.valid_from < interval.valid_from && interval.valid_from < open_until;
            if other && old.source == interval.source && runs_over {
                old.valid_to = Some(interval.valid_from);
                old.learned_at = interval.learned_at;
                changed.push(old.clone());
            }
        }
        let same = |old: &&Interval| {
            old.identity.identity == interval.identity.identity
                && old.valid_from == interval.valid_from
                && old.identity == interval.identity
                && (old.valid_to == interval.valid_to || interval.valid_to.is_none())
        };
        if list.iter().any(|old| same(&old)) {
            return changed;
        }
        changed.push(interval.clone());
        self.put(interval.clone());
        changed
    }

    /// Inserts, or replaces the version of the same key, identity and beginning.
    fn put(&mut self, interval: Interval) {
        if let Key::Ip { network, ip } = &interval.key {
            self.networks_of_ip.entry(*ip).or_default().insert(network.clone());
        }
        let keys = self.keys_of_identity.entry(interval.identity.identity.clone()).or_default();
        keys.insert(interval.key.clone());
        let list = self.intervals.entry(interval.key.clone()).or_default();
        let version = list
            .iter_mut()
            .find(|old| old.valid_from == interval.valid_from && old.identity.identity == interval.identity.identity);
        if let Some(old) = version {
            *old = interval;
        } else {
            let at = list.partition_point(|old| old.valid_from <= interval.valid_from);
            list.insert(at, interval);
        }
    }

    fn end(&mut self, identity: &str, at: i64, learned_at: i64) -> Vec<Interval> {
        let mut changed = Vec::new();
        for key in self.keys_of_identity.get(identity).into_iter().flatten() {
            for interval in self.intervals.get_mut(key).into_iter().flatten() {
                let open = interval.valid_to.is_none() && interval.valid_from <= at;
                if open && &*interval.identity.identity == identity {
                    interval.valid_to = Some(at);
                    interval.learned_at = learned_at;
                    changed.push(interval.clone());
                }
            }
        }
        changed
    }

    fn reconcile(&mut self, source: &str, present: &[Arc<str>], at: i64) -> Vec<Interval> {
        let present: HashSet<&str> = present.iter().map(|identity| &**identity).collect();
        let mut changed = Vec::new();
        for interval in self.intervals.values_mut().flatten() {
            let gone = !present.contains(&*interval.identity.identity);
            if gone && interval.valid_to.is_none() && &*interval.source == source && interval.valid_from <= at {
                interval.valid_to = Some(at);
                interval.learned_at = at;
                changed.push(interval.clone());
            }
        }
        changed
    }

    /// Whose interface it was.
    pub fn interface(&self, index: u32, netns: u64, boot: &Arc<str>, time: i64) -> Lookup {
        let key = Key::Interface { index, netns, boot: boot.clone() };
        pick(self.candidates(&key, time))
    }

    /// Whose address it was, within `network` and, where that knows nothing, among the entries without a network.
    pub fn ip(&self, network: &str, ip: IpAddr, time: i64) -> Lookup {
        match pick(self.candidates(&Key::Ip { network: network.into(), ip }, time)) {
            Lookup::None if network != ANY_NETWORK => {
                pick(self.candidates(&Key::Ip { network: ANY_NETWORK.into(), ip }, time))
            }
            found => found,
        }
    }

    /// Whose address it was, in whichever network `among` accepts: one identity, or `Ambiguous`.
    pub fn ip_in_any(&self, ip: IpAddr, time: i64, among: impl Fn(&str) -> bool) -> Lookup {
        let networks = self.networks_of_ip.get(&ip).into_iter().flatten();
        let keys = networks.filter(|network| among(network)).map(|network| Key::Ip { network: network.clone(), ip });
        pick(keys.flat_map(|key| self.candidates(&key, time)).collect())
    }

    /// Whether the network has an interface in wiretag's own namespace, and so is one routing domain with the host.
    pub fn is_on_host(&self, network: &str) -> bool {
        self.network_of_interface.iter().any(|((netns, _), own)| *netns == 0 && &**own == network)
    }

    /// Network of an interface.
    pub fn network_of_interface(&self, index: u32, netns: u64) -> Option<Arc<str>> {
        self.network_of_interface.get(&(netns, index)).cloned()
    }

    /// Whether `identity` had the address at that time; `None` if no address of it is known.
    pub fn has_ip(&self, identity: &str, ip: IpAddr, time: i64) -> Option<bool> {
        let mut known = None;
        for key in self.keys_of_identity.get(identity).into_iter().flatten() {
            let Key::Ip { ip: own, .. } = key else { continue };
            if self.candidates(key, time).iter().any(|interval| &*interval.identity.identity == identity) {
                if *own == ip {
                    return Some(true);
                }
                known = Some(false);
            }
        }
        known
    }

    /// Intervals of `key` that contain `time`; if none does, those within the tolerance.
    fn candidates(&self, key: &Key, time: i64) -> Vec<&Interval> {
        let Some(list) = self.intervals.get(key) else { return Vec::new() };
        let within = |slack: i64| -> Vec<&Interval> {
            let matches = |interval: &&Interval| {
                interval.valid_from.saturating_sub(slack) <= time
                    && interval.valid_to.is_none_or(|end| time < end.saturating_add(slack))
            };
            list.iter().filter(matches).collect()
        };
        let exact = within(0);
        if exact.is_empty() { within(TOLERANCE) } else { exact }
    }

    /// Every interval, in no particular order.
    pub fn intervals(&self) -> Vec<Interval> {
        self.intervals.values().flatten().cloned().collect()
    }

    /// Intervals that last at `at`, of one address or all.
    pub fn current(&self, at: i64, ip: Option<IpAddr>) -> Vec<Interval> {
        let mut intervals = self.intervals();
        intervals.retain(|interval| {
            let lasts = interval.valid_from <= at && interval.valid_to.is_none_or(|end| at < end);
            lasts && ip.is_none_or(|ip| matches!(&interval.key, Key::Ip { ip: own, .. } if *own == ip))
        });
        intervals
    }

    /// Forgets intervals that ended before `before`.
    pub fn expire(&mut self, before: i64) {
        for list in self.intervals.values_mut() {
            list.retain(|interval| interval.valid_to.is_none_or(|end| end >= before));
        }
        self.intervals.retain(|_, list| !list.is_empty());
        let intervals = &self.intervals;
        for keys in self.keys_of_identity.values_mut() {
            keys.retain(|key| intervals.contains_key(key));
        }
        self.keys_of_identity.retain(|_, keys| !keys.is_empty());
    }
}

/// One identity, several, or none.
fn pick(candidates: Vec<&Interval>) -> Lookup {
    let mut identities: Vec<&Interval> = Vec::new();
    for interval in candidates {
        if identities.iter().all(|seen| seen.identity.identity != interval.identity.identity) {
            identities.push(interval);
        }
    }
    match identities.as_slice() {
        [] => Lookup::None,
        [one] => Lookup::One(one.identity.clone(), one.source.clone()),
        several => Lookup::Ambiguous(several.iter().map(|interval| interval.identity.clone()).collect()),
    }
}
