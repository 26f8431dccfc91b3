//! A file without some of its rows, or with names that its rows did not have.
//!
//! Row groups that keep all of theirs are taken over byte by byte, the others are encoded anew in the same order, a column at a
//! time; where only names change, only their columns. What was written is counted before it counts.

use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::compute::{cast, filter, interleave};
use datafusion::arrow::datatypes::Field;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::errors::ParquetError;
use wiretag_capture::EndReason;

use super::Table;
use super::error::TableError;
use super::files::{Extent, HOUR, LEFT, NAMED, NewFile};
use super::merge::column;
use super::named::Named;
use super::rows::time_at;
use super::scan::OpenFile;
use super::schema::schema;
use super::sums;
use crate::catalog::{FlowFile, TableName};
use crate::packets::ErasedSlice;

/// Which rows of a row group go; `None`: none.
pub(super) type Goes = Option<BooleanBuffer>;

/// How many rows go.
pub(super) fn count(goes: &[Goes]) -> u64 {
    goes.iter().flatten().map(|rows| rows.count_set_bits() as u64).sum()
}

/// The slices that go from a file of flows; `until` is the end of what goes. Of one that was interrupted the row is as it was seen last, and has an hour's
/// packets behind that at most.
pub(super) fn slices<R: Table>(open: &OpenFile, goes: &[Goes], until: i64) -> Result<Vec<ErasedSlice>, TableError> {
    let (schema, mut found) = (schema::<R>(), Vec::new());
    if R::NAME != TableName::Flows {
        return Ok(found);
    }
    for (group, goes) in goes.iter().enumerate() {
        let Some(goes) = goes.as_ref().map(|goes| BooleanArray::new(goes.clone(), None)) else { continue };
        let part = |name: &str| -> Result<ArrayRef, TableError> {
            let whole = column(std::slice::from_ref(open), &[(0, group)], schema.field_with_name(name)?)?;
            Ok(cast(&filter(&whole, &goes)?, schema.field_with_name(name)?.data_type())?)
        };
        let (ids, starts, ends, reasons) = (part("flow_id")?, part("start")?, part("end")?, part("end_reason")?);
        let reason = |row: usize| {
            let reasons = reasons.as_string_opt::<i32>().filter(|reasons| reasons.is_valid(row));
            reasons.map(|reasons| reasons.value(row))
        };
        for row in 0..ids.len() {
            let id = ids.as_string_opt::<i32>().filter(|ids| ids.is_valid(row)).map(|ids| ids.value(row));
            let id = id.and_then(|id| u64::from_str_radix(id, 16).ok());
            if let (Some(flow_id), Some(start), Some(end)) = (id, time_at(&starts, row), time_at(&ends, row)) {
                let is_interrupted = reason(row) == Some(EndReason::Interrupted.as_str());
                let last = if is_interrupted { end.saturating_add(HOUR).min(until.saturating_sub(1)) } else { end };
                found.push(ErasedSlice { flow_id, start, end: end.max(last) });
            }
        }
    }
    Ok(found)
}

/// Writes what is left of a file, durably; `None`: nothing is. The catalog does not know of it yet.
pub(super) fn without<R: Table>(
    data_dir: &Path,
    (file, open): (&FlowFile, &OpenFile),
    goes: &[Goes],
) -> Result<Option<FlowFile>, TableError> {
    let schema = schema::<R>();
    let files = std::slice::from_ref(open);
    let stays: Vec<Option<BooleanArray>> =
        goes.iter().map(|rows| rows.as_ref().map(|rows| BooleanArray::new(!rows, None))).collect();
    let part = |group: usize, name: &str| -> Result<ArrayRef, TableError> {
        let whole = column(files, &[(0, group)], schema.field_with_name(name)?)?;
        Ok(match stays.get(group).and_then(Option::as_ref) {
            Some(stays) => filter(&whole, stays)?,
            None => whole,
        })
    };
    let mut extent = Extent { rows: 0, start: i64::MAX, end: i64::MIN };
    for group in 0..goes.len() {
        let (starts, ends) = (part(group, "start")?, part(group, "end")?);
        if !starts.is_empty() {
            let own = Extent::of(&starts, &ends);
            extent.rows += own.rows;
            extent.start = extent.start.min(own.start);
            extent.end = extent.end.max(own.end);
        }
    }
    if extent.rows == 0 {
        return Ok(None);
    }
    let footer = sums::read_whole(open.file())?;
    let columns = ArrowSchemaConverter::new().convert(&schema)?;
    let alike = footer.file_metadata().schema_descr().root_schema() == columns.root_schema();
    let new = NewFile { data_dir, table: R::NAME, schema: &schema, origin: file.origin, letter: LEFT };
    let written = new.create(extent, |encoder| {
        for (group, stays) in stays.iter().enumerate() {
            match stays {
                None if alike => encoder.splice(open.file(), &footer, group)?,
                Some(stays) if stays.true_count() == 0 => {}
                Some(_) | None => {
                    encoder.row_group(schema.fields().iter().map(|field| part(group, field.name())))?;
                }
            }
        }
        Ok(())
    })?;
    check(data_dir, &written).inspect_err(|_| {
        let _ = std::fs::remove_file(data_dir.join(&written.path));
    })?;
    Ok(Some(written))
}

