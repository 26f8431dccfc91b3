//! Readers: each route, asked for everything by somebody who may see the rows of one pod only.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wiretag_capture::{LinkType, Packet};
use wiretag_store::packets::list;
use wiretag_store::query::RowFilter;
use wiretag_store::{Loss, PacketLogConfig, QueryLimits};
use wiretag_web::Reader;

use crate::erasures::status;
use crate::rows::{START, flow, name, transaction};
use crate::{FROM, Server, TO, address};

/// The readers of every server of these tests: of the rows of `pod-1`, and of all.
pub(crate) fn all() -> Vec<Reader> {
    let rows = RowFilter::parse("pod == pod-1").unwrap();
    vec![
        Reader { name: "shop".into(), token: "token-of-shop".into(), rows: Some(rows) },
        Reader { name: "everybody".into(), token: "token-of-everybody".into(), rows: None },
    ]
}

/// What every server of these tests has not yet accounted for: nothing of it was lost, in an hour that has nothing else.
pub(crate) fn loss() -> Loss {
    let from = START - 7_200_000_000_000;
    Loss { node: "node-1".into(), from, to: from + 1, packets: 5_017, refused: 3, ..Loss::default() }
}

const OWNER: &str = "authorization: Bearer token\r\n";
const SHOP: &str = "authorization: Bearer token-of-shop\r\n";
const EVERYBODY: &str = "authorization: Bearer token-of-everybody\r\n";

/// Both pods have flows and transactions, in a file and in memory.
async fn server() -> Server {
    let server = Server::start(QueryLimits::default()).await;
    let rows = (0..4_u64).map(|number| {
        let mut row = transaction(number, 7);
        name(&mut row.client, &format!("pod-{}", number % 2), &[]);
        row
    });
    server.store.transactions.append(rows.collect()).await.unwrap();
    server
}

/// What is asked of each route of the document: path with parameters, and body.
fn question(method: &str, path: &str, flow: &str) -> (String, String) {
    let path = path.replace("{flow_id}", flow).replace("{id}", "1");
    let aggregate = ("q", "| count, sum(client_bytes) as bytes by client_pod");
    let parameters: Vec<(&str, &str)> = match path.as_str() {
        "/api/v1/flows"
        | "/api/v1/transactions"
        | "/api/v1/flows/histogram"
        | "/api/v1/transactions/histogram"
        | "/api/v1/topology"
        | "/api/v1/pcap" => vec![FROM, TO],
        "/api/v1/flows/aggregate" => vec![aggregate, FROM, TO],
        "/api/v1/transactions/aggregate" => vec![("q", "| count by client_pod"), FROM, TO],
        "/api/v1/flows/top" | "/api/v1/transactions/top" => vec![("field", "client_pod"), FROM, TO],
        "/api/v1/flows/export" | "/api/v1/transactions/export" => vec![("format", "jsonl"), FROM, TO],
        _ => Vec::new(),
    };
    let body = match (method, path.as_str()) {
        ("post", "/api/v1/sql") => json!({"query": "select * from flows"}),
        ("post", "/api/v1/explain") => json!({"q": "| count by client_pod", "from": FROM.1, "to": TO.1}),
        ("post", "/api/v1/erasures") => json!({"filter": "pod == pod-1", "reason": "why", "dry_run": true}),
        _ => Value::Null,
    };
    let body = if body.is_null() { String::new() } else { body.to_string() };
    (address(&path, &parameters), body)
}

