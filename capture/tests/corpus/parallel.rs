//! Several engines in threads give what one gives.

use std::num::NonZeroUsize;

use wiretag_capture::engines::{Engines, Keep, Outcome};
use wiretag_capture::file::{CaptureFile, FileInterface};
use wiretag_capture::flow::FlowConfig;
use wiretag_capture::{OwnedPacket, Source};

use crate::answers::{Capture, corpus};

fn config() -> FlowConfig {
    FlowConfig { transactions: true, ..FlowConfig::new("node", Source::File) }
}

fn start(engines: usize, keep: Keep) -> Engines {
    Engines::start(&config(), NonZeroUsize::new(engines).expect("engines"), keep).expect("threads")
}

/// The outcome in the order of the command's output.
fn sorted(mut outcome: Outcome) -> Outcome {
    outcome.records.sort_by_key(|record| (record.start, record.flow_id, record.slice));
    outcome.transactions.sort_by_key(|row| (row.exchange.start, row.flow_id, row.number));
    outcome
}

fn replay(capture: &Capture, engines: usize, keep: Keep) -> Option<Outcome> {
    let mut file = CaptureFile::open(&capture.path).ok()?;
    let mut all = start(engines, keep);
    let mut names = Vec::new();
    let mut name = |number, interface: &FileInterface| names.push((number, interface.name.clone()));
    while let Ok(burst) = file.next_burst(&mut name) {
        if burst.is_empty() {
            break;
        }
        all.burst(&burst);
    }
    Some(sorted(all.finish()))
}

fn assert_same(one: &Outcome, several: &Outcome, of: &str) {
    assert!(several.records == one.records, "{of}: records");
    assert!(several.transactions == one.transactions, "{of}: transactions");
    assert_eq!((several.slices, &several.counters), (one.slices, &one.counters), "{of}");
}

#[test]
fn several_engines_give_what_one_gives() {
    let Some(corpus) = corpus() else { return };
    let mut shared = 0;
    for capture in Capture::all(&corpus) {
        for keep in [Keep::Records, Keep::Transactions] {
            let Some(one) = replay(&capture, 1, keep) else { continue };
            for engines in 2..=4 {
                let several = replay(&capture, engines, keep).expect("a capture");
                assert_same(&one, &several, &format!("{} by {engines} engines", capture.name));
            }
            shared += usize::from(one.records.len() > 8);
        }
    }
    assert!(shared > 10, "only {shared} captures have flows to share");
}

/// Packets of all captures, as if they had been captured at once; each seventh is late.
fn medley(captures: &[Capture]) -> Vec<OwnedPacket> {
    let mut packets = Vec::new();
    for capture in captures {
        let Ok(mut file) = CaptureFile::open(&capture.path) else { continue };
        let mut first = None;
        while let Ok(Some(packet)) = file.next_packet() {
            // Whatever the capture's gaps were, up to a minute of them.
            let since = packet.time.saturating_sub(*first.get_or_insert(packet.time)).clamp(0, 60_000_000_000);
            let owned = OwnedPacket {
                time: since,
                data: packet.data.into(),
                wire_len: packet.wire_len,
                link_type: packet.link_type,
                interface: packet.interface,
                direction: packet.direction,
                vlan: packet.vlan,
            };
            packets.push(owned);
        }
    }
    packets.sort_by_key(|packet| packet.time);
    for packet in packets.iter_mut().step_by(7) {
        packet.time -= 3_000_000_000;
    }
    packets
}

#[test]
fn several_engines_give_what_one_gives_of_all_captures_at_once() {
    let Some(corpus) = corpus() else { return };
    let packets = medley(&Capture::all(&corpus));
    let play = |engines: usize| {
        let mut all = start(engines, Keep::Records);
        all.name_interface(0, "eth0");
        for burst in packets.chunks(300) {
            all.burst(&burst.iter().map(OwnedPacket::view).collect::<Vec<_>>());
        }
        sorted(all.finish())
    };
    let one = play(1);
    assert!(one.counters.fragments_joined > 50 && one.counters.carriers > 500, "{:?}", one.counters);
    assert!(one.records.iter().any(|record| record.icmp_error.is_some()));
    for engines in [2, 3, 7] {
        assert_same(&one, &play(engines), &format!("{engines} engines"));
    }
}
