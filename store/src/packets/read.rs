//! Reading the packets of some flows or slices, from the blocks that have any, or of all.
//!
//! Packets come out in order of time across segments: blocks are visited by the time of their first packet, and a packet
//! is handed on once no later block can hold an earlier one. What waits is bounded by [`MAX_HELD`]; if more wanted packets
//! overlap (blocks that span a very long time), the earliest are handed on early and order is only kept within what
//! was held.
//!
//! What is damaged costs no more than itself: a block that does not check is left out, and so is what follows a record that does not check in
//! the index of a segment. Both are counted; who hands the packets on has to say it. A file that is not there may have been taken by
//! retention meanwhile, or be missing: the catalog knows ([`ReadStats::miss`]).

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeSet, BinaryHeap, HashSet};
use std::fmt::Display;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wiretag_capture::file::CaptureFile;
use wiretag_capture::pcapng::{self, InterfaceBlock};
use wiretag_capture::{OwnedPacket, Packet};

use super::index::{self, Block, IndexReader, Interface, Record};
use super::index_path;
use super::log::APPLICATION;
use super::slices::Slices;
use crate::error::StoreError;

/// Bytes of packets that wait for their turn.
const MAX_HELD: usize = 256 << 20;
/// What a waiting packet takes besides its bytes.
const OVERHEAD: usize = 128;

/// Damages that one reading logs: a disk that fails has many.
const LOGGED: u64 = 10;

/// What reading did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadStats {
    /// Packets handed on.
    pub packets: u64,
    /// Blocks that were read and decompressed.
    pub blocks_read: u64,
    /// Blocks that the index ruled out.
    pub blocks_skipped: u64,
    /// Segments that are not there, or their index is not.
    pub gone: BTreeSet<PathBuf>,
    /// Blocks that hold wanted packets and cannot be read.
    pub blocks_damaged: u64,
    /// Segments that are missing, or whose index is or ends before they do: what is in their further blocks is not known.
    pub indexes_damaged: u64,
    /// The first file that is damaged.
    pub first_damaged: Option<PathBuf>,
}

impl ReadStats {
    /// One of [`Self::gone`] is still in the catalog: nobody took it on purpose.
    pub(crate) fn miss(&mut self, segment: &Path) {
        self.indexes_damaged += 1;
        self.note_damage(segment, "the segment or its index is missing");
    }

    fn note_damage(&mut self, segment: &Path, error: &(impl Display + ?Sized)) {
        if self.blocks_damaged + self.indexes_damaged <= LOGGED {
            tracing::warn!(segment = %segment.display(), %error, "packets cannot be read and are left out; hint: check the disk");
        }
        self.first_damaged.get_or_insert_with(|| segment.to_path_buf());
    }

    /// The number of packets, if none that are kept are missing.
    pub fn complete(self) -> Result<u64, StoreError> {
        let Some(first) = self.first_damaged else { return Ok(self.packets) };
        let (packets, blocks, indexes) = (self.packets, self.blocks_damaged, self.indexes_damaged);
        Err(StoreError::PacketsDamaged { packets, blocks, indexes, first })
    }
}

struct Source {
    path: PathBuf,
    interfaces: Vec<Interface>,
}

/// A block to read: `interfaces` of the segment's table come before it.
struct Planned {
    first: i64,
    source: usize,
    interfaces: usize,
    record: u64,
}

struct Held {
    packet: OwnedPacket,
    interface: Arc<str>,
    flow: Option<u64>,
    number: u64,
}

