//! One container's events, one after the other.
//!
//! The state is what is known of its endpoints; each change of it is told to the timeline at once. An endpoint whose
//! interface is not found yet is looked for again when the container has started.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::ContainerInspectResponse;
use tokio::sync::mpsc;

use super::context::{Answer, Context, Opening};
use super::inspect::{self, Addresses};
use super::labels::{self, Joined, Network};
use super::told::{Changes, Told};
use super::{interfaces, now};
use crate::event::IdentityEvent;
use crate::identity::{Identity, Interval, Key};

/// Interfaces inside a new container are there within moments of its start.
const ATTEMPTS: usize = 10;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(150);
/// Pauses before Docker is asked again about what it did not answer grow from the first to the last, doubling.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

struct Endpoint {
    network: Arc<str>,
    addresses: Addresses,
    /// Further ones that were found inside.
    found: Vec<IpAddr>,
    from: i64,
    /// Who the container was when it got the endpoint, once that is known.
    told: Option<Arc<Identity>>,
    /// Index and namespace.
    interface: Option<(u32, u64)>,
    /// An interface inside the container, to be captured there: index and name.
    inside: Option<(u32, String)>,
}

impl Endpoint {
    fn new(network: Arc<str>, addresses: Addresses, from: i64) -> Self {
        Self { network, addresses, found: Vec::new(), from, told: None, interface: None, inside: None }
    }
}

/// See the module documentation.
pub(super) struct Container {
    context: Arc<Context>,
    id: Arc<str>,
    /// Without what its networks say of it.
    identity: Option<Arc<Identity>>,
    sandbox: Option<Arc<str>>,
    /// Names of networks in which it has no endpoint of its own: `host`, `none`.
    shared: Vec<String>,
    runs: bool,
    /// Docker did not answer about it: it is asked again. What was known of it is sure until then.
    unclear: Option<i64>,
    endpoints: Vec<Endpoint>,
    /// Endpoints that were told but whose addresses are not known yet: network and beginning.
    pending: Vec<(Arc<str>, i64)>,
    changes: Arc<Changes>,
}

impl Container {
    pub(super) fn new(context: Arc<Context>, id: Arc<str>) -> Self {
        Self {
            context,
            id,
            identity: None,
            sandbox: None,
            shared: Vec::new(),
            runs: false,
            unclear: None,
            endpoints: Vec::new(),
            pending: Vec::new(),
            changes: Arc::default(),
        }
    }

    pub(super) fn changes(&self) -> Arc<Changes> {
        self.changes.clone()
    }

