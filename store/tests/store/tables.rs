//! The stores of flows and transactions from outside: visibility, files, crashes, and the same answers from files as from
//! memory. Each story holds for both tables.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::fs;

use crate::rows::{self, flow, transaction};
use proptest::prelude::*;
use wiretag_capture::{FlowRecord, Transaction};
use wiretag_enrich::{EndTag, Tagged, TaggedFlow, TaggedTransaction};
use wiretag_store::catalog::Catalog;
use wiretag_store::query::{Query, parse};
use wiretag_store::tables::{Engine, Range, SearchOptions, TableStore};
use wiretag_store::{LimitReached, StoreError, Table};

const ALL: Range = Range { from: 0, to: i64::MAX };

/// A table whose rows a story can make.
trait Sample: Table {
    /// A row of the flow with this number.
    fn row(flow: u64) -> Tagged<Self>;
    /// Begins and ends so much later.
    fn delay(row: &mut Tagged<Self>, by: i64);
}

impl Sample for FlowRecord {
    fn row(number: u64) -> TaggedFlow {
        flow(number)
    }

    fn delay(row: &mut TaggedFlow, by: i64) {
        row.record.start += by;
        row.record.end = row.record.start;
    }
}

impl Sample for Transaction {
    fn row(number: u64) -> TaggedTransaction {
        transaction(number, 0)
    }

    fn delay(row: &mut TaggedTransaction, by: i64) {
        row.record.exchange.start += by;
        row.record.exchange.end = row.record.exchange.start;
    }
}

async fn store<R: Table>(dir: &std::path::Path) -> (TableStore<R>, Vec<String>) {
    let engine = Engine::open(dir).unwrap();
    let catalog = Catalog::open(&dir.join("catalog.sqlite")).await.unwrap();
    TableStore::open(&engine, catalog).await.unwrap()
}

async fn ids<R: Table>(store: &TableStore<R>, query: &Query<R>) -> Vec<String> {
    let options = SearchOptions { limit: 1_000, all_observations: true, after: None };
    let page = store.search(query, ALL, options).await.unwrap();
    page.rows.iter().map(|row| row.get("flow_id").as_str().unwrap().to_owned()).collect()
}

