//! How an end gets its name: by link-layer address, by service, and as which container of a pod.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod rows;

use std::net::IpAddr;
use std::sync::Arc;

use rows::{BEGIN, Bridge, CLIENT, ClientVeth, Point, SECOND, SERVER, ServerVeth, record, tagger};
use wiretag_capture::FlowRecord;
use wiretag_enrich::event::Snapshot;
use wiretag_enrich::tagger::TaggedRows;
use wiretag_enrich::timeline::Timeline;
use wiretag_enrich::{EndTag, Identity, IdentityEvent, Interval, Key, Member};

const NET: &str = "kubernetes";
const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 10));

fn ip(ip: IpAddr) -> Key {
    Key::Ip { network: NET.into(), ip }
}

fn service(ip: IpAddr, port: u16) -> Key {
    Key::Service { network: NET.into(), protocol: 6, ip, port }
}

fn mac(last: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, last]
}

fn identity(name: &str) -> Identity {
    Identity { identity: name.into(), ..Identity::default() }
}

/// The service of this name.
fn named(name: &str) -> Identity {
    Identity { service: Some(name.into()), ..identity(&format!("service:{name}")) }
}

/// A timeline in which each has its keys since ever, and both interfaces are of one network.
fn known(facts: &[(Identity, &[Key])]) -> Timeline {
    let mut timeline = Timeline::new();
    timeline.apply(&IdentityEvent::Heard { source: "kubernetes".into(), at: i64::MAX });
    for (identity, keys) in facts {
        for key in *keys {
            let (key, identity, source) = (key.clone(), Arc::new(identity.clone()), "kubernetes".into());
            let interval = Interval { key, identity, valid_from: 0, valid_to: None, learned_at: 0, source };
            timeline.apply(&IdentityEvent::Learned(interval));
        }
    }
    for index in [ClientVeth as u32, ServerVeth as u32] {
        timeline.apply(&IdentityEvent::Network { index, netns: 0, network: NET.into(), at: 0 });
    }
    timeline
}

/// The static file says this, and no more, from so many seconds after the beginning on.
fn file_says(second: i64, present: Vec<Interval>) -> IdentityEvent {
    let at = BEGIN + second * SECOND;
    IdentityEvent::Reconciled(Snapshot {
        source: "static".into(),
        present,
        stopped: Vec::new(),
        unclear: Vec::new(),
        heard: Some(at),
        at,
    })
}

/// The names of a flow's ends, seen at the client's interface.
fn names(timeline: &Timeline, record: FlowRecord) -> (EndTag, EndTag) {
    let (mut tagger, mut rows) = (tagger(), TaggedRows::default());
    tagger.push(0, record, BEGIN + 60 * SECOND);
    tagger.flush(timeline, &mut rows);
    let row = rows.flows.pop().expect("a row");
    (row.client, row.server)
}

/// Identity, container, service, and how it was found.
fn words(tag: &EndTag) -> [String; 4] {
    let text = |field: Option<&Arc<str>>| field.map(ToString::to_string).unwrap_or_default();
    let own = tag.identity.as_deref();
    [
        text(own.map(|own| &own.identity)),
        text(own.and_then(|own| own.container.as_ref())),
        text(own.and_then(|own| own.service.as_ref())),
        tag.tagged_by.as_str().to_owned(),
    ]
}

fn server(timeline: &Timeline) -> [String; 4] {
    words(&names(timeline, record(ClientVeth, 0, 0)).1)
}

fn to_vip() -> FlowRecord {
    let mut record = record(ClientVeth, 0, 0);
    record.server.ip = VIP;
    record
}

#[test]
fn a_link_layer_address_names_its_owner_but_not_whom_it_forwards_for() {
    let server_mac = Key::Mac { network: NET.into(), mac: mac(9) };
    let mut record = record(ClientVeth, 0, 0);
    record.server.mac = Some(mac(9));
    // A machine of which no address is known.
    let timeline = known(&[(identity("vm"), std::slice::from_ref(&server_mac))]);
    assert_eq!(words(&names(&timeline, record.clone()).1), ["vm", "", "", "mac"]);
    // One that has another address routes.
    let other = ip("10.0.0.99".parse().unwrap());
    let timeline = known(&[(identity("router"), &[server_mac.clone(), other.clone()])]);
    assert_eq!(words(&names(&timeline, record.clone()).1), ["", "", "", "none"]);
    // Whom it routes for is known by address.
    let timeline = known(&[(identity("router"), &[server_mac, other]), (identity("web"), &[ip(SERVER.0)])]);
    assert_eq!(words(&names(&timeline, record).1), ["web", "", "", "ip"]);
}

