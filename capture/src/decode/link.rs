//! Link layers down to the network layer: addresses, VLAN tags, and the EtherType of what follows.

use super::{DecodeError, u16_at};
use crate::packet::{LinkType, Packet};

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// Tags of one frame: more than two are stacked only by attackers.
const MAX_TAGS: usize = 4;

/// What a link-layer header says.
pub(super) struct Link<'a> {
    pub(super) src_mac: Option<[u8; 6]>,
    pub(super) dst_mac: Option<[u8; 6]>,
    pub(super) vlan: Option<u16>,
    pub(super) vlan_inner: Option<u16>,
    /// Network-layer packet, with the link layer's padding.
    pub(super) payload: &'a [u8],
    /// Bytes of the frame before `payload`.
    pub(super) header_len: usize,
}

/// Parses the header of the packet's link type; only IP gets through.
pub(super) fn parse<'a>(packet: &Packet<'a>) -> Result<Link<'a>, DecodeError> {
    let data = packet.data;
    match packet.link_type {
        LinkType::ETHERNET => ethernet(data, packet.vlan),
        LinkType::LINUX_SLL => cooked(data, 16, u16_at(data, 14), data.get(6..12)),
        LinkType::LINUX_SLL2 => cooked(data, 20, u16_at(data, 0), data.get(12..18)),
        LinkType::RAW | LinkType::IPV4 | LinkType::IPV6 => bare(data, 0),
        LinkType::NULL | LinkType::LOOP => bare(data, 4),
        LinkType(_) => Err(DecodeError::LinkType),
    }
}

/// Ethernet II with 802.1Q and 802.1ad tags; `stripped` is the outermost tag, which the kernel took out of the frame.
pub(super) fn ethernet(data: &[u8], stripped: Option<(u16, u16)>) -> Result<Link<'_>, DecodeError> {
    let dst_mac = data.first_chunk::<6>().copied();
    let src_mac = data.get(6..).and_then(|rest| rest.first_chunk::<6>()).copied();
    let ether_type = u16_at(data, 12).ok_or(DecodeError::LinkCut)?;
    tagged(Link { src_mac, dst_mac, vlan: None, vlan_inner: None, payload: data, header_len: 14 }, ether_type, stripped)
}

/// Follows the tags after the header to the network layer.
fn tagged(mut link: Link<'_>, mut ether_type: u16, stripped: Option<(u16, u16)>) -> Result<Link<'_>, DecodeError> {
    let data = link.payload;
    let mut tags = stripped.map(|(_, tci)| tci & 0x0fff).into_iter().collect::<Tags>();
    for _ in 0..MAX_TAGS {
        if !matches!(ether_type, 0x8100 | 0x88a8 | 0x9100) {
            break;
        }
        let tci = u16_at(data, link.header_len).ok_or(DecodeError::LinkCut)?;
        tags.push(tci & 0x0fff);
        ether_type = u16_at(data, link.header_len + 2).ok_or(DecodeError::LinkCut)?;
        link.header_len += 4;
    }
    if !matches!(ether_type, IPV4 | IPV6) {
        return Err(DecodeError::NotIp);
    }
    link.vlan = tags.outer;
    link.vlan_inner = tags.inner;
    link.payload = data.get(link.header_len..).ok_or(DecodeError::LinkCut)?;
    Ok(link)
}

/// The outermost and the innermost VLAN id.
#[derive(Default)]
struct Tags {
    outer: Option<u16>,
    inner: Option<u16>,
}

impl Tags {
    fn push(&mut self, id: u16) {
        // Id 0 is a priority tag: it names no VLAN (802.1Q 6.9.1).
        match (id, self.outer) {
            (0, _) => {}
            (_, None) => self.outer = Some(id),
            (_, Some(_)) => self.inner = Some(id),
        }
    }
}

impl FromIterator<u16> for Tags {
    fn from_iter<T: IntoIterator<Item = u16>>(ids: T) -> Self {
        let mut tags = Self::default();
        ids.into_iter().for_each(|id| tags.push(id));
        tags
    }
}

/// Linux cooked capture: a header of `len` bytes with the EtherType and the sender's address.
fn cooked<'a>(data: &'a [u8], len: usize, kind: Option<u16>, mac: Option<&[u8]>) -> Result<Link<'a>, DecodeError> {
    let ether_type = kind.filter(|_| data.len() >= len).ok_or(DecodeError::LinkCut)?;
    let src_mac = mac.and_then(|mac| mac.first_chunk::<6>()).copied();
    tagged(
        Link { src_mac, dst_mac: None, vlan: None, vlan_inner: None, payload: data, header_len: len },
        ether_type,
        None,
    )
}

/// No EtherType: the version nibble of the IP header decides.
fn bare(data: &[u8], header_len: usize) -> Result<Link<'_>, DecodeError> {
    let payload = data.get(header_len..).filter(|payload| !payload.is_empty()).ok_or(DecodeError::LinkCut)?;
    Ok(Link { src_mac: None, dst_mac: None, vlan: None, vlan_inner: None, payload, header_len })
}
