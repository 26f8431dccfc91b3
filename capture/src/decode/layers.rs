//! Layers between link and network: Ethernet (IEEE 802.3), 802.1Q and 802.1ad tags, LLC/SNAP (RFC 1042), PPP (RFC 1661,
//! 1662), PPPoE sessions (RFC 2516), Cisco HDLC, MPLS (RFC 3032) with IP or an Ethernet pseudowire (RFC 4448) inside, MAC in MAC
//! (802.1ah), service function chains (NSH, RFC 8300), MACsec (802.1AE) that only authenticates, tags of port extenders
//! (VN-Tag, 802.1BR), FabricPath and TRILL (RFC 6325), Cisco's ISL and security group tags, tags of redundant networks (HSR,
//! IEC 62439-3; 802.1CB), batman-adv; Frame Relay is [`super::relay`]'s.
//!
//! None of these is a tunnel: they leave no trace in a flow but VLAN ids, and the innermost Ethernet addresses. At most
//! [`MAX_LAYERS`] are followed. Limit: labels, paths and service ids are not part of a flow's identity.

use super::link::{IPV4, IPV6, Link};
use super::{DecodeError, relay, u16_at, wlan};

/// Headers of one frame before IP: more are stacked only by attackers.
const MAX_LAYERS: usize = 24;

/// Rest of a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    pub(super) data: &'a [u8],
    pub(super) on_wire: u32,
}

impl Cursor<'_> {
    /// Whether not all of it was captured.
    pub(super) fn is_cut(&self) -> bool {
        self.data.len() < self.on_wire as usize
    }

    /// The cursor behind a header.
    pub(super) fn behind(mut self, len: usize) -> Result<Self, DecodeError> {
        self.skip(len)?;
        Ok(self)
    }

    /// Goes behind a header.
    pub(super) fn skip(&mut self, len: usize) -> Result<(), DecodeError> {
        self.data = self.data.get(len..).ok_or(DecodeError::LinkCut)?;
        self.on_wire = self.on_wire.saturating_sub(len as u32);
        Ok(())
    }

    pub(super) fn u16(&self, at: usize) -> Result<u16, DecodeError> {
        u16_at(self.data, at).ok_or(DecodeError::LinkCut)
    }

    pub(super) fn byte(&self, at: usize) -> Result<u8, DecodeError> {
        self.data.get(at).copied().ok_or(DecodeError::LinkCut)
    }
}

/// What begins at the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    /// Addresses and EtherType or length.
    Ethernet,
    /// What this EtherType says.
    EtherType(u16),
    /// 802.11.
    Wlan,
    /// 802.11, the first two bytes perhaps in the other order.
    WlanInCapwap,
    /// Logical link control.
    Llc,
    /// PPP, with or without address and control.
    Ppp,
    /// PPPoE session header.
    Pppoe,
    /// Cisco HDLC.
    Hdlc,
    /// Frame Relay.
    Relay,
    /// Network layer protocol identifier.
    Nlpid,
    /// Label stack.
    Mpls,
    /// Network service header.
    Nsh,
    /// IP, either version.
    Ip,
}

/// What the layers said so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stack<'a> {
    pub(super) src_mac: Option<&'a [u8; 6]>,
    pub(super) dst_mac: Option<&'a [u8; 6]>,
    pub(super) vlan: Option<u16>,
    pub(super) vlan_inner: Option<u16>,
}

impl<'a> Stack<'a> {
    /// Of a packet inside one of layer 3, which is still in the same frame.
    pub(super) const fn of(link: &Link<'a>) -> Self {
        Self { src_mac: link.src_mac, dst_mac: link.dst_mac, vlan: link.vlan, vlan_inner: link.vlan_inner }
    }

    /// The outermost and the innermost VLAN id are kept. Id 0 is a priority tag: it names no VLAN (802.1Q 6.9.1).
    pub(super) const fn tag(&mut self, tci: u16) {
        match (tci & 0x0fff, self.vlan) {
            (0, _) => {}
            (id, None) => self.vlan = Some(id),
            (id, Some(_)) => self.vlan_inner = Some(id),
        }
    }