fn veth(point: Point) -> Key {
    Key::Interface { index: point as u32, netns: 0, boot: "boot".into() }
}

/// A container can send with any address. Who has that one is not to blame, and not cleared: either may be who it was.
#[test]
fn an_address_that_comes_from_another_one_s_interface_is_ambiguous() {
    let own: [Key; 2] = [veth(ClientVeth), ip("10.0.0.99".parse().unwrap())];
    let client = |other: &[Key], record: FlowRecord| {
        let mut timeline = known(&[(identity("sender"), &own), (identity("holder"), other)]);
        timeline.apply(&IdentityEvent::Network { index: 50, netns: 0, network: "beside".into(), at: 0 });
        words(&names(&timeline, record).0)
    };
    let seen = || record(ClientVeth, 0, 0);
    let elsewhere = Key::Ip { network: "beside".into(), ip: CLIENT.0 };
    for address in [ip(CLIENT.0), elsewhere] {
        assert_eq!(client(&[veth(ServerVeth), address.clone()], seen()), ["", "", "", "ambiguous"], "{address:?}");
        // Of somebody on another machine the sender may be the gateway.
        assert_eq!(client(std::slice::from_ref(&address), seen()), ["holder", "", "", "ip"], "{address:?}");
    }
    // Its own address, and what it carries for others.
    let holder = [veth(ServerVeth), ip(CLIENT.0)];
    let mut honest = seen();
    honest.client.ip = "10.0.0.99".parse().unwrap();
    assert_eq!(client(&holder, honest), ["sender", "", "", "interface"]);
    // On the way it is not known who sent.
    assert_eq!(client(&holder, FlowRecord { interface_index: 30, ..record(Bridge, 0, 0) }), ["holder", "", "", "ip"]);
}

#[test]
fn an_address_that_comes_with_another_one_s_link_layer_address_is_ambiguous_unless_that_one_routes() {
    let at = |network: &str, last: u8| Key::Ip { network: network.into(), ip: [10, 0, 0, last].into() };
    let link = |network: &str, last: u8| Key::Mac { network: network.into(), mac: mac(last) };
    let server = |sender: &[Key], holder: &[Key]| {
        let mut timeline = known(&[(identity("sender"), sender), (identity("holder"), holder)]);
        timeline.apply(&IdentityEvent::Network { index: 50, netns: 0, network: "beside".into(), at: 0 });
        let mut record = record(ClientVeth, 0, 0);
        record.server.mac = Some(mac(9));
        words(&names(&timeline, record).1)
    };
    let (ambiguous, named) = (["", "", "", "ambiguous"], ["holder", "", "", "ip"]);
    let alone = [link(NET, 9), at(NET, 99)];
    let router = [link(NET, 9), at(NET, 99), link("beside", 9), at("beside", 99)];
    let (here, beside) = ([link(NET, 2), at(NET, 2)], [link("beside", 2), at("beside", 2)]);
    assert_eq!(server(&alone, &here), ambiguous);
    assert_eq!(server(&router, &here), ambiguous, "who is in the network itself needs no router");
    assert_eq!(server(&router, &beside), named);
    assert_eq!(server(&alone, &beside), ambiguous, "it is not in that network");
}

#[test]
fn a_server_is_of_the_service_that_has_its_address_and_port() {
    let web = (identity("web"), &[ip(SERVER.0)][..]);
    let timeline = known(&[web.clone(), (named("shop"), &[service(VIP, 80), service(SERVER.0, SERVER.1)])]);
    assert_eq!(server(&timeline), ["web", "", "shop", "ip"]);
    let timeline = known(&[web.clone(), (named("shop"), &[service(SERVER.0, SERVER.1 + 1)])]);
    assert_eq!(server(&timeline), ["web", "", "", "ip"], "another port");
    let two = [
        web,
        (named("shop"), &[service(SERVER.0, SERVER.1)][..]),
        (named("headless"), &[service(SERVER.0, SERVER.1)][..]),
    ];
    assert_eq!(server(&known(&two)), ["web", "", "", "ip"], "which of two is not known");
}

