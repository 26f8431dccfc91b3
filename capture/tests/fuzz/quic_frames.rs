//! Frames of QUIC Initials, in the form of [`crate::pieces`].

use wiretag_capture::fuzzing;

use crate::Target;
use crate::corpus::Corpus;
use crate::pieces;
use crate::tls::{CLIENT_HELLO, check};

pub(crate) const TARGET: Target = Target { name: "quic_frames", seeds, run, iterations: 60_000 };

fn crypto(from: usize, to: usize) -> Vec<u8> {
    [&[0, 1, 6, 0x40, from as u8, 0x40, (to - from) as u8][..], &CLIENT_HELLO[from..to]].concat()
}

fn seeds(_: &Corpus) -> Vec<Vec<u8>> {
    let end = CLIENT_HELLO.len();
    let acknowledgement = b"\x03\x05\0\x01\0\0\0\x01\x02\x03";
    let whole = [acknowledgement.as_slice(), &crypto(0, end)].concat();
    let parts = [[crypto(60, end), crypto(0, 20)].concat(), crypto(15, 70)];
    assert_eq!(fuzzing::quic_frames(&[&parts[0], &parts[1]]).sni.as_deref(), Some("a.example"));
    vec![pieces::join([(0, whole.as_slice())]), pieces::join(parts.iter().map(|part| (0, part.as_slice())))]
}

fn run(input: &[u8]) {
    let packets: Vec<_> = pieces::split(input).into_iter().map(|(_, frames)| frames).collect();
    check(Some(&fuzzing::quic_frames(&packets)));
}

#[test]
fn quic_frames_survives() {
    crate::fuzz::run(&TARGET);
}
