//! Values of columns as numbers: each distinct value of a key is kept once.

use std::hash::BuildHasher;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, MapArray, StringArray, TimestampNanosecondArray, UInt64Array,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int32Type, TimestampNanosecondType, UInt64Type};
use datafusion::arrow::error::ArrowError;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Stands for no value where values are told apart by where they stand.
pub(super) const NO_VALUE: u32 = u32::MAX;

/// Memory of a text besides its bytes, about: how many share it, and what its place has of its own.
const TEXT: usize = size_of::<[usize; 4]>();

/// Buckets of time that are told apart without looking each up, at most.
const MOST_BUCKETS: i64 = 65_536;

/// One value of a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum KeyValue {
    Bool(bool),
    Number(u64),
    Time(i64),
    Text(Arc<str>),
    /// No value; the last in every order.
    Null,
}

/// A value on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Seen<'a> {
    Bool(bool),
    Number(u64),
    Time(i64),
    Text(&'a str),
    Null,
}

impl KeyValue {
    pub(crate) fn seen(&self) -> Seen<'_> {
        match self {
            Self::Bool(value) => Seen::Bool(*value),
            Self::Number(value) => Seen::Number(*value),
            Self::Time(value) => Seen::Time(*value),
            Self::Text(text) => Seen::Text(text),
            Self::Null => Seen::Null,
        }
    }
}

impl Seen<'_> {
    fn kept(self) -> KeyValue {
        match self {
            Self::Bool(value) => KeyValue::Bool(value),
            Self::Number(value) => KeyValue::Number(value),
            Self::Time(value) => KeyValue::Time(value),
            Self::Text(text) => KeyValue::Text(text.into()),
            Self::Null => KeyValue::Null,
        }
    }
}

/// Distinct values, numbered in the order in which they came.
#[derive(Debug)]
pub(crate) struct Interner {
    values: Vec<KeyValue>,
    numbers: HashTable<u32>,
    hasher: RandomState,
    texts: usize,
}

impl Interner {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self { values: Vec::new(), numbers: HashTable::new(), hasher, texts: 0 }
    }

    /// The number of a value, which may be new.
    pub(super) fn number(&mut self, value: Seen<'_>) -> u32 {
        let (values, hasher) = (&self.values, &self.hasher);
        let is = |number: &u32| values.get(*number as usize).is_some_and(|known| known.seen() == value);
        let hash = hasher.hash_one(value);
        if let Some(number) = self.numbers.find(hash, is) {
            return *number;
        }
        let number = self.values.len() as u32;
        let rehash = |number: &u32| values.get(*number as usize).map_or(0, |known| hasher.hash_one(known.seen()));
        self.numbers.insert_unique(hash, number, rehash);
        self.texts += if let Seen::Text(text) = value { TEXT + text.len() } else { 0 };
        self.values.push(value.kept());
        number
    }

    /// The number of a value that was seen before.
    pub(super) fn known(&self, value: Seen<'_>) -> Option<u32> {
        let is = |number: &u32| self.values.get(*number as usize).is_some_and(|known| known.seen() == value);
        self.numbers.find(self.hasher.hash_one(value), is).copied()
    }

    pub(super) fn value(&self, number: u32) -> &KeyValue {
        self.values.get(number as usize).unwrap_or(&KeyValue::Null)
    }

    pub(super) fn values(&self) -> &[KeyValue] {
        &self.values
    }

    /// Where each value stands among all; [`NO_VALUE`] for null.
    pub(super) fn ranks(&self) -> Vec<u32> {
        let mut order: Vec<(&KeyValue, usize)> = self.values.iter().zip(0..).collect();
        order.sort_unstable();
        let mut ranks = vec![NO_VALUE; order.len()];
        for (rank, (value, number)) in (0..).zip(order) {
            if let Some(slot) = ranks.get_mut(number).filter(|_| *value != KeyValue::Null) {
                *slot = rank;
            }
        }
        ranks
    }

    /// Memory, about.
    pub(super) fn bytes(&self) -> usize {
        self.texts + self.values.capacity() * size_of::<KeyValue>() + self.numbers.allocation_size()
    }

    /// Memory that room for so many values more takes, besides their texts, until it is made.
    pub(super) fn growth(&self, more: usize) -> usize {
        let (values, room) = (self.values.len() + more, self.values.capacity());
        let values = if values > room { values.max(2 * room) - room } else { 0 };
        growth(&self.numbers, more) + values * size_of::<KeyValue>()
    }

    /// Makes that room.
    pub(super) fn reserve(&mut self, more: usize) {
        let (values, hasher) = (&self.values, &self.hasher);
        let rehash = |number: &u32| values.get(*number as usize).map_or(0, |known| hasher.hash_one(known.seen()));
        self.numbers.reserve(more, rehash);
        self.values.reserve(more);
    }
}

