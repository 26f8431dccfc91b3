//! Several sources tell of the same pods, each what it knows and when it hears of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;
use wiretag_enrich::event::Snapshot;
use wiretag_enrich::timeline::{Lookup, Span, Timeline, UNCERTAIN};
use wiretag_enrich::{Identity, IdentityEvent, Interval, Key, Member};

const MS: i64 = 1_000_000;
const SECOND: i64 = 1000;
const POD_IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 0, 7));
/// How far Kubernetes may be off, in milliseconds as all times here.
const OFF: i64 = UNCERTAIN / MS;

fn pod_ip() -> Key {
    Key::Ip { network: "kubernetes".into(), ip: POD_IP }
}

fn port(number: u16) -> Key {
    Key::Socket { netns: 0, boot: "boot".into(), protocol: 6, ip: None, port: number }
}

fn identity(name: &str) -> Identity {
    Identity { identity: name.into(), ..Identity::default() }
}

fn learned(source: &str, identity: Identity, key: Key, from: i64) -> Interval {
    let (identity, valid_from, source) = (Arc::new(identity), from * MS, source.into());
    Interval { key, identity, valid_from, valid_to: None, learned_at: valid_from, source }
}

/// `source` says that `name` has `key` from a time on.
fn has(source: &str, name: &str, key: Key, from: i64) -> IdentityEvent {
    IdentityEvent::Learned(learned(source, identity(name), key, from))
}

fn ended(source: &str, name: &str, at: i64) -> IdentityEvent {
    IdentityEvent::Ended { identity: name.into(), at: at * MS, learned_at: at * MS, source: source.into() }
}

fn same(alias: &str, name: &str, container: Option<&str>) -> IdentityEvent {
    let member = container.map(|container| Member { container: container.into(), ..Member::default() });
    IdentityEvent::Same { alias: alias.into(), identity: name.into(), member, learned_at: 0, source: "cri".into() }
}

fn described(source: &str, identity: Identity, from: i64) -> IdentityEvent {
    let (identity, from) = (Arc::new(identity), from * MS);
    IdentityEvent::Described { identity, from, learned_at: from, source: source.into() }
}

/// The source is in touch for ever.
fn in_touch() -> IdentityEvent {
    IdentityEvent::Heard { source: "kubernetes".into(), at: i64::MAX }
}

fn timeline(events: &[IdentityEvent]) -> Timeline {
    let mut timeline = Timeline::new();
    timeline.apply(&in_touch());
    for event in events {
        timeline.apply(event);
    }
    timeline
}

/// In every order of the events, as far as each source is heard in its own.
fn in_all_orders(streams: &[&[IdentityEvent]], check: impl Fn(&Timeline)) {
    fn go(streams: &[&[IdentityEvent]], told: &mut Vec<IdentityEvent>, check: &dyn Fn(&Timeline)) {
        if streams.iter().all(|stream| stream.is_empty()) {
            check(&timeline(told));
            return;
        }
        for (number, stream) in streams.iter().enumerate() {
            let Some((first, rest)) = stream.split_first() else { continue };
            let mut left = streams.to_vec();
            left[number] = rest;
            told.push(first.clone());
            go(&left, told, check);
            told.pop();
        }
    }
    go(streams, &mut Vec::new(), &check);
}

#[expect(clippy::needless_pass_by_value, reason = "what was just found")]
fn word(found: Lookup) -> String {
    match found {
        Lookup::One(identity, _) => identity.identity.to_string(),
        Lookup::Ambiguous(_) => "ambiguous".into(),
        Lookup::None => "none".into(),
    }
}

fn who(timeline: &Timeline, from: i64, to: i64) -> String {
    word(timeline.ip("kubernetes", POD_IP, Span { from: from * MS, to: to * MS }))
}

