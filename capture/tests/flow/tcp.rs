//! Handshake, sequence space, close.

use wiretag_capture::{Direction, EndReason, FlowRecord, OrientedBy, TcpState};

use crate::story::*;

fn halves(record: &FlowRecord) -> (Option<u32>, Option<u32>, Option<u32>) {
    (record.client.rtt_us, record.server.rtt_us, record.handshake_rtt_us)
}

/// Retransmits, their bytes, out of order, unique payload of the client.
fn client_sent(record: &FlowRecord) -> (u32, u64, u32, u64) {
    let side = &record.client;
    (side.retransmits.unwrap(), side.retransmit_bytes.unwrap(), side.out_of_order.unwrap(), side.payload_bytes)
}

/// A client that sends these `(seq, length)` after its handshake (next number 101).
fn sends(data: &[(u32, u32)]) -> FlowRecord {
    let mut story = Story::new();
    story.handshake(0);
    for (&(seq, length), at) in data.iter().zip(20..) {
        story.tcp(at * MS, &segment(Client, ACK, seq, 501).data(length));
    }
    story.only()
}

#[test]
fn a_handshake_gives_both_halves_and_the_roles() {
    let mut story = Story::new();
    story.handshake(0);
    let record = story.only();
    assert_eq!(halves(&record), (Some(3000), Some(10_000), Some(13_000)));
    assert_eq!(record.oriented_by, OrientedBy::Syn);
    assert_eq!(record.client.ip.to_string(), "10.0.0.2");
    assert_eq!((record.client.mss, record.server.mss), (Some(1460), Some(1400)));
    assert_eq!((record.client.mac, record.server.mac), (Some([2; 6]), Some([1; 6])));
    assert_eq!((record.client_direction, record.dscp), (Some(Direction::Ingress), Some(46)));
    assert_eq!((record.client.packets, record.client.bytes, record.server.packets), (2, 80, 1));
    assert_eq!((record.end - record.start, &*record.interface), (13 * MS, "veth7"));
    assert_eq!(record.tcp_state, Some(TcpState::S1));
    assert_eq!((record.client.tcp_flags, record.server.tcp_flags), (Some(SYN | ACK), Some(SYN | ACK)));
    assert_eq!(record.client.duplicate_acks, Some(0));
}

#[test]
fn a_repeated_syn_leaves_the_servers_half_unknown() {
    let mut story = Story::new();
    story.tcp(0, &segment(Client, SYN, 100, 0));
    story.handshake(SECOND);
    let record = story.only();
    assert_eq!(halves(&record), (Some(3000), None, None));
    assert_eq!((record.syn_retries, record.client.retransmits), (Some(1), Some(1)));
}

#[test]
fn timestamps_decide_which_syn_was_answered() {
    let record = only(&[
        segment(Client, SYN, 100, 0).timestamps(1, 0),
        segment(Client, SYN, 100, 0).timestamps(2, 0),
        segment(Server, SYN | ACK, 500, 101).timestamps(70, 2),
        segment(Server, SYN | ACK, 500, 101).timestamps(71, 2),
        segment(Client, ACK, 101, 501).timestamps(5, 71),
    ]);
    assert_eq!(halves(&record), (Some(1000), Some(1000), Some(2000)));
    assert_eq!((record.syn_retries, record.server.retransmits), (Some(1), Some(1)));
}

/// The answer to the first SYN was lost before it was captured: that to the second has the first one's timestamp as well.
#[test]
fn the_first_syns_timestamp_decides_nothing() {
    let mut story = Story::new();
    story.tcp(0, &segment(Client, SYN, 100, 0).timestamps(1, 0));
    story.tcp(SECOND, &segment(Client, SYN, 100, 0).timestamps(1001, 0));
    story.tcp(SECOND + MS, &segment(Server, SYN | ACK, 500, 101).timestamps(70, 1));
    story.tcp(SECOND + 2 * MS, &segment(Client, ACK, 101, 501).timestamps(1002, 70));
    assert_eq!(halves(&story.only()), (Some(1000), None, None));
}

