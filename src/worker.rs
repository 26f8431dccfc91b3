//! The capture worker: one thread a ring. Burst, decode, track, expire, hand on. Several workers of the host's namespace
//! share its traffic by the kernel's symmetric flow hash; each has its own ring and flow table.
//!
//! Every few seconds it also hands on what is open ([`crate::checkpoint`]), a part of it between two bursts.
//!
//! A worker never waits for a later stage before it ends: what does not fit into a queue is counted (`queue_drops` for packets of the
//! packet log, `lost_slices` for flow rows, `lost_transactions`), and the kernel counts what the worker was too slow for.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc;
use wiretag_capture::flow::{Engine, FlowConfig};
use wiretag_capture::ring::links::{self, Link, LinkKind, LinkWatcher};
use wiretag_capture::ring::{self, Ring, RingConfig};
use wiretag_capture::{CaptureCounters, EndReason, FlowRecord, Transaction};

use crate::checkpoint::Pace;
use crate::outbox::{InterfaceNames, Outbox, PacketSender};

/// Flow records and transactions on their way to the tagger, with the network namespace (0: wiretag's own) of their interfaces.
pub(crate) struct RecordBatch {
    pub(crate) netns: u64,
    pub(crate) records: Vec<FlowRecord>,
    pub(crate) transactions: Vec<Transaction>,
    /// Slices that are still open. They began before whatever records of them follow, and are not to be stored.
    pub(crate) open: Vec<FlowRecord>,
    /// Interfaces that are new, or others, since the last batch.
    pub(crate) links: Vec<SeenLink>,
}

/// An interface that is captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeenLink {
    pub(crate) index: u32,
    pub(crate) name: Arc<str>,
    /// Whether it is the host's end of a veth.
    pub(crate) veth: bool,
    /// Name of the VRF that it is in.
    pub(crate) vrf: Option<Arc<str>>,
}

impl SeenLink {
    fn new(link: &Link, all: &[Link]) -> Self {
        let vrf = links::vrf(link, all).map(|vrf| vrf.name.as_str().into());
        Self { index: link.index, name: link.name.as_str().into(), veth: link.kind == LinkKind::Veth, vrf }
    }
}

impl RecordBatch {
    /// Rows of all kinds.
    pub(crate) fn len(&self) -> usize {
        self.records.len() + self.transactions.len() + self.open.len()
    }
}

/// What a worker reads and where it hands on to.
pub(crate) struct WorkerConfig {
    pub(crate) flow: FlowConfig,
    pub(crate) ring: RingConfig,
    pub(crate) scope: Scope,
    /// Which of the workers that share the scope's traffic, from 0.
    pub(crate) number: u16,
    pub(crate) records: mpsc::Sender<RecordBatch>,
    pub(crate) packets: PacketSender,
    pub(crate) status: Arc<CaptureStatus>,
    pub(crate) stop: Arc<AtomicBool>,
    /// Time between two looks at what is open, ns.
    pub(crate) checkpoint: i64,
}

/// Which interfaces.
pub(crate) enum Scope {
    /// Those of wiretag's own namespace that match the patterns; followed as they come and go.
    Host {
        /// Names or patterns; empty: every veth, bridge and tap.
        patterns: Vec<String>,
    },
    /// Given interfaces of another namespace, for as long as it exists.
    Namespace {
        path: PathBuf,
        inode: u64,
        /// Index and name.
        interfaces: Vec<(u32, String)>,
        /// Set when the namespace is gone.
        gone: Arc<AtomicBool>,
    },
}

/// What all workers capture, for metrics, health and completeness.
#[derive(Default)]
pub(crate) struct CaptureStatus {
    /// By network namespace and number of the worker.
    sources: Mutex<HashMap<(u64, u16), SourceStatus>>,
    finished: Mutex<CaptureCounters>,
    lost_slices: AtomicU64,
    lost_transactions: AtomicU64,
    /// Open slices that were handed on, and those that found a queue full or could not be written.
    open: AtomicU64,
    lost_open: AtomicU64,
    /// Rows in the queue to the tagger.
    queued_rows: AtomicU64,
}

