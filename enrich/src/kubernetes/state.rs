//! From objects to events: what the API server says, in the order in which it comes, and what that means for the timeline.
//!
//! The state does no IO and reads no clock. It keeps of each object what is needed to tell the next change, and by the number
//! of its version knows what comes late or twice: the same set of objects gives the same truth in any order.

use std::collections::HashSet;
use std::sync::Arc;

use super::clock::Clocks;
use super::intern::Interner;
use super::namespaces::{Namespaces, News};
use super::nodes::Nodes;
use super::objects::{Bare, Endpoints, Meta, Node, Pod, Service, Slice};
use super::owners::{OwnerKind, Owners, Wanted};
use super::pod::Seen;
use super::pods::{Pods, Surroundings};
use super::services::{Backends, Services};
use super::tell::{SOURCE, Teller, Tombs, When};
use super::watch::Told;
use crate::event::{IdentityEvent, Snapshot};

/// The name by which the clock of the API server is known; no node has it.
const API: &str = "";

/// An object of one of the kinds that are watched.
#[derive(Debug, Clone)]
pub(super) enum Object {
    Pod(Box<Pod>),
    Node(Node),
    Service(Service),
    Slice(Slice),
    Endpoints(Endpoints),
    Owner(OwnerKind, Bare),
    Namespace(Bare),
}

/// What lists of objects are complete lists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Pods,
    Nodes,
    Services,
    Endpoints,
    Owners(OwnerKind),
    Namespaces,
}

impl Kind {
    /// What people call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Nodes => "nodes",
            Self::Services => "services",
            Self::Endpoints => "endpoints",
            Self::Owners(OwnerKind::ReplicaSet) => "replicasets",
            Self::Owners(OwnerKind::Job) => "jobs",
            Self::Namespaces => "namespaces",
        }
    }
}

impl Object {
    fn meta(&self) -> &Meta {
        match self {
            Self::Pod(pod) => &pod.metadata,
            Self::Node(node) => &node.metadata,
            Self::Service(service) => &service.metadata,
            Self::Slice(slice) => &slice.metadata,
            Self::Endpoints(endpoints) => &endpoints.metadata,
            Self::Owner(_, own) | Self::Namespace(own) => &own.metadata,
        }
    }

    pub(super) fn uid(&self) -> &Arc<str> {
        &self.meta().uid
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Pod(_) => Kind::Pods,
            Self::Node(_) => Kind::Nodes,
            Self::Service(_) => Kind::Services,
            Self::Slice(_) | Self::Endpoints(_) => Kind::Endpoints,
            Self::Owner(kind, _) => Kind::Owners(*kind),
            Self::Namespace(_) => Kind::Namespaces,
        }
    }
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct State {
    pods: Pods,
    nodes: Nodes,
    namespaces: Namespaces,
    services: Services,
    owners: Owners,
    clocks: Clocks,
    interner: Interner,
    tombs: Tombs,
    teller: Teller,
}

impl State {
    /// Nothing is known yet; `cluster` names the network of the pods, `node` has the clock of this host.
    pub(super) fn new(cluster: Arc<str>, node: Arc<str>) -> Self {
        Self {
            pods: Pods::default(),
            nodes: Nodes::default(),
            namespaces: Namespaces::default(),
            services: Services::default(),
            owners: Owners::default(),
            clocks: Clocks::new(node),
            interner: Interner::default(),
            tombs: Tombs::default(),
            teller: Teller::new(cluster),
        }
    }

    /// What there is to tell since the last time.
    pub(super) fn take(&mut self) -> Vec<IdentityEvent> {
        self.teller.take()
    }

    /// An owner of pods that is not known.
    pub(super) fn next_wanted(&mut self) -> Option<Wanted> {
        self.owners.next_wanted()
    }

    /// It was asked for in vain.
    pub(super) fn unanswered(&mut self, uid: &str) {
        self.owners.unanswered(uid);
    }

    /// What a watch tells of objects.
    pub(super) fn hear(&mut self, told: &Told) {
        match told {
            Told::Applied { object, when, is_new } => {
                if *is_new {
                    self.created(object, *when);
                }
                self.apply(object, *when);
            }
            Told::Gone { object, when } => self.gone(object, *when),
            Told::GoneUnread { resource, named, when } => self.gone_unread(resource.kind(), &named.uid, *when),
            Told::Listed { resource, uids, when, .. } => self.listed(resource.kind(), uids, *when),
            Told::Unread { .. } | Told::Failed { .. } | Told::Works { .. } | Told::Heard { .. } => {}
        }
    }

    /// An object is there, in this version.
    pub(super) fn apply(&mut self, object: &Object, when: When) {
        let meta = object.meta();
        if meta.uid.is_empty() || self.tombs.has(&meta.uid) {
            return;
        }
        let from = meta.created().map_or(when.at, |created| self.clocks.by(API, created).min(when.at));
        match object {
            Object::Pod(pod) => {
                let seen = Seen::new(pod, &self.teller.cluster, &mut self.interner);
                let (pods, mut around) = self.pods();
                pods.apply(&seen, when, &mut around);
            }
            Object::Node(node) => {
                if self.nodes.apply(node, from, when, &mut self.teller) {
                    self.rezone(&node.metadata.name, when.at);
                }
            }
            Object::Service(service) => self.services.apply(service, from, when, &mut self.teller),
            Object::Slice(slice) => {
                if let Some(backends) = Backends::of_slice(slice) {
                    self.services.apply_slice(backends, when, &mut self.teller);
                }
            }
            Object::Endpoints(endpoints) => {
                self.services.apply_slice(Backends::of_endpoints(endpoints), when, &mut self.teller);
            }
            Object::Owner(kind, owner) => self.own(*kind, &owner.metadata, when.at),
            Object::Namespace(own) => self.relabel(&own.metadata, when),
        }
    }

