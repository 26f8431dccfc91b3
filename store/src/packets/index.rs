//! The index of a segment: append-only records, each with its length and CRC-32.
//!
//! ```text
//! file    "WTINDEX2" record*
//! record  u32 length | u32 crc32(payload) | payload            (all numbers little endian)
//! payload u32 length of content | content as a zstd frame
//! content block or seal
//! block   0u8 | u64 offset | u32 compressed | u32 uncompressed | u32 crc32(frame) | i64 first | i64 last
//!         | u32 interfaces, each: u16 link type | u32 snap length | u16 length | name
//!         | u32 flows, each: u64 flow id | u32 packets | u8 width | packets × width bytes: 0 no flow, 1 the flow after
//!           the greatest so far, else flow number + 2; the low bytes of all packets first, then the next higher ones
//! seal    1u8 | u64 length of the segment with its seek table
//! ```
//!
//! `WTINDEX1`, of the first builds, is read too: the payload is the content as it is, a packet's number is flow number + 1
//! or 0, and its bytes are together.
//!
//! Decoding never trusts a length: a record above [`MAX_RECORD`] or one that does not check ends the index.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use wiretag_capture::LinkType;

/// First bytes of the file.
pub(super) const MAGIC: &[u8; 8] = b"WTINDEX2";
/// zstd's level of records: flow ids are random, the rest is small at any level.
const LEVEL: i32 = 1;

/// How the records of a file are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Version {
    /// As they are.
    One,
    /// Compressed.
    #[default]
    Two,
}

impl Version {
    fn of(magic: [u8; 8]) -> Option<Self> {
        match &magic {
            b"WTINDEX1" => Some(Self::One),
            MAGIC => Some(Self::Two),
            _ => None,
        }
    }
}
/// Largest payload that is believed.
pub(super) const MAX_RECORD: u32 = 16 << 20;
/// Largest block that is believed, before compression.
pub(super) const MAX_BLOCK: u32 = 64 << 20;

/// An interface of the segment, in the order of its pcapng number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) link_type: LinkType,
    pub(super) snap_len: u32,
}

/// Where a block is and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Block {
    pub(super) offset: u64,
    pub(super) compressed: u32,
    pub(super) uncompressed: u32,
    pub(super) frame_crc: u32,
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) interfaces: Vec<Interface>,
    pub(super) flows: Vec<u64>,
    /// For each packet its place in `flows` plus one; 0 belongs to no flow.
    pub(super) packets: Vec<u32>,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Block(Block),
    Seal { length: u64 },
}

/// CRC-32 as in zlib (ISO 3309).
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

impl Block {
    /// Packets of these times are in it too.
    pub(super) fn span(&mut self, first: i64, last: i64) {
        let only = self.packets.is_empty();
        self.first = if only { first } else { self.first.min(first) };
        self.last = if only { last } else { self.last.max(last) };
    }

    /// Empties it, and keeps its memory.
    pub(super) fn clear(&mut self) {
        let Self { mut interfaces, mut flows, mut packets, .. } = std::mem::take(self);
        interfaces.clear();
        flows.clear();
        packets.clear();
        *self = Self { interfaces, flows, packets, ..Self::default() };
    }
}

/// Makes records of blocks; what they are made in is used again.
pub(super) struct IndexWriter {
    compressor: zstd::bulk::Compressor<'static>,
    content: Vec<u8>,
    compressed: Vec<u8>,
    record: Vec<u8>,
}

impl IndexWriter {
    pub(super) fn new() -> io::Result<Self> {
        let compressor = zstd::bulk::Compressor::new(LEVEL)?;
        Ok(Self { compressor, content: Vec::new(), compressed: Vec::new(), record: Vec::new() })
    }

    /// A record as it is written, with length and checksum.
    pub(super) fn block(&mut self, block: &Block) -> io::Result<&[u8]> {
        self.content.clear();
        encode_block(&mut self.content, block);
        self.record()
    }

    fn seal(&mut self, length: u64) -> io::Result<&[u8]> {
        self.content.clear();
        self.content.push(1);
        self.content.extend(length.to_le_bytes());
        self.record()
    }

