//! Everything that matches as Parquet, CSV, JSON lines or IPFIX: a download, streamed as packets are ([`crate::download`]).

use axum::extract::State;
use axum::response::Response;
use wiretag_enrich::ipfix::Numbers;
use wiretag_store::tables::{ExportFormat, ExportOptions, TableStore};
use wiretag_store::{Store, Table, TableName};

use crate::Shared;
use crate::caller::Caller;
use crate::completeness::completeness;
use crate::download::File;
use crate::error::{ApiError, ErrorBody};
use crate::params::{self, Params};

/// Parameters of an export.
#[derive(serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExportParameters {
    /// `parquet`, `csv` (with a header), `json` or `jsonl` (one object a line), or of flows `ipfix` (a file of RFC 5655).
    #[param(inline)]
    format: FormatParameter,
    /// Query; empty means everything.
    q: Option<String>,
    /// Begin, as in a search.
    from: Option<String>,
    /// End, exclusive.
    to: Option<String>,
    /// Also observations that are not primary.
    all_observations: Option<bool>,
    /// Rows at most, the newest. Default: all.
    limit: Option<u64>,
}

/// How rows are written.
#[derive(Clone, Copy, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FormatParameter {
    /// One file, zstd.
    Parquet,
    /// RFC 4180.
    Csv,
    /// JSON lines, as the command line calls them.
    Json,
    /// JSON lines.
    Jsonl,
    /// RFC 5655.
    Ipfix,
}

impl FormatParameter {
    const fn parts(self, numbers: Numbers, now: i64) -> (ExportFormat, &'static str, &'static str) {
        match self {
            Self::Parquet => (ExportFormat::Parquet, "application/vnd.apache.parquet", "parquet"),
            Self::Csv => (ExportFormat::Csv, "text/csv; charset=utf-8", "csv"),
            Self::Json | Self::Jsonl => (ExportFormat::JsonLines, "application/x-ndjson", "jsonl"),
            Self::Ipfix => (ExportFormat::Ipfix { numbers, now }, "application/octet-stream", "ipfix"),
        }
    }
}

/// All flows that match, newest first.
#[utoipa::path(get, path = "/api/v1/flows/export", params(ExportParameters), security(("token" = []), ("session" = [])),
    responses((status = 200, description = "All rows, as `format` says; cut off if it fails on the way", content(
            (Vec<u8> = "application/vnd.apache.parquet"),
            (String = "text/csv"),
            (String = "application/x-ndjson"),
            (Vec<u8> = "application/octet-stream"))),
        (status = 400, body = ErrorBody, description = "A mistake in a parameter"),
        (status = 401, body = ErrorBody, description = "Not authenticated"),
        (status = 503, body = ErrorBody, description = "Too many downloads")))]
pub(crate) async fn flows(
    State(shared): State<Shared>,
    caller: Caller,
    Params(parameters): Params<ExportParameters>,
) -> Result<Response, ApiError> {
    export(&shared, |store| &store.flows, &caller, &parameters).await
}

/// All transactions that match, newest first.
#[utoipa::path(get, path = "/api/v1/transactions/export", params(ExportParameters),
    security(("token" = []), ("session" = [])),
    responses((status = 200, description = "All rows, as `format` says; cut off if it fails on the way", content(
            (Vec<u8> = "application/vnd.apache.parquet"),
            (String = "text/csv"),
            (String = "application/x-ndjson"))),
        (status = 400, body = ErrorBody, description = "A mistake in a parameter"),
        (status = 401, body = ErrorBody, description = "Not authenticated"),
        (status = 503, body = ErrorBody, description = "Too many downloads")))]
pub(crate) async fn transactions(
    State(shared): State<Shared>,
    caller: Caller,
    Params(parameters): Params<ExportParameters>,
) -> Result<Response, ApiError> {
    export(&shared, |store| &store.transactions, &caller, &parameters).await
}

async fn export<R: Table>(
    shared: &Shared,
    table: fn(&Store) -> &TableStore<R>,
    caller: &Caller,
    parameters: &ExportParameters,
) -> Result<Response, ApiError> {
    let query = caller.query::<R>(parameters.q.as_deref())?;
    let range = params::range(parameters.from.as_deref(), parameters.to.as_deref())?;
    let all_observations = parameters.all_observations.unwrap_or(false);
    if matches!(parameters.format, FormatParameter::Ipfix) && R::NAME != TableName::Flows {
        return Err(ApiError::wrong("IPFIX tells of flows", "transactions are `parquet`, `csv` or `json`"));
    }
    let (format, content_type, ending) = parameters.format.parts(shared.ipfix, crate::now());
    let options = ExportOptions { format, range, all_observations, limit: parameters.limit };
    let place = shared.downloads.place(&caller.who)?;
    let table = table(&shared.store).clone();
    let completeness = completeness(shared, caller, range, false).await?;
    let file = File { content_type, name: format!("wiretag-{}.{ending}", R::NAME), completeness };
    Ok(file.answer(place, |sender| async move { table.export_to(&query, options, sender).await }))
}
