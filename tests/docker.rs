//! Real Docker, started by the test with its own data root and socket: containers on bridge, host, none, macvlan and
//! overlay networks; exit, restart, and reuse of an address.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use support::{Appliance, eventually, flows, has, is_root, run};

/// A Docker daemon of the test's own.
struct Docker {
    daemon: Child,
    directory: tempfile::TempDir,
}

impl Docker {
    fn start() -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").expect("a directory");
        let path = |name: &str| directory.path().join(name).to_str().expect("a path").to_owned();
        let log = std::fs::File::create(path("log")).expect("a file");
        let daemon = Command::new("dockerd")
            .args(["--data-root", &path("data"), "--exec-root", &path("exec"), "-p", &path("pid")])
            .args(["-H", &format!("unix://{}", path("sock")), "--bip", "198.19.0.1/24"])
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("dockerd starts");
        let docker = Self { daemon, directory };
        eventually(60, "dockerd answers", || {
            Command::new("docker").args(["-H", &docker.url(), "info"]).output().ok()?.status.success().then_some(())
        });
        docker.import_image();
        docker
    }

    fn url(&self) -> String {
        format!("unix://{}", self.directory.path().join("sock").display())
    }

    fn import_image(&self) {
        let root = self.directory.path().join("root");
        let bin = root.join("bin");
        std::fs::create_dir_all(&bin).expect("a directory");
        std::fs::create_dir_all(root.join("www")).expect("a directory");
        std::fs::write(root.join("www/index.html"), "hello\n").expect("written");
        std::fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static is installed");
        for name in ["sh", "httpd", "wget", "nc", "sleep", "ip", "true"] {
            std::os::unix::fs::symlink("busybox", bin.join(name)).expect("a link");
        }
        let tar = format!("tar -C {} -c . | docker -H {} import - box:1", root.display(), self.url());
        run("sh", &["-c", &tar]);
    }

    fn docker(&self, arguments: &[&str]) -> String {
        run("docker", &[&["-H", &self.url()], arguments].concat()).trim().to_owned()
    }

    /// A web server named `name` on `network`; its id.
    fn web(&self, name: &str, network: &str, more: &[&str]) -> String {
        let start = ["run", "-d", "--name", name, "--network", network];
        let command = ["box:1", "/bin/httpd", "-f", "-p", "80", "-h", "/www"];
        self.docker(&[&start[..], more, &command].concat())
    }

    /// Address of a container on `network`.
    fn ip(&self, name: &str, network: &str) -> String {
        let all: Value = serde_json::from_str(&self.docker(&["inspect", name])).expect("JSON");
        all[0]["NetworkSettings"]["Networks"][network]["IPAddress"].as_str().expect("an address").to_owned()
    }

    /// One request from a new container named `client` to `ip`, which is removed after.
    fn request(&self, client: &str, network: &str, ip: &str) {
        let get = format!(
            "for i in 1 2 3; do wget -q -O - http://{ip}/index.html >/dev/null && sleep 1 && exit 0; sleep 1; done; exit 1"
        );
        self.docker(&["run", "--rm", "--name", client, "--network", network, "box:1", "/bin/sh", "-c", &get]);
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let all = Command::new("docker").args(["-H", &self.url(), "ps", "-aq"]).output();
        for id in all.map(|all| String::from_utf8_lossy(&all.stdout).into_owned()).unwrap_or_default().lines() {
            let _ = Command::new("docker").args(["-H", &self.url(), "rm", "-f", id]).output();
        }
        let _ = Command::new("docker").args(["-H", &self.url(), "swarm", "leave", "--force"]).output();
        let _ = Command::new("docker").args(["-H", &self.url(), "network", "prune", "-f"]).output();
        let _ = Command::new("kill").args(["-TERM", &self.daemon.id().to_string()]).output();
        let _ = self.daemon.wait();
        let _ = Command::new("ip").args(["link", "del", "docker0"]).output();
    }
}

fn ready() -> bool {
    is_root() && has("dockerd") && has("docker") && has("busybox")
}

fn found(appliance: &Appliance, query: &str) -> Value {
    eventually(30, query, || appliance.flows(query, &[]).into_iter().next())
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
    let of_web = appliance.flows("container == web", &[]);
    assert!(of_web.iter().all(|flow| flow["client_container"] == "visitor"), "{of_web:?}");
    appliance.stop();
    assert!(!flows(data, "container == web", &[]).is_empty());
}

/// Every network mode: named where the container's interface or address is its own, honestly `none` on the host's.
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

    // A host-network client: its traffic is seen on the server's veth, its name is honestly not known.
    let ip = docker.ip("own-web", "own");
    docker.request("host-client", "host", &ip);
    let gateway = found(&appliance, &format!("server_ip == {ip} and client_ip == 198.19.16.1"));
    assert_eq!(gateway["client_tagged_by"], "none");
    assert!(gateway["client_container"].is_null());
    assert_eq!(gateway["server_container"], "own-web");

    // A container without a network talks to nobody, and disturbs nobody.
    docker.docker(&["run", "--rm", "--name", "alone", "--network", "none", "box:1", "/bin/true"]);
    assert!(appliance.flows("container == alone", &["--all-observations"]).is_empty());
    let wrong = appliance.flows("container == host-client", &["--all-observations"]);
    assert!(wrong.is_empty(), "{wrong:?}");
    appliance.stop();
    check_the_demonstration(&docker);
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
