//! The decoder: two bytes of link type, then the frame.

use wiretag_capture::decode::{Transport, decode};
use wiretag_capture::{LinkType, Packet};

use crate::Target;
use crate::corpus::{Corpus, tcp_frame, udp_frame, with_link_type};

pub(crate) const TARGET: Target = Target { name: "decode", seeds, run, iterations: 200_000 };

fn seeds(corpus: &Corpus) -> Vec<Vec<u8>> {
    let inner = udp_frame((40_000, 53), b"inner");
    let vxlan = udp_frame((40_000, 4789), &[b"\x08\0\0\0\0\0\x07\0", inner.as_slice()].concat());
    let made = [inner, vxlan, tcp_frame((40_000, 80), (1, 0x18), b"GET / HTTP/1.1\r\n\r\n")];
    let made = made.iter().map(|frame| with_link_type(LinkType::ETHERNET, frame));
    made.chain(corpus.captures.iter().flatten().map(|packet| with_link_type(packet.link_type, &packet.data))).collect()
}

fn run(input: &[u8]) {
    let Some((link_type, data)) = input.split_first_chunk() else { return };
    let link_type = LinkType(u16::from_be_bytes(*link_type));
    let wire_len = data.len() as u32;
    let packet = Packet { time: 0, data, wire_len, link_type, interface: 0, direction: None, vlan: None };
    let Ok(decoded) = decode(&packet) else { return };
    if let Transport::Tcp(wiretag_capture::decode::Tcp { payload, payload_len, .. })
    | Transport::Udp { payload, payload_len } = decoded.transport
    {
        assert!(payload.len() <= payload_len as usize, "captured more than was on the wire");
    }
}

#[test]
fn decode_survives() {
    crate::fuzz::run(&TARGET);
}
