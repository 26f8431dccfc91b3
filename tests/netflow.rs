//! Flows of others and to others, with real peers: softflowd exports what `wiretag replay` says, nfcapd and another appliance
//! receive what ours exports.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod support;

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use support::{Appliance, Process, corpus, eventually, flows, has, is_root, rows, run, wiretag_ok};

/// Packets and bytes of each sender, by sender and receiver.
type Volumes = BTreeMap<(String, u64, String, u64), (u64, u64)>;

fn volumes(flows: &[Value]) -> Volumes {
    let mut volumes = Volumes::new();
    for flow in flows {
        let end = |side: &str| {
            let ip = flow[format!("{side}_ip")].as_str().expect("an address").to_owned();
            (ip, flow[format!("{side}_port")].as_u64().expect("a port"))
        };
        let (client, server) = (end("client"), end("server"));
        for (side, from, to) in [("client", &client, &server), ("server", &server, &client)] {
            let count = |what: &str| flow[format!("{side}_{what}")].as_u64().expect("a count");
            if count("packets") > 0 {
                let sum = volumes.entry((from.0.clone(), from.1, to.0.clone(), to.1)).or_default();
                *sum = (sum.0 + count("packets"), sum.1 + count("bytes"));
            }
        }
    }
    volumes
}

/// An appliance without packets, configured by `text`.
fn appliance(directory: &Path, text: &str) -> Appliance {
    let config = directory.join("wiretag.toml");
    std::fs::write(&config, text).expect("written");
    let config = config.to_str().expect("a path");
    Appliance::start(&directory.join("data"), &["--config", config, "--interface", "wtnone0"])
}

/// One that listens; and its port.
fn listener(directory: &Path, more: &str) -> (Appliance, u16) {
    let appliance = appliance(directory, &format!("[netflow]\nlisten = '127.0.0.1:0'\n{more}"));
    let health = appliance.json("/api/v1/health");
    let address = health["peers"]["netflow"].as_str().unwrap_or_else(|| panic!("no listener: {health}"));
    let port = address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    (appliance, port)
}

/// softflowd exports a capture file.
fn export(capture: &Path, port: u16, options: &[&str]) {
    let capture = capture.to_str().expect("a path");
    let to = format!("127.0.0.1:{port}");
    // It deletes its pid file at the end, whatever that is: so it gets a directory of its own.
    let directory = tempfile::tempdir().expect("a directory");
    let pid = directory.path().join("pid");
    let mut arguments = vec!["-d", "-r", capture, "-n", &to, "-c", "none", "-p", pid.to_str().expect("a path")];
    arguments.extend(options);
    run("softflowd", &arguments);
}

fn capture() -> Option<PathBuf> {
    let path = corpus()?.join("pcaps/retina__tls_ciphers.pcap");
    assert!(path.exists(), "{}", path.display());
    Some(path)
}

fn replayed(capture: &Path) -> Vec<Value> {
    rows(&wiretag_ok(&["replay".as_ref(), capture.as_os_str()]))
}

/// What softflowd tells of a file is what `wiretag replay` says of it, in every format.
#[test]
fn softflowd_tells_what_replay_says() {
    if !is_root() || !has("softflowd") {
        return;
    }
    let Some(capture) = capture() else { return };
    let expected = volumes(&replayed(&capture));
    for (options, records) in [
        (&["-v", "5"][..], expected.len()),
        (&["-v", "9"], expected.len()),
        (&["-v", "10"], expected.len()),
        // With room for both directions, of which softflowd uses one where both addresses are the same.
        (&["-v", "10", "-b"], expected.len()),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let (appliance, port) = listener(directory.path(), "");
        export(&capture, port, options);
        eventually(30, "all records", || (appliance.count("wiretag_netflow_records_total") == records).then_some(()));
        for lost in ["malformed", "unknown_templates", "lost_records", "lost_datagrams", "kernel_drops"] {
            assert_eq!(appliance.count(&format!("wiretag_netflow_{lost}_total")), 0, "{lost} {options:?}");
        }
        let data = appliance.data.clone();
        // Rows that wait are handed on at the end.
        appliance.stop();
        let told = flows(&data, "source == netflow and primary == true", &["--limit", "10000"]);
        assert_eq!(volumes(&told), expected, "{options:?}");
        assert_eq!(told.len(), expected.len() / 2, "both directions are one row: {options:?}");
        for row in &told {
            assert_eq!((&row["node"], &row["observed_at"]), (&"127.0.0.1".into(), &"path".into()));
            let port = row["server_port"].as_u64().expect("a port");
            assert!((4430..=4433).contains(&port) && row["client_payload_bytes"].is_null(), "{row}");
        }
    }
}

