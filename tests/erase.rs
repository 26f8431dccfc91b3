//! Erasure from outside: what concerns somebody goes, with its packets, the rest stays, and the record tells.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use support::{Appliance, eventually, is_root, rows, wiretag, wiretag_fails, wiretag_ok};

/// Datagrams from 10.0.0.1 to 10.0.1.0, 10.0.1.1, … in turn, each flow of three packets.
fn capture(path: &Path, flows: u8) {
    capture_at(path, flows, 1_700_000_000);
}

/// The same by a clock that told this, s.
fn capture_at(path: &Path, flows: u8, clock: u32) {
    let mut file = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
    file.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    file.extend(65_535_u32.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    for number in 0..3 * flows {
        file.extend((clock + u32::from(number)).to_le_bytes());
        file.extend([0, 0, 0, 0, 46, 0, 0, 0, 46, 0, 0, 0]);
        file.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
        file.extend([0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 1, number % flows]);
        file.extend([0x9c, 0x40, 0x1f, 0x90, 0, 12, 0, 0, 7, 7, 7, number]);
    }
    std::fs::write(path, file).expect("written");
}

/// The packets that come out, as a replay sees them.
fn packets(data: &str, query: &str) -> u64 {
    let out = Path::new(data).with_extension("pcapng");
    let out = out.to_str().expect("a path");
    let output = wiretag(&["pcap", query, "-o", out, "--data", data]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    rows(&wiretag_ok(&["replay", out])).iter().filter_map(|flow| flow["client_packets"].as_u64()).sum()
}

fn imported(directory: &Path) -> String {
    let (path, data) = (directory.join("a.pcap"), directory.join("data"));
    capture(&path, 5);
    let data = data.to_str().expect("a path").to_owned();
    wiretag_ok(&["import", "--quiet", path.to_str().expect("a path"), "--data", &data]);
    data
}

#[test]
fn what_concerns_somebody_goes_and_stays_on_record() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = &imported(directory.path());
    let filter = "ip == 10.0.1.3";
    assert_eq!((packets(data, ""), packets(data, filter)), (15, 3));
    let dry = wiretag(&["erase", filter, "--dry-run", "--data", data]);
    let said = String::from_utf8_lossy(&dry.stderr).into_owned();
    assert!(dry.status.success() && said.contains("would remove 1 flows with their packets"), "{said}");
    assert_eq!(support::flows(Path::new(data), "", &[]).len(), 5);
    assert!(rows(&wiretag_ok(&["erasures", "--json", "--data", data])).is_empty());

    let done = wiretag(&["erase", filter, "--reason", "request 4711", "--by", "Jane", "--at-once", "--data", data]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success() && said.contains("done: removed 1 flows, 0 transactions, 3 packets"), "{said}");
    let table = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(table.contains("flows/date=") && table.contains(".pcapng.zst"), "{table}");
    assert!(support::flows(Path::new(data), filter, &[]).is_empty());
    assert_eq!(support::flows(Path::new(data), "", &[]).len(), 4);
    assert_eq!(packets(data, ""), 12);

    let record = rows(&wiretag_ok(&["erasures", "--json", "--data", data]));
    assert_eq!(record.len(), 1);
    let told = ["filter", "reason", "state"].map(|name| record[0][name].as_str().expect("text").to_owned());
    assert_eq!(told, [filter, "request 4711", "done"]);
    assert!(record[0]["who"].as_str().is_some_and(|who| who.starts_with("Jane, user ")), "{}", record[0]);
    let one = rows(&wiretag_ok(&["erasures", "1", "--json", "--data", data]));
    let files = one[0]["files"].as_array().expect("files");
    assert_eq!(files.len(), 2, "{files:?}");
    for file in files {
        let (path, became) = (file["path"].as_str().expect("a path"), file["became"].as_str().expect("a path"));
        assert!(!Path::new(data).join(path).exists() && Path::new(data).join(became).exists(), "{file}");
    }
    let table = wiretag_ok(&["erasures", "--data", data]);
    assert!(table.contains("request 4711") && table.contains("done"), "{table}");
    let all = wiretag_ok(&["erasures", "1", "--data", data]);
    assert!(all.contains("Jane, user ") && all.contains("request 4711") && all.contains("flows/date="), "{all}");
}

/// Nothing of the future is erased; whoever expects it is told.
#[test]
fn what_begins_later_stays_and_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = &imported(directory.path());
    let path = directory.path().join("ahead.pcap");
    capture_at(&path, 5, 4_000_000_000);
    wiretag_ok(&["import", "--quiet", path.to_str().expect("a path"), "--data", data]);
    let erase = |more: &[&str]| {
        let output = wiretag(&[&["erase", "ip == 10.0.1.3", "--data", data], more].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said
    };
    let warning = "warning: 1 flows and 0 transactions that the filter finds begin after ";
    assert!(!erase(&["--dry-run", "--to", "2024-01-01"]).contains("warning: "));
    let dry = erase(&["--dry-run"]);
    assert!(dry.contains("would remove 1 flows") && dry.contains(warning), "{dry}");
    let done = erase(&["--reason", "r", "--to", "2200-01-01", "--at-once"]);
    assert!(done.contains("done: removed 1 flows") && done.contains(warning), "{done}");
    assert_eq!(support::flows(Path::new(data), "ip == 10.0.1.3", &[]).len(), 1);
}

#[test]
fn what_cannot_be_meant_is_wrong_usage() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = &imported(directory.path());
    for (arguments, why) in [
        (&["erase", "prt == 1", "--reason", "r"][..], "prt"),
        (&["erase", "", "--reason", "r"], "the filter is empty"),
        (&["erase", "port == 1"], "--reason"),
        (&["erase", "port == 1", "--reason", " "], "needs a reason"),
        (&["erase", "client_resets > 0", "--reason", "r"], "erase only flows"),
        (&["erase", "port == 1", "--from", "2030-01-01", "--reason", "r"], "the time range is empty"),
        (&["erase", "start > -1h", "--reason", "r"], "relative time"),
        (&["erasures", "7"], "there is no erasure 7"),
    ] {
        let (code, error) = wiretag_fails(&[arguments, &["--data", data]].concat());
        assert!(code == 2 && error.contains(why), "{arguments:?}: {code} {error}");
    }
    assert!(rows(&wiretag_ok(&["erasures", "--json", "--data", data])).is_empty());
    assert_eq!(support::flows(Path::new(data), "", &[]).len(), 5);
    let (code, error) = wiretag_fails(&["erase", "port == 1", "--reason", "r", "--data", "/nonexistent"]);
    assert!(code == 1 && error.contains("/nonexistent"), "{error}");
}

