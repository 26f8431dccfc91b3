//! The appliance with its catalog in PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

#[path = "../store/tests/store/catalog/server.rs"]
mod server;
mod support;

use serde_json::Value;
use server::Server;
// The server's module waits by it too.
use support as wait;
use support::{Appliance, eventually, flows, is_root, wiretag, wiretag_fails, wiretag_ok};

/// It captures, stores and names; the server goes and comes back meanwhile; everything is found again, and no log has the
/// password.
#[test]
fn an_appliance_keeps_its_catalog_in_postgresql() {
    if !is_root() {
        return;
    }
    let Some(mut server) = Server::start() else { return };
    let directory = tempfile::tempdir().unwrap();
    let (data, config) = (directory.path().join("data"), directory.path().join("wiretag.toml"));
    let password = directory.path().join("password");
    std::fs::write(&password, "correct horse\n").unwrap();
    let catalog = format!("[catalog]\nurl = '{}'\npassword_file = '{}'\n", server.url("careful"), password.display());
    std::fs::write(&config, catalog).unwrap();
    let (data_text, config) = (data.to_str().unwrap(), config.to_str().unwrap());

    let catalog_check = || {
        let output = wiretag(&["doctor", "--json", "--config", config, "--data", data_text]);
        let checks = support::rows(&String::from_utf8(output.stdout).unwrap());
        let check = checks.into_iter().find(|check| check["check"] == "catalog").unwrap();
        (check["verdict"].as_str().unwrap().to_owned(), check["text"].as_str().unwrap().to_owned())
    };
    let (verdict, text) = catalog_check();
    assert!(verdict == "ok" && text.starts_with("PostgreSQL "), "{verdict}: {text}");

    let arguments = ["--config", config, "--demo", "--interface", "wtdemo*"];
    let appliance = Appliance::start(&data, &arguments);
    let stored = |appliance: &Appliance| appliance.metric("wiretag_store_flow_rows_total", "");
    let named = "client_container exists and server_container exists";
    eventually(60, "named flows", || (!appliance.flows(named, &[]).is_empty()).then_some(()));
    eventually(60, "rows in files", || (count(&server) > 0).then_some(()));
    assert!(data.join("catalog.json").exists() && !data.join("catalog.sqlite").exists());
    let before = stored(&appliance);

    server.crash();
    let degraded = |health: &Value| health["status"] == "degraded";
    eventually(60, "the appliance says what fails", || degraded(&appliance.json("/api/v1/health")).then_some(()));
    assert!(appliance.log().contains("hint: is PostgreSQL running there"), "{}", appliance.log());
    server.up();
    eventually(60, "the appliance is well again", || (!degraded(&appliance.json("/api/v1/health"))).then_some(()));
    eventually(60, "more rows in files", || (stored(&appliance) > before).then_some(()));
    let log = appliance.log();
    appliance.stop();
    assert!(!log.contains("horse"), "{log}");

    let found = flows(&data, named, &["--limit", "100000"]);
    assert!(!found.is_empty(), "the directory alone says where its catalog is");
    server.stop();
    let (code, error) = wiretag_fails(&["flows", "--data", data_text]);
    assert!(code == 1 && error.contains("hint: is PostgreSQL running there"), "{error}");
    let (verdict, text) = catalog_check();
    assert!(verdict == "failed" && text.contains("hint: is PostgreSQL running there"), "{verdict}: {text}");
    let (code, error) = wiretag_fails(&["run", "--config", config, "--data", data_text]);
    assert!(code == 1 && error.contains("hint: is PostgreSQL running there"), "{error}");
}

/// A directory that began with SQLite goes on in PostgreSQL: rows, names and accounts are the same, and new ones come.
#[test]
fn a_catalog_moves_from_sqlite() {
    if !is_root() {
        return;
    }
    let Some(mut server) = Server::start() else { return };
    let directory = tempfile::tempdir().unwrap();
    let (data, config) = (directory.path().join("data"), directory.path().join("wiretag.toml"));
    std::fs::write(&config, format!("[catalog]\nurl = '{}'\n", server.url("wiretag"))).unwrap();
    let (data_text, config) = (data.to_str().unwrap(), config.to_str().unwrap());
    let demo = ["--demo", "--interface", "wtdemo*"];
    let appliance = Appliance::start(&data, &demo);
    let named = "client_container exists and server_container exists";
    eventually(60, "named flows", || (!appliance.flows(named, &[]).is_empty()).then_some(()));
    let moving = ["move-catalog", "--config", config, "--data", data_text];
    let (code, error) = wiretag_fails(&moving);
    assert!(code == 1 && error.contains("another `wiretag run`") && !data.join("catalog.json").exists(), "{error}");
    appliance.stop();
    let erased = ["erase", "server_port == 53", "--reason", "a test", "--at-once", "--data", data_text];
    wiretag_ok(&erased);
    let all = || {
        let flows = flows(&data, "", &["--limit", "100000", "--all-observations"]);
        let of = |command: &str| wiretag_ok(&[command, "--json", "--data", data_text]);
        (flows, of("identities"), of("erasures"))
    };
    let before = all();
    assert!(!before.0.is_empty() && before.1.lines().count() > 1 && before.2.contains("a test"));

    server.stop();
    let (code, error) = wiretag_fails(&moving);
    assert!(code == 1 && error.contains("hint: is PostgreSQL running there"), "{error}");
    assert!(all() == before, "everything is as it was");
    server.up();
    let schemas = |server: &Server| server.sql("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'wiretag\\_%'");
    let told = wiretag_ok(&moving);
    assert!(told.contains("flow_files") && told.contains("the catalog is in `postgres://wiretag@"), "{told}");
    assert_eq!(schemas(&server), "1");
    assert!(data.join("catalog.sqlite.moved").exists() && !data.join("catalog.sqlite").exists());
    assert!(all() == before, "the same from PostgreSQL");
    let (code, error) = wiretag_fails(&moving);
    assert!(code == 1 && error.contains("in PostgreSQL already"), "{error}");

    let appliance = Appliance::start(&data, &[&["--config", config][..], &demo].concat());
    let files = count(&server);
    eventually(60, "more rows in files", || (count(&server) > files).then_some(()));
    assert!(appliance.flows("", &["--limit", "100000", "--all-observations"]).len() > before.0.len());
    wiretag_ok(&["erase", "server_port == 53", "--reason", "again", "--data", data_text]);
    appliance.stop();
    let erasures = support::rows(&wiretag_ok(&["erasures", "--json", "--data", data_text]));
    let mut ids: Vec<u64> = erasures.iter().map(|row| row["id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2], "numbers go on");
}

/// Flow files in the catalog.
fn count(server: &Server) -> usize {
    let schema = server.sql("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'wiretag\\_%'");
    server.sql(&format!("SELECT count(*) FROM {schema}.flow_files")).parse().unwrap()
}
