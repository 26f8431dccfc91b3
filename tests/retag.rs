//! Flows that were stored before anybody said who they were get their names when that is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod support;

use std::path::Path;

use support::{Appliance, eventually, is_root, require, rows, wiretag_ok};

/// A pcap of datagrams one second apart, each a flow of its own: of 10.0.0.1, and every third of 10.0.0.2.
fn capture(path: &Path, count: u32) {
    let mut file = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
    file.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    file.extend(65_535_u32.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    for number in 0..count {
        file.extend((1_700_000_000 + number).to_le_bytes());
        file.extend([0, 0, 0, 0, 46, 0, 0, 0, 46, 0, 0, 0]);
        file.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
        file.extend([0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, if number % 3 == 0 { 2 } else { 1 }]);
        file.extend((0x0b00_0000 + number).to_be_bytes());
        file.extend([0x9c, 0x40, 0x1f, 0x90, 0, 12, 0, 0, 7, 7, 7, 7]);
    }
    std::fs::write(path, file).unwrap();
}

/// Rows of which this is true: as they are stored, and as an aggregation counts them, from roll-ups if it can.
fn count(data: &Path, condition: &str) -> (usize, u64) {
    let data = data.to_str().unwrap();
    let stored = rows(&wiretag_ok(&["flows", condition, "--limit", "1000", "--format", "json", "--data", data]));
    let query = format!("{condition} | count");
    let counted = rows(&wiretag_ok(&["flows", &query, "--format", "json", "--data", data]));
    (stored.len(), counted.first().and_then(|row| row["count"].as_u64()).unwrap_or_default())
}

fn named(data: &Path, workload: &str) -> (usize, u64) {
    count(data, &format!("client_workload == {workload}"))
}

fn names(file: &Path, more: &str) {
    let text = format!("identities:\n  - {{ name: billing-db, kind: vm, workload: billing, ips: [10.0.0.1] }}\n{more}");
    std::fs::write(file, text).unwrap();
}

#[test]
fn what_is_told_late_names_what_was_stored_and_a_name_stays() {
    if !require("the rights of root", is_root()) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (data, pcap) = (directory.path().join("data"), directory.path().join("old.pcap"));
    let file = directory.path().join("names.yaml");
    capture(&pcap, 300);
    wiretag_ok(&["import", "--quiet", pcap.to_str().unwrap(), "--data", data.to_str().unwrap()]);
    let listen = ["--interface", "lo"];
    let told = ["--interface", "lo", "--static", file.to_str().unwrap(), "--verbose"];

    // Nobody has said anything: the rows have no names, and are added up so.
    let appliance = Appliance::start(&data, &listen);
    eventually(120, "a roll-up of that hour", || {
        (appliance.metric("wiretag_store_rollup_files_total", "") > 0.0).then_some(())
    });
    assert_eq!(count(&data, "client_tagged_by == none and port == 8080"), (300, 300));
    appliance.stop();

    // It is told, and the process is killed before it has done anything about it.
    names(&file, "");
    Appliance::start(&data, &told).kill();
    assert_eq!(named(&data, "billing").0, 0);

    let appliance = Appliance::start(&data, &told);
    eventually(120, "the names", || (named(&data, "billing") == (200, 200)).then_some(()));
    assert_eq!(count(&data, "client_ip == 10.0.0.1 and client_tagged_by == static and client_identity exists").0, 200);
    assert_eq!(count(&data, "client_ip == 10.0.0.2 and client_tagged_by == none").0, 100, "of others nothing was said");
    eventually(30, "it is counted", || {
        (appliance.metric("wiretag_store_retagged_rows_total", "table=\"flows\"") as u64 == 200).then_some(())
    });
    eventually(30, "it is said", || appliance.log().contains("stored rows were named").then_some(()));
    appliance.stop();

    // Another name for the same address, and one for the other: who has a name keeps it.
    names(&file, "  - { name: cart, kind: vm, workload: cart, ips: [10.0.0.2] }\n");
    let text = std::fs::read_to_string(&file).unwrap().replace("billing", "payments");
    std::fs::write(&file, text).unwrap();
    let appliance = Appliance::start(&data, &told);
    eventually(120, "the other name", || (named(&data, "cart") == (100, 100)).then_some(()));
    assert_eq!((named(&data, "billing"), named(&data, "payments").0), ((200, 200), 0));
    assert_eq!(count(&data, "port == 8080"), (300, 300));
    appliance.stop();
}
