//! Aggregations from outside: the same groups and figures as from counting rows by hand, whether rows are in memory, in
//! files, in merged files, or everywhere at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::rows::{self, START, flow, transaction};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use wiretag_capture::{FlowRecord, Transaction};
use wiretag_enrich::TaggedFlow;
use wiretag_store::catalog::Catalog;
use wiretag_store::limits::DEFAULT_MEMORY;
use wiretag_store::query::{self, Query};
use wiretag_store::tables::{AggregateAnswer, AggregateRequest, Engine, GroupRow, Range, TableStore};
use wiretag_store::{LimitReached, StoreError, Table};

const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
/// Where the rows of these tests are.
const HOURS: Range = Range { from: START, to: START + 120 * MINUTE };

async fn store<R: Table>(dir: &std::path::Path) -> TableStore<R> {
    let engine = Engine::open(dir).unwrap();
    let catalog = Catalog::open(&dir.join("catalog.sqlite")).await.unwrap();
    TableStore::open(&engine, catalog).await.unwrap().0
}

fn request<R: Table>(text: &str, range: Range) -> AggregateRequest<R> {
    let statement = query::parse_statement::<R>(text, START).unwrap_or_else(|error| panic!("{error}"));
    AggregateRequest {
        filter: statement.filter,
        aggregate: statement.aggregate.expect("an aggregation"),
        range,
        all_observations: false,
        compare: false,
        memory: DEFAULT_MEMORY,
    }
}

async fn ask<R: Table>(store: &TableStore<R>, text: &str) -> AggregateAnswer {
    store.aggregate(&request(text, HOURS)).await.unwrap()
}

/// Cells of the answer, row by row.
async fn lines<R: Table>(store: &TableStore<R>, text: &str) -> Vec<Vec<Value>> {
    let answer = ask(store, text).await;
    answer.rows.iter().map(|row| row.values().collect()).collect()
}

/// A flow of two ends so much later, that sent so many bytes.
fn talk(number: u64, ends: [&str; 2], minutes: i64, bytes: u64) -> TaggedFlow {
    let mut row = flow(number);
    row.record.start = START + minutes * MINUTE;
    row.record.end = row.record.start + SECOND;
    row.record.client.bytes = bytes;
    row.record.server.bytes = 1;
    for (end, name) in [(&mut row.client, ends[0]), (&mut row.server, ends[1])] {
        if !name.is_empty() {
            rows::name(end, name, &[("app", &name[..1])]);
        }
    }
    row
}

async fn some_talk() -> (tempfile::TempDir, TableStore<FlowRecord>) {
    let dir = tempfile::tempdir().unwrap();
    let store = store::<FlowRecord>(dir.path()).await;
    let rows = [("a", "b", 0, 10), ("a", "b", 1, 20), ("c", "b", 1, 40), ("b", "b", 61, 80), ("", "a", 61, 160)];
    for (number, (client, server, minutes, bytes)) in rows.into_iter().enumerate() {
        store.append(vec![talk(number as u64, [client, server], minutes, bytes)]).await.unwrap();
        if number == 2 {
            store.flush().await.unwrap();
        }
    }
    (dir, store)
}

#[tokio::test]
async fn who_has_the_most() {
    let (_dir, store) = some_talk().await;
    let most = lines(&store, "| top 2 client_pod by client_bytes").await;
    assert_eq!(most, [vec![json!(null), json!(160)], vec![json!("b"), json!(80)]]);
    // Either side: a flow from `b` to `b` is one flow of `b`.
    let both = lines(&store, "pod exists | top pod by count").await;
    assert_eq!(both[0], [json!("b"), json!(4)]);
    assert_eq!(both[1], [json!("a"), json!(3)]);
    assert_eq!(both[2], [json!("c"), json!(1)]);
    let labels = lines(&store, "| sum(bytes) by labels.app | sort labels.app").await;
    assert_eq!(labels[0], [json!("a"), json!(10 + 20 + 160 + 3)]);
    for chosen in ["| top 2 pod by count | sort pod", "| count by pod | sort count desc | limit 2 | sort pod"] {
        assert_eq!(lines(&store, chosen).await, [[json!("a"), json!(3)], [json!("b"), json!(4)]], "{chosen}");
    }
    for fewer in ["| top 3 pod by count | limit 1", "| top 1 pod by count | limit 3"] {
        assert_eq!(lines(&store, fewer).await, [[json!("b"), json!(4)]]);
    }
    let all = ask(&store, "| top 2 client_pod").await;
    assert_eq!((all.groups, all.rows.len()), (4, 2));
    let names: Vec<&str> = all.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["client_pod", "sum(bytes)", "count"]);
}

