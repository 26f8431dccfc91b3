//! Everything that passes, as Parquet, CSV, JSON lines or IPFIX: the rows of a search in the order of a search, without its limit.
//!
//! The answer is made stretch by stretch, newest first, each of some [`ROWS`] rows that take [`MEMORY`] at most, so that memory is bounded however
//! long it is and however wide rows are. They are kept as files have them, each text once, and made plain few at a time. A row is of the
//! stretch in which it starts, and each stretch is asked for when its turn comes: a row that goes from memory to a file meanwhile, or
//! from one file to another, is there once, and no file has to stay for as long as the whole export takes. Rows that come for a stretch
//! that is over are not in it.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::TimestampNanosecondType;
use futures_util::TryStreamExt;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use wiretag_enrich::ipfix::Numbers;
use wiretag_enrich::tagged::{AnyColumn, all_columns};

use super::engine::Condition;
use super::error::TableError;
use super::rows::{self, Place};
use super::schema::schema;
use super::{Range, Table, TableStore, files, ipfix};
use crate::catalog::{FlowFile, TableName};
use crate::csv;
use crate::error::StoreError;
use crate::limits::{Budget, LimitReached};
use crate::query::Query;

/// Rows of a stretch, about: sorted in memory.
const ROWS: u64 = 32_768;
/// Memory that they take at most, bytes; more only if they start with the same nanosecond.
const MEMORY: usize = 64 << 20;
/// Batches between those who read and those who write.
const BATCHES: usize = 2;
/// Rows of a row group in Parquet at most, and its bytes in memory.
const GROUP: (usize, usize) = (131_072, 32 << 20);
/// Bytes of a column's dictionary in Parquet at most: each column has one in memory.
const DICTIONARY: usize = 256 << 10;
/// Text that is written at once, bytes.
const TEXT: usize = 1 << 20;
/// Rows of a batch.
const AT_ONCE: usize = 1_024;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// One file, zstd, in the columns of the store's files.
    Parquet,
    /// RFC 4180 with a header.
    Csv,
    /// One JSON object a line.
    JsonLines,
    /// A file of IPFIX (RFC 5655), of flows only; `now` is its time of export, ns.
    Ipfix {
        /// Domain and enterprise.
        numbers: Numbers,
        /// When.
        now: i64,
    },
}

/// What to export.
#[derive(Debug, Clone, Copy)]
pub struct ExportOptions {
    /// How.
    pub format: ExportFormat,
    /// Rows that touch it.
    pub range: Range,
    /// Also rows that are not primary.
    pub all_observations: bool,
    /// Rows at most, the newest; `None`: all.
    pub limit: Option<u64>,
}

/// What is sent to whoever writes.
enum Part {
    Rows(RecordBatch),
    /// It came to its end: without this, what has been written is not finished.
    End,
}

