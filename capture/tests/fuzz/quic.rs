//! QUIC datagrams, in the form of [`crate::pieces`]. Few mutations pass the tag: what is behind it has its own target.

use wiretag_capture::fuzzing;

use crate::Target;
use crate::corpus::Corpus;
use crate::fuzz::from_hex;
use crate::pieces;
use crate::tls::check;

pub(crate) const TARGET: Target = Target { name: "quic", seeds, run, iterations: 10_000 };

fn seeds(corpus: &Corpus) -> Vec<Vec<u8>> {
    let examples = [
        include_str!("../data/quic/rfc9001-a2-client-initial.hex"),
        include_str!("../data/quic/rfc9369-a2-client-initial.hex"),
    ];
    let examples = examples.map(from_hex);
    for example in &examples {
        assert!(fuzzing::quic(&[(0, example)]).is_some_and(|fields| fields.sni.as_deref() == Some("example.com")));
    }
    let google = [google(b"\x09connect!Q043\x01"), google(b"\xc3Q046\x50connect!\0\0\0\x01")];
    for example in &google {
        assert!(fuzzing::quic(&[(0, example)]).is_some_and(|fields| fields.sni.as_deref() == Some("a.example")));
    }
    let captured =
        corpus.payloads(|_, payload| payload.first().is_some_and(|byte| byte & 0xc0 == 0xc0) && payload.len() > 1000);
    let captured =
        captured.windows(2).map(|pair| pieces::join(pair.iter().map(|(end, bytes)| (*end, bytes.as_slice()))));
    examples.iter().chain(&google).map(|example| pieces::join([(0, example.as_slice())])).chain(captured).collect()
}

/// A client's first packet of Google's versions, with this header.
fn google(header: &[u8]) -> Vec<u8> {
    let hello = b"CHLO\x02\0\0\0SNI\0\x09\0\0\0VER\0\x0d\0\0\0a.exampleQ043";
    [header, &[0; 12], &[0xa0, 1, 0, hello.len() as u8], hello, &[0; 30]].concat()
}

fn run(input: &[u8]) {
    check(fuzzing::quic(&pieces::split(input)).as_ref());
}

#[test]
fn quic_survives() {
    crate::fuzz::run(&TARGET);
}
