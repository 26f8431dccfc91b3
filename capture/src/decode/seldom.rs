//! Link types that are seldom seen: what stands before the layers that all share. Headers are as tcpdump.org/linktypes.html has
//! them.
//!
//! Limits: only datagrams that are whole in one frame; addresses that are not six bytes long are none.

use super::DecodeError;
use super::layers::{Cursor, Layer, Stack};
use super::link::{Link, family, is_ip_family};
use super::tunnel;
use crate::packet::LinkType;

pub(super) fn parse<'a>(
    mut stack: Stack<'a>,
    cursor: Cursor<'a>,
    link_type: LinkType,
) -> Result<Link<'a>, DecodeError> {
    let (len, layer) = match link_type {
        LinkType::PFLOG_OLD => return family(stack, cursor, 28),
        LinkType::ENC => return family(stack, cursor, 12),
        LinkType::PFLOG => (usize::from(cursor.byte(0)?).next_multiple_of(4), of_family(cursor)?),
        LinkType::IPNET => (24, of_family(cursor)?),
        LinkType::ATM | LinkType::ATM_BSD => (0, Layer::Llc),
        LinkType::ATM_CLIP => (0, Layer::Ip),
        LinkType::SUNATM => sun_atm(cursor)?,
        LinkType::FRELAY => (0, Layer::Relay),
        LinkType::FRELAY_WITH_DIR => (1, Layer::Relay),
        LinkType::PPP_WITH_DIR => (1, Layer::Ppp),
        LinkType::PPP_PPPD => (if cursor.byte(1)? == 3 { 2 } else { 0 }, Layer::Ppp),
        LinkType::C_HDLC_WITH_DIR => (1, Layer::Hdlc),
        LinkType::TOKEN_RING => token_ring(&mut stack, cursor)?,
        LinkType::FDDI => fddi(&mut stack, cursor)?,
        LinkType::ARCNET => arcnet(cursor, 2)?,
        LinkType::ARCNET_LINUX => arcnet(cursor, 4)?,
        LinkType::IP_OVER_FC => {
            (stack.dst_mac, stack.src_mac) = (address(cursor, 2), address(cursor, 10));
            (16, Layer::Llc)
        }
        LinkType::APPLE_IP_OVER_IEEE1394 => (18, Layer::EtherType(cursor.u16(16)?)),
        LinkType::SYMANTEC => (44, Layer::EtherType(cursor.u16(6)?)),
        LinkType::PRISM => prism(cursor)?,
        LinkType::AVS => avs(cursor)?,
        LinkType::ERF => erf(cursor)?,
        LinkType::MPACKET => (8, Layer::Ethernet),
        LinkType::DSA_TAG_BRCM_PREPEND => (4, Layer::Ethernet),
        LinkType::DSA_TAG_BRCM => switch_tag(&mut stack, cursor, 4)?,
        LinkType::DSA_TAG_DSA => marvell(&mut stack, cursor, 0)?,
        LinkType::DSA_TAG_EDSA => marvell(&mut stack, cursor, 4)?,
        LinkType::TZSP => tunnel::tazmen(cursor).ok_or(DecodeError::NotIp)?,
        LinkType::JUNIPER_ETHER | LinkType::JUNIPER_PPPOE => juniper(cursor, Layer::Ethernet)?,
        LinkType::JUNIPER_PPP | LinkType::JUNIPER_MLPPP => juniper(cursor, Layer::Ppp)?,
        LinkType::JUNIPER_FRELAY => juniper(cursor, Layer::Relay)?,
        LinkType::JUNIPER_CHDLC => juniper(cursor, Layer::Hdlc)?,
        LinkType(_) => return Err(DecodeError::LinkType),
    };
    stack.walk(cursor.behind(len)?, layer)
}

fn address(cursor: Cursor<'_>, at: usize) -> Option<&[u8; 6]> {
    cursor.data.get(at..)?.first_chunk()
}

/// The second byte is an address family.
fn of_family(cursor: Cursor<'_>) -> Result<Layer, DecodeError> {
    if is_ip_family(cursor.byte(1)?.into()) { Ok(Layer::Ip) } else { Err(DecodeError::NotIp) }
}

/// Direction and kind of traffic, path, channel: LLC, or a LAN's emulation, where a client's number precedes the frame.
fn sun_atm(cursor: Cursor<'_>) -> Result<(usize, Layer), DecodeError> {
    match cursor.byte(0)? & 0x0f {
        1 => Ok((6, Layer::Ethernet)),
        2 => Ok((4, Layer::Llc)),
        _ => Err(DecodeError::NotIp),
    }
}

