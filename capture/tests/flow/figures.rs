//! Figures of the rarer kinds, one story each.

use wiretag_capture::decode::Transport;
use wiretag_capture::record::Responses;
use wiretag_capture::{EndReason, FlowRecord, Protocol, Side};

use crate::story::*;

/// Copies, retransmits, duplicate acknowledgements.
fn repeated(side: &Side) -> (u32, u32, u32) {
    (side.capture_duplicates.unwrap(), side.retransmits.unwrap(), side.duplicate_acks.unwrap())
}

fn kinds(side: &Side) -> (u32, u32, u32) {
    let [fast, timeout, spurious] = [side.fast_retransmits, side.timeout_retransmits, side.spurious_retransmits];
    (fast.unwrap(), timeout.unwrap(), spurious.unwrap())
}

/// Segments at these microseconds.
fn at(segments: &[(i64, Segment)]) -> FlowRecord {
    let mut story = Story::new();
    for (time, segment) in segments {
        story.tcp(time * 1000, segment);
    }
    story.only()
}

#[test]
fn a_packet_captured_twice_is_one_segment() {
    let data = segment(Client, ACK, 101, 501).data(100).ip_id(7);
    let record =
        at(&[(0, data.clone()), (400, data.clone()), (2000, data.clone()), (3000, segment(Server, ACK, 501, 201))]);
    assert_eq!(repeated(&record.client), (2, 0, 0));
    // Volumes count what was delivered.
    assert_eq!((record.client.packets, record.client.bytes, record.client.payload_bytes), (3, 420, 100));

    let again = data.clone().ip_id(8);
    assert_eq!(repeated(&at(&[(0, data.clone()), (400, again)]).client), (0, 1, 0));
    assert_eq!(repeated(&at(&[(0, data.clone()), (200_000, data.clone())]).client), (0, 1, 0));
    // A sender that numbers all packets alike.
    let next = segment(Client, ACK, 201, 501).data(100).ip_id(7);
    assert_eq!(repeated(&at(&[(0, data.clone()), (10, next), (20, data)]).client), (0, 1, 0));
}

#[test]
fn without_identification_only_what_follows_at_once_is_a_copy() {
    let data = segment(Client, ACK, 101, 501).data(100);
    assert_eq!(repeated(&at(&[(0, data.clone()), (5, data.clone())]).client), (1, 0, 0));
    assert_eq!(repeated(&at(&[(0, data.clone()), (100, data.clone())]).client), (0, 1, 0));
    let ack = segment(Server, ACK, 501, 101);
    assert_eq!(repeated(&at(&[(0, data.clone()), (5, ack.clone()), (9, ack.clone())]).server), (0, 0, 1));
    // Timestamps of a clock that ticks in milliseconds tell no more, unless the capture doubles other segments, too.
    let ack = ack.timestamps(70, 1);
    let acks = [(5, ack.clone()), (9, ack)];
    assert_eq!(repeated(&at(&[&[(0, data.clone())][..], &acks].concat()).server), (0, 0, 1));
    assert_eq!(repeated(&at(&[&[(0, data.clone()), (2, data)][..], &acks].concat()).server), (1, 0, 0));
}

/// Only the place tells two directions apart whose segments have equal numbers.
#[test]
fn what_the_other_end_sends_is_no_copy() {
    let from = |from| segment(from, ACK, 300, 300).data(100);
    assert_eq!(repeated(&at(&[(0, from(Client)), (5, from(Server))]).server), (0, 0, 0));
}

/// A byte that was sent into a closed window, and again with others.
#[test]
fn a_probed_byte_that_is_sent_again_is_sent_once() {
    let record = at(&[
        (0, segment(Client, ACK, 101, 501).data(100)),
        (1, segment(Server, ACK, 501, 201).window(0)),
        (300_000, segment(Client, ACK, 201, 501).data(1)),
        (300_001, segment(Server, ACK, 501, 201)),
        (300_002, segment(Client, ACK, 201, 501).data(100)),
        (300_003, segment(Server, ACK, 501, 302)),
    ]);
    // The byte behind was acknowledged, and not captured.
    assert_eq!((record.client.payload_bytes, record.client.packets_missed), (200, Some(1)));
}

