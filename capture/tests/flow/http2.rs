//! HTTP/2 and gRPC exchanges.

use wiretag_capture::record::Http;
use wiretag_capture::{FlowRecord, Transaction};

use crate::story::*;
use crate::talk::Talk;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) fn http(record: &FlowRecord) -> &Http {
    record.http.as_deref().unwrap()
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field, added to the table.
fn field(name: &str, value: &str) -> Vec<u8> {
    [&[0x40, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
}

pub(crate) fn headers(stream: u32, last: bool, fields: &[(&str, &str)]) -> Vec<u8> {
    let block: Vec<u8> = fields.iter().flat_map(|(name, value)| field(name, value)).collect();
    frame(1, END_HEADERS | u8::from(last), stream, &block)
}

pub(crate) fn get(path: &str) -> [(&str, &str); 3] {
    [(":method", "GET"), (":path", path), (":authority", "h.example")]
}

pub(crate) fn exchanges(transactions: &[Transaction]) -> Vec<(Option<&str>, Option<u16>, Option<u64>)> {
    transactions.iter().map(|t| (t.exchange.path.as_deref(), t.exchange.status, t.exchange.latency_us)).collect()
}

#[test]
fn streams_are_matched_whatever_their_order() {
    let mut talk = Talk::new();
    talk.says(0, Client, PREFACE);
    talk.says(MS, Client, headers(1, true, &get("/1")));
    talk.says(2 * MS, Client, headers(3, false, &get("/3")));
    talk.says(3 * MS, Server, headers(3, false, &[(":status", "103")]));
    talk.says(4 * MS, Client, frame(0, END_STREAM, 3, b"body"));
    talk.says(6 * MS, Server, headers(3, true, &[(":status", "404")]));
    talk.says(9 * MS, Server, headers(1, false, &[(":status", "200")]));
    talk.says(12 * MS, Server, frame(0, END_STREAM, 1, b"answer"));
    let (record, transactions) = talk.only();
    let expected = Http {
        method: Some("GET".into()),
        host: Some("h.example".into()),
        path: Some("/1".into()),
        status: Some(200),
        latency_us: Some(8000),
        requests: 2,
        errors: 1,
    };
    assert_eq!((record.app, http(&record)), (Some("http2"), &expected));
    assert_eq!(exchanges(&transactions), [(Some("/3"), Some(404), Some(2000)), (Some("/1"), Some(200), Some(8000))]);
    assert_eq!(transactions[1].exchange.end, BEGIN + 12 * MS);
}

#[test]
fn a_failed_call_of_grpc_is_an_error() {
    let call = |status: &str| {
        let mut talk = Talk::new();
        talk.says(0, Client, PREFACE);
        let fields = [(":method", "POST"), (":path", "/shop.Cart/Add"), ("content-type", "application/grpc+proto")];
        talk.says(MS, Client, headers(1, false, &fields));
        talk.says(2 * MS, Client, frame(0, END_STREAM, 1, b"\0\0\0\0\x01x"));
        talk.says(5 * MS, Server, headers(1, false, &[(":status", "200"), ("content-type", "application/grpc")]));
        talk.says(6 * MS, Server, frame(0, 0, 1, b"\0\0\0\0\x01y"));
        talk.says(7 * MS, Server, headers(1, true, &[("grpc-status", status)]));
        talk.only()
    };
    let (record, transactions) = call("0");
    assert_eq!((record.app, http(&record).path.as_deref()), (Some("grpc"), Some("/shop.Cart/Add")));
    assert_eq!((http(&record).status, http(&record).latency_us, http(&record).errors), (Some(200), Some(3000), 0));
    assert_eq!((transactions[0].exchange.app, transactions[0].exchange.grpc_status), ("grpc", Some(0)));
    let (record, transactions) = call("14");
    assert_eq!((http(&record).errors, transactions[0].exchange.grpc_status), (1, Some(14)));
}

pub(crate) const GRPC: (&str, &str) = ("content-type", "application/grpc");

#[test]
fn a_call_of_grpc_that_is_reset_without_a_status_is_an_error() {
    let call = |answer: &[(&str, &str)], reset_by: Host| {
        let mut talk = Talk::new();
        talk.says(0, Client, PREFACE);
        talk.says(MS, Client, headers(1, true, &[(":method", "POST"), (":path", "/shop.Cart/Add"), GRPC]));
        if !answer.is_empty() {
            talk.says(2 * MS, Server, headers(1, false, answer));
        }
        talk.says(3 * MS, reset_by, frame(3, 0, 1, &[0, 0, 0, 2]));
        let (record, transactions) = talk.only();
        assert_eq!(transactions[0].exchange.app, "grpc");
        http(&record).errors
    };
    assert_eq!((call(&[], Client), call(&[(":status", "200")], Client)), (1, 1));
    assert_eq!((call(&[], Server), call(&[(":status", "200"), GRPC], Server)), (1, 1));
    // What is an error already counts once, and what has its status is none.
    assert_eq!(
        (call(&[(":status", "503")], Server), call(&[(":status", "200"), ("grpc-status", "3")], Server)),
        (1, 1)
    );
    assert_eq!(call(&[(":status", "200"), ("grpc-status", "0")], Client), 0);
}

#[test]
fn calls_after_a_segment_that_is_lost_and_repeated_keep_their_names_and_states() {
    let mut talk = Talk::new();
    let call = [(":method", "POST"), (":path", "/shop.Cart/Add"), GRPC];
    talk.says(0, Client, [PREFACE, &headers(1, true, &call)].concat());
    let data = frame(0, 0, 1, &vec![b'd'; 16_000]);
    let answer = [headers(1, false, &[(":status", "200"), GRPC]), data.repeat(10)].concat();
    let segments: Vec<_> = answer.chunks(1400).map(|bytes| talk.segment(Server, bytes)).collect();
    let (lost, rest) = segments.split_first().unwrap();
    for segment in rest {
        talk.story.tcp(2 * MS, segment);
    }
    talk.story.tcp(3 * MS, lost);
    talk.says(4 * MS, Server, headers(1, true, &[("grpc-status", "7")]));
    // All is in the tables: the names and the status, the newest first.
    for stream in [3, 5] {
        talk.says(5 * MS, Client, frame(1, END_HEADERS | END_STREAM, stream, &[0xc0, 0xbf, 0xbe]));
        let answer = [frame(1, END_HEADERS, stream, &[0xc0, 0xbf]), frame(1, 5, stream, &[0xbe])].concat();
        talk.says(6 * MS, Server, answer);
    }
    let (record, transactions) = talk.only();
    assert_eq!((record.app, http(&record).requests, http(&record).errors), (Some("grpc"), 3, 3));
    for Transaction { exchange, .. } in transactions {
        assert_eq!((exchange.path.as_deref(), exchange.grpc_status), (Some("/shop.Cart/Add"), Some(7)));
    }
}

#[test]
fn calls_of_grpc_and_plain_requests_share_a_connection() {
    let mut talk = Talk::new();
    talk.says(0, Client, PREFACE);
    talk.says(MS, Client, headers(1, true, &[(":method", "POST"), (":path", "/shop.Cart/Add"), GRPC]));
    talk.says(2 * MS, Server, headers(1, true, &[(":status", "200"), ("grpc-status", "0")]));
    talk.says(3 * MS, Client, headers(3, true, &get("/plain")));
    talk.says(4 * MS, Client, frame(3, 0, 3, &[0, 0, 0, 8]));
    talk.missed(Client, 20);
    // The content type is a reference to what was lost.
    let block = [&[0x83, 0xbe][..], &field(":path", "/shop.Cart/Get")].concat();
    talk.says(5 * MS, Client, frame(1, END_HEADERS | END_STREAM, 5, &block));
    talk.says(6 * MS, Server, headers(5, true, &[(":status", "200")]));
    let (record, transactions) = talk.only();
    assert_eq!((record.app, http(&record).errors), (Some("grpc"), 0));
    let rows: Vec<_> = transactions.iter().map(|t| (t.exchange.path.as_deref(), t.exchange.app)).collect();
    let expected = [("/shop.Cart/Add", "grpc"), ("/plain", "http2"), ("/shop.Cart/Get", "grpc")];
    assert_eq!(rows, expected.map(|(path, app)| (Some(path), app)));
}

#[test]
fn header_blocks_go_on_in_continuations_and_may_be_padded() {
    let block: Vec<u8> = get("/long").iter().flat_map(|(name, value)| field(name, value)).collect();
    let (first, rest) = block.split_at(20);
    let padded = [&[3], &[0; 5][..], first, &[0; 3]].concat();
    let mut talk = Talk::new();
    talk.says(0, Client, [PREFACE, &frame(1, END_STREAM | 0x08 | 0x20, 1, &padded)].concat());
    talk.says(MS, Client, frame(9, END_HEADERS, 1, rest));
    talk.says(2 * MS, Server, [frame(4, 0, 0, &[]), headers(1, true, &[(":status", "204")])].concat());
    let (record, _) = talk.only();
    assert_eq!((http(&record).path.as_deref(), http(&record).latency_us), (Some("/long"), Some(1000)));
}

/// RFC 9113, 8.3: a block has each once. Every repetition is a byte in the table's terms, and would be a kilobyte of
/// text here.
#[test]
fn of_a_name_that_comes_again_in_a_block_the_first_value_counts() {
    let mut fields = get("/1").to_vec();
    fields.extend([("host", "h.third"), (":path", "/2"), (":authority", "h.second"), (":method", "PUT")]);
    let mut talk = Talk::new();
    talk.says(0, Client, PREFACE);
    talk.says(MS, Client, headers(1, true, &fields));
    let (record, _) = talk.only();
    let names = [&http(&record).method, &http(&record).host, &http(&record).path];
    assert_eq!(names.map(Option::as_deref), [Some("GET"), Some("h.example"), Some("/1")]);
}

#[test]
fn http_1_becomes_http_2_by_an_upgrade() {
    let mut talk = Talk::new();
    talk.says(0, Client, "GET /up HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\n\r\n");
    let settings = frame(4, 0, 0, &[]);
    talk.says(MS, Server, [&b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\n\r\n"[..], &settings].concat());
    talk.says(2 * MS, Client, PREFACE);
    talk.says(4 * MS, Server, headers(1, true, &[(":status", "200")]));
    talk.says(5 * MS, Client, headers(3, true, &get("/3")));
    talk.says(6 * MS, Server, headers(3, true, &[(":status", "500")]));
    let (record, transactions) = talk.only();
    assert_eq!((record.app, http(&record).status, http(&record).latency_us), (Some("http2"), Some(200), Some(4000)));
    assert_eq!((http(&record).requests, http(&record).errors), (2, 1));
    assert_eq!(exchanges(&transactions), [(Some("/up"), Some(200), Some(4000)), (Some("/3"), Some(500), Some(1000))]);
}

#[test]
fn a_client_that_knows_only_http_1_is_read_though_the_server_speaks_first() {
    let mut talk = Talk::new();
    talk.says(0, Server, frame(4, 0, 0, &[0, 3, 0, 0, 0, 100]));
    talk.says(MS, Client, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n");
    talk.says(2 * MS, Server, frame(7, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 1]));
    let (record, transactions) = talk.only();
    assert_eq!((record.app, http(&record).path.as_deref(), http(&record).status), (Some("http"), Some("/1"), None));
    assert_eq!(exchanges(&transactions), [(Some("/1"), None, None)]);
}

#[test]
fn midstream_frames_are_recognised_by_a_block_that_decodes() {
    let mut talk = Talk::midstream();
    talk.says(0, Client, frame(0, 0, 5, &[7; 300]));
    talk.says(MS, Client, headers(7, true, &get("/7")));
    talk.says(3 * MS, Server, headers(7, true, &[(":status", "200")]));
    let (record, _) = talk.only();
    assert_eq!((record.app, http(&record).path.as_deref()), (Some("http2"), Some("/7")));
    assert_eq!(http(&record).latency_us, Some(2000));

    let mut talk = Talk::midstream();
    talk.says(0, Client, [0; 90]);
    talk.says(0, Server, frame(6, 0, 0, &[0; 8]));
    assert_eq!(talk.only().0.app, None);
}

#[test]
fn after_a_lost_block_old_names_are_unknown_and_new_ones_right() {
    let mut talk = Talk::new();
    talk.says(0, Client, PREFACE);
    talk.says(MS, Client, headers(1, true, &get("/1")));
    let lost = headers(3, true, &[(":path", "/lost"), ("x", "y")]);
    talk.missed(Client, lost.len() as u32);
    // :authority of the first request would be 62, but two fields were added since.
    let block = [&[0x82, 0xbe][..], &field(":path", "/5")].concat();
    talk.says(2 * MS, Server, headers(1, true, &[(":status", "200")]));
    talk.says(3 * MS, Client, frame(1, END_HEADERS | END_STREAM, 5, &block));
    talk.says(4 * MS, Server, headers(5, true, &[(":status", "200")]));
    let (record, transactions) = talk.only();
    assert_eq!(http(&record).requests, 2);
    assert_eq!(exchanges(&transactions)[1], (Some("/5"), Some(200), Some(1000)));
    assert_eq!(transactions[1].exchange.host, None);
}

#[test]
fn a_promise_is_no_request() {
    let mut talk = Talk::new();
    talk.says(0, Client, PREFACE);
    talk.says(MS, Client, headers(1, true, &get("/1")));
    let block: Vec<u8> = get("/pushed").iter().flat_map(|(name, value)| field(name, value)).collect();
    talk.says(2 * MS, Server, frame(5, END_HEADERS, 1, &[&[0, 0, 0, 2], &block[..]].concat()));
    talk.says(3 * MS, Server, headers(2, true, &[(":status", "200")]));
    talk.says(4 * MS, Server, headers(1, true, &[(":status", "404")]));
    let (record, transactions) = talk.only();
    assert_eq!((http(&record).requests, http(&record).status), (1, Some(404)));
    assert_eq!(exchanges(&transactions), [(Some("/pushed"), Some(200), None), (Some("/1"), Some(404), Some(3000))]);
}

/// The client hears of the answer after it gave up, and the server of the trailers after it answered.
#[test]
fn what_comes_on_a_stream_that_is_over_is_no_exchange() {
    let mut talk = Talk::new();
    talk.says(0, Client, PREFACE);
    talk.says(MS, Client, headers(1, true, &get("/cancelled")));
    talk.says(2 * MS, Client, frame(3, 0, 1, &[0, 0, 0, 8]));
    talk.says(2 * MS, Server, [headers(1, false, &[(":status", "500")]), frame(0, END_STREAM, 1, b"oops")].concat());
    talk.says(3 * MS, Client, headers(3, false, &get("/early")));
    talk.says(4 * MS, Server, headers(3, true, &[(":status", "413")]));
    talk.says(5 * MS, Client, headers(3, true, &[("x-checksum", "1")]));
    talk.says(6 * MS, Client, headers(5, true, &get("/next")));
    let block: Vec<u8> = get("/pushed").iter().flat_map(|(name, value)| field(name, value)).collect();
    talk.says(7 * MS, Server, frame(5, END_HEADERS, 5, &[&[0, 0, 0, 2], &block[..]].concat()));
    talk.says(8 * MS, Client, frame(3, 0, 2, &[0, 0, 0, 8]));
    talk.says(8 * MS, Server, headers(2, true, &[(":status", "200")]));
    talk.says(9 * MS, Server, headers(5, true, &[(":status", "200")]));
    let (record, transactions) = talk.only();
    assert_eq!((http(&record).requests, http(&record).errors), (3, 1));
    let rows: Vec<_> = transactions.iter().map(|t| (t.exchange.path.as_deref(), t.exchange.status)).collect();
    let expected = [("/cancelled", None), ("/early", Some(413)), ("/pushed", None), ("/next", Some(200))];
    assert_eq!(rows, expected.map(|(path, status)| (Some(path), status)));
}

#[test]
fn an_answer_whose_request_the_capture_missed_is_an_exchange_without_names() {
    let mut talk = Talk::new();
    talk.says(0, Client, PREFACE);
    talk.says(MS, Client, headers(1, true, &get("/1")));
    talk.missed(Client, headers(3, true, &get("/3")).len() as u32);
    talk.says(2 * MS, Server, headers(1, true, &[(":status", "200")]));
    talk.says(3 * MS, Client, headers(5, true, &get("/5")));
    talk.says(4 * MS, Server, headers(3, true, &[(":status", "503")]));
    talk.says(5 * MS, Server, headers(5, true, &[(":status", "200")]));
    let (record, transactions) = talk.only();
    assert_eq!((http(&record).requests, http(&record).errors), (2, 1));
    assert_eq!(exchanges(&transactions)[1..], [(None, Some(503), None), (Some("/5"), Some(200), Some(2000))]);
}

#[test]
fn a_request_whose_end_is_missing_ends_with_what_was_captured() {
    let mut talk = Talk::new();
    talk.says(0, Client, PREFACE);
    let upload = [headers(1, false, &get("/1")), frame(0, END_STREAM, 1, &[b'z'; 2000])].concat();
    let (captured, missed) = upload.split_at(1000);
    talk.says(MS, Client, captured);
    talk.missed(Client, missed.len() as u32);
    talk.says(300 * MS, Server, headers(1, true, &[(":status", "200")]));
    let (record, transactions) = talk.only();
    assert_eq!(http(&record).latency_us, Some(299_000));
    assert_eq!(exchanges(&transactions), [(Some("/1"), Some(200), Some(299_000))]);
}

pub(crate) fn lengths(transactions: &[Transaction]) -> Vec<(Option<u64>, Option<u64>)> {
    transactions.iter().map(|t| (t.exchange.request_bytes, t.exchange.response_bytes)).collect()
}

#[test]
fn messages_are_as_long_as_their_frames_of_headers_and_data() {
    let block: Vec<u8> = get("/long").iter().flat_map(|(name, value)| field(name, value)).collect();
    let (first, rest) = block.split_at(20);
    let status = [(":status", "200")];
    let mut talk = Talk::new();
    // Its request passed before the capture began.
    talk.says(0, Client, PREFACE);
    talk.says(0, Server, [headers(1, false, &status), frame(0, END_STREAM, 1, &[b'q'; 50])].concat());
    talk.says(MS, Client, [frame(1, 0, 3, first), frame(9, END_HEADERS, 3, rest)].concat());
    talk.says(MS, Client, frame(0, END_STREAM, 3, &[b'z'; 100]));
    let answer = headers(3, false, &status);
    let (begin, end) = answer[9..].split_at(4);
    talk.says(2 * MS, Server, [frame(1, 0, 3, begin), frame(9, END_HEADERS, 3, end), frame(0, 1, 3, b"ok")].concat());
    let head = answer.len() as u64 - 9;
    let (_, transactions) = talk.only();
    let expected = [(None, Some(head + 50)), (Some(block.len() as u64 + 100), Some(head + 2))];
    assert_eq!(lengths(&transactions), expected);
}

#[test]
fn how_long_a_message_is_of_which_frames_are_missing_is_not_known() {
    let status = [(":status", "200")];
    let mut talk = Talk::new();
    talk.says(0, Client, PREFACE);
    talk.says(MS, Client, headers(1, true, &get("/download")));
    talk.says(MS, Client, headers(3, false, &get("/upload")));
    talk.missed(Client, 109);
    talk.says(2 * MS, Client, frame(0, END_STREAM, 3, b"end"));
    talk.says(3 * MS, Server, headers(1, false, &status));
    talk.missed(Server, 109);
    talk.says(4 * MS, Server, [frame(0, END_STREAM, 1, b"end"), headers(3, true, &status)].concat());
    talk.says(5 * MS, Client, headers(5, true, &get("/next")));
    talk.says(6 * MS, Server, headers(5, true, &status));
    let (_, transactions) = talk.only();
    let [download, upload, next] = lengths(&transactions)[..] else { panic!("{transactions:#?}") };
    assert_eq!((download, upload.0), ((next.0.map(|bytes| bytes + 4), None), None));
    assert!(upload.1.is_some() && next.1.is_some(), "{upload:?} {next:?}");
}

#[test]
fn how_long_a_request_is_that_goes_on_after_its_answer_is_not_known() {
    let mut talk = Talk::new();
    talk.says(0, Client, PREFACE);
    talk.says(MS, Client, [headers(1, false, &get("/upload")), frame(0, 0, 1, &[b'z'; 1000])].concat());
    talk.says(2 * MS, Server, headers(1, true, &[(":status", "413")]));
    talk.says(3 * MS, Client, frame(0, END_STREAM, 1, &[b'z'; 9000]));
    let (_, transactions) = talk.only();
    assert!(transactions[0].exchange.complete && lengths(&transactions)[0].0.is_none(), "{transactions:?}");
}

#[test]
fn an_exchange_is_complete_with_the_end_of_its_final_answer() {
    let mut talk = Talk::new();
    talk.says(0, Client, PREFACE);
    for (stream, last) in [(1, true), (3, false), (5, false)] {
        talk.says(MS, Client, headers(stream, true, &get("/1")));
        talk.says(2 * MS, Server, headers(stream, last, &[(":status", "200")]));
    }
    talk.says(3 * MS, Server, frame(3, 0, 3, &[0, 0, 0, 2]));
    let complete = |talk: Talk| talk.only().1.iter().map(|t| t.exchange.complete).collect::<Vec<_>>();
    assert_eq!(complete(talk), [true, false, false]);
    // What says that the connection goes on as HTTP/2 is no answer.
    let mut talk = Talk::new();
    talk.says(0, Client, "GET /up HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\n\r\n");
    talk.says(MS, Server, "HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\n\r\n");
    assert_eq!(complete(talk), [false]);
}

fn times(transactions: &[Transaction]) -> Vec<(i64, i64)> {
    transactions.iter().map(|t| ((t.exchange.start - BEGIN) / MS, (t.exchange.end - BEGIN) / MS)).collect()
}

#[test]
fn an_exchange_lasts_from_its_first_byte_to_its_last() {
    let block: Vec<u8> = get("/slow").iter().flat_map(|(name, value)| field(name, value)).collect();
    let (first, rest) = block.split_at(20);
    let mut talk = Talk::new();
    talk.says(0, Client, PREFACE);
    // Even of a frame's header the end comes later.
    let request = [frame(1, END_STREAM, 1, first), frame(9, END_HEADERS, 1, rest)].concat();
    for (at, part) in [(1, &request[..5]), (2, &request[5..40]), (3, &request[40..])] {
        talk.says(at * MS, Client, part);
    }
    let status = field(":status", "200");
    let answer = [frame(1, 0, 1, &status[..3]), frame(9, END_HEADERS, 1, &status[3..])].concat();
    let (head, tail) = answer.split_at(12);
    talk.says(13 * MS, Server, head);
    talk.says(14 * MS, Server, tail);
    let data = frame(0, END_STREAM, 1, &[b'd'; 300]);
    for (at, part) in (15..).zip(data.chunks(100)) {
        talk.says(at * MS, Server, part);
    }
    let (record, transactions) = talk.only();
    assert_eq!((http(&record).latency_us, &times(&transactions)[..]), (Some(10_000), &[(1, 18)][..]));
}

#[test]
fn a_reset_and_what_came_of_an_unfinished_frame_belong_to_the_exchange() {
    let mut talk = Talk::new();
    talk.says(0, Client, PREFACE);
    for (at, stream) in [(1, 1), (2, 3), (3, 5)] {
        talk.says(at * MS, Client, headers(stream, true, &get("/1")));
    }
    talk.says(5 * MS, Client, frame(3, 0, 1, &[0, 0, 0, 8]));
    let answers = [headers(3, false, &[(":status", "200")]), headers(5, false, &[(":status", "200")])].concat();
    talk.says(6 * MS, Server, [answers, frame(0, 0, 3, &[b'd'; 10])].concat());
    talk.says(7 * MS, Server, &frame(0, 0, 5, &[b'd'; 300])[..100]);
    talk.says(8 * MS, Server, [b'd'; 100]);
    talk.says(9 * MS, Client, frame(3, 0, 5, &[0, 0, 0, 8]));
    let (_, transactions) = talk.only();
    assert_eq!(times(&transactions), [(1, 5), (3, 9), (2, 6)]);
    let head = headers(1, false, &[(":status", "200")]).len() as u64 - 9;
    let answers: Vec<_> = lengths(&transactions).iter().map(|(_, answer)| *answer).collect();
    assert_eq!(answers, [None, Some(head + 191), Some(head + 10)]);

    let mut talk = Talk::new();
    talk.says(0, Client, [PREFACE, &headers(1, false, &get("/1"))].concat());
    talk.says(MS, Client, &frame(0, 0, 1, &[b'd'; 300])[..100]);
    talk.says(2 * MS, Client, [b'd'; 100]);
    assert_eq!(times(&talk.only().1), [(0, 2)]);
}

#[test]
fn what_waits_for_missing_bytes_is_read_at_the_end() {
    let mut talk = Talk::new();
    talk.says(0, Client, PREFACE);
    talk.says(MS, Client, headers(1, true, &get("/1")));
    talk.says(2 * MS, Server, headers(1, false, &[(":status", "200")]));
    talk.missed(Server, 500);
    talk.says(3 * MS, Server, headers(1, true, &[("grpc-status", "2")]));
    let (record, transactions) = talk.only();
    assert_eq!((http(&record).errors, transactions[0].exchange.grpc_status), (1, Some(2)));
}
