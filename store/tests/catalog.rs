//! The catalog: what goes in comes out, as known last, and files of other releases are refused with a hint.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use wiretag_enrich::{Identity, Interval, Key};
use wiretag_store::{Catalog, FlowFile, Loss, StoreError};

async fn catalog(dir: &tempfile::TempDir) -> Catalog {
    Catalog::open(&dir.path().join("catalog.sqlite")).await.unwrap()
}

fn file(path: &str, start: i64, end: i64) -> FlowFile {
    FlowFile { path: path.into(), rows: 3, bytes: 10, start, end }
}

fn interval(id: &str, ip: &str, from: i64, to: Option<i64>) -> Interval {
    let labels = BTreeMap::from([("app".into(), "cart".into())]);
    let identity = Identity { identity: id.into(), pod: Some("cart-1".into()), labels, ..Identity::default() };
    Interval {
        key: Key::Ip { network: "net".into(), ip: ip.parse().unwrap() },
        identity: Arc::new(identity),
        valid_from: from,
        valid_to: to,
        learned_at: from + 1,
        source: "docker".into(),
    }
}

#[tokio::test]
async fn flow_files_are_found_by_the_time_they_touch() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = catalog(&dir).await;
    for number in 0..4 {
        catalog.add_flow_file(&file(&format!("f{number}"), number * 10, number * 10 + 5)).await.unwrap();
    }
    let names = |files: Vec<FlowFile>| files.into_iter().map(|file| file.path).collect::<Vec<_>>();
    assert_eq!(names(catalog.flow_files(15, 30).await.unwrap()), ["f1", "f2"]);
    catalog.replace_flow_files(&["f1".into(), "f2".into()], &file("merged", 10, 25)).await.unwrap();
    assert_eq!(names(catalog.all_flow_files().await.unwrap()), ["f0", "merged", "f3"]);
    let error = catalog.replace_flow_files(&["f0".into(), "f1".into()], &file("again", 0, 25)).await.unwrap_err();
    assert!(matches!(error, StoreError::Gone { .. }), "{error}");
    assert_eq!(names(catalog.all_flow_files().await.unwrap()), ["f0", "merged", "f3"], "all or nothing");
    catalog.remove_flow_files(&["f0".into()]).await.unwrap();
    assert_eq!(catalog.flow_totals().await.unwrap().start, Some(10));
}

#[tokio::test]
async fn the_newest_version_of_an_interval_counts() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = catalog(&dir).await;
    let open = [interval("a", "10.0.0.1", 5, None), interval("b", "fd00::1", 6, None)];
    catalog.append_intervals(&open).await.unwrap();
    assert_eq!(catalog.intervals().await.unwrap(), open);
    let closed = interval("a", "10.0.0.1", 5, Some(9));
    catalog.append_intervals(std::slice::from_ref(&closed)).await.unwrap();
    catalog.close().await;
    let catalog = self::catalog(&dir).await;
    assert_eq!(catalog.intervals().await.unwrap(), [open[1].clone(), closed]);
}

#[tokio::test]
async fn losses_add_up_by_node() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = catalog(&dir).await;
    for (node, from) in [("a", 0), ("a", 10), ("b", 10), ("a", 20)] {
        let (packets, kernel_drops, queue_drops, refused) = (100, 1, 2, 3);
        let loss = Loss { node: node.into(), from, to: from + 10, packets, kernel_drops, queue_drops, refused };
        catalog.add_loss(&loss).await.unwrap();
    }
    let found = catalog.loss(5, 20).await.unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].packets, found[0].kernel_drops, found[0].from, found[0].to), (200, 1 + 1, 0, 20));
}

#[tokio::test]
async fn readers_and_two_writers_share_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (catalog(&dir).await, catalog(&dir).await);
    let reader = Catalog::open_read_only(&dir.path().join("catalog.sqlite")).await.unwrap();
    let write = |catalog: Catalog, name: &'static str| async move {
        for number in 0..40 {
            catalog.add_flow_file(&file(&format!("{name}{number}"), number, number)).await.unwrap();
        }
    };
    tokio::join!(write(one, "a"), write(two, "b"));
    assert_eq!(reader.flow_totals().await.unwrap().files, 80);
    assert!(matches!(reader.add_flow_file(&file("x", 0, 0)).await, Err(StoreError::ReadOnly)));
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.sqlite");
    catalog(&dir).await.close().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::query("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99, 'x', 1, x'00', 0)")
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
    for error in [Catalog::open(&path).await.unwrap_err(), Catalog::open_read_only(&path).await.unwrap_err()] {
        assert!(matches!(error, StoreError::NewerSchema { found: 99, known: 1, .. }), "{error}");
        assert!(error.to_string().contains("; hint: "), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.sqlite");
    std::fs::write(&path, vec![b'x'; 9_000]).unwrap();
    let error = Catalog::open(&path).await.unwrap_err();
    assert!(error.to_string().contains("hint: the file is damaged"), "{error}");
}