#[test]
fn duplicate_acks_are_rfc_5681s() {
    let data = segment(Client, ACK, 101, 501).data(100);
    let ack = segment(Server, ACK, 501, 101);
    let dupacks = |then: Segment| at(&[(0, ack.clone()), (1000, data.clone()), (2000, then)]).server.duplicate_acks;
    assert_eq!(dupacks(ack.clone()), Some(1));
    assert_eq!(dupacks(ack.clone().window(999)), Some(0), "a window update");
    assert_eq!(dupacks(ack.clone().data(1)), Some(0), "with data");
    assert_eq!(dupacks(segment(Server, FIN | ACK, 501, 101)), Some(0));
    assert_eq!(dupacks(segment(Server, ACK, 501, 50)), Some(0), "overtaken by a later one");
    let nothing_outstanding =
        at(&[(0, data.clone()), (1000, segment(Server, ACK, 501, 201)), (2000, segment(Server, ACK, 501, 201))]);
    assert_eq!(nothing_outstanding.server.duplicate_acks, Some(0));
}

#[test]
fn keep_alives_and_their_answers_are_neither() {
    let record = at(&[
        (0, segment(Client, ACK, 101, 501).data(100)),
        (1000, segment(Server, ACK, 501, 201)),
        (9_000_000, segment(Client, ACK, 200, 501).data(1)),
        (9_001_000, segment(Server, ACK, 501, 201)),
        (18_000_000, segment(Client, ACK, 200, 501)),
        (18_001_000, segment(Server, ACK, 501, 201)),
    ]);
    assert_eq!((record.client.keep_alives, record.server.keep_alives), (Some(2), Some(0)));
    assert_eq!((repeated(&record.client), repeated(&record.server)), ((0, 0, 0), (0, 0, 0)));
}

#[test]
fn probes_of_a_closed_window_are_neither() {
    let probe = |seq| segment(Client, ACK, seq, 501).data(1);
    let full = |ack| segment(Server, ACK, 501, ack).window(0);
    let refused = [
        (0, segment(Client, ACK, 101, 501).data(100)),
        (1000, full(201)),
        (300_000, probe(201)),
        (301_000, full(201)),
        (900_000, probe(201)),
        (901_000, full(201)),
        (1_500_000, probe(201)),
    ];
    let opened = [(1_501_000, segment(Server, ACK, 501, 201)), (1_502_000, segment(Client, ACK, 201, 501).data(100))];
    let end = (1_600_000, segment(Server, ACK, 501, 301));
    let figures = |record: FlowRecord| {
        let side = &record.client;
        (repeated(side), kinds(side), (side.keep_alives, side.out_of_order, side.packets_missed), side.payload_bytes)
    };
    let none = ((0, 0, 0), (0, 0, 0), (Some(0), Some(0), Some(0)));
    let story = [refused.as_slice(), &opened, &[end]].concat();
    assert_eq!(figures(at(&story)), (none.0, none.1, none.2, 200));
    // The receiver takes the byte of each probe.
    let taken = [(1_501_000, full(202)), (2_000_000, probe(202)), (2_001_000, full(203))];
    assert_eq!(figures(at(&[refused.as_slice(), &taken].concat())), (none.0, none.1, none.2, 101));
    let then = [(2_500_000, segment(Client, ACK, 203, 501).data(10)), (2_501_000, segment(Server, ACK, 501, 213))];
    assert_eq!(figures(at(&[refused.as_slice(), &taken, &then].concat())), (none.0, none.1, none.2, 112));
}

#[test]
fn retransmissions_by_kind() {
    let data = |seq| segment(Client, ACK, seq, 501).data(100);
    let ack = |number| segment(Server, ACK, 501, number);
    let asked = [data(101), data(201), data(301), data(401), ack(201), ack(201), ack(201), ack(201), data(201)];
    assert_eq!(kinds(&only(&asked).client), (1, 0, 0));
    assert_eq!(kinds(&only(&[data(101), ack(101), data(201), data(101)]).client), (0, 0, 0), "nobody asked");
    assert_eq!(kinds(&at(&[(0, data(101)), (250_000, data(101))]).client), (0, 1, 0));
    assert_eq!(kinds(&only(&[data(101), ack(201), data(101)]).client), (0, 0, 1));
}

