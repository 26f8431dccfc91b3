//! Labels, some rows at a time: each row has its own copies of them, so that those of a whole row group can be more than a question may take,
//! and more than one array can hold.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, StringDictionaryBuilder};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::compute::{concat, filter};
use datafusion::arrow::datatypes::Int32Type;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, RowSelection};
use parquet::errors::ParquetError;

use super::super::error::TableError;
use crate::limits::Held;

/// Rows of a part at most.
pub(super) const PART: usize = 512;
/// Bytes of a column that is made whole, at most: offsets into it are 31 bits.
const MOST: usize = i32::MAX as usize;
/// Bytes of the values of one label in a row group, each counted once, at most.
const VALUES: usize = 1 << 28;
/// Rows that are passed over, or read, together: of shorter runs the library would read all that lies between, at once.
const STRETCH: usize = 64;

/// A column of labels of a row group, read as it is asked for.
pub(super) struct Parts {
    reader: ParquetRecordBatchReader,
    /// Rows that it reads, of which some were read.
    rows: usize,
    read: usize,
    /// Which of them are wanted, unless all are.
    wanted: Option<BooleanBuffer>,
}

impl Parts {
    /// Of `rows` rows that a reader gives, [`PART`] at a time, those that are `wanted`.
    pub(super) fn new(reader: ParquetRecordBatchReader, rows: usize, wanted: Option<BooleanBuffer>) -> Self {
        Self { reader, rows, read: 0, wanted }
    }

    fn part(&mut self, rows: usize) -> Result<ArrayRef, TableError> {
        let short = || ParquetError::EOF("a column has fewer rows than its row group".into());
        let batch = self.reader.next().ok_or_else(short)??;
        let part = batch.columns().first().filter(|part| part.len() == rows).ok_or_else(short)?;
        let wanted = self.wanted.as_ref().map(|wanted| wanted.slice(self.read, rows));
        self.read += rows;
        Ok(match wanted {
            Some(wanted) => filter(part, &BooleanArray::new(wanted, None))?,
            None => part.clone(),
        })
    }
}

/// Two columns of the same row group and rows have parts of the same length.
impl Iterator for Parts {
    type Item = Result<ArrayRef, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rows = PART.min(self.rows - self.read);
        (rows > 0).then(|| self.part(rows))
    }
}

/// The stretches of rows that have wanted ones, and which of their rows are wanted.
pub(super) fn stretches(wanted: &BooleanBuffer) -> (RowSelection, BooleanBuffer) {
    let (mut ranges, mut of_these) = (Vec::new(), BooleanBufferBuilder::new(wanted.len()));
    for first in (0..wanted.len()).step_by(STRETCH) {
        let own = wanted.slice(first, STRETCH.min(wanted.len() - first));
        if own.count_set_bits() > 0 {
            ranges.push(first..first + own.len());
            of_these.append_buffer(&own);
        }
    }
    (RowSelection::from_consecutive_ranges(ranges.into_iter(), wanted.len()), of_these.finish())
}

/// The values of one label, each once; without a key an empty text where there are labels.
pub(super) fn label(parts: Parts, key: Option<&str>) -> Result<ArrayRef, TableError> {
    let mut words = StringDictionaryBuilder::<Int32Type>::new();
    let (mut known, mut bytes) = (0, 0);
    for part in parts {
        let part = part?;
        let Some(maps) = part.as_map_opt() else { return Err(not_labels()) };
        let (Some(names), Some(values)) = (maps.keys().as_string_opt::<i32>(), maps.values().as_string_opt::<i32>())
        else {
            return Err(not_labels());
        };
        let of_row = |row: usize| {
            let Some(key) = key else { return Some("") };
            let ends = maps.value_offsets().get(row..row + 2)?;
            let mut entries = *ends.first()? as usize..*ends.last()? as usize;
            entries.find(|at| names.value(*at) == key && values.is_valid(*at)).map(|at| values.value(at))
        };
        for row in 0..maps.len() {
            let Some(value) = of_row(row).filter(|_| maps.is_valid(row)) else {
                words.append_null();
                continue;
            };
            // A new word has the next number.
            if words.append(value)? == known {
                (known, bytes) = (known + 1, bytes + value.len());
                within(bytes, VALUES)?;
            }
        }
    }
    Ok(Arc::new(words.finish()))
}

fn not_labels() -> TableError {
    ParquetError::General("labels are no texts by name".into()).into()
}

/// A column out of its parts; without any there is none. What it takes is held as it is read.
pub(super) fn joined(
    reader: ParquetRecordBatchReader,
    mut held: Option<&mut Held>,
) -> Result<Option<ArrayRef>, TableError> {
    let (mut parts, mut bytes) = (Vec::new(), 0_usize);
    for batch in reader {
        for part in batch?.columns() {
            let taken = memory(part);
            if let Some(held) = &mut held {
                held.take(taken)?;
            }
            bytes += taken;
            within(bytes, MOST)?;
            parts.push(part.clone());
        }
    }
    if parts.len() < 2 {
        return Ok(parts.pop());
    }
    // While they are joined they are there twice.
    if let Some(held) = &mut held {
        held.take(bytes)?;
    }
    let whole = concat(&parts.iter().map(|part| part.as_ref() as &dyn Array).collect::<Vec<_>>())?;
    drop(parts);
    if let Some(held) = &mut held {
        held.give(bytes);
    }
    Ok(Some(whole))
}

/// Bytes of what is in a column.
pub(in super::super) fn memory(array: &ArrayRef) -> usize {
    array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size())
}

fn within(bytes: usize, most: usize) -> Result<(), TableError> {
    if bytes > most { Err(TableError::Wide { mib: most >> 20 }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_in_stretches_that_have_wanted_ones() {
        let check = |wanted: fn(usize) -> bool, rows: usize, runs: usize| {
            let all = BooleanBuffer::collect_bool(10_000, wanted);
            let (selection, of_these) = stretches(&all);
            assert_eq!((selection.row_count(), of_these.len()), (rows, rows));
            assert_eq!((selection.iter().count(), of_these.count_set_bits()), (runs, all.count_set_bits()));
        };
        check(|row| row == 0, 64, 2);
        check(|row| row == 9_999, 16, 2);
        check(|row| row == 100 || row == 200, 128, 5);
        check(|row| row < 1_000 && row.is_multiple_of(2), 1_024, 2);
        check(|row| row.is_multiple_of(16), 10_000, 1);
        check(|_| true, 10_000, 1);
    }
}
