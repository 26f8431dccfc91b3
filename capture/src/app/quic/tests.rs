//! Datagrams of QUIC: the examples of RFC 9001 and RFC 9369, and hand-made Initials.

use aes_gcm::aead::AeadInOut;
use aes_gcm::aes::Aes128;
use aes_gcm::aes::cipher::BlockCipherEncrypt;
use aes_gcm::{Aes128Gcm, KeyInit};
use proptest::prelude::*;

use super::keys::Keys;
use super::packet::dialect;
use super::*;
use crate::app::testing::{browser, hex, vec8};

const RFC_9001: &str = include_str!("../../../tests/data/quic/rfc9001-a2-client-initial.hex");
const RFC_9369: &str = include_str!("../../../tests/data/quic/rfc9369-a2-client-initial.hex");

const CLIENT: usize = 1;
const SERVER: usize = 0;
const V1: u32 = 1;
const V2: u32 = 0x6b33_43cf;
const BROWSER_JA4: &str = "q13d1516h2_8daaf6152771_e5627efa2ab1";

/// A variable-length integer in four bytes.
fn varint(value: usize) -> [u8; 4] {
    (value as u32 | 0x8000_0000).to_be_bytes()
}

fn crypto_frame(hello: &[u8], from: usize, to: usize) -> Vec<u8> {
    [&[6][..], &varint(from), &varint(to - from), &hello[from..to]].concat()
}

/// An Initial of a client, padded to `size` bytes.
struct Initial<'a> {
    version: u32,
    /// Where the keys come from, and what the header says.
    ids: [&'a [u8]; 2],
    number: u8,
    size: usize,
}

const FIRST: Initial<'_> = Initial { version: V1, ids: [b"original", b"original"], number: 0, size: 1200 };

impl Initial<'_> {
    fn seal(&self, frames: &[u8]) -> Vec<u8> {
        let dialect = dialect(self.version).unwrap();
        let [keys_from, dcid] = self.ids;
        let keys = Keys::of_client(dialect, keys_from).unwrap();
        let kind = if self.version == V2 { 0xd0 } else { 0xc0 };
        let mut header = [&[kind][..], &self.version.to_be_bytes(), &vec8(dcid), &vec8(b"client"), &[0]].concat();
        let mut body = frames.to_vec();
        body.resize(self.size.saturating_sub(header.len() + 4 + 1 + 16).max(frames.len()), 0);
        header.extend(varint(1 + body.len() + 16));
        let number_at = header.len();
        header.push(self.number);
        let [key, header_key] = keys.raw();
        let mut nonce = keys.iv();
        nonce[11] ^= self.number;
        let tag = Aes128Gcm::new(&key.into())
            .encrypt_inout_detached(&nonce.into(), &header, body.as_mut_slice().into())
            .unwrap();
        let mut packet = [header, body, tag.to_vec()].concat();
        let mut mask = <[u8; 16]>::try_from(&packet[number_at + 4..number_at + 20]).unwrap().into();
        Aes128::new(&header_key.into()).encrypt_block(&mut mask);
        packet[0] ^= mask[0] & 0x0f;
        packet[number_at] ^= mask[1];
        packet
    }
}

fn hello() -> Vec<u8> {
    crate::app::testing::message(1, &browser().client())
}

fn whole_hello() -> Vec<u8> {
    let hello = hello();
    crypto_frame(&hello, 0, hello.len())
}

#[track_caller]
fn check(sent: &[(usize, &[u8])]) {
    let mut flow = QuicFlow::new();
    for (end, datagram) in sent {
        assert_eq!(probe(datagram), Probe::Yes);
        flow.datagram(*end, datagram);
    }
    let Tls { sni, version, alpn, ja4 } = flow.fields();
    assert_eq!(ja4.as_deref(), Some(BROWSER_JA4));
    assert_eq!((sni.as_deref(), version, alpn.as_deref()), (Some("shop.example"), Some("1.3"), Some("h2")));
    assert!(flow.is_done());
}

