//! Roll-ups where something is short: the time before rows go, or memory for all groups at once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops where it fails")]

use std::path::Path;
use std::time::Duration;

use wiretag_enrich::TaggedFlow;
use wiretag_store::limits::LimitReached;
use wiretag_store::tables::{AggregateRequest, Range};
use wiretag_store::{Retention, Role, RollupAges, Store, StoreConfig, StoreError};

use crate::erase_rollups::maintain;
use crate::rollups::{ask, damage, open, parquet_files, regular, request};
use crate::rows::{START, flow};

const MINUTE: i64 = 60_000_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// Ports that somebody tries within an hour.
const PORTS: u64 = 20_000;
/// Memory that is not enough for all of them at once, bytes.
const LITTLE: usize = 4 << 20;

/// Flows are kept for four days.
fn four_days(dir: &Path) -> StoreConfig {
    let flows = Retention { age: Some(Duration::from_hours(96)), bytes: None };
    StoreConfig { flows, ..StoreConfig::new(dir, Role::Appliance) }
}

/// What comes to an hour later is no part of its roll-up, nor of that of its day.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_go_before_they_are_added_up_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(four_days(dir.path())).await.unwrap().0;
    store.flows.append(regular()).await.unwrap();
    maintain(&store, START + 3 * DAY).await;
    let late = (0..3).map(|number| {
        let mut row = regular().remove(60);
        row.record.flow_id = 1_000_000 + number;
        row
    });
    store.flows.append(late.collect()).await.unwrap();
    let count = async |range: Range| {
        let answer = ask(&store.flows, "| count", range, false).await;
        let retired = async |rollable| store.completeness(range.from, range.to, rollable).await.unwrap().retired;
        let count = answer.rows.first().and_then(|row| row.get("count").as_u64());
        (count, retired(true).await.flow_rows, retired(false).await.flow_rows)
    };
    let all = Range { from: START, to: START + 2 * DAY };
    assert_eq!(count(all).await, (Some(291), 0, 0));
    // Retention is before roll-ups.
    store.maintain(START + 8 * DAY).await.unwrap();
    assert_eq!(count(all).await, (Some(288), 3, 291));
    let hour = |number: i64| Range { from: START + number * HOUR, to: START + (number + 1) * HOUR };
    assert_eq!(count(hour(10)).await, (Some(6), 3, 9));
    assert_eq!(count(hour(11)).await, (Some(6), 0, 6));
    // So is whoever only reads.
    store.close().await.unwrap();
    let reader = Store::open_read_only(dir.path()).await.unwrap();
    assert_eq!(reader.completeness(all.from, all.to, true).await.unwrap().retired.flow_rows, 3);
}

