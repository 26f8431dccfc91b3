//! Calling the engine's clock more often changes no record, whatever mixture of tunnels, fragments and errors comes.

use proptest::prelude::*;
use wiretag_capture::flow::{FlowConfig, FragmentLimits};
use wiretag_capture::{FlowRecord, LinkType};

use crate::wire::*;

const MS: i64 = 1_000_000;

/// Frames that concern one another.
fn frames() -> Vec<Vec<u8>> {
    let vxlan = |vni: u8, inner: &[u8]| udp(50_000, 4789, &joined(&[&[8, 0, 0, 0, 0, 0, vni, 0], inner]));
    let long = udp(40_000, 9, &[7; 60]);
    let tunnelled = vxlan(5, &frame(&hello()));
    let error = ipv4(1, (LEFT, ALICE), &joined(&[&[3, 3, 0, 0, 0, 0, 0, 0], &hello()]));
    let mut all = vec![
        frame(&hello()),
        frame(&reply()),
        frame(&error),
        frame(&ipv4(6, (ALICE, BOB), &tcp(40_000, 80, 1, &[1; 40]))),
        frame(&ipv4(17, (LEFT, RIGHT), &tunnelled)),
        frame(&ipv4(17, (RIGHT, LEFT), &vxlan(6, &frame(&reply())))),
        frame(&ipv4(17, (LEFT, RIGHT), &vxlan(6, &frame(&hello())))),
        frame(&ipv4(17, (LEFT, RIGHT), &vxlan(5, &frame(&part4(17, (ALICE, BOB), 0x2000, &long[..48]))))),
        frame(&ipv4(17, (LEFT, RIGHT), &vxlan(5, &frame(&part4(17, (ALICE, BOB), 6, &long[48..]))))),
    ];
    for (place, part) in [(0x2000, &long[..24]), (0x2003, &long[24..48]), (6, &long[48..])] {
        all.push(frame(&part4(17, (ALICE, BOB), place, part)));
    }
    for (place, part) in [(0x2000, &tunnelled[..40]), (5, &tunnelled[40..])] {
        all.push(frame(&part4(17, (LEFT, RIGHT), place, part)));
    }
    all
}

fn play(steps: &[(usize, i64, bool)], advances: bool, max_flows: usize) -> Vec<FlowRecord> {
    let frames = frames();
    let fragments = FragmentLimits { packets: 2, ..FragmentLimits::default() };
    let mut wire = Wire::with(FlowConfig { max_flows, fragments, ..config() });
    let mut latest = i64::MIN;
    for (which, wait, advance) in steps {
        wire.now += wait;
        let data = &frames[*which];
        wire.see(LinkType::ETHERNET, data, data.len() as u32);
        latest = latest.max(wire.now);
        if advances && *advance {
            wire.engine.advance(latest, &mut wire.records);
        }
    }
    // `end` also checks that each packet is in one row, and each carrier in one more.
    let (mut records, carriers, _) = wire.end();
    records.extend(carriers);
    records.sort_by_key(|record| (record.start, record.flow_id, record.slice));
    records
}

proptest! {
    #[test]
    fn batches_do_not_change_records(
        steps in prop::collection::vec(
            (0_usize..14, prop_oneof![5 => 0..50 * MS, 1 => 0..40_000 * MS, 1 => -2000 * MS..0], any::<bool>()),
            1..80,
        ),
        max_flows in 1_usize..12,
    ) {
        prop_assert_eq!(play(&steps, false, max_flows), play(&steps, true, max_flows));
    }
}
