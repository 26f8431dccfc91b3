//! What one version of a pod object says.

use std::net::IpAddr;
use std::sync::Arc;

use super::clock::Clocks;
use super::intern::Interner;
use super::objects::{self, Container, ContainerStatus, OwnerReference, Pod, Run, Time};
use super::tell::When;
use crate::identity::{Identity, Member};

/// See the module documentation.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) uid: Arc<str>,
    pub(super) version: u64,
    /// Without zone and owner, which other objects tell.
    pub(super) identity: Identity,
    pub(super) node: Arc<str>,
    pub(super) owner: Option<OwnerReference>,
    pub(super) host_network: bool,
    pub(super) ips: Vec<IpAddr>,
    /// Other names: the ids of its containers, with what they are.
    pub(super) aliases: Vec<(Arc<str>, Option<Member>)>,
    pub(super) created: Option<i64>,
    pub(super) is_over: bool,
    /// Of the containers that run: the earliest start.
    running_since: Option<i64>,
    /// From the first start to the last end, if none runs and none was ever started again.
    only_run: Option<(i64, i64)>,
    /// The last end, if none runs.
    finished: Option<i64>,
    /// The latest time in it.
    newest: Option<i64>,
}

impl Seen {
    pub(super) fn new(pod: &Pod, cluster: &Arc<str>, interner: &mut Interner) -> Self {
        let (meta, status) = (&pod.metadata, &pod.status);
        let node = pod.spec.node_name.as_ref().map(|node| interner.text(node));
        let runs = |own: &ContainerStatus| own.state.running.is_some();
        let starts = status.all().filter_map(|own| own.state.running.as_ref()?.started_at);
        let ends = || status.all().filter_map(|own| own.state.terminated.as_ref());
        let stopped = !status.container_statuses.is_empty()
            && !status.all().any(runs)
            && status.container_statuses.iter().all(|own| own.state.terminated.is_some());
        let finished = ends().filter_map(|run| run.finished_at).max().filter(|_| stopped).map(|time| time.0);
        let restarted = status.all().any(|own| own.restart_count > 0);
        let first = ends().filter_map(|run| run.started_at).min().filter(|_| !restarted);
        Self {
            uid: meta.uid.clone(),
            version: meta.version(),
            identity: Identity {
                identity: meta.uid.clone(),
                cluster: Some(cluster.clone()),
                host: node.clone(),
                namespace: meta.namespace.as_ref().map(|namespace| interner.text(namespace)),
                pod: Some(meta.name.clone()),
                labels: interner.map(&meta.labels),
                containers: members(pod, interner),
                ..Identity::default()
            },
            node: node.unwrap_or_default(),
            owner: meta.controller().cloned(),
            host_network: pod.spec.host_network,
            ips: status.ips(),
            aliases: aliases(pod, interner),
            created: meta.created(),
            is_over: status.is_over(),
            running_since: starts.min().map(|time| time.0),
            only_run: first.map(|time| time.0).zip(finished),
            finished,
            newest: newest(pod),
        }
    }

    /// Tells the clock of its node.
    pub(super) fn measure(&self, clocks: &mut Clocks, when: When) {
        if let Some(told) = self.newest.filter(|_| when.is_live()) {
            clocks.heard(&self.node, told, when.at);
        }
    }

    /// Since when it surely has its first addresses: they are there before its first container starts.
    pub(super) fn begin(&self, clocks: &Clocks, when: When) -> i64 {
        let start = self.running_since.or(self.only_run.map(|(start, _)| start));
        start.map_or(when.at, |start| clocks.by(&self.node, start).min(when.at))
    }

    /// When it ended, given that it has: when its last container did, if that is told, and else when it was last sure not to have.
    pub(super) fn end(&self, clocks: &Clocks, when: When) -> i64 {
        let told = self.finished.map(|end| clocks.not_before(&self.node, end).min(when.at));
        told.unwrap_or(when.sure)
    }
}

fn newest(pod: &Pod) -> Option<i64> {
    let states = pod.status.all().flat_map(|own| [own.state.running.as_ref(), own.state.terminated.as_ref()]);
    let times = |run: &Run| [run.started_at, run.finished_at].into_iter().flatten().collect::<Vec<Time>>();
    states.flatten().flat_map(times).max().map(|time| time.0)
}

fn member(container: &Container, interner: &mut Interner) -> Member {
    let ports = container
        .ports
        .iter()
        .filter_map(|own| Some((objects::protocol(own.protocol.as_deref())?, objects::port(own.container_port)?)));
    Member {
        container: interner.text(&container.name),
        image: container.image.as_ref().map(|image| interner.text(image)),
        ports: ports.collect(),
    }
}

/// Its regular containers and sidecars, and the others for as long as they may have run: init containers until the regular ones were
/// started, ephemeral ones until their end is told. What is told late must not give the name of one to the traffic of another.
fn members(pod: &Pod, interner: &mut Interner) -> Vec<Member> {
    let (spec, status) = (&pod.spec, &pod.status);
    let find = |statuses: &'_ [ContainerStatus], container: &Container, is: fn(&ContainerStatus) -> bool| {
        statuses.iter().any(|own| own.name == container.name && is(own))
    };
    let runs = |own: &ContainerStatus| own.state.running.is_some();
    let is_over = |own: &ContainerStatus| own.state.terminated.is_some();
    let has_begun = |own: &ContainerStatus| own.state.running.is_some() || own.state.terminated.is_some();
    let is_initialized = status.container_statuses.iter().any(has_begun);
    let sidecar = |own: &Container| own.restart_policy.as_deref() == Some("Always");
    let may_run =
        |own: &&Container| sidecar(own) || !is_initialized || find(&status.init_container_statuses, own, runs);
    let inits = spec.init_containers.iter().filter(may_run);
    let guests = spec.ephemeral_containers.iter();
    let guests = guests.filter(|own| !find(&status.ephemeral_container_statuses, own, is_over));
    spec.containers.iter().chain(inits).chain(guests).map(|own| member(own, interner)).collect()
}

fn aliases(pod: &Pod, interner: &mut Interner) -> Vec<(Arc<str>, Option<Member>)> {
    let spec = &pod.spec;
    let declared = || spec.containers.iter().chain(&spec.init_containers).chain(&spec.ephemeral_containers);
    let mut aliases = Vec::new();
    // The kubelet and the runtime call a static pod by another id than the API server.
    aliases.extend(pod.metadata.annotations.mirror.clone().map(|id| (id, None)));
    for status in pod.status.all() {
        // `containerd://4f5c…`
        let id = status.container_id.as_deref().and_then(|id| id.split_once("://")).map_or("", |(_, id)| id);
        if id.is_empty() {
            continue;
        }
        let member = declared().find(|own| own.name == status.name).map(|own| member(own, interner));
        aliases.push((id.into(), member));
    }
    aliases
}
