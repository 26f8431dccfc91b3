//! Records that wait on disk because nobody listens: one file each, `TIME-WRITER-NUMBER-BYTES.json`, so that names sort by
//! age and tell how much room all take.
//!
//! Written by processes that know nothing of each other: a file is written under another name first, and then renamed.
//! The spool is bounded ([`MOST_FILES`], [`MOST_DISK`]): the oldest is removed, and whoever removed it adds one byte to
//! the file `dropped`, whose size is how many there were.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Records that wait at most.
const MOST_FILES: usize = 4096;
/// Bytes that they take at most.
const MOST_DISK: u64 = 16 << 20;
/// Counted drops at most: beyond it there were at least so many.
const MOST_COUNTED: u64 = 1 << 20;

const DROPPED: &str = "dropped";
const ENDING: &str = ".json";

/// See the module documentation.
pub(super) struct Spool {
    directory: PathBuf,
    most_files: usize,
}

impl Spool {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, most_files: MOST_FILES }
    }

    /// Puts a record; `at` is its time, `writer` the process.
    pub(super) fn put(&self, bytes: &[u8], at: i64, writer: u32) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        self.make_room(bytes.len() as u64);
        // More than one record of a process and a time: the next free name.
        for number in 0..64_u8 {
            let name = format!("{at:020}-{writer}-{number}-{}", bytes.len());
            let path = self.directory.join(format!("{name}{ENDING}"));
            if path.exists() {
                continue;
            }
            let partial = self.directory.join(format!("{name}.partial"));
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
            file.write_all(bytes)?;
            drop(file);
            return std::fs::rename(&partial, &path);
        }
        Err(io::Error::other("too many records at one time"))
    }

    fn make_room(&self, bytes: u64) {
        let waiting = self.files();
        let mut files = waiting.len();
        let mut disk = waiting.iter().map(|path| size(path)).sum::<u64>() + bytes;
        for oldest in waiting {
            if files < self.most_files && disk <= MOST_DISK {
                return;
            }
            files -= 1;
            disk -= size(&oldest).min(disk);
            // Whoever else removed it has counted it.
            if std::fs::remove_file(&oldest).is_ok() {
                self.count_drop();
            }
        }
    }

    fn count_drop(&self) {
        if self.dropped() < MOST_COUNTED {
            let path = self.directory.join(DROPPED);
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
            let _ = file.and_then(|mut file| file.write_all(b"."));
        }
    }

    /// How many were dropped since this was taken last.
    pub(super) fn dropped(&self) -> u64 {
        std::fs::metadata(self.directory.join(DROPPED)).map_or(0, |data| data.len())
    }

    /// How many were dropped, which are then forgotten.
    pub(super) fn take_dropped(&self) -> u64 {
        let dropped = self.dropped();
        if dropped > 0 {
            let _ = std::fs::remove_file(self.directory.join(DROPPED));
        }
        dropped
    }

    /// Files of records that wait, oldest first.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return Vec::new() };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut files: Vec<_> = paths.filter(|path| path.to_string_lossy().ends_with(ENDING)).collect();
        files.sort_unstable();
        files
    }
}

/// Bytes of a file, as its name tells.
fn size(path: &Path) -> u64 {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    stem.rsplit('-').next().and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room_and_are_counted() {
        let directory = tempfile::tempdir().expect("a directory");
        let spool = Spool { most_files: 16, ..Spool::new(directory.path().join("spool")) };
        for at in 0..19 {
            spool.put(b"{}", at, 7).expect("written");
        }
        let files = spool.files();
        assert_eq!((files.len(), spool.take_dropped(), spool.take_dropped()), (16, 3, 0));
        assert!(files[0].to_string_lossy().ends_with("00000000000000000003-7-0-2.json"), "{:?}", files[0]);
    }

    #[test]
    fn large_records_are_bounded_by_their_bytes() {
        let directory = tempfile::tempdir().expect("a directory");
        let spool = Spool::new(directory.path().to_owned());
        for at in 0..20 {
            spool.put(&vec![b' '; 1 << 20], at, 7).expect("written");
        }
        assert_eq!((spool.files().len(), spool.dropped()), (16, 4));
    }

    #[test]
    fn one_process_may_have_several_at_one_time() {
        let directory = tempfile::tempdir().expect("a directory");
        let spool = Spool::new(directory.path().to_owned());
        spool.put(b"a", 5, 7).expect("written");
        spool.put(b"b", 5, 7).expect("written");
        let texts: Vec<_> = spool.files().iter().map(|path| std::fs::read_to_string(path).expect("text")).collect();
        assert_eq!(texts, ["a", "b"]);
    }
}
