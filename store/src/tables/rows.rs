//! Rows of an answer: where they stand in the order, and their columns.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, Int32Type, TimestampNanosecondType, UInt64Type};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value as Json};
use wiretag_capture::Value;
use wiretag_enrich::Tagged;

use super::error::TableError;
use super::{RowKey, Table};
use crate::json::{self, Shown};
use crate::limits::{Budget, Held, LimitReached};

/// Rows in one place that a cursor can tell of: the next page reads as many of them again.
const MOST_ALIKE: usize = 100_000;

/// Place of a row in every answer: newest start first, then flow id and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) start: Reverse<i64>,
    pub(super) flow_id: u64,
    pub(super) number: u64,
}

impl Place {
    pub(super) fn of(key: &RowKey) -> Self {
        Self { start: Reverse(key.start), flow_id: key.flow_id, number: key.number }
    }

    /// The last place in front of it.
    fn before(self) -> Self {
        let Self { start, flow_id, number } = self;
        match (number.checked_sub(1), flow_id.checked_sub(1)) {
            (Some(number), _) => Self { start, flow_id, number },
            (None, Some(flow_id)) => Self { start, flow_id, number: u64::MAX },
            (None, None) => Self { start: Reverse(start.0.saturating_add(1)), flow_id: u64::MAX, number: u64::MAX },
        }
    }
}

/// Where a page ended. The same packets imported twice are rows in the same place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor {
    place: Place,
    /// How many rows in this place have been given, one at least.
    given: usize,
}

impl Cursor {
    /// At the end of a page, which began behind the other.
    pub(super) fn behind(page: &[Row], began: Option<Self>) -> Option<Self> {
        let place = page.last()?.place;
        let here = page.iter().rev().take_while(|row| row.place == place).count();
        let earlier = began.filter(|began| began.place == place && here == page.len()).map_or(0, |began| began.given);
        Some(Self { place, given: here + earlier })
    }

    /// What all rows of the next page are behind; so are those in its own place that were given.
    pub(super) fn bound(self) -> Place {
        self.place.before()
    }

    /// Rows behind the bound that may have been given.
    pub(super) fn given(self) -> usize {
        self.given
    }

    /// Leaves out those that were given.
    pub(super) fn skip(self, rows: &mut Vec<Row>) {
        let known = rows.iter().take(self.given).take_while(|row| row.place == self.place).count();
        rows.drain(..known);
    }

    /// Reads a cursor.
    pub(super) fn parse(text: &str) -> Result<Self, TableError> {
        let mut parts = text.split('.');
        let start = parts.next().and_then(|part| part.parse().ok());
        let flow_id = parts.next().and_then(|part| u64::from_str_radix(part, 16).ok());
        let number = parts.next().and_then(|part| part.parse().ok());
        let given =
            parts.next().map_or(Some(1), |part| part.parse().ok().filter(|given| (1..=MOST_ALIKE).contains(given)));
        match (start, flow_id, number, given, parts.next()) {
            (Some(start), Some(flow_id), Some(number), Some(given), None) => {
                Ok(Self { place: Place { start: Reverse(start), flow_id, number }, given })
            }
            _ => Err(TableError::Cursor(text.to_owned())),
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { start, flow_id, number } = self.place;
        write!(f, "{}.{flow_id:016x}.{number}", start.0)?;
        if self.given > 1 { write!(f, ".{}", self.given) } else { Ok(()) }
    }
}

/// One row of an answer. Its values stay in the columns that they were read in, which all rows of a page share, until
/// somebody wants them.
#[derive(Debug, Clone)]
pub struct Row {
    pub(super) place: Place,
    pub(super) end: i64,
    cells: Cells,
}

#[derive(Debug, Clone)]
enum Cells {
    /// Of a file: columns, and the number of the row in them.
    Columns(Arc<Columns>, usize),
    /// Of a row in memory.
    Values(Arc<Values>),
}

#[derive(Debug)]
struct Columns {
    names: Vec<String>,
    arrays: Vec<ArrayRef>,
    _held: Option<Held>,
}

#[derive(Debug)]
struct Values {
    map: Map<String, Json>,
    _held: Held,
}

impl Row {
    pub(super) fn of<R: Table>(row: &Tagged<R>, budget: &Arc<Budget>) -> Result<Self, LimitReached> {
        let key = row.record.key();
        let (map, mut held) = (json::row(row), Held::new(budget));
        held.take(map.iter().map(|(name, value)| json::memory(name, value)).sum())?;
        Ok(Self { place: Place::of(&key), end: key.end, cells: Cells::Values(Arc::new(Values { map, _held: held })) })
    }

