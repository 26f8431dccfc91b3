//! The capture worker: one thread a ring. Burst, decode, track, expire, hand on. Several workers of the host's namespace
//! share its traffic by the kernel's symmetric flow hash; each has its own ring and flow table.
//!
//! Every few seconds it also hands on what is open ([`crate::checkpoint`]), a part of it between two bursts.
//!
//! A worker never waits for a later stage before it ends: what does not fit into a queue is counted (`queue_drops` for packets of the
//! packet log, `lost_slices` for flow rows, `lost_transactions`), and the kernel counts what the worker was too slow for. It also never
//! ends because something failed: what can be captured is, the rest is tried again, and [`crate::trouble`] says so meanwhile.

mod inside;
mod status;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc;
use wiretag_capture::flow::{Engine, FlowConfig};
use wiretag_capture::ring::links::{self, Link, LinkKind, LinkWatcher};
use wiretag_capture::ring::{self, Ring, RingConfig, RingError};
use wiretag_capture::{EndReason, FlowRecord, Packet, Transaction};

pub(crate) use self::inside::Inside;
pub(crate) use self::status::CaptureStatus;
use self::status::SourceStatus;
use crate::checkpoint::Pace;
use crate::outbox::{InterfaceNames, Outbox, PacketSender};
use crate::trouble::Stage;

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
    Namespace { path: PathBuf, inside: Arc<Inside> },
}

/// What an interface of another namespace is called.
pub(crate) fn name_inside(name: &str, inode: u64) -> String {
    format!("{name}@{inode}")
}

/// A ring, and what comes of its packets.
pub(crate) struct Worker {
    config: WorkerConfig,
    /// Its number in the status.
    source: u64,
    ring: Ring,
    watcher: Option<LinkWatcher>,
    /// When the interfaces are to be looked at.
    look_at: Option<i64>,
    engine: Engine,
    names: Arc<InterfaceNames>,
    selected: Arc<[Arc<str>]>,
    netns: u64,
    records: Vec<FlowRecord>,
    transactions: Vec<Transaction>,
    open: Vec<FlowRecord>,
    pace: Pace,
    links: Vec<SeenLink>,
    outbox: Outbox,
    /// Interfaces of which the tagger was told: an index may come back as another, and one may change its VRF.
    told: HashMap<u32, SeenLink>,
    /// Interfaces that are gone, since when: their last flows still have their names.
    gone: HashMap<u32, i64>,
    /// Those of them whose flows have not ended, and when they are looked at.
    left: Vec<u32>,
    end_left_at: Option<i64>,
    kernel_drops: u64,
}

/// The network namespace of the thread that looks.
const ENTERED: &str = "/proc/thread-self/ns/net";
/// Flow records, and transactions, that wait at most for room in the queue.
const MOST_WAITING_ROWS: usize = 65_536;
/// Rows in the queue to the tagger at most: its batches are bounded in number, but not all of one size.
const MOST_QUEUED_ROWS: u64 = 262_144;
/// Rows handed on at once at the end.
const LAST_ROWS: usize = 8_192;
/// Open slices handed on after a burst at most: so many when there is little to do, and one for so many packets else.
const OPEN_ROWS: usize = 2_048;
const PACKETS_AN_OPEN_ROW: u64 = 8;
/// The clock may go back so far without consequences, ns.
const STEP: i64 = 1_000_000_000;
/// Packets of an interface that is gone may still come for so long, ns.
const LINGER: i64 = 1_000_000_000;
/// After a failure the interfaces are looked at again after so long, ns; the ring is read again after so long.
const RETRY: i64 = 1_000_000_000;
const PAUSE: Duration = Duration::from_millis(100);
/// Nanoseconds that packets wait at most for their batch to fill: blocks that are made of whole batches need no more copying.
const BATCH_AGE: i64 = 200_000_000;

impl Worker {
    /// Opens the ring.
    pub(crate) fn open(config: WorkerConfig) -> anyhow::Result<Self> {
        let ring_config = config.ring.clone();
        let (ring, netns, watcher) = match &config.scope {
            Scope::Host { .. } => (Ring::open(&ring_config, &[])?, 0, Some(LinkWatcher::open()?)),
            Scope::Namespace { path, inside } => {
                let open = move || (ring::namespace_inode(Path::new(ENTERED)), Ring::open(&ring_config, &[]));
                let (entered, ring) = ring::in_namespace(path, open)?;
                anyhow::ensure!(entered? == inside.inode, "`{}` leads to another namespace by now", path.display());
                (ring?, inside.inode, None)
            }
        };
        let (engine, source) = (Engine::new(config.flow.clone()), config.status.begin());
        let outbox = Outbox::new(config.packets.clone());
        let pace = Pace::new(config.checkpoint);
        let mut worker = Self {
            config,
            source,
            ring,
            watcher,
            look_at: None,
            engine,
            names: Arc::default(),
            selected: Arc::default(),
            netns,
            records: Vec::new(),
            transactions: Vec::new(),
            open: Vec::new(),
            pace,
            links: Vec::new(),
            outbox,
            told: HashMap::new(),
            gone: HashMap::new(),
            left: Vec::new(),
            end_left_at: None,
            kernel_drops: 0,
        };
        worker.select()?;
        worker.publish();
        Ok(worker)
    }

