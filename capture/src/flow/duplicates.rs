//! Packets that the capture delivered twice: a mirror of both directions of a port, or a capture of all interfaces of a
//! host that routes, yields each packet more than once. They are not retransmissions.
//!
//! A copy has the same IPv4 identification, numbers, flags, window, options and length, and comes within
//! [`WINDOW`] of the flow's last packet. A real retransmission has another identification (RFC 6864 lets a sender that
//! forbids fragments repeat it, and zero is what these send: zero does not count). Without an identification (IPv6) a
//! copy must follow its original directly within [`SHORT_WINDOW`], and be more than an acknowledgement without
//! timestamps; so some copies stay unnoticed rather than a retransmission be lost.
//!
//! The last [`REMEMBERED`] segments of a flow are kept as hashes of 32 bits, two copies of one packet being rarely
//! further apart.

use super::key::End;
use super::options::Options;
use crate::decode::{Tcp, flags};

/// Longest pause between the flow's last packet and a copy, ns.
const WINDOW: i64 = 500_000;

/// The same for packets without identification, ns.
const SHORT_WINDOW: i64 = 30_000;

/// Segments remembered.
const REMEMBERED: usize = 4;

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// Newest first; zero is none.
    prints: [u32; REMEMBERED],
}

/// What else tells a copy from a retransmission.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    /// Identification of the IPv4 header.
    pub(super) ip_id: Option<u16>,
    /// Time since the flow's last packet, ns.
    pub(super) pause: i64,
}

impl Recent {
    /// Remembers a segment; whether it is a copy of one that came before.
    #[inline]
    pub(super) fn is_copy(&mut self, from: End, segment: &Tcp<'_>, options: &Options, arrival: Arrival) -> bool {
        let ip_id = arrival.ip_id.filter(|id| *id != 0);
        let print = print(from, segment, ip_id);
        let pause = arrival.pause.saturating_abs();
        if pause > WINDOW {
            self.prints = [0; REMEMBERED];
        } else if ip_id.is_some() {
            if self.prints.contains(&print) {
                return true;
            }
        } else if self.prints[0] == print && pause <= SHORT_WINDOW {
            let tells = segment.payload_len > 0
                || segment.flags & (flags::SYN | flags::FIN) != 0
                || options.timestamps.is_some();
            if tells {
                return true;
            }
        }
        let [a, b, c, _] = self.prints;
        self.prints = [print, a, b, c];
        false
    }
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

/// Digits of pi, as constants without a meaning.
const K: [u64; 4] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0, 0x082e_fa98_ec4e_6c89];

#[inline]
fn print(from: End, segment: &Tcp<'_>, ip_id: Option<u16>) -> u32 {
    let numbers = (u64::from(segment.seq) << 32) | u64::from(segment.ack);
    let shape = (u64::from(segment.window) << 48) | (u64::from(segment.flags) << 40) | u64::from(segment.payload_len);
    let origin = ((from as u64) << 63) | u64::from(ip_id.unwrap_or_default());
    let mut hash = fold(numbers ^ K[0], shape ^ K[1]) ^ origin;
    for chunk in segment.options.chunks(8) {
        let word = chunk.iter().fold(0, |word, byte| (word << 8) | u64::from(*byte));
        hash = fold(hash ^ K[2], word ^ K[3]);
    }
    let hash = fold(hash ^ K[3], K[2]);
    (hash as u32 ^ (hash >> 32) as u32).max(1)
}
