//! A packet as a source hands it on: bytes, time, and where it was seen.

/// Link-layer types that have a decoder, by their `LINKTYPE_` number (tcpdump.org/linktypes.html); others are carried
/// along so that they can be counted and stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkType(pub u16);

impl LinkType {
    /// BSD loopback, address family in host byte order.
    pub const NULL: Self = Self(0);
    /// Ethernet.
    pub const ETHERNET: Self = Self(1);
    /// Token ring (IEEE 802.5).
    pub const TOKEN_RING: Self = Self(6);
    /// ARCNET, as on BSD.
    pub const ARCNET: Self = Self(7);
    /// PPP, possibly without address and control.
    pub const PPP: Self = Self(9);
    /// FDDI.
    pub const FDDI: Self = Self(10);
    /// ATM with LLC (RFC 2684), its number on most BSDs.
    pub const ATM_BSD: Self = Self(11);
    /// Raw IP, its number on most BSDs.
    pub const RAW_BSD: Self = Self(12);
    /// Raw IP, its number on OpenBSD.
    pub const RAW_OPENBSD: Self = Self(14);
    /// OpenBSD's packet filter log before version 3.4.
    pub const PFLOG_OLD: Self = Self(17);
    /// PPP in HDLC-like framing.
    pub const PPP_SERIAL: Self = Self(50);
    /// PPPoE session.
    pub const PPP_ETHER: Self = Self(51);
    /// Symantec Enterprise Firewall.
    pub const SYMANTEC: Self = Self(99);
    /// ATM with LLC (RFC 2684).
    pub const ATM: Self = Self(100);
    /// Raw IP, version in the first nibble.
    pub const RAW: Self = Self(101);
    /// Cisco HDLC.
    pub const C_HDLC: Self = Self(104);
    /// 802.11, without anything about the radio.
    pub const IEEE802_11: Self = Self(105);
    /// Classical IP over ATM on Linux, without LLC.
    pub const ATM_CLIP: Self = Self(106);
    /// Frame Relay.
    pub const FRELAY: Self = Self(107);
    /// OpenBSD loopback, address family in network byte order.
    pub const LOOP: Self = Self(108);
    /// OpenBSD's and FreeBSD's `enc`: what IPsec carries.
    pub const ENC: Self = Self(109);
    /// Linux cooked capture, version 1.
    pub const LINUX_SLL: Self = Self(113);
    /// Packet filter log of OpenBSD and FreeBSD.
    pub const PFLOG: Self = Self(117);
    /// 802.11 after a header of Prism or AVS.
    pub const PRISM: Self = Self(119);
    /// IP over Fibre Channel (RFC 4338).
    pub const IP_OVER_FC: Self = Self(122);
    /// ATM, as Sun's adapters give it.
    pub const SUNATM: Self = Self(123);
    /// 802.11 after a radiotap header.
    pub const IEEE802_11_RADIO: Self = Self(127);
    /// TaZmen sniffer protocol.
    pub const TZSP: Self = Self(128);
    /// ARCNET, as on Linux.
    pub const ARCNET_LINUX: Self = Self(129);
    /// Juniper: several links of PPP.
    pub const JUNIPER_MLPPP: Self = Self(130);
    /// IP over IEEE 1394, as Apple's systems give it.
    pub const APPLE_IP_OVER_IEEE1394: Self = Self(138);
    /// 802.11 after a header of AVS.
    pub const AVS: Self = Self(163);
    /// PPP with the direction in place of the address.
    pub const PPP_PPPD: Self = Self(166);
    /// Juniper: PPPoE in Ethernet.
    pub const JUNIPER_PPPOE: Self = Self(167);
    /// Juniper: Ethernet.
    pub const JUNIPER_ETHER: Self = Self(178);
    /// Juniper: PPP.
    pub const JUNIPER_PPP: Self = Self(179);
    /// Juniper: Frame Relay.
    pub const JUNIPER_FRELAY: Self = Self(180);
    /// Juniper: Cisco HDLC.
    pub const JUNIPER_CHDLC: Self = Self(181);
    /// Per-packet information (PPI), and in it the link type.
    pub const PPI: Self = Self(192);
    /// Endace's extensible record format.
    pub const ERF: Self = Self(197);
    /// PPP after a byte with the direction.
    pub const PPP_WITH_DIR: Self = Self(204);
    /// Cisco HDLC after a byte with the direction.
    pub const C_HDLC_WITH_DIR: Self = Self(205);
    /// Frame Relay after a byte with the direction.
    pub const FRELAY_WITH_DIR: Self = Self(206);
    /// MPLS, label first.
    pub const MPLS: Self = Self(219);
    /// Solaris' IP observability.
    pub const IPNET: Self = Self(226);
    /// Raw IPv4.
    pub const IPV4: Self = Self(228);
    /// Raw IPv6.
    pub const IPV6: Self = Self(229);
    /// Netfilter log.
    pub const NFLOG: Self = Self(239);
    /// What Apple's systems tell of a packet, and in it the link type.
    pub const PKTAP: Self = Self(258);
    /// Ethernet with its preamble (IEEE 802.3br).
    pub const MPACKET: Self = Self(274);
    /// Linux cooked capture, version 2.
    pub const LINUX_SLL2: Self = Self(276);
    /// Ethernet with Broadcom's switch tag behind the addresses.
    pub const DSA_TAG_BRCM: Self = Self(281);
    /// Ethernet with Broadcom's switch tag before the addresses.
    pub const DSA_TAG_BRCM_PREPEND: Self = Self(282);
    /// Ethernet with Marvell's switch tag.
    pub const DSA_TAG_DSA: Self = Self(283);
    /// Ethernet with Marvell's switch tag behind a type.
    pub const DSA_TAG_EDSA: Self = Self(284);
}

