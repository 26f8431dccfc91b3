//! HTTP/2 in the clear (RFC 9113), and gRPC over it: requests and responses by stream.
//!
//! Recognised by the client's preface, after an upgrade of HTTP/1, and midstream by a segment of frames whose header
//! block decodes ([`frame::probe`]). Payload other than header blocks is stepped over, never kept. Latency runs from
//! the end of the request (`END_STREAM`) to the first byte of the final response's header block; a response that begins
//! before the request ended has none (streaming calls). A call whose `grpc-status` is not 0, or that is reset without
//! one, counts as an error.
//!
//! An exchange is over with the end of its answer, or with a reset; what its ends still send then is nothing new.
//!
//! A message is as long as the payload of its frames of headers and data; where whole frames are missing, and of a request that
//! goes on after its answer, that is not known.
//!
//! A gap in a payload is subtracted; a header block with a gap is read up to there. A gap that swallows a frame's
//! header makes the direction wait for a segment that consists of frames. What lost blocks had added to the HPACK table
//! is unknown from then on (see [`hpack`]): such names are null, later ones are right again.
//!
//! Limits: [`MAX_NAMED`] requests wait for answers with their names, later ones without; of more than [`MAX_STREAMS`] the oldest
//! is given up, and of its answer counts only whether it is an error. A header block is kept up to
//! [`MAX_BLOCK`] bytes. They wait in the order of their streams' numbers, in which those of an end begin. It is a tree: promised streams come
//! between the others, and any may end first, so that in a queue some bytes would move thousands of requests.

mod frame;
mod half;
mod hpack;
mod huffman;

use std::collections::BTreeMap;

pub(crate) use self::frame::probe;
use self::frame::{END_STREAM, Kind};
use self::half::{Block, Fields, Half, State};
use super::exchange::End;
use super::http::{HttpSlice, Request};
use crate::memory;

/// Most requests that wait for their answers with their names: more than what servers allow at once (100 by RFC 9113, 6.5.2;
/// nginx 128, Go 250), but for those that allow any number (gRPC).
const MAX_NAMED: usize = 1024;

/// Most requests that wait for their answers.
const MAX_STREAMS: usize = 4096;

/// Most bytes of a header block that are kept.
const MAX_BLOCK: usize = 16 * 1024;

#[derive(Debug)]
struct Waiting {
    request: Request,
    last: i64,
    /// Frames of the request, and of the answer, may have passed unseen: how long it is, is not known.
    unsure: [bool; 2],
    /// One of its ends said that it is a call of gRPC.
    grpc: bool,
}

impl Waiting {
    fn new(request: Request, last: i64) -> Self {
        Self { request, last, unsure: [false; 2], grpc: false }
    }

    /// Whether it is a call of gRPC that has no status so far: one that ends like this has failed.
    fn is_open_call(&self) -> bool {
        let Request { status, grpc_status, .. } = &self.request;
        self.grpc && grpc_status.is_none() && status.is_none_or(|status| status < 400)
    }
}

/// A connection.
#[derive(Debug, Default)]
pub(crate) struct Http2 {
    halves: [Half; 2],
    /// By stream.
    waiting: BTreeMap<u32, Waiting>,
    /// Bytes of memory that their names take.
    names: usize,
    /// The last stream that was given up.
    given_up: u32,
    client: Option<End>,
    grpc: bool,
}

impl Http2 {
    /// A connection that HTTP/1 became; the request that asked for it is the first stream's (RFC 7540, 3.2).
    pub(crate) fn upgraded(client: End, request: Request) -> Self {
        let (last, names) = (request.start, request.owned_bytes());
        let waiting = [(1, Waiting::new(request, last))].into();
        let mut http2 = Self { waiting, names, client: Some(client), ..Self::default() };
        http2.halves[client.index()].opened.open(1);
        http2
    }

