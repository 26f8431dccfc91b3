//! What is there, look after look, to identity events. Pure.
//!
//! * A pod's identity is its UID; its sandbox and its containers are other names of it, each container with which one it is.
//! * A container that restarts is a new name of the same member. `Described` tells the containers that ran at each time
//!   at which one began or ended, be it between two looks; keys tell the pod alone, so that telling them again says nothing
//!   of the past.
//! * A sandbox that is not ready any more has ended: when its process exited, if that was told, else when it was seen
//!   last. If the pod has another sandbox by then, only the keys of the old one end.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::facts::{Container, Interface, Sandbox};
use crate::event::{IdentityEvent, Snapshot};
use crate::identity::{Identity, Interval, Key, Member};

/// A sandbox of which not all is known is asked again after so long, ns, each time twice as long.
const FIRST_WAIT: i64 = 100_000_000;
const LONGEST_WAIT: i64 = 60_000_000_000;
/// Containers that the runtime lists no more are remembered for so long, ns: a look may find late what ran beside them.
const REMEMBERED: i64 = 60_000_000_000;

/// Where the source is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Network of the pods' addresses.
    pub(super) cluster: Arc<str>,
    pub(super) host: Arc<str>,
    pub(super) boot: Arc<str>,
}

/// One look at the runtime.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// When it began.
    pub(super) at: i64,
    /// Ids of the sandboxes that are ready.
    pub(super) ready: HashSet<Arc<str>>,
    /// Those of which there is something new.
    pub(super) sandboxes: Vec<Sandbox>,
    /// Containers that are new or ended, with their sandbox.
    pub(super) containers: Vec<(Arc<str>, Container)>,
    /// Ids of all containers, and of those that run.
    pub(super) listed: HashSet<Arc<str>>,
    pub(super) running: HashSet<Arc<str>>,
    /// When processes exited, by the id of container or sandbox.
    pub(super) exits: HashMap<String, i64>,
}

struct Pod {
    sandbox: Sandbox,
    identity: Arc<str>,
    /// Those that run, by id.
    containers: BTreeMap<Arc<str>, Container>,
    /// Those that ran, with their end.
    over: BTreeMap<Arc<str>, Container>,
    /// When it is asked for what is missing, and how long after the last time that is.
    again: i64,
    wait: i64,
}

/// See the module documentation.
pub(super) struct Pods {
    place: Place,
    /// By id of the sandbox.
    known: HashMap<Arc<str>, Pod>,
    /// When the last look began.
    seen: i64,
}

impl Pods {
    pub(super) fn new(place: Place) -> Self {
        Self { place, known: HashMap::new(), seen: 0 }
    }

    /// Whether there is nothing to ask about a sandbox at `at`: all is known, or it was asked a moment ago in vain.
    pub(super) fn is_settled(&self, id: &str, at: i64) -> bool {
        self.known.get(id).is_some_and(|pod| pod.is_complete() || at < pod.again)
    }

    /// Whether the container is known as running.
    pub(super) fn runs(&self, sandbox: &str, id: &str) -> bool {
        self.known.get(sandbox).is_some_and(|pod| pod.containers.contains_key(id))
    }

    /// Whether the container is known to have ended.
    pub(super) fn is_over(&self, sandbox: &str, id: &str) -> bool {
        self.known.get(sandbox).is_some_and(|pod| pod.over.contains_key(id))
    }

    /// Containers that are known as running, with their sandbox.
    pub(super) fn running(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        self.known.iter().flat_map(|(sandbox, pod)| pod.containers.keys().map(move |id| (sandbox, id)))
    }

    /// When the last look began.
    pub(super) fn seen(&self) -> i64 {
        self.seen
    }

    /// Takes the first look of a connection. Sandboxes that are gone are forgotten: the snapshot says that they have ended.
    pub(super) fn begin(&mut self, look: Look, heard: Option<i64>, learned_at: i64) -> Vec<IdentityEvent> {
        let before: Vec<u64> = self.known.values().filter_map(captured_inside).collect();
        self.known.retain(|id, _| look.ready.contains(id));
        let at = look.at;
        let mut events: Vec<IdentityEvent> = Vec::new();
        let told = self.update(look, learned_at);
        let is_key = |event: &IdentityEvent| matches!(event, IdentityEvent::Learned(_));
        events.extend(told.into_iter().filter(|event| !is_key(event)));
        let still: HashSet<u64> = self.known.values().filter_map(captured_inside).collect();
        let gone = before.into_iter().filter(|inode| !still.contains(inode));
        events.extend(gone.map(|inode| IdentityEvent::NamespaceGone { inode, at }));
        let present = self.known.values().flat_map(|pod| self.intervals(pod, None, learned_at)).collect();
        let (source, stopped) = ("cri".into(), Vec::new());
        events.push(IdentityEvent::Reconciled(Snapshot { source, present, stopped, unclear: Vec::new(), heard, at }));
        events
    }

