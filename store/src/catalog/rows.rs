//! Flow files, packet segments, losses, and the files that wait to be deleted.

use std::collections::HashMap;

use super::database::{Change, Row, Statement, sql};
use super::retired::{self, Why};
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

    pub(super) fn parse(text: &str) -> Option<Self> {
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
    /// Times that the node was killed or crashed, so that what it saw in the last seconds before is missing, or that it could not capture.
    pub interruptions: u64,
    /// Time in which nobody captured, ns: between an end and the next start.
    pub not_captured: u64,
}

impl Loss {
    /// Nothing was lost. Packets that no decoder understood are kept as packets.
    pub fn is_complete(&self) -> bool {
        let Self { kernel_drops, queue_drops, unwritten, flow_rows, transaction_rows, .. } = self;
        [kernel_drops, queue_drops, unwritten, flow_rows, transaction_rows, &self.interruptions, &self.not_captured]
            .into_iter()
            .all(|count| *count == 0)
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

fn origin(row: &Row) -> Result<Origin, sqlx::Error> {
    Ok(Origin { import: row.get("import")?, stored_at: row.get("stored_at")? })
}

fn flow_file(row: &Row) -> Result<FlowFile, sqlx::Error> {
    let table: String = row.get("table")?;
    Ok(FlowFile {
        table: TableName::parse(&table)
            .ok_or_else(|| sqlx::Error::Decode(format!("`{table}` is no table of this release").into()))?,
        path: row.get("path")?,
        rows: row.count("rows")?,
        bytes: row.count("bytes")?,
        start: row.get("start")?,
        end: row.get("end")?,
        origin: origin(row)?,
    })
}

fn segment(row: &Row) -> Result<Segment, sqlx::Error> {
    Ok(Segment {
        path: row.get("path")?,
        node: row.get("node")?,
        packets: row.count("packets")?,
        bytes: row.count("bytes")?,
        start: row.get("start")?,
        end: row.get("end")?,
        sealed: row.get::<i64>("sealed")? != 0,
        origin: origin(row)?,
    })
}

fn loss(row: &Row) -> Result<Loss, sqlx::Error> {
    Ok(Loss {
        node: row.get("node")?,
        from: row.get("from")?,
        to: row.get("to")?,
        packets: row.count("packets")?,
        kernel_drops: row.count("kernel_drops")?,
        queue_drops: row.count("queue_drops")?,
        refused: row.count("refused")?,
        unwritten: row.count("unwritten")?,
        flow_rows: row.count("flow_rows")?,
        transaction_rows: row.count("transaction_rows")?,
        interruptions: row.count("interruptions")?,
        not_captured: row.count("not_captured")?,
    })
}

/// A file's row; one of the same path is replaced, and a file that waited there to be deleted is not deleted any more.
pub(super) async fn put_file(change: &mut Change, file: &FlowFile) -> Result<(), StoreError> {
    let put = sql("INSERT INTO flow_files (\"table\", path, rows, bytes, start, \"end\", stored_at, import) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
         ON CONFLICT (path) DO UPDATE SET \"table\" = excluded.\"table\", rows = excluded.rows, bytes = excluded.bytes, \
         start = excluded.start, \"end\" = excluded.\"end\", stored_at = excluded.stored_at, import = excluded.import")
    .bind(file.table.as_str())
    .bind(&file.path)
    .bind(file.rows.cast_signed())
    .bind(file.bytes.cast_signed())
    .bind(file.start)
    .bind(file.end)
    .bind(file.origin.stored_at)
    .bind(file.origin.import);
    change.execute(put).await?;
    keep_file(change, &file.path).await
}

/// A path that is registered again: a file that waited there to be deleted was replaced by the new one.
pub(super) async fn keep_file(change: &mut Change, path: &str) -> Result<(), StoreError> {
    change.execute(sql("DELETE FROM removals WHERE path = $1").bind(path)).await.map(drop)
}

/// A segment's row; a sealed one stays sealed.
pub(super) fn put_segment(segment: &Segment) -> Statement<'_> {
    sql("INSERT INTO segments (path, node, packets, bytes, start, \"end\", sealed, stored_at, import) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
         ON CONFLICT (path) DO UPDATE SET packets = excluded.packets, bytes = excluded.bytes, start = excluded.start, \
         \"end\" = excluded.\"end\", \
         sealed = CASE WHEN segments.sealed > excluded.sealed THEN segments.sealed ELSE excluded.sealed END")
    .bind(&segment.path)
    .bind(&segment.node)
    .bind(segment.packets.cast_signed())
    .bind(segment.bytes.cast_signed())
    .bind(segment.start)
    .bind(segment.end)
    .bind(i64::from(segment.sealed))
    .bind(segment.origin.stored_at)
    .bind(segment.origin.import)
}

impl Catalog {
    /// Registers a flow file from elsewhere that is complete on the disk: what was erased before is not held against it.
    pub async fn add_flow_file(&self, file: &FlowFile) -> Result<(), StoreError> {
        let hour = (Some(file), &HashMap::new());
        self.prepare_rows(file.table, &[hour], self.last_erasure().await?).await?.commit().await
    }