    /// Bytes of memory owned beside the structure itself.
    pub(crate) fn owned_bytes(&self) -> usize {
        memory::of_tree(&self.waiting) + self.names + self.halves.iter().map(Half::owned_bytes).sum::<usize>()
    }

    /// Whether nothing came of a direction so far.
    pub(crate) fn is_silent(&self, end: End) -> bool {
        let half = &self.halves[end.index()];
        half.state == State::Preface && !half.has_begun()
    }

    /// Whether a call of gRPC was seen.
    pub(crate) fn is_grpc(&self) -> bool {
        self.grpc
    }

    /// Takes in the next bytes of a direction.
    pub(crate) fn bytes(&mut self, end: End, time: i64, mut bytes: &[u8], slice: &mut HttpSlice) {
        let half = &mut self.halves[end.index()];
        half.last = time;
        if half.state == State::Lost && frame::is_chain(bytes) {
            half.state = State::Header;
        }
        while !bytes.is_empty() {
            let half = &mut self.halves[end.index()];
            match half.state {
                State::Preface => {
                    bytes = half.preface(bytes);
                    if half.state == State::Header && half.had_preface {
                        self.client = Some(end);
                    }
                }
                State::Header => {
                    bytes = half.header(time, bytes);
                    self.begin_frame(end, time, slice);
                }
                State::Payload(left) => {
                    let (payload, rest) = bytes.split_at(bytes.len().min(left as usize));
                    bytes = rest;
                    self.payload(end, time, payload, slice);
                }
                State::Lost => return,
            }
        }
    }

    /// Bytes that were not captured. When they passed is not known: a frame that ends with them goes on to the last
    /// byte that was.
    pub(crate) fn gap(&mut self, end: End, length: u64, slice: &mut HttpSlice) {
        let half = &mut self.halves[end.index()];
        let last = half.last;
        match half.state {
            State::Payload(left) if length <= u64::from(left) => {
                half.cut |= half.frame.has_block();
                half.state = State::Payload(left - length as u32);
                if u64::from(left) == length {
                    let kept = std::mem::take(&mut half.kept);
                    self.end_frame(end, last, &kept, slice);
                }
            }
            State::Payload(_) | State::Preface | State::Header | State::Lost => self.lose(end),
        }
    }

    /// How many of the next bytes make no difference.
    pub(crate) fn indifferent(&self, end: End) -> u64 {
        let half = &self.halves[end.index()];
        match half.state {
            State::Payload(left) if !half.frame.has_block() => left.into(),
            State::Lost => u64::MAX,
            State::Payload(_) | State::Preface | State::Header => 0,
        }
    }

    /// The flow is over: what is open, is handed on as it is.
    pub(crate) fn close(&mut self, slice: &mut HttpSlice) {
        self.cut_off(End::Low);
        self.cut_off(End::High);
        for (_, mut waiting) in std::mem::take(&mut self.waiting) {
            waiting.request.cut = !waiting.unsure[1];
            Self::finish(waiting, slice);
        }
        self.names = 0;
    }

    fn finish(waiting: Waiting, slice: &mut HttpSlice) {
        let Waiting { mut request, last, unsure, grpc, .. } = waiting;
        // No message has 0.
        let lengths = [&mut request.bytes, &mut request.response_bytes];
        lengths.into_iter().zip(unsure).filter(|(_, unsure)| *unsure).for_each(|(bytes, _)| *bytes = 0);
        // The answer to an upgrade is none.
        request.cut |= !request.is_answered();
        slice.finish(if grpc { "grpc" } else { "http2" }, request, last);
    }

    /// Whole frames of a direction are missing: maybe of any message that is under way there.
    fn lose(&mut self, end: End) {
        self.cut_off(end);
        self.halves[end.index()].lose();
        let asks = self.client == Some(end);
        for Waiting { request, unsure, .. } in self.waiting.values_mut() {
            if asks {
                unsure[0] |= request.end.is_none();
            } else {
                unsure[1] |= request.is_answered();
            }
        }
    }

