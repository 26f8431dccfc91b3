//! The packet log against a model: whatever is appended, flushed, sealed and then cut by a crash, what can be read is a
//! prefix of what was written, and everything that was flushed before an intact end is in it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use wiretag_capture::file::CaptureFile;
use wiretag_capture::packet::Direction;
use wiretag_capture::{LinkType, Packet, PacketBuffer};
use wiretag_store::packets::{SegmentChanges, Wanted, index_path, list, read_flows, recover};
use wiretag_store::{Compression, PacketLog, PacketLogConfig};

#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    interface: String,
    time: i64,
    data: Vec<u8>,
    wire_len: u32,
    direction: Option<Direction>,
    flow: u64,
}

#[derive(Debug, Clone)]
enum Action {
    Append { interface: usize, flow: Option<u64>, data: Vec<u8>, buffered: bool },
    Flush,
    Seal,
}

fn action() -> impl Strategy<Value = Action> {
    let append = (
        0..5_usize,
        proptest::option::weighted(0.8, 0..9_u64),
        proptest::collection::vec(any::<u8>(), 0..300),
        any::<bool>(),
    )
        .prop_map(|(interface, flow, data, buffered)| Action::Append { interface, flow, data, buffered });
    prop_oneof![20 => append, 2 => Just(Action::Flush), 1 => Just(Action::Seal)]
}

fn config() -> PacketLogConfig {
    PacketLogConfig {
        node: "node-1".into(),
        segment_bytes: 6_000,
        segment_age: Duration::from_hours(1),
        block_bytes: 1_500,
        snap_len: 200,
        compression: Compression::Level(1),
        ..PacketLogConfig::default()
    }
}

const START: i64 = 1_700_000_000_000_000_000;

/// Carries the actions out; gives the packets of flows, in order, and how many of them had been flushed.
fn play(dir: &Path, actions: &[Action]) -> (Vec<Kept>, usize) {
    let mut log = PacketLog::open(dir, config(), SegmentChanges::default()).unwrap();
    let (mut model, mut flushed) = (Vec::new(), 0);
    for (number, action) in actions.iter().enumerate() {
        match action {
            Action::Append { interface, flow, data, buffered } => {
                let name = format!("veth{interface}");
                let packet = Packet {
                    time: START + number as i64 * 1_000,
                    data,
                    wire_len: data.len() as u32 + 7,
                    link_type: if *interface == 4 { LinkType::RAW } else { LinkType::ETHERNET },
                    interface: *interface as u32,
                    direction: if number % 2 == 0 { Some(Direction::Ingress) } else { None },
                    vlan: None,
                };
                if *buffered {
                    // What cuts packets here is the ring.
                    let mut buffer = PacketBuffer::default();
                    buffer.push(&Packet { data: &data[..data.len().min(200)], ..packet }, *flow);
                    log.append_buffer(&mut buffer, &|_| &name).unwrap();
                } else {
                    log.append(&name, &packet, *flow).unwrap();
                }
                if let Some(flow) = *flow {
                    let data = data[..data.len().min(200)].to_vec();
                    let (time, wire_len, direction) = (packet.time, packet.wire_len, packet.direction);
                    model.push(Kept { interface: name, time, data, wire_len, direction, flow });
                }
            }
            Action::Flush => {
                log.flush().unwrap();
                flushed = model.len();
            }
            Action::Seal => {
                log.seal().unwrap();
                flushed = model.len();
            }
        }
    }
    (model, flushed)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    list(dir).unwrap().iter().map(|path| dir.join(path)).collect()
}

fn read(dir: &Path, flows: &HashSet<u64>) -> Vec<Kept> {
    let mut found = Vec::new();
    read_flows(&files(dir), Wanted::Flows(flows), (i64::MIN, i64::MAX), &mut |interface, packet, flow| {
        found.push(Kept {
            interface: interface.to_owned(),
            time: packet.time,
            data: packet.data.to_vec(),
            wire_len: packet.wire_len,
            direction: packet.direction,
            flow: flow.unwrap(),
        });
        Ok(())
    })
    .unwrap();
    found
}

fn count(files: &[PathBuf]) -> usize {
    let stats = read_flows(files, Wanted::Flows(&every_flow()), (i64::MIN, i64::MAX), &mut |_, _, _| Ok(())).unwrap();
    stats.packets as usize
}

/// Packets of a capture file.
fn in_capture(path: &Path) -> u64 {
    let file = std::fs::File::open(path).unwrap();
    let file = zstd::stream::Decoder::new(file).unwrap();
    let mut capture = CaptureFile::new(Box::new(file), "set aside").unwrap();
    let mut count = 0;
    while capture.next_packet().unwrap().is_some() {
        count += 1;
    }
    count
}

fn every_flow() -> HashSet<u64> {
    (0..9).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn an_open_log_reads_as_what_was_flushed(actions in proptest::collection::vec(action(), 0..150)) {
        let dir = tempfile::tempdir().unwrap();
        let (model, flushed) = play(dir.path(), &actions);
        let found = read(dir.path(), &every_flow());
        prop_assert!(found.len() >= flushed);
        prop_assert_eq!(&found[..], &model[..found.len()]);
        let one = HashSet::from([3]);
        let wanted: Vec<Kept> = model[..found.len()].iter().filter(|kept| kept.flow == 3).cloned().collect();
        prop_assert_eq!(read(dir.path(), &one), wanted);
    }

    #[test]
    fn a_torn_log_recovers_to_a_prefix(
        actions in proptest::collection::vec(action(), 1..150),
        at in 0.0..1.0_f64,
        which in any::<bool>(),
        damage in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (model, _) = play(dir.path(), &actions);
        let before = read(dir.path(), &every_flow());
        let all = read_flows(&files(dir.path()), Wanted::All, (i64::MIN, i64::MAX), &mut |_, _, _| Ok(())).unwrap().packets;
        let Some(last) = files(dir.path()).last().cloned() else { return Ok(()) };
        let earlier = files(dir.path()).len() - 1;
        let untouched = count(&files(dir.path())[..earlier]);
        let torn = if which { index_path(&last) } else { last };
        let length = torn.metadata().unwrap().len();
        let place = (length as f64 * at) as u64;
        if damage {
            let mut bytes = std::fs::read(&torn).unwrap();
            bytes[place as usize] ^= 0x40;
            std::fs::write(&torn, bytes).unwrap();
        } else {
            OpenOptions::new().write(true).open(&torn).unwrap().set_len(place).unwrap();
        }
        let mut packets = 0;
        let mut aside = 0;
        for path in list(dir.path()).unwrap() {
            let recovered = recover(dir.path(), &path).unwrap();
            if which {
                aside += recovered.set_aside.map_or(0, |path| in_capture(&path));
            }
            packets += recovered.segment.map_or(0, |segment| segment.packets);
        }
        let found = read(dir.path(), &every_flow());
        prop_assert!(found.len() >= untouched, "whole segments stay");
        if which {
            prop_assert_eq!(packets + aside, all, "the index may cost their flows, no packets");
        }
        prop_assert!(found.len() as u64 <= packets && found.len() <= before.len());
        prop_assert_eq!(&found[..], &model[..found.len()]);
        for path in list(dir.path()).unwrap() {
            let again = recover(dir.path(), &path).unwrap();
            prop_assert!(again.cut == 0 && again.segment.is_some(), "recovery is done once");
            let file = std::fs::File::open(dir.path().join(&path)).unwrap();
            prop_assert!(zstd::stream::decode_all(file).is_ok(), "a sealed segment decompresses as a whole");
        }
    }
}
