//! Searches over the files of tables.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::{SortColumn, SortOptions, concat_batches, lexsort_to_indices, take_record_batch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures_util::{Stream, TryStreamExt};

use super::error::TableError;
use super::observed::Observed;
use super::rows::{Place, Row};
use super::scan::{Among, Found, OpenFile, Pull, Scanner, Starts};
use super::{Range, Table, schema};
use crate::catalog::FlowFile;
use crate::error::StoreError;
use crate::limits::Budget;
use crate::query::ast::Node;
use wiretag_enrich::Tagged;

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

    /// All rows that pass, with those of `memory`, in answer order; with a limit only the first. They are sorted in memory.
    pub(super) async fn sorted<R: Table>(
        &self,
        files: &[&FlowFile],
        memory: Option<RecordBatch>,
        (condition, limit): (&Condition<R>, Option<usize>),
    ) -> Result<RecordBatch, TableError> {
        let schema = schema::schema::<R>();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let mut batches: Vec<RecordBatch> = memory.into_iter().collect();
        if !files.is_empty() {
            let stream = self.stream(files, condition, &names).await?;
            batches.extend(stream.try_collect::<Vec<RecordBatch>>().await?);
        }
        let whole = concat_batches(&schema, &batches)?;
        let column = |name: &str, descending: bool| {
            let options = Some(SortOptions { descending, nulls_first: false });
            Some(SortColumn { values: whole.column_by_name(name)?.clone(), options })
        };
        let order = [column("start", true), column("flow_id", false), column(R::NUMBER, false)];
        let order: Vec<SortColumn> = order.into_iter().flatten().collect();
        Ok(take_record_batch(&whole, &lexsort_to_indices(&order, limit)?)?)
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
    ) -> Result<Vec<Found<Among>>, TableError> {
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
        self.scanner.open(files, None).await
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