/// Memory that room for so many entries more takes until it is made: the table of before is there meanwhile.
pub(super) fn growth<T>(table: &HashTable<T>, more: usize) -> usize {
    let entries = table.len() + more;
    if entries <= table.capacity() {
        return 0;
    }
    // Places are a power of two, of which seven in eight are used; each has a byte besides.
    let places = (entries.max(table.capacity() + 1) * 8 / 7).next_power_of_two();
    places * (size_of::<T>() + 1)
}

/// Maps, and the key whose values are wanted.
#[derive(Debug)]
pub(super) struct Labels {
    maps: MapArray,
    names: StringArray,
    values: StringArray,
    key: String,
}

impl Labels {
    fn get(&self, row: usize) -> Seen<'_> {
        let offsets = self.maps.value_offsets();
        let (Some(first), Some(last)) = (offsets.get(row), offsets.get(row + 1)) else { return Seen::Null };
        let mut entries = (*first as usize)..(*last as usize);
        match entries.find(|at| self.names.value(*at) == self.key && self.values.is_valid(*at)) {
            Some(at) if self.maps.is_valid(row) => Seen::Text(self.values.value(at)),
            Some(_) | None => Seen::Null,
        }
    }
}

/// A column of a batch, by the kind of its values.
#[derive(Debug)]
pub(super) enum Column {
    Bool(BooleanArray),
    Number(UInt64Array),
    /// With the moment and the width that times are rounded down to.
    Time(TimestampNanosecondArray, Option<(i64, i64)>),
    Text(StringArray),
    /// Which of the texts it is.
    Words(Int32Array, StringArray),
    /// The values of one label.
    Label(Box<Labels>),
    Nothing,
}

fn texts(array: &ArrayRef) -> Result<StringArray, ArrowError> {
    Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
}

