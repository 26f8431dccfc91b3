//! What a walk over the open slices gives, and that it disturbs nothing.

use std::collections::HashMap;

use proptest::prelude::*;
use wiretag_capture::FlowRecord;

use crate::properties::{Action, action};
use crate::story::*;

/// A whole walk, in portions of this many.
fn walk(story: &mut Story, most: usize) -> Vec<FlowRecord> {
    let mut open = Vec::new();
    story.engine.begin_walk(false);
    loop {
        let before = open.len();
        let more = story.engine.walk_some(most, &mut open);
        assert!(open.len() - before <= most, "a portion is bounded");
        if !more {
            return open;
        }
    }
}

#[test]
fn a_connection_is_shown_as_it_would_be_if_it_ended_now() {
    let mut story = Story::new();
    story.handshake(0);
    story.tcp(SECOND, &segment(Client, ACK, 101, 501).data(100));
    let open = walk(&mut story, 10);
    let [open] = open.as_slice() else { panic!("{open:?}") };
    assert_eq!((open.end_reason, open.slice, open.client.payload_bytes), (None, 0, 100));
    assert_eq!((open.client.packets, open.server.packets, open.end), (3, 1, BEGIN + SECOND));
    let mut record = story.only();
    record.end_reason = None;
    assert_eq!(*open, record);
}

#[test]
fn only_what_had_a_packet_since_the_last_walk_is_shown_again() {
    let mut story = Story::new();
    story.udp(0, Client, (1, 9), b"a");
    story.udp(1, Client, (2, 9), b"b");
    story.advance(SECOND);
    assert_eq!(walk(&mut story, 10).len(), 2);
    story.advance(5 * SECOND);
    let ports = |open: &[FlowRecord]| open.iter().map(|r| r.client.port.max(r.server.port)).collect::<Vec<_>>();
    story.udp(6 * SECOND, Server, (2, 9), b"c");
    story.udp(7 * SECOND, Client, (30, 9), b"d");
    story.advance(10 * SECOND);
    let open = walk(&mut story, 10);
    assert_eq!(ports(&open), [Some(9), Some(30)]);
    assert_eq!(open[0].client.packets + open[0].server.packets, 2);
    story.advance(15 * SECOND);
    assert!(walk(&mut story, 10).is_empty());
    story.engine.begin_walk(true);
    let mut all = Vec::new();
    assert!(!story.engine.walk_some(10, &mut all));
    assert_eq!(all.len(), 3, "unless everything is asked for");
    // Nothing of a slice that has been cut is shown before the flow speaks again.
    let mut story = Story::new();
    story.handshake(0);
    story.advance(61 * SECOND);
    assert_eq!(story.records.len(), 1);
    assert!(walk(&mut story, 10).is_empty());
    story.tcp(62 * SECOND, &segment(Client, ACK, 101, 501).data(100));
    assert_eq!(walk(&mut story, 10).iter().map(|r| (r.slice, r.client.packets)).collect::<Vec<_>>(), [(1, 1)]);
}

/// Flows and packets that come while a walk goes on are in the next one, if not in this.
#[test]
fn a_walk_in_portions_misses_nothing_that_came_meanwhile() {
    let mut story = Story::new();
    for port in 1..=100 {
        story.udp(i64::from(port), Client, (port, 9), b"a");
    }
    let (mut open, mut at) = (Vec::new(), SECOND);
    story.engine.begin_walk(false);
    while story.engine.walk_some(7, &mut open) {
        at += MS;
        story.udp(at, Client, (1, 9), b"again");
        story.udp(at, Client, (1000 + (at / MS) as u16, 9), b"new");
    }
    open.extend(walk(&mut story, 7));
    let mut last: HashMap<u64, u64> = HashMap::new();
    for record in &open {
        last.insert(record.flow_id, record.client.packets + record.server.packets);
    }
    let ended = story.end();
    assert!(ended.len() > 100);
    for record in &ended {
        assert_eq!(last.get(&record.flow_id), Some(&(record.client.packets + record.server.packets)));
    }
}

/// Plays with walks after some of the packets; the records, and the last that walks showed of each slice.
fn play(actions: &[Action], walks: bool) -> (Vec<FlowRecord>, HashMap<(u64, u32), FlowRecord>) {
    let (mut story, mut now, mut latest, mut shown) = (Story::new(), 0, i64::MIN, HashMap::new());
    for action in actions {
        now += action.wait;
        latest = latest.max(now);
        if action.udp {
            story.udp(now, action.segment.from, action.segment.ports, &action.segment.options);
        } else {
            story.tcp(now, &action.segment);
        }
        if walks && action.advance {
            story.advance(latest);
            shown.extend(walk(&mut story, 3).into_iter().map(|open| ((open.flow_id, open.slice), open)));
        }
    }
    if walks {
        shown.extend(walk(&mut story, 3).into_iter().map(|open| ((open.flow_id, open.slice), open)));
    }
    (story.end(), shown)
}

proptest! {
    /// With or without walks the records are the same, and of what is open at the end the last walk knew everything.
    #[test]
    fn walks_change_no_record(actions in prop::collection::vec(action(), 1..200)) {
        let (records, shown) = play(&actions, true);
        prop_assert_eq!(&records, &play(&actions, false).0);
        let volume = |record: &FlowRecord| (record.client.packets + record.server.packets, record.client.bytes + record.server.bytes);
        for record in &records {
            let open = shown.get(&(record.flow_id, record.slice));
            if record.end_reason == Some(wiretag_capture::EndReason::EndOfInput) {
                prop_assert_eq!(open.map(volume), Some(volume(record)));
            }
            if let Some(open) = open {
                prop_assert!(volume(open) <= volume(record) && open.end_reason.is_none());
            }
        }
    }
}
