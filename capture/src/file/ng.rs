//! pcapng (draft-ietf-opsawg-pcapng): several sections and interfaces; unknown blocks are skipped.
//!
//! Interfaces are numbered through all sections of the file, so that a number always means one interface.

use super::input::Input;
use super::{FileError, FileInterface, MAX_BLOCK};
use crate::packet::{Direction, LinkType, Packet};

/// Type of the section header block, the same in both byte orders.
pub(super) const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
const INTERFACE_DESCRIPTION: u32 = 1;
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
/// Interfaces of one file; more are refused, so that a file of nothing else cannot fill the memory.
const MAX_INTERFACES: usize = 1 << 16;

/// State of the section that is being read.
#[derive(Default)]
pub(super) struct Ng {
    big_endian: bool,
    /// Number of the section's first interface.
    first_interface: usize,
    clocks: Vec<Clock>,
    failed: bool,
}

/// `if_tsresol` and `if_tsoffset` of an interface.
#[derive(Clone, Copy)]
struct Clock {
    units_per_second: u64,
    offset_seconds: i64,
}

impl Clock {
    /// A timestamp as nanoseconds since the epoch; saturates where it does not fit.
    fn nanoseconds(self, time: u64) -> i64 {
        let seconds = i128::from(time / self.units_per_second) + i128::from(self.offset_seconds);
        let fraction = u128::from(time % self.units_per_second) * 1_000_000_000 / u128::from(self.units_per_second);
        i64::try_from(seconds * 1_000_000_000 + fraction.cast_signed()).unwrap_or(i64::MAX)
    }
}

/// Where the bytes of a packet are in its block.
struct Found {
    interface: usize,
    time: i64,
    from: usize,
    captured: usize,
    wire_len: u32,
    direction: Option<Direction>,
}

impl Ng {
    /// Reads the header of the first section, so that a file without a whole one is refused at once.
    pub(super) fn first_section(&mut self, input: &mut Input) -> Result<(), FileError> {
        let len = self.block_len(input)?.ok_or_else(|| input.truncated())?;
        self.section(input, len, 0)?;
        input.take(len);
        Ok(())
    }

