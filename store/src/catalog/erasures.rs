//! Erasures: what was asked for, what came of it, and the exchange of files that it needs.
//!
//! * An erasure counts from the moment that it is noted: whoever registers rows later says which erasures they were held
//!   against, and is refused if there is a newer one ([`Catalog::prepare_rows`]). So no row that is in memory of any process comes
//!   in behind it.
//! * A file is exchanged, the roll-ups that add it up are dropped or kept, the old file is queued to be deleted, and the
//!   numbers of the erasure grow in one transaction.
//! * Nothing deletes the note of an erasure.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::database::{Change, Row, sql};
use super::rows::{keep_file, put_file, put_segment};
use super::{Catalog, FlowFile, RollupFile, TableName};
use crate::error::StoreError;
use crate::packets::{ErasedSlice, ErasedSlices, Segment, index_path};

/// How far an erasure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErasureState {
    /// Some of its rows may still be in answers, or in files that cannot be read.
    Running,
    /// They are in no answer any more; files that had them wait for searches that began before.
    Deleting,
    /// These are deleted.
    Done,
}

impl ErasureState {
    /// The spelling in the catalog and in every interface.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Deleting => "deleting",
            Self::Done => "done",
        }
    }
}

/// What is to be erased, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasureRequest {
    /// Condition of the query language, without relative times.
    pub filter: String,
    /// Rows that touch `[from, to)`, ns since the epoch.
    pub from: i64,
    /// See `from`.
    pub to: i64,
    /// Only rows of this table.
    pub only: Option<TableName>,
    /// Who asks.
    pub who: String,
    /// Why.
    pub reason: String,
}

impl ErasureRequest {
    /// Whether it is about rows of this table.
    pub fn is_about(&self, table: TableName) -> bool {
        self.only.is_none_or(|only| only == table)
    }
}

/// What an erasure removed, and what it could not look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ErasedCounts {
    /// Rows of flows.
    pub flows: u64,
    /// Transactions.
    pub transactions: u64,
    /// Packets.
    pub packets: u64,
    /// Rows of roll-ups whose flows were gone already.
    pub rollup_rows: u64,
    /// Minutes of roll-ups whose flows are gone, of which it cannot be told whether they add up something of this.
    pub minutes_unchecked: u64,
    /// Packets of the seconds before a kill whose flows have no row, of which it cannot be told whether they are of this.
    pub packets_unchecked: u64,
    /// Files that could not be read.
    pub files_unread: u64,
}

/// What an erasure could not decide about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Unchecked {
    /// See [`ErasedCounts::minutes_unchecked`].
    pub(crate) minutes: u64,
    /// See [`ErasedCounts::packets_unchecked`].
    pub(crate) packets: u64,
}

/// The note of an erasure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    /// Number.
    pub id: i64,
    /// When it was asked for, ns since the epoch.
    pub at: i64,
    /// What was asked for.
    pub request: ErasureRequest,
    /// How far it is.
    pub state: ErasureState,
    /// Since when no answer has the rows.
    pub finished_at: Option<i64>,
    /// What came of it.
    pub counts: ErasedCounts,
    /// Why it did not come to its end yet.
    pub problem: Option<String>,
}

/// What an erasure did to one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasedFile {
    /// `flows`, `transactions`, `packets` or `rollups`.
    pub kind: String,
    /// Path relative to the data directory; `memory`: the rows were in no file yet.
    pub path: String,
    /// Rows or packets that were removed.
    pub items: u64,
    /// The file that holds the rest; `None`: nothing was left.
    pub became: Option<String>,
}

/// Slices that are kept together until their packets are gone.
const TOGETHER: usize = 65_536;

/// What an erasure took of rows that were in no file yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken {
    pub(crate) rows: u64,
    /// Of flows.
    pub(crate) slices: Vec<ErasedSlice>,
}

/// A flow file and what takes its place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exchange<'a> {
    pub(crate) erasure: i64,
    pub(crate) old: &'a FlowFile,
    /// What is left; `None`: nothing.
    pub(crate) new: Option<&'a FlowFile>,
    /// What is removed.
    pub(crate) slices: &'a [ErasedSlice],
    pub(crate) now: i64,
}

fn optional(text: String) -> Option<String> {
    if text.is_empty() { None } else { Some(text) }
}

