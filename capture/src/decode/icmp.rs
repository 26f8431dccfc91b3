//! What ICMP (RFC 792) and ICMPv6 (RFC 4443) messages say: which type answers which, and what errors say of the packet
//! that they quote.

use std::net::IpAddr;

use super::link::Link;
use super::{Decoded, Transport, ip, transport};
use crate::record::{IcmpError, Protocol};

/// Type and code, as the ports of Community ID v1: a request and its reply make one pair, one-way messages keep type and
/// code.
pub(crate) const fn ports(protocol: Protocol, kind: u8, code: u8) -> (u16, u16) {
    let answer = match protocol {
        Protocol::ICMP => answer4(kind),
        Protocol(_) => answer6(kind),
    };
    (
        kind as u16,
        match answer {
            Some(answer) => answer as u16,
            None => code as u16,
        },
    )
}

/// The answering type of an ICMP message.
const fn answer4(kind: u8) -> Option<u8> {
    Some(match kind {
        0 => 8,
        8 => 0,
        9 => 10,
        10 => 9,
        13 => 14,
        14 => 13,
        15 => 16,
        16 => 15,
        17 => 18,
        18 => 17,
        _ => return None,
    })
}

/// Whether a message of this type asks for an echo.
pub(crate) const fn asks_for_echo(protocol: Protocol, kind: u8) -> bool {
    match protocol {
        Protocol::ICMP => kind == 8,
        Protocol(_) => kind == 128,
    }
}

/// Whether a message of this type is an answer: its receiver asked (echoes, times, masks, node information).
pub(crate) const fn answers(protocol: Protocol, kind: u8) -> bool {
    match protocol {
        Protocol::ICMP => matches!(kind, 0 | 14 | 16 | 18),
        Protocol(_) => matches!(kind, 129 | 140 | 145),
    }
}

/// The answering type of an ICMPv6 message.
const fn answer6(kind: u8) -> Option<u8> {
    Some(match kind {
        128 => 129,
        129 => 128,
        130 => 131,
        131 => 130,
        133 => 134,
        134 => 133,
        135 => 136,
        136 => 135,
        139 => 140,
        140 => 139,
        144 => 145,
        145 => 144,
        _ => return None,
    })
}

/// The error that a message reports; `None` if it is none.
const fn error(protocol: Protocol, kind: u8, code: u8) -> Option<IcmpError> {
    match protocol {
        Protocol::ICMP => error4(kind, code),
        Protocol(_) => error6(kind, code),
    }
}

const fn error4(kind: u8, code: u8) -> Option<IcmpError> {
    Some(match (kind, code) {
        (3, 0 | 6 | 11) => IcmpError::NetUnreachable,
        (3, 1 | 7 | 8 | 12) => IcmpError::HostUnreachable,
        (3, 2) => IcmpError::ProtocolUnreachable,
        (3, 3) => IcmpError::PortUnreachable,
        (3, 4) => IcmpError::PacketTooBig,
        (3, 5) => IcmpError::SourceRouteFailed,
        (3, 9 | 10 | 13..=15) => IcmpError::AdminProhibited,
        (3, _) => IcmpError::Unreachable,
        (4, _) => IcmpError::SourceQuench,
        (5, _) => IcmpError::Redirect,
        (11, _) => IcmpError::TimeExceeded,
        (12, _) => IcmpError::ParameterProblem,
        (_, _) => return None,
    })
}

const fn error6(kind: u8, code: u8) -> Option<IcmpError> {
    Some(match (kind, code) {
        (1, 0 | 6) => IcmpError::NetUnreachable,
        (1, 1 | 5) => IcmpError::AdminProhibited,
        (1, 2) => IcmpError::BeyondScope,
        (1, 3) => IcmpError::HostUnreachable,
        (1, 4) => IcmpError::PortUnreachable,
        (1, 7) => IcmpError::SourceRouteFailed,
        (1, _) => IcmpError::Unreachable,
        (2, _) => IcmpError::PacketTooBig,
        (3, _) => IcmpError::TimeExceeded,
        (4, _) => IcmpError::ParameterProblem,
        (REDIRECT6, _) => IcmpError::Redirect,
        (_, _) => return None,
    })
}

/// Redirect of neighbour discovery.
const REDIRECT6: u8 = 137;

/// An ICMP error and whom it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// What it says.
    pub error: IcmpError,
    /// Source of the quoted packet.
    pub src: IpAddr,
    /// Its destination.
    pub dst: IpAddr,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its ports, as in [`Decoded`]; `None` for protocols without, and in later fragments.
    pub ports: Option<(u16, u16)>,
}

/// What an ICMP error quotes. `None` for all other packets, and if there is too little of the quoted one.
#[inline]
pub fn quote(decoded: &Decoded<'_>) -> Option<Quote> {
    match &decoded.transport {
        Transport::Icmp { kind, code, payload, .. } => {
            let error = error(decoded.protocol, *kind, *code)?;
            let quoted =
                if (decoded.protocol, *kind) == (Protocol::ICMP6, REDIRECT6) { redirected(payload)? } else { payload };
            let ip = ip::parse(&Link::bare(quoted, quoted.len() as u32), u32::MAX).ok()?;
            let ports = transport::quoted_ports(&ip);
            Some(Quote { error, src: ip.ends.src(), dst: ip.ends.dst(), protocol: ip.protocol, ports })
        }
        Transport::Tcp(_) | Transport::Udp { .. } | Transport::Sctp { .. } | Transport::Other { .. } => None,
    }
}

/// Options of a redirect that are looked through.
const MAX_OPTIONS: usize = 8;

/// The packet in the redirected header option (RFC 4861, 4.6.3), after two addresses.
fn redirected(payload: &[u8]) -> Option<&[u8]> {
    let mut options = payload.get(32..)?;
    for _ in 0..MAX_OPTIONS {
        let [kind, units] = *options.first_chunk::<2>()?;
        if kind == 4 {
            return options.get(8..);
        }
        options = options.get(usize::from(units).max(1) * 8..)?;
    }
    None
}
