//! Tunnels: which packets carry another one, and where it begins.
//!
//! In UDP, by the destination's port, and from that of those that answer or whose header tells: VXLAN (RFC 7348),
//! VXLAN-GPE (draft-ietf-nvo3-vxlan-gpe), Geneve (RFC 8926), GTP-U (3GPP TS 29.281), MPLS (RFC 7510), L2TP version 2
//! (RFC 2661), AYIYA (draft-massar-v6ops-ayiya), data of CAPWAP (RFC 5415) and LISP (RFC 9300), TZSP; what the header
//! leaves open must fit ([`Inside::fits`]), for any program may have such a port. By content, since its ports change
//! behind translators: Teredo (RFC 4380). By protocol number: IP in IP (RFC 2003, 2473, 4213), EtherIP (RFC 3378), MPLS
//! (RFC 4023), Ethernet (143, RFC 8986), registers of PIM (RFC 7761) and GRE, for which see [`super::gre`]. ESP and
//! WireGuard are told from content, not opened; L2TP version 3 is not, since its packets do not say what they carry.
//! Fragments of CAPWAP's own are not put together: what the first has counts.

use super::ip::Ip;
use super::layers::{Cursor, Layer, ip_or_ethernet};
use super::link::Link;
use super::transport::Parsed;
use super::{Decoded, Transport, gre, u16_at, u32_at};
use crate::record::{Protocol, TunnelKind, vocabulary};

/// UDP ports of tunnels that are not everywhere the same; an empty list leaves them closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelPorts {
    /// VXLAN: 4789 (IANA) and 8472 (Linux' default).
    pub vxlan: Vec<u16>,
    /// VXLAN-GPE: 4790.
    pub vxlan_gpe: Vec<u16>,
    /// Geneve: 6081.
    pub geneve: Vec<u16>,
    /// GTP-U: 2152.
    pub gtpu: Vec<u16>,
    /// MPLS in UDP: 6635.
    pub mpls: Vec<u16>,
    /// L2TP version 2: 1701.
    pub l2tp: Vec<u16>,
    /// AYIYA: 5072.
    pub ayiya: Vec<u16>,
    /// CAPWAP's data: 5247.
    pub capwap: Vec<u16>,
    /// LISP's data: 4341.
    pub lisp: Vec<u16>,
    /// TZSP: 37008.
    pub tzsp: Vec<u16>,
}

impl Default for TunnelPorts {
    fn default() -> Self {
        Self {
            vxlan: vec![4789, 8472],
            vxlan_gpe: vec![4790],
            geneve: vec![6081],
            gtpu: vec![2152],
            mpls: vec![6635],
            l2tp: vec![1701],
            ayiya: vec![5072],
            capwap: vec![5247],
            lisp: vec![4341],
            tzsp: vec![37_008],
        }
    }
}

/// [`TunnelPorts`], and all of them in a row behind a filter: most datagrams have ports that neither has.
#[derive(Debug)]
pub(super) struct Ports {
    of: TunnelPorts,
    all: Box<[u16]>,
    /// A bit for each port, by its last ten bits.
    filter: [u64; 16],
}

impl Ports {
    pub(super) fn new(of: TunnelPorts) -> Self {
        let TunnelPorts { vxlan, vxlan_gpe, geneve, gtpu, mpls, l2tp, ayiya, capwap, lisp, tzsp } = &of;
        let all = [vxlan, vxlan_gpe, geneve, gtpu, mpls, l2tp, ayiya, capwap, lisp, tzsp];
        let all: Box<[u16]> = all.into_iter().flatten().copied().collect();
        let mut filter = [0_u64; 16];
        for port in &all {
            if let Some(bits) = filter.get_mut(word(*port)) {
                *bits |= 1 << (port & 63);
            }
        }
        Self { of, all, filter }
    }

    #[inline(always)]
    fn has(&self, port: u16) -> bool {
        let bits = self.filter.get(word(port)).copied().unwrap_or_default();
        bits >> (port & 63) & 1 == 1 && self.all.contains(&port)
    }
}

/// The word of the filter that has a port's bit.
#[inline(always)]
fn word(port: u16) -> usize {
    usize::from((port >> 6) & 15)
}

/// What a tunnel carries.
#[derive(Debug)]
pub(super) struct Inside<'a> {
    pub(super) kind: TunnelKind,
    pub(super) id: Option<u32>,
    pub(super) layer: Layer,
    pub(super) cursor: Cursor<'a>,
}

