//! Fragments belong to the flow whose ports the first one has, and what they say is read when all are there.

use wiretag_capture::flow::{FlowConfig, FragmentLimits};
use wiretag_capture::{FlowRecord, LinkType};

use crate::wire::*;

const MORE: u16 = 0x2000;

/// A DNS query that is long enough to be divided.
fn query() -> Vec<u8> {
    let name = joined(&[&[60], &[b'a'; 60], &[0]]);
    udp(40_000, 53, &joined(&[&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], &name, &[0, 1, 0, 1]]))
}

/// IPv4 fragments of at most `size` bytes of payload.
fn parts4(protocol: u8, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
    let count = payload.len().div_ceil(size);
    let part = |(number, data): (usize, &[u8])| {
        let more = if number + 1 < count { MORE } else { 0 };
        frame(&part4(protocol, (ALICE, BOB), more | (number * size / 8) as u16, data))
    };
    payload.chunks(size).enumerate().map(part).collect()
}

fn parts6(protocol: u8, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
    let count = payload.len().div_ceil(size);
    let part = |(number, data): (usize, &[u8])| {
        let place = (number * size) as u16 | u16::from(number + 1 < count);
        let header = joined(&[&[protocol, 0], &place.to_be_bytes(), &[0, 0, 0, 7]]);
        frame(&ipv6(44, (ALICE, BOB), &joined(&[&header, data])))
    };
    payload.chunks(size).enumerate().map(part).collect()
}

fn play(frames: &[Vec<u8>]) -> Wire {
    let mut wire = Wire::new();
    wire.frames(frames);
    wire
}

fn is_query(record: &FlowRecord, frames: &[Vec<u8>]) {
    assert_eq!((record.client.port, record.server.port), (Some(40_000), Some(53)));
    assert_eq!(record.client.packets, frames.len() as u64);
    let bytes: usize = frames.iter().map(|frame| frame.len() - 14).sum();
    assert_eq!(record.client.bytes, bytes as u64);
    assert_eq!(record.client.payload_bytes, query().len() as u64 - 8);
    assert_eq!(record.dns.as_ref().unwrap().query.as_deref().unwrap().len(), 60);
    assert!(record.start < record.end);
}

#[test]
fn a_datagram_in_any_order_is_one_flow_and_is_read() {
    for mut frames in [parts4(17, &query(), 16), parts6(17, &query(), 16)] {
        assert!(frames.len() > 5);
        let inputs = [
            frames.clone(),
            {
                frames.reverse();
                frames.clone()
            },
            {
                frames.swap(0, 3);
                frames.swap(1, 5);
                frames
            },
        ];
        for frames in inputs {
            let (records, _, counters) = play(&frames).end();
            assert_eq!(records.len(), 1, "{records:#?}");
            is_query(&records[0], &frames);
            assert_eq!((counters.fragments_joined, counters.fragments_given_up), (1, 0));
        }
    }
}

#[test]
fn a_first_fragment_too_short_for_its_header() {
    let frames = parts4(17, &joined(&[&udp(40_000, 9, &[])[..], &[5; 40]]), 8);
    let record = play(&frames).only();
    assert_eq!((record.client.port, record.client.packets), (Some(40_000), 6));
    // TCP's needs three.
    let frames = parts4(6, &tcp(40_000, 80, 7, &[5; 40]), 8);
    let record = play(&frames).only();
    assert_eq!((record.client.port, record.client.packets, record.client.payload_bytes), (Some(40_000), 8, 40));
}

#[test]
fn a_segment_counts_once_with_all_its_bytes() {
    for frames in [parts4(6, &tcp(40_000, 80, 7, &[5; 1000]), 104), parts6(6, &tcp(40_000, 80, 7, &[5; 1000]), 104)] {
        let mut wire = play(&frames);
        // The next one follows without a gap.
        let next = tcp(40_000, 80, 1007, &[6; 10]);
        wire.frame(&frame(&ip(if frames[0][12] == 8 { 4 } else { 6 }, 6, (ALICE, BOB), &next)));
        let record = wire.only();
        assert_eq!((record.client.packets, record.client.payload_bytes), (11, 1010));
        assert_eq!((record.client.retransmits, record.client.out_of_order), (Some(0), Some(0)));
    }
}

#[test]
fn a_capture_may_deliver_fragments_twice() {
    let mut frames = Vec::new();
    for part in parts4(6, &tcp(40_000, 80, 7, &[5; 1000]), 504) {
        frames.extend([part.clone(), part]);
    }
    let record = play(&frames).only();
    assert_eq!((record.client.packets, record.client.payload_bytes), (6, 1000));
    assert_eq!(record.client.retransmits, Some(0));
    // Those of a datagram are counted, volumes too, as copies of a whole one are.
    for parts in [parts4(17, &query(), 48), parts6(17, &query(), 48)] {
        let frames: Vec<_> = parts.iter().flat_map(|part| [part.clone(), part.clone()]).collect();
        let record = play(&frames).only();
        assert_eq!((record.client.capture_duplicates, record.client.packets), (Some(2), 4));
        assert_eq!(record.dns.unwrap().retries, Some(0));
        assert_eq!(play(&parts).only().client.capture_duplicates, Some(0));
    }
}

