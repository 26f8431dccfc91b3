//! Column chunks of values that come again. The keys of a dictionary array become the keys of Parquet's pages as they are: the
//! library would look up each value by its letters once more.
//!
//! * A chunk is a page with the distinct values, in the order in which they come first, then pages of rows.
//! * A page of rows has levels (which rows have a value, and of maps where each begins), the width of its keys in bits, and the keys of
//!   its values ([`super::hybrid`]).
//! * It is what every reader knows and the library itself writes: pages of version 1, `RLE_DICTIONARY`. Headers, footers and
//!   indexes are the library's. A column whose dictionary would be large is left to the library.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use bytes::Bytes;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, MapArray, StringArray};
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
use super::hybrid::{Levels, hybrid, presence};
use super::sealed::PlainPage;

/// Bytes of a dictionary at which the library would give it up, too.
const LARGE: usize = 1 << 20;
/// Numbers whose keys are found by place.
const SMALL: usize = 4_096;
/// No number yet.
const NONE: u32 = u32::MAX;

/// A column as numbers of its distinct values.
pub(super) struct Keyed<'a> {
    /// The distinct values, as Parquet has them plain.
    values: Vec<u8>,
    distinct: u32,
    /// Of the values that are there.
    keys: Vec<u32>,
    shape: Shape<'a>,
    rows: usize,
}

/// Which rows have values.
enum Shape<'a> {
    /// One each, or none.
    Flat(Option<&'a NullBuffer>),
    /// The keys of the maps that there are, or the values of these keys.
    Maps(&'a MapArray, Option<&'a NullBuffer>),
}

impl<'a> Keyed<'a> {
    /// The columns of Parquet of a dictionary of texts, of numbers, nulls alone, or maps of dictionaries; `None`: something else, or a
    /// dictionary is large.
    pub(super) fn of(array: &'a ArrayRef) -> Option<Vec<Self>> {
        if let Some(maps) = array.as_map_opt() {
            return [maps.keys(), maps.values()].map(|texts| Self::of_maps(maps, texts)).into_iter().collect();
        }
        let mut keyed = Self::new(Shape::Flat(array.nulls()), array.len());
        if let Some(numbers) = array.as_primitive_opt::<UInt64Type>() {
            keyed.read_numbers(numbers.values(), array.nulls());
        } else if let Some(words) = array.as_dictionary_opt::<Int32Type>() {
            keyed.read_words(words, words.values().as_string_opt()?)?;
        } else if array.as_string_opt::<i32>().is_none() || array.null_count() < array.len() {
            return None;
        }
        (keyed.values.len() < LARGE).then(|| vec![keyed])
    }

    /// The keys or the values of maps. None may be hidden: that of a map that is null, or in front of the first.
    fn of_maps(maps: &'a MapArray, texts: &'a ArrayRef) -> Option<Self> {
        let seen: usize =
            (0..maps.len()).filter(|row| maps.is_valid(*row)).map(|row| maps.value_length(row) as usize).sum();
        if seen != texts.len() {
            return None;
        }
        let mut keyed = Self::new(Shape::Maps(maps, texts.nulls()), maps.len());
        if let Some(words) = texts.as_dictionary_opt::<Int32Type>() {
            keyed.read_words(words, words.values().as_string_opt()?)?;
        } else if texts.null_count() < texts.len() {
            return None;
        }
        (keyed.values.len() < LARGE).then_some(keyed)
    }

    fn new(shape: Shape<'a>, rows: usize) -> Self {
        Self { values: Vec::new(), distinct: 0, keys: Vec::new(), shape, rows }
    }

    fn read_numbers(&mut self, numbers: &[u64], nulls: Option<&NullBuffer>) {
        let mut small = vec![NONE; SMALL];
        let mut known: HashMap<u64, u32, RandomState> = HashMap::default();
        let Self { values, distinct, .. } = self;
        let mut new = |number: u64| {
            values.extend(number.to_le_bytes());
            *distinct += 1;
            *distinct - 1
        };
        self.keys = present(numbers, nulls, |number| match small.get_mut(number as usize) {
            Some(key) => {
                if *key == NONE {
                    *key = new(number);
                }
                *key
            }
            None => *known.entry(number).or_insert_with(|| new(number)),
        });
    }

    /// `None`: one of the texts is null.
    fn read_words(&mut self, words: &DictionaryArray<Int32Type>, texts: &StringArray) -> Option<()> {
        if texts.null_count() > 0 {
            return None;
        }
        let (places, nulls) = (words.keys().values(), words.nulls());
        self.keys = present(places, nulls, i32::cast_unsigned);
        if !in_order(&self.keys, texts) {
            self.keys = self.renumbered(places, nulls, texts);
            return Some(());
        }
        for text in texts.iter().flatten() {
            self.push(text);
        }
        Some(())
    }

