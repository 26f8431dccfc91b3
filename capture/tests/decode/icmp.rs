//! ICMP errors mark the flow that they quote, in either direction, wherever they come from.

use crate::wire::*;

const ROUTER: [u8; 4] = [10, 0, 0, 254];

/// An ICMP error about the first 28 bytes of a packet.
fn error4(kind: u8, code: u8, to: [u8; 4], quoted: &[u8]) -> Vec<u8> {
    ipv4(1, (ROUTER, to), &joined(&[&[kind, code, 0, 0, 0, 0, 0, 0], &quoted[..28.min(quoted.len())]]))
}

fn mark(frames: &[Vec<u8>]) -> Vec<(u8, Option<&'static str>)> {
    let mut wire = Wire::new();
    wire.frames(frames);
    let (records, _, _) = wire.end();
    let mut marks: Vec<_> = records.iter().map(|r| (r.protocol.0, r.icmp_error)).collect();
    marks.sort_unstable();
    marks
}

#[test]
fn an_error_marks_the_flow_and_stays_its_own() {
    let hello = hello();
    for (kind, code, name) in [
        (3, 0, "net_unreachable"),
        (3, 1, "host_unreachable"),
        (3, 2, "protocol_unreachable"),
        (3, 3, "port_unreachable"),
        (3, 4, "packet_too_big"),
        (3, 13, "admin_prohibited"),
        (4, 0, "source_quench"),
        (5, 1, "redirect"),
        (11, 0, "time_exceeded"),
        (12, 0, "parameter_problem"),
    ] {
        let frames = [frame(&hello), frame(&error4(kind, code, ALICE, &hello))];
        assert_eq!(mark(&frames), [(1, None), (17, Some(name))]);
    }
}

#[test]
fn an_error_marks_a_flow_that_has_been_quiet_since_its_slice_lasted() {
    let mut wire = Wire::new();
    let segment =
        ipv4(6, (ALICE, BOB), &[&tcp(40_000, 80, 1, &[])[..13], &[2], &tcp(40_000, 80, 1, &[])[14..]].concat());
    wire.frame(&frame(&segment));
    wire.now += 70_000_000_000;
    wire.frame(&frame(&error4(3, 1, ALICE, &segment)));
    let (records, _, _) = wire.end();
    let mut marks: Vec<_> = records.iter().map(|r| (r.protocol.0, r.slice, r.icmp_error)).collect();
    marks.sort_unstable();
    assert_eq!(marks, [(1, 0, None), (6, 0, Some("host_unreachable"))]);
}

#[test]
fn the_way_back_is_the_same_flow() {
    let frames = [frame(&hello()), frame(&reply()), frame(&error4(3, 3, BOB, &reply()))];
    assert_eq!(mark(&frames), [(1, None), (17, Some("port_unreachable"))]);
}

#[test]
fn a_connection_a_ping_and_a_fragment() {
    let segment = ipv4(6, (ALICE, BOB), &tcp(40_000, 80, 1, &[0; 100]));
    assert_eq!(
        mark(&[frame(&segment), frame(&error4(3, 4, ALICE, &segment))]),
        [(1, None), (6, Some("packet_too_big"))]
    );
    let ping = ipv4(1, (ALICE, BOB), &[8, 0, 0, 0, 0, 1, 0, 1, 9, 9]);
    assert_eq!(mark(&[frame(&ping), frame(&error4(11, 0, ALICE, &ping))]), [(1, None), (1, Some("time_exceeded"))]);
    // GRE has no ports.
    let gre = ipv4(47, (ALICE, BOB), &[0x40, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(
        mark(&[frame(&gre), frame(&error4(3, 2, ALICE, &gre))]),
        [(1, None), (47, Some("protocol_unreachable"))]
    );
}

#[test]
fn version_six() {
    let datagram = ipv6(17, (ALICE, BOB), &udp(40_000, 9, b"0123456789"));
    for (kind, code, name) in [
        (1, 0, "net_unreachable"),
        (1, 1, "admin_prohibited"),
        (1, 3, "host_unreachable"),
        (1, 4, "port_unreachable"),
        (2, 0, "packet_too_big"),
        (3, 0, "time_exceeded"),
        (4, 1, "parameter_problem"),
    ] {
        let error = ipv6(58, (ROUTER, ALICE), &joined(&[&[kind, code, 0, 0, 0, 0, 5, 0], &datagram]));
        assert_eq!(mark(&[frame(&datagram), frame(&error)]), [(17, Some(name)), (58, None)]);
    }
    let redirect = joined(&[
        &[137, 0, 0, 0, 0, 0, 0, 0],
        &[9; 32],
        &[2, 1, 1, 1, 1, 1, 1, 1],
        &[4, 8, 0, 0, 0, 0, 0, 0],
        &datagram,
    ]);
    let redirect = ipv6(58, (ROUTER, ALICE), &redirect);
    assert_eq!(mark(&[frame(&datagram), frame(&redirect)]), [(17, Some("redirect")), (58, None)]);
}

#[test]
fn who_is_not_known_is_not_marked() {
    let other = ipv4(17, (ALICE, BOB), &udp(40_001, 9, b"0123456789"));
    assert_eq!(mark(&[frame(&hello()), frame(&error4(3, 3, ALICE, &other))]), [(1, None), (17, None)]);
    // On another VLAN.
    let elsewhere = ethernet(0x8100, &tag(0x0800, 5, &error4(3, 3, ALICE, &hello())));
    assert_eq!(mark(&[frame(&hello()), elsewhere]), [(1, None), (17, None)]);
    // No error, and a quote that breaks off.
    let cut = ipv4(1, (ROUTER, ALICE), &joined(&[&[3, 3, 0, 0, 0, 0, 0, 0], &hello()[..18]]));
    assert_eq!(mark(&[frame(&hello()), frame(&cut)]), [(1, None), (17, None)]);
}

#[test]
fn a_tunnel_that_is_refused_is_marked_itself() {
    let inner = frame(&hello());
    let outer = ipv4(17, (LEFT, RIGHT), &udp(50_000, 4789, &joined(&[&[8, 0, 0, 0, 0, 0, 5, 0], &inner])));
    let mut wire = Wire::new();
    wire.frame(&frame(&outer));
    wire.frame(&frame(&error4(3, 3, LEFT, &outer)));
    let (_, carriers, _) = wire.end();
    assert_eq!(carriers[0].icmp_error, Some("port_unreachable"));
}
