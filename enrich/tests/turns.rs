//! Which observation counts as stories: flows with the same ends that come one after the other, at one interface or another.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod rows;

use rows::{BEGIN, Bridge, ClientVeth, SECOND, ServerVeth, record, tagger};
use wiretag_capture::{EndReason, FlowRecord};
use wiretag_enrich::TaggedFlow;
use wiretag_enrich::tagger::{TaggedRows, Tagger, TaggerConfig};
use wiretag_enrich::timeline::Timeline;

/// Nobody has a name: it says nothing about what counts.
fn known() -> Timeline {
    Timeline::new()
}

/// Rows by where they were seen and whether they count.
fn primary(rows: &TaggedRows) -> Vec<(u64, bool)> {
    rows.flows.iter().map(|row| (row.record.flow_id, row.record.primary)).collect()
}

/// The client has another veth after each start, and the same address and ports; the server's veth sees all of it as one flow. Each
/// packet counts once.
#[test]
fn a_client_that_is_started_again_counts_at_its_new_interface() {
    const AGAIN: u32 = 13;
    let (mut tagger, timeline, mut rows) = (tagger(), known(), TaggedRows::default());
    tagger.set_link(0, AGAIN, true);
    let from_to = |at, slice, [from, to]: [i64; 2]| FlowRecord {
        end: BEGIN + to * SECOND,
        end_reason: Some(EndReason::Idle),
        ..record(at, slice, from)
    };
    let again = |from_to| FlowRecord { flow_id: 13, interface_index: AGAIN, ..from_to };
    let mut tell = |record: FlowRecord, now: i64| {
        tagger.push(0, record, BEGIN + now * SECOND);
        tagger.drain(BEGIN + (now + 3) * SECOND, &timeline, &mut rows);
    };
    tell(from_to(ClientVeth, 0, [0, 10]), 40);
    tell(FlowRecord { end_reason: Some(EndReason::Active), ..from_to(ServerVeth, 0, [0, 60]) }, 60);
    tell(FlowRecord { end_reason: Some(EndReason::Active), ..again(from_to(ClientVeth, 0, [13, 73])) }, 73);
    tell(from_to(ServerVeth, 1, [60, 80]), 110);
    tell(again(from_to(ClientVeth, 1, [73, 80])), 110);
    // Nobody watches the client any more.
    tell(from_to(ServerVeth, 0, [120, 150]), 180);
    assert_eq!(primary(&rows), [(11, true), (12, false), (13, true), (12, false), (13, true), (12, true)]);
}

/// Each start is over before rows of it have left, while the server's interface, and the bridge that tells of nothing but one flow, go
/// on: what is open is shown as it will count.
#[test]
fn a_client_that_is_started_again_at_once_counts_while_its_rows_wait() {
    let (mut tagger, timeline, mut rows) = (tagger(), known(), TaggedRows::default());
    let flow = |at, index: u32, [from, to]: [i64; 2], end_reason| FlowRecord {
        flow_id: index.into(),
        interface_index: index,
        start: BEGIN + from * SECOND,
        end: BEGIN + to * SECOND,
        end_reason,
        ..record(at, 0, 0)
    };
    let others = |to, reason| [(ServerVeth, 12), (Bridge, 10)].map(|(at, index)| flow(at, index, [0, to], reason));
    for (start, index) in [(0, 21), (1, 22), (2, 23)] {
        tagger.set_link(0, index, true);
        let now = BEGIN + start * SECOND + SECOND / 2;
        let mut open = others(start, None).to_vec();
        open.push(flow(ClientVeth, index, [start, start], None));
        let shown = tagger.name_open(0, open, now, &timeline);
        let shown: Vec<_> = shown.iter().filter(|row| row.record.primary).map(|row| row.record.flow_id).collect();
        assert_eq!(shown, [u64::from(index)], "start {start}");
        tagger.push(0, flow(ClientVeth, index, [start, start], Some(EndReason::EndOfInput)), now);
        tagger.drain(now, &timeline, &mut rows);
    }
    assert!(tagger.take_demoted().is_empty());
    for record in others(2, Some(EndReason::Idle)) {
        tagger.push(0, record, BEGIN + 62 * SECOND);
    }
    tagger.flush(&timeline, &mut rows);
    assert_eq!(primary(&rows), [(21, true), (22, true), (23, true), (12, false), (10, false)]);
}

