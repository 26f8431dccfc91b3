//! One direction of an HTTP/2 connection: where in a frame it is, and its header blocks.

use super::super::http::Names;
use super::super::text::{self, MAX_PATH, MAX_TOKEN, clean};
use super::MAX_BLOCK;
use super::frame::{END_HEADERS, Frame, HEADER, Kind, PREFACE};
use super::hpack::{Decoder, Name};
use crate::memory;

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum State {
    /// The preface, or the first frame.
    #[default]
    Preface,
    /// A frame's header.
    Header,
    /// So many bytes of its payload.
    Payload(u32),
    /// Unknown.
    Lost,
}

/// What a header block says.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) names: Names,
    /// It has what only requests have.
    pub(super) asks: bool,
    pub(super) status: Option<u16>,
    /// It belongs to a call of gRPC.
    pub(super) grpc: bool,
    pub(super) grpc_status: Option<u16>,
    /// Some of it is not here, or refers to something that was lost.
    pub(super) lost: bool,
}

impl Fields {
    /// Whether it says that a request failed.
    pub(super) fn is_error(&self) -> bool {
        self.status.is_some_and(|status| status >= 400) || self.grpc_status.is_some_and(|code| code != 0)
    }

    fn add(&mut self, name: Name, value: &[u8], wants_names: bool) {
        match name {
            Name::Method | Name::Path | Name::Authority => {
                self.asks = true;
                if wants_names {
                    self.name(name, value);
                }
            }
            Name::Host if wants_names => self.name(name, value),
            Name::Status => self.status = number(value),
            Name::ContentType => self.grpc |= value.starts_with(b"application/grpc"),
            Name::GrpcStatus => {
                self.grpc = true;
                self.grpc_status = number(value);
            }
            Name::Lost => self.lost = true,
            Name::Host | Name::Other => {}
        }
    }

    /// Keeps the first value: a block has each name once, the authority before other fields (RFC 9113, 8.3), and making
    /// text of every repetition would let a byte of HPACK cost microseconds.
    fn name(&mut self, name: Name, value: &[u8]) {
        let Names { method, host, path } = &mut self.names;
        match name {
            Name::Method => {
                method.get_or_insert_with(|| clean(value, MAX_TOKEN));
            }
            Name::Path => {
                path.get_or_insert_with(|| clean(value, MAX_PATH));
            }
            Name::Authority | Name::Host => {
                host.get_or_insert_with(|| text::host(value));
            }
            Name::Status | Name::ContentType | Name::GrpcStatus | Name::Lost | Name::Other => {}
        }
    }
}

fn number(value: &[u8]) -> Option<u16> {
    str::from_utf8(value).ok()?.parse().ok()
}

/// A header block: its first frame, and the payload of that and of its continuations.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub(super) first: Frame,
    /// When that began.
    pub(super) began: i64,
    pub(super) bytes: u64,
}

/// The streams that an end opened since bytes were last missing. Their numbers go up (RFC 9113, 5.1.1).
#[derive(Debug, Default)]
pub(super) struct Opened {
    first: u32,
    last: u32,
}

impl Opened {
    /// Takes in a stream on which a header block came; whether the block is the stream's first.
    pub(super) fn open(&mut self, stream: u32) -> bool {
        let new = stream > self.last;
        if new {
            self.first = if self.first == 0 { stream } else { self.first };
            self.last = stream;
        }
        new
    }

    /// Whether it is among them, and so is over if nobody waits for it.
    pub(super) fn contains(&self, stream: u32) -> bool {
        self.first > 0 && (self.first..=self.last).contains(&stream)
    }
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Half {
    pub(super) state: State,
    pub(super) opened: Opened,
    /// When the last byte was captured.
    pub(super) last: i64,
    /// The frame whose payload comes, and when its header began.
    pub(super) frame: Frame,
    began: i64,
    /// The direction began with the preface.
    pub(super) had_preface: bool,
    /// Bytes of the preface or of a frame's header that are there.
    have: u8,
    header: [u8; HEADER],
    /// Payload so far of a frame with a header block.
    pub(super) kept: Vec<u8>,
    /// Something is missing at the end of `kept`, and of the block.
    pub(super) cut: bool,
    /// The header block that continuations go on.
    open: Option<Block>,
    /// The stream that it promises.
    pub(super) promised: u32,
    block: Vec<u8>,
    /// Something is missing in the block; what follows cannot be read.
    closed: bool,
    decoder: Decoder,
}

impl Half {
    /// Bytes of memory owned beside the structure itself.
    pub(super) fn owned_bytes(&self) -> usize {
        memory::of_vec(&self.kept) + memory::of_vec(&self.block) + self.decoder.owned_bytes()
    }

