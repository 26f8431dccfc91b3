//! Wrong input at the command line: a clear message with a hint, the right exit code, never a panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod support;

use std::path::Path;
use support::{rows, wiretag, wiretag_fails, wiretag_ok};

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

/// An Ethernet frame with a UDP datagram of `payload` bytes.
fn udp_frame(payload: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0]);
    frame.extend(u16::try_from(28 + payload).expect("short").to_be_bytes());
    frame.extend([0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0x9c, 0x40, 0x1f, 0x90]);
    frame.extend(u16::try_from(8 + payload).expect("short").to_be_bytes());
    frame.extend([0, 0]);
    frame.resize(frame.len() + payload, 7);
    frame
}

/// A lookup of `web.demo` from 10.0.0.1:40000 at 10.0.0.2:53, and its answer: no such name.
fn lookup() -> [Vec<u8>; 2] {
    let question = [&b"\0\x07"[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0], b"\x03web\x04demo\0", &[0, 1, 0, 1]].concat();
    let mut query = udp_frame(question.len());
    query[36..38].copy_from_slice(&[0, 53]);
    query[42..].copy_from_slice(&question);
    let mut answer = query.clone();
    for (to, from) in
        [(0..6, 6..12), (6..12, 0..6), (26..30, 30..34), (30..34, 26..30), (34..36, 36..38), (36..38, 34..36)]
    {
        answer[to].copy_from_slice(&query[from]);
    }
    answer[44..46].copy_from_slice(&[0x81, 0x83]);
    [query, answer]
}

/// A classic pcap, little endian, microseconds.
fn pcap(link_type: u32, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
    file.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    file.extend(65535_u32.to_le_bytes());
    file.extend(link_type.to_le_bytes());
    for (number, frame) in (0_u32..).zip(frames) {
        file.extend((1_700_000_000 + number).to_le_bytes());
        file.extend(0_u32.to_le_bytes());
        let length = u32::try_from(frame.len()).expect("short").to_le_bytes();
        file.extend(length);
        file.extend(length);
        file.extend(frame);
    }
    file
}

/// A pcapng with interfaces of these link types, and packets of the interface with a number.
fn pcapng(link_types: &[u16], packets: &[(u32, Vec<u8>)]) -> Vec<u8> {
    use wiretag_capture::pcapng::{InterfaceBlock, enhanced_packet, interface_description, section_header};
    use wiretag_capture::{LinkType, Packet};
    let mut file = Vec::new();
    section_header(&mut file, "test");
    for number in link_types {
        let link_type = LinkType(*number);
        interface_description(&mut file, &InterfaceBlock { name: "eth0", description: None, link_type, snap_len: 0 });
    }
    for (interface, data) in packets {
        let (wire_len, interface, link_type) = (u32::try_from(data.len()).expect("short"), *interface, LinkType(0));
        let packet = Packet { time: 0, data, wire_len, link_type, interface, direction: None, vlan: None };
        enhanced_packet(&mut file, interface, &packet, None);
    }
    file
}

fn file(directory: &Path, name: &str, bytes: &[u8]) -> String {
    let path = directory.join(name);
    std::fs::write(&path, bytes).expect("written");
    path.to_str().expect("a path").to_owned()
}

#[test]
fn what_is_no_capture_file_is_named_as_such() {
    let directory = temporary();
    for (name, bytes) in
        [("empty.pcap", &b""[..]), ("text.pcap", b"hello, this is not a capture"), ("short.pcap", b"\xd4\xc3")]
    {
        let path = file(directory.path(), name, bytes);
        let (code, error) = wiretag_fails(&["replay", &path]);
        assert_eq!(code, 1);
        assert!(error.contains(name) && error.contains("hint:"), "{error}");
    }
    let (code, error) = wiretag_fails(&["replay", "/nonexistent/file.pcap"]);
    assert_eq!(code, 1);
    assert!(error.contains("/nonexistent/file.pcap"), "{error}");
}

