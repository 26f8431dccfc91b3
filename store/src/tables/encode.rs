//! How columns are encoded, and the writing of row groups: a column at a time, so that a row group needs the memory of its
//! encoded bytes and of one column.
//!
//! * Pages are compressed where that is worth it, and have checksums ([`super::sealed`]), as has all else of a file ([`super::sums`]).
//! * Bloom filters are made of the distinct values that rows have.
//! * Pages are small: a search that wants few rows of a group decodes the pages around them.
//! * A row group that was encoded before is taken over as it is, or the columns of it that do not change: bytes are copied, nothing
//!   is decoded.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Cursor};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, UInt64Array};
use datafusion::arrow::compute::{max, min};
use datafusion::arrow::datatypes::{DataType, Field, Int32Type, SchemaRef};
use foldhash::fast::RandomState;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, ArrowWriterOptions, compute_leaves};
use parquet::basic::{Compression, Encoding};
use parquet::bloom_filter::Sbbf;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{ColumnDescPtr, ColumnPath};

use super::columns::UNIQUE;
use super::dictionary::Keyed;
use super::error::TableError;
use super::sealed::{Kept, Sealer};
use super::sums;

/// Rows of a row group at most.
pub(super) const GROUP: usize = 131_072;
/// Rows of a page at most.
pub(super) const PAGE: usize = 4_096;
/// False answers of a bloom filter.
const FALSE: f64 = 0.03;
/// Columns that searches for one address, flow, container or name look up, where the table has them.
pub(super) const BLOOM: &[&str] = &[
    "flow_id",
    "community_id",
    "client_ip",
    "server_ip",
    "client_identity",
    "server_identity",
    "client_pod",
    "server_pod",
    "client_container",
    "server_container",
    "client_workload",
    "server_workload",
    "dns_query",
    "tls_sni",
    "tls_ja4",
    "http_host",
    "http_path",
];

/// Texts of which it is known whether none are null: for searches for those without a name. Whether all are is known of each.
const COUNTED: &[&str] = &["client_identity", "server_identity", "client_nat_ip", "server_nat_ip"];

/// Numbers that hardly ever come again: not worth a dictionary. Packed into as many bits as their neighbours need they take some more
/// bytes than plain ones under zstd, and much less time to read. They are not compressed once more.
const MEASURED: &[&str] = &[
    "client_port",
    "client_bytes",
    "server_bytes",
    "client_payload_bytes",
    "server_payload_bytes",
    "handshake_rtt_us",
    "client_rtt_us",
    "server_rtt_us",
    "client_rtt_avg_us",
    "server_rtt_avg_us",
    "client_rtt_max_us",
    "server_rtt_max_us",
    "response_time_first_us",
    "response_time_avg_us",
    "response_time_max_us",
    "dns_latency_us",
    "http_latency_us",
    "latency_us",
    "request_bytes",
    "response_bytes",
];

/// What a file has: roll-ups are kept longest, are written once, and have few times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Rows,
    Rollup,
}

/// How the library makes pages: plain. What becomes of them is decided when they are sealed.
fn properties(schema: &SchemaRef, holds: Holds) -> WriterProperties {
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::UNCOMPRESSED)
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by("wiretag".into())
        .set_max_row_group_row_count(Some(GROUP))
        .set_data_page_row_count_limit(PAGE)
        .set_write_batch_size(PAGE)
        .set_statistics_enabled(EnabledStatistics::Chunk);
    for field in schema.fields() {
        let path = ColumnPath::from(field.name().as_str());
        match field.data_type() {
            DataType::Timestamp(..) if holds == Holds::Rows => {
                builder = builder
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED)
                    .set_column_statistics_enabled(path, EnabledStatistics::Page);
            }
            DataType::UInt64 => {
                if MEASURED.contains(&field.name().as_str()) {
                    builder = builder
                        .set_column_dictionary_enabled(path.clone(), false)
                        .set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED);
                }
                // See `bounds`.
                builder = builder.set_column_statistics_enabled(path, EnabledStatistics::None);
            }
            DataType::Utf8 if UNIQUE.contains(&field.name().as_str()) => {
                builder = builder
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_statistics_enabled(path, EnabledStatistics::None);
            }
            DataType::Utf8 if !COUNTED.contains(&field.name().as_str()) => {
                builder = builder.set_column_statistics_enabled(path, EnabledStatistics::None);
            }
            DataType::Map(..) => {
                for leaf in ["key", "value"] {
                    let path = ColumnPath::new([field.name(), "key_value", leaf].map(str::to_owned).to_vec());
                    builder = builder.set_column_statistics_enabled(path, EnabledStatistics::None);
                }
            }
            _ => {}
        }
    }
    builder.build()
}

