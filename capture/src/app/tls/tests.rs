//! Streams of TLS, told in records.

use proptest::prelude::*;

use super::*;
use crate::app::testing::{BROWSER_JA4, browser, hello, message, record, vec8, vec16};

const CLIENT: usize = 0;
const SERVER: usize = 1;

/// The random of RFC 8446, 4.1.3: SHA-256 of `HelloRetryRequest`.
fn retry_random() -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest("HelloRetryRequest").into()
}

/// Fields as text: name, version, ALPN, JA4.
type Expected<'a> = [Option<&'a str>; 4];

fn told(flow: &TlsFlow) -> [Option<String>; 4] {
    let Tls { sni, version, alpn, ja4 } = flow.fields();
    [
        sni.as_deref().map(str::to_owned),
        version.map(str::to_owned),
        alpn.as_deref().map(str::to_owned),
        ja4.as_deref().map(str::to_owned),
    ]
}

fn check(sent: &[(usize, &[u8])], expected: Expected<'_>) -> TlsFlow {
    let mut flow = TlsFlow::new();
    for (end, bytes) in sent {
        flow.bytes(*end, bytes);
    }
    assert_eq!(told(&flow), expected.map(|text| text.map(str::to_owned)));
    flow
}

fn client_hello() -> Vec<u8> {
    record(&message(1, &browser().client()))
}

fn server_hello(version: u16, alpn: Option<&[u8]>) -> Vec<u8> {
    let server = if version == 0x0304 { hello(0x0303).extension(43, &[3, 4]) } else { hello(version) };
    let server = if let Some(alpn) = alpn { server.alpn(&[alpn]) } else { server };
    record(&message(2, &server.server()))
}

#[test]
fn the_client_offers_and_the_server_chooses() {
    let name = Some("shop.example");
    let flow = check(&[(CLIENT, &client_hello())], [name, Some("1.3"), Some("h2"), Some(BROWSER_JA4)]);
    assert!(!flow.is_done());
    for (version, text) in [(0x0304, "1.3"), (0x0303, "1.2"), (0x0302, "1.1"), (0x0301, "1.0"), (0x0300, "ssl3")] {
        let answer = server_hello(version, Some(b"http/1.1"));
        let expected = [name, Some(text), Some("http/1.1"), Some(BROWSER_JA4)];
        let flow = check(&[(CLIENT, &client_hello()), (SERVER, &answer)], expected);
        assert!(flow.is_done());
        // The capture may deliver the answer first.
        check(&[(SERVER, &answer), (CLIENT, &client_hello())], expected);
    }
}

#[test]
fn the_version_is_the_highest_offered_without_an_answer() {
    for (hello, version) in [
        (hello(0x0303).versions(&[0x0303, 0x0304, 0xfafa]), "1.3"),
        (hello(0x0303).versions(&[0x7f1c, 0x0303]), "1.3"),
        (hello(0x0303).versions(&[0x0303, 0x0302]), "1.2"),
        (hello(0x0303), "1.2"),
        (hello(0x0301), "1.0"),
        (hello(0x0300), "ssl3"),
    ] {
        let mut flow = TlsFlow::new();
        flow.bytes(CLIENT, &record(&message(1, &hello.client())));
        assert_eq!(flow.fields().version, Some(version));
    }
}

#[test]
fn a_hello_may_be_split_at_every_byte_and_over_records() {
    let body = message(1, &browser().client());
    let expected = [Some("shop.example"), Some("1.3"), Some("h2"), Some(BROWSER_JA4)];
    for size in [1, 2, 3, 5, 100, body.len() - 1] {
        let stream: Vec<u8> = body.chunks(size).flat_map(record).collect();
        check(&[(CLIENT, &stream)], expected);
        let bytes: Vec<_> = stream.chunks(1).map(|byte| (CLIENT, byte)).collect();
        check(&bytes, expected);
    }
    let stream = record(&body);
    for at in 0..=stream.len() {
        let (first, second) = stream.split_at(at);
        check(&[(CLIENT, first), (CLIENT, second)], expected);
        assert_ne!(probe(first), Probe::No, "{at}");
    }
}

