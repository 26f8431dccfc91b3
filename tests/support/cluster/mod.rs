//! A real Kubernetes node for one test: `tests/cluster/start.sh` in a state folder of its own, stopped when dropped.
//!
//! Whatever becomes of the test, the node goes: the drop stops it, and if there is no drop (the test is killed), the scripts see that
//! their owner has ended. There is no scheduler and no controller: a pod says its node, and a test makes ReplicaSets, Endpoints and
//! Evictions itself. The pods are busybox.
#![allow(dead_code, unreachable_pub, reason = "each test target uses its own part of the vocabulary")]

mod api;
mod objects;
mod pods;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

pub use pods::{Plan, Pod};

use crate::support::{has, is_root, require, run};

/// Whether there can be a node here: root, Debian's packages, and the programs that are built from them once.
pub fn ready() -> bool {
    is_root()
        && has("apt-get")
        && require("kube-apiserver and kubelet: `tests/cluster/build.sh` says why", {
            script("build.sh").stdout(Stdio::null()).stdin(Stdio::null()).status().expect("bash runs").success()
        })
}

/// A running node with its API server.
pub struct Cluster {
    state: PathBuf,
    env: BTreeMap<String, String>,
    reuses: Cell<bool>,
}

impl Cluster {
    /// Starts one; the first on a machine builds the programs.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one whose pods' network has `plugin` chained behind the bridge, with `config` (a JSON object) as its configuration; the
    /// plugin's type is in it, or the name of the program.
    pub fn start_with_plugin(plugin: &Path, config: &Value) -> Self {
        Self::start_with(&["--plugin", plugin.to_str().expect("a path"), "--plugin-config", &config.to_string()])
    }

    fn start_with(arguments: &[&str]) -> Self {
        // Short, for the sockets in it, and on a disk, for the containers' layers.
        let state = tempfile::Builder::new().prefix("wtk-").tempdir_in("/var/tmp").expect("a directory").keep();
        let status = script("start.sh")
            .arg(&state)
            .args(["--owner", &std::process::id().to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .status()
            .expect("bash runs");
        if !status.success() {
            print_logs(&state);
            let _ = std::fs::remove_dir_all(&state);
            panic!("the cluster does not start: {status}");
        }
        let text = std::fs::read_to_string(state.join("env")).expect("the addresses of the cluster");
        let env = text.lines().filter_map(|line| line.split_once('='));
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { state, env, reuses: Cell::new(false) }
    }

    /// What `start.sh` says of it: `api`, `token`, `ca`, `kubeconfig`, `node`, `node_ip`, `bridge`, `containerd_socket`, `etcd`, `cni_conf`…
    pub fn value(&self, name: &str) -> &str {
        self.env.get(name).unwrap_or_else(|| panic!("`{name}` is in the cluster's env"))
    }

    pub fn node(&self) -> &str {
        self.value("node")
    }

    /// SIGTERM to `etcd`, `apiserver`, `containerd` or `kubelet`; returns when it is gone.
    pub fn stop_part(&self, part: &str) {
        self.part("stop", part);
    }

    /// SIGKILL.
    pub fn kill_part(&self, part: &str) {
        self.part("kill", part);
    }

    /// Returns when it serves.
    pub fn start_part(&self, part: &str) {
        self.part("start", part);
    }

    fn part(&self, action: &str, part: &str) {
        let status = script("part.sh").arg(&self.state).args([action, part]).status().expect("bash runs");
        assert!(status.success(), "{action} {part}: {status}");
    }

    /// From now on a new pod gets the lowest address that is free, and not the one after the last.
    pub fn reuse_addresses(&self) {
        self.reuses.set(true);
    }

    /// The address plugin goes on behind the one that it finds in this file.
    fn forget_last_address(&self) {
        let last = self.state.join("cni/addresses").join(self.value("bridge")).join("last_reserved_ip.0");
        let _ = std::fs::remove_file(last);
    }

    /// Forgets all history of the store: a watch that goes on from an older version is refused with 410 Gone by an API server that
    /// starts after this, or one whose own cache is shorter.
    pub fn compact_etcd(&self) {
        let post = |path: &str, body: &Value| -> Value {
            let url = format!("{}{path}", self.value("etcd"));
            let answer = run("curl", &["-sS", "--fail", "--max-time", "20", "-d", &body.to_string(), &url]);
            serde_json::from_str(&answer).expect("JSON")
        };
        // Keys are base64; `AA==` is the first key that can be.
        let now = post("/v3/kv/range", &json!({"key": "AA==", "limit": 1}));
        let revision = now["header"]["revision"].as_str().expect("a revision").to_owned();
        post("/v3/kv/compaction", &json!({"revision": revision, "physical": true}));
    }

    /// `ctr` in the kubelet's namespace of containerd, whatever comes of it.
    pub fn ctr_output(&self, arguments: &[&str]) -> Output {
        let own = ["--address", self.value("containerd_socket"), "--namespace", "k8s.io"];
        Command::new("ctr").args(own).args(arguments).output().expect("ctr is installed")
    }

    /// The same, when it must succeed; its stdout.
    pub fn ctr(&self, arguments: &[&str]) -> String {
        let output = self.ctr_output(arguments);
        assert!(output.status.success(), "ctr {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            print_logs(&self.state);
        }
        let stopped = script("stop.sh").arg(&self.state).status();
        if !stopped.as_ref().is_ok_and(std::process::ExitStatus::success) {
            eprintln!("the cluster in {} may not have stopped: {stopped:?}", self.state.display());
        }
    }
}

/// A script of `tests/cluster`, which says what it does on stderr.
fn script(name: &str) -> Command {
    let mut command = Command::new("bash");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster").join(name));
    command
}

/// The end of each part's log.
fn print_logs(state: &Path) {
    for part in ["etcd", "apiserver", "containerd", "kubelet"] {
        let text = std::fs::read(state.join("logs").join(part)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        eprintln!("--- {part}\n{}", lines[lines.len().saturating_sub(12)..].join("\n"));
    }
}