#[test]
fn a_truncated_file_gives_what_was_whole_and_fails() {
    let directory = temporary();
    let mut bytes = pcap(1, &[udp_frame(10), udp_frame(20)]);
    bytes.truncate(bytes.len() - 5);
    let path = file(directory.path(), "cut.pcap", &bytes);
    let output = wiretag(&["replay", &path]);
    assert_eq!(output.status.code(), Some(1));
    let flows = rows(&String::from_utf8(output.stdout).expect("text"));
    assert_eq!(flows.len(), 1);
    assert_eq!(flows[0]["client_packets"], 1);
    assert!(String::from_utf8_lossy(&output.stderr).contains("truncated"), "{:?}", output.stderr);
}

#[test]
fn compressed_files_are_read_as_they_are() {
    let directory = temporary();
    let bytes = pcap(1, &[udp_frame(10), udp_frame(20)]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &bytes).expect("compressed");
    let gzip = gzip.finish().expect("compressed");
    let zstd = zstd::encode_all(&*bytes, 1).expect("compressed");
    let plain = wiretag_ok(&["replay", &file(directory.path(), "plain.pcap", &bytes)]);
    for (name, compressed) in [("a.pcap.gz", &gzip), ("a.pcap.zst", &zstd)] {
        let path = file(directory.path(), name, compressed);
        assert_eq!(wiretag_ok(&["replay", &path]), plain, "{name}");
        let output = wiretag_reads(&["replay", "-"], compressed);
        assert_eq!(String::from_utf8_lossy(&output.stdout), plain, "{name}");
        // Cut: what was whole, and an error.
        let path = file(directory.path(), name, &compressed[..compressed.len() / 2]);
        let (code, error) = wiretag_fails(&["replay", &path]);
        assert!(code == 1 && error.contains(name), "{error}");
    }
}

#[test]
fn packets_that_belong_to_no_flow_are_counted_by_reason() {
    let directory = temporary();
    let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1, 8, 6], &[0; 28]].concat();
    let path = file(directory.path(), "mixed.pcap", &pcap(1, &[udp_frame(10), arp, Vec::new(), udp_frame(3)]));
    let output = wiretag(&["replay", "--null", &path]);
    assert!(output.status.success());
    let summary = String::from_utf8(output.stderr).expect("text");
    for line in ["packets 4,", "in flows 2,", "not_ip: 1", "link_cut: 1"] {
        assert!(summary.contains(line), "no `{line}` in {summary}");
    }
    let path = file(directory.path(), "unknown-link.pcap", &pcap(9999, &[udp_frame(10)]));
    for arguments in [&["replay", "--null", &path][..], &["replay", &path], &["replay", "--transactions", &path]] {
        let output = wiretag(arguments);
        let summary = String::from_utf8_lossy(&output.stderr);
        assert!(output.stdout.is_empty() && summary.contains("packets 1,"), "{output:?}");
        assert!(summary.contains("in flows 0,") && summary.contains("link_type: 1"), "{output:?}");
        assert!(summary.contains("hint: packets of link type 9999"), "{output:?}");
    }
    let path = file(directory.path(), "good.pcap", &pcap(1, &[udp_frame(10)]));
    assert!(wiretag(&["replay", &path]).stderr.is_empty(), "all is in flows: there is nothing to say");
    // Of interfaces without packets there is nothing to say either.
    let path = file(directory.path(), "quiet.pcapng", &pcapng(&[9998, 1], &[(1, udp_frame(10))]));
    assert!(wiretag(&["replay", &path]).stderr.is_empty());
    let path = file(directory.path(), "half-quiet.pcapng", &pcapng(&[9998, 9997], &[(1, udp_frame(10))]));
    let summary = String::from_utf8(wiretag(&["replay", &path]).stderr).expect("text");
    assert!(summary.contains("hint: packets of link type 9997 ("), "{summary}");
}

