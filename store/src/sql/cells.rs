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

/// Memory of an answer that is not taken yet.
#[derive(Debug)]
pub(super) struct Room {
    left: usize,
    memory: usize,
}

impl Room {
    pub(super) fn new(memory: usize) -> Self {
        Self { left: memory, memory }
    }

    pub(super) fn take(&mut self, bytes: usize) -> Result<(), LimitReached> {
        let left = self.left.checked_sub(bytes).ok_or(LimitReached::Memory { mib: self.memory >> 20 })?;
        self.left = left;
        Ok(())
    }
}

/// One cell of the answer; what it needs is taken before it is made.
pub(super) fn value(array: &ArrayRef, row: usize, room: &mut Room) -> Result<Json, LimitReached> {
    room.take(size_of::<Json>())?;
    // Of nulls alone the array does not say that they are.
    if array.is_null(row) || *array.data_type() == DataType::Null {
        return Ok(Json::Null);
    }
    Ok(match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::Utf8 => {
            let text = array.as_string::<i32>().value(row);
            room.take(text.len())?;
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
            room.take(time.as_ref().map_or(0, String::len))?;
            time.into()
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let mut pairs = Map::new();
            for at in 0..entries.len() {
                let key = text(entries.column(0), at, room)?;
                pairs.insert(key, value(entries.column(1), at, room)?);
            }
            Json::Object(pairs)
        }
        DataType::Struct(fields) => {
            let mut pairs = Map::new();
            for (field, column) in fields.iter().zip(array.as_struct().columns()) {
                room.take(field.name().len())?;
                pairs.insert(field.name().clone(), value(column, row, room)?);
            }
            Json::Object(pairs)
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>().value(row);
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
        if let Err(full) = self.room.take(part.len()) {
            self.full = Some(full);
            return Err(std::fmt::Error);
        }
        self.text.push_str(part);
        Ok(())
    }
}