    fn record(&mut self) -> io::Result<&[u8]> {
        self.compressed.clear();
        self.compressed.reserve(zstd::zstd_safe::compress_bound(self.content.len()));
        self.compressor.compress_to_buffer(&self.content, &mut self.compressed)?;
        let length = (self.content.len() as u32).to_le_bytes();
        let mut crc = crc32fast::Hasher::new();
        crc.update(&length);
        crc.update(&self.compressed);
        self.record.clear();
        self.record.extend((self.compressed.len() as u32 + 4).to_le_bytes());
        self.record.extend(crc.finalize().to_le_bytes());
        self.record.extend(length);
        self.record.extend_from_slice(&self.compressed);
        Ok(&self.record)
    }
}

/// A seal for an index that has records of this version.
pub(super) fn encode_seal(length: u64, version: Version) -> io::Result<Vec<u8>> {
    match version {
        Version::One => {
            let payload = [&[1][..], &length.to_le_bytes()].concat();
            let head = [(payload.len() as u32).to_le_bytes(), crc32(&payload).to_le_bytes()];
            Ok([head.as_flattened(), &payload].concat())
        }
        Version::Two => IndexWriter::new()?.seal(length).map(<[u8]>::to_vec),
    }
}

fn encode_block(out: &mut Vec<u8>, block: &Block) {
    out.push(0);
    out.extend(block.offset.to_le_bytes());
    out.extend(block.compressed.to_le_bytes());
    out.extend(block.uncompressed.to_le_bytes());
    out.extend(block.frame_crc.to_le_bytes());
    out.extend(block.first.to_le_bytes());
    out.extend(block.last.to_le_bytes());
    out.extend((block.interfaces.len() as u32).to_le_bytes());
    for interface in &block.interfaces {
        out.extend(interface.link_type.0.to_le_bytes());
        out.extend(interface.snap_len.to_le_bytes());
        out.extend((interface.name.len() as u16).to_le_bytes());
        out.extend(interface.name.as_bytes());
    }
    out.extend((block.flows.len() as u32).to_le_bytes());
    for flow in &block.flows {
        out.extend(flow.to_le_bytes());
    }
    out.extend((block.packets.len() as u32).to_le_bytes());
    let width = match block.flows.len() {
        0..=0xfd => 1,
        0xfe..=0xfffd => 2,
        _ => 4,
    };
    out.push(width);
    let mut greatest = 0;
    let numbers: Vec<[u8; 4]> = block
        .packets
        .iter()
        .map(|packet| match *packet {
            0 => 0_u32,
            number if number == greatest + 1 => {
                greatest = number;
                1
            }
            number => number + 1,
        })
        .map(u32::to_le_bytes)
        .collect();
    for plane in 0..usize::from(width) {
        out.extend(numbers.iter().filter_map(|number| number.get(plane)));
    }
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    /// A count of things that take at least `least` bytes each, so that it cannot ask for more memory than there is.
    fn count(&mut self, least: usize) -> Option<usize> {
        let count = usize::try_from(self.u32()?).ok()?;
        (count.checked_mul(least)? <= self.0.len()).then_some(count)
    }
}

/// A payload that checks.
fn decode(payload: &[u8], version: Version) -> Option<Record> {
    if version == Version::One {
        return decode_content(payload, version);
    }
    let mut cursor = Cursor(payload);
    let length = cursor.u32().filter(|length| *length <= MAX_RECORD)?;
    let content = zstd::bulk::decompress(cursor.0, length as usize).ok()?;
    (content.len() == length as usize).then(|| decode_content(&content, version)).flatten()
}

fn decode_content(content: &[u8], version: Version) -> Option<Record> {
    let mut cursor = Cursor(content);
    let record = match cursor.bytes(1)? {
        [0] => Record::Block(decode_block(&mut cursor, version)?),
        [1] => Record::Seal { length: cursor.u64()? },
        _ => return None,
    };
    cursor.0.is_empty().then_some(record)
}

