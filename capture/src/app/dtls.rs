//! DTLS on datagrams: the same fields as [`super::tls`], from the hellos of RFC 6347 and RFC 9147.
//!
//! Handshake fragments are put together in any order. The first ClientHello counts: the one that repeats it with a cookie
//! offers the same. Limits: as for TLS, [`MAX_HELLO`] bytes for each end; connection ids before the handshake's end are
//! not in use.

use super::Probe;
use super::cursor::Cursor;
use super::pieces::Pieces;
use super::tls::{Carrier, MAX_HELLO, Next, message, owned_by};
use crate::memory;
use crate::record::Tls;

const HANDSHAKE: u8 = 22;

/// Most records and handshake fragments that are read in a datagram.
const MAX_RECORDS: usize = 16;

/// A record of the handshake's first epoch, or of any for [`probe`].
struct Record<'a> {
    kind: u8,
    epoch: u16,
    body: &'a [u8],
}

impl<'a> Record<'a> {
    /// RFC 6347, 4.1.
    fn read(bytes: &mut Cursor<'a>) -> Option<Self> {
        let kind = bytes.u8()?;
        if !matches!(kind, 20..=23) || !matches!(bytes.u16()?, 0xfeff | 0xfefd) {
            return None;
        }
        let epoch = bytes.u16()?;
        let _sequence = bytes.take(6)?;
        Some(Self { kind, epoch, body: bytes.vec16()? })
    }
}

/// A fragment of a handshake message.
struct Fragment<'a> {
    kind: u8,
    length: usize,
    number: u16,
    offset: usize,
    body: &'a [u8],
}

impl<'a> Fragment<'a> {
    /// RFC 6347, 4.2.2.
    fn read(bytes: &mut Cursor<'a>) -> Option<Self> {
        let (kind, length, number, offset) = (bytes.u8()?, bytes.u24()?, bytes.u16()?, bytes.u24()?);
        let size = bytes.u24()?;
        let body = bytes.take(size)?;
        (offset + size <= length).then_some(Self { kind, length, number, offset, body })
    }
}

/// Whether a datagram is DTLS.
#[inline]
pub(crate) fn probe(datagram: &[u8]) -> Probe {
    if let [20..=23, 0xfe, 0xff | 0xfd, ..] = datagram { probe_record(datagram) } else { Probe::No }
}

fn probe_record(datagram: &[u8]) -> Probe {
    let known = Record::read(&mut Cursor::new(datagram)).is_some_and(|record| match (record.kind, record.epoch) {
        (HANDSHAKE, 0) => Fragment::read(&mut Cursor::new(record.body)).is_some(),
        (_, _) => !record.body.is_empty(),
    });
    Probe::certain(known)
}

/// The message of an end that is being put together.
#[derive(Debug, Default)]
struct Incoming {
    number: u16,
    pieces: Pieces,
}

/// The handshake of a flow of datagrams.
#[derive(Debug)]
pub(crate) struct DtlsFlow {
    fields: Tls,
    /// An end whose hello is known, or will not come, has none.
    ends: Option<Box<[Option<Incoming>; 2]>>,
}

impl DtlsFlow {
    /// Before the first datagram.
    pub(crate) fn new() -> Self {
        Self { fields: Tls::default(), ends: Some(Box::new([Some(Incoming::default()), Some(Incoming::default())])) }
    }

    /// Bytes of memory owned beside the structure itself.
    pub(crate) fn owned_bytes(&self) -> usize {
        let ends = self.ends.as_ref().map_or(0, |ends| {
            let pieces = ends.iter().flatten().map(|incoming| incoming.pieces.owned_bytes()).sum::<usize>();
            memory::of_box::<[Option<Incoming>; 2]>() + pieces
        });
        ends + owned_by(&self.fields)
    }

    /// Takes a datagram that an end (0 or 1) sent.
    #[inline]
    pub(crate) fn datagram(&mut self, end: usize, datagram: &[u8]) {
        if self.ends.is_some() {
            self.read(end, datagram);
        }
    }

    fn read(&mut self, end: usize, datagram: &[u8]) {
        let Some(ends) = &mut self.ends else { return };
        let Some(place) = ends.get_mut(end) else { return };
        let Some(incoming) = place else { return };
        if read_records(incoming, &mut self.fields, datagram) == Next::Done {
            *place = None;
            if ends.iter().all(Option::is_none) {
                self.ends = None;
            }
        }
    }

    /// Whether nothing more can be learnt.
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        self.ends.is_none()
    }

    /// What is known so far.
    pub(crate) fn fields_mut(&mut self) -> &mut Tls {
        &mut self.fields
    }

    /// A copy of it.
    pub(crate) fn fields(&self) -> Tls {
        self.fields.clone()
    }
}

fn read_records(incoming: &mut Incoming, fields: &mut Tls, datagram: &[u8]) -> Next {
    let mut records = Cursor::new(datagram);
    for _ in 0..MAX_RECORDS {
        let Some(record) = Record::read(&mut records) else { break };
        match (record.kind, record.epoch) {
            (HANDSHAKE, 0) => {
                if read_fragments(incoming, fields, record.body) == Next::Done {
                    return Next::Done;
                }
            }
            // Alerts in the clear.
            (_, 0) => {}
            // Encrypted: the hellos are over.
            (_, _) => return Next::Done,
        }
    }
    Next::More
}