#[test]
fn a_hello_that_is_retried_is_not_the_answer() {
    let retry = record(&message(2, &hello(0x0303).random(retry_random()).extension(43, &[3, 4]).server()));
    let change_cipher = [20, 3, 3, 0, 1, 1];
    let answer = server_hello(0x0304, None);
    let mut flow = TlsFlow::new();
    flow.bytes(CLIENT, &client_hello());
    flow.bytes(SERVER, &[&retry[..], &change_cipher].concat());
    assert!(!flow.is_done());
    flow.bytes(CLIENT, &record(&message(1, &hello(0x0303).name("second.example").client())));
    flow.bytes(SERVER, &answer);
    assert!(flow.is_done());
    assert_eq!(flow.fields().sni.as_deref(), Some("shop.example"));
}

#[test]
fn what_comes_before_a_hello_is_passed_over() {
    let warning = [21, 3, 3, 0, 2, 1, 112];
    let request_and_hello = [message(0, &[]), message(2, &hello(0x0302).server()), message(11, &[0; 5])].concat();
    let sent = [&warning[..], &record(&[]), &record(&request_and_hello)].concat();
    check(&[(SERVER, &sent)], [None, Some("1.1"), None, None]);
}

#[test]
fn ssl2_hellos_tell_the_version() {
    let offer = |version: u16, session: usize| {
        let body =
            [&[1][..], &version.to_be_bytes(), &[0, 6, 0, session as u8, 0, 16], &[0; 6], &vec![0; session], &[0; 16]]
                .concat();
        [&[0x80, body.len() as u8], body.as_slice()].concat()
    };
    for (version, session, text, code) in
        [(2, 0, "ssl2", "s2"), (0x0300, 16, "ssl3", "s3"), (0x0301, 0, "1.0", "10"), (0x0303, 0, "1.2", "12")]
    {
        let ja4 = format!("t{code}i000000_000000000000_000000000000");
        let bytes = offer(version, session);
        assert_eq!(probe(&bytes), Probe::Yes);
        check(&[(CLIENT, &bytes)], [None, Some(text), None, Some(&ja4)]);
        check(&[(CLIENT, &bytes), (SERVER, &server_hello(0x0301, None))], [None, Some("1.0"), None, Some(&ja4)]);
        check(&[(CLIENT, &bytes), (SERVER, &[0x80, 30, 4, 0, 1, 0, 2])], [None, Some("ssl2"), None, Some(&ja4)]);
    }
    let mut wrong = offer(2, 0);
    wrong[1] += 1;
    assert_eq!(probe(&wrong), Probe::No);
}

#[test]
fn what_is_not_tls_is_told_from_it() {
    for (bytes, expected) in [
        (&b""[..], Probe::More),
        (b"\x16", Probe::More),
        (b"\x16\x03\x01\x02", Probe::More),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03", Probe::Yes),
        (b"\x16\x03\x01\x02\x00\x02\x00\x01\xfc\x03", Probe::Yes),
        (b"\x16\x03\x01\x02\x00\x02\x00\x01\xfc\x7f", Probe::Yes),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x7f", Probe::No),
        (b"\x16\x03\x01\x02\x00\x0b\x00\x01\xfc\x03", Probe::No),
        (b"\x16\x03\x01\x02\x00\x01\x00\x00\x01\x03", Probe::No),
        (b"\x16\x03\x01\x02\x00\x01\x01\x00\x00\x03", Probe::No),
        (b"\x16\x03\x01\xff\xff\x01\x00\x01\xfc\x03", Probe::No),
        (b"\x16\x04\x01\x02\x00\x01\x00\x01\xfc\x03", Probe::No),
        (b"\x17\x03\x03\x00\x20", Probe::Yes),
        (b"\x17\x03\x03\x00\x10", Probe::No),
        (b"\x14\x03\x03\x00\x01\x01", Probe::Yes),
        (b"\x14\x03\x03\x00\x02\x01", Probe::No),
        (b"\x15\x03\x03\x00\x02\x02\x28", Probe::Yes),
        (b"GET / HTTP/1.1\r\n", Probe::No),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Probe::No),
        (b"\x80\x01", Probe::More),
        (b"\x80\x2e\x02\x00\x02", Probe::No),
    ] {
        assert_eq!(probe(bytes), expected, "{bytes:02x?}");
    }
    let mut data = vec![23, 3, 3, 0, 17];
    data.extend([0; 17]);
    assert_eq!(probe(&data), Probe::Yes);
    assert_eq!(probe(&[&data[..], &data[..]].concat()), Probe::Yes);
    assert_eq!(probe(&[&data[..], b"no"].concat()), Probe::No);
}

