//! Several packets at once, borrowed from the bytes of a source.

use std::ops::Deref;

use crate::packet::{LinkType, Packet};

/// Most packets of a burst.
const MOST: usize = 64;

const NONE: Packet<'static> =
    Packet { time: 0, data: &[], wire_len: 0, link_type: LinkType(0), interface: 0, direction: None, vlan: None };

/// Packets in the order of the source; of a file, empty at its end.
pub struct Burst<'a> {
    packets: [Packet<'a>; MOST],
    len: usize,
}

impl<'a> Burst<'a> {
    pub(crate) const fn new() -> Self {
        Self { packets: [NONE; MOST], len: 0 }
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.len == MOST
    }

    #[inline]
    pub(crate) fn push(&mut self, packet: Packet<'a>) {
        if let Some(place) = self.packets.get_mut(self.len) {
            *place = packet;
            self.len += 1;
        }
    }
}

impl<'a> Deref for Burst<'a> {
    type Target = [Packet<'a>];

    fn deref(&self) -> &Self::Target {
        self.packets.get(..self.len).unwrap_or_default()
    }
}
