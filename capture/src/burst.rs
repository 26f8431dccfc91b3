//! Several packets at once, borrowed from the bytes of a source.

use std::ops::Deref;

use crate::packet::Packet;

/// Most packets of a burst.
const MOST: usize = 256;

/// Packets in the order of the source; of a file, empty at its end.
pub struct Burst<'a> {
    /// On the heap: an array would be filled and moved about as a whole.
    packets: Vec<Packet<'a>>,
}

impl<'a> Burst<'a> {
    pub(crate) fn new() -> Self {
        Self { packets: Vec::with_capacity(MOST) }
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

impl<'a> Deref for Burst<'a> {
    type Target = [Packet<'a>];

    fn deref(&self) -> &Self::Target {
        &self.packets
    }
}
