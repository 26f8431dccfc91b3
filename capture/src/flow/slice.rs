//! A flow in the table, and how its slices become records.

use std::sync::Arc;

use super::key::{End, Key};
use super::orient;
use super::table::Class;
use super::tcp::TcpFlow;
use crate::app::{Application, Context, Finished};
use crate::decode::{Decoded, Tcp, Transport};
use crate::packet::{Direction, Packet};
use crate::record::{EndReason, FlowRecord, OrientedBy, Protocol, Side, Source, Tunnel};
use crate::transaction::Transaction;

/// Figures of one end in the slice, and what its first packet told.
#[derive(Debug, Default)]
struct Tally {
    packets: u64,
    bytes: u64,
    payload_bytes: u64,
    /// Source address of this end's own packets.
    mac: Option<[u8; 6]>,
    /// Destination address of the other end's packets.
    mac_heard: Option<[u8; 6]>,
    dscp: Option<u8>,
    direction: Option<Direction>,
}

/// A flow: what belongs to its current slice, and what carries on.
pub(super) struct Flow {
    pub(super) key: Key,
    pub(super) id: u64,
    /// First packet of the flow.
    pub(super) began: i64,
    /// How many flows began with this key at `began` before.
    pub(super) again: u32,
    slice: u32,
    start: i64,
    end: i64,
    tallies: [Tally; 2],
    client: End,
    oriented_by: OrientedBy,
    tcp: Option<Box<TcpFlow>>,
    pub(super) application: Application,
    tunnel: Option<Box<Tunnel>>,
    interface: Arc<str>,
    community_id: Option<Arc<str>>,
}

impl Flow {
    /// A flow without packets, which `packet` from `end` begins.
    pub(super) fn new(key: Key, end: End, decoded: &Decoded<'_>, time: i64, interface: Arc<str>) -> Self {
        let (client, oriented_by) = orient::by_ports(&key, end);
        let tcp = match decoded.transport {
            Transport::Tcp(_) => Some(Box::default()),
            Transport::Udp { .. } | Transport::Icmp { .. } | Transport::Other { .. } => None,
        };
        Self {
            key,
            id: 0,
            began: time,
            again: 0,
            slice: 0,
            start: time,
            end: time,
            tallies: <[Tally; 2]>::default(),
            client,
            oriented_by,
            tcp,
            application: Application::new(false),
            tunnel: decoded.tunnel.clone().map(Box::new),
            interface,
            community_id: None,
        }
    }

    /// Whether this segment opens another connection on the same addresses and ports.
    #[inline]
    pub(super) fn is_reopened_by(&self, end: End, segment: &Tcp<'_>) -> bool {
        self.tcp.as_ref().is_some_and(|tcp| tcp.is_reopened_by(end, segment))
    }

    /// Whether the slice has no packets: the flow is new or was quiet since the last cut.
    pub(super) fn is_empty(&self) -> bool {
        self.tallies.iter().all(|tally| tally.packets == 0)
    }

    /// Whether and how its connection is over.
    pub(super) fn closed(&self) -> Option<EndReason> {
        self.tcp.as_ref().and_then(|tcp| tcp.closed())
    }

    /// Which idle timeout holds.
    pub(super) fn class(&self) -> Class {
        match (&self.tcp, self.key.protocol()) {
            (Some(tcp), _) => match tcp.closed() {
                Some(_) if tcp.is_close_acknowledged() => Class::Closed,
                Some(_) => Class::Closing,
                None => Class::Tcp,
            },
            (None, Protocol::UDP) if self.application.is_answered() => Class::Answered,
            (None, Protocol::UDP) => Class::Udp,
            (None, Protocol(_)) => Class::Other,
        }
    }

    /// Start of the current slice.
    pub(super) fn start(&self) -> i64 {
        self.start
    }

    /// Counts a packet.
    pub(super) fn count(&mut self, end: End, decoded: &Decoded<'_>, packet: &Packet<'_>) {
        if self.is_empty() {
            (self.start, self.end) = (packet.time, packet.time);
        }
        self.start = self.start.min(packet.time);
        self.end = self.end.max(packet.time);
        let payload = self.track_transport(end, decoded, packet.time);
        let tally = &mut self.tallies[end.index()];
        tally.packets += 1;
        tally.bytes += u64::from(decoded.ip_bytes);
        tally.payload_bytes += u64::from(payload);
        if tally.dscp.is_none() {
            tally.dscp = Some(decoded.dscp);
        }
        if tally.direction.is_none() {
            tally.direction = packet.direction;
        }
        if tally.mac.is_none() {
            tally.mac = decoded.src_mac;
            let other = &mut self.tallies[end.other().index()];
            other.mac_heard = other.mac_heard.or(decoded.dst_mac);
        }
    }

