//! Frame Relay (Q.922, RFC 2427; Cisco's with an EtherType), and the network layer protocol identifiers (ISO/IEC TR 9577) that say
//! what its frames carry, as those of ATM do (RFC 2684).
//!
//! Limit: frames that are divided (FRF.12) or bundled (FRF.16) are not put together.

use super::DecodeError;
use super::layers::{Cursor, Layer};

/// SNAP's organization for bridged frames.
pub(super) const BRIDGED: &[u8] = &[0, 0x80, 0xc2];

/// An address of two to four bytes, of which the last has its lowest bit set; then `UI`, or an EtherType.
pub(super) fn frame(cursor: &mut Cursor<'_>) -> Result<Layer, DecodeError> {
    let address = cursor.data.get(..4).unwrap_or(cursor.data);
    let last = address.iter().position(|byte| byte & 1 == 1).ok_or(DecodeError::LinkMalformed)?;
    if last == 0 {
        return Err(DecodeError::LinkMalformed);
    }
    cursor.skip(last + 1)?;
    if cursor.byte(0)? == 0x03 {
        cursor.skip(1)?;
        return Ok(Layer::Nlpid);
    }
    let kind = cursor.u16(0)?;
    cursor.skip(2)?;
    Ok(Layer::EtherType(kind))
}

/// What an identifier says, perhaps behind one byte of padding.
pub(super) fn identified(cursor: &mut Cursor<'_>) -> Result<Layer, DecodeError> {
    if cursor.byte(0)? == 0 {
        cursor.skip(1)?;
    }
    let identifier = cursor.byte(0)?;
    cursor.skip(1)?;
    match identifier {
        0xcc | 0x8e => Ok(Layer::Ip),
        0xcf => Ok(Layer::Ppp),
        0x80 => snap(cursor),
        _ => Err(DecodeError::NotIp),
    }
}

fn snap(cursor: &mut Cursor<'_>) -> Result<Layer, DecodeError> {
    let organization = cursor.data.get(..3).ok_or(DecodeError::LinkCut)?;
    let kind = cursor.u16(3)?;
    cursor.skip(5)?;
    match (organization, kind) {
        ([0, 0, 0], 1501..) => Ok(Layer::EtherType(kind)),
        // With a check sequence, and without.
        (BRIDGED, 1 | 7) => Ok(Layer::Ethernet),
        _ => Err(DecodeError::NotIp),
    }
}
