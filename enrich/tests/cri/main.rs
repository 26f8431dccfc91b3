//! The CRI source against a real containerd (Debian's), with pods that the test makes as a kubelet does. What is told is
//! put into a timeline, which is asked who had what. The product's tests add capture and traffic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]
#![allow(dead_code, unreachable_pub, reason = "modules that test targets share")]

mod containerd;
#[path = "../wait/mod.rs"]
mod wait;
mod wire;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use containerd::{Containerd, PLUGINS, Pod, run};
use tokio::sync::{mpsc, oneshot};
use wait::eventually;
use wiretag_capture::ring::in_namespace;
use wiretag_enrich::cri::CriSource;
use wiretag_enrich::timeline::{Lookup, Timeline};
use wiretag_enrich::{Identity, IdentityEvent};

const BOOT: &str = "this boot";

/// Outside CI the test says why it is skipped, in CI it fails.
fn ready() -> bool {
    let in_ci = std::env::vars_os().any(|(name, value)| name == "CI" && value == "true");
    let root = Command::new("id").arg("-u").output().expect("id runs").stdout.starts_with(b"0");
    let has = |program: &str| {
        let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().expect("sh runs");
        found.status.success()
    };
    let programs = ["containerd", "runc", "ctr", "busybox", "nsenter"];
    let there = root && programs.iter().all(|program| has(program)) && Path::new(PLUGINS).join("bridge").exists();
    assert!(there || !in_ci, "CI must have root, {programs:?} and Debian's containernetworking-plugins");
    if !there {
        eprintln!("skipped: no root, or none of {programs:?}, or no {PLUGINS}");
    }
    there
}

