//! Files and directories that only their owner may read: they hold other people's traffic.
//!
//! The mode is given when a file is made (a umask can only take away from it), so there is no moment in which others could
//! open it. What an earlier release left open, or was there before, is closed by [`close_off`].

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Makes a directory and those above it that are missing, mode 0700.
pub fn create_dir_all(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Options for a file that may be made, mode 0600.
pub(crate) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Makes a file, or empties it.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    options().write(true).create(true).truncate(true).open(path)
}

/// Makes a file that is not there yet, to write and to read.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    options().read(true).write(true).create_new(true).open(path)
}

/// Takes rights of others away from everything that belongs to the store. The data directory itself is closed too if it is
/// the store's (it has a catalog) and no place that others share.
pub(crate) fn close_off(data_dir: &Path) -> io::Result<()> {
    let catalogs = [crate::catalog::FILE, crate::catalog::place::PLACE];
    let own = catalogs.iter().any(|name| data_dir.join(name).exists());
    for entry in std::fs::read_dir(data_dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let ours =
            ["flows", "transactions", "packets", "rollups", "journal", "set-aside", "appliance.lock", "writers.lock"];
        // Of the CNI plugin; others have a folder of this name, too.
        let plugins = name == "run" && path.join("cni-spool").exists();
        if plugins || ours.contains(&&*name) || catalogs.iter().any(|own| name.starts_with(own)) {
            close(&path)?;
        }
    }
    let data = std::fs::metadata(data_dir)?;
    let shared = data.mode() & 0o1000 != 0;
    if own && !shared && is_open(data.mode()) {
        // Someone else's directory that we may write in stays as it is.
        let _ = std::fs::set_permissions(data_dir, Permissions::from_mode(data.mode() & 0o700));
    }
    Ok(())
}

/// Whether others than the owner have any right.
fn is_open(mode: u32) -> bool {
    mode & 0o777 != mode & 0o700
}

/// Takes rights of others away from a file, or from a directory and all that is in it.
///
/// A directory is closed last: one that is closed has nothing open in it.
pub fn close(path: &Path) -> io::Result<()> {
    let data = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        data => data?,
    };
    if data.is_symlink() || !is_open(data.mode()) {
        return Ok(());
    }
    if data.is_dir() {
        for entry in std::fs::read_dir(path)? {
            close(&entry?.path())?;
        }
    }
    std::fs::set_permissions(path, Permissions::from_mode(data.mode() & 0o700))
}
