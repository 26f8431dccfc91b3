//! A flow in the table, and how its slices become records.

use std::sync::Arc;

use super::class::Class;
use super::duplicates::Arrival;
use super::key::{End, Key};
use super::moment::Moment;
use super::orient;
use super::related::Share;
use super::response::ResponseTimes;
use super::tally::{EGRESS, HEARD_MAC, INGRESS, JOINED, OWN_MAC, SENT, Tally};
use super::tcp::{Progress, TcpFlow};
use super::track::Track;
use crate::app::{Application, CARRIER, Context, Finished};
use crate::decode::{Decoded, Sealed, Tcp, Transport, flags, sealed};
use crate::memory;
use crate::packet::{Direction, Packet};
use crate::record::{EndReason, FlowRecord, IcmpError, OrientedBy, Protocol, Side, Source, Tunnel};
use crate::transaction::Transaction;
use crate::tunnel::Wrapping;

/// A flow: what belongs to its current slice, and what carries on.
pub(super) struct Flow {
    pub(super) key: Key,
    pub(super) id: u64,
    start: i64,
    end: i64,
    /// Clock at the last packet.
    pub(super) touched: Moment,
    /// Clock when the slice began.
    pub(super) slice_began: Moment,
    slice: u32,
    /// How many flows began with this key at the same time before.
    pub(super) again: u16,
    pub(super) class: Class,
    /// What it owned when it was weighed last, bytes.
    weighed: u32,
    /// Touched since it was queued for eviction.
    pub(super) referenced: bool,
    /// More than one packet.
    repeated: bool,
    /// Another engine tells of it.
    pub(super) is_shadow: bool,
    client: End,
    oriented_by: OrientedBy,
    tallies: [Tally; 2],
    responses: ResponseTimes,
    pub(super) track: Track,
    pub(super) application: Application,
    sealed: Option<Sealed>,
    /// The last ICMP error of the slice that quoted this flow.
    pub(super) icmp_error: Option<IcmpError>,
    tunnel: Option<Box<Tunnel>>,
}

/// What came of a packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    /// It is the first of its slice.
    pub(super) begins: bool,
    /// The application was asked.
    pub(super) read: bool,
}

/// What a flow owned, and owns, bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weight {
    pub(super) before: u32,
    pub(super) after: u32,
}

/// What every record of an engine has in common.
pub(super) struct Point<'a> {
    pub(super) node: &'a Arc<str>,
    pub(super) source: Source,
    pub(super) interface: Arc<str>,
}

impl Flow {
    /// A flow without packets, which `packet` from `end` begins.
    pub(super) fn new(key: Key, id: u64, end: End, decoded: &Decoded<'_>, time: i64) -> Self {
        let (client, oriented_by) = orient::by_packet(&key, end, decoded);
        let track = Track::begin(key.protocol(), decoded.src_port.is_some());
        let class = match (&track, key.protocol()) {
            (Track::Tcp(_), _) => Class::TcpOnce,
            (_, Protocol::UDP) => Class::UdpOnce,
            (_, Protocol(_)) => Class::OtherOnce,
        };
        Self {
            key,
            id,
            start: time,
            end: time,
            touched: Moment::default(),
            slice_began: Moment::default(),
            slice: 0,
            again: 0,
            class,
            weighed: 0,
            referenced: false,
            repeated: false,
            is_shadow: false,
            client,
            oriented_by,
            tallies: <[Tally; 2]>::default(),
            responses: ResponseTimes::default(),
            track,
            application: Application::new(false),
            sealed: sealed(decoded),
            icmp_error: None,
            tunnel: decoded.tunnel.clone().map(Box::new),
        }
    }

    /// Whether this segment opens another connection on the same addresses and ports.
    #[inline]
    pub(super) fn is_reopened_by(&self, end: End, segment: &Tcp<'_>) -> bool {
        self.track.tcp().is_some_and(|tcp| tcp.is_reopened_by(end, segment))
    }

