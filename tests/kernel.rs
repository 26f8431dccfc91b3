//! What the kernel tells, with real Docker: containers on the host's network, and published ports.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod support;

use serde_json::Value;
use support::docker::{Docker, ready};
use support::{Appliance, eventually, run};

fn found(appliance: &Appliance, query: &str) -> Value {
    eventually(30, query, || appliance.flows(query, &[]).into_iter().next())
}

fn every(appliance: &Appliance, query: &str, count: usize) -> Vec<Value> {
    eventually(30, query, || Some(appliance.flows(query, &["--all-observations"])).filter(|flows| flows.len() >= count))
}

/// A web server on the host's network.
fn serve(docker: &Docker, name: &str, port: &str) {
    let run = ["run", "-d", "--name", name, "--network", "host", "--label", "app=shared", "box:1"];
    docker.docker(&[&run[..], &["/bin/httpd", "-f", "-p", port, "-h", "/www"]].concat());
    let url = format!("http://127.0.0.1:{port}/");
    eventually(20, "it serves", || {
        let wget = std::process::Command::new("busybox").args(["wget", "-q", "-O", "/dev/null", &url]).status();
        wget.expect("busybox runs").success().then_some(())
    });
}

fn works(appliance: &Appliance) {
    eventually(30, "the kernel tells of both", || {
        (appliance.json("/api/v1/health")["kernel"] == "sockets on, connection tracking on").then_some(())
    });
    eventually(30, "the appliance hears Docker", || {
        appliance.get("/api/v1/health").contains("\"connected\"").then_some(())
    });
}

/// Two servers with one address, told by their ports; a client that lives for a moment; the heir of a port.
#[test]
fn docker_containers_on_the_host_s_network_are_named_by_their_sockets() {
    if !ready() {
        return;
    }
    let docker = Docker::start();
    docker.web("inside", "bridge", &[]);
    serve(&docker, "before", "18081");
    let directory = tempfile::tempdir().expect("a directory");
    let appliance = Appliance::start(directory.path(), &["--docker", &docker.url()]);
    works(&appliance);
    serve(&docker, "after", "18082");
    for (server, port) in [("before", 18081), ("after", 18082)] {
        docker.request(&format!("to-{server}"), "bridge", &format!("198.19.0.1:{port}"));
        let flow = found(&appliance, &format!("client_container == to-{server} and server_port == {port}"));
        assert_eq!(
            (&flow["server_container"], &flow["server_tagged_by"]),
            (&server.into(), &"socket".into()),
            "{flow}"
        );
        assert_eq!(
            (&flow["server_labels"]["app"], &flow["server_image"]),
            (&"shared".into(), &"box:1".into()),
            "{flow}"
        );
    }

    let ip = docker.ip("inside", "bridge");
    docker.slow_request("visitor", &ip);
    let flow = found(&appliance, "client_container == visitor");
    assert_eq!((&flow["server_container"], &flow["client_tagged_by"]), (&"inside".into(), &"socket".into()), "{flow}");

    // Each as short as a request is: it has its own name or none.
    for number in 0..8 {
        docker.one_request(&format!("brief{number}"), "host", &ip);
    }
    let flows = every(&appliance, &format!("server_ip == {ip} and http_path == /?brief*"), 8);
    let named = flows.iter().filter(|flow| !flow["client_container"].is_null());
    for flow in named.clone() {
        let own = flow["http_path"].as_str().and_then(|path| path.strip_prefix("/?")).expect("a name");
        assert_eq!(flow["client_container"], own, "{flow}");
    }
    let missed = appliance.metric("wiretag_kernel_missed_total", "");
    println!("{} of {} clients of a moment are named; {missed} missed", named.count(), flows.len());
    check_the_heir_of_a_port(&docker, &appliance);
    appliance.stop();
}