    pub(super) fn next<'a>(
        &mut self,
        input: &'a mut Input,
        interfaces: &mut Vec<FileInterface>,
    ) -> Result<Option<Packet<'a>>, FileError> {
        if self.failed {
            return Ok(None);
        }
        self.failed = true;
        let (found, len) = loop {
            let Some(len) = self.block_len(input)? else {
                self.failed = false;
                return Ok(None);
            };
            if let Some(found) = self.block(input, len, interfaces)? {
                break (found, len);
            }
            input.take(len);
        };
        self.failed = false;
        let link_type = interfaces.get(found.interface).map_or(LinkType(u16::MAX), |interface| interface.link_type);
        let block = input.take(len);
        Ok(Some(Packet {
            time: found.time,
            data: block.get(found.from..found.from + found.captured).unwrap_or_default(),
            wire_len: found.wire_len.max(found.captured as u32),
            link_type,
            interface: u32::try_from(found.interface).unwrap_or(u32::MAX),
            direction: found.direction,
            vlan: None,
        }))
    }

    /// Length of the next block, which is then wholly in the buffer; `None` at the end of the file.
    fn block_len(&mut self, input: &mut Input) -> Result<Option<usize>, FileError> {
        if input.is_at_end()? {
            return Ok(None);
        }
        let Some(head) = input.need(12)?.and_then(|head| head.first_chunk::<12>()).copied() else {
            return Err(input.truncated());
        };
        if head.starts_with(&SECTION_HEADER) {
            // The byte order of a section is the one of its magic number.
            self.big_endian = match head.last_chunk::<4>() {
                Some([0x1a, 0x2b, 0x3c, 0x4d]) => true,
                Some([0x4d, 0x3c, 0x2b, 0x1a]) => false,
                _ => return Err(input.malformed("a section header without its magic number")),
            };
        }
        let len = self.u32(&head, 4) as usize;
        if !(12..=MAX_BLOCK).contains(&len) || !len.is_multiple_of(4) {
            return Err(input.malformed("a block whose length cannot be"));
        }
        let Some(block) = input.need(len)? else { return Err(input.truncated()) };
        if self.u32(block, len - 4) as usize != len {
            return Err(input.malformed("a block whose two lengths differ"));
        }
        Ok(Some(len))
    }

    /// Reads a block; gives what is a packet.
    fn block(
        &mut self,
        input: &mut Input,
        len: usize,
        interfaces: &mut Vec<FileInterface>,
    ) -> Result<Option<Found>, FileError> {
        let kind = {
            let block = input.need(len)?.unwrap_or_default();
            if block.starts_with(&SECTION_HEADER) { None } else { Some(self.u32(block, 0)) }
        };
        let Some(kind) = kind else {
            self.section(input, len, interfaces.len())?;
            return Ok(None);
        };
        if kind == INTERFACE_DESCRIPTION {
            if interfaces.len() >= MAX_INTERFACES {
                return Err(input.malformed("more than 65536 interfaces"));
            }
            let block = input.need(len)?.unwrap_or_default();
            let Some((interface, clock)) = self.interface(block) else {
                return Err(input.malformed("an interface description that is too short"));
            };
            interfaces.push(interface);
            self.clocks.push(clock);
            return Ok(None);
        }
        if !matches!(kind, PACKET | SIMPLE_PACKET | ENHANCED_PACKET) {
            return Ok(None);
        }
        let block = input.need(len)?.unwrap_or_default();
        match self.packet(kind, block, interfaces) {
            Ok(found) => Ok(Some(found)),
            Err(what) => Err(input.malformed(what)),
        }
    }

    fn section(&mut self, input: &mut Input, len: usize, first_interface: usize) -> Result<(), FileError> {
        let version = input.need(len)?.and_then(|block| block.get(12..14)).map(<[u8]>::to_vec);
        let major = version.as_deref().and_then(|v| v.first_chunk::<2>()).copied().unwrap_or_default();
        let major = if self.big_endian { u16::from_be_bytes(major) } else { u16::from_le_bytes(major) };
        if len < 28 || major != 1 {
            return Err(input.malformed("a section of an unknown version"));
        }
        self.first_interface = first_interface;
        self.clocks.clear();
        Ok(())
    }

    fn interface(&self, block: &[u8]) -> Option<(FileInterface, Clock)> {
        let link_type = LinkType(self.u16(block.get(..20)?, 8));
        let snap_len = self.u32(block, 12);
        let mut interface = FileInterface { name: None, description: None, link_type, snap_len };
        let mut clock = Clock { units_per_second: 1_000_000, offset_seconds: 0 };
        for (code, value) in self.options(block, 16) {
            match code {
                2 => interface.name = Some(text(value)),
                3 => interface.description = Some(text(value)),
                9 => clock.units_per_second = resolution(value.first().copied().unwrap_or(6)),
                14 => clock.offset_seconds = value.first_chunk::<8>().map_or(0, |bytes| self.i64(*bytes)),
                _ => {}
            }
        }
        Some((interface, clock))
    }

    fn packet(&self, kind: u32, block: &[u8], interfaces: &[FileInterface]) -> Result<Found, &'static str> {
        const CUT: &str = "a packet block that is shorter than its packet";
        let room = block.len() - 4;
        let (local, from, captured, wire_len) = match kind {
            SIMPLE_PACKET if room >= 12 => {
                let wire_len = self.u32(block, 8);
                let snap_len = interfaces.get(self.first_interface).map_or(0, |interface| interface.snap_len);
                let limit = if snap_len == 0 { u32::MAX } else { snap_len };
                (0, 12, (wire_len.min(limit) as usize).min(room - 12), wire_len)
            }
            PACKET if room >= 28 => {
                (usize::from(self.u16(block, 8)), 28, self.u32(block, 20) as usize, self.u32(block, 24))
            }
            ENHANCED_PACKET if room >= 28 => {
                (self.u32(block, 8) as usize, 28, self.u32(block, 20) as usize, self.u32(block, 24))
            }
            _ => return Err(CUT),
        };
        if captured > room - from {
            return Err(CUT);
        }
        let clock = self.clocks.get(local).ok_or("a packet of an interface that is not described")?;
        // Simple packets have no time.
        let time = if kind == SIMPLE_PACKET {
            0
        } else {
            clock.nanoseconds(u64::from(self.u32(block, 12)) << 32 | u64::from(self.u32(block, 16)))
        };
        let options = if kind == ENHANCED_PACKET { from + captured.next_multiple_of(4) } else { block.len() };
        let flags = self.options(block, options).find(|(code, _)| *code == 2);
        let direction = flags.and_then(|(_, value)| match self.u32(value, 0) & 3 {
            1 => Some(Direction::Ingress),
            2 => Some(Direction::Egress),
            _ => None,
        });
        Ok(Found { interface: self.first_interface + local, time, from, captured, wire_len, direction })
    }

    /// Options from `at` to the end of the block, as far as they are whole.
    fn options<'a>(&self, block: &'a [u8], mut at: usize) -> impl Iterator<Item = (u16, &'a [u8])> {
        let big_endian = self.big_endian;
        let end = block.len().saturating_sub(4);
        std::iter::from_fn(move || {
            let head = block.get(at..end)?.first_chunk::<4>()?;
            let [code, len] = [[head[0], head[1]], [head[2], head[3]]]
                .map(|bytes| if big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) });
            let value = block.get(at + 4..end)?.get(..usize::from(len))?;
            at += 4 + usize::from(len).next_multiple_of(4);
            (code != 0).then_some((code, value))
        })
    }

    fn u16(&self, bytes: &[u8], at: usize) -> u16 {
        let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk::<2>()).copied().unwrap_or_default();
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn u32(&self, bytes: &[u8], at: usize) -> u32 {
        let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()).copied().unwrap_or_default();
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn i64(&self, bytes: [u8; 8]) -> i64 {
        if self.big_endian { i64::from_be_bytes(bytes) } else { i64::from_le_bytes(bytes) }
    }
}

/// `if_tsresol`: a power of ten, or of two with the high bit; what does not fit 64 bits is read as nanoseconds.
fn resolution(value: u8) -> u64 {
    let exponent = u32::from(value & 0x7f);
    let base: u64 = if value & 0x80 == 0 { 10 } else { 2 };
    base.checked_pow(exponent).unwrap_or(1_000_000_000)
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}
