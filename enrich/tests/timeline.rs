//! The timeline: nobody gets another's name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;
use wiretag_enrich::event::{Snapshot, Stopped};
use wiretag_enrich::timeline::{Lookup, Span, TOLERANCE, Timeline};
use wiretag_enrich::{Identity, IdentityEvent, Interval, Key};

const MS: i64 = 1_000_000;
const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 17, 0, 3));

fn address() -> Key {
    Key::Ip { network: "bridge".into(), ip: ADDRESS }
}

fn interface(index: u32, netns: u64) -> Key {
    Key::Interface { index, netns, boot: "boot".into() }
}

/// `name` has `key` from `from` on; times are in milliseconds everywhere.
fn interval(name: &str, key: Key, from: i64) -> Interval {
    let identity = Identity { identity: name.into(), container: Some(name.into()), ..Identity::default() };
    let (valid_from, learned_at) = (from * MS, from * MS);
    Interval { key, identity: Arc::new(identity), valid_from, valid_to: None, learned_at, source: "docker".into() }
}

fn has(name: &str, key: Key, from: i64) -> IdentityEvent {
    IdentityEvent::Learned(interval(name, key, from))
}

fn ended(name: &str, at: i64) -> IdentityEvent {
    IdentityEvent::Ended { identity: name.into(), at: at * MS, learned_at: at * MS, source: "docker".into() }
}

fn parted(name: &str, network: &str, at: i64) -> IdentityEvent {
    IdentityEvent::Parted {
        identity: name.into(),
        network: network.into(),
        at: at * MS,
        learned_at: at * MS,
        source: "docker".into(),
    }
}

fn attached(index: u32, netns: u64, network: &str, at: i64) -> IdentityEvent {
    IdentityEvent::Network { index, netns, network: network.into(), at: at * MS }
}

fn timeline(events: &[IdentityEvent]) -> Timeline {
    let mut timeline = Timeline::new();
    for event in events {
        timeline.apply(event);
    }
    timeline
}

fn span(from: i64, to: i64) -> Span {
    Span { from: from * MS, to: to * MS }
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
    word(timeline.ip("bridge", ADDRESS, span(from, to)))
}

#[test]
fn an_address_is_nobodys_before_its_beginning_and_after_its_end() {
    let timeline = timeline(&[has("one5", address(), 5000), ended("one5", 5025)]);
    assert_eq!(who(&timeline, 5003, 5010), "one5");
    // Unknown neighbours, 300 ms away, with the same address.
    assert_eq!(who(&timeline, 4703, 4710), "none");
    assert_eq!(who(&timeline, 5303, 5310), "none");
    assert_eq!(who(&timeline, 4999, 4999), "none");
    assert_eq!(who(&timeline, 5025, 5025), "none");
}

#[test]
fn a_beginning_that_is_told_after_a_later_one_is_of_the_same_claim() {
    let held = |timeline: &Timeline| {
        let of = |name| timeline.dossier(name).into_iter().flat_map(|own| own.claims);
        let of = |name| of(name).map(|claim| (claim.from / MS, claim.closed.map(|closed| closed.to / MS)));
        ["a", "b"].map(|name| of(name).collect::<Vec<_>>())
    };
    let mut one = timeline(&[has("a", address(), 200), has("a", address(), 100)]);
    assert_eq!(held(&one), [vec![(100, None)], vec![]]);
    assert_eq!([(50, 60), (120, 130), (250, 260)].map(|(from, to)| who(&one, from, to)), ["none", "a", "a"]);
    let snapshot = Snapshot {
        source: "docker".into(),
        present: vec![],
        stopped: vec![],
        unclear: vec![],
        heard: None,
        at: 400 * MS,
    };
    one.apply(&IdentityEvent::Reconciled(snapshot));
    assert_eq!(held(&one), [vec![(100, Some(200))], vec![]], "nothing of it is left open");
    let end = timeline(&[ended("a", 300), has("a", address(), 200), has("a", address(), 100)]);
    assert_eq!([(120, 130), (250, 260), (300, 310)].map(|(from, to)| who(&end, from, to)), ["a", "a", "none"]);
    assert_eq!(held(&end), [vec![(100, None)], vec![]]);
    // Another between them, or an end.
    let two = timeline(&[has("a", address(), 300), has("b", address(), 200), has("a", address(), 100)]);
    assert_eq!(held(&two), [vec![(100, None), (300, None)], vec![(200, None)]]);
    assert_eq!([(120, 130), (220, 230), (320, 330)].map(|(from, to)| who(&two, from, to)), ["a", "b", "a"]);
    let again = timeline(&[ended("a", 150), has("a", address(), 200), has("a", address(), 100)]);
    assert_eq!(held(&again), [vec![(100, None), (200, None)], vec![]]);
    assert_eq!([(120, 130), (160, 170), (220, 230)].map(|(from, to)| who(&again, from, to)), ["a", "none", "a"]);
}

