//! The whole path on one screen: [`Pipeline::start`] wires the stages, last first, with the size of each queue next to it.
//!
//! Packets in = packets accounted for: what a full queue or a full disk loses is counted by its stage, shown in
//! `/metrics` and in every answer about that time, and written to the catalog every ten seconds and at the end
//! ([`crate::account`]). What cannot be written for now is a trouble ([`crate::trouble`]) that `health` shows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use wiretag_capture::PacketBuffer;
use wiretag_enrich::SourceStatus;
use wiretag_enrich::kernel::{KernelConfig, KernelSource, KernelStatus};
use wiretag_enrich::static_file::StaticFile;
use wiretag_enrich::tagger::{Tagger, TaggerConfig};
use wiretag_enrich::timeline::Timeline;
use wiretag_store::{
    Backlog, Journal, PacketLog, PacketLogConfig, Recovery, Retention, Role, Store, StoreConfig, StoreError,
};

use crate::account::Account;
use crate::checkpoint::{JournalThread, JournalWriter};
use crate::config::RunConfig;
use crate::identities::{Published, Tagging, persist};
use crate::metrics::{FlowMetrics, StageCollector};
use crate::outbox::{PacketBatch, PacketSender};
use crate::peers::Peers;
use crate::sources::{Sources, Surroundings};
use crate::stage_numbers::StageNumbers;
use crate::static_identities::{self, StaticInterfaces, Watched};
use crate::trouble::{Stage, Troubles};
use crate::upkeep::Upkeep;
use crate::worker::CaptureStatus;
use crate::workers::{WorkerTemplate, WorkerThreads, start_workers};

/// Batches of packets, at most 1 MiB of bytes each, between capture and packet log.
const PACKET_QUEUE: usize = 64;
/// With so many batches waiting, the packet log compresses faster, and then no more.
const HURRY: usize = PACKET_QUEUE / 8;
const LEAVE: usize = PACKET_QUEUE / 2;
/// Empty buffers on their way back from packet log to capture.
const SPARE_QUEUE: usize = 4;
/// Batches of open slices between tagger and journal.
const OPEN_QUEUE: usize = 64;
/// Batches of flow records and transactions between capture and tagger.
const RECORD_QUEUE: usize = 256;
/// Events between identity sources and tagger.
const EVENT_QUEUE: usize = 4096;
/// Container namespaces between tagger and the task that captures in them.
const NAMESPACE_QUEUE: usize = 256;

/// What waits for a receiver of flows has so long at the end.
const EXPORT_PATIENCE: Duration = Duration::from_secs(5);

/// A wired appliance.
pub(crate) struct Pipeline {
    capture: Arc<CaptureStatus>,
    sources: Sources,
    repairs: Vec<String>,
    stop: Arc<AtomicBool>,
    stages: Stages,
    /// Ends the upkeep of the store, after one last round, and the accounts.
    finish: watch::Sender<bool>,
    account: Arc<Account>,
    server: JoinHandle<()>,
    stop_server: oneshot::Sender<()>,
    store: Arc<Store>,
}

/// What runs, in the order in which it ends.
struct Stages {
    workers: WorkerThreads,
    packet_log: std::thread::JoinHandle<()>,
    tagging: JoinHandle<()>,
    /// Told when all rows have left for their receivers.
    exported: Vec<oneshot::Receiver<()>>,
    journal: JournalThread,
    upkeep: JoinHandle<()>,
    accounts: JoinHandle<()>,
    tasks: Vec<JoinHandle<()>>,
}

