//! What only PostgreSQL has: a server that comes and goes, users, TLS, and data directories that say where their catalog is.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use wiretag_store::{Catalog, PostgresConfig, Role, Store, StoreConfig, StoreError, TableName};

use super::proxy::{Cut, Proxy};
use super::server::Server;
use super::suite::file;
use crate::rows;

async fn open(dir: &Path, server: &PostgresConfig) -> Catalog {
    Catalog::open_in(dir, Some(server)).await.unwrap()
}

/// The password in a file of its own, as the configuration names it.
fn with_password(server: &Server, dir: &Path, password: &str) -> PostgresConfig {
    let path = dir.join("password");
    std::fs::write(&path, format!("{password}\n")).unwrap();
    PostgresConfig::new(&server.url("careful"), Some(path)).unwrap()
}

/// The server crashes and is stopped, again and again, while two writers write: what was acknowledged is there, what failed
/// is not, and failures say what is the matter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_server_goes_and_comes_back() {
    let Some(mut server) = Server::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path(), &server.config()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let write = |catalog: Catalog, name: &'static str| {
        let stop = stop.clone();
        tokio::spawn(async move {
            let (mut done, mut failed, mut errors) = (Vec::new(), Vec::new(), Vec::new());
            for number in 0.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let path = format!("{name}{number}");
                match catalog.add_flow_file(&file(&path, number, number)).await {
                    Ok(()) => done.push(path),
                    Err(error) => {
                        errors.push(error.to_string());
                        failed.push(path);
                    }
                }
            }
            (done, failed, errors)
        })
    };
    let writers = [write(catalog.clone(), "a"), write(open(dir.path(), &server.config()).await, "b")];
    let count = async || catalog.totals_of(TableName::Flows).await.map_or(0, |totals| totals.files);
    for round in 0..3 {
        let before = count().await;
        while count().await < before + 20 {
            tokio::task::yield_now().await;
        }
        if round == 1 {
            server.stop();
        } else {
            server.crash();
        }
        let error = catalog.files_of(TableName::Flows).await.unwrap_err().to_string();
        assert!(error.contains("; hint: ") && error.contains("postgres://wiretag@"), "{error}");
        server.up();
        // Recovers by itself.
        while count().await <= before {
            tokio::task::yield_now().await;
        }
    }
    stop.store(true, Ordering::SeqCst);
    let mut told = 0;
    for writer in writers {
        let (done, failed, errors) = writer.await.unwrap();
        let files = catalog.files_of(TableName::Flows).await.unwrap();
        let there: HashSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
        assert!(done.iter().all(|path| there.contains(path.as_str())), "acknowledged, and lost");
        assert!(!failed.iter().any(|path| there.contains(path.as_str())), "failed, and there: {errors:?}");
        assert!(errors.iter().all(|error| error.contains("; hint: ")), "{errors:?}");
        told += errors.len();
    }
    assert!(told > 0, "the server was away and nobody noticed");
}

/// The connection breaks at a commit: whoever changed something learns what became of it.
#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_settled() {
    let Some(server) = Server::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&dir.path().join(".s.PGSQL.5432"), &server.socket());
    let through = PostgresConfig::new(&Server::url_at("wiretag", dir.path(), 5432), None).unwrap();
    let catalog = open(dir.path(), &through).await;
    catalog.add_flow_file(&file("whole", 0, 1)).await.unwrap();

    proxy.cut(Cut::After);
    catalog.add_flow_file(&file("committed", 1, 2)).await.unwrap();
    assert!(proxy.was_cut());

    proxy.cut(Cut::Before);
    let error = catalog.add_flow_file(&file("not committed", 2, 3)).await.unwrap_err();
    assert!(proxy.was_cut() && matches!(error, StoreError::Catalog { .. }), "{error}");

    proxy.cut(Cut::After);
    let old = ["whole".to_owned(), "committed".to_owned()];
    catalog.replace_flow_files(&old, &file("merged", 0, 2)).await.unwrap();
    assert!(proxy.was_cut());
    let paths: Vec<String> = catalog.all_flow_files().await.unwrap().into_iter().map(|file| file.path).collect();
    assert_eq!(paths, ["merged"]);
}

