//! Which of several engines a packet belongs to.
//!
//! Engines share nothing. A distributor that hands each packet to `engines[shard(decoded, n)]` gets, together, the
//! records that one engine would give, if
//! * each engine is told the time: before each of its packets [`Engine::advance`](super::Engine::advance) is called with
//!   the greatest time of any packet of the input so far, and before [`Engine::finish`](super::Engine::finish) with the
//!   greatest of all (telling it more often changes nothing);
//! * no table is full: which flow is evicted depends on the others in the same table.
//!
//! The hash takes addresses, ports and protocol of the innermost packet, whichever way it goes, and is the same in every
//! run. Later fragments must have been given the ports of their datagram, else they come as a flow of their own.

use std::net::IpAddr;

use crate::decode::Decoded;

/// The number of the engine, less than `engines`, for a packet; both directions of a flow have the same.
pub fn shard(decoded: &Decoded<'_>, engines: usize) -> usize {
    let end = |ip: IpAddr, port: Option<u16>| {
        let bits = match ip {
            IpAddr::V4(ip) => u128::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        mix((bits >> 64) as u64 ^ mix(bits as u64 ^ mix(u64::from(port.unwrap_or_default()))))
    };
    let ends = end(decoded.src, decoded.src_port).wrapping_add(end(decoded.dst, decoded.dst_port));
    let hash = mix(ends ^ u64::from(decoded.protocol.0));
    // The high half times the number of engines: no division, no bias worth mentioning.
    (((hash >> 32) * engines.max(1) as u64) >> 32) as usize
}

/// The finalizer of SplitMix64.
const fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
