//! What carries on in a flow by its transport: a connection, or datagrams.

use super::duplicates::{Arrival, Earlier, Recent};
use super::key::End;
use super::response::ResponseTimes;
use super::tcp::TcpFlow;
use crate::decode::{Transport, asks_for_echo};
use crate::record::{Protocol, Side};

/// See the module documentation.
#[derive(Debug)]
pub(super) enum Track {
    /// A connection.
    Tcp(TcpFlow),
    /// UDP or ICMP.
    Datagrams(Datagrams),
    /// Nothing is known but addresses: other protocols, and what fragments without ports belong to.
    Nothing,
}

/// The datagrams of a flow.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    recent: Recent,
    /// Here is room for it: a connection takes more.
    earlier: Earlier,
    /// There was a copy: the earlier ones are remembered, too.
    copied: bool,
    /// By end, in the slice.
    copies: [u32; 2],
    /// Identifier and sequence number of the last echo that was asked for; 0: none, or they were not captured.
    echo: u32,
}

impl Track {
    /// Of a flow that begins. A connection may begin with a fragment; one without ports cannot be followed.
    pub(super) fn begin(protocol: Protocol, has_ports: bool) -> Self {
        match protocol {
            Protocol::TCP if has_ports => Self::Tcp(TcpFlow::default()),
            Protocol::UDP | Protocol::UDP_LITE | Protocol::ICMP | Protocol::ICMP6 => {
                Self::Datagrams(Datagrams::default())
            }
            Protocol(_) => Self::Nothing,
        }
    }

    /// Nothing came for a while.
    pub(super) fn fall_silent(&mut self) {
        match self {
            Self::Tcp(tcp) => tcp.fall_silent(),
            Self::Datagrams(_) | Self::Nothing => {}
        }
    }

    #[inline]
    pub(super) const fn tcp(&self) -> Option<&TcpFlow> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Datagrams(_) | Self::Nothing => None,
        }
    }

    #[inline]
    pub(super) const fn tcp_mut(&mut self) -> Option<&mut TcpFlow> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Datagrams(_) | Self::Nothing => None,
        }
    }

    /// Counts a packet that the capture delivered before; whether it is one. Connections see to that themselves.
    pub(super) fn is_copied_datagram(&mut self, from: End, transport: &Transport<'_>, arrival: Arrival<'_>) -> bool {
        let Self::Datagrams(Datagrams { recent, earlier, copied, copies, .. }) = self else { return false };
        let is_copy = recent.is_copied_datagram(copied.then_some(earlier), (from, transport), arrival);
        copies[from.index()] = copies[from.index()].saturating_add(is_copy.into());
        *copied |= is_copy;
        is_copy
    }

    /// Takes a message of ICMP, its type and the rest of its header: an echo has a response time, also without payload.
    pub(super) fn echo(
        &mut self,
        (protocol, kind, rest): (Protocol, u8, u32),
        time: i64,
        responses: &mut ResponseTimes,
    ) {
        let Self::Datagrams(Datagrams { echo, .. }) = self else { return };
        if asks_for_echo(protocol, kind) {
            *echo = rest;
            responses.asked(time);
        } else if rest != 0 && *echo == rest {
            responses.answered(time);
        }
    }

    /// Counts a fragment that the capture delivered before. A connection counts segments.
    pub(super) fn count_copy(&mut self, from: End) {
        if let Self::Datagrams(Datagrams { copies, .. }) = self {
            copies[from.index()] = copies[from.index()].saturating_add(1);
        }
    }

    /// Figures of an end in the slice, whose last packet was at `end_of_slice`.
    pub(super) fn figures(&self, end: End, end_of_slice: (i64, bool), side: &mut Side) {
        match self {
            Self::Tcp(tcp) => tcp.figures(end, end_of_slice, side),
            Self::Datagrams(datagrams) => side.capture_duplicates = Some(datagrams.copies[end.index()]),
            Self::Nothing => {}
        }
    }

    /// Begins the next slice after `end`: figures restart.
    pub(super) fn restart_counts(&mut self, end: i64) {
        match self {
            Self::Tcp(tcp) => tcp.restart_counts(end),
            Self::Datagrams(datagrams) => datagrams.copies = [0; 2],
            Self::Nothing => {}
        }
    }
}
