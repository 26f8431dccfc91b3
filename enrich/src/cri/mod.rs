//! Identities from a container runtime over the CRI (containerd from 1.6, CRI-O): sandboxes, containers, and the
//! interfaces of their network namespaces, without waiting for the API server.
//!
//! On each connection: everything that is there, as a snapshot; then a look whenever something may have changed, and what
//! changed since the last one. containerd's event stream says when, and when a process exited to the nanosecond; it is
//! subscribed to before the first looks. Elsewhere links that come and go say when. Without a word there is a look every
//! [`QUIET`], or every [`POLL`] where there are no events. A runtime that goes away is connected to again; what ended
//! meanwhile ended, as far as is known, when it was heard last ("unheard time" in [`crate::timeline`]).
//!
//! **When an address is whose.** From the creation of the sandbox's container (its network is there, none of the pod's
//! containers are) to the exit of the sandbox's process, after which the runtime takes the address back; without the
//! event, to the last look at which it was ready.
//!
//! **Containers.** Those that run are the pod's members: regular ones, init containers, sidecars, ephemeral ones. The
//! sandbox's own process is none.
//!
//! **Limits.** Pods on the host's network have no address of their own: they are described, and named by their sockets.
//! The runtime tells neither networks nor addresses of further interfaces: the addresses are read inside when the pod is
//! looked into, but for those that may wander, and count as unique on the host's device that the interface is attached
//! to (`CLUSTER/on:DEVICE`). What is assigned later is not seen. The CNI plugin tells more.

mod client;
mod facts;
mod generated;
mod inside;
mod pods;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::sync::{mpsc, watch};
use tonic::{Code, Status};
use wiretag_capture::ring::links::LinkWatcher;

use crate::event::IdentityEvent;
use crate::status::{Reporter, SourceStatus};
use client::Runtime;
use facts::{Container, Sandbox};
use generated::containerd::TaskExit;
use generated::runtime::{ContainerState, PodSandboxState};
use pods::{Look, Place, Pods};

/// Where runtimes listen.
const SOCKETS: &[&str] =
    &["/run/containerd/containerd.sock", "/run/crio/crio.sock", "/run/k3s/containerd/containerd.sock"];

/// A look without a word that something changed, where there are events.
const QUIET: Duration = Duration::from_secs(10);
/// The same where there are none.
const POLL: Duration = Duration::from_secs(1);
/// After a word: at once what there is, and once more what was about to be.
const SOON: Duration = Duration::from_millis(20);
const AGAIN: Duration = Duration::from_millis(300);
/// Between two connections.
const PAUSE: Duration = Duration::from_secs(1);
/// Words that wait.
const WORDS: usize = 1024;
/// Exits that are remembered, and for how long, ns.
const MOST_EXITS: usize = 4096;
const REMEMBERED: i64 = 60_000_000_000;

/// The socket of a runtime: that of the endpoint (a path, or `unix://…`), or the first that there is of containerd's, CRI-O's and k3s'.
///
/// # Errors
/// The endpoint is no unix socket.
pub fn socket(endpoint: Option<&str>) -> Result<Option<PathBuf>, String> {
    let Some(endpoint) = endpoint else {
        return Ok(SOCKETS.iter().map(PathBuf::from).find(|path| path.exists()));
    };
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if !path.starts_with('/') {
        return Err(format!("`{endpoint}` is not a unix socket; hint: `unix:///run/containerd/containerd.sock`"));
    }
    Ok(Some(path.into()))
}

/// See the module documentation.
pub struct CriSource {
    endpoint: Option<String>,
    place: Place,
    heard: Option<i64>,
    /// It was heard in this run.
    was_heard: bool,
    reporter: Reporter,
}

/// Why a connection ended.
enum End {
    Lost(String),
    /// Who answers does not tell of pods, as Docker's containerd.
    Other(String),
}

/// Something changed.
enum Word {
    Change,
    Exit(String, i64),
}

impl CriSource {
    /// A source for the runtime at `endpoint`, which [`socket`] finds;
    /// `cluster` is the network of the pods' addresses, `host` names this node, `boot` is part of interface keys, `heard` is
    /// until when an earlier run listened, if that is known.
    pub fn new(
        endpoint: Option<String>,
        cluster: Arc<str>,
        host: Arc<str>,
        boot: Arc<str>,
        heard: Option<i64>,
    ) -> Self {
        let (place, reporter) = (Place { cluster, host, boot }, Reporter::new("cri"));
        Self { endpoint, place, heard, was_heard: false, reporter }
    }

