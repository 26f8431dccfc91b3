//! The capture threads of the appliance: those of its own network namespace, and one in each container namespace whose
//! traffic passes no interface of the host.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use wiretag_capture::Source;
use wiretag_capture::flow::FlowConfig;
use wiretag_capture::ring::RingConfig;
use wiretag_enrich::IdentityEvent;

use crate::config::RunConfig;
use crate::worker::{self, CaptureStatus, PacketSender, Scope, WorkerConfig};

/// Capture threads, started with the pipeline and by the task that follows container namespaces.
pub(crate) type WorkerThreads = Arc<Mutex<Vec<std::thread::JoinHandle<()>>>>;

/// What all workers of this appliance have in common.
pub(crate) struct WorkerTemplate {
    pub(crate) config: RunConfig,
    pub(crate) records: mpsc::Sender<worker::RecordBatch>,
    pub(crate) packets: PacketSender,
    pub(crate) capture: Arc<CaptureStatus>,
    pub(crate) stop: Arc<AtomicBool>,
}

impl WorkerTemplate {
    pub(crate) fn build(&self, scope: Scope, number: u16) -> WorkerConfig {
        let mut flow = FlowConfig::new(self.config.node.as_str(), Source::Ring);
        flow.max_flows = self.config.max_flows / usize::from(self.config.workers);
        flow.transactions = self.config.transactions;
        flow.tunnel_ports = self.config.tunnel_ports.clone();
        flow.fragments = self.config.fragments;
        let (block_count, fanout) = match &scope {
            Scope::Host { .. } => {
                let group = (self.config.workers > 1).then_some(std::process::id() as u16);
                (self.config.ring_mib as usize, group)
            }
            // A single container's traffic: a small ring.
            Scope::Namespace { .. } => (4, None),
        };
        let defaults = RingConfig::default();
        let snap_len = self.config.snap_length;
        let ring = RingConfig { block_size: 1 << 20, block_count, snap_len, fanout, ..defaults };
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

pub(crate) fn start_worker(workers: &WorkerThreads, config: WorkerConfig) -> anyhow::Result<()> {
    let thread = worker::start(config)?;
    let mut workers = workers.lock().unwrap_or_else(PoisonError::into_inner);
    workers.retain(|worker| !worker.is_finished());
    workers.push(thread);
    Ok(())
}

/// Opens a ring in each container namespace whose traffic passes no interface of the host, and closes it after.
pub(crate) async fn follow_namespaces(
    mut events: mpsc::Receiver<IdentityEvent>,
    make: WorkerTemplate,
    workers: WorkerThreads,
) {
    let mut open: HashMap<u64, Arc<AtomicBool>> = HashMap::new();
    while let Some(event) = events.recv().await {
        match event {
            IdentityEvent::Namespace { netns: path, inode, interfaces, .. } => {
                if open.contains_key(&inode) {
                    continue;
                }
                let gone = Arc::new(AtomicBool::new(false));
                let scope = Scope::Namespace { path, inode, interfaces, gone: gone.clone() };
                let (config, workers) = (make.build(scope, 0), workers.clone());
                match tokio::task::spawn_blocking(move || start_worker(&workers, config)).await {
                    Ok(Ok(())) => drop(open.insert(inode, gone)),
                    Ok(Err(error)) => tracing::warn!("no capture inside a container's namespace: {error:#}"),
                    Err(error) => tracing::error!("{error}"),
                }
            }
            IdentityEvent::NamespaceGone { inode, .. } => {
                if let Some(gone) = open.remove(&inode) {
                    gone.store(true, Ordering::Relaxed);
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
}