fn decode_block(cursor: &mut Cursor<'_>, version: Version) -> Option<Block> {
    let mut block = Block {
        offset: cursor.u64()?,
        compressed: cursor.u32()?,
        uncompressed: cursor.u32()?,
        frame_crc: cursor.u32()?,
        first: cursor.i64()?,
        last: cursor.i64()?,
        ..Block::default()
    };
    for _ in 0..cursor.count(8)? {
        let link_type = LinkType(cursor.u16()?);
        let snap_len = cursor.u32()?;
        let length = usize::from(cursor.u16()?);
        let name = String::from_utf8(cursor.bytes(length)?.to_vec()).ok()?;
        block.interfaces.push(Interface { name, link_type, snap_len });
    }
    for _ in 0..cursor.count(8)? {
        block.flows.push(cursor.u64()?);
    }
    let packets = usize::try_from(cursor.u32()?).ok()?;
    let width = usize::from(cursor.bytes(1)?.first().copied()?);
    if !matches!(width, 1 | 2 | 4) {
        return None;
    }
    let numbers = cursor.bytes(packets.checked_mul(width)?)?;
    block.packets = match version {
        Version::One => together(numbers, width),
        Version::Two => planes(numbers, packets),
    };
    (block.uncompressed <= MAX_BLOCK && block.compressed <= MAX_BLOCK * 2).then_some(block)
}

/// Numbers whose bytes are together.
fn together(bytes: &[u8], width: usize) -> Vec<u32> {
    let number = |part: &[u8]| part.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte));
    bytes.chunks_exact(width).map(number).collect()
}

/// Numbers whose low bytes come first, with the shorthand for flows in the order of their first packets.
fn planes(bytes: &[u8], packets: usize) -> Vec<u32> {
    let mut numbers = vec![0_u32; packets];
    for (plane, bytes) in bytes.chunks_exact(packets.max(1)).enumerate() {
        for (number, byte) in numbers.iter_mut().zip(bytes) {
            *number |= u32::from(*byte) << (8 * plane);
        }
    }
    let mut greatest = 0_u32;
    for number in &mut numbers {
        match *number {
            0 => {}
            1 => {
                greatest = greatest.saturating_add(1);
                *number = greatest;
            }
            other => *number = other - 1,
        }
    }
    numbers
}

/// Reads an index from its beginning to its end, or to the first record that does not check.
#[derive(Debug)]
pub(super) struct IndexReader {
    file: BufReader<File>,
    pub(super) version: Version,
    /// Bytes of good records so far, magic included.
    pub(super) good: u64,
}

impl IndexReader {
    /// `None` if the file does not begin as an index does.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        let mut file = BufReader::with_capacity(256 << 10, File::open(path)?);
        let mut magic = [0; 8];
        if !fill(&mut file, &mut magic)? {
            return Ok(None);
        }
        Ok(Version::of(magic).map(|version| Self { file, version, good: 8 }))
    }

    /// The next good record, and where it begins.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, Record)>> {
        let mut head = [0; 8];
        if !fill(&mut self.file, &mut head)? {
            return Ok(None);
        }
        let mut cursor = Cursor(&head);
        let (Some(length), Some(crc)) = (cursor.u32(), cursor.u32()) else { return Ok(None) };
        if length > MAX_RECORD {
            return Ok(None);
        }
        let mut payload = vec![0; length as usize];
        if !fill(&mut self.file, &mut payload)? || crc32(&payload) != crc {
            return Ok(None);
        }
        let Some(record) = decode(&payload, self.version) else { return Ok(None) };
        let begin = self.good;
        self.good += 8 + u64::from(length);
        Ok(Some((begin, record)))
    }
}

/// Reads one record whose place is known.
pub(super) fn read_at(file: &File, offset: u64) -> io::Result<Option<Record>> {
    use std::os::unix::fs::FileExt;
    let mut head = [0; 8];
    file.read_exact_at(&mut head, 0)?;
    let Some(version) = Version::of(head) else { return Ok(None) };
    file.read_exact_at(&mut head, offset)?;
    let mut cursor = Cursor(&head);
    let (Some(length), Some(crc)) = (cursor.u32(), cursor.u32()) else { return Ok(None) };
    if length > MAX_RECORD {
        return Ok(None);
    }
    let mut payload = vec![0; length as usize];
    file.read_exact_at(&mut payload, offset + 8)?;
    Ok((crc32(&payload) == crc).then(|| decode(&payload, version)).flatten())
}

/// True if the buffer could be filled, false if the file ended.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// How a seek table begins and ends.
const SKIPPABLE: u32 = 0x184D_2A5E;
const SEEKABLE: u32 = 0x8F92_EAB1;