    /// A frame's header was read, or found malformed.
    fn begin_frame(&mut self, end: End, time: i64, slice: &mut HttpSlice) {
        match self.halves[end.index()].state {
            State::Payload(0) => self.end_frame(end, time, &[], slice),
            State::Lost => self.lose(end),
            State::Payload(_) | State::Preface | State::Header => {}
        }
    }

    /// The frame that passes has no end: what there is of its data counts.
    fn cut_off(&mut self, end: End) {
        let Half { state, frame, last, .. } = self.halves[end.index()];
        if let State::Payload(left) = state
            && frame.kind == Kind::Data
        {
            self.count(end, last, frame.stream, frame.length.saturating_sub(left).into());
        }
    }

    /// Counts payload of an exchange, up to this time.
    fn count(&mut self, end: End, time: i64, stream: u32, bytes: u64) {
        let asks = self.client == Some(end);
        if let Some(waiting) = self.waiting.get_mut(&stream) {
            waiting.last = waiting.last.max(time);
            if asks {
                waiting.request.bytes += bytes;
            } else {
                waiting.request.response_bytes += bytes;
            }
        }
    }

    fn payload(&mut self, end: End, time: i64, payload: &[u8], slice: &mut HttpSlice) {
        let half = &mut self.halves[end.index()];
        let State::Payload(left) = half.state else { return };
        let left = left.saturating_sub(payload.len() as u32);
        half.state = State::Payload(left);
        if left > 0 {
            if half.frame.has_block() && !half.cut {
                half.keep(payload);
            }
        } else if half.frame.has_block() && (half.cut || !half.kept.is_empty()) {
            if !half.cut {
                half.keep(payload);
            }
            let kept = std::mem::take(&mut half.kept);
            self.end_frame(end, time, &kept, slice);
        } else {
            self.end_frame(end, time, payload, slice);
        }
    }

    /// A frame is complete; of a header block its payload is here.
    fn end_frame(&mut self, end: End, time: i64, payload: &[u8], slice: &mut HttpSlice) {
        let half = &mut self.halves[end.index()];
        half.state = State::Header;
        let frame = half.frame;
        match frame.kind {
            Kind::Data => {
                self.count(end, time, frame.stream, frame.length.into());
                if frame.has(END_STREAM) {
                    self.end_stream(end, time, frame.stream, slice);
                }
            }
            Kind::Headers | Kind::Push | Kind::Continuation => {
                let wants_names = slice.wants_names();
                let Some((block, fields)) = half.block(payload, wants_names) else { return };
                let first = block.first;
                if first.kind == Kind::Headers {
                    self.fields(end, &block, fields, slice);
                    self.count(end, time, first.stream, block.bytes);
                    if first.has(END_STREAM) {
                        self.end_stream(end, time, first.stream, slice);
                    }
                } else if first.kind == Kind::Push {
                    // The server asks itself: no request, and nothing to measure.
                    let request = slice.promise(end.other(), block.began, fields.names);
                    let half = &mut self.halves[end.index()];
                    let stream = half.promised;
                    if half.opened.open(stream) && !self.waiting.contains_key(&stream) {
                        self.wait(stream, Waiting::new(request, time), slice);
                    }
                }
            }
            Kind::Reset => {
                self.count(end, time, frame.stream, 0);
                if let Some(waiting) = self.waiting.get_mut(&frame.stream) {
                    waiting.request.cut = true;
                    if waiting.is_open_call() {
                        slice.count_error();
                    }
                }
                self.remove(end, frame.stream, slice);
            }
            Kind::Priority | Kind::Settings | Kind::Ping | Kind::GoAway | Kind::WindowUpdate | Kind::Extension => {}
        }
    }

