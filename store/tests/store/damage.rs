//! Files that are broken, wherever: answers are without their rows and say so, and nothing else stops.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::file::reader::{FileReader, SerializedFileReader};
use wiretag_capture::FlowRecord;
use wiretag_enrich::timeline::Timeline;
use wiretag_store::catalog::Catalog;
use wiretag_store::limits::DEFAULT_MEMORY;
use wiretag_store::query::{Query, RowFilter, parse, parse_statement};
use wiretag_store::sql::SqlRequest;
use wiretag_store::tables::{AggregateRequest, Engine, ExportFormat, ExportOptions, Missing, Range, SearchOptions};
use wiretag_store::{FlowStore, Role, Store, StoreConfig};

use crate::rows::flow;

const ALL: Range = Range { from: 0, to: i64::MAX };
const HOUR: i64 = 3_600_000_000_000;
/// Rows of a file.
const ROWS: u64 = 40;

async fn open(dir: &Path) -> FlowStore {
    let engine = Engine::open(dir).unwrap();
    let catalog = Catalog::open(&dir.join("catalog.sqlite")).await.unwrap();
    FlowStore::open(&engine, catalog).await.unwrap().0
}

/// A file of rows that start in this hour.
async fn file(store: &FlowStore, hour: i64, first: u64) {
    let rows = (first..first + ROWS).map(|number| {
        let mut row = flow(number);
        row.record.start += hour * HOUR;
        row.record.end = row.record.start;
        row
    });
    store.append(rows.collect()).await.unwrap();
    store.flush().await.unwrap();
}

/// The files of an hour.
fn files(dir: &Path, hour: i64) -> BTreeSet<PathBuf> {
    let dir = dir.join(format!("flows/date=2026-03-01/hour={hour:02}"));
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "parquet")).collect()
}

/// Where the pages of each column begin.
fn pages(path: &Path) -> Vec<usize> {
    let reader = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
    let group = reader.metadata().row_group(0);
    let first = |column: &parquet::file::metadata::ColumnChunkMetaData| column.byte_range().0 as usize;
    group.columns().iter().map(first).collect()
}

async fn listed(store: &FlowStore) -> u64 {
    let options = SearchOptions { limit: 1_000, all_observations: true, after: None };
    store.search(&Query::everything(), ALL, options).await.unwrap().rows.len() as u64
}

async fn counted(store: &FlowStore) -> u64 {
    let statement =
        parse_statement::<FlowRecord>("| count, sum(bytes), sum(retransmits) by server_workload", 0).unwrap();
    let request = AggregateRequest {
        filter: statement.filter,
        aggregate: statement.aggregate.unwrap(),
        range: ALL,
        all_observations: true,
        compare: false,
        memory: 64 << 20,
    };
    let answer = store.aggregate(&request).await.unwrap();
    answer.rows.iter().map(|row| row.get("count").as_u64().unwrap()).sum()
}

async fn exported(store: &FlowStore) -> u64 {
    let options = ExportOptions { format: ExportFormat::JsonLines, range: ALL, all_observations: true, limit: None };
    store.export(&Query::everything(), options, Vec::new()).await.unwrap().0
}

