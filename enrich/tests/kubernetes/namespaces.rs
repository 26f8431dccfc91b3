//! Labels of namespaces are their pods', as they were at the time.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wiretag_enrich::SourceStatus;
use wiretag_enrich::kubernetes::{Scope, check};
use wiretag_enrich::timeline::Lookup;

use super::server::{NAMESPACES, NODES, PODS, REPLICA_SETS, Server};
use super::{ALL, Run, config, now, pod};

fn namespace(uid: &str, name: &str, labels: &[(&str, &str)]) -> Value {
    let mut all = BTreeMap::from([("kubernetes.io/metadata.name", name)]);
    all.extend(labels.iter().copied());
    json!({ "metadata": { "name": name, "uid": uid, "labels": all } })
}

/// A pod of the namespace `shop` that has labels of its own.
fn labelled(uid: &str, ip: &str, labels: &[(&str, &str)]) -> Value {
    let mut pod = pod(uid, ip);
    pod["metadata"]["labels"] = json!(labels.iter().copied().collect::<BTreeMap<_, _>>());
    pod
}

/// The labels of whoever had the address at a time, as `name=value`.
fn labels(run: &Run, ip: &str, at: i64) -> String {
    let Lookup::One(identity, _) = run.timeline.ip("blue", ip.parse().expect("an address"), at) else {
        return "nobody".into();
    };
    identity.labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_pod_has_the_labels_that_its_namespace_had_at_the_time() {
    let server = Server::start(ALL).await;
    server.put(NAMESPACES, namespace("n1", "shop", &[("team", "blue"), ("example.com/stage", "live")]));
    server.put(NAMESPACES, namespace("n2", "else", &[("team", "green")]));
    server.put(PODS, labelled("a", "10.0.0.1", &[("team", "own"), ("namespace/team", "own too")]));
    let mut run = Run::start(server, Scope::Cluster, 1);
    run.until("the pod", |run| run.snapshots() == 1 && run.who("10.0.0.1") == "a").await;
    let own = "namespace/team=own too namespace:example.com/stage=live namespace:team=blue team=own";
    assert_eq!(run.told.iter().filter(|event| format!("{event:?}").contains("Described")).count(), 1, "at once");
    let before = now();
    assert_eq!(labels(&run, "10.0.0.1", before), own);
    run.server.put(NAMESPACES, namespace("n1", "shop", &[("team", "red")]));
    let after = "namespace/team=own too namespace:team=red team=own";
    run.until("the new label", |run| labels(run, "10.0.0.1", now()) == after).await;
    assert_eq!(labels(&run, "10.0.0.1", before), own, "then it was another");
    // What is the pod's own may change, and its namespace's label stays.
    run.server.put(PODS, labelled("a", "10.0.0.1", &[("app", "web")]));
    run.until("its own label", |run| labels(run, "10.0.0.1", now()) == "app=web namespace:team=red").await;
    run.server.put(NAMESPACES, namespace("n1", "shop", &[]));
    run.until("no label", |run| labels(run, "10.0.0.1", now()) == "app=web").await;
}

#[tokio::test]
async fn a_namespace_that_is_told_after_its_first_pod_had_its_labels_before() {
    let mut run = Run::start(Server::start(ALL).await, Scope::Cluster, 500);
    run.until("the watch is up to date", |run| run.snapshots() == 1 && run.told.len() > 2).await;
    let mut first = pod("a", "10.0.0.1");
    let begun = now();
    first["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    run.server.put(PODS, first);
    run.until("the pod", |run| run.who("10.0.0.1") == "a").await;
    run.server.put(NAMESPACES, namespace("n1", "shop", &[("team", "blue")]));
    run.until("the label", |run| labels(run, "10.0.0.1", now()) == "namespace:team=blue").await;
    let pod = run.timeline.identity("a", begun).expect("the pod");
    assert_eq!(pod.labels.len(), 1, "since it is there: {pod:?}");
}

#[tokio::test]
async fn on_a_node_all_namespaces_are_watched_by_their_metadata() {
    let server = Server::start(&[NODES, NAMESPACES, PODS, REPLICA_SETS]).await;
    server.put(NAMESPACES, namespace("n1", "shop", &[("team", "blue")]));
    server.put(PODS, pod("a", "10.0.0.1"));
    let mut run = Run::start(server, Scope::Node, 500);
    run.until("the pod", |run| run.snapshots() == 1 && labels(run, "10.0.0.1", now()) == "namespace:team=blue").await;
    let requests = run.server.requests();
    let of_namespaces: Vec<&String> = requests.iter().filter(|target| target.starts_with(NAMESPACES)).collect();
    assert!(!of_namespaces.is_empty(), "{requests:?}");
    assert!(of_namespaces.iter().all(|target| !target.contains("fieldSelector")), "{requests:?}");
}

#[tokio::test]
async fn without_the_permission_pods_have_their_own_labels() {
    let server = Server::start(ALL).await;
    server.put(NAMESPACES, namespace("n1", "shop", &[("team", "blue")]));
    server.put(PODS, labelled("a", "10.0.0.1", &[("app", "web")]));
    server.forbid(NAMESPACES);
    let mut run = Run::start(server, Scope::Node, 500);
    run.until("the pod", |run| run.snapshots() == 1 && labels(run, "10.0.0.1", now()) == "app=web").await;
    let is_told = |missing: &str| missing.starts_with("namespaces (not allowed") && !missing.contains(", ");
    run.until_status(|status| matches!(status, SourceStatus::Partial { missing } if is_told(missing))).await;
    let permissions = check(&config(run.folder.path().join("kubeconfig"), Scope::Node)).await.expect("an answer");
    assert_eq!(permissions.to_string(), "list, watch on namespaces");
}
