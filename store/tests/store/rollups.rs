//! Roll-ups from outside: whatever is rolled up, merged, late, or gone, answers are those of the rows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::rows::{START, flow};
use proptest::prelude::*;
use wiretag_capture::FlowRecord;
use wiretag_enrich::{EndTag, Identity, TaggedBy, TaggedFlow};
use wiretag_store::catalog::Catalog;
use wiretag_store::limits::DEFAULT_MEMORY;
use wiretag_store::query;
use wiretag_store::tables::{
    AggregateAnswer, AggregateRequest, Engine, ExplainRequest, FlowStore, Missing, Range, SearchOptions,
};
use wiretag_store::{Retention, Role, RollupAges, Store, StoreConfig};

const MINUTE: i64 = 60_000_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// Hours that the rows of these tests are in.
const HOURS: i64 = 50;
/// When all these are past.
const LATER: i64 = START + 10 * DAY;

/// What roll-ups can answer.
const QUESTIONS: &[&str] = &[
    "| count",
    "| top 3 workload by bytes, count",
    "| sum(client_bytes), avg(server_bytes), count by client_workload, server_workload, server_port",
    "server_port == 443 | p50(server_rtt_us), p99(server_rtt_us) by server_workload, 1h",
    "client_workload == a* or server_workload not exists | count, sum(bytes) by 1m",
    "not (protocol == udp) and tagged_by == none | sum(retransmits) by 30m",
    "| p95(client_rtt_us), max(server_rtt_us) by server_workload",
    "pod exists | count by 1h",
    "| rate(bytes), rate by 1h",
];

fn named(workload: Option<&str>) -> EndTag {
    let Some(workload) = workload else { return EndTag::NONE };
    let name = || Some(Arc::from(workload));
    let identity = Identity { identity: workload.into(), workload: name(), pod: name(), ..Identity::default() };
    EndTag { identity: Some(Arc::new(identity)), tagged_by: TaggedBy::Ip, translated: None }
}

fn workloads() -> impl Strategy<Value = Option<&'static str>> {
    prop::sample::select(vec![None, Some("api"), Some("auth"), Some("db")])
}

prop_compose! {
    fn talk()(
        minute in 0..HOURS * 60, second in 0..60_i64, ends in (workloads(), workloads()), tls in any::<bool>(),
        bytes in 0..100_000_u64, rtt in prop::option::of(0..50_000_u32), primary in prop::bool::weighted(0.8),
    ) -> TaggedFlow {
        let mut row = flow(0);
        row.record.start = START + minute * MINUTE + second * 1_000_000_000;
        row.record.end = row.record.start + 5_000_000_000;
        row.record.primary = primary;
        row.record.server.port = Some(if tls { 443 } else { 80 });
        (row.record.client.bytes, row.record.server.bytes) = (bytes, bytes / 2);
        row.record.server.rtt_us = rtt;
        (row.client, row.server) = (named(ends.0), named(ends.1));
        row
    }
}

/// Minutes of `HOURS`: whole hours, whole minutes, and neither.
fn ranges() -> impl Strategy<Value = Range> {
    let whole = (0..HOURS, 1..HOURS).prop_map(|(from, length)| (from * HOUR, length * HOUR));
    let minutes = (0..HOURS * 60, 1..HOURS * 60).prop_map(|(from, length)| (from * MINUTE, length * MINUTE));
    let odd = (0..HOURS * HOUR, 1..HOURS * HOUR);
    let all = Just((-HOUR, 2 * HOURS * HOUR));
    prop_oneof![whole, minutes, odd, all]
        .prop_map(|(from, length)| Range { from: START + from, to: START + from + length })
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<TaggedFlow>),
    Flush,
    Merge,
    RollUp,
    Reopen,
    Ask(usize, Range, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ask = (0..QUESTIONS.len(), ranges(), any::<bool>())
        .prop_map(|(number, range, compare)| Step::Ask(number, range, compare));
    let step = prop_oneof![
        3 => prop::collection::vec(talk(), 1..80).prop_map(Step::Append),
        3 => Just(Step::Flush),
        1 => Just(Step::Merge),
        4 => Just(Step::RollUp),
        1 => Just(Step::Reopen),
        6 => ask,
    ];
    prop::collection::vec(step, 10..40)
}

