//! Flow files, packet segments, losses, and the files that wait to be deleted.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Catalog, Origin};
use crate::error::StoreError;
use crate::packets::Segment;

/// The tables whose rows are in Parquet files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TableName {
    /// Slices of flows.
    Flows,
    /// Exchanges within flows.
    Transactions,
}

impl TableName {
    /// The spelling in the catalog, of the directory, and in every interface.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flows => "flows",
            Self::Transactions => "transactions",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Flows, Self::Transactions].into_iter().find(|table| table.as_str() == text)
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A Parquet file of a table of the flow store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowFile {
    /// Whose rows it has.
    pub table: TableName,
    /// Path relative to the data directory.
    pub path: String,
    /// Rows.
    pub rows: u64,
    /// Size.
    pub bytes: u64,
    /// Least start of its rows.
    pub start: i64,
    /// Greatest end of its rows.
    pub end: i64,
    /// Where they came from.
    pub origin: Origin,
}

/// What a node saw and what of it was lost during `[from, to)`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loss {
    /// The node.
    pub node: String,
    /// Begin.
    pub from: i64,
    /// End.
    pub to: i64,
    /// Packets received.
    pub packets: u64,
    /// Packets the kernel dropped before they were read.
    pub kernel_drops: u64,
    /// Packets dropped because a queue was full.
    pub queue_drops: u64,
    /// Packets that no decoder understood.
    pub refused: u64,
    /// Packets that could not be written.
    pub unwritten: u64,
    /// Rows of flows that found a queue or the store full.
    pub flow_rows: u64,
    /// The same of transactions.
    pub transaction_rows: u64,
}

impl Loss {
    /// Nothing was lost. Packets that no decoder understood are kept as packets.
    pub fn is_complete(&self) -> bool {
        let Self { kernel_drops, queue_drops, unwritten, flow_rows, transaction_rows, .. } = self;
        [kernel_drops, queue_drops, unwritten, flow_rows, transaction_rows].into_iter().all(|count| *count == 0)
    }
}

/// Sums over a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Files.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
    /// Rows or packets.
    pub items: u64,
    /// Time of the earliest.
    pub start: Option<i64>,
}

pub(super) fn number(row: &SqliteRow, column: &str) -> Result<u64, sqlx::Error> {
    Ok(row.try_get::<i64, _>(column)?.cast_unsigned())
}

fn origin(row: &SqliteRow) -> Result<Origin, sqlx::Error> {
    Ok(Origin { import: row.try_get("import")?, stored_at: row.try_get("stored_at")? })
}

fn flow_file(row: &SqliteRow) -> Result<FlowFile, sqlx::Error> {
    let table: String = row.try_get("table")?;
    Ok(FlowFile {
        table: TableName::parse(&table)
            .ok_or_else(|| sqlx::Error::Decode(format!("`{table}` is no table of this release").into()))?,
        path: row.try_get("path")?,
        rows: number(row, "rows")?,
        bytes: number(row, "bytes")?,
        start: row.try_get("start")?,
        end: row.try_get("end")?,
        origin: origin(row)?,
    })
}

fn segment(row: &SqliteRow) -> Result<Segment, sqlx::Error> {
    Ok(Segment {
        path: row.try_get("path")?,
        node: row.try_get("node")?,
        packets: number(row, "packets")?,
        bytes: number(row, "bytes")?,
        start: row.try_get("start")?,
        end: row.try_get("end")?,
        sealed: row.try_get::<i64, _>("sealed")? != 0,
        origin: origin(row)?,
    })
}

fn loss(row: &SqliteRow) -> Result<Loss, sqlx::Error> {
    Ok(Loss {
        node: row.try_get("node")?,
        from: row.try_get("from")?,
        to: row.try_get("to")?,
        packets: number(row, "packets")?,
        kernel_drops: number(row, "kernel_drops")?,
        queue_drops: number(row, "queue_drops")?,
        refused: number(row, "refused")?,
        unwritten: number(row, "unwritten")?,
        flow_rows: number(row, "flow_rows")?,
        transaction_rows: number(row, "transaction_rows")?,
    })
}

type Statement<'a> = sqlx::query::Query<'a, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

/// A file's row; one of the same path is replaced.
fn put_file(file: &FlowFile) -> Statement<'_> {
    sqlx::query(
        "INSERT OR REPLACE INTO flow_files (\"table\", path, rows, bytes, start, \"end\", stored_at, import) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(file.table.as_str())
    .bind(&file.path)
    .bind(file.rows.cast_signed())
    .bind(file.bytes.cast_signed())
    .bind(file.start)
    .bind(file.end)
    .bind(file.origin.stored_at)
    .bind(file.origin.import)
}

