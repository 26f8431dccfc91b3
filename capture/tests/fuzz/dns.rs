//! DNS, through the flow engine: messages that two ends send, over UDP and then over TCP.

use wiretag_capture::flow::{Engine, FlowConfig};
use wiretag_capture::{EndReason, LinkType, Packet, Source};

use crate::Target;
use crate::corpus::{Corpus, tcp_frame, udp_frame};
use crate::pieces;

pub(crate) const TARGET: Target = Target { name: "dns", seeds, run, iterations: 20_000 };

fn seeds(corpus: &Corpus) -> Vec<Vec<u8>> {
    let question = b"\x03www\x07example\0\0\x01\0\x01";
    let query = [&b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0"[..], question].concat();
    let answer =
        [&b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0"[..], question, b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x01"];
    let answer = answer.concat();
    let captured = corpus.payloads(|decoded, payload| {
        [decoded.src_port, decoded.dst_port].iter().any(|port| matches!(port, Some(53 | 5353 | 5355)))
            && payload.len() > 12
    });
    let pairs =
        captured.windows(2).map(|pair| pieces::join(pair.iter().map(|(end, payload)| (*end, payload.as_slice()))));
    std::iter::once(pieces::join([(0, query.as_slice()), (1, answer.as_slice())])).chain(pairs).collect()
}

fn run(input: &[u8]) {
    let mut engine = Engine::new(FlowConfig::new("node", Source::File));
    let mut records = Vec::new();
    let mut time = 0;
    let mut sequences = [1, 1];
    for (end, message) in pieces::split(input) {
        let ports = if end == 0 { (40_000, 53) } else { (53, 40_000) };
        // The length of TCP's messages is right most of the time: those that it is not for are the UDP ones mutated.
        let framed = [&(message.len() as u16).to_be_bytes(), message].concat();
        let segment = tcp_frame(ports, (sequences[end], 0x18), &framed);
        sequences[end] += framed.len() as u32;
        for data in [udp_frame(ports, message), segment] {
            time += 1_000_000;
            let (wire_len, link_type) = (data.len() as u32, LinkType::ETHERNET);
            let packet = Packet { time, data: &data, wire_len, link_type, interface: 0, direction: None, vlan: None };
            engine.packet(&packet, &mut records);
        }
    }
    engine.finish(EndReason::EndOfInput, &mut records);
    for dns in records.iter().filter_map(|record| record.dns.as_deref()) {
        let name = dns.query.as_deref().unwrap_or_default();
        assert!(name.len() <= 4 * 255 && name.bytes().all(|byte| (0x21..=0x7e).contains(&byte)), "{name}");
    }
}

#[test]
fn dns_survives() {
    crate::fuzz::run(&TARGET);
}