/// Writes a file with names for its rows, durably. The catalog does not know of it yet.
pub(super) fn with_names<R: Table>(
    data_dir: &Path,
    (file, open): (&FlowFile, &OpenFile),
    named: &Named,
) -> Result<FlowFile, TableError> {
    let schema = schema::<R>();
    let footer = sums::read_whole(open.file())?;
    let columns = ArrowSchemaConverter::new().convert(&schema)?;
    let alike = footer.file_metadata().schema_descr().root_schema() == columns.root_schema();
    let new = NewFile { data_dir, table: R::NAME, schema: &schema, origin: file.origin, letter: NAMED };
    let extent = Extent { rows: file.rows, start: file.start, end: file.end };
    let written = new.create(extent, |encoder| {
        for group in 0..open.groups().len() {
            let changed = |field: &Field| named_column((open, group), field, named);
            if !alike {
                let old = |field: &Field| column(std::slice::from_ref(open), &[(0, group)], field);
                let either = |field: &Arc<Field>| changed(field)?.map_or_else(|| old(field), Ok);
                encoder.row_group(schema.fields().iter().map(either))?;
            } else if named.of_group(group).is_empty() {
                encoder.splice(open.file(), &footer, group)?;
            } else {
                encoder.splice_changed((open.file(), &footer), group, changed)?;
            }
        }
        Ok(())
    })?;
    check(data_dir, &written).inspect_err(|_| {
        let _ = std::fs::remove_file(data_dir.join(&written.path));
    })?;
    Ok(written)
}

/// A column of a row group, with the names that are new; `None`: it has none.
fn named_column(
    (open, group): (&OpenFile, usize),
    field: &Field,
    named: &Named,
) -> Result<Option<ArrayRef>, TableError> {
    let side = usize::from(!field.name().starts_with("client_"));
    let rows: Vec<_> = named.of_group(group).iter().filter(|(_, ends)| ends[side].is_some()).copied().collect();
    // What was seen on the other side of a translation stays.
    let is_name = !field.name().ends_with("_nat_ip") && !field.name().ends_with("_nat_port");
    let new = if rows.is_empty() || !is_name { None } else { named.column(&rows, field.name())? };
    let Some(new) = new else { return Ok(None) };
    let old = column(std::slice::from_ref(open), &[(0, group)], field)?;
    let new = if new.data_type() == old.data_type() { new } else { cast(&new, old.data_type())? };
    let mut from: Vec<(usize, usize)> = (0..old.len()).map(|row| (0, row)).collect();
    for (at, (row, _)) in rows.iter().enumerate() {
        if let Some(place) = from.get_mut(*row as usize) {
            *place = (1, at);
        }
    }
    Ok(Some(interleave(&[old.as_ref(), new.as_ref()], &from)?))
}

/// The file has as many rows as it is said to have.
fn check(data_dir: &Path, written: &FlowFile) -> Result<(), TableError> {
    let path = data_dir.join(&written.path);
    let file = std::fs::File::open(&path).map_err(TableError::io("open", &path))?;
    let rows = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())?.metadata().file_metadata().num_rows();
    if u64::try_from(rows) == Ok(written.rows) {
        return Ok(());
    }
    let source = ParquetError::General(format!("{rows} rows were written, {} were meant", written.rows));
    Err(TableError::Write { path, source })
}
