//! Timeouts, slices, eviction, keys.

use std::net::Ipv4Addr;

use wiretag_capture::decode::{Decoded, Transport};
use wiretag_capture::flow::{Engine, FlowConfig};
use wiretag_capture::record::{Tunnel, TunnelKind, TunnelStack};
use wiretag_capture::{EndReason, FlowRecord, LinkType, OrientedBy, Packet, Protocol, TcpState};

use crate::story::*;

fn reasons(records: &[FlowRecord]) -> Vec<(EndReason, u32)> {
    records.iter().map(|record| (record.end_reason.unwrap(), record.slice)).collect()
}

#[test]
fn slices_of_a_long_connection_add_up() {
    let mut story = Story::new();
    story.handshake(0);
    for second in 1..150 {
        story.tcp(second * SECOND, &segment(Client, ACK, 1 + 100 * second as u32, 501).data(100));
    }
    let records = story.end();
    assert_eq!(reasons(&records), [(EndReason::Active, 0), (EndReason::Active, 1), (EndReason::EndOfInput, 2)]);
    assert!(records.iter().all(|r| r.flow_id == records[0].flow_id && r.oriented_by == OrientedBy::Syn));
    assert!(records.iter().all(|r| r.end - r.start < 60 * SECOND && r.tcp_state == records[0].tcp_state));
    assert_eq!(records.iter().map(|r| r.client.payload_bytes).sum::<u64>(), 14_900);
    assert_eq!(records.iter().map(|r| r.client.retransmits.unwrap()).sum::<u32>(), 0);
    assert_eq!(records.iter().map(|r| r.client.packets + r.server.packets).collect::<Vec<_>>(), [62, 60, 30]);
    // The handshake belongs to its slice.
    assert_eq!(records.iter().map(|r| r.handshake_rtt_us).collect::<Vec<_>>(), [Some(13_000), None, None]);
    assert_eq!(records[1].server.tcp_flags, Some(0));
    assert_eq!(records[1].community_id, records[0].community_id);
}

#[test]
fn quiet_flows_end_by_their_kind() {
    let mut story = Story::new();
    story.handshake(-13 * MS);
    story.udp(0, Client, (40000, 9999), b"x");
    let other = decoded(Client, None, Protocol(47), Transport::Other { payload_len: 80 });
    story.packet(0, &other, Client);
    // The timer wheel turns in steps of 17 ms.
    story.advance(10 * SECOND + 20 * MS);
    assert_eq!(story.records.iter().map(|r| r.protocol.0).collect::<Vec<_>>(), [47]);
    story.advance(30 * SECOND + 20 * MS);
    assert_eq!(story.records.iter().map(|r| r.protocol.0).collect::<Vec<_>>(), [47, 17]);
    // The slice is cut in time, although the connection is quiet.
    story.advance(60 * SECOND + 20 * MS);
    assert_eq!(story.engine.counters().flows_active, 1);
    story.advance(301 * SECOND);
    assert_eq!(story.engine.counters().flows_active, 0);
    let ends = [(EndReason::Idle, 0), (EndReason::Idle, 0), (EndReason::Active, 0)];
    assert_eq!(reasons(&story.end()), ends);
}