pub(crate) async fn open(dir: &Path) -> FlowStore {
    let engine = Engine::open(dir).unwrap();
    let catalog = Catalog::open(&dir.join("catalog.sqlite")).await.unwrap();
    FlowStore::open(&engine, catalog).await.unwrap().0
}

pub(crate) fn request(text: &str, range: Range, compare: bool) -> AggregateRequest<FlowRecord> {
    let statement = query::parse_statement::<FlowRecord>(text, START).unwrap_or_else(|error| panic!("{error}"));
    AggregateRequest {
        filter: statement.filter,
        aggregate: statement.aggregate.expect("an aggregation"),
        range,
        all_observations: false,
        compare,
        memory: DEFAULT_MEMORY,
    }
}

pub(crate) async fn ask(store: &FlowStore, text: &str, range: Range, compare: bool) -> AggregateAnswer {
    store.aggregate(&request(text, range, compare)).await.unwrap()
}

async fn run(steps: Vec<Step>) {
    let (rolled_dir, plain_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut rolled, plain) = (open(rolled_dir.path()).await, open(plain_dir.path()).await);
    let mut number = 0;
    for step in steps {
        match step {
            Step::Append(mut rows) => {
                for row in &mut rows {
                    number += 1;
                    row.record.flow_id = number;
                }
                rolled.append(rows.clone()).await.unwrap();
                plain.append(rows).await.unwrap();
            }
            Step::Flush => drop(rolled.flush().await.unwrap()),
            Step::Merge => drop(rolled.compact(LATER).await.unwrap()),
            Step::RollUp => while rolled.roll_up(LATER).await.unwrap() > 0 {},
            Step::Reopen => {
                rolled.flush().await.unwrap();
                drop(rolled);
                rolled = open(rolled_dir.path()).await;
            }
            Step::Ask(question, range, compare) => {
                let text = QUESTIONS[question];
                let (told, expected) =
                    (ask(&rolled, text, range, compare).await, ask(&plain, text, range, compare).await);
                assert_eq!(told.rows, expected.rows, "{text} {range:?}");
                assert_eq!((told.groups, told.served_by.resolution), (expected.groups, None), "{text}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn answers_are_those_of_the_rows(steps in steps()) {
        tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(run(steps));
    }
}

/// One flow each ten minutes.
pub(crate) fn regular() -> Vec<TaggedFlow> {
    (0..HOURS * 6)
        .map(|number| {
            let mut row = flow(number as u64 + 1);
            row.record.start = START + number * 10 * MINUTE + 30_000_000_000;
            row.record.end = row.record.start;
            row.record.server.rtt_us = Some(100 + number as u32);
            (row.client, row.server) = (named(Some("web")), named(Some("db")));
            row
        })
        .collect()
}

const SUMMARY: &str = "| count, sum(bytes), p95(server_rtt_us) by client_workload";

#[tokio::test(flavor = "multi_thread")]
async fn roll_ups_serve_whole_hours_and_rows_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    store.append(regular()).await.unwrap();
    store.flush().await.unwrap();
    let range = Range { from: START + 90 * MINUTE + 1, to: START + 30 * HOUR };
    let before = ask(&store, SUMMARY, range, false).await;
    // Of the hour that is not past long enough nothing is made.
    assert_eq!(store.roll_up(START + HOUR).await.unwrap(), 0);
    while store.roll_up(LATER).await.unwrap() > 0 {}
    let after = ask(&store, SUMMARY, range, false).await;
    assert_eq!(after.rows, before.rows);
    // The hour that begins at odd times is read, 22 hours follow by minute, and six of the next day.
    assert_eq!((after.served_by.files, after.served_by.rollups), (1, 28));
    let day = Range { from: START, to: START + DAY };
    let whole = ask(&store, SUMMARY, day, false).await;
    assert_eq!((whole.served_by.files, whole.served_by.rollups), (0, 1), "a day is one file");
    assert_eq!(whole.rows[0].get("count"), 144);
    let raw = ask(&store, "pod exists | count", day, false).await;
    assert_eq!((raw.served_by.files, raw.served_by.rollups), (24, 0), "pods are not in roll-ups");
    assert_eq!(store.compact(LATER).await.unwrap(), 0, "what is rolled up is not merged any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn roll_ups_outlive_the_rows() {
    let dir = tempfile::tempdir().unwrap();
    let age = |hours: u64| Some(Duration::from_hours(hours));
    let config = StoreConfig {
        flows: Retention { age: age(96), bytes: None },
        rollups: RollupAges { minutes: age(240), hours: age(480) },
        ..StoreConfig::new(dir.path(), Role::Appliance)
    };
    let store = Store::open(config.clone()).await.unwrap().0;
    store.flows.append(regular()).await.unwrap();
    let maintain = |store: Store, now: i64| async move {
        // Each makes one roll-up.
        for _ in 0..60 {
            store.maintain(now).await.unwrap();
        }
        store
    };
    let store = maintain(store, START + 3 * DAY).await;
    let (all, odd) = (Range { from: START, to: START + 2 * DAY }, Range { from: START + 1, to: START + 2 * DAY });
    let whole = ask(&store.flows, SUMMARY, all, false).await;
    assert_eq!(whole.rows[0].get("count"), 288);

    let store = maintain(store, START + 8 * DAY).await;
    assert_eq!(
        store.flows.search(&query::parse("").unwrap(), all, SearchOptions::default()).await.unwrap().rows.len(),
        0
    );
    let left = ask(&store.flows, SUMMARY, all, false).await;
    assert_eq!((&left.rows, left.served_by.resolution, left.served_by.rollable), (&whole.rows, None, true));
    // What roll-ups cannot answer is told to be gone.
    let gone = ask(&store.flows, "| count by client_ip", all, false).await;
    assert_eq!((gone.groups, gone.served_by.rollable), (0, false));
    let retired =
        async |range: Range, rollable| store.completeness(range.from, range.to, rollable).await.unwrap().retired;
    assert_eq!((retired(all, false).await.flow_rows, retired(all, true).await.flow_rows), (288, 0));
    let hours = Range { from: START + HOUR - 1, to: START + 2 * HOUR + 1 };
    assert_eq!(retired(hours, false).await.flow_rows, 18, "three hours are touched");
    // Begins within a minute, of which only the whole is known: it is left out.
    let left = ask(&store.flows, SUMMARY, odd, false).await;
    assert_eq!((left.rows[0].get("count").as_u64(), left.served_by.resolution), (Some(287), Some(MINUTE)));
    // A rate is of the time that counts.
    let cut = Range { from: START + 1, to: START + 90 * MINUTE + 1 };
    let rates = ask(&store.flows, "| count, rate", cut, false).await;
    assert_eq!((rates.rows[0].get("count"), rates.rows[0].get("rate")), (9.into(), (9.0 / 5_400.0).into()));
    let hours = ask(&store.flows, "| rate by 1h", cut, false).await;
    assert_eq!(hours.rows[0].get("rate"), 5.0 / 3_540.0);

    let store = maintain(store, START + 12 * DAY + 2 * HOUR).await;
    let left = ask(&store.flows, SUMMARY, Range { to: START + DAY, ..all }, false).await;
    assert_eq!((left.rows[0].get("count").as_u64(), left.served_by.resolution), (Some(144), None));
    let left = ask(&store.flows, SUMMARY, Range { to: START + 90 * MINUTE, ..all }, false).await;
    assert_eq!((left.rows[0].get("count").as_u64(), left.served_by.resolution), (Some(12), Some(HOUR)));
    let rate = ask(&store.flows, "| rate", Range { to: START + 90 * MINUTE, ..all }, false).await;
    assert_eq!(rate.rows[0].get("rate"), 12.0 / 7_200.0);
    // What is known of a minute then is its hour's.
    for text in ["| rate by 1m", "| rate by 10m", "| rate by 1h"] {
        let rates = ask(&store.flows, text, Range { to: START + DAY, ..all }, false).await;
        assert_eq!((rates.groups, rates.rows[0].get("rate")), (24, (6.0 / 3_600.0).into()), "{text}");
    }

    store.close().await.unwrap();
    drop(store);
    let store = maintain(Store::open(config).await.unwrap().0, START + 40 * DAY).await;
    // Files wait a little for those who read them.
    store.maintain(START + 40 * DAY + MINUTE).await.unwrap();
    assert_eq!(ask(&store.flows, SUMMARY, all, false).await.groups, 0);
    assert_eq!(store.completeness(all.from, all.to, true).await.unwrap().retired.flow_rows, 288);
    assert_eq!(parquet_files(&dir.path().join("rollups")), 0);
}

/// Rows are kept for longer than their roll-ups, and one comes late: the name of a file may be used again.
#[tokio::test(flavor = "multi_thread")]
async fn a_roll_up_in_the_place_of_one_that_was_too_old_is_not_taken_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let age = Some(Duration::from_hours(240));
    let rollups = RollupAges { minutes: age, hours: age };
    let config = StoreConfig { rollups, ..StoreConfig::new(dir.path(), Role::Appliance) };
    let store = Store::open(config).await.unwrap().0;
    store.flows.append(regular()).await.unwrap();
    for now in [3 * DAY, 20 * DAY, 20 * DAY + MINUTE] {
        for _ in 0..60 {
            store.maintain(START + now).await.unwrap();
        }
    }
    assert_eq!(parquet_files(&dir.path().join("rollups")), 0);
    let mut late = regular().remove(0);
    late.record.flow_id = 1_000_000;
    store.flows.append(vec![late]).await.unwrap();
    store.flush().await.unwrap();
    let count = async || {
        let day = Range { from: START, to: START + DAY };
        ask(&store.flows, "| count", day, false).await.rows[0].get("count").as_u64()
    };
    assert_eq!(count().await, Some(145));
    while store.flows.roll_up(START + 20 * DAY + MINUTE).await.unwrap() > 0 {
        assert_eq!(count().await, Some(145));
    }
    assert!(parquet_files(&dir.path().join("rollups")) > 0);
}

/// Retention takes files of rows one by one: what is left of a day is not taken for all of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_day_that_is_partly_gone_is_still_whole() {
    let dir = tempfile::tempdir().unwrap();
    let age = |hours: u64| Some(Duration::from_hours(hours));
    let config = StoreConfig {
        flows: Retention { age: age(96), bytes: None },
        rollups: RollupAges { minutes: age(48), hours: age(480) },
        ..StoreConfig::new(dir.path(), Role::Appliance)
    };
    let store = Store::open(config).await.unwrap().0;
    store.flows.append(regular()).await.unwrap();
    for _ in 0..60 {
        store.maintain(START + 3 * DAY).await.unwrap();
    }
    let range = Range { from: START + 90 * MINUTE, to: START + DAY };
    let before = ask(&store.flows, SUMMARY, range, false).await;
    assert_eq!((before.rows[0].get("count").as_u64(), before.served_by.resolution), (Some(135), None));
    store.maintain(START + 4 * DAY + 12 * HOUR).await.unwrap();
    let everything = query::parse("").unwrap();
    let options = wiretag_store::tables::SearchOptions { limit: 1000, ..Default::default() };
    let rows = store.flows.search(&everything, range, options).await.unwrap().rows.len();
    assert_eq!(rows, 72, "those of half the day are left");
    let after = ask(&store.flows, SUMMARY, range, false).await;
    assert_eq!((after.rows[0].get("count").as_u64(), after.served_by.resolution), (Some(132), Some(HOUR)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_taken_from_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    store.append(regular()).await.unwrap();
    store.flush().await.unwrap();
    while store.roll_up(LATER).await.unwrap() > 0 {}
    let day = Range { from: START, to: START + DAY };
    let whole = ask(&store, SUMMARY, day, false).await;
    assert_eq!((whole.served_by.files, whole.served_by.rollups), (0, 1));
    damage(&dir.path().join("rollups/1h"));
    let by_minute = ask(&store, SUMMARY, day, false).await;
    assert_eq!((&by_minute.rows, by_minute.served_by.rollups, by_minute.served_by.files), (&whole.rows, 24, 0));
    damage(&dir.path().join("rollups/1m/date=2026-03-01/hour=07"));
    let one_hour = ask(&store, SUMMARY, day, false).await;
    assert_eq!((&one_hour.rows, one_hour.served_by.rollups, one_hour.served_by.files), (&whole.rows, 23, 1));
    damage(&dir.path().join("rollups/1m"));
    let by_rows = ask(&store, SUMMARY, day, false).await;
    assert_eq!((&by_rows.rows, by_rows.served_by.rollups, by_rows.served_by.files), (&whole.rows, 0, 24));
}

/// Rows that only roll-ups have are missing when these cannot be read, and that is told of answers that need them.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_broken_rollup_has_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let flows = Retention { age: Some(Duration::from_hours(96)), bytes: None };
    let config = StoreConfig { flows, ..StoreConfig::new(dir.path(), Role::Appliance) };
    let store = Store::open(config).await.unwrap().0;
    store.flows.append(regular()).await.unwrap();
    for _ in 0..80 {
        store.maintain(START + 4 * DAY - HOUR).await.unwrap();
    }
    store.maintain(LATER).await.unwrap();
    assert_eq!(store.flows.missing(Range::ALL).await.unwrap(), Missing::default());
    let day = Range { from: START, to: START + DAY };
    let whole = ask(&store.flows, SUMMARY, day, false).await;
    assert_eq!((whole.served_by.files, whole.served_by.rollups), (0, 1));
    let unreadable = async |rollable| store.completeness(day.from, day.to, rollable).await.unwrap().unreadable;
    damage(&dir.path().join("rollups/1h/date=2026-03-01"));
    assert_eq!(ask(&store.flows, SUMMARY, day, false).await.rows, whole.rows, "by the minute");
    assert_eq!(unreadable(true).await, Missing::default());
    damage(&dir.path().join("rollups/1m/date=2026-03-01/hour=07"));
    assert_ne!(ask(&store.flows, SUMMARY, day, false).await.rows, whole.rows);
    let missing = unreadable(true).await;
    assert!(missing.files == 1 && missing.rows > 0, "{missing:?}");
    assert_eq!(unreadable(false).await, Missing::default(), "lists have none of them anyway");
    assert_eq!(store.completeness(day.to, i64::MAX, true).await.unwrap().unreadable, Missing::default());
}

/// Writes over every file.
pub(crate) fn damage(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { damage(&path) } else { std::fs::write(path, b"PAR1").unwrap() }
    }
}

/// A roll-up that was written and not named by the catalog when the process was killed.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_finished_is_deleted_and_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreConfig::new(dir.path(), Role::Appliance)).await.unwrap().0;
    store.flows.append(regular()).await.unwrap();
    store.flush().await.unwrap();
    assert!(store.flows.roll_up(LATER).await.unwrap() > 0);
    store.close().await.unwrap();
    drop(store);
    let folder = dir.path().join("rollups/1m/date=2026-03-01/hour=05");
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["torn.parquet", "torn.parquet.tmp"] {
        std::fs::write(folder.join(name), b"PAR1").unwrap();
    }
    let store = Store::open(StoreConfig::new(dir.path(), Role::Appliance)).await.unwrap().0;
    assert_eq!(parquet_files(&dir.path().join("rollups")), 1);
    while store.flows.roll_up(LATER).await.unwrap() > 0 {}
    let all = Range { from: START, to: START + 3 * DAY };
    let answer = ask(&store.flows, SUMMARY, all, false).await;
    assert_eq!((answer.rows[0].get("count").as_u64(), answer.served_by.files), (Some(300), 0));
}