/// `wiretag` with `input` on stdin.
fn wiretag_reads(arguments: &[&str], input: &[u8]) -> std::process::Output {
    use std::io::Write;
    use std::process::Stdio;
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_wiretag"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("wiretag starts");
    child.stdin.take().expect("stdin").write_all(input).expect("written");
    child.wait_with_output().expect("wiretag ends")
}

#[test]
fn a_capture_may_come_from_stdin_where_one_reading_suffices() {
    let directory = temporary();
    let data = directory.path().join("data");
    let output = wiretag_reads(&["replay", "-"], &pcap(1, &[udp_frame(10)]));
    assert_eq!(rows(&String::from_utf8(output.stdout).expect("text")).len(), 1);
    let (code, error) = wiretag_fails(&["import", "-", "--data", data.to_str().expect("a path")]);
    assert!(code == 2 && error.contains("hint:"), "{error}");
}

/// A reader that goes away early is no failure, whatever is printed.
#[test]
fn output_into_a_closed_pipe_ends_quietly() {
    let directory = temporary();
    let data = directory.path().join("data");
    let data = data.to_str().expect("a path");
    let frames: Vec<_> = (0..400_u16)
        .map(|port| {
            let mut frame = udp_frame(1000);
            frame[34..36].copy_from_slice(&(20_000 + port).to_be_bytes());
            frame
        })
        .collect();
    let path = file(directory.path(), "many.pcap", &pcap(1, &frames));
    wiretag_ok(&["import", "--quiet", &path, "--data", data]);
    let binary = env!("CARGO_BIN_EXE_wiretag");
    for command in [
        format!("replay {path}"),
        format!("flows --limit 1000 --data {data}"),
        format!("flows --limit 1000 --format json --data {data}"),
        format!("flows --limit 1000 --format csv --data {data}"),
        format!("pcap '' -o - --data {data}"),
    ] {
        let script = format!("{{ {binary} {command}; echo $? >&3; }} | true");
        let output = std::process::Command::new("bash").args(["-c", &format!("{{ {script}; }} 3>&1")]).output();
        let output = output.expect("bash runs");
        let (code, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(code.trim(), "0", "{command}: {error}");
        assert!(!error.contains("error:"), "{command}: {error}");
    }
}

/// The port of an appliance that was killed may be another's by now.
#[test]
fn a_stale_address_of_an_appliance_is_not_asked() {
    use std::io::{Read, Write};
    use std::os::unix::fs::MetadataExt;
    let directory = temporary();
    let data = directory.path().join("data");
    let path = file(directory.path(), "a.pcap", &pcap(1, &[udp_frame(10)]));
    wiretag_ok(&["import", "--quiet", &path, "--data", data.to_str().expect("a path")]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    // It heard what the appliance proved to others, and knows nothing of this token.
    let other = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = [0; 4096];
        let length = stream.read(&mut request).expect("a request");
        let body = format!(r#"{{"status":"ok","proof":"{}"}}"#, "0a".repeat(32));
        let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).expect("written");
        String::from_utf8_lossy(&request[..length]).into_owned()
    });
    let lock = std::fs::File::create(data.join("appliance.lock")).and_then(|file| file.metadata()).expect("the lock");
    let own = serde_json::json!({"device": lock.dev(), "inode": lock.ino()});
    let run = serde_json::json!({"url": url, "pid": 1, "secret": "ours", "directory": own}).to_string();
    std::fs::write(data.join("run.json"), run).expect("written");
    std::fs::write(data.join("token"), "secret").expect("written");
    assert_eq!(support::flows(&data, "", &[]).len(), 1);
    let request = other.join().expect("asked");
    let is_silent = !["secret", "ours"].iter().any(|word| request.contains(word));
    assert!(request.contains("/api/v1/health") && is_silent, "{request}");
}

#[test]
fn errors_say_each_cause_once() {
    let directory = temporary();
    let (_, error) = wiretag_fails(&["replay", directory.path().to_str().expect("a path")]);
    assert_eq!(error.matches("Is a directory").count(), 1, "{error}");
}

