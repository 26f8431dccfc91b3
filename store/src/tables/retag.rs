//! Names for stored rows that were told too late: file by file, as an erasure goes through them ([`super::erase`]).
//!
//! * Only ends without a name get one ([`wiretag_enrich::tagger::Again`]); a file in which none does stays as it is, and one that
//!   cannot have such rows is not read: least and greatest times, bloom filters of addresses, and the number of nulls say so.
//! * Another is written anew with these names, and takes the place of the old one in one transaction. The roll-up that adds it up is
//!   dropped and made again; where that cannot be, because retention took others of its files, the rows keep what they have, and the
//!   file is not read.
//! * What was erased before by a name stays so: a row that only now is of it goes. An import of later than the erasure is another
//!   matter: who imports something that was erased wants it back.
//! * A merge or retention may take a file first: what it became is looked at in the next round.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use datafusion::arrow::buffer::BooleanBuffer;
use wiretag_enrich::tagger::Again;
use wiretag_enrich::timeline::late::LateRows;

use super::engine::Condition;
use super::error::TableError;
use super::named::{self, Named};
use super::rewrite::{self, Goes};
use super::scan::OpenFile;
use super::standing::Standing;
use super::{Range, Table, TableStore};
use crate::catalog::{FlowFile, TableName, Taken};
use crate::error::StoreError;
use crate::query;

/// Rounds at most. Files that come later have rows that were tagged later.
const ROUNDS: usize = 8;
/// Erasures that may come between before a file is left as it is for now.
const AGAIN: usize = 8;

/// How far it is.
#[derive(Debug, Default)]
pub struct Retagging {
    round: usize,
    waiting: Vec<FlowFile>,
    looked_at: HashSet<String>,
}

/// A file as it is to be.
struct Renamed {
    new: Option<FlowFile>,
    taken: HashMap<i64, Taken>,
}

impl<R: Table> TableStore<R> {
    pub(super) async fn named_next(
        &self,
        late: &LateRows,
        (again, progress): (&Again, &mut Retagging),
        now: i64,
    ) -> Result<Option<u64>, StoreError> {
        if progress.waiting.is_empty() {
            if progress.round == 0 {
                // Whoever gives up does not leave rows both in memory and in a file.
                let store = self.clone();
                tokio::spawn(async move { store.flush().await }).await.map_err(TableError::from)??;
            }
            if progress.round == ROUNDS {
                return Ok(None);
            }
            progress.round += 1;
            let files = self.inner.catalog.flow_files(R::NAME, late.from, late.to).await?;
            let lasting =
                if R::NAME == TableName::Flows { self.inner.catalog.lasting().await? } else { HashSet::new() };
            let stays = |file: &FlowFile| lasting.contains(&file.path) || progress.looked_at.contains(&file.path);
            progress.waiting = files.into_iter().filter(|file| !stays(file)).collect();
        }
        // The newest first.
        let Some(file) = progress.waiting.pop() else { return Ok(None) };
        progress.looked_at.insert(file.path.clone());
        match self.named(&file, late, again).await {
            Ok((_, named)) if named.rows() == 0 => Ok(Some(0)),
            Ok((open, named)) => {
                let (rows, became) = self.exchange_named(&file, (open, named), now).await?;
                // What is left without a name there has none.
                progress.looked_at.extend(became);
                Ok(Some(rows))
            }
            Err(error) if self.is_kept(&file).await? => {
                tracing::warn!(%error, "a file cannot be read: its rows are not named");
                self.inner.counts.unreadable_files.fetch_add(1, Ordering::Relaxed);
                Ok(Some(0))
            }
            // A merge or retention took it.
            Err(_) => Ok(Some(0)),
        }
    }

    /// The rows of a file that have a name by now.
    async fn named(&self, file: &FlowFile, late: &LateRows, again: &Again) -> Result<(OpenFile, Named), TableError> {
        let open = self.inner.engine.open_files(&[file]).await?;
        let Some(open) = open.into_iter().next() else { return Err(TableError::Range("a file was not opened")) };
        let (condition, again) = (condition::<R>(late)?, again.clone());
        let work = move || named::named(&open, &condition, &again).map(|named| (open, named));
        tokio::task::spawn_blocking(work).await?
    }