    /// Exchanges flow files for the one that holds the same rows, in one transaction; deleting them is up to the caller.
    pub async fn replace_flow_files(&self, old: &[String], new: &FlowFile) -> Result<(), StoreError> {
        self.prepare_replacement(old, new).await?.commit().await
    }

    /// As [`Catalog::replace_flow_files`].
    pub(crate) async fn prepare_replacement(&self, old: &[String], new: &FlowFile) -> Result<Change, StoreError> {
        let mut change = self.begin().await?;
        for path in old {
            let gone = change.execute(sql("DELETE FROM flow_files WHERE path = $1").bind(path)).await?;
            if gone == 0 {
                // Retention was faster: registering the new file would bring the rows back.
                return Err(StoreError::Gone { path: path.clone() });
            }
        }
        put_file(&mut change, new).await?;
        Ok(change)
    }

    /// Files of a table with rows that touch `[from, to)`, earliest first.
    pub async fn flow_files(&self, table: TableName, from: i64, to: i64) -> Result<Vec<FlowFile>, StoreError> {
        let found =
            sql("SELECT * FROM flow_files WHERE \"table\" = $1 AND \"end\" >= $2 AND start < $3 ORDER BY start, path");
        self.files(found.bind(table.as_str()).bind(from).bind(to)).await
    }

    /// Every file of a table, earliest first.
    pub async fn files_of(&self, table: TableName) -> Result<Vec<FlowFile>, StoreError> {
        let found = sql("SELECT * FROM flow_files WHERE \"table\" = $1 ORDER BY start, path");
        self.files(found.bind(table.as_str())).await
    }

    /// The files of a table that are no part of a roll-up, earliest first.
    pub(crate) async fn unrolled(&self, table: TableName) -> Result<Vec<FlowFile>, StoreError> {
        let found = sql("SELECT * FROM flow_files WHERE \"table\" = $1 \
             AND NOT EXISTS (SELECT 1 FROM rolled WHERE rolled.path = flow_files.path) ORDER BY start, path");
        self.files(found.bind(table.as_str())).await
    }

    /// Every file of every table, earliest first.
    pub async fn all_flow_files(&self) -> Result<Vec<FlowFile>, StoreError> {
        self.files(sql("SELECT * FROM flow_files ORDER BY start, path")).await
    }

    async fn files(&self, found: Statement<'_>) -> Result<Vec<FlowFile>, StoreError> {
        let rows = self.database.all(found).await?;
        rows.iter().map(flow_file).collect::<Result<_, _>>().map_err(self.failed())
    }

    /// Takes flow files out of the catalog; deleting them is up to the caller.
    pub async fn remove_flow_files(&self, paths: &[String]) -> Result<(), StoreError> {
        self.delete("DELETE FROM flow_files WHERE path = $1", paths).await
    }