#[test]
fn a_virtual_address_is_its_service_and_the_backend_if_there_is_only_one() {
    let (one, other) = (SERVER.0, "10.0.0.3".parse().unwrap());
    let pods = [(identity("web-1"), &[ip(one)][..]), (identity("web-2"), &[ip(other)][..])];
    let mut facts = pods.to_vec();
    let keys = [service(VIP, 80), service(one, 8080)];
    facts.push((named("shop"), &keys));
    assert_eq!(words(&names(&known(&facts), to_vip()).1), ["web-1", "", "shop", "service"]);

    let mut facts = pods.to_vec();
    let keys = [service(VIP, 80), service(one, 8080), service(other, 8080)];
    facts.push((named("shop"), &keys));
    assert_eq!(words(&names(&known(&facts), to_vip()).1), ["service:shop", "", "shop", "service"]);

    let keys = [service(VIP, 80), service(one, 8080)];
    let facts = [(named("shop"), &keys[..])];
    assert_eq!(
        words(&names(&known(&facts), to_vip()).1),
        ["service:shop", "", "shop", "service"],
        "of whom nobody knows"
    );
}

fn member(name: &str, ports: &[u16]) -> Member {
    let ports = ports.iter().map(|port| (6, *port)).collect();
    Member { container: name.into(), image: Some(format!("{name}:1").into()), ports }
}

#[test]
fn a_container_of_a_pod_is_named_only_if_it_is_sure_which() {
    let pod = |containers: Vec<Member>| Identity { containers, ..identity("pod") };
    for (containers, name) in [
        (vec![member("app", &[])], "app"),
        (vec![member("app", &[80]), member("proxy", &[])], "app"),
        (vec![member("app", &[80]), member("proxy", &[80])], ""),
        (vec![member("app", &[]), member("proxy", &[])], ""),
    ] {
        let timeline = known(&[(pod(containers.clone()), &[ip(SERVER.0)])]);
        assert_eq!(server(&timeline), ["pod", name, "", "ip"], "{containers:?}");
    }
    // The server's port says nothing about the client.
    let timeline = known(&[(pod(vec![member("app", &[80]), member("proxy", &[])]), &[ip(CLIENT.0)])]);
    assert_eq!(words(&names(&timeline, record(ClientVeth, 0, 0)).0), ["pod", "", "", "ip"]);
}

/// A static name of these keys from a time on.
fn written(name: &str, key: Key, from: i64) -> Interval {
    let identity = Arc::new(Identity { host: Some(name.into()), ..identity(&format!("static:{name}")) });
    Interval { key, identity, valid_from: from, valid_to: None, learned_at: from, source: "static".into() }
}

fn range(network: &str, ip: &str, prefix: u8) -> Key {
    Key::Range { network: network.into(), ip: ip.parse().unwrap(), prefix }
}

fn told(timeline: &mut Timeline, intervals: impl IntoIterator<Item = Interval>) {
    for interval in intervals {
        timeline.apply(&IdentityEvent::Learned(interval));
    }
}

#[test]
fn the_longest_range_names_an_address_that_nothing_else_does() {
    let mut timeline = known(&[]);
    told(&mut timeline, [written("all", range("", "0.0.0.0", 0), 0)]);
    assert_eq!(server(&timeline), ["static:all", "", "", "static"]);
    told(&mut timeline, [written("six", range("", "::", 0), 0), written("wide", range("", "10.0.0.0", 8), 0)]);
    assert_eq!(server(&timeline), ["static:wide", "", "", "static"]);
    told(&mut timeline, [written("beside", range("", "10.0.1.0", 24), 0)]);
    assert_eq!(server(&timeline), ["static:wide", "", "", "static"], "the address is not in that one");
    told(&mut timeline, [written("narrow", range("", "10.0.0.0", 30), 0)]);
    assert_eq!(server(&timeline), ["static:narrow", "", "", "static"]);
    told(&mut timeline, [written("here", range(NET, "10.0.0.0", 16), 0)]);
    assert_eq!(server(&timeline), ["static:here", "", "", "static"], "the network of the interface comes first");
    told(&mut timeline, [written("elsewhere", range("other", "10.0.0.0", 31), 0)]);
    assert_eq!(server(&timeline), ["static:here", "", "", "static"], "of another network");
    let service_of = |timeline: &Timeline| words(&names(timeline, to_vip()).1);
    assert_eq!(service_of(&timeline), ["static:wide", "", "", "static"], "not in the network's range");
    for event in [(named("shop"), service(VIP, SERVER.1)), (identity("web"), ip(SERVER.0))] {
        let (identity, key) = (Arc::new(event.0), event.1);
        let source = "kubernetes".into();
        told(&mut timeline, [Interval { key, identity, valid_from: 0, valid_to: None, learned_at: 0, source }]);
    }
    assert_eq!(server(&timeline), ["web", "", "", "ip"], "an address of its own is more exact");
    assert_eq!(service_of(&timeline), ["service:shop", "", "shop", "service"], "a service's too");
}