    /// Takes a further look.
    pub(super) fn update(&mut self, look: Look, learned_at: i64) -> Vec<IdentityEvent> {
        let mut events = Vec::new();
        let over: Vec<Arc<str>> = self.known.keys().filter(|id| !look.ready.contains(*id)).cloned().collect();
        for id in over {
            let Some(pod) = self.known.remove(&id) else { continue };
            let at = look.exits.get(&*id).copied().unwrap_or(self.seen).max(pod.sandbox.from);
            self.end(&pod, at, learned_at, &mut events);
        }
        // When something changed.
        let mut changed: BTreeMap<Arc<str>, BTreeSet<i64>> = BTreeMap::new();
        for sandbox in look.sandboxes.into_iter().filter(|sandbox| look.ready.contains(&sandbox.id)) {
            let (id, from) = (sandbox.id.clone(), sandbox.from);
            if self.appeared(sandbox, (look.at, learned_at), &mut events) {
                changed.entry(id).or_default().insert(from);
            }
        }
        for (sandbox, container) in look.containers {
            let Some(pod) = self.known.get_mut(&sandbox) else { continue };
            if !container.name.is_empty() {
                events.push(same(&container.id, pod, Some(member(&container)), learned_at));
            }
            let exit = look.exits.get(&*container.id).copied();
            let times = pod.take(container, &look.running, exit, look.at);
            changed.entry(sandbox).or_default().extend(times);
        }
        for (id, times) in changed {
            let Some(pod) = self.known.get(&id) else { continue };
            for from in times {
                let identity = Arc::new(Identity { containers: pod.members(from), ..self.identity(pod) });
                events.push(IdentityEvent::Described { identity, from, learned_at, source: "cri".into() });
            }
        }
        let oldest = look.at.saturating_sub(REMEMBERED);
        for pod in self.known.values_mut() {
            pod.over.retain(|id, own| look.listed.contains(id) || own.to.is_some_and(|to| to > oldest));
        }
        self.seen = look.at;
        events
    }

    /// Takes a sandbox; whether it is new.
    fn appeared(&mut self, sandbox: Sandbox, (at, learned_at): (i64, i64), events: &mut Vec<IdentityEvent>) -> bool {
        if let Some(known) = self.known.get_mut(&sandbox.id) {
            known.wait = known.wait.saturating_mul(2).min(LONGEST_WAIT);
            known.again = at.saturating_add(known.wait);
            // What could be read before does not go away because it cannot be read now.
            if known.sandbox == sandbox || (known.sandbox.inside.is_some() && sandbox.inside.is_none()) {
                return false;
            }
        }
        let uid = Some(sandbox.uid.as_str()).filter(|uid| !uid.is_empty());
        let identity = uid.map_or_else(|| format!("cni:{}", sandbox.id).into(), Into::into);
        let before = self.known.remove(&sandbox.id);
        let is_new = before.is_none();
        let (containers, over) = before.map(|pod| (pod.containers, pod.over)).unwrap_or_default();
        let (again, wait) = (at.saturating_add(FIRST_WAIT), FIRST_WAIT);
        let pod = Pod { sandbox, identity, containers, over, again, wait };
        let cni = format!("cni:{}", pod.sandbox.id);
        let aliases = [&*cni, &*pod.sandbox.id].into_iter().filter(|alias| *alias != &*pod.identity);
        events.extend(aliases.map(|alias| same(alias, &pod, None, learned_at)));
        self.networks(&pod, events);
        events.extend(self.intervals(&pod, None, learned_at).into_iter().map(IdentityEvent::Learned));
        if let Some((inode, inside)) = captured_inside(&pod).zip(pod.sandbox.inside.as_ref()) {
            let own = inside.interfaces.iter().filter(|own| own.outside.is_none());
            let interfaces = own.map(|own| (own.index, own.name.clone())).collect();
            let (identity, netns) = (Arc::new(self.identity(&pod)), inside.path.clone());
            events.push(IdentityEvent::Namespace { identity, netns, inode, interfaces });
        }
        self.known.insert(pod.sandbox.id.clone(), pod);
        is_new
    }

    /// Says to which network the interfaces belong: `eth0` to the cluster's; of further ones the runtime does not tell.
    fn networks(&self, pod: &Pod, events: &mut Vec<IdentityEvent>) {
        let Some(inside) = &pod.sandbox.inside else { return };
        for own in inside.interfaces.iter().filter(|own| own.name == "eth0") {
            let mut tell = |index, netns| {
                let (network, at) = (self.place.cluster.clone(), pod.sandbox.from);
                events.push(IdentityEvent::Network { index, netns, network, at });
            };
            match own.outside {
                Some((index, bridge)) => bridge.into_iter().chain([index]).for_each(|index| tell(index, 0)),
                None => tell(own.index, inside.inode),
            }
        }
    }

