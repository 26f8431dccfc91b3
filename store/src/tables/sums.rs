//! Checksums of what a file has besides its pages: bloom filters, page indexes, the footer.
//!
//! Parquet has a place for checksums of pages alone. A bit that a disk has turned in a filter or in a bound would hide rows, and nobody
//! would know. So there are checksums in front of the footer, where no reader of Parquet looks, all CRC-32:
//!
//! ```text
//! sums | number of sums: u32 | of all that lies from the sums to the end of the footer, without itself: u32 | "WTS1" | footer | its length: u32 | "PAR1"
//! ```
//!
//! (little endian). The sums are those of the offset indexes of each row group, of the column indexes of each, and of each [`PIECE`] of each
//! bloom filter, in the order of row groups and columns. Files of earlier releases, and those of others, have none.
//!
//! A footer that does not match is that of a file that cannot be read. A filter or index that does not match is not used: answers are the same without.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, FooterTail, PageIndexPolicy, ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader,
    RowGroupMetaData,
};
use parquet::file::reader::ChunkReader;

use super::encode::read_at;

/// Bytes of a bloom filter that have one checksum: a search reads so many to ask for a text.
const PIECE: u32 = 4_096;
/// Bytes of a block of a bloom filter.
const BLOCK: u32 = 32;
const MAGIC: &[u8; 4] = b"WTS1";
/// Number of sums, their own checksum, [`MAGIC`].
const HEAD: usize = 12;
/// Length of the footer, magic of Parquet.
const TAIL: usize = 8;
/// Bytes that are read of a file at first: most footers are within.
const FIRST: u64 = 1 << 16;

/// The checksums of a file; none if it is of an earlier release.
#[derive(Default)]
pub(super) struct Sums {
    of: Box<[u32]>,
    groups: usize,
}

/// Which of the page indexes of a row group.
#[derive(Clone, Copy)]
pub(super) enum Index {
    /// Where pages are.
    Offsets,
    /// Their bounds.
    Columns,
}

/// The bits of a bloom filter: a header of less than a block, then blocks.
#[derive(Clone, Copy)]
pub(super) struct Blocks {
    pub(super) first: u64,
    pub(super) count: u32,
}

impl Blocks {
    pub(super) fn of(column: &ColumnChunkMetaData) -> Option<Self> {
        let offset = u64::try_from(column.bloom_filter_offset()?).ok()?;
        let length = u32::try_from(column.bloom_filter_length()?).ok()?;
        let first = offset.checked_add(u64::from(length % BLOCK))?;
        (length >= BLOCK).then_some(Self { first, count: length / BLOCK })
    }

    /// How many checksums they have.
    pub(super) fn sums(self) -> u32 {
        self.count.div_ceil(PIECE / BLOCK)
    }

    /// The bytes of a piece.
    fn piece(self, number: u32) -> Range<u64> {
        let (first, end) = (self.first, self.first.saturating_add(u64::from(self.count) * u64::from(BLOCK)));
        let begin = first.saturating_add(u64::from(number) * u64::from(PIECE));
        begin..end.min(begin.saturating_add(PIECE.into()))
    }

    /// A block, if what lies around it matches its checksum; `sum` is the number of the first of the filter's.
    pub(super) fn block(self, file: &File, number: u32, sums: &Sums, sum: u32) -> Option<[u8; BLOCK as usize]> {
        let per_piece = PIECE / BLOCK;
        let piece = self.piece(number / per_piece);
        let bytes = read_at(file, piece.start, piece.end.saturating_sub(piece.start)).ok()?;
        let at = (number % per_piece * BLOCK) as usize;
        let block = bytes.get(at..at + BLOCK as usize)?.try_into().ok()?;
        sums.hold(sum + number / per_piece, &bytes).then_some(block)
    }
}