    /// Follows the layers down to IP.
    pub(super) fn walk(mut self, mut cursor: Cursor<'a>, first: Layer) -> Result<Link<'a>, DecodeError> {
        let mut layer = first;
        for _ in 0..MAX_LAYERS {
            layer = match layer {
                Layer::Ethernet => self.ethernet(&mut cursor)?,
                Layer::EtherType(kind) => self.ether_type(&mut cursor, kind)?,
                Layer::Wlan => wlan::frame(&mut self, &mut cursor)?,
                Layer::WlanInCapwap => wlan::in_capwap(&mut self, &mut cursor)?,
                Layer::Llc => llc(&mut cursor)?,
                Layer::Ppp => ppp(&mut cursor)?,
                Layer::Pppoe => pppoe(&mut cursor)?,
                Layer::Hdlc => hdlc(&mut cursor)?,
                Layer::Relay => relay::frame(&mut cursor)?,
                Layer::Nlpid => relay::identified(&mut cursor)?,
                Layer::Mpls => mpls(&mut cursor)?,
                Layer::Nsh => nsh(&mut cursor)?,
                Layer::Ip => return Ok(self.link(cursor)),
            };
        }
        Err(DecodeError::LinkMalformed)
    }

    const fn link(self, cursor: Cursor<'a>) -> Link<'a> {
        Link {
            src_mac: self.src_mac,
            dst_mac: self.dst_mac,
            vlan: self.vlan,
            vlan_inner: self.vlan_inner,
            payload: cursor.data,
            on_wire: cursor.on_wire,
        }
    }

    fn ethernet(&mut self, cursor: &mut Cursor<'a>) -> Result<Layer, DecodeError> {
        let kind = cursor.u16(12)?;
        if kind <= 1500 && is_isl(cursor.data) {
            // The VLAN's number, and a bit that says whether it is about a spanning tree.
            self.tag(cursor.u16(20)? >> 1);
            cursor.skip(26)?;
            return Ok(Layer::Ethernet);
        }
        self.dst_mac = cursor.data.first_chunk();
        self.src_mac = cursor.data.get(6..).and_then(|rest| rest.first_chunk());
        cursor.skip(14)?;
        Ok(Layer::EtherType(kind))
    }

    fn ether_type(&mut self, cursor: &mut Cursor<'_>, kind: u16) -> Result<Layer, DecodeError> {
        match kind {
            IPV4 | IPV6 => Ok(Layer::Ip),
            0x8100 | 0x88a8 | 0x9100 => {
                self.tag(cursor.u16(0)?);
                let kind = cursor.u16(2)?;
                cursor.skip(4)?;
                Ok(Layer::EtherType(kind))
            }
            0x8847 | 0x8848 => Ok(Layer::Mpls),
            0x8864 => Ok(Layer::Pppoe),
            0x880b => Ok(Layer::Ppp),
            0x6558 => Ok(Layer::Ethernet),
            0x894f => Ok(Layer::Nsh),
            // The service's id, then the customer's frame.
            0x88e7 => {
                cursor.skip(4)?;
                Ok(Layer::Ethernet)
            }
            0x88e5 => macsec(cursor),
            // Between the addresses and the type: four bytes of VN-Tag, HSR or 802.1CB, six of 802.1BR.
            0x8926 | 0x892f | 0xf1c1 => tagged(cursor, 4),
            0x893f => tagged(cursor, 6),
            // FabricPath: a forwarding tag, then the frame.
            0x8903 => {
                cursor.skip(2)?;
                Ok(Layer::Ethernet)
            }
            0x22f3 => trill(cursor),
            // Cisco's security group: version 1, one option.
            0x8909 if cursor.data.starts_with(&[1, 1]) => tagged(cursor, 6),
            0x4305 => batman(cursor),
            // A length (802.3), not a type, or one that needs no mention (jumbo frames).
            0..=1500 | 0x8870 => Ok(Layer::Llc),
            _ => Err(DecodeError::NotIp),
        }
    }
}

/// SNAP with the EtherTypes of RFC 1042 or of 802.1H, or IP by its own SAP.
fn llc(cursor: &mut Cursor<'_>) -> Result<Layer, DecodeError> {
    match cursor.data.first_chunk::<3>().ok_or(DecodeError::LinkCut)? {
        [0xaa, 0xaa, 0x03] => {
            let (oui, kind) = (cursor.data.get(3..6).ok_or(DecodeError::LinkCut)?, cursor.u16(6)?);
            if oui == relay::BRIDGED && matches!(kind, 1 | 7) {
                // Two bytes of padding, then the frame (RFC 2684, 5.2).
                cursor.skip(10)?;
                return Ok(Layer::Ethernet);
            }
            if !matches!(oui, [0, 0, 0 | 0xf8]) || kind <= 1500 {
                return Err(DecodeError::NotIp);
            }
            cursor.skip(8)?;
            Ok(Layer::EtherType(kind))
        }
        [0xfe, 0xfe, 0x03] => {
            cursor.skip(3)?;
            Ok(Layer::Nlpid)
        }
        [0x06, 0x06, 0x03] => {
            cursor.skip(3)?;
            Ok(Layer::Ip)
        }
        _ => Err(DecodeError::NotIp),
    }
}

/// Address and control may be left out, and so may the first byte of the protocol when it is zero (RFC 1661, 6.5, 6.6).
fn ppp(cursor: &mut Cursor<'_>) -> Result<Layer, DecodeError> {
    match (cursor.byte(0)?, cursor.data.get(1)) {
        (0xff, Some(0x03)) => cursor.skip(2)?,
        // PPP in HDLC-like framing shares its link type with Cisco's.
        (0x0f | 0x8f, Some(0x00)) => return Ok(Layer::Hdlc),
        (_, _) => {}
    }
    let first = cursor.byte(0)?;
    let protocol = if first & 1 == 1 {
        cursor.skip(1)?;
        u16::from(first)
    } else {
        let protocol = cursor.u16(0)?;
        cursor.skip(2)?;
        protocol
    };
    match protocol {
        0x0021 | 0x0057 => Ok(Layer::Ip),
        0x0281 | 0x0283 => Ok(Layer::Mpls),
        // One of several links (RFC 1990): what begins and ends in this frame; the sequence number has 24 bits.
        0x003d if cursor.byte(0)? == 0xc0 => {
            cursor.skip(4)?;
            Ok(Layer::Ppp)
        }
        // A bridged frame (RFC 3518) of Ethernet: flags and kind before it.
        0x0031 if cursor.byte(1)? == 1 => {
            cursor.skip(2)?;
            Ok(Layer::Ethernet)
        }
        _ => Err(DecodeError::NotIp),
    }
}

/// Length in units of four bytes, kind of metadata, and what follows it all.
fn nsh(cursor: &mut Cursor<'_>) -> Result<Layer, DecodeError> {
    let (version, words, next) = (cursor.byte(0)? >> 6, cursor.byte(1)? & 0x3f, cursor.byte(3)?);
    if version != 0 || words < 2 {
        return Err(DecodeError::LinkMalformed);
    }
    cursor.skip(usize::from(words) * 4)?;
    match next {
        1 | 2 => Ok(Layer::Ip),
        3 => Ok(Layer::Ethernet),
        4 => Ok(Layer::Nsh),
        5 => Ok(Layer::Mpls),
        _ => Err(DecodeError::NotIp),
    }
}

/// Flags, a short length, the packet's number, and the channel if a flag says so. What is not encrypted begins with its
/// EtherType, and is followed by the check value, which looks like padding.
fn macsec(cursor: &mut Cursor<'_>) -> Result<Layer, DecodeError> {
    const VERSION: u8 = 0x80;
    const CHANNEL: u8 = 0x20;
    const ENCRYPTED: u8 = 0x08;
    const CHANGED: u8 = 0x04;
    let flags = cursor.byte(0)?;
    if flags & VERSION != 0 {
        return Err(DecodeError::LinkMalformed);
    }
    if flags & (ENCRYPTED | CHANGED) != 0 {
        return Err(DecodeError::Macsec);
    }
    cursor.skip(if flags & CHANNEL == 0 { 6 } else { 14 })?;
    let kind = cursor.u16(0)?;
    cursor.skip(2)?;
    Ok(Layer::EtherType(kind))
}

/// A tag of so many bytes, and the type of what follows.
fn tagged(cursor: &mut Cursor<'_>, len: usize) -> Result<Layer, DecodeError> {
    let kind = cursor.u16(len)?;
    cursor.skip(len + 2)?;
    Ok(Layer::EtherType(kind))
}

/// Version, length of the options in units of four bytes, hops; names of two bridges; options; then the frame.
fn trill(cursor: &mut Cursor<'_>) -> Result<Layer, DecodeError> {
    let first = cursor.u16(0)?;
    if first >> 14 != 0 {
        return Err(DecodeError::LinkMalformed);
    }
    cursor.skip(6 + usize::from(first >> 6 & 0x1f) * 4)?;
    Ok(Layer::Ethernet)
}

/// Whether this is ISL's header: the first five bytes of its destination, and the SNAP that follows the length.
fn is_isl(data: &[u8]) -> bool {
    matches!(data, [0x01 | 0x03, 0, 0x0c, 0, 0, ..]) && data.get(14..17) == Some(&[0xaa, 0xaa, 3])
}

/// batman-adv, version 15: one receiver's frame behind 10 bytes, all receivers' behind 14.
fn batman(cursor: &mut Cursor<'_>) -> Result<Layer, DecodeError> {
    match (cursor.byte(0)?, cursor.byte(1)?) {
        (0x40, 15) => cursor.skip(10)?,
        (0x01, 15) => cursor.skip(14)?,
        (_, _) => return Err(DecodeError::NotIp),
    }
    Ok(Layer::Ethernet)
}

fn pppoe(cursor: &mut Cursor<'_>) -> Result<Layer, DecodeError> {
    let (version, code) = (cursor.byte(0)?, cursor.byte(1)?);
    if version != 0x11 || code != 0 {
        return Err(if code == 0 { DecodeError::LinkMalformed } else { DecodeError::NotIp });
    }
    cursor.skip(6)?;
    Ok(Layer::Ppp)
}

fn hdlc(cursor: &mut Cursor<'_>) -> Result<Layer, DecodeError> {
    let kind = cursor.u16(2)?;
    cursor.skip(4)?;
    Ok(Layer::EtherType(kind))
}

/// Labels until the bottom of the stack. What follows is not said: a nibble of 4 or 6 is IP, 0 the control word of a
/// pseudowire, whose next 12 bits are zero too (RFC 4448, 4.6), and else an Ethernet address (RFC 4928, 3). Addresses
/// may begin with these nibbles too, so that what does not hold as IP or control word is tried as Ethernet.
fn mpls(cursor: &mut Cursor<'_>) -> Result<Layer, DecodeError> {
    for _ in 0..MAX_LAYERS {
        let bottom = cursor.byte(2)? & 1 == 1;
        cursor.skip(4)?;
        if bottom {
            return below_labels(cursor);
        }
    }
    Err(DecodeError::LinkMalformed)
}

fn below_labels(cursor: &mut Cursor<'_>) -> Result<Layer, DecodeError> {
    let may_be_control_word = cursor.data.starts_with(&[0, 0]) && !begins_frame(cursor.data);
    if may_be_control_word && cursor.data.get(4..).is_some_and(is_ethernet) {
        cursor.skip(4)?;
        return Ok(Layer::Ethernet);
    }
    ip_or_ethernet(cursor)
}

/// IP by its version, or Ethernet where an address begins like one.
pub(super) fn ip_or_ethernet(cursor: &Cursor<'_>) -> Result<Layer, DecodeError> {
    let ethernet = is_ethernet(cursor.data);
    match cursor.byte(0)? >> 4 {
        4 if !ethernet || is_ipv4(cursor) => Ok(Layer::Ip),
        6 if !ethernet || is_ipv6(cursor) => Ok(Layer::Ip),
        _ if ethernet => Ok(Layer::Ethernet),
        _ => Err(DecodeError::NotIp),
    }
}

/// Whether the EtherType of a frame that begins here, and what follows it, leave no doubt.
fn begins_frame(data: &[u8]) -> bool {
    let version = data.get(14).map(|first| first >> 4);
    match u16_at(data, 12) {
        Some(IPV4) => version == Some(4),
        Some(IPV6) => version == Some(6),
        Some(kind) => leads_to_ip(kind),
        None => false,
    }
}

/// Whether a frame with an EtherType that we follow begins here.
fn is_ethernet(data: &[u8]) -> bool {
    u16_at(data, 12).is_some_and(|kind| matches!(kind, IPV4 | IPV6) || leads_to_ip(kind))
        || matches!(u16_at(data, 12), Some(len @ 3..=1500) if data.len() >= 14 + usize::from(len))
}

/// Tags, labels and PPPoE.
const fn leads_to_ip(kind: u16) -> bool {
    matches!(kind, 0x8100 | 0x88a8 | 0x9100 | 0x8847 | 0x8848 | 0x8864)
}

fn is_ipv4(cursor: &Cursor<'_>) -> bool {
    let len = u32::from(u16_at(cursor.data, 2).unwrap_or(0));
    cursor.data.first().is_some_and(|first| first & 0x0f >= 5) && (20..=cursor.on_wire).contains(&len)
}

fn is_ipv6(cursor: &Cursor<'_>) -> bool {
    u16_at(cursor.data, 4).is_some_and(|len| u32::from(len) + 40 <= cursor.on_wire)
}
