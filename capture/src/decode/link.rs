//! Link types down to the network layer: addresses and VLAN tags, and where the IP packet begins.
//!
//! What stands between the two (tags, LLC, PPP, PPPoE, MPLS) is [`super::layers`]' business, 802.11 that of [`super::wlan`], and
//! link types that are seldom seen that of [`super::seldom`].

use super::layers::{Cursor, Layer, Stack};
use super::{DecodeError, seldom, u16_at, u32_at, wlan};
use crate::packet::{LinkType, Packet};

pub(super) const IPV4: u16 = 0x0800;
pub(super) const IPV6: u16 = 0x86dd;

/// What the headers before the IP header say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link<'a> {
    pub(super) src_mac: Option<&'a [u8; 6]>,
    pub(super) dst_mac: Option<&'a [u8; 6]>,
    pub(super) vlan: Option<u16>,
    pub(super) vlan_inner: Option<u16>,
    /// Network-layer packet, with the link layer's padding.
    pub(super) payload: &'a [u8],
    /// Bytes of `payload` on the wire.
    pub(super) on_wire: u32,
}

impl<'a> Link<'a> {
    /// An IP packet without anything before it.
    pub(super) const fn bare(payload: &'a [u8], on_wire: u32) -> Self {
        Self { src_mac: None, dst_mac: None, vlan: None, vlan_inner: None, payload, on_wire }
    }
}

/// Parses the header of the packet's link type; only IP gets through.
pub(super) fn parse<'a>(packet: &Packet<'a>) -> Result<Link<'a>, DecodeError> {
    let cursor = Cursor { data: packet.data, on_wire: packet.wire_len };
    let mut stack = Stack::default();
    if let Some((_, tci)) = packet.vlan {
        stack.tag(tci);
    }
    match packet.link_type {
        LinkType::PPI | LinkType::PKTAP => {
            let (cursor, link_type) = described(cursor, packet.link_type)?;
            of_type(stack, cursor, link_type)
        }
        link_type => of_type(stack, cursor, link_type),
    }
}

fn of_type<'a>(mut stack: Stack<'a>, cursor: Cursor<'a>, link_type: LinkType) -> Result<Link<'a>, DecodeError> {
    match link_type {
        LinkType::ETHERNET => stack.walk(cursor, Layer::Ethernet),
        LinkType::LINUX_SLL if u16_at(cursor.data, 2) == Some(ARPHRD_RADIOTAP) => {
            wlan::with_radio(stack, cursor.behind(16)?)
        }
        LinkType::LINUX_SLL2 if u16_at(cursor.data, 8) == Some(ARPHRD_RADIOTAP) => {
            wlan::with_radio(stack, cursor.behind(20)?)
        }
        LinkType::LINUX_SLL => {
            stack.src_mac = address(cursor, (u16_at(cursor.data, 4), 6));
            cooked(stack, cursor, 16, u16_at(cursor.data, 14))
        }
        LinkType::LINUX_SLL2 => {
            stack.src_mac = address(cursor, (cursor.data.get(11).copied().map(u16::from), 12));
            cooked(stack, cursor, 20, u16_at(cursor.data, 0))
        }
        LinkType::RAW | LinkType::RAW_BSD | LinkType::RAW_OPENBSD | LinkType::IPV4 | LinkType::IPV6 => {
            stack.walk(cursor, Layer::Ip)
        }
        LinkType::NULL | LinkType::LOOP => family(stack, cursor, 4),
        LinkType::PPP | LinkType::PPP_SERIAL => stack.walk(cursor, Layer::Ppp),
        LinkType::PPP_ETHER => stack.walk(cursor, Layer::Pppoe),
        LinkType::C_HDLC => stack.walk(cursor, Layer::Hdlc),
        LinkType::MPLS => stack.walk(cursor, Layer::Mpls),
        LinkType::NFLOG => nflog(stack, cursor),
        LinkType::IEEE802_11 => stack.walk(cursor, Layer::Wlan),
        LinkType::IEEE802_11_RADIO => wlan::with_radio(stack, cursor),
        link_type => seldom::parse(stack, cursor, link_type),
    }
}

/// Linux' type of a wireless interface whose frames have a radiotap header, also in cooked captures.
const ARPHRD_RADIOTAP: u16 = 803;

/// The packet behind a header that says how it was captured and what it is.
fn described(mut cursor: Cursor<'_>, link_type: LinkType) -> Result<(Cursor<'_>, LinkType), DecodeError> {
    let word = |at: usize| cursor.data.get(at..).and_then(|rest| rest.first_chunk()).copied().map(u32::from_le_bytes);
    let (len, inner) = match link_type {
        // Version and flags, the length of it all, the link type.
        LinkType::PPI => (word(0).map(|word| word >> 16), word(4)),
        // Length, kind of record, link type.
        LinkType::PKTAP => (word(0), word(8)),
        LinkType(_) => return Err(DecodeError::LinkType),
    };
    let (len, inner) = len.zip(inner).ok_or(DecodeError::LinkCut)?;
    cursor.skip(len as usize)?;
    Ok((cursor, LinkType(u16::try_from(inner).map_err(|_| DecodeError::LinkType)?)))
}

