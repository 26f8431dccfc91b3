//! Wi-Fi frames, with what stands before them, lead to the same datagram.

use wiretag_capture::LinkType;

use crate::wire::*;

const STATION: [u8; 6] = [3; 6];
const ROUTER: [u8; 6] = [2; 6];
const POINT: [u8; 6] = [8; 6];

/// A frame of 802.11 with these two bytes at its beginning, three addresses and what else its header has; the datagram in LLC.
pub(crate) fn wlan(control: [u8; 2], addresses: [[u8; 6]; 3], more: &[u8]) -> Vec<u8> {
    let [one, two, three] = addresses;
    joined(&[&control, &[0, 0], &one, &two, &three, &[0x10, 0], more, &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &hello()])
}

/// From the station to the network.
pub(crate) fn sent() -> Vec<u8> {
    wlan([0x08, 0x01], [POINT, STATION, ROUTER], &[])
}

fn comes_from(record: &wiretag_capture::FlowRecord) {
    is_hello(record);
    assert_eq!((record.client.mac, record.server.mac), (Some(STATION), Some(ROUTER)));
}

#[test]
fn who_sent_it_is_said_in_four_ways() {
    for frame in [
        wlan([0x08, 0x00], [ROUTER, STATION, POINT], &[]),
        sent(),
        wlan([0x08, 0x02], [ROUTER, POINT, STATION], &[]),
        wlan([0x08, 0x03], [POINT, POINT, ROUTER], &STATION),
    ] {
        comes_from(&only(LinkType::IEEE802_11, &frame));
    }
}

#[test]
fn a_quality_of_service_makes_the_header_longer() {
    let ends = [POINT, STATION, ROUTER];
    comes_from(&only(LinkType::IEEE802_11, &wlan([0x88, 0x01], ends, &[0, 0])));
    comes_from(&only(LinkType::IEEE802_11, &wlan([0x88, 0x81], ends, &[0, 0, 1, 2, 3, 4])));
    // The first of several packets, with addresses of its own.
    let aggregated = joined(&[&[0x80, 0], &ROUTER, &STATION, &[0, 46]]);
    comes_from(&only(LinkType::IEEE802_11, &wlan([0x88, 0x01], [POINT, STATION, POINT], &aggregated)));
}

#[test]
fn what_the_radio_says_is_stepped_over() {
    comes_from(&only(LinkType::IEEE802_11_RADIO, &joined(&[&[0, 0, 8, 0, 0, 0, 0, 0], &sent()])));
    // Headers of 26 bytes are padded to 28, as the flags say: alone, behind a time, behind more words.
    let padded = wlan([0x88, 0x01], [POINT, STATION, ROUTER], &[0, 0, 0, 0]);
    for radio in [
        &[0, 0, 9, 0, 2, 0, 0, 0, 0x20][..],
        &[0, 0, 17, 0, 3, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0x20],
        &[0, 0, 25, 0, 3, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0x20],
    ] {
        comes_from(&only(LinkType::IEEE802_11_RADIO, &joined(&[radio, &padded])));
    }
    assert_eq!(refused(LinkType::IEEE802_11_RADIO, &joined(&[&[1, 0, 8, 0, 0, 0, 0, 0], &sent()])), "link_malformed");
    assert_eq!(refused(LinkType::IEEE802_11_RADIO, &[0, 0, 8, 0, 0, 0, 0]), "link_cut");
}

#[test]
fn what_is_no_data_or_encrypted_says_so() {
    let ends = [POINT, STATION, ROUTER];
    for control in [[0x80, 0x00], [0xd4, 0x00], [0x48, 0x01], [0xc8, 0x01]] {
        assert_eq!(refused(LinkType::IEEE802_11, &wlan(control, ends, &[0, 0])), "not_ip");
    }
    assert_eq!(refused(LinkType::IEEE802_11, &wlan([0x08, 0x41], ends, &[])), "wlan_encrypted");
    let mut later = sent();
    later[22] = 1;
    assert_eq!(refused(LinkType::IEEE802_11, &later), "not_ip");
    assert_eq!(refused(LinkType::IEEE802_11, &sent()[..23]), "link_cut");
}

#[test]
fn headers_that_name_a_link_type_are_followed() {
    let apple = |kind: u8| joined(&[&[16, 0, 0, 0, 1, 0, 0, 0, kind, 0, 0, 0, 9, 9, 9, 9]]);
    let ppi = |kind: u8| joined(&[&[0, 0, 12, 0, kind, 0, 0, 0, 9, 9, 9, 9]]);
    for (link_type, header) in [(LinkType::PKTAP, &apple as &dyn Fn(u8) -> Vec<u8>), (LinkType::PPI, &ppi)] {
        is_hello(&only(link_type, &joined(&[&header(1), &frame(&hello())])));
        is_hello(&only(link_type, &joined(&[&header(12), &hello()])));
        is_hello(&only(link_type, &joined(&[&header(105), &sent()])));
        is_hello(&only(
            link_type,
            &joined(&[&header(113), &[0, 0, 0, 1, 0, 6, 9, 9, 9, 9, 9, 9, 0, 0, 8, 0], &hello()]),
        ));
        // Not one in another.
        assert_eq!(refused(link_type, &joined(&[&header(192), &ppi(1), &frame(&hello())])), "link_type");
        assert_eq!(refused(link_type, &header(1)[..7]), "link_cut");
    }
}