/// Its end is told after the next one's row came.
#[test]
fn a_client_whose_end_is_told_late_leaves_the_next_its_turn() {
    const AGAIN: u32 = 13;
    let (mut tagger, timeline, mut rows) = (tagger(), known(), TaggedRows::default());
    tagger.set_link(0, AGAIN, true);
    let second = |from, to| FlowRecord {
        end: BEGIN + to * SECOND,
        end_reason: Some(EndReason::Idle),
        ..record(ClientVeth, 0, from)
    };
    tagger.name_open(0, vec![FlowRecord { end_reason: None, ..second(0, 1) }], BEGIN + SECOND, &timeline);
    tagger.push(0, FlowRecord { flow_id: 13, interface_index: AGAIN, ..second(2, 3) }, BEGIN + 4 * SECOND);
    tagger.push(0, second(0, 1), BEGIN + 5 * SECOND);
    tagger.flush(&timeline, &mut rows);
    assert_eq!(primary(&rows), [(13, true), (11, true)]);
}

/// Requests come in by one interface, answers go out by another: both count. A point that sees both directions adds nothing.
#[test]
fn each_direction_counts_where_requests_and_answers_go_different_ways() {
    let (mut tagger, timeline, mut rows) = (tagger(), known(), TaggedRows::default());
    let sees = |at, slice: u32, [client, server]: [u64; 2]| {
        let mut row = record(at, slice, i64::from(slice) * 60);
        (row.client.packets, row.server.packets) = (client, server);
        row
    };
    let turned = |mut row: FlowRecord| {
        std::mem::swap(&mut row.client, &mut row.server);
        row
    };
    let shown =
        tagger.name_open(0, vec![sees(ClientVeth, 0, [5, 0]), turned(sees(Bridge, 0, [0, 5]))], BEGIN, &timeline);
    assert!(shown.iter().all(|row| row.record.primary), "{shown:?}");
    tagger.push(0, sees(ClientVeth, 0, [9, 0]), BEGIN + 60 * SECOND);
    tagger.push(0, turned(sees(Bridge, 0, [0, 8])), BEGIN + 60 * SECOND);
    tagger.push(0, sees(ServerVeth, 0, [9, 8]), BEGIN + 60 * SECOND);
    tagger.flush(&timeline, &mut rows);
    assert_eq!(primary(&rows), [(11, true), (10, true), (12, false)]);
    assert!(tagger.take_demoted().is_empty());
    // The way of the answers changes: from then on the first point has everything.
    for row in [sees(ClientVeth, 1, [9, 4]), turned(sees(Bridge, 1, [0, 4])), sees(ClientVeth, 2, [9, 0])] {
        tagger.push(0, row, BEGIN + 120 * SECOND);
    }
    let mut rows = TaggedRows::default();
    tagger.flush(&timeline, &mut rows);
    assert_eq!(primary(&rows), [(11, true), (10, false), (11, true)]);
}

/// What is seen of one direction so far may turn out to be of both.
#[test]
fn a_point_that_was_shown_for_one_direction_gives_way() {
    let (mut tagger, timeline) = (tagger(), known());
    let open = |at, [client, server]: [u64; 2]| {
        let mut row = FlowRecord { end_reason: None, ..record(at, 0, 0) };
        (row.client.packets, row.server.packets) = (client, server);
        row
    };
    let counts = |rows: Vec<TaggedFlow>| rows.iter().map(|row| row.record.primary).collect::<Vec<_>>();
    let first = tagger.name_open(0, vec![open(ClientVeth, [1, 0]), open(ServerVeth, [0, 1])], BEGIN, &timeline);
    assert_eq!(counts(first), [true, true]);
    let then = tagger.name_open(0, vec![open(ServerVeth, [1, 1]), open(ClientVeth, [1, 1])], BEGIN, &timeline);
    assert_eq!((counts(then), tagger.take_demoted()), (vec![false, true], vec![(12, 0)]));
}

/// The packets of one passage are the same ones also where they come to a little later.
#[test]
fn what_is_over_at_one_point_is_not_another_flow_at_the_next() {
    let (mut tagger, timeline, mut rows) = (tagger(), known(), TaggedRows::default());
    let single = |at, nanoseconds| {
        let at = record(at, 0, 0);
        let time = at.start + nanoseconds;
        FlowRecord { start: time, end: time, end_reason: Some(EndReason::Idle), ..at }
    };
    for (point, after) in [(ClientVeth, 0), (ServerVeth, 40_000_000)] {
        tagger.push(0, single(point, after), BEGIN + 31 * SECOND);
        tagger.flush(&timeline, &mut rows);
    }
    assert_eq!(primary(&rows), [(11, true), (12, false)]);
}

