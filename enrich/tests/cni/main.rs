//! The CNI plugin at the end of real chains (Debian's plugins), and the source that hears it, without capture: what is told
//! is put into a timeline, which is asked who had what. The product's tests add traffic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

#[path = "../wait/mod.rs"]
mod wait;

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use wiretag_capture::ring::{in_namespace, namespace_inode};
use wiretag_enrich::IdentityEvent;
use wiretag_enrich::cni::CniSource;
use wiretag_enrich::cni::plugin::{self, Environment};
use wiretag_enrich::timeline::{Lookup, Timeline};

use wait::eventually;

const PLUGINS: &str = "/usr/lib/cni";
/// What many pods have, one after the other.
const ADDRESS: &str = "10.215.0.9";

/// Outside CI the test says why it is skipped, in CI it fails.
fn ready() -> bool {
    let in_ci = std::env::vars_os().any(|(name, value)| name == "CI" && value == "true");
    let root = Command::new("id").arg("-u").output().expect("id runs").stdout.starts_with(b"0");
    let there = root && Path::new(PLUGINS).join("bridge").exists();
    assert!(there || !in_ci, "CI must have root and Debian's containernetworking-plugins");
    if !there {
        eprintln!("skipped: no root, or no {PLUGINS}");
    }
    there
}

#[expect(clippy::disallowed_methods, reason = "times of the test are compared with those that were told")]
fn now() -> i64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("ip runs");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A namespace that stands for a node, and those of its pods.
struct Node {
    name: String,
    directory: tempfile::TempDir,
    pods: Mutex<Vec<String>>,
}

/// A pod's sandbox.
struct Pod {
    name: &'static str,
    sandbox: String,
    netns: String,
    result: Value,
}

