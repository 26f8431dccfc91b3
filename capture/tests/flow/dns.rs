//! DNS exchanges.

use wiretag_capture::record::Dns;
use wiretag_capture::{EndReason, FlowRecord};

use crate::story::*;

fn message(id: u16, flags: u16, answers: u16, kind: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [id, flags, 1, answers, 0, 0] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(b"\x03WWW\x07example\x03org\x00");
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

const QUERY: u16 = 0x0100;
const RESPONSE: u16 = 0x8180;
const PORTS: (u16, u16) = (40000, 53);

fn dns(record: &FlowRecord) -> &Dns {
    assert_eq!(record.app, Some("dns"));
    record.dns.as_deref().unwrap()
}

#[test]
fn latency_runs_from_the_last_repetition() {
    let mut story = Story::new();
    story.udp(0, Client, PORTS, &message(1, QUERY, 0, 28));
    story.udp(SECOND, Client, PORTS, &message(1, QUERY, 0, 28));
    story.udp(SECOND + 4 * MS, Server, PORTS, &message(1, RESPONSE | 3, 0, 28));
    // All is answered: no need to wait for the idle timeout of UDP.
    story.advance(6 * SECOND + 4 * MS);
    assert_eq!(story.records.len(), 1);
    let record = story.only();
    let expected = Dns {
        query: Some("www.example.org".into()),
        qtype: Some("AAAA".into()),
        rcode: Some("NXDOMAIN".into()),
        latency_us: Some(4000),
        answers: Some(0),
        retries: Some(1),
    };
    assert_eq!(*dns(&record), expected);
    assert_eq!(record.end_reason, EndReason::Idle);
}

#[test]
fn of_two_questions_the_first_is_kept() {
    let mut story = Story::new();
    story.udp(0, Client, PORTS, &message(1, QUERY, 0, 1));
    story.udp(MS, Client, PORTS, &message(2, QUERY, 0, 28));
    story.udp(5 * MS, Server, PORTS, &message(2, RESPONSE, 9, 28));
    story.udp(7 * MS, Server, PORTS, &message(1, RESPONSE, 2, 1));
    let record = story.only();
    let fields = dns(&record);
    assert_eq!((fields.qtype.as_deref(), fields.answers, fields.latency_us), (Some("A"), Some(2), Some(7000)));
}

#[test]
fn without_an_answer_there_is_no_latency() {
    let mut story = Story::new();
    story.udp(0, Client, PORTS, &message(1, QUERY, 0, 1));
    // Another id does not answer.
    story.udp(MS, Server, PORTS, &message(77, RESPONSE, 1, 1));
    story.advance(10 * SECOND);
    let record = story.only();
    assert_eq!((dns(&record).rcode.as_deref(), dns(&record).latency_us), (None, None));
    assert_eq!(record.end_reason, EndReason::EndOfInput);
}

#[test]
fn a_response_alone_names_what_it_answers() {
    let mut story = Story::new();
    story.udp(0, Server, PORTS, &message(1, RESPONSE, 1, 1));
    let record = story.only();
    assert_eq!(record.client.port, Some(40000));
    assert_eq!((dns(&record).query.as_deref(), dns(&record).latency_us), (Some("www.example.org"), None));
}

#[test]
fn over_tcp_a_whole_message_in_a_segment_is_read() {
    let framed = |message: Vec<u8>| [&(message.len() as u16).to_be_bytes()[..], &message].concat();
    let on = |segment: Segment| segment.ports(40000, 53);
    let record = only(&[
        on(segment(Client, ACK, 101, 501)).payload(&framed(message(1, QUERY, 0, 16))),
        on(segment(Server, ACK, 501, 200)).payload(&framed(message(1, RESPONSE | 5, 0, 16))),
    ]);
    let fields = dns(&record);
    assert_eq!((fields.qtype.as_deref(), fields.rcode.as_deref()), (Some("TXT"), Some("REFUSED")));
    assert_eq!(fields.latency_us, Some(1000));
}

#[test]
fn a_question_that_waits_is_carried_into_the_next_slice() {
    let mut story = Story::new();
    for second in 0..59 {
        story.udp(second * SECOND, Client, PORTS, b"keeps the flow alive");
    }
    story.udp(59 * SECOND, Client, PORTS, &message(1, QUERY, 0, 1));
    story.udp(61 * SECOND, Server, PORTS, &message(1, RESPONSE, 1, 1));
    let records = story.end();
    assert_eq!(records.len(), 2);
    assert_eq!((dns(&records[0]).latency_us, dns(&records[1]).latency_us), (None, Some(2_000_000)));
}

#[test]
fn other_payload_on_the_port_is_not_dns() {
    let mut story = Story::new();
    story.udp(0, Client, PORTS, b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(story.only().app, None);
}