impl Column {
    /// `label` is the key within a map, `buckets` what times are rounded down to.
    pub(super) fn new(array: &ArrayRef, label: Option<&str>, buckets: Option<(i64, i64)>) -> Result<Self, ArrowError> {
        if array.as_any_dictionary_opt().is_some() {
            let kind = DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into());
            let array = if *array.data_type() == kind { array.clone() } else { cast(array, &kind)? };
            let words = array.as_dictionary::<Int32Type>();
            return Ok(Self::Words(words.keys().clone(), texts(words.values())?));
        }
        Ok(match array.data_type() {
            DataType::Boolean => Self::Bool(array.as_boolean().clone()),
            DataType::Timestamp(..) => array
                .as_primitive_opt::<TimestampNanosecondType>()
                .map_or(Self::Nothing, |times| Self::Time(times.clone(), buckets)),
            DataType::Map(..) => {
                let maps = array.as_map();
                let (names, values) = (texts(maps.keys())?, texts(maps.values())?);
                let key = label.unwrap_or_default().to_owned();
                Self::Label(Box::new(Labels { maps: maps.clone(), names, values, key }))
            }
            kind if kind.is_integer() => {
                Self::Number(cast(array, &DataType::UInt64)?.as_primitive::<UInt64Type>().clone())
            }
            DataType::Null => Self::Nothing,
            _ => Self::Text(texts(array)?),
        })
    }

    pub(super) fn get(&self, row: usize) -> Seen<'_> {
        match self {
            Self::Bool(values) if values.is_valid(row) => Seen::Bool(values.value(row)),
            Self::Number(values) if values.is_valid(row) => Seen::Number(values.value(row)),
            Self::Time(values, buckets) if values.is_valid(row) => Seen::Time(rounded(values.value(row), *buckets)),
            Self::Text(values) if values.is_valid(row) => Seen::Text(values.value(row)),
            Self::Words(keys, words) if keys.is_valid(row) => {
                let place = keys.value(row) as usize;
                if place < words.len() && words.is_valid(place) { Seen::Text(words.value(place)) } else { Seen::Null }
            }
            Self::Label(labels) => labels.get(row),
            Self::Bool(_) | Self::Number(_) | Self::Time(..) | Self::Text(_) | Self::Words(..) | Self::Nothing => {
                Seen::Null
            }
        }
    }

    /// The numbers of the values of these rows.
    pub(super) fn numbers(&self, rows: &[u32], interner: &mut Interner) -> Vec<u32> {
        let places = self.places(rows, interner);
        match places.numbers {
            Some(numbers) => {
                places.of_rows.iter().map(|place| numbers.get(*place as usize).copied().unwrap_or(NO_VALUE)).collect()
            }
            None => places.of_rows,
        }
    }

    /// Which of the values that there are each of these rows has.
    pub(super) fn places(&self, rows: &[u32], interner: &mut Interner) -> Places {
        match self {
            Self::Words(keys, words) => {
                // One more for null.
                let (nulls, keys) = (keys.nulls(), keys.values());
                let place = |row: usize| match keys.get(row) {
                    Some(key) if nulls.is_none_or(|nulls| nulls.is_valid(row)) => *key as u32,
                    Some(_) | None => words.len() as u32,
                };
                return self.placed(rows, words.len() + 1, place, interner);
            }
            Self::Time(times, Some((origin, width))) if times.null_count() == 0 => {
                let bucket = |row: usize| Some(times.value(row).checked_sub(*origin)?.div_euclid(*width.max(&1)));
                let buckets: Option<Vec<i64>> = rows.iter().map(|row| bucket(*row as usize)).collect();
                let buckets = buckets.unwrap_or_default();
                if let (Some(first), Some(last)) = (buckets.iter().min(), buckets.iter().max())
                    && let Some(span) = last.checked_sub(*first).filter(|span| *span < MOST_BUCKETS)
                {
                    let mut buckets = buckets.iter().map(|bucket| (bucket - first) as u32);
                    return self.placed(rows, span as usize + 1, |_| buckets.next().unwrap_or_default(), interner);
                }
            }
            Self::Bool(_) | Self::Number(_) | Self::Time(..) | Self::Text(_) | Self::Label(_) | Self::Nothing => {}
        }
        // Neighbours are often equal.
        let mut last = None;
        let number = |row: &u32| {
            let value = self.get(*row as usize);
            match last {
                Some((before, number)) if before == value => number,
                Some(_) | None => {
                    let number = interner.number(value);
                    last = Some((value, number));
                    number
                }
            }
        };
        let of_rows = rows.iter().map(number).collect();
        Places { of_rows, span: interner.values.len(), numbers: None }
    }

    /// Rows whose values `place` tells apart, by less than `span`: each value is looked up once.
    fn placed(
        &self,
        rows: &[u32],
        span: usize,
        mut place: impl FnMut(usize) -> u32,
        interner: &mut Interner,
    ) -> Places {
        let mut numbers = vec![NO_VALUE; span];
        let of_row = |row: &u32| {
            let place = place(*row as usize);
            if let Some(number) = numbers.get_mut(place as usize).filter(|number| **number == NO_VALUE) {
                *number = interner.number(self.get(*row as usize));
            }
            place
        };
        let of_rows = rows.iter().map(of_row).collect();
        Places { of_rows, span, numbers: Some(numbers) }
    }
}

/// Rows with their values told apart by small numbers, which are not those of the interner.
pub(super) struct Places {
    /// Of each row, less than `span`.
    pub(super) of_rows: Vec<u32>,
    pub(super) span: usize,
    /// Of each place the number of its value, [`NO_VALUE`] if no row has it; without them places are the numbers.
    numbers: Option<Vec<u32>>,
}

impl Places {
    /// The number of the value of a row.
    pub(super) fn number(&self, at: usize) -> u32 {
        let place = self.of_rows.get(at).copied().unwrap_or_default();
        self.numbers.as_ref().map_or(place, |numbers| numbers.get(place as usize).copied().unwrap_or_default())
    }
}

/// The beginning of the bucket that a time is in.
fn rounded(time: i64, buckets: Option<(i64, i64)>) -> i64 {
    let Some((origin, width)) = buckets else { return time };
    if let Some(since) = time.checked_sub(origin)
        && let Some(begin) =
            since.div_euclid(width.max(1)).checked_mul(width.max(1)).and_then(|at| at.checked_add(origin))
    {
        return begin;
    }
    let (time, origin, width) = (i128::from(time), i128::from(origin), i128::from(width.max(1)));
    let begin = (time - origin).div_euclid(width) * width + origin;
    i64::try_from(begin).unwrap_or(if begin < 0 { i64::MIN } else { i64::MAX })
}
