//! Ageing: flow files and packet segments go, oldest first, when they are too old or all of them are too large. The files
//! of flows and of transactions are one: what is kept of both ends at one time, and one limit of bytes holds for them.
//!
//! Invariants:
//! * a registered file exists: the row goes first, in one transaction with a note to delete the file, and the file goes
//!   [`GRACE`] later, so that a search or export that has begun still finds it; a crash in between loses nothing, the note
//!   is carried out later;
//! * an open segment is never touched;
//! * accounts of loss and closed identity intervals go only when they are older than the oldest flow and packet kept.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::catalog::{Catalog, TableName};
use crate::error::StoreError;
use crate::packets::index_path;

/// How long a file outlives its row.
pub const GRACE: Duration = Duration::from_secs(30);

/// How much to keep; `None` is without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Since the newest row or packet of a file.
    pub age: Option<Duration>,
    /// Bytes of all files together.
    pub bytes: Option<u64>,
}

/// What ageing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retired {
    /// Files of flows and transactions that no longer count.
    pub flow_files: u64,
    /// Their bytes.
    pub flow_bytes: u64,
    /// Segments that no longer count.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Files deleted from the disk.
    pub deleted: u64,
}

/// Something that can go: path, bytes, end.
struct Candidate {
    path: String,
    bytes: u64,
    end: i64,
    fixed: bool,
}

/// Nanoseconds of a duration.
pub(crate) fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Applies the limits at the time `now`.
pub(crate) async fn apply(
    data_dir: &Path,
    catalog: &Catalog,
    (flows, packets): (Retention, Retention),
    now: i64,
) -> Result<Retired, StoreError> {
    let mut retired = Retired::default();
    let segments = catalog.segment_totals().await?;
    let limited = |limit: Retention| limit.age.is_some() || limit.bytes.is_some();
    if limited(flows) {
        let files = catalog.all_flow_files().await?.into_iter();
        let candidates =
            files.map(|file| Candidate { path: file.path, bytes: file.bytes, end: file.end, fixed: false });
        let (paths, bytes) = choose(candidates.collect(), flows, now);
        if !paths.is_empty() {
            catalog.retire(&paths, &paths, now).await?;
        }
        (retired.flow_files, retired.flow_bytes) = (paths.len() as u64, bytes);
    }
    if limited(packets) && segments.files > 0 {
        let segments = catalog.all_segments().await?.into_iter();
        let candidates = segments.map(|segment| Candidate {
            path: segment.path,
            bytes: segment.bytes,
            end: segment.end,
            fixed: !segment.sealed,
        });
        let (paths, bytes) = choose(candidates.collect(), packets, now);
        let indexes = paths.iter().map(|path| index_path(Path::new(path)).to_string_lossy().into_owned());
        let files: Vec<String> = paths.iter().cloned().chain(indexes).collect();
        catalog.retire(&paths, &files, now).await?;
        (retired.segments, retired.segment_bytes) = (paths.len() as u64, bytes);
    }
    if retired.flow_files + retired.segments > 0
        && let Some(oldest) = oldest(catalog).await?
    {
        catalog.expire_before(oldest).await?;
    }
    retired.deleted = delete_due(data_dir, catalog, now.saturating_sub(nanos(GRACE))).await?;
    Ok(retired)
}

/// Time of the oldest flow, transaction or packet that is kept.
pub(crate) async fn oldest(catalog: &Catalog) -> Result<Option<i64>, StoreError> {
    let flows = catalog.totals_of(TableName::Flows).await?;
    let transactions = catalog.totals_of(TableName::Transactions).await?;
    let segments = catalog.segment_totals().await?;
    Ok([flows, transactions, segments].iter().filter_map(|totals| totals.start).min())
}

/// Deletes files whose rows went before `before`.
pub(crate) async fn delete_due(data_dir: &Path, catalog: &Catalog, before: i64) -> Result<u64, StoreError> {
    let due = catalog.due_removals(before).await?;
    let mut gone = Vec::new();
    for path in due {
        let full = data_dir.join(&path);
        match tokio::fs::remove_file(&full).await {
            Ok(()) => {
                remove_empty_parents(data_dir, &full);
                gone.push(path);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => gone.push(path),
            Err(error) => {
                catalog.removed(&gone).await?;
                return Err(StoreError::io("delete", &full)(error));
            }
        }
    }
    catalog.removed(&gone).await?;
    Ok(gone.len() as u64)
}

/// `hour=…` and `date=…` folders go with their last file.
fn remove_empty_parents(data_dir: &Path, file: &Path) {
    for folder in file.ancestors().skip(1).take(2) {
        let dated = folder.file_name().is_some_and(|name| name.as_encoded_bytes().contains(&b'='));
        // Fails, as it should, while anything is in it.
        if !dated || !folder.starts_with(data_dir) || std::fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

fn choose(mut candidates: Vec<Candidate>, limit: Retention, now: i64) -> (Vec<String>, u64) {
    candidates.sort_by(|a, b| a.end.cmp(&b.end).then_with(|| a.path.cmp(&b.path)));
    let mut left: u64 = candidates.iter().map(|candidate| candidate.bytes).sum();
    let cutoff = limit.age.map(|age| now.saturating_sub(nanos(age)));
    let (mut paths, mut bytes) = (Vec::new(), 0);
    for candidate in candidates {
        let old = cutoff.is_some_and(|cutoff| candidate.end < cutoff);
        let large = limit.bytes.is_some_and(|most| left > most);
        if candidate.fixed {
            continue;
        }
        if !old && !large {
            break;
        }
        left -= candidate.bytes;
        bytes += candidate.bytes;
        paths.push(candidate.path);
    }
    (paths, bytes)
}
