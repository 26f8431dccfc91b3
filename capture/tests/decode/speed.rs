//! What a packet costs: `cargo test --release -p wiretag-capture --test decode -- --ignored --nocapture speed`.

use std::hint::black_box;
use std::time::Instant;

use wiretag_capture::LinkType;
use wiretag_capture::decode::{Decoder, TunnelPorts};
use wiretag_capture::packet::Packet;

use crate::wire::*;

const ROUNDS: u32 = 20_000;

#[test]
#[ignore = "measures; only an optimised build on a quiet machine says anything"]
#[allow(clippy::disallowed_methods, reason = "a stop watch")]
fn nanoseconds_a_packet() {
    let payload = [0; 64];
    let segment = tcp(40_000, 443, 1, &payload);
    let four = ipv4(6, (ALICE, BOB), &segment);
    let vxlan = udp(50_000, 4789, &joined(&[&[8, 0, 0, 0, 0, 0, 5, 0], &frame(&four)]));
    let kinds = [
        ("TCP, IPv4", frame(&four)),
        ("UDP, IPv4", frame(&ipv4(17, (ALICE, BOB), &udp(40_000, 443, &payload)))),
        ("TCP, IPv6", frame(&ipv6(6, (ALICE, BOB), &segment))),
        ("TCP, VLAN", ethernet(0x8100, &tag(0x0800, 5, &four))),
        ("TCP, VXLAN", frame(&ipv4(17, (LEFT, RIGHT), &vxlan))),
    ];
    for (name, data) in kinds {
        let wire_len = data.len() as u32;
        let link_type = LinkType::ETHERNET;
        let packet = Packet { time: 1, data: &data, wire_len, link_type, interface: 1, direction: None, vlan: None };
        let mut decoder = Decoder::new(TunnelPorts::default());
        let mut wire = Wire::new();
        let mut best = (f64::MAX, f64::MAX);
        for _ in 0..20 {
            let began = Instant::now();
            for _ in 0..ROUNDS {
                let _ = black_box(&decoder.decode(black_box(&packet)));
            }
            best.0 = best.0.min(began.elapsed().as_nanos() as f64 / f64::from(ROUNDS));
            let mut out = Vec::new();
            let began = Instant::now();
            for _ in 0..ROUNDS {
                black_box(wire.engine.packet(black_box(&packet), &mut out));
            }
            best.1 = best.1.min(began.elapsed().as_nanos() as f64 / f64::from(ROUNDS));
        }
        println!("{name}: decode {:.1} ns, decode and track {:.1} ns", best.0, best.1);
    }
}
