//! Real Docker, started by the test with its own data root and socket: containers on bridge, host, none, macvlan and
//! overlay networks; exit, restart, and reuse of an address.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod heirs;
#[path = "../support/mod.rs"]
mod support;

use std::io::{BufRead, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::docker::{Docker, ready};
use support::{Appliance, eventually, flows, is_root, run};

/// Who had an address, in the order of beginnings.
fn identities(appliance: &Appliance, ip: &str) -> Vec<Value> {
    let answer: Value = serde_json::from_str(&appliance.get(&format!("/api/v1/identities?ip={ip}"))).expect("JSON");
    let mut intervals = answer["identities"].as_array().expect("a list").clone();
    intervals.sort_by_key(|interval| interval["valid_from"].as_str().map(str::to_owned));
    intervals
}

fn hears_docker(appliance: &Appliance) {
    let connected = || appliance.get("/api/v1/health").contains("\"connected\"").then_some(());
    eventually(30, "the appliance hears Docker", connected);
}

/// A flow that has ended: while it is open, its names may still be on their way.
fn found(appliance: &Appliance, query: &str) -> Value {
    let ended = format!("({query}) and end_reason exists");
    eventually(30, query, || appliance.flows(&ended, &[]).into_iter().next())
}

/// Names outlive their containers; a new container with the same address has its own name for its own flows.
#[test]
fn docker_names_survive_exit_restart_and_reuse_of_the_address() {
    if !ready() {
        return;
    }
    let docker = Docker::start();
    // Running before wiretag starts.
    let web = docker.web("web", "bridge", &["--label", "app=shop"]);
    let ip = docker.ip("web", "bridge");
    let directory = tempfile::tempdir().expect("a directory");
    let appliance = Appliance::start(directory.path(), &["--docker", &docker.url()]);
    docker.request("visitor", "bridge", &ip);
    let flow = found(&appliance, "container == web and server_port == 80 and tcp_state == SF");
    assert_eq!(flow["client_container"], "visitor");
    assert_eq!(flow["server_identity"], web.as_str());
    assert_eq!(flow["server_image"], "box:1");
    assert_eq!(flow["server_labels"]["app"], "shop");
    assert_eq!(flow["observed_at"], "client");
    assert!(flow["server_rtt_us"].is_u64() && flow["server_bytes"].as_u64() > Some(0));
    assert_eq!(flow["client_tagged_by"], "interface");

    docker.docker(&["rm", "-f", "web"]);
    // The default bridge hands out the lowest free address: the heir gets the one that `web` had.
    docker.web("heir", "bridge", &[]);
    assert_eq!(docker.ip("heir", "bridge"), ip);
    appliance.stop();
    check_after_restart(&docker, directory.path(), &ip);
}

fn check_after_restart(docker: &Docker, data: &Path, ip: &str) {
    let appliance = Appliance::start(data, &["--docker", &docker.url()]);
    let old = found(&appliance, "container == web and server_port == 80");
    assert_eq!(old["client_container"], "visitor");
    docker.request("second", "bridge", ip);
    let new = found(&appliance, "container == heir and server_port == 80");
    assert_eq!(new["client_container"], "second");
    assert_eq!(new["server_ip"], ip);
    let of_web = appliance.flows("container == web and end_reason exists", &[]);
    assert!(of_web.iter().all(|flow| flow["client_container"] == "visitor"), "{of_web:?}");
    appliance.stop();
    assert!(!flows(data, "container == web", &[]).is_empty());
}

/// Twelve containers, one after the other, each with the same address for some 25 ms: each flow is its own container's. The
/// server's interface has them all; a container's own one may be gone before it can be captured.
#[test]
fn docker_containers_that_live_for_a_moment_have_their_own_names() {
    if !ready() {
        return;
    }
    let docker = Docker::start();
    docker.web("nw", "bridge", &[]);
    let ip = docker.ip("nw", "bridge");
    let directory = tempfile::tempdir().expect("a directory");
    let appliance = Appliance::start(directory.path(), &["--docker", &docker.url()]);
    hears_docker(&appliance);
    for number in 0..12 {
        docker.one_request(&format!("one{number}"), "bridge", &ip);
    }
    let query = format!("server_ip == {ip} and http_path == /?one* and end_reason exists");
    let at_server = format!("{query} and observed_at == server");
    eventually(60, "a flow of each at the server's interface", || {
        Some(()).filter(|()| appliance.flows(&at_server, &["--all-observations"]).len() >= 12)
    });
    let mut named = std::collections::HashSet::new();
    for flow in &appliance.flows(&query, &["--all-observations"]) {
        // What it asked for says who it is.
        let own = flow["http_path"].as_str().and_then(|path| path.strip_prefix("/?")).expect("a name").to_owned();
        assert_eq!(flow["server_container"], "nw", "{flow}");
        if flow["client_container"].is_null() {
            assert_eq!(flow["client_tagged_by"], "none", "{flow}");
        } else {
            assert_eq!(flow["client_container"], own.as_str(), "{flow}");
            assert_eq!(flow["client_labels"]["short"], "yes", "{flow}");
            named.insert(own);
        }
    }
    assert!(named.len() >= 10, "{named:?}");
    appliance.stop();
}

/// An address that is taken from one container and given to another while both run.
#[test]
fn docker_disconnect_and_connect_move_an_address_from_one_container_to_another() {
    if !ready() {
        return;
    }
    let docker = Docker::start();
    docker.docker(&["network", "create", "--subnet", "198.19.16.0/24", "--label", "tier=front", "own"]);
    docker.web("green", "own", &["--ip", "198.19.16.9"]);
    docker.web("blue", "bridge", &[]);
    let directory = tempfile::tempdir().expect("a directory");
    let appliance = Appliance::start(directory.path(), &["--docker", &docker.url()]);
    docker.request("before", "own", "198.19.16.9");
    let flow = found(&appliance, "client_container == before and server_port == 80");
    assert_eq!(flow["server_container"], "green", "{flow}");

    docker.docker(&["network", "disconnect", "own", "green"]);
    docker.docker(&["network", "connect", "--ip", "198.19.16.9", "own", "blue"]);
    docker.request("after", "own", "198.19.16.9");
    let flow = found(&appliance, "client_container == after and server_port == 80");
    assert_eq!(flow["server_container"], "blue", "{flow}");
    assert_eq!(flow["server_tagged_by"], "mac", "{flow}");
    assert_eq!(flow["server_labels"]["docker.network"], "bridge,own", "{flow}");
    assert_eq!(flow["server_labels"]["docker.network.label.tier"], "front", "{flow}");
    assert_eq!(flow["client_labels"]["docker.network"], "own", "{flow}");
    let known = ["docker.endpoint", "docker.sandbox"].map(|label| flow["server_labels"][label].as_str().map(str::len));
    assert_eq!(known, [Some(25), Some(12)], "two endpoints, one sandbox: {flow}");
    let server_side = "client_container == after and server_port == 80 and observed_at == server and end_reason exists";
    let seen = eventually(30, server_side, || appliance.flows(server_side, &["--all-observations"]).into_iter().next());
    assert_eq!(seen["server_tagged_by"], "interface", "{seen}");

    // Who had it, and when: one after the other, nobody for ever.
    let intervals = identities(&appliance, "198.19.16.9");
    let holders: Vec<&str> = intervals.iter().filter_map(|own| own["identity"]["container"].as_str()).collect();
    assert_eq!(holders, ["green", "blue"], "{intervals:?}");
    assert!(intervals[0]["valid_to"].as_str() <= intervals[1]["valid_from"].as_str(), "{intervals:?}");
    assert!(intervals[0]["valid_to"].is_string() && intervals[1]["valid_to"].is_null(), "{intervals:?}");
    appliance.stop();
}

/// Containers that borrow the network of another one (`--network container:ID`, as with a VPN's sidecar): interface and address are
/// the owner's, and its name is not theirs.
#[test]
fn docker_containers_that_share_a_network_keep_their_own_names() {
    if !ready() {
        return;
    }
    let docker = Docker::start();
    docker.web("web", "bridge", &[]);
    docker.web("owner", "bridge", &[]);
    let (web, owner) = (docker.ip("web", "bridge"), docker.ip("owner", "bridge"));
    let directory = tempfile::tempdir().expect("a directory");
    let appliance = Appliance::start(directory.path(), &["--docker", &docker.url()]);
    hears_docker(&appliance);
    docker.request("early", "bridge", &owner);
    let flow = found(&appliance, "client_container == early and server_port == 80");
    assert_eq!(flow["server_container"], "owner", "{flow}");

    let borrowed = ["--network", "container:owner", "box:1", "/bin/httpd", "-f", "-p", "8080", "-h", "/www"];
    docker.docker(&[&["run", "-d", "--name", "guest"][..], &borrowed].concat());
    // A connection that lasts for some seconds, from a namespace that is followed.
    eventually(30, "the guest's socket is known", || {
        appliance.get("/api/v1/identities?name=guest&source=kernel").contains("8080").then_some(())
    });
    let waits = ["box:1", "/bin/nc", "-l", "-p", "9000", "-e", "/bin/sleep", "4"];
    docker.docker(&[&["run", "-d", "--name", "waits"][..], &waits].concat());
    let waits = docker.ip("waits", "bridge");
    let run = ["run", "--rm", "--name", "borrower", "--network", "container:owner", "box:1", "/bin/nc", &waits, "9000"];
    docker.docker(&run);
    docker.docker(&["exec", "owner", "/bin/wget", "-q", "-O", "/dev/null", &format!("http://{web}/?brief")]);
    docker.request("visitor", "bridge", &owner);
    docker.request("guest-visitor", "bridge", &format!("{owner}:8080"));

    let flow = found(&appliance, "server_port == 9000 and tcp_state == SF");
    let named =
        |flow: &Value, end: &str| (flow[format!("{end}_container")].clone(), flow[format!("{end}_tagged_by")].clone());
    assert_eq!(named(&flow, "client"), ("borrower".into(), "socket".into()), "{flow}");
    assert_eq!(flow["server_container"], "waits", "{flow}");
    let flow = found(&appliance, "client_container == visitor and server_port == 80");
    assert_eq!(named(&flow, "server"), ("owner".into(), "socket".into()), "{flow}");
    let flow = found(&appliance, "client_container == guest-visitor and server_port == 8080");
    assert_eq!(named(&flow, "server"), ("guest".into(), "socket".into()), "{flow}");
    // Too short for its socket to be seen: it may have been anybody's of the two.
    let flow = found(&appliance, "http_path == \"/?brief\"");
    let honest = [(Value::Null, "ambiguous".into()), ("owner".into(), "socket".into())];
    assert!(honest.contains(&named(&flow, "client")), "{flow}");
    // At every point where they were seen, nobody else has their names.
    for flow in appliance.flows("end_reason exists and server_port in {80, 8080, 9000}", &["--all-observations"]) {
        let (port, server) = (flow["server_port"].as_u64(), flow["server_container"].as_str());
        // Other containers of the machine may have servers on this port, too.
        let theirs = flow["server_ip"] == owner.as_str();
        assert!(port != Some(8080) || !theirs || server == Some("guest"), "{flow}");
        assert!(server != Some("guest") || port == Some(8080), "{flow}");
        assert!((port == Some(9000)) == (flow["client_container"] == "borrower"), "{flow}");
    }
    appliance.stop();
}

/// The daemon is killed and comes back: what runs then is known once, what did not survive has ended.
#[test]
fn docker_names_survive_a_restart_of_the_daemon() {
    if !ready() {
        return;
    }
    let mut docker = Docker::start();
    docker.web("web", "bridge", &["--restart", "always"]);
    docker.web("lost", "bridge", &[]);
    let directory = tempfile::tempdir().expect("a directory");
    let appliance = Appliance::start(directory.path(), &["--docker", &docker.url()]);
    docker.request("first", "bridge", &docker.ip("web", "bridge"));
    found(&appliance, "client_container == first and server_container == web");

    docker.restart();
    docker.web("late", "bridge", &[]);
    eventually(60, "web runs again", || (!docker.ip("web", "bridge").is_empty()).then_some(()));
    hears_docker(&appliance);
    for line in ["docker: it is not heard: ", "docker: it is heard again"] {
        let told = || appliance.log().lines().filter(|own| own.contains(line)).count();
        eventually(10, line, || (told() == 1).then_some(()));
    }
    let problems = appliance.json("/api/v1/health")["problems"].to_string();
    assert!(!problems.contains("docker"), "it is over: {problems}");
    for server in ["web", "late"] {
        let ip = docker.ip(server, "bridge");
        docker.request(&format!("to-{server}"), "bridge", &ip);
        let flow = found(&appliance, &format!("client_container == to-{server} and server_port == 80"));
        assert_eq!(flow["server_container"], server, "{flow}");
        let intervals = identities(&appliance, &ip);
        let open = intervals.iter().filter(|own| own["valid_to"].is_null()).count();
        assert_eq!(open, 1, "{ip}: {intervals:?}");
    }
    appliance.stop();
}

/// `wiretag doctor` asks who is there, and an appliance is not well without the daemon that it was told of.
#[test]
fn docker_that_is_no_docker_is_told() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (data, path) = (directory.path().join("data"), directory.path().join("sock"));
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage");
        }
    });
    let url = format!("unix://{}", path.display());
    let arguments = ["doctor", "--docker", &url, "--data", data.to_str().expect("a path")];
    let doctor = Command::new(env!("CARGO_BIN_EXE_wiretag")).args(arguments).output();
    let told = String::from_utf8(doctor.expect("wiretag runs").stdout).expect("text");
    let docker = told.lines().find(|line| line.contains(" docker ")).expect("a line about Docker");
    assert!(docker.starts_with("warning") && docker.contains("hint:"), "{docker}");
    let appliance = Appliance::start(&data, &["--docker", &url, "--interface", "wt-none"]);
    let health = eventually(30, "it is told", || {
        let health = appliance.json("/api/v1/health");
        health["problems"].to_string().contains("docker is not heard").then_some(health)
    });
    assert_eq!(health["status"], "degraded", "{health}");
    appliance.stop();
}

