//! Searches over the files of tables.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, UInt32Array, new_empty_array};
use datafusion::arrow::compute::{SortColumn, SortOptions, concat, lexsort_to_indices, take_record_batch};
use datafusion::arrow::datatypes::{Field, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures_util::{Stream, TryStreamExt};

use super::error::TableError;
use super::observed::Observed;
use super::rows::{Place, Row};
use super::scan::{Found, OpenFile, Pull, Scanner, Starts, memory};
use super::{Range, Table, schema};
use crate::catalog::FlowFile;
use crate::error::StoreError;
use crate::limits::{Budget, Held};
use crate::query::ast::Node;
use wiretag_enrich::Tagged;

/// Rows from memory that become columns before what they take is counted.
const RECENT: usize = 2_048;

/// Which rows are wanted.
#[derive(Debug, Clone)]
pub(super) struct Condition<R: 'static> {
    pub(super) node: Node<R>,
    pub(super) range: Range,
    pub(super) all_observations: bool,
    /// Only rows behind this place.
    pub(super) after: Option<Place>,
    /// Only rows that start then or later.
    pub(super) not_before: Option<i64>,
    /// How exactly the starts of rows are wanted that are read to be added up.
    pub(super) starts: Starts,
    /// Who wants to know how it is answered.
    pub(super) observed: Option<Arc<Observed>>,
    /// What rows of a page may take; all that is asked for, unless somebody sets it.
    pub(super) budget: Arc<Budget>,
}

impl<R: Table> Condition<R> {
    /// Rows that pass and touch the range.
    pub(super) fn new(node: Node<R>, range: Range, all_observations: bool) -> Self {
        let budget = Arc::new(Budget::new(usize::MAX));
        Self {
            node,
            range,
            all_observations,
            after: None,
            not_before: None,
            starts: Starts::Exact,
            observed: None,
            budget,
        }
    }

    pub(super) fn matches(&self, row: &Tagged<R>) -> bool {
        let key = row.record.key();
        (self.all_observations || key.primary)
            && key.start < self.range.to
            && key.end >= self.range.from
            && self.after.is_none_or(|after| Place::of(&key) > after)
            && self.not_before.is_none_or(|start| key.start >= start)
            && self.node.matches(row)
    }

    /// Whether the file may hold a row that passes.
    pub(super) fn touches(&self, file: &FlowFile) -> bool {
        let before_cursor = self.after.is_none_or(|after| file.start <= after.start.0);
        file.start < self.range.to && file.end >= self.range.from && before_cursor
    }
}

/// Rows, and their order.
pub(super) struct Sorted {
    rows: RecordBatch,
    order: UInt32Array,
    _held: Held,
}

impl Sorted {
    /// The rows in order, so many at a time.
    pub(super) fn batches(&self, rows: usize) -> impl Iterator<Item = Result<RecordBatch, TableError>> {
        (0..self.order.len()).step_by(rows).map(move |first| {
            let some = self.order.slice(first, rows.min(self.order.len() - first));
            Ok(take_record_batch(&self.rows, &some)?)
        })
    }
}

/// What searches the files of a data directory; the tables share it, and its threads.
pub struct Engine {
    scanner: Scanner,
    data_dir: PathBuf,
}

impl Engine {
    /// An engine over `data_dir`, which is made if it does not exist.
    pub fn open(data_dir: &Path) -> Result<Arc<Self>, StoreError> {
        crate::private::create_dir_all(data_dir).map_err(TableError::io("create", data_dir))?;
        Ok(Arc::new(Self::new(data_dir)?))
    }

    fn new(data_dir: &Path) -> Result<Self, TableError> {
        let data_dir = std::fs::canonicalize(data_dir).map_err(TableError::io("open", data_dir))?;
        let parallel = std::thread::available_parallelism().map_or(2, usize::from).min(8);
        Ok(Self { scanner: Scanner::new(&data_dir, parallel)?, data_dir })
    }

    /// The data directory.
    pub(super) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The first `limit` rows in answer order; `columns` empty means all. `files` are ordered by their latest start, the
    /// newest first.
    pub(super) async fn rows<R: Table>(
        &self,
        files: &[&FlowFile],
        condition: &Condition<R>,
        limit: usize,
        columns: &[&str],
    ) -> Result<Vec<Row>, TableError> {
        self.scanner.newest(files, condition, limit, columns).await
    }

