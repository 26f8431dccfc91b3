//! The identity timeline: which key meant whom, and when. A log of intervals, not a cache of the present.
//!
//! Invariants:
//! * intervals of one key and one identity do not overlap; intervals of one key and several identities may, and a lookup in the
//!   overlap is [`Lookup::Ambiguous`];
//! * the answer does not depend on the order in which different identities are told: a source that says a key means
//!   someone new from `t` on ends at `t` what the same source said before and left open. When the true end is told
//!   later it replaces that; if it is after `t`, the time in between is ambiguous;
//! * nothing is forgotten but by [`Timeline::expire`].
//!
//! **Lookup.** What is looked up is a [`Span`]: the time of a slice's packets. It gets the name of whoever held the key
//! *when the span began*; it is ambiguous if another identity held the key at any time of the span (late packets of a dead
//! container's connection would otherwise be given to the heir of its address), and without a name if nobody is known to
//! have held the key when the span began, even if someone does later.
//!
//! **Tolerance.** There is none around the edges of an address. All sources tell of this host, so events and packets have
//! one clock; an address is given out before its `connect` event and is used after it, and a process has ended before
//! its `die` event. To stretch an interval would reach into a time when the key may have been another's, perhaps one of whom
//! nobody told. Only an interface of wiretag's own namespace has some ([`TOLERANCE`], before its beginning): its index has
//! one life in a boot, so what it carries before a source tells of it is already its owner's.
//!
//! **Unheard time.** When a source was away, what it no longer confirms ended at some time unknown: the interval ends when the
//! source was last heard, and what is new begins no earlier than another's known end.

mod attachments;
mod history;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::event::{IdentityEvent, Snapshot};
use crate::identity::{ANY_NETWORK, Identity, Interval, Key};
use attachments::Attachments;
use history::History;

/// How long before a source tells of an interface of wiretag's own namespace its packets may be seen, ns.
pub const TOLERANCE: i64 = 500_000_000;

/// The time from the first to the last packet of what is looked up, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First instant, ns.
    pub from: i64,
    /// Last instant, ns.
    pub to: i64,
}

