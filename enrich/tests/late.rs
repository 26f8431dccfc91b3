//! What was learned late, and names for rows that were stored before it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use wiretag_capture::{ObservedAt, Protocol, Source, Wrapping};
use wiretag_enrich::event::Snapshot;
use wiretag_enrich::tagger::{Again, Links, StoredEnd, StoredRow};
use wiretag_enrich::timeline::late::{Late, LateRows};
use wiretag_enrich::timeline::{Timeline, UNCERTAIN};
use wiretag_enrich::{Identity, IdentityEvent, Interval, Key, TaggedBy};

const SECOND: i64 = 1_000_000_000;
/// When things are told.
const NOW: i64 = 1_780_000_000 * SECOND;

fn ip(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

fn interval(name: &str, source: &str, last: u8, (from, learned): (i64, i64)) -> Interval {
    let identity = Identity { identity: name.into(), pod: Some(name.into()), ..Identity::default() };
    Interval {
        key: Key::Ip { network: "cluster".into(), ip: ip(last) },
        identity: Arc::new(identity),
        valid_from: from,
        valid_to: None,
        learned_at: learned,
        source: source.into(),
    }
}

fn heard(timeline: &mut Timeline, at: i64) {
    timeline.apply(&IdentityEvent::Heard { source: "kubernetes".into(), at });
}

fn rows(late: Late) -> Vec<LateRows> {
    late.rows(NOW, NOW - 7 * SECOND)
}

#[test]
fn what_is_learned_as_it_happens_is_not_late() {
    let mut timeline = Timeline::new();
    timeline.apply(&IdentityEvent::Learned(interval("a", "cri", 1, (NOW - SECOND, NOW))));
    assert!(timeline.take_late(NOW).is_empty());
    timeline.apply(&IdentityEvent::Learned(interval("b", "cri", 2, (NOW - 60 * SECOND, NOW))));
    // The same again is no news.
    timeline.apply(&IdentityEvent::Learned(interval("b", "cri", 2, (NOW - 60 * SECOND, NOW))));
    let late = timeline.take_late(NOW);
    assert_eq!(rows(late), [LateRows { from: NOW - 60 * SECOND, to: NOW, ranges: vec![(ip(2), 32)] }]);
    assert!(timeline.take_late(NOW).is_empty(), "it is told once");
}

#[test]
fn an_end_changes_nothing_before_it() {
    let mut timeline = Timeline::new();
    timeline.apply(&IdentityEvent::Learned(interval("a", "cri", 1, (NOW - 9_000 * SECOND, NOW - 9_000 * SECOND))));
    assert!(timeline.take_late(NOW - 9_000 * SECOND).is_empty());
    let at = NOW - 30 * SECOND;
    timeline.apply(&IdentityEvent::Ended { identity: "a".into(), at, learned_at: NOW, source: "cri".into() });
    assert_eq!(rows(timeline.take_late(NOW)), [LateRows { from: at, to: NOW, ranges: vec![(ip(1), 32)] }]);
}

#[test]
fn a_source_that_was_away_left_all_rows_of_that_time_open() {
    let mut timeline = Timeline::new();
    heard(&mut timeline, NOW - 700 * SECOND);
    assert_eq!(rows(timeline.take_late(NOW))[0].from, NOW - 7 * SECOND, "as far as the last run knew");
    for at in (600..700).rev() {
        heard(&mut timeline, NOW - at * SECOND);
    }
    assert!(timeline.take_late(NOW).is_empty());
    // It lists everything: many pods, and what it does not name has ended.
    let present: Vec<Interval> =
        (0..200).map(|last| interval(&format!("pod-{last}"), "kubernetes", last, (NOW - 300 * SECOND, NOW))).collect();
    let heard = Some(NOW - 600 * SECOND);
    let snapshot =
        Snapshot { source: "kubernetes".into(), present, stopped: Vec::new(), unclear: Vec::new(), heard, at: NOW };
    timeline.apply(&IdentityEvent::Reconciled(snapshot));
    let since = NOW - 600 * SECOND - UNCERTAIN;
    assert_eq!(rows(timeline.take_late(NOW)), [LateRows { from: since, to: NOW, ranges: Vec::new() }]);
}

#[test]
fn after_a_restart_the_dossiers_say_what_was_learned_since() {
    let mut timeline = Timeline::new();
    let (old, learned) = (NOW - 9_000 * SECOND, NOW - 20 * SECOND);
    timeline.apply(&IdentityEvent::Learned(interval("old", "cri", 1, (old, old + 600 * SECOND))));
    timeline.apply(&IdentityEvent::Learned(interval("prompt", "cri", 2, (learned, learned + SECOND))));
    timeline.apply(&IdentityEvent::Learned(interval("late", "cri", 3, (NOW - 90 * SECOND, learned))));
    timeline.apply(&IdentityEvent::Ended {
        identity: "old".into(),
        at: NOW - 60 * SECOND,
        learned_at: learned,
        source: "cri".into(),
    });
    let mut again = Timeline::new();
    again.load(timeline.take_changes(usize::MAX));
    assert!(again.take_late(NOW).is_empty(), "what is loaded is not learned");
    let found = rows(again.view().late_since(NOW - 30 * SECOND));
    assert_eq!(found, [LateRows { from: NOW - 90 * SECOND, to: NOW, ranges: vec![(ip(1), 32), (ip(3), 32)] }]);
    assert!(again.view().late_since(NOW).is_empty());
}

fn end(last: u8, tagged_by: TaggedBy, translated: Option<SocketAddr>) -> StoredEnd {
    StoredEnd { ip: ip(last), port: Some(80), mac: None, tagged_by, translated }
}

fn row(source: Source, client: StoredEnd, server: StoredEnd) -> StoredRow<'static> {
    StoredRow {
        source,
        node: "node",
        interface: "veth1",
        observed_at: Some(ObservedAt::Client),
        protocol: Protocol::TCP,
        wrapping: Wrapping::default(),
        start: NOW - 50 * SECOND,
        end: NOW - 40 * SECOND,
        client,
        server,
    }
}