fn erasure(row: &Row) -> Result<Erasure, sqlx::Error> {
    let state: String = row.get("state")?;
    let states = [ErasureState::Running, ErasureState::Deleting, ErasureState::Done];
    let only: String = row.get("only")?;
    Ok(Erasure {
        id: row.get("id")?,
        at: row.get("at")?,
        request: ErasureRequest {
            filter: row.get("filter")?,
            from: row.get("from")?,
            to: row.get("to")?,
            only: TableName::parse(&only),
            who: row.get("who")?,
            reason: row.get("reason")?,
        },
        state: states.into_iter().find(|known| known.as_str() == state).unwrap_or(ErasureState::Running),
        finished_at: row.get("finished_at")?,
        counts: ErasedCounts {
            flows: row.count("flows")?,
            transactions: row.count("transactions")?,
            packets: row.count("packets")?,
            rollup_rows: row.count("rollup_rows")?,
            minutes_unchecked: row.count("minutes_unchecked")?,
            packets_unchecked: row.count("packets_unchecked")?,
            files_unread: row.count("files_unread")?,
        },
        problem: optional(row.get("problem")?),
    })
}

fn erased_file(row: &Row) -> Result<ErasedFile, sqlx::Error> {
    Ok(ErasedFile {
        kind: row.get("kind")?,
        path: row.get("path")?,
        items: row.count("items")?,
        became: optional(row.get("became")?),
    })
}

impl Catalog {
    /// Notes that this is to be erased; from now on it counts.
    pub async fn begin_erasure(&self, request: &ErasureRequest, now: i64) -> Result<i64, StoreError> {
        let mut change = self.begin().await?;
        let put = sql("INSERT INTO erasures (at, who, reason, filter, \"only\", \"from\", \"to\") \
             VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id");
        let put = put
            .bind(now)
            .bind(&request.who)
            .bind(&request.reason)
            .bind(&request.filter)
            .bind(request.only.map_or("", TableName::as_str))
            .bind(request.from)
            .bind(request.to);
        let id = change.number(put, "id").await?.ok_or_else(|| self.failed()(sqlx::Error::RowNotFound))?;
        change.commit().await?;
        Ok(id)
    }

    /// Every erasure that was noted after the one with this number, the first first.
    pub async fn erasures_after(&self, id: i64) -> Result<Vec<Erasure>, StoreError> {
        let rows = self.database.all(sql("SELECT * FROM erasures WHERE id > $1 ORDER BY id").bind(id)).await?;
        rows.iter().map(erasure).collect::<Result<_, _>>().map_err(self.failed())
    }

    /// The number of the last one; 0: there is none.
    pub async fn last_erasure(&self) -> Result<i64, StoreError> {
        let row = self.database.first(sql("SELECT coalesce(max(id), 0) AS id FROM erasures")).await?;
        row.map_or(Ok(0), |row| row.get("id")).map_err(self.failed())
    }

    /// What an erasure did, file by file.
    pub async fn erased_files(&self, id: i64) -> Result<Vec<ErasedFile>, StoreError> {
        let rows = self.database.all(sql("SELECT * FROM erased_files WHERE erasure = $1 ORDER BY id").bind(id)).await?;
        rows.iter().map(erased_file).collect::<Result<_, _>>().map_err(self.failed())
    }

    /// Segments that erasures replaced.
    pub(crate) async fn erased_segments(&self) -> Result<HashSet<String>, StoreError> {
        let rows = self.database.all(sql("SELECT path FROM erased_files WHERE kind = 'packets'")).await?;
        rows.iter().map(|row| row.get("path")).collect::<Result<_, _>>().map_err(self.failed())
    }

    /// Registers the rows of some hours, which were held against all erasures up to the one numbered `known`, and what these took of them.
    /// [`StoreError::Erased`]: there is a newer one.
    pub(crate) async fn prepare_rows(
        &self,
        table: TableName,
        hours: &[(Option<&FlowFile>, &HashMap<i64, Taken>)],
        known: i64,
    ) -> Result<Change, StoreError> {
        let mut change = self.begin().await?;
        held(&mut change, known).await?;
        for (file, taken) in hours {
            for (id, Taken { rows, slices }) in *taken {
                note(&mut change, (*id, *rows), table.as_str(), ("memory", "")).await?;
                keep(&mut change, *id, slices).await?;
            }
            if let Some(file) = file {
                put_file(&mut change, file).await?;
            }
        }
        Ok(change)
    }

