//! Questions to the store of a table: pages of rows.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::Ordering;

use futures_util::TryStreamExt;
use serde_json::{Map, Value as Json};
use wiretag_enrich::Tagged;

use super::engine::Condition;
use super::error::TableError;
use super::rows::{Place, Row, time_at};
use super::{Range, Table, TableStore, files};
use crate::catalog::FlowFile;
use crate::error::StoreError;
use crate::query::Query;

/// Files read at once, at first and at most: a page is often full after the newest few.
pub(super) const FILES: std::ops::RangeInclusive<usize> = 4..=64;

/// How much of an answer.
#[derive(Debug, Clone, Default)]
pub struct SearchOptions {
    /// Rows at most.
    pub limit: usize,
    /// Also rows that are not primary.
    pub all_observations: bool,
    /// [`Page::next`] of the page before.
    pub after: Option<String>,
}

/// A page of an answer, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Rows, columns in the order of the vocabulary.
    pub rows: Vec<Map<String, Json>>,
    /// Cursor of the next page, if there is more. Rows that arrive meanwhile do not shift it.
    pub next: Option<String>,
}

impl<R: Table> TableStore<R> {
    /// A page of rows that pass, newest start first, then by flow id and number.
    pub async fn search(&self, query: &Query<R>, range: Range, options: SearchOptions) -> Result<Page, StoreError> {
        let after = options.after.as_deref().map(Place::parse).transpose()?;
        let condition = Condition { after, ..Condition::new(query.node.clone(), range, options.all_observations) };
        let mut rows = self.rows(&condition, options.limit.saturating_add(1), &[]).await?;
        let more = rows.len() > options.limit;
        rows.truncate(options.limit);
        let next = rows.last().filter(|_| more).map(|row| row.place.cursor());
        Ok(Page { rows: rows.into_iter().map(|row| row.columns).collect(), next })
    }

    /// The first `limit` rows; `columns` (empty: all) is what rows from files are read with.
    pub(super) async fn rows(
        &self,
        condition: &Condition<R>,
        limit: usize,
        columns: &[&str],
    ) -> Result<Vec<Row>, StoreError> {
        let snapshot = self.snapshot(condition.range).await?;
        let mut recent: Vec<&Tagged<R>> = snapshot.memory().filter(|row| condition.matches(row)).collect();
        recent.sort_by_key(|row| Place::of(&row.record.key()));
        recent.truncate(limit);
        let mut page: Vec<Row> = recent.into_iter().map(Row::of).collect();
        let mut files: Vec<&FlowFile> = snapshot.files.iter().filter(|file| condition.touches(file)).collect();
        if let Some(observed) = &condition.observed {
            observed.looked_at(snapshot.memory().count(), snapshot.files.len(), files.len());
        }
        files.sort_by_key(|file| std::cmp::Reverse(files::latest_start(file)));
        let mut group = *FILES.start();
        let mut rest = files.as_slice();
        while let Some(newest) = rest.first() {
            let full = limit.checked_sub(1).and_then(|last| page.get(last));
            if limit == 0 || full.is_some_and(|last| last.place.start.0 > files::latest_start(newest)) {
                break;
            }
            let (now, later) = rest.split_at(group.min(rest.len()));
            if let Some(observed) = &condition.observed {
                observed.opened(now.len());
            }
            page.extend(self.read_rows(now, condition, limit, columns).await?);
            page.sort_by_key(|row| row.place);
            page.truncate(limit);
            rest = later;
            group = (group * 2).min(*FILES.end());
        }
        Ok(page)
    }

    async fn read_rows(
        &self,
        files: &[&FlowFile],
        condition: &Condition<R>,
        limit: usize,
        columns: &[&str],
    ) -> Result<Vec<Row>, TableError> {
        match self.first_rows(files, condition, limit, columns).await {
            Ok(rows) => Ok(rows),
            Err(error) => match self.without_unreadable(files, error).await?.as_slice() {
                [] => Ok(Vec::new()),
                rest => self.first_rows(rest, condition, limit, columns).await,
            },
        }
    }

    /// Whole rows are dear. Where there are many more than are wanted, a look at `start` alone finds out first how far back
    /// the page goes.
    async fn first_rows(
        &self,
        files: &[&FlowFile],
        condition: &Condition<R>,
        limit: usize,
        columns: &[&str],
    ) -> Result<Vec<Row>, TableError> {
        let engine = &self.inner.engine;
        let there: u64 = files.iter().map(|file| file.rows).sum();
        if there / 4 <= limit as u64 {
            return engine.rows(files, condition, limit, columns).await;
        }
        let mut newest = BinaryHeap::new();
        let mut stream = engine.stream(files, condition, &["start"]).await?;
        while let Some(batch) = stream.try_next().await? {
            let Some(starts) = batch.columns().first() else { continue };
            for start in (0..batch.num_rows()).filter_map(|row| time_at(starts, row)) {
                if newest.len() < limit {
                    newest.push(Reverse(start));
                } else if let Some(mut oldest) = newest.peek_mut()
                    && oldest.0 < start
                {
                    *oldest = Reverse(start);
                }
            }
        }
        let Some(Reverse(oldest)) = newest.peek().copied() else { return Ok(Vec::new()) };
        let condition = Condition { not_before: Some(oldest), ..condition.clone() };
        engine.rows(files, &condition, limit, columns).await
    }

    /// After `error`: the files that can be read, if that is fewer; otherwise the error has another cause.
    pub(super) async fn without_unreadable<'a>(
        &self,
        files: &[&'a FlowFile],
        error: TableError,
    ) -> Result<Vec<&'a FlowFile>, TableError> {
        let rest = self.inner.engine.readable(files).await?;
        let lost = files.len() - rest.len();
        if lost == 0 {
            return Err(error);
        }
        self.inner.counts.unreadable_files.fetch_add(lost as u64, Ordering::Relaxed);
        tracing::warn!(lost, %error, "files cannot be read: their rows are not part of the answer");
        Ok(rest)
    }
}