    /// Its state, as it changes.
    pub fn status(&self) -> watch::Receiver<SourceStatus> {
        self.reporter.subscribe()
    }

    /// Runs until nobody listens any more.
    pub async fn run(mut self, events: mpsc::Sender<IdentityEvent>) {
        let mut pods = Pods::new(self.place.clone());
        while !events.is_closed() {
            let status = match socket(self.endpoint.as_deref()) {
                Ok(Some(socket)) => match self.follow(&socket, &mut pods, &events).await {
                    End::Lost(reason) => SourceStatus::Absent { reason: format!("`{}`: {reason}", socket.display()) },
                    End::Other(reason) => self.nobody(format!("`{}`: {reason}", socket.display())),
                },
                Ok(None) => self.nobody("there is no socket of containerd or CRI-O".into()),
                Err(reason) => {
                    self.reporter.report(SourceStatus::Unusable { reason });
                    events.closed().await;
                    return;
                }
            };
            self.reporter.report(status);
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = events.closed() => return,
            }
        }
    }

    /// The state while nobody tells of pods: nothing is missing where that is all there ever was, and nobody said otherwise.
    fn nobody(&self, reason: String) -> SourceStatus {
        if self.was_heard || self.endpoint.is_some() {
            SourceStatus::Absent { reason }
        } else {
            SourceStatus::Waiting { reason }
        }
    }

    /// One connection.
    async fn follow(&mut self, socket: &Path, pods: &mut Pods, events: &mpsc::Sender<IdentityEvent>) -> End {
        let runtime = match Runtime::connect(socket).await {
            Ok(runtime) => runtime,
            Err(error) => return End::Lost(causes(&error)),
        };
        let version = match runtime.version().await {
            Ok(version) => version,
            Err(status) if status.code() == Code::Unimplemented => {
                return End::Other(format!("it does not speak CRI v1: {}", status.message()));
            }
            Err(status) => return End::Lost(status.message().to_owned()),
        };
        tracing::debug!("cri: {} {}", version.runtime_name, version.runtime_version);
        let (words, inbox) = mpsc::channel(WORDS);
        let has_events = version.runtime_name == "containerd";
        let quiet = if has_events { QUIET } else { POLL };
        // Where links tell nothing, there is still a look now and then.
        let held = (!has_events).then(|| words.clone());
        let listening = if has_events {
            tokio::spawn(forward(runtime.clone(), words))
        } else {
            tokio::task::spawn_blocking(move || watch_links(&words))
        };
        let mut inbox = Inbox { words: inbox, exits: HashMap::new(), quiet, recent: true };
        let mut first = true;
        let ended = loop {
            match look(&runtime, pods, first, &inbox.exits).await {
                Ok(found) if first => {
                    send(events, pods.begin(found, self.heard, now())).await;
                    self.reporter.report(SourceStatus::Connected);
                    self.was_heard = true;
                    first = false;
                }
                Ok(found) => {
                    let told = pods.update(found, now());
                    send(events, told).await;
                }
                Err(status) => break status.message().to_owned(),
            }
            self.heard = Some(pods.seen());
            if !inbox.wait().await {
                break "the event stream ended".to_owned();
            }
            if events.is_closed() {
                break "nobody listens".to_owned();
            }
        };
        listening.abort();
        drop(held);
        End::Lost(ended)
    }
}

async fn send(to: &mpsc::Sender<IdentityEvent>, events: Vec<IdentityEvent>) {
    for event in events {
        // Nobody listens any more: the source ends by itself.
        let _ = to.send(event).await;
    }
}

/// What is heard between two looks.
struct Inbox {
    words: mpsc::Receiver<Word>,
    /// When processes exited, for as long as the runtime may take to notice.
    exits: HashMap<String, i64>,
    /// A look without a word.
    quiet: Duration,
    /// There was a word before the last look: what it was about may only be there in a moment.
    recent: bool,
}

