//! Small files to larger ones, few times for each row.
//!
//! Files of one hour and of about one size (by powers of eight rows) are merged when there are eight; those of a past
//! hour whatever their size, to one file if that is not too large. [`super::merge`] copies what is large already, so that
//! rows that came many at a time are never encoded again.
//!
//! The catalog exchanges the files in one transaction. The replaced ones are deleted a minute later, so that searches that
//! began before still find them; a list on disk lets a restart finish that. A flush does not wait for a merge.

use std::collections::BTreeMap;

use super::error::TableError;
use super::{Table, TableStore, files, merge};
use crate::catalog::{FlowFile, Origin, TableName};
use crate::error::StoreError;

/// Files of one kind that make a merge worth it.
const MANY: usize = 8;
/// Bytes of a merged file at most.
const MAX_BYTES: u64 = 512 << 20;
/// A file of so many times the bytes of all others stays as it is.
const LATE: u64 = 8;
/// Files that are merged at a time at most.
const MOST: usize = 256;
/// Stands for the size of all files of a past hour.
const PAST: u32 = 0;
/// How long replaced files stay, ns.
const KEEP: i64 = 60_000_000_000;

/// A replaced file.
#[derive(Debug)]
pub(super) struct Superseded {
    path: String,
    since: i64,
    bytes: u64,
}

/// What a run of before replaced, and a start beside another writer did not look after: it stays noted for the next start that is alone.
pub(super) fn left(data_dir: &std::path::Path, table: TableName) -> Vec<Superseded> {
    let left = files::superseded(data_dir, table).into_iter();
    left.map(|path| Superseded { path, since: i64::MAX, bytes: 0 }).collect()
}

impl<R: Table> TableStore<R> {
    /// Merges small files and deletes those replaced earlier; returns the files that went into merges. To be called
    /// every few seconds; does at most one merge.
    pub async fn compact(&self, now: i64) -> Result<u64, StoreError> {
        self.delete_replaced(now)?;
        self.compact_within(now, u64::MAX).await
    }

    /// Deletes files that were replaced long ago, unless files are being exchanged right now.
    pub(crate) fn delete_replaced(&self, now: i64) -> Result<(), StoreError> {
        let Ok(mut superseded) = self.inner.merging.try_lock() else { return Ok(()) };
        Ok(delete_old(self.inner.engine.data_dir(), &mut superseded, now)?)
    }

    /// Merges as [`Self::compact`] does; what is merged has so many bytes at most, so that a small limit of bytes is not one file.
    pub(crate) async fn compact_within(&self, now: i64, most: u64) -> Result<u64, StoreError> {
        let inner = &self.inner;
        // While a large file is erased from or named anew, whoever maintains the store has other things to do: flushes.
        let Ok(mut superseded) = inner.merging.try_lock() else { return Ok(0) };
        // The others are part of a roll-up as they are.
        let all: Vec<FlowFile> = self.readable(inner.catalog.unrolled(R::NAME).await?);
        let Some(chosen) = choose(&all, now, most) else { return Ok(0) };
        let merged = match self.merge(&chosen).await {
            Ok(merged) => merged,
            Err(error) => {
                // The others are merged the next time.
                self.without_unreadable(&chosen, error).await?;
                return Ok(0);
            }
        };
        let paths: Vec<String> = chosen.iter().map(|file| file.path.clone()).collect();
        let pending: Vec<String> = superseded.iter().map(|file| file.path.clone()).chain(paths.clone()).collect();
        files::note_superseded(inner.engine.data_dir(), R::NAME, &pending)?;
        let change = inner.catalog.prepare_replacement(&paths, &merged).await;
        inner.exchange(change, Some(&merged.path)).await?;
        let count = paths.len() as u64;
        let replaced = chosen.iter().map(|file| (file.path.clone(), file.bytes));
        superseded.extend(replaced.map(|(path, bytes)| Superseded { path, since: now, bytes }));
        Ok(count)
    }

    async fn merge(&self, chosen: &[&FlowFile]) -> Result<FlowFile, TableError> {
        let open = self.inner.engine.open_files(chosen).await?;
        let files: Vec<FlowFile> = chosen.iter().copied().cloned().collect();
        let dir = self.inner.engine.data_dir().to_owned();
        tokio::task::spawn_blocking(move || merge::merge_hour::<R>(&dir, &files, &open)).await?
    }

    /// Bytes of replaced files that wait to be deleted, unless files are being exchanged right now.
    pub(crate) fn superseded_bytes(&self) -> u64 {
        let superseded = self.inner.merging.try_lock();
        superseded.map_or(0, |superseded| superseded.iter().map(|file| file.bytes).sum())
    }

    /// Deletes replaced files without waiting: space is short.
    pub(crate) async fn delete_superseded(&self) -> Result<(), StoreError> {
        let mut superseded = self.inner.merging.lock().await;
        Ok(delete_old(self.inner.engine.data_dir(), &mut superseded, i64::MAX)?)
    }
}

fn delete_old(data_dir: &std::path::Path, superseded: &mut Vec<Superseded>, now: i64) -> Result<(), TableError> {
    // What cannot be deleted stays in the list, and is tried again.
    let (mut stay, mut failed) = (Vec::new(), None);
    for file in superseded.drain(..) {
        let path = data_dir.join(&file.path);
        if now.saturating_sub(file.since) < KEEP {
            stay.push(file);
        } else if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            failed = failed.or(Some(TableError::io("delete", &path)(error)));
            stay.push(file);
        }
    }
    *superseded = stay;
    failed.map_or(Ok(()), Err)
}

/// The files of the next merge, all of one origin: the oldest hour first.
fn choose(all: &[FlowFile], now: i64, most: u64) -> Option<Vec<&FlowFile>> {
    let most = most.min(MAX_BYTES);
    let mut groups: BTreeMap<(i64, Origin, u32), Vec<&FlowFile>> = BTreeMap::new();
    for file in all.iter().filter(|file| file.bytes < most) {
        let Some(hour) = files::hour_of(&file.path) else { continue };
        let size = if is_past(hour, now) { PAST } else { file.rows.max(1).ilog2() / 3 + 1 };
        groups.entry((hour, file.origin, size)).or_default().push(file);
    }
    groups.into_iter().find_map(|((_, _, size), mut group)| {
        group.sort_by_key(|file| (file.rows, file.start));
        let mut bytes = 0;
        let fits = |file: &&FlowFile| {
            bytes += file.bytes;
            bytes <= most
        };
        let mut fits: Vec<&FlowFile> = group.into_iter().take_while(fits).take(MOST).collect();
        // A large file is not copied for the sake of a few rows that came late.
        while let [rest @ .., largest] = fits.as_slice()
            && largest.bytes > LATE * rest.iter().map(|file| file.bytes).sum::<u64>()
        {
            fits.pop();
        }
        (fits.len() >= if size == PAST { 2 } else { MANY }).then_some(fits)
    })
}

/// Whether rows of the hour hardly come any more.
fn is_past(hour: i64, now: i64) -> bool {
    hour.saturating_add(files::HOUR) < now.saturating_sub(files::HOUR / 12)
}
