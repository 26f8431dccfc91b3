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
    /// PPP, possibly without address and control.
    pub const PPP: Self = Self(9);
    /// Raw IP, its number on most BSDs.
    pub const RAW_BSD: Self = Self(12);
    /// Raw IP, its number on OpenBSD.
    pub const RAW_OPENBSD: Self = Self(14);
    /// PPP in HDLC-like framing.
    pub const PPP_SERIAL: Self = Self(50);
    /// PPPoE session.
    pub const PPP_ETHER: Self = Self(51);
    /// 802.11, without anything about the radio.
    pub const IEEE802_11: Self = Self(105);
    /// 802.11 after a radiotap header.
    pub const IEEE802_11_RADIO: Self = Self(127);
    /// Per-packet information (PPI), and in it the link type.
    pub const PPI: Self = Self(192);
    /// What Apple's systems tell of a packet, and in it the link type.
    pub const PKTAP: Self = Self(258);
    /// Raw IP, version in the first nibble.
    pub const RAW: Self = Self(101);
    /// Cisco HDLC.
    pub const C_HDLC: Self = Self(104);
    /// OpenBSD loopback, address family in network byte order.
    pub const LOOP: Self = Self(108);
    /// Linux cooked capture, version 1.
    pub const LINUX_SLL: Self = Self(113);
    /// MPLS, label first.
    pub const MPLS: Self = Self(219);
    /// Raw IPv4.
    pub const IPV4: Self = Self(228);
    /// Raw IPv6.
    pub const IPV6: Self = Self(229);
    /// Netfilter log.
    pub const NFLOG: Self = Self(239);
    /// Linux cooked capture, version 2.
    pub const LINUX_SLL2: Self = Self(276);
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
