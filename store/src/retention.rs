//! Ageing: flow files and packet segments go, oldest first, when they are too old or all of them are too large. The files
//! of flows and of transactions are one: what is kept of both ends at one time, and one limit of bytes holds for them.
//!
//! Invariants:
//! * a registered file exists: the row goes first, in one transaction with a note to delete the file, and the file goes
//!   [`GRACE`] later, so that a search or export that has begun still finds it (sooner if what waits to be deleted takes
//!   more than a sixteenth of the limit: the disk counts more); a crash in between loses nothing, the note is carried out
//!   later; a file that cannot be deleted keeps no other one, and is tried again;
//! * rows go when they are due, whether a roll-up adds them up or not: what none has is told of answers from roll-ups, too
//!   ([`crate::catalog::RetiredItems`]);
//! * what was imported is as old as its import, however old its packets are; limits of bytes take it in the same order;
//! * an open segment is never touched;
//! * accounts and closed identity intervals go only when they are older than the oldest flow and packet kept; what was lost is on record for
//!   as long as anything answers about its time, also a roll-up: hour by hour, where nothing else is left, so that it does not grow much.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::Store;
use crate::catalog::{Catalog, RollupFile, TableName, Why};
use crate::error::StoreError;
use crate::packets::{self, SUFFIX, index_path};
use crate::tables::rollup::{DAY, HOUR, MINUTE};

/// How long a file outlives its row.
pub const GRACE: Duration = Duration::from_secs(30);
/// Files that are deleted before the catalog is told.
const TOGETHER: usize = 1_000;

/// How much to keep; `None` is without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Since the newest row or packet of a file, or since its import if that was later.
    pub age: Option<Duration>,
    /// Bytes of all files together.
    pub bytes: Option<u64>,
}

/// How long roll-ups are kept, since their time or their import; `None` is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RollupAges {
    /// Flows by minute; whole days that have a roll-up by hour.
    pub minutes: Option<Duration>,
    /// Flows by hour, and by minute of days that have none.
    pub hours: Option<Duration>,
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

/// What was deleted.
#[derive(Debug, Default)]
pub(crate) struct Deleted {
    /// Files.
    pub(crate) files: u64,
    /// Why the first of those is still there that could not be.
    pub(crate) failed: Option<StoreError>,
}

/// Something that can go: path, bytes, and since when it counts as kept.
struct Candidate {
    path: String,
    bytes: u64,
    since: i64,
    fixed: bool,
}

/// Nanoseconds of a duration.
pub(crate) fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Applies the limits at the time `now`; nothing is deleted yet.
pub(crate) async fn apply(
    catalog: &Catalog,
    (flows, packets): (Retention, Retention),
    now: i64,
) -> Result<Retired, StoreError> {
    let mut retired = Retired::default();
    let segments = catalog.segment_totals().await?;
    let limited = |limit: Retention| limit.age.is_some() || limit.bytes.is_some();
    if limited(flows) {
        let files = catalog.all_flow_files().await?.into_iter();
        let candidates = files.map(|file| Candidate {
            since: file.end.max(file.origin.stored_at),
            path: file.path,
            bytes: file.bytes,
            fixed: false,
        });
        let gone = choose(candidates.collect(), flows, now);
        retire(catalog, &gone, (Why::Retention, now)).await?;
        (retired.flow_files, retired.flow_bytes) = totals(&gone);
    }
    if limited(packets) && segments.files > 0 {
        let segments = catalog.all_segments().await?.into_iter();
        let candidates = segments.map(|segment| Candidate {
            since: segment.end.max(segment.origin.stored_at),
            path: segment.path,
            bytes: segment.bytes,
            fixed: !segment.sealed,
        });
        let gone = choose(candidates.collect(), packets, now);
        retire(catalog, &gone, (Why::Retention, now)).await?;
        (retired.segments, retired.segment_bytes) = totals(&gone);
    }
    if retired.flow_files + retired.segments > 0 {
        expire(catalog).await?;
    }
    Ok(retired)
}

