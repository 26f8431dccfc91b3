//! A node of the test's own: a network namespace with the plugins of Debian and ours, pods that are namespaces, and a
//! small CNI runtime.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::{eventually, rows, run};

/// Where Debian's `containernetworking-plugins` are.
pub const PLUGINS: &str = "/usr/lib/cni";

/// A network: what a `.conflist` says.
pub struct Network {
    pub name: &'static str,
    pub version: &'static str,
    pub plugins: Vec<Value>,
}

/// A pod: its sandbox and its namespace.
#[derive(Clone)]
pub struct Pod {
    pub name: String,
    pub sandbox: String,
    pub netns: String,
    /// Whether the runtime tells the UID.
    pub uid: Option<String>,
}

pub struct Node {
    name: String,
    directory: tempfile::TempDir,
    namespaces: RefCell<Vec<String>>,
    processes: RefCell<Vec<Child>>,
    sandboxes: Cell<u32>,
}

impl Pod {
    /// A request from the pod.
    pub fn request(&self, url: &str) {
        // Whoever has the address now has another link-layer address.
        run("ip", &["-n", &self.netns, "neigh", "flush", "all"]);
        // A static busybox cannot look up names with the libraries of another libc; curl is the host's own.
        run("ip", &["netns", "exec", &self.netns, "curl", "-g", "-sS", "-m", "5", "-o", "/dev/null", url]);
    }
}

