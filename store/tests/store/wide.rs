//! Rows with very large labels. A file has each label once, whoever reads it has it as often as there are rows: those of one row group can be
//! more than memory, and more than one array can hold.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;

use serde_json::json;
use wiretag_capture::FlowRecord;
use wiretag_enrich::{EndTag, TaggedFlow};
use wiretag_store::FlowStore;
use wiretag_store::catalog::Catalog;
use wiretag_store::query::{Query, parse, parse_statement};
use wiretag_store::tables::{
    AggregateAnswer, AggregateRequest, Engine, ExportFormat, ExportOptions, Missing, Range, SearchOptions,
};

use crate::rows::{self, flow};

const ROWS: u64 = 20_000;
/// Bytes of the labels of a row: those of all are 2.4 GB, in a file of some hundred kilobytes.
const WIDE: usize = 120_000;

async fn open(dir: &Path) -> FlowStore {
    let engine = Engine::open(dir).unwrap();
    let catalog = Catalog::open(&dir.join("catalog.sqlite")).await.unwrap();
    FlowStore::open(&engine, catalog).await.unwrap().0
}

/// One file with one row group, rows of two clients: every tenth is the other's.
async fn filled(dir: &Path) -> FlowStore {
    let store = open(dir).await;
    let [mut one, mut other] = [EndTag::NONE, EndTag::NONE];
    let (text, last) = ("x".repeat(WIDE), format!("{}y", "x".repeat(WIDE)));
    rows::name(&mut one, "one", &[("text", &text)]);
    rows::name(&mut other, "other", &[("text", &last), ("tier", "gold")]);
    let row = |number: u64| {
        let mut row = flow(number);
        row.record.start += number as i64 * 100_000_000;
        row.record.end = row.record.start;
        row.record.client.bytes = number;
        TaggedFlow { client: if number.is_multiple_of(10) { other.clone() } else { one.clone() }, ..row }
    };
    store.append((0..ROWS).map(row).collect()).await.unwrap();
    store.flush().await.unwrap();
    store
}

async fn counted(store: &FlowStore, text: &str) -> AggregateAnswer {
    let statement = parse_statement::<FlowRecord>(text, rows::START).unwrap();
    let request = AggregateRequest {
        filter: statement.filter,
        aggregate: statement.aggregate.unwrap(),
        range: Range::ALL,
        all_observations: true,
        compare: false,
        memory: 64 << 20,
    };
    store.aggregate(&request).await.unwrap()
}

/// Neither is an answer without the rows, nor is the file taken for one that cannot be read.
#[tokio::test(flavor = "multi_thread")]
async fn labels_that_no_array_can_hold_are_asked_and_grouped_by() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path()).await;
    for (condition, expected) in [
        ("labels.tier == gold", ROWS / 10),
        ("labels.tier in {silver, gold, bronze}", ROWS / 10),
        ("client_labels.tier != silver", ROWS / 10),
        ("not labels.tier == gold", ROWS - ROWS / 10),
        ("client_labels.text == *xy", ROWS / 10),
        ("client_labels.text ~ 'x$'", ROWS - ROWS / 10),
        ("client_labels exists", ROWS),
        ("server_labels exists or server_labels.tier exists", 0),
        // Of few rows only their labels are looked at, of rows side by side or not.
        ("client_bytes < 100 and labels.tier == gold", 10),
        ("client_bytes in {7, 70, 700, 7000} and client_labels.tier exists", 3),
    ] {
        let answer = counted(&store, &format!("{condition} | count")).await;
        assert_eq!(answer.rows[0].get("count"), json!(expected), "{condition}");
        assert_eq!(store.missing(Range::ALL).await.unwrap(), Missing::default(), "{condition}");
    }
    let answer =
        counted(&store, "client_bytes < 15000 | count, sum(client_bytes) by client_labels.tier, client_pod").await;
    let mut groups: Vec<(String, u64)> = answer
        .rows
        .iter()
        .map(|row| (format!("{}", row.get("client_labels.tier")), row.get("count").as_u64().unwrap()))
        .collect();
    groups.sort();
    assert_eq!(groups, [("\"gold\"".to_owned(), 1_500), ("null".to_owned(), 13_500)]);
    let erasable = store.erasable(&parse("client_labels.text == *xy").unwrap(), Range::ALL).await.unwrap();
    assert_eq!((erasable.rows, erasable.unread.len()), (ROWS / 10, 0));
    assert_eq!(store.counters().unreadable_files, 0);
}

/// As many as fit are read at a time, whatever the file has besides them.
#[tokio::test(flavor = "multi_thread")]
async fn some_of_such_rows_are_exported_and_listed() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path()).await;
    for (text, limit, first) in [("", 700, ROWS - 1), ("labels.tier == gold", 300, ROWS - 10)] {
        let query: Query<FlowRecord> = parse(text).unwrap();
        let options = ExportOptions {
            format: ExportFormat::JsonLines,
            range: Range::ALL,
            all_observations: true,
            limit: Some(limit),
        };
        let (count, bytes) = store.export(&query, options, Vec::new()).await.unwrap();
        assert_eq!(count, limit, "{text:?}");
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap();
        let row: serde_json::Value = serde_json::from_slice(line).unwrap();
        assert_eq!(row["client_bytes"], json!(first), "{text:?}");
        assert!(row["client_labels"]["text"].as_str().unwrap().len() >= WIDE);
        let options = SearchOptions { limit: 20, all_observations: true, after: None };
        let page = store.search(&query, Range::ALL, options).await.unwrap();
        assert_eq!((page.rows.len(), page.rows[0].get("client_bytes")), (20, json!(first)), "{text:?}");
    }
    assert_eq!(store.missing(Range::ALL).await.unwrap(), Missing::default());
}
