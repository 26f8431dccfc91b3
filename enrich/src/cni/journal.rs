//! What is attached, or was a moment ago, on disk: a file for each attachment, which is its record. After a restart the
//! source knows from it what it may have to end, tells once more what has ended, and takes up what is still there.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::attachments::{Change, Entry};

/// Where it is in the agent's data directory.
pub(super) fn path(data: &Path) -> PathBuf {
    data.join("run/cni-attachments")
}

/// See the module documentation.
pub(super) struct Journal {
    directory: PathBuf,
}

impl Journal {
    pub(super) fn open(directory: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        Ok(Self { directory })
    }

    /// All of it; files that are not sound are removed.
    pub(super) fn load(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let path = entry?.path();
            match std::fs::read(&path).ok().as_deref().and_then(Entry::parse) {
                Some(entry) => entries.push(entry),
                None => drop(std::fs::remove_file(&path)),
            }
        }
        Ok(entries)
    }

    /// Writes what it can, which makes room on a full disk, too; the last error.
    pub(super) fn write(&self, changes: &[Change]) -> io::Result<()> {
        let mut written = Ok(());
        for change in changes {
            written = self.write_one(change).and(written);
        }
        written
    }

    fn write_one(&self, change: &Change) -> io::Result<()> {
        match change {
            Change::Kept(entry) => {
                let path = self.file(&entry.record.container, &entry.record.ifname);
                let partial = path.with_extension("partial");
                let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
                file.write_all(&serde_json::to_vec(entry).map_err(io::Error::other)?)?;
                std::fs::rename(&partial, &path)
            }
            Change::Gone((container, ifname)) => match std::fs::remove_file(self.file(container, ifname)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            },
        }
    }

    /// A container id has no `@`, so that no two attachments share a name.
    fn file(&self, container: &str, ifname: &str) -> PathBuf {
        self.directory.join(format!("{container}@{ifname}.json"))
    }
}
