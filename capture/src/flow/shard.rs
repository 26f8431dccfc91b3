//! Several engines instead of one: which packets are whose.
//!
//! Each engine has a [`Share`] of the flows, by a hash of addresses, ports and protocol that is the same for both directions
//! and in every run. Engines share nothing. Together they give the records of one engine that has it all, if
//! * each packet is handed to the engines of its [`Shards`] (others count nothing of it);
//! * each engine is told the time: before each of its packets [`Engine::advance`](super::Engine::advance) is called with
//!   the greatest time of any packet of the input so far, and before [`Engine::finish`](super::Engine::finish) with the
//!   greatest of all (telling it more often changes nothing);
//! * no table is full: which flow is evicted depends on the others in the same table.
//!
//! Most packets are one engine's. What a tunnel carries and the packets around it are flows of their own, each of which one
//! engine counts. An ICMP error goes to the engine of the flow that it quotes, too. Fragments go to all: each puts the packets
//! together, and counts what is its own then. Fragments that come before their first one are counted in a flow without
//! ports, and move over later; since the engine of the flow that they move to must know whether they still can, all engines
//! follow such flows, and one tells of them.

use std::net::IpAddr;

use crate::decode::{Decoded, quote};
use crate::record::Protocol;

/// Most engines.
pub const MAX_ENGINES: usize = 64;

/// Which of the flows are an engine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    number: usize,
    of: usize,
}

impl Share {
    /// All flows.
    pub const WHOLE: Self = Self { number: 0, of: 1 };

    /// That of engine `number`, from 0, of so many, at most [`MAX_ENGINES`].
    pub fn new(number: usize, of: usize) -> Self {
        let of = of.clamp(1, MAX_ENGINES);
        Self { number: number % of, of }
    }

    /// Whether the flow of a packet is in it.
    #[inline]
    pub(super) fn has(self, decoded: &Decoded<'_>) -> bool {
        self.of == 1 || shard(decoded, self.of) == self.number
    }

    /// Whether it has what belongs to no flow, and is the same in all.
    pub(super) const fn is_first(self) -> bool {
        self.number == 0
    }
}

/// The number of the engine, less than `engines`, that has the flow of a packet; both directions have the same.
pub fn shard(decoded: &Decoded<'_>, engines: usize) -> usize {
    let ports = decoded.src_port.zip(decoded.dst_port);
    shard_of((decoded.src, decoded.dst), ports, decoded.protocol, engines)
}

/// Some of several engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shards(u64);

impl Shards {
    /// Those that a packet concerns; `carriers` are the packets around it.
    pub fn of(decoded: &Decoded<'_>, carriers: &[Decoded<'_>], engines: usize) -> Self {
        if decoded.fragment.is_some() {
            return Self::all(engines);
        }
        let own = 1 << shard(decoded, engines);
        let around = Self::around(carriers, engines);
        let quoted = quote(decoded)
            .map_or(0, |quote| 1 << shard_of((quote.src, quote.dst), quote.ports, quote.protocol, engines));
        Self(own | around | quoted)
    }

    /// Those that a packet concerns that belongs to no flow: the one that counts such packets, and those of `carriers`.
    pub fn refused(carriers: &[Decoded<'_>], engines: usize) -> Self {
        Self(1 | Self::around(carriers, engines))
    }

    fn around(carriers: &[Decoded<'_>], engines: usize) -> u64 {
        carriers.iter().fold(0, |bits, carrier| bits | (1 << shard(carrier, engines)))
    }

    fn all(engines: usize) -> Self {
        Self(u64::MAX >> (MAX_ENGINES - engines.clamp(1, MAX_ENGINES)))
    }

    /// Their numbers.
    pub fn numbers(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let number = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            (number < u64::BITS).then_some(number as usize)
        })
    }
}

fn shard_of(ends: (IpAddr, IpAddr), ports: Option<(u16, u16)>, protocol: Protocol, engines: usize) -> usize {
    let end = |ip: IpAddr, port: u16| {
        let bits = match ip {
            IpAddr::V4(ip) => u128::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        mix((bits >> 64) as u64 ^ mix(bits as u64 ^ mix(u64::from(port))))
    };
    let (src_port, dst_port) = ports.unwrap_or_default();
    let ends = end(ends.0, src_port).wrapping_add(end(ends.1, dst_port));
    let hash = mix(ends ^ u64::from(protocol.0));
    // The high half times the number of engines: no division, no bias worth mentioning.
    (((hash >> 32) * engines.max(1) as u64) >> 32) as usize
}

/// The finalizer of SplitMix64.
const fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
