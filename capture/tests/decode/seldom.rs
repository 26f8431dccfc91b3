//! Link types and tags that are seldom seen lead to the same datagram.

use wiretag_capture::LinkType;
use wiretag_capture::decode::reads;

use crate::wire::*;
use crate::wlan::sent;

const SNAP: [u8; 8] = [0xaa, 0xaa, 3, 0, 0, 0, 8, 0];

fn behind(header: &[u8], rest: &[u8]) -> Vec<u8> {
    joined(&[header, rest])
}

fn llc() -> Vec<u8> {
    behind(&SNAP, &hello())
}

/// Frames that an independent tool reads as we do.
pub(crate) fn seldom() -> Vec<(LinkType, Vec<u8>)> {
    [lans(), relays(), logs(), radio()].concat()
}

fn lans() -> Vec<(LinkType, Vec<u8>)> {
    let (to, from) = ([2; 6], [3; 6]);
    let ring = |from: [u8; 6], route: &[u8]| joined(&[&[0x10, 0x40], &to, &from, route, &llc()]);
    vec![
        (LinkType::TOKEN_RING, ring(from, &[])),
        (LinkType::TOKEN_RING, ring([0x83, 3, 3, 3, 3, 3], &[0x06, 0x30, 0, 1, 0, 2])),
        (LinkType::FDDI, joined(&[&[0x50], &to, &from, &llc()])),
        (LinkType::ARCNET, behind(&[1, 2, 0xd4, 0, 0, 1], &hello())),
        (LinkType::ARCNET, behind(&[1, 2, 0xf0], &hello())),
        (LinkType::ARCNET_LINUX, behind(&[1, 2, 0, 0, 0xd4, 0, 0, 1], &hello())),
        (LinkType::IP_OVER_FC, joined(&[&[0x10, 0], &to, &[0x10, 0], &from, &llc()])),
        (LinkType::APPLE_IP_OVER_IEEE1394, behind(&[4, 4, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5, 5, 5, 8, 0], &hello())),
    ]
}

fn relays() -> Vec<(LinkType, Vec<u8>)> {
    let (ppp, hdlc) = ([0xff, 3, 0, 0x21], [0x0f, 0, 8, 0]);
    let relay = |header: &[u8], rest: &[u8]| (LinkType::FRELAY, joined(&[&[0x18, 0x41], header, rest]));
    let juniper = |number: u16, header: &[u8], rest: &[u8]| (LinkType(number), joined(&[b"MGC", header, rest]));
    vec![
        relay(&[3, 0xcc], &hello()),
        relay(&[3, 0, 0x80, 0, 0, 0, 8, 0], &hello()),
        relay(&[3, 0x80, 0, 0, 0, 8, 0], &hello()),
        relay(&[3, 0, 0x80, 0, 0x80, 0xc2, 0, 7], &frame(&hello())),
        relay(&[8, 0], &hello()),
        relay(&[3, 0xcf, 0, 0x21], &hello()),
        (LinkType::FRELAY, behind(&[0x18, 0x40, 0, 1, 3, 0xcc], &hello())),
        (LinkType::ATM, llc()),
        (LinkType::ATM_BSD, llc()),
        (LinkType::ATM, behind(&[0xaa, 0xaa, 3, 0, 0x80, 0xc2, 0, 7, 0, 0], &frame(&hello()))),
        (LinkType::ATM, behind(&[0xfe, 0xfe, 3, 0xcf, 0, 0x21], &hello())),
        (LinkType::ATM, behind(&[0xfe, 0xfe, 3, 0xcc], &hello())),
        (LinkType::ATM_CLIP, hello()),
        (LinkType::SUNATM, behind(&[2, 0, 0, 33], &llc())),
        (LinkType::SUNATM, behind(&[1, 0, 0, 33, 0, 5], &frame(&hello()))),
        (LinkType::PPP_WITH_DIR, joined(&[&[0], &ppp, &hello()])),
        (LinkType::PPP, behind(&[0xff, 3, 0, 0x3d, 0xc0, 0, 0, 1, 0, 0x21], &hello())),
        (LinkType::PPP, behind(&[0xff, 3, 0, 0x31, 0, 1], &frame(&hello()))),
        juniper(178, &[1], &frame(&hello())),
        juniper(178, &[0x81, 0, 6, 9, 9, 9, 9, 9, 9], &frame(&hello())),
        juniper(178, &[3, 2, 0, 0, 0], &hello()),
        juniper(167, &[1], &ethernet(0x8864, &behind(&[0x11, 0, 0, 1, 0, 40, 0, 0x21], &hello()))),
        juniper(130, &[1, 0, 0x21], &hello()),
        juniper(179, &joined(&[&[1], &ppp]), &hello()),
        juniper(180, &[1, 0x18, 0x41, 3, 0xcc], &hello()),
        juniper(181, &joined(&[&[1], &hdlc]), &hello()),
    ]
}