/// Of each column the first page is broken in three ways.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_page_is_broken_the_file_is_left_out_and_that_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for hour in 0..3 {
        file(&store, hour, hour as u64 * ROWS).await;
    }
    drop(store);
    let path = files(dir.path(), 1).pop_first().unwrap();
    let (whole, mut met) = (fs::read(&path).unwrap(), 0);
    for (number, at) in pages(&path).into_iter().enumerate() {
        for (way, byte) in [0xff, 0x00, 0x2a].into_iter().enumerate() {
            let mut broken = whole.clone();
            broken[at..at + 12].fill(byte);
            fs::write(&path, &broken).unwrap();
            let store = open(dir.path()).await;
            // Each kind of question is the first to meet it at times.
            let rows = match (number + way) % 3 {
                0 => listed(&store).await,
                1 => counted(&store).await,
                _ => exported(&store).await,
            };
            let missing = store.missing(ALL).await.unwrap();
            let expected = if missing.files == 0 { 3 * ROWS } else { 2 * ROWS };
            assert_eq!(rows, expected, "column {number}, {byte:#x}");
            assert_eq!(missing.rows, missing.files * ROWS);
            met += missing.files;
            if missing.files == 0 {
                continue;
            }
            assert_eq!(store.missing(Range { from: 0, to: flow(0).record.start }).await.unwrap(), Missing::default());
            for rows in [listed(&store).await, counted(&store).await, exported(&store).await] {
                assert_eq!(rows, 2 * ROWS, "column {number}, {byte:#x}");
            }
            assert_eq!(store.counters().unreadable_files, 1);
            // It comes back from a backup.
            fs::write(&path, &whole).unwrap();
            assert_eq!((listed(&store).await, store.missing(ALL).await.unwrap()), (3 * ROWS, Missing::default()));
        }
    }
    // Questions do not read all columns, and none that has no value.
    assert!(met > 40, "{met}");
}

/// Bytes of the pages of a file: header, data.
fn bytes_of_pages(path: &Path) -> std::ops::Range<usize> {
    let reader = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
    let ends = reader.metadata().row_group(0).columns().iter().map(|column| {
        let (first, length) = column.byte_range();
        (first + length) as usize
    });
    pages(path)[0]..ends.max().unwrap()
}

/// Whatever bit of a page a disk turns, no answer has another value because of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_turned_bit_is_never_another_value() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for hour in 0..2 {
        file(&store, hour, hour as u64 * ROWS).await;
    }
    let options = ExportOptions { format: ExportFormat::JsonLines, range: ALL, all_observations: true, limit: None };
    let rows = async || {
        let (_, bytes) = store.export(&Query::everything(), options, Vec::new()).await.unwrap();
        let mut lines: Vec<String> = String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let path = files(dir.path(), 1).pop_first().unwrap();
    let (whole, all) = (fs::read(&path).unwrap(), rows().await);
    fs::write(&path, "PAR1").unwrap();
    let left = rows().await;
    assert_eq!((all.len() as u64, left.len() as u64), (2 * ROWS, ROWS));
    fs::write(&path, &whole).unwrap();
    let (mut lost, mut kept) = (0, 0);
    for at in bytes_of_pages(&path).step_by(29) {
        let mut turned = whole.clone();
        turned[at] ^= 1 << (at % 8);
        fs::write(&path, &turned).unwrap();
        let answer = rows().await;
        let missing = store.missing(ALL).await.unwrap().rows;
        match missing {
            0 => assert!(answer == all, "byte {at} of {}", whole.len()),
            _ => assert!(answer == left && missing == ROWS, "byte {at} of {}", whole.len()),
        }
        lost += u32::from(missing > 0);
        kept += u32::from(missing == 0);
    }
    // Columns without a value are not read, and some bits of headers say what nobody asks.
    assert!(lost > 30 && kept > 50, "{lost} lost, {kept} kept");
}

/// The same of all else: bloom filters, page indexes, bounds, and what says where things are. Questions that ask them are asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_turned_bit_beside_the_pages_hides_no_row() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for hour in 0..2 {
        file(&store, hour, hour as u64 * ROWS).await;
    }
    let whole_file = files(dir.path(), 1).pop_first().unwrap();
    let whole = fs::read(&whole_file).unwrap();
    let questions = [
        (format!("flow_id == {:016x}", ROWS + 7), 1),
        ("server_ip == 10.0.0.2 and client_bytes > 0".to_owned(), 2 * ROWS),
    ];
    let questions = questions.map(|(text, all)| (parse::<FlowRecord>(&text).unwrap(), all));
    let options = || SearchOptions { limit: 1_000, all_observations: true, after: None };
    let ask = async |question| store.search(question, ALL, options()).await.unwrap().rows.len() as u64;
    for (question, all) in &questions {
        assert_eq!(ask(question).await, *all);
    }
    let (mut lost, mut kept) = (0, 0);
    for at in (bytes_of_pages(&whole_file).end..whole.len()).step_by(23) {
        let mut turned = whole.clone();
        turned[at] ^= 1 << (at % 8);
        // Under another name first: it is another file then, even within one tick of the file system's clock.
        let other = whole_file.with_extension("other");
        fs::write(&other, &turned).unwrap();
        fs::rename(&other, &whole_file).unwrap();
        for (question, all) in &questions {
            let found = ask(question).await;
            let missing = store.missing(ALL).await.unwrap().rows;
            assert!(found == *all || missing == ROWS, "byte {at} of {}: {found} of {all}", whole.len());
            lost += u32::from(missing > 0);
            kept += u32::from(missing == 0);
        }
    }
    // Footers are believed only as they were written; filters and indexes can be done without.
    assert!(lost > 500 && kept > 100, "{lost} lost, {kept} kept");
}