/// Nor does the first SYN-ACK's, where the ACK that answered it was lost before it was captured.
#[test]
fn the_first_syn_acks_timestamp_decides_nothing() {
    let mut story = Story::new();
    story.tcp(0, &segment(Client, SYN, 100, 0).timestamps(1, 0));
    story.tcp(MS, &segment(Server, SYN | ACK, 500, 101).timestamps(70, 1));
    story.tcp(SECOND, &segment(Server, SYN | ACK, 500, 101).timestamps(1070, 1));
    story.tcp(SECOND + 20 * MS, &segment(Client, ACK, 101, 501).timestamps(1021, 70));
    assert_eq!(halves(&story.only()), (None, Some(1000), None));
}

#[test]
fn a_retransmission_is_counted_once_and_not_as_payload() {
    assert_eq!(client_sent(&sends(&[(101, 500), (601, 500), (101, 500)])), (1, 500, 0, 1000));
    // Old and new bytes in one segment.
    assert_eq!(client_sent(&sends(&[(101, 500), (501, 200)])), (1, 100, 0, 600));
}

#[test]
fn late_new_data_is_out_of_order() {
    assert_eq!(client_sent(&sends(&[(101, 100), (301, 100), (201, 100)])), (0, 0, 1, 300));
    // The hole is filled once; what comes again is a retransmission.
    assert_eq!(client_sent(&sends(&[(101, 100), (301, 100), (201, 50), (251, 50), (201, 100)])), (1, 100, 2, 300));
    // A link that is shared in turn, of which one half takes longer.
    let halves = [0, 1].into_iter().flat_map(|half| (0..200).map(move |pair| (101 + 200 * pair + 100 * half, 100)));
    assert_eq!(client_sent(&sends(&halves.collect::<Vec<_>>())), (0, 0, 199, 40_000));
}

#[test]
fn keep_alives_are_neither() {
    let data = |seq, length| segment(Client, ACK, seq, 501).data(length);
    let acknowledged = segment(Server, ACK, 501, 201);
    let keep_alives = [data(101, 100), acknowledged.clone(), data(200, 1), data(200, 0), data(200, 1)];
    let figures = |record: FlowRecord| (client_sent(&record), record.client.keep_alives);
    assert_eq!(figures(only(&keep_alives)), ((0, 0, 0, 100), Some(3)));
    // Where only one direction is captured, nobody could have acknowledged it.
    assert_eq!(figures(only(&[data(101, 100), data(200, 1)])), ((0, 0, 0, 100), Some(1)));
    // Two old bytes are no keep-alive.
    assert_eq!(figures(only(&[data(101, 100), acknowledged, data(199, 2)])), ((1, 2, 0, 100), Some(0)));
}

#[test]
fn a_last_byte_that_the_other_end_lacks_is_no_keep_alive() {
    let data = |seq, length| segment(Client, ACK, seq, 501).data(length);
    let acknowledged = |number| segment(Server, ACK, 501, number);
    let figures = |record: FlowRecord| (client_sent(&record), record.client.keep_alives, record.client.packets_missed);
    // A key that is pressed, and sent again because it was lost.
    let again = [acknowledged(101), data(101, 1), data(101, 1), acknowledged(102)];
    assert_eq!(figures(only(&again)), ((1, 1, 0, 1), Some(0), Some(0)));
    // An acknowledgement overtook it on the way to the capture.
    let late = [acknowledged(101), data(101, 100), data(202, 0), data(201, 1), acknowledged(202)];
    assert_eq!(figures(only(&late)), ((0, 0, 1, 101), Some(0), Some(0)));
}