#[test]
fn one_pod_by_two_sources_is_one_fact_and_its_times_are_the_exact_ones() {
    let cni = [has("cni", "a", pod_ip(), 10_400), ended("cni", "a", 20_600)];
    let kubernetes = [has("kubernetes", "a", pod_ip(), 12_000), ended("kubernetes", "a", 23_000)];
    in_all_orders(&[&cni, &kubernetes], |timeline| {
        for (at, name) in [(10_399, "none"), (10_400, "a"), (20_599, "a"), (20_600, "none"), (22_000, "none")] {
            assert_eq!(who(timeline, at, at), name, "at {at}");
        }
        assert_eq!(timeline.intervals().len(), 2, "what each said is kept");
    });
}

#[test]
fn an_address_that_is_given_on_after_a_tenth_of_a_second_changes_its_name_exactly_there() {
    let cni = [has("cni", "a", pod_ip(), 10_400), ended("cni", "a", 20_600), has("cni", "b", pod_ip(), 20_700)];
    let kubernetes = [
        has("kubernetes", "a", pod_ip(), 12_000),
        has("kubernetes", "b", pod_ip(), 22_000),
        ended("kubernetes", "a", 24_000),
    ];
    in_all_orders(&[&cni, &kubernetes], |timeline| {
        for (at, name) in [(20_599, "a"), (20_650, "none"), (20_700, "b"), (23_000, "b"), (90_000, "b")] {
            assert_eq!(who(timeline, at, at), name, "at {at}");
        }
        assert_eq!(who(timeline, 20_599, 20_700), "ambiguous");
    });
}

#[test]
fn what_kubernetes_hears_of_after_the_end_does_not_live_again() {
    let cni = [has("cni", "a", pod_ip(), 10_000), ended("cni", "a", 10_900)];
    let kubernetes = [has("kubernetes", "a", pod_ip(), 12_000)];
    in_all_orders(&[&cni, &kubernetes], |timeline| assert_eq!(who(timeline, 12_500, 12_500), "none"));
    // Nor if the hook told of the sandbox, and something else of whose it is.
    let cni = [has("cni", "cni:box", pod_ip(), 10_000), ended("cni", "cni:box", 10_900)];
    in_all_orders(&[&cni, &kubernetes, &[same("cni:box", "a", None)]], |timeline| {
        assert_eq!(who(timeline, 10_500, 10_500), "a");
        assert_eq!(who(timeline, 12_500, 12_500), "none");
    });
}

#[test]
fn where_only_kubernetes_tells_an_edge_is_nobodys_if_another_may_have_been_there() {
    let end = 100 * SECOND;
    for (gap, doubt) in [(100, true), (OFF - 1, true), (OFF + 1, false)] {
        let begin = end + gap;
        let kubernetes = [
            has("kubernetes", "a", pod_ip(), 0),
            ended("kubernetes", "a", end),
            has("kubernetes", "b", pod_ip(), begin),
        ];
        let timeline = timeline(&kubernetes);
        let edge = if doubt { ["ambiguous", "ambiguous"] } else { ["a", "b"] };
        assert_eq!([who(&timeline, end - 1, end - 1), who(&timeline, begin, begin)], edge, "after {gap} ms");
        assert_eq!(who(&timeline, end - 2 * OFF, end - 2 * OFF), "a");
        assert_eq!(who(&timeline, begin + 2 * OFF, begin + 2 * OFF), "b");
        assert_eq!(who(&timeline, end + gap / 2, end + gap / 2), "ambiguous", "b may be early, and a late");
    }
}

#[test]
fn near_an_end_that_only_kubernetes_tells_it_must_have_been_heard_for_longer() {
    let heard = |at: i64| IdentityEvent::Heard { source: "kubernetes".into(), at: at * MS };
    let end = 60 * SECOND;
    let mut timeline = Timeline::new();
    for event in [has("kubernetes", "a", pod_ip(), 0), ended("kubernetes", "a", end), heard(end)] {
        timeline.apply(&event);
    }
    assert_eq!(who(&timeline, end - OFF - 1, end - OFF - 1), "a");
    assert_eq!(who(&timeline, end - 500, end - 400), "ambiguous", "it may have ended, and the next one begun");
    timeline.apply(&heard(end - 400 + OFF));
    assert_eq!(who(&timeline, end - 500, end - 400), "a", "nobody was told of");
    timeline.apply(&has("kubernetes", "b", pod_ip(), end + OFF / 2));
    assert_eq!(who(&timeline, end - 500, end - 400), "ambiguous");
}

