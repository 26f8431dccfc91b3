//! What holds for every capture whatever is in it.

use wiretag_capture::file::{CaptureFile, FileInterface};
use wiretag_capture::flow::{Engine, FlowConfig};
use wiretag_capture::{EndReason, FlowRecord, Source};

use crate::answers::{Capture, corpus};
use crate::rows::Replay;

/// No packet is lost on the way, none is counted twice.
#[test]
fn every_packet_is_in_a_row_or_refused() {
    let Some(corpus) = corpus() else { return };
    for capture in Capture::all(&corpus) {
        let replay = Replay::of(&capture.path);
        let sum = |rows: &[&FlowRecord]| rows.iter().map(|row| row.client.packets + row.server.packets).sum::<u64>();
        let (tunnels, others): (Vec<_>, Vec<_>) = replay.records.iter().partition(|row| row.app == Some("tunnel"));
        let decoded = replay.packets - replay.refused.values().sum::<u64>();
        let counts = format!("{}: {decoded} decoded, refused {:?}", capture.name, replay.refused);
        // A tunnel's row has the packets that could not be opened, and all that other rows have from inside.
        assert!(sum(&others) <= decoded, "{counts}, {} in rows that are no tunnels", sum(&others));
        assert!(sum(&others) + sum(&tunnels) >= decoded, "{counts}, {} in tunnels", sum(&tunnels));
        assert!(!tunnels.is_empty() || sum(&others) == decoded, "{counts}, {} in rows", sum(&others));
    }
}

/// Where a burst ends, and how often the clock is told, changes no record.
#[test]
fn records_do_not_depend_on_how_packets_are_cut_into_batches() {
    let Some(corpus) = corpus() else { return };
    for capture in Capture::all(&corpus) {
        let expected = Replay::of(&capture.path).records;
        for burst in [1, 2, 7, 64] {
            let (mut packets, mut latest) = (0_u64, i64::MIN);
            let replay = Replay::with(&capture.path, |engine, records, time| {
                packets += 1;
                latest = latest.max(time);
                if packets % burst == 0 {
                    // Any moment between the last packet and this one.
                    engine.advance(latest, records);
                }
            });
            assert!(replay.records == expected, "{}: bursts of {burst}", capture.name);
        }
    }
}

/// Looking at what is open, however often, changes no record.
#[test]
fn records_do_not_depend_on_walks_over_what_is_open() {
    let Some(corpus) = corpus() else { return };
    for capture in Capture::all(&corpus) {
        let expected = Replay::of(&capture.path).records;
        let (mut open, mut shown) = (Vec::new(), 0);
        let replay = Replay::with(&capture.path, |engine, _, _| {
            if !engine.walk_some(2, &mut open) {
                engine.begin_walk(false);
            }
            shown += open.len();
            open.clear();
        });
        assert!(replay.records == expected, "{}", capture.name);
        assert!(shown > 0 || replay.packets < 2 || expected.is_empty(), "{}", capture.name);
    }
}

/// Packets that are read and counted several at a time give what they give one by one.
#[test]
fn bursts_are_the_packets_in_them() {
    let Some(corpus) = corpus() else { return };
    for capture in Capture::all(&corpus) {
        let engine = || Engine::new(FlowConfig { transactions: true, ..FlowConfig::new("node", Source::File) });
        let (mut one, mut several) = (engine(), engine());
        let (mut expected, mut records) = (Vec::new(), Vec::new());
        let (mut expected_ids, mut ids) = (Vec::new(), Vec::new());
        let (Ok(mut file), Ok(mut again)) = (CaptureFile::open(&capture.path), CaptureFile::open(&capture.path)) else {
            continue;
        };
        let (mut expected_names, mut names) = (Vec::new(), Vec::new());
        let mut name = |number, interface: &FileInterface| expected_names.push((number, interface.clone()));
        while let Ok(Some(packet)) = file.next_packet_naming(&mut name) {
            expected_ids.push((packet.time, one.packet(&packet, &mut expected)));
        }
        let mut name = |number, interface: &FileInterface| names.push((number, interface.clone()));
        while let Ok(burst) = again.next_burst(&mut name) {
            if burst.is_empty() {
                break;
            }
            several.burst(&burst, &mut records, |packet, id| ids.push((packet.time, id)));
        }
        let (mut expected_transactions, mut transactions) = (Vec::new(), Vec::new());
        one.finish(EndReason::EndOfInput, &mut expected);
        several.finish(EndReason::EndOfInput, &mut records);
        one.take_transactions(&mut expected_transactions);
        several.take_transactions(&mut transactions);
        assert_eq!((&names, file.position()), (&expected_names, again.position()), "{}", capture.name);
        assert!(ids == expected_ids, "{}: flow ids", capture.name);
        assert!(records == expected, "{}: records", capture.name);
        assert!(transactions == expected_transactions, "{}: transactions", capture.name);
        assert_eq!(several.counters(), one.counters(), "{}", capture.name);
    }
}

/// A file cut anywhere gives the packets before the cut, and says so.
#[test]
fn every_prefix_of_a_file_is_survived() {
    let Some(corpus) = corpus() else { return };
    let mut files = 0;
    for capture in Capture::all(&corpus).iter().filter(|capture| capture.index["size"].as_u64() < Some(2_000)) {
        let bytes = std::fs::read(&capture.path).expect("the capture");
        let whole = Replay::of(&capture.path);
        for length in 0..bytes.len() {
            let replay = Replay::of_bytes(bytes[..length].to_vec());
            assert!(replay.packets <= whole.packets, "{} cut at {length}", capture.name);
            assert!(replay.damage.is_some() || length >= 24, "{} cut at {length}", capture.name);
        }
        files += 1;
    }
    assert!(files > 20, "only {files} files are small");
}
