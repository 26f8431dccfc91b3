//! Packets that the capture delivered twice.

use etherparse::err::packet::BuildWriteError;
use etherparse::{PacketBuilder, TcpHeader};
use wiretag_capture::decode::{Decoded, Transport};
use wiretag_capture::file::CaptureFile;
use wiretag_capture::flow::{Engine, FlowConfig};
use wiretag_capture::pcapng::{InterfaceBlock, enhanced_packet, interface_description, section_header};
use wiretag_capture::{EndReason, FlowRecord, LinkType, Packet, Protocol, Source};

use crate::story::*;

/// A datagram of the client's.
fn udp(payload: &[u8], ip_id: Option<u16>, mac: u8) -> Decoded<'_> {
    let payload_len = payload.len() as u32;
    let datagram = decoded(Client, Some((40_000, 8125)), Protocol::UDP, Transport::Udp { payload, payload_len });
    Decoded { ip_id, src_mac: Some([mac; 6]), ..datagram }
}

/// An echo request of the client's, or its reply.
fn echo(from: Host, sequence: u32, ip_id: Option<u16>) -> Decoded<'static> {
    let (kind, ports) = if from == Client { (8, (8, 0)) } else { (0, (8, 0)) };
    let icmp = Transport::Icmp { kind, code: 0, rest: sequence, payload: &[7; 8], payload_len: 8 };
    Decoded { ip_id, ..decoded(from, Some(ports), Protocol::ICMP, icmp) }
}

