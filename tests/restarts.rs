//! Containers that come and go: one that is started again at once, with its address and ports, and another interface; one that ends
//! while identities change. Made of network namespaces on a bridge. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod support;

use std::net::UdpSocket;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use support::{Appliance, eventually, is_root, run};
use wiretag_capture::ring::in_namespace;

/// A bridge with an address, and containers on it; removed when dropped. What is made has the stage's name in its own.
struct Stage {
    name: &'static str,
    /// The first three bytes of the addresses.
    network: &'static str,
}

impl Stage {
    fn new(name: &'static str, network: &'static str) -> Self {
        let stage = Self { name, network };
        stage.remove();
        run("ip", &["link", "add", name, "type", "bridge"]);
        run("ip", &["addr", "add", &format!("{network}.254/24"), "dev", name]);
        run("ip", &["link", "set", name, "up"]);
        stage
    }

    fn remove(&self) {
        let delete = |kind: &str, name: &str| drop(std::process::Command::new("ip").args([kind, "del", name]).output());
        delete("link", self.name);
        for number in 1..=9 {
            delete("link", &self.called(number));
            delete("netns", &self.called(number));
        }
    }

    /// The host's end of a container's veth, and its namespace.
    fn called(&self, number: u8) -> String {
        format!("{}-{number}", self.name)
    }

    /// A container with an address.
    fn container(&self, number: u8, address: u8) {
        let name = self.called(number);
        run("ip", &["netns", "add", &name]);
        run("ip", &["link", "add", &name, "type", "veth", "peer", "name", "eth0", "netns", &name]);
        run("ip", &["link", "set", &name, "master", self.name, "up"]);
        let address = format!("{}.{address}/24", self.network);
        run("ip", &["-n", &name, "addr", "add", &address, "dev", "eth0"]);
        run("ip", &["-n", &name, "link", "set", "eth0", "up"]);
    }

    fn end(&self, number: u8) {
        run("ip", &["link", "del", &self.called(number)]);
        run("ip", &["netns", "del", &self.called(number)]);
    }

    fn is_captured(&self, appliance: &Appliance, number: u8) {
        let name = format!("\"{}\"", self.called(number));
        eventually(10, "it is captured", || appliance.get("/api/v1/health").contains(&name).then_some(()));
    }

    fn inside<T: Send + 'static>(&self, number: u8, work: impl FnOnce() -> T + Send + 'static) -> T {
        in_namespace(&Path::new("/run/netns").join(self.called(number)), work).expect("the namespace")
    }

    /// Sends a hundred datagrams from a container to the bridge, always from and to the same ports. Between containers Docker's rules may stand.
    fn send(&self, number: u8) {
        self.send_many(number, 100, 100);
    }

    /// The same with so many datagrams of so many bytes.
    fn send_many(&self, number: u8, count: usize, size: usize) {
        let to = format!("{}.254:9000", self.network);
        let sent = self.inside(number, move || -> std::io::Result<()> {
            let socket = UdpSocket::bind("0.0.0.0:40000")?;
            for _ in 0..count {
                socket.send_to(&vec![7; size], &to)?;
            }
            Ok(())
        });
        sent.expect("sent");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.remove();
    }
}

fn packets(rows: &[Value]) -> u64 {
    rows.iter().map(|row| row["client_packets"].as_u64().expect("a number")).sum()
}

/// The bridge, which is asked, sees one flow, each client's own interface its part: each packet counts once, live and when all is over.
#[test]
fn a_container_that_is_started_again_at_once_counts() {
    if !is_root() {
        return;
    }
    let stage = Stage::new("wtagain", "198.18.92");
    let directory = tempfile::tempdir().expect("a directory");
    let appliance = Appliance::start(directory.path(), &["--interface", "wtagain*"]);
    let clients = [1, 2, 3];
    for client in clients {
        stage.container(client, 2);
        stage.is_captured(&appliance, client);
        stage.send(client);
        stage.end(client);
        // No container starts faster.
        std::thread::park_timeout(Duration::from_millis(300));
    }
    let query = "client_port == 40000 and server_port == 9000";
    let all = eventually(30, "the bridge has seen all", || {
        let rows = appliance.flows(query, &["--all-observations"]);
        let seen: Vec<Value> = rows.iter().filter(|row| row["interface"] == stage.name).cloned().collect();
        (packets(&seen) == 300).then_some(rows)
    });
    let primary = eventually(30, "each packet counts once", || {
        let rows = appliance.flows(query, &[]);
        (packets(&rows) == 300).then_some(rows)
    });
    let is_clients = |row: &Value| clients.iter().any(|number| row["interface"] == stage.called(*number));
    assert!(primary.iter().all(is_clients), "{primary:?} of {all:?}");
    appliance.stop();
    let stored = support::flows(directory.path(), query, &[]);
    assert_eq!(packets(&stored), 300, "{stored:?}");
    let ends: Vec<&Value> = stored.iter().map(|row| &row["end_reason"]).collect();
    assert!(ends.iter().filter(|reason| **reason == "end_of_input").count() >= 2, "{ends:?}");
}

