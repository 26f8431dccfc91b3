//! On start, while nobody else writes: the disk and the catalog are made to agree.
//!
//! * files that were waiting to be deleted are deleted, and so is what an erasure had begun to write;
//! * segments that were open are cut back to their last whole block and sealed, registered or not; one with which this fails stays as it is, and
//!   the next start tries again;
//! * packets that their index does not speak of, and segments that an erasure replaced, are moved to `set-aside/`;
//! * segments whose file is gone stay on record, as sealed ones that take no room: their packets are missing ([`crate::gone`]) until they are back;
//! * imports that were killed are said, and may be repeated.
//!
//! Beside an import the appliance looks after the segments of its own last run alone, which nobody writes any more, and an erasure after those of
//! imports that were killed meanwhile ([`crate::erase`]).
//!
//! Flow files are looked after by the flow store itself. When that is open, the appliance makes rows of what a run that was
//! interrupted left in its journal ([`crate::journal`]); importers leave it alone.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::catalog::{Catalog, ImportState, Origin};
use crate::error::StoreError;
use crate::journal;
use crate::packets::{self, FOLDER, Recovered, Segment};
use crate::retention;
use crate::set_aside::set_aside;
use crate::tables::FlowStore;

/// Numbers above are of no import, whatever a file is named.
const MOST_IMPORTS: i64 = 1 << 32;

/// Sentences about what had to be repaired; empty after a clean stop.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// One sentence a repair.
    pub repairs: Vec<String>,
    /// The last run of the appliance did not stop: it was killed, it crashed, or its last rows could not be written. When it wrote to its journal
    /// last, ns since the epoch.
    pub interrupted: Option<i64>,
}

pub(crate) async fn recover(data_dir: &Path, catalog: &Catalog) -> Result<Recovery, StoreError> {
    let mut recovery = Recovery::default();
    let deleted = retention::delete_due(data_dir, catalog, i64::MAX).await?;
    let imports = catalog.imports().await?;
    recovery.repairs = recover_segments(data_dir, catalog, &|_| true).await?;
    // What stays is in no answer; a disk that fails in one place must not keep everything from starting.
    let others = [delete_unknown_rollups(data_dir, catalog).await?, packets::delete_temporary(data_dir).err()];
    let undeleted = [deleted.failed].into_iter().chain(others).flatten();
    let told = |error| format!("a file that is in no answer any more stays on the disk: {error}");
    recovery.repairs.extend(undeleted.map(told));
    for import in imports.into_iter().filter(|import| import.state == ImportState::Open) {
        recovery.repairs.push(format!(
            "the import of `{}` was killed: its packets are there, some of its flows are not; hint: import it again, which \
             replaces what there is",
            import.name
        ));
        catalog.end_import(import.id, ImportState::Partial, import.stored).await?;
    }
    Ok(recovery)
}

/// Makes the segments whole and sealed that are of an import (`None`: of the appliance) of which `is_over` says that it writes no more. Gives a
/// sentence a repair.
pub(crate) async fn recover_segments(
    data_dir: &Path,
    catalog: &Catalog,
    is_over: &(dyn Fn(Option<i64>) -> bool + Sync),
) -> Result<Vec<String>, StoreError> {
    let mut repairs = Vec::new();
    let mut registered: HashMap<String, Segment> =
        catalog.all_segments().await?.into_iter().map(|segment| (segment.path.clone(), segment)).collect();
    let erased = catalog.erased_segments().await?;
    let imports = catalog.imports().await?.into_iter();
    let origins: HashMap<Option<i64>, Origin> = imports.map(|import| (Some(import.id), import.origin())).collect();
    let (mut found, mut removed) = (Vec::new(), Vec::new());
    let names = packets::list(data_dir).map_err(StoreError::io("list", &data_dir.join(FOLDER)))?;
    // Of a lost catalog names may be left that its imports had.
    let taken = names.iter().filter_map(|path| packets::import_of(path)).filter(|import| *import < MOST_IMPORTS).max();
    catalog.number_imports_above(taken.unwrap_or(0)).await?;
    // What waits there is out of the catalog for good.
    let waiting: HashSet<String> = catalog.removals().await?.into_iter().collect();
    for path in names.into_iter().filter(|path| !waiting.contains(path)) {
        // Of one that is away for now the index stays.
        if !data_dir.join(&path).exists() {
            continue;
        }
        let known = registered.remove(&path);
        if !is_over(known.as_ref().map_or_else(|| packets::import_of(&path), |segment| segment.origin.import)) {
            continue;
        }
        let was_gone = known.as_ref().is_some_and(|segment| segment.bytes == 0);
        if known.is_some_and(|segment| segment.sealed) && !was_gone {
            continue;
        }
        if erased.contains(&path) {
            repairs.push(
                put_aside(data_dir, &path)
                    .unwrap_or_else(|error| format!("`{path}` has packets that were erased: {error}")),
            );
            continue;
        }
        let work = {
            let (data_dir, path) = (data_dir.to_path_buf(), path.clone());
            move || packets::recover(&data_dir, &path)
        };
        // It is read as far as it can be; a disk that fails in one place must not keep everything from starting.
        match tokio::task::spawn_blocking(work).await.map_err(|error| StoreError::Task(error.to_string()))? {
            Ok(recovered) => {
                repairs.extend(sentence(&path, &recovered));
                match recovered.segment {
                    Some(segment) => {
                        let origin = origins.get(&segment.origin.import).copied().unwrap_or_default();
                        found.push(Segment { origin, ..segment });
                    }
                    // What came back holds nothing: the packets are still missing.
                    None if was_gone => {}
                    None => removed.push(path),
                }
            }
            Err(error) => repairs.push(format!("`{path}` cannot be made whole now and stays as it is: {error}")),
        }
    }
    let gone: Vec<Segment> = registered.into_values().filter(|segment| is_over(segment.origin.import)).collect();
    repairs.extend(gone_sentence(&gone));
    // Nobody writes them any more.
    found.extend(gone.into_iter().map(|segment| Segment { bytes: 0, sealed: true, ..segment }));
    catalog.add_segments(&found).await?;
    catalog.remove_segments(&removed).await?;
    Ok(repairs)
}

