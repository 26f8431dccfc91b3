//! Which row groups cannot hold a row that passes: by least and greatest values, and by bloom filters.
//!
//! The answer errs to one side: what is not understood may pass.

use std::fs::File;

use bytes::Bytes;
use parquet::bloom_filter::Sbbf;
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::statistics::Statistics;

use super::super::Table;
use super::super::encode::read_at;
use super::super::observed::LeftOut;
use super::footers::OpenFile;
use crate::query::ast::{self, Compare, Node, Test, TextTest};

/// Least and greatest value of a numeric column, as stored: times, and counts up to 2⁶³.
pub(super) fn bounds(chunk: &ColumnChunkMetaData) -> Option<(i64, i64)> {
    match chunk.statistics()? {
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

/// How many values are null, if that is known.
fn nulls(chunk: &ColumnChunkMetaData) -> Option<u64> {
    chunk.statistics()?.null_count_opt()
}

/// What shows that the row group holds no row for which `node` is true.
pub(super) fn left_out<R: Table>(file: &OpenFile, group: usize, node: &Node<R>) -> Option<LeftOut> {
    if !may_pass(file, group, node, false) {
        return Some(LeftOut::Statistics);
    }
    (!may_pass(file, group, node, true)).then_some(LeftOut::Bloom)
}

/// `blooms`: ask bloom filters too, which have to be read.
fn may_pass<R: Table>(file: &OpenFile, group: usize, node: &Node<R>, blooms: bool) -> bool {
    match node {
        Node::All => true,
        Node::Not(inner) => match &**inner {
            Node::Test(field, Test::Exists) if field.key.is_none() => {
                file.chunk(group, field.column.name()).is_none_or(|chunk| nulls(chunk) != Some(0))
            }
            Node::All | Node::Not(_) | Node::And(_) | Node::Or(_) | Node::Test(..) => true,
        },
        Node::And(nodes) => nodes.iter().all(|node| may_pass(file, group, node, blooms)),
        Node::Or(nodes) => nodes.iter().any(|node| may_pass(file, group, node, blooms)),
        Node::Test(field, test) => may_hold(file, group, field, test, blooms),
    }
}

fn may_hold<R: Table>(file: &OpenFile, group: usize, field: &ast::Field<R>, test: &Test, blooms: bool) -> bool {
    if field.key.is_some() {
        return true;
    }
    // A column that the file does not have is null: no test passes.
    let Some(chunk) = file.chunk(group, field.column.name()) else { return false };
    if nulls(chunk).is_some_and(|nulls| i64::try_from(nulls) == Ok(chunk.num_values())) {
        return false;
    }
    match test {
        Test::Number(compare, wanted) => match (bounds(chunk), i64::try_from(*wanted)) {
            (Some((least, greatest)), Ok(wanted)) if least >= 0 && greatest >= 0 => {
                within(*compare, wanted, least, greatest)
            }
            (Some(_) | None, _) => true,
        },
        Test::Time(compare, wanted) => {
            bounds(chunk).is_none_or(|(least, greatest)| within(*compare, *wanted, least, greatest))
        }
        Test::Text(TextTest::Pattern(pattern)) if blooms => {
            pattern.exact().is_none_or(|text| bloom(file, chunk).is_none_or(|bloom| bloom.check(text.as_str())))
        }
        Test::Exists | Test::Bool(_) | Test::Text(_) | Test::NotText(_) => true,
    }
}

fn within(compare: Compare, wanted: i64, least: i64, greatest: i64) -> bool {
    match compare {
        Compare::Equal => least <= wanted && wanted <= greatest,
        Compare::NotEqual => least != wanted || greatest != wanted,
        Compare::Less => least < wanted,
        Compare::LessEqual => least <= wanted,
        Compare::Greater => greatest > wanted,
        Compare::GreaterEqual => greatest >= wanted,
    }
}

/// The bloom filter of a column chunk; a broken one is none.
fn bloom(file: &OpenFile, chunk: &ColumnChunkMetaData) -> Option<Sbbf> {
    chunk.bloom_filter_offset()?;
    Sbbf::read_from_column_chunk(chunk, &Positioned(file.file())).ok().flatten()
}

/// A file that several threads read: each read says where. A cloned handle would share its position with the others.
struct Positioned<'a>(&'a File);

impl Length for Positioned<'_> {
    fn len(&self) -> u64 {
        self.0.metadata().map_or(0, |about| about.len())
    }
}

impl ChunkReader for Positioned<'_> {
    type T = std::io::Cursor<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(std::io::Cursor::new(read_at(self.0, start, self.len().saturating_sub(start))?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        if start.saturating_add(length as u64) > self.len() {
            return Err(ParquetError::EOF("a bloom filter ends behind its file".into()));
        }
        read_at(self.0, start, length as u64)
    }
}