/// The seek table of zstd's seekable format (contrib/seekable_format in zstd), as a skippable frame.
pub(super) fn seek_table(frames: &[(u32, u32)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(frames.len() * 8 + 17);
    out.extend(SKIPPABLE.to_le_bytes());
    out.extend((frames.len() as u32 * 8 + 9).to_le_bytes());
    for (compressed, uncompressed) in frames {
        out.extend(compressed.to_le_bytes());
        out.extend(uncompressed.to_le_bytes());
    }
    out.extend((frames.len() as u32).to_le_bytes());
    out.push(0);
    out.extend(SEEKABLE.to_le_bytes());
    out
}

/// How many frames the seek table at the end of a segment counts; `None` if it has none, and is not sealed.
pub(super) fn sealed_frames(segment: &Path) -> Option<u32> {
    use std::os::unix::fs::FileExt;
    let file = File::open(segment).ok()?;
    let length = file.metadata().ok()?.len();
    let mut footer = [0; 9];
    file.read_exact_at(&mut footer, length.checked_sub(9)?).ok()?;
    let mut cursor = Cursor(&footer);
    let (frames, _, magic) = (cursor.u32()?, cursor.bytes(1)?, cursor.u32()?);
    let mut header = [0; 8];
    file.read_exact_at(&mut header, length.checked_sub(u64::from(frames) * 8 + 17)?).ok()?;
    let mut cursor = Cursor(&header);
    let whole =
        magic == SEEKABLE && cursor.u32() == Some(SKIPPABLE) && cursor.u32() == frames.checked_mul(8)?.checked_add(9);
    whole.then_some(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_of_the_check_string_is_the_published_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_block_reads_back_and_a_changed_byte_does_not() {
        for flows in [0_usize, 3, 255, 70_000] {
            let block = Block {
                offset: 99,
                compressed: 10,
                uncompressed: 20,
                frame_crc: 5,
                first: -4,
                last: 9,
                interfaces: vec![Interface { name: "veth1".into(), link_type: LinkType::ETHERNET, snap_len: 96 }],
                flows: (0..flows as u64).collect(),
                packets: (0..=flows as u32).collect(),
            };
            let bytes = IndexWriter::new().unwrap().block(&block).unwrap().to_vec();
            let payload = &bytes[8..];
            assert_eq!(decode(payload, Version::Two), Some(Record::Block(block)));
            assert_eq!(u32::from_le_bytes(bytes[4..8].try_into().unwrap()), crc32(payload));
            assert_eq!(decode(&payload[..payload.len() - 1], Version::Two), None);
        }
    }

    /// What the first builds wrote.
    #[test]
    fn a_record_of_version_one_reads_as_it_did() {
        let mut payload = vec![0];
        payload.extend(99_u64.to_le_bytes());
        payload.extend([10_u32, 20, 5].iter().flat_map(|number| number.to_le_bytes()));
        payload.extend([1_i64, 9].iter().flat_map(|time| time.to_le_bytes()));
        payload.extend(0_u32.to_le_bytes());
        payload.extend(2_u32.to_le_bytes());
        payload.extend([7_u64, 8].iter().flat_map(|flow| flow.to_le_bytes()));
        payload.extend(4_u32.to_le_bytes());
        payload.extend([2, 1, 0, 2, 0, 0, 0, 2, 0]);
        let Some(Record::Block(block)) = decode(&payload, Version::One) else { panic!("a block") };
        assert_eq!((block.offset, block.flows, block.packets), (99, vec![7, 8], vec![1, 2, 0, 2]));
    }

    /// 1,200 packets of 30 connections, as in a block of usual traffic, and a scan with a flow for each packet.
    #[test]
    fn an_index_is_small() {
        let flow = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = 1_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        let mut usual = Block { flows: (0..30).map(flow).collect(), ..Block::default() };
        usual.packets = (1..=30).chain((30..1_200).map(|_| next(30) as u32 + 1)).collect();
        let scan = Block { flows: (0..15_000).map(flow).collect(), packets: (1..=15_000).collect(), ..usual.clone() };
        let size = |block: &Block| IndexWriter::new().unwrap().block(block).unwrap().len();
        assert!(size(&usual) < 2 * 1_200, "{}", size(&usual));
        assert!(size(&scan) < 15_000 * 8 + 200, "{}: little more than the flow ids", size(&scan));
    }
}
