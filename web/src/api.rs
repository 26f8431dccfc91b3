//! Flows and transactions, their fields, and the state of the appliance.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use wiretag_capture::{FlowRecord, Transaction};
use wiretag_enrich::Record;
use wiretag_enrich::tagged::{AnyColumn, all_columns};
use wiretag_store::Table;
use wiretag_store::tables::{Histogram, Page, Row, SearchOptions, TableStore};

use crate::aggregate::Served;
use crate::caller::Caller;
use crate::completeness::{Completeness, completeness};
use crate::error::{ApiError, ErrorBody};
use crate::params::{self, Params};
use crate::proof::proof;
use crate::queries::Kind;
use crate::{Inner, Shared};

const DEFAULT_LIMIT: usize = 100;
const MOST_ROWS: usize = 10_000;
const DEFAULT_BUCKETS: usize = 60;
const MOST_BUCKETS: usize = 1000;

/// Parameters of a search.
#[derive(serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SearchParameters {
    /// Query; empty means everything.
    q: Option<String>,
    /// Begin: RFC 3339, epoch seconds or milliseconds, or relative as in `-15m`. Default: 15 minutes before `to`.
    from: Option<String>,
    /// End, exclusive. Default: now.
    to: Option<String>,
    /// Rows at most, 1 to 10000. Default: 100.
    limit: Option<usize>,
    /// Also observations that are not primary.
    all_observations: Option<bool>,
    /// `next` of the page before.
    after: Option<String>,
}

/// Parameters of a histogram.
#[derive(serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistogramParameters {
    /// Query; empty means everything.
    q: Option<String>,
    /// Begin, as in a search.
    from: Option<String>,
    /// End, exclusive.
    to: Option<String>,
    /// Number of buckets, 1 to 1000. Default: 60.
    buckets: Option<usize>,
    /// Also observations that are not primary.
    all_observations: Option<bool>,
}

/// A page of flows, newest first.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct FlowsAnswer {
    /// Rows; the columns are those of `/api/v1/fields`.
    #[schema(value_type = Vec<Object>)]
    flows: Vec<Row>,
    /// What was lost in this time range.
    completeness: Completeness,
    /// Cursor of the next page, null at the end.
    next: Option<String>,
}

/// A page of transactions, newest first.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct TransactionsAnswer {
    /// Rows; the columns are those of `/api/v1/fields?table=transactions`.
    #[schema(value_type = Vec<Object>)]
    transactions: Vec<Row>,
    /// What was lost in this time range.
    completeness: Completeness,
    /// Cursor of the next page, null at the end.
    next: Option<String>,
}

/// Totals over time.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct HistogramAnswer {
    /// Stretches of equal length, oldest first. Of a minute or more they begin on whole minutes, of two hours or more on whole hours, so that there
    /// may be one more or fewer than were asked for; what is outside of the range does not count.
    buckets: Vec<BucketRow>,
    /// Where the totals come from.
    served_by: Served,
    /// What was lost in this time range.
    completeness: Completeness,
}

/// Totals of one stretch.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct BucketRow {
    /// Begin, RFC 3339.
    start: String,
    /// Rows.
    flows: u64,
    /// Sum of `client_bytes`.
    client_bytes: u64,
    /// Sum of `server_bytes`.
    server_bytes: u64,
    /// Sum of `client_packets`.
    client_packets: u64,
    /// Sum of `server_packets`.
    server_packets: u64,
    /// Ends of flows, two a row, that are `ambiguous`.
    ambiguous_ends: u64,
    /// Ends of flows that are `none`: nobody known.
    unnamed_ends: u64,
}

/// Totals of transactions over time.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct TransactionsHistogramAnswer {
    /// As those of flows.
    buckets: Vec<TransactionBucketRow>,
    /// Where the totals come from.
    served_by: Served,
    /// What was lost in this time range.
    completeness: Completeness,
}

