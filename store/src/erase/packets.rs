//! The packets of what was erased.
//!
//! The rows that an erasure took are gone from the answers first; which flows they were of, and when, is kept in the catalog until the
//! packets of these are gone, too. So a crash in between forgets nothing. A segment that is being written is sealed first; one of
//! another process, or one that cannot be sealed now, is waited for: the erasure is tried again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::Store;
use crate::catalog::Erasure;
use crate::error::StoreError;
use crate::packets::{self, ErasedSlices, Segment};

/// Slices whose packets are looked for at a time: some hundred megabytes.
const SLICES: usize = 1 << 20;
/// How long a segment is waited for, and how often it is looked at.
const PATIENCE: u32 = 100;
const LOOK: Duration = Duration::from_millis(100);
/// A segment that is given its name and is in the catalog a moment later, ns: until then it counts as one that is to be deleted.
const MOMENT: i64 = 3_600_000_000_000;

impl Store {
    /// Removes the packets of the rows that an erasure took. Gives the segments that could not be read.
    pub(super) async fn erase_packets(
        &self,
        erasure: &Erasure,
        clock: &(dyn Fn() -> i64 + Sync),
    ) -> Result<BTreeSet<String>, StoreError> {
        let (mut unread, mut done) = (BTreeSet::new(), 0);
        loop {
            let mut slices = ErasedSlices::default();
            while slices.len() < SLICES
                && let Some((id, bytes)) = self.catalog.erased_slices_after(erasure.id, done).await?
            {
                slices.add(&bytes);
                done = id;
            }
            let Some((first, last)) = slices.span() else { return Ok(unread) };
            // No packet is of the future, whatever an exporter says of its flows.
            self.seal_until(last.min(clock())).await?;
            let slices = Arc::new(slices);
            for segment in self.catalog.segments(first, last.saturating_add(1)).await? {
                // Whatever is still open begins later.
                if segment.sealed
                    && !segment.origin.is_after(erasure.at)
                    && !self.erase_in(&segment, &slices, (erasure.id, clock)).await?
                {
                    unread.insert(segment.path);
                }
            }
            // What cannot be read is held against them when it can be.
            if unread.is_empty() {
                self.catalog.forget_slices(erasure.id, done).await?;
            }
        }
    }

    /// False if the segment cannot be read.
    async fn erase_in(
        &self,
        old: &Segment,
        slices: &Arc<ErasedSlices>,
        (erasure, clock): (i64, &(dyn Fn() -> i64 + Sync)),
    ) -> Result<bool, StoreError> {
        let (dir, segment, slices) = (self.data_dir.clone(), old.clone(), slices.clone());
        let work = move || packets::without(&dir, &segment, &slices);
        let found =
            match tokio::task::spawn_blocking(work).await.map_err(|error| StoreError::Task(error.to_string()))? {
                Ok(found) => found,
                Err(error @ (StoreError::Damaged { .. } | StoreError::Io { action: "read" | "open", .. })) => {
                    // Retention may have taken it.
                    let kept = self.catalog.all_segments().await?.iter().any(|segment| segment.path == old.path);
                    if kept {
                        tracing::error!(%error, erasure, "a segment cannot be read: nothing of it is erased");
                    }
                    return Ok(!kept);
                }
                Err(error) => return Err(error),
            };
        let Some((removed, new)) = found else { return Ok(true) };
        if let Some(new) = &new {
            // A reader must not take it for a segment that the catalog does not know yet.
            self.catalog.queue_segment(&new.path, clock().saturating_add(MOMENT)).await?;
            packets::publish(&self.data_dir, &new.path)?;
        }
        match self.catalog.exchange_segment(erasure, (old, new.as_ref()), removed, clock()).await {
            // Retention was faster; what was written is deleted by and by.
            Err(StoreError::Gone { .. }) => Ok(true),
            exchanged => exchanged.map(|()| true),
        }
    }

    /// Waits until no segment is open that may have packets of this time or before.
    async fn seal_until(&self, last: i64) -> Result<(), StoreError> {
        let mut open = Vec::new();
        for _ in 0..PATIENCE {
            self.record_segments().await?;
            open = self.open_segments(last).await?;
            if open.is_empty() {
                return Ok(());
            }
            self.changes.want_seal();
            tokio::time::sleep(LOOK).await;
        }
        Err(StoreError::SegmentOpen { path: open.into_iter().next().unwrap_or_default() })
    }

    /// Segments that are being written and may have packets of this time or before.
    async fn open_segments(&self, last: i64) -> Result<Vec<String>, StoreError> {
        let found = self.found_segments().await?;
        let begun = found.unregistered.into_iter();
        let open = found.registered.into_iter().filter(|segment| !segment.sealed && segment.start <= last);
        Ok(begun.chain(open.map(|segment| segment.path)).collect())
    }
}
