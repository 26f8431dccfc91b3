//! The task that runs the watches and tells what they mean.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::client::{Connector, Failure};
use super::now;
use super::objects::Bare;
use super::owners::Wanted;
use super::resource::{Named, Resource, path_of_owner};
use super::standing::{Line, Standings};
use super::state::{Kind, Object, State};
use super::tell::{SOURCE, When};
use super::watch::{Told, Watch, page};
use crate::event::IdentityEvent;
use crate::status::SourceStatus;

/// Messages between the watches and this task.
const QUEUE: usize = 1024;
/// Owners that are asked for at a time.
const AT_A_TIME: usize = 8;
/// A server that comes back makes several new lists: they are confirmed together, after so long.
const TOGETHER: Duration = Duration::from_secs(1);

/// How much of the cluster is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// What runs on this node.
    Node,
    /// Everything.
    Cluster,
}

impl Scope {
    /// Resources, each in its forms; pods come last.
    pub(super) const fn resources(self) -> &'static [&'static [Resource]] {
        use Resource::{Endpoints, Jobs, Namespaces, Nodes, Pods, ReplicaSets, Services, Slices, SlicesBeta};
        match self {
            Self::Node => &[&[Nodes], &[Namespaces], &[Pods]],
            Self::Cluster => &[
                &[Nodes],
                &[Namespaces],
                &[ReplicaSets],
                &[Jobs],
                &[Services],
                &[Slices, SlicesBeta, Endpoints],
                &[Pods],
            ],
        }
    }
}

/// What the source must know.
#[derive(Debug, Clone)]
pub struct KubernetesConfig {
    /// The kubeconfig; none: the service account of the pod that wiretag runs in.
    pub kubeconfig: Option<PathBuf>,
    /// Name of the cluster, and of the network in which its addresses are unique.
    pub cluster: Arc<str>,
    /// How much is watched.
    pub scope: Scope,
    /// This host, as the cluster calls it.
    pub node: Arc<str>,
}

/// See [`crate::kubernetes`].
pub struct KubernetesSource {
    config: KubernetesConfig,
    heard: Option<i64>,
    page: u32,
    status: watch::Sender<SourceStatus>,
}

impl KubernetesSource {
    /// A source; `heard` is until when an earlier run listened, if that is known.
    pub fn new(config: KubernetesConfig, heard: Option<i64>) -> Self {
        Self { config, heard, page: page(), status: watch::Sender::new(SourceStatus::Starting) }
    }

    /// With other pages than usual.
    #[must_use]
    pub fn with_page(self, page: u32) -> Self {
        Self { page, ..self }
    }

    /// Its state, as it changes.
    pub fn status(&self) -> watch::Receiver<SourceStatus> {
        self.status.subscribe()
    }

    /// Runs until nobody listens any more.
    pub async fn run(self, events: mpsc::Sender<IdentityEvent>) {
        let Self { config, heard, page, status } = self;
        let connector = Arc::new(Connector::new(config.kubeconfig.clone()));
        let (told, mut inbox) = mpsc::channel(QUEUE);
        let (others, begin) = watch::channel(false);
        let at_once = watch::channel(true);
        let mut watches = JoinSet::new();
        for forms in config.scope.resources() {
            let is_pods = forms.contains(&Resource::Pods);
            let fields = match config.scope {
                Scope::Node if is_pods => Some(format!("spec.nodeName={}", config.node)),
                Scope::Node if forms.contains(&Resource::Nodes) => Some(format!("metadata.name={}", config.node)),
                Scope::Node | Scope::Cluster => None,
            };
            // Pods come last, so that the first word about each has its owner and its zone.
            let begin = if is_pods { begin.clone() } else { at_once.1.clone() };
            let (connector, told) = (connector.clone(), told.clone());
            watches.spawn(Watch { connector, forms, fields, heard, told, begin, page }.run());
        }
        drop(told);
        let mut hub = Hub::new(&config, connector, status, others);
        loop {
            let told = tokio::select! {
                told = inbox.recv() => match told {
                    Some(told) => told,
                    None => return,
                },
                Some(answer) = hub.questions.join_next() => {
                    hub.answer(answer.ok());
                    hub.hand_on(&events).await;
                    continue;
                }
                () = tokio::time::sleep_until(hub.due.unwrap_or_else(Instant::now)), if hub.due.is_some() => {
                    hub.snapshot();
                    hub.hand_on(&events).await;
                    continue;
                }
                () = events.closed() => return,
            };
            hub.take(told);
            hub.hand_on(&events).await;
        }
    }
}

/// An owner that was asked for, and the answer.
type Answer = (Wanted, Result<Bare, Failure>);

struct Hub {
    scope: Scope,
    state: State,
    connector: Arc<Connector>,
    standings: Standings,
    status: watch::Sender<SourceStatus>,
    others: watch::Sender<bool>,
    questions: JoinSet<Answer>,
    /// Something was listed since the last snapshot: when the next one is due.
    due: Option<Instant>,
    /// The earliest time until which what was listed was heard before.
    heard: Option<i64>,
    events: Vec<IdentityEvent>,
    cluster: Arc<str>,
    /// This node, until the cluster has told that it is one of its own.
    node: Option<Arc<str>>,
    /// The log says that the cluster has no such node.
    is_stranger: bool,
}

impl Hub {
    fn new(
        config: &KubernetesConfig,
        connector: Arc<Connector>,
        status: watch::Sender<SourceStatus>,
        others: watch::Sender<bool>,
    ) -> Self {
        let kinds = config.scope.resources().iter().filter_map(|forms| forms.first()).map(|first| first.kind());
        Self {
            scope: config.scope,
            state: State::new(config.cluster.clone(), config.node.clone()),
            connector,
            standings: Standings::new(kinds),
            status,
            others,
            questions: JoinSet::new(),
            due: None,
            heard: None,
            events: Vec::new(),
            cluster: config.cluster.clone(),
            node: Some(config.node.clone()),
            is_stranger: false,
        }
    }

