//! The flow store from outside: visibility, files, crashes, and the same answers from files as from memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod flow;

use std::fs;

use flow::flow;
use proptest::prelude::*;
use wiretag_enrich::TaggedFlow;
use wiretag_store::catalog::Catalog;
use wiretag_store::flows::{FlowStore, Range, SearchOptions};
use wiretag_store::query::{Query, parse};

const ALL: Range = Range { from: 0, to: i64::MAX };

async fn store(dir: &std::path::Path) -> (FlowStore, Vec<String>) {
    fs::create_dir_all(dir).unwrap();
    FlowStore::open(dir, Catalog::open(&dir.join("catalog.sqlite")).await.unwrap()).await.unwrap()
}

async fn ids(store: &FlowStore, query: &Query) -> Vec<String> {
    let options = SearchOptions { limit: 1_000, all_observations: true, after: None };
    let page = store.search(query, ALL, options).await.unwrap();
    page.flows.iter().map(|row| row["flow_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_seen_at_once_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = store(dir.path()).await;
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
        store.append(vec![flow(number)]).await.unwrap();
        assert_eq!(ids(&store, &Query::everything()).await.len() as u64, number + 1);
        assert_eq!(store.flush().await.unwrap(), 1);
        store.compact(0).await.unwrap();
    }
    reader.await.unwrap();
    let counters = store.counters();
    assert_eq!((counters.received, counters.written, counters.recent), (40, 40, 0));
}

#[tokio::test]
async fn pages_follow_each_other_over_files_and_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = store(dir.path()).await;
    for number in 0..30_u64 {
        let mut row = flow(number);
        row.record.start += number as i64 / 3 * 1_200_000_000_000;
        row.record.end = row.record.start;
        store.append(vec![row]).await.unwrap();
        if number % 4 == 3 && number < 27 {
            store.flush().await.unwrap();
        }
    }
    let (mut after, mut found) = (None, Vec::new());
    loop {
        let options = SearchOptions { limit: 7, all_observations: false, after };
        let page = store.search(&Query::everything(), ALL, options).await.unwrap();
        found.extend(page.flows.iter().map(|row| u64::from_str_radix(row["flow_id"].as_str().unwrap(), 16).unwrap()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let expected: Vec<u64> = (0..10).rev().flat_map(|third| (third * 3)..(third * 3 + 3)).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn files_without_a_catalog_row_are_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let hour = dir.path().join("flows/date=2026-03-01/hour=00");
    fs::create_dir_all(&hour).unwrap();
    fs::write(hour.join("a.parquet"), "whole").unwrap();
    fs::write(hour.join("b.parquet.tmp"), "torn").unwrap();
    let (store, repairs) = store(dir.path()).await;
    assert_eq!(repairs.len(), 2, "{repairs:?}");
    assert_eq!(fs::read_dir(dir.path().join("set-aside")).unwrap().count(), 2);
    assert!(ids(&store, &Query::everything()).await.is_empty());
}

#[tokio::test]
async fn a_damaged_file_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = store(dir.path()).await;
    for number in 0..2 {
        store.append(vec![flow(number)]).await.unwrap();
        store.flush().await.unwrap();
    }
    let hour = dir.path().join("flows/date=2026-03-01/hour=00");
    let first = fs::read_dir(hour).unwrap().next().unwrap().unwrap().path();
    fs::write(first, "PAR1").unwrap();
    assert_eq!(ids(&store, &Query::everything()).await.len(), 1);
    assert_eq!(store.counters().unreadable_files, 1);
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

fn expression() -> impl Strategy<Value = String> {
    term().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} and {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} or {b})")),
            inner.prop_map(|a| format!("not {a}")),
        ]
    })
}

fn row() -> impl Strategy<Value = TaggedFlow> {
    (0_u8..4, prop::option::of(0_u8..3), prop::option::of(0_u8..2), prop::option::of(0_u64..4), any::<bool>()).prop_map(
        |(ip, pod, app, retransmits, flag)| {
            let mut row = flow(0);
            row.record.client.ip = [10, 0, 0, ip].into();
            row.record.client.retransmits = retransmits;
            row.record.server.port = retransmits.map(|number| if number > 1 { 80 } else { 53 });
            row.record.server.rtt_us = retransmits.map(|number| number + 3);
            row.record.primary = flag;
            if let Some(pod) = pod {
                let label = app.map(|app| ("app", if app == 0 { "a" } else { "b" }));
                let end = if flag { &mut row.client } else { &mut row.server };
                flow::name(end, &format!("web-{pod}"), label.as_slice());
            }
            row
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn files_answer_as_the_evaluator_does(
        mut rows in prop::collection::vec(row(), 1..40),
        texts in prop::collection::vec(expression(), 8),
    ) {
        for (number, row) in rows.iter_mut().enumerate() {
            row.record.flow_id = number as u64;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let (store, _) = store(dir.path()).await;
            store.append(rows.clone()).await.unwrap();
            store.flush().await.unwrap();
            for text in texts {
                let query = parse(&text).unwrap();
                let passing = rows.iter().filter(|row| query.matches(row));
                let expected: Vec<String> = passing.map(|row| row.record.flow_id_hex()).collect();
                assert_eq!(ids(&store, &query).await, expected, "{text}");
            }
        });
    }
}