#[test]
fn keys_are_those_of_the_rfcs() {
    let id = hex("8394c8f03e515708");
    for (version, key, iv, header) in [
        (V1, "1f369613dd76d5467730efcbe3b1a22d", "fa044b2f42a3fd3b46fb255c", "9f50449e04a0e810283a1e9933adedd2"),
        (V2, "8b1a0bc121284290a29e0971b5cd045d", "91f73e2351d8fa91660e909f", "45b95e15235d6f45a6b19cbcb0294ba9"),
    ] {
        let keys = Keys::of_client(dialect(version).unwrap(), &id).unwrap();
        assert_eq!(keys.raw().map(|key| key.to_vec()), [hex(key), hex(header)]);
        assert_eq!(keys.iv().to_vec(), hex(iv));
    }
}

#[test]
fn examples_of_the_rfcs_are_opened() {
    for datagram in [hex(RFC_9001), hex(RFC_9369)] {
        assert_eq!((datagram.len(), probe(&datagram)), (1200, Probe::Yes));
        let mut flow = QuicFlow::new();
        flow.datagram(CLIENT, &datagram);
        assert!(flow.is_done());
        let fields = flow.fields();
        assert_eq!(fields.sni.as_deref(), Some("example.com"));
        assert_eq!((fields.version, fields.alpn.as_deref()), (Some("1.3"), Some("alpn")));
        assert_eq!(fields.ja4.as_deref(), Some("q13d0211an_62ed6f6ca7ad_4d634acda6c0"));
    }
}

#[test]
fn every_known_version_is_opened() {
    for version in [
        V1,
        V2,
        0xff00_0016,
        0xff00_001b,
        0xff00_001d,
        0xff00_0020,
        0xff00_0021,
        0xff00_0022,
        0xface_b002,
        0x5430_3530,
        0x5430_3531,
    ] {
        check(&[(CLIENT, &Initial { version, ..FIRST }.seal(&whole_hello()))]);
    }
}

#[test]
fn a_hello_comes_in_pieces_in_any_order() {
    let hello = hello();
    let (a, b, c) = (50, 120, hello.len());
    let frames = |pieces: &[(usize, usize)]| -> Vec<u8> {
        pieces.iter().flat_map(|(from, to)| [&[0, 1][..], &crypto_frame(&hello, *from, *to)].concat()).collect()
    };
    let acknowledgement = [2, 0, 0, 1, 0, 0, 0];
    let first = FIRST.seal(&[&acknowledgement, frames(&[(b, c), (0, a)]).as_slice()].concat());
    let second = Initial { number: 1, ..FIRST }.seal(&frames(&[(a - 10, b + 10), (b, c)]));
    check(&[(CLIENT, &first), (CLIENT, &second)]);
    check(&[(CLIENT, &second), (CLIENT, &first)]);
    check(&[(CLIENT, &first), (CLIENT, &first), (CLIENT, &second)]);

    // Two Initials in one datagram, the second after what the server answered, whose id it uses.
    let small = Initial { size: 0, ..FIRST }.seal(&frames(&[(b, c)]));
    let answered = Initial { ids: [b"original", b"chosen"], number: 2, ..FIRST };
    check(&[(CLIENT, &[small, answered.seal(&frames(&[(0, b)]))].concat())]);
}

#[test]
fn a_retry_or_another_version_begins_anew() {
    let half = FIRST.seal(&crypto_frame(&hello(), 0, 100));
    let retry = [&[0xf0, 0, 0, 0, 1][..], &vec8(b"client"), &vec8(b"retried"), &[0; 20]].concat();
    for ids in [[b"retried"; 2].map(|id| &id[..]), [b"original"; 2].map(|id| &id[..])] {
        let version = if ids[0] == b"retried" { V1 } else { V2 };
        let again = Initial { version, ids, ..FIRST };
        let (first, second) = (crypto_frame(&hello(), 0, 130), crypto_frame(&hello(), 130, hello().len()));
        check(&[
            (CLIENT, &half),
            (SERVER, &retry),
            (CLIENT, &again.seal(&first)),
            (CLIENT, &Initial { number: 1, ..again }.seal(&second)),
        ]);
    }
}

