//! DTLS datagrams, in the form of [`crate::pieces`].

use wiretag_capture::fuzzing;

use crate::Target;
use crate::corpus::Corpus;
use crate::pieces;
use crate::tls::check;

pub(crate) const TARGET: Target = Target { name: "dtls", seeds, run, iterations: 60_000 };

const BODY: &[u8] =
    b"\xfe\xfd77777777777777777777777777777777\0\0\0\x02\x13\x01\x01\0\0\x17\0\0\0\x0e\0\x0c\0\0\x09a.example\
    \xff\x01\0\x01\0";

fn fragment(from: usize, to: usize) -> Vec<u8> {
    let (length, from_byte, size) = (BODY.len() as u8, from as u8, (to - from) as u8);
    let message = [&[1, 0, 0, length, 0, 0, 0, 0, from_byte, 0, 0, size][..], &BODY[from..to]].concat();
    [&[22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, message.len() as u8][..], &message].concat()
}

fn seeds(corpus: &Corpus) -> Vec<Vec<u8>> {
    let whole = fragment(0, BODY.len());
    assert!(fuzzing::dtls(&[(0, &whole)]).is_some_and(|fields| fields.sni.as_deref() == Some("a.example")));
    let parts = [fragment(30, BODY.len()), fragment(0, 40)];
    let captured = corpus.payloads(|_, payload| payload.starts_with(&[22, 0xfe]));
    let captured = captured.iter().map(|(end, bytes)| pieces::join([(*end, bytes.as_slice())]));
    let made = [pieces::join([(0, whole.as_slice())]), pieces::join(parts.iter().map(|part| (0, part.as_slice())))];
    made.into_iter().chain(captured).collect()
}

fn run(input: &[u8]) {
    check(fuzzing::dtls(&pieces::split(input)).as_ref());
}

#[test]
fn dtls_survives() {
    crate::fuzz::run(&TARGET);
}
