//! The catalog in PostgreSQL, 13 or later: a schema of its own for each data directory.
//!
//! Invariants:
//! * changes of all processes take turns, as in SQLite: each begins with a lock of the table `meta`, which readers do not wait for;
//! * a change counts if and only if its commit was acknowledged. When the connection breaks in between, nobody knows; so each
//!   change writes its number into `writers`, and that is read when the server is back ([`settle`](PostgresCatalog::settle));
//! * whoever asks waits [`PATIENCE`] at most, not as long as TCP does, and a connection that failed or was left in a
//!   transaction is not used again.

mod connect;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPool, PgPoolOptions, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};
use tokio::sync::{Mutex, OwnedMutexGuard};

pub use connect::PostgresConfig;
pub(super) use connect::{check, create, remove};

use super::database::{Own, Row, Statement, Value};
use crate::error::StoreError;

/// How long a statement may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a connection may take; then the operation fails.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a writer waits for its turn.
const TURN: Duration = Duration::from_mins(1);
/// Waits between questions how a change ended whose connection broke, ms: half a minute together.
const SETTLE: [u64; 9] = [0, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 12_000];

const BEGIN: &str = "BEGIN; LOCK TABLE meta IN SHARE ROW EXCLUSIVE MODE";

pub(super) static OWN: Own = Own {
    dossiers: "SELECT max(id) AS last, string_agg(upper(encode(convert_to(id, 'UTF8'), 'hex')) || ' ' || \
               upper(encode(facts, 'hex')), chr(10)) AS page \
               FROM (SELECT id, facts FROM dossiers WHERE id > $1 ORDER BY id LIMIT $2) AS part",
    text_number: "WITH known AS (SELECT id FROM texts WHERE md5(text) = md5($1) AND text = $1), \
                  made AS (INSERT INTO texts (text) SELECT $1 WHERE NOT EXISTS (SELECT 1 FROM known) RETURNING id) \
                  SELECT id FROM known UNION ALL SELECT id FROM made",
    number_imports_above: "SELECT setval(pg_get_serial_sequence('imports', 'id'), \
                           greatest($1, nextval(pg_get_serial_sequence('imports', 'id'))))",
};

/// See the module documentation; clones share it.
#[derive(Clone)]
pub(super) struct PostgresCatalog(Arc<Inner>);

struct Inner {
    /// Server, database and schema, for people; without the password.
    place: PathBuf,
    options: PgConnectOptions,
    reads: PgPool,
    writer: Option<Writer>,
}

struct Writer {
    /// Of this process, in `writers`.
    id: String,
    /// Number of the last change.
    change: AtomicI64,
    connections: PgPool,
    turn: Arc<Mutex<()>>,
}

/// A transaction. Dropped, its connection is closed, and the server takes it back.
pub(super) struct PostgresChange {
    catalog: PostgresCatalog,
    connection: Option<PoolConnection<Postgres>>,
    _turn: OwnedMutexGuard<()>,
}

/// Values of a column, as an array.
pub(super) enum Column {
    Numbers(Vec<Option<i64>>),
    Texts(Vec<Option<String>>),
    Bytes(Vec<Vec<u8>>),
}

impl std::fmt::Debug for PostgresCatalog {
    // The options hold the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PostgresCatalog").field(&self.0.place).finish()
    }
}

impl PostgresCatalog {
    /// The catalog of a data directory, which `schema` names; it must exist. Upgrades it unless it is for reading only.
    pub(super) async fn open(config: &PostgresConfig, schema: &str, read_only: bool) -> Result<Self, StoreError> {
        let options = config.options()?;
        let place = PostgresConfig::place(&options, schema);
        let id = connect::prepare(&options, (schema, &place), read_only).await?;
        let connections = |most: u32| {
            let settings = connect::settings(schema, read_only);
            PgPoolOptions::new()
                .max_connections(most)
                .acquire_timeout(CONNECT)
                .after_connect(move |connection, _| {
                    let settings = settings.clone();
                    Box::pin(async move { connection.execute(AssertSqlSafe(settings)).await.map(drop) })
                })
                .connect_lazy_with(options.clone())
        };
        let (change, turn) = (AtomicI64::new(0), Arc::default());
        let writer = id.map(|id| Writer { id, change, connections: connections(1), turn });
        Ok(Self(Arc::new(Inner { place, reads: connections(4), writer, options })))
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.0.writer.is_none()
    }

    pub(super) fn place(&self) -> PathBuf {
        self.0.place.clone()
    }

    /// Says goodbye to the server, if it is there.
    pub(super) async fn close(&self) {
        let all = async {
            if let Some(writer) = &self.0.writer {
                // Best effort: the next start forgets those of long ago.
                let gone = sqlx::query("DELETE FROM writers WHERE id = $1").bind(&writer.id);
                let _ = gone.execute(&writer.connections).await;
                writer.connections.close().await;
            }
            self.0.reads.close().await;
        };
        let _ = tokio::time::timeout(CONNECT * 2, all).await;
    }

    pub(super) async fn all(&self, statement: Statement<'_>) -> Result<Vec<Row>, sqlx::Error> {
        let mut connection = self.connection(&self.0.reads).await?;
        let rows = patient(bound(statement).fetch_all(&mut *connection)).await;
        if rows.as_ref().is_err_and(is_broken) {
            drop(connection.detach());
        }
        Ok(rows?.into_iter().map(Row::Postgres).collect())
    }

