//! What the capture missed.

use wiretag_capture::TcpState;

use crate::story::*;

#[test]
fn a_missed_end_shows_in_the_last_acknowledgement() {
    let mut story = Story::new();
    story.handshake(0);
    story.tcp(20 * MS, &segment(Server, ACK, 501, 101).data(1000));
    story.tcp(21 * MS, &segment(Client, ACK, 101, 501 + 3000));
    let record = story.only();
    assert_eq!((record.server.packets_missed, record.client.packets_missed), (Some(2), Some(0)));
    // Also if it falls silent, and the end of the file comes later.
    let mut story = Story::new();
    story.handshake(0);
    story.tcp(20 * MS, &segment(Server, ACK, 501, 101).data(1000));
    story.tcp(21 * MS, &segment(Client, ACK, 101, 501 + 3000));
    story.advance(400 * SECOND);
    assert_eq!(story.only().server.packets_missed, Some(2));
    // One direction alone says nothing of what is missing.
    assert_eq!(only(&[segment(Client, ACK, 101, 501).data(10)]).client.packets_missed, None);
}

/// The server's data may pass elsewhere: its acknowledgements tell how much there was, and which reset is meant.
#[test]
fn acknowledgements_alone_tell_what_was_missed() {
    let told = |last: Segment| {
        let mut story = Story::new();
        story.handshake(0);
        for (step, at) in (1..=100).zip(20..) {
            story.tcp(at * MS, &segment(Client, ACK, 101, 501 + step * 1_000_000));
        }
        story.tcp(SECOND, &last);
        let record = story.only();
        (record.server.packets_missed, record.tcp_state)
    };
    let end = 501 + 100_000_000;
    let missed = Some(100_000_000_u32.div_ceil(1460));
    assert_eq!(told(segment(Client, ACK, 101, end)), (missed, Some(TcpState::S1)));
    assert_eq!(told(segment(Server, RST | ACK, end, 101)), (missed, Some(TcpState::Rstr)));
    // Far beyond everything, it is of another connection.
    assert_eq!(told(segment(Client, ACK, 101, end + 900_000_000)), (missed, Some(TcpState::S1)));
}

/// Who can send one packet makes no figures useless; what the capture was too slow for is missed all the same.
#[test]
fn one_segment_far_ahead_hides_nothing_and_two_are_a_gap() {
    let data = |seq: u32| segment(Client, ACK, seq, 501).data(1000);
    let figures = |far: &[u32]| {
        let mut segments: Vec<_> = (0..20).map(|number| data(101 + 1000 * number)).collect();
        segments.splice(10..10, far.iter().map(|seq| data(*seq)));
        let client = only(&segments).client;
        (client.payload_bytes, client.retransmits, client.out_of_order)
    };
    for far in [20_000_000, 100_000_000, 1_200_000_000] {
        assert_eq!(figures(&[far]), (21_000, Some(0), Some(0)));
        assert_eq!(figures(&[far, 2_000_000_000 - far]), (22_000, Some(0), Some(0)));
    }
    let mut story = Story::new();
    story.handshake(0);
    let far = 101 + 60_000_000;
    for (seq, at) in [101, far, far + 5000, far + 1000].into_iter().zip(20..) {
        story.tcp(at * MS, &data(seq));
    }
    story.tcp(SECOND, &segment(Server, ACK, 501, far + 6000));
    let client = story.only().client;
    assert_eq!((client.payload_bytes, client.out_of_order, client.packets_missed), (4000, Some(1), Some(59_999 + 3)));
}

#[test]
fn what_was_missed_stays_so_over_gigabytes() {
    let mut story = Story::new();
    story.handshake(0);
    story.tcp(20 * MS, &segment(Client, ACK, 101, 501).data(1000));
    let (mut next, mut at) = (2101_u32, 30);
    for _ in 0..3000 {
        story.tcp(at * MS, &segment(Client, ACK, next, 501).data(1_000_000));
        next = next.wrapping_add(1_000_000);
        story.tcp((at + 1) * MS, &segment(Server, ACK, 501, next));
        at += 2;
    }
    let record = story.only();
    assert_eq!((record.client.packets_missed, record.client.retransmits), (Some(1), Some(0)));
}