#[test]
fn a_stream_that_is_joined_late_or_has_a_gap_is_given_up() {
    let mut flow = TlsFlow::new();
    flow.bytes(CLIENT, b"\x17\x03\x03\x00\x20");
    flow.bytes(SERVER, &client_hello()[..50]);
    assert!(!flow.is_done());
    flow.gap(SERVER);
    assert!(flow.is_done());
    flow.bytes(SERVER, &client_hello());
    assert_eq!(flow.fields(), Tls::default());
    assert!(size_of::<TlsFlow>() <= 80);
}

#[test]
fn the_begin_of_a_hello_names_what_it_names() {
    let hello = client_hello();
    for at in 0..hello.len() {
        let mut flow = TlsFlow::new();
        flow.bytes(CLIENT, &hello[..at]);
        flow.gap(CLIENT);
        let [name, version, alpn, ja4] = told(&flow);
        let seen = |text: &[u8]| hello[..at].windows(text.len()).any(|window| window == text);
        assert_eq!(name, seen(b"Shop.example").then(|| "shop.example".to_owned()));
        assert_eq!(alpn, seen(b"http/1.1").then(|| "h2".to_owned()));
        assert_eq!(version, seen(&[6, 0x6a, 0x6a, 3, 4, 3, 3]).then(|| "1.3".to_owned()));
        assert_eq!(ja4, None);
    }
}

#[test]
fn an_endless_hello_is_given_up_before_it_is_buffered() {
    let mut flow = TlsFlow::new();
    flow.bytes(CLIENT, b"\x16\x03\x01\x40\x00\x01\xff\xff\xff");
    flow.bytes(SERVER, b"\x16\x03\x01\x40\x00\x02\x00\x40\x01");
    assert!(flow.is_done());
}

#[test]
fn names_are_found_after_other_kinds_and_damage_stops_quietly() {
    let other = [&[9][..], &vec16(b"x"), &[0], &vec16(b"A.example\0")].concat();
    let body = hello(0x0303).extension(0, &vec16(&other)).extension(16, &vec16(&vec8(b"\xff"))).client();
    let expected = [Some(r"a.example\x00"), Some("1.2"), Some(r"\xff")];
    let mut flow = TlsFlow::new();
    flow.bytes(CLIENT, &record(&message(1, &body)));
    assert_eq!(told(&flow)[..3], expected.map(|text| text.map(str::to_owned)));

    // An extension that is longer than what is left.
    let cut = hello(0x0303).name("a.example").client();
    let (last, rest) = cut.split_last().unwrap();
    assert_eq!(*last, b'e');
    let mut flow = TlsFlow::new();
    flow.bytes(CLIENT, &record(&message(1, rest)));
    assert_eq!(told(&flow)[..2], [None, Some("1.2".to_owned())]);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(
        sent in prop::collection::vec((0_usize..3, prop::collection::vec(any::<u8>(), 0..60)), 0..20),
    ) {
        let mut flow = TlsFlow::new();
        for (end, bytes) in &sent {
            let _ = probe(bytes);
            flow.bytes(*end, bytes);
        }
        let _ = flow.fields();
    }

    #[test]
    fn damaged_handshakes_are_survived_however_they_are_cut(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cuts in prop::collection::vec(1_usize..200, 1..20),
    ) {
        let mut stream = [client_hello(), server_hello(0x0303, Some(b"h2"))].concat();
        for (at, byte) in damage {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        let mut whole = TlsFlow::new();
        whole.bytes(CLIENT, &stream);
        let mut cut = TlsFlow::new();
        let mut rest = stream.as_slice();
        for size in cuts.iter().cycle() {
            let (piece, left) = rest.split_at((*size).min(rest.len()));
            cut.bytes(CLIENT, piece);
            rest = left;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(whole.fields(), cut.fields());
    }
}