/// What is persisted is deleted by its end.
#[test]
fn a_container_that_was_started_again_lasts() {
    let until = |events: &[IdentityEvent]| timeline(events).dossier("a").unwrap().until();
    assert_eq!(until(&[has("a", address(), 100), ended("a", 200)]), 200 * MS);
    assert_eq!(until(&[has("a", address(), 100), ended("a", 200), has("a", address(), 300)]), i64::MAX);
    let twice = [has("a", address(), 100), ended("a", 200), has("a", address(), 300), ended("a", 400)];
    assert_eq!(until(&twice), 400 * MS);
}

#[test]
fn late_packets_do_not_give_a_connection_to_the_heir_of_its_address() {
    let timeline = timeline(&[has("a", address(), 0), ended("a", 100), has("b", address(), 200)]);
    assert_eq!(who(&timeline, 50, 150), "a", "the server sends its FIN again");
    assert_eq!(who(&timeline, 50, 250), "ambiguous", "and again, to the heir");
    assert_eq!(who(&timeline, 150, 250), "none", "of one of whom nobody told");
}

/// A range of the file around the address, in a network or (`""`) anywhere.
fn range(network: &str, prefix: u8) -> Key {
    let first = if prefix < 16 { "172.0.0.0" } else { "172.17.0.0" };
    Key::Range { network: network.into(), ip: first.parse().unwrap(), prefix }
}

#[test]
fn a_range_that_begins_or_ends_during_a_flow_is_ambiguous_across_networks_too() {
    // In the order in which they count for an interface of `bridge`.
    let levels = [range("bridge", 24), range("bridge", 8), range("", 24), range("", 8), range("beside", 8)];
    let of = |timeline: &Timeline, from, to| {
        word(timeline.range(Some("bridge"), ADDRESS, span(from, to), |network| network == "beside"))
    };
    for (number, high) in levels.iter().enumerate() {
        for low in &levels[number + 1..] {
            let story = format!("{high:?} before {low:?}");
            let changed = timeline(&[has("low", low.clone(), 0), has("high", high.clone(), 100), ended("high", 200)]);
            for (from, to, name) in [
                (50, 90, "low"),
                (50, 150, "ambiguous"),
                (50, 250, "ambiguous"),
                (120, 180, "high"),
                (150, 250, "ambiguous"),
                (220, 250, "low"),
            ] {
                assert_eq!(of(&changed, from, to), name, "{story}: {from} to {to}");
            }
            let beneath = timeline(&[has("high", high.clone(), 0), has("low", low.clone(), 100), ended("low", 200)]);
            assert_eq!([(50, 150), (150, 250)].map(|(from, to)| of(&beneath, from, to)), ["high", "high"], "{story}");
            let alone = timeline(&[has("same", low.clone(), 0), has("same", high.clone(), 0)]);
            assert_eq!(of(&alone, 50, 150), "same", "{story}");
        }
    }
}

#[test]
fn without_a_network_ranges_of_the_host_come_before_those_of_anywhere() {
    let of = |timeline: &Timeline, from, to| {
        word(timeline.range(None, ADDRESS, span(from, to), |network| network == "bridge" || network == "other"))
    };
    let there = [has("any", range("", 24), 0), has("net", range("bridge", 8), 100), ended("net", 200)];
    let one = timeline(&there);
    let spans = [(0, 50), (50, 150), (120, 180), (150, 250), (220, 250)];
    assert_eq!(spans.map(|(from, to)| of(&one, from, to)), ["any", "ambiguous", "net", "ambiguous", "any"]);
    let two = timeline(&[&there[..], &[has("more", range("other", 24), 140)]].concat());
    assert_eq!(
        [(110, 130), (110, 150), (150, 160)].map(|(from, to)| of(&two, from, to)),
        ["net", "ambiguous", "ambiguous"]
    );
}