/// Linux' receivers grow their window while they wait for what was lost, and its senders do not wait for three of them.
#[test]
fn selective_acknowledgements_ask_whatever_the_window() {
    let data = |seq| segment(Client, ACK, seq, 501).data(100);
    let ack = |number, window, from, to| segment(Server, ACK, 501, number).window(window).sack(&[(from, to)]);
    let sent = [data(101), data(201), data(301), data(401), data(501), segment(Server, ACK, 501, 201)];
    let figures = |then: &[Segment]| {
        let record = only(&[sent.as_slice(), then].concat());
        (record.server.duplicate_acks.unwrap(), kinds(&record.client))
    };
    assert_eq!(figures(&[ack(201, 1003, 301, 401), data(201)]), (1, (1, 0, 0)));
    assert_eq!(figures(&[ack(201, 1003, 301, 401), ack(201, 1006, 301, 501), data(201)]), (2, (1, 0, 0)));
    assert_eq!(figures(&[ack(201, 1003, 301, 401), ack(201, 1006, 301, 401)]).0, 1, "a window update");
    // Two were lost: after a partial acknowledgement.
    let second = [ack(401, 1006, 501, 601), data(401)];
    assert_eq!(figures(&[&[ack(201, 1003, 301, 401), data(201)], second.as_slice()].concat()), (1, (2, 0, 0)));
    assert_eq!(figures(&[ack(201, 1003, 501, 601), data(501)]), (1, (0, 0, 0)), "nothing behind it");
    let all = segment(Server, ACK, 501, 601);
    assert_eq!(figures(&[ack(201, 1003, 301, 601), all, data(601), data(601)]).1, (0, 0, 0), "of before");
    // A firewall that renumbers segments and leaves the blocks.
    assert_eq!(figures(&[ack(201, 1003, 9_000_301, 9_000_401), data(201)]), (0, (0, 0, 0)));
    let late = [(0, data(101)), (0, data(201)), (1000, ack(101, 1003, 201, 301)), (250_000, data(101))];
    assert_eq!(kinds(&at(&late).client), (0, 1, 0));
}

#[test]
fn the_receiver_proves_a_retransmission_spurious_once() {
    let data = |seq| segment(Client, ACK, seq, 501).data(100);
    let told = segment(Server, ACK, 501, 301).sack(&[(101, 201)]);
    let record = at(&[(0, data(101)), (10, data(201)), (250_000, data(101)), (260_000, told.clone()), (261_000, told)]);
    assert_eq!(kinds(&record.client), (0, 1, 1));
    // A burst that was sent again at once.
    let told = (0..12).map(|number| {
        segment(Server, ACK, 501, 1301).sack(&[(101 + 100 * number, 201 + 100 * number)]).window(999 - number as u16)
    });
    let burst: Vec<_> = (0..12).map(|number| data(101 + 100 * number)).collect();
    let sent: Vec<_> = burst.iter().chain(&burst).cloned().chain(told).collect();
    assert_eq!(kinds(&only(&sent).client).2, 12);
    // What was known to be spurious is not counted again.
    let sent =
        [data(101), segment(Server, ACK, 501, 201), data(101), segment(Server, ACK, 501, 201).sack(&[(101, 201)])];
    assert_eq!(kinds(&only(&sent).client), (0, 0, 1));
}

#[test]
fn a_repeated_fin_is_spurious_if_the_receiver_had_it() {
    let fin = segment(Client, FIN | ACK, 101, 501);
    let told = segment(Server, ACK, 501, 102).sack(&[(101, 102)]);
    let record = at(&[(0, segment(Client, ACK, 101, 501)), (10, fin.clone()), (250_000, fin), (260_000, told)]);
    assert_eq!(kinds(&record.client), (0, 1, 1));
}

