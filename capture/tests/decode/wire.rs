//! A small vocabulary to make frames by hand, inside out, and to see what flows come of them.

use wiretag_capture::flow::{Engine, FlowConfig};
use wiretag_capture::{CaptureCounters, EndReason, FlowRecord, LinkType, Packet, Source};

pub(crate) const ALICE: [u8; 4] = [10, 0, 0, 1];
pub(crate) const BOB: [u8; 4] = [10, 0, 0, 2];
/// Ends of tunnels.
pub(crate) const LEFT: [u8; 4] = [192, 0, 2, 1];
pub(crate) const RIGHT: [u8; 4] = [192, 0, 2, 2];

pub(crate) fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

pub(crate) fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    joined(&[&[2; 6], &[3; 6], &kind.to_be_bytes(), payload])
}

pub(crate) fn tag(kind: u16, id: u16, payload: &[u8]) -> Vec<u8> {
    joined(&[&id.to_be_bytes(), &kind.to_be_bytes(), payload])
}

/// IPv4 with identification 7, and what the fragment field says.
pub(crate) fn part4(protocol: u8, (src, dst): ([u8; 4], [u8; 4]), place: u16, payload: &[u8]) -> Vec<u8> {
    let total = (20 + payload.len() as u16).to_be_bytes();
    let place = place.to_be_bytes();
    joined(&[&[0x45, 0], &total, &[0, 7], &place, &[64, protocol, 0, 0], &src, &dst, payload])
}

pub(crate) fn ipv4(protocol: u8, ends: ([u8; 4], [u8; 4]), payload: &[u8]) -> Vec<u8> {
    part4(protocol, ends, 0, payload)
}

/// The IPv6 address that ends like an IPv4 one.
pub(crate) fn v6(ip: [u8; 4]) -> [u8; 16] {
    let mut address = [0; 16];
    address[..4].copy_from_slice(&[0xfd, 0, 0, 1]);
    address[12..].copy_from_slice(&ip);
    address
}

pub(crate) fn ipv6(next: u8, (src, dst): ([u8; 4], [u8; 4]), payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u16).to_be_bytes();
    joined(&[&[0x60, 0, 0, 0], &len, &[next, 64], &v6(src), &v6(dst), payload])
}

/// IP in the version that is asked for.
pub(crate) fn ip(version: u8, protocol: u8, ends: ([u8; 4], [u8; 4]), payload: &[u8]) -> Vec<u8> {
    if version == 4 { ipv4(protocol, ends, payload) } else { ipv6(protocol, ends, payload) }
}

pub(crate) fn udp(src: u16, dst: u16, payload: &[u8]) -> Vec<u8> {
    let len = (8 + payload.len() as u16).to_be_bytes();
    joined(&[&src.to_be_bytes(), &dst.to_be_bytes(), &len, &[0xba, 0xd0], payload])
}

pub(crate) fn tcp(src: u16, dst: u16, seq: u32, payload: &[u8]) -> Vec<u8> {
    let numbers = joined(&[&seq.to_be_bytes(), &[0, 0, 0, 9]]);
    joined(&[&src.to_be_bytes(), &dst.to_be_bytes(), &numbers, &[0x50, 0x10, 0, 99, 0, 0, 0, 0], payload])
}

/// Alice's datagram to Bob's port 9, 10 bytes of payload: 38 bytes of IPv4.
pub(crate) fn hello() -> Vec<u8> {
    ipv4(17, (ALICE, BOB), &udp(40_000, 9, b"0123456789"))
}

/// Bob's answer.
pub(crate) fn reply() -> Vec<u8> {
    ipv4(17, (BOB, ALICE), &udp(9, 40_000, b"0123456789"))
}

pub(crate) fn frame(packet: &[u8]) -> Vec<u8> {
    let kind = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
    ethernet(kind, packet)
}

/// An engine, a clock that goes on by a millisecond with each frame, and what came out.
pub(crate) struct Wire {
    pub(crate) engine: Engine,
    pub(crate) now: i64,
    pub(crate) records: Vec<FlowRecord>,
}

pub(crate) fn config() -> FlowConfig {
    FlowConfig::new("node", Source::File)
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self::with(config())
    }

    pub(crate) fn with(config: FlowConfig) -> Self {
        Self { engine: Engine::new(config), now: 1_780_000_000_000_000_000, records: Vec::new() }
    }

    pub(crate) fn see(&mut self, link_type: LinkType, data: &[u8], wire_len: u32) -> Option<u64> {
        self.now += 1_000_000;
        let packet = Packet { time: self.now, data, wire_len, link_type, interface: 1, direction: None, vlan: None };
        self.engine.packet(&packet, &mut self.records)
    }

    pub(crate) fn frame(&mut self, data: &[u8]) -> Option<u64> {
        self.see(LinkType::ETHERNET, data, data.len() as u32)
    }

    pub(crate) fn frames(&mut self, frames: &[Vec<u8>]) {
        for data in frames {
            self.frame(data);
        }
    }

    /// Records that are primary, and those of tunnels; each packet counts once.
    pub(crate) fn end(mut self) -> (Vec<FlowRecord>, Vec<FlowRecord>, CaptureCounters) {
        self.engine.finish(EndReason::EndOfInput, &mut self.records);
        let counters = self.engine.counters().clone();
        assert_eq!(counters.unaccounted(), 0);
        let packets: u64 = self.records.iter().map(|r| r.client.packets + r.server.packets).sum();
        assert_eq!(packets, counters.decoded + counters.carriers);
        assert!(self.records.iter().all(|r| r.primary == (r.app != Some("tunnel"))));
        let (primary, carriers) = self.records.into_iter().partition(|record| record.primary);
        (primary, carriers, counters)
    }

    /// The only primary record.
    pub(crate) fn only(self) -> FlowRecord {
        let (mut records, _, counters) = self.end();
        assert_eq!(records.len(), 1, "{records:#?} {counters:?}");
        records.remove(0)
    }
}

/// The record of one frame.
pub(crate) fn only(link_type: LinkType, data: &[u8]) -> FlowRecord {
    let mut wire = Wire::new();
    wire.see(link_type, data, data.len() as u32);
    wire.only()
}

/// Why a frame is refused.
pub(crate) fn refused(link_type: LinkType, data: &[u8]) -> &'static str {
    let mut wire = Wire::new();
    assert_eq!(wire.see(link_type, data, data.len() as u32), None);
    let (_, _, counters) = wire.end();
    counters.refused.keys().next().copied().unwrap()
}

/// Asserts that this is [`hello`], and nothing of the link layer counted.
pub(crate) fn is_hello(record: &FlowRecord) {
    assert_eq!((record.client.ip, record.client.port), (ALICE.into(), Some(40_000)));
    assert_eq!((record.server.ip, record.server.port), (BOB.into(), Some(9)));
    assert_eq!((record.client.packets, record.client.bytes, record.client.payload_bytes), (1, 38, 10));
}
