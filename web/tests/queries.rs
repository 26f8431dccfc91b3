//! Questions over HTTP: groups, top lists, SQL, explanations, their limits, and clients that go away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

#[path = "queries/erasures.rs"]
mod erasures;
#[path = "queries/readers.rs"]
mod readers;
#[path = "../../store/tests/store/rows.rs"]
mod rows;
#[path = "queries/topology.rs"]
mod topology;
#[path = "../../enrich/tests/wait/mod.rs"]
mod wait;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rows::{START, flow, transaction};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wait::eventually;
use wiretag_enrich::ipfix::Numbers;
use wiretag_enrich::timeline::Timeline;
use wiretag_store::{Loss, QueryLimits, Role, Store, StoreConfig};
use wiretag_web::{App, Keys, Tail};

/// A server over a store of its own.
struct Server {
    address: SocketAddr,
    registry: prometheus::Registry,
    store: Arc<Store>,
    tail: Tail,
    _dir: tempfile::TempDir,
}

impl Server {
    async fn start(limits: QueryLimits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig::new(dir.path(), Role::Appliance);
        let store = Arc::new(Store::open(config).await.unwrap().0);
        for number in 0..6_u64 {
            let mut row = flow(number);
            row.record.start = START + number as i64 * 60_000_000_000;
            row.record.end = row.record.start;
            row.record.client.bytes = 100 * (number + 1);
            rows::name(&mut row.client, &format!("pod-{}", number % 2), &[]);
            store.flows.append(vec![row]).await.unwrap();
            if number == 3 {
                store.flush().await.unwrap();
            }
        }
        store.transactions.append(vec![transaction(1, 0), transaction(1, 1)]).await.unwrap();
        let (registry, tail) = (prometheus::Registry::new(), Tail::default());
        let view = Arc::new(Timeline::new().view());
        let app = App {
            store: store.clone(),
            registry: registry.clone(),
            health: Arc::new(|| json!({"status": "ok"})),
            pending_loss: Arc::new(readers::loss),
            identities: Arc::new(move || view.clone()),
            tail: tail.clone(),
            keys: Keys { token: "token".into(), readers: readers::all(), open_metrics: true },
            limits,
            ipfix: Numbers::default(),
            secret: "test".into(),
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(wiretag_web::serve(listener, app, std::future::pending()));
        Self { address, registry, store, tail, _dir: dir }
    }

    /// Sends a request, and gives the open connection.
    async fn send(&self, method: &str, path: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer token\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    async fn text(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut text = String::new();
        self.send(method, path, body).await.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> (u16, Value) {
        let (status, body) = self.text("GET", &address(path, parameters), "").await;
        (status, serde_json::from_str(&body).unwrap())
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let (status, body) = self.text("POST", path, &body.to_string()).await;
        (status, serde_json::from_str(&body).unwrap())
    }

    /// The value of a counter.
    fn counted(&self, kind: &str, outcome: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == "wiretag_queries_total").unwrap();
        let is = |metric: &&prometheus::proto::Metric| {
            let labels = metric.get_label();
            [kind, outcome].iter().all(|wanted| labels.iter().any(|label| label.value() == *wanted))
        };
        family.get_metric().iter().find(is).unwrap().get_counter().get_value()
    }
}

fn address(path: &str, parameters: &[(&str, &str)]) -> String {
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<Vec<_>>().concat();
    let parameters = parameters.iter().map(|(name, value)| format!("{name}={}", encoded(value)));
    format!("{path}?{}", parameters.collect::<Vec<_>>().join("&"))
}

const FROM: (&str, &str) = ("from", "2026-03-01T00:00:00Z");
const TO: (&str, &str) = ("to", "2026-03-01T00:06:00Z");

#[tokio::test(flavor = "multi_thread")]
async fn groups_and_top_lists() {
    let server = Server::start(QueryLimits::default()).await;
    let q = ("q", "client_pod exists | count, sum(client_bytes) by client_pod");
    let (status, answer) = server.get("/api/v1/flows/aggregate", &[q, FROM, TO]).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        answer["columns"],
        json!([
            {"name": "client_pod", "kind": "text", "key": true},
            {"name": "count", "kind": "number", "key": false},
            {"name": "sum(client_bytes)", "kind": "size", "key": false},
        ])
    );
    assert_eq!(
        answer["rows"],
        json!([
            {"client_pod": "pod-0", "count": 3, "sum(client_bytes)": 900},
            {"client_pod": "pod-1", "count": 3, "sum(client_bytes)": 1200},
        ])
    );
    assert_eq!((&answer["groups"], &answer["completeness"]["complete"]), (&json!(2), &json!(true)));
    assert_eq!(answer["range"]["from"], json!("2026-03-01T00:00:00.000000000Z"));
    assert_eq!(answer["served_by"], json!({"files": 1, "rows": 6, "rollups": 0}));

    let top = [("field", "client_pod"), ("by", "client_bytes"), ("limit", "1"), FROM, TO];
    let (_, answer) = server.get("/api/v1/flows/top", &top).await;
    assert_eq!(answer["rows"], json!([{"client_pod": "pod-1", "sum(client_bytes)": 1200}]));
    assert_eq!(answer["groups"], json!(2));

    let half = [("field", "client_pod"), ("by", "count"), ("compare", "true"), ("from", "2026-03-01T00:03:00Z"), TO];
    let (_, answer) = server.get("/api/v1/flows/top", &half).await;
    assert_eq!(answer["rows"][0], json!({"client_pod": "pod-1", "count": 2, "previous_count": 1}));
    assert_eq!(answer["previous"]["from"], json!("2026-03-01T00:00:00.000000000Z"));
    assert_eq!(answer["completeness"]["complete"], json!(true));
    let lost = Loss { node: "node-1".into(), from: START, to: START + 1, kernel_drops: 7, ..Loss::default() };
    server.store.catalog.add_loss(&lost).await.unwrap();
    let (_, answer) = server.get("/api/v1/flows/top", &half).await;
    assert_eq!(answer["completeness"]["complete"], json!(false), "of the period before");
    let half = half.map(|(name, value)| (name, if name == "compare" { "false" } else { value }));
    let (_, answer) = server.get("/api/v1/flows/top", &half).await;
    assert_eq!(answer["completeness"]["complete"], json!(true), "nobody asks for that");

    let (_, answer) = server.get("/api/v1/transactions/top", &[("field", "http_host"), FROM, TO]).await;
    assert_eq!(answer["rows"], json!([{"http_host": "web.demo", "count": 2}]));
    let csv = [("q", "| count, max(start) as \"last\" by client_pod"), FROM, TO, ("format", "csv")];
    let (status, _) = server.text("GET", &address("/api/v1/flows/aggregate", &csv), "").await;
    assert_eq!(status, 400, "a name is a word");
    let csv = [("q", "| count by client_pod, 1h"), FROM, TO, ("format", "csv")];
    let (_, text) = server.text("GET", &address("/api/v1/flows/aggregate", &csv), "").await;
    let lines: Vec<&str> = text.split("\r\n").collect();
    let hour = "2026-03-01T00:00:00.000000000Z";
    assert_eq!(lines, ["client_pod,time,count", &format!("pod-0,{hour},3"), &format!("pod-1,{hour},3"), ""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_say_where_and_what_to_do() {
    let server = Server::start(QueryLimits::default()).await;
    for (path, q, column, hint) in [
        ("/api/v1/flows", "port == 443 | count", Some(13), "/api/v1/flows/aggregate"),
        ("/api/v1/flows/aggregate", "port == 443", None, "| count by"),
        ("/api/v1/flows/aggregate", "port == 443 | cuont", Some(15), ""),
        ("/api/v1/flows/aggregate", "| count by clent_pod", Some(12), "client_pod"),
    ] {
        let (status, answer) = server.get(path, &[("q", q)]).await;
        let error = &answer["error"];
        assert_eq!((status, error["column"].as_u64()), (400, column), "{q}: {answer}");
        assert!(error["hint"].as_str().unwrap_or_default().contains(hint), "{answer}");
    }
    let (status, answer) = server.get("/api/v1/flows/top", &[("field", "client_pd")]).await;
    assert_eq!((status, answer["error"]["column"].as_u64()), (400, Some(1)), "{answer}");
    let centuries = [("from", "1677-10-01"), ("to", "2262-01-01")];
    for (path, parameters) in [
        ("/api/v1/flows/histogram", &[][..]),
        ("/api/v1/transactions/histogram", &[]),
        ("/api/v1/flows/aggregate", &[("q", "| count"), ("compare", "true")]),
        ("/api/v1/transactions/top", &[("field", "client_pod"), ("compare", "true")]),
    ] {
        let (status, answer) = server.get(path, &[parameters, &centuries].concat()).await;
        assert_eq!((status, answer["error"]["hint"].is_string()), (400, true), "{path}: {answer}");
    }
    let (status, answer) = server.post("/api/v1/sql", json!({"query": "drop table flows"})).await;
    assert_eq!(status, 400);
    assert!(answer["error"]["message"].as_str().unwrap().contains("refused"), "{answer}");
    let (status, _) = server.post("/api/v1/sql", json!({"text": "select 1"})).await;
    assert_eq!(status, 400);
    assert!(server.counted("sql", "failed") > 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_and_explanations() {
    let server = Server::start(QueryLimits::default()).await;
    let query = "select client_pod, count(*) as n from flows group by 1 order by 1";
    let (status, answer) = server.post("/api/v1/sql", json!({"query": query})).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["rows"], json!([{"client_pod": "pod-0", "n": 3}, {"client_pod": "pod-1", "n": 3}]));
    assert_eq!(answer["columns"], json!([{"name": "client_pod", "kind": "text"}, {"name": "n", "kind": "number"}]));
    let (_, answer) = server.post("/api/v1/sql", json!({"query": "select slice from flows", "limit": 2})).await;
    assert_eq!((answer["rows"].as_array().unwrap().len(), &answer["truncated"]), (2, &json!(true)));
    assert_eq!(answer["completeness"]["complete"], json!(true), "{answer}");
    let (_, text) = server.text("POST", "/api/v1/sql", &json!({"query": query, "format": "csv"}).to_string()).await;
    assert_eq!(text, "client_pod,n\r\npod-0,3\r\npod-1,3\r\n");

    let question = json!({"q": "client_pod == pod-0", "from": FROM.1, "to": TO.1});
    let (status, answer) = server.post("/api/v1/explain", question).await;
    assert_eq!(status, 200, "{answer}");
    for (name, number) in
        [("answer_rows", 3), ("files", 1), ("files_in_range", 1), ("files_opened", 1), ("memory_rows", 2), ("rows", 4)]
    {
        assert_eq!(answer[name], json!(number), "{name}: {answer}");
    }
    assert!(answer["plans"][0].as_str().unwrap().contains("parquet"), "{answer}");
    let question = json!({"q": "| count by client_pod", "from": "2026-03-01T00:05:00Z", "to": TO.1});
    let (_, answer) = server.post("/api/v1/explain", question).await;
    assert_eq!((&answer["answer_rows"], &answer["files_opened"]), (&json!(1), &json!(0)), "{answer}");
    let question = json!({"q": "nothing-like-it and http_status == 1", "table": "transactions", "from": FROM.1});
    let (_, answer) = server.post("/api/v1/explain", question).await;
    assert_eq!(answer["answer_rows"], json!(0), "{answer}");
}

/// Whatever is asked: status and kind of the answer are in the document.
#[tokio::test(flavor = "multi_thread")]
async fn the_document_knows_each_answer() {
    let server = Server::start(QueryLimits::default()).await;
    let document: Value = serde_json::from_str(&wiretag_web::openapi_json()).unwrap();
    let check = async |path: &str, parameters: &[(&str, &str)], expected: u16| {
        let asked = address(path, &[parameters, &[FROM, TO]].concat());
        let mut answer = Vec::new();
        server.send("GET", &asked, "").await.read_to_end(&mut answer).await.unwrap();
        // The rest may be no text.
        let text = String::from_utf8_lossy(&answer);
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap();
        let (kind, status) = (kind.split(';').next().unwrap(), head.split(' ').nth(1).unwrap());
        assert_eq!(status, expected.to_string(), "{asked}: {head}");
        let known = &document["paths"][path]["get"]["responses"][status]["content"];
        assert!(known[kind].is_object(), "{asked}: {kind} is none of {known}");
    };
    for format in ["parquet", "csv", "json", "jsonl"] {
        check("/api/v1/flows/export", &[("format", format)], 200).await;
        check("/api/v1/transactions/export", &[("format", format)], 200).await;
    }
    check("/api/v1/flows/export", &[("format", "ipfix")], 200).await;
    check("/api/v1/transactions/export", &[("format", "ipfix")], 400).await;
    for format in ["json", "csv"] {
        check("/api/v1/flows/aggregate", &[("q", "| count"), ("format", format)], 200).await;
        check("/api/v1/transactions/top", &[("field", "client_pod"), ("format", format)], 200).await;
    }
    check("/api/v1/flows/histogram", &[("buckets", "0")], 400).await;
    check("/api/v1/health", &[], 400).await;
    for path in document["paths"].as_object().unwrap().values() {
        for method in path.as_object().unwrap().values() {
            assert!(["500", "503"].iter().all(|status| method["responses"][status].is_object()), "{method}");
        }
    }
}

/// As when the same capture is stored twice: rows alike are told apart by a longer cursor.
#[tokio::test(flavor = "multi_thread")]
async fn pages_go_on_behind_rows_alike() {
    let server = Server::start(QueryLimits::default()).await;
    let rows: Vec<_> = (0..6_u64).flat_map(|number| [number, number]).map(flow).collect();
    server.store.flows.append(rows).await.unwrap();
    let (mut seen, mut after) = (0, String::new());
    loop {
        let (status, page) = server.get("/api/v1/flows", &[FROM, TO, ("limit", "1"), ("after", &after)]).await;
        assert_eq!(status, 200, "{after}: {page}");
        seen += page["flows"].as_array().unwrap().len();
        let question = json!({"from": FROM.1, "to": TO.1, "limit": 1, "after": after});
        assert_eq!(server.post("/api/v1/explain", question).await.0, 200, "{after}");
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, 18);
    let (status, answer) = server.get("/api/v1/flows", &[("after", "1.2")]).await;
    assert_eq!((status, answer["error"]["hint"].is_string()), (400, true), "{answer}");
}

/// Runs for hours if nobody stops it, and needs no memory.
const ENDLESS: &str =
    "select count(*) from generate_series(1, 100) a, generate_series(1, 1000000000000) b where a.value * b.value < 0";

#[tokio::test(flavor = "multi_thread")]
async fn a_query_ends_when_its_client_goes() {
    let server = Server::start(QueryLimits { concurrent: 1, ..QueryLimits::default() }).await;
    let running = || {
        let families = server.registry.gather();
        let family = families.iter().find(|family| family.name() == "wiretag_queries_running");
        // The service is there when it answers first.
        family.map_or(0.0, |family| family.get_metric()[0].get_gauge().get_value())
    };
    let client = server.send("POST", "/api/v1/sql", &json!({"query": ENDLESS}).to_string()).await;
    eventually(30, "the query runs", || (running() > 0.5).then_some(()));
    drop(client);
    eventually(30, "the query ended", || (server.counted("sql", "cancelled") > 0.5 && running() < 0.5).then_some(()));
    let (status, answer) = server.post("/api/v1/sql", json!({"query": "select 1 as one"})).await;
    assert_eq!((status, &answer["rows"]), (200, &json!([{"one": 1}])), "its place is free");
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_about_identities_have_places_too() {
    let server = Server::start(QueryLimits::default()).await;
    let (status, answer) = server.get("/api/v1/identities", &[("limit", "1000000"), ("name", "web-*")]).await;
    assert_eq!((status, answer), (200, json!({"identities": [], "truncated": false})));
    assert!(server.counted("identities", "answered") > 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_told() {
    let hasty = QueryLimits { time: Duration::from_millis(300), ..QueryLimits::default() };
    let server = Server::start(hasty).await;
    let (status, answer) = server.post("/api/v1/sql", json!({"query": ENDLESS})).await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer["error"]["hint"].as_str().unwrap().contains("`queries.seconds`"), "{answer}");
    assert!(server.counted("sql", "timed_out") > 0.5);

    let small = QueryLimits { memory: 4 << 20, ..QueryLimits::default() };
    let server = Server::start(small).await;
    let much = "select count(distinct value % 9999991) from generate_series(1, 10000000)";
    let (status, answer) = server.post("/api/v1/sql", json!({"query": much})).await;
    assert_eq!(status, 422, "{answer}");
    assert!(answer["error"]["hint"].as_str().unwrap().contains("`queries.mib`"), "{answer}");
    assert!(server.counted("sql", "limited") > 0.5);
}
