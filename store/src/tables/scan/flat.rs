//! Columns without nesting, as their pages have them: a condition is asked of each word of a dictionary once and of the keys of the
//! rows, and of a few rows only their values are made, where the library would make arrays of all rows first. What is stored in
//! another way than by [`super::super::encode`] is `None`, and left to the library.

use std::ops::BitOr;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::{
    ArrayRef, BooleanArray, BooleanBufferBuilder, DictionaryArray, Int32Array, StringBuilder, TimestampNanosecondArray,
    UInt64Array, new_null_array,
};
use datafusion::arrow::buffer::{BooleanBuffer, NullBuffer};
use datafusion::arrow::datatypes::{DataType, Int32Type, TimeUnit};
use parquet::basic::{Encoding, Type};
use parquet::column::page::{Page, PageReader};
use parquet::schema::types::ColumnDescriptor;

use super::bits::{BitWriter, Present, Run, Runs, before, differences, present, some_differences};
use super::packed::{Packed, bits_at};

/// Bytes of a number, and of the length before a text.
const NUMBER: usize = size_of::<i64>();
const LENGTH: usize = size_of::<u32>();

/// A condition of single values.
pub(super) trait Asks {
    fn flag(&self, flag: bool) -> bool;
    fn number(&self, number: i64) -> bool;
    fn text(&self, text: &str) -> bool;
}

/// Distinct values of a column, as the page of the dictionary has them.
struct Words {
    page: Bytes,
    kind: Type,
    count: usize,
}

impl Words {
    fn of(page: Bytes, count: usize, column: &ColumnDescriptor) -> Option<Self> {
        let kind = column.physical_type();
        let each = match kind {
            Type::INT64 => NUMBER,
            Type::BYTE_ARRAY => LENGTH,
            Type::BOOLEAN | Type::INT32 | Type::INT96 | Type::FLOAT | Type::DOUBLE | Type::FIXED_LEN_BYTE_ARRAY => {
                return None;
            }
        };
        (count <= page.len() / each).then_some(Self { page, kind, count })
    }

    fn numbers(&self) -> Option<&[[u8; NUMBER]]> {
        (self.kind == Type::INT64).then(|| self.page.as_chunks().0.get(..self.count)).flatten()
    }

    fn texts(&self) -> Option<Texts<'_>> {
        (self.kind == Type::BYTE_ARRAY).then_some(Texts(&self.page))
    }

    fn pass(&self, asks: &impl Asks) -> Option<Vec<bool>> {
        if let Some(numbers) = self.numbers() {
            return Some(numbers.iter().map(|number| asks.number(i64::from_le_bytes(*number))).collect());
        }
        let (mut texts, mut pass) = (self.texts()?, Vec::with_capacity(self.count));
        for _ in 0..self.count {
            pass.push(asks.text(std::str::from_utf8(texts.next()?).ok()?));
        }
        Some(pass)
    }

    /// Rows by the keys of their words: a column that has these words only.
    fn column(&self, mut keys: Vec<i32>, nulls: Option<NullBuffer>) -> Option<ArrayRef> {
        let absent = |row| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
        let mut places = vec![None; self.count];
        let (mut last, mut distinct) = (0, 0);
        for (_, key) in (0..).zip(&keys).filter(|(row, _)| !absent(*row)) {
            distinct += usize::from(places.get_mut(*key as usize)?.replace(0).is_none());
            last = last.max(*key as usize);
        }
        // A page may be of very many row groups, with a word of each.
        let (mut texts, mut words, mut count) = (self.texts()?, StringBuilder::with_capacity(distinct, 0), 0);
        for place in places.iter_mut().take(last + 1) {
            let text = texts.next()?;
            if let Some(place) = place {
                words.append_value(std::str::from_utf8(text).ok()?);
                *place = count;
                count += 1;
            }
        }
        for key in &mut keys {
            // Rows without a value have any key.
            *key = places.get(*key as usize).copied().flatten().unwrap_or_default();
        }
        let keys = Int32Array::try_new(keys.into(), nulls).ok()?;
        Some(Arc::new(DictionaryArray::<Int32Type>::try_new(keys, Arc::new(words.finish())).ok()?))
    }
}

/// Texts with their lengths before them.
struct Texts<'a>(&'a [u8]);

impl<'a> Iterator for Texts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk()?;
        let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        self.0 = rest;
        Some(text)
    }
}

/// A page of rows.
struct Sheet {
    rows: usize,
    kind: Type,
    /// Rows that have a value; `None`: all have.
    valid: Option<BooleanBuffer>,
    encoding: Encoding,
    values: Bytes,
}

