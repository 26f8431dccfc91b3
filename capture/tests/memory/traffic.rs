//! Connections from many clients to one server, as frames.

use etherparse::PacketBuilder;
use wiretag_capture::flow::Engine;
use wiretag_capture::{FlowRecord, LinkType, Packet};

/// A microsecond.
const STEP: i64 = 1000;

/// An engine and the time.
pub(crate) struct Traffic {
    pub(crate) engine: Engine,
    pub(crate) records: Vec<FlowRecord>,
    now: i64,
    frame: Vec<u8>,
}

impl Traffic {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine, records: Vec::new(), now: 1_780_000_000_000_000_000, frame: Vec::new() }
    }

    fn deliver(&mut self) {
        self.now += STEP;
        let packet = Packet {
            time: self.now,
            data: &self.frame,
            wire_len: self.frame.len() as u32,
            link_type: LinkType::ETHERNET,
            interface: 1,
            direction: None,
            vlan: None,
        };
        self.engine.packet(&packet, &mut self.records);
    }

    /// A segment of a client, or of the server to it.
    pub(crate) fn tcp(&mut self, client: u32, up: bool, (seq, ack): (u32, Option<u32>), syn: bool, payload: &[u8]) {
        let (client, server) = ((0x0a01_0000 + client).to_be_bytes(), [10, 0, 0, 1]);
        let (src, dst, ports) = if up { (client, server, (40_000, 443)) } else { (server, client, (443, 40_000)) };
        let mut builder = PacketBuilder::ethernet2([2; 6], [3; 6]).ipv4(src, dst, 64).tcp(ports.0, ports.1, seq, 1000);
        if syn {
            builder = builder.syn();
        }
        if let Some(ack) = ack {
            builder = builder.ack(ack);
        }
        self.frame.clear();
        builder.write(&mut self.frame, payload).unwrap();
        self.deliver();
    }

    /// Opens a connection; both ends go on with number 1.
    pub(crate) fn open(&mut self, client: u32) {
        self.tcp(client, true, (0, None), true, b"");
        self.tcp(client, false, (0, Some(1)), true, b"");
        self.tcp(client, true, (1, Some(1)), false, b"");
    }

    /// Eight bytes of a datagram at a multiple of eight; more follow.
    pub(crate) fn fragment(&mut self, client: u32, at: u16) {
        let builder = PacketBuilder::ethernet2([2; 6], [3; 6]);
        let builder = builder.ipv4((0x0a01_0000 + client).to_be_bytes(), [10, 0, 0, 1], 64).udp(40_000, 9);
        self.frame.clear();
        builder.write(&mut self.frame, b"").unwrap();
        self.frame[20..22].copy_from_slice(&(0x2000 | at).to_be_bytes());
        self.deliver();
    }

    /// A datagram to the server's port.
    pub(crate) fn udp(&mut self, client: u32, port: u16, payload: &[u8]) {
        let builder = PacketBuilder::ethernet2([2; 6], [3; 6]);
        let builder = builder.ipv4((0x0a01_0000 + client).to_be_bytes(), [10, 0, 0, 1], 64).udp(40_000, port);
        self.frame.clear();
        builder.write(&mut self.frame, payload).unwrap();
        self.deliver();
    }
}

/// The beginning of a long ClientHello.
pub(crate) fn part_of_a_hello() -> Vec<u8> {
    let mut part = vec![0x16, 3, 1, 0x10, 0, 1, 0, 0x0f, 0xf0, 3, 3];
    part.resize(1400, 7);
    part
}

/// A query for a long name that nobody answers.
pub(crate) fn query(id: u16) -> Vec<u8> {
    let mut query = vec![(id >> 8) as u8, id as u8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in 0..3 {
        query.push(60);
        query.extend([b'a' + label + (id % 20) as u8; 60]);
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

/// A request of HTTP/2 with fields that the table keeps.
pub(crate) fn preface_and_request(stream: u32) -> Vec<u8> {
    let mut bytes =
        if stream == 1 { b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec() } else { Vec::new() };
    let mut block = vec![0x82, 0x86];
    for name in [4, 1] {
        let value = format!("/{stream:04}{}", "x".repeat(95));
        block.extend([0x40 | name, value.len() as u8]);
        block.extend(value.as_bytes());
    }
    bytes.extend(&(block.len() as u32).to_be_bytes()[1..]);
    bytes.extend([1, 4]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(block);
    bytes
}