/// Whoever wants to know how a question is answered is told of roll-ups, and so is whoever watches the store.
#[tokio::test]
async fn what_roll_ups_did_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreConfig::new(dir.path(), Role::Appliance)).await.unwrap().0;
    store.flows.append(regular()).await.unwrap();
    store.flush().await.unwrap();
    let question = ExplainRequest {
        statement: query::parse_statement(SUMMARY, START).unwrap(),
        range: Range { from: START, to: START + 3 * DAY },
        all_observations: false,
        limit: 10,
        after: None,
        memory: DEFAULT_MEMORY,
    };
    let rows = store.flows.explain(&question).await.unwrap();
    assert_eq!((rows.work.rollups, rows.work.rolled_rows), (0, 0));
    assert!(rows.work.files_opened > 0);
    let mut made = 0;
    while store.flows.roll_up(LATER).await.unwrap() > 0 {
        made += 1;
    }
    let counters = store.flows.counters();
    assert_eq!((counters.rollups, counters.failed_rollups), (made, 0));
    assert!(counters.rollup_rows > 0);
    let rolled = store.flows.explain(&question).await.unwrap();
    assert_eq!(rolled.answer_rows, rows.answer_rows);
    assert!(rolled.work.rollups > 0 && rolled.work.rolled_rows > 0, "{rolled:?}");
    assert_eq!(rolled.work.files_opened, 0, "{rolled:?}");
}

pub(crate) fn parquet_files(dir: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.map(|path| if path.is_dir() { parquet_files(&path) } else { 1 }).sum()
}
