//! Flows of very many slices, and very many rows in one place.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;

use wiretag_enrich::TaggedFlow;
use wiretag_store::FlowStore;
use wiretag_store::catalog::Catalog;
use wiretag_store::limits::DEFAULT_MEMORY;
use wiretag_store::query::Query;
use wiretag_store::tables::{Engine, Range, SearchOptions, Slices};

use crate::rows::flow;

const MINUTE: i64 = 60_000_000_000;

async fn open(dir: &Path) -> FlowStore {
    let engine = Engine::open(dir).unwrap();
    let catalog = Catalog::open(&dir.join("catalog.sqlite")).await.unwrap();
    FlowStore::open(&engine, catalog).await.unwrap().0
}

fn slice(flow_id: u64, number: u32) -> TaggedFlow {
    let mut row = flow(flow_id);
    row.record.slice = number;
    row.record.start += i64::from(number) * MINUTE;
    row.record.end = row.record.start + MINUTE - 1;
    row
}

fn numbers(slices: &Slices) -> Vec<u64> {
    slices.rows.iter().map(|row| row.get("slice").as_u64().unwrap()).collect()
}

/// A week of one flow: how it began is told, and how it is now, and what is not told is counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_flow_of_very_many_slices_has_its_first_and_its_last() {
    const SLICES: u32 = 10_100;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let everything = Query::everything();
    let told = async |memory| store.flow(7, &everything, memory).await;
    store.append((0..10_000).map(|number| slice(7, number)).collect()).await.unwrap();
    let whole = told(DEFAULT_MEMORY).await.unwrap();
    assert_eq!((whole.rows.len(), whole.left_out), (10_000, 0));
    store.flush().await.unwrap();
    // Some of another flow, some of this one at another place.
    let others = (0..200).map(|number| slice(8, number));
    store.append((10_000..SLICES).map(|number| slice(7, number)).chain(others).collect()).await.unwrap();
    let slices = told(DEFAULT_MEMORY).await.unwrap();
    let expected: Vec<u64> = (0..5_000).chain(5_100..10_100).collect();
    assert_eq!((numbers(&slices) == expected, slices.left_out), (true, 100));
    // Of less memory there are fewer, from both ends.
    let few = told(1 << 20).await.unwrap();
    let numbers = numbers(&few);
    assert!((2..10_000).contains(&numbers.len()), "{}", numbers.len());
    assert_eq!((numbers.first(), numbers.last()), (Some(&0), Some(&10_099)));
    assert_eq!(numbers.len() as u64 + few.left_out, u64::from(SLICES));

    let observations = store.observations(7, &slices, &everything, DEFAULT_MEMORY).await.unwrap();
    assert_eq!((observations.rows.len(), observations.next), (200, None));
}

/// What was imported again and again is in one place, and is gone through page by page like all else.
#[tokio::test(flavor = "multi_thread")]
async fn pages_go_on_within_very_many_rows_in_one_place() {
    const ALIKE: usize = 2_500;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    store.append((0..ALIKE).map(|_| slice(1, 0)).collect()).await.unwrap();
    store.flush().await.unwrap();
    store.append(vec![slice(1, 1), slice(2, 0)]).await.unwrap();
    let (mut found, mut after) = (0, None);
    loop {
        let options = SearchOptions { limit: 1_002, all_observations: true, after };
        let page = store.search(&Query::everything(), Range::ALL, options).await.unwrap();
        found += page.rows.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, ALIKE + 2);
}