#[test]
fn what_kubernetes_left_open_is_believed_only_until_it_was_last_heard() {
    let heard = |at: i64| IdentityEvent::Heard { source: "kubernetes".into(), at: at * MS };
    let mut timeline = Timeline::new();
    for event in [has("kubernetes", "a", pod_ip(), 0), has("cni", "b", port(80), 0), heard(60 * SECOND)] {
        timeline.apply(&event);
    }
    let late = 60 * SECOND - OFF;
    assert_eq!(who(&timeline, late, late), "a");
    assert_eq!(who(&timeline, late, late + 1), "ambiguous", "it may be another's already");
    let sockets = timeline.socket((0, "boot"), 6, (POD_IP, 80), 90 * SECOND * MS);
    assert_eq!(word(sockets), "b", "the hook is never behind");
    timeline.apply(&heard(70 * SECOND));
    assert_eq!(who(&timeline, late, late + 1), "a");
    // Its end is known as soon as it is told.
    timeline.apply(&ended("kubernetes", "a", 65 * SECOND));
    assert_eq!(who(&timeline, late, late), "a");
    assert_eq!(who(&timeline, 69 * SECOND, 69 * SECOND), "none");
}

#[test]
fn a_pod_that_was_there_for_less_than_kubernetes_tells_may_have_been_the_one() {
    let timeline = timeline(&[
        has("kubernetes", "a", pod_ip(), 112_000),
        ended("kubernetes", "a", 114_000),
        has("kubernetes", "b", pod_ip(), 115_000),
        ended("kubernetes", "b", 114_000),
    ]);
    assert_eq!(who(&timeline, 113_782, 113_782), "ambiguous");
}

#[test]
fn a_pod_of_which_only_the_beginning_is_exact_may_still_have_been_the_one() {
    // Its true end is 100.3 s. That is lost, and the whole second that Kubernetes tells is before its beginning.
    let cni = [has("cni", "a", pod_ip(), 100_100)];
    let kubernetes = [
        has("kubernetes", "a", pod_ip(), 101_000),
        ended("kubernetes", "a", 100_000),
        has("kubernetes", "b", pod_ip(), 101_000),
    ];
    in_all_orders(&[&cni, &kubernetes], |timeline| {
        assert_eq!(who(timeline, 100_100, 100_100), "ambiguous");
        assert_eq!(who(timeline, 100_250, 100_250), "ambiguous");
        assert_eq!(who(timeline, 110_000, 110_000), "b");
    });
}

#[test]
fn two_identities_by_two_sources_are_ambiguous() {
    let timeline = timeline(&[has("docker", "a", pod_ip(), 0), has("cri", "b", pod_ip(), 100)]);
    assert_eq!(who(&timeline, 50, 50), "a");
    assert_eq!(who(&timeline, 150, 150), "ambiguous");
}

#[test]
fn a_containers_end_ends_its_sockets_and_not_its_pods_address() {
    let cri = [same("c1", "pod", Some("app")), ended("cri", "c1", 500), ended("cri", "pod", 900)];
    let kernel = [has("kernel", "c1", port(80), 100)];
    in_all_orders(&[&cri, &kernel, &[has("cni", "pod", pod_ip(), 50)]], |timeline| {
        let socket = |at: i64| timeline.socket((0, "boot"), 6, (POD_IP, 80), at * MS);
        let Lookup::One(owner, _) = socket(200) else { panic!("{:?}", socket(200)) };
        assert_eq!((&*owner.identity, owner.container.as_deref()), ("pod", Some("app")));
        assert_eq!(word(socket(500)), "none");
        assert_eq!(who(timeline, 800, 800), "pod");
        assert_eq!(who(timeline, 900, 900), "none");
    });
}

#[test]
fn a_pods_end_ends_what_was_told_of_its_containers() {
    let cri = [same("c1", "pod", Some("app")), ended("cri", "pod", 500)];
    in_all_orders(&[&cri, &[has("kernel", "c1", port(80), 100)]], |timeline| {
        assert_eq!(word(timeline.socket((0, "boot"), 6, (POD_IP, 80), 600 * MS)), "none");
    });
}