#[test]
fn numbers_wrap() {
    let top = u32::MAX - 99;
    let record = only(&[
        segment(Client, SYN, top, 0),
        segment(Server, SYN | ACK, u32::MAX, top + 1),
        segment(Client, ACK, top + 1, 0).data(99),
        segment(Client, ACK, 100, 0).data(100),
        segment(Client, ACK, 0, 0).data(100),
        segment(Client, ACK, top + 1, 0).data(199),
    ]);
    assert_eq!(client_sent(&record), (1, 199, 1, 299));
    assert_eq!(halves(&record), (Some(1000), Some(1000), Some(2000)));
}

#[test]
fn closed_windows_are_counted_except_in_syn_and_rst() {
    let record = only(&[
        segment(Client, SYN, 100, 0).window(0),
        segment(Server, SYN | ACK, 500, 101),
        segment(Client, ACK, 101, 501).window(0),
        segment(Client, ACK, 101, 501).window(0),
        segment(Client, RST, 101, 0).window(0),
    ]);
    assert_eq!((record.client.zero_windows, record.client.resets), (Some(2), Some(1)));
}

fn check_state(expected: TcpState, segments: &[Segment]) {
    assert_eq!(only(segments).tcp_state, Some(expected));
}

#[test]
fn states_are_zeeks() {
    let syn = segment(Client, SYN, 100, 0);
    let syn_ack = segment(Server, SYN | ACK, 500, 101);
    let ack = segment(Client, ACK, 101, 501);
    let client_fin = segment(Client, FIN | ACK, 101, 501);
    let server_fin = segment(Server, FIN | ACK, 501, 102);
    let client_rst = segment(Client, RST, 101, 0);
    let server_rst = segment(Server, RST | ACK, 0, 101);
    let open = [syn.clone(), syn_ack.clone(), ack.clone()];
    let then = |more: &[&Segment]| open.iter().chain(more.iter().copied()).cloned().collect::<Vec<_>>();
    check_state(TcpState::S0, &[syn.clone(), syn.clone()]);
    check_state(TcpState::S1, &open);
    check_state(TcpState::Sf, &then(&[&client_fin, &server_fin]));
    check_state(TcpState::Sf, &then(&[&client_fin, &server_fin, &client_rst]));
    check_state(TcpState::S2, &then(&[&client_fin]));
    check_state(TcpState::S3, &then(&[&server_fin]));
    check_state(TcpState::Rej, &[syn.clone(), server_rst.clone()]);
    check_state(TcpState::Rsto, &then(&[&client_rst]));
    check_state(TcpState::Rstr, &then(&[&segment(Server, RST, 501, 0)]));
    check_state(TcpState::Rstr, &[syn.clone(), syn_ack.clone(), server_rst.clone()]);
    check_state(TcpState::Rstos0, &[syn.clone(), client_rst]);
    check_state(TcpState::Sh, &[syn, client_fin.clone()]);
    check_state(TcpState::Rstrh, &[syn_ack.clone(), server_rst]);
    check_state(TcpState::Shr, &[syn_ack, server_fin.clone()]);
    check_state(TcpState::Oth, std::slice::from_ref(&ack));
    check_state(TcpState::Sf, &[ack, client_fin, server_fin]);
}

#[test]
fn midstream_the_lower_kind_of_port_serves() {
    let check = |ports: (u16, u16), expected_port, by| {
        let mut story = Story::new();
        story.tcp(0, &segment(Server, ACK, 500, 100).ports(ports.0, ports.1).data(10));
        let record = story.only();
        assert_eq!((record.client.port, record.oriented_by), (Some(expected_port), by), "{ports:?}");
    };
    check((40000, 443), 40000, OrientedBy::Port);
    check((2000, 443), 2000, OrientedBy::Port);
    check((40000, 8080), 40000, OrientedBy::Port);
    check((8081, 8080), 8080, OrientedBy::FirstPacket);
    check((40000, 50000), 50000, OrientedBy::FirstPacket);
    let record = only(&[
        segment(Server, SYN | ACK, 500, 101).ports(8000, 9000),
        segment(Client, ACK, 101, 501).ports(8000, 9000),
    ]);
    assert_eq!((record.client.port, record.oriented_by), (Some(8000), OrientedBy::SynAck));
    assert_eq!(halves(&record), (Some(1000), None, None));
    assert_eq!(record.client.tcp_flags, Some(ACK));
}

