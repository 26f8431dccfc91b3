//! Column chunks of values that come again. The keys of a dictionary array become the keys of Parquet's pages as they are: the
//! library would look up each value by its letters once more.
//!
//! * A chunk is a page with the distinct values, in the order in which they come first, then pages of rows.
//! * A page of rows has levels (a bit for each row: it has a value), the width of its keys in bits, and the keys of its values:
//!   runs of one number, and numbers packed in bits (Parquet's hybrid of the two).
//! * It is what every reader knows and the library itself writes: pages of version 1, `RLE_DICTIONARY`, zstd. Headers, footers and
//!   indexes are the library's. A column whose dictionary would be large is left to the library.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringArray};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{Int32Type, UInt64Type};
use foldhash::fast::RandomState;
use parquet::basic::{Encoding, EncodingMask, PageType};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, OffsetIndexBuilder, PageEncodingStats};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

use super::encode::PAGE;
use super::sealed::PlainPage;

/// Bytes of a dictionary at which the library would give it up, too.
const LARGE: usize = 1 << 20;
/// Values of a run at least, and of each group of packed ones.
const GROUP: usize = 8;
/// No number yet.
const NONE: u32 = u32::MAX;

/// A column as numbers of its distinct values.
pub(super) struct Keyed<'a> {
    /// The distinct values, as Parquet has them plain.
    values: Vec<u8>,
    distinct: u32,
    /// Of the rows that have a value.
    keys: Vec<u32>,
    nulls: Option<&'a NullBuffer>,
    rows: usize,
}

impl<'a> Keyed<'a> {
    /// A dictionary of texts, numbers, or nulls alone; `None`: something else, or its dictionary is large.
    pub(super) fn of(array: &'a ArrayRef) -> Option<Self> {
        let (nulls, rows) = (array.nulls(), array.len());
        let mut keyed = Self { values: Vec::new(), distinct: 0, keys: Vec::new(), nulls, rows };
        keyed.keys.reserve(rows - array.null_count());
        if let Some(numbers) = array.as_primitive_opt::<UInt64Type>() {
            keyed.read_numbers(numbers.values());
        } else if let Some(words) = array.as_dictionary_opt::<Int32Type>() {
            let texts = words.values().as_string_opt::<i32>().filter(|texts| texts.null_count() == 0)?;
            keyed.read_texts(words.keys().values(), texts);
        } else if array.as_string_opt::<i32>().is_none() || array.null_count() < rows {
            return None;
        }
        (keyed.values.len() < LARGE).then_some(keyed)
    }

    fn read_numbers(&mut self, numbers: &[u64]) {
        let mut known: HashMap<u64, u32, RandomState> = HashMap::default();
        let (mut last, mut key) = (0, NONE);
        let Self { values, distinct, keys, nulls, .. } = self;
        present(numbers, *nulls, |number| {
            if number != last || key == NONE {
                key = *known.entry(number).or_insert_with(|| {
                    values.extend(number.to_le_bytes());
                    next(distinct)
                });
                last = number;
            }
            keys.push(key);
        });
    }

    /// Of arrays that were put together a text may be there twice, and of some that were filtered one that no row has.
    fn read_texts(&mut self, places: &[i32], texts: &StringArray) {
        let mut known: HashMap<&str, u32, RandomState> = HashMap::default();
        let mut of_places = vec![NONE; texts.len()];
        let Self { values, distinct, keys, nulls, .. } = self;
        present(places, *nulls, |place| {
            let key = &mut of_places[place as usize];
            if *key == NONE {
                let text = texts.value(place as usize);
                *key = *known.entry(text).or_insert_with(|| {
                    values.extend((text.len() as u32).to_le_bytes());
                    values.extend(text.as_bytes());
                    next(distinct)
                });
            }
            keys.push(*key);
        });
    }
}

/// The next number.
fn next(distinct: &mut u32) -> u32 {
    *distinct += 1;
    *distinct - 1
}

/// Calls with each value that is there.
fn present<T: Copy>(values: &[T], nulls: Option<&NullBuffer>, mut with: impl FnMut(T)) {
    match nulls {
        Some(nulls) => nulls.valid_indices().for_each(|row| with(values[row])),
        None => values.iter().for_each(|value| with(*value)),
    }
}