impl From<i64> for Span {
    fn from(time: i64) -> Self {
        Self { from: time, to: time }
    }
}

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
    histories: HashMap<Key, History>,
    /// Networks in which an address is known.
    networks_of_ip: HashMap<IpAddr, BTreeSet<Arc<str>>>,
    attachments: Attachments,
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
            self.history(&interval).put(interval);
        }
    }

    /// Applies an event; gives the intervals that are new or changed, to be persisted.
    pub fn apply(&mut self, event: &IdentityEvent) -> Vec<Interval> {
        let mut changed = Vec::new();
        match event {
            IdentityEvent::Learned(interval) => self.history(interval).learn(interval.clone(), &mut changed),
            IdentityEvent::Ended { identity, at, learned_at } => {
                for key in self.keys(identity) {
                    self.end(&key, identity, *at, *learned_at, &mut changed);
                }
            }
            IdentityEvent::Parted { identity, network, at, learned_at } => {
                let mut keys = self.keys(identity);
                keys.retain(|key| self.is_in(key, network, *at));
                for key in keys {
                    self.end(&key, identity, *at, *learned_at, &mut changed);
                }
            }
            IdentityEvent::Network { index, netns, network, at } => {
                self.attachments.attach(*netns, *index, network, *at);
            }
            IdentityEvent::Reconciled(snapshot) => self.reconcile(snapshot, &mut changed),
            IdentityEvent::NamespaceGone { inode, at } => self.attachments.detach_all(*inode, *at),
            IdentityEvent::Described { .. }
            | IdentityEvent::Same { .. }
            | IdentityEvent::Translated(_)
            | IdentityEvent::Connected(_)
            | IdentityEvent::Namespace { .. } => {}
        }
        changed
    }

    /// The history that an interval belongs into.
    fn history(&mut self, interval: &Interval) -> &mut History {
        if let Key::Ip { network, ip } = &interval.key {
            self.networks_of_ip.entry(*ip).or_default().insert(network.clone());
        }
        let keys = self.keys_of_identity.entry(interval.identity.identity.clone()).or_default();
        keys.insert(interval.key.clone());
        self.histories.entry(interval.key.clone()).or_default()
    }

    fn keys(&self, identity: &str) -> Vec<Key> {
        self.keys_of_identity.get(identity).into_iter().flatten().cloned().collect()
    }

    /// Whether a key is one of `network`.
    fn is_in(&self, key: &Key, network: &str, at: i64) -> bool {
        match key {
            Key::Ip { network: own, .. } | Key::Mac { network: own, .. } | Key::Service { network: own, .. } => {
                &**own == network
            }
            Key::Socket { .. } => false,
            Key::Interface { index, netns, .. } => {
                let last = Span::from(at.saturating_sub(1));
                self.attachments.network(*netns, *index, last).is_some_and(|own| &**own == network)
            }
        }
    }

    fn end(&mut self, key: &Key, identity: &str, at: i64, learned_at: i64, changed: &mut Vec<Interval>) {
        let Some(history) = self.histories.get_mut(key) else { return };
        let known = changed.len();
        history.end(identity, at, learned_at, changed);
        if let Key::Interface { index, netns, .. } = key
            && changed.len() > known
        {
            self.attachments.detach(*netns, *index, at);
        }
    }

    fn reconcile(&mut self, snapshot: &Snapshot, changed: &mut Vec<Interval>) {
        let Snapshot { source, present, stopped, heard, at } = snapshot;
        let stopped: HashMap<&str, _> = stopped.iter().map(|stopped| (&*stopped.identity, stopped)).collect();
        let named: HashMap<(&Key, &str), &Interval> =
            present.iter().map(|interval| ((&interval.key, &*interval.identity.identity), interval)).collect();
        let mut confirmed = HashSet::new();
        for (key, history) in &mut self.histories {
            let open = history.iter().filter(|own| own.valid_to.is_none() && own.source == *source);
            for interval in open.cloned().collect::<Vec<_>>() {
                let identity = &*interval.identity.identity;
                // It lasted until then for sure.
                let sure = heard.unwrap_or(interval.learned_at).max(interval.valid_from);
                if named.get(&(key, identity)).is_some_and(|named| named.valid_from <= sure) {
                    confirmed.insert((key.clone(), interval.identity.identity.clone()));
                    continue;
                }
                let same_run = stopped.get(identity).filter(|stopped| stopped.from <= sure);
                let end = same_run.map_or(sure, |stopped| stopped.to).max(interval.valid_from);
                history.end(identity, end, *at, changed);
            }
        }
        for interval in present {
            let mut interval = interval.clone();
            let is_confirmed = confirmed.contains(&(interval.key.clone(), interval.identity.identity.clone()));
            let history = self.history(&interval);
            let known = if is_confirmed { Some(*at) } else { history.last_end(source, *at) };
            interval.valid_from = known.map_or(interval.valid_from, |known| known.max(interval.valid_from));
            history.learn(interval, changed);
        }
    }

    /// Whose interface it was.
    pub fn interface(&self, index: u32, netns: u64, boot: &Arc<str>, when: impl Into<Span>) -> Lookup {
        pick(self.candidates(&Key::Interface { index, netns, boot: boot.clone() }, when.into()))
    }

    /// Whose address it was, within `network` and, where that knows nothing, among the entries without a network.
    pub fn ip(&self, network: &str, ip: IpAddr, when: impl Into<Span>) -> Lookup {
        let when = when.into();
        let within = |network: &str| pick(self.candidates(&Key::Ip { network: network.into(), ip }, when));
        match within(network) {
            Lookup::None if network != ANY_NETWORK => within(ANY_NETWORK),
            found => found,
        }
    }

    /// Whose address it was, in whichever network `among` accepts: one identity, or `Ambiguous`.
    pub fn ip_in_any(&self, ip: IpAddr, when: impl Into<Span>, among: impl Fn(&str) -> bool) -> Lookup {
        let when = when.into();
        let networks = self.networks_of_ip.get(&ip).into_iter().flatten();
        let keys = networks.filter(|network| among(network)).map(|network| Key::Ip { network: network.clone(), ip });
        pick(keys.flat_map(|key| self.candidates(&key, when)).collect())
    }

    /// Whether the network has an interface in wiretag's own namespace, and so is one routing domain with the host.
    pub fn is_on_host(&self, network: &str) -> bool {
        self.attachments.is_on_host(network)
    }

    /// Network of an interface.
    pub fn network_of_interface(&self, index: u32, netns: u64, when: impl Into<Span>) -> Option<Arc<str>> {
        self.attachments.network(netns, index, when.into()).cloned()
    }

    /// Whether `identity` had the address at some time of the span; `None` if no address of it is known.
    pub fn has_ip(&self, identity: &str, ip: IpAddr, when: impl Into<Span>) -> Option<bool> {
        let Span { from, to } = when.into();
        let mut known = None;
        for key in self.keys_of_identity.get(identity).into_iter().flatten() {
            let Key::Ip { ip: own, .. } = key else { continue };
            let mut held = self.histories.get(key).into_iter().flat_map(|history| history.overlapping(from, to));
            if held.any(|interval| &*interval.identity.identity == identity) {
                if *own == ip {
                    return Some(true);
                }
                known = Some(false);
            }
        }
        known
    }

    /// Who held the key when the span began, and all who did later in it; nobody if nobody did when it began.
    fn candidates(&self, key: &Key, when: Span) -> Vec<&Interval> {
        let Some(history) = self.histories.get(key) else { return Vec::new() };
        let one_life = matches!(key, Key::Interface { netns: 0, .. });
        if history.overlapping(when.from, when.from).next().is_some() {
            history.overlapping(when.from, when.to).collect()
        } else if one_life {
            history.overlapping(when.from, when.to.saturating_add(TOLERANCE)).collect()
        } else {
            Vec::new()
        }
    }

    /// Every interval, in no particular order.
    pub fn intervals(&self) -> Vec<Interval> {
        self.histories.values().flat_map(History::iter).cloned().collect()
    }

    /// Intervals that last at `at`, of one address or all.
    pub fn current(&self, at: i64, ip: Option<IpAddr>) -> Vec<Interval> {
        let asked = |key: &Key| ip.is_none_or(|ip| matches!(key, Key::Ip { ip: own, .. } if *own == ip));
        let histories = self.histories.iter().filter(|(key, _)| asked(key));
        histories.flat_map(|(_, history)| history.overlapping(at, at)).cloned().collect()
    }

    /// Forgets what ended before `before`.
    pub fn expire(&mut self, before: i64) {
        for history in self.histories.values_mut() {
            history.expire(before);
        }
        self.histories.retain(|_, history| !history.is_empty());
        let histories = &self.histories;
        for keys in self.keys_of_identity.values_mut() {
            keys.retain(|key| histories.contains_key(key));
        }
        self.keys_of_identity.retain(|_, keys| !keys.is_empty());
        self.networks_of_ip.retain(|ip, networks| {
            networks.retain(|network| histories.contains_key(&Key::Ip { network: network.clone(), ip: *ip }));
            !networks.is_empty()
        });
        self.attachments.expire(before);
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
