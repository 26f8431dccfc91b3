//! What stands between Ethernet and IP in the networks of carriers: service chains, MAC in MAC, MACsec.

use wiretag_capture::LinkType;

use crate::wire::*;

/// A network service header with so much metadata, and what it leads to.
pub(crate) fn nsh(next: u8, metadata: &[u8], inner: &[u8]) -> Vec<u8> {
    let words = 2 + metadata.len() as u8 / 4;
    let kind = if metadata.len() == 16 { 1 } else { 2 };
    joined(&[&[0x0f, 0xc0 | words, kind, next, 0, 0, 5, 255], metadata, inner])
}

/// A customer's frame in a provider's, of service 5.
pub(crate) fn mac_in_mac(inner: &[u8]) -> Vec<u8> {
    let service = joined(&[&[0, 0, 0, 5], inner]);
    joined(&[&[4; 6], &[6; 6], &[0x88, 0xa8], &tag(0x88e7, 100, &service)])
}

/// Frames with the tags of port extenders and fabrics.
pub(crate) fn extended() -> Vec<Vec<u8>> {
    let (packet, inner) = (hello(), frame(&hello()));
    vec![
        ethernet(0x8926, &joined(&[&[0x80, 1, 0, 2, 8, 0], &packet])),
        ethernet(0x8926, &joined(&[&[0x80, 1, 0, 2, 0x81, 0], &tag(0x0800, 5, &packet)])),
        ethernet(0x893f, &joined(&[&[0, 1, 0, 2, 0, 0, 8, 0], &packet])),
        ethernet(0x22f3, &joined(&[&[0, 0x3f, 0, 1, 0, 2], &inner])),
        ethernet(0x22f3, &joined(&[&[0, 0x7f, 0, 1, 0, 2, 9, 9, 9, 9], &inner])),
        ethernet(0x8870, &joined(&[&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &packet])),
        ethernet(0x8903, &joined(&[&[0, 0x41], &inner])),
    ]
}

/// A frame of MACsec: flags, and what follows the tag.
pub(crate) fn macsec(flags: u8, rest: &[u8]) -> Vec<u8> {
    let channel: &[u8] = if flags & 0x20 == 0 { &[] } else { &[2, 2, 2, 2, 2, 2, 0, 1] };
    ethernet(0x88e5, &joined(&[&[flags, 0, 0, 0, 0, 1], channel, rest, &[0xaa; 16]]))
}

fn only_ethernet(frame: &[u8]) -> wiretag_capture::FlowRecord {
    only(LinkType::ETHERNET, frame)
}

#[test]
fn service_chains_are_followed() {
    let (packet, inner) = (hello(), frame(&hello()));
    for metadata in [&[][..], &[1; 16], &[0, 1, 2, 4, 9, 9, 9, 9]] {
        is_hello(&only_ethernet(&ethernet(0x894f, &nsh(1, metadata, &packet))));
        let framed = only_ethernet(&ethernet(0x894f, &nsh(3, metadata, &inner)));
        is_hello(&framed);
        assert_eq!(framed.client.mac, Some([3; 6]));
    }
    is_hello(&only_ethernet(&ethernet(0x894f, &nsh(4, &[], &nsh(1, &[], &packet)))));
    is_hello(&only_ethernet(&ethernet(0x894f, &nsh(5, &[], &joined(&[&[0, 1, 1, 64], &packet])))));
    assert_eq!(refused(LinkType::ETHERNET, &ethernet(0x894f, &nsh(6, &[], &packet))), "not_ip");
    assert_eq!(refused(LinkType::ETHERNET, &ethernet(0x894f, &[0x4f, 0xc2, 1, 1, 0, 0, 5, 255])), "link_malformed");
    assert_eq!(refused(LinkType::ETHERNET, &ethernet(0x894f, &[0x0f, 0xc1, 1, 1, 0, 0, 5, 255])), "link_malformed");
    assert_eq!(refused(LinkType::ETHERNET, &ethernet(0x894f, &[0x0f, 0xc6, 1, 1, 0, 0, 5, 255])), "link_cut");
    // Headers in headers without end.
    let endless = [0x0f, 0xc2, 2, 4, 0, 0, 5, 255].repeat(40);
    assert_eq!(refused(LinkType::ETHERNET, &ethernet(0x894f, &endless)), "link_malformed");
}

#[test]
fn mac_in_mac_leads_to_the_customers_frame() {
    let record = only_ethernet(&mac_in_mac(&frame(&hello())));
    is_hello(&record);
    assert_eq!((record.client.mac, record.server.mac), (Some([3; 6]), Some([2; 6])));
    assert_eq!((record.vlan, record.vlan_inner), (Some(100), None));
    let tagged = only_ethernet(&mac_in_mac(&ethernet(0x8100, &tag(0x0800, 7, &hello()))));
    is_hello(&tagged);
    assert_eq!((tagged.vlan, tagged.vlan_inner), (Some(100), Some(7)));
    assert_eq!(refused(LinkType::ETHERNET, &mac_in_mac(&[0; 9])), "link_cut");
}

#[test]
fn tags_of_port_extenders_and_fabrics_are_stepped_over() {
    for frame in extended() {
        let record = only_ethernet(&frame);
        is_hello(&record);
        assert_eq!(record.client.mac, Some([3; 6]));
    }
    assert_eq!(only_ethernet(&extended()[1]).vlan, Some(5));
    assert_eq!(refused(LinkType::ETHERNET, &ethernet(0x8926, &[0x80, 1, 0, 2, 8])), "link_cut");
    assert_eq!(refused(LinkType::ETHERNET, &ethernet(0x22f3, &[0x40; 40])), "link_malformed");
    let endless = [0x80, 1, 0, 2, 0x89, 0x26].repeat(40);
    assert_eq!(refused(LinkType::ETHERNET, &ethernet(0x8926, &endless)), "link_malformed");
}

#[test]
fn macsec_is_read_if_it_is_not_encrypted_and_counted_if_it_is() {
    let inside = joined(&[&[8, 0], &hello()]);
    is_hello(&only_ethernet(&macsec(0, &inside)));
    is_hello(&only_ethernet(&macsec(0x20, &inside)));
    is_hello(&only_ethernet(&macsec(0x43, &joined(&[&[0x81, 0, 0, 5, 8, 0], &hello()]))));
    for flags in [0x0c, 0x2c, 0x08, 0x04] {
        assert_eq!(refused(LinkType::ETHERNET, &macsec(flags, &inside)), "macsec", "{flags:#x}");
    }
    assert_eq!(refused(LinkType::ETHERNET, &macsec(0x80, &inside)), "link_malformed");
    assert_eq!(refused(LinkType::ETHERNET, &ethernet(0x88e5, &[0, 0, 0])), "link_cut");
}
