//! What is attached, on disk: a file for each attachment, which is its record. After a restart the source knows from it
//! what it may have to end, and takes up what is still there.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::attachments::Change;
use super::record::Record;

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

    /// All records; files that are none are removed.
    pub(super) fn load(&self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let path = entry?.path();
            match std::fs::read(&path).ok().as_deref().and_then(Record::parse) {
                Some(record) => records.push(record),
                None => drop(std::fs::remove_file(&path)),
            }
        }
        Ok(records)
    }

    pub(super) fn write(&self, changes: &[Change]) -> io::Result<()> {
        for change in changes {
            match change {
                Change::Kept(record) => {
                    let path = self.file(&record.container, &record.ifname);
                    let partial = path.with_extension("partial");
                    let mut file =
                        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
                    file.write_all(&serde_json::to_vec(record).map_err(io::Error::other)?)?;
                    std::fs::rename(&partial, &path)?;
                }
                Change::Gone((container, ifname)) => match std::fs::remove_file(self.file(container, ifname)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                },
            }
        }
        Ok(())
    }

    /// A container id has no `@`, so that no two attachments share a name.
    fn file(&self, container: &str, ifname: &str) -> PathBuf {
        self.directory.join(format!("{container}@{ifname}.json"))
    }
}
