//! Google's own handshake, before QUIC was the IETF's: versions `Q…`. In the versions 39 to 46 the client's first packets are
//! only authenticated, with a hash that anyone can make, and their stream 1 carries a message `CHLO` of tags and values (QUIC
//! Crypto, revision 20161206), of which the server name is read. Later versions encrypt; they are named.

use crate::app::cursor::Cursor;
use crate::app::pieces::Pieces;
use crate::app::text::{MAX_HOST, clean};
use crate::record::Tls;

/// Message authentication hash before the frames.
const HASH: usize = 12;

/// The stream of the handshake.
const CRYPTO_STREAM: u64 = 1;

/// Most tags of a message.
const MAX_TAGS: usize = 128;

/// A packet with a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    version: [u8; 4],
    /// If they are in the clear.
    frames: Option<&'a [u8]>,
}

impl<'a> Packet<'a> {
    /// Reads a datagram that begins with a header of these versions.
    pub(super) fn read(datagram: &'a [u8]) -> Option<Self> {
        let mut bytes = Cursor::new(datagram);
        let first = bytes.u8()?;
        if first & 0x80 == 0 {
            return Self::with_public_header(first, bytes);
        }
        let version = bytes.take(4)?.first_chunk().copied()?;
        if version != *b"Q046" {
            return (version[0] == b'Q').then_some(Self { version, frames: None });
        }
        let lengths = bytes.u8()?;
        for length in [lengths >> 4, lengths & 0x0f] {
            bytes.take(if length == 0 { 0 } else { usize::from(length) + 3 })?;
        }
        bytes.take(usize::from(first & 3) + 1 + HASH)?;
        Some(Self { version, frames: Some(bytes.rest()) })
    }

    /// Before version 46: flags, connection id, version, packet number.
    fn with_public_header(flags: u8, mut bytes: Cursor<'a>) -> Option<Self> {
        bytes.take(8)?;
        let version: [u8; 4] = bytes.take(4)?.first_chunk().copied()?;
        let number = match flags >> 4 & 3 {
            0 => 1,
            1 => 2,
            2 => 4,
            _ => 6,
        };
        // Older ones have their numbers in the other byte order.
        let in_the_clear = matches!(&version, b"Q039" | b"Q041" | b"Q042" | b"Q043");
        let frames = bytes.take(number + HASH).map(|_| bytes.rest()).filter(|_| in_the_clear);
        (version[0] == b'Q').then_some(Self { version, frames })
    }

    /// Whether its frames are worth a look.
    pub(super) fn is_in_the_clear(&self) -> bool {
        self.frames.is_some()
    }

    /// The version by name.
    pub(super) const fn version(&self) -> Option<&'static str> {
        Some(match &self.version {
            b"Q035" => "Q035",
            b"Q039" => "Q039",
            b"Q041" => "Q041",
            b"Q042" => "Q042",
            b"Q043" => "Q043",
            b"Q044" => "Q044",
            b"Q046" => "Q046",
            b"Q048" => "Q048",
            b"Q049" => "Q049",
            b"Q050" => "Q050",
            b"Q051" => "Q051",
            _ => return None,
        })
    }

    /// Keeps what the frames carry of the handshake.
    pub(super) fn take_handshake(&self, pieces: &mut Pieces) {
        let mut frames = Cursor::new(self.frames.unwrap_or_default());
        while let Some((stream, offset, data)) = next_frame(&mut frames) {
            if stream == CRYPTO_STREAM
                && let Ok(offset) = usize::try_from(offset)
            {
                pieces.add(offset, data);
            }
        }
    }
}

/// The next frame of a stream: its number, and where in it the data are. Whatever else than pings comes before it ends the
/// search: padding fills the rest of a packet, and clients acknowledge nothing in their first.
fn next_frame<'a>(frames: &mut Cursor<'a>) -> Option<(u64, u64, &'a [u8])> {
    const PING: u8 = 0x07;
    let mut kind = frames.u8()?;
    while kind == PING {
        kind = frames.u8()?;
    }
    if kind & 0x80 == 0 {
        return None;
    }
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let offset_len = usize::from(kind >> 2 & 7);
    let stream = number(frames.take(usize::from(kind & 3) + 1)?);
    let offset = number(frames.take(if offset_len == 0 { 0 } else { offset_len + 1 })?);
    let length = if kind & 0x20 == 0 { frames.rest().len() } else { frames.u16()?.into() };
    Some((stream, offset, frames.take(length)?))
}

/// Fills in what the client's message says, once enough of it is there; whether it is known, or will not come.
pub(super) fn client_hello(pieces: &Pieces, fields: &mut Tls) -> bool {
    let Some(head) = pieces.prefix(8) else { return false };
    let [b'C', b'H', b'L', b'O', low, high, _, _] = head.as_slice() else { return true };
    let tags = usize::from(u16::from_le_bytes([*low, *high]));
    if tags > MAX_TAGS {
        return true;
    }
    let values_at = 8 + 8 * tags;
    let Some(head) = pieces.prefix(values_at) else { return false };
    let mut begin = 0;
    for entry in head.get(8..).unwrap_or_default().chunks_exact(8) {
        let [t0, t1, t2, t3, e0, e1, e2, e3] = entry else { return true };
        let end = u32::from_le_bytes([*e0, *e1, *e2, *e3]) as usize;
        if [*t0, *t1, *t2, *t3] == *b"SNI\0" {
            if end < begin || end - begin > MAX_HOST {
                return true;
            }
            let Some(text) = pieces.prefix(values_at + end) else { return false };
            fields.sni =
                text.get(values_at + begin..).filter(|name| !name.is_empty()).map(|name| clean(name, MAX_HOST));
            return true;
        }
        begin = end;
    }
    true
}
