//! What can go wrong in the stores, with the evidence and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Errors of the catalog, the flow store and the packet log.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or directory could not be read or written.
    #[error("cannot {action} `{}`: {source}{}", .path.display(), io_hint(.source))]
    Io {
        /// What was tried, as in `write`, `open`.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The data directory cannot be made or written.
    #[error("the data directory `{}` cannot be written: {source}; hint: choose another with `--data`, or change its owner", .path.display())]
    Unwritable {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no store to read.
    #[error("no wiretag data in `{}`; hint: start with `wiretag run` or `wiretag import`, or name the directory with `--data`", .path.display())]
    NoData {
        /// The directory.
        path: PathBuf,
    },
    /// Another appliance writes here.
    #[error("another `wiretag run`{} uses the data directory `{}`; hint: stop it, or choose another directory with `--data`", pid_text(.pid.as_ref()), .path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Process id of the other one, if it is known.
        pid: Option<u32>,
    },
    /// The catalog was written by a newer release.
    #[error("the catalog `{}` has schema {found}, this release knows up to {known}; hint: use the wiretag release that wrote it, or a newer one", .path.display())]
    NewerSchema {
        /// The catalog.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema that this program knows.
        known: i64,
    },
    /// The catalog was written by an older release and is open for reading only.
    #[error("the catalog `{}` has schema {found}, this release needs {known}; hint: `wiretag run` upgrades it on start", .path.display())]
    OlderSchema {
        /// The catalog.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The schema that this program needs.
        known: i64,
    },
    /// The catalog has changes that only a writer can fold in, and the medium cannot be written.
    #[error("the catalog `{}` was not closed, and its directory cannot be written; hint: copy the data directory to where you may write, or run as its owner", .path.display())]
    NotClosed {
        /// The catalog.
        path: PathBuf,
    },
    /// A file of rows could not be written.
    #[error("cannot write `{}`: {reason}{}", .path.display(), if *.full { FULL } else { "" })]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
        /// The disk is full.
        full: bool,
    },
    /// The same content is being imported by another process.
    #[error("another `wiretag import` is reading the same content")]
    Importing,
    /// Rows could not be taken: memory is full, and files cannot be written for now.
    #[error("no room for more {table}: memory is full and the last files could not be written")]
    MemoryFull {
        /// The table.
        table: crate::catalog::TableName,
    },
    /// SQLite refused something.
    #[error("catalog `{}`: {source}{}", .path.display(), sql_hint(.source))]
    Catalog {
        /// The catalog.
        path: PathBuf,
        /// Why.
        source: sqlx::Error,
    },
    /// A migration failed.
    #[error("catalog `{}` could not be upgraded: {source}", .path.display())]
    Migration {
        /// The catalog.
        path: PathBuf,
        /// Why.
        source: sqlx::migrate::MigrateError,
    },
    /// A file of the store does not hold what its format promises.
    #[error("`{}` is damaged at byte {offset}: {what}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// A row of the catalog cannot be read back.
    #[error("the catalog holds {what} that cannot be read: {source}")]
    Row {
        /// What kind of row.
        what: &'static str,
        /// Why not.
        source: serde_json::Error,
    },
    /// What is known of an identity cannot be read back.
    #[error("the catalog holds facts about `{id}` that cannot be read")]
    Dossier {
        /// Of whom.
        id: String,
    },
    /// A file that was to be replaced is no longer in the catalog.
    #[error("`{path}` is no longer in the catalog: another process removed it")]
    Gone {
        /// The file.
        path: String,
    },
    /// A store that was opened for reading was asked to write.
    #[error("the store is open for reading only")]
    ReadOnly,
    /// The query engine failed.
    #[error("query: {0}")]
    Query(String),
    /// A mistake in a query in SQL.
    #[error("{0}")]
    Sql(String),
    /// A query wanted more than it may have.
    #[error(transparent)]
    Limit(#[from] crate::limits::LimitReached),
    /// The one who asked is gone.
    #[error("the receiver of the answer is gone")]
    Closed,
    /// A background task died.
    #[error("internal task: {0}")]
    Task(String),
}

impl StoreError {
    /// An IO error with its place.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// True if the disk is full, so that trying again later makes sense.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } | Self::Unwritable { source, .. } => is_full(source),
            Self::Write { full, .. } => *full,
            Self::Catalog { source: sqlx::Error::Database(error), .. } => error.code().as_deref() == Some("13"),
            _ => false,
        }
    }
}

const FULL: &str = "; hint: free space, or lower the retention limits";

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

fn io_hint(error: &io::Error) -> &'static str {
    if is_full(error) {
        FULL
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        "; hint: run as the owner of the data directory, or change its owner"
    } else {
        ""
    }
}

fn sql_hint(error: &sqlx::Error) -> &'static str {
    let sqlx::Error::Database(database) = error else { return "" };
    // Primary result codes, sqlite.org/rescode.html; the low byte of an extended code.
    match database.code().and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff) {
        Some(5) => "; hint: another process holds the catalog; try again",
        Some(8) => "; hint: run as the owner of the data directory, or change its owner",
        Some(11 | 26) => "; hint: the file is damaged; restore it from a backup, or move it away to start empty",
        Some(13) => "; hint: the disk is full; free space, or lower the retention limits",
        Some(14) => "; hint: the directory must exist and be writable",
        _ => "",
    }
}

fn pid_text(pid: Option<&u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}
