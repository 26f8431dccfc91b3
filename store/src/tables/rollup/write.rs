//! Writing a roll-up: a file under a temporary name that is synced and renamed when all of it is there. The catalog does not know of
//! it yet.
//!
//! Rows may come in several batches. What is in memory of them is bounded by [`GROUP_BYTES`].

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::DateTime;
use datafusion::arrow::array::{
    Array, ArrayRef, BinaryBuilder, RecordBatch, StringBuilder, TimestampNanosecondArray, UInt64Array, UInt64Builder,
};
use datafusion::arrow::compute::concat;
use datafusion::arrow::datatypes::DataType;
use wiretag_capture::FlowRecord;

use super::{DIMENSIONS, FOLDER, MINUTE, SKETCHES, SUMS, schema};
use crate::catalog::{Origin, RollupFile};
use crate::private;
use crate::tables::aggregate::{Groups, KeyValue};
use crate::tables::encode::{Encoder, GROUP, Holds};
use crate::tables::{TableError, files};

/// Of a row group, before it is encoded: with more it goes to the disk.
const GROUP_BYTES: usize = 48 << 20;

/// What a roll-up is of: width, begin, and where the flows came from.
pub(super) type Place = (i64, i64, Origin);

/// A roll-up that is being written. Without [`Writing::finish`] nothing is left of it.
pub(super) struct Writing {
    dir: PathBuf,
    /// In the data directory.
    folder: String,
    name: String,
    temporary: Temporary,
    encoder: Encoder,
    /// Of the next row group.
    waiting: Vec<RecordBatch>,
    rows: u64,
    place: Place,
}

/// A file that goes, if it has no other name by then.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Best effort: what stays is deleted on the next start.
        let _ = fs::remove_file(&self.0);
    }
}

impl Writing {
    pub(super) fn begin(dir: &Path, place: Place) -> Result<Self, TableError> {
        let (width, start, _) = place;
        let time = DateTime::from_timestamp_nanos(start);
        let folder = match width {
            MINUTE => format!("{FOLDER}/1m/date={}/hour={}", time.format("%Y-%m-%d"), time.format("%H")),
            _ => format!("{FOLDER}/1h/date={}", time.format("%Y-%m-%d")),
        };
        let full = dir.join(&folder);
        private::create_dir_all(&full).map_err(TableError::io("create", &full))?;
        // Another one may be half done.
        let taken = |name: &String| [name, &format!("{name}.tmp")].into_iter().any(|name| full.join(name).exists());
        let names = (0_u32..).map(|number| format!("{start:020}-{number:04}.parquet"));
        let name = names.into_iter().find(|name| !taken(name)).unwrap_or_default();
        let temporary = Temporary(full.join(format!("{name}.tmp")));
        let fail = |source| TableError::Write { path: temporary.0.clone(), source };
        let file = private::create_new(&temporary.0).map_err(TableError::io("create", &temporary.0))?;
        let encoder = Encoder::new(file, &schema::<FlowRecord>(), Holds::Rollup).map_err(fail)?;
        Ok(Self { dir: dir.to_owned(), folder, name, temporary, encoder, waiting: Vec::new(), rows: 0, place })
    }

