//! Checksums of pages, so that a bit that a disk has turned is a file that cannot be read, and never another value.
//!
//! Parquet has a place for them in the header of each page: CRC-32 of the page as it is stored. Readers that know it compare it, the library
//! among them; but it does not write it. So the headers that it made get one more field here, and what footer and indexes say of
//! sizes and places follows.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::arrow::arrow_writer::{PageKey, PageStore, PageStoreArgs, PageStoreFactory};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::OffsetIndexBuilder;

/// In Thrift's compact protocol: a field that comes right after the one before, and is a number of 32 bits.
const NEXT_I32: u8 = 0x15;
/// What a field's first byte has less for each number that its own is nearer to the one before.
const ONE_NEARER: u8 = 0x10;
/// Fields of a page's header before its checksum: kind, size as written, and as stored.
const BEFORE: usize = 3;
/// The first two bytes of the header of a page with the distinct values.
const DICTIONARY: [u8; 2] = [NEXT_I32, 2 << 1];

/// A page as it is stored.
pub(super) struct StoredPage {
    pub(super) header: Bytes,
    pub(super) data: Bytes,
}

/// The chunk of these pages, in the order of the file, with checksums; `close` says what was known of it without.
pub(super) fn with_checksums(
    pages: &[StoredPage],
    close: ColumnCloseResult,
) -> Result<(Bytes, ColumnCloseResult), ParquetError> {
    let mut chunk = Vec::with_capacity(close.bytes_written as usize + 6 * pages.len());
    let mut ends = Vec::with_capacity(pages.len());
    for page in pages {
        add_checksum(&page.header, crc32fast::hash(&page.data), &mut chunk)?;
        chunk.extend_from_slice(&page.data);
        ends.push(chunk.len());
    }
    let grown = (chunk.len() as u64).saturating_sub(close.bytes_written);
    let has_dictionary = pages.first().is_some_and(|page| page.header.starts_with(&DICTIONARY));
    let first = if has_dictionary { ends.remove(0) } else { 0 };
    let (compressed, plain) = (chunk.len() as i64, close.metadata.uncompressed_size() + grown as i64);
    let metadata = close
        .metadata
        .into_builder()
        .set_total_compressed_size(compressed)
        .set_total_uncompressed_size(plain)
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
    Ok((chunk.into(), ColumnCloseResult { bytes_written: compressed as u64, metadata, offset_index, ..close }))
}

/// Appends a page's header with one more field, behind the third.
fn add_checksum(header: &[u8], checksum: u32, out: &mut Vec<u8>) -> Result<(), ParquetError> {
    let unknown = || ParquetError::General("the header of a page is not as expected".into());
    let mut at = 0;
    for _ in 0..BEFORE {
        let number = header.get(at..).and_then(|rest| rest.strip_prefix(&[NEXT_I32])).ok_or_else(unknown)?;
        at += 2 + number.iter().position(|byte| byte & 0x80 == 0).ok_or_else(unknown)?;
    }
    let (before, rest) = header.split_at_checked(at).ok_or_else(unknown)?;
    let (next, rest) = rest.split_first().filter(|(next, _)| **next >= 2 * ONE_NEARER).ok_or_else(unknown)?;
    out.extend_from_slice(before);
    out.push(NEXT_I32);
    let number = checksum.cast_signed();
    let mut zigzag = ((number << 1) ^ (number >> 31)).cast_unsigned();
    while zigzag >= 0x80 {
        out.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
    out.push(next - ONE_NEARER);
    out.extend_from_slice(rest);
    Ok(())
}

/// Keeps the pages that the library makes of one column after the other until they are asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept(Arc<Mutex<Vec<Bytes>>>);

impl Kept {
    /// The pages of the column that was written last, in the order of the file: the library makes that of the distinct values last.
    pub(super) fn take(&self) -> Vec<StoredPage> {
        let blobs = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut blobs = blobs.into_iter();
        let mut pages: Vec<StoredPage> =
            std::iter::from_fn(|| Some(StoredPage { header: blobs.next()?, data: blobs.next()? })).collect();
        pages.sort_by_key(|page| !page.header.starts_with(&DICTIONARY));
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

    /// The header of a page of 5 values as the library makes it, in 300 bytes of 40: kind, sizes, and what is of this kind.
    const HEADER: [u8; 14] = [0x15, 0x00, 0x15, 0xd8, 0x04, 0x15, 0x50, 0x2c, 0x15, 0x0a, 0x15, 0x00, 0x00, 0x00];

    #[test]
    fn a_checksum_is_the_fourth_field() {
        let mut out = vec![9];
        add_checksum(&HEADER, 0xffff_fffe, &mut out).unwrap();
        let with: Vec<u8> = [&[9][..], &HEADER[..7], &[0x15, 0x03, 0x1c], &HEADER[8..]].concat();
        assert_eq!(out, with);
        // There is one already.
        assert!(add_checksum(&with[1..], 1, &mut out).is_err());
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for end in 0..=7 {
            assert!(add_checksum(&HEADER[..end], 1, &mut Vec::new()).is_err(), "{end}");
        }
        assert!(add_checksum(&[0x15; 20], 1, &mut Vec::new()).is_err());
    }
}
