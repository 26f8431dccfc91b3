//! Erasure and roll-ups: answers are those of the rows that are left; where rows are gone, what can be decided is, and what cannot
//! is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wiretag_capture::FlowRecord;
use wiretag_enrich::{EndTag, Identity, TaggedBy, TaggedFlow};
use wiretag_store::limits::DEFAULT_MEMORY;
use wiretag_store::query;
use wiretag_store::tables::{AggregateRequest, Range};
use wiretag_store::{Erasure, ErasureRequest, Retention, Role, RollupAges, Store, StoreConfig};

use crate::erase::request;
use crate::rows::{START, flow};

const MINUTE: i64 = 60_000_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const ALL: Range = Range { from: START, to: START + 3 * DAY };

fn named(workload: &str) -> EndTag {
    let name = || Some(Arc::from(workload));
    let identity = Identity { identity: workload.into(), workload: name(), pod: name(), ..Identity::default() };
    EndTag { identity: Some(Arc::new(identity)), tagged_by: TaggedBy::Ip, translated: None }
}

/// Two days, each ten minutes one flow of `shop` and one of `bank`.
fn rows() -> Vec<TaggedFlow> {
    let row = |number: i64| {
        let mut row = flow(number as u64 + 1);
        row.record.start = START + number / 2 * 10 * MINUTE + 30_000_000_000;
        row.record.end = row.record.start;
        row.record.client.ip = [10, 0, 0, (number % 2) as u8].into();
        (row.client, row.server) = (named(if number % 2 == 0 { "shop" } else { "bank" }), named("db"));
        row
    };
    (0..2 * 288).map(row).collect()
}

/// Rows of a workload.
async fn count(store: &Store, workload: &str, range: Range) -> u64 {
    let text = format!("client_workload == {workload} | count");
    let statement = query::parse_statement::<FlowRecord>(&text, START).unwrap();
    let request = AggregateRequest {
        filter: statement.filter,
        aggregate: statement.aggregate.unwrap(),
        range,
        all_observations: false,
        compare: false,
        memory: DEFAULT_MEMORY,
    };
    let answer = store.flows.aggregate(&request).await.unwrap();
    answer.rows.first().and_then(|row| row.get("count").as_u64()).unwrap_or_default()
}

/// Rows are kept for four days, minutes for so long.
async fn open(dir: &Path, minutes: u64) -> Store {
    let age = |hours: u64| Some(Duration::from_hours(hours));
    let config = StoreConfig {
        flows: Retention { age: age(96), bytes: None },
        rollups: RollupAges { minutes: age(minutes), hours: age(4_800) },
        ..StoreConfig::new(dir, Role::Appliance)
    };
    let store = Store::open(config).await.unwrap().0;
    store.flows.append(rows()).await.unwrap();
    maintain(&store, START + 3 * DAY).await;
    assert_eq!(store.catalog.rollups().await.unwrap().iter().filter(|file| file.width == HOUR).count(), 2);
    store
}

/// Until nothing is left to be made.
pub(crate) async fn maintain(store: &Store, now: i64) {
    // Each makes one roll-up.
    for _ in 0..60 {
        store.maintain(now).await.unwrap();
    }
}

async fn erase(store: &Store, filter: &str, range: Range, now: i64) -> Erasure {
    let request = ErasureRequest { from: range.from, to: range.to, ..request(filter) };
    let id = store.begin_erasure(&request, now).await.unwrap();
    store.continue_erasures(&|| now).await.unwrap();
    store.erasures().await.unwrap().into_iter().find(|erasure| erasure.id == id).unwrap()
}

#[tokio::test]
async fn roll_ups_are_made_again_from_the_rows_that_are_left() {
    let dir = tempfile::tempdir().unwrap();
    let now = START + 3 * DAY;
    let store = open(dir.path(), 4_800).await;
    // Nothing that a roll-up knows of.
    let range = Range { from: START + 5 * HOUR + 15 * MINUTE, to: START + 8 * HOUR };
    let erasure = erase(&store, "client_ip == 10.0.0.0", range, now).await;
    assert_eq!((erasure.counts.flows, erasure.counts.minutes_unchecked, erasure.counts.rollup_rows), (16, 0, 0));
    for _ in 0..2 {
        assert_eq!((count(&store, "shop", ALL).await, count(&store, "bank", ALL).await), (272, 288));
        assert_eq!((count(&store, "shop", range).await, count(&store, "bank", range).await), (0, 16));
        maintain(&store, now).await;
    }
    let rollups = store.catalog.rollups().await.unwrap();
    assert_eq!(rollups.len(), 50, "all are there again");
    assert!(rollups.iter().filter(|file| file.width == MINUTE).all(|file| file.day.is_some()));
}