    /// Adds rows.
    pub(super) fn write(&mut self, batch: RecordBatch) -> Result<(), TableError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.rows += batch.num_rows() as u64;
        let (mut rows, mut bytes) = (batch.num_rows(), batch.get_array_memory_size());
        for batch in &self.waiting {
            rows += batch.num_rows();
            bytes += batch.get_array_memory_size();
        }
        if rows > GROUP || bytes > GROUP_BYTES {
            self.write_group()?;
        }
        self.waiting.push(batch);
        Ok(())
    }

    /// Writes what waits as a row group, a column at a time.
    fn write_group(&mut self) -> Result<(), TableError> {
        let batches = std::mem::take(&mut self.waiting);
        let column = |at: usize| -> Result<ArrayRef, TableError> {
            let parts: Vec<&dyn Array> =
                batches.iter().filter_map(|batch| batch.columns().get(at)).map(AsRef::as_ref).collect();
            Ok(concat(&parts)?)
        };
        let columns = batches.first().map_or(0, RecordBatch::num_columns);
        if columns > 0 {
            self.encoder.row_group((0..columns).map(column)).map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    /// Adds groups as rows.
    pub(super) fn write_groups(&mut self, groups: &Groups) -> Result<(), TableError> {
        self.write(batch(groups)?)
    }

    /// Rows so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Makes it durable, under its name.
    pub(super) fn finish(mut self) -> Result<RollupFile, TableError> {
        self.write_group()?;
        let Self { dir, folder, name, temporary, encoder, rows, place: (width, start, origin), .. } = self;
        let full = dir.join(&folder);
        let path = full.join(&name);
        let fail = |source| TableError::Write { path: temporary.0.clone(), source };
        let file = encoder.finish().map_err(fail)?;
        file.sync_all().map_err(TableError::io("sync", &temporary.0))?;
        fs::rename(&temporary.0, &path).map_err(TableError::io("rename", &temporary.0))?;
        let bytes = files::sync_up(&dir, &full)
            .and_then(|()| Ok(fs::metadata(&path).map_err(TableError::io("read", &path))?.len()))
            .inspect_err(|_| drop(fs::remove_file(&path)))?;
        let path = format!("{folder}/{name}");
        Ok(RollupFile { path, width, start, rows, bytes, origin, files: 0, day: None, gone: false })
    }

    fn failed(&self, error: TableError) -> TableError {
        match error {
            TableError::Encode(source) => TableError::Write { path: self.temporary.0.clone(), source },
            other => other,
        }
    }
}

/// Groups as rows, by dimensions and then by time: neighbours are alike.
fn batch(groups: &Groups) -> Result<RecordBatch, TableError> {
    let keys = 1 + DIMENSIONS.len();
    let mut order: Vec<u32> = (0..groups.len() as u32).collect();
    order.sort_by(|a, b| {
        let places = (1..keys).chain([0]);
        places
            .map(|key| groups.key(*a, key).cmp(groups.key(*b, key)))
            .find(|order| order.is_ne())
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    let schema = schema::<FlowRecord>();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    let starts = order.iter().map(|group| if let KeyValue::Time(start) = groups.key(*group, 0) { *start } else { 0 });
    columns
        .push(Arc::new(TimestampNanosecondArray::from_iter_values(starts).with_timezone(crate::tables::schema::UTC)));
    for (key, field) in (1..keys).zip(schema.fields().iter().skip(1)) {
        columns.push(dimension(groups, &order, key, field.data_type()));
    }
    let state = |number: usize| groups.state(number);
    let rows = order.iter().map(|group| state(0).map_or(0, |state| state.rows(*group)));
    columns.push(Arc::new(rows.collect::<UInt64Array>()));
    for number in 1..=SUMS.len() {
        let sums = order.iter().map(|group| state(number).and_then(|state| state.sum(*group)));
        let sums: Vec<Option<(u128, u64)>> = sums.collect();
        let whole = |sum: u128| u64::try_from(sum).unwrap_or(u64::MAX);
        columns.push(Arc::new(sums.iter().map(|sum| sum.map(|(sum, _)| whole(sum))).collect::<UInt64Array>()));
        columns
            .push(Arc::new(sums.iter().map(|sum| Some(sum.map_or(0, |(_, values)| values))).collect::<UInt64Array>()));
    }
    for number in 1 + SUMS.len()..=SUMS.len() + SKETCHES.len() {
        let mut builder = BinaryBuilder::new();
        for group in &order {
            let sketch = state(number).and_then(|state| state.sketch(*group)).filter(|sketch| !sketch.is_empty());
            builder.append_option(sketch.map(|sketch| sketch.encode()));
        }
        columns.push(Arc::new(builder.finish()));
    }
    Ok(RecordBatch::try_new(schema, columns)?)
}

fn dimension(groups: &Groups, order: &[u32], key: usize, kind: &DataType) -> ArrayRef {
    if *kind == DataType::UInt64 {
        let mut builder = UInt64Builder::with_capacity(order.len());
        for group in order {
            builder.append_option(if let KeyValue::Number(number) = groups.key(*group, key) {
                Some(*number)
            } else {
                None
            });
        }
        return Arc::new(builder.finish());
    }
    let mut builder = StringBuilder::new();
    for group in order {
        builder.append_option(if let KeyValue::Text(text) = groups.key(*group, key) { Some(text) } else { None });
    }
    Arc::new(builder.finish())
}
