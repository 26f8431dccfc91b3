//! The service map: which workloads spoke to which, how much, how fast, and with what trouble.
//!
//! It is an aggregation by the owners of both ends, of what roll-ups keep: these serve it wherever the condition lets them.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value};
use wiretag_capture::FlowRecord;
use wiretag_store::query;
use wiretag_store::tables::AggregateRequest;

use crate::Shared;
use crate::aggregate::{Period, Served};

use crate::caller::Caller;
use crate::completeness::{Completeness, completeness};
use crate::error::{ApiError, ErrorBody};
use crate::params::{self, Params};
use crate::queries::Kind;

/// Edges unless `limit` says otherwise.
const DEFAULT_EDGES: usize = 1000;
/// Edges at most.
const MOST_EDGES: usize = 10_000;
/// What makes an edge.
const ENDS: &str = "client_cluster, client_namespace, client_workload, client_workload_kind, \
                    server_cluster, server_namespace, server_workload, server_workload_kind";
/// What is told of an edge; the first orders.
const FIGURES: &str = "sum(bytes) as bytes, count, client_bytes, server_bytes, sum(packets) as packets, \
                       sum(retransmits) as retransmits, sum(resets) as resets, sum(syn_retries) as syn_retries, \
                       sum(http_requests) as http_requests, sum(http_errors) as http_errors, \
                       p50(client_rtt_us), p95(client_rtt_us), p50(server_rtt_us), p95(server_rtt_us), \
                       p50(response_time_avg_us), p95(response_time_avg_us)";

/// Parameters of the service map.
#[derive(serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct TopologyParameters {
    /// Query; empty means every flow.
    q: Option<String>,
    /// Begin, as in a search. Flows that start in the range count.
    from: Option<String>,
    /// End, exclusive.
    to: Option<String>,
    /// Edges at most, those with the most bytes, 1 to 10000. Default: 1000.
    limit: Option<usize>,
}

/// Workloads, and what went between them.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct TopologyAnswer {
    /// The ends of `edges`, by `id`.
    nodes: Vec<TopologyNode>,
    /// Most bytes first.
    edges: Vec<TopologyEdge>,
    /// How many edges there are, of which `edges` may have fewer.
    edges_total: u64,
    /// What the figures are of.
    range: Period,
    /// Where the figures come from.
    served_by: Served,
    /// What was lost in this time range.
    completeness: Completeness,
}

/// A workload. Without a name: all ends of its namespace that nobody owns; without a namespace, too, those that have no name at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub(crate) struct TopologyNode {
    /// Cluster, namespace, kind and name, with `/` between; the same in every answer.
    id: String,
    /// Cluster.
    cluster: Option<String>,
    /// Namespace.
    namespace: Option<String>,
    /// Owner: deployment, compose project and service.
    workload: Option<String>,
    /// Kind of owner.
    workload_kind: Option<String>,
    /// Rows of flows of `edges` whose client it is.
    count_as_client: u64,
    /// Rows of flows of `edges` whose server it is.
    count_as_server: u64,
    /// IP bytes that it sent on `edges`.
    sent_bytes: u64,
    /// IP bytes that it received on `edges`.
    received_bytes: u64,
}

/// What a client and a server exchanged. What was not seen is null.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub(crate) struct TopologyEdge {
    /// `id` of the node that is the client.
    client: String,
    /// `id` of the node that is the server.
    server: String,
    /// Rows of flows.
    count: u64,
    /// IP bytes of both sides.
    bytes: u64,
    /// IP bytes that the client sent.
    client_bytes: u64,
    /// IP bytes that the server sent.
    server_bytes: u64,
    /// Packets of both sides.
    packets: u64,
    /// Segments of both sides that were sent again.
    retransmits: Option<u64>,
    /// RST segments of both sides.
    resets: Option<u64>,
    /// SYNs that were sent again.
    syn_retries: Option<u64>,
    /// HTTP requests.
    http_requests: Option<u64>,
    /// Responses with status 400 or above, and gRPC calls that failed.
    http_errors: Option<u64>,
    /// Median of the time from the capture point to the client and back, µs.
    client_rtt_p50_us: Option<u64>,
    /// Its 95th percentile.
    client_rtt_p95_us: Option<u64>,
    /// Median of the time from the capture point to the server and back, µs.
    server_rtt_p50_us: Option<u64>,
    /// Its 95th percentile.
    server_rtt_p95_us: Option<u64>,
    /// Median of the flows' mean response times, µs.
    response_time_p50_us: Option<u64>,
    /// Their 95th percentile.
    response_time_p95_us: Option<u64>,
}

/// The service map. Each connection counts once, at its primary observation.
#[utoipa::path(get, path = "/api/v1/topology", params(TopologyParameters), security(("token" = []), ("session" = [])),
    responses((status = 200, body = TopologyAnswer, description = "Workloads, and what went between them"),
        (status = 400, body = ErrorBody, description = "A mistake in a parameter"),
        (status = 401, body = ErrorBody, description = "Not authenticated"),
        (status = 422, body = ErrorBody, description = "More memory than a query may have"),
        (status = 503, body = ErrorBody, description = "No place, or no time left")))]
