//! The catalog: what goes in comes out, as known last, and files of other releases are refused with a hint.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use wiretag_enrich::timeline::Timeline;
use wiretag_enrich::{Identity, IdentityEvent, Interval, Key};
use wiretag_store::catalog::FILE;
use wiretag_store::{Catalog, FlowFile, ImportState, Loss, Origin, StoreError, Stored, TableName};

async fn catalog(dir: &tempfile::TempDir) -> Catalog {
    Catalog::open(&dir.path().join("catalog.sqlite")).await.unwrap()
}

fn file(path: &str, start: i64, end: i64) -> FlowFile {
    FlowFile { table: TableName::Flows, path: path.into(), rows: 3, bytes: 10, start, end, origin: Origin::default() }
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
    assert_eq!(names(catalog.flow_files(TableName::Flows, 15, 30).await.unwrap()), ["f1", "f2"]);
    catalog.replace_flow_files(&["f1".into(), "f2".into()], &file("merged", 10, 25)).await.unwrap();
    assert_eq!(names(catalog.all_flow_files().await.unwrap()), ["f0", "merged", "f3"]);
    let error = catalog.replace_flow_files(&["f0".into(), "f1".into()], &file("again", 0, 25)).await.unwrap_err();
    assert!(matches!(error, StoreError::Gone { .. }), "{error}");
    assert_eq!(names(catalog.all_flow_files().await.unwrap()), ["f0", "merged", "f3"], "all or nothing");
    catalog.remove_flow_files(&["f0".into()]).await.unwrap();
    assert_eq!(catalog.totals_of(TableName::Flows).await.unwrap().start, Some(10));
}

/// What a timeline says, in order.
fn told(timeline: &Timeline) -> Vec<Interval> {
    let mut intervals = timeline.intervals();
    intervals.sort_by(|one, other| (&one.key, one.valid_from).cmp(&(&other.key, other.valid_from)));
    intervals
}

#[tokio::test]
async fn a_timeline_is_the_same_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = catalog(&dir).await;
    let mut timeline = Timeline::new();
    for own in
        [interval("a", "10.0.0.1", 5, None), interval("b", "fd00::1", 6, None), interval("box", "10.0.0.2", 7, None)]
    {
        timeline.apply(&IdentityEvent::Learned(own));
    }
    catalog.put_dossiers(&timeline.take_changes(usize::MAX)).await.unwrap();
    let (alias, identity, source) = ("box".into(), "b".into(), "cri".into());
    timeline.apply(&IdentityEvent::Same { alias, identity, member: None, learned_at: 8, source });
    let (identity, source) = ("a".into(), "docker".into());
    timeline.apply(&IdentityEvent::Ended { identity, at: 9, learned_at: 10, source });
    assert_eq!(timeline.take_changes(usize::MAX).len(), 2);
    assert!(!timeline.has_changes());
    timeline.keep_changes(&[timeline.dossier("a").unwrap(), timeline.dossier("box").unwrap()]);
    catalog.put_dossiers(&timeline.take_changes(usize::MAX)).await.unwrap();
    catalog.close().await;
    let catalog = self::catalog(&dir).await;
    let mut loaded = catalog.timeline().await.unwrap();
    assert_eq!(told(&loaded), told(&timeline));
    assert!(!loaded.has_changes(), "what was read is not to be written");
    // What is told late has the same effect as before.
    let late = IdentityEvent::Learned(Interval { source: "kubernetes".into(), ..interval("a", "10.0.0.1", 9, None) });
    for timeline in [&mut loaded, &mut timeline] {
        timeline.apply(&late);
    }
    assert_eq!(told(&loaded), told(&timeline));
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

#[tokio::test]
async fn losses_add_up_by_node() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = catalog(&dir).await;
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
    assert_eq!(reader.totals_of(TableName::Flows).await.unwrap().files, 80);
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
        assert!(matches!(error, StoreError::NewerSchema { found: 99, known: 4, .. }), "{error}");
        assert!(error.to_string().contains("; hint: "), "{error}");
    }
}

/// What the first release wrote: its migration, its rows, and its note that the migration was made.
async fn first_schema(path: &std::path::Path) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let migrations = tempfile::tempdir().unwrap();
    std::fs::write(migrations.path().join("0001_first.sql"), include_str!("../migrations/0001_first.sql")).unwrap();
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
    assert!(matches!(error, StoreError::OlderSchema { found: 1, known: 4, .. }), "{error}");
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

/// The same content counts once, as long as anything of it is kept.
#[tokio::test]
async fn an_import_is_known_while_its_files_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = catalog(&dir).await;
    let id = catalog.begin_import("aa", "a.pcap", 100, 7).await.unwrap();
    assert_eq!(catalog.imports_of("aa").await.unwrap()[0].state, ImportState::Open);
    let origin = Origin { import: Some(id), stored_at: 7 };
    catalog.add_flow_file(&FlowFile { origin, ..file("flows/a", 5, 9) }).await.unwrap();
    let stored = Stored { packets: 5, flows: 3, transactions: 0 };
    catalog.end_import(id, ImportState::Done, stored).await.unwrap();
    let known = catalog.imports_of("aa").await.unwrap();
    assert_eq!((known[0].id, known[0].state, known[0].stored), (id, ImportState::Done, stored));
    assert!(catalog.imports_of("bb").await.unwrap().is_empty());
    catalog.remove_flow_files(&["flows/a".into()]).await.unwrap();
    assert!(catalog.imports_of("aa").await.unwrap().is_empty(), "retention took it: it may come again");
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