impl Inside<'_> {
    /// Whether the inner packet has a frame of its own.
    pub(super) fn has_frame(&self) -> bool {
        matches!(self.layer, Layer::Ethernet | Layer::Wlan | Layer::WlanInCapwap)
    }

    /// Whether a packet is as long as what carries it, `outer`'s, says, or shorter where there may be padding: in a
    /// frame of its own. Asked of headers in which nearly every value means something, and of GTP-U, which does not say
    /// what it carries.
    pub(super) fn fits(&self, outer: &Link<'_>, link: &Link<'_>, ip: &Ip<'_>) -> bool {
        let open = matches!(self.kind, TunnelKind::Lisp | TunnelKind::MplsUdp | TunnelKind::VxlanGpe);
        if open && link.src_mac == outer.src_mac {
            return ip.total_len == link.on_wire;
        }
        ip.total_len <= link.on_wire || !(open || self.kind == TunnelKind::Gtpu)
    }
}

/// Whether [`open`] is worth its call: what untunnelled packets pay.
#[inline(always)]
pub(super) fn may_open(protocol: Protocol, payload: &[u8], ports: &Ports) -> bool {
    match protocol {
        Protocol::UDP => {
            let Some([s0, s1, p0, p1, l0, l1, _, _, first, _, _, _, n0, n1]) = payload.first_chunk::<14>() else {
                return false;
            };
            let number = |high: &u8, low: &u8| u16::from_be_bytes([*high, *low]);
            // Teredo on any port: an indication, or an IPv6 packet as long as the datagram.
            *first == 0
                || (*first >> 4 == 6 && number(n0, n1).checked_add(8 + 40) == Some(number(l0, l1)))
                || ports.has(number(p0, p1))
                || ports.has(number(s0, s1))
        }
        Protocol::GRE | Protocol(4 | 41 | 97 | 103 | 137 | 143) => true,
        Protocol(_) => false,
    }
}

/// The packet inside, if this is a tunnel's. Whether it can be decoded is another question.
pub(super) fn open<'a>(ip: &Ip<'a>, (ends, transport): &Parsed<'a>, ports: &Ports) -> Option<Inside<'a>> {
    let outer = Cursor { data: ip.payload, on_wire: ip.payload_len };
    let v6 = ip.ends.is_v6();
    let bare = |kind| Some(Inside { kind, id: None, layer: Layer::Ip, cursor: outer });
    match ip.protocol {
        Protocol::UDP => match *transport {
            Transport::Udp { payload, payload_len } => {
                let ((source, destination), cursor) = ((*ends)?, Cursor { data: payload, on_wire: payload_len });
                in_udp(destination, cursor, ports).or_else(|| from_port(source, cursor, ports))
            }
            Transport::Tcp(_) | Transport::Icmp { .. } | Transport::Sctp { .. } | Transport::Other { .. } => None,
        },
        Protocol::GRE => gre::open(outer),
        Protocol(4) => bare(if v6 { TunnelKind::Ipip6 } else { TunnelKind::Ipip }),
        Protocol(41) => bare(if v6 { TunnelKind::Ip6ip6 } else { TunnelKind::Sit }),
        Protocol(97) => etherip(outer),
        Protocol(103) => pim(outer),
        Protocol(137) => mpls(outer, TunnelKind::MplsIp),
        Protocol(143) => Some(Inside { kind: TunnelKind::Srv6, id: None, layer: Layer::Ethernet, cursor: outer }),
        Protocol(_) => None,
    }
}

/// The packet inside a datagram to this port.
#[inline(always)]
pub(super) fn in_udp<'a>(port: u16, cursor: Cursor<'a>, ports: &Ports) -> Option<Inside<'a>> {
    let by_port = by_port(port, cursor, ports);
    if by_port.is_some() { by_port } else { teredo(cursor) }
}

#[inline(always)]
fn by_port<'a>(port: u16, cursor: Cursor<'a>, ports: &Ports) -> Option<Inside<'a>> {
    let of = &ports.of;
    if of.vxlan.contains(&port) {
        vxlan(cursor)
    } else if of.geneve.contains(&port) {
        geneve(cursor)
    } else if of.gtpu.contains(&port) {
        gtpu(cursor)
    } else if ports.has(port) {
        in_udp_seldom(port, cursor, of)
    } else {
        None
    }
}

