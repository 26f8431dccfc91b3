//! Writing pcapng blocks (draft-ietf-opsawg-pcapng): section header, interface description, enhanced packet.
//!
//! Little endian, nanosecond resolution. Each function appends one whole block, so a reader that stops between blocks
//! has a whole file.

use crate::packet::{Direction, LinkType, Packet};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;

const OPT_COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;

/// An interface, as its block describes it.
#[derive(Debug, Clone, Copy)]
pub struct InterfaceBlock<'a> {
    /// `if_name`.
    pub name: &'a str,
    /// `if_description`.
    pub description: Option<&'a str>,
    /// Link-layer type of its packets.
    pub link_type: LinkType,
    /// Most bytes of a packet that are captured; 0: no limit.
    pub snap_len: u32,
}

/// Begins a section written by `application`.
pub fn section_header(out: &mut Vec<u8>, application: &str) {
    block(out, SECTION_HEADER, |out| {
        out.extend(0x1a2b_3c4d_u32.to_le_bytes());
        out.extend([1, 0, 0, 0]);
        out.extend((-1_i64).to_le_bytes());
        option(out, SHB_USERAPPL, application.as_bytes());
        end_of_options(out);
    });
}

/// Describes the next interface of the section; its number is the count of those before.
pub fn interface_description(out: &mut Vec<u8>, interface: &InterfaceBlock<'_>) {
    block(out, INTERFACE_DESCRIPTION, |out| {
        out.extend(interface.link_type.0.to_le_bytes());
        out.extend([0, 0]);
        out.extend(interface.snap_len.to_le_bytes());
        option(out, IF_NAME, interface.name.as_bytes());
        if let Some(description) = interface.description {
            option(out, IF_DESCRIPTION, description.as_bytes());
        }
        option(out, IF_TSRESOL, &[9]);
        end_of_options(out);
    });
}

/// A packet of the section's interface number `interface`. A VLAN tag that the kernel took out of an Ethernet frame is
/// put back. This is done for every packet that is stored: the fields before the data are put together first.
pub fn enhanced_packet(out: &mut Vec<u8>, interface: u32, packet: &Packet<'_>, comment: Option<&str>) {
    let (macs, tag, rest) = match (packet.vlan, packet.link_type, packet.data.split_at_checked(12)) {
        (Some((tpid, tci)), LinkType::ETHERNET, Some((macs, rest))) => (macs, Some([tpid, tci]), rest),
        _ => (&[][..], None, packet.data),
    };
    let added: u32 = if tag.is_some() { 4 } else { 0 };
    let time = packet.time.cast_unsigned();
    let kept = packet.data.len() as u32 + added;
    let options: u32 = match (packet.direction, comment) {
        (None, None) => 0,
        (Some(_), None) => 12,
        (direction, Some(comment)) => {
            let comment = comment.len().min(usize::from(u16::MAX)).next_multiple_of(4) as u32;
            4 + comment + if direction.is_some() { 12 } else { 4 }
        }
    };
    let length = 32 + kept.next_multiple_of(4) + options;
    let mut head = [0; 28];
    let fields = [ENHANCED_PACKET, length, interface, (time >> 32) as u32, time as u32, kept, packet.wire_len + added];
    for (slot, field) in head.chunks_exact_mut(4).zip(fields) {
        slot.copy_from_slice(&field.to_le_bytes());
    }
    out.reserve(length as usize);
    out.extend_from_slice(&head);
    if let Some([tpid, tci]) = tag {
        out.extend_from_slice(macs);
        out.extend_from_slice(&tpid.to_be_bytes());
        out.extend_from_slice(&tci.to_be_bytes());
    }
    out.extend_from_slice(rest);
    let padding = [0; 3];
    out.extend_from_slice(padding.get(..(kept.next_multiple_of(4) - kept) as usize).unwrap_or_default());
    if let Some(direction) = packet.direction {
        let flags: u8 = match direction {
            Direction::Ingress => 1,
            Direction::Egress => 2,
        };
        out.extend_from_slice(&[EPB_FLAGS as u8, 0, 4, 0, flags, 0, 0, 0]);
    }
    if let Some(comment) = comment {
        option(out, OPT_COMMENT, comment.as_bytes());
    }
    if options > 0 {
        end_of_options(out);
    }
    out.extend_from_slice(&length.to_le_bytes());
}

/// Length of the block that `bytes` begin with, if that can be one.
pub(crate) fn block_length(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?) as usize;
    (length >= 12 && length.is_multiple_of(4)).then_some(length)
}

/// Type, length, body, length.
fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend(kind.to_le_bytes());
    out.extend([0; 4]);
    body(out);
    let length = (out.len() - start + 4) as u32;
    out.extend(length.to_le_bytes());
    if let Some(field) = out.get_mut(start + 4..start + 8) {
        field.copy_from_slice(&length.to_le_bytes());
    }
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    out.extend(code.to_le_bytes());
    out.extend((value.len() as u16).to_le_bytes());
    out.extend(value);
    pad(out);
}

/// Blocks, packets and options begin on multiples of four bytes; every block before was a multiple of four too.
fn pad(out: &mut Vec<u8>) {
    // `out` may begin anywhere in a file, but always between blocks.
    out.resize(out.len().next_multiple_of(4), 0);
}

fn end_of_options(out: &mut Vec<u8>) {
    out.extend([0; 4]);
}
