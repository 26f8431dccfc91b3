//! Builders of columns: no allocation for a value that was there before.
//!
//! Values come in blocks of rows, a vector for each column: reading, looking at what is null, and appending are loops of their own
//! over what the first cache holds. A column of which a block has nothing costs a count.
//!
//! A text that rows share (a name, a word) is found by where it lies in memory: all rows of a batch are alive, so one place
//! is one text. Only a place that is new is looked up by its letters.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, BooleanBuilder, DictionaryArray, Int32Array, MapArray, NullBufferBuilder, StringArray,
    StringBuilder, StructArray, TimestampNanosecondArray, UInt64Array, new_null_array,
};
use datafusion::arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use datafusion::arrow::datatypes::{ArrowNativeType, DataType, Field, Fields, Int32Type};
use datafusion::arrow::error::ArrowError;
use foldhash::fast::RandomState;
use wiretag_capture::{Column, Kind, Value, Values};
use wiretag_enrich::tagged::AnyColumn;
use wiretag_enrich::{Ends, IdentityColumn, Record};

use super::schema::{UTC, entry, entry_fields};

/// Columns whose texts hardly ever come again.
pub(super) const UNIQUE: &[&str] = &["flow_id", "community_id"];
/// Places that are remembered: few of a column with few texts, so that those of all columns stay in the cache.
const PLACES: std::ops::RangeInclusive<usize> = 16..=16_384;
/// Odd, without pattern: texts that lie side by side fall far apart.
const SPREAD: usize = 0x9e37_79b9_7f4a_7c15_u64 as usize;

/// The identities of one end, numbered in the order in which they come. All rows of a batch are alive, so one place in memory
/// is one identity; no identity is one too.
#[derive(Default)]
pub(super) struct Identities<'a> {
    numbers: HashMap<usize, u32, RandomState>,
    last: (usize, u32),
    /// Of each row of the block.
    rows: Vec<u32>,
    /// Rows of the block in which one came first, in the order of their numbers.
    new: Vec<Ends<'a>>,
}