#[test]
fn a_file_has_ranges_of_any_network_and_what_changes_in_one_is_ambiguous() {
    let changed = timeline(&[has("any", range("", 8), 0), has("net", range("bridge", 24), 100), ended("any", 200)]);
    let of = |from, to| word(changed.range_in_any(ADDRESS, span(from, to), |_| true));
    let spans = [(0, 50), (50, 150), (120, 180), (150, 250), (220, 250)];
    assert_eq!(spans.map(|(from, to)| of(from, to)), ["any", "ambiguous", "ambiguous", "ambiguous", "net"]);
}

#[test]
fn a_name_does_not_depend_on_who_is_told_first() {
    let events = [has("a", address(), 0), ended("a", 100), has("b", address(), 200), ended("b", 300)];
    for order in [[0, 1, 2, 3], [0, 2, 1, 3], [2, 0, 1, 3], [2, 3, 0, 1], [2, 0, 3, 1]] {
        let timeline = timeline(&order.map(|index| events[index].clone()));
        for (at, name) in [(50, "a"), (150, "none"), (250, "b"), (350, "none")] {
            assert_eq!(who(&timeline, at, at), name, "{order:?} at {at}");
        }
    }
}

#[test]
fn two_at_a_time_are_ambiguous_only_as_long_as_they_are() {
    let timeline = timeline(&[has("a", address(), 0), has("b", address(), 100), ended("a", 120)]);
    assert_eq!(who(&timeline, 90, 90), "a");
    assert_eq!(who(&timeline, 110, 110), "ambiguous");
    assert_eq!(who(&timeline, 130, 130), "b");
}

#[test]
fn disconnect_frees_one_network_and_connect_takes_it_from_then_on() {
    let other = Key::Ip { network: "other".into(), ip: ADDRESS };
    let timeline = timeline(&[
        has("green", address(), 0),
        attached(7, 0, "bridge", 0),
        has("green", interface(7, 0), 0),
        has("green", other, 0),
        attached(8, 0, "other", 0),
        has("green", interface(8, 0), 0),
        parted("green", "bridge", 1000),
        has("blue", address(), 2000),
    ]);
    for (at, name) in [(999, "green"), (1500, "none"), (2000, "blue"), (9000, "blue")] {
        assert_eq!(who(&timeline, at, at), name, "{at}");
    }
    assert_eq!(word(timeline.ip("other", ADDRESS, 9000 * MS)), "green");
    assert_eq!(word(timeline.interface(7, 0, "boot", 9000 * MS)), "none");
    assert_eq!(word(timeline.interface(8, 0, "boot", 9000 * MS)), "green");
}

#[test]
fn an_interface_of_the_host_is_its_owners_before_that_is_told_and_one_inside_a_container_is_not() {
    let early = 1000 - TOLERANCE / MS / 2;
    let timeline = timeline(&[has("a", interface(7, 0), 1000), has("a", interface(2, 4_026_532_000), 1000)]);
    assert_eq!(word(timeline.interface(7, 0, "boot", early * MS)), "a");
    assert_eq!(word(timeline.interface(2, 4_026_532_000, "boot", early * MS)), "none");
}

#[test]
fn the_network_of_an_interface_outlives_its_namespace_and_the_number_is_not_confused_with_the_next() {
    let gone = |at: i64| IdentityEvent::NamespaceGone { inode: 77, at: at * MS };
    let mut timeline = timeline(&[attached(2, 77, "under", 0), gone(100), attached(2, 77, "over", 200)]);
    let network =
        |timeline: &Timeline, from, to| timeline.network_of_interface(2, 77, span(from, to)).map(|n| n.to_string());
    assert_eq!(network(&timeline, 50, 99).as_deref(), Some("under"));
    assert_eq!(network(&timeline, 150, 160), None);
    assert_eq!(network(&timeline, 250, 260).as_deref(), Some("over"));
    assert_eq!(network(&timeline, 50, 250), None);
    timeline.expire(150 * MS);
    assert_eq!(network(&timeline, 50, 99), None, "it is not kept for ever");
    assert_eq!(network(&timeline, 250, 260).as_deref(), Some("over"));
}