/// Totals of the transactions of one stretch.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct TransactionBucketRow {
    /// Begin, RFC 3339.
    start: String,
    /// Rows.
    transactions: u64,
    /// Sum of `request_bytes`.
    request_bytes: u64,
    /// Sum of `response_bytes`.
    response_bytes: u64,
    /// Ends of transactions, two a row, that are `ambiguous`.
    ambiguous_ends: u64,
    /// Ends of transactions that are `none`: nobody known.
    unnamed_ends: u64,
}

/// One flow.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct FlowAnswer {
    /// Its slices, first to last; of more than 10,000, or than there is memory for, as many of the first as of the last.
    #[schema(value_type = Vec<Object>)]
    slices: Vec<Row>,
    /// How many slices lie between these.
    slices_left_out: u64,
    /// The same packets at other observation points, newest first.
    #[schema(value_type = Vec<Object>)]
    observations: Vec<Row>,
    /// There are more of these, which are older.
    observations_truncated: bool,
}

/// Parameters of the state.
#[derive(serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct HealthParameters {
    /// What the caller uses once: the answer's `proof` is its HMAC-SHA256, in hex, under the `secret` of the data directory's `run.json`.
    number: Option<String>,
}

/// Which vocabulary.
#[derive(serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FieldsParameters {
    /// `flows` or `transactions`. Default: flows.
    #[param(inline)]
    table: Option<TableParameter>,
}

/// A table that can be searched.
#[derive(serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TableParameter {
    /// `/api/v1/flows`.
    Flows,
    /// `/api/v1/transactions`.
    Transactions,
}

/// The vocabulary.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct FieldsAnswer {
    /// Columns in the order of output.
    fields: Vec<Field>,
}

/// One column.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct Field {
    /// Name.
    name: &'static str,
    /// bool, number, size, duration, time, ip, mac, text, word or map.
    kind: String,
    /// Definition.
    doc: &'static str,
}

/// Searches flows.
#[utoipa::path(get, path = "/api/v1/flows", params(SearchParameters), security(("token" = []), ("session" = [])),
    responses((status = 200, body = FlowsAnswer, description = "A page, newest first"),
        (status = 400, body = ErrorBody, description = "A mistake in a parameter"),
        (status = 401, body = ErrorBody, description = "Not authenticated"),
        (status = 422, body = ErrorBody, description = "More memory than a query may have")))]
pub(crate) async fn flows(
    State(shared): State<Shared>,
    caller: Caller,
    Params(parameters): Params<SearchParameters>,
) -> Result<Response, ApiError> {
    let (page, completeness) = page(&shared, &shared.store.flows, &caller, parameters).await?;
    let answer = FlowsAnswer { flows: page.rows, completeness, next: page.next };
    shared.answers.made(|| shared.answers.json(&answer, page.memory)).await
}

/// Searches transactions: one row for each DNS and HTTP exchange.
#[utoipa::path(get, path = "/api/v1/transactions", params(SearchParameters),
    security(("token" = []), ("session" = [])),
    responses((status = 200, body = TransactionsAnswer, description = "A page, newest first"),
        (status = 400, body = ErrorBody, description = "A mistake in a parameter"),
        (status = 401, body = ErrorBody, description = "Not authenticated"),
        (status = 422, body = ErrorBody, description = "More memory than a query may have")))]
pub(crate) async fn transactions(
    State(shared): State<Shared>,
    caller: Caller,
    Params(parameters): Params<SearchParameters>,
) -> Result<Response, ApiError> {
    let (page, completeness) = page(&shared, &shared.store.transactions, &caller, parameters).await?;
    let answer = TransactionsAnswer { transactions: page.rows, completeness, next: page.next };
    shared.answers.made(|| shared.answers.json(&answer, page.memory)).await
}

async fn page<R: Table>(
    shared: &Inner,
    table: &TableStore<R>,
    caller: &Caller,
    parameters: SearchParameters,
) -> Result<(Page, Completeness), ApiError> {
    let query = caller.query(parameters.q.as_deref())?;
    let range = params::range(parameters.from.as_deref(), parameters.to.as_deref())?;
    let limit = params::number("limit", parameters.limit, DEFAULT_LIMIT, MOST_ROWS)?;
    let after = parameters.after.filter(|after| !after.is_empty());
    let options = SearchOptions { limit, all_observations: parameters.all_observations.unwrap_or(false), after };
    // JSON has the labels of each row again.
    let work = table.search_within(&query, range, options, shared.answers.most() / 2);
    let page = shared.queries.run(Kind::Search, work).await?;
    Ok((page, completeness(shared, caller, range, false).await?))
}

