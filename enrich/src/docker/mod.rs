//! Identities from Docker: what runs, what ran, and every start and end as it happens.
//!
//! On each connection: all containers (those that run are learned as of their start), told at once as a snapshot, then the
//! event stream, which is opened *before the listing begins* and read meanwhile, so that nothing falls between: of the past Docker remembers
//! only some hundred events. What a broken connection may have hidden is
//! not guessed: see "unheard time" in [`crate::timeline`]. Without a daemon the source waits and tries again for ever;
//! its state is a [`SourceStatus`]. One that does not answer in time is as good as none.
//!
//! **When an address is whose.** From the network's `connect` event (150 ms before the container's `start`, when its
//! interfaces are about to be moved inside) to its `disconnect` event, or to the container's `die` if that is earlier. At
//! `connect` the network tells the container's addresses and the host still sees both ends of its veth, so a
//! container is known before its first packet and even if it lives for a moment only. Its name and labels come from an
//! inspection, or, if it is gone by then, from the attributes of its events.
//!
//! **Order.** Each container has a task of its own that takes its events one after the other; tasks do not wait for
//! each other, and nothing that they wait for stops the reading of the stream: Docker drops what a slow reader leaves. If
//! one waits for so long that its events fill their queue, its container counts as ended when it was heard last, and is
//! begun anew with what is then there. No answer, or an error, says nothing about a container: what was known of it stays, and it is asked
//! about until there is an answer or an event.
//! That events of different containers overtake each other is no harm to the timeline.
//!
//! **Limits.** Host-network containers share the host's addresses and get no keys here: they are described, and known by their
//! sockets ([`crate::kernel`]). A container that borrows another's namespace (`--network container:ID`)
//! is named by its sockets, too; while there is one, so is the container whose namespace it is. Traffic of macvlan, ipvlan and
//! overlay networks passes no interface of the host: it is captured inside the container, from the moment that its namespace has been
//! opened after `start`. What such a container does in its first tens of milliseconds is seen only at the other end (and
//! named there).

mod container;
mod context;
mod inspect;
mod interfaces;
mod labels;
mod listing;
mod told;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{EventMessage, EventMessageTypeEnum};
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::event::IdentityEvent;
use crate::status::{Reporter, SourceStatus};
use container::Container;
use context::{Context, Namespaces};
use told::{Changes, Told};

const DEFAULT_SOCKET: &str = "unix:///var/run/docker.sock";
/// The first answer of a connection comes in moments.
const VERSION: Duration = Duration::from_secs(10);
/// The lists of all that there is may take longer.
const ANSWER: Duration = Duration::from_secs(30);
/// Why a connection ended.
const ENDED: &str = "the event stream ended";
/// Events that wait for one container's task.
const CONTAINER_QUEUE: usize = 256;
/// Events that wait until all that there is has been listed: more are not kept, and the connection begins anew.
const EARLY: usize = 65_536;
/// What is heard of each kind; health checks alone make many times as many events.
const EVENTS: [(&str, &[&str]); 2] =
    [("type", &["container", "network"]), ("event", &["connect", "disconnect", "start", "rename", "die", "destroy"])];

/// The socket of the daemon: that of the endpoint (a path, or `unix://…`), or Docker's usual one.
///
/// # Errors
/// The endpoint is no unix socket.
pub fn socket(endpoint: Option<&str>) -> Result<PathBuf, String> {
    let endpoint = endpoint.unwrap_or(DEFAULT_SOCKET);
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if path.contains("://") {
        let hint = format!("hint: run wiretag on the containers' host with `--docker {DEFAULT_SOCKET}`");
        return Err(format!("`{endpoint}` is not a unix socket; {hint}"));
    }
    Ok(path.into())
}

/// The version of the daemon behind a socket.
///
/// # Errors
/// Nobody answers there, or not as Docker does, in words.
pub async fn check(socket: &Path) -> Result<String, String> {
    let version = async { connect(socket)?.version().await };
    let version = in_time(VERSION, version).await.map_err(|error| words(&error))?;
    version.version.ok_or_else(|| "it does not say its version".to_owned())
}