impl Keyed<'_> {
    /// The pages of a chunk, and what indexes and footer say of them.
    pub(super) fn pages(&self, column: ColumnDescPtr) -> Result<(Vec<PlainPage>, ColumnCloseResult), ParquetError> {
        let (mut pages, mut offsets) = (Pages::default(), OffsetIndexBuilder::new());
        let dictionary = Page::DictionaryPage {
            buf: self.values.clone().into(),
            num_values: self.distinct,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        pages.push(dictionary)?;
        let first_rows = pages.bytes;
        let (mut keys, mut greatest) = (self.keys.as_slice(), 0);
        for first in (0..self.rows).step_by(PAGE) {
            let rows = first..self.rows.min(first + PAGE);
            let mut page = Vec::new();
            let (of_page, rest) = keys.split_at(levels(self.nulls, &rows, &mut page));
            keys = rest;
            greatest = of_page.iter().copied().fold(greatest, u32::max);
            let width = (u32::BITS - greatest.leading_zeros()) as u8;
            page.push(width);
            hybrid(of_page, width, &mut page);
            let plain = Page::DataPage {
                buf: page.into(),
                num_values: rows.len() as u32,
                encoding: Encoding::RLE_DICTIONARY,
                def_level_encoding: Encoding::RLE,
                rep_level_encoding: Encoding::RLE,
                statistics: None,
            };
            let begin = pages.bytes;
            pages.push(plain)?;
            offsets.append_offset_and_size(begin as i64, (pages.bytes - begin) as i32);
            offsets.append_row_count(rows.len() as i64);
        }
        let counted = |page_type, encoding, count| PageEncodingStats { page_type, encoding, count };
        let metadata = ColumnChunkMetaData::builder(column)
            .set_encodings_mask(EncodingMask::new_from_encodings(
                [Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY].iter(),
            ))
            .set_page_encoding_stats(vec![
                counted(PageType::DICTIONARY_PAGE, Encoding::PLAIN, 1),
                counted(PageType::DATA_PAGE, Encoding::RLE_DICTIONARY, self.rows.div_ceil(PAGE) as i32),
            ])
            .set_total_compressed_size(pages.bytes as i64)
            .set_total_uncompressed_size(pages.bytes as i64)
            .set_num_values(self.rows as i64)
            .set_dictionary_page_offset(Some(0))
            .set_data_page_offset(first_rows as i64)
            .build()?;
        let close = ColumnCloseResult {
            bytes_written: pages.bytes as u64,
            rows_written: self.rows as u64,
            metadata,
            bloom_filter: None,
            column_index: None,
            offset_index: Some(offsets.build()),
        };
        Ok((pages.plain, close))
    }
}

/// Pages of a chunk.
#[derive(Default)]
struct Pages {
    plain: Vec<PlainPage>,
    /// With their headers.
    bytes: usize,
}

impl Pages {
    fn push(&mut self, page: Page) -> Result<(), ParquetError> {
        let data = page.buffer().clone();
        let mut sink = TrackedWrite::new(Vec::new());
        let written = SerializedPageWriter::new(&mut sink).write_page(CompressedPage::new(page, data.len()))?;
        let mut header = Bytes::from(sink.into_inner()?);
        header.truncate(header.len() - data.len());
        self.plain.push(PlainPage { header, data });
        self.bytes += written.compressed_size;
        Ok(())
    }
}

/// Appends which rows have a value, behind the length of that; returns how many have.
fn levels(nulls: Option<&NullBuffer>, rows: &Range<usize>, out: &mut Vec<u8>) -> usize {
    let begin = out.len();
    out.extend([0; 4]);
    let part = nulls.map(|nulls| nulls.slice(rows.start, rows.len()));
    let present = rows.len() - part.as_ref().map_or(0, NullBuffer::null_count);
    match part {
        Some(part) if present > 0 && present < rows.len() => {
            let groups = rows.len().div_ceil(GROUP);
            varint(groups << 1 | 1, out);
            out.extend(part.inner().sliced().iter().take(groups));
        }
        Some(_) | None => run(u32::from(present > 0), 1, rows.len(), out),
    }
    let length = (out.len() - begin - 4) as u32;
    out[begin..begin + 4].copy_from_slice(&length.to_le_bytes());
    present
}

