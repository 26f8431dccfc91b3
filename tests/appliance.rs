//! The appliance on real interfaces: the demonstration's namespaces, a burst on a veth of the test's own, restarts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod support;

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;

use support::{Appliance, eventually, flows, has, is_root, run, wiretag_fails, wiretag_ok};
use wiretag_capture::ring::in_namespace;

/// A veth pair into a namespace of its own, removed when dropped.
struct Wire {
    name: String,
}

impl Wire {
    fn new(name: &str) -> Self {
        let wire = Self { name: name.to_owned() };
        wire.remove();
        run("ip", &["netns", "add", name]);
        run("ip", &["link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name]);
        run("ip", &["addr", "add", "198.18.90.1/24", "dev", name]);
        run("ip", &["link", "set", name, "up"]);
        run("ip", &["-n", name, "addr", "add", "198.18.90.2/24", "dev", "eth0"]);
        run("ip", &["-n", name, "link", "set", "eth0", "up"]);
        wire
    }

    /// Sends `count` datagrams of `size` bytes from inside the namespace to the host's end.
    fn burst(&self, count: usize, size: usize) {
        let path = Path::new("/run/netns").join(&self.name);
        let sent = in_namespace(&path, move || -> std::io::Result<()> {
            let socket = UdpSocket::bind("198.18.90.2:40000")?;
            let payload = vec![7; size];
            for _ in 0..count {
                socket.send_to(&payload, SocketAddr::from(([198, 18, 90, 1], 9000)))?;
            }
            Ok(())
        });
        sent.expect("the namespace").expect("sent");
    }

    /// Sends a datagram to each of `ports` ports of the host's end at each of `hosts` addresses: as many flows.
    fn scan(&self, hosts: u8, ports: u16) {
        for host in 3..3 + hosts {
            run("ip", &["addr", "add", &format!("198.18.90.{host}/24"), "dev", &self.name]);
        }
        let path = Path::new("/run/netns").join(&self.name);
        let sent = in_namespace(&path, move || -> std::io::Result<()> {
            let socket = UdpSocket::bind("198.18.90.2:40000")?;
            for (host, port) in (3..3 + hosts).flat_map(|host| (1..=ports).map(move |port| (host, port))) {
                socket.send_to(&[7; 20], SocketAddr::from(([198, 18, 90, host], port)))?;
            }
            Ok(())
        });
        sent.expect("the namespace").expect("sent");
    }

    fn remove(&self) {
        for arguments in [["link", "del", &self.name], ["netns", "del", &self.name]] {
            let _ = std::process::Command::new("ip").args(arguments).output();
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Someone without containers sees named, live flows within seconds; after a restart they are still there.
#[test]
fn the_demonstration_shows_named_flows_that_survive_a_restart() {
    if !is_root() || !has("tshark") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let appliance = Appliance::start(directory.path(), &["--demo", "--interface", "wtdemo*"]);
    let web = eventually(20, "a web flow of the demonstration", || {
        let ended = "container == web and server_port == 80 and tcp_state == SF and end_reason exists";
        appliance.flows(ended, &[]).into_iter().next()
    });
    assert_eq!(web["client_container"], "client");
    assert_eq!(web["server_container"], "web");
    assert_eq!(web["observed_at"], "client");
    assert_eq!(web["primary"], true);
    assert!(web["client_rtt_us"].is_u64() && web["server_rtt_us"].is_u64(), "{web}");
    let missing = eventually(20, "a name that does not exist", || {
        appliance.flows("dns_rcode == NXDOMAIN", &[]).into_iter().next()
    });
    assert_eq!(missing["dns_query"], "missing.demo");
    assert_eq!(missing["server_container"], "dns");

    // The same flow on the server's veth is an observation of its own, and not primary.
    let query = format!("community_id == \"{}\"", web["community_id"].as_str().expect("an id"));
    assert_eq!(appliance.flows(&query, &[]).len(), 1);
    let all = appliance.flows(&query, &["--all-observations"]);
    assert!(all.len() >= 2, "{all:?}");
    assert_eq!(all.iter().filter(|flow| flow["primary"] == true).count(), 1);

    let id = web["flow_id"].as_str().expect("an id").to_owned();
    let before = appliance.flows(&format!("flow_id == {id}"), &[]);
    appliance.stop();
    assert_eq!(flows(directory.path(), &format!("flow_id == {id}"), &[]), before);
    check_pcap(directory.path(), &id);

    let appliance = Appliance::start(directory.path(), &["--interface", "none-such*"]);
    assert_eq!(appliance.flows(&format!("flow_id == {id}"), &[]), before);
    appliance.stop();
}

/// Each lookup and each request of the demonstration is a row of its own, named at both ends; after a restart it is there.
#[test]
fn each_exchange_is_a_transaction_that_survives_a_restart() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let appliance = Appliance::start(directory.path(), &["--demo", "--interface", "wtdemo*"]);
    let found = |appliance: &Appliance, query: &str| appliance.flows(query, &["--transactions"]);
    let web = eventually(20, "a request of the demonstration", || found(&appliance, "http_status == 200").pop());
    assert_eq!((&web["client_container"], &web["server_container"]), (&"client".into(), &"web".into()), "{web}");
    assert_eq!(
        (&web["http_method"], &web["http_host"], &web["http_path"]),
        (&"GET".into(), &"web.demo".into(), &"/".into())
    );
    assert_eq!((&web["observed_at"], &web["primary"]), (&"client".into(), &true.into()));
    assert!(web["latency_us"].is_u64() && web["response_bytes"].as_u64() > Some(4096), "{web}");
    let missing = eventually(20, "a name that does not exist", || found(&appliance, "dns_rcode == NXDOMAIN").pop());
    assert_eq!((&missing["dns_query"], &missing["server_container"]), (&"missing.demo".into(), &"dns".into()));

    // The other veth and the bridge saw the same exchange: it counts once. Its flow tells the same.
    let same = format!("client_port == {} and http_status exists", web["client_port"]);
    let all = eventually(20, "other observations", || {
        let all = appliance.flows(&same, &["--transactions", "--all-observations"]);
        (all.len() >= 2).then_some(all)
    });
    assert_eq!(all.iter().filter(|row| row["primary"] == true).count(), 1, "{all:?}");
    assert_eq!(found(&appliance, &same), std::slice::from_ref(&web));
    let id = web["flow_id"].as_str().expect("an id");
    let flow = eventually(20, "its flow", || appliance.flows(&format!("flow_id == {id}"), &[]).pop());
    assert_eq!((&flow["primary"], &flow["client_identity"]), (&web["primary"], &web["client_identity"]));

    let data = directory.path().to_str().expect("a path");
    let table = wiretag_ok(&["flows", "--transactions", "--data", data]);
    assert!(table.contains("GET web.demo/") && table.contains("A missing.demo"), "{table}");
    let answers = || appliance.metric("wiretag_http_transactions_total", "server=\"demo/web\",status=\"2xx\"");
    // A new series is 0 for more than a minute.
    eventually(120, "requests of the demonstration in `/metrics`", || (answers() > 0.5).then_some(()));
    assert!(appliance.metric("wiretag_transactions_lost_total", "") < 0.5);
    check_interface(&appliance);

    let query = format!("flow_id == {id}");
    let before = found(&appliance, &query);
    appliance.stop();
    assert_eq!(flows(directory.path(), &query, &["--transactions"]), before);
    let config = directory.path().join("without.toml");
    std::fs::write(&config, "[capture]\ntransactions = false\n").expect("written");
    let config = config.to_str().expect("a path");
    let appliance = Appliance::start(directory.path(), &["--config", config, "--demo", "--interface", "wtdemo*"]);
    assert_eq!(found(&appliance, &query), before);
    eventually(20, "a flow", || (appliance.metric("wiretag_flow_slices_total", "") >= 1.0).then_some(()));
    assert!(appliance.metric("wiretag_transactions_total", "") < 0.5, "without transactions there are none");
    appliance.stop();
}

/// Transactions over HTTP: pages, columns, and the same doors as for flows.
fn check_interface(appliance: &Appliance) {
    let json = |path: &str| -> serde_json::Value { serde_json::from_str(&appliance.get(path)).expect("JSON") };
    let first = json("/api/v1/transactions?limit=1");
    assert_eq!(first["transactions"].as_array().expect("rows").len(), 1);
    assert_eq!(first["completeness"]["complete"], true);
    let next = json(&format!("/api/v1/transactions?limit=1&after={}", first["next"].as_str().expect("a cursor")));
    let key = |page: &serde_json::Value| {
        let row = &page["transactions"][0];
        (row["flow_id"].to_string(), row["exchange"].to_string())
    };
    assert_ne!(key(&first), key(&next));
    let fields = json("/api/v1/fields?table=transactions");
    let names: Vec<_> = fields["fields"].as_array().expect("fields").iter().map(|field| &field["name"]).collect();
    let columns = first["transactions"][0].as_object().expect("a row");
    assert!(names.iter().map(|name| name.as_str().expect("a name")).eq(columns.keys()), "{names:?}");
    assert_eq!(appliance.request("/api/v1/transactions", None).0, 401);
    assert!(!appliance.log().contains("nobody's"), "who has no token tried none: {}", appliance.log());
    assert_eq!(appliance.request("/api/v1/transactions", Some("guess")).0, 401);
    eventually(20, "the log says who tried", || {
        appliance.log().contains("a request from 127.0.0.1 failed: the token is nobody's").then_some(())
    });
    let (status, body) = appliance.request("/api/v1/transactions?q=tcp_state%20%3D%3D%20S0", Some(&appliance.token));
    assert!(status == 400 && body.contains("a column of flows"), "{body}");
    assert_eq!(appliance.request("/api/v1/fields?table=packets", Some(&appliance.token)).0, 400);
    assert!(appliance.get("/api/v1/openapi.json").contains("/api/v1/transactions"));
}

/// tshark reads the download: interface names, packet comments with both names, the whole conversation.
fn check_pcap(data: &Path, flow_id: &str) {
    let out = data.join("flow.pcapng");
    let out = out.to_str().expect("a path");
    wiretag_ok(&["pcap", &format!("flow_id == {flow_id}"), "-o", out, "--data", data.to_str().expect("a path")]);
    let fields = ["-T", "fields", "-e", "frame.interface_name", "-e", "frame.comment", "-e", "tcp.flags.syn"];
    let text = run("tshark", &[&["-r", out], &fields[..]].concat());
    let lines: Vec<_> = text.lines().collect();
    assert!(lines.len() > 6, "{text}");
    assert!(lines.iter().all(|line| line.starts_with("wtdemo-client\tclient=client server=web")), "{text}");
    assert_eq!(lines.iter().filter(|line| line.ends_with("\t1") || line.ends_with("True")).count(), 2, "{text}");
}

/// Packets in = packets accounted for, exactly.
#[test]
fn a_burst_is_accounted_for_to_the_last_packet() {
    const PACKETS: usize = 20_000;
    if !is_root() {
        return;
    }
    let wire = Wire::new("wtburst");
    let directory = tempfile::tempdir().expect("a directory");
    let appliance = Appliance::start(directory.path(), &["--interface", "wtburst"]);
    wire.burst(PACKETS, 100);
    let sum = |name: &str| appliance.metric(name, "");
    eventually(20, "the burst is counted", || {
        let counted = sum("wiretag_capture_packets_total") + sum("wiretag_capture_kernel_drops_total");
        (counted >= PACKETS as f64).then_some(())
    });
    let received = sum("wiretag_capture_packets_total");
    let decoded = sum("wiretag_capture_decoded_packets_total");
    let refused = sum("wiretag_capture_refused_packets_total");
    assert!((received - decoded - refused).abs() < 0.5, "{received} = {decoded} + {refused}");
    let drops = sum("wiretag_capture_kernel_drops_total") as u64;
    let queue_drops = sum("wiretag_capture_queue_drops_total") as u64;
    let log_drops = sum("wiretag_packet_log_dropped_packets_total") as u64;
    appliance.stop();

    let found = flows(directory.path(), "server_port == 9000", &["--all-observations"]);
    let counted: u64 = found.iter().filter_map(|flow| flow["client_packets"].as_u64()).sum();
    assert_eq!(counted + drops, PACKETS as u64, "in flows + dropped by the kernel = sent");
    let bytes: u64 = found.iter().filter_map(|flow| flow["client_bytes"].as_u64()).sum();
    assert_eq!(bytes, counted * 128);
    let out = directory.path().join("burst.pcapng");
    let data = directory.path().to_str().expect("a path");
    wiretag_ok(&["pcap", "server_port == 9000", "-o", out.to_str().expect("a path"), "--data", data]);
    let replayed = support::rows(&wiretag_ok(&["replay", out.to_str().expect("a path")]));
    let kept: u64 = replayed.iter().filter_map(|flow| flow["client_packets"].as_u64()).sum();
    assert_eq!(kept + queue_drops + log_drops, counted, "kept + not kept = counted in flows");
}

/// What the kernel gave is in flows after a stop, also if the table was full of them: more than memory has room for at once.
#[test]
fn a_stop_writes_every_flow_of_a_full_table() {
    if !is_root() {
        return;
    }
    let wire = Wire::new("wtscan");
    let directory = tempfile::tempdir().expect("a directory");
    let appliance = Appliance::start(directory.path(), &["--interface", "wtscan"]);
    wire.scan(5, 60_000);
    let sum = |name: &str| appliance.metric(name, "");
    eventually(30, "the scan is counted", || {
        let counted = sum("wiretag_capture_packets_total") + sum("wiretag_capture_kernel_drops_total");
        (counted >= 300_000.0).then_some(())
    });
    let drops = sum("wiretag_capture_kernel_drops_total") as usize;
    appliance.stop();
    let data = directory.path().to_str().expect("a path");
    let limit = ["--all-observations", "--limit", "1000000", "--format", "csv", "--data", data];
    let output = support::wiretag(&[&["flows", "protocol == udp and client_ip == 198.18.90.2"][..], &limit].concat());
    let rows = String::from_utf8_lossy(&output.stdout).lines().count() - 1;
    assert!(rows + drops >= 300_000, "{rows} rows, {drops} packets dropped by the kernel");
    let warning = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!warning.contains("lost"), "{warning}");
    assert_eq!(warning.contains("dropped by the kernel"), drops > 0, "{warning}");
    // With an empty query, every packet comes out.
    let out = directory.path().join("all.pcapng");
    wiretag_ok(&["pcap", "", "-o", out.to_str().expect("a path"), "--data", data]);
}

/// A full disk: health, answers and the log say so, once; and when there is room again, that too.
#[test]
fn a_full_disk_is_said_and_recovered_from() {
    if !is_root() {
        return;
    }
    let wire = Wire::new("wtfull");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("a path");
    run("mount", &["-t", "tmpfs", "-o", "size=32m", "tmpfs", path]);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| full_disk(&wire, directory.path())));
    run("umount", &["-l", path]);
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn full_disk(wire: &Wire, data: &Path) {
    use std::io::Write;
    let appliance = Appliance::start(data, &["--interface", "wtfull"]);
    let health = || appliance.json("/api/v1/health");
    assert_eq!(health()["status"], "ok");
    let filler = data.join("filler");
    let mut file = std::fs::File::create(&filler).expect("a file");
    while file.write_all(&[0; 4096]).is_ok() {}
    let problems = eventually(30, "the appliance notices", || {
        wire.burst(3_000, 1_000);
        let health = health();
        let problems = health["problems"].to_string();
        (health["status"] == "degraded" && problems.contains("packets are not written")).then_some(problems)
    });
    assert!(problems.contains("No space left") && !problems.contains("query"), "{problems}");
    let (_, open) = appliance.request("/api/v1/health", None);
    assert!(open == "{\"status\":\"degraded\"}", "{open}");
    let answer = eventually(20, "the answer says what was lost", || {
        let answer = appliance.json("/api/v1/flows?limit=1");
        (answer["completeness"]["complete"] == false).then_some(answer)
    });
    let node = &answer["completeness"]["nodes"][0];
    assert!(node["unwritten"].as_u64() > Some(0), "{node}");
    let lines = |word: &str| appliance.log().lines().filter(|line| line.contains(word)).count();
    assert_eq!(lines("packets are not written"), 1, "{}", appliance.log());
    // An open file keeps its space.
    drop(file);
    std::fs::remove_file(&filler).expect("removed");
    eventually(40, "the appliance recovers", || {
        wire.burst(10, 100);
        (health()["status"] == "ok").then_some(())
    });
    assert_eq!(lines("packets are written again"), 1, "{}", appliance.log());
    appliance.stop();
    let output = support::wiretag(&["flows", "--data", data.to_str().expect("a path")]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("packets not kept"), "{output:?}");
}

/// Two workers share the traffic by flow hash: both directions of a flow meet in one of them, and nothing is counted twice.
#[test]
fn workers_share_the_traffic() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("two.toml");
    std::fs::write(&config, "[capture]\nworkers = 2\n").expect("written");
    let config = config.to_str().expect("a path");
    let appliance = Appliance::start(directory.path(), &["--config", config, "--demo", "--interface", "wtdemo-client"]);
    let web = "server_container == web and server_port == 80 and end_reason == fin";
    let found = eventually(30, "twenty web flows", || {
        let found = appliance.flows(web, &["--all-observations"]);
        (found.len() >= 20).then_some(found)
    });
    for flow in &found {
        assert!(flow["tcp_state"] == "SF" && flow["client_packets"].as_u64() > Some(3), "{flow}");
        assert!(flow["server_packets"].as_u64() > Some(3), "{flow}");
    }
    let ids: std::collections::BTreeSet<_> = found.iter().map(|flow| flow["community_id"].as_str()).collect();
    assert_eq!(ids.len(), found.len(), "each flow is in one worker's table");
    appliance.stop();
}

/// kill -9 loses the last seconds at most: what a search has shown after a flush is there after the next start.
#[test]
fn a_kill_loses_nothing_that_was_written() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let appliance = Appliance::start(directory.path(), &["--demo", "--interface", "wtdemo*"]);
    let seen = eventually(30, "ten flows on disk", || {
        (appliance.metric("wiretag_store_flow_rows_total", "") >= 10.0).then(|| appliance.flows("", &[]))
    });
    let stored = appliance.metric("wiretag_store_flow_rows_total", "") as usize;
    appliance.kill();
    let appliance = Appliance::start(directory.path(), &["--interface", "none-such*"]);
    let after = appliance.flows("", &["--all-observations", "--limit", "100000"]);
    assert!(after.len() >= stored, "{} rows after, {stored} were stored", after.len());
    let ids: std::collections::BTreeSet<_> = after.iter().map(|flow| flow["flow_id"].as_str()).collect();
    assert!(seen.iter().rev().take(5).all(|flow| ids.contains(&flow["flow_id"].as_str())));
    appliance.stop();
    // The killed appliance could not remove its namespaces: a demonstration removes what an earlier one left.
    Appliance::start(directory.path(), &["--demo"]).stop();
    assert!(!run("ip", &["netns", "list"]).contains("wtdemo-"));
}