impl Sheet {
    /// Of so many rows at most.
    fn of(page: Page, column: &ColumnDescriptor, most: usize) -> Option<Self> {
        let Page::DataPage { buf, num_values, encoding, def_level_encoding: Encoding::RLE, .. } = page else {
            return None;
        };
        let rows = num_values as usize;
        if rows > most {
            return None;
        }
        let kind = column.physical_type();
        if column.max_def_level() == 0 {
            return Some(Self { rows, kind, valid: None, encoding, values: buf });
        }
        let (length, rest) = buf.split_first_chunk()?;
        let (levels, values) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let valid = match present(levels, rows)? {
            Present::All => None,
            Present::Some(valid) => Some(valid),
        };
        Some(Self { rows, kind, valid, encoding, values: buf.slice_ref(values) })
    }

    /// Of rows, by their numbers in the column chunk: which have a value, and its number among those of the page.
    fn present_of(&self, rows: &[usize], first: usize, numbers: &mut Vec<usize>, valid: &mut BitWriter) {
        let Some(present) = &self.valid else {
            numbers.extend(rows.iter().map(|row| row - first));
            return valid.repeat(true, rows.len());
        };
        let word = |at: usize| bits_at(present.values(), present.offset() + at * u64::BITS as usize);
        let (mut at, mut before) = (0, 0);
        for row in rows.iter().map(|row| row - first) {
            let bit = row % u64::BITS as usize;
            for word in (at..row / u64::BITS as usize).map(word) {
                before += word.count_ones() as usize;
            }
            at = row / u64::BITS as usize;
            let rest = word(at) >> bit;
            let earlier = word(at) & !(u64::MAX << bit);
            let has = rest & 1 == 1;
            if has {
                numbers.push(before + earlier.count_ones() as usize);
            }
            valid.push(has);
        }
    }

    /// Rows with a value.
    fn present(&self) -> usize {
        self.valid.as_ref().map_or(self.rows, BooleanBuffer::count_set_bits)
    }

    fn runs(&self, rows: usize) -> Option<Runs<'_>> {
        let (width, keys) = self.values.split_first()?;
        Some(Runs::new(keys, u32::from(*width), rows))
    }

    /// The rows that pass. `pass` is what the words of the dictionary do.
    fn passing(&self, asks: &impl Asks, pass: Option<&[bool]>, numbers: &mut Vec<i64>) -> Option<BooleanBuffer> {
        let present = self.present();
        if present == 0 {
            return Some(BooleanBuffer::new_unset(self.rows));
        }
        let mut passing = BitWriter::with_capacity(present);
        match self.encoding {
            Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY => {
                let pass = pass?;
                if !pass.contains(&true) {
                    return Some(BooleanBuffer::new_unset(self.rows));
                }
                let passes = |key: u64| pass.get(key as usize).copied().unwrap_or_default();
                let mut runs = self.runs(present)?;
                for run in runs.by_ref() {
                    match run {
                        Run::Repeated(key, rows) => passing.repeat(passes(key), rows),
                        Run::Packed(keys, rows) => keys.chunks(rows, |keys| {
                            let bits = keys.iter().zip(0_u32..).map(|(key, at)| u64::from(passes(*key)) << at);
                            passing.append_word(bits.fold(0, BitOr::bitor), keys.len() as u32);
                        }),
                    }
                }
                if !runs.is_over() {
                    return None;
                }
            }
            Encoding::DELTA_BINARY_PACKED => {
                differences(&self.values, present, numbers)?;
                passing.extend(present, |at| numbers.get(at).is_some_and(|number| asks.number(*number)));
            }
            Encoding::PLAIN if self.kind == Type::BOOLEAN && present <= self.values.len() * 8 => {
                match (asks.flag(false), asks.flag(true)) {
                    (false, true) => passing.append(&self.values, present),
                    (true, false) => {
                        let flags = Packed::new(&self.values, 1)?;
                        passing.extend(present, |at| flags.get(at) == 0);
                    }
                    (all, _) => passing.repeat(all, present),
                }
            }
            _ => return None,
        }
        let passing = passing.finish();
        Some(match &self.valid {
            None => passing,
            Some(valid) => spread(&passing, valid),
        })
    }
}

