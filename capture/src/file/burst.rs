//! Several packets at once, borrowed from the file's bytes.

use std::ops::Deref;

use super::sys;
use crate::packet::{LinkType, Packet};

/// Most packets of a burst.
pub(super) const MOST: usize = 64;

const NONE: Packet<'static> =
    Packet { time: 0, data: &[], wire_len: 0, link_type: LinkType(0), interface: 0, direction: None, vlan: None };

/// Packets in the order of the file; empty at its end.
pub struct Burst<'a> {
    packets: [Packet<'a>; MOST],
    len: usize,
    ahead: Ahead<'a>,
}

/// Asks for the packets of the next burst while those of this one are looked at.
///
/// Where a packet begins is known only when the head of the record before it is there, so going from one to the next waits
/// for memory each time. This goes the same way, one record at a time, and only asks for what it will look at next.
#[derive(Clone, Copy)]
pub struct Ahead<'a> {
    bytes: &'a [u8],
    /// Where the record that was asked for begins.
    at: usize,
    lengths: Lengths,
}

/// Where a record has its length.
#[derive(Clone, Copy)]
pub(super) struct Lengths {
    /// Offset of a number of four bytes.
    pub(super) at: usize,
    pub(super) big_endian: bool,
    /// Bytes of the record that it does not count.
    pub(super) more: usize,
}

/// Bytes that the processor fetches at once.
const LINE: usize = 64;

impl Ahead<'_> {
    /// Goes on by one record.
    #[inline]
    pub fn step(&mut self) {
        let length = self.bytes.get(self.at.saturating_add(self.lengths.at)..).and_then(|rest| rest.first_chunk::<4>());
        let Some(&length) = length else { return };
        let length = if self.lengths.big_endian { u32::from_be_bytes(length) } else { u32::from_le_bytes(length) };
        self.at = self.at.saturating_add(length as usize + self.lengths.more);
        // Record, Ethernet, IP and TCP with timestamps.
        sys::prefetch(self.bytes, self.at);
        sys::prefetch(self.bytes, self.at.saturating_add(LINE));
    }
}

impl<'a> Burst<'a> {
    pub(super) const fn new(lengths: Lengths) -> Self {
        Self { packets: [NONE; MOST], len: 0, ahead: Ahead { bytes: &[], at: 0, lengths } }
    }

    /// To be stepped as the packets are looked at.
    pub fn ahead(&self) -> Ahead<'a> {
        self.ahead
    }

    /// These bytes follow.
    pub(super) fn end(&mut self, following: &'a [u8]) {
        self.ahead.bytes = following;
    }

    pub(super) const fn is_full(&self) -> bool {
        self.len == MOST
    }

    #[inline]
    pub(super) fn push(&mut self, packet: Packet<'a>) {
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
