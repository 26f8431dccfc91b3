//! Names that were told late: stored rows get them, and nothing else changes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where it fails")]

use std::fs::{File, FileTimes};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use wiretag_capture::FlowRecord;
use wiretag_enrich::tagger::Again;
use wiretag_enrich::timeline::Timeline;
use wiretag_enrich::timeline::late::LateRows;
use wiretag_enrich::{Identity, IdentityEvent, Interval, Key, TaggedBy, TaggedFlow};
use wiretag_store::limits::DEFAULT_MEMORY;
use wiretag_store::query;
use wiretag_store::tables::{AggregateRequest, Range, Retagging, Row, SearchOptions, TableStore};
use wiretag_store::{Origin, Retention, Role, RollupAges, Store, StoreConfig, Table};

use crate::erase::{NOW, bytes_of, erase, open};
use crate::erase_rollups::maintain;
use crate::rows::{START, flow, name, transaction};

const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// 10.0.1.x was a pod from a time to another.
type Fact<'a> = (u8, &'a str, i64, i64);

fn again(facts: &[Fact<'_>]) -> Again {
    let facts: Vec<_> = facts.iter().map(|(last, pod, from, to)| (address(*last), *pod, (*from, *to))).collect();
    told(&facts)
}

/// An address was a pod from a time to another; that is learned now.
pub(crate) fn known(ip: IpAddr, pod: &str, times: (i64, i64)) -> Again {
    told(&[(ip, pod, times)])
}

fn told(facts: &[(IpAddr, &str, (i64, i64))]) -> Again {
    let mut timeline = Timeline::new();
    for (ip, pod, (from, to)) in facts {
        let identity = Identity {
            identity: (*pod).into(),
            pod: Some((*pod).into()),
            workload: Some((*pod).into()),
            ..Identity::default()
        };
        timeline.apply(&IdentityEvent::Learned(Interval {
            key: Key::Ip { network: "cluster".into(), ip: *ip },
            identity: Arc::new(identity),
            valid_from: *from,
            valid_to: Some(*to),
            learned_at: NOW,
            source: "cri".into(),
        }));
    }
    let (boot, node) = ("boot".into(), "node".into());
    Again { boot, node, links: Arc::default(), view: Arc::new(timeline.view()) }
}

fn address(last: u8) -> IpAddr {
    [10, 0, 1, last].into()
}

/// All rows.
pub(crate) fn everything() -> LateRows {
    LateRows { from: 0, to: i64::MAX, ranges: Vec::new() }
}

/// Rows that were named.
pub(crate) async fn retag<R: Table>(store: &TableStore<R>, late: &LateRows, again: &Again) -> u64 {
    let (mut progress, mut rows) = (Retagging::default(), 0);
    while let Some(some) = store.retag_next(late, (again, &mut progress), NOW).await.unwrap() {
        rows += some;
    }
    rows
}

/// Of 10.0.1.`client`, `minute` minutes after the first.
fn talk(flow_id: u64, client: u8, minute: i64) -> TaggedFlow {
    let mut row = flow(flow_id);
    row.record.start = START + minute * MINUTE;
    row.record.end = row.record.start + SECOND;
    row.record.client.ip = address(client);
    row
}

async fn rows<R: Table>(store: &TableStore<R>) -> Vec<Row> {
    let options = SearchOptions { limit: 1_000, all_observations: true, after: None };
    let page = store.search(&query::parse::<R>("").unwrap(), Range::ALL, options).await.unwrap();
    page.rows
}

/// Pods of the clients by flow id, and how they were named.
async fn clients<R: Table>(store: &TableStore<R>) -> Vec<(u64, String, String)> {
    let text = |row: &Row, column: &str| row.get(column).as_str().unwrap_or("-").to_owned();
    let id = |row: &Row| u64::from_str_radix(&text(row, "flow_id"), 16).unwrap();
    let mut found: Vec<_> =
        rows(store).await.iter().map(|row| (id(row), text(row, "client_pod"), text(row, "client_tagged_by"))).collect();
    found.sort();
    found
}

fn client(id: u64, pod: &str, tagged_by: &str) -> (u64, String, String) {
    (id, pod.to_owned(), tagged_by.to_owned())
}

#[tokio::test]
async fn only_ends_without_a_name_get_one_and_other_files_are_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Role::Appliance).await;
    let mut named = talk(2, 1, 1);
    name(&mut named.client, "as-known-then", &[]);
    let mut unclear = talk(3, 1, 2);
    unclear.client.tagged_by = TaggedBy::Ambiguous;
    store.flows.append(vec![talk(1, 1, 0), named, unclear, talk(4, 2, 3), talk(5, 2, 90)]).await.unwrap();
    let mut exchange = transaction(1, 0);
    exchange.record.client_ip = address(1);
    store.transactions.append(vec![exchange, transaction(9, 0)]).await.unwrap();
    store.flush().await.unwrap();
    let before = bytes_of(dir.path());
    let columns = |rows: &[Row]| -> Vec<_> {
        let bare = rows.iter().map(|row| {
            let mut map = row.to_map();
            map.retain(|column, _| !column.starts_with("client_") || column.starts_with("client_ip"));
            map
        });
        bare.collect()
    };
    let others = columns(&rows(&store.flows).await);

    let again = again(&[(1, "shop", START, NOW)]);
    let late = LateRows { from: START, to: NOW, ranges: vec![(address(1), 32)] };
    assert_eq!(retag(&store.flows, &late, &again).await, 2);
    assert_eq!(retag(&store.transactions, &late, &again).await, 1);
    assert_eq!(
        clients(&store.flows).await,
        [
            client(1, "shop", "ip"),
            client(2, "as-known-then", "ip"),
            client(3, "shop", "ip"),
            client(4, "-", "none"),
            client(5, "-", "none"),
        ]
    );
    assert_eq!(clients(&store.transactions).await, [client(1, "shop", "ip"), client(9, "-", "none")]);
    assert_eq!(columns(&rows(&store.flows).await), others, "nothing else is another");
    let counters = (store.flows.counters().retagged, store.transactions.counters().retagged);
    assert_eq!(counters, (2, 1));

    let after = bytes_of(dir.path());
    let parquet = |path: &&String| path.ends_with(".parquet");
    let new: Vec<&String> = after.keys().filter(parquet).filter(|path| !before.contains_key(*path)).collect();
    assert_eq!(new.len(), 2, "a file of each table was written anew: {new:?}");
    assert!(before.iter().filter(|(path, _)| parquet(path)).all(|(path, bytes)| after.get(path) == Some(bytes)));
    // Again: nothing is left to do.
    assert_eq!(retag(&store.flows, &late, &again).await + retag(&store.flows, &everything(), &again).await, 0);
    assert_eq!(bytes_of(dir.path()).keys().filter(parquet).count(), after.keys().filter(parquet).count());
    drop(store);
    let store = open(dir.path(), Role::Appliance).await;
    assert_eq!(clients(&store.flows).await[0], client(1, "shop", "ip"), "after a restart, too");
}