fn reconciled(present: Vec<Interval>, stopped: Vec<Stopped>, heard: Option<i64>, at: i64) -> IdentityEvent {
    let heard = heard.map(|heard| heard * MS);
    IdentityEvent::Reconciled(Snapshot {
        source: "docker".into(),
        present,
        stopped,
        unclear: Vec::new(),
        heard,
        at: at * MS,
    })
}

#[test]
fn what_vanished_while_nobody_listened_ended_when_somebody_last_did() {
    let lived = [has("a", address(), 0)];
    let mut told = timeline(&lived);
    told.apply(&reconciled(Vec::new(), Vec::new(), Some(500), 900));
    assert_eq!(who(&told, 499, 499), "a");
    assert_eq!(who(&told, 600, 600), "none");

    let mut told = timeline(&lived);
    let stopped = Stopped { identity: "a".into(), from: 0, to: 700 * MS };
    told.apply(&reconciled(Vec::new(), vec![stopped], Some(500), 900));
    assert_eq!(who(&told, 699, 699), "a", "Docker still knows when it stopped");

    let mut told = timeline(&lived);
    let stopped = Stopped { identity: "a".into(), from: 600 * MS, to: 700 * MS };
    told.apply(&reconciled(Vec::new(), vec![stopped], Some(500), 900));
    assert_eq!(who(&told, 550, 550), "none", "what stopped was a later run");
}

#[test]
fn what_lasts_is_neither_lost_nor_doubled_by_a_new_connection() {
    let mut told = timeline(&[has("a", address(), 0)]);
    // Docker says when the container started, which is after it was connected.
    told.take_changes(usize::MAX);
    told.apply(&reconciled(vec![interval("a", address(), 190)], Vec::new(), Some(500), 900));
    assert!(!told.has_changes());
    assert_eq!(told.intervals().len(), 1);
    assert_eq!(who(&told, 600, 700), "a");
}

#[test]
fn a_run_that_began_while_nobody_listened_is_another() {
    let mut told = timeline(&[has("a", address(), 0)]);
    told.apply(&reconciled(vec![interval("a", address(), 600)], Vec::new(), Some(500), 900));
    assert_eq!(who(&told, 550, 560), "none");
    assert_eq!(who(&told, 600, 700), "a");
}

#[test]
fn an_old_container_with_a_new_address_does_not_take_the_past_of_the_address() {
    let mut told = timeline(&[has("green", address(), 1000)]);
    // `blue` started long before; since when it has the address is not known.
    told.apply(&reconciled(vec![interval("blue", address(), 10)], Vec::new(), Some(2000), 3000));
    assert_eq!(who(&told, 1500, 1500), "green");
    assert_eq!(who(&told, 2500, 2500), "blue");
    assert_eq!(who(&told, 500, 500), "none");
}

