//! HTTP/1 (RFC 9112): requests and responses of a connection, matched in order.
//!
//! Either end may ask: what a direction carries is read from its start lines. Bodies are stepped over by their framing,
//! never kept. After a gap in anything but a body, or a line that is none, a direction waits for a segment that begins
//! with a start line; a request of which only the beginning was captured still counts, and ends with the last
//! payload before its answer. How long the message was that it was in is not known.
//!
//! Which request an answer belongs to after that: [`matching`].
//!
//! What a client sends after a CONNECT, and is no request, is kept until the answer says whether it belongs to a tunnel.
//!
//! Limits: [`MAX_EARLY`] bytes of that are kept; the first [`line::MAX_LINE`] bytes of a line are looked at; [`matching::MAX_WAITING`] requests wait for
//! answers, later ones are counted without names and without latency. Where answers passed unseen, the oldest is over
//! instead: what looks like a long pipeline there is a client that got its answers.

mod half;
mod line;
mod matching;

use std::collections::VecDeque;

use self::half::{Half, Head, Kind, Line, State};
pub(crate) use self::line::probe;
use self::matching::{Asked, Waiting};
use super::exchange::End;
use super::http::{HttpSlice, Request};
use crate::app::Probe;
use crate::memory;

/// Most bytes that are kept of what is sent into a tunnel before it is granted: a ClientHello.
const MAX_EARLY: usize = 4096;

/// What the connection carries from now on.
#[derive(Debug)]
pub(crate) enum Switched {
    /// HTTP/2 after an upgrade (RFC 7540, 3.2); the request is answered there.
    Http2(Request),
    /// WebSocket (RFC 6455).
    WebSocket,
    /// Something else after an upgrade.
    Other,
    /// What the tunnel of a CONNECT carries, and what the client sent into it before it was granted, until when.
    Tunnel { early: Vec<u8>, time: i64 },
}

/// A connection.
#[derive(Debug, Default)]
pub(crate) struct Http1 {
    halves: [Half; 2],
    waiting: VecDeque<Waiting>,
    /// Requests after those, without a place.
    unplaced: u32,
    /// The connection was recognised by an end of which alone anything had been seen.
    one_sided: bool,
}

impl Http1 {
    /// Name of the protocol.
    pub(crate) const NAME: &'static str = "http";

    /// A connection; `one_sided` says that nothing of the other end, not its SYN either, was seen when this one was
    /// recognised, and `headless` that the first bytes of a direction were not captured.
    pub(crate) fn new(one_sided: bool, headless: [bool; 2]) -> Self {
        let half = |headless: bool| {
            // Before all that was seen.
            let missed = headless.then_some(1);
            Half { lost: missed, missed, ..Half::default() }
        };
        Self { halves: headless.map(half), one_sided, ..Self::default() }
    }

    /// Bytes of memory owned beside the structure itself.
    pub(crate) fn owned_bytes(&self) -> usize {
        memory::of_queue(&self.waiting)
            + self.waiting.iter().map(|waiting| waiting.request.owned_bytes()).sum::<usize>()
            + self.halves.iter().map(Half::owned_bytes).sum::<usize>()
    }

