//! The flow engine: several packets, each two bytes of link type, two of milliseconds since the one before, and the frame,
//! in the form of [`crate::pieces`].

use wiretag_capture::flow::{Engine, FlowConfig};
use wiretag_capture::{EndReason, LinkType, Packet, Source};

use crate::Target;
use crate::corpus::{Corpus, tcp_frame};
use crate::pieces;

pub(crate) const TARGET: Target = Target { name: "engine", seeds, run, iterations: 20_000 };

/// Packets of an input.
const PACKETS: usize = 12;

fn packet(link_type: LinkType, wait: u16, data: &[u8]) -> Vec<u8> {
    [&link_type.0.to_be_bytes()[..], &wait.to_be_bytes(), data].concat()
}

fn seeds(corpus: &Corpus) -> Vec<Vec<u8>> {
    let (there, back) = ((40_000, 80), (80, 40_000));
    let connection = [
        tcp_frame(there, (0, 0x02), b""),
        tcp_frame(back, (0, 0x12), b""),
        tcp_frame(there, (1, 0x18), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        tcp_frame(back, (1, 0x18), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        tcp_frame(there, (28, 0x11), b""),
        tcp_frame(back, (39, 0x11), b""),
    ];
    let connection: Vec<_> = connection.iter().map(|frame| packet(LinkType::ETHERNET, 10, frame)).collect();
    let made = pieces::join(connection.iter().map(|packet| (0, packet.as_slice())));
    let asks = (40_000, 5432);
    let hello =
        b"\x16\x03\x01\0\x31\x01\0\0\x2d\x03\x03........-.......-.......-.......\0\0\x02\xc0\x2f\x01\0\0\x02\0\0";
    let upgrade = [
        tcp_frame(asks, (0, 0x02), b""),
        tcp_frame(asks, (1, 0x18), b"\0\0\0\x08\x04\xd2\x16\x2f"),
        tcp_frame((5432, 40_000), (1, 0x18), b"S"),
        tcp_frame(asks, (9, 0x18), hello),
    ];
    let upgrade: Vec<_> = upgrade.iter().map(|frame| packet(LinkType::ETHERNET, 10, frame)).collect();
    let upgrade = pieces::join(upgrade.iter().map(|packet| (0, packet.as_slice())));
    let captured = corpus.captures.iter().flat_map(|capture| {
        capture.chunks(PACKETS).map(|packets| {
            let packets: Vec<_> = packets.iter().map(|p| packet(p.link_type, 10, &p.data)).collect();
            pieces::join(packets.iter().map(|packet| (0, packet.as_slice())))
        })
    });
    [made, upgrade].into_iter().chain(captured).collect()
}

fn run(input: &[u8]) {
    let mut engine = Engine::new(FlowConfig { max_flows: 8, ..FlowConfig::new("node", Source::File) });
    let mut records = Vec::new();
    let mut time = 0_i64;
    for (interface, piece) in pieces::split(input) {
        let Some(([link_high, link_low, wait_high, wait_low], data)) = piece.split_first_chunk() else { continue };
        time += i64::from(i16::from_be_bytes([*wait_high, *wait_low])) * 1_000_000;
        let link_type = LinkType(u16::from_be_bytes([*link_high, *link_low]));
        let (wire_len, interface) = (data.len() as u32, interface as u32);
        let packet = Packet { time, data, wire_len, link_type, interface, direction: None, vlan: None };
        engine.packet(&packet, &mut records);
    }
    engine.finish(EndReason::EndOfInput, &mut records);
    assert_eq!(engine.counters().unaccounted(), 0);
}

#[test]
fn engine_survives() {
    crate::fuzz::run(&TARGET);
}
