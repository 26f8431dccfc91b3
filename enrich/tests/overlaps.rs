//! Equal addresses in different networks: VLANs and tunnels that pass one interface, as at a mirror port, beside the networks of the host.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod rows;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rows::{BEGIN, Bridge, CLIENT, ClientVeth, SECOND, SERVER, record, tagger, transaction};
use wiretag_capture::record::{Tunnel, TunnelKind, TunnelStack};
use wiretag_capture::{FlowRecord, Source, Transaction, Wrapping};
use wiretag_enrich::event::Connection;
use wiretag_enrich::tagger::{TaggedRows, Tagger};
use wiretag_enrich::timeline::Timeline;
use wiretag_enrich::{EndTag, Identity, IdentityEvent, Interval, Key};

/// An interface that mirrors what others send, and another one.
const TAP: u32 = 30;
const OTHER_TAP: u32 = 31;

fn learn(timeline: &mut Timeline, source: &str, name: &str, key: Key) {
    let container = (source != "kernel").then(|| name.into());
    let identity = Arc::new(Identity { identity: name.into(), container, ..Identity::default() });
    let (valid_from, learned_at, source) = (0, 0, source.into());
    timeline.apply(&IdentityEvent::Learned(Interval { key, identity, valid_from, valid_to: None, learned_at, source }));
}

fn ip(network: &str, ip: IpAddr) -> Key {
    Key::Ip { network: network.into(), ip }
}

/// The client's address on a bridge of the host, in VLAN 100, in VXLAN 5, and the server's in none.
fn timeline() -> Timeline {
    let mut timeline = Timeline::new();
    learn(&mut timeline, "docker", "of-bridge", ip("net", CLIENT.0));
    learn(&mut timeline, "docker", "of-bridge", Key::Mac { network: "net".into(), mac: [2; 6] });
    for index in [Bridge as u32, ClientVeth as u32] {
        timeline.apply(&IdentityEvent::Network { index, netns: 0, network: "net".into(), at: 0 });
    }
    learn(&mut timeline, "static", "of-vlan", ip("vlan:100", CLIENT.0));
    let range = Key::Range { network: "vxlan:5".into(), ip: IpAddr::from([10, 0, 0, 0]), prefix: 8 };
    learn(&mut timeline, "static", "of-vxlan", range);
    learn(&mut timeline, "static", "of-anywhere", ip("", SERVER.0));
    timeline
}

fn vlan(id: u16) -> Wrapping {
    Wrapping { vlan: Some(id), ..Wrapping::default() }
}

fn vxlan(id: u32) -> Wrapping {
    Wrapping { tunnel: Some((TunnelKind::Vxlan, Some(id))), ..Wrapping::default() }
}

fn flow(interface_index: u32, wrapping: Wrapping) -> FlowRecord {
    let ends = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
    let around = |(kind, id)| Tunnel { stack: TunnelStack::default().with(kind), id, src: ends.0, dst: ends.1 };
    let Wrapping { vlan, vlan_inner, tunnel } = wrapping;
    FlowRecord { interface_index, vlan, vlan_inner, tunnel: tunnel.map(around), ..record(Bridge, 0, 0) }
}

fn exchange(interface_index: u32, wrapping: Wrapping) -> Transaction {
    Transaction { interface_index, wrapping, ..transaction(Bridge, 0, 0) }
}

fn tagged(mut tagger: Tagger, timeline: &Timeline, records: impl IntoIterator<Item = FlowRecord>) -> TaggedRows {
    for record in records {
        tagger.push(0, record, BEGIN);
    }
    let mut rows = TaggedRows::default();
    tagger.flush(timeline, &mut rows);
    rows
}

fn name(tag: &EndTag) -> Option<&str> {
    tag.identity.as_ref().map(|own| &*own.identity)
}

