//! Single connections as stories: sockets at an address that is shared, and addresses that the host translates.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod rows;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rows::{BEGIN, Bridge, CLIENT, ClientVeth, Point, SECOND, SERVER, ServerVeth, record, tagger, transaction};
use wiretag_capture::FlowRecord;
use wiretag_capture::record::Side;
use wiretag_enrich::event::{Connection, Translation};
use wiretag_enrich::tagger::TaggedRows;
use wiretag_enrich::timeline::Timeline;
use wiretag_enrich::{EndTag, Identity, IdentityEvent, Interval, Key, Member, TaggedBy};

const TCP: u8 = 6;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn end((ip, port): (IpAddr, u16)) -> SocketAddr {
    SocketAddr::new(ip, port)
}

fn learn(timeline: &mut Timeline, key: Key, id: &str, from: i64, to: Option<i64>) {
    let source = if matches!(key, Key::Socket { .. }) { "kernel" } else { "docker" };
    learn_from(source, timeline, key, id, from, to);
}

fn learn_from(source: &str, timeline: &mut Timeline, key: Key, id: &str, from: i64, to: Option<i64>) {
    let identity = Arc::new(Identity { identity: id.into(), container: Some(id.into()), ..Identity::default() });
    timeline.apply(&IdentityEvent::Learned(Interval {
        key,
        identity,
        valid_from: from,
        valid_to: to,
        learned_at: from,
        source: source.into(),
    }));
}

fn socket(protocol: u8, ip: Option<&str>, port: u16) -> Key {
    Key::Socket { netns: 0, boot: "boot".into(), protocol, ip: ip.map(|ip| ip.parse().unwrap()), port }
}

/// Client and server with addresses on one bridge of the host, whose own address there is 10.0.0.254.
fn timeline() -> Timeline {
    let mut timeline = Timeline::new();
    for index in [ClientVeth as u32, ServerVeth as u32, Bridge as u32] {
        timeline.apply(&IdentityEvent::Network { index, netns: 0, network: "net".into(), at: 0 });
    }
    for (id, (ip, _)) in [("client", CLIENT), ("web", SERVER)] {
        learn(&mut timeline, Key::Ip { network: "net".into(), ip }, id, 0, None);
    }
    learn(&mut timeline, socket(0, Some("10.0.0.254"), 0), "node:node", 0, None);
    timeline
}

/// The slice as it is seen with other addresses.
fn between(point: Point, client: &str, server: &str) -> FlowRecord {
    let (client, server) = (at(client), at(server));
    let side = |end: SocketAddr| Side::new(end.ip(), Some(end.port()));
    FlowRecord { client: side(client), server: side(server), ..record(point, 0, 0) }
}

fn translation(from: i64, to: Option<i64>) -> IdentityEvent {
    let original = [end(CLIENT), at("10.96.0.1:443")];
    IdentityEvent::Translated(Translation {
        protocol: TCP,
        original,
        reply: [end(SERVER), at("10.0.0.254:50000")],
        from,
        to,
    })
}

fn name(tag: &EndTag) -> (Option<&str>, TaggedBy, Option<SocketAddr>) {
    (tag.identity.as_ref().map(|identity| &*identity.identity), tag.tagged_by, tag.translated)
}

fn flows(events: &[IdentityEvent], records: &[FlowRecord], timeline: &Timeline) -> TaggedRows {
    let mut tagger = tagger();
    for event in events {
        tagger.learn(event);
    }
    for record in records {
        tagger.push(0, record.clone(), BEGIN);
    }
    let mut rows = TaggedRows::default();
    tagger.flush(timeline, &mut rows);
    rows
}

fn both_sides() -> [FlowRecord; 2] {
    [
        between(ServerVeth, "10.0.0.254:50000", &end(SERVER).to_string()),
        between(ClientVeth, &end(CLIENT).to_string(), "10.96.0.1:443"),
    ]
}

