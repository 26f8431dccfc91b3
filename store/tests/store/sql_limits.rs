//! What a question in SQL may be made of, and what its answer may take.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::sync::Arc;

use serde_json::json;
use wiretag_enrich::timeline::Timeline;
use wiretag_store::limits::DEFAULT_MEMORY;
use wiretag_store::query::RowFilter;
use wiretag_store::sql::SqlRequest;
use wiretag_store::{LimitReached, Role, Store, StoreConfig, StoreError};

use crate::rows::flow;
use crate::sql::{ask, filled, lines};

/// Few words that the planner makes much of, in memory for which it asks nobody.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_planned_again_and_again_is_counted_as_often() {
    let (_dir, store) = filled().await;
    let keys = |number: usize| vec!["slice"; number].join(", ");
    let sets = |number: usize| vec!["(node, app)"; number].join(", ");
    let parts = |levels: usize, body: &str| {
        let part = |at: usize| format!("t{at} as ({})", body.replace('T', &format!("t{}", at - 1)));
        let parts = (1..=levels).map(part).collect::<Vec<_>>().join(", ");
        format!("with t0 as (select 1 as a), {parts} select count(*) from t{levels}")
    };
    let crossed = "select x.a from T x, T y";
    let answered = [
        "select count(*) from flows group by cube (slice, node, server_port, app, protocol, interface, source)"
            .to_owned(),
        "select node, count(*) from flows group by node, rollup (slice, app, protocol)".to_owned(),
        format!("select count(*) from flows group by grouping sets ({}, ())", sets(40)),
        format!("select count(*) from flows group by {}", keys(100)),
        format!("select {} from flows", (0..300).map(|at| format!("slice as a{at}")).collect::<Vec<_>>().join(", ")),
        parts(6, crossed),
    ];
    for text in &answered {
        let answer = ask(&store, text).await;
        assert!(answer.is_ok(), "{text:.80}: {answer:?}");
    }
    let refused = [
        "select count(*) from flows group by cube (slice, node, server_port, app, protocol, interface, source, flow_id)".to_owned(),
        "select count(*) from flows group by cube (slice, node, app), cube (server_port, protocol, flow_id), rollup (source, interface)"
            .to_owned(),
        "explain select count(*) from flows group by cube (slice, node, server_port, app, protocol, interface, source, flow_id)"
            .to_owned(),
        format!("select count(*) from flows group by grouping sets ({})", sets(501)),
        format!(
            "with t as (select count(*) as a from flows group by cube (slice, node, server_port, app, protocol)) select count(*) from {}",
            (0..8).map(|at| format!("t t{at}")).collect::<Vec<_>>().join(", ")
        ),
        format!("select count(*) from flows group by rollup ({})", keys(9_000)),
        format!("select count(*) from flows group by {}", keys(101)),
        format!("select 1 from flows order by {}", keys(9_000)),
        format!("select distinct on ({}) slice from flows", keys(101)),
        format!("select row_number() over (partition by {}) from flows", keys(101)),
        format!("select row_number() over w from flows window w as (order by {})", keys(101)),
        format!("select array_agg(slice order by {}) from flows", keys(101)),
        format!("select {} from flows", (0..501).map(|at| format!("slice as a{at}")).collect::<Vec<_>>().join(", ")),
        format!("select slice from flows |> order by {}", keys(101)),
        parts(7, crossed),
        parts(14, crossed),
        parts(10, "select a from T union all select a from \"T\""),
        parts(9, "select a, (select max(a) from T) from T"),
    ];
    for text in &refused {
        let error = ask(&store, text).await.expect_err(&format!("{text:.80}")).to_string();
        assert!(error.contains("there are more than"), "{text:.80}: {error}");
    }
    assert_eq!(lines(&store, "select count(*) from flows").await, [[json!(20)]]);
}