    /// Takes events until the container is removed or the connection ends.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Told>) {
        loop {
            let told = match self.unclear {
                None => inbox.recv().await,
                Some(since) => tokio::select! {
                    biased;
                    told = inbox.recv() => told,
                    found = self.ask() => {
                        self.unclear = None;
                        self.settle(found, since).await;
                        continue;
                    }
                },
            };
            let Some(told) = told else { return };
            self.changes.take(&told);
            match told {
                Told::Connected { network, at, parting } => self.connected(network, at, parting).await,
                Told::Disconnected { network, at } => {
                    self.forget(&network);
                    let (identity, learned_at) = (self.id.clone(), now());
                    let source = "docker".into();
                    self.context.send(IdentityEvent::Parted { identity, network, at, learned_at, source }).await;
                    if !self.endpoints.is_empty() {
                        self.describe(at).await;
                    }
                }
                Told::Started { at, attributes } => self.started(at, &attributes, &inbox).await,
                Told::Renamed { at } => self.renamed(at).await,
                Told::Died { at, attributes } | Told::Destroyed { at, attributes } => self.died(at, &attributes).await,
                Told::Lost { since, at } => {
                    self.died(since, &HashMap::new()).await;
                    self.started(at, &HashMap::new(), &inbox).await;
                }
                Told::Unclear { since } => self.unclear = Some(since),
            }
        }
    }

    async fn connected(&mut self, network: Arc<str>, at: i64, parting: u64) {
        let found = self.context.network(&network).await;
        let endpoints = found.and_then(|network| network.containers).unwrap_or_default();
        let mut addresses = endpoints.get(&*self.id).map(Addresses::of_resource);
        if self.changes.partings(&network) != parting {
            return;
        }
        let mut inspected = None;
        if self.identity.is_none() || self.runs || addresses.is_none() {
            inspected = match self.context.inspect(&self.id).await {
                Answer::Found(container) => Some(container),
                Answer::Gone => None,
                Answer::Missing => {
                    // Before its start it is asked then.
                    self.unclear = self.unclear.or(self.runs.then_some(at));
                    None
                }
            };
        }
        if let Some(container) = &inspected {
            self.identify(container);
            if addresses.is_none() && self.changes.partings(&network) == parting {
                addresses = settings(container).find(|(own, _)| *own == network).map(|(_, addresses)| addresses);
            }
        }
        self.forget(&network);
        let Some(addresses) = addresses else {
            self.pending.push((network, at));
            return;
        };
        self.endpoints.push(Endpoint::new(network, addresses, at));
        self.tell().await;
        if let Some(container) = inspected.filter(|container| inspect::is_running(container)) {
            self.find_interfaces(&container).await;
        }
    }

    async fn started(&mut self, at: i64, attributes: &HashMap<String, String>, inbox: &mpsc::Receiver<Told>) {
        self.runs = true;
        let known = |own: &Self| {
            own.identity.is_some()
                && !own.endpoints.is_empty()
                && own.endpoints.iter().all(|own| own.interface.is_some())
        };
        for attempt in 1..=ATTEMPTS {
            if known(self) {
                return;
            }
            let container = match self.context.inspect(&self.id).await {
                Answer::Found(container) => container,
                Answer::Gone => break,
                Answer::Missing => {
                    self.unclear = Some(at);
                    break;
                }
            };
            if !inspect::is_running(&container) {
                break;
            }
            if !self.take(&container, at) {
                self.describe(at).await;
                return;
            }
            self.tell().await;
            self.find_interfaces(&container).await;
            // What comes next is more important than an interface that is not there yet.
            if known(self) || attempt == ATTEMPTS || !inbox.is_empty() {
                return;
            }
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
        }
        self.identify_by(attributes).await;
    }

    async fn renamed(&mut self, at: i64) {
        let container = match self.context.inspect(&self.id).await {
            Answer::Found(container) => container,
            Answer::Gone => return,
            Answer::Missing => {
                self.unclear = self.unclear.or(Some(at));
                return;
            }
        };
        // What was told of the time before keeps the old name.
        self.tell().await;
        self.identity = Some(Arc::new(inspect::identity(&self.id, &container, &self.context.host)));
        self.describe(at).await;
    }

    async fn died(&mut self, at: i64, attributes: &HashMap<String, String>) {
        (self.runs, self.unclear) = (false, None);
        self.identify_by(attributes).await;
        self.context.namespaces.gone(&self.context, &self.id, at).await;
        let (identity, learned_at) = (self.id.clone(), now());
        self.context.send(IdentityEvent::Ended { identity, at, learned_at, source: "docker".into() }).await;
        self.endpoints.clear();
        self.pending.clear();
        self.sandbox = None;
    }

    /// Asks about it until there is an answer; `None`: it is gone.
    async fn ask(&self) -> Option<Box<ContainerInspectResponse>> {
        let (mut pause, longest) = PAUSES;
        loop {
            tokio::time::sleep(pause).await;
            match self.context.inspect(&self.id).await {
                Answer::Found(container) => return Some(container),
                Answer::Gone => return None,
                Answer::Missing => pause = pause.saturating_mul(2).min(longest),
            }
        }
    }

    /// Takes an answer that came late. What was known is sure until `since`.
    async fn settle(&mut self, found: Option<Box<ContainerInspectResponse>>, since: i64) {
        // That it is gone, an event tells.
        let Some(container) = found else { return };
        if !inspect::is_running(&container) {
            let ended = inspect::finished_at(&container).map_or(since, |at| at.max(since));
            self.died(ended, &HashMap::new()).await;
            return;
        }
        let from = inspect::started_at(&container).unwrap_or(since);
        if from > since && self.endpoints.is_empty() {
            // Another run than the one that was known.
            let (identity, learned_at) = (self.id.clone(), now());
            self.context.send(IdentityEvent::Ended { identity, at: since, learned_at, source: "docker".into() }).await;
        }
        let before = self.identity.take();
        if self.take(&container, from) {
            self.tell().await;
            self.find_interfaces(&container).await;
        } else {
            self.describe(from).await;
        }
        if before.is_some() && before != self.identity {
            self.describe(since).await;
        }
    }

    fn forget(&mut self, network: &str) {
        self.endpoints.retain(|endpoint| &*endpoint.network != network);
        self.pending.retain(|(own, _)| &**own != network);
    }

    fn identify(&mut self, container: &ContainerInspectResponse) {
        let sandbox = inspect::sandbox(container);
        if sandbox.is_some() && sandbox != self.sandbox {
            self.sandbox = sandbox;
            // Its endpoints are all of this run.
            self.endpoints.iter_mut().for_each(|own| own.told = None);
        }
        if self.identity.is_none() {
            self.identity = Some(Arc::new(inspect::identity(&self.id, container, &self.context.host)));
        }
    }

    /// It is gone before it could be inspected: its event has its name.
    async fn identify_by(&mut self, attributes: &HashMap<String, String>) {
        if self.identity.is_none() {
            self.identity = inspect::identity_of_event(&self.id, attributes, &self.context.host).map(Arc::new);
            self.tell().await;
            if self.endpoints.is_empty() {
                self.describe(now()).await;
            }
        }
    }

    /// Takes an inspection of a running container: endpoints of which no event told or will tell begin at `from`. False if it has
    /// no network namespace of its own.
    pub(super) fn take(&mut self, container: &ContainerInspectResponse, from: i64) -> bool {
        self.identify(container);
        self.runs = true;
        if !inspect::has_own_namespace(container) {
            self.shared = inspect::networks(container).cloned().collect();
            return false;
        }
        for (network, addresses) in settings(container) {
            let told = self.pending.iter().find(|(own, _)| *own == network).map(|(_, at)| *at);
            if told.is_none() && self.changes.of(&network).connects > 0 {
                continue;
            }
            if self.endpoints.iter().any(|own| own.network == network && own.addresses.are(&addresses)) {
                continue;
            }
            self.forget(&network);
            let from = told.unwrap_or(from);
            self.endpoints.push(Endpoint::new(network, addresses, from));
        }
        true
    }

    /// Tells who it is: without a namespace of its own it has no keys, and is known by its sockets.
    pub(super) async fn describe(&self, from: i64) {
        let Some(identity) = self.identity_at(from) else { return };
        let (learned_at, source) = (now(), "docker".into());
        self.context.send(IdentityEvent::Described { identity, from, learned_at, source }).await;
    }

    /// Who it is, with the networks that it had joined at a time.
    fn identity_at(&self, at: i64) -> Option<Arc<Identity>> {
        let mut identity = Identity::clone(self.identity.as_ref()?);
        let endpoints = self.endpoints.iter().filter(|own| own.from <= at);
        let joined = endpoints.filter_map(|own| {
            let (network, endpoint) = (self.context.known(&own.network)?, own.addresses.endpoint.clone());
            Some(Joined { network, endpoint })
        });
        let shared = self.shared.iter().map(|name| {
            let network = Arc::new(Network::new(Some(name.clone()), None, None));
            Joined { network, endpoint: None }
        });
        let joined: Vec<Joined> = joined.chain(shared).collect();
        labels::add(&mut identity.labels, self.sandbox.as_deref(), &joined);
        Some(Arc::new(identity))
    }

    /// Intervals of all keys.
    pub(super) fn intervals(&mut self) -> Vec<Interval> {
        for index in 0..self.endpoints.len() {
            let who = self.endpoints.get(index).filter(|own| own.told.is_none()).map(|own| own.from);
            let told = who.and_then(|from| self.identity_at(from));
            if let Some(own) = self.endpoints.get_mut(index).filter(|_| told.is_some()) {
                own.told = told;
            }
        }
        let keys = |endpoint: &Endpoint| {
            let network = || endpoint.network.clone();
            let ips = endpoint.addresses.ips.iter().chain(&endpoint.found);
            let ips = ips.map(|ip| Key::Ip { network: network(), ip: *ip });
            let mac = endpoint.addresses.mac.filter(|_| !self.shares_mac(&endpoint.network));
            let mac = mac.map(|mac| Key::Mac { network: network(), mac });
            let boot = self.context.boot.clone();
            let interface = endpoint.interface.map(|(index, netns)| Key::Interface { index, netns, boot });
            ips.chain(mac).chain(interface).collect::<Vec<_>>()
        };
        let learned_at = now();
        let intervals = |endpoint: &Endpoint| {
            let (identity, valid_from) = (endpoint.told.clone(), endpoint.from);
            let interval = |key, identity| {
                let source = "docker".into();
                Interval { key, identity, valid_from, valid_to: None, learned_at, source }
            };
            let own = keys(endpoint).into_iter();
            own.filter_map(|key| Some(interval(key, identity.clone()?))).collect::<Vec<_>>()
        };
        self.endpoints.iter().flat_map(intervals).collect()
    }

    /// Whether all of a network have the link-layer address of the device below.
    fn shares_mac(&self, network: &str) -> bool {
        self.context.known(network).is_some_and(|network| network.driver == "ipvlan")
    }

    /// Says which interfaces belong to which networks.
    pub(super) async fn tell_networks(&self) {
        for endpoint in &self.endpoints {
            if let Some((index, netns)) = endpoint.interface {
                let (network, at) = (endpoint.network.clone(), endpoint.from);
                self.context.send(IdentityEvent::Network { index, netns, network, at }).await;
            }
        }
    }

    async fn tell(&mut self) {
        self.tell_networks().await;
        for interval in self.intervals() {
            self.context.send(IdentityEvent::Learned(interval)).await;
        }
    }

    async fn find_interfaces(&mut self, container: &ContainerInspectResponse) {
        if self.look(container).await {
            self.tell().await;
        }
    }

    /// Looks into the container for interfaces that are not known yet, and has it captured inside where the host does
    /// not see its traffic. True if there is something new.
    pub(super) async fn look(&mut self, container: &ContainerInspectResponse) -> bool {
        if self.endpoints.iter().all(|endpoint| endpoint.interface.is_some()) {
            return false;
        }
        let Some(pid) = inspect::pid(container) else { return false };
        let Some(found) = interfaces::look_inside(pid).await else { return false };
        let mut news = false;
        for endpoint in self.endpoints.iter_mut().filter(|endpoint| endpoint.interface.is_none()) {
            let Some(link) = found.link(&endpoint.addresses) else { continue };
            if self.context.is_bridged(&endpoint.network).await
                && let Some(index) = found.host_end(link)
            {
                endpoint.interface = Some((index, 0));
            } else {
                endpoint.interface = Some((link.index, found.inode));
                endpoint.inside = Some((link.index, link.name.clone()));
            }
            let found = found.addresses(link).filter(|ip| !endpoint.addresses.ips.contains(ip));
            endpoint.found = found.collect();
            news = true;
        }
        let interfaces: Vec<_> = self.endpoints.iter().filter_map(|endpoint| endpoint.inside.clone()).collect();
        if let Some(identity) = self.identity.clone().filter(|_| !interfaces.is_empty()) {
            let run = inspect::started_at(container).unwrap_or_default();
            let (inode, path) = (found.inode, found.path);
            self.context.namespaces.open(&self.context, Opening { identity, run, path, inode, interfaces }).await;
        }
        news
    }
}

fn settings(container: &ContainerInspectResponse) -> impl Iterator<Item = (Arc<str>, Addresses)> + use<'_> {
    let networks = container.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    networks.into_iter().flatten().filter_map(|(_, endpoint)| Addresses::of_settings(endpoint))
}
