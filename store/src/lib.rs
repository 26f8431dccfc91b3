//! Keeps flows, transactions, packets and identities in one data directory, and answers questions about them.
//!
//! ```text
//! data/catalog.sqlite     what counts: flow files, segments, identity intervals, losses      [catalog]
//! data/catalog.json       instead: where in PostgreSQL that is                                 [catalog]
//! data/flows/…            Parquet                                                              [tables]
//! data/transactions/…     Parquet                                                              [tables]
//! data/rollups/…          flows added up by minute and hour, Parquet                           [tables::rollup]
//! data/packets/…          pcapng.zst and indexes                                               [packets]
//! data/journal/…          slices that were open, until they have a row                         [journal]
//! data/reserve            room for a full disk                                                 [reserve]
//! data/*.lock             who may write                                                        [lock]
//! ```
//!
//! [`Store`] is the whole of it: [`Store::open`] for those who write, [`Store::open_read_only`] for those who look, also
//! while an appliance is writing.

pub mod catalog;
pub mod csv;
pub mod erase;
pub mod error;
pub mod export;
mod gone;
pub mod journal;
pub mod json;
pub mod limits;
mod lock;
pub mod packets;
pub mod private;
pub mod query;
mod recovery;
mod reserve;
pub mod retention;
mod set_aside;
pub(crate) mod sketch;
pub mod sql;
mod sys;
pub mod tables;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use tables::{Engine, Missing, Range};
use tokio::sync::Mutex;
use tokio::sync::mpsc::Sender;

pub use catalog::{
    Catalog, ErasedCounts, ErasedFile, Erasure, ErasureRequest, ErasureState, FlowFile, Import, ImportState, Loss,
    Moved, Origin, PostgresConfig, RetiredItems, RollupFile, Stored, TableName, Totals,
};
pub use erase::{ErasurePreview, erasure_row, preview_row};
pub use error::StoreError;
pub use export::Selection;
pub use gone::MissingPackets;
pub use journal::Journal;
pub use limits::{LimitReached, QueryLimits};
pub use lock::{DirectoryId, ImportLock};
pub use packets::{Backlog, Compression, PacketLog, PacketLogConfig, PacketLogCounters, Segment};
pub use recovery::Recovery;
pub use retention::{Retention, Retired, RollupAges};
pub use sys::lower_priority;
pub use tables::{FlowRef, FlowStore, Table, TransactionStore};

/// A slice that began so long ago must have ended, ns: the longest slice (60 s) and silence behind it (75 s), and what a row may wait for (90 s).
const OPEN_LIFE: i64 = 230_000_000_000;

/// Who opens the store for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `wiretag run`: one a data directory.
    Appliance,
    /// `wiretag import`: any number, also beside an appliance.
    Importer,
    /// `wiretag erase`, while no appliance runs: it has the place of one.
    Eraser,
}

/// Where the store is and how much it keeps.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The data directory; it is made if it does not exist.
    pub data_dir: PathBuf,
    /// Who opens it.
    pub role: Role,
    /// The catalog is in PostgreSQL. `None`: it is where it was before, in a new data directory in SQLite.
    pub catalog: Option<PostgresConfig>,
    /// How many flows and transactions to keep, together.
    pub flows: Retention,
    /// How many packets to keep.
    pub packets: Retention,
    /// How long to keep roll-ups.
    pub rollups: RollupAges,
}

impl StoreConfig {
    /// Everything is kept, and the catalog is a file in the data directory.
    pub fn new(data_dir: impl Into<PathBuf>, role: Role) -> Self {
        let (flows, packets) = (Retention::default(), Retention::default());
        Self { data_dir: data_dir.into(), role, catalog: None, flows, packets, rollups: RollupAges::default() }
    }
}

/// What [`Store::maintain`] did, and what is kept now.
#[derive(Debug, Default)]
pub struct Maintenance {
    /// Rows that went from memory to a file.
    pub rows_flushed: u64,
    /// What was too old or too much.
    pub retired: Retired,
    /// Why something is still on the disk that is to be deleted; it is tried again.
    pub undeleted: Option<StoreError>,
    /// Files of flows kept.
    pub flows: Totals,
    /// Files of transactions kept.
    pub transactions: Totals,
    /// Segments kept.
    pub packets: Totals,
    /// Time of the oldest flow, transaction or packet that is kept: identities before it may be forgotten.
    pub oldest: Option<i64>,
}

/// What is missing in a range of time.
#[derive(Debug, Clone, Default)]
pub struct Completeness {
    /// What each node saw and lost.
    pub nodes: Vec<Loss>,
    /// What is stored and cannot be read.
    pub unreadable: Missing,
    /// Packets whose segments are gone from the disk.
    pub missing_packets: MissingPackets,
    /// Imports with rows or packets of this time that did not come to their end: killed, stopped, or still going on.
    pub unfinished_imports: u64,
    /// What retention has deleted of these hours: not lost, but not in an answer any more.
    pub retired: RetiredItems,
}

