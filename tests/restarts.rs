//! Containers that come and go all the time: one that is started again at once, with its address and ports, and another interface;
//! connections of a moment, one after the other. Made of network namespaces on a bridge. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod support;

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use support::{Appliance, eventually, is_root, run};
use wiretag_capture::ring::in_namespace;

const BRIDGE: &str = "wtagainbr";
const SERVER: &str = "wtagain-s";
/// The host's end of each client's veth, and its namespace.
const CLIENTS: [&str; 3] = ["wtagain-1", "wtagain-2", "wtagain-3"];

/// The bridge, and the server's namespace on it; removed when dropped, with the client's.
struct Stage;

impl Stage {
    fn new() -> Self {
        Self::remove();
        run("ip", &["link", "add", BRIDGE, "type", "bridge"]);
        run("ip", &["link", "set", BRIDGE, "up"]);
        container(SERVER, "198.18.92.1/24");
        Self
    }

    fn remove() {
        let delete = |kind: &str, name: &str| drop(std::process::Command::new("ip").args([kind, "del", name]).output());
        delete("link", BRIDGE);
        for name in CLIENTS.iter().chain([&SERVER]) {
            delete("link", name);
            delete("netns", name);
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        Self::remove();
    }
}

/// A namespace with a veth to the bridge.
fn container(name: &str, address: &str) {
    run("ip", &["netns", "add", name]);
    run("ip", &["link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name]);
    run("ip", &["link", "set", name, "master", BRIDGE, "up"]);
    run("ip", &["-n", name, "addr", "add", address, "dev", "eth0"]);
    run("ip", &["-n", name, "link", "set", "eth0", "up"]);
}

/// Sends a hundred datagrams from a client to the server, always from and to the same ports.
fn send(client: &str) {
    let sent = in_namespace(&Path::new("/run/netns").join(client), || -> std::io::Result<()> {
        let socket = UdpSocket::bind("198.18.92.2:40000")?;
        for _ in 0..100 {
            socket.send_to(&[7; 100], SocketAddr::from(([198, 18, 92, 1], 9000)))?;
        }
        Ok(())
    });
    sent.expect("the namespace").expect("sent");
}

fn packets(rows: &[Value]) -> u64 {
    rows.iter().map(|row| row["client_packets"].as_u64().expect("a number")).sum()
}

/// The server's interface sees one flow, each client's own interface its part: each packet counts once, live and when all is over.
#[test]
fn a_container_that_is_started_again_at_once_counts() {
    if !is_root() {
        return;
    }
    let _stage = Stage::new();
    let directory = tempfile::tempdir().expect("a directory");
    let appliance = Appliance::start(directory.path(), &["--interface", "wtagain*"]);
    for client in CLIENTS {
        container(client, "198.18.92.2/24");
        let captured = || appliance.get("/api/v1/health").contains(&format!("\"{client}\"")).then_some(());
        eventually(10, "it is captured", captured);
        send(client);
        run("ip", &["link", "del", client]);
        run("ip", &["netns", "del", client]);
        // No container starts faster.
        std::thread::park_timeout(Duration::from_millis(300));
    }
    let query = "client_port == 40000 and server_port == 9000";
    let all = eventually(30, "the server's interface has seen all", || {
        let rows = appliance.flows(query, &["--all-observations"]);
        let seen: Vec<Value> = rows.iter().filter(|row| row["interface"] == SERVER).cloned().collect();
        (packets(&seen) == 300).then_some(rows)
    });
    let primary = eventually(30, "each packet counts once", || {
        let rows = appliance.flows(query, &[]);
        (packets(&rows) == 300).then_some(rows)
    });
    let is_clients = |row: &Value| CLIENTS.iter().any(|name| row["interface"] == *name);
    assert!(primary.iter().all(is_clients), "{primary:?} of {all:?}");
    appliance.stop();
    let stored = support::flows(directory.path(), query, &[]);
    assert_eq!(packets(&stored), 300, "{stored:?}");
    let ends: Vec<&Value> = stored.iter().map(|row| &row["end_reason"]).collect();
    assert!(ends.iter().filter(|reason| **reason == "end_of_input").count() >= 2, "{ends:?}");
}

/// Asks a server of this process, over and over, from a client's namespace, until it is told to stop: each connection is a socket that the
/// kernel tells of.
fn ask_without_pause(client: &'static str, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    let server = TcpListener::bind("198.18.92.254:9101").expect("the bridge's address");
    std::thread::spawn(move || server.incoming().for_each(drop));
    let stop = stop.clone();
    std::thread::spawn(move || {
        let asked = in_namespace(&Path::new("/run/netns").join(client), move || {
            while !stop.load(Ordering::Relaxed) {
                drop(TcpStream::connect("198.18.92.254:9101"));
                std::thread::park_timeout(Duration::from_millis(50));
            }
        });
        asked.expect("the namespace");
    })
}

/// Rows are stored some seconds after their end, whatever identities do.
#[test]
fn rows_do_not_wait_for_identities_that_change_without_a_pause() {
    if !is_root() {
        return;
    }
    let _stage = Stage::new();
    run("ip", &["addr", "add", "198.18.92.254/24", "dev", BRIDGE]);
    let directory = tempfile::tempdir().expect("a directory");
    let appliance = Appliance::start(directory.path(), &["--interface", "wtagain*"]);
    let (asks, sends) = (CLIENTS[0], CLIENTS[1]);
    container(asks, "198.18.92.3/24");
    container(sends, "198.18.92.2/24");
    for client in [asks, sends] {
        let captured = || appliance.get("/api/v1/health").contains(&format!("\"{client}\"")).then_some(());
        eventually(10, "it is captured", captured);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let asking = ask_without_pause(asks, &stop);
    let begun = || (appliance.flows("server_port == 9101", &["--all-observations"]).len() > 20).then_some(());
    eventually(30, "connections are seen", begun);
    send(sends);
    run("ip", &["link", "del", sends]);
    let ended = format!("interface == {sends} and server_port == 9000 and end_reason exists");
    eventually(12, "the row that has ended", || (appliance.flows(&ended, &[]).len() == 1).then_some(()));
    stop.store(true, Ordering::Relaxed);
    asking.join().expect("asked");
    appliance.stop();
}
