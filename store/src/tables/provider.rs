//! A table as of one moment, for SQL: rows in memory, open slices, and files, of which those are left out whose time cannot
//! match. Rows in memory become columns as they are read, and only the columns that are asked for. Wherever rows come from, they come
//! [`BATCH`] at a time at most: nothing behind makes less of what is more, and limits of memory are for so many.
//!
//! Whoever may not see every row gets a table that has no others: searches' own scan gives its rows, and no condition of
//! the question comes before it, so that none can tell by an error or by its time what was left out.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use datafusion::arrow::compute::{cast, take};
use datafusion::arrow::datatypes::{Field, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::union::UnionExec;
use futures_util::{TryStreamExt, stream};
use wiretag_enrich::Tagged;

use super::engine::{Condition, Engine};
use super::{Range, Snapshot, Table, TableStore, schema};
use crate::catalog::FlowFile;
use crate::error::StoreError;
use crate::query::{Query, RowFilter};
use crate::sql::BATCH;

/// Streams of permitted rows.
const STREAMS: usize = 4;

/// See the module.
pub(crate) struct SnapshotTable<R: 'static> {
    schema: SchemaRef,
    snapshot: Arc<Snapshot<R>>,
    engine: Arc<Engine>,
    /// Only these rows.
    permitted: Option<Query<R>>,
    /// Times that were asked for.
    asked: Mutex<Vec<Range>>,
}

impl<R: 'static> std::fmt::Debug for SnapshotTable<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotTable").field("files", &self.snapshot.files.len()).finish_non_exhaustive()
    }
}

impl<R: Table> TableStore<R> {
    /// The table as it is now, or what is left of it by `filter`.
    pub(crate) async fn provider(&self, filter: Option<&RowFilter>) -> Result<SnapshotTable<R>, StoreError> {
        let snapshot = Arc::new(self.answerable(Range::ALL, false).await?.0);
        let permitted = filter.map(R::permitted).cloned();
        let engine = self.inner.engine.clone();
        Ok(SnapshotTable { schema: schema::schema::<R>(), snapshot, engine, permitted, asked: Mutex::default() })
    }
}

impl<R: Table> SnapshotTable<R> {
    /// Without the files that cannot be read; none if it is the same: the error has another cause. Of those of times that were asked for each
    /// page is looked at.
    pub(crate) async fn readable(&self, store: &TableStore<R>, error: &StoreError) -> Result<Option<Self>, StoreError> {
        let asked = std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner));
        let files: Vec<&FlowFile> = self.snapshot.files.iter().collect();
        let sound = store.sound(&files, error).await?;
        let is_asked = |file: &&FlowFile| asked.iter().any(|range| touches(file, range));
        store.lose_broken(&sound.into_iter().filter(is_asked).collect::<Vec<_>>(), error).await?;
        let files: Vec<FlowFile> = files.into_iter().filter(|file| !store.is_unreadable(&file.path)).cloned().collect();
        if files.len() == self.snapshot.files.len() {
            return Ok(None);
        }
        let Snapshot { chunks, open, .. } = &*self.snapshot;
        let snapshot = Arc::new(Snapshot { chunks: chunks.clone(), open: open.clone(), files });
        let (schema, engine, permitted) = (self.schema.clone(), self.engine.clone(), self.permitted.clone());
        Ok(Some(Self { schema, snapshot, engine, permitted, asked: Mutex::default() }))
    }
}

/// Whether a file may have rows that touch a range.
const fn touches(file: &FlowFile, range: &Range) -> bool {
    file.start < range.to && file.end >= range.from
}