#[test]
fn a_wrong_query_says_where_and_what() {
    let directory = temporary();
    let data = directory.path().to_str().expect("a path");
    let path = file(directory.path(), "a.pcap", &pcap(1, &[udp_frame(10)]));
    wiretag_ok(&["import", "--quiet", &path, "--data", data]);
    let (code, error) = wiretag_fails(&["flows", "server_prt == 80", "--data", data]);
    assert_eq!(code, 2);
    assert!(error.contains("server_port") && error.contains('^'), "{error}");
    let (code, error) = wiretag_fails(&["flows", "--from", "yesterday-ish", "--data", data]);
    assert_eq!(code, 2);
    assert!(error.contains("yesterday-ish"), "{error}");
    for (arguments, what) in [
        (&["flows", "--to", "2300-01-01"][..], "to 2262-04-11"),
        (&["flows", "start > 9999-01-01"], "to 2262-04-11"),
        (&["flows", "--limit", "99999999999999999999"], "a number from 1 to 4294967295, or `all`"),
        (&["flows", "server_port in {9000..8000}"], "`8000..9000`"),
        (&["flows", "container == “web”"], "`“` is no quote"),
    ] {
        let (code, error) = wiretag_fails(arguments);
        assert!(code == 2 && error.contains(what), "{arguments:?}: {error}");
    }
    let (code, error) = wiretag_fails(&["import", "--quiet", data, "--data", data]);
    assert!(code == 2 && error.contains("is a directory; hint: name the files in it"), "{error}");
    let (code, error) = wiretag_fails(&["doctor", "--config", "/nonexistent"]);
    assert!(code == 1 && error.matches("/nonexistent").count() == 1, "{error}");
    let (code, error) = wiretag_fails(&["flows", "--from", "2026-01-02", "--to", "2026-01-01", "--data", data]);
    assert_eq!(code, 2);
    assert!(error.contains("hint:"), "{error}");
    for from in ["now", "+1h"] {
        let (code, error) = wiretag_fails(&["flows", "--from", from, "--data", data]);
        assert!(code == 2 && error.contains("not before now") && !error.contains("--to"), "{error}");
    }
    let (code, error) = wiretag_fails(&["flows", "--follow", "--data", data]);
    assert!(code == 2 && error.contains("wiretag run"), "{error}");
    let (code, _) = wiretag_fails(&["flows", "--no-such-option"]);
    assert_eq!(code, 2);
}

/// What `run` would refuse, `doctor` refuses; what the configuration names is what it looks at. An empty variable is none.
#[test]
fn doctor_looks_at_the_start_that_the_configuration_means() {
    let directory = temporary();
    let (path, data) = (directory.path().join("wiretag.toml"), directory.path().join("there"));
    let config = path.to_str().expect("a path");
    std::fs::create_dir(&data).expect("a directory");
    std::fs::write(&path, "[capture]\nring_mib = 0\n").expect("written");
    let (code, error) = wiretag_fails(&["doctor", "--config", config]);
    assert!(code == 1 && error.contains("`capture.ring_mib` is 0"), "{error}");

    let docker = "docker = 'unix:///nonexistent/docker.sock'";
    let reader = "[[readers]]\nname = 'shop'\ntoken_file = '/nonexistent/token'";
    std::fs::write(&path, format!("data = '{}'\n{docker}\n{reader}\n", data.display())).expect("written");
    let mut doctor = std::process::Command::new(env!("CARGO_BIN_EXE_wiretag"));
    doctor.args(["doctor", "--json", "--config", config]).env("WIRETAG_DATA", "");
    let output = doctor.env("WIRETAG_NODE", "").env("DOCKER_HOST", "").output().expect("wiretag runs");
    let checks = support::rows(&String::from_utf8(output.stdout).expect("text"));
    let told = |name: &str| {
        let check = checks.iter().find(|check| check["check"] == name).expect(name);
        (check["verdict"].as_str().expect("a word").to_owned(), check["text"].as_str().expect("text").to_owned())
    };
    let (verdict, text) = told("files");
    assert!(verdict == "failed" && text.contains("/nonexistent/token"), "{text}");
    let (verdict, text) = told("data");
    assert!(verdict == "ok" && text.contains(data.to_str().expect("a path")), "{text}");
    assert!(told("docker").1.contains("/nonexistent/docker.sock"), "{:?}", told("docker"));
    assert_eq!(std::fs::read_dir(&data).expect("the directory").count(), 0);
}