impl Node {
    pub fn new() -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").expect("a directory");
        let suffix = directory.path().file_name().expect("a name").to_string_lossy().replace('.', "");
        let node = Self {
            name: format!("wtn{suffix}"),
            directory,
            namespaces: RefCell::default(),
            processes: RefCell::default(),
            sandboxes: Cell::new(0),
        };
        node.namespace(&node.name);
        std::fs::create_dir(node.path("bin")).expect("a directory");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_wiretag"), node.path("bin/wiretag-cni")).expect("a link");
        std::fs::create_dir(node.path("www")).expect("a directory");
        std::fs::write(node.path("www/index.html"), "hello\n").expect("written");
        node
    }

    fn namespace(&self, name: &str) {
        run("ip", &["netns", "add", name]);
        self.namespaces.borrow_mut().push(name.to_owned());
        run("ip", &["-n", name, "link", "set", "lo", "up"]);
    }

    /// Path to the node's own namespace.
    pub fn netns(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Runs a program in the node's namespace.
    pub fn exec(&self, arguments: &[&str]) -> String {
        run("ip", &[&["netns", "exec", &self.name], arguments].concat())
    }

    /// A pod without interfaces.
    pub fn pod(&self, name: &str) -> Pod {
        let number = self.sandboxes.get() + 1;
        self.sandboxes.set(number);
        let netns = format!("{}-{number}", self.name);
        self.namespace(&netns);
        let sandbox = format!("5a{number:062x}");
        Pod { name: name.to_owned(), sandbox, netns, uid: Some(format!("uid-of-{name}")) }
    }

    /// Attaches it, plugin after plugin; the result.
    pub fn add(&self, network: &Network, pod: &Pod, ifname: &str, ip: &str) -> Value {
        let mut previous: Option<String> = None;
        for plugin in &network.plugins {
            let output = self.call("ADD", network, plugin, previous.as_deref(), (pod, ifname, ip));
            let text = String::from_utf8(output.stdout).expect("text");
            assert!(output.status.success(), "{plugin}: {text}");
            if plugin["type"] == "wiretag-cni" {
                assert_eq!(previous.as_deref(), Some(&*text), "handed on as it was");
            }
            previous = Some(text);
        }
        serde_json::from_str(&previous.expect("a result")).expect("JSON")
    }

    /// Detaches it, from the last plugin to the first.
    pub fn del(&self, network: &Network, pod: &Pod, ifname: &str, result: &Value) {
        for plugin in network.plugins.iter().rev() {
            let output = self.call("DEL", network, plugin, Some(&result.to_string()), (pod, ifname, ""));
            assert!(output.status.success(), "{plugin}: {}", String::from_utf8_lossy(&output.stdout));
        }
    }

    /// One call of one plugin.
    pub fn call(
        &self,
        command: &str,
        network: &Network,
        plugin: &Value,
        previous: Option<&str>,
        (pod, ifname, ip): (&Pod, &str, &str),
    ) -> Output {
        let mut config = plugin.clone();
        config["cniVersion"] = network.version.into();
        config["name"] = network.name.into();
        let mut text = config.to_string();
        if let Some(previous) = previous {
            text.truncate(text.len() - 1);
            text = format!("{text},\"prevResult\":{previous}}}");
        }
        let kind = plugin["type"].as_str().expect("a type");
        let own = self.path("bin").join(kind);
        let program = if own.exists() { own } else { Path::new(PLUGINS).join(kind) };
        let uid = pod.uid.as_ref().map(|uid| format!(";K8S_POD_UID={uid}")).unwrap_or_default();
        let address = if ip.is_empty() { String::new() } else { format!(";IP={ip}") };
        let arguments = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={}{uid}{address}",
            pod.name, pod.sandbox
        );
        std::fs::write(self.path("config.json"), text).expect("written");
        Command::new("ip")
            .args(["netns", "exec", &self.name])
            .arg(program)
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &pod.sandbox)
            .env("CNI_NETNS", format!("/run/netns/{}", pod.netns))
            .env("CNI_IFNAME", ifname)
            .env("CNI_PATH", PLUGINS)
            .env("CNI_ARGS", arguments)
            .stdin(std::fs::File::open(self.path("config.json")).expect("a file"))
            .stderr(Stdio::inherit())
            .output()
            .expect("the plugin runs")
    }

    /// A web server in the pod.
    pub fn serve(&self, pod: &Pod) {
        let root = self.path("www");
        let child = Command::new("ip")
            .args(["netns", "exec", &pod.netns, "busybox", "httpd", "-f", "-p", "80", "-h"])
            .arg(root)
            .spawn()
            .expect("busybox starts");
        self.processes.borrow_mut().push(child);
        eventually(20, "the web server listens", || {
            let listening = run("ip", &["netns", "exec", &pod.netns, "cat", "/proc/net/tcp6"]);
            listening.contains(":0050 ").then_some(())
        });
    }

    /// Kills its processes and removes its namespace.
    pub fn remove(&self, pod: &Pod) {
        for pid in run("ip", &["netns", "pids", &pod.netns]).lines() {
            let _ = Command::new("kill").args(["-KILL", pid]).status();
        }
        run("ip", &["netns", "del", &pod.netns]);
        self.namespaces.borrow_mut().retain(|name| *name != pod.netns);
    }

    /// Starts `wiretag run` in the node's namespace and waits until it answers.
    pub fn wiretag(&self) -> Wiretag {
        self.wiretag_with(&[])
    }

    /// The same with more arguments.
    pub fn wiretag_with(&self, more: &[&str]) -> Wiretag {
        let data = self.data();
        let _ = std::fs::remove_file(data.join("run.json"));
        let child = Command::new("ip")
            .args(["netns", "exec", &self.name, env!("CARGO_BIN_EXE_wiretag"), "run", "--listen", "127.0.0.1:0"])
            .args(["--docker", "unix:///none", "--data"])
            .arg(&data)
            .args(more)
            .stdout(Stdio::null())
            .spawn()
            .expect("wiretag starts");
        eventually(60, "the appliance starts", || data.join("run.json").exists().then_some(()));
        Wiretag(child)
    }

    /// Rows of `wiretag flows`.
    pub fn flows(&self, query: &str, more: &[&str]) -> Vec<Value> {
        self.ask(&[&["flows", query, "--format", "json"], more].concat())
    }

    /// The first flow, as soon as there is one.
    pub fn flow(&self, query: &str) -> Value {
        eventually(60, query, || self.flows(query, &[]).into_iter().next())
    }

    /// A flow at the client's own interface, of requests that go on until its namespace is captured in.
    pub fn flow_of(&self, client: &Pod, url: &str, query: &str) -> Value {
        let query = format!("{query} and observed_at == client");
        eventually(60, &query, || {
            client.request(url);
            self.flows(&query, &["--all-observations"]).into_iter().next()
        })
    }

    /// Who had an address: `POD` or `POD…` while it lasts, in the order of beginnings.
    pub fn holders(&self, ip: &str) -> Vec<String> {
        let mut intervals = self.ask(&["identities", "--json", "--ip", ip]);
        intervals.sort_by_key(|interval| interval["valid_from"].as_str().map(str::to_owned));
        let name = |interval: &Value| {
            let pod = interval["identity"]["pod"].as_str().unwrap_or("?");
            format!("{pod}{}", if interval["valid_to"].is_null() { "…" } else { "" })
        };
        let mut names: Vec<String> = Vec::new();
        for name in intervals.iter().map(name) {
            // One holder is told of more than once: by several sources, and anew with each change of its attributes. The latest counts.
            names.pop_if(|last| last.trim_end_matches('…') == name.trim_end_matches('…'));
            names.push(name);
        }
        names
    }

    /// Waits until these had an address, one after the other.
    pub fn await_holders(&self, ip: &str, wanted: &[&str]) {
        let (mut held, mut attempts) = (Vec::new(), 0);
        eventually(120, "who had an address", || {
            held = self.holders(ip);
            attempts += 1;
            (held == wanted || attempts == 400).then_some(())
        });
        assert_eq!(held, wanted, "who had {ip}");
    }

    fn ask(&self, arguments: &[&str]) -> Vec<Value> {
        let data = self.data();
        let data = ["--data", data.to_str().expect("a path")];
        rows(&self.exec(&[&[env!("CARGO_BIN_EXE_wiretag")], arguments, &data].concat()))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for process in self.processes.borrow_mut().iter_mut() {
            let _ = process.kill();
            let _ = process.wait();
        }
        for name in self.namespaces.borrow().iter().rev() {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

/// A running appliance; killed when dropped. `ip netns exec` becomes the program that it starts.
pub struct Wiretag(Child);

impl Wiretag {
    pub fn stop(mut self) {
        run("kill", &["-TERM", &self.0.id().to_string()]);
        let status = eventually(60, "the appliance stops", || self.0.try_wait().expect("wait"));
        assert!(status.success(), "{status}");
    }
}

impl Drop for Wiretag {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The last plugin of each chain.
pub fn plugin(node: &Node) -> Value {
    json!({ "type": "wiretag-cni", "dataDir": node.data() })
}