impl<R: Table> TableStore<R> {
    /// Writes the rows that pass; gives their number, and the writer back. After an error what was written is not whole, and
    /// Parquet has no footer.
    pub async fn export<W: Write + Send + 'static>(
        &self,
        query: &Query<R>,
        options: ExportOptions,
        out: W,
    ) -> Result<(u64, W), StoreError> {
        if matches!(options.format, ExportFormat::Ipfix { .. }) && R::NAME != TableName::Flows {
            return Err(
                TableError::Range("IPFIX tells of flows; hint: transactions are `csv`, `jsonl` or `parquet`").into()
            );
        }
        let (parts, taken) = channel(BATCHES);
        let ExportOptions { format, range, all_observations, limit } = options;
        let writing = tokio::task::spawn_blocking(move || write::<R, W>(taken, format, out));
        let condition = Condition::new(query.node.clone(), range, all_observations);
        let sent = self.send(&condition, limit.unwrap_or(u64::MAX), &parts).await;
        if sent.is_ok() {
            // Whoever writes may have failed; then its error counts.
            let _ = parts.send(Part::End).await;
        }
        drop(parts);
        let written = writing.await.map_err(TableError::from)?;
        match (sent, written) {
            // Nobody took more: why not is known there.
            (Ok(()) | Err(StoreError::Closed), written) => written,
            (Err(error), _) => Err(error),
        }
    }

    async fn send(&self, condition: &Condition<R>, limit: u64, parts: &Sender<Part>) -> Result<(), StoreError> {
        let mut left = limit;
        for stretch in self.stretches(condition).await? {
            if left == 0 {
                break;
            }
            let range = Range { from: condition.range.from, to: condition.range.to.min(stretch.to) };
            let whole = Condition { range, not_before: Some(stretch.from), ..condition.clone() };
            let mut rest = self.divided(&whole, stretch.from).await?;
            rest.reverse();
            while let Some(part) = rest.pop().filter(|_| left > 0) {
                let moments = part.to.saturating_sub(part.from);
                let budget = Arc::new(Budget::new(if moments > 1 { MEMORY } else { usize::MAX }));
                let range = Range { to: part.to, ..range };
                let condition = Condition { range, not_before: Some(part.from), budget, ..condition.clone() };
                match self.send_stretch(&condition, left, parts).await {
                    Err(StoreError::Limit(LimitReached::Memory { .. })) if moments > 1 => {
                        let middle = part.from + moments / 2;
                        rest.extend([Range { to: middle, ..part }, Range { from: middle, ..part }]);
                    }
                    sent => left -= sent?,
                }
            }
        }
        Ok(())
    }

    /// A stretch in parts in which some [`ROWS`] rows start each, newest first: rows do not come evenly.
    async fn divided(&self, condition: &Condition<R>, from: i64) -> Result<Vec<Range>, StoreError> {
        let (snapshot, _) = self.answerable(condition.range, false).await?;
        let mut rest: Vec<&FlowFile> = snapshot.files.iter().filter(|file| reaches(condition, file)).collect();
        let kept: u64 = rest.iter().map(|file| file.rows).sum();
        if kept <= 2 * ROWS {
            return Ok(vec![Range { from, to: condition.range.to }]);
        }
        let mut starts: Vec<i64> = loop {
            let read = async {
                let stream = self.inner.engine.stream(&rest, condition, &["start"]).await?;
                Ok(stream.try_collect::<Vec<RecordBatch>>().await?)
            };
            match read.await {
                Err(error) => rest = self.without_unreadable(&rest, error).await?,
                Ok(batches) => break batches.iter().flat_map(times).collect(),
            }
        };
        starts.sort_unstable_by(|one, other| other.cmp(one));
        let mut to = condition.range.to;
        let mut parts = Vec::new();
        for cut in starts.iter().skip(ROWS as usize - 1).step_by(ROWS as usize).filter(|cut| **cut > from) {
            if *cut < to {
                parts.push(Range { from: *cut, to });
                to = *cut;
            }
        }
        parts.push(Range { from, to });
        Ok(parts)
    }

    /// Where rows start, newest first; each stretch has about so many rows that they can be sorted in memory.
    async fn stretches(&self, condition: &Condition<R>) -> Result<Vec<Range>, StoreError> {
        let (snapshot, _) = self.answerable(condition.range, false).await?;
        let mut hours: BTreeMap<i64, u64> = BTreeMap::new();
        let mut count = |start: i64, rows: u64| {
            let hour = start.div_euclid(files::HOUR);
            *hours.entry(hour).or_default() += rows;
        };
        snapshot.matching(condition).await.into_iter().for_each(|row| count(row.record.key().start, 1));
        for file in snapshot.files.iter().filter(|file| condition.touches(file)) {
            let last = files::latest_start(file).min(condition.range.to);
            let mut hour = file.start;
            while hour <= last {
                count(hour, file.rows);
                hour = hour.saturating_add(files::HOUR);
            }
            count(last, 0);
        }
        let split = |(hour, rows): (i64, u64)| {
            let pieces = i64::try_from(rows / ROWS).unwrap_or(1).clamp(1, 3_600);
            let (begin, length) = (hour.saturating_mul(files::HOUR), files::HOUR / pieces);
            let end = begin.saturating_add(files::HOUR);
            let piece = move |number: i64| {
                let to = if number + 1 == pieces { end } else { begin + (number + 1) * length };
                Range { from: begin + number * length, to }
            };
            (0..pieces).rev().map(piece)
        };
        Ok(hours.into_iter().rev().flat_map(split).collect())
    }

    /// Gives the number of rows sent.
    async fn send_stretch(
        &self,
        condition: &Condition<R>,
        limit: u64,
        parts: &Sender<Part>,
    ) -> Result<u64, StoreError> {
        let (snapshot, _) = self.answerable(condition.range, false).await?;
        let candidates: Vec<&FlowFile> = snapshot.files.iter().filter(|file| reaches(condition, file)).collect();
        let mut recent = snapshot.matching(condition).await;
        recent.sort_by_key(|row| Place::of(&row.record.key()));
        if candidates.is_empty() && recent.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(limit).ok();
        recent.truncate(most.unwrap_or(usize::MAX));
        let mut rest = candidates;
        let rows = loop {
            match self.inner.engine.sorted(&rest, &recent, (condition, most)).await {
                Err(error) => rest = self.without_unreadable(&rest, error).await?,
                Ok(rows) => break rows,
            }
        };
        let mut sent = 0;
        for batch in rows.batches(AT_ONCE) {
            let batch = batch?;
            sent += batch.num_rows() as u64;
            parts.send(Part::Rows(batch)).await.map_err(|_| StoreError::Closed)?;
        }
        Ok(sent)
    }
}

