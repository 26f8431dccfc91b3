//! A packet in the making, and its bytes: Ethernet, IPv4, TCP or UDP, in VXLAN if asked. Checksums are right.

use super::truth::End;

/// Flag bits of the TCP header.
pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;

/// Addresses and ports of both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) addresses: [u32; 2],
    pub(crate) ports: [u16; 2],
}

/// Payload bytes.
#[derive(Debug, Clone)]
pub(crate) enum Payload {
    /// From the pool, at an offset.
    Pool(u32, u16),
    Bytes(Box<[u8]>),
}

impl Payload {
    pub(crate) const NONE: Self = Self::Pool(0, 0);

    pub(crate) fn len(&self) -> u32 {
        match self {
            Self::Pool(_, length) => u32::from(*length),
            Self::Bytes(bytes) => bytes.len() as u32,
        }
    }
}

/// What follows the IP header.
#[derive(Debug, Clone)]
pub(crate) enum Transport {
    Tcp {
        seq: u32,
        ack: u32,
        flags: u8,
        window: u16,
        /// Timestamp option: value and echo.
        stamps: (u32, u32),
    },
    Udp,
}

/// A packet that is to be captured at `time` (µs).
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) time: u64,
    pub(crate) ends: Ends,
    pub(crate) from: End,
    pub(crate) transport: Transport,
    pub(crate) payload: Payload,
}

impl Packet {
    fn transport_header(&self) -> u32 {
        match self.transport {
            // Options: MSS, SACK permitted, timestamps, window scale; later timestamps only.
            Transport::Tcp { flags, .. } if flags & SYN != 0 => 40,
            Transport::Tcp { .. } => 32,
            Transport::Udp => 8,
        }
    }

    /// Length of the IP packet.
    pub(crate) fn ip_bytes(&self) -> u32 {
        20 + self.transport_header() + self.payload.len()
    }
}

const POOL: usize = 1 << 20;

/// Greatest offset into the pool.
pub(crate) const POOL_OFFSETS: u32 = (POOL - 65_536) as u32;

/// Makes frames.
pub(crate) struct Framer {
    pool: Vec<u8>,
    ident: u16,
    vxlan: bool,
    buffer: Vec<u8>,
}

impl Framer {
    pub(crate) fn new(vxlan: bool, random: &mut super::random::Random) -> Self {
        // Half text, half random: it compresses about as a mix of HTTP and TLS does.
        let text =
            b"{\"name\":\"value\",\"count\":12345,\"status\":\"ok\"} content-type: application/json svc.cluster.local ";
        let pool = (0..POOL)
            .map(|at| if at >> 14 & 1 == 1 { random.next() as u8 } else { text[(at * 7 + (at >> 9)) % text.len()] });
        Self { pool: pool.collect(), ident: 0, vxlan, buffer: Vec::with_capacity(2048) }
    }

    /// The bytes of a packet, valid until the next call.
    pub(crate) fn frame(&mut self, packet: &Packet) -> &[u8] {
        let Packet { ends, from, .. } = packet;
        let (src, dst) = (*from as usize, from.other() as usize);
        self.buffer.clear();
        if self.vxlan {
            let inner = 14 + packet.ip_bytes();
            // Nodes are the /24 of the pods; the VNI is that of the server's network.
            let nodes = ends.addresses.map(|address| 0xc0a8_0000 | (address >> 8 & 0xff));
            let entropy = 0xc000 | (ends.ports[0] ^ ends.ports[1]) & 0x3fff;
            self.link(nodes[src], nodes[dst]);
            self.ip(17, 16 + inner, nodes[src], nodes[dst]);
            for field in [entropy, 4789, (16 + inner) as u16, 0, 0x0800, 0] {
                self.buffer.extend(field.to_be_bytes());
            }
            self.buffer.extend(((100 + (ends.addresses[1] & 0xf)) << 8).to_be_bytes());
        }
        self.link(ends.addresses[src], ends.addresses[dst]);
        self.ip(
            if matches!(packet.transport, Transport::Udp) { 17 } else { 6 },
            packet.ip_bytes() - 20,
            ends.addresses[src],
            ends.addresses[dst],
        );
        self.transport(packet);
        &self.buffer
    }

    fn link(&mut self, src: u32, dst: u32) {
        for address in [dst, src] {
            self.buffer.extend([2, 0x42]);
            self.buffer.extend(address.to_be_bytes());
        }
        self.buffer.extend([8, 0]);
    }

    fn ip(&mut self, protocol: u8, length: u32, src: u32, dst: u32) {
        let mut header = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        self.ident = self.ident.wrapping_add(1);
        header[2..4].copy_from_slice(&((20 + length) as u16).to_be_bytes());
        header[4..6].copy_from_slice(&self.ident.to_be_bytes());
        header[12..16].copy_from_slice(&src.to_be_bytes());
        header[16..20].copy_from_slice(&dst.to_be_bytes());
        let sum = finish(sum(&header));
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        self.buffer.extend(header);
    }

    fn transport(&mut self, packet: &Packet) {
        let Packet { ends, from, payload, .. } = packet;
        let at = self.buffer.len();
        self.buffer.extend(ends.ports[*from as usize].to_be_bytes());
        self.buffer.extend(ends.ports[from.other() as usize].to_be_bytes());
        let length = packet.ip_bytes() - 20;
        let (protocol, sum_at) = match packet.transport {
            Transport::Tcp { seq, ack, flags, window, stamps } => {
                self.buffer.extend(seq.to_be_bytes());
                self.buffer.extend(ack.to_be_bytes());
                self.buffer.extend([(packet.transport_header() << 2) as u8, flags]);
                self.buffer.extend(window.to_be_bytes());
                self.buffer.extend([0; 4]);
                self.buffer.extend(if flags & SYN != 0 { &[2, 4, 5, 0xb4, 4, 2, 8, 10][..] } else { &[1, 1, 8, 10] });
                self.buffer.extend(stamps.0.to_be_bytes());
                self.buffer.extend(stamps.1.to_be_bytes());
                if flags & SYN != 0 {
                    self.buffer.extend([1, 3, 3, 7]);
                }
                (6, at + 16)
            }
            Transport::Udp => {
                self.buffer.extend((length as u16).to_be_bytes());
                self.buffer.extend([0, 0]);
                (17, at + 6)
            }
        };
        match payload {
            Payload::Pool(from, length) => {
                let from = *from as usize;
                self.buffer.extend_from_slice(&self.pool[from..from + usize::from(*length)]);
            }
            Payload::Bytes(bytes) => self.buffer.extend_from_slice(bytes),
        }
        let addresses = ends.addresses.iter().map(|address| u64::from(address >> 16) + u64::from(address & 0xffff));
        let pseudo = addresses.sum::<u64>() + protocol + u64::from(length);
        let sum = finish(pseudo + sum(&self.buffer[at..]));
        let sum = if sum == 0 && protocol == 17 { 0xffff } else { sum };
        self.buffer[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Sum of big-endian 16-bit words, RFC 1071.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(2);
    let rest = words.remainder().first().map_or(0, |byte| u64::from(*byte) << 8);
    words.map(|word| u64::from(u16::from_be_bytes([word[0], word[1]]))).sum::<u64>() + rest
}

fn finish(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