    /// The rows of these paths, in one transaction.
    async fn delete(&self, statement: &'static str, paths: &[String]) -> Result<(), StoreError> {
        if paths.is_empty() {
            return Ok(());
        }
        let mut change = self.begin().await?;
        for path in paths {
            change.execute(sql(statement).bind(path)).await?;
        }
        change.commit().await
    }

    /// Sums over the files of a table.
    pub async fn totals_of(&self, table: TableName) -> Result<Totals, StoreError> {
        let sums = sql("SELECT count(*) AS files, CAST(coalesce(sum(bytes), 0) AS BIGINT) AS bytes, \
             CAST(coalesce(sum(rows), 0) AS BIGINT) AS items, min(start) AS start FROM flow_files WHERE \"table\" = $1");
        self.totals(sums.bind(table.as_str())).await
    }

    /// Sums over the packet segments.
    pub async fn segment_totals(&self) -> Result<Totals, StoreError> {
        self.totals(sql("SELECT count(*) AS files, CAST(coalesce(sum(bytes), 0) AS BIGINT) AS bytes, \
             CAST(coalesce(sum(packets), 0) AS BIGINT) AS items, min(start) AS start FROM segments"))
            .await
    }

    async fn totals(&self, sums: Statement<'_>) -> Result<Totals, StoreError> {
        let Some(row) = self.database.first(sums).await? else { return Ok(Totals::default()) };
        let read = || -> Result<Totals, sqlx::Error> {
            Ok(Totals {
                files: row.count("files")?,
                bytes: row.count("bytes")?,
                items: row.count("items")?,
                start: row.get("start")?,
            })
        };
        read().map_err(self.failed())
    }

    /// Records segments as they are now, in one transaction; a sealed one stays sealed.
    pub async fn add_segments(&self, segments: &[Segment]) -> Result<(), StoreError> {
        if segments.is_empty() {
            return Ok(());
        }
        let mut change = self.begin().await?;
        for segment in segments {
            change.execute(put_segment(segment)).await?;
        }
        change.commit().await
    }

    /// Segments that may have packets in `[from, to)`; an open one always may. Earliest first.
    pub async fn segments(&self, from: i64, to: i64) -> Result<Vec<Segment>, StoreError> {
        let found =
            sql("SELECT * FROM segments WHERE sealed = 0 OR (\"end\" >= $1 AND start < $2) ORDER BY start, path");
        let rows = self.database.all(found.bind(from).bind(to)).await?;
        rows.iter().map(segment).collect::<Result<_, _>>().map_err(self.failed())
    }

    /// Every segment, earliest first.
    pub async fn all_segments(&self) -> Result<Vec<Segment>, StoreError> {
        self.segments(i64::MIN, i64::MAX).await
    }

    /// Takes segments out of the catalog; deleting them is up to the caller.
    pub async fn remove_segments(&self, paths: &[String]) -> Result<(), StoreError> {
        self.delete("DELETE FROM segments WHERE path = $1", paths).await
    }

    /// Takes flow files and segments out of the catalog and remembers, in the same transaction, to delete `files`.
    pub(crate) async fn retire(
        &self,
        rows: &[String],
        files: &[(String, u64)],
        (why, now): (Why, i64),
    ) -> Result<(), StoreError> {
        let mut change = self.begin().await?;
        for path in rows {
            if why == Why::Retention {
                retired::note(&mut change, path).await?;
            }
            for statement in [
                "DELETE FROM flow_files WHERE path = $1",
                "DELETE FROM segments WHERE path = $1",
                "DELETE FROM rollups WHERE path = $1",
                // Of a roll-up: what only it had is gone for good.
                "DELETE FROM retired WHERE kind = $1",
            ] {
                change.execute(sql(statement).bind(path)).await?;
            }
        }
        for (path, bytes) in files {
            let queued =
                sql("INSERT INTO removals (path, queued_at, bytes) VALUES ($1, $2, $3) ON CONFLICT (path) DO NOTHING");
            change.execute(queued.bind(path).bind(now).bind(bytes.cast_signed())).await?;
        }
        change.commit().await
    }

