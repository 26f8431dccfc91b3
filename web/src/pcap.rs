//! Packets as a pcapng download, streamed: the export waits while the client reads, and ends when the client goes.
//!
//! A failure before the first byte is an error like any other; one after it breaks the connection off, so that a damaged
//! file never looks whole.

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;
use wiretag_store::tables::Range;
use wiretag_store::{Selection, StoreError, query};

use crate::Shared;
use crate::api::no_flow;
use crate::error::{ApiError, ErrorBody};
use crate::params::{self, Params};
use crate::queries::Kind;

/// Chunks between export and connection.
const CHUNKS: usize = 8;
/// Flows in one download.
const MOST_FLOWS: usize = 100_000;

/// Parameters of a download.
#[derive(serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PcapParameters {
    /// Query; empty means every packet in the range, also of no flow or of one that has not ended.
    q: Option<String>,
    /// Begin, as in a search.
    from: Option<String>,
    /// End, exclusive.
    to: Option<String>,
    /// Also observations that are not primary.
    all_observations: Option<bool>,
}

/// Packets of one flow.
#[utoipa::path(get, path = "/api/v1/flows/{flow_id}/pcap",
    params(("flow_id" = String, Path, description = "16 hex digits")), security(("token" = []), ("session" = [])),
    responses((status = 200, content_type = "application/x-pcapng", body = Vec<u8>, description = "pcapng"),
        (status = 401, body = ErrorBody, description = "Not authenticated"),
        (status = 404, body = ErrorBody, description = "No such flow"),
        (status = 503, body = ErrorBody, description = "Too many downloads")))]
pub(crate) async fn of_flow(State(shared): State<Shared>, Path(flow_id): Path<String>) -> Result<Response, ApiError> {
    let id = params::flow_id(&flow_id)?;
    let permit = permit(&shared)?;
    let query = query::parse(&format!("flow_id == {id:016x}"))?;
    let flows = shared.store.flows.refs(&query, Range::ALL, true, MOST_FLOWS);
    let flows = shared.queries.run(Kind::Search, flows).await?;
    let from = flows.iter().map(|flow| flow.start).min();
    let to = flows.iter().map(|flow| flow.end).max();
    let (Some(from), Some(to)) = (from, to) else { return Err(no_flow(&flow_id)) };
    let range = Range { from, to: to.saturating_add(1) };
    download(shared, Selection::Flows(flows), range, &format!("wiretag-{id:016x}.pcapng"), permit).await
}

/// Packets of the flows that a query finds, or all packets.
#[utoipa::path(get, path = "/api/v1/pcap", params(PcapParameters), security(("token" = []), ("session" = [])),
    responses((status = 200, content_type = "application/x-pcapng", body = Vec<u8>, description = "pcapng"),
        (status = 400, body = ErrorBody, description = "A mistake in a parameter, or too many flows"),
        (status = 401, body = ErrorBody, description = "Not authenticated"),
        (status = 404, body = ErrorBody, description = "No flow matches"),
        (status = 503, body = ErrorBody, description = "Too many downloads")))]
pub(crate) async fn of_query(
    State(shared): State<Shared>,
    Params(parameters): Params<PcapParameters>,
) -> Result<Response, ApiError> {
    let query = params::query(parameters.q.as_deref())?;
    let everything = parameters.q.as_deref().unwrap_or_default().trim().is_empty();
    let range = params::range(parameters.from.as_deref(), parameters.to.as_deref())?;
    let all = parameters.all_observations.unwrap_or(false);
    let permit = permit(&shared)?;
    let flows = shared.store.flows.refs(&query, range, all, MOST_FLOWS + 1);
    let flows = shared.queries.run(Kind::Search, flows).await?;
    if flows.is_empty() && !everything {
        return Err(ApiError::unknown("no flow matches", "widen the query or the time range"));
    }
    if flows.len() > MOST_FLOWS && !everything {
        let message = format!("more than {MOST_FLOWS} flows match");
        return Err(ApiError::wrong(message, "narrow the query or the time range"));
    }
    let start = wiretag_store::json::time(range.from);
    let stamp: String = start.chars().take(19).filter(char::is_ascii_alphanumeric).collect();
    let packets = if everything { Selection::All(flows) } else { Selection::Flows(flows) };
    download(shared, packets, range, &format!("wiretag-{stamp}.pcapng"), permit).await
}

fn permit(shared: &Shared) -> Result<OwnedSemaphorePermit, ApiError> {
    let permit = shared.downloads.clone().try_acquire_owned();
    permit.map_err(|_| ApiError::busy("too many downloads at the same time"))
}

/// An export under way.
struct Export {
    chunks: mpsc::Receiver<Vec<u8>>,
    first: Option<Vec<u8>>,
    task: Option<JoinHandle<Result<u64, StoreError>>>,
    _permit: OwnedSemaphorePermit,
}

async fn download(
    shared: Shared,
    packets: Selection,
    range: Range,
    name: &str,
    permit: OwnedSemaphorePermit,
) -> Result<Response, ApiError> {
    let (sender, chunks) = mpsc::channel(CHUNKS);
    let store = shared.store.clone();
    let task = tokio::spawn(async move { store.export_pcap(packets, range.from, range.to, sender).await });
    let mut export = Export { chunks, first: None, task: Some(task), _permit: permit };
    export.first = export.chunks.recv().await;
    if export.first.is_none() {
        export.end().await?;
    }
    let headers = [
        (header::CONTENT_TYPE, "application/x-pcapng".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    Ok((headers, Body::from_stream(stream::unfold(export, Export::next))).into_response())
}

impl Export {
    async fn next(mut self) -> Option<(Result<Bytes, std::io::Error>, Self)> {
        let chunk = match self.first.take() {
            Some(chunk) => Some(chunk),
            None => self.chunks.recv().await,
        };
        match chunk {
            Some(chunk) => Some((Ok(Bytes::from(chunk)), self)),
            None => match self.end().await {
                Ok(()) => None,
                Err(_) => Some((Err(std::io::Error::other("the export failed")), self)),
            },
        }
    }

    /// Whether the export came to a good end; asked once.
    async fn end(&mut self) -> Result<(), ApiError> {
        let Some(task) = self.task.take() else { return Ok(()) };
        task.await.map_err(|error| ApiError::internal(&error))??;
        Ok(())
    }
}
