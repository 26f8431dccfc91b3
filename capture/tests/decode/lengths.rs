//! Lengths are the wire's: snap lengths, padding, offloading and jumbograms change no figure.

use wiretag_capture::{Direction, LinkType, Packet};

use crate::wire::*;

#[test]
fn a_snap_length_hides_bytes_not_lengths() {
    let whole = frame(&ipv4(6, (ALICE, BOB), &tcp(40_000, 80, 100, &[0; 1000])));
    let mut wire = Wire::new();
    wire.see(LinkType::ETHERNET, &whole[..60], whole.len() as u32);
    let record = wire.only();
    assert_eq!((record.client.bytes, record.client.payload_bytes), (1040, 1000));
}

#[test]
fn padding_is_no_payload() {
    let mut short = frame(&ipv4(6, (ALICE, BOB), &tcp(40_000, 80, 100, b"x")));
    short.resize(60, 0);
    let record = only(LinkType::ETHERNET, &short);
    assert_eq!((record.client.bytes, record.client.payload_bytes), (41, 1));
    // An empty IPv6 packet in a padded frame.
    let mut empty = frame(&ipv6(59, (ALICE, BOB), &[]));
    empty.resize(60, 0);
    let record = only(LinkType::ETHERNET, &empty);
    assert_eq!((record.client.bytes, record.client.payload_bytes), (40, 0));
}

#[test]
fn an_offloaded_segment_states_no_length() {
    for version in [4, 6] {
        let mut whole = frame(&ip(version, 6, (ALICE, BOB), &tcp(40_000, 80, 100, &[0; 1000])));
        let at = if version == 4 { 16 } else { 18 };
        whole[at..at + 2].fill(0);
        let record = only(LinkType::ETHERNET, &whole);
        assert_eq!(record.client.payload_bytes, 1000, "version {version}");
    }
}

#[test]
fn a_packet_that_was_seen_to_pass_is_as_long_as_it_was() {
    for version in [4, 6] {
        let mut claims = frame(&ip(version, 6, (ALICE, BOB), &tcp(40_000, 80, 100, &[0; 6])));
        let at = if version == 4 { 16 } else { 18 };
        claims[at..at + 2].fill(0xff);
        let (was, header) = (claims.len() as u64 - 14, if version == 4 { 0 } else { 40 });
        // Who has a file without directions knows what the header says.
        for (direction, bytes) in [(Some(Direction::Ingress), was), (None, 0xffff + header)] {
            let mut wire = Wire::new();
            let (data, wire_len, link_type) = (claims.as_slice(), claims.len() as u32, LinkType::ETHERNET);
            let packet = Packet { time: wire.now, data, wire_len, link_type, interface: 1, direction, vlan: None };
            wire.engine.packet(&packet, &mut wire.records);
            let client = wire.only().client;
            assert_eq!((client.bytes, client.payload_bytes), (bytes, bytes - was + 6), "version {version}");
        }
    }
}

#[test]
fn a_jumbogram_has_its_length_in_an_option() {
    let segment = tcp(40_000, 80, 100, &vec![0; 99_972]);
    let option = [6, 0, 0xc2, 4, 0, 1, 0x86, 0xa0];
    let mut whole = frame(&ipv6(0, (ALICE, BOB), &joined(&[&option, &segment])));
    whole[18..20].fill(0);
    let mut wire = Wire::new();
    // With padding after it, and cut.
    wire.see(LinkType::ETHERNET, &whole[..200], whole.len() as u32 + 4);
    let record = wire.only();
    assert_eq!((record.client.bytes, record.client.payload_bytes), (100_040, 99_972));
}

#[test]
fn frames_larger_than_any_mtu() {
    let record = only(LinkType::ETHERNET, &frame(&ipv4(6, (ALICE, BOB), &tcp(40_000, 80, 100, &vec![0; 64_000]))));
    assert_eq!((record.client.packets, record.client.payload_bytes), (1, 64_000));
}

#[test]
fn options_and_extension_headers_are_stepped_over() {
    let mut options = ipv4(17, (ALICE, BOB), &joined(&[&[1; 4], &udp(40_000, 9, b"0123456789")]));
    options[0] = 0x46;
    let record = only(LinkType::ETHERNET, &frame(&options));
    assert_eq!((record.client.port, record.client.bytes, record.client.payload_bytes), (Some(40_000), 42, 10));

    let datagram = udp(40_000, 9, b"0123456789");
    let headers = [&[43, 0, 1, 4, 0, 0, 0, 0][..], &[60, 0, 4, 2, 0, 0, 0, 0], &[51, 0, 1, 4, 0, 0, 0, 0]];
    let authentication = [17, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1];
    let chain = joined(&[headers[0], headers[1], headers[2], &authentication, &datagram]);
    let record = only(LinkType::ETHERNET, &frame(&ipv6(0, (ALICE, BOB), &chain)));
    assert_eq!((record.client.port, record.client.payload_bytes), (Some(40_000), 10));
    // The authentication header of IPv4.
    let record = only(LinkType::ETHERNET, &frame(&ipv4(51, (ALICE, BOB), &joined(&[&authentication, &datagram]))));
    assert_eq!((record.client.port, record.protocol.0), (Some(40_000), 17));
}

#[test]
fn transports_with_ports_and_without() {
    let sctp = joined(&[&udp(40_000, 9, &[0; 4]), &[0; 20]]);
    let record = only(LinkType::ETHERNET, &frame(&ipv4(132, (ALICE, BOB), &sctp)));
    assert_eq!((record.client.port, record.client.payload_bytes), (Some(40_000), 20));
    let record = only(LinkType::ETHERNET, &frame(&ipv4(136, (ALICE, BOB), &udp(40_000, 9, b"0123"))));
    assert_eq!((record.client.port, record.client.payload_bytes), (Some(40_000), 4));
    let record = only(LinkType::ETHERNET, &frame(&ipv4(2, (ALICE, BOB), &[0x16, 0, 0, 0, 224, 0, 0, 1])));
    assert_eq!((record.client.port, record.protocol.name().as_ref()), (None, "igmp"));
}
