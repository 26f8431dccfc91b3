//! GRE (RFC 2784, 2890), its PPTP version (RFC 2637), NVGRE (RFC 7637), and ERSPAN (draft-foschiano-erspan) types I to III.
//!
//! Source routes (RFC 1701) are stepped over, and so is the header of WCCP's redirected packets
//! (draft-mclaggan-wccp-v2rev1). Aruba's access points carry 802.11; MikroTik's EoIP shares PPTP's version. NVGRE cannot be
//! told for certain from Ethernet in GRE with a key: it is taken for granted when nothing but the key is there and its VSID
//! is one that the RFC allows; a key whose low 24 bits are zero is not (VMware's mirror sessions put the direction into the
//! high byte).

use super::layers::{Cursor, Layer};
use super::tunnel::{Inside, behind};
use super::{u16_at, u32_at};
use crate::record::TunnelKind;

const CHECKSUM: u16 = 0x8000;
const ROUTING: u16 = 0x4000;
const KEY: u16 = 0x2000;
const SEQUENCE: u16 = 0x1000;
const ACKNOWLEDGEMENT: u16 = 0x0080;

/// Protocol type of MikroTik's Ethernet over IP, whose key is a length and, in the other byte order, the tunnel's id.
const EOIP: u16 = 0x6400;

pub(super) fn open(cursor: Cursor<'_>) -> Option<Inside<'_>> {
    let (flags, kind) = (u16_at(cursor.data, 0)?, u16_at(cursor.data, 2)?);
    match flags & 0x0007 {
        0 => version0(cursor, flags, kind),
        1 => pptp(cursor, flags, kind),
        _ => None,
    }
}

fn version0(cursor: Cursor<'_>, flags: u16, kind: u16) -> Option<Inside<'_>> {
    let optional = |bit: u16| if flags & bit == 0 { 0 } else { 4 };
    let checksum = if flags & (CHECKSUM | ROUTING) == 0 { 0 } else { 4 };
    let key = if flags & KEY == 0 { None } else { Some(u32_at(cursor.data, 4 + checksum)?) };
    let mut cursor = behind(cursor, 4 + checksum + optional(KEY) + optional(SEQUENCE))?;
    if flags & ROUTING != 0 {
        cursor = behind_routes(cursor)?;
    }
    match kind {
        // Type I has no header: the frame follows GRE's.
        0x88be if flags & SEQUENCE == 0 => {
            Some(Inside { kind: TunnelKind::Erspan, id: key, layer: Layer::Ethernet, cursor })
        }
        0x88be => erspan2(cursor),
        0x22eb => erspan3(cursor),
        0x6558 => Some(ethernet(cursor, flags, key)),
        0x6559 => Some(Inside { kind: TunnelKind::Gre, id: key, layer: Layer::Relay, cursor }),
        // Aruba's access points hand on what they hear.
        0x8200..=0x83f0 if kind.is_multiple_of(16) => {
            Some(Inside { kind: TunnelKind::Gre, id: key, layer: Layer::Wlan, cursor })
        }
        0x883e => {
            // The first version has no header.
            let header = if cursor.data.first()? >> 4 == 4 { 0 } else { 4 };
            Some(Inside { kind: TunnelKind::Gre, id: key, layer: Layer::Ip, cursor: behind(cursor, header)? })
        }
        kind => Some(Inside { kind: TunnelKind::Gre, id: key, layer: Layer::EtherType(kind), cursor }),
    }
}

/// Source routes that are stepped over.
const MAX_ROUTES: usize = 16;

/// The cursor behind the list of source routes: family, offset, length, and an empty one at the end.
fn behind_routes(mut cursor: Cursor<'_>) -> Option<Cursor<'_>> {
    for _ in 0..MAX_ROUTES {
        let [f0, f1, _, len] = *cursor.data.first_chunk::<4>()?;
        cursor = behind(cursor, 4 + usize::from(len))?;
        if [f0, f1, len] == [0; 3] {
            return Some(cursor);
        }
    }
    None
}

fn ethernet(cursor: Cursor<'_>, flags: u16, key: Option<u32>) -> Inside<'_> {
    let layer = Layer::Ethernet;
    match key {
        Some(key)
            if flags & (CHECKSUM | SEQUENCE) == 0
                && (0x1000..0x00ff_ffff).contains(&(key >> 8))
                && key & 0x00ff_ffff != 0 =>
        {
            Inside { kind: TunnelKind::Nvgre, id: Some(key >> 8), layer, cursor }
        }
        key => Inside { kind: TunnelKind::Gre, id: key, layer, cursor },
    }
}

/// The key's high half is the payload's length, its low half the call.
fn pptp(cursor: Cursor<'_>, flags: u16, kind: u16) -> Option<Inside<'_>> {
    if kind == EOIP && flags & !0x0007 == KEY {
        let id = cursor.data.get(6..8).and_then(|id| id.first_chunk()).map(|id| u32::from(u16::from_le_bytes(*id)));
        return Some(Inside { kind: TunnelKind::Gre, id, layer: Layer::Ethernet, cursor: behind(cursor, 8)? });
    }
    if kind != 0x880b || flags & KEY == 0 || flags & ROUTING != 0 {
        return None;
    }
    let optional = |bit: u16| if flags & bit == 0 { 0 } else { 4 };
    let id = u16_at(cursor.data, 6).map(u32::from);
    let cursor = behind(cursor, 8 + optional(SEQUENCE) + optional(ACKNOWLEDGEMENT))?;
    Some(Inside { kind: TunnelKind::Gre, id, layer: Layer::Ppp, cursor })
}

fn erspan2(cursor: Cursor<'_>) -> Option<Inside<'_>> {
    let (version, session) = session(&cursor)?;
    if version > 1 {
        return None;
    }
    Some(Inside { kind: TunnelKind::Erspan, id: Some(session), layer: Layer::Ethernet, cursor: behind(cursor, 8)? })
}

/// Twelve bytes, and eight more of the platform's if the last bit says so.
fn erspan3(cursor: Cursor<'_>) -> Option<Inside<'_>> {
    let (version, session) = session(&cursor)?;
    let flags = u16_at(cursor.data, 10)?;
    if version != 2 {
        return None;
    }
    // Frame type 2 is IP without Ethernet.
    let layer = if (flags >> 10) & 0x1f == 2 { Layer::Ip } else { Layer::Ethernet };
    let header = if flags & 1 == 1 { 20 } else { 12 };
    Some(Inside { kind: TunnelKind::Erspan, id: Some(session), layer, cursor: behind(cursor, header)? })
}

fn session(cursor: &Cursor<'_>) -> Option<(u16, u32)> {
    Some((u16_at(cursor.data, 0)? >> 12, u32::from(u16_at(cursor.data, 2)? & 0x03ff)))
}