/// A flow to each port.
fn scan() -> Vec<TaggedFlow> {
    (0..PORTS)
        .map(|port| {
            let mut row = flow(port + 1);
            row.record.start = START + (port % 60) as i64 * MINUTE;
            row.record.end = row.record.start;
            row.record.server.port = Some(port as u16);
            row.record.server.rtt_us = (port % 3 == 0).then_some(port as u32);
            row
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_in_memory_at_once_is_rolled_up_in_parts() {
    const BY_MINUTE: &str = "| count, sum(client_packets), sum(server_packets), sum(client_bytes), sum(server_bytes), \
        sum(client_payload_bytes), sum(server_payload_bytes), sum(client_retransmits), sum(server_retransmits), \
        sum(client_resets), sum(server_resets), p95(server_rtt_us) by server_port, 1m";
    const BY_PORT: &str = "| count, sum(client_bytes), p95(server_rtt_us) by server_port";
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    store.append(scan()).await.unwrap();
    store.flush().await.unwrap();
    let day = Range { from: START, to: START + DAY };
    let (by_minute, by_port) = (ask(&store, BY_MINUTE, day, false).await, ask(&store, BY_PORT, day, false).await);
    assert_eq!((by_minute.groups, by_port.groups), (PORTS, PORTS));
    let little = AggregateRequest { memory: LITTLE, ..request(BY_MINUTE, day, false) };
    let error = store.aggregate(&little).await.unwrap_err();
    assert!(matches!(error, StoreError::Limit(LimitReached::Memory { mib: 4 })), "{error}");
    // The hour, then its day, a part a turn.
    let mut turns = 0;
    while store.roll_up_within(START + 2 * DAY, LITTLE).await.unwrap() > 0 {
        turns += 1;
        assert_eq!(ask(&store, "| count", day, false).await.rows[0].get("count"), PORTS);
    }
    let counters = store.counters();
    assert_eq!((counters.rollups, counters.rollup_rows, counters.failed_rollups), (2, 2 * PORTS, 0));
    assert!(turns >= 4, "{turns}");
    for (text, before) in [(BY_MINUTE, by_minute), (BY_PORT, by_port)] {
        let after = ask(&store, text, day, false).await;
        assert_eq!(after.rows, before.rows, "{text}");
        assert_eq!((after.served_by.files, after.served_by.rollups), (0, 1), "{text}");
    }
    assert_eq!(parquet_files(&dir.path().join("rollups")), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_takes_meanwhile_is_not_brought_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(four_days(dir.path())).await.unwrap().0;
    store.flows.append(scan()).await.unwrap();
    store.flush().await.unwrap();
    let part = store.flows.roll_up_within(START + 2 * DAY, LITTLE).await.unwrap();
    assert!(part > 0 && part < PORTS, "{part}");
    assert_eq!(parquet_files(&dir.path().join("rollups")), 1);
    // The file of rows is still there for a while.
    for turn in 0..80 {
        store.maintain(START + 8 * DAY + turn * MINUTE).await.unwrap();
        assert!(store.catalog.rollups().await.unwrap().is_empty());
    }
    assert_eq!(parquet_files(&dir.path().join("rollups")), 0);
    assert_eq!(store.completeness(START, START + DAY, true).await.unwrap().retired.flow_rows, PORTS);
}

/// No setting would help.
#[tokio::test(flavor = "multi_thread")]
async fn a_roll_up_without_memory_says_so_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    store.append(regular()).await.unwrap();
    store.flush().await.unwrap();
    let error = loop {
        // A part may have nothing.
        if let Err(error) = store.roll_up_within(START + 2 * HOUR, 1).await {
            break error.to_string();
        }
    };
    assert!(error.contains("a roll-up of this time needs more than 0 MiB of memory"), "{error}");
    assert!(!error.contains("queries.mib"), "{error}");
    assert_eq!(parquet_files(&dir.path().join("rollups")), 0);
    assert_eq!(store.roll_up(START + 2 * HOUR).await.unwrap(), 0, "it is not tried again");
    assert!(store.roll_up(START + 3 * HOUR).await.unwrap() > 0, "other hours are");
}

/// One of the hours cannot be read, and so nothing is made of its day: what there is of it goes when the day would.
#[tokio::test(flavor = "multi_thread")]
async fn minutes_without_a_day_go_with_the_days() {
    let dir = tempfile::tempdir().unwrap();
    let age = |hours: u64| Some(Duration::from_hours(hours));
    let rollups = RollupAges { minutes: age(240), hours: age(480) };
    let store = Store::open(StoreConfig { rollups, ..four_days(dir.path()) }).await.unwrap().0;
    store.flows.append(regular()).await.unwrap();
    maintain(&store, START + DAY).await;
    damage(&dir.path().join("rollups/1m/date=2026-03-01/hour=07"));
    maintain(&store, START + 3 * DAY).await;
    let days = async || {
        let all = store.catalog.rollups().await.unwrap();
        let of = |from: i64| all.iter().filter(|file| (from..from + DAY).contains(&file.start)).count();
        (of(START), of(START + DAY))
    };
    assert_eq!(days().await, (24, 25), "the second day has a roll-up by hour");
    store.maintain(START + 21 * DAY).await.unwrap();
    assert_eq!(days().await, (24, 25));
    for later in [21 * DAY + HOUR, 21 * DAY + 2 * HOUR] {
        store.maintain(START + later).await.unwrap();
        assert_eq!(days().await, (0, 25));
    }
    assert_eq!(parquet_files(&dir.path().join("rollups/1m/date=2026-03-01")), 0);
}
