//! VXLAN (RFC 7348) on UDP ports 4789 (IANA) and 8472 (Linux' default).

use super::{Decoded, Transport, u32_at};

const HEADER: usize = 8;
const VALID_VNI: u8 = 0x08;

/// The Ethernet frame inside, and its VNI.
pub(super) fn inner_frame<'a>(outer: &Decoded<'a>) -> Option<(&'a [u8], u32)> {
    let Transport::Udp { payload, .. } = outer.transport else { return None };
    if !matches!(outer.dst_port, Some(4789 | 8472)) || payload.first()? & VALID_VNI == 0 {
        return None;
    }
    Some((payload.get(HEADER..)?, u32_at(payload, 4)? >> 8))
}

/// Wire length of the frame inside.
pub(super) fn inner_len(outer: &Decoded<'_>) -> u32 {
    match outer.transport {
        Transport::Udp { payload_len, .. } => payload_len.saturating_sub(HEADER as u32),
        Transport::Tcp(_) | Transport::Icmp { .. } | Transport::Other { .. } => 0,
    }
}