/// Names of client and server of one flow, which its exchanges have as well.
fn names(timeline: &Timeline, interface: u32, wrapping: Wrapping) -> [Option<String>; 2] {
    let mut tagger = tagger();
    tagger.push_transaction(0, exchange(interface, wrapping), BEGIN);
    let rows = tagged(tagger, timeline, [flow(interface, wrapping)]);
    let (row, exchange) = (&rows.flows[0], &rows.transactions[0]);
    assert_eq!((&row.client, &row.server), (&exchange.client, &exchange.server));
    [&row.client, &row.server].map(|tag| name(tag).map(str::to_owned))
}

#[test]
fn networks_that_pass_one_interface_have_names_of_their_own() {
    let timeline = timeline();
    let client = |interface, wrapping| names(&timeline, interface, wrapping)[0].clone();
    assert_eq!(client(TAP, vlan(100)).as_deref(), Some("of-vlan"));
    assert_eq!(client(TAP, vxlan(5)).as_deref(), Some("of-vxlan"));
    // Others' networks may number their ends as the host's bridge does.
    for other in [vlan(200), Wrapping { vlan_inner: Some(100), ..vlan(200) }, vxlan(6)] {
        assert_eq!(client(TAP, other), None, "{other:?}");
    }
    let nameless = Wrapping { tunnel: Some((TunnelKind::Ipip, None)), ..vlan(100) };
    assert_eq!(client(TAP, nameless), None);
    // What the host may have routed there is its containers'.
    assert_eq!(client(TAP, Wrapping::default()).as_deref(), Some("of-bridge"));
    assert_eq!(client(Bridge as u32, vlan(200)).as_deref(), Some("of-bridge"));
}

/// A VRF routes for itself: addresses there are not those of the host's bridges.
#[test]
fn interfaces_of_a_vrf_have_its_names_until_they_leave_it() {
    let mut timeline = timeline();
    learn(&mut timeline, "static", "of-vrf", ip("vrf:blue", CLIENT.0));
    assert_eq!(timeline.vrf_changed(TAP, None, BEGIN), None, "it is in none, as before");
    for (index, vrf) in [(TAP, "blue"), (OTHER_TAP, "red")] {
        let event = timeline.vrf_changed(index, Some(vrf), BEGIN - 20 * SECOND).expect("news");
        timeline.apply(&event);
        assert_eq!(timeline.vrf_changed(index, Some(vrf), BEGIN), None, "known");
    }
    assert!(!timeline.is_on_host("vrf:blue"));
    let client = |timeline: &Timeline, interface| names(timeline, interface, Wrapping::default())[0].clone();
    assert_eq!(client(&timeline, TAP).as_deref(), Some("of-vrf"));
    assert_eq!(names(&timeline, TAP, vxlan(6))[0], None, "what is in a tunnel is elsewhere");
    assert_eq!(client(&timeline, OTHER_TAP), None, "nobody of there is known");
    assert_eq!(client(&timeline, Bridge as u32).as_deref(), Some("of-bridge"));
    assert_eq!(names(&timeline, TAP, Wrapping::default())[1].as_deref(), Some("of-anywhere"));
    // Containers say more of their own interfaces.
    assert_eq!(timeline.vrf_changed(ClientVeth as u32, Some("blue"), BEGIN), None);
    let event = timeline.vrf_changed(TAP, None, BEGIN - 10 * SECOND).expect("news");
    timeline.apply(&event);
    assert_eq!(client(&timeline, TAP).as_deref(), Some("of-bridge"), "it is the host's again");
}

#[test]
fn an_entry_without_a_network_names_its_address_in_all_of_them() {
    let timeline = timeline();
    for wrapping in [Wrapping::default(), vlan(100), vlan(200), vxlan(6)] {
        assert_eq!(names(&timeline, TAP, wrapping)[1].as_deref(), Some("of-anywhere"), "{wrapping:?}");
    }
}

#[test]
fn a_capture_file_names_nobody_of_another_vlan() {
    let timeline = timeline();
    let client = |wrapping| {
        let row = FlowRecord { source: Source::File, ..flow(TAP, wrapping) };
        name(&tagged(tagger(), &timeline, [row]).flows[0].client).map(str::to_owned)
    };
    assert_eq!(client(vlan(100)).as_deref(), Some("of-vlan"));
    assert_eq!(client(vxlan(5)).as_deref(), Some("of-vxlan"));
    // A file may be of any other network.
    assert_eq!(client(Wrapping::default()).as_deref(), Some("of-bridge"));
}

