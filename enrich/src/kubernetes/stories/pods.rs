//! Pods, their nodes and owners, and what a gap hides.

use serde_json::{Value, json};

use super::super::owners::OwnerKind;
use super::super::state::Kind;
use super::{Story, pod, running, stamp, terminated};
use crate::identity::Member;

#[test]
fn a_pod_has_its_address_from_when_it_was_heard_until_it_is_deleted() {
    let mut story = Story::begin();
    let own = |version| pod("a", version, "10.0.0.5", "Running", running(9));
    story.is(Kind::Pods, own(1), 10.5).gone(Kind::Pods, own(2), 20.0);
    assert_eq!(story.who("10.0.0.5", 10.4), "none", "its node's clock was never heard: late rather than early");
    assert_eq!(story.who("10.0.0.5", 10.5), "a");
    assert_eq!(story.who("10.0.0.5", 19.9), "a");
    assert_eq!(story.who("10.0.0.5", 20.0), "none");
    let own = story.described("a");
    assert_eq!(own.cluster.as_deref(), Some("blue"));
    assert_eq!((own.host.as_deref(), own.pod.as_deref()), (Some("n1"), Some("web-0")));
    assert_eq!(own.labels.get("app").map(|own| &**own), Some("web"));
    let ports = vec![(6, 8080), (17, 53)];
    assert_eq!(own.containers, [Member { container: "app".into(), image: Some("web:1".into()), ports }]);
    assert_eq!(story.aliases(), [("c-a".to_owned(), Some("app".to_owned()))]);
}

#[test]
fn on_its_own_node_a_pod_begins_when_its_first_container_did() {
    let mut story = Story::on("n1");
    story.is(Kind::Pods, pod("a", 1, "10.0.0.5", "Running", running(9)), 12.5);
    assert_eq!(story.who("10.0.0.5", 9.9), "none", "the second of the start may be its end");
    assert_eq!(story.who("10.0.0.5", 10.0), "a");
}

#[test]
fn both_addresses_of_a_dual_stack_pod() {
    let mut story = Story::begin();
    let mut own = pod("a", 1, "10.0.0.5", "Running", running(9));
    own["status"]["podIPs"] = json!([{ "ip": "10.0.0.5" }, { "ip": "fd00::5" }]);
    story.is(Kind::Pods, own, 10.0);
    assert_eq!((story.who("10.0.0.5", 11.0), story.who("fd00::5", 11.0)), ("a".into(), "a".into()));
}

#[test]
fn a_pod_that_is_over_has_no_address_though_its_object_stays() {
    for phase in ["Succeeded", "Failed"] {
        let mut story = Story::begin();
        story.is(Kind::Pods, pod("a", 1, "10.0.0.5", "Running", running(9)), 10.5);
        story.is(Kind::Pods, pod("a", 2, "10.0.0.5", phase, terminated(9, 20)), 21.8);
        assert_eq!(story.who("10.0.0.5", 19.9), "a");
        assert_eq!(story.who("10.0.0.5", 20.0), "none", "{phase}: it ended when its container did");
        story.is(Kind::Pods, pod("a", 3, "10.0.0.5", phase, terminated(9, 20)), 30.0);
        assert_eq!(story.who("10.0.0.5", 31.0), "none");
    }
}

#[test]
fn an_end_is_never_later_than_the_news_of_it() {
    let mut story = Story::begin();
    story.is(Kind::Pods, pod("a", 1, "10.0.0.5", "Running", running(9)), 10.5);
    // A clock five seconds ahead, and an evicted pod of whose containers nothing is told.
    story.is(Kind::Pods, pod("a", 2, "10.0.0.5", "Failed", terminated(9, 25)), 20.5);
    assert_eq!((story.who("10.0.0.5", 19.0), story.who("10.0.0.5", 20.5)), ("a".into(), "none".into()));
    let mut story = Story::begin();
    story.is(Kind::Pods, pod("b", 1, "10.0.0.6", "Running", running(9)), 10.5);
    let mut evicted = pod("b", 2, "10.0.0.6", "Failed", json!({}));
    evicted["status"]["reason"] = json!("Evicted");
    evicted["status"]["containerStatuses"] = Value::Null;
    story.is(Kind::Pods, evicted, 20.5);
    assert_eq!((story.who("10.0.0.6", 20.4), story.who("10.0.0.6", 20.5)), ("b".into(), "none".into()));
}

