//! What nobody can make sense of is neither deleted nor answered: it is moved to `set-aside/` in the data directory, for people to look at.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::private;

/// In the data directory.
const FOLDER: &str = "set-aside";

/// Moves a file there; where it is now. `None`: it has gone meanwhile, whoever wrote it may have been about to take it back.
pub(crate) fn set_aside(data_dir: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
    let target = free_name(data_dir, path)?;
    match fs::rename(path, &target) {
        Ok(()) => Ok(Some(target)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A name there that says where the file was, and that no other has.
pub(crate) fn free_name(data_dir: &Path, path: &Path) -> io::Result<PathBuf> {
    let dir = data_dir.join(FOLDER);
    private::create_dir_all(&dir)?;
    let relative = path.strip_prefix(data_dir).unwrap_or(path).to_string_lossy().replace('/', "_");
    let names = (0_u32..).map(|number| if number == 0 { relative.clone() } else { format!("{relative}.{number}") });
    Ok(names.map(|name| dir.join(name)).find(|target| !target.exists()).unwrap_or_else(|| dir.join("file")))
}