fn connect(socket: &Path) -> Result<Docker, Error> {
    Docker::connect_with_unix(&socket.display().to_string(), ANSWER.as_secs(), bollard::API_DEFAULT_VERSION)
}

/// An answer that has not come to its end in time is an error.
async fn in_time<T>(patience: Duration, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(patience, answer).await.unwrap_or(Err(Error::RequestTimeoutError))
}

fn words(error: &Error) -> String {
    match error {
        Error::RequestTimeoutError => "it does not answer in time".to_owned(),
        error => error.to_string(),
    }
}

/// See the module documentation.
pub struct DockerSource {
    endpoint: Option<String>,
    host: Arc<str>,
    boot: Arc<str>,
    heard: Option<i64>,
    reporter: Reporter,
    namespaces: Arc<Namespaces>,
}

impl DockerSource {
    /// A source for the daemon at `endpoint`, as in [`socket`]; `host` names this node, `boot` is part of interface keys, `heard` is
    /// until when an earlier run listened, if that is known.
    pub fn new(endpoint: Option<String>, host: Arc<str>, boot: Arc<str>, heard: Option<i64>) -> Self {
        Self { endpoint, host, boot, heard, reporter: Reporter::new("docker"), namespaces: Arc::default() }
    }

    /// Its state, as it changes.
    pub fn status(&self) -> watch::Receiver<SourceStatus> {
        self.reporter.subscribe()
    }

    /// Runs until nobody listens any more.
    pub async fn run(mut self, events: mpsc::Sender<IdentityEvent>) {
        let socket = match socket(self.endpoint.as_deref()) {
            Ok(socket) => socket,
            Err(reason) => {
                self.reporter.report(SourceStatus::Unusable { reason });
                events.closed().await;
                return;
            }
        };
        // A host without Docker misses nothing.
        let mut is_wanted = self.endpoint.is_some();
        while !events.is_closed() {
            is_wanted |= socket.exists();
            let status = if is_wanted {
                let reason = self.follow(&socket, &events).await.unwrap_or_else(|error| words(&error));
                SourceStatus::Absent { reason }
            } else {
                SourceStatus::Waiting { reason: format!("there is no socket `{}`", socket.display()) }
            };
            self.reporter.report(status);
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(2)) => {}
                () = events.closed() => return,
            }
        }
    }

    /// One connection; why it ended.
    async fn follow(&mut self, socket: &Path, events: &mpsc::Sender<IdentityEvent>) -> Result<String, Error> {
        let docker = in_time(VERSION, connect(socket)?.negotiate_version()).await?;
        let since = now();
        let since = format!("{}.{:09}", since / 1_000_000_000, since % 1_000_000_000);
        let filters = EVENTS.map(|(name, values)| (name, values.to_vec())).into();
        let options = EventsOptionsBuilder::default().since(&since).filters(&filters).build();
        let mut stream = Box::pin(docker.events(Some(options)));
        let context = Arc::new(Context {
            docker,
            host: self.host.clone(),
            boot: self.boot.clone(),
            events: events.clone(),
            namespaces: self.namespaces.clone(),
            networks: std::sync::Mutex::default(),
        });
        let mut early = Vec::new();
        let mut listing = Box::pin(listing::list(&context, self.heard));
        let listed = loop {
            tokio::select! {
                listed = &mut listing => break listed?,
                message = stream.next() => match message {
                    Some(message) if early.len() < EARLY => early.push(message?),
                    Some(_) => return Ok("too many events came before its containers were listed".to_owned()),
                    None => return Ok(ENDED.to_owned()),
                },
            }
        };
        drop(listing);
        self.reporter.report(SourceStatus::Connected);
        let mut containers = Containers { context, known: listed.known, told: HashMap::new(), tasks: JoinSet::new() };
        for id in listed.unclear {
            containers.hand(&id, Told::Unclear { since: listed.heard });
        }
        for message in early {
            containers.tell(message);
        }
        let mut end = Ok(ENDED.to_owned());
        while let Some(message) = stream.next().await {
            match message {
                Ok(message) => containers.tell(message),
                Err(error) => {
                    end = Err(error);
                    break;
                }
            }
        }
        self.heard = Some(now());
        // What they have not told yet is in the next snapshot.
        containers.tasks.shutdown().await;
        end
    }
}

