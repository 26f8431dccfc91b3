//! Files of roll-ups, and which flow files they add up.
//!
//! A roll-up never changes. It adds up all rows of the flow files that [`Catalog::rolled`] names, and is registered in the
//! transaction that says so; it stays when retention takes these.

use std::collections::{HashMap, HashSet};

use super::database::{Change, Row, sql};
use super::rows::keep_file;
use super::{Catalog, Origin};
use crate::error::StoreError;
use crate::tables::Range;
use crate::tables::rollup::{DAY, HOUR, MINUTE};

/// A file of flows that are added up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollupFile {
    /// Path relative to the data directory.
    pub path: String,
    /// Length of what one row adds up, ns: a minute or an hour.
    pub width: i64,
    /// Begin of the hour, or of the day, ns since the epoch.
    pub start: i64,
    /// Rows.
    pub rows: u64,
    /// Size.
    pub bytes: u64,
    /// Where the flows came from.
    pub origin: Origin,
    /// How many files it adds up: of flows, or of minutes.
    pub files: u64,
    /// Of minutes: the roll-up of hours that they are part of.
    pub day: Option<String>,
    /// Of minutes: the file was deleted, the roll-up of hours is left.
    pub gone: bool,
}

impl RollupFile {
    /// What it is of: an hour by minutes, or a day by hours.
    pub(crate) fn range(&self) -> Range {
        let length = if self.width == MINUTE { HOUR } else { DAY };
        Range { from: self.start, to: self.start.saturating_add(length) }
    }
}

fn rollup(row: &Row) -> Result<RollupFile, sqlx::Error> {
    Ok(RollupFile {
        path: row.get("path")?,
        width: row.get("width")?,
        start: row.get("start")?,
        rows: row.count("rows")?,
        bytes: row.count("bytes")?,
        origin: Origin { import: row.get("import")?, stored_at: row.get("stored_at")? },
        files: row.count("files")?,
        day: row.get("day")?,
        gone: row.get::<i64>("gone")? != 0,
    })
}

async fn put(change: &mut Change, file: &RollupFile) -> Result<(), StoreError> {
    let put = "INSERT INTO rollups (path, width, start, rows, bytes, stored_at, import, files) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let put = sql(put)
        .bind(&file.path)
        .bind(file.width)
        .bind(file.start)
        .bind(file.rows.cast_signed())
        .bind(file.bytes.cast_signed())
        .bind(file.origin.stored_at)
        .bind(file.origin.import)
        .bind(file.files.cast_signed());
    change.execute(put).await?;
    keep_file(change, &file.path).await
}

impl Catalog {
    /// Registers a roll-up of minutes, of all rows of these flow files.
    pub(crate) async fn prepare_rollup(&self, new: &RollupFile, files: &[String]) -> Result<Change, StoreError> {
        let mut change = self.begin().await?;
        // Of one with this name that is too old by now: its rows are read as rows.
        change.execute(sql("DELETE FROM rolled WHERE rollup = $1").bind(&new.path)).await?;
        for path in files {
            let rolled = sql("INSERT INTO rolled (path, rollup) SELECT path, $1 FROM flow_files WHERE path = $2");
            if change.execute(rolled.bind(&new.path).bind(path)).await? == 0 {
                // Retention was faster: the roll-up would bring the rows back.
                return Err(StoreError::Gone { path: path.clone() });
            }
        }
        put(&mut change, new).await?;
        Ok(change)
    }

    /// Registers a roll-up of hours, of these roll-ups of minutes.
    pub(crate) async fn prepare_rollup_of_hours(
        &self,
        new: &RollupFile,
        minutes: &[String],
    ) -> Result<Change, StoreError> {
        let mut change = self.begin().await?;
        for path in minutes {
            let part = sql("UPDATE rollups SET day = $1 WHERE path = $2 AND day IS NULL AND gone = 0");
            if change.execute(part.bind(&new.path).bind(path)).await? == 0 {
                return Err(StoreError::Gone { path: path.clone() });
            }
        }
        put(&mut change, new).await?;
        Ok(change)
    }

