//! Floods and scans: memory stays, and what matters is kept.

use std::net::Ipv4Addr;

use wiretag_capture::decode::{Decoded, Tcp, Transport};
use wiretag_capture::flow::FlowConfig;
use wiretag_capture::{EndReason, Protocol};

use crate::story::*;

/// A tenth where nothing is optimised.
const MANY: u32 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };

/// A segment between a client's address and a server's.
fn between(client: u32, server: u32, sent: &Segment) -> Decoded<'_> {
    let tcp = Tcp {
        seq: sent.seq,
        ack: sent.ack,
        flags: sent.flags,
        window: sent.window,
        options: &sent.options,
        options_len: sent.options.len() as u8,
        payload: &[],
        payload_len: sent.length,
    };
    let mut packet = decoded(sent.from, Some(sent.ports), Protocol::TCP, Transport::Tcp(tcp));
    let ends = (Ipv4Addr::from_bits(client).into(), Ipv4Addr::from_bits(server).into());
    (packet.src, packet.dst) = if sent.from == Client { ends } else { (ends.1, ends.0) };
    packet
}

const SERVER: u32 = 0x0a00_0001;
const CLIENTS: u32 = 0x0a01_0000;

/// Opens a connection from each of so many clients, with a request and its answer; a microsecond each.
fn connect(story: &mut Story, clients: u32) {
    for client in 0..clients {
        let exchange = [
            segment(Client, SYN, 100, 0).mss(1460),
            segment(Server, SYN | ACK, 500, 101).mss(1460),
            segment(Client, ACK, 101, 501),
            segment(Client, ACK, 101, 501).data(200),
            segment(Server, ACK, 501, 301).data(1000),
            segment(Client, ACK, 301, 1501),
        ];
        for sent in &exchange {
            story.packet(i64::from(client) * 1000, &between(CLIENTS + client, SERVER, sent), sent.from);
        }
    }
}

#[test]
fn a_tracked_connection_takes_less_than_400_bytes() {
    // Just after the index has grown it has the most room to spare.
    let clients = if cfg!(debug_assertions) { 60_000 } else { 930_000 };
    let mut story = Story::new();
    connect(&mut story, clients);
    let each = story.engine.memory_bytes() / clients as usize;
    assert_eq!(story.engine.counters().flows_active, u64::from(clients));
    assert!(each <= 400, "{each} bytes a flow");
}

/// Connections, then so many single SYNs from anywhere while these talk on.
fn under_attack(answered: bool) {
    let connections = 1000;
    let mut story = Story::with(FlowConfig { max_flows: 5000, ..config() });
    connect(&mut story, connections);
    let mut before = 0;
    for number in 0..MANY {
        let at = SECOND + i64::from(number) * 1000;
        let (attacker, target) = (0x2000_0000 + number, 0x3000_0000 + number);
        story.packet(at, &between(attacker, target, &segment(Client, SYN, number, 0)), Client);
        if answered {
            let syn_ack = segment(Server, SYN | ACK, 500, number + 1);
            story.packet(at + 1, &between(attacker, target, &syn_ack), Server);
        }
        if number % 10 == 0 {
            let client = (number / 10) % connections;
            let sent = segment(Client, ACK, 301 + number / 10 / connections, 1501).data(1);
            story.packet(at, &between(CLIENTS + client, SERVER, &sent), Client);
        }
        // By then each connection has said enough for its application to be given up on.
        if number == MANY / 10 * 6 {
            before = story.engine.memory_bytes();
        }
        if number % 1000 == 0 {
            story
                .records
                .retain(|record| record.end_reason != Some(EndReason::Evicted) || record.server.port != Some(443));
        }
    }
    let after = story.engine.memory_bytes();
    assert!(after <= before * 11 / 10, "memory grew from {before} to {after}");
    let counters = story.engine.counters().clone();
    assert_eq!(counters.flows_active, 5000);
    assert_eq!(counters.flows_started, u64::from(MANY + connections));
    assert_eq!(counters.evicted.keys().copied().collect::<Vec<_>>(), ["fleeting"]);
    assert_eq!(counters.flows_evicted, counters.evicted.values().sum::<u64>());
}

#[test]
fn a_scan_loses_no_connection() {
    under_attack(false);
}

#[test]
fn a_flood_of_answered_syns_loses_no_connection() {
    under_attack(true);
}

#[test]
fn a_scan_takes_no_more_memory_than_allowed() {
    let (connections, limit) = (1000, 4 << 20);
    let mut story = Story::with(FlowConfig { flow_memory: limit, ..config() });
    connect(&mut story, connections);
    for number in 0..MANY {
        let at = SECOND + i64::from(number) * 1000;
        story.packet(at, &between(0x2000_0000 + number, number, &segment(Client, SYN, number, 0)), Client);
        assert!(story.engine.memory_bytes() <= limit);
        story.records.clear();
    }
    let counters = story.engine.counters().clone();
    assert!((5_000..10_000).contains(&counters.flows_active), "{} flows", counters.flows_active);
    assert_eq!(counters.flows_active + counters.flows_evicted, counters.flows_started);
    assert_eq!(counters.evicted.keys().copied().collect::<Vec<_>>(), ["fleeting"]);
}

#[test]
fn the_least_valuable_goes_first() {
    let mut story = Story::with(FlowConfig { max_flows: 4, ..config() });
    connect(&mut story, 1);
    story.udp(MS, Client, (40000, 9), b"x");
    story.udp(2 * MS, Server, (40000, 9), b"x");
    story.tcp(3 * MS, &segment(Client, ACK, 101, 501).ports(40001, 443));
    story.tcp(3 * MS, &segment(Server, RST, 501, 0).ports(40001, 443));
    let mut order = Vec::new();
    story.tcp(4 * MS, &segment(Client, SYN, 1, 0).ports(40002, 443));
    for port in 40003..40007 {
        story.handshake_on(5 * MS, port);
        order.push(story.engine.counters().evicted.clone());
    }
    let order: Vec<Vec<_>> =
        order.iter().map(|counts| counts.iter().map(|(value, count)| (*value, *count)).collect()).collect();
    assert_eq!(order[0], [("fleeting", 1)]);
    assert_eq!(order[1], [("fleeting", 1), ("over", 1)]);
    assert_eq!(order[2], [("exchange", 1), ("fleeting", 1), ("over", 1)]);
    assert_eq!(order[3], [("connection", 1), ("exchange", 1), ("fleeting", 1), ("over", 1)]);
}