/// Bits of the rows that have a value, at the places of these rows.
pub(super) fn spread(bits: &BooleanBuffer, valid: &BooleanBuffer) -> BooleanBuffer {
    let (chunks, mut spread, mut next) = (valid.bit_chunks(), BitWriter::with_capacity(valid.len()), bits.offset());
    let last = (chunks.remainder_bits(), chunks.remainder_len() as u32);
    for (present, length) in chunks.iter().map(|word| (word, u64::BITS)).chain([last]).filter(|(_, length)| *length > 0)
    {
        let mut here = bits_at(bits.values(), next);
        let (mut placed, mut rest) = (if present == u64::MAX { here } else { 0 }, present);
        while rest != 0 && present != u64::MAX {
            let place = rest & rest.wrapping_neg();
            placed |= if here & 1 == 1 { place } else { 0 };
            (here, rest) = (here >> 1, rest ^ place);
        }
        next += present.count_ones() as usize;
        spread.append_word(placed, length);
    }
    spread.finish()
}

/// Whether pages of the column can be read here.
fn is_flat(column: &ColumnDescriptor) -> bool {
    column.max_rep_level() == 0 && column.max_def_level() <= 1
}

/// The rows of a column chunk that pass, of so many.
pub(super) fn passing(
    pages: &mut dyn PageReader,
    column: &ColumnDescriptor,
    rows: usize,
    asks: &impl Asks,
) -> Option<BooleanBuffer> {
    if !is_flat(column) {
        return None;
    }
    let (mut pass, mut numbers, mut all) = (None, Vec::new(), BooleanBufferBuilder::new(rows));
    while let Some(page) = pages.get_next_page().ok()? {
        if let Page::DictionaryPage { buf, num_values, .. } = &page {
            pass = Some(Words::of(buf.clone(), *num_values as usize, column)?.pass(asks)?);
        } else {
            let sheet = Sheet::of(page, column, rows.checked_sub(all.len())?)?;
            all.append_buffer(&sheet.passing(asks, pass.as_deref(), &mut numbers)?);
        }
    }
    (all.len() == rows).then(|| all.finish())
}

/// Values of some rows, without those that have none.
enum Values {
    Numbers(Vec<i64>),
    Keys(Vec<i32>),
    Texts(Vec<Box<[u8]>>),
    Bools(BitWriter),
}

impl Values {
    fn new(kind: &DataType, rows: usize) -> Option<Self> {
        Some(match kind {
            DataType::UInt64 | DataType::Timestamp(TimeUnit::Nanosecond, _) => Self::Numbers(Vec::with_capacity(rows)),
            DataType::Dictionary(..) => Self::Keys(Vec::with_capacity(rows)),
            DataType::Utf8 => Self::Texts(Vec::with_capacity(rows)),
            DataType::Boolean => Self::Bools(BitWriter::with_capacity(rows)),
            _ => return None,
        })
    }

    fn key(&mut self, key: u64, words: &Words) -> Option<()> {
        match self {
            Self::Numbers(numbers) => numbers.push(i64::from_le_bytes(*words.numbers()?.get(key as usize)?)),
            Self::Keys(keys) if words.texts().is_some() && (key as usize) < words.count => keys.push(key as i32),
            Self::Keys(_) | Self::Texts(_) | Self::Bools(_) => return None,
        }
        Some(())
    }

    /// Adds values of a page, by their numbers among those that the page has.
    fn add(&mut self, sheet: &Sheet, wanted: &[usize], words: Option<&Words>) -> Option<()> {
        let Some(last) = wanted.last() else { return Some(()) };
        match (&mut *self, sheet.encoding) {
            (_, Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY) => {
                let (mut first, mut rest) = (0, wanted);
                for run in sheet.runs(last + 1)? {
                    let rows = match run {
                        Run::Repeated(_, rows) | Run::Packed(_, rows) => rows,
                    };
                    let (here, later) = before(rest, first + rows);
                    for at in here {
                        let key = match run {
                            Run::Repeated(key, _) => key,
                            Run::Packed(keys, _) => keys.get(at - first),
                        };
                        self.key(key, words?)?;
                    }
                    (first, rest) = (first + rows, later);
                }
                rest.is_empty().then_some(())
            }
            (Self::Numbers(values), Encoding::DELTA_BINARY_PACKED) => some_differences(&sheet.values, wanted, values),
            (Self::Numbers(values), Encoding::PLAIN) => {
                let stored = sheet.values.as_chunks::<NUMBER>().0;
                add(values, wanted, |at| stored.get(at).map(|bytes| i64::from_le_bytes(*bytes)))
            }
            (Self::Bools(values), Encoding::PLAIN) => {
                let stored = Packed::new(&sheet.values, 1)?;
                for at in wanted {
                    values.push(stored.get(*at) == 1);
                }
                Some(())
            }
            (Self::Texts(values), Encoding::PLAIN) => {
                let (mut texts, mut next) = (Texts(&sheet.values), 0);
                add(values, wanted, |at| {
                    let text = texts.nth(at - next)?;
                    next = at + 1;
                    Some(text.into())
                })
            }
            (Self::Numbers(_) | Self::Keys(_) | Self::Texts(_) | Self::Bools(_), _) => None,
        }
    }