#[test]
fn an_identification_is_used_again() {
    let mut wire = play(&parts4(17, &udp(40_000, 9, &[1; 40]), 24));
    wire.now += 1_000_000_000;
    wire.frames(&parts4(17, &udp(40_001, 9, &[1; 40]), 24));
    let (records, _, counters) = wire.end();
    assert_eq!((records.len(), counters.fragments_joined), (2, 2));
    assert!(records.iter().all(|record| record.client.packets == 2));
}

#[test]
fn what_is_missing_is_given_up_and_counted() {
    let frames = parts4(6, &tcp(40_000, 80, 7, &[5; 1000]), 104);
    let (records, _, counters) = play(&frames[..9]).end();
    assert_eq!((counters.fragments_joined, counters.fragments_given_up), (0, 1));
    // The receiver never saw the segment, but the fragments were there.
    assert_eq!((records[0].client.packets, records[0].client.payload_bytes), (9, 0));
    // Without the first one there are no ports.
    let (records, _, _) = play(&frames[1..]).end();
    assert_eq!((records[0].client.port, records[0].client.packets), (None, 9));
    assert_eq!(records[0].community_id, None);
}

#[test]
fn after_the_timeout_the_last_fragment_is_nobodys() {
    let frames = parts4(17, &query(), 48);
    let mut wire = play(&frames[..1]);
    wire.now += 31_000_000_000;
    wire.frame(&frames[1]);
    let (records, _, counters) = wire.end();
    assert_eq!(records.len(), 2);
    assert_eq!((counters.fragments_joined, counters.fragments_given_up), (0, 2));
}

#[test]
fn what_came_first_counts_where_fragments_overlap() {
    let segment = tcp(40_000, 80, 7, b"GET /right HTTP/1.1\r\nHost: a\r\n\r\n");
    let part = |from: usize, to: usize, wrong: usize| {
        let data = joined(&[&vec![b'x'; wrong], &segment[from + wrong..to]]);
        let more = if to < segment.len() { MORE } else { 0 };
        frame(&part4(6, (ALICE, BOB), more | (from / 8) as u16, &data))
    };
    let (whole, end) = (segment.len(), segment.len());
    for parts in [
        // Over the end of another, over both its ends, over the beginning of another and through several.
        vec![part(0, 32, 0), part(24, 40, 8), part(40, end, 0)],
        vec![part(16, 24, 0), part(32, 40, 0), part(8, end, 0), part(0, 16, 0)],
        vec![part(0, 24, 0), part(0, 40, 24), part(16, end, 24)],
    ] {
        let count = parts.len() as u64;
        let mut wire = play(&parts);
        wire.frame(&frame(&ipv4(6, (ALICE, BOB), &tcp(40_000, 80, whole as u32 - 20 + 7, b"x"))));
        let (records, _, counters) = wire.end();
        assert_eq!((records.len(), counters.fragments_joined, counters.fragments_given_up), (1, 1, 0));
        let client = &records[0].client;
        assert_eq!((client.packets, client.payload_bytes), (count + 1, whole as u64 - 20 + 1));
        assert_eq!(records[0].http.as_ref().unwrap().path.as_deref(), Some("/right"));
    }
}

#[test]
fn overlaps_in_ipv6_are_not_put_together() {
    let mut frames = parts6(17, &query(), 48);
    let header = joined(&[&[17, 0], &(32_u16 | 1).to_be_bytes(), &[0, 0, 0, 7]]);
    frames.insert(1, frame(&ipv6(44, (ALICE, BOB), &joined(&[&header, &[6; 48]]))));
    let record = play(&frames).only();
    assert_eq!((record.client.packets, record.dns), (frames.len() as u64, None));
    // Beyond the longest packet there can be.
    let beyond =
        [frame(&part4(17, (ALICE, BOB), MORE, &query()[..48])), frame(&part4(17, (ALICE, BOB), 0x1fff, &[0; 99]))];
    let (records, _, counters) = play(&beyond).end();
    assert_eq!((records.len(), counters.fragments_given_up), (1, 1));
}

/// Packets that are whole take no room from one of which a fragment is late.
#[test]
fn a_packet_waits_while_many_others_are_joined() {
    let limits = FragmentLimits { packets: 4, ..FragmentLimits::default() };
    let mut wire = Wire::with(FlowConfig { fragments: limits, ..config() });
    let late = parts4(17, &query(), 48);
    wire.frame(&late[0]);
    for host in 0..50_u8 {
        let data = udp(40_000, 53, &[0; 100]);
        let part = |place: u16, data: &[u8]| frame(&part4(17, ([10, 1, 0, host], BOB), place, data));
        wire.frames(&[part(MORE, &data[..80]), part(10, &data[80..])]);
    }
    wire.frames(&late[1..]);
    let (records, _, counters) = wire.end();
    assert_eq!((counters.fragments_joined, counters.fragments_given_up), (51, 0));
    is_query(records.iter().find(|record| record.dns.is_some()).unwrap(), &late);
}