/// An interface that has gone without a last row does not keep its place because others see the flow.
#[test]
fn a_choice_is_forgotten_where_the_primary_point_tells_nothing_any_more() {
    let (mut tagger, timeline, mut rows) = (tagger(), known(), TaggedRows::default());
    tagger.push(0, record(ClientVeth, 0, 0), BEGIN + 60 * SECOND);
    for slice in 0..10 {
        let since = i64::from(slice) * 60;
        tagger.push(0, record(ServerVeth, slice, since), BEGIN + (since + 60) * SECOND);
        tagger.drain(BEGIN + (since + 70) * SECOND, &timeline, &mut rows);
    }
    let counts: Vec<bool> = primary(&rows).into_iter().filter(|row| row.0 == 12).map(|row| row.1).collect();
    assert_eq!(counts, [[false; 8].as_slice(), &[true; 2]].concat());
}

/// It was gone for a moment only; the packets that follow are none of before.
#[test]
fn a_client_that_is_started_again_in_a_tenth_of_a_second_counts() {
    const AGAIN: u32 = 13;
    let (mut tagger, timeline, mut rows) = (tagger(), known(), TaggedRows::default());
    tagger.set_link(0, AGAIN, true);
    let lasts = |at, [from, to]: [i64; 2]| {
        let row = record(at, 0, 0);
        let (start, end) = (row.start + from * SECOND / 10, row.start + to * SECOND / 10);
        FlowRecord { start, end, end_reason: Some(EndReason::EndOfInput), ..row }
    };
    let again = FlowRecord { flow_id: 13, interface_index: AGAIN, ..lasts(ClientVeth, [11, 20]) };
    for row in [lasts(ClientVeth, [0, 10]), again, lasts(ServerVeth, [0, 20])] {
        tagger.push(0, row, BEGIN + 5 * SECOND);
    }
    tagger.flush(&timeline, &mut rows);
    assert_eq!(primary(&rows), [(11, true), (13, true), (12, false)]);
}

/// A slice that begins with the last packets of a flow is of that flow.
#[test]
fn the_last_slice_of_one_point_is_not_another_flow() {
    let (mut tagger, timeline, mut rows) = (tagger(), known(), TaggedRows::default());
    let ended =
        |row: FlowRecord| FlowRecord { end: BEGIN + 60 * SECOND + 100, end_reason: Some(EndReason::Fin), ..row };
    tagger.push(0, ended(record(ClientVeth, 0, 0)), BEGIN + 62 * SECOND);
    tagger.push(0, record(ServerVeth, 0, 0), BEGIN + 62 * SECOND);
    let last = ended(record(ServerVeth, 1, 60));
    tagger.push(0, FlowRecord { start: last.end + 50_000, end: last.end + 90_000, ..last }, BEGIN + 62 * SECOND);
    tagger.flush(&timeline, &mut rows);
    assert_eq!(primary(&rows), [(11, true), (12, false), (12, false)]);
}

/// A scan: more flows than are remembered, each seen at both ends a moment apart.
#[test]
fn more_flows_than_are_remembered_count_once_each() {
    const FLOWS: u16 = 1000;
    let config = TaggerConfig { boot: "boot".into(), max_claims: 64, ..TaggerConfig::default() };
    let (mut tagger, timeline, mut rows) = (Tagger::new(config), known(), TaggedRows::default());
    for point in [ClientVeth, ServerVeth] {
        tagger.set_link(0, point as u32, true);
    }
    for number in 0..FLOWS {
        let now = BEGIN + i64::from(number) * SECOND;
        for point in [ClientVeth, ServerVeth] {
            let mut row = FlowRecord { start: now, end: now + SECOND, ..record(point, 0, 0) };
            row.end_reason = Some(EndReason::Idle);
            row.client.port = Some(10_000 + number);
            tagger.push(0, row, now + SECOND);
        }
        tagger.drain(now, &timeline, &mut rows);
    }
    tagger.flush(&timeline, &mut rows);
    let counted = primary(&rows).into_iter().filter(|(_, counts)| *counts).count();
    assert_eq!((rows.flows.len(), counted), (2 * usize::from(FLOWS), usize::from(FLOWS)));
}
