//! The pages of one column of a row group, for the library to decode. It would make contexts of zstd for each column of each row
//! group, which costs more than many a column; here a thread has one, for all that it reads. Headers, levels and values
//! are the library's: it is told that the column is not compressed, and gets each page with its bytes as they were before.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use parquet::arrow::arrow_reader::RowGroups;
use parquet::basic::Compression;
use parquet::column::page::{Page, PageIterator, PageMetadata, PageReader};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::page_index::offset_index::{OffsetIndexMetaData, PageLocation};
use parquet::file::reader::ChunkReader;
use parquet::file::serialized_reader::SerializedPageReader;
use zstd::bulk::Decompressor;
use zstd::zstd_safe::get_frame_content_size;

thread_local! {
    static CONTEXT: RefCell<Decompressor<'static>> = RefCell::default();
}

/// One row group, with the bytes of the columns that are wanted.
pub(super) struct OneGroup<'a, C> {
    pub(super) metadata: &'a ParquetMetaData,
    pub(super) group: &'a RowGroupMetaData,
    pub(super) bytes: Arc<C>,
    /// Where the pages of each column are, if only some of their bytes are there.
    pub(super) pages: Option<Vec<OffsetIndexMetaData>>,
}

impl<C: ChunkReader + 'static> OneGroup<'_, C> {
    /// The pages of a column chunk.
    pub(super) fn pages_of(&self, leaf: usize) -> Result<Pages<C>, ParquetError> {
        let missing = || ParquetError::EOF("a row group has fewer columns than its file".into());
        let column = self.group.columns().get(leaf).ok_or_else(missing)?;
        let at = self.pages.as_ref().and_then(|pages| pages.get(leaf)).map(|pages| pages.page_locations().clone());
        Pages::new(self.bytes.clone(), column, self.num_rows(), at.filter(|at| !at.is_empty()))
    }
}

impl<C: ChunkReader + 'static> RowGroups for OneGroup<'_, C> {
    fn num_rows(&self) -> usize {
        self.group.num_rows() as usize
    }

    fn column_chunks(&self, leaf: usize) -> Result<Box<dyn PageIterator>, ParquetError> {
        Ok(Box::new(OneColumn(Some(Box::new(self.pages_of(leaf)?)))))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(std::iter::once(self.group))
    }

    fn metadata(&self) -> &ParquetMetaData {
        self.metadata
    }
}

/// The column in the one row group.
struct OneColumn(Option<Box<dyn PageReader>>);

impl Iterator for OneColumn {
    type Item = Result<Box<dyn PageReader>, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.take().map(Ok)
    }
}

impl PageIterator for OneColumn {}

/// Pages of a column, each decompressed as it is taken.
pub(super) struct Pages<C: ChunkReader> {
    stored: SerializedPageReader<C>,
    /// Bytes that a page can have, if pages are compressed by zstd; what else there is the library decompresses.
    zstd: Option<usize>,
}

impl<C: ChunkReader> Pages<C> {
    fn new(
        bytes: Arc<C>,
        column: &ColumnChunkMetaData,
        rows: usize,
        at: Option<Vec<PageLocation>>,
    ) -> Result<Self, ParquetError> {
        if !matches!(column.compression(), Compression::ZSTD(_)) {
            return Ok(Self { stored: SerializedPageReader::new(bytes, column, rows, at)?, zstd: None });
        }
        let as_stored = ColumnChunkMetaData::builder(column.column_descr_ptr())
            .set_compression(Compression::UNCOMPRESSED)
            .set_total_compressed_size(column.compressed_size())
            .set_dictionary_page_offset(column.dictionary_page_offset())
            .set_data_page_offset(column.data_page_offset())
            .build()?;
        let most = usize::try_from(column.uncompressed_size()).unwrap_or_default();
        Ok(Self { stored: SerializedPageReader::new(bytes, &as_stored, rows, at)?, zstd: Some(most) })
    }
}

