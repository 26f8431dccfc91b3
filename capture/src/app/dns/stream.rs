//! DNS over TCP (RFC 1035 4.2.2, RFC 7766): messages with their length before them.
//!
//! The first [`MAX_KEPT`] bytes of a message are looked at, so that header and first question are always there. After a gap
//! that swallows a length, a direction waits for a segment that begins with a message.

use super::super::exchange::{End, Passed};
use super::{Bar, DnsFlow, Message, parse};
use crate::app::Probe;
use crate::memory;

/// How much of a message is looked at.
const MAX_KEPT: usize = 2048;

/// Longest first message of a connection away from the ports of DNS.
const MAX_PROBED: usize = 512;

/// Shortest message with a question.
const MIN_MESSAGE: usize = 17;

/// Whether a direction that begins like this is DNS; `cut` says that the bytes that follow were not captured.
pub(crate) fn probe(bytes: &[u8], bar: Bar, cut: bool) -> Probe {
    let Some((length, rest)) = bytes.split_first_chunk() else { return Probe::More };
    let length = usize::from(u16::from_be_bytes(*length));
    if length < MIN_MESSAGE || (bar == Bar::Content && length > MAX_PROBED) {
        return Probe::No;
    }
    // Opcode and, in the header of a query, counts of a message that is not here yet.
    if rest.get(2).is_some_and(|flags| flags & 0x78 > 0x30) || rest.get(4).is_some_and(|count| *count != 0) {
        return Probe::No;
    }
    match rest.get(..length.min(MAX_KEPT)) {
        Some(message) => Probe::certain(parse(message, bar).is_some()),
        None if bar == Bar::Port && (cut || rest.len() >= MAX_PROBED) => Probe::certain(parse(rest, bar).is_some()),
        None => Probe::More,
    }
}

/// One direction.
#[derive(Debug, Default)]
struct Half {
    /// The length, as far as it is there.
    length: [u8; 2],
    have: u8,
    /// Bytes of the message that are still to come.
    left: usize,
    kept: Vec<u8>,
    /// When the message began, and when the last byte was captured.
    passed: Passed,
    /// Something of the message is missing; it was read as far as it went.
    cut: bool,
    lost: bool,
}

/// The exchanges of a connection.
#[derive(Debug)]
pub(crate) struct DnsStream {
    pub(crate) flow: DnsFlow,
    bar: Bar,
    halves: [Half; 2],
}

impl DnsStream {
    pub(crate) fn new(app: &'static str, transactions: bool, bar: Bar) -> Self {
        Self { flow: DnsFlow::new(app, transactions), bar, halves: <[Half; 2]>::default() }
    }

    /// Bytes of memory owned beside the structure itself.
    pub(crate) fn owned_bytes(&self) -> usize {
        self.flow.owned_bytes() + self.halves.iter().map(|half| memory::of_vec(&half.kept)).sum::<usize>()
    }

    /// Takes in the next bytes of a direction.
    pub(crate) fn bytes(&mut self, end: End, time: i64, mut bytes: &[u8]) {
        let half = &mut self.halves[end.index()];
        if half.lost {
            if probe(bytes, self.bar, false) != Probe::Yes {
                return;
            }
            *half = Half::default();
        }
        half.passed.last = time;
        while !bytes.is_empty() {
            if half.left == 0 {
                bytes = half.read_length(time, bytes);
                continue;
            }
            let (part, rest) = bytes.split_at(bytes.len().min(half.left));
            bytes = rest;
            half.left -= part.len();
            if half.kept.is_empty() && half.left == 0 && !half.cut {
                Self::message(&mut self.flow, end, half.passed, part, part.len());
                continue;
            }
            let room = MAX_KEPT.saturating_sub(half.kept.len());
            if !half.cut {
                half.kept.extend_from_slice(part.get(..room).unwrap_or(part));
            }
            if half.left == 0 {
                if !half.cut {
                    let length = usize::from(u16::from_be_bytes(half.length));
                    Self::message(&mut self.flow, end, half.passed, &half.kept, length);
                }
                half.kept.clear();
                half.cut = false;
            }
        }
    }

    /// Bytes that were not captured. When they passed is not known: a message that they cut ends with the last byte
    /// that was.
    pub(crate) fn gap(&mut self, end: End, length: u32) {
        let half = &mut self.halves[end.index()];
        if half.lost {
            return;
        }
        if half.left < length as usize {
            half.lost = true;
        }
        if !half.cut && !half.kept.is_empty() {
            let length = usize::from(u16::from_be_bytes(half.length));
            Self::message(&mut self.flow, end, half.passed, &half.kept, length);
        }
        half.kept.clear();
        half.left = half.left.saturating_sub(length as usize);
        half.cut = half.left > 0;
    }

    /// How many of the next bytes make no difference.
    pub(crate) fn indifferent(&self, end: End) -> u64 {
        let half = &self.halves[end.index()];
        if half.lost {
            u64::MAX
        } else if half.cut || half.kept.len() >= MAX_KEPT {
            half.left as u64
        } else {
            0
        }
    }

    fn message(flow: &mut DnsFlow, end: End, passed: Passed, bytes: &[u8], length: usize) {
        let bytes = bytes.get(..MAX_KEPT).unwrap_or(bytes);
        // The connection is DNS; its messages need not prove it again.
        let message: Option<Message<'_>> = parse(bytes, Bar::Port);
        if let Some(message) = message {
            flow.track(end, passed, &message, length as u32);
        }
    }
}

impl Half {
    fn read_length<'a>(&mut self, time: i64, bytes: &'a [u8]) -> &'a [u8] {
        let Some((byte, rest)) = bytes.split_first() else { return bytes };
        if self.have == 0 {
            self.passed.first = time;
        }
        if let Some(place) = self.length.get_mut(usize::from(self.have)) {
            *place = *byte;
        }
        self.have += 1;
        if self.have == 2 {
            self.have = 0;
            self.left = u16::from_be_bytes(self.length).into();
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_message_is_recognised_on_its_port_and_elsewhere() {
        let message = b"\x00\x1a\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x04abcd\x00\x00\x01\x00\x01";
        for bar in [Bar::Port, Bar::Content] {
            assert_eq!(probe(message, bar, false), Probe::Yes);
            assert_eq!(probe(&message[..20], bar, false), Probe::More);
            assert_eq!(probe(b"GET / HTTP/1.1\r\n", bar, false), Probe::No);
        }
        let zeros = [0; 64];
        assert_eq!(probe(&zeros, Bar::Port, false), Probe::No);
    }
}