#[test]
fn a_late_syn_joins_its_connection() {
    let record =
        only(&[segment(Server, SYN | ACK, 500, 101), segment(Client, SYN, 100, 0), segment(Client, ACK, 101, 501)]);
    assert_eq!((record.oriented_by, record.tcp_state), (OrientedBy::Syn, Some(TcpState::S1)));
    assert_eq!(halves(&record), (Some(2000), None, Some(1000)));
}

#[test]
fn crossing_syns_are_one_connection() {
    let record = only(&[
        segment(Client, SYN, 100, 0),
        segment(Server, SYN, 500, 0),
        segment(Client, SYN | ACK, 100, 501),
        segment(Server, SYN | ACK, 500, 101),
        segment(Client, ACK, 101, 501).data(10),
    ]);
    assert_eq!((record.client.port, record.tcp_state), (Some(40000), Some(TcpState::S1)));
    assert_eq!(halves(&record), (None, None, None));
}

/// RFC 5961, 4: the server still has the old connection, says so, is reset with the number it named, and gets the SYN again.
#[test]
fn a_server_that_still_has_the_old_connection_delays_the_new_one() {
    let mut story = Story::new();
    let syn = segment(Client, SYN, 100, 0);
    story.tcp(0, &syn);
    story.tcp(MS, &segment(Server, ACK, 77_000_000, 3_000_000_000));
    story.tcp(2 * MS, &segment(Client, RST, 3_000_000_000, 0));
    story.tcp(1000 * MS, &syn);
    story.tcp(1001 * MS, &segment(Server, SYN | ACK, 500, 101));
    story.tcp(1002 * MS, &segment(Client, ACK, 101, 501).data(10));
    // Long after a reset would have ended it.
    story.tcp(9000 * MS, &segment(Server, ACK, 501, 111).data(20));
    let record = story.only();
    assert_eq!((record.tcp_state, record.end_reason), (Some(TcpState::S1), Some(EndReason::EndOfInput)));
    assert_eq!((record.syn_retries, record.client.resets, record.server.packets_missed), (Some(1), Some(1), Some(0)));
    assert_eq!((record.client.payload_bytes, record.server.payload_bytes), (10, 20));
    assert_eq!((record.client.packets, record.server.packets), (4, 3));
}

#[test]
fn the_old_fin_does_not_disturb_the_connection_that_reuses_the_port() {
    let mut story = Story::new();
    story.handshake(0);
    story.tcp(20 * MS, &segment(Client, FIN | ACK, 101, 501));
    let fin = segment(Server, FIN | ACK, 501, 102);
    story.tcp(21 * MS, &fin);
    let second = story.tcp(30 * MS, &segment(Client, SYN, 700_000_000, 0));
    assert_eq!(story.tcp(31 * MS, &fin), second);
    assert_eq!(story.tcp(40 * MS, &segment(Server, SYN | ACK, 900_000_000, 700_000_001)), second);
    assert_eq!(story.tcp(43 * MS, &segment(Client, ACK, 700_000_001, 900_000_001)), second);
    let record = story.end().into_iter().find(|record| record.flow_id == second).unwrap();
    assert_eq!(halves(&record), (Some(3000), Some(10_000), Some(13_000)));
    assert_eq!((record.tcp_state, record.server.packets_missed), (Some(TcpState::S1), Some(0)));
}

