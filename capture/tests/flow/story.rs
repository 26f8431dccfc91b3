//! A small vocabulary: who sends what to whom, and what records come of it.

use std::net::IpAddr;

use wiretag_capture::decode::{Decoded, Tcp, Transport};
use wiretag_capture::flow::{Engine, FlowConfig};
use wiretag_capture::{Direction, EndReason, FlowRecord, LinkType, Packet, Protocol, Source};

pub(crate) use wiretag_capture::decode::flags::{ACK, FIN, RST, SYN};

pub(crate) const MS: i64 = 1_000_000;
pub(crate) const SECOND: i64 = 1000 * MS;
/// Stories begin at some moment in 2026.
pub(crate) const BEGIN: i64 = 1_780_000_000 * SECOND;

/// The two hosts of most stories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Host {
    Client,
    Server,
}
pub(crate) use Host::{Client, Server};

impl Host {
    pub(crate) fn other(self) -> Self {
        if self == Client { Server } else { Client }
    }
}

/// A segment in the making.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) from: Host,
    pub(crate) flags: u8,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) length: u32,
    pub(crate) window: u16,
    pub(crate) options: Vec<u8>,
    /// Bytes of options that the snap length cut.
    pub(crate) cut: usize,
    pub(crate) ports: (u16, u16),
    pub(crate) payload: Vec<u8>,
    /// Identification of the IPv4 header.
    pub(crate) ip_id: Option<u16>,
}

pub(crate) fn segment(from: Host, flags: u8, seq: u32, ack: u32) -> Segment {
    let (window, ports) = (1000, (40000, 443));
    Segment {
        from,
        flags,
        seq,
        ack,
        length: 0,
        window,
        options: Vec::new(),
        cut: 0,
        ports,
        payload: Vec::new(),
        ip_id: None,
    }
}

impl Segment {
    pub(crate) fn data(self, length: u32) -> Self {
        Self { length, ..self }
    }

    pub(crate) fn window(self, window: u16) -> Self {
        Self { window, ..self }
    }

    pub(crate) fn ports(self, client: u16, server: u16) -> Self {
        Self { ports: (client, server), ..self }
    }

    pub(crate) fn payload(self, payload: &[u8]) -> Self {
        Self { length: payload.len() as u32, payload: payload.to_vec(), ..self }
    }

    pub(crate) fn timestamps(mut self, value: u32, echo: u32) -> Self {
        self.options.extend([1, 1, 8, 10]);
        self.options.extend(value.to_be_bytes());
        self.options.extend(echo.to_be_bytes());
        self
    }

    pub(crate) fn mss(mut self, mss: u16) -> Self {
        self.options.extend([2, 4]);
        self.options.extend(mss.to_be_bytes());
        self
    }

    pub(crate) fn scale(mut self, shift: u8) -> Self {
        self.options.extend([1, 3, 3, shift]);
        self
    }

    pub(crate) fn sack(mut self, blocks: &[(u32, u32)]) -> Self {
        self.options.extend([1, 1, 5, 2 + 8 * blocks.len() as u8]);
        for (from, to) in blocks {
            self.options.extend(from.to_be_bytes());
            self.options.extend(to.to_be_bytes());
        }
        self
    }

    pub(crate) fn ip_id(self, id: u16) -> Self {
        Self { ip_id: Some(id), ..self }
    }
}

fn ends(from: Host) -> (IpAddr, IpAddr) {
    // The client has the higher address, so that canonical order is not the order of roles.
    let (client, server) = ([10, 0, 0, 2].into(), [10, 0, 0, 1].into());
    if from == Client { (client, server) } else { (server, client) }
}

pub(crate) fn decoded(
    from: Host,
    ports: Option<(u16, u16)>,
    protocol: Protocol,
    transport: Transport<'_>,
) -> Decoded<'_> {
    let (src, dst) = ends(from);
    let (src_port, dst_port) = match (ports, from) {
        (None, _) => (None, None),
        (Some((client, server)), Client) => (Some(client), Some(server)),
        (Some((client, server)), Server) => (Some(server), Some(client)),
    };
    let macs = if from == Client { (2, 1) } else { (1, 2) };
    Decoded {
        src_port,
        dst_port,
        src_mac: Some([macs.0; 6]),
        dst_mac: Some([macs.1; 6]),
        dscp: if from == Client { 46 } else { 0 },
        ip_bytes: 100,
        ..Decoded::new(src, dst, protocol, transport)
    }
}

