//! What a kill -9 loses: the last seconds at most, also of connections that run. What a moment without descriptors loses: that moment. And the time
//! in which nobody captured.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use support::{Appliance, eventually, flows, has, is_root, rows, run, wiretag, wiretag_ok};
use wiretag_capture::ring::in_namespace;

const IDENTITIES: &str = "identities:\n  - name: web-box\n    ips: [198.18.91.1]\n  \
                          - name: client-box\n    ips: [198.18.91.2]\n";

/// A veth pair into a namespace of its own, removed when dropped.
struct Wire {
    name: &'static str,
    /// Of the host's end; the other one is the next.
    address: [u8; 4],
}

impl Wire {
    /// Tests run at the same time: each wire is a network of its own.
    fn new(name: &'static str, network: u8) -> Self {
        let wire = Self { name, address: [198, 18, network, 1] };
        wire.remove();
        run("ip", &["netns", "add", name]);
        run("ip", &["link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name]);
        run("ip", &["addr", "add", &format!("198.18.{network}.1/24"), "dev", name]);
        run("ip", &["link", "set", name, "up"]);
        run("ip", &["-n", name, "addr", "add", &format!("198.18.{network}.2/24"), "dev", "eth0"]);
        run("ip", &["-n", name, "link", "set", "eth0", "up"]);
        wire
    }

    /// Does something inside the namespace.
    fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        in_namespace(&PathBuf::from("/run/netns").join(self.name), work).expect("the namespace")
    }

    /// A listener at the host's end.
    fn listen(&self) -> TcpListener {
        TcpListener::bind(SocketAddr::from((self.address, 0))).expect("a listener")
    }

    fn remove(&self) {
        for arguments in [["link", "del", self.name], ["netns", "del", self.name]] {
            let _ = std::process::Command::new("ip").args(arguments).output();
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A connection through the wire: both ends.
fn connect(wire: &Wire, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let address = listener.local_addr().expect("an address");
    let client = wire.inside(move || TcpStream::connect(address)).expect("connected");
    (client, listener.accept().expect("accepted").0)
}

/// A question and its answer, on the wire.
fn talk((client, server): &mut (TcpStream, TcpStream)) {
    let mut read = [0; 100];
    client.write_all(&[1; 100]).expect("sent");
    server.read_exact(&mut read).expect("received");
    server.write_all(&[2; 100]).expect("sent");
    client.read_exact(&mut read).expect("received");
}

fn packets(row: &Value) -> u64 {
    row["client_packets"].as_u64().expect("a number") + row["server_packets"].as_u64().expect("a number")
}

/// Flow and slice of each row; none is there twice.
fn places(rows: &[Value]) -> BTreeMap<(String, u64), &Value> {
    let place =
        |row: &Value| (row["flow_id"].as_str().expect("an id").to_owned(), row["slice"].as_u64().expect("a number"));
    let places: BTreeMap<_, _> = rows.iter().map(|row| (place(row), row)).collect();
    assert_eq!(places.len(), rows.len(), "a slice is there twice");
    places
}

/// A connection that runs is in searches while it does; after a kill its row is there, with names, as it was seconds before.
#[test]
fn a_connection_that_runs_is_seen_and_survives_a_kill() {
    if !is_root() {
        return;
    }
    let wire = Wire::new("wtcrash", 91);
    let directory = tempfile::tempdir().expect("a directory");
    let identities = directory.path().join("identities.yaml");
    std::fs::write(&identities, IDENTITIES).expect("written");
    let arguments = ["--interface", "wtcrash", "--static", identities.to_str().expect("a path")];
    let appliance = Appliance::start(directory.path(), &arguments);
    let listener = wire.listen();
    let port = listener.local_addr().expect("an address").port();
    let mut long = connect(&wire, &listener);

    let query = format!("server_port == {port} and not end_reason exists");
    let open = |appliance: &Appliance| appliance.flows(&query, &[]).into_iter().next();
    // The first look may fall between its first two packets.
    let first = eventually(30, "the connection is seen", || {
        talk(&mut long);
        open(&appliance).filter(|row| row["tcp_state"] == "S1")
    });
    assert_eq!((&first["end_reason"], &first["primary"]), (&Value::Null, &true.into()));
    assert_eq!((&first["client_container"], &first["server_container"]), (&"client-box".into(), &"web-box".into()));
    let table = wiretag_ok(&["flows", &query, "--data", directory.path().to_str().expect("a path")]);
    assert!(table.contains("open"), "{table}");
    // The next look knows more, and so does the journal by then.
    let later = eventually(60, "the next look", || {
        talk(&mut long);
        open(&appliance).filter(|row| packets(row) > packets(&first))
    });
    eventually(60, "and one more", || {
        talk(&mut long);
        open(&appliance).filter(|row| packets(row) > packets(&later) && row["slice"] == later["slice"])
    });
    assert!(appliance.metric("wiretag_open_slices", "") >= 1.0);
    assert!(appliance.metric("wiretag_store_bytes", "kind=\"journal\"") > 0.0);

    // A connection that ends just before.
    let mut short = connect(&wire, &listener);
    talk(&mut short);
    drop(short);
    let short = eventually(30, "its row", || {
        appliance.flows(&format!("server_port == {port} and end_reason == fin"), &[]).into_iter().next()
    });
    let one = format!("flow_id == {}", short["flow_id"].as_str().expect("an id"));
    let data = directory.path().to_str().expect("a path");
    eventually(30, "it is in a file", || {
        let told = rows(&wiretag_ok(&["flows", &one, "--explain", "--format", "json", "--data", data]));
        (told[0]["rows_found"] == 1).then_some(())
    });
    appliance.kill();

    let appliance = Appliance::start(directory.path(), &["--interface", "none-such*"]);
    eventually(30, "the greeting", || appliance.log().contains("open flows were recovered").then_some(()));
    let check = |found: &[Value]| {
        let of = |id: &Value| found.iter().filter(|row| row["flow_id"] == *id).collect::<Vec<_>>();
        let [row] = of(&first["flow_id"])[..] else { panic!("{found:#?}") };
        assert_eq!((&row["end_reason"], &row["slice"]), (&"interrupted".into(), &later["slice"]));
        assert!(packets(row) >= packets(&later), "{row}");
        for name in ["client_container", "server_container", "client_tagged_by", "community_id", "start"] {
            assert_eq!(row[name], first[name], "{name}");
        }
        let [row] = of(&short["flow_id"])[..] else { panic!("{found:#?}") };
        assert_eq!(*row, short, "it had ended: it is there once, as it was");
    };
    let all = format!("server_port == {port}");
    let found = appliance.flows(&all, &[]);
    check(&found);
    let interrupted = appliance.json("/api/v1/flows?limit=1");
    assert_eq!(interrupted["completeness"]["complete"], false, "{interrupted}");
    appliance.stop();
    assert_eq!(std::fs::read_dir(directory.path().join("journal")).expect("the journal").count(), 0);
    assert_eq!(flows(directory.path(), &all, &[]), found, "a clean stop leaves nothing to recover");
}

/// Traffic from inside the namespace: datagrams of flows that go on and on, and of others that are a moment long, and short
/// connections. Ends when dropped.
struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(wire: &Wire) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, name) = (stop.clone(), wire.name);
        let path = Path::new("/run/netns").join(name);
        let (listener, server) = (wire.listen(), wire.address);
        let address = listener.local_addr().expect("an address");
        let thread = std::thread::spawn(move || {
            in_namespace(&path, move || -> std::io::Result<()> {
                let socket = UdpSocket::bind("0.0.0.0:40000")?;
                socket.set_read_timeout(Some(Duration::from_millis(5)))?;
                for number in (0..20_000_u16).cycle() {
                    if ended.load(Ordering::Relaxed) {
                        break;
                    }
                    for port in [20_000 + number % 50, 30_000 + number] {
                        socket.send_to(&[7; 40], SocketAddr::from((server, port)))?;
                    }
                    let client = TcpStream::connect(address)?;
                    drop(listener.accept()?);
                    // It is closed: this is the end of what can be read, after a moment.
                    (&client).read_exact(&mut [0; 1]).expect_err("closed");
                    // Nobody answers: this is a pause.
                    let _ = socket.recv(&mut [0; 1]);
                }
                Ok(())
            })
            .expect("the namespace")
            .expect("sent");
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Killed again and again under load: what searches showed a few looks before is there, and nothing is there twice.
#[test]
fn kills_under_load_lose_nothing_old_and_double_nothing() {
    const ALL: [&str; 3] = ["--all-observations", "--limit", "1000000"];
    if !is_root() {
        return;
    }
    let wire = Wire::new("wtkills", 92);
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("often.toml");
    std::fs::write(&config, "[capture]\ncheckpoint = 1\n").expect("written");
    let arguments = ["--interface", "wtkills", "--config", config.to_str().expect("a path")];
    let load = Load::start(&wire);
    let mut before: BTreeSet<(String, u64)> = BTreeSet::new();
    for round in 0..4_u64 {
        let appliance = Appliance::start(directory.path(), &arguments);
        // Another moment in each round.
        let looked = |appliance: &Appliance| appliance.metric("wiretag_checkpoint_slices_total", "");
        let wanted = 300.0 * (1 + (round * 7 + u64::from(std::process::id())) % 4) as f64;
        eventually(60, "some looks", || (looked(&appliance) > wanted).then_some(()));
        let rows = appliance.flows("", &ALL);
        let shown = places(&rows);
        assert!(before.iter().all(|place| shown.contains_key(place)), "round {round}: an old row is gone");
        assert!(rows.iter().any(|row| row["end_reason"].is_null()), "round {round}: something is open");
        let ended =
            shown.iter().filter(|(place, row)| !row["end_reason"].is_null() && !before.contains(*place)).count();
        let since = looked(&appliance);
        eventually(60, "the rows shown are in files, and looks have gone on", || {
            let stored = appliance.metric("wiretag_store_flow_rows_total", "") as usize;
            (stored >= ended && looked(&appliance) >= since + 200.0).then_some(())
        });
        appliance.kill();
        let appliance = Appliance::start(directory.path(), &["--interface", "none-such*"]);
        let rows = appliance.flows("", &ALL);
        let found = places(&rows);
        for (place, row) in &shown {
            let after = found.get(place).unwrap_or_else(|| panic!("round {round}: gone: {row}"));
            assert!(packets(after) >= packets(row) && !after["end_reason"].is_null(), "round {round}: {row} {after}");
        }
        before = found.into_keys().collect();
        appliance.stop();
    }
    drop(load);
}

/// From an orderly stop to the next start. Of the time before the first start nobody said that anything would be captured.
#[test]
fn the_time_in_which_nobody_captured_is_told() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let start = || Appliance::start(directory.path(), &["--interface", "none-such*"]);
    let told = |appliance: &Appliance, range: &str| {
        appliance.json(&format!("/api/v1/flows?limit=1{range}"))["completeness"].clone()
    };
    let appliance = start();
    assert_eq!(told(&appliance, "")["complete"], true);
    appliance.stop();
    std::thread::park_timeout(Duration::from_secs(3));
    let appliance = start();
    let gap = eventually(20, "it is on record", || {
        let told = told(&appliance, "");
        (told["complete"] == false).then_some(told)
    });
    let seconds = gap["nodes"][0]["not_captured_seconds"].as_u64().expect("a number");
    assert!((3..60).contains(&seconds) && gap["nodes"][0]["interruptions"] == 0, "{gap}");
    assert_eq!(told(&appliance, "&from=-2h&to=-1h")["complete"], true);
    appliance.stop();
    let data = directory.path().to_str().expect("a path");
    let of_gap = format!("{seconds} s in which nothing was captured");
    for (range, is_touched) in
        [(&["--from", "-1h"][..], true), (&["--from", "-1h", "--to", "-30m"], false), (&[], false)]
    {
        let output = wiretag(&[&["flows", "--data", data], range].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(said.contains(&of_gap), is_touched, "{said}");
        assert_eq!(said.contains("nobody is known to have captured since"), is_touched, "{said}");
    }
}

/// After a kill: from what is known last of the run before, some seconds before it was killed at most.
#[test]
fn the_time_after_a_kill_in_which_nobody_captured_is_told() {
    const PAUSE: u64 = 4;
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let start = || Appliance::start(directory.path(), &["--interface", "none-such*"]);
    start().kill();
    std::thread::park_timeout(Duration::from_secs(PAUSE));
    let appliance = start();
    let node = eventually(20, "it is on record", || {
        let completeness = appliance.json("/api/v1/flows?limit=1")["completeness"].clone();
        let node = completeness["nodes"][0].clone();
        (node["not_captured_seconds"].as_u64() > Some(0)).then_some(node)
    });
    let seconds = node["not_captured_seconds"].as_u64().expect("a number");
    assert!((PAUSE..60).contains(&seconds) && node["interruptions"] == 1, "{node}");
    appliance.stop();
}

/// Nothing can be opened when an interface appears: what is captured stays, the interface follows as soon as it can, and health and
/// answers say so.
#[test]
fn an_interface_that_appears_while_nothing_can_be_opened_is_captured_afterwards() {
    if !is_root() || !has("prlimit") {
        return;
    }
    let _first = Wire::new("wtopen-a", 93);
    let directory = tempfile::tempdir().expect("a directory");
    let appliance = Appliance::start(directory.path(), &["--interface", "wtopen-*"]);
    let health = || appliance.json("/api/v1/health");
    let captured = |health: &Value| health["interfaces"].as_array().expect("interfaces").len();
    assert_eq!((captured(&health()), &health()["status"]), (1, &"ok".into()));
    let limits = run("prlimit", &["--pid", &appliance.pid(), "--nofile", "--noheadings", "--output", "SOFT,HARD"]);
    let limits: Vec<&str> = limits.split_whitespace().collect();
    assert_eq!(limits[0], limits[1], "it takes all that it may have");

    let allow = |files: &str| run("prlimit", &["--pid", &appliance.pid(), &format!("--nofile={files}:")]);
    allow("3");
    let _second = Wire::new("wtopen-b", 94);
    let says = |words: &str| appliance.log().lines().filter(|line| line.contains(words)).count();
    eventually(20, "the log says so", || (says("interfaces are not followed") > 0).then_some(()));
    allow(limits[0]);
    let told = health();
    assert_eq!(told["status"], "degraded", "{told}");
    assert!(told["problems"].to_string().contains("interfaces are not followed"), "{told}");
    eventually(30, "all is well again", || {
        let health = health();
        (health["status"] == "ok" && captured(&health) == 2).then_some(())
    });
    assert_eq!((says("interfaces are not followed"), says("interfaces are followed again")), (1, 1));
    let completeness = &appliance.json("/api/v1/flows?limit=1")["completeness"];
    assert_eq!(completeness["complete"], false, "{completeness}");
    assert!(completeness["nodes"][0]["interruptions"].as_u64() > Some(0), "{completeness}");
    appliance.stop();
}
