//! The flow store: rows in memory until the next flush, then in Parquet files that the catalog names.
//!
//! Invariants:
//! * a row is in memory or in a registered file, never in both or neither: readers take memory and the catalog's list
//!   under one lock, and a flush exchanges the one for the other under the same lock;
//! * memory is bounded: what comes when it is full (because files cannot be written) is dropped and counted;
//! * a file that cannot be read is left out of answers and counted, it does not fail them.
//!
//! Searches go from the newest hour back and stop when no older file can change the page.

mod compact;
mod engine;
mod error;
mod files;
mod filter;
mod rows;
mod schema;
mod search;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Mutex, RwLock};
use wiretag_enrich::TaggedFlow;

pub use self::error::FlowError;
pub use self::search::{Bucket, FlowPage, FlowRef, SearchOptions};
use crate::catalog::{Catalog, FlowFile};
use crate::error::StoreError;

/// Rows in memory at most; about a kilobyte each.
const MAX_RECENT: usize = 200_000;

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

/// Counts since the store was opened, and the rows in memory now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlowCounters {
    /// Rows handed to the store.
    pub received: u64,
    /// Rows written to files.
    pub written: u64,
    /// Rows dropped because memory was full.
    pub dropped: u64,
    /// Rows in memory.
    pub recent: u64,
    /// Flushes that failed.
    pub failed_flushes: u64,
    /// Times that a search left a file out because it could not be read.
    pub unreadable_files: u64,
}

#[derive(Debug, Default)]
struct Counts {
    received: AtomicU64,
    written: AtomicU64,
    dropped: AtomicU64,
    recent: AtomicU64,
    failed_flushes: AtomicU64,
    unreadable_files: AtomicU64,
}

/// Rows that no file has yet.
#[derive(Debug, Default)]
struct Recent {
    chunks: Vec<Arc<Vec<TaggedFlow>>>,
    rows: usize,
}

struct Inner {
    data_dir: PathBuf,
    catalog: Catalog,
    recent: RwLock<Recent>,
    /// One writer of files at a time; holds the files that compaction replaced and may delete at a later time.
    writing: Mutex<Vec<compact::Superseded>>,
    engine: engine::Engine,
    counts: Counts,
    max_recent: usize,
}

/// The flow store; clones share it.
#[derive(Clone)]
pub struct FlowStore {
    inner: Arc<Inner>,
}

/// Memory and files at one moment.
struct Snapshot {
    chunks: Vec<Arc<Vec<TaggedFlow>>>,
    files: Vec<FlowFile>,
}

impl FlowStore {
    /// Opens the store in `data_dir`; the sentences say what had to be repaired.
    pub async fn open(data_dir: &Path, catalog: Catalog) -> Result<(Self, Vec<String>), StoreError> {
        Self::open_bounded(data_dir, catalog, MAX_RECENT).await
    }

    /// [`Self::open`] with another bound for the rows in memory.
    pub async fn open_bounded(
        data_dir: &Path,
        catalog: Catalog,
        max_recent: usize,
    ) -> Result<(Self, Vec<String>), StoreError> {
        std::fs::create_dir_all(data_dir).map_err(FlowError::io("create", data_dir))?;
        let store = Self::over(data_dir, catalog, max_recent)?;
        let registered = store.inner.catalog.all_flow_files().await?;
        let dir = store.inner.data_dir.clone();
        let repairs = tokio::task::spawn_blocking(move || files::repair(&dir, &registered)).await;
        Ok((store, repairs.map_err(FlowError::from)??))
    }

    /// For a writer beside another: repairs nothing, so that what the other one is writing stays where it is.
    #[allow(clippy::unused_async, reason = "opens as the writing store does")]
    pub async fn open_shared(data_dir: &Path, catalog: Catalog) -> Result<Self, StoreError> {
        Ok(Self::over(data_dir, catalog, MAX_RECENT)?)
    }

    /// For searches beside a running appliance: repairs and changes nothing, sees what is in files.
    #[allow(clippy::unused_async, reason = "opens as the writing store does")]
    pub async fn open_read_only(data_dir: &Path, catalog: Catalog) -> Result<Self, StoreError> {
        Ok(Self::over(data_dir, catalog, 0)?)
    }

