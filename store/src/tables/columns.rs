//! Builders of columns: no allocation for a value that was there before.
//!
//! A text that rows share (a name, a word) is found by where it lies in memory: all rows of a batch are alive, so one place
//! is one text. Only a place that is new is looked up by its letters.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, BooleanBuilder, DictionaryArray, Int32Array, MapArray, StringArray, StringBuilder, StructArray,
    TimestampNanosecondArray, UInt64Array, new_null_array,
};
use datafusion::arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use datafusion::arrow::datatypes::{DataType, Int32Type};
use datafusion::arrow::error::ArrowError;
use foldhash::fast::RandomState;
use wiretag_capture::{Kind, Value};
use wiretag_enrich::tagged::AnyColumn;
use wiretag_enrich::{EndTag, Record};

use super::schema::{UTC, entry, entry_fields};

/// Columns whose texts hardly ever come again.
pub(super) const UNIQUE: &[&str] = &["flow_id", "community_id"];
/// Places that are remembered.
const PLACES: usize = 256;

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
    Maps(Maps<'a>),
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
            (Kind::Map, _) => Self::Maps(Maps::default()),
        }
    }

    /// Appends the values of as many rows as there are `identities`, the numbers of their own; a value that is not of the
    /// column's kind is null.
    pub(super) fn extend(&mut self, identities: &[u32], value: impl Fn(usize) -> Value<'a>) {
        let values = (0..identities.len()).map(&value);
        match self {
            Self::Bools(builder) => values.for_each(|value| {
                builder.append_option(if let Value::Bool(value) = value { Some(value) } else { None });
            }),
            Self::Numbers(builder) => {
                values
                    .for_each(|value| builder.push(if let Value::Number(value) = value { Some(value) } else { None }));
            }
            Self::Times(builder) => {
                values.for_each(|value| builder.push(if let Value::Time(value) = value { Some(value) } else { None }));
            }
            Self::Ips(builder) => values.for_each(|value| {
                builder.push(if let Value::Ip(ip) = value { Some(ip) } else { None }, ToString::to_string);
            }),
            Self::Macs(builder) => values.for_each(|value| {
                builder.push(if let Value::Mac(mac) = value { Some(mac) } else { None }, |mac| Value::mac_text(*mac));
            }),
            Self::Texts(builder) => values.for_each(|value| builder.push(value)),
            Self::Attributes(texts, known) => {
                for (row, identity) in identities.iter().enumerate() {
                    let key = remembered(known, *identity, || match value(row) {
                        Value::Text(text) => Key(Some(texts.key(text))),
                        _ => Key(None),
                    });
                    texts.keys.0.push(key.0);
                }
            }
            Self::Unique(builder) => values.for_each(|value| {
                builder.append_option(if let Value::Text(text) = &value { Some(&**text) } else { None });
            }),
            Self::Maps(builder) => {
                for (row, identity) in identities.iter().enumerate() {
                    builder.push(*identity, || if let Value::Map(pairs) = value(row) { Some(pairs) } else { None });
                }
            }
        }
    }

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
            Self::Texts(texts) | Self::Attributes(texts, _) => texts.keys.finish(texts.letters)?,
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
        if self.values.is_empty() {
            if value.is_none() {
                self.nulls += 1;
                return;
            }
            self.values.reserve(self.rows);
            self.valid.reserve(self.rows);
            self.values.resize(self.nulls, T::default());
            self.valid.resize(self.nulls, false);
        }
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
    letters: StringBuilder,
    known: HashMap<std::borrow::Cow<'a, str>, i32, RandomState>,
    places: Vec<Place>,
}

impl<'a> Texts<'a> {
    fn new(rows: usize) -> Self {
        let (letters, known) = (StringBuilder::new(), HashMap::default());
        Self { keys: Keys(Numbers::new(rows)), letters, known, places: vec![(0, 0, 0); PLACES] }
    }

    fn push(&mut self, value: Value<'a>) {
        let Value::Text(text) = value else { return self.keys.0.push(None) };
        let key = match &text {
            std::borrow::Cow::Borrowed(borrowed) => {
                let (at, length) = (borrowed.as_ptr() as usize, borrowed.len());
                let slot = (at >> 4 ^ at >> 12) % PLACES;
                match self.places.get(slot) {
                    Some((known, long, key)) if (*known, *long) == (at, length) => *key,
                    Some(_) | None => {
                        let key = self.key(text);
                        if let Some(place) = self.places.get_mut(slot) {
                            *place = (at, length, key);
                        }
                        key
                    }
                }
            }
            std::borrow::Cow::Owned(_) => self.key(text),
        };
        self.keys.0.push(Some(key));
    }

    fn key(&mut self, text: std::borrow::Cow<'a, str>) -> i32 {
        if let Some(key) = self.known.get(&*text) {
            return *key;
        }
        let key = self.known.len() as i32;
        self.letters.append_value(&text);
        self.known.insert(text, key);
        key
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

/// The pairs of a map.
type Pairs<'a> = Option<Vec<(&'a str, &'a str)>>;

/// Maps of text to text, of identities.
#[derive(Default)]
pub(super) struct Maps<'a> {
    known: Vec<Option<Pairs<'a>>>,
    keys: StringBuilder,
    values: StringBuilder,
    lengths: Vec<usize>,
    valid: Vec<bool>,
}

impl<'a> Maps<'a> {
    fn push(&mut self, identity: u32, pairs: impl FnOnce() -> Pairs<'a>) {
        let pairs = remembered(&mut self.known, identity, pairs).as_ref();
        for (key, value) in pairs.into_iter().flatten() {
            self.keys.append_value(key);
            self.values.append_value(value);
        }
        self.lengths.push(pairs.map_or(0, Vec::len));
        self.valid.push(pairs.is_some());
    }

    fn finish(mut self) -> Result<ArrayRef, ArrowError> {
        let columns: Vec<ArrayRef> = vec![Arc::new(self.keys.finish()), Arc::new(self.values.finish())];
        let entries = StructArray::try_new(entry_fields(), columns, None)?;
        let nulls = NullBuffer::from(self.valid);
        let offsets = OffsetBuffer::from_lengths(self.lengths);
        Ok(Arc::new(MapArray::try_new(entry(), offsets, entries, Some(nulls), false)?))
    }
}