/// Whatever routes there will be: none tells a reader of the other pod.
#[tokio::test(flavor = "multi_thread")]
async fn no_route_tells_of_rows_that_a_filter_stops() {
    let server = server().await;
    let (_, document) = server.get("/api/v1/openapi.json", &[]).await;
    let (hidden, own) = (format!("{:016x}", 2), format!("{:016x}", 3));
    let (mut told, mut stopped) = (Vec::new(), Vec::new());
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            // Logins are tested below; a tail has no end.
            if path.ends_with("/login") || path.ends_with("/logout") || path.ends_with("/tail") {
                continue;
            }
            let upper = method.to_uppercase();
            let (asked, body) = question(method, path, &hidden);
            let (_, text) = status(&server, (&upper, &asked), OWNER, &body).await;
            if text.contains("pod-0") {
                told.push(path.as_str());
            }
            let (code, text) = status(&server, (&upper, &asked), SHOP, &body).await;
            assert!(!text.contains("pod-0"), "{method} {path}: {text}");
            if code == 403 {
                stopped.push(path.as_str());
            }
            let (asked, body) = question(method, path, &own);
            let (_, text) = status(&server, (&upper, &asked), SHOP, &body).await;
            let is_told = text.contains("pod-1") || !told.contains(&path.as_str());
            assert!(is_told && !text.contains("pod-0"), "{method} {path}: {text}");
        }
    }
    let tables = ["flows", "flows/aggregate", "flows/export", "flows/top", "flows/{flow_id}", "sql", "transactions"];
    for path in tables.map(|path| format!("/api/v1/{path}")) {
        assert!(told.contains(&path.as_str()), "{path} should tell of the pod at all: {told:?}");
    }
    for format in ["csv", "ipfix"] {
        let asked = address("/api/v1/flows/export", &[("format", format), FROM, TO]);
        for (token, pods) in [(OWNER, [true, true]), (SHOP, [false, true])] {
            let (code, text) = status(&server, ("GET", &asked), token, "").await;
            assert_eq!((code, ["pod-0", "pod-1"].map(|pod| text.contains(pod))), (200, pods), "{format}: {text}");
        }
    }
    let whole = ["/api/v1/erasures", "/api/v1/erasures", "/api/v1/erasures/{id}", "/api/v1/identities"];
    assert_eq!(stopped, whole, "what has no rows is for those who may see all");
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_pages_and_packets_are_of_the_readers_rows() {
    let server = server().await;
    let of = async |token: &str, path: &str, parameters: &[(&str, &str)]| {
        let (code, text) = status(&server, ("GET", &address(path, parameters)), token, "").await;
        let body = text.split_once("\r\n\r\n").unwrap().1;
        (code, serde_json::from_str::<Value>(body).unwrap_or_default())
    };
    for (token, flows, exchanges) in [(OWNER, 6, 6), (EVERYBODY, 6, 6), (SHOP, 3, 2)] {
        let (_, answer) = of(token, "/api/v1/flows/histogram", &[FROM, TO, ("buckets", "1")]).await;
        assert_eq!(answer["buckets"][0]["flows"], json!(flows), "{token}");
        let (_, answer) = of(token, "/api/v1/transactions/histogram", &[FROM, TO, ("buckets", "1")]).await;
        let bucket = &answer["buckets"][0];
        assert_eq!(bucket["transactions"], json!(exchanges), "{token}: {answer}");
        assert_eq!(bucket["response_bytes"], json!(exchanges * 4_000), "{token}: {answer}");
        let (_, answer) = of(token, "/api/v1/topology", &[FROM, TO]).await;
        assert_eq!(answer["edges"][0]["count"], json!(flows), "{token}: {answer}");
    }
    // What had to be read for it tells of rows that are not its own.
    let (_, plan) =
        status(&server, ("POST", "/api/v1/sql"), SHOP, &json!({"query": "explain select * from flows"}).to_string())
            .await;
    assert!(plan.contains("partition_sizes=5"), "one of memory and four of files, whatever there is: {plan}");
    for (token, told) in [(OWNER, true), (SHOP, false)] {
        for path in ["/api/v1/flows/histogram", "/api/v1/topology"] {
            let (_, answer) = of(token, path, &[FROM, TO]).await;
            assert_eq!(answer["served_by"]["files"].as_u64() > Some(0), told, "{path}: {answer}");
            assert_eq!(answer["completeness"]["complete"], json!(true), "{path}: {answer}");
        }
    }
    // Its words cannot widen what it sees.
    for q in ["pod == pod-0", "pod exists or start exists", "not (pod == pod-1)", ""] {
        let (_, answer) = of(SHOP, "/api/v1/flows", &[("q", q), FROM, TO]).await;
        let flows = answer["flows"].as_array().unwrap();
        assert!(flows.iter().all(|row| row["client_pod"] == "pod-1"), "{q}: {answer}");
    }
    let (hidden, own) = ("/api/v1/flows/0000000000000002", "/api/v1/flows/0000000000000003");
    assert_eq!((of(SHOP, hidden, &[]).await.0, of(SHOP, own, &[]).await.0), (404, 200));
    assert_eq!(of(SHOP, &format!("{hidden}/pcap"), &[]).await.0, 404);
    assert_eq!(of(SHOP, &format!("{own}/pcap"), &[]).await.0, 200);
    // All packets of a range are also those of no flow.
    assert_eq!(of(OWNER, "/api/v1/pcap", &[("from", "2026-01-01"), ("to", "2026-01-02")]).await.0, 200);
    assert_eq!(of(SHOP, "/api/v1/pcap", &[("from", "2026-01-01"), ("to", "2026-01-02")]).await.0, 404);
    let metrics = async |token: &str| status(&server, ("GET", "/metrics"), token, "").await.0;
    assert_eq!([metrics(OWNER).await, metrics(EVERYBODY).await, metrics(SHOP).await], [200, 200, 403]);
}