#[tokio::test]
async fn over_time() {
    let (_dir, store) = some_talk().await;
    let minutes = lines(&store, "client_pod exists | count, sum(client_bytes) as sent by time(1h)").await;
    let hour = |hour: i64| json!(wiretag_store::json::time(START + hour * 60 * MINUTE));
    assert_eq!(minutes, [vec![hour(0), json!(3), json!(70)], vec![hour(1), json!(1), json!(80)]]);
    let rates = lines(&store, "| rate(client_bytes), rate by 2h").await;
    assert_eq!(rates[0][1..], [json!(310.0 / 7200.0), json!(5.0 / 7200.0)]);
    // The rate of an hour that the range cuts is that of what is in it.
    let half = Range { from: START + 60 * MINUTE, to: START + 90 * MINUTE };
    let cut = store.aggregate(&request("| rate(client_bytes) by 1h", half)).await.unwrap();
    assert_eq!(cut.rows[0].get("rate(client_bytes)"), json!(240.0 / 1800.0));
}

/// Rows belong to the period in which they start: two periods side by side make the whole.
#[tokio::test]
async fn no_row_is_in_two_periods() {
    let dir = tempfile::tempdir().unwrap();
    let store = store::<FlowRecord>(dir.path()).await;
    let mut long = talk(1, ["a", "b"], 1, 10);
    long.record.end = START + 10 * MINUTE;
    store.append(vec![long, talk(2, ["a", "b"], 5, 1)]).await.unwrap();
    for flushed in [false, true] {
        if flushed {
            store.flush().await.unwrap();
        }
        let later = Range { from: START + 5 * MINUTE, to: HOURS.to };
        let mut counts = Vec::new();
        for range in [Range { from: START, to: later.from }, later] {
            counts.push(store.aggregate(&request("| count", range)).await.unwrap().rows[0].get("count").clone());
        }
        assert_eq!(counts, [json!(1), json!(1)], "flushed: {flushed}");
        let buckets = store.histogram(&Query::everything(), later, 2, false).await.unwrap().buckets;
        assert_eq!(buckets.iter().map(|bucket| bucket.flows).collect::<Vec<_>>(), [1, 0], "flushed: {flushed}");
    }
}

#[tokio::test]
async fn transactions_over_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = store::<Transaction>(dir.path()).await;
    let exchanges = (0..5).map(|number| {
        let mut row = transaction(u64::from(number), number);
        row.record.exchange.start = START + i64::from(number) * 30 * MINUTE;
        row.record.exchange.end = row.record.exchange.start + SECOND;
        row.record.exchange.response_bytes = (number != 1).then_some(1_000);
        rows::name(&mut row.client, "shop", &[]);
        row
    });
    store.append(exchanges.collect()).await.unwrap();
    for flushed in [false, true] {
        if flushed {
            store.flush().await.unwrap();
        }
        // The last one starts when the range ends.
        let [shop, bank] = ["client_pod == shop", "client_pod == bank"].map(|text| query::parse(text).unwrap());
        let buckets = store.histogram(&shop, HOURS, 2, false).await.unwrap().buckets;
        let figures = buckets.iter().map(|own| (own.start, own.transactions, own.request_bytes, own.response_bytes));
        let expected = [(START, 2, 80, 1_000), (START + 60 * MINUTE, 2, 80, 2_000)];
        assert_eq!(figures.collect::<Vec<_>>(), expected, "flushed: {flushed}");
        let ends = buckets.iter().map(|own| (own.ambiguous_ends, own.unnamed_ends));
        assert_eq!(ends.collect::<Vec<_>>(), [(0, 2), (0, 2)], "flushed: {flushed}");
        let nothing = store.histogram(&bank, HOURS, 2, false).await.unwrap().buckets;
        assert!(nothing.iter().all(|own| own.transactions + own.request_bytes == 0));
    }
}

