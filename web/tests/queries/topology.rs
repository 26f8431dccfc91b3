//! The service map over HTTP is what a plain list of the flows gives.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wiretag_capture::record::{Http, Responses};
use wiretag_enrich::{EndTag, Identity, TaggedBy, TaggedFlow};
use wiretag_store::QueryLimits;

use super::rows::{START, flow};
use super::{Server, address};

const SECOND: i64 = 1_000_000_000;
/// The day after the flows that the server has anyway.
const DAY: i64 = START + 86_400 * SECOND;
const FROM: (&str, &str) = ("from", "2026-03-02T00:00:00Z");
const TO: (&str, &str) = ("to", "2026-03-02T01:00:00Z");
/// Namespace, name; without one it has no owner.
const WORKLOADS: [(Option<&str>, Option<&str>); 5] = [
    (Some("shop"), Some("web")),
    (Some("shop"), Some("db")),
    (Some("ops"), Some("web")),
    (Some("shop"), None),
    (None, None),
];

/// Numbers that look random and are the same in each run (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn maybe(&mut self, bound: u64) -> Option<u64> {
        (self.below(3) > 0).then(|| self.below(bound))
    }

    fn small(&mut self, bound: u32) -> Option<u32> {
        self.maybe(bound.into()).map(|number| number as u32)
    }

    fn workload(&mut self) -> EndTag {
        let (namespace, workload) = WORKLOADS[self.below(5) as usize];
        if namespace.is_none() {
            return EndTag::NONE;
        }
        let workload_kind = workload.map(|_| "deployment".into());
        let (namespace, workload) = (namespace.map(Into::into), workload.map(Into::into));
        let identity = Identity { identity: "uid".into(), namespace, workload, workload_kind, ..Identity::default() };
        // How an end got its name makes no other node of it.
        let tagged_by = if self.below(2) == 0 { TaggedBy::Ip } else { TaggedBy::Interface };
        EndTag { identity: Some(identity.into()), tagged_by, translated: None }
    }

    fn flow(&mut self, id: u64) -> TaggedFlow {
        let mut row = flow(id);
        let record = &mut row.record;
        // Also before and behind the hour that is asked for.
        record.start = DAY + (self.below(5400) as i64 - 900) * SECOND;
        record.end = record.start + SECOND;
        record.primary = self.below(10) > 0;
        for side in [&mut record.client, &mut record.server] {
            (side.bytes, side.packets) = (self.below(100_000), self.below(100));
            (side.retransmits, side.resets) = (self.small(5), self.small(2));
            side.rtt_us = self.small(50_000);
        }
        record.syn_retries = self.small(3);
        record.responses = self.small(90_000).map(|avg_us| Responses { avg_us, count: 1, ..Responses::default() });
        let http = self.maybe(9).map(|requests| Http { requests, errors: requests / 2, ..Http::default() });
        record.http = http.map(Box::new);
        (row.client, row.server) = (self.workload(), self.workload());
        row
    }
}

fn id(end: &EndTag) -> String {
    let Some(identity) = &end.identity else { return "///".into() };
    let [namespace, kind, name] = [&identity.namespace, &identity.workload_kind, &identity.workload]
        .map(|text| text.as_deref().unwrap_or_default());
    format!("/{namespace}/{kind}/{name}")
}

fn whole_hour(row: &TaggedFlow) -> bool {
    row.record.primary && (DAY..DAY + 3600 * SECOND).contains(&row.record.start)
}

/// The sum of what was seen.
fn sum(rows: &[&TaggedFlow], values: impl Fn(&TaggedFlow) -> Vec<Option<u64>>) -> Value {
    let seen: Vec<u64> = rows.iter().flat_map(|row| values(row)).flatten().collect();
    if seen.is_empty() { Value::Null } else { seen.iter().sum::<u64>().into() }
}