#[test]
fn both_sides_of_a_translation_name_both_ends_and_count_once() {
    let rows = flows(&[translation(BEGIN + 1_000_000, None)], &both_sides(), &timeline());
    let [at_server, at_client] = rows.flows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(name(&at_client.client), (Some("client"), TaggedBy::Ip, Some(at("10.0.0.254:50000"))));
    assert_eq!(name(&at_client.server), (Some("web"), TaggedBy::Ip, Some(end(SERVER))));
    assert_eq!(name(&at_server.client), (Some("client"), TaggedBy::Ip, Some(end(CLIENT))));
    assert_eq!(name(&at_server.server), (Some("web"), TaggedBy::Ip, Some(at("10.96.0.1:443"))));
    assert_eq!((at_client.record.primary, at_server.record.primary), (true, false));
}

/// A node port of which the end is on another machine: what comes in by an interface leaves by it again, translated.
#[test]
fn a_translation_of_which_both_sides_pass_one_interface_counts_once() {
    let [at_server, at_client] = both_sides();
    let here = |flow_id, record: FlowRecord| FlowRecord { flow_id, interface_index: Bridge as u32, ..record };
    let both = [here(1, at_server), here(2, at_client)];
    let rows = flows(&[translation(BEGIN, None)], &both, &timeline());
    assert_eq!(rows.flows.iter().map(|row| row.record.primary).collect::<Vec<_>>(), [false, true]);

    let (mut tagger, timeline) = (tagger(), timeline());
    tagger.learn(&translation(BEGIN, None));
    let open = both.map(|record| FlowRecord { end_reason: None, ..record }).to_vec();
    let shown = tagger.name_open(0, open, BEGIN, &timeline);
    assert_eq!(shown.iter().map(|row| row.record.primary).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_translation_that_is_told_after_the_rows_came_counts_them_once_too() {
    let mut tagger = tagger();
    let [at_server, at_client] = both_sides();
    tagger.push(0, at_server, BEGIN);
    tagger.push_transaction(0, transaction(ClientVeth, 0, 0), BEGIN);
    tagger.push(0, at_client, BEGIN);
    tagger.learn(&translation(BEGIN, None));
    let mut rows = TaggedRows::default();
    tagger.flush(&timeline(), &mut rows);
    assert_eq!(rows.flows.iter().filter(|flow| flow.record.primary).count(), 1, "{rows:?}");
    assert!(rows.transactions[0].record.primary, "another connection");
}

/// Without a translation the address that was seen names nobody else; a row whose orientation was guessed wrong is found too.
#[test]
fn nobody_is_named_by_an_address_that_is_only_a_translation_s() {
    let rows = flows(&[], &both_sides(), &timeline());
    assert_eq!(name(&rows.flows[1].server), (None, TaggedBy::None, None));
    let turned = between(ClientVeth, "10.96.0.1:443", &end(CLIENT).to_string());
    let rows = flows(&[translation(BEGIN, None)], &[turned], &timeline());
    assert_eq!(name(&rows.flows[0].client), (Some("web"), TaggedBy::Ip, Some(end(SERVER))));
    assert_eq!(name(&rows.flows[0].server).0, Some("client"));
}

#[test]
fn the_same_addresses_in_another_connection_lead_elsewhere() {
    let other = |from: i64, to: Option<i64>| {
        let IdentityEvent::Translated(own) = translation(from, to) else { unreachable!() };
        IdentityEvent::Translated(Translation { reply: [at("10.0.0.9:443"), own.reply[1]], ..own })
    };
    let server = |events: &[IdentityEvent]| {
        flows(events, &both_sides()[1..], &timeline()).flows[0].server.translated.map(|end| end.ip().to_string())
    };
    let (web, nine) = (Some("10.0.0.2".to_owned()), Some("10.0.0.9".to_owned()));
    // The one before, whose end is told a little late.
    let before = other(BEGIN - 60 * SECOND, Some(BEGIN + 1_000));
    assert_eq!(server(&[before, translation(BEGIN + 2_000, None)]), web);
    // The one after.
    let own = translation(BEGIN, Some(BEGIN + 60 * SECOND));
    assert_eq!(server(&[own, other(BEGIN + 60 * SECOND + 500, None)]), web);
    // In the middle of a slice: it is not known which packets went where.
    assert_eq!(server(&[translation(BEGIN, Some(BEGIN + 30 * SECOND)), other(BEGIN + 31 * SECOND, None)]), None);
    // Long gone, not yet there.
    assert_eq!(server(&[other(0, Some(BEGIN - 1)), other(BEGIN + 70 * SECOND, None)]), nine.filter(|_| false));
}

fn connection(id: &str, port: u16, from: i64, to: Option<i64>) -> IdentityEvent {
    IdentityEvent::Connected(Connection {
        netns: 0,
        protocol: TCP,
        ip: Some("10.0.0.254".parse().unwrap()),
        port,
        peer: Some(end(SERVER)),
        identity: id.into(),
        from,
        to,
    })
}

#[test]
fn a_client_on_the_host_s_network_is_named_by_its_socket() {
    let own = between(ServerVeth, "10.0.0.254:50000", &end(SERVER).to_string());
    let mut timeline = timeline();
    let client = |events: &[IdentityEvent], timeline: &Timeline| {
        let rows = flows(events, std::slice::from_ref(&own), timeline);
        let (id, by, _) = name(&rows.flows[0].client);
        (id.map(str::to_owned), by)
    };
    let mine = connection("hosted", 50_000, BEGIN - 5, None);
    assert_eq!(client(std::slice::from_ref(&mine), &timeline), (Some("hosted".into()), TaggedBy::Socket));
    assert_eq!(client(&[connection("other", 50_001, 0, None)], &timeline), (None, TaggedBy::None));
    assert_eq!(client(&[connection("late", 50_000, BEGIN + 1, None)], &timeline), (None, TaggedBy::None));
    let two = [connection("first", 50_000, 0, Some(BEGIN + 5)), connection("second", 50_000, BEGIN + 9, None)];
    assert_eq!(client(&two, &timeline), (None, TaggedBy::Ambiguous));
    // What is known of the container comes with it.
    let identity = Identity { identity: "hosted".into(), container: Some("agent".into()), ..Identity::default() };
    timeline.apply(&IdentityEvent::Described {
        identity: Arc::new(identity),
        from: 0,
        learned_at: 0,
        source: "docker".into(),
    });
    let rows = flows(&[mine], std::slice::from_ref(&own), &timeline);
    assert_eq!(rows.flows[0].client.identity.as_ref().unwrap().container.as_deref(), Some("agent"));
}

/// A container can send with the host's address. What the host sends itself comes from no container.
#[test]
fn an_address_of_the_host_that_comes_from_a_container_s_interface_is_ambiguous() {
    let mut timeline = timeline();
    let veth = |point: Point| Key::Interface { index: point as u32, netns: 0, boot: "boot".into() };
    learn(&mut timeline, veth(ClientVeth), "client", 0, None);
    learn(&mut timeline, veth(ServerVeth), "web", 0, None);
    let client = |point: Point| {
        let seen = between(point, "10.0.0.254:50000", &end(SERVER).to_string());
        let rows = flows(&[connection("hosted", 50_000, BEGIN - 5, None)], &[seen], &timeline);
        let (id, by, _) = name(&rows.flows[0].client);
        (id.map(str::to_owned), by)
    };
    assert_eq!(client(ClientVeth), (None, TaggedBy::Ambiguous));
    assert_eq!(client(ServerVeth), (Some("hosted".into()), TaggedBy::Socket));
}

#[test]
fn a_server_on_the_host_s_network_is_named_by_what_listens() {
    let mut timeline = timeline();
    learn(&mut timeline, socket(TCP, None, 8080), "all", 0, None);
    learn(&mut timeline, socket(TCP, Some("0.0.0.0"), 8081), "all-v4", 0, None);
    learn(&mut timeline, socket(TCP, Some("10.0.0.254"), 8082), "one", 0, None);
    learn(&mut timeline, socket(TCP, None, 8083), "before", 0, Some(BEGIN - 1));
    learn(&mut timeline, socket(TCP, None, 8083), "after", BEGIN - 1, None);
    let server = |address: &str| {
        let rows = flows(&[], &[between(ClientVeth, &end(CLIENT).to_string(), address)], &timeline);
        let (id, by, _) = name(&rows.flows[0].server);
        (id.map(str::to_owned), by)
    };
    for (address, id) in [
        ("10.0.0.254:8080", "all"),
        ("10.0.0.254:8081", "all-v4"),
        ("10.0.0.254:8082", "one"),
        ("10.0.0.254:8083", "after"),
        ("127.0.0.1:8080", "all"),
    ] {
        assert_eq!(server(address), (Some(id.into()), TaggedBy::Socket), "{address}");
    }
    // Of an address elsewhere a socket here tells nothing.
    for address in ["10.0.0.254:8084", "192.0.2.1:8080"] {
        assert_eq!(server(address), (None, TaggedBy::None), "{address}");
    }
}

/// A row of datagrams lasts longer than some servers.
#[test]
fn servers_that_take_turns_in_a_row_are_several_candidates_whoever_was_there_first() {
    let at = |second: i64| BEGIN + second * SECOND;
    let mut timeline = timeline();
    learn(&mut timeline, socket(TCP, None, 8080), "first", at(10), Some(at(20)));
    learn(&mut timeline, socket(TCP, Some("0.0.0.0"), 8080), "second", at(25), Some(at(35)));
    learn(&mut timeline, socket(TCP, None, 8081), "only", at(10), Some(at(20)));
    learn(&mut timeline, socket(TCP, None, 8082), "before", at(-20), Some(at(-10)));
    learn(&mut timeline, socket(TCP, None, 8082), "after", at(70), None);
    for (address, by) in [
        ("10.0.0.254:8080", TaggedBy::Ambiguous),
        ("10.0.0.254:8081", TaggedBy::None),
        ("10.0.0.254:8082", TaggedBy::None),
    ] {
        let rows = flows(&[], &[between(ClientVeth, &end(CLIENT).to_string(), address)], &timeline);
        assert_eq!(name(&rows.flows[0].server), (None, by, None), "{address}");
    }
}

/// What comes and goes unseen on the host is not the next subnet's.
#[test]
fn a_range_of_the_static_file_does_not_name_an_address_of_the_host() {
    let mut timeline = timeline();
    let range = |network: &str| Key::Range { network: network.into(), ip: "10.0.0.0".parse().unwrap(), prefix: 24 };
    learn_from("static", &mut timeline, range(""), "office", 0, None);
    learn_from("static", &mut timeline, range("vlan:7"), "tenant", 0, None);
    let server = |address: &str, vlan: Option<u16>| {
        let seen = FlowRecord { vlan, ..between(Bridge, &end(CLIENT).to_string(), address) };
        name(&flows(&[], &[seen], &timeline).flows[0].server).0.map(str::to_owned)
    };
    assert_eq!(server("10.0.0.253:80", None).as_deref(), Some("office"));
    assert_eq!(server("10.0.0.254:80", None), None);
    assert_eq!(server("10.0.0.254:80", Some(7)).as_deref(), Some("tenant"), "of others");
    // Who is named there by the address itself is meant.
    let ip = "10.0.0.254".parse().unwrap();
    learn_from("static", &mut timeline, Key::Ip { network: "".into(), ip }, "machine", 0, None);
    let rows = flows(&[], &[between(Bridge, &end(CLIENT).to_string(), "10.0.0.254:80")], &timeline);
    assert_eq!(name(&rows.flows[0].server), (Some("machine"), TaggedBy::Static, None));
}

/// A published port whose server is on the host's network, and a client on it whose address is masqueraded.
#[test]
fn sockets_are_asked_for_by_their_own_addresses() {
    let mut timeline = timeline();
    learn(&mut timeline, socket(TCP, None, 8080), "hosted", 0, None);
    let told = IdentityEvent::Translated(Translation {
        protocol: TCP,
        original: [end(CLIENT), at("192.0.2.80:80")],
        reply: [at("10.0.0.254:8080"), end(CLIENT)],
        from: BEGIN,
        to: None,
    });
    let seen = between(ClientVeth, &end(CLIENT).to_string(), "192.0.2.80:80");
    let rows = flows(&[told], &[seen], &timeline);
    assert_eq!(name(&rows.flows[0].server), (Some("hosted"), TaggedBy::Socket, Some(at("10.0.0.254:8080"))));
    assert_eq!(name(&rows.flows[0].client), (Some("client"), TaggedBy::Ip, None));
}

/// A pod with two containers that declare no ports: the one whose socket listens there was spoken to.
#[test]
fn the_container_of_a_pod_is_named_by_the_socket_that_listens() {
    let mut timeline = timeline();
    let member = |name: &str| Member { container: name.into(), ..Member::default() };
    let pod = Identity {
        identity: "pod".into(),
        pod: Some("pod".into()),
        containers: vec![member("app"), member("proxy")],
        ..Identity::default()
    };
    let ip = "10.0.0.7".parse().unwrap();
    timeline.apply(&IdentityEvent::Learned(Interval {
        key: Key::Ip { network: "net".into(), ip },
        identity: Arc::new(pod),
        valid_from: 0,
        valid_to: None,
        learned_at: 0,
        source: "cri".into(),
    }));
    for (id, name, port) in [("1", "app", 8080), ("2", "proxy", 15_001)] {
        timeline.apply(&IdentityEvent::Same {
            alias: id.into(),
            identity: "pod".into(),
            member: Some(member(name)),
            learned_at: 0,
            source: "cri".into(),
        });
        let key = Key::Socket { netns: 77, boot: "boot".into(), protocol: TCP, ip: None, port };
        timeline.apply(&IdentityEvent::Learned(Interval {
            key,
            identity: Arc::new(Identity { identity: id.into(), ..Identity::default() }),
            valid_from: 0,
            valid_to: None,
            learned_at: 0,
            source: "kernel".into(),
        }));
    }
    for (port, container) in [(8080, Some("app")), (15_001, Some("proxy")), (9090, None)] {
        let seen = between(ClientVeth, &end(CLIENT).to_string(), &format!("10.0.0.7:{port}"));
        let rows = flows(&[], &[seen], &timeline);
        let server = &rows.flows[0].server;
        let identity = server.identity.as_ref().unwrap();
        assert_eq!((&*identity.identity, server.tagged_by), ("pod", TaggedBy::Ip), "{port}");
        assert_eq!(identity.container.as_deref(), container, "{port}");
    }
}

/// A place in the network namespace 7.
fn resident(place: u16) -> Key {
    Key::Socket { netns: 7, boot: "boot".into(), protocol: 0, ip: None, port: place }
}

/// In the network namespace 7, which two containers share; the interface and the address are the first one's.
fn guests() -> Timeline {
    let mut timeline = timeline();
    learn(&mut timeline, resident(0), "client", 0, None);
    learn(&mut timeline, resident(1), "guest", BEGIN, None);
    timeline
}

fn connected(identity: &str, own: SocketAddr, peer: Option<SocketAddr>) -> IdentityEvent {
    let (ip, port, identity) = (Some(own.ip()), own.port(), identity.into());
    IdentityEvent::Connected(Connection { netns: 7, protocol: TCP, ip, port, peer, identity, from: BEGIN, to: None })
}

/// A container that borrows another's network is not called by the other one's name, and the other not by its name.
#[test]
fn of_containers_that_share_a_namespace_the_socket_says_which() {
    let client = |events: &[IdentityEvent], timeline: &Timeline, start: i64| {
        let rows = flows(events, &[record(ClientVeth, 0, start)], timeline);
        let tag = &rows.flows[0].client;
        (tag.identity.as_ref().map(|identity| identity.identity.to_string()), tag.tagged_by)
    };
    let is = |id: &str, how| (Some(id.to_owned()), how);
    let (own, peer) = (end(CLIENT), end(SERVER));
    let timeline = guests();
    for id in ["client", "guest"] {
        assert_eq!(client(&[connected(id, own, Some(peer))], &timeline, 0), is(id, TaggedBy::Socket));
        assert_eq!(client(&[connected(id, own, None)], &timeline, 0), is(id, TaggedBy::Socket));
    }
    assert_eq!(client(&[], &timeline, 0), (None, TaggedBy::Ambiguous));
    let other = connected("guest", own, Some(at("192.0.2.9:80")));
    assert_eq!(client(&[other], &timeline, 0), (None, TaggedBy::Ambiguous));
    // Before the guest came, the namespace was the first one's alone.
    assert_eq!(client(&[], &timeline, -120), is("client", TaggedBy::Ip));
    // Another container of the network has no guests.
    assert_eq!(name(&flows(&[], &[record(ClientVeth, 0, 0)], &timeline).flows[0].server).0, Some("web"));
}

#[test]
fn a_guest_s_server_is_named_by_the_port_that_it_listens_on() {
    let mut timeline = timeline();
    learn(&mut timeline, resident(0), "web", 0, None);
    learn(&mut timeline, resident(1), "guest", 0, None);
    let server = |timeline: &Timeline| {
        name(&flows(&[], &[record(ServerVeth, 0, 0)], timeline).flows[0].server).0.map(str::to_owned)
    };
    assert_eq!(server(&timeline), None);
    let listening = Key::Socket { netns: 7, boot: "boot".into(), protocol: TCP, ip: None, port: SERVER.1 };
    learn(&mut timeline, listening, "guest", 0, None);
    assert_eq!(server(&timeline).as_deref(), Some("guest"));
}

/// Of a pod with several containers the client is known, too, if its connection is.
#[test]
fn a_client_in_a_pod_of_several_containers_is_named_by_its_connection() {
    let mut timeline = Timeline::new();
    timeline.apply(&IdentityEvent::Network { index: ClientVeth as u32, netns: 0, network: "net".into(), at: 0 });
    let member = |name: &str| Member { container: name.into(), image: None, ports: [].into() };
    let pod = Arc::new(Identity {
        identity: "uid".into(),
        pod: Some("pod".into()),
        containers: vec![member("app"), member("proxy")],
        ..Identity::default()
    });
    timeline.apply(&IdentityEvent::Learned(Interval {
        key: Key::Ip { network: "net".into(), ip: CLIENT.0 },
        identity: pod,
        valid_from: 0,
        valid_to: None,
        learned_at: 0,
        source: "cri".into(),
    }));
    let same = IdentityEvent::Same {
        alias: "4f5c".into(),
        identity: "uid".into(),
        member: Some(member("proxy")),
        learned_at: 0,
        source: "cri".into(),
    };
    timeline.apply(&same);
    let named = |id: &str| {
        let rows = flows(&[connected(id, end(CLIENT), Some(end(SERVER)))], &[record(ClientVeth, 0, 0)], &timeline);
        let client = rows.flows[0].client.identity.clone().unwrap();
        (client.pod.as_deref() == Some("pod"), client.container.as_deref().map(str::to_owned))
    };
    assert_eq!(named("4f5c"), (true, Some("proxy".into())));
    // Nobody knows whose that is: the pod is sure all the same.
    assert_eq!(named("other"), (true, None));
}
