//! Wherever etherparse knows the protocols too, it says the same.

use etherparse::{
    EtherType, NetSlice, PacketBuilder, SingleVlanHeader, SlicedPacket, TransportSlice, VlanId, VlanSlice,
};
use proptest::prelude::*;
use wiretag_capture::LinkType;
use wiretag_capture::decode::{Decoded, Transport, decode};
use wiretag_capture::packet::Packet;
use wiretag_capture::record::Protocol;

fn ours(data: &[u8]) -> Option<Decoded<'_>> {
    let packet = Packet {
        time: 0,
        data,
        wire_len: data.len() as u32,
        link_type: LinkType::ETHERNET,
        interface: 0,
        direction: None,
        vlan: None,
    };
    decode(&packet).ok()
}

/// Asserts that both say the same of a frame without tunnels and fragments that etherparse understands to the end.
fn agree(data: &[u8]) -> Result<bool, TestCaseError> {
    let Ok(theirs) = SlicedPacket::from_ethernet(data) else { return Ok(false) };
    let (Some(net), Some(transport)) = (&theirs.net, &theirs.transport) else { return Ok(false) };
    if net.ip_payload_ref().is_none_or(|payload| payload.fragmented) {
        return Ok(false);
    }
    let Some(decoded) = ours(data) else {
        return Err(TestCaseError::fail(format!("refused: {theirs:?}")));
    };
    if decoded.tunnel.is_some() {
        return Ok(false);
    }
    match net {
        NetSlice::Ipv4(ip) => {
            prop_assert_eq!(decoded.src, std::net::IpAddr::from(ip.header().source_addr()));
            prop_assert_eq!(decoded.dst, std::net::IpAddr::from(ip.header().destination_addr()));
            prop_assert_eq!(decoded.ip_id, Some(ip.header().identification()));
            prop_assert_eq!(decoded.dscp, ip.header().dcp().value());
            if ip.header().total_len() > 0 {
                prop_assert_eq!(decoded.ip_bytes, u32::from(ip.header().total_len()));
            }
        }
        NetSlice::Ipv6(ip) => {
            prop_assert_eq!(decoded.src, std::net::IpAddr::from(ip.header().source_addr()));
            prop_assert_eq!(decoded.dst, std::net::IpAddr::from(ip.header().destination_addr()));
            prop_assert_eq!(decoded.ip_id, None);
            prop_assert_eq!(decoded.dscp, ip.header().traffic_class() >> 2);
            if ip.header().payload_length() > 0 {
                prop_assert_eq!(decoded.ip_bytes, u32::from(ip.header().payload_length()) + 40);
            }
        }
        NetSlice::Arp(_) => return Ok(false),
    }
    same_transport(&decoded, transport)?;
    let tags: Vec<_> = theirs.vlan_ids().iter().map(|id| id.value()).filter(|id| *id != 0).collect();
    prop_assert_eq!(decoded.vlan, tags.first().copied());
    prop_assert_eq!(decoded.vlan_inner, tags.get(1..).and_then(|rest| rest.last()).copied());
    Ok(true)
}

fn same_transport(decoded: &Decoded<'_>, theirs: &TransportSlice<'_>) -> Result<(), TestCaseError> {
    match (&decoded.transport, theirs) {
        (Transport::Tcp(ours), TransportSlice::Tcp(theirs)) => {
            prop_assert_eq!(decoded.src_port, Some(theirs.source_port()));
            prop_assert_eq!(decoded.dst_port, Some(theirs.destination_port()));
            prop_assert_eq!((ours.seq, ours.ack), (theirs.sequence_number(), theirs.acknowledgment_number()));
            prop_assert_eq!((ours.window, ours.options), (theirs.window_size(), theirs.options()));
            prop_assert_eq!(ours.payload, theirs.payload());
            prop_assert_eq!(ours.payload_len as usize, theirs.payload().len());
            prop_assert_eq!([ours.flags & 1 != 0, ours.flags & 2 != 0], [theirs.fin(), theirs.syn()]);
            prop_assert_eq!([ours.flags & 4 != 0, ours.flags & 16 != 0], [theirs.rst(), theirs.ack()]);
        }
        (Transport::Udp { payload, payload_len }, TransportSlice::Udp(theirs)) => {
            prop_assert_eq!(decoded.src_port, Some(theirs.source_port()));
            prop_assert_eq!(decoded.dst_port, Some(theirs.destination_port()));
            // A length of zero is a jumbogram's or an offloaded datagram's.
            if theirs.length() >= 8 {
                prop_assert_eq!(*payload, theirs.payload());
                prop_assert_eq!(*payload_len as usize, theirs.payload().len());
            }
        }
        (Transport::Icmp { kind, code, .. }, TransportSlice::Icmpv4(theirs)) => {
            prop_assert_eq!(decoded.protocol, Protocol::ICMP);
            prop_assert_eq!((*kind, *code), (theirs.type_u8(), theirs.code_u8()));
        }
        (Transport::Icmp { kind, code, .. }, TransportSlice::Icmpv6(theirs)) => {
            prop_assert_eq!(decoded.protocol, Protocol::ICMP6);
            prop_assert_eq!((*kind, *code), (theirs.type_u8(), theirs.code_u8()));
        }
        (Transport::Other { .. }, TransportSlice::Igmp(_)) => prop_assert_eq!(decoded.protocol, Protocol::IGMP),
        (ours, theirs) => return Err(TestCaseError::fail(format!("{ours:?} against {theirs:?}"))),
    }
    Ok(())
}