impl Pipeline {
    /// journal ← (64) ← tagger; store ← packet log ← (64) ← capture; store ← tagger ← (256) ← capture; tagger ← (4096) ← identity sources.
    pub(crate) async fn start(
        config: &RunConfig,
        (store, recovery): (Store, Recovery),
        listener: tokio::net::TcpListener,
        (keys, secret): (wiretag_web::Keys, String),
    ) -> anyhow::Result<Self> {
        let (boot, store) = (crate::host::boot_id(), Arc::new(store));
        let (timeline, (static_file, watched)) = known_identities(config, &store).await?;
        let published = Arc::new(Published::new(&timeline));

        let (registry, tail) = (prometheus::Registry::new(), wiretag_web::Tail::default());
        let (troubles, stages) = <(Arc<Troubles>, Arc<Mutex<StageNumbers>>)>::default();
        let capture = Arc::new(CaptureStatus::new(troubles.clone()));
        let heard = last_heard(config, &store).await?;
        let kernel = kernel_source(config, &boot, heard);
        let (numbers, kernel_numbers) = ((stages.clone(), kernel.numbers()), kernel.numbers());

        let (records, record_batches) = mpsc::channel(RECORD_QUEUE);
        let (stop, pressed, workers) = <(Arc<AtomicBool>, Arc<Notify>, WorkerThreads)>::default();
        let (peers, (export, exported)) = Peers::start(config, (&records, &capture), (&workers, &stop))?;

        let account = Arc::new(Account::new(&config.node, &store, &capture, (&stages, &peers)));

        let writer = PacketWriter::new(config, &store, (stages.clone(), troubles.clone(), pressed.clone()))?;
        let (packet_log, packets) = writer.start()?;
        let make =
            WorkerTemplate { config: config.clone(), records, packets, capture: capture.clone(), stop: stop.clone() };
        // A start that may not capture is refused here, before the journal says that there was a run.
        let rings = make.open()?;

        let (open, journal) = JournalWriter::new(&store, &capture, &stages, &troubles).start(OPEN_QUEUE)?;

        let (events, identity_events) = mpsc::channel(EVENT_QUEUE);
        let (namespaces, namespace_events) = mpsc::channel(NAMESPACE_QUEUE);
        let (static_interfaces, changes) = StaticInterfaces::new(static_file, boot.clone());
        let tagging = Tagging {
            store: store.clone(),
            timeline,
            published: published.clone(),
            tagger: Tagger::new(TaggerConfig { boot: boot.clone(), ..TaggerConfig::default() }),
            metrics: FlowMetrics::new(&registry, config.transactions)?,
            tail: tail.clone(),
            static_interfaces,
            namespaces,
            capture: capture.clone(),
            troubles: troubles.clone(),
            journal: open,
            kernel: kernel_numbers,
            export,
        };
        let tagging = tokio::spawn(tagging.run(record_batches, identity_events));

        let file = watched.map(|own| (own, changes));
        let around = Surroundings { boot: boot.clone(), heard, events, kernel, file };
        let (sources, mut tasks) = Sources::start(config, around)?;
        let collector = StageCollector::new(&config.node, &capture, numbers, (&sources, &peers))?;
        registry.register(Box::new(collector))?;

        tasks.push(start_workers((make, rings), &workers, namespace_events)?);
        let (finish, finished) = watch::channel(false);
        let accounts = tokio::spawn(record_loss(account.clone(), troubles.clone(), finished.clone()));
        let upkeep = Upkeep { store: store.clone(), published: published.clone(), stages, troubles: troubles.clone() };
        let upkeep = tokio::spawn(upkeep.run(pressed, (config.node.as_str().into(), boot), finished));

        let app = wiretag_web::App {
            store: store.clone(),
            registry,
            health: crate::health::health(
                config.node.clone(),
                capture.clone(),
                sources.clone(),
                (troubles, peers, store.clone()),
            ),
            pending_loss: pending_loss(account.clone()),
            identities: Arc::new(move || published.view()),
            tail,
            keys,
            limits: config.queries,
            ipfix: config.ipfix_numbers,
            secret,
        };
        let ((server, stop_server), repairs) = (serve(listener, app), recovery.repairs);
        let stages = Stages { workers, packet_log, tagging, exported, journal, upkeep, accounts, tasks };
        Ok(Self { capture, sources, repairs, stop, stages, finish, account, server, stop_server, store })
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
        self.sources.docker.borrow().to_string()
    }

    /// The other identity sources.
    pub(crate) fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Waits until the sources of this host have a state, at most `patience`.
    pub(crate) async fn wait_for_sources(&self, patience: Duration) {
        let (mut docker, mut kernel) = (self.sources.docker.clone(), self.sources.kernel.clone());
        let settled = async {
            let _ = docker.wait_for(|status| *status != SourceStatus::Starting).await;
            let _ = kernel.wait_for(KernelStatus::is_settled).await;
        };
        let _ = tokio::time::timeout(patience, settled).await;
    }

