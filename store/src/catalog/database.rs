//! What the catalog asks of a database, whichever it is.
//!
//! Statements are written once, in the SQL that SQLite and PostgreSQL have in common: parameters are `$1`, sums are cast to
//! `BIGINT`, and what exists is changed by `ON CONFLICT`. The few that differ are [`Own`]. Connections, transactions, migrations and
//! what is done when something fails are the matter of each module.

use sqlx::postgres::{PgRow, Postgres};
use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{Decode, Row as _, Type};

use super::postgres::{PostgresCatalog, PostgresChange};
use super::sqlite::{SqliteCatalog, SqliteChange};
use crate::error::StoreError;

/// A parameter.
pub(super) enum Value<'a> {
    Number(Option<i64>),
    Text(&'a str),
    Bytes(&'a [u8]),
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Number(Some(number))
    }
}

impl From<Option<i64>> for Value<'_> {
    fn from(number: Option<i64>) -> Self {
        Self::Number(number)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

/// A statement with its parameters.
pub(super) struct Statement<'a> {
    pub(super) text: &'static str,
    pub(super) values: Vec<Value<'a>>,
}

/// A statement, in the SQL of both databases.
pub(super) fn sql<'a>(text: &'static str) -> Statement<'a> {
    Statement { text, values: Vec::new() }
}

impl<'a> Statement<'a> {
    /// The next parameter.
    pub(super) fn bind(mut self, value: impl Into<Value<'a>>) -> Self {
        self.values.push(value.into());
        self
    }
}

/// Statements that each database has in its own words.
pub(super) struct Own {
    /// Many dossiers behind the one named `$1`, `$2` at most: `last`, the name of the last of them, and `page`, a line of each with
    /// its name and its facts in hexadecimal. A row of its own for each would take many times as long.
    pub(super) dossiers: &'static str,
    /// The number of the text `$1`, which is put there if it is new.
    pub(super) text_number: &'static str,
    /// The number `$1` counts as one that an import has had. There may be an import of it then, which goes.
    pub(super) number_imports_above: &'static str,
}

/// A row of an answer.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    /// A column by its name.
    pub(super) fn get<'r, T>(&'r self, column: &str) -> Result<T, sqlx::Error>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>,
    {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    /// A number that is never below zero.
    pub(super) fn count(&self, column: &str) -> Result<u64, sqlx::Error> {
        Ok(self.get::<i64>(column)?.cast_unsigned())
    }
}

/// The database of a catalog; clones share it.
#[derive(Debug, Clone)]
pub(super) enum Database {
    Sqlite(SqliteCatalog),
    Postgres(PostgresCatalog),
}

impl Database {
    /// The rows of an answer. Readers see what was committed, and wait for nobody.
    pub(super) async fn all(&self, statement: Statement<'_>) -> Result<Vec<Row>, StoreError> {
        let rows = match self {
            Self::Sqlite(own) => own.all(statement).await,
            Self::Postgres(own) => Box::pin(own.all(statement)).await,
        };
        rows.map_err(self.failed())
    }

    /// The first row of an answer, if there is one.
    pub(super) async fn first(&self, statement: Statement<'_>) -> Result<Option<Row>, StoreError> {
        Ok(self.all(statement).await?.into_iter().next())
    }

    /// Begins a change: writers of all processes take turns.
    pub(super) async fn begin(&self) -> Result<Change, StoreError> {
        let change = match self {
            Self::Sqlite(own) => own.begin().await.map(|change| change.map(Writing::Sqlite)),
            Self::Postgres(own) => {
                Box::pin(own.begin()).await.map(|change| change.map(|change| Writing::Postgres(Box::new(change))))
            }
        };
        let writing = change.map_err(self.failed())?.ok_or(StoreError::ReadOnly)?;
        Ok(Change { writing, database: self.clone() })
    }

    pub(super) fn is_read_only(&self) -> bool {
        match self {
            Self::Sqlite(own) => own.is_read_only(),
            Self::Postgres(own) => own.is_read_only(),
        }
    }

    /// Closes the connections.
    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(own) => own.close().await,
            Self::Postgres(own) => Box::pin(own.close()).await,
        }
    }

    /// What this database says in its own words.
    pub(super) fn own(&self) -> &'static Own {
        match self {
            Self::Sqlite(_) => &super::sqlite::OWN,
            Self::Postgres(_) => &super::postgres::OWN,
        }
    }

    /// An error with its place.
    pub(super) fn failed(&self) -> impl Fn(sqlx::Error) -> StoreError + use<> {
        let place = match self {
            Self::Sqlite(own) => own.place(),
            Self::Postgres(own) => own.place(),
        };
        move |source| StoreError::Catalog { path: place.clone(), source }
    }
}

/// A transaction that writes. It counts when it is committed; one that is dropped never was.
pub(crate) struct Change {
    writing: Writing,
    database: Database,
}

enum Writing {
    Sqlite(SqliteChange),
    Postgres(Box<PostgresChange>),
}

impl Change {
    /// Rows that a statement changed.
    pub(super) async fn execute(&mut self, statement: Statement<'_>) -> Result<u64, StoreError> {
        let changed = match &mut self.writing {
            Writing::Sqlite(own) => own.execute(statement).await,
            Writing::Postgres(own) => Box::pin(own.execute(statement)).await,
        };
        changed.map_err(self.database.failed())
    }

    /// The rows of an answer, as of this transaction.
    pub(super) async fn all(&mut self, statement: Statement<'_>) -> Result<Vec<Row>, StoreError> {
        let rows = match &mut self.writing {
            Writing::Sqlite(own) => own.all(statement).await,
            Writing::Postgres(own) => Box::pin(own.all(statement)).await,
        };
        rows.map_err(self.database.failed())
    }

    /// The number in the one row and column of an answer, if there is one.
    pub(super) async fn number(&mut self, statement: Statement<'_>, column: &str) -> Result<Option<i64>, StoreError> {
        let rows = self.all(statement).await?;
        rows.first().map(|row| row.get(column)).transpose().map_err(self.database.failed())
    }

    /// Makes the change count. After an error it does not, unless the error is [`StoreError::Unsettled`].
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        match self.writing {
            Writing::Sqlite(own) => own.commit().await.map_err(self.database.failed()),
            Writing::Postgres(own) => Box::pin(own.commit()).await,
        }
    }
}