/// Writes a file, row group by row group.
pub(super) struct Encoder {
    writer: SerializedFileWriter<BufWriter<File>>,
    columns: ArrowRowGroupWriterFactory,
    pages: Pages,
    schema: SchemaRef,
    groups: usize,
}

/// Pages of a column on their way to the file.
struct Pages {
    /// Those that the library made.
    kept: Kept,
    sealer: Sealer,
    /// Columns that have bloom filters.
    blooms: &'static [&'static str],
}

impl Encoder {
    pub(super) fn new(file: File, schema: &SchemaRef, holds: Holds) -> Result<Self, ParquetError> {
        let kept = Kept::default();
        let options = ArrowWriterOptions::new()
            .with_properties(properties(schema, holds))
            .with_page_store_factory(Arc::new(kept.clone()));
        let file = BufWriter::with_capacity(1 << 18, file);
        let writer = ArrowWriter::try_new_with_options(file, schema.clone(), options)?;
        let (writer, columns) = writer.into_serialized_writer()?;
        // Of roll-ups nobody asks for a needle.
        let blooms = if holds == Holds::Rows { BLOOM } else { &[] };
        let pages = Pages { kept, sealer: Sealer::new(holds)?, blooms };
        Ok(Self { writer, columns, pages, schema: schema.clone(), groups: 0 })
    }

    /// What Parquet's columns of the next row group are written with.
    fn leaves(&self) -> Result<impl Iterator<Item = Leaf> + use<>, ParquetError> {
        let columns = self.writer.schema_descr().columns().to_vec();
        Ok(self.columns.create_column_writers(self.groups)?.into_iter().zip(columns))
    }

    /// Writes a row group from its columns, in the order of the schema.
    pub(super) fn row_group(
        &mut self,
        arrays: impl Iterator<Item = Result<ArrayRef, TableError>>,
    ) -> Result<(), TableError> {
        let mut leaves = self.leaves()?;
        let mut group = self.writer.next_row_group()?;
        for (field, array) in self.schema.fields().iter().zip(arrays) {
            encode(&mut group, (&mut leaves, &mut self.pages), (field, &array?))?;
        }
        group.close()?;
        self.groups += 1;
        Ok(())
    }

    /// Takes over a row group of another file with the same columns as it is.
    pub(super) fn splice(
        &mut self,
        source: &File,
        metadata: &ParquetMetaData,
        number: usize,
    ) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        for at in 0..metadata.row_group(number).num_columns() {
            copy(&mut group, (source, metadata), (number, at))?;
        }
        group.close()?;
        self.groups += 1;
        Ok(())
    }

    /// Takes over a row group of another file with the same columns, but for those columns that `changed` has anew.
    pub(super) fn splice_changed(
        &mut self,
        (source, metadata): (&File, &ParquetMetaData),
        number: usize,
        mut changed: impl FnMut(&Field) -> Result<Option<ArrayRef>, TableError>,
    ) -> Result<(), TableError> {
        let mut leaves = self.leaves()?;
        let mut group = self.writer.next_row_group()?;
        let mut stored = metadata.row_group(number).columns().iter().enumerate().peekable();
        for field in self.schema.fields() {
            let array = changed(field)?;
            if let Some(array) = &array {
                encode(&mut group, (&mut leaves, &mut self.pages), (field, array))?;
            }
            let of_field =
                |leaf: &(usize, &ColumnChunkMetaData)| leaf.1.column_path().parts().first() == Some(field.name());
            while let Some((at, _)) = stored.next_if(of_field) {
                if array.is_none() {
                    leaves.next();
                    copy(&mut group, (source, metadata), (number, at))?;
                }
            }
        }
        group.close()?;
        self.groups += 1;
        Ok(())
    }

    /// Ends the file; it is not synced yet.
    pub(super) fn finish(mut self) -> Result<File, ParquetError> {
        let metadata = self.writer.finish()?;
        let file = self.writer.inner().get_ref().try_clone()?;
        sums::append(&file, &metadata)?;
        Ok(file)
    }
}

