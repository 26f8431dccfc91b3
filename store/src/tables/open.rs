//! Slices that are still open, as they were seen last: part of every answer until their row comes.
//!
//! * a slice is in an answer once: the row that ends it takes its place under the lock of the rows in memory;
//! * memory is bounded: beyond [`MOST`] further slices are not shown before they end, and that is counted. What is shown
//!   already is brought up to date all the same;
//! * one that was erased is not shown again;
//! * a slice whose row was lost on its way is forgotten in the end ([`FlowStore::forget_open`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use foldhash::fast::RandomState;
use wiretag_enrich::{Tagged, TaggedFlow};

use super::{FlowStore, Range, Table};

/// Open slices in memory at most; about a kilobyte each.
pub(super) const MOST: usize = 65_536;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct OpenRows<R> {
    rows: HashMap<(u64, u64), Arc<Tagged<R>>, RandomState>,
}

impl<R: Table> OpenRows<R> {
    pub(super) fn new() -> Self {
        Self { rows: HashMap::default() }
    }

    /// These have their rows now.
    pub(super) fn ended(&mut self, rows: &[Tagged<R>]) {
        if self.rows.is_empty() {
            return;
        }
        for row in rows {
            self.rows.remove(&place(row));
        }
    }

    /// Those that touch the range.
    pub(super) fn within(&self, range: Range) -> Vec<Arc<Tagged<R>>> {
        let touches = |row: &&Arc<Tagged<R>>| {
            let key = row.record.key();
            key.start < range.to && key.end >= range.from
        };
        self.rows.values().filter(touches).cloned().collect()
    }

    /// These are not shown any more.
    pub(super) fn forget(&mut self, goes: impl Fn(&Tagged<R>) -> bool) {
        self.rows.retain(|_, row| !goes(row));
    }

    /// When the oldest began.
    pub(super) fn oldest(&self) -> Option<i64> {
        self.rows.values().map(|row| row.record.key().start).min()
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}

fn place<R: Table>(row: &Tagged<R>) -> (u64, u64) {
    let key = row.record.key();
    (key.flow_id, key.number)
}

impl FlowStore {
    /// Shows open slices, or newer versions of them. Their rows must not have been appended yet.
    pub async fn show_open(&self, rows: &[Arc<TaggedFlow>]) {
        let mut recent = self.inner.recent.write().await;
        let standing = self.known_standing();
        let open = &mut recent.open.rows;
        let mut hidden = 0;
        for row in rows.iter().filter(|row| standing.takes(row).is_none()) {
            let place = place(row);
            if open.len() < MOST || open.contains_key(&place) {
                open.insert(place, row.clone());
            } else {
                hidden += 1;
            }
        }
        self.inner.counts.open.store(open.len() as u64, Ordering::Relaxed);
        self.inner.counts.hidden.fetch_add(hidden, Ordering::Relaxed);
    }

    /// These are not the primary observation of their packets any more. Gives those that are shown, changed.
    pub async fn demote_open(&self, slices: &[(u64, u32)]) -> Vec<Arc<TaggedFlow>> {
        let mut recent = self.inner.recent.write().await;
        let mut changed = Vec::new();
        for (flow_id, slice) in slices {
            if let Some(row) = recent.open.rows.get_mut(&(*flow_id, u64::from(*slice))) {
                Arc::make_mut(row).record.primary = false;
                changed.push(row.clone());
            }
        }
        changed
    }

    /// Forgets slices that began before this time and must have ended since.
    pub(crate) async fn forget_open(&self, before: i64) {
        let mut recent = self.inner.recent.write().await;
        recent.open.rows.retain(|_, row| row.record.start >= before);
        self.inner.counts.open.store(recent.open.len() as u64, Ordering::Relaxed);
    }
}