#[test]
fn a_reused_port_is_a_new_flow_where_only_the_server_is_heard() {
    for number in [7000, 400, 900_000_000] {
        let mut story = Story::new();
        for (at, first) in [(0, 500), (90 * SECOND, number)] {
            story.tcp(at, &segment(Server, SYN | ACK, first, first + 5001));
            story.tcp(at + MS, &segment(Server, ACK, first + 1, first + 5101).data(100));
            story.tcp(at + 2 * MS, &segment(Server, FIN | ACK, first + 101, first + 5101));
            // Sent again, it begins nothing.
            story.tcp(at + 3 * MS, &segment(Server, SYN | ACK, first, first + 5001));
        }
        let records = story.end();
        assert_eq!(records.iter().filter(|record| record.slice == 0).count(), 2, "{number}");
        assert!(records.iter().all(|record| record.server.packets_missed.is_none()));
        assert_eq!(records.iter().map(|record| record.server.payload_bytes).sum::<u64>(), 200);
    }
}

/// The client's SYN, and how the first connection ended, may have passed the capture by.
#[test]
fn a_reused_port_is_a_new_flow_where_the_syn_is_missed() {
    for server_alone in [false, true] {
        let mut story = Story::new();
        let mut flows = Vec::new();
        for (at, own, other) in [(0, 500, 100), (SECOND, 800_000_000, 2_000_000_000)] {
            if !server_alone && at == 0 {
                story.tcp(at, &segment(Client, SYN, other, 0));
            }
            flows.push(story.tcp(at + MS, &segment(Server, SYN | ACK, own, other + 1)));
            for (step, number) in (2..).zip([0, 1000]) {
                let data = segment(Server, ACK, own + 1 + number, other + 1).data(1000);
                assert_eq!(Some(&story.tcp(at + step * MS, &data)), flows.last());
                let acknowledged = segment(Client, ACK, other + 1, own + 1001 + number);
                if !server_alone {
                    assert_eq!(Some(&story.tcp(at + step * MS, &acknowledged)), flows.last());
                }
            }
        }
        assert_ne!(flows[0], flows[1]);
        for record in story.end() {
            let server = &record.server;
            assert_eq!((server.payload_bytes, server.retransmits), (2000, Some(0)), "{server_alone}");
            assert_eq!(server.packets_missed, (!server_alone).then_some(0));
        }
    }
}

#[test]
fn a_reused_port_is_a_new_flow_at_a_new_number() {
    let mut story = Story::new();
    story.handshake(0);
    let first = story.tcp(20 * MS, &segment(Client, FIN | ACK, 101, 501));
    story.tcp(21 * MS, &segment(Server, FIN | ACK, 501, 102));
    let second = story.tcp(30 * MS, &segment(Client, SYN, 7000, 0));
    // The same SYN again is not another flow.
    assert_eq!(story.tcp(40 * MS, &segment(Client, SYN, 7000, 0)), second);
    let third = story.tcp(40 * MS, &segment(Client, SYN, 9000, 0));
    let fourth = story.tcp(40 * MS, &segment(Client, SYN, 9500, 0));
    assert!(first != second && second != third && third != fourth);
    let mut records = story.end();
    records.sort_by_key(|record| record.start);
    let ends: Vec<_> = records.iter().map(|r| (r.end_reason.unwrap(), r.tcp_state.unwrap())).collect();
    let unanswered = (EndReason::Idle, TcpState::S0);
    let last = (EndReason::EndOfInput, TcpState::S0);
    assert_eq!(ends, [(EndReason::Fin, TcpState::Sf), unanswered, unanswered, last]);
}

#[test]
fn what_follows_the_close_still_counts() {
    let mut story = Story::new();
    story.handshake(0);
    story.tcp(20 * MS, &segment(Client, FIN | ACK, 101, 501));
    story.tcp(21 * MS, &segment(Server, FIN | ACK, 501, 102));
    story.tcp(22 * MS, &segment(Client, ACK, 102, 502));
    story.tcp(221 * MS, &segment(Server, FIN | ACK, 501, 102));
    story.tcp(222 * MS, &segment(Client, ACK, 102, 502));
    story.advance(2 * SECOND + 221 * MS);
    assert!(story.records.is_empty());
    story.advance(2 * SECOND + 242 * MS);
    let record = story.only();
    assert_eq!((record.end_reason, record.tcp_state), (Some(EndReason::Fin), Some(TcpState::Sf)));
    assert_eq!((record.server.retransmits, record.server.packets), (Some(1), 3));
}