#[test]
fn a_new_name_holds_from_when_it_was_given() {
    let mut renamed = interval("a", address(), 500);
    renamed.identity = Arc::new(Identity { container: Some("new".into()), ..(*renamed.identity).clone() });
    let timeline = timeline(&[has("a", address(), 0), IdentityEvent::Learned(renamed)]);
    let name = |at: i64| match timeline.ip("bridge", ADDRESS, at * MS) {
        Lookup::One(identity, _) => identity.container.as_deref().expect("a name").to_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!((name(499), name(500)), ("a".to_owned(), "new".to_owned()));
}

/// A holder of the address: connected, dead, its end told a while after; perhaps nobody ever told of it.
#[derive(Debug, Clone)]
struct Holding {
    from: i64,
    to: i64,
    told: bool,
}

prop_compose! {
    fn holdings()(parts in prop::collection::vec((0i64..40, 1i64..60, prop::bool::weighted(0.7)), 1..30)) -> Vec<Holding> {
        let mut now = 0;
        parts.into_iter().map(|(gap, life, told)| {
            let from = now + gap;
            now = from + life;
            Holding { from, to: now, told }
        }).collect()
    }
}

#[test]
fn an_address_that_was_forgotten_is_found_again_without_its_network() {
    let mut timeline = timeline(&[has("a", address(), 0), ended("a", 100)]);
    let anywhere = |timeline: &Timeline, at: i64| word(timeline.ip_in_any(ADDRESS, at * MS, |_| true));
    assert_eq!(anywhere(&timeline, 50), "a");
    timeline.expire(10_000 * MS);
    assert_eq!(anywhere(&timeline, 50), "none");
    timeline.apply(&has("b", address(), 20_000));
    assert_eq!(anywhere(&timeline, 20_050), "b");
}

#[test]
fn an_address_overlaps_while_two_networks_have_it_and_one_is_not_forgotten() {
    let elsewhere = Key::Ip { network: "other".into(), ip: ADDRESS };
    let nobody = Key::Ip { network: "".into(), ip: ADDRESS };
    let overlaps = |timeline: &Timeline, at: i64| timeline.overlapping(ADDRESS, at * MS);
    let mut timeline = timeline(&[has("a", address(), 0), has("n", nobody, 0)]);
    assert!(!overlaps(&timeline, 50), "what is told of no network is no other network's");
    timeline.apply(&has("b", elsewhere.clone(), 100));
    assert_eq!([50, 150].map(|at| overlaps(&timeline, at)), [false, true]);
    timeline.apply(&ended("b", 200));
    assert_eq!([150, 250].map(|at| overlaps(&timeline, at)), [true, false]);
    timeline.expire(10_000 * MS);
    assert!(!overlaps(&timeline, 150), "forgotten");
    timeline.apply(&has("c", elsewhere, 20_000));
    assert!(overlaps(&timeline, 20_050));
}

proptest! {
    /// Whatever is told, in whichever order (of one container in the right one), flows get the name of whoever began them
    /// or none.
    #[test]
    fn no_flow_gets_a_wrong_name(
        holdings in holdings(),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
        flows in prop::collection::vec((any::<prop::sample::Index>(), 0i64..60, 0i64..100), 1..40),
    ) {
        let mut queues: Vec<Vec<IdentityEvent>> = Vec::new();
        for (number, own) in holdings.iter().enumerate().filter(|(_, own)| own.told) {
            let name = format!("c{number}");
            queues.push(vec![ended(&name, own.to), has(&name, address(), own.from)]);
        }
        let mut timeline = Timeline::new();
        for pick in order {
            if !queues.is_empty() {
                let at = pick.index(queues.len());
                if let Some(event) = queues[at].pop() {
                    timeline.apply(&event);
                }
            }
        }
        for event in queues.into_iter().flat_map(|queue| queue.into_iter().rev()) {
            timeline.apply(&event);
        }
        for (holder, after, length) in flows {
            let number = holder.index(holdings.len());
            let own = &holdings[number];
            let from = own.from + after % (own.to - own.from);
            let name = who(&timeline, from, from + length);
            let next = holdings.iter().skip(number + 1).any(|next| next.told && next.from <= from + length);
            let right = match (own.told, next) {
                (true, false) => format!("c{number}"),
                (true, true) => "ambiguous".to_owned(),
                (false, _) => "none".to_owned(),
            };
            prop_assert_eq!(name, right);
        }
    }

    /// The search by reach finds what reading all intervals finds.
    #[test]
    fn a_lookup_finds_every_overlap(
        parts in prop::collection::vec((0i64..100, prop::option::of(0i64..60)), 1..40),
        from in 0i64..120,
        length in 0i64..40,
    ) {
        let mut loaded = Vec::new();
        for (number, (begin, life)) in parts.into_iter().enumerate() {
            let mut own = interval(&format!("c{number}"), address(), begin);
            own.valid_to = life.map(|life| (begin + life) * MS);
            // Each of its own source, so that none ends another's.
            own.source = format!("source{number}").into();
            loaded.push(own);
        }
        let mut timeline = Timeline::new();
        for own in &loaded {
            timeline.apply(&IdentityEvent::Learned(own.clone()));
        }
        let span = span(from, from + length);
        let overlaps = |own: &Interval, from: i64, to: i64| {
            own.valid_from <= to && own.valid_to.is_none_or(|end| end > from && end > own.valid_from)
        };
        let begun = loaded.iter().any(|own| overlaps(own, span.from, span.from));
        let right = loaded.iter().filter(|own| begun && overlaps(own, span.from, span.to)).count();
        let found = match timeline.ip("bridge", ADDRESS, span) {
            Lookup::None => 0,
            Lookup::One(..) => 1,
            Lookup::Ambiguous(all) => all.len(),
        };
        prop_assert_eq!(found, right);
    }
}
