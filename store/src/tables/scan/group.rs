//! One row group: its rows that pass a condition.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array,
};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::compute::{cast, concat, filter};
use datafusion::arrow::datatypes::{DataType, Field, SchemaRef, TimestampNanosecondType};
use parquet::arrow::arrow_reader::RowSelection;
use wiretag_enrich::tagged::all_columns;

use super::super::Table;
use super::super::engine::Condition;
use super::super::error::TableError;
use super::super::observed::LeftOut;
use super::super::rows::{self, Row};
use super::footers::OpenFile;
use super::mask::{Columns, values};
use super::outline::{Chunk, Group};
use super::parts::{Parts, memory};
use super::prune::left_out;
use crate::limits::{Budget, Held};
use crate::query::ast::{self, Node, Test};

/// Of so many rows one is wanted: then the pages around the wanted ones are decoded, and not all.
const SPARSE: usize = 16;
/// Bytes of labels of rows that are handed on together, about.
const PIECE: usize = 8 << 20;
/// Columns that are read at once: those of a whole row group take much, of which the rows that pass may be a small part.
const TOGETHER: usize = 16;

/// A row group to look at.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) file: OpenFile,
    pub(super) group: usize,
    /// No row starts later.
    pub(super) latest: i64,
}

/// What a search looks for.
pub(super) struct Wanted<R: 'static> {
    pub(super) condition: Condition<R>,
    pub(super) fields: HashMap<String, Field>,
    /// What else rows pass where only primary ones are wanted.
    primary: Option<Node<R>>,
}

/// Rows of a row group in some columns, and which of them pass; `None`: all do.
pub(in super::super) struct Among {
    pub(in super::super) batch: RecordBatch,
    pub(in super::super) passing: Option<BooleanBuffer>,
}

impl<R: Table> Wanted<R> {
    pub(super) fn new(condition: &Condition<R>) -> Self {
        let schema = super::super::schema::schema::<R>();
        let field = |field: &Arc<Field>| (field.name().clone(), (**field).clone());
        let primary = all_columns::<R>().find(|column| column.name() == "primary");
        let primary = primary.map(|column| Node::Test(ast::Field { column, key: None }, Test::Bool(true)));
        Self {
            condition: condition.clone(),
            fields: schema.fields().iter().map(field).collect(),
            primary: primary.filter(|_| !condition.all_observations),
        }
    }
}

impl Target {
    /// The row groups of a file, with the latest start that the catalog knows of.
    pub(super) fn of(file: &OpenFile, latest: i64) -> impl Iterator<Item = Self> {
        (0..file.groups().len()).map(move |group| {
            let own =
                file.chunk(group, "start").and_then(Chunk::bounds).map_or(latest, |(_, greatest)| greatest.min(latest));
            Self { file: file.clone(), group, latest: own }
        })
    }

