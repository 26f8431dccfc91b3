//! SQL over what is kept, for reading only: `flows`, `transactions`, `identities`, `segments`.
//!
//! * Every query sees all tables as of one moment, rows in memory included.
//! * Only questions are answered: `SELECT`, `WITH`, `EXPLAIN`, `DESCRIBE`, `SHOW TABLES`, `SHOW COLUMNS`. What would change, write or
//!   read anything else is refused before it is planned, and once more when it is. No table or function reads files.
//! * Who may see some rows only ([`SqlRequest::rows`]) has tables without the others.
//! * Questions have threads of their own, with lower priority than capture.
//! * Memory is limited for each query, and nothing is written to disk for want of it. The engine counts what it gathers; what planning makes of
//!   little is limited by [`statement`], [`breadth`] and [`expansion`], what functions make by [`functions`], [`bounded`] and [`plan`], the answer by what
//!   its cells need.

mod bounded;
mod breadth;
mod cells;
mod expansion;
mod functions;
mod identities;
mod plan;
mod planner;
mod segments;
mod statement;
mod threads;

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::error::ArrowError;
use datafusion::catalog::TableProvider;
use datafusion::config::Dialect;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures_util::TryStreamExt;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value as Json};
use wiretag_capture::{FlowRecord, Transaction};
use wiretag_enrich::timeline::View;

use self::bounded::Share;
use self::cells::Room;
use self::functions::Functions;
pub use self::identities::{KeyText, key_text};
use self::planner::{Operators, Types};
use self::threads::Threads;
use crate::Store;
use crate::error::StoreError;
use crate::limits::LimitReached;
use crate::query::RowFilter;
use crate::tables::TableError;
use crate::tables::provider::SnapshotTable;

/// Bytes of a query.
const MAX_LENGTH: usize = 65_536;
/// Rows that are worked on at a time, and that tables give at most: so many copies of a literal that is as long as the query may be are within the usual memory.
pub(crate) const BATCH: usize = 1_024;
/// Where names of tables are looked up.
const CATALOG: &str = "wiretag";

/// A question in SQL.
#[derive(Debug, Clone)]
pub struct SqlRequest {
    /// One statement.
    pub text: String,
    /// Rows in the answer at most.
    pub limit: usize,
    /// Memory that it may take, bytes.
    pub memory: usize,
    /// Which rows whoever asks may see; then there are only `flows` and `transactions`. `None`: everything.
    pub rows: Option<RowFilter>,
}

/// Rows that answer it.
#[derive(Debug, Clone, PartialEq)]
pub struct SqlAnswer {
    /// Name and type of the columns; no two names are the same.
    pub columns: Vec<(String, String)>,
    /// Rows, at most as many as were asked for.
    pub rows: Vec<Map<String, Json>>,
    /// There are more.
    pub truncated: bool,
}

