//! The appliance with its catalog in PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

#[path = "../store/tests/store/catalog/server.rs"]
mod server;
mod support;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use server::Server;
// The server's module waits by it too.
use support as wait;
use support::{Appliance, Process, corpus, eventually, flows, is_root, wiretag, wiretag_fails, wiretag_ok};

/// What is shown as the demonstration alone.
const DEMO: [&str; 3] = ["--demo", "--interface", "wtdemo*"];
/// Flows of it whose ends are both named.
const NAMED: &str = "client_container exists and server_container exists";
const SCHEMAS: &str = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'wiretag\\_%'";

/// A server, and a data directory whose configuration names it; all goes with the test.
struct Place {
    server: Server,
    _directory: tempfile::TempDir,
    data: PathBuf,
    /// Paths as text.
    data_text: String,
    config: String,
}

impl Place {
    /// As a user of the server. `None`: this is not root, or there is no PostgreSQL.
    fn new(user: &str, password: Option<&str>) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let server = Server::start()?;
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let (data_text, config) = (path("data"), path("wiretag.toml"));
        let secret = password.map_or(String::new(), |password| {
            std::fs::write(path("password"), format!("{password}\n")).unwrap();
            format!("password_file = '{}'\n", path("password"))
        });
        std::fs::write(&config, format!("[catalog]\nurl = '{}'\n{secret}", server.url(user))).unwrap();
        Some(Self { server, data: PathBuf::from(&data_text), _directory: directory, data_text, config })
    }

    fn move_catalog(&self) -> [&str; 5] {
        ["move-catalog", "--config", &self.config, "--data", &self.data_text]
    }

    /// All that a catalog leads to.
    fn everything(&self) -> (Vec<Value>, [String; 3]) {
        let of = |arguments: &[&str]| wiretag_ok(&[arguments, &["--data", &self.data_text]].concat());
        let figures = "select count(*), sum(packets), sum(bytes) from segments";
        (
            flows(&self.data, "", &["--limit", "100000", "--all-observations"]),
            [of(&["identities", "--json"]), of(&["erasures", "--json"]), of(&["sql", figures, "--format", "json"])],
        )
    }

    /// Flow files in the catalog.
    fn files(&self) -> usize {
        let schema = self.server.sql("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'wiretag\\_%'");
        self.server.sql(&format!("SELECT count(*) FROM {schema}.flow_files")).parse().unwrap()
    }
}

