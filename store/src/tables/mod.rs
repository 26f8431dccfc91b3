//! The stores of flows and of transactions: one implementation, [`TableStore`], over what a [`Table`] says of its rows.
//! Rows are in memory until the next flush, then in Parquet files that the catalog names. Beside them, memory has the slices
//! of flows that are still open ([`open`]).
//!
//! Invariants:
//! * a row is in memory or in a registered file, never in both or neither: readers take memory and the catalog's list
//!   under one lock, and a flush exchanges the one for the other under the same lock. So it is with an open slice and its
//!   row: each answer has the one or the other;
//! * a catalog that is slow, away or being written by somebody else holds up flushes, and neither rows that come nor searches. So locks are
//!   taken in this order: `writing` or `merging`, `rolling`, the catalog's one connection for writing, memory; who has memory waits for nothing
//!   but its commit, and for readings of the catalog, which have connections of their own;
//! * memory is bounded: [`TableStore::append`] writes files when it is full, and waits for that; only if they cannot be
//!   written what comes is dropped, counted, and an error;
//! * a file that cannot be read is left out of answers, counted and told with them ([`TableStore::missing`]); it does not fail them.
//!
//! Searches go from the newest hour back and stop when no older file can change the page.

pub(crate) mod aggregate;
mod cells;
mod columns;
mod compact;
mod counters;
mod dictionary;
mod encode;
mod engine;
mod entries;
mod erase;
mod error;
mod explain;
mod export;
mod files;
mod flows;
mod flush;
mod hybrid;
mod ipfix;
mod merge;
mod named;
mod observed;
mod open;
pub(crate) mod provider;
mod recover;
mod retag;
mod rewrite;
pub(crate) mod rollup;
mod rows;
mod scan;
mod schema;
mod sealed;
mod search;
mod standing;
mod sums;
mod unreadable;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use datafusion::arrow::array::RecordBatch;
use tokio::sync::{Mutex, Notify, RwLock, RwLockWriteGuard};
use wiretag_capture::{FlowRecord, Transaction};
use wiretag_enrich::{Record, Tagged};

pub use self::aggregate::{
    AggregateAnswer, AggregateRequest, Bucket, GroupRow, Histogram, ServedBy, TransactionBucket,
};
use self::counters::Counts;
pub use self::counters::TableCounters;
use self::engine::Condition;
pub use self::engine::Engine;
use self::entries::Entries;
pub use self::erase::Erasable;
pub use self::error::TableError;
pub use self::explain::{ExplainRequest, Explanation};
pub use self::export::{ExportFormat, ExportOptions};
pub(crate) use self::files::{Id as FileId, id as file_id};
pub use self::flows::{FlowRef, Slices};
pub use self::observed::Work;
use self::open::OpenRows;
pub use self::retag::Retagging;
pub use self::rows::Row;
pub use self::search::{Page, SearchOptions};
use self::standing::Standing;
pub use self::unreadable::Missing;
use crate::catalog::{Catalog, Change, FlowFile, Origin, RollupFile, TableName};
use crate::error::StoreError;
use crate::query::{Query, RowFilter};

/// What a store must know of the rows that it keeps.
pub trait Table: Record + Entries {
    /// Its name: in the catalog, and of its directory.
    const NAME: TableName;
    /// The column with the number that tells rows of one flow apart.
    const NUMBER: &'static str;

    /// When a row was, where it stands, and whether it counts.
    fn key(&self) -> RowKey;
    /// Rows with one of these lie together in files: who was asked, and by whom.
    fn ends(&self) -> Ends;
    /// What a filter says of rows of this table.
    fn permitted(filter: &RowFilter) -> &Query<Self>;
}

/// See [`Table::key`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowKey {
    /// First packet, ns since the epoch.
    pub start: i64,
    /// Last packet.
    pub end: i64,
    /// Flow.
    pub flow_id: u64,
    /// Number in the flow.
    pub number: u64,
    /// Counts in totals.
    pub primary: bool,
}

/// See [`Table::ends`].
pub type Ends = (IpAddr, Option<u16>, IpAddr);

impl Table for FlowRecord {
    const NAME: TableName = TableName::Flows;
    const NUMBER: &'static str = "slice";

    fn key(&self) -> RowKey {
        let Self { start, end, flow_id, primary, .. } = *self;
        RowKey { start, end, flow_id, number: self.slice.into(), primary }
    }

    fn ends(&self) -> Ends {
        (self.server.ip, self.server.port, self.client.ip)
    }

