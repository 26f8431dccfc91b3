//! Namespaces, control groups, processes, and what the source tells.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use wiretag_capture::ring::in_namespace;
use wiretag_enrich::IdentityEvent;
use wiretag_enrich::kernel::{KernelConfig, KernelNumbers, KernelSource};

use crate::wait::eventually;

/// Whether all that these tests need is there.
pub(crate) fn ready() -> bool {
    let in_ci = std::env::vars_os().any(|(name, value)| name == "CI" && value == "true");
    let has = |check: &str| Command::new("sh").args(["-c", check]).stdout(Stdio::null()).status().unwrap().success();
    let needs =
        ["test $(id -u) = 0", "command -v ip", "command -v iptables", "command -v conntrack", "command -v busybox"];
    let missing = needs.into_iter().find(|check| !has(check));
    assert!(missing.is_none() || !in_ci, "CI must have: {missing:?}");
    if let Some(missing) = missing {
        eprintln!("skipped: {missing}");
    }
    missing.is_none()
}

/// Runs a command line that must succeed.
pub(crate) fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-ec", command]).output().expect("sh runs");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A network namespace with loopback.
pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let name = format!("wt-{}", unique());
        sh(&format!("ip netns add {name}; ip -n {name} link set lo up"));
        Self { name }
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Runs a command line in it.
    pub(crate) fn sh(&self, command: &str) -> String {
        sh(&format!("ip netns exec {} sh -ec '{command}'", self.name))
    }

    /// A process in it that runs until it is dropped, in a control group if there is one.
    pub(crate) fn start(&self, group: Option<&Group>, command: &str) -> Process {
        let enter = group.map(|group| format!("echo $$ > {}/cgroup.procs;", group.path.display()));
        let line = format!("{} exec ip netns exec {} {command}", enter.unwrap_or_default(), self.name);
        let mut process = Command::new("sh");
        process.args(["-ec", &line]).stdin(Stdio::null()).stdout(Stdio::null());
        Process(process.spawn().expect("a process"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Killed when dropped.
pub(crate) struct Process(Child);

impl Process {
    /// Waits for its end.
    pub(crate) fn wait(mut self) {
        assert!(self.0.wait().expect("it ends").success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A control group that is named like a container's.
pub(crate) struct Group {
    pub(crate) id: String,
    path: PathBuf,
}

/// Where control groups can be made here: one of the older hierarchies, in which sockets do not tell their group, and the unified one,
/// in which they do.
pub(crate) fn hierarchies() -> Vec<PathBuf> {
    let older = Path::new("/sys/fs/cgroup/pids");
    let unified = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
    let unified = unified.into_iter().find(|path| path.join("cgroup.procs").exists());
    let found = [Some(older).filter(|path| path.join("cgroup.procs").exists()), unified];
    found.into_iter().flatten().map(Path::to_owned).collect()
}

impl Group {
    pub(crate) fn new(hierarchy: &Path) -> Self {
        let id = format!("{:0>64}", unique().replace('-', "a"));
        let path = hierarchy.join(format!("docker-{id}.scope"));
        std::fs::create_dir(&path).expect("a control group");
        Self { id, path }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its last process may not be reaped yet.
        for _ in 0..50 {
            if std::fs::remove_dir(&self.path).is_ok() {
                return;
            }
            let _ = Command::new("sleep").arg("0.05").status();
        }
    }
}

/// A running source, and all that it has told.
pub(crate) struct Source {
    events: Arc<Mutex<Vec<IdentityEvent>>>,
    pub(crate) numbers: Arc<KernelNumbers>,
    stop: tokio::sync::watch::Sender<bool>,
}

impl Source {
    /// In a namespace, as if that were the host's.
    pub(crate) fn start(namespace: &Namespace) -> Self {
        let config =
            KernelConfig { host: "node".into(), boot: "boot".into(), sockets: true, conntrack: true, heard: None };
        let source = KernelSource::new(config);
        let (status, numbers) = (source.status(), source.numbers());
        let (events, mut told) = mpsc::channel(1024);
        // A thread is born in the namespace of the one that makes it.
        in_namespace(&namespace.path(), move || source.start(events)).expect("it enters").expect("it starts");
        let all: Arc<Mutex<Vec<IdentityEvent>>> = Arc::default();
        let (copy, (stop, mut stopped)) = (all.clone(), tokio::sync::watch::channel(false));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        Some(event) = told.recv() => copy.lock().unwrap().push(event),
                        _ = stopped.changed() => return,
                    }
                }
            });
        });
        eventually(20, "the source works", || (numbers.rounds() > 0).then_some(()));
        assert_eq!(status.borrow().to_string(), "sockets on, connection tracking on");
        Self { events: all, numbers, stop }
    }

    /// What `pick` takes of all that was told, once there is something.
    pub(crate) fn first<T>(&self, what: &str, pick: impl Fn(&IdentityEvent) -> Option<T>) -> T {
        eventually(20, what, || self.events.lock().unwrap().iter().find_map(&pick))
    }

    pub(crate) fn all<T>(&self, pick: impl Fn(&IdentityEvent) -> Option<T>) -> Vec<T> {
        self.events.lock().unwrap().iter().filter_map(pick).collect()
    }

    /// Until all that there is has been dumped twice.
    pub(crate) fn settle(&self) {
        let rounds = self.numbers.rounds();
        eventually(20, "two more rounds", || (self.numbers.rounds() >= rounds + 2).then_some(()));
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
    }
}
