//! Synthetic captures whose truth is known (`examples/gensynth`): the engine's sums are exactly that.

#[path = "../../examples/gensynth/synth/mod.rs"]
mod synth;

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;

use synth::{Config, Mix, Truth, generate};
use wiretag_capture::flow::{Engine, FlowConfig};
use wiretag_capture::{EndReason, FlowRecord, LinkType, Packet, Source, Value, columns};

/// The records of a capture, and what is true of it.
fn replay(config: &Config) -> (Vec<FlowRecord>, Truth, Engine) {
    let mut engine = Engine::new(FlowConfig::new("node", Source::File));
    let mut records = Vec::new();
    let made = generate(config, |time, frame| {
        let packet = Packet {
            time: time as i64 * 1000,
            data: frame,
            wire_len: frame.len() as u32,
            link_type: LinkType::ETHERNET,
            interface: 0,
            direction: None,
            vlan: None,
        };
        engine.packet(&packet, &mut records);
        Ok::<_, Infallible>(())
    });
    let Ok(truth) = made;
    engine.finish(EndReason::EndOfInput, &mut records);
    (records, truth, engine)
}

/// Sums of all columns that are numbers; a column that is null in every record is not there.
fn sums(records: &[FlowRecord]) -> BTreeMap<&'static str, u64> {
    let mut sums = BTreeMap::new();
    for record in records.iter().filter(|record| record.app != Some("tunnel")) {
        for column in columns::columns() {
            if let Value::Number(value) = (column.get)(record) {
                *sums.entry(column.name).or_default() += value;
            }
        }
    }
    sums
}

/// Columns that parts of the engine fill which are not written yet: compared as soon as any record has a value.
const MAY_BE_NULL: [&str; 0] = [];

fn check(config: &Config) -> Truth {
    let (records, truth, engine) = replay(config);
    assert_eq!(engine.counters().refused, BTreeMap::new());
    assert_eq!(engine.counters().packets, truth.packets);
    let innermost = records.iter().filter(|record| record.app != Some("tunnel"));
    let flows: HashSet<_> = innermost.map(|record| record.flow_id).collect();
    assert_eq!(flows.len() as u64, truth.flows);
    let ours = sums(&records);
    let mut wrong = Vec::new();
    for (name, expected) in truth.columns() {
        let may_be_null = MAY_BE_NULL.iter().any(|column| name.ends_with(column));
        let got = ours.get(name.as_str()).copied();
        if got.unwrap_or(0) != expected && !(may_be_null && got.is_none()) {
            wrong.push(format!("{name}: expected {expected}, got {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{config:?}\n{}", wrong.join("\n"));
    truth
}

fn config(mix: Mix, seed: u64) -> Config {
    Config { mix, flows: 2000, seed, span: 30, vxlan: false }
}

#[test]
fn traffic_of_containers() {
    let mut seen = BTreeMap::<String, u64>::new();
    for seed in 1..=5 {
        for (name, value) in check(&config(Mix::Container, seed)).columns() {
            *seen.entry(name).or_default() += value;
        }
    }
    // The server's repetitions are of what was lost before the capture point: late, not repeated.
    let nothing = ["server_retransmit", "server_fast_", "server_timeout_", "http_"];
    for (name, value) in seen {
        assert_eq!(value == 0, nothing.iter().any(|none| name.starts_with(none)), "{name} {value}");
    }
}

#[test]
fn connections_that_stay_open() {
    check(&config(Mix::Many, 1));
}

#[test]
fn a_scan_beside_traffic_of_containers() {
    check(&config(Mix::Scan, 1));
}

#[test]
fn web_traffic() {
    for seed in 1..=3 {
        check(&config(Mix::Web, seed));
    }
}

#[test]
fn traffic_in_vxlan_is_the_same_traffic() {
    check(&Config { vxlan: true, ..config(Mix::Container, 7) });
    check(&Config { vxlan: true, ..config(Mix::Web, 8) });
}

/// Captures are made, not found: a figure that moves is the engine's doing.
#[test]
fn the_same_seed_gives_the_same_records() {
    let of = |seed| replay(&config(Mix::Container, seed)).0;
    assert!(of(3) == of(3));
    assert!(of(3) != of(4));
}