    fn permitted(filter: &RowFilter) -> &Query<Self> {
        &filter.flows
    }
}

impl Table for Transaction {
    const NAME: TableName = TableName::Transactions;
    const NUMBER: &'static str = "exchange";

    fn key(&self) -> RowKey {
        let Self { flow_id, primary, .. } = *self;
        let (start, end) = (self.exchange.start, self.exchange.end);
        RowKey { start, end, flow_id, number: self.number.into(), primary }
    }

    fn ends(&self) -> Ends {
        (self.server_ip, self.server_port, self.client_ip)
    }

    fn permitted(filter: &RowFilter) -> &Query<Self> {
        &filter.transactions
    }
}

/// The store of flows.
pub type FlowStore = TableStore<FlowRecord>;
/// The store of transactions.
pub type TransactionStore = TableStore<Transaction>;

/// Rows of a table in memory at most; about a kilobyte each.
const MAX_RECENT: usize = 200_000;

/// Rows in memory that are looked at in one go.
const TURN: usize = 1_000;
/// How often files are listed without holding up the rows that come, before they are held up.
const UNLOCKED: usize = 4;

/// `[from, to)`, ns since the epoch: rows whose `[start, end]` touches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First ns.
    pub from: i64,
    /// First ns after.
    pub to: i64,
}

impl Range {
    /// All times.
    pub const ALL: Self = Self { from: i64::MIN, to: i64::MAX };
}

/// Rows that no file has yet.
#[derive(Debug)]
struct Recent<R> {
    chunks: Vec<Arc<Vec<Tagged<R>>>>,
    /// Rows that came when they had been erased: in no answer, and counted by the next flush.
    erased: Vec<Arc<Vec<Tagged<R>>>>,
    /// Rows of both.
    rows: usize,
    open: OpenRows<R>,
    /// How often the files that go with them were exchanged, or began to be.
    exchanges: u64,
}

impl<R: Table> Recent<R> {
    fn new() -> Self {
        Self { chunks: Vec::new(), erased: Vec::new(), rows: 0, open: OpenRows::new(), exchanges: 0 }
    }

    /// Takes rows.
    fn put(&mut self, mut rows: Vec<Tagged<R>>, standing: &Standing<R>) {
        self.rows += rows.len();
        let erased: Vec<_> = rows.extract_if(.., |row| standing.takes(row).is_some()).collect();
        for (rows, chunks) in [(rows, &mut self.chunks), (erased, &mut self.erased)] {
            if !rows.is_empty() {
                chunks.push(Arc::new(rows));
            }
        }
    }

    /// What is in memory now, with these files.
    fn with(&self, range: Range, files: Vec<FlowFile>) -> Snapshot<R> {
        Snapshot { chunks: self.chunks.clone(), open: self.open.within(range), files }
    }
}

struct Inner<R: 'static> {
    catalog: Catalog,
    recent: RwLock<Recent<R>>,
    /// One flush at a time.
    writing: Mutex<()>,
    /// One merge at a time; holds the files that were replaced and may be deleted at a later time.
    merging: Mutex<Vec<compact::Superseded>>,
    engine: Arc<Engine>,
    /// One roll-up at a time.
    rolling: Mutex<rollup::Rolling>,
    counts: Counts,
    max_recent: usize,
    /// Told when memory is half full.
    pressed: Notify,
    /// The last flush failed: appends do not try again, the next flush does.
    failing: AtomicBool,
    /// Of the rows in memory.
    origin: std::sync::Mutex<Origin>,
    /// Files that cannot be read.
    unreadable: unreadable::Unreadable,
    /// What rows are held against before they come to a file.
    standing: std::sync::RwLock<Arc<Standing<R>>>,
}

impl<R> Inner<R> {
    /// Makes a change of the catalog count that exchanges files for the one at `new`, if there is one. Who reads sees the files before or after,
    /// with the memory of the same moment. A file that does not count goes.
    async fn exchange(&self, change: Result<Change, StoreError>, new: Option<&str>) -> Result<(), StoreError> {
        let exchanged = match change {
            Ok(change) => {
                let _memory = self.exchanging().await;
                change.commit().await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &exchanged {
            self.remove_new(error, new);
        }
        exchanged
    }

    /// Deletes files of a change that failed. What counts after all stays: if it does not, the next start deletes it, or sets it aside.
    fn remove_new<'a>(&self, error: &StoreError, new: impl IntoIterator<Item = &'a str>) {
        if !error.is_unsettled() {
            for path in new {
                let _ = std::fs::remove_file(self.engine.data_dir().join(path));
            }
        }
    }

    /// The memory, for who exchanges files of the catalog, or rows for files: nobody who looked before takes both for one moment.
    async fn exchanging(&self) -> RwLockWriteGuard<'_, Recent<R>> {
        let mut recent = self.recent.write().await;
        recent.exchanges += 1;
        recent
    }
}

