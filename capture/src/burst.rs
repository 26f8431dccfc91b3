//! Several packets at once, borrowed from the bytes of a source.

use std::ops::Deref;

use crate::packet::Packet;

/// Most packets of a burst.
const MOST: usize = 256;

/// Packets in the order of the source; of a file, empty at its end.
pub struct Burst<'a> {
    /// On the heap: an array would be filled and moved about as a whole.
    packets: Vec<Packet<'a>>,
    room: &'a mut Room,
}

/// What the bursts of a source are made in, one after the other: of so much room, each would disorder the allocator's
/// lists of small pieces.
#[derive(Default)]
pub(crate) struct Room(Vec<Packet<'static>>);

impl<'a> Burst<'a> {
    pub(crate) fn new(room: &'a mut Room) -> Self {
        let mut packets: Vec<Packet<'a>> = std::mem::take(&mut room.0);
        packets.reserve(MOST);
        Self { packets, room }
    }

    #[inline]
    pub(crate) const fn is_full(&self) -> bool {
        self.packets.len() >= MOST
    }

    #[inline]
    pub(crate) fn push(&mut self, packet: Packet<'a>) {
        self.packets.push(packet);
    }

    /// Makes room for others.
    pub(crate) fn clear(&mut self) {
        self.packets.clear();
    }
}

impl Drop for Burst<'_> {
    fn drop(&mut self) {
        self.packets.clear();
        // Of an empty vector another one is made in the same place.
        self.room.0 = std::mem::take(&mut self.packets).into_iter().map_while(|_| None).collect();
    }
}

impl<'a> Deref for Burst<'a> {
    type Target = [Packet<'a>];

    fn deref(&self) -> &Self::Target {
        &self.packets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_burst_is_made_in_the_same_place() {
        let mut room = Room::default();
        let first = Burst::new(&mut room).packets.as_ptr().addr();
        assert_eq!(Burst::new(&mut room).packets.as_ptr().addr(), first);
    }
}
