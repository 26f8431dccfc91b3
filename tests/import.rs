//! Importing: every row is stored, a file counts once, and an import that ended early leaves nothing that counts twice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use support::{Appliance, eventually, is_root, wiretag, wiretag_fails, wiretag_ok};

/// A pcap of `count` datagrams, each a flow of its own.
fn scan(path: &Path, count: u32) {
    scan_at(path, count, 1_700_000_000);
}

/// The same by a clock that told this, s.
fn scan_at(path: &Path, count: u32, clock: u32) {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).expect("a file"));
    let mut header = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
    header.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    header.extend(65_535_u32.to_le_bytes());
    header.extend(1_u32.to_le_bytes());
    file.write_all(&header).expect("written");
    for number in 0..count {
        let mut record = clock.to_le_bytes().to_vec();
        record.extend((number / 1_000).to_le_bytes());
        record.extend([46, 0, 0, 0, 46, 0, 0, 0]);
        record.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
        record.extend([0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1]);
        record.extend((0x0b00_0000 + number).to_be_bytes());
        record.extend([0x9c, 0x40, 0x1f, 0x90, 0, 12, 0, 0, 7, 7, 7, 7]);
        file.write_all(&record).expect("written");
    }
    file.flush().expect("written");
}

/// Rows that a search finds.
fn count(data: &str) -> usize {
    let text = wiretag_ok(&["flows", "--limit", "1000000", "--format", "csv", "--data", data]);
    text.lines().count() - 1
}

/// Packets that are kept.
fn packets(data: &str) -> u64 {
    let out = wiretag(&["pcap", "", "-o", "/dev/null", "--data", data]);
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    text.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn an_import_stores_every_row_and_a_file_counts_once() {
    const FLOWS: u32 = 250_000;
    let directory = tempfile::tempdir().expect("a directory");
    let (path, data) = (directory.path().join("scan.pcap"), directory.path().join("data"));
    let (path, data) = (path.to_str().expect("a path"), data.to_str().expect("a path"));
    scan(Path::new(path), FLOWS);
    let output = wiretag(&["import", "--quiet", path, "--data", data]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("250000 packets") && said.contains("250000 rows"), "{said}");
    assert_eq!(count(data), FLOWS as usize);
    assert_eq!(packets(data), u64::from(FLOWS), "with an empty query every packet comes out");

    let copy = directory.path().join("the same.pcap");
    std::fs::copy(path, &copy).expect("copied");
    let (code, error) = wiretag_fails(&["import", "--quiet", copy.to_str().expect("a path"), "--data", data]);
    assert!(code == 1 && error.contains("imported before, as `scan.pcap`") && error.contains("--again"), "{error}");
    assert_eq!(count(data), FLOWS as usize);
    wiretag_ok(&["import", "--quiet", "--again", path, "--data", data]);
    assert_eq!(count(data), 2 * FLOWS as usize);
}

/// Also after whoever wrote next has looked through the directory.
#[test]
fn packets_that_are_gone_from_the_disk_are_missed_for_ever() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let data = data.to_str().expect("a path");
    let import = |name: &str, clock: u32| {
        let path = directory.path().join(name);
        scan_at(&path, 10, clock);
        wiretag_ok(&["import", "--quiet", path.to_str().expect("a path"), "--data", data]);
    };
    import("first.pcap", 1_700_000_000);
    let listed = wiretag_store::packets::list(Path::new(data)).expect("the segments");
    assert_eq!(listed.len(), 1);
    std::fs::remove_file(Path::new(data).join(&listed[0])).expect("removed");
    for clock in [1_700_000_100, 1_700_000_200] {
        import(&format!("{clock}.pcap"), clock);
        let (code, error) = wiretag_fails(&["pcap", "", "-o", "/dev/null", "--data", data]);
        assert!(code == 1 && error.contains("10 packets of this time are missing"), "{error}");
        let told = wiretag(&["flows", "--to", "2023-11-14T22:14:00Z", "--data", data]);
        let told = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(told.contains("a segment is gone from the disk"), "{told}");
        let told = wiretag(&["flows", "--from", "2023-11-14T22:14:30Z", "--data", data]);
        assert!(!String::from_utf8_lossy(&told.stderr).contains("incomplete"), "{told:?}");
    }
    if !is_root() {
        return;
    }
    let appliance = Appliance::start(Path::new(data), &["--interface", "none-such*"]);
    let health = eventually(20, "health says so", || {
        let health = appliance.json("/api/v1/health");
        (health["status"] == "degraded").then_some(health)
    });
    assert!(health["problems"].to_string().contains("10 packets are missing"), "{health}");
    let completeness = &appliance.json("/api/v1/flows?limit=1&from=2023-11-14T22:00:00Z")["completeness"];
    assert_eq!((&completeness["complete"], &completeness["missing_packets"]), (&false.into(), &10.into()));
    appliance.stop();
}

