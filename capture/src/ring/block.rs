//! Packets of a TPACKET_V3 block, read from plain bytes: every offset is checked, and a block that contradicts itself
//! ends early.
//!
//! Layout (`linux/if_packet.h`): the block header holds the number of packets at 12 and the offset of the first at 16; each
//! packet begins with `tpacket3_hdr` (next offset 0, seconds 4, nanoseconds 8, captured 12, wire 16, status 20, offset of the
//! link layer 24 (u16), VLAN TCI 32, TPID 36 (u16)), followed at 48 by `sockaddr_ll` (index 4, hardware type 8 (u16), packet type 10).

use crate::burst::{Burst, Room};
use crate::packet::{Direction, LinkType, Packet};

const SOCKET_ADDRESS: usize = 48;
const STATUS_VLAN_VALID: u32 = 1 << 4;
const STATUS_VLAN_TPID_VALID: u32 = 1 << 6;
const PACKET_OUTGOING: u8 = 4;
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;
const ARPHRD_NONE: u16 = 0xfffe;
const ARPHRD_RAWIP: u16 = 519;

/// Calls `each` for the packets of `block` that are `wanted`, several at a time.
pub(super) fn packets<'a>(
    block: &'a [u8],
    room: &'a mut Room,
    wanted: impl Fn(&Packet<'a>) -> bool,
    each: &mut dyn FnMut(&[Packet<'a>]),
) {
    let (Some(count), Some(first)) = (u32_at(block, 12), u32_at(block, 16)) else { return };
    let mut at = first as usize;
    let mut burst = Burst::new(room);
    for _ in 0..count {
        let Some((packet, next)) = block.get(at..).and_then(packet) else { break };
        if wanted(&packet) {
            burst.push(packet);
        }
        if burst.is_full() {
            each(&burst);
            burst.clear();
        }
        if next == 0 {
            break;
        }
        at += next as usize;
    }
    if !burst.is_empty() {
        each(&burst);
    }
}

/// A packet at the beginning of `bytes`, and the distance to the next.
fn packet(bytes: &[u8]) -> Option<(Packet<'_>, u32)> {
    let next = u32_at(bytes, 0)?;
    let seconds = i64::from(u32_at(bytes, 4)?);
    let nanoseconds = i64::from(u32_at(bytes, 8)?);
    let captured = u32_at(bytes, 12)? as usize;
    let wire_len = u32_at(bytes, 16)?;
    let status = u32_at(bytes, 20)?;
    let link_layer = usize::from(u16_at(bytes, 24)?);
    let tpid = if status & STATUS_VLAN_TPID_VALID == 0 { 0x8100 } else { u16_at(bytes, 36)? };
    let vlan = (status & STATUS_VLAN_VALID != 0).then_some((tpid, u32_at(bytes, 32)? as u16));
    let address = bytes.get(SOCKET_ADDRESS..)?;
    let direction = if *address.get(10)? == PACKET_OUTGOING { Direction::Egress } else { Direction::Ingress };
    let packet = Packet {
        time: seconds * 1_000_000_000 + nanoseconds,
        data: bytes.get(link_layer..link_layer + captured)?,
        wire_len,
        link_type: link_type(u16_at(address, 8)?),
        interface: u32_at(address, 4)?,
        direction: Some(direction),
        vlan,
    };
    Some((packet, next))
}

/// Link type of a hardware type; others are handed on as a type that has no decoder, and so are counted.
const fn link_type(hardware: u16) -> LinkType {
    match hardware {
        ARPHRD_ETHER | ARPHRD_LOOPBACK => LinkType::ETHERNET,
        ARPHRD_NONE | ARPHRD_RAWIP => LinkType::RAW,
        _ => LinkType(u16::MAX),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk::<2>().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes))
}