    /// The rows that pass; of those that start with the cursor, whatever their place behind it.
    fn mask<'a, R: Table>(&'a self, wanted: &'a Wanted<R>) -> Result<Option<(BooleanBuffer, Columns<'a>)>, TableError> {
        let on = &wanted.condition;
        let times = |name: &str| self.file.chunk(self.group, name).and_then(Chunk::bounds);
        let (starts, ends) =
            (times("start").unwrap_or((i64::MIN, i64::MAX)), times("end").unwrap_or((i64::MIN, i64::MAX)));
        let newest = on.after.map_or(i64::MAX, |after| after.start.0);
        let oldest = on.not_before.unwrap_or(i64::MIN);
        let outside = starts.0 >= on.range.to || ends.1 < on.range.from || starts.0 > newest || starts.1 < oldest;
        let left_out = if outside { Some(LeftOut::Statistics) } else { left_out(&self.file, self.group, &on.node) };
        if let Some(observed) = &on.observed {
            observed.group(left_out);
        }
        if left_out.is_some() {
            return Ok(None);
        }
        let mut columns = Columns::new(&self.file, self.group, &wanted.fields);
        let mut mask = columns.passing(&on.node)?;
        if let Some(primary) = &wanted.primary {
            mask = columns.still_passing(mask, primary)?;
        }
        if starts.1 >= on.range.to || starts.1 > newest || starts.0 < oldest {
            let to = on.range.to;
            let begins = |start| start < to && start <= newest && start >= oldest;
            mask = columns.narrowed(mask, "start", |array| timed(array, begins))?;
        }
        if ends.0 < on.range.from {
            mask = columns.narrowed(mask, "end", |array| timed(array, |end| end >= on.range.from))?;
        }
        if let Some(observed) = &on.observed {
            observed.found(mask.count_set_bits());
        }
        Ok((mask.count_set_bits() > 0).then_some((mask, columns)))
    }

    /// Which rows pass; `None`: no row does.
    pub(super) fn passing<R: Table>(&self, wanted: &Wanted<R>) -> Result<Option<BooleanBuffer>, TableError> {
        self.file.reading(|| Ok(self.mask(wanted)?.map(|(mask, _)| mask)))
    }

    /// The newest rows that pass, `limit` and those that start with the last of them: start, and number in the group.
    pub(super) fn newest<R: Table>(&self, wanted: &Wanted<R>, limit: usize) -> Result<Vec<(i64, u32)>, TableError> {
        self.file.reading(|| self.found(wanted, limit))
    }

    fn found<R: Table>(&self, wanted: &Wanted<R>, limit: usize) -> Result<Vec<(i64, u32)>, TableError> {
        let Some((mask, mut columns)) = self.mask(wanted)? else { return Ok(Vec::new()) };
        let starts = columns.of_rows(&mask, "start")?;
        let Some(starts) = starts.as_primitive_opt::<TimestampNanosecondType>() else { return Ok(Vec::new()) };
        let mut found: Vec<(i64, u32)> =
            starts.iter().zip(mask.set_indices()).filter_map(|(start, row)| Some((start?, row as u32))).collect();
        let tie = wanted.condition.after.map(|after| after.start.0);
        let counted = found.iter().filter(|(start, _)| Some(*start) != tie).count();
        if counted > limit && limit > 0 {
            let mut own: Vec<i64> = found.iter().map(|found| found.0).filter(|start| Some(*start) != tie).collect();
            let (_, oldest, _) = own.select_nth_unstable_by(limit - 1, |left, right| right.cmp(left));
            let oldest = *oldest;
            found.retain(|(start, _)| *start >= oldest);
        }
        Ok(found)
    }

    /// These rows of the group, in its order.
    pub(super) fn rows(
        &self,
        rows: &[u32],
        (fields, number): (&[&Field], &str),
        budget: &Arc<Budget>,
    ) -> Result<Vec<Row>, TableError> {
        let total = self.file.groups().get(self.group).map_or(0, Group::rows);
        let ranges = rows.iter().map(|row| *row as usize..*row as usize + 1);
        let selection = RowSelection::from_consecutive_ranges(ranges, total);
        let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        self.file.reading(|| {
            let mut held = Held::new(budget);
            let columns = self.file.counted(self.group, fields, Some(&selection), Some(&mut held))?;
            Ok(rows::of_columns(&names, &columns, number, Some(held)))
        })
    }

    /// The rows that pass, in the columns of `schema`.
    pub(super) fn alone<R: Table>(&self, wanted: &Wanted<R>, schema: &SchemaRef) -> Result<Option<Pieces>, TableError> {
        self.file.reading(|| self.pieces(wanted, schema, usize::MAX))
    }

    /// The rows that pass, in the columns of `schema`; where most do, with the others: to leave them out takes longer than to pass them by.
    pub(super) fn among<R: Table>(&self, wanted: &Wanted<R>, schema: &SchemaRef) -> Result<Option<Pieces>, TableError> {
        let most = self.file.groups().get(self.group).map_or(0, Group::rows) / 2;
        self.file.reading(|| self.pieces(wanted, schema, most))
    }

    /// Rows in the columns of `schema`, with those that do not pass if more than `most` do; nothing if no row passes.
    fn pieces<R: Table>(
        &self,
        wanted: &Wanted<R>,
        schema: &SchemaRef,
        most: usize,
    ) -> Result<Option<Pieces>, TableError> {
        let Some((mask, columns)) = self.mask(wanted)? else { return Ok(None) };
        let (passing, rows) = (mask.count_set_bits(), columns.rows());
        let with_others = passing > most || passing == rows;
        let chosen = BooleanArray::new(mask, None);
        let filtered = |array: &ArrayRef| if with_others { Ok(array.clone()) } else { filter(array, &chosen) };
        let selection = (passing * SPARSE < rows).then(|| RowSelection::from_filters(std::slice::from_ref(&chosen)));
        let starts = match schema.field_with_name("start") {
            Ok(field) if columns.known("start").is_none() => {
                let bounds = self.file.chunk(self.group, "start").and_then(Chunk::bounds);
                wanted.condition.starts.of_rows(if selection.is_some() { passing } else { rows }, bounds, field)
            }
            Ok(_) | Err(_) => None,
        };
        let start = |field: &Field| starts.as_ref().filter(|_| field.name() == "start");
        let is_unread = |field: &Field| columns.known(field.name()).is_none() && start(field).is_none();
        let fields = schema.fields().iter().map(|field| &**field);
        let unread: Vec<&Field> = fields.filter(|field| !is_map(field) && is_unread(field)).collect();
        let passing_of = |array: &ArrayRef| if selection.is_some() { Ok(array.clone()) } else { filtered(array) };
        let mut read = Vec::with_capacity(unread.len());
        for some in unread.chunks(TOGETHER) {
            for array in self.file.columns(self.group, some, selection.as_ref())? {
                read.push(passing_of(&array)?);
            }
        }
        let mut read = read.into_iter();
        let length = if with_others { rows } else { passing };
        let column = |field: &Arc<Field>| -> Result<Source, TableError> {
            if is_map(field) {
                let wanted = Some(chosen.values()).filter(|_| !with_others);
                let parts = self.file.parts(self.group, field, wanted)?;
                return Ok(
                    parts.map_or_else(|| Source::Whole(new_null_array(field.data_type(), length)), Source::Parts)
                );
            }
            let array = match (columns.known(field.name()), start(field)) {
                (Some(array), _) => filtered(array)?,
                (None, Some(starts)) => passing_of(starts)?,
                (None, None) => read.next().ok_or(TableError::Range("a column was not read"))?,
            };
            Ok(Source::Whole(as_wanted(array, field)?))
        };
        let columns = schema.fields().iter().map(column).collect::<Result<_, _>>()?;
        let passing = (with_others && passing < rows).then(|| chosen.values().clone());
        Ok(Some(Pieces { file: self.file.clone(), schema: schema.clone(), columns, passing, rows: length, given: 0 }))
    }
}