    /// Of arrays that were put together a text may be there twice, and of some that were filtered one that no row has.
    fn renumbered(&mut self, places: &[i32], nulls: Option<&NullBuffer>, texts: &StringArray) -> Vec<u32> {
        let mut known: HashMap<&str, u32, RandomState> = HashMap::default();
        let mut of_places = vec![NONE; texts.len()];
        present(places, nulls, |place| {
            let key = &mut of_places[place as usize];
            if *key == NONE {
                let text = texts.value(place as usize);
                *key = *known.entry(text).or_insert_with(|| self.push(text));
            }
            *key
        })
    }

    /// Takes a text in; its key.
    fn push(&mut self, text: &str) -> u32 {
        self.values.extend((text.len() as u32).to_le_bytes());
        self.values.extend(text.as_bytes());
        self.distinct += 1;
        self.distinct - 1
    }

    /// The distinct texts.
    pub(super) fn texts(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.values.as_slice();
        std::iter::from_fn(move || {
            let (length, behind) = rest.split_first_chunk()?;
            let (text, behind) = behind.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = behind;
            Some(text)
        })
    }

    /// Least and greatest of numbers.
    pub(super) fn bounds(&self) -> [Option<u64>; 2] {
        let numbers = || self.values.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
        [numbers().min(), numbers().max()]
    }
}

/// Whether keys are those of Parquet's page already: in the order in which they come first, one for each text that there is.
fn in_order(keys: &[u32], texts: &StringArray) -> bool {
    let mut next = 0;
    for key in keys {
        if *key >= next {
            if *key > next {
                return false;
            }
            next += 1;
        }
    }
    let mut known: HashSet<&str, RandomState> = HashSet::default();
    next as usize == texts.len() && texts.iter().flatten().all(|text| known.insert(text))
}

/// What becomes of each value that is there.
fn present<T: Copy>(values: &[T], nulls: Option<&NullBuffer>, mut with: impl FnMut(T) -> u32) -> Vec<u32> {
    match nulls {
        Some(nulls) => {
            let mut all = Vec::with_capacity(values.len() - nulls.null_count());
            all.extend(nulls.valid_indices().map(|row| with(values[row])));
            all
        }
        None => values.iter().map(|value| with(*value)).collect(),
    }
}

impl Shape<'_> {
    /// Appends the levels of some rows, of a column with these greatest ones; returns how many levels there are, and how many values.
    fn levels(&self, rows: &Range<usize>, greatest: u8, out: &mut Vec<u8>) -> (usize, usize) {
        match self {
            Self::Flat(nulls) => (rows.len(), presence(*nulls, rows, out)),
            Self::Maps(maps, nulls) => map_levels(maps, *nulls, rows, greatest, out),
        }
    }
}

/// The levels of maps: where each begins, then what there is of it, of its key, and of its value, if that is what is stored.
fn map_levels(
    maps: &MapArray,
    nulls: Option<&NullBuffer>,
    rows: &Range<usize>,
    greatest: u8,
    out: &mut Vec<u8>,
) -> (usize, usize) {
    let (mut begins, mut is_there, mut present) = (Levels::new(1), Levels::new(2), 0);
    for row in rows.clone() {
        let length = maps.value_length(row) as usize;
        begins.push(0, 1);
        begins.push(1, length.saturating_sub(1));
        if length == 0 {
            is_there.push(u8::from(maps.is_valid(row)), 1);
            continue;
        }
        let from = maps.value_offsets()[row] as usize;
        present += length;
        if let Some(nulls) = nulls.map(|nulls| nulls.slice(from, length)).filter(|nulls| nulls.null_count() > 0) {
            nulls.iter().for_each(|valid| is_there.push(greatest - u8::from(!valid), 1));
            present -= nulls.null_count();
        } else {
            is_there.push(greatest, length);
        }
    }
    let count = begins.count();
    begins.finish(out);
    is_there.finish(out);
    (count, present)
}

impl Keyed<'_> {
    /// The pages of a chunk, and what indexes and footer say of them.
    pub(super) fn pages(&self, column: ColumnDescPtr) -> Result<(Vec<PlainPage>, ColumnCloseResult), ParquetError> {
        let (mut pages, mut offsets) = (Pages::default(), OffsetIndexBuilder::new());
        let greatest_level = column.max_def_level() as u8;
        let dictionary = Page::DictionaryPage {
            buf: self.values.clone().into(),
            num_values: self.distinct,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        pages.push(dictionary)?;
        let first_rows = pages.bytes;
        let (mut keys, mut greatest, mut values) = (self.keys.as_slice(), 0, 0);
        for first in (0..self.rows).step_by(PAGE) {
            let rows = first..self.rows.min(first + PAGE);
            let mut page = Vec::new();
            let (levels, present) = self.shape.levels(&rows, greatest_level, &mut page);
            let (of_page, rest) = keys.split_at(present);
            keys = rest;
            values += levels;
            greatest = of_page.iter().copied().fold(greatest, u32::max);
            let width = (u32::BITS - greatest.leading_zeros()) as u8;
            page.push(width);
            hybrid(of_page, width, &mut page);
            let plain = Page::DataPage {
                buf: page.into(),
                num_values: levels as u32,
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
            .set_num_values(values as i64)
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

#[cfg(test)]
mod tests;