#[test]
fn ipv6_addresses_are_in_ranges_too() {
    let mut timeline = known(&[]);
    told(
        &mut timeline,
        [
            written("four", range("", "0.0.0.0", 0), 0),
            written("wide", range("", "2001:db8::", 32), 0),
            written("narrow", range("", "2001:db8:0:1::", 64), 0),
        ],
    );
    let mut record = record(ClientVeth, 0, 0);
    record.server.ip = "2001:db8:0:1::7".parse().unwrap();
    assert_eq!(words(&names(&timeline, record.clone()).1), ["static:narrow", "", "", "static"]);
    record.server.ip = "2001:db8:0:2::7".parse().unwrap();
    assert_eq!(words(&names(&timeline, record.clone()).1), ["static:wide", "", "", "static"]);
    record.server.ip = "2001:db9::7".parse().unwrap();
    assert_eq!(words(&names(&timeline, record).1), ["", "", "", "none"]);
}

#[test]
fn a_change_of_the_file_holds_from_then_on() {
    let (office, lab) = (range("", "10.0.0.0", 24), range("", "10.0.0.0", 28));
    let mut timeline = known(&[]);
    told(&mut timeline, [written("office", office.clone(), 0)]);
    let at = |second: i64| BEGIN + second * SECOND;
    timeline
        .apply(&file_says(100, vec![written("office", office.clone(), at(100)), written("lab", lab.clone(), at(100))]));
    timeline.apply(&file_says(300, vec![written("annex", office, at(300))]));
    // A slice is of a minute.
    let of = |since: i64| {
        let [id, _, _, tagged_by] = words(&names(&timeline, record(ClientVeth, 0, since)).1);
        if id.is_empty() { tagged_by } else { id }
    };
    assert_eq!(of(0), "static:office", "as the file said then");
    assert_eq!(of(70), "ambiguous", "it changed meanwhile");
    assert_eq!(of(110), "static:lab");
    assert_eq!(of(270), "ambiguous", "a wider range has the rest");
    assert_eq!(of(310), "static:annex");
    let open = timeline.current(at(400), Some(SERVER.0));
    assert_eq!(open.iter().map(|own| &*own.identity.identity).collect::<Vec<_>>(), ["static:annex"]);
}

#[test]
fn an_address_that_the_file_gives_to_a_second_entry_is_ambiguous_until_one_of_them_goes() {
    let at = |second: i64| BEGIN + second * SECOND;
    for key in [ip(SERVER.0), range("", "10.0.0.0", 24)] {
        let entry = |name: &str, second: i64| written(name, key.clone(), at(second));
        let mut timeline = known(&[]);
        told(&mut timeline, [written("first", key.clone(), 0)]);
        timeline.apply(&file_says(100, vec![entry("first", 100), entry("second", 100)]));
        let mut restarted = Timeline::new();
        restarted.load(timeline.view().dossiers());
        for index in [ClientVeth as u32, ServerVeth as u32] {
            restarted.apply(&IdentityEvent::Network { index, netns: 0, network: NET.into(), at: 0 });
        }
        for (timeline, when) in [(&mut timeline, "as it was told"), (&mut restarted, "after a restart")] {
            timeline.apply(&file_says(200, vec![entry("first", 200), entry("second", 200)]));
            timeline.apply(&file_says(300, vec![entry("second", 300)]));
            timeline.apply(&file_says(400, vec![entry("first", 400), entry("second", 400)]));
            // A slice is of a minute.
            let of = |since: i64| {
                let [id, _, _, tagged_by] = words(&names(timeline, record(ClientVeth, 0, since)).1);
                if id.is_empty() { tagged_by } else { id }
            };
            let found = [0, 110, 210, 310, 410].map(of);
            assert_eq!(found, ["static:first", "ambiguous", "ambiguous", "static:second", "ambiguous"], "{when}");
            let open = timeline.current(at(500), Some(SERVER.0));
            assert_eq!(open.len(), 2, "{when}: the file says both");
        }
    }
}