impl Node {
    fn new() -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").expect("a directory");
        let suffix = directory.path().file_name().expect("a name").to_string_lossy().replace('.', "");
        let node = Self { name: format!("wte{suffix}"), directory, pods: Mutex::default() };
        ip(&["netns", "add", &node.name]);
        node
    }

    fn netns(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// A pod, attached to `chain` as `ifname` with an address.
    fn add(&self, name: &'static str, (chain, ifname): (&Value, &str), address: &str) -> Pod {
        let mut pods = self.pods.lock().expect("pods");
        let netns = format!("{}-{}", self.name, pods.len());
        ip(&["netns", "add", &netns]);
        let (sandbox, result) = (format!("5a{:062x}", pods.len()), Value::Null);
        pods.push(netns.clone());
        drop(pods);
        let mut pod = Pod { name, sandbox, netns, result };
        self.attach(&mut pod, (chain, ifname), address);
        pod
    }

    fn attach(&self, pod: &mut Pod, (chain, ifname): (&Value, &str), address: &str) {
        let mut previous = None;
        for plugin in chain["plugins"].as_array().expect("a list") {
            previous = Some(self.call("ADD", (chain, plugin), previous.as_ref(), (pod, ifname, address)));
        }
        pod.result = previous.expect("a result");
    }

    fn del(&self, pod: &Pod, (chain, ifname): (&Value, &str)) {
        for plugin in chain["plugins"].as_array().expect("a list").iter().rev() {
            self.call("DEL", (chain, plugin), Some(&pod.result), (pod, ifname, ""));
        }
    }

    fn call(
        &self,
        command: &str,
        (chain, plugin): (&Value, &Value),
        previous: Option<&Value>,
        (pod, ifname, address): (&Pod, &str, &str),
    ) -> Value {
        let mut config = plugin.clone();
        config["cniVersion"] = chain["cniVersion"].clone();
        config["name"] = chain["name"].clone();
        config["prevResult"] = previous.cloned().unwrap_or_default();
        if previous.is_none() {
            config.as_object_mut().expect("an object").remove("prevResult");
        }
        let arguments = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name};K8S_POD_UID=uid-of-{name};IP={address}",
            name = pod.name
        );
        let set = [
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", pod.sandbox.clone()),
            ("CNI_NETNS", format!("/run/netns/{}", pod.netns)),
            ("CNI_IFNAME", ifname.to_owned()),
            ("CNI_PATH", PLUGINS.to_owned()),
            ("CNI_ARGS", arguments.trim_end_matches(";IP=").to_owned()),
        ];
        let kind = plugin["type"].as_str().expect("a type");
        let text = if kind == "wiretag-cni" {
            let environment =
                Environment::new(|name| set.iter().find(|(own, _)| *own == name).map(|(_, value)| value.into()));
            let input = std::io::Cursor::new(config.to_string());
            let answer = move || {
                let mut output = Vec::new();
                (plugin::run(&environment, input, &mut output), output)
            };
            let (code, output) = in_namespace(&self.netns(), answer).expect("the node's namespace");
            assert_eq!(code, 0, "{}", String::from_utf8_lossy(&output));
            output
        } else {
            let mut child = Command::new("nsenter")
                .arg(format!("--net={}", self.netns().display()))
                .arg(Path::new(PLUGINS).join(kind))
                .envs(set)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("the plugin starts");
            let mut stdin = child.stdin.take().expect("stdin");
            stdin.write_all(config.to_string().as_bytes()).expect("written");
            drop(stdin);
            let output = child.wait_with_output().expect("the plugin ends");
            assert!(output.status.success(), "{kind} {command}: {}", String::from_utf8_lossy(&output.stdout));
            output.stdout
        };
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for name in self.pods.lock().expect("pods").iter().rev().chain([&self.name]) {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

/// A source that runs in the node's namespace until this is dropped.
struct Source {
    told: Arc<Mutex<Told>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Told {
    timeline: Timeline,
    events: Vec<IdentityEvent>,
}

impl Told {
    fn who(&self, network: &str, address: &str, at: i64) -> String {
        match self.timeline.ip(network, address.parse::<IpAddr>().expect("an address"), at) {
            Lookup::One(identity, _) => identity.pod.as_deref().unwrap_or("no pod").to_owned(),
            Lookup::Ambiguous(_) => "?".to_owned(),
            Lookup::None => "-".to_owned(),
        }
    }
}

impl Source {
    fn start(node: &Node, told: &Arc<Mutex<Told>>, heard: Option<i64>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (netns, data, own) = (node.netns(), node.directory.path().join("data"), told.clone());
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot id");
        let work = move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build();
            runtime.expect("a runtime").block_on(async {
                let source = CniSource::new(data, "kubernetes".into(), "node".into(), boot.trim().into(), heard);
                let (events, mut inbox) = mpsc::channel(64);
                let task = tokio::spawn(source.run(events));
                let take = async {
                    while let Some(event) = inbox.recv().await {
                        let mut told = own.lock().expect("told");
                        told.timeline.apply(&event);
                        told.events.push(event);
                    }
                };
                tokio::select! {
                    () = take => {}
                    _ = stopped => {}
                }
                task.abort();
                let _ = task.await;
            });
        };
        let thread = std::thread::spawn(move || in_namespace(&netns, work).expect("the node's namespace"));
        Self { told: told.clone(), stop: Some(stop), thread: Some(thread) }
    }

    fn knows(&self, network: &str, address: &str, name: &str) {
        let is = || (self.told.lock().expect("told").who(network, address, now()) == name).then_some(());
        eventually(30, &format!("{address} is {name}'s"), is);
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn chain(node: &Node, name: &str, version: &str, first: &Value) -> Value {
    let mut first = first.clone();
    let ranges = json!([[{ "subnet": "10.215.0.0/24" }]]);
    first["ipam"] = json!({ "type": "host-local", "ranges": ranges, "dataDir": node.directory.path().join(format!("ipam-{name}")) });
    let last = json!({ "type": "wiretag-cni", "dataDir": node.directory.path().join("data") });
    json!({ "cniVersion": version, "name": name, "plugins": [first, last] })
}

#[test]
fn cni_chain_tells_who_had_an_address_through_exit_reuse_and_restarts() {
    if !ready() {
        return;
    }
    let node = Node::new();
    let bridge = chain(&node, "podnet", "1.0.0", &json!({ "type": "bridge", "bridge": "cni0", "isGateway": true }));
    let eth0 = (&bridge, "eth0");
    let told = Arc::<Mutex<Told>>::default();
    // Nobody listens yet.
    let web = node.add("web", eth0, ADDRESS);
    let source = Source::start(&node, &told, None);
    source.knows("kubernetes", ADDRESS, "web");
    let during_web = now();
    node.del(&web, eth0);
    let between = now();
    let heir = node.add("heir", eth0, ADDRESS);
    source.knows("kubernetes", ADDRESS, "heir");
    let during_heir = now();

    // While it is down the address goes on, twice.
    drop(source);
    node.del(&heir, eth0);
    let third = node.add("third", eth0, ADDRESS);
    let during_third = now();
    node.del(&third, eth0);
    node.del(&third, eth0);
    let fourth = node.add("fourth", eth0, ADDRESS);
    let other = node.add("other", eth0, "10.215.0.10");
    let source = Source::start(&node, &told, Some(during_heir));
    source.knows("kubernetes", ADDRESS, "fourth");
    let who = |at| told.lock().expect("told").who("kubernetes", ADDRESS, at);
    assert_eq!([who(during_web), who(between), who(during_heir), who(during_third)], ["web", "-", "heir", "third"]);
    check_interface(&node, &told, &fourth);

    // A namespace goes away without a word, while it is down.
    drop(source);
    let until = now();
    ip(&["netns", "del", &fourth.netns]);
    let source = Source::start(&node, &told, Some(until));
    source.knows("kubernetes", ADDRESS, "-");
    assert_eq!(who(until - 1), "fourth");
    source.knows("kubernetes", "10.215.0.10", "other");
    node.del(&other, eth0);
    source.knows("kubernetes", "10.215.0.10", "-");
}

/// The host's end of the pod's veth is the pod's.
fn check_interface(node: &Node, told: &Arc<Mutex<Told>>, pod: &Pod) {
    let veth = pod.result["interfaces"][1]["name"].as_str().expect("the host's end").to_owned();
    let links = in_namespace(&node.netns(), wiretag_capture::ring::links::list).expect("entered").expect("links");
    let index = links.iter().find(|link| link.name == veth).expect("the veth").index;
    let boot: Arc<str> = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("an id").trim().into();
    let told = told.lock().expect("told");
    let Lookup::One(identity, _) = told.timeline.interface(index, 0, &boot, now()) else { panic!("{veth}") };
    assert_eq!(&*identity.identity, format!("uid-of-{}", pod.name));
    assert_eq!(told.timeline.network_of_interface(index, 0, now()).as_deref(), Some("kubernetes"));
}

/// As Multus does it, in a version of the specification that runtimes of some years ago speak.
#[test]
fn cni_further_networks_of_a_pod_are_apart_and_macvlan_is_captured_inside() {
    if !ready() {
        return;
    }
    let node = Node::new();
    ip(&["-n", &node.name, "link", "add", "uplink", "type", "veth", "peer", "name", "far"]);
    ip(&["-n", &node.name, "link", "set", "uplink", "up"]);
    ip(&["-n", &node.name, "link", "set", "far", "up"]);
    let routed = chain(&node, "routed", "0.3.1", &json!({ "type": "ptp" }));
    let macvlan = json!({ "type": "macvlan", "master": "uplink", "mode": "bridge" });
    let macvlan = chain(&node, "storage", "0.4.0", &macvlan);
    let told = Arc::<Mutex<Told>>::default();
    let source = Source::start(&node, &told, None);
    let mut web = node.add("web", (&routed, "eth0"), "10.215.0.9");
    source.knows("kubernetes", "10.215.0.9", "web");
    node.attach(&mut web, (&macvlan, "net1"), "10.215.0.9");
    let other = node.add("other", (&macvlan, "net1"), "10.215.0.10");
    source.knows("kubernetes/storage", "10.215.0.9", "web");
    source.knows("kubernetes/storage", "10.215.0.10", "other");
    source.knows("kubernetes", "10.215.0.10", "-");
    let inode = namespace_inode(&Path::new("/run/netns").join(&web.netns)).expect("an inode");
    let opened = told.lock().expect("told").events.iter().any(|event| {
        matches!(event, IdentityEvent::Namespace { inode: own, interfaces, .. }
            if *own == inode && interfaces.len() == 1 && interfaces[0].1 == "net1")
    });
    assert!(opened, "captured inside");
    node.del(&web, (&macvlan, "net1"));
    source.knows("kubernetes/storage", "10.215.0.9", "-");
    source.knows("kubernetes", "10.215.0.9", "web");
    node.del(&other, (&macvlan, "net1"));
    source.knows("kubernetes/storage", "10.215.0.10", "-");
}
