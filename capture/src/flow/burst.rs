//! Several packets at once: the flow of each is asked for while the packets before it are counted.
//!
//! A packet's flow is rarely in the cache when there are many flows, and waiting for memory takes as long as everything
//! else. So a few packets are decoded first, and their places in the table asked for; then their flows; then they are
//! tracked, in order, as [`Engine::packet`] does. What they do to each other (a flow ends, a table grows) makes the hints
//! useless at worst.

use super::Engine;
use super::key::{End, Key};
use super::table::Table;
use crate::decode::{Decoded, Take};
use crate::packet::Packet;
use crate::record::FlowRecord;

/// Packets that are prepared together.
const TOGETHER: usize = 16;

/// A packet that is decoded, if it is a plain one.
struct Prepared<'a> {
    decoded: Option<Decoded<'a>>,
    key: Key,
    end: End,
    hash: u32,
    /// Where its flow was when it was asked for.
    slot: Option<u32>,
}

impl Prepared<'_> {
    const NONE: Self = Self { decoded: None, key: Key::NONE, end: End::Low, hash: 0, slot: None };
}

/// Puts a packet in its place, and asks for its entry in the table.
struct Keeper<'p, 'a> {
    table: &'p Table,
    interface: u32,
    place: &'p mut Prepared<'a>,
}

impl<'a> Take<'a> for Keeper<'_, 'a> {
    type Taken = ();

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "measured: what is decoded is written once, to its place")]
    fn take(self, decoded: Decoded<'a>) {
        let Self { table, interface, place } = self;
        let decoded = place.decoded.insert(decoded);
        (place.key, place.end) = Key::new(decoded, interface);
        place.hash = table.hash(&place.key);
        table.expect(place.hash);
    }
}

impl Engine {
    /// Decodes and tracks packets in order, with the same result as [`Self::packet`] for each; `counted` is told of each
    /// and its flow's id.
    pub fn burst<'a>(
        &mut self,
        packets: &[Packet<'a>],
        out: &mut Vec<FlowRecord>,
        mut counted: impl FnMut(&Packet<'a>, Option<u64>),
    ) {
        let mut prepared = [const { Prepared::NONE }; TOGETHER];
        for packets in packets.chunks(TOGETHER) {
            for (packet, place) in packets.iter().zip(&mut prepared) {
                self.prepare(packet, place);
            }
            for (_, place) in packets.iter().zip(&mut prepared) {
                place.slot = place.decoded.as_ref().and_then(|_| self.table.expect_flow(place.hash));
            }
            for (packet, place) in packets.iter().zip(&prepared) {
                let flow_id = match &place.decoded {
                    Some(decoded) => self.track_prepared(place, decoded, packet, out),
                    None => self.unusual_packet(packet, out),
                };
                counted(packet, flow_id);
            }
        }
    }

    /// Leaves nothing in the place for what needs a closer look.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "measured: what is decoded is written once, to its place")]
    fn prepare<'a>(&self, packet: &Packet<'a>, place: &mut Prepared<'a>) {
        let table = &self.table;
        let keeper = Keeper { table, interface: packet.interface, place: &mut *place };
        if self.decoder.decode_plain(packet, keeper).is_none() {
            place.decoded = None;
        }
    }

    #[inline]
    fn track_prepared(
        &mut self,
        place: &Prepared<'_>,
        decoded: &Decoded<'_>,
        packet: &Packet<'_>,
        out: &mut Vec<FlowRecord>,
    ) -> Option<u64> {
        if !self.share.has(decoded) {
            self.advance(packet.time, out);
            return None;
        }
        self.arrived(packet, out);
        let Prepared { key, end, hash, slot, .. } = place;
        // A slot with this key is the one: no two flows have the same.
        let found = slot.filter(|slot| self.table.is(*slot, key)).or_else(|| self.table.find(*hash, key));
        self.count_keyed((key, *end, *hash), found, (decoded, packet), out)
    }
}