/// A namespace that stands for a node.
struct Node {
    name: String,
    directory: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").expect("a directory");
        let suffix = directory.path().file_name().expect("a name").to_string_lossy().replace('.', "");
        let name = format!("wtc{suffix}");
        run("ip", &["netns", "add", &name]);
        let node = Self { name, directory };
        run("ip", &["-n", &node.name, "link", "set", "lo", "up"]);
        node
    }

    fn netns(&self) -> String {
        format!("/run/netns/{}", self.name)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// What the source told, and the timeline that heard it.
#[derive(Default)]
struct Heard {
    timeline: Timeline,
    events: Vec<IdentityEvent>,
}

/// A source that runs in the node's namespace until this is dropped.
struct Source {
    heard: Arc<Mutex<Heard>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Source {
    fn start(node: &Node, containerd: &Containerd, heard: &Arc<Mutex<Heard>>, until: Option<i64>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (netns, endpoint, told) = (PathBuf::from(node.netns()), containerd.socket(), heard.clone());
        let work = move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build();
            let runtime = runtime.expect("a runtime");
            runtime.block_on(async {
                let source = CriSource::new(Some(endpoint), "kubernetes".into(), "node".into(), BOOT.into(), until);
                let mut status = source.status();
                tokio::spawn(async move {
                    while status.changed().await.is_ok() {
                        eprintln!("source: {}", *status.borrow());
                    }
                });
                let (events, mut inbox) = mpsc::channel(64);
                let task = tokio::spawn(source.run(events));
                let take = async {
                    while let Some(event) = inbox.recv().await {
                        let mut heard = told.lock().expect("heard");
                        heard.timeline.apply(&event);
                        heard.events.push(event);
                    }
                };
                tokio::select! {
                    () = take => {}
                    _ = stopped => {}
                }
                task.abort();
            });
        };
        let thread = std::thread::spawn(move || in_namespace(&netns, work).expect("the node's namespace"));
        Self { heard: heard.clone(), stop: Some(stop), thread: Some(thread) }
    }

    /// Who has an address now, by the pod's name; `-` nobody, `?` several.
    fn who(&self, ip: &str) -> String {
        let heard = self.heard.lock().expect("heard");
        pod(&heard.timeline.ip("kubernetes", ip.parse::<IpAddr>().expect("an address"), now()))
    }

    /// Waits until an address is a pod's.
    fn knows(&self, ip: &str, name: &str) {
        eventually(30, &format!("{ip} is {name}'s"), || (self.who(ip) == name).then_some(()));
    }

    /// How a pod was described last.
    fn described(&self, name: &str) -> Option<Arc<Identity>> {
        let heard = self.heard.lock().expect("heard");
        heard.events.iter().rev().find_map(|event| match event {
            IdentityEvent::Described { identity, .. } if identity.pod.as_deref() == Some(name) => {
                Some(identity.clone())
            }
            _ => None,
        })
    }

    /// Waits until a pod has exactly these containers.
    fn has_containers(&self, name: &str, containers: &[&str]) {
        let matches =
            |identity: &Identity| identity.containers.iter().map(|own| &*own.container).eq(containers.iter().copied());
        eventually(30, &format!("{name} has {containers:?}"), || self.described(name).filter(|own| matches(own)));
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

fn pod(lookup: &Lookup) -> String {
    match lookup {
        Lookup::One(identity, _) => identity.pod.as_deref().unwrap_or("no pod").to_owned(),
        Lookup::Ambiguous(_) => "?".to_owned(),
        Lookup::None => "-".to_owned(),
    }
}

#[expect(clippy::disallowed_methods, reason = "what is asked for is the present")]
fn now() -> i64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}

fn sleep(containerd: &Containerd, pod: &Pod, name: &str) -> String {
    containerd.container(pod, name, &["/bin/sleep", "1000000"])
}

#[test]
fn cri_source_follows_pods_containers_and_restarts() {
    if !ready() {
        return;
    }
    let node = Node::new();
    let containerd = Containerd::start(node.directory.path(), &node.netns());
    // Before the source runs.
    let web = containerd.pod("web", false);
    let first = sleep(&containerd, &web, "app");
    let heard = Arc::<Mutex<Heard>>::default();
    let source = Source::start(&node, &containerd, &heard, None);
    source.knows(&web.ip, "web");
    source.has_containers("web", &["app"]);
    let identity = source.described("web").expect("described");
    assert_eq!((&*identity.identity, identity.namespace.as_deref()), ("uid-of-web", Some("shop")));
    assert_eq!(identity.labels.keys().map(|key| &**key).collect::<Vec<_>>(), ["app"], "none of the kubelet's own");
    assert!(identity.containers[0].image.as_deref().is_some_and(|image| image.contains("local/box")), "{identity:?}");

    // The host's end of its veth, found through the namespace.
    let veth = |name: &str| {
        heard.lock().expect("heard").events.iter().rev().find_map(|event| match event {
            IdentityEvent::Learned(interval) if interval.identity.pod.as_deref() == Some(name) => match interval.key {
                wiretag_enrich::Key::Interface { index, netns: 0, .. } => Some(index),
                _ => None,
            },
            _ => None,
        })
    };

    // A sidecar comes, the container restarts, the sidecar goes.
    let sidecar = sleep(&containerd, &web, "sidecar");
    source.has_containers("web", &["app", "sidecar"]);
    containerd.end_container(&first);
    source.has_containers("web", &["sidecar"]);
    let second = sleep(&containerd, &web, "app");
    source.has_containers("web", &["app", "sidecar"]);
    containerd.end_container(&sidecar);
    source.has_containers("web", &["app"]);
    check_alias(&heard, &second);

    // The address goes to another pod as soon as it is free.
    let begun = now();
    containerd.end(&web);
    let (other, heir) = (containerd.pod("other", false), containerd.pod("heir", false));
    let reused = if heir.ip == web.ip { &heir } else { &other };
    assert_eq!(reused.ip, web.ip, "two addresses, three pods");
    let name = if heir.ip == web.ip { "heir" } else { "other" };
    source.knows(&reused.ip, name);
    assert!(veth(name).is_some(), "the host's end of its veth");
    check_history(&heard, &web.ip, begun, name);

    // The runtime restarts; its pods go on.
    containerd.restart();
    containerd.end(reused);
    let last = containerd.pod("last", false);
    source.knows(&last.ip, "last");

    // The source restarts; meanwhile the address goes on.
    drop(source);
    let until = now();
    containerd.end(&last);
    eventually(5, "time passes", || (now() > until + 1_000_000_000).then_some(()));
    let newest = containerd.pod("newest", false);
    assert_eq!(newest.ip, last.ip);
    let source = Source::start(&node, &containerd, &heard, Some(until));
    source.knows(&newest.ip, "newest");
    let timeline = &heard.lock().expect("heard").timeline;
    let at = |time| pod(&timeline.ip("kubernetes", last.ip.parse::<IpAddr>().expect("an address"), time));
    assert_eq!(at(until - 1), "last");
    assert_eq!(at(until + 500_000_000), "-", "nobody heard how long it lasted");
}

/// A second interface, as a delegating plugin makes it: of its address the runtime says nothing.
#[test]
fn cri_source_reads_the_addresses_of_further_interfaces() {
    if !ready() {
        return;
    }
    let node = Node::new();
    let containerd = Containerd::start(node.directory.path(), &node.netns());
    let web = containerd.pod("web", false);
    let pid = containerd.pid(&web).to_string();
    let on_node = |arguments: &[&str]| run("ip", &[&["-n", &node.name], arguments].concat());
    on_node(&["link", "add", "storage0", "type", "bridge"]);
    on_node(&["link", "set", "storage0", "up"]);
    on_node(&["link", "add", "outer1", "type", "veth", "peer", "name", "net1", "netns", &pid]);
    on_node(&["link", "set", "outer1", "master", "storage0", "up"]);
    let namespace = format!("--net=/proc/{pid}/ns/net");
    let inside = |arguments: &[&str]| run("nsenter", &[&[namespace.as_str(), "ip"], arguments].concat());
    inside(&["address", "add", "10.216.9.7/24", "dev", "net1"]);
    inside(&["address", "add", "10.216.9.100/32", "dev", "net1"]);
    inside(&["link", "set", "net1", "up"]);

    let heard = Arc::<Mutex<Heard>>::default();
    let _source = Source::start(&node, &containerd, &heard, None);
    let address = |ip: &str| ip.parse::<IpAddr>().expect("an address");
    let who = |ip: &str| pod(&heard.lock().expect("heard").timeline.ip("kubernetes/on:storage0", address(ip), now()));
    eventually(30, "net1's address is the pod's", || (who("10.216.9.7") == "web").then_some(()));
    assert_eq!(who("10.216.9.100"), "-", "one that may wander");
    let view = heard.lock().expect("heard").timeline.view();
    let has = |ip: &str| view.has_ip("uid-of-web", address(ip), now());
    assert_eq!([has("10.216.9.7"), has(&web.ip), has("10.216.9.8")], [Some(true), Some(true), Some(false)]);
}

/// Before, nobody's, after: never the other's.
fn check_history(heard: &Arc<Mutex<Heard>>, ip: &str, begun: i64, heir: &str) {
    let timeline = &heard.lock().expect("heard").timeline;
    let at = |time| pod(&timeline.ip("kubernetes", ip.parse::<IpAddr>().expect("an address"), time));
    assert_eq!(at(begun), "web");
    let seen: Vec<String> = (0..200).map(|step| at(begun + step * (now() - begun) / 199)).collect();
    let mut order = seen.clone();
    order.dedup();
    assert_eq!(order, ["web", "-", heir], "{seen:?}");
}

/// A container's id is another name of its pod.
fn check_alias(heard: &Arc<Mutex<Heard>>, container: &str) {
    let told = heard.lock().expect("heard").events.iter().any(|event| {
        matches!(event, IdentityEvent::Same { alias, identity, member: Some(member), .. }
            if &**alias == container && &**identity == "uid-of-web" && &*member.container == "app")
    });
    assert!(told, "{container}");
}