/// Access, control, addresses; if a bit of the sender's address says so, a route whose length is in its first byte.
fn token_ring<'a>(stack: &mut Stack<'a>, cursor: Cursor<'a>) -> Result<(usize, Layer), DecodeError> {
    if cursor.byte(1)? >> 6 != 1 {
        return Err(DecodeError::NotIp);
    }
    stack.dst_mac = address(cursor, 2);
    if cursor.byte(8)? & 0x80 != 0 {
        return Ok((14 + usize::from(cursor.byte(14)? & 0x1f), Layer::Llc));
    }
    stack.src_mac = address(cursor, 8);
    Ok((14, Layer::Llc))
}

fn fddi<'a>(stack: &mut Stack<'a>, cursor: Cursor<'a>) -> Result<(usize, Layer), DecodeError> {
    if cursor.byte(0)? & 0x70 != 0x50 {
        return Err(DecodeError::NotIp);
    }
    (stack.dst_mac, stack.src_mac) = (address(cursor, 1), address(cursor, 7));
    Ok((13, Layer::Llc))
}

/// Two addresses and on Linux an offset, then the protocol: RFC 1201's IP and IPv6 with a flag of what is divided and a sequence
/// number, RFC 1051's without.
fn arcnet(cursor: Cursor<'_>, at: usize) -> Result<(usize, Layer), DecodeError> {
    match cursor.byte(at)? {
        0xd4 | 0xc4 if cursor.byte(at + 1)? == 0 => Ok((at + 4, Layer::Ip)),
        0xf0 => Ok((at + 1, Layer::Ip)),
        _ => Err(DecodeError::NotIp),
    }
}

/// A length of its own, in the byte order of who captured; newer drivers write AVS' header instead.
fn prism(cursor: Cursor<'_>) -> Result<(usize, Layer), DecodeError> {
    if cursor.data.starts_with(&AVS) {
        return avs(cursor);
    }
    let stated = *cursor.data.get(4..).and_then(|rest| rest.first_chunk()).ok_or(DecodeError::LinkCut)?;
    let len = u32::from_le_bytes(stated).min(u32::from_be_bytes(stated));
    Ok((len as usize, Layer::Wlan))
}

/// How AVS' header begins, but for its version.
const AVS: [u8; 3] = [0x80, 0x21, 0x10];

/// Version and length, then what the radio says.
fn avs(cursor: Cursor<'_>) -> Result<(usize, Layer), DecodeError> {
    Ok((cursor.u16(6)?.into(), Layer::Wlan))
}

/// Sixteen bytes, of which the ninth says what it is and whether there are headers of eight bytes more; Ethernet has two
/// bytes of padding.
fn erf(cursor: Cursor<'_>) -> Result<(usize, Layer), DecodeError> {
    const MORE: u8 = 0x80;
    let mut len = 16;
    let mut more = cursor.byte(8)? & MORE != 0;
    while more {
        more = cursor.byte(len)? & MORE != 0;
        len += 8;
    }
    match cursor.byte(8)? & !MORE {
        1 | 10 | 15 => Ok((len, Layer::Ppp)),
        2 | 11 | 16 => Ok((len + 2, Layer::Ethernet)),
        22 | 23 => Ok((len, Layer::Ip)),
        _ => Err(DecodeError::NotIp),
    }
}

/// Ethernet with so many bytes between the addresses and the type.
fn switch_tag<'a>(stack: &mut Stack<'a>, cursor: Cursor<'a>, len: usize) -> Result<(usize, Layer), DecodeError> {
    (stack.dst_mac, stack.src_mac) = (address(cursor, 0), address(cursor, 6));
    Ok((14 + len, Layer::EtherType(cursor.u16(12 + len)?)))
}

/// Marvell's tag, `before` bytes behind the addresses: it takes the place of a VLAN's, if the frame had one.
fn marvell<'a>(stack: &mut Stack<'a>, cursor: Cursor<'a>, before: usize) -> Result<(usize, Layer), DecodeError> {
    const TAGGED: u8 = 0x20;
    if cursor.byte(12 + before)? & TAGGED != 0 {
        stack.tag(cursor.u16(14 + before)?);
    }
    switch_tag(stack, cursor, before + 4)
}

/// `MGC` and flags; extensions behind their length; and, where the router had taken the link's header away, four bytes in its place.
fn juniper(cursor: Cursor<'_>, layer: Layer) -> Result<(usize, Layer), DecodeError> {
    const EXTENDED: u8 = 0x80;
    const WITHOUT_LINK: u8 = 0x02;
    if !cursor.data.starts_with(b"MGC") {
        return Err(DecodeError::LinkMalformed);
    }
    let flags = cursor.byte(3)?;
    let len = if flags & EXTENDED == 0 { 4 } else { 6 + usize::from(cursor.u16(4)?) };
    Ok(if flags & WITHOUT_LINK == 0 { (len, layer) } else { (len + 4, Layer::Ip) })
}