#[test]
fn a_pod_that_is_being_deleted_still_sends() {
    let mut story = Story::begin();
    story.is(Kind::Pods, pod("a", 1, "10.0.0.5", "Running", running(9)), 10.5);
    let mut leaving = pod("a", 2, "10.0.0.5", "Running", running(9));
    leaving["metadata"]["deletionTimestamp"] = json!(stamp(50));
    story.is(Kind::Pods, leaving, 20.0);
    assert_eq!(story.who("10.0.0.5", 40.0), "a");
}

#[test]
fn the_same_name_again_is_another_identity() {
    let mut story = Story::begin();
    story.is(Kind::Pods, pod("a", 1, "10.0.0.5", "Running", running(9)), 10.0);
    story.gone(Kind::Pods, pod("a", 2, "10.0.0.5", "Running", running(9)), 20.0);
    story.is(Kind::Pods, pod("b", 3, "10.0.0.5", "Running", running(22)), 23.0);
    assert_eq!((story.who("10.0.0.5", 15.0), story.who("10.0.0.5", 24.0)), ("a".into(), "b".into()));
    assert_eq!(story.who("10.0.0.5", 21.0), "none");
}

#[test]
fn a_container_that_is_restarted_is_another_container_of_the_same_pod() {
    let mut story = Story::begin();
    story.is(Kind::Pods, pod("a", 1, "10.0.0.5", "Running", running(9)), 10.0);
    let mut again = pod("a", 2, "10.0.0.5", "Running", running(15));
    again["status"]["containerStatuses"][0]["containerID"] = json!("containerd://second");
    again["status"]["containerStatuses"][0]["restartCount"] = json!(1);
    story.is(Kind::Pods, again, 16.0);
    assert_eq!(story.during("10.0.0.5", 11.0, 20.0), "a");
    let names: Vec<String> = story.aliases().into_iter().map(|(alias, _)| alias).collect();
    assert_eq!(names, ["c-a", "second"]);
}

#[test]
fn init_containers_sidecars_and_guests_are_members_while_they_may_run() {
    let mut story = Story::begin();
    let mut own = pod("a", 1, "10.0.0.5", "Pending", json!({ "waiting": { "reason": "PodInitializing" } }));
    own["spec"]["initContainers"] = json!([
        { "name": "setup", "image": "setup:1" }, { "name": "mesh", "image": "mesh:1", "restartPolicy": "Always" },
    ]);
    own["spec"]["ephemeralContainers"] = json!([{ "name": "debug", "image": "tools:1" }]);
    own["status"]["containerStatuses"][0]["containerID"] = Value::Null;
    let names = |story: &Story| -> Vec<String> {
        story.described("a").containers.iter().map(|own| own.container.to_string()).collect()
    };
    // Nobody has told yet which of them runs.
    story.is(Kind::Pods, own.clone(), 10.0);
    assert_eq!(names(&story), ["app", "setup", "mesh", "debug"]);
    own["metadata"]["resourceVersion"] = json!("2");
    own["status"]["initContainerStatuses"] = json!([
        { "name": "setup", "containerID": "cri-o://s1", "state": running(9) },
        { "name": "mesh", "containerID": "cri-o://m1", "state": running(9) },
    ]);
    story.is(Kind::Pods, own.clone(), 11.0);
    own["metadata"]["resourceVersion"] = json!("3");
    own["status"]["initContainerStatuses"][0]["state"] = terminated(9, 11);
    own["status"]["ephemeralContainerStatuses"] =
        json!([{ "name": "debug", "containerID": "cri-o://d1", "state": running(12) }]);
    story.is(Kind::Pods, own.clone(), 12.5);
    assert_eq!(names(&story), ["app", "setup", "mesh", "debug"]);
    own["metadata"]["resourceVersion"] = json!("4");
    own["status"]["containerStatuses"][0]["state"] = running(13);
    story.is(Kind::Pods, own.clone(), 13.5);
    assert_eq!(names(&story), ["app", "mesh", "debug"]);
    own["metadata"]["resourceVersion"] = json!("5");
    own["status"]["ephemeralContainerStatuses"][0]["state"] = terminated(12, 14);
    story.is(Kind::Pods, own, 14.5);
    assert_eq!(names(&story), ["app", "mesh"]);
    let aliases: Vec<String> = story.aliases().into_iter().map(|(alias, _)| alias).collect();
    assert_eq!(aliases, ["s1", "m1", "d1"]);
}

