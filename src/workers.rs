//! The capture threads of the appliance: those of its own network namespace, and one in each container namespace whose
//! traffic passes no interface of the host.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use wiretag_capture::Source;
use wiretag_capture::flow::FlowConfig;
use wiretag_capture::ring::{Fanout, RingConfig, RingError, links, namespace_inode};
use wiretag_enrich::IdentityEvent;

use crate::config::RunConfig;
use crate::outbox::PacketSender;
use crate::trouble::Stage;
use crate::worker::{self, CaptureStatus, Inside, Scope, Worker, WorkerConfig};

/// Capture threads, started with the pipeline and by the task that follows container namespaces.
pub(crate) type WorkerThreads = Arc<Mutex<Vec<std::thread::JoinHandle<()>>>>;

/// A namespace that could not be opened is tried again after so long; within the calm of a trouble.
const AGAIN: Duration = Duration::from_secs(1);
/// What the flows of a container's own namespace may take, beside those of the host: this part of the memory for flows.
const NAMESPACE_SHARE: usize = 16;

/// What all workers of this appliance have in common.
pub(crate) struct WorkerTemplate {
    pub(crate) config: RunConfig,
    pub(crate) records: mpsc::Sender<worker::RecordBatch>,
    pub(crate) packets: PacketSender,
    pub(crate) capture: Arc<CaptureStatus>,
    pub(crate) stop: Arc<AtomicBool>,
}

impl WorkerTemplate {
    /// Opens the rings of the host.
    pub(crate) fn open(&self) -> anyhow::Result<Vec<Worker>> {
        let mut fanout = (self.config.workers > 1).then_some(Fanout::New);
        let mut open = |number| {
            let scope = Scope::Host { patterns: self.config.interfaces.clone() };
            let worker = Worker::open(self.build(scope, number, fanout))?;
            fanout = worker.group().map(Fanout::Group);
            Ok(worker)
        };
        (0..self.config.workers).map(&mut open).collect()
    }

    fn build(&self, scope: Scope, number: u16, fanout: Option<Fanout>) -> WorkerConfig {
        let mut flow = FlowConfig::new(self.config.node.as_str(), Source::Ring);
        flow.max_flows = self.config.max_flows / usize::from(self.config.workers);
        flow.flow_memory = match &scope {
            Scope::Host { .. } => self.config.flow_memory / usize::from(self.config.workers),
            Scope::Namespace { .. } => self.config.flow_memory / NAMESPACE_SHARE,
        };
        flow.transactions = self.config.transactions;
        flow.tunnel_ports = self.config.tunnel_ports.clone();
        flow.fragments = self.config.fragments;
        let mib = match &scope {
            Scope::Host { .. } => self.config.ring_mib,
            // A single container's traffic: a small ring.
            Scope::Namespace { .. } => 4,
        };
        let ring = RingConfig { mib, snap_len: self.config.snap_length, fanout };
        WorkerConfig {
            flow,
            ring,
            scope,
            number,
            records: self.records.clone(),
            packets: self.packets.clone(),
            status: self.capture.clone(),
            stop: self.stop.clone(),
            checkpoint: self.config.checkpoint,
        }
    }
}

/// Starts those of the host, whose rings are open, and the task that follows container namespaces.
pub(crate) fn start_workers(
    (make, host): (WorkerTemplate, Vec<Worker>),
    workers: &WorkerThreads,
    namespaces: mpsc::Receiver<IdentityEvent>,
) -> anyhow::Result<JoinHandle<()>> {
    host.into_iter().try_for_each(|worker| start_worker(workers, worker))?;
    let own = Namespaces { make, workers: workers.clone(), open: HashMap::new(), failed: HashMap::new() };
    Ok(tokio::spawn(own.follow(namespaces)))
}

fn start_worker(workers: &WorkerThreads, worker: Worker) -> anyhow::Result<()> {
    let thread = worker.start()?;
    let mut workers = workers.lock().unwrap_or_else(PoisonError::into_inner);
    workers.retain(|worker| !worker.is_finished());
    workers.push(thread);
    Ok(())
}

/// A namespace that is captured in. Several sources may tell of one.
struct Open {
    inside: Arc<Inside>,
    path: PathBuf,
    /// Since when.
    at: i64,
}

