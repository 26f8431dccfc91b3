//! Values of any type that SQL can make, as JSON.

use std::fmt::Write;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Decimal128Type, Float64Type, Int64Type, SchemaRef, TimeUnit, TimestampNanosecondType, UInt64Type,
};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::{Map, Number, Value as Json};

use crate::json;
use crate::limits::LimitReached;

/// Name and type of the columns; a name that comes again gets a number.
pub(super) fn columns(schema: &SchemaRef) -> Vec<(String, String)> {
    let mut columns: Vec<(String, String)> = Vec::new();
    for field in schema.fields() {
        let mut name = field.name().clone();
        let mut number = 2;
        while columns.iter().any(|(known, _)| *known == name) {
            name = format!("{}_{number}", field.name());
            number += 1;
        }
        columns.push((name, type_name(field.data_type())));
    }
    columns
}

/// As interfaces name types: those that a client must tell apart.
fn type_name(kind: &DataType) -> String {
    match kind {
        DataType::Boolean => "bool",
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => "time",
        DataType::Map(..) | DataType::Struct(_) => "map",
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => "list",
        DataType::Dictionary(_, values) => return type_name(values),
        kind if kind.is_numeric() => "number",
        _ => "text",
    }
    .to_owned()
}

/// Memory of a map besides its entries: itself, as a list of maps grows, and a table of hashes.
const MAP: usize = 2 * size_of::<Map<String, Json>>() + size_of::<[usize; 8]>();
/// Memory of an entry besides its value and the bytes of its name: hash, name, and their place in the table.
const ENTRY: usize = size_of::<String>() + size_of::<[usize; 5]>();
/// Memory of a text besides its bytes, about.
const TEXT: usize = size_of::<[usize; 2]>();
/// Bytes that a number is sent as, at most.
const NUMBER: usize = 25;
/// Bytes of `null`, `true` and `false`, at most.
const WORD: usize = 5;
/// The buffer of what is sent grows by its own size: a part of the memory, one in so many, is for what is in it.
const GROWTH: usize = 2;

/// Memory of an answer that is not taken yet.
#[derive(Debug)]
pub(super) struct Room {
    /// For its rows.
    held: usize,
    /// For the JSON that is made of them.
    sent: usize,
    memory: usize,
}

impl Room {
    pub(super) fn new(memory: usize) -> Self {
        Self { held: memory, sent: memory / GROWTH, memory }
    }

    fn take(&mut self, held: usize, sent: usize) -> Result<(), LimitReached> {
        let (Some(held), Some(sent)) = (self.held.checked_sub(held), self.sent.checked_sub(sent)) else {
            return Err(LimitReached::Memory { mib: self.memory >> 20 });
        };
        (self.held, self.sent) = (held, sent);
        Ok(())
    }

    /// A map without entries.
    pub(super) fn map(&mut self) -> Result<(), LimitReached> {
        self.take(MAP, "{},".len())
    }

    /// The name of an entry.
    pub(super) fn name(&mut self, name: &str) -> Result<(), LimitReached> {
        self.text(name)?;
        self.entry()
    }

    fn entry(&mut self) -> Result<(), LimitReached> {
        self.take(ENTRY, ":,".len())
    }

    fn text(&mut self, text: &str) -> Result<(), LimitReached> {
        self.take(TEXT + text.len(), "\"\"".len() + written(text))
    }
}

/// Bytes of a text in JSON.
fn written(text: &str) -> usize {
    let bytes = text.bytes().map(|byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..=0x1f => 6,
        _ => 1,
    });
    bytes.sum()
}

/// One cell of the answer; what it needs is taken before it is made.
pub(super) fn value(array: &ArrayRef, row: usize, room: &mut Room) -> Result<Json, LimitReached> {
    room.take(size_of::<Json>(), WORD)?;
    // Of nulls alone the array does not say that they are.
    if array.is_null(row) || *array.data_type() == DataType::Null {
        return Ok(Json::Null);
    }
    if array.data_type().is_numeric() {
        room.take(0, NUMBER - WORD)?;
    }
    Ok(match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::Utf8 => {
            let text = array.as_string::<i32>().value(row);
            room.text(text)?;
            text.into()
        }
        kind if kind.is_integer() => {
            one(array, row, &DataType::Int64).map_or(Json::Null, |one| one.as_primitive::<Int64Type>().value(0).into())
        }
        kind if kind.is_floating() => one(array, row, &DataType::Float64)
            .map_or(Json::Null, |one| one.as_primitive::<Float64Type>().value(0).into()),
        DataType::Decimal128(_, 0) => {
            let whole = array.as_primitive::<Decimal128Type>().value(row);
            let number = i64::try_from(whole).map(Number::from).or_else(|_| u64::try_from(whole).map(Number::from));
            number.map_or_else(|_| Json::from(whole as f64), Json::Number)
        }
        kind if kind.is_decimal() => one(array, row, &DataType::Float64)
            .map_or(Json::Null, |one| one.as_primitive::<Float64Type>().value(0).into()),
        DataType::Timestamp(_, zone) => {
            let nanos = DataType::Timestamp(TimeUnit::Nanosecond, zone.clone());
            let time =
                one(array, row, &nanos).map(|one| json::time(one.as_primitive::<TimestampNanosecondType>().value(0)));
            room.text(time.as_deref().unwrap_or_default())?;
            time.into()
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            room.map()?;
            let mut pairs = Map::new();
            for at in 0..entries.len() {
                room.entry()?;
                let key = text(entries.column(0), at, room)?;
                pairs.insert(key, value(entries.column(1), at, room)?);
            }
            Json::Object(pairs)
        }
        DataType::Struct(fields) => {
            room.map()?;
            let mut pairs = Map::new();
            for (field, column) in fields.iter().zip(array.as_struct().columns()) {
                room.name(field.name())?;
                pairs.insert(field.name().clone(), value(column, row, room)?);
            }
            Json::Object(pairs)
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>().value(row);
            // It grows by its own size.
            room.take(list.len().saturating_mul(size_of::<Json>()), list.len())?;
            (0..list.len()).map(|at| value(&list, at, room)).collect::<Result<_, _>>().map(Json::Array)?
        }
        _ => text(array, row, room)?.into(),
    })
}

/// The one value, of another type.
fn one(array: &ArrayRef, row: usize, kind: &DataType) -> Option<ArrayRef> {
    cast(&array.slice(row, 1), kind).ok().filter(|one| one.is_valid(0))
}

fn text(array: &ArrayRef, row: usize, room: &mut Room) -> Result<String, LimitReached> {
    let options = FormatOptions::default();
    let Ok(format) = ArrayFormatter::try_new(array, &options) else { return Ok(String::new()) };
    room.text("")?;
    let mut printed = Printed { text: String::new(), room, full: None };
    let written = write!(printed, "{}", format.value(row));
    match (written, printed.full) {
        (_, Some(full)) => Err(full),
        (Ok(()) | Err(_), None) => Ok(printed.text),
    }
}

/// A text as far as there is room for it.
struct Printed<'a> {
    text: String,
    room: &'a mut Room,
    full: Option<LimitReached>,
}

impl Write for Printed<'_> {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        if let Err(full) = self.room.take(part.len(), written(part)) {
            self.full = Some(full);
            return Err(std::fmt::Error);
        }
        self.text.push_str(part);
        Ok(())
    }
}
