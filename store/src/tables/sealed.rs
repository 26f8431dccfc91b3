//! Pages as they are stored: compressed, where that makes them smaller, and each with its checksum.
//!
//! The library makes pages plain. Compressed they are here, by contexts of zstd for a whole file: the library would make two for each
//! column of each row group, which was a twentieth of ingest.
//!
//! * What hardly gets smaller stays plain, since each search would have to decompress it. Numbers packed in bits never get smaller: nobody tries.
//! * Of keys only repetitions are found. How often each byte comes would be told in tables that take longer to read than the page.
//!
//! For checksums Parquet has a place in the header of each page: CRC-32 of the page as it is stored. A bit that a disk has turned is then a
//! file that cannot be read, and never another value. Readers that know it compare it, the library among them; but it does not write it.
//!
//! So the headers that the library made get another size and one more field, and what footer and indexes say of sizes and places follows.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::arrow::arrow_writer::{PageKey, PageStore, PageStoreArgs, PageStoreFactory};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::OffsetIndexBuilder;
use zstd::bulk::Compressor;
use zstd::zstd_safe::compress_bound;

use super::encode::Holds;

/// Of zstd; a level below zero makes no tables.
const LEVEL: i32 = 1;
const LEVEL_OF_KEYS: i32 = -1;
/// Of all in roll-ups.
const LEVEL_OF_ROLLUPS: i32 = 3;
/// The part of its bytes that a chunk must lose to be compressed is one of these.
const WORTH: usize = 8;
/// In Thrift's compact protocol: a field that comes right after the one before, and is a number of 32 bits.
const NEXT_I32: u8 = 0x15;
/// What a field's first byte has less for each number that its own is nearer to the one before.
const ONE_NEARER: u8 = 0x10;
/// The first two bytes of the header of a page with the distinct values.
const DICTIONARY: [u8; 2] = [NEXT_I32, 2 << 1];

/// A page that is not compressed, with the header that says so.
pub(super) struct PlainPage {
    pub(super) header: Bytes,
    pub(super) data: Bytes,
}

/// See the module documentation.
pub(super) struct Sealer {
    zstd: Compressor<'static>,
    zstd_of_keys: Compressor<'static>,
    /// Pages of a chunk, and memory for more.
    compressed: Vec<Vec<u8>>,
}

impl Sealer {
    pub(super) fn new(holds: Holds) -> Result<Self, ParquetError> {
        let (level, of_keys) = match holds {
            Holds::Rows => (LEVEL, LEVEL_OF_KEYS),
            Holds::Rollup => (LEVEL_OF_ROLLUPS, LEVEL_OF_ROLLUPS),
        };
        Ok(Self { zstd: Compressor::new(level)?, zstd_of_keys: Compressor::new(of_keys)?, compressed: Vec::new() })
    }

    /// The pages of a chunk compressed, if they are better stored so.
    fn compress(&mut self, pages: &[PlainPage]) -> Result<Option<&[Vec<u8>]>, ParquetError> {
        if self.compressed.len() < pages.len() {
            self.compressed.resize_with(pages.len(), Vec::new);
        }
        let has_keys = pages.first().is_some_and(PlainPage::has_distinct_values);
        let (mut plain, mut stored) = (0, 0);
        for (page, compressed) in pages.iter().zip(&mut self.compressed) {
            compressed.clear();
            compressed.reserve(compress_bound(page.data.len()));
            let zstd = if has_keys && !page.has_distinct_values() { &mut self.zstd_of_keys } else { &mut self.zstd };
            stored += zstd.compress_to_buffer(&page.data, compressed)?;
            plain += page.data.len();
        }
        Ok((stored + plain / WORTH <= plain).then_some(&self.compressed))
    }

    /// The chunk of these pages, which are in the order of the file; `close` says what was known of it when they were plain.
    pub(super) fn chunk(
        &mut self,
        pages: &[PlainPage],
        close: ColumnCloseResult,
    ) -> Result<(Bytes, ColumnCloseResult), ParquetError> {
        let packed = close.metadata.encodings().any(|encoding| encoding == Encoding::DELTA_BINARY_PACKED);
        let compressed = if packed { None } else { self.compress(pages)? };
        let mut chunk = Vec::new();
        let mut ends = Vec::with_capacity(pages.len());
        let mut plain = 0;
        for (at, page) in pages.iter().enumerate() {
            let stored = compressed.and_then(|pages| pages.get(at)).map_or(&*page.data, Vec::as_slice);
            let begin = chunk.len();
            seal(&page.header, stored, &mut chunk)?;
            plain += chunk.len() - begin + page.data.len();
            chunk.extend_from_slice(stored);
            ends.push(chunk.len());
        }
        let has_dictionary = pages.first().is_some_and(PlainPage::has_distinct_values);
        let first = if has_dictionary { ends.remove(0) } else { 0 };
        let compression = match compressed {
            Some(_) => Compression::ZSTD(ZstdLevel::try_new(LEVEL)?),
            None => Compression::UNCOMPRESSED,
        };
        let metadata = close
            .metadata
            .into_builder()
            .set_compression(compression)
            .set_total_compressed_size(chunk.len() as i64)
            .set_total_uncompressed_size(plain as i64)
            .set_dictionary_page_offset(has_dictionary.then_some(0))
            .set_data_page_offset(first as i64)
            .build()?;
        let offset_index = close.offset_index.map(|before| {
            let mut offsets = OffsetIndexBuilder::new();
            let (begins, places) = (std::iter::once(first).chain(ends.iter().copied()), before.page_locations());
            let next = places.iter().skip(1).map(|place| place.first_row_index).chain([close.rows_written as i64]);
            for ((place, next), (begin, end)) in places.iter().zip(next).zip(begins.zip(&ends)) {
                offsets.append_offset_and_size(begin as i64, (end - begin) as i32);
                offsets.append_row_count(next - place.first_row_index);
            }
            for bytes in before.unencoded_byte_array_data_bytes().into_iter().flatten() {
                offsets.append_unencoded_byte_array_data_bytes(Some(*bytes));
            }
            offsets.build()
        });
        let bytes_written = chunk.len() as u64;
        Ok((chunk.into(), ColumnCloseResult { bytes_written, metadata, offset_index, ..close }))
    }
}