impl<R: Table> SnapshotTable<R> {
    /// These files, as the engine reads them.
    fn listed(&self, state: &dyn Session, files: &[&FlowFile]) -> Result<ListingTable> {
        let path = |file: &&FlowFile| ListingTableUrl::parse(url(&self.engine.data_dir().join(&file.path)));
        let paths = files.iter().map(path).collect::<Result<Vec<_>>>()?;
        let format = ParquetFormat::default().with_options(state.default_table_options().parquet);
        let options = ListingOptions::new(Arc::new(format));
        let config = ListingTableConfig::new_with_multi_paths(paths).with_listing_options(options);
        ListingTable::try_new(config.with_schema(self.schema.clone()))
    }

    /// The rows of files that are permitted, in several streams.
    fn permitted_rows(
        &self,
        permitted: &Query<R>,
        range: Range,
        files: &[&FlowFile],
        schema: &SchemaRef,
    ) -> Vec<Arc<dyn PartitionStream>> {
        let condition = Condition::new(permitted.node.clone(), range, true);
        let part = |number: usize| {
            let files = files.iter().skip(number).step_by(STREAMS).map(|file| (*file).clone()).collect();
            let (schema, engine, condition) = (schema.clone(), self.engine.clone(), condition.clone());
            Arc::new(Permitted { schema, engine, files, condition }) as Arc<dyn PartitionStream>
        };
        // As many whatever there is: a plan tells their number.
        (0..STREAMS).map(part).collect()
    }
}

#[async_trait]
impl<R: Table> TableProvider for SnapshotTable<R> {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // Rows from memory come unfiltered.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let projected = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => self.schema.clone(),
        };
        let wanted = time_of(filters);
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(wanted);
        let files: Vec<&FlowFile> = self.snapshot.files.iter().filter(|file| touches(file, &wanted)).collect();
        let permitted = self.permitted.clone();
        let mut partitions: Vec<Arc<dyn PartitionStream>> =
            vec![Arc::new(Memory { schema: projected.clone(), snapshot: self.snapshot.clone(), permitted })];
        if let Some(permitted) = &self.permitted {
            partitions.extend(self.permitted_rows(permitted, wanted, &files, &projected));
            return Ok(Arc::new(StreamingTableExec::try_new(projected, partitions, None, [], false, None)?));
        }
        let memory: Arc<dyn ExecutionPlan> =
            Arc::new(StreamingTableExec::try_new(projected, partitions, None, [], false, None)?);
        if files.is_empty() {
            return Ok(memory);
        }
        // The engine does not know of checksums of footers.
        self.engine.open_files(&files).await.map_err(|error| DataFusionError::External(error.into()))?;
        let files = self.listed(state, &files)?.scan(state, projection, filters, None).await?;
        UnionExec::try_new(vec![memory, files])
    }
}

/// A file as a URL: of a path the engine takes `*`, `?` and `[` for a pattern.
fn url(path: &Path) -> String {
    let bytes = path.as_os_str().as_encoded_bytes().iter();
    let letters = bytes.map(|byte| match byte {
        b'/' | b'.' | b'-' | b'_' => char::from(*byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(*byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    format!("file://{}", letters.collect::<String>())
}

/// Permitted rows of files.
struct Permitted<R: 'static> {
    schema: SchemaRef,
    engine: Arc<Engine>,
    files: Vec<FlowFile>,
    condition: Condition<R>,
}

impl<R: 'static> std::fmt::Debug for Permitted<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Permitted")
    }
}

impl<R: Table> PartitionStream for Permitted<R> {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let names: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        let stored = schema::as_stored::<R>(&names);
        let rows = self.engine.pulled(self.files.clone(), &self.condition, stored);
        let schema = self.schema.clone();
        let parts = move |batch: RecordBatch| {
            let (schema, firsts) = (schema.clone(), (0..batch.num_rows()).step_by(BATCH));
            stream::iter(firsts.map(move |first| part(&batch, first, &schema)))
        };
        let rows = rows.map_err(|error| DataFusionError::External(error.into())).map_ok(parts).try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows))
    }
}

