//! Files of a table on disk: `TABLE/date=YYYY-MM-DD/hour=HH/NAME.parquet`, by the hour of the rows' start.
//!
//! A file is written under a temporary name, synced, renamed, and its directory synced, before the catalog hears of it.
//! So a file that the catalog does not name was never part of an answer: on opening it is moved to `set-aside/`.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, Timelike};
use datafusion::arrow::array::{Array, ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::SchemaRef;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::encode::{Encoder, GROUP, Holds};
use super::error::{TableError, is_of_the_moment};
use super::rows::time_at;
use super::sums;
use crate::catalog::{FlowFile, Origin, TableName};
use crate::private;
use crate::set_aside::set_aside;

/// One hour in ns.
pub(super) const HOUR: i64 = 3_600_000_000_000;
/// Names the files whose rows have moved to a compacted file and that may go; in the directory of the table, where others who read it
/// (Spark, Hive, PyArrow) pass over what begins with `_`.
const SUPERSEDED: &str = "_superseded";
/// What it was called before.
const SUPERSEDED_BEFORE: &str = "superseded";
/// First letter of the names of files that a flush wrote.
pub(super) const FLUSHED: char = 'f';
/// The same of merged files.
pub(super) const MERGED: char = 'm';
/// The same of what an erasure left.
pub(super) const LEFT: char = 'e';

/// The same of files whose rows got names later.
pub(super) const NAMED: char = 'n';

/// The directory of an hour, relative to the data directory.
fn hour_dir(table: TableName, start: i64) -> String {
    let time = DateTime::from_timestamp_nanos(start);
    format!("{table}/date={}/hour={:02}", time.format("%Y-%m-%d"), time.hour())
}

/// First ns of the hour that the file's path names.
pub(super) fn hour_of(path: &str) -> Option<i64> {
    let date = path.split('/').find_map(|part| part.strip_prefix("date="))?;
    let hour: i64 = path.split('/').find_map(|part| part.strip_prefix("hour="))?.parse().ok()?;
    let date = NaiveDate::parse_from_str(date, "%Y-%m-%d").ok()?;
    Some(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_nanos_opt()? + hour * HOUR)
}

/// No row of the file starts later.
pub(super) fn latest_start(file: &FlowFile) -> i64 {
    hour_of(&file.path).map_or(file.end, |hour| file.end.min(hour.saturating_add(HOUR - 1)))
}

/// A file that is to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewFile<'a> {
    pub(super) data_dir: &'a Path,
    pub(super) table: TableName,
    pub(super) schema: &'a SchemaRef,
    pub(super) origin: Origin,
    /// First letter of its name: a flush and a merge work at the same time, and must not choose one name.
    pub(super) letter: char,
}

/// What a file has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub(super) rows: u64,
    /// Least start.
    pub(super) start: i64,
    /// Greatest end.
    pub(super) end: i64,
}

impl Extent {
    /// Of rows with these columns.
    pub(super) fn of(starts: &dyn Array, ends: &dyn Array) -> Self {
        let start = (0..starts.len()).filter_map(|row| time_at(starts, row)).min().unwrap_or_default();
        let end = (0..ends.len()).filter_map(|row| time_at(ends, row)).max().unwrap_or(start);
        Self { rows: starts.len() as u64, start, end }
    }
}

impl NewFile<'_> {
    /// Writes rows of one hour, durably. The catalog does not know of the file yet.
    pub(super) fn write(self, columns: &[ArrayRef]) -> Result<FlowFile, TableError> {
        let column = |name: &str| self.schema.index_of(name).ok().and_then(|at| columns.get(at));
        let (Some(starts), Some(ends)) = (column("start"), column("end")) else {
            return Err(TableError::Columns(datafusion::arrow::error::ArrowError::SchemaError(
                "rows have no time".into(),
            )));
        };
        let extent = Extent::of(starts, ends);
        self.create(extent, |encoder| {
            let rows = starts.len();
            // Groups of equal size: a last one of few rows would stay small.
            let size = rows.div_ceil(rows.div_ceil(GROUP).max(1)).max(1);
            for first in (0..rows).step_by(size) {
                let part = |array: &ArrayRef| Ok(array.slice(first, size.min(rows - first)));
                encoder.row_group(columns.iter().map(part))?;
            }
            Ok(())
        })
    }

    /// Writes a file of one hour with what `fill` encodes, durably.
    pub(super) fn create(
        self,
        extent: Extent,
        fill: impl FnOnce(&mut Encoder) -> Result<(), TableError>,
    ) -> Result<FlowFile, TableError> {
        let Extent { rows, start, end } = extent;
        let relative = hour_dir(self.table, start);
        let dir = self.data_dir.join(&relative);
        private::create_dir_all(&dir).map_err(TableError::io("create", &dir))?;
        let (name, file) = claim(&dir, self.letter, start)?;
        let path = dir.join(&name);
        let temporary = temporary(&dir, &name);
        let written = write_temporary((&temporary, file), self.schema, fill).and_then(|()| {
            fs::rename(&temporary, &path).map_err(TableError::io("rename", &temporary))?;
            sync_up(self.data_dir, &dir)
        });
        if let Err(error) = written {
            // Best effort: what stays is set aside on the next start.
            let _ = fs::remove_file(&temporary);
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        let bytes = fs::metadata(&path).map_err(TableError::io("read", &path))?.len();
        let (table, origin) = (self.table, self.origin);
        Ok(FlowFile { table, path: format!("{relative}/{name}"), rows, bytes, start, end, origin })
    }
}

