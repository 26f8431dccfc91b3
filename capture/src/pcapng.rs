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
/// put back.
pub fn enhanced_packet(out: &mut Vec<u8>, interface: u32, packet: &Packet<'_>, comment: Option<&str>) {
    let tag = match (packet.vlan, packet.link_type, packet.data.split_at_checked(12)) {
        (Some((tpid, tci)), LinkType::ETHERNET, Some((macs, rest))) => Some((macs, [tpid, tci], rest)),
        _ => None,
    };
    let added: u32 = if tag.is_some() { 4 } else { 0 };
    block(out, ENHANCED_PACKET, |out| {
        let time = packet.time.cast_unsigned();
        out.extend(interface.to_le_bytes());
        out.extend(((time >> 32) as u32).to_le_bytes());
        out.extend((time as u32).to_le_bytes());
        out.extend((packet.data.len() as u32 + added).to_le_bytes());
        out.extend((packet.wire_len + added).to_le_bytes());
        match tag {
            Some((macs, [tpid, tci], rest)) => {
                out.extend(macs);
                out.extend(tpid.to_be_bytes());
                out.extend(tci.to_be_bytes());
                out.extend(rest);
            }
            None => out.extend(packet.data),
        }
        pad(out);
        if let Some(direction) = packet.direction {
            let flags: u32 = match direction {
                Direction::Ingress => 1,
                Direction::Egress => 2,
            };
            option(out, EPB_FLAGS, &flags.to_le_bytes());
        }
        if let Some(comment) = comment {
            option(out, OPT_COMMENT, comment.as_bytes());
        }
        if packet.direction.is_some() || comment.is_some() {
            end_of_options(out);
        }
    });
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
