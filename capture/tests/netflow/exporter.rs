//! An exporter: makes messages by hand.

use std::net::SocketAddr;

use wiretag_capture::FlowRecord;
use wiretag_capture::netflow::{Collector, Exported, NetflowCounters};

pub(crate) const SECOND: i64 = 1_000_000_000;
/// When messages arrive, and are exported.
pub(crate) const NOW: i64 = 1_795_896_525 * SECOND;
/// Milliseconds that the exporter is up.
pub(crate) const UPTIME: u32 = 100_000;

/// One field of a template, with enterprise number.
pub(crate) type Field = (u16, u16, Option<u32>);

/// Both addresses, ports, protocol, flags, bytes, packets, first and last: of one direction.
pub(crate) const PLAIN: &[Field] = &[
    (8, 4, None),
    (12, 4, None),
    (7, 2, None),
    (11, 2, None),
    (4, 1, None),
    (6, 1, None),
    (1, 4, None),
    (2, 4, None),
    (22, 4, None),
    (21, 4, None),
];

/// A record of [`PLAIN`]; times in milliseconds before the export.
pub(crate) struct Plain {
    pub(crate) from: (u8, u16),
    pub(crate) to: (u8, u16),
    pub(crate) flags: u8,
    pub(crate) bytes: u32,
    pub(crate) packets: u32,
    pub(crate) times: (u32, u32),
}

/// A connection's first direction: one packet a hundred bytes, for a second until two seconds ago.
pub(crate) const THERE: Plain =
    Plain { from: (1, 40_000), to: (2, 443), flags: 0x1b, bytes: 1_000, packets: 10, times: (3_000, 2_000) };
/// Its answer.
pub(crate) const BACK: Plain =
    Plain { from: (2, 443), to: (1, 40_000), flags: 0x1b, bytes: 9_000, packets: 9, times: (2_990, 1_990) };

impl Plain {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![10, 0, 0, self.from.0, 10, 0, 0, self.to.0];
        bytes.extend(self.from.1.to_be_bytes());
        bytes.extend(self.to.1.to_be_bytes());
        bytes.extend([6, self.flags]);
        bytes.extend(self.bytes.to_be_bytes());
        bytes.extend(self.packets.to_be_bytes());
        bytes.extend((UPTIME - self.times.0).to_be_bytes());
        bytes.extend((UPTIME - self.times.1).to_be_bytes());
        bytes
    }
}

/// A set, padded to four bytes.
pub(crate) fn set(id: u16, contents: &[u8]) -> Vec<u8> {
    let mut set = id.to_be_bytes().to_vec();
    let padded = contents.len().next_multiple_of(4);
    set.extend((padded as u16 + 4).to_be_bytes());
    set.extend(contents);
    set.resize(padded + 4, 0);
    set
}

fn fields(fields: &[Field]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (id, length, enterprise) in fields {
        let flag = if enterprise.is_some() { 0x8000 } else { 0 };
        bytes.extend((id | flag).to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.extend(enterprise.iter().flat_map(|number| number.to_be_bytes()));
    }
    bytes
}

/// A template for flows: the contents of a set.
pub(crate) fn template(id: u16, of: &[Field]) -> Vec<u8> {
    [&id.to_be_bytes()[..], &(of.len() as u16).to_be_bytes(), &fields(of)].concat()
}

/// A template for options of IPFIX, of which so many fields are the scope.
pub(crate) fn options(id: u16, scopes: u16, of: &[Field]) -> Vec<u8> {
    [&id.to_be_bytes()[..], &(of.len() as u16).to_be_bytes(), &scopes.to_be_bytes(), &fields(of)].concat()
}

/// A message of NetFlow v9.
pub(crate) fn v9(number: u32, sets: &[Vec<u8>]) -> Vec<u8> {
    let mut message = vec![0, 9, 0, sets.len() as u8];
    message.extend(UPTIME.to_be_bytes());
    message.extend(((NOW / SECOND) as u32).to_be_bytes());
    message.extend(number.to_be_bytes());
    message.extend(7_u32.to_be_bytes());
    message.extend(sets.concat());
    message
}

/// A message of IPFIX of domain 7.
pub(crate) fn ipfix(number: u32, sets: &[Vec<u8>]) -> Vec<u8> {
    let sets = sets.concat();
    let mut message = vec![0, 10];
    message.extend((sets.len() as u16 + 16).to_be_bytes());
    message.extend(((NOW / SECOND) as u32).to_be_bytes());
    message.extend(number.to_be_bytes());
    message.extend(7_u32.to_be_bytes());
    message.extend(sets);
    message
}

/// A message of NetFlow v5.
pub(crate) fn v5(number: u32, sampling: u16, records: &[&Plain]) -> Vec<u8> {
    let mut message = vec![0, 5];
    message.extend((records.len() as u16).to_be_bytes());
    message.extend(UPTIME.to_be_bytes());
    message.extend(((NOW / SECOND) as u32).to_be_bytes());
    message.extend([0; 4]);
    message.extend(number.to_be_bytes());
    message.extend([0, 0]);
    message.extend(sampling.to_be_bytes());
    for own in records {
        message.extend([10, 0, 0, own.from.0, 10, 0, 0, own.to.0, 0, 0, 0, 0, 0, 3, 0, 4]);
        message.extend(own.packets.to_be_bytes());
        message.extend(own.bytes.to_be_bytes());
        message.extend((UPTIME - own.times.0).to_be_bytes());
        message.extend((UPTIME - own.times.1).to_be_bytes());
        message.extend(own.from.1.to_be_bytes());
        message.extend(own.to.1.to_be_bytes());
        message.extend([0, own.flags, 6, 0xb8]);
        message.extend([0; 8]);
    }
    message
}

/// A collector, and what it gave.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) collector: Collector,
    rows: Vec<Exported>,
}

impl Heard {
    /// Takes a message of the exporter 192.0.2.1.
    pub(crate) fn hear(&mut self, message: &[u8]) -> &mut Self {
        self.hear_of(([192, 0, 2, 1], 2_055).into(), message)
    }

    pub(crate) fn hear_of(&mut self, exporter: SocketAddr, message: &[u8]) -> &mut Self {
        self.collector.datagram(exporter, message, NOW);
        self
    }

    /// All rows.
    pub(crate) fn rows(&mut self) -> Vec<FlowRecord> {
        self.collector.flush(&mut self.rows);
        std::mem::take(&mut self.rows).into_iter().map(|row| row.record).collect()
    }

    pub(crate) fn counters(&self) -> NetflowCounters {
        self.collector.counters()
    }
}