    /// A node of the cluster reaches the addresses of its pods, whatever tells of interfaces.
    fn attach(&mut self, object: &Object, at: i64) {
        if let Object::Node(node) = object
            && self.node.take_if(|own| **own == *node.metadata.name).is_some()
        {
            let network = self.cluster.clone();
            self.events.push(IdentityEvent::Network { index: 0, netns: 0, network, at });
        }
    }

    fn take(&mut self, told: Told) {
        self.state.hear(&told);
        match told {
            Told::Applied { object, when, .. } => {
                self.attach(&object, when.at);
                self.understood(object.kind(), object.uid());
            }
            Told::Gone { object, .. } => self.understood(object.kind(), object.uid()),
            Told::Unread { resource, named, failure } => self.unread(resource, &named, &failure),
            Told::GoneUnread { resource, named, .. } => self.understood(resource.kind(), &named.uid),
            Told::Listed { resource, uids, heard, .. } => self.listed(resource, &uids, heard),
            // Addresses are those of pods. Before the snapshot, pods that are gone since the last one still have theirs.
            Told::Heard { resource, at } => {
                if resource.kind() == Kind::Pods && self.standings.has_all(|_| true) && self.due.is_none() {
                    self.events.push(IdentityEvent::Heard { source: SOURCE.into(), at });
                }
            }
            Told::Works { resource } => {
                self.standings.works(resource.kind());
                self.show();
            }
            Told::Failed { resource, failure } => {
                self.standings.failed(resource.kind(), &failure);
                self.show();
                self.let_pods_begin();
            }
        }
    }

    /// An object that is not understood: what was known of it stays as it was.
    fn unread(&mut self, resource: Resource, named: &Named, failure: &Failure) {
        if self.standings.unread(resource.kind(), &named.uid, &named.name) {
            let kind = resource.name();
            tracing::warn!(
                "kubernetes: of the {kind}, {} is not understood: {failure}; what was known stays",
                named.name
            );
            self.show();
        }
    }

    /// It can be read again, or is gone.
    fn understood(&mut self, kind: Kind, uid: &Arc<str>) {
        if self.standings.understood(kind, uid) {
            self.show();
        }
    }

    fn listed(&mut self, resource: Resource, uids: &HashSet<Arc<str>>, heard: Option<i64>) {
        self.standings.listed(resource.kind(), uids);
        if resource.kind() == Kind::Nodes {
            self.look_for_this_node();
        }
        self.show();
        self.let_pods_begin();
        let before = if self.due.is_some() { self.heard } else { heard };
        self.heard = before.zip(heard).map(|(before, heard)| before.min(heard));
        self.due = Some(Instant::now() + TOGETHER);
    }

    /// All nodes were told: is this host one of them?
    fn look_for_this_node(&mut self) {
        let Some(own) = self.node.as_deref().filter(|own| !self.standings.has_unread(Kind::Nodes, own)) else { return };
        if !std::mem::replace(&mut self.is_stranger, true) {
            tracing::warn!(
                "kubernetes: the cluster has no node `{own}`, so that pods are not looked for in this host's traffic; hint: \
                 `kubernetes.node` in the configuration or `--node` is this host's name in `kubectl get nodes`"
            );
        }
    }

    /// All that holds, unless something is still on its way.
    fn snapshot(&mut self) {
        if !self.standings.is_steady() {
            self.due = Some(Instant::now() + TOGETHER);
            return;
        }
        self.due = None;
        let told = self.state.take();
        self.events.extend(told);
        let at = now();
        self.events.push(self.state.snapshot(When { sure: at, at }, self.heard));
    }

    fn let_pods_begin(&self) {
        if self.standings.has_all(|kind| kind != Kind::Pods) {
            self.others.send_replace(true);
        }
    }

    fn show(&mut self) {
        for line in self.standings.lines() {
            match line {
                Line::Lost(why) => tracing::warn!("kubernetes: {why}"),
                Line::Again => tracing::warn!("kubernetes: the API server is heard again"),
            }
        }
        let status = self.standings.status();
        self.status.send_if_modified(|old| {
            let changed = *old != status;
            *old = status;
            changed
        });
    }

    /// Sends what there is to tell, and asks for owners.
    async fn hand_on(&mut self, events: &mpsc::Sender<IdentityEvent>) {
        let told = self.state.take();
        // What was taken before is older.
        let before = std::mem::take(&mut self.events);
        for event in before.into_iter().chain(told) {
            // Nobody listens any more: the source ends by itself.
            let _ = events.send(event).await;
        }
        while self.questions.len() < AT_A_TIME
            && let Some(wanted) = self.state.next_wanted()
        {
            // The watches tell all of them.
            if self.scope == Scope::Cluster {
                continue;
            }
            let connector = self.connector.clone();
            self.questions.spawn(async move {
                let answer = connector.metadata(&path_of_owner(wanted.kind, &wanted.namespace), &wanted.name).await;
                (wanted, answer)
            });
        }
    }

    fn answer(&mut self, answer: Option<Answer>) {
        let Some((wanted, answer)) = answer else { return };
        let at = now();
        match answer {
            Ok(owner) => self.state.apply(&Object::Owner(wanted.kind, owner), When { sure: at, at }),
            Err(failure) => {
                tracing::debug!("kubernetes: owner {}: {failure}", wanted.name);
                self.state.unanswered(&wanted.uid);
            }
        }
    }
}
