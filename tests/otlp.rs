//! Flows as logs, to a receiver that reads them with the messages of OpenTelemetry's own project.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod support;

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{Appliance, Process, eventually, flows, is_root, require, rows};
use wiretag_enrich::otlp;

/// Records by flow and slice.
type Records = BTreeMap<(String, u64), Value>;

/// Where a receiver listens, and what it has.
struct Receiver {
    python: String,
    directory: tempfile::TempDir,
    port: u16,
}

impl Receiver {
    /// One that does not listen yet.
    fn new() -> Option<Self> {
        let built = Command::new("tests/python.sh").arg("tests/receiver").output().unwrap();
        let problem = String::from_utf8_lossy(&built.stderr).into_owned();
        if !is_root() || !require(&format!("OpenTelemetry's messages from PyPI: {problem}"), built.status.success()) {
            return None;
        }
        let python = String::from_utf8(built.stdout).unwrap().trim().to_owned();
        // A port that is free now.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Some(Self { python, directory: tempfile::tempdir().unwrap(), port })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn mode(&self, mode: &str) {
        // Replaced at once, so that it is never read half.
        std::fs::write(self.path("next"), mode).unwrap();
        std::fs::rename(self.path("next"), self.path("mode")).unwrap();
    }

    fn listen(&self, mode: &str) -> Process {
        self.mode(mode);
        let (port, directory) = (self.port.to_string(), self.directory.path().to_str().unwrap());
        let child = Command::new(&self.python).args(["tests/receiver/receive.py", &port, directory]).spawn();
        let process = Process(child.unwrap());
        eventually(30, "the receiver listens", || TcpStream::connect(("127.0.0.1", self.port)).ok());
        process
    }

    /// An appliance with the traffic of the demonstration, which exports to it.
    fn appliance(&self, data: &Path) -> Appliance {
        std::fs::write(self.path("headers"), "authorization: Bearer sesame\n").unwrap();
        let headers = self.path("headers");
        let text = format!(
            "[otlp]\nendpoint = 'http://127.0.0.1:{}'\nheaders_file = '{}'\nbatch = 5\n",
            self.port,
            headers.display()
        );
        std::fs::write(self.path("wiretag.toml"), text).unwrap();
        let config = self.path("wiretag.toml");
        Appliance::start(data, &["--config", config.to_str().unwrap(), "--demo", "--interface", "wtdemo*"])
    }

    /// What it has taken.
    fn records(&self) -> Records {
        let text = std::fs::read_to_string(self.path("records")).unwrap_or_default();
        let keyed = rows(&text).into_iter().map(|record| {
            let attributes = &record["attributes"];
            let flow = attributes["wiretag.flow_id"].as_str().expect("a flow").to_owned();
            ((flow, attributes["wiretag.slice"].as_u64().expect("a slice")), record)
        });
        keyed.collect()
    }
}

fn lost(appliance: &Appliance, reason: &str) -> usize {
    appliance.metric("wiretag_otlp_lost_records_total", &format!("reason=\"{reason}\"")) as usize
}

/// Each primary row is a record, and each of its columns that has a value an attribute.
fn assert_same(data: &Path, records: &Records) {
    let stored = flows(data, "primary == true", &["--limit", "100000"]);
    assert_eq!(stored.len(), records.len());
    for row in &stored {
        let key = (row["flow_id"].as_str().unwrap().to_owned(), row["slice"].as_u64().unwrap());
        let record = records.get(&key).unwrap_or_else(|| panic!("not received: {row}"));
        assert_eq!((&record["event"], &record["severity"]), (&otlp::EVENT.into(), &9.into()));
        assert_eq!(record["resource"]["service.name"], "wiretag");
        assert_eq!((&record["resource"]["host.name"], &record["scope"]), (&row["node"], &"wiretag".into()));
        let attributes = &record["attributes"];
        assert_eq!(record["time"], attributes["wiretag.end"]);
        let version = if row["client_ip"].as_str().unwrap().contains(':') { "ipv6" } else { "ipv4" };
        assert_eq!(attributes["network.type"], version, "{row}");
        for (column, value) in row.as_object().unwrap() {
            // Times are text in one and numbers in the other.
            if column != "start" && column != "end" {
                assert_eq!(&attributes[otlp::name(column)], value, "{column} of {row}");
            }
        }
    }
}

/// What is exported is what `wiretag flows` prints; the last rows are sent when the appliance stops.
#[test]
fn records_are_the_rows() {
    let Some(receiver) = Receiver::new() else { return };
    let _process = receiver.listen("ok");
    let data = tempfile::tempdir().unwrap();
    let appliance = receiver.appliance(&data.path().join("data"));
    let health = appliance.json("/api/v1/health");
    assert_eq!(health["peers"]["otlp"], format!("http://127.0.0.1:{}", receiver.port));
    eventually(60, "records arrive", || (appliance.count("wiretag_otlp_records_total") >= 20).then_some(()));
    assert_eq!(appliance.count("wiretag_otlp_lost_records_total"), 0);
    assert!(!appliance.log().contains("sesame"));
    let data = appliance.data.clone();
    appliance.stop();
    assert_same(&data, &receiver.records());
}

/// A receiver that is not there, is busy, goes away and comes back has everything in the end.
#[test]
fn a_receiver_that_comes_back_has_everything() {
    let Some(receiver) = Receiver::new() else { return };
    let data = tempfile::tempdir().unwrap();
    let appliance = receiver.appliance(&data.path().join("data"));
    let more = |than: usize| {
        eventually(60, "another attempt", || (appliance.count("wiretag_otlp_retries_total") > than).then_some(()));
        appliance.count("wiretag_otlp_retries_total")
    };
    let attempts = more(0);
    let process = receiver.listen("503");
    let attempts = more(attempts);
    receiver.mode("429");
    more(attempts);
    assert!(receiver.records().is_empty());
    receiver.mode("ok");
    eventually(60, "records arrive", || (appliance.count("wiretag_otlp_records_total") >= 10).then_some(()));
    drop(process);
    more(appliance.count("wiretag_otlp_retries_total"));
    let _process = receiver.listen("ok");
    let had = receiver.records().len();
    eventually(60, "more records arrive", || (receiver.records().len() > had).then_some(()));
    eventually(60, "nothing waits", || (appliance.count("wiretag_otlp_waiting_bytes") == 0).then_some(()));
    assert_eq!(appliance.count("wiretag_otlp_lost_records_total"), 0);
    assert!(appliance.log().contains("again"), "{}", appliance.log());
    let data = appliance.data.clone();
    appliance.stop();
    assert_same(&data, &receiver.records());
}

/// What a receiver refuses, whole or in part, is counted, and the rest goes on.
#[test]
fn what_is_refused_is_counted() {
    let Some(receiver) = Receiver::new() else { return };
    let _process = receiver.listen("400");
    let data = tempfile::tempdir().unwrap();
    let appliance = receiver.appliance(&data.path().join("data"));
    eventually(60, "requests are refused", || (lost(&appliance, "refused") > 0).then_some(()));
    assert!(receiver.records().is_empty());
    receiver.mode("reject");
    eventually(60, "records are rejected", || (lost(&appliance, "rejected") > 0).then_some(()));
    assert!(appliance.log().contains("only one a day"), "{}", appliance.log());
    assert_eq!(lost(&appliance, "unreachable") + lost(&appliance, "queue"), 0);
    appliance.stop();
    assert!(!receiver.records().is_empty());
}
