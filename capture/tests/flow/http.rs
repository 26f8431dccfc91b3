//! HTTP/1 exchanges.

use wiretag_capture::record::Http;
use wiretag_capture::{FlowRecord, Transaction};

use crate::story::*;
use crate::talk::Talk;

pub(crate) fn http(record: &FlowRecord) -> &Http {
    record.http.as_deref().unwrap()
}

/// Method, path, status, latency.
pub(crate) type Row<'a> = (Option<&'a str>, Option<&'a str>, Option<u16>, Option<u64>);

pub(crate) fn exchanges(transactions: &[Transaction]) -> Vec<Row<'_>> {
    let exchanges = transactions.iter().map(|transaction| &transaction.exchange);
    exchanges.map(|e| (e.method.as_deref(), e.path.as_deref(), e.status, e.latency_us)).collect()
}

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[test]
fn latency_runs_from_the_last_byte_of_the_request_to_the_first_of_the_status_line() {
    let mut talk = Talk::new();
    talk.says(0, Client, "POST /a?b HTTP/1.1\r\nhost: shop.example:8080\r\nContent-Length: 10\r\n\r\n01234");
    talk.says(4 * MS, Client, "56789");
    talk.says(9 * MS, Server, "HTTP/1.1 50");
    talk.says(20 * MS, Server, "3 Busy\r\nContent-Length: 0\r\n\r\n");
    let (record, transactions) = talk.only();
    assert_eq!(record.app, Some("http"));
    let expected = Http {
        method: Some("POST".into()),
        host: Some("shop.example:8080".into()),
        path: Some("/a?b".into()),
        status: Some(503),
        latency_us: Some(5000),
        requests: 1,
        errors: 1,
    };
    assert_eq!(*http(&record), expected);
    let exchange = &transactions[0].exchange;
    assert_eq!((exchange.start, exchange.end), (BEGIN, BEGIN + 20 * MS));
    assert_eq!((exchange.request_bytes, exchange.response_bytes), (Some(77), Some(40)));
    assert!(exchange.complete);
    assert_eq!((transactions[0].client_port, transactions[0].server_port), (Some(40000), Some(27272)));
    assert_eq!(transactions[0].flow_id, record.flow_id);
}

#[test]
fn a_request_begins_with_the_first_byte_though_more_are_needed_to_recognise_it() {
    let mut talk = Talk::new();
    for (at, piece) in [(0, "G"), (10, "ET /1 "), (20, "HTTP/1.1\r\n"), (30, "\r\n")] {
        talk.says(at * MS, Client, piece);
    }
    talk.says(35 * MS, Server, OK);
    let (_, transactions) = talk.only();
    assert_eq!(exchanges(&transactions), [(Some("GET"), Some("/1"), Some(200), Some(5000))]);
    assert_eq!(transactions[0].exchange.start, BEGIN);

    // The capture missed the end of its line.
    let mut talk = Talk::new();
    talk.says(0, Client, "GET /1");
    talk.missed(Client, 20);
    talk.says(35 * MS, Server, OK);
    let (_, transactions) = talk.only();
    assert_eq!(exchanges(&transactions), [(Some("GET"), Some("/1"), Some(200), Some(35_000))]);
    assert_eq!(transactions[0].exchange.start, BEGIN);
}

#[test]
fn the_end_that_connected_may_be_the_one_that_answers() {
    let mut talk = Talk::new();
    talk.says(0, Server, "GET /reverse HTTP/1.1\r\n\r\n");
    talk.says(MS, Client, OK);
    let (record, transactions) = talk.only();
    assert_eq!((http(&record).path.as_deref(), http(&record).status), (Some("/reverse"), Some(200)));
    assert_eq!((record.client.port, transactions[0].client_port), (Some(40000), Some(27272)));
}

#[test]
fn pipelined_requests_meet_their_answers_in_order() {
    let mut talk = Talk::new();
    talk.says(0, Client, "GET /1 HTTP/1.1\r\n\r\nHEAD /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\n");
    // The answer to HEAD has a length and no body.
    talk.says(MS, Server, format!("{OK}HTTP/1.1 404 No\r\nContent-Length: 99\r\n\r\n"));
    talk.says(2 * MS, Server, "HTTP/1.1 304 Same\r\nContent-Length: 7\r\n\r\n");
    let (record, transactions) = talk.only();
    assert_eq!((http(&record).requests, http(&record).errors), (3, 1));
    assert_eq!(
        exchanges(&transactions),
        [
            (Some("GET"), Some("/1"), Some(200), Some(1000)),
            (Some("HEAD"), Some("/2"), Some(404), Some(1000)),
            (Some("GET"), Some("/3"), Some(304), Some(2000)),
        ]
    );
}

