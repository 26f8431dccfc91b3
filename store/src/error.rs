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
    /// The database refused something, or is not there.
    #[error("catalog `{}`: {source}{}", .path.display(), sql_hint(.source))]
    Catalog {
        /// The file, or the server and database.
        path: PathBuf,
        /// Why.
        source: sqlx::Error,
    },
    /// A connection broke during a commit, and the server did not come back to say whether it counts.
    #[error("catalog `{}`: the connection was lost during a commit, and whether it counts is not known: {source}", .path.display())]
    Unsettled {
        /// The server and database.
        path: PathBuf,
        /// What broke.
        source: sqlx::Error,
    },
    /// The URL of the catalog cannot be used.
    #[error("the URL of the catalog {reason}")]
    CatalogUrl {
        /// What it has to be.
        reason: String,
    },
    /// The data directory has a catalog already, and it is not where it is said to be.
    #[error("the data directory has its catalog in `{}`; hint: leave out `[catalog] url`, move it with `wiretag move-catalog`, or choose a new data directory with `--data`", .path.display())]
    CatalogElsewhere {
        /// The file.
        path: PathBuf,
    },
    /// There are files, and nothing that says what they are.
    #[error("`{}` has files of flows or packets, and no catalog that knows them; hint: restore `catalog.sqlite` from a backup, or move `flows`, `transactions`, `rollups` and `packets` away to begin anew", .path.display())]
    NoCatalog {
        /// The data directory.
        path: PathBuf,
    },
    /// The catalog of the data directory is in a database already.
    #[error("the catalog of the data directory is in PostgreSQL already, in the schema `{schema}`")]
    CatalogMoved {
        /// The schema.
        schema: String,
    },
    /// A copy of a catalog has other rows than the catalog.
    #[error("`{table}` has {here} rows, and {there} arrived; nothing was changed")]
    NotWhole {
        /// The table.
        table: &'static str,
        /// In the catalog.
        here: i64,
        /// In the copy.
        there: i64,
    },
    /// The database has no catalog of this data directory.
    #[error("the catalog of the data directory is not in `{}`; hint: `[catalog] url` must name the server and database where it was made, or where it was restored", .path.display())]
    CatalogGone {
        /// The server and database.
        path: PathBuf,
    },
    /// The user may not make a schema.
    #[error("catalog `{}`: the user may not create a schema; hint: `GRANT CREATE ON DATABASE … TO …`", .path.display())]
    CatalogRights {
        /// The server and database.
        path: PathBuf,
    },
    /// The server is of an old release.
    #[error("catalog `{}`: PostgreSQL {version} is too old; hint: {needed} or later", .path.display())]
    OldServer {
        /// The server and database.
        path: PathBuf,
        /// Its release.
        version: i64,
        /// The oldest that will do.
        needed: i64,
    },
    /// A migration failed.
    #[error("catalog `{}` could not be upgraded: {source}", .path.display())]
    Migration {
        /// The catalog.
        path: PathBuf,
        /// Why.
        source: sqlx::migrate::MigrateError,
    },
    /// Packets that are kept cannot be read; all others were given.
    #[error("{packets} packets were written; those of {blocks} damaged blocks, and of {indexes} segments that are gone or have a damaged index, are missing, the first in `{}`; hint: the disk may be failing: look at the kernel's log", .first.display())]
    PacketsDamaged {
        /// Packets that were written.
        packets: u64,
        /// Blocks that cannot be read.
        blocks: u64,
        /// Segments that are not there, or of which not all blocks are known.
        indexes: u64,
        /// The first segment with damage.
        first: PathBuf,
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
    /// A file was merged or deleted while its rows were wanted.
    #[error("files were merged or deleted while they were read; hint: ask again, for a shorter time if it comes again")]
    Changed,
    /// A segment is being written, and is not sealed soon enough.
    #[error("`{path}` is still being written: its packets stay until it is sealed; hint: does an import run?")]
    SegmentOpen {
        /// The segment.
        path: String,
    },
    /// Rows were not held against the newest erasure.
    #[error("something was erased meanwhile; hint: try again")]
    Erased,
    /// Something cannot be erased as it was asked for.
    #[error("{0}")]
    Erasure(String),
    /// A store that was opened for reading was asked to write.
    #[error("the store is open for reading only")]
    ReadOnly,
    /// The query engine failed.
    #[error("query: {0}")]
    Query(String),
    /// A mistake in a query in SQL.
    #[error("{0}")]
    Sql(String),
    /// A page cursor that did not come from a search.
    #[error("{0}")]
    Cursor(String),
    /// Nothing can be said of such a range of time.
    #[error("{0}")]
    Period(String),
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

    /// True if it is not known whether what failed was done: files that it may refer to stay.
    pub(crate) fn is_unsettled(&self) -> bool {
        matches!(self, Self::Unsettled { .. })
    }

    /// True if the disk is full, so that trying again later makes sense.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } | Self::Unwritable { source, .. } => is_full(source),
            Self::Write { full, .. } => *full,
            Self::Catalog { source: sqlx::Error::Database(error), .. } => {
                matches!(error.code().as_deref(), Some("13" | "53100"))
            }
            _ => false,
        }
    }
}

const MORE_THREADS: &str = "; hint: raise the limit of processes and threads (`ulimit -u`, `pids.max`)";
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
    let database = match error {
        sqlx::Error::Database(database) => database,
        // SQLite has a thread for each connection.
        sqlx::Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock => return MORE_THREADS,
        sqlx::Error::Io(_) => return "; hint: is PostgreSQL running there, and may this host connect?",
        sqlx::Error::Tls(_) => return "; hint: `sslmode` and `sslrootcert` in the URL say what is asked of the server",
        _ => return "",
    };
    let code = database.code().unwrap_or_default();
    if database.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some() {
        return postgres_hint(&code);
    }
    // Primary result codes, sqlite.org/rescode.html; the low byte of an extended code.
    match code.parse::<u32>().ok().map(|code| code & 0xff) {
        Some(5) => "; hint: another process holds the catalog; try again",
        Some(8) => "; hint: run as the owner of the data directory, or change its owner",
        Some(11 | 26) => "; hint: the file is damaged; restore it from a backup, or move it away to start empty",
        Some(13) => "; hint: the disk is full; free space, or lower the retention limits",
        Some(14) => "; hint: the directory must exist and be writable",
        _ => "",
    }
}

/// By SQLSTATE, postgresql.org/docs/current/errcodes-appendix.html.
fn postgres_hint(code: &str) -> &'static str {
    match code {
        "28000" | "28P01" => {
            "; hint: user and password: `password_file`, PGPASSWORD or ~/.pgpass, and the server's pg_hba.conf"
        }
        "3D000" => "; hint: make the database with `createdb`, or correct `[catalog] url`",
        "42501" => "; hint: the user needs `GRANT CREATE ON DATABASE … TO …`, and to own the catalog's schema",
        "25006" => "; hint: the server is a standby; name the primary",
        "53100" => "; hint: the server's disk is full",
        "53300" => "; hint: the server has no free connection; wiretag takes up to 5",
        "55P03" => "; hint: another process holds the catalog; try again",
        "57P01" | "57P02" | "57P03" => "; hint: the server is stopping or starting; what failed is tried again",
        _ => "",
    }
}

fn pid_text(pid: Option<&u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}