/// Totals of flows over time.
#[utoipa::path(get, path = "/api/v1/flows/histogram", params(HistogramParameters),
    security(("token" = []), ("session" = [])),
    responses((status = 200, body = HistogramAnswer, description = "Totals"),
        (status = 400, body = ErrorBody, description = "A mistake in a parameter"),
        (status = 401, body = ErrorBody, description = "Not authenticated"),
        (status = 422, body = ErrorBody, description = "More memory than a query may have")))]
pub(crate) async fn histogram(
    State(shared): State<Shared>,
    caller: Caller,
    Params(parameters): Params<HistogramParameters>,
) -> Result<Json<HistogramAnswer>, ApiError> {
    let query = caller.query(parameters.q.as_deref())?;
    let range = params::range(parameters.from.as_deref(), parameters.to.as_deref())?;
    let buckets = params::number("buckets", parameters.buckets, DEFAULT_BUCKETS, MOST_BUCKETS)?;
    let all = parameters.all_observations.unwrap_or(false);
    let work = shared.store.flows.histogram(&query, range, buckets, all);
    let Histogram { buckets, served_by } = shared.queries.run(Kind::Aggregate, work).await?;
    let rows = buckets.iter().map(|bucket| BucketRow {
        start: wiretag_store::json::time(bucket.start),
        flows: bucket.flows,
        client_bytes: bucket.client_bytes,
        server_bytes: bucket.server_bytes,
        client_packets: bucket.client_packets,
        server_packets: bucket.server_packets,
        ambiguous_ends: bucket.ambiguous_ends,
        unnamed_ends: bucket.unnamed_ends,
    });
    Ok(Json(HistogramAnswer {
        buckets: rows.collect(),
        served_by: Served::of(served_by, &caller),
        completeness: completeness(&shared, &caller, range, served_by.rollable).await?,
    }))
}

/// Totals of transactions over time.
#[utoipa::path(get, path = "/api/v1/transactions/histogram", params(HistogramParameters),
    security(("token" = []), ("session" = [])),
    responses((status = 200, body = TransactionsHistogramAnswer, description = "Totals"),
        (status = 400, body = ErrorBody, description = "A mistake in a parameter"),
        (status = 401, body = ErrorBody, description = "Not authenticated"),
        (status = 422, body = ErrorBody, description = "More memory than a query may have")))]
pub(crate) async fn transactions_histogram(
    State(shared): State<Shared>,
    caller: Caller,
    Params(parameters): Params<HistogramParameters>,
) -> Result<Json<TransactionsHistogramAnswer>, ApiError> {
    let query = caller.query(parameters.q.as_deref())?;
    let range = params::range(parameters.from.as_deref(), parameters.to.as_deref())?;
    let buckets = params::number("buckets", parameters.buckets, DEFAULT_BUCKETS, MOST_BUCKETS)?;
    let all = parameters.all_observations.unwrap_or(false);
    let work = shared.store.transactions.histogram(&query, range, buckets, all);
    let Histogram { buckets, served_by } = shared.queries.run(Kind::Aggregate, work).await?;
    let rows = buckets.iter().map(|bucket| TransactionBucketRow {
        start: wiretag_store::json::time(bucket.start),
        transactions: bucket.transactions,
        request_bytes: bucket.request_bytes,
        response_bytes: bucket.response_bytes,
        ambiguous_ends: bucket.ambiguous_ends,
        unnamed_ends: bucket.unnamed_ends,
    });
    Ok(Json(TransactionsHistogramAnswer {
        buckets: rows.collect(),
        served_by: Served::of(served_by, &caller),
        completeness: completeness(&shared, &caller, range, served_by.rollable).await?,
    }))
}

