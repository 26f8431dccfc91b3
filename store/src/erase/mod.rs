//! Erasure: what concerns one data subject or tenant is removed on purpose, and that this was done stays on record.
//!
//! * It is noted first ([`Store::begin_erasure`]), and counts from then on: whatever process has such rows in memory does not write
//!   them any more. Then files are gone through ([`Store::continue_erasures`]); after a crash the next start goes on.
//! * What cannot be read may have some of it: the erasure goes on when that changes, and now and then.
//! * Only the one process that may merge files erases: the appliance, or [`Role::Eraser`] while none runs.
//! * Old files are deleted as those of retention are, when searches that began before have ended; only then it is `done`.
//! * Packets go with the flows that they are of ([`packets`]), after these; those of flows that a kill left without a row are counted
//!   ([`rowless`]).
//! * What is outside: history of identities, backups, what was exported, packets of no flow or of one whose rows are gone, and
//!   files that were `set-aside`.

mod packets;
mod rowless;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};
use wiretag_capture::{FlowRecord, Transaction};

use crate::catalog::{ErasedFile, Erasure, ErasureRequest, ErasureState, TableName, Unchecked};
use crate::error::StoreError;
use crate::json::time;
use crate::packets::index_path;
use crate::query;
use crate::tables::{Erasable, FileId, Range, file_id};
use crate::{Role, Store, Table, retention};

/// Searches that began before have ended, ns: files that a merge replaced just before stay for so long.
const SETTLED: i64 = 60_000_000_000;
/// After so long files that could not be read are tried again, ns: disks fail for a moment, too.
const AGAIN: i64 = 600_000_000_000;

/// Files that erasures could not read.
#[derive(Debug, Default)]
pub(crate) struct Unread(HashMap<i64, Found>);

#[derive(Debug)]
struct Found {
    at: i64,
    files: Vec<(PathBuf, Option<FileId>)>,
}

impl Unread {
    /// Whether nothing has changed since an erasure met them, and that was a moment ago.
    fn waits(&self, data_dir: &Path, erasure: i64, now: i64) -> bool {
        self.0.get(&erasure).is_some_and(|found| {
            let same = |(path, id): &(PathBuf, Option<FileId>)| file_id(&data_dir.join(path)) == *id;
            now.saturating_sub(found.at) < AGAIN && found.files.iter().all(same)
        })
    }

    fn note(&mut self, data_dir: &Path, (erasure, paths): (i64, BTreeSet<String>), at: i64) {
        // A segment cannot be read without its index; other files have none.
        let files = paths.into_iter().map(PathBuf::from).flat_map(|path| [index_path(&path), path]);
        let files: Vec<_> = files.map(|path| (path.clone(), file_id(&data_dir.join(path)))).collect();
        if files.is_empty() {
            self.0.remove(&erasure);
        } else {
            self.0.insert(erasure, Found { at, files });
        }
    }
}

/// What an erasure would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErasurePreview {
    /// Of flows.
    pub flows: Erasable,
    /// Of transactions.
    pub transactions: Erasable,
}

impl ErasureRequest {
    /// What is wrong with it, if anything is.
    pub fn check(&self) -> Result<(), StoreError> {
        let refuse = |sentence: String| Err(StoreError::Erasure(sentence));
        if self.filter.trim().is_empty() {
            return refuse("the filter is empty; hint: `start exists` is true of every row".into());
        }
        if self.reason.trim().is_empty() {
            return refuse("an erasure needs a reason; hint: it is kept on record, as in `request 4711`".into());
        }
        if self.from >= self.to {
            return refuse("the time range is empty: its begin is not before its end, or is in the future".into());
        }
        let parsed = |table: TableName| match table {
            TableName::Flows => parsed::<FlowRecord>(&self.filter),
            TableName::Transactions => parsed::<Transaction>(&self.filter),
        };
        for (table, other) in [(TableName::Flows, TableName::Transactions), (TableName::Transactions, TableName::Flows)]
        {
            let Err(sentence) = (if self.is_about(table) { parsed(table) } else { Ok(()) }) else { continue };
            return refuse(match sentence.split_once("; hint: ") {
                _ if self.only.is_some() || parsed(other).is_err() => sentence,
                Some((message, hint)) => format!("{message} (of {table}); hint: {hint}; or erase only {other}"),
                None => format!("{sentence} (of {table}); hint: erase only {other}"),
            });
        }
        Ok(())
    }
}