impl Held {
    fn key(&self) -> (i64, u64) {
        (self.packet.time, self.number)
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// Which packets.
#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    /// Those of these flows.
    Flows(&'a HashSet<u64>),
    /// Those of these slices, and none of the others of their flows.
    Slices(&'a Slices),
    /// All, also those of no flow.
    All,
}

impl Wanted<'_> {
    fn block(self, block: &Block) -> bool {
        match self {
            Self::Flows(flows) => block.flows.iter().any(|flow| flows.contains(flow)),
            Self::Slices(slices) => slices.touch(block),
            Self::All => true,
        }
    }

    fn packet(self, flow: Option<u64>, time: i64) -> bool {
        match self {
            Self::Flows(flows) => flow.is_some_and(|flow| flows.contains(&flow)),
            Self::Slices(slices) => flow.is_some_and(|flow| slices.have(flow, time)),
            Self::All => true,
        }
    }
}

/// Who gets the packets: interface name, packet, flow.
pub type Each<'a> = dyn FnMut(&str, &Packet<'_>, Option<u64>) -> Result<(), StoreError> + 'a;

/// Hands on the packets that are wanted with a time in `[from, to)`, earliest first. Segments may still be open: what was
/// flushed so far is read.
pub fn read_flows(
    segments: &[PathBuf],
    wanted: Wanted<'_>,
    (from, to): (i64, i64),
    each: &mut Each<'_>,
) -> Result<ReadStats, StoreError> {
    let mut reader =
        Reader { wanted, from, to, stats: ReadStats::default(), heap: BinaryHeap::new(), held: 0, number: 0 };
    let (sources, plan) = reader.plan(segments)?;
    for planned in plan {
        reader.hand_on(Some(planned.first), each)?;
        let Some(source) = sources.get(planned.source) else { continue };
        if let Some(error) = reader.load(source, &planned)? {
            reader.stats.blocks_damaged += 1;
            reader.stats.note_damage(&source.path, &error);
        }
    }
    reader.hand_on(None, each)?;
    Ok(reader.stats)
}

struct Reader<'a> {
    wanted: Wanted<'a>,
    from: i64,
    to: i64,
    stats: ReadStats,
    heap: BinaryHeap<Reverse<Held>>,
    held: usize,
    number: u64,
}