/// Everything under one data directory.
pub struct Store {
    /// Files, identities, losses.
    pub catalog: Catalog,
    /// Flows.
    pub flows: FlowStore,
    /// Transactions.
    pub transactions: TransactionStore,
    data_dir: PathBuf,
    retention: (Retention, Retention),
    rollups: RollupAges,
    /// One process merges flow files: the appliance.
    compacts: bool,
    /// `None`: it only reads.
    role: Option<Role>,
    /// One erasure at a time, with what could not be read.
    erasing: Mutex<erase::Unread>,
    changes: packets::SegmentChanges,
    sql: sql::Shared,
    /// When the last flush began that worked.
    flushed: AtomicI64,
    packets_damaged: AtomicU64,
    gone: gone::Gone,
    _locks: Option<lock::Locks>,
}

/// Segments of the catalog, and files that it does not know.
struct FoundSegments {
    registered: Vec<Segment>,
    unregistered: Vec<String>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store for writing. If nobody else writes, what a crash left is repaired first.
    pub fn open(config: StoreConfig) -> BoxFuture<'static, Result<(Self, Recovery), StoreError>> {
        // Boxed, as other long work: compiled here, see `tables::entries`.
        Box::pin(Self::opened(config))
    }

    async fn opened(config: StoreConfig) -> Result<(Self, Recovery), StoreError> {
        let unwritable = |source| StoreError::Unwritable { path: config.data_dir.clone(), source };
        private::create_dir_all(&config.data_dir).map_err(unwritable)?;
        let data_dir = std::fs::canonicalize(&config.data_dir).map_err(unwritable)?;
        let appliance = config.role == Role::Appliance;
        let mut locks = lock::Locks::take(&data_dir, config.role != Role::Importer).map_err(|error| match error {
            StoreError::Io { source, .. } => unwritable(source),
            other => other,
        })?;
        if appliance {
            reserve::release(&data_dir);
        }
        let catalog = Catalog::open_in(&data_dir, config.catalog.as_ref()).await?;
        // Behind the catalog, by which a directory that was there is known to be the store's.
        private::close_off(&data_dir).map_err(unwritable)?;
        let mut recovery = Recovery::default();
        let engine = Engine::open(&data_dir)?;
        let (flows, transactions) = if locks.is_exclusive() {
            recovery = recovery::recover(&data_dir, &catalog).await?;
            let (flows, repairs) = FlowStore::open(&engine, catalog.clone()).await?;
            recovery.repairs.extend(repairs);
            let (transactions, repairs) = TransactionStore::open(&engine, catalog.clone()).await?;
            recovery.repairs.extend(repairs);
            locks.share(&data_dir)?;
            (flows, transactions)
        } else {
            if config.role != Role::Importer {
                // Nobody else writes segments that are of no import.
                recovery.repairs = recovery::recover_segments(&data_dir, &catalog, &|import| import.is_none()).await?;
            }
            (FlowStore::open_shared(&engine, catalog.clone()), TransactionStore::open_shared(&engine, catalog.clone()))
        };
        if config.role == Role::Importer {
            flows.stand_from_now().await?;
            transactions.stand_from_now().await?;
        }
        if appliance {
            recovery::recover_open(&data_dir, &flows, &mut recovery).await;
        }
        let store = Self {
            catalog,
            flows,
            transactions,
            data_dir,
            retention: (config.flows, config.packets),
            rollups: config.rollups,
            compacts: appliance,
            role: Some(config.role),
            erasing: Mutex::default(),
            changes: packets::SegmentChanges::default(),
            sql: sql::Shared::new()?,
            flushed: AtomicI64::new(i64::MIN),
            packets_damaged: AtomicU64::new(0),
            gone: gone::Gone::default(),
            _locks: Some(locks),
        };
        Ok((store, recovery))
    }

    /// Opens the store for reading: no lock, no repair. Rows that a writer still has in memory are not seen; packets are,
    /// up to its last flush.
    pub fn open_read_only(data_dir: &Path) -> BoxFuture<'_, Result<Self, StoreError>> {
        Box::pin(Self::opened_read_only(data_dir))
    }

    async fn opened_read_only(data_dir: &Path) -> Result<Self, StoreError> {
        let catalog = Catalog::read_in(data_dir).await?;
        let data_dir = std::fs::canonicalize(data_dir).map_err(StoreError::io("open", data_dir))?;
        let engine = Engine::open(&data_dir)?;
        let flows = FlowStore::open_read_only(&engine, catalog.clone());
        let transactions = TransactionStore::open_read_only(&engine, catalog.clone());
        let retention = (Retention::default(), Retention::default());
        let changes = packets::SegmentChanges::default();
        let flushed = AtomicI64::new(i64::MIN);
        Ok(Self {
            catalog,
            flows,
            transactions,
            data_dir,
            retention,
            rollups: RollupAges::default(),
            compacts: false,
            role: None,
            erasing: Mutex::default(),
            changes,
            sql: sql::Shared::new()?,
            flushed,
            packets_damaged: AtomicU64::new(0),
            gone: gone::Gone::default(),
            _locks: None,
        })
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Whether a run of the appliance left open slices behind that no row has: the next start takes them over.
    pub fn has_unrecovered(&self) -> bool {
        self.role.is_none() && journal::generations(&self.data_dir).is_ok_and(|generations| !generations.is_empty())
    }

    /// A packet log that writes here; for a thread of its own.
    pub fn packet_log(&self, config: PacketLogConfig) -> Result<PacketLog, StoreError> {
        if self.catalog.is_read_only() {
            return Err(StoreError::ReadOnly);
        }
        PacketLog::open(&self.data_dir, config, self.changes.clone())
    }

    /// The journal of this run of the appliance; for a thread of its own.
    pub fn journal(&self, now: i64) -> Result<Journal, StoreError> {
        if self.catalog.is_read_only() {
            return Err(StoreError::ReadOnly);
        }
        Journal::open(&self.data_dir, now)
    }

    /// When the last flush by [`Self::maintain`] began that worked: rows appended before are in files.
    pub fn flushed(&self) -> i64 {
        self.flushed.load(Ordering::Relaxed)
    }

    /// Flushes rows, tells the catalog of segments, applies retention at the time `now`. Called every two seconds; each
    /// part is done even if the one before it failed, and the first error is returned.
    pub fn maintain(&self, now: i64) -> BoxFuture<'_, Result<Maintenance, StoreError>> {
        Box::pin(self.maintained(now))
    }

    async fn maintained(&self, now: i64) -> Result<Maintenance, StoreError> {
        let flushed = self.flush().await;
        if flushed.is_ok() {
            self.flushed.store(now, Ordering::Relaxed);
        }
        self.flows.forget_open(now.saturating_sub(OPEN_LIFE)).await;
        let recorded = self.record_segments().await;
        let retired = self.retired(now).await;
        if retired.as_ref().is_ok_and(|(retired, _)| retired.segments > 0) {
            self.gone.look_again();
        }
        let rollups_retired = retention::retire_rollups(&self.catalog, self.rollups, now).await;
        let settled = self.settle_old_erasures(now).await;
        let looked = self.look_for_segments().await;
        let compacted = if self.compacts { self.compact(now).await } else { Ok(()) };
        let (rows_flushed, ()) = (flushed?, recorded?);
        settled?;
        compacted?;
        rollups_retired?;
        looked?;
        let (retired, undeleted) = retired?;
        Ok(Maintenance {
            rows_flushed,
            retired,
            undeleted,
            flows: self.catalog.totals_of(TableName::Flows).await?,
            transactions: self.catalog.totals_of(TableName::Transactions).await?,
            packets: self.catalog.segment_totals().await?,
            oldest: retention::oldest(&self.catalog).await?,
        })
    }

    /// Flushes what is in memory and closes the catalog. The packet log is sealed by its thread before.
    pub fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.closed())
    }

    async fn closed(&self) -> Result<(), StoreError> {
        let flushed = if self.catalog.is_read_only() { Ok(0) } else { self.flush().await };
        let recorded = self.record_segments().await;
        self.catalog.close().await;
        flushed.map(|_| ()).and(recorded)
    }

    /// Flushes both tables, also if one of them fails.
    pub async fn flush(&self) -> Result<u64, StoreError> {
        let (flows, transactions) = (self.flows.flush().await, self.transactions.flush().await);
        Ok(flows? + transactions?)
    }

    async fn compact(&self, now: i64) -> Result<(), StoreError> {
        // So that retention by bytes has more than a few files to choose from.
        let most = self.retention.0.bytes.map_or(u64::MAX, |bytes| bytes / 16);
        let flows = self.flows.compact_within(now, most).await;
        let transactions = self.transactions.compact_within(now, most).await;
        if matches!(flows, Ok(0)) {
            // Without roll-ups questions take longer, and nothing else: it says so itself, and counts it.
            let _ = self.flows.roll_up(now).await;
        }
        flows.and(transactions).map(drop)
    }

    /// Takes the lock of an import of the content with this hash.
    pub fn import_lock(&self, content: &str) -> Result<ImportLock, StoreError> {
        lock::ImportLock::take(&self.data_dir, content)
    }

    /// Takes back what an import stored, so that the same file can be imported again.
    pub async fn retire_import(&self, import: i64, now: i64) -> Result<(), StoreError> {
        self.gone.look_again();
        retention::retire_import(&self.data_dir, &self.catalog, (import, now)).await
    }

    /// Tells the catalog of segments that grew or were sealed.
    pub async fn record_segments(&self) -> Result<(), StoreError> {
        let changes = self.changes.take();
        let recorded = self.catalog.add_segments(&changes).await;
        if recorded.is_err() {
            self.changes.put_back(changes);
        }
        recorded
    }

    /// Segment files that may have packets in `[from, to)`: those of the catalog, and those that a writer has begun and
    /// not yet registered.
    pub async fn segment_files(&self, from: i64, to: i64) -> Result<Vec<PathBuf>, StoreError> {
        let found = self.found_segments().await?;
        let touches = |segment: &Segment| !segment.sealed || segment.end >= from && segment.start < to;
        let wanted = found.registered.into_iter().filter(touches).map(|segment| segment.path);
        Ok(wanted.chain(found.unregistered).map(|path| self.data_dir.join(path)).collect())
    }

    /// The segments there are. One that takes the place of another ([`erase`]) is not among them together with that: what waits to be
    /// deleted is asked for before and after the catalog's list.
    async fn found_segments(&self) -> Result<FoundSegments, StoreError> {
        let on_disk = {
            let data_dir = self.data_dir.clone();
            let listed = tokio::task::spawn_blocking(move || packets::list(&data_dir)).await;
            let listed = listed.map_err(|error| StoreError::Task(error.to_string()))?;
            listed.map_err(StoreError::io("list", &self.data_dir.join(packets::FOLDER)))?
        };
        let mut known: BTreeSet<String> = self.catalog.removals().await?.into_iter().collect();
        let registered = self.catalog.all_segments().await?;
        known.extend(self.catalog.removals().await?);
        known.extend(registered.iter().map(|segment| segment.path.clone()));
        let mut unregistered: Vec<String> = on_disk.into_iter().filter(|path| !known.contains(path)).collect();
        if !unregistered.is_empty() {
            // An erased one that somebody copied back was not begun by a writer, and an index alone is that of a segment that is away.
            let erased = self.catalog.erased_segments().await?;
            unregistered.retain(|path| !erased.contains(path) && self.data_dir.join(path).exists());
        }
        Ok(FoundSegments { registered, unregistered })
    }

    /// Sends packets in `[from, to)` as pcapng; gives their number.
    pub async fn export_pcap(
        &self,
        packets: Selection,
        from: i64,
        to: i64,
        out: Sender<Vec<u8>>,
    ) -> Result<u64, StoreError> {
        self.write_pcap(packets, from, to, export::ChannelWriter(out)).await.map(|(packets, _)| packets)
    }

    /// As [`Store::export_pcap`], into a file or another writer, which comes back.
    pub async fn write_pcap<W: Write + Send + 'static>(
        &self,
        packets: Selection,
        from: i64,
        to: i64,
        mut out: W,
    ) -> Result<(u64, W), StoreError> {
        let segments = self.segment_files(from, to).await?;
        let work = move || export::write_pcap(&segments, &packets, (from, to), &mut out).map(|stats| (stats, out));
        let written = tokio::task::spawn_blocking(work).await.map_err(|error| StoreError::Task(error.to_string()))?;
        let (mut stats, out) = written?;
        if !stats.gone.is_empty() {
            self.gone.look_again();
            // What retention or an erasure takes is out of the catalog before it is off the disk.
            for segment in self.catalog.all_segments().await?.iter().map(|segment| self.data_dir.join(&segment.path)) {
                if stats.gone.contains(&segment) {
                    stats.miss(&segment);
                }
            }
        }
        self.packets_damaged.fetch_add(stats.blocks_damaged + stats.indexes_damaged, Ordering::Relaxed);
        stats.complete().map(|packets| (packets, out))
    }

    /// Blocks and indexes of the packet log that downloads could not read since the start, each as often as it was met.
    pub fn packets_damaged(&self) -> u64 {
        self.packets_damaged.load(Ordering::Relaxed)
    }

    /// What is missing in `[from, to)`, as far as is known; for what roll-ups can answer, rows that they add up are there.
    pub async fn completeness(&self, from: i64, to: i64, rollable: bool) -> Result<Completeness, StoreError> {
        let range = Range { from, to };
        let (flows, transactions) = (self.flows.missing(range).await?, self.transactions.missing(range).await?);
        let rolled = if rollable { self.flows.missing_rolled(range).await? } else { Missing::default() };
        Ok(Completeness {
            nodes: self.catalog.loss(from, to).await?,
            unreadable: flows.and(transactions).and(rolled),
            missing_packets: self.missing_packets(from, to).await?,
            unfinished_imports: self.catalog.unfinished_imports(from, to).await?,
            retired: self.catalog.retired(from, to, rollable).await?,
        })
    }
}
