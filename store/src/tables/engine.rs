//! Searches over the files of tables with the query engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::{Expr, ident, lit};
use datafusion::physical_plan::{collect, execute_stream, execute_stream_partitioned};
use datafusion::prelude::{DataFrame, ParquetReadOptions, SessionConfig, SessionContext};
use futures_util::TryStreamExt;

use super::error::TableError;
use super::filter::{filter, time};
use super::observed::{Observed, planned};
use super::rows::{self, Place, Row};
use super::schema::schema;
use super::{Range, Table, files};
use crate::catalog::FlowFile;
use crate::error::StoreError;
use crate::query::ast::Node;
use wiretag_enrich::Tagged;

/// Memory that all searches together may use, bytes.
const MEMORY: usize = 1 << 30;

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
    /// Who wants to know how it is answered.
    pub(super) observed: Option<Arc<Observed>>,
}

impl<R: Table> Condition<R> {
    /// Rows that pass and touch the range.
    pub(super) fn new(node: Node<R>, range: Range, all_observations: bool) -> Self {
        Self { node, range, all_observations, after: None, not_before: None, observed: None }
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

    fn expression(&self) -> Expr {
        let mut wanted = ident("start")
            .lt(time(self.range.to))
            .and(ident("end").gt_eq(time(self.range.from)))
            .and(filter(&self.node));
        if !self.all_observations {
            wanted = ident("primary").eq(lit(true)).and(wanted);
        }
        if let Some(start) = self.not_before {
            wanted = ident("start").gt_eq(time(start)).and(wanted);
        }
        let Some(after) = self.after else { return wanted };
        let start = time(after.start.0);
        let flow_id = lit(format!("{:016x}", after.flow_id));
        let later_id = ident("flow_id").gt(flow_id.clone());
        let later_number = ident("flow_id").eq(flow_id).and(ident(R::NUMBER).gt(lit(after.number)));
        let tie = ident("start").eq(start.clone()).and(later_id.or(later_number));
        // Said twice so that file statistics can use it.
        wanted.and(ident("start").lt_eq(start.clone())).and(ident("start").lt(start).or(tie))
    }

    /// Whether the file may hold a row that passes.
    pub(super) fn touches(&self, file: &FlowFile) -> bool {
        let before_cursor = self.after.is_none_or(|after| file.start <= after.start.0);
        file.start < self.range.to && file.end >= self.range.from && before_cursor
    }
}

/// The query engine over the files of a data directory; the tables share it, and its memory.
pub struct Engine {
    session: SessionContext,
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
        let mut config = SessionConfig::new().with_target_partitions(parallel).with_collect_statistics(false);
        let parquet = &mut config.options_mut().execution.parquet;
        parquet.pushdown_filters = true;
        parquet.reorder_filters = true;
        parquet.schema_force_view_types = false;
        let runtime = RuntimeEnvBuilder::new().with_memory_limit(MEMORY, 1.0).build()?;
        let session = SessionContext::new_with_config_rt(config, Arc::new(runtime));
        Ok(Self { session, data_dir })
    }

    /// The data directory.
    pub(super) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    async fn table<R: Table>(&self, files: &[&FlowFile]) -> Result<DataFrame, TableError> {
        let paths: Vec<String> =
            files.iter().map(|file| self.data_dir.join(&file.path).to_string_lossy().into_owned()).collect();
        let schema = schema::<R>();
        Ok(self.session.read_parquet(paths, ParquetReadOptions::default().schema(&schema)).await?)
    }

    /// The first `limit` rows in answer order; `columns` empty means all.
    pub(super) async fn rows<R: Table>(
        &self,
        files: &[&FlowFile],
        condition: &Condition<R>,
        limit: usize,
        columns: &[&str],
    ) -> Result<Vec<Row>, TableError> {
        let order = vec![
            ident("start").sort(false, false),
            ident("flow_id").sort(true, false),
            ident(R::NUMBER).sort(true, false),
        ];
        let mut frame = self.table::<R>(files).await?.filter(condition.expression())?;
        if !columns.is_empty() {
            frame = frame.select_columns(columns)?;
        }
        let frame = frame.sort(order)?.limit(0, Some(limit))?;
        let (plan, context) = planned(frame, condition.observed.as_deref()).await?;
        let batches = collect(plan, context).await?;
        Ok(batches.iter().flat_map(|batch| rows::rows(batch, R::NUMBER)).collect())
    }

    /// All rows that pass, in no order.
    pub(super) async fn stream<R: Table>(
        &self,
        files: &[&FlowFile],
        condition: &Condition<R>,
        columns: &[&str],
    ) -> Result<SendableRecordBatchStream, TableError> {
        let frame = self.table::<R>(files).await?.filter(condition.expression())?.select_columns(columns)?;
        let (plan, context) = planned(frame, condition.observed.as_deref()).await?;
        Ok(execute_stream(plan, context)?)
    }

    /// As [`Self::stream`], in as many streams as can be worked on at the same time.
    pub(super) async fn streams<R: Table>(
        &self,
        files: &[&FlowFile],
        condition: &Condition<R>,
        columns: &[&str],
    ) -> Result<Vec<SendableRecordBatchStream>, TableError> {
        let frame = self.table::<R>(files).await?.filter(condition.expression())?.select_columns(columns)?;
        let (plan, context) = planned(frame, condition.observed.as_deref()).await?;
        Ok(execute_stream_partitioned(plan, context)?)
    }

    /// Whole files, sorted by start, as one batch.
    pub(super) async fn merged<R: Table>(&self, files: &[&FlowFile]) -> Result<RecordBatch, TableError> {
        let frame = self.table::<R>(files).await?.sort(vec![ident("start").sort(true, false)])?;
        let batches: Vec<RecordBatch> = frame.execute_stream().await?.try_collect().await?;
        Ok(datafusion::arrow::compute::concat_batches(&schema::<R>(), &batches)?)
    }

    /// Those of `files` that can be read; reading is checked file by file, so only after a failure.
    pub(super) async fn readable<'a>(&self, candidates: &[&'a FlowFile]) -> Result<Vec<&'a FlowFile>, TableError> {
        let paths: Vec<PathBuf> = candidates.iter().map(|file| self.data_dir.join(&file.path)).collect();
        let states =
            tokio::task::spawn_blocking(move || paths.iter().map(|path| files::readable(path)).collect::<Vec<_>>())
                .await?;
        Ok(candidates.iter().zip(states).filter(|(_, readable)| *readable).map(|(file, _)| *file).collect())
    }
}
