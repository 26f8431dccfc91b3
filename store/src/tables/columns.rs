//! Builders of columns: no allocation for a value that was there before.
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
    Array, ArrayRef, BooleanBuilder, DictionaryArray, Int32Array, MapArray, StringArray, StringBuilder, StructArray,
    TimestampNanosecondArray, UInt64Array, new_null_array,
};
use datafusion::arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use datafusion::arrow::datatypes::{DataType, Field, Fields, Int32Type};
use datafusion::arrow::error::ArrowError;
use foldhash::fast::RandomState;
use wiretag_capture::{Kind, Value};
use wiretag_enrich::tagged::AnyColumn;
use wiretag_enrich::{EndTag, Record};

use super::schema::{UTC, entry, entry_fields};

/// Columns whose texts hardly ever come again.
pub(super) const UNIQUE: &[&str] = &["flow_id", "community_id"];
/// Places that are remembered at most.
const PLACES: usize = 4_096;
/// Odd, without pattern: texts that lie side by side fall far apart.
const SPREAD: usize = 0x9e37_79b9_7f4a_7c15_u64 as usize;

/// Numbers of the identities of one end, in the order in which they come.
#[derive(Default)]
pub(super) struct Identities {
    numbers: HashMap<usize, u32, RandomState>,
    last: (usize, u32),
}

impl Identities {
    /// The number of an end's identity. All rows of a batch are alive, so one place in memory is one identity; no identity is
    /// one too.
    pub(super) fn number(&mut self, end: &EndTag) -> u32 {
        let at = end.identity.as_ref().map_or(0, |identity| Arc::as_ptr(identity) as usize);
        if self.last.0 == at && !self.numbers.is_empty() {
            return self.last.1;
        }
        let next = self.numbers.len() as u32;
        let number = *self.numbers.entry(at).or_insert(next);
        self.last = (at, number);
        number
    }
}

/// A text's key in a dictionary; none for a null.
#[derive(Clone, Copy)]
pub(super) struct Key(Option<i32>);

/// Builds one column.
pub(super) enum Builder<'a> {
    Bools(BooleanBuilder),
    Numbers(Numbers<u64>),
    Times(Numbers<i64>),
    Ips(Spelled<IpAddr>),
    Macs(Spelled<[u8; 6]>),
    Texts(Texts<'a>),
    /// Of an identity: read once for each.
    Attributes(Texts<'a>, Vec<Option<Key>>),
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
            (Kind::Map, _) => Self::Maps(Box::new(Maps::new())),
        }
    }

    /// Appends the values of rows, whose identities have these numbers; a value that is not of the column's kind is null.
    pub(super) fn extend(&mut self, identities: &[u32], values: impl Iterator<Item = impl FnOnce() -> Value<'a>>) {
        let by_identity = identities.iter().copied();
        match self {
            Self::Bools(builder) => values.for_each(|value| {
                builder.append_option(if let Value::Bool(value) = value() { Some(value) } else { None });
            }),
            Self::Numbers(builder) => {
                builder.extend(values.map(|value| if let Value::Number(value) = value() { Some(value) } else { None }));
            }
            Self::Times(builder) => {
                builder.extend(values.map(|value| if let Value::Time(value) = value() { Some(value) } else { None }));
            }
            Self::Ips(builder) => values.for_each(|value| {
                builder.push(if let Value::Ip(ip) = value() { Some(ip) } else { None }, ToString::to_string);
            }),
            Self::Macs(builder) => values.for_each(|value| {
                builder.push(if let Value::Mac(mac) = value() { Some(mac) } else { None }, |mac| Value::mac_text(*mac));
            }),
            Self::Texts(builder) => builder.extend(values.map(|value| value())),
            Self::Attributes(texts, known) => {
                let Texts { keys, words, .. } = texts;
                keys.0.extend(by_identity.zip(values).map(|(identity, value)| {
                    let key = remembered(known, identity, || match value() {
                        Value::Text(text) => Key(Some(words.key(text))),
                        _ => Key(None),
                    });
                    key.0
                }));
            }
            Self::Unique(builder) => values.for_each(|value| match value() {
                Value::Text(text) => builder.append_value(text),
                _ => builder.append_null(),
            }),
            Self::Maps(builder) => by_identity.zip(values).for_each(|(identity, value)| {
                builder.push(identity, || if let Value::Map(pairs) = value() { Some(pairs) } else { None });
            }),
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
pub(super) struct Numbers<T> {
    values: Vec<T>,
    valid: Vec<bool>,
    nulls: usize,
    rows: usize,
}

impl<T: Copy + Default> Numbers<T> {
    fn new(rows: usize) -> Self {
        Self { values: Vec::new(), valid: Vec::new(), nulls: 0, rows }
    }

    fn push(&mut self, value: Option<T>) {
        self.extend(std::iter::once(value));
    }

    #[inline]
    fn extend(&mut self, mut values: impl Iterator<Item = Option<T>>) {
        if self.values.is_empty() {
            let Some(first) = values.find(|value| {
                self.nulls += usize::from(value.is_none());
                value.is_some()
            }) else {
                return;
            };
            self.values.reserve(self.rows);
            self.valid.reserve(self.rows);
            self.values.resize(self.nulls, T::default());
            self.valid.resize(self.nulls, false);
            self.add(first);
        }
        values.for_each(|value| self.add(value));
    }

    #[inline]
    fn add(&mut self, value: Option<T>) {
        self.nulls += usize::from(value.is_none());
        self.values.push(value.unwrap_or_default());
        self.valid.push(value.is_some());
    }

    fn finish(mut self) -> (ScalarBuffer<T>, Option<NullBuffer>)
    where
        T: datafusion::arrow::datatypes::ArrowNativeType,
    {
        if self.values.is_empty() {
            self.values.resize(self.nulls, T::default());
            self.valid.resize(self.nulls, false);
        }
        let nulls = (self.nulls > 0).then(|| NullBuffer::new(BooleanBuffer::from(self.valid)));
        (self.values.into(), nulls)
    }
}

/// Keys of a dictionary.
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

    fn push(&mut self, value: Option<T>, spell: impl Fn(&T) -> String) {
        let Some(value) = value else { return self.keys.0.push(None) };
        if let Some((last, key)) = self.last
            && last == value
        {
            return self.keys.0.push(Some(key));
        }
        let next = self.known.len() as i32;
        let key = *self.known.entry(value).or_insert_with(|| {
            self.texts.append_value(spell(&value));
            next
        });
        self.last = Some((value, key));
        self.keys.0.push(Some(key));
    }
}

/// A place in memory, and the key of the text there.
type Place = (usize, usize, i32);

/// Texts that come again.
pub(super) struct Texts<'a> {
    keys: Keys,
    words: Words<'a>,
}