/// Linux tells of the last block once more as it acknowledges what comes after it, a FIN.
#[test]
fn a_block_that_is_told_again_proves_nothing() {
    let last = segment(Client, FIN | ACK, 201, 501).data(100);
    let lacks = segment(Server, ACK, 501, 101).sack(&[(201, 302)]);
    let has = segment(Server, ACK, 501, 302).sack(&[(201, 302)]);
    let first = segment(Client, ACK, 101, 501).data(100);
    let sent = [first.clone(), last.clone(), last, lacks, first, has.clone()];
    assert_eq!(kinds(&only(&sent).client), (1, 0, 0));
    assert_eq!(kinds(&only(&[sent.as_slice(), &[has]].concat()).client), (1, 0, 1));
}

#[test]
fn a_retransmission_is_spurious_if_the_receiver_had_all_of_it() {
    let told = |from, to| segment(Server, ACK, 501, 301).sack(&[(from, to)]);
    let spurious = |told: &[Segment]| {
        let data = |seq, length| segment(Client, ACK, seq, 501).data(length);
        let sent = [data(101, 100), data(201, 100), data(101, 200)];
        kinds(&only(&[sent.as_slice(), told].concat()).client).2
    };
    assert_eq!(spurious(&[told(101, 301)]), 1);
    assert_eq!(spurious(&[told(151, 301)]), 0);
    assert_eq!(spurious(&[told(101, 201)]), 0);
    // Sent as one with segmentation offload, received as two.
    assert_eq!(spurious(&[told(101, 201), told(201, 301), told(201, 301)]), 1);
}

#[test]
fn windows_are_scaled_if_both_agree() {
    let handshake = |client: Segment, server: Segment| {
        let windows = only(&[
            client,
            server,
            segment(Client, ACK, 101, 501).window(100),
            segment(Server, ACK, 501, 101).window(9),
        ]);
        let scale = (windows.client.window_scale, windows.server.window_scale);
        (scale, windows.client.window_max, windows.server.window_max)
    };
    let syn = segment(Client, SYN, 100, 0).window(50);
    let syn_ack = segment(Server, SYN | ACK, 500, 101).window(2000);
    let both = handshake(syn.clone().scale(7), syn_ack.clone().scale(2));
    assert_eq!(both, ((Some(7), Some(2)), Some(12_800), Some(2000)));
    let one = handshake(syn.clone().scale(7), syn_ack.clone());
    assert_eq!(one, ((Some(7), None), Some(100), Some(2000)));
    // Nor where the snap length cut the SYN before the option.
    let cut = |mut segment: Segment, len: usize| {
        segment.cut = segment.options.len() - len;
        segment.options.truncate(len);
        segment
    };
    let (long, short) = (syn.mss(1460).scale(7), syn_ack.mss(1460).scale(2));
    assert_eq!(handshake(cut(long.clone(), 4), cut(short.clone(), 4)), ((None, None), None, None));
    assert_eq!(handshake(long, cut(short, 0)), ((Some(7), None), None, None));
    // Midstream the scale is not known.
    assert_eq!(only(&[segment(Client, ACK, 101, 501)]).client.window_max, None);
}

#[test]
fn a_closed_window_lasts_over_slices() {
    let mut story = Story::new();
    story.handshake(0);
    story.tcp(SECOND, &segment(Client, ACK, 101, 501).window(0));
    for second in 2..80 {
        story.tcp(second * SECOND, &segment(Server, ACK, 501, 101));
    }
    story.tcp(80 * SECOND, &segment(Client, ACK, 101, 501).window(9));
    story.tcp(90 * SECOND, &segment(Client, ACK, 101, 501).window(0));
    story.tcp(91 * SECOND, &segment(Server, ACK, 501, 101));
    let records = story.end();
    let closed: Vec<_> =
        records.iter().map(|r| (r.client.zero_windows.unwrap(), r.client.zero_window_us.unwrap())).collect();
    assert_eq!(closed, [(1, 58_000_000), (1, 22_000_000)]);
}