/// One flow with its slices and its other observations.
#[utoipa::path(get, path = "/api/v1/flows/{flow_id}", params(("flow_id" = String, Path, description = "16 hex digits")),
    security(("token" = []), ("session" = [])),
    responses((status = 200, body = FlowAnswer, description = "The flow"),
        (status = 400, body = ErrorBody, description = "Not 16 hex digits"),
        (status = 401, body = ErrorBody, description = "Not authenticated"),
        (status = 404, body = ErrorBody, description = "No such flow"),
        (status = 422, body = ErrorBody, description = "More memory than a query may have")))]
pub(crate) async fn flow(
    State(shared): State<Shared>,
    caller: Caller,
    Path(flow_id): Path<String>,
) -> Result<Response, ApiError> {
    let id = params::flow_id(&flow_id)?;
    let flows = &shared.store.flows;
    let rows = caller.permitted();
    // Both have as much, and their JSON what is left.
    let memory = shared.answers.most() / 4;
    let work = async {
        let slices = flows.flow(id, &rows, memory).await?;
        let observations = flows.observations(id, &slices, &rows, memory).await?;
        Ok((slices, observations))
    };
    let (slices, observations) = shared.queries.run(Kind::Search, work).await?;
    if slices.rows.is_empty() {
        return Err(no_flow(&flow_id));
    }
    let memory = slices.memory + observations.memory;
    let answer = FlowAnswer {
        slices: slices.rows,
        slices_left_out: slices.left_out,
        observations: observations.rows,
        observations_truncated: observations.next.is_some(),
    };
    shared.answers.made(|| shared.answers.json(&answer, memory)).await
}

/// The columns of a flow, or of a transaction.
#[utoipa::path(get, path = "/api/v1/fields", params(FieldsParameters), security(("token" = []), ("session" = [])),
    responses((status = 200, body = FieldsAnswer, description = "All columns"),
        (status = 400, body = ErrorBody, description = "A mistake in a parameter"),
        (status = 401, body = ErrorBody, description = "Not authenticated")))]
pub(crate) async fn fields(Params(parameters): Params<FieldsParameters>) -> Json<FieldsAnswer> {
    let fields = match parameters.table {
        None | Some(TableParameter::Flows) => all_columns().map(field::<FlowRecord>).collect(),
        Some(TableParameter::Transactions) => all_columns().map(field::<Transaction>).collect(),
    };
    Json(FieldsAnswer { fields })
}

fn field<R: Record>(column: AnyColumn<R>) -> Field {
    Field { name: column.name(), kind: format!("{:?}", column.kind()).to_lowercase(), doc: column.doc() }
}

/// State of the appliance; in full only for those who may see all rows.
#[utoipa::path(get, path = "/api/v1/health", params(HealthParameters), security((), ("token" = []), ("session" = [])), responses(
    (status = 200, body = Object, description = "`{\"status\":\"ok\"}` or `degraded`, with authentication more: `problems` are sentences"),
    (status = 400, body = ErrorBody, description = "A mistake in a parameter")))]
pub(crate) async fn health(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Params(parameters): Params<HealthParameters>,
) -> Json<Value> {
    let full = shared.auth.sender(&headers, peer.ip()).is_some_and(|caller| caller.rows().is_none());
    let all = (shared.health)();
    let mut health = if full { all } else { json!({"status": all.get("status")}) };
    if let (Some(health), Some(number)) = (health.as_object_mut(), parameters.number) {
        health.insert("proof".into(), proof(&shared.secret, &number).into());
    }
    Json(health)
}

/// This document.
#[utoipa::path(get, path = "/api/v1/openapi.json", security(("token" = []), ("session" = [])), responses(
    (status = 200, body = Object, description = "OpenAPI"),
    (status = 401, body = ErrorBody, description = "Not authenticated")))]
pub(crate) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], crate::openapi_json()).into_response()
}

pub(crate) fn no_flow(flow_id: &str) -> ApiError {
    ApiError::unknown(format!("no flow `{flow_id}`"), "it may be older than the retention")
}
