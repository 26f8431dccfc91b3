//! Accounts of what was lost.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use wiretag_store::{Loss, Retention, Role, RollupAges, Store, StoreConfig};

use super::suite::World;
use crate::rows::{START, flow};

pub(super) async fn add_up_by_node(world: &World) {
    let (_dir, catalog) = world.begun().await;
    assert_eq!(catalog.accounted_until().await.unwrap(), None);
    for (node, from) in [("a", 0), ("a", 10), ("b", 10), ("a", 20)] {
        let (packets, kernel_drops, unwritten, flow_rows) = (100, 1, 2, 3);
        let loss = Loss { packets, kernel_drops, unwritten, flow_rows, ..Loss::default() };
        let loss = Loss { node: node.into(), from, to: from + 10, ..loss };
        catalog.add_loss(&loss).await.unwrap();
    }
    let found = catalog.loss(5, 20).await.unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].packets, found[0].kernel_drops, found[0].from, found[0].to), (200, 1 + 1, 0, 20));
    assert_eq!((found[0].unwritten, found[0].flow_rows, found[0].transaction_rows), (4, 6, 0));
    assert!(!found[0].is_complete() && Loss { refused: 1, ..Loss::default() }.is_complete());
    let complete = Loss { node: "z".into(), from: 0, to: 10, packets: 5, ..Loss::default() };
    catalog.add_loss(&complete).await.unwrap();
    let killed = Loss { from: 10, to: 30, packets: 0, interruptions: 1, ..complete };
    catalog.add_loss(&killed).await.unwrap();
    let found = catalog.loss(0, 100).await.unwrap().pop().unwrap();
    assert_eq!((found.node.as_str(), found.interruptions, found.is_complete()), ("z", 1, false));
    assert_eq!((found.from, found.to), (0, 10), "nobody knows when it was killed");
    assert!(catalog.loss(0, 10).await.unwrap().pop().unwrap().is_complete());

    let away = Loss { node: "z".into(), from: 30, to: 130, not_captured: 100, ..Loss::default() };
    catalog.add_loss(&away).await.unwrap();
    assert_eq!(catalog.accounted_until().await.unwrap(), Some(130));
    for (range, not_captured) in [((50, 60), 10), ((0, 40), 10), ((120, 500), 10), ((i64::MIN, i64::MAX), 100)] {
        let found = catalog.loss(range.0, range.1).await.unwrap().pop().unwrap();
        assert_eq!((found.not_captured, found.is_complete()), (not_captured, false), "{range:?}");
    }
    let found = catalog.loss(0, 500).await.unwrap().pop().unwrap();
    assert_eq!((found.from, found.to), (0, 10), "nobody captured afterwards");
    assert!(catalog.loss(130, 500).await.unwrap().is_empty());
}

/// What was lost is told for as long as a roll-up answers about its time, hour by hour; an account of nothing lost goes with the rows.
pub(super) async fn stay_with_what_answers(world: &World) {
    const SECOND: i64 = 1_000_000_000;
    const MINUTE: i64 = 60 * SECOND;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig {
        catalog: world.server.clone(),
        flows: Retention { age: Some(Duration::from_hours(1)), bytes: None },
        rollups: RollupAges { minutes: None, hours: Some(Duration::from_hours(5 * 24)) },
        ..StoreConfig::new(dir.path(), Role::Appliance)
    };
    let store = Store::open(config).await.unwrap().0;
    let at = |time: i64| {
        let mut row = flow(1 + time.cast_unsigned());
        (row.record.start, row.record.end) = (START + time, START + time + SECOND);
        row
    };
    store.flows.append(vec![at(0), at(30 * HOUR)]).await.unwrap();
    store.flush().await.unwrap();
    while store.flows.roll_up(START + 3 * DAY).await.unwrap() > 0 {}
    assert_eq!(store.catalog.rollups().await.unwrap().len(), 4, "two hours, each with its day");
    for (second, kernel_drops) in [(0, 3), (10, 0), (20, 4), (30 * 3_600, 0)] {
        let (from, to) = (START + second * SECOND, START + (second + 10) * SECOND);
        let account = Loss { node: "a".into(), from, to, packets: 100, kernel_drops, ..Loss::default() };
        store.catalog.add_loss(&account).await.unwrap();
        if second == 20 {
            // Twice killed, and away for half an hour in all.
            for (from, to) in [(60, 70), (80, 90)].map(|(from, to)| (START + from * SECOND, START + to * SECOND)) {
                let killed = Loss { node: "a".into(), from, to, interruptions: 1, ..Loss::default() };
                store.catalog.add_loss(&killed).await.unwrap();
            }
            for (from, to) in [(60, 70), (90, 110)].map(|(from, to)| (START + from * MINUTE, START + to * MINUTE)) {
                let not_captured = (to - from).cast_unsigned();
                let away = Loss { node: "a".into(), from, to, not_captured, ..Loss::default() };
                store.catalog.add_loss(&away).await.unwrap();
            }
        }
    }
    // The second time there is nothing to add up.
    for retired in [1, 0] {
        let done = store.maintain(START + 30 * HOUR + HOUR / 2).await.unwrap();
        assert_eq!((done.retired.flow_files, done.flows.files), (retired, 1));
        let found = store.completeness(START, START + 3 * HOUR, true).await.unwrap().nodes.pop().unwrap();
        assert_eq!((found.packets, found.kernel_drops, found.interruptions), (200, 7, 2));
        assert_eq!(found.not_captured, HOUR.cast_unsigned() / 2);
        assert_eq!((found.from, found.to), (START, START + 30 * SECOND));
        let hour = store.catalog.loss(START + 11 * SECOND, START + 12 * SECOND).await.unwrap();
        assert_eq!(hour[0].kernel_drops, 7, "nobody knows when in the hour");
        assert_eq!(store.catalog.accounted_until().await.unwrap(), Some(START + (30 * 3_600 + 10) * SECOND));
    }
    let now = START + 6 * DAY + HOUR;
    store.flows.append(vec![at(6 * DAY + HOUR / 2)]).await.unwrap();
    store.maintain(now).await.unwrap();
    assert_eq!(store.catalog.rollups().await.unwrap()[0].start, START + DAY, "the first day is gone");
    assert!(store.catalog.loss(i64::MIN, i64::MAX).await.unwrap().is_empty());
    store.close().await.unwrap();
}
