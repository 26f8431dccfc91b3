//! What retention has deleted, by hour: an answer about that time can say that it was there.

use super::database::{Change, sql};
use super::{Catalog, TableName};
use crate::error::StoreError;
use crate::tables::rollup::{DAY, HOUR, MINUTE};

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
        let sums = sql("SELECT kind, CAST(sum(items) AS BIGINT) AS items FROM retired WHERE hour > $1 AND hour < $2 \
             AND NOT (kind = $3 AND EXISTS (SELECT 1 FROM rollups \
             WHERE rollups.start > hour - $6 AND rollups.start <= hour \
             AND hour < rollups.start + CASE rollups.width WHEN $4 THEN $5 ELSE $6 END)) GROUP BY kind");
        // No roll-up is longer than a day: only those are looked at that may have begun by then.
        let added_up = if rollable { TableName::Flows.as_str() } else { "" };
        let sums = sums.bind(from.saturating_sub(HOUR)).bind(to).bind(added_up);
        let mut retired = RetiredItems::default();
        for row in self.database.all(sums.bind(MINUTE).bind(HOUR).bind(DAY)).await? {
            let read = || -> Result<(String, u64), sqlx::Error> { Ok((row.get("kind")?, row.count("items")?)) };
            let (kind, items) = read().map_err(self.failed())?;
            if kind == TableName::Flows.as_str() {
                retired.flow_rows = items;
            } else if kind == TableName::Transactions.as_str() {
                retired.transaction_rows = items;
            } else {
                retired.packets = items;
            }
        }
        Ok(retired)
    }
}