#[test]
fn a_host_network_pod_is_described_and_has_no_address() {
    let mut story = Story::begin();
    let mut own = pod("a", 1, "192.168.0.1", "Running", running(9));
    own["spec"]["hostNetwork"] = json!(true);
    own["metadata"]["annotations"] = json!({ "kubernetes.io/config.mirror": "static-hash" });
    story.is(Kind::Pods, own, 10.0);
    assert_eq!(story.who("192.168.0.1", 11.0), "none");
    assert_eq!(story.described("a").pod.as_deref(), Some("web-0"));
    let aliases = [("static-hash".to_owned(), None), ("c-a".to_owned(), Some("app".to_owned()))];
    assert_eq!(story.aliases(), aliases, "the kubelet's id of a static pod, and its container");
}

#[test]
fn a_pod_with_a_new_sandbox_loses_its_old_address() {
    let mut story = Story::begin();
    story.is(Kind::Pods, pod("a", 1, "10.0.0.5", "Running", running(9)), 10.0);
    story.is(Kind::Pods, pod("a", 2, "10.0.0.6", "Running", running(19)), 20.0);
    assert_eq!((story.who("10.0.0.5", 19.0), story.who("10.0.0.5", 20.0)), ("a".into(), "none".into()));
    assert_eq!((story.who("10.0.0.6", 19.9), story.who("10.0.0.6", 20.0)), ("none".into(), "a".into()));
}

#[test]
fn a_job_that_was_over_before_it_was_heard_had_its_address_while_it_ran() {
    let mut story = Story::on("n1");
    story.is(Kind::Pods, pod("a", 1, "10.0.0.5", "Succeeded", terminated(10, 13)), 14.0);
    assert_eq!((story.who("10.0.0.5", 10.9), story.who("10.0.0.5", 12.0)), ("none".into(), "a".into()));
    assert_eq!(story.who("10.0.0.5", 13.0), "none");
}

#[test]
fn a_workload_is_what_owns_the_owner() {
    let owned = |kind: &str, uid: &str| json!([{ "kind": kind, "name": format!("{uid}-name"), "uid": uid, "controller": true }]);
    let mut story = Story::begin();
    let mut own = pod("a", 1, "10.0.0.5", "Running", running(9));
    own["metadata"]["ownerReferences"] = owned("ReplicaSet", "rs");
    story.is(Kind::Pods, own, 10.0);
    let workload = |story: &Story| {
        let own = story.described("a");
        (own.workload_kind.unwrap_or_default().to_string(), own.workload.unwrap_or_default().to_string())
    };
    assert_eq!(workload(&story), ("ReplicaSet".into(), "rs-name".into()), "as long as no more is known");
    let set = json!({ "metadata": { "uid": "rs", "name": "rs-name", "ownerReferences": owned("Deployment", "shop") } });
    story.is(Kind::Owners(OwnerKind::ReplicaSet), set, 11.0);
    assert_eq!(workload(&story), ("Deployment".into(), "shop-name".into()));
    for (kind, uid) in [("StatefulSet", "db"), ("DaemonSet", "agent")] {
        let mut own = pod("a", 1, "10.0.0.5", "Running", running(9));
        own["metadata"]["ownerReferences"] = owned(kind, uid);
        let mut story = Story::begin();
        story.is(Kind::Pods, own, 10.0);
        assert_eq!(workload(&story), (kind.into(), format!("{uid}-name")));
    }
}