/// What hosts and appliances write.
fn logs() -> Vec<(LinkType, Vec<u8>)> {
    let record = |kind: u8, more: &[u8], rest: &[u8]| {
        (LinkType::ERF, joined(&[&[0; 8], &[kind, 4, 0, 0, 0, 0, 0, rest.len() as u8], more, rest]))
    };
    vec![
        (LinkType::ENC, joined(&[&[2, 0, 0, 0], &[0; 8], &hello()])),
        (LinkType::PFLOG, joined(&[&[61, 2, 0, 0], &[0; 60], &hello()])),
        (LinkType::PFLOG, joined(&[&[100, 2, 0, 0], &[0; 96], &hello()])),
        (LinkType::IPNET, joined(&[&[2, 2, 0, 0, 0, 0, 0, 38], &[0; 16], &hello()])),
        (LinkType::SYMANTEC, joined(&[&[0; 6], &[8, 0], &[0; 36], &hello()])),
        record(2, &[0, 0], &frame(&hello())),
        record(0x82, &[0; 10], &frame(&hello())),
        record(11, &[0, 0], &frame(&hello())),
        record(1, &[0x0f, 0, 8, 0], &hello()),
        record(1, &[0xff, 3, 0, 0x21], &hello()),
        record(22, &[], &hello()),
    ]
}

fn radio() -> Vec<(LinkType, Vec<u8>)> {
    let avs = joined(&[&[0x80, 0x21, 0x10, 1, 0, 0, 0, 64], &[0; 56], &sent()]);
    let cooked = |number, header: &[u8]| (number, joined(&[header, &[0, 0, 8, 0, 0, 0, 0, 0], &sent()]));
    vec![
        (LinkType::PRISM, joined(&[&[0x44, 0, 0, 0, 144, 0, 0, 0], &[0; 136], &sent()])),
        (LinkType::PRISM, avs.clone()),
        (LinkType::AVS, avs),
        (LinkType::TZSP, behind(&[1, 0, 0, 1, 1], &frame(&hello()))),
        (LinkType::TZSP, behind(&[1, 1, 0, 18, 0, 10, 1, 5, 1], &sent())),
        cooked(LinkType::LINUX_SLL, &[0, 0, 3, 0x23, 0, 6, 9, 9, 9, 9, 9, 9, 0, 0, 0, 4]),
    ]
}

/// Ethernet with what may stand before its type, or around it.
pub(crate) fn tagged() -> Vec<(LinkType, Vec<u8>)> {
    let inner = frame(&hello());
    let isl = joined(&[&[1, 0, 0x0c, 0, 0, 0], &[3; 6], &[0, 64], &SNAP[..3], &[0; 3], &[0, 10, 0, 0, 0, 0], &inner]);
    let ethernets = vec![
        ethernet(0x892f, &behind(&[0x10, 44, 0, 1, 8, 0], &hello())),
        ethernet(0xf1c1, &behind(&[0, 0, 0, 1, 8, 0], &hello())),
        ethernet(0x8909, &behind(&[1, 1, 0, 1, 0, 7, 8, 0], &hello())),
        ethernet(0x4305, &joined(&[&[0x40, 15, 50, 1], &[7; 6], &inner])),
        ethernet(0x4305, &joined(&[&[0x01, 15, 50, 0], &[0; 4], &[7; 6], &inner])),
        isl,
    ];
    ethernets.into_iter().map(|frame| (LinkType::ETHERNET, frame)).collect()
}

