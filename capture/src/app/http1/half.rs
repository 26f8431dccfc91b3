//! One direction of an HTTP/1 connection: where in a message it is, and what the message's head said.

use super::super::http::{HttpSlice, Names, Request};
use super::super::text::{self, MAX_PATH, MAX_TOKEN, clean};
use super::line::probe;
use super::line::{self, Field, MAX_LINE};
use super::matching::Asked;
use super::{Http1, Switched};
use crate::app::Probe;
use crate::memory;

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum State {
    /// A start line.
    #[default]
    Start,
    /// A header field.
    Fields,
    /// So many bytes of a body.
    Body(u64),
    /// The size of a chunk.
    ChunkSize,
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The line end after a chunk.
    ChunkEnd,
    /// A trailer field.
    Trailer,
    /// A body that ends with the connection.
    UntilClose,
    /// What is sent into a tunnel that is not granted yet.
    Tunnel,
    /// Unknown.
    Lost,
}

/// Protocol of an `Upgrade` field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Upgrade {
    #[default]
    None,
    WebSocket,
    Http2,
    Other,
}

/// The last transfer coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    None,
    Chunked,
    Other,
}

/// Request, and what its method means for the answer; or response, and its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Request(Asked),
    Response(u16),
}

/// The head of a message so far.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) upgrade: Upgrade,
    pub(super) names: Names,
    /// The target named the host; the `Host` field does not count.
    absolute: bool,
    content_length: Option<u64>,
    coding: Coding,
    /// The body waits for an interim answer (RFC 9110, 10.1.1).
    pub(super) expects: bool,
}

impl Default for Head {
    fn default() -> Self {
        Self::new(Kind::Request(Asked::Other))
    }
}

impl Head {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            upgrade: Upgrade::None,
            names: Names::default(),
            absolute: false,
            content_length: None,
            coding: Coding::None,
            expects: false,
        }
    }

    /// Reads a start line.
    pub(super) fn parse(line: Line<'_>, wants_names: bool) -> Option<Self> {
        if let Some(status) = line::status(line.bytes) {
            return Some(Self::new(Kind::Response(status)));
        }
        let (method, target) = line::request(line.bytes, line.cut)?;
        let asked = match method {
            b"HEAD" => Asked::Head,
            b"CONNECT" => Asked::Connect,
            _ => Asked::Other,
        };
        let mut head = Self::new(Kind::Request(asked));
        if wants_names {
            head.names.method = Some(clean(method, MAX_TOKEN));
            let absolute = if asked == Asked::Connect { Some([b"", target, b""]) } else { line::absolute(target) };
            match absolute {
                // Its end was cut: it may be the name and password of who asks.
                Some([scheme, _, b""]) if asked != Asked::Connect && line.cuts(target) => {
                    head.names.path = Some(clean(scheme, MAX_PATH));
                }
                Some([scheme, authority, rest]) => {
                    let target = [scheme, text::without_user(authority), rest].concat();
                    head.names.path = Some(clean(&target, MAX_PATH));
                    head.names.host = Some(text::host(authority));
                }
                None => head.names.path = Some(clean(target, MAX_PATH)),
            }
            head.absolute = absolute.is_some();
        }
        Some(head)
    }

    /// Reads a header field.
    pub(super) fn field(&mut self, line: &[u8], wants_names: bool) {
        match line::field(line) {
            Field::Host(host) if wants_names && !self.absolute && self.names.host.is_none() => {
                self.names.host = Some(text::host(host));
            }
            Field::ContentLength(length) => self.content_length = length,
            // None (RFC 2616, 4.4; later ones do not know it): the length holds.
            Field::TransferEncoding(codings) if codings.trim_ascii().eq_ignore_ascii_case(b"identity") => {}
            Field::TransferEncoding(codings) => {
                let chunked = line::ends_with_token(codings, b"chunked");
                self.coding = if chunked { Coding::Chunked } else { Coding::Other };
            }
            Field::Upgrade(protocol) if protocol.eq_ignore_ascii_case(b"websocket") => {
                self.upgrade = Upgrade::WebSocket;
            }
            Field::Upgrade(protocol) if protocol.eq_ignore_ascii_case(b"h2c") => self.upgrade = Upgrade::Http2,
            Field::Upgrade(_) => self.upgrade = Upgrade::Other,
            Field::Expect => self.expects = true,
            Field::Host(_) | Field::Other => {}
        }
    }

    pub(super) fn asked(&self) -> Asked {
        match self.kind {
            Kind::Request(asked) => asked,
            Kind::Response(_) => Asked::Other,
        }
    }

    /// What follows the head of this request (RFC 9112, 6.3).
    pub(super) fn request_body(&self) -> State {
        match (self.coding, self.content_length) {
            (Coding::Chunked, _) => State::ChunkSize,
            (Coding::None | Coding::Other, None | Some(0)) => State::Start,
            (Coding::None | Coding::Other, Some(length)) => State::Body(length),
        }
    }

    /// What follows the head of this response (RFC 9112, 6.3).
    pub(super) fn response_body(&self, status: u16, to_head: bool) -> State {
        if to_head || matches!(status, 100..=199 | 204 | 304) {
            return State::Start;
        }
        match (self.coding, self.content_length) {
            (Coding::Chunked, _) => State::ChunkSize,
            (Coding::None, Some(0)) => State::Start,
            (Coding::None, Some(length)) => State::Body(length),
            (Coding::None, None) | (Coding::Other, _) => State::UntilClose,
        }
    }
}

/// A line without its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    pub(super) bytes: &'a [u8],
    /// Its end is missing.
    pub(super) cut: bool,
}

impl Line<'_> {
    /// Whether it was cut within this, with which it ends.
    fn cuts(&self, part: &[u8]) -> bool {
        self.cut && self.bytes.ends_with(part)
    }
}