#[test]
fn each_source_adds_what_it_knows_and_the_better_word_counts() {
    let by_cri =
        Identity { pod: Some("web-0".into()), workload: Some("?".into()), image: Some("sha".into()), ..identity("u") };
    let by_kubernetes = Identity {
        workload: Some("web".into()),
        image: Some("web:1".into()),
        zone: Some("z1".into()),
        labels: [("app".into(), "web".into())].into(),
        ..identity("u")
    };
    let cri = [IdentityEvent::Learned(learned("cri", by_cri, pod_ip(), 100))];
    let kubernetes = [described("kubernetes", by_kubernetes, 700)];
    in_all_orders(&[&cri, &kubernetes], |timeline| {
        let Lookup::One(found, source) = timeline.ip("kubernetes", POD_IP, 200 * MS) else { panic!("nobody") };
        assert_eq!(found.pod.as_deref(), Some("web-0"));
        assert_eq!(found.workload.as_deref(), Some("web"), "although it was told later");
        assert_eq!(found.image.as_deref(), Some("sha"));
        assert_eq!(found.zone.as_deref(), Some("z1"));
        assert_eq!(found.labels.len(), 1);
        assert_eq!(source, "cri");
    });
}

#[test]
fn a_label_holds_from_when_it_was_changed() {
    let labelled = |value: &str| Identity { labels: [("version".into(), value.into())].into(), ..identity("u") };
    let timeline = timeline(&[
        has("cni", "u", pod_ip(), 0),
        described("kubernetes", labelled("1"), 100),
        described("kubernetes", labelled("2"), 500),
    ]);
    for (at, version) in [(10, "1"), (499, "1"), (500, "2")] {
        let Lookup::One(found, _) = timeline.ip("kubernetes", POD_IP, at * MS) else { panic!("nobody") };
        assert_eq!(found.labels.get("version").map(|value| &**value), Some(version), "at {at}");
    }
}

#[test]
fn after_an_outage_what_is_new_begins_late() {
    let mut timeline = timeline(&[has("kubernetes", "a", pod_ip(), 0)]);
    let present = vec![learned("kubernetes", identity("b"), pod_ip(), 60 * SECOND)];
    let (heard, at) = (Some(50 * SECOND * MS), 90 * SECOND * MS);
    let source = "kubernetes".into();
    timeline.apply(&IdentityEvent::Reconciled(Snapshot {
        source,
        present,
        stopped: Vec::new(),
        unclear: Vec::new(),
        heard,
        at,
    }));
    for (second, name) in [(40, "a"), (55, "none"), (59, "none"), (61, "b"), (64, "b")] {
        assert_eq!(who(&timeline, second * SECOND, second * SECOND), name, "at {second} s");
    }
}

#[test]
fn what_is_forgotten_leaves_no_trace_and_what_lasts_stays() {
    let mut timeline = timeline(&[
        same("c1", "old", Some("app")),
        has("cni", "old", pod_ip(), 0),
        has("kernel", "c1", port(80), 0),
        ended("cni", "old", 100),
        has("cni", "new", pod_ip(), 200),
    ]);
    timeline.expire((100 + OFF) * MS);
    assert_eq!(who(&timeline, 50, 50), "old", "it may have lasted until then");
    timeline.expire((101 + OFF) * MS);
    assert_eq!(who(&timeline, 50, 50), "none");
    assert_eq!(who(&timeline, 300, 300), "new");
    assert_eq!(timeline.intervals().len(), 1);
}

/// A pod that had the address: when in truth, how wrong the clock of its node is, and who told of it.
#[derive(Debug, Clone)]
struct Holder {
    from: i64,
    to: i64,
    by_cni: bool,
    by_kubernetes: bool,
    end_is_lost: bool,
}

