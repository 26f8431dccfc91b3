//! Rows of an answer: where they stand in the order, and their columns as JSON.

use std::cmp::Reverse;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, Int32Type, TimestampNanosecondType, UInt64Type};
use serde_json::{Map, Value as Json};
use wiretag_enrich::Tagged;

use super::error::TableError;
use super::{RowKey, Table};
use crate::json;

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

/// One row of an answer.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) place: Place,
    pub(super) end: i64,
    pub(super) columns: Map<String, Json>,
}

impl Row {
    pub(super) fn of<R: Table>(row: &Tagged<R>) -> Self {
        let key = row.record.key();
        Self { place: Place::of(&key), end: key.end, columns: json::row(row) }
    }

    pub(super) fn text(&self, column: &str) -> Option<String> {
        self.columns.get(column).and_then(Json::as_str).map(str::to_owned)
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
    let one = |row: usize| {
        let flow_id = u64::from_str_radix(ids.value(row), 16).ok()?;
        let place = Place { start: Reverse(time_at(starts, row)?), flow_id, number: number_at(numbers, row)? };
        let values = names.iter().zip(columns).map(|(name, array)| ((*name).to_owned(), value_at(array, row)));
        Some(Row { place, end: time_at(ends, row)?, columns: values.collect() })
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

fn value_at(array: &dyn Array, row: usize) -> Json {
    if array.is_null(row) {
        return Json::Null;
    }
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::UInt64 => number_at(array, row).into(),
        DataType::Timestamp(..) => time_at(array, row).map(json::time).into(),
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::Dictionary(..) => {
            let words = array.as_dictionary_opt::<Int32Type>();
            let key = words.and_then(|words| words.key(row));
            let texts = words.and_then(|words| words.values().as_string_opt::<i32>());
            key.zip(texts).map(|(key, texts)| texts.value(key)).into()
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let (keys, values) = (entries.column(0).as_string_opt::<i32>(), entries.column(1).as_string_opt::<i32>());
            let (Some(keys), Some(values)) = (keys, values) else { return Json::Null };
            Json::Object(
                keys.iter()
                    .zip(values)
                    .filter_map(|(key, value)| Some((key?.to_owned(), value.map_or(Json::Null, Json::from))))
                    .collect(),
            )
        }
        _ => Json::Null,
    }
}
