//! Rows from the journal of a run that was interrupted.
//!
//! The last version of each slice that has no stored row becomes one, `interrupted`, unless it was erased. The journal is read twice, so that
//! memory holds keys and not rows. A file that is written and not yet in the catalog when this is killed is set aside by the
//! next start, which begins anew.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, new_null_array};
use datafusion::arrow::compute::{concat_batches, filter_record_batch, sort_to_indices, take_record_batch};
use datafusion::arrow::error::ArrowError;
use foldhash::fast::RandomState;
use futures_util::TryStreamExt;
use wiretag_capture::{EndReason, FlowRecord};

use super::engine::Condition;
use super::error::TableError;
use super::rows::{number_at, time_at};
use super::schema::schema;
use super::search::FILES;
use super::{FlowStore, Range, files};
use crate::catalog::{FlowFile, Origin, TableName};
use crate::error::StoreError;
use crate::journal::frame::Frames;
use crate::query::ast::Node;

/// Rows in memory at most before they are written.
const ROWS: usize = 65_536;

/// Flow id and number of a slice.
type Slice = (u64, u64);

/// Where a version is: its frame, counted over all generations, and its row there.
type Place = (u32, u32);

/// The last version of each slice.
type Newest = HashMap<Slice, Place, RandomState>;

impl FlowStore {
    /// Stores what these generations of the journal know of slices without a row; the number of rows.
    pub(crate) async fn recover(&self, generations: &[PathBuf]) -> Result<u64, StoreError> {
        let paths = generations.to_vec();
        let read = tokio::task::spawn_blocking(move || newest(&paths)).await.map_err(TableError::from)?;
        let (mut wanted, range) = read?;
        self.without_stored(&mut wanted, range).await?;
        if wanted.is_empty() {
            return Ok(0);
        }
        let (paths, dir) = (generations.to_vec(), self.inner.engine.data_dir().to_owned());
        let work = move || write(&dir, &paths, &wanted);
        let written = tokio::task::spawn_blocking(work).await.map_err(TableError::from)??;
        let standing = self.standing().await?;
        let mut rows = 0;
        for file in written {
            let (left, taken) = self.held_against(file, &standing).await?;
            let hour = (left.as_ref(), &taken);
            self.inner.catalog.prepare_rows(TableName::Flows, &[hour], standing.known).await?.commit().await?;
            rows += left.map_or(0, |file| file.rows);
        }
        Ok(rows)
    }

    /// Leaves out the slices that have a row in a file.
    async fn without_stored(&self, wanted: &mut Newest, range: Range) -> Result<(), StoreError> {
        if wanted.is_empty() {
            return Ok(());
        }
        let (all_observations, after, not_before) = (true, None, None);
        let condition: Condition<FlowRecord> =
            Condition { after, not_before, ..Condition::new(Node::All, range, all_observations) };
        let stored = self.inner.catalog.flow_files(TableName::Flows, range.from, range.to).await?;
        let stored: Vec<&FlowFile> = stored.iter().collect();
        for group in stored.chunks(*FILES.end()) {
            let mut rest = group.to_vec();
            while let Err(error) = self.strike(wanted, &rest, &condition).await {
                rest = self.without_unreadable(&rest, error).await?;
            }
        }
        Ok(())
    }

    async fn strike(
        &self,
        wanted: &mut Newest,
        group: &[&FlowFile],
        condition: &Condition<FlowRecord>,
    ) -> Result<(), TableError> {
        if group.is_empty() {
            return Ok(());
        }
        let mut stream = self.inner.engine.stream(group, condition, &["flow_id", "slice"]).await?;
        while let Some(batch) = stream.try_next().await? {
            for slice in slices(&batch).into_iter().flatten() {
                wanted.remove(&slice);
            }
        }
        Ok(())
    }
}

/// The frames of all generations, with their number.
fn frames(generations: &[PathBuf]) -> Result<impl Iterator<Item = (u32, RecordBatch)>, StoreError> {
    let opened = generations.iter().map(|path| Frames::open(path)).collect::<Result<Vec<_>, _>>()?;
    Ok((0..).zip(opened.into_iter().flatten()))
}

/// The slice of each row.
fn slices(batch: &RecordBatch) -> Vec<Option<Slice>> {
    let ids = batch.column_by_name("flow_id").and_then(|ids| ids.as_string_opt::<i32>());
    let numbers = batch.column_by_name("slice");
    let slice = |row: usize| {
        let id = ids.filter(|ids| ids.is_valid(row))?.value(row);
        Some((u64::from_str_radix(id, 16).ok()?, number_at(numbers?, row)?))
    };
    (0..batch.num_rows()).map(slice).collect()
}