impl Store {
    /// Deletes what is not kept any more, when searches that began before have ended, or where the disk needs the room.
    pub(crate) async fn delete_old(&self, now: i64) -> Result<Deleted, StoreError> {
        let due = delete_due(&self.data_dir, &self.catalog, now.saturating_sub(nanos(GRACE))).await?;
        let pressing = delete_pressing(&self.data_dir, &self.catalog, self.retention, now).await?;
        let replaced =
            [self.flows.delete_replaced(now), self.transactions.delete_replaced(now), self.make_room().await];
        let failed = due.failed.or(pressing.failed).or(replaced.into_iter().find_map(Result::err));
        Ok(Deleted { files: due.files + pressing.files, failed })
    }

    /// Files that compaction replaced go at once when they would take more than the limit.
    async fn make_room(&self) -> Result<(), StoreError> {
        let Some(most) = self.retention.0.bytes else { return Ok(()) };
        let mut bytes = self.flows.superseded_bytes() + self.transactions.superseded_bytes();
        if bytes == 0 {
            return Ok(());
        }
        for table in [TableName::Flows, TableName::Transactions] {
            bytes += self.catalog.totals_of(table).await?.bytes;
        }
        if bytes <= most {
            return Ok(());
        }
        let (flows, transactions) = (self.flows.delete_superseded().await, self.transactions.delete_superseded().await);
        flows.and(transactions)
    }
}

/// Forgets what nothing that is kept asks for.
async fn expire(catalog: &Catalog) -> Result<(), StoreError> {
    let Some(oldest) = oldest(catalog).await? else { return Ok(()) };
    let rolled = catalog.rolled_since().await?;
    catalog.expire_before(oldest, rolled.unwrap_or(oldest).min(oldest)).await
}

/// Roll-ups that are too old go, with those of minutes that they were made of; those of minutes that are part of none, too.
pub(crate) async fn retire_rollups(catalog: &Catalog, ages: RollupAges, now: i64) -> Result<(), StoreError> {
    if ages == RollupAges::default() {
        return Ok(());
    }
    let all = catalog.rollups().await?;
    let days = all.iter().filter(|file| file.width == HOUR);
    let old = |file: &&RollupFile, age: Option<Duration>| {
        // Minutes are as old as their day.
        let end = (file.start.div_euclid(DAY) * DAY).saturating_add(DAY);
        let since = end.max(file.origin.stored_at);
        age.is_some_and(|age| since < now.saturating_sub(nanos(age)))
    };
    let (gone, kept): (Vec<_>, Vec<_>) = days.partition(|day| old(day, ages.hours));
    let of = |days: &[&RollupFile], file: &RollupFile| days.iter().any(|day| file.day.as_ref() == Some(&day.path));
    let alone = |file: &&RollupFile| file.width == MINUTE && file.day.is_none() && old(file, ages.hours);
    let minutes = all.iter().filter(|file| of(&gone, file) || alone(file));
    let files: Vec<(String, u64)> =
        gone.iter().copied().chain(minutes).map(|file| (file.path.clone(), file.bytes)).collect();
    retire(catalog, &files, (Why::Other, now)).await?;
    let days: Vec<&RollupFile> = kept.into_iter().filter(|day| old(day, ages.minutes)).collect();
    let minutes: Vec<RollupFile> = all.iter().filter(|file| !file.gone && of(&days, file)).cloned().collect();
    if !minutes.is_empty() {
        catalog.retire_minutes(&minutes, now).await?;
    }
    if files.is_empty() { Ok(()) } else { expire(catalog).await }
}

/// Takes these files out of the catalog; with a segment goes its index.
async fn retire(catalog: &Catalog, gone: &[(String, u64)], (why, now): (Why, i64)) -> Result<(), StoreError> {
    if gone.is_empty() {
        return Ok(());
    }
    let paths: Vec<String> = gone.iter().map(|(path, _)| path.clone()).collect();
    let segments = paths.iter().filter(|path| path.ends_with(SUFFIX));
    let indexes = segments.map(|path| (index_path(Path::new(path)).to_string_lossy().into_owned(), 0));
    let files: Vec<(String, u64)> = gone.iter().cloned().chain(indexes).collect();
    catalog.retire(&paths, &files, (why, now)).await
}

fn totals(gone: &[(String, u64)]) -> (u64, u64) {
    (gone.len() as u64, gone.iter().map(|(_, bytes)| bytes).sum())
}