/// Writes rows of one hour, durably. The catalog does not know of the file yet.
pub(super) fn write(
    data_dir: &Path,
    table: TableName,
    batch: &RecordBatch,
    origin: Origin,
) -> Result<FlowFile, TableError> {
    let schema = batch.schema();
    NewFile { data_dir, table, schema: &schema, origin, letter: FLUSHED }.write(batch.columns())
}

/// Of a file that is being written; others pass over it, too.
fn temporary(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("_{name}.tmp"))
}

/// A name that no file of the directory has, and the file under its temporary name: imports write beside the appliance, and two
/// that begin with one row must not choose one name.
fn claim(dir: &Path, letter: char, start: i64) -> Result<(String, File), TableError> {
    let mut number = 0_u32;
    loop {
        let name = format!("{letter}{start:020}-{number:04}.parquet");
        let (path, temporary) = (dir.join(&name), temporary(dir, &name));
        number = number.saturating_add(1);
        if path.exists() {
            continue;
        }
        match private::create_new(&temporary) {
            // Whoever had this temporary name a moment ago may have renamed it since.
            Ok(_) if path.exists() => {
                fs::remove_file(&temporary).map_err(TableError::io("delete", &temporary))?;
            }
            Ok(file) => return Ok((name, file)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(TableError::io("create", &temporary)(error)),
        }
    }
}

fn write_temporary(
    (path, file): (&Path, File),
    schema: &SchemaRef,
    fill: impl FnOnce(&mut Encoder) -> Result<(), TableError>,
) -> Result<(), TableError> {
    let fail = |source| TableError::Write { path: path.to_owned(), source };
    let mut encoder = Encoder::new(file, schema, Holds::Rows).map_err(fail)?;
    fill(&mut encoder).map_err(|error| match error {
        TableError::Encode(source) => fail(source),
        other => other,
    })?;
    let file = encoder.finish().map_err(fail)?;
    file.sync_all().map_err(TableError::io("sync", path))
}

/// Syncs `dir` and the directories above it up to the data directory: they may be new.
pub(super) fn sync_up(data_dir: &Path, dir: &Path) -> Result<(), TableError> {
    for dir in dir.ancestors().take_while(|ancestor| ancestor.starts_with(data_dir)) {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(TableError::io("sync", dir))?;
    }
    Ok(())
}

/// A file is known again by this: inode, length, when it was changed.
pub(crate) type Id = (u64, u64, i64, i64);

pub(super) fn id_of(about: &fs::Metadata) -> Id {
    (about.ino(), about.size(), about.mtime(), about.mtime_nsec())
}

/// What the file of this name is now; none if it is not there.
pub(crate) fn id(path: &Path) -> Option<Id> {
    fs::metadata(path).ok().as_ref().map(id_of)
}

/// The rows of a file, as the library reads them.
pub(super) fn reader(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, TableError> {
    let unreadable = |source| TableError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(TableError::io("open", path))?;
    let known = metadata(&file).map_err(unreadable)?;
    Ok(ParquetRecordBatchReaderBuilder::new_with_metadata(file, known))
}

/// What the footer of a file says, if that matches its checksum.
fn metadata(file: &File) -> Result<ArrowReaderMetadata, ParquetError> {
    let (metadata, _) = sums::read(file, None)?;
    ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new())
}

/// Whether a file is there, whole, and Parquet from beginning to end as far as its footer tells. An error says nothing of the file: there
/// are too many open ones, say.
pub(super) fn readable(path: &Path) -> Result<bool, TableError> {
    can(path, |file| metadata(file).map(drop))
}

/// Whether a file is all of that in each of its pages. That reads it from beginning to end.
pub(super) fn whole(path: &Path) -> Result<bool, TableError> {
    can(path, |file| {
        let reader = SerializedFileReader::new(file.try_clone()?)?;
        for group in 0..reader.num_row_groups() {
            let group = reader.get_row_group(group)?;
            for column in 0..group.num_columns() {
                let mut pages = group.get_column_page_reader(column)?;
                while pages.get_next_page()?.is_some() {}
            }
        }
        Ok(())
    })
}

/// Whether a file is there and can be read so.
fn can(path: &Path, read: impl FnOnce(&File) -> Result<(), ParquetError>) -> Result<bool, TableError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if is_of_the_moment(&error) => return Err(TableError::io("open", path)(error)),
        Err(_) => return Ok(false),
    };
    // Of some broken headers of pages the library panics.
    match catch_unwind(AssertUnwindSafe(|| read(&file))) {
        Ok(Err(source)) if is_of_the_moment(&source) => Err(TableError::Read { path: path.to_owned(), source }),
        Ok(read) => Ok(read.is_ok()),
        Err(_) => Ok(false),
    }
}

