//! Room for a full disk: `reserve` in the data directory.
//!
//! What retention takes is written to the catalog before files are deleted, so a disk that packets have filled to the last block would
//! stay full. A start gives the reserve up before it opens the catalog, and so does retention that fails; where retention has gone through,
//! it takes the room again, before packets do, as much of it as there is.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use futures_util::future::BoxFuture;

use crate::error::StoreError;
use crate::retention::{self, Retired};
use crate::{Store, private};

/// Name in the data directory.
const FILE: &str = "reserve";
/// The catalog's shared memory and what a few of its transactions write, the first file of a journal, `run.json`.
const BYTES: u64 = 1 << 20;

impl Store {
    /// Applies the limits of what is kept at the time `now`. On a full disk too: a start does it before packets come.
    pub fn retire(&self, now: i64) -> BoxFuture<'_, Result<Retired, StoreError>> {
        Box::pin(async move {
            let (retired, failed) = self.retired(now).await?;
            failed.map_or(Ok(retired), Err)
        })
    }

    /// With the reason why something is still on the disk that is to be deleted.
    pub(crate) async fn retired(&self, now: i64) -> Result<(Retired, Option<StoreError>), StoreError> {
        let retired = match self.applied(now).await {
            Err(_) if self.compacts && release(&self.data_dir) => self.applied(now).await,
            retired => retired,
        };
        if retired.is_ok() && self.compacts {
            // On a full disk the next round has more of it.
            let _ = take(&self.data_dir);
        }
        retired
    }

    async fn applied(&self, now: i64) -> Result<(Retired, Option<StoreError>), StoreError> {
        let retired = retention::apply(&self.catalog, self.retention, now).await?;
        let deleted = self.delete_old(now).await?;
        Ok((Retired { deleted: deleted.files, ..retired }, deleted.failed))
    }
}

/// Gives the room up; true if there was some.
pub(crate) fn release(data_dir: &Path) -> bool {
    std::fs::remove_file(data_dir.join(FILE)).is_ok()
}

/// Takes what is missing of it.
fn take(data_dir: &Path) -> io::Result<()> {
    let mut file = private::options().append(true).create(true).open(data_dir.join(FILE))?;
    let missing = BYTES.saturating_sub(file.metadata()?.len());
    write(&mut file, missing)
}

/// Writes what a file system cannot make smaller.
fn write(file: &mut File, bytes: u64) -> io::Result<()> {
    const BLOCK: u64 = 4096;
    for block in 0..bytes.div_ceil(BLOCK) {
        let words = block * BLOCK / 8..(block + 1) * BLOCK / 8;
        let noise: Vec<u8> = words.flat_map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
        file.write_all(&noise)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it fails")]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let length = || std::fs::metadata(directory.path().join(FILE)).map_or(0, |file| file.len());
        assert!(!release(directory.path()));
        take(directory.path()).unwrap();
        assert_eq!(length(), BYTES);
        // A disk that was full gave a part.
        File::options().write(true).open(directory.path().join(FILE)).unwrap().set_len(5000).unwrap();
        take(directory.path()).unwrap();
        assert!((BYTES..BYTES + 4096).contains(&length()));
        take(directory.path()).unwrap();
        assert!(length() < BYTES + 4096 && release(directory.path()));
    }
}