/// Packets of the client's at these microseconds.
fn at(packets: &[(i64, Decoded<'_>)]) -> FlowRecord {
    let mut story = Story::new();
    for (time, packet) in packets {
        story.packet(time * 1000, packet, Client);
    }
    story.only()
}

/// Copies, and volumes, which count what was delivered.
fn counted(record: &FlowRecord) -> (Option<u32>, u64, u64) {
    (record.client.capture_duplicates, record.client.packets, record.client.payload_bytes)
}

#[test]
fn a_datagram_captured_twice_is_one() {
    let one = || udp(b"requests:1|c", Some(7), 2);
    assert_eq!(counted(&at(&[(0, one()), (400, one()), (2000, one())])), (Some(2), 3, 36));
    // Another identification, another content, or a long time between.
    assert_eq!(counted(&at(&[(0, one()), (400, udp(b"requests:1|c", Some(8), 2))])), (Some(0), 2, 24));
    assert_eq!(counted(&at(&[(0, one()), (400, udp(b"requests:2|c", Some(7), 2))])), (Some(0), 2, 24));
    assert_eq!(counted(&at(&[(0, one()), (200_000, one())])), (Some(0), 2, 24));
    // A sender that numbers all packets alike.
    let other = udp(b"errors:1|c", Some(7), 2);
    assert_eq!(counted(&at(&[(0, one()), (10, other), (20, one())])).0, Some(0));
}

#[test]
fn without_identification_a_copy_comes_from_another_place() {
    for none in [None, Some(0)] {
        let one = |mac| udp(b"requests:1|c", none, mac);
        // A counter that goes up twice.
        assert_eq!(counted(&at(&[(0, one(2)), (3, one(2))])), (Some(0), 2, 24));
        // The same behind a router.
        assert_eq!(counted(&at(&[(0, one(2)), (3, one(9))])), (Some(1), 2, 24));
        assert_eq!(counted(&at(&[(0, one(2)), (200_000, one(9))])), (Some(0), 2, 24));
    }
    // The same at the other side of an interface.
    let mut story = Story::new();
    story.packet(0, &udp(b"requests:1|c", None, 2), Client);
    story.packet(3000, &udp(b"requests:1|c", None, 2), Server);
    assert_eq!(counted(&story.only()), (Some(1), 2, 24));
}

#[test]
fn both_ends_of_a_payload_tell() {
    let (mut first, mut last) = ([b'x'; 500], [b'x'; 500]);
    (first[20], last[480]) = (b'y', b'y');
    let plain = [b'x'; 500];
    for other in [&first, &last] {
        assert_eq!(counted(&at(&[(0, udp(&plain, Some(7), 2)), (9, udp(other, Some(7), 2))])).0, Some(0));
    }
    assert_eq!(counted(&at(&[(0, udp(&plain, Some(7), 2)), (9, udp(&plain, Some(7), 2))])).0, Some(1));
}

#[test]
fn an_echo_captured_twice_is_one() {
    let echoes =
        [(0, 1), (1, 1), (1000, 2), (1001, 2), (900_000, 2)].map(|(at, number)| (at, echo(Client, number, None)));
    // The last one is another request with the same number.
    assert_eq!(counted(&at(&echoes)), (Some(2), 5, 40));
    let mut story = Story::new();
    story.packet(0, &echo(Client, 1, Some(5)), Client);
    story.packet(10, &echo(Server, 1, Some(5)), Server);
    story.packet(20, &echo(Server, 1, Some(5)), Server);
    let record = story.only();
    assert_eq!((record.client.capture_duplicates, record.server.capture_duplicates), (Some(0), Some(1)));
}

#[test]
fn a_query_captured_twice_is_asked_once() {
    let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03org\0\0\x01\0\x01";
    let payload_len = query.len() as u32;
    let transport = || Transport::Udp { payload: query, payload_len };
    let datagram = |id| Decoded { ip_id: Some(id), ..decoded(Client, Some((40_000, 53)), Protocol::UDP, transport()) };
    let retries = |record: FlowRecord| record.dns.expect("DNS").retries;
    assert_eq!(retries(at(&[(0, datagram(7)), (3000, datagram(7))])), Some(0));
    assert_eq!(retries(at(&[(0, datagram(7)), (3000, datagram(8))])), Some(1));
}

#[test]
fn copies_are_counted_by_slice_and_in_bounded_memory() {
    let mut story = Story::new();
    let before = story.engine.memory_bytes();
    for number in 0..70_000_u32 {
        let payload = number.to_be_bytes();
        let time = i64::from(number) * MS;
        story.packet(time, &udp(&payload, Some((number % 65_535) as u16 + 1), 2), Client);
        story.packet(time + 1000, &udp(&payload, Some((number % 65_535) as u16 + 1), 2), Client);
    }
    assert_eq!(story.engine.counters().flows_active, 1);
    assert!(story.engine.memory_bytes() < before + 500_000);
    let records = story.end();
    let copies: Vec<_> = records.iter().map(|record| record.client.capture_duplicates).collect();
    assert_eq!(copies, [Some(60_000), Some(10_000)]);
}

/// Frames of a connection whose client asks once.
fn connection() -> Result<Vec<Vec<u8>>, BuildWriteError> {
    let steps = [
        (true, (100, 0), true, ""),
        (false, (500, 101), true, ""),
        (true, (101, 501), false, ""),
        (true, (101, 501), false, "ping"),
        (false, (501, 105), false, "pong"),
    ];
    let frame = |(from_client, (seq, ack), syn, payload): (bool, (u32, u32), bool, &str)| {
        let [own, other] = if from_client { [2, 1] } else { [1, 2] };
        let [src_port, dst_port] = if from_client { [40_000, 7] } else { [7, 40_000] };
        let mut tcp = TcpHeader::new(src_port, dst_port, seq, 1000);
        (tcp.syn, tcp.ack, tcp.acknowledgment_number) = (syn, ack > 0, ack);
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([own; 6], [other; 6]).ipv4([10, 0, 0, own], [10, 0, 0, other], 64);
        builder.tcp_header(tcp).write(&mut frame, payload.as_bytes()).map(|()| frame)
    };
    steps.into_iter().map(frame).collect()
}

/// A capture of both sides of a router as one: each packet comes again from the router's address. None has an identification.
#[test]
fn segments_without_identification_are_copies_if_they_come_from_another_place() {
    for (mac, copies) in [(9, Some([3, 2])), (0, None)] {
        let mut engine = Engine::new(FlowConfig::new("node", Source::File));
        let mut records = Vec::new();
        for (number, frame) in (0..).zip(connection().expect("frames")) {
            let mut again = frame.clone();
            // In the other case the same comes again from the same place: it is sent again.
            if mac != 0 {
                again[6..12].fill(mac);
                again[22] -= 1;
            }
            for (late, data) in [(0, &frame), (300_000, &again)] {
                let (time, wire_len) = (BEGIN + number * MS + late, data.len() as u32);
                let link_type = LinkType::ETHERNET;
                let packet = Packet { time, data, wire_len, link_type, interface: 1, direction: None, vlan: None };
                engine.packet(&packet, &mut records);
            }
        }
        engine.finish(EndReason::EndOfInput, &mut records);
        let [record] = records.as_slice() else { panic!("{records:#?}") };
        let sides = [&record.client, &record.server];
        assert_eq!(sides.map(|side| side.capture_duplicates), copies.map_or([Some(0); 2], |copies| copies.map(Some)));
        let repeated = sides.map(|side| side.retransmits);
        assert_eq!(repeated, if copies.is_some() { [Some(0); 2] } else { [Some(2); 2] });
        assert_eq!(sides.map(|side| (side.packets, side.payload_bytes)), [(6, 4), (4, 4)]);
    }
}

/// `tcpdump -i any` on a host that forwards: cooked headers of both versions, with the same address where it went out.
#[test]
fn segments_without_identification_are_copies_if_a_cooked_capture_heard_them_elsewhere() {
    let first = |kind: u8| vec![0, kind, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0, 8, 0];
    let second = |kind: u8| vec![8, 0, 0, 0, 0, 0, 0, 3 + kind, 0, 1, kind, 6, 2, 2, 2, 2, 2, 2, 0, 0];
    let headers = [
        (LinkType::LINUX_SLL, [first(0), first(4)], true),
        (LinkType::LINUX_SLL2, [second(0), second(4)], true),
        (LinkType::LINUX_SLL2, [second(0), second(0)], false),
    ];
    for (link_type, headers, elsewhere) in headers {
        let mut engine = Engine::new(FlowConfig::new("node", Source::File));
        let mut records = Vec::new();
        for (number, frame) in (0..).zip(connection().expect("frames")) {
            for (header, late) in headers.iter().zip([0, 50_000]) {
                let data = &[header, &frame[14..]].concat();
                let (time, wire_len) = (BEGIN + number * MS + late, data.len() as u32);
                let packet = Packet { time, data, wire_len, link_type, interface: 1, direction: None, vlan: None };
                engine.packet(&packet, &mut records);
            }
        }
        engine.finish(EndReason::EndOfInput, &mut records);
        let [record] = records.as_slice() else { panic!("{records:#?}") };
        let copies = [&record.client, &record.server].map(|side| (side.capture_duplicates, side.retransmits));
        let expected = if elsewhere { [(Some(3), Some(0)), (Some(2), Some(0))] } else { [(Some(0), Some(2)); 2] };
        assert_eq!(copies, expected, "{link_type:?}");
    }
}

/// `tcpdump -i any` on a router: the kernel hands packets on in lists, and each is captured as a whole before it is sent on.
#[test]
fn copies_come_in_lists() {
    for (length, gap) in [(2, 10), (5, 100), (8, 100), (12, 40)] {
        let mut story = Story::new();
        let mut at = 0;
        let mut list = |story: &mut Story, segments: Vec<Segment>| {
            for segment in [&segments, &segments].into_iter().flatten() {
                story.tcp(at, segment);
                at += gap * 1000;
            }
            at += MS;
        };
        list(&mut story, vec![segment(Client, SYN, 100, 0).ip_id(7)]);
        list(&mut story, vec![segment(Server, SYN | ACK, 500, 101).ip_id(70)]);
        list(&mut story, vec![segment(Client, ACK, 101, 501).ip_id(8)]);
        for turn in 0..20_u32 {
            let part = |number| segment(Client, ACK, 101 + (turn * length + number) * 100, 501).data(100);
            list(
                &mut story,
                (0..length).map(|number| part(number).ip_id(9 + (turn * length + number) as u16)).collect(),
            );
            let acknowledged = segment(Server, ACK, 501, 101 + (turn + 1) * length * 100);
            list(&mut story, vec![acknowledged.ip_id(71 + turn as u16)]);
        }
        // The capture is right about a repetition, which has another identification.
        list(&mut story, vec![segment(Client, ACK, 101, 501).data(100).ip_id(5000)]);
        let record = story.only();
        let (client, server) = (&record.client, &record.server);
        assert_eq!(client.capture_duplicates, Some(3 + 20 * length), "{length}");
        assert_eq!((client.retransmits, client.spurious_retransmits), (Some(1), Some(1)), "{length}");
        assert_eq!((server.capture_duplicates, server.duplicate_acks), (Some(21), Some(0)), "{length}");
    }
}

#[test]
fn copies_of_datagrams_come_in_lists_too() {
    let mut story = Story::new();
    let mut send = |at: i64, number: u16| {
        story.packet(at * 1000, &udp(&number.to_be_bytes(), Some(number), 2), Client);
    };
    send(0, 1);
    send(50, 1);
    for (list, at) in (0..50).zip((1000..).step_by(1000)) {
        for (number, place) in [0, 1].into_iter().flat_map(|_| 2 + 8 * list..10 + 8 * list).zip(0..) {
            send(at + 20 * place, number);
        }
    }
    assert_eq!(counted(&story.only()), (Some(401), 802, 1604));
}

/// A capture of both sides of a bridge in one file: each packet is on two of its interfaces.
#[test]
fn copies_on_two_interfaces_of_a_file_are_two_flows_without_a_retransmission() {
    let mut file = Vec::new();
    section_header(&mut file, "test");
    for name in ["left", "right"] {
        let link_type = LinkType::ETHERNET;
        interface_description(&mut file, &InterfaceBlock { name, description: None, link_type, snap_len: 0 });
    }
    for (number, frame) in (0..).zip(&connection().expect("frames")) {
        for interface in [0, 1] {
            let (time, wire_len) = (BEGIN + number * MS + i64::from(interface) * 3000, frame.len() as u32);
            let link_type = LinkType::ETHERNET;
            let packet = Packet { time, data: frame, wire_len, link_type, interface, direction: None, vlan: None };
            enhanced_packet(&mut file, interface, &packet, None);
        }
    }
    let mut file = CaptureFile::new(Box::new(std::io::Cursor::new(file)), "test").expect("a capture");
    let mut engine = Engine::new(FlowConfig::new("node", Source::File));
    let mut records = Vec::new();
    while let Some(packet) = file.next_packet().expect("a packet") {
        engine.packet(&packet, &mut records);
    }
    engine.finish(EndReason::EndOfInput, &mut records);
    let seen: Vec<_> = records
        .iter()
        .map(|record| {
            let sides = [&record.client, &record.server];
            let odd = sides.map(|side| (side.retransmits, side.capture_duplicates, side.duplicate_acks));
            (record.interface_index, sides.map(|side| (side.packets, side.payload_bytes)), odd)
        })
        .collect();
    let none = [(Some(0), Some(0), Some(0)); 2];
    assert_eq!(seen, [(0, [(3, 4), (2, 4)], none), (1, [(3, 4), (2, 4)], none)]);
    assert_ne!(records[0].flow_id, records[1].flow_id);
    assert_eq!(records[0].community_id, records[1].community_id);
}