/// Appends numbers of `width` bits as runs and packed groups.
fn hybrid(numbers: &[u32], width: u8, out: &mut Vec<u8>) {
    let (mut packed, mut at) = (0, 0);
    while let Some(first) = numbers.get(at) {
        let same = numbers[at..].iter().take_while(|number| *number == first).count();
        if same >= GROUP || at + same == numbers.len() {
            pack(&numbers[packed..at], width, out);
            run(*first, width, same, out);
            at += same;
            packed = at;
        } else {
            at = numbers.len().min(at + GROUP);
        }
    }
    pack(&numbers[packed..], width, out);
}

/// Appends one number that comes `count` times.
fn run(number: u32, width: u8, count: usize, out: &mut Vec<u8>) {
    varint(count << 1, out);
    out.extend(&number.to_le_bytes()[..usize::from(width.div_ceil(8))]);
}

/// Appends numbers one after the other, the least bits first; the last group is filled with zeros.
fn pack(numbers: &[u32], width: u8, out: &mut Vec<u8>) {
    if numbers.is_empty() {
        return;
    }
    let groups = numbers.len().div_ceil(GROUP);
    varint(groups << 1 | 1, out);
    let end = out.len() + groups * usize::from(width);
    let (mut bits, mut filled) = (0_u64, 0);
    for number in numbers {
        bits |= u64::from(*number) << filled;
        filled += width;
        if filled >= 32 {
            out.extend((bits as u32).to_le_bytes());
            bits >>= 32;
            filled -= 32;
        }
    }
    out.extend((bits as u32).to_le_bytes());
    out.resize(end, 0);
}