/// The packet inside a datagram from this port: a server's answer, or one whose header tells enough. Data of the others
/// is sent to their port only (RFC 9300, 5.3; RFC 7510, 3).
fn from_port<'a>(port: u16, cursor: Cursor<'a>, ports: &Ports) -> Option<Inside<'a>> {
    let of = &ports.of;
    let kinds = [&of.l2tp, &of.ayiya, &of.capwap, &of.vxlan, &of.geneve, &of.gtpu];
    if kinds.iter().any(|ports| ports.contains(&port)) { by_port(port, cursor, ports) } else { None }
}

/// Tunnels that are rare: apart, so that the others stay quick.
#[inline(never)]
fn in_udp_seldom<'a>(port: u16, cursor: Cursor<'a>, ports: &TunnelPorts) -> Option<Inside<'a>> {
    if ports.vxlan_gpe.contains(&port) {
        vxlan_gpe(cursor)
    } else if ports.mpls.contains(&port) {
        mpls(cursor, TunnelKind::MplsUdp)
    } else if ports.l2tp.contains(&port) {
        l2tp(cursor)
    } else if ports.ayiya.contains(&port) {
        ayiya(cursor)
    } else if ports.capwap.contains(&port) {
        capwap(cursor)
    } else if ports.lisp.contains(&port) {
        lisp(cursor)
    } else if ports.tzsp.contains(&port) {
        let (header, layer) = tazmen(cursor)?;
        Some(Inside { kind: TunnelKind::Tzsp, id: None, layer, cursor: behind(cursor, header)? })
    } else {
        None
    }
}