impl<'a> Texts<'a> {
    fn new(rows: usize) -> Self {
        let places = rows.next_power_of_two().min(PLACES);
        let words = Words {
            letters: StringBuilder::new(),
            known: HashMap::default(),
            last: (0, 0, 0),
            places: vec![(0, 0, 0); places],
        };
        Self { keys: Keys(Numbers::new(rows)), words }
    }

    fn extend(&mut self, values: impl Iterator<Item = Value<'a>>) {
        let Self { keys, words } = self;
        keys.0.extend(values.map(|value| match value {
            Value::Text(Cow::Borrowed(text)) => Some(words.place(text)),
            Value::Text(text) => Some(words.key(text)),
            _ => None,
        }));
    }
}

/// The texts of a dictionary.
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
        let (at, length) = (text.as_ptr() as usize, text.len());
        if (self.last.0, self.last.1) != (at, length) {
            self.last = self.remembered(text);
        }
        self.last.2
    }

    fn remembered(&mut self, text: &'a str) -> Place {
        let (at, length) = (text.as_ptr() as usize, text.len());
        let slot = (at.wrapping_mul(SPREAD) >> (usize::BITS / 2)) % self.places.len();
        match self.places.get(slot) {
            Some(place) if (place.0, place.1) == (at, length) => *place,
            Some(_) | None => {
                let new = (at, length, self.key(Cow::Borrowed(text)));
                if let Some(place) = self.places.get_mut(slot) {
                    *place = new;
                }
                new
            }
        }
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

/// What is remembered under a number, made when it is asked for first.
fn remembered<T>(known: &mut Vec<Option<T>>, number: u32, make: impl FnOnce() -> T) -> &T {
    let at = number as usize;
    if known.len() <= at {
        known.resize_with(at + 1, || None);
    }
    known[at].get_or_insert_with(make)
}

/// Keys of the pairs of a map.
type Pairs = Option<Vec<(i32, i32)>>;

/// Maps of text to text, of identities.
pub(super) struct Maps<'a> {
    known: Vec<Option<Pairs>>,
    keys: Texts<'a>,
    values: Texts<'a>,
    lengths: Vec<usize>,
    valid: Vec<bool>,
}

impl<'a> Maps<'a> {
    fn new() -> Self {
        Self { known: Vec::new(), keys: Texts::new(0), values: Texts::new(0), lengths: Vec::new(), valid: Vec::new() }
    }

    fn push(&mut self, identity: u32, pairs: impl FnOnce() -> Option<Vec<(&'a str, &'a str)>>) {
        let Self { known, keys, values, .. } = self;
        let mut pair = |(key, value)| (keys.words.key(Cow::Borrowed(key)), values.words.key(Cow::Borrowed(value)));
        let pairs = remembered(known, identity, || Some(pairs()?.into_iter().map(&mut pair).collect())).as_deref();
        self.lengths.push(pairs.map_or(0, <[_]>::len));
        self.valid.push(pairs.is_some());
        let pairs = pairs.unwrap_or_default();
        self.keys.keys.0.extend(pairs.iter().map(|pair| Some(pair.0)));
        self.values.keys.0.extend(pairs.iter().map(|pair| Some(pair.1)));
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
        let nulls = NullBuffer::from(self.valid);
        let offsets = OffsetBuffer::from_lengths(self.lengths);
        Ok(Arc::new(MapArray::try_new(Arc::new(entry), offsets, entries, Some(nulls), false)?))
    }
}