    /// `None`: open for reading only.
    pub(super) async fn begin(&self) -> Result<Option<PostgresChange>, sqlx::Error> {
        let Some(writer) = &self.0.writer else { return Ok(None) };
        let turn = tokio::time::timeout(TURN, writer.turn.clone().lock_owned()).await.map_err(|_| late("its turn"))?;
        let connection = self.connection(&writer.connections).await?;
        let mut change = PostgresChange { catalog: self.clone(), connection: Some(connection), _turn: turn };
        patient(change.connection()?.execute(BEGIN)).await?;
        Ok(Some(change))
    }

    /// A connection that answers. The pool knows only that it took too long: whoever asks wants to know why.
    async fn connection(&self, pool: &PgPool) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        match pool.acquire().await {
            Err(sqlx::Error::PoolTimedOut) => match self.connect().await {
                Ok(connection) => {
                    let _ = connection.close().await;
                    Err(late("a free connection"))
                }
                Err(error) => Err(error),
            },
            acquired => acquired,
        }
    }

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        connect::connect(&self.0.options).await
    }

    /// How a change ended whose commit was not acknowledged: `Ok` if it counts, the error if it does not.
    async fn settle(&self, change: i64, error: sqlx::Error) -> Result<(), StoreError> {
        let failed = |source| StoreError::Catalog { path: self.place(), source };
        for wait in SETTLE {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            if let Ok(last) = self.last_change().await {
                return if last == Some(change) { Ok(()) } else { Err(failed(error)) };
            }
        }
        Err(StoreError::Unsettled { path: self.place(), source: error })
    }

    /// The last change of this process that counts. The lock is free when no transaction before has still to end.
    async fn last_change(&self) -> Result<Option<i64>, sqlx::Error> {
        let Some(writer) = &self.0.writer else { return Ok(None) };
        let mut connection = self.connection(&writer.connections).await?;
        let asked = async {
            connection.execute(BEGIN).await?;
            let last = sqlx::query("SELECT change FROM writers WHERE id = $1").bind(&writer.id);
            last.fetch_optional(&mut *connection).await?.map(|row| row.try_get(0)).transpose()
        };
        let last = patient(asked).await;
        drop(connection.detach());
        last
    }
}

impl PostgresChange {
    fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.connection.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }

    pub(super) async fn execute(&mut self, statement: Statement<'_>) -> Result<u64, sqlx::Error> {
        Ok(patient(bound(statement).execute(self.connection()?)).await?.rows_affected())
    }

    pub(super) async fn all(&mut self, statement: Statement<'_>) -> Result<Vec<Row>, sqlx::Error> {
        let rows = patient(bound(statement).fetch_all(self.connection()?)).await?;
        Ok(rows.into_iter().map(Row::Postgres).collect())
    }

    /// Many rows at once, each column a parameter.
    pub(super) async fn fill(&mut self, text: &'static str, columns: Vec<Column>) -> Result<u64, sqlx::Error> {
        let filled = columns.into_iter().fold(sqlx::query(text), |query, column| match column {
            Column::Numbers(numbers) => query.bind(numbers),
            Column::Texts(texts) => query.bind(texts.into_iter().map(|own| own.map(without_zeros)).collect::<Vec<_>>()),
            Column::Bytes(bytes) => query.bind(bytes),
        });
        Ok(patient(filled.execute(self.connection()?)).await?.rows_affected())
    }

    pub(super) fn place(&self) -> PathBuf {
        self.catalog.place()
    }

    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        let catalog = self.catalog.clone();
        let failed = |source| StoreError::Catalog { path: catalog.place(), source };
        let Some(writer) = &catalog.0.writer else { return Err(StoreError::ReadOnly) };
        let number = writer.change.fetch_add(1, Ordering::Relaxed) + 1;
        let noted = sqlx::query(
            "INSERT INTO writers (id, change) VALUES ($1, $2) \
             ON CONFLICT (id) DO UPDATE SET change = excluded.change, at = excluded.at",
        );
        let noted = noted.bind(&writer.id).bind(number).execute(self.connection().map_err(failed)?);
        patient(noted).await.map_err(failed)?;
        match patient(self.connection().map_err(failed)?.execute("COMMIT")).await {
            Ok(_) => {
                // Back to the pool.
                drop(self.connection.take());
                Ok(())
            }
            Err(error) => {
                self.abandon();
                catalog.settle(number, error).await
            }
        }
    }

    fn abandon(&mut self) {
        drop(self.connection.take().map(PoolConnection::detach));
    }
}

impl Drop for PostgresChange {
    fn drop(&mut self) {
        self.abandon();
    }
}

fn bound(statement: Statement<'_>) -> Query<'_, Postgres, PgArguments> {
    statement.values.into_iter().fold(sqlx::query(statement.text), |query, value| match value {
        Value::Number(number) => query.bind(number),
        Value::Text(text) if text.contains('\0') => query.bind(without_zeros(text.to_owned())),
        Value::Text(text) => query.bind(text),
        Value::Bytes(bytes) => query.bind(bytes),
    })
}

/// PostgreSQL has no text with a zero in it.
fn without_zeros(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// What does not come in time is an error.
async fn patient<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(late("an answer")))
}

fn late(what: &str) -> sqlx::Error {
    std::io::Error::new(std::io::ErrorKind::TimedOut, format!("waited too long for {what}")).into()
}

/// Whether the connection is of no more use. After an error of the server it is.
fn is_broken(error: &sqlx::Error) -> bool {
    !matches!(error, sqlx::Error::Database(_) | sqlx::Error::RowNotFound | sqlx::Error::ColumnNotFound(_))
}