/// To who knows the secret of the run, and to each number anew.
#[tokio::test(flavor = "multi_thread")]
async fn an_appliance_proves_itself_to_everybody_and_tells_no_secret() {
    let server = server().await;
    for headers in ["", SHOP, OWNER] {
        let (code, text) = status(&server, ("GET", "/api/v1/health?number=17"), headers, "").await;
        assert!(code == 200 && text.contains(&wiretag_web::proof("test", "17")), "{text}");
        let (_, text) = status(&server, ("GET", "/api/v1/health"), headers, "").await;
        assert!(text.ends_with("{\"status\":\"ok\"}"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_sent_is_not_told_by_what_is_missing() {
    let server = server().await;
    let path = address("/api/v1/flows", &[("from", "2026-02-28T21:00:00Z"), ("to", "2026-02-28T23:00:00Z")]);
    for (token, told) in
        [(OWNER, ["node-1", "5017", "3"]), (EVERYBODY, ["node-1", "5017", "3"]), (SHOP, ["", "0", "0"])]
    {
        let (code, text) = status(&server, ("GET", &path), token, "").await;
        let answer: Value = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
        let node = &answer["completeness"]["nodes"][0];
        let found =
            [node["node"].as_str().unwrap().to_owned(), node["packets"].to_string(), node["refused"].to_string()];
        assert_eq!((code, found), (200, told.map(str::to_owned)), "{token}: {answer}");
        assert_eq!(answer["completeness"]["complete"], json!(true), "{answer}");
    }
}

/// The names of its ends changed while the flow was open.
#[tokio::test(flavor = "multi_thread")]
async fn packets_of_a_slice_that_a_filter_stops_are_in_no_download() {
    let server = server().await;
    let mut log = server.store.packet_log(PacketLogConfig::default()).unwrap();
    for slice in 0..4_i64 {
        let mut row = flow(99);
        (row.record.slice, row.record.start) = (slice as u32, START + slice * 1_000);
        row.record.end = row.record.start + 999;
        row.record.primary = true;
        name(&mut row.client, &format!("pod-{}", slice % 2), &[]);
        server.store.flows.append(vec![row]).await.unwrap();
        for time in [0, 500, 999] {
            let data = format!("packet-of-pod-{} to be found in a file", slice % 2);
            let packet = Packet {
                time: START + slice * 1_000 + time,
                data: data.as_bytes(),
                wire_len: data.len() as u32,
                link_type: LinkType::ETHERNET,
                interface: 1,
                direction: None,
                vlan: None,
            };
            log.append("veth1", &packet, Some(99)).unwrap();
        }
    }
    log.seal().unwrap();
    server.store.record_segments().await.unwrap();
    let one = "/api/v1/flows/0000000000000063/pcap".to_owned();
    let found = address("/api/v1/pcap", &[("q", "flow_id == 0000000000000063"), FROM, TO]);
    let all = address("/api/v1/pcap", &[FROM, TO]);
    for path in [&one, &found, &all] {
        for (token, packets) in [(OWNER, [6, 6]), (EVERYBODY, [6, 6]), (SHOP, [0, 6])] {
            let (code, text) = status(&server, ("GET", path), token, "").await;
            let count = ["packet-of-pod-0", "packet-of-pod-1"].map(|text_of| text.matches(text_of).count());
            assert_eq!((code, count), (200, packets), "{path} {token}");
        }
    }
}

/// Answers about a time say so, whatever they are of; how much it was is nothing for those who see some rows only.
#[tokio::test(flavor = "multi_thread")]
async fn packets_that_are_gone_from_the_disk_are_missing_in_answers() {
    let server = server().await;
    let mut log = server.store.packet_log(PacketLogConfig::default()).unwrap();
    let (time, data, link_type) = (START + 3 * 60_000_000_000, [1; 60], LinkType::ETHERNET);
    let packet = Packet { time, data: &data, wire_len: 60, link_type, interface: 1, direction: None, vlan: None };
    log.append("veth1", &packet, Some(99)).unwrap();
    log.seal().unwrap();
    server.store.record_segments().await.unwrap();
    let dir = server.store.data_dir();
    std::fs::remove_file(dir.join(list(dir).unwrap().remove(0))).unwrap();
    // Its index says that it has nothing of this flow.
    let flow = "/api/v1/flows/0000000000000003/pcap".to_owned();
    for path in [flow, address("/api/v1/flows", &[FROM, TO])] {
        for (token, packets) in [(OWNER, 1), (SHOP, 0)] {
            let (code, text) = status(&server, ("GET", &path), token, "").await;
            let told = format!("\"missing_packets\":{packets}");
            assert_eq!(code, 200, "{text}");
            for told in ["\"complete\":false", "\"missing_segments\":1", &told] {
                assert!(text.contains(told), "{path} {token}{told}: {text}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_log_in_and_change_nothing() {
    let server = server().await;
    for (token, name, rows) in [
        ("token", None, None),
        ("token-of-shop", Some("shop"), Some("pod == pod-1")),
        ("token-of-everybody", Some("everybody"), None),
    ] {
        let login = json!({ "token": token }).to_string();
        let (code, text) = status(&server, ("POST", "/api/v1/login"), "", &login).await;
        assert_eq!(code, 204, "{text}");
        let cookie = text.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        let session = format!("cookie: {}\r\nx-wiretag: 1\r\n", cookie.split(';').next().unwrap());
        let (_, text) = status(&server, ("GET", "/api/v1/session"), &session, "").await;
        let told: Value = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(told, json!({"authenticated": true, "reader": name, "rows": rows}));
        let path = address("/api/v1/flows", &[FROM, TO]);
        let (_, text) = status(&server, ("GET", &path), &session, "").await;
        assert_eq!(text.contains("pod-0"), rows.is_none(), "a session sees what its token does");
        let erasure = json!({"filter": "pod == pod-1", "reason": "why"}).to_string();
        assert_eq!(status(&server, ("POST", "/api/v1/erasures"), &session, &erasure).await.0, 403);
        let bearer = format!("authorization: Bearer {token}\r\n");
        let dry = json!({"filter": "pod == pod-1", "reason": "why", "dry_run": true}).to_string();
        let (code, _) = status(&server, ("POST", "/api/v1/erasures"), &bearer, &dry).await;
        assert_eq!(code == 200, name.is_none(), "{token}");
    }
    let (code, _) = status(&server, ("POST", "/api/v1/login"), "", "{\"token\":\"token-of-nobody\"}").await;
    assert_eq!(code, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_one_host() {
    let server = server().await;
    let metrics = ("GET", "/metrics");
    assert_eq!(status(&server, metrics, "", "").await.0, 200, "from this host");
    assert_eq!(status(&server, metrics, "host: evil.example\r\n", "").await.0, 400);
    assert_eq!(status(&server, ("GET", "http://evil.example/metrics"), "", "").await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_keep_nobody_out() {
    let server = server().await;
    let login = async |token: &str| {
        status(&server, ("POST", "/api/v1/login"), "", &json!({ "token": token }).to_string()).await.0
    };
    let mut told = Vec::new();
    for _ in 0..12 {
        told.push(login("token-of-nobody").await);
    }
    assert_eq!((told.first(), told.last()), (Some(&401), Some(&429)), "{told:?}");
    assert_eq!((login("token").await, login("token-of-shop").await), (204, 204));
    assert_eq!(login("token-of-nobody").await, 429, "who knows a token does not help strangers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_has_the_readers_rows_only() {
    let server = server().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!("GET /api/v1/flows/tail HTTP/1.1\r\nhost: localhost\r\n{SHOP}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut text, mut bytes) = (String::new(), [0; 4096]);
    let row = |number: u64| {
        let mut row = flow(number);
        name(&mut row.client, &format!("pod-{number}"), &[]);
        row
    };
    // Until it has joined, nobody is told.
    while !text.contains("pod-1") {
        server.tail.publish(&[row(0), row(1)]);
        let read = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut bytes)).await;
        let Ok(read) = read else { continue };
        let read = read.unwrap();
        assert!(read > 0, "it goes on: {text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    assert!(!text.contains("pod-0"), "{text}");
}

/// Where a token is tried, it is noted: also where strangers have an answer.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_are_noted_wherever_they_are_tried() {
    for path in ["/api/v1/flows", "/api/v1/health", "/metrics"] {
        let server = Server::start(QueryLimits::default()).await;
        for _ in 0..12 {
            status(&server, ("GET", path), "authorization: Bearer guess\r\n", "").await;
        }
        let (code, text) = status(&server, ("POST", "/api/v1/login"), "", "{\"token\":\"guess\"}").await;
        assert_eq!(code, 429, "{path}: {text}");
    }
}
