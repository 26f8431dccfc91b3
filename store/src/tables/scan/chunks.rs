//! Bytes of column chunks, read from a file into memory that is used again: what is asked of the system anew for each column comes
//! page by page, and that takes longer than the reading.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, Length};

/// Bytes that are read to save a second read.
const GAP: u64 = 1 << 15;
/// Memory that a thread keeps for the next column, bytes.
const KEPT: usize = 8 << 20;

thread_local! {
    static SPARE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Memory of a thread, as long as somebody reads what is in it.
struct Lent {
    memory: Vec<u8>,
    length: usize,
}

impl Lent {
    fn read(file: &File, first: u64, length: usize) -> Result<Bytes, ParquetError> {
        let mut memory = SPARE.take();
        if memory.len() < length {
            // The old is given back before: nothing of it is wanted.
            drop(memory);
            memory = vec![0; length];
        }
        let mut lent = Self { memory, length };
        file.read_exact_at(lent.memory.get_mut(..length).unwrap_or_default(), first)?;
        Ok(Bytes::from_owner(lent))
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.memory.get(..self.length).unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // A thread that ends has no spare memory any more.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if self.memory.len() > spare.len() && self.memory.len() <= KEPT {
                *spare = std::mem::take(&mut self.memory);
            }
        });
    }
}

/// The bytes of some column chunks.
pub(super) struct Chunks {
    parts: Vec<(u64, Bytes)>,
    length: u64,
}

impl Chunks {
    /// Reads chunks; those that lie together with one call.
    pub(super) fn read(
        file: &File,
        group: &RowGroupMetaData,
        leaves: impl Iterator<Item = usize>,
    ) -> Result<Self, ParquetError> {
        let mut ranges: Vec<(u64, u64)> = leaves
            .filter_map(|leaf| group.columns().get(leaf))
            .map(ColumnChunkMetaData::byte_range)
            .map(|(first, length)| (first, first.saturating_add(length)))
            .collect();
        ranges.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for (first, end) in ranges {
            match joined.last_mut() {
                Some(last) if first <= last.1.saturating_add(GAP) => last.1 = last.1.max(end),
                Some(_) | None => joined.push((first, end)),
            }
        }
        let length = file.metadata()?.len();
        let mut parts = Vec::with_capacity(joined.len());
        for (first, end) in joined {
            if end > length {
                return Err(ParquetError::EOF("a column ends behind its file".into()));
            }
            parts.push((first, Lent::read(file, first, (end - first) as usize)?));
        }
        Ok(Self { parts, length })
    }

    /// How many bytes were read.
    pub(super) fn len_read(&self) -> u64 {
        self.parts.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    fn from(&self, start: u64) -> Result<Bytes, ParquetError> {
        let at = self.parts.partition_point(|(first, _)| *first <= start);
        let part = at.checked_sub(1).and_then(|at| self.parts.get(at));
        let found = part.and_then(|(first, bytes)| {
            let skip = (start - first) as usize;
            (skip <= bytes.len()).then(|| bytes.slice(skip..))
        });
        found.ok_or_else(|| ParquetError::EOF("a page lies outside of its column".into()))
    }
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Chunks {
    type T = std::io::Cursor<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(std::io::Cursor::new(self.from(start)?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let bytes = self.from(start)?;
        if bytes.len() < length {
            return Err(ParquetError::EOF("a page ends behind its column".into()));
        }
        Ok(bytes.slice(..length))
    }
}