/// A pcapng of datagrams at these times, ns, each a flow of its own.
fn scan_ng(path: &Path, times: &[i64]) {
    let block = |kind: u32, body: &[u8]| {
        let length = (12 + body.len() as u32).to_le_bytes();
        [&kind.to_le_bytes()[..], &length, body, &length].concat()
    };
    let header = [&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat();
    // Ethernet, `if_tsresol` 9.
    let mut file = [block(0x0a0d_0d0a, &header), block(1, &[1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, 9, 0, 0, 0])].concat();
    for (number, time) in (0_u32..).zip(times) {
        let time = time.cast_unsigned();
        let mut body = [0, (time >> 32) as u32, time as u32, 46, 46].map(u32::to_le_bytes).as_flattened().to_vec();
        body.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
        body.extend([0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1]);
        body.extend((0x0b00_0000 + number).to_be_bytes());
        body.extend([0x9c, 0x40, 0x1f, 0x90, 0, 12, 0, 0, 7, 7, 7, 7, 0, 0]);
        file.extend(block(6, &body));
    }
    std::fs::write(path, file).expect("written");
}

#[test]
fn packets_of_times_that_nobody_can_ask_for_are_left_out_and_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, data) = (directory.path().join("clocks.pcapng"), directory.path().join("data"));
    let (path, data) = (path.to_str().expect("a path"), data.to_str().expect("a path"));
    scan_ng(Path::new(path), &[-1, 0, i64::MAX - 1_000_000_000, i64::MAX, i64::MIN, 1_700_000_000_000_000_000]);
    let output = wiretag(&["import", "--quiet", path, "--data", data]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("3 packets, 3 in flows"), "{said}");
    assert!(said.contains("3 packets are before 1970 or after 2262"), "{said}");
    assert_eq!((count(data), packets(data)), (3, 3));
    let output = wiretag(&["replay", path]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("3 packets are before 1970 or after 2262"), "{said}");
}