#[tokio::test]
async fn an_heir_of_the_address_is_not_named_by_who_had_it_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Role::Appliance).await;
    store.flows.append(vec![talk(1, 1, 0), talk(2, 1, 12), talk(3, 1, 20), talk(4, 1, 31)]).await.unwrap();
    let minute = |minute: i64| START + minute * MINUTE;
    let again = again(&[(1, "first", minute(-5), minute(10)), (1, "second", minute(15), minute(30))]);
    assert_eq!(retag(&store.flows, &everything(), &again).await, 2);
    assert_eq!(
        clients(&store.flows).await,
        [client(1, "first", "ip"), client(2, "-", "none"), client(3, "second", "ip"), client(4, "-", "none")]
    );
}

#[tokio::test]
async fn what_was_erased_by_a_name_does_not_come_back_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Role::Appliance).await;
    store.flows.append(vec![talk(1, 1, 0), talk(2, 2, 0)]).await.unwrap();
    assert_eq!(erase(&store, "pod == shop").await.counts.flows, 0, "nobody knew");
    store.flows.append(vec![talk(4, 1, 5)]).await.unwrap();
    store.flush().await.unwrap();
    // Imported afterwards: whoever does that wants it.
    store.flows.set_origin(Origin { import: Some(1), stored_at: NOW + HOUR });
    store.flows.append(vec![talk(3, 1, 0)]).await.unwrap();

    let again = again(&[(1, "shop", START, NOW), (2, "bank", START, NOW)]);
    assert_eq!(retag(&store.flows, &everything(), &again).await, 2);
    assert_eq!(clients(&store.flows).await, [client(2, "bank", "ip"), client(3, "shop", "ip")]);
    let erasure = store.erasures().await.unwrap().remove(0);
    assert_eq!(erasure.counts.flows, 2, "and that is on record");
    assert_eq!(store.flows.counters().removed, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_reads_meanwhile_has_every_row_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Role::Appliance).await;
    for hour in 0..6 {
        for part in 0..4 {
            let rows = (0..20).map(|row| talk(hour * 100 + part * 20 + row, 1, hour as i64 * 60 + row as i64));
            store.flows.append(rows.collect()).await.unwrap();
            store.flush().await.unwrap();
        }
    }
    let (reader, done) = (store.flows.clone(), Arc::new(AtomicBool::new(false)));
    let ended = done.clone();
    let reading = tokio::spawn(async move {
        let mut asked = 0;
        while !ended.load(Ordering::Relaxed) || asked == 0 {
            assert_eq!(rows(&reader).await.len(), 480);
            asked += 1;
        }
        asked
    });
    let again = again(&[(1, "shop", START, NOW)]);
    let named = async {
        let merged = async { while store.flows.compact(NOW).await.unwrap() > 0 {} };
        let late = everything();
        tokio::join!(retag(&store.flows, &late, &again), merged).0
    };
    // A merge may take a file from under it, and the next round finds what it became.
    assert_eq!(named.await + retag(&store.flows, &everything(), &again).await, 480);
    done.store(true, Ordering::Relaxed);
    assert!(reading.await.unwrap() > 0);
    assert_eq!(store.flows.counters().unreadable_files, 0);
    assert!(clients(&store.flows).await.iter().all(|(_, pod, _)| pod == "shop"));
}