/// Takes back what an import stored.
pub(crate) async fn retire_import(
    data_dir: &Path,
    catalog: &Catalog,
    (import, now): (i64, i64),
) -> Result<(), StoreError> {
    // Of a killed import the catalog was not told of all. In a new catalog imports have numbers that others had in the one before.
    let known: HashSet<String> = catalog.all_segments().await?.into_iter().map(|segment| segment.path).collect();
    let mut unknown = packets::list(data_dir).map_err(StoreError::io("list", &data_dir.join(packets::FOLDER)))?;
    unknown.retain(|path| packets::import_of(path) == Some(import) && !known.contains(path));
    catalog.retire_import(import, &unknown, now).await
}

/// Deletes files before their time while they and what is kept take more than the limits allow.
async fn delete_pressing(
    data_dir: &Path,
    catalog: &Catalog,
    (flows, packets): (Retention, Retention),
    now: i64,
) -> Result<Deleted, StoreError> {
    if flows.bytes.is_none() && packets.bytes.is_none() {
        return Ok(Deleted::default());
    }
    let waiting = catalog.waiting_removals(now).await?;
    let (segments, rows): (Vec<_>, Vec<_>) =
        waiting.into_iter().partition(|(path, _)| path.starts_with(packets::FOLDER));
    let tables = [TableName::Flows, TableName::Transactions];
    let mut kept = 0;
    for table in tables {
        kept += catalog.totals_of(table).await?.bytes;
    }
    let kept_packets = catalog.segment_totals().await?.bytes;
    let mut pressing = Vec::new();
    for (waiting, kept, limit) in [(rows, kept, flows.bytes), (segments, kept_packets, packets.bytes)] {
        let Some(limit) = limit else { continue };
        let mut total = kept + waiting.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let mut freed = false;
        for (path, bytes) in waiting {
            // The index of a segment is without bytes and goes with it.
            if total <= limit.saturating_add(limit / 16) && !(freed && bytes == 0) {
                break;
            }
            total -= bytes;
            freed = true;
            pressing.push(path);
        }
    }
    delete(data_dir, catalog, &pressing).await
}

/// Time of the oldest flow, transaction or packet that is kept.
pub(crate) async fn oldest(catalog: &Catalog) -> Result<Option<i64>, StoreError> {
    let flows = catalog.totals_of(TableName::Flows).await?;
    let transactions = catalog.totals_of(TableName::Transactions).await?;
    let segments = catalog.segment_totals().await?;
    Ok([flows, transactions, segments].iter().filter_map(|totals| totals.start).min())
}

/// Deletes files whose rows went before `before`.
pub(crate) async fn delete_due(data_dir: &Path, catalog: &Catalog, before: i64) -> Result<Deleted, StoreError> {
    delete(data_dir, catalog, &catalog.due_removals(before).await?).await
}

async fn delete(data_dir: &Path, catalog: &Catalog, due: &[String]) -> Result<Deleted, StoreError> {
    let mut deleted = Deleted::default();
    for some in due.chunks(TOGETHER) {
        let mut gone = Vec::new();
        for path in some {
            let full = data_dir.join(path);
            match tokio::fs::remove_file(&full).await {
                Ok(()) => {
                    remove_empty_parents(data_dir, &full);
                    gone.push(path.clone());
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => gone.push(path.clone()),
                Err(error) => deleted.failed = deleted.failed.or(Some(StoreError::io("delete", &full)(error))),
            }
        }
        catalog.removed(&gone).await?;
        deleted.files += gone.len() as u64;
    }
    Ok(deleted)
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

/// What goes, with its bytes.
fn choose(mut candidates: Vec<Candidate>, limit: Retention, now: i64) -> Vec<(String, u64)> {
    candidates.sort_by(|a, b| a.since.cmp(&b.since).then_with(|| a.path.cmp(&b.path)));
    let mut left: u64 = candidates.iter().map(|candidate| candidate.bytes).sum();
    let cutoff = limit.age.map(|age| now.saturating_sub(nanos(age)));
    let mut gone = Vec::new();
    for candidate in candidates {
        let old = cutoff.is_some_and(|cutoff| candidate.since < cutoff);
        let large = limit.bytes.is_some_and(|most| left > most);
        if candidate.fixed {
            continue;
        }
        if !old && !large {
            break;
        }
        left -= candidate.bytes;
        gone.push((candidate.path, candidate.bytes));
    }
    gone
}