#[test]
fn a_fin_repeated_for_long_stays_with_its_connection() {
    let mut story = Story::new();
    story.handshake(0);
    story.tcp(20 * MS, &segment(Server, FIN | ACK, 501, 101));
    story.tcp(21 * MS, &segment(Client, FIN | ACK, 101, 502));
    for second in [1, 4, 10, 22] {
        story.tcp(second * SECOND, &segment(Client, FIN | ACK, 101, 502));
    }
    story.advance(52 * SECOND);
    let record = story.only();
    assert_eq!((record.end_reason, record.client.retransmits), (Some(EndReason::Fin), Some(4)));
}

/// A server with SYN cookies, or one that forgot a connection that was never complete, answers a repeated SYN with another number.
#[test]
fn a_syn_ack_with_another_number_begins_the_servers_numbers_anew() {
    for ahead in [100_000_000, -100_000_000_i32, 3] {
        let number = 2_000_000_000_u32.wrapping_add_signed(ahead);
        let record = only(&[
            segment(Client, SYN, 100, 0),
            segment(Server, SYN | ACK, 2_000_000_000, 101),
            segment(Client, SYN, 100, 0),
            segment(Server, SYN | ACK, number, 101),
            segment(Client, ACK, 101, number.wrapping_add(1)),
            segment(Client, ACK, 101, number.wrapping_add(1)).data(10),
            segment(Server, ACK, number.wrapping_add(1), 111).data(1000),
            segment(Server, ACK, number.wrapping_add(1001), 111).data(1000),
            segment(Client, ACK, 111, number.wrapping_add(2001)),
        ]);
        let server = &record.server;
        assert_eq!(
            (server.payload_bytes, server.packets_missed, server.retransmits),
            (2000, Some(0), Some(0)),
            "{ahead}"
        );
        assert_eq!((record.syn_retries, record.client.packets_missed), (Some(1), Some(0)), "{ahead}");
        assert_eq!(record.tcp_state, Some(TcpState::S1), "{ahead}");
    }
}

#[test]
fn an_old_syn_ack_that_comes_late_changes_nothing() {
    let record = only(&[
        segment(Client, SYN, 100, 0),
        segment(Server, SYN | ACK, 500, 101),
        segment(Server, SYN | ACK, 900_000_000, 101),
        segment(Client, ACK, 101, 900_000_001),
        segment(Server, SYN | ACK, 500, 101),
        segment(Server, ACK, 900_000_001, 101).data(1000),
        segment(Client, ACK, 101, 900_001_001),
    ]);
    assert_eq!((record.server.payload_bytes, record.server.packets_missed), (1000, Some(0)));
}

/// RFC 9293, 3.10.7.4: what is out of the window is dropped.
#[test]
fn a_reset_out_of_the_window_ends_nothing() {
    for (number, ended) in [(501, true), (601, true), (1_000_501, false), (0xffe0_0000, false)] {
        let mut story = Story::new();
        story.handshake(0);
        story.tcp(20 * MS, &segment(Client, ACK, 101, 501).data(10));
        story.tcp(30 * MS, &segment(Server, RST, number, 0));
        let first = story.tcp(40 * MS, &segment(Client, ACK, 111, 501).data(10));
        if !ended {
            assert_eq!(story.tcp(10 * SECOND, &segment(Server, ACK, 501, 121).data(20)), first);
        }
        let record = story.only();
        let state = if ended { TcpState::Rstr } else { TcpState::S1 };
        assert_eq!((record.tcp_state, record.server.resets), (Some(state), Some(1)), "{number}");
    }
}

