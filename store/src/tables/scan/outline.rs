//! What shows that no row of a row group passes, for a whole file: the tenth of its footer that searches ask for every
//! file, so that those of thousands of files stay in memory. Of a bloom filter one block is read, the one that would know
//! the text.

use std::fs::File;
use std::sync::Arc;

use parquet::bloom_filter::Sbbf;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;
use twox_hash::XxHash64;

use super::super::encode::read_at;
use super::footers::Layout;

/// Bytes of a block of a bloom filter.
const BLOCK: u32 = 32;

/// See the module documentation.
pub(super) struct Outline {
    layout: Arc<Layout>,
    groups: Vec<Group>,
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

/// Where a bloom filter is: a header of less than a block, then its blocks.
#[derive(Clone, Copy)]
struct Bloom {
    first: u64,
    blocks: u32,
}

impl Outline {
    pub(super) fn new(metadata: &ParquetMetaData, layout: Arc<Layout>) -> Self {
        Self { layout, groups: metadata.row_groups().iter().map(Group::new).collect() }
    }

    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The chunk of a column that is no map; none if the file has no such column.
    pub(super) fn chunk(&self, group: usize, column: &str) -> Option<&Chunk> {
        self.groups.get(group)?.chunks.get(self.layout.leaf(column)?)
    }

    /// Memory.
    pub(super) fn bytes(&self) -> usize {
        let group = |group: &Group| size_of::<Group>() + size_of_val(&*group.chunks);
        size_of::<Self>() + self.groups.iter().map(group).sum::<usize>()
    }
}

impl Group {
    fn new(metadata: &RowGroupMetaData) -> Self {
        let rows = usize::try_from(metadata.num_rows()).unwrap_or_default();
        Self { rows, chunks: metadata.columns().iter().map(Chunk::new).collect() }
    }

    pub(in super::super) fn rows(&self) -> usize {
        self.rows
    }
}

impl Chunk {
    fn new(metadata: &ColumnChunkMetaData) -> Self {
        let nulls = match metadata.statistics().and_then(Statistics::null_count_opt) {
            Some(0) => Nulls::None,
            Some(nulls) if i64::try_from(nulls) == Ok(metadata.num_values()) => Nulls::All,
            Some(_) => Nulls::Some,
            None => Nulls::Unknown,
        };
        Self { bounds: bounds(metadata), nulls, bloom: Bloom::of(metadata) }
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

    /// False if no row has exactly this text.
    pub(super) fn may_hold(&self, file: &File, text: &str) -> bool {
        self.bloom.is_none_or(|bloom| bloom.may_hold(file, text))
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
    fn of(metadata: &ColumnChunkMetaData) -> Option<Self> {
        let offset = u64::try_from(metadata.bloom_filter_offset()?).ok()?;
        let length = u32::try_from(metadata.bloom_filter_length()?).ok()?;
        let first = offset.checked_add(u64::from(length % BLOCK))?;
        (length >= BLOCK).then_some(Self { first, blocks: length / BLOCK })
    }

    /// A filter that cannot be read may hold anything. The block is chosen as the format's specification says: by the upper half
    /// of the hash.
    fn may_hold(self, file: &File, text: &str) -> bool {
        let hash = XxHash64::oneshot(0, text.as_bytes());
        let block = ((hash >> 32) * u64::from(self.blocks)) >> 32;
        let at = self.first.saturating_add(block * u64::from(BLOCK));
        read_at(file, at, u64::from(BLOCK)).map_or(true, |block| Sbbf::new(&block).check(text))
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
            let bloom = Bloom { first: u64::from(number + length % BLOCK), blocks: length / BLOCK };
            assert_eq!(bloom.blocks as usize, filter.num_blocks(), "{number}");
            let (mut held, all) = (0, number * 4);
            for text in (0..all).map(|value| value.to_string()) {
                let may = bloom.may_hold(&file, &text);
                assert_eq!(may, filter.check(text.as_str()), "{text} of {number}");
                held += u32::from(may);
            }
            assert!((number..all).contains(&held), "{held} of {all}");
        }
    }
}
