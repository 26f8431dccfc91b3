//! Groups of flows and transactions with their figures: aggregations as they are typed, and top lists.

use std::borrow::Borrow;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};
use wiretag_capture::{FlowRecord, Transaction};
use wiretag_store::json::time;
use wiretag_store::query::{self, AnswerColumn, Statement};
use wiretag_store::tables::{AggregateAnswer, AggregateRequest, GroupRow, Range, ServedBy, TableStore};
use wiretag_store::{Table, csv};

use crate::caller::Caller;
use crate::completeness::{Completeness, HEADER, completeness};
use crate::error::{ApiError, ErrorBody};
use crate::params::{self, Params};
use crate::queries::Kind;
use crate::{Inner, Shared};

/// Groups of a top list unless `limit` says otherwise.
const DEFAULT_TOP: usize = 10;
/// Groups of a top list at most.
const MOST_TOP: usize = 10_000;

/// Parameters of an aggregation.
#[derive(serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AggregateParameters {
    /// A condition, which may be empty, and an aggregation behind `|`, as in `port == 443 | p99(server_rtt_us) by server_workload, 1m`.
    q: String,
    /// Begin, as in a search. Rows that start in the range count.
    from: Option<String>,
    /// End, exclusive.
    to: Option<String>,
    /// Also observations that are not primary.
    all_observations: Option<bool>,
    /// Also the figures of the period before, of the same length, as `previous_…`.
    compare: Option<bool>,
    /// `json` or `csv`. Default: json.
    #[param(inline)]
    format: Option<AnswerFormat>,
}

/// Parameters of a top list.
#[derive(serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct TopParameters {
    /// What makes a group: a column, or several with `,`.
    field: String,
    /// What counts: `bytes`, `count`, `p99(server_rtt_us)`, …; the first orders. Default: bytes and rows.
    by: Option<String>,
    /// Query; empty means everything.
    q: Option<String>,
    /// Groups at most, 1 to 10000. Default: 10.
    limit: Option<usize>,
    /// Begin, as in a search. Rows that start in the range count.
    from: Option<String>,
    /// End, exclusive.
    to: Option<String>,
    /// Also observations that are not primary.
    all_observations: Option<bool>,
    /// Also the figures of the period before, of the same length, as `previous_…`.
    compare: Option<bool>,
    /// `json` or `csv`. Default: json.
    #[param(inline)]
    format: Option<AnswerFormat>,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AnswerFormat {
    /// An object.
    #[default]
    Json,
    /// RFC 4180, with a header.
    Csv,
}

/// Groups with their figures.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct GroupsAnswer {
    /// Columns of the rows: keys, figures, and figures of the period before if they were asked for.
    columns: Vec<GroupColumn>,
    /// One for each group, in order.
    #[schema(value_type = Vec<Object>)]
    rows: Vec<GroupRow>,
    /// How many groups there are, of which `rows` may have fewer.
    groups: u64,
    /// What the figures are of.
    range: Period,
    /// What they are compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<Period>,
    /// Where the figures come from.
    served_by: Served,
    /// What was lost in this time range.
    completeness: Completeness,
}

/// A column of an answer.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct GroupColumn {
    /// Name, as in the question.
    name: String,
    /// As in `/api/v1/fields`; `number_per_second` and the like for rates.
    kind: String,
    /// It makes the group.
    key: bool,
}

/// A range of time.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct Period {
    /// Begin, RFC 3339.
    from: String,
    /// End, exclusive.
    to: String,
}

/// Where figures come from.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct Served {
    /// Files of rows that were read.
    files: u64,
    /// Rows that were added up.
    rows: u64,
    /// Files of roll-ups that were read instead of files of rows.
    rollups: u64,
    /// Only roll-ups are left of a part of the range: what counts there is whole minutes (60) or hours (3600) that begin in it, s.
    #[serde(skip_serializing_if = "Option::is_none")]
    resolution: Option<i64>,
}