    /// The group of rings that its ring shares the traffic with.
    pub(crate) fn group(&self) -> Option<u16> {
        self.ring.group()
    }

    /// Starts the thread.
    pub(crate) fn start(mut self) -> anyhow::Result<std::thread::JoinHandle<()>> {
        let name = match &self.config.scope {
            Scope::Host { .. } => format!("capture-{}", self.config.number),
            Scope::Namespace { inside, .. } => format!("capture-{}", inside.inode),
        };
        std::thread::Builder::new().name(name).spawn(move || self.run()).context("cannot start the capture thread")
    }

    /// Chooses the interfaces anew and names those that are new.
    fn select(&mut self) -> Result<(), RingError> {
        let chosen: Vec<SeenLink> = match &self.config.scope {
            Scope::Host { patterns } => {
                let links = links::list()?;
                links::select(&links, patterns).into_iter().map(|link| SeenLink::new(link, &links)).collect()
            }
            Scope::Namespace { inside, .. } => {
                let seen = |(index, name): (u32, String)| SeenLink {
                    index,
                    name: name_inside(&name, inside.inode).into(),
                    veth: false,
                    vrf: None,
                };
                inside.interfaces().into_iter().map(seen).collect()
            }
        };
        let indexes: Vec<u32> = chosen.iter().map(|link| link.index).collect();
        self.ring.set_interfaces(&indexes)?;
        // Those that wait have the names of before.
        self.outbox.send();
        for link in &chosen {
            if self.told.get(&link.index) != Some(link) {
                self.engine.rename_interface(link.index, &link.name, &mut self.records);
                Arc::make_mut(&mut self.names).insert(link.index, link.name.clone());
                self.links.push(link.clone());
                self.told.insert(link.index, link.clone());
            }
        }
        self.forget_gone(&chosen);
        self.outbox.names = self.names.clone();
        self.selected = chosen.into_iter().map(|link| link.name).collect();
        Ok(())
    }

    /// Names of interfaces are forgotten when no flow can have them any more.
    fn forget_gone(&mut self, chosen: &[SeenLink]) {
        let is_there = |index: &u32| chosen.iter().any(|own| own.index == *index);
        let (now, flow) = (crate::host::now(), &self.config.flow);
        let longest = flow.tcp_idle_timeout.max(flow.udp_idle_timeout).max(flow.other_idle_timeout);
        let keep = longest.saturating_add(flow.active_timeout);
        for (index, _) in self.told.extract_if(|index, _| !is_there(index)) {
            self.gone.insert(index, now);
            self.left.push(index);
            self.end_left_at.get_or_insert(now.saturating_add(LINGER));
        }
        self.gone.retain(|index, _| !is_there(index));
        self.left.retain(|index| !is_there(index));
        for (index, _) in self.gone.extract_if(|_, since| now.saturating_sub(*since) > keep) {
            self.engine.forget_interface(index);
            Arc::make_mut(&mut self.names).remove(&index);
        }
    }

    /// Ends the flows of interfaces that have been gone for long enough that their last packets have come: whoever has their addresses and
    /// ports next counts from then on, not when the idle timeout is over. Looks once a second at most, for it looks at every flow.
    fn end_left(&mut self, now: i64) {
        if self.end_left_at.is_none_or(|at| now < at) {
            return;
        }
        let waits = |index: &u32| self.gone.get(index).is_some_and(|since| now.saturating_sub(*since) < LINGER);
        let ended: Vec<u32> = self.left.extract_if(.., |index| !waits(index)).collect();
        self.end_left_at = (!self.left.is_empty()).then(|| now.saturating_add(LINGER));
        if !ended.is_empty() {
            self.engine.end_interfaces(&ended, &mut self.records);
        }
    }

    fn run(&mut self) {
        while !self.stopped() {
            self.burst();
        }
        // The last packets are still in the ring: those of a container that lived for a moment may be all there are.
        if let Err(error) = self.read(true) {
            self.config.status.failed(Stage::Capture, &error, crate::host::now());
        }
        self.outbox.send();
        // In parts: the records of a full table at once would take more memory than the table.
        while self.engine.finish_some(EndReason::Shutdown, LAST_ROWS, &mut self.records) {
            self.hand_on_the_last();
        }
        self.hand_on_the_last();
        self.publish();
        self.config.status.end(self.source);
    }