/// SQL reads with the engine's own reader: files of which it meets a broken page are left out at once, whoever asks.
#[tokio::test(flavor = "multi_thread")]
async fn sql_and_the_answers_of_the_store_are_without_it() {
    for rows in [None, Some(RowFilter::parse("server_port == 80").unwrap())] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreConfig::new(dir.path(), Role::Appliance)).await.unwrap().0;
        for hour in 0..4 {
            file(&store.flows, hour, hour as u64 * ROWS).await;
        }
        let ask = async || {
            let text = "select count(flow_id) as n, sum(client_bytes) as bytes from flows".to_owned();
            let request = SqlRequest { text, limit: 10, memory: DEFAULT_MEMORY, rows: rows.clone() };
            let answer = store.sql(&request, Arc::new(Timeline::new().view())).await.unwrap();
            (answer.rows[0]["n"].as_u64().unwrap(), answer.rows[0]["bytes"].as_u64().unwrap())
        };
        assert_eq!(ask().await, (4 * ROWS, 4 * ROWS * 300));
        // Of each column's last page the last byte.
        for (hour, way) in [(1, 0xff), (2, 1)] {
            let path = files(dir.path(), hour).pop_first().unwrap();
            let mut broken = fs::read(&path).unwrap();
            for next in pages(&path).into_iter().skip(1) {
                broken[next - 1] ^= way;
            }
            fs::write(&path, &broken).unwrap();
        }
        assert_eq!(ask().await, (2 * ROWS, 2 * ROWS * 300));
        let unreadable = store.completeness(0, i64::MAX, false).await.unwrap().unreadable;
        assert_eq!(unreadable, Missing { files: 2, rows: 2 * ROWS });
        assert_eq!(listed(&store.flows).await, 2 * ROWS);
        assert_eq!(ask().await, (2 * ROWS, 2 * ROWS * 300));
    }
}

#[tokio::test]
async fn a_broken_file_does_not_hold_up_merges() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for (hour, first) in [(0, 0), (0, 100), (1, 200), (1, 300), (2, 400), (2, 500), (2, 600)] {
        file(&store, hour, first).await;
    }
    // Of the oldest hour one is not even Parquet; of the next one a page is broken.
    fs::write(files(dir.path(), 0).pop_first().unwrap(), "PAR1").unwrap();
    for path in files(dir.path(), 2).into_iter().take(1) {
        let mut broken = fs::read(&path).unwrap();
        for at in pages(&path) {
            broken[at..at + 12].fill(0xff);
        }
        fs::write(&path, &broken).unwrap();
    }
    let later = flow(0).record.start + 100 * HOUR;
    for _ in 0..8 {
        store.compact(later).await.unwrap();
    }
    store.compact(later + HOUR).await.unwrap();
    let left = [0, 1, 2].map(|hour| files(dir.path(), hour).len());
    assert_eq!(left, [2, 1, 2]);
    assert_eq!(listed(&store).await, 5 * ROWS);
}

