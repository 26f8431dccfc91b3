//! What is counted of one end of a flow.

use crate::packet::Direction;

/// Figures of one end in the slice, and what its first packet told. Packed: 28 bytes instead of 32, a million flows
/// count.
#[derive(Debug, Default, Clone, Copy)]
#[repr(Rust, packed(4))]
pub(super) struct Tally {
    pub(super) bytes: u64,
    pub(super) payload_bytes: u64,
    pub(super) packets: u32,
    /// Source address of this end's own packets, else destination of the other's.
    pub(super) mac: [u8; 6],
    pub(super) dscp: u8,
    pub(super) marks: u8,
}

/// The end sent a packet: `dscp` holds.
pub(super) const SENT: u8 = 1;
/// `mac` is from this end's own packets.
pub(super) const OWN_MAC: u8 = 2;
/// `mac` is from the other end's.
pub(super) const HEARD_MAC: u8 = 4;
/// Direction of its packets.
pub(super) const INGRESS: u8 = 8;
pub(super) const EGRESS: u8 = 16;
/// All its packets had another tunnel's id than the flow: see [`super::pairs`].
pub(super) const JOINED: u8 = 32;

impl Tally {
    /// Whether a packet may tell more than its length.
    #[inline]
    pub(super) const fn learns(&self) -> bool {
        self.marks & (SENT | OWN_MAC | JOINED) != SENT | OWN_MAC
    }

    pub(super) fn direction(&self) -> Option<Direction> {
        match self.marks & (INGRESS | EGRESS) {
            INGRESS => Some(Direction::Ingress),
            EGRESS => Some(Direction::Egress),
            _ => None,
        }
    }

    pub(super) fn mac(&self) -> Option<[u8; 6]> {
        (self.marks & (OWN_MAC | HEARD_MAC) != 0).then_some(self.mac)
    }

    pub(super) fn learn_mac(&mut self, mac: Option<[u8; 6]>, mark: u8) {
        if let Some(mac) = mac.filter(|_| self.marks & OWN_MAC == 0 && self.marks & mark == 0) {
            self.mac = mac;
            self.marks |= mark;
        }
    }
}
