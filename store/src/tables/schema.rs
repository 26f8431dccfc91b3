//! The vocabulary of a table as an Arrow schema, and rows as columns.
//!
//! Numbers, sizes and durations are `UInt64`, times `Timestamp(ns, UTC)`, labels `Map<Utf8, Utf8>`, everything else
//! text. All columns are nullable, so that a file written before a column existed reads as null.
//!
//! Rows are taken in blocks that the processor's cache holds, each block column by column: a row is large, and going
//! through all rows once for each column would fetch it from memory a hundred times. The rows of a block lie anywhere, since
//! files are sorted: the processor is told of all of them first.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use datafusion::arrow::error::ArrowError;
use wiretag_capture::Kind;
use wiretag_enrich::tagged::{AnyColumn, all_columns};
use wiretag_enrich::{Ends, Record, Tagged};

use super::columns::{Builder, Identities, UNIQUE};
use crate::sys::prefetch;

/// Time zone of all times.
pub(super) const UTC: &str = "UTC";
/// Rows of a block: of the size of the second cache.
const BLOCK: usize = 512;

/// The schema of a table's files as of this version.
pub(super) fn schema<R: Record>() -> SchemaRef {
    let field = |column: AnyColumn<R>| Field::new(column.name(), data_type(column.kind()), true);
    Arc::new(Schema::new(all_columns().map(field).collect::<Vec<_>>()))
}

/// The columns with these names, in this order, as files have them: texts that come again each once.
pub(super) fn as_stored<R: Record>(names: &[&str]) -> SchemaRef {
    let field = |field: &Field| match field.data_type() {
        DataType::Utf8 if !UNIQUE.contains(&field.name().as_str()) => {
            let words = DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into());
            field.clone().with_data_type(words)
        }
        _ => field.clone(),
    };
    Arc::new(Schema::new(some::<R>(names).iter().map(field).collect::<Vec<_>>()))
}

/// All columns, texts as dictionaries.
pub(super) fn stored<R: Record>() -> SchemaRef {
    as_stored::<R>(&all_columns::<R>().map(AnyColumn::name).collect::<Vec<_>>())
}

/// The columns with these names, in this order.
pub(super) fn plain<R: Record>(names: &[&str]) -> SchemaRef {
    Arc::new(Schema::new(some::<R>(names)))
}

fn some<R: Record>(names: &[&str]) -> Vec<Field> {
    let whole = schema::<R>();
    names.iter().filter_map(|name| whole.field_with_name(name).ok().cloned()).collect()
}

/// The entries of a map.
pub(super) fn entry_fields() -> Fields {
    Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)])
}

/// The field of a map's entries.
pub(super) fn entry() -> Arc<Field> {
    Arc::new(Field::new("key_value", DataType::Struct(entry_fields()), false))
}

fn data_type(kind: Kind) -> DataType {
    match kind {
        Kind::Bool => DataType::Boolean,
        Kind::Number | Kind::Size | Kind::Duration => DataType::UInt64,
        Kind::Time => DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into())),
        Kind::Ip | Kind::Mac | Kind::Text | Kind::Word => DataType::Utf8,
        Kind::Map => DataType::Map(entry(), false),
    }
}

/// `rows` as columns of a schema of all columns, in their order.
pub(super) fn batch<R: Record>(schema: SchemaRef, rows: &[&Tagged<R>]) -> Result<RecordBatch, ArrowError> {
    let plain = |(array, field): (ArrayRef, &Arc<Field>)| {
        if array.data_type() == field.data_type() { Ok(array) } else { cast(&array, field.data_type()) }
    };
    let columns = arrays(rows)?.into_iter().zip(schema.fields()).map(plain).collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(schema, columns)
}

/// Those columns of `rows` that are named, in the order of the names.
pub(super) fn some_columns<R: Record>(rows: &[&Tagged<R>], names: &[&str]) -> Result<RecordBatch, ArrowError> {
    let columns: Vec<AnyColumn<R>> =
        names.iter().filter_map(|name| all_columns::<R>().find(|column| column.name() == *name)).collect();
    let plain = |(array, column): (ArrayRef, &AnyColumn<R>)| {
        let wanted = data_type(column.kind());
        let array = if *array.data_type() == wanted { array } else { cast(&array, &wanted)? };
        Ok((column.name(), array, true))
    };
    let arrays = built(columns.clone(), rows)?.into_iter().zip(&columns).map(plain);
    RecordBatch::try_from_iter_with_nullable(arrays.collect::<Result<Vec<_>, ArrowError>>()?)
}

/// `rows` as columns, in the order of the schema; texts that come again are dictionaries, also those in maps.
pub(super) fn arrays<R: Record>(rows: &[&Tagged<R>]) -> Result<Vec<ArrayRef>, ArrowError> {
    built(all_columns().collect(), rows)
}

fn built<R: Record>(columns: Vec<AnyColumn<R>>, rows: &[&Tagged<R>]) -> Result<Vec<ArrayRef>, ArrowError> {
    let mut builders: Vec<(AnyColumn<R>, Builder<'_>)> =
        columns.into_iter().map(|column| (column, Builder::new(column, rows.len()))).collect();
    let [mut clients, mut servers] = [Identities::default(), Identities::default()];
    for block in rows.chunks(BLOCK) {
        for row in block {
            prefetch(*row);
        }
        let records: Vec<&R> = block.iter().map(|row| &row.record).collect();
        let ends: Vec<Ends<'_>> = block.iter().map(|row| (&row.client, &row.server)).collect();
        clients.read(&ends, true);
        servers.read(&ends, false);
        for (column, builder) in &mut builders {
            match column {
                AnyColumn::Record(column) => builder.read_records(column, &records),
                AnyColumn::Identity(column) => {
                    let identities = if column.name.starts_with("client_") { &clients } else { &servers };
                    builder.read_ends(column, &ends, identities);
                }
            }
        }
    }
    builders.into_iter().map(|(_, builder)| builder.finish()).collect()
}