/// What is not a unix socket is said, and what is there is said at once.
#[test]
fn the_greeting_says_what_became_of_docker() {
    let greeting = |address: &str| {
        let directory = tempfile::tempdir().expect("a directory");
        let (program, data) = (env!("CARGO_BIN_EXE_wiretag"), directory.path().to_str().expect("a path").to_owned());
        let mut run = Command::new(program);
        run.args(["run", "--listen", "127.0.0.1:0", "--data", &data]).env("DOCKER_HOST", address);
        let mut child = run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("wiretag starts");
        let lines = std::io::BufReader::new(child.stderr.take().expect("stderr")).lines();
        // The log speaks of it, too.
        let of_docker = |line: &String| line.trim_start().starts_with("docker");
        let line = lines.map_while(Result::ok).find(of_docker).expect("a line about Docker");
        child.kill().expect("kill");
        child.wait().expect("wait");
        line
    };
    if !is_root() {
        return;
    }
    let line = greeting("tcp://127.0.0.1:2375");
    assert!(line.contains("`tcp://127.0.0.1:2375` is not a unix socket; hint:"), "{line}");
    let line = greeting("unix:///nowhere/docker.sock");
    assert!(line.contains("absent") && line.contains("/nowhere/docker.sock"), "{line}");
    if ready() {
        let docker = Docker::start();
        let line = greeting(&docker.url());
        assert!(line.contains("connected"), "{line}");
    }
}

