//! pcapng (draft-ietf-opsawg-pcapng): several sections and interfaces; unknown blocks are skipped.
//!
//! Interfaces are numbered through all sections of the file, so that a number always means one interface. Files that were
//! joined describe theirs again in each section: one with the name, description and link type of an earlier section's has
//! that one's number, the second of a kind that of the second. Of names and descriptions [`MAX_TEXT`] bytes are kept.
//!
//! Simple packets have no time: they have that of the packet before, or 0 where no packet with a time came before.

use std::collections::HashMap;

use super::input::Input;
use super::{FileError, FileInterface, MAX_BLOCK, Step};
use crate::packet::{Direction, LinkType, Packet};

/// Type of the section header block, the same in both byte orders.
pub(super) const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
const INTERFACE_DESCRIPTION: u32 = 1;
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
/// Interfaces of one file; more are refused, so that a file of nothing else cannot fill the memory.
const MAX_INTERFACES: usize = 1 << 16;
/// Bytes of an interface's name or description.
const MAX_TEXT: usize = 256;

/// The section that is being read, and what is known of those before.
#[derive(Default)]
pub(super) struct Ng {
    big_endian: bool,
    /// Which section it is.
    section: u64,
    /// Its interfaces.
    locals: Vec<Local>,
    /// Numbers of interfaces by name, description and link type.
    known: HashMap<(Option<String>, Option<String>, LinkType), Alike>,
    /// Time of the last packet that had one.
    time: i64,
    pub(super) untimed: bool,
}

/// An interface of the section.
struct Local {
    /// Number in the file.
    number: usize,
    snap_len: u32,
    clock: Clock,
}

/// Interfaces that are described alike.
#[derive(Default)]
struct Alike {
    numbers: Vec<usize>,
    /// How many this section has described.
    described: usize,
    section: u64,
}

/// `if_tsresol` and `if_tsoffset` of an interface.
#[derive(Clone, Copy)]
struct Clock {
    units_per_second: u64,
    offset_seconds: i64,
}

