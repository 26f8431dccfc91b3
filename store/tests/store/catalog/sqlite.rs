//! What only SQLite has: a file, of other releases, on full disks and on media that cannot be written.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePool};
use tokio::time::Instant;
use wiretag_store::catalog::FILE;
use wiretag_store::query::Query;
use wiretag_store::tables::{Engine, Range, SearchOptions};
use wiretag_store::{Catalog, FlowFile, FlowStore, Role, Store, StoreConfig, StoreError, TableName};

use super::suite::{file, interval, told};
use crate::rows;

async fn catalog(dir: &tempfile::TempDir) -> Catalog {
    Catalog::open(&dir.path().join("catalog.sqlite")).await.unwrap()
}

#[tokio::test]
async fn identities_of_an_old_catalog_are_carried_over() {
    let dir = tempfile::tempdir().unwrap();
    catalog(&dir).await.close().await;
    let own = [
        interval("a", "10.0.0.1", 5, None),
        interval("b", "fd00::1", 6, Some(8)),
        interval("a", "10.0.0.1", 5, Some(9)),
    ];
    let options = SqliteConnectOptions::new().filename(dir.path().join(FILE));
    let pool = SqlitePool::connect_with(options).await.unwrap();
    for (number, own) in own.iter().enumerate() {
        sqlx::query("INSERT INTO identities (attributes) VALUES (?) ON CONFLICT (attributes) DO NOTHING")
            .bind(serde_json::to_string(&*own.identity).unwrap())
            .execute(&pool)
            .await
            .unwrap();
        sqlx::query(
            "INSERT INTO intervals (id, key, subject, identity, valid_from, valid_to, learned_at, source) \
             SELECT ?, ?, ?, id, ?, ?, ?, ? FROM identities WHERE attributes = ?",
        )
        .bind(number as i64)
        .bind(serde_json::to_string(&own.key).unwrap())
        .bind(&*own.identity.identity)
        .bind(own.valid_from)
        .bind(own.valid_to)
        .bind(own.learned_at)
        .bind(&*own.source)
        .bind(serde_json::to_string(&*own.identity).unwrap())
        .execute(&pool)
        .await
        .unwrap();
    }
    pool.close().await;
    for _ in 0..2 {
        let catalog = catalog(&dir).await;
        let timeline = catalog.timeline().await.unwrap();
        assert_eq!(told(&timeline), [own[2].clone(), own[1].clone()]);
        catalog.close().await;
    }
}

/// As while an import commits, or somebody's tool has the catalog: a flush waits for it, and nobody else does.
#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_that_is_locked_holds_up_neither_rows_nor_searches() {
    let dir = tempfile::tempdir().unwrap();
    let (flows, _) = FlowStore::open(&Engine::open(dir.path()).unwrap(), catalog(&dir).await).await.unwrap();
    let found = async || {
        let options = SearchOptions { limit: 10, all_observations: true, after: None };
        flows.search(&Query::everything(), Range::ALL, options).await.unwrap().rows.len()
    };
    flows.append(vec![rows::flow(1)]).await.unwrap();
    flows.flush().await.unwrap();
    flows.append(vec![rows::flow(2)]).await.unwrap();
    let options = SqliteConnectOptions::new().filename(dir.path().join(FILE));
    let mut tool = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut tool).await.unwrap();
    let flushing = tokio::spawn({
        let flows = flows.clone();
        async move { flows.flush().await }
    });
    // By then its file is written.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = Instant::now();
    flows.append(vec![rows::flow(3)]).await.unwrap();
    assert_eq!(found().await, 3);
    assert!(asked.elapsed() < Duration::from_secs(5) && !flushing.is_finished());
    sqlx::query("ROLLBACK").execute(&mut tool).await.unwrap();
    assert_eq!(flushing.await.unwrap().unwrap(), 1);
    assert_eq!(found().await, 3);
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
        assert!(matches!(error, StoreError::NewerSchema { found: 99, known: 11, .. }), "{error}");
        assert!(error.to_string().contains("; hint: "), "{error}");
    }
}

/// A backup that was restored without it, say: an empty catalog would set everything aside.
#[tokio::test]
async fn a_catalog_that_is_gone_is_not_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::open(StoreConfig::new(dir.path(), Role::Appliance));
    let store = open().await.unwrap().0;
    store.flows.append(vec![rows::flow(1)]).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let catalog = dir.path().join(FILE);
    let kept = std::fs::read(&catalog).unwrap();
    for lost in [None, Some("")] {
        std::fs::remove_file(&catalog).unwrap();
        if let Some(text) = lost {
            std::fs::write(&catalog, text).unwrap();
        }
        let error = open().await.unwrap_err();
        assert!(matches!(error, StoreError::NoCatalog { .. }) && error.to_string().contains("; hint: "), "{error}");
        let error = Catalog::check_in(dir.path(), None).await.unwrap_err();
        assert!(matches!(error, StoreError::NoCatalog { .. }), "{error}");
        std::fs::write(&catalog, &kept).unwrap();
    }
    assert!(Catalog::check_in(dir.path(), None).await.unwrap().starts_with("SQLite"));
    assert_eq!(open().await.unwrap().0.flows.counters().written, 0, "it opens");
    std::fs::write(
        &catalog,
        "what is not a database, but as long as the header of one has to be, and longer than that",
    )
    .unwrap();
    let error = Catalog::check_in(dir.path(), None).await.unwrap_err().to_string();
    assert!(error.contains("not a database"), "{error}");
}