impl From<Range> for Period {
    fn from(Range { from, to }: Range) -> Self {
        Self { from: time(from), to: time(to) }
    }
}

impl Served {
    /// Which files had to be read tells those who may see some rows only of rows that are not theirs.
    pub(crate) fn of(served_by: ServedBy, caller: &Caller) -> Self {
        let ServedBy { mut files, rows, mut rollups, resolution, .. } = served_by;
        if caller.rows().is_some() {
            (files, rollups) = (0, 0);
        }
        Self { files, rows, rollups, resolution: resolution.map(|length| length / 1_000_000_000) }
    }
}

/// Groups of flows.
#[utoipa::path(get, path = "/api/v1/flows/aggregate", params(AggregateParameters),
    security(("token" = []), ("session" = [])),
    responses((status = 200, description = "Groups", content((GroupsAnswer = "application/json"), (String = "text/csv"))),
        (status = 400, body = ErrorBody, description = "A mistake in a parameter"),
        (status = 401, body = ErrorBody, description = "Not authenticated"),
        (status = 422, body = ErrorBody, description = "More memory or groups than a query may have"),
        (status = 503, body = ErrorBody, description = "No place, or no time left")))]
pub(crate) async fn flows(
    State(shared): State<Shared>,
    caller: Caller,
    Params(parameters): Params<AggregateParameters>,
) -> Result<Response, ApiError> {
    typed::<FlowRecord>(&shared, &shared.store.flows, &caller, &parameters).await
}

/// Groups of transactions.
#[utoipa::path(get, path = "/api/v1/transactions/aggregate", params(AggregateParameters),
    security(("token" = []), ("session" = [])),
    responses((status = 200, description = "Groups", content((GroupsAnswer = "application/json"), (String = "text/csv"))),
        (status = 400, body = ErrorBody, description = "A mistake in a parameter"),
        (status = 401, body = ErrorBody, description = "Not authenticated"),
        (status = 422, body = ErrorBody, description = "More memory or groups than a query may have"),
        (status = 503, body = ErrorBody, description = "No place, or no time left")))]
pub(crate) async fn transactions(
    State(shared): State<Shared>,
    caller: Caller,
    Params(parameters): Params<AggregateParameters>,
) -> Result<Response, ApiError> {
    typed::<Transaction>(&shared, &shared.store.transactions, &caller, &parameters).await
}

/// The groups of flows that have the most of something.
#[utoipa::path(get, path = "/api/v1/flows/top", params(TopParameters), security(("token" = []), ("session" = [])),
    responses((status = 200, description = "Groups, greatest first", content((GroupsAnswer = "application/json"), (String = "text/csv"))),
        (status = 400, body = ErrorBody, description = "A mistake in a parameter"),
        (status = 401, body = ErrorBody, description = "Not authenticated"),
        (status = 422, body = ErrorBody, description = "More memory than a query may have"),
        (status = 503, body = ErrorBody, description = "No place, or no time left")))]
pub(crate) async fn top_flows(
    State(shared): State<Shared>,
    caller: Caller,
    Params(parameters): Params<TopParameters>,
) -> Result<Response, ApiError> {
    top::<FlowRecord>(&shared, &shared.store.flows, &caller, &parameters).await
}

/// The groups of transactions that have the most of something.
#[utoipa::path(get, path = "/api/v1/transactions/top", params(TopParameters),
    security(("token" = []), ("session" = [])),
    responses((status = 200, description = "Groups, greatest first", content((GroupsAnswer = "application/json"), (String = "text/csv"))),
        (status = 400, body = ErrorBody, description = "A mistake in a parameter"),
        (status = 401, body = ErrorBody, description = "Not authenticated"),
        (status = 422, body = ErrorBody, description = "More memory than a query may have"),
        (status = 503, body = ErrorBody, description = "No place, or no time left")))]
