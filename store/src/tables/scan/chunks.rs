//! Bytes of column chunks, read from a file into memory that is used again: what is asked of the system anew for each column comes
//! page by page, and that takes longer than the reading.

use std::cell::RefCell;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use parquet::arrow::arrow_reader::RowSelection;
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::reader::{ChunkReader, Length};

use super::super::encode::read_at;
use super::super::observed::Observed;

/// Bytes that are read to save a second read: of what is asked for whole, and of single pages.
const GAP: u64 = 1 << 15;
const GAP_OF_PAGES: u64 = 1 << 12;
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

/// The bytes of some column chunks, or of some of their pages.
pub(super) struct Chunks {
    parts: Vec<(u64, Bytes)>,
    length: u64,
}

/// The bytes of a column chunk.
fn whole(column: &ColumnChunkMetaData) -> Range<u64> {
    let (first, length) = column.byte_range();
    first..first.saturating_add(length)
}

/// The bytes of the pages that have rows of the selection, and of the dictionary, which lies in front of the first page.
fn pages(column: &ColumnChunkMetaData, selection: &RowSelection, pages: &[PageLocation]) -> Vec<Range<u64>> {
    let whole = whole(column);
    let Some(first) = pages.first().and_then(|page| u64::try_from(page.offset).ok()) else { return vec![whole] };
    let mut ranges = selection.scan_ranges(pages);
    if whole.start < first {
        ranges.push(whole.start..first);
    }
    ranges
}

impl Chunks {
    /// Reads columns.
    pub(super) fn whole<'a>(
        file: &File,
        columns: impl Iterator<Item = &'a ColumnChunkMetaData>,
    ) -> Result<Self, ParquetError> {
        Self::read(file, columns.map(whole).collect(), GAP)
    }

    /// Reads what a selection needs of columns, of each of which it is known where its pages are.
    pub(super) fn pages<'a>(
        file: &File,
        columns: impl Iterator<Item = (&'a ColumnChunkMetaData, &'a [PageLocation])>,
        selection: &RowSelection,
    ) -> Result<Self, ParquetError> {
        Self::read(file, columns.flat_map(|(column, at)| pages(column, selection, at)).collect(), GAP_OF_PAGES)
    }

    /// Ranges that lie together are read with one call.
    fn read(file: &File, mut ranges: Vec<Range<u64>>, gap: u64) -> Result<Self, ParquetError> {
        ranges.sort_unstable_by_key(|range| range.start);
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for Range { start, end } in ranges {
            match joined.last_mut() {
                Some(last) if start <= last.1.saturating_add(gap) => last.1 = last.1.max(end),
                Some(_) | None => joined.push((start, end)),
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

/// A file that several threads read: each read says where. A cloned handle would share its position with the others.
pub(super) struct Positioned<'a> {
    pub(super) file: &'a File,
    /// Who wants to know how much is read.
    pub(super) observed: Option<&'a Observed>,
}

impl Length for Positioned<'_> {
    fn len(&self) -> u64 {
        self.file.metadata().map_or(0, |about| about.len())
    }
}

impl ChunkReader for Positioned<'_> {
    type T = std::io::Cursor<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(std::io::Cursor::new(self.get_bytes(start, self.len().saturating_sub(start) as usize)?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        if start.saturating_add(length as u64) > self.len() {
            return Err(ParquetError::EOF("a footer ends behind its file".into()));
        }
        if let Some(observed) = self.observed {
            observed.read(length as u64);
        }
        read_at(self.file, start, length as u64)
    }
}
