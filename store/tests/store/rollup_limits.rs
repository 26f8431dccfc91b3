//! Roll-ups where something is short: the time before rows go, or memory for all groups at once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops where it fails")]

use std::path::Path;
use std::time::Duration;

use wiretag_store::tables::Range;
use wiretag_store::{Retention, Role, Store, StoreConfig};

use crate::erase_rollups::maintain;
use crate::rollups::{ask, regular};
use crate::rows::START;

const HOUR: i64 = 3_600_000_000_000;
const DAY: i64 = 24 * HOUR;

fn age(hours: u64) -> Option<Duration> {
    Some(Duration::from_hours(hours))
}

/// Flows are kept for four days.
fn four_days(dir: &Path) -> StoreConfig {
    StoreConfig { flows: Retention { age: age(96), bytes: None }, ..StoreConfig::new(dir, Role::Appliance) }
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
