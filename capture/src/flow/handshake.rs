//! Round trip times of the TCP handshake, at the capture point.
//!
//! SYN → SYN-ACK is the server's half, SYN-ACK → ACK the client's, and the whole is their sum (which stays known if the
//! capture has a single SYN and SYN-ACK in the wrong order). A repeated SYN or SYN-ACK makes its half ambiguous;
//! then the timestamp option (RFC 7323) decides which one was answered, else the half is unknown. Of SYNs only that of the last one
//! decides: servers echo the first SYN's (Linux does) in answers to each repetition too, where their own first answer was lost.

use std::num::NonZeroU32;

use super::moment::micros;
use super::options::Options;
use crate::decode::{Tcp, flags};
use crate::memory;

/// Most repetitions of a SYN or SYN-ACK that are told apart.
const MAX_REPEATED: usize = 5;

/// A SYN or SYN-ACK: when, and its timestamp value.
type Sent = (i64, Option<u32>);

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

/// A SYN or SYN-ACK and its repetitions.
#[derive(Debug, Default)]
struct Attempts {
    first: Option<Sent>,
    repeated: Vec<Sent>,
    /// More repetitions came than are kept.
    overflow: bool,
}

impl Attempts {
    fn only(&self) -> Option<Sent> {
        self.first.filter(|_| self.repeated.is_empty() && !self.overflow)
    }

    fn remember(&mut self, time: i64, options: &Options) {
        let sent = (time, options.timestamps.map(|(value, _)| value));
        if self.first.is_none() {
            self.first = Some(sent);
        } else if self.repeated.len() < MAX_REPEATED {
            self.repeated.push(sent);
        } else {
            self.overflow = true;
        }
    }

    fn last(&self) -> Option<Sent> {
        self.repeated.last().copied().or(self.first)
    }

    /// Microseconds from the attempt that this answers to the answer.
    fn answered(&self, time: i64, answer: &Options) -> Option<u64> {
        if let Some((only, _)) = self.only() {
            return micros(only, time);
        }
        if self.overflow {
            return None;
        }
        let (_, echo) = answer.timestamps?;
        let mut matching = self.first.iter().chain(&self.repeated).filter(|(_, value)| *value == Some(echo));
        match (matching.next(), matching.next()) {
            (Some(&(at, _)), None) => micros(at, time),
            (Some(_), Some(_)) | (None, _) => None,
        }
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
}

impl Handshake {
    pub(super) fn syn(&mut self, time: i64, options: &Options) {
        // Captured after its answer, yet stamped before: sources with several queues do that.
        if let (None, Some((answer, _))) = (self.syns.first, self.syn_acks.only()) {
            self.server_rtt = micros(time, answer);
        }
        self.syns.remember(time, options);
    }

    pub(super) fn syn_ack(&mut self, time: i64, seq: u32, options: &Options) {
        if self.syn_acks.first.is_none() {
            let since_last = self.syns.last().and_then(|(last, _)| micros(last, time));
            self.server_rtt = self.syns.answered(time, options).filter(|rtt| since_last == Some(*rtt));
        }
        self.awaited_ack = seq.wrapping_add(1);
        self.syn_acks.remember(time, options);
    }

    /// A segment of the client's other than SYN; the result if it completes the handshake.
    pub(super) fn client_ack(&self, time: i64, segment: &Tcp<'_>, options: &Options) -> Option<Rtt> {
        let acknowledges = segment.flags & (flags::ACK | flags::RST) == flags::ACK
            && segment.ack.wrapping_sub(self.awaited_ack) < 1 << 31;
        if self.syn_acks.first.is_none() || !acknowledges {
            return None;
        }
        let (client, server) = (self.syn_acks.answered(time, options), self.server_rtt);
        let whole = match (self.syns.only(), self.syn_acks.only()) {
            (Some((syn, _)), Some(_)) => micros(syn, time),
            (_, _) => client.zip(server).map(|(client, server)| client + server),
        };
        Some(Rtt { client: Packed::new(client), server: Packed::new(server), whole: Packed::new(whole) })
    }

    /// The server's half, while the client's is not known.
    pub(super) fn server_rtt(&self) -> Packed {
        Packed::new(self.server_rtt)
    }

    pub(super) fn owned_bytes(&self) -> usize {
        memory::of_box::<Self>() + memory::of_vec(&self.syns.repeated) + memory::of_vec(&self.syn_acks.repeated)
    }
}