pub(crate) async fn top_transactions(
    State(shared): State<Shared>,
    caller: Caller,
    Params(parameters): Params<TopParameters>,
) -> Result<Response, ApiError> {
    top::<Transaction>(&shared, &shared.store.transactions, &caller, &parameters).await
}

async fn typed<R: Table>(
    shared: &Inner,
    table: &TableStore<R>,
    caller: &Caller,
    parameters: &AggregateParameters,
) -> Result<Response, ApiError> {
    let Statement { filter, aggregate } = caller.statement(&parameters.q)?;
    let Some(aggregate) = aggregate else {
        let hint = "end it with `| count by server_workload`, `| top 10 client_pod by bytes`, …";
        return Err(ApiError::wrong("`q` has no aggregation", hint));
    };
    let request = AggregateRequest {
        filter,
        aggregate,
        range: params::range(parameters.from.as_deref(), parameters.to.as_deref())?,
        all_observations: parameters.all_observations.unwrap_or(false),
        compare: parameters.compare.unwrap_or(false),
        memory: shared.queries.memory(),
    };
    answered(shared, table, caller, (&request, parameters.format.unwrap_or_default())).await
}

async fn top<R: Table>(
    shared: &Inner,
    table: &TableStore<R>,
    caller: &Caller,
    parameters: &TopParameters,
) -> Result<Response, ApiError> {
    let limit = params::number("limit", parameters.limit, DEFAULT_TOP, MOST_TOP)?;
    let request = AggregateRequest {
        filter: caller.query(parameters.q.as_deref())?,
        aggregate: query::top(&parameters.field, parameters.by.as_deref().unwrap_or_default(), limit)?,
        range: params::range(parameters.from.as_deref(), parameters.to.as_deref())?,
        all_observations: parameters.all_observations.unwrap_or(false),
        compare: parameters.compare.unwrap_or(false),
        memory: shared.queries.memory(),
    };
    answered(shared, table, caller, (&request, parameters.format.unwrap_or_default())).await
}

async fn answered<R: Table>(
    shared: &Inner,
    table: &TableStore<R>,
    caller: &Caller,
    (request, format): (&AggregateRequest<R>, AnswerFormat),
) -> Result<Response, ApiError> {
    let answer = shared.queries.run(Kind::Aggregate, table.aggregate(request)).await?;
    let completeness = completeness(shared, caller, request.time(), answer.served_by.rollable).await?;
    let make = || match format {
        AnswerFormat::Json => {
            let AggregateAnswer { columns, rows, groups, previous, served_by } = answer;
            let columns = columns.into_iter().map(|AnswerColumn { name, kind, is_key }| GroupColumn {
                name,
                kind: kind.name(),
                key: is_key,
            });
            let answer = GroupsAnswer {
                columns: columns.collect(),
                rows,
                groups,
                range: request.range.into(),
                previous: previous.map(Period::from),
                served_by: Served::of(served_by, caller),
                completeness,
            };
            Json(answer).into_response()
        }
        AnswerFormat::Csv => {
            let names: Vec<&str> = answer.columns.iter().map(|column| column.name.as_str()).collect();
            as_csv(&names, answer.rows.iter().map(GroupRow::to_map), &completeness)
        }
    };
    Ok(shared.answers.made(make).await)
}

/// Rows as CSV with a header.
pub(crate) fn as_csv(
    names: &[&str],
    rows: impl Iterator<Item: Borrow<Map<String, Value>>>,
    completeness: &Completeness,
) -> Response {
    let mut text = csv::header(names.iter().copied());
    for row in rows {
        text.push_str("\r\n");
        text.push_str(&csv::line(names.iter().copied(), row.borrow()));
    }
    text.push_str("\r\n");
    let kind = HeaderValue::from_static("text/csv; charset=utf-8; header=present");
    ([(header::CONTENT_TYPE, kind), (HEADER, completeness.header())], text).into_response()
}