/// The beginning of a line whose end did not arrive yet.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) bytes: Vec<u8>,
    cut: bool,
}

impl Kept {
    /// Keeps what there is room for.
    pub(super) fn push(&mut self, bytes: &[u8], limit: usize) {
        let room = limit.saturating_sub(self.bytes.len());
        self.cut |= bytes.len() > room;
        self.bytes.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    /// Bytes of memory owned beside the structure itself.
    fn owned_bytes(&self) -> usize {
        memory::of_vec(&self.bytes)
    }

    /// Makes room for the next line.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.cut = false;
    }
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Half {
    pub(super) state: State,
    pub(super) line: Kept,
    pub(super) head: Head,
    /// When the start line began, and when the last byte was seen.
    pub(super) began: i64,
    pub(super) last: i64,
    /// Bytes of the message, and of its head.
    pub(super) bytes: u64,
    pub(super) head_bytes: u64,
    /// Until when messages may have passed unseen, while that matters.
    pub(super) lost: Option<i64>,
    /// The same of whole segments, not of what a snap length cut.
    pub(super) missed: Option<i64>,
    /// The body may not come: a start line may follow instead.
    pub(super) doubtful: bool,
    /// The request that this direction sends.
    pub(super) uploading: Option<u32>,
    /// The request that this direction answers.
    pub(super) answering: Option<Box<Request>>,
}

impl Half {
    /// Bytes of memory owned beside the structure itself.
    pub(super) fn owned_bytes(&self) -> usize {
        let answering = self.answering.as_ref();
        self.line.owned_bytes()
            + self.head.names.owned_bytes()
            + answering.map_or(0, |request| memory::of_box::<Request>() + request.owned_bytes())
    }

    /// Reads header fields where they are, for as long as all of one is there; what follows is for [`Self::next_line`].
    pub(super) fn whole_fields<'b>(&mut self, mut bytes: &'b [u8], time: i64, wants_names: bool) -> &'b [u8] {
        while self.line.bytes.is_empty()
            && let Some(end) = line::find_end(bytes)
            && let Some((line, rest)) = bytes.split_at_checked(end + 1)
            && let [field @ .., b'\r', b'\n'] = line
            && !field.is_empty()
            && field.len() < MAX_LINE
        {
            self.head.field(field, wants_names);
            self.count(line.len() as u64, time);
            bytes = rest;
        }
        bytes
    }

    /// The next line, if its end is there, and the rest of the bytes; else keeps what there is of it.
    pub(super) fn next_line<'k, 'b: 'k>(
        &mut self,
        kept: &'k mut Kept,
        bytes: &'b [u8],
        time: i64,
    ) -> (Option<Line<'k>>, &'b [u8]) {
        if self.state == State::Start && kept.bytes.is_empty() {
            self.began = time;
            self.bytes = 0;
        }
        let Some(end) = line::find_end(bytes) else {
            self.count(bytes.len() as u64, time);
            kept.push(bytes, MAX_LINE);
            return (None, &[]);
        };
        let (line, rest) = bytes.split_at(end);
        let rest = rest.get(1..).unwrap_or_default();
        self.count(end as u64 + 1, time);
        let line = if kept.bytes.is_empty() {
            Line { bytes: line.get(..MAX_LINE).unwrap_or(line), cut: line.len() > MAX_LINE }
        } else {
            kept.push(line, MAX_LINE);
            Line { bytes: &kept.bytes, cut: kept.cut }
        };
        (Some(Line { bytes: line::trim(line.bytes), ..line }), rest)
    }

    /// Whether the next bytes are for the tunnel that was asked for, and not the next request.
    pub(super) fn enters_tunnel(&self, bytes: &[u8]) -> bool {
        self.head.asked() == Asked::Connect && self.line.bytes.is_empty() && probe(bytes, false) == Probe::No
    }

    /// The tunnel that was asked for is there.
    pub(super) fn grant_tunnel(&mut self) -> Switched {
        let kept = std::mem::take(&mut self.line);
        let early = if self.state == State::Tunnel && !kept.cut { kept.bytes } else { Vec::new() };
        Switched::Tunnel { early, time: self.last }
    }

    /// If a tunnel was asked for, it does not come: what was sent into it is nothing, and a request may follow.
    pub(super) fn refuse_tunnel(&mut self) {
        if self.state == State::Tunnel {
            self.state = State::Lost;
            self.line = Kept::default();
        }
        if self.head.asked() == Asked::Connect && self.state != State::Fields {
            self.head = Head::default();
        }
    }

    /// Bytes of the message were seen.
    pub(super) fn count(&mut self, length: u64, time: i64) {
        self.bytes += length;
        self.last = time;
    }

    /// Bytes of the message so far; 0, which no message has, if some may be lost.
    pub(super) fn known_bytes(&self) -> u64 {
        if self.state == State::Lost { 0 } else { self.bytes }
    }

    /// Nothing more comes: an answer that is not over is cut off.
    pub(super) fn cut_answer(&mut self) {
        let Some(request) = &mut self.answering else { return };
        request.cut = match self.state {
            State::Body(_) | State::Chunk(_) | State::ChunkSize | State::ChunkEnd | State::Trailer => !self.doubtful,
            State::Start | State::Fields | State::UntilClose | State::Tunnel | State::Lost => false,
        };
    }

    /// The answer that this direction sends is over; its request was sent until then.
    pub(super) fn finish_answer(&mut self, sent: i64, slice: &mut HttpSlice) {
        if let Some(mut request) = self.answering.take() {
            request.response_bytes = self.known_bytes();
            slice.finish(Http1::NAME, *request, self.last.max(sent));
        }
    }
}
