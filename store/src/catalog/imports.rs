//! Imported files by content, so that none counts twice and one that ended early can be taken back.

use super::Catalog;
use super::database::{Change, Row, sql};
use super::erasures::{index_of, queue};
use crate::error::StoreError;
use crate::packets::SUFFIX;

/// Where the rows or packets of a file came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Origin {
    /// The import; `None`: captured.
    pub import: Option<i64>,
    /// When the import stored them; 0 for what was captured, which is as old as its packets.
    pub stored_at: i64,
}

impl Origin {
    /// Imported after this time: who imports what was erased before wants it back.
    pub(crate) fn is_after(self, time: i64) -> bool {
        self.import.is_some() && self.stored_at > time
    }
}

/// How far an import came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportState {
    /// Being read, or killed while it was.
    Open,
    /// Ended early; what was stored is consistent.
    Partial,
    /// Read to the end.
    Done,
}

impl ImportState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Partial => "partial",
            Self::Done => "done",
        }
    }
}

/// A file that was imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// Number.
    pub id: i64,
    /// Name of the file then.
    pub name: String,
    /// When it began.
    pub started_at: i64,
    /// How far it came.
    pub state: ImportState,
    /// What was stored of it.
    pub stored: Stored,
}

impl Import {
    /// Of what it stored.
    pub(crate) fn origin(&self) -> Origin {
        Origin { import: Some(self.id), stored_at: self.started_at }
    }
}

/// Numbers of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stored {
    /// Packets.
    pub packets: u64,
    /// Rows of flows.
    pub flows: u64,
    /// Transactions.
    pub transactions: u64,
}

fn import(row: &Row) -> Result<Import, sqlx::Error> {
    let state: String = row.get("state")?;
    let known = [ImportState::Open, ImportState::Partial, ImportState::Done];
    Ok(Import {
        id: row.get("id")?,
        name: row.get("name")?,
        started_at: row.get("started_at")?,
        state: known.into_iter().find(|known| known.as_str() == state).unwrap_or(ImportState::Partial),
        stored: Stored {
            packets: row.count("packets")?,
            flows: row.count("flows")?,
            transactions: row.count("transactions")?,
        },
    })
}

impl Catalog {
    /// Notes that a file with this content is being imported; gives the number of the import.
    pub async fn begin_import(&self, sha256: &str, name: &str, bytes: u64, now: i64) -> Result<i64, StoreError> {
        let mut change = self.begin().await?;
        let put = sql(
            "INSERT INTO imports (sha256, name, bytes, started_at, state) VALUES ($1, $2, $3, $4, 'open') RETURNING id",
        );
        let put = put.bind(sha256).bind(name).bind(bytes.cast_signed()).bind(now);
        let id = change.number(put, "id").await?.ok_or_else(|| self.failed()(sqlx::Error::RowNotFound))?;
        change.commit().await?;
        Ok(id)
    }

    /// Imports get numbers above this one from now on: files in the data directory are named after it, as after a lost catalog.
    pub(crate) async fn number_imports_above(&self, taken: i64) -> Result<(), StoreError> {
        let row = self.database.first(sql("SELECT coalesce(max(id), 0) AS id FROM imports")).await?;
        let last: i64 = row.map_or(Ok(0), |row| row.get("id")).map_err(self.failed())?;
        if last >= taken {
            return Ok(());
        }
        let mut change = self.begin().await?;
        change.all(sql(self.database.own().number_imports_above).bind(taken)).await?;
        change.execute(sql("DELETE FROM imports WHERE id = $1").bind(taken)).await?;
        change.commit().await
    }

    /// Notes how an import ended.
    pub async fn end_import(&self, id: i64, state: ImportState, stored: Stored) -> Result<(), StoreError> {
        let mut change = self.begin().await?;
        let put = sql("UPDATE imports SET state = $1, packets = $2, flows = $3, transactions = $4 WHERE id = $5")
            .bind(state.as_str())
            .bind(stored.packets.cast_signed())
            .bind(stored.flows.cast_signed())
            .bind(stored.transactions.cast_signed())
            .bind(id);
        change.execute(put).await?;
        change.commit().await
    }

    /// Imports of this content of which anything is still kept, and those that did not come to their end.
    pub async fn imports_of(&self, sha256: &str) -> Result<Vec<Import>, StoreError> {
        let kept = sql("SELECT * FROM imports WHERE sha256 = $1 AND (state <> 'done' \
             OR id IN (SELECT import FROM flow_files) OR id IN (SELECT import FROM segments)) ORDER BY id");
        let rows = self.database.all(kept.bind(sha256)).await?;
        rows.iter().map(import).collect::<Result<_, _>>().map_err(self.failed())
    }

    /// Every import that is not forgotten.
    pub(crate) async fn imports(&self) -> Result<Vec<Import>, StoreError> {
        let rows = self.database.all(sql("SELECT * FROM imports ORDER BY id")).await?;
        rows.iter().map(import).collect::<Result<_, _>>().map_err(self.failed())
    }

    /// The hash of what an import is of.
    pub(crate) async fn content_of(&self, import: i64) -> Result<Option<String>, StoreError> {
        let row = self.database.first(sql("SELECT sha256 FROM imports WHERE id = $1").bind(import)).await?;
        row.map(|row| row.get("sha256")).transpose().map_err(self.failed())
    }

    /// How many imports of which something in `[from, to)` is kept did not come to their end.
    pub(crate) async fn unfinished_imports(&self, from: i64, to: i64) -> Result<u64, StoreError> {
        let query = "SELECT COUNT(*) AS count FROM imports WHERE state <> 'done' AND (\
             id IN (SELECT import FROM flow_files WHERE start < $2 AND \"end\" >= $1) \
             OR id IN (SELECT import FROM segments WHERE start < $2 AND \"end\" >= $1))";
        let rows = self.database.all(sql(query).bind(from).bind(to)).await?;
        rows.first().map_or(Ok(0), |row| row.count("count")).map_err(self.failed())
    }

    /// Takes all that an import stored out of the catalog, whatever a merge has made of it by now, and forgets the import. Remembers to delete that and
    /// the `unknown` segments.
    pub(crate) async fn retire_import(&self, id: i64, unknown: &[String], now: i64) -> Result<(), StoreError> {
        let mut change = self.begin().await?;
        for statement in [
            "DELETE FROM flow_files WHERE import = $1 RETURNING path, bytes",
            "DELETE FROM segments WHERE import = $1 RETURNING path, bytes",
            "DELETE FROM rollups WHERE import = $1 RETURNING path, bytes",
        ] {
            for row in change.all(sql(statement).bind(id)).await? {
                let file = || -> Result<(String, i64), sqlx::Error> { Ok((row.get("path")?, row.get("bytes")?)) };
                let (path, bytes) = file().map_err(self.failed())?;
                queue_all(&mut change, (&path, bytes), now).await?;
                // Of a roll-up: what only it had is gone for good.
                change.execute(sql("DELETE FROM retired WHERE kind = $1").bind(&path)).await?;
            }
        }
        for path in unknown {
            queue_all(&mut change, (path, 0), now).await?;
        }
        change.execute(sql("DELETE FROM imports WHERE id = $1").bind(id)).await?;
        change.commit().await
    }
}

/// Remembers to delete a file, and the index of a segment.
async fn queue_all(change: &mut Change, (path, bytes): (&str, i64), now: i64) -> Result<(), StoreError> {
    queue(change, (path, bytes), now).await?;
    if path.ends_with(SUFFIX) { queue(change, (&index_of(path), 0), now).await } else { Ok(()) }
}
