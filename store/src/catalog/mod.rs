//! The catalog: which flow files and packet segments count, who was who when, and what was lost.
//!
//! In SQLite (a file in the data directory), or in PostgreSQL: [`place`] tells which, [`database`] is what both can do, and all that
//! is asked and changed is written once, over it.
//!
//! Invariants:
//! * a flow file or segment that has a row exists, unless it was taken from outside, and then it is missed: rows are removed first, files
//!   later ([`Catalog::due_removals`]);
//! * changes are transactions, one after the other, also of several processes; reads never wait for them. What `prepare_…` gives counts when
//!   it is committed: whoever holds up others meanwhile waits neither for its turn nor for statements;
//! * a dossier (all that was told of one name) is replaced by one that tells more, with the texts that it refers to in the
//!   same transaction;
//! * the schema only grows by the migrations in `store/migrations`; a newer schema is refused, not guessed at.

mod carry;
mod database;
mod dossier;
mod erasures;
mod exchange;
mod identities;
mod imports;
pub(crate) mod place;
mod postgres;
mod retired;
mod rollups;
mod rows;
mod sqlite;
mod transfer;

use std::path::Path;
use std::sync::{Arc, Mutex};

use sqlx::migrate::Migrator;

pub(crate) use erasures::Unchecked;
pub use erasures::{ErasedCounts, ErasedFile, Erasure, ErasureRequest, ErasureState};
pub(crate) use erasures::{Exchange, Taken};
pub use imports::{Import, ImportState, Origin, Stored};
pub use postgres::PostgresConfig;
pub use retired::RetiredItems;
pub(crate) use retired::Why;
pub use rollups::RollupFile;
pub use rows::{FlowFile, Loss, TableName, Totals};
pub use transfer::Moved;

use crate::error::StoreError;
pub(crate) use database::Change;
use database::{Database, sql};
use sqlite::SqliteCatalog;

/// Name in the data directory, in SQLite.
pub const FILE: &str = "catalog.sqlite";

/// Handle to the catalog; clones share it.
#[derive(Debug, Clone)]
pub struct Catalog {
    database: Database,
    texts: Arc<Mutex<identities::TextNumbers>>,
}

impl Catalog {
    /// Opens the catalog file for writing, makes it if there is none, and upgrades its schema.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let catalog = Self::over(Database::Sqlite(SqliteCatalog::open(path).await?));
        catalog.carry_over().await?;
        Ok(catalog)
    }

    /// Opens an existing catalog file for reading, also while others write it.
    pub async fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        Ok(Self::over(Database::Sqlite(SqliteCatalog::open_read_only(path).await?)))
    }

    fn over(database: Database) -> Self {
        Self { database, texts: Arc::default() }
    }

    /// True if it can only be read.
    pub fn is_read_only(&self) -> bool {
        self.database.is_read_only()
    }

    /// Closes the connections.
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Notes a fact about the store once, as the node's name or the time of creation; later values are ignored.
    pub async fn set_meta(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let mut change = self.begin().await?;
        let put = sql("INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING");
        change.execute(put.bind(name).bind(value)).await?;
        change.commit().await
    }

    /// Until when all that was learned of identities is in stored rows, ns; `None`: nobody has looked yet.
    pub async fn retagged(&self) -> Result<Option<i64>, StoreError> {
        Ok(self.meta("retagged").await?.and_then(|time| time.parse().ok()))
    }

    /// Notes the time of [`Catalog::retagged`].
    pub async fn set_retagged(&self, time: i64) -> Result<(), StoreError> {
        let mut change = self.begin().await?;
        let put = sql("INSERT INTO meta (name, value) VALUES ('retagged', $1) \
             ON CONFLICT (name) DO UPDATE SET value = excluded.value");
        let text = time.to_string();
        change.execute(put.bind(&text)).await?;
        change.commit().await
    }

    /// A fact noted by [`Catalog::set_meta`].
    pub async fn meta(&self, name: &str) -> Result<Option<String>, StoreError> {
        let row = self.database.first(sql("SELECT value FROM meta WHERE name = $1").bind(name)).await?;
        row.map(|row| row.get("value")).transpose().map_err(self.failed())
    }

    async fn begin(&self) -> Result<Change, StoreError> {
        self.database.begin().await
    }

    fn failed(&self) -> impl Fn(sqlx::Error) -> StoreError + use<> {
        self.database.failed()
    }
}

/// The newest schema that this program knows.
fn newest(migrations: &Migrator) -> i64 {
    migrations.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// A reader upgrades nothing.
fn schema_fits(path: &Path, found: i64, known: i64) -> Result<(), StoreError> {
    let path = path.to_path_buf();
    match found.cmp(&known) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(StoreError::NewerSchema { path, found, known }),
        std::cmp::Ordering::Less => Err(StoreError::OlderSchema { path, found, known }),
    }
}
