//! Erasure: what it is about goes from wherever it is, nothing else changes, and nothing brings it back.
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use wiretag_capture::FlowRecord;
use wiretag_enrich::TaggedFlow;
use wiretag_store::query::{Query, parse};
use wiretag_store::tables::{Range, Row, SearchOptions};
use wiretag_store::{Erasure, ErasureRequest, ErasureState, Origin, Role, Store, StoreConfig, StoreError, TableName};

use crate::rows::{START, flow, name, transaction};

const SECOND: i64 = 1_000_000_000;
const HOUR: i64 = 3_600 * SECOND;
/// When things are erased.
pub(crate) const NOW: i64 = START + 20 * HOUR;

pub(crate) async fn open(dir: &Path, role: Role) -> Store {
    Store::open(StoreConfig::new(dir, role)).await.unwrap().0
}

/// Of 10.0.1.`client`, `minute` minutes after the first.
fn talk(flow_id: u64, client: u8, minute: i64) -> TaggedFlow {
    let mut row = flow(flow_id);
    row.record.start = START + minute * 60 * SECOND;
    row.record.end = row.record.start + SECOND;
    row.record.client.ip = [10, 0, 1, client].into();
    name(&mut row.client, &format!("pod-{client}"), &[("tenant", if client == 1 { "shop" } else { "bank" })]);
    row
}

pub(crate) fn request(filter: &str) -> ErasureRequest {
    let (filter, who, reason) = (filter.to_owned(), "Jane".to_owned(), "request 1".to_owned());
    ErasureRequest { filter, from: 0, to: NOW, only: None, who, reason }
}

pub(crate) async fn erase(store: &Store, filter: &str) -> Erasure {
    let id = store.begin_erasure(&request(filter), NOW).await.unwrap();
    store.continue_erasures(&|| NOW).await.unwrap();
    store.erasures().await.unwrap().into_iter().find(|erasure| erasure.id == id).unwrap()
}

