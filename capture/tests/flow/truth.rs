//! The engine finds what the simulator knows.

use proptest::prelude::*;
use wiretag_capture::flow::FlowConfig;
use wiretag_capture::{FlowRecord, Side};

use crate::observer::{Figures, Observer};
use crate::simulator::{MICRO, Scenario, Simulation};
use crate::story::*;

fn figures(side: &Side) -> Figures {
    Figures {
        packets: side.packets,
        payload_bytes: side.payload_bytes,
        retransmits: side.retransmits.unwrap().into(),
        retransmit_bytes: side.retransmit_bytes.unwrap(),
        out_of_order: side.out_of_order.unwrap().into(),
        duplicate_acks: side.duplicate_acks.unwrap().into(),
        zero_windows: side.zero_windows.unwrap().into(),
        zero_window_us: side.zero_window_us.unwrap(),
        keep_alives: side.keep_alives.unwrap().into(),
        capture_duplicates: side.capture_duplicates.unwrap().into(),
        missed: side.packets_missed.unwrap_or(0).into(),
        fast: side.fast_retransmits.unwrap().into(),
        timeout: side.timeout_retransmits.unwrap().into(),
        spurious: side.spurious_retransmits.unwrap().into(),
        recovery: 0,
    }
}

/// Why a segment was sent again can be seen if everything that made its sender do so was.
fn kinds_are_visible(scenario: &Scenario) -> bool {
    scenario.ack_loss + scenario.missed + scenario.delayed + scenario.closing == 0
}

fn check_round_trips(scenario: &Scenario, record: &FlowRecord) {
    // A lost acknowledgement, which data may carry, leaves a later one to end the measurement, maybe much later.
    let acks_are_lost = scenario.ack_loss > 0 || (scenario.delayed_acks && scenario.loss > 0);
    if scenario.delayed + scenario.missed > 0 || acks_are_lost {
        return;
    }
    // Segments queue behind each other.
    let slack = if scenario.delayed_acks { 40_500 } else { 500 };
    for (side, half) in [(&record.client, scenario.halves[0]), (&record.server, scenario.halves[1])] {
        let least = (2 * half / MICRO) as u32;
        if let Some((mean, greatest)) = side.rtt_avg_us.zip(side.rtt_max_us) {
            assert!(least <= mean && mean <= greatest && greatest <= least + slack, "{mean} {greatest} for {least}");
        } else {
            assert!(scenario.loss > 0, "no round trip was measured");
        }
    }
}

fn check_record(scenario: &Scenario, observer: &Observer, record: &FlowRecord) {
    for (side, seen) in [&record.client, &record.server].into_iter().zip(&observer.sides) {
        let (mut found, mut expected) = (figures(side), seen.figures.clone());
        // What follows a partial acknowledgement (RFC 6582) counts as fast if duplicates came after that; else as none.
        let fast = expected.fast..=expected.fast + expected.recovery;
        if kinds_are_visible(scenario) {
            assert!(fast.contains(&found.fast), "{} fast of {fast:?}, {scenario:?}", found.fast);
        } else {
            (found.timeout, expected.timeout) = (0, 0);
        }
        (found.fast, expected.fast, expected.recovery) = (0, 0, 0);
        assert_eq!(found, expected, "{:?} {scenario:?}", side.port);
    }
    assert_eq!(record.syn_retries.map(u64::from), Some(observer.syn_retries));
    let [client, server] = scenario.halves.map(|half| Some((2 * half / MICRO) as u32));
    assert_eq!(record.client.rtt_us, client);
    let known = scenario.timestamps || observer.syn_retries == 0;
    assert_eq!(record.server.rtt_us, server.filter(|_| known));
    check_round_trips(scenario, record);
    let times = &observer.responses;
    let found = record.responses.unwrap_or_default();
    assert_eq!(found.count, times.len() as u32);
    assert_eq!(found.max_us, times.iter().max().map_or(0, |time| *time as u32));
    assert_eq!(found.first_us, times.first().map_or(0, |time| *time as u32));
}

/// Hours, so that a connection is one slice.
fn one_slice() -> FlowConfig {
    FlowConfig { active_timeout: 20_000 * SECOND, tcp_idle_timeout: 20_000 * SECOND, ..config() }
}

fn check(scenario: &Scenario) -> FlowRecord {
    let (observer, mut records) = Simulation::new(scenario, one_slice()).run();
    // A FIN that is repeated long after the close comes as another flow.
    if records.len() == 1 {
        check_record(scenario, &observer, &records[0]);
    }
    records.remove(0)
}

