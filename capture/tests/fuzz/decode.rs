//! The decoder: two bytes of link type, then the frame.

use wiretag_capture::decode::{Transport, decode};
use wiretag_capture::{LinkType, Packet};

use crate::Target;
use crate::corpus::{Corpus, tcp_frame, udp_frame, with_link_type};

pub(crate) const TARGET: Target = Target { name: "decode", seeds, run, iterations: 200_000 };

fn seeds(corpus: &Corpus) -> Vec<Vec<u8>> {
    let inner = udp_frame((40_000, 53), b"inner");
    let vxlan = udp_frame((40_000, 4789), &[b"\x08\0\0\0\0\0\x07\0", inner.as_slice()].concat());
    let ip = inner.get(14..).unwrap_or_default();
    let behind = |header: &[u8], rest: &[u8]| [&[2; 12], header, rest].concat();
    let wrapped = [
        behind(b"\x89\x4f\x0f\xc2\x02\x01\0\0\x05\xff", ip),
        behind(b"\x89\x4f\x0f\xc2\x02\x04\0\0\x05\xff\x0f\xc3\x02\x03\0\0\x05\xfe\0\0\0\0", &inner),
        behind(b"\x88\xa8\0\x64\x88\xe7\0\0\0\x05", &inner),
        behind(b"\x88\xe5\x20\0\0\0\0\x01\x02\x02\x02\x02\x02\x02\0\x01\x08\0", ip),
        behind(b"\x89\x26\x80\x01\0\x02\x08\0", ip),
        behind(b"\x22\xf3\0\x7f\0\x01\0\x02\x09\x09\x09\x09", &inner),
        udp_frame((40_000, 1701), &[b"\x42\x02\0\x30\0\x09\0\x05\0\x02\x09\x09\0\x21", ip].concat()),
        udp_frame((40_000, 5072), &[b"\x04\x02\x01\x04\0\0\0\x01\x09", ip].concat()),
        udp_frame((40_000, 6635), &[b"\0\x01\0\x40\0\x02\x01\x40", ip].concat()),
        udp_frame((40_000, 4790), &[b"\x0c\0\0\x04\0\0\x05\0\x0f\xc2\x02\x01\0\0\x05\xff", ip].concat()),
    ];
    for frame in &wrapped {
        assert!(
            decode(&packet(LinkType::ETHERNET, frame)).is_ok_and(|decoded| decoded.dst_port == Some(53)),
            "{frame:02x?}"
        );
    }
    let wlan = b"\x88\x01\0\0\x08\x08\x08\x08\x08\x08\x03\x03\x03\x03\x03\x03\x02\x02\x02\x02\x02\x02\x10\0\0\0\xaa\xaa\x03\0\0\0\x08\0";
    let radio = [b"\0\0\x11\0\x03\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08\0", wlan.as_slice(), ip].concat();
    assert!(decode(&packet(LinkType::IEEE802_11_RADIO, &radio)).is_ok(), "{radio:02x?}");
    let radio = with_link_type(LinkType::IEEE802_11_RADIO, &radio);
    let made = [inner.clone(), vxlan, tcp_frame((40_000, 80), (1, 0x18), b"GET / HTTP/1.1\r\n\r\n")];
    let made = made.iter().chain(&wrapped).map(|frame| with_link_type(LinkType::ETHERNET, frame));
    made.chain([radio])
        .chain(corpus.captures.iter().flatten().map(|packet| with_link_type(packet.link_type, &packet.data)))
        .collect()
}

fn packet(link_type: LinkType, data: &[u8]) -> Packet<'_> {
    Packet { time: 0, data, wire_len: data.len() as u32, link_type, interface: 0, direction: None, vlan: None }
}

fn run(input: &[u8]) {
    let Some((link_type, data)) = input.split_first_chunk() else { return };
    let link_type = LinkType(u16::from_be_bytes(*link_type));
    let Ok(decoded) = decode(&packet(link_type, data)) else { return };
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