fn read_fragments(incoming: &mut Incoming, fields: &mut Tls, body: &[u8]) -> Next {
    let mut fragments = Cursor::new(body);
    for _ in 0..MAX_RECORDS {
        let Some(fragment) = Fragment::read(&mut fragments) else { break };
        if fragment.length > MAX_HELLO {
            return Next::Done;
        }
        if fragment.number != incoming.number {
            *incoming = Incoming { number: fragment.number, pieces: Pieces::default() };
        }
        // A message is put together only if there is more of it; of an empty one there never is.
        if !incoming.pieces.add(fragment.offset, fragment.body) && fragment.length > 0 {
            continue;
        }
        let Some(whole) = incoming.pieces.prefix(fragment.length) else { continue };
        incoming.pieces = Pieces::default();
        if message(fields, fragment.kind, &whole, Carrier::Dtls) == Next::Done {
            return Next::Done;
        }
    }
    Next::More
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::app::testing::{Hello, browser, hello, vec16};

    const CLIENT: usize = 0;
    const SERVER: usize = 1;

    /// A record of one handshake fragment.
    fn fragment(kind: u8, number: u16, body: &[u8], from: usize, to: usize) -> Vec<u8> {
        let u24 = |value: usize| (value as u32).to_be_bytes()[1..].to_vec();
        let message =
            [&[kind][..], &u24(body.len()), &number.to_be_bytes(), &u24(from), &u24(to - from), &body[from..to]]
                .concat();
        [&[22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0][..], &vec16(&message)].concat()
    }

    fn whole(kind: u8, number: u16, body: &[u8]) -> Vec<u8> {
        fragment(kind, number, body, 0, body.len())
    }

    fn client(hello: Hello) -> Vec<u8> {
        hello.cookie(b"").client()
    }

    fn offer() -> Vec<u8> {
        client(hello(0xfefd).ciphers(&[0xc02b, 0xc02f]).name("call.example").alpn(&[b"webrtc"]))
    }

    #[track_caller]
    fn check(sent: &[(usize, Vec<u8>)], version: &str, done: bool) {
        let mut flow = DtlsFlow::new();
        for (end, datagram) in sent {
            assert_eq!(probe(datagram), Probe::Yes);
            flow.datagram(*end, datagram);
        }
        let fields = flow.fields();
        assert_eq!((fields.sni.as_deref(), fields.alpn.as_deref()), (Some("call.example"), Some("webrtc")));
        assert_eq!((fields.version, flow.is_done()), (Some(version), done));
        // Extensions: SNI and ALPN only, so there is nothing to hash.
        assert!(fields.ja4.unwrap().ends_with("_000000000000"));
    }

    #[test]
    fn a_handshake_with_a_cookie() {
        let verify = whole(3, 0, b"\xfe\xff\x04cook");
        check(&[(CLIENT, whole(1, 0, &offer()))], "1.2", false);
        let answer = whole(2, 1, &hello(0xfeff).server());
        check(
            &[
                (CLIENT, whole(1, 0, &offer())),
                (SERVER, verify),
                (CLIENT, whole(1, 1, &offer())),
                (SERVER, [answer, whole(11, 2, b"certificate")].concat()),
            ],
            "1.0",
            true,
        );
    }

    #[test]
    fn a_hello_comes_in_fragments_in_any_order() {
        let body = offer();
        let end = body.len();
        let pieces = [(40, 70), (0, 50), (70, end)].map(|(from, to)| (CLIENT, fragment(1, 0, &body, from, to)));
        check(&pieces, "1.2", false);
        check(&[(CLIENT, pieces.map(|(_, datagram)| datagram).concat())], "1.2", false);
    }

    #[test]
    fn fingerprints_begin_with_d() {
        let mut flow = DtlsFlow::new();
        let offer = hello(0xfefd).versions(&[0xfefc, 0xfefd]).alpn(&[b"webrtc"]).algorithms(&[0x0403]);
        flow.datagram(CLIENT, &whole(1, 0, &client(offer)));
        let fields = flow.fields();
        assert_eq!(fields.version, Some("1.3"));
        assert!(fields.ja4.unwrap().starts_with("dd3i0103wc_"));
    }

    #[test]
    fn what_is_not_dtls_is_told_from_it() {
        let good = whole(1, 0, &offer());
        for datagram in [&b""[..], &good[..12], &good[1..], b"\x16\xfe\xff", b"\x16\x03\x01\0\0\0\0\0\0\0\0\0\x01a"] {
            assert_eq!(probe(datagram), Probe::No);
        }
        assert_eq!(probe(b"\x17\xfe\xfd\0\x01\0\0\0\0\0\x01\0\x01a"), Probe::Yes);
    }

    proptest! {
        #[test]
        fn damaged_handshakes_are_survived(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            bytes in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut datagram = whole(1, 0, &client(browser()));
            for (at, byte) in damage {
                let at = at.index(datagram.len());
                datagram[at] = byte;
            }
            let mut flow = DtlsFlow::new();
            for datagram in [&datagram, &bytes] {
                let _ = probe(datagram);
                (0..3).for_each(|end| flow.datagram(end, datagram));
            }
        }
    }
}
