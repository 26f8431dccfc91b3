//! However a conversation is cut into segments, and whatever happens to its bytes.

use proptest::prelude::*;
use wiretag_capture::{FlowRecord, Transaction};

use crate::http2::{PREFACE, frame, headers};
use crate::story::*;
use crate::talk::Talk;

type Script = Vec<(Host, Vec<u8>)>;

fn dns_message(id: u16, response: bool, name: &[u8]) -> Vec<u8> {
    let flags = if response { 0x80 } else { 0 };
    let [high, low] = id.to_be_bytes();
    let mut message = vec![high, low, 1 | flags, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.len() as u8];
    message.extend(name);
    message.extend(b"\x03org\0\0\x01\0\x01");
    [&(message.len() as u16).to_be_bytes()[..], &message].concat()
}

/// Conversations of each protocol.
fn scripts() -> Vec<Script> {
    let http1 = vec![
        (Client, b"POST /1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec()),
        (Server, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody".to_vec()),
        (Client, b"HEAD /2 HTTP/1.1\r\nHost: h\r\n\r\n\r\nGET http://a/3 HTTP/1.1\r\nX: y\r\n\r\n".to_vec()),
        (Server, b"HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\nHTTP/1.0 500 Oops\r\n\r\nuntil close".to_vec()),
    ];
    let long = vec![
        (
            Client,
            format!("GET /{} HTTP/1.1\r\nCookie: {}\r\nHost: h\r\n\r\n", "p".repeat(1400), "c".repeat(1400)).into(),
        ),
        (Server, b"HTTP/1.1 204 None\r\n\r\n".to_vec()),
    ];
    let upgrade = vec![
        (Client, b"GET /1 HTTP/1.1\r\nUpgrade: h2c\r\n\r\n".to_vec()),
        (
            Server,
            [&b"HTTP/1.1 101 x\r\n\r\n"[..], &frame(4, 0, 0, &[]), &headers(1, true, &[(":status", "200")])].concat(),
        ),
        (Client, [PREFACE, &headers(3, true, &[(":method", "GET"), (":path", "/3")])].concat()),
        (Server, [headers(3, false, &[(":status", "500")]), frame(0, 1, 3, &[9; 40])].concat()),
    ];
    let grpc = vec![
        (
            Client,
            [
                PREFACE,
                &headers(1, false, &[(":method", "POST"), (":path", "/a.B/C"), ("content-type", "application/grpc")]),
                &frame(0, 1, 1, &[0; 60]),
            ]
            .concat(),
        ),
        (Server, [frame(4, 0, 0, &[]), headers(1, false, &[(":status", "200")]), frame(0, 0, 1, &[0; 50])].concat()),
        (Server, headers(1, true, &[("grpc-status", "5")])),
    ];
    let dns = vec![
        (Client, [dns_message(1, false, b"one"), dns_message(2, false, b"two")].concat()),
        (Server, [dns_message(2, true, b"two"), dns_message(1, true, b"one")].concat()),
    ];
    vec![http1, long, upgrade, grpc, dns]
}

fn play(script: &Script, cuts: &[usize], port: u16) -> (FlowRecord, Vec<Transaction>) {
    let mut talk = Talk::on(port);
    let mut cuts = cuts.iter().copied().cycle();
    for ((from, bytes), at) in script.iter().zip(0..) {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(cuts.next().unwrap().clamp(1, rest.len()));
            talk.says(at * MS, *from, piece);
            rest = after;
        }
    }
    let (record, transactions) = talk.only();
    (record, transactions)
}

proptest! {
    #[test]
    fn any_cut_gives_the_same(which in 0_usize..5, cuts in prop::collection::vec(prop_oneof![1_usize..4, 1_usize..60, 1_usize..2000], 1..40)) {
        let script = &scripts()[which];
        let (whole, expected) = play(script, &[1 << 20], 53);
        let (record, transactions) = play(script, &cuts, 53);
        prop_assert_eq!(record.app, whole.app);
        prop_assert_eq!(record.http, whole.http);
        prop_assert_eq!(record.dns, whole.dns);
        prop_assert!(!transactions.is_empty());
        prop_assert_eq!(transactions, expected);
    }

    #[test]
    fn segments_in_any_order_nearby_give_the_same(
        which in 0_usize..5,
        size in 30_usize..300,
        swaps in prop::collection::vec(0_usize..30, 0..12),
        again in prop::collection::vec(0_usize..30, 0..4),
    ) {
        let script = &scripts()[which];
        let (whole, expected) = play(script, &[1 << 20], 53);
        let mut talk = Talk::on(53);
        for ((from, bytes), at) in script.iter().zip(0..) {
            let mut segments: Vec<_> = bytes.chunks(size).map(|part| talk.segment(*from, part)).collect();
            for index in &again {
                segments.extend(segments.get(*index).filter(|_| *index < 6).cloned());
            }
            for &index in &swaps {
                if index + 1 < segments.len().min(6) {
                    segments.swap(index, index + 1);
                }
            }
            for segment in &segments {
                talk.story.tcp(at * MS, segment);
            }
        }
        let (record, transactions) = talk.only();
        prop_assert_eq!(record.http, whole.http);
        prop_assert_eq!(record.dns, whole.dns);
        prop_assert_eq!(transactions, expected);
    }

    #[test]
    fn damage_is_survived(
        which in 0_usize..5,
        cuts in prop::collection::vec(1_usize..300, 1..20),
        flips in prop::collection::vec((0_usize..2000, 0_u8..8), 0..6),
        missing in prop::collection::vec(any::<bool>(), 1..30),
        snap in 1_usize..400,
    ) {
        let mut talk = Talk::new();
        let (mut cuts, mut missing) = (cuts.iter().copied().cycle(), missing.iter().copied().cycle());
        for ((from, bytes), at) in scripts()[which].iter().zip(0..) {
            let mut bytes = bytes.clone();
            for (index, bit) in &flips {
                if let Some(byte) = bytes.get_mut(*index) {
                    *byte ^= 1 << bit;
                }
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (part, after) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                rest = after;
                let mut segment = talk.segment(from.to_owned(), part);
                segment.payload.truncate(snap);
                if !missing.next().unwrap() {
                    talk.story.tcp(at * MS, &segment);
                }
            }
        }
        let (records, _) = talk.end();
        prop_assert!(records.iter().all(|record| record.http.as_ref().is_none_or(|http| http.requests < 10)));
    }

    #[test]
    fn any_payload_is_survived(payloads in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 1..200)), 1..40)) {
        let mut talk = Talk::on(53);
        for (from_client, payload) in payloads {
            let from = if from_client { Client } else { Server };
            talk.says(0, from, &payload);
            talk.story.udp(0, from, (40000, 53), &payload);
            talk.story.udp(0, from, (40000, 4444), &payload);
        }
        let (records, _) = talk.end();
        prop_assert!(records.iter().all(|r| r.server.port != Some(4444) || r.app.is_none()));
    }
}
