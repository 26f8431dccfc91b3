//! Packets as a pcapng download.

use axum::extract::{Path, State};
use axum::response::Response;
use wiretag_store::tables::Range;
use wiretag_store::{FlowRef, Selection};

use crate::Shared;
use crate::api::no_flow;
use crate::caller::Caller;
use crate::completeness::completeness;
use crate::download::{DownloadPlace, File};
use crate::error::{ApiError, ErrorBody};
use crate::params::{self, Params};
use crate::queries::Kind;

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
        (status = 400, body = ErrorBody, description = "Not 16 hex digits"),
        (status = 401, body = ErrorBody, description = "Not authenticated"),
        (status = 404, body = ErrorBody, description = "No such flow"),
        (status = 422, body = ErrorBody, description = "More memory than a query may have"),
        (status = 503, body = ErrorBody, description = "Too many downloads")))]
pub(crate) async fn of_flow(
    State(shared): State<Shared>,
    caller: Caller,
    Path(flow_id): Path<String>,
) -> Result<Response, ApiError> {
    let id = params::flow_id(&flow_id)?;
    let place = shared.downloads.place(&caller.who)?;
    let query = caller.query(Some(&format!("flow_id == {id:016x}")))?;
    let flows = shared.store.flows.refs(&query, Range::ALL, true, MOST_FLOWS);
    let flows = shared.queries.run(Kind::Search, flows).await?;
    let from = flows.iter().map(|flow| flow.start).min();
    let to = flows.iter().map(|flow| flow.end).max();
    let (Some(from), Some(to)) = (from, to) else { return Err(no_flow(&flow_id)) };
    let range = Range { from, to: to.saturating_add(1) };
    let file = file(&shared, &caller, range, format!("wiretag-{id:016x}.pcapng")).await?;
    Ok(download(&shared, seen(&caller, flows), range, file, place))
}

/// Packets of the flows that a query finds, or all packets.
#[utoipa::path(get, path = "/api/v1/pcap", params(PcapParameters), security(("token" = []), ("session" = [])),
    responses((status = 200, content_type = "application/x-pcapng", body = Vec<u8>, description = "pcapng"),
        (status = 400, body = ErrorBody, description = "A mistake in a parameter, or too many flows"),
        (status = 401, body = ErrorBody, description = "Not authenticated"),
        (status = 404, body = ErrorBody, description = "No flow matches"),
        (status = 422, body = ErrorBody, description = "More memory than a query may have"),
        (status = 503, body = ErrorBody, description = "Too many downloads")))]
pub(crate) async fn of_query(
    State(shared): State<Shared>,
    caller: Caller,
    Params(parameters): Params<PcapParameters>,
) -> Result<Response, ApiError> {
    let query = caller.query(parameters.q.as_deref())?;
    // Packets of no flow are nobody's in particular.
    let everything = caller.rows().is_none() && parameters.q.as_deref().unwrap_or_default().trim().is_empty();
    let range = params::range(parameters.from.as_deref(), parameters.to.as_deref())?;
    // Every packet, at whatever point it was seen, bears the names of its flow.
    let all = everything || parameters.all_observations.unwrap_or(false);
    let place = shared.downloads.place(&caller.who)?;
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
    let packets = if everything { Selection::All(flows) } else { seen(&caller, flows) };
    let file = file(&shared, &caller, range, format!("wiretag-{stamp}.pcapng")).await?;
    Ok(download(&shared, packets, range, file, place))
}

/// Packets of the rows' flows; for those who may see some rows only, of no other slice.
fn seen(caller: &Caller, rows: Vec<FlowRef>) -> Selection {
    if caller.rows().is_some() { Selection::Slices(rows) } else { Selection::Flows(rows) }
}

async fn file(shared: &Shared, caller: &Caller, range: Range, name: String) -> Result<File, ApiError> {
    let completeness = completeness(shared, caller, range, false).await?;
    Ok(File { content_type: "application/x-pcapng", name, completeness })
}

fn download(shared: &Shared, packets: Selection, range: Range, file: File, place: DownloadPlace) -> Response {
    let store = shared.store.clone();
    file.answer(place, |sender| async move { store.export_pcap(packets, range.from, range.to, sender).await })
}
