//! A catalog goes from SQLite to PostgreSQL, as a whole or not at all.
//!
//! * Nobody writes meanwhile: both locks of the data directory are held, and who has one of them already is not disturbed.
//! * All tables come in one transaction into a schema that was made for this; rows are counted on both sides before it counts. Numbers that were
//!   given once are not given again: rows of files bear those of their imports.
//! * `catalog.json` is what makes the new catalog count. Until it is there everything is as it was, and the schema of a move that failed is dropped.
//! * The file stays, under another name: nothing reads it any more.

use std::path::{Path, PathBuf};

use futures_util::TryStreamExt;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::database::{Database, Row, sql};
use super::place::Place;
use super::postgres::{self, Column, PostgresCatalog, PostgresChange, PostgresConfig};
use super::sqlite::SqliteCatalog;
use super::{Catalog, FILE};
use crate::error::StoreError;
use crate::lock::Locks;

/// Name of the file that is not the catalog any more.
const MOVED: &str = "catalog.sqlite.moved";
/// Rows of a statement, and their bytes about.
const PAGE: (usize, usize) = (2_000, 4 << 20);

/// What was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Tables and their rows.
    pub rows: Vec<(&'static str, u64)>,
    /// Server, database and schema.
    pub place: PathBuf,
    /// The file that was the catalog.
    pub file: PathBuf,
}

/// A table that both have; columns and their types in the same order.
struct Table {
    name: &'static str,
    read: &'static str,
    write: &'static str,
    /// `bigint`, `text` or `bytea`.
    types: &'static str,
    counted: &'static str,
    /// Gives the next number, for those that number their rows.
    numbered: Option<&'static str>,
}

macro_rules! table {
    ($name:literal, $columns:literal, $parameters:literal) => {
        Table {
            name: $name,
            read: concat!("SELECT ", $columns, " FROM ", $name),
            write: concat!(
                "INSERT INTO ",
                $name,
                " (",
                $columns,
                ") OVERRIDING SYSTEM VALUE SELECT * FROM unnest(",
                $parameters,
                ")"
            ),
            types: $parameters,
            counted: concat!("SELECT count(*) AS n FROM ", $name),
            numbered: None,
        }
    };
    (numbered $name:literal, $columns:literal, $parameters:literal) => {
        Table {
            numbered: Some(concat!(
                "SELECT setval(pg_get_serial_sequence('",
                $name,
                "', 'id'), greatest($1, (SELECT coalesce(max(id), 1) FROM ",
                $name,
                ")))"
            )),
            ..table!($name, $columns, $parameters)
        }
    };
}

/// In an order in which what is referred to comes first.
const TABLES: &[Table] = &[
    table!("meta", "name, value", "$1::text[], $2::text[]"),
    table!(
        "flow_files",
        r#"path, rows, bytes, start, "end", "table", stored_at, import"#,
        "$1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[], $8::bigint[]"
    ),
    table!(
        "segments",
        r#"path, node, packets, bytes, start, "end", sealed, stored_at, import"#,
        "$1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[]"
    ),
    table!(
        numbered "imports",
        "id, sha256, name, bytes, started_at, state, packets, flows, transactions",
        "$1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[], $8::bigint[], $9::bigint[]"
    ),
    table!(
        numbered "loss",
        r#"id, node, "from", "to", packets, kernel_drops, queue_drops, refused, unwritten, flow_rows, transaction_rows, interruptions, not_captured"#,
        "$1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[]"
    ),
    table!("removals", "path, queued_at, bytes", "$1::text[], $2::bigint[], $3::bigint[]"),
    table!("dossiers", "id, until, facts", "$1::text[], $2::bigint[], $3::bytea[]"),
    table!(numbered "texts", "id, text", "$1::bigint[], $2::text[]"),
    table!(
        "rollups",
        "path, width, start, rows, bytes, stored_at, import, files, day, gone",
        "$1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::text[], $10::bigint[]"
    ),
    table!("retired", "kind, hour, items, bytes", "$1::text[], $2::bigint[], $3::bigint[], $4::bigint[]"),
    table!("rolled", "path, rollup", "$1::text[], $2::text[]"),
    table!(
        numbered "erasures",
        r#"id, at, who, reason, filter, "only", "from", "to", state, finished_at, flows, transactions, packets, rollup_rows, minutes_unchecked, files_unread, problem, packets_unchecked"#,
        "$1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::text[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[], $17::text[], $18::bigint[]"
    ),
    table!(
        numbered "erased_files",
        "id, erasure, kind, path, items, became",
        "$1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::text[]"
    ),
    table!(numbered "erased_slices", "id, erasure, slices", "$1::bigint[], $2::bigint[], $3::bytea[]"),
];

impl Catalog {
    /// Moves the catalog of a data directory, which nobody uses, into a new schema of a PostgreSQL database.
    pub async fn move_in(data_dir: &Path, server: &PostgresConfig) -> Result<Moved, StoreError> {
        let file = data_dir.join(FILE);
        if let Some(place) = Place::read(data_dir)? {
            return Err(StoreError::CatalogMoved { schema: place.schema });
        }
        if !file.exists() {
            return Err(StoreError::NoData { path: data_dir.to_path_buf() });
        }
        let locks = Locks::take(data_dir, true)?;
        if !locks.is_exclusive() {
            return Err(StoreError::InUse { path: data_dir.to_path_buf(), pid: None });
        }
        // Upgraded, so that both have the same tables.
        let catalog = Self::open(&file).await?;
        let place = Place { schema: postgres::create(server, data_dir).await?, server: server.clone() };
        let moved = match catalog.copy_to(&place, &file).await {
            Ok(moved) => place.write(data_dir, false).map(|()| moved),
            Err(error) => Err(error),
        };
        catalog.close().await;
        match moved {
            Ok(moved) => {
                std::fs::rename(&file, &moved.file).map_err(StoreError::io("rename", &file))?;
                Ok(moved)
            }
            // Unsettled: perhaps all is there; without `catalog.json` nobody asks. If that could not be taken back, it counts.
            Err(error) => {
                if Place::read(data_dir).is_ok_and(|counts| counts.is_none_or(|counts| counts.schema != place.schema)) {
                    let _ = postgres::remove(server, &place.schema).await;
                }
                Err(error)
            }
        }
    }