/// The last version of each slice, and the time of all.
fn newest(generations: &[PathBuf]) -> Result<(Newest, Range), StoreError> {
    let (mut newest, mut range) = (Newest::default(), Range { from: i64::MAX, to: i64::MIN });
    for (number, batch) in frames(generations)? {
        let (starts, ends) = (batch.column_by_name("start"), batch.column_by_name("end"));
        for (slice, row) in slices(&batch).into_iter().zip(0_u32..) {
            let at = |times: Option<&ArrayRef>| time_at(times?, row as usize);
            let (Some(slice), Some(start), Some(end)) = (slice, at(starts), at(ends)) else { continue };
            newest.insert(slice, (number, row));
            // The row of a slice may begin earlier than its last version did, if packets came out of order.
            range.from = range.from.min(start.saturating_sub(files::HOUR / 60));
            range.to = range.to.max(end.saturating_add(files::HOUR));
        }
    }
    Ok((newest, range))
}

/// Writes the wanted versions as rows, one file for each hour (more if there are very many).
fn write(dir: &std::path::Path, generations: &[PathBuf], wanted: &Newest) -> Result<Vec<FlowFile>, StoreError> {
    let mut hours: BTreeMap<i64, Vec<RecordBatch>> = BTreeMap::new();
    let (mut written, mut rows) = (Vec::new(), 0);
    for (number, batch) in frames(generations)? {
        let chosen: BooleanArray = slices(&batch)
            .into_iter()
            .zip(0_u32..)
            .map(|(slice, row)| Some(slice.is_some_and(|slice| wanted.get(&slice) == Some(&(number, row)))))
            .collect();
        if chosen.true_count() == 0 {
            continue;
        }
        let batch =
            as_rows(&filter_record_batch(&batch, &chosen).map_err(TableError::from)?).map_err(TableError::from)?;
        rows += batch.num_rows();
        for (hour, batch) in by_hour(&batch).map_err(TableError::from)? {
            hours.entry(hour).or_default().push(batch);
        }
        if rows >= ROWS {
            write_hours(dir, std::mem::take(&mut hours), &mut written)?;
            rows = 0;
        }
    }
    write_hours(dir, hours, &mut written)?;
    Ok(written)
}

fn write_hours(
    dir: &std::path::Path,
    hours: BTreeMap<i64, Vec<RecordBatch>>,
    written: &mut Vec<FlowFile>,
) -> Result<(), TableError> {
    for batches in hours.into_values() {
        let batch = concat_batches(&schema::<FlowRecord>(), &batches)?;
        let Some(starts) = batch.column_by_name("start") else { continue };
        let batch = take_record_batch(&batch, &sort_to_indices(starts, None, None)?)?;
        written.push(files::write(dir, TableName::Flows, &batch, Origin::default())?);
    }
    Ok(())
}

/// In the columns of this release, with the reason why they ended.
fn as_rows(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let (schema, rows) = (schema::<FlowRecord>(), batch.num_rows());
    let reason: ArrayRef = Arc::new(StringArray::from(vec![EndReason::Interrupted.as_str(); rows]));
    let column = |name: &str| if name == "end_reason" { Some(&reason) } else { batch.column_by_name(name) };
    let columns = schema.fields().iter().map(|field| match column(field.name()) {
        Some(column) if column.data_type() == field.data_type() => column.clone(),
        Some(_) | None => new_null_array(field.data_type(), rows),
    });
    RecordBatch::try_new(schema.clone(), columns.collect())
}

fn by_hour(batch: &RecordBatch) -> Result<Vec<(i64, RecordBatch)>, ArrowError> {
    let starts = batch.column_by_name("start");
    let hour = |row: usize| starts.and_then(|starts| time_at(starts, row)).map(|start| start.div_euclid(files::HOUR));
    let hours: Vec<Option<i64>> = (0..batch.num_rows()).map(hour).collect();
    let distinct: std::collections::BTreeSet<i64> = hours.iter().flatten().copied().collect();
    let part = |hour: i64| {
        let own: BooleanArray = hours.iter().map(|other| Some(*other == Some(hour))).collect();
        Ok((hour, filter_record_batch(batch, &own)?))
    };
    distinct.into_iter().map(part).collect()
}
