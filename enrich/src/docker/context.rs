//! What the tasks of all containers share: the connection, the way to the timeline, and who holds which namespace.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, NetworkInspect};
use tokio::sync::mpsc;

use super::interfaces;
use super::labels::Network;
use super::now;
use crate::event::IdentityEvent;
use crate::identity::Identity;

/// An answer that takes longer is not waited for. While a container starts, Docker answers nothing about it.
const PATIENCE: Duration = Duration::from_secs(20);

/// What Docker says of a container.
pub(super) enum Answer {
    /// It is there.
    Found(Box<ContainerInspectResponse>),
    /// There is no such container.
    Gone,
    /// Nothing, or only that something is wrong: that says nothing about the container.
    Missing,
}

pub(super) struct Context {
    pub(super) docker: Docker,
    pub(super) host: Arc<str>,
    pub(super) boot: Arc<str>,
    pub(super) events: mpsc::Sender<IdentityEvent>,
    pub(super) namespaces: Arc<Namespaces>,
    /// Networks by id.
    pub(super) networks: Mutex<HashMap<Arc<str>, Arc<Network>>>,
}

impl Context {
    pub(super) async fn send(&self, event: IdentityEvent) {
        // Nobody listens any more: the source ends by itself.
        let _ = self.events.send(event).await;
    }

    /// A container.
    pub(super) async fn inspect(&self, id: &str) -> Answer {
        match tokio::time::timeout(PATIENCE, self.docker.inspect_container(id, None)).await {
            Ok(Ok(found)) => Answer::Found(Box::new(found)),
            Ok(Err(Error::DockerResponseServerError { status_code: 404, .. })) => Answer::Gone,
            Ok(Err(_)) | Err(_) => Answer::Missing,
        }
    }

    /// A network with the endpoints of its containers; what is new of it is told.
    pub(super) async fn network(&self, id: &Arc<str>) -> Option<NetworkInspect> {
        let network = tokio::time::timeout(PATIENCE, self.docker.inspect_network(id, None)).await.ok()?.ok()?;
        let own = Network::new(network.name.clone(), network.driver.clone(), network.labels.clone());
        if self.remember(id, own) {
            self.announce(id, network.options.as_ref()).await;
        }
        Some(network)
    }

    /// Remembers a network; whether it was not known.
    pub(super) fn remember(&self, id: &Arc<str>, network: Network) -> bool {
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        networks.insert(id.clone(), Arc::new(network)).is_none()
    }

    /// A network was removed.
    pub(super) fn forget(&self, id: &str) {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// What is remembered of a network.
    pub(super) fn known(&self, id: &str) -> Option<Arc<Network>> {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Whether the network's containers have veths whose other ends are in the host's namespace.
    pub(super) async fn is_bridged(&self, network: &Arc<str>) -> bool {
        match self.known(network) {
            Some(known) => known.driver == "bridge",
            None => self.network(network).await.is_some_and(|network| network.driver.as_deref() == Some("bridge")),
        }
    }

    /// Says which bridge of the host belongs to a network.
    pub(super) async fn announce(&self, network: &Arc<str>, options: Option<&HashMap<String, String>>) {
        let named = options.and_then(|options| options.get("com.docker.network.bridge.name")).cloned();
        let Some(name) = named.or_else(|| Some(format!("br-{}", network.get(..12)?))) else { return };
        let links = interfaces::of_host().await;
        if let Some(bridge) = links.iter().find(|link| link.name == name) {
            let (index, network) = (bridge.index, network.clone());
            self.send(IdentityEvent::Network { index, netns: 0, network, at: now() }).await;
        }
    }
}

/// The namespaces to capture in, by inode. The kernel gives the inode of a namespace that is gone to the next one at
/// once, so that the new holder may be told before the end of the old one.
#[derive(Default)]
pub(super) struct Namespaces {
    open: tokio::sync::Mutex<HashMap<u64, Holder>>,
}

#[derive(PartialEq, Eq)]
struct Holder {
    container: Arc<str>,
    run: i64,
    interfaces: Vec<(u32, String)>,
}

/// A namespace that is to be captured in.
pub(super) struct Opening {
    pub(super) identity: Arc<Identity>,
    /// When the container was started.
    pub(super) run: i64,
    pub(super) path: PathBuf,
    pub(super) inode: u64,
    pub(super) interfaces: Vec<(u32, String)>,
}

impl Namespaces {
    /// Tells of a namespace, and before that of the end of the one that had its inode.
    pub(super) async fn open(&self, context: &Context, opening: Opening) {
        let Opening { identity, run, path, inode, interfaces } = opening;
        let holder = Holder { container: identity.identity.clone(), run, interfaces: interfaces.clone() };
        let mut open = self.open.lock().await;
        if open.get(&inode) == Some(&holder) {
            return;
        }
        if open.insert(inode, holder).is_some() {
            context.send(IdentityEvent::NamespaceGone { inode, at: now() }).await;
        }
        context.send(IdentityEvent::Namespace { identity, netns: path, inode, interfaces }).await;
    }

    /// A container's namespaces are gone.
    pub(super) async fn gone(&self, context: &Context, container: &str, at: i64) {
        self.keep(context, at, |holder, _| &**holder != container).await;
    }

    /// All but those of these containers, in these runs where that is known, are gone.
    pub(super) async fn retain(&self, context: &Context, runs: &HashMap<Arc<str>, Option<i64>>, at: i64) {
        let lasts = |holder: &Arc<str>, run| runs.get(holder).is_some_and(|own| own.is_none_or(|own| own == run));
        self.keep(context, at, lasts).await;
    }

    async fn keep(&self, context: &Context, at: i64, lasts: impl Fn(&Arc<str>, i64) -> bool) {
        let mut open = self.open.lock().await;
        let gone: Vec<u64> =
            open.iter().filter(|(_, holder)| !lasts(&holder.container, holder.run)).map(|(inode, _)| *inode).collect();
        for inode in gone {
            open.remove(&inode);
            context.send(IdentityEvent::NamespaceGone { inode, at }).await;
        }
    }
}
