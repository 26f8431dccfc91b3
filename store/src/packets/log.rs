//! Writing the packet log. Used by one thread; it blocks on the disk.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::DateTime;
use foldhash::fast::RandomState;
use wiretag_capture::pcapng::{self, InterfaceBlock};
use wiretag_capture::{LinkType, Packet, PacketBuffer};

use super::frame::{Backlog, Compression, Framer};
use super::index::{Block, IndexWriter, Interface};
use super::segment::{Open, Writers};
use super::{FOLDER, SUFFIX, Segment, SegmentChanges};
use crate::catalog::Origin;
use crate::error::StoreError;

/// Interface numbers a segment may use.
const MAX_INTERFACES: usize = 65_535;
/// Name of the writer in the section header.
pub(super) const APPLICATION: &str = concat!("wiretag ", env!("CARGO_PKG_VERSION"));

/// How the log is cut into files and blocks.
#[derive(Debug, Clone)]
pub struct PacketLogConfig {
    /// Node, part of the file names.
    pub node: String,
    /// A segment is sealed when it and its index are this large.
    pub segment_bytes: u64,
    /// A segment is sealed when its packets span this long.
    pub segment_age: Duration,
    /// A block is written when it has this many bytes before compression; at most 16 MiB.
    pub block_bytes: usize,
    /// Packets are cut to this length.
    pub snap_len: u32,
    /// How blocks are compressed.
    pub compression: Compression,
    /// Where the packets are from.
    pub origin: Origin,
}

impl Default for PacketLogConfig {
    fn default() -> Self {
        Self {
            node: "local".into(),
            segment_bytes: 256 << 20,
            segment_age: Duration::from_hours(1),
            block_bytes: 1 << 20,
            snap_len: 262_144,
            compression: Compression::default(),
            origin: Origin::default(),
        }
    }
}

/// What became of the packets: appended = written + lost + those in the open block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PacketLogCounters {
    /// Packets handed in.
    pub appended: u64,
    /// Packets in blocks that were written.
    pub written: u64,
    /// Packets in blocks that could not be written.
    pub lost: u64,
    /// Bytes written, indexes included.
    pub bytes: u64,
    /// Times that writing failed.
    pub errors: u64,
    /// Segments begun.
    pub segments: u64,
    /// Blocks compressed faster than was chosen, or not at all, because of a backlog.
    pub hurried: u64,
    /// Blocks left as they are because a sample of them did not get smaller.
    pub opaque: u64,
}

/// Writes packets into segments.
pub struct PacketLog {
    data_dir: PathBuf,
    config: PacketLogConfig,
    changes: SegmentChanges,
    counters: PacketLogCounters,
    sequence: u64,
    writers: Writers,
    segment: Option<Open>,
    /// Segments that could not be sealed, or cut back after a failure: sealed as soon as writing works again.
    orphans: Vec<PathBuf>,
    /// Numbers of the segment's interfaces; those from `known` on are new in the open block.
    interfaces: HashMap<LinkType, Numbers>,
    known: u32,
    data: Vec<u8>,
    block: Block,
    flows: HashMap<u64, u32, RandomState>,
}

/// Numbers of interfaces by name.
type Numbers = HashMap<String, u32, RandomState>;