impl Reader<'_> {
    fn plan(&mut self, segments: &[PathBuf]) -> Result<(Vec<Source>, Vec<Planned>), StoreError> {
        let (mut sources, mut plan) = (Vec::new(), Vec::new());
        for path in segments {
            let index = index_path(path);
            // Asked before: a segment that is sealed meanwhile had its last blocks behind what is read here.
            let sealed = index::sealed_frames(path);
            let Some(opened) = self.unless_gone(IndexReader::open(&index), path, &index)? else { continue };
            let (mut interfaces, mut frames) = (Vec::new(), 0_u32);
            let end = match opened {
                Some(mut reader) => loop {
                    let (record, mut block) = match reader.next() {
                        Ok(Some((record, Record::Block(block)))) => (record, block),
                        Ok(Some((_, Record::Seal { .. }))) => break Ok(true),
                        Ok(None) => break Ok(false),
                        Err(error) => break Err(StoreError::io("read", &index)(error)),
                    };
                    frames += 1;
                    let before = interfaces.len();
                    interfaces.append(&mut block.interfaces);
                    let in_range = !block.packets.is_empty() && block.first < self.to && block.last >= self.from;
                    if in_range && self.wanted.block(&block) {
                        plan.push(Planned { first: block.first, source: sources.len(), interfaces: before, record });
                    } else if !block.packets.is_empty() {
                        self.stats.blocks_skipped += 1;
                    }
                },
                None => Ok(false),
            };
            self.check_end(path, end, sealed.filter(|there| *there > frames));
            sources.push(Source { path: path.clone(), interfaces });
        }
        plan.sort_by_key(|planned| planned.first);
        Ok((sources, plan))
    }

    /// An index that ends without its seal is that of a segment which is being written, or damaged: if the segment has its seek table, which
    /// counts more frames.
    fn check_end(&mut self, path: &Path, end: Result<bool, StoreError>, more: Option<u32>) {
        let error = match (end, more) {
            (Ok(true), _) | (Ok(false), None) => return,
            (Ok(false), Some(_)) => damaged(&index_path(path), 0, "it ends before the segment does"),
            (Err(error), _) => error,
        };
        self.stats.indexes_damaged += 1;
        self.stats.note_damage(path, &error);
    }

    fn unless_gone<T>(&mut self, result: io::Result<T>, segment: &Path, file: &Path) -> Result<Option<T>, StoreError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.stats.gone.insert(segment.to_path_buf());
                Ok(None)
            }
            Err(error) => Err(StoreError::io("open", file)(error)),
        }
    }

    /// Hands on what is earlier than every packet of blocks to come.
    fn hand_on(&mut self, before: Option<i64>, each: &mut Each<'_>) -> Result<(), StoreError> {
        while let Some(Reverse(next)) = self.heap.peek() {
            if before.is_some_and(|before| next.packet.time >= before) && self.held <= MAX_HELD {
                break;
            }
            let Some(Reverse(held)) = self.heap.pop() else { break };
            self.held -= held.packet.data.len() + OVERHEAD;
            self.stats.packets += 1;
            each(&held.interface, &held.packet.view(), held.flow)?;
        }
        Ok(())
    }

    /// Reads a block; what is wrong with it, if that cannot be done.
    fn load(&mut self, source: &Source, planned: &Planned) -> Result<Option<StoreError>, StoreError> {
        let index = index_path(&source.path);
        let path = &source.path;
        let Some(index_file) = self.unless_gone(File::open(&index), path, &index)? else { return Ok(None) };
        let Some(file) = self.unless_gone(File::open(path), path, path)? else { return Ok(None) };
        Ok(self.load_from((&index_file, &index), &file, source, planned).err())
    }

    fn load_from(
        &mut self,
        (index_file, index): (&File, &Path),
        file: &File,
        source: &Source,
        planned: &Planned,
    ) -> Result<(), StoreError> {
        let record = index::read_at(index_file, planned.record).map_err(StoreError::io("read", index))?;
        let Some(Record::Block(block)) = record else {
            return Err(damaged(index, planned.record, "the record changed"));
        };
        let known = source.interfaces.get(..planned.interfaces + block.interfaces.len()).unwrap_or_default();
        let names: Vec<Arc<str>> = known.iter().map(|interface| Arc::from(interface.name.as_str())).collect();
        let before = known.get(..planned.interfaces).unwrap_or_default();
        let bytes = [preamble(before), read_frame(file, &source.path, &block)?].concat();
        self.stats.blocks_read += 1;
        let wrong = |what: String| StoreError::Damaged { path: source.path.clone(), offset: block.offset, what };
        let mut capture = CaptureFile::new(Box::new(io::Cursor::new(bytes)), &source.path.to_string_lossy())
            .map_err(|error| wrong(error.to_string()))?;
        for number in &block.packets {
            let packet = capture.next_packet().map_err(|error| wrong(error.to_string()))?;
            let packet = packet.ok_or_else(|| wrong("the block has fewer packets than its index says".into()))?;
            let flow = (*number as usize).checked_sub(1).and_then(|place| block.flows.get(place)).copied();
            if !self.wanted.packet(flow, packet.time) || packet.time < self.from || packet.time >= self.to {
                continue;
            }
            let interface = names.get(packet.interface as usize).cloned().unwrap_or_default();
            self.held += packet.data.len() + OVERHEAD;
            self.number += 1;
            let packet = OwnedPacket {
                time: packet.time,
                data: packet.data.into(),
                wire_len: packet.wire_len,
                link_type: packet.link_type,
                interface: packet.interface,
                direction: packet.direction,
                vlan: packet.vlan,
            };
            self.heap.push(Reverse(Held { packet, interface, flow, number: self.number }));
        }
        Ok(())
    }
}

/// What a block needs before it to be a pcapng file of its own.
pub(super) fn preamble(interfaces: &[Interface]) -> Vec<u8> {
    let mut out = Vec::new();
    pcapng::section_header(&mut out, APPLICATION);
    for interface in interfaces {
        let Interface { name, link_type, snap_len } = interface;
        let block = InterfaceBlock { name, description: None, link_type: *link_type, snap_len: *snap_len };
        pcapng::interface_description(&mut out, &block);
    }
    out
}

/// One frame, checked and decompressed.
pub(super) fn read_frame(file: &File, path: &Path, block: &Block) -> Result<Vec<u8>, StoreError> {
    let mut frame = vec![0; block.compressed as usize];
    file.read_exact_at(&mut frame, block.offset).map_err(StoreError::io("read", path))?;
    if index::crc32(&frame) != block.frame_crc {
        return Err(damaged(path, block.offset, "the block does not match its checksum"));
    }
    zstd::bulk::decompress(&frame, block.uncompressed as usize)
        .map_err(|error| damaged(path, block.offset, &error.to_string()))
}

fn damaged(path: &Path, offset: u64, what: &str) -> StoreError {
    StoreError::Damaged { path: path.to_path_buf(), offset, what: what.to_owned() }
}
