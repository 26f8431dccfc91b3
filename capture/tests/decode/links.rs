//! Every link type, and every layer between link and network, leads to the same datagram.

use wiretag_capture::LinkType;
use wiretag_capture::decode::reads;

use crate::wire::*;

#[test]
fn link_types_without_ethernet() {
    let hello = hello();
    for link_type in [LinkType::RAW, LinkType::RAW_BSD, LinkType::RAW_OPENBSD, LinkType::IPV4] {
        is_hello(&only(link_type, &hello));
    }
    for family in [[2, 0, 0, 0], [0, 0, 0, 2]] {
        is_hello(&only(LinkType::NULL, &joined(&[&family, &hello])));
        is_hello(&only(LinkType::LOOP, &joined(&[&family, &hello])));
    }
    assert_eq!(refused(LinkType::NULL, &joined(&[&[7, 0, 0, 0], &hello])), "not_ip");
    assert_eq!(refused(LinkType(160), &hello), "link_type");
    assert!(!reads(LinkType(160)));
    assert!([0, 1, 12, 101, 113, 127, 192, 258, 276].into_iter().map(LinkType).all(reads));
    assert_eq!(refused(LinkType::RAW, &[]), "ip_cut");
}

#[test]
fn linux_cooked() {
    let one = joined(&[&[0, 0, 0, 1, 0, 6, 9, 9, 9, 9, 9, 9, 0, 0, 0x08, 0], &hello()]);
    let record = only(LinkType::LINUX_SLL, &one);
    is_hello(&record);
    assert_eq!(record.client.mac, Some([9; 6]));
    let two = joined(&[&[0x08, 0, 0, 0, 0, 0, 0, 3, 0, 1, 0, 6, 9, 9, 9, 9, 9, 9, 0, 0], &hello()]);
    let record = only(LinkType::LINUX_SLL2, &two);
    is_hello(&record);
    assert_eq!(record.client.mac, Some([9; 6]));
    // Of a tunnel device, which has no address.
    let bare = joined(&[&[0, 0, 0xff, 0xfe, 0, 0, 9, 9, 9, 9, 9, 9, 0, 0, 0x08, 0], &hello()]);
    assert_eq!(only(LinkType::LINUX_SLL, &bare).client.mac, None);
    let bare = joined(&[&[0x08, 0, 0, 0, 0, 0, 0, 3, 0xff, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &hello()]);
    assert_eq!(only(LinkType::LINUX_SLL2, &bare).client.mac, None);
    // A tag, and LLC instead of a type.
    let tagged = joined(&[&[0, 0, 0, 1, 0, 6, 9, 9, 9, 9, 9, 9, 0, 0, 0x81, 0], &tag(0x0800, 5, &hello())]);
    assert_eq!(only(LinkType::LINUX_SLL, &tagged).vlan, Some(5));
    let llc = joined(&[&[0, 0, 0, 1, 0, 6, 9, 9, 9, 9, 9, 9, 0, 0, 0, 4, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &hello()]);
    is_hello(&only(LinkType::LINUX_SLL, &llc));
}

#[test]
fn netfilter_log() {
    let hello = hello();
    let little = [2, 0, 0, 0, 5, 0, 10, 0, b'x', 0, 0, 0, 42, 0, 9, 0];
    is_hello(&only(LinkType::NFLOG, &joined(&[&little, &hello, &[0, 0]])));
    let big = [2, 0, 0, 0, 0, 5, 0, 10, b'x', 0, 0, 0, 0, 42, 0, 9];
    is_hello(&only(LinkType::NFLOG, &joined(&[&big, &hello, &[0, 0]])));
    assert_eq!(refused(LinkType::NFLOG, &[2, 0, 0, 0, 3, 0, 9, 0]), "link_malformed");
}

#[test]
fn tags_of_all_kinds() {
    let hello = hello();
    let record = only(LinkType::ETHERNET, &ethernet(0x8100, &tag(0x0800, 5, &hello)));
    is_hello(&record);
    assert_eq!((record.vlan, record.vlan_inner), (Some(5), None));
    for outer in [0x8100, 0x88a8, 0x9100] {
        let stacked = ethernet(outer, &tag(0x8100, 5, &tag(0x0800, 6, &hello)));
        let record = only(LinkType::ETHERNET, &stacked);
        is_hello(&record);
        assert_eq!((record.vlan, record.vlan_inner), (Some(5), Some(6)));
    }
    // A priority tag names no VLAN.
    assert_eq!(only(LinkType::ETHERNET, &ethernet(0x8100, &tag(0x0800, 0xe000, &hello))).vlan, None);
    let endless = (0..40).fold(tag(0x0800, 1, &hello), |inner, _| tag(0x8100, 1, &inner));
    assert_eq!(refused(LinkType::ETHERNET, &ethernet(0x8100, &endless)), "link_malformed");
}

#[test]
fn llc_with_and_without_snap() {
    let hello = hello();
    for header in [&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0][..], &[6, 6, 3]] {
        let frame = joined(&[header, &hello]);
        is_hello(&only(LinkType::ETHERNET, &ethernet(frame.len() as u16, &frame)));
    }
    assert_eq!(refused(LinkType::ETHERNET, &ethernet(38, &[0x42, 0x42, 3, 0, 0])), "not_ip");
}

#[test]
fn ppp_in_all_its_frames() {
    let hello = hello();
    for header in [&[0xff, 3, 0, 0x21][..], &[0xff, 3, 0x21], &[0, 0x21], &[0x21]] {
        let ppp = joined(&[header, &hello]);
        is_hello(&only(LinkType::PPP, &ppp));
        is_hello(&only(LinkType::PPP_SERIAL, &ppp));
    }
    is_hello(&only(LinkType::PPP_SERIAL, &joined(&[&[0x0f, 0, 8, 0], &hello])));
    is_hello(&only(LinkType::C_HDLC, &joined(&[&[0x0f, 0, 8, 0], &hello])));
    let session = joined(&[&[0x11, 0, 0, 1, 0, 40, 0, 0x21], &hello]);
    is_hello(&only(LinkType::ETHERNET, &ethernet(0x8864, &session)));
    is_hello(&only(LinkType::PPP_ETHER, &session));
    assert_eq!(refused(LinkType::PPP, &[0xff, 3, 0xc0, 0x21, 1, 1]), "not_ip");
    assert_eq!(refused(LinkType::ETHERNET, &ethernet(0x8864, &[0x22, 0, 0, 1, 0, 1, 0, 0x21])), "link_malformed");
}

/// Without a control word, and padded as on the wire: the first address may begin with zeros.
#[test]
fn a_pseudowire_has_a_control_word_or_not() {
    for address in [[0, 0x1b, 0x21, 0x3c, 0x4d, 0x5e], [0, 0, 0x5e, 0, 1, 9], [2, 0, 0, 0, 0, 1]] {
        for (vlan, word) in [(None, 0), (Some(7), 0), (None, 4), (Some(7), 4)] {
            let mut inner = match vlan {
                None => frame(&hello()),
                Some(id) => ethernet(0x8100, &tag(0x0800, id, &hello())),
            };
            inner[..6].copy_from_slice(&address);
            inner.resize(60, 0);
            // A control word may have a sequence number.
            let word = &[0, 0, 0, 9][..word];
            let record = only(LinkType::ETHERNET, &ethernet(0x8847, &joined(&[&[0, 0, 0x51, 64], word, &inner])));
            is_hello(&record);
            assert_eq!((record.server.mac, record.vlan), (Some(address), vlan), "{word:?}");
        }
    }
}

#[test]
fn mpls_with_ip_and_with_ethernet() {
    let hello = hello();
    let labels = [0, 1, 0, 64, 0, 2, 1, 64];
    is_hello(&only(LinkType::ETHERNET, &ethernet(0x8847, &joined(&[&labels, &hello]))));
    is_hello(&only(LinkType::ETHERNET, &ethernet(0x8848, &joined(&[&labels, &hello]))));
    is_hello(&only(LinkType::MPLS, &joined(&[&labels, &hello])));
    // A pseudowire: with control word, without, and to an address that looks like IP.
    let mut inner = frame(&hello);
    let bare = only(LinkType::ETHERNET, &ethernet(0x8847, &joined(&[&labels, &inner])));
    is_hello(&bare);
    let word = only(LinkType::ETHERNET, &ethernet(0x8847, &joined(&[&labels, &[0; 4], &inner])));
    is_hello(&word);
    assert_eq!(word.server.mac, Some([2; 6]));
    for first in [0, 0x45, 0x60] {
        inner[0] = first;
        is_hello(&only(LinkType::ETHERNET, &ethernet(0x8847, &joined(&[&labels, &inner]))));
    }
    // The bottom of the stack never comes.
    assert_eq!(refused(LinkType::MPLS, &[0; 400]), "link_malformed");
    assert_eq!(refused(LinkType::MPLS, &[0; 40]), "link_cut");
}

#[test]
fn what_is_not_ip_says_so() {
    assert_eq!(refused(LinkType::ETHERNET, &ethernet(0x0806, &[0; 28])), "not_ip");
    assert_eq!(refused(LinkType::ETHERNET, &[0; 13]), "link_cut");
    assert_eq!(refused(LinkType::ETHERNET, &ethernet(0x0800, &[0x45; 19])), "ip_cut");
    assert_eq!(refused(LinkType::ETHERNET, &ethernet(0x0800, &[0x55; 60])), "ip_malformed");
    assert_eq!(refused(LinkType::ETHERNET, &frame(&ipv4(17, (ALICE, BOB), &[0; 7]))), "transport_cut");
    assert_eq!(refused(LinkType::ETHERNET, &frame(&ipv4(6, (ALICE, BOB), &[0; 20]))), "transport_malformed");
}
