//! Who may write in a data directory.
//!
//! * `appliance.lock` is held exclusively by `wiretag run`: one appliance a directory. It holds the process id.
//! * `writers.lock` is held shared by everyone who writes (the appliance, imports). Recovery cuts torn files, so it
//!   runs only while it can be had exclusively: then nobody is writing what looks torn.
//! * `import-….lock` is held exclusively while a file of this content is imported.
//!
//! The kernel releases them when the process ends, however it ends. Readers take no lock.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::StoreError;

/// The lock of `wiretag run`.
const APPLIANCE: &str = "appliance.lock";

/// Which data directory of this machine it is, whatever its path: its `appliance.lock`. A copy is another one, and no other file gets these
/// numbers while an appliance holds the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryId {
    device: u64,
    inode: u64,
}

impl DirectoryId {
    /// Of a directory that an appliance has used.
    pub fn of(data_dir: &Path) -> std::io::Result<Self> {
        let lock = std::fs::metadata(data_dir.join(APPLIANCE))?;
        Ok(Self { device: lock.dev(), inode: lock.ino() })
    }
}

/// Held while a store is open for writing.
#[derive(Debug)]
pub(crate) struct Locks {
    writers: File,
    _appliance: Option<File>,
    exclusive: bool,
}

impl Locks {
    /// Takes the locks; `appliance` asks for the exclusive one too.
    pub(crate) fn take(data_dir: &Path, appliance: bool) -> Result<Self, StoreError> {
        let appliance = if appliance { Some(take_appliance(data_dir)?) } else { None };
        let path = data_dir.join("writers.lock");
        let writers = open(&path)?;
        let exclusive = match writers.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => {
                writers.lock_shared().map_err(StoreError::io("lock", &path))?;
                false
            }
            Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", &path)(error)),
        };
        Ok(Self { writers, _appliance: appliance, exclusive })
    }

    /// True until [`Locks::share`]: nobody else writes.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    /// Lets other writers in.
    pub(crate) fn share(&mut self, data_dir: &Path) -> Result<(), StoreError> {
        if self.exclusive {
            let path = data_dir.join("writers.lock");
            self.writers.unlock().map_err(StoreError::io("unlock", &path))?;
            self.writers.lock_shared().map_err(StoreError::io("lock", &path))?;
            self.exclusive = false;
        }
        Ok(())
    }
}

/// Held while a file is being imported; released by the kernel too.
#[derive(Debug)]
pub struct ImportLock {
    path: PathBuf,
    _file: File,
}

impl ImportLock {
    /// For the content with this hash.
    pub(crate) fn take(data_dir: &Path, content: &str) -> Result<Self, StoreError> {
        let path = data_dir.join(format!("import-{}.lock", content.get(..16).unwrap_or(content)));
        let file = open(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path, _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Importing),
            Err(TryLockError::Error(error)) => Err(StoreError::io("lock", &path)(error)),
        }
    }

    /// The import has ended.
    pub fn release(self) {
        // While the lock is held: who opened the file meanwhile is refused and tries again.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    crate::private::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(StoreError::io("open", path))
}

fn take_appliance(data_dir: &Path) -> Result<File, StoreError> {
    let path = data_dir.join(APPLIANCE);
    let mut file = open(&path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // The process id is a courtesy; without it the error is still right.
            let _ = file.read_to_string(&mut text);
            return Err(StoreError::InUse { path: data_dir.to_path_buf(), pid: text.trim().parse().ok() });
        }
        Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", &path)(error)),
    }
    file.set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| writeln!(file, "{}", std::process::id()))
        .map_err(StoreError::io("write", &path))?;
    Ok(file)
}