/// A slice is not cut in silence where that would leave nothing to say how the flow ended, and its end is near.
#[test]
fn the_last_slice_says_why_its_flow_ended() {
    let ends = |play: fn(&mut Story)| {
        let mut story = Story::new();
        play(&mut story);
        story.advance(1000 * SECOND);
        assert_eq!(story.engine.counters().flows_active, 0);
        let last = story.records.last().map(|record| (record.client.packets + record.server.packets, record.tcp_state));
        (reasons(&story.records), last.unwrap())
    };
    // Unanswered, for longer than a slice.
    let unanswered = ends(|story| {
        for second in [0, 1, 3, 7, 15, 31] {
            story.tcp(second * SECOND, &segment(Client, SYN, 100, 0));
        }
    });
    assert_eq!(unanswered, (vec![(EndReason::Idle, 0)], (6, Some(TcpState::S0))));
    let late = ends(|story| {
        story.udp(0, Client, (5060, 5060), b"a");
        story.udp(25 * SECOND, Client, (5060, 5060), b"a");
        story.udp(45 * SECOND, Client, (5060, 5060), b"a");
    });
    assert_eq!(late, (vec![(EndReason::Idle, 0)], (3, None)));
    // A connection may be silent for long: what it did is told in time.
    let again = ends(|story| {
        story.handshake(0);
        for second in [59, 200, 259, 261] {
            story.tcp(second * SECOND, &segment(Client, ACK, 101, 501));
        }
    });
    let three = vec![(EndReason::Active, 0), (EndReason::Active, 1), (EndReason::Active, 2)];
    assert_eq!(again, (three, (1, Some(TcpState::S1))));
}

#[test]
fn a_quiet_flow_is_open_until_it_is_over() {
    let mut story = Story::new();
    story.tcp(0, &segment(Client, SYN, 100, 0));
    story.advance(70 * SECOND);
    assert!(story.records.is_empty());
    let mut open = Vec::new();
    story.engine.begin_walk(true);
    story.engine.walk_some(10, &mut open);
    assert_eq!(open.iter().map(|r| (r.slice, r.client.packets)).collect::<Vec<_>>(), [(0, 1)]);
    // The end of the file, and of the interface, are ends, too.
    story.engine.end_interfaces(&[7], &mut story.records);
    assert_eq!(reasons(&story.records), [(EndReason::EndOfInput, 0)]);
}

/// Heartbeats every 30 s, from either side.
#[test]
fn an_sctp_association_is_one_flow_until_it_is_shut_down() {
    let (init, init_ack, heartbeat, complete) = (1, 2, 4, 14);
    let mut story = Story::new();
    let mut chunk = |at: i64, from, kind| {
        let transport = Transport::Sctp { chunk: Some(kind), payload_len: 20 };
        story.packet(at, &decoded(from, Some((36412, 36412)), Protocol::SCTP, transport), from)
    };
    let id = chunk(0, Client, init);
    chunk(MS, Server, init_ack);
    for (number, from) in (1..10).zip([Server, Client].into_iter().cycle()) {
        assert_eq!(chunk(number * 30 * SECOND, from, heartbeat), id);
    }
    chunk(271 * SECOND, Server, complete);
    story.advance(282 * SECOND);
    let records = story.records;
    assert!(records.iter().all(|r| r.flow_id == id && r.client.ip.to_string() == "10.0.0.2"));
    assert_eq!(records.last().map(|r| r.end_reason), Some(Some(EndReason::Idle)));
}

#[test]
fn time_goes_back_when_all_flows_have_ended() {
    let mut story = Story::new();
    // Stamped before the clock went back by an hour, read after.
    story.udp(3600 * SECOND, Client, (40000, 9999), b"x");
    story.udp(0, Client, (40001, 9999), b"x");
    story.advance(300 * SECOND);
    assert_eq!((story.engine.clock(), story.records.len()), (BEGIN + 3600 * SECOND, 0));
    while story.engine.finish_some(EndReason::Shutdown, 100, &mut story.records) {}
    assert_eq!((story.engine.clock(), story.records.len()), (i64::MIN, 2));
    story.udp(300 * SECOND, Client, (40001, 9999), b"x");
    story.advance(331 * SECOND);
    assert_eq!((story.engine.clock(), story.records.len()), (BEGIN + 331 * SECOND, 3));
}

