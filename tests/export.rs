//! Files for others: exports hold what a search finds, over HTTP too, and the data directory is read by DuckDB and ClickHouse's engine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{Appliance, flows, has, is_root, require, rows, run, wiretag, wiretag_fails, wiretag_ok};

/// Two capture files of DNS-like datagrams three hours apart, `count` flows each, from one named machine to many.
fn filled(directory: &Path, count: u32) -> PathBuf {
    let data = directory.join("data");
    let names = directory.join("names.yaml");
    let identity = "identities:\n  - {name: cart, kind: vm, ips: [10.0.0.1], labels: {app: cart, 'a,\"b': 'ß'}}\n";
    std::fs::write(&names, identity).unwrap();
    for (number, time) in [(0, 1_700_000_000_u32), (1, 1_700_010_800)] {
        let path = directory.join(format!("{number}.pcap"));
        std::fs::write(&path, capture(time, count, number == 0)).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        wiretag_ok(&["import", "--quiet", &text(&path), "--static", &text(&names), "--data", &text(&data)]);
    }
    data
}

/// A pcap of `count` datagrams, each a flow of its own.
fn capture(time: u32, count: u32, from_the_named: bool) -> Vec<u8> {
    let mut file = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
    file.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    file.extend(65_535_u32.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    for number in 0..count {
        file.extend(time.to_le_bytes());
        file.extend((number % 1_000_000).to_le_bytes());
        file.extend([46, 0, 0, 0, 46, 0, 0, 0]);
        file.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
        file.extend([0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, if from_the_named { 1 } else { 2 }]);
        file.extend((0x0b00_0000 + number).to_be_bytes());
        file.extend([0x9c, 0x40, 0x1f, 0x90, 0, 12, 0, 0, 7, 7, 7, 7]);
    }
    file
}

/// `wiretag flows` into a file.
fn export(data: &Path, query: &str, format: &str, more: &[&str]) -> PathBuf {
    let file = data.with_file_name(format!("export.{format}"));
    let (data, path) = (data.to_str().unwrap(), file.to_str().unwrap());
    let arguments = ["flows", query, "--format", format, "-o", path, "--data", data];
    wiretag_ok(&[&arguments[..], more].concat());
    file
}

#[test]
fn an_export_is_everything_that_a_search_finds() {
    let directory = tempfile::tempdir().unwrap();
    let data = filled(directory.path(), 12_000);
    let query = "server_port == 8080";
    let searched = flows(&data, query, &["--limit", "100000"]);
    assert_eq!(searched.len(), 24_000);
    let lines = std::fs::read_to_string(export(&data, query, "json", &[])).unwrap();
    assert!(rows(&lines) == searched, "the same rows in the same order");
    for (format, limit, lines, told) in [
        ("csv", &[][..], 101, "only the newest 100 flows; hint: "),
        ("json", &[], 100, "only the newest 100 flows; hint: "),
        ("json", &["--limit", "100"], 100, ""),
    ] {
        let asked = ["flows", query, "--format", format, "--data", data.to_str().unwrap()];
        let output = wiretag(&[&asked[..], limit].concat());
        let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(stdout.lines().count() == lines && stderr.starts_with(told), "{format} {limit:?}: {stderr}");
        assert_eq!(stderr.is_empty(), told.is_empty());
    }
    let none = wiretag_ok(&["flows", "port == 1", "--format", "csv", "--data", data.to_str().unwrap()]);
    assert!(none.starts_with("flow_id,") && none.lines().count() == 1, "a header without rows: {none}");
    let piped = wiretag_ok(&["flows", query, "--format", "json", "--limit", "all", "--data", data.to_str().unwrap()]);
    assert!(piped == lines, "`--limit all` on stdout");
    let newest = std::fs::read_to_string(export(&data, query, "json", &["--limit", "7"])).unwrap();
    assert!(lines.starts_with(&newest) && newest.lines().count() == 7);
    let csv = std::fs::read_to_string(export(&data, "client_ip == 10.0.0.1", "csv", &[]));
    let csv = csv.unwrap();
    assert_eq!(csv.lines().count(), 12_001);
    assert!(csv.starts_with("flow_id,"));

    let data = data.to_str().unwrap();
    for (arguments, reason) in [
        (vec!["flows", "-o", "/tmp/x"], "a table is for a terminal"),
        (vec!["flows", "--limit", "all"], "a table is for a terminal"),
        (vec!["flows", "--limit", "0"], "a number from 1 to 4294967295, or `all`"),
        (vec!["flows", "| top server_ip", "--format", "parquet"], "an aggregation is short"),
        (vec!["flows", "--transactions", "--format", "ipfix", "-o", "/tmp/x"], "IPFIX tells of flows"),
        (vec!["flows", "server_port = ", "--format", "parquet", "-o", "/tmp/x"], "hint: "),
    ] {
        let (code, error) = wiretag_fails(&[&arguments[..], &["--data", data]].concat());
        assert!(code == 2 && error.contains(reason), "{arguments:?}: {error}");
    }
}

/// A running appliance gives the same, also what it has not yet written.
#[test]
fn an_export_over_http_is_the_same() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let data = filled(directory.path(), 3_000);
    let formats = ["json", "csv", "parquet", "ipfix"];
    let files = formats.map(|format| std::fs::read(export(&data, "", format, &[])).unwrap());
    let appliance = Appliance::start(&data, &["--interface", "no-such-interface"]);
    for (format, before) in formats.into_iter().zip(files) {
        let now = std::fs::read(export(&data, "", format, &[])).unwrap();
        match format {
            "parquet" => assert_eq!((&now[..4], &now[now.len() - 4..]), (&b"PAR1"[..], &b"PAR1"[..])),
            "ipfix" => assert!(without_times(now) == without_times(before), "{format}"),
            _ => assert!(now == before, "{format}"),
        }
    }
    let lines = appliance.get("/api/v1/flows/export?format=jsonl&from=2023-11-01T00:00:00Z&limit=5");
    assert_eq!(rows(&lines).len(), 5);
    let (status, body) = appliance.request("/api/v1/flows/export?format=xml", Some(&appliance.token));
    assert!(status == 400 && body.contains("parquet"), "{status}: {body}");
    assert_eq!(appliance.request("/api/v1/flows/export?format=csv", None).0, 401);
    let (status, body) = appliance.request("/api/v1/transactions/export?format=ipfix", Some(&appliance.token));
    assert!(status == 400 && body.contains("IPFIX tells of flows"), "{status}: {body}");
    assert_eq!(appliance.get("/api/v1/transactions/export?format=csv").lines().count(), 1);
    appliance.stop();
}

