//! On start, while nobody else writes: the disk and the catalog are made to agree.
//!
//! * files that were waiting to be deleted are deleted, and so is what an erasure had begun to write;
//! * segments that were open are cut back to their last whole block and sealed, registered or not; one with which this fails stays as it is, and
//!   the next start tries again;
//! * rows of segments whose file is gone are removed;
//! * imports that were killed are said, and may be repeated.
//!
//! Flow files are looked after by the flow store itself. When that is open, the appliance makes rows of what a run that was
//! interrupted left in its journal ([`crate::journal`]); importers leave it alone.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::catalog::{Catalog, Import, ImportState, Origin};
use crate::error::StoreError;
use crate::journal;
use crate::packets::{self, FOLDER, Segment};
use crate::retention;
use crate::tables::FlowStore;

/// Sentences about what had to be repaired; empty after a clean stop.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// One sentence a repair.
    pub repairs: Vec<String>,
    /// The last run of the appliance did not stop: it was killed, it crashed, or its last rows could not be written.
    pub interrupted: bool,
}

pub(crate) async fn recover(data_dir: &Path, catalog: &Catalog) -> Result<Recovery, StoreError> {
    let mut recovery = Recovery::default();
    retention::delete_due(data_dir, catalog, i64::MAX).await?;
    let mut registered: HashMap<String, Segment> =
        catalog.all_segments().await?.into_iter().map(|segment| (segment.path.clone(), segment)).collect();
    let killed = catalog.killed_imports().await?;
    let origin = |import: &Import| Origin { import: Some(import.id), stored_at: import.started_at };
    let started: HashMap<Option<i64>, Origin> = killed.iter().map(|import| (Some(import.id), origin(import))).collect();
    let mut found = Vec::new();
    for path in packets::list(data_dir).map_err(StoreError::io("list", &data_dir.join(FOLDER)))? {
        let known = registered.remove(&path);
        if known.is_some_and(|segment| segment.sealed && data_dir.join(&path).exists()) {
            continue;
        }
        let recovered = {
            let (data_dir, path) = (data_dir.to_path_buf(), path.clone());
            tokio::task::spawn_blocking(move || packets::recover(&data_dir, &path))
                .await
                .map_err(|error| StoreError::Task(error.to_string()))?
        };
        // It is read as far as it can be; a disk that fails in one place must not keep everything from starting.
        let recovered = match recovered {
            Ok(recovered) => recovered,
            Err(error) => {
                recovery.repairs.push(format!("`{path}` cannot be made whole now and stays as it is: {error}"));
                continue;
            }
        };
        match (&recovered.segment, recovered.cut) {
            (Some(_), 0) => {}
            (Some(segment), cut) => recovery.repairs.push(format!(
                "`{path}` was cut back to its last whole block: {cut} bytes of it were torn, {} packets are whole",
                segment.packets
            )),
            (None, cut) => {
                recovery.repairs.push(format!("`{path}` held no whole block and was deleted ({cut} bytes)"));
                registered.insert(path.clone(), Segment::lost(&path));
            }
        }
        found.extend(recovered.segment.map(|segment| {
            let origin = started.get(&segment.origin.import).copied();
            Segment { origin: origin.unwrap_or_default(), ..segment }
        }));
    }
    catalog.add_segments(&found).await?;
    let gone: Vec<String> = registered.into_keys().collect();
    for path in &gone {
        if !recovery.repairs.iter().any(|sentence| sentence.contains(path.as_str())) {
            recovery.repairs.push(format!("`{path}` is gone from the disk: its packets are no longer listed"));
        }
    }
    catalog.remove_segments(&gone).await?;
    delete_unknown_rollups(data_dir, catalog).await?;
    packets::delete_temporary(data_dir)?;
    for import in killed {
        recovery.repairs.push(format!(
            "the import of `{}` was killed: its packets are there, some of its flows are not; hint: import it again, which \
             replaces what there is",
            import.name
        ));
        catalog.end_import(import.id, ImportState::Partial, import.stored).await?;
    }
    Ok(recovery)
}

/// Roll-ups that the catalog does not name were not finished, and are made again.
async fn delete_unknown_rollups(data_dir: &Path, catalog: &Catalog) -> Result<(), StoreError> {
    let known: HashSet<PathBuf> = catalog.rollups().await?.into_iter().map(|file| data_dir.join(file.path)).collect();
    let mut folders = vec![data_dir.join(crate::tables::rollup::FOLDER)];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(StoreError::io("list", &folder)(error)),
        };
        for entry in entries {
            let path = entry.map_err(StoreError::io("list", &folder))?.path();
            if path.is_dir() {
                folders.push(path);
            } else if !known.contains(&path) {
                std::fs::remove_file(&path).map_err(StoreError::io("delete", &path))?;
            }
        }
    }
    Ok(())
}

/// Makes rows of the slices that were open when the last run of the appliance was interrupted. If that cannot be done now, the
/// journal stays for the next start, and this one goes on.
pub(crate) async fn recover_open(data_dir: &Path, flows: &FlowStore, recovery: &mut Recovery) {
    let generations = match journal::generations(data_dir) {
        Ok(generations) if generations.is_empty() => return,
        Ok(generations) => generations,
        Err(error) => return recovery.repairs.push(format!("the journal of open flows cannot be read: {error}")),
    };
    recovery.interrupted = true;
    let recovered = flows.recover(&generations).await;
    let deleted = |rows| generations.iter().try_for_each(|path| journal::remove_file(path)).map(|()| rows);
    recovery.repairs.push(match recovered.and_then(deleted) {
        Ok(rows) => format!(
            "the last run was interrupted: {rows} open flows were recovered, as they were a few seconds before \
             (`end_reason == interrupted`)"
        ),
        Err(error) => format!(
            "the last run was interrupted, and its open flows cannot be recovered now: {error}; the next start tries again"
        ),
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it fails")]
mod tests {
    use super::*;

    /// Files that wait are not taken for files that nobody knows, however many there are.
    #[tokio::test]
    async fn everything_that_waits_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&dir.path().join("catalog.sqlite")).await.unwrap();
        let mut waiting: Vec<(String, u64)> = (0..10_000).map(|at| (format!("flows/{at}"), 1)).collect();
        let segment = format!("{FOLDER}/date=2026-03-01/000000-a-000001{}", packets::SUFFIX);
        waiting.push((segment.clone(), 1));
        let full = dir.path().join(&segment);
        std::fs::create_dir_all(full.parent().unwrap()).unwrap();
        std::fs::write(&full, "a segment").unwrap();
        catalog.retire(&[], &waiting, (crate::catalog::Why::Other, 1)).await.unwrap();
        let recovery = recover(dir.path(), &catalog).await.unwrap();
        assert_eq!(recovery.repairs, Vec::<String>::new());
        assert!(!full.exists() && catalog.removals().await.unwrap().is_empty());
    }
}
