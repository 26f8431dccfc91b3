//! Files of older releases are read as they are: what was written stays, and a column that came later is null.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;

use crate::rows;
use datafusion::prelude::{DataFrame, ParquetReadOptions, SessionConfig, SessionContext, ident, lit};
use serde_json::{Map, Value};
use wiretag_capture::{FlowRecord, Transaction};
use wiretag_store::query;
use wiretag_store::tables::{ExportFormat, ExportOptions, Range, Row, SearchOptions, TableStore};
use wiretag_store::{FlowFile, Origin, Role, Store, StoreConfig, Table};

/// A store that has this file, as if it had been written by it long ago.
async fn with_file<R: Table>(bytes: &[u8], rows: u64) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let path = format!("{}/date=2026-03-01/hour=00/old.parquet", R::NAME);
    let whole = dir.path().join(&path);
    std::fs::create_dir_all(whole.parent().unwrap()).unwrap();
    let (store, _) = Store::open(StoreConfig::new(dir.path(), Role::Appliance)).await.unwrap();
    std::fs::write(&whole, bytes).unwrap();
    let (start, end) = (i64::MIN, i64::MAX);
    let file =
        FlowFile { table: R::NAME, path, rows, bytes: bytes.len() as u64, start, end, origin: Origin::default() };
    store.catalog.add_flow_file(&file).await.unwrap();
    (dir, store)
}

async fn everything<R: Table>(table: &TableStore<R>) -> Vec<Map<String, Value>> {
    let options = SearchOptions { limit: 1_000, all_observations: true, after: None };
    table.search(&query::parse("").unwrap(), Range::ALL, options).await.unwrap().rows.iter().map(Row::to_map).collect()
}

/// The rows of a file, against what is known to be in it.
fn compare(found: &[Map<String, Value>], known: &[Map<String, Value>], name: &str) {
    assert_eq!(found.len(), known.len(), "{name}");
    for (found, known) in found.iter().zip(known) {
        for (column, value) in found {
            assert_eq!(value, known.get(column).unwrap_or(&Value::Null), "{column} in {name}");
        }
        let lost: Vec<&String> = known.keys().filter(|column| !found.contains_key(*column)).collect();
        assert!(lost.is_empty(), "columns of {name} that this release does not know: {lost:?}");
    }
}

#[tokio::test]
async fn files_of_each_release_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemas");
    let mut tables = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "parquet") {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(path.with_extension("jsonl")).unwrap();
        let known: Vec<Map<String, Value>> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (bytes, rows) = (std::fs::read(&path).unwrap(), known.len() as u64);
        assert!(rows > 0, "{name} is empty");
        let is_flows = name.contains("-flows-");
        let found = if is_flows {
            let (_dir, store) = with_file::<FlowRecord>(&bytes, rows).await;
            everything(&store.flows).await
        } else {
            let (_dir, store) = with_file::<Transaction>(&bytes, rows).await;
            everything(&store.transactions).await
        };
        compare(&found, &known, &name);
        tables.push(is_flows);
    }
    assert!(tables.contains(&true) && tables.contains(&false), "there are files of both tables");
}

/// Rewrites a file as a release with other columns would have written it.
async fn rewritten(parquet: &[u8], change: impl FnOnce(DataFrame) -> DataFrame) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("now.parquet");
    std::fs::write(&path, parquet).unwrap();
    // Texts stay of the type that every release writes.
    let config = SessionConfig::new().set_bool("datafusion.execution.parquet.schema_force_view_types", false);
    let session = SessionContext::new_with_config(config);
    let frame = session.read_parquet(path.to_str().unwrap(), ParquetReadOptions::default()).await.unwrap();
    let batches = change(frame).collect().await.unwrap();
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batches[0].schema(), None).unwrap();
    for batch in &batches {
        writer.write(batch).unwrap();
    }
    writer.close().unwrap();
    bytes
}

/// Columns that an older release did not have are null, also for conditions; those of a newer one are passed over.
#[tokio::test]
async fn a_file_with_other_columns_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(StoreConfig::new(dir.path(), Role::Appliance)).await.unwrap();
    for number in 1..=5 {
        let mut row = rows::flow(number);
        rows::name(&mut row.client, "cart-1", &[("app", "cart")]);
        store.flows.append(vec![row]).await.unwrap();
    }
    let all = ExportOptions { format: ExportFormat::Parquet, range: Range::ALL, all_observations: true, limit: None };
    let (_, now) = store.flows.export(&query::parse("").unwrap(), all, Vec::new()).await.unwrap();
    let mut known = everything(&store.flows).await;

    let later = ["client_labels", "client_packets", "community_id"];
    let old = rewritten(&now, |frame| {
        let frame = frame.drop_columns(&later).unwrap();
        // In another order, and with one that is not known any more.
        let mut order: Vec<_> = frame.schema().fields().iter().map(|field| ident(field.name())).collect();
        order.reverse();
        order.push(lit("x").alias("column_of_the_future"));
        frame.select(order).unwrap()
    })
    .await;
    let (_dir, store) = with_file::<FlowRecord>(&old, 5).await;
    for row in &mut known {
        for column in &later {
            row.insert((*column).to_owned(), Value::Null);
        }
    }
    compare(&everything(&store.flows).await, &known, "a rewritten file");
    for (text, count) in [("client_packets exists", 0), ("not client_packets exists", 5), ("client_pod == cart-*", 5)] {
        let options = SearchOptions { limit: 10, all_observations: true, after: None };
        let page = store.flows.search(&query::parse(text).unwrap(), Range::ALL, options).await.unwrap();
        assert_eq!(page.rows.len(), count, "{text}");
    }
}
