//! Flows and transactions, their fields, and the state of the appliance.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use wiretag_capture::{FlowRecord, Transaction};
use wiretag_enrich::Record;
use wiretag_enrich::tagged::{AnyColumn, all_columns};
use wiretag_store::Table;
use wiretag_store::tables::{Missing, Page, Range, Row, SearchOptions, TableStore};

use crate::caller::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::params::{self, Params};
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

/// What was lost in a time range.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct Completeness {
    /// No packet and no row was lost by a kernel, a queue, a full disk or a kill, all that is stored can be read, and all imports came to their
    /// end.
    complete: bool,
    /// Files of this time that cannot be read.
    unreadable_files: u64,
    /// Rows of these: what they have is not part of answers.
    unreadable_rows: u64,
    /// Imports of files with rows or packets of this time that did not come to their end.
    unfinished_imports: u64,
    /// Flows that retention has deleted of the hours of this range; they were not lost. Of groups: those that no roll-up adds up.
    retired_flow_rows: u64,
    /// Transactions that retention has deleted of these hours.
    retired_transactions: u64,
    /// Packets that retention has deleted of these hours.
    retired_packets: u64,
    /// By node.
    nodes: Vec<NodeLoss>,
}

/// Packets of one node.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct NodeLoss {
    /// Node.
    node: String,
    /// Packets captured.
    packets: u64,
    /// Dropped by the kernel.
    kernel_drops: u64,
    /// Dropped by a full queue.
    queue_drops: u64,
    /// Not decoded, for a counted reason.
    refused: u64,
    /// Captured, in flows, and not written to the packet log.
    unwritten: u64,
    /// Rows of flows that were lost.
    flow_rows_lost: u64,
    /// Transactions that were lost.
    transactions_lost: u64,
    /// Times that the node was killed or crashed, so that what it saw in the seconds before is missing, or that it could not capture.
    interruptions: u64,
}

/// Totals over time.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct HistogramAnswer {
    /// Stretches of equal length, oldest first.
    buckets: Vec<BucketRow>,
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
    /// Stretches of equal length, oldest first.
    buckets: Vec<TransactionBucketRow>,
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
    /// Its slices, first to last.
    #[schema(value_type = Vec<Object>)]
    slices: Vec<Row>,
    /// The same packets at other observation points.
    #[schema(value_type = Vec<Object>)]
    observations: Vec<Row>,
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
        (status = 401, body = ErrorBody, description = "Not authenticated")))]
pub(crate) async fn flows(
    State(shared): State<Shared>,
    caller: Caller,
    Params(parameters): Params<SearchParameters>,
) -> Result<Json<FlowsAnswer>, ApiError> {
    let (page, completeness) = page(&shared, &shared.store.flows, &caller, parameters).await?;
    Ok(Json(FlowsAnswer { flows: page.rows, completeness, next: page.next }))
}

/// Searches transactions: one row for each DNS and HTTP exchange.
#[utoipa::path(get, path = "/api/v1/transactions", params(SearchParameters),
    security(("token" = []), ("session" = [])),
    responses((status = 200, body = TransactionsAnswer, description = "A page, newest first"),
        (status = 400, body = ErrorBody, description = "A mistake in a parameter"),
        (status = 401, body = ErrorBody, description = "Not authenticated")))]
pub(crate) async fn transactions(
    State(shared): State<Shared>,
    caller: Caller,
    Params(parameters): Params<SearchParameters>,
) -> Result<Json<TransactionsAnswer>, ApiError> {
    let (page, completeness) = page(&shared, &shared.store.transactions, &caller, parameters).await?;
    Ok(Json(TransactionsAnswer { transactions: page.rows, completeness, next: page.next }))
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
    let page = shared.queries.run(Kind::Search, table.search(&query, range, options)).await?;
    Ok((page, completeness(shared, range, false).await?))
}

/// Totals of flows over time.
#[utoipa::path(get, path = "/api/v1/flows/histogram", params(HistogramParameters),
    security(("token" = []), ("session" = [])),
    responses((status = 200, body = HistogramAnswer, description = "Totals"),
        (status = 400, body = ErrorBody, description = "A mistake in a parameter"),
        (status = 401, body = ErrorBody, description = "Not authenticated")))]
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
    let buckets = shared.queries.run(Kind::Aggregate, work).await?;
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
    Ok(Json(HistogramAnswer { buckets: rows.collect() }))
}