/// All pages of a search, as flow id and number.
async fn paged<R: Table>(store: &TableStore<R>, limit: usize) -> Vec<(u64, u64)> {
    let (mut after, mut found) = (None, Vec::new());
    loop {
        let options = SearchOptions { limit, all_observations: false, after };
        let page = store.search(&Query::everything(), ALL, options).await.unwrap();
        found.extend(page.rows.iter().map(|row| {
            let id = u64::from_str_radix(row.get("flow_id").as_str().unwrap(), 16).unwrap();
            (id, row.get(R::NUMBER).as_u64().unwrap())
        }));
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

async fn seen_at_once_and_once<R: Sample>() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = store::<R>(dir.path()).await;
    let reader = tokio::spawn({
        let store = store.clone();
        async move {
            let mut before = 0;
            while before < 40 {
                let found = ids(&store, &Query::everything()).await;
                let unique: std::collections::HashSet<_> = found.iter().collect();
                assert_eq!(unique.len(), found.len(), "a row came twice");
                assert!(found.len() >= before, "a row went missing");
                before = found.len();
            }
        }
    });
    for number in 0..40 {
        store.append(vec![R::row(number)]).await.unwrap();
        assert_eq!(ids(&store, &Query::everything()).await.len() as u64, number + 1);
        assert_eq!(store.flush().await.unwrap(), 1);
        store.compact(0).await.unwrap();
    }
    reader.await.unwrap();
    let counters = store.counters();
    assert_eq!((counters.received, counters.written, counters.recent), (40, 40, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_seen_at_once_and_once() {
    seen_at_once_and_once::<FlowRecord>().await;
    seen_at_once_and_once::<Transaction>().await;
}

/// Labels are stored once, and read as often as rows have them.
async fn pages_fit<R: Sample>() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = store::<R>(dir.path()).await;
    let (keys, value) = ((0..20).map(|number| format!("{number:0>200}")).collect::<Vec<_>>(), "v".repeat(1_000));
    let labels: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), value.as_str())).collect();
    let mut wide: Vec<Tagged<R>> = (0..1_000).map(R::row).collect();
    for row in &mut wide {
        rows::name(&mut row.client, "wide", &labels);
    }
    store.append(wide).await.unwrap();
    for place in ["memory", "a file"] {
        let page = async |after: Option<String>, memory: usize| {
            let options = SearchOptions { limit: 1_000, after, ..SearchOptions::default() };
            store.search_within(&Query::everything(), ALL, options, memory).await
        };
        let (mut after, mut pages, mut found) = (None, 0, 0);
        loop {
            let some = page(after, 8 << 20).await.unwrap();
            assert!((1 << 20..8 << 20).contains(&some.memory), "in {place}: {}", some.memory);
            (after, pages, found) = (some.next, pages + 1, found + some.rows.len());
            if after.is_none() {
                break;
            }
        }
        assert!(pages >= 4 && found == 1_000, "in {place}: {found} in {pages}");
        let error = page(None, 16 << 10).await.unwrap_err();
        assert!(matches!(error, StoreError::Limit(LimitReached::Memory { .. })), "in {place}: {error}");
        store.flush().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_wide_rows_have_as_many_as_there_is_memory_for() {
    pages_fit::<FlowRecord>().await;
    pages_fit::<Transaction>().await;
}

async fn pages_follow<R: Sample>() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = store::<R>(dir.path()).await;
    for number in 0..30_u64 {
        let mut row = R::row(number);
        R::delay(&mut row, number as i64 / 3 * 1_200_000_000_000);
        store.append(vec![row]).await.unwrap();
        if number % 4 == 3 && number < 27 {
            store.flush().await.unwrap();
        }
    }
    let expected: Vec<_> = (0..10).rev().flat_map(|third| (third * 3)..(third * 3 + 3)).map(|id| (id, 0)).collect();
    assert_eq!(paged(&store, 7).await, expected);
}

#[tokio::test]
async fn pages_follow_each_other_over_files_and_memory() {
    pages_follow::<FlowRecord>().await;
    pages_follow::<Transaction>().await;
}

/// The same packets imported twice: each of their rows comes as often as it is there, also where a page ends between them.
async fn pages_tell_rows_alike<R: Sample>() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = store::<R>(dir.path()).await;
    let mut expected: Vec<_> = (0..12).flat_map(|id| vec![(id, 0); if id == 5 { 9 } else { 2 }]).collect();
    expected.sort_unstable();
    for (id, _) in expected.iter().rev() {
        store.append(vec![R::row(*id)]).await.unwrap();
        if id % 3 == 0 {
            store.flush().await.unwrap();
        }
    }
    for limit in 1..=expected.len() {
        let mut found = paged(&store, limit).await;
        found.sort_unstable();
        assert_eq!(found, expected, "pages of {limit}");
    }
}

#[tokio::test]
async fn rows_in_the_same_place_are_all_in_some_page() {
    pages_tell_rows_alike::<FlowRecord>().await;
    pages_tell_rows_alike::<Transaction>().await;
}

/// Requests of one packet begin in the same nanosecond: their numbers order them, over pages and files.
#[tokio::test]
async fn exchanges_that_begin_together_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = store::<Transaction>(dir.path()).await;
    for number in (0..9).rev() {
        store.append(vec![transaction(5, number)]).await.unwrap();
        if number % 2 == 0 {
            store.flush().await.unwrap();
        }
    }
    let expected: Vec<_> = (0..9).map(|number| (5, number)).collect();
    assert_eq!(paged(&store, 2).await, expected);
}