/// What is missing; the next start says it again.
fn gone_sentence(gone: &[Segment]) -> Option<String> {
    let first = gone.iter().map(|segment| segment.path.as_str()).min()?;
    let packets: u64 = gone.iter().map(|segment| segment.packets).sum();
    Some(match gone.len() - 1 {
        0 => format!("`{first}` is gone from the disk: its {packets} packets are missing until it is restored"),
        more => format!(
            "`{first}` and {more} more segments are gone from the disk: their {packets} packets are missing until they are restored"
        ),
    })
}

/// What was done to a segment, if it was not whole.
fn sentence(path: &str, recovered: &Recovered) -> Option<String> {
    let Recovered { segment, cut, set_aside } = recovered;
    let packets = segment.as_ref().map(|segment| segment.packets);
    Some(match (packets, set_aside) {
        (Some(_), None) if *cut == 0 => return None,
        (Some(packets), None) => format!(
            "`{path}` was cut back to its last whole block: {cut} bytes of it were torn, {packets} packets are whole"
        ),
        (Some(packets), Some(file)) => format!(
            "`{path}` or its index is damaged behind {packets} packets: the {cut} bytes of packets that follow were moved to `{}`; hint: \
             it is a capture file of its own",
            file.display()
        ),
        (None, Some(file)) => format!(
            "`{path}` has packets, and no index that can be read: it was moved to `{}`; hint: it is a capture file as it is",
            file.display()
        ),
        (None, None) => format!("`{path}` held no whole block and was deleted ({cut} bytes)"),
    })
}

/// A segment that an erasure replaced, and that somebody copied back, comes into no answer.
fn put_aside(data_dir: &Path, path: &str) -> Result<String, StoreError> {
    let full = data_dir.join(path);
    let mut moved = None;
    for file in [packets::index_path(&full), full] {
        moved = set_aside(data_dir, &file).map_err(StoreError::io("move", &file))?;
    }
    let target = moved.unwrap_or_default();
    Ok(format!(
        "`{path}` has packets that were erased: somebody copied it back, and it was moved to `{}`; hint: delete it there",
        target.display()
    ))
}

/// Roll-ups that the catalog does not name were not finished, and are made again. Gives the first error, if one cannot be deleted.
async fn delete_unknown_rollups(data_dir: &Path, catalog: &Catalog) -> Result<Option<StoreError>, StoreError> {
    let named = catalog.rollups().await?.into_iter().map(|file| file.path);
    let known: HashSet<PathBuf> = named.chain(catalog.removals().await?).map(|path| data_dir.join(path)).collect();
    let mut failed = None;
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
            } else if !known.contains(&path)
                && let Err(error) = std::fs::remove_file(&path)
            {
                failed = failed.or(Some(StoreError::io("delete", &path)(error)));
            }
        }
    }
    Ok(failed)
}

/// Makes rows of the slices that were open when the last run of the appliance was interrupted. If that cannot be done now, the
/// journal stays for the next start, and this one goes on.
pub(crate) async fn recover_open(data_dir: &Path, flows: &FlowStore, recovery: &mut Recovery) {
    let generations = match journal::generations(data_dir) {
        Ok(generations) if generations.is_empty() => return,
        Ok(generations) => generations,
        Err(error) => return recovery.repairs.push(format!("the journal of open flows cannot be read: {error}")),
    };
    recovery.interrupted = Some(journal::last_written(&generations));
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