    /// The value in a column, null if it has none.
    pub fn get(&self, column: &str) -> Json {
        match &self.cells {
            Cells::Columns(columns, row) => {
                let at = columns.names.iter().position(|name| name == column);
                let array = at.and_then(|at| columns.arrays.get(at));
                array.map_or(Json::Null, |array| json::value(value_at(array, *row)))
            }
            Cells::Values(values) => values.map.get(column).cloned().unwrap_or_default(),
        }
    }

    /// All columns, in the order of the vocabulary.
    pub fn to_map(&self) -> Map<String, Json> {
        match &self.cells {
            Cells::Columns(columns, row) => {
                let cells = columns.names.iter().zip(&columns.arrays);
                cells.map(|(name, array)| (name.clone(), json::value(value_at(array, *row)))).collect()
            }
            Cells::Values(values) => values.map.clone(),
        }
    }

    pub(super) fn text(&self, column: &str) -> Option<String> {
        match self.get(column) {
            Json::String(text) => Some(text),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => None,
        }
    }
}

/// An object, as [`Row::to_map`] would be.
impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.cells {
            Cells::Columns(columns, row) => {
                let mut map = serializer.serialize_map(Some(columns.names.len()))?;
                for (name, array) in columns.names.iter().zip(&columns.arrays) {
                    map.serialize_entry(name, &Shown(value_at(array, *row)))?;
                }
                map.end()
            }
            Cells::Values(values) => values.map.serialize(serializer),
        }
    }
}

/// Rows from columns, of which there are at least `start`, `end`, `flow_id`, and that of the number; and what the columns take.
pub(super) fn of_columns(names: &[&str], columns: &[ArrayRef], number: &str, held: Option<Held>) -> Vec<Row> {
    let column = |wanted: &str| columns.get(names.iter().position(|name| *name == wanted)?);
    let (Some(starts), Some(ends), Some(ids), Some(numbers)) =
        (column("start"), column("end"), column("flow_id").and_then(|ids| ids.as_string_opt::<i32>()), column(number))
    else {
        return Vec::new();
    };
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    let shared = Arc::new(Columns { names, arrays: columns.to_vec(), _held: held });
    let one = |row: usize| {
        let flow_id = u64::from_str_radix(ids.value(row), 16).ok()?;
        let place = Place { start: Reverse(time_at(starts, row)?), flow_id, number: number_at(numbers, row)? };
        Some(Row { place, end: time_at(ends, row)?, cells: Cells::Columns(shared.clone(), row) })
    };
    (0..starts.len()).filter_map(one).collect()
}

pub(super) fn time_at(array: &dyn Array, row: usize) -> Option<i64> {
    let times = array.as_primitive_opt::<TimestampNanosecondType>()?;
    times.is_valid(row).then(|| times.value(row))
}

pub(super) fn number_at(array: &dyn Array, row: usize) -> Option<u64> {
    let numbers = array.as_primitive_opt::<UInt64Type>()?;
    numbers.is_valid(row).then(|| numbers.value(row))
}

pub(super) fn value_at(array: &dyn Array, row: usize) -> Value<'_> {
    if array.is_null(row) {
        return Value::Null;
    }
    let text = |text| Value::Text(Cow::Borrowed(text));
    match array.data_type() {
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        DataType::UInt64 => number_at(array, row).map_or(Value::Null, Value::Number),
        DataType::Timestamp(..) => time_at(array, row).map_or(Value::Null, Value::Time),
        DataType::Utf8 => text(array.as_string::<i32>().value(row)),
        DataType::Dictionary(..) => {
            let words = array.as_dictionary_opt::<Int32Type>();
            let key = words.and_then(|words| words.key(row));
            let texts = words.and_then(|words| words.values().as_string_opt::<i32>());
            key.zip(texts).map_or(Value::Null, |(key, texts)| text(texts.value(key)))
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let (keys, values) = (map.keys().as_string_opt::<i32>(), map.values().as_string_opt::<i32>());
            let (Some(keys), Some(values)) = (keys, values) else { return Value::Null };
            let offsets = map.value_offsets();
            let from = offsets.get(row).map_or(0, |from| *from as usize);
            let pairs = from..from + map.value_length(row) as usize;
            Value::Map(pairs.map(|pair| (keys.value(pair), values.value(pair))).collect())
        }
        _ => Value::Null,
    }
}
