//! The HTTP interface: JSON API under `/api/v1`, `/metrics`, and the UI.
//!
//! ```text
//! request ─ headers ─ count and time ─ host, timeout ─┬─ /api/v1/{health,login}              open
//!                                                     ├─ /api/v1/… ─ authentication ─┬─ handler, of the caller's rows [api, tail, …]
//!                                                     │                              └─ all rows? ─ handler    [identities, erasures]
//!                                                     ├─ /metrics  ─ local or authenticated   [metrics]
//!                                                     └─ the rest                             [ui]
//! ```
//!
//! Invariants:
//! * whoever has neither a token nor a session gets no data: routes are open only by being listed in `open`;
//! * whoever may see some rows only gets no others ([caller]): routes are for them only by being listed in `rows_routes`;
//! * an error is JSON, and what went wrong inside is logged, not sent;
//! * memory is bounded: answers by `limit`, and all that are being sent by what they may have together ([answers]); downloads and tails by
//!   channels of fixed size, sessions by a table of fixed size, connections by their number and by what they may wait for ([server]).

mod aggregate;
mod answers;
mod api;
mod auth;
mod caller;
mod completeness;
mod download;
mod erasures;
mod error;
mod explain;
mod export;
mod identities;
mod metrics;
mod middleware;
mod params;
mod pcap;
mod places;
mod proof;
mod queries;
mod server;
mod sessions;
mod sql;
mod tail;
mod topology;
mod ui;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, Content, InfoBuilder, License, OpenApi, OpenApiBuilder, Ref, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wiretag_enrich::ipfix::Numbers;
use wiretag_enrich::timeline::View;
use wiretag_store::{Loss, QueryLimits, Store};

pub use auth::random_secret;
pub use caller::{Keys, Reader};
pub use identities::{identity_row, parse_mac};
pub use proof::proof;
pub use server::listen;
pub use tail::Tail;

/// Downloads of packets and rows at the same time; one caller has all of these but one.
const DOWNLOADS: usize = 4;
/// Bytes of a request body where anybody may send one: the login.
const BODY_LIMIT: usize = 4096;
/// Bytes of a query in a request body.
const QUERY_LIMIT: usize = 512 << 10;

/// Tells the state of the appliance.
pub type Health = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;
/// Gives what was lost and is not in the catalog yet.
pub type PendingLoss = Arc<dyn Fn() -> Loss + Send + Sync>;
/// Gives what is known of identities.
pub type Identities = Arc<dyn Fn() -> Arc<View> + Send + Sync>;

/// What the server shows.
pub struct App {
    /// Flows and packets.
    pub store: Arc<Store>,
    /// What `/metrics` prints; the server adds its own metrics.
    pub registry: prometheus::Registry,
    /// State of the appliance.
    pub health: Health,
    /// Loss since the last account.
    pub pending_loss: PendingLoss,
    /// Identity timeline.
    pub identities: Identities,
    /// Flows as they are stored.
    pub tail: Tail,
    /// What opens the API.
    pub keys: Keys,
    /// How much queries may take.
    pub limits: QueryLimits,
    /// How files of IPFIX are numbered.
    pub ipfix: Numbers,
    /// Proves to commands that it is this run which answers ([`proof()`]), and none that had the address before, or has it since.
    pub secret: String,
}

/// What handlers share.
struct Inner {
    store: Arc<Store>,
    registry: prometheus::Registry,
    health: Health,
    pending_loss: PendingLoss,
    identities: Identities,
    tail: Tail,
    ipfix: Numbers,
    secret: String,
    auth: auth::Auth,
    metrics: metrics::HttpMetrics,
    queries: queries::Queries,
    answers: answers::Answers,
    downloads: download::Downloads,
}

type Shared = Arc<Inner>;

/// Serves until `shutdown` ends, then lets open requests finish.
pub async fn serve(
    listener: tokio::net::TcpListener,
    app: App,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    server::serve(listener, router(app)?, server::Limits::default(), shutdown).await;
    Ok(())
}