/// Frames of which the tool knows less.
fn others() -> Vec<(LinkType, Vec<u8>)> {
    let (ends, preamble) = (joined(&[&[2; 6], &[3; 6]]), [0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0xd5]);
    vec![
        (LinkType::PPP_PPPD, behind(&[1, 3, 0, 0x21], &hello())),
        (LinkType::C_HDLC_WITH_DIR, behind(&[0, 0x0f, 0, 8, 0], &hello())),
        (LinkType::FRELAY_WITH_DIR, behind(&[0, 0x18, 0x41, 3, 0xcc], &hello())),
        (LinkType::PFLOG_OLD, joined(&[&[0, 0, 0, 2], &[0; 24], &hello()])),
        (LinkType::MPACKET, behind(&preamble, &frame(&hello()))),
        (LinkType::DSA_TAG_BRCM, joined(&[&ends, &[0, 0, 0, 5, 8, 0], &hello()])),
        (LinkType::DSA_TAG_BRCM_PREPEND, behind(&[0, 0, 0, 5], &frame(&hello()))),
        (LinkType::DSA_TAG_DSA, joined(&[&ends, &[0xc0, 0x18, 0, 5, 8, 0], &hello()])),
        (LinkType::DSA_TAG_EDSA, joined(&[&ends, &[0xda, 0xda, 0, 0, 0xc0, 0x18, 0, 5, 8, 0], &hello()])),
        (
            LinkType::LINUX_SLL2,
            joined(&[
                &[0, 4, 0, 0, 0, 0, 0, 3, 3, 0x23, 0, 6, 9, 9, 9, 9, 9, 9, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0],
                &sent(),
            ]),
        ),
    ]
}

#[test]
fn each_leads_to_the_datagram() {
    for (link_type, data) in [seldom(), tagged(), others()].concat() {
        assert!(reads(link_type), "{link_type:?}");
        is_hello(&only(link_type, &data));
    }
}

#[test]
fn addresses_and_vlans_are_those_of_the_frame() {
    for (link_type, data) in [lans(), radio()].concat() {
        let record = only(link_type, &data);
        let server = record.server.mac;
        let has_addresses = !matches!(link_type.0, 7 | 129 | 138);
        assert_eq!(server, has_addresses.then_some([2; 6]), "{link_type:?}");
    }
    let isl = tagged().pop().unwrap();
    assert_eq!(only(isl.0, &isl.1).vlan, Some(5));
    let tag = |first: u8| joined(&[&[2; 6], &[3; 6], &[first, 0x18, 0, 5, 8, 0], &hello()]);
    assert_eq!(only(LinkType::DSA_TAG_DSA, &tag(0xe0)).vlan, Some(5));
    assert_eq!(only(LinkType::DSA_TAG_DSA, &tag(0xc0)).vlan, None);
}

#[test]
fn what_is_not_ip_or_cut_says_so() {
    for (link_type, data, reason) in [
        (LinkType::TOKEN_RING, behind(&[0x10, 0], &[0; 40]), "not_ip"),
        (LinkType::FDDI, vec![0x41; 40], "not_ip"),
        (LinkType::ARCNET, behind(&[1, 2, 0xd4, 3, 0, 1], &hello()), "not_ip"),
        (LinkType::SUNATM, behind(&[6, 0, 0, 5], &llc()), "not_ip"),
        (LinkType::FRELAY, behind(&[0x18, 0x40, 0, 2], &hello()), "link_malformed"),
        (LinkType::FRELAY, behind(&[0x19, 0x41, 3, 0xcc], &hello()), "link_malformed"),
        (LinkType::FRELAY, behind(&[0x18, 0x41, 3, 0xb1], &hello()), "not_ip"),
        (LinkType::ENC, behind(&[7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &hello()), "not_ip"),
        (LinkType::PFLOG, vec![61, 2, 0], "link_cut"),
        (LinkType::ERF, behind(&[0; 8], &[0x82; 60]), "link_cut"),
        (LinkType::ERF, behind(&[0; 8], &[5; 60]), "not_ip"),
        (LinkType::TZSP, behind(&[1, 0, 0, 1], &[0; 60]), "not_ip"),
        (LinkType::TZSP, behind(&[1, 4, 0, 1, 1], &frame(&hello())), "not_ip"),
        (LinkType::JUNIPER_ETHER, frame(&hello()), "link_malformed"),
        // The first of several parts.
        (LinkType::PPP, behind(&[0xff, 3, 0, 0x3d, 0x80, 0, 0, 1, 0, 0x21], &hello()), "not_ip"),
        (LinkType::ETHERNET, ethernet(0x8909, &behind(&[1, 2, 0, 1, 0, 7, 8, 0], &hello())), "not_ip"),
        (LinkType::ETHERNET, ethernet(0x4305, &behind(&[0x00, 15], &[0; 40])), "not_ip"),
    ] {
        assert_eq!(refused(link_type, &data), reason, "{link_type:?} {data:02x?}");
    }
}