#[tokio::test]
async fn nothing_has_figures_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = store::<FlowRecord>(dir.path()).await;
    let answer = lines(&store, "| count, sum(bytes), max(server_rtt_us), distinct(client_ip), rate").await;
    assert_eq!(answer, [vec![json!(0), json!(null), json!(null), json!(0), json!(0.0)]]);
    assert!(lines(&store, "| count by client_ip").await.is_empty());
}

#[tokio::test]
async fn the_period_before() {
    let (_dir, store) = some_talk().await;
    let second = Range { from: START + 60 * MINUTE, to: START + 120 * MINUTE };
    let compared = |text: &str| AggregateRequest { compare: true, ..request::<FlowRecord>(text, second) };
    let answer = store.aggregate(&compared("| count, sum(client_bytes) by server_pod")).await.unwrap();
    assert_eq!(answer.previous, Some(Range { from: START, to: second.from }));
    let names: Vec<&str> = answer.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["server_pod", "count", "sum(client_bytes)", "previous_count", "previous_sum(client_bytes)"]);
    let cells = |row: &GroupRow| row.values().collect::<Vec<_>>();
    let rows: Vec<_> = answer.rows.iter().map(cells).collect();
    assert_eq!(
        rows,
        [
            vec![json!("a"), json!(1), json!(160), json!(0), json!(null)],
            vec![json!("b"), json!(1), json!(80), json!(3), json!(70)]
        ]
    );
    // Who is gone is told, unless only the most are wanted; and a minute is compared with the one an hour before.
    let gone = store.aggregate(&compared("client_pod == c | count by client_pod, 1m")).await.unwrap();
    let minute = json!(wiretag_store::json::time(second.from + MINUTE));
    assert_eq!(cells(&gone.rows[0]), [json!("c"), minute, json!(0), json!(1)]);
    assert!(store.aggregate(&compared("client_pod == c | top client_pod")).await.unwrap().rows.is_empty());
}

/// Many more groups than memory has room for: the greatest are still found, and what needs all of them at once is refused.
#[tokio::test]
async fn memory_is_limited_and_the_greatest_are_found_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let store = store::<Transaction>(dir.path()).await;
    let mut all = Vec::new();
    for number in 0..20_000_u32 {
        let mut row = transaction(number.into(), 0);
        row.record.exchange.path = Some(format!("/a/rather/long/path/that/nobody/has/but/number/{number}").into());
        row.record.exchange.response_bytes = Some(u64::from(number.wrapping_mul(2_654_435_761) % 1_000_003));
        all.push(row);
    }
    let mut expected: Vec<(u64, String)> = all
        .iter()
        .map(|row| {
            (row.record.exchange.response_bytes.unwrap(), row.record.exchange.path.as_deref().unwrap().to_owned())
        })
        .collect();
    expected.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    store.append(all).await.unwrap();
    store.flush().await.unwrap();
    let small = |text: &str| AggregateRequest { memory: 1 << 20, ..request::<Transaction>(text, HOURS) };
    let answer = store.aggregate(&small("| top 5 http_path by response_bytes")).await.unwrap();
    let found: Vec<(u64, String)> = answer
        .rows
        .iter()
        .map(|row| {
            (row.get("sum(response_bytes)").as_u64().unwrap(), row.get("http_path").as_str().unwrap().to_owned())
        })
        .collect();
    assert_eq!(found, expected[..5]);
    assert_eq!(answer.groups, 20_000);
    for text in ["| count by http_path", "| distinct(http_path)"] {
        let error = store.aggregate(&small(text)).await.unwrap_err();
        assert!(matches!(error, StoreError::Limit(LimitReached::Memory { mib: 1 })), "{error}");
        assert!(error.to_string().contains("hint: "), "{error}");
    }
    let enough = lines(&store, "| distinct(http_path), count").await;
    assert_eq!(enough, [vec![json!(20_000), json!(20_000)]]);
}