/// Notes that these files may be deleted, so that a restart in between deletes rather than sets them aside.
pub(super) fn note_superseded(data_dir: &Path, table: TableName, paths: &[String]) -> Result<(), TableError> {
    let list = data_dir.join(table.as_str()).join(SUPERSEDED);
    let result = private::create(&list).and_then(|mut file| {
        std::io::Write::write_all(&mut file, paths.join("\n").as_bytes())?;
        file.sync_all()
    });
    result.map_err(TableError::io("write", &list))
}

/// The files that were noted so.
pub(super) fn superseded(data_dir: &Path, table: TableName) -> Vec<String> {
    let lists = lists(data_dir, table).map(|list| fs::read_to_string(list).unwrap_or_default());
    lists.iter().flat_map(|list| list.lines()).map(str::to_owned).collect()
}

fn lists(data_dir: &Path, table: TableName) -> [PathBuf; 2] {
    [SUPERSEDED, SUPERSEDED_BEFORE].map(|name| data_dir.join(table.as_str()).join(name))
}

/// Moves what the catalog does not name out of the way and says so, but for what is `waiting` to be deleted; names registered files that cannot be
/// read, in words and alone. What can neither be deleted nor moved stays: it is in no answer.
pub(super) fn repair(
    data_dir: &Path,
    table: TableName,
    (registered, waiting): (&[FlowFile], &[String]),
) -> Result<(Vec<String>, HashSet<String>), TableError> {
    let mut sentences = Vec::new();
    let named = registered.iter().map(|file| &file.path).chain(waiting);
    let known: HashSet<PathBuf> = named.map(|path| data_dir.join(path)).collect();
    let lists = lists(data_dir, table);
    let superseded: HashSet<PathBuf> =
        superseded(data_dir, table).into_iter().map(|path| data_dir.join(path)).collect();
    let mut found = Vec::new();
    collect(&data_dir.join(table.as_str()), &mut found)?;
    for path in found.into_iter().filter(|path| !known.contains(path) && !lists.contains(path)) {
        if superseded.contains(&path) {
            let deleted = fs::remove_file(&path).map_err(TableError::io("delete", &path));
            sentences.extend(deleted.err().map(|error| error.to_string()));
            continue;
        }
        let target = match set_aside(data_dir, &path).map_err(TableError::io("move", &path)) {
            Ok(Some(target)) => target,
            Ok(None) => continue,
            Err(error) => {
                sentences.push(error.to_string());
                continue;
            }
        };
        let why = if path.extension().is_some_and(|extension| extension == "tmp") {
            "was not written to its end"
        } else {
            "is not in the catalog"
        };
        sentences.push(format!("file `{}` {why}: moved to `{}`", path.display(), target.display()));
    }
    for list in &lists {
        let _ = fs::remove_file(list);
    }
    let mut unreadable = HashSet::new();
    for file in registered {
        let path = data_dir.join(&file.path);
        if readable(&path)? {
            continue;
        }
        unreadable.insert(file.path.clone());
        let state = if path.exists() { "cannot be read" } else { "is missing" };
        sentences.push(format!(
            "file `{}` {state}: its {} rows are not part of answers; hint: restore it from a backup",
            path.display(),
            file.rows
        ));
    }
    Ok((sentences, unreadable))
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) -> Result<(), TableError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(TableError::io("read", dir)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(TableError::io("read", dir))?;
        let kind = entry.file_type().map_err(TableError::io("read", dir))?;
        if kind.is_dir() { collect(&entry.path(), found)? } else { found.push(entry.path()) }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it fails")]
mod tests {
    use super::*;

    /// As imports beside each other do whose first rows are one.
    #[test]
    fn writers_at_once_choose_names_of_their_own() {
        const FILES: usize = 200;
        let dir = tempfile::tempdir().unwrap();
        let write = || -> Vec<String> {
            let claimed = |_| {
                let (name, file) = claim(dir.path(), FLUSHED, 7).unwrap();
                drop(file);
                fs::rename(temporary(dir.path(), &name), dir.path().join(&name)).unwrap();
                name
            };
            (0..FILES).map(claimed).collect()
        };
        let names: Vec<String> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4).map(|_| scope.spawn(write)).collect();
            writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
        });
        let distinct: HashSet<&String> = names.iter().collect();
        assert_eq!((names.len(), distinct.len()), (4 * FILES, 4 * FILES));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4 * FILES);
    }
}
