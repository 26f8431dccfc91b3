//! Exports: the rows of a search, all of them, in its order, whatever happens to files meanwhile.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::rows;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use serde_json::{Map, Value};
use wiretag_capture::FlowRecord;
use wiretag_capture::netflow::Collector;
use wiretag_enrich::TaggedFlow;
use wiretag_enrich::ipfix::Numbers;
use wiretag_store::query::{self, Query};
use wiretag_store::tables::{ExportFormat, ExportOptions, Range, Row, SearchOptions};
use wiretag_store::{Role, Store, StoreConfig, StoreError};

const HOUR: i64 = 3_600_000_000_000;
const IPFIX: ExportFormat =
    ExportFormat::Ipfix { numbers: Numbers { domain: 1, enterprise: 7 }, now: rows::START + 26 * HOUR };

async fn store(dir: &std::path::Path) -> Store {
    let config = StoreConfig::new(dir, Role::Appliance);
    Store::open(config).await.unwrap().0
}

/// A row that starts then; every third has names, every seventh is not primary, every fifth lasts into the next hour.
fn row(number: u64, start: i64) -> TaggedFlow {
    let mut row = rows::flow(number);
    row.record.start = start;
    row.record.end = start + if number.is_multiple_of(5) { HOUR } else { 1_000 };
    row.record.primary = !number.is_multiple_of(7);
    row.record.client.bytes = number;
    if number.is_multiple_of(3) {
        rows::name(&mut row.client, &format!("pod \"{number}\",\nß"), &[("app", "a,b")]);
    }
    row
}

async fn exported(store: &Store, query: &Query<FlowRecord>, options: ExportOptions) -> (u64, Vec<u8>) {
    store.flows.export(query, options, Vec::new()).await.unwrap()
}

async fn searched(store: &Store, query: &Query<FlowRecord>, options: ExportOptions) -> Vec<Map<String, Value>> {
    let ExportOptions { range, all_observations, .. } = options;
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let page = SearchOptions { limit: 700, all_observations, after };
        let page = store.flows.search(query, range, page).await.unwrap();
        rows.extend(page.rows.iter().map(Row::to_map));
        after = page.next;
        if after.is_none() {
            return rows;
        }
    }
}

fn options(format: ExportFormat) -> ExportOptions {
    ExportOptions { format, range: Range::ALL, all_observations: true, limit: None }
}

/// 3,000 rows over three hours and a day later, some in files, some in memory.
async fn filled(dir: &std::path::Path) -> Store {
    let store = store(dir).await;
    for number in 0..3_000_u64 {
        let (hour, second) = (number as i64 % 3, number as i64 / 3);
        let day = if number.is_multiple_of(50) { 24 * HOUR } else { 0 };
        store
            .flows
            .append(vec![row(number + 1, rows::START + day + hour * HOUR + second * 1_000_000_000)])
            .await
            .unwrap();
        if number % 400 == 0 {
            store.flush().await.unwrap();
        }
    }
    store
}

#[tokio::test]
async fn an_export_has_the_rows_of_a_search_in_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path()).await;
    let from = rows::START + HOUR + 500_000_000_000;
    let part = Range { from, to: from + HOUR };
    for (text, range, all_observations) in [
        ("", Range::ALL, true),
        ("", Range::ALL, false),
        ("client_pod exists and client_bytes > 1000", Range::ALL, true),
        ("", part, true),
        ("client_bytes > 100000", Range::ALL, true),
    ] {
        let query = query::parse(text).unwrap();
        let options = ExportOptions { range, all_observations, ..options(ExportFormat::JsonLines) };
        let expected = searched(&store, &query, options).await;
        let (count, bytes) = exported(&store, &query, options).await;
        let text_of = String::from_utf8(bytes).unwrap();
        let found: Vec<Map<String, Value>> = text_of.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(count as usize, expected.len(), "{text:?}");
        assert_eq!(found, expected, "{text:?} in {range:?}");
        let limited = ExportOptions { limit: Some(1_000), ..options };
        let (_, bytes) = exported(&store, &query, limited).await;
        let newest = String::from_utf8(bytes).unwrap();
        assert_eq!(newest.lines().count(), expected.len().min(1_000));
        assert!(text_of.starts_with(&newest), "the newest");
    }
}

/// Rows that take more memory than can be sorted are sorted some at a time; those that start together are one part whatever they take.
#[tokio::test(flavor = "multi_thread")]
async fn wide_rows_are_all_there_in_their_order() {
    const WIDE: usize = 50_000;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    for number in 0..3_000_u64 {
        let mut row = row(number, rows::START + if number < 1_500 { 7 } else { number as i64 * 1_000_000 });
        rows::name(&mut row.client, "wide", &[("text", &format!("{number:0>WIDE$}"))]);
        store.flows.append(vec![row]).await.unwrap();
        if number % 1_000 == 700 {
            store.flush().await.unwrap();
        }
    }
    let (count, bytes) = exported(&store, &Query::everything(), options(ExportFormat::JsonLines)).await;
    assert_eq!(count, 3_000);
    let (mut before, mut seen) = (None, HashSet::new());
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let row: Map<String, Value> = serde_json::from_slice(line).unwrap();
        let (start, id) = (row["start"].as_str().unwrap().to_owned(), row["flow_id"].as_str().unwrap().to_owned());
        assert_eq!(row["client_labels"]["text"].as_str().unwrap().len(), WIDE);
        assert!(before.as_ref().is_none_or(|(later, other)| (later, &id) > (&start, other)), "{before:?} {start}");
        assert!(seen.insert(id.clone()), "{id} twice");
        before = Some((start, id));
    }
    assert_eq!(seen.len(), 3_000);
}