    fn intervals(&self, pod: &Pod, valid_to: Option<i64>, learned_at: i64) -> Vec<Interval> {
        let network = || self.place.cluster.clone();
        let ips = pod.sandbox.ips.iter().map(|ip| Key::Ip { network: network(), ip: *ip });
        let mut keys: Vec<Key> = ips.collect();
        if let Some(inside) = &pod.sandbox.inside {
            for own in &inside.interfaces {
                let (index, netns) = own.outside.map_or((own.index, inside.inode), |(index, _)| (index, 0));
                keys.push(Key::Interface { index, netns, boot: self.place.boot.clone() });
                let network = if own.name == "eth0" { network() } else { self.further_network(own) };
                // Where nobody knows what it is attached to, others may have the same.
                let is_known = own.name == "eth0" || own.outside.is_some() || own.on.is_some();
                let mac = own.mac.filter(|_| is_known).map(|mac| Key::Mac { network: network.clone(), mac });
                keys.extend(mac);
                let ips = own.ips.iter().filter(|ip| !pod.sandbox.ips.contains(ip));
                keys.extend(ips.map(|ip| Key::Ip { network: network.clone(), ip: *ip }));
            }
        }
        let identity = Arc::new(self.identity(pod));
        let interval = |key| {
            let (identity, source) = (identity.clone(), "cri".into());
            Interval { key, identity, valid_from: pod.sandbox.from, valid_to, learned_at, source }
        };
        keys.into_iter().map(interval).collect()
    }

    /// Which network a further interface is in nobody tells: addresses count as unique where it is attached.
    fn further_network(&self, own: &Interface) -> Arc<str> {
        let on = match (&own.on, own.outside) {
            (Some(device), _) => device.as_str(),
            (None, Some(_)) => "routed",
            (None, None) => "inside",
        };
        format!("{}/on:{on}", self.place.cluster).into()
    }

    /// The pod, without its containers.
    fn identity(&self, pod: &Pod) -> Identity {
        let sandbox = &pod.sandbox;
        Identity {
            identity: pod.identity.clone(),
            cluster: Some(self.place.cluster.clone()),
            host: Some(self.place.host.clone()),
            namespace: Some(sandbox.namespace.as_str().into()),
            pod: Some(sandbox.pod.as_str().into()),
            labels: sandbox.labels.clone(),
            ..Identity::default()
        }
    }

    /// `pod`, which is not known any more, ended.
    fn end(&self, pod: &Pod, at: i64, learned_at: i64, events: &mut Vec<IdentityEvent>) {
        if self.known.values().any(|other| other.identity == pod.identity) {
            let intervals = self.intervals(pod, Some(at), learned_at);
            events.extend(intervals.into_iter().map(IdentityEvent::Learned));
        } else {
            events.push(IdentityEvent::Ended { identity: pod.identity.clone(), at, learned_at, source: "cri".into() });
        }
        events.extend(captured_inside(pod).map(|inode| IdentityEvent::NamespaceGone { inode, at }));
    }
}

impl Pod {
    /// Whether all is known that can be.
    fn is_complete(&self) -> bool {
        self.sandbox.host_network || self.sandbox.inside.is_some()
    }

    /// Takes a container that began or ended; at which times that was. `exit` is when its process exited, if that was told.
    fn take(&mut self, container: Container, running: &HashSet<Arc<str>>, exit: Option<i64>, at: i64) -> Vec<i64> {
        let id = container.id.clone();
        if running.contains(&id) {
            self.over.remove(&id);
            let from = if container.from > 0 { container.from } else { at };
            self.containers.insert(id, Container { from, to: None, ..container });
            return vec![from];
        }
        let to = container.to.or(exit).unwrap_or(at);
        let known = self.containers.remove(&id);
        let was_seen = known.is_some();
        // It came and went between two looks, or it never ran.
        let own = known.unwrap_or(container);
        let from = own.from;
        self.over.insert(id, Container { to: Some(to), ..own });
        let begin = (!was_seen).then_some(from);
        if from > 0 && from < to { begin.into_iter().chain([to]).collect() } else { Vec::new() }
    }

    /// Containers that ran at a time.
    fn members(&self, at: i64) -> Vec<Member> {
        let all = self.containers.values().chain(self.over.values());
        let ran = all.filter(|own| own.from > 0 && own.from <= at && own.to.is_none_or(|to| at < to));
        let mut members: Vec<Member> = ran.map(member).collect();
        members.sort_by(|a, b| a.container.cmp(&b.container));
        members.dedup();
        members
    }
}

/// The namespace, if traffic of the pod passes no interface of the host.
fn captured_inside(pod: &Pod) -> Option<u64> {
    let inside = pod.sandbox.inside.as_ref()?;
    inside.interfaces.iter().any(|own| own.outside.is_none()).then_some(inside.inode)
}

fn member(container: &Container) -> Member {
    Member { container: container.name.clone(), image: container.image.clone(), ports: Vec::new() }
}

fn same(alias: &str, pod: &Pod, member: Option<Member>, learned_at: i64) -> IdentityEvent {
    let (alias, identity, source) = (alias.into(), pod.identity.clone(), "cri".into());
    IdentityEvent::Same { alias, identity, member, learned_at, source }
}

#[cfg(test)]
mod tests;