/// Rows of a row group, read as they are asked for: all at once, unless they have labels, which may take much.
pub(super) struct Pieces {
    file: OpenFile,
    schema: SchemaRef,
    columns: Vec<Source>,
    passing: Option<BooleanBuffer>,
    rows: usize,
    /// Rows that were asked for.
    given: usize,
}

/// Where the values of a column are.
enum Source {
    Whole(ArrayRef),
    Parts(Parts),
}

impl Iterator for Pieces {
    type Item = Result<Among, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        let file = self.file.clone();
        (self.given < self.rows).then(|| file.reading(|| self.piece()))
    }
}

impl Pieces {
    fn piece(&mut self) -> Result<Among, TableError> {
        let (mut labels, rows) = self.labels()?;
        let first = self.given;
        self.given += rows;
        let columns = self.columns.iter().zip(self.schema.fields()).zip(&mut labels);
        let arrays = columns.map(|((source, field), labels)| -> Result<ArrayRef, TableError> {
            let parts = std::mem::take(labels);
            match source {
                Source::Whole(array) => Ok(array.slice(first, rows)),
                Source::Parts(_) => as_wanted(concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>())?, field),
            }
        });
        let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
        // Without columns there is still a number of rows.
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?;
        Ok(Among { batch, passing: self.passing.as_ref().map(|passing| passing.slice(first, rows)) })
    }

    /// Of each column with labels the parts of the next rows, and how many rows these are: all that are left, or so many that their labels
    /// take [`PIECE`].
    fn labels(&mut self) -> Result<(Vec<Vec<ArrayRef>>, usize), TableError> {
        let mut taken: Vec<Vec<ArrayRef>> = self.columns.iter().map(|_| Vec::new()).collect();
        let (left, mut rows, mut bytes) = (self.rows - self.given, 0, 0);
        while rows < left && bytes < PIECE {
            let mut length = None;
            for (source, taken) in self.columns.iter_mut().zip(&mut taken) {
                let Source::Parts(parts) = source else { continue };
                let part = parts.next().ok_or(TableError::Range("a column has fewer rows than others"))??;
                bytes += memory(&part);
                length = Some(part.len());
                taken.push(part);
            }
            let Some(length) = length else { return Ok((taken, left)) };
            rows += length;
        }
        Ok((taken, rows))
    }
}

/// Whether each row has its own copies of what is in a column.
fn is_map(field: &Field) -> bool {
    matches!(field.data_type(), DataType::Map(..))
}

fn as_wanted(array: ArrayRef, field: &Field) -> Result<ArrayRef, TableError> {
    Ok(if array.data_type() == field.data_type() { array } else { cast(&array, field.data_type())? })
}

fn timed(array: &ArrayRef, passes: impl Fn(i64) -> bool + Copy) -> Option<BooleanBuffer> {
    let times = array.as_primitive_opt::<TimestampNanosecondType>()?;
    Some(values(times.values(), times.nulls(), passes))
}
