//! What the join must know of a flow record or a transaction: where, when and between whom packets were seen.

use std::net::IpAddr;

use wiretag_capture::{Direction, EndReason, FlowRecord, ObservedAt, Protocol, Source, Transaction, Wrapping};

use crate::tagged::Record;
use crate::timeline::Span;

/// An end on the wire.
pub(super) type End = (IpAddr, Option<u16>);

/// Packets of a flow at one observation point.
#[derive(Debug, Clone, Copy)]
pub(super) struct Observation {
    /// Kind of source.
    pub(super) source: Source,
    /// Network namespace of the interface; 0: wiretag's own. Of an exporter: its number.
    pub(super) netns: u64,
    /// Interface.
    pub(super) interface: u32,
    /// IP protocol.
    pub(super) protocol: Protocol,
    /// Client.
    pub(super) client: End,
    /// Server.
    pub(super) server: End,
    /// Link-layer addresses of client and server.
    pub(super) macs: [Option<[u8; 6]>; 2],
    /// Whether packets of client and server were seen, as far as this row tells.
    pub(super) sent: [bool; 2],
    /// Direction of the client's packets.
    pub(super) client_direction: Option<Direction>,
    /// Where it is, once that is known.
    pub(super) observed_at: Option<ObservedAt>,
    /// Since when the flow is seen there, as far as this row tells.
    pub(super) since: i64,
    /// Whether it began then: not if another row may have told of it before.
    pub(super) begins: bool,
    /// When the flow had its last packet there; `None`: it goes on, or this does not tell.
    pub(super) over: Option<i64>,
    /// What the packets were in.
    pub(super) wrapping: Wrapping,
    /// As of when the names are looked up.
    pub(super) when: Span,
}

/// A row that the tagger names.
pub(super) trait Observed: Record {
    /// What is to be known of it.
    fn observation(&self, netns: u64) -> Observation;
    /// Whether it may count in totals.
    fn is_primary(&self) -> bool;
    /// Says where it was observed.
    fn set_observed_at(&mut self, at: ObservedAt);
    /// Says whether it counts in totals.
    fn set_primary(&mut self, primary: bool);
}

/// Files are looked up as of the beginning; what is live as of all its time, over which a name must hold.
pub(super) fn when(source: Source, start: i64, end: i64) -> Span {
    match source {
        Source::File => start.into(),
        Source::Ring | Source::Netflow => Span { from: start, to: end },
    }
}

/// Whether nothing more can come of a flow whose row has ended so.
const fn is_final(reason: EndReason) -> bool {
    match reason {
        EndReason::Fin
        | EndReason::Rst
        | EndReason::Idle
        | EndReason::EndOfInput
        | EndReason::Shutdown
        | EndReason::Interrupted => true,
        EndReason::Active | EndReason::Evicted | EndReason::Exported => false,
    }
}

impl Observed for FlowRecord {
    fn observation(&self, netns: u64) -> Observation {
        Observation {
            source: self.source,
            netns,
            interface: self.interface_index,
            protocol: self.protocol,
            client: (self.client.ip, self.client.port),
            server: (self.server.ip, self.server.port),
            macs: [self.client.mac, self.server.mac],
            sent: [self.client.packets > 0, self.server.packets > 0],
            client_direction: self.client_direction,
            observed_at: self.observed_at,
            since: self.start,
            begins: self.slice == 0,
            over: self.end_reason.is_some_and(is_final).then_some(self.end),
            wrapping: Wrapping::of((self.vlan, self.vlan_inner), self.tunnel.as_ref()),
            when: when(self.source, self.start, self.end),
        }
    }

    fn is_primary(&self) -> bool {
        self.primary
    }

    fn set_observed_at(&mut self, at: ObservedAt) {
        self.observed_at = Some(at);
    }

    fn set_primary(&mut self, primary: bool) {
        self.primary = primary;
    }
}

impl Observed for Transaction {
    fn observation(&self, netns: u64) -> Observation {
        Observation {
            source: self.source,
            netns,
            interface: self.interface_index,
            protocol: self.protocol,
            client: (self.client_ip, self.client_port),
            server: (self.server_ip, self.server_port),
            macs: [None; 2],
            sent: [true; 2],
            client_direction: self.client_direction,
            observed_at: self.observed_at,
            since: self.exchange.start,
            begins: false,
            over: None,
            wrapping: self.wrapping,
            when: when(self.source, self.exchange.start, self.exchange.end),
        }
    }

    fn is_primary(&self) -> bool {
        self.primary
    }

    fn set_observed_at(&mut self, at: ObservedAt) {
        self.observed_at = Some(at);
    }

    fn set_primary(&mut self, primary: bool) {
        self.primary = primary;
    }
}
