//! Who asked, where the packets themselves tell.

use wiretag_capture::record::OrientedBy;

use crate::wire::*;

/// The client, and what decided that.
fn client(packets: &[Vec<u8>]) -> (std::net::IpAddr, OrientedBy) {
    let mut wire = Wire::new();
    for packet in packets {
        wire.frame(&frame(packet));
    }
    let record = wire.only();
    (record.client.ip, record.oriented_by)
}

#[test]
fn nobody_answers_from_an_address_of_many() {
    let stream = |to: [u8; 4]| ipv4(17, (ALICE, to), &udp(5004, 50_004, b"0123456789"));
    for to in [[239, 1, 1, 1], [255; 4]] {
        assert_eq!(client(&[stream(to)]), (ALICE.into(), OrientedBy::FirstPacket));
    }
    // To one host, the ports decide.
    assert_eq!(client(&[stream(BOB)]), (BOB.into(), OrientedBy::Port));
    let mut group = ipv6(17, (ALICE, BOB), &udp(5004, 50_004, b"0123456789"));
    group[24..26].copy_from_slice(&[0xff, 2]);
    assert_eq!(client(&[group]), (v6(ALICE).into(), OrientedBy::FirstPacket));
}

#[test]
fn an_association_is_opened_by_init() {
    let chunk = |(from, to): ([u8; 4], [u8; 4]), (src, dst): (u16, u16), kind: u8| {
        let header = joined(&[&src.to_be_bytes(), &dst.to_be_bytes(), &[0; 8]]);
        ipv4(132, (from, to), &joined(&[&header, &[kind, 0, 0, 8, 1, 2, 3, 4]]))
    };
    // A base station, whose port is the lower one.
    let there = |kind| chunk((ALICE, BOB), (9487, 38_412), kind);
    let back = |kind| chunk((BOB, ALICE), (38_412, 9487), kind);
    assert_eq!(client(&[there(1), back(2), there(10), back(11)]), (ALICE.into(), OrientedBy::Syn));
    assert_eq!(client(&[back(2), there(10), back(11)]), (ALICE.into(), OrientedBy::SynAck));
    assert_eq!(client(&[back(0), there(1)]), (ALICE.into(), OrientedBy::Syn));
    assert_eq!(client(&[there(0), back(3)]), (BOB.into(), OrientedBy::Port));
}

#[test]
fn an_echo_that_was_answered_before_the_capture_began() {
    let echo4 = |ends, kind| ipv4(1, ends, &[kind, 0, 0, 0, 0, 7, 0, 1, 9, 9]);
    let echo6 = |ends, kind| ipv6(58, ends, &[kind, 0, 0, 0, 0, 7, 0, 1, 9, 9]);
    let (there, back) = ((ALICE, BOB), (BOB, ALICE));
    assert_eq!(client(&[echo4(back, 0)]).0, std::net::IpAddr::from(ALICE));
    assert_eq!(client(&[echo4(back, 0), echo4(there, 8), echo4(back, 0)]).0, std::net::IpAddr::from(ALICE));
    assert_eq!(client(&[echo4(there, 8), echo4(back, 0)]).0, std::net::IpAddr::from(ALICE));
    assert_eq!(client(&[echo6(back, 129), echo6(there, 128)]).0, std::net::IpAddr::from(v6(ALICE)));
}
