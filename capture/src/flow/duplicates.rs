//! TCP, UDP and ICMP packets that the capture delivered twice: a mirror of both directions of a port, or a capture of all interfaces of a
//! host that routes, yields each packet more than once. They are not retransmissions.
//!
//! A copy has the same IPv4 identification, numbers, flags, window, options and length, and no pause since its original
//! is longer than [`WINDOW`] (mirrors were seen that take two milliseconds). A real retransmission has another
//! identification. Zero is none (RFC 6864 lets senders that forbid fragments repeat it, and zero is what these send), and
//! so is one that other recent segments of the same end have. Without an identification (IPv6) a copy must come from another
//! place, that is another link-layer address, direction or (in cooked captures of all interfaces) kind of packet or
//! interface than its original, or follow it directly within [`SHORT_WINDOW`] and be more than an acknowledgement (of those
//! of a connection that had copies before, one with timestamps may be a copy, too: a receiver whose clock ticks in milliseconds
//! repeats one at once, with the same); so some copies stay unnoticed rather than a retransmission be lost.
//!
//! Of datagrams the content counts instead of the numbers: length, both ends of the payload, and ICMP's header. Programs do
//! send the same datagram again at once (counters, probes), and with DF set Linux gives those of unconnected sockets no
//! identification. So without one a copy must come from another place; only of an echo, which is numbered, it may come from
//! the same, as with TCP.
//!
//! The last [`REMEMBERED`] segments of a flow are kept as prints of 32 bits: identification (16 bits), end (1), hash (15), or
//! without one place (8) and hash (24). Most copies are no further apart. But Linux hands packets on in lists (of 8, unless
//! `net.core.gro_normal_batch` says otherwise), and a capture of all interfaces has each list once as it came in and once
//! as it went out. The first packet of such a flow is alone and its copy is found: from then on the [`Earlier`] ones are
//! kept, too, which costs other flows nothing.

use super::key::End;
use super::options::Options;
use crate::decode::{Decoded, Tcp, Transport, cooked_place, flags};
use crate::packet::{Direction, Packet};

/// Longest pause between two packets of the flow over which copies are looked for, ns: well below any timeout.
const WINDOW: i64 = 5_000_000;

/// The same for packets without identification, ns.
const SHORT_WINDOW: i64 = 30_000;

/// Segments remembered of every flow.
const REMEMBERED: usize = 4;

/// Prints of what came before those of [`Recent`], newest first; zero is none. With these two lists of each direction are remembered.
pub(super) type Earlier = [u32; EARLIER];

const EARLIER: usize = 28;

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// Newest first; zero is none.
    prints: [u32; REMEMBERED],
}

/// What else tells a copy from a retransmission.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival<'a> {
    /// Identification of the IPv4 header.
    ip_id: Option<u16>,
    /// Time since the flow's last packet, ns.
    pause: i64,
    /// Link-layer address of who sent it here.
    src_mac: Option<[u8; 6]>,
    packet: &'a Packet<'a>,
}

impl<'a> Arrival<'a> {
    /// Of a packet that comes so long after the flow's last one, ns.
    #[inline]
    pub(super) const fn new(decoded: &Decoded<'_>, packet: &'a Packet<'a>, pause: i64) -> Self {
        Self { ip_id: decoded.ip_id, pause, src_mac: decoded.src_mac, packet }
    }

    /// Whose link-layer address a packet came with, in which direction and where, as a number.
    #[inline]
    fn place(&self) -> u8 {
        let [v0, v1, n0, n1, n2, n3] = self.src_mac.unwrap_or_default();
        let direction = match self.packet.direction {
            None => 0,
            Some(Direction::Ingress) => 1,
            Some(Direction::Egress) => 2,
        };
        // What tells addresses of one network apart is mostly at their end.
        let mixed = u32::from_le_bytes([n0, n1, n2, n3]) ^ u32::from(u16::from_le_bytes([v0, v1])) ^ direction << 17;
        ((mixed ^ cooked_place(self.packet)).wrapping_mul(0x9e37_79b1) >> 24) as u8
    }
}

