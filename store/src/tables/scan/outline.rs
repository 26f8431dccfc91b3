//! What shows that no row of a row group passes, for a whole file: the tenth of its footer that searches ask for every
//! file, so that those of thousands of files stay in memory. Of a bloom filter one piece is read, with the block that would
//! know the text: pieces have checksums ([`Sums`]).

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parquet::bloom_filter::Sbbf;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;
use twox_hash::XxHash64;

use super::super::sums::{Blocks, Sums};
use super::footers::Layout;

/// See the module documentation.
pub(super) struct Outline {
    layout: Arc<Layout>,
    groups: Vec<Group>,
    sums: Sums,
    /// That a filter is broken was told.
    is_told: AtomicBool,
}

/// A row group.
pub(in super::super) struct Group {
    rows: usize,
    chunks: Box<[Chunk]>,
}

/// A column of a row group.
pub(in super::super) struct Chunk {
    bounds: Option<(i64, i64)>,
    nulls: Nulls,
    bloom: Option<Bloom>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Nulls {
    None,
    Some,
    All,
    Unknown,
}

/// A bloom filter, and the number of its first checksum.
#[derive(Clone, Copy)]
struct Bloom {
    blocks: Blocks,
    sum: u32,
}

impl Outline {
    pub(super) fn new(metadata: &ParquetMetaData, layout: Arc<Layout>, sums: Sums) -> Self {
        let mut next = sums.first_of_filters();
        let groups = metadata.row_groups().iter().map(|group| Group::new(group, &mut next)).collect();
        Self { layout, groups, sums, is_told: AtomicBool::new(false) }
    }

    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The chunk of a column that is no map; none if the file has no such column.
    pub(super) fn chunk(&self, group: usize, column: &str) -> Option<&Chunk> {
        self.groups.get(group)?.chunks.get(self.layout.leaf(column)?)
    }

    /// False if no row of the row group has exactly this text in the column of this chunk. A filter that is broken may hold anything.
    pub(super) fn may_hold(&self, (file, path): (&File, &Path), chunk: &Chunk, text: &str) -> bool {
        let Some(bloom) = chunk.bloom else { return true };
        bloom.may_hold(file, text, &self.sums).unwrap_or_else(|| {
            // Answers can do without.
            if !self.is_told.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    file = %path.display(),
                    "a bloom filter cannot be read or does not match its checksum, and is not used; hint: look after the disk"
                );
            }
            true
        })
    }

    /// Checksums.
    pub(super) fn sums(&self) -> &Sums {
        &self.sums
    }

    /// Memory.
    pub(super) fn bytes(&self) -> usize {
        let group = |group: &Group| size_of::<Group>() + size_of_val(&*group.chunks);
        size_of::<Self>() + self.sums.bytes() + self.groups.iter().map(group).sum::<usize>()
    }
}

impl Group {
    /// `next`: the number of the next checksum.
    fn new(metadata: &RowGroupMetaData, next: &mut u32) -> Self {
        let rows = usize::try_from(metadata.num_rows()).unwrap_or_default();
        Self { rows, chunks: metadata.columns().iter().map(|column| Chunk::new(column, next)).collect() }
    }

    pub(in super::super) fn rows(&self) -> usize {
        self.rows
    }
}

impl Chunk {
    fn new(metadata: &ColumnChunkMetaData, next: &mut u32) -> Self {
        let nulls = match metadata.statistics().and_then(Statistics::null_count_opt) {
            Some(0) => Nulls::None,
            Some(nulls) if i64::try_from(nulls) == Ok(metadata.num_values()) => Nulls::All,
            Some(_) => Nulls::Some,
            None => Nulls::Unknown,
        };
        let bloom = Blocks::of(metadata).map(|blocks| Bloom { blocks, sum: *next });
        *next += bloom.map_or(0, |bloom| bloom.blocks.sums());
        Self { bounds: bounds(metadata), nulls, bloom }
    }

    /// Least and greatest value of a numeric column, as stored: times, and counts up to 2⁶³.
    pub(super) fn bounds(&self) -> Option<(i64, i64)> {
        self.bounds
    }

    /// Known to have a value in every row.
    pub(super) fn is_full(&self) -> bool {
        self.nulls == Nulls::None
    }

    /// Known to have no value.
    pub(super) fn is_empty(&self) -> bool {
        self.nulls == Nulls::All
    }
}

fn bounds(metadata: &ColumnChunkMetaData) -> Option<(i64, i64)> {
    match metadata.statistics()? {
        Statistics::Int64(values) => Some((*values.min_opt()?, *values.max_opt()?)),
        Statistics::Boolean(_)
        | Statistics::Int32(_)
        | Statistics::Int96(_)
        | Statistics::Float(_)
        | Statistics::Double(_)
        | Statistics::ByteArray(_)
        | Statistics::FixedLenByteArray(_) => None,
    }
}

impl Bloom {
    /// False if the text was not put in; `None`: what would say so is broken. The block is chosen as the format's specification says: by the
    /// upper half of the hash.
    fn may_hold(self, file: &File, text: &str, sums: &Sums) -> Option<bool> {
        let hash = XxHash64::oneshot(0, text.as_bytes());
        let block = (((hash >> 32) * u64::from(self.blocks.count)) >> 32) as u32;
        Some(Sbbf::new(&self.blocks.block(file, block, sums, self.sum)?).check(text))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::io::Write;

    use super::*;

    /// What a filter says of a text is what its one block says, whatever its size and wherever it lies.
    #[test]
    fn a_block_says_what_the_filter_says() {
        for (number, least) in [(1_u32, 32), (10, 32), (300, 1 << 9), (5_000, 1 << 13)] {
            let mut filter = Sbbf::new_with_num_of_bytes(least);
            (0..number).for_each(|value| filter.insert(value.to_string().as_str()));
            let mut bytes = vec![7; number as usize];
            filter.write(&mut bytes).unwrap();
            let length = bytes.len() as u32 - number;
            bytes.extend_from_slice(&[9; 100]);
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            let blocks = Blocks { first: u64::from(number + length % 32), count: length / 32 };
            let bloom = Bloom { blocks, sum: 0 };
            assert_eq!(blocks.count as usize, filter.num_blocks(), "{number}");
            let (mut held, all) = (0, number * 4);
            for text in (0..all).map(|value| value.to_string()) {
                let may = bloom.may_hold(&file, &text, &Sums::default()).unwrap();
                assert_eq!(may, filter.check(text.as_str()), "{text} of {number}");
                held += u32::from(may);
            }
            assert!((number..all).contains(&held), "{held} of {all}");
        }
    }
}