    /// Files to delete that were queued before `before`.
    pub(crate) async fn due_removals(&self, before: i64) -> Result<Vec<String>, StoreError> {
        let due = sql("SELECT path FROM removals WHERE queued_at < $1 ORDER BY queued_at, path");
        let rows = self.database.all(due.bind(before)).await?;
        rows.iter().map(|row| row.get("path")).collect::<Result<_, _>>().map_err(self.failed())
    }

    /// All that waits to be deleted.
    pub(crate) async fn removals(&self) -> Result<Vec<String>, StoreError> {
        let rows = self.database.all(sql("SELECT path FROM removals")).await?;
        rows.iter().map(|row| row.get("path")).collect::<Result<_, _>>().map_err(self.failed())
    }

    /// Files that wait to be deleted since `now` or before, with their bytes, the first queued first.
    pub(crate) async fn waiting_removals(&self, now: i64) -> Result<Vec<(String, u64)>, StoreError> {
        let waiting = sql("SELECT path, bytes FROM removals WHERE queued_at <= $1 ORDER BY queued_at, path");
        let rows = self.database.all(waiting.bind(now)).await?;
        let removal = |row: &Row| Ok((row.get("path")?, row.count("bytes")?));
        rows.iter().map(removal).collect::<Result<_, _>>().map_err(self.failed())
    }

    /// These files are gone.
    pub(crate) async fn removed(&self, paths: &[String]) -> Result<(), StoreError> {
        self.delete("DELETE FROM removals WHERE path = $1", paths).await
    }

