//! Frames of an Initial packet: padding, ping, acknowledgements and CRYPTO (RFC 9000, 17.2.2 and 19).

use super::packet::varint;
use crate::app::cursor::Cursor;

const PING: u64 = 0x01;
const ACK: u64 = 0x02;
const ACK_ECN: u64 = 0x03;
const CRYPTO: u64 = 0x06;

/// Tells `found` of offset and bytes of each CRYPTO frame, up to the end or to a frame that has no place in an Initial.
pub(super) fn crypto(frames: &[u8], mut found: impl FnMut(usize, &[u8])) {
    let mut frames = Cursor::new(frames);
    loop {
        // Most of an Initial is padding.
        frames.skip_zeros();
        let Some((offset, piece)) = next(&mut frames) else { break };
        if !piece.is_empty() {
            found(offset, piece);
        }
    }
}

/// Offset and bytes of the next frame if it is a CRYPTO frame; other frames have none.
fn next<'a>(frames: &mut Cursor<'a>) -> Option<(usize, &'a [u8])> {
    let kind = varint(frames)?;
    match kind {
        PING => Some((0, &[])),
        ACK | ACK_ECN => {
            let (_largest, _delay) = (varint(frames)?, varint(frames)?);
            let (ranges, _first) = (varint(frames)?, varint(frames)?);
            for _ in 0..ranges {
                let (_gap, _length) = (varint(frames)?, varint(frames)?);
            }
            if kind == ACK_ECN {
                let (_ect0, _ect1, _ce) = (varint(frames)?, varint(frames)?, varint(frames)?);
            }
            Some((0, &[]))
        }
        CRYPTO => {
            let offset = usize::try_from(varint(frames)?).ok()?;
            let length = usize::try_from(varint(frames)?).ok()?;
            Some((offset, frames.take(length)?))
        }
        _ => None,
    }
}
