//! Classic pcap (draft-ietf-opsawg-pcap).

use super::input::Input;
use super::{FileError, FileInterface, Step};
use crate::packet::{LinkType, Packet};

/// Greatest record that is accepted; libpcap's limit.
const MAX_RECORD: u32 = 262_144;

/// Byte order, resolution and link type of a file.
pub(super) struct Classic {
    big_endian: bool,
    /// Nanoseconds of one unit of a record's fraction of a second.
    unit: i64,
    /// Bytes of a record's header; Kuznetzov's variant has 8 more.
    header_len: usize,
    link_type: LinkType,
}

impl Classic {
    /// Reads the file header.
    pub(super) fn start(input: &mut Input, magic: [u8; 4]) -> Result<(Self, FileInterface), FileError> {
        let (big_endian, unit, header_len) = match magic {
            [0xa1, 0xb2, 0xc3, 0xd4] => (true, 1_000, 16),
            [0xd4, 0xc3, 0xb2, 0xa1] => (false, 1_000, 16),
            [0xa1, 0xb2, 0x3c, 0x4d] => (true, 1, 16),
            [0x4d, 0x3c, 0xb2, 0xa1] => (false, 1, 16),
            [0xa1, 0xb2, 0xcd, 0x34] => (true, 1_000, 24),
            [0x34, 0xcd, 0xb2, 0xa1] => (false, 1_000, 24),
            _ => return Err(input.not_a_capture()),
        };
        input.need(24)?;
        let header = input.bytes().first_chunk::<24>().copied();
        let Some(header) = header else { return Err(input.truncated()) };
        let mut classic = Self { big_endian, unit, header_len, link_type: LinkType(0) };
        // The upper half holds the length of the frame check sequence.
        classic.link_type = LinkType(classic.u32(&header, 20) as u16);
        let interface = FileInterface {
            name: None,
            description: None,
            link_type: classic.link_type,
            snap_len: classic.u32(&header, 16),
        };
        input.take(24);
        Ok((classic, interface))
    }

    fn u32(&self, bytes: &[u8], at: usize) -> u32 {
        let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()).copied().unwrap_or_default();
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    /// What the bytes begin with.
    #[inline]
    pub(super) fn step<'a>(&self, bytes: &'a [u8]) -> Step<'a> {
        let header_len = self.header_len;
        let Some(header) = bytes.get(..header_len).and_then(|header| header.first_chunk::<16>()) else {
            return Step::Need(header_len);
        };
        let captured = self.u32(header, 8);
        if captured > MAX_RECORD {
            return Step::Malformed("a packet of more than 262144 bytes");
        }
        let len = header_len + captured as usize;
        let Some(data) = bytes.get(header_len..len) else { return Step::Need(len) };
        let seconds = i64::from(self.u32(header, 0));
        // A fraction of a second or more is garbage, and would carry the clock of every flow ahead of its packets.
        let fraction = (i64::from(self.u32(header, 4)) * self.unit).min(999_999_999);
        let packet = Packet {
            time: seconds * 1_000_000_000 + fraction,
            data,
            wire_len: self.u32(header, 12).max(captured),
            link_type: self.link_type,
            interface: 0,
            direction: None,
            vlan: None,
        };
        Step::Packet(packet, len)
    }
}
