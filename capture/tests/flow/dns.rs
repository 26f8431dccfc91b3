//! DNS exchanges.

use wiretag_capture::record::Dns;
use wiretag_capture::{EndReason, FlowRecord};

use crate::story::*;
use crate::talk::Talk;

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
    assert_eq!(record.end_reason, Some(EndReason::Idle));
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

/// The C library asks for A and AAAA on one socket, and repeats both when one answer is late.
#[test]
fn second_responses_of_a_client_that_asks_twice_are_no_exchanges() {
    let mut story = Story::with(wiretag_capture::flow::FlowConfig { transactions: true, ..config() });
    for at in [0, 5 * SECOND] {
        story.udp(at, Client, PORTS, &message(1, QUERY, 0, 1));
        story.udp(at, Client, PORTS, &message(2, QUERY, 0, 28));
    }
    for at in [6 * SECOND, 7 * SECOND] {
        story.udp(at, Server, PORTS, &message(1, RESPONSE, 1, 1));
        story.udp(at, Server, PORTS, &message(2, RESPONSE, 0, 28));
    }
    let mut transactions = Vec::new();
    story.engine.take_transactions(&mut transactions);
    let exchanges = transactions.iter().map(|transaction| &transaction.exchange);
    let rows: Vec<_> = exchanges.map(|e| (e.qtype.as_deref(), e.latency_us, e.retries)).collect();
    assert_eq!(rows, [(Some("A"), Some(1_000_000), Some(1)), (Some("AAAA"), Some(1_000_000), Some(1))]);
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
    assert_eq!(record.end_reason, Some(EndReason::EndOfInput));
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

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

#[test]
fn over_tcp_messages_are_split_and_share_segments() {
    let mut talk = Talk::on(53);
    let queries = [framed(&message(1, QUERY, 0, 1)), framed(&message(2, QUERY, 0, 28))].concat();
    talk.says(0, Client, &queries[..50]);
    talk.says(MS, Client, &queries[50..]);
    talk.says(3 * MS, Server, framed(&message(2, RESPONSE, 4, 28)));
    talk.says(6 * MS, Server, framed(&message(1, RESPONSE, 2, 1)));
    let (record, transactions) = talk.only();
    assert_eq!((dns(&record).answers, dns(&record).latency_us), (Some(2), Some(6000)));
    let rows: Vec<_> = transactions.iter().map(|t| (t.exchange.qtype.as_deref(), t.exchange.latency_us)).collect();
    assert_eq!(rows, [(Some("AAAA"), Some(2000)), (Some("A"), Some(6000))]);
}

#[test]
fn over_tcp_a_cut_message_still_has_its_question() {
    let mut talk = Talk::on(53);
    let long = [message(1, RESPONSE, 40, 255), vec![0; 3000]].concat();
    let mut segment = talk.segment(Server, &framed(&long));
    segment.payload.truncate(100);
    talk.story.tcp(0, &segment);
    talk.says(MS, Server, framed(&message(2, RESPONSE, 1, 1)));
    let (record, transactions) = talk.only();
    assert_eq!((dns(&record).qtype.as_deref(), dns(&record).answers), (Some("ANY"), Some(40)));
    assert_eq!(transactions.len(), 2);
}

#[test]
fn over_tcp_an_exchange_lasts_from_its_first_byte_to_its_last() {
    let mut talk = Talk::on(53);
    // The first message of a connection is recognised when it is whole.
    let query = framed(&message(1, QUERY, 0, 1));
    for (at, piece) in [(0, &query[..1]), (10, &query[1..20]), (20, &query[20..])] {
        talk.says(at * MS, Client, piece);
    }
    let answer = framed(&message(1, RESPONSE, 1, 1));
    for (at, piece) in [(25, &answer[..1]), (40, &answer[1..20]), (50, &answer[20..])] {
        talk.says(at * MS, Server, piece);
    }
    let answer = framed(&message(2, RESPONSE, 1, 28));
    talk.says(60 * MS, Server, &answer[..20]);
    talk.says(70 * MS, Server, &answer[20..]);
    let (record, transactions) = talk.only();
    assert_eq!(dns(&record).latency_us, Some(5000));
    let rows = transactions.iter().map(|t| (t.exchange.start, t.exchange.latency_us, t.exchange.end));
    let expected = [(BEGIN, Some(5000), BEGIN + 50 * MS), (BEGIN + 60 * MS, None, BEGIN + 70 * MS)];
    assert_eq!(rows.collect::<Vec<_>>(), expected);
}

/// The gap is noticed by what comes seconds later.
#[test]
fn over_tcp_a_message_with_a_gap_passed_when_its_bytes_did() {
    let mut talk = Talk::on(53);
    talk.says(0, Client, framed(&message(9, QUERY, 0, 1)));
    let query = framed(&[message(1, QUERY, 0, 1), vec![0; 500]].concat());
    let (captured, missed) = query.split_at(100);
    talk.says(0, Client, captured);
    talk.missed(Client, missed.len() as u32);
    let answer = framed(&[message(1, RESPONSE, 1, 1), vec![0; 500]].concat());
    let (captured, missed) = answer.split_at(100);
    talk.says(5 * MS, Server, captured);
    talk.missed(Server, missed.len() as u32);
    talk.says(3 * SECOND, Client, framed(&message(2, QUERY, 0, 28)));
    let (_, transactions) = talk.only();
    assert_eq!((transactions[0].exchange.latency_us, transactions[0].exchange.end), (Some(5000), BEGIN + 5 * MS));
}

#[test]
fn content_is_enough_away_from_the_ports() {
    let mut story = Story::new();
    story.udp(0, Client, (40000, 8053), &message(1, QUERY, 0, 28));
    story.udp(MS, Server, (40000, 8053), &message(1, RESPONSE | 3, 0, 28));
    assert_eq!(dns(&story.only()).latency_us, Some(1000));

    let mut talk = Talk::new();
    talk.says(0, Client, framed(&message(1, QUERY, 0, 28)));
    assert_eq!(dns(&talk.only().0).qtype.as_deref(), Some("AAAA"));

    // NetBIOS has the form of DNS.
    let mut story = Story::new();
    story.udp(0, Client, (137, 137), &message(1, QUERY, 0, 33));
    assert_eq!(story.only().app, None);
}

/// Neither is right to the last byte: a response that has no question, and what a snap length cut.
#[test]
fn away_from_the_ports_an_answered_query_says_that_the_flow_is_dns() {
    let headless = [0, 1, 0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0];
    let cut = message(1, RESPONSE, 9, 1);
    let unknown = message(2, QUERY, 0, 54);
    for first in [&headless[..], &cut] {
        let mut story = Story::with(wiretag_capture::flow::FlowConfig { transactions: true, ..config() });
        let ports = (40000, 8053);
        story.udp(0, Client, ports, &message(1, QUERY, 0, 1));
        // It answers nothing.
        story.udp(MS, Server, ports, &message(7, RESPONSE, 9, 1));
        story.udp(2 * MS, Server, ports, first);
        story.udp(3 * MS, Client, ports, &unknown);
        story.udp(4 * MS, Server, ports, &message(2, RESPONSE, 9, 54));
        let mut transactions = Vec::new();
        story.engine.take_transactions(&mut transactions);
        let rows: Vec<_> = transactions.iter().map(|t| (t.exchange.qtype.as_deref(), t.exchange.latency_us)).collect();
        assert_eq!(rows, [(Some("A"), Some(2000)), (Some("TYPE54"), Some(1000))]);
    }
}

#[test]
fn multicast_dns_and_llmnr_are_named_as_such() {
    for (port, app) in [(5353, "mdns"), (5355, "llmnr")] {
        let mut story = Story::new();
        story.udp(0, Client, (port, port), &message(0, 0, 0, 12));
        let record = story.only();
        assert_eq!((record.app, record.dns.unwrap().qtype.as_deref()), (Some(app), Some("PTR")));
    }
}

#[test]
fn a_client_may_have_the_port_of_another_kind_of_dns() {
    for port in [5353, 5355] {
        let mut story = Story::new();
        story.udp(0, Client, (port, 53), &message(1, QUERY, 0, 1));
        assert_eq!(dns(&story.only()).qtype.as_deref(), Some("A"));
    }
}

#[test]
fn the_answer_to_another_question_is_none() {
    let mut story = Story::new();
    story.udp(0, Client, PORTS, &message(1, QUERY, 0, 1));
    story.udp(MS, Server, PORTS, &message(1, RESPONSE, 1, 28));
    assert_eq!(dns(&story.only()).rcode, None);
}

#[test]
fn a_copy_by_the_capture_is_no_repetition() {
    let mut story = Story::new();
    for at in [0, MS / 5] {
        story.udp(at, Client, PORTS, &message(1, QUERY, 0, 1));
    }
    for at in [4 * MS, 4 * MS + MS / 5] {
        story.udp(at, Server, PORTS, &message(1, RESPONSE, 1, 1));
    }
    let record = story.only();
    assert_eq!((dns(&record).retries, dns(&record).latency_us), (Some(0), Some(4000)));
}

#[test]
fn each_exchange_is_a_transaction_answered_or_not() {
    let mut talk = Talk::midstream();
    let udp = |talk: &mut Talk, at, from, bytes: Vec<u8>| talk.story.udp(at, from, PORTS, &bytes);
    udp(&mut talk, 0, Client, message(1, QUERY, 0, 1));
    udp(&mut talk, SECOND, Client, message(1, QUERY, 0, 1));
    udp(&mut talk, SECOND + 2 * MS, Server, message(1, RESPONSE, 3, 1));
    // The server repeats itself.
    udp(&mut talk, SECOND + 3 * MS, Server, message(1, RESPONSE, 3, 1));
    udp(&mut talk, 2 * SECOND, Client, message(2, QUERY, 0, 28));
    let (record, transactions) = talk.only();
    assert_eq!(dns(&record).retries, Some(1));
    let [answered, unanswered] = &transactions[..] else { panic!("{transactions:#?}") };
    let exchange = &answered.exchange;
    assert_eq!((exchange.app, exchange.query.as_deref()), ("dns", Some("www.example.org")));
    assert_eq!((exchange.rcode.as_deref(), exchange.answers, exchange.retries), (Some("NOERROR"), Some(3), Some(1)));
    assert_eq!((exchange.start, exchange.end), (BEGIN, BEGIN + SECOND + 2 * MS));
    assert_eq!((exchange.latency_us, exchange.request_bytes), (Some(2000), Some(33)));
    assert_eq!((answered.client_port, answered.server_port), (Some(40000), Some(53)));
    let exchange = &unanswered.exchange;
    assert_eq!((exchange.qtype.as_deref(), exchange.rcode.as_deref()), (Some("AAAA"), None));
    assert_eq!((exchange.complete, exchange.latency_us), (false, None));
}

#[test]
fn a_thousand_questions_under_way_on_one_socket_find_their_answers() {
    let udp = |talk: &mut Talk, at, from, bytes: Vec<u8>| talk.story.udp(at, from, PORTS, &bytes);
    let mut talk = Talk::midstream();
    for id in 0..1000 {
        udp(&mut talk, i64::from(id) * MS / 100, Client, message(id, QUERY, 0, 1));
    }
    udp(&mut talk, 500 * MS, Client, message(7, QUERY, 0, 1));
    for id in (0..1000).rev() {
        udp(&mut talk, 501 * MS, Server, message(id, RESPONSE, 1, 1));
    }
    let (record, transactions) = talk.only();
    assert_eq!((dns(&record).retries, dns(&record).latency_us), (Some(1), Some(501_000)));
    assert_eq!(transactions.len(), 1000);
    assert!(transactions.iter().all(|t| t.exchange.complete), "{transactions:?}");
    let repeated = transactions.iter().find(|t| t.exchange.retries == Some(1)).unwrap();
    assert_eq!(repeated.exchange.latency_us, Some(1000));
}

#[test]
fn a_query_without_an_answer_is_given_up_while_the_flow_goes_on() {
    let mut story = Story::with(wiretag_capture::flow::FlowConfig { transactions: true, ..config() });
    story.udp(0, Client, PORTS, &message(1, QUERY, 0, 1));
    for at in [20, 31] {
        story.udp(at * SECOND, Client, PORTS, &message(at as u16, QUERY, 0, 1));
    }
    let mut transactions = Vec::new();
    story.engine.take_transactions(&mut transactions);
    assert_eq!(transactions.len(), 1);
    assert_eq!((transactions[0].exchange.start, transactions[0].exchange.end), (BEGIN, BEGIN));
}

/// A story of `flows` flows with so many queries each, a millisecond apart.
fn unanswered(flows: u16, queries: u16) -> Story {
    let mut story = Story::with(wiretag_capture::flow::FlowConfig { transactions: true, ..config() });
    for flow in 0..flows {
        for id in 0..queries {
            story.udp(i64::from(id) * MS, Client, (1000 + flow, 53), &message(id, QUERY, 0, 1));
        }
    }
    story
}

#[test]
fn queries_that_end_at_once_are_transactions_however_many_they_are() {
    let mut story = unanswered(200, 1000);
    // A pause in a capture.
    story.udp(600 * SECOND, Client, PORTS, &message(1, QUERY, 0, 1));
    let mut transactions = Vec::new();
    story.engine.take_transactions(&mut transactions);
    assert_eq!((transactions.len(), story.engine.counters().transactions), (200_000, 200_000));
}

#[test]
fn flows_that_end_in_parts_give_as_many_rows_as_are_asked_for() {
    let (mut engine, mut records) = (unanswered(40, 100).engine, Vec::new());
    let (mut parts, mut transactions) = (Vec::new(), Vec::new());
    let mut more = true;
    while more {
        more = engine.finish_some(wiretag_capture::EndReason::EndOfInput, 1000, &mut records);
        engine.take_transactions(&mut transactions);
        parts.push(records.len() + transactions.len());
        records.clear();
        transactions.clear();
    }
    // The last flow of a part has a hundred and one.
    assert!(parts.iter().all(|rows| *rows <= 1100), "{parts:?}");
    assert_eq!(parts.iter().sum::<usize>(), 40 * 101);
}
