//! After a crash: a segment is cut back to its last whole block and sealed.
//!
//! A block counts if its index record checks, it follows the block before it, and its frame matches the checksum in the
//! record. Nothing that counts is ever cut.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::index::{self, Block, IndexReader, Record, Version};
use super::{Segment, index_path, segment};
use crate::catalog::Origin;
use crate::error::StoreError;

/// What [`recover`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The segment as it is now; `None` if it held no whole block and was deleted.
    pub segment: Option<Segment>,
    /// Bytes of the segment that were cut off.
    pub cut: u64,
}

#[derive(Default)]
struct Scan {
    version: Version,
    length: u64,
    index_length: u64,
    frames: Vec<(u32, u32)>,
    packets: u64,
    start: i64,
    end: i64,
    sealed: bool,
}

/// Makes the segment `path` (relative to `data_dir`) whole and sealed. Nobody may be writing it.
pub fn recover(data_dir: &Path, path: &str) -> Result<Recovered, StoreError> {
    let full = data_dir.join(path);
    let index_file = index_path(&full);
    let Some(file) = existing(&full)? else {
        remove(&index_file)?;
        return Ok(Recovered { segment: None, cut: 0 });
    };
    let length = file.metadata().map_err(StoreError::io("read", &full))?.len();
    let index = existing(&index_file)?;
    let scan = if index.is_some() { scan(&file, length, &full)? } else { Scan::default() };
    let Some(index) = index.filter(|_| scan.packets > 0) else {
        drop(file);
        remove(&full)?;
        remove(&index_file)?;
        return Ok(Recovered { segment: None, cut: length });
    };
    let (mut bytes, mut cut) = (length + scan.index_length, 0);
    if !scan.sealed {
        cut = length - scan.length;
        index.set_len(scan.index_length).map_err(StoreError::io("cut", &index_file))?;
        file.set_len(scan.length).map_err(StoreError::io("cut", &full))?;
        let ends =
            segment::seal(&full, (&file, &index), (scan.length, scan.index_length), (&scan.frames, scan.version))?;
        bytes = ends.0 + ends.1;
    }
    let recovered = Segment {
        path: path.to_owned(),
        node: super::node_of(path).to_owned(),
        packets: scan.packets,
        bytes,
        start: scan.start,
        end: scan.end,
        sealed: true,
        origin: Origin { import: super::import_of(path), stored_at: 0 },
    };
    Ok(Recovered { segment: Some(recovered), cut })
}

fn scan(file: &File, length: u64, path: &Path) -> Result<Scan, StoreError> {
    let index_file = index_path(path);
    let mut scan = Scan::default();
    let Some(mut reader) = IndexReader::open(&index_file).map_err(StoreError::io("open", &index_file))? else {
        return Ok(scan);
    };
    (scan.index_length, scan.version) = (reader.good, reader.version);
    while let Some((_, record)) = reader.next().map_err(StoreError::io("read", &index_file))? {
        match record {
            Record::Block(block) => {
                if !whole(&block, &scan, file, length).map_err(StoreError::io("read", path))? {
                    return Ok(scan);
                }
                scan.add(&block);
            }
            Record::Seal { length: sealed } => {
                let table = index::seek_table(&scan.frames);
                let mut found = vec![0; table.len()];
                scan.sealed = sealed == length
                    && length == scan.length + table.len() as u64
                    && file.read_exact_at(&mut found, scan.length).is_ok()
                    && found == table;
                if scan.sealed {
                    scan.index_length = reader.good;
                }
                return Ok(scan);
            }
        }
        scan.index_length = reader.good;
    }
    Ok(scan)
}

fn whole(block: &Block, scan: &Scan, file: &File, length: u64) -> io::Result<bool> {
    if block.offset != scan.length || length - scan.length < u64::from(block.compressed) {
        return Ok(false);
    }
    let mut frame = vec![0; block.compressed as usize];
    file.read_exact_at(&mut frame, block.offset)?;
    Ok(index::crc32(&frame) == block.frame_crc)
}

impl Scan {
    fn add(&mut self, block: &Block) {
        self.length += u64::from(block.compressed);
        self.frames.push((block.compressed, block.uncompressed));
        if !block.packets.is_empty() {
            self.start = if self.packets == 0 { block.first } else { self.start.min(block.first) };
            self.end = if self.packets == 0 { block.last } else { self.end.max(block.last) };
            self.packets += block.packets.len() as u64;
        }
    }
}

fn existing(path: &Path) -> Result<Option<File>, StoreError> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("open", path)(error)),
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("delete", path)(error)),
        _ => Ok(()),
    }
}