impl Recent {
    /// Remembers a segment; whether it is a copy of one that came before.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "measured: without those that came earlier most of it is gone")]
    pub(super) fn is_copy(
        &mut self,
        earlier: Option<&mut Earlier>,
        (from, segment): (End, &Tcp<'_>),
        options: &Options,
        arrival: Arrival<'_>,
    ) -> bool {
        let hash = hash(from, segment, options);
        let pause = arrival.pause.saturating_abs();
        if let Some(id) = arrival.ip_id.filter(|id| *id != 0) {
            return self.is_identified_copy(earlier, print_of(id, from, hash), pause);
        }
        let tells = is_more_than_ack(segment) || (earlier.is_some() && options.timestamps.is_some());
        self.is_unidentified_copy(earlier, (hash, arrival.place()), pause, tells)
    }

    /// The same where there were copies, apart so that it costs other connections nothing.
    #[cold]
    #[inline(never)]
    pub(super) fn is_copy_of_any(
        &mut self,
        earlier: &mut Earlier,
        sent: (End, &Tcp<'_>),
        options: &Options,
        arrival: Arrival<'_>,
    ) -> bool {
        self.is_copy(Some(earlier), sent, options, arrival)
    }

    /// Remembers a datagram; whether it is a copy of one that came before. Of other transports none is.
    pub(super) fn is_copied_datagram(
        &mut self,
        earlier: Option<&mut Earlier>,
        (from, transport): (End, &Transport<'_>),
        arrival: Arrival<'_>,
    ) -> bool {
        let Some((hash, is_numbered)) = content(from, transport) else { return false };
        let pause = arrival.pause.saturating_abs();
        if let Some(id) = arrival.ip_id.filter(|id| *id != 0) {
            return self.is_identified_copy(earlier, print_of(id, from, hash), pause);
        }
        self.is_unidentified_copy(earlier, (hash, arrival.place()), pause, is_numbered)
    }

    /// `tells` says whether the same from the same place may be one.
    #[inline]
    fn is_unidentified_copy(
        &mut self,
        earlier: Option<&mut Earlier>,
        (hash, place): (u32, u8),
        pause: i64,
        tells: bool,
    ) -> bool {
        let print = (u32::from(place) << 24) | (hash & 0x00ff_ffff).max(1);
        let elsewhere = |other: &u32| (other ^ print).trailing_zeros() >= 24 && *other != print;
        let again = self.prints[0] == print && pause <= SHORT_WINDOW && tells;
        self.compare(earlier, print, pause, |prints| (pause <= WINDOW && prints.iter().any(elsewhere)) || again)
    }

    #[inline]
    fn is_identified_copy(&mut self, earlier: Option<&mut Earlier>, print: u32, pause: i64) -> bool {
        self.compare(earlier, print, pause, |prints| {
            pause <= WINDOW && prints.contains(&print) && !prints.iter().any(|other| is_reused(*other, print))
        })
    }

    /// Remembers a print; whether it is a copy, as it is found among those that are remembered.
    #[inline]
    fn compare(
        &mut self,
        earlier: Option<&mut Earlier>,
        print: u32,
        pause: i64,
        is_copy: impl Fn(&[u32]) -> bool,
    ) -> bool {
        match earlier {
            None => {
                let is_copy = is_copy(&self.prints);
                self.remember(print, pause, is_copy)
            }
            Some(earlier) => self.compare_with_earlier(earlier, print, pause, is_copy),
        }
    }

    #[cold]
    fn compare_with_earlier(
        &mut self,
        earlier: &mut Earlier,
        print: u32,
        pause: i64,
        is_copy: impl Fn(&[u32]) -> bool,
    ) -> bool {
        let [.., oldest] = self.prints;
        let mut prints = [0; REMEMBERED + EARLIER];
        prints[..REMEMBERED].copy_from_slice(&self.prints);
        prints[REMEMBERED..].copy_from_slice(earlier);
        let is_copy = is_copy(&prints);
        if pause > WINDOW {
            earlier.fill(0);
        } else if !is_copy {
            earlier.rotate_right(1);
            earlier[0] = oldest;
        }
        self.remember(print, pause, is_copy)
    }

    #[inline]
    fn remember(&mut self, print: u32, pause: i64, is_copy: bool) -> bool {
        if pause > WINDOW {
            self.prints = [print, 0, 0, 0];
        } else if !is_copy {
            let [a, b, c, _] = self.prints;
            self.prints = [print, a, b, c];
        }
        is_copy
    }
}

const fn print_of(id: u16, from: End, hash: u32) -> u32 {
    ((id as u32) << 16) | ((from as u32) << 15) | (hash & 0x7fff)
}

/// Bytes at each end of a payload that are looked at.
const LOOK: usize = 32;

/// Hash of a datagram's content, and whether its sender numbers it.
fn content(from: End, transport: &Transport<'_>) -> Option<(u32, bool)> {
    let (payload, len, header, is_numbered) = match *transport {
        Transport::Udp { payload, payload_len } => (payload, payload_len, 0, false),
        Transport::Icmp { kind, code, rest, payload, payload_len } => {
            let header = u64::from(rest) << 16 | u64::from(kind) << 8 | u64::from(code);
            (payload, payload_len, header, matches!(kind, 0 | 8 | 128 | 129))
        }
        Transport::Tcp(_) | Transport::Sctp { .. } | Transport::Other { .. } => return None,
    };
    let hash = fold(header ^ K[0], u64::from(len) ^ K[1]) ^ ((from as u64) << 63);
    let hash = hash_bytes(hash, payload.get(..LOOK).unwrap_or(payload));
    let rest = payload.len().saturating_sub(LOOK);
    let hash = hash_bytes(hash, payload.get(payload.len() - rest.min(LOOK)..).unwrap_or_default());
    Some((hash as u32 ^ (hash >> 32) as u32, is_numbered))
}

/// Whether two segments of one end have the same identification.
fn is_reused(one: u32, other: u32) -> bool {
    one != other && one >> 15 == other >> 15
}

/// Whether there is more than an acknowledgement, which a receiver may well repeat at once.
fn is_more_than_ack(segment: &Tcp<'_>) -> bool {
    segment.payload_len > 0 || segment.flags & (flags::SYN | flags::FIN) != 0
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

/// Digits of pi, as constants without a meaning.
const K: [u64; 4] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0, 0x082e_fa98_ec4e_6c89];

#[inline]
fn hash(from: End, segment: &Tcp<'_>, options: &Options) -> u32 {
    let numbers = (u64::from(segment.seq) << 32) | u64::from(segment.ack);
    let shape = (u64::from(segment.window) << 48) | (u64::from(segment.flags) << 40) | u64::from(segment.payload_len);
    let hash = fold(numbers ^ K[0], shape ^ ((from as u64) << 32) ^ K[1]);
    let hash = match (segment.options.len(), options.timestamps) {
        (0, _) => hash,
        // Timestamps and their padding: what almost every segment has.
        (12, Some((value, echo))) => fold(hash ^ K[2], (u64::from(value) << 32 | u64::from(echo)) ^ K[3]),
        (_, _) => hash_bytes(hash, segment.options),
    };
    hash as u32 ^ (hash >> 32) as u32
}

fn hash_bytes(mut hash: u64, mut bytes: &[u8]) -> u64 {
    while let Some((word, rest)) = bytes.split_first_chunk::<8>() {
        hash = fold(hash ^ K[2], u64::from_be_bytes(*word) ^ K[3]);
        bytes = rest;
    }
    let rest = bytes.iter().fold(bytes.len() as u64, |word, byte| (word << 8) | u64::from(*byte));
    fold(hash ^ K[2], rest ^ K[3])
}
