//! Flows as logs, to a receiver that reads them with the messages of OpenTelemetry's own project.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod support;

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{Appliance, Process, eventually, flows, has, is_root, require, rows, run};
use wiretag_enrich::otlp;

/// Records by flow and slice.
type Records = BTreeMap<(String, u64), Value>;

/// Where a receiver listens, and what it has.
struct Receiver {
    python: String,
    directory: tempfile::TempDir,
    port: u16,
    /// Options of `[otlp]` that lead to it.
    options: String,
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
        let options = format!("endpoint = 'http://127.0.0.1:{port}'");
        Some(Self { python, directory: tempfile::tempdir().unwrap(), port, options })
    }

    /// Makes an authority; its certificate.
    fn authority(&self, name: &str) -> PathBuf {
        let own = ["-subj", &format!("/CN={name}"), "-addext", "keyUsage=critical,keyCertSign"];
        self.certificate(name, &own)
    }

    /// Makes a certificate for a server, which an authority signs.
    fn server(&self, authority: &str, names: &str) {
        let (certificate, key) = (self.path(&format!("{authority}.pem")), self.path(&format!("{authority}.key")));
        let names = format!("subjectAltName={names}");
        let signer = ["-CA", certificate.to_str().unwrap(), "-CAkey", key.to_str().unwrap()];
        let own = ["-subj", "/CN=a server", "-addext", &names, "-addext", "basicConstraints=critical,CA:FALSE"];
        self.certificate("server", &[signer.as_slice(), &own].concat());
    }

    /// `NAME.pem` and `NAME.key`, valid for a month.
    fn certificate(&self, name: &str, more: &[&str]) -> PathBuf {
        let (certificate, key) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        let kind = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "30"];
        let files = ["-keyout", key.to_str().unwrap(), "-out", certificate.to_str().unwrap()];
        run("openssl", &[kind.as_slice(), &files, more].concat());
        certificate
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
        let mut command = Command::new(&self.python);
        command.args(["tests/receiver/receive.py", &port, directory]);
        if self.path("server.pem").exists() {
            command.args([self.path("server.pem"), self.path("server.key")]);
        }
        let process = Process(command.spawn().unwrap());
        eventually(30, "the receiver listens", || TcpStream::connect(("127.0.0.1", self.port)).ok());
        process
    }

    /// An appliance with the traffic of the demonstration, which exports to it.
    fn appliance(&self, data: &Path) -> Appliance {
        std::fs::write(self.path("headers"), "authorization: Bearer sesame\n").unwrap();
        let headers = self.path("headers");
        let text = format!("[otlp]\n{}\nheaders_file = '{}'\nbatch = 5\n", self.options, headers.display());
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
    let records = receiver.records();
    assert!(records.values().all(|record| record["encoding"] == "gzip"));
    assert_same(&data, &records);
}

/// Over TLS, to a receiver with a certificate of a private authority.
#[test]
fn records_arrive_over_tls() {
    let Some(mut receiver) = Receiver::new().filter(|_| has("openssl")) else { return };
    let authority = receiver.authority("ours");
    receiver.server("ours", "DNS:localhost");
    receiver.options = format!(
        "endpoint = 'https://localhost:{}'\nca_file = '{}'\ncompression = 'none'",
        receiver.port,
        authority.display()
    );
    let _process = receiver.listen("ok");
    let data = tempfile::tempdir().unwrap();
    let appliance = receiver.appliance(&data.path().join("data"));
    eventually(60, "records arrive", || (appliance.count("wiretag_otlp_records_total") >= 20).then_some(()));
    assert_eq!(appliance.count("wiretag_otlp_lost_records_total"), 0);
    let data = appliance.data.clone();
    appliance.stop();
    let records = receiver.records();
    assert!(records.values().all(|record| record["encoding"].is_null()));
    assert_same(&data, &records);
}

/// Who has a certificate of another authority, or for another name, gets nothing; it is told once, and what it did not get is counted.
#[test]
fn a_stranger_gets_nothing() {
    let Some(mut receiver) = Receiver::new().filter(|_| has("openssl")) else { return };
    receiver.authority("ours");
    receiver.authority("theirs");
    for (endpoint, trusted, words) in [
        // The machine's own authorities know none of the two.
        ("localhost", "", "not trusted; hint: `otlp.ca_file`"),
        ("localhost", "theirs", "not trusted; hint: `otlp.ca_file`"),
        ("127.0.0.1", "ours", "not valid for name \"127.0.0.1\""),
    ] {
        receiver.server("ours", "DNS:localhost");
        receiver.options = format!("endpoint = 'https://{endpoint}:{}'", receiver.port);
        if !trusted.is_empty() {
            let file = receiver.path(&format!("{trusted}.pem"));
            receiver.options = format!("{}\nca_file = '{}'", receiver.options, file.display());
        }
        let process = receiver.listen("ok");
        let data = tempfile::tempdir().unwrap();
        let appliance = receiver.appliance(&data.path().join("data"));
        eventually(60, "attempts", || (appliance.count("wiretag_otlp_retries_total") > 1).then_some(()));
        assert_eq!(appliance.log().matches("flows are not exported").count(), 1, "{}", appliance.log());
        assert!(appliance.log().contains(words), "{}", appliance.log());
        let (data, log) = (appliance.data.clone(), appliance.log.clone());
        appliance.stop();
        let rows = flows(&data, "primary == true", &["--limit", "100000"]).len();
        let told = format!("{rows} flows were given up");
        eventually(10, "what was not sent is told", || log.lock().unwrap().contains(&told).then_some(()));
        assert!(rows > 0 && receiver.records().is_empty());
        drop(process);
    }
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
    let Some(mut receiver) = Receiver::new() else { return };
    receiver.options += "\ncompression = 'none'";
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