async fn strangers_are_set_aside<R: Sample>() {
    let dir = tempfile::tempdir().unwrap();
    let hour = dir.path().join(R::NAME.as_str()).join("date=2026-03-01/hour=00");
    fs::create_dir_all(&hour).unwrap();
    fs::write(hour.join("a.parquet"), "whole").unwrap();
    fs::write(hour.join("b.parquet.tmp"), "torn").unwrap();
    let (store, repairs) = store::<R>(dir.path()).await;
    assert_eq!(repairs.len(), 2, "{repairs:?}");
    assert_eq!(fs::read_dir(dir.path().join("set-aside")).unwrap().count(), 2);
    assert!(ids(&store, &Query::everything()).await.is_empty());
}

#[tokio::test]
async fn files_without_a_catalog_row_are_set_aside() {
    strangers_are_set_aside::<FlowRecord>().await;
    strangers_are_set_aside::<Transaction>().await;
}

async fn damage_is_left_out<R: Sample>() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = store::<R>(dir.path()).await;
    for number in 0..2 {
        store.append(vec![R::row(number)]).await.unwrap();
        store.flush().await.unwrap();
    }
    let hour = dir.path().join(R::NAME.as_str()).join("date=2026-03-01/hour=00");
    let first = fs::read_dir(hour).unwrap().next().unwrap().unwrap().path();
    fs::write(first, "PAR1").unwrap();
    assert_eq!(ids(&store, &Query::everything()).await.len(), 1);
    assert_eq!(store.counters().unreadable_files, 1);
}

#[tokio::test]
async fn a_damaged_file_is_left_out() {
    damage_is_left_out::<FlowRecord>().await;
    damage_is_left_out::<Transaction>().await;
}

/// The two tables are neighbours in one directory and one catalog: neither sees, merges or sets aside what is the other's.
#[tokio::test]
async fn the_tables_keep_to_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let (flows, _) = store::<FlowRecord>(dir.path()).await;
    let (transactions, _) = store::<Transaction>(dir.path()).await;
    for number in 0..8 {
        flows.append(vec![flow(number)]).await.unwrap();
        flows.flush().await.unwrap();
        if number < 5 {
            transactions.append(vec![transaction(number, 0)]).await.unwrap();
            transactions.flush().await.unwrap();
        }
    }
    assert_eq!(transactions.compact(0).await.unwrap(), 0);
    assert_eq!(flows.compact(0).await.unwrap(), 8);
    drop((flows, transactions));
    let (flows, repairs) = store::<FlowRecord>(dir.path()).await;
    assert!(repairs.is_empty(), "{repairs:?}");
    let (transactions, repairs) = store::<Transaction>(dir.path()).await;
    assert!(repairs.is_empty(), "{repairs:?}");
    assert_eq!(ids(&flows, &Query::everything()).await.len(), 8);
    assert_eq!(ids(&transactions, &Query::everything()).await.len(), 5);
}

/// Names of files below a directory.
fn names_below(dir: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let names = |path: std::path::PathBuf| {
        if path.is_dir() { names_below(&path) } else { vec![path.file_name().unwrap().to_string_lossy().into_owned()] }
    };
    entries.flat_map(names).collect()
}

/// Spark, Hive and PyArrow read the directory as it is, and pass over what begins with `_`.
#[tokio::test]
async fn what_is_no_part_of_a_table_is_passed_over_by_others() {
    let dir = tempfile::tempdir().unwrap();
    let (flows, _) = store::<FlowRecord>(dir.path()).await;
    for number in 0..8 {
        flows.append(vec![flow(number)]).await.unwrap();
        flows.flush().await.unwrap();
    }
    assert_eq!(flows.compact(0).await.unwrap(), 8);
    drop(flows);
    let table = dir.path().join("flows");
    let (others, files): (Vec<_>, Vec<_>) = names_below(&table).into_iter().partition(|name| name.starts_with('_'));
    assert_eq!((others, files.len()), (vec!["_superseded".to_owned()], 9));
    assert!(files.iter().all(|name| name.ends_with(".parquet")), "{files:?}");
    // A list under the name that it had in earlier builds says the same.
    fs::rename(table.join("_superseded"), table.join("superseded")).unwrap();
    let (flows, repairs) = store::<FlowRecord>(dir.path()).await;
    assert!(repairs.is_empty(), "{repairs:?}");
    assert_eq!(names_below(&table).len(), 1);
    assert_eq!(ids(&flows, &Query::everything()).await.len(), 8);
}