#[test]
fn data_round_trips_skip_what_was_sent_again() {
    let data = |seq, value| segment(Server, ACK, seq, 101).data(100).timestamps(value, 0);
    let ack = |number, echo| segment(Client, ACK, 101, number).timestamps(0, echo);
    let rtt = |record: FlowRecord| record.client.rtt_avg_us.zip(record.client.rtt_max_us);
    assert_eq!(
        rtt(at(&[(0, data(501, 1)), (3000, ack(601, 1)), (4000, data(601, 2)), (5000, ack(701, 2))])),
        Some((2000, 3000))
    );
    // Karn's rule.
    let plain = |segment: Segment| Segment { options: Vec::new(), ..segment };
    let again = [(0, plain(data(501, 1))), (300_000, plain(data(501, 1))), (303_000, plain(ack(601, 0)))];
    assert_eq!(rtt(at(&again)), None);
    // The echo tells which of the two was answered.
    assert_eq!(
        rtt(at(&[(0, data(501, 1)), (300_000, data(501, 300)), (303_000, ack(601, 1))])),
        Some((303_000, 303_000))
    );
    assert_eq!(rtt(at(&[(0, data(501, 1)), (300_000, data(501, 300)), (303_000, ack(601, 300))])), None);
    // An outage of a minute, or a clock that ticks often.
    for again in [25_000, 40_000, 65_000, 65_537, 70_000, 90_000] {
        let twice = [(0, data(501, 1)), (250_000, data(501, again)), (51_000_000, data(501, again + 100))];
        let answered = [(51_003_000, ack(601, again + 100))];
        assert_eq!(rtt(at(&[twice.as_slice(), &answered].concat())), None, "{again}");
    }
}

#[test]
fn what_only_the_capture_missed_ends_no_measuring() {
    let data = |seq| segment(Client, ACK, seq, 501).data(100);
    let ack = |number| segment(Server, ACK, 501, number);
    let rtt = |segments: &[(i64, Segment)]| at(segments).server.rtt_max_us;
    let first = [(0, data(101)), (1000, ack(201))];
    // From 201 to 301 nothing was seen, but the server has it.
    let missed = [(2000, data(301)), (3000, ack(401)), (4000, data(401)), (9000, ack(501))];
    assert_eq!(rtt(&[first.as_slice(), &missed[..2]].concat()), Some(1000));
    assert_eq!(rtt(&[first.as_slice(), &missed].concat()), Some(5000));
    // The server has it not: what is acknowledged at last tells of the repetition.
    let lost = [(2000, data(301)), (2500, ack(201)), (3000, data(401)), (9000, data(201)), (10_000, ack(501))];
    assert_eq!(rtt(&[first.as_slice(), &lost].concat()), Some(1000));
}

#[test]
fn response_times_run_from_the_last_request_byte() {
    let request = |seq| segment(Client, ACK, seq, 501).data(100);
    let response = |seq| segment(Server, ACK, seq, 301).data(100);
    let record = at(&[
        (0, segment(Client, SYN, 100, 0)),
        (1, segment(Server, SYN | ACK, 500, 101)),
        (2, segment(Server, ACK, 501, 101).data(100)),
        (1000, request(101)),
        (2000, request(201)),
        // Sent again, it does not start the clock anew.
        (3000, request(201)),
        (7000, response(601)),
        (8000, response(701)),
        (9000, request(301)),
        // Sent again, it does not stop the clock.
        (9500, response(701)),
        (10_000, response(801)),
    ]);
    assert_eq!(record.responses, Some(Responses { first_us: 5000, avg_us: 3000, max_us: 5000, count: 2 }));
}

/// Of an answer that was lost before the capture, what the server sends next tells only the number behind it.
#[test]
fn an_answer_that_was_lost_has_a_response_time() {
    let response = |seq| segment(Server, ACK, seq, 201).data(100);
    let number = |flags, seq| segment(Server, flags, seq, 201);
    let times = |then: &[Segment]| {
        let asked = [
            segment(Client, SYN, 100, 0),
            segment(Server, SYN | ACK, 500, 101),
            segment(Client, ACK, 101, 501),
            segment(Client, ACK, 101, 501).data(100),
        ];
        let times = only(&[asked.as_slice(), then].concat()).responses;
        times.map_or((0, 0), |times| (times.count, times.max_us))
    };
    assert_eq!(times(&[number(ACK, 601), response(501)]), (1, 2000));
    assert_eq!(times(&[number(FIN | ACK, 601), response(501)]), (1, 2000));
    // Of a longer one the rest belongs to it.
    assert_eq!(times(&[number(ACK, 701), response(501), response(601)]), (1, 2000));
    assert_eq!(times(&[response(601), response(501)]), (1, 1000));
    // What is missing is older than the request.
    let again = segment(Client, ACK, 201, 501).data(100);
    assert_eq!(times(&[response(601), again, response(501)]), (1, 1000));
}

