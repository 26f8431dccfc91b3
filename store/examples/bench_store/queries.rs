//! The questions of the benchmark.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wiretag_capture::FlowRecord;
use wiretag_store::query::{Query, parse, parse_statement};
use wiretag_store::tables::{AggregateRequest, FlowStore, Range, SearchOptions};

use crate::{cpu, open};

const HOUR: i64 = 3_600_000_000_000;
/// Memory of an aggregation, bytes.
const MEMORY: usize = 512 << 20;

/// A question and its range.
struct Question {
    text: String,
    range: Range,
    limit: usize,
}

/// Asks once, then `runs` times again: the first answer may come from the disk. `is_warmed`: after what the appliance reads when it starts.
pub(crate) async fn run(dir: &Path, name: &str, runs: usize, is_warmed: bool) {
    let needles: Value = serde_json::from_slice(&std::fs::read(dir.join("needles.json")).unwrap()).unwrap();
    let store = open(dir).await;
    if is_warmed {
        store.warm().await.unwrap();
    }
    let question = question(name, &needles);
    let (mut times, mut found, mut used) = (Vec::new(), 0, Duration::ZERO);
    for _ in 0..=runs {
        let (clock, before) = (Instant::now(), cpu());
        found = answer(&store, name, &question).await;
        times.push(clock.elapsed().as_secs_f64() * 1e3);
        used = cpu().saturating_sub(before);
    }
    let mut warm = times.split_off(1);
    warm.sort_by(f64::total_cmp);
    let result = json!({ "query": name, "rows": found, "cold_ms": times[0], "warm_ms": warm[warm.len() / 2], "cpu_ms": used.as_millis() as u64 });
    println!("{result}");
}

fn question(name: &str, needles: &Value) -> Question {
    let text = |key: &str| needles[key].as_str().unwrap();
    let number = |key: &str| needles[key].as_i64().unwrap();
    let (begin, span) = (number("begin"), number("span"));
    let all = Range { from: begin - HOUR, to: begin + span + HOUR };
    let middle = begin + span / 3;
    let day = Range { from: middle - 12 * HOUR, to: middle + 12 * HOUR };
    let ask = |text: String, range, limit| Question { text, range, limit };
    match name {
        "newest_rare" => ask(format!("ip == {} and port == {}", text("rare_ip"), number("rare_port")), all, 100),
        "newest_often" => ask(format!("ip == {} and port == {}", text("often_ip"), number("often_port")), all, 100),
        "newest" => ask(String::new(), all, 100),
        "pod_day" => ask(format!("pod == {}", text("pod")), day, 100_000),
        "flow" => ask(format!("flow_id == {}", text("flow_id")), all, 100),
        "needle" => ask(format!("tls_sni == {}", text("sni")), all, 100),
        "histogram" => ask("server_port == 443 and client_retransmits > 0".to_owned(), all, 0),
        "top" => ask(
            "primary | top 20 client_workload by client_bytes".to_owned(),
            Range { from: middle, to: middle + HOUR },
            0,
        ),
        "quantiles" => {
            let text = "primary | p50(server_rtt_us), p99(server_rtt_us) by server_workload, time(2m)";
            ask(text.to_owned(), day, 0)
        }
        other => panic!("no question has the name {other}"),
    }
}

/// Rows, or flows counted.
async fn answer(store: &FlowStore, name: &str, question: &Question) -> u64 {
    if question.text.contains(" | ") {
        let statement = parse_statement::<FlowRecord>(&question.text, question.range.to).unwrap();
        let request = AggregateRequest {
            filter: statement.filter,
            aggregate: statement.aggregate.unwrap(),
            range: question.range,
            all_observations: true,
            compare: false,
            memory: MEMORY,
        };
        return store.aggregate(&request).await.unwrap().rows.len() as u64;
    }
    let query: Query<FlowRecord> =
        if question.text.is_empty() { Query::everything() } else { parse(&question.text).unwrap() };
    if name == "histogram" {
        let hours = ((question.range.to - question.range.from) / HOUR) as usize;
        let buckets = store.histogram(&query, question.range, hours, true).await.unwrap().buckets;
        return buckets.iter().map(|bucket| bucket.flows).sum();
    }
    let options = SearchOptions { limit: question.limit, all_observations: true, after: None };
    store.search(&query, question.range, options).await.unwrap().rows.len() as u64
}