/// A row group that is being written.
type Group<'a> = SerializedRowGroupWriter<'a, BufWriter<File>>;

/// What a column of Parquet is written with: by the library, and as.
type Leaf = (ArrowColumnWriter, ColumnDescPtr);

/// Writes a column to a row group.
fn encode(
    group: &mut Group<'_>,
    (leaves, pages): (&mut impl Iterator<Item = Leaf>, &mut Pages),
    (field, array): (&Field, &ArrayRef),
) -> Result<(), TableError> {
    let name = field.name().as_str();
    let has_bloom = pages.blooms.contains(&name);
    let comes_again = !MEASURED.contains(&name) && !UNIQUE.contains(&name) && field.is_nullable();
    if let Some(columns) = comes_again.then(|| Keyed::of(array)).flatten() {
        for keyed in columns {
            let (_, column) = leaves.next().ok_or_else(too_many)?;
            let (plain, close) = keyed.pages(column)?;
            let (bytes, mut close) = pages.sealer.chunk(&plain, close)?;
            let nulls = Some(array.null_count() as u64);
            if array.data_type().is_integer() {
                let [least, greatest] = keyed.bounds().map(|bound| bound.map(u64::cast_signed));
                set_statistics(&mut close, Statistics::int64(least, greatest, None, nulls, false))?;
            } else if COUNTED.contains(&name) || array.null_count() == array.len() {
                set_statistics(&mut close, Statistics::byte_array(None, None, None, nulls, false))?;
            }
            close.bloom_filter = has_bloom.then(|| filter_of(&keyed.texts().collect::<Vec<_>>())).flatten();
            group.append_column(&bytes, close)?;
        }
        return Ok(());
    }
    // Texts in maps may be dictionaries: the array says what it is.
    let field = Field::new(name, array.data_type().clone(), field.is_nullable());
    for leaf in compute_leaves(&field, array)? {
        let (mut writer, _) = leaves.next().ok_or_else(too_many)?;
        writer.write(&leaf)?;
        let close = writer.close()?.close().clone();
        let (bytes, mut close) = pages.sealer.chunk(&pages.kept.take(), close)?;
        if let Some(numbers) = array.as_primitive_opt() {
            set_statistics(&mut close, bounds(numbers))?;
        }
        if has_bloom {
            close.bloom_filter = bloom(array);
        }
        group.append_column(&bytes, close)?;
    }
    Ok(())
}

fn too_many() -> ParquetError {
    ParquetError::General("more columns than the schema has".into())
}

fn set_statistics(close: &mut ColumnCloseResult, statistics: Statistics) -> Result<(), ParquetError> {
    close.metadata = close.metadata.clone().into_builder().set_statistics(statistics).build()?;
    Ok(())
}

/// Takes a column chunk of another file over: group and column by their numbers.
fn copy(
    group: &mut Group<'_>,
    (source, metadata): (&File, &ParquetMetaData),
    (number, at): (usize, usize),
) -> Result<(), ParquetError> {
    let from = metadata.row_group(number);
    let column = from.column(at);
    let (first, length) = column.byte_range();
    let shift = Shifted { bytes: read_at(source, first, length)?, first };
    let close = ColumnCloseResult {
        bytes_written: length,
        rows_written: from.num_rows() as u64,
        metadata: column.clone(),
        bloom_filter: Sbbf::read_from_column_chunk(column, source)?,
        column_index: metadata.column_index().and_then(|all| all.get(number)?.get(at)).cloned(),
        offset_index: metadata.offset_index().and_then(|all| all.get(number)?.get(at)).cloned(),
    };
    group.append_column(&shift, close)
}

/// Least and greatest of numbers: what the library compares value by value, through its type.
fn bounds(numbers: &UInt64Array) -> Statistics {
    let [least, greatest] = [min(numbers), max(numbers)].map(|number| number.map(u64::cast_signed));
    Statistics::int64(least, greatest, None, Some(numbers.null_count() as u64), false)
}