impl Clock {
    /// A timestamp as nanoseconds since the epoch; the greatest where it does not fit.
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
        loop {
            match self.block_len(input.bytes()) {
                Step::Need(len) if !input.need(len)? => return Err(input.truncated()),
                Step::Need(_) => {}
                Step::Skip(len) => {
                    self.section(input.bytes()).map_err(|what| input.malformed(what))?;
                    input.take(len);
                    return Ok(());
                }
                Step::Malformed(what) => return Err(input.malformed(what)),
                Step::Packet(..) => return Ok(()),
            }
        }
    }

    /// What the bytes begin with.
    pub(super) fn step<'a>(&mut self, bytes: &'a [u8], interfaces: &mut Vec<FileInterface>) -> Step<'a> {
        let step = self.block_len(bytes);
        let Step::Skip(len) = step else { return step };
        let block = bytes.get(..len).unwrap_or_default();
        let found = match self.block(block, interfaces) {
            Ok(Some(found)) => found,
            Ok(None) => return step,
            Err(what) => return Step::Malformed(what),
        };
        let link_type = interfaces.get(found.interface).map_or(LinkType(u16::MAX), |interface| interface.link_type);
        let packet = Packet {
            time: found.time,
            data: block.get(found.from..found.from + found.captured).unwrap_or_default(),
            wire_len: found.wire_len.max(found.captured as u32),
            link_type,
            interface: u32::try_from(found.interface).unwrap_or(u32::MAX),
            direction: found.direction,
            vlan: None,
        };
        Step::Packet(packet, len)
    }

    /// Length of the next block, to skip if it is no packet.
    fn block_len(&mut self, bytes: &[u8]) -> Step<'static> {
        let Some(head) = bytes.first_chunk::<12>() else { return Step::Need(12) };
        if head.starts_with(&SECTION_HEADER) {
            // The byte order of a section is the one of its magic number.
            self.big_endian = match head.last_chunk::<4>() {
                Some([0x1a, 0x2b, 0x3c, 0x4d]) => true,
                Some([0x4d, 0x3c, 0x2b, 0x1a]) => false,
                _ => return Step::Malformed("a section header without its magic number"),
            };
        }
        let len = self.u32(head, 4) as usize;
        if !(12..=MAX_BLOCK).contains(&len) || !len.is_multiple_of(4) {
            return Step::Malformed("a block whose length cannot be");
        }
        let Some(block) = bytes.get(..len) else { return Step::Need(len) };
        if self.u32(block, len - 4) as usize != len {
            return Step::Malformed("a block whose two lengths differ");
        }
        Step::Skip(len)
    }

    /// Reads a block; gives what is a packet.
    fn block(&mut self, block: &[u8], interfaces: &mut Vec<FileInterface>) -> Result<Option<Found>, &'static str> {
        if block.starts_with(&SECTION_HEADER) {
            self.section(block)?;
            return Ok(None);
        }
        match self.u32(block, 0) {
            INTERFACE_DESCRIPTION if self.locals.len().max(interfaces.len()) >= MAX_INTERFACES => {
                Err("more than 65536 interfaces")
            }
            INTERFACE_DESCRIPTION => {
                let (interface, clock) = self.interface(block).ok_or("an interface description that is too short")?;
                let snap_len = interface.snap_len;
                let number = self.number(interface, interfaces);
                self.locals.push(Local { number, snap_len, clock });
                Ok(None)
            }
            kind @ (PACKET | SIMPLE_PACKET | ENHANCED_PACKET) => self.packet(kind, block).map(Some),
            _ => Ok(None),
        }
    }

    fn section(&mut self, block: &[u8]) -> Result<(), &'static str> {
        let major = self.u16(block, 12);
        if self.u32(block, 4) < 28 || major != 1 {
            return Err("a section of an unknown version");
        }
        self.section += 1;
        self.locals.clear();
        Ok(())
    }

    /// The number of an interface that the section describes; see the module documentation.
    fn number(&mut self, interface: FileInterface, interfaces: &mut Vec<FileInterface>) -> usize {
        let FileInterface { name, description, link_type, .. } = &interface;
        let alike = self.known.entry((name.clone(), description.clone(), *link_type)).or_default();
        if alike.section != self.section {
            (alike.section, alike.described) = (self.section, 0);
        }
        let known = alike.numbers.get(alike.described).copied();
        alike.described += 1;
        known.unwrap_or_else(|| {
            alike.numbers.push(interfaces.len());
            interfaces.push(interface);
            interfaces.len() - 1
        })
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

    fn packet(&mut self, kind: u32, block: &[u8]) -> Result<Found, &'static str> {
        const CUT: &str = "a packet block that is shorter than its packet";
        let room = block.len() - 4;
        let (local, from, captured, wire_len) = match kind {
            SIMPLE_PACKET if room >= 12 => {
                let wire_len = self.u32(block, 8);
                let snap_len = self.locals.first().map_or(0, |local| local.snap_len);
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
        let Local { number, clock, .. } =
            self.locals.get(local).ok_or("a packet of an interface that is not described")?;
        let interface = *number;
        if kind == SIMPLE_PACKET {
            self.untimed = true;
        } else {
            self.time = clock.nanoseconds(u64::from(self.u32(block, 12)) << 32 | u64::from(self.u32(block, 16)));
        }
        let options = if kind == ENHANCED_PACKET { from + captured.next_multiple_of(4) } else { block.len() };
        let flags = self.options(block, options).find(|(code, _)| *code == 2);
        let direction = flags.and_then(|(_, value)| match self.u32(value, 0) & 3 {
            1 => Some(Direction::Ingress),
            2 => Some(Direction::Egress),
            _ => None,
        });
        Ok(Found { interface, time: self.time, from, captured, wire_len, direction })
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

/// The first [`MAX_TEXT`] bytes, less a character that does not fit whole. It is shown in terminals, so that there is no control in it.
fn text(value: &[u8]) -> String {
    // A character has at most four bytes.
    let value = value.get(..MAX_TEXT + 3).unwrap_or(value);
    let text = String::from_utf8_lossy(value);
    let text = text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default().trim_end_matches('\0');
    let text: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::CaptureFile;

    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let len = 12 + body.len().next_multiple_of(4);
        let mut block = [kind.to_le_bytes(), (len as u32).to_le_bytes()].concat();
        block.extend(body);
        block.resize(len - 4, 0);
        block.extend((len as u32).to_le_bytes());
        block
    }

    fn section() -> Vec<u8> {
        block(0x0a0d_0d0a, &[&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat())
    }

    fn interface(link_type: u8, name: &str) -> Vec<u8> {
        let option = [&[2, 0], &(name.len() as u16).to_le_bytes()[..], name.as_bytes()].concat();
        block(1, &[&[link_type, 0, 0, 0, 0, 0, 0, 0], option.as_slice()].concat())
    }

    fn packet(interface: u8, micros: u8) -> Vec<u8> {
        let head: Vec<u8> = [interface, 0, micros, 4, 4].iter().flat_map(|word| [*word, 0, 0, 0]).collect();
        block(6, &[head.as_slice(), b"abcd"].concat())
    }

    /// An interface whose times are nanoseconds since `offset`, s.
    fn nanoseconds(offset: i64) -> Vec<u8> {
        let options = [&[9, 0, 1, 0, 9, 0, 0, 0, 14, 0, 8, 0][..], &offset.to_le_bytes()].concat();
        block(1, &[&[1, 0, 0, 0, 0, 0, 0, 0], options.as_slice()].concat())
    }

    fn timed(time: u64) -> Vec<u8> {
        let words = [0, (time >> 32) as u32, time as u32, 4, 4].map(u32::to_le_bytes);
        block(6, &[words.as_flattened(), b"abcd"].concat())
    }

    fn simple() -> Vec<u8> {
        block(3, b"\x04\0\0\0abcd")
    }

    /// Interface and time of every packet, and the file.
    fn read(blocks: &[Vec<u8>]) -> (Vec<(u32, i64)>, CaptureFile) {
        let mut file = CaptureFile::new(Box::new(std::io::Cursor::new(blocks.concat())), "test").unwrap();
        let mut packets = Vec::new();
        while let Some(packet) = file.next_packet().unwrap() {
            packets.push((packet.interface, packet.time));
        }
        (packets, file)
    }

    #[test]
    fn a_simple_packet_has_the_time_of_the_packet_before() {
        let (packets, file) =
            read(&[section(), interface(1, "eth0"), simple(), packet(0, 7), simple(), packet(0, 9), section()]);
        assert_eq!(packets, [(0, 0), (0, 7000), (0, 7000), (0, 9000)]);
        assert!(file.has_untimed());
        assert!(!read(&[section(), interface(1, "eth0"), packet(0, 7)]).1.has_untimed());
    }

    #[test]
    fn bursts_have_no_packets_of_times_that_nobody_can_ask_for() {
        let last = i64::MAX.cast_unsigned();
        let check = |offset: i64, times: &[u64], expected: &[i64]| {
            let mut blocks = vec![section(), nanoseconds(offset)];
            blocks.extend(times.iter().map(|time| timed(*time)));
            let mut file = CaptureFile::new(Box::new(std::io::Cursor::new(blocks.concat())), "test").unwrap();
            let mut found = Vec::new();
            loop {
                let burst = file.next_burst(&mut |_, _| {}).unwrap();
                if burst.is_empty() {
                    break;
                }
                found.extend(burst.iter().map(|packet| packet.time));
            }
            assert_eq!(found, expected);
            assert_eq!(file.misdated(), (times.len() - expected.len()) as u64);
        };
        check(0, &[0, last - 1, last, u64::MAX, 7, last + 1], &[0, i64::MAX - 1, 7]);
        check(0, &[u64::MAX; 300], &[]);
        check(-1, &[999_999_999, 1_000_000_000], &[0]);
        check(i64::MIN, &[1], &[]);
        check(i64::MAX, &[1], &[]);
    }

    #[test]
    fn joined_files_have_the_interfaces_that_they_describe_alike() {
        let (packets, file) = read(&[
            section(),
            interface(1, "eth0"),
            interface(1, "eth1"),
            interface(1, "eth1"),
            packet(1, 1),
            packet(2, 2),
            section(),
            interface(1, "eth1"),
            interface(101, "eth0"),
            interface(1, "eth1"),
            interface(1, "eth0"),
            packet(0, 3),
            packet(1, 4),
            packet(2, 5),
            packet(3, 6),
        ]);
        assert_eq!(packets, [(1, 1000), (2, 2000), (1, 3000), (3, 4000), (2, 5000), (0, 6000)]);
        let interfaces = file.interfaces().iter().map(|own| (own.name.as_deref().unwrap(), own.link_type.0));
        assert_eq!(interfaces.collect::<Vec<_>>(), [("eth0", 1), ("eth1", 1), ("eth1", 1), ("eth0", 101)]);
    }

    #[test]
    fn names_control_no_terminal() {
        let (_, file) = read(&[section(), interface(1, "eth0\u{1b}[2J\nroot#\0")]);
        assert_eq!(file.interfaces()[0].name.as_deref(), Some("eth0\u{fffd}[2J\u{fffd}root#"));
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        for (name, kept) in [("x".repeat(60_000), 256), ("\u{20ac}".repeat(20_000), 255), ("x".repeat(256), 256)] {
            let (_, file) = read(&[section(), interface(1, &name)]);
            assert_eq!(file.interfaces()[0].name.as_deref(), name.get(..kept));
        }
    }
}