/// The tasks of the containers.
struct Containers {
    context: Arc<Context>,
    /// Containers of the listing of which there was no event yet.
    known: HashMap<String, Container>,
    told: HashMap<String, Task>,
    tasks: JoinSet<()>,
}

struct Task {
    queue: mpsc::Sender<Told>,
    changes: Arc<Changes>,
    handle: AbortHandle,
}

impl Containers {
    fn tell(&mut self, message: EventMessage) {
        use EventMessageTypeEnum as Kind;
        let at = message.time_nano.unwrap_or_else(now);
        let Some(actor) = message.actor else { return };
        let attributes = actor.attributes.unwrap_or_default();
        let id = actor.id.unwrap_or_default();
        match (message.typ, message.action.as_deref()) {
            (Some(Kind::CONTAINER), Some("start")) => self.hand(&id, Told::Started { at, attributes }),
            (Some(Kind::CONTAINER), Some("rename")) => self.hand(&id, Told::Renamed { at }),
            (Some(Kind::CONTAINER), Some("die")) => self.hand(&id, Told::Died { at, attributes }),
            (Some(Kind::CONTAINER), Some("destroy")) => {
                self.hand(&id, Told::Destroyed { at, attributes });
                // The task ends when it has taken what is in its queue.
                self.told.remove(&id);
            }
            (Some(Kind::NETWORK), Some("connect")) => {
                let Some(container) = attributes.get("container") else { return };
                self.hand(container, Told::Connected { network: id.into(), at, parting: 0 });
            }
            (Some(Kind::NETWORK), Some("disconnect")) => {
                let Some(container) = attributes.get("container") else { return };
                self.hand(container, Told::Disconnected { network: id.into(), at });
            }
            (Some(Kind::NETWORK), Some("destroy")) => self.context.forget(&id),
            _ => {}
        }
    }

    /// Never waits: Docker drops what a slow reader leaves.
    fn hand(&mut self, id: &str, told: Told) {
        while self.tasks.try_join_next().is_some() {}
        if !self.told.contains_key(id) {
            let known = self.known.remove(id);
            let container = known.unwrap_or_else(|| Container::new(self.context.clone(), id.into()));
            self.start(id, container);
        }
        let Some(task) = self.told.get(id) else { return };
        let at = told.at();
        let Err(TrySendError::Full(told)) = task.send(told) else { return };
        tracing::warn!("docker: it does not answer about container {id}, which has too many events: begun anew");
        let since = Some(task.changes.taken()).filter(|taken| *taken > 0).unwrap_or(at);
        task.handle.abort();
        self.start(id, Container::new(self.context.clone(), id.into()));
        let Some(task) = self.told.get(id) else { return };
        for told in [Told::Lost { since, at }, told] {
            // Its queue is new.
            let _ = task.send(told);
        }
    }

    fn start(&mut self, id: &str, container: Container) {
        let changes = container.changes();
        let (queue, inbox) = mpsc::channel(CONTAINER_QUEUE);
        let handle = self.tasks.spawn(container.run(inbox));
        self.told.insert(id.to_owned(), Task { queue, changes, handle });
    }
}

impl Task {
    fn send(&self, mut told: Told) -> Result<(), TrySendError<Told>> {
        self.changes.count(&mut told);
        self.queue.try_send(told)
    }
}

#[expect(clippy::disallowed_methods, reason = "a source stands at the edge: it says when it learned something")]
fn now() -> i64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}
