//! The persisted identity timeline.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::Row;
use wiretag_enrich::{Identity, Interval, Key};

use super::Catalog;
use crate::error::StoreError;

fn json<T: serde::Serialize>(what: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|source| StoreError::Row { what, source })
}

fn parse<'a, T: serde::Deserialize<'a>>(what: &'static str, text: &'a str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|source| StoreError::Row { what, source })
}

impl Catalog {
    /// Appends intervals, new ones and new versions of known ones, in one transaction.
    pub async fn append_intervals(&self, intervals: &[Interval]) -> Result<(), StoreError> {
        if intervals.is_empty() {
            return Ok(());
        }
        let mut transaction = self.begin().await?;
        for interval in intervals {
            let attributes = json("an identity", &*interval.identity)?;
            sqlx::query("INSERT INTO identities (attributes) VALUES (?) ON CONFLICT (attributes) DO NOTHING")
                .bind(&attributes)
                .execute(&mut *transaction)
                .await
                .map_err(self.failed())?;
            sqlx::query(
                "INSERT INTO intervals (key, subject, identity, valid_from, valid_to, learned_at, source) \
                 SELECT ?, ?, id, ?, ?, ?, ? FROM identities WHERE attributes = ?",
            )
            .bind(json("a key", &interval.key)?)
            .bind(&*interval.identity.identity)
            .bind(interval.valid_from)
            .bind(interval.valid_to)
            .bind(interval.learned_at)
            .bind(&*interval.source)
            .bind(&attributes)
            .execute(&mut *transaction)
            .await
            .map_err(self.failed())?;
        }
        self.commit(transaction).await
    }

    /// Every interval in its newest version, in the order in which they were first learned.
    pub async fn intervals(&self) -> Result<Vec<Interval>, StoreError> {
        let rows = sqlx::query(
            "SELECT intervals.*, identities.attributes FROM intervals JOIN identities ON identities.id = intervals.identity \
             WHERE intervals.id IN (SELECT max(id) FROM intervals GROUP BY key, subject, valid_from) ORDER BY intervals.id",
        )
        .fetch_all(&self.reads)
        .await
        .map_err(self.failed())?;
        let mut versions: HashMap<i64, Arc<Identity>> = HashMap::new();
        let mut intervals = Vec::with_capacity(rows.len());
        for row in &rows {
            let number: i64 = row.try_get("identity").map_err(self.failed())?;
            let identity = if let Some(identity) = versions.get(&number) {
                identity.clone()
            } else {
                let text: String = row.try_get("attributes").map_err(self.failed())?;
                let identity: Arc<Identity> = Arc::new(parse("an identity", &text)?);
                versions.insert(number, identity.clone());
                identity
            };
            let key: String = row.try_get("key").map_err(self.failed())?;
            let source: String = row.try_get("source").map_err(self.failed())?;
            intervals.push(Interval {
                key: parse::<Key>("a key", &key)?,
                identity,
                valid_from: row.try_get("valid_from").map_err(self.failed())?,
                valid_to: row.try_get("valid_to").map_err(self.failed())?,
                learned_at: row.try_get("learned_at").map_err(self.failed())?,
                source: source.into(),
            });
        }
        Ok(intervals)
    }
}