/// Both are nothing, or the answer is within 1 % of the value of that rank.
fn near(answer: &Value, rows: &[&TaggedFlow], percent: usize, value: impl Fn(&TaggedFlow) -> Option<u64>) -> bool {
    let mut seen: Vec<u64> = rows.iter().filter_map(|row| value(row)).collect();
    seen.sort_unstable();
    let rank = (seen.len() * percent).div_ceil(100).max(1);
    match (answer.as_u64(), seen.get(rank - 1)) {
        (None, None) => answer.is_null(),
        (Some(answer), Some(exact)) => answer.abs_diff(*exact) * 100 <= *exact,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn check_edge(edge: &Value, rows: &[&TaggedFlow]) {
    let both = |get: fn(&wiretag_capture::record::Side) -> Option<u64>| {
        sum(rows, move |row| vec![get(&row.record.client), get(&row.record.server)])
    };
    let http = |row: &TaggedFlow, get: fn(&Http) -> u64| vec![row.record.http.as_deref().map(get)];
    for (name, wanted) in [
        ("count", rows.len().into()),
        ("bytes", both(|side| Some(side.bytes))),
        ("client_bytes", sum(rows, |row| vec![Some(row.record.client.bytes)])),
        ("server_bytes", sum(rows, |row| vec![Some(row.record.server.bytes)])),
        ("packets", both(|side| Some(side.packets))),
        ("retransmits", both(|side| side.retransmits.map(u64::from))),
        ("resets", both(|side| side.resets.map(u64::from))),
        ("syn_retries", sum(rows, |row| vec![row.record.syn_retries.map(u64::from)])),
        ("http_requests", sum(rows, |row| http(row, |http| http.requests))),
        ("http_errors", sum(rows, |row| http(row, |http| http.errors))),
    ] {
        assert_eq!(edge[name], wanted, "{name}: {edge}");
    }
    for (percent, part) in [(50, "p50"), (95, "p95")] {
        assert!(
            near(&edge[format!("client_rtt_{part}_us")], rows, percent, |row| row.record.client.rtt_us.map(u64::from)),
            "{edge}"
        );
        assert!(
            near(&edge[format!("server_rtt_{part}_us")], rows, percent, |row| row.record.server.rtt_us.map(u64::from)),
            "{edge}"
        );
        let times = |row: &TaggedFlow| row.record.responses.map(|times| times.avg_us.into());
        assert!(near(&edge[format!("response_time_{part}_us")], rows, percent, times), "{edge}");
    }
}

async fn filled(server: &Server) -> Vec<TaggedFlow> {
    let mut numbers = Numbers(5);
    let rows: Vec<TaggedFlow> = (1000..1600).map(|id| numbers.flow(id)).collect();
    let (to_file, in_memory) = rows.split_at(400);
    server.store.flows.append(to_file.to_vec()).await.unwrap();
    server.store.flush().await.unwrap();
    server.store.flows.append(in_memory.to_vec()).await.unwrap();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_map_is_what_a_plain_list_gives() {
    let server = Server::start(QueryLimits::default()).await;
    let rows = filled(&server).await;
    let mut wanted: BTreeMap<(String, String), Vec<&TaggedFlow>> = BTreeMap::new();
    for row in rows.iter().filter(|row| whole_hour(row)) {
        wanted.entry((id(&row.client), id(&row.server))).or_default().push(row);
    }
    assert_eq!(wanted.len(), 25, "every workload spoke to every other");
    let (status, answer) = server.get("/api/v1/topology", &[FROM, TO]).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["edges_total"], json!(25));
    assert_eq!(
        answer["range"],
        json!({"from": "2026-03-02T00:00:00.000000000Z", "to": "2026-03-02T01:00:00.000000000Z"})
    );
    assert_eq!((&answer["served_by"]["files"].is_u64(), &answer["completeness"]["complete"]), (&true, &json!(true)));
    let edges = answer["edges"].as_array().unwrap();
    assert_eq!(edges.len(), 25);
    assert!(edges.is_sorted_by_key(|edge| std::cmp::Reverse(edge["bytes"].as_u64())), "{answer}");
    for edge in edges {
        let ends = [&edge["client"], &edge["server"]].map(|id| id.as_str().unwrap().to_owned());
        check_edge(edge, &wanted[&ends.into()]);
    }

    let nodes = answer["nodes"].as_array().unwrap();
    let ids: Vec<&str> = nodes.iter().map(|node| node["id"].as_str().unwrap()).collect();
    let names = ["///", "/ops/deployment/web", "/shop//", "/shop/deployment/db", "/shop/deployment/web"];
    assert_eq!(ids, names);
    for (node, id) in nodes.iter().zip(names) {
        let total = |end: usize, name: &str| -> u64 {
            let of = |edge: &&Value| edge[["client", "server"][end]] == json!(id);
            edges.iter().filter(of).map(|edge| edge[name].as_u64().unwrap()).sum()
        };
        let sent = total(0, "client_bytes") + total(1, "server_bytes");
        let received = total(0, "server_bytes") + total(1, "client_bytes");
        assert_eq!((&node["sent_bytes"], &node["received_bytes"]), (&json!(sent), &json!(received)), "{node}");
        assert_eq!(
            (&node["count_as_client"], &node["count_as_server"]),
            (&json!(total(0, "count")), &json!(total(1, "count")))
        );
    }
    let web = json!({"cluster": null, "namespace": "shop", "workload": "web", "workload_kind": "deployment"});
    assert!(web.as_object().unwrap().iter().all(|(name, value)| nodes[4][name] == *value), "{}", nodes[4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn roll_ups_give_the_same_service_map() {
    let server = Server::start(QueryLimits::default()).await;
    filled(&server).await;
    server.store.flush().await.unwrap();
    let hour = [("q", "server_workload == web or client_namespace not exists"), FROM, TO];
    let odd = [("from", "2026-03-02T00:10:00.5Z"), TO];
    let (_, rows) = server.get("/api/v1/topology", &hour).await;
    let (_, odd_rows) = server.get("/api/v1/topology", &odd).await;
    assert_eq!(rows["served_by"]["rollups"], json!(0), "{rows}");
    while server.store.flows.roll_up(DAY + 3 * 86_400 * SECOND).await.unwrap() > 0 {}
    let (_, rolled) = server.get("/api/v1/topology", &hour).await;
    let served_by = &rolled["served_by"];
    // A file of the hour before may end in this one: it is read, and no row of it counts.
    assert_eq!((&served_by["rows"], &served_by["rollups"]), (&json!(0), &json!(1)), "{served_by}");
    assert!(!rolled["edges"].as_array().unwrap().is_empty());
    for name in ["nodes", "edges", "edges_total"] {
        assert_eq!(rolled[name], rows[name], "{name}");
    }
    // A pod is not in roll-ups, nor is a part of a minute.
    let (_, pods) = server.get("/api/v1/topology", &[("q", "pod not exists"), FROM, TO]).await;
    assert_eq!(pods["served_by"]["rollups"], json!(0), "{pods}");
    let (_, odd) = server.get("/api/v1/topology", &odd).await;
    assert_eq!((&odd["edges"], &odd["served_by"]["resolution"]), (&odd_rows["edges"], &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_map_takes_conditions_and_limits() {
    let server = Server::start(QueryLimits::default()).await;
    let rows = filled(&server).await;
    let name =
        |end: &EndTag| end.identity.as_ref().and_then(|identity| identity.workload.as_deref().map(str::to_owned));
    let is_db = |row: &&TaggedFlow| name(&row.server).as_deref() == Some("db");
    let passing = rows.iter().filter(|row| whole_hour(row)).filter(is_db).count();
    let (_, answer) = server.get("/api/v1/topology", &[("q", "server_workload == db"), FROM, TO]).await;
    let edges = answer["edges"].as_array().unwrap();
    assert_eq!(edges.len(), 5, "{answer}");
    assert_eq!(edges.iter().map(|edge| edge["count"].as_u64().unwrap()).sum::<u64>(), passing as u64);

    let (_, whole) = server.get("/api/v1/topology", &[FROM, TO]).await;
    let (_, some) = server.get("/api/v1/topology", &[("limit", "2"), FROM, TO]).await;
    assert_eq!(some["edges"].as_array().unwrap()[..], whole["edges"].as_array().unwrap()[..2]);
    assert_eq!(some["edges_total"], json!(25));
    let ends = some["edges"].as_array().unwrap().iter().flat_map(|edge| [&edge["client"], &edge["server"]]);
    let mut ends: Vec<&Value> = ends.collect();
    ends.sort_by_key(|id| id.as_str());
    ends.dedup();
    let nodes: Vec<&Value> = some["nodes"].as_array().unwrap().iter().map(|node| &node["id"]).collect();
    assert_eq!(nodes, ends, "only their ends");

    let (_, none) = server.get("/api/v1/topology", &[("q", "server_workload == nobody"), FROM, TO]).await;
    assert_eq!((&none["nodes"], &none["edges"], &none["edges_total"]), (&json!([]), &json!([]), &json!(0)));
    for (name, value) in
        [("limit", "0"), ("limit", "10001"), ("q", "server_wrkload == db"), ("all_observations", "true")]
    {
        let (status, answer) = server.get("/api/v1/topology", &[(name, value), FROM, TO]).await;
        assert_eq!((status, answer["error"]["message"].is_string()), (400, true), "{name}={value}: {answer}");
    }
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let request = format!(
        "GET {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        address("/api/v1/topology", &[FROM, TO])
    );
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    let mut text = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 401 "), "{text}");
}

#[test]
fn the_service_map_is_in_the_document() {
    let document: Value = serde_json::from_str(&wiretag_web::openapi_json()).unwrap();
    let asked = &document["paths"]["/api/v1/topology"]["get"];
    let names: Vec<&str> =
        asked["parameters"].as_array().unwrap().iter().map(|parameter| parameter["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["q", "from", "to", "limit"]);
    let edge = &document["components"]["schemas"]["TopologyEdge"]["properties"];
    assert!(edge["server_rtt_p95_us"].is_object(), "{edge}");
}
