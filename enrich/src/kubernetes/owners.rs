//! What a pod belongs to: the Deployment of its ReplicaSet, the CronJob of its Job, or what manages it directly.
//!
//! An owner that is not known (its object has not come yet, or wiretag may not read it) is named as the pod names it: that is
//! true, if less than one wants to know. When it comes, its pods are described again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::intern::Interner;
use super::objects::{Meta, OwnerReference};

/// Owners that are to be asked for, at most; the next pod of one asks again.
const MOST_WANTED: usize = 4096;
/// Owners without an answer yet whose pods are remembered.
const MOST_WAITING: usize = 65_536;

/// Pods that are remembered to wait for one owner.
const MOST_PODS: usize = 4096;

/// Kinds of owners that mostly belong to something themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum OwnerKind {
    ReplicaSet,
    Job,
}

impl OwnerKind {
    fn of(kind: &str) -> Option<Self> {
        [Self::ReplicaSet, Self::Job].into_iter().find(|own| own.as_str() == kind)
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::ReplicaSet => "ReplicaSet",
            Self::Job => "Job",
        }
    }
}

/// Kind and name.
pub(super) type Workload = (Arc<str>, Arc<str>);

/// An owner that is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) kind: OwnerKind,
    pub(super) uid: Arc<str>,
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// Of ReplicaSets and Jobs by UID: which of both it is, and what it belongs to, or itself.
    known: HashMap<Arc<str>, (OwnerKind, Workload)>,
    /// Pods that wait for one.
    waiting: HashMap<Arc<str>, Vec<Arc<str>>>,
    wanted: VecDeque<Wanted>,
    interner: Interner,
}

impl Owners {
    /// The workload of a pod with this owner.
    pub(super) fn workload(
        &mut self,
        owner: &OwnerReference,
        namespace: Option<&Arc<str>>,
        pod: &Arc<str>,
    ) -> Workload {
        if let Some(known) = self.known.get(&owner.uid) {
            return known.1.clone();
        }
        if let Some(kind) = OwnerKind::of(&owner.kind) {
            self.wait(kind, owner, namespace, pod);
        }
        (self.interner.text(&owner.kind), self.interner.text(&owner.name))
    }

    fn wait(&mut self, kind: OwnerKind, owner: &OwnerReference, namespace: Option<&Arc<str>>, pod: &Arc<str>) {
        let is_new = !self.waiting.contains_key(&owner.uid);
        if is_new && self.waiting.len() >= MOST_WAITING {
            return;
        }
        let pods = self.waiting.entry(owner.uid.clone()).or_default();
        if pods.len() < MOST_PODS && !pods.contains(pod) {
            pods.push(pod.clone());
        }
        if let Some(namespace) = namespace.filter(|_| is_new && self.wanted.len() < MOST_WANTED) {
            let (uid, namespace, name) = (owner.uid.clone(), namespace.clone(), owner.name.clone());
            self.wanted.push_back(Wanted { kind, uid, namespace, name });
        }
    }

    /// The next owner to ask for.
    pub(super) fn next_wanted(&mut self) -> Option<Wanted> {
        self.wanted.pop_front()
    }

    /// It was asked for in vain; the next pod of it asks again.
    pub(super) fn unanswered(&mut self, uid: &str) {
        self.waiting.remove(uid);
    }

    /// An owner is known: its workload, and the pods that waited for it.
    pub(super) fn apply(&mut self, kind: OwnerKind, meta: &Meta) -> (Workload, Vec<Arc<str>>) {
        let (of, name) = match meta.controller() {
            Some(owner) => (owner.kind.clone(), owner.name.clone()),
            None => (kind.as_str().into(), meta.name.clone()),
        };
        let workload = (self.interner.text(&of), self.interner.text(&name));
        self.known.insert(meta.uid.clone(), (kind, workload.clone()));
        (workload, self.waiting.remove(&meta.uid).unwrap_or_default())
    }

    /// It was deleted.
    pub(super) fn gone(&mut self, uid: &str) {
        self.known.remove(uid);
        self.waiting.remove(uid);
    }

    /// Those of one kind that there are.
    pub(super) fn uids(&self, kind: OwnerKind) -> impl Iterator<Item = &Arc<str>> {
        self.known.iter().filter(move |(_, (own, _))| *own == kind).map(|(uid, _)| uid)
    }
}
