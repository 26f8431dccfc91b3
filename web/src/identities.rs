//! Who had an address, and when.

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};
use wiretag_capture::{Protocol, Value as ColumnValue};
use wiretag_enrich::{Interval, Key};
use wiretag_store::json::time;

use crate::Shared;
use crate::error::{ApiError, ErrorBody};
use crate::now;
use crate::params::{self, Params};

/// Parameters.
#[derive(serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct IdentitiesParameters {
    /// Only what was valid then. Default: all times.
    at: Option<String>,
    /// Only this address.
    ip: Option<String>,
}

/// Intervals.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct IdentitiesAnswer {
    /// `key_kind`, `key`, `network`, `boot` (of an interface's number), `valid_from`, `valid_to`, `source`, `learned_at`, `identity`.
    #[schema(value_type = Vec<Object>)]
    identities: Vec<Map<String, Value>>,
}

/// The identity timeline.
#[utoipa::path(get, path = "/api/v1/identities", params(IdentitiesParameters),
    security(("token" = []), ("session" = [])),
    responses((status = 200, body = IdentitiesAnswer, description = "Intervals"),
        (status = 400, body = ErrorBody, description = "A mistake in a parameter"),
        (status = 401, body = ErrorBody, description = "Not authenticated")))]
pub(crate) async fn identities(
    State(shared): State<Shared>,
    Params(parameters): Params<IdentitiesParameters>,
) -> Result<Json<IdentitiesAnswer>, ApiError> {
    let at = parameters.at.as_deref().map(|text| params::time(text, now())).transpose()?;
    let parse = |text: &str| {
        let wrong = |_| ApiError::wrong(format!("`{text}` is not an IP address"), "as in `10.1.4.7` or `fd00::7`");
        text.trim().parse::<IpAddr>().map_err(wrong)
    };
    let ip = parameters.ip.as_deref().map(parse).transpose()?;
    let intervals = (shared.identities)(at, ip);
    Ok(Json(IdentitiesAnswer { identities: intervals.iter().map(identity_row).collect() }))
}

/// An interval as users see it.
pub fn identity_row(interval: &Interval) -> Map<String, Value> {
    let (kind, key, network) = match &interval.key {
        Key::Interface { index, netns: 0, .. } => ("interface", index.to_string(), None),
        Key::Interface { index, netns, .. } => ("interface", format!("{index}@{netns}"), None),
        Key::Mac { network, mac } => ("mac", ColumnValue::mac_text(*mac), Some(network)),
        Key::Ip { network, ip } => ("ip", ip.to_string(), Some(network)),
        Key::Socket { protocol, ip, port, .. } => {
            let ip = ip.map_or_else(|| "*".to_owned(), |ip| ip.to_string());
            ("socket", format!("{}/{ip}:{port}", Protocol(*protocol).name()), None)
        }
        Key::Service { network, protocol, ip, port } => {
            ("service", format!("{}/{ip}:{port}", Protocol(*protocol).name()), Some(network))
        }
    };
    let boot = match &interval.key {
        Key::Interface { boot, .. } | Key::Socket { boot, .. } => Some(boot),
        Key::Mac { .. } | Key::Ip { .. } | Key::Service { .. } => None,
    };
    let network = network.filter(|network| !network.is_empty());
    let identity = serde_json::to_value(&*interval.identity).unwrap_or_default();
    let columns = [
        ("key_kind", json!(kind)),
        ("key", json!(key)),
        ("network", json!(network)),
        ("boot", json!(boot)),
        ("valid_from", json!(time(interval.valid_from))),
        ("valid_to", json!(interval.valid_to.map(time))),
        ("source", json!(interval.source)),
        ("learned_at", json!(time(interval.learned_at))),
        ("identity", identity),
    ];
    columns.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
