//! Making roll-ups: of the flow files of an hour that is past, and of the minutes of a day that is past.
//!
//! A file is written and synced before the catalog names it. One that the catalog does not name is deleted by the next start: it
//! can be made again. An hour with too many groups for the memory, or a day with a roll-up that cannot be read, stays without; a file of rows
//! that cannot be read is left out, and added up when it can be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use chrono::DateTime;
use datafusion::arrow::array::{
    ArrayRef, BinaryBuilder, RecordBatch, StringBuilder, TimestampNanosecondArray, UInt64Array, UInt64Builder,
};
use datafusion::arrow::datatypes::DataType;
use foldhash::fast::RandomState;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use wiretag_capture::FlowRecord;

use super::{DAY, DIMENSIONS, FOLDER, HOUR, MINUTE, SKETCHES, SUMS, aggregate, schema};
use crate::catalog::{Origin, RollupFile, TableName};
use crate::error::StoreError;
use crate::limits::{Budget, DEFAULT_MEMORY};
use crate::private;
use crate::query::ast::Node;
use crate::tables::aggregate::{Groups, KeyValue, Plan};
use crate::tables::engine::Condition;
use crate::tables::{FlowStore, Range, TableError, files};

/// Since the end of an hour, ns: by then its flows are in files, and these are merged.
const SETTLED: i64 = HOUR / 6;
/// Files of an hour that has ever so many are not waited for to be merged.
const MOST_FILES: usize = 64;

/// What failed.
#[derive(Debug, Default)]
pub(in crate::tables) struct Failed {
    /// Hours and days that are not tried again.
    given_up: BTreeSet<(i64, i64, Origin)>,
    /// What was said last; it is not said every two seconds.
    told: Option<String>,
}

/// What the next roll-up is of.
enum Next {
    Minutes { hour: i64, origin: Origin, files: Vec<crate::catalog::FlowFile> },
    Hours { day: i64, origin: Origin, minutes: Vec<RollupFile> },
}

impl FlowStore {
    /// Makes the next roll-up, if an hour or a day is without; its rows. To be called now and then, when nothing is left to merge.
    /// While files are exchanged nothing is made.
    pub async fn roll_up(&self, now: i64) -> Result<u64, StoreError> {
        let Ok(mut rolling) = self.inner.rolling.try_lock() else { return Ok(0) };
        let Some(next) = self.next_rollup(&rolling, now).await? else { return Ok(0) };
        let (width, start, origin) = match &next {
            Next::Minutes { hour, origin, .. } => (MINUTE, *hour, *origin),
            Next::Hours { day, origin, .. } => (HOUR, *day, *origin),
        };
        let counts = &self.inner.counts;
        match self.make(next, (width, start, origin)).await {
            Ok(rows) => {
                rolling.told = None;
                counts.rollups.fetch_add(1, Ordering::Relaxed);
                counts.rollup_rows.fetch_add(rows, Ordering::Relaxed);
                Ok(rows)
            }
            // Retention took a file meanwhile, or none of them can be read: the next time chooses anew.
            Err(StoreError::Gone { .. } | StoreError::Changed) => Ok(0),
            Err(error) => {
                counts.failed_rollups.fetch_add(1, Ordering::Relaxed);
                // Too many groups and broken or missing roll-ups stay what they are; a full disk or a catalog that is away do not.
                if stays(&error) {
                    rolling.given_up.insert((width, start, origin));
                }
                let sentence = error.to_string();
                if rolling.told.as_ref() != Some(&sentence) {
                    tracing::warn!(%error, start, "flows of this time are not rolled up: questions read their rows");
                    rolling.told = Some(sentence);
                }
                Err(error)
            }
        }
    }

    async fn next_rollup(&self, rolling: &Failed, now: i64) -> Result<Option<Next>, StoreError> {
        let catalog = &self.inner.catalog;
        let mut hours: BTreeMap<(i64, Origin), Vec<_>> = BTreeMap::new();
        for file in self.readable(catalog.unrolled(TableName::Flows).await?) {
            if let Some(hour) = files::hour_of(&file.path) {
                hours.entry((hour, file.origin)).or_default().push(file);
            }
        }
        let past = |start: i64, length: i64| start.saturating_add(length + SETTLED) < now;
        let tried = |width: i64, start: i64, origin: Origin| rolling.given_up.contains(&(width, start, origin));
        for ((hour, origin), mut files) in hours {
            if past(hour, HOUR) && !tried(MINUTE, hour, origin) {
                files.truncate(MOST_FILES);
                return Ok(Some(Next::Minutes { hour, origin, files }));
            }
        }
        let mut days: BTreeMap<(i64, Origin), Vec<RollupFile>> = BTreeMap::new();
        let without = |file: &RollupFile| file.width == MINUTE && file.day.is_none() && !file.gone;
        for file in catalog.rollups().await?.into_iter().filter(without) {
            days.entry((file.start.div_euclid(DAY) * DAY, file.origin)).or_default().push(file);
        }
        let next = days.into_iter().find(|((day, origin), _)| past(*day, DAY) && !tried(HOUR, *day, *origin));
        Ok(next.map(|((day, origin), minutes)| Next::Hours { day, origin, minutes }))
    }