async fn ids(store: &Store) -> Vec<String> {
    let options = SearchOptions { limit: 1_000, all_observations: true, after: None };
    let page = store.flows.search(&Query::<FlowRecord>::everything(), Range::ALL, options).await.unwrap();
    let mut ids: Vec<String> =
        page.rows.iter().map(|row: &Row| row.get("flow_id").as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

fn hex(ids: &[u64]) -> Vec<String> {
    ids.iter().map(|id| format!("{id:016x}")).collect()
}

/// Every file below, with its bytes.
pub(crate) fn bytes_of(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut folders, mut found) = (vec![dir.to_owned()], BTreeMap::new());
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.to_string_lossy().into_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[tokio::test]
async fn it_goes_from_files_and_memory_and_files_without_it_are_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Role::Appliance).await;
    store.flows.append(vec![talk(1, 1, 0), talk(2, 2, 0), talk(3, 2, 70)]).await.unwrap();
    store.transactions.append(vec![transaction(1, 0), transaction(2, 0)]).await.unwrap();
    store.flush().await.unwrap();
    let before = bytes_of(&dir.path().join("flows"));
    let mut second = talk(4, 1, 5);
    second.record.primary = false;
    store.flows.append(vec![second, talk(5, 2, 5)]).await.unwrap();
    let mut open_slice = talk(6, 1, 9);
    open_slice.record.end_reason = None;
    store.flows.show_open(&[Arc::new(open_slice.clone())]).await;
    assert_eq!(ids(&store).await, hex(&[1, 2, 3, 4, 5, 6]));

    let question = ErasureRequest { only: Some(TableName::Flows), ..request("labels.tenant == shop") };
    let preview = store.preview_erasure(&question).await.unwrap();
    assert_eq!((preview.flows.rows, preview.flows.files.len(), preview.transactions.rows), (3, 1, 0));
    assert_eq!(ids(&store).await.len(), 6, "a preview removes nothing");

    let erasure = erase(&store, "client_ip == 10.0.1.1").await;
    assert_eq!((erasure.state, erasure.counts.flows), (ErasureState::Deleting, 2));
    assert_eq!(ids(&store).await, hex(&[2, 3, 5]));
    let files = store.catalog.erased_files(erasure.id).await.unwrap();
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    assert!(paths.len() == 2 && paths.contains(&"memory"), "{paths:?}");
    let rewritten = files.iter().find(|file| file.path != "memory").unwrap();
    let after = bytes_of(&dir.path().join("flows"));
    let same = before.iter().filter(|(path, bytes)| after.get(*path) == Some(bytes)).count();
    assert_eq!(same, before.len(), "old files wait for searches that began before, the others are as they were");
    store.settle_erasures().await.unwrap();
    let after = bytes_of(&dir.path().join("flows"));
    let gone: Vec<&String> = before.keys().filter(|path| !after.contains_key(*path)).collect();
    assert!(gone.len() == 1 && gone[0].ends_with(&rewritten.path), "{gone:?}");

    // Its last row comes late, and a newer version of what was open.
    store.flows.show_open(&[Arc::new(open_slice.clone())]).await;
    assert_eq!(ids(&store).await.len(), 3);
    open_slice.record.end_reason = Some(wiretag_capture::EndReason::Fin);
    let (untouched, both) = ([talk(2, 2, 0)], [open_slice.clone(), talk(2, 2, 0)]);
    assert_eq!(&*store.flows.kept(&both), &untouched, "nobody else is told of it");
    assert!(matches!(store.flows.kept(&untouched), Cow::Borrowed(_)));
    store.flows.append(vec![open_slice]).await.unwrap();
    assert_eq!(ids(&store).await, hex(&[2, 3, 5]), "nor is it in an answer while it waits");
    store.flush().await.unwrap();
    assert_eq!(ids(&store).await, hex(&[2, 3, 5]));
    // What it does afterwards is not of the erasure.
    let mut later = talk(7, 1, 0);
    (later.record.start, later.record.end) = (NOW, NOW + SECOND);
    store.flows.append(vec![later]).await.unwrap();
    store.flush().await.unwrap();
    assert_eq!(ids(&store).await, hex(&[2, 3, 5, 7]));
    store.continue_erasures(&|| NOW).await.unwrap();
    let erasure = store.erasures().await.unwrap().remove(0);
    assert_eq!(erasure.counts.flows, 3, "what came late is counted");
    let counters = store.flows.counters();
    assert_eq!((counters.received, counters.written, counters.erased, counters.recent), (7, 5, 2, 0));
}

/// Rows are held against an erasure from its note on, however long another one is at work.
#[tokio::test]
async fn what_was_noted_holds_before_it_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Role::Appliance).await;
    store.begin_erasure(&request("client_ip == 10.0.1.1"), NOW).await.unwrap();
    assert!(store.flows.kept(&[talk(1, 1, 0)]).is_empty());
    store.flows.append(vec![talk(1, 1, 0), talk(2, 2, 0)]).await.unwrap();
    assert_eq!(ids(&store).await, hex(&[2]));
    let counters = store.flows.counters();
    assert_eq!((counters.received, counters.recent), (2, 2));
    store.continue_erasures(&|| NOW).await.unwrap();
    assert_eq!(store.erasures().await.unwrap()[0].counts.flows, 1);
    let counters = store.flows.counters();
    assert_eq!((counters.written, counters.erased, counters.recent), (1, 1, 0));
}

/// Killed after it was noted, and after half of the files: the next start goes on.
#[tokio::test]
async fn a_start_goes_on_with_what_a_kill_left() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Role::Appliance).await;
    for minute in [0, 70, 140] {
        store.flows.append(vec![talk(minute as u64 + 1, 1, minute), talk(minute as u64 + 2, 2, minute)]).await.unwrap();
    }
    store.flush().await.unwrap();
    store.begin_erasure(&request("client_ip == 10.0.1.1"), NOW).await.unwrap();
    drop(store);
    for turns in [1, 5, 20, 60, 200] {
        let store = open(dir.path(), Role::Eraser).await;
        tokio::select! {
            biased;
            () = async { for _ in 0..turns { tokio::task::yield_now().await; } } => {}
            _ = store.continue_erasures(&|| NOW) => {}
        }
    }
    let store = open(dir.path(), Role::Appliance).await;
    store.continue_erasures(&|| NOW).await.unwrap();
    assert_eq!(ids(&store).await, hex(&[2, 72, 142]));
    let erasure = store.erasures().await.unwrap().remove(0);
    assert_eq!((erasure.state, erasure.counts.flows), (ErasureState::Deleting, 3), "each row is counted once");
}