/// Direction of a packet on the interface where it was captured, as the kernel of that interface's namespace sees it.
///
/// On the host's end of a veth pair, what the container sends is `Ingress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Received on the interface.
    Ingress,
    /// Sent out of the interface.
    Egress,
}

/// One captured packet, borrowed from the source's buffer.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// Nanoseconds since the Unix epoch, UTC.
    pub time: i64,
    /// Captured bytes, possibly fewer than `wire_len`.
    pub data: &'a [u8],
    /// Length on the wire in bytes.
    pub wire_len: u32,
    /// Link-layer type of `data`.
    pub link_type: LinkType,
    /// Observation point: for a file the interface's number in the file, live the interface index in its network
    /// namespace.
    pub interface: u32,
    /// Direction, where the source knows it.
    pub direction: Option<Direction>,
    /// VLAN tag that the kernel took out of the frame, with its TPID: `(tpid, tci)`.
    pub vlan: Option<(u16, u16)>,
}

impl Packet<'_> {
    /// Whether its IP packet cannot be longer than `wire_len` says: whoever knows its direction saw it pass. Of other files, tools may have cut
    /// the lengths together with the packets.
    pub(crate) const fn was_seen(&self) -> bool {
        self.direction.is_some()
    }
}

/// A packet with its own bytes, for queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedPacket {
    /// See [`Packet::time`].
    pub time: i64,
    /// See [`Packet::data`].
    pub data: Box<[u8]>,
    /// See [`Packet::wire_len`].
    pub wire_len: u32,
    /// See [`Packet::link_type`].
    pub link_type: LinkType,
    /// See [`Packet::interface`].
    pub interface: u32,
    /// See [`Packet::direction`].
    pub direction: Option<Direction>,
    /// See [`Packet::vlan`].
    pub vlan: Option<(u16, u16)>,
}

impl OwnedPacket {
    /// The borrowed view that decoders take.
    pub fn view(&self) -> Packet<'_> {
        Packet {
            time: self.time,
            data: &self.data,
            wire_len: self.wire_len,
            link_type: self.link_type,
            interface: self.interface,
            direction: self.direction,
            vlan: self.vlan,
        }
    }
}
