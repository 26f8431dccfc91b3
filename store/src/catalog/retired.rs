//! What retention has deleted, by hour: an answer about that time can say that it was there.
//!
//! Of flows that a roll-up adds up it is noted twice: as flows, and under the path of the roll-up (its `kind`), for as long as the
//! catalog names that. So an answer from roll-ups says how many flows none of them has, file by file.

use super::database::{Change, sql};
use super::{Catalog, TableName};
use crate::error::StoreError;
use crate::tables::rollup::{FOLDER, HOUR};

/// Rows and packets that retention has deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetiredItems {
    /// Rows of flows.
    pub flow_rows: u64,
    /// Rows of transactions.
    pub transaction_rows: u64,
    /// Packets.
    pub packets: u64,
}

/// Why files go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// They are too old or too much.
    Retention,
    /// An import is taken back, or they are roll-ups.
    Other,
}

/// Notes what these files have that are about to go, in the transaction that takes them out of the catalog.
pub(super) async fn note(change: &mut Change, path: &str) -> Result<(), StoreError> {
    for statement in [
        "INSERT INTO retired (kind, hour, items, bytes) \
         SELECT \"table\", start - start % $2, rows, bytes FROM flow_files WHERE path = $1 \
         ON CONFLICT (kind, hour) DO UPDATE SET items = retired.items + excluded.items, bytes = retired.bytes + excluded.bytes",
        "INSERT INTO retired (kind, hour, items, bytes) \
         SELECT rollups.path, flow_files.start - flow_files.start % $2, flow_files.rows, flow_files.bytes FROM flow_files \
         JOIN rolled ON rolled.path = flow_files.path JOIN rollups ON rollups.path = rolled.rollup WHERE flow_files.path = $1 \
         ON CONFLICT (kind, hour) DO UPDATE SET items = retired.items + excluded.items, bytes = retired.bytes + excluded.bytes",
        "INSERT INTO retired (kind, hour, items, bytes) \
         SELECT 'packets', start - start % $2, packets, bytes FROM segments WHERE path = $1 \
         ON CONFLICT (kind, hour) DO UPDATE SET items = retired.items + excluded.items, bytes = retired.bytes + excluded.bytes",
    ] {
        change.execute(sql(statement).bind(path).bind(HOUR)).await?;
    }
    Ok(())
}

impl Catalog {
    /// What retention has deleted of the hours that touch `[from, to)`; with `rollable` without flows that a roll-up adds up.
    pub async fn retired(&self, from: i64, to: i64, rollable: bool) -> Result<RetiredItems, StoreError> {
        let sums = sql(
            "SELECT CASE WHEN kind LIKE $3 THEN 'rolled' ELSE kind END AS what, CAST(sum(items) AS BIGINT) AS items \
             FROM retired WHERE hour > $1 AND hour < $2 GROUP BY what",
        );
        let rollups = format!("{FOLDER}/%");
        let sums = sums.bind(from.saturating_sub(HOUR)).bind(to).bind(&rollups);
        let (mut retired, mut rolled) = (RetiredItems::default(), 0);
        for row in self.database.all(sums).await? {
            let read = || -> Result<(String, u64), sqlx::Error> { Ok((row.get("what")?, row.count("items")?)) };
            let (what, items) = read().map_err(self.failed())?;
            if what == TableName::Flows.as_str() {
                retired.flow_rows = items;
            } else if what == TableName::Transactions.as_str() {
                retired.transaction_rows = items;
            } else if what == "rolled" {
                rolled = items;
            } else {
                retired.packets = items;
            }
        }
        if rollable {
            retired.flow_rows = retired.flow_rows.saturating_sub(rolled);
        }
        Ok(retired)
    }
}