impl<'a> Identities<'a> {
    /// Looks at a block of rows, by their end on the `client`'s side or the server's.
    pub(super) fn read(&mut self, ends: &[Ends<'a>], client: bool) {
        self.rows.clear();
        self.new.clear();
        for both in ends {
            let end = if client { both.0 } else { both.1 };
            let at = end.identity.as_ref().map_or(0, |identity| Arc::as_ptr(identity) as usize);
            if self.last.0 != at || self.numbers.is_empty() {
                let next = self.numbers.len() as u32;
                let number = *self.numbers.entry(at).or_insert(next);
                if number == next {
                    self.new.push(*both);
                }
                self.last = (at, number);
            }
            self.rows.push(self.last.1);
        }
    }
}

/// Builds one column.
#[derive(Debug)]
pub(super) enum Builder<'a> {
    Bools(BooleanBuilder),
    Numbers(Numbers<u64>),
    Times(Numbers<i64>),
    Ips(Spelled<IpAddr>),
    Macs(Spelled<[u8; 6]>),
    Texts(Texts<'a>),
    /// Of an identity: read once for each.
    Attributes(Texts<'a>, Vec<Option<i32>>),
    Unique(StringBuilder),
    /// Of an identity.
    Maps(Box<Maps<'a>>),
}

impl<'a> Builder<'a> {
    pub(super) fn new<R: Record>(column: AnyColumn<R>, rows: usize) -> Self {
        match (column.kind(), column) {
            (Kind::Bool, _) => Self::Bools(BooleanBuilder::with_capacity(rows)),
            (Kind::Number | Kind::Size | Kind::Duration, _) => Self::Numbers(Numbers::new(rows)),
            (Kind::Time, _) => Self::Times(Numbers::new(rows)),
            (Kind::Ip, _) => Self::Ips(Spelled::new(rows)),
            (Kind::Mac, _) => Self::Macs(Spelled::new(rows)),
            (Kind::Text, AnyColumn::Identity(_)) => Self::Attributes(Texts::new(rows), Vec::new()),
            (Kind::Text, _) if UNIQUE.contains(&column.name()) => {
                Self::Unique(StringBuilder::with_capacity(rows, rows * 30))
            }
            (Kind::Text | Kind::Word, _) => Self::Texts(Texts::new(rows)),
            (Kind::Map, _) => Self::Maps(Box::new(Maps::new(rows))),
        }
    }

    /// Appends what a block of rows has in a column of their records.
    pub(super) fn read_records<R>(&mut self, column: &Column<R>, records: &[&'a R]) {
        self.append((column.all)(records), &[]);
    }

    /// Appends what a block of rows has in a column of their ends, whose identities were read.
    pub(super) fn read_ends(&mut self, column: &IdentityColumn, ends: &[Ends<'a>], identities: &Identities<'a>) {
        let by_identity = matches!(self, Self::Attributes(..) | Self::Maps(..));
        self.append((column.all)(if by_identity { &identities.new } else { ends }), &identities.rows);
    }

    /// Appends the values of rows, or of new identities and the numbers of those of the rows.
    fn append(&mut self, values: Values<'a>, identities: &[u32]) {
        match (self, values) {
            (Self::Bools(builder), Values::Bools(values)) => builder.extend(values),
            (Self::Numbers(builder), Values::Numbers(values)) => builder.extend(&values),
            (Self::Times(builder), Values::Times(values)) => builder.extend(&values),
            (Self::Ips(builder), Values::Ips(values)) => builder.extend(&values, ToString::to_string),
            (Self::Macs(builder), Values::Macs(values)) => builder.extend(&values, |mac| Value::mac_text(*mac)),
            (Self::Texts(builder), Values::Texts(values)) => builder.extend(values),
            (Self::Attributes(Texts { keys, words }, known), Values::Texts(new)) => {
                known.extend(new.into_iter().map(|text| text.map(|text| words.key(text))));
                let of_rows: Vec<_> = identities.iter().map(|identity| known[*identity as usize]).collect();
                keys.0.extend(&of_rows);
            }
            (Self::Unique(builder), Values::Texts(values)) => builder.extend(values),
            (Self::Maps(builder), Values::Maps(new)) => builder.extend(new, identities),
            // The column's kind decides of both.
            (builder, values) => debug_assert!(false, "{values:?} in {builder:?}"),
        }
    }

    /// The column; texts that come again are dictionaries, also those in maps.
    pub(super) fn finish(self) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Self::Bools(mut builder) => Arc::new(builder.finish()),
            Self::Numbers(numbers) => {
                let (values, nulls) = numbers.finish();
                Arc::new(UInt64Array::try_new(values, nulls)?)
            }
            Self::Times(numbers) => {
                let (values, nulls) = numbers.finish();
                Arc::new(TimestampNanosecondArray::try_new(values, nulls)?.with_timezone(UTC))
            }
            Self::Ips(spelled) => spelled.keys.finish(spelled.texts)?,
            Self::Macs(spelled) => spelled.keys.finish(spelled.texts)?,
            Self::Texts(texts) | Self::Attributes(texts, _) => texts.keys.finish(texts.words.letters)?,
            Self::Unique(mut builder) => Arc::new(builder.finish()),
            Self::Maps(maps) => maps.finish()?,
        })
    }
}

/// Numbers; nothing is kept while all of them are null.
#[derive(Debug)]
pub(super) struct Numbers<T> {
    values: Vec<T>,
    nulls: NullBufferBuilder,
    rows: usize,
}

impl<T: ArrowNativeType> Numbers<T> {
    fn new(rows: usize) -> Self {
        Self { values: Vec::new(), nulls: NullBufferBuilder::new(rows), rows }
    }

    fn extend(&mut self, values: &[Option<T>]) {
        let nulls = values.iter().filter(|value| value.is_none()).count();
        if nulls < values.len() || !self.values.is_empty() {
            self.values.reserve(self.rows.saturating_sub(self.values.len()));
            self.values.resize(self.nulls.len(), T::default());
            self.values.extend(values.iter().map(|value| value.unwrap_or_default()));
        }
        match nulls {
            0 => self.nulls.append_n_non_nulls(values.len()),
            all if all == values.len() => self.nulls.append_n_nulls(all),
            _ => {
                let valid = BooleanBuffer::collect_bool(values.len(), |row| values[row].is_some());
                self.nulls.append_buffer(&NullBuffer::new(valid));
            }
        }
    }

    fn finish(mut self) -> (ScalarBuffer<T>, Option<NullBuffer>) {
        self.values.resize(self.nulls.len(), T::default());
        (self.values.into(), self.nulls.finish())
    }
}

/// Keys of a dictionary.
#[derive(Debug)]
struct Keys(Numbers<i32>);

impl Keys {
    fn finish(self, texts: StringBuilder) -> Result<ArrayRef, ArrowError> {
        let mut texts = texts;
        let (values, nulls) = self.0.finish();
        let texts: StringArray = texts.finish();
        if texts.is_empty() {
            return Ok(new_null_array(&DataType::Utf8, values.len()));
        }
        let keys = Int32Array::try_new(values, nulls)?;
        Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(keys, Arc::new(texts))?))
    }
}

