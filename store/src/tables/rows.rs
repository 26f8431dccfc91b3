//! Rows of an answer: where they stand in the order, and their columns.

use std::borrow::Cow;
use std::cmp::Reverse;
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

    /// As a page cursor.
    pub(super) fn cursor(self) -> String {
        format!("{}.{:016x}.{}", self.start.0, self.flow_id, self.number)
    }

    /// Reads a page cursor.
    pub(super) fn parse(text: &str) -> Result<Self, TableError> {
        let mut parts = text.split('.');
        let start = parts.next().and_then(|part| part.parse().ok());
        let flow_id = parts.next().and_then(|part| u64::from_str_radix(part, 16).ok());
        let number = parts.next().and_then(|part| part.parse().ok());
        match (start, flow_id, number, parts.next()) {
            (Some(start), Some(flow_id), Some(number), None) => Ok(Self { start: Reverse(start), flow_id, number }),
            _ => Err(TableError::Cursor(text.to_owned())),
        }
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
    Values(Arc<Map<String, Json>>),
}

#[derive(Debug)]
struct Columns {
    names: Vec<String>,
    arrays: Vec<ArrayRef>,
}

impl Row {
    pub(super) fn of<R: Table>(row: &Tagged<R>) -> Self {
        let key = row.record.key();
        Self { place: Place::of(&key), end: key.end, cells: Cells::Values(Arc::new(json::row(row))) }
    }

    /// The value in a column, null if it has none.
    pub fn get(&self, column: &str) -> Json {
        match &self.cells {
            Cells::Columns(columns, row) => {
                let at = columns.names.iter().position(|name| name == column);
                let array = at.and_then(|at| columns.arrays.get(at));
                array.map_or(Json::Null, |array| json::value(value_at(array, *row)))
            }
            Cells::Values(values) => values.get(column).cloned().unwrap_or_default(),
        }
    }

    /// All columns, in the order of the vocabulary.
    pub fn to_map(&self) -> Map<String, Json> {
        match &self.cells {
            Cells::Columns(columns, row) => {
                let cells = columns.names.iter().zip(&columns.arrays);
                cells.map(|(name, array)| (name.clone(), json::value(value_at(array, *row)))).collect()
            }
            Cells::Values(values) => Map::clone(values),
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
            Cells::Values(values) => values.serialize(serializer),
        }
    }
}

/// Rows from columns, of which there are at least `start`, `end`, `flow_id`, and that of the number.
pub(super) fn of_columns(names: &[&str], columns: &[ArrayRef], number: &str) -> Vec<Row> {
    let column = |wanted: &str| columns.get(names.iter().position(|name| *name == wanted)?);
    let (Some(starts), Some(ends), Some(ids), Some(numbers)) =
        (column("start"), column("end"), column("flow_id").and_then(|ids| ids.as_string_opt::<i32>()), column(number))
    else {
        return Vec::new();
    };
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    let shared = Arc::new(Columns { names, arrays: columns.to_vec() });
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
