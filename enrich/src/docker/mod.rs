//! Identities from Docker: what runs, what ran, and every start and end as it happens.
//!
//! On each connection: networks, then all containers (running ones are learned as of their start, ended ones are closed
//! as of their end), then `Reconciled`, then the event stream *since the listing began*, so that nothing falls between.
//! Without a daemon the source waits and tries again for ever; its state is in [`DockerStatus`].
//!
//! Host-network containers share the host's addresses and get no keys: an honest `none`. A container that borrows
//! another's namespace (`--network container:ID`) gets none either.

mod inspect;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::models::{ContainerInspectResponse, EventMessage};
use bollard::query_parameters::{EventsOptionsBuilder, ListContainersOptionsBuilder};
use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};

use crate::event::IdentityEvent;
use inspect::{Networks, Seen};

const DEFAULT_SOCKET: &str = "unix:///var/run/docker.sock";
/// A new container's namespace and addresses are there within moments of its start.
const ATTEMPTS: usize = 10;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(150);

/// State of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerStatus {
    /// Not tried yet.
    Starting,
    /// Events arrive.
    Connected,
    /// No daemon; tried again every few seconds.
    Absent {
        /// Why.
        reason: String,
    },
}

impl fmt::Display for DockerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("connecting"),
            Self::Connected => f.write_str("connected"),
            Self::Absent { reason } => write!(f, "absent, tried again every few seconds ({reason})"),
        }
    }
}

/// See the module documentation.
pub struct DockerSource {
    endpoint: String,
    host: Arc<str>,
    boot: Arc<str>,
    status: watch::Sender<DockerStatus>,
    /// Namespaces that were handed on for capture, by container id.
    namespaces: HashMap<String, u64>,
}

impl DockerSource {
    /// A source for the daemon at `endpoint` (`unix:///…`); `host` names this node, `boot` is part of interface keys.
    pub fn new(endpoint: Option<String>, host: Arc<str>, boot: Arc<str>) -> Self {
        let endpoint = endpoint.unwrap_or_else(|| DEFAULT_SOCKET.to_owned());
        let status = watch::Sender::new(DockerStatus::Starting);
        Self { endpoint, host, boot, status, namespaces: HashMap::new() }
    }

    /// Its state, as it changes.
    pub fn status(&self) -> watch::Receiver<DockerStatus> {
        self.status.subscribe()
    }

