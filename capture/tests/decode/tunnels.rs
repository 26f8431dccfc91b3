//! One story a tunnel, in both IP versions, and then inside one another.

use std::net::IpAddr;
use std::num::NonZeroUsize;

use wiretag_capture::engines::{Engines, Keep};
use wiretag_capture::flow::FlowConfig;
use wiretag_capture::{FlowRecord, LinkType, Packet};

use crate::wire::*;
use crate::wlan::sent;
use crate::wrapped::nsh;

const ENDS: ([u8; 4], [u8; 4]) = (LEFT, RIGHT);

/// Protocol number, and the payload that carries the frame or packet; what the tunnel's columns say.
type Case = (u8, Vec<u8>, &'static str, Option<u32>);

fn vxlan(vni: u8, inner: &[u8]) -> Vec<u8> {
    udp(50_000, 4789, &joined(&[&[8, 0, 0, 0, 0, 0, vni, 0], inner]))
}

fn gre(flags: u16, kind: u16, fields: &[u8], inner: &[u8]) -> Vec<u8> {
    joined(&[&flags.to_be_bytes(), &kind.to_be_bytes(), fields, inner])
}

fn in_udp() -> Vec<Case> {
    let (packet, inner) = (hello(), frame(&hello()));
    let gpe = |next: u8, inner: &[u8]| udp(50_000, 4790, &joined(&[&[0x0c, 0, 0, next, 0, 0, 5, 0], inner]));
    let geneve = |first: u8, kind: [u8; 2], options: &[u8], inner: &[u8]| {
        udp(50_000, 6081, &joined(&[&[first, 0, kind[0], kind[1], 0, 0, 5, 0], options, inner]))
    };
    let gtp = |flags: u8, rest: &[u8]| udp(2152, 2152, &joined(&[&[flags, 0xff, 0, 38, 0, 0, 0, 5], rest, &packet]));
    vec![
        (17, vxlan(5, &inner), "vxlan", Some(5)),
        (17, udp(50_000, 8472, &joined(&[&[8, 0, 0, 0, 0, 0, 5, 0], &inner])), "vxlan", Some(5)),
        (17, gpe(1, &packet), "vxlan-gpe", Some(5)),
        (17, gpe(3, &inner), "vxlan-gpe", Some(5)),
        (17, gpe(4, &nsh(1, &[1; 16], &packet)), "vxlan-gpe", Some(5)),
        (17, udp(50_000, 6635, &joined(&[&[0, 1, 0, 64, 0, 0, 0x51, 64], &packet])), "mpls-udp", Some(5)),
        (17, udp(50_000, 6635, &joined(&[&[0, 0, 0x51, 64, 0, 0, 0, 0], &inner])), "mpls-udp", Some(5)),
        (17, geneve(0, [0x65, 0x58], &[], &inner), "geneve", Some(5)),
        (17, geneve(2, [0x65, 0x58], &[1, 2, 3, 1, 0, 0, 0, 9], &inner), "geneve", Some(5)),
        (17, geneve(0, [0x08, 0x00], &[], &packet), "geneve", Some(5)),
        (17, gtp(0x30, &[]), "gtpu", Some(5)),
        (17, gtp(0x32, &[0, 1, 0, 0]), "gtpu", Some(5)),
        (17, gtp(0x34, &[0, 0, 0, 0x85, 1, 0, 0, 0x40, 2, 0, 0, 0, 0, 0, 0, 0]), "gtpu", Some(5)),
    ]
}

fn in_gre() -> Vec<Case> {
    let (packet, inner) = (hello(), frame(&hello()));
    let session = [0x10, 5, 0, 100, 0, 0, 0, 0];
    let third =
        |flags: u8, more: &[u8]| joined(&[&[0, 0, 0, 1], &[0x20, 5, 0, 100, 0, 0, 0, 0, 0, 0, 0, flags], more, &inner]);
    vec![
        (47, gre(0, 0x0800, &[], &packet), "gre", None),
        (47, gre(0xb000, 0x0800, &[0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1], &packet), "gre", Some(5)),
        (47, gre(0x2000, 0x6558, &[0, 0, 0, 5], &inner), "gre", Some(5)),
        (47, gre(0x2000, 0x6558, &[0, 0x13, 0x89, 7], &inner), "nvgre", Some(5001)),
        (47, gre(0x2000, 0x6558, &[2, 0, 0, 0], &inner), "gre", Some(0x0200_0000)),
        (47, gre(0, 0x880b, &[], &joined(&[&[0xff, 3, 0, 0x21], &packet])), "gre", None),
        (47, gre(0x3001, 0x880b, &[0, 40, 0, 5, 0, 0, 0, 1], &joined(&[&[0xff, 3, 0, 0x21], &packet])), "gre", Some(5)),
        (47, gre(0, 0x8847, &[], &joined(&[&[0, 1, 1, 64], &packet])), "gre", None),
        (47, gre(0, 0x88be, &[], &inner), "erspan", None),
        (47, gre(0x1000, 0x88be, &[0, 0, 0, 1], &joined(&[&session, &inner])), "erspan", Some(100)),
        (47, gre(0x1000, 0x22eb, &third(0, &[]), &[]), "erspan", Some(100)),
        (47, gre(0x1000, 0x22eb, &third(1, &[9; 8]), &[]), "erspan", Some(100)),
    ]
}

/// Those that are rarely seen.
pub(crate) fn others() -> Vec<Case> {
    let (packet, inner) = (hello(), frame(&hello()));
    let l2tp = |header: &[u8], ppp: &[u8]| udp(1701, 1701, &joined(&[header, ppp, &packet]));
    let wccp = |header: &[u8]| gre(0, 0x883e, &[], &joined(&[header, &packet]));
    vec![
        (17, l2tp(&[0, 2, 0, 9, 0, 5], &[0xff, 3, 0, 0x21]), "l2tp", Some(5)),
        (17, l2tp(&[0x40, 2, 0, 47, 0, 9, 0, 5], &[0x21]), "l2tp", Some(5)),
        (17, l2tp(&[0x4a, 2, 0, 56, 0, 9, 0, 5, 0, 1, 0, 2, 0, 2, 9, 9], &[0, 0x21]), "l2tp", Some(5)),
        (17, ayiya(0x11, 4, &packet), "ayiya", None),
        (47, gre(0x4000, 0x0800, &[0, 0, 0, 0, 8, 0, 0, 4, 1, 2, 3, 4, 0, 0, 0, 0], &packet), "gre", None),
        (47, wccp(&[1, 2, 3, 4]), "gre", None),
        (47, wccp(&[]), "gre", None),
        (47, gre(0, 0x8200, &[], &sent()), "gre", None),
        (47, gre(0x2001, 0x6400, &[0, 52, 5, 0], &inner), "gre", Some(5)),
        (97, joined(&[&[0x30, 0], &inner]), "etherip", None),
        (137, joined(&[&[0, 0, 0x51, 64], &packet]), "mpls-ip", Some(5)),
        (143, inner.clone(), "srv6", None),
        (103, joined(&[&[0x21, 0, 0, 0, 0, 0, 0, 0], &packet]), "pim", None),
        (47, gre(0, 0x6559, &[0x18, 0x41, 3, 0xcc], &packet), "gre", None),
        (17, udp(2152, 2152, &joined(&[&[0x30, 0xff, 0, 52, 0, 0, 0, 5], &inner])), "gtpu", Some(5)),
        (17, capwap(&[0x10, 2, 0, 0, 0, 0, 0], &inner), "capwap", None),
        (17, capwap(&[0x10, 3, 0, 0, 0, 0, 0], &swapped()), "capwap", None),
        (17, capwap(&[0x20, 3, 0x30, 0, 0, 0, 0, 4, 1, 2, 3, 4, 0, 0, 0], &swapped()), "capwap", None),
        (17, udp(50_000, 4341, &joined(&[&[0x80, 0, 0, 1, 0, 0, 0, 1], &packet])), "lisp", None),
        (17, udp(50_000, 4341, &joined(&[&[0x88, 0, 0, 1, 0, 0, 5, 1], &packet])), "lisp", Some(5)),
        (17, udp(50_000, 37_008, &joined(&[&[1, 0, 0, 1, 1], &inner])), "tzsp", None),
        (17, udp(50_000, 37_008, &joined(&[&[1, 1, 0, 18, 0, 10, 1, 5, 1], &sent()])), "tzsp", None),
    ]
}

/// To a controller: the preamble, the rest of the header, and a frame.
fn capwap(header: &[u8], inner: &[u8]) -> Vec<u8> {
    udp(50_000, 5247, &joined(&[&[0], header, inner]))
}

/// A frame of 802.11 as Cisco's controllers give it.
fn swapped() -> Vec<u8> {
    let mut frame = sent();
    frame.swap(0, 1);
    frame
}

/// Identity of 16 bytes, signature of 20.
fn ayiya(operation: u8, next: u8, inner: &[u8]) -> Vec<u8> {
    let header = [0x44, 0x52, operation, next, 0, 0, 0, 1];
    udp(50_000, 5072, &joined(&[&header, &[1; 16], &[2; 20], inner]))
}

fn check(record: &FlowRecord, stack: &str, id: Option<u32>, context: &str) {
    is_hello(record);
    let tunnel = record.tunnel.as_ref().map(|tunnel| (tunnel.stack.to_string(), tunnel.id));
    assert_eq!(tunnel, Some((stack.to_string(), id)), "{context}");
}

#[test]
fn every_tunnel_in_both_versions() {
    for version in [4, 6] {
        for (number, (protocol, payload, stack, id)) in in_udp().into_iter().chain(in_gre()).chain(others()).enumerate()
        {
            let context = format!("case {number}, {stack} in IPv{version}");
            let outer = ip(version, protocol, ENDS, &payload);
            let mut wire = Wire::new();
            wire.frame(&frame(&outer));
            let (records, carriers, counters) = wire.end();
            assert_eq!((records.len(), carriers.len(), counters.carriers), (1, 1, 1), "{context}");
            check(&records[0], stack, id, &context);
            // The outer packet has a row of its own, with all its bytes.
            assert_eq!(carriers[0].client.bytes, outer.len() as u64, "{context}");
            assert_eq!(carriers[0].protocol.0, protocol, "{context}");
        }
    }
}

#[test]
fn ip_in_ip_has_the_names_of_linux() {
    let six = ipv6(17, (ALICE, BOB), &udp(40_000, 9, b"0123456789"));
    let cases = [
        (ipv4(4, ENDS, &hello()), "ipip", 38),
        (ipv4(41, ENDS, &six), "sit", 58),
        (ipv6(4, ENDS, &hello()), "ipip6", 38),
        (ipv6(41, ENDS, &six), "ip6ip6", 58),
    ];
    for (packet, stack, bytes) in cases {
        let record = only(LinkType::ETHERNET, &frame(&packet));
        assert_eq!(record.tunnel.as_ref().unwrap().stack.to_string(), stack);
        assert_eq!(record.client.bytes, bytes);
        // It is still in the same frame.
        assert_eq!(record.client.mac, Some([3; 6]));
    }
}

#[test]
fn teredo_on_any_port() {
    let mut inner = ipv6(17, (ALICE, BOB), &udp(40_000, 9, b"0123456789"));
    inner[8..12].copy_from_slice(&[0x20, 1, 0, 0]);
    let authentication = [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let origin = [0, 0, 1, 2, 3, 4, 5, 6];
    for indication in [&[][..], &origin, &authentication, &joined(&[&authentication, &origin])] {
        let packet = ipv4(17, ENDS, &udp(3797, 50_001, &joined(&[indication, &inner])));
        let record = only(LinkType::ETHERNET, &frame(&packet));
        assert_eq!(record.tunnel.as_ref().unwrap().stack.to_string(), "teredo");
        assert_eq!(record.client.port, Some(40_000));
    }
    // Other addresses: it is a datagram that looks like it.
    inner[8] = 0x26;
    assert!(only(LinkType::ETHERNET, &frame(&ipv4(17, ENDS, &udp(3797, 50_001, &inner)))).tunnel.is_none());
}

#[test]
fn what_a_tunnels_port_answers_is_opened() {
    let l2tp = |src, dst, ppp: &[u8]| udp(src, dst, &joined(&[&[0, 2, 0, 9, 0, 5, 0xff, 3, 0, 0x21], ppp]));
    let mut wire = Wire::new();
    wire.frame(&frame(&ipv4(17, (LEFT, RIGHT), &l2tp(50_000, 1701, &hello()))));
    wire.frame(&frame(&ipv4(17, (RIGHT, LEFT), &l2tp(1701, 50_000, &reply()))));
    let record = wire.only();
    assert_eq!((record.client.packets, record.server.packets), (1, 1));
    for (port, header, inner) in [
        (2152, &[0x30, 0xff, 0, 38, 0, 0, 0, 5][..], hello()),
        (4789, &[8, 0, 0, 0, 0, 0, 5, 0], frame(&hello())),
        (5247, &[0, 0x10, 2, 0, 0, 0, 0, 0], frame(&hello())),
    ] {
        let datagram = udp(port, 50_000, &joined(&[header, &inner]));
        assert!(only(LinkType::ETHERNET, &frame(&ipv4(17, ENDS, &datagram))).tunnel.is_some(), "{port}");
    }
}

/// Programs take any port, also one of a tunnel: their content must not be taken for packets.
#[test]
fn what_does_not_fit_a_tunnels_port_is_not_opened() {
    let lisp = [0x88, 0, 0, 1, 0, 0, 5, 1];
    let gpe = [0x0c, 0, 0, 1, 0, 0, 5, 0];
    let mpls = [0, 0, 0x51, 64];
    let gtp = [0x30, 0xff, 0, 38, 0, 0, 0, 5];
    for (port, header) in [(4341, &lisp[..]), (4790, &gpe), (6635, &mpls), (2152, &gtp)] {
        let carries = |src, dst, inner: &[u8]| {
            let packet = ipv4(17, ENDS, &udp(src, dst, &joined(&[header, inner])));
            only(LinkType::ETHERNET, &frame(&packet)).tunnel.is_some()
        };
        assert!(carries(50_000, port, &hello()), "{port}");
        // Longer than what is there; with something behind it; data from the port, not to it.
        assert!(!carries(50_000, port, &hello()[..37]), "{port}");
        assert_eq!(carries(50_000, port, &joined(&[&hello(), &[0; 9]])), port == 2152, "{port}");
        assert_eq!(carries(port, 50_000, &hello()), port == 2152, "{port}");
    }
}

#[test]
fn addresses_of_frames_in_gtp_may_begin_like_ip() {
    for first in [0x4c, 0x64, 0x45] {
        let mut inner = frame(&hello());
        inner[0] = first;
        let packet = ipv4(17, ENDS, &udp(2152, 2152, &joined(&[&[0x30, 0xff, 0, 52, 0, 0, 0, 5], &inner])));
        check(&only(LinkType::ETHERNET, &frame(&packet)), "gtpu", Some(5), "5G");
    }
}

#[test]
fn frames_of_the_air_in_capwap_are_read_in_either_order() {
    for (inner, client) in [(sent(), [3; 6]), (swapped(), [3; 6]), (frame(&hello()), [3; 6])] {
        let header: &[u8] = if inner.len() > 60 { &[0x10, 3, 0, 0, 0, 0, 0] } else { &[0x10, 2, 0, 0, 0, 0, 0] };
        let tagged = ethernet(0x8100, &tag(0x0800, 7, &ipv4(17, ENDS, &capwap(header, &inner))));
        let record = only(LinkType::ETHERNET, &tagged);
        check(&record, "capwap", None, "capwap");
        // The VLAN is that of the outer frame.
        assert_eq!((record.client.mac, record.vlan), (Some(client), None));
    }
}

#[test]
fn inside_one_another() {
    let ipip = ipv4(4, (LEFT, BOB), &hello());
    let inner = gre(0x2000, 0x0800, &[0, 0, 0, 9], &ipip);
    let packet = ipv6(17, ENDS, &vxlan(5, &frame(&ipv4(47, (RIGHT, LEFT), &inner))));
    let mut wire = Wire::new();
    wire.frame(&frame(&packet));
    let (records, mut carriers, counters) = wire.end();
    check(&records[0], "vxlan+gre+ipip", None, "nested");
    assert_eq!(records[0].tunnel.as_ref().unwrap().src, IpAddr::from(v6(LEFT)));
    carriers.sort_by_key(|record| record.tunnel.as_ref().map_or(0, |tunnel| tunnel.stack.depth()));
    let stacks: Vec<_> = carriers.iter().map(|r| r.tunnel.as_ref().map(|t| t.stack.to_string())).collect();
    assert_eq!(stacks, [None, Some("vxlan".into()), Some("vxlan+gre".into())]);
    assert_eq!((counters.decoded, counters.carriers), (1, 3));
}

#[test]
fn eight_are_opened_and_no_more() {
    for depth in [8, 9] {
        let packet = (0..depth).fold(hello(), |inner, _| ipv4(4, ENDS, &inner));
        let mut wire = Wire::new();
        wire.frame(&frame(&packet));
        let (records, carriers, _) = wire.end();
        assert_eq!((records.len(), carriers.len()), (1, 8));
        assert_eq!(records[0].tunnel.as_ref().unwrap().stack.depth(), 8);
        assert_eq!(records[0].protocol.0, if depth == 8 { 17 } else { 4 });
    }
}

#[test]
fn what_cannot_be_opened_is_the_flow_that_it_is() {
    let arp = ethernet(0x0806, &[0; 28]);
    let mut no_vni = vxlan(5, &frame(&hello()));
    no_vni[8] = 0;
    let cases = [
        ipv4(17, ENDS, &vxlan(5, &arp)),
        ipv4(17, ENDS, &no_vni),
        ipv4(47, ENDS, &gre(0x0002, 0x0800, &[], &hello())),
        ipv4(4, ENDS, &[0x45; 10]),
        ipv4(17, ENDS, &udp(2152, 2152, &joined(&[&[0x32, 1, 0, 4, 0, 0, 0, 0], &hello()]))),
        // A control message, one of version 3, padding without end; a heartbeat; another version; routes without end.
        ipv4(17, ENDS, &udp(1701, 1701, &joined(&[&[0xc8, 2, 0, 60, 0, 9, 0, 0, 0, 1, 0, 2], &hello()]))),
        ipv4(17, ENDS, &udp(1701, 1701, &joined(&[&[0, 3, 0, 0, 0, 0, 0, 5, 0, 0x21], &hello()]))),
        ipv4(17, ENDS, &udp(1701, 1701, &joined(&[&[2, 2, 0, 9, 0, 5, 0xff, 0xff, 0, 0x21], &hello()]))),
        ipv4(17, ENDS, &ayiya(0x10, 59, &[])),
        ipv4(97, ENDS, &joined(&[&[0x40, 0], &frame(&hello())])),
        ipv4(47, ENDS, &gre(0x4000, 0x0800, &[0; 4], &[9, 9, 0, 0].repeat(30))),
        // DTLS; a sign of life; a later part; another kind of radio.
        ipv4(17, ENDS, &udp(50_000, 5247, &joined(&[&[1, 0, 0, 0], &[0; 60]]))),
        ipv4(17, ENDS, &capwap(&[0x10, 2, 8, 0, 0, 0, 0], &frame(&hello()))),
        ipv4(17, ENDS, &capwap(&[0x10, 2, 0x80, 0, 1, 0, 8], &frame(&hello()))),
        ipv4(17, ENDS, &capwap(&[0x10, 7, 0, 0, 0, 0, 0], &frame(&hello()))),
        // A sign of life, and a prune.
        ipv4(103, ENDS, &joined(&[&[0x21, 0, 0, 0, 0x40, 0, 0, 0], &hello()])),
        ipv4(103, ENDS, &joined(&[&[0x23, 0, 0, 0, 0, 0, 0, 0], &hello()])),
        ipv4(17, ENDS, &udp(50_000, 37_008, &joined(&[&[1, 4, 0, 1, 1], &frame(&hello())]))),
    ];
    for packet in cases {
        let record = only(LinkType::ETHERNET, &frame(&packet));
        assert!(record.tunnel.is_none());
        assert_eq!(record.client.bytes, packet.len() as u64);
    }
}

#[test]
fn a_carrier_that_also_carries_what_is_not_ip_has_two_rows() {
    let mut wire = Wire::new();
    wire.frame(&frame(&ipv4(17, ENDS, &vxlan(5, &frame(&hello())))));
    wire.frame(&frame(&ipv4(17, ENDS, &vxlan(5, &ethernet(0x0806, &[0; 28])))));
    let (records, carriers, _) = wire.end();
    assert_eq!((records.len(), carriers.len()), (2, 1));
    assert_ne!(carriers[0].flow_id, records[0].flow_id);
    assert_ne!(carriers[0].flow_id, records[1].flow_id);
}

#[test]
fn ports_are_configured() {
    let mut ports = config().tunnel_ports;
    ports.vxlan = vec![7777];
    let mut wire = Wire::with(FlowConfig { tunnel_ports: ports, ..config() });
    wire.frame(&frame(&ipv4(17, ENDS, &udp(1, 7777, &joined(&[&[8, 0, 0, 0, 0, 0, 5, 0], &frame(&hello())])))));
    check(&wire.only(), "vxlan", Some(5), "configured");
}

#[test]
fn networks_with_the_same_addresses_stay_apart() {
    let mut wire = Wire::new();
    for vni in [1, 2, 1, 2] {
        wire.frame(&frame(&ipv4(17, ENDS, &vxlan(vni, &frame(&hello())))));
    }
    for vni in [2, 1] {
        wire.frame(&frame(&ipv4(17, (RIGHT, LEFT), &vxlan(vni, &frame(&reply())))));
    }
    let (records, _, _) = wire.end();
    assert_eq!(records.len(), 2);
    assert!(records.iter().all(|r| (r.client.packets, r.server.packets) == (2, 1)));
    // The network of the outer tunnel tells apart what the inner one, without an id, does not.
    let mut wire = Wire::new();
    for vni in [1, 2] {
        wire.frame(&frame(&ipv4(17, ENDS, &vxlan(vni, &frame(&ipv4(4, ENDS, &hello()))))));
    }
    assert_eq!(wire.end().0.len(), 2);
}

#[test]
fn each_direction_may_have_an_id_of_its_own() {
    let gtp = |teid: u8, inner: &[u8]| udp(2152, 2152, &joined(&[&[0x30, 0xff, 0, 38, 0, 0, 0, teid], inner]));
    let mut wire = Wire::new();
    wire.frame(&frame(&ipv4(17, ENDS, &gtp(5, &hello()))));
    wire.frame(&frame(&ipv4(17, (RIGHT, LEFT), &gtp(9, &reply()))));
    wire.frame(&frame(&ipv4(17, ENDS, &gtp(5, &hello()))));
    wire.frame(&frame(&ipv4(17, (RIGHT, LEFT), &gtp(9, &reply()))));
    let record = wire.only();
    assert_eq!((record.client.packets, record.server.packets), (2, 2));
    assert_eq!(record.tunnel.unwrap().id, Some(5));
}

#[test]
fn errors_and_fragments_find_the_way_back() {
    let gtp =
        |teid: u8, inner: &[u8]| udp(2152, 2152, &joined(&[&[0x30, 0xff, 0, inner.len() as u8, 0, 0, 0, teid], inner]));
    let keyed = |key: u8, inner: &[u8]| gre(0x2000, 0x0800, &[0, 0, 0, key], inner);
    let error = ipv4(1, (RIGHT, ALICE), &joined(&[&[3, 3, 0, 0, 0, 0, 0, 0], &hello()[..28]]));
    let long = udp(9, 40_000, &[7; 40]);
    let [first, last] = [(0x2000, &long[..24]), (3, &long[24..])].map(|(at, data)| part4(17, (BOB, ALICE), at, data));
    for (protocol, carry) in [(17, &gtp as &dyn Fn(u8, &[u8]) -> Vec<u8>), (47, &keyed)] {
        let there = |inner: &[u8]| frame(&ipv4(protocol, ENDS, &carry(5, inner)));
        let back = |inner: &[u8]| frame(&ipv4(protocol, (RIGHT, LEFT), &carry(9, inner)));
        for answers in [0, 1] {
            let mut wire = Wire::new();
            wire.frame(&there(&hello()));
            wire.frames(&vec![back(&reply()); answers]);
            wire.frame(&back(&error));
            let (records, _, _) = wire.end();
            let marks: Vec<_> = records.iter().map(|record| (record.protocol.0, record.icmp_error)).collect();
            assert!(marks.contains(&(17, Some("port_unreachable"))), "{marks:?}");
        }
        for parts in [[&first, &last], [&last, &first]] {
            let mut wire = Wire::new();
            wire.frame(&there(&hello()));
            wire.frames(&parts.map(|part| back(part)));
            let record = wire.only();
            assert_eq!((record.client.packets, record.server.packets, record.server.payload_bytes), (1, 2, 40));
        }
    }
    // Another network's error says nothing of a flow that is answered by its own id.
    let mut wire = Wire::new();
    for (ends, vni, inner) in [(ENDS, 5, hello()), ((RIGHT, LEFT), 5, reply()), ((RIGHT, LEFT), 9, error)] {
        wire.frame(&frame(&ipv4(17, ends, &vxlan(vni, &frame(&inner)))));
    }
    assert!(wire.end().0.iter().all(|record| record.icmp_error.is_none()));
}

/// Two networks, one id each: what looks like an answer at first proves to be none.
#[test]
fn networks_that_seem_to_answer_each_other_part() {
    let between = |ends: ([u8; 4], [u8; 4]), inner_ends, vni: u8| {
        let inner = ipv4(17, inner_ends, &udp(7946, 7946, b"0123456789"));
        frame(&ipv4(17, ends, &vxlan(vni, &frame(&inner))))
    };
    let there = |vni| between(ENDS, (ALICE, BOB), vni);
    let back = |vni| between((RIGHT, LEFT), (BOB, ALICE), vni);
    // By VNI: packets of Alice's and of Bob's. The first of the second network's is in the first one's flow.
    let cases = [
        (vec![there(1), back(2), back(1), there(2)], [(5, 6), (5, 4)]),
        (vec![there(1), back(2), back(1)], [(5, 6), (0, 4)]),
        (vec![there(1), back(2), there(2)], [(5, 1), (5, 4)]),
        // A pair, as far as anyone can tell.
        (vec![there(1), back(2)], [(5, 5), (0, 0)]),
    ];
    for (frames, expected) in cases {
        let mut wire = Wire::new();
        for _ in 0..5 {
            wire.frames(&frames);
        }
        let mut found = [(0, 0); 2];
        for record in wire.end().0 {
            let from = |ip: [u8; 4]| {
                if record.client.ip == IpAddr::from(ip) { record.client.packets } else { record.server.packets }
            };
            let vni = record.tunnel.as_ref().and_then(|tunnel| tunnel.id).unwrap_or_default();
            found[vni as usize - 1] = (from(ALICE), from(BOB));
        }
        assert_eq!(found, expected);
    }
}

#[test]
fn sealed_traffic_is_recognised() {
    let app = |packet: &[u8]| only(LinkType::ETHERNET, &frame(packet)).app;
    assert_eq!(app(&ipv4(50, ENDS, &[1; 40])), Some("esp"));
    assert_eq!(app(&ipv4(17, ENDS, &udp(4500, 4500, &[1; 40]))), Some("esp"));
    assert_eq!(app(&ipv4(17, ENDS, &udp(4500, 4500, &[0xff]))), None);
    let handshake = joined(&[&[1, 0, 0, 0], &[7; 144]]);
    assert_eq!(app(&ipv6(17, ENDS, &udp(51_820, 33_333, &handshake))), Some("wireguard"));
    assert_eq!(app(&ipv4(17, ENDS, &udp(51_820, 33_333, &handshake[..140]))), None);
}

#[test]
fn a_snap_length_leaves_lengths_inside_right() {
    let segment = ipv4(6, (ALICE, BOB), &tcp(40_000, 80, 1, &[0; 5000]));
    let whole = frame(&ipv4(17, ENDS, &vxlan(5, &frame(&segment))));
    let mut wire = Wire::new();
    wire.see(LinkType::ETHERNET, &whole[..110], whole.len() as u32);
    let record = wire.only();
    assert_eq!((record.client.bytes, record.client.payload_bytes), (5040, 5000));
}

/// As without the tunnel; what is around it is known.
#[test]
fn what_a_snap_length_cut_inside_is_refused_for_that() {
    let segment = ipv4(6, (ALICE, BOB), &tcp(40_000, 80, 1, &[0; 500]));
    let whole = frame(&ipv4(17, ENDS, &vxlan(5, &frame(&segment))));
    for (captured, reason) in [(103, "transport_cut"), (83, "ip_cut"), (63, "link_cut")] {
        let mut wire = Wire::new();
        assert_eq!(wire.see(LinkType::ETHERNET, &whole[..captured], whole.len() as u32), None);
        let (records, carriers, counters) = wire.end();
        assert_eq!((records.len(), carriers.len(), counters.refused.get(reason)), (0, 1, Some(&1)), "{captured}");
        assert_eq!(carriers[0].client.bytes, whole.len() as u64 - 14);
    }
    // Whoever has the flows around it counts them, whoever counts what is refused.
    let several = |engines| {
        let mut all = Engines::start(&config(), NonZeroUsize::new(engines).unwrap(), Keep::Records).unwrap();
        for port in 0..40_u8 {
            let mut data = whole.clone();
            data[35] = port;
            let (wire_len, link_type) = (whole.len() as u32, LinkType::ETHERNET);
            let data = &data[..100];
            all.burst(&[Packet { time: 1, data, wire_len, link_type, interface: 1, direction: None, vlan: None }]);
        }
        let outcome = all.finish();
        (outcome.slices, outcome.counters.carriers, outcome.counters.refused)
    };
    assert_eq!((several(1), several(1).0), (several(3), 40));
    // What is short on the wire is not cut.
    let short = frame(&ipv4(17, ENDS, &vxlan(5, &frame(&segment)[..50])));
    assert!(only(LinkType::ETHERNET, &short).tunnel.is_none());
}
