//! Who it was: what is known of identities, by key, by name and by time.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};
use wiretag_enrich::timeline::View;
use wiretag_enrich::timeline::query::{Bounds, Known, Query, TooMany};
use wiretag_store::StoreError;
use wiretag_store::json::time;
use wiretag_store::sql::{KeyText, key_text};

use crate::Shared;
use crate::error::{ApiError, ErrorBody};
use crate::now;
use crate::params::{self, Params};
use crate::queries::Kind;

/// Rows in an answer at most; each is some kilobytes.
const MOST: usize = 10_000;
/// Identities whose history is made anew for `known_at` at most.
const MOST_HISTORIES: usize = 10_000;

/// Parameters. In texts `*` stands for anything; conditions add up.
#[derive(serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct IdentitiesParameters {
    /// Only what held then. Default: all times.
    at: Option<String>,
    /// As it was known then, without what was learned later. Default: as it is known now.
    known_at: Option<String>,
    /// Only this address, of a host, a socket or a service.
    ip: Option<String>,
    /// Only this link-layer address.
    mac: Option<String>,
    /// Only the interface with this number.
    interface: Option<u32>,
    /// Only keys in this network.
    network: Option<String>,
    /// Only who has this as pod, container or host name.
    name: Option<String>,
    /// Only who is of this namespace.
    namespace: Option<String>,
    /// Only who is of this workload.
    workload: Option<String>,
    /// Only this service, and who is of it.
    service: Option<String>,
    /// Only who has this id.
    identity: Option<String>,
    /// Only what this source said.
    source: Option<String>,
    /// Rows at most, the first by key and time. Default, and most: 10000.
    limit: Option<usize>,
}

/// What is known.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct IdentitiesAnswer {
    /// What each source said, by key and time: `key_kind`, `key`, `network`, `boot` (of an interface's number), `valid_from`,
    /// `valid_to`, `ending` (how the end is known: `open`, `sure`, `unheard`, `replaced`), `source`, `learned_at`, `told_as` (by which
    /// other name it was told), `covered` (a source with exact times says the same), `identity`.
    #[schema(value_type = Vec<Object>)]
    identities: Vec<Map<String, Value>>,
    /// There is more than `limit` allows: narrower conditions find the rest.
    truncated: bool,
}

/// The identity timeline: who had a key at a time, the history of a pod or workload, what is known now, and who said so.
#[utoipa::path(get, path = "/api/v1/identities", params(IdentitiesParameters),
    security(("token" = []), ("session" = [])),
    responses((status = 200, body = IdentitiesAnswer, description = "What is known"),
        (status = 400, body = ErrorBody, description = "A mistake in a parameter, or too wide a question with `known_at`"),
        (status = 401, body = ErrorBody, description = "Not authenticated"),
        (status = 403, body = ErrorBody, description = "For those who may see every row"),
        (status = 422, body = ErrorBody, description = "More memory than a query may have"),
        (status = 503, body = ErrorBody, description = "Too many queries, or it took too long")))]
pub(crate) async fn identities(
    State(shared): State<Shared>,
    Params(parameters): Params<IdentitiesParameters>,
) -> Result<Json<IdentitiesAnswer>, ApiError> {
    let limit = parameters.limit.unwrap_or(MOST).min(MOST);
    let query = checked(parameters)?;
    let answer = shared.queries.run(Kind::Identities, answer((shared.identities)(), query, limit)).await?;
    answer.map(Json).map_err(|TooMany { histories }| {
        let message = format!("more than {histories} identities have to do with it");
        ApiError::wrong(message, "ask for one key, pod or workload, or leave `known_at` out")
    })
}

/// It looks through all that is known, which ends when nobody waits for this any more.
async fn answer(view: Arc<View>, query: Query, limit: usize) -> Result<Result<IdentitiesAnswer, TooMany>, StoreError> {
    let waiting = Arc::new(());
    let waits = Arc::downgrade(&waiting);
    let work = tokio::task::spawn_blocking(move || -> Result<IdentitiesAnswer, TooMany> {
        let wanted = || waits.strong_count() > 0;
        let bounds = Bounds { rows: limit + 1, histories: MOST_HISTORIES, wanted: &wanted };
        let known = view.query_within(&query, bounds)?;
        let rows: Vec<_> = known.iter().take(limit).map(identity_row).collect();
        Ok(IdentitiesAnswer { identities: rows, truncated: known.len() > limit })
    });
    let answer = work.await.map_err(|error| StoreError::Task(error.to_string()));
    drop(waiting);
    answer
}

fn checked(parameters: IdentitiesParameters) -> Result<Query, ApiError> {
    let moment = |text: Option<&str>| text.map(|text| params::time(text, now())).transpose();
    let query = Query {
        at: moment(parameters.at.as_deref())?,
        known_at: moment(parameters.known_at.as_deref())?,
        ip: parameters.ip.as_deref().map(address).transpose()?,
        mac: parameters.mac.as_deref().map(link_address).transpose()?,
        interface: parameters.interface,
        network: parameters.network,
        name: parameters.name,
        namespace: parameters.namespace,
        workload: parameters.workload,
        service: parameters.service,
        identity: parameters.identity,
        source: parameters.source,
    };
    if query.known_at.is_some() && !query.is_selective() {
        let what = "`known_at` needs to know of whom".to_owned();
        return Err(ApiError::wrong(what, "add a key or a name, as in `ip=10.1.4.7` or `name=web-*`"));
    }
    Ok(query)
}

fn address(text: &str) -> Result<IpAddr, ApiError> {
    let wrong = |_| ApiError::wrong(format!("`{text}` is not an IP address"), "as in `10.1.4.7` or `fd00::7`");
    text.trim().parse().map_err(wrong)
}

fn link_address(text: &str) -> Result<[u8; 6], ApiError> {
    parse_mac(text)
        .ok_or_else(|| ApiError::wrong(format!("`{text}` is not a link-layer address"), "as in `02:42:ac:11:00:02`"))
}

/// A link-layer address: six bytes in hexadecimal, with `:` or `-` between them.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut parts = text.trim().split([':', '-']);
    let mut mac = [0; 6];
    for byte in &mut mac {
        let part = parts.next().filter(|part| (1..=2).contains(&part.len()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

/// What is known, as users see it.
pub fn identity_row(known: &Known) -> Map<String, Value> {
    let interval = &known.interval;
    let KeyText { kind, key, network, boot } = key_text(&interval.key);
    let identity = serde_json::to_value(&*interval.identity).unwrap_or_default();
    let columns = [
        ("key_kind", json!(kind)),
        ("key", json!(key)),
        ("network", json!(network)),
        ("boot", json!(boot)),
        ("valid_from", json!(time(interval.valid_from))),
        ("valid_to", json!(interval.valid_to.map(time))),
        ("ending", json!(known.ending)),
        ("source", json!(interval.source)),
        ("learned_at", json!(time(interval.learned_at))),
        ("told_as", json!(known.told_as)),
        ("covered", json!(known.covered)),
        ("identity", identity),
    ];
    columns.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