/// Values that are spelled out once each.
#[derive(Debug)]
pub(super) struct Spelled<T> {
    keys: Keys,
    texts: StringBuilder,
    known: HashMap<T, i32, RandomState>,
    last: Option<(T, i32)>,
}

impl<T: Copy + Eq + Hash> Spelled<T> {
    fn new(rows: usize) -> Self {
        Self { keys: Keys(Numbers::new(rows)), texts: StringBuilder::new(), known: HashMap::default(), last: None }
    }

    fn extend(&mut self, values: &[Option<T>], spell: impl Fn(&T) -> String) {
        let keys: Vec<_> = values.iter().map(|value| value.map(|value| self.key(value, &spell))).collect();
        self.keys.0.extend(&keys);
    }

    fn key(&mut self, value: T, spell: impl Fn(&T) -> String) -> i32 {
        if let Some((last, key)) = self.last
            && last == value
        {
            return key;
        }
        let next = self.known.len() as i32;
        let key = *self.known.entry(value).or_insert_with(|| {
            self.texts.append_value(spell(&value));
            next
        });
        self.last = Some((value, key));
        key
    }
}

/// A place in memory, and the key of the text there.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    at: usize,
    length: u32,
    key: i32,
}

impl Place {
    fn has(&self, text: &str) -> bool {
        self.at == text.as_ptr() as usize && self.length as usize == text.len()
    }

    /// Where it is remembered, of a power of two of slots.
    fn slot(text: &str, slots: usize) -> usize {
        (text.as_ptr() as usize).wrapping_mul(SPREAD) >> (usize::BITS / 2) & (slots - 1)
    }
}

/// Texts that come again.
#[derive(Debug)]
pub(super) struct Texts<'a> {
    keys: Keys,
    words: Words<'a>,
}

impl<'a> Texts<'a> {
    fn new(rows: usize) -> Self {
        let words = Words {
            letters: StringBuilder::new(),
            known: HashMap::default(),
            last: Place::default(),
            places: vec![Place::default(); *PLACES.start()],
        };
        Self { keys: Keys(Numbers::new(rows)), words }
    }

    fn extend(&mut self, values: Vec<Option<Cow<'a, str>>>) {
        let Self { keys, words } = self;
        let mut key = |text| match text {
            Cow::Borrowed(text) => words.place(text),
            Cow::Owned(_) => words.key(text),
        };
        let keys_of_rows: Vec<_> = values.into_iter().map(|text| text.map(&mut key)).collect();
        keys.0.extend(&keys_of_rows);
    }
}