/// What is wrong with a filter. On record it must mean the same for ever.
fn parsed<R: Table>(filter: &str) -> Result<(), String> {
    match query::parse::<R>(filter) {
        Ok(_) => Ok(()),
        Err(_) if query::parse_at::<R>(filter, 0).is_ok() => {
            Err("a relative time means something else tomorrow; hint: write the time itself, or limit the range".into())
        }
        Err(error) => Err(error.to_string()),
    }
}

impl Store {
    /// What an erasure would remove now. Nothing is noted.
    pub fn preview_erasure<'a>(
        &'a self,
        request: &'a ErasureRequest,
    ) -> BoxFuture<'a, Result<ErasurePreview, StoreError>> {
        Box::pin(self.erasable(request))
    }

    async fn erasable(&self, request: &ErasureRequest) -> Result<ErasurePreview, StoreError> {
        request.check()?;
        let range = Range { from: request.from, to: request.to };
        let parsed = |error: query::QueryError| StoreError::Erasure(error.to_string());
        let mut preview = ErasurePreview::default();
        if request.is_about(TableName::Flows) {
            let query = query::parse(&request.filter).map_err(parsed)?;
            preview.flows = self.flows.erasable(&query, range).await?;
        }
        if request.is_about(TableName::Transactions) {
            let query = query::parse(&request.filter).map_err(parsed)?;
            preview.transactions = self.transactions.erasable(&query, range).await?;
        }
        Ok(preview)
    }

    /// Notes an erasure, of what was until `now` at most; [`Self::continue_erasures`] does it. Gives its number.
    pub async fn begin_erasure(&self, request: &ErasureRequest, now: i64) -> Result<i64, StoreError> {
        if !self.erases() {
            return Err(StoreError::ReadOnly);
        }
        let request = ErasureRequest { to: request.to.min(now), ..request.clone() };
        request.check()?;
        let id = self.catalog.begin_erasure(&request, now).await?;
        tracing::info!(id, who = request.who, reason = request.reason, "an erasure begins");
        // Rows that come are held against it from here on, also while another one is at work.
        let known = (self.flows.stand().await, self.transactions.stand().await);
        if let (Err(error), _) | (_, Err(error)) = known {
            tracing::warn!(%error, id, "rows that come are not held against this erasure yet");
        }
        Ok(id)
    }

    /// Brings erasures that were noted to their end, one after the other; one that fails says why, and the first error is
    /// returned. `clock` gives the time, ns since the epoch.
    pub fn continue_erasures<'a>(
        &'a self,
        clock: &'a (dyn Fn() -> i64 + Sync),
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.erase_all(clock))
    }

    async fn erase_all(&self, clock: &(dyn Fn() -> i64 + Sync)) -> Result<(), StoreError> {
        if !self.erases() {
            return Err(StoreError::ReadOnly);
        }
        let mut unread = self.erasing.lock().await;
        let mut failed = None;
        for erasure in self.erasures().await?.into_iter().filter(|erasure| erasure.state == ErasureState::Running) {
            if unread.waits(&self.data_dir, erasure.id, clock()) {
                continue;
            }
            match self.erase(&erasure, clock).await {
                Ok(files) => unread.note(&self.data_dir, (erasure.id, files), clock()),
                Err(error) => {
                    tracing::error!(%error, id = erasure.id, "an erasure did not come to its end; it is tried again");
                    self.catalog.erasure_failed(erasure.id, &error.to_string()).await?;
                    failed = failed.or(Some(error));
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Gives the files that could not be read.
    async fn erase(&self, erasure: &Erasure, clock: &(dyn Fn() -> i64 + Sync)) -> Result<BTreeSet<String>, StoreError> {
        let mut unread: BTreeSet<String> = BTreeSet::new();
        let mut unchecked = Unchecked::default();
        if erasure.request.is_about(TableName::Flows) {
            unread.extend(self.flows.erase(erasure, clock).await?);
            let (minutes, files) = self.flows.erase_rolled(erasure, clock).await?;
            unchecked.minutes = minutes;
            unread.extend(files);
        }
        if erasure.request.is_about(TableName::Transactions) {
            unread.extend(self.transactions.erase(erasure, clock).await?);
        }
        unread.extend(self.erase_packets(erasure, clock).await?);
        if erasure.request.is_about(TableName::Flows) {
            unchecked.packets = self.packets_without_rows((erasure.request.from, erasure.request.to)).await?;
        }
        let Some(first) = unread.first() else {
            self.catalog.finish_erasure(erasure.id, unchecked, clock()).await?;
            tracing::info!(id = erasure.id, ?unchecked, "an erasure has ended");
            return Ok(unread);
        };
        let problem = format!(
            "{} files cannot be read and have what they had, as `{first}`; hint: restore them: it goes on by itself",
            unread.len()
        );
        self.catalog.erasure_waits(erasure.id, (unchecked, unread.len() as u64), &problem).await?;
        Ok(unread)
    }

    /// Deletes the files that erasures left behind without waiting for searches that began before.
    pub async fn settle_erasures(&self) -> Result<(), StoreError> {
        let deleted = retention::delete_due(&self.data_dir, &self.catalog, i64::MAX).await?;
        self.flows.delete_superseded().await?;
        self.transactions.delete_superseded().await?;
        self.catalog.settle_erasures(i64::MAX).await?;
        deleted.failed.map_or(Ok(()), Err)
    }

    /// Erasures whose files are deleted are done.
    pub(crate) async fn settle_old_erasures(&self, now: i64) -> Result<(), StoreError> {
        self.catalog.settle_erasures(now.saturating_sub(SETTLED)).await.map(drop)
    }

    /// Every erasure, the first first.
    pub async fn erasures(&self) -> Result<Vec<Erasure>, StoreError> {
        self.catalog.erasures_after(0).await
    }

    fn erases(&self) -> bool {
        matches!(self.role, Some(Role::Appliance | Role::Eraser))
    }
}

/// What interfaces show of an erasure; with `files`, what it did to each.
pub fn erasure_row(erasure: &Erasure, files: Option<&[ErasedFile]>) -> Map<String, Value> {
    let Erasure { id, at, request, state, finished_at, counts, problem } = erasure;
    let mut row = Map::new();
    let mut put = |name: &str, value: Value| row.insert(name.to_owned(), value);
    put("id", json!(id));
    put("at", json!(time(*at)));
    put("who", json!(request.who));
    put("reason", json!(request.reason));
    put("filter", json!(request.filter));
    put("only", json!(request.only.map(TableName::as_str)));
    put("from", json!(time(request.from)));
    put("to", json!(time(request.to)));
    put("state", json!(state.as_str()));
    put("finished_at", json!(finished_at.map(time)));
    put("flows", json!(counts.flows));
    put("transactions", json!(counts.transactions));
    put("rollup_rows", json!(counts.rollup_rows));
    put("minutes_unchecked", json!(counts.minutes_unchecked));
    put("packets_unchecked", json!(counts.packets_unchecked));
    put("files_unread", json!(counts.files_unread));
    put("packets", json!(counts.packets));
    put("problem", json!(problem));
    if let Some(files) = files {
        let file = |file: &ErasedFile| json!({"kind": file.kind, "path": file.path, "items": file.items, "became": file.became});
        put("files", files.iter().map(file).collect());
    }
    row
}

/// What interfaces show of a preview.
pub fn preview_row(preview: &ErasurePreview) -> Map<String, Value> {
    let ErasurePreview { flows, transactions } = preview;
    let files = |kind: &'static str, found: &Erasable| -> Vec<Value> {
        found.files.iter().map(|(path, rows)| json!({"kind": kind, "path": path, "items": rows})).collect()
    };
    let mut row = Map::new();
    row.insert("dry_run".into(), json!(true));
    row.insert("flows".into(), json!(flows.rows));
    row.insert("transactions".into(), json!(transactions.rows));
    row.insert("files_unread".into(), json!(flows.unread.len() + transactions.unread.len()));
    row.insert("files".into(), [files("flows", flows), files("transactions", transactions)].concat().into());
    row
}