/// Link-layer addresses that Docker makes out of IP addresses are the same on every host.
#[test]
fn the_link_layer_address_of_a_container_names_nobody_inside_a_tunnel() {
    let timeline = timeline();
    let client = |wrapping| {
        let mut row = flow(Bridge as u32, wrapping);
        row.client.mac = Some([2; 6]);
        name(&tagged(tagger(), &timeline, [row]).flows[0].client).map(str::to_owned)
    };
    assert_eq!(client(Wrapping::default()).as_deref(), Some("of-bridge"));
    assert_eq!(client(vxlan(6)), None);
}

#[test]
fn a_machine_of_which_only_the_interface_is_known_is_not_whoever_speaks_inside_its_tunnel() {
    let mut timeline = Timeline::new();
    let tap = Key::Interface { index: ClientVeth as u32, netns: 0, boot: "boot".into() };
    learn(&mut timeline, "static", "vm", tap);
    let client = |wrapping| {
        let row = FlowRecord { interface_index: ClientVeth as u32, ..flow(ClientVeth as u32, wrapping) };
        name(&tagged(tagger(), &timeline, [row]).flows[0].client).map(str::to_owned)
    };
    assert_eq!(client(Wrapping::default()).as_deref(), Some("vm"));
    assert_eq!(client(vlan(7)).as_deref(), Some("vm"), "it tags what it sends");
    assert_eq!(client(vxlan(7)), None);
}

/// A mirrored VLAN may have the host's own address too.
#[test]
fn what_listens_on_the_host_is_not_whom_a_vlan_speaks_to() {
    let mut timeline = Timeline::new();
    let socket = |protocol, ip, port| Key::Socket { netns: 0, boot: "boot".into(), protocol, ip, port };
    learn(&mut timeline, "kernel", "node", socket(0, Some(SERVER.0), 0));
    learn(&mut timeline, "kernel", "listens", socket(6, None, SERVER.1));
    let server = |tagger, wrapping| {
        let rows = tagged(tagger, &timeline, [flow(TAP, wrapping)]);
        name(&rows.flows[0].server).map(str::to_owned)
    };
    assert_eq!(server(tagger(), Wrapping::default()).as_deref(), Some("listens"));
    for wrapping in [vlan(7), vxlan(7)] {
        assert_eq!(server(tagger(), wrapping), None);
        // Both ends of one connection are nobody else's: the host has an interface in that VLAN.
        let mut tagger = tagger();
        let [own, peer] = [SERVER, CLIENT].map(|(ip, port)| SocketAddr::new(ip, port));
        tagger.learn(&IdentityEvent::Connected(Connection {
            netns: 0,
            protocol: 6,
            ip: Some(own.ip()),
            port: own.port(),
            peer: Some(peer),
            identity: "listens".into(),
            from: 0,
            to: None,
        }));
        assert_eq!(server(tagger, wrapping).as_deref(), Some("listens"));
    }
}

/// The same five numbers in two networks that are both known are two flows, on one interface or on two.
#[test]
fn flows_with_equal_ends_in_two_vlans_both_count() {
    let mut timeline = timeline();
    learn(&mut timeline, "static", "of-another", ip("vlan:200", CLIENT.0));
    for interfaces in [[TAP, TAP], [TAP, OTHER_TAP]] {
        let records = [(100, 1), (200, 2)].into_iter().zip(interfaces);
        let records = records.map(|((id, flow_id), interface)| FlowRecord { flow_id, ..flow(interface, vlan(id)) });
        let rows = tagged(tagger(), &timeline, records);
        let found: Vec<_> = rows.flows.iter().map(|row| (name(&row.client), row.record.primary)).collect();
        assert_eq!(found, [(Some("of-vlan"), true), (Some("of-another"), true)], "{interfaces:?}");
    }
}
