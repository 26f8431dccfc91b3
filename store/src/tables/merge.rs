//! Several files of one hour as one.
//!
//! Row groups that are large enough are taken over as they are: bytes are copied, so that a row is encoded once, or, where it
//! came with few others, a few times while its file is small. Small row groups are joined to large ones and sorted anew, a
//! column at a time: memory holds one column of one row group.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, UInt32Array};
use datafusion::arrow::compute::{SortColumn, cast, concat, lexsort_to_indices, take};
use datafusion::arrow::datatypes::{DataType, Field, SchemaRef};
use parquet::arrow::ArrowSchemaConverter;

use super::Table;
use super::columns::UNIQUE;
use super::encode::{Encoder, GROUP};
use super::error::TableError;
use super::files::{Extent, MERGED, NewFile};
use super::scan::OpenFile;
use super::schema::schema;
use super::sums;
use crate::catalog::FlowFile;

/// Rows of a row group that is left as it is.
pub(super) const LARGE: usize = GROUP / 2;

/// A row group of a file.
pub(super) type Part = (usize, usize);

/// What becomes of the row groups.
struct Plan {
    /// Taken over.
    whole: Vec<Part>,
    /// Joined, each to one.
    joined: Vec<Vec<Part>>,
}

impl Plan {
    /// `alike`: files that have exactly the columns of this release.
    fn of(files: &[OpenFile], alike: &[bool]) -> Self {
        let mut plan = Self { whole: Vec::new(), joined: Vec::new() };
        let mut rows = 0;
        for (at, (file, alike)) in files.iter().zip(alike).enumerate() {
            for (number, group) in file.groups().iter().enumerate() {
                if *alike && group.rows() >= LARGE {
                    plan.whole.push((at, number));
                    continue;
                }
                match plan.joined.last_mut() {
                    Some(last) if rows + group.rows() <= GROUP => last.push((at, number)),
                    Some(_) | None => {
                        rows = 0;
                        plan.joined.push(vec![(at, number)]);
                    }
                }
                rows += group.rows();
            }
        }
        plan
    }
}

/// Writes the rows of files of one hour to one file, durably. The catalog does not know of it yet.
pub(super) fn merge_hour<R: Table>(
    data_dir: &std::path::Path,
    files: &[FlowFile],
    open: &[OpenFile],
) -> Result<FlowFile, TableError> {
    let schema = schema::<R>();
    let extent = Extent {
        rows: files.iter().map(|file| file.rows).sum(),
        start: files.iter().map(|file| file.start).min().unwrap_or_default(),
        end: files.iter().map(|file| file.end).max().unwrap_or_default(),
    };
    let origin = files.first().map(|file| file.origin).unwrap_or_default();
    let columns = ArrowSchemaConverter::new().convert(&schema)?;
    let footers =
        open.iter().map(|file| file.reading(|| Ok(sums::read_whole(file.file())?))).collect::<Result<Vec<_>, _>>()?;
    let alike: Vec<bool> = footers
        .iter()
        .map(|footer| footer.file_metadata().schema_descr().root_schema() == columns.root_schema())
        .collect();
    let plan = Plan::of(open, &alike);
    NewFile { data_dir, table: R::NAME, schema: &schema, origin, letter: MERGED }.create(extent, |encoder| {
        for (at, group) in &plan.whole {
            if let (Some(file), Some(footer)) = (open.get(*at), footers.get(*at)) {
                encoder.splice(file.file(), footer, *group)?;
            }
        }
        for parts in &plan.joined {
            join(encoder, open, parts, &schema)?;
        }
        Ok(())
    })
}

/// Row groups as one, sorted as a flush sorts.
fn join(encoder: &mut Encoder, files: &[OpenFile], parts: &[Part], schema: &SchemaRef) -> Result<(), TableError> {
    let keys = ["server_ip", "server_port", "client_ip", "start"];
    let sorted = |name: &&str| -> Result<SortColumn, TableError> {
        let field = schema.field_with_name(name)?;
        Ok(SortColumn { values: cast(&column(files, parts, field)?, field.data_type())?, options: None })
    };
    let order: UInt32Array = lexsort_to_indices(&keys.iter().map(sorted).collect::<Result<Vec<_>, _>>()?, None)?;
    let arrays = schema
        .fields()
        .iter()
        .map(|field| -> Result<ArrayRef, TableError> { Ok(take(&column(files, parts, field)?, &order, None)?) });
    encoder.row_group(arrays)
}

/// A column of several row groups, one after the other.
pub(super) fn column(files: &[OpenFile], parts: &[Part], field: &Field) -> Result<ArrayRef, TableError> {
    let words = DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into());
    let wanted = match field.data_type() {
        DataType::Utf8 if !UNIQUE.contains(&field.name().as_str()) => &words,
        own => own,
    };
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(parts.len());
    for (at, group) in parts {
        let Some(file) = files.get(*at) else { continue };
        let array = file.reading(|| file.column(*group, field, None))?;
        // A column that one of the files does not have is null there, as text.
        arrays.push(if array.data_type() == wanted { array } else { cast(&array, wanted)? });
    }
    let arrays: Vec<&dyn Array> = arrays.iter().map(Arc::as_ref).collect();
    Ok(concat(&arrays)?)
}