/// So is what an answer is held and sent as: a row with a name and a value takes some 350 bytes, a control character is six bytes of JSON.
#[tokio::test(flavor = "multi_thread")]
async fn rows_count_as_they_are_held_and_sent() {
    let (_dir, store) = filled().await;
    let view = Arc::new(Timeline::new().view());
    let request = |text: String| SqlRequest { text, limit: 100_000, memory: 16 << 20, rows: None };
    let numbers = |rows: usize| request(format!("select value from generate_series(1, {rows})"));
    let controls =
        |rows: usize| request(format!("select '{}' as a from generate_series(1, {rows})", "\u{1}".repeat(2_000)));
    let labels = |rows: usize| {
        let flows = "(select client_labels as a from flows limit 1) f";
        request(format!("select a from {flows}, generate_series(1, {rows})"))
    };
    let lists = |rows: usize| request(format!("select [1, 2, 3, 4, 5, 6] as a from generate_series(1, {rows})"));
    for (fits, too_many) in [
        (numbers(30_000), numbers(70_000)),
        (controls(600), controls(800)),
        (labels(15_000), labels(40_000)),
        (lists(10_000), lists(20_000)),
    ] {
        let text = fits.text.get(..40).unwrap_or(&fits.text);
        assert!(store.sql(&fits, view.clone()).await.is_ok_and(|answer| !answer.truncated), "{text}");
        let error = store.sql(&too_many, view.clone()).await.expect_err(text);
        assert!(matches!(error, StoreError::Limit(LimitReached::Memory { mib: 16 })), "{text}: {error}");
    }
}

/// A condition goes down to the table, and has all that its column is made of there.
#[tokio::test(flavor = "multi_thread")]
async fn conditions_on_columns_that_double_are_refused() {
    let (_dir, store) = filled().await;
    let doubled = |levels: usize, last: &str| {
        let part = |at: usize| format!("t{at} as (select a + a as a from t{})", at - 1);
        let parts = (1..=levels).map(part).collect::<Vec<_>>().join(", ");
        format!("with t0 as (select client_port as a from flows), {parts} {}", last.replace('T', &format!("t{levels}")))
    };
    assert_eq!(lines(&store, &doubled(6, "select count(*) from T where a > 0")).await, [[json!(20)]]);
    for last in [
        "select count(*) from T where a = 1",
        "select a from T order by a limit 3",
        "select count(*) from T x join flows y on x.a = y.client_port",
        "select count(*) from flows where client_port in (select a from T where a = 1)",
        "select count(*) from (select a from T union all select 1) where a = 1",
        "select count(*) from (select a, count(*) from T group by a) where a = 1",
    ] {
        let error = ask(&store, &doubled(20, last)).await.expect_err(last).to_string();
        assert!(error.contains("conditions have more than"), "{last}: {error}");
    }
}

/// All limits are made for batches of a thousand rows: whoever may see some rows only does not get those of a row group at once, of which copies of
/// one literal would be more than an array can hold.
#[tokio::test(flavor = "multi_thread")]
async fn rows_come_few_at_a_time_whoever_asks() {
    const ROWS: u64 = 80_000;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreConfig::new(dir.path(), Role::Appliance)).await.unwrap().0;
    let row = |number: u64| {
        let mut row = flow(number);
        row.record.client.bytes = number;
        row
    };
    let view = Arc::new(Timeline::new().view());
    let literal = "a".repeat(31_000);
    for (first, flushed) in [(0, true), (ROWS, false)] {
        store.flows.append((first..first + ROWS).map(row).collect()).await.unwrap();
        if flushed {
            store.flush().await.unwrap();
        }
        for rows in [None, Some(RowFilter::parse("server_port == 80").unwrap())] {
            let ask = async |text: String, limit: usize| {
                let request = SqlRequest { text, limit, memory: DEFAULT_MEMORY, rows: rows.clone() };
                store.sql(&request, view.clone()).await.unwrap()
            };
            let answer = ask(format!("select '{literal}' as x, client_bytes from flows"), 10).await;
            assert_eq!((answer.rows.len(), answer.truncated), (10, true));
            assert_eq!(answer.rows[9]["x"], json!(literal));
            // What is sorted is counted by itself, and not with all that it was read with.
            let text = "select client_bytes, client_ip, flow_id from flows where client_labels is null order by 1";
            let answer = ask(text.to_owned(), 5).await;
            assert_eq!(
                (&answer.rows[4]["client_bytes"], &answer.rows[4]["client_ip"]),
                (&json!(4), &json!("10.0.0.1"))
            );
            let count = ask("select count(*) as n, count(distinct flow_id) as ids from flows".to_owned(), 1).await;
            assert_eq!((&count.rows[0]["n"], &count.rows[0]["ids"]), (&json!(first + ROWS), &json!(first + ROWS)));
        }
    }
}
