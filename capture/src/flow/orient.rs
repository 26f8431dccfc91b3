//! Which end is the client.
//!
//! SYN, else SYN-ACK (of SCTP: INIT, INIT ACK), else the port rule, else the first sender. What is sent to all or to a
//! group can have no answer from there: its sender is the client whatever the ports. ICMP has no ports: the first
//! sender, but for an answer its receiver.

use std::net::{IpAddr, Ipv4Addr};

use super::key::{End, Key};
use crate::decode::{Decoded, Transport, icmp_answers};
use crate::record::{OrientedBy, Protocol};

/// Ports below are well known (RFC 6335, system ports).
const SYSTEM_PORTS: u16 = 1024;

/// Linux hands out ephemeral ports from here on (`ip_local_port_range`); other systems begin at 49152.
const EPHEMERAL_PORTS: u16 = 32768;

/// The client of a flow without a handshake whose first packet `first` sent.
pub(super) fn by_packet(key: &Key, first: End, decoded: &Decoded<'_>) -> (End, OrientedBy) {
    if let Transport::Icmp { kind, .. } = decoded.transport {
        let client = if icmp_answers(decoded.protocol, kind) { first.other() } else { first };
        return (client, OrientedBy::FirstPacket);
    }
    let icmp = matches!(key.protocol(), Protocol::ICMP | Protocol::ICMP6);
    let ports = key.port(End::Low).zip(key.port(End::High)).filter(|_| !icmp);
    let Some((low, high)) = ports else { return (first, OrientedBy::FirstPacket) };
    if !lower_serves(low, high) {
        return (first, OrientedBy::FirstPacket);
    }
    let client = if low < high { End::High } else { End::Low };
    if client != first && is_of_many(decoded.dst) {
        return (first, OrientedBy::FirstPacket);
    }
    (client, OrientedBy::Port)
}

/// The client of an SCTP association that a packet of `sender`'s with this first chunk (RFC 9260, 3.2) opens or
/// answers, unless it is known already.
pub(super) fn by_chunk(chunk: Option<u8>, sender: End, so_far: OrientedBy) -> Option<(End, OrientedBy)> {
    const INIT: u8 = 1;
    const INIT_ACK: u8 = 2;
    let (client, by) = match chunk? {
        INIT => (sender, OrientedBy::Syn),
        INIT_ACK => (sender.other(), OrientedBy::SynAck),
        _ => return None,
    };
    let known = so_far == OrientedBy::Syn || so_far == by;
    (!known).then_some((client, by))
}

/// Whether an SCTP association may go on after this packet: not if it is aborted, or shut down (RFC 9260, 9).
pub(super) fn is_associated(transport: &Transport<'_>) -> bool {
    const ABORT: u8 = 6;
    const SHUTDOWN_COMPLETE: u8 = 14;
    matches!(transport, Transport::Sctp { chunk, .. } if !matches!(chunk, Some(ABORT | SHUTDOWN_COMPLETE)))
}

/// Whether an address is that of a group or of all: no packet comes from there (RFC 1122, 3.2.1.3; RFC 4291, 2.7).
fn is_of_many(ip: IpAddr) -> bool {
    ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Whether two ports differ in kind, so that the lower one is the server's.
pub(crate) const fn lower_serves(one: u16, other: u16) -> bool {
    let system = (one < SYSTEM_PORTS) != (other < SYSTEM_PORTS);
    let ephemeral = (one < EPHEMERAL_PORTS) != (other < EPHEMERAL_PORTS);
    system || ephemeral
}