    /// The clock went back: what is open ends, for times behind it mean nothing, and would hold everything up until they come again. That the
    /// engine's time shows it counts, for packets of before may have come after.
    fn begin_anew(&mut self, now: i64) {
        let seconds = self.engine.clock().saturating_sub(now) / 1_000_000_000;
        tracing::warn!(seconds, "the clock went back: open flows end, and begin anew with their next packet");
        self.outbox.send();
        while self.engine.finish_some(EndReason::Shutdown, LAST_ROWS, &mut self.records) {
            self.hand_on_rows();
        }
        self.hand_on_rows();
        self.pace = Pace::new(self.config.checkpoint);
        (self.left, self.end_left_at) = (Vec::new(), None);
        // What failed, and who went, then is in the future now.
        self.look_at = self.look_at.map(|_| now);
        self.gone.values_mut().for_each(|since| *since = now);
    }

    fn stopped(&self) -> bool {
        let gone = match &self.config.scope {
            Scope::Host { .. } => false,
            Scope::Namespace { inside, .. } => inside.is_gone(),
        };
        gone || self.config.stop.load(Ordering::Relaxed)
    }

    /// Chooses the interfaces anew when one has changed. If that fails, those of before stay, and it is tried again after a while.
    fn follow_interfaces(&mut self, now: i64) {
        let has_changed = match (&self.config.scope, &mut self.watcher) {
            (Scope::Namespace { inside, .. }, _) => inside.take_change(),
            // If it cannot be asked, there may be a change.
            (Scope::Host { .. }, watcher) => {
                watcher.as_mut().is_some_and(|own| own.wait(Duration::ZERO).unwrap_or(true))
            }
        };
        if has_changed {
            self.look_at.get_or_insert(now);
        }
        match self.look_at {
            None => self.config.status.works(Stage::Interfaces, now),
            Some(at) if at > now => {}
            Some(_) => {
                let outcome = self.select();
                self.look_at = outcome.is_err().then_some(now + RETRY);
                if let Err(error) = outcome {
                    self.config.status.failed(Stage::Interfaces, &error, now);
                }
            }
        }
    }

    /// Burst, decode, track, expire, hand on.
    fn burst(&mut self) {
        self.follow_interfaces(crate::host::now());
        let before = self.engine.counters().packets;
        let read = self.read(false);
        let now = crate::host::now();
        self.outbox.send_if_older_than(now - BATCH_AGE);
        match read {
            Ok(()) => self.config.status.works(Stage::Capture, now),
            Err(error) => {
                self.config.status.failed(Stage::Capture, &error, now);
                // What fails at once would be tried without end.
                std::thread::park_timeout(PAUSE);
            }
        }
        if self.engine.clock() > now.saturating_add(STEP) {
            self.begin_anew(now);
        }
        self.engine.advance(now, &mut self.records);
        self.end_left(now);
        self.look_at_open(now, self.engine.counters().packets - before);
        self.hand_on_rows();
        self.publish();
    }

    /// Takes in the packets that are ready, or all that are in the ring if there will be no more.
    fn read(&mut self, last: bool) -> Result<(), RingError> {
        let Self { ring, watcher, engine, records, outbox, .. } = self;
        let mut each = |packets: &[Packet<'_>]| {
            engine.burst(packets, records, |packet, flow_id| outbox.push(packet, flow_id));
        };
        if last {
            ring.drain(&mut each)?;
        } else {
            ring.poll(Duration::from_millis(100), watcher.as_ref(), &mut each)?;
        }
        self.kernel_drops = ring.drops()?;
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
        if status.queued_rows() > MOST_QUEUED_ROWS / 2 {
            // The rest of the queue is for what ends.
            self.lose_open();
        }
        if self.records.is_empty() && self.transactions.is_empty() && self.links.is_empty() && self.open.is_empty() {
            return;
        }
        let batch = RecordBatch {
            netns: self.netns,
            records: std::mem::take(&mut self.records),
            transactions: std::mem::take(&mut self.transactions),
            open: std::mem::take(&mut self.open),
            links: std::mem::take(&mut self.links),
        };
        let Err(batch) = status.offer(&self.config.records, batch) else { return };
        let RecordBatch { records, transactions, open, links, .. } = batch;
        (self.records, self.transactions, self.open, self.links) = (records, transactions, open, links);
        self.lose_open();
        if self.records.len() > MOST_WAITING_ROWS {
            status.lose_slices(self.records.len());
            self.records.clear();
        }
        if self.transactions.len() > MOST_WAITING_ROWS {
            status.lose_transactions(self.transactions.len());
            self.transactions.clear();
        }
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
            if batch.len() == 0 && batch.links.is_empty() {
                return;
            }
            status.hand_on(&self.config.records, batch);
        }
    }

    fn publish(&self) {
        let mut counters = self.engine.counters().clone();
        counters.flow_memory = self.engine.memory_bytes() as u64;
        counters.kernel_drops = self.kernel_drops;
        counters.queue_drops = self.outbox.dropped;
        let (interfaces, checkpoint) = (self.selected.clone(), self.pace.interval());
        let status = SourceStatus { counters, interfaces, checkpoint };
        self.config.status.publish(self.source, status);
    }
}