/// The texts of a dictionary.
#[derive(Debug)]
struct Words<'a> {
    letters: StringBuilder,
    known: HashMap<Cow<'a, str>, i32, RandomState>,
    last: Place,
    places: Vec<Place>,
}

impl<'a> Words<'a> {
    /// The key of a text, by its place.
    #[inline]
    fn place(&mut self, text: &'a str) -> i32 {
        if !self.last.has(text) {
            self.last = self.remembered(text);
        }
        self.last.key
    }

    fn remembered(&mut self, text: &'a str) -> Place {
        let slot = Place::slot(text, self.places.len());
        match self.places.get(slot) {
            Some(place) if place.has(text) => *place,
            Some(_) | None => self.remember(text),
        }
    }

    /// Few texts share a slot: there are twice as many slots as texts.
    fn remember(&mut self, text: &'a str) -> Place {
        let key = self.key(Cow::Borrowed(text));
        if self.known.len() * 2 > self.places.len() && self.places.len() < *PLACES.end() {
            self.places = vec![Place::default(); self.places.len() * 4];
        }
        let new = Place { at: text.as_ptr() as usize, length: text.len() as u32, key };
        let slot = Place::slot(text, self.places.len());
        if let Some(place) = self.places.get_mut(slot) {
            *place = new;
        }
        new
    }

    fn key(&mut self, text: Cow<'a, str>) -> i32 {
        let next = self.known.len() as i32;
        match self.known.entry(text) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                self.letters.append_value(new.key());
                *new.insert(next)
            }
        }
    }
}

/// Keys of the pairs of a map.
type Pairs = Option<[Vec<Option<i32>>; 2]>;

/// Maps of text to text, of identities.
#[derive(Debug)]
pub(super) struct Maps<'a> {
    known: Vec<Pairs>,
    keys: Texts<'a>,
    values: Texts<'a>,
    lengths: Vec<usize>,
    nulls: NullBufferBuilder,
}

impl<'a> Maps<'a> {
    fn new(rows: usize) -> Self {
        let nulls = NullBufferBuilder::new(rows);
        Self { known: Vec::new(), keys: Texts::new(0), values: Texts::new(0), lengths: Vec::new(), nulls }
    }

    fn extend(&mut self, new: Vec<Option<Vec<(&'a str, &'a str)>>>, identities: &[u32]) {
        let Self { known, keys, values, .. } = self;
        let mut key =
            |(key, value)| (Some(keys.words.key(Cow::Borrowed(key))), Some(values.words.key(Cow::Borrowed(value))));
        known.extend(new.into_iter().map(|pairs| {
            let (keys, values) = pairs?.into_iter().map(&mut key).unzip();
            Some([keys, values])
        }));
        for identity in identities {
            let pairs = self.known[*identity as usize].as_ref();
            self.lengths.push(pairs.map_or(0, |[keys, _]| keys.len()));
            self.nulls.append(pairs.is_some());
            if let Some([keys, values]) = pairs {
                self.keys.keys.0.extend(keys);
                self.values.keys.0.extend(values);
            }
        }
    }

    fn finish(self) -> Result<ArrayRef, ArrowError> {
        let texts = [self.keys, self.values];
        let columns = texts.into_iter().map(|texts| texts.keys.finish(texts.words.letters));
        let columns = columns.collect::<Result<Vec<ArrayRef>, _>>()?;
        let alike = |(field, column): (&Arc<Field>, &ArrayRef)| {
            field.as_ref().clone().with_data_type(column.data_type().clone())
        };
        let fields: Fields = entry_fields().iter().zip(&columns).map(alike).collect();
        let entry = entry().as_ref().clone().with_data_type(DataType::Struct(fields.clone()));
        let entries = StructArray::try_new(fields, columns, None)?;
        let mut nulls = self.nulls;
        let offsets = OffsetBuffer::from_lengths(self.lengths);
        Ok(Arc::new(MapArray::try_new(Arc::new(entry), offsets, entries, nulls.finish(), false)?))
    }
}
