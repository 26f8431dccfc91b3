//! Packets of a TPACKET_V3 block, read from plain bytes: every offset is checked, and a block that contradicts itself
//! ends early.
//!
//! Layout (`linux/if_packet.h`): the block header holds its status at 8, the number of packets at 12, the offset of the first at 16, when the block
//! was opened at 32 (seconds, nanoseconds) and the time of its last packet at 40; each
//! packet begins with `tpacket3_hdr` (next offset 0, seconds 4, nanoseconds 8, captured 12, wire 16, status 20, offset of the
//! link layer 24 (u16), VLAN TCI 32, TPID 36 (u16)), followed at 48 by `sockaddr_ll` (index 4, hardware type 8 (u16), packet type 10).
//!
//! The kernel delivers each packet of a loopback interface twice, as sent and as received; only the second is handed on.

use std::time::Duration;

use crate::burst::{Burst, Room};
use crate::packet::{Direction, LinkType, Packet};

const SOCKET_ADDRESS: usize = 48;
/// The block was handed over for its age.
const STATUS_BLOCK_TIMEOUT: u32 = 1 << 5;
const STATUS_VLAN_VALID: u32 = 1 << 4;
const STATUS_VLAN_TPID_VALID: u32 = 1 << 6;
const PACKET_OUTGOING: u8 = 4;
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;
const ARPHRD_NONE: u16 = 0xfffe;
const ARPHRD_RAWIP: u16 = 519;
const ARPHRD_TUNNEL: u16 = 768;
const ARPHRD_TUNNEL6: u16 = 769;
const ARPHRD_SIT: u16 = 776;
const ARPHRD_IPGRE: u16 = 778;
const ARPHRD_IP6GRE: u16 = 823;

/// Calls `each` for the packets of `block`, several at a time.
pub(super) fn packets<'a>(block: &'a [u8], room: &'a mut Room, each: &mut dyn FnMut(&[Packet<'a>])) {
    let (Some(count), Some(first)) = (u32_at(block, 12), u32_at(block, 16)) else { return };
    let mut at = first as usize;
    let mut burst = Burst::new(room);
    for _ in 0..count {
        let Some((packet, next)) = block.get(at..).and_then(packet) else { break };
        if let Some(packet) = packet {
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

/// How long it took to fill the block, if it is full.
pub(super) fn time_to_fill(block: &[u8]) -> Option<Duration> {
    let time = |at: usize| Some(Duration::new(u32_at(block, at)?.into(), u32_at(block, at + 4)?.min(999_999_999)));
    let is_full = u32_at(block, 8)? & STATUS_BLOCK_TIMEOUT == 0;
    time(40)?.checked_sub(time(32)?).filter(|_| is_full)
}

/// A packet at the beginning of `bytes`, unless it comes a second time, and the distance to the next.
fn packet(bytes: &[u8]) -> Option<(Option<Packet<'_>>, u32)> {
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
    let (hardware, is_sent) = (u16_at(address, 8)?, *address.get(10)? == PACKET_OUTGOING);
    if is_sent && hardware == ARPHRD_LOOPBACK {
        return Some((None, next));
    }
    let data = bytes.get(link_layer..link_layer + captured)?;
    let packet = Packet {
        time: seconds * 1_000_000_000 + nanoseconds,
        data,
        wire_len,
        link_type: link_type(hardware, data),
        interface: u32_at(address, 4)?,
        direction: Some(if is_sent { Direction::Egress } else { Direction::Ingress }),
        vlan,
    };
    Some((Some(packet), next))
}

/// Link type of a hardware type and these bytes; others are handed on as a type that has no decoder, and so are counted. A tunnel
/// may have headers of its own in front.
const fn link_type(hardware: u16, data: &[u8]) -> LinkType {
    let is_ip = matches!(data, [0x40..=0x4f | 0x60..=0x6f, ..]);
    match hardware {
        ARPHRD_ETHER | ARPHRD_LOOPBACK => LinkType::ETHERNET,
        ARPHRD_NONE | ARPHRD_RAWIP => LinkType::RAW,
        ARPHRD_TUNNEL | ARPHRD_TUNNEL6 | ARPHRD_SIT | ARPHRD_IPGRE | ARPHRD_IP6GRE if is_ip => LinkType::RAW,
        _ => LinkType(u16::MAX),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk::<2>().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Link type, first byte and direction of what a block with these packets hands on: hardware type, packet type, first byte.
    fn handed_on(packets_in: &[(u16, u8, u8)]) -> Vec<(LinkType, u8, Option<Direction>)> {
        const LEN: usize = 96;
        let mut block = vec![0; 48];
        block[12..16].copy_from_slice(&(packets_in.len() as u32).to_ne_bytes());
        block[16..20].copy_from_slice(&48_u32.to_ne_bytes());
        for (hardware, kind, first) in packets_in {
            let mut packet = [0; LEN];
            for (at, word) in [(0, LEN as u32), (12, 4), (16, 4), (24, 80)] {
                packet[at..at + 4].copy_from_slice(&word.to_ne_bytes());
            }
            packet[56..58].copy_from_slice(&hardware.to_ne_bytes());
            (packet[58], packet[80]) = (*kind, *first);
            block.extend(packet);
        }
        let mut out = Vec::new();
        packets(&block, &mut Room::default(), &mut |burst| {
            out.extend(burst.iter().map(|packet| (packet.link_type, packet.data[0], packet.direction)));
        });
        out
    }

    #[test]
    fn a_packet_of_loopback_is_handed_on_once() {
        let received = (LinkType::ETHERNET, 1, Some(Direction::Ingress));
        assert_eq!(
            handed_on(&[(772, 4, 1), (772, 0, 1), (1, 4, 2)]),
            [received, (LinkType::ETHERNET, 2, Some(Direction::Egress)),]
        );
    }

    #[test]
    fn a_full_block_tells_how_long_it_took() {
        let block = |status: u32, (opened, last): ([u32; 2], [u32; 2])| {
            let words = [0, 0, status, 0, 0, 0, 0, 0, opened[0], opened[1], last[0], last[1]];
            time_to_fill(&words.map(u32::to_ne_bytes).concat())
        };
        let across_a_second = ([7, 999_900_000], [8, 100_000]);
        assert_eq!(block(1, across_a_second), Some(Duration::from_micros(200)));
        assert_eq!(block(1 | STATUS_BLOCK_TIMEOUT, across_a_second), None);
        // The clock went back.
        assert_eq!(block(1, ([8, 0], [7, 0])), None);
    }

    #[test]
    fn tunnels_carry_ip_or_what_nobody_reads() {
        for hardware in [768, 769, 776, 778, 823] {
            let types: Vec<_> = handed_on(&[(hardware, 0, 0x45), (hardware, 0, 0x60), (hardware, 0, 0xfe)])
                .into_iter()
                .map(|packet| packet.0)
                .collect();
            assert_eq!(types, [LinkType::RAW, LinkType::RAW, LinkType(u16::MAX)], "{hardware}");
        }
    }
}
