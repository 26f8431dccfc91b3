//! Wi-Fi (IEEE 802.11): data frames down to LLC, with radiotap (radiotap.org) before them or without.
//!
//! Limits: only the first of several aggregated packets of a frame is read; what is encrypted on the air is counted.

use super::DecodeError;
use super::layers::{Cursor, Layer, Stack};
use super::link::Link;

/// In the second byte of a frame.
const TO_DISTRIBUTION: u8 = 0x01;
const FROM_DISTRIBUTION: u8 = 0x02;
const PROTECTED: u8 = 0x40;
const ORDER: u8 = 0x80;

/// In the first byte: what it is, and of data whether it has none, or a quality of service.
const KIND: u8 = 0x0f;
const DATA: u8 = 0x08;
const WITHOUT_DATA: u8 = 0x40;
const QUALITY: u8 = 0x80;

/// In the quality of service: several packets.
const AGGREGATED: u8 = 0x80;

/// A frame behind a radiotap header.
pub(super) fn with_radio<'a>(mut stack: Stack<'a>, mut cursor: Cursor<'a>) -> Result<Link<'a>, DecodeError> {
    let [version, _, l0, l1] = *cursor.data.first_chunk::<4>().ok_or(DecodeError::LinkCut)?;
    if version != 0 {
        return Err(DecodeError::LinkMalformed);
    }
    let header = cursor.data.get(..u16::from_le_bytes([l0, l1]).into()).ok_or(DecodeError::LinkCut)?;
    cursor.skip(header.len())?;
    let layer = read(&mut stack, &mut cursor, is_padded(header))?;
    stack.walk(cursor, layer)
}

/// Reads the header of a frame.
pub(super) fn frame<'a>(stack: &mut Stack<'a>, cursor: &mut Cursor<'a>) -> Result<Layer, DecodeError> {
    read(stack, cursor, false)
}

/// Reads the header of a frame in CAPWAP (RFC 5416), where some controllers swap the first two bytes. The low half of the first
/// is that of data in only one of the orders.
pub(super) fn in_capwap<'a>(stack: &mut Stack<'a>, cursor: &mut Cursor<'a>) -> Result<Layer, DecodeError> {
    let [first, second] = *cursor.data.first_chunk::<2>().ok_or(DecodeError::LinkCut)?;
    let control = if first & KIND != DATA && second & KIND == DATA { [second, first] } else { [first, second] };
    header(stack, cursor, control, false)
}

/// Whether headers of frames are padded to four bytes: a flag in the radiotap field `Flags`, which follows the words that
/// say which fields there are, and an aligned `TSFT` of eight bytes.
fn is_padded(header: &[u8]) -> bool {
    const TSFT: u8 = 0x01;
    const FLAGS: u8 = 0x02;
    const PADDED: u8 = 0x20;
    let Some(present) = header.get(4).filter(|present| *present & FLAGS != 0) else { return false };
    let words = header.get(4..).unwrap_or_default().chunks_exact(4);
    let more = words.take_while(|word| word.last().is_some_and(|last| last & 0x80 != 0)).count();
    let mut at = 8 + 4 * more;
    if present & TSFT != 0 {
        at = at.next_multiple_of(8) + 8;
    }
    header.get(at).is_some_and(|flags| flags & PADDED != 0)
}

fn read<'a>(stack: &mut Stack<'a>, cursor: &mut Cursor<'a>, padded: bool) -> Result<Layer, DecodeError> {
    let control = *cursor.data.first_chunk::<2>().ok_or(DecodeError::LinkCut)?;
    header(stack, cursor, control, padded)
}

/// The header that begins with these two bytes, in whatever order they are.
fn header<'a>(
    stack: &mut Stack<'a>,
    cursor: &mut Cursor<'a>,
    [kind, flags]: [u8; 2],
    padded: bool,
) -> Result<Layer, DecodeError> {
    if kind & KIND != DATA || kind & WITHOUT_DATA != 0 {
        return Err(DecodeError::NotIp);
    }
    if flags & PROTECTED != 0 {
        return Err(DecodeError::Wlan);
    }
    let data = cursor.data;
    let address = |at: usize| data.get(at..).and_then(|rest| rest.first_chunk::<6>());
    let ways = (flags & TO_DISTRIBUTION != 0, flags & FROM_DISTRIBUTION != 0);
    let (dst, src, addresses) = match ways {
        (false, false) => (4, 10, 24),
        (true, false) => (16, 10, 24),
        (false, true) => (4, 16, 24),
        (true, true) => (16, 24, 30),
    };
    (stack.dst_mac, stack.src_mac) = (address(dst), address(src));
    // Later fragments of a frame do not begin with its headers.
    if data.get(22).ok_or(DecodeError::LinkCut)? & 0x0f != 0 {
        return Err(DecodeError::NotIp);
    }
    let quality = if kind & QUALITY == 0 { None } else { Some(*data.get(addresses).ok_or(DecodeError::LinkCut)?) };
    let mut header = addresses;
    if quality.is_some() {
        header += if flags & ORDER == 0 { 2 } else { 6 };
    }
    cursor.skip(if padded { header.next_multiple_of(4) } else { header })?;
    if quality.is_some_and(|quality| quality & AGGREGATED != 0) {
        (stack.dst_mac, stack.src_mac) =
            (cursor.data.first_chunk(), cursor.data.get(6..).and_then(|rest| rest.first_chunk()));
        cursor.skip(14)?;
    }
    Ok(Layer::Llc)
}
