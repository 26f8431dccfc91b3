//! The whole path on one screen: [`Pipeline::start`] wires the stages, last first, with the size of each queue next to it.
//!
//! Packets in = packets accounted for: what a full queue or a full disk loses is counted by its stage, shown in
//! `/metrics`, and written to the catalog every ten seconds, so that answers about that time say so.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use wiretag_capture::Source;
use wiretag_capture::flow::FlowConfig;
use wiretag_capture::ring::RingConfig;
use wiretag_enrich::docker::{DockerSource, DockerStatus};
use wiretag_enrich::static_file::{self, StaticFile};
use wiretag_enrich::tagger::{Tagger, TaggerConfig};
use wiretag_enrich::timeline::Timeline;
use wiretag_enrich::{IdentityEvent, Interval};
use wiretag_store::{Loss, PacketLog, PacketLogConfig, Retention, Role, Store, StoreConfig};

use crate::config::RunConfig;
use crate::identities::{SharedTimeline, Tagging, matches, reconcile_static};
use crate::metrics::{FlowMetrics, StageCollector, StageNumbers};
use crate::worker::{self, CaptureStatus, PacketBatch, Scope, WorkerConfig};

/// Batches of packets, at most 1 MiB of bytes each, between capture and packet log.
const PACKET_QUEUE: usize = 64;
/// Batches of flow records between capture and tagger.
const RECORD_QUEUE: usize = 256;
/// Events between identity sources and tagger.
const EVENT_QUEUE: usize = 4096;
/// Container namespaces between tagger and the task that captures in them.
const NAMESPACE_QUEUE: usize = 256;

/// Identities that ended less than an hour ago are never forgotten: their flows may still be on their way.
const HOUR: i64 = 3_600_000_000_000;

/// A wired appliance.
pub(crate) struct Pipeline {
    capture: Arc<CaptureStatus>,
    docker: watch::Receiver<DockerStatus>,
    repairs: Vec<String>,
    stop: Arc<AtomicBool>,
    workers: WorkerThreads,
    tagging: JoinHandle<()>,
    packet_log: std::thread::JoinHandle<()>,
    tasks: Vec<JoinHandle<()>>,
    server: JoinHandle<std::io::Result<()>>,
    stop_server: oneshot::Sender<()>,
    store: Arc<Store>,
}

/// Capture threads, started by [`Pipeline::start`] and by the task that follows container namespaces.
type WorkerThreads = Arc<Mutex<Vec<std::thread::JoinHandle<()>>>>;

impl Pipeline {
    /// store ← packet log ← (64) ← capture; store ← tagger ← (256) ← capture; tagger ← (4096) ← identity sources.
    pub(crate) async fn start(
        config: &RunConfig,
        listener: tokio::net::TcpListener,
        token: String,
    ) -> anyhow::Result<Self> {
        let boot = crate::host::boot_id();
        let (store, recovery) = Store::open(store_config(config)).await?;
        let store = Arc::new(store);
        let (timeline, static_file) = known_identities(config, &store).await?;

        let registry = prometheus::Registry::new();
        let capture = Arc::new(CaptureStatus::default());
        let stages = Arc::new(Mutex::new(StageNumbers::default()));
        registry.register(Box::new(StageCollector::new(config.node.clone(), capture.clone(), stages.clone())?))?;

        let (packets, packet_batches) = crossbeam_channel::bounded(PACKET_QUEUE);
        let packet_log =
            start_packet_log(store.packet_log(packet_log_config(config))?, packet_batches, stages.clone())?;

        let (records, record_batches) = mpsc::channel(RECORD_QUEUE);
        let (events, identity_events) = mpsc::channel(EVENT_QUEUE);
        let (namespaces, namespace_events) = mpsc::channel(NAMESPACE_QUEUE);
        let tagging = Tagging {
            store: store.clone(),
            timeline: timeline.clone(),
            tagger: Tagger::new(TaggerConfig { boot: boot.clone(), ..TaggerConfig::default() }),
            metrics: FlowMetrics::new(&registry)?,
            static_interfaces: static_file.map(|file| file.interfaces.into_iter().collect()).unwrap_or_default(),
            boot: boot.clone(),
            namespaces,
        };
        let tagging = tokio::spawn(tagging.run(record_batches, identity_events));

        let accounts = store.catalog.loss(0, i64::MAX).await?;
        let heard = accounts.into_iter().find(|account| account.node == config.node).map(|account| account.to);
        let source = DockerSource::new(config.docker.clone(), config.node.as_str().into(), boot, heard);
        let docker = source.status();
        let mut tasks = vec![tokio::spawn(source.run(events))];

        let stop = Arc::new(AtomicBool::new(false));
        let workers = WorkerThreads::default();
        let make =
            WorkerTemplate { config: config.clone(), records, packets, capture: capture.clone(), stop: stop.clone() };
        for number in 0..config.workers {
            start_worker(&workers, make.build(Scope::Host { patterns: config.interfaces.clone() }, number))?;
        }
        tasks.push(tokio::spawn(follow_namespaces(namespace_events, make, workers.clone())));
        tasks.push(tokio::spawn(maintain(store.clone(), timeline.clone(), stages)));
        tasks.push(tokio::spawn(record_loss(store.clone(), config.node.clone(), capture.clone())));

        let app = wiretag_web::App {
            store: store.clone(),
            registry,
            health: health(config.node.clone(), capture.clone(), docker.clone()),
            identities: identities(timeline),
            token,
        };
        let (stop_server, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(wiretag_web::serve(listener, app, async {
            let _ = stopped.await;
        }));
        let repairs = recovery.repairs;
        Ok(Self { capture, docker, repairs, stop, workers, tagging, packet_log, tasks, server, stop_server, store })
    }

    /// Interfaces that are captured now.
    pub(crate) fn interfaces(&self) -> Vec<Arc<str>> {
        self.capture.interfaces()
    }

    /// What was repaired at the start, in sentences.
    pub(crate) fn repairs(&self) -> &[String] {
        &self.repairs
    }

    /// State of the Docker source, in words.
    pub(crate) fn docker(&self) -> String {
        self.docker.borrow().to_string()
    }

    /// Waits until the Docker source has a state, at most `patience`.
    pub(crate) async fn wait_for_docker(&self, patience: Duration) {
        let mut docker = self.docker.clone();
        let settled = docker.wait_for(|status| *status != DockerStatus::Starting);
        let _ = tokio::time::timeout(patience, settled).await;
    }

    /// Capture ends first; then each stage when its input ends; the store last.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
        let workers = std::mem::take(&mut *self.workers.lock().unwrap_or_else(PoisonError::into_inner));
        let packet_log = self.packet_log;
        tokio::task::spawn_blocking(move || {
            for worker in workers {
                let _ = worker.join();
            }
            let _ = packet_log.join();
        })
        .await?;
        self.tagging.await.context("the tagger ended badly")?;
        self.store.close().await.context("the last flows could not be written")?;
        let _ = self.stop_server.send(());
        if tokio::time::timeout(Duration::from_secs(5), self.server).await.is_err() {
            tracing::warn!("a request was still open when the appliance stopped");
        }
        Ok(())
    }
}

