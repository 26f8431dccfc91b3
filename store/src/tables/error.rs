//! What can go wrong in the store of a table.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use datafusion::error::DataFusionError;

use crate::error::StoreError;
use crate::limits::LimitReached;
use crate::query::QueryError;

/// An error of the store of a table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// A file or directory could not be read or written.
    #[error("cannot {action} `{}`: {source}; hint: check free space and permissions of the data directory", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write `{}`: {source}; hint: check free space in the data directory", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: parquet::errors::ParquetError,
    },
    /// Columns could not be encoded or decoded.
    #[error("Parquet: {0}")]
    Encode(#[from] parquet::errors::ParquetError),
    /// A file could not be read.
    #[error("cannot read `{}`: {source}; hint: restore it from a backup", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: parquet::errors::ParquetError,
    },
    /// A file is sound, and what a column of it has is too much to be worked on at once.
    #[error(
        "one column of a file has more than {mib} MiB in one row group, which is more than can be worked on at once"
    )]
    Wide {
        /// The limit.
        mib: usize,
    },
    /// The query engine failed.
    #[error("the search failed: {0}")]
    Engine(#[from] DataFusionError),
    /// Rows could not be put in columns.
    #[error("cannot build columns: {0}")]
    Columns(#[from] datafusion::arrow::error::ArrowError),
    /// A page cursor that did not come from a search.
    #[error("`{0}` is not a page cursor; hint: pass `next` of the page before as it is")]
    Cursor(String),
    /// Something that has to be there is missing.
    #[error("{0}")]
    Range(&'static str),
    /// Nothing can be said of such a range of time.
    #[error("{0}")]
    Period(&'static str),
    /// A condition was refused.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The query wanted more than it may have.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// A roll-up wanted more than it may have.
    #[error("a roll-up of this time needs more than {mib} MiB of memory, in however many parts it is made")]
    RollUp {
        /// The limit.
        mib: usize,
    },
    /// A worker thread ended early.
    #[error("a storage task was stopped: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl TableError {
    /// The file that cannot be read, if that is what went wrong.
    pub(super) fn unreadable(&self) -> Option<&Path> {
        match self {
            Self::Read { path, .. } => Some(path),
            Self::Engine(DataFusionError::External(inner)) => inner.downcast_ref().and_then(Self::unreadable),
            Self::Io { .. }
            | Self::Write { .. }
            | Self::Encode(_)
            | Self::Wide { .. }
            | Self::Engine(_)
            | Self::Columns(_)
            | Self::Cursor(_)
            | Self::Range(_)
            | Self::Period(_)
            | Self::Query(_)
            | Self::Limit(_)
            | Self::RollUp { .. }
            | Self::Task(_) => None,
        }
    }

    /// Whether it says nothing of a file: for a moment the system had too little of something, or a call was interrupted.
    pub(in crate::tables) fn is_of_the_moment(&self) -> bool {
        is_of_the_moment(self)
    }

    /// For `map_err` around file operations.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// See [`TableError::is_of_the_moment`].
pub(super) fn is_of_the_moment(error: &(dyn Error + 'static)) -> bool {
    const CODES: [i32; 5] = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EINTR, libc::EAGAIN];
    let mut next = Some(error);
    while let Some(error) = next {
        let code = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        if code.is_some_and(|code| CODES.contains(&code)) {
            return true;
        }
        next = error.source();
    }
    false
}

impl From<TableError> for StoreError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Io { action, path, source } => Self::Io { action, path, source },
            TableError::Write { path, source } => {
                let full = matches!(&source, parquet::errors::ParquetError::External(inner)
                    if inner.downcast_ref::<std::io::Error>().is_some_and(crate::error::is_full));
                let reason = match source {
                    parquet::errors::ParquetError::External(inner) => inner.to_string(),
                    other => other.to_string(),
                };
                Self::Write { path, reason, full }
            }
            TableError::Task(error) => Self::Task(error.to_string()),
            TableError::Limit(limit) => Self::Limit(limit),
            error @ TableError::Cursor(_) => Self::Cursor(error.to_string()),
            TableError::Period(sentence) => Self::Period(sentence.to_owned()),
            error @ (TableError::Read { .. }
            | TableError::Engine(_)
            | TableError::Encode(_)
            | TableError::Wide { .. }
            | TableError::Columns(_)
            | TableError::Range(_)
            | TableError::RollUp { .. }
            | TableError::Query(_)) => Self::Query(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use parquet::errors::ParquetError;

    use super::*;

    /// However deep it is.
    #[test]
    fn what_the_system_is_short_of_says_nothing_of_a_file() {
        let path = PathBuf::from("flows/a.parquet");
        let layers = |code: i32| {
            let error = || io::Error::from_raw_os_error(code);
            let read = || TableError::Read { path: path.clone(), source: ParquetError::External(Box::new(error())) };
            [
                TableError::io("open", &path)(error()),
                read(),
                TableError::Encode(ParquetError::from(error())),
                TableError::Engine(DataFusionError::External(Box::new(read()))),
            ]
        };
        for (code, expected) in [(libc::EMFILE, true), (libc::EINTR, true), (libc::ENOENT, false), (libc::EIO, false)] {
            for error in layers(code) {
                assert_eq!(error.is_of_the_moment(), expected, "{error}");
            }
        }
    }
}