/// What an import has in memory does not come in behind an erasure; what is imported afterwards is wanted.
#[tokio::test]
async fn an_import_brings_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Role::Appliance).await;
    let import = open(dir.path(), Role::Importer).await;
    import.flows.append(vec![talk(1, 1, 0), talk(2, 2, 0), talk(3, 1, 70)]).await.unwrap();
    erase(&store, "client_ip == 10.0.1.1").await;
    import.flush().await.unwrap();
    assert_eq!(ids(&store).await, hex(&[2]));
    store.continue_erasures(&|| NOW).await.unwrap();
    assert_eq!(store.erasures().await.unwrap()[0].counts.flows, 2);
    let error = import.begin_erasure(&request("client_ip == 10.0.1.2"), NOW).await.unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly), "{error}");
    let again = open(dir.path(), Role::Importer).await;
    again.flows.append(vec![talk(4, 1, 0)]).await.unwrap();
    again.flush().await.unwrap();
    assert_eq!(ids(&store).await, hex(&[2, 4]));
}

/// A run that is killed has erased slices in its journal; the next start makes no rows of them.
#[tokio::test]
async fn the_journal_brings_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Role::Appliance).await;
    let mut journal = store.journal(START).unwrap();
    let slices: Vec<Arc<TaggedFlow>> = vec![Arc::new(talk(1, 1, 0)), Arc::new(talk(2, 2, 0))];
    journal.append(&slices, START).unwrap();
    erase(&store, "client_ip == 10.0.1.1").await;
    drop((store, journal));
    let (store, recovery) = Store::open(StoreConfig::new(dir.path(), Role::Appliance)).await.unwrap();
    assert!(recovery.repairs.iter().any(|sentence| sentence.contains("1 open flows were recovered")), "{recovery:?}");
    assert_eq!(ids(&store).await, hex(&[2]));
    store.continue_erasures(&|| NOW).await.unwrap();
    assert_eq!(store.erasures().await.unwrap()[0].counts.flows, 1);
}

/// Merges, flushes and roll-ups at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_runs_beside_it_brings_anything_back() {
    const ROUNDS: u64 = 40;
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path(), Role::Appliance).await);
    let beside = {
        let store = store.clone();
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                let row = |number: u64| talk(round * 10 + number, (number % 3) as u8, (round % 5) as i64 * 40);
                store.flows.append((0..10).map(row).collect()).await.unwrap();
                store.flush().await.unwrap();
                store.flows.compact(NOW).await.unwrap();
                store.flows.roll_up(NOW).await.unwrap();
            }
        })
    };
    for client in [1_u8, 2] {
        tokio::task::yield_now().await;
        erase(&store, &format!("client_ip == 10.0.1.{client}")).await;
    }
    beside.await.unwrap();
    store.continue_erasures(&|| NOW).await.unwrap();
    let wanted: Vec<u64> = (0..ROUNDS * 10).filter(|id| id % 10 % 3 == 0).collect();
    assert_eq!(ids(&store).await, hex(&wanted));
    let erased: u64 = store.erasures().await.unwrap().iter().map(|erasure| erasure.counts.flows).sum();
    assert_eq!(erased, ROUNDS * 10 - wanted.len() as u64);
}