    /// Adds an account of what a node saw and lost.
    pub async fn add_loss(&self, loss: &Loss) -> Result<(), StoreError> {
        let mut change = self.begin().await?;
        let put = sql(
            "INSERT INTO loss (node, \"from\", \"to\", packets, kernel_drops, queue_drops, refused, unwritten, flow_rows, \
             transaction_rows, interruptions, not_captured) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        );
        let put = put
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
            .bind(loss.interruptions.cast_signed())
            .bind(loss.not_captured.cast_signed());
        change.execute(put).await?;
        change.commit().await
    }

    /// Accounts that touch `[from, to)`, summed by node: the time is what they cover. It does not end later because of a
    /// run that was killed, nobody knows when (the account of that has no packets), or because nobody captured afterwards. Of a time in which
    /// nobody did, what is in the range counts.
    pub async fn loss(&self, from: i64, to: i64) -> Result<Vec<Loss>, StoreError> {
        let sums = sql("SELECT node, min(\"from\") AS \"from\", \
             coalesce(max(CASE WHEN not_captured = 0 AND (interruptions = 0 OR packets > 0) THEN \"to\" END), \
             min(\"from\")) AS \"to\", \
             CAST(sum(packets) AS BIGINT) AS packets, CAST(sum(kernel_drops) AS BIGINT) AS kernel_drops, \
             CAST(sum(queue_drops) AS BIGINT) AS queue_drops, CAST(sum(refused) AS BIGINT) AS refused, \
             CAST(sum(unwritten) AS BIGINT) AS unwritten, CAST(sum(flow_rows) AS BIGINT) AS flow_rows, \
             CAST(sum(transaction_rows) AS BIGINT) AS transaction_rows, CAST(sum(interruptions) AS BIGINT) AS interruptions, \
             CAST(sum(CASE WHEN shared < not_captured THEN shared ELSE not_captured END) AS BIGINT) AS not_captured FROM (\
             SELECT loss.*, CASE WHEN \"to\" < $2 THEN \"to\" ELSE $2 END \
             - CASE WHEN \"from\" > $1 THEN \"from\" ELSE $1 END AS shared \
             FROM loss WHERE \"to\" > $1 AND \"from\" < $2) AS found GROUP BY node ORDER BY node");
        let rows = self.database.all(sums.bind(from).bind(to)).await?;
        rows.iter().map(loss).collect::<Result<_, _>>().map_err(self.failed())
    }

    /// Runs that were killed and may have been under way in `[from, to)`: since when something may be missing, and until when they are known to
    /// have captured. The first come first.
    pub(crate) async fn kills(&self, from: i64, to: i64) -> Result<Vec<(i64, i64)>, StoreError> {
        let notes = sql("SELECT \"from\", \"to\" FROM loss WHERE interruptions > 0 AND packets = 0 \
             AND \"to\" >= $1 AND \"from\" < $2 ORDER BY \"from\", \"to\"");
        let rows = self.database.all(notes.bind(from).bind(to)).await?;
        let kill = |row: &Row| Ok((row.get("from")?, row.get("to")?));
        rows.iter().map(kill).collect::<Result<_, _>>().map_err(self.failed())
    }

    /// Where the account ends that was written last, whatever its node was called; `None`: there is none.
    pub async fn accounted_until(&self) -> Result<Option<i64>, StoreError> {
        let last = self.database.first(sql("SELECT \"to\" FROM loss ORDER BY id DESC LIMIT 1")).await?;
        last.map(|row| row.get("to")).transpose().map_err(self.failed())
    }

    /// Forgets accounts of nothing lost, and identities of which nothing is told any more, before `before`; what was lost is forgotten before
    /// `answered`, and in between each node has three accounts an hour at most: of what it captured, of runs that were killed, and of the time in which
    /// nobody captured.
    pub(crate) async fn expire_before(&self, before: i64, answered: i64) -> Result<(), StoreError> {
        let mut change = self.begin().await?;
        let whole =
            sql("DELETE FROM loss WHERE \"to\" < $1 AND kernel_drops = 0 AND queue_drops = 0 AND unwritten = 0 \
             AND flow_rows = 0 AND transaction_rows = 0 AND interruptions = 0 AND not_captured = 0");
        change.execute(whole.bind(before)).await?;
        change.execute(sql("DELETE FROM loss WHERE \"to\" < $1").bind(answered)).await?;
        // Into the first of them: the last account of all stays the last.
        let added = sql("UPDATE loss SET \"from\" = sums.\"from\", \"to\" = sums.\"to\", packets = sums.packets, \
             kernel_drops = sums.kernel_drops, queue_drops = sums.queue_drops, refused = sums.refused, \
             unwritten = sums.unwritten, flow_rows = sums.flow_rows, transaction_rows = sums.transaction_rows, \
             interruptions = sums.interruptions, not_captured = sums.not_captured FROM (\
             SELECT min(id) AS id, min(\"from\") AS \"from\", max(\"to\") AS \"to\", \
             CAST(sum(packets) AS BIGINT) AS packets, CAST(sum(kernel_drops) AS BIGINT) AS kernel_drops, \
             CAST(sum(queue_drops) AS BIGINT) AS queue_drops, CAST(sum(refused) AS BIGINT) AS refused, \
             CAST(sum(unwritten) AS BIGINT) AS unwritten, CAST(sum(flow_rows) AS BIGINT) AS flow_rows, \
             CAST(sum(transaction_rows) AS BIGINT) AS transaction_rows, CAST(sum(interruptions) AS BIGINT) AS interruptions, \
             CAST(sum(not_captured) AS BIGINT) AS not_captured FROM loss WHERE \"to\" < $1 \
             GROUP BY node, \"from\" / 3600000000000, not_captured > 0, interruptions > 0 AND packets = 0 \
             HAVING count(*) > 1) AS sums WHERE loss.id = sums.id");
        change.execute(added.bind(before)).await?;
        let others =
            sql("DELETE FROM loss WHERE \"to\" < $1 AND id NOT IN (SELECT min(id) FROM loss WHERE \"to\" < $1 \
             GROUP BY node, \"from\" / 3600000000000, not_captured > 0, interruptions > 0 AND packets = 0)");
        change.execute(others.bind(before)).await?;
        self.expire_dossiers(&mut change, before).await?;
        change.commit().await
    }
}
