//! Long headers (RFC 9000, 17.2; RFC 9369, 3.2) and the versions whose Initial packets can be opened.

use crate::app::cursor::Cursor;

/// Longest connection id in the versions that are known (RFC 9000, 17.2).
pub(super) const MAX_CONNECTION_ID: usize = 20;

/// What versions differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dialect {
    /// Salt of the Initial secret.
    pub(super) salt: &'static [u8; 20],
    /// Begin of the labels of keys.
    pub(super) label: &'static str,
    /// Type of an Initial and of a Retry packet, in bits 4 and 5 of the first byte.
    initial: u8,
    retry: u8,
}

/// RFC 9000, and drafts 33 and 34.
static V1: Dialect = Dialect {
    salt: b"\x38\x76\x2c\xf7\xf5\x59\x34\xb3\x4d\x17\x9a\xe6\xa4\xc8\x0c\xad\xcc\xbb\x7f\x0a",
    label: "quic ",
    initial: 0,
    retry: 3,
};

/// RFC 9369.
static V2: Dialect = Dialect {
    salt: b"\x0d\xed\xe3\xde\xf7\x00\xa6\xdb\x81\x93\x81\xbe\x6e\x26\x9d\xcb\xf9\xbd\x2e\xd9",
    label: "quicv2 ",
    initial: 1,
    retry: 0,
};

/// Drafts 29 to 32.
static DRAFT_29: Dialect =
    Dialect { salt: b"\xaf\xbf\xec\x28\x99\x93\xd2\x4c\x9e\x97\x86\xf1\x9c\x61\x11\xe0\x43\x90\xa8\x99", ..V1 };

/// Drafts 23 to 28.
static DRAFT_23: Dialect =
    Dialect { salt: b"\xc3\xee\xf7\x12\xc7\x2e\xbb\x5a\x11\xa7\xd2\x43\x2b\xb4\x63\x65\xbe\xf9\xf5\x02", ..V1 };

/// Draft 22.
static DRAFT_22: Dialect =
    Dialect { salt: b"\x7f\xbc\xdb\x0e\x7c\x66\xbb\xe9\x19\x3a\x96\xcd\x21\x51\x9e\xbd\x7a\x02\x64\x4a", ..V1 };

/// Google's `T050`.
static GOOGLE_T050: Dialect =
    Dialect { salt: b"\x7f\xf5\x79\xe5\xac\xd0\x72\x91\x55\x80\x30\x4c\x43\xa2\x36\x7c\x60\x48\x83\x10", ..V1 };

/// Google's `T051`.
static GOOGLE_T051: Dialect =
    Dialect { salt: b"\x7a\x4e\xde\xf4\xe7\xcc\xee\x5f\xa4\x50\x6c\x19\x12\x4f\xc8\xcc\xda\x6e\x03\x3d", ..V1 };

/// The dialect of a version, if it is one that can be opened. `faceb0..` are Facebook's names for drafts.
pub(super) fn dialect(version: u32) -> Option<&'static Dialect> {
    Some(match version {
        0x0000_0001 | 0xff00_0021..=0xff00_0022 => &V1,
        0x6b33_43cf => &V2,
        0xff00_001d..=0xff00_0020 => &DRAFT_29,
        0xff00_0017..=0xff00_001c | 0xface_b002 | 0xface_b00e => &DRAFT_23,
        0xff00_0016 | 0xface_b001 => &DRAFT_22,
        0x5430_3530 => &GOOGLE_T050,
        0x5430_3531 => &GOOGLE_T051,
        _ => return None,
    })
}

/// Google's versions: `Q`, whose handshake is not TLS, or `T` and three digits.
pub(super) const fn is_google(version: u32) -> bool {
    matches!(version.to_be_bytes(), [b'Q' | b'T', b'0', b'0'..=b'9', b'0'..=b'9'])
}

/// Versions that clients name so that servers negotiate (RFC 9000, 15).
pub(super) const fn is_grease(version: u32) -> bool {
    version & 0x0f0f_0f0f == 0x0a0a_0a0a
}

/// What a long header leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Initial,
    Retry,
    /// 0-RTT or Handshake.
    Other,
}

/// A long header of a version that can be opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header<'a> {
    pub(super) kind: Kind,
    pub(super) version: u32,
    pub(super) dialect: &'static Dialect,
    /// Destination connection id.
    pub(super) dcid: &'a [u8],
    /// Where the packet number is.
    pub(super) number_at: usize,
    /// Where the packet ends, and in the datagram the next may begin.
    pub(super) end: usize,
}

impl<'a> Header<'a> {
    /// Reads the header at the front of `datagram`; the snap length may have cut what follows it.
    pub(super) fn read(datagram: &'a [u8]) -> Option<Self> {
        let mut header = Cursor::new(datagram);
        let first = header.u8()?;
        // Header form and fixed bit.
        if first & 0xc0 != 0xc0 {
            return None;
        }
        let version = header.u32()?;
        let dialect = dialect(version)?;
        let dcid = header.vec8()?;
        let scid = header.vec8()?;
        if dcid.len() > MAX_CONNECTION_ID || scid.len() > MAX_CONNECTION_ID {
            return None;
        }
        let kind = match first >> 4 & 3 {
            kind if kind == dialect.initial => Kind::Initial,
            kind if kind == dialect.retry => Kind::Retry,
            _ => Kind::Other,
        };
        if kind == Kind::Initial {
            let token = varint(&mut header)?;
            header.take(token.try_into().ok()?)?;
        }
        // A Retry has its token and tag up to the end of the datagram.
        let length = if kind == Kind::Retry { None } else { Some(varint(&mut header)?) };
        let number_at = datagram.len() - header.rest().len();
        let end = match length {
            None => datagram.len(),
            Some(length) => number_at.checked_add(length.try_into().ok()?)?,
        };
        Some(Self { kind, version, dialect, dcid, number_at, end })
    }
}

/// A variable-length integer (RFC 9000, 16).
pub(super) fn varint(bytes: &mut Cursor<'_>) -> Option<u64> {
    let first = bytes.u8()?;
    let rest = bytes.take((1 << (first >> 6)) - 1)?;
    Some(rest.iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte)))
}