pub(crate) async fn topology(
    State(shared): State<Shared>,
    caller: Caller,
    Params(parameters): Params<TopologyParameters>,
) -> Result<Json<TopologyAnswer>, ApiError> {
    let limit = params::number("limit", parameters.limit, DEFAULT_EDGES, MOST_EDGES)?;
    let range = params::range(parameters.from.as_deref(), parameters.to.as_deref())?;
    let request = AggregateRequest::<FlowRecord> {
        filter: caller.query(parameters.q.as_deref())?,
        aggregate: query::top(ENDS, FIGURES, limit)?,
        range,
        all_observations: false,
        compare: false,
        memory: shared.queries.memory(),
    };
    let answer = shared.queries.run(Kind::Aggregate, shared.store.flows.aggregate(&request)).await?;
    let mut nodes = BTreeMap::new();
    let edges = answer.rows.iter().map(|row| edge(&row.to_map(), &mut nodes)).collect();
    Ok(Json(TopologyAnswer {
        nodes: nodes.into_values().collect(),
        edges,
        edges_total: answer.groups,
        range: range.into(),
        served_by: Served::of(answer.served_by, &caller),
        completeness: completeness(&shared, &caller, range, answer.served_by.rollable).await?,
    }))
}

/// The edge of a group; its ends are added to the nodes.
fn edge(row: &Map<String, Value>, nodes: &mut BTreeMap<String, TopologyNode>) -> TopologyEdge {
    let seen = |name: &str| row.get(name).and_then(Value::as_u64);
    let number = |name: &str| seen(name).unwrap_or_default();
    let (client, server) = (TopologyNode::of(row, "client"), TopologyNode::of(row, "server"));
    let edge = TopologyEdge {
        client: client.id.clone(),
        server: server.id.clone(),
        count: number("count"),
        bytes: number("bytes"),
        client_bytes: number("sum(client_bytes)"),
        server_bytes: number("sum(server_bytes)"),
        packets: number("packets"),
        retransmits: seen("retransmits"),
        resets: seen("resets"),
        syn_retries: seen("syn_retries"),
        http_requests: seen("http_requests"),
        http_errors: seen("http_errors"),
        client_rtt_p50_us: seen("p50(client_rtt_us)"),
        client_rtt_p95_us: seen("p95(client_rtt_us)"),
        server_rtt_p50_us: seen("p50(server_rtt_us)"),
        server_rtt_p95_us: seen("p95(server_rtt_us)"),
        response_time_p50_us: seen("p50(response_time_avg_us)"),
        response_time_p95_us: seen("p95(response_time_avg_us)"),
    };
    let client = nodes.entry(client.id.clone()).or_insert(client);
    client.count_as_client = client.count_as_client.saturating_add(edge.count);
    client.sent_bytes = client.sent_bytes.saturating_add(edge.client_bytes);
    client.received_bytes = client.received_bytes.saturating_add(edge.server_bytes);
    let server = nodes.entry(server.id.clone()).or_insert(server);
    server.count_as_server = server.count_as_server.saturating_add(edge.count);
    server.sent_bytes = server.sent_bytes.saturating_add(edge.server_bytes);
    server.received_bytes = server.received_bytes.saturating_add(edge.client_bytes);
    edge
}

impl TopologyNode {
    /// The client or the server of a group, without figures.
    fn of(row: &Map<String, Value>, end: &str) -> Self {
        let text = |name: &str| row.get(&format!("{end}_{name}")).and_then(Value::as_str).map(str::to_owned);
        let (cluster, namespace) = (text("cluster"), text("namespace"));
        let (workload, workload_kind) = (text("workload"), text("workload_kind"));
        // Names of Docker's have a `/`.
        let part = |text: &Option<String>| text.as_deref().unwrap_or_default().replace('%', "%25").replace('/', "%2F");
        let id = [&cluster, &namespace, &workload_kind, &workload].map(part).join("/");
        Self { id, cluster, namespace, workload, workload_kind, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(client: &str, server: Option<&str>, bytes: [u64; 2]) -> Map<String, Value> {
        let row = json!({
            "client_namespace": "demo", "client_workload": client, "server_workload": server,
            "count": 2, "sum(client_bytes)": bytes[0], "sum(server_bytes)": bytes[1], "resets": null,
        });
        row.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn a_node_adds_up_its_edges() {
        let mut nodes = BTreeMap::new();
        edge(&row("web", None, [10, 1]), &mut nodes);
        let own = edge(&row("web", Some("web"), [100, 1000]), &mut nodes);
        assert_eq!((own.client.as_str(), own.server.as_str(), own.resets), ("/demo//web", "///web", None));
        let web = nodes.get("/demo//web").cloned().unwrap_or_default();
        assert_eq!((web.sent_bytes, web.received_bytes), (110, 1001));
        assert_eq!((web.count_as_client, web.count_as_server), (4, 0));
        let unnamed = nodes.get("///").cloned().unwrap_or_default();
        assert_eq!((unnamed.sent_bytes, unnamed.received_bytes, unnamed.count_as_server), (1, 10, 2));
    }

    #[test]
    fn a_workload_of_its_own_client_counts_on_both_sides() {
        let mut nodes = BTreeMap::new();
        let mut both = row("web", Some("web"), [7, 5]);
        both.insert("server_namespace".into(), "demo".into());
        edge(&both, &mut nodes);
        let web = nodes.get("/demo//web").cloned().unwrap_or_default();
        assert_eq!((nodes.len(), web.sent_bytes, web.received_bytes), (1, 12, 12));
        assert_eq!((web.count_as_client, web.count_as_server), (2, 2));
    }

    #[test]
    fn different_workloads_have_different_ids() {
        let id = |text: &str| {
            let mut nodes = BTreeMap::new();
            edge(&row(text, None, [0, 0]), &mut nodes).client
        };
        let names = ["shop/web", "shop%2Fweb", "shop", "shop/", "/shop"];
        let ids: std::collections::BTreeSet<String> = names.into_iter().map(id).collect();
        assert_eq!(ids.len(), names.len(), "{ids:?}");
    }
}
