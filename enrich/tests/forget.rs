//! Other names of an identity (containers of a pod) are forgotten with it, and many of them are no work.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::sync::Arc;

use wiretag_enrich::identity::Member;
use wiretag_enrich::timeline::{Dossier, Timeline};
use wiretag_enrich::{Identity, IdentityEvent};

const SECOND: i64 = 1_000_000_000;

fn described(pod: &str, at: i64) -> IdentityEvent {
    let identity = Identity { identity: pod.into(), pod: Some("web".into()), ..Identity::default() };
    let (from, learned_at) = (at * SECOND, at * SECOND);
    IdentityEvent::Described { identity: Arc::new(identity), from, learned_at, source: "kubernetes".into() }
}

/// A container of the pod, by its id.
fn container(number: i64, pod: &str, at: i64) -> IdentityEvent {
    let member = Member { container: "app".into(), image: None, ports: Vec::new() };
    IdentityEvent::Same {
        alias: format!("container-{number:05}").into(),
        identity: pod.into(),
        member: Some(member),
        learned_at: at * SECOND,
        source: "kubernetes".into(),
    }
}

fn ended(pod: &str, at: i64) -> IdentityEvent {
    let (at, learned_at) = (at * SECOND, at * SECOND);
    IdentityEvent::Ended { identity: pod.into(), at, learned_at, source: "kubernetes".into() }
}

fn timeline(events: impl IntoIterator<Item = IdentityEvent>) -> Timeline {
    let mut timeline = Timeline::new();
    events.into_iter().for_each(|event| timeline.apply(&event));
    timeline
}

fn known(timeline: &Timeline) -> usize {
    timeline.dossiers().count()
}

/// It restarts every five minutes for a month.
#[test]
fn the_containers_of_a_pod_that_restarts_again_and_again_are_looked_through_at_once() {
    const RESTARTS: i64 = 8_600;
    let pod = timeline([described("web", 0), container(0, "web", 0)]);
    let one = pod.dossier("container-00000").unwrap();
    let name = |number: i64| Dossier { id: format!("container-{number:05}").into(), ..one.clone() };
    let mut timeline = Timeline::new();
    timeline.load((1..RESTARTS).map(name).chain(pod.dossiers()));
    let began = tokio::time::Instant::now();
    timeline.expire(SECOND);
    assert!(began.elapsed().as_secs() < 5, "it took {:?}", began.elapsed());
    assert_eq!(known(&timeline), 8_601, "the pod lives");
    timeline.apply(&ended("web", 2));
    for _ in 0..2 {
        timeline.expire(3 * SECOND);
    }
    assert_eq!(known(&timeline), 0);
}

/// What is persisted is deleted by its end.
#[test]
fn the_name_of_a_container_lasts_no_longer_than_when_it_was_told() {
    let timeline = timeline([described("web", 10), container(1, "web", 20)]);
    let until = |id| timeline.dossier(id).unwrap().until();
    assert_eq!((until("web"), until("container-00001")), (i64::MAX, 20 * SECOND));
}

#[test]
fn names_whose_pod_is_not_persisted_any_more_are_forgotten_after_a_start() {
    let before = timeline([described("web", 10), container(1, "web", 20), container(2, "web", 30)]);
    let names: Vec<Dossier> = before.dossiers().filter(|own| own.alias.is_some()).collect();
    let mut after = Timeline::new();
    after.load(names);
    assert_eq!(known(&after), 3, "and the pod, of which nothing is known");
    after.expire(25 * SECOND);
    assert_eq!(known(&after), 2);
    for _ in 0..2 {
        after.expire(40 * SECOND);
    }
    assert_eq!(known(&after), 0);
}

/// A pod's containers may be told before it is.
#[test]
fn a_name_of_somebody_of_whom_nothing_is_known_yet_stays() {
    let mut timeline = timeline([container(1, "web", 20)]);
    timeline.expire(15 * SECOND);
    timeline.apply(&described("web", 21));
    assert_eq!(timeline.dossier("container-00001").unwrap().alias.unwrap().identity.as_ref(), "web");
}