/// A search that has its list of files finds them, whatever is erased meanwhile.
#[tokio::test]
async fn readers_in_flight_end_as_they_began() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Role::Appliance).await;
    store.flows.append((0..20).map(|id| talk(id, (id % 2) as u8, 0)).collect()).await.unwrap();
    store.flush().await.unwrap();
    let reader = Store::open_read_only(dir.path()).await.unwrap();
    let list = reader.catalog.files_of(TableName::Flows).await.unwrap();
    erase(&store, "client_ip == 10.0.1.1").await;
    store.maintain(NOW + 10 * SECOND).await.unwrap();
    assert!(list.iter().all(|file| dir.path().join(&file.path).exists()));
    assert_eq!(store.erasures().await.unwrap()[0].state, ErasureState::Deleting);
    store.maintain(NOW + 120 * SECOND).await.unwrap();
    store.maintain(NOW + 122 * SECOND).await.unwrap();
    assert!(!list.iter().any(|file| dir.path().join(&file.path).exists()));
    assert_eq!(store.erasures().await.unwrap()[0].state, ErasureState::Done);
    assert_eq!(ids(&reader).await.len(), 10);
}

/// A file that cannot be read is not said to be without it, and is when it can be.
#[tokio::test]
async fn what_cannot_be_read_is_told_and_erased_later() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Role::Appliance).await;
    store.flows.append(vec![talk(1, 1, 0)]).await.unwrap();
    store.flush().await.unwrap();
    store.flows.append(vec![talk(2, 1, 70)]).await.unwrap();
    store.flush().await.unwrap();
    let file = store.catalog.files_of(TableName::Flows).await.unwrap().remove(0);
    let path = dir.path().join(&file.path);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, b"PAR1").unwrap();
    let preview = store.preview_erasure(&request("client_ip == 10.0.1.1")).await.unwrap();
    assert_eq!((preview.flows.rows, &preview.flows.unread), (1, &vec![file.path]));
    let erasure = erase(&store, "client_ip == 10.0.1.1").await;
    assert_eq!((erasure.counts.flows, erasure.counts.files_unread), (1, 1));
    assert_eq!((erasure.state, erasure.finished_at), (ErasureState::Running, None));
    assert!(erasure.problem.is_some_and(|problem| problem.contains("1 files cannot be read")));
    // What is imported after an erasure is wanted.
    let import = open(dir.path(), Role::Importer).await;
    import.flows.set_origin(Origin { import: Some(1), stored_at: NOW + 1 });
    import.flows.append(vec![talk(3, 1, 5)]).await.unwrap();
    import.close().await.unwrap();
    fs::write(&path, whole).unwrap();
    store.continue_erasures(&|| NOW).await.unwrap();
    let erasure = store.erasures().await.unwrap().remove(0);
    assert_eq!((erasure.state, erasure.finished_at, erasure.problem), (ErasureState::Deleting, Some(NOW), None));
    assert_eq!((erasure.counts.flows, erasure.counts.files_unread), (2, 0));
    assert_eq!(ids(&store).await, hex(&[3]));
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Role::Appliance).await;
    for (wrong, why) in [
        (request(" "), "the filter is empty"),
        (ErasureRequest { reason: String::new(), ..request("port == 1") }, "needs a reason"),
        (ErasureRequest { from: NOW + 1, to: NOW + 2, ..request("port == 1") }, "the time range is empty"),
        (request("prt == 1"), "prt"),
        (request("start > -5m"), "relative time"),
        (request("port == 80 | count"), ""),
        (request("client_retransmits > 0"), "erase only flows"),
        (request("latency_us > 0"), "erase only transactions"),
    ] {
        let error = store.begin_erasure(&wrong, NOW).await.unwrap_err();
        assert!(matches!(&error, StoreError::Erasure(sentence) if sentence.contains(why)), "{error}");
    }
    let nowhere = store.begin_erasure(&request("prt == 1"), NOW).await.unwrap_err().to_string();
    assert!(!nowhere.contains("erase only"), "the other table has no such column either: {nowhere}");
    let flows = ErasureRequest { only: Some(TableName::Flows), ..request("client_retransmits > 0") };
    store.begin_erasure(&flows, NOW).await.unwrap();
    assert!(parse::<FlowRecord>("client_retransmits > 0").is_ok());
}
