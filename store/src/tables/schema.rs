//! The vocabulary of a table as an Arrow schema, and rows as record batches.
//!
//! Numbers, sizes and durations are `UInt64`, times `Timestamp(ns, UTC)`, labels `Map<Utf8, Utf8>`, everything else
//! text. All columns are nullable, so that a file written before a column existed reads as null.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanBuilder, MapBuilder, MapFieldNames, RecordBatch, StringBuilder, TimestampNanosecondBuilder,
    UInt64Builder,
};
use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use datafusion::arrow::error::ArrowError;
use wiretag_capture::{Kind, Value};
use wiretag_enrich::tagged::{AnyColumn, all_columns};
use wiretag_enrich::{Record, Tagged};

/// Time zone of all times.
pub(super) const UTC: &str = "UTC";

/// The schema of a table's files as of this version.
pub(super) fn schema<R: Record>() -> SchemaRef {
    let field = |column: AnyColumn<R>| Field::new(column.name(), data_type(column.kind()), true);
    Arc::new(Schema::new(all_columns().map(field).collect::<Vec<_>>()))
}

fn map_names() -> MapFieldNames {
    MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() }
}

fn data_type(kind: Kind) -> DataType {
    match kind {
        Kind::Bool => DataType::Boolean,
        Kind::Number | Kind::Size | Kind::Duration => DataType::UInt64,
        Kind::Time => DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into())),
        Kind::Ip | Kind::Mac | Kind::Text | Kind::Word => DataType::Utf8,
        Kind::Map => {
            let names = map_names();
            let pair = Fields::from(vec![
                Field::new(names.key, DataType::Utf8, false),
                Field::new(names.value, DataType::Utf8, true),
            ]);
            DataType::Map(Arc::new(Field::new(names.entry, DataType::Struct(pair), false)), false)
        }
    }
}

/// `rows` as columns, in their order.
pub(super) fn batch<R: Record>(rows: &[&Tagged<R>]) -> Result<RecordBatch, ArrowError> {
    let columns = all_columns().map(|column| array(column, rows)).collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(schema::<R>(), columns)
}

/// Those columns of `rows` that are named, in the order of the names.
pub(super) fn some_columns<R: Record>(rows: &[&Tagged<R>], names: &[&str]) -> Result<RecordBatch, ArrowError> {
    let columns = names.iter().filter_map(|name| all_columns::<R>().find(|column| column.name() == *name));
    let arrays = columns.map(|column| Ok((column.name(), array(column, rows)?, true)));
    RecordBatch::try_from_iter_with_nullable(arrays.collect::<Result<Vec<_>, ArrowError>>()?)
}

fn array<R: Record>(column: AnyColumn<R>, rows: &[&Tagged<R>]) -> Result<ArrayRef, ArrowError> {
    let values = rows.iter().map(|row| column.get(row));
    Ok(match column.kind() {
        Kind::Bool => {
            let mut builder = BooleanBuilder::with_capacity(rows.len());
            values.for_each(|value| {
                builder.append_option(if let Value::Bool(value) = value { Some(value) } else { None });
            });
            Arc::new(builder.finish())
        }
        Kind::Number | Kind::Size | Kind::Duration => {
            let mut builder = UInt64Builder::with_capacity(rows.len());
            values.for_each(|value| {
                builder.append_option(if let Value::Number(value) = value { Some(value) } else { None });
            });
            Arc::new(builder.finish())
        }
        Kind::Time => {
            let mut builder = TimestampNanosecondBuilder::with_capacity(rows.len());
            values.for_each(|value| {
                builder.append_option(if let Value::Time(value) = value { Some(value) } else { None });
            });
            Arc::new(builder.finish().with_timezone(UTC))
        }
        Kind::Ip | Kind::Mac | Kind::Text | Kind::Word => {
            let mut builder = StringBuilder::new();
            for value in values {
                match value {
                    Value::Text(text) => builder.append_value(text),
                    Value::Ip(ip) => builder.append_value(ip.to_string()),
                    Value::Mac(mac) => builder.append_value(Value::mac_text(mac)),
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::Time(_) | Value::Map(_) => {
                        builder.append_null();
                    }
                }
            }
            Arc::new(builder.finish())
        }
        Kind::Map => maps(values)?,
    })
}

fn maps<'a>(values: impl Iterator<Item = Value<'a>>) -> Result<ArrayRef, ArrowError> {
    let mut builder = MapBuilder::new(Some(map_names()), StringBuilder::new(), StringBuilder::new());
    for value in values {
        let pairs = if let Value::Map(pairs) = value { Some(pairs) } else { None };
        for (key, value) in pairs.iter().flatten() {
            builder.keys().append_value(key);
            builder.values().append_value(value);
        }
        builder.append(pairs.is_some())?;
    }
    Ok(Arc::new(builder.finish()))
}
