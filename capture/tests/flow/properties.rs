//! Random traffic: what must hold whatever comes.

use proptest::prelude::*;
use wiretag_capture::decode::Transport;
use wiretag_capture::flow::{FlowConfig, shard};
use wiretag_capture::{FlowRecord, Protocol};

use crate::story::*;

#[derive(Debug, Clone)]
pub(crate) struct Action {
    pub(crate) wait: i64,
    pub(crate) segment: Segment,
    pub(crate) udp: bool,
    pub(crate) advance: bool,
}

pub(crate) fn action() -> impl Strategy<Value = Action> {
    let wait = prop_oneof![4 => 0..50 * MS, 2 => 0..5 * SECOND, 1 => 0..100 * SECOND, 1 => -SECOND..0];
    let bits = prop_oneof![1 => Just(SYN), 1 => Just(SYN | ACK), 4 => Just(ACK), 1 => Just(FIN | ACK), 1 => Just(RST), 1 => any::<u8>()];
    let from = prop_oneof![Just(Client), Just(Server)];
    let numbers = (0_u32..4000, 0_u32..4000, 0_u32..1500);
    let options = prop::collection::vec(any::<u8>(), 0..20);
    (wait, bits, from, numbers, 0_u16..6, options, any::<(bool, bool, u16)>()).prop_map(
        |(wait, bits, from, (seq, ack, length), port, options, (udp, advance, window))| Action {
            wait,
            segment: Segment {
                options,
                ..segment(from, bits, seq, ack).data(length).ports(40000 + port, 53).window(window)
            },
            udp,
            advance,
        },
    )
}

fn play(actions: &[Action], advances: bool, max_flows: usize) -> Vec<FlowRecord> {
    let mut story = Story::with(FlowConfig { max_flows, ..config() });
    let (mut now, mut latest) = (0, i64::MIN);
    for action in actions {
        now += action.wait;
        if action.udp {
            story.udp(now, action.segment.from, action.segment.ports, &action.segment.options);
        } else {
            story.tcp(now, &action.segment);
        }
        latest = latest.max(now);
        if advances && action.advance {
            story.advance(latest);
        }
    }
    let mut records = story.end();
    records.sort_by_key(|record| (record.start, record.flow_id, record.slice));
    records
}

/// The same over several engines, each told the time of all.
fn play_sharded(actions: &[Action], engines: usize) -> Vec<FlowRecord> {
    let mut stories: Vec<_> = (0..engines).map(|_| Story::new()).collect();
    let (mut now, mut latest) = (0, i64::MIN);
    for action in actions {
        now += action.wait;
        latest = latest.max(now);
        let number = sharded(&action.segment, action.udp, engines);
        let story = &mut stories[number];
        story.advance(latest);
        if action.udp {
            story.udp(now, action.segment.from, action.segment.ports, &action.segment.options);
        } else {
            story.tcp(now, &action.segment);
        }
    }
    let mut records: Vec<_> = stories
        .into_iter()
        .flat_map(|mut story| {
            story.advance(latest);
            story.end()
        })
        .collect();
    records.sort_by_key(|record| (record.start, record.flow_id, record.slice));
    records
}

fn sharded(segment: &Segment, udp: bool, engines: usize) -> usize {
    let protocol = if udp { Protocol::UDP } else { Protocol::TCP };
    let packet = decoded(segment.from, Some(segment.ports), protocol, Transport::Other { payload_len: 0 });
    shard(&packet, engines)
}

proptest! {
    #[test]
    fn engines_in_parallel_give_the_same_records(actions in prop::collection::vec(action(), 1..200), engines in 1_usize..=4) {
        prop_assert_eq!(play_sharded(&actions, engines), play(&actions, true, 1000));
    }

    /// Also checks, in `Story::end`, that packets in equal packets in records.
    #[test]
    fn batches_do_not_change_records(actions in prop::collection::vec(action(), 1..120), max_flows in 1_usize..12) {
        prop_assert_eq!(play(&actions, false, max_flows), play(&actions, true, max_flows));
    }

    #[test]
    fn bytes_are_conserved_over_slices(actions in prop::collection::vec(action(), 1..120)) {
        let records = play(&actions, false, 100);
        let sent: u64 = actions.iter().map(|a| if a.udp { 100 } else { 40 + u64::from(a.segment.length) }).sum();
        prop_assert_eq!(records.iter().map(|r| r.client.bytes + r.server.bytes).sum::<u64>(), sent);
        for record in &records {
            prop_assert!(record.start <= record.end);
            prop_assert!(record.client.payload_bytes <= record.client.bytes);
        }
        // A flow's slices are numbered without gaps.
        let mut slices: Vec<_> = records.iter().map(|r| (r.flow_id, r.slice)).collect();
        slices.sort_unstable();
        for pair in slices.windows(2) {
            prop_assert!(pair[1].1 == if pair[0].0 == pair[1].0 { pair[0].1 + 1 } else { 0 }, "{:?}", pair);
        }
    }
}
