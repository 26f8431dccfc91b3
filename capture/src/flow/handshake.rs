//! Round trip times of the TCP handshake, at the capture point.
//!
//! SYN → SYN-ACK is the server's half, SYN-ACK → ACK the client's, and the whole is their sum (which stays known if the
//! capture has a single SYN and SYN-ACK in the wrong order). A repeated SYN or SYN-ACK makes its half ambiguous: it is known
//! if the timestamp option (RFC 7323) shows that the last one was answered. That an earlier one was shows nothing: where the
//! first answer was lost, both ends echo the first one's in their answers to each repetition too (Linux does).
//!
//! Sources with several queues capture an answer before what it answers, yet stamped behind it. What comes behind its answer with a
//! later stamp repeats another: then no half is known.

use std::num::NonZeroU32;

use super::moment::micros;
use super::options::Options;
use crate::decode::{Tcp, flags};

/// Microseconds plus one, or none: half the size of an `Option<u32>`. More than an hour is no handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Packed(Option<NonZeroU32>);

impl Packed {
    fn new(micros: Option<u64>) -> Self {
        let stored = micros.and_then(|micros| u32::try_from(micros).ok()?.checked_add(1));
        Self(stored.and_then(NonZeroU32::new))
    }

    pub(super) fn get(self) -> Option<u32> {
        self.0.map(|stored| stored.get() - 1)
    }
}

/// The handshake and its halves, µs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Rtt {
    pub(super) client: Packed,
    pub(super) server: Packed,
    pub(super) whole: Packed,
}

/// The last SYN or SYN-ACK, and what came before it.
#[derive(Debug, Default)]
struct Attempts {
    /// When it passed, and its timestamp value.
    last: Option<(i64, Option<u32>)>,
    /// It repeats another.
    repeated: bool,
    /// That one had the same timestamp value.
    alike: bool,
}

impl Attempts {
    /// When the only one passed.
    fn only(&self) -> Option<i64> {
        self.last.filter(|_| !self.repeated).map(|(time, _)| time)
    }

    fn remember(&mut self, time: i64, options: &Options) {
        let timestamp = options.timestamps.map(|(value, _)| value);
        self.repeated = self.last.is_some();
        self.alike = self.last.is_some_and(|(_, before)| before == timestamp);
        self.last = Some((time, timestamp));
    }

    /// Microseconds from the last one to its answer; `None` if that may answer another.
    fn answered(&self, time: i64, answer: &Options) -> Option<u64> {
        let (last, timestamp) = self.last?;
        let echo = answer.timestamps.map(|(_, echo)| echo);
        let shown = echo.is_some() && echo == timestamp && !self.alike;
        if self.repeated && !shown { None } else { micros(last, time) }
    }
}

/// A handshake that is not complete.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    syns: Attempts,
    syn_acks: Attempts,
    server_rtt: Option<u64>,
    /// Number after the server's SYN.
    awaited_ack: u32,
    /// When the client acknowledged something before a SYN-ACK was captured, and its number.
    early: Option<(i64, u32)>,
}

impl Handshake {
    pub(super) fn syn(&mut self, time: i64, options: &Options) {
        // Captured after its answer.
        if let (None, Some(answer)) = (self.syns.last, self.syn_acks.only()) {
            self.server_rtt = micros(time, answer);
        }
        self.syns.remember(time, options);
    }

    /// A SYN-ACK; the result if it was captured after the answer that completes the handshake.
    pub(super) fn syn_ack(&mut self, time: i64, seq: u32, options: &Options) -> Option<Rtt> {
        if self.syn_acks.last.is_none() {
            self.server_rtt = self.syns.answered(time, options);
        }
        self.awaited_ack = seq.wrapping_add(1);
        self.syn_acks.remember(time, options);
        let (answered, number) = self.early.take()?;
        if number != self.awaited_ack {
            return None;
        }
        let client = micros(time, answered);
        self.server_rtt = self.server_rtt.filter(|_| client.is_some());
        Some(self.complete(client, answered))
    }

    /// A segment of the client's other than SYN; the result if it completes the handshake.
    pub(super) fn client_ack(&mut self, time: i64, segment: &Tcp<'_>, options: &Options) -> Option<Rtt> {
        if segment.flags & (flags::ACK | flags::RST) != flags::ACK {
            return None;
        }
        if self.syn_acks.last.is_none() {
            if self.early.is_none_or(|(_, number)| number != segment.ack) {
                self.early = Some((time, segment.ack));
            }
            return None;
        }
        if segment.ack.wrapping_sub(self.awaited_ack) >= 1 << 31 {
            return None;
        }
        Some(self.complete(self.syn_acks.answered(time, options), time))
    }

    /// The result, where the client's half is this, and its answer passed then.
    fn complete(&self, client: Option<u64>, time: i64) -> Rtt {
        let server = self.server_rtt;
        let whole = match (self.syns.only(), self.syn_acks.only()) {
            (Some(syn), Some(_)) => micros(syn, time),
            (_, _) => client.zip(server).map(|(client, server)| client + server),
        };
        Rtt { client: Packed::new(client), server: Packed::new(server), whole: Packed::new(whole) }
    }

    /// The server's half, while the client's is not known.
    pub(super) fn server_rtt(&self) -> Packed {
        Packed::new(self.server_rtt)
    }
}