#[test]
fn mistakes_have_a_place_and_a_hint() {
    for (text, column, hint) in [
        ("pod == x | frobnicate(client_bytes) by pod", 12, "`sum(…)`"),
        ("pod == x |", 11, ""),
        ("| count by", 11, ""),
        ("| count by clent_pod", 12, "client_pod"),
        ("| count by time(soon)", 17, "`1m`"),
        ("| sum(pod)", 7, "distinct(pod)"),
        ("| top 0 pod", 7, "from 1 to"),
        ("| top pod by server_rtt_us", 14, "p95(server_rtt_us)"),
        ("| top pod by server_port", 14, "distinct(server_port)"),
        ("| count(pod)", 9, "distinct(pod)"),
        ("| sum by pod", 7, "sum(client_bytes)"),
        ("| count by labels", 12, "labels.app"),
        ("| count, count by pod", 3, "`as`"),
        ("| count by pod | sort bytes", 23, "`pod`, `count`"),
        ("| count by pod | where pod == x", 18, "one aggregation"),
        ("| count by pod | limit many", 24, "from 1 to"),
        ("| top 3 pod | sort pod | limit 1", 32, "choose once"),
        ("| p101(server_rtt_us)", 3, "`p99.9(…)`"),
        ("| sum(client_bytes by pod", 20, ""),
    ] {
        let error = query::parse_statement::<FlowRecord>(text, START).expect_err(text);
        assert_eq!(error.column, column, "{error}");
        assert!(error.hint.clone().unwrap_or_default().contains(hint), "{error}");
    }
    let error = query::parse::<FlowRecord>("pod == x | count").expect_err("a condition only");
    assert!(error.to_string().contains("`or` is written `||`"), "{error}");
}

/// Keys: what is typed, and the columns whose values are the key of each end.
const KEYS: &[(&str, &[&str])] = &[
    ("client_pod", &["client_pod"]),
    ("pod", &["client_pod", "server_pod"]),
    ("ip", &["client_ip", "server_ip"]),
    ("server_port", &["server_port"]),
    ("port", &["client_port", "server_port"]),
    ("protocol", &["protocol"]),
    ("labels.app", &["client_labels", "server_labels"]),
    ("client_labels.app", &["client_labels"]),
    ("primary", &["primary"]),
    ("end", &["end"]),
    ("1m", &["start"]),
];

/// Figures: what is typed, how it is made, and of the values of which columns.
const FIGURES: &[(&str, &str, &[&str])] = &[
    ("count", "count", &[]),
    ("sum(client_bytes)", "sum", &["client_bytes"]),
    ("sum(bytes)", "sum", &["client_bytes", "server_bytes"]),
    ("avg(client_retransmits)", "avg", &["client_retransmits"]),
    ("min(server_rtt_us)", "min", &["server_rtt_us"]),
    ("max(rtt_avg_us)", "max", &["client_rtt_avg_us", "server_rtt_avg_us"]),
    ("max(end)", "max", &["end"]),
    ("p50(server_rtt_us)", "p50", &["server_rtt_us"]),
    ("p99(client_bytes)", "p99", &["client_bytes"]),
    ("distinct(ip)", "distinct", &["client_ip", "server_ip"]),
    ("distinct(client_pod)", "distinct", &["client_pod"]),
    ("rate(client_bytes)", "rate", &["client_bytes"]),
];

const FILTERS: &[&str] =
    &["", "client_pod exists", "server_port in {80, 53}", "not labels.app == a", "ip in 10.0.0.0/31"];

fn row() -> impl Strategy<Value = TaggedFlow> {
    let pod = || prop::option::of(0_u8..3);
    let numbers = (0_i64..150, prop_oneof![0_u64..2_000, any::<u64>()], prop::option::of(0_u32..1_000_000));
    (0_u8..4, pod(), pod(), numbers, any::<bool>()).prop_map(|(ip, client, server, (start, bytes, rtt), flag)| {
        let mut row = flow(0);
        row.record.start = START + start * MINUTE / 2 + i64::from(ip);
        row.record.end = row.record.start + SECOND;
        row.record.client.ip = [10, 0, 0, ip].into();
        row.record.client.bytes = bytes;
        row.record.client.retransmits = rtt.filter(|_| flag).map(|rtt| rtt % 5);
        row.record.server.rtt_us = rtt;
        row.record.server.port = rtt.map(|rtt| if rtt % 2 == 0 { 80 } else { 53 });
        row.record.primary = flag || ip > 1;
        for (end, pod) in [(&mut row.client, client), (&mut row.server, server)] {
            if let Some(pod) = pod {
                rows::name(end, &format!("web-{pod}"), if pod == 0 { &[("app", "a")] } else { &[("zone", "z")] });
            }
        }
        row
    })
}

