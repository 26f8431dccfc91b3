//! Identities as they were kept before there were dossiers: rows of intervals, with attributes in JSON.

use std::collections::HashMap;
use std::sync::Arc;

use wiretag_enrich::timeline::Dossier;
use wiretag_enrich::timeline::dossier::{AttributesFact, ClaimFact, Closed};
use wiretag_enrich::{Identity, Key};

use super::Catalog;
use super::database::{Row, sql};
use crate::error::StoreError;

impl Catalog {
    /// Makes dossiers of what is there in the old form, once.
    pub(super) async fn carry_over(&self) -> Result<(), StoreError> {
        let is_there = self.database.first(sql("SELECT 1 FROM intervals LIMIT 1")).await?;
        if is_there.is_none() {
            return Ok(());
        }
        let mut change = self.begin().await?;
        // The newest version of each counts.
        let newest = sql(
            "SELECT intervals.*, identities.attributes FROM intervals JOIN identities ON identities.id = intervals.identity \
             WHERE intervals.id IN (SELECT max(id) FROM intervals GROUP BY key, subject, valid_from) ORDER BY intervals.id",
        );
        let rows = change.all(newest).await?;
        let mut dossiers: HashMap<String, Dossier> = HashMap::new();
        for row in &rows {
            let subject: String = row.get("subject").map_err(self.failed())?;
            let (attributes, claim) = self.carried(row)?;
            let dossier = dossiers.entry(subject.clone()).or_insert_with(|| Dossier {
                id: subject.into(),
                alias: None,
                attributes: Vec::new(),
                claims: Vec::new(),
                ends: Vec::new(),
            });
            dossier.attributes.push(attributes);
            dossier.claims.push(claim);
        }
        let dossiers: Vec<Dossier> = dossiers.into_values().collect();
        self.write_dossiers(&mut change, &dossiers).await?;
        for statement in ["DELETE FROM intervals", "DELETE FROM identities"] {
            change.execute(sql(statement)).await?;
        }
        change.commit().await
    }

    fn carried(&self, row: &Row) -> Result<(AttributesFact, ClaimFact), StoreError> {
        let text = |name: &str| row.get::<String>(name).map_err(self.failed());
        let time = |name: &str| row.get::<i64>(name).map_err(self.failed());
        let unreadable = |what| move |source| StoreError::Row { what, source };
        let identity: Identity = serde_json::from_str(&text("attributes")?).map_err(unreadable("an identity"))?;
        let key: Key = serde_json::from_str(&text("key")?).map_err(unreadable("a key"))?;
        let source: Arc<str> = text("source")?.into();
        let (from, learned_at) = (time("valid_from")?, time("learned_at")?);
        let to: Option<i64> = row.get("valid_to").map_err(self.failed())?;
        let closed = to.map(|to| Closed { to, unheard: false, learned_at });
        let Identity { pod, container, .. } = identity.clone();
        let base = Arc::new(Identity { identity: Arc::default(), pod: None, container: None, ..identity });
        let attributes = AttributesFact { base, pod, container, source: source.clone(), from, learned_at };
        Ok((attributes, ClaimFact { key, source, from, learned_at, closed }))
    }
}