/// Minutes whose file is deleted, and whose rows are there: they are made again, and go again.
#[tokio::test]
async fn a_day_whose_minutes_are_deleted_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let now = START + 3 * DAY;
    let store = open(dir.path(), 1).await;
    assert!(store.catalog.rollups().await.unwrap().iter().filter(|file| file.gone).count() >= 24);
    let erasure = erase(&store, "client_ip == 10.0.0.0", Range { to: START + HOUR, ..ALL }, now).await;
    assert_eq!((erasure.counts.flows, erasure.counts.minutes_unchecked), (6, 0));
    for _ in 0..2 {
        assert_eq!((count(&store, "shop", ALL).await, count(&store, "bank", ALL).await), (282, 288));
        maintain(&store, now).await;
    }
    assert_eq!(store.catalog.rollups().await.unwrap().iter().filter(|file| file.width == HOUR).count(), 2);
}

#[tokio::test]
async fn where_rows_are_gone_what_can_be_decided_is() {
    for minutes in [4_800, 1] {
        let dir = tempfile::tempdir().unwrap();
        let now = START + 20 * DAY;
        let store = open(dir.path(), minutes).await;
        maintain(&store, now).await;
        assert_eq!((count(&store, "shop", ALL).await, count(&store, "bank", ALL).await), (288, 288));
        let hour = Range { from: START + 5 * HOUR, to: START + 6 * HOUR };
        let erasure = erase(&store, "client_workload == shop", hour, now).await;
        assert_eq!(erasure.counts.flows, 0);
        assert!(erasure.counts.rollup_rows > 0, "{erasure:?}");
        assert_eq!((count(&store, "shop", ALL).await, count(&store, "bank", ALL).await), (282, 288));
        // Its flows are in the roll-up that is left, too.
        assert_eq!(store.completeness(ALL.from, ALL.to, true).await.unwrap().retired.flow_rows, 0);
        // The hour before may have flows that reach into this one, for all that its sum tells.
        assert_eq!(erasure.counts.minutes_unchecked, 60);
        let left = erase(&store, "client_workload == shop", Range { from: START - DAY, ..ALL }, now).await;
        assert_eq!(left.counts.minutes_unchecked, 0);
        assert_eq!((count(&store, "shop", ALL).await, count(&store, "bank", ALL).await), (0, 288));
        store.close().await.unwrap();
        drop(store);
        let store = Store::open(StoreConfig::new(dir.path(), Role::Appliance)).await.unwrap().0;
        assert_eq!((count(&store, "shop", ALL).await, count(&store, "bank", ALL).await), (0, 288));
    }
}

#[tokio::test]
async fn where_rows_are_gone_what_cannot_be_decided_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let now = START + 20 * DAY;
    let store = open(dir.path(), 4_800).await;
    maintain(&store, now).await;
    let erasure = erase(&store, "client_ip == 10.0.0.0", Range { from: START, to: START + 2 * HOUR }, now).await;
    assert_eq!((erasure.counts.rollup_rows, erasure.counts.minutes_unchecked), (0, 120));
    assert_eq!((count(&store, "shop", ALL).await, count(&store, "bank", ALL).await), (288, 288));
}

/// Half of a day's rows are gone: the day cannot be made again, and no row is counted twice, or a second time less.
#[tokio::test]
async fn a_day_that_is_partly_gone_counts_once() {
    for (filter, left) in [("client_workload == shop", 0), ("client_ip == 10.0.0.0", 144)] {
        let dir = tempfile::tempdir().unwrap();
        let now = START + 4 * DAY + 12 * HOUR;
        let store = open(dir.path(), 4_800).await;
        store.maintain(now).await.unwrap();
        let day = Range { from: START, to: START + DAY };
        assert_eq!(count(&store, "shop", day).await, 144);
        let erasure = erase(&store, filter, Range { from: START - DAY, to: START + DAY }, now).await;
        assert_eq!(erasure.counts.flows, 72);
        assert_eq!(erasure.counts.minutes_unchecked > 0, left > 0, "{erasure:?}");
        for _ in 0..2 {
            assert_eq!((count(&store, "shop", day).await, count(&store, "bank", day).await), (left, 144), "{filter}");
            maintain(&store, now).await;
        }
    }
}