/// Every network mode: named where the container's interface or address is its own, and by its socket on the host's.
#[test]
fn docker_network_modes_are_named_or_honestly_not() {
    if !ready() {
        return;
    }
    let docker = Docker::start();
    docker.docker(&["swarm", "init", "--advertise-addr", "127.0.0.1"]);
    docker.docker(&["network", "create", "-d", "overlay", "--attachable", "--subnet", "198.19.32.0/24", "over"]);
    docker.docker(&["network", "create", "-d", "bridge", "--subnet", "198.19.16.0/24", "own"]);
    let macvlan = ["-o", "parent=docker0", "--subnet", "198.19.48.0/24", "under"];
    docker.docker(&[&["network", "create", "-d", "macvlan"][..], &macvlan].concat());
    // docker0 has no carrier, and so nothing above it, before it has a container.
    docker.web("carrier", "bridge", &[]);
    let directory = tempfile::tempdir().expect("a directory");
    let appliance = Appliance::start(directory.path(), &["--docker", &docker.url()]);
    for (server, network) in [("own-web", "own"), ("over-web", "over"), ("under-web", "under")] {
        docker.web(server, network, &[]);
        let ip = docker.ip(server, network);
        docker.request(&format!("{network}-client"), network, &ip);
        let flow = found(&appliance, &format!("server_container == {server} and server_port == 80"));
        assert_eq!(flow["client_container"], format!("{network}-client"), "{network}: {flow}");
    }
    check_a_client_that_ends_with_its_request(&docker, &appliance);

    // A host-network client: its traffic is seen on the server's veth, its address is the host's, its socket its own.
    let ip = docker.ip("own-web", "own");
    docker.slow_request("host-client", &ip);
    let hosted = found(&appliance, &format!("server_ip == {ip} and client_ip == 198.19.16.1"));
    assert_eq!(hosted["client_container"], "host-client", "{hosted}");
    assert_eq!(hosted["client_tagged_by"], "socket", "{hosted}");
    assert_eq!(hosted["server_container"], "own-web");

    // A container without a network talks to nobody, and disturbs nobody.
    docker.docker(&["run", "--rm", "--name", "alone", "--network", "none", "box:1", "/bin/true"]);
    assert!(appliance.flows("container == alone", &["--all-observations"]).is_empty());
    appliance.stop();
    check_the_demonstration(&docker);
}