    /// Capture ends first; then each stage when its input ends and all of it is written; the account and the store last.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        let Stages { workers, packet_log, tagging, exported, journal, upkeep, accounts, tasks } = self.stages;
        self.stop.store(true, Ordering::Relaxed);
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
        let workers = std::mem::take(&mut *workers.lock().unwrap_or_else(PoisonError::into_inner));
        tokio::task::spawn_blocking(move || {
            for worker in workers {
                let _ = worker.join();
            }
            let _ = packet_log.join();
        })
        .await?;
        tagging.await.context("the tagger ended badly")?;
        let all = async {
            for exported in exported {
                let _ = exported.await;
            }
        };
        // A receiver whose name is looked up at present is not waited for.
        if tokio::time::timeout(EXPORT_PATIENCE, all).await.is_err() {
            tracing::warn!("the last flows may not have reached their receiver: it did not take them in time");
        }
        let journal = tokio::task::spawn_blocking(move || journal.join().ok().flatten()).await?;
        let _ = self.finish.send(true);
        upkeep.await.context("the upkeep of the store ended badly")?;
        // In order, and not in the middle of an account: the last one would have the same seconds again.
        accounts.await.context("the accounts of what was lost ended badly")?;
        let account = self.account.close().await;
        self.store.close().await.context("the last rows could not be written")?;
        // Only now: until here it has what a kill would lose.
        journal.map_or(Ok(()), Journal::remove)?;
        account.context("the last account of what was lost could not be written")?;
        let _ = self.stop_server.send(());
        if tokio::time::timeout(Duration::from_secs(5), self.server).await.is_err() {
            tracing::warn!("a request was still open when the appliance stopped");
        }
        Ok(())
    }
}

/// The store of an appliance: this takes its lock on the data directory.
pub(crate) async fn open_store(config: &RunConfig) -> Result<(Store, Recovery), StoreError> {
    let (store, recovery) = Store::open(store_config(config)).await?;
    if let Some(written) = recovery.interrupted
        && let Err(error) = crate::account::note_interruption(&config.node, &store, written).await
    {
        tracing::warn!("that the last run was interrupted is not in its account: {error}");
    }
    // Before packets come: on a disk that they have filled, they would take the room that this needs.
    if let Err(error) = store.retire(crate::host::now()).await {
        tracing::warn!("what is too old or too much stays for now: {error}");
    }
    Ok((store, recovery))
}

fn store_config(config: &RunConfig) -> StoreConfig {
    let retention = |limits: crate::config::Retention| Retention {
        age: Some(Duration::from_nanos(limits.age.unsigned_abs())),
        bytes: Some(limits.bytes),
    };
    StoreConfig {
        data_dir: config.data.clone(),
        role: Role::Appliance,
        catalog: config.catalog.clone(),
        flows: retention(config.flows),
        packets: retention(config.packets),
        rollups: config.rollups,
    }
}

fn packet_log_config(config: &RunConfig) -> PacketLogConfig {
    PacketLogConfig {
        node: config.node.clone(),
        snap_len: config.snap_length,
        compression: config.compression,
        // A sixteenth of what is kept, so that one segment more or less makes no great difference.
        segment_bytes: (config.packets.bytes / 16).clamp(4 << 20, 256 << 20),
        ..PacketLogConfig::default()
    }
}

/// Answers until it is told to stop.
fn serve(listener: tokio::net::TcpListener, app: wiretag_web::App) -> (JoinHandle<()>, oneshot::Sender<()>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let told = async {
        let _ = stopped.await;
    };
    let server = async {
        if let Err(error) = wiretag_web::serve(listener, app, told).await {
            tracing::error!("there is no interface for requests: {error}");
        }
    };
    (tokio::spawn(server), stop)
}

/// What the kernel knows of this namespace.
fn kernel_source(config: &RunConfig, boot: &Arc<str>, heard: Option<i64>) -> KernelSource {
    let (host, boot) = (config.node.as_str().into(), boot.clone());
    let crate::config::KernelSettings { sockets, conntrack } = config.kernel;
    KernelSource::new(KernelConfig { host, boot, sockets, conntrack, heard })
}

/// Until when the last run captured, and so heard of containers, ns.
async fn last_heard(config: &RunConfig, store: &Store) -> anyhow::Result<Option<i64>> {
    let accounts = store.catalog.loss(0, i64::MAX).await?;
    Ok(accounts.into_iter().find(|account| account.node == config.node).map(|account| account.to))
}

/// The timeline as of the last run, plus the static file.
async fn known_identities(
    config: &RunConfig,
    store: &Store,
) -> anyhow::Result<(Timeline, (Option<StaticFile>, Option<Watched>))> {
    let mut timeline = store.catalog.timeline().await?;
    let file = static_identities::begin(config.static_file.as_deref(), &mut timeline);
    persist(&mut timeline, store).await?;
    Ok((timeline, file))
}

