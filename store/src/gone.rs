//! Segments of packets that the catalog has and the disk has not: somebody deleted them, a disk was lost, or a backup was without them. Their
//! packets are missing, and that is told until they are back, or too old to be kept.
//!
//! Nobody says when one goes or comes back: whoever asks looks at the disk, every [`AGAIN`] at most. A start notes in the catalog that
//! they take no room ([`crate::recovery`]).

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::Store;
use crate::error::StoreError;
use crate::packets::{Segment, index_path};

/// After so long the disk is looked at again.
const AGAIN: Duration = Duration::from_secs(30);

/// Packets that are missing, because their segments are gone from the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MissingPackets {
    /// Segments, or their indexes.
    pub segments: u64,
    /// Their packets, whatever a query looks for.
    pub packets: u64,
}

/// What the last look saw.
#[derive(Default)]
pub(crate) struct Gone(Mutex<Option<Look>>);

struct Look {
    at: Instant,
    gone: Vec<Segment>,
}

impl Gone {
    /// The disk is looked at when somebody asks next.
    pub(crate) fn look_again(&self) {
        *self.lock() = None;
    }

    fn is_known(&self) -> bool {
        self.lock().as_ref().is_some_and(|look| look.at.elapsed() < AGAIN)
    }

    fn touching(&self, from: i64, to: i64) -> MissingPackets {
        let mut missing = MissingPackets::default();
        let look = self.lock();
        let gone = look.iter().flat_map(|look| &look.gone);
        for segment in gone.filter(|segment| segment.end >= from && segment.start < to) {
            missing.segments += 1;
            missing.packets += segment.packets;
        }
        missing
    }

    fn lock(&self) -> MutexGuard<'_, Option<Look>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// What is missing of all that is kept, as the last look saw it: [`Self::maintain`] looks, and whoever asks a question.
    pub fn packets_gone(&self) -> MissingPackets {
        self.gone.touching(i64::MIN, i64::MAX)
    }

    /// What is missing of `[from, to)`.
    pub(crate) async fn missing_packets(&self, from: i64, to: i64) -> Result<MissingPackets, StoreError> {
        self.look_for_segments().await?;
        Ok(self.gone.touching(from, to))
    }

    /// Looks whether the segments of the catalog are there.
    pub(crate) async fn look_for_segments(&self) -> Result<(), StoreError> {
        if self.gone.is_known() {
            return Ok(());
        }
        let (at, data_dir) = (Instant::now(), self.data_dir.clone());
        let segments = self.catalog.all_segments().await?;
        let work = move || segments.into_iter().filter(|segment| !is_there(&data_dir.join(&segment.path))).collect();
        let looked = tokio::task::spawn_blocking(work).await;
        let mut gone: Vec<Segment> = looked.map_err(|error| StoreError::Task(error.to_string()))?;
        if !gone.is_empty() {
            // What retention or an erasure takes is out of the catalog before it is off the disk.
            let kept = self.catalog.all_segments().await?;
            let kept: HashSet<&str> = kept.iter().map(|segment| segment.path.as_str()).collect();
            gone.retain(|segment| kept.contains(segment.path.as_str()));
        }
        *self.gone.lock() = Some(Look { at, gone });
        Ok(())
    }
}

/// Its packets cannot be read without its index. What cannot be looked at now is not gone.
fn is_there(segment: &Path) -> bool {
    [segment, &index_path(segment)].into_iter().all(|file| file.try_exists().unwrap_or(true))
}