/// Memory is bounded: when it is full, files are written, and what comes waits for that.
#[tokio::test]
async fn a_full_memory_is_written_before_more_rows_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path()).unwrap();
    let catalog = Catalog::open(&dir.path().join("catalog.sqlite")).await.unwrap();
    let (store, _) = TableStore::<Transaction>::open_bounded(&engine, catalog, 3).await.unwrap();
    store.append((0..11).map(|number| transaction(1, number)).collect()).await.unwrap();
    let counters = store.counters();
    assert_eq!((counters.received, counters.written, counters.dropped, counters.recent), (11, 9, 0, 2));
    assert_eq!(ids(&store, &Query::everything()).await.len(), 11);
    tokio::time::timeout(std::time::Duration::from_secs(5), store.pressed()).await.expect("it was half full");
}

/// When files cannot be written either, what does not fit is counted, and that is an error.
#[tokio::test]
async fn rows_without_room_are_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path()).unwrap();
    let catalog = Catalog::open(&dir.path().join("catalog.sqlite")).await.unwrap();
    let (store, _) = TableStore::<Transaction>::open_bounded(&engine, catalog, 3).await.unwrap();
    let in_the_way = dir.path().join("transactions");
    fs::write(&in_the_way, "").unwrap();
    let error = store.append((0..5).map(|number| transaction(1, number)).collect()).await.unwrap_err();
    assert!(!error.to_string().contains("query"), "{error}");
    assert!(store.append(vec![transaction(1, 9)]).await.is_err());
    let counters = store.counters();
    assert_eq!((counters.received, counters.dropped, counters.recent, counters.failed_flushes), (6, 3, 3, 1));
    fs::remove_file(&in_the_way).unwrap();
    assert_eq!(store.flush().await.unwrap(), 3);
    store.append((10..15).map(|number| transaction(1, number)).collect()).await.unwrap();
    assert_eq!(ids(&store, &Query::everything()).await.len(), 8);
}

fn term() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "pod == web-*",
        "pod != web-1",
        "client_pod != web-1",
        "client_pod exists",
        "labels.app == a",
        "labels.app != a",
        "client_labels.app exists",
        "ip in 10.0.0.0/31",
        "server_ip == 10.0.0.2",
        "port > 100",
        "server_port in {80, 53}",
        "server_port != 80",
        "client_retransmits >= 2",
        "not client_retransmits > 1",
        "web",
        "protocol == udp",
        "pod ~ \"[12]$\"",
        "tls_sni exists",
        "primary",
        "server_rtt_us != 5us",
        "client_bytes < 1KB",
    ])
    .prop_map(str::to_owned)
}

/// Terms of transactions.
fn transaction_term() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "pod == web-*",
        "client_pod != web-1",
        "labels.app != a",
        "ip in 10.0.0.0/31",
        "port > 100",
        "http_status == 200",
        "http_status >= 500",
        "http_status != 200",
        "http_status exists",
        "http_method == get",
        "http_path ~ \"^/[ab]\"",
        "http_host == *.demo",
        "dns_rcode == nxdomain",
        "dns_query == missing.*",
        "missing",
        "latency_us > 2ms",
        "not latency_us < 1ms",
        "complete",
        "primary",
        "exchange == 0",
        "app in {dns, http}",
    ])
    .prop_map(str::to_owned)
}