/// Totals of transactions over time.
#[utoipa::path(get, path = "/api/v1/transactions/histogram", params(HistogramParameters),
    security(("token" = []), ("session" = [])),
    responses((status = 200, body = TransactionsHistogramAnswer, description = "Totals"),
        (status = 400, body = ErrorBody, description = "A mistake in a parameter"),
        (status = 401, body = ErrorBody, description = "Not authenticated")))]
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
    let buckets = shared.queries.run(Kind::Aggregate, work).await?;
    let rows = buckets.iter().map(|bucket| TransactionBucketRow {
        start: wiretag_store::json::time(bucket.start),
        transactions: bucket.transactions,
        request_bytes: bucket.request_bytes,
        response_bytes: bucket.response_bytes,
        ambiguous_ends: bucket.ambiguous_ends,
        unnamed_ends: bucket.unnamed_ends,
    });
    Ok(Json(TransactionsHistogramAnswer { buckets: rows.collect() }))
}

/// One flow with its slices and its other observations.
#[utoipa::path(get, path = "/api/v1/flows/{flow_id}", params(("flow_id" = String, Path, description = "16 hex digits")),
    security(("token" = []), ("session" = [])),
    responses((status = 200, body = FlowAnswer, description = "The flow"),
        (status = 401, body = ErrorBody, description = "Not authenticated"),
        (status = 404, body = ErrorBody, description = "No such flow")))]
pub(crate) async fn flow(
    State(shared): State<Shared>,
    caller: Caller,
    Path(flow_id): Path<String>,
) -> Result<Json<FlowAnswer>, ApiError> {
    let id = params::flow_id(&flow_id)?;
    let flows = &shared.store.flows;
    let rows = caller.permitted();
    let work = async { Ok((flows.flow(id, &rows).await?, flows.observations(id, &rows).await?)) };
    let (slices, observations) = shared.queries.run(Kind::Search, work).await?;
    if slices.is_empty() {
        return Err(no_flow(&flow_id));
    }
    Ok(Json(FlowAnswer { slices, observations }))
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
#[utoipa::path(get, path = "/api/v1/health", security((), ("token" = []), ("session" = [])), responses(
    (status = 200, body = Object, description = "`{\"status\":\"ok\",\"instance\":…}` or `degraded`, with authentication more: `problems` are sentences")))]
pub(crate) async fn health(State(shared): State<Shared>, headers: HeaderMap) -> Json<Value> {
    let full = shared.auth.caller(&headers).is_some_and(|caller| caller.rows().is_none());
    let all = (shared.health)();
    let mut health = if full { all } else { json!({"status": all.get("status")}) };
    if let Some(health) = health.as_object_mut() {
        health.insert("instance".into(), shared.instance.as_str().into());
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

/// `rollable`: roll-ups can answer what is asked.
pub(crate) async fn completeness(shared: &Inner, range: Range, rollable: bool) -> Result<Completeness, ApiError> {
    let mut nodes: BTreeMap<String, NodeLoss> = BTreeMap::new();
    let pending = (shared.pending_loss)();
    let pending = Some(pending).filter(|loss| loss.to > range.from && loss.from < range.to);
    let known = shared.store.completeness(range.from, range.to, rollable).await?;
    let Missing { files: unreadable_files, rows: unreadable_rows } = known.unreadable;
    let unfinished_imports = known.unfinished_imports;
    let mut complete = unreadable_files == 0 && unfinished_imports == 0;
    for loss in known.nodes.into_iter().chain(pending) {
        complete &= loss.is_complete();
        let node = nodes.entry(loss.node.clone()).or_insert_with(|| NodeLoss {
            node: loss.node.clone(),
            packets: 0,
            kernel_drops: 0,
            queue_drops: 0,
            refused: 0,
            unwritten: 0,
            flow_rows_lost: 0,
            transactions_lost: 0,
            interruptions: 0,
        });
        node.packets += loss.packets;
        node.kernel_drops += loss.kernel_drops;
        node.queue_drops += loss.queue_drops;
        node.refused += loss.refused;
        node.unwritten += loss.unwritten;
        node.flow_rows_lost += loss.flow_rows;
        node.transactions_lost += loss.transaction_rows;
        node.interruptions += loss.interruptions;
    }
    let nodes = nodes.into_values().collect();
    Ok(Completeness {
        complete,
        unreadable_files,
        unreadable_rows,
        unfinished_imports,
        retired_flow_rows: known.retired.flow_rows,
        retired_transactions: known.retired.transaction_rows,
        retired_packets: known.retired.packets,
        nodes,
    })
}