    fn over(data_dir: &Path, catalog: Catalog, max_recent: usize) -> Result<Self, FlowError> {
        let data_dir = std::fs::canonicalize(data_dir).map_err(FlowError::io("open", data_dir))?;
        let inner = Inner {
            engine: engine::Engine::new(&data_dir)?,
            data_dir,
            catalog,
            recent: RwLock::default(),
            writing: Mutex::default(),
            counts: Counts::default(),
            max_recent,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Takes rows; searches see them at once. Rows beyond the bound are dropped and counted.
    pub async fn append(&self, mut flows: Vec<TaggedFlow>) -> Result<(), StoreError> {
        let counts = &self.inner.counts;
        counts.received.fetch_add(flows.len() as u64, Ordering::Relaxed);
        let mut recent = self.inner.recent.write().await;
        let free = self.inner.max_recent.saturating_sub(recent.rows);
        let dropped = flows.len().saturating_sub(free);
        if dropped > 0 {
            flows.truncate(free);
            counts.dropped.fetch_add(dropped as u64, Ordering::Relaxed);
            tracing::warn!(dropped, "flows in memory reached their bound: rows dropped");
        }
        if !flows.is_empty() {
            recent.rows += flows.len();
            recent.chunks.push(Arc::new(flows));
        }
        counts.recent.store(recent.rows as u64, Ordering::Relaxed);
        Ok(())
    }

    /// What happened to the rows: received = written + dropped + recent.
    pub fn counters(&self) -> FlowCounters {
        let counts = &self.inner.counts;
        FlowCounters {
            received: counts.received.load(Ordering::Relaxed),
            written: counts.written.load(Ordering::Relaxed),
            dropped: counts.dropped.load(Ordering::Relaxed),
            recent: counts.recent.load(Ordering::Relaxed),
            failed_flushes: counts.failed_flushes.load(Ordering::Relaxed),
            unreadable_files: counts.unreadable_files.load(Ordering::Relaxed),
        }
    }

    /// Moves the rows in memory to files, one for each hour; on failure they stay. Returns the rows moved.
    pub async fn flush(&self) -> Result<u64, StoreError> {
        let result = self.flush_recent().await;
        if result.is_err() {
            self.inner.counts.failed_flushes.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    async fn flush_recent(&self) -> Result<u64, StoreError> {
        let inner = &self.inner;
        let _one_at_a_time = inner.writing.lock().await;
        let chunks = inner.recent.read().await.chunks.clone();
        if chunks.is_empty() {
            return Ok(0);
        }
        let (dir, taken) = (inner.data_dir.clone(), chunks.clone());
        let written =
            tokio::task::spawn_blocking(move || write_hours(&dir, &taken)).await.map_err(FlowError::from)??;
        let mut recent = inner.recent.write().await;
        let mut moved = Vec::new();
        let mut failed = None;
        for (hour, file) in &written {
            if failed.is_some() {
                // Not registered: the rows stay in memory, the file goes.
                let _ = std::fs::remove_file(inner.data_dir.join(&file.path));
                continue;
            }
            match inner.catalog.add_flow_file(file).await {
                Ok(()) => moved.push(*hour),
                Err(error) => {
                    let _ = std::fs::remove_file(inner.data_dir.join(&file.path));
                    failed = Some(error);
                }
            }
        }
        let rest: Vec<TaggedFlow> = if failed.is_some() {
            let stays = |flow: &&TaggedFlow| !moved.contains(&hour(flow));
            chunks.iter().flat_map(|chunk| chunk.iter()).filter(stays).cloned().collect()
        } else {
            Vec::new()
        };
        let before: usize = chunks.iter().map(|chunk| chunk.len()).sum();
        let rows = before - rest.len();
        recent.rows -= rows;
        // Appends came behind these chunks meanwhile.
        recent.chunks.drain(..chunks.len());
        if !rest.is_empty() {
            recent.chunks.insert(0, Arc::new(rest));
        }
        inner.counts.written.fetch_add(rows as u64, Ordering::Relaxed);
        inner.counts.recent.store(recent.rows as u64, Ordering::Relaxed);
        failed.map_or(Ok(rows as u64), Err)
    }

    async fn snapshot(&self, range: Range) -> Result<Snapshot, StoreError> {
        let recent = self.inner.recent.read().await;
        let files = if range == Range::ALL {
            self.inner.catalog.all_flow_files().await?
        } else {
            self.inner.catalog.flow_files(range.from, range.to).await?
        };
        Ok(Snapshot { chunks: recent.chunks.clone(), files })
    }
}

/// Number of the hour of a row's start.
fn hour(flow: &TaggedFlow) -> i64 {
    flow.record.start.div_euclid(files::HOUR)
}

fn write_hours(data_dir: &Path, chunks: &[Arc<Vec<TaggedFlow>>]) -> Result<Vec<(i64, FlowFile)>, FlowError> {
    let mut hours: BTreeMap<i64, Vec<&TaggedFlow>> = BTreeMap::new();
    for flow in chunks.iter().flat_map(|chunk| chunk.iter()) {
        hours.entry(hour(flow)).or_default().push(flow);
    }
    let mut written: Vec<(i64, FlowFile)> = Vec::new();
    for (hour, mut flows) in hours {
        flows.sort_by_key(|flow| flow.record.start);
        let file = schema::batch(&flows).map_err(FlowError::from).and_then(|batch| files::write(data_dir, &batch));
        match file {
            Ok(file) => written.push((hour, file)),
            Err(error) => {
                for (_, file) in &written {
                    let _ = std::fs::remove_file(data_dir.join(&file.path));
                }
                return Err(error);
            }
        }
    }
    Ok(written)
}
