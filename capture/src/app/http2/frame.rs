//! Frames of HTTP/2 (RFC 9113, 4 and 6).

use super::hpack::{Decoder, Name};
use crate::app::Probe;

/// What a client sends first (RFC 9113, 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Length of a frame's header.
pub(super) const HEADER: usize = 9;

/// Longest frame without a setting that allows more (RFC 9113, 4.2).
const DEFAULT_LENGTH: u32 = 16_384;

/// Frames of a segment that are looked at to recognise it.
const MAX_WALKED: usize = 8;

pub(super) const END_STREAM: u8 = 0x01;
pub(super) const END_HEADERS: u8 = 0x04;
pub(super) const PADDED: u8 = 0x08;
pub(super) const PRIORITY: u8 = 0x20;

/// Kinds of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Kind {
    Data,
    Headers,
    Priority,
    Reset,
    Settings,
    Push,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// An extension; receivers ignore it (RFC 9113, 5.5).
    #[default]
    Extension,
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Frame {
    pub(super) length: u32,
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Frame {
    /// Reads a header; `None` if it is malformed.
    pub(super) fn parse(header: [u8; HEADER]) -> Option<Self> {
        let [l2, l1, l0, kind, flags, s3, s2, s1, s0] = header;
        let length = u32::from_be_bytes([0, l2, l1, l0]);
        let stream = u32::from_be_bytes([s3 & 0x7f, s2, s1, s0]);
        let kind = match kind {
            0 => Kind::Data,
            1 => Kind::Headers,
            2 => Kind::Priority,
            3 => Kind::Reset,
            4 => Kind::Settings,
            5 => Kind::Push,
            6 => Kind::Ping,
            7 => Kind::GoAway,
            8 => Kind::WindowUpdate,
            9 => Kind::Continuation,
            _ => Kind::Extension,
        };
        let fits = match kind {
            Kind::Data | Kind::Headers | Kind::Push | Kind::Continuation => stream != 0,
            Kind::Priority => stream != 0 && length == 5,
            Kind::Reset => stream != 0 && length == 4,
            Kind::Settings => stream == 0 && length.is_multiple_of(6),
            Kind::Ping => stream == 0 && length == 8,
            Kind::GoAway => stream == 0 && length >= 8,
            Kind::WindowUpdate => length == 4,
            Kind::Extension => true,
        };
        fits.then_some(Self { length, kind, flags, stream })
    }

    /// Whether its payload belongs to a header block.
    pub(super) fn has_block(self) -> bool {
        matches!(self.kind, Kind::Headers | Kind::Push | Kind::Continuation)
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether it looks like a frame where none is expected.
    fn is_plausible(self) -> bool {
        let allowed = match self.kind {
            Kind::Data => END_STREAM | PADDED,
            Kind::Headers => END_STREAM | END_HEADERS | PADDED | PRIORITY,
            Kind::Push => END_HEADERS | PADDED,
            Kind::Continuation => END_HEADERS,
            Kind::Settings | Kind::Ping => END_STREAM,
            Kind::Priority | Kind::Reset | Kind::GoAway | Kind::WindowUpdate => 0,
            Kind::Extension => return false,
        };
        self.flags & !allowed == 0 && self.length <= DEFAULT_LENGTH
    }

    /// The stream that a server promises (RFC 9113, 6.6).
    pub(super) fn promised(self, payload: &[u8]) -> Option<u32> {
        let payload = payload.get(usize::from(self.has(PADDED))..)?;
        let stream = u32::from_be_bytes(*payload.first_chunk()?) & 0x7fff_ffff;
        (self.kind == Kind::Push).then_some(stream)
    }

    /// The part of a header block in the payload of this frame; the end of a payload that was cut is missing.
    pub(super) fn fragment(self, payload: &[u8], cut: bool) -> Option<&[u8]> {
        if self.kind == Kind::Continuation {
            return Some(payload);
        }
        let (padding, mut rest) = if self.has(PADDED) {
            payload.split_first().map(|(padding, rest)| (usize::from(*padding), rest))?
        } else {
            (0, payload)
        };
        if self.kind == Kind::Push {
            rest = rest.get(4..)?;
        } else if self.has(PRIORITY) {
            rest = rest.get(5..)?;
        }
        if cut { Some(rest) } else { rest.get(..rest.len().checked_sub(padding)?) }
    }
}

/// Whether a segment consists of frames.
pub(super) fn is_chain(bytes: &[u8]) -> bool {
    walk(bytes, |_, _, _| {})
}

/// Whether a direction that begins like this is HTTP/2. Without the preface (a server, or midstream) a whole segment of
/// frames is asked for, with the settings that a server begins with or a header block that decodes.
pub(crate) fn probe(bytes: &[u8]) -> Probe {
    let shown = bytes.len().min(PREFACE.len());
    if bytes.get(..shown) == PREFACE.get(..shown) {
        return if shown == PREFACE.len() { Probe::Yes } else { Probe::More };
    }
    let mut certain = false;
    let chained = walk(bytes, |index, frame, payload| {
        certain |= match frame.kind {
            Kind::Settings => index == 0 && frame.flags == 0 && are_settings(payload),
            Kind::Headers => frame.has(END_HEADERS) && frame.fragment(payload, false).is_some_and(is_block),
            Kind::Data
            | Kind::Priority
            | Kind::Reset
            | Kind::Push
            | Kind::Ping
            | Kind::GoAway
            | Kind::WindowUpdate
            | Kind::Continuation
            | Kind::Extension => false,
        };
    });
    Probe::certain(chained && certain)
}

/// Known identifiers with values in their ranges (RFC 9113, 6.5.2; 8441; 9218).
fn are_settings(payload: &[u8]) -> bool {
    !payload.is_empty()
        && payload.chunks(6).all(|setting| match setting {
            [0, id @ (1..=6 | 8 | 9), value @ ..] => match (id, value) {
                (2 | 8 | 9, [0, 0, 0, 0 | 1]) => true,
                (2 | 8 | 9, _) => false,
                (5, [high, ..]) => *high == 0,
                (_, _) => true,
            },
            // gRPC's own settings.
            [0xfe, 3, ..] => true,
            _ => false,
        })
}

fn is_block(block: &[u8]) -> bool {
    let mut pseudo = false;
    let decoded = Decoder::default().decode(block, &mut |name, value| {
        pseudo |= match name {
            Name::Status => value.len() == 3 && value.iter().all(u8::is_ascii_digit),
            Name::Method => value.iter().all(u8::is_ascii_uppercase),
            Name::Path => value.first() == Some(&b'/'),
            Name::Authority | Name::ContentType | Name::GrpcStatus | Name::Host | Name::Lost | Name::Other => false,
        };
    });
    decoded.is_some() && pseudo
}

/// Whether a segment consists of plausible frames, of which only the last may go on after it; `each` is given those that
/// are whole.
fn walk(bytes: &[u8], mut each: impl FnMut(usize, Frame, &[u8])) -> bool {
    let mut rest = bytes;
    for index in 0..MAX_WALKED {
        let Some((header, after)) = rest.split_first_chunk::<HEADER>() else {
            // The header of the next frame may be cut by the end of the segment, if another came before.
            return index > 0;
        };
        let frame = Frame::parse(*header).filter(|frame| header[5] & 0x80 == 0 && frame.is_plausible());
        let Some(frame) = frame else { return false };
        let Some((payload, after)) = after.split_at_checked(frame.length as usize) else {
            return matches!(frame.kind, Kind::Data | Kind::Headers);
        };
        each(index, frame, payload);
        rest = after;
    }
    true
}