fn store_config(config: &RunConfig) -> StoreConfig {
    let retention = |limits: crate::config::Retention| Retention {
        age: Some(Duration::from_nanos(limits.age.unsigned_abs())),
        bytes: Some(limits.bytes),
    };
    StoreConfig {
        data_dir: config.data.clone(),
        role: Role::Appliance,
        flows: retention(config.flows),
        packets: retention(config.packets),
    }
}

fn packet_log_config(config: &RunConfig) -> PacketLogConfig {
    PacketLogConfig {
        node: config.node.clone(),
        snap_len: config.snap_length,
        compression: config.compression,
        ..PacketLogConfig::default()
    }
}

/// The timeline as of the last run, plus the static file.
async fn known_identities(config: &RunConfig, store: &Store) -> anyhow::Result<(SharedTimeline, Option<StaticFile>)> {
    let mut timeline = Timeline::new();
    timeline.load(store.catalog.intervals().await?);
    let timeline = Arc::new(RwLock::new(timeline));
    let file = config.static_file.as_deref().map(|path| static_file::load(path, crate::host::now())).transpose()?;
    store.catalog.append_intervals(&reconcile_static(&timeline, file.as_ref())).await?;
    Ok((timeline, file))
}

/// The thread that writes packets; it ends when every worker has.
fn start_packet_log(
    mut log: PacketLog,
    batches: crossbeam_channel::Receiver<PacketBatch>,
    stages: Arc<Mutex<StageNumbers>>,
) -> anyhow::Result<std::thread::JoinHandle<()>> {
    use crossbeam_channel::RecvTimeoutError;
    let work = move || {
        let mut flushed = crate::host::now();
        loop {
            let batch = match batches.recv_timeout(Duration::from_millis(250)) {
                Ok(batch) => Some(batch),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if let Some(PacketBatch { packets, names }) = batch {
                for (packet, flow_id) in packets.iter() {
                    let interface = names.get(&packet.interface).map_or("?", |name| name);
                    if let Err(error) = log.append(interface, &packet, flow_id) {
                        tracing::error!("packet log: {error}");
                    }
                }
            }
            let now = crate::host::now();
            if now - flushed > 1_000_000_000 {
                flushed = now;
                if let Err(error) = log.flush() {
                    tracing::error!("packet log: {error}");
                }
                publish(&log, &stages);
            }
        }
        if let Err(error) = log.seal() {
            tracing::error!("packet log: {error}");
        }
        publish(&log, &stages);
    };
    std::thread::Builder::new().name("packet-log".into()).spawn(work).context("cannot start the packet log's thread")
}

fn publish(log: &PacketLog, stages: &Mutex<StageNumbers>) {
    let counters = log.counters();
    let mut stages = stages.lock().unwrap_or_else(PoisonError::into_inner);
    stages.packets_kept = counters.written;
    stages.packets_dropped = counters.lost;
}

/// What all workers of this appliance have in common.
struct WorkerTemplate {
    config: RunConfig,
    records: mpsc::Sender<worker::RecordBatch>,
    packets: crossbeam_channel::Sender<PacketBatch>,
    capture: Arc<CaptureStatus>,
    stop: Arc<AtomicBool>,
}

impl WorkerTemplate {
    fn build(&self, scope: Scope, number: u16) -> WorkerConfig {
        let mut flow = FlowConfig::new(self.config.node.as_str(), Source::Ring);
        flow.max_flows = self.config.max_flows / usize::from(self.config.workers);
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
        }
    }
}

