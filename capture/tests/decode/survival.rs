//! Any bytes are survived, and each packet is accounted for.

use proptest::prelude::*;
use wiretag_capture::LinkType;
use wiretag_capture::decode::reads;
use wiretag_capture::packet::Packet;

use crate::seldom::{seldom, tagged};
use crate::tunnels::others;
use crate::wire::*;
use crate::wlan::sent;
use crate::wrapped::{extended, mac_in_mac, macsec, nsh};

/// One packet of every kind, with its link type.
fn kinds() -> Vec<(LinkType, Vec<u8>)> {
    let (packet, inner) = (hello(), frame(&hello()));
    let vxlan = udp(50_000, 4789, &joined(&[&[8, 0, 0, 0, 0, 0, 5, 0], &inner]));
    let geneve = udp(50_000, 6081, &joined(&[&[2, 0, 0x65, 0x58, 0, 0, 5, 0], &[1; 8], &inner]));
    let gtp = udp(2152, 2152, &joined(&[&[0x34, 0xff, 0, 38, 0, 0, 0, 5, 0, 0, 0, 0x85, 1, 0, 0, 0], &packet]));
    let gre = joined(&[&[0xb0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1], &packet]);
    let erspan =
        joined(&[&[0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20, 5, 0, 100, 0, 0, 0, 0, 0, 0, 0, 1], &[9; 8], &inner]);
    let mut teredo = ipv6(6, (ALICE, BOB), &tcp(1, 2, 3, b"x"));
    teredo[8..12].copy_from_slice(&[0x20, 1, 0, 0]);
    let error = joined(&[&[3, 3, 0, 0, 0, 0, 0, 0], &packet]);
    let part = joined(&[&[60, 0, 0, 1, 0, 0, 0, 7, 17, 0, 1, 4, 0, 0, 0, 0], &udp(1, 2, b"12345678")]);
    let ethernets = [
        inner.clone(),
        ethernet(0x88a8, &tag(0x8100, 5, &tag(0x0800, 6, &packet))),
        ethernet(0x8847, &joined(&[&[0, 1, 0, 64, 0, 2, 1, 64, 0, 0, 0, 0], &inner])),
        ethernet(0x8864, &joined(&[&[0x11, 0, 0, 1, 0, 40, 0, 0x21], &packet])),
        ethernet(46, &joined(&[&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &packet])),
        frame(&ipv4(17, (LEFT, RIGHT), &vxlan)),
        frame(&ipv6(17, (LEFT, RIGHT), &geneve)),
        frame(&ipv4(17, (LEFT, RIGHT), &gtp)),
        frame(&ipv4(47, (LEFT, RIGHT), &gre)),
        frame(&ipv6(47, (LEFT, RIGHT), &erspan)),
        frame(&ipv4(17, (LEFT, RIGHT), &udp(3544, 3544, &teredo))),
        frame(&ipv6(4, (LEFT, RIGHT), &ipv4(41, (LEFT, RIGHT), &ipv6(58, (ALICE, BOB), &[128, 0, 0, 0, 0, 1, 0, 1])))),
        frame(&ipv4(1, (LEFT, ALICE), &error)),
        frame(&ipv6(44, (ALICE, BOB), &part)),
        frame(&part4(17, (LEFT, RIGHT), 0x2000, &vxlan)),
        frame(&part4(17, (LEFT, RIGHT), 5, &vxlan)),
        frame(&ipv4(132, (ALICE, BOB), &[1; 30])),
        ethernet(0x894f, &nsh(3, &[1; 16], &inner)),
        mac_in_mac(&inner),
        macsec(0x20, &joined(&[&[8, 0], &packet])),
        frame(&ipv6(17, (LEFT, RIGHT), &udp(50_000, 6635, &joined(&[&[0, 1, 0, 64, 0, 0, 0x51, 64], &packet])))),
    ];
    let mut all: Vec<_> = ethernets.into_iter().map(|data| (LinkType::ETHERNET, data)).collect();
    all.extend(extended().into_iter().map(|data| (LinkType::ETHERNET, data)));
    all.extend(
        others()
            .into_iter()
            .map(|(protocol, payload, ..)| (LinkType::ETHERNET, frame(&ipv4(protocol, (LEFT, RIGHT), &payload)))),
    );
    all.push((LinkType::IEEE802_11, sent()));
    all.push((LinkType::IEEE802_11_RADIO, joined(&[&[0, 0, 9, 0, 2, 0, 0, 0, 0], &sent()])));
    all.push((LinkType::PPI, joined(&[&[0, 0, 8, 0, 1, 0, 0, 0], &inner])));
    all.push((LinkType::PKTAP, joined(&[&[12, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0], &inner])));
    all.push((LinkType::LINUX_SLL, joined(&[&[0, 0, 0, 1, 0, 6, 9, 9, 9, 9, 9, 9, 0, 0, 8, 0], &packet])));
    all.push((LinkType::LINUX_SLL2, joined(&[&[8, 0], &[0; 18], &packet])));
    all.push((LinkType::NFLOG, joined(&[&[2, 0, 0, 0, 5, 0, 10, 0, b'x', 0, 0, 0, 42, 0, 9, 0], &packet])));
    all.push((LinkType::PPP, joined(&[&[0xff, 3, 0, 0x21], &packet])));
    all.push((LinkType::NULL, joined(&[&[2, 0, 0, 0], &packet])));
    all.push((LinkType::C_HDLC, joined(&[&[0x0f, 0, 8, 0], &packet])));
    all.extend(seldom());
    all.extend(tagged());
    all
}

#[test]
fn every_prefix_and_every_bit() {
    let mut wire = Wire::new();
    let mut seen = 0;
    for (link_type, data) in kinds() {
        for len in 0..=data.len() {
            wire.see(link_type, &data[..len], data.len() as u32);
            // What was on the wire may be said wrongly too.
            wire.see(link_type, &data[..len], len as u32 / 2);
            seen += 2;
        }
        for bit in 0..data.len() * 8 {
            let mut flipped = data.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            wire.see(link_type, &flipped, flipped.len() as u32);
            seen += 1;
        }
    }
    // `end` adds up what was counted where.
    let (_, _, counters) = wire.end();
    assert_eq!(counters.packets, seen);
    assert!(counters.carriers > 0 && counters.refused.len() > 4);
}

proptest! {
    #[test]
    fn any_bytes_of_any_link_type(
        link_type in (0_u16..300).prop_filter("has a decoder", |number| reads(LinkType(*number))),
        data in prop::collection::vec(any::<u8>(), 0..200),
        wire_len in any::<u32>(),
        vlan in any::<Option<(u16, u16)>>(),
    ) {
        let mut wire = Wire::new();
        let packet =
            Packet { time: 1, data: &data, wire_len, link_type: LinkType(link_type), interface: 1, direction: None, vlan };
        wire.engine.packet(&packet, &mut Vec::new());
        let counters = wire.engine.counters();
        prop_assert_eq!(counters.packets, 1);
        prop_assert_eq!(counters.unaccounted(), 0);
    }

    /// Fields of headers that lead on to others, again and again.
    #[test]
    fn mutated_packets(
        kind in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut kinds = kinds();
        let (link_type, mut data) = kinds.swap_remove(kind.index(kinds.len()));
        let wire_len = data.len() as u32;
        for (at, value) in changes {
            let at = at.index(data.len());
            data[at] = value;
        }
        data.truncate(cut.index(data.len()) + 1);
        let mut wire = Wire::new();
        for _ in 0..2 {
            wire.see(link_type, &data, wire_len);
        }
        wire.end();
    }
}
