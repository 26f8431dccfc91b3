//! Who was it, asked at the command line: each option of `wiretag identities`, and a static file that changes meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use support::{Appliance, eventually, is_root, rows, wiretag_fails, wiretag_ok};

const FILE: &str = "identities:
  - { name: api-1, namespace: shop, pod: api-1, workload: api, ips: [10.0.0.1, 'fd00::1'] }
  - { name: api-2, namespace: shop, pod: api-2, workload: api, network: blue, ips: [10.0.0.2] }
  - { name: front, namespace: web, service: front, ips: [10.1.0.1] }
  - { name: office, kind: host, ips: [10.0.0.0/24, '2001:db8::/32'] }
  - { name: loop, kind: host, interfaces: [lo] }
";

/// A capture file with nothing in it: what an import leaves is the names.
fn nothing(directory: &Path) -> String {
    let mut bytes = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
    bytes.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(65_535_u32.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    let path = directory.join("empty.pcap");
    std::fs::write(&path, bytes).expect("written");
    path.to_str().expect("a path").to_owned()
}

/// Names and keys in the answer.
fn asked(data: &str, options: &[&str]) -> BTreeSet<(String, String)> {
    let answer = rows(&wiretag_ok(&[&["identities", "--json", "--data", data], options].concat()));
    let own = |row: &Value| {
        let id = row["identity"]["identity"].as_str().expect("an id");
        (id.trim_start_matches("static:").to_owned(), row["key"].as_str().expect("a key").to_owned())
    };
    answer.iter().map(own).collect()
}

fn names(data: &str, options: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = asked(data, options).into_iter().map(|(name, _)| name).collect();
    names.dedup();
    names
}

#[test]
fn each_option_chooses_who_is_asked_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let (data, file) = (data.to_str().expect("a path"), directory.path().join("names.yaml"));
    std::fs::write(&file, FILE).expect("written");
    let file = file.to_str().expect("a path");
    wiretag_ok(&["import", "--quiet", &nothing(directory.path()), "--static", file, "--data", data]);

    for (options, expected) in [
        (&["--now"][..], &["api-1", "api-2", "front", "office"][..]),
        (&["--at", "2001-01-01T00:00:00Z"], &["api-1", "api-2", "front", "office"]),
        (&["--ip", "10.0.0.1"], &["api-1", "office"]),
        (&["--ip", "10.0.1.1"], &[]),
        (&["--ip", "2001:db8:7::1"], &["office"]),
        (&["--network", "blue"], &["api-2"]),
        (&["--network", "unknown"], &[]),
        (&["--name", "api-*"], &["api-1", "api-2"]),
        (&["--name", "office"], &["office"]),
        (&["--namespace", "shop"], &["api-1", "api-2"]),
        (&["--workload", "api"], &["api-1", "api-2"]),
        (&["--workload", "api", "--ip", "10.0.0.2"], &["api-2"]),
        (&["--service", "front"], &["front"]),
        (&["--identity", "static:front"], &["front"]),
        (&["--source", "static"], &["api-1", "api-2", "front", "office"]),
        (&["--source", "docker"], &[]),
        (&["--mac", "02:00:00:00:00:01"], &[]),
        (&["--interface", "1"], &[]),
        (&["--known-at", "now", "--namespace", "shop"], &["api-1", "api-2"]),
        (&["--known-at", "2001-01-01T00:00:00Z", "--namespace", "shop"], &[]),
    ] {
        assert_eq!(names(data, options), expected, "{options:?}");
    }
    let keys: Vec<String> = asked(data, &["--name", "office"]).into_iter().map(|(_, key)| key).collect();
    assert_eq!(keys, ["10.0.0.0/24", "2001:db8::/32"]);

    for (options, part) in [
        (&["--mac", "02:00"][..], "is not a link-layer address"),
        (&["--interface", "wt-nowhere"], "there is no interface `wt-nowhere`"),
        (&["--known-at", "now"], "`--known-at` needs to know of whom"),
    ] {
        let (code, error) = wiretag_fails(&[&["identities", "--data", data], options].concat());
        assert!(code == 2 && error.contains(part), "{options:?}: {code} {error}");
    }
}

