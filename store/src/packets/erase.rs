//! A segment without the packets of some slices.
//!
//! Blocks without such packets are taken over as they are, byte for byte; of the others what is left is compressed anew, in the
//! same order. The interfaces stay, so that numbers in later blocks mean what they meant. The new segment has a name of its
//! own, and takes the place of the old one in the catalog; until then it ends in `.tmp`, and nobody reads it.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use foldhash::fast::RandomState;

use super::frame::{Compression, Framer};
use super::index::{Block, IndexReader, IndexWriter, Record};
use super::read::read_frame;
use super::segment::{Open, Writers};
use super::{FOLDER, SUFFIX, Segment, index_path};
use crate::error::StoreError;

/// What a name ends with as long as the catalog does not have it.
const TEMPORARY: &str = ".tmp";
/// Types of pcapng blocks.
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
/// Bytes of a slice in the catalog.
const SLICE: usize = 24;

/// A slice that was erased: its flow, and when its packets were, first and last, ns since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ErasedSlice {
    pub(crate) flow_id: u64,
    pub(crate) start: i64,
    pub(crate) end: i64,
}

/// Slices whose packets go.
#[derive(Debug, Default)]
pub(crate) struct ErasedSlices {
    slices: HashMap<u64, Vec<(i64, i64)>, RandomState>,
    span: Option<(i64, i64)>,
    count: usize,
}

impl ErasedSlices {
    /// As the catalog keeps them.
    pub(crate) fn encode(slices: &[ErasedSlice]) -> Vec<u8> {
        let bytes = |slice: &ErasedSlice| {
            [slice.flow_id.to_le_bytes(), slice.start.to_le_bytes(), slice.end.to_le_bytes()].concat()
        };
        slices.iter().flat_map(bytes).collect()
    }

    /// Adds what the catalog kept.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for slice in bytes.chunks_exact(SLICE) {
            let number = |at: usize| {
                let bytes = slice.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
                u64::from_le_bytes(bytes.unwrap_or_default())
            };
            let (start, end) = (number(8).cast_signed(), number(16).cast_signed());
            self.slices.entry(number(0)).or_default().push((start, end));
            let (first, last) = self.span.unwrap_or((start, end));
            self.span = Some((first.min(start), last.max(end)));
            self.count += 1;
        }
    }

    /// Their number.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// From the first to the last packet of them.
    pub(crate) fn span(&self) -> Option<(i64, i64)> {
        self.span
    }

    fn takes(&self, flow: Option<u64>, time: i64) -> bool {
        let slices = flow.and_then(|flow| self.slices.get(&flow));
        slices.is_some_and(|slices| slices.iter().any(|(start, end)| *start <= time && time <= *end))
    }

    /// Whether the block may have a packet of them.
    fn touch(&self, block: &Block) -> bool {
        let inside = |(start, end): &(i64, i64)| *start <= block.last && *end >= block.first;
        block.flows.iter().filter_map(|flow| self.slices.get(flow)).any(|slices| slices.iter().any(inside))
    }
}

/// How many packets each flow has in some time.
#[derive(Debug, Default)]
pub(crate) struct FlowPackets {
    pub(crate) flows: HashMap<u64, u64, RandomState>,
    /// From the first to the last packet, also of no flow.
    pub(crate) span: Option<(i64, i64)>,
}

impl FlowPackets {
    /// Adds those of a sealed segment whose blocks touch `[from, to)`.
    pub(crate) fn add(&mut self, path: &Path, (from, to): (i64, i64)) -> Result<(), StoreError> {
        each_block(path, |block| {
            if block.packets.is_empty() || block.last < from || block.first >= to {
                return Ok(());
            }
            let (first, last) = self.span.unwrap_or((block.first, block.last));
            self.span = Some((first.min(block.first), last.max(block.last)));
            for number in &block.packets {
                let flow = (*number as usize).checked_sub(1).and_then(|place| block.flows.get(place));
                if let Some(flow) = flow {
                    *self.flows.entry(*flow).or_default() += 1;
                }
            }
            Ok(())
        })
    }
}

/// What is left of a block.
struct Rest {
    data: Vec<u8>,
    block: Block,
    removed: u64,
}

