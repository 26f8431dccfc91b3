//! SQL over what is kept, for reading only.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};
use wiretag_store::sql::SqlRequest;
use wiretag_store::tables::Range;

use crate::Shared;
use crate::aggregate::{AnswerFormat, as_csv};
use crate::caller::Caller;
use crate::completeness::{Completeness, completeness};
use crate::error::{ApiError, ErrorBody};
use crate::params;
use crate::queries::Kind;

/// Rows unless `limit` says otherwise.
const DEFAULT_LIMIT: usize = 10_000;
/// Rows at most.
const MOST_ROWS: usize = 1_000_000;

/// A question in SQL.
#[derive(serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SqlQuestion {
    /// One statement: `SELECT`, `WITH`, `EXPLAIN`, `DESCRIBE`, `SHOW TABLES`, `SHOW COLUMNS`.
    query: String,
    /// Rows at most, 1 to 1000000. Default: 10000.
    limit: Option<usize>,
    /// `json` or `csv`. Default: json.
    format: Option<AnswerFormat>,
}

/// Rows of an answer in SQL.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct SqlRows {
    /// Columns in order.
    columns: Vec<SqlColumn>,
    /// Rows in order.
    #[schema(value_type = Vec<Object>)]
    rows: Vec<Map<String, Value>>,
    /// There are more rows than `limit`.
    truncated: bool,
    /// What was lost, whenever.
    completeness: Completeness,
}

/// A column of an answer in SQL.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct SqlColumn {
    /// Name.
    name: String,
    /// bool, number, time, text, map or list.
    kind: String,
}

/// Asks in SQL: tables `flows`, `transactions`, `identities`, `segments`; for a reader of some rows the first two, of these rows.
#[utoipa::path(post, path = "/api/v1/sql", request_body = SqlQuestion, security(("token" = []), ("session" = [])),
    responses((status = 200, description = "Rows", content((SqlRows = "application/json"), (String = "text/csv"))),
        (status = 400, body = ErrorBody, description = "A mistake in the query, or it would not only read"),
        (status = 401, body = ErrorBody, description = "Not authenticated"),
        (status = 403, body = ErrorBody, description = "By cookie without the header `x-wiretag`"),
        (status = 422, body = ErrorBody, description = "More memory than a query may have"),
        (status = 503, body = ErrorBody, description = "No place, or no time left")))]
pub(crate) async fn sql(
    State(shared): State<Shared>,
    caller: Caller,
    question: Result<Json<SqlQuestion>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(SqlQuestion { query, limit, format }) = question.map_err(|error| {
        ApiError::wrong(error.body_text(), "send `{\"query\": \"select …\"}` as `application/json`")
    })?;
    let limit = params::number("limit", limit, DEFAULT_LIMIT, MOST_ROWS)?;
    let request = SqlRequest { text: query, limit, memory: shared.queries.memory(), rows: caller.rows().cloned() };
    let identities = (shared.identities)();
    let answer = shared.queries.run(Kind::Sql, shared.store.sql(&request, identities)).await?;
    // By now it is known which files cannot be read.
    let completeness = completeness(&shared, &caller, Range::ALL, false).await?;
    let make = || match format.unwrap_or_default() {
        AnswerFormat::Json => {
            let columns = answer.columns.into_iter().map(|(name, kind)| SqlColumn { name, kind }).collect();
            Json(SqlRows { columns, rows: answer.rows, truncated: answer.truncated, completeness }).into_response()
        }
        AnswerFormat::Csv => as_csv(
            &answer.columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            answer.rows.iter(),
            &completeness,
        ),
    };
    Ok(shared.answers.made(make).await)
}
