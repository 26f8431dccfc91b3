//! Flows that were stored before anybody said who they were get their names when that is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

#[path = "../enrich/tests/kubernetes/server.rs"]
#[allow(dead_code, reason = "the tests of the source use all of it")]
mod server;
mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener};
use std::path::Path;

use serde_json::{Value, json};
use server::{JOBS, NAMESPACES, NODES, PODS, REPLICA_SETS, SERVICES, SLICES, Server};
use support::{Appliance, eventually, is_root, require, rows, run, wiretag_ok};
use tokio::sync::oneshot;
use wiretag_capture::ring::in_namespace;

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

/// Two pods of another machine, 198.18.91.2 and .3, behind a veth; removed when dropped.
struct Far {
    name: String,
}

impl Far {
    fn start() -> Self {
        let far = Self { name: "wtlate".to_owned() };
        far.remove();
        let name = far.name.as_str();
        run("ip", &["netns", "add", name]);
        run("ip", &["link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name]);
        run("ip", &["address", "add", "198.18.91.1/24", "dev", name]);
        run("ip", &["link", "set", name, "up"]);
        for ip in ["198.18.91.2/24", "198.18.91.3/24"] {
            run("ip", &["-n", name, "address", "add", ip, "dev", "eth0"]);
        }
        run("ip", &["-n", name, "link", "set", "eth0", "up"]);
        for last in [2, 3] {
            far.serve([198, 18, 91, last].into());
        }
        far
    }

    /// A web server at an address.
    fn serve(&self, ip: IpAddr) {
        let path = Path::new("/run/netns").join(&self.name);
        let listener = in_namespace(&path, move || TcpListener::bind((ip, 80))).unwrap().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let _ = stream.read(&mut [0; 2_048]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            }
        });
    }

    fn request(last: u8) {
        let answer = ureq::get(format!("http://198.18.91.{last}/")).call();
        assert_eq!(answer.unwrap().body_mut().read_to_string().unwrap(), "ok");
    }

    /// Also what a killed run left.
    fn remove(&self) {
        for arguments in [["link", "del", &self.name], ["netns", "del", &self.name]] {
            let _ = std::process::Command::new("ip").args(arguments).output();
        }
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.remove();
    }
}

fn kubeconfig(folder: &Path, address: std::net::SocketAddr) -> Value {
    std::fs::write(folder.join("token"), "good").unwrap();
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "k", "cluster": { "server": format!("http://{address}") } }],
        "users": [{ "name": "u", "user": { "tokenFile": folder.join("token") } }],
        "contexts": [{ "name": "c", "context": { "cluster": "k", "user": "u" } }],
    })
}

fn pod(name: &str, last: u8, began: chrono::DateTime<chrono::Utc>) -> Value {
    let (began, ip) = (began.format("%Y-%m-%dT%H:%M:%SZ").to_string(), format!("198.18.91.{last}"));
    let container = json!({ "name": "app", "restartCount": 0, "state": { "running": { "startedAt": began } } });
    json!({
        "metadata": { "name": name, "namespace": "shop", "uid": format!("uid-{name}"), "creationTimestamp": began },
        "spec": { "nodeName": "elsewhere", "containers": [{ "name": "app", "image": "web:1" }] },
        "status": { "phase": "Running", "startTime": began, "podIP": ip, "podIPs": [{ "ip": ip }], "containerStatuses": [container] },
    })
}

