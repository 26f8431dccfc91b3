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

/// Packets whose bytes share one allocation, for queues between threads; each with the id of its flow.
#[derive(Debug, Clone, Default)]
pub struct PacketBuffer {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// A packet of a buffer; its bytes end at `end` and begin where the one before ended.
#[derive(Debug, Clone, Copy)]
struct Entry {
    end: usize,
    time: i64,
    flow_id: Option<u64>,
    wire_len: u32,
    interface: u32,
    link_type: LinkType,
    direction: Option<Direction>,
    vlan: Option<(u16, u16)>,
}

impl PacketBuffer {
    /// Copies a packet to the end.
    pub fn push(&mut self, packet: &Packet<'_>, flow_id: Option<u64>) {
        self.bytes.extend_from_slice(packet.data);
        self.entries.push(Entry {
            end: self.bytes.len(),
            time: packet.time,
            flow_id,
            wire_len: packet.wire_len,
            interface: packet.interface,
            link_type: packet.link_type,
            direction: packet.direction,
            vlan: packet.vlan,
        });
    }

    /// The packets and their flows, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = (Packet<'_>, Option<u64>)> {
        let mut begin = 0;
        self.entries.iter().map(move |entry| {
            let data = self.bytes.get(begin..entry.end).unwrap_or_default();
            begin = entry.end;
            let Entry { time, flow_id, wire_len, interface, link_type, direction, vlan, .. } = *entry;
            (Packet { time, data, wire_len, link_type, interface, direction, vlan }, flow_id)
        })
    }

    /// Number of packets.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of all packets.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_gives_back_what_was_put_in() {
        let packet = |time, data: &'static [u8]| Packet {
            time,
            data,
            wire_len: 1500,
            link_type: LinkType::ETHERNET,
            interface: 7,
            direction: Some(Direction::Egress),
            vlan: Some((0x8100, 5)),
        };
        let mut buffer = PacketBuffer::default();
        let put = [(packet(1, b"one"), Some(9)), (packet(2, b""), None), (packet(3, b"three"), Some(8))];
        for (packet, flow) in &put {
            buffer.push(packet, *flow);
        }
        let got: Vec<_> = buffer.iter().collect();
        assert_eq!(format!("{got:?}"), format!("{put:?}"));
        assert_eq!((buffer.len(), buffer.byte_len()), (3, 8));
    }
}