    async fn make(&self, next: Next, (width, start, origin): (i64, i64, Origin)) -> Result<u64, StoreError> {
        let plan = Arc::new(Plan::<FlowRecord>::new(&aggregate(width)));
        let budget = Arc::new(Budget::new(DEFAULT_MEMORY));
        let mut groups = Groups::new(&plan, &RandomState::default(), None, &budget);
        let dir = self.inner.engine.data_dir().to_owned();
        let parts: Vec<String> = match next {
            Next::Minutes { files, .. } => {
                let condition = Condition::new(Node::All, Range::ALL, false);
                let mut wanted: Vec<&_> = files.iter().collect();
                let parts = loop {
                    match self.read_groups(&groups, &plan, &condition, &wanted).await {
                        Ok((parts, _)) => break parts,
                        Err(error) => wanted = self.without_unreadable(&wanted, error).await?,
                    }
                };
                if wanted.is_empty() {
                    return Err(StoreError::Changed);
                }
                for part in parts {
                    groups.merge(part)?;
                }
                wanted.into_iter().map(|file| file.path.clone()).collect()
            }
            Next::Hours { minutes, .. } => {
                let paths: Vec<String> = minutes.into_iter().map(|file| file.path).collect();
                let (dir, plan, some) = (dir.clone(), plan.clone(), paths.clone());
                let work = move || {
                    for path in &some {
                        groups.add_rolled_file(&plan, &Node::All, Range::ALL, &dir.join(path))?;
                    }
                    Ok::<_, TableError>(groups)
                };
                groups = tokio::task::spawn_blocking(work).await.map_err(TableError::from)??;
                paths
            }
        };
        let work = move || {
            groups.gather();
            write(&dir, &groups, (width, start, origin))
        };
        let file = tokio::task::spawn_blocking(work).await.map_err(TableError::from)??;
        let file = RollupFile { files: parts.len() as u64, ..file };
        // Who reads sees the files before or after, with the memory of the same moment.
        let guard = self.inner.exchanging().await;
        let registered = match width {
            MINUTE => self.inner.catalog.add_rollup(&file, &parts).await,
            _ => self.inner.catalog.add_rollup_of_hours(&file, &parts).await,
        };
        drop(guard);
        if let Err(error) = registered {
            // What may count after all is deleted, or set aside, by the next start.
            if !error.is_unsettled() {
                let _ = fs::remove_file(self.inner.engine.data_dir().join(&file.path));
            }
            return Err(error);
        }
        Ok(file.rows)
    }
}

/// Whether it fails again, however often it is tried.
fn stays(error: &StoreError) -> bool {
    let missing = |source: &io::Error| source.kind() == io::ErrorKind::NotFound;
    match error {
        StoreError::Limit(_) | StoreError::Query(_) => true,
        StoreError::Io { action: "open", source, .. } => missing(source),
        _ => false,
    }
}

fn write(dir: &Path, groups: &Groups, place: (i64, i64, Origin)) -> Result<RollupFile, TableError> {
    write_batch(dir, &batch(groups)?, place)
}

/// Writes rows of a roll-up, durably. The catalog does not know of the file yet.
pub(super) fn write_batch(
    dir: &Path,
    batch: &RecordBatch,
    (width, start, origin): (i64, i64, Origin),
) -> Result<RollupFile, TableError> {
    let time = DateTime::from_timestamp_nanos(start);
    let folder = match width {
        MINUTE => format!("{FOLDER}/1m/date={}/hour={}", time.format("%Y-%m-%d"), time.format("%H")),
        _ => format!("{FOLDER}/1h/date={}", time.format("%Y-%m-%d")),
    };
    let full = dir.join(&folder);
    private::create_dir_all(&full).map_err(TableError::io("create", &full))?;
    let taken = |name: &String| full.join(name).exists();
    let names = (0_u32..).map(|number| format!("{start:020}-{number:04}.parquet"));
    let name = names.into_iter().find(|name| !taken(name)).unwrap_or_default();
    let (path, temporary) = (full.join(&name), full.join(format!("{name}.tmp")));
    let written = put(&temporary, batch).and_then(|()| {
        fs::rename(&temporary, &path).map_err(TableError::io("rename", &temporary))?;
        files::sync_up(dir, &full)
    });
    if let Err(error) = written {
        // Best effort: what stays is deleted on the next start.
        let _ = fs::remove_file(&temporary);
        let _ = fs::remove_file(&path);
        return Err(error);
    }
    let bytes = fs::metadata(&path).map_err(TableError::io("read", &path))?.len();
    let (path, rows) = (format!("{folder}/{name}"), batch.num_rows() as u64);
    Ok(RollupFile { path, width, start, rows, bytes, origin, files: 0, day: None, gone: false })
}

fn put(path: &Path, batch: &RecordBatch) -> Result<(), TableError> {
    let fail = |source| TableError::Write { path: path.to_owned(), source };
    let level = ZstdLevel::try_new(3).map_err(fail)?;
    let properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(level)).set_created_by("wiretag".into());
    let file = private::create(path).map_err(TableError::io("create", path))?;
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties.build())).map_err(fail)?;
    writer.write(batch).map_err(fail)?;
    let file = writer.into_inner().map_err(fail)?;
    file.sync_all().map_err(TableError::io("sync", path))
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
