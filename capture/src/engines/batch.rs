//! Packets on their way to an engine, with their bytes in one buffer.

use crate::packet::{Direction, LinkType, Packet};

/// Packets of a batch.
const PACKETS: usize = 1024;
/// Bytes of a batch after which it is full.
const BYTES: usize = 256 << 10;

/// A packet without its bytes.
#[derive(Debug)]
struct Place {
    time: i64,
    wire_len: u32,
    len: u32,
    interface: u32,
    link_type: LinkType,
    vlan: Option<(u16, u16)>,
    direction: Option<Direction>,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    places: Vec<Place>,
    /// Packets before which the engine is to be told a time later than theirs, by number.
    late: Vec<(usize, i64)>,
    /// Interfaces that are new.
    pub(super) names: Vec<(u32, Box<str>)>,
    /// The time at the end of the input; there are no more batches.
    pub(super) clock: Option<i64>,
}

impl Batch {
    /// Adds a packet; `clock` is the greatest time so far.
    #[inline]
    pub(super) fn push(&mut self, packet: &Packet<'_>, clock: i64) {
        if clock > packet.time {
            self.late.push((self.places.len(), clock));
        }
        self.bytes.extend_from_slice(packet.data);
        self.places.push(Place {
            time: packet.time,
            wire_len: packet.wire_len,
            len: packet.data.len() as u32,
            interface: packet.interface,
            link_type: packet.link_type,
            vlan: packet.vlan,
            direction: packet.direction,
        });
    }

    pub(super) fn is_full(&self) -> bool {
        self.places.len() >= PACKETS || self.bytes.len() >= BYTES
    }

    /// Hands on the packets in runs, each with the time to tell before it, if that is not its first packet's.
    pub(super) fn each_run(&self, mut run: impl FnMut(Option<i64>, &[Packet<'_>])) {
        let packets = self.packets();
        let (mut from, mut before) = (0, None);
        for (number, clock) in self.late.iter().copied() {
            run(before, packets.get(from..number).unwrap_or_default());
            (from, before) = (number, Some(clock));
        }
        run(before, packets.get(from..).unwrap_or_default());
    }

    fn packets(&self) -> Vec<Packet<'_>> {
        let mut rest = self.bytes.as_slice();
        let packet = |place: &Place| {
            let (data, after) = rest.split_at_checked(place.len as usize).unwrap_or((rest, &[]));
            rest = after;
            Packet {
                time: place.time,
                data,
                wire_len: place.wire_len,
                link_type: place.link_type,
                interface: place.interface,
                direction: place.direction,
                vlan: place.vlan,
            }
        };
        self.places.iter().map(packet).collect()
    }

    /// Makes room for other packets.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.places.clear();
        self.late.clear();
        self.names.clear();
    }
}