/// Rows are stored some seconds after their end, whatever identities do: here the host's addresses come and go.
#[test]
fn rows_do_not_wait_for_identities_that_change_without_a_pause() {
    if !is_root() {
        return;
    }
    let stage = Stage::new("wtpause", "198.18.93");
    let directory = tempfile::tempdir().expect("a directory");
    let appliance = Appliance::start(directory.path(), &["--interface", "wtpause*"]);
    stage.container(1, 1);
    stage.is_captured(&appliance, 1);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in (10..200).cycle().take_while(|_| !stop.load(Ordering::Relaxed)) {
                let address = format!("198.18.93.{number}/32");
                run("ip", &["addr", "add", &address, "dev", stage.name]);
                std::thread::park_timeout(Duration::from_millis(30));
                run("ip", &["addr", "del", &address, "dev", stage.name]);
                std::thread::park_timeout(Duration::from_millis(30));
            }
        });
        std::thread::park_timeout(Duration::from_secs(3));
        stage.send(1);
        stage.end(1);
        let ended = format!("interface == {} and server_port == 9000 and end_reason exists", stage.called(1));
        let found = (0..40).any(|_| {
            std::thread::park_timeout(Duration::from_millis(250));
            appliance.flows(&ended, &[]).len() == 1
        });
        stop.store(true, Ordering::Relaxed);
        assert!(found, "the row that has ended is not there");
    });
    appliance.stop();
}

/// A closed terminal, and who says SIGHUP by habit.
#[test]
fn a_hangup_is_an_orderly_stop() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    Appliance::start(directory.path(), &["--interface", "none-such*"]).stop_by("-HUP");
    assert!(!directory.path().join("run.json").exists());
    assert_eq!(std::fs::read_dir(directory.path().join("journal")).expect("the journal").count(), 0);
}

/// Packets have filled the disk to the last block: a start with lower limits takes the oldest away, and captures.
#[test]
fn a_start_with_lower_limits_frees_a_full_disk() {
    if !is_root() {
        return;
    }
    let stage = Stage::new("wtfree", "198.18.94");
    let (directory, settings) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let path = directory.path().to_str().expect("a path");
    run("mount", &["-t", "tmpfs", "-o", "size=32m", "tmpfs", path]);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        full_start(&stage, directory.path(), settings.path());
    }));
    run("umount", &["-l", path]);
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn full_start(stage: &Stage, data: &Path, settings: &Path) {
    use std::io::Write;
    let start = |gib: &str| {
        let path = settings.join("wiretag.toml");
        std::fs::write(&path, format!("[packets]\ncompression = 'none'\ngib = {gib}\n")).expect("written");
        Appliance::start(data, &["--interface", "wtfree-1", "--config", path.to_str().expect("a path")])
    };
    let kept = || {
        let told = run("du", &["-sb", data.join("packets").to_str().expect("a path")]);
        told.split_whitespace().next().and_then(|bytes| bytes.parse::<u64>().ok()).expect("bytes")
    };
    let appliance = start("1.0");
    stage.container(1, 1);
    stage.is_captured(&appliance, 1);
    stage.send_many(1, 6_000, 1_000);
    eventually(30, "the packets are kept", || (kept() > 5_000_000).then_some(()));
    appliance.stop();
    let before = packets(&support::flows(data, "server_port == 9000", &[]));
    let mut filler = std::fs::File::create(data.join("filler")).expect("a file");
    while filler.write_all(&[0; 4096]).is_ok() {}
    drop(filler);

    let appliance = start("0.001");
    assert!(kept() < 2_000_000, "{}", kept());
    stage.is_captured(&appliance, 1);
    stage.send(1);
    eventually(30, "what came after", || {
        let rows = appliance.flows("server_port == 9000", &[]);
        (packets(&rows) == before + 100).then_some(())
    });
    assert_eq!(appliance.json("/api/v1/health")["status"], "ok");
    appliance.stop();
}