/// A filter of the distinct texts that rows of a column have.
fn bloom(array: &ArrayRef) -> Option<Sbbf> {
    match array.as_dictionary_opt::<Int32Type>() {
        Some(words) => filter_of(&in_use(words)?),
        None => filter_of(&array.as_string_opt::<i32>()?.iter().flatten().map(str::as_bytes).collect::<Vec<_>>()),
    }
}

/// Of rows that were filtered a dictionary has words that none has any more: of what was erased nothing stays. Of some that were put together it has
/// a word twice.
fn in_use(words: &DictionaryArray<Int32Type>) -> Option<Vec<&[u8]>> {
    let texts = words.values().as_string_opt::<i32>()?;
    let mut is_used = vec![false; texts.len()];
    for key in words.keys().iter().flatten() {
        if let Some(is_used) = is_used.get_mut(key as usize) {
            *is_used = true;
        }
    }
    let used = texts.iter().zip(is_used).filter_map(|(text, is_used)| text.filter(|_| is_used));
    let distinct: HashSet<&[u8], RandomState> = used.map(str::as_bytes).collect();
    Some(distinct.into_iter().collect())
}

fn filter_of(texts: &[&[u8]]) -> Option<Sbbf> {
    if texts.is_empty() {
        return None;
    }
    let mut filter = Sbbf::new_with_ndv_fpp(texts.len() as u64, FALSE).ok()?;
    for text in texts {
        filter.insert(*text);
    }
    Some(filter)
}

/// Bytes of a file.
pub(super) fn read_at(file: &File, first: u64, length: u64) -> Result<Bytes, ParquetError> {
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, first)?;
    Ok(bytes.into())
}

/// The bytes of one column chunk, addressed as in their file.
struct Shifted {
    bytes: Bytes,
    first: u64,
}

impl Length for Shifted {
    fn len(&self) -> u64 {
        self.first + self.bytes.len() as u64
    }
}

impl ChunkReader for Shifted {
    type T = Cursor<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(Cursor::new(self.get_bytes(start, self.len().saturating_sub(start) as usize)?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let first = start.checked_sub(self.first).map(|first| first as usize);
        let range = first.and_then(|first| Some(first..first.checked_add(length)?));
        match range.filter(|range| range.end <= self.bytes.len()) {
            Some(range) => Ok(self.bytes.slice(range)),
            None => Err(ParquetError::EOF("a column ends early".into())),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it fails")]
mod tests {
    use datafusion::arrow::array::BooleanArray;
    use datafusion::arrow::compute::{concat, filter};

    use super::*;

    #[test]
    fn bloom_filters_have_no_word_that_no_row_has() {
        let words: DictionaryArray<Int32Type> =
            [Some("a"), Some("b"), None, Some("a"), Some("c")].into_iter().collect();
        let stays = BooleanArray::from(vec![true, false, true, true, true]);
        let left = filter(&words, &stays).unwrap();
        let kept = left.as_dictionary::<Int32Type>().values().len();
        assert_eq!(kept, 3, "the dictionary has what it had");
        let found = bloom(&left).unwrap();
        assert_eq!(["a", "b", "c"].map(|word| found.check(word)), [true, false, true]);
        let twice = concat(&[&words, &words]).unwrap();
        assert_eq!(in_use(twice.as_dictionary()).unwrap().len(), 3);
        assert!(bloom(&filter(&words, &BooleanArray::from(vec![false; 5])).unwrap()).is_none());
    }

    #[test]
    fn bounds_of_numbers_are_as_unsigned_and_leave_out_nulls() {
        let of = |numbers: Vec<Option<u64>>| bounds(&UInt64Array::from(numbers));
        let stored = |least: Option<u64>, greatest: Option<u64>, nulls| {
            let [least, greatest] = [least, greatest].map(|number| number.map(u64::cast_signed));
            Statistics::int64(least, greatest, None, Some(nulls), false)
        };
        assert_eq!(of(vec![Some(7), None, Some(u64::MAX), Some(3)]), stored(Some(3), Some(u64::MAX), 1));
        assert_eq!(of(vec![None, None]), stored(None, None, 2));
    }
}