    /// A header block is complete.
    fn fields(&mut self, end: End, block: &Block, fields: Fields, slice: &mut HttpSlice) {
        let (stream, began) = (block.first.stream, block.began);
        let is_error = fields.is_error();
        if fields.status.is_some() {
            self.client = Some(end.other());
        } else if fields.asks {
            self.client = Some(end);
        }
        self.grpc |= fields.grpc;
        // Where the content type may be a reference to something that was lost, the connection says it.
        let grpc = fields.grpc || (fields.lost && self.grpc);
        if self.client == Some(end) {
            // Trailers say nothing new, whether the exchange waits or is over.
            let new = self.halves[end.index()].opened.open(stream);
            if new && !self.waiting.contains_key(&stream) {
                let request = slice.begin(end, began, fields.names);
                self.wait(stream, Waiting::new(request, began), slice);
            }
        } else if let Some(status @ 200..) = fields.status {
            self.answer(end, began, stream, status, slice);
        }
        let answers = self.client != Some(end);
        let given_up = stream <= self.given_up;
        let Some(waiting) = self.waiting.get_mut(&stream) else {
            if answers && given_up && is_error {
                slice.count_error();
            }
            return;
        };
        waiting.grpc |= grpc;
        if answers && let Some(code) = fields.grpc_status {
            if code != 0 && waiting.is_open_call() {
                slice.count_error();
            }
            waiting.request.grpc_status = Some(code);
        }
    }

    /// Whether a stream on which this end answers was seen to begin: then it was cancelled or given up, if nobody
    /// waits. The even ones are those that it promised itself (RFC 9113, 5.1.1).
    fn is_opened(&self, stream: u32, end: End) -> bool {
        let opener = if stream.is_multiple_of(2) { end } else { end.other() };
        self.halves[opener.index()].opened.contains(stream)
    }

    fn wait(&mut self, stream: u32, mut waiting: Waiting, slice: &mut HttpSlice) {
        if self.waiting.len() >= MAX_STREAMS
            && let Some((&stream, _)) = self.waiting.first_key_value()
            && let Some(oldest) = self.take(stream)
        {
            self.given_up = self.given_up.max(stream);
            Self::finish(oldest, slice);
        }
        if self.waiting.len() >= MAX_NAMED {
            waiting.request.forget_names();
        }
        self.names += waiting.request.owned_bytes();
        self.waiting.insert(stream, waiting);
    }

    /// Takes out the one of this stream.
    fn take(&mut self, stream: u32) -> Option<Waiting> {
        let waiting = self.waiting.remove(&stream)?;
        self.names -= waiting.request.owned_bytes();
        Some(waiting)
    }

    /// The final answer began.
    fn answer(&mut self, end: End, began: i64, stream: u32, status: u16, slice: &mut HttpSlice) {
        if let Some(waiting) = self.waiting.get_mut(&stream) {
            if !waiting.request.is_answered() {
                slice.answer(&mut waiting.request, status, began);
            }
        } else if !self.is_opened(stream, end) {
            let request = slice.answer_unasked(end.other(), status, began);
            self.wait(stream, Waiting::new(request, began), slice);
        }
    }

    fn end_stream(&mut self, end: End, time: i64, stream: u32, slice: &mut HttpSlice) {
        if self.client != Some(end) {
            if let Some(waiting) = self.waiting.get_mut(&stream) {
                // What comes of it after its answer is not counted.
                waiting.unsure[0] |= waiting.request.end.is_none();
            }
            self.remove(end, stream, slice);
        } else if let Some(waiting) = self.waiting.get_mut(&stream) {
            waiting.request.end = Some(time);
        }
    }

    /// The stream is over, by this end.
    fn remove(&mut self, end: End, stream: u32, slice: &mut HttpSlice) {
        if self.halves[end.other().index()].frame.stream == stream {
            self.cut_off(end.other());
        }
        if let Some(waiting) = self.take(stream) {
            Self::finish(waiting, slice);
        }
    }
}