#[test]
fn a_full_table_evicts_the_least_recent_and_says_so() {
    let mut story = Story::with(FlowConfig { max_flows: 2, ..config() });
    story.udp(0, Client, (1, 9), b"a");
    story.udp(1, Client, (2, 9), b"b");
    story.udp(2, Client, (1, 9), b"c");
    story.udp(3, Client, (3, 9), b"d");
    assert_eq!(story.engine.counters().flows_active, 2);
    assert_eq!(story.engine.counters().flows_evicted, 1);
    assert_eq!(story.records.len(), 1);
    assert_eq!(story.records[0].end_reason, Some(EndReason::Evicted));
    assert!(story.records[0].client.port == Some(2) || story.records[0].server.port == Some(2));
    assert_eq!(story.end().len(), 3);
}

/// A packet on another interface than the story's, 8, of which no direction is known.
fn elsewhere(story: &mut Story, at: i64, decoded: &Decoded<'_>) -> u64 {
    let packet = Packet {
        time: BEGIN + at,
        data: &[],
        wire_len: 100,
        link_type: LinkType::ETHERNET,
        interface: 8,
        direction: None,
        vlan: None,
    };
    story.engine.track(decoded, &packet, &mut story.records).unwrap()
}

#[test]
fn vlan_tunnel_and_interface_tell_flows_apart() {
    let mut story = Story::new();
    let payload = Transport::Udp { payload: &[], payload_len: 0 };
    let plain = decoded(Client, Some((40000, 9)), Protocol::UDP, payload);
    let mut tagged = plain.clone();
    tagged.vlan = Some(5);
    let mut inner = tagged.clone();
    inner.vlan_inner = Some(6);
    let outer = Ipv4Addr::new(192, 0, 2, 1).into();
    let mut tunnelled = plain.clone();
    let stack = TunnelStack::default().with(TunnelKind::Vxlan);
    tunnelled.tunnel = Some(Tunnel { stack, id: Some(1), src: outer, dst: outer });
    let mut other_vni = plain.clone();
    other_vni.tunnel = Some(Tunnel { stack, id: Some(2), src: outer, dst: outer });
    let mut ids: Vec<_> =
        [&plain, &tagged, &inner, &tunnelled, &other_vni].map(|decoded| story.packet(0, decoded, Client)).to_vec();
    ids.push(elsewhere(&mut story, 0, &plain));
    // The way back, through the tunnel in the other direction, is the same flow.
    let mut back = decoded(Server, Some((40000, 9)), Protocol::UDP, Transport::Udp { payload: &[], payload_len: 0 });
    back.tunnel = tunnelled.tunnel.clone();
    assert_eq!(story.packet(1, &back, Server), ids[3]);
    let records = story.end();
    assert_eq!(records.len(), 6);
    assert!(records.iter().any(|r| &*r.interface == "if8" && r.client_direction.is_none()));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 6);
}

#[test]
fn flow_ids_are_stable_and_take_the_interface_by_name() {
    let id = |number, name: &str| {
        let mut engine = Engine::new(config());
        engine.name_interface(number, name);
        let decoded = decoded(Client, Some((40000, 9)), Protocol::UDP, Transport::Udp { payload: &[], payload_len: 0 });
        let packet = Packet {
            time: BEGIN,
            data: &[],
            wire_len: 100,
            link_type: LinkType::ETHERNET,
            interface: number,
            direction: None,
            vlan: None,
        };
        engine.track(&decoded, &packet, &mut Vec::new()).unwrap()
    };
    assert_eq!(id(1, "veth1"), id(99, "veth1"));
    assert_ne!(id(1, "veth1"), id(1, "veth2"));
}