#[test]
fn the_server_and_damaged_packets_tell_nothing() {
    let good = FIRST.seal(&whole_hello());
    let damaged = |at: usize| {
        let mut datagram = good.clone();
        datagram[at] ^= 0x10;
        datagram
    };
    for at in [7, 40, 600, 1199] {
        let mut flow = QuicFlow::new();
        flow.datagram(SERVER, &damaged(at));
        assert_eq!((flow.fields(), flow.is_done()), (Tls::default(), false));
    }
    check(&[(SERVER, &damaged(1199)), (CLIENT, &good)]);
}

#[test]
fn tries_are_bounded() {
    let mut flow = QuicFlow::new();
    let part = FIRST.seal(&crypto_frame(&hello(), 0, 10));
    for _ in 0..MAX_TRIES {
        assert!(!flow.is_done());
        flow.datagram(CLIENT, &part);
    }
    assert!(flow.is_done());
    assert!(size_of::<QuicFlow>() <= 80);
}

#[test]
fn a_client_that_is_past_its_handshake_is_done() {
    let mut flow = QuicFlow::new();
    flow.datagram(CLIENT, &FIRST.seal(&crypto_frame(&hello(), 0, 10)));
    flow.datagram(SERVER, &[0x40; 30]);
    assert!(!flow.is_done());
    flow.datagram(CLIENT, &[0x40; 30]);
    assert!(flow.is_done());
}

#[test]
fn what_is_not_quic_is_told_from_it() {
    let good = FIRST.seal(&whole_hello());
    let unknown = [&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a][..], &vec8(b"original"), &[0], &[0; 1200]].concat();
    let google =
        [&b"\x0d12345678Q043\x01"[..], b"\xc3Q046\x5012345678", b"\xc3Q050\x0812345678\0", b"\xc3T048\x0812345678\0"];
    for datagram in google {
        let mut flow = QuicFlow::new();
        assert_eq!(probe(datagram), Probe::Yes, "{datagram:?}");
        flow.datagram(CLIENT, datagram);
        assert!(flow.is_done(), "{datagram:?}");
    }
    assert_eq!(probe(&unknown), Probe::Yes);
    // Cut by the snap length.
    assert_eq!([&good[..good.len() - 1], &good[..30]].map(probe), [Probe::Yes; 2]);
    for datagram in [
        &b""[..],
        &good[..20],
        b"\xc0\0\0\0\x01\x0812345678\0\0\x20",
        &good[1..],
        &unknown[..1000],
        b"\xc0\0\0\0\x02\x0812345678\0",
        b"\xc0\0\0\0\x01\xff",
        b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\0\0\x01\0\x01",
    ] {
        assert_eq!(probe(datagram), Probe::No, "{datagram:02x?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(
        sent in prop::collection::vec((0_usize..3, prop::collection::vec(any::<u8>(), 0..100)), 0..20),
        frames in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut flow = QuicFlow::new();
        flow.datagram(CLIENT, &FIRST.seal(&frames));
        for (end, datagram) in &sent {
            let _ = probe(datagram);
            flow.datagram(*end, datagram);
            // Something that passes the first checks.
            flow.datagram(*end, &[b"\xc0\0\0\0\x01\x08", datagram.as_slice()].concat());
        }
    }

    #[test]
    fn damaged_hellos_are_survived(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in 0_usize..300) {
        let mut frames = whole_hello();
        let at = at.index(frames.len());
        frames[at] = byte;
        frames.truncate(frames.len().saturating_sub(cut));
        let mut flow = QuicFlow::new();
        flow.datagram(CLIENT, &FIRST.seal(&frames));
    }
}