/// Some of a list, each once, in the order of the list.
fn some(of: usize, most: usize) -> impl Strategy<Value = Vec<usize>> {
    prop::collection::btree_set(0..of, 0..=most).prop_map(|set: BTreeSet<usize>| set.into_iter().collect())
}

/// A key, and the rows that have it.
type Groups<'a> = BTreeMap<String, (Vec<Value>, Vec<&'a Map<String, Value>>)>;

/// Counts by hand: from rows as JSON, without the store.
struct Naive<'a> {
    keys: &'a [usize],
    figures: &'a [usize],
    range: Range,
}

impl Naive<'_> {
    fn key(&self, row: &Map<String, Value>, end: usize) -> Vec<Value> {
        let key = |number: &usize| {
            let (text, columns) = KEYS[*number];
            let value = &row[columns[end.min(columns.len() - 1)]];
            match text {
                "1m" => {
                    let nanos = nanos(value);
                    json!(wiretag_store::json::time(nanos - nanos.rem_euclid(MINUTE)))
                }
                _ if text.contains("labels.") => value.get("app").cloned().unwrap_or(Value::Null),
                _ => value.clone(),
            }
        };
        self.keys.iter().map(key).collect()
    }

    fn groups<'a>(&self, rows: &'a [Map<String, Value>]) -> Groups<'a> {
        let mut groups = Groups::new();
        for row in rows {
            let keys = [self.key(row, 0), self.key(row, 1)];
            let distinct = if keys[0] == keys[1] { 1 } else { 2 };
            for key in keys.into_iter().take(distinct) {
                groups.entry(json!(key).to_string()).or_insert_with(|| (key, Vec::new())).1.push(row);
            }
        }
        if self.keys.is_empty() {
            groups.entry("[]".into()).or_default();
        }
        groups
    }

    fn check(&self, key: &[Value], rows: &[&Map<String, Value>], told: &[Value]) {
        for (number, told) in self.figures.iter().zip(told) {
            let (text, figure, columns) = FIGURES[*number];
            let values: Vec<&Value> = rows
                .iter()
                .flat_map(|row| columns.iter().map(|column| &row[*column]))
                .filter(|value| !value.is_null())
                .collect();
            let mut numbers: Vec<u128> = values.iter().filter_map(|value| value.as_u64()).map(u128::from).collect();
            numbers.sort_unstable();
            let sum: u128 = numbers.iter().sum();
            let seconds = match (self.keys.iter().position(|key| KEYS[*key].0 == "1m"), key) {
                (Some(at), key) => {
                    let from = nanos(&key[at]).max(self.range.from);
                    (nanos(&key[at]) + MINUTE).min(self.range.to) - from
                }
                (None, _) => self.range.to - self.range.from,
            } as f64
                / 1e9;
            let quantile = |quantile: f64| {
                let rank = (quantile * numbers.len() as f64).ceil().max(1.0) as usize;
                numbers.get(rank - 1).copied()
            };
            let close = |exact: Option<u128>| match (exact, told.as_u64()) {
                (Some(exact), Some(told)) => (told as f64 - exact as f64).abs() <= exact as f64 * 0.011,
                (exact, told) => exact.is_none() && told.is_none(),
            };
            let right = match figure {
                "count" => *told == json!(rows.len()),
                "distinct" => *told == json!(values.iter().map(ToString::to_string).collect::<BTreeSet<_>>().len()),
                "p50" => close(quantile(0.5)),
                "p99" => close(quantile(0.99)),
                "max" if columns == ["end"] => {
                    Some(told) == values.iter().max_by_key(|value| nanos(value)).copied().or(Some(&Value::Null))
                }
                _ if numbers.is_empty() => told.is_null(),
                "sum" => *told == u64::try_from(sum).map_or_else(|_| json!(sum as f64), |sum| json!(sum)),
                "min" => told.as_u64().map(u128::from) == numbers.first().copied(),
                "max" => told.as_u64().map(u128::from) == numbers.last().copied(),
                "avg" => *told == json!(sum as f64 / numbers.len() as f64),
                "rate" => (told.as_f64().unwrap() - sum as f64 / seconds).abs() <= sum as f64 / seconds * 1e-9,
                other => panic!("{other}"),
            };
            assert!(right, "{text} of {key:?} is {told}, and {numbers:?} {values:?}");
        }
    }
}

