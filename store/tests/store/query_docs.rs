//! Every example of `docs/query-language.md` is run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::sync::Arc;

use crate::rows::{START, flow, transaction};
use wiretag_capture::{FlowRecord, Transaction};
use wiretag_enrich::timeline::Timeline;
use wiretag_store::limits::DEFAULT_MEMORY;
use wiretag_store::query::{self, Statement};
use wiretag_store::sql::SqlRequest;
use wiretag_store::tables::{AggregateRequest, Range, SearchOptions, TableStore};
use wiretag_store::{Role, Store, StoreConfig, Table};

const PAGE: &str = include_str!("../../../docs/query-language.md");

/// The lines of all blocks of a kind.
fn examples(kind: &str) -> Vec<&'static str> {
    let mut inside = false;
    let lines = PAGE.lines().filter(|line| {
        if let Some(name) = line.strip_prefix("```") {
            inside = name == kind;
            return false;
        }
        inside && !line.is_empty()
    });
    lines.collect()
}

async fn run<R: Table>(store: &TableStore<R>, text: &str) {
    let Statement { filter, aggregate } =
        query::parse_statement::<R>(text, START).unwrap_or_else(|error| panic!("{error}"));
    let range = Range { from: START, to: START + 3_600_000_000_000 };
    let ran = match aggregate {
        None => store.search(&filter, range, SearchOptions { limit: 10, ..SearchOptions::default() }).await.map(drop),
        Some(aggregate) => {
            let all_observations = false;
            let request =
                AggregateRequest { filter, aggregate, range, all_observations, compare: true, memory: DEFAULT_MEMORY };
            store.aggregate(&request).await.map(drop)
        }
    };
    ran.unwrap_or_else(|error| panic!("{text}: {error}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_runs() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig::new(dir.path(), Role::Appliance);
    let (store, _) = Store::open(config).await.unwrap();
    for number in 0..3 {
        store.flows.append(vec![flow(number)]).await.unwrap();
        store.transactions.append(vec![transaction(number, 0)]).await.unwrap();
        if number == 1 {
            store.flush().await.unwrap();
        }
    }
    let (flows, transactions, sql) = (examples("wiretag"), examples("wiretag transactions"), examples("sql"));
    assert!(flows.len() > 40 && transactions.len() > 4 && sql.len() > 6, "the page has examples");
    for text in flows {
        run::<FlowRecord>(&store.flows, text).await;
    }
    for text in transactions {
        run::<Transaction>(&store.transactions, text).await;
    }
    let view = Arc::new(Timeline::new().view());
    for text in sql {
        let request = SqlRequest { text: text.to_owned(), limit: 100, memory: DEFAULT_MEMORY, rows: None };
        store.sql(&request, view.clone()).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}