/// The store of one table; clones share it.
#[derive(Clone)]
pub struct TableStore<R: 'static> {
    inner: Arc<Inner<R>>,
}

/// Memory and files at one moment.
struct Snapshot<R> {
    chunks: Vec<Arc<Vec<Tagged<R>>>>,
    open: Vec<Arc<Tagged<R>>>,
    files: Vec<FlowFile>,
}

/// What was added up, and of which files.
#[derive(Default)]
struct Rolled {
    rollups: Vec<RollupFile>,
    of: HashMap<String, String>,
}

impl<R> Snapshot<R> {
    /// What is in memory: rows and open slices.
    fn memory(&self) -> impl Iterator<Item = &Tagged<R>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).chain(self.open.iter().map(|row| &**row))
    }
}

impl<R: Table> Snapshot<R> {
    /// The rows in memory that pass. Others have their turn in between, also whoever gives up.
    async fn matching(&self, condition: &Condition<R>) -> Vec<&Tagged<R>> {
        let mut matching = Vec::new();
        for (row, number) in self.memory().zip(1_usize..) {
            if condition.matches(row) {
                matching.push(row);
            }
            if number.is_multiple_of(TURN) {
                tokio::task::yield_now().await;
            }
        }
        matching
    }
}

impl<R: Table> TableStore<R> {
    /// Opens the store; the sentences say what had to be repaired.
    pub async fn open(engine: &Arc<Engine>, catalog: Catalog) -> Result<(Self, Vec<String>), StoreError> {
        Self::open_bounded(engine, catalog, MAX_RECENT).await
    }

    /// [`Self::open`] with another bound for the rows in memory.
    pub async fn open_bounded(
        engine: &Arc<Engine>,
        catalog: Catalog,
        max_recent: usize,
    ) -> Result<(Self, Vec<String>), StoreError> {
        let store = Self::over(engine, catalog, (max_recent, Vec::new()));
        let registered = store.inner.catalog.files_of(R::NAME).await?;
        let (dir, waiting) = (engine.data_dir().to_owned(), store.inner.catalog.removals().await?);
        let repair = move || files::repair(&dir, R::NAME, (&registered, &waiting)).map(|found| (found, registered));
        let ((repairs, unreadable), registered) =
            tokio::task::spawn_blocking(repair).await.map_err(TableError::from)??;
        for file in registered.iter().filter(|file| unreadable.contains(&file.path)) {
            store.leave_out(file, &"it was not to be read at the start");
        }
        Ok((store, repairs))
    }

    /// For a writer beside another: repairs nothing, so that what the other one is writing stays where it is.
    pub fn open_shared(engine: &Arc<Engine>, catalog: Catalog) -> Self {
        let left = compact::left(engine.data_dir(), R::NAME);
        Self::over(engine, catalog, (MAX_RECENT, left))
    }

    /// For searches beside a running appliance: repairs and changes nothing, sees what is in files.
    pub fn open_read_only(engine: &Arc<Engine>, catalog: Catalog) -> Self {
        Self::over(engine, catalog, (0, Vec::new()))
    }

    fn over(
        engine: &Arc<Engine>,
        catalog: Catalog,
        (max_recent, superseded): (usize, Vec<compact::Superseded>),
    ) -> Self {
        let inner = Inner {
            engine: engine.clone(),
            catalog,
            recent: RwLock::new(Recent::new()),
            writing: Mutex::default(),
            merging: Mutex::new(superseded),
            rolling: Mutex::default(),
            counts: Counts::default(),
            max_recent,
            pressed: Notify::new(),
            failing: AtomicBool::new(false),
            origin: std::sync::Mutex::default(),
            unreadable: unreadable::Unreadable::default(),
            standing: std::sync::RwLock::new(Arc::new(Standing::new())),
        };
        Self { inner: Arc::new(inner) }
    }