/// The sender's address at a place in a cooked header, if its length is that of one: tunnel devices have none.
fn address(cursor: Cursor<'_>, (len, at): (Option<u16>, usize)) -> Option<&[u8; 6]> {
    cursor.data.get(at..).filter(|_| len == Some(6))?.first_chunk()
}

/// Where Linux' cooked capture of all interfaces heard a packet, as a number: what it was there (to this host, to
/// another one, outgoing), and the interface in the second version; 0 for other link types.
pub(crate) fn cooked_place(packet: &Packet<'_>) -> u32 {
    let place = match packet.link_type {
        LinkType::LINUX_SLL => u16_at(packet.data, 0).map(u32::from),
        LinkType::LINUX_SLL2 => {
            let kind = packet.data.get(10).map(|kind| u32::from(*kind));
            u32_at(packet.data, 4).zip(kind).map(|(interface, kind)| interface << 3 ^ kind)
        }
        LinkType(_) => None,
    };
    // Away from where addresses differ.
    place.map_or(0, |place| place.wrapping_add(1).rotate_left(19))
}

/// Linux cooked capture: a header of `len` bytes with the EtherType and the sender's address.
fn cooked<'a>(
    stack: Stack<'a>,
    mut cursor: Cursor<'a>,
    len: usize,
    kind: Option<u16>,
) -> Result<Link<'a>, DecodeError> {
    cursor.skip(len)?;
    match kind.ok_or(DecodeError::LinkCut)? {
        // Linux' number for frames that begin with LLC (`ETH_P_802_2`).
        4 => stack.walk(cursor, Layer::Llc),
        kind => stack.walk(cursor, Layer::EtherType(kind)),
    }
}

/// BSD loopback, and others whose header of `len` bytes begins with an address family of 4 bytes, in the byte order of who
/// captured or of the network.
pub(super) fn family<'a>(stack: Stack<'a>, cursor: Cursor<'a>, len: usize) -> Result<Link<'a>, DecodeError> {
    let family = *cursor.data.first_chunk::<4>().ok_or(DecodeError::LinkCut)?;
    let cursor = cursor.behind(len)?;
    if !is_ip_family(u32::from_be_bytes(family).min(u32::from_le_bytes(family))) {
        return Err(DecodeError::NotIp);
    }
    stack.walk(cursor, Layer::Ip)
}

/// IPv4 is 2 everywhere; IPv6 is 24, 28 or 30 on BSDs, 10 on Linux, 26 on Solaris.
pub(super) const fn is_ip_family(family: u32) -> bool {
    matches!(family, 2 | 10 | 24 | 26 | 28 | 30)
}

/// Attribute of NFLOG that holds the packet.
const NFULA_PAYLOAD: u16 = 9;
/// Attributes that are looked through: there are fewer than 20 kinds.
const MAX_ATTRIBUTES: usize = 32;

/// Netfilter log: family, version, resource id, then attributes in the byte order of the host that captured.
fn nflog<'a>(stack: Stack<'a>, mut cursor: Cursor<'a>) -> Result<Link<'a>, DecodeError> {
    let family = *cursor.data.first().ok_or(DecodeError::LinkCut)?;
    cursor.skip(4)?;
    if !matches!(family, 2 | 10) {
        return Err(DecodeError::NotIp);
    }
    for _ in 0..MAX_ATTRIBUTES {
        let [l0, l1, k0, k1] = *cursor.data.first_chunk::<4>().ok_or(DecodeError::LinkCut)?;
        let (little, big) = (u16::from_le_bytes([l0, l1]), u16::from_be_bytes([l0, l1]));
        // The kinds are small numbers, so their zero byte tells the order.
        let (len, kind) = if k1 == 0 { (little, u16::from(k0)) } else { (big, u16::from_be_bytes([k0, k1])) };
        if len < 4 {
            return Err(DecodeError::LinkMalformed);
        }
        if kind == NFULA_PAYLOAD {
            let cut = cursor.on_wire.saturating_sub(cursor.data.len() as u32);
            cursor.skip(4)?;
            let data = cursor.data.get(..usize::from(len) - 4).unwrap_or(cursor.data);
            // What the snap length cut was the end of this attribute, the last one.
            return stack.walk(Cursor { data, on_wire: data.len() as u32 + cut }, Layer::Ip);
        }
        cursor.skip(usize::from(len).next_multiple_of(4))?;
    }
    Err(DecodeError::LinkMalformed)
}
