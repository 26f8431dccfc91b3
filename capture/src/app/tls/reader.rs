//! Handshake messages of one end of a stream: TLS records (RFC 8446, 5.1) opened, messages put together that are split
//! over segments or records.
//!
//! Invariant: at most one message, of at most [`MAX_HELLO`] bytes, is buffered; the buffer grows with what came, not with
//! what a header claims.

use super::MAX_HELLO;
use crate::app::cursor::Cursor;
use crate::memory;

pub(super) const CHANGE_CIPHER: u8 = 20;
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;

/// Header of a record: type, version, length.
const RECORD_HEADER: usize = 5;
/// Header of a handshake message: type, length.
const MESSAGE_HEADER: usize = 4;

/// What one end said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard<'a> {
    /// A whole handshake message: type and body.
    Message(u8, &'a [u8]),
    /// The ClientHello of SSL 2.0, which older clients sent to offer later versions too (RFC 5246, E.2).
    Ssl2ClientHello(u16),
    /// The ServerHello of SSL 2.0.
    Ssl2ServerHello,
}

/// Whether to read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::app) enum Next {
    More,
    Done,
}

/// The state of one end.
#[derive(Debug, Default)]
pub(super) struct Reader {
    header: [u8; RECORD_HEADER],
    header_len: u8,
    /// Bytes of the record that are still to come.
    left: u16,
    /// Whether a record was seen: SSL 2.0 only begins streams.
    begun: bool,
    message: Vec<u8>,
}

impl Reader {
    /// Takes the next bytes of the stream and tells `hear` of what they complete, until it is done.
    pub(super) fn read(&mut self, bytes: &[u8], mut hear: impl FnMut(Heard<'_>) -> Next) -> Next {
        let mut bytes = Cursor::new(bytes);
        while !bytes.is_empty() {
            let next = if self.left == 0 {
                self.read_header(&mut bytes, &mut hear)
            } else {
                self.read_body(&mut bytes, &mut hear)
            };
            if next == Next::Done {
                return Next::Done;
            }
        }
        Next::More
    }

    /// Bytes of memory owned beside the structure itself.
    pub(super) fn owned_bytes(&self) -> usize {
        memory::of_vec(&self.message)
    }

    /// Type and body of a message of which only the begin came.
    pub(super) fn cut_message(&self) -> Option<(u8, &[u8])> {
        let (header, body) = self.message.split_first_chunk::<MESSAGE_HEADER>()?;
        let [kind, ..] = *header;
        Some((kind, body))
    }

    fn read_header(&mut self, bytes: &mut Cursor<'_>, hear: &mut impl FnMut(Heard<'_>) -> Next) -> Next {
        for place in self.header.iter_mut().skip(self.header_len.into()) {
            let Some(byte) = bytes.u8() else { return Next::More };
            *place = byte;
            self.header_len += 1;
        }
        self.header_len = 0;
        let first = !std::mem::replace(&mut self.begun, true);
        match self.header {
            [CHANGE_CIPHER | ALERT | HANDSHAKE, 3, _, high, low] => {
                self.left = u16::from_be_bytes([high, low]);
                Next::More
            }
            [0x80..=0xff, _, 1, major, minor] if first => {
                hear(Heard::Ssl2ClientHello(u16::from_be_bytes([major, minor])))
            }
            [0x80..=0xff, _, 4, ..] if first => hear(Heard::Ssl2ServerHello),
            // Application data, or no TLS at all: the handshake is over.
            _ => Next::Done,
        }
    }

    fn read_body(&mut self, bytes: &mut Cursor<'_>, hear: &mut impl FnMut(Heard<'_>) -> Next) -> Next {
        let [kind, ..] = self.header;
        if kind == HANDSHAKE
            && self.message.is_empty()
            && let Some((message, body)) = whole_message(bytes.rest().get(..self.left.into()).unwrap_or(bytes.rest()))
        {
            // Most hellos arrive in one piece: they are read where they are.
            let _header_and_body = bytes.take(MESSAGE_HEADER + body.len());
            self.left -= (MESSAGE_HEADER + body.len()) as u16;
            return hear(Heard::Message(message, body));
        }
        let mut count = bytes.rest().len().min(self.left.into());
        if kind == HANDSHAKE {
            count = count.min(self.missing());
        }
        let part = bytes.take(count).unwrap_or_default();
        self.left -= part.len() as u16;
        if kind != HANDSHAKE {
            return Next::More;
        }
        self.message.extend_from_slice(part);
        if self.message.len() < MESSAGE_HEADER {
            return Next::More;
        }
        match self.missing() {
            0 => {
                let next = self.message.split_at_checked(MESSAGE_HEADER).map_or(Next::Done, |(header, body)| {
                    hear(Heard::Message(header.first().copied().unwrap_or_default(), body))
                });
                self.message.clear();
                next
            }
            missing if missing > MAX_HELLO => Next::Done,
            _ => Next::More,
        }
    }

    /// Bytes that the message, or its header, still lacks.
    fn missing(&self) -> usize {
        let mut message = Cursor::new(&self.message);
        let (_kind, length) = (message.u8(), message.u24());
        let whole = MESSAGE_HEADER + length.unwrap_or_default();
        whole - self.message.len()
    }
}

/// Type and body of the message that a record begins with, if all of it is there.
fn whole_message(record: &[u8]) -> Option<(u8, &[u8])> {
    let mut record = Cursor::new(record);
    let (kind, length) = (record.u8()?, record.u24()?);
    if length > MAX_HELLO {
        return None;
    }
    Some((kind, record.take(length)?))
}