/// Batches of packets on their way in, and empty buffers on their way back.
type PacketReceiver = (crossbeam_channel::Receiver<PacketBatch>, crossbeam_channel::Sender<PacketBuffer>);

fn packet_queue() -> (PacketSender, PacketReceiver) {
    let (batches, received) = crossbeam_channel::bounded(PACKET_QUEUE);
    let (used, spare) = crossbeam_channel::bounded(SPARE_QUEUE);
    (PacketSender { batches, spare }, (received, used))
}

/// The thread that writes packets.
struct PacketWriter {
    log: PacketLog,
    stages: Arc<Mutex<StageNumbers>>,
    troubles: Arc<Troubles>,
    /// Told after each `step` bytes, so that retention keeps up.
    pressed: Arc<Notify>,
    step: u64,
}

impl PacketWriter {
    fn new(
        config: &RunConfig,
        store: &Store,
        (stages, troubles, pressed): (Arc<Mutex<StageNumbers>>, Arc<Troubles>, Arc<Notify>),
    ) -> anyhow::Result<Self> {
        let log = store.packet_log(packet_log_config(config))?;
        Ok(Self { log, stages, troubles, pressed, step: config.packets.bytes / 32 })
    }

    /// Starts it, with the queue to it; it ends when every worker has.
    fn start(self) -> anyhow::Result<(std::thread::JoinHandle<()>, PacketSender)> {
        let (packets, queue) = packet_queue();
        let thread = std::thread::Builder::new().name("packet-log".into());
        let thread = thread.spawn(move || self.run(&queue)).context("cannot start the packet log's thread")?;
        Ok((thread, packets))
    }

    fn run(mut self, (batches, used): &PacketReceiver) {
        use crossbeam_channel::RecvTimeoutError;
        let (mut flushed, mut told) = (crate::host::now(), 0);
        loop {
            let batch = match batches.recv_timeout(Duration::from_millis(250)) {
                Ok(batch) => Some(batch),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let now = crate::host::now();
            if let Some(PacketBatch { mut packets, names }) = batch {
                self.log.set_backlog(match batches.len() {
                    0..HURRY => Backlog::Small,
                    HURRY..LEAVE => Backlog::Growing,
                    LEAVE.. => Backlog::Large,
                });
                let name = |index| names.get(&index).map_or("?", |name| &**name);
                if let Err(error) = self.log.append_buffer(&mut packets, &name) {
                    self.troubles.failed(Stage::Packets, &error, now);
                }
                // If there are enough already, its memory is freed.
                let _ = used.try_send(packets);
            }
            // Also after the clock went back.
            if !(0..=1_000_000_000).contains(&now.saturating_sub(flushed)) {
                flushed = now;
                self.flushed(now);
            }
            let bytes = self.log.counters().bytes;
            if bytes - told > self.step {
                told = bytes;
                self.pressed.notify_one();
            }
        }
        if let Err(error) = self.log.seal() {
            self.troubles.failed(Stage::Packets, &error, crate::host::now());
        }
        self.publish();
    }

    fn flushed(&mut self, now: i64) {
        match self.log.flush() {
            Ok(()) => self.troubles.works(Stage::Packets, self.log.counters().lost, now),
            Err(error) => self.troubles.failed(Stage::Packets, &error, now),
        }
        self.publish();
    }

    fn publish(&self) {
        let counters = self.log.counters();
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        stages.packets_kept = counters.written;
        stages.packets_dropped = counters.lost;
        stages.blocks_hurried = counters.hurried;
        stages.blocks_opaque = counters.opaque;
    }
}

/// Every ten seconds: what was received and what was lost since, into the catalog. Before the first, that nobody captured until now.
async fn record_loss(account: Arc<Account>, troubles: Arc<Troubles>, mut finish: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval(crate::account::EVERY);
    let (started, mut begun) = (crate::host::now(), false);
    loop {
        tokio::select! {
            _ = finish.changed() => return,
            _ = tick.tick() => {}
        }
        let now = crate::host::now();
        let written = async {
            if !begun {
                account.note_gap(started).await?;
                begun = true;
            }
            account.write().await
        };
        match written.await {
            Ok(()) => troubles.works(Stage::Accounts, 0, now),
            Err(error) => troubles.failed(Stage::Accounts, &error, now),
        }
    }
}

fn pending_loss(account: Arc<Account>) -> wiretag_web::PendingLoss {
    Arc::new(move || account.pending())
}
