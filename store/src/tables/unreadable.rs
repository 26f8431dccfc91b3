//! Files that cannot be read: their rows are not part of answers, and that is told.
//!
//! A search finds them, at the start those whose footer is broken are known. From then on they are left out before anything is read of them,
//! until another file has their name, from a backup say; now and then they are tried again, since disks fail for a moment, too. Whoever
//! asks for a time with some of their rows is told how many are missing.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::error::TableError;
use super::files::{self, Id};
use super::{Range, Rolled, Table, TableStore, rollup};
use crate::catalog::FlowFile;
use crate::error::StoreError;

/// After so long a file is tried again.
const AGAIN: Duration = Duration::from_mins(10);

/// Files that could not be read, by path.
pub(super) type Unreadable = Mutex<HashMap<String, Seen>>;

/// A file that could not be read.
pub(super) struct Seen {
    /// What it was; none: it was not there.
    id: Option<Id>,
    at: Instant,
}

/// Rows that are missing from answers, because their files cannot be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Missing {
    /// Files.
    pub files: u64,
    /// Their rows, whatever a query looks for.
    pub rows: u64,
}

impl Missing {
    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { files: self.files + other.files, rows: self.rows + other.rows }
    }
}

impl<R: Table> TableStore<R> {
    /// What is missing from answers about a range, as far as is known.
    pub async fn missing(&self, range: Range) -> Result<Missing, StoreError> {
        let mut missing = Missing::default();
        if self.unreadable(|unreadable| unreadable.is_empty()) {
            return Ok(missing);
        }
        let files = self.inner.catalog.flow_files(R::NAME, range.from, range.to).await?;
        for file in files.iter().filter(|file| self.is_unreadable(&file.path)) {
            missing.files += 1;
            missing.rows += file.rows;
        }
        Ok(missing)
    }

    /// The same of what only roll-ups have any more: those that cannot be read, and that neither rows nor other roll-ups replace. Their rows
    /// are counted, each of which adds up many.
    pub(crate) async fn missing_rolled(&self, range: Range) -> Result<Missing, StoreError> {
        let mut missing = Missing::default();
        if !self.unreadable(|unreadable| unreadable.keys().any(|path| path.starts_with(rollup::FOLDER))) {
            return Ok(missing);
        }
        let Rolled { rollups, of } = self.rolled(range).await?.0;
        let broken: HashSet<&str> =
            rollups.iter().map(|file| file.path.as_str()).filter(|path| self.is_unreadable(path)).collect();
        for file in rollup::unreplaced(&rollups, &of, &broken) {
            let own = file.range();
            if own.from < range.to && own.to > range.from {
                missing.files += 1;
                missing.rows += file.rows;
            }
        }
        Ok(missing)
    }

    /// Those of files that are not known to be unreadable.
    pub(super) fn readable(&self, mut files: Vec<FlowFile>) -> Vec<FlowFile> {
        if !self.unreadable(|unreadable| unreadable.is_empty()) {
            files.retain(|file| !self.is_unreadable(&file.path));
        }
        files
    }

    /// After `error`: the files that can be read, if that is fewer; otherwise the error has another cause, or the table changed. What the
    /// system was short of is no matter of a file.
    pub(crate) async fn without_unreadable<'a>(
        &self,
        files: &[&'a FlowFile],
        error: TableError,
    ) -> Result<Vec<&'a FlowFile>, StoreError> {
        if matches!(error, TableError::Limit(_)) || error.is_of_the_moment() {
            return Err(error.into());
        }
        let broken = error.unreadable().map(Path::to_owned);
        let is_broken = |file: &FlowFile| broken == Some(self.inner.engine.data_dir().join(&file.path));
        // The others are only looked at if none is named.
        let (named, mut rest): (Vec<&FlowFile>, Vec<&FlowFile>) = files.iter().partition(|file| is_broken(file));
        if named.is_empty() {
            rest = self.sound(files, &error).await?;
        }
        self.lose(&named, &error).await?;
        if rest.len() == files.len() { Err(error.into()) } else { Ok(rest) }
    }

    /// Those of files whose footer can be read; the others are left out from now on.
    pub(super) async fn sound<'a>(
        &self,
        files: &[&'a FlowFile],
        error: &(dyn Display + Sync),
    ) -> Result<Vec<&'a FlowFile>, StoreError> {
        let sound = self.inner.engine.able(files, files::readable).await?;
        let lost: Vec<&FlowFile> =
            files.iter().copied().filter(|file| !sound.iter().any(|sound| sound.path == file.path)).collect();
        self.lose(&lost, error).await?;
        Ok(sound)
    }

    /// Leaves out those of files of which not every page can be read. All of them are read, one after the other for as long as somebody waits.
    pub(super) async fn lose_broken(
        &self,
        files: &[&FlowFile],
        error: &(dyn Display + Sync),
    ) -> Result<(), StoreError> {
        for file in files {
            if self.inner.engine.able(&[*file], files::whole).await?.is_empty() {
                self.lose(&[*file], error).await?;
            }
        }
        Ok(())
    }

    /// Leaves out files that the table still has.
    async fn lose(&self, files: &[&FlowFile], error: &(dyn Display + Sync)) -> Result<(), StoreError> {
        for file in files {
            if !self.is_kept(file).await? {
                return Err(StoreError::Changed);
            }
            self.leave_out(file, error);
        }
        Ok(())
    }

    /// From now on a file is no part of answers.
    pub(super) fn leave_out(&self, file: &FlowFile, error: &dyn Display) {
        if self.remember(&file.path) {
            self.inner.counts.unreadable_files.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                file = file.path, rows = file.rows, %error,
                "a file cannot be read: its rows are not part of answers; hint: restore it from a backup"
            );
        }
    }

    /// A file cannot be read now; whether that is news.
    pub(super) fn remember(&self, path: &str) -> bool {
        let id = files::id(&self.inner.engine.data_dir().join(path));
        let seen = Seen { id, at: Instant::now() };
        let known = self.unreadable(|unreadable| unreadable.insert(path.to_owned(), seen));
        known.is_none_or(|known| known.id != id)
    }

    /// Whether it is known that the file cannot be read, of late, and it is still the same.
    pub(super) fn is_unreadable(&self, path: &str) -> bool {
        self.unreadable(|unreadable| {
            let Some(known) = unreadable.get(path) else { return false };
            let id = files::id(&self.inner.engine.data_dir().join(path));
            let holds = known.id == id && known.at.elapsed() < AGAIN;
            if !holds {
                unreadable.remove(path);
            }
            holds
        })
    }

    fn unreadable<T>(&self, work: impl FnOnce(&mut HashMap<String, Seen>) -> T) -> T {
        work(&mut self.inner.unreadable.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
