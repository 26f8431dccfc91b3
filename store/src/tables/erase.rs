//! Erasure of the rows of a table: memory first, then file by file.
//!
//! * The erasure is noted before this begins, so that rows on their way are held against it ([`super::standing`]): what comes
//!   to a file later has nothing of it.
//! * A file without a row that passes stays as it is. Another is written anew without these rows, and takes the place of the old
//!   one in one transaction; the old one is deleted later, as retention does, so that searches that began before end as they
//!   began.
//! * A merge or retention may take a file first: what it became is looked at in the next round, until a round finds nothing
//!   new.
//! * It can be done again: what is erased already is not there.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::Ordering;

use super::engine::Condition;
use super::error::TableError;
use super::rewrite::{self, Goes};
use super::scan::{self, OpenFile};
use super::standing::Standing;
use super::{Range, Table, TableStore, standing};
use crate::catalog::{Erasure, Exchange, FlowFile, Taken};
use crate::error::StoreError;
use crate::query::Query;

/// What an erasure would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Erasable {
    /// Rows, in memory and in files.
    pub rows: u64,
    /// Files that have some of them, with their number.
    pub files: Vec<(String, u64)>,
    /// Files that cannot be read.
    pub unread: Vec<String>,
}

/// A file of which it is known which rows go.
type Looked = (OpenFile, Vec<Goes>);

impl<R: Table> TableStore<R> {
    /// What an erasure of the rows that pass would remove now.
    pub async fn erasable(&self, query: &Query<R>, range: Range) -> Result<Erasable, StoreError> {
        let condition = Condition::new(query.node.clone(), range, true);
        let snapshot = self.snapshot(range).await?;
        let in_memory = snapshot.matching(&condition).await.len() as u64;
        let mut found = Erasable { rows: in_memory, ..Erasable::default() };
        for file in snapshot.files.iter().filter(|file| condition.touches(file)) {
            match self.look(file, &condition).await {
                Ok((_, goes)) => {
                    let rows = rewrite::count(&goes);
                    found.rows += rows;
                    if rows > 0 {
                        found.files.push((file.path.clone(), rows));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a file cannot be read: what it has is not counted");
                    found.unread.push(file.path.clone());
                }
            }
        }
        Ok(found)
    }

    /// Removes the rows that an erasure is about. Gives the files that could not be read: they have what they had.
    pub async fn erase(
        &self,
        erasure: &Erasure,
        clock: &(dyn Fn() -> i64 + Sync),
    ) -> Result<BTreeSet<String>, StoreError> {
        let condition = standing::condition::<R>(erasure)?;
        let standing = self.standing().await?;
        {
            let mut recent = self.inner.exchanging().await;
            recent.open.forget(|row| standing.takes(row).is_some());
            self.inner.counts.open.store(recent.open.len() as u64, Ordering::Relaxed);
        }
        // Whoever gives up does not leave rows both in memory and in a file.
        let store = self.clone();
        tokio::spawn(async move { store.flush().await }).await.map_err(TableError::from)??;
        let (mut looked_at, mut unread) = (HashSet::new(), BTreeSet::new());
        loop {
            let files = self.inner.catalog.flow_files(R::NAME, condition.range.from, condition.range.to).await?;
            let fresh = |file: &FlowFile| !looked_at.contains(&file.path) && !file.origin.is_after(erasure.at);
            let fresh: Vec<FlowFile> = files.into_iter().filter(fresh).collect();
            if fresh.is_empty() {
                return Ok(unread);
            }
            for file in fresh {
                looked_at.insert(file.path.clone());
                match self.look(&file, &condition).await {
                    Ok((_, goes)) if rewrite::count(&goes) == 0 => {}
                    Ok(looked) => self.exchange(&file, looked, (erasure, clock())).await?,
                    Err(error) if self.is_kept(&file).await? => {
                        tracing::error!(%error, erasure = erasure.id, "a file cannot be read: nothing of it is erased");
                        unread.insert(file.path);
                    }
                    // A merge or retention took it.
                    Err(_) => {}
                }
            }
        }
    }

    /// Holds a file that the catalog does not know yet against what was erased. Gives what is left of it, and how many rows each
    /// erasure took.
    pub(super) async fn held_against(
        &self,
        file: FlowFile,
        standing: &Standing<R>,
    ) -> Result<(Option<FlowFile>, HashMap<i64, Taken>), StoreError> {
        let (mut left, mut taken) = (Some(file), HashMap::new());
        for (id, condition) in standing.conditions() {
            let Some(file) = left.take_if(|file| condition.touches(file)) else { continue };
            let (open, goes) = self.look(&file, condition).await?;
            let rows = rewrite::count(&goes);
            if rows == 0 {
                left = Some(file);
                continue;
            }
            let (dir, old, until) = (self.inner.engine.data_dir().to_owned(), file.clone(), condition.range.to);
            let work = move || {
                let slices = rewrite::slices::<R>(&open, &goes, until)?;
                Ok::<_, TableError>((rewrite::without::<R>(&dir, (&old, &open), &goes)?, slices))
            };
            let (rest, slices) = tokio::task::spawn_blocking(work).await.map_err(TableError::from)??;
            left = rest;
            taken.insert(id, Taken { rows, slices });
            let path = self.inner.engine.data_dir().join(&file.path);
            std::fs::remove_file(&path).map_err(TableError::io("delete", &path))?;
        }
        Ok((left, taken))
    }

    pub(super) async fn is_kept(&self, file: &FlowFile) -> Result<bool, StoreError> {
        let files = self.inner.catalog.flow_files(R::NAME, file.start, file.end.saturating_add(1)).await?;
        Ok(files.iter().any(|kept| kept.path == file.path))
    }

    /// Which rows of a file pass.
    async fn look(&self, file: &FlowFile, condition: &Condition<R>) -> Result<Looked, TableError> {
        let open = self.inner.engine.open_files(&[file]).await?;
        let Some(open) = open.into_iter().next() else { return Err(TableError::Range("a file was not opened")) };
        let condition = condition.clone();
        let look = move || scan::passing(&open, &condition).map(|goes| (open, goes));
        tokio::task::spawn_blocking(look).await?
    }

    /// Puts what is left of a file in its place.
    async fn exchange(
        &self,
        old: &FlowFile,
        (open, goes): Looked,
        (erasure, now): (&Erasure, i64),
    ) -> Result<(), StoreError> {
        let inner = &self.inner;
        // Neither a merge nor a roll-up reads the file meanwhile.
        let _no_merge = inner.merging.lock().await;
        let mut no_rollup = inner.rolling.lock().await;
        no_rollup.forget_begun();
        if !self.is_kept(old).await? {
            return Ok(());
        }
        let (dir, file, until) = (inner.engine.data_dir().to_owned(), old.clone(), erasure.request.to);
        let work = move || {
            let slices = rewrite::slices::<R>(&open, &goes, until)?;
            Ok::<_, TableError>((rewrite::without::<R>(&dir, (&file, &open), &goes)?, slices))
        };
        let (new, slices) = tokio::task::spawn_blocking(work).await.map_err(TableError::from)??;
        let removed = old.rows.saturating_sub(new.as_ref().map_or(0, |new| new.rows));
        let exchange = Exchange { erasure: erasure.id, old, new: new.as_ref(), slices: &slices, now };
        let change = inner.catalog.prepare_erased(exchange).await;
        match inner.exchange(change, new.as_ref().map(|new| new.path.as_str())).await {
            Ok(()) => {
                inner.counts.removed.fetch_add(removed, Ordering::Relaxed);
                Ok(())
            }
            // Retention was faster.
            Err(StoreError::Gone { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