/// An engine and what came out of it.
pub(crate) struct Story {
    pub(crate) engine: Engine,
    pub(crate) records: Vec<FlowRecord>,
}

pub(crate) fn config() -> FlowConfig {
    FlowConfig::new("node", Source::File)
}

impl Story {
    pub(crate) fn new() -> Self {
        Self::with(config())
    }

    pub(crate) fn with(config: FlowConfig) -> Self {
        let mut engine = Engine::new(config);
        engine.name_interface(7, "veth7");
        Self { engine, records: Vec::new() }
    }

    /// A decoded packet `at` nanoseconds into the story.
    pub(crate) fn packet(&mut self, at: i64, decoded: &Decoded<'_>, from: Host) -> u64 {
        let direction = if from == Client { Direction::Ingress } else { Direction::Egress };
        let packet = Packet {
            time: BEGIN + at,
            data: &[],
            wire_len: 114,
            link_type: LinkType::ETHERNET,
            interface: 7,
            direction: Some(direction),
            vlan: None,
        };
        self.engine.track(decoded, &packet, &mut self.records).unwrap()
    }

    pub(crate) fn tcp(&mut self, at: i64, segment: &Segment) -> u64 {
        let tcp = Tcp {
            seq: segment.seq,
            ack: segment.ack,
            flags: segment.flags,
            window: segment.window,
            options: &segment.options,
            options_len: (segment.options.len() + segment.cut) as u8,
            payload: &segment.payload,
            payload_len: segment.length,
        };
        let mut decoded = decoded(segment.from, Some(segment.ports), Protocol::TCP, Transport::Tcp(tcp));
        decoded.ip_bytes = 40 + segment.length;
        decoded.ip_id = segment.ip_id;
        self.packet(at, &decoded, segment.from)
    }

    pub(crate) fn udp(&mut self, at: i64, from: Host, ports: (u16, u16), payload: &[u8]) -> u64 {
        let payload_len = payload.len() as u32;
        let decoded = decoded(from, Some(ports), Protocol::UDP, Transport::Udp { payload, payload_len });
        self.packet(at, &decoded, from)
    }

    /// Client's SYN at `at` with number 100, SYN-ACK with 500 after 10 ms, ACK after 13 ms.
    pub(crate) fn handshake(&mut self, at: i64) {
        self.tcp(at, &segment(Client, SYN, 100, 0).mss(1460));
        self.tcp(at + 10 * MS, &segment(Server, SYN | ACK, 500, 101).mss(1400));
        self.tcp(at + 13 * MS, &segment(Client, ACK, 101, 501));
    }

    /// The same from another port of the client's.
    pub(crate) fn handshake_on(&mut self, at: i64, port: u16) {
        self.tcp(at, &segment(Client, SYN, 100, 0).ports(port, 443));
        self.tcp(at, &segment(Server, SYN | ACK, 500, 101).ports(port, 443));
        self.tcp(at, &segment(Client, ACK, 101, 501).ports(port, 443));
    }

    pub(crate) fn advance(&mut self, at: i64) {
        self.engine.advance(BEGIN + at, &mut self.records);
    }

    /// The end of the file.
    pub(crate) fn end(mut self) -> Vec<FlowRecord> {
        self.engine.finish(EndReason::EndOfInput, &mut self.records);
        let counters = self.engine.counters();
        assert_eq!(counters.unaccounted(), 0);
        assert_eq!(counters.flows_active, 0);
        assert_eq!(counters.slices, self.records.len() as u64);
        let packets: u64 = self.records.iter().map(|r| r.client.packets + r.server.packets).sum();
        assert_eq!(packets, counters.decoded);
        self.records
    }

    /// The only record of the story.
    pub(crate) fn only(self) -> FlowRecord {
        let mut records = self.end();
        assert_eq!(records.len(), 1, "{records:#?}");
        records.remove(0)
    }
}

/// The record of these segments, a millisecond apart.
pub(crate) fn only(segments: &[Segment]) -> FlowRecord {
    let mut story = Story::new();
    for (segment, at) in segments.iter().zip(0..) {
        story.tcp(at * MS, segment);
    }
    story.only()
}
