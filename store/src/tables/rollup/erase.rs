//! Erasure where only roll-ups are left: the flows themselves went with retention.
//!
//! Of flows that are still there nothing has to be done here: the roll-ups that add them up were dropped with their files, and are
//! made again. Of the others rows of a roll-up go if the condition asks for nothing but what makes a row of it, and only whole
//! minutes or hours. Whatever else may add up something of what is erased is counted, in minutes: it cannot be taken out.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use datafusion::arrow::array::{BooleanArray, RecordBatch};
use datafusion::arrow::compute::filter_record_batch;
use wiretag_capture::FlowRecord;

use super::serve::is_dimension;
use super::write::{Place, Writing};
use super::{DAY, HOUR, MINUTE, schema};
use crate::catalog::{Erasure, RollupFile};
use crate::error::StoreError;
use crate::query::ast::Node;
use crate::tables::aggregate::{passing, starts};
use crate::tables::{FlowStore, Range, Rolled, TableError, files, standing};

/// A flow that begins before the range may reach into it by so much, ns: the longest slice, twice.
const REACH: i64 = 2 * MINUTE;

/// What an erasure does to a roll-up.
struct Decided {
    /// Of the rows of each batch whether they stay, if any goes.
    stays: Option<Vec<BooleanArray>>,
    /// Minutes or hours with rows of which it cannot be told.
    unsure: BTreeSet<i64>,
}

impl FlowStore {
    /// Takes rows out of roll-ups whose flows are gone. Gives the minutes that could not be checked, and the files that could
    /// not be read.
    pub(crate) async fn erase_rolled(
        &self,
        erasure: &Erasure,
        clock: &(dyn Fn() -> i64 + Sync),
    ) -> Result<(u64, BTreeSet<String>), StoreError> {
        let condition = standing::condition::<FlowRecord>(erasure)?;
        let (mut unchecked, mut unread) = (0, BTreeSet::new());
        let mut no_rollup = self.inner.rolling.lock().await;
        no_rollup.forget_begun();
        for old in lasting(&self.rolled(condition.range).await?.0, condition.range) {
            let (dir, file) = (self.inner.engine.data_dir().to_owned(), old.clone());
            let (node, range) = (condition.node.clone(), condition.range);
            let work = move || -> Result<_, TableError> {
                let decided = decide(&dir.join(&file.path), file.width, (&node, range))?;
                let place = (file.width, file.start, file.origin);
                let new =
                    decided.stays.map(|stays| write_rest(&dir, &file.path, (stays.as_slice(), place))).transpose()?;
                Ok((new, decided.unsure))
            };
            let (new, unsure) = match tokio::task::spawn_blocking(work).await.map_err(TableError::from)? {
                Ok(decided) => decided,
                Err(error @ TableError::Write { .. }) => return Err(error.into()),
                Err(error) => {
                    tracing::error!(%error, erasure = erasure.id, "a roll-up cannot be read: nothing of it is erased");
                    unread.insert(old.path);
                    continue;
                }
            };
            // The hours of a day say it for its minutes, too.
            if old.day.is_none() {
                unchecked += unsure.len() as u64 * (old.width / MINUTE).cast_unsigned();
            }
            let Some(new) = new else { continue };
            let change = self.inner.catalog.prepare_rolled(erasure.id, (&old, &new), clock()).await;
            match self.inner.exchange(change, Some(&new.path)).await {
                // Retention was faster.
                Ok(()) | Err(StoreError::Gone { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((unchecked, unread))
    }
}

/// The roll-ups that touch the range and cannot be made again: not all flows are there that they, or the others of their day,
/// add up.
fn lasting(rolled: &Rolled, range: Range) -> Vec<RollupFile> {
    let mut kept: HashMap<&str, u64> = HashMap::new();
    for rollup in rolled.of.values() {
        *kept.entry(rollup.as_str()).or_default() += 1;
    }
    let whole = |file: &RollupFile| kept.get(file.path.as_str()) == Some(&file.files);
    let minutes = || rolled.rollups.iter().filter(|file| file.width == MINUTE);
    let parts: BTreeSet<&str> = minutes().filter(|file| !whole(file)).filter_map(|file| file.day.as_deref()).collect();
    let lasts = |file: &&RollupFile| {
        let (length, day) =
            if file.width == MINUTE { (HOUR, file.day.as_deref()) } else { (DAY, Some(file.path.as_str())) };
        let touches = file.start < range.to && file.start.saturating_add(length).saturating_add(REACH) > range.from;
        let orphan = file.width != MINUTE && !minutes().any(|part| part.day.as_ref() == Some(&file.path));
        let last = day.is_some_and(|day| parts.contains(day)) || orphan || (file.width == MINUTE && !whole(file));
        touches && last && !file.gone
    };
    rolled.rollups.iter().filter(lasts).cloned().collect()
}

/// The rows of a file, some at a time: it may have more than fit in memory.
fn batches(path: &Path) -> Result<impl Iterator<Item = Result<RecordBatch, TableError>>, TableError> {
    let unreadable = |source| TableError::Read { path: path.to_owned(), source };
    let reader = files::reader(path)?.build().map_err(unreadable)?;
    Ok(reader.map(|batch| Ok(RecordBatch::try_new(schema::<FlowRecord>(), batch?.columns().to_vec())?)))
}

fn decide(path: &Path, width: i64, (node, range): (&Node<FlowRecord>, Range)) -> Result<Decided, TableError> {
    let near = Range { from: range.from.saturating_sub(REACH.max(width)), to: range.to };
    let mut decidable = true;
    node.each_field(&mut |field| decidable &= is_dimension(field));
    // What is not known of a row may be.
    let node = if decidable { node } else { &Node::All };
    let inside = |start: i64| start >= range.from && start.saturating_add(width) <= range.to;
    let reaches = |start: i64| start.saturating_add(width).saturating_add(REACH) > range.from;
    let (mut all, mut gone, mut unsure) = (Vec::new(), false, BTreeSet::new());
    for batch in batches(path)? {
        let batch = batch?;
        let may_go = passing(node, near, &batch)?;
        let times = starts(&batch)?;
        let time = |row: u32| times.get(row as usize).copied().unwrap_or_default();
        let (go, may): (Vec<u32>, Vec<u32>) = may_go.into_iter().partition(|row| decidable && inside(time(*row)));
        unsure.extend(may.into_iter().map(time).filter(|start| reaches(*start)));
        gone |= !go.is_empty();
        let mut stays = vec![true; batch.num_rows()];
        for row in go {
            if let Some(stays) = stays.get_mut(row as usize) {
                *stays = false;
            }
        }
        all.push(BooleanArray::from(stays));
    }
    Ok(Decided { stays: gone.then_some(all), unsure })
}

/// Writes what stays of a file.
fn write_rest(dir: &Path, path: &str, (stays, place): (&[BooleanArray], Place)) -> Result<RollupFile, TableError> {
    let mut new = Writing::begin(dir, place)?;
    for (batch, stays) in batches(&dir.join(path))?.zip(stays) {
        new.write(filter_record_batch(&batch?, stays)?)?;
    }
    new.finish()
}