#[test]
fn flows_that_find_no_memory_end_early_and_are_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, data) = (directory.path().join("scan.pcap"), directory.path().join("data"));
    let (path, data) = (path.to_str().expect("a path"), data.to_str().expect("a path"));
    scan(Path::new(path), 100_000);
    let little = ["--flow-memory-mib", "16"];
    let said = |arguments: &[&str]| {
        let output = wiretag(arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let import = said(&["import", "--quiet", path, "--data", data, little[0], little[1]]);
    let replay = said(&["replay", "--workers", "1", "--null", path, little[0], little[1]]);
    for text in [&import, &replay] {
        let evicted = text.split("want of memory, fleeting: ").nth(1).and_then(|rest| rest.lines().next());
        let evicted: u32 = evicted.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{text}"));
        // There is room for some 30,000.
        assert!((60_000..80_000).contains(&evicted), "{text}");
    }
    assert_eq!(count(data), 100_000, "each has its row");
    assert!(!said(&["replay", "--null", path]).contains("memory"));
    let (code, error) = wiretag_fails(&["replay", path, "--flow-memory-mib", "1"]);
    assert!(code == 2 && error.contains("16"), "{error}");
}

/// Answers of any size take bounded memory: rows go out a page at a time.
#[test]
fn a_large_answer_takes_little_memory() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, data) = (directory.path().join("scan.pcap"), directory.path().join("data"));
    scan(&path, 220_000);
    let data = data.to_str().expect("a path");
    wiretag_ok(&["import", "--quiet", path.to_str().expect("a path"), "--data", data]);
    let out = std::fs::File::create(directory.path().join("out.json")).expect("a file");
    let mut child = Command::new(env!("CARGO_BIN_EXE_wiretag"))
        .args(["flows", "--limit", "1000000", "--format", "json", "--data", data])
        .stdout(Stdio::from(out))
        .spawn()
        .expect("wiretag runs");
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    let ended = eventually(120, "the answer ends", || {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        most = most.max(line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0));
        child.try_wait().expect("wait")
    });
    assert!(ended.success());
    assert!(most > 0 && most < 400_000, "{most} kB");
    let text = std::fs::read_to_string(directory.path().join("out.json")).expect("the answer");
    assert_eq!(text.lines().count(), 220_000);
}

/// Interrupted or killed in the middle: what is there is whole, and the second try replaces it.
#[test]
fn an_import_that_ended_early_is_replaced_by_the_next() {
    const FLOWS: u32 = 350_000;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("scan.pcap");
    scan(&path, FLOWS);
    let path = path.to_str().expect("a path");
    for signal in ["-INT", "-KILL"] {
        let data = directory.path().join(format!("data{signal}"));
        let data = data.to_str().expect("a path");
        let mut child = Command::new(env!("CARGO_BIN_EXE_wiretag"))
            .args(["import", "--quiet", path, "--data", data])
            .stderr(Stdio::piped())
            .spawn()
            .expect("wiretag starts");
        eventually(60, "some packets are written", || {
            let days = std::fs::read_dir(Path::new(data).join("packets")).ok()?;
            days.flatten().next()
        });
        support::run("kill", &[signal, &child.id().to_string()]);
        let status = eventually(60, "the import ends", || child.try_wait().expect("wait"));
        let mut said = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().expect("stderr"), &mut said).expect("text");
        if signal == "-INT" {
            assert_eq!(status.code(), Some(130), "{said}");
            assert!(said.contains("interrupted; stored so far"), "{said}");
            let (rows, packets) = (count(data), packets(data));
            assert!(rows > 0 && rows as u64 == packets && packets < u64::from(FLOWS), "{rows} rows, {packets} packets");
        }
        let told = wiretag(&["flows", "| count", "--from", "1970-01-01", "--data", data]);
        let told = String::from_utf8_lossy(&told.stderr).into_owned();
        // Killed so early that nothing is there, nothing is missing of anything.
        assert!(
            count(data) == 0 || told.contains("an import of files of this time did not come to the end"),
            "{signal}: {told}"
        );
        let output = wiretag(&["import", "--quiet", path, "--data", data]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.contains("ended early is replaced"), "{said}");
        assert_eq!(said.contains("was killed"), signal == "-KILL", "{said}");
        assert_eq!((count(data), packets(data)), (FLOWS as usize, u64::from(FLOWS)));
        let told = wiretag(&["flows", "| count", "--from", "1970-01-01", "--data", data]);
        assert!(!String::from_utf8_lossy(&told.stderr).contains("incomplete"), "{signal}");
    }
}

/// JSON lines of a command.
fn told(arguments: &[&str], data: &str) -> Vec<serde_json::Value> {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--format", "json", "--data", data]).collect();
    support::rows(&wiretag_ok(&arguments))
}