    /// Every roll-up, earliest first.
    pub async fn rollups(&self) -> Result<Vec<RollupFile>, StoreError> {
        let rows = self.database.all(sql("SELECT * FROM rollups ORDER BY start, path")).await?;
        rows.iter().map(rollup).collect::<Result<_, _>>().map_err(self.failed())
    }

    /// Begin of the first roll-up.
    pub(crate) async fn rolled_since(&self) -> Result<Option<i64>, StoreError> {
        let row = self.database.first(sql("SELECT min(start) AS start FROM rollups")).await?;
        row.map_or(Ok(None), |row| row.get("start")).map_err(self.failed())
    }

    /// The flow files that are part of a roll-up of minutes, and its path.
    pub async fn rolled(&self) -> Result<HashMap<String, String>, StoreError> {
        let rows = self.database.all(sql("SELECT path, rollup FROM rolled")).await?;
        let pair = |row: &Row| Ok((row.get("path")?, row.get("rollup")?));
        rows.iter().map(pair).collect::<Result<_, _>>().map_err(self.failed())
    }

    /// The flow files whose rows must stay as they are: a roll-up adds them up that cannot be made again, because retention took
    /// other rows of its day.
    pub(crate) async fn lasting(&self) -> Result<HashSet<String>, StoreError> {
        let found = sql("WITH kept AS (SELECT rollup, count(*) AS files FROM rolled GROUP BY rollup), \
             broken AS (SELECT rollups.path, rollups.day FROM rollups LEFT JOIN kept ON kept.rollup = rollups.path \
             WHERE rollups.width = $1 AND rollups.files <> coalesce(kept.files, 0)) \
             SELECT rolled.path FROM rolled JOIN rollups ON rollups.path = rolled.rollup \
             WHERE rollups.path IN (SELECT path FROM broken) OR rollups.day IN (SELECT day FROM broken)");
        let rows = self.database.all(found.bind(MINUTE)).await?;
        rows.iter().map(|row| row.get("path")).collect::<Result<_, _>>().map_err(self.failed())
    }

    /// Remembers to delete the files of roll-ups of minutes whose hours are kept.
    pub(crate) async fn retire_minutes(&self, files: &[RollupFile], now: i64) -> Result<(), StoreError> {
        let mut change = self.begin().await?;
        for file in files {
            change.execute(sql("UPDATE rollups SET gone = 1, bytes = 0 WHERE path = $1").bind(&file.path)).await?;
            let queued =
                sql("INSERT INTO removals (path, queued_at, bytes) VALUES ($1, $2, $3) ON CONFLICT (path) DO NOTHING");
            change.execute(queued.bind(&file.path).bind(now).bind(file.bytes.cast_signed())).await?;
        }
        change.commit().await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it fails")]
mod tests {
    use super::*;
    use crate::catalog::{FlowFile, TableName, Why};

    /// A roll-up that is made again has the name of the one before, whose file it replaced.
    #[tokio::test]
    async fn what_is_registered_again_is_not_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&dir.path().join("catalog.sqlite")).await.unwrap();
        let queued = |path: &str| (path.to_owned(), 1);
        let all = [queued("flows/a"), queued("rollups/a"), queued("rollups/day"), queued("flows/other")];
        catalog.retire(&[], &all, (Why::Other, 1)).await.unwrap();
        let origin = Origin::default();
        let (path, table) = ("flows/a".to_owned(), TableName::Flows);
        let file = FlowFile { table, path, rows: 1, bytes: 1, start: 0, end: 1, origin };
        catalog.add_flow_file(&file).await.unwrap();
        let minutes = RollupFile {
            path: "rollups/a".into(),
            width: MINUTE,
            start: 0,
            rows: 1,
            bytes: 1,
            origin,
            files: 1,
            day: None,
            gone: false,
        };
        catalog.prepare_rollup(&minutes, &["flows/a".to_owned()]).await.unwrap().commit().await.unwrap();
        let day = RollupFile { path: "rollups/day".into(), ..minutes };
        catalog.prepare_rollup_of_hours(&day, &["rollups/a".to_owned()]).await.unwrap().commit().await.unwrap();
        assert_eq!(catalog.removals().await.unwrap(), ["flows/other"]);
    }
}