    /// An object was created just now: so the API server's clock is heard.
    fn created(&mut self, object: &Object, when: When) {
        if let Some(created) = object.meta().created().filter(|_| when.is_live()) {
            self.clocks.heard(&API.into(), created, when.at);
        }
    }

    /// An object was deleted; this was its last version.
    pub(super) fn gone(&mut self, object: &Object, when: When) {
        let uid = object.uid().clone();
        if let Object::Pod(pod) = object {
            let last = Seen::new(pod, &self.teller.cluster, &mut self.interner);
            let (pods, mut around) = self.pods();
            pods.gone(&uid, Some(&last), when, &mut around);
            return;
        }
        self.remove(object.kind(), &uid, when);
        self.tombs.add(&uid);
    }

    /// An object was deleted; its last version says nothing.
    fn gone_unread(&mut self, kind: Kind, uid: &Arc<str>, when: When) {
        if !uid.is_empty() {
            self.remove(kind, uid, when);
            self.tombs.add(uid);
        }
    }

    fn remove(&mut self, kind: Kind, uid: &Arc<str>, when: When) {
        match kind {
            Kind::Pods => {
                let (pods, mut around) = self.pods();
                pods.gone(uid, None, when, &mut around);
            }
            Kind::Nodes => {
                if let Some(name) = self.nodes.gone(uid, when, &mut self.teller) {
                    self.clocks.forget(&name);
                }
            }
            Kind::Services => self.services.gone(uid, when, &mut self.teller),
            Kind::Endpoints => self.services.gone_slice(uid, when, &mut self.teller),
            Kind::Owners(_) => self.owners.gone(uid),
            Kind::Namespaces => self.namespaces.gone(uid),
        }
    }

    /// All objects of a kind have been applied, and there are none but `listed`: what else was known has gone, unheard.
    pub(super) fn listed(&mut self, kind: Kind, listed: &HashSet<Arc<str>>, when: When) {
        let known: Vec<&Arc<str>> = match kind {
            Kind::Pods => self.pods.uids().collect(),
            Kind::Nodes => self.nodes.uids().collect(),
            Kind::Services => self.services.uids().collect(),
            Kind::Endpoints => self.services.slice_uids().collect(),
            Kind::Owners(own) => self.owners.uids(own).collect(),
            Kind::Namespaces => self.namespaces.uids().collect(),
        };
        let gone: Vec<Arc<str>> = known.into_iter().filter(|uid| !listed.contains(*uid)).cloned().collect();
        for uid in gone {
            self.remove(kind, &uid, when);
            // Endpoints are there in several forms: those that are not in a list of one may come again in another.
            if kind != Kind::Endpoints {
                self.tombs.add(&uid);
            }
        }
    }

    /// All that holds, once every kind has been listed.
    pub(super) fn snapshot(&self, when: When, heard: Option<i64>) -> IdentityEvent {
        let (mut present, mut stopped) = (Vec::new(), Vec::new());
        self.pods.present(when.at, &self.teller, &mut present, &mut stopped);
        self.nodes.present(when.at, &self.teller, &mut present);
        self.services.present(when.at, &self.teller, &mut present);
        IdentityEvent::Reconciled(Snapshot {
            source: SOURCE.into(),
            present,
            stopped,
            unclear: Vec::new(),
            heard,
            at: when.at,
        })
    }

    fn pods(&mut self) -> (&mut Pods, Surroundings<'_>) {
        let Self { pods, nodes, namespaces, owners, clocks, tombs, teller, .. } = self;
        (pods, Surroundings { clocks, owners, zones: &nodes.zones, namespaces, tombs, teller })
    }

    fn rezone(&mut self, node: &str, at: i64) {
        let zone = self.nodes.zones.get(node);
        let of = |identity: &crate::Identity, own: &str| {
            (own == node && identity.zone.as_ref() != zone)
                .then(|| crate::Identity { zone: zone.cloned(), ..identity.clone() })
        };
        self.pods.renew(of, (at, at), &mut self.teller);
    }

    /// A namespace is there, or has other labels. One that was made just now had them before its pods were there.
    fn relabel(&mut self, meta: &Meta, when: When) {
        let from = match self.namespaces.apply(meta) {
            News::None => return,
            News::First if when.is_live() => i64::MIN,
            News::First | News::Changed => when.at,
        };
        let of = |identity: &crate::Identity, _: &str| {
            let namespace = identity.namespace.as_deref().filter(|own| **own == *meta.name)?;
            let mut labels = identity.labels.clone();
            self.namespaces.label(Some(namespace), &mut labels);
            (labels != identity.labels).then(|| crate::Identity { labels, ..identity.clone() })
        };
        self.pods.renew(of, (from, when.at), &mut self.teller);
    }

    fn own(&mut self, kind: OwnerKind, meta: &Meta, at: i64) {
        let ((kind, name), pods) = self.owners.apply(kind, meta);
        for uid in pods {
            let change = |identity: &mut crate::Identity| {
                (identity.workload, identity.workload_kind) = (Some(name.clone()), Some(kind.clone()));
            };
            self.pods.renew_one(&uid, change, at, &mut self.teller);
        }
    }
}