    /// Whether the beginning of the preface was read.
    pub(super) const fn has_begun(&self) -> bool {
        self.have > 0
    }

    /// Reads the preface, if there is one; the rest of the bytes.
    pub(super) fn preface<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let expected = PREFACE.get(usize::from(self.have)..).unwrap_or_default();
        let same = expected.iter().zip(bytes).take_while(|(expected, byte)| expected == byte).count();
        let rest = bytes.get(same..).unwrap_or_default();
        self.have += same as u8;
        if usize::from(self.have) == PREFACE.len() {
            self.had_preface = true;
            self.state = State::Header;
            self.have = 0;
        } else if !rest.is_empty() {
            self.state = if self.have == 0 { State::Header } else { State::Lost };
            self.have = 0;
        }
        rest
    }

    /// Reads a frame's header; the rest of the bytes.
    pub(super) fn header<'a>(&mut self, time: i64, bytes: &'a [u8]) -> &'a [u8] {
        if self.have == 0 {
            self.began = time;
        }
        let missing = HEADER - usize::from(self.have).min(HEADER);
        let (new, rest) = bytes.split_at(bytes.len().min(missing));
        if let Some(place) = self.header.get_mut(usize::from(self.have)..usize::from(self.have) + new.len()) {
            place.copy_from_slice(new);
        }
        self.have += new.len() as u8;
        if usize::from(self.have) == HEADER {
            self.have = 0;
            self.kept.clear();
            // A block is not interrupted by other frames (RFC 9113, 6.10).
            match Frame::parse(self.header).filter(|frame| self.open.is_none() || frame.kind == Kind::Continuation) {
                Some(frame) => {
                    self.frame = frame;
                    self.state = State::Payload(frame.length);
                }
                None => self.lose(),
            }
        }
        rest
    }

    /// Keeps payload of a header block.
    pub(super) fn keep(&mut self, payload: &[u8]) {
        let room = MAX_BLOCK.saturating_sub(self.kept.len());
        self.cut |= payload.len() > room;
        self.kept.extend_from_slice(payload.get(..room).unwrap_or(payload));
    }

    /// A frame with a header block is complete; if the block is, that and what it says.
    pub(super) fn block(&mut self, payload: &[u8], wants_names: bool) -> Option<(Block, Fields)> {
        let frame = self.frame;
        let open = self.open.get_or_insert(Block { first: frame, began: self.began, bytes: 0 });
        open.bytes += u64::from(frame.length);
        let (first, open) = (open.first, *open);
        if let Some(promised) = frame.promised(payload) {
            self.promised = promised;
        }
        if first.kind == Kind::Continuation {
            // Its beginning was lost.
            self.cut = true;
        }
        let fragment = if self.closed { None } else { frame.fragment(payload, self.cut) };
        let fragment = fragment.unwrap_or_default();
        self.closed |= self.cut;
        if !frame.has(END_HEADERS) || !self.block.is_empty() {
            let room = MAX_BLOCK.saturating_sub(self.block.len());
            self.cut |= fragment.len() > room;
            self.block.extend_from_slice(fragment.get(..room).unwrap_or(fragment));
        }
        if !frame.has(END_HEADERS) {
            return None;
        }
        let mut block = std::mem::take(&mut self.block);
        let mut fields = Fields { lost: self.cut || self.closed, ..Fields::default() };
        if first.kind != Kind::Continuation {
            let whole = if block.is_empty() { fragment } else { &block };
            // Of a malformed block counts what came before.
            let _ = self.decoder.decode(whole, &mut |name, value| fields.add(name, value, wants_names));
        }
        if self.cut {
            self.decoder.forget();
        }
        block.clear();
        self.block = block;
        self.open = None;
        (self.cut, self.closed) = (false, false);
        Some((open, fields))
    }

    /// Bytes are missing, or are no frames.
    pub(super) fn lose(&mut self) {
        self.state = State::Lost;
        self.have = 0;
        self.opened = Opened::default();
        self.kept = Vec::new();
        self.block = Vec::new();
        self.open = None;
        (self.cut, self.closed) = (false, false);
        self.decoder.forget();
    }
}