/// What is left of a sealed segment: how many packets go, and the segment that holds the others (`None`: none is left), durably
/// but under a temporary name ([`publish`]). `None`: it has no such packet.
pub(crate) fn without(
    data_dir: &Path,
    old: &Segment,
    erased: &ErasedSlices,
) -> Result<Option<(u64, Option<Segment>)>, StoreError> {
    let path = data_dir.join(&old.path);
    let file = File::open(&path).map_err(StoreError::io("open", &path))?;
    let mut any = false;
    each_block(&path, |block| {
        any = any || (erased.touch(&block) && filtered(&file, &path, &block, erased)?.removed > 0);
        Ok(())
    })?;
    if !any {
        return Ok(None);
    }
    let relative = free_name(data_dir, &old.path);
    let temporary = temporary(data_dir, &relative);
    let written = write(&temporary, (&file, &path), erased);
    let (new, removed) = written.inspect_err(|_| remove(&temporary))?;
    if new.packets == 0 {
        remove(&temporary);
        return Ok(Some((removed, None)));
    }
    let (packets, bytes, start, end) = (new.packets, new.bytes(), new.start, new.end);
    let segment = Segment { path: relative, packets, bytes, start, end, sealed: true, ..old.clone() };
    Ok(Some((removed, Some(segment))))
}

/// Gives a segment its name; the index comes first, as it is nothing without the segment.
pub(crate) fn publish(data_dir: &Path, segment: &str) -> Result<(), StoreError> {
    let (from, to) = (temporary(data_dir, segment), data_dir.join(segment));
    for (from, to) in [(index_path(&from), index_path(&to)), (from, to.clone())] {
        std::fs::rename(&from, &to).map_err(StoreError::io("rename", &from))?;
    }
    let folder = to.parent().unwrap_or(data_dir);
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(StoreError::io("sync", folder))
}

/// Deletes a segment that takes no place after all, whether it has its name or not.
pub(crate) fn discard(data_dir: &Path, segment: &str) {
    remove(&temporary(data_dir, segment));
    remove(&data_dir.join(segment));
}