/// What was carried under a name is told under that name; the flow goes on.
#[test]
fn a_record_has_the_name_that_its_interface_had_when_the_packets_came() {
    let mut story = Story::new();
    let id = story.udp(0, Client, (40_000, 9), b"a");
    story.engine.rename_interface(7, "veth7", &mut story.records);
    story.engine.rename_interface(8, "veth8", &mut story.records);
    assert!(story.records.is_empty(), "nothing has another name");
    for (at, name) in [(1, "front"), (2, "front"), (3, "back")] {
        story.engine.rename_interface(7, name, &mut story.records);
        assert_eq!(story.udp(at * SECOND, Client, (40_000, 9), b"bc"), id);
    }
    story.engine.rename_interface(8, "back", &mut story.records);
    let records = story.end();
    let told: Vec<_> = records.iter().map(|r| (&*r.interface, r.flow_id, r.slice, r.client.payload_bytes)).collect();
    assert_eq!(told, [("veth7", id, 0, 1), ("front", id, 1, 4), ("back", id, 2, 2)]);
    let reasons: Vec<_> = records.iter().map(|r| r.end_reason).collect();
    assert_eq!(reasons, [Some(EndReason::Active), Some(EndReason::Active), Some(EndReason::EndOfInput)]);
}

/// Who has its addresses and ports next, elsewhere, is another flow.
#[test]
fn the_flows_of_an_interface_that_is_gone_end_and_no_others_do() {
    let mut story = Story::new();
    let gone = story.udp(0, Client, (40_000, 9), b"a");
    let other = decoded(Client, Some((40_000, 9)), Protocol::UDP, Transport::Udp { payload: &[], payload_len: 0 });
    let stays = elsewhere(&mut story, 0, &other);
    story.engine.end_interfaces(&[7, 99], &mut story.records);
    let told: Vec<_> = story.records.iter().map(|r| (r.flow_id, r.end_reason)).collect();
    assert_eq!(told, [(gone, Some(EndReason::EndOfInput))]);
    assert_eq!(story.engine.counters().flows_active, 1);
    // It comes back, as another one of the same name.
    assert_ne!(story.udp(SECOND, Client, (40_000, 9), b"b"), gone);
    assert_eq!(elsewhere(&mut story, SECOND, &other), stays);
}

#[test]
fn icmp_follows_community_id() {
    let icmp = |from, kind, code, ports| {
        decoded(
            from,
            Some(ports),
            Protocol::ICMP,
            Transport::Icmp { kind, code, rest: 7, payload: &[], payload_len: 8 },
        )
    };
    let mut story = Story::new();
    // Echo and its reply are one flow; the decoder pairs their types.
    story.packet(0, &icmp(Client, 8, 0, (8, 0)), Client);
    story.packet(1, &icmp(Server, 0, 0, (8, 0)), Server);
    let record = story.only();
    assert_eq!((record.client.ip.to_string().as_str(), record.server.packets), ("10.0.0.2", 1));
    assert_eq!(record.oriented_by, OrientedBy::FirstPacket);

    // Unreachable messages in both directions are two.
    let mut story = Story::new();
    story.packet(0, &icmp(Client, 3, 1, (3, 1)), Client);
    story.packet(1, &icmp(Server, 3, 1, (1, 3)), Server);
    let records = story.end();
    assert_eq!(records.len(), 2);
    assert_ne!(records[0].community_id, records[1].community_id);
}

#[test]
fn later_fragments_have_no_ports_and_no_community_id() {
    let mut story = Story::new();
    story.packet(0, &decoded(Client, None, Protocol::UDP, Transport::Other { payload_len: 80 }), Client);
    let record = story.only();
    assert_eq!((record.client.port, record.community_id, record.client.payload_bytes), (None, None, 80));
}

#[test]
fn a_refused_packet_is_counted_and_moves_time() {
    let mut story = Story::new();
    story.udp(0, Client, (40000, 9999), b"x");
    let garbage = Packet {
        time: BEGIN + 31 * SECOND,
        data: &[1, 2, 3],
        wire_len: 3,
        link_type: LinkType(9999),
        interface: 7,
        direction: None,
        vlan: None,
    };
    assert_eq!(story.engine.packet(&garbage, &mut story.records), None);
    assert_eq!(reasons(&story.records), [(EndReason::Idle, 0)]);
    assert_eq!(story.engine.counters().refused.get("link_type"), Some(&1));
    assert_eq!((story.engine.counters().packets, story.engine.counters().unaccounted()), (2, 0));
}
