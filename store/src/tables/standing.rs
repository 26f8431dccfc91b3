//! Erasures that rows are held against before they come to a file: those that are in memory, or still on their way, when
//! something is erased. Those that come afterwards are in no answer, and nobody else is told of them ([`TableStore::kept`]).
//!
//! A row that began before an erasure was asked for, and is of what was erased, never comes to a file, however late it comes.
//! Whoever imports a file holds its rows against what is asked for after its start only: who imports something that was
//! erased wants it back.

use std::borrow::Cow;
use std::sync::{Arc, PoisonError};

use wiretag_enrich::Tagged;

use super::engine::Condition;
use super::error::TableError;
use super::{Range, Table, TableStore};
use crate::catalog::Erasure;
use crate::error::StoreError;
use crate::query;

/// See the module documentation.
pub(super) struct Standing<R: 'static> {
    /// Number of the newest erasure that is known.
    pub(super) known: i64,
    /// When that was asked for.
    newest: i64,
    erasures: Vec<(i64, i64, Condition<R>)>,
}

impl<R: 'static> Standing<R> {
    /// Nothing was erased, as far as is known.
    pub(super) fn new() -> Self {
        Self { known: 0, newest: i64::MIN, erasures: Vec::new() }
    }
}

impl<R: Table> Standing<R> {
    /// The erasure that this row is of.
    pub(super) fn takes(&self, row: &Tagged<R>) -> Option<i64> {
        let start = row.record.key().start;
        if start >= self.newest {
            return None;
        }
        let one = self.erasures.iter().find(|(_, at, condition)| start < *at && condition.matches(row));
        one.map(|(id, ..)| *id)
    }

    /// What each erasure is about, with its number.
    pub(super) fn conditions(&self) -> impl Iterator<Item = (i64, &Condition<R>)> {
        self.erasures.iter().map(|(id, _, condition)| (*id, condition))
    }

    /// What each erasure is about that was asked for after this time, with its number.
    pub(super) fn since(&self, time: Option<i64>) -> impl Iterator<Item = (i64, Condition<R>)> {
        let own = self.erasures.iter().filter(move |(_, at, _)| time.is_none_or(|time| *at > time));
        own.map(|(id, _, condition)| (*id, condition.clone()))
    }

    fn with(&self, new: &[Erasure]) -> Self {
        let (mut known, mut newest, mut erasures) = (self.known, self.newest, self.erasures.clone());
        for erasure in new {
            known = known.max(erasure.id);
            if !erasure.request.is_about(R::NAME) {
                continue;
            }
            match condition(erasure) {
                Ok(condition) => {
                    newest = newest.max(erasure.at);
                    erasures.push((erasure.id, erasure.at, condition));
                }
                // Of another release; rows are not kept from their files because of it.
                Err(error) => {
                    tracing::error!(%error, erasure = erasure.id, "rows are not held against this erasure");
                }
            }
        }
        Self { known, newest, erasures }
    }
}

/// The rows that an erasure is about: every observation.
pub(super) fn condition<R: Table>(erasure: &Erasure) -> Result<Condition<R>, StoreError> {
    let query = query::parse::<R>(&erasure.request.filter).map_err(TableError::from)?;
    let range = Range { from: erasure.request.from, to: erasure.request.to };
    Ok(Condition::new(query.node, range, true))
}

impl<R: Table> TableStore<R> {
    /// What rows are held against, as it is known here.
    pub(super) fn known_standing(&self) -> Arc<Standing<R>> {
        self.inner.standing.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// These rows without those of what was erased: what others may be told of them.
    pub fn kept<'a>(&self, rows: &'a [Tagged<R>]) -> Cow<'a, [Tagged<R>]> {
        let standing = self.known_standing();
        let is_kept = |row: &&Tagged<R>| standing.takes(row).is_none();
        if rows.iter().all(|row| is_kept(&row)) {
            return Cow::Borrowed(rows);
        }
        rows.iter().filter(is_kept).cloned().collect()
    }

    /// The same, with what was asked for meanwhile.
    pub(super) async fn standing(&self) -> Result<Arc<Standing<R>>, StoreError> {
        let known = self.known_standing();
        if self.inner.catalog.last_erasure().await? <= known.known {
            return Ok(known);
        }
        let new = Arc::new(known.with(&self.inner.catalog.erasures_after(known.known).await?));
        *self.inner.standing.write().unwrap_or_else(PoisonError::into_inner) = new.clone();
        Ok(new)
    }

    /// Rows that come are held against what was asked for until now.
    pub(crate) async fn stand(&self) -> Result<(), StoreError> {
        self.standing().await.map(drop)
    }

    /// Rows of an import are held against what is asked for from now on only.
    pub(crate) async fn stand_from_now(&self) -> Result<(), StoreError> {
        let known = self.inner.catalog.last_erasure().await?;
        let new = Arc::new(Standing { known, ..Standing::new() });
        *self.inner.standing.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }
}