#[tokio::test]
async fn parquet_and_csv_hold_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path()).await;
    let everything = query::parse("").unwrap();
    let (count, parquet) = exported(&store, &everything, options(ExportFormat::Parquet)).await;
    let path = dir.path().join("all.parquet");
    std::fs::write(&path, parquet).unwrap();
    let session = SessionContext::new();
    session.register_parquet("flows", path.to_str().unwrap(), ParquetReadOptions::default()).await.unwrap();
    let asked = "SELECT count(*), sum(client_bytes), count(client_labels), count(DISTINCT flow_id) FROM flows";
    let answer = session.sql(asked).await.unwrap().collect().await.unwrap();
    let answer = datafusion::arrow::util::pretty::pretty_format_batches(&answer).unwrap().to_string();
    assert_eq!(count, 3_000);
    assert!(answer.contains("| 3000 ") && answer.contains("| 4501500 ") && answer.contains("| 1000 "), "{answer}");

    let (_, csv) = exported(&store, &everything, options(ExportFormat::Csv)).await;
    let csv = String::from_utf8(csv).unwrap();
    let columns = csv.lines().next().unwrap().split(',').count();
    assert!(csv.starts_with("flow_id,slice,start,") && columns > 100, "{columns}");
    assert!(csv.contains("\"pod \"\"3\"\",\nß\""), "names with anything in them");
    // An export of nothing is a file of nothing.
    let nothing = query::parse("server_port == 1").unwrap();
    let (count, csv) = exported(&store, &nothing, options(ExportFormat::Csv)).await;
    assert_eq!((count, String::from_utf8(csv).unwrap().lines().count()), (0, 1));
    let (_, parquet) = exported(&store, &nothing, options(ExportFormat::Parquet)).await;
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
}

#[tokio::test]
async fn a_file_of_ipfix_holds_the_rows_of_a_search_in_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path()).await;
    let query = query::parse("client_bytes > 100").unwrap();
    let searched = searched(&store, &query, options(IPFIX)).await;
    let (count, mut file) = exported(&store, &query, options(IPFIX)).await;
    let mut collector = Collector::default();
    while !file.is_empty() {
        let rest = file.split_off(usize::from(u16::from_be_bytes([file[2], file[3]])));
        collector.datagram(([192, 0, 2, 1], 4739).into(), &file, rows::START + 26 * HOUR);
        file = rest;
    }
    let mut read = Vec::new();
    collector.flush(&mut read);
    let bytes: Vec<u64> = read.iter().map(|row| row.record.client.bytes).collect();
    let expected: Vec<u64> = searched.iter().map(|row| row["client_bytes"].as_u64().unwrap()).collect();
    assert_eq!((count, bytes.len()), (2_900, 2_900));
    assert!(bytes == expected, "the same rows in the same order");
    let counters = collector.counters();
    assert_eq!((counters.malformed.len(), counters.missing()), (0, 0), "{counters:?}");

    let of_transactions = store.transactions.export(&query::parse("").unwrap(), options(IPFIX), Vec::new()).await;
    assert!(of_transactions.is_err_and(|error| error.to_string().contains("IPFIX tells of flows")));
}

/// Rows go to files, and files are merged and deleted, while exports run: each has every row that was there, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exports_are_whole_while_files_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(filled(dir.path()).await);
    let stop = Arc::new(AtomicBool::new(false));
    let (writer, stopped) = (store.clone(), stop.clone());
    let writing = tokio::spawn(async move {
        let mut now = rows::START;
        for number in 10_000_u64.. {
            if stopped.load(Ordering::SeqCst) {
                break;
            }
            // Of an hour before all others.
            writer.flows.append(vec![row(number, rows::START - HOUR)]).await.unwrap();
            now += 61_000_000_000;
            writer.maintain(now).await.unwrap();
        }
    });
    let everything = query::parse("client_bytes <= 3000").unwrap();
    for round in 0..12 {
        let (count, bytes) = exported(&store, &everything, options(ExportFormat::JsonLines)).await;
        let text = String::from_utf8(bytes).unwrap();
        let mut ids: Vec<&str> = text.lines().filter_map(|line| line.get(12..28)).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((count, ids.len()), (3_000, 3_000), "round {round}");
    }
    stop.store(true, Ordering::SeqCst);
    writing.await.unwrap();
}

/// A writer that has had enough, as a client that goes or a disk that is full.
struct Fails(std::io::ErrorKind, usize);

impl std::io::Write for Fails {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.1 = self.1.checked_sub(bytes.len()).ok_or(self.0)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_export_that_cannot_be_written_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path()).await;
    let everything = query::parse("").unwrap();
    for format in [ExportFormat::Parquet, ExportFormat::Csv, ExportFormat::JsonLines, IPFIX] {
        for (kind, room) in [(std::io::ErrorKind::BrokenPipe, 10), (std::io::ErrorKind::StorageFull, 2_000)] {
            let exported = store.flows.export(&everything, options(format), Fails(kind, room)).await;
            let error = exported.map(|(rows, _)| rows).unwrap_err();
            assert_eq!(matches!(error, StoreError::Closed), kind == std::io::ErrorKind::BrokenPipe, "{error}");
            assert_eq!(error.is_full(), kind == std::io::ErrorKind::StorageFull, "{format:?}: {error}");
        }
    }
}