#[derive(Debug, Clone)]
struct Plan {
    tags: Vec<u16>,
    v6: bool,
    addresses: ([u8; 16], [u8; 16]),
    transport: u8,
    numbers: (u16, u16, u32, u32, u16),
    options: usize,
    extensions: Vec<u8>,
    payload: Vec<u8>,
    padding: usize,
}

fn plan() -> impl Strategy<Value = Plan> {
    let tags = prop::collection::vec(0_u16..4096, 0..3);
    let extensions = prop::collection::vec(prop::sample::select(vec![0_u8, 43, 60]), 0..3);
    let payload = prop::collection::vec(any::<u8>(), 0..60);
    (
        tags,
        any::<bool>(),
        any::<([u8; 16], [u8; 16])>(),
        0_u8..4,
        any::<(u16, u16, u32, u32, u16)>(),
        0_usize..10,
        extensions,
        payload,
        0_usize..20,
    )
        .prop_map(|(tags, v6, addresses, transport, numbers, options, extensions, payload, padding)| Plan {
            tags,
            v6,
            addresses,
            transport,
            numbers,
            options,
            extensions,
            payload,
            padding,
        })
}

fn build(plan: &Plan) -> Vec<u8> {
    let (src_port, mut dst_port, seq, ack, window) = plan.numbers;
    if [4789, 8472, 4790, 6081, 2152].contains(&dst_port) {
        dst_port += 1;
    }
    let (src, dst) = plan.addresses;
    let (src4, dst4) = ([src[0], src[1], src[2], src[3]], [dst[0], dst[1], dst[2], dst[3]]);
    let mut packet = Vec::new();
    let start = PacketBuilder::ethernet2([2; 6], [3; 6]);
    let ip = if plan.v6 { start.ipv6(src, dst, 64) } else { start.ipv4(src4, dst4, 64) };
    let options = vec![1; plan.options * 4];
    match plan.transport {
        0 => {
            let mut tcp = ip.tcp(src_port, dst_port, seq, window).ack(ack).options_raw(&options).unwrap();
            if seq & 1 == 0 {
                tcp = tcp.syn();
            }
            tcp.write(&mut packet, &plan.payload).unwrap();
        }
        1 => ip.udp(src_port, dst_port).write(&mut packet, &plan.payload).unwrap(),
        _ if !plan.v6 => ip.icmpv4_echo_request(1, 2).write(&mut packet, &plan.payload).unwrap(),
        _ => ip.icmpv6_echo_reply(1, 2).write(&mut packet, &plan.payload).unwrap(),
    }
    if plan.v6 {
        extend(&mut packet, &plan.extensions);
    }
    let kind = EtherType(u16::from_be_bytes([packet[12], packet[13]]));
    let mut tags = Vec::new();
    for (number, id) in plan.tags.iter().enumerate() {
        let next = if number + 1 < plan.tags.len() { EtherType::VLAN_TAGGED_FRAME } else { kind };
        let vlan_id = VlanId::try_new(*id).unwrap();
        let header = SingleVlanHeader { vlan_id, ether_type: next, ..SingleVlanHeader::default() };
        tags.extend(header.to_bytes());
    }
    if !tags.is_empty() {
        packet[12..14].copy_from_slice(&0x8100_u16.to_be_bytes());
        packet.splice(14..14, tags);
    }
    packet.extend(vec![0; plan.padding]);
    packet
}

/// Puts extension headers of 8 bytes behind the header of IPv6; hop-by-hop may only be the first.
fn extend(packet: &mut Vec<u8>, extensions: &[u8]) {
    for kind in extensions {
        if *kind == 0 && packet[20] == 0 {
            continue;
        }
        let next = std::mem::replace(&mut packet[20], *kind);
        packet.splice(54..54, [next, 0, 1, 4, 0, 0, 0, 0]);
        let len = u16::from_be_bytes([packet[18], packet[19]]) + 8;
        packet[18..20].copy_from_slice(&len.to_be_bytes());
        if next == 0 {
            // Not the first any more.
            packet[54] = 59;
            packet.drain(54..62);
            packet[20] = 0;
            packet[18..20].copy_from_slice(&(len - 8).to_be_bytes());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn built_packets(plan in plan()) {
        let understood = agree(&build(&plan))?;
        prop_assert!(understood, "etherparse does not understand its own packet");
    }

    #[test]
    fn damaged_packets(plan in plan(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut data = build(&plan);
        for (at, value) in changes {
            let at = at.index(data.len());
            data[at] = value;
        }
        agree(&data)?;
    }
}

#[test]
fn vlan_slices_are_what_the_test_takes_them_for() {
    let data = build(&Plan {
        tags: vec![5, 6],
        v6: false,
        addresses: ([1; 16], [2; 16]),
        transport: 1,
        numbers: (1, 2, 3, 4, 5),
        options: 0,
        extensions: Vec::new(),
        payload: vec![1],
        padding: 0,
    });
    let theirs = SlicedPacket::from_ethernet(&data).unwrap();
    assert!(matches!(theirs.vlan(), Some(VlanSlice::DoubleVlan(_))));
    assert!(agree(&data).unwrap());
}