fn check_the_heir_of_a_port(docker: &Docker, appliance: &Appliance) {
    docker.docker(&["rm", "-f", "before"]);
    serve(docker, "heir", "18081");
    docker.request("to-heir", "bridge", "198.19.0.1:18081");
    let flow = found(appliance, "client_container == to-heir and server_port == 18081");
    assert_eq!(flow["server_container"], "heir", "{flow}");
    let old = appliance.flows("client_container == to-before", &["--all-observations"]);
    assert!(!old.is_empty() && old.iter().all(|flow| flow["server_container"] == "before"), "{old:?}");
    // A host process on the same address has no container's name.
    let wrong = appliance.flows("server_container in {before, after, heir} and not server_port in {18081, 18082}", &[]);
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// A namespace beside the host's, as another machine: 198.19.100.2, behind 198.19.100.1 of the host.
struct Outside;

impl Outside {
    const NAME: &str = "wt-outside";

    fn new() -> Self {
        run("ip", &["netns", "add", Self::NAME]);
        let outside = Self;
        run("ip", &["link", "add", "wtoutside", "type", "veth", "peer", "name", "eth0", "netns", Self::NAME]);
        run("ip", &["address", "add", "198.19.100.1/24", "dev", "wtoutside"]);
        run("ip", &["link", "set", "wtoutside", "up"]);
        run("ip", &["-n", Self::NAME, "address", "add", "198.19.100.2/24", "dev", "eth0"]);
        run("ip", &["-n", Self::NAME, "link", "set", "eth0", "up"]);
        outside
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip").args(["link", "del", "wtoutside"]).output();
        let _ = std::process::Command::new("ip").args(["netns", "del", Self::NAME]).output();
    }
}

/// Published ports: the address that the client speaks to is the host's, the address that the server sees may be too.
#[test]
fn docker_published_ports_lead_to_both_ends() {
    if !ready() {
        return;
    }
    // So that containers of the same bridge are translated too, and not relayed by a process.
    let docker = Docker::start_with(&["--userland-proxy=false"]);
    let outside = Outside::new();
    docker.web("shop", "bridge", &["-p", "18080:80"]);
    let directory = tempfile::tempdir().expect("a directory");
    let appliance = Appliance::start(directory.path(), &["--docker", &docker.url()]);
    works(&appliance);

    let get = ["netns", "exec", Outside::NAME, "busybox", "wget", "-q", "-O", "/dev/null"];
    run("ip", &[&get[..], &["http://198.19.100.1:18080/?outside"]].concat());
    // A row of a connection that runs may come before the kernel's word about it.
    let flows = every(&appliance, "http_path == /?outside and interface != docker0 and end_reason exists", 2);
    for flow in &flows {
        assert_eq!(flow["server_container"], "shop", "{flow}");
        assert_eq!((&flow["client_ip"], &flow["client_nat_ip"]), (&"198.19.100.2".into(), &Value::Null), "{flow}");
        let published = flow["server_port"] == 18080;
        let other = if published { docker.ip("shop", "bridge") } else { "198.19.100.1".to_owned() };
        assert_eq!(flow["server_nat_ip"], other.as_str(), "{flow}");
        assert_eq!(flow["server_nat_port"], if published { 80 } else { 18080 }, "{flow}");
    }
    let counted = appliance.flows("http_path == /?outside", &[]);
    assert_eq!(counted.len(), 1, "{counted:?}");

    docker.one_request("neighbour", "bridge", "198.19.0.1:18080");
    let flows = every(&appliance, "http_path == /?neighbour and interface != docker0", 2);
    for flow in &flows {
        assert_eq!(
            (&flow["client_container"], &flow["server_container"]),
            (&"neighbour".into(), &"shop".into()),
            "{flow}"
        );
        let published = flow["server_port"] == 18080;
        assert_eq!(flow["server_nat_port"], if published { 80 } else { 18080 }, "{flow}");
    }
    let counted = appliance.flows("http_path == /?neighbour", &[]);
    assert_eq!(counted.len(), 1, "{counted:?}");
    let requests = eventually(20, "the request", || {
        Some(appliance.flows("http_path == /?neighbour", &["--transactions"])).filter(|requests| !requests.is_empty())
    });
    assert_eq!((requests.len(), &requests[0]["client_container"]), (1, &"neighbour".into()), "{requests:?}");
    check_a_masquerade(&docker, &appliance);
    appliance.stop();
    drop(outside);
}

/// Out of the host a container has the host's address; who it was is known behind it.
fn check_a_masquerade(docker: &Docker, appliance: &Appliance) {
    let mut serve = std::process::Command::new("ip");
    serve.args(["netns", "exec", Outside::NAME, "busybox", "httpd", "-f", "-p", "80", "-h", "/usr/share"]);
    let server = support::Process(serve.spawn().expect("a server"));
    eventually(20, "it serves", || {
        let wget = ["-q", "-O", "/dev/null", "http://198.19.100.2/"];
        let wget = std::process::Command::new("busybox").arg("wget").args(wget).output().expect("busybox runs");
        String::from_utf8_lossy(&wget.stderr).contains("404").then_some(())
    });
    let get = "wget -q -O /dev/null http://198.19.100.2/?masqueraded; sleep 1";
    docker.docker(&["run", "--rm", "--name", "traveller", "box:1", "/bin/sh", "-c", get]);
    let flows = every(appliance, "http_path == /?masqueraded and interface != docker0", 2);
    for flow in &flows {
        assert_eq!(flow["client_container"], "traveller", "{flow}");
        let inside = flow["client_ip"] != "198.19.100.1";
        assert_eq!(flow["client_nat_ip"] == "198.19.100.1", inside, "{flow}");
        assert_eq!((&flow["server_nat_ip"], flow["primary"] == true), (&Value::Null, inside), "{flow}");
    }
    drop(server);
}
