//! DNS (RFC 1035, 6891), multicast DNS (RFC 6762), LLMNR (RFC 4795): the exchanges of a flow.
//!
//! A slice shows the first question asked in it and that question's answer; a first question that waited for its answer when
//! its slice ended carries on into the next. Latency runs from the last byte of the last
//! repetition of the query to the first of the response, which over TCP may come in pieces. A response answers
//! the query of the other end with the same id and question; a second response to a query is ignored.
//!
//! Limits: [`MAX_WAITING`] queries wait for their answers; one that waited for [`PATIENCE`] is given up; the last [`ANSWERED`] that
//! were answered are remembered.

mod message;
mod names;
mod stream;

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;

pub(crate) use self::message::{Bar, Message, parse};
use self::names::{rcode_name, type_name};
pub(crate) use self::stream::{DnsStream, probe};
use super::exchange::{End, Finished, Passed, give, micros};
use crate::memory;
use crate::record::Dns;
use crate::transaction::Exchange;

/// Most queries that wait for their answers: more than what forwarders and load generators have under way on one socket.
const MAX_WAITING: usize = 1024;

/// Answered queries whose second responses are known: of a client that asks for several types at once, and repeats all of them.
const ANSWERED: usize = 8;

const SECOND: i64 = 1_000_000_000;

/// Longest time that a query waits.
const PATIENCE: i64 = 30 * SECOND;

/// A query that comes again so soon is the capture's copy, not the client's repetition.
const COPY: i64 = SECOND / 1000;

/// Longest time that a query waited when its slice ended, so that the next slice shows it.
const CARRY: i64 = 5 * SECOND;

/// Ports on which DNS is expected: DNS, multicast DNS, LLMNR.
pub(crate) fn is_expected(ports: [u16; 2]) -> bool {
    ports.iter().any(|port| matches!(port, 53 | 5353 | 5355))
}

/// A query without an answer so far.
#[derive(Debug)]
struct Waiting {
    id: u16,
    hash: u64,
    kind: u16,
    asker: End,
    began: i64,
    /// Last repetition.
    last: i64,
    retries: u32,
    bytes: u32,
    /// Only for a transaction.
    name: Option<Arc<str>>,
    /// The slice shows it.
    first: bool,
}

/// A query that was answered, told by a hash of its id and question in four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answered(NonZeroU32);

impl Answered {
    fn new(id: u16, hash: u64) -> Self {
        let mixed = (hash ^ hash >> 32) as u32 ^ u32::from(id).wrapping_mul(0x9e37_79b1);
        Self(NonZeroU32::new(mixed).unwrap_or(NonZeroU32::MIN))
    }
}

/// The question that a slice shows, and its answer.
#[derive(Debug, Clone, Default)]
struct Shown {
    query: Option<Arc<str>>,
    kind: Option<u16>,
    rcode: Option<u16>,
    answers: u16,
    latency_us: Option<u64>,
    asked: Option<i64>,
}

/// The exchanges of a flow.
#[derive(Debug)]
pub(crate) struct DnsFlow {
    app: &'static str,
    transactions: bool,
    shown: Option<Shown>,
    /// By the time of their last repetition.
    waiting: VecDeque<Waiting>,
    /// Bytes of memory that their names take.
    names: usize,
    /// What was answered last, newest first.
    answered: [Option<Answered>; ANSWERED],
    retries: u64,
    pub(crate) finished: Vec<Finished>,
}

impl DnsFlow {
    pub(crate) fn new(app: &'static str, transactions: bool) -> Self {
        Self {
            app,
            transactions,
            shown: None,
            waiting: VecDeque::new(),
            names: 0,
            answered: [None; ANSWERED],
            retries: 0,
            finished: Vec::new(),
        }
    }

    /// Bytes of memory owned beside the structure itself.
    pub(crate) fn owned_bytes(&self) -> usize {
        let shown = self.shown.as_ref().and_then(|shown| shown.query.as_ref());
        memory::of_text(shown) + memory::of_queue(&self.waiting) + self.names + memory::of_vec(&self.finished)
    }

    /// Takes in a message of so many bytes.
    pub(crate) fn track(&mut self, from: End, passed: Passed, message: &Message<'_>, bytes: u32) {
        while let Some(query) = self.waiting.pop_front_if(|query| passed.last.saturating_sub(query.last) > PATIENCE) {
            self.finish(query, None, bytes);
        }
        if message.response {
            self.track_response(from, passed, message, bytes);
        } else {
            self.track_query(from, passed, message, bytes);
        }
    }

