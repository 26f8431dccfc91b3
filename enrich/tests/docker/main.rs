//! The Docker source against a daemon's recorded answers: what a real one does not do on demand. Real Docker is in the
//! product's tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod daemon;
#[path = "../wait/mod.rs"]
mod wait;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use daemon::Daemon;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use wait::eventually;
use wiretag_enrich::docker::{DockerSource, check};
use wiretag_enrich::timeline::{Lookup, Timeline};
use wiretag_enrich::{Identity, SourceStatus};

const MAC: [u8; 6] = [2, 0x42, 0, 0, 0, 7];

/// A source that listens to the daemon, and what it told.
struct Source {
    timeline: Arc<Mutex<Timeline>>,
    status: watch::Receiver<SourceStatus>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Source {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Source {
    /// One that has told what there is.
    fn start(daemon: &Daemon) -> Self {
        let source = Self::at(daemon.url());
        source.until(|status| *status == SourceStatus::Connected);
        source
    }

    /// One for whoever has the socket, now or later.
    fn at(endpoint: String) -> Self {
        Self::again(endpoint, Arc::default(), None)
    }

    /// One that goes on with what is known from before, until when the last one listened.
    fn again(endpoint: String, timeline: Arc<Mutex<Timeline>>, heard: Option<i64>) -> Self {
        let source = DockerSource::new(Some(endpoint), "node".into(), "boot".into(), heard);
        let status = source.status();
        let (events, mut inbox) = mpsc::channel(64);
        let own = timeline.clone();
        let take = async move {
            while let Some(event) = inbox.recv().await {
                own.lock().expect("a timeline").apply(&event);
            }
        };
        Self { timeline, status, tasks: vec![tokio::spawn(source.run(events)), tokio::spawn(take)] }
    }

    /// Waits for a state.
    fn until(&self, is: impl Fn(&SourceStatus) -> bool) {
        eventually(30, "the state", || is(&self.status.borrow()).then_some(()));
    }

    fn ip(&self, network: &str, ip: &str, at: i64) -> Option<Arc<Identity>> {
        one(self.timeline.lock().expect("a timeline").ip(network, ip.parse::<IpAddr>().expect("an address"), at))
    }

    /// What Docker's networks say of the container that had an address.
    fn labels(&self, ip: &str, at: i64) -> BTreeMap<String, String> {
        let identity = self.ip("id-of-front", ip, at).expect("known");
        let own = identity.labels.iter().filter(|(key, _)| key.starts_with("docker."));
        own.map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "what was just found")]
fn one(lookup: Lookup) -> Option<Arc<Identity>> {
    match lookup {
        Lookup::One(identity, _) => Some(identity.clone()),
        Lookup::Ambiguous(_) | Lookup::None => None,
    }
}

#[expect(clippy::disallowed_methods, reason = "events of the test are of the present")]
fn now() -> i64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}

fn network(name: &str, labels: &Value) -> Value {
    json!({ "Id": format!("id-of-{name}"), "Name": name, "Driver": "bridge", "Labels": labels })
}

/// A container that runs since the beginning of 2026, with an address in the network `front`.
fn container(name: &str, ip: &str) -> Value {
    let endpoint = json!({
        "NetworkID": "id-of-front", "EndpointID": "endpoint-in-front", "IPAddress": ip, "MacAddress": "02:42:00:00:00:07",
    });
    json!({
        "Id": format!("id-of-{name}"),
        "Name": format!("/{name}"),
        "State": { "Running": true, "StartedAt": "2026-01-01T00:00:00Z", "Pid": 0 },
        "Config": { "Image": "box:1", "Labels": { "app": "shop" } },
        "HostConfig": { "NetworkMode": "front" },
        "NetworkSettings": { "SandboxID": "sandbox-of-the-container", "Networks": { "front": endpoint } },
    })
}

fn words(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_networks_and_their_labels_are_told_as_of_their_time() {
    let daemon = Daemon::start();
    let front = network("front", &json!({ "tier": "web", "com.docker.compose.network": "front" }));
    daemon.answer("/networks", Some(json!([front])));
    daemon.answer("/containers/json", Some(json!([{ "Id": "id-of-web" }])));
    daemon.answer("/containers/id-of-web/json", Some(container("web", "10.9.0.7")));
    let source = Source::start(&daemon);
    let begin = now();
    let at_first = words(&[
        ("docker.endpoint", "endpoint-in-"),
        ("docker.network", "front"),
        ("docker.network.label.tier", "web"),
        ("docker.sandbox", "sandbox-of-t"),
    ]);
    eventually(20, "told", || source.ip("id-of-front", "10.9.0.7", begin));
    assert_eq!(source.labels("10.9.0.7", begin), at_first);
    let identity = source.ip("id-of-front", "10.9.0.7", begin).expect("known");
    assert_eq!(identity.labels.get("app").map(|value| &**value), Some("shop"), "its own are there");
    // By link-layer address, in its own network only.
    let mac = |network: &str| one(source.timeline.lock().expect("a timeline").mac(network, MAC, now()));
    assert_eq!(mac("id-of-front").and_then(|own| own.container.clone()).as_deref(), Some("web"));
    assert!(mac("id-of-back").is_none());

    // It joins another network, and leaves it.
    let mut back = network("back", &json!({ "tier": "db" }));
    let own =
        json!({ "EndpointID": "later-endpoint", "MacAddress": "02:42:00:00:00:08", "IPv4Address": "10.8.0.7/24" });
    back["Containers"] = json!({ "id-of-web": own });
    daemon.answer("/networks/id-of-back", Some(back));
    let joined = now();
    daemon.event(("network", "connect"), "id-of-back", Some("id-of-web"), joined);
    eventually(20, "joined", || source.ip("id-of-back", "10.8.0.7", now()));
    let left = now();
    daemon.event(("network", "disconnect"), "id-of-back", Some("id-of-web"), left);
    daemon.event(("network", "destroy"), "id-of-back", None, left + 1);
    eventually(20, "left", || (source.labels("10.9.0.7", now()) == at_first).then_some(()));
    let both = source.labels("10.9.0.7", joined + 1);
    assert_eq!(both.get("docker.network").map(String::as_str), Some("back,front"));
    assert_eq!(both.get("docker.network.label.tier").map(String::as_str), Some("db,web"));
    assert_eq!(source.labels("10.9.0.7", joined - 1), at_first, "the past is what it was");
    assert!(source.ip("id-of-back", "10.8.0.7", now()).is_none());
    assert!(mac("id-of-back").is_none());
}

/// All containers of an ipvlan, and the device below, have one link-layer address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_container_of_an_ipvlan_has_its_address_and_no_link_layer_address() {
    let daemon = Daemon::start();
    let mut front = network("front", &json!({}));
    front["Driver"] = json!("ipvlan");
    daemon.answer("/networks", Some(json!([front])));
    let (known, mut told) = (container("web", "10.9.0.7"), front);
    daemon.answer("/containers/json", Some(json!([{ "Id": "id-of-web" }])));
    daemon.answer("/containers/id-of-web/json", Some(known));
    let source = Source::start(&daemon);
    let nobody = || matches!(source.timeline.lock().expect("a timeline").mac("id-of-front", MAC, now()), Lookup::None);
    eventually(20, "told", || source.ip("id-of-front", "10.9.0.7", now()));
    assert!(nobody());
    // One that comes later.
    told["Containers"] = json!({ "id-of-db": { "MacAddress": "02:42:00:00:00:07", "IPv4Address": "10.9.0.8/24" } });
    daemon.answer("/networks/id-of-front", Some(told));
    daemon.answer("/containers/id-of-db/json", Some(container("db", "10.9.0.8")));
    daemon.event(("network", "connect"), "id-of-front", Some("id-of-db"), now());
    let db = eventually(20, "told", || source.ip("id-of-front", "10.9.0.8", now()));
    assert_eq!(db.container.as_deref(), Some("db"));
    assert!(nobody());
}

/// Docker answers nothing about a container while it starts, and its events go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_container_without_an_answer_keeps_no_other_waiting() {
    let daemon = Daemon::start();
    daemon.answer("/networks", Some(json!([network("front", &json!({}))])));
    let source = Source::start(&daemon);
    daemon.answer("/containers/id-of-hung/json", None);
    daemon.event(("container", "start"), "id-of-hung", None, now());
    for _ in 0..400 {
        daemon.event(("container", "rename"), "id-of-hung", None, now());
    }
    let mut front = network("front", &json!({}));
    front["Containers"] = json!({ "id-of-web": { "MacAddress": "02:42:00:00:00:07", "IPv4Address": "10.9.0.7/24" } });
    daemon.answer("/networks/id-of-front", Some(front));
    daemon.answer("/containers/id-of-web/json", Some(container("web", "10.9.0.7")));
    daemon.event(("network", "connect"), "id-of-front", Some("id-of-web"), now());
    // Less than an answer is waited for.
    let web = eventually(10, "the other is known", || source.ip("id-of-front", "10.9.0.7", now()));
    assert_eq!(web.container.as_deref(), Some("web"));
    // At last there is an answer: what is there is known.
    daemon.answer("/containers/id-of-hung/json", Some(container("hung", "10.9.0.8")));
    let hung = eventually(15, "it is known as well", || source.ip("id-of-front", "10.9.0.8", now()));
    assert_eq!(hung.container.as_deref(), Some("hung"));
}

