//! Round trip times of the TCP handshake, at the capture point.
//!
//! SYN → SYN-ACK is the server's half, SYN-ACK → ACK the client's, and the whole is their sum (which stays known if the
//! capture has a single SYN and SYN-ACK in the wrong order). A repeated SYN or SYN-ACK makes its half ambiguous;
//! then the timestamp option (RFC 7323) decides which one was answered, else the half is unknown.

use crate::decode::{Tcp, flags};

/// Most repetitions of a SYN or SYN-ACK that are told apart.
const MAX_SENT: usize = 6;

/// A SYN or SYN-ACK: when, and its timestamp value.
type Sent = (i64, Option<u32>);

/// The handshake and its halves, µs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Rtt {
    pub(super) client: Option<u64>,
    pub(super) server: Option<u64>,
    pub(super) whole: Option<u64>,
}

/// A handshake that is not complete.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    syns: Vec<Sent>,
    syn_acks: Vec<Sent>,
    /// More repetitions came than are kept.
    overflow: bool,
    server_rtt: Option<u64>,
    /// Number after the server's SYN.
    awaited_ack: u32,
}

impl Handshake {
    pub(super) fn syn(&mut self, time: i64, segment: &Tcp<'_>) {
        // Captured after its answer, yet stamped before: sources with several queues do that.
        if let ([], [(answer, _)]) = (self.syns.as_slice(), self.syn_acks.as_slice()) {
            self.server_rtt = micros(time, *answer);
        }
        remember(&mut self.syns, &mut self.overflow, time, segment);
    }

    pub(super) fn syn_ack(&mut self, time: i64, segment: &Tcp<'_>) {
        if self.syn_acks.is_empty() {
            self.server_rtt = self.answered(&self.syns, time, segment);
        }
        self.awaited_ack = segment.seq.wrapping_add(1);
        remember(&mut self.syn_acks, &mut self.overflow, time, segment);
    }

    /// A segment of the client's other than SYN; the result if it completes the handshake.
    pub(super) fn client_ack(&self, time: i64, segment: &Tcp<'_>) -> Option<Rtt> {
        let acknowledges = segment.flags & (flags::ACK | flags::RST) == flags::ACK
            && segment.ack.wrapping_sub(self.awaited_ack) < 1 << 31;
        if self.syn_acks.is_empty() || !acknowledges {
            return None;
        }
        let (client, server) = (self.answered(&self.syn_acks, time, segment), self.server_rtt);
        let whole = match (self.syns.as_slice(), self.syn_acks.as_slice()) {
            ([(syn, _)], [_]) => micros(*syn, time),
            (_, _) => client.zip(server).map(|(client, server)| client + server),
        };
        Some(Rtt { client, server, whole })
    }

    /// The server's half, while the client's is not known.
    pub(super) fn server_rtt(&self) -> Option<u64> {
        self.server_rtt
    }

    fn answered(&self, sent: &[Sent], time: i64, answer: &Tcp<'_>) -> Option<u64> {
        if let [(only, _)] = sent {
            return micros(*only, time);
        }
        if self.overflow {
            return None;
        }
        let (_, echo) = timestamps(answer.options)?;
        let mut matching = sent.iter().filter(|(_, value)| *value == Some(echo));
        match (matching.next(), matching.next()) {
            (Some(&(at, _)), None) => micros(at, time),
            (Some(_), Some(_)) | (None, _) => None,
        }
    }
}

fn remember(sent: &mut Vec<Sent>, overflow: &mut bool, time: i64, segment: &Tcp<'_>) {
    if sent.len() >= MAX_SENT {
        *overflow = true;
        return;
    }
    sent.push((time, timestamps(segment.options).map(|(value, _)| value)));
}

/// Microseconds between two times of packets; `None` if the capture reordered them.
pub(super) fn micros(from: i64, to: i64) -> Option<u64> {
    u64::try_from(to.checked_sub(from)?).ok().map(|nanos| nanos / 1000)
}

/// Payload of the first option of this kind.
fn option(mut options: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        match *options.first()? {
            0 => return None,
            1 => options = options.get(1..)?,
            kind => {
                let length = usize::from(*options.get(1)?);
                let body = options.get(2..length)?;
                if kind == wanted {
                    return Some(body);
                }
                options = options.get(length..)?;
            }
        }
    }
}

/// Timestamp option: value and echo reply.
fn timestamps(options: &[u8]) -> Option<(u32, u32)> {
    let (value, echo) = option(options, 8)?.split_first_chunk()?;
    Some((u32::from_be_bytes(*value), u32::from_be_bytes(*echo.first_chunk()?)))
}

/// MSS option.
pub(super) fn mss(options: &[u8]) -> Option<u16> {
    let [high, low] = *option(options, 2)? else { return None };
    Some(u16::from_be_bytes([high, low]))
}