    fn track_query(&mut self, from: End, passed: Passed, message: &Message<'_>, bytes: u32) {
        let Some(question) = message.question else { return };
        let same = |query: &Waiting| query.id == message.id && query.hash == question.hash && query.asker == from;
        if let Some(at) = self.waiting.iter().position(same) {
            self.repeat(at, passed);
            return;
        }
        let first = self.shown.is_none();
        let name: Option<Arc<str>> = if first || self.transactions { message.name().map(Into::into) } else { None };
        if first {
            self.shown = Some(Shown {
                query: name.clone(),
                kind: Some(question.kind),
                asked: Some(passed.first),
                ..Shown::default()
            });
        }
        if self.waiting.len() >= MAX_WAITING
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.finish(oldest, None, 0);
        }
        let name = name.filter(|_| self.transactions);
        self.names += memory::of_text(name.as_ref());
        // Mostly it is the only one.
        self.waiting.reserve_exact(usize::from(self.waiting.is_empty()));
        self.waiting.push_back(Waiting {
            id: message.id,
            hash: question.hash,
            kind: question.kind,
            asker: from,
            began: passed.first,
            last: passed.last,
            retries: 0,
            bytes,
            name,
            first,
        });
    }

    /// A query that waits came again.
    fn repeat(&mut self, at: usize, passed: Passed) {
        let Some(mut query) = self.waiting.remove(at) else { return };
        if passed.first.saturating_sub(query.last) <= COPY {
            self.waiting.insert(at, query);
            return;
        }
        query.last = passed.last;
        query.retries += 1;
        self.retries += 1;
        self.waiting.push_back(query);
    }

    /// Whether it is the response to a query of the other end.
    pub(crate) fn awaits(&self, from: End, message: &Message<'_>) -> bool {
        message.response && self.answered_by(from, message).is_some()
    }

    /// Which query a response answers.
    fn answered_by(&self, from: End, message: &Message<'_>) -> Option<usize> {
        // The other end's answer; a multicast DNS responder may also speak where it asks.
        let answered = |query: &Waiting| {
            query.id == message.id
                && query.asker != from
                && message.question.is_none_or(|question| question.hash == query.hash)
        };
        self.waiting.iter().position(answered)
    }

    fn track_response(&mut self, from: End, passed: Passed, message: &Message<'_>, bytes: u32) {
        let at = self.answered_by(from, message);
        let Some(query) = at.and_then(|at| self.waiting.remove(at)) else {
            self.track_unasked(from, passed, message, bytes);
            return;
        };
        self.remember(Answered::new(query.id, query.hash));
        if let Some(shown) = self.shown.as_mut().filter(|_| query.first) {
            shown.rcode = Some(message.rcode);
            shown.answers = message.answers;
            shown.latency_us = micros(query.last, passed.first);
        }
        self.finish(query, Some((passed, message)), bytes);
    }

    fn remember(&mut self, answered: Answered) {
        self.answered.rotate_right(1);
        self.answered[0] = Some(answered);
    }

    /// A response whose query was not seen names what it answers.
    fn track_unasked(&mut self, from: End, passed: Passed, message: &Message<'_>, bytes: u32) {
        if let Some(question) = message.question {
            let answered = Answered::new(message.id, question.hash);
            if self.answered.contains(&Some(answered)) {
                return;
            }
            self.remember(answered);
        }
        let name: Option<Arc<str>> = message.name().map(Into::into);
        let kind = message.question.map(|question| question.kind);
        if self.shown.is_none() {
            let (rcode, answers) = (Some(message.rcode), message.answers);
            self.shown = Some(Shown { query: name.clone(), kind, rcode, answers, ..Shown::default() });
        }
        // Announcements of multicast DNS answer nothing.
        if self.transactions && kind.is_some() {
            let exchange = Exchange {
                query: name,
                qtype: kind.map(type_name),
                rcode: Some(rcode_name(message.rcode)),
                answers: Some(message.answers.into()),
                response_bytes: Some(bytes.into()),
                complete: true,
                end: passed.last,
                ..Exchange::new(self.app, passed.first)
            };
            self.finished.push(Finished { asker: from.other(), exchange });
        }
    }

    /// The exchange is over, with its answer of so many bytes if there is one.
    fn finish(&mut self, query: Waiting, answer: Option<(Passed, &Message<'_>)>, bytes: u32) {
        self.names -= memory::of_text(query.name.as_ref());
        if !self.transactions {
            return;
        }
        let mut exchange = Exchange {
            end: query.last,
            query: query.name,
            qtype: Some(type_name(query.kind)),
            retries: Some(query.retries.into()),
            request_bytes: Some(query.bytes.into()),
            ..Exchange::new(self.app, query.began)
        };
        if let Some((passed, message)) = answer {
            exchange.end = exchange.end.max(passed.last);
            exchange.rcode = Some(rcode_name(message.rcode));
            exchange.answers = Some(message.answers.into());
            exchange.latency_us = micros(query.last, passed.first);
            exchange.response_bytes = Some(bytes.into());
            exchange.complete = true;
        }
        self.finished.push(Finished { asker: query.asker, exchange });
    }

    /// The flow is over: what waits, is handed on without an answer.
    pub(crate) fn close(&mut self) {
        for query in std::mem::take(&mut self.waiting) {
            self.finish(query, None, 0);
        }
    }

    /// Whether every query has its response.
    pub(crate) fn is_answered(&self) -> bool {
        self.waiting.is_empty() && self.shown.as_ref().is_some_and(|shown| shown.rcode.is_some())
    }

    /// The fields for a record; `over` says that nobody asks for them again.
    pub(crate) fn fields(&mut self, over: bool) -> Option<Dns> {
        let shown = give(&mut self.shown, over)?;
        Some(Dns {
            query: shown.query,
            qtype: shown.kind.map(type_name),
            rcode: shown.rcode.map(rcode_name),
            latency_us: shown.latency_us,
            answers: shown.rcode.map(|_| shown.answers.into()),
            retries: shown.asked.map(|_| self.retries),
        })
    }

    /// Begins the next slice; the last packet of this one was at `end`.
    pub(crate) fn next_slice(&mut self, end: i64) {
        self.retries = 0;
        let first = self.waiting.iter_mut().find(|query| query.first);
        match first {
            Some(query) if end.saturating_sub(query.last) <= CARRY => {}
            Some(query) => {
                query.first = false;
                self.shown = None;
            }
            None => self.shown = None,
        }
    }
}