impl Catalog {
    /// Registers a flow file that is complete on the disk.
    pub async fn add_flow_file(&self, file: &FlowFile) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        put_file(file).execute(&mut *transaction).await.map_err(self.failed())?;
        self.commit(transaction).await
    }

    /// Exchanges flow files for the one that holds the same rows, in one transaction; deleting them is up to the caller.
    pub async fn replace_flow_files(&self, old: &[String], new: &FlowFile) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        for path in old {
            let gone = sqlx::query("DELETE FROM flow_files WHERE path = ?")
                .bind(path)
                .execute(&mut *transaction)
                .await
                .map_err(self.failed())?;
            if gone.rows_affected() == 0 {
                // Retention was faster: registering the new file would bring the rows back.
                return Err(StoreError::Gone { path: path.clone() });
            }
        }
        put_file(new).execute(&mut *transaction).await.map_err(self.failed())?;
        self.commit(transaction).await
    }

    /// Files of a table with rows that touch `[from, to)`, earliest first.
    pub async fn flow_files(&self, table: TableName, from: i64, to: i64) -> Result<Vec<FlowFile>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM flow_files WHERE \"table\" = ? AND \"end\" >= ? AND start < ? ORDER BY start, path",
        )
        .bind(table.as_str())
        .bind(from)
        .bind(to)
        .fetch_all(&self.reads)
        .await
        .map_err(self.failed())?;
        rows.iter().map(flow_file).collect::<Result<_, _>>().map_err(self.failed())
    }

    /// Every file of a table, earliest first.
    pub async fn files_of(&self, table: TableName) -> Result<Vec<FlowFile>, StoreError> {
        let rows = sqlx::query("SELECT * FROM flow_files WHERE \"table\" = ? ORDER BY start, path")
            .bind(table.as_str())
            .fetch_all(&self.reads)
            .await
            .map_err(self.failed())?;
        rows.iter().map(flow_file).collect::<Result<_, _>>().map_err(self.failed())
    }

    /// Every file of every table, earliest first.
    pub async fn all_flow_files(&self) -> Result<Vec<FlowFile>, StoreError> {
        let rows = sqlx::query("SELECT * FROM flow_files ORDER BY start, path")
            .fetch_all(&self.reads)
            .await
            .map_err(self.failed())?;
        rows.iter().map(flow_file).collect::<Result<_, _>>().map_err(self.failed())
    }

    /// Takes flow files out of the catalog; deleting them is up to the caller.
    pub async fn remove_flow_files(&self, paths: &[String]) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        for path in paths {
            sqlx::query("DELETE FROM flow_files WHERE path = ?")
                .bind(path)
                .execute(&mut *transaction)
                .await
                .map_err(self.failed())?;
        }
        self.commit(transaction).await
    }

    /// Sums over the files of a table.
    pub async fn totals_of(&self, table: TableName) -> Result<Totals, StoreError> {
        let sums = sqlx::query(
            "SELECT count(*) AS files, coalesce(sum(bytes), 0) AS bytes, coalesce(sum(rows), 0) AS items, \
             min(start) AS start FROM flow_files WHERE \"table\" = ?",
        );
        self.totals(sums.bind(table.as_str())).await
    }

    /// Sums over the packet segments.
    pub async fn segment_totals(&self) -> Result<Totals, StoreError> {
        self.totals(sqlx::query(
            "SELECT count(*) AS files, coalesce(sum(bytes), 0) AS bytes, coalesce(sum(packets), 0) AS items, \
             min(start) AS start FROM segments",
        ))
        .await
    }

    async fn totals(&self, query: Statement<'_>) -> Result<Totals, StoreError> {
        let row = query.fetch_one(&self.reads).await.map_err(self.failed())?;
        let read = || -> Result<Totals, sqlx::Error> {
            Ok(Totals {
                files: number(&row, "files")?,
                bytes: number(&row, "bytes")?,
                items: number(&row, "items")?,
                start: row.try_get("start")?,
            })
        };
        read().map_err(self.failed())
    }

    /// Records segments as they are now, in one transaction; a sealed one stays sealed.
    pub async fn add_segments(&self, segments: &[Segment]) -> Result<(), StoreError> {
        if segments.is_empty() {
            return Ok(());
        }
        let mut transaction = self.begin().await?;
        for segment in segments {
            sqlx::query(
                "INSERT INTO segments (path, node, packets, bytes, start, \"end\", sealed, stored_at, import) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) \
                 ON CONFLICT (path) DO UPDATE SET packets = excluded.packets, bytes = excluded.bytes, \
                 start = excluded.start, \"end\" = excluded.\"end\", sealed = max(sealed, excluded.sealed)",
            )
            .bind(&segment.path)
            .bind(&segment.node)
            .bind(segment.packets.cast_signed())
            .bind(segment.bytes.cast_signed())
            .bind(segment.start)
            .bind(segment.end)
            .bind(i64::from(segment.sealed))
            .bind(segment.origin.stored_at)
            .bind(segment.origin.import)
            .execute(&mut *transaction)
            .await
            .map_err(self.failed())?;
        }
        self.commit(transaction).await
    }

    /// Segments that may have packets in `[from, to)`; an open one always may. Earliest first.
    pub async fn segments(&self, from: i64, to: i64) -> Result<Vec<Segment>, StoreError> {
        let rows =
            sqlx::query("SELECT * FROM segments WHERE sealed = 0 OR (\"end\" >= ? AND start < ?) ORDER BY start, path")
                .bind(from)
                .bind(to)
                .fetch_all(&self.reads)
                .await
                .map_err(self.failed())?;
        rows.iter().map(segment).collect::<Result<_, _>>().map_err(self.failed())
    }

    /// Every segment, earliest first.
    pub async fn all_segments(&self) -> Result<Vec<Segment>, StoreError> {
        self.segments(i64::MIN, i64::MAX).await
    }

    /// Takes segments out of the catalog; deleting them is up to the caller.
    pub async fn remove_segments(&self, paths: &[String]) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        for path in paths {
            sqlx::query("DELETE FROM segments WHERE path = ?")
                .bind(path)
                .execute(&mut *transaction)
                .await
                .map_err(self.failed())?;
        }
        self.commit(transaction).await
    }

    /// Takes flow files and segments out of the catalog and remembers, in the same transaction, to delete `files`.
    pub(crate) async fn retire(&self, rows: &[String], files: &[(String, u64)], now: i64) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        for path in rows {
            for statement in ["DELETE FROM flow_files WHERE path = ?", "DELETE FROM segments WHERE path = ?"] {
                sqlx::query(statement).bind(path).execute(&mut *transaction).await.map_err(self.failed())?;
            }
        }
        for (path, bytes) in files {
            sqlx::query("INSERT OR IGNORE INTO removals (path, queued_at, bytes) VALUES (?, ?, ?)")
                .bind(path)
                .bind(now)
                .bind(bytes.cast_signed())
                .execute(&mut *transaction)
                .await
                .map_err(self.failed())?;
        }
        self.commit(transaction).await
    }

    /// Files to delete that were queued before `before`.
    pub(crate) async fn due_removals(&self, before: i64) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar("SELECT path FROM removals WHERE queued_at < ? ORDER BY queued_at, path LIMIT 10000")
            .bind(before)
            .fetch_all(&self.reads)
            .await
            .map_err(self.failed())
    }

    /// Files that wait to be deleted, with their bytes, the first queued first.
    pub(crate) async fn waiting_removals(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let rows: Vec<(String, i64)> = sqlx::query_as("SELECT path, bytes FROM removals ORDER BY queued_at, path")
            .fetch_all(&self.reads)
            .await
            .map_err(self.failed())?;
        Ok(rows.into_iter().map(|(path, bytes)| (path, bytes.cast_unsigned())).collect())
    }

    /// These files are gone.
    pub(crate) async fn removed(&self, paths: &[String]) -> Result<(), StoreError> {
        if paths.is_empty() {
            return Ok(());
        }
        let mut transaction = self.begin().await?;
        for path in paths {
            sqlx::query("DELETE FROM removals WHERE path = ?")
                .bind(path)
                .execute(&mut *transaction)
                .await
                .map_err(self.failed())?;
        }
        self.commit(transaction).await
    }

    /// Adds an account of what a node saw and lost.
    pub async fn add_loss(&self, loss: &Loss) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query(
            "INSERT INTO loss (node, \"from\", \"to\", packets, kernel_drops, queue_drops, refused, unwritten, flow_rows, \
             transaction_rows) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&loss.node)
        .bind(loss.from)
        .bind(loss.to)
        .bind(loss.packets.cast_signed())
        .bind(loss.kernel_drops.cast_signed())
        .bind(loss.queue_drops.cast_signed())
        .bind(loss.refused.cast_signed())
        .bind(loss.unwritten.cast_signed())
        .bind(loss.flow_rows.cast_signed())
        .bind(loss.transaction_rows.cast_signed())
        .execute(&mut *transaction)
        .await
        .map_err(self.failed())?;
        self.commit(transaction).await
    }

    /// Accounts that touch `[from, to)`, summed by node: the time is what they cover.
    pub async fn loss(&self, from: i64, to: i64) -> Result<Vec<Loss>, StoreError> {
        let rows = sqlx::query(
            "SELECT node, min(\"from\") AS \"from\", max(\"to\") AS \"to\", sum(packets) AS packets, \
             sum(kernel_drops) AS kernel_drops, sum(queue_drops) AS queue_drops, sum(refused) AS refused, \
             sum(unwritten) AS unwritten, sum(flow_rows) AS flow_rows, sum(transaction_rows) AS transaction_rows \
             FROM loss WHERE \"to\" > ? AND \"from\" < ? GROUP BY node ORDER BY node",
        )
        .bind(from)
        .bind(to)
        .fetch_all(&self.reads)
        .await
        .map_err(self.failed())?;
        rows.iter().map(loss).collect::<Result<_, _>>().map_err(self.failed())
    }

    /// Forgets accounts, and identities of which nothing is told any more, before `before`.
    pub(crate) async fn expire_before(&self, before: i64) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query("DELETE FROM loss WHERE \"to\" < ?")
            .bind(before)
            .execute(&mut *transaction)
            .await
            .map_err(self.failed())?;
        self.expire_dossiers(&mut transaction, before).await?;
        self.commit(transaction).await
    }
}