/// All tables at one moment.
#[derive(Clone)]
struct Tables {
    flows: Arc<SnapshotTable<FlowRecord>>,
    transactions: Arc<SnapshotTable<Transaction>>,
    /// Tables whose rows cannot be told apart, for those who may see everything.
    whole: Vec<(&'static str, Arc<dyn TableProvider>)>,
}

impl Store {
    /// Answers a question in SQL; `identities` is what is known of them.
    pub fn sql<'a>(
        &'a self,
        request: &'a SqlRequest,
        identities: Arc<View>,
    ) -> BoxFuture<'a, Result<SqlAnswer, StoreError>> {
        // Boxed: compiled here, see `tables::entries`.
        Box::pin(self.asked(request, identities))
    }

    async fn asked(&self, request: &SqlRequest, identities: Arc<View>) -> Result<SqlAnswer, StoreError> {
        if request.text.len() > MAX_LENGTH {
            return Err(StoreError::Sql(format!("the query is longer than {MAX_LENGTH} bytes")));
        }
        if let Some(sentence) = statement::too_deep(&request.text) {
            return Err(StoreError::Sql(sentence));
        }
        let tables = Tables {
            flows: Arc::new(self.flows.provider(request.rows.as_ref()).await?),
            transactions: Arc::new(self.transactions.provider(request.rows.as_ref()).await?),
            whole: match &request.rows {
                Some(_) => Vec::new(),
                None => self.whole(identities).await?,
            },
        };
        match self.sql.ask(tables.clone(), request.clone()).await {
            Ok(answer) => Ok(answer),
            Err(error @ (StoreError::Sql(_) | StoreError::Limit(_))) => Err(error),
            Err(error) => {
                // A file that cannot be read is left out of answers; it does not fail them.
                let flows = tables.flows.readable(&self.flows, &error).await?;
                let transactions = tables.transactions.readable(&self.transactions, &error).await?;
                if flows.is_none() && transactions.is_none() {
                    return Err(error);
                }
                let flows = flows.map_or_else(|| tables.flows.clone(), Arc::new);
                let transactions = transactions.map_or_else(|| tables.transactions.clone(), Arc::new);
                self.sql.ask(Tables { flows, transactions, ..tables }, request.clone()).await
            }
        }
    }

    async fn whole(&self, known: Arc<View>) -> Result<Vec<(&'static str, Arc<dyn TableProvider>)>, StoreError> {
        let known = identities::Identities::new(known).map_err(TableError::from)?;
        let segments = segments::table(&self.catalog.all_segments().await?)?;
        Ok(vec![("identities", Arc::new(known)), ("segments", Arc::new(segments))])
    }
}

/// What all questions share: threads, and footers of files that were read.
pub(crate) struct Shared {
    runtime: Arc<RuntimeEnv>,
    threads: Threads,
}

impl Shared {
    pub(crate) fn new() -> Result<Self, StoreError> {
        let runtime = RuntimeEnvBuilder::new().build_arc().map_err(TableError::from)?;
        Ok(Self { runtime, threads: Threads::new()? })
    }

    async fn ask(&self, tables: Tables, request: SqlRequest) -> Result<SqlAnswer, StoreError> {
        self.threads.run(answer(self.runtime.clone(), tables, request)).await
    }
}

async fn answer(runtime: Arc<RuntimeEnv>, tables: Tables, request: SqlRequest) -> Result<SqlAnswer, StoreError> {
    let failed = |error: DataFusionError| sentence(error, request.memory);
    let share = Share::of(0);
    let session = session(&runtime, &tables, request.memory, &share).map_err(failed)?;
    let state = session.state();
    let statement = state.sql_to_statement(&request.text, &Dialect::Generic).map_err(failed)?;
    if let Some(what) = statement::refused(&statement) {
        return Err(StoreError::Sql(format!(
            "`{what}` is refused: data can only be read here; hint: use `SELECT`, `EXPLAIN`, `DESCRIBE` or `SHOW TABLES`"
        )));
    }
    if let Some(sentence) = statement::misread(&statement).or_else(|| breadth::too_broad(&statement)) {
        return Err(StoreError::Sql(sentence));
    }
    let plan = state.statement_to_plan(statement).await.map_err(failed)?;
    let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    options.verify_plan(&plan).map_err(failed)?;
    expansion::check(&plan).map_err(failed)?;
    share.set(plan::share(&plan, request.memory, BATCH).map_err(failed)?);
    let frame = session.execute_logical_plan(plan).await.map_err(failed)?;
    let mut stream = frame.execute_stream().await.map_err(failed)?;
    let columns = cells::columns(&stream.schema());
    let (mut rows, mut truncated, mut room) = (Vec::new(), false, Room::new(request.memory));
    while let Some(batch) = stream.try_next().await.map_err(failed)? {
        truncated = add(&mut rows, &batch, &columns, (request.limit, &mut room))?;
        if truncated {
            break;
        }
    }
    Ok(SqlAnswer { columns, rows, truncated })
}