#[test]
fn a_flood_of_first_fragments_is_bounded() {
    let limits = FragmentLimits { packets: 16, bytes: 100_000, ..FragmentLimits::default() };
    let mut wire = Wire::with(FlowConfig { fragments: limits, ..config() });
    for host in 0..200_u8 {
        let first = part4(17, ([10, 1, 0, host], BOB), MORE, &udp(40_000, 53, &[0; 4000]));
        wire.frame(&frame(&first));
    }
    let (records, _, counters) = wire.end();
    assert_eq!((records.len(), counters.fragments_given_up), (200, 200));
}

#[test]
fn a_snap_length_hides_bytes_not_the_length() {
    let mut wire = Wire::new();
    for part in parts4(6, &tcp(40_000, 80, 7, &[5; 1000]), 504) {
        wire.see(LinkType::ETHERNET, &part[..60.min(part.len())], part.len() as u32);
    }
    assert_eq!(wire.only().client.payload_bytes, 1000);
}

#[test]
fn an_atomic_fragment_is_whole() {
    let atomic = joined(&[&[17, 0, 0, 0, 0, 0, 0, 7], &query()]);
    let (records, _, counters) = play(&[frame(&ipv6(44, (ALICE, BOB), &atomic))]).end();
    assert_eq!((records[0].client.port, counters.fragments_joined), (Some(40_000), 0));
    assert!(records[0].dns.is_some());
}

#[test]
fn a_tunnel_in_fragments_carries_one_packet() {
    let vxlan = udp(50_000, 4789, &joined(&[&[8, 0, 0, 0, 0, 0, 5, 0], &frame(&hello())]));
    for reverse in [false, true] {
        let mut frames = parts4(17, &vxlan, 56);
        if reverse {
            frames.reverse();
        }
        let (records, carriers, counters) = play(&frames).end();
        assert_eq!((records.len(), carriers.len()), (1, 1), "{records:#?} {carriers:#?}");
        is_hello(&records[0]);
        assert_eq!((carriers[0].client.packets, carriers[0].client.port), (2, Some(50_000)));
        assert_eq!(carriers[0].client.payload_bytes, vxlan.len() as u64 - 8);
        assert_eq!((counters.decoded, counters.carriers), (2, 1));
    }
}

#[test]
fn fragments_in_a_tunnel() {
    let mut wire = Wire::new();
    let frames = parts4(17, &query(), 48);
    for part in &frames {
        let vxlan = udp(50_000, 4789, &joined(&[&[8, 0, 0, 0, 0, 0, 5, 0], part]));
        wire.frame(&frame(&ipv4(17, (LEFT, RIGHT), &vxlan)));
    }
    let (records, carriers, _) = wire.end();
    assert_eq!((records.len(), carriers.len()), (1, 1));
    is_query(&records[0], &frames);
    assert_eq!(carriers[0].client.packets, 2);
}

/// Destination options stand in what is divided (RFC 8200, 4.5): later fragments say only that there are some.
#[test]
fn options_that_are_divided_hide_no_transport() {
    let options = |next: u8| [next, 0, 4, 1, 4, 1, 1, 0];
    let query = query();
    let mut frames = parts6(60, &joined(&[&options(17), &query]), 16);
    let tunnelled = parts6(60, &joined(&[&options(4), &hello()]), 24);
    for _ in 0..2 {
        let record = play(&frames).only();
        assert_eq!((record.client.port, record.protocol.0), (Some(40_000), 17));
        assert_eq!(record.client.packets, frames.len() as u64);
        assert!(record.dns.is_some());
        frames.reverse();
    }
    for reverse in [false, true] {
        let mut frames = tunnelled.clone();
        if reverse {
            frames.reverse();
        }
        let (records, carriers, _) = play(&frames).end();
        assert_eq!((records.len(), carriers.len()), (1, 1), "{records:#?} {carriers:#?}");
        is_hello(&records[0]);
        assert_eq!((carriers[0].protocol.0, carriers[0].client.packets), (4, frames.len() as u64));
    }
}

#[test]
fn fragments_in_a_tunnel_that_is_divided_itself() {
    let parts = parts4(17, &query(), 48);
    let carried = |part: &Vec<u8>| {
        let vxlan = udp(50_000, 4789, &joined(&[&[8, 0, 0, 0, 0, 0, 5, 0], part]));
        [(0x2000, &vxlan[..48]), (6, &vxlan[48..])].map(|(at, data)| frame(&part4(17, (LEFT, RIGHT), at, data)))
    };
    let mut frames: Vec<_> = parts.iter().map(carried).collect();
    for _ in 0..2 {
        let mut wire = Wire::new();
        for both in &frames {
            wire.frames(both);
            // Their identification is the same.
            wire.now += 1_000_000_000;
        }
        let (records, carriers, counters) = wire.end();
        assert_eq!((records.len(), carriers.len()), (1, 1), "{records:#?} {carriers:#?}");
        is_query(&records[0], &parts);
        assert_eq!((carriers[0].client.packets, counters.fragments_joined), (4, 3));
        frames.reverse();
    }
}
