//! Searches over files without a plan: row group by row group, on threads of their own with lower priority than capture.
//!
//! * A row group is left out by its least and greatest values and its bloom filters.
//! * Of the others the columns of the condition are read, each when it is needed; then the rows that are wanted, and only
//!   they, in all columns; labels some rows at a time. A page of the newest rows needs one more thing, their start: which
//!   rows make the page is known before any of them is read.
//! * Row groups are taken from the newest back, a few at first and then more at a time, until no other can change the page.

mod bits;
mod chunks;
mod flat;
mod footers;
mod group;
mod mask;
mod outline;
mod packed;
mod pages;
mod parts;
mod pool;
mod prune;
mod pull;
mod starts;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::datatypes::{Field, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures_util::stream;
use tokio::sync::mpsc::{Receiver, Sender};

pub(super) use self::footers::{Footers, OpenFile};
pub(super) use self::group::Among;
use self::group::{Pieces, Target, Wanted};
pub(super) use self::parts::memory;
use self::pool::Pool;
pub(super) use self::pull::Pull;
pub(super) use self::starts::Starts;
use super::engine::Condition;
use super::error::TableError;
use super::observed::Observed;
use super::rows::Row;
use super::schema::schema;
use super::{Table, files};
use crate::catalog::FlowFile;

/// Row groups looked at together, for each thread, at most.
const WAVE: usize = 8;
/// Batches that wait for whoever reads a stream.
const AHEAD: usize = 2;

/// What was found, as it is read.
pub(super) type Found = Receiver<Result<Among, TableError>>;
/// Reads of a row group what is wanted; nothing if no row passes.
type Read<R> = fn(&Target, &Wanted<R>, &SchemaRef) -> Result<Option<Pieces>, TableError>;

/// Reads files.
pub(super) struct Scanner {
    /// For pages of rows.
    pages: Pool,
    /// For whoever wants all rows: these go through row groups one after the other, and a page must not wait for that.
    streams: Pool,
    footers: Arc<Footers>,
    data_dir: PathBuf,
}

/// Candidates for a page, over all row groups that were looked at.
#[derive(Default)]
struct Candidates {
    rows: Vec<(i64, usize, u32)>,
    newest: BinaryHeap<Reverse<i64>>,
}

impl Candidates {
    /// The start that a row must reach to be of the page.
    fn oldest(&self, limit: usize) -> Option<i64> {
        if self.newest.len() < limit { None } else { self.newest.peek().map(|oldest| oldest.0) }
    }

    fn add(&mut self, target: usize, found: Vec<(i64, u32)>, limit: usize, tie: Option<i64>) {
        for (start, row) in found {
            self.rows.push((start, target, row));
            if Some(start) != tie {
                self.newest.push(Reverse(start));
                if self.newest.len() > limit {
                    self.newest.pop();
                }
            }
        }
        if let Some(oldest) = self.oldest(limit) {
            self.rows.retain(|(start, ..)| *start >= oldest);
        }
    }
}

impl Scanner {
    pub(super) fn new(data_dir: &Path, parallel: usize) -> Result<Self, TableError> {
        let [pages, streams] = [Pool::new(parallel)?, Pool::new(parallel)?];
        Ok(Self { pages, streams, footers: Arc::default(), data_dir: data_dir.to_owned() })
    }

    /// Opens files, in parallel, in this order.
    pub(super) async fn open(&self, files: &[&FlowFile]) -> Result<Vec<OpenFile>, TableError> {
        self.opened(&self.streams, files, None).await
    }

    async fn opened(
        &self,
        pool: &Pool,
        files: &[&FlowFile],
        observed: Option<&Arc<Observed>>,
    ) -> Result<Vec<OpenFile>, TableError> {
        if let Some(observed) = observed {
            observed.opened(files.len());
        }
        let open = |file: &&FlowFile| {
            let (path, footers, observed) = (self.data_dir.join(&file.path), self.footers.clone(), observed.cloned());
            move || footers.open(&path, observed)
        };
        pool.all(files.iter().map(open)).await
    }

