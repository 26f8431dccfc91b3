//! The Kubernetes source against a small API server that does what real ones do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod brief;
mod forms;
mod namespaces;
mod server;
mod unread;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use server::{JOBS, NAMESPACES, NODES, PODS, REPLICA_SETS, SERVICES, SLICES, Server};
use tokio::sync::{mpsc, watch};
use wiretag_enrich::kubernetes::{KubernetesConfig, KubernetesSource, Scope, check};
use wiretag_enrich::timeline::{Lookup, Timeline};
use wiretag_enrich::{Identity, IdentityEvent, Key, SourceStatus};

const ALL: &[&str] = &[NODES, NAMESPACES, REPLICA_SETS, JOBS, SERVICES, SLICES, PODS];
const PATIENCE: Duration = Duration::from_mins(1);

fn now() -> i64 {
    let elapsed = std::time::UNIX_EPOCH.elapsed().expect("a clock");
    i64::try_from(elapsed.as_nanos()).expect("this century")
}

fn pod(uid: &str, ip: &str) -> Value {
    json!({
        "metadata": { "name": format!("pod-{uid}"), "namespace": "shop", "uid": uid,
            "managedFields": [{ "manager": "kubelet", "fieldsV1": { "f:status": {} } }] },
        "spec": { "nodeName": "n1", "containers": [{ "name": "app", "image": "web:1" }] },
        "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }] },
    })
}

struct Run {
    server: Server,
    folder: tempfile::TempDir,
    events: mpsc::Receiver<IdentityEvent>,
    status: watch::Receiver<SourceStatus>,
    told: Vec<IdentityEvent>,
    timeline: Timeline,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn kubeconfig(folder: &tempfile::TempDir, server: &Server) -> PathBuf {
    let path = folder.path().join("kubeconfig");
    let token = folder.path().join("token");
    std::fs::write(&token, "good").expect("a token");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "k", "cluster": { "server": format!("http://{}", server.address) } }],
        "users": [{ "name": "u", "user": { "tokenFile": token } }],
        "contexts": [{ "name": "c", "context": { "cluster": "k", "user": "u" } }],
    });
    std::fs::write(&path, config.to_string()).expect("a kubeconfig");
    path
}

fn config(kubeconfig: PathBuf, scope: Scope) -> KubernetesConfig {
    KubernetesConfig { kubeconfig: Some(kubeconfig), cluster: "blue".into(), scope, node: "n1".into() }
}

impl Run {
    fn start(server: Server, scope: Scope, page: u32) -> Self {
        let mut timeline = Timeline::new();
        // Names are asked for as of now, of which no source can have told yet.
        timeline.apply(&IdentityEvent::Heard { source: "kubernetes".into(), at: i64::MAX });
        Self::start_with(server, (scope, page), timeline, None)
    }

    /// The same with what is known from before, until when the last run listened.
    fn start_with(server: Server, (scope, page): (Scope, u32), timeline: Timeline, heard: Option<i64>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let source = KubernetesSource::new(config(kubeconfig(&folder, &server), scope), heard).with_page(page);
        let status = source.status();
        let (sender, events) = mpsc::channel(64);
        let task = tokio::spawn(source.run(sender));
        Self { server, folder, events, status, told: Vec::new(), timeline, task }
    }

