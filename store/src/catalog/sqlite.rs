//! The catalog in SQLite: `catalog.sqlite` in the data directory, in WAL mode.
//!
//! Writes go through one connection in immediate transactions (another process may write too, an import beside the appliance: it
//! waits up to [`BUSY`]); reads have their own connections and never wait for writes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::stream::BoxStream;
use sqlx::Transaction;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::query::Query;
use sqlx::sqlite::{
    Sqlite, SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};

use super::database::{Own, Row, Statement, Value};
use super::{newest, schema_fits};
use crate::error::StoreError;

/// How long a write waits for another process.
const BUSY: Duration = Duration::from_secs(15);
/// How often a change is begun again whose connection is of no use.
const AGAIN: usize = 4;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

pub(super) static OWN: Own = Own {
    dossiers: "SELECT max(id) AS last, group_concat(hex(id) || ' ' || hex(facts), char(10)) AS page \
               FROM (SELECT id, facts FROM dossiers WHERE id > $1 ORDER BY id LIMIT $2)",
    text_number: "INSERT INTO texts (text) VALUES ($1) ON CONFLICT (text) DO UPDATE SET text = excluded.text RETURNING id",
    number_imports_above: "INSERT INTO imports (id, sha256, name, bytes, started_at, state) VALUES ($1, '', '', 0, 0, 'done')",
};

/// See the module documentation.
#[derive(Debug, Clone)]
pub(super) struct SqliteCatalog {
    path: PathBuf,
    reads: SqlitePool,
    /// `None` for a catalog that is open for reading only.
    writes: Option<SqlitePool>,
}

/// A transaction.
pub(super) struct SqliteChange(Transaction<'static, Sqlite>);

impl SqliteCatalog {
    /// Opens the file for writing, makes it if there is none, and upgrades its schema.
    pub(super) async fn open(path: &Path) -> Result<Self, StoreError> {
        // SQLite would make it readable for all; its WAL takes the mode of the file.
        let made = crate::private::options().read(true).write(true).create(true).truncate(false).open(path);
        drop(made.map_err(StoreError::io("open", path))?);
        let options = options(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true);
        let writes = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.map_err(failed(path))?;
        if let Err(error) = MIGRATIONS.run(&writes).await {
            return Err(migration_failed(path, &writes, error).await);
        }
        let reads = read_pool(path).await?;
        Ok(Self { path: path.to_path_buf(), reads, writes: Some(writes) })
    }

    /// Opens an existing file for reading, also while others write it.
    pub(super) async fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::NoData { path: path.parent().unwrap_or(path).to_path_buf() });
        }
        let (reads, found) = match with_schema(path, read_pool(path).await).await {
            Err(error) if cannot_open(&error) => with_schema(path, immutable_pool(path).await).await?,
            opened => opened?,
        };
        schema_fits(path, found, newest(&MIGRATIONS))?;
        Ok(Self { path: path.to_path_buf(), reads, writes: None })
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.writes.is_none()
    }

    pub(super) fn place(&self) -> PathBuf {
        self.path.clone()
    }

    /// The last writer also folds the WAL into the file.
    pub(super) async fn close(&self) {
        self.reads.close().await;
        if let Some(writes) = &self.writes {
            writes.close().await;
        }
    }

    pub(super) async fn all(&self, statement: Statement<'_>) -> Result<Vec<Row>, sqlx::Error> {
        let rows = bound(statement).fetch_all(&self.reads).await?;
        Ok(rows.into_iter().map(Row::Sqlite).collect())
    }

    /// The rows of an answer, one after the other.
    pub(super) fn rows(&self, text: &'static str) -> BoxStream<'_, Result<SqliteRow, sqlx::Error>> {
        sqlx::query(text).fetch(&self.reads)
    }

    /// `None`: open for reading only.
    pub(super) async fn begin(&self) -> Result<Option<SqliteChange>, sqlx::Error> {
        let Some(writes) = &self.writes else { return Ok(None) };
        let mut begun = writes.begin_with("BEGIN IMMEDIATE").await;
        for _ in 0..AGAIN {
            let Err(sqlx::Error::InvalidSavePointStatement) = begun else { break };
            // SQLite ends a transaction by itself when the disk is full, and the connection still counts it as open: it
            // would refuse every other one. A new connection begins anew; it may be somebody else's who has the same luck first.
            drop(writes.acquire().await?.detach());
            begun = writes.begin_with("BEGIN IMMEDIATE").await;
        }
        Ok(Some(SqliteChange(begun?)))
    }
}

impl SqliteChange {
    pub(super) async fn execute(&mut self, statement: Statement<'_>) -> Result<u64, sqlx::Error> {
        Ok(bound(statement).execute(&mut *self.0).await?.rows_affected())
    }

    pub(super) async fn all(&mut self, statement: Statement<'_>) -> Result<Vec<Row>, sqlx::Error> {
        let rows = bound(statement).fetch_all(&mut *self.0).await?;
        Ok(rows.into_iter().map(Row::Sqlite).collect())
    }

    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        self.0.commit().await
    }
}

fn bound(statement: Statement<'_>) -> Query<'_, Sqlite, SqliteArguments> {
    statement.values.into_iter().fold(sqlx::query(statement.text), |query, value| match value {
        Value::Number(number) => query.bind(number),
        Value::Text(text) => query.bind(text),
        Value::Bytes(bytes) => query.bind(bytes),
    })
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
            StoreError::NewerSchema { path, found, known: newest(&MIGRATIONS) }
        }
        MigrateError::Execute(source) => StoreError::Catalog { path, source },
        source => StoreError::Migration { path, source },
    }
}

#[cfg(test)]
pub(super) fn newest_schema() -> i64 {
    newest(&MIGRATIONS)
}