/// The cursor behind a header.
pub(super) fn behind(mut cursor: Cursor<'_>, len: usize) -> Option<Cursor<'_>> {
    cursor.skip(len).ok().map(|()| cursor)
}

/// The bit that says that there is a VNI.
const VALID_VNI: u8 = 0x08;

fn vxlan(cursor: Cursor<'_>) -> Option<Inside<'_>> {
    if cursor.data.first()? & VALID_VNI == 0 {
        return None;
    }
    let id = Some(u32_at(cursor.data, 4)? >> 8);
    Some(Inside { kind: TunnelKind::Vxlan, id, layer: Layer::Ethernet, cursor: behind(cursor, 8)? })
}

fn vxlan_gpe(cursor: Cursor<'_>) -> Option<Inside<'_>> {
    let [flags, _, _, next] = *cursor.data.first_chunk::<4>()?;
    let id = (flags & VALID_VNI != 0).then_some(u32_at(cursor.data, 4)? >> 8);
    // Bit 0x04 says that there is a next protocol; else it is plain VXLAN.
    let layer = match (flags & 0x04 != 0, next) {
        (true, 1 | 2) => Layer::Ip,
        (true, 3) | (false, _) => Layer::Ethernet,
        (true, 4) => Layer::Nsh,
        (true, 5) => Layer::Mpls,
        (true, _) => return None,
    };
    Some(Inside { kind: TunnelKind::VxlanGpe, id, layer, cursor: behind(cursor, 8)? })
}

fn geneve(cursor: Cursor<'_>) -> Option<Inside<'_>> {
    let [first, _, t0, t1] = *cursor.data.first_chunk::<4>()?;
    let (version, options) = (first >> 6, usize::from(first & 0x3f) * 4);
    if version != 0 {
        return None;
    }
    let id = Some(u32_at(cursor.data, 4)? >> 8);
    let layer = match u16::from_be_bytes([t0, t1]) {
        0x6558 => Layer::Ethernet,
        kind => Layer::EtherType(kind),
    };
    Some(Inside { kind: TunnelKind::Geneve, id, layer, cursor: behind(cursor, 8 + options)? })
}

/// Labels that are looked through for the last.
const MAX_LABELS: usize = 16;

/// Labels, of which the last says whose packet it is. Both directions have their own.
fn mpls(cursor: Cursor<'_>, kind: TunnelKind) -> Option<Inside<'_>> {
    let last = (0..MAX_LABELS).map_while(|number| u32_at(cursor.data, 4 * number)).find(|label| label & 0x100 != 0)?;
    Some(Inside { kind, id: Some(last >> 12), layer: Layer::Mpls, cursor })
}

/// A version of 3, and twelve bits that are zero.
fn etherip(cursor: Cursor<'_>) -> Option<Inside<'_>> {
    if u16_at(cursor.data, 0)? != 0x3000 {
        return None;
    }
    Some(Inside { kind: TunnelKind::EtherIp, id: None, layer: Layer::Ethernet, cursor: behind(cursor, 2)? })
}

/// A data message: the length, numbers and padding that flags announce, tunnel and session, of which the latter is the id.
fn l2tp(cursor: Cursor<'_>) -> Option<Inside<'_>> {
    const CONTROL: u16 = 0x8000;
    const LENGTH: u16 = 0x4000;
    const SEQUENCE: u16 = 0x0800;
    const OFFSET: u16 = 0x0200;
    let flags = u16_at(cursor.data, 0)?;
    if flags & CONTROL != 0 || flags & 0x000f != 2 {
        return None;
    }
    let optional = |bit: u16, len: usize| if flags & bit == 0 { 0 } else { len };
    let ids = 2 + optional(LENGTH, 2);
    let session = u16_at(cursor.data, ids + 2)?;
    let mut header = ids + 4 + optional(SEQUENCE, 4);
    if flags & OFFSET != 0 {
        header += 2 + usize::from(u16_at(cursor.data, header)?);
    }
    let id = Some(u32::from(session));
    Some(Inside { kind: TunnelKind::L2tp, id, layer: Layer::Ppp, cursor: behind(cursor, header)? })
}

/// Lengths of identity and signature, what is to be done with the packet (it is to be forwarded), and its protocol.
fn ayiya(cursor: Cursor<'_>) -> Option<Inside<'_>> {
    let [identity, signature, operation, protocol] = *cursor.data.first_chunk::<4>()?;
    if operation & 0x0f != 1 || !matches!(protocol, 4 | 41) {
        return None;
    }
    let header = 8 + (1 << (identity >> 4)) + usize::from(signature >> 4) * 4;
    Some(Inside { kind: TunnelKind::Ayiya, id: None, layer: Layer::Ip, cursor: behind(cursor, header)? })
}

/// Version and type; length of the header in units of four bytes, radio, binding; flags; and the place in a packet that is
/// divided. What is not a frame of 802.11 is one of Ethernet.
fn capwap(cursor: Cursor<'_>) -> Option<Inside<'_>> {
    const NATIVE: u8 = 0x01;
    const KEEP_ALIVE: u8 = 0x08;
    let [first, len, binding, flags, _, _, o0, o1] = *cursor.data.first_chunk::<8>()?;
    if first != 0 || flags & KEEP_ALIVE != 0 || u16::from_be_bytes([o0, o1]) >> 3 != 0 {
        return None;
    }
    let layer = match (binding & NATIVE, (binding >> 1) & 0x1f) {
        (0, _) => Layer::Ethernet,
        (_, 1) => Layer::WlanInCapwap,
        (_, _) => return None,
    };
    let header = usize::from(len >> 3) * 4;
    Some(Inside { kind: TunnelKind::Capwap, id: None, layer, cursor: behind(cursor, header)? })
}

/// Flags, of which one says that there is an instance in the second word.
fn lisp(cursor: Cursor<'_>) -> Option<Inside<'_>> {
    const INSTANCE: u8 = 0x08;
    let id = if cursor.data.first()? & INSTANCE == 0 { None } else { Some(u32_at(cursor.data, 4)? >> 8) };
    Some(Inside { kind: TunnelKind::Lisp, id, layer: Layer::Ip, cursor: behind(cursor, 8)? })
}

/// Tags of TZSP that are followed.
const MAX_TAGS: usize = 32;

/// Length of a header of TZSP, and what follows: version 1, a packet that was received or is to be sent, its kind, tags.
pub(super) fn tazmen(cursor: Cursor<'_>) -> Option<(usize, Layer)> {
    let layer = match cursor.data.first_chunk::<4>()? {
        [1, 0 | 1, 0, 1] => Layer::Ethernet,
        [1, 0 | 1, 0, 18] => Layer::Wlan,
        _ => return None,
    };
    let mut at = 4;
    for _ in 0..MAX_TAGS {
        match cursor.data.get(at)? {
            0 => at += 1,
            1 => return Some((at + 1, layer)),
            _ => at += 2 + usize::from(*cursor.data.get(at + 1)?),
        }
    }
    None
}

/// A register of version 2 that has the packet of a source, and is not only a sign of life.
fn pim(cursor: Cursor<'_>) -> Option<Inside<'_>> {
    const NULL: u32 = 0x4000_0000;
    if *cursor.data.first()? != 0x21 || u32_at(cursor.data, 4)? & NULL != 0 {
        return None;
    }
    Some(Inside { kind: TunnelKind::Pim, id: None, layer: Layer::Ip, cursor: behind(cursor, 8)? })
}

/// Extension headers of GTP-U that are followed.
const MAX_GTP_EXTENSIONS: usize = 8;

/// A G-PDU of version 1.
fn gtpu(cursor: Cursor<'_>) -> Option<Inside<'_>> {
    let [flags, message] = *cursor.data.first_chunk::<2>()?;
    if flags & 0xf0 != 0x30 || message != 0xff {
        return None;
    }
    let teid = u32_at(cursor.data, 4)?;
    let mut header = 8;
    if flags & 0x07 != 0 {
        // Sequence number, N-PDU number and next extension are there together.
        let mut next = *cursor.data.get(11)?;
        header = 12;
        for _ in 0..MAX_GTP_EXTENSIONS {
            if flags & 0x04 == 0 || next == 0 {
                break;
            }
            let units = usize::from(*cursor.data.get(header)?).max(1);
            header += units * 4;
            next = *cursor.data.get(header - 1)?;
        }
    }
    let cursor = behind(cursor, header)?;
    // What it carries is agreed on elsewhere: IP, or in 5G Ethernet.
    let layer = ip_or_ethernet(&cursor).unwrap_or(Layer::Ethernet);
    Some(Inside { kind: TunnelKind::Gtpu, id: Some(teid), layer, cursor })
}

/// IPv6 in UDP, after an authentication header and an origin indication if there are any. Addresses and length must fit:
/// there may be Teredo on any port.
#[inline(never)]
fn teredo(mut cursor: Cursor<'_>) -> Option<Inside<'_>> {
    if cursor.data.starts_with(&[0, 1]) {
        let [_, _, client, value] = *cursor.data.first_chunk::<4>()?;
        cursor = behind(cursor, 4 + usize::from(client) + usize::from(value) + 9)?;
    }
    if cursor.data.starts_with(&[0, 0]) {
        cursor = behind(cursor, 8)?;
    }
    let header = cursor.data.first_chunk::<40>()?;
    let fits = u32::from(u16_at(header, 4)?) + 40 == cursor.on_wire;
    let is_teredo = |at: usize| header.get(at..).is_some_and(|address| address.starts_with(&[0x20, 0x01, 0, 0]));
    let is_local = header.get(8..10).is_some_and(|source| source == [0xfe, 0x80]);
    if header[0] >> 4 != 6 || !fits || !(is_teredo(8) || is_teredo(24) || is_local) {
        return None;
    }
    Some(Inside { kind: TunnelKind::Teredo, id: None, layer: Layer::Ip, cursor })
}

vocabulary! {
    /// An encryption that hides what a packet carries, as in the column `app`.
    pub Sealed {
        /// ESP (RFC 4303), by its protocol number or in UDP (RFC 3948).
        Esp = "esp",
        /// WireGuard, on any port.
        Wireguard = "wireguard",
    }
}

/// Whether a flow that begins with this packet is sealed.
pub fn sealed(decoded: &Decoded<'_>) -> Option<Sealed> {
    match (decoded.protocol, &decoded.transport) {
        (Protocol::ESP, _) => Some(Sealed::Esp),
        (Protocol::UDP, Transport::Udp { payload, payload_len }) => match (decoded.src_port?, decoded.dst_port?) {
            // ESP in UDP (RFC 3948): anything but a zero marker (IKE) or a single byte (keep-alive).
            (4500, _) | (_, 4500) => (*payload_len >= 8 && u32_at(payload, 0)? != 0).then_some(Sealed::Esp),
            _ => is_wireguard(payload, *payload_len).then_some(Sealed::Wireguard),
        },
        _ => None,
    }
}

/// Types 1 to 3 have one length each, data is a multiple of 16; three reserved bytes are zero.
fn is_wireguard(payload: &[u8], len: u32) -> bool {
    match payload.first_chunk::<4>() {
        Some([1, 0, 0, 0]) => len == 148,
        Some([2, 0, 0, 0]) => len == 92,
        Some([3, 0, 0, 0]) => len == 64,
        Some([4, 0, 0, 0]) => len >= 32 && len.is_multiple_of(16),
        _ => false,
    }
}