/// It captures, stores and names; the server goes and comes back meanwhile; everything is found again, and no log has the
/// password.
#[test]
fn an_appliance_keeps_its_catalog_in_postgresql() {
    let Some(mut place) = Place::new("careful", Some("correct horse")) else { return };
    let (data, config, data_text) = (place.data.clone(), place.config.clone(), place.data_text.clone());
    let (config, data_text) = (config.as_str(), data_text.as_str());

    let catalog_check = || {
        let output = wiretag(&["doctor", "--json", "--config", config, "--data", data_text]);
        let checks = support::rows(&String::from_utf8(output.stdout).unwrap());
        let check = checks.into_iter().find(|check| check["check"] == "catalog").unwrap();
        (check["verdict"].as_str().unwrap().to_owned(), check["text"].as_str().unwrap().to_owned())
    };
    let (verdict, text) = catalog_check();
    assert!(verdict == "ok" && text.starts_with("PostgreSQL "), "{verdict}: {text}");

    let appliance = Appliance::start(&data, &[&["--config", config][..], &DEMO].concat());
    let stored = |appliance: &Appliance| appliance.metric("wiretag_store_flow_rows_total", "");
    eventually(60, "named flows", || (!appliance.flows(NAMED, &[]).is_empty()).then_some(()));
    eventually(60, "rows in files", || (place.files() > 0).then_some(()));
    assert!(data.join("catalog.json").exists() && !data.join("catalog.sqlite").exists());
    let before = stored(&appliance);
    let copy = data.with_extension("copy");
    let copy = copy.to_str().unwrap();
    support::run("cp", &["-a", data_text, copy]);
    let (code, error) = wiretag_fails(&["erase", "start exists", "--reason", "r", "--data", copy]);
    assert!(code == 1 && error.contains("is a copy") && error.contains("hint: name the original"), "{error}");

    place.server.crash();
    let degraded = |health: &Value| health["status"] == "degraded";
    // What fails first may have heard the server end.
    eventually(60, "the appliance says what fails", || {
        let health = appliance.json("/api/v1/health");
        let told = health["problems"].to_string().contains("hint: is PostgreSQL running there");
        (degraded(&health) && told).then_some(())
    });
    assert!(appliance.log().contains(" are not written: "), "{}", appliance.log());
    place.server.up();
    eventually(60, "the appliance is well again", || (!degraded(&appliance.json("/api/v1/health"))).then_some(()));
    eventually(60, "more rows in files", || (stored(&appliance) > before).then_some(()));
    let log = appliance.log();
    appliance.stop();
    assert!(!log.contains("horse"), "{log}");

    let found = flows(&data, NAMED, &["--limit", "100000"]);
    assert!(!found.is_empty(), "the directory alone says where its catalog is");
    place.server.stop();
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
    let Some(mut place) = Place::new("wiretag", None) else { return };
    let data = place.data.clone();
    let appliance = Appliance::start(&data, &DEMO);
    eventually(60, "named flows", || (!appliance.flows(NAMED, &[]).is_empty()).then_some(()));
    let (code, error) = wiretag_fails(&place.move_catalog());
    assert!(code == 1 && error.contains("another `wiretag run`") && !data.join("catalog.json").exists(), "{error}");
    appliance.stop();
    let erase = |reason: &str| {
        let arguments = ["erase", "server_port == 53", "--reason", reason, "--data", &place.data_text];
        wiretag_ok(&[&arguments[..], &["--at-once"]].concat());
    };
    erase("a test");
    let before = place.everything();
    let [identities, erasures, _] = &before.1;
    assert!(!before.0.is_empty() && identities.lines().count() > 1 && erasures.contains("a test"));

    place.server.stop();
    let (code, error) = wiretag_fails(&place.move_catalog());
    assert!(code == 1 && error.contains("hint: is PostgreSQL running there"), "{error}");
    assert!(place.everything() == before, "everything is as it was");
    place.server.up();
    let told = wiretag_ok(&place.move_catalog());
    assert!(told.contains("flow_files") && told.contains("the catalog is in `postgres://wiretag@"), "{told}");
    assert_eq!(place.server.sql(SCHEMAS), "1");
    assert!(data.join("catalog.sqlite.moved").exists() && !data.join("catalog.sqlite").exists());
    assert!(place.everything() == before, "the same from PostgreSQL");
    let (code, error) = wiretag_fails(&place.move_catalog());
    assert!(code == 1 && error.contains("in PostgreSQL already"), "{error}");

    let appliance = Appliance::start(&data, &[&["--config", &place.config][..], &DEMO].concat());
    let files = place.files();
    eventually(60, "more rows in files", || (place.files() > files).then_some(()));
    let flows = || appliance.flows("", &["--limit", "100000", "--all-observations"]);
    eventually(60, "more flows", || (flows().len() > before.0.len()).then_some(()));
    wiretag_ok(&["erase", "server_port == 53", "--reason", "again", "--data", &place.data_text]);
    appliance.stop();
    let erasures = support::rows(&wiretag_ok(&["erasures", "--json", "--data", &place.data_text]));
    let mut ids: Vec<u64> = erasures.iter().map(|row| row["id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2], "numbers go on");
}

/// A move that fails when some tables are copied, in whatever way, leaves nothing behind, and the old catalog goes on.
#[test]
fn a_move_that_fails_half_way_changes_nothing() {
    let Some(corpus) = corpus() else { return };
    let Some(place) = Place::new("wiretag", None) else { return };
    let import = |name: &str| {
        let capture = corpus.join("pcaps").join(name);
        wiretag_ok(&["import", "--quiet", "--data", &place.data_text, capture.to_str().unwrap()]);
    };
    import("retina__tls_ciphers.pcap");
    wiretag_ok(&["erase", "server_port == 4430", "--reason", "a test", "--at-once", "--data", &place.data_text]);
    let mut before = place.everything();
    let unchanged = |before: &(Vec<Value>, [String; 3])| {
        assert!(place.everything() == *before, "everything is as it was");
        assert!(!place.data.join("catalog.json").exists() && !place.data.join("catalog.sqlite.moved").exists());
    };
    for (on_table, on_rows, reason) in [
        ("RAISE 'no more tables'", "", "no more tables"),
        ("", "RAISE check_violation USING MESSAGE = 'no more rows'", "no more rows"),
        ("", "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(60)", "terminating connection"),
    ] {
        sabotage(&place.server, on_table, on_rows);
        let (code, error) = wiretag_fails(&place.move_catalog());
        assert!(code == 1 && error.contains(reason), "{error}");
        unchanged(&before);
        assert_eq!(place.server.sql(SCHEMAS), "0", "{reason}: what was copied is gone");
    }

    // Killed where it stands: nobody asks what is left in the database.
    sabotage(&place.server, "", "PERFORM pg_sleep(60)");
    let mover = Command::new(env!("CARGO_BIN_EXE_wiretag")).args(place.move_catalog()).stderr(Stdio::null()).spawn();
    let mover = Process(mover.unwrap());
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    eventually(30, "it copies", || (place.server.sql(asleep) == "1").then_some(()));
    drop(mover);
    unchanged(&before);
    import("zeek__get.pcap");
    let after = place.everything();
    assert!(after.0.len() > before.0.len(), "the old catalog takes new files");
    before = after;

    place.server.sql("DROP EVENT TRIGGER sabotage");
    wiretag_ok(&place.move_catalog());
    assert!(place.everything() == before, "the same from PostgreSQL");
}

/// From now on statements run when the table `loss`, which is in the middle, is made or rows are written into it.
fn sabotage(server: &Server, on_table: &str, on_rows: &str) {
    let on_table = if on_table.is_empty() { "NULL" } else { on_table };
    let on_rows = if on_rows.is_empty() { "NULL" } else { on_rows };
    server.sql(&format!(
        "CREATE OR REPLACE FUNCTION public.on_rows() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {on_rows}; RETURN NULL; END $$;
         CREATE OR REPLACE FUNCTION public.on_table() RETURNS event_trigger LANGUAGE plpgsql AS $$
         DECLARE made record;
         BEGIN
             FOR made IN SELECT * FROM pg_event_trigger_ddl_commands() LOOP
                 IF made.command_tag = 'CREATE TABLE' AND made.object_identity LIKE '%.loss' THEN
                     {on_table};
                     EXECUTE format('CREATE TRIGGER on_rows BEFORE INSERT ON %s FOR EACH STATEMENT EXECUTE FUNCTION public.on_rows()', made.object_identity);
                 END IF;
             END LOOP;
         END $$;
         DROP EVENT TRIGGER IF EXISTS sabotage;
         CREATE EVENT TRIGGER sabotage ON ddl_command_end EXECUTE FUNCTION public.on_table()"
    ));
}