/// Hours are rolled up without what is missing, and with it when it is back; whoever maintains the store does not stop for it.
#[tokio::test]
async fn a_missing_file_does_not_hold_up_rollups() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreConfig::new(dir.path(), Role::Appliance)).await.unwrap().0;
    for (hour, first) in [(0, 0), (0, 100), (1, 200), (2, 300)] {
        file(&store.flows, hour, first).await;
    }
    let missing = [0, 1].map(|hour| files(dir.path(), hour).pop_first().unwrap());
    let bytes = missing.each_ref().map(|path| fs::read(path).unwrap());
    for path in &missing {
        fs::remove_file(path).unwrap();
    }
    let later = flow(0).record.start + 100 * HOUR;
    for _ in 0..8 {
        store.maintain(later).await.unwrap();
    }
    let counters = store.flows.counters();
    assert_eq!(
        (counters.rollups, counters.failed_rollups, counters.unreadable_files),
        (3, 0, 2),
        "two hours and a day"
    );
    assert_eq!(counted(&store.flows).await, 2 * ROWS);
    let unreadable = store.completeness(0, i64::MAX, true).await.unwrap().unreadable;
    assert_eq!(unreadable, Missing { files: 2, rows: 2 * ROWS });
    for (path, bytes) in missing.iter().zip(bytes) {
        fs::write(path, bytes).unwrap();
    }
    for _ in 0..8 {
        store.maintain(later).await.unwrap();
    }
    assert!(store.flows.counters().rollups > 3);
    assert_eq!(counted(&store.flows).await, 4 * ROWS);
    assert_eq!(store.completeness(0, i64::MAX, true).await.unwrap().unreadable, Missing::default());
}

/// Whatever bit of a roll-up a disk turns, no total is another one: what it adds up is added up from its rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_turned_bit_in_a_rollup_is_never_another_total() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreConfig::new(dir.path(), Role::Appliance)).await.unwrap().0;
    file(&store.flows, 0, 0).await;
    store.maintain(flow(0).record.start + 2 * HOUR).await.unwrap();
    let folder = dir.path().join("rollups/1m/date=2026-03-01/hour=00");
    let path = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let text = "| count, sum(client_bytes), p50(response_time_avg_us) by server_port, 1m";
    let statement = parse_statement::<FlowRecord>(text, 0).unwrap();
    let request = AggregateRequest {
        filter: statement.filter,
        aggregate: statement.aggregate.unwrap(),
        range: ALL,
        all_observations: false,
        compare: false,
        memory: 64 << 20,
    };
    let ask = async || {
        let answer = store.flows.aggregate(&request).await.unwrap();
        (serde_json::to_value(&answer.rows).unwrap(), answer.served_by.rollups)
    };
    let (whole, (all, rollups)) = (fs::read(&path).unwrap(), ask().await);
    assert_eq!(rollups, 1);
    let (mut from_rows, mut from_rollup) = (0, 0);
    for at in (4..whole.len()).step_by(17) {
        let mut turned = whole.clone();
        turned[at] ^= 1 << (at % 8);
        let other = path.with_extension("other");
        fs::write(&other, &turned).unwrap();
        fs::rename(&other, &path).unwrap();
        let (rows, rollups) = ask().await;
        assert!(rows == all, "byte {at} of {}", whole.len());
        from_rows += u32::from(rollups == 0);
        from_rollup += u32::from(rollups == 1);
    }
    assert!(from_rows > 100 && from_rollup > 0, "{from_rows} from rows, {from_rollup} from the roll-up");
}

/// The minutes of a day that are missing keep it without hours, and nothing else from its work.
#[tokio::test]
async fn a_missing_rollup_is_tried_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreConfig::new(dir.path(), Role::Appliance)).await.unwrap().0;
    file(&store.flows, 0, 0).await;
    let soon = flow(0).record.start + 2 * HOUR;
    store.maintain(soon).await.unwrap();
    assert_eq!(store.flows.counters().rollups, 1);
    fs::remove_dir_all(dir.path().join("rollups/1m")).unwrap();
    for _ in 0..3 {
        store.maintain(soon + 100 * HOUR).await.unwrap();
    }
    assert_eq!(store.flows.counters().failed_rollups, 1);
    assert_eq!(counted(&store.flows).await, ROWS);
}