/// Appends a number in groups of seven bits, the least first.
fn varint(mut number: usize, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{DictionaryArray, Int32Array, UInt64Array, new_null_array};
    use datafusion::arrow::compute::cast;
    use datafusion::arrow::datatypes::{DataType, Field, Schema};
    use parquet::arrow::arrow_reader::{
        ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
    };
    use parquet::file::metadata::PageIndexPolicy;
    use parquet::file::statistics::Statistics;
    use proptest::prelude::*;

    use super::super::encode::Encoder;
    use super::*;

    /// A file of one column in row groups, with what the reader finds in its footer.
    fn written(groups: &[ArrayRef]) -> ParquetRecordBatchReaderBuilder<std::fs::File> {
        let plain = match groups[0].data_type() {
            DataType::Dictionary(_, texts) => texts.as_ref().clone(),
            own => own.clone(),
        };
        let schema = Arc::new(Schema::new(vec![Field::new("column", plain, true)]));
        let file = tempfile::tempfile().unwrap();
        let mut encoder = Encoder::new(file.try_clone().unwrap(), &schema).unwrap();
        for group in groups {
            encoder.row_group([Ok(group.clone())].into_iter()).unwrap();
        }
        encoder.finish().unwrap();
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
        ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).unwrap()
    }

    fn read(file: ParquetRecordBatchReaderBuilder<std::fs::File>) -> ArrayRef {
        let whole: Vec<ArrayRef> = file.build().unwrap().map(|batch| batch.unwrap().column(0).clone()).collect();
        let whole: Vec<&dyn Array> = whole.iter().map(AsRef::as_ref).collect();
        datafusion::arrow::compute::concat(&whole).unwrap()
    }

    /// What is written is read again, as a whole and in parts that pages are skipped for.
    fn check(array: &ArrayRef) {
        assert!(Keyed::of(array).is_some(), "it is left to the library");
        let file = written(&[array.clone(), array.clone()]);
        let metadata = file.metadata().clone();
        let plain = read(file);
        let expected = cast(array, plain.data_type()).unwrap();
        assert_eq!(plain.len(), 2 * array.len());
        for group in 0..2 {
            assert_eq!(&plain.slice(group * array.len(), array.len()), &expected);
            let chunk = metadata.row_group(group).column(0);
            assert_eq!(chunk.num_values(), array.len() as i64);
            let pages = metadata.offset_index().unwrap()[group][0].page_locations();
            assert_eq!(pages.len(), array.len().div_ceil(PAGE));
            let starts: Vec<i64> = pages.iter().map(|page| page.first_row_index).collect();
            assert_eq!(starts, (0..array.len() as i64).step_by(PAGE).collect::<Vec<_>>());
            let end = pages.last().map(|page| page.offset as u64 + page.compressed_page_size as u64).unwrap();
            let (start, length) = chunk.byte_range();
            assert_eq!(end, start + length, "the last page ends the chunk");
        }
        let (skipped, taken) = (array.len() * 2 / 3, array.len().div_ceil(2));
        let selection = RowSelection::from(vec![RowSelector::skip(skipped), RowSelector::select(taken)]);
        let part = read(written(&[array.clone(), array.clone()]).with_row_selection(selection));
        assert_eq!(&part, &plain.slice(skipped, taken));
    }

    fn words(keys: Vec<Option<i32>>, texts: &[&str]) -> ArrayRef {
        let texts = Arc::new(StringArray::from(texts.to_vec()));
        Arc::new(DictionaryArray::<Int32Type>::new(Int32Array::from(keys), texts))
    }

    fn numbers(numbers: impl IntoIterator<Item = Option<u64>>) -> ArrayRef {
        Arc::new(numbers.into_iter().collect::<UInt64Array>())
    }

    #[test]
    fn what_is_written_is_read_again() {
        check(&numbers((0..10_000).map(|row| Some(row / 100))));
        check(&numbers((0..10_000).map(|row| (row % 3 > 0).then_some(row * 7_919 % 1_000))));
        check(&numbers((0..10_000).map(|row| (row < 5_000).then_some(u64::MAX - row))));
        check(&numbers([None, Some(0), None]));
        check(&numbers([Some(u64::MAX)]));
        check(&numbers(vec![None; 5_000]));
        check(&words((0..9_000).map(|row| (row % 5 > 0).then_some(row % 2)).collect(), &["", "mäuse"]));
        check(&words(vec![Some(0); 4_097], &["one"]));
        check(&words(vec![None; 4_096], &["nobody"]));
        check(&words(vec![None; 7], &[]));
        check(&new_null_array(&DataType::Utf8, 9_000));
        check(&numbers((0..20_000).map(|row| (row % 7 > 0).then_some(row / 9))).slice(13, 9_001));
    }

    /// Nothing of it is read then.
    #[test]
    fn a_column_without_values_says_so() {
        let nulls = |array: ArrayRef| {
            let file = written(&[array]);
            file.metadata().row_group(0).column(0).statistics().and_then(Statistics::null_count_opt)
        };
        assert_eq!(nulls(new_null_array(&DataType::Utf8, 9_000)), Some(9_000));
        assert_eq!(nulls(words(vec![None; 7], &[])), Some(7));
        assert_eq!(nulls(numbers(vec![None; 7])), Some(7));
        assert_eq!(nulls(words(vec![None, Some(0)], &["a"])), None, "who has some is not counted");
    }

    #[test]
    fn a_text_that_is_there_twice_is_written_once_and_one_that_no_row_has_is_not() {
        let array = words(vec![Some(2), Some(1), None, Some(4), Some(2)], &["nowhere", "a", "b", "elsewhere", "a"]);
        check(&array);
        let keyed = Keyed::of(&array).unwrap();
        assert_eq!((keyed.keys.as_slice(), keyed.distinct), ([0, 1, 1, 0].as_slice(), 2));
        assert_eq!(keyed.values, b"\x01\0\0\0b\x01\0\0\0a");
    }

    #[test]
    fn what_is_no_dictionary_or_a_large_one_is_left_to_the_library() {
        let large: Vec<String> = (0..100_000).map(|row| format!("{row:08}")).collect();
        let texts: ArrayRef = Arc::new(StringArray::from(large.clone()));
        assert!(Keyed::of(&texts).is_none());
        let large: Vec<&str> = large.iter().map(String::as_str).collect();
        let array = words((0..100_000).map(Some).collect(), &large);
        assert!(Keyed::of(&array).is_none());
        assert_eq!(&read(written(&[array])), &texts);
    }

    proptest! {
        #[test]
        fn any_numbers_are_read_again(
            runs in prop::collection::vec((prop::option::of(0_u64..40), 1_usize..30), 1..400),
            spread in prop::sample::select(vec![1_u64, 1 << 20, u64::MAX / 40]),
            from in 0_usize..9,
        ) {
            let all = runs.iter().flat_map(|(number, times)| std::iter::repeat_n(number.map(|it| it * spread), *times));
            let array = numbers(all.chain([Some(1); 9]));
            check(&array.slice(from, array.len() - from));
        }
    }
}