impl Inbox {
    /// Waits until there may be something new; false when the events ended.
    async fn wait(&mut self) -> bool {
        let patience = if self.recent { AGAIN } else { self.quiet };
        self.recent = false;
        match tokio::time::timeout(patience, self.words.recv()).await {
            Ok(Some(word)) => self.take(word),
            Ok(None) => return false,
            Err(_) => return true,
        }
        self.recent = true;
        tokio::time::sleep(SOON).await;
        while let Ok(word) = self.words.try_recv() {
            self.take(word);
        }
        let oldest = now() - REMEMBERED;
        self.exits.retain(|_, at| *at > oldest);
        true
    }

    fn take(&mut self, word: Word) {
        match word {
            Word::Exit(id, at) if self.exits.len() < MOST_EXITS => drop(self.exits.insert(id, at)),
            Word::Exit(..) | Word::Change => {}
        }
    }
}

/// One look. At the first of a connection all sandboxes are looked into again.
async fn look(runtime: &Runtime, pods: &Pods, first: bool, exits: &HashMap<String, i64>) -> Result<Look, Status> {
    let at = now();
    let (sandboxes, containers) = (runtime.sandboxes().await?.items, runtime.containers().await?.containers);
    let mut look = Look { at, exits: exits.clone(), ..Look::default() };
    let ready = sandboxes.iter().filter(|sandbox| sandbox.state() == PodSandboxState::SandboxReady);
    look.ready = ready.map(|sandbox| Arc::from(sandbox.id.as_str())).collect();
    for id in look.ready.iter().filter(|id| first || !pods.is_settled(id, at)) {
        // One that goes away meanwhile is not ready at the next look.
        let Some(mut sandbox) = runtime.sandbox(id).await.ok().and_then(Sandbox::new) else { continue };
        sandbox.inside = inside::look(sandbox.netns.clone()).await;
        look.sandboxes.push(sandbox);
    }
    look.listed = containers.iter().map(|container| container.id.as_str().into()).collect();
    for container in &containers {
        let is_running = container.state() == ContainerState::ContainerRunning;
        if is_running {
            look.running.insert(container.id.as_str().into());
        }
        let sandbox: Arc<str> = container.pod_sandbox_id.as_str().into();
        let has_ended = container.state() == ContainerState::ContainerExited;
        // One that has ended and was never seen came and went between two looks.
        let is_news =
            is_running != pods.runs(&sandbox, &container.id) || (has_ended && !pods.is_over(&sandbox, &container.id));
        if !is_news || !look.ready.contains(&sandbox) {
            continue;
        }
        let status = runtime.container(&container.id).await.ok().and_then(|answer| answer.status);
        look.containers.extend(status.and_then(Container::new).map(|own| (sandbox, own)));
    }
    // Removed before it was seen to have ended.
    for (sandbox, id) in pods.running().filter(|(_, id)| !look.listed.contains(*id)) {
        let gone = Container { id: id.clone(), name: "".into(), image: None, from: 0, to: None };
        look.containers.push((sandbox.clone(), gone));
    }
    Ok(look)
}

/// Reads containerd's events until the stream ends. Its answer begins with the first event, so nobody waits for it: what
/// happens before containerd has taken the subscription is seen by the second look.
async fn forward(runtime: Runtime, words: mpsc::Sender<Word>) {
    let Ok(mut stream) = runtime.events().await else { return };
    while let Ok(Some(envelope)) = stream.message().await {
        let exit = envelope.event.filter(|_| envelope.topic == "/tasks/exit");
        let exit = exit.and_then(|event| TaskExit::decode(event.value.as_slice()).ok());
        // Of processes that were started inside a container only the container's own matters.
        let exit = exit.filter(|exit| exit.id == exit.container_id).and_then(|exit| {
            let at = exit.exited_at?;
            Some(Word::Exit(exit.container_id, at.seconds.checked_mul(1_000_000_000)?.checked_add(at.nanos.into())?))
        });
        if words.send(exit.unwrap_or(Word::Change)).await.is_err() {
            return;
        }
    }
}

/// Says when links of the host change, until nobody listens.
fn watch_links(words: &mpsc::Sender<Word>) {
    let Ok(mut watcher) = LinkWatcher::open() else { return };
    while !words.is_closed() {
        match watcher.wait(Duration::from_millis(500)) {
            // One that waits is enough.
            Ok(true) => drop(words.try_send(Word::Change)),
            Ok(false) => {}
            Err(_) => return,
        }
    }
}

/// An error with what caused it: the transport's own text says little.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    text
}

#[expect(clippy::disallowed_methods, reason = "a source stands at the edge: it says when it learned something")]
fn now() -> i64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}