/// Rows of a workload, as an aggregation says, and from where.
async fn count(store: &Store, text: &str) -> u64 {
    let statement = query::parse_statement::<FlowRecord>(&format!("{text} | count"), START).unwrap();
    let request = AggregateRequest {
        filter: statement.filter,
        aggregate: statement.aggregate.unwrap(),
        range: Range { from: START, to: START + 3 * DAY },
        all_observations: false,
        compare: false,
        memory: DEFAULT_MEMORY,
    };
    let answer = store.flows.aggregate(&request).await.unwrap();
    answer.rows.first().and_then(|row| row.get("count").as_u64()).unwrap_or_default()
}

async fn rolled_up(dir: &Path) -> Store {
    let age = |hours: u64| Some(Duration::from_hours(hours));
    let config = StoreConfig {
        flows: Retention { age: age(96), bytes: None },
        rollups: RollupAges { minutes: age(48), hours: age(4_800) },
        ..StoreConfig::new(dir, Role::Appliance)
    };
    let store = Store::open(config).await.unwrap().0;
    let rows = (0..288).map(|number: i64| talk(number as u64, (number % 2) as u8 + 1, number / 2 * 20));
    store.flows.append(rows.collect()).await.unwrap();
    maintain(&store, START + 3 * DAY).await;
    assert_eq!(store.catalog.rollups().await.unwrap().iter().filter(|file| file.width == HOUR).count(), 2);
    store
}

#[tokio::test]
async fn roll_ups_are_made_again_with_the_names() {
    let dir = tempfile::tempdir().unwrap();
    let store = rolled_up(dir.path()).await;
    let again = again(&[(1, "shop", START, START + DAY)]);
    assert_eq!((count(&store, "client_workload == shop").await, count(&store, "*").await), (0, 288));
    assert_eq!(retag(&store.flows, &everything(), &again).await, 72);
    assert_eq!((count(&store, "client_workload == shop").await, count(&store, "*").await), (72, 288));
    maintain(&store, START + 3 * DAY).await;
    assert_eq!(store.catalog.rollups().await.unwrap().iter().filter(|file| file.width == HOUR).count(), 2);
    // Rows go, the roll-ups stay: they say what the rows said.
    store.maintain(START + 10 * DAY).await.unwrap();
    assert!(rows(&store.flows).await.is_empty());
    assert_eq!((count(&store, "client_workload == shop").await, count(&store, "*").await), (72, 288));
}

/// Folders in which a file was made or deleted since the last call.
fn worked_in(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![dir.join("flows"), dir.join("rollups")];
    while let Some(folder) = open.pop() {
        if folder.metadata().unwrap().modified().unwrap() != UNIX_EPOCH {
            found.push(folder.to_str().unwrap().to_owned());
            File::open(&folder).unwrap().set_times(FileTimes::new().set_modified(UNIX_EPOCH)).unwrap();
        }
        let inside = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        open.extend(inside.filter(|path| path.is_dir()));
    }
    found
}

#[tokio::test]
async fn rows_agree_with_a_roll_up_that_cannot_be_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = rolled_up(dir.path()).await;
    // Retention takes the first hours.
    let now = START + 96 * HOUR + 5 * HOUR;
    maintain(&store, now).await;
    let left = rows(&store.flows).await.len();
    assert!(left > 144 && left < 288, "{left}");
    let again = again(&[(1, "shop", START, START + 3 * DAY)]);
    assert!(!worked_in(dir.path()).is_empty());
    let named = retag(&store.flows, &everything(), &again).await;
    assert_eq!(named, 72, "only the second day");
    let files = worked_in(dir.path());
    assert_eq!(files.iter().filter(|folder| folder.contains("date=2026-03-02")).count(), 24);
    assert!(!files.iter().any(|folder| folder.contains("date=2026-03-01")), "for nothing: {files:?}");
    let raw = clients(&store.flows).await.iter().filter(|(_, pod, _)| pod == "shop").count() as u64;
    assert_eq!((raw, count(&store, "client_workload == shop").await, count(&store, "*").await), (72, 72, 288));
    for since in [0, MINUTE] {
        maintain(&store, now + since).await;
    }
    assert_eq!((count(&store, "client_workload == shop").await, count(&store, "*").await), (72, 288));
    assert!(!worked_in(dir.path()).is_empty(), "a roll-up was made again");
    assert_eq!(retag(&store.flows, &everything(), &again).await, 0);
    maintain(&store, now + MINUTE).await;
    assert_eq!(worked_in(dir.path()), Vec::<String>::new(), "nothing is new");
}