fn nanos(value: &Value) -> i64 {
    query::parse_time(value.as_str().unwrap(), 0).unwrap()
}

/// What the store says in each of its states, in turn: rows in memory, in files, in merged files, and everywhere.
async fn answers(rows: &[TaggedFlow], request: &AggregateRequest<FlowRecord>) -> Vec<AggregateAnswer> {
    let dir = tempfile::tempdir().unwrap();
    let store = store::<FlowRecord>(dir.path()).await;
    store.append(rows.to_vec()).await.unwrap();
    let mut answers = vec![store.aggregate(request).await.unwrap()];
    store.flush().await.unwrap();
    answers.push(store.aggregate(request).await.unwrap());
    let dir = tempfile::tempdir().unwrap();
    let store = self::store::<FlowRecord>(dir.path()).await;
    let (open, whole) = rows.split_at(rows.len() / 8);
    let open: Vec<Arc<TaggedFlow>> = open.iter().cloned().map(Arc::new).collect();
    store.show_open(&open).await;
    for (number, chunk) in whole.chunks((whole.len() / 10).max(1)).enumerate() {
        store.append(chunk.to_vec()).await.unwrap();
        if number < 8 {
            store.flush().await.unwrap();
        }
    }
    answers.push(store.aggregate(request).await.unwrap());
    let long_after = START + 48 * 60 * MINUTE;
    while store.compact(long_after).await.unwrap() > 0 {}
    answers.push(store.aggregate(request).await.unwrap());
    answers
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn figures_are_those_of_counting_by_hand(
        mut rows in prop::collection::vec(row(), 1..80),
        keys in some(KEYS.len(), 3),
        figures in some(FIGURES.len(), 5).prop_filter("a figure", |figures| !figures.is_empty()),
        filter in 0..FILTERS.len(),
        from in 0_i64..60,
        all in any::<bool>(),
    ) {
        for (number, row) in rows.iter_mut().enumerate() {
            row.record.flow_id = number as u64;
        }
        // Rates count from the first row: it is where the range begins.
        let first = rows.iter().map(|row| row.record.start).min().unwrap();
        let range = Range { from: first.max(START + from * MINUTE), to: START + 70 * MINUTE };
        prop_assume!(range.from < range.to);
        let names = |list: Vec<&str>| list.join(", ");
        let by = names(keys.iter().map(|key| KEYS[*key].0).collect());
        let by = if by.is_empty() { String::new() } else { format!(" by {by}") };
        let text = format!("{} | {}{by}", FILTERS[filter], names(figures.iter().map(|figure| FIGURES[*figure].0).collect()));
        let request = AggregateRequest { all_observations: all, ..request(&text, range) };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let answers = runtime.block_on(answers(&rows, &request));
        let passing = |row: &&TaggedFlow| {
            (all || row.record.primary) && (range.from..range.to).contains(&row.record.start) && request.filter.matches(row)
        };
        let passing: Vec<Map<String, Value>> = rows.iter().filter(passing).map(wiretag_store::json::row).collect();
        let naive = Naive { keys: &keys, figures: &figures, range };
        let groups = naive.groups(&passing);
        for answer in &answers {
            prop_assert_eq!(&answer.rows, &answers[0].rows, "{}", text);
            prop_assert_eq!(answer.rows.len(), groups.len(), "{}", text);
            for row in &answer.rows {
                let cells: Vec<Value> = row.values().collect();
                let (key, told) = cells.split_at(keys.len());
                let (_, rows) = groups.get(&json!(key).to_string()).unwrap_or_else(|| panic!("no group {key:?}: {text}"));
                naive.check(key, rows, told);
            }
        }
    }
}