    /// Whether the slice has no packets: the flow is new or was quiet since the last cut.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.tallies.iter().all(|tally| tally.packets == 0)
    }

    /// Whether and how its connection is over.
    pub(super) fn closed(&self) -> Option<EndReason> {
        self.track.tcp().and_then(TcpFlow::closed)
    }

    /// What kind of flow it is by now, with this packet.
    #[inline]
    fn class(&self, decoded: &Decoded<'_>) -> Class {
        match (self.track.tcp(), self.key.protocol()) {
            (Some(tcp), _) => match tcp.closed() {
                Some(_) if tcp.is_close_acknowledged() => Class::Closed,
                Some(_) => Class::Closing,
                None if tcp.is_half_open() => Class::HalfOpen,
                None if self.repeated => Class::Tcp,
                None => Class::TcpOnce,
            },
            (None, Protocol::UDP) if self.application.is_answered() => Class::Answered,
            (None, Protocol::UDP) if self.repeated => Class::Udp,
            (None, Protocol::UDP) => Class::UdpOnce,
            (None, Protocol::SCTP) if orient::is_associated(&decoded.transport) => {
                if self.repeated {
                    Class::Tcp
                } else {
                    Class::TcpOnce
                }
            }
            (None, Protocol(_)) if self.repeated => Class::Other,
            (None, Protocol(_)) => Class::OtherOnce,
        }
    }

    /// Counts a packet.
    #[inline]
    pub(super) fn count(&mut self, end: End, decoded: &Decoded<'_>, packet: &Packet<'_>, clock: i64) -> Counted {
        let begins = self.is_empty();
        let arrival = Arrival::new(decoded, packet, packet.time.saturating_sub(self.end));
        self.touched = Moment::of(clock);
        if begins {
            self.slice_began = self.touched;
            (self.start, self.end) = (packet.time, packet.time);
        }
        self.start = self.start.min(packet.time);
        self.end = self.end.max(packet.time);
        let first = self.tallies.iter().all(|tally| tally.marks & SENT == 0);
        (self.repeated, self.referenced) = (self.repeated || !first, self.referenced || !first);
        let (progress, read) = self.track_transport(end, decoded, packet, arrival);
        self.track_response(end, packet.time, progress);
        let tally = &mut self.tallies[end.index()];
        tally.packets = tally.packets.saturating_add(1);
        tally.bytes += u64::from(decoded.ip_bytes);
        tally.payload_bytes += u64::from(progress.fresh) + u64::from(progress.late) + u64::from(progress.again);
        if tally.learns() {
            self.learn(end, decoded, packet);
        }
        if !self.stays(decoded) {
            self.class = self.class(decoded);
        }
        Counted { begins, read }
    }

    /// Whether its class cannot have changed with a packet: a connection's changes with SYN, FIN and RST alone.
    #[inline]
    fn stays(&self, decoded: &Decoded<'_>) -> bool {
        let turns = flags::SYN | flags::FIN | flags::RST;
        self.class == Class::Tcp && matches!(&decoded.transport, Transport::Tcp(segment) if segment.flags & turns == 0)
    }

    /// Which slice is the current one.
    pub(super) fn slice(&self) -> u32 {
        self.slice
    }

    /// Whether this end ever sent a packet.
    pub(super) fn has_sent(&self, end: End) -> bool {
        self.tallies[end.index()].marks & SENT != 0
    }

    /// This end, which sent nothing so far, answers with another id of the tunnel than the flow's.
    pub(super) const fn join(&mut self, end: End) {
        self.tallies[end.index()].marks |= JOINED;
    }

    /// Whether all that this end sent had another id than the flow's.
    pub(super) fn is_joined(&self, end: End) -> bool {
        self.tallies[end.index()].marks & JOINED != 0
    }

    /// Adds packets that were counted in another flow before it was known that they belong here.
    pub(super) fn add(&mut self, end: End, share: &Share, clock: i64) {
        self.touched = Moment::of(clock);
        if self.is_empty() {
            self.slice_began = self.touched;
            (self.start, self.end) = (share.since, share.since);
        }
        self.start = self.start.min(share.since);
        let tally = &mut self.tallies[end.index()];
        tally.packets = tally.packets.saturating_add(share.packets);
        tally.bytes += share.bytes;
        tally.payload_bytes += share.payload_bytes;
    }

    /// Counts a fragment that the capture delivered before.
    pub(super) fn count_copy(&mut self, end: End) {
        self.track.count_copy(end);
    }

    /// Takes packets out that turn out to belong to another flow.
    pub(super) fn take(&mut self, end: End, share: &Share) {
        let tally = &mut self.tallies[end.index()];
        tally.packets = tally.packets.saturating_sub(share.packets);
        tally.bytes = tally.bytes.saturating_sub(share.bytes);
        tally.payload_bytes = tally.payload_bytes.saturating_sub(share.payload_bytes);
    }

    /// A packet of an end that answers with another id than the flow's may have the flow's.
    #[cold]
    fn may_part(&mut self, end: End, decoded: &Decoded<'_>, packet: &Packet<'_>) {
        if Key::new(decoded, packet.interface).0 == self.key {
            self.tallies[end.index()].marks &= !JOINED;
        }
    }

    /// What the first packet of an end tells.
    fn learn(&mut self, end: End, decoded: &Decoded<'_>, packet: &Packet<'_>) {
        if self.is_joined(end) {
            self.may_part(end, decoded, packet);
        }
        let tally = &mut self.tallies[end.index()];
        if tally.marks & SENT == 0 {
            tally.dscp = decoded.dscp;
        }
        if tally.direction().is_none() {
            tally.marks |= match packet.direction {
                Some(Direction::Ingress) => INGRESS,
                Some(Direction::Egress) => EGRESS,
                None => 0,
            };
        }
        tally.marks |= SENT;
        tally.learn_mac(decoded.src_mac, OWN_MAC);
        self.tallies[end.other().index()].learn_mac(decoded.dst_mac, HEARD_MAC);
    }

    /// Hands the packet to its transport and application; the payload bytes that are new, and whether the application
    /// was asked.
    #[inline]
    fn track_transport(
        &mut self,
        end: End,
        decoded: &Decoded<'_>,
        packet: &Packet<'_>,
        arrival: Arrival<'_>,
    ) -> (Progress, bool) {
        let time = packet.time;
        match &decoded.transport {
            Transport::Tcp(segment) => {
                let progress = match self.track.tcp_mut() {
                    Some(tcp) => {
                        let progress = tcp.track(end, time, segment, arrival);
                        if segment.flags & flags::SYN != 0
                            && let Some((client, by)) = tcp.client()
                        {
                            (self.client, self.oriented_by) = (client, by);
                            if segment.flags & flags::ACK != 0 && tcp.is_unsaid(end) {
                                self.application.begins(end, tcp.first_bytes()[end.index()]);
                            }
                        }
                        progress
                    }
                    None => Progress { fresh: segment.payload_len, ..Progress::default() },
                };
                let read = self.application.wants(end, segment.payload_len);
                if read {
                    self.read_segment(end, time, segment);
                }
                (progress, read)
            }
            Transport::Udp { .. } | Transport::Icmp { .. }
                if self.track.is_copied_datagram(end, &decoded.transport, arrival) =>
            {
                (Progress { again: decoded.transport.payload_len(), ..Progress::default() }, false)
            }
            Transport::Udp { payload, payload_len } => {
                // What a tunnel carries is recognised in its own flow. The fragment that completes a datagram brings all of it.
                let read = !self.key.is_carrier();
                if read {
                    let context = Context { end, time, ports: self.ports() };
                    self.application.udp(context, payload, (*payload_len).max(payload.len() as u32));
                }
                (Progress { fresh: *payload_len, ..Progress::default() }, read)
            }
            Transport::Sctp { chunk, payload_len } => {
                if let Some((client, by)) = orient::by_chunk(*chunk, end, self.oriented_by) {
                    (self.client, self.oriented_by) = (client, by);
                }
                (Progress { fresh: *payload_len, ..Progress::default() }, false)
            }
            Transport::Icmp { kind, rest, payload_len, .. } => {
                self.track.echo((self.key.protocol(), *kind, *rest), time, &mut self.responses);
                (Progress { fresh: *payload_len, ..Progress::default() }, false)
            }
            Transport::Other { payload_len } => (Progress { fresh: *payload_len, ..Progress::default() }, false),
        }
    }

    #[inline(never)]
    fn read_segment(&mut self, end: End, time: i64, segment: &Tcp<'_>) {
        let first = self.track.tcp().map(TcpFlow::first_bytes).unwrap_or_default();
        let context = Context { end, time, ports: self.ports() };
        self.application.tcp(context, segment, first);
    }

    #[inline]
    fn track_response(&mut self, end: End, time: i64, progress: Progress) {
        if !matches!(self.key.protocol(), Protocol::TCP | Protocol::UDP) {
            return;
        }
        if end == self.client {
            if progress.fresh > 0 || progress.late > 0 {
                self.responses.asked(time);
            }
        } else if progress.fresh > 0 {
            self.responses.answered(time);
        }
    }

    /// Ports of both ends; 0 where there are none.
    fn ports(&self) -> [u16; 2] {
        [End::Low, End::High].map(|end| self.key.port(end).unwrap_or_default())
    }

    /// Appends the record of the current slice; without a reason, as it would be if it ended now. Nothing that any record
    /// says is changed by asking. Records are large, so most of it is filled in where it is.
    pub(super) fn record(&mut self, reason: Option<EndReason>, point: Point<'_>, out: &mut Vec<FlowRecord>) {
        if let Some(tcp) = self.track.tcp_mut() {
            tcp.settle_holes();
        }
        let (vlan, vlan_inner) = self.key.vlans();
        let client = &self.tallies[self.client.index()];
        let rtt = self.track.tcp().map(|tcp| tcp.rtt).unwrap_or_default();
        let side = |end: End| Side::new(self.key.ip(end), self.key.port(end));
        out.push(FlowRecord {
            flow_id: self.id,
            slice: self.slice,
            start: self.start,
            end: self.end,
            end_reason: reason,
            community_id: self.key.community_id(),
            node: point.node.clone(),
            interface: point.interface,
            interface_index: self.key.interface(),
            source: point.source,
            client_direction: client.direction(),
            observed_at: None,
            primary: !self.key.is_carrier(),
            oriented_by: self.oriented_by,
            protocol: self.key.protocol(),
            client: side(self.client),
            server: side(self.client.other()),
            vlan,
            vlan_inner,
            dscp: (client.marks & SENT != 0).then_some(client.dscp),
            tunnel: self.tunnel.as_deref().cloned(),
            tcp_state: self.track.tcp().map(|tcp| tcp.state(self.client)),
            syn_retries: self.track.tcp().map(TcpFlow::syn_retries),
            handshake_rtt_us: rtt.whole.get(),
            responses: self.responses.figures(),
            app: if self.key.is_carrier() { Some(CARRIER) } else { self.sealed.map(Sealed::as_str) },
            dns: None,
            tls: None,
            http: None,
            icmp_error: self.icmp_error.map(IcmpError::as_str),
            packets_stored: None,
            retention: None,
        });
        let Some(record) = out.last_mut() else { return };
        let last = reason != Some(EndReason::Active);
        self.fill_side(self.client, last, &mut record.client);
        self.fill_side(self.client.other(), last, &mut record.server);
        record.client.rtt_us = rtt.client.get();
        record.server.rtt_us = rtt.server.get();
        let over = reason.is_some_and(|reason| reason != EndReason::Active);
        self.application.fill(record, over);
    }

    fn fill_side(&self, end: End, last: bool, side: &mut Side) {
        let tally = &self.tallies[end.index()];
        side.mac = tally.mac();
        side.packets = tally.packets.into();
        side.bytes = tally.bytes;
        side.payload_bytes = tally.payload_bytes;
        self.track.figures(end, (self.end, last), side);
    }

    /// Begins the next slice, without packets.
    pub(super) fn next_slice(&mut self) {
        self.slice += 1;
        self.icmp_error = None;
        for tally in &mut self.tallies {
            (tally.packets, tally.bytes, tally.payload_bytes) = (0, 0, 0);
        }
        self.responses.restart();
        self.track.restart_counts(self.end);
        self.application.next_slice(self.end);
    }

    /// The flow is over.
    pub(super) fn close(&mut self) {
        let ports = self.ports();
        self.application.close(self.end, ports);
    }

    /// Hands the exchanges that are finished to `each`, as transactions.
    pub(super) fn take_transactions(&mut self, point: &Point<'_>, mut each: impl FnMut(Transaction)) {
        let Self { application, key, id, tallies, tunnel, .. } = self;
        application.take_finished(|number, Finished { asker, exchange }| {
            each(Transaction {
                flow_id: *id,
                number,
                node: point.node.clone(),
                interface: point.interface.clone(),
                interface_index: key.interface(),
                source: point.source,
                client_direction: tallies[asker.index()].direction(),
                observed_at: None,
                primary: true,
                protocol: key.protocol(),
                client_ip: key.ip(asker),
                client_port: key.port(asker),
                server_ip: key.ip(asker.other()),
                server_port: key.port(asker.other()),
                wrapping: Wrapping::of(key.vlans(), tunnel.as_deref()),
                exchange,
            });
        });
    }

    /// What the flow owned when it was weighed last, bytes.
    #[inline]
    pub(super) const fn weighed(&self) -> u32 {
        self.weighed
    }

    /// Weighs the flow anew, if what it owns has changed. To be told to the table.
    #[inline]
    pub(super) fn weigh(&mut self) -> Option<Weight> {
        let after = u32::try_from(self.owned_bytes()).unwrap_or(u32::MAX);
        let before = std::mem::replace(&mut self.weighed, after);
        (before != after).then_some(Weight { before, after })
    }

    /// Bytes of memory owned beside the structure itself.
    #[inline]
    fn owned_bytes(&self) -> usize {
        self.track.tcp().map_or(0, TcpFlow::owned_bytes)
            + self.application.owned_bytes()
            + self.tunnel.as_ref().map_or(0, |_| memory::of_box::<Tunnel>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With 16 bytes of links in queues and at most 19 of the index (eight, at seven sixteenths' load) this is what a
    /// flow takes: less than 400.
    #[test]
    fn a_flow_is_small() {
        assert!(size_of::<Option<Flow>>() <= 360, "{}", size_of::<Option<Flow>>());
    }
}