impl Sums {
    /// Memory.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.of)
    }

    /// Whether bytes have the checksum of this number; without checksums they have.
    fn hold(&self, number: u32, bytes: &[u8]) -> bool {
        self.of.is_empty() || self.of.get(number as usize) == Some(&crc32fast::hash(bytes))
    }

    /// The number of the first checksum of bloom filters.
    pub(super) fn first_of_filters(&self) -> u32 {
        2 * self.groups as u32
    }

    /// Whether an index of a row group is as it was written; `at`: the number of the row group.
    pub(super) fn index_holds(
        &self,
        bytes: &impl ChunkReader,
        group: &RowGroupMetaData,
        at: usize,
        which: Index,
    ) -> bool {
        let number = match which {
            Index::Offsets => at,
            Index::Columns => self.groups + at,
        };
        let Range { start, end } = which.range(group);
        let read = || bytes.get_bytes(start, end.saturating_sub(start) as usize);
        self.of.is_empty() || read().is_ok_and(|bytes| self.hold(number as u32, &bytes))
    }

    /// Whether all of that is.
    fn indexes_hold(&self, file: &File, metadata: &ParquetMetaData) -> bool {
        let groups = || metadata.row_groups().iter().enumerate();
        let all = [Index::Offsets, Index::Columns].into_iter().flat_map(|which| groups().map(move |of| (which, of)));
        all.into_iter().all(|(which, (at, group))| self.index_holds(file, group, at, which))
    }

    /// The columns, each with the number of its row group and its own, whose bloom filter is not as it was written.
    fn broken_filters(&self, reader: &impl ChunkReader, metadata: &ParquetMetaData) -> Vec<(usize, usize)> {
        let (mut next, mut broken) = (self.first_of_filters(), Vec::new());
        for (group, about) in metadata.row_groups().iter().enumerate() {
            for (column, blocks) in
                about.columns().iter().enumerate().filter_map(|(at, of)| Some((at, Blocks::of(of)?)))
            {
                let holds = |piece| {
                    let Range { start, end } = blocks.piece(piece);
                    let read = reader.get_bytes(start, end.saturating_sub(start) as usize);
                    read.is_ok_and(|bytes| self.hold(next + piece, &bytes))
                };
                if !(0..blocks.sums()).all(holds) {
                    broken.push((group, column));
                }
                next += blocks.sums();
            }
        }
        broken
    }

    /// Of a file that is there but for them.
    fn taken(file: &File, metadata: &ParquetMetaData) -> Result<Vec<u32>, ParquetError> {
        let of = |range: Range<u64>| -> Result<u32, ParquetError> {
            Ok(crc32fast::hash(&read_at(file, range.start, range.end.saturating_sub(range.start))?))
        };
        let groups = metadata.row_groups();
        let mut sums = Vec::new();
        for which in [Index::Offsets, Index::Columns] {
            for group in groups {
                sums.push(of(which.range(group))?);
            }
        }
        for blocks in groups.iter().flat_map(RowGroupMetaData::columns).filter_map(Blocks::of) {
            for piece in 0..blocks.sums() {
                sums.push(of(blocks.piece(piece))?);
            }
        }
        Ok(sums)
    }
}

impl Index {
    /// From its first column's to the end of its last one's.
    fn range(self, group: &RowGroupMetaData) -> Range<u64> {
        let own = |column: &ColumnChunkMetaData| {
            let (offset, length) = match self {
                Self::Offsets => (column.offset_index_offset()?, column.offset_index_length()?),
                Self::Columns => (column.column_index_offset()?, column.column_index_length()?),
            };
            let (first, length) = (u64::try_from(offset).ok()?, u64::try_from(length).ok()?);
            Some(first..first.saturating_add(length))
        };
        let all = group.columns().iter().filter_map(own);
        all.reduce(|all, own| all.start.min(own.start)..all.end.max(own.end)).unwrap_or(0..0)
    }
}

/// Adds the checksums to a file that is written to its end, whose metadata this is.
pub(super) fn append(file: &File, metadata: &ParquetMetaData) -> Result<(), ParquetError> {
    let sums = Sums::taken(file, metadata)?;
    let length = file.metadata()?.len();
    let footer = footer_length(&read_last(file, TAIL)?)?;
    let whole = read_last(file, footer + TAIL)?;
    let bytes: Vec<u8> = sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
    let count = (sums.len() as u32).to_le_bytes();
    let own = own_sum([&bytes, &count, whole.get(..footer).unwrap_or_default()]).to_le_bytes();
    let end = [&bytes[..], &count, &own, MAGIC, &whole].concat();
    Ok(file.write_all_at(&end, length.saturating_sub(whole.len() as u64))?)
}