    /// Runs until nobody listens any more.
    pub async fn run(mut self, events: mpsc::Sender<IdentityEvent>) {
        while !events.is_closed() {
            let reason = match self.follow(&events).await {
                Ok(()) => "the event stream ended".to_owned(),
                Err(error) => error.to_string(),
            };
            tracing::debug!("docker: {reason}");
            self.status.send_replace(DockerStatus::Absent { reason });
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(2)) => {}
                () = events.closed() => return,
            }
        }
    }

    async fn follow(&mut self, events: &mpsc::Sender<IdentityEvent>) -> Result<(), bollard::errors::Error> {
        let docker = Docker::connect_with_unix(&self.endpoint, 30, bollard::API_DEFAULT_VERSION)?;
        let docker = docker.negotiate_version().await?;
        let since = (now() / 1_000_000_000).to_string();
        let mut stream = Box::pin(docker.events(Some(EventsOptionsBuilder::default().since(&since).build())));
        let mut networks = Networks::list(&docker).await?;
        networks.announce(events).await;
        self.list(&docker, &networks, events).await?;
        self.status.send_replace(DockerStatus::Connected);
        while let Some(message) = stream.next().await {
            self.message(&docker, &mut networks, message?, events).await;
        }
        Ok(())
    }

    /// Everything that there is.
    async fn list(
        &mut self,
        docker: &Docker,
        networks: &Networks,
        events: &mpsc::Sender<IdentityEvent>,
    ) -> Result<(), bollard::errors::Error> {
        let at = now();
        let options = ListContainersOptionsBuilder::default().all(true).build();
        let mut present = Vec::new();
        let listed: HashSet<String> =
            docker.list_containers(Some(options)).await?.into_iter().filter_map(|container| container.id).collect();
        for id in listed {
            // A container that went away meanwhile is told by the event stream.
            let Ok(container) = docker.inspect_container(&id, None).await else { continue };
            let running = container.state.as_ref().and_then(|state| state.running) == Some(true);
            if running {
                present.push(id.as_str().into());
                self.learn(&container, networks, events).await;
            } else if let Some(finished) = inspect::finished_at(&container) {
                send(events, IdentityEvent::Ended { identity: id.into(), at: finished, learned_at: at }).await;
            }
        }
        send(events, IdentityEvent::Reconciled { source: "docker".into(), present, at }).await;
        Ok(())
    }

    async fn message(
        &mut self,
        docker: &Docker,
        networks: &mut Networks,
        message: EventMessage,
        events: &mpsc::Sender<IdentityEvent>,
    ) {
        use bollard::models::EventMessageTypeEnum as Kind;
        let at = message.time_nano.unwrap_or_else(now);
        let Some(actor) = message.actor else { return };
        let attributes = actor.attributes.unwrap_or_default();
        let id = actor.id.unwrap_or_default();
        match (message.typ, message.action.as_deref()) {
            (Some(Kind::CONTAINER), Some("start" | "rename" | "update")) => {
                self.started(docker, networks, &id, events).await;
            }
            (Some(Kind::CONTAINER), Some("die" | "destroy")) => {
                self.namespace_gone(&id, events).await;
                send(events, IdentityEvent::Ended { identity: id.into(), at, learned_at: now() }).await;
            }
            (Some(Kind::NETWORK), Some(action)) => {
                if let Ok(found) = Networks::list(docker).await {
                    *networks = found;
                    networks.announce(events).await;
                }
                let container = attributes.get("container").filter(|_| action == "connect");
                if let Some(container) = container {
                    let running = |found: &ContainerInspectResponse| {
                        found.state.as_ref().and_then(|state| state.running) == Some(true)
                    };
                    if docker.inspect_container(container, None).await.is_ok_and(|found| running(&found)) {
                        self.started(docker, networks, container, events).await;
                    }
                }
            }
            _ => {}
        }
    }

    /// Looks until addresses and interfaces are there, or the container is gone.
    async fn started(&mut self, docker: &Docker, networks: &Networks, id: &str, events: &mpsc::Sender<IdentityEvent>) {
        for attempt in 1..=ATTEMPTS {
            let Ok(container) = docker.inspect_container(id, None).await else { return };
            let complete = self.learn(&container, networks, events).await;
            let running = container.state.as_ref().and_then(|state| state.running) == Some(true);
            if complete || !running || attempt == ATTEMPTS {
                return;
            }
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
        }
    }

    /// Hands on what an inspection says; true if all its interfaces were found.
    async fn learn(
        &mut self,
        container: &ContainerInspectResponse,
        networks: &Networks,
        events: &mpsc::Sender<IdentityEvent>,
    ) -> bool {
        let Some(Seen { found, namespace, complete }) =
            inspect::container(container, networks, &self.host, &self.boot, now()).await
        else {
            return true;
        };
        for event in found {
            send(events, event).await;
        }
        if let Some((id, inode, event)) = namespace
            && self.namespaces.insert(id, inode) != Some(inode)
        {
            send(events, event).await;
        }
        complete
    }

    async fn namespace_gone(&mut self, id: &str, events: &mpsc::Sender<IdentityEvent>) {
        if let Some(inode) = self.namespaces.remove(id) {
            send(events, IdentityEvent::NamespaceGone { inode }).await;
        }
    }
}

async fn send(events: &mpsc::Sender<IdentityEvent>, event: IdentityEvent) {
    // Nobody listens any more: `run` ends by itself.
    let _ = events.send(event).await;
}

#[expect(clippy::disallowed_methods, reason = "a source stands at the edge: it says when it learned something")]
fn now() -> i64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}
