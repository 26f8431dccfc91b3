//! Floods of flows that each make the engine keep much.

use std::sync::Mutex;

use wiretag_capture::flow::{Engine, FlowConfig};
use wiretag_capture::{EndReason, Source};

use crate::sys::held;
use crate::traffic::{Traffic, part_of_a_hello, preface_and_request, query};

/// One at a time: the allocator counts for the whole process.
static ALONE: Mutex<()> = Mutex::new(());

const MIB: usize = 1 << 20;

fn config(flow_memory: usize) -> FlowConfig {
    FlowConfig { flow_memory, transactions: true, ..FlowConfig::new("node", Source::File) }
}

/// What a client does that is not over when the next one comes.
type Act = fn(&mut Traffic, u32);

fn begins_a_hello(traffic: &mut Traffic, client: u32) {
    traffic.open(client);
    let part = part_of_a_hello();
    traffic.tcp(client, true, (1, Some(1)), false, &part);
    traffic.tcp(client, true, (1 + part.len() as u32, Some(1)), false, &[7; 1400]);
}

fn leaves_a_hole(traffic: &mut Traffic, client: u32) {
    traffic.open(client);
    for segment in 1..8 {
        traffic.tcp(client, true, (1 + 1400 * segment, Some(1)), false, &[b'x'; 1400]);
    }
}

fn asks_and_asks(traffic: &mut Traffic, client: u32) {
    for id in 0..40 {
        traffic.udp(client, 53, &query(id));
    }
}

fn sends_half_a_line(traffic: &mut Traffic, client: u32) {
    traffic.open(client);
    let line = [b"GET /".as_slice(), &[b'x'; 1395]].concat();
    traffic.tcp(client, true, (1, Some(1)), false, &line);
    traffic.tcp(client, true, (1401, Some(1)), false, &line);
}

fn opens_streams(traffic: &mut Traffic, client: u32) {
    traffic.open(client);
    let mut seq = 1;
    for stream in (1..60).step_by(2) {
        let bytes = preface_and_request(stream);
        traffic.tcp(client, true, (seq, Some(1)), false, &bytes);
        seq += bytes.len() as u32;
    }
}

fn only_opens(traffic: &mut Traffic, client: u32) {
    traffic.tcp(client, true, (0, None), true, b"");
}

const ACTS: [(&str, Act, usize); 6] = [
    ("begins a ClientHello", begins_a_hello, 2800),
    ("leaves a hole", leaves_a_hole, 9800),
    ("asks and asks", asks_and_asks, 7000),
    ("sends half a line", sends_half_a_line, 2000),
    ("opens streams", opens_streams, 7000),
    ("only opens", only_opens, 360),
];

#[test]
fn what_is_counted_is_what_is_held() {
    let _alone = ALONE.lock().unwrap();
    for (name, act, least) in ACTS {
        let before = held();
        let mut traffic = Traffic::new(Engine::new(config(512 * MIB)));
        let clients = 2000;
        (0..clients).for_each(|client| act(&mut traffic, client));
        let (taken, counted) = (held() - before, traffic.engine.memory_bytes());
        assert_eq!(traffic.engine.counters().flows_active, u64::from(clients), "{name}");
        assert!(taken >= least * clients as usize, "{name}: only {} bytes a flow", taken / clients as usize);
        // The frame and an empty decoder are not the table's.
        let difference = counted.abs_diff(taken);
        assert!(difference <= taken / 10 + 8192, "{name}: {counted} bytes are counted, {taken} taken");
    }
}

#[test]
fn what_is_held_of_fragments_is_counted() {
    let _alone = ALONE.lock().unwrap();
    let flow = 360;
    let mut traffic = Traffic::new(Engine::new(config(512 * MIB)));
    traffic.fragment(0, 0);
    let (before, counted_before) = (held(), traffic.engine.memory_bytes());
    let packets = 1000;
    // With a hole behind each.
    (1..=packets).for_each(|client| (0..60).for_each(|at| traffic.fragment(client, 2 * at)));
    let (taken, counted) = (held() - before, traffic.engine.memory_bytes() - counted_before);
    assert!(taken >= (flow + 60 * 16) * packets as usize, "only {taken}");
    assert!(counted.abs_diff(taken) <= taken / 10 + 8192, "{counted} bytes are counted, {taken} taken");
}

#[test]
fn no_flood_takes_more_than_the_limit() {
    let _alone = ALONE.lock().unwrap();
    let limit = 8 * MIB;
    for (name, act, least) in ACTS {
        let before = held();
        let mut traffic = Traffic::new(Engine::new(config(limit)));
        // Connections that said something long ago.
        let settled = 500;
        for client in 0..settled {
            traffic.open(client);
            (0..8).for_each(|at| traffic.tcp(client, true, (1 + 8 * at, Some(1)), false, b"220 mail"));
            (0..8).for_each(|at| traffic.tcp(client, false, (1 + 8 * at, Some(65)), false, b"220 mail"));
        }
        let clients = (3 * limit / least) as u32;
        let attackers = std::net::IpAddr::from([10, 1, 3, 232]);
        let (mut evicted, mut most) = (0, 0);
        for client in 0..clients {
            act(&mut traffic, 1000 + client);
            assert!(traffic.engine.memory_bytes() <= limit, "{name}: {} bytes", traffic.engine.memory_bytes());
            for record in traffic.records.drain(..) {
                assert!(record.client.ip >= attackers, "{name}: a settled connection was evicted: {record:?}");
                evicted += u64::from(record.end_reason == Some(EndReason::Evicted));
            }
            let mut transactions = Vec::new();
            traffic.engine.take_transactions(&mut transactions);
            drop(transactions);
            most = most.max(held() - before);
        }
        assert!(most <= limit / 10 * 11, "{name}: {most} bytes were taken");
        let counters = traffic.engine.counters().clone();
        assert!(counters.flows_evicted > 0 && counters.flows_evicted == evicted, "{name}: {evicted} rows");
        assert_eq!(counters.flows_evicted, counters.evicted.values().sum::<u64>(), "{name}");
        // A flow that is evicted in the middle of what it does begins anew.
        assert_eq!(counters.flows_active + evicted, counters.flows_started, "{name}");
        assert!(counters.flows_started >= u64::from(settled + clients), "{name}");
        // Nothing stays behind.
        while traffic.engine.finish_some(EndReason::EndOfInput, 100, &mut traffic.records) {}
        let (own, empty) = (traffic.engine.memory_bytes(), held());
        drop(traffic);
        assert!(empty - held() >= own / 10 * 9 && own <= limit / 4 * 3, "{name}: {own} bytes of nothing");
    }
}