/// Some rows of a batch as columns of `schema`, by themselves: whoever counts what they take must not count all others with them.
fn part(batch: &RecordBatch, first: usize, schema: &SchemaRef) -> Result<RecordBatch> {
    let rows = BATCH.min(batch.num_rows() - first);
    let places = UInt32Array::from_iter_values((first as u32..).take(rows));
    let column = |(array, field): (&ArrayRef, &Arc<Field>)| -> Result<ArrayRef> {
        let array = take(array, &places, None)?;
        if array.data_type() == field.data_type() { Ok(array) } else { Ok(cast(&array, field.data_type())?) }
    };
    let columns = batch.columns().iter().zip(schema.fields()).map(column).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

/// Rows in memory, as columns of `schema`.
struct Memory<R: 'static> {
    schema: SchemaRef,
    snapshot: Arc<Snapshot<R>>,
    /// Only these.
    permitted: Option<Query<R>>,
}

impl<R: 'static> std::fmt::Debug for Memory<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory")
    }
}

impl<R: Table> PartitionStream for Memory<R> {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (schema, snapshot, permitted) = (self.schema.clone(), self.snapshot.clone(), self.permitted.clone());
        // Chunks of rows, and then the open slices.
        let whole: Vec<(usize, usize)> = snapshot
            .chunks
            .iter()
            .enumerate()
            .flat_map(|(number, chunk)| (0..chunk.len()).step_by(BATCH).map(move |first| (number, first)))
            .chain((0..snapshot.open.len()).step_by(BATCH).map(|first| (usize::MAX, first)))
            .collect();
        let batches = whole.into_iter().map(move |(number, first)| {
            let mut rows: Vec<&Tagged<R>> = match snapshot.chunks.get(number) {
                Some(chunk) => chunk.iter().skip(first).take(BATCH).collect(),
                None => snapshot.open.iter().skip(first).take(BATCH).map(|row| &**row).collect(),
            };
            rows.retain(|row| permitted.as_ref().is_none_or(|permitted| permitted.matches(row)));
            batch(&schema, &rows)
        });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream::iter(batches)))
    }
}

fn batch<R: Table>(schema: &SchemaRef, rows: &[&Tagged<R>]) -> Result<RecordBatch> {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let columns = if names.is_empty() { Vec::new() } else { schema::some_columns(rows, &names)?.columns().to_vec() };
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

/// The time that rows must touch, as far as the conditions tell.
fn time_of(filters: &[Expr]) -> Range {
    let mut range = Range::ALL;
    for filter in filters {
        narrow(&mut range, filter);
    }
    range
}

fn narrow(range: &mut Range, filter: &Expr) {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            narrow(range, left);
            narrow(range, right);
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            if let (true, Some(time)) = (is_time(left), literal(right)) {
                bound(range, *op, time);
            } else if let (Some(time), true, Some(op)) = (literal(left), is_time(right), op.swap()) {
                bound(range, op, time);
            }
        }
        Expr::Between(Between { expr, negated: false, low, high }) if is_time(expr) => {
            if let Some(low) = literal(low) {
                bound(range, Operator::GtEq, low);
            }
            if let Some(high) = literal(high) {
                bound(range, Operator::LtEq, high);
            }
        }
        _ => {}
    }
}

/// `start` is not after `end`, so each of both bounds what a file can have.
fn bound(range: &mut Range, op: Operator, time: i64) {
    match op {
        Operator::Gt => range.from = range.from.max(time.saturating_add(1)),
        Operator::GtEq => range.from = range.from.max(time),
        Operator::Lt => range.to = range.to.min(time),
        Operator::LtEq => range.to = range.to.min(time.saturating_add(1)),
        Operator::Eq => {
            range.from = range.from.max(time);
            range.to = range.to.min(time.saturating_add(1));
        }
        _ => {}
    }
}

fn is_time(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(column) if column.name == "start" || column.name == "end")
}

fn literal(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::TimestampNanosecond(time, _), _) => *time,
        _ => None,
    }
}