/// Messages of IPFIX without their times of export.
fn without_times(mut file: Vec<u8>) -> Vec<u8> {
    let mut start = 0;
    while start < file.len() {
        file[start + 4..start + 8].fill(0);
        start += usize::from(u16::from_be_bytes([file[start + 2], file[start + 3]]));
    }
    file
}

/// Wireshark reads a file of IPFIX as such (RFC 5655), and counts and sums what wiretag does.
#[test]
fn wireshark_reads_an_export() {
    if !has("tshark") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let data = filled(directory.path(), 3_000);
    let query = "client_ip == 10.0.0.1 and server_port == 8080";
    let searched = flows(&data, query, &["--limit", "100000"]);
    let sum = |column: &str| searched.iter().map(|row| row[column].as_u64().unwrap()).sum::<u64>();
    let file = export(&data, query, "ipfix", &[]);
    // As it is, it reads no template of more than 60 fields.
    let read = ["-o", "cflow.max_template_fields:0", "-r", file.to_str().unwrap()];
    let cells = |field: &str| {
        let text = run("tshark", &[&read[..], &["-T", "fields", "-e", field]].concat());
        text.lines()
            .flat_map(|line| line.split(','))
            .filter(|cell| !cell.is_empty())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let figures = |field: &str| cells(field).iter().map(|cell| cell.parse::<u64>().unwrap()).sum::<u64>();
    let clients = cells("cflow.srcaddr");
    assert_eq!((searched.len(), clients.len()), (3_000, 3_000));
    assert!(clients.iter().all(|ip| ip == "10.0.0.1"));
    // Both directions have one name there.
    assert_eq!(figures("cflow.octets"), sum("client_bytes") + sum("server_bytes"));
    assert_eq!(figures("cflow.packets"), sum("client_packets") + sum("server_packets"));
    assert_eq!(run("tshark", &[&read[..], &["-Y", "_ws.malformed or _ws.expert"]].concat()), "");
}

/// Others count and sum what wiretag does, in the flow directory and in an export, and see each row once after a merge.
#[test]
fn others_read_the_flow_directory() {
    let built = Command::new("tests/python.sh").arg("tests/readers").output().unwrap();
    let problem = String::from_utf8_lossy(&built.stderr).into_owned();
    if !require(&format!("DuckDB, chDB and Polars from PyPI: {problem}"), built.status.success()) {
        return;
    }
    let python = String::from_utf8(built.stdout).unwrap().trim().to_owned();
    let directory = tempfile::tempdir().unwrap();
    let data = filled(directory.path(), 5_000);
    let searched = flows(&data, "", &["--limit", "100000", "--all-observations"]);
    let sum = |column: &str| searched.iter().filter_map(|row| row[column].as_u64()).sum::<u64>();
    let named = searched.iter().filter(|row| row["client_identity"].is_string()).count();
    let labelled = searched.iter().filter(|row| row["client_labels"]["app"] == "cart").count();
    assert_eq!((searched.len(), named, labelled), (10_000, 5_000, 5_000));
    let parquet = export(&data, "", "parquet", &["--all-observations"]);
    let directory_glob = format!("{}/flows/date=*/hour=*/*.parquet", data.display());
    for place in [directory_glob, parquet.to_str().unwrap().to_owned()] {
        let read = Command::new(&python).args(["tests/readers/read.py", &place]).output().unwrap();
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        let answer: Value = serde_json::from_slice(&read.stdout).unwrap();
        for engine in ["duckdb", "clickhouse", "polars"] {
            let figures = &answer[engine];
            let expected = [
                ("rows", 10_000),
                ("flows", 10_000),
                ("client_bytes", sum("client_bytes")),
                ("client_packets", sum("client_packets")),
                ("named", named as u64),
                ("labelled", labelled as u64),
                ("first", 1_700_000_000_000_000),
            ];
            for (figure, expected) in expected {
                assert_eq!(figures[figure].as_u64(), Some(expected), "{figure} of {engine} in {place}: {figures}");
            }
        }
    }
}