    /// All rows that pass, with those that are `recent`, in answer order; with a limit only the first. They are sorted in memory, of which they may
    /// take as much as the condition's budget has.
    pub(super) async fn sorted<R: Table>(
        &self,
        files: &[&FlowFile],
        recent: &[&Tagged<R>],
        (condition, limit): (&Condition<R>, Option<usize>),
    ) -> Result<Sorted, TableError> {
        let schema = schema::stored::<R>();
        let mut held = Held::new(&condition.budget);
        let mut batches = Vec::new();
        for some in recent.chunks(RECENT) {
            let batch = schema::batch(schema.clone(), some)?;
            held.take(taken(&batch))?;
            batches.push(batch);
        }
        if !files.is_empty() {
            let streams = self.scanner.streams(files, condition, &schema).await?;
            let mut found = futures_util::stream::select_all(streams);
            while let Some(batch) = found.try_next().await? {
                held.take(taken(&batch))?;
                batches.push(batch);
            }
        }
        let rows = joined(&schema, batches)?;
        let column = |name: &str, descending: bool| {
            let options = Some(SortOptions { descending, nulls_first: false });
            Some(SortColumn { values: rows.column_by_name(name)?.clone(), options })
        };
        let order = [column("start", true), column("flow_id", false), column(R::NUMBER, false)];
        let order: Vec<SortColumn> = order.into_iter().flatten().collect();
        Ok(Sorted { order: lexsort_to_indices(&order, limit)?, rows, _held: held })
    }

    /// All rows that pass, in no order.
    pub(super) async fn stream<R: Table>(
        &self,
        files: &[&FlowFile],
        condition: &Condition<R>,
        columns: &[&str],
    ) -> Result<SendableRecordBatchStream, TableError> {
        let schema = schema::plain::<R>(columns);
        let streams = self.scanner.streams(files, condition, &schema).await?;
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, futures_util::stream::select_all(streams))))
    }

    /// All rows that pass, where most do among the others, in the columns of `schema` and no order, in as many streams as can be worked on at
    /// the same time.
    pub(super) async fn among<R: Table>(
        &self,
        files: &[&FlowFile],
        condition: &Condition<R>,
        schema: &SchemaRef,
    ) -> Result<Vec<Found>, TableError> {
        self.scanner.among(files, condition, schema).await
    }

    /// All rows that pass, in these columns and no order; files are read as rows are asked for.
    pub(super) fn pulled<R: Table>(
        self: &Arc<Self>,
        files: Vec<FlowFile>,
        condition: &Condition<R>,
        schema: SchemaRef,
    ) -> impl Stream<Item = Result<RecordBatch, TableError>> + Send + use<R> {
        let pull = Pull::new(files, condition, schema);
        futures_util::stream::try_unfold((self.clone(), pull), async |(engine, mut pull)| {
            Ok(pull.next(&engine.scanner).await?.map(|batch| (batch, (engine, pull))))
        })
    }

    /// Opens files, in this order.
    pub(super) async fn open_files(&self, files: &[&FlowFile]) -> Result<Vec<OpenFile>, TableError> {
        self.scanner.open(files).await
    }

    /// Those of `files` that `can` be read; looked at one after the other, so only after a failure.
    pub(super) async fn able<'a>(
        &self,
        candidates: &[&'a FlowFile],
        can: fn(&Path) -> Result<bool, TableError>,
    ) -> Result<Vec<&'a FlowFile>, TableError> {
        let paths: Vec<PathBuf> = candidates.iter().map(|file| self.data_dir.join(&file.path)).collect();
        let look = move || paths.iter().map(|path| can(path)).collect::<Result<Vec<_>, _>>();
        let states = tokio::task::spawn_blocking(look).await??;
        Ok(candidates.iter().zip(states).filter(|(_, readable)| *readable).map(|(file, _)| *file).collect())
    }
}

/// Memory of the rows of a batch, bytes.
fn taken(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(memory).sum()
}

/// One batch of all, column by column: what is joined is not there twice.
fn joined(schema: &SchemaRef, batches: Vec<RecordBatch>) -> Result<RecordBatch, TableError> {
    let mut columns: Vec<Vec<ArrayRef>> = schema.fields().iter().map(|_| Vec::new()).collect();
    for batch in batches {
        let (_, arrays, _) = batch.into_parts();
        columns.iter_mut().zip(arrays).for_each(|(column, array)| column.push(array));
    }
    let one = |(column, field): (Vec<ArrayRef>, &Arc<Field>)| match column.as_slice() {
        [] => Ok(new_empty_array(field.data_type())),
        parts => concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>()),
    };
    let columns = columns.into_iter().zip(schema.fields()).map(one).collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}
