//! Files of a table on disk: `TABLE/date=YYYY-MM-DD/hour=HH/NAME.parquet`, by the hour of the rows' start.
//!
//! A file is written under a temporary name, synced, renamed, and its directory synced, before the catalog hears of it.
//! So a file that the catalog does not name was never part of an answer: on opening it is moved to `set-aside/`.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use chrono::{DateTime, NaiveDate, Timelike};
use datafusion::arrow::array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use super::error::TableError;
use super::rows::time_at;
use crate::catalog::{FlowFile, Origin, TableName};
use crate::private;

/// One hour in ns.
pub(super) const HOUR: i64 = 3_600_000_000_000;
/// Names the files whose rows have moved to a compacted file and that may go; in the directory of the table.
const SUPERSEDED: &str = "superseded";
/// Columns that searches for one address, flow or container look up, where the table has them.
const BLOOM: &[&str] = &[
    "flow_id",
    "community_id",
    "client_ip",
    "server_ip",
    "client_identity",
    "server_identity",
    "client_pod",
    "server_pod",
    "client_container",
    "server_container",
];

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

fn properties(batch: &RecordBatch) -> Result<WriterProperties, parquet::errors::ParquetError> {
    let (rows, schema) = (batch.num_rows(), batch.schema_ref());
    let start = schema.index_of("start").unwrap_or_default();
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_created_by("wiretag".into())
        .set_max_row_group_row_count(Some(131_072))
        .set_sorting_columns(Some(vec![SortingColumn {
            column_idx: start as i32,
            descending: false,
            nulls_first: false,
        }]));
    for column in BLOOM.iter().filter(|column| schema.index_of(column).is_ok()) {
        let path = ColumnPath::from(*column);
        builder = builder
            .set_column_bloom_filter_enabled(path.clone(), true)
            .set_column_bloom_filter_max_ndv(path, rows.clamp(64, 131_072) as u64);
    }
    Ok(builder.build())
}

/// Writes rows of one hour, sorted by start, durably. The catalog does not know of the file yet.
pub(super) fn write(
    data_dir: &Path,
    table: TableName,
    batch: &RecordBatch,
    origin: Origin,
) -> Result<FlowFile, TableError> {
    let times = |name: &str| {
        let column = batch.column_by_name(name);
        (0..batch.num_rows()).filter_map(move |row| time_at(column?, row))
    };
    let start = times("start").min().unwrap_or_default();
    let end = times("end").max().unwrap_or(start);
    let relative = hour_dir(table, start);
    let dir = data_dir.join(&relative);
    private::create_dir_all(&dir).map_err(TableError::io("create", &dir))?;
    let name = free_name(&dir, start);
    let path = dir.join(&name);
    let temporary = dir.join(format!("{name}.tmp"));
    let written = write_temporary(&temporary, batch).and_then(|()| {
        fs::rename(&temporary, &path).map_err(TableError::io("rename", &temporary))?;
        sync_up(data_dir, &dir)
    });
    if let Err(error) = written {
        // Best effort: what stays is set aside on the next start.
        let _ = fs::remove_file(&temporary);
        let _ = fs::remove_file(&path);
        return Err(error);
    }
    let bytes = fs::metadata(&path).map_err(TableError::io("read", &path))?.len();
    let (path, rows) = (format!("{relative}/{name}"), batch.num_rows() as u64);
    Ok(FlowFile { table, path, rows, bytes, start, end, origin })
}

fn free_name(dir: &Path, start: i64) -> String {
    let name = |number: u32| format!("{start:020}-{number:04}.parquet");
    let taken = |name: &str| dir.join(name).exists() || dir.join(format!("{name}.tmp")).exists();
    (0..u32::MAX).map(name).find(|name| !taken(name)).unwrap_or_else(|| name(u32::MAX))
}

fn write_temporary(path: &Path, batch: &RecordBatch) -> Result<(), TableError> {
    let fail = |source| TableError::Write { path: path.to_owned(), source };
    let file = private::create(path).map_err(TableError::io("create", path))?;
    let properties = properties(batch).map_err(fail)?;
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).map_err(fail)?;
    writer.write(batch).map_err(fail)?;
    let file = writer.into_inner().map_err(fail)?;
    file.sync_all().map_err(TableError::io("sync", path))
}

/// Syncs `dir` and the directories above it up to the data directory: they may be new.
pub(super) fn sync_up(data_dir: &Path, dir: &Path) -> Result<(), TableError> {
    for dir in dir.ancestors().take_while(|ancestor| ancestor.starts_with(data_dir)) {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(TableError::io("sync", dir))?;
    }
    Ok(())
}

/// Whether a file is there, whole, and Parquet from beginning to end as far as its footer tells.
pub(super) fn readable(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    parquet::arrow::arrow_reader::ArrowReaderMetadata::load(
        &file,
        parquet::arrow::arrow_reader::ArrowReaderOptions::new(),
    )
    .is_ok()
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

/// Moves what the catalog does not name out of the way and says so; names registered files that are missing.
pub(super) fn repair(data_dir: &Path, table: TableName, registered: &[FlowFile]) -> Result<Vec<String>, TableError> {
    let mut sentences = Vec::new();
    let known: HashSet<PathBuf> = registered.iter().map(|file| data_dir.join(&file.path)).collect();
    let list = data_dir.join(table.as_str()).join(SUPERSEDED);
    let superseded: HashSet<PathBuf> =
        fs::read_to_string(&list).unwrap_or_default().lines().map(|line| data_dir.join(line)).collect();
    let mut found = Vec::new();
    collect(&data_dir.join(table.as_str()), &mut found)?;
    for path in found.into_iter().filter(|path| !known.contains(path) && *path != list) {
        if superseded.contains(&path) {
            fs::remove_file(&path).map_err(TableError::io("delete", &path))?;
            continue;
        }
        let target = set_aside(data_dir, &path)?;
        let why = if path.extension().is_some_and(|extension| extension == "tmp") {
            "was not written to its end"
        } else {
            "is not in the catalog"
        };
        sentences.push(format!("file `{}` {why}: moved to `{}`", path.display(), target.display()));
    }
    let _ = fs::remove_file(&list);
    for file in registered.iter().filter(|file| !readable(&data_dir.join(&file.path))) {
        let path = data_dir.join(&file.path);
        let state = if path.exists() { "cannot be read" } else { "is missing" };
        sentences.push(format!(
            "file `{}` {state}: its {} rows are not part of answers; hint: restore it from a backup",
            path.display(),
            file.rows
        ));
    }
    Ok(sentences)
}

fn set_aside(data_dir: &Path, path: &Path) -> Result<PathBuf, TableError> {
    let dir = data_dir.join("set-aside");
    private::create_dir_all(&dir).map_err(TableError::io("create", &dir))?;
    let relative = path.strip_prefix(data_dir).unwrap_or(path).to_string_lossy().replace('/', "_");
    let names = (0_u32..).map(|number| if number == 0 { relative.clone() } else { format!("{relative}.{number}") });
    let target = names.map(|name| dir.join(name)).find(|target| !target.exists()).unwrap_or_else(|| dir.join("file"));
    fs::rename(path, &target).map_err(TableError::io("move", path))?;
    Ok(target)
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
