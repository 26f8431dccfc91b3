//! From memory to files: one for each hour.
//!
//! The rows are held against every erasure ([`super::standing`]) before they are written, and the catalog takes them only if there
//! is none that they were not held against. All hours go in one transaction, which is begun before memory is locked.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use wiretag_enrich::Tagged;

use super::error::TableError;
use super::standing::Standing;
use super::{RowKey, Table, TableStore, files, schema};
use crate::catalog::{Change, FlowFile, Origin, TableName, Taken};
use crate::error::StoreError;
use crate::packets::ErasedSlice;

type Chunks<R> = [Arc<Vec<Tagged<R>>>];

/// What becomes of the rows of one hour.
#[derive(Default)]
struct Hour {
    /// What is left of them; `None`: nothing.
    file: Option<FlowFile>,
    /// How many each erasure took.
    taken: HashMap<i64, Taken>,
}

impl<R: Table> TableStore<R> {
    pub(super) async fn flushed(&self) -> Result<u64, StoreError> {
        let result = self.flush_recent().await;
        self.inner.failing.store(result.is_err(), Ordering::Relaxed);
        if result.is_err() {
            self.inner.counts.failed_flushes.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    async fn flush_recent(&self) -> Result<u64, StoreError> {
        let _one_at_a_time = self.inner.writing.lock().await;
        loop {
            let standing = self.standing().await?;
            match self.flush_against(&standing).await {
                // The rows are held against the new one, too.
                Err(StoreError::Erased) => {}
                flushed => return flushed,
            }
        }
    }

    /// Gives the rows that went to files: all that were in memory, or none.
    async fn flush_against(&self, standing: &Arc<Standing<R>>) -> Result<u64, StoreError> {
        let inner = &self.inner;
        let (kept, gone) = {
            let recent = inner.recent.read().await;
            (recent.chunks.clone(), recent.erased.clone())
        };
        let chunks = [&*kept, &*gone].concat();
        if chunks.is_empty() {
            return Ok(0);
        }
        let (dir, taken, against) = (inner.engine.data_dir().to_owned(), chunks.clone(), standing.clone());
        let origin = *inner.origin.lock().unwrap_or_else(PoisonError::into_inner);
        let written = tokio::task::spawn_blocking(move || write_hours(&dir, &taken, &against, origin))
            .await
            .map_err(TableError::from)??;
        let hours: Vec<_> = written.values().map(|hour| (hour.file.as_ref(), &hour.taken)).collect();
        let files = || written.values().filter_map(|hour| hour.file.as_ref());
        let moved = match inner.catalog.prepare_rows(R::NAME, &hours, standing.known).await {
            Ok(change) => self.exchange_rows(change, [&kept, &gone], files().map(|file| file.rows).sum()).await,
            Err(error) => Err(error),
        };
        // A row twice is better than a row that is lost.
        moved.inspect_err(|error| inner.remove_new(error, files().map(|file| file.path.as_str())))
    }

    /// The rows of these chunks are in files from now on, `written` of them; erasures took the others.
    async fn exchange_rows(
        &self,
        change: Change,
        [kept, gone]: [&Chunks<R>; 2],
        written: u64,
    ) -> Result<u64, StoreError> {
        let counts = &self.inner.counts;
        let mut recent = self.inner.exchanging().await;
        change.commit().await?;
        let rows: usize = kept.iter().chain(gone).map(|chunk| chunk.len()).sum();
        recent.rows -= rows;
        // Appends came behind these chunks meanwhile.
        recent.chunks.drain(..kept.len());
        recent.erased.drain(..gone.len());
        counts.written.fetch_add(written, Ordering::Relaxed);
        counts.erased.fetch_add(rows as u64 - written, Ordering::Relaxed);
        counts.recent.store(recent.rows as u64, Ordering::Relaxed);
        Ok(written)
    }
}

/// Number of the hour of a row's start.
fn hour<R: Table>(row: &Tagged<R>) -> i64 {
    row.record.key().start.div_euclid(files::HOUR)
}

/// Of flows: what finds the packets of the row.
fn slice<R: Table>(row: &Tagged<R>) -> Option<ErasedSlice> {
    let RowKey { start, end, flow_id, .. } = row.record.key();
    (R::NAME == TableName::Flows).then_some(ErasedSlice { flow_id, start, end })
}

fn write_hours<R: Table>(
    data_dir: &Path,
    chunks: &Chunks<R>,
    standing: &Standing<R>,
    origin: Origin,
) -> Result<BTreeMap<i64, Hour>, TableError> {
    let mut hours: BTreeMap<i64, Hour> = BTreeMap::new();
    let mut kept: BTreeMap<i64, Vec<&Tagged<R>>> = BTreeMap::new();
    for row in chunks.iter().flat_map(|chunk| chunk.iter()) {
        match standing.takes(row) {
            Some(id) => {
                let taken = hours.entry(hour(row)).or_default().taken.entry(id).or_default();
                taken.rows += 1;
                taken.slices.extend(slice(row));
            }
            None => kept.entry(hour(row)).or_default().push(row),
        }
    }
    for (hour, rows) in kept {
        match write_hour(data_dir, rows, origin) {
            Ok(file) => hours.entry(hour).or_default().file = Some(file),
            Err(error) => {
                for file in hours.values().filter_map(|hour| hour.file.as_ref()) {
                    let _ = std::fs::remove_file(data_dir.join(&file.path));
                }
                return Err(error);
            }
        }
    }
    Ok(hours)
}

/// Writes the rows of one hour to one file. Rows of the same ends lie together, earliest first: their columns are much
/// alike, and a search for one of them reads few pages.
fn write_hour<R: Table>(data_dir: &Path, mut rows: Vec<&Tagged<R>>, origin: Origin) -> Result<FlowFile, TableError> {
    // As numbers: they are compared half a million times.
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    rows.sort_by_cached_key(|row| {
        let (server, port, client) = row.record.ends();
        (bits(server), port, bits(client), row.record.key().start)
    });
    let columns = schema::arrays(&rows)?;
    let schema = schema::schema::<R>();
    files::NewFile { data_dir, table: R::NAME, schema: &schema, origin, letter: files::FLUSHED }.write(&columns)
}