    /// The first `limit` rows in answer order; `columns` empty means all. `files` are ordered by their latest start, the
    /// newest first.
    pub(super) async fn newest<R: Table>(
        &self,
        files: &[&FlowFile],
        condition: &Condition<R>,
        limit: usize,
        columns: &[&str],
    ) -> Result<Vec<Row>, TableError> {
        if limit == 0 || files.is_empty() {
            return Ok(Vec::new());
        }
        note(condition, files, || format!("the newest {limit} rows, by start first, then in full"));
        let wanted = Arc::new(Wanted::new(condition));
        let (targets, candidates) = self.candidates(files, &wanted, limit).await?;
        let schema = schema::<R>();
        let key = ["start", "end", "flow_id", R::NUMBER];
        let names: Vec<&str> = if columns.is_empty() {
            schema.fields().iter().map(|field| field.name().as_str()).collect()
        } else {
            columns.to_vec()
        };
        let behind = |row: &Row| condition.after.is_none_or(|after| row.place > after);
        // Many that start together: their places decide first, then the page alone is read.
        let chosen = if candidates.len() > limit.saturating_mul(2) {
            let mut places = self.read(&wanted, &targets, &candidates, &key, R::NUMBER).await?;
            places.retain(|(_, row)| behind(row));
            places.sort_by_key(|(_, row)| row.place);
            places.truncate(limit);
            places.into_iter().map(|(at, _)| at).collect()
        } else {
            candidates
        };
        let read = self.read(&wanted, &targets, &chosen, &names, R::NUMBER).await?;
        let mut rows: Vec<Row> = read.into_iter().map(|(_, row)| row).filter(behind).collect();
        rows.sort_by_key(|row| row.place);
        rows.truncate(limit);
        Ok(rows)
    }

    /// The rows that may be of the page, as target and number in its group.
    async fn candidates<R: Table>(
        &self,
        files: &[&FlowFile],
        wanted: &Arc<Wanted<R>>,
        limit: usize,
    ) -> Result<(Vec<Target>, Vec<(usize, u32)>), TableError> {
        let tie = wanted.condition.after.map(|after| after.start.0);
        let (mut rest, mut looked_at) = (files, Vec::<Target>::new());
        let mut pending: Vec<Target> = Vec::new();
        let mut found = Candidates::default();
        let mut wave = self.pages.threads();
        loop {
            let oldest = found.oldest(limit).unwrap_or(i64::MIN);
            let next = rest.first().map(|file| files::latest_start(file));
            pending.sort_by_key(|target| target.latest);
            let mut now = Vec::new();
            while now.len() < wave
                && let Some(target) = pending.pop_if(|target| target.latest >= next.unwrap_or(i64::MIN).max(oldest))
            {
                now.push(target);
            }
            if now.is_empty() {
                if next.is_none_or(|next| next < oldest) {
                    break;
                }
                let (some, later) = rest.split_at(wave.min(rest.len()));
                let open = self.opened(&self.pages, some, wanted.condition.observed.as_ref()).await?;
                for (open, file) in open.iter().zip(some) {
                    pending.extend(Target::of(open, files::latest_start(file)));
                }
                rest = later;
                continue;
            }
            let look = |target: &Target| {
                let (target, wanted) = (target.clone(), wanted.clone());
                move || target.newest(&wanted, limit)
            };
            let results = self.pages.all(now.iter().map(look)).await?;
            for (target, rows) in now.into_iter().zip(results) {
                if !rows.is_empty() {
                    found.add(looked_at.len(), rows, limit, tie);
                    looked_at.push(target);
                }
            }
            wave = (wave * 2).min(self.pages.threads() * WAVE);
        }
        Ok((looked_at, found.rows.into_iter().map(|(_, target, row)| (target, row)).collect()))
    }

    /// Rows in these columns, with where they are.
    async fn read<R: Table>(
        &self,
        wanted: &Arc<Wanted<R>>,
        targets: &[Target],
        rows: &[(usize, u32)],
        columns: &[&str],
        number: &'static str,
    ) -> Result<Vec<((usize, u32), Row)>, TableError> {
        let mut rows = rows.to_vec();
        rows.sort_unstable();
        let names: Arc<Vec<String>> = Arc::new(columns.iter().map(|name| (*name).to_owned()).collect());
        let groups: Vec<(usize, Vec<u32>)> = rows
            .chunk_by(|left, right| left.0 == right.0)
            .filter_map(|chunk| Some((chunk.first()?.0, chunk.iter().map(|(_, row)| *row).collect())))
            .collect();
        let read = |(at, rows): &(usize, Vec<u32>)| {
            let (target, rows) = (targets.get(*at).cloned(), rows.clone());
            let (names, wanted) = (names.clone(), wanted.clone());
            move || {
                let fields: Vec<&Field> = names.iter().filter_map(|name| wanted.fields.get(name)).collect();
                target.map_or(Ok(Vec::new()), |target| target.rows(&rows, (&fields, number), &wanted.condition.budget))
            }
        };
        let results = self.pages.all(groups.iter().map(read)).await?;
        let placed = groups
            .iter()
            .zip(results)
            .flat_map(|((at, numbers), rows)| numbers.iter().map(|row| (*at, *row)).zip(rows));
        Ok(placed.collect())
    }

    /// All rows that pass, in the columns of `schema` and no order, in as many streams as there are threads.
    pub(super) async fn streams<R: Table>(
        &self,
        files: &[&FlowFile],
        condition: &Condition<R>,
        schema: &SchemaRef,
    ) -> Result<Vec<SendableRecordBatchStream>, TableError> {
        let receivers = self.groups(files, condition, schema, Target::alone).await?;
        let stream = |receiver| {
            let receiving = stream::unfold(receiver, async |mut receiver: Found| {
                let found = receiver.recv().await?;
                let batch = found.map(|found| found.batch);
                Some((batch.map_err(|error| DataFusionError::External(error.into())), receiver))
            });
            Box::pin(RecordBatchStreamAdapter::new(schema.clone(), receiving)) as SendableRecordBatchStream
        };
        Ok(receivers.into_iter().map(stream).collect())
    }