    async fn copy_to(&self, place: &Place, file: &Path) -> Result<Moved, StoreError> {
        let Database::Sqlite(from) = &self.database else { return Err(StoreError::ReadOnly) };
        let to = PostgresCatalog::open(&place.server, &place.schema, false).await?;
        let rows = copy_all(self, from, &to).await;
        to.close().await;
        Ok(Moved { rows: rows?, place: to.place(), file: file.with_file_name(MOVED) })
    }
}

async fn copy_all(
    catalog: &Catalog,
    from: &SqliteCatalog,
    to: &PostgresCatalog,
) -> Result<Vec<(&'static str, u64)>, StoreError> {
    let wrote = |source| StoreError::Catalog { path: to.place(), source };
    let mut change = to.begin().await.map_err(wrote)?.ok_or(StoreError::ReadOnly)?;
    let mut moved = Vec::new();
    for table in TABLES {
        copy(table, from, &mut change).await?;
        let here = number(&catalog.database.all(sql(table.counted)).await?).map_err(catalog.failed())?;
        let there = number(&change.all(sql(table.counted)).await.map_err(wrote)?).map_err(wrote)?;
        if here != there {
            return Err(StoreError::NotWhole { table: table.name, here, there });
        }
        if let Some(numbered) = table.numbered {
            // Of numbers that no row has any more.
            let last = sql("SELECT coalesce(max(seq), 0) AS n FROM sqlite_sequence WHERE name = $1").bind(table.name);
            let last = number(&catalog.database.all(last).await?).map_err(catalog.failed())?;
            change.all(sql(numbered).bind(last)).await.map_err(wrote)?;
        }
        moved.push((table.name, here.cast_unsigned()));
    }
    change.commit().await?;
    Ok(moved)
}

async fn copy(table: &Table, from: &SqliteCatalog, change: &mut PostgresChange) -> Result<(), StoreError> {
    let read = |source| StoreError::Catalog { path: from.place(), source };
    let place = change.place();
    let wrote = |source| StoreError::Catalog { path: place.clone(), source };
    let mut rows = from.rows(table.read);
    let mut page = Page::new(table);
    loop {
        let row = rows.try_next().await.map_err(read)?;
        let is_last = row.is_none();
        if let Some(row) = row {
            page.push(&row).map_err(read)?;
        }
        if is_last || page.rows >= PAGE.0 || page.bytes >= PAGE.1 {
            let full = std::mem::replace(&mut page, Page::new(table));
            change.fill(table.write, full.columns).await.map_err(wrote)?;
        }
        if is_last {
            return Ok(());
        }
    }
}

/// The one number of an answer.
fn number(rows: &[Row]) -> Result<i64, sqlx::Error> {
    rows.first().map_or(Ok(0), |row| row.get("n"))
}

/// Rows on their way, by column.
struct Page {
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
}

impl Page {
    fn new(table: &Table) -> Self {
        let column = |parameter: &str| match parameter {
            own if own.ends_with("bigint[]") => Column::Numbers(Vec::new()),
            own if own.ends_with("bytea[]") => Column::Bytes(Vec::new()),
            _ => Column::Texts(Vec::new()),
        };
        Self { columns: table.types.split(", ").map(column).collect(), rows: 0, bytes: 0 }
    }

    fn push(&mut self, row: &SqliteRow) -> Result<(), sqlx::Error> {
        for (at, column) in self.columns.iter_mut().enumerate() {
            match column {
                Column::Numbers(numbers) => numbers.push(row.try_get(at)?),
                Column::Texts(texts) => {
                    let text: Option<String> = row.try_get(at)?;
                    self.bytes += text.as_ref().map_or(0, String::len);
                    texts.push(text);
                }
                Column::Bytes(all) => {
                    let bytes: Vec<u8> = row.try_get(at)?;
                    self.bytes += bytes.len();
                    all.push(bytes);
                }
            }
        }
        self.rows += 1;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it fails")]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// Whatever a migration adds is moved, too.
    #[tokio::test]
    async fn every_column_of_every_table_is_moved() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&dir.path().join(FILE)).await.unwrap();
        let asked = sql(
            "SELECT m.name AS \"table\", c.name AS \"column\" FROM sqlite_master AS m, pragma_table_info(m.name) AS c \
             WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%' AND m.name NOT LIKE '\\_sqlx%' ESCAPE '\\'",
        );
        let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for row in catalog.database.all(asked).await.unwrap() {
            known.entry(row.get("table").unwrap()).or_default().insert(row.get("column").unwrap());
        }
        // These are empty once a catalog is open: see `carry`.
        assert!(known.remove("identities").is_some() && known.remove("intervals").is_some());
        let moved = TABLES.iter().map(|table| {
            let columns = table.read.strip_prefix("SELECT ").unwrap().split(" FROM ").next().unwrap();
            let columns: BTreeSet<String> = columns.split(", ").map(|own| own.trim_matches('"').to_owned()).collect();
            assert_eq!(columns.len(), table.types.split(", ").count(), "{}", table.name);
            (table.name.to_owned(), columns)
        });
        assert_eq!(moved.collect::<BTreeMap<_, _>>(), known);
    }
}
