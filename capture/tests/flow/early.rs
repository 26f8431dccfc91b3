//! What is captured before what it answers, and connections of which the capture has only the end.

use wiretag_capture::FlowRecord;

use crate::story::*;

const MICRO: i64 = MS / 1000;

/// The record of segments at these times, µs.
fn at(segments: &[(i64, Segment)]) -> FlowRecord {
    let mut story = Story::new();
    for (time, segment) in segments {
        story.tcp(time * MICRO, segment);
    }
    story.only()
}

fn halves(record: &FlowRecord) -> (Option<u32>, Option<u32>, Option<u32>) {
    (record.client.rtt_us, record.server.rtt_us, record.handshake_rtt_us)
}

/// A source with several queues delivers the client's ACK before the SYN-ACK.
#[test]
fn an_ack_that_is_captured_before_its_syn_ack_completes_the_handshake() {
    let (syn, ack) = (segment(Client, SYN, 100, 0), segment(Client, ACK, 101, 501));
    let (syn_ack, request) = (segment(Server, SYN | ACK, 500, 101), ack.clone().data(100));
    let played = |syn_ack_at: i64| {
        let segments =
            [(0, syn.clone()), (200, ack.clone()), (syn_ack_at, syn_ack.clone()), (5_000_000, request.clone())];
        halves(&at(&segments))
    };
    assert_eq!(played(150), (Some(50), Some(150), Some(200)));
    // It is stamped behind its answer: another SYN-ACK was meant, which the capture missed.
    assert_eq!(played(1_000_000), (None, None, Some(200)));
    // What the client acknowledges before is of another number.
    let other = [(0, syn), (10, segment(Client, ACK, 101, 0)), (150, syn_ack), (200, ack)];
    assert_eq!(halves(&at(&other)), (Some(50), Some(150), Some(200)));
}

/// Some (MPTCP of Linux) send an acknowledgement of zero behind their SYN.
#[test]
fn what_is_acknowledged_before_the_syn_ack_is_forgotten() {
    let isn = 3_133_953_389;
    let record = only(&[
        segment(Client, SYN, 100, 0),
        segment(Client, ACK, 101, 0),
        segment(Server, SYN | ACK, isn, 101),
        segment(Client, ACK, 101, isn + 1).data(10),
        segment(Server, ACK, isn + 1, 111).data(10),
        segment(Client, ACK, 111, isn + 11),
    ]);
    assert_eq!((record.client.packets_missed, record.server.packets_missed), (Some(0), Some(0)));
    assert_eq!((record.client.rtt_avg_us, record.server.rtt_avg_us), (Some(1000), Some(1000)));
}

#[test]
fn a_keep_alive_that_is_the_first_segment_seen_is_no_loss() {
    let (asks, answers) = (segment(Client, ACK, 999, 501), segment(Server, ACK, 501, 1000));
    let data = segment(Client, ACK, 1000, 501).data(100);
    let figures = |segments: &[Segment]| {
        let record = only(segments);
        assert_eq!((record.client.retransmits, record.server.packets_missed), (Some(0), Some(0)));
        (record.client.packets_missed, record.client.keep_alives, record.client.payload_bytes)
    };
    assert_eq!(figures(&[asks.clone(), answers.clone()]), (Some(0), Some(0), 0));
    let again = [asks.clone(), answers.clone(), asks.clone(), answers.clone(), asks.clone(), answers.clone()];
    assert_eq!(figures(&again), (Some(0), Some(2), 0));
    assert_eq!(figures(&[asks.clone(), answers.clone(), data.clone()]), (Some(0), Some(0), 100));
    // The answer to the one before is the first segment seen.
    assert_eq!(figures(&[answers.clone(), asks.clone(), answers.clone(), asks, data]), (Some(0), Some(1), 100));
    // More than a byte is data that the capture missed.
    let beyond = [segment(Client, ACK, 1000, 501), segment(Server, ACK, 501, 1101)];
    assert_eq!(figures(&beyond), (Some(1), Some(0), 0));
}