    /// As [`Self::streams`], where most rows pass with the others.
    pub(super) async fn among<R: Table>(
        &self,
        files: &[&FlowFile],
        condition: &Condition<R>,
        schema: &SchemaRef,
    ) -> Result<Vec<Found>, TableError> {
        self.groups(files, condition, schema, Target::among).await
    }

    /// What `read` makes of each row group, in as many streams as there are threads. Every other stream begins at the other end: rows of a time
    /// are hardly ever in two, so that their groups need not be merged.
    async fn groups<R: Table>(
        &self,
        files: &[&FlowFile],
        condition: &Condition<R>,
        schema: &SchemaRef,
        read: Read<R>,
    ) -> Result<Vec<Found>, TableError> {
        let columns = || schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
        note(condition, files, || format!("all rows, columns {}", columns()));
        let wanted = Arc::new(Wanted::new(condition));
        let mut queue = VecDeque::new();
        let open = self.opened(&self.streams, files, condition.observed.as_ref()).await?;
        for (open, file) in open.iter().zip(files) {
            queue.extend(Target::of(open, files::latest_start(file)));
        }
        let queue = Arc::new(Mutex::new(queue));
        let begin = |number: usize| {
            let (sender, receiver) = tokio::sync::mpsc::channel(AHEAD);
            let (queue, wanted, columns) = (queue.clone(), wanted.clone(), schema.clone());
            self.streams.spawn(move || {
                loop {
                    // The lock is not held while the group is read.
                    let mut rest = queue.lock().unwrap_or_else(PoisonError::into_inner);
                    let target = if number.is_multiple_of(2) { rest.pop_back() } else { rest.pop_front() };
                    drop(rest);
                    let Some(target) = target else { return };
                    if !send(read(&target, &wanted, &columns), &sender) {
                        return;
                    }
                }
            });
            receiver
        };
        Ok((0..self.streams.threads()).map(begin).collect())
    }
}

/// Sends what is read of a row group; whether more is wanted.
fn send(found: Result<Option<Pieces>, TableError>, sender: &Sender<Result<Among, TableError>>) -> bool {
    let pieces = match found {
        Ok(None) => return !sender.is_closed(),
        Ok(Some(pieces)) => pieces,
        Err(error) => {
            // Whoever went does not want to know.
            let _ = sender.blocking_send(Err(error));
            return false;
        }
    };
    for piece in pieces {
        let failed = piece.is_err();
        if sender.blocking_send(piece).is_err() || failed {
            return false;
        }
    }
    true
}

/// Which rows of each row group of a file pass; `None`: none does.
pub(super) fn passing<R: Table>(
    file: &OpenFile,
    condition: &Condition<R>,
) -> Result<Vec<Option<BooleanBuffer>>, TableError> {
    let wanted = Wanted::new(condition);
    Target::of(file, i64::MAX).map(|target| target.passing(&wanted)).collect()
}

/// Tells whoever wants to know how files are gone through.
fn note<R: Table>(condition: &Condition<R>, files: &[&FlowFile], what: impl FnOnce() -> String) {
    if let Some(observed) = &condition.observed {
        observed.note(|| format!("scan of {} parquet files, row group by row group: {}", files.len(), what()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use wiretag_capture::FlowRecord;

    use super::super::Range;
    use super::*;
    use crate::catalog::{Origin, TableName};
    use crate::query::ast::Node;

    /// However many want all rows, and however long they take.
    #[tokio::test]
    async fn a_page_does_not_wait_for_streams() {
        let dir = tempfile::tempdir().expect("a directory");
        let scanner = Scanner::new(dir.path(), 2).expect("threads");
        let (working, ended) = sync_channel::<()>(0);
        let ended = Arc::new(Mutex::new(ended));
        for _ in 0..100 {
            let ended = ended.clone();
            scanner.streams.spawn(move || drop(ended.lock().map(|ended| ended.recv())));
        }
        let path = "flows/gone.parquet".to_owned();
        let (table, origin) = (TableName::Flows, Origin::default());
        let file = FlowFile { table, path, rows: 1, bytes: 1, start: 0, end: 0, origin };
        let condition = Condition::<FlowRecord>::new(Node::All, Range::ALL, true);
        let files = [&file];
        let page = scanner.newest(&files, &condition, 1, &[]);
        let page = tokio::time::timeout(Duration::from_secs(20), page).await;
        assert!(page.expect("it has a thread").is_err(), "there is no such file");
        drop(working);
    }
}
