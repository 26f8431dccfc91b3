//! The packet log: segments of zstd-compressed pcapng, and beside each an index of the flows in its blocks.
//!
//! ```text
//! packets/date=2026-11-24/143005-node-000001.pcapng.zst         frame | frame | … | seek table
//! packets/date=2026-11-24/143005-node-000001.pcapng.zst.index   magic | record | record | … | seal
//! ```
//!
//! A segment is a sequence of independent zstd frames. The first holds the section header, each further one is a
//! *block*: interface descriptions of the interfaces that appear in it for the first time, then packets, about
//! `block_bytes` before compression. A sealed segment ends with the seek table of zstd's seekable format in a skippable
//! frame. So `zstd -dc` reads it as it is (Wireshark 4.0 does not get over
//! the second frame of any zstd file: pipe it), and one block is read alone by putting the section header and the
//! interface descriptions (which the index repeats) before it. What is in the frames of a block may be compressed or not
//! ([`Compression`]): zstd has both, and a decoder does not care. Damage is found by the checksum that the index has of
//! each frame.
//!
//! Invariants:
//! * a frame is written before its index record, so a record that checks speaks of a frame that is there;
//! * what follows the last good record is torn: readers ignore it, [`fn@recover`] cuts it off, and sets aside what has packets all the same;
//! * a sealed segment never changes: an erasure puts another one in its place ([`erase`]); a segment is written by one [`PacketLog`] only;
//! * memory is one block for writing, and for reading the wanted packets of blocks that overlap in time;
//! * a packet handed to [`PacketLog::append`] is written or counted as lost.
//!
//! Limits: an interface table of 65,535 entries a segment (then a new segment begins); flushes are not synced to the disk,
//! only sealing is: a power cut loses what the kernel had not written yet, and the checksums find where.

mod erase;
mod frame;
mod index;
mod log;
mod read;
mod recover;
mod segment;
mod slices;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::catalog::Origin;

pub(crate) use erase::{ErasedSlice, ErasedSlices, FlowPackets, delete_temporary, discard, publish, without};
pub use frame::{Backlog, Compression};
pub use log::{PacketLog, PacketLogConfig, PacketLogCounters};
pub use read::{Each, ReadStats, Wanted, read_flows};
pub use recover::{Recovered, recover};
pub use slices::Slices;

/// A segment as the catalog knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Path of the `.pcapng.zst`, relative to the data directory.
    pub path: String,
    /// Node that wrote it.
    pub node: String,
    /// Packets in whole blocks.
    pub packets: u64,
    /// Bytes on disk, index included; 0: a start did not find it there.
    pub bytes: u64,
    /// Time of the earliest packet.
    pub start: i64,
    /// Time of the latest packet.
    pub end: i64,
    /// Complete: it never changes again.
    pub sealed: bool,
    /// Where its packets came from.
    pub origin: Origin,
}

/// What the packet log tells the store, and the store the packet log.
#[derive(Debug, Clone, Default)]
pub struct SegmentChanges(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Segments that changed since the catalog was told; one entry a segment, whatever happens in between.
    changed: Mutex<BTreeMap<String, Segment>>,
    /// The open segment is to be sealed.
    seal: AtomicBool,
}

impl SegmentChanges {
    /// Notes the present state of a segment.
    pub fn note(&self, segment: Segment) {
        self.lock().insert(segment.path.clone(), segment);
    }

    /// Takes what has been noted.
    pub fn take(&self) -> Vec<Segment> {
        std::mem::take(&mut *self.lock()).into_values().collect()
    }

    /// Asks for the open segment to be sealed at the next flush.
    pub(crate) fn want_seal(&self) {
        self.0.seal.store(true, Ordering::Relaxed);
    }

    /// Whether that was asked for since it was asked last.
    fn seal_is_wanted(&self) -> bool {
        self.0.seal.swap(false, Ordering::Relaxed)
    }

    /// Puts back what could not be recorded, unless there is newer news.
    pub fn put_back(&self, segments: Vec<Segment>) {
        let mut changes = self.lock();
        for segment in segments {
            changes.entry(segment.path.clone()).or_insert(segment);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Segment>> {
        self.0.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Folder of the packet log in the data directory.
pub const FOLDER: &str = "packets";
/// How a segment's name ends.
pub const SUFFIX: &str = ".pcapng.zst";

/// The index beside a segment.
pub fn index_path(segment: &Path) -> PathBuf {
    let mut path = segment.as_os_str().to_owned();
    path.push(".index");
    PathBuf::from(path)
}

/// Name of the node of an import's segments.
pub fn import_node(import: i64) -> String {
    format!("import.{import}")
}

/// The import that a segment's name says it is of.
pub(crate) fn import_of(path: &str) -> Option<i64> {
    node_of(path).strip_prefix("import.")?.parse().ok()
}

/// The node in a segment's name.
fn node_of(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split_once('-').and_then(|(_, rest)| rest.rsplit_once('-')).map_or("", |(node, _)| node)
}

/// Every segment file in the data directory, as paths relative to it, sorted; also names whose index alone is there.
pub fn list(data_dir: &Path) -> std::io::Result<Vec<String>> {
    let root = data_dir.join(FOLDER);
    let mut found = std::collections::BTreeSet::new();
    if !root.exists() {
        return Ok(Vec::new());
    }
    for day in std::fs::read_dir(root)? {
        let day = day?;
        if !day.file_type()?.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(day.path())? {
            let name = file?.file_name();
            let Some(name) = name.to_str() else { continue };
            let name = name.strip_suffix(".index").unwrap_or(name);
            if name.ends_with(SUFFIX) {
                found.insert(format!("{FOLDER}/{}/{name}", day.file_name().to_string_lossy()));
            }
        }
    }
    Ok(found.into_iter().collect())
}