impl Open {
    /// Whether its path still leads to it.
    fn is_there(&self, inode: u64) -> bool {
        namespace_inode(&self.path).is_ok_and(|own| own == inode)
    }
}

/// Opens a ring in each container namespace whose traffic passes no interface of the host, and closes it after.
struct Namespaces {
    make: WorkerTemplate,
    workers: WorkerThreads,
    open: HashMap<u64, Open>,
    /// Those that are there and could not be opened: path and interfaces.
    failed: HashMap<u64, (PathBuf, Vec<(u32, String)>)>,
}

impl Namespaces {
    async fn follow(mut self, mut events: mpsc::Receiver<IdentityEvent>) {
        let mut again = tokio::time::interval(AGAIN);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.take(event).await,
                    None => return,
                },
                _ = again.tick(), if !self.failed.is_empty() => {
                    for (inode, (path, interfaces)) in std::mem::take(&mut self.failed) {
                        self.open(inode, path, interfaces).await;
                    }
                }
            }
        }
    }

    async fn take(&mut self, event: IdentityEvent) {
        match event {
            IdentityEvent::Namespace { netns: path, inode, mut interfaces, .. } => {
                let patterns = &self.make.config.interfaces;
                interfaces.retain(|(_, name)| links::is_selected(&worker::name_inside(name, inode), patterns));
                if interfaces.is_empty() {
                    return;
                }
                match self.open.get_mut(&inode) {
                    Some(known) => {
                        known.inside.add(interfaces);
                        if !known.is_there(inode) {
                            known.path = path;
                        }
                    }
                    None => self.open(inode, path, interfaces).await,
                }
            }
            IdentityEvent::NamespaceGone { inode, at } => {
                // The kernel gives the inode of a namespace that is gone to the next one: late word of its end is not meant
                // for that one.
                let is_meant = |known: &Open| known.at <= at || !known.is_there(inode);
                if self.open.get(&inode).is_some_and(is_meant) {
                    self.close(inode);
                }
            }
            IdentityEvent::Learned(_)
            | IdentityEvent::Described { .. }
            | IdentityEvent::Same { .. }
            | IdentityEvent::Translated(_)
            | IdentityEvent::Heard { .. }
            | IdentityEvent::Connected(_)
            | IdentityEvent::Ended { .. }
            | IdentityEvent::Parted { .. }
            | IdentityEvent::Network { .. }
            | IdentityEvent::Reconciled(_) => {}
        }
    }

    /// Opens it; or, if that fails and it is still there, notes it to be tried again.
    async fn open(&mut self, inode: u64, path: PathBuf, interfaces: Vec<(u32, String)>) {
        let inside = Arc::new(Inside::new(inode, interfaces.clone()));
        let known = Open { inside: inside.clone(), path: path.clone(), at: crate::host::now() };
        let scope = Scope::Namespace { path: path.clone(), inside };
        let (config, workers) = (self.make.build(scope, 0, None), self.workers.clone());
        match tokio::task::spawn_blocking(move || start_worker(&workers, Worker::open(config)?)).await {
            Ok(Ok(())) => {
                self.failed.remove(&inode);
                self.open.insert(inode, known);
            }
            Ok(Err(error)) if is_denied(&error) || !known.is_there(inode) => {
                tracing::warn!("no capture inside a container's namespace: {error:#}");
            }
            Ok(Err(error)) => {
                self.make.capture.failed(Stage::Interfaces, &format_args!("{error:#}"), crate::host::now());
                self.failed.insert(inode, (path, interfaces));
            }
            Err(error) => tracing::error!("{error}"),
        }
    }

    fn close(&mut self, inode: u64) {
        if let Some(known) = self.open.remove(&inode) {
            known.inside.end();
        }
    }
}

/// Whether it was not allowed, and will not be.
fn is_denied(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<RingError>() {
        Some(RingError::Permission { .. }) => true,
        Some(RingError::Namespace { source, .. } | RingError::System { source, .. }) => {
            source.kind() == std::io::ErrorKind::PermissionDenied
        }
        Some(RingError::TooManyInterfaces { .. }) | None => false,
    }
}