impl std::fmt::Debug for PacketLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PacketLog")
            .field("data_dir", &self.data_dir)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl PacketLog {
    /// A log in `data_dir`; nothing is created before the first block is written. The catalog learns of segments from
    /// `changes`.
    pub fn open(data_dir: &Path, config: PacketLogConfig, changes: SegmentChanges) -> Result<Self, StoreError> {
        let writers = Framer::new(config.compression)
            .and_then(|framer| Ok(Writers { framer, index: IndexWriter::new()? }))
            .map_err(StoreError::io("set up compression for", data_dir))?;
        let taken = super::list(data_dir).map_err(StoreError::io("list", &data_dir.join(FOLDER)))?;
        let sequence = taken.iter().filter_map(|path| sequence_of(path)).max().unwrap_or(0);
        let block_bytes = config.block_bytes.clamp(1, 16 << 20);
        Ok(Self {
            data_dir: data_dir.to_path_buf(),
            config: PacketLogConfig { block_bytes, snap_len: config.snap_len.min(16 << 20), ..config },
            changes,
            counters: PacketLogCounters::default(),
            sequence,
            writers,
            segment: None,
            orphans: Vec::new(),
            interfaces: HashMap::new(),
            known: 0,
            data: Vec::new(),
            block: Block::default(),
            flows: HashMap::default(),
        })
    }

    /// Adds a packet to the open block, and writes the block if it is full. An error means that the packets of one block
    /// were lost (they are counted); the log goes on with the next.
    pub fn append(
        &mut self,
        interface_name: &str,
        packet: &Packet<'_>,
        flow_id: Option<u64>,
    ) -> Result<(), StoreError> {
        self.counters.appended += 1;
        let outcome = if self.block.packets.is_empty() { self.roll_if_due(packet.time) } else { Ok(()) };
        let interface = self.interface(interface_name, packet.link_type);
        let kept = packet.data.len().min(self.config.snap_len as usize);
        let packet = Packet { data: packet.data.get(..kept).unwrap_or(packet.data), ..*packet };
        pcapng::enhanced_packet(&mut self.data, interface, &packet, None);
        self.block.span(packet.time, packet.time);
        self.count(flow_id);
        if self.data.len() >= self.config.block_bytes {
            self.flush()?;
        }
        outcome
    }

    /// Adds packets that are blocks already, and empties the buffer. A buffer that is worth it becomes a block as it is;
    /// smaller ones are collected. `name` gives the name of an interface. An error means what it means for
    /// [`PacketLog::append`].
    pub fn append_buffer<'n>(
        &mut self,
        buffer: &mut PacketBuffer,
        name: &dyn Fn(u32) -> &'n str,
    ) -> Result<(), StoreError> {
        if buffer.is_empty() {
            return Ok(());
        }
        let whole = buffer.blocks().len() >= self.config.block_bytes / 2;
        let full = self.data.len() + buffer.blocks().len() > self.config.block_bytes;
        let flushed = if whole || full { self.flush() } else { Ok(()) };
        self.counters.appended += buffer.len() as u64;
        let (first, last) = buffer.span();
        let rolled = if self.block.packets.is_empty() { self.roll_if_due(first) } else { Ok(()) };
        let interfaces = buffer.interfaces().iter();
        let numbers: Vec<u32> = interfaces.map(|(index, link_type)| self.interface(name(*index), *link_type)).collect();
        buffer.renumber(&numbers);
        self.block.span(first, last);
        for flow in buffer.flows() {
            self.count(*flow);
        }
        let written = if whole && self.data.is_empty() {
            self.finish_block(buffer.blocks())
        } else {
            self.data.extend_from_slice(buffer.blocks());
            if whole || self.data.len() >= self.config.block_bytes { self.flush() } else { Ok(()) }
        };
        buffer.clear();
        flushed.and(rolled).and(written)
    }

    /// Counts one more packet of the open block.
    fn count(&mut self, flow_id: Option<u64>) {
        let number = flow_id.map_or(0, |flow| {
            *self.flows.entry(flow).or_insert_with(|| {
                self.block.flows.push(flow);
                self.block.flows.len() as u32
            })
        });
        self.block.packets.push(number);
    }

    /// Writes the open block, so that readers find its packets; seals the segment if the store asked for that.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        let written = self.write_open();
        let sealed = if self.changes.seal_is_wanted() { self.seal_segment() } else { Ok(()) };
        written.and(sealed)
    }

    fn write_open(&mut self) -> Result<(), StoreError> {
        let mut data = std::mem::take(&mut self.data);
        let written = self.finish_block(&data);
        data.clear();
        self.data = data;
        written
    }

    /// Writes the open block, whose bytes are `data`, and begins the next.
    fn finish_block(&mut self, data: &[u8]) -> Result<(), StoreError> {
        if self.block.packets.is_empty() {
            return Ok(());
        }
        let packets = self.block.packets.len() as u64;
        let written = self.write_block(data);
        if written.is_ok() {
            self.counters.written += packets;
        } else {
            self.counters.lost += packets;
            self.counters.errors += 1;
            self.undo();
        }
        self.flows.clear();
        self.block.clear();
        self.note(false);
        if written.is_ok() {
            self.adopt();
        }
        written
    }

    /// Writes what is open and seals the segment.
    pub fn seal(&mut self) -> Result<(), StoreError> {
        let flushed = self.flush();
        let sealed = self.seal_segment();
        if sealed.is_ok() {
            self.adopt();
        }
        flushed.and(sealed)
    }

    /// What became of the packets so far.
    pub fn counters(&self) -> PacketLogCounters {
        let framer = self.writers.framer.counters;
        PacketLogCounters { hurried: framer.hurried, opaque: framer.opaque, ..self.counters }
    }

    /// How far the log is behind, for the blocks from now on.
    pub fn set_backlog(&mut self, backlog: Backlog) {
        self.writers.framer.backlog = backlog;
    }

    fn roll_if_due(&mut self, time: i64) -> Result<(), StoreError> {
        let age = i64::try_from(self.config.segment_age.as_nanos()).unwrap_or(i64::MAX);
        let due = self.segment.as_ref().is_some_and(|segment| {
            segment.bytes() >= self.config.segment_bytes || time.saturating_sub(segment.start) >= age
        });
        // Half of the numbers are left for the block that begins: it is written long before it uses them.
        if due || self.known as usize >= MAX_INTERFACES / 2 { self.seal_segment() } else { Ok(()) }
    }

    fn interface(&mut self, name: &str, link_type: LinkType) -> u32 {
        let names = self.interfaces.entry(link_type).or_default();
        if let Some(number) = names.get(name) {
            return *number;
        }
        let number = self.known + self.block.interfaces.len() as u32;
        let name = name.get(..name.floor_char_boundary(1_024)).unwrap_or_default();
        names.insert(name.to_owned(), number);
        let snap_len = self.config.snap_len;
        pcapng::interface_description(&mut self.data, &InterfaceBlock { name, description: None, link_type, snap_len });
        self.block.interfaces.push(Interface { name: name.to_owned(), link_type, snap_len });
        number
    }

    fn write_block(&mut self, data: &[u8]) -> Result<(), StoreError> {
        let mut segment = match self.segment.take() {
            Some(segment) => segment,
            None => self.begin_segment()?,
        };
        let before = segment.bytes();
        let outcome = segment.write(&mut self.writers, data, &mut self.block);
        if outcome.is_ok() {
            self.known += self.block.interfaces.len() as u32;
            self.counters.bytes += segment.bytes() - before;
        }
        self.segment = Some(segment);
        outcome
    }

    fn begin_segment(&mut self) -> Result<Open, StoreError> {
        let first = DateTime::from_timestamp_nanos(self.block.first);
        let folder = self.data_dir.join(FOLDER).join(first.format("date=%Y-%m-%d").to_string());
        crate::private::create_dir_all(&folder).map_err(StoreError::io("make", &folder))?;
        let node: String = self
            .config
            .node
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '.' || c == '_' { c } else { '_' })
            .collect();
        loop {
            self.sequence += 1;
            let path = folder.join(format!("{}-{node}-{:06}{SUFFIX}", first.format("%H%M%S"), self.sequence));
            match Open::create(&path, &mut self.writers) {
                Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(segment) => {
                    self.counters.segments += 1;
                    self.counters.bytes += segment.bytes();
                    return Ok(segment);
                }
            }
        }
    }

    /// After a failed write: the files end with the last whole block again, else the segment is left behind.
    fn undo(&mut self) {
        let known = self.known;
        for names in self.interfaces.values_mut() {
            names.retain(|_, number| *number < known);
        }
        if self.segment.as_ref().is_some_and(|segment| segment.cut().is_err()) {
            self.note(false);
            self.orphans.extend(self.segment.take().map(|segment| segment.path));
            self.forget_interfaces();
        }
    }

    fn seal_segment(&mut self) -> Result<(), StoreError> {
        let Some(mut segment) = self.segment.take() else { return Ok(()) };
        self.forget_interfaces();
        let sealed = segment.seal();
        if sealed.is_ok() {
            self.segment = Some(segment);
            self.note(true);
            self.segment = None;
        } else {
            // All its blocks are whole; it is sealed later.
            self.counters.errors += 1;
            let _ = segment.cut();
            self.orphans.push(segment.path);
        }
        sealed
    }

    /// Seals one of the segments that were left behind; what fails is tried again after the next block.
    fn adopt(&mut self) {
        let Some(path) = self.orphans.pop() else { return };
        let Some(relative) = path.strip_prefix(&self.data_dir).ok().and_then(Path::to_str) else { return };
        match super::recover(&self.data_dir, relative) {
            Ok(recovered) => {
                let node = self.config.node.clone();
                let found = recovered.segment.map(|segment| Segment { origin: self.config.origin, node, ..segment });
                if let Some(segment) = found {
                    self.changes.note(segment);
                }
            }
            Err(_) => self.orphans.insert(0, path),
        }
    }

    fn forget_interfaces(&mut self) {
        self.interfaces.clear();
        self.known = 0;
    }

    fn note(&self, sealed: bool) {
        let Some(segment) = &self.segment else { return };
        let Ok(path) = segment.path.strip_prefix(&self.data_dir) else { return };
        if segment.packets == 0 {
            return;
        }
        self.changes.note(Segment {
            path: path.to_string_lossy().into_owned(),
            node: self.config.node.clone(),
            packets: segment.packets,
            bytes: segment.bytes(),
            start: segment.start,
            end: segment.end,
            sealed,
            origin: self.config.origin,
        });
    }
}

/// The sequence number in a segment's name.
fn sequence_of(path: &str) -> Option<u64> {
    path.strip_suffix(SUFFIX)?.rsplit_once('-')?.1.parse().ok()
}
