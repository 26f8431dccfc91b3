//! Packets on their way to the packet log, already as they are stored: pcapng's enhanced packet blocks, one after another
//! in one allocation. They are copied once, out of the ring; what comes after only compresses and writes.
//!
//! Interfaces are numbered by the buffer, from 0 in the order of their first packets; who stores the blocks puts the
//! numbers of its section in their place ([`PacketBuffer::renumber`]).

use foldhash::HashMap;

use crate::packet::{LinkType, Packet};
use crate::pcapng;

/// Where the number of the interface is in an enhanced packet block.
const INTERFACE: usize = 8;

/// See the module documentation. Each packet has the id of its flow beside it.
#[derive(Debug, Clone, Default)]
pub struct PacketBuffer {
    blocks: Vec<u8>,
    flows: Vec<Option<u64>>,
    interfaces: Vec<(u32, LinkType)>,
    numbers: HashMap<(u32, LinkType), u32>,
    /// The interface of the packet before and its number: mostly that of the next one too.
    latest: Option<((u32, LinkType), u32)>,
    first: i64,
    last: i64,
}

impl PacketBuffer {
    /// An empty buffer with room for packets of about `bytes`.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { blocks: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Copies a packet to the end.
    pub fn push(&mut self, packet: &Packet<'_>, flow_id: Option<u64>) {
        let number = self.number((packet.interface, packet.link_type));
        pcapng::enhanced_packet(&mut self.blocks, number, packet, None);
        let only = self.flows.is_empty();
        self.first = if only { packet.time } else { self.first.min(packet.time) };
        self.last = if only { packet.time } else { self.last.max(packet.time) };
        self.flows.push(flow_id);
    }

    fn number(&mut self, interface: (u32, LinkType)) -> u32 {
        if let Some((latest, number)) = self.latest
            && latest == interface
        {
            return number;
        }
        let next = self.interfaces.len() as u32;
        let number = *self.numbers.entry(interface).or_insert_with(|| {
            self.interfaces.push(interface);
            next
        });
        self.latest = Some((interface, number));
        number
    }

    /// The enhanced packet blocks.
    pub fn blocks(&self) -> &[u8] {
        &self.blocks
    }

    /// The flow of each packet.
    pub fn flows(&self) -> &[Option<u64>] {
        &self.flows
    }

    /// Index and link type of each interface, by its number in the blocks.
    pub fn interfaces(&self) -> &[(u32, LinkType)] {
        &self.interfaces
    }

    /// Times of the earliest and the latest packet.
    pub fn span(&self) -> (i64, i64) {
        (self.first, self.last)
    }

    /// Number of packets.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Gives interface number `n` of the blocks the number `numbers[n]`; once, when no packet is added any more.
    pub fn renumber(&mut self, numbers: &[u32]) {
        if numbers.iter().enumerate().all(|(at, number)| at == *number as usize) {
            return;
        }
        let mut rest = self.blocks.as_mut_slice();
        while let Some(length) = pcapng::block_length(rest) {
            let Some((block, behind)) = std::mem::take(&mut rest).split_at_mut_checked(length) else { return };
            if let Some(field) = block.get_mut(INTERFACE..).and_then(<[u8]>::first_chunk_mut::<4>)
                && let Some(number) = numbers.get(u32::from_le_bytes(*field) as usize)
            {
                *field = number.to_le_bytes();
            }
            rest = behind;
        }
    }

    /// Empties it, and keeps its memory for packets to come.
    pub fn clear(&mut self) {
        self.blocks.clear();
        self.flows.clear();
        self.interfaces.clear();
        self.numbers.clear();
        self.latest = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::CaptureFile;
    use crate::packet::Direction;

    fn packet(time: i64, interface: u32, data: &'static [u8]) -> Packet<'static> {
        let (link_type, direction) = (LinkType::ETHERNET, Some(Direction::Egress));
        Packet { time, data, wire_len: 1500, link_type, interface, direction, vlan: Some((0x8100, 5)) }
    }

    /// Behind a section header and descriptions of its interfaces the blocks are a file.
    fn read(buffer: &PacketBuffer, interfaces: usize) -> Vec<(i64, u32, Vec<u8>)> {
        let mut file = Vec::new();
        pcapng::section_header(&mut file, "test");
        for _ in 0..interfaces {
            let block =
                pcapng::InterfaceBlock { name: "eth0", description: None, link_type: LinkType::ETHERNET, snap_len: 0 };
            pcapng::interface_description(&mut file, &block);
        }
        file.extend(buffer.blocks());
        let mut file = CaptureFile::new(Box::new(std::io::Cursor::new(file)), "buffer").unwrap();
        let mut found = Vec::new();
        while let Some(packet) = file.next_packet().unwrap() {
            found.push((packet.time, packet.interface, packet.data.to_vec()));
        }
        found
    }

    #[test]
    fn a_buffer_is_a_piece_of_a_capture_file() {
        let mut buffer = PacketBuffer::default();
        buffer.push(&packet(3, 70, b"one"), Some(9));
        buffer.push(&packet(1, 71, b""), None);
        buffer.push(&packet(2, 70, b"a frame with a tag"), Some(8));
        let tagged = b"a frame with\x81\x00\x00\x05 a tag".to_vec();
        assert_eq!(read(&buffer, 2), [(3, 0, b"one".to_vec()), (1, 1, vec![]), (2, 0, tagged.clone())]);
        assert_eq!((buffer.flows(), buffer.span()), (&[Some(9), None, Some(8)][..], (1, 3)));
        assert_eq!(buffer.interfaces(), [(70, LinkType::ETHERNET), (71, LinkType::ETHERNET)]);
        buffer.renumber(&[4, 0]);
        assert_eq!(read(&buffer, 5), [(3, 4, b"one".to_vec()), (1, 0, vec![]), (2, 4, tagged)]);
    }

    #[test]
    fn a_buffer_that_was_emptied_is_as_new() {
        let mut buffer = PacketBuffer::default();
        buffer.push(&packet(1, 70, b"one"), Some(9));
        buffer.clear();
        assert!(buffer.is_empty() && buffer.blocks().is_empty());
        buffer.push(&packet(5, 71, b"two"), None);
        assert_eq!(read(&buffer, 1), [(5, 0, b"two".to_vec())]);
        assert_eq!((buffer.interfaces(), buffer.span()), (&[(71, LinkType::ETHERNET)][..], (5, 5)));
    }
}