/// A connection that goes on after a reset of the server's with this number, without a pause or with one.
fn reset_in_the_middle(number: u32, asks: bool, pause: i64) -> Vec<FlowRecord> {
    let mut story = Story::new();
    story.handshake(0);
    story.tcp(20 * MS, &segment(Client, ACK, 101, 501).data(10));
    story.tcp(30 * MS, &segment(Server, ACK, 501, 111).data(1000));
    story.tcp(31 * MS, &segment(Client, ACK, 111, 1501));
    story.tcp(32 * MS, &segment(Server, RST, number, 0));
    if asks {
        story.tcp(33 * MS, &segment(Client, ACK, 111, 1501));
    }
    story.tcp(pause, &segment(Client, ACK, 111, 1501).data(10));
    story.tcp(pause + MS, &segment(Server, ACK, 1501, 121).data(1000));
    story.tcp(pause + 2 * MS, &segment(Client, FIN | ACK, 121, 2501));
    story.tcp(pause + 3 * MS, &segment(Server, FIN | ACK, 2501, 122));
    story.tcp(pause + 4 * MS, &segment(Client, ACK, 122, 2502));
    story.end()
}

/// RFC 9293, 3.10.7.4, and RFC 5961, 3.2: all but the number that is awaited.
#[test]
fn a_reset_that_its_receiver_drops_ends_nothing() {
    // What was acknowledged before; a number ahead, of which the client asks; one that is not known to be wrong.
    for (number, asks, pause) in
        [(701, false, 30), (1500, false, 30), (3001, true, 30), (3001, false, 1), (1501, false, 1)]
    {
        let records = reset_in_the_middle(number, asks, pause * SECOND);
        let [record] = records.as_slice() else { panic!("{number}: {records:#?}") };
        assert_eq!((record.tcp_state, record.end_reason), (Some(TcpState::Sf), Some(EndReason::Fin)), "{number}");
        assert_eq!((record.server.resets, record.server.payload_bytes), (Some(1), 2000), "{number}");
    }
    // Nothing follows.
    let mut story = Story::new();
    story.handshake(0);
    story.tcp(20 * MS, &segment(Client, ACK, 101, 501).data(10));
    story.tcp(30 * MS, &segment(Server, RST, 501, 0));
    story.tcp(31 * MS, &segment(Client, ACK, 111, 501).data(10));
    story.tcp(32 * MS, &segment(Server, RST, 501, 0));
    let record = story.only();
    assert_eq!((record.tcp_state, record.server.resets), (Some(TcpState::Rstr), Some(2)));
}

/// RFC 9293, 3.10.7.3: who has sent nothing but a SYN drops what does not acknowledge it.
#[test]
fn a_reset_that_does_not_acknowledge_the_syn_ends_nothing() {
    let record = only(&[
        segment(Client, SYN, 100, 0),
        segment(Server, RST, 77_000_000, 0),
        segment(Client, SYN, 100, 0),
        segment(Server, SYN | ACK, 500, 101),
        segment(Client, ACK, 101, 501).data(10),
        segment(Server, ACK, 501, 111).data(10),
    ]);
    assert_eq!((record.tcp_state, record.server.resets), (Some(TcpState::S1), Some(1)));
    assert_eq!((record.server.packets_missed, record.server.payload_bytes), (Some(0), 10));
}

#[test]
fn a_reset_ends_what_is_not_known_better() {
    // Midstream, one direction alone, and nobody said what is awaited.
    check_state(TcpState::Oth, &[segment(Client, ACK, 101, 501), segment(Client, RST, 3_000_000_000, 0)]);
    check_state(TcpState::Oth, &[segment(Client, RST, 3_000_000_000, 0)]);
    // The answer to a SYN that came again.
    let refused = [
        segment(Client, SYN, 100, 0),
        segment(Server, SYN | ACK, 3_000_000_000, 101),
        segment(Server, RST | ACK, 0, 101),
    ];
    check_state(TcpState::Rstr, &refused);
}