#[test]
fn wrong_starts_are_clear_errors() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().to_str().expect("a path");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let (code, error) = wiretag_fails(&["run", "--data", data, "--listen", &address]);
    assert_eq!(code, 1);
    assert!(error.contains(&address) && error.contains("another process has the port"), "{error}");
    let (_, error) = wiretag_fails(&["run", "--data", data, "--listen", "192.0.2.1:80"]);
    assert!(error.contains("no interface of this host") && !error.contains("another process"), "{error}");

    let config = directory.path().join("wrong.toml");
    std::fs::write(&config, "[capture]\ninterface = ['eth0']\n").expect("written");
    let (_, error) = wiretag_fails(&["run", "--data", data, "--config", config.to_str().expect("a path")]);
    assert!(error.contains("wrong.toml") && error.contains("`interfaces`"), "{error}");

    let appliance = Appliance::start(directory.path(), &["--interface", "none-such*"]);
    let (_, error) = wiretag_fails(&["run", "--data", data, "--listen", "127.0.0.1:0"]);
    assert!(error.contains("hint:"), "{error}");
    let (status, _) = appliance.request("/api/v1/flows", None);
    assert_eq!(status, 401);
    // What is kept has no secrets.
    let log = eventually(20, "the greeting", || Some(appliance.log()).filter(|log| log.contains("  capture ")));
    assert!(log.contains("  token     in `") && !log.contains(&appliance.token), "{log}");
    appliance.stop();
}

