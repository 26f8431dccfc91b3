//! The packets of what was erased.
//!
//! The rows that an erasure took are gone from the answers first; which flows they were of, and when, is kept in the catalog until the
//! packets of these are gone, too. So a crash in between forgets nothing. A segment that is being written is sealed first, and so is what an
//! import left that was killed; one of an import that runs, or one that cannot be sealed now, is waited for: the erasure is tried again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::Store;
use crate::catalog::{Erasure, Import, Origin};
use crate::error::StoreError;
use crate::packets::{self, ErasedSlices, Segment};
use crate::recovery;

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
            self.seal_until(erasure, last.min(clock())).await?;
            let slices = Arc::new(slices);
            for segment in self.catalog.segments(first, last.saturating_add(1)).await? {
                // Whatever is still open begins later, or is of a later import.
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
        let exchanged = self.put_in_place(erasure, (old, new.as_ref()), removed, clock()).await;
        if let (Err(error), Some(new)) = (&exchanged, &new)
            && !error.is_unsettled()
        {
            packets::discard(&self.data_dir, &new.path);
        }
        match exchanged {
            // Retention was faster.
            Err(StoreError::Gone { .. }) => Ok(true),
            exchanged => exchanged.map(|()| true),
        }
    }

    /// Gives what is left of a segment its name, then has it count.
    async fn put_in_place(
        &self,
        erasure: i64,
        (old, new): (&Segment, Option<&Segment>),
        removed: u64,
        now: i64,
    ) -> Result<(), StoreError> {
        if let Some(new) = new {
            // A reader must not take it for a segment that the catalog does not know yet.
            self.catalog.queue_segment(&new.path, now.saturating_add(MOMENT)).await?;
            packets::publish(&self.data_dir, &new.path)?;
        }
        self.catalog.exchange_segment(erasure, (old, new), removed, now).await
    }

    /// Waits until no segment is open that may have packets of this time or before, and of which `erasure` may take some.
    async fn seal_until(&self, erasure: &Erasure, last: i64) -> Result<(), StoreError> {
        self.seal_left(erasure, last).await?;
        let (mut open, mut asked) = (Vec::new(), BTreeSet::new());
        for _ in 0..PATIENCE {
            self.record_segments().await?;
            open = self.open_segments(erasure, last).await?;
            if open.is_empty() {
                return Ok(());
            }
            // Once for each: what does not become sealed by that would not by the next one, which is of new packets.
            let own = open.iter().filter(|(_, origin)| origin.import.is_none());
            if own.filter(|(path, _)| asked.insert(path.clone())).count() > 0 {
                self.changes.want_seal();
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(StoreError::SegmentOpen { path: open.into_iter().next().map(|(path, _)| path).unwrap_or_default() })
    }

    /// Seals what imports left that were killed: nobody else will before the next start.
    async fn seal_left(&self, erasure: &Erasure, last: i64) -> Result<(), StoreError> {
        let open = self.open_segments(erasure, last).await?;
        let imports: BTreeSet<i64> = open.into_iter().filter_map(|(_, origin)| origin.import).collect();
        for import in imports {
            let Some(content) = self.catalog.content_of(import).await? else { continue };
            // Held meanwhile: the next import of the file takes back what this one left.
            let _lock = match self.import_lock(&content) {
                Err(StoreError::Importing) => continue,
                lock => lock?,
            };
            let is_over = |found: Option<i64>| found == Some(import);
            for repair in recovery::recover_segments(&self.data_dir, &self.catalog, &is_over).await? {
                tracing::warn!("{repair}");
            }
        }
        Ok(())
    }

    /// Segments that are being written, may have packets of this time or before, and are of no import that began after the erasure.
    async fn open_segments(&self, erasure: &Erasure, last: i64) -> Result<Vec<(String, Origin)>, StoreError> {
        let found = self.found_segments().await?;
        let open = found.registered.into_iter().filter(|segment| !segment.sealed && segment.start <= last);
        let mut open: Vec<(String, Origin)> = open.map(|segment| (segment.path, segment.origin)).collect();
        if !found.unregistered.is_empty() {
            let imports = self.catalog.imports().await?;
            let origin = |import: i64| {
                let known = imports.iter().find(|known| known.id == import);
                known.map_or(Origin { import: Some(import), stored_at: 0 }, Import::origin)
            };
            open.extend(found.unregistered.into_iter().map(|path| {
                let origin = packets::import_of(&path).map(origin).unwrap_or_default();
                (path, origin)
            }));
        }
        open.retain(|(_, origin)| !origin.is_after(erasure.at));
        Ok(open)
    }
}
