//! The catalog: which flow files and packet segments count, who was who when, and what was lost.
//!
//! SQLite in WAL mode, `catalog.sqlite` in the data directory. Writes go through one connection in immediate transactions
//! (another process may write too, an import beside the appliance: it waits up to [`BUSY`]); reads have their own
//! connections and never wait for writes.
//!
//! Invariants:
//! * a flow file or segment that has a row exists: rows are removed first, files later ([`Catalog::due_removals`]);
//! * a dossier (all that was told of one name) is replaced by one that tells more, with the texts that it refers to in the
//!   same transaction;
//! * the schema only grows by the migrations in `store/migrations`; a newer schema is refused, not guessed at.

mod carry;
mod dossier;
mod identities;
mod imports;
mod rows;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, Transaction};

pub use imports::{Import, ImportState, Origin, Stored};
pub use rows::{FlowFile, Loss, TableName, Totals};

use crate::error::StoreError;

/// How long a write waits for another process.
const BUSY: Duration = Duration::from_secs(15);
/// Name in the data directory.
pub const FILE: &str = "catalog.sqlite";

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Handle to the catalog; clones share it.
#[derive(Debug, Clone)]
pub struct Catalog {
    path: PathBuf,
    reads: SqlitePool,
    /// `None` for a catalog that is open for reading only.
    writes: Option<SqlitePool>,
    texts: Arc<Mutex<identities::TextNumbers>>,
}

impl Catalog {
    /// Opens the catalog file for writing, makes it if there is none, and upgrades its schema.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        // SQLite would make it readable for all; its WAL takes the mode of the file.
        let made = crate::private::options().read(true).write(true).create(true).truncate(false).open(path);
        drop(made.map_err(StoreError::io("open", path))?);
        let options = options(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true);
        let writes = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.map_err(failed(path))?;
        if let Err(error) = MIGRATIONS.run(&writes).await {
            return Err(migration_failed(path, &writes, error).await);
        }
        let reads = read_pool(path).await?;
        let catalog = Self { path: path.to_path_buf(), reads, writes: Some(writes), texts: Arc::default() };
        catalog.carry_over().await?;
        Ok(catalog)
    }

    /// Opens an existing catalog for reading, also while others write it.
    pub async fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::NoData { path: path.parent().unwrap_or(path).to_path_buf() });
        }
        let (reads, found) = match with_schema(path, read_pool(path).await).await {
            Err(error) if cannot_open(&error) => with_schema(path, immutable_pool(path).await).await?,
            opened => opened?,
        };
        let known = newest();
        match found.cmp(&known) {
            std::cmp::Ordering::Equal => {
                Ok(Self { path: path.to_path_buf(), reads, writes: None, texts: Arc::default() })
            }
            std::cmp::Ordering::Greater => Err(StoreError::NewerSchema { path: path.to_path_buf(), found, known }),
            std::cmp::Ordering::Less => Err(StoreError::OlderSchema { path: path.to_path_buf(), found, known }),
        }
    }

    /// True if it can only be read.
    pub fn is_read_only(&self) -> bool {
        self.writes.is_none()
    }

    /// Closes the connections; the last writer also folds the WAL into the file.
    pub async fn close(&self) {
        self.reads.close().await;
        if let Some(writes) = &self.writes {
            writes.close().await;
        }
    }

    /// Notes a fact about the store once, as the node's name or the time of creation; later values are ignored.
    pub async fn set_meta(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query("INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING")
            .bind(name)
            .bind(value)
            .execute(&mut *transaction)
            .await
            .map_err(self.failed())?;
        self.commit(transaction).await
    }

    /// A fact noted by [`Catalog::set_meta`].
    pub async fn meta(&self, name: &str) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar("SELECT value FROM meta WHERE name = ?")
            .bind(name)
            .fetch_optional(&self.reads)
            .await
            .map_err(self.failed())
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        let writes = self.writes.as_ref().ok_or(StoreError::ReadOnly)?;
        let begun = match writes.begin_with("BEGIN IMMEDIATE").await {
            // SQLite ends a transaction by itself when the disk is full, and the connection still counts it as open: it
            // would refuse every other one. A new connection begins anew.
            Err(sqlx::Error::InvalidSavePointStatement) => {
                let spoiled = writes.acquire().await.map_err(self.failed())?;
                drop(spoiled.detach());
                writes.begin_with("BEGIN IMMEDIATE").await
            }
            begun => begun,
        };
        begun.map_err(self.failed())
    }

    async fn commit(&self, transaction: Transaction<'static, Sqlite>) -> Result<(), StoreError> {
        transaction.commit().await.map_err(self.failed())
    }

    fn failed(&self) -> impl Fn(sqlx::Error) -> StoreError + '_ {
        |source| StoreError::Catalog { path: self.path.clone(), source }
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).busy_timeout(BUSY)
}

async fn read_pool(path: &Path) -> Result<SqlitePool, StoreError> {
    SqlitePoolOptions::new().max_connections(4).connect_with(options(path).read_only(true)).await.map_err(failed(path))
}

async fn with_schema(path: &Path, pool: Result<SqlitePool, StoreError>) -> Result<(SqlitePool, i64), StoreError> {
    let pool = pool?;
    let found = schema(&pool).await.map_err(failed(path))?;
    Ok((pool, found))
}

/// SQLite's code 14: here, that it may not make the files beside the catalog that a reader needs.
fn cannot_open(error: &StoreError) -> bool {
    let StoreError::Catalog { source: sqlx::Error::Database(error), .. } = error else { return false };
    error.code().and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| code & 0xff == 14)
}

/// For a medium that cannot be written: the file as it is. Right only if nothing waits in the WAL.
async fn immutable_pool(path: &Path) -> Result<SqlitePool, StoreError> {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    if std::fs::metadata(&wal).is_ok_and(|wal| wal.len() > 0) {
        return Err(StoreError::NotClosed { path: path.to_path_buf() });
    }
    let options = options(path).read_only(true).immutable(true);
    SqlitePoolOptions::new().max_connections(4).connect_with(options).await.map_err(failed(path))
}

fn failed(path: &Path) -> impl Fn(sqlx::Error) -> StoreError + '_ {
    move |source| StoreError::Catalog { path: path.to_path_buf(), source }
}

/// The newest schema that this program knows.
fn newest() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

async fn schema(pool: &SqlitePool) -> Result<i64, sqlx::Error> {
    let version: Option<i64> =
        sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success").fetch_one(pool).await?;
    Ok(version.unwrap_or(0))
}

async fn migration_failed(path: &Path, pool: &SqlitePool, error: MigrateError) -> StoreError {
    let path = path.to_path_buf();
    match error {
        MigrateError::VersionMissing(version) => {
            let found = schema(pool).await.unwrap_or(version);
            StoreError::NewerSchema { path, found, known: newest() }
        }
        MigrateError::Execute(source) => StoreError::Catalog { path, source },
        source => StoreError::Migration { path, source },
    }
}