    /// Exchanges a roll-up for what an erasure leaves of it.
    pub(crate) async fn prepare_rolled(
        &self,
        erasure: i64,
        (old, new): (&RollupFile, &RollupFile),
        now: i64,
    ) -> Result<Change, StoreError> {
        let mut change = self.begin().await?;
        // `gone`: retention was faster.
        let put = sql("UPDATE rollups SET path = $1, rows = $2, bytes = $3 WHERE path = $4 AND gone = 0");
        let put = put.bind(&new.path).bind(new.rows.cast_signed()).bind(new.bytes.cast_signed()).bind(&old.path);
        if change.execute(put).await? == 0 {
            return Err(StoreError::Gone { path: old.path.clone() });
        }
        for statement in [
            "UPDATE rolled SET rollup = $1 WHERE rollup = $2",
            "UPDATE rollups SET day = $1 WHERE day = $2",
            "UPDATE retired SET kind = $1 WHERE kind = $2",
        ] {
            change.execute(sql(statement).bind(&new.path).bind(&old.path)).await?;
        }
        queue(&mut change, (&old.path, old.bytes.cast_signed()), now).await?;
        let removed = old.rows.saturating_sub(new.rows);
        note(&mut change, (erasure, removed), "rollups", (&old.path, &new.path)).await?;
        Ok(change)
    }

    /// The first slices behind those numbered `after` whose packets an erasure has to remove.
    pub(crate) async fn erased_slices_after(
        &self,
        erasure: i64,
        after: i64,
    ) -> Result<Option<(i64, Vec<u8>)>, StoreError> {
        let next = sql("SELECT id, slices FROM erased_slices WHERE erasure = $1 AND id > $2 ORDER BY id LIMIT 1");
        let row = self.database.first(next.bind(erasure).bind(after)).await?;
        row.map(|row| Ok((row.get("id")?, row.get("slices")?))).transpose().map_err(self.failed())
    }

    /// The packets of the slices up to these are gone.
    pub(crate) async fn forget_slices(&self, erasure: i64, last: i64) -> Result<(), StoreError> {
        let mut change = self.begin().await?;
        let done = sql("DELETE FROM erased_slices WHERE erasure = $1 AND id <= $2");
        change.execute(done.bind(erasure).bind(last)).await?;
        change.commit().await
    }

    /// A segment that is not in the catalog yet is deleted at this time, unless it is by then. One that failed before may have had its name.
    pub(crate) async fn queue_segment(&self, path: &str, at: i64) -> Result<(), StoreError> {
        let mut change = self.begin().await?;
        for path in [path.to_owned(), index_of(path)] {
            let put = sql("INSERT INTO removals (path, queued_at, bytes) VALUES ($1, $2, 0) \
                 ON CONFLICT (path) DO UPDATE SET queued_at = excluded.queued_at");
            change.execute(put.bind(&path).bind(at)).await?;
        }
        change.commit().await
    }

    /// Exchanges a sealed segment for what an erasure leaves of it.
    pub(crate) async fn exchange_segment(
        &self,
        erasure: i64,
        (old, new): (&Segment, Option<&Segment>),
        removed: u64,
        now: i64,
    ) -> Result<(), StoreError> {
        let mut change = self.begin().await?;
        let gone = sql("DELETE FROM segments WHERE path = $1 AND sealed = 1");
        if change.execute(gone.bind(&old.path)).await? == 0 {
            return Err(StoreError::Gone { path: old.path.clone() });
        }
        if let Some(new) = new {
            change.execute(put_segment(new)).await?;
            for path in [new.path.clone(), index_of(&new.path)] {
                keep_file(&mut change, &path).await?;
            }
        }
        queue(&mut change, (&old.path, old.bytes.cast_signed()), now).await?;
        queue(&mut change, (&index_of(&old.path), 0), now).await?;
        let became = new.map_or("", |new| new.path.as_str());
        note(&mut change, (erasure, removed), "packets", (&old.path, became)).await?;
        change.commit().await
    }

    /// No answer has what was to be erased any more.
    pub(crate) async fn finish_erasure(&self, id: i64, unchecked: Unchecked, now: i64) -> Result<(), StoreError> {
        let Unchecked { minutes, packets } = unchecked;
        let mut change = self.begin().await?;
        let put = sql("UPDATE erasures SET state = 'deleting', finished_at = $1, minutes_unchecked = $2, \
             packets_unchecked = $3, files_unread = 0, problem = '' WHERE id = $4");
        change.execute(put.bind(now).bind(minutes.cast_signed()).bind(packets.cast_signed()).bind(id)).await?;
        // Rows that came late have packets, too.
        let again = sql("UPDATE erasures SET state = 'running' WHERE id = $1 \
             AND EXISTS (SELECT 1 FROM erased_slices WHERE erasure = erasures.id)");
        change.execute(again.bind(id)).await?;
        change.commit().await
    }