#[test]
fn doctor_reads_what_the_receiver_of_logs_needs() {
    let directory = temporary();
    let path = file(
        directory.path(),
        "wiretag.toml",
        b"[otlp]\nendpoint = 'https://collector.example:4318'\nca_file = '/nonexistent/ca.pem'",
    );
    let output = wiretag(&["doctor", "--json", "--config", &path]);
    let checks = support::rows(&String::from_utf8(output.stdout).expect("text"));
    let files = checks.iter().find(|check| check["check"] == "files").expect("files");
    assert_eq!(files["verdict"], "failed", "{files}");
    assert!(files["text"].as_str().is_some_and(|text| text.contains("/nonexistent/ca.pem")), "{files}");
}

/// A directory without a name is the one where none is named.
#[test]
fn an_empty_name_is_none() {
    let directory = temporary();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wiretag"));
    command.args(["flows"]).env("WIRETAG_DATA", "").current_dir(directory.path());
    let output = command.output().expect("wiretag runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("there is no data directory `data`"), "{error}");
}

/// A start without it captures all the same.
#[test]
fn doctor_warns_of_a_static_file_with_a_mistake() {
    let directory = temporary();
    let names = file(directory.path(), "names.yaml", b"identities: [");
    let config = file(directory.path(), "wiretag.toml", format!("static = '{names}'\n").as_bytes());
    let mut doctor = std::process::Command::new(env!("CARGO_BIN_EXE_wiretag"));
    let output = doctor.args(["doctor", "--json", "--config", &config]).output().expect("wiretag runs");
    let checks = support::rows(&String::from_utf8(output.stdout).expect("text"));
    let files = checks.iter().find(|check| check["check"] == "files").expect("the check");
    let text = files["text"].as_str().expect("text");
    assert!(files["verdict"] == "warning" && text.contains("in the identity file"), "{files}");
}

#[test]
fn a_missing_or_unwritable_data_directory_is_a_clear_error() {
    let (code, error) = wiretag_fails(&["flows", "--data", "/nonexistent/data"]);
    assert_eq!(code, 1);
    assert!(error.contains("/nonexistent/data") && error.contains("hint:"), "{error}");
    let directory = temporary();
    let path = file(directory.path(), "a.pcap", &pcap(1, &[udp_frame(10)]));
    let not_a_directory = file(directory.path(), "occupied", b"x");
    let (code, error) = wiretag_fails(&["import", "--quiet", &path, "--data", &not_a_directory]);
    assert_eq!(code, 1);
    assert!(error.contains("occupied") && error.contains("hint:"), "{error}");
}

#[test]
fn replay_prints_every_column_and_the_same_bytes_each_time() {
    let directory = temporary();
    let path = file(directory.path(), "a.pcap", &pcap(1, &[udp_frame(10), udp_frame(20), udp_frame(0)]));
    let first = wiretag_ok(&["replay", &path]);
    assert_eq!(first, wiretag_ok(&["replay", &path]));
    let flow = &rows(&first)[0];
    assert_eq!(flow["client_packets"], 3);
    assert_eq!(flow["client_bytes"], 3 * 28 + 30);
    assert_eq!(flow["client_payload_bytes"], 30);
    let columns = rows(&wiretag_ok(&["fields", "--json"]));
    let printed = flow.as_object().expect("an object");
    let record = columns.iter().take(printed.len()).map(|column| column["name"].as_str().expect("name"));
    assert!(record.eq(printed.keys()), "replay prints the vocabulary in its order");
    assert!(printed.contains_key("tls_sni") && printed["tls_sni"].is_null());
}

#[test]
fn transactions_are_replayed_and_imported() {
    let directory = temporary();
    let [query, answer] = lookup();
    let frames = [query.clone(), answer, udp_frame(10), query];
    let path = file(directory.path(), "dns.pcap", &pcap(1, &frames));
    let text = wiretag_ok(&["replay", "--transactions", &path]);
    assert_eq!(text, wiretag_ok(&["replay", "--transactions", &path]), "the same bytes each time");
    let replayed = rows(&text);
    let figures =
        |row: &serde_json::Value| (row["exchange"].clone(), row["dns_rcode"].clone(), row["complete"].clone());
    assert_eq!(
        replayed.iter().map(figures).collect::<Vec<_>>(),
        [(0.into(), "NXDOMAIN".into(), true.into()), (1.into(), serde_json::Value::Null, false.into()),]
    );
    let columns = rows(&wiretag_ok(&["fields", "--transactions", "--json"]));
    let printed = replayed[0].as_object().expect("an object");
    let record = columns.iter().take(printed.len()).map(|column| column["name"].as_str().expect("name"));
    assert!(record.eq(printed.keys()), "replay prints the vocabulary in its order");
    let output = wiretag(&["replay", "--transactions", "--null", &path]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("transactions 2\n"), "{output:?}");

    let data = directory.path().join("data");
    let data = data.to_str().expect("a path");
    let identities = b"identities:\n  - name: resolver\n    ips: [10.0.0.2]\n";
    let identities = file(directory.path(), "static.yaml", identities);
    wiretag_ok(&["import", "--quiet", &path, "--static", &identities, "--data", data]);
    let found = support::flows(Path::new(data), "container == resolver and dns_rcode == NXDOMAIN", &["--transactions"]);
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0]["dns_query"], &found[0]["latency_us"]), (&"web.demo".into(), &1_000_000.into()));
    assert_eq!(found[0]["server_tagged_by"], "static");
    let csv = wiretag_ok(&["flows", "--transactions", "--format", "csv", "--data", data]);
    assert_eq!(csv.lines().count(), 3);
    let table = wiretag_ok(&["flows", "--transactions", "--data", data]);
    assert!(table.contains("A web.demo") && table.contains("no answer") && table.contains("resolver:53"), "{table}");
    let (code, error) = wiretag_fails(&["flows", "--transactions", "tcp_state == S0", "--data", data]);
    assert!(code == 2 && error.contains("is a column of flows"), "{error}");
}