/// Figures that add up over slices, whatever the cuts.
fn check_slices(scenario: &Scenario) {
    let (observer, records) = Simulation::new(scenario, FlowConfig { active_timeout: 300 * MS, ..one_slice() }).run();
    if records.iter().any(|record| record.flow_id != records[0].flow_id) {
        return;
    }
    for (pick, seen) in [(|r| &r.client) as fn(&FlowRecord) -> &Side, |r| &r.server].into_iter().zip(&observer.sides) {
        let sum = |get: fn(&Figures) -> u64| records.iter().map(|record| get(&figures(pick(record)))).sum::<u64>();
        let expected = &seen.figures;
        assert_eq!(sum(|f| f.packets), expected.packets);
        assert_eq!(sum(|f| f.payload_bytes), expected.payload_bytes);
        assert_eq!(sum(|f| f.retransmits), expected.retransmits, "{scenario:?}");
        assert_eq!(sum(|f| f.out_of_order), expected.out_of_order);
        assert_eq!(sum(|f| f.duplicate_acks), expected.duplicate_acks);
        assert_eq!(sum(|f| f.zero_windows), expected.zero_windows);
        assert_eq!(sum(|f| f.keep_alives), expected.keep_alives);
        assert!(sum(|f| f.zero_window_us).abs_diff(expected.zero_window_us) <= records.len() as u64);
    }
}

fn quiet() -> Scenario {
    Scenario {
        seed: 1,
        loss: 0,
        syn_loss: 0,
        ack_loss: 0,
        missed: 0,
        copied: 0,
        delayed: 0,
        timestamps: false,
        sack: false,
        delayed_acks: false,
        closing: 0,
        keep_alives: false,
        halves: [2 * MS, 5 * MS],
        isn: [u32::MAX - 5000, 7],
        exchanges: vec![(1, 20), (3, 5), (12, 40)],
    }
}

#[test]
fn a_clean_connection_is_clean() {
    let record = check(&quiet());
    let clean = |side: &Side| Figures { packets: 0, payload_bytes: 0, ..figures(side) };
    assert_eq!((clean(&record.client), clean(&record.server)), (Figures::default(), Figures::default()));
    assert_eq!((record.client.payload_bytes, record.server.payload_bytes), (16_000, 65_000));
    assert_eq!(record.responses.unwrap().count, 3);
}

#[test]
fn what_the_capture_missed_is_not_lost_by_the_network() {
    let record = check(&Scenario { missed: 100, seed: 3, ..quiet() });
    assert!(record.server.packets_missed.unwrap() > 0);
    assert_eq!((record.server.retransmits, record.client.retransmits), (Some(0), Some(0)));
}

#[test]
fn losses_are_retransmissions_of_every_kind() {
    let mut found = [0, 0, 0];
    for seed in 0..80 {
        let server = check(&Scenario { loss: 60, ack_loss: 20, sack: seed % 2 > 0, seed, ..quiet() }).server;
        for (sum, count) in
            found.iter_mut().zip([server.fast_retransmits, server.timeout_retransmits, server.spurious_retransmits])
        {
            *sum += count.unwrap();
        }
    }
    assert!(found.iter().all(|sum| *sum > 0), "{found:?}");
}

#[test]
fn answers_that_were_lost_have_response_times() {
    for seed in 0..40 {
        check(&Scenario { loss: 100, delayed_acks: true, exchanges: vec![(1, 1); 10], seed, ..quiet() });
    }
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let often = || prop_oneof![3 => Just(0_u64), 1 => Just(20), 1 => Just(100)];
    let path = (often(), often(), often(), often(), often());
    let ends = (any::<[bool; 2]>(), any::<bool>(), prop_oneof![2 => Just(0_u64), 1 => Just(60)], any::<bool>());
    let isn = prop_oneof![any::<u32>(), (0_u32..40_000).prop_map(|below| u32::MAX - below)];
    let numbers = (prop::array::uniform2(isn), prop::array::uniform2(100_i64..15_000));
    let exchanges = prop::collection::vec((1_u64..15, 1_u64..50), 1..4);
    (any::<u64>(), path, ends, numbers, exchanges).prop_map(|(seed, path, ends, (isn, halves), exchanges)| {
        let (loss, ack_loss, missed, copied, delayed) = path;
        let ([timestamps, sack], delayed_acks, closing, keep_alives) = ends;
        let halves = halves.map(|half| half * MICRO);
        Scenario {
            seed,
            loss,
            syn_loss: 200,
            ack_loss,
            missed,
            copied,
            delayed,
            timestamps,
            sack,
            delayed_acks,
            closing,
            keep_alives,
            halves,
            isn,
            exchanges,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_engine_finds_the_truth(scenario in scenario()) {
        check(&scenario);
    }

    #[test]
    fn slices_add_up(scenario in scenario()) {
        check_slices(&Scenario { missed: 0, ..scenario });
    }
}