#[derive(Default, Clone)]
struct SourceStatus {
    counters: CaptureCounters,
    interfaces: Vec<Arc<str>>,
    /// Time between two looks at what is open, ns.
    checkpoint: i64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CaptureStatus {
    /// Sums over all sources, the ended ones included.
    pub(crate) fn counters(&self) -> CaptureCounters {
        let mut sum = locked(&self.finished).clone();
        for source in locked(&self.sources).values() {
            sum.add(&source.counters);
        }
        sum
    }

    /// Names of the interfaces that are captured now.
    pub(crate) fn interfaces(&self) -> Vec<Arc<str>> {
        let mut names: Vec<_> =
            locked(&self.sources).values().flat_map(|source| source.interfaces.iter().cloned()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Flow rows that found the queue to the tagger full.
    pub(crate) fn lost_slices(&self) -> u64 {
        self.lost_slices.load(Ordering::Relaxed)
    }

    /// Transactions that found the queue to the tagger full.
    pub(crate) fn lost_transactions(&self) -> u64 {
        self.lost_transactions.load(Ordering::Relaxed)
    }

    /// Open slices that workers have handed on.
    pub(crate) fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Open slices that were lost behind the workers. When there are more, workers give everything that is open again.
    pub(crate) fn lost_open(&self) -> u64 {
        self.lost_open.load(Ordering::Relaxed)
    }

    /// Open slices found a queue full or could not be written.
    pub(crate) fn lose_open(&self, slices: usize) {
        self.lost_open.fetch_add(slices as u64, Ordering::Relaxed);
    }

    /// Time between two looks at what is open, ns; of the worker that looks least often.
    pub(crate) fn checkpoint(&self) -> i64 {
        locked(&self.sources).values().map(|source| source.checkpoint).max().unwrap_or_default()
    }

    /// Rows of flows were lost on their way to the tagger.
    pub(crate) fn lose_slices(&self, rows: usize) {
        self.lost_slices.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Hands rows to the tagger, or gives them back if there is no room.
    pub(crate) fn offer(&self, queue: &mpsc::Sender<RecordBatch>, batch: RecordBatch) -> Result<(), RecordBatch> {
        if self.queued_rows.load(Ordering::Relaxed) >= MOST_QUEUED_ROWS {
            return Err(batch);
        }
        // Counted first: the tagger may take it at once.
        let rows = batch.len();
        self.queued_rows.fetch_add(rows as u64, Ordering::Relaxed);
        queue.try_send(batch).map_err(|error| {
            self.received(rows);
            error.into_inner()
        })
    }

    /// Hands rows of flows to the tagger, and waits for room.
    pub(crate) fn hand_on(&self, queue: &mpsc::Sender<RecordBatch>, batch: RecordBatch) {
        let rows = batch.len();
        self.queued_rows.fetch_add(rows as u64, Ordering::Relaxed);
        if queue.blocking_send(batch).is_err() {
            self.received(rows);
            self.lose_slices(rows);
        }
    }

    /// So many rows have left the queue to the tagger.
    pub(crate) fn received(&self, rows: usize) {
        self.queued_rows.fetch_sub(rows as u64, Ordering::Relaxed);
    }

    fn publish(&self, source: (u64, u16), status: SourceStatus) {
        locked(&self.sources).insert(source, status);
    }

    fn end(&self, source: (u64, u16)) {
        if let Some(mut source) = locked(&self.sources).remove(&source) {
            (source.counters.flows_active, source.counters.flow_memory) = (0, 0);
            locked(&self.finished).add(&source.counters);
        }
    }
}

/// Starts the thread; the ring is open when this returns.
pub(crate) fn start(config: WorkerConfig) -> anyhow::Result<std::thread::JoinHandle<()>> {
    let name = match &config.scope {
        Scope::Host { .. } => format!("capture-{}", config.number),
        Scope::Namespace { inode, .. } => format!("capture-{inode}"),
    };
    let mut worker = Worker::open(config)?;
    std::thread::Builder::new().name(name).spawn(move || worker.run()).context("cannot start the capture thread")
}

struct Worker {
    config: WorkerConfig,
    ring: Ring,
    watcher: Option<LinkWatcher>,
    engine: Engine,
    names: Arc<InterfaceNames>,
    selected: Vec<Arc<str>>,
    netns: u64,
    records: Vec<FlowRecord>,
    transactions: Vec<Transaction>,
    open: Vec<FlowRecord>,
    pace: Pace,
    links: Vec<SeenLink>,
    outbox: Outbox,
    /// Interfaces of which the tagger was told: an index may come back as another, and one may change its VRF.
    told: HashMap<u32, SeenLink>,
    kernel_drops: u64,
}

/// Flow records, and transactions, that wait at most for room in the queue.
const MOST_WAITING_ROWS: usize = 65_536;
/// Rows in the queue to the tagger at most: its batches are bounded in number, but not all of one size.
const MOST_QUEUED_ROWS: u64 = 262_144;
/// Rows handed on at once at the end.
const LAST_ROWS: usize = 8_192;
/// Open slices handed on after a burst at most: so many when there is little to do, and one for so many packets else.
const OPEN_ROWS: usize = 2_048;
const PACKETS_AN_OPEN_ROW: u64 = 8;
/// Nanoseconds that packets wait at most for their batch to fill: blocks that are made of whole batches need no more copying.
const BATCH_AGE: i64 = 200_000_000;

impl Worker {
    fn open(config: WorkerConfig) -> anyhow::Result<Self> {
        let ring_config = config.ring.clone();
        let (ring, netns, watcher) = match &config.scope {
            Scope::Host { .. } => (Ring::open(&ring_config, &[])?, 0, Some(LinkWatcher::open()?)),
            Scope::Namespace { path, inode, interfaces, .. } => {
                let indexes: Vec<u32> = interfaces.iter().map(|(index, _)| *index).collect();
                (ring::in_namespace(path, move || Ring::open(&ring_config, &indexes))??, *inode, None)
            }
        };
        let engine = Engine::new(config.flow.clone());
        let outbox = Outbox::new(config.packets.clone());
        let pace = Pace::new(config.checkpoint);
        let mut worker = Self {
            config,
            ring,
            watcher,
            engine,
            names: Arc::default(),
            selected: Vec::new(),
            netns,
            records: Vec::new(),
            transactions: Vec::new(),
            open: Vec::new(),
            pace,
            links: Vec::new(),
            outbox,
            told: HashMap::new(),
            kernel_drops: 0,
        };
        worker.select()?;
        worker.publish();
        Ok(worker)
    }

    /// Chooses the interfaces anew and names those that are new.
    fn select(&mut self) -> anyhow::Result<()> {
        let chosen: Vec<SeenLink> = match &self.config.scope {
            Scope::Host { patterns } => {
                let links = links::list()?;
                links::select(&links, patterns).into_iter().map(|link| SeenLink::new(link, &links)).collect()
            }
            Scope::Namespace { interfaces, inode, .. } => {
                let seen = |(index, name): &(u32, String)| SeenLink {
                    index: *index,
                    name: format!("{name}@{inode}").into(),
                    veth: false,
                    vrf: None,
                };
                interfaces.iter().map(seen).collect()
            }
        };
        // Those that wait have the names of before.
        self.outbox.send();
        for link in &chosen {
            if self.told.get(&link.index) != Some(link) {
                self.engine.name_interface(link.index, &link.name);
                Arc::make_mut(&mut self.names).insert(link.index, link.name.clone());
                self.links.push(link.clone());
                self.told.insert(link.index, link.clone());
            }
        }
        self.told.retain(|index, _| chosen.iter().any(|own| own.index == *index));
        if self.netns == 0 {
            let indexes: Vec<u32> = chosen.iter().map(|link| link.index).collect();
            self.ring.set_interfaces(&indexes)?;
        }
        self.outbox.names = self.names.clone();
        self.selected = chosen.into_iter().map(|link| link.name).collect();
        Ok(())
    }

    fn run(&mut self) {
        while !self.stopped() {
            if let Err(error) = self.burst() {
                tracing::error!("capture on namespace {} ended: {error:#}", self.netns);
                break;
            }
        }
        // The last packets are still in the ring: those of a container that lived for a moment may be all there are.
        if let Err(error) = self.burst() {
            tracing::debug!("capture on namespace {}: {error:#}", self.netns);
        }
        self.outbox.send();
        // In parts: the records of a full table at once would take more memory than the table.
        while self.engine.finish_some(EndReason::Shutdown, LAST_ROWS, &mut self.records) {
            self.hand_on_the_last();
        }
        self.hand_on_the_last();
        self.publish();
        self.config.status.end((self.netns, self.config.number));
    }

    fn stopped(&self) -> bool {
        let gone = match &self.config.scope {
            Scope::Host { .. } => false,
            Scope::Namespace { gone, .. } => gone.load(Ordering::Relaxed),
        };
        gone || self.config.stop.load(Ordering::Relaxed)
    }

    /// Burst, decode, track, expire, hand on.
    fn burst(&mut self) -> anyhow::Result<()> {
        if let Some(watcher) = &mut self.watcher
            && watcher.wait(Duration::ZERO)?
        {
            self.select()?;
        }
        let before = self.engine.counters().packets;
        let (engine, records, outbox) = (&mut self.engine, &mut self.records, &mut self.outbox);
        self.ring.poll(Duration::from_millis(100), self.watcher.as_ref(), &mut |packets| {
            engine.burst(packets, records, |packet, flow_id| outbox.push(packet, flow_id));
        })?;
        let now = crate::host::now();
        outbox.send_if_older_than(now - BATCH_AGE);
        self.kernel_drops = self.ring.drops()?;
        self.engine.advance(now, &mut self.records);
        self.look_at_open(now, self.engine.counters().packets - before);
        self.hand_on_rows();
        self.publish();
        Ok(())
    }

    /// When it is time, takes a part of what is open, in proportion to the packets of the burst: under load the ring must
    /// not fill meanwhile.
    fn look_at_open(&mut self, now: i64, packets: u64) {
        if self.pace.begins(now) {
            let everything = self.pace.takes_everything(self.config.status.lost_open());
            self.engine.begin_walk(everything);
        }
        if !self.pace.is_looking() {
            return;
        }
        let portion = (packets / PACKETS_AN_OPEN_ROW) as usize;
        let most = if portion < 8 { OPEN_ROWS } else { portion.clamp(64, OPEN_ROWS) };
        let more = self.engine.walk_some(most, &mut self.open);
        self.pace.gave(self.open.len());
        if !more {
            self.pace.ends(now, self.engine.counters().flows_active);
        }
    }

    /// Hands rows on, or keeps a bounded number of them for the next burst.
    fn hand_on_rows(&mut self) {
        self.engine.take_transactions(&mut self.transactions);
        let status = self.config.status.clone();
        let queued = status.queued_rows.load(Ordering::Relaxed);
        if queued > MOST_QUEUED_ROWS / 2 {
            // The rest of the queue is for what ends.
            self.lose_open();
        }
        if self.records.is_empty() && self.transactions.is_empty() && self.links.is_empty() && self.open.is_empty() {
            return;
        }
        if queued < MOST_QUEUED_ROWS {
            let batch = RecordBatch {
                netns: self.netns,
                records: std::mem::take(&mut self.records),
                transactions: std::mem::take(&mut self.transactions),
                open: std::mem::take(&mut self.open),
                links: std::mem::take(&mut self.links),
            };
            let open = batch.open.len() as u64;
            // Counted first: the tagger may take it at once.
            let rows = batch.len();
            status.queued_rows.fetch_add(rows as u64, Ordering::Relaxed);
            let Err(mpsc::error::TrySendError::Full(batch) | mpsc::error::TrySendError::Closed(batch)) =
                self.config.records.try_send(batch)
            else {
                status.open.fetch_add(open, Ordering::Relaxed);
                return;
            };
            status.received(rows);
            let RecordBatch { records, transactions, open, links, .. } = batch;
            (self.records, self.transactions, self.open, self.links) = (records, transactions, open, links);
        }
        self.lose_open();
        lose_beyond(MOST_WAITING_ROWS, &mut self.records, &status.lost_slices);
        lose_beyond(MOST_WAITING_ROWS, &mut self.transactions, &status.lost_transactions);
    }

    /// There is no room for what is open: the next look gives everything.
    fn lose_open(&mut self) {
        if !self.open.is_empty() {
            self.config.status.lose_open(self.open.len());
            self.open.clear();
            self.pace.lost();
        }
    }

    /// Hands everything on, and waits for room: nothing more is captured, and nothing that was captured is lost.
    fn hand_on_the_last(&mut self) {
        self.engine.take_transactions(&mut self.transactions);
        let status = self.config.status.clone();
        let mut records = std::mem::take(&mut self.records).into_iter();
        let mut transactions = std::mem::take(&mut self.transactions).into_iter();
        loop {
            let batch = RecordBatch {
                netns: self.netns,
                records: records.by_ref().take(LAST_ROWS).collect(),
                transactions: transactions.by_ref().take(LAST_ROWS).collect(),
                open: Vec::new(),
                links: std::mem::take(&mut self.links),
            };
            let rows = batch.len();
            if rows == 0 && batch.links.is_empty() {
                return;
            }
            status.queued_rows.fetch_add(rows as u64, Ordering::Relaxed);
            if let Err(mpsc::error::SendError(batch)) = self.config.records.blocking_send(batch) {
                status.lost_slices.fetch_add((batch.records.len() + records.len()) as u64, Ordering::Relaxed);
                let left = batch.transactions.len() + transactions.len();
                status.lost_transactions.fetch_add(left as u64, Ordering::Relaxed);
                return;
            }
        }
    }

    fn publish(&self) {
        let mut counters = self.engine.counters().clone();
        counters.flow_memory = self.engine.memory_bytes() as u64;
        counters.kernel_drops = self.kernel_drops;
        counters.queue_drops = self.outbox.dropped;
        let (interfaces, checkpoint) = (self.selected.clone(), self.pace.interval());
        let status = SourceStatus { counters, interfaces, checkpoint };
        self.config.status.publish((self.netns, self.config.number), status);
    }
}

/// Gives up rows that are too many to wait, and counts them.
fn lose_beyond<T>(most: usize, waiting: &mut Vec<T>, lost: &AtomicU64) {
    if waiting.len() > most {
        lost.fetch_add(waiting.len() as u64, Ordering::Relaxed);
        waiting.clear();
    }
}
