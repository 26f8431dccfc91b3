//! HTTP/1 exchanges of which the capture missed something.

use wiretag_capture::{FlowRecord, Transaction};

use crate::http::{OK, exchanges, http};
use crate::story::*;
use crate::talk::Talk;

/// An answer of which the first segment is lost on its way and repeated when so many bytes behind it have passed, in pieces of so
/// many.
fn lost_and_repeated(window: usize, piece: usize) -> (FlowRecord, Vec<Transaction>) {
    let mut talk = Talk::new();
    talk.says(0, Client, "GET /1 HTTP/1.1\r\n\r\n");
    let answer = [&b"HTTP/1.1 500 No\r\nContent-Length: 1000000\r\n\r\n"[..], &vec![b'z'; 1_000_000]].concat();
    let (first, rest) = answer.split_at(1400);
    let lost = talk.segment(Server, first);
    let (in_flight, rest) = rest.split_at(window);
    in_flight.chunks(piece).for_each(|piece| talk.says(2 * MS, Server, piece));
    talk.story.tcp(5 * MS, &lost);
    rest.chunks(piece).for_each(|piece| talk.says(6 * MS, Server, piece));
    talk.says(10 * MS, Client, "GET /2 HTTP/1.1\r\n\r\n");
    talk.says(11 * MS, Server, "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
    talk.only()
}

#[test]
fn a_segment_that_is_repeated_after_a_window_takes_nothing() {
    for (window, piece) in [(20_000, 1400), (20_000, 20_000), (450_000, 1400), (450_000, 60_000)] {
        let (record, transactions) = lost_and_repeated(window, piece);
        assert_eq!((http(&record).requests, http(&record).errors), (2, 2), "{window}");
        let rows = [(Some("GET"), Some("/1"), Some(500), Some(5000)), (Some("GET"), Some("/2"), Some(404), Some(1000))];
        assert_eq!(exchanges(&transactions), rows, "{window}");
        assert_eq!(transactions[0].exchange.response_bytes, Some(1_000_044));
    }
}

#[test]
fn where_more_is_in_flight_than_is_kept_the_next_message_is_found() {
    let (record, transactions) = lost_and_repeated(900_000, 60_000);
    assert_eq!((http(&record).requests, http(&record).errors), (2, 1));
    let rows = [(Some("GET"), Some("/1"), None, None), (Some("GET"), Some("/2"), Some(404), Some(1000))];
    assert_eq!(exchanges(&transactions), rows);
}

#[test]
fn what_is_missing_in_a_body_is_subtracted() {
    let mut talk = Talk::new();
    talk.says(0, Client, "GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n");
    talk.says(MS, Server, "HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n");
    talk.missed(Server, 2000);
    talk.says(2 * MS, Server, [&vec![b'z'; 1000][..], b"HTTP/1.1 404 No\r\n\r\n"].concat());
    let (_, transactions) = talk.only();
    assert_eq!(exchanges(&transactions)[1], (Some("GET"), Some("/2"), Some(404), Some(2000)));
}

#[test]
fn a_request_whose_end_is_missing_ends_with_what_was_captured() {
    let mut talk = Talk::new();
    talk.says(0, Client, "PUT /1 HTTP/1.1\r\nContent-Length: 3000\r\n\r\n");
    talk.says(2 * MS, Client, vec![b'z'; 1000]);
    talk.missed(Client, 2000);
    talk.says(5 * MS, Server, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
    let (_, transactions) = talk.only();
    assert_eq!(exchanges(&transactions), [(Some("PUT"), Some("/1"), Some(201), Some(3000))]);
}

#[test]
fn after_a_gap_in_a_head_the_next_one_is_found() {
    let mut talk = Talk::new();
    talk.says(0, Client, "GET /1 HTTP/1.1\r\nCookie: ");
    talk.missed(Client, 700);
    // The answer acknowledges what the capture missed.
    talk.says(2 * MS, Server, OK);
    talk.says(3 * MS, Client, "GET /2 HTTP/1.1\r\n\r\n");
    talk.says(5 * MS, Server, OK);
    let (record, transactions) = talk.only();
    assert_eq!((http(&record).requests, http(&record).path.as_deref()), (2, Some("/1")));
    assert_eq!(exchanges(&transactions).last(), Some(&(Some("GET"), Some("/2"), Some(200), Some(2000))));
}

/// Requests to /1, /2, … a second apart, each answered after 5 ms, of which the capture missed some messages, and of
/// the others what is behind so many bytes of each segment.
fn keep_alive(snap: usize, missed: &[(Host, usize)]) -> Vec<Transaction> {
    let mut talk = Talk::new();
    for number in 1..=5 {
        let at = number as i64 * SECOND;
        let request = format!("GET /{number} HTTP/1.1\r\nCookie: biscuit; and=another\r\n\r\n");
        let (begin, end) = request.split_at(33);
        let answer = format!("HTTP/1.1 21{number} OK\r\nContent-Length: 5\r\n\r\nhello");
        for (from, at, text) in [(Client, at, begin), (Client, at + MS, end), (Server, at + 6 * MS, &answer)] {
            if missed.contains(&(from, number)) {
                talk.missed(from, text.len() as u32);
                continue;
            }
            let captured = text.get(..snap).unwrap_or(text);
            let mut segment = talk.segment(from, captured.as_bytes());
            talk.missed(from, (text.len() - captured.len()) as u32);
            segment.length = text.len() as u32;
            talk.story.tcp(at, &segment);
        }
    }
    talk.only().1
}

#[test]
fn a_lost_answer_takes_nothing_from_later_requests() {
    let transactions = keep_alive(100, &[(Server, 2)]);
    assert_eq!(
        exchanges(&transactions),
        [
            (Some("GET"), Some("/1"), Some(211), Some(5000)),
            (Some("GET"), Some("/2"), None, None),
            (Some("GET"), Some("/3"), Some(213), Some(5000)),
            (Some("GET"), Some("/4"), Some(214), Some(5000)),
            (Some("GET"), Some("/5"), Some(215), Some(5000)),
        ]
    );
    assert_eq!(transactions[1].exchange.end, BEGIN + 2 * SECOND + MS);
    // So it is where a snap length leaves only the beginnings.
    let cut = keep_alive(24, &[(Server, 2)]);
    let rows: Vec<_> = exchanges(&cut).into_iter().map(|(_, _, status, latency)| (status, latency)).collect();
    let answered = |status| (Some(status), Some(5000));
    assert_eq!(rows, [answered(211), (None, None), answered(213), answered(214), answered(215)]);
    let several = keep_alive(100, &[(Server, 2), (Server, 3)]);
    let statuses: Vec<_> = several.iter().map(|transaction| transaction.exchange.status).collect();
    assert_eq!(statuses, [Some(211), None, None, Some(214), Some(215)]);
}

#[test]
fn a_lost_request_gives_its_answer_to_no_other() {
    let transactions = keep_alive(100, &[(Client, 2)]);
    assert_eq!(
        exchanges(&transactions)[1..3],
        [(None, None, Some(212), None), (Some("GET"), Some("/3"), Some(213), Some(5000))]
    );
    let both = keep_alive(100, &[(Client, 2), (Server, 2)]);
    let rows: Vec<_> = exchanges(&both).into_iter().map(|(_, _, status, latency)| (status, latency)).collect();
    assert_eq!(rows, [211, 213, 214, 215].map(|status| (Some(status), Some(5000))));
    // The next requests are lost with the answer: what comes then is not the answer to the one that was seen.
    let unseen = |status| (None, None, Some(status), None);
    let seen = (Some("GET"), Some("/2"), None, None);
    let next = keep_alive(100, &[(Server, 2), (Client, 3)]);
    let expected = [unseen(213), seen, (Some("GET"), Some("/4"), Some(214), Some(5000))];
    assert_eq!(exchanges(&next)[1..4], expected);
    let more = keep_alive(100, &[(Server, 2), (Client, 3), (Server, 3), (Client, 4)]);
    let expected = [unseen(214), seen, (Some("GET"), Some("/5"), Some(215), Some(5000))];
    assert_eq!(exchanges(&more)[1..], expected);
}

/// Requests to /0, /1, … each answered after 5 ms with its number as the status from 400 on, some answers of which are
/// missed.
fn many(mut talk: Talk, missed: impl Fn(u16) -> bool) {
    const REQUESTS: u16 = 200;
    for number in 0..REQUESTS {
        let at = i64::from(number) * SECOND / 10;
        talk.says(at, Client, format!("GET /{number} HTTP/1.1\r\n\r\n"));
        let answer = format!("HTTP/1.1 {} OK\r\nContent-Length: 5\r\n\r\nhello", 400 + number);
        if missed(number) {
            talk.missed(Server, answer.len() as u32);
        } else {
            talk.says(at + 5 * MS, Server, answer);
        }
    }
    let (record, transactions) = talk.only();
    assert_eq!((http(&record).requests, transactions.len()), (REQUESTS.into(), REQUESTS.into()));
    for (number, transaction) in (0..).zip(&transactions) {
        let exchange = &transaction.exchange;
        let (status, latency) = if missed(number) { (None, None) } else { (Some(400 + number), Some(5000)) };
        assert_eq!(exchange.path.as_deref(), Some(format!("/{number}").as_str()));
        assert_eq!((exchange.status, exchange.latency_us), (status, latency), "{number}");
    }
}

#[test]
fn more_lost_answers_than_requests_have_places_take_nothing_from_later_requests() {
    many(Talk::new(), |number| (10..110).contains(&number));
    // Of the server nothing is captured at all.
    many(Talk::midstream(), |_| true);
}

fn answer(status: u16) -> String {
    format!("HTTP/1.1 {status} OK\r\nContent-Length: 0\r\n\r\n")
}

/// A talk in which 100 requests were sent at once.
fn pipelined() -> Talk {
    let mut talk = Talk::new();
    for number in 0..100 {
        talk.says(number * MS / 100, Client, format!("GET /{number} HTTP/1.1\r\n\r\n"));
    }
    talk
}

#[test]
fn a_pipeline_of_more_requests_than_have_places_keeps_its_order() {
    let mut talk = pipelined();
    for number in 0..100 {
        talk.says(5 * MS, Server, answer(400 + number));
    }
    talk.says(6 * MS, Client, "GET /later HTTP/1.1\r\n\r\n");
    talk.says(7 * MS, Server, answer(201));
    let (_, transactions) = talk.only();
    let rows: Vec<_> = transactions.iter().map(|t| (t.exchange.path.as_deref(), t.exchange.status)).collect();
    assert_eq!((rows.len(), rows[0], rows[63]), (101, (Some("/0"), Some(400)), (Some("/63"), Some(463))));
    assert_eq!((rows[64], rows[100]), ((None, Some(464)), (Some("/later"), Some(201))));
}

#[test]
fn a_pipeline_with_a_lost_answer_is_over_when_who_asks_later_is_answered() {
    let mut talk = pipelined();
    talk.says(5 * MS, Server, answer(400));
    talk.missed(Server, answer(401).len() as u32);
    talk.says(6 * MS, Client, "GET /more HTTP/1.1\r\n\r\n");
    for number in 2..=100 {
        talk.says(7 * MS, Server, answer(400 + number));
    }
    talk.says(8 * MS, Client, "GET /later HTTP/1.1\r\n\r\n");
    talk.says(9 * MS, Server, answer(201));
    let (_, transactions) = talk.only();
    let of = |path| &transactions.iter().find(|t| t.exchange.path.as_deref() == Some(path)).unwrap().exchange;
    assert_eq!((of("/0").status, of("/1").status, of("/63").status), (Some(400), None, None));
    assert_eq!((of("/later").status, of("/later").latency_us), (Some(201), Some(1000)));
}

#[test]
fn a_gap_over_the_end_of_an_answer_and_the_beginning_of_the_next_takes_both() {
    let mut talk = Talk::new();
    talk.says(0, Client, "GET /1 HTTP/1.1\r\n\r\n");
    talk.says(MS, Server, "HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n");
    talk.missed(Server, 3000);
    talk.says(SECOND, Client, "GET /2 HTTP/1.1\r\n\r\n");
    talk.missed(Server, 100);
    talk.says(SECOND + MS, Server, vec![b'z'; 900]);
    talk.says(2 * SECOND, Client, "GET /3 HTTP/1.1\r\n\r\n");
    talk.says(2 * SECOND + MS, Server, OK);
    let (_, transactions) = talk.only();
    assert_eq!(
        exchanges(&transactions),
        [
            (Some("GET"), Some("/1"), Some(200), Some(1000)),
            (Some("GET"), Some("/2"), None, None),
            (Some("GET"), Some("/3"), Some(200), Some(1000)),
        ]
    );
}

#[test]
fn which_of_the_pipelined_requests_is_answered_after_a_gap_is_not_known() {
    let mut talk = Talk::new();
    talk.says(0, Client, "GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n");
    talk.missed(Server, 43);
    talk.says(MS, Client, "GET /3 HTTP/1.1\r\n\r\n");
    talk.missed(Client, 20);
    talk.says(2 * MS, Server, OK);
    let (_, transactions) = talk.only();
    assert_eq!(exchanges(&transactions)[0], (Some("GET"), Some("/1"), None, None));

    // Of the requests one is missing.
    let mut talk = Talk::new();
    talk.says(0, Client, "GET /1 HTTP/1.1\r\n\r\n");
    talk.missed(Client, 20);
    let early = talk.segment(Client, b"GET /3 HTTP/1.1\r\n\r\n");
    talk.story.tcp(MS, &early);
    talk.says(2 * MS, Server, OK);
    talk.says(3 * MS, Server, OK);
    let (_, transactions) = talk.only();
    assert_eq!(
        exchanges(&transactions),
        [(Some("GET"), Some("/1"), Some(200), Some(2000)), (Some("GET"), Some("/3"), Some(200), None)]
    );
}

/// A client that pipelines, of whose requests the first is missing: the first answer is that.
#[test]
fn the_first_of_the_pipelined_requests_may_be_lost() {
    for before in [false, true] {
        let mut talk = Talk::new();
        if before {
            talk.says(0, Client, "GET /before HTTP/1.1\r\n\r\n");
            talk.says(MS, Server, OK);
        }
        talk.missed(Client, 20);
        for (path, at) in [("/1", 10), ("/2", 11)] {
            talk.says(at * MS, Client, format!("GET {path} HTTP/1.1\r\n\r\n"));
        }
        talk.says(12 * MS, Server, "");
        for at in [20, 30, 40] {
            talk.says(at * MS, Server, OK);
        }
        // The next is alone again.
        talk.says(50 * MS, Client, "GET /3 HTTP/1.1\r\n\r\n");
        talk.says(60 * MS, Server, OK);
        let (_, transactions) = talk.only();
        let get = |path, latency| (Some("GET"), Some(path), Some(200), latency);
        let expected = [get("/1", None), get("/2", None), (None, None, Some(200), None), get("/3", Some(10_000))];
        assert_eq!(exchanges(&transactions)[usize::from(before)..], expected);
    }
}

#[test]
fn heads_cut_by_the_snap_length_count() {
    let mut talk = Talk::new();
    for (at, path) in [(0, "/1"), (10, "/2")] {
        let mut request = talk.segment(Client, format!("GET {path} HTTP/1.1\r\nHost: h\r\nCook").as_bytes());
        request.length += 500;
        talk.missed(Client, 500);
        talk.story.tcp(at * MS, &request);
        let mut answer = talk.segment(Server, b"HTTP/1.1 200 OK\r\nConte");
        answer.length += 1000;
        talk.missed(Server, 1000);
        talk.story.tcp((at + 3) * MS, &answer);
    }
    let (record, transactions) = talk.only();
    assert_eq!((http(&record).requests, http(&record).host.as_deref()), (2, Some("h")));
    assert_eq!(
        exchanges(&transactions),
        [(Some("GET"), Some("/1"), Some(200), Some(3000)), (Some("GET"), Some("/2"), Some(200), Some(3000))]
    );
    // How long they are is not known.
    let lengths = transactions.iter().map(|transaction| &transaction.exchange);
    assert!(lengths.map(|exchange| (exchange.request_bytes, exchange.response_bytes)).all(|both| both == (None, None)));
}

/// The lengths of the cuts are known, and nothing of a whole message is in them.
#[test]
fn of_pipelined_requests_cut_by_the_snap_length_each_keeps_its_answer() {
    for requests in [2, 100] {
        let mut talk = Talk::new();
        let mut cut = |at: i64, from: Host, text: &str| {
            let mut segment = talk.segment(from, text.as_bytes());
            segment.length += 500;
            talk.missed(from, 500);
            talk.story.tcp(at, &segment);
        };
        for number in 0..requests {
            cut(number * MS, Client, &format!("GET /{number} HTTP/1.1\r\nCook"));
            cut(number * MS + 1, Client, "ie");
        }
        for number in 0..requests {
            cut((requests + number) * MS, Server, &format!("HTTP/1.1 {} OK\r\nConte", 400 + number));
        }
        let (_, transactions) = talk.only();
        assert_eq!(transactions.len() as i64, requests);
        for (number, transaction) in (0..requests).zip(&transactions) {
            assert_eq!(transaction.exchange.status, Some(400 + number as u16));
            let path = format!("/{number}");
            let placed = number < 64;
            assert_eq!(transaction.exchange.path.as_deref(), placed.then_some(path.as_str()));
        }
    }
}

/// What is left of a version is no part of the target, and what may be a password is not told.
#[test]
fn a_request_line_cut_by_the_snap_length_is_one() {
    for (line, host, path) in [
        ("GET /very/long/pa", None, "/very/long/pa"),
        ("GET /pa HTT", None, "/pa"),
        ("GET http://h.example HT", Some("h.example"), "http://h.example"),
        ("GET http://bob:secr", None, "http://"),
        ("GET http://bob:secret@h.example/pa", Some("h.example"), "http://h.example/pa"),
    ] {
        let mut talk = Talk::new();
        let mut request = talk.segment(Client, line.as_bytes());
        request.length += 900;
        talk.missed(Client, 900);
        talk.story.tcp(0, &request);
        let (record, _) = talk.only();
        assert_eq!((record.app, http(&record).path.as_deref()), (Some("http"), Some(path)), "{line}");
        assert_eq!(http(&record).host.as_deref(), host, "{line}");
    }
}

/// The capture misses so much of the answers at once; what follows is alone in its window each time, as on a quiet connection.
#[test]
fn a_long_loss_of_answers_takes_nothing_from_later_requests() {
    for missed in [15 << 20, 17 << 20, 1 << 30] {
        let mut talk = Talk::new();
        talk.says(0, Client, "GET /1 HTTP/1.1\r\n\r\n");
        talk.says(5 * MS, Server, OK);
        talk.missed(Client, 30_000);
        talk.missed(Server, missed);
        for at in (10..30).map(|at| 10 * at * MS) {
            talk.says(at, Client, "GET /2 HTTP/1.1\r\n\r\n");
            talk.says(at + 5 * MS, Server, answer(500));
        }
        let (record, transactions) = talk.only();
        assert_eq!((http(&record).requests, http(&record).errors), (21, 20), "{missed}");
        let failed = (Some("GET"), Some("/2"), Some(500), Some(5000));
        assert!(exchanges(&transactions)[1..].iter().all(|row| *row == failed), "{missed}: {transactions:?}");
    }
}

/// A download of which most is missed, and the requests that were sent meanwhile; only one side is captured then.
#[test]
fn a_long_loss_in_both_directions_takes_nothing_from_later_requests() {
    for seen in [&[Client, Server][..], &[Client]] {
        let mut talk = Talk::new();
        talk.says(0, Client, "GET /1 HTTP/1.1\r\n\r\n");
        talk.says(5 * MS, Server, OK);
        talk.missed(Client, 20 << 20);
        talk.missed(Server, 20 << 20);
        for at in (10..30).map(|at| 10 * at * MS) {
            for (from, after, text) in [(Client, 0, "GET /2 HTTP/1.1\r\n\r\n"), (Server, 5 * MS, OK)] {
                if seen.contains(&from) {
                    talk.says(at + after, from, text);
                } else {
                    talk.missed(from, OK.len() as u32);
                }
            }
        }
        let (record, _) = talk.only();
        assert_eq!(http(&record).requests, 21, "{seen:?}");
    }
}