/// What a file says of itself, if that matches its checksum, and the other checksums.
pub(super) fn read(
    reader: &impl ChunkReader,
    options: Option<&ParquetMetaDataOptions>,
) -> Result<(ParquetMetaData, Sums), ParquetError> {
    let length = reader.len();
    let first = reader.get_bytes(length.saturating_sub(FIRST), length.min(FIRST) as usize)?;
    let last = |count: usize| match first.len().checked_sub(count) {
        Some(skip) => Ok(first.slice(skip..)),
        None => reader.get_bytes(length.checked_sub(count as u64).ok_or_else(too_short)?, count),
    };
    let whole = footer_length(&last(TAIL)?)? + TAIL;
    let footer = last(whole)?.slice(..whole - TAIL);
    let head = if length < (whole + HEAD) as u64 { Bytes::new() } else { last(whole + HEAD)?.slice(..HEAD) };
    let of = match head.as_chunks().0 {
        [count, own, magic] if magic == MAGIC => {
            let length = (u32::from_le_bytes(*count) as usize).saturating_mul(4);
            let sums = last((whole + HEAD).saturating_add(length))?.slice(..length);
            if own_sum([&sums, count, &footer]).to_le_bytes() != *own {
                return Err(ParquetError::General("the footer does not match its checksum".into()));
            }
            sums.as_chunks().0.iter().map(|sum| u32::from_le_bytes(*sum)).collect()
        }
        _ => Box::default(),
    };
    let metadata = ParquetMetaDataReader::decode_metadata_with_options(&footer, options)?;
    let sums = Sums { of, groups: metadata.num_row_groups() };
    Ok((metadata, sums))
}

/// What a file says of itself and of its pages, but for filters and indexes that do not match.
pub(super) fn read_whole(file: &File) -> Result<ParquetMetaData, ParquetError> {
    let (mut metadata, sums) = read(file, None)?;
    let broken = sums.broken_filters(file, &metadata);
    if !broken.is_empty() {
        metadata = without_filters(metadata, &broken)?;
    }
    if !sums.indexes_hold(file, &metadata) {
        return Ok(metadata);
    }
    let mut reader =
        ParquetMetaDataReader::new_with_metadata(metadata).with_page_index_policy(PageIndexPolicy::Optional);
    reader.read_page_indexes(file)?;
    reader.finish()
}

/// The same, but that these columns have no bloom filter.
fn without_filters(metadata: ParquetMetaData, of: &[(usize, usize)]) -> Result<ParquetMetaData, ParquetError> {
    let mut groups = metadata.row_groups().to_vec();
    for (number, group) in groups.iter_mut().enumerate() {
        let mut columns = group.columns().to_vec();
        for (at, column) in columns.iter_mut().enumerate() {
            if of.contains(&(number, at)) {
                let without = column.clone().into_builder().set_bloom_filter_offset(None).set_bloom_filter_length(None);
                *column = without.build()?;
            }
        }
        *group = group.clone().into_builder().set_column_metadata(columns).build()?;
    }
    Ok(metadata.into_builder().set_row_groups(groups).build())
}

/// Of the sums, their number, and the footer.
fn own_sum(parts: [&[u8]; 3]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    for part in parts {
        crc.update(part);
    }
    crc.finalize()
}

fn footer_length(tail: &[u8]) -> Result<usize, ParquetError> {
    let tail = FooterTail::try_new(tail.try_into().map_err(|_| too_short())?)?;
    Ok(tail.metadata_length())
}

fn too_short() -> ParquetError {
    ParquetError::EOF("a footer is longer than its file".into())
}

/// The last bytes of a file.
fn read_last(file: &File, count: usize) -> Result<Bytes, ParquetError> {
    let first = file.metadata()?.len().checked_sub(count as u64).ok_or_else(too_short)?;
    read_at(file, first, count as u64)
}