/// Whether the file may have a row that passes and starts in time.
fn reaches<R: Table>(condition: &Condition<R>, file: &FlowFile) -> bool {
    condition.touches(file) && files::latest_start(file) >= condition.not_before.unwrap_or(i64::MIN)
}

/// When rows start.
fn times(batch: &RecordBatch) -> Vec<i64> {
    let times = batch.columns().first().and_then(|times| times.as_primitive_opt::<TimestampNanosecondType>());
    times.map(|times| times.values().to_vec()).unwrap_or_default()
}

fn write<R: Table, W: Write + Send>(
    mut parts: Receiver<Part>,
    format: ExportFormat,
    mut out: W,
) -> Result<(u64, W), StoreError> {
    match format {
        ExportFormat::Parquet => write_parquet::<R, W>(parts, out),
        ExportFormat::Ipfix { numbers, now } => write_ipfix(parts, (numbers, now), out),
        ExportFormat::Csv | ExportFormat::JsonLines => {
            let names: Vec<&str> = all_columns::<R>().map(AnyColumn::name).collect();
            let (mut count, mut text) = (0, String::new());
            if format == ExportFormat::Csv {
                text.push_str(&csv::header(names.iter().copied()));
                text.push('\n');
            }
            loop {
                let part = parts.blocking_recv().ok_or(StoreError::Closed)?;
                if let Part::Rows(batch) = &part {
                    for row in rows::of_columns(&names, batch.columns(), R::NUMBER, None) {
                        match format {
                            ExportFormat::Csv => text.push_str(&csv::line(names.iter().copied(), &row.to_map())),
                            ExportFormat::JsonLines | ExportFormat::Parquet | ExportFormat::Ipfix { .. } => {
                                let line = serde_json::to_string(&row);
                                text.push_str(&line.map_err(|source| StoreError::Row { what: "a row", source })?);
                            }
                        }
                        text.push('\n');
                        count += 1;
                        if text.len() > TEXT {
                            out.write_all(text.as_bytes()).map_err(failed)?;
                            text.clear();
                        }
                    }
                }
                out.write_all(text.as_bytes()).map_err(failed)?;
                text.clear();
                if matches!(part, Part::End) {
                    out.flush().map_err(failed)?;
                    return Ok((count, out));
                }
            }
        }
    }
}

fn write_parquet<R: Table, W: Write + Send>(mut parts: Receiver<Part>, out: W) -> Result<(u64, W), StoreError> {
    let level = ZstdLevel::try_new(3).map_err(in_parquet)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_created_by("wiretag".into())
        .set_dictionary_page_size_limit(DICTIONARY)
        .set_max_row_group_row_count(Some(GROUP.0))
        .build();
    let mut writer = ArrowWriter::try_new(out, schema::<R>(), Some(properties)).map_err(in_parquet)?;
    let mut count = 0;
    loop {
        match parts.blocking_recv().ok_or(StoreError::Closed)? {
            Part::Rows(batch) => {
                count += batch.num_rows() as u64;
                writer.write(&batch).map_err(in_parquet)?;
                if writer.in_progress_size() > GROUP.1 {
                    writer.flush().map_err(in_parquet)?;
                }
            }
            Part::End => {
                let mut out = writer.into_inner().map_err(in_parquet)?;
                out.flush().map_err(failed)?;
                return Ok((count, out));
            }
        }
    }
}

/// Of rows of flows.
fn write_ipfix<W: Write>(
    mut parts: Receiver<Part>,
    (numbers, now): (Numbers, i64),
    out: W,
) -> Result<(u64, W), StoreError> {
    let mut writer = ipfix::FileWriter::new(numbers, now, out).map_err(failed)?;
    let mut count = 0;
    loop {
        match parts.blocking_recv().ok_or(StoreError::Closed)? {
            Part::Rows(batch) => {
                writer.write(&ipfix::flows(&batch)?).map_err(failed)?;
                count += batch.num_rows() as u64;
            }
            Part::End => return Ok((count, writer.finish().map_err(failed)?)),
        }
    }
}

fn in_parquet(error: ParquetError) -> StoreError {
    match error {
        ParquetError::External(inner) if inner.downcast_ref().is_some_and(is_broken_pipe) => StoreError::Closed,
        source => TableError::Write { path: "export".into(), source }.into(),
    }
}

fn is_broken_pipe(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::BrokenPipe
}

fn failed(error: std::io::Error) -> StoreError {
    if is_broken_pipe(&error) { StoreError::Closed } else { StoreError::io("write", Path::new("export"))(error) }
}
