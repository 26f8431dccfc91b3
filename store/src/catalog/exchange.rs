//! The exchange of a flow file for another one of the same hour, together with the roll-ups that add it up.

use std::collections::HashMap;

use super::database::{Change, Row, sql};
use super::erasures::{Exchange, Taken, held, keep, note, queue};
use super::rows::put_file;
use super::{Catalog, FlowFile};
use crate::error::StoreError;

/// A roll-up of minutes, and whether all rows that it adds up are there.
struct Minutes {
    path: String,
    day: Option<String>,
    gone: bool,
    bytes: i64,
    whole: bool,
}

impl Catalog {
    /// Exchanges a file for what an erasure leaves of it. Roll-ups that add it up are dropped if all their rows are there, so that
    /// they can be made again; otherwise the new file takes the place of the old one in them.
    pub(crate) async fn prepare_erased(&self, exchange: Exchange<'_>) -> Result<Change, StoreError> {
        let Exchange { erasure, old, new, slices, now } = exchange;
        let mut change = self.begin().await?;
        let (rollup, unit) = self.rollup_of(&mut change, old).await?;
        if change.execute(sql("DELETE FROM flow_files WHERE path = $1").bind(&old.path)).await? == 0 {
            return Err(StoreError::Gone { path: old.path.clone() });
        }
        if let Some(new) = new {
            put_file(&mut change, new).await?;
        }
        if let Some(rollup) = &rollup {
            if unit.iter().all(|minutes| minutes.whole) {
                self.drop_unit(&mut change, rollup, &unit, now).await?;
            } else if let Some(new) = new {
                let put = sql("INSERT INTO rolled (path, rollup) VALUES ($1, $2)");
                change.execute(put.bind(&new.path).bind(rollup)).await?;
            } else {
                change.execute(sql("UPDATE rollups SET files = files - 1 WHERE path = $1").bind(rollup)).await?;
            }
        }
        queue(&mut change, (&old.path, old.bytes.cast_signed()), now).await?;
        let removed = old.rows.saturating_sub(new.map_or(0, |new| new.rows));
        let became = new.map_or("", |new| new.path.as_str());
        note(&mut change, (erasure, removed), old.table.as_str(), (&old.path, became)).await?;
        keep(&mut change, erasure, slices).await?;
        Ok(change)
    }

    /// Exchanges a file for the one whose rows have names, and without those that these make part of an erasure. Roll-ups that add it
    /// up are dropped, so that they are made again; [`StoreError::Gone`]: they cannot be, or the file was taken.
    pub(crate) async fn prepare_named(
        &self,
        (old, new): (&FlowFile, Option<&FlowFile>),
        (known, taken): (i64, &HashMap<i64, Taken>),
        now: i64,
    ) -> Result<Change, StoreError> {
        let mut change = self.begin().await?;
        held(&mut change, known).await?;
        let (rollup, unit) = self.rollup_of(&mut change, old).await?;
        if let Some(broken) = unit.iter().find(|minutes| !minutes.whole) {
            return Err(StoreError::Gone { path: broken.path.clone() });
        }
        if change.execute(sql("DELETE FROM flow_files WHERE path = $1").bind(&old.path)).await? == 0 {
            return Err(StoreError::Gone { path: old.path.clone() });
        }
        if let Some(new) = new {
            put_file(&mut change, new).await?;
        }
        if let Some(rollup) = &rollup {
            self.drop_unit(&mut change, rollup, &unit, now).await?;
        }
        queue(&mut change, (&old.path, old.bytes.cast_signed()), now).await?;
        let became = new.map_or("", |new| new.path.as_str());
        for (id, Taken { rows, slices }) in taken {
            note(&mut change, (*id, *rows), old.table.as_str(), (&old.path, became)).await?;
            keep(&mut change, *id, slices).await?;
        }
        Ok(change)
    }

    /// The roll-up that adds up a file, and the others of its day.
    async fn rollup_of(
        &self,
        change: &mut Change,
        file: &FlowFile,
    ) -> Result<(Option<String>, Vec<Minutes>), StoreError> {
        let rolled = change.all(sql("SELECT rollup FROM rolled WHERE path = $1").bind(&file.path)).await?;
        let rollup: Option<String> = rolled.first().map(|row| row.get("rollup")).transpose().map_err(self.failed())?;
        let unit = match &rollup {
            Some(rollup) => self.unit(change, rollup).await?,
            None => Vec::new(),
        };
        Ok((rollup, unit))
    }

    /// The roll-up of minutes and the others of its day.
    async fn unit(&self, change: &mut Change, rollup: &str) -> Result<Vec<Minutes>, StoreError> {
        let found = sql("SELECT path, day, gone, bytes, files, \
             (SELECT count(*) FROM rolled WHERE rolled.rollup = rollups.path) AS kept FROM rollups WHERE path = $1 \
             OR day = (SELECT own.day FROM rollups AS own WHERE own.path = $1)");
        let rows = change.all(found.bind(rollup)).await?;
        let minutes = |row: &Row| {
            Ok(Minutes {
                path: row.get("path")?,
                day: row.get("day")?,
                gone: row.get::<i64>("gone")? != 0,
                bytes: row.get("bytes")?,
                whole: row.get::<i64>("files")? == row.get::<i64>("kept")?,
            })
        };
        rows.iter().map(minutes).collect::<Result<_, _>>().map_err(self.failed())
    }

    /// Drops a roll-up of minutes, and that of its day; minutes of this day whose file is gone are dropped too, so that they are
    /// made again with it.
    async fn drop_unit(&self, change: &mut Change, rollup: &str, unit: &[Minutes], now: i64) -> Result<(), StoreError> {
        for minutes in unit.iter().filter(|minutes| minutes.path == rollup || minutes.gone) {
            change.execute(sql("DELETE FROM rolled WHERE rollup = $1").bind(&minutes.path)).await?;
            change.execute(sql("DELETE FROM rollups WHERE path = $1").bind(&minutes.path)).await?;
            if !minutes.gone {
                queue(change, (&minutes.path, minutes.bytes), now).await?;
            }
        }
        let Some(day) = unit.iter().find_map(|minutes| minutes.day.clone()) else { return Ok(()) };
        change.execute(sql("UPDATE rollups SET day = NULL WHERE day = $1").bind(&day)).await?;
        let bytes = change.number(sql("SELECT bytes FROM rollups WHERE path = $1").bind(&day), "bytes").await?;
        change.execute(sql("DELETE FROM rollups WHERE path = $1").bind(&day)).await?;
        queue(change, (&day, bytes.unwrap_or_default()), now).await
    }
}