/// A second demonstration is refused and the first goes on, whether the second start has a data directory of its own or not.
#[test]
fn a_demonstration_is_not_taken_from_another_instance() {
    if !is_root() {
        return;
    }
    let (directory, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let appliance = Appliance::start(directory.path(), &["--demo", "--interface", "wtdemo*"]);
    for (path, why) in [(directory.path(), "another `wiretag run`"), (other.path(), "the demonstration of another")] {
        let path = path.to_str().expect("a path");
        let (code, error) = wiretag_fails(&["run", "--demo", "--listen", "127.0.0.1:0", "--data", path]);
        assert!(code == 1 && error.contains(why) && error.contains("hint:"), "{error}");
    }
    let known = appliance.flows("container == web", &["--limit", "100000"]).len();
    eventually(20, "the first demonstration goes on", || {
        (appliance.flows("container == web", &["--limit", "100000"]).len() > known).then_some(())
    });
    appliance.stop();
    assert!(!run("ip", &["netns", "list"]).contains("wtdemo-"));
}

/// New flows come as they are stored, over HTTP and at the command line, and the stream ends with the appliance.
#[test]
fn new_flows_are_followed() {
    use std::io::{BufRead, BufReader};
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().to_str().expect("a path");
    let appliance = Appliance::start(directory.path(), &["--demo", "--interface", "wtdemo*", "--interface", "nope0"]);
    assert_eq!(appliance.request("/api/v1/flows/tail", None).0, 401);
    assert_eq!(appliance.request("/api/v1/flows/tail?q=prt%3D1", Some(&appliance.token)).0, 400);
    assert_eq!(appliance.request("/api/v1/flows?q=%ff", Some(&appliance.token)).0, 400);
    let mut follower = std::process::Command::new(env!("CARGO_BIN_EXE_wiretag"))
        .args(["flows", "--follow", "dns_rcode == NXDOMAIN and start > -1m", "--format", "json", "--data", data])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("wiretag starts");
    let lines = BufReader::new(follower.stdout.take().expect("stdout")).lines();
    let first: Vec<_> = lines.take(2).map(|line| line.expect("a line")).collect();
    for flow in support::rows(&first.join("\n")) {
        assert_eq!((&flow["dns_query"], &flow["primary"]), (&"missing.demo".into(), &true.into()), "{flow}");
    }
    appliance.stop();
    let _ = follower.wait().expect("it ends with the appliance");
}

/// Without privileges the error says what is missing.
#[test]
fn without_privileges_the_error_says_what_is_missing() {
    if !is_root() || !has("setpriv") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    run("chmod", &["777", directory.path().to_str().expect("a path")]);
    let output = std::process::Command::new("setpriv")
        .args(["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", env!("CARGO_BIN_EXE_wiretag")])
        .args(["run", "--listen", "127.0.0.1:0", "--data"])
        .arg(directory.path())
        .output()
        .expect("setpriv runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("hint:") && error.to_lowercase().contains("cap_net_raw"), "{error}");
    // Nothing ran, so nothing is missing: the next start does not speak of a run that was killed.
    assert_eq!(std::fs::read_dir(directory.path().join("journal")).map_or(0, Iterator::count), 0);
}

/// The address is that of another network namespace.
#[test]
fn an_appliance_that_does_not_answer_here_was_not_killed() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let _appliance = Appliance::start(directory.path(), &["--interface", "lo"]);
    let mut command = std::process::Command::new("unshare");
    command.args(["--net", env!("CARGO_BIN_EXE_wiretag"), "flows", "--data"]).arg(directory.path());
    let output = command.output().expect("unshare runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("does not answer here") && !said.contains("killed"), "{said}");
}