/// Tables for one question, with its own memory.
fn session(
    runtime: &RuntimeEnv,
    tables: &Tables,
    memory: usize,
    share: &Share,
) -> Result<SessionContext, DataFusionError> {
    let parallel = std::thread::available_parallelism().map_or(2, usize::from).min(8);
    let mut config = SessionConfig::new()
        .with_information_schema(true)
        .with_default_catalog_and_schema(CATALOG, "public")
        .with_target_partitions(parallel)
        .with_batch_size(BATCH)
        .with_collect_statistics(false);
    let parquet = &mut config.options_mut().execution.parquet;
    parquet.pushdown_filters = true;
    parquet.reorder_filters = true;
    parquet.schema_force_view_types = false;
    let runtime = RuntimeEnvBuilder::from_runtime_env(runtime)
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(memory)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc()?;
    let functions = Functions::new(share);
    let mut planners = SessionStateDefaults::default_expr_planners();
    planners.insert(0, Arc::new(Operators::new(&functions, share)));
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_scalar_functions(functions.scalars)
        .with_higher_order_functions(Vec::new())
        .with_aggregate_functions(functions.aggregates)
        .with_window_functions(functions.windows)
        .with_table_functions(functions.tables)
        .with_expr_planners(planners)
        .with_type_planner(Arc::new(Types))
        .build();
    let session = SessionContext::new_with_state(state);
    session.register_table("flows", tables.flows.clone())?;
    session.register_table("transactions", tables.transactions.clone())?;
    for (name, table) in &tables.whole {
        session.register_table(*name, table.clone())?;
    }
    Ok(session)
}

/// Adds rows as far as they are wanted and there is room; true if there are more.
fn add(
    rows: &mut Vec<Map<String, Json>>,
    batch: &RecordBatch,
    columns: &[(String, String)],
    (limit, room): (usize, &mut Room),
) -> Result<bool, LimitReached> {
    let wanted = limit.saturating_sub(rows.len());
    for row in 0..batch.num_rows().min(wanted) {
        room.map()?;
        let mut cells = Map::with_capacity(columns.len());
        for ((name, _), array) in columns.iter().zip(batch.columns()) {
            room.name(name)?;
            cells.insert(name.clone(), cells::value(array, row, room)?);
        }
        rows.push(cells);
    }
    Ok(batch.num_rows() > wanted)
}

/// A file has pages that cannot be read.
fn broken(error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Query(format!("a stored file cannot be read: {error}; hint: ask again, a disk may fail for a moment"))
}

/// What went wrong: a mistake in the query, a limit, or something inside.
fn sentence(error: DataFusionError, memory: usize) -> StoreError {
    let root = match error.find_root() {
        DataFusionError::Diagnostic(_, inner) => inner.find_root(),
        root => root,
    };
    match root {
        DataFusionError::ResourcesExhausted(_) => LimitReached::Memory { mib: memory >> 20 }.into(),
        // Not the question's fault.
        DataFusionError::ArrowError(inner, _) if matches!(**inner, ArrowError::ParquetError(_)) => broken(inner),
        DataFusionError::ParquetError(inner) => broken(inner),
        // The only type of a column that functions and windows may not know.
        DataFusionError::Internal(text) if text.contains("type Map(") || text.contains("datatype: Map(") => {
            StoreError::Sql("labels have no order; hint: name one of them, as in `client_labels['app']`".into())
        }
        DataFusionError::SQL(..)
        | DataFusionError::Plan(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::NotImplemented(_)
        | DataFusionError::Execution(_)
        | DataFusionError::ArrowError(..)
        | DataFusionError::Configuration(_) => {
            let text = match root {
                // Its own sentence: the engine prints it as Rust does.
                DataFusionError::SQL(error, _) => error.to_string(),
                _ => root.strip_backtrace(),
            };
            let text = text.split_once(": ").map_or(text.as_str(), |(_, text)| text);
            // It calls so what it was asked in the wrong way.
            let text = text.trim_start_matches("Internal error: ");
            StoreError::Sql(format!(
                "{}; hint: `SHOW TABLES` and `DESCRIBE flows` tell what there is",
                text.trim_end().trim_end_matches('.')
            ))
        }
        _ => TableError::Engine(error).into(),
    }
}
