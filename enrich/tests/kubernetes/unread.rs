//! Objects that cannot be understood.

use serde_json::{Value, json};
use wiretag_enrich::SourceStatus;
use wiretag_enrich::kubernetes::Scope;

use super::server::{PODS, Server};
use super::{ALL, Run, pod};

/// A pod of which a later version of the API made something else.
fn broken(uid: &str, ip: &str) -> Value {
    let mut pod = pod(uid, ip);
    pod["spec"]["containers"] = json!({ "app": { "image": "web:2" } });
    pod
}

async fn with_a_and_b() -> Run {
    let server = Server::start(ALL).await;
    server.put(PODS, pod("a", "10.0.0.1"));
    server.put(PODS, pod("b", "10.0.0.2"));
    let mut run = Run::start(server, Scope::Cluster, 1);
    run.until("both pods", |run| run.snapshots() == 1 && run.who("10.0.0.2") == "b").await;
    run
}

/// One pod is not understood, and which.
fn is_told(status: &SourceStatus, which: &str) -> bool {
    matches!(status, SourceStatus::Partial { missing } if *missing == format!("1 of the pods (not understood: {which})"))
}

#[tokio::test]
async fn what_cannot_be_read_is_not_gone() {
    let mut run = with_a_and_b().await;
    run.server.put(PODS, broken("a", "10.0.0.1"));
    run.until_status(|status| is_told(status, "shop/pod-a")).await;
    run.server.delete(PODS, "b");
    run.server.compact();
    run.server.cut();
    let snapshots = run.snapshots();
    run.until("a new list", |run| run.snapshots() > snapshots && run.who("10.0.0.2") == "none").await;
    assert_eq!(run.who("10.0.0.1"), "a", "its object is there");
    assert!(is_told(&run.status.borrow(), "shop/pod-a"), "still: {}", run.status.borrow().clone());
    run.server.put(PODS, pod("a", "10.0.0.3"));
    run.until("its new address", |run| run.who("10.0.0.3") == "a" && run.who("10.0.0.1") == "none").await;
    run.until_status(|status| *status == SourceStatus::Connected).await;
}

#[tokio::test]
async fn what_cannot_be_read_and_is_deleted_is_gone() {
    for relist in [false, true] {
        let mut run = with_a_and_b().await;
        run.server.put(PODS, broken("a", "10.0.0.1"));
        run.until_status(|status| is_told(status, "shop/pod-a")).await;
        run.server.delete(PODS, "a");
        if relist {
            run.server.compact();
            run.server.cut();
        }
        run.until("its end", |run| run.who("10.0.0.1") == "none").await;
        run.until_status(|status| *status == SourceStatus::Connected).await;
        assert_eq!(run.who("10.0.0.2"), "b");
    }
}

#[tokio::test]
async fn one_that_never_could_be_read_is_told_and_nothing_else() {
    let mut run = with_a_and_b().await;
    let name = json!({ "metadata": { "uid": "odd", "name": ["odd"] }, "spec": "none" });
    run.server.put(PODS, name);
    run.until_status(|status| is_told(status, "without a name")).await;
    run.server.compact();
    run.server.cut();
    let snapshots = run.snapshots();
    run.until("a new list", |run| run.snapshots() > snapshots).await;
    assert_eq!((run.who("10.0.0.1"), run.who("10.0.0.2")), ("a".into(), "b".into()));
}