impl<C: ChunkReader> Iterator for Pages<C> {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl<C: ChunkReader> PageReader for Pages<C> {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        let page = self.stored.get_next_page()?;
        let Some(most) = self.zstd else { return Ok(page) };
        page.map(|mut page| {
            match &mut page {
                Page::DataPage { buf, .. } | Page::DictionaryPage { buf, .. } => *buf = decompressed(buf, 0, most)?,
                // Its levels are not compressed.
                Page::DataPageV2 { buf, is_compressed, def_levels_byte_len, rep_levels_byte_len, .. } => {
                    if *is_compressed {
                        let levels = *def_levels_byte_len as usize + *rep_levels_byte_len as usize;
                        *buf = decompressed(buf, levels, most)?;
                    }
                }
            }
            Ok(page)
        })
        .transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        self.stored.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        self.stored.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool, ParquetError> {
        self.stored.at_record_boundary()
    }
}

/// A page whose bytes behind the first `plain` are a frame of zstd; of more than `most` bytes it is broken.
fn decompressed(page: &Bytes, plain: usize, most: usize) -> Result<Bytes, ParquetError> {
    let broken = |what: &str| ParquetError::General(format!("a compressed page {what}"));
    let (levels, frame) = page.split_at_checked(plain).ok_or_else(|| broken("ends within its levels"))?;
    if frame.is_empty() {
        return Ok(page.clone());
    }
    // Whoever does not say how long it is may fill all that there can be.
    let length = get_frame_content_size(frame).map_err(|error| broken(&error.to_string()))?;
    let length = length.map_or(Ok(most), usize::try_from).unwrap_or(usize::MAX);
    if length > most {
        return Err(broken("says that it is longer than its column"));
    }
    let mut values = Vec::with_capacity(length);
    CONTEXT.with_borrow_mut(|context| context.decompress_to_buffer(frame, &mut values))?;
    Ok(if levels.is_empty() { values.into() } else { [levels, &values].concat().into() })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
    use datafusion::arrow::compute::concat_batches;
    use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection};
    use parquet::arrow::{ArrowWriter, FieldLevels, ProjectionMask, parquet_to_arrow_field_levels};
    use parquet::basic::ZstdLevel;
    use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};
    use parquet::file::properties::{WriterProperties, WriterVersion};

    use super::super::chunks::Chunks;
    use super::*;

    const ROWS: usize = 10_000;

    /// Words with nulls, and numbers without a dictionary, in pages of a thousand rows.
    fn file(version: WriterVersion, compression: Compression) -> Bytes {
        let word = |row: usize| (!row.is_multiple_of(7)).then(|| format!("word {}", row * row % 31));
        let columns: [(&str, ArrayRef); 2] = [
            ("word", Arc::new((0..ROWS).map(word).collect::<StringArray>())),
            ("number", Arc::new((0..ROWS as u64).map(|row| Some(row * row)).collect::<UInt64Array>())),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true))).unwrap();
        let properties = WriterProperties::builder()
            .set_writer_version(version)
            .set_compression(compression)
            .set_column_dictionary_enabled("number".into(), false)
            .set_data_page_row_count_limit(1_000)
            .set_write_batch_size(1_000)
            .build();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap().into()
    }

    /// Reads a selection from the bytes of its pages alone.
    fn some_pages(bytes: &Bytes, levels: &FieldLevels, selection: &RowSelection) -> ParquetRecordBatchReader {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let metadata = ParquetMetaDataReader::new()
            .with_offset_index_policy(PageIndexPolicy::Required)
            .parse_and_finish(&file)
            .unwrap();
        let (group, pages) = (metadata.row_group(0), metadata.offset_index().unwrap()[0].clone());
        let columns = group.columns().iter().zip(pages.iter().map(|pages| pages.page_locations().as_slice()));
        let some = Chunks::pages(&file, columns, selection).unwrap();
        assert!(some.len_read() < bytes.len() as u64, "{} of {}", some.len_read(), bytes.len());
        let group = OneGroup { metadata: &metadata, group, bytes: Arc::new(some), pages: Some(pages) };
        ParquetRecordBatchReader::try_new_with_row_groups(levels, &group, ROWS, Some(selection.clone())).unwrap()
    }

    #[test]
    fn pages_are_what_the_library_makes_of_them() {
        let zstd = Compression::ZSTD(ZstdLevel::try_new(1).unwrap());
        for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
            for compression in [zstd, Compression::UNCOMPRESSED] {
                let bytes = file(version, compression);
                let few = RowSelection::from_consecutive_ranges([5..6, 1_500..1_700, 8_999..9_000].into_iter(), ROWS);
                for selection in [None, Some(few)] {
                    let mut theirs = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap();
                    let (metadata, schema) = (theirs.metadata().clone(), theirs.schema().clone());
                    let stored = metadata.file_metadata().schema_descr();
                    let hint = Some(schema.fields());
                    let levels = parquet_to_arrow_field_levels(stored, ProjectionMask::all(), hint).unwrap();
                    let group = OneGroup {
                        metadata: &metadata,
                        group: metadata.row_group(0),
                        bytes: Arc::new(bytes.clone()),
                        pages: None,
                    };
                    let ours =
                        ParquetRecordBatchReader::try_new_with_row_groups(&levels, &group, ROWS, selection.clone());
                    let ours: Vec<RecordBatch> = ours.unwrap().map(Result::unwrap).collect();
                    let some: Option<Vec<RecordBatch>> = selection
                        .as_ref()
                        .map(|selection| some_pages(&bytes, &levels, selection).map(Result::unwrap).collect());
                    if let Some(selection) = selection {
                        theirs = theirs.with_row_selection(selection);
                    }
                    let theirs: Vec<RecordBatch> = theirs.build().unwrap().map(Result::unwrap).collect();
                    let whole = |batches: &[RecordBatch]| concat_batches(&schema, batches).unwrap();
                    assert_eq!(whole(&ours), whole(&theirs), "{version:?} {compression:?}");
                    if let Some(some) = some {
                        assert_eq!(whole(&some), whole(&theirs), "pages alone, {version:?} {compression:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_page_is_no_longer_than_its_column() {
        let page = Bytes::from(zstd::bulk::compress(&[7; 1_000], 1).unwrap());
        assert_eq!(decompressed(&page, 0, 1_000).unwrap(), vec![7; 1_000]);
        assert!(decompressed(&page, 0, 999).is_err());
        assert!(decompressed(&page.slice(..page.len() - 1), 0, 1_000).is_err());
        assert!(decompressed(&page, page.len() + 1, 1_000).is_err());
        let with_levels = Bytes::from([&[1, 2, 3][..], &page].concat());
        assert_eq!(decompressed(&with_levels, 3, 1_000).unwrap(), [&[1, 2, 3][..], &[7; 1_000]].concat());
    }
}
