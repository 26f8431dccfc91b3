//! Totals that are made in parts, of roll-ups, or for those who may not see every row.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use wiretag_capture::FlowRecord;
use wiretag_enrich::TaggedFlow;
use wiretag_store::limits::DEFAULT_MEMORY;
use wiretag_store::query::{self, Query};
use wiretag_store::tables::{AggregateRequest, ExplainRequest, Range};
use wiretag_store::{Retention, Role, Store, StoreConfig};

use crate::erase_rollups::maintain;
use crate::rows::{START, flow};

const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

fn at(number: u64, start: i64) -> TaggedFlow {
    let mut row = flow(number);
    (row.record.start, row.record.end) = (start, start + SECOND);
    row.record.client.ip = std::net::Ipv4Addr::from(0x0a00_0000 + number as u32).into();
    row
}

fn request(text: &str, range: Range) -> AggregateRequest<FlowRecord> {
    let statement = query::parse_statement::<FlowRecord>(text, START).unwrap();
    let (filter, aggregate) = (statement.filter, statement.aggregate.unwrap());
    AggregateRequest { filter, aggregate, range, all_observations: true, compare: false, memory: DEFAULT_MEMORY }
}

async fn store(dir: &std::path::Path) -> Store {
    Store::open(StoreConfig::new(dir, Role::Appliance)).await.unwrap().0
}

/// Groups that do not fit at once are looked at in parts, and each is in one part with what it is compared with.
#[tokio::test(flavor = "multi_thread")]
async fn a_period_is_compared_whole_however_little_memory_there_is() {
    const CLIENTS: u64 = 12_000;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let of = |number: u64| {
        let seen = (number % 7 + 1, number % 5 + 1);
        let hour = move |hour: i64, times: u64| (0..times).map(move |_| at(number, START + hour * HOUR + 5 * MINUTE));
        hour(0, seen.0).chain(hour(1, seen.1)).collect::<Vec<_>>()
    };
    let mut rows: Vec<TaggedFlow> = (0..CLIENTS).flat_map(of).collect();
    for (number, row) in rows.iter_mut().enumerate() {
        row.record.flow_id = number as u64;
    }
    store.flows.append(rows).await.unwrap();
    store.flush().await.unwrap();
    let second = Range { from: START + HOUR, to: START + 2 * HOUR };
    for text in ["| top 9 client_ip, 10m by count", "| top 9 client_ip by count"] {
        let whole = AggregateRequest { compare: true, ..request(text, second) };
        let whole = store.flows.aggregate(&whole).await.unwrap();
        let parts = AggregateRequest { compare: true, memory: 1 << 20, ..request(text, second) };
        let parts = store.flows.aggregate(&parts).await.unwrap();
        assert_eq!((&parts.rows, parts.groups, parts.served_by.rows), (&whole.rows, CLIENTS, whole.served_by.rows));
        assert!(whole.rows.iter().all(|row| row.get("previous_count").as_u64() > Some(0)), "{:?}", whole.rows);
    }
}

/// A chart of a time of which only roll-ups are left, and that begins within a minute as charts do.
#[tokio::test(flavor = "multi_thread")]
async fn a_histogram_is_made_of_roll_ups() {
    let dir = tempfile::tempdir().unwrap();
    let age = Retention { age: Some(Duration::from_hours(48)), bytes: None };
    let config = StoreConfig { flows: age, ..StoreConfig::new(dir.path(), Role::Appliance) };
    let store = Store::open(config).await.unwrap().0;
    let hours = 0..6;
    store
        .flows
        .append(hours.clone().map(|hour| at(hour as u64, START + hour * HOUR + 30 * MINUTE)).collect())
        .await
        .unwrap();
    let range = Range { from: START + 17 * SECOND + 5, to: START + 6 * HOUR + 17 * SECOND + 5 };
    let ask = async || store.flows.histogram(&Query::everything(), range, 6, false).await.unwrap();
    let rows = ask().await;
    for days in [1, 5] {
        maintain(&store, START + days * 24 * HOUR).await;
        let told = ask().await;
        assert_eq!(told.buckets, rows.buckets, "after {days} days");
        assert!(told.served_by.rollups > 0 && told.served_by.rollable, "after {days} days: {:?}", told.served_by);
    }
    assert_eq!(
        store.flows.aggregate(&request("| count by client_ip", range)).await.unwrap().groups,
        0,
        "no rows are left"
    );
    let flows: Vec<u64> = rows.buckets.iter().map(|bucket| bucket.flows).collect();
    assert_eq!(flows.iter().sum::<u64>(), 6, "{flows:?}");
    assert_eq!(rows.buckets[0].start, START, "a whole minute");
    let short = Range { to: range.from + 60 * SECOND, ..range };
    let short = store.flows.histogram(&Query::everything(), short, 60, false).await.unwrap();
    assert_eq!((short.buckets.len(), short.buckets[0].start), (60, range.from), "seconds are as they were asked for");
    let long = Range { from: START + 17 * MINUTE, to: START + 17 * MINUTE + 7 * 24 * HOUR };
    let long = store.flows.histogram(&Query::everything(), long, 60, false).await.unwrap();
    let lengths: Vec<i64> = long.buckets.windows(2).map(|pair| pair[1].start - pair[0].start).collect();
    assert_eq!((long.buckets[0].start, lengths), (START, vec![3 * HOUR; 56]), "whole hours");
}

/// A rate is of the time since the first row; whose rows are not all rows is not told when others began.
#[tokio::test]
async fn rates_tell_nothing_of_rows_that_are_not_ones_own() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    store.flows.append(vec![at(1, START + 30 * MINUTE), at(2, START + 45 * MINUTE)]).await.unwrap();
    let range = Range { from: START, to: START + HOUR };
    let rate = async |request: AggregateRequest<FlowRecord>| {
        store.flows.aggregate(&request).await.unwrap().rows[0].get("rate")
    };
    let all = request("| rate", range);
    assert_eq!(rate(all.clone()).await, 2.0 / 1_800.0);
    let own = query::parse("client_ip == 10.0.0.2").unwrap();
    let restricted = AggregateRequest { filter: all.filter.clone().within(&own), ..all };
    assert_eq!(rate(restricted).await, 1.0 / 3_600.0);
}

/// What every search asks of a file is read once: by the first one after a start, or before it.
#[tokio::test]
async fn what_is_known_of_files_is_not_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let table = store(dir.path()).await;
    for hour in 0..3 {
        table.flows.append(vec![at(hour, START + hour as i64 * HOUR)]).await.unwrap();
        table.flush().await.unwrap();
    }
    drop(table);
    let question = ExplainRequest {
        statement: query::parse_statement("server_port == 9", START).unwrap(),
        range: Range { from: START, to: START + 3 * HOUR },
        all_observations: false,
        limit: 10,
        after: None,
        memory: DEFAULT_MEMORY,
    };
    for warm in [false, true] {
        let table = store(dir.path()).await;
        if warm {
            table.flows.warm().await.unwrap();
        }
        let ask = async || {
            let told = table.flows.explain(&question).await.unwrap();
            assert_eq!((told.work.files_opened, told.work.row_groups_pruned), (3, 3), "{told:?}");
            told.work.bytes_read
        };
        assert_eq!((ask().await > 0, ask().await), (!warm, 0), "warm: {warm}");
    }
}