#[test]
fn a_node_is_an_identity_and_gives_its_pods_their_zone() {
    let node = |version: u32, zone: &str| {
        json!({
            "metadata": { "name": "n1", "uid": "node-1", "resourceVersion": version.to_string(),
                "labels": { "topology.kubernetes.io/zone": zone } },
            "status": { "addresses": [
                { "type": "InternalIP", "address": "192.168.0.1" }, { "type": "Hostname", "address": "n1" },
            ]},
        })
    };
    let mut story = Story::begin();
    story.is(Kind::Nodes, node(1, "east"), 5.0);
    story.is(Kind::Pods, pod("a", 2, "10.0.0.5", "Running", running(9)), 10.0);
    assert_eq!(story.described("a").zone.as_deref(), Some("east"));
    assert_eq!(story.who("192.168.0.1", 6.0), "node:n1");
    story.is(Kind::Nodes, node(3, "west"), 20.0);
    assert_eq!(story.described("a").zone.as_deref(), Some("west"));
    story.gone(Kind::Nodes, node(4, "west"), 30.0);
    assert_eq!(story.who("192.168.0.1", 31.0), "none");
}

#[test]
fn what_a_gap_hid_ended_when_it_was_last_heard() {
    let mut story = Story::begin();
    for (uid, ip) in [("a", "10.0.0.5"), ("b", "10.0.0.6"), ("c", "10.0.0.7")] {
        story.is(Kind::Pods, pod(uid, 1, ip, "Running", running(9)), 10.0);
    }
    // Heard until 20, listed anew at 60: `a` is gone, `b` is another's, `c` lives.
    let missed = [("d", 7, "10.0.0.6", 40), ("c", 1, "10.0.0.7", 9)];
    for (uid, version, ip, since) in missed {
        story.missed(Kind::Pods, pod(uid, version, ip, "Running", running(since)), 20.0, 60.0, false);
    }
    story.listed(Kind::Pods, &["c", "d"], 20.0, 60.0);
    assert_eq!((story.who("10.0.0.5", 19.9), story.who("10.0.0.5", 20.0)), ("a".into(), "none".into()));
    assert_eq!((story.who("10.0.0.6", 19.9), story.who("10.0.0.6", 30.0)), ("b".into(), "none".into()));
    assert_eq!(story.who("10.0.0.6", 60.0), "d");
    assert_eq!(story.during("10.0.0.7", 11.0, 70.0), "c");
}

#[test]
fn a_deletion_that_is_heard_late_ends_at_the_last_certain_time() {
    let mut story = Story::begin();
    story.is(Kind::Pods, pod("a", 1, "10.0.0.5", "Running", running(9)), 10.0);
    story.missed(Kind::Pods, pod("a", 2, "10.0.0.5", "Running", running(9)), 20.0, 60.0, true);
    assert_eq!((story.who("10.0.0.5", 19.0), story.who("10.0.0.5", 21.0)), ("a".into(), "none".into()));
}

#[test]
fn after_a_restart_of_wiretag_a_pod_that_lives_is_the_same_and_one_that_left_has_ended() {
    let mut first = Story::begin();
    first.is(Kind::Pods, pod("a", 1, "10.0.0.5", "Running", running(-100)), 0.0);
    first.is(Kind::Pods, pod("b", 1, "10.0.0.6", "Running", running(-100)), 0.0);
    let mut second = Story::begin();
    second.timeline.load(first.timeline.take_changes(usize::MAX));
    second.missed(Kind::Pods, pod("a", 1, "10.0.0.5", "Running", running(-100)), 50.0, 80.0, false);
    second.listed(Kind::Pods, &["a"], 50.0, 80.0);
    assert_eq!(second.during("10.0.0.5", 1.0, 90.0), "a");
    assert_eq!((second.who("10.0.0.6", 49.0), second.who("10.0.0.6", 50.0)), ("b".into(), "none".into()));
}

#[test]
fn the_clock_of_another_node_is_trusted_when_it_has_been_heard() {
    let mut story = Story::begin();
    for second in 0..5 {
        let uid = format!("warm{second}");
        story.is(
            Kind::Pods,
            pod(&uid, 1, &format!("10.1.0.{second}"), "Running", running(second)),
            second as f64 + 0.2,
        );
    }
    story.is(Kind::Pods, pod("a", 9, "10.0.0.5", "Running", running(10)), 14.0);
    assert_eq!((story.who("10.0.0.5", 11.1), story.who("10.0.0.5", 11.3)), ("none".into(), "a".into()));
}