/// Deletes what was not given its name: whoever wrote it was killed. One that cannot be deleted keeps no other one.
pub(crate) fn delete_temporary(data_dir: &Path) -> Result<(), StoreError> {
    let root = data_dir.join(FOLDER);
    let entries = |folder: &Path| match std::fs::read_dir(folder) {
        Ok(entries) => entries.collect::<Result<Vec<_>, _>>().map_err(StoreError::io("list", folder)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(StoreError::io("list", folder)(error)),
    };
    let unnamed = format!("{SUFFIX}{TEMPORARY}");
    let mut deleted = Ok(());
    for folder in entries(&root)?.iter().map(std::fs::DirEntry::path).filter(|path| path.is_dir()) {
        for file in entries(&folder)? {
            let name = file.file_name();
            let name = name.to_string_lossy();
            if name.strip_suffix(".index").unwrap_or(&name).ends_with(&unnamed) {
                deleted =
                    deleted.and(std::fs::remove_file(file.path()).map_err(StoreError::io("delete", &file.path())));
            }
        }
    }
    deleted
}

fn temporary(data_dir: &Path, segment: &str) -> PathBuf {
    data_dir.join(format!("{segment}{TEMPORARY}"))
}

fn remove(path: &Path) {
    // Best effort: nobody reads what has no name.
    let _ = std::fs::remove_file(path);
    let _ = std::fs::remove_file(index_path(path));
}

/// A name beside the old one that no segment has.
fn free_name(data_dir: &Path, old: &str) -> String {
    let stem = old.strip_suffix(SUFFIX).unwrap_or(old);
    let (stem, number) = stem.rsplit_once('-').unwrap_or((stem, ""));
    let number: u64 = number.parse().unwrap_or_default();
    let names = (number.saturating_add(1)..).map(|number| format!("{stem}-{number:06}{SUFFIX}"));
    let free = |name: &String| {
        let paths = [data_dir.join(name), temporary(data_dir, name)];
        paths.iter().all(|path| !path.exists() && !index_path(path).exists())
    };
    names.into_iter().find(free).unwrap_or_else(|| format!("{old}{TEMPORARY}"))
}

fn each_block(path: &Path, mut each: impl FnMut(Block) -> Result<(), StoreError>) -> Result<(), StoreError> {
    let index = index_path(path);
    let reader = IndexReader::open(&index).map_err(StoreError::io("open", &index))?;
    let Some(mut reader) = reader else {
        return Err(StoreError::Damaged { path: index, offset: 0, what: "it is no index".into() });
    };
    while let Some((_, record)) = reader.next().map_err(StoreError::io("read", &index))? {
        match record {
            Record::Block(block) => each(block)?,
            Record::Seal { .. } => return Ok(()),
        }
    }
    Err(StoreError::Damaged { path: index, offset: reader.good, what: "it ends without a seal".into() })
}

fn write(new: &Path, (file, path): (&File, &Path), erased: &ErasedSlices) -> Result<(Open, u64), StoreError> {
    let mut writers = Framer::new(Compression::default())
        .and_then(|framer| Ok(Writers { framer, index: IndexWriter::new()? }))
        .map_err(StoreError::io("set up compression for", new))?;
    let mut segment = Open::create(new, &mut writers)?;
    let mut removed = 0;
    each_block(path, |mut block| {
        // The section header, which the new one has too.
        if block.packets.is_empty() && block.interfaces.is_empty() {
            return Ok(());
        }
        if erased.touch(&block) {
            let mut rest = filtered(file, path, &block, erased)?;
            removed += rest.removed;
            if rest.removed > 0 {
                return if rest.data.is_empty() {
                    Ok(())
                } else {
                    segment.write(&mut writers, &rest.data, &mut rest.block)
                };
            }
        }
        let mut frame = vec![0; block.compressed as usize];
        file.read_exact_at(&mut frame, block.offset).map_err(StoreError::io("read", path))?;
        segment.copy(&mut writers, &frame, &mut block)
    })?;
    segment.seal()?;
    Ok((segment, removed))
}

/// What is left of a block. Its pcapng blocks are gone through as they are: those that stay are not changed.
fn filtered(file: &File, path: &Path, block: &Block, erased: &ErasedSlices) -> Result<Rest, StoreError> {
    let whole = read_frame(file, path, block)?;
    let wrong = |what: &str| StoreError::Damaged { path: path.to_owned(), offset: block.offset, what: what.to_owned() };
    let mut rest = Rest { data: Vec::with_capacity(whole.len()), block: Block::default(), removed: 0 };
    rest.block.interfaces.clone_from(&block.interfaces);
    let mut numbers: HashMap<u32, u32, RandomState> = HashMap::default();
    let (mut left, mut packets) = (whole.as_slice(), block.packets.iter());
    while !left.is_empty() {
        let length = number_at(left, 4).map_or(0, |length| length as usize);
        let Some((one, after)) = left.split_at_checked(length).filter(|_| length >= 12) else {
            return Err(wrong("a pcapng block is longer than what there is"));
        };
        left = after;
        match number_at(one, 0) {
            Some(INTERFACE_DESCRIPTION) => rest.data.extend_from_slice(one),
            Some(ENHANCED_PACKET) => {
                let Some(number) = packets.next() else { return Err(wrong("it has more packets than its index says")) };
                let (Some(high), Some(low)) = (number_at(one, 12), number_at(one, 16)) else {
                    return Err(wrong("a packet has no time"));
                };
                let time = (u64::from(high) << 32 | u64::from(low)).cast_signed();
                let flow = (*number as usize).checked_sub(1).and_then(|place| block.flows.get(place)).copied();
                if erased.takes(flow, time) {
                    rest.removed += 1;
                    continue;
                }
                rest.data.extend_from_slice(one);
                rest.block.span(time, time);
                let new = flow.map_or(0, |flow| {
                    *numbers.entry(*number).or_insert_with(|| {
                        rest.block.flows.push(flow);
                        rest.block.flows.len() as u32
                    })
                });
                rest.block.packets.push(new);
            }
            Some(_) | None => return Err(wrong("it has a pcapng block that this release does not write")),
        }
    }
    if packets.next().is_some() {
        return Err(wrong("it has fewer packets than its index says"));
    }
    Ok(rest)
}

fn number_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}