/// A container about which Docker says only that something is wrong has not ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_container_without_an_answer_at_the_start_keeps_its_name_and_is_asked_about_again() {
    const FEBRUARY: i64 = 1_769_904_000_000_000_000;
    let daemon = Daemon::start();
    daemon.answer("/networks", Some(json!([network("front", &json!({}))])));
    daemon.answer("/containers/json", Some(json!([{ "Id": "id-of-web" }])));
    daemon.answer("/containers/id-of-web/json", Some(container("web", "10.9.0.7")));
    let before = Source::start(&daemon);
    eventually(20, "told", || before.ip("id-of-front", "10.9.0.7", now()));
    let timeline = before.timeline.clone();
    drop(before);
    // Another is new, so that it is seen when all is told.
    daemon.answer("/containers/json", Some(json!([{ "Id": "id-of-web" }, { "Id": "id-of-db" }])));
    daemon.answer("/containers/id-of-db/json", Some(container("db", "10.9.0.8")));
    daemon.answer("/containers/id-of-web/json", Some(json!({ "message": "something is wrong" })));
    let source = Source::again(daemon.url(), timeline, Some(FEBRUARY));
    eventually(20, "told", || source.ip("id-of-front", "10.9.0.8", now()));
    let web = source.ip("id-of-front", "10.9.0.7", now()).expect("it is not over");
    assert_eq!(web.container.as_deref(), Some("web"));
    // It was started again while nobody listened.
    let mut again = container("web", "10.9.0.9");
    again["State"]["StartedAt"] = json!("2026-03-01T00:00:00Z");
    daemon.answer("/containers/id-of-web/json", Some(again));
    eventually(20, "told", || source.ip("id-of-front", "10.9.0.9", now()));
    assert!(source.ip("id-of-front", "10.9.0.7", now()).is_none());
    assert!(source.ip("id-of-front", "10.9.0.7", FEBRUARY - 1).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_container_that_starts_without_an_answer_is_named_when_there_is_one() {
    let daemon = Daemon::start();
    daemon.answer("/networks", Some(json!([network("front", &json!({}))])));
    let source = Source::start(&daemon);
    daemon.answer("/containers/id-of-web/json", Some(json!({ "message": "something is wrong" })));
    eventually(20, "it listens", || daemon.was_asked("/events").then_some(()));
    daemon.event(("container", "start"), "id-of-web", None, now());
    eventually(20, "asked", || daemon.was_asked("/containers/id-of-web/json").then_some(()));
    std::thread::park_timeout(std::time::Duration::from_millis(100));
    daemon.answer("/containers/id-of-web/json", Some(container("web", "10.9.0.7")));
    eventually(20, "told", || source.ip("id-of-front", "10.9.0.7", now()));
}

/// Of the past Docker remembers little.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_events_are_heard_while_its_containers_are_listed() {
    let daemon = Daemon::start();
    let mut front = network("front", &json!({}));
    front["Containers"] = json!({ "id-of-db": { "MacAddress": "02:42:00:00:00:07", "IPv4Address": "10.9.0.8/24" } });
    daemon.answer("/networks", Some(json!([front.clone()])));
    daemon.answer("/networks/id-of-front", Some(front));
    daemon.answer("/containers/json", Some(json!([{ "Id": "id-of-hung" }])));
    daemon.answer("/containers/id-of-hung/json", None);
    daemon.answer("/containers/id-of-db/json", Some(container("db", "10.9.0.8")));
    let source = Source::at(daemon.url());
    eventually(10, "it listens", || daemon.was_asked("/events").then_some(()));
    daemon.event(("network", "connect"), "id-of-front", Some("id-of-db"), now());
    eventually(10, "asked", || daemon.was_asked("/containers/id-of-hung/json").then_some(()));
    daemon.answer("/containers/id-of-hung/json", Some(container("hung", "10.9.0.7")));
    eventually(10, "told", || source.ip("id-of-front", "10.9.0.8", now()));
}

