//! Which catalog a data directory has: a file in it, or a schema of a PostgreSQL database.
//!
//! In the second case `catalog.json` in the directory names the schema and says how to reach the server, without the password; so
//! that commands which look need nothing but the directory, and no other catalog is ever taken for its own. With an empty
//! catalog every file of rows would count as left over.

use std::io::Write;
use std::path::Path;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::postgres::{self, PostgresCatalog, PostgresConfig};
use super::{Catalog, Database, FILE, TableName};
use crate::error::StoreError;
use crate::packets::FOLDER;

/// Name in the data directory.
pub(crate) const PLACE: &str = "catalog.json";

/// Where the catalog of a data directory is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) schema: String,
    pub(super) server: PostgresConfig,
}

impl Catalog {
    /// Opens the catalog of a data directory for writing. If there is none, it is made: in PostgreSQL if `server` is given, else in
    /// SQLite. If there is one in PostgreSQL, `server` is how it is reached from now on.
    pub fn open_in<'a>(
        data_dir: &'a Path,
        server: Option<&'a PostgresConfig>,
    ) -> BoxFuture<'a, Result<Self, StoreError>> {
        // Boxed, as what else asks a server: compiled here, see `tables::entries`.
        Box::pin(Self::opened_in(data_dir, server))
    }

    async fn opened_in(data_dir: &Path, server: Option<&PostgresConfig>) -> Result<Self, StoreError> {
        let place = match (Place::read(data_dir)?, server) {
            (None, None) => {
                not_gone(data_dir)?;
                return Self::open(&data_dir.join(FILE)).await;
            }
            (None, Some(server)) => Place::make(data_dir, server).await?,
            (Some(place), None) => place,
            (Some(known), Some(server)) => {
                let place = Place { server: server.clone(), ..known.clone() };
                let catalog = place.open(false).await?;
                if place != known {
                    place.write(data_dir, true)?;
                }
                return Ok(catalog);
            }
        };
        place.open(false).await
    }

    /// Opens the catalog of a data directory for reading, also while others write it.
    pub fn read_in(data_dir: &Path) -> BoxFuture<'_, Result<Self, StoreError>> {
        Box::pin(Self::reads_in(data_dir))
    }

    async fn reads_in(data_dir: &Path) -> Result<Self, StoreError> {
        match Place::read(data_dir)? {
            Some(place) => place.open(true).await,
            None => Self::open_read_only(&data_dir.join(FILE)).await,
        }
    }

    /// Whether the catalog of a data directory could be used, without making or changing anything: a sentence about it.
    pub fn check_in<'a>(
        data_dir: &'a Path,
        server: Option<&'a PostgresConfig>,
    ) -> BoxFuture<'a, Result<String, StoreError>> {
        Box::pin(Self::checked_in(data_dir, server))
    }

    async fn checked_in(data_dir: &Path, server: Option<&PostgresConfig>) -> Result<String, StoreError> {
        let place = Place::read(data_dir)?;
        let Some(server) = server.or(place.as_ref().map(|place| &place.server)) else {
            not_gone(data_dir)?;
            let file = data_dir.join(FILE);
            if file.exists() {
                match Self::open_read_only(&file).await {
                    Ok(catalog) => catalog.close().await,
                    // It is upgraded by the next start.
                    Err(StoreError::OlderSchema { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            return Ok(format!("SQLite, `{}`", file.display()));
        };
        if place.is_none() && data_dir.join(FILE).exists() {
            return Err(StoreError::CatalogElsewhere { path: data_dir.join(FILE) });
        }
        let sentence = postgres::check(server).await?;
        if let Some(place) = &place {
            Place { server: server.clone(), ..place.clone() }.open(true).await?.close().await;
        }
        Ok(sentence)
    }
}

/// An empty catalog would set aside whatever is there: a backup that was not restored in full, say.
fn not_gone(data_dir: &Path) -> Result<(), StoreError> {
    let is_empty = std::fs::metadata(data_dir.join(FILE)).map_or(true, |file| file.len() == 0);
    let folders = [TableName::Flows.as_str(), TableName::Transactions.as_str(), FOLDER];
    if is_empty && folders.iter().any(|folder| holds_files(&data_dir.join(folder))) {
        return Err(StoreError::NoCatalog { path: data_dir.to_owned() });
    }
    Ok(())
}

fn holds_files(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        let is_stored = path.extension().is_some_and(|extension| extension == "parquet" || extension == "zst");
        if path.is_dir() { holds_files(&path) } else { is_stored }
    })
}

impl Place {
    async fn make(data_dir: &Path, server: &PostgresConfig) -> Result<Self, StoreError> {
        let file = data_dir.join(FILE);
        if file.exists() {
            return Err(StoreError::CatalogElsewhere { path: file });
        }
        let schema = postgres::create(server, data_dir).await?;
        let place = Self { schema, server: server.clone() };
        match place.write(data_dir, false) {
            // Another process was faster: its catalog counts, ours stays empty.
            Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {
                Ok(Self::read(data_dir)?.unwrap_or(place))
            }
            written => written.map(|()| place),
        }
    }

    async fn open(&self, read_only: bool) -> Result<Catalog, StoreError> {
        let database = PostgresCatalog::open(&self.server, &self.schema, read_only).await?;
        Ok(Catalog::over(Database::Postgres(database)))
    }

    pub(super) fn read(data_dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = data_dir.join(PLACE);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(StoreError::io("read", &path))?,
        };
        let damaged = |what: String| StoreError::Damaged { path: path.clone(), offset: 0, what };
        let place: Self = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        let id = place.schema.strip_prefix("wiretag_").unwrap_or_default();
        if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(damaged("`schema` is no name of a catalog".into()));
        }
        Ok(Some(place))
    }

    /// Whole or not at all; one that is new is not there if this fails.
    pub(super) fn write(&self, data_dir: &Path, replace: bool) -> Result<(), StoreError> {
        self.written(data_dir, replace, |folder| std::fs::File::open(folder)?.sync_all())
    }

    fn written(
        &self,
        data_dir: &Path,
        replace: bool,
        sync: impl FnOnce(&Path) -> std::io::Result<()>,
    ) -> Result<(), StoreError> {
        let path = data_dir.join(PLACE);
        let temporary = data_dir.join(format!("{PLACE}.{}.tmp", std::process::id()));
        let text = serde_json::to_string_pretty(self).map_err(|error| StoreError::Task(error.to_string()))?;
        let written = crate::private::create(&temporary).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            if replace { std::fs::rename(&temporary, &path) } else { std::fs::hard_link(&temporary, &path) }
        });
        let _ = std::fs::remove_file(&temporary);
        let synced = written.and_then(|()| {
            // It would name a catalog that the caller takes back.
            sync(data_dir).inspect_err(|_| {
                if !replace {
                    let _ = std::fs::remove_file(&path);
                }
            })
        });
        synced.map_err(StoreError::io("write", &path))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it fails")]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    #[test]
    fn what_could_not_be_made_sure_does_not_stay() {
        let dir = tempfile::tempdir().unwrap();
        let server = PostgresConfig::new("postgres://wiretag@db.example/wiretag", None).unwrap();
        let place = Place { schema: "wiretag_0123456789abcdef0123456789abcdef".into(), server };
        let fails = |_: &Path| Err(Error::from(ErrorKind::StorageFull));
        assert!(place.written(dir.path(), false, fails).is_err());
        assert_eq!(Place::read(dir.path()).unwrap(), None);
        place.write(dir.path(), false).unwrap();
        // What was there before stays.
        assert!(place.written(dir.path(), true, fails).is_err());
        assert!(place.write(dir.path(), false).is_err());
        assert_eq!(Place::read(dir.path()).unwrap(), Some(place));
    }
}
