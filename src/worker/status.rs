//! What all workers capture, for metrics, health and completeness: counters, rows on their way, and what fails.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use wiretag_capture::CaptureCounters;

use super::{MOST_QUEUED_ROWS, RecordBatch};
use crate::trouble::{Stage, Troubles};

/// See the module documentation.
#[derive(Default)]
pub(crate) struct CaptureStatus {
    /// By the worker's number, which no other ever has.
    sources: Mutex<HashMap<u64, SourceStatus>>,
    /// Workers that have begun.
    begun: AtomicU64,
    finished: Mutex<CaptureCounters>,
    lost_slices: AtomicU64,
    lost_transactions: AtomicU64,
    /// Open slices that were handed on, and those that found a queue full or could not be written.
    open: AtomicU64,
    lost_open: AtomicU64,
    /// Rows in the queue to the tagger.
    queued_rows: AtomicU64,
    /// Times that something was not captured, nobody knows how much.
    interruptions: AtomicU64,
    troubles: Arc<Troubles>,
}

/// What one worker captures.
#[derive(Default, Clone)]
pub(super) struct SourceStatus {
    pub(super) counters: CaptureCounters,
    pub(super) interfaces: Arc<[Arc<str>]>,
    /// Time between two looks at what is open, ns.
    pub(super) checkpoint: i64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CaptureStatus {
    /// Nothing is captured yet; what fails later is told to `troubles`.
    pub(crate) fn new(troubles: Arc<Troubles>) -> Self {
        Self { troubles, ..Self::default() }
    }

    /// Something cannot be captured at `now`: health says so, and answers about this time are not complete.
    pub(crate) fn failed(&self, stage: Stage, error: &dyn std::fmt::Display, now: i64) {
        self.interruptions.fetch_add(1, Ordering::Relaxed);
        self.troubles.failed(stage, error, now);
    }

    /// It can at `now`.
    pub(crate) fn works(&self, stage: Stage, now: i64) {
        self.troubles.works(stage, 0, now);
    }

    /// Times that something was not captured.
    pub(crate) fn interruptions(&self) -> u64 {
        self.interruptions.load(Ordering::Relaxed)
    }

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

    /// Transactions were lost on their way to the tagger.
    pub(super) fn lose_transactions(&self, rows: usize) {
        self.lost_transactions.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Rows of flows were lost on their way to the tagger.
    pub(crate) fn lose_slices(&self, rows: usize) {
        self.lost_slices.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Hands rows to the tagger, or gives them back if there is no room.
    pub(crate) fn offer(&self, queue: &mpsc::Sender<RecordBatch>, batch: RecordBatch) -> Result<(), RecordBatch> {
        if self.queued_rows() >= MOST_QUEUED_ROWS {
            return Err(batch);
        }
        // Counted first: the tagger may take it at once.
        let (rows, open) = (batch.len(), batch.open.len());
        self.queued_rows.fetch_add(rows as u64, Ordering::Relaxed);
        queue.try_send(batch).map_err(|error| {
            self.received(rows);
            error.into_inner()
        })?;
        self.open.fetch_add(open as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Hands rows to the tagger, and waits for room.
    pub(crate) fn hand_on(&self, queue: &mpsc::Sender<RecordBatch>, batch: RecordBatch) {
        let rows = batch.len();
        self.queued_rows.fetch_add(rows as u64, Ordering::Relaxed);
        if let Err(mpsc::error::SendError(batch)) = queue.blocking_send(batch) {
            self.received(rows);
            self.lose_slices(batch.records.len());
            self.lose_transactions(batch.transactions.len());
        }
    }

    /// Rows in the queue to the tagger.
    pub(super) fn queued_rows(&self) -> u64 {
        self.queued_rows.load(Ordering::Relaxed)
    }

    /// So many rows have left the queue to the tagger.
    pub(crate) fn received(&self, rows: usize) {
        self.queued_rows.fetch_sub(rows as u64, Ordering::Relaxed);
    }

    /// Another worker begins: its number.
    pub(super) fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::Relaxed)
    }

    /// What a worker captures now.
    pub(super) fn publish(&self, source: u64, status: SourceStatus) {
        locked(&self.sources).insert(source, status);
    }

    /// A worker has ended.
    pub(super) fn end(&self, source: u64) {
        if let Some(mut source) = locked(&self.sources).remove(&source) {
            (source.counters.flows_active, source.counters.flow_memory) = (0, 0);
            locked(&self.finished).add(&source.counters);
        }
    }
}