    /// Hands the packet to its transport and application; the payload bytes that are new.
    fn track_transport(&mut self, end: End, decoded: &Decoded<'_>, time: i64) -> u32 {
        match &decoded.transport {
            Transport::Tcp(segment) => {
                let fresh = match &mut self.tcp {
                    Some(tcp) => {
                        let fresh = tcp.track(end, time, segment);
                        if let Some((client, by)) = tcp.client() {
                            (self.client, self.oriented_by) = (client, by);
                        }
                        fresh
                    }
                    None => segment.payload_len,
                };
                let first = self.tcp.as_ref().map(|tcp| tcp.first_bytes()).unwrap_or_default();
                let context = Context { end, time, ports: self.key.both_ports() };
                self.application.tcp(context, segment, first);
                fresh
            }
            Transport::Udp { payload, payload_len } => {
                let context = Context { end, time, ports: self.key.both_ports() };
                self.application.udp(context, payload, *payload_len);
                *payload_len
            }
            Transport::Icmp { payload_len, .. } | Transport::Other { payload_len } => *payload_len,
        }
    }

    /// The record of the current slice.
    pub(super) fn record(&mut self, reason: EndReason, node: &Arc<str>, source: Source) -> FlowRecord {
        if self.community_id.is_none() {
            self.community_id = self.key.community_id().map(Into::into);
        }
        let (vlan, vlan_inner) = self.key.vlans();
        let client = &self.tallies[self.client.index()];
        let rtt = self.tcp.as_ref().map(|tcp| tcp.rtt).unwrap_or_default();
        let mut record = FlowRecord {
            flow_id: self.id,
            slice: self.slice,
            start: self.start,
            end: self.end,
            end_reason: reason,
            community_id: self.community_id.clone(),
            node: node.clone(),
            interface: self.interface.clone(),
            interface_index: self.key.interface(),
            source,
            client_direction: client.direction,
            observed_at: None,
            primary: true,
            oriented_by: self.oriented_by,
            protocol: self.key.protocol(),
            client: self.side(self.client),
            server: self.side(self.client.other()),
            vlan,
            vlan_inner,
            dscp: client.dscp,
            tunnel: self.tunnel.as_deref().cloned(),
            tcp_state: self.tcp.as_ref().map(|tcp| tcp.state(self.client)),
            syn_retries: self.tcp.as_ref().map(|tcp| tcp.syn_retries.into()),
            handshake_rtt_us: rtt.whole,
            responses: None,
            app: None,
            dns: None,
            tls: None,
            http: None,
            icmp_error: None,
            packets_stored: None,
            retention: None,
        };
        self.application.fill(&mut record);
        record.client.rtt_us = rtt.client;
        record.server.rtt_us = rtt.server;
        record
    }

    fn side(&self, end: End) -> Side {
        let tally = &self.tallies[end.index()];
        let mut side = Side::new(self.key.ip(end), self.key.port(end));
        side.mac = tally.mac.or(tally.mac_heard);
        side.packets = tally.packets;
        side.bytes = tally.bytes;
        side.payload_bytes = tally.payload_bytes;
        if let Some(tcp) = &self.tcp {
            let tcp = &tcp.ends[end.index()];
            side.tcp_flags = Some(tcp.counts.flags);
            side.retransmits = Some(tcp.counts.retransmits.into());
            side.retransmit_bytes = Some(tcp.counts.retransmit_bytes);
            side.out_of_order = Some(tcp.counts.out_of_order.into());
            side.zero_windows = Some(tcp.counts.zero_windows.into());
            side.resets = Some(tcp.counts.resets.into());
            side.mss = tcp.mss.map(u64::from);
        }
        side
    }

    /// Begins the next slice, without packets.
    pub(super) fn next_slice(&mut self) {
        self.slice += 1;
        for tally in &mut self.tallies {
            (tally.packets, tally.bytes, tally.payload_bytes) = (0, 0, 0);
        }
        if let Some(tcp) = &mut self.tcp {
            tcp.restart_counts();
        }
        self.application.next_slice(self.end);
    }

    /// Hands the exchanges that are finished to `each`, as transactions.
    pub(super) fn take_transactions(&mut self, node: &Arc<str>, source: Source, mut each: impl FnMut(Transaction)) {
        let Self { application, key, id, began, interface, tallies, .. } = self;
        application.take_finished(|number, Finished { asker, exchange }| {
            each(Transaction {
                flow_id: *id,
                number,
                flow_start: *began,
                node: node.clone(),
                interface: interface.clone(),
                interface_index: key.interface(),
                source,
                client_direction: tallies[asker.index()].direction,
                observed_at: None,
                primary: true,
                protocol: key.protocol(),
                client_ip: key.ip(asker),
                client_port: key.port(asker),
                server_ip: key.ip(asker.other()),
                server_port: key.port(asker.other()),
                exchange,
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_small() {
        // A million flows in the table: these are megabytes.
        assert!(size_of::<Option<Flow>>() <= 384, "{}", size_of::<Option<Flow>>());
        assert!(size_of::<TcpFlow>() <= 288, "{}", size_of::<TcpFlow>());
    }
}