fn is_absent(status: &SourceStatus, why: &str) -> bool {
    matches!(status, SourceStatus::Absent { reason } if reason.contains(why))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_that_is_not_there_is_missed_and_heard_as_soon_as_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = daemon::socket(&directory);
    let source = Source::at(path.display().to_string());
    source.until(|status| is_absent(status, "Socket not found"));
    let daemon = Daemon::start_in(directory);
    source.until(|status| *status == SourceStatus::Connected);
    drop(daemon);
    assert!(!path.exists());
    source.until(|status| is_absent(status, "Socket not found"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_that_does_not_answer_is_not_waited_for() {
    let daemon = Daemon::start();
    let path = PathBuf::from(daemon.url().trim_start_matches("unix://"));
    assert_eq!(check(&path).await, Ok("25.0.0".to_owned()));
    daemon.answer("/version", None);
    let source = Source::at(daemon.url());
    assert_eq!(check(&path).await, Err("it does not answer in time".to_owned()));
    source.until(|status| is_absent(status, "in time"));
    daemon.answer("/version", Some(json!({ "ApiVersion": "1.44" })));
    assert_eq!(check(&path).await, Err("it does not say its version".to_owned()));
    daemon.answer("/version", Some(json!("<html>")));
    assert!(check(&path).await.is_err());
    daemon.answer("/version", Some(json!({ "ApiVersion": "1.44", "Version": "25.0.0" })));
    source.until(|status| *status == SourceStatus::Connected);
}