    /// Takes in the next bytes of a direction. If the connection switches to another protocol, that and the rest of the
    /// bytes, which belong to it.
    pub(crate) fn bytes<'a>(
        &mut self,
        end: End,
        time: i64,
        mut bytes: &'a [u8],
        slice: &mut HttpSlice,
    ) -> Option<(Switched, &'a [u8])> {
        if matches!(self.half(end).state, State::Lost | State::Tunnel) && !self.find_start(end, time, bytes, slice) {
            return None;
        }
        self.resolve_doubt(end, bytes, slice);
        while !bytes.is_empty() {
            let half = self.half(end);
            let length = bytes.len() as u64;
            match half.state {
                State::Body(left) | State::Chunk(left) => {
                    let taken = left.min(length);
                    bytes = bytes.get(taken as usize..).unwrap_or_default();
                    self.step(end, time, taken, slice);
                }
                State::UntilClose => {
                    half.count(length, time);
                    return None;
                }
                State::Lost => {
                    half.last = time;
                    return None;
                }
                State::Tunnel => {
                    half.last = time;
                    half.line.push(bytes, MAX_EARLY);
                    return None;
                }
                State::Start if half.enters_tunnel(bytes) => half.state = State::Tunnel,
                State::Start | State::Fields | State::ChunkSize | State::ChunkEnd | State::Trailer => {
                    if half.state == State::Fields {
                        bytes = half.whole_fields(bytes, time, slice.wants_names());
                    }
                    self.finish_answered(end, slice);
                    let half = self.half(end);
                    let mut kept = std::mem::take(&mut half.line);
                    let (line, rest) = half.next_line(&mut kept, bytes, time);
                    bytes = rest;
                    let mut switched = None;
                    if let Some(line) = line {
                        switched = self.line(end, time, line, slice);
                        kept.clear();
                    }
                    self.half(end).line = kept;
                    if let Some(switched) = switched {
                        return Some((switched, bytes));
                    }
                }
            }
        }
        None
    }

    /// Bytes that were not captured.
    pub(crate) fn gap(&mut self, end: End, time: i64, length: u64, slice: &mut HttpSlice) {
        let half = self.half(end);
        match half.state {
            // When they were sent is not known: the message goes on to the last byte that was captured.
            State::Body(left) | State::Chunk(left) if length <= left => {
                let last = half.last;
                self.step(end, last, length, slice);
            }
            State::UntilClose => half.count(length, time),
            State::Start
            | State::Fields
            | State::Lost
            | State::Body(_)
            | State::Chunk(_)
            | State::ChunkSize
            | State::ChunkEnd
            | State::Trailer
            | State::Tunnel => {
                let begins = half.state == State::Start;
                let kept = std::mem::take(&mut half.line);
                // The line was cut, and so are the fields after it.
                if begins && !kept.bytes.is_empty() {
                    self.line(end, time, Line { bytes: &kept.bytes, cut: true }, slice);
                }
                let in_head = self.half(end).state == State::Fields;
                self.lose(end);
                self.finish_answered(end.other(), slice);
                if in_head {
                    self.cut_head(end, slice);
                }
                // When the bytes passed is not known: at the latest now.
                let half = self.half(end);
                half.lost = Some(time);
                // What a snap length cut is the rest of a segment of which the beginning was read just now.
                if half.last != time {
                    half.missed = half.lost;
                }
            }
        }
    }

    /// How many of the next bytes make no difference.
    pub(crate) fn indifferent(&self, end: End) -> u64 {
        let half = &self.halves[end.index()];
        match half.state {
            State::Body(_) if half.doubtful => 0,
            State::Body(left) | State::Chunk(left) => left,
            State::UntilClose | State::Lost => u64::MAX,
            State::Start | State::Fields | State::ChunkSize | State::ChunkEnd | State::Trailer | State::Tunnel => 0,
        }
    }

    /// Steps over bytes in the middle of a body.
    #[inline]
    pub(crate) fn skip(&mut self, end: End, time: i64, length: u32) -> bool {
        let half = self.half(end);
        let length = u64::from(length);
        match &mut half.state {
            State::Body(left) | State::Chunk(left) if *left > length && !half.doubtful => *left -= length,
            State::UntilClose => {}
            State::Body(_)
            | State::Chunk(_)
            | State::Start
            | State::Fields
            | State::ChunkSize
            | State::ChunkEnd
            | State::Trailer
            | State::Tunnel
            | State::Lost => return false,
        }
        half.count(length, time);
        true
    }

    /// The flow is over: what is open, is handed on as it is.
    pub(crate) fn close(&mut self, slice: &mut HttpSlice) {
        for end in [End::Low, End::High] {
            self.cut_request(end);
            self.half(end).cut_answer();
            self.finish_answer(end, slice);
        }
        self.forgo(self.waiting.len(), slice);
    }

    fn half(&mut self, end: End) -> &mut Half {
        &mut self.halves[end.index()]
    }

    /// A direction goes on with a start line where nothing is known of what comes, or the answer to a CONNECT passed unseen;
    /// whether its bytes are to be read.
    fn find_start(&mut self, end: End, time: i64, bytes: &[u8], slice: &mut HttpSlice) -> bool {
        let half = self.half(end);
        if probe(bytes, false) != Probe::Yes {
            let in_tunnel = half.state == State::Tunnel;
            if !in_tunnel {
                self.extend_lost(end, time);
            }
            return in_tunnel;
        }
        half.refuse_tunnel();
        // The end of its message was lost.
        self.finish_answer(end, slice);
        self.finish_answered(end.other(), slice);
        let half = self.half(end);
        half.uploading = None;
        half.lost = half.lost.max(Some(half.last));
        half.state = State::Start;
        true
    }

    /// A start line in the place of a body that may not come.
    fn resolve_doubt(&mut self, end: End, bytes: &[u8], slice: &mut HttpSlice) {
        let half = self.half(end);
        if std::mem::take(&mut half.doubtful) && probe(bytes, false) == Probe::Yes {
            self.finish_answer(end, slice);
            let half = self.half(end);
            half.uploading = None;
            half.state = State::Start;
        }
    }

    /// Steps over bytes of a body or chunk.
    fn step(&mut self, end: End, time: i64, taken: u64, slice: &mut HttpSlice) {
        let half = self.half(end);
        half.count(taken, time);
        half.doubtful = false;
        match half.state {
            State::Body(left) if left == taken => self.message_end(end, time, slice),
            State::Body(left) => half.state = State::Body(left - taken),
            State::Chunk(left) if left == taken => half.state = State::ChunkEnd,
            State::Chunk(left) => half.state = State::Chunk(left - taken),
            State::Start
            | State::Fields
            | State::ChunkSize
            | State::ChunkEnd
            | State::Trailer
            | State::UntilClose
            | State::Tunnel
            | State::Lost => {}
        }
    }

    fn line(&mut self, end: End, time: i64, line: Line<'_>, slice: &mut HttpSlice) -> Option<Switched> {
        let half = self.half(end);
        match half.state {
            State::Start if line.bytes.is_empty() => {}
            State::Start => self.start_line(end, line, slice),
            State::Fields if line.bytes.is_empty() => return self.head_end(end, time, slice),
            State::Fields => half.head.field(line.bytes, slice.wants_names()),
            State::ChunkSize => {
                half.state = match line::chunk_size(line.bytes) {
                    Some(0) => State::Trailer,
                    Some(size) => State::Chunk(size),
                    None => State::Lost,
                };
            }
            State::ChunkEnd => half.state = if line.bytes.is_empty() { State::ChunkSize } else { State::Lost },
            State::Trailer if line.bytes.is_empty() => self.message_end(end, time, slice),
            State::Trailer | State::Body(_) | State::Chunk(_) | State::UntilClose | State::Tunnel | State::Lost => {}
        }
        None
    }

    fn start_line(&mut self, end: End, line: Line<'_>, slice: &mut HttpSlice) {
        let half = self.half(end);
        half.doubtful = false;
        match Head::parse(line, slice.wants_names()) {
            Some(head) => {
                half.head = head;
                half.state = State::Fields;
            }
            None => half.state = State::Lost,
        }
    }

    /// The head of a message is complete.
    fn head_end(&mut self, end: End, time: i64, slice: &mut HttpSlice) -> Option<Switched> {
        let half = self.half(end);
        half.head_bytes = half.bytes;
        match self.half(end).head.kind {
            Kind::Request(_) => {
                self.ask(end, slice);
                self.half(end).state = self.halves[end.index()].head.request_body();
            }
            Kind::Response(100 | 102..=199) => {
                self.half(end).state = State::Start;
                return None;
            }
            Kind::Response(status) => {
                let (asked, upgrade) = self.answer(end, status, slice);
                let half = self.half(end);
                match (status, asked) {
                    (101, _) => return Some(self.upgrade(end, upgrade, slice)),
                    (200..=299, Asked::Connect) => {
                        self.finish_answer(end, slice);
                        return Some(self.half(end.other()).grant_tunnel());
                    }
                    (_, Asked::Head | Asked::Connect | Asked::Other) => {
                        half.state = half.head.response_body(status, asked == Asked::Head);
                        if asked == Asked::Connect {
                            self.half(end.other()).refuse_tunnel();
                        }
                    }
                }
            }
        }
        if self.half(end).state == State::Start {
            self.message_end(end, time, slice);
        }
        None
    }

    /// The head of a message was cut: what is known of it counts.
    fn cut_head(&mut self, end: End, slice: &mut HttpSlice) {
        match self.half(end).head.kind {
            Kind::Request(_) => {
                self.ask(end, slice);
                self.cut_request(end);
            }
            Kind::Response(100..=199) => {}
            Kind::Response(status) => drop(self.answer(end, status, slice)),
        }
    }

    fn upgrade(&mut self, end: End, asked: half::Upgrade, slice: &mut HttpSlice) -> Switched {
        let half = self.half(end);
        let upgrade = if half.head.upgrade == half::Upgrade::None { asked } else { half.head.upgrade };
        if upgrade == half::Upgrade::Http2
            && let Some(request) = half.answering.take()
        {
            return Switched::Http2(*request);
        }
        self.finish_answer(end, slice);
        if upgrade == half::Upgrade::WebSocket { Switched::WebSocket } else { Switched::Other }
    }

    fn message_end(&mut self, end: End, time: i64, slice: &mut HttpSlice) {
        let half = self.half(end);
        half.state = State::Start;
        match half.head.kind {
            Kind::Request(_) => {
                self.end_request(end, time);
                self.finish_answered(end.other(), slice);
                self.half(end).uploading = None;
            }
            Kind::Response(_) => {
                // What comes of its request belongs to the exchange.
                let asker = &self.halves[end.other().index()];
                let goes_on = asker.state != State::Lost && !asker.doubtful;
                if !(goes_on && self.sends_answered(end.other())) {
                    self.finish_answer(end, slice);
                }
            }
        }
    }

    /// A direction that is lost may still be sending its request.
    fn extend_lost(&mut self, end: End, time: i64) {
        self.half(end).last = time;
        self.end_request(end, time);
    }

    /// The request that this direction sends has no end: it goes on to the last byte that was captured.
    fn cut_request(&mut self, end: End) {
        let last = self.half(end).last;
        self.end_request(end, last);
    }

    /// The last byte so far of the request that this direction sends.
    fn end_request(&mut self, end: End, time: i64) {
        let half = self.half(end);
        let bytes = half.known_bytes();
        let Some(serial) = half.uploading else { return };
        match self.waiting.iter_mut().rev().find(|waiting| waiting.request.serial() == serial) {
            Some(waiting) => {
                waiting.request.end = Some(time);
                waiting.request.bytes = bytes;
            }
            None => self.count_upload(end),
        }
    }

    /// Counts what there is so far of a request that is answered while this direction sends it.
    fn count_upload(&mut self, end: End) {
        let half = self.half(end);
        let (bytes, uploading) = (half.known_bytes(), half.uploading);
        let answering = self.half(end.other()).answering.as_mut();
        if let Some(request) = answering.filter(|request| uploading == Some(request.serial())) {
            request.bytes = bytes;
        }
    }

    /// Whether this end sends the request that the other one answers.
    fn sends_answered(&self, end: End) -> bool {
        let half = &self.halves[end.index()];
        let answering = self.halves[end.other().index()].answering.as_ref();
        answering.is_some_and(|request| half.uploading == Some(request.serial()))
    }

    /// Finishes an answer that was over before its request, when that is over, too.
    fn finish_answered(&mut self, end: End, slice: &mut HttpSlice) {
        let half = self.half(end);
        if half.state == State::Start && half.answering.is_some() {
            self.finish_answer(end, slice);
        }
    }

    /// The answer that this end sends is over. What is not here yet of its request may never come.
    fn finish_answer(&mut self, end: End, slice: &mut HttpSlice) {
        self.count_upload(end.other());
        let sent = if self.sends_answered(end.other()) { self.half(end.other()).last } else { i64::MIN };
        self.half(end).finish_answer(sent, slice);
    }

    fn lose(&mut self, end: End) {
        let half = self.half(end);
        half.state = State::Lost;
        half.line = half::Kept::default();
        self.cut_request(end);
    }
}
