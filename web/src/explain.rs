//! How a query is answered: files, what is left out, the engine's plan, and the time.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use tokio::time::Instant;
use wiretag_store::Table;
use wiretag_store::tables::{ExplainRequest, Explanation, TableStore, Work};

use crate::api::TableParameter;
use crate::caller::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::queries::Kind;
use crate::{Inner, Shared, params};

/// Rows of a page, unless `limit` says otherwise.
const DEFAULT_LIMIT: usize = 100;
/// Rows of a page at most.
const MOST_ROWS: usize = 10_000;

/// A query to be explained: the parameters of a search or an aggregation.
#[derive(serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExplainQuestion {
    /// A condition, which an aggregation may follow. Default: everything.
    q: Option<String>,
    /// Which table. Default: flows.
    table: Option<TableParameter>,
    /// Begin, as in a search.
    from: Option<String>,
    /// End, exclusive.
    to: Option<String>,
    /// Also observations that are not primary.
    all_observations: Option<bool>,
    /// Rows of a page, 1 to 10000. Default: 100.
    limit: Option<usize>,
    /// `next` of the page before.
    after: Option<String>,
}

/// How it was answered; the answer itself is thrown away. Who may see some rows only is not told what work it was: all of that is 0.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct ExplainAnswer {
    /// What is done, in sentences.
    steps: Vec<String>,
    /// Rows or groups that the answer has.
    answer_rows: u64,
    /// How long it took, µs.
    elapsed_us: u64,
    /// Files of the table, whatever their time.
    files: u64,
    /// Rows in these.
    rows: u64,
    /// Rows in memory that were looked at, open slices included.
    memory_rows: u64,
    /// Files that have rows in the range of time.
    files_in_range: u64,
    /// Those of them that could not be left out.
    files_candidates: u64,
    /// Those of them that were opened: a page is often full before.
    files_opened: u64,
    /// Rows that the files gave: those that passed.
    rows_found: u64,
    /// Bytes that were read of files.
    bytes_read: u64,
    /// Parts of the opened files.
    row_groups: u64,
    /// Of these, left out by statistics.
    row_groups_pruned: u64,
    /// Of these, left out by bloom filters.
    row_groups_pruned_by_bloom: u64,
    /// Roll-ups that were read in place of rows.
    rollups: u64,
    /// Their rows that were added up.
    rolled_rows: u64,
    /// The engine's plans, the first few, innermost last.
    plans: Vec<String>,
}

/// Answers a query, and tells how.
#[utoipa::path(post, path = "/api/v1/explain", request_body = ExplainQuestion,
    security(("token" = []), ("session" = [])),
    responses((status = 200, body = ExplainAnswer, description = "How it was answered"),
        (status = 400, body = ErrorBody, description = "A mistake in the question"),
        (status = 401, body = ErrorBody, description = "Not authenticated"),
        (status = 403, body = ErrorBody, description = "By cookie without the header `x-wiretag`"),
        (status = 422, body = ErrorBody, description = "More memory or groups than a query may have"),
        (status = 503, body = ErrorBody, description = "No place, or no time left")))]
pub(crate) async fn explain(
    State(shared): State<Shared>,
    caller: Caller,
    question: Result<Json<ExplainQuestion>, JsonRejection>,
) -> Result<Json<ExplainAnswer>, ApiError> {
    let Json(question) = question
        .map_err(|error| ApiError::wrong(error.body_text(), "send `{\"q\": \"port == 443\"}` as `application/json`"))?;
    match question.table {
        None | Some(TableParameter::Flows) => of(&shared, &shared.store.flows, &caller, question).await,
        Some(TableParameter::Transactions) => of(&shared, &shared.store.transactions, &caller, question).await,
    }
}

async fn of<R: Table>(
    shared: &Inner,
    table: &TableStore<R>,
    caller: &Caller,
    question: ExplainQuestion,
) -> Result<Json<ExplainAnswer>, ApiError> {
    let request = ExplainRequest {
        statement: caller.statement(question.q.as_deref().unwrap_or_default())?,
        range: params::range(question.from.as_deref(), question.to.as_deref())?,
        all_observations: question.all_observations.unwrap_or(false),
        limit: params::number("limit", question.limit, DEFAULT_LIMIT, MOST_ROWS)?,
        after: question.after.filter(|after| !after.is_empty()),
        memory: shared.queries.memory(),
    };
    let begin = Instant::now();
    let explained = shared.queries.run(Kind::Search, table.explain(&request)).await?;
    let Explanation { steps, answer_rows, mut files, mut rows, mut work, mut plans } = explained;
    if caller.rows().is_some() {
        // What had to be read, and what could be left out, tells of rows that are not theirs.
        (files, rows, work, plans) = (0, 0, Work::default(), Vec::new());
    }
    let Work {
        memory_rows,
        files_in_range,
        files_candidates,
        files_opened,
        plans: _,
        rows_found,
        bytes_read,
        row_groups,
        row_groups_pruned,
        row_groups_pruned_by_bloom,
        rollups,
        rolled_rows,
    } = work;
    Ok(Json(ExplainAnswer {
        steps,
        answer_rows,
        elapsed_us: begin.elapsed().as_micros() as u64,
        files,
        rows,
        memory_rows,
        files_in_range,
        files_candidates,
        files_opened,
        rows_found,
        bytes_read,
        row_groups,
        row_groups_pruned,
        row_groups_pruned_by_bloom,
        rollups,
        rolled_rows,
        plans,
    }))
}