fn again(timeline: &Timeline, links: Links) -> Again {
    Again { boot: "boot".into(), node: "node".into(), links: Arc::new(links), view: Arc::new(timeline.view()) }
}

/// Names of client and server.
fn names(again: &Again, row: &StoredRow<'_>) -> [Option<String>; 2] {
    let name = |tag: Option<wiretag_enrich::EndTag>| Some(tag?.identity?.identity.to_string());
    again.names().of(row).map(name)
}

fn known() -> Timeline {
    let mut timeline = Timeline::new();
    timeline.apply(&IdentityEvent::Network { index: 0, netns: 0, network: "cluster".into(), at: 0 });
    for (name, last) in [("a", 1), ("b", 2), ("node:n1", 3)] {
        timeline.apply(&IdentityEvent::Learned(interval(name, "cri", last, (NOW - 60 * SECOND, NOW))));
    }
    timeline
}

#[test]
fn only_ends_without_a_name_are_named_and_as_of_their_time() {
    use Source::{File, Netflow, Ring};
    let again = again(&known(), Links::default());
    for source in [Ring, File, Netflow] {
        let open = row(source, end(1, TaggedBy::None, None), end(2, TaggedBy::Ambiguous, None));
        assert_eq!(names(&again, &open), [Some("a".to_owned()), Some("b".to_owned())], "{source:?}");
        let named = row(source, end(1, TaggedBy::Static, None), end(2, TaggedBy::Ip, None));
        assert_eq!(names(&again, &named), [None, None], "a name stays");
        let before = StoredRow { start: NOW - 61 * SECOND, ..open.clone() };
        assert_eq!(names(&again, &before), [None, None], "it was another's then");
    }
    let elsewhere =
        StoredRow { node: "other", ..row(Ring, end(1, TaggedBy::None, None), end(2, TaggedBy::None, None)) };
    assert_eq!(names(&again, &elsewhere), [None, None]);
    // What is seen inside of a namespace is not of the host's networks.
    let inside = StoredRow { interface: "eth0@4026532", ..StoredRow { node: "node", ..elsewhere } };
    assert_eq!(names(&again, &inside), [None, None]);
}

#[test]
fn what_sockets_may_have_left_open_is_no_nodes() {
    let again = again(&known(), Links::default());
    let unclear = row(Source::Ring, end(3, TaggedBy::Ambiguous, None), end(3, TaggedBy::None, None));
    assert_eq!(names(&again, &unclear), [None, Some("node:n1".to_owned())]);
}

#[test]
fn behind_a_translation_the_own_address_counts_if_it_is_known_which_that_is() {
    let again = again(&known(), Links::default());
    let pod = SocketAddr::new(ip(2), 8080);
    // Of a service's address seen on the client's interface the other side is the server's own.
    let seen = row(Source::Ring, end(1, TaggedBy::None, None), end(99, TaggedBy::None, Some(pod)));
    assert_eq!(names(&again, &seen), [Some("a".to_owned()), Some("b".to_owned())]);
    let on_the_way = StoredRow { observed_at: Some(ObservedAt::Path), ..seen };
    assert_eq!(names(&again, &on_the_way), [Some("a".to_owned()), None]);
}

/// It may have been ambiguous because of the interface that carried it.
#[test]
fn what_was_ambiguous_is_nobody_s_of_this_node_once_its_interface_is_not_known() {
    let mut timeline = known();
    let key = Key::Interface { index: 8, netns: 0, boot: "boot".into() };
    timeline.apply(&IdentityEvent::Learned(Interval { key, ..interval("a", "cri", 1, (NOW - 60 * SECOND, NOW)) }));
    let ends = |how| row(Source::Ring, end(1, how, None), end(2, how, None));
    let (a, b) = (Some("a".to_owned()), Some("b".to_owned()));
    let gone = again(&timeline, Links::default());
    assert_eq!(names(&gone, &ends(TaggedBy::Ambiguous)), [None, b.clone()], "the other one is of another node");
    assert_eq!(names(&gone, &ends(TaggedBy::None)), [a.clone(), b.clone()]);
    let mut links = Links::default();
    links.see(&"veth1".into(), 7);
    assert_eq!(names(&again(&timeline, links), &ends(TaggedBy::Ambiguous)), [a, b]);
}

#[test]
fn an_interface_of_which_nothing_is_known_may_be_in_a_vrf() {
    let mut timeline = known();
    let open = row(Source::Ring, end(1, TaggedBy::None, None), end(2, TaggedBy::None, None));
    let mut links = Links::default();
    links.see(&"veth1".into(), 7);
    timeline.apply(&IdentityEvent::Network { index: 8, netns: 0, network: "vrf:blue".into(), at: 0 });
    assert_eq!(names(&again(&timeline, Links::default()), &open), [None, None]);
    assert_eq!(names(&again(&timeline, links.clone()), &open), [Some("a".to_owned()), Some("b".to_owned())]);
    timeline.apply(&IdentityEvent::Network { index: 7, netns: 0, network: "vrf:blue".into(), at: 0 });
    assert_eq!(names(&again(&timeline, links.clone()), &open), [None, None], "addresses of a VRF are others");
    links.see(&"veth1".into(), 9);
    assert_eq!(names(&again(&timeline, links), &open), [None, None], "one of several");
}