/// What is lost on the way is part of the answer's completeness.
#[test]
fn what_does_not_arrive_makes_answers_incomplete() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (appliance, port) = listener(directory.path(), "exporters = ['127.0.0.0/8']");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    // NetFlow v5 without records, whose numbers say that eleven are missing.
    for number in [0_u32, 11] {
        let mut message = vec![0; 24];
        message[1] = 5;
        message[16..20].copy_from_slice(&number.to_be_bytes());
        socket.send_to(&message, ("127.0.0.1", port)).expect("sent");
    }
    socket.send_to(b"nonsense", ("127.0.0.1", port)).expect("sent");
    eventually(10, "the loss", || (appliance.count("wiretag_netflow_lost_records_total") == 11).then_some(()));
    eventually(10, "the nonsense", || (appliance.count("wiretag_netflow_malformed_total") == 1).then_some(()));
    let answer = appliance.json("/api/v1/flows?q=");
    assert!(answer["completeness"].to_string().contains("11"), "{}", answer["completeness"]);
    appliance.stop();
}

/// nfcapd, which keeps what it receives in a directory.
struct Collector {
    process: Process,
    port: u16,
    directory: PathBuf,
}

impl Collector {
    fn start(directory: &Path) -> Self {
        let directory = directory.join("nfcapd");
        std::fs::create_dir(&directory).expect("a directory");
        // A port that is free now.
        let port = UdpSocket::bind("127.0.0.1:0").expect("a socket").local_addr().expect("an address").port();
        let process = Command::new("nfcapd")
            .args(["-b", "127.0.0.1", "-p", &port.to_string(), "-t", "3600", "-w"])
            .arg(&directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = Process(process.expect("nfcapd starts"));
        eventually(10, "nfcapd listens", || UdpSocket::bind(("127.0.0.1", port)).is_err().then_some(()));
        Self { process, port, directory }
    }

    /// Ends it when it has read everything; what nfdump then lists, both directions: flows, packets, bytes.
    fn sums(mut self) -> (usize, u64, u64) {
        let own = format!(":{:04X}", self.port);
        eventually(10, "nfcapd has read everything", || {
            let sockets = std::fs::read_to_string("/proc/net/udp").expect("sockets");
            let mut lines = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            let socket = lines.find(|fields| fields[1].ends_with(&own)).expect("its socket");
            socket[4].ends_with(":00000000").then_some(())
        });
        run("kill", &["-TERM", &self.process.0.id().to_string()]);
        eventually(10, "nfcapd ends", || self.process.0.try_wait().expect("wait"));
        let directory = self.directory.to_str().expect("a path");
        let text =
            run("nfdump", &["-R", directory, "-q", "-N", "-o", "fmt:%sa|%da|%sp|%dp|%ipkt|%ibyt|%opkt|%obyt|%ts"]);
        let mut sum = (0, 0, 0);
        for line in text.lines().filter(|line| line.contains('|')) {
            let fields: Vec<&str> = line.split('|').map(str::trim).collect();
            let number = |field: usize| fields[field].parse::<u64>().unwrap_or_else(|_| panic!("{line}"));
            sum = (sum.0 + 1, sum.1 + number(4) + number(6), sum.2 + number(5) + number(7));
        }
        sum
    }
}

/// nfcapd receives our IPFIX, and nfdump prints as many flows, packets and bytes as we have.
#[test]
fn nfdump_prints_what_is_exported() {
    if !is_root() || !has("nfcapd") || !has("nfdump") || !has("softflowd") {
        return;
    }
    let Some(capture) = capture() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let collector = Collector::start(directory.path());
    let (appliance, own) = listener(directory.path(), &format!("[ipfix]\nexport = '127.0.0.1:{}'", collector.port));
    export(&capture, own, &["-v", "9"]);
    let expected = volumes(&replayed(&capture));
    let flows = expected.len() / 2;
    eventually(60, "all rows are exported", || (appliance.count("wiretag_ipfix_records_total") == flows).then_some(()));
    assert_eq!(appliance.count("wiretag_ipfix_lost_records_total"), 0);
    appliance.stop();
    let (packets, bytes) = expected.values().fold((0, 0), |sum, own| (sum.0 + own.0, sum.1 + own.1));
    assert_eq!(collector.sums(), (flows, packets, bytes));
}

/// The messages of an exported file are what nfcapd receives, too: IPv4, IPv6 and ICMP.
#[test]
fn nfdump_prints_what_an_exported_file_holds() {
    if !has("nfcapd") || !has("nfdump") {
        return;
    }
    let Some(corpus) = corpus() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let (data, file) = (directory.path().join("data"), directory.path().join("all.ipfix"));
    let data = data.to_str().expect("a path");
    for name in ["retina__tls_ciphers", "zeek__ipv6-fragmented-dns", "zeek__icmp-destunreach-udp", "ndpi__6in4tunnel"] {
        let capture = corpus.join(format!("pcaps/{name}.pcap"));
        wiretag_ok(&["import", "--quiet", "--data", data, capture.to_str().expect("a path")]);
    }
    wiretag_ok(&["flows", "--format", "ipfix", "-o", file.to_str().expect("a path"), "--data", data]);
    let collector = Collector::start(directory.path());
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let file = std::fs::read(file).expect("the file");
    let mut rest = file.as_slice();
    while !rest.is_empty() {
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        socket.send_to(&rest[..length], ("127.0.0.1", collector.port)).expect("sent");
        rest = &rest[length..];
    }
    let flows = flows(Path::new(data), "", &["--limit", "10000"]);
    let protocols = |protocol: &str| flows.iter().any(|flow| flow["protocol"] == protocol);
    assert!(protocols("icmp") && flows.iter().any(|flow| flow["client_ip"].to_string().contains(':')));
    let sum = |what: &str| flows.iter().filter_map(|flow| flow[what].as_u64()).sum::<u64>();
    let of_both = |what: &str| sum(&format!("client_{what}")) + sum(&format!("server_{what}"));
    assert_eq!(collector.sums(), (flows.len(), of_both("packets"), of_both("bytes")));
}

/// What one appliance exports, another has: also what was captured, with IPv6 and ICMP in it. The receiver may come later.
#[test]
fn another_appliance_reads_what_is_exported() {
    if !is_root() {
        return;
    }
    let (directory, receiver) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let port = UdpSocket::bind("127.0.0.1:0").expect("a socket").local_addr().expect("an address").port();
    let config = directory.path().join("wiretag.toml");
    std::fs::write(&config, format!("[ipfix]\nexport = '127.0.0.1:{port}'\ntemplates = 1")).expect("written");
    let config = config.to_str().expect("a path");
    let data = directory.path().join("data");
    let sender = Appliance::start(&data, &["--config", config, "--demo", "--interface", "wtdemo*"]);
    // Nobody listens: nothing is delayed, and the loss is counted.
    eventually(60, "rows are refused", || {
        (sender.metric("wiretag_ipfix_lost_records_total", "reason=\"refused\"") > 0.0).then_some(())
    });
    let receiver = appliance(receiver.path(), &format!("[netflow]\nlisten = '127.0.0.1:{port}'"));
    eventually(60, "rows are received", || {
        (receiver.metric("wiretag_netflow_records_total", "") >= 10.0).then_some(())
    });
    assert_eq!(receiver.count("wiretag_netflow_malformed_total"), 0);
    let (sent, received) = (sender.data.clone(), receiver.data.clone());
    sender.stop();
    receiver.stop();
    let query = "primary == true and protocol in {tcp, udp}";
    let sent = volumes(&flows(&sent, query, &["--limit", "100000"]));
    let received = volumes(&flows(&received, query, &["--limit", "100000"]));
    assert!(!received.is_empty());
    for (ends, (packets, bytes)) in &received {
        let own = sent.get(ends).unwrap_or_else(|| panic!("nobody sent {ends:?}"));
        // Some of its slices may have been sent before anybody listened.
        assert!(*packets <= own.0 && *bytes <= own.1, "{ends:?}: {packets} packets, {bytes} bytes of {own:?}");
    }
}