/// A client on macvlan ends right after its request, and its namespace with it: both rows of its flow name both ends.
fn check_a_client_that_ends_with_its_request(docker: &Docker, appliance: &Appliance) {
    let ip = docker.ip("under-web", "under");
    let get = format!("sleep 1; wget -q -O /dev/null http://{ip}/");
    let run = ["run", "--rm", "--name", "brief", "--network", "under", "box:1", "/bin/sh", "-c", &get];
    docker.docker(&run);
    let query = format!("client_container == brief and server_ip == {ip} and server_port == 80");
    let flow = found(appliance, &query);
    assert_eq!(flow["observed_at"], "client", "{flow}");
    assert_eq!(flow["server_container"], "under-web", "{flow}");
    // Too short to be captured inside: seen at the server, and named there.
    docker.one_request("briefest", "under", &ip);
    let flow = found(appliance, &format!("client_container == briefest and server_ip == {ip}"));
    assert_eq!(flow["server_container"], "under-web", "{flow}");
}

/// Docker's firewall does not silence the demonstration.
fn check_the_demonstration(docker: &Docker) {
    let directory = tempfile::tempdir().expect("a directory");
    let appliance = Appliance::start(directory.path(), &["--demo", "--docker", &docker.url()]);
    found(&appliance, "client_container == client and server_container == web and tcp_state == SF");
    appliance.stop();
    let rules = run("iptables", &["-w", "-S", "FORWARD"]);
    assert!(!rules.contains("wtdemo0"), "{rules}");
}