    /// Files that cannot be read may have some of it: it goes on when they can be.
    pub(crate) async fn erasure_waits(
        &self,
        id: i64,
        (unchecked, files_unread): (Unchecked, u64),
        problem: &str,
    ) -> Result<(), StoreError> {
        let Unchecked { minutes, packets } = unchecked;
        let mut change = self.begin().await?;
        let put = sql("UPDATE erasures SET minutes_unchecked = $1, packets_unchecked = $2, files_unread = $3, \
             problem = $4 WHERE id = $5");
        let put = put.bind(minutes.cast_signed()).bind(packets.cast_signed()).bind(files_unread.cast_signed());
        change.execute(put.bind(problem).bind(id)).await?;
        change.commit().await
    }

    /// Notes why it did not come to its end.
    pub(crate) async fn erasure_failed(&self, id: i64, problem: &str) -> Result<(), StoreError> {
        let mut change = self.begin().await?;
        change.execute(sql("UPDATE erasures SET problem = $1 WHERE id = $2").bind(problem).bind(id)).await?;
        change.commit().await
    }

    /// Erasures that ended before `before` and of whose files none waits to be deleted are done; whether any was not.
    pub(crate) async fn settle_erasures(&self, before: i64) -> Result<bool, StoreError> {
        let waits = sql("SELECT count(*) AS waiting FROM erasures WHERE state = 'deleting'");
        let row = self.database.first(waits).await?;
        let waiting: i64 = row.map_or(Ok(0), |row| row.get("waiting")).map_err(self.failed())?;
        if waiting == 0 {
            return Ok(false);
        }
        let mut change = self.begin().await?;
        let put =
            sql("UPDATE erasures SET state = 'done' WHERE state = 'deleting' AND finished_at <= $1 AND NOT EXISTS \
             (SELECT 1 FROM erased_files, removals WHERE erased_files.erasure = erasures.id \
             AND removals.path = erased_files.path)");
        let settled = change.execute(put.bind(before)).await?;
        change.commit().await?;
        Ok(settled.cast_signed() < waiting)
    }
}

/// Rows were held against all erasures up to the one numbered `known`: there is no newer one.
pub(super) async fn held(change: &mut Change, known: i64) -> Result<(), StoreError> {
    let last = change.number(sql("SELECT coalesce(max(id), 0) AS id FROM erasures"), "id").await?;
    if last.is_some_and(|last| last > known) { Err(StoreError::Erased) } else { Ok(()) }
}

/// Adds to the numbers of an erasure.
pub(super) async fn note(
    change: &mut Change,
    (id, items): (i64, u64),
    kind: &str,
    (path, became): (&str, &str),
) -> Result<(), StoreError> {
    let add = match kind {
        "flows" => "UPDATE erasures SET flows = flows + $1 WHERE id = $2",
        "transactions" => "UPDATE erasures SET transactions = transactions + $1 WHERE id = $2",
        "packets" => "UPDATE erasures SET packets = packets + $1 WHERE id = $2",
        _ => "UPDATE erasures SET rollup_rows = rollup_rows + $1 WHERE id = $2",
    };
    change.execute(sql(add).bind(items.cast_signed()).bind(id)).await?;
    let put = sql("INSERT INTO erased_files (erasure, kind, path, items, became) VALUES ($1, $2, $3, $4, $5)");
    change.execute(put.bind(id).bind(kind).bind(path).bind(items.cast_signed()).bind(became)).await?;
    Ok(())
}

/// Keeps slices until their packets are gone; until then the erasure goes on.
pub(super) async fn keep(change: &mut Change, erasure: i64, slices: &[ErasedSlice]) -> Result<(), StoreError> {
    for some in slices.chunks(TOGETHER) {
        let bytes = ErasedSlices::encode(some);
        let put = sql("INSERT INTO erased_slices (erasure, slices) VALUES ($1, $2)");
        change.execute(put.bind(erasure).bind(bytes.as_slice())).await?;
    }
    if !slices.is_empty() {
        change.execute(sql("UPDATE erasures SET state = 'running' WHERE id = $1").bind(erasure)).await?;
    }
    Ok(())
}

/// Path of the index of a segment.
pub(super) fn index_of(segment: &str) -> String {
    index_path(Path::new(segment)).to_string_lossy().into_owned()
}

/// Remembers to delete a file.
pub(super) async fn queue(change: &mut Change, (path, bytes): (&str, i64), now: i64) -> Result<(), StoreError> {
    let put = sql("INSERT INTO removals (path, queued_at, bytes) VALUES ($1, $2, $3) ON CONFLICT (path) DO NOTHING");
    change.execute(put.bind(path).bind(now).bind(bytes)).await?;
    Ok(())
}
