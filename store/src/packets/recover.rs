//! After a crash: a segment is cut back to its last whole block and sealed.
//!
//! A block counts if its index record checks, it follows the block before it, and its frame matches the checksum in the
//! record. Nothing that counts is ever cut, and no whole frame of packets is deleted: where the index is damaged or gone, what it does not
//! speak of is a file of its own in `set-aside/`, which any reader of pcapng takes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::index::{self, Block, IndexReader, Interface, Record, Version};
use super::read::preamble;
use super::{Segment, index_path, segment};
use crate::catalog::Origin;
use crate::error::StoreError;
use crate::set_aside::{free_name, set_aside};

/// More than one block ever takes.
const ONE_FRAME: u64 = 2 * index::MAX_BLOCK as u64;
/// How a frame of zstd begins (RFC 8878, section 3.1.1), and what is in the first one of a segment.
const FRAME: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();
const SECTION_HEADER: [u8; 4] = 0x0a0d_0d0a_u32.to_le_bytes();

/// What [`recover`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// The segment as it is now; `None` if it held no whole block and was deleted, or is not there.
    pub segment: Option<Segment>,
    /// Bytes of the segment that were cut off.
    pub cut: u64,
    /// The file that has these bytes now, if there are packets in them.
    pub set_aside: Option<PathBuf>,
}

#[derive(Default)]
struct Scan {
    version: Version,
    length: u64,
    index_length: u64,
    frames: Vec<(u32, u32)>,
    interfaces: Vec<Interface>,
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
        // Nothing is in an index without its segment; if that comes back from wherever it is, it is nothing without its index.
        return Ok(Recovered::default());
    };
    let length = file.metadata().map_err(StoreError::io("read", &full))?.len();
    let index = existing(&index_file)?;
    let scan = if index.is_some() { scan(&file, length, &full)? } else { Scan::default() };
    let packets_behind =
        !scan.sealed && has_packets(&file, scan.length, length).map_err(StoreError::io("read", &full))?;
    let Some(index) = index.filter(|_| scan.packets > 0) else {
        drop(file);
        let aside = |path: &Path| set_aside(data_dir, path).map_err(StoreError::io("move", path));
        if packets_behind {
            // The index first: a segment that is without is moved by the next start.
            aside(&index_file)?;
            return Ok(Recovered { segment: None, cut: length, set_aside: aside(&full)? });
        }
        remove(&full)?;
        remove(&index_file)?;
        return Ok(Recovered { segment: None, cut: length, set_aside: None });
    };
    let mut set_aside = None;
    if packets_behind {
        set_aside = Some(keep_tail(data_dir, (&file, &full), &scan)?);
    }
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
    Ok(Recovered { segment: Some(recovered), cut, set_aside })
}

/// Whether a whole frame of packets is somewhere in `[from, to)`. Whoever is killed while it writes leaves a frame in part, or a part of a
/// seek table, at the end.
fn has_packets(file: &File, from: u64, to: u64) -> io::Result<bool> {
    if to - from > ONE_FRAME {
        return Ok(true);
    }
    let mut bytes = vec![0; (to - from) as usize];
    file.read_exact_at(&mut bytes, from)?;
    let mut rest = bytes.as_slice();
    while let Some(at) = rest.windows(FRAME.len()).position(|window| window == FRAME) {
        let frame = rest.get(at..).unwrap_or_default();
        if zstd::zstd_safe::find_frame_compressed_size(frame).is_ok() && !is_section_header(frame) {
            return Ok(true);
        }
        rest = frame.get(FRAME.len()..).unwrap_or_default();
    }
    Ok(false)
}

fn is_section_header(frame: &[u8]) -> bool {
    let mut begin = [0; 4];
    let read = zstd::stream::Decoder::new(frame).and_then(|mut decoder| decoder.read_exact(&mut begin));
    read.is_ok() && begin == SECTION_HEADER
}

/// Copies what is behind the last block that counts to a capture file of its own: the interfaces that the log knows come before it.
fn keep_tail(data_dir: &Path, (mut file, path): (&File, &Path), scan: &Scan) -> Result<PathBuf, StoreError> {
    let target = free_name(data_dir, path).map_err(StoreError::io("name", path))?;
    let mut copy = || -> io::Result<()> {
        let mut out = crate::private::create(&target)?;
        out.write_all(&zstd::bulk::compress(&preamble(&scan.interfaces), 1)?)?;
        file.seek(SeekFrom::Start(scan.length))?;
        io::copy(&mut file, &mut out)?;
        out.sync_all()?;
        File::open(target.parent().unwrap_or(data_dir))?.sync_all()
    };
    if let Err(error) = copy() {
        let _ = std::fs::remove_file(&target);
        return Err(StoreError::io("write", &target)(error));
    }
    Ok(target)
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
        self.interfaces.extend_from_slice(&block.interfaces);
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