#[test]
fn imported_flows_are_found_and_their_packets_come_out() {
    let directory = temporary();
    let data = directory.path().join("data");
    let data = data.to_str().expect("a path");
    let path = file(directory.path(), "a.pcap", &pcap(1, &[udp_frame(10), udp_frame(20)]));
    let identities = b"identities:\n  - name: sensor\n    ips: [10.0.0.1]\n";
    let identities = file(directory.path(), "static.yaml", identities);
    wiretag_ok(&["import", "--quiet", &path, "--static", &identities, "--data", data]);
    let found = support::flows(Path::new(data), "ip in 10.0.0.0/8 and container == sensor", &[]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["client_tagged_by"], "static");
    assert!(support::flows(Path::new(data), "not container == sensor", &[]).is_empty());
    let out = directory.path().join("out.pcapng");
    let out = out.to_str().expect("a path");
    let output = wiretag(&["pcap", "container == sensor", "-o", out, "--data", data]);
    let size = std::fs::metadata(out).expect("a file").len();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains(&format!("2 packets, {size} bytes written to `{out}`")), "{said}");
    let replayed = rows(&wiretag_ok(&["replay", out]));
    assert_eq!(replayed[0]["client_packets"], 2);
    let csv = wiretag_ok(&["flows", "--format", "csv", "--data", data]);
    assert_eq!(csv.lines().count(), 2);
    let table = wiretag_ok(&["flows", "--data", data]);
    assert!(table.contains("sensor:40000"), "{table}");
}