fn start_worker(workers: &WorkerThreads, config: WorkerConfig) -> anyhow::Result<()> {
    let thread = worker::start(config)?;
    let mut workers = workers.lock().unwrap_or_else(PoisonError::into_inner);
    workers.retain(|worker| !worker.is_finished());
    workers.push(thread);
    Ok(())
}

/// Opens a ring in each container namespace whose traffic passes no interface of the host, and closes it after.
async fn follow_namespaces(mut events: mpsc::Receiver<IdentityEvent>, make: WorkerTemplate, workers: WorkerThreads) {
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
            | IdentityEvent::Ended { .. }
            | IdentityEvent::Parted { .. }
            | IdentityEvent::Network { .. }
            | IdentityEvent::Reconciled(_) => {}
        }
    }
}

/// Every two seconds: flush, retention, and the numbers of the store.
async fn maintain(store: Arc<Store>, timeline: SharedTimeline, stages: Arc<Mutex<StageNumbers>>) {
    let mut tick = tokio::time::interval(Duration::from_secs(2));
    loop {
        tick.tick().await;
        let now = crate::host::now();
        let done = match store.maintain(now).await {
            Ok(done) => done,
            Err(error) => {
                tracing::error!("the store: {error}");
                continue;
            }
        };
        if let Some(oldest) = done.oldest {
            timeline.write().unwrap_or_else(PoisonError::into_inner).expire(oldest.min(now - HOUR));
        }
        let mut identities: HashMap<String, u64> = HashMap::new();
        for interval in timeline.read().unwrap_or_else(PoisonError::into_inner).current(now, None) {
            *identities.entry(interval.source.to_string()).or_default() += 1;
        }
        let counters = store.flows.counters();
        let mut stages = stages.lock().unwrap_or_else(PoisonError::into_inner);
        stages.rows_stored = counters.written;
        stages.rows_dropped = counters.dropped;
        stages.flow_bytes = done.flows.bytes;
        stages.packet_bytes = done.packets.bytes;
        stages.identities = identities.into_iter().collect();
    }
}

/// Every ten seconds: what was received and what was lost since, into the catalog.
async fn record_loss(store: Arc<Store>, node: String, capture: Arc<CaptureStatus>) {
    let mut tick = tokio::time::interval(Duration::from_secs(10));
    let (mut from, mut before) = (crate::host::now(), capture.counters());
    tick.tick().await;
    loop {
        tick.tick().await;
        let (to, after) = (crate::host::now(), capture.counters());
        let refused = |counters: &wiretag_capture::CaptureCounters| counters.refused.values().sum::<u64>();
        let loss = Loss {
            node: node.clone(),
            from,
            to,
            packets: after.packets.saturating_sub(before.packets),
            kernel_drops: after.kernel_drops.saturating_sub(before.kernel_drops),
            queue_drops: after.queue_drops.saturating_sub(before.queue_drops),
            refused: refused(&after).saturating_sub(refused(&before)),
        };
        if let Err(error) = store.catalog.add_loss(&loss).await {
            tracing::error!("capture statistics are not stored: {error}");
        } else {
            (from, before) = (to, after);
        }
    }
}

type Health = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

fn health(node: String, capture: Arc<CaptureStatus>, docker: watch::Receiver<DockerStatus>) -> Health {
    Arc::new(move || {
        let counters = capture.counters();
        serde_json::json!({
            "status": "ok",
            "version": env!("CARGO_PKG_VERSION"),
            "node": node,
            "interfaces": capture.interfaces().iter().map(std::string::ToString::to_string).collect::<Vec<_>>(),
            "docker": docker.borrow().to_string(),
            "packets": counters.packets,
            "decoded": counters.decoded,
            "refused": counters.refused,
            "kernel_drops": counters.kernel_drops,
            "queue_drops": counters.queue_drops,
            "flows_active": counters.flows_active,
        })
    })
}

type Identities = Arc<dyn Fn(Option<i64>, Option<std::net::IpAddr>) -> Vec<Interval> + Send + Sync>;

fn identities(timeline: SharedTimeline) -> Identities {
    Arc::new(move |at, ip| {
        let mut intervals = timeline.read().unwrap_or_else(PoisonError::into_inner).intervals();
        intervals.retain(|interval| matches(interval, at, ip));
        intervals
    })
}