#[test]
fn interim_answers_are_not_the_answer() {
    let mut talk = Talk::new();
    talk.says(0, Client, "PUT / HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n");
    talk.says(MS, Server, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    talk.says(2 * MS, Client, "5;x=y\r\nhello\r\n0\r\nTrailer: a\r\n\r\n");
    talk.says(5 * MS, Server, "HTTP/1.1 201 Created\r\n\r\n");
    let (record, _) = talk.only();
    assert_eq!((http(&record).status, http(&record).latency_us), (Some(201), Some(3000)));
}

#[test]
fn a_body_that_was_refused_does_not_come() {
    for length in ["Content-Length: 5000", "Transfer-Encoding: chunked"] {
        let mut talk = Talk::new();
        talk.says(0, Client, format!("PUT /1 HTTP/1.1\r\nExpect: 100-continue\r\n{length}\r\n\r\n"));
        talk.says(MS, Server, "HTTP/1.1 401 Who\r\nContent-Length: 0\r\n\r\n");
        talk.says(2 * MS, Client, "GET /2 HTTP/1.1\r\n\r\n");
        talk.says(3 * MS, Server, OK);
        let (_, transactions) = talk.only();
        assert_eq!(transactions.len(), 2, "{length}");
        let expected = [(Some("PUT"), Some("/1"), Some(401)), (Some("GET"), Some("/2"), Some(200))];
        let expected = expected.map(|(method, path, status)| (method, path, status, Some(1000)));
        assert_eq!(exchanges(&transactions), expected, "{length}");
    }
}

#[test]
fn an_upload_that_breaks_off_lasts_to_its_last_byte() {
    let chunk = format!("3e8\r\n{}\r\n", "x".repeat(1000));
    for (length, piece) in [("Content-Length: 5000", &"x".repeat(1000)), ("Transfer-Encoding: chunked", &chunk)] {
        let head = format!("POST /1 HTTP/1.1\r\n{length}\r\n\r\n");
        for answered in [false, true] {
            let mut talk = Talk::new();
            talk.says(0, Client, &head);
            talk.says(MS, Client, piece);
            talk.says(2 * MS, Client, piece);
            if answered {
                talk.says(3 * MS, Server, "HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n");
            }
            let (_, transactions) = talk.only();
            let exchange = &transactions[0].exchange;
            assert_eq!((exchange.status, exchange.latency_us), (answered.then_some(413), None));
            assert_eq!(exchange.request_bytes, Some((head.len() + 2 * piece.len()) as u64));
            assert_eq!(exchange.end, BEGIN + if answered { 3 * MS } else { 2 * MS });
        }
    }
}

#[test]
fn an_upload_that_goes_on_after_its_answer_belongs_to_its_exchange() {
    let body = "x".repeat(1000);
    for (length, piece) in
        [("Content-Length: 3000", &body), ("Transfer-Encoding: chunked", &format!("3e8\r\n{body}\r\n"))]
    {
        let head = format!("POST /1 HTTP/1.1\r\n{length}\r\n\r\n");
        let end = if length.ends_with("chunked") { "0\r\n\r\n" } else { "" };
        let mut talk = Talk::new();
        talk.says(0, Client, &head);
        talk.says(MS, Client, piece);
        talk.says(2 * MS, Server, "HTTP/1.1 413 No\r\nContent-Length: 5\r\n\r\nlarge");
        talk.says(3 * MS, Client, piece);
        talk.says(4 * MS, Client, format!("{piece}{end}GET /2 HTTP/1.1\r\n\r\n"));
        talk.says(5 * MS, Server, OK);
        let (_, transactions) = talk.only();
        let second = (Some("GET"), Some("/2"), Some(200), Some(1000));
        assert_eq!(exchanges(&transactions), [(Some("POST"), Some("/1"), Some(413), None), second]);
        let exchange = &transactions[0].exchange;
        assert_eq!(exchange.request_bytes, Some((head.len() + 3 * piece.len() + end.len()) as u64));
        assert_eq!((exchange.response_bytes, exchange.end), (Some(43), BEGIN + 4 * MS));
    }
}

#[test]
fn an_answer_that_breaks_off_is_not_complete() {
    for (head, complete) in [("Content-Length: 1000", false), ("Transfer-Encoding: chunked", false), ("A: b", true)] {
        let mut talk = Talk::new();
        talk.says(0, Client, "GET /1 HTTP/1.1\r\n\r\n");
        talk.says(MS, Server, format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n3e8\r\nabc"));
        let (_, transactions) = talk.only();
        assert_eq!(
            (transactions[0].exchange.status, transactions[0].exchange.complete),
            (Some(200), complete),
            "{head}"
        );
    }
}

#[test]
fn answers_to_unseen_requests_may_lack_their_bodies() {
    let mut talk = Talk::midstream();
    talk.says(0, Server, "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n");
    talk.says(MS, Server, "HTTP/1.1 404 No\r\nContent-Length: 5\r\n\r\nhello");
    talk.says(2 * MS, Server, "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
    let (record, transactions) = talk.only();
    assert_eq!((http(&record).errors, transactions.len()), (2, 3));
}

#[test]
fn chunked_bodies_end_where_they_say() {
    let mut talk = Talk::new();
    talk.says(0, Client, "GET /1 HTTP/1.1\r\n\r\n");
    let chunked = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: gzip, chunked\r\n\r\n";
    talk.says(MS, Server, format!("{chunked}10\r\nHTTP/1.1 500 x\r\n\r\n0\r\n\r\n"));
    talk.says(2 * MS, Client, "GET /2 HTTP/1.1\r\n\r\n");
    talk.says(3 * MS, Server, "HTTP/1.0 200 OK\r\n\r\nuntil the connection closes HTTP/1.1 500 x\r\n\r\n");
    talk.says(4 * MS, Server, "HTTP/1.1 500 x\r\n\r\n");
    let (record, transactions) = talk.only();
    assert_eq!((http(&record).requests, http(&record).errors), (2, 0));
    assert_eq!(transactions.len(), 2);
    assert!(transactions[1].exchange.complete);
}

/// RFC 6928: ten segments may be under way when the first is sent again.
#[test]
fn the_head_of_an_answer_may_come_after_the_rest_of_the_window() {
    let mut talk = Talk::new();
    talk.says(0, Client, "GET /1 HTTP/1.1\r\n\r\n");
    let head = "HTTP/1.1 503 Busy\r\nContent-Length: 13391\r\n\r\n";
    let answer = format!("{head}{}", "x".repeat(13_391));
    let mut window: Vec<_> = answer.as_bytes().chunks(1400).map(|part| talk.segment(Server, part)).collect();
    assert_eq!(window.len(), 10);
    window.rotate_left(1);
    for (segment, at) in window.iter().zip(1..) {
        talk.story.tcp(at * MS, segment);
    }
    talk.says(20 * MS, Client, "GET /2 HTTP/1.1\r\n\r\n");
    talk.says(22 * MS, Server, OK);
    let (_, transactions) = talk.only();
    let second = (Some("GET"), Some("/2"), Some(200), Some(2000));
    assert_eq!(exchanges(&transactions), [(Some("GET"), Some("/1"), Some(503), Some(10_000)), second]);
}

#[test]
fn the_identity_coding_is_none() {
    let mut talk = Talk::new();
    talk.says(0, Client, "GET /1 HTTP/1.1\r\n\r\n");
    talk.says(MS, Server, "HTTP/1.1 200 OK\r\nTransfer-Encoding: Identity\r\nContent-Length: 5\r\n\r\nhello");
    talk.says(2 * MS, Client, "GET /2 HTTP/1.1\r\n\r\n");
    talk.says(3 * MS, Server, "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
    let (_, transactions) = talk.only();
    let second = (Some("GET"), Some("/2"), Some(404), Some(1000));
    assert_eq!(exchanges(&transactions), [(Some("GET"), Some("/1"), Some(200), Some(1000)), second]);
}

#[test]
fn nothing_is_told_with_a_password() {
    const HOST: &str = "proxy.example:8080";
    for (request, host, path) in [
        ("GET http://user:secret@proxy.example:8080/p@q", "h", "http://proxy.example:8080/p@q"),
        ("GET http://us@er:secret@proxy.example:8080", "h", "http://proxy.example:8080"),
        ("CONNECT user:secret@proxy.example:8080", "h", HOST),
        ("GET /p?q=http://a@b", "user:secret@proxy.example:8080", "/p?q=http://a@b"),
    ] {
        let mut talk = Talk::new();
        talk.says(0, Client, format!("{request} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let (record, transactions) = talk.only();
        assert_eq!((http(&record).host.as_deref(), http(&record).path.as_deref()), (Some(HOST), Some(path)));
        assert_eq!(transactions[0].exchange.path.as_deref(), Some(path));
    }
}

#[test]
fn the_target_in_absolute_form_names_the_host() {
    let mut talk = Talk::new();
    talk.says(0, Client, "GET http://one.example/x HTTP/1.1\r\nHost: two.example\r\n\r\n");
    let (record, transactions) = talk.only();
    assert_eq!(http(&record).host.as_deref(), Some("one.example"));
    assert_eq!(http(&record).path.as_deref(), Some("http://one.example/x"));
    // Without an answer there is no status and no latency.
    assert_eq!(exchanges(&transactions), [(Some("GET"), Some("http://one.example/x"), None, None)]);
    assert!(!transactions[0].exchange.complete);
}

/// RFC 7413: the SYN carries the request.
#[test]
fn an_answer_is_read_after_a_second_syn_ack_with_another_number() {
    let mut story = Story::with(wiretag_capture::flow::FlowConfig { transactions: true, ..config() });
    let ports = |segment: Segment| segment.ports(40000, 27272);
    story.tcp(0, &ports(segment(Client, SYN, 100, 0).payload(b"GET / HTTP/1.1\r\n\r\n")));
    story.tcp(MS, &ports(segment(Server, SYN | ACK, 500, 119)));
    story.tcp(SECOND, &ports(segment(Client, SYN, 100, 0)));
    story.tcp(SECOND + MS, &ports(segment(Server, SYN | ACK, 900_000_000, 119)));
    story.tcp(SECOND + 2 * MS, &ports(segment(Client, ACK, 119, 900_000_001)));
    story.tcp(SECOND + 3 * MS, &ports(segment(Server, ACK, 900_000_001, 119).payload(OK.as_bytes())));
    let record = story.only();
    assert_eq!((http(&record).path.as_deref(), http(&record).status), (Some("/"), Some(200)));
}

#[test]
fn an_upgrade_ends_http() {
    let mut talk = Talk::new();
    talk.says(0, Client, "GET /echo HTTP/1.1\r\nUpgrade: websocket\r\n\r\n");
    talk.says(MS, Server, "HTTP/1.1 101 Switching\r\nUpgrade: WebSocket\r\n\r\n\x01\x02HTTP/1.1 500 x\r\n\r\n");
    talk.says(2 * MS, Client, "GET /no HTTP/1.1\r\n\r\n");
    let (record, transactions) = talk.only();
    assert_eq!((record.app, http(&record).status, http(&record).requests), (Some("websocket"), Some(101), 1));
    assert_eq!(transactions.len(), 1);
}

#[test]
fn a_tunnel_is_looked_into() {
    let mut talk = Talk::new();
    talk.says(0, Client, "CONNECT far.example:22 HTTP/1.1\r\nHost: proxy\r\n\r\n");
    talk.says(MS, Server, "HTTP/1.1 200 Connected\r\nContent-Length: 5\r\n\r\nSSH-2.0-x\r\n");
    let (record, _) = talk.only();
    assert_eq!((record.app, http(&record).host.as_deref()), (Some("ssh"), Some("far.example:22")));
}

/// A ClientHello that names the server.
fn hello() -> Vec<u8> {
    let name = b"far.example";
    let sni = [&[0, 0, 0, 16, 0, 14, 0, 0, 11][..], name].concat();
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0, 0, 20], &sni].concat();
    let length = body.len() as u8;
    [&[22, 3, 1, 0, length + 4, 1, 0, 0, length][..], &body].concat()
}

#[test]
fn what_a_client_sends_into_a_tunnel_before_it_is_granted_is_looked_into() {
    let connect = b"CONNECT far.example:443 HTTP/1.1\r\nHost: proxy\r\n\r\n";
    let early = [&connect[..], &hello()].concat();
    for at in [connect.len() + 20, early.len()] {
        let (first, second) = early.split_at(at);
        let mut talk = Talk::new();
        talk.says(0, Client, first);
        talk.says(MS, Client, second);
        talk.says(2 * MS, Server, "HTTP/1.1 200 Connected\r\n\r\n");
        let record = talk.only().0;
        assert_eq!((record.app, record.tls.unwrap().sni.as_deref()), (Some("tls"), Some("far.example")));
    }
    // Where it is refused, the next request is found.
    for sent in [&early[..], connect] {
        let mut talk = Talk::new();
        talk.says(0, Client, sent);
        talk.says(MS, Server, "HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n");
        talk.says(2 * MS, Client, "GET /2 HTTP/1.1\r\n\r\n");
        talk.says(3 * MS, Server, OK);
        let (_, transactions) = talk.only();
        assert_eq!(exchanges(&transactions)[1], (Some("GET"), Some("/2"), Some(200), Some(1000)));
    }
}

#[test]
fn midstream_a_body_is_passed_until_a_head_begins_a_segment() {
    let mut talk = Talk::midstream();
    talk.says(0, Server, vec![b'x'; 900]);
    talk.says(MS, Server, vec![b'y'; 900]);
    talk.says(2 * MS, Client, "GET /next HTTP/1.1\r\nHost: h\r\n\r\n");
    talk.says(3 * MS, Server, OK);
    let (record, _) = talk.only();
    assert_eq!((http(&record).path.as_deref(), http(&record).latency_us), (Some("/next"), Some(1000)));
}

#[test]
fn the_byte_of_a_keep_alive_is_no_beginning() {
    let mut talk = Talk::midstream();
    talk.says(0, Client, [0]);
    talk.says(SECOND, Client, "GET /next HTTP/1.1\r\n\r\n");
    assert_eq!(http(&talk.only().0).path.as_deref(), Some("/next"));
}

#[test]
fn an_answer_alone_is_shown_until_a_request_comes() {
    let mut talk = Talk::midstream();
    talk.says(0, Server, "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
    let (record, transactions) = talk.only();
    assert_eq!((http(&record).status, http(&record).requests, http(&record).errors), (Some(500), 0, 1));
    assert_eq!(exchanges(&transactions), [(None, None, Some(500), None)]);

    let mut talk = Talk::midstream();
    talk.says(0, Server, "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
    talk.says(MS, Client, "GET / HTTP/1.1\r\n\r\n");
    talk.says(2 * MS, Server, OK);
    let (record, _) = talk.only();
    assert_eq!((http(&record).method.as_deref(), http(&record).status), (Some("GET"), Some(200)));
}

#[test]
fn empty_lines_before_a_request_are_none_of_it() {
    let mut talk = Talk::new();
    talk.says(0, Client, "\r\n\r\nGET /1 HTTP/1.1\r\n\r\n");
    talk.says(2 * MS, Server, "HTTP/2.0 204 No Content\r\n\r\n");
    talk.says(3 * MS, Client, "\r\n");
    talk.says(4 * MS, Client, "GET /2 HTTP/1.0\r\n\r\n");
    talk.says(5 * MS, Server, "ICY 200 OK\r\nicy-name: radio\r\n\r\n...");
    let (record, transactions) = talk.only();
    assert_eq!((http(&record).requests, http(&record).status), (2, Some(204)));
    assert_eq!(
        exchanges(&transactions),
        [(Some("GET"), Some("/1"), Some(204), Some(2000)), (Some("GET"), Some("/2"), Some(200), Some(1000))]
    );
}

#[test]
fn long_lines_are_skipped_and_long_targets_cut() {
    let mut talk = Talk::new();
    let cookie = "c".repeat(5000);
    talk.says(0, Client, format!("GET /{} HTTP/1.1\r\nCookie: {cookie}", "p".repeat(3000)));
    talk.says(0, Client, "\r\nHost: h\x7f\r\n\r\n");
    talk.says(MS, Server, OK);
    let (record, _) = talk.only();
    let http = http(&record);
    assert_eq!((http.path.as_ref().unwrap().len(), http.host.as_deref()), (1024, Some("h\\x7f")));
    assert_eq!(http.status, Some(200));
}

#[test]
fn a_request_that_waits_is_carried_into_the_next_slice() {
    let mut talk = Talk::new();
    talk.says(0, Client, "GET /1 HTTP/1.1\r\n\r\n");
    talk.says(MS, Server, OK);
    talk.says(59 * SECOND, Client, "GET /slow HTTP/1.1\r\n\r\n");
    talk.says(70 * SECOND, Server, "HTTP/1.1 504 Late\r\nContent-Length: 0\r\n\r\n");
    talk.says(71 * SECOND, Client, "GET /3 HTTP/1.1\r\n\r\n");
    talk.says(140 * SECOND, Client, "GET /4 HTTP/1.1\r\n\r\n");
    let (records, transactions) = talk.end();
    let rows: Vec<_> = records.iter().map(|r| (http(r).path.as_deref(), http(r).status, http(r).requests)).collect();
    assert_eq!(rows, [(Some("/1"), Some(200), 2), (Some("/3"), None, 1), (Some("/4"), None, 1)]);
    assert_eq!(http(&records[1]).errors, 1);
    assert_eq!(exchanges(&transactions)[1], (Some("GET"), Some("/slow"), Some(504), Some(11_000_000)));
    assert_eq!(transactions.len(), 4);
}

#[test]
fn without_being_asked_for_there_are_no_transactions() {
    let mut story = Story::new();
    story.tcp(0, &segment(Client, ACK, 1, 1).payload(b"GET / HTTP/1.1\r\n\r\n"));
    let mut transactions = Vec::new();
    story.engine.take_transactions(&mut transactions);
    assert_eq!(story.only().app, Some("http"));
    assert!(transactions.is_empty());
}