/// Rows wait in memory while the server is away, and are in files and in the catalog when it is back.
#[tokio::test]
async fn a_store_keeps_its_rows_while_the_server_is_away() {
    let Some(mut server) = Server::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig { catalog: Some(server.config()), ..StoreConfig::new(dir.path(), Role::Appliance) };
    let (store, _) = Store::open(config).await.unwrap();
    store.flows.append(vec![rows::flow(1)]).await.unwrap();
    store.flush().await.unwrap();
    server.stop();
    store.flows.append(vec![rows::flow(2)]).await.unwrap();
    let error = store.maintain(rows::START).await.unwrap_err();
    assert!(error.to_string().contains("hint: is PostgreSQL running there"), "{error}");
    let counted = store.flows.counters();
    assert_eq!((counted.written, counted.recent, counted.dropped), (1, 1, 0));
    server.up();
    assert_eq!(store.maintain(rows::START).await.unwrap().rows_flushed, 1);
    assert_eq!(store.catalog.totals_of(TableName::Flows).await.unwrap().items, 2);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_password_is_read_from_its_file_and_never_told() {
    let Some(server) = Server::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let right = with_password(&server, dir.path(), "correct horse");
    let catalog = open(dir.path(), &right).await;
    catalog.add_flow_file(&file("a", 0, 1)).await.unwrap();
    assert!(!format!("{catalog:?}").contains("horse"));
    let place = std::fs::read_to_string(dir.path().join("catalog.json")).unwrap();
    assert!(place.contains("careful@") && !place.contains("horse"), "{place}");
    // Whoever may read the directory needs nothing else.
    assert_eq!(Catalog::read_in(dir.path()).await.unwrap().all_flow_files().await.unwrap().len(), 1);

    with_password(&server, dir.path(), "wrong horse");
    let error = Catalog::read_in(dir.path()).await.unwrap_err().to_string();
    assert!(error.contains("hint: user and password") && !error.contains("horse"), "{error}");
    std::fs::remove_file(dir.path().join("password")).unwrap();
    let error = Catalog::read_in(dir.path()).await.unwrap_err().to_string();
    assert!(error.contains("cannot read the password in"), "{error}");
}

#[tokio::test]
async fn tls_is_verified_when_asked_for() {
    let Some(server) = Server::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (own, other) = server.authorities();
    let config = |parameters: &str| PostgresConfig::new(&server.tls_url(parameters), None).unwrap();
    let verified = config(&format!("sslmode=verify-full&sslrootcert={}", own.display()));
    let sentence = Catalog::check_in(dir.path(), Some(&verified)).await.unwrap();
    assert!(sentence.starts_with("PostgreSQL ") && sentence.ends_with(", encrypted"), "{sentence}");
    open(dir.path(), &verified).await.add_flow_file(&file("a", 0, 1)).await.unwrap();

    let forged = config(&format!("sslmode=verify-full&sslrootcert={}", other.display()));
    let error = Catalog::check_in(dir.path(), Some(&forged)).await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    let plain = config("sslmode=disable");
    let error = Catalog::check_in(dir.path(), Some(&plain)).await.unwrap_err().to_string();
    assert!(error.contains("no encryption"), "the server asks for TLS on this address: {error}");
}

/// A data directory is never taken together with a catalog that is not its own: its files would count as left over.
#[tokio::test]
async fn a_directory_and_its_catalog_stay_together() {
    let Some(server) = Server::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (data, old) = (dir.path().join("data"), dir.path().join("old"));
    for path in [&data, &old] {
        std::fs::create_dir(path).unwrap();
    }
    Catalog::open_in(&old, None).await.unwrap().close().await;
    let error = Catalog::open_in(&old, Some(&server.config())).await.unwrap_err();
    assert!(matches!(error, StoreError::CatalogElsewhere { .. }), "{error}");
    assert!(matches!(Catalog::check_in(&old, Some(&server.config())).await, Err(StoreError::CatalogElsewhere { .. })));

    open(&data, &server.config()).await.add_flow_file(&file("a", 0, 1)).await.unwrap();
    // Without being told, it is found again; so is it by another user who may.
    assert_eq!(Catalog::open_in(&data, None).await.unwrap().all_flow_files().await.unwrap().len(), 1);
    let owner = server.config_of("owner");
    assert_eq!(open(&data, &owner).await.all_flow_files().await.unwrap().len(), 1);
    let place = std::fs::read_to_string(data.join("catalog.json")).unwrap();
    assert!(place.contains("owner@") && !data.join("catalog.sqlite").exists(), "{place}");

    // Two directories share a server and nothing else.
    let second = dir.path().join("second");
    std::fs::create_dir(&second).unwrap();
    assert!(open(&second, &server.config()).await.all_flow_files().await.unwrap().is_empty());
    assert_eq!(server.sql("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'wiretag\\_%'"), "2");

    let schema = place.split('"').find(|part| part.starts_with("wiretag_")).unwrap();
    server.sql(&format!("ALTER SCHEMA {schema} RENAME TO moved"));
    for error in [Catalog::open_in(&data, None).await.unwrap_err(), Catalog::read_in(&data).await.unwrap_err()] {
        assert!(matches!(error, StoreError::CatalogGone { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_user_without_rights_and_a_newer_schema_are_refused_with_a_hint() {
    let Some(server) = Server::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let guest = server.config_of("guest");
    for error in [
        Catalog::check_in(dir.path(), Some(&guest)).await.unwrap_err(),
        Catalog::open_in(dir.path(), Some(&guest)).await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("GRANT CREATE ON DATABASE"), "{error}");
    }
    assert!(!dir.path().join("catalog.json").exists());

    open(dir.path(), &server.config()).await.close().await;
    let schema = server.sql("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'wiretag\\_%'");
    let columns = "(version, description, success, checksum, execution_time)";
    server.sql(&format!("INSERT INTO {schema}._sqlx_migrations {columns} VALUES (99, 'x', true, '\\x00', 0)"));
    for error in [
        Catalog::open_in(dir.path(), None).await.unwrap_err(),
        Catalog::read_in(dir.path()).await.unwrap_err(),
        Catalog::check_in(dir.path(), None).await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::NewerSchema { found: 99, .. }), "{error}");
    }
    server.sql(&format!("DELETE FROM {schema}._sqlx_migrations"));
    let error = Catalog::read_in(dir.path()).await.unwrap_err();
    assert!(matches!(error, StoreError::OlderSchema { found: 0, .. }), "{error}");
}