prop_compose! {
    fn holders()(parts in prop::collection::vec(
        (100i64..20_000, 200i64..40_000, prop::bool::weighted(0.6), prop::bool::weighted(0.8), prop::bool::weighted(0.1)),
        1..12,
    )) -> Vec<Holder> {
        let mut now = 100_000;
        parts.into_iter().map(|(gap, life, by_cni, by_kubernetes, end_is_lost)| {
            let from = now + gap;
            now = from + life;
            Holder { from, to: now, by_cni, by_kubernetes: by_kubernetes || !by_cni, end_is_lost }
        }).collect()
    }
}

/// What the hook and Kubernetes tell, each in its order; Kubernetes in whole seconds of a clock that is `skew` off, and late
/// beginnings.
fn streams(holders: &[Holder], skew: i64) -> [Vec<IdentityEvent>; 2] {
    let (mut cni, mut kubernetes) = (Vec::new(), Vec::new());
    for (number, own) in holders.iter().enumerate() {
        let name = format!("p{number}");
        if own.by_cni {
            cni.push(has("cni", &name, pod_ip(), own.from));
            if !own.end_is_lost {
                cni.push(ended("cni", &name, own.to));
            }
        }
        if own.by_kubernetes {
            let second = |time: i64| (time + skew).div_euclid(SECOND) * SECOND;
            kubernetes.push(has("kubernetes", &name, pod_ip(), second(own.from) + SECOND));
            kubernetes.push(ended("kubernetes", &name, second(own.to)));
        }
    }
    [cni, kubernetes]
}

/// The events in an order that `order` decides, each source in its own.
fn shuffled(streams: &[Vec<IdentityEvent>; 2], order: &[bool]) -> Timeline {
    let mut queues = streams.each_ref().map(|stream| stream.iter());
    let mut timeline = Timeline::new();
    for second in order {
        if let Some(event) = queues[usize::from(*second)].next() {
            timeline.apply(event);
        }
    }
    for event in queues.into_iter().flatten() {
        timeline.apply(event);
    }
    timeline
}

proptest! {
    /// Whoever is heard first: the answers are the same, and none is a wrong name.
    #[test]
    fn no_packet_gets_a_wrong_name_and_the_order_of_sources_does_not_matter(
        holders in holders(),
        skew in -1990i64..1990,
        orders in prop::array::uniform2(prop::collection::vec(any::<bool>(), 0..50)),
        packets in prop::collection::vec((any::<prop::sample::Index>(), 0i64..40_000), 1..60),
    ) {
        let streams = streams(&holders, skew);
        let [one, other] = orders.map(|order| shuffled(&streams, &order));
        for (holder, after) in packets {
            let number = holder.index(holders.len());
            let own = &holders[number];
            let at = own.from + after % (own.to - own.from);
            let name = who(&one, at, at);
            prop_assert_eq!(&name, &who(&other, at, at));
            prop_assert!([&format!("p{number}"), "ambiguous", "none"].contains(&&*name), "{} at {}: {}", number, at, name);
            let is_told_exactly = own.by_cni && !own.end_is_lost;
            let others = holders.iter().enumerate().filter(|(other, _)| *other != number);
            let are_exact = others.into_iter().all(|(_, other)| other.by_cni && !other.end_is_lost);
            prop_assert!(!(is_told_exactly && are_exact) || name == format!("p{number}"), "what is exact is named");
        }
    }

    /// What was persisted says the same, also of what is told later.
    #[test]
    fn a_timeline_is_the_sum_of_its_dossiers(
        holders in holders(),
        skew in -1990i64..1990,
        order in prop::collection::vec(any::<bool>(), 0..50),
        restart in any::<prop::sample::Index>(),
    ) {
        let streams = streams(&holders, skew);
        let whole = shuffled(&streams, &order);
        let events: Vec<&IdentityEvent> = streams.iter().flatten().collect();
        let (before, after) = events.split_at(restart.index(events.len() + 1));
        let mut first = Timeline::new();
        for event in before {
            first.apply(event);
        }
        let mut second = Timeline::new();
        second.load(first.view().dossiers());
        for event in after {
            second.apply(event);
        }
        for own in &holders {
            for at in [own.from - 1, own.from, own.to - 1, own.to, own.to + 1500] {
                prop_assert_eq!(who(&whole, at, at), who(&second, at, at));
            }
        }
    }
}
