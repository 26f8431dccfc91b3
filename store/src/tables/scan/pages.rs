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
}

impl<C: ChunkReader + 'static> RowGroups for OneGroup<'_, C> {
    fn num_rows(&self) -> usize {
        self.group.num_rows() as usize
    }

    fn column_chunks(&self, leaf: usize) -> Result<Box<dyn PageIterator>, ParquetError> {
        let missing = || ParquetError::EOF("a row group has fewer columns than its file".into());
        let column = self.group.columns().get(leaf).ok_or_else(missing)?;
        let pages = Pages::new(self.bytes.clone(), column, self.num_rows())?;
        Ok(Box::new(OneColumn(Some(Box::new(pages)))))
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
struct Pages<C: ChunkReader> {
    stored: SerializedPageReader<C>,
    /// Bytes that a page can have, if pages are compressed by zstd; what else there is the library decompresses.
    zstd: Option<usize>,
}

impl<C: ChunkReader> Pages<C> {
    fn new(bytes: Arc<C>, column: &ColumnChunkMetaData, rows: usize) -> Result<Self, ParquetError> {
        if !matches!(column.compression(), Compression::ZSTD(_)) {
            return Ok(Self { stored: SerializedPageReader::new(bytes, column, rows, None)?, zstd: None });
        }
        let as_stored = ColumnChunkMetaData::builder(column.column_descr_ptr())
            .set_compression(Compression::UNCOMPRESSED)
            .set_total_compressed_size(column.compressed_size())
            .set_dictionary_page_offset(column.dictionary_page_offset())
            .set_data_page_offset(column.data_page_offset())
            .build()?;
        let most = usize::try_from(column.uncompressed_size()).unwrap_or_default();
        Ok(Self { stored: SerializedPageReader::new(bytes, &as_stored, rows, None)?, zstd: Some(most) })
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
