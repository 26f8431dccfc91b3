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
    /// Whether a record's two lengths may have changed places, as before version 2.4.
    swapped: bool,
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
        let mut classic = Self { big_endian, unit, header_len, swapped: false, link_type: LinkType(0) };
        // The upper half holds the length of the frame check sequence.
        classic.link_type = LinkType(classic.u32(&header, 20) as u16);
        classic.of_version(classic.u16(&header, 4), classic.u16(&header, 6));
        let interface = FileInterface {
            name: None,
            description: None,
            link_type: classic.link_type,
            snap_len: classic.u32(&header, 16),
        };
        input.take(24);
        Ok((classic, interface))
    }

    /// Before version 2.4 the lengths were the other way round; but 2.2 with a link type that is a kind of interface (RFC 2863) is
    /// AIX', whose fractions are nanoseconds.
    fn of_version(&mut self, major: u16, minor: u16) {
        let of_aix = match self.link_type.0 {
            6 => Some(LinkType::ETHERNET),
            9 => Some(LinkType::TOKEN_RING),
            15 => Some(LinkType::FDDI),
            24 => Some(LinkType::NULL),
            _ => None,
        };
        match (major, minor, of_aix) {
            (2, 2, Some(link_type)) => (self.link_type, self.unit) = (link_type, 1),
            (2, ..=3, _) => self.swapped = true,
            (_, _, _) => {}
        }
    }

    fn u16(&self, bytes: &[u8], at: usize) -> u16 {
        let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk::<2>()).copied().unwrap_or_default();
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
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
        let mut captured = self.u32(header, 8);
        let mut wire_len = self.u32(header, 12);
        if self.swapped && captured > wire_len {
            (captured, wire_len) = (wire_len, captured);
        }
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
            wire_len: wire_len.max(captured),
            link_type: self.link_type,
            interface: 0,
            direction: None,
            vlan: None,
        };
        Step::Packet(packet, len)
    }
}

#[cfg(test)]
mod tests {
    use super::super::CaptureFile;
    use super::*;

    /// A file of this version and link type with one record: two lengths, four bytes.
    fn only(minor: u8, link_type: u8, lengths: [u8; 2]) -> (LinkType, i64, usize, u32) {
        let header = [0xa1, 0xb2, 0xc3, 0xd4, 0, 2, 0, minor, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, link_type];
        let record = [0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, lengths[0], 0, 0, 0, lengths[1], 1, 2, 3, 4];
        let bytes = [&header[..], &record].concat();
        let mut file = CaptureFile::new(Box::new(std::io::Cursor::new(bytes)), "test").unwrap();
        let packet = file.next_packet().unwrap().unwrap();
        (packet.link_type, packet.time, packet.data.len(), packet.wire_len)
    }

    #[test]
    fn before_version_2_4_lengths_may_have_changed_places() {
        let (ethernet, time) = (LinkType::ETHERNET, 1_000_007_000);
        assert_eq!(only(4, 1, [4, 9]), (ethernet, time, 4, 9));
        for minor in [1, 2, 3] {
            assert_eq!(only(minor, 1, [9, 4]), (ethernet, time, 4, 9));
            assert_eq!(only(minor, 1, [4, 9]), (ethernet, time, 4, 9));
        }
    }

    #[test]
    fn link_types_and_times_of_aix_are_its_own() {
        assert_eq!(only(2, 6, [4, 9]), (LinkType::ETHERNET, 1_000_000_007, 4, 9));
        assert_eq!(only(2, 15, [4, 9]), (LinkType::FDDI, 1_000_000_007, 4, 9));
        assert_eq!(only(4, 6, [4, 9]), (LinkType::TOKEN_RING, 1_000_007_000, 4, 9));
    }
}
