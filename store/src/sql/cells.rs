//! Values of any type that SQL can make, as JSON.

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Float64Type, Int64Type, SchemaRef, TimeUnit, TimestampNanosecondType, UInt64Type,
};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::{Map, Value as Json};

use crate::json;

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

pub(super) fn value(array: &ArrayRef, row: usize) -> Json {
    if array.is_null(row) {
        return Json::Null;
    }
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        kind if kind.is_integer() => {
            one(array, row, &DataType::Int64).map_or(Json::Null, |one| one.as_primitive::<Int64Type>().value(0).into())
        }
        kind if kind.is_floating() => one(array, row, &DataType::Float64)
            .map_or(Json::Null, |one| one.as_primitive::<Float64Type>().value(0).into()),
        DataType::Timestamp(_, zone) => {
            let nanos = DataType::Timestamp(TimeUnit::Nanosecond, zone.clone());
            one(array, row, &nanos)
                .map_or(Json::Null, |one| json::time(one.as_primitive::<TimestampNanosecondType>().value(0)).into())
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let pair = |at: usize| (text(entries.column(0), at), value(entries.column(1), at));
            Json::Object((0..entries.len()).map(pair).collect())
        }
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(array.as_struct().columns());
            Json::Object(
                columns.map(|(field, column)| (field.name().clone(), value(column, row))).collect::<Map<_, _>>(),
            )
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>().value(row);
            Json::Array((0..list.len()).map(|at| value(&list, at)).collect())
        }
        _ => text(array, row).into(),
    }
}

/// The one value, of another type.
fn one(array: &ArrayRef, row: usize, kind: &DataType) -> Option<ArrayRef> {
    cast(&array.slice(row, 1), kind).ok().filter(|one| one.is_valid(0))
}

fn text(array: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::default();
    ArrayFormatter::try_new(array, &options).map_or_else(|_| String::new(), |format| format.value(row).to_string())
}