#[test]
fn a_static_file_that_changes_is_read_again() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let file = directory.path().join("names.yaml");
    std::fs::write(&file, FILE).expect("written");
    let arguments = ["--interface", "lo", "--static", file.to_str().expect("a path")];
    let appliance = Appliance::start(&data, &arguments);
    let data = data.to_str().expect("a path");
    let up = || appliance.metric("wiretag_identity_source_up", "source=\"static\"");
    assert!(up() > 0.5);
    eventually(30, "the interface has its name", || {
        (names(data, &["--now", "--interface", "lo"]) == ["loop"]).then_some(())
    });

    std::fs::write(&file, "identities: [").expect("written");
    eventually(30, "the mistake is told", || (up() < 0.5).then_some(()));
    said(&appliance, "in the identity file");
    let before = ["api-1", "api-2", "front", "loop", "office"];
    assert_eq!(names(data, &["--now", "--source", "static"]), before, "the names of before hold");

    let changed =
        "identities:\n  - { name: branch, kind: host, ips: [10.0.0.0/24] }\n  - { name: own, interfaces: [lo] }\n";
    std::fs::write(&file, changed).expect("written");
    eventually(30, "the file is right again, and read", || {
        (names(data, &["--now", "--source", "static"]) == ["branch", "own"]).then_some(())
    });
    assert!(up() > 0.5);
    assert_eq!(names(data, &["--now", "--interface", "lo"]), ["own"]);
    // What the file said before is history.
    let row = |name: &str| {
        rows(&wiretag_ok(&["identities", "--json", "--data", data, "--name", name, "--ip", "10.0.0.7"])).remove(0)
    };
    let (office, branch) = (row("office"), row("branch"));
    assert_eq!((&office["valid_to"], &branch["valid_to"]), (&branch["valid_from"], &Value::Null));
    appliance.stop();
}

/// The log comes line by line.
fn said(appliance: &Appliance, what: &str) {
    eventually(10, what, || appliance.log().contains(what).then_some(()));
}

/// A mistake in the file is no reason to capture nothing: what the last run knew holds.
#[test]
fn a_static_file_with_a_mistake_does_not_keep_the_appliance_from_its_start() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (path, file) = (directory.path().join("data"), directory.path().join("names.yaml"));
    let (data, written) = (path.to_str().expect("a path"), file.to_str().expect("a path"));
    std::fs::write(&file, FILE).expect("written");
    Appliance::start(&path, &["--interface", "lo", "--static", written]).stop();

    std::fs::write(&file, "identities: [").expect("written");
    let appliance = Appliance::start(&path, &["--interface", "lo", "--static", written]);
    let up = || appliance.metric("wiretag_identity_source_up", "source=\"static\"");
    assert!(up() < 0.5);
    assert!(appliance.log().contains("in the identity file"), "{}", appliance.log());
    let health = appliance.get("/api/v1/health");
    assert!(health.contains("degraded") && health.contains("static is not heard"), "{health}");
    assert_eq!(names(data, &["--now", "--ip", "10.0.0.1"]), ["api-1", "office"]);

    std::fs::write(&file, "identities: [{ name: branch, ips: [10.0.0.1] }]").expect("written");
    eventually(30, "the file is right, and read", || {
        (names(data, &["--now", "--source", "static"]) == ["branch"]).then_some(())
    });
    assert!(up() > 0.5 && !appliance.get("/api/v1/health").contains("static is not heard"));
    appliance.stop();
    std::fs::remove_file(&file).expect("removed");
    let appliance = Appliance::start(&path, &["--interface", "lo", "--static", written]);
    said(&appliance, "cannot read the identity file");
    assert_eq!(names(data, &["--now", "--source", "static"]), ["branch"]);
    let (_, error) = wiretag_fails(&["import", &nothing(directory.path()), "--static", written, "--data", data]);
    assert!(error.contains("cannot read the identity file"), "{error}");
}