#[test]
fn figures_of_what_was_imported() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, data) = (directory.path().join("scan.pcap"), directory.path().join("data"));
    let (path, data) = (path.to_str().expect("a path"), data.to_str().expect("a path"));
    scan(Path::new(path), 300);
    wiretag_ok(&["import", "--quiet", path, "--data", data]);
    let top = told(&["top", "client_ip", "server_ip in 11.0.0.0/24"], data);
    assert_eq!(top, [serde_json::json!({"client_ip": "10.0.0.1", "sum(bytes)": 256 * 32, "count": 256})]);
    let top = told(&["top", "server_ip", "--by", "client_bytes", "-n", "2"], data);
    assert_eq!(top.len(), 2);
    let typed = told(&["flows", "protocol == udp | count, distinct(ip), max(client_bytes) by server_port, 1d"], data);
    assert_eq!(
        typed,
        [serde_json::json!({
            "server_port": 8080, "time": "2023-11-14T00:00:00.000000000Z", "count": 300, "distinct(ip)": 301,
            "max(client_bytes)": 32
        })]
    );
    let table = wiretag_ok(&["flows", "| rate(bytes) by protocol", "--from", "2023-11-14", "--data", data]);
    assert!(table.contains("rate(bytes)") && table.contains("udp"), "{table}");
    let compared = wiretag_ok(&[
        "top",
        "protocol",
        "--compare",
        "--from",
        "2023-11-14T22:00:00Z",
        "--to",
        "2023-11-14T23:00:00Z",
        "--data",
        data,
    ]);
    assert!(compared.contains("change") && compared.contains("new"), "{compared}");
    let sql = told(&["sql", "select server_port, count(*) as n from flows group by 1"], data);
    assert_eq!(sql, [serde_json::json!({"server_port": 8080, "n": 300})]);
    let explained = told(&["flows", "server_ip == 11.0.0.7", "--explain"], data);
    assert_eq!((&explained[0]["answer_rows"], &explained[0]["files_opened"]), (&1.into(), &1.into()), "{explained:?}");
    assert!(wiretag_ok(&["flows", "| count", "--explain", "--data", data]).contains("1 of 1 opened"));

    for (arguments, what) in [
        (vec!["top", "client_pd"], "client_pod"),
        (vec!["top", "client_pod", "--by", "server_rtt_us"], "p95(server_rtt_us)"),
        (vec!["flows", "port == 1 | cuont"], "^"),
        (vec!["flows", "--compare"], "`--compare` is for aggregations"),
        (vec!["top", "client_pod", "--compare"], "`--from -1h`"),
        (vec!["sql", "drop table flows"], "is refused"),
        (vec!["pcap", "port == 1 | count", "-o", "-"], "room for a condition only"),
    ] {
        let arguments: Vec<&str> = arguments.into_iter().chain(["--data", data]).collect();
        let (code, error) = wiretag_fails(&arguments);
        assert!(code == 2 && error.contains(what), "{error}");
    }
}

/// Without a time everything counts, also what has the time of a clock that was ahead; rates are of a time that has passed.
#[test]
fn figures_of_a_clock_that_was_ahead() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let data = data.to_str().expect("a path");
    for (name, count, clock) in [("then.pcap", 30, 1_700_000_000), ("ahead.pcap", 20, 4_000_000_000)] {
        let path = directory.path().join(name);
        scan_at(&path, count, clock);
        wiretag_ok(&["import", "--quiet", path.to_str().expect("a path"), "--data", data]);
    }
    assert_eq!(count(data), 50);
    assert_eq!(told(&["flows", "| count"], data), [serde_json::json!({"count": 50})]);
    assert_eq!(told(&["flows", "| top server_port by count"], data)[0]["count"], 50);
    assert_eq!(told(&["top", "server_port"], data)[0]["count"], 50);
    assert_eq!(told(&["flows", "| count, rate"], data)[0]["count"], 30);
    assert_eq!(told(&["flows", "| count", "--to", "2200-01-01"], data)[0]["count"], 50);
    let compared = told(&["top", "server_port", "--by", "count", "--from", "2023-11-01", "--compare"], data);
    assert_eq!(compared[0]["count"], 30, "{compared:?}");
}
