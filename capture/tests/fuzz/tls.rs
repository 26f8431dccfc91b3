//! TLS streams, in the form of [`crate::pieces`].

use wiretag_capture::fuzzing;
use wiretag_capture::record::Tls;

use crate::Target;
use crate::corpus::Corpus;
use crate::pieces;

pub(crate) const TARGET: Target = Target { name: "tls", seeds, run, iterations: 15_000 };

/// A ClientHello with a name, ALPN, versions and signature algorithms.
pub(crate) const CLIENT_HELLO: &[u8] =
    b"\x01\0\0\x69\x03\x0377777777777777777777777777777777\0\0\x06\x13\x01\xc0\x2b\0\x2f\
    \x01\0\0\x3a\0\0\0\x0e\0\x0c\0\0\x09a.example\0\x10\0\x0e\0\x0c\x02h2\x08http/1.1\0\x2b\0\x05\x04\x03\x04\x03\x03\
    \0\x0d\0\x06\0\x04\x04\x03\x08\x04\xff\x01\0\x01\0";

const SERVER_HELLO: &[u8] =
    b"\x02\0\0\x2e\x03\x0377777777777777777777777777777777\0\x13\x01\0\0\x06\0\x2b\0\x02\x03\x04";

const SSL2_HELLO: &[u8] = b"\x80\x1f\x01\0\x02\0\x06\0\0\0\x10\x07\0\xc0\x05\0\x800123456789abcdef";

fn record(message: &[u8]) -> Vec<u8> {
    [&[22, 3, 1][..], &(message.len() as u16).to_be_bytes(), message].concat()
}

fn seeds(corpus: &Corpus) -> Vec<Vec<u8>> {
    let (offer, answer) = (record(CLIENT_HELLO), record(SERVER_HELLO));
    let split: Vec<u8> = CLIENT_HELLO.chunks(20).flat_map(record).collect();
    let mut seeds = vec![
        pieces::join([(0, offer.as_slice()), (1, answer.as_slice())]),
        pieces::join(split.chunks(7).map(|piece| (0, piece))),
        pieces::join([(0, SSL2_HELLO)]),
    ];
    assert!(fuzzing::tls(&[(0, &offer)]).is_some_and(|fields| fields.sni.as_deref() == Some("a.example")));
    let captured = corpus.payloads(|_, payload| payload.starts_with(&[22, 3]) || payload.starts_with(&[0x80]));
    seeds
        .extend(captured.windows(2).map(|pair| pieces::join(pair.iter().map(|(end, bytes)| (*end, bytes.as_slice())))));
    seeds
}

fn run(input: &[u8]) {
    let sent = pieces::split(input);
    let fields = fuzzing::tls(&sent);
    check(fields.as_ref());
    // Where a stream is cut says nothing, unless there is a gap, which is an empty piece.
    if sent.iter().all(|(_, bytes)| !bytes.is_empty()) {
        let bytes = sent.iter().flat_map(|(end, bytes)| bytes.chunks(1).map(move |byte| (*end, byte)));
        let cut = fuzzing::tls_fields(&bytes.collect::<Vec<_>>());
        assert_eq!(fuzzing::tls_fields(&sent), cut);
    }
}

/// Texts are printable and bounded.
pub(crate) fn check(fields: Option<&Tls>) {
    let Some(Tls { sni, version: _, alpn, ja4 }) = fields else { return };
    for text in [sni, alpn, ja4].into_iter().flatten() {
        assert!(text.len() <= 255 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text}");
    }
    assert!(ja4.as_ref().is_none_or(|ja4| ja4.len() == 36), "{ja4:?}");
}

#[test]
fn tls_survives() {
    crate::fuzz::run(&TARGET);
}