fn expression(term: impl Strategy<Value = String> + 'static) -> impl Strategy<Value = String> {
    term.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} and {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} or {b})")),
            inner.prop_map(|a| format!("not {a}")),
        ]
    })
}

fn row() -> impl Strategy<Value = TaggedFlow> {
    (0_u8..4, prop::option::of(0_u8..3), prop::option::of(0_u8..2), prop::option::of(0_u32..4), any::<bool>()).prop_map(
        |(ip, pod, app, retransmits, flag)| {
            let mut row = flow(0);
            row.record.client.ip = [10, 0, 0, ip].into();
            row.record.client.retransmits = retransmits;
            row.record.server.port = retransmits.map(|number| if number > 1 { 80 } else { 53 });
            row.record.server.rtt_us = retransmits.map(|number| number + 3);
            row.record.primary = flag;
            if let Some(pod) = pod {
                let label = app.map(|app| ("app", if app == 0 { "a" } else { "b" }));
                name_one(&mut row, flag, pod, label.as_slice());
            }
            row
        },
    )
}

fn transaction_row() -> impl Strategy<Value = TaggedTransaction> {
    let status = prop::option::of(prop::sample::select(vec![200_u16, 404, 503]));
    (0_u8..4, prop::option::of(0_u8..3), status, prop::option::of(0_u64..4), any::<bool>()).prop_map(
        |(ip, pod, status, latency, flag)| {
            let mut row = transaction(0, 0);
            row.record.client_ip = [10, 0, 0, ip].into();
            row.record.primary = flag;
            let exchange = &mut row.record.exchange;
            exchange.latency_us = latency.map(|latency| latency * 1_000);
            exchange.complete = latency.is_some();
            if status.is_some() || flag {
                exchange.status = status;
                exchange.path = Some(format!("/{}", ["a", "b", "c", "d"][usize::from(ip)]).into());
            } else {
                exchange.app = "dns";
                (exchange.method, exchange.host, exchange.path, exchange.status) = (None, None, None, None);
                exchange.query = Some("missing.demo".into());
                exchange.rcode = latency.map(|_| "NXDOMAIN".into());
            }
            if let Some(pod) = pod {
                name_one(&mut row, flag, pod, &[("app", if pod == 0 { "a" } else { "b" })]);
            }
            row
        },
    )
}

/// Names the client, or the server.
fn name_one<R>(row: &mut Tagged<R>, client: bool, pod: u8, labels: &[(&str, &str)]) {
    let end: &mut EndTag = if client { &mut row.client } else { &mut row.server };
    rows::name(end, &format!("web-{pod}"), labels);
}

/// Answers from files are those of the evaluator.
fn check_answers<R: Table>(rows: &[Tagged<R>], texts: Vec<String>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = store::<R>(dir.path()).await;
        store.append(rows.to_vec()).await.unwrap();
        store.flush().await.unwrap();
        for text in texts {
            let query = parse(&text).unwrap();
            let passing = rows.iter().filter(|row| query.matches(row));
            let expected: Vec<String> = passing.map(|row| format!("{:016x}", row.record.key().flow_id)).collect();
            assert_eq!(ids(&store, &query).await, expected, "{text}");
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn files_answer_as_the_evaluator_does(
        mut rows in prop::collection::vec(row(), 1..40),
        texts in prop::collection::vec(expression(term()), 8),
    ) {
        for (number, row) in rows.iter_mut().enumerate() {
            row.record.flow_id = number as u64;
        }
        check_answers(&rows, texts);
    }

    #[test]
    fn files_of_transactions_answer_as_the_evaluator_does(
        mut rows in prop::collection::vec(transaction_row(), 1..40),
        texts in prop::collection::vec(expression(transaction_term()), 8),
    ) {
        for (number, row) in rows.iter_mut().enumerate() {
            row.record.flow_id = number as u64;
        }
        check_answers(&rows, texts);
    }
}