/// What the first release wrote: its migration, its rows, and its note that the migration was made.
async fn first_schema(path: &std::path::Path) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let migrations = tempfile::tempdir().unwrap();
    std::fs::write(migrations.path().join("0001_first.sql"), include_str!("../../../migrations/0001_first.sql"))
        .unwrap();
    let first = sqlx::migrate::Migrator::new(migrations.path()).await.unwrap();
    first.run(&pool).await.unwrap();
    sqlx::query("INSERT INTO flow_files (path, rows, bytes, start, \"end\") VALUES ('flows/a', 3, 10, 5, 9)")
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
}

#[tokio::test]
async fn a_catalog_of_the_first_release_is_upgraded_on_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.sqlite");
    first_schema(&path).await;
    let error = Catalog::open_read_only(&path).await.unwrap_err();
    assert!(matches!(error, StoreError::OlderSchema { found: 1, known: 11, .. }), "{error}");
    assert!(error.to_string().contains("`wiretag run` upgrades it"), "{error}");

    let catalog = catalog(&dir).await;
    let kept = file("flows/a", 5, 9);
    assert_eq!(catalog.files_of(TableName::Flows).await.unwrap(), [kept]);
    assert!(catalog.files_of(TableName::Transactions).await.unwrap().is_empty());
    let new = FlowFile { table: TableName::Transactions, ..file("transactions/a", 6, 8) };
    catalog.add_flow_file(&new).await.unwrap();
    assert_eq!(catalog.flow_files(TableName::Transactions, 0, 100).await.unwrap(), [new]);
    assert_eq!(catalog.all_flow_files().await.unwrap().len(), 2);
    catalog.close().await;
    assert!(Catalog::open_read_only(&path).await.is_ok());
}

/// A disk that was full leaves no connection that refuses everything after.
#[tokio::test]
async fn a_catalog_on_a_full_disk_works_again_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let command = |program: &str, arguments: &[&str]| {
        std::process::Command::new(program).args(arguments).arg(dir.path()).output().unwrap().status.success()
    };
    if !command("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs"]) {
        eprintln!("skipped: no right to mount");
        return;
    }
    let catalog = catalog(&dir).await;
    std::fs::write(dir.path().join("filler"), vec![0; 500_000]).unwrap();
    let mut full = None;
    for number in 0..5_000 {
        if let Err(error) = catalog.add_flow_file(&file(&format!("{number:0500}"), 0, 1)).await {
            full = Some(error);
            break;
        }
    }
    let still = catalog.add_flow_file(&file(&format!("{:0500}", 9_999), 0, 1)).await;
    std::fs::remove_file(dir.path().join("filler")).unwrap();
    let again = catalog.add_flow_file(&file("again", 0, 1)).await;
    catalog.close().await;
    assert!(command("umount", &["-l"]));
    assert!(full.is_some_and(|error| error.is_full()));
    assert!(still.is_err_and(|error| error.is_full()));
    again.unwrap();
}

/// A medium that cannot be written, as a forensic copy: searched if it was closed, and otherwise refused in words.
#[tokio::test]
async fn a_read_only_medium_can_be_searched() {
    let dir = tempfile::tempdir().unwrap();
    let mount = |arguments: &[&str]| {
        let output = std::process::Command::new("mount").args(arguments).arg(dir.path()).output().unwrap();
        output.status.success()
    };
    if !mount(&["-t", "tmpfs", "-o", "size=16m", "tmpfs"]) {
        eprintln!("skipped: no right to mount");
        return;
    }
    let path = dir.path().join("catalog.sqlite");
    let open = Catalog::open(&path).await.unwrap();
    open.add_flow_file(&file("flows/a", 5, 9)).await.unwrap();
    let copy = std::fs::read(dir.path().join("catalog.sqlite-wal")).unwrap();
    open.close().await;
    drop(open);
    assert!(mount(&["-o", "remount,ro"]));
    let reader = Catalog::open_read_only(&path).await.unwrap();
    let found = reader.all_flow_files().await.unwrap().len();
    reader.close().await;
    assert!(mount(&["-o", "remount,rw"]));
    std::fs::write(dir.path().join("catalog.sqlite-wal"), copy).unwrap();
    assert!(mount(&["-o", "remount,ro"]));
    let error = Catalog::open_read_only(&path).await.unwrap_err();
    let unmounted = std::process::Command::new("umount").arg("-l").arg(dir.path()).output().unwrap();
    assert!(unmounted.status.success());
    assert_eq!(found, 1);
    assert!(matches!(error, StoreError::NotClosed { .. }), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.sqlite");
    std::fs::write(&path, vec![b'x'; 9_000]).unwrap();
    let error = Catalog::open(&path).await.unwrap_err();
    assert!(error.to_string().contains("hint: the file is damaged"), "{error}");
}