/// A running appliance erases; the command only asks and waits.
#[test]
fn a_running_appliance_erases() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let data = &imported(directory.path());
    let appliance = Appliance::start(Path::new(data), &["--interface", "nothing-like-it"]);
    let done = wiretag(&["erase", "ip == 10.0.1.3", "--reason", "request 4711", "--json", "--data", data]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let row = rows(&String::from_utf8(done.stdout).expect("text")).remove(0);
    assert_eq!((&row["flows"], &row["packets"], &row["state"]), (&1.into(), &3.into(), &"deleting".into()), "{row}");
    assert!(row["who"].as_str().is_some_and(|who| who.contains("with the token, from 127.0.0.1")), "{row}");
    assert_eq!(appliance.flows("", &[]).len(), 4);
    assert_eq!(packets(data, ""), 12);
    assert_eq!(appliance.json("/api/v1/erasures")["erasures"].as_array().expect("erasures").len(), 1);
    let old: Vec<String> =
        row["files"].as_array().expect("files").iter().map(|file| file["path"].to_string()).collect();
    assert_eq!(old.len(), 2, "{row}");
    appliance.kill();
    // Files that waited are deleted by the next start, and what is erased stays so.
    let appliance = Appliance::start(Path::new(data), &["--interface", "nothing-like-it"]);
    for path in old {
        assert!(!Path::new(data).join(path.trim_matches('"')).exists(), "{path}");
    }
    assert_eq!(appliance.flows("", &[]).len(), 4);
    let done = wiretag(&["erase", "ip == 10.0.1.4", "--reason", "request 4712", "--data", data]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(
        done.status.success() && said.contains("removed 1 flows") && said.contains("flows that were open"),
        "{said}"
    );
    assert!(said.contains("hint: `wiretag erasures 2`"), "{said}");
    appliance.stop();
}

/// A connection that was open when it was erased ends: nobody is told of it any more.
#[test]
fn what_was_open_when_it_was_erased_is_told_to_nobody() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().to_str().expect("a path");
    let appliance = Appliance::start(directory.path(), &["--interface", "lo"]);
    let server = TcpListener::bind("127.0.0.1:0").expect("a server");
    let address = server.local_addr().expect("its address");
    let talk = || {
        let mut client = TcpStream::connect(address).expect("a connection");
        client.write_all(b"x").expect("sent");
        (client.local_addr().expect("its address").port(), client, server.accept().expect("accepted"))
    };
    let query = format!("server_port == {}", address.port());
    let mut follower = std::process::Command::new(env!("CARGO_BIN_EXE_wiretag"))
        .args(["flows", "--follow", &query, "--format", "json", "--data", data])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("wiretag starts");
    let open = talk();
    eventually(20, "it is seen while it is open", || (appliance.flows(&query, &[]).len() == 1).then_some(()));
    let done = wiretag(&["erase", &query, "--reason", "request 4713", "--data", data]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(appliance.flows(&query, &[]).is_empty());
    drop(open);
    let (port, ..) = talk();
    let first = BufReader::new(follower.stdout.take().expect("stdout")).lines().next().expect("a line");
    assert_eq!(rows(&first.expect("text"))[0]["client_port"], port, "what came after it");
    let stored =
        eventually(5, "it is stored", || Some(appliance.flows(&query, &[])).filter(|stored| !stored.is_empty()));
    assert_eq!(stored.len(), 1, "{stored:?}");
    appliance.stop();
    let _ = follower.wait().expect("it ends with the appliance");
}

/// A copy of the directory of a running appliance is asked, and changed, by itself.
#[test]
fn a_copy_is_not_the_original() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let data = &imported(directory.path());
    let appliance = Appliance::start(Path::new(data), &["--interface", "nothing-like-it"]);
    let copy = directory.path().join("copy");
    let copy = copy.to_str().expect("a path");
    support::run("cp", &["-a", data, copy]);
    assert!(Path::new(copy).join("run.json").exists());
    let path = directory.path().join("later.pcap");
    capture_at(&path, 5, 1_750_000_000);
    wiretag_ok(&["import", "--quiet", path.to_str().expect("a path"), "--data", data]);
    assert_eq!((appliance.flows("", &[]).len(), support::flows(Path::new(copy), "", &[]).len()), (10, 5));
    let done = wiretag(&["erase", "ip == 10.0.1.3", "--reason", "r", "--at-once", "--data", copy]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!((appliance.flows("", &[]).len(), support::flows(Path::new(copy), "", &[]).len()), (10, 4));
    assert!(rows(&wiretag_ok(&["erasures", "--json", "--data", data])).is_empty());
    appliance.stop();
}
