//! What the translation says, and when it holds.

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use crate::event::IdentityEvent;
use crate::identity::{Identity, Interval, Key, Member};

/// Name of the source.
pub(super) const SOURCE: &str = "kubernetes";

/// When a change was heard of. It happened after `sure`, until which what was known before held for certain, and not
/// after `at`, when it was received. While a watch is up to date both are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct When {
    pub(super) sure: i64,
    pub(super) at: i64,
}

impl When {
    /// Whether it is news rather than what was missed.
    pub(super) const fn is_live(self) -> bool {
        self.sure == self.at
    }
}

/// Where a service answers: IP protocol, address, port.
pub(super) type Spot = (u8, IpAddr, u16);

/// Collects events.
#[derive(Debug)]
pub(super) struct Teller {
    pub(super) cluster: Arc<str>,
    source: Arc<str>,
    events: Vec<IdentityEvent>,
}

impl Teller {
    pub(super) fn new(cluster: Arc<str>) -> Self {
        Self { cluster, source: SOURCE.into(), events: Vec::new() }
    }

    pub(super) fn take(&mut self) -> Vec<IdentityEvent> {
        std::mem::take(&mut self.events)
    }

    pub(super) fn ip(&self, ip: IpAddr) -> Key {
        Key::Ip { network: self.cluster.clone(), ip }
    }

    pub(super) fn spot(&self, (protocol, ip, port): Spot) -> Key {
        Key::Service { network: self.cluster.clone(), protocol, ip, port }
    }

    pub(super) fn interval(&self, key: Key, identity: &Arc<Identity>, valid_from: i64, learned_at: i64) -> Interval {
        let (identity, source) = (identity.clone(), self.source.clone());
        Interval { key, identity, valid_from, valid_to: None, learned_at, source }
    }

    /// It has ended.
    pub(super) fn until(
        &self,
        key: Key,
        identity: &Arc<Identity>,
        (from, to): (i64, i64),
        learned_at: i64,
    ) -> Interval {
        Interval { valid_to: Some(to), ..self.interval(key, identity, from, learned_at) }
    }

    pub(super) fn learned(&mut self, interval: Interval) {
        self.events.push(IdentityEvent::Learned(interval));
    }

    pub(super) fn described(&mut self, identity: &Arc<Identity>, from: i64, learned_at: i64) {
        let (identity, source) = (identity.clone(), self.source.clone());
        self.events.push(IdentityEvent::Described { identity, from, learned_at, source });
    }

    pub(super) fn same(&mut self, alias: Arc<str>, identity: &Arc<str>, member: Option<Member>, learned_at: i64) {
        let (identity, source) = (identity.clone(), self.source.clone());
        self.events.push(IdentityEvent::Same { alias, identity, member, learned_at, source });
    }

    pub(super) fn ended(&mut self, identity: &Arc<str>, at: i64, learned_at: i64) {
        let (identity, source) = (identity.clone(), self.source.clone());
        self.events.push(IdentityEvent::Ended { identity, at, learned_at, source });
    }
}

/// UIDs of what was deleted: a late or repeated word about it means nothing. UIDs are never given again.
#[derive(Debug, Default)]
pub(super) struct Tombs {
    known: HashSet<Arc<str>>,
    order: VecDeque<Arc<str>>,
}

/// So many are remembered.
const TOMBS: usize = 65_536;

impl Tombs {
    pub(super) fn has(&self, uid: &str) -> bool {
        self.known.contains(uid)
    }

    pub(super) fn add(&mut self, uid: &Arc<str>) {
        if self.known.insert(uid.clone()) {
            self.order.push_back(uid.clone());
        }
        if self.order.len() > TOMBS
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}