    async fn appended(&self, mut rows: Vec<Tagged<R>>) -> Result<(), StoreError> {
        let inner = &self.inner;
        inner.counts.received.fetch_add(rows.len() as u64, Ordering::Relaxed);
        loop {
            rows = self.take(rows).await;
            if rows.is_empty() {
                return Ok(());
            }
            let flushed = match inner.max_recent {
                0 => Err(StoreError::ReadOnly),
                _ if inner.failing.load(Ordering::Relaxed) => Err(StoreError::MemoryFull { table: R::NAME }),
                _ => self.flush().await,
            };
            if let Err(error) = flushed {
                inner.counts.dropped.fetch_add(rows.len() as u64, Ordering::Relaxed);
                return Err(error);
            }
        }
    }

    /// Takes as many rows as memory has room for; gives the rest back.
    async fn take(&self, mut rows: Vec<Tagged<R>>) -> Vec<Tagged<R>> {
        let inner = &self.inner;
        let mut recent = inner.recent.write().await;
        let free = inner.max_recent.saturating_sub(recent.rows);
        let rest = rows.split_off(free.min(rows.len()));
        if !rows.is_empty() {
            recent.open.ended(&rows);
            inner.counts.open.store(recent.open.len() as u64, Ordering::Relaxed);
            // Known while nothing else has the memory: what an erasure does not find here is held against it.
            recent.put(rows, &self.known_standing());
        }
        inner.counts.recent.store(recent.rows as u64, Ordering::Relaxed);
        if recent.rows >= inner.max_recent / 2 {
            inner.pressed.notify_one();
        }
        rest
    }

    /// Waits until memory is half full: a good time for [`Self::flush`].
    pub async fn pressed(&self) {
        self.inner.pressed.notified().await;
    }

    /// Where the rows to come are from. Those in memory must have been flushed.
    pub fn set_origin(&self, origin: Origin) {
        *self.inner.origin.lock().unwrap_or_else(PoisonError::into_inner) = origin;
    }

    /// What happened to the rows: received = written + dropped + erased + recent.
    pub fn counters(&self) -> TableCounters {
        self.inner.counts.now()
    }

    async fn snapshot(&self, range: Range) -> Result<Snapshot<R>, StoreError> {
        Ok(self.snapshot_with(range, false).await?.0)
    }

    /// What answers are made of: without the files that are known to be unreadable, and with the roll-ups if they are wanted.
    async fn answerable(&self, range: Range, rolled: bool) -> Result<(Snapshot<R>, Rolled), StoreError> {
        let (snapshot, rolled) = self.snapshot_with(range, rolled).await?;
        Ok((Snapshot { files: self.readable(snapshot.files), ..snapshot }, rolled))
    }

    /// As [`Self::snapshot`], with the roll-ups if they are wanted.
    async fn snapshot_with(&self, range: Range, rolled: bool) -> Result<(Snapshot<R>, Rolled), StoreError> {
        // Rows that come do not wait for a catalog that is slow or away.
        for _ in 0..UNLOCKED {
            let before = self.inner.recent.read().await.exchanges;
            let (rolled, files) = self.listed(range, rolled).await?;
            let recent = self.inner.recent.read().await;
            if recent.exchanges == before {
                return Ok((recent.with(range, files), rolled));
            }
        }
        let recent = self.inner.recent.read().await;
        let (rolled, files) = self.listed(range, rolled).await?;
        Ok((recent.with(range, files), rolled))
    }

    async fn listed(&self, range: Range, rolled: bool) -> Result<(Rolled, Vec<FlowFile>), StoreError> {
        if rolled { self.rolled(range).await } else { Ok((Rolled::default(), self.files(range).await?)) }
    }

    async fn files(&self, range: Range) -> Result<Vec<FlowFile>, StoreError> {
        if range == Range::ALL {
            self.inner.catalog.files_of(R::NAME).await
        } else {
            self.inner.catalog.flow_files(R::NAME, range.from, range.to).await
        }
    }

    /// Files, roll-ups and what they are of, as of one moment: all are read again until nothing came between.
    async fn rolled(&self, range: Range) -> Result<(Rolled, Vec<FlowFile>), StoreError> {
        let mut rollups = self.inner.catalog.rollups().await?;
        loop {
            let (of, files) = (self.inner.catalog.rolled().await?, self.files(range).await?);
            let again = self.inner.catalog.rollups().await?;
            if again == rollups {
                return Ok((Rolled { rollups, of }, files));
            }
            rollups = again;
        }
    }
}

/// Rows in the columns of the table's files.
pub(crate) fn batch<R: Table>(rows: &[&Tagged<R>]) -> Result<RecordBatch, TableError> {
    Ok(schema::batch(schema::schema::<R>(), rows)?)
}
