//! Many requests of HTTP/2 under way at once.

use crate::http2::{END_STREAM, GRPC, PREFACE, frame, get, headers, http};
use crate::story::*;
use crate::talk::Talk;

#[test]
fn as_many_streams_as_servers_allow_are_matched() {
    let mut talk = Talk::new();
    talk.says(0, Client, PREFACE);
    let streams = (0..250_u32).map(|at| 2 * at + 1);
    for stream in streams.clone() {
        talk.says(i64::from(stream) * MS, Client, headers(stream, true, &get(&format!("/{stream}"))));
    }
    // Answered from both ends, so that none is where it was added.
    let answered = streams.clone().take(125).zip(streams.rev()).flat_map(|(low, high)| [high, low]);
    for (stream, at) in answered.zip(1000..) {
        talk.says(at * MS, Server, headers(stream, true, &[(":status", "200")]));
    }
    let (record, transactions) = talk.only();
    assert_eq!((http(&record).requests, http(&record).status), (250, Some(200)));
    assert_eq!(transactions.len(), 250);
    assert!(transactions.iter().all(|t| t.exchange.complete && t.exchange.path.is_some()), "{transactions:?}");
}

/// So many calls that are all asked before the first answer; of the answers the first hundred failed.
fn calls(count: u32) -> Talk {
    let mut talk = Talk::new();
    talk.says(0, Client, PREFACE);
    let streams = (0..count).map(|at| 2 * at + 1);
    for stream in streams.clone() {
        talk.says(MS, Client, headers(stream, true, &[(":method", "POST"), (":path", "/shop.Cart/Add"), GRPC]));
    }
    for stream in streams {
        let status = if stream < 200 { "5" } else { "0" };
        talk.says(5 * MS, Server, headers(stream, false, &[(":status", "200"), GRPC]));
        talk.says(6 * MS, Server, headers(stream, true, &[("grpc-status", status)]));
    }
    talk
}

/// A download, of whose frames so many are missed, and then calls that fail.
#[test]
fn a_long_loss_of_data_takes_nothing_from_later_streams() {
    for missed in [12, 20, 900] {
        let mut talk = Talk::new();
        talk.says(0, Client, PREFACE);
        talk.says(MS, Client, headers(1, true, &get("/large")));
        talk.says(2 * MS, Server, headers(1, false, &[(":status", "200")]));
        let data = frame(0, 0, 1, &[b'x'; 1391]);
        for _ in 0..2 {
            (0..20).for_each(|at| talk.says((3 + at) * MS, Server, &data));
            talk.missed(Server, missed * 1400 * 800);
        }
        talk.says(30 * MS, Server, frame(0, END_STREAM, 1, &[b'x'; 100]));
        for stream in (1..51).map(|at| 2 * at + 1) {
            talk.says((100 + i64::from(stream)) * MS, Client, headers(stream, true, &get("/small")));
            talk.says((101 + i64::from(stream)) * MS, Server, headers(stream, true, &[(":status", "500")]));
        }
        let (record, _) = talk.only();
        assert_eq!((http(&record).requests, http(&record).errors), (51, 50), "{missed}");
    }
}

#[test]
fn of_very_many_only_the_names_go() {
    let (record, transactions) = calls(1500).only();
    assert_eq!((http(&record).requests, http(&record).errors, transactions.len()), (1500, 100, 1500));
    assert!(transactions.iter().all(|t| t.exchange.complete && t.exchange.latency_us == Some(4000)));
    let failed = transactions.iter().filter(|t| t.exchange.grpc_status == Some(5));
    assert_eq!(failed.filter(|t| t.exchange.path.is_some()).count(), 100);
    assert_eq!(transactions.iter().filter(|t| t.exchange.path.is_some()).count(), 1024);
}

#[test]
fn an_answer_to_a_request_that_was_given_up_counts_as_an_error() {
    let (record, transactions) = calls(4150).only();
    assert_eq!((http(&record).requests, http(&record).errors, transactions.len()), (4150, 100, 4150));
    assert_eq!(transactions.iter().filter(|t| !t.exchange.complete).count(), 54);
}

#[test]
fn what_never_ends_is_bounded() {
    let mut talk = Talk::new();
    talk.says(0, Client, PREFACE);
    for stream in 0..200 {
        talk.says(MS, Client, headers(2 * stream + 1, true, &get("/watch")));
    }
    let (record, transactions) = talk.only();
    assert_eq!((http(&record).requests, transactions.len()), (200, 200));
}