#[test]
fn udp_answers_have_response_times_too() {
    let mut story = Story::new();
    story.udp(0, Client, (40000, 9999), b"x");
    story.udp(MS, Client, (40000, 9999), b"x");
    story.udp(4 * MS, Server, (40000, 9999), b"y");
    assert_eq!(story.only().responses.unwrap().max_us, 3000);
}

#[test]
fn echoes_have_response_times_and_other_icmp_has_none() {
    let responses = |protocol: Protocol, packets: &[(i64, Host, u8, u32)]| {
        let mut story = Story::new();
        for (at, from, kind, rest) in packets {
            let ports = if protocol == Protocol::ICMP { (8, 0) } else { (128, 129) };
            let icmp = Transport::Icmp { kind: *kind, code: 0, rest: *rest, payload: &[], payload_len: 0 };
            story.packet(at * MS, &decoded(*from, Some(ports), protocol, icmp), *from);
        }
        story.only().responses
    };
    let times = |first_us, avg_us, max_us, count| Some(Responses { first_us, avg_us, max_us, count });
    for (protocol, request, reply) in [(Protocol::ICMP, 8, 0), (Protocol::ICMP6, 128, 129)] {
        let ask = |at: i64, rest: u32| (at, Client, request, rest);
        let answer = |at: i64, rest: u32| (at, Server, reply, rest);
        let of = |packets: &[(i64, Host, u8, u32)]| responses(protocol, packets);
        assert_eq!(of(&[ask(0, 7), answer(1, 7), ask(1000, 8), answer(1003, 8)]), times(1000, 2000, 3000, 2));
        // Of two programs, and a late one: what was asked for last.
        assert_eq!(of(&[ask(0, 7), ask(1, 1 << 16), answer(2, 7), answer(5, 1 << 16)]), times(4000, 4000, 4000, 1));
        assert_eq!(of(&[ask(0, 7), ask(1000, 8), answer(1001, 7)]), None);
        assert_eq!(of(&[ask(0, 7), answer(1, 7), answer(2, 7)]), times(1000, 1000, 1000, 1), "an echo comes once");
        assert_eq!(of(&[ask(0, 0), answer(1, 0)]), None, "what was not captured");
    }
    assert_eq!(responses(Protocol::ICMP, &[(0, Client, 13, 7), (1, Server, 14, 7)]), None);
}

#[test]
fn an_answer_after_more_than_half_an_hour_has_no_time() {
    for (minutes, time) in [(35, Some(35 * 60_000_000)), (37, None), (72, None), (72 * 24, None)] {
        let mut story = Story::new();
        story.handshake(0);
        story.tcp(SECOND, &segment(Client, ACK, 101, 501).data(10));
        let keep_alives = (1..minutes).map(|minute| (minute * 60, segment(Client, ACK, 110, 501)));
        for (second, keep_alive) in keep_alives {
            story.tcp(second * SECOND, &keep_alive);
        }
        story.tcp((minutes * 60 + 1) * SECOND, &segment(Server, ACK, 501, 111).data(20));
        let answered = story.end().iter().find_map(|record| record.responses);
        assert_eq!(answered.map(|responses| responses.max_us), time, "{minutes} minutes");
    }
}

#[test]
fn a_silence_of_weeks_ends_everything() {
    let mut story = Story::new();
    story.handshake(0);
    story.advance(60 * 86_400 * SECOND);
    assert_eq!(story.records.iter().filter_map(|r| r.end_reason).collect::<Vec<_>>(), [EndReason::Active]);
    assert_eq!(story.engine.counters().flows_active, 0);
}
