//! TLS on a stream: server name, version, ALPN and JA4 from the two hellos (RFC 8446, RFC 5246; SSL 2.0 for the version).
//!
//! A flow reads each end's stream until that end's hello is whole: split over segments or records, several messages in a
//! record, after a HelloRetryRequest. It does not look further, so what TLS 1.3 encrypts (the server's ALPN) stays what
//! the client offered first.
//!
//! Invariants: at most [`MAX_HELLO`] bytes are buffered for an end, and none when its hello is known; a flow that is done
//! holds its fields and nothing else. TLS need not begin where the stream does (STARTTLS).
//! Of a hello that a gap or the snap length cut, what is named before the cut counts, and there is no fingerprint.

mod hello;
mod ja4;
mod reader;
#[cfg(test)]
mod tests;
mod told;

pub(in crate::app) use self::reader::Next;
pub(in crate::app) use self::told::message;

use self::reader::{ALERT, CHANGE_CIPHER, HANDSHAKE, Heard, Reader};
use super::Probe;
use super::cursor::Cursor;
use crate::memory;
use crate::record::Tls;

/// Longest hello that is read. Browsers with post-quantum keys send about 2,000 bytes.
pub(in crate::app) const MAX_HELLO: usize = 16 << 10;

/// Most bytes of a record: 2^14 and the most that a cipher may add (RFC 5246, 6.2.3).
const MAX_RECORD: usize = (16 << 10) + 2048;

/// What carries the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::app) enum Carrier {
    Tls,
    Dtls,
    Quic,
}

/// Whether a stream that begins with `bytes` is TLS. One that is joined later is recognised if a record begins there.
#[inline]
pub(crate) fn probe(bytes: &[u8]) -> Probe {
    let known = match bytes {
        [20..=23, ..] => is_record(bytes),
        [0x80..=0xff, ..] => is_ssl2_hello(bytes),
        [] => None,
        [_, ..] => Some(false),
    };
    known.map_or(Probe::More, Probe::certain)
}

/// Whether a record begins here; `None` if there are too few bytes to say.
fn is_record(bytes: &[u8]) -> Option<bool> {
    let mut bytes = Cursor::new(bytes);
    let kind = bytes.u8()?;
    if bytes.u8()? != 3 || bytes.u8()? > 4 {
        return Some(false);
    }
    let length = usize::from(bytes.u16()?);
    let known = match kind {
        CHANGE_CIPHER => length == 1 && bytes.u8()? == 1,
        // In the clear, or encrypted.
        ALERT => (length == 2 && matches!(bytes.u8()?, 1 | 2)) || matches!(length, 18..=64),
        HANDSHAKE => (1..=MAX_RECORD).contains(&length) && is_hello(&mut bytes, length)?,
        _ => (17..=MAX_RECORD).contains(&length) && is_followed_by_record(bytes, length),
    };
    Some(known)
}

/// Whether a handshake record of `length` bytes begins with a hello. A record may end within the header of its message.
fn is_hello(bytes: &mut Cursor<'_>, length: usize) -> Option<bool> {
    let kind = bytes.u8()?;
    if !matches!(kind, 1 | 2) || length < 6 {
        return Some(matches!(kind, 1 | 2));
    }
    let size = bytes.u24()?;
    // Early drafts of TLS 1.3 answered with their own number.
    let known = matches!((kind, bytes.u8()?), (_, 3) | (2, 0x7f));
    Some(known && (38..=MAX_HELLO).contains(&size))
}

/// Application data looks like nothing in particular: what follows must be a record too, where it is there.
fn is_followed_by_record(mut bytes: Cursor<'_>, length: usize) -> bool {
    bytes.take(length).is_none() || matches!(bytes.rest(), [] | [20..=23] | [20..=23, 3, ..])
}

/// Whether the ClientHello of SSL 2.0 begins here (RFC 5246, E.2): its lengths add up, a cipher has three bytes.
fn is_ssl2_hello(bytes: &[u8]) -> Option<bool> {
    let mut bytes = Cursor::new(bytes);
    let length = bytes.u16()? & 0x7fff;
    if bytes.u8()? != 1 || !matches!(bytes.u16()?, 0x0002 | 0x0300..=0x0303) {
        return Some(false);
    }
    let (ciphers, session, challenge) = (bytes.u16()?, bytes.u16()?, bytes.u16()?);
    let sum = u32::from(ciphers) + u32::from(session) + u32::from(challenge) + 9;
    Some(ciphers.is_multiple_of(3) && matches!(challenge, 16..=32) && sum == u32::from(length))
}

/// Bytes of memory that the fields own.
pub(in crate::app) fn owned_by(fields: &Tls) -> usize {
    let Tls { sni, alpn, ja4, .. } = fields;
    [sni, alpn, ja4].iter().map(|text| memory::of_text(text.as_ref())).sum()
}

/// The handshake of a stream.
#[derive(Debug)]
pub(crate) struct TlsFlow {
    fields: Tls,
    /// An end whose hello is known, or will not come, has no reader.
    readers: Option<Box<[Option<Reader>; 2]>>,
}

impl TlsFlow {
    /// Before the first byte.
    pub(crate) fn new() -> Self {
        Self { fields: Tls::default(), readers: Some(Box::new([Some(Reader::default()), Some(Reader::default())])) }
    }

    /// Bytes of memory owned beside the structure itself.
    pub(crate) fn owned_bytes(&self) -> usize {
        let readers = self.readers.as_ref().map_or(0, |readers| {
            memory::of_box::<[Option<Reader>; 2]>() + readers.iter().flatten().map(Reader::owned_bytes).sum::<usize>()
        });
        readers + owned_by(&self.fields)
    }

    /// Takes the next bytes of what an end (0 or 1) sent.
    #[inline]
    pub(crate) fn bytes(&mut self, end: usize, bytes: &[u8]) {
        if self.readers.is_some() {
            self.read(end, bytes);
        }
    }

    fn read(&mut self, end: usize, bytes: &[u8]) {
        let fields = &mut self.fields;
        let reader = self.readers.as_deref_mut().and_then(|readers| readers.get_mut(end)).and_then(Option::as_mut);
        let Some(reader) = reader else { return };
        let next = reader.read(bytes, |heard| match heard {
            Heard::Message(kind, body) => message(fields, kind, body, Carrier::Tls),
            Heard::Ssl2ClientHello(version) => {
                told::ssl2_client_hello(fields, version);
                Next::Done
            }
            Heard::Ssl2ServerHello => {
                fields.version = Some("ssl2");
                Next::Done
            }
        });
        match next {
            Next::More => {}
            Next::Done => self.end_is_done(end),
        }
    }

    /// Bytes of an end are missing: of its hello, if it is not known yet, the begin must do.
    pub(crate) fn gap(&mut self, end: usize) {
        let reader = self.readers.as_deref().and_then(|readers| readers.get(end)).and_then(Option::as_ref);
        if let Some((kind, body)) = reader.and_then(Reader::cut_message) {
            told::cut_message(&mut self.fields, kind, body);
        }
        self.end_is_done(end);
    }

    fn end_is_done(&mut self, end: usize) {
        let Some(readers) = &mut self.readers else { return };
        if let Some(reader) = readers.get_mut(end) {
            *reader = None;
        }
        if readers.iter().all(Option::is_none) {
            self.readers = None;
        }
    }

    /// Whether nothing more can be learnt.
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        self.readers.is_none()
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