/// The API server is away from the start until packets have passed and are stored.
#[test]
fn an_api_server_that_was_away_names_what_was_stored_meanwhile() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let (settings, address) = (directory.path().join("kubeconfig"), listener.local_addr().unwrap());
    std::fs::write(&settings, kubeconfig(directory.path(), address).to_string()).unwrap();
    // Whoever connects is turned away.
    let (back, mut is_back) = oneshot::channel::<()>();
    let away = async move {
        loop {
            tokio::select! {
                turned_away = listener.accept() => drop(turned_away),
                _ = &mut is_back => return listener,
            }
        }
    };
    let server = {
        let _inside = runtime.enter();
        Server::start_when(address, away, &[NODES, NAMESPACES, REPLICA_SETS, JOBS, SERVICES, SLICES, PODS])
    };
    let config = directory.path().join("wiretag.toml");
    let text = format!("[kubernetes]\nkubeconfig = {:?}\ncluster = \"blue\"\n", settings.to_str().unwrap());
    std::fs::write(&config, text).unwrap();
    let (far, data) = (Far::start(), directory.path().join("data"));
    let config = config.to_str().unwrap();
    let appliance = Appliance::start(&data, &["--config", config, "--node", "n1", "--interface", &far.name]);
    let web = |condition: &str| appliance.flows(&format!("server_port == 80 and {condition}"), &[]);
    eventually(30, "packets are heard", || {
        Far::request(2);
        (!web("server_ip == 198.18.91.2").is_empty()).then_some(())
    });
    (0..10).for_each(|_| Far::request(2));
    (0..5).for_each(|_| Far::request(3));
    let ended =
        |last: u8| web(&format!("server_ip == 198.18.91.{last} and tcp_state == SF and end_reason exists")).len();
    eventually(60, "the flows have ended", || {
        let open = web("not end_reason exists").len();
        (open == 0 && ended(2) >= 10 && ended(3) >= 5).then_some(())
    });
    let stored = web("server_ip == 198.18.91.2").len();
    assert_eq!(web("server_tagged_by == none").len(), stored + 5);
    assert_eq!(appliance.metric("wiretag_store_retagged_rows_total", "") as u64, 0);
    assert_eq!(appliance.metric("wiretag_identity_source_up", "source=\"kubernetes\"") as u64, 0);

    let now = chrono::Utc::now();
    server.put(NODES, json!({ "metadata": { "name": "n1", "uid": "uid-n1" }, "status": { "addresses": [] } }));
    server.put(PODS, pod("cart", 2, now - chrono::Duration::hours(1)));
    // It has the address since now: who had it before is not told.
    server.put(PODS, pod("heir", 3, now));
    back.send(()).unwrap();
    eventually(120, "the names", || (web("server_pod == cart").len() == stored).then_some(()));
    let answer = appliance.json("/api/v1/flows?q=server_pod%20%3D%3D%20cart&from=-1h&limit=1000");
    let told = answer["flows"].as_array().unwrap();
    assert_eq!(told.len(), stored);
    for flow in told {
        let name = [&flow["server_namespace"], &flow["server_tagged_by"], &flow["server_cluster"]];
        assert_eq!(name, ["shop", "ip", "blue"], "{flow}");
    }
    eventually(60, "the exchanges have names, too", || {
        let found = appliance.flows("server_pod == cart", &["--transactions"]);
        (found.len() == stored).then_some(())
    });
    assert_counted(&appliance, stored);
    assert_eq!(web("server_ip == 198.18.91.3 and server_pod exists").len(), 0);
    assert_told_once(&appliance.log());
    appliance.stop();
    assert_eq!(count(&data, "server_pod == cart"), (stored, stored as u64));
    assert_a_stranger_is_told(&data, &["--config", config, "--interface", &far.name]);
}

/// However often the API server was asked while it was away, the log has a line for the beginning and one for the end.
fn assert_told_once(log: &str) {
    let said =
        ["the API server is not heard: ", "the API server is heard again", "WARN kubernetes: ", "failed with error"];
    assert_eq!(said.map(|words| log.matches(words).count()), [1, 1, 2, 0], "{log}");
}

/// This host under a name that no node has.
fn assert_a_stranger_is_told(data: &Path, arguments: &[&str]) {
    let appliance = Appliance::start(data, &[arguments, &["--node", "n2"]].concat());
    eventually(30, "it is told", || appliance.log().contains("the cluster has no node `n2`").then_some(()));
    assert!(appliance.log().contains("hint: `kubernetes.node`"), "{}", appliance.log());
    appliance.stop();
}

/// Rows that were named, of either table.
fn assert_counted(appliance: &Appliance, rows: usize) {
    for table in ["flows", "transactions"] {
        eventually(30, "it is counted", || {
            let label = format!("table=\"{table}\"");
            (appliance.metric("wiretag_store_retagged_rows_total", &label) as usize == rows).then_some(())
        });
    }
}