    /// The column: of all rows, of which `valid` have a value.
    fn finish(self, kind: &DataType, words: Option<Words>, valid: &BooleanBuffer) -> Option<ArrayRef> {
        let nulls = Some(NullBuffer::new(valid.clone())).filter(|nulls| nulls.null_count() > 0);
        Some(match (self, kind) {
            (Self::Numbers(values), DataType::Timestamp(_, zone)) => {
                let times = TimestampNanosecondArray::try_new(placed(values, valid).into(), nulls).ok()?;
                Arc::new(times.with_timezone_opt(zone.clone()))
            }
            (Self::Numbers(values), _) => {
                let numbers = placed(values, valid).into_iter().map(i64::cast_unsigned).collect::<Vec<_>>();
                Arc::new(UInt64Array::try_new(numbers.into(), nulls).ok()?)
            }
            // Only of rows without a value.
            (Self::Keys(keys), _) if keys.is_empty() => new_null_array(kind, valid.len()),
            (Self::Keys(keys), _) => words?.column(placed(keys, valid), nulls)?,
            (Self::Texts(texts), _) => {
                let mut texts = texts.into_iter();
                let (mut column, mut broken) = (StringBuilder::with_capacity(valid.len(), 0), false);
                for present in valid {
                    let text = if present { texts.next() } else { None };
                    let letters = text.as_deref().map(std::str::from_utf8).transpose();
                    broken |= letters.is_err();
                    column.append_option(letters.unwrap_or_default());
                }
                if broken {
                    return None;
                }
                Arc::new(column.finish())
            }
            (Self::Bools(bits), _) => Arc::new(BooleanArray::new(spread(&bits.finish(), valid), nulls)),
        })
    }
}

/// Adds the values at these places; `None` if one is missing.
fn add<T>(values: &mut Vec<T>, places: &[usize], mut value: impl FnMut(usize) -> Option<T>) -> Option<()> {
    for at in places {
        values.push(value(*at)?);
    }
    Some(())
}

/// Values at the places of the rows that have one.
fn placed<T: Copy + Default>(values: Vec<T>, valid: &BooleanBuffer) -> Vec<T> {
    if values.len() == valid.len() {
        return values;
    }
    let mut values = values.into_iter();
    valid.iter().map(|present| if present { values.next().unwrap_or_default() } else { T::default() }).collect()
}

/// Some rows of a column chunk, by their numbers, in order.
pub(super) fn some(
    pages: &mut dyn PageReader,
    column: &ColumnDescriptor,
    rows: &[usize],
    kind: &DataType,
) -> Option<ArrayRef> {
    if !is_flat(column) {
        return None;
    }
    let (mut values, mut valid) = (Values::new(kind, rows.len())?, BitWriter::with_capacity(rows.len()));
    let (mut words, mut wanted) = (None, Vec::new());
    let (mut first, mut rest) = (0, rows);
    while let Some(about) = pages.peek_next_page().ok()? {
        let length = if about.is_dict { 0 } else { about.num_rows.or(about.num_levels)? };
        let end = first + length;
        let (here, later) = rest.split_at(rest.partition_point(|row| *row < end));
        if here.is_empty() && !about.is_dict {
            pages.skip_next_page().ok()?;
        } else {
            match pages.get_next_page().ok()?? {
                Page::DictionaryPage { buf, num_values, .. } => {
                    words = Some(Words::of(buf, num_values as usize, column)?);
                }
                page => {
                    let sheet = Sheet::of(page, column, length).filter(|sheet| sheet.rows == length)?;
                    wanted.clear();
                    sheet.present_of(here, first, &mut wanted, &mut valid);
                    values.add(&sheet, &wanted, words.as_ref())?;
                }
            }
        }
        (first, rest) = (end, later);
        if rest.is_empty() {
            break;
        }
    }
    rest.is_empty().then(|| values.finish(kind, words, &valid.finish()))?
}

#[cfg(test)]
mod tests;