/// The OpenAPI document, pretty-printed JSON with a newline at the end.
pub fn openapi_json() -> String {
    let (_, mut api) = routes().split_for_parts();
    add_failures(&mut api);
    let mut text = api.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

fn router(app: App) -> std::io::Result<Router> {
    let App { store, registry, health, pending_loss, identities, tail, keys, limits, ipfix, secret } = app;
    let metrics = metrics::HttpMetrics::new(&registry).map_err(std::io::Error::other)?;
    let auth = auth::Auth::new(keys)?;
    let queries = queries::Queries::new(&registry, limits).map_err(std::io::Error::other)?;
    let answers = answers::Answers::new(limits.memory);
    let downloads = download::Downloads::new(DOWNLOADS, DOWNLOADS - 1);
    let longest = middleware::longest(limits.time);
    let shared: Shared = Arc::new(Inner {
        store,
        registry,
        health,
        pending_loss,
        identities,
        tail,
        ipfix,
        secret,
        auth,
        metrics,
        queries,
        answers,
        downloads,
    });
    let open = open_routes().route_layer(from_fn_with_state(middleware::OPEN, middleware::timeout));
    let closed = closed_routes()
        .layer(DefaultBodyLimit::max(QUERY_LIMIT))
        .route_layer(from_fn_with_state(shared.clone(), answers::bounded))
        .route_layer(from_fn_with_state(shared.clone(), auth::required));
    let (api, _) = OpenApiRouter::new().merge(open).merge(closed).split_for_parts();
    Ok(api
        .route("/metrics", axum::routing::get(metrics::scrape))
        .fallback(ui::file)
        .method_not_allowed_fallback(error::wrong_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(from_fn_with_state(longest, middleware::timeout))
        .layer(from_fn(middleware::host))
        .layer(from_fn_with_state(shared.clone(), metrics::observe))
        .layer(from_fn(middleware::headers))
        .with_state(shared))
}

/// Routes that need no authentication.
fn open_routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(api::health)).routes(routes!(auth::login))
}

fn closed_routes() -> OpenApiRouter<Shared> {
    rows_routes().merge(whole_routes().route_layer(from_fn(caller::sees_all)))
}

/// Routes for those who may not see all rows, and for all others.
fn rows_routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(api::flows))
        .routes(routes!(api::histogram))
        .routes(routes!(aggregate::flows))
        .routes(routes!(aggregate::top_flows))
        .routes(routes!(topology::topology))
        .routes(routes!(tail::tail))
        .routes(routes!(export::flows))
        .routes(routes!(export::transactions))
        .routes(routes!(api::flow))
        .routes(routes!(api::transactions))
        .routes(routes!(api::transactions_histogram))
        .routes(routes!(aggregate::transactions))
        .routes(routes!(aggregate::top_transactions))
        .routes(routes!(sql::sql))
        .routes(routes!(explain::explain))
        .routes(routes!(pcap::of_flow))
        .routes(routes!(pcap::of_query))
        .routes(routes!(api::fields))
        .routes(routes!(api::openapi))
        .routes(routes!(auth::logout))
        .routes(routes!(auth::session))
}

/// Routes for those who may see all rows.
fn whole_routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(identities::identities))
        .routes(routes!(erasures::begin, erasures::all))
        .routes(routes!(erasures::one))
}

/// The API with its document.
fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(document()).merge(open_routes()).merge(closed_routes())
}

/// What any route may answer.
fn add_failures(api: &mut OpenApi) {
    let failure = |description: &str| {
        let body = Content::new(Some(Ref::from_schema_name("ErrorBody")));
        ResponseBuilder::new().description(description).content("application/json", body).build()
    };
    for path in api.paths.paths.values_mut() {
        for operation in [&mut path.get, &mut path.post].into_iter().flatten() {
            let answers = &mut operation.responses.responses;
            for (status, description) in [("500", "It failed; the log says why"), ("503", "No place, or no time left")]
            {
                answers.entry(status.to_owned()).or_insert_with(|| failure(description).into());
            }
        }
    }
}

fn document() -> OpenApi {
    let info = InfoBuilder::new()
        .title("wiretag")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Flows, transactions, packets and names of containers, as they were at the time of the packet.",
        ))
        .license(Some(License::new("Apache-2.0")))
        .build();
    let mut components = Components::new();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    let cookie = ApiKey::Cookie(ApiKeyValue::with_description(
        auth::COOKIE,
        "With eight hex digits of the appliance behind it.",
    ));
    components.add_security_scheme("session", SecurityScheme::ApiKey(cookie));
    OpenApiBuilder::new().info(info).components(Some(components)).build()
}

/// Nanoseconds since the epoch.
#[allow(clippy::disallowed_methods, reason = "a request arrives now: relative times and session expiry need the clock")]
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
