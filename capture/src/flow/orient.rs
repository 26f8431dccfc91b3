//! Which end is the client.
//!
//! SYN, else SYN-ACK, else the port rule, else the first sender. ICMP has no ports: the first sender.

use super::key::{End, Key};
use crate::record::{OrientedBy, Protocol};

/// Ports below are well known (RFC 6335, system ports).
const SYSTEM_PORTS: u16 = 1024;

/// Linux hands out ephemeral ports from here on (`ip_local_port_range`); other systems begin at 49152.
const EPHEMERAL_PORTS: u16 = 32768;

/// The client of a flow without a handshake whose first packet `first` sent.
pub(super) fn by_ports(key: &Key, first: End) -> (End, OrientedBy) {
    let icmp = matches!(key.protocol(), Protocol::ICMP | Protocol::ICMP6);
    let ports = key.port(End::Low).zip(key.port(End::High)).filter(|_| !icmp);
    let Some((low, high)) = ports else { return (first, OrientedBy::FirstPacket) };
    if lower_serves(low, high) {
        let client = if low < high { End::High } else { End::Low };
        return (client, OrientedBy::Port);
    }
    (first, OrientedBy::FirstPacket)
}

/// Whether two ports differ in kind, so that the lower one is the server's.
pub(crate) const fn lower_serves(one: u16, other: u16) -> bool {
    let system = (one < SYSTEM_PORTS) != (other < SYSTEM_PORTS);
    let ephemeral = (one < EPHEMERAL_PORTS) != (other < EPHEMERAL_PORTS);
    system || ephemeral
}
