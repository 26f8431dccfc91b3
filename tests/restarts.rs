//! Containers that come and go all the time: one that is started again at once, with its address and ports, and another interface;
//! connections of a moment, one after the other. Made of network namespaces on a bridge. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod support;

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
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
        let to = format!("{}.254:9000", self.network);
        let sent = self.inside(number, move || -> std::io::Result<()> {
            let socket = UdpSocket::bind("0.0.0.0:40000")?;
            for _ in 0..100 {
                socket.send_to(&[7; 100], &to)?;
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

/// Rows are stored some seconds after their end, whatever identities do: here the kernel tells of sockets, one after the other.
#[test]
fn rows_do_not_wait_for_identities_that_change_without_a_pause() {
    if !is_root() {
        return;
    }
    let stage = Stage::new("wtpause", "198.18.93");
    let directory = tempfile::tempdir().expect("a directory");
    let appliance = Appliance::start(directory.path(), &["--interface", "wtpause*"]);
    let (asks, sends) = (1, 2);
    for number in [asks, sends] {
        stage.container(number, 10 + number);
        stage.is_captured(&appliance, number);
    }
    let server = TcpListener::bind("198.18.93.254:9101").expect("the bridge's address");
    std::thread::spawn(move || server.incoming().for_each(drop));
    let stop = Arc::new(AtomicBool::new(false));
    let until = stop.clone();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            stage.inside(asks, move || {
                while !until.load(Ordering::Relaxed) {
                    drop(TcpStream::connect("198.18.93.254:9101"));
                    std::thread::park_timeout(Duration::from_millis(50));
                }
            });
        });
        let begun = || (appliance.flows("server_port == 9101", &["--all-observations"]).len() > 20).then_some(());
        eventually(30, "connections are seen", begun);
        stage.send(sends);
        stage.end(sends);
        let ended = format!("interface == {} and server_port == 9000 and end_reason exists", stage.called(sends));
        eventually(15, "the row that has ended", || (appliance.flows(&ended, &[]).len() == 1).then_some(()));
        stop.store(true, Ordering::Relaxed);
    });
    appliance.stop();
}