    /// Waits until what was told satisfies `enough`.
    async fn until(&mut self, what: &str, enough: impl Fn(&Self) -> bool) {
        let wait = async {
            while !enough(self) {
                let event = self.events.recv().await.expect("the source runs");
                self.timeline.apply(&event);
                self.told.push(event);
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    async fn until_status(&mut self, is: impl Fn(&SourceStatus) -> bool) {
        let wait = self.status.wait_for(|status| is(status));
        tokio::time::timeout(PATIENCE, wait).await.expect("the status comes").expect("the source runs");
    }

    fn who(&self, ip: &str) -> String {
        self.who_at(ip, now())
    }

    fn who_at(&self, ip: &str, at: i64) -> String {
        match self.timeline.ip("blue", ip.parse().expect("an address"), at) {
            Lookup::One(identity, _) => identity.identity.to_string(),
            Lookup::Ambiguous(_) => "ambiguous".into(),
            Lookup::None => "none".into(),
        }
    }

    fn service(&self, ip: &str, port: u16) -> Option<String> {
        let key = Key::Service { network: "blue".into(), protocol: 6, ip: ip.parse().expect("an address"), port };
        let current = self.timeline.current(now(), None);
        current.into_iter().find(|own| own.key == key)?.identity.service.as_deref().map(str::to_owned)
    }

    /// Until when the source was heard.
    fn heard(&self) -> Option<i64> {
        self.told.iter().rev().find_map(|event| match event {
            IdentityEvent::Heard { at, .. } => Some(*at),
            _ => None,
        })
    }

    fn snapshots(&self) -> usize {
        self.told.iter().filter(|event| matches!(event, IdentityEvent::Reconciled(_))).count()
    }

    fn described(&self, id: &str) -> Option<Identity> {
        self.told.iter().rev().find_map(|event| match event {
            IdentityEvent::Described { identity, .. } if &*identity.identity == id => Some((**identity).clone()),
            _ => None,
        })
    }
}

#[tokio::test]
async fn everything_is_listed_in_pages_and_told_as_one_snapshot() {
    let server = Server::start(ALL).await;
    for number in 0..25 {
        server.put(PODS, pod(&format!("p{number:02}"), &format!("10.0.0.{}", number + 1)));
    }
    server.put(
        NODES,
        json!({ "metadata": { "name": "n1", "uid": "n", "labels": { "topology.kubernetes.io/zone": "east" } },
        "status": { "addresses": [{ "type": "InternalIP", "address": "192.168.0.1" }] } }),
    );
    let mut run = Run::start(server, Scope::Cluster, 10);
    run.until("a snapshot", |run| run.snapshots() == 1).await;
    let Some(IdentityEvent::Reconciled(snapshot)) = run.told.last() else { panic!("the snapshot is last") };
    assert_eq!(snapshot.present.len(), 26);
    assert_eq!((run.who("10.0.0.25"), run.who("192.168.0.1")), ("p24".into(), "node:n1".into()));
    assert_eq!(run.described("p00").expect("a pod").zone.as_deref(), Some("east"), "nodes come first");
    assert!(run.timeline.is_on_host("blue"), "this host is one of its nodes");
    let heard = |event: &IdentityEvent| matches!(event, IdentityEvent::Heard { .. });
    run.until("a watch that is in touch says so", |run| run.told.last().is_some_and(heard)).await;
    let pages: Vec<String> = run
        .server
        .requests()
        .into_iter()
        .filter(|target| target.starts_with(PODS) && !target.contains("watch"))
        .collect();
    assert_eq!(pages.len(), 3, "{pages:?}");
    assert!(pages.iter().all(|page| page.contains("limit=10")), "{pages:?}");
    run.until_status(|status| *status == SourceStatus::Connected).await;
}

/// The server is slow: what is asked for about the time since the start can be answered as soon as the source is heard.
#[tokio::test]
async fn a_pod_that_died_while_nobody_listened_has_its_address_no_more_when_the_source_is_heard_again() {
    const S: i64 = 1_000_000_000;
    let server = Server::start(ALL).await;
    server.put(PODS, pod("a", "10.0.0.7"));
    let mut before = Run::start_with(server, (Scope::Cluster, 500), Timeline::new(), None);
    before.until("the pod", |run| run.snapshots() == 1).await;
    let known = std::mem::take(&mut before.timeline);
    drop(before);

    let server = Server::start(ALL).await;
    server.put(PODS, pod("b", "10.0.0.7"));
    server.slow(Duration::from_secs(4));
    let stopped = now();
    let mut run = Run::start_with(server, (Scope::Cluster, 500), known, Some(stopped));
    // What is told with whole seconds may be off by three.
    let at = stopped + 4 * S;
    let is_heard = |run: &Run| {
        assert_ne!(run.who_at("10.0.0.7", at), "a", "after {:?}", run.told);
        run.heard().is_some_and(|heard| heard > at + 3 * S)
    };
    run.until("word of the pods", is_heard).await;
    assert_eq!((run.snapshots(), run.who_at("10.0.0.7", at).as_str()), (1, "none"));
}

#[tokio::test]
async fn a_watch_that_is_cut_off_goes_on_where_it_was() {
    let server = Server::start(ALL).await;
    server.put(PODS, pod("a", "10.0.0.1"));
    let mut run = Run::start(server, Scope::Cluster, 500);
    run.until("the first pod", |run| run.snapshots() == 1).await;
    run.server.put(PODS, pod("b", "10.0.0.2"));
    run.until("a new pod", |run| run.who("10.0.0.2") == "b").await;
    run.server.bookmark(PODS);
    run.server.delete(PODS, "a");
    run.until("its end", |run| run.who("10.0.0.1") == "none").await;
    run.server.cut();
    run.server.put(PODS, pod("c", "10.0.0.1"));
    run.server.delete(PODS, "b");
    run.until("what was missed", |run| run.who("10.0.0.1") == "c" && run.who("10.0.0.2") == "none").await;
    assert_eq!(run.server.lists(PODS), 1, "{:?}", run.server.requests());
}

#[tokio::test]
async fn after_410_the_gap_is_closed_by_a_new_list() {
    let server = Server::start(ALL).await;
    for (uid, ip) in [("a", "10.0.0.1"), ("b", "10.0.0.2")] {
        server.put(PODS, pod(uid, ip));
    }
    let mut run = Run::start(server, Scope::Cluster, 1);
    run.until("both pods", |run| run.snapshots() == 1 && run.who("10.0.0.2") == "b").await;
    run.until_status(|status| *status == SourceStatus::Connected).await;
    // Long enough for the watch to be up to date.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = now();
    run.server.delete(PODS, "a");
    run.server.compact();
    run.server.cut();
    let is_whole = |run: &Run| run.snapshots() == 2 && run.who("10.0.0.1") == "none";
    run.until("its end, and a snapshot", is_whole).await;
    assert_eq!(run.who("10.0.0.2"), "b");
    let ended = run.told.iter().find_map(|event| match event {
        IdentityEvent::Ended { identity, at, .. } if &**identity == "a" => Some(*at),
        _ => None,
    });
    assert!(ended.expect("an end") <= before, "it ended when the watch was last heard");
}

#[tokio::test]
async fn an_expired_token_is_read_again() {
    let server = Server::start(ALL).await;
    server.put(PODS, pod("a", "10.0.0.1"));
    let mut run = Run::start(server, Scope::Cluster, 500);
    run.until("the first pod", |run| run.who("10.0.0.1") == "a").await;
    run.server.set_token("better");
    run.server.cut();
    run.until_status(|status| matches!(status, SourceStatus::Absent { reason } if reason.contains("token"))).await;
    run.server.put(PODS, pod("b", "10.0.0.2"));
    std::fs::write(run.folder.path().join("token"), "better").expect("a new token");
    run.until("a pod of the time without", |run| run.who("10.0.0.2") == "b").await;
    run.until_status(|status| *status == SourceStatus::Connected).await;
    assert_eq!(run.server.lists(PODS), 1, "the watch went on");
}

#[tokio::test]
async fn a_server_that_has_moved_is_found_by_what_the_kubeconfig_says_now() {
    let server = Server::start(ALL).await;
    server.put(PODS, pod("a", "10.0.0.1"));
    let mut run = Run::start(server, Scope::Cluster, 500);
    run.until("the first pod", |run| run.snapshots() == 1 && run.who("10.0.0.1") == "a").await;
    let other = Server::start(ALL).await;
    for (uid, ip) in [("a", "10.0.0.1"), ("c", "10.0.0.3"), ("b", "10.0.0.2")] {
        other.put(PODS, pod(uid, ip));
    }
    std::mem::replace(&mut run.server, other).close();
    kubeconfig(&run.folder, &run.server);
    run.until("a pod of the other", |run| run.who("10.0.0.2") == "b").await;
    run.until_status(|status| *status == SourceStatus::Connected).await;
}

#[tokio::test]
async fn changes_during_a_slow_list_are_not_lost() {
    let server = Server::start(ALL).await;
    for number in 1..=6 {
        server.put(PODS, pod(&format!("p{number}"), &format!("10.0.0.{number}")));
    }
    server.slow(Duration::from_millis(300));
    let mut run = Run::start(server, Scope::Cluster, 2);
    run.until("the first page", |run| run.who("10.0.0.1") == "p1").await;
    assert_eq!(run.snapshots(), 0, "names come with the pages");
    run.server.delete(PODS, "p1");
    run.server.put(PODS, pod("late", "10.0.0.9"));
    run.until("the whole list", |run| run.snapshots() == 1).await;
    run.until("what changed meanwhile", |run| run.who("10.0.0.1") == "none" && run.who("10.0.0.9") == "late").await;
}

/// A large cluster on a slow server: page after page, while pods come and go.
#[tokio::test]
async fn thirty_thousand_pods_are_told_page_after_page_and_changes_meanwhile_are_not_lost() {
    const PODS_THERE: u32 = 30_000;
    let ip = |number: u32| std::net::Ipv4Addr::from(0x0A00_0001 + number).to_string();
    let server = Server::start(ALL).await;
    for number in 0..PODS_THERE {
        server.put(PODS, pod(&format!("p{number:05}"), &ip(number)));
    }
    server.slow(Duration::from_millis(20));
    let mut run = Run::start(server, Scope::Cluster, 500);
    run.until("the first page", |run| run.who(&ip(0)) == "p00000").await;
    assert_eq!((run.snapshots(), run.who(&ip(PODS_THERE - 1))), (0, "none".into()), "the list has only begun");
    run.server.delete(PODS, "p00007");
    run.server.put(PODS, pod("heir", &ip(7)));
    run.server.put(PODS, pod("late", &ip(PODS_THERE)));
    run.until("the whole list", |run| matches!(run.told.last(), Some(IdentityEvent::Reconciled(_)))).await;
    run.until("what changed meanwhile", |run| run.who(&ip(7)) == "heir" && run.who(&ip(PODS_THERE)) == "late").await;
    let wrong = (0..PODS_THERE).filter(|number| *number != 7 && run.who(&ip(*number)) != format!("p{number:05}"));
    assert_eq!(wrong.collect::<Vec<_>>(), Vec::<u32>::new());
    let requests = run.server.requests();
    let pages = requests.iter().filter(|target| target.starts_with(PODS) && !target.contains("watch"));
    // One is there more than before.
    assert_eq!((pages.count(), run.server.lists(PODS)), (61, 1), "pages of 500, once");
}

/// A large cluster: something changes every few milliseconds.
#[tokio::test]
async fn a_watch_without_pauses_is_up_to_date() {
    let server = Server::start(ALL).await;
    server.put(PODS, pod("a", "10.0.0.1"));
    // Longer than after which a watch counts as one that went on at once.
    server.slow(Duration::from_millis(500));
    let mut run = Run::start(server, Scope::Cluster, 500);
    run.until("a snapshot", |run| run.snapshots() == 1).await;
    run.told.clear();
    for number in 0.. {
        run.server.put(PODS, pod("other", "10.0.0.2"));
        while let Ok(event) = run.events.try_recv() {
            run.told.push(event);
        }
        if run.heard().is_some() {
            break;
        }
        assert!(number < 1000, "after {number} changes");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_list_that_the_server_forgets_is_begun_again() {
    let server = Server::start(ALL).await;
    for number in 1..=6 {
        server.put(PODS, pod(&format!("p{number}"), &format!("10.0.0.{number}")));
    }
    server.slow(Duration::from_millis(300));
    let mut run = Run::start(server, Scope::Cluster, 2);
    run.until("the first page", |run| run.who("10.0.0.1") == "p1").await;
    run.server.compact();
    run.until("the whole list", |run| run.snapshots() == 1).await;
    assert!((1..=6).all(|number| run.who(&format!("10.0.0.{number}")) == format!("p{number}")));
}

#[tokio::test]
async fn a_real_pod_object_is_understood() {
    let server = Server::start(ALL).await;
    server.put(PODS, serde_json::from_str(include_str!("pod.json")).expect("a pod"));
    server.put(PODS, json!({ "metadata": { "uid": "broken" }, "spec": "not an object" }));
    server.put(REPLICA_SETS, json!({ "metadata": { "name": "checkout-6f7c9b7d5", "namespace": "shop", "uid": "5d2f6a57-9f0e-4b7e-8a53-0f7c5d9f2b11",
        "ownerReferences": [{ "kind": "Deployment", "name": "checkout", "uid": "d", "controller": true }] } }));
    let mut run = Run::start(server, Scope::Cluster, 500);
    run.until("a snapshot", |run| run.snapshots() == 1).await;
    let uid = "0b7a2f3c-6d0e-4a55-9c1a-2f4e8d7b6a90";
    assert_eq!((run.who("10.244.1.7"), run.who("fd00:10:244:1::7")), (uid.into(), uid.into()));
    let own = run.described(uid).expect("a description");
    assert_eq!((own.workload.as_deref(), own.workload_kind.as_deref()), (Some("checkout"), Some("Deployment")));
    let names: Vec<&str> = own.containers.iter().map(|own| &*own.container).collect();
    assert_eq!(names, ["checkout", "metrics"], "its init container has ended");
}

#[tokio::test]
async fn on_a_node_only_its_pods_are_watched_and_owners_are_asked_for() {
    let server = Server::start(&[NODES, NAMESPACES, PODS, REPLICA_SETS]).await;
    let mut own = pod("a", "10.0.0.1");
    own["metadata"]["ownerReferences"] =
        json!([{ "kind": "ReplicaSet", "name": "web-1", "uid": "rs", "controller": true }]);
    server.put(PODS, own);
    server.put(
        REPLICA_SETS,
        json!({ "metadata": { "name": "web-1", "namespace": "shop", "uid": "rs",
        "ownerReferences": [{ "kind": "Deployment", "name": "web", "uid": "d", "controller": true }] } }),
    );
    let mut run = Run::start(server, Scope::Node, 500);
    run.until("its owner", |run| run.described("a").is_some_and(|own| own.workload.as_deref() == Some("web"))).await;
    run.until("a snapshot", |run| run.snapshots() == 1).await;
    let requests = run.server.requests();
    let of = |path: &str| requests.iter().filter(|target| target.starts_with(path)).cloned().collect::<Vec<_>>();
    assert!(of(PODS).iter().all(|target| target.contains("fieldSelector=spec.nodeName%3Dn1")), "{requests:?}");
    assert!(of(NODES).iter().all(|target| target.contains("fieldSelector=metadata.name%3Dn1")), "{requests:?}");
    assert_eq!(of("/apis/apps/v1/"), ["/apis/apps/v1/namespaces/shop/replicasets/web-1"], "{requests:?}");
}

#[tokio::test]
async fn what_is_not_allowed_is_said_and_the_rest_works() {
    let server = Server::start(ALL).await;
    server.put(PODS, pod("a", "10.0.0.1"));
    server.forbid(SERVICES);
    let mut run = Run::start(server, Scope::Cluster, 500);
    run.until("a snapshot of the rest", |run| run.snapshots() == 1 && run.who("10.0.0.1") == "a").await;
    run.until_status(|status| matches!(status, SourceStatus::Partial { missing } if missing.starts_with("services")))
        .await;
    let permissions = check(&config(run.folder.path().join("kubeconfig"), Scope::Cluster)).await.expect("an answer");
    assert_eq!(permissions.to_string(), "list, watch on services");
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for() {
    let server = Server::start(ALL).await;
    let folder = tempfile::tempdir().expect("a folder");
    let kubeconfig = kubeconfig(&folder, &server);
    drop(server);
    let source = KubernetesSource::new(config(kubeconfig.clone(), Scope::Cluster), None);
    let mut status = source.status();
    let (sender, _events) = mpsc::channel(64);
    let task = tokio::spawn(source.run(sender));
    let absent = status.wait_for(|status| matches!(status, SourceStatus::Absent { .. }));
    tokio::time::timeout(PATIENCE, absent).await.expect("in time").expect("the source runs");
    assert!(check(&config(kubeconfig, Scope::Node)).await.is_err());
    task.abort();
}
