//! Questions to the store of a table: pages of rows.

use std::cmp::Reverse;
use std::sync::Arc;

use super::engine::Condition;
use super::rows::{Cursor, Place, Row};
use super::{Range, Table, TableStore, files};
use crate::catalog::FlowFile;
use crate::error::StoreError;
use crate::limits::{Budget, LimitReached};
use crate::query::Query;

/// Files read at once at most, where an answer is made of all of them.
pub(super) const FILES: std::ops::RangeInclusive<usize> = 4..=64;

/// Files that are known before anybody asks: what is known of as many fits into memory.
const WARM: usize = 4_000;

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
#[derive(Debug, Clone)]
pub struct Page {
    /// Rows, columns in the order of the vocabulary.
    pub rows: Vec<Row>,
    /// Cursor of the next page, if there is more. Rows that arrive meanwhile do not shift it.
    pub next: Option<String>,
    /// Memory that the rows take, bytes, about.
    pub memory: usize,
}

impl<R: Table> TableStore<R> {
    pub(super) async fn page(
        &self,
        query: &Query<R>,
        range: Range,
        options: SearchOptions,
        memory: usize,
    ) -> Result<Page, StoreError> {
        let began = options.after.as_deref().map(Cursor::parse).transpose()?;
        let condition = Condition::new(query.node.clone(), range, options.all_observations);
        self.fitting(began, &condition, options.limit, memory).await
    }

    /// Reads of the newest files what every search asks of them, so that the first one after a start need not. It takes the turns and the
    /// priority of a search.
    pub async fn warm(&self) -> Result<(), StoreError> {
        let mut files = self.readable(self.files(Range::ALL).await?);
        files.sort_by_key(|file| Reverse(files::latest_start(file)));
        for some in files.get(..files.len().min(WARM)).unwrap_or_default().chunks(*FILES.start()) {
            // What cannot be read is told to whoever asks for it.
            let _ = self.inner.engine.open_files(&some.iter().collect::<Vec<_>>()).await;
        }
        Ok(())
    }

    /// A page behind another: at most `limit` rows, and no more than there is memory for.
    pub(super) async fn fitting(
        &self,
        began: Option<Cursor>,
        condition: &Condition<R>,
        mut limit: usize,
        memory: usize,
    ) -> Result<Page, StoreError> {
        loop {
            let budget = Arc::new(Budget::new(memory));
            let condition = Condition { budget: budget.clone(), ..condition.clone() };
            match self.rows_behind(began, condition, limit.saturating_add(1)).await {
                // The others are of the next page.
                Err(StoreError::Limit(LimitReached::Memory { .. })) if limit > 1 => limit /= 2,
                Err(error) => return Err(error),
                Ok(mut rows) => {
                    let more = rows.len() > limit;
                    rows.truncate(limit);
                    let next = Cursor::behind(&rows, began).filter(|_| more).map(|cursor| cursor.to_string());
                    return Ok(Page { rows, next, memory: budget.used() });
                }
            }
        }
    }

    /// The first `limit` rows behind a page.
    async fn rows_behind(
        &self,
        began: Option<Cursor>,
        condition: Condition<R>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let condition = Condition { after: began.map(Cursor::bound), ..condition };
        let given = began.map_or(0, Cursor::given);
        let mut rows = self.rows(&condition, limit.saturating_add(given), &[]).await?;
        if let Some(began) = began {
            began.skip(&mut rows);
        }
        rows.truncate(limit);
        Ok(rows)
    }

    /// The first `limit` rows; `columns` (empty: all) is what rows from files are read with.
    pub(super) async fn rows(
        &self,
        condition: &Condition<R>,
        limit: usize,
        columns: &[&str],
    ) -> Result<Vec<Row>, StoreError> {
        let (snapshot, _) = self.answerable(condition.range, false).await?;
        let mut recent = snapshot.matching(condition).await;
        recent.sort_by_key(|row| Place::of(&row.record.key()));
        recent.truncate(limit);
        let mut page: Vec<Row> =
            recent.into_iter().map(|row| Row::of(row, &condition.budget)).collect::<Result<_, _>>()?;
        // What is in memory is often the page already; files can only bring what starts as late as its last row.
        let full = limit.checked_sub(1).and_then(|last| page.get(last)).map(|last| last.place.start.0);
        let condition = Condition { not_before: full.max(condition.not_before), ..condition.clone() };
        let may_count =
            |file: &&FlowFile| condition.touches(file) && full.is_none_or(|oldest| files::latest_start(file) >= oldest);
        let mut files: Vec<&FlowFile> = snapshot.files.iter().filter(may_count).collect();
        files.sort_by_key(|file| Reverse(files::latest_start(file)));
        if let Some(observed) = &condition.observed {
            observed.looked_at(snapshot.memory().count(), snapshot.files.len(), files.len());
        }
        page.extend(self.read_rows(&files, &condition, limit, columns).await?);
        page.sort_by_key(|row| row.place);
        page.truncate(limit);
        Ok(page)
    }

    async fn read_rows(
        &self,
        files: &[&FlowFile],
        condition: &Condition<R>,
        limit: usize,
        columns: &[&str],
    ) -> Result<Vec<Row>, StoreError> {
        let mut rest = files.to_vec();
        loop {
            match self.inner.engine.rows(&rest, condition, limit, columns).await {
                Err(error) => rest = self.without_unreadable(&rest, error).await?,
                Ok(rows) => return Ok(rows),
            }
        }
    }
}