    /// Puts the file with names in the place of the one without. Gives the rows that have one now, and its path.
    async fn exchange_named(
        &self,
        old: &FlowFile,
        (open, named): (OpenFile, Named),
        now: i64,
    ) -> Result<(u64, Option<String>), StoreError> {
        let inner = &self.inner;
        // Neither a merge nor a roll-up nor an erasure reads the file meanwhile.
        let _no_merge = inner.merging.lock().await;
        let mut no_rollup = inner.rolling.lock().await;
        no_rollup.forget_begun();
        if !self.is_kept(old).await? {
            return Ok((0, None));
        }
        let named = std::sync::Arc::new(named);
        for _ in 0..AGAIN {
            let standing = self.standing().await?;
            let renamed = self.rename(old, (&open, &named), &standing).await?;
            let against = (standing.known, &renamed.taken);
            let change = inner.catalog.prepare_named((old, renamed.new.as_ref()), against, now).await;
            match inner.exchange(change, renamed.new.as_ref().map(|new| new.path.as_str())).await {
                Ok(()) => {
                    let gone: u64 = renamed.taken.values().map(|taken| taken.rows).sum();
                    let rows = named.rows().saturating_sub(gone);
                    inner.counts.retagged.fetch_add(rows, Ordering::Relaxed);
                    inner.counts.removed.fetch_add(gone, Ordering::Relaxed);
                    return Ok((rows, renamed.new.map(|new| new.path)));
                }
                // A roll-up that cannot be made again has it; or retention was faster.
                Err(StoreError::Gone { .. }) => return Ok((0, None)),
                Err(StoreError::Erased) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((0, None))
    }

    /// Writes the file with names, without what these make part of an erasure.
    async fn rename(
        &self,
        old: &FlowFile,
        (open, named): (&OpenFile, &std::sync::Arc<Named>),
        standing: &Standing<R>,
    ) -> Result<Renamed, StoreError> {
        let (dir, file, source, names) =
            (self.inner.engine.data_dir().to_owned(), old.clone(), open.clone(), named.clone());
        let work = move || rewrite::with_names::<R>(&dir, (&file, &source), &names);
        let new = tokio::task::spawn_blocking(work).await.map_err(TableError::from)??;
        let mut renamed = Renamed { new: Some(new), taken: HashMap::new() };
        let since = old.origin.import.map(|_| old.origin.stored_at);
        let conditions: Vec<(i64, Condition<R>)> = standing.since(since).filter(|(_, own)| own.touches(old)).collect();
        let Some(new) = renamed.new.clone().filter(|_| !conditions.is_empty()) else { return Ok(renamed) };
        let opened = self.inner.engine.open_files(&[&new]).await?;
        let Some(opened) = opened.into_iter().next() else { return Ok(renamed) };
        let (dir, names) = (self.inner.engine.data_dir().to_owned(), named.clone());
        let work = move || without_erased(&dir, (&new, &opened), (&names, &conditions));
        let left = tokio::task::spawn_blocking(work).await.map_err(TableError::from)?;
        if let Some(left) = left? {
            if let Some(new) = renamed.new.take() {
                let path = self.inner.engine.data_dir().join(&new.path);
                std::fs::remove_file(&path).map_err(TableError::io("delete", &path))?;
            }
            renamed = left;
        }
        Ok(renamed)
    }
}

/// What is left of a file of which rows got names: these may make them part of an erasure. `None`: all of it.
fn without_erased<R: Table>(
    data_dir: &std::path::Path,
    (file, open): (&FlowFile, &OpenFile),
    (named, conditions): (&Named, &[(i64, Condition<R>)]),
) -> Result<Option<Renamed>, TableError> {
    let mut taken = HashMap::new();
    let mut all: Vec<Goes> = open.groups().iter().map(|_| None).collect();
    for (id, condition) in conditions {
        let mut own = super::scan::passing(open, condition)?;
        for (group, (goes, before)) in own.iter_mut().zip(&mut all).enumerate() {
            let Some(passing) = goes.take() else { continue };
            let rows: HashSet<usize> = named.of_group(group).iter().map(|(row, _)| *row as usize).collect();
            let is_new = |row: usize| before.as_ref().is_none_or(|before| !before.value(row));
            let mask = BooleanBuffer::collect_bool(passing.len(), |row| {
                passing.value(row) && rows.contains(&row) && is_new(row)
            });
            if mask.count_set_bits() > 0 {
                *before = Some(before.as_ref().map_or_else(|| mask.clone(), |before| before | &mask));
                *goes = Some(mask);
            }
        }
        let rows = rewrite::count(&own);
        if rows > 0 {
            taken.insert(*id, Taken { rows, slices: rewrite::slices::<R>(open, &own, condition.range.to)? });
        }
    }
    if taken.is_empty() {
        return Ok(None);
    }
    let new = rewrite::without::<R>(data_dir, (file, open), &all)?;
    Ok(Some(Renamed { new, taken }))
}

/// Rows with an end without a name, at one of the addresses.
fn condition<R: Table>(late: &LateRows) -> Result<Condition<R>, TableError> {
    let text = ranges(late).map_or_else(String::new, |ranges| format!("({ranges}) and "));
    let query = query::parse::<R>(&format!("{text}(not client_identity exists or not server_identity exists)"))?;
    Ok(Condition::new(query.node, Range { from: late.from, to: late.to }, true))
}

/// The addresses, also those behind a translation.
fn ranges(late: &LateRows) -> Option<String> {
    let is_one = |ip: &std::net::IpAddr, prefix: u8| prefix == if ip.is_ipv4() { 32 } else { 128 };
    let mut tests = Vec::new();
    let single = late.ranges.iter().filter(|(ip, prefix)| is_one(ip, *prefix));
    let single: Vec<String> = single.map(|(ip, _)| ip.to_string()).collect();
    let wider = late.ranges.iter().filter(|(ip, prefix)| !is_one(ip, *prefix));
    let wider: Vec<String> = wider.map(|(ip, prefix)| format!("{ip}/{prefix}")).collect();
    for field in ["ip", "nat_ip"] {
        if !single.is_empty() {
            tests.push(format!("{field} in {{{}}}", single.join(", ")));
        }
        tests.extend(wider.iter().map(|range| format!("{field} in {range}")));
    }
    (!tests.is_empty()).then(|| tests.join(" or "))
}
