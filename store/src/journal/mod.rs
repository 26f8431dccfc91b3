//! The journal of open slices: what would be lost if the appliance were killed now, because no row has it yet.
//!
//! ```text
//! journal/00000000000000000007.open     a generation: frames, each with versions of open slices     [frame]
//! ```
//!
//! Invariants:
//! * versions are only appended. The last one of a slice counts, unless the slice has a stored row: then none does;
//! * a generation is deleted when every slice that it knows must have a stored row: that of a flow that falls silent may come when it
//!   is over, so [`KEEP`] after its last frame, as soon as a flush of rows that began after that has worked. While rows cannot be
//!   written, nothing is deleted;
//! * a clean stop removes what the run wrote, after the last rows are stored. What a start finds is of a run that did not
//!   stop: [`recovery`](crate::recovery) makes rows of it, then deletes it. Killed in between, the next start does the same
//!   and finds stored rows where there are some;
//! * a frame that is torn is left out with all that follows in its generation. After a failed write the generation is
//!   cut back to its last whole frame, so nothing follows.
//!
//! Each append is synced: a machine that loses power loses no more than a process that is killed.

pub(crate) mod frame;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use wiretag_enrich::TaggedFlow;

use crate::error::StoreError;
use crate::private;

/// Directory of the journal.
pub(crate) const FOLDER: &str = "journal";
/// How long one generation takes frames, ns.
const GENERATION: i64 = 30_000_000_000;
/// How long after its last frame a generation may have the only version of a slice, ns: the rest of the longest slice (60 s) or the longest silence
/// of a flow whose slices do not end in silence (75 s), and what a row may wait for on its way to the store: names for a minute, and a flush.
const KEEP: i64 = 170_000_000_000;
/// Bytes of a probe: more than a full disk takes now and then.
const PROBE: usize = 64 << 10;
/// Rows in a frame at most.
const FRAME_ROWS: usize = 8192;

/// Appends to the journal; see the module documentation. It writes and syncs, so it is for a thread of its own.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    next: u64,
    current: Option<Current>,
    closed: VecDeque<Generation>,
}

/// A generation that takes frames.
#[derive(Debug)]
struct Current {
    file: File,
    begun: i64,
    own: Generation,
}

#[derive(Debug)]
struct Generation {
    path: PathBuf,
    /// Up to its last whole frame.
    bytes: u64,
    /// When the last frame was written; the beginning before.
    written: i64,
}

impl Journal {
    /// A journal whose first generation is there when this returns: from now on, a run that ends without [`Self::remove`]
    /// is known to have been interrupted.
    pub(crate) fn open(data_dir: &Path, now: i64) -> Result<Self, StoreError> {
        let dir = data_dir.join(FOLDER);
        private::create_dir_all(&dir).map_err(StoreError::io("create", &dir))?;
        let last = generations(data_dir)?.last().and_then(|path| number(path));
        let mut journal = Self { dir, next: last.map_or(0, |last| last + 1), current: None, closed: VecDeque::new() };
        journal.begin(now)?;
        Ok(journal)
    }

    /// Appends versions of open slices. On failure none of them is part of the journal.
    pub fn append(&mut self, rows: &[Arc<TaggedFlow>], now: i64) -> Result<(), StoreError> {
        for rows in rows.chunks(FRAME_ROWS) {
            let rows: Vec<&TaggedFlow> = rows.iter().map(|row| &**row).collect();
            let frame = frame::encode(&rows)?;
            let is_old = |current: &Current| !(0..GENERATION).contains(&now.saturating_sub(current.begun));
            if self.current.as_ref().is_none_or(is_old) {
                self.begin(now)?;
            }
            if let Err(error) = self.write(&frame, now) {
                self.cut_back();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether it would take rows now: what is written to find out is cut off again.
    pub fn probe(&mut self, now: i64) -> Result<(), StoreError> {
        if self.current.is_none() {
            self.begin(now)?;
        }
        let Some(Current { file, own, .. }) = &mut self.current else { return Ok(()) };
        let written = file.write_all(&vec![0; PROBE]).and_then(|()| file.sync_data());
        let written = written.map_err(StoreError::io("write", &own.path));
        self.cut_back();
        written
    }

    /// Deletes the generations that nothing needs any more; `flushed` is when the last flush of flows began that worked.
    pub fn retire(&mut self, flushed: i64) -> Result<(), StoreError> {
        while let Some(oldest) = self.closed.pop_front_if(|oldest| flushed.saturating_sub(oldest.written) >= KEEP) {
            remove_file(&oldest.path)?;
        }
        Ok(())
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        let current = self.current.as_ref().map(|current| &current.own);
        self.closed.iter().chain(current).map(|generation| generation.bytes).sum()
    }

    /// Removes what this run wrote: every slice has a stored row.
    pub fn remove(self) -> Result<(), StoreError> {
        for generation in self.closed.iter().chain(self.current.as_ref().map(|current| &current.own)) {
            remove_file(&generation.path)?;
        }
        Ok(())
    }

    /// Begins a generation.
    fn begin(&mut self, now: i64) -> Result<(), StoreError> {
        let path = self.dir.join(format!("{:020}.open", self.next));
        self.next += 1;
        let file = private::create(&path).map_err(StoreError::io("create", &path))?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(StoreError::io("sync", &self.dir))?;
        let own = Generation { path, bytes: 0, written: now };
        let before = self.current.replace(Current { file, begun: now, own });
        self.closed.extend(before.map(|current| current.own));
        // By a clock that went back they would be kept until it is there again.
        self.closed.iter_mut().for_each(|old| old.written = old.written.min(now));
        Ok(())
    }

    fn write(&mut self, frame: &[u8], now: i64) -> Result<(), StoreError> {
        let Some(Current { file, own, .. }) = &mut self.current else { return Ok(()) };
        let written = file.write_all(frame).and_then(|()| file.sync_data());
        written.map_err(StoreError::io("write", &own.path))?;
        own.bytes += frame.len() as u64;
        own.written = now;
        Ok(())
    }

    /// What is behind the last whole frame goes, or nothing more comes behind it.
    fn cut_back(&mut self) {
        let Some(Current { file, own, .. }) = &mut self.current else { return };
        let cut = file.set_len(own.bytes).and_then(|()| file.seek(SeekFrom::Start(own.bytes)));
        if cut.is_err() {
            self.closed.extend(self.current.take().map(|current| current.own));
        }
    }
}

/// The generations in a data directory, the first begun first.
pub(crate) fn generations(data_dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let dir = data_dir.join(FOLDER);
    let entries = match std::fs::read_dir(&dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(StoreError::io("read", &dir))?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(StoreError::io("read", &dir))?.path();
        if number(&path).is_some() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// When the last of these generations was written to, by the clock of the disk; the epoch if it does not say.
pub(crate) fn last_written(generations: &[PathBuf]) -> i64 {
    let modified = |path: &PathBuf| path.metadata().ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok();
    let last = generations.iter().filter_map(modified).max().unwrap_or_default();
    i64::try_from(last.as_nanos()).unwrap_or(i64::MAX)
}

/// Deletes a generation; it may be gone already.
pub(crate) fn remove_file(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("delete", path)(error)),
        _ => Ok(()),
    }
}

fn number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(".open")?.parse().ok()
}