impl PlainPage {
    fn has_distinct_values(&self) -> bool {
        self.header.starts_with(&DICTIONARY)
    }
}

/// Appends the header of a plain page as that of what is stored of it: the third field is another, the fourth is new.
fn seal(header: &[u8], stored: &[u8], out: &mut Vec<u8>) -> Result<(), ParquetError> {
    let unknown = || ParquetError::General("the header of a page is not as expected".into());
    let end_of_number = |at: usize| -> Result<usize, ParquetError> {
        let number = header.get(at..).and_then(|rest| rest.strip_prefix(&[NEXT_I32])).ok_or_else(unknown)?;
        Ok(at + 2 + number.iter().position(|byte| byte & 0x80 == 0).ok_or_else(unknown)?)
    };
    // Kind, size before compression, size as stored.
    let second = end_of_number(end_of_number(0)?)?;
    let third = end_of_number(second)?;
    let (next, rest) = header.get(third..).and_then(<[u8]>::split_first).ok_or_else(unknown)?;
    let nearer = next.checked_sub(ONE_NEARER).filter(|next| *next >= ONE_NEARER).ok_or_else(unknown)?;
    out.extend_from_slice(header.get(..second).ok_or_else(unknown)?);
    number(i32::try_from(stored.len()).map_err(|_| unknown())?, out);
    number(crc32fast::hash(stored).cast_signed(), out);
    out.push(nearer);
    out.extend_from_slice(rest);
    Ok(())
}

/// Appends a field that is a number.
fn number(number: i32, out: &mut Vec<u8>) {
    out.push(NEXT_I32);
    let mut zigzag = ((number << 1) ^ (number >> 31)).cast_unsigned();
    while zigzag >= 0x80 {
        out.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

/// Keeps the pages that the library makes of one column after the other until they are asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept(Arc<Mutex<Vec<Bytes>>>);

impl Kept {
    /// The pages of the column that was written last, in the order of the file: the library makes that of the distinct values last.
    pub(super) fn take(&self) -> Vec<PlainPage> {
        let blobs = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut blobs = blobs.into_iter();
        let mut pages: Vec<PlainPage> =
            std::iter::from_fn(|| Some(PlainPage { header: blobs.next()?, data: blobs.next()? })).collect();
        pages.sort_by_key(|page| !page.has_distinct_values());
        pages
    }
}

impl PageStoreFactory for Kept {
    fn create(&self, _: &PageStoreArgs<'_>) -> Result<Box<dyn PageStore>, ParquetError> {
        Ok(Box::new(self.clone()))
    }
}

impl PageStore for Kept {
    /// Header and data of a page come one after the other.
    fn put(&mut self, value: Bytes) -> Result<PageKey, ParquetError> {
        let mut blobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        blobs.push(value);
        Ok(PageKey::new(blobs.len() as u64 - 1))
    }

    fn take(&mut self, _: PageKey) -> Result<Bytes, ParquetError> {
        Err(ParquetError::General("pages are taken together".into()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// The header of a page of 5 values in 300 bytes as the library makes it: kind, sizes, and what is of this kind.
    const HEADER: [u8; 15] = [0x15, 0x00, 0x15, 0xd8, 0x04, 0x15, 0xd8, 0x04, 0x2c, 0x15, 0x0a, 0x15, 0x00, 0x00, 0x00];
    /// CRC-32 of this is 0xcbf43926.
    const STORED: &[u8] = b"123456789";

    #[test]
    fn a_sealed_header_has_the_stored_size_and_the_checksum() {
        let mut out = vec![9];
        seal(&HEADER, STORED, &mut out).unwrap();
        let checksum = [0x15, 0xb3, 0x9b, 0xde, 0xc0, 0x06];
        let sealed = [&[9][..], &HEADER[..5], &[0x15, 0x12], &checksum, &[0x1c], &HEADER[9..]].concat();
        assert_eq!(out, sealed);
        assert!(seal(&sealed[1..], STORED, &mut out).is_err(), "it has one");
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for end in 0..=8 {
            assert!(seal(&HEADER[..end], STORED, &mut Vec::new()).is_err(), "{end}");
        }
        assert!(seal(&[0x15; 20], STORED, &mut Vec::new()).is_err());
    }
}
