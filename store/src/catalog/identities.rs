//! The persisted identity timeline.
//!
//! A dossier and the texts that it refers to are written in one transaction. Numbers of texts are remembered between
//! transactions, until a text is deleted by whichever process: then `meta` has another `texts_generation`.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use futures_util::TryStreamExt;
use sqlx::{Row, Sqlite, Transaction};
use wiretag_enrich::timeline::dossier::{ClaimFact, Frees};
use wiretag_enrich::timeline::{Dossier, Timeline};
use wiretag_enrich::{Identity, Key};

use super::Catalog;
use super::dossier::{Reader, Texts, Writer};
use crate::error::StoreError;

/// Numbers of texts that are remembered.
const MOST_TEXTS: usize = 100_000;
/// Dossiers are looked through for texts that nobody has any more at most so often, ns.
const SWEEP: i64 = 3_600_000_000_000;

/// Numbers of texts, as of a generation.
#[derive(Debug, Default)]
pub(super) struct TextNumbers {
    generation: i64,
    numbers: HashMap<String, u64>,
    swept: i64,
}

/// Texts by number, read from the table.
#[derive(Default)]
struct Table {
    texts: HashMap<u64, Arc<str>>,
    bases: HashMap<u64, Arc<Identity>>,
}

impl Texts for Table {
    fn name(&mut self, number: u64) -> Option<Arc<str>> {
        self.texts.get(&number).cloned()
    }

    fn base(&mut self, number: u64) -> Option<Arc<Identity>> {
        if let Some(known) = self.bases.get(&number) {
            return Some(known.clone());
        }
        let base: Arc<Identity> = serde_json::from_str(self.texts.get(&number)?).ok()?;
        self.bases.insert(number, base.clone());
        Some(base)
    }
}

/// Notes which texts are asked for.
struct Asked<'a> {
    numbers: HashSet<u64>,
    nothing: &'a Arc<Identity>,
}

impl Texts for Asked<'_> {
    fn name(&mut self, number: u64) -> Option<Arc<str>> {
        self.numbers.insert(number);
        Some(Arc::default())
    }

    fn base(&mut self, number: u64) -> Option<Arc<Identity>> {
        self.numbers.insert(number);
        Some(self.nothing.clone())
    }
}

impl Catalog {
    /// Writes dossiers, in one transaction.
    pub async fn put_dossiers(&self, dossiers: &[Dossier]) -> Result<(), StoreError> {
        if dossiers.is_empty() {
            return Ok(());
        }
        let mut transaction = self.begin().await?;
        let numbers = self.write_dossiers(&mut transaction, dossiers).await?;
        self.commit(transaction).await?;
        if numbers.len() < MOST_TEXTS {
            self.texts.lock().unwrap_or_else(PoisonError::into_inner).numbers = numbers;
        }
        Ok(())
    }

    /// Writes dossiers; gives the numbers of texts that hold if the transaction is committed.
    pub(super) async fn write_dossiers(
        &self,
        transaction: &mut Transaction<'static, Sqlite>,
        dossiers: &[Dossier],
    ) -> Result<HashMap<String, u64>, StoreError> {
        let mut numbers = self.known_numbers(transaction).await?;
        for dossier in dossiers {
            let attributes = dossier.attributes.iter();
            let bases = attributes.map(|fact| serde_json::to_string(&*fact.base)).collect::<Result<Vec<_>, _>>();
            let bases = bases.map_err(|source| StoreError::Row { what: "attributes", source })?;
            for text in bases.iter().map(String::as_str).chain(names(dossier)) {
                if !numbers.contains_key(text) {
                    let number = self.number_of(transaction, text).await?;
                    numbers.insert(text.to_owned(), number);
                }
            }
            let facts = Writer::write(dossier, &bases, &mut |text: &str| numbers.get(text).copied().unwrap_or(0));
            sqlx::query(
                "INSERT INTO dossiers (id, until, facts) VALUES (?, ?, ?) \
                 ON CONFLICT (id) DO UPDATE SET until = excluded.until, facts = excluded.facts",
            )
            .bind(&*dossier.id)
            .bind(dossier.until())
            .bind(facts)
            .execute(&mut **transaction)
            .await
            .map_err(self.failed())?;
        }
        Ok(numbers)
    }

    /// What is remembered, if nobody has deleted texts since. A transaction that fails leaves nothing behind here.
    async fn known_numbers(
        &self,
        transaction: &mut Transaction<'static, Sqlite>,
    ) -> Result<HashMap<String, u64>, StoreError> {
        let found: Option<String> = sqlx::query_scalar("SELECT value FROM meta WHERE name = 'texts_generation'")
            .fetch_optional(&mut **transaction)
            .await
            .map_err(self.failed())?;
        let generation = found.and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut known = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        if known.generation != generation {
            known.generation = generation;
            known.numbers.clear();
        }
        Ok(std::mem::take(&mut known.numbers))
    }

    async fn number_of(&self, transaction: &mut Transaction<'static, Sqlite>, text: &str) -> Result<u64, StoreError> {
        let number: i64 = sqlx::query_scalar(
            "INSERT INTO texts (text) VALUES (?) ON CONFLICT (text) DO UPDATE SET text = excluded.text RETURNING id",
        )
        .bind(text)
        .fetch_one(&mut **transaction)
        .await
        .map_err(self.failed())?;
        Ok(number.unsigned_abs())
    }

    /// The timeline of all dossiers.
    pub async fn timeline(&self) -> Result<Timeline, StoreError> {
        let mut timeline = Timeline::new();
        let mut table = Table::default();
        let rows = sqlx::query("SELECT id, text FROM texts").fetch_all(&self.reads).await.map_err(self.failed())?;
        for row in &rows {
            let number: i64 = row.try_get(0).map_err(self.failed())?;
            let text: &str = row.try_get(1).map_err(self.failed())?;
            table.texts.insert(number.unsigned_abs(), text.into());
        }
        let mut rows = sqlx::query("SELECT id, facts FROM dossiers").fetch(&self.reads);
        while let Some(row) = rows.try_next().await.map_err(self.failed())? {
            let id: &str = row.try_get(0).map_err(self.failed())?;
            let facts: &[u8] = row.try_get(1).map_err(self.failed())?;
            let dossier = Reader::read(id.into(), facts, &mut table);
            timeline.load_one(dossier.map_err(|_| StoreError::Dossier { id: id.to_owned() })?);
        }
        timeline.loaded();
        Ok(timeline)
    }

    /// Forgets dossiers that tell of nothing after `before`, and texts that none has any more.
    pub(super) async fn expire_dossiers(
        &self,
        transaction: &mut Transaction<'static, Sqlite>,
        before: i64,
    ) -> Result<(), StoreError> {
        let deleted = sqlx::query("DELETE FROM dossiers WHERE until < ?")
            .bind(before)
            .execute(&mut **transaction)
            .await
            .map_err(self.failed())?
            .rows_affected();
        let is_due = {
            let mut known = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
            let is_due = deleted > 0 && before.saturating_sub(known.swept) > SWEEP;
            if is_due {
                known.swept = before;
            }
            is_due
        };
        if is_due { self.sweep_texts(transaction).await } else { Ok(()) }
    }

    async fn sweep_texts(&self, transaction: &mut Transaction<'static, Sqlite>) -> Result<(), StoreError> {
        let nothing = Arc::new(Identity::default());
        let mut asked = Asked { numbers: HashSet::new(), nothing: &nothing };
        {
            let mut rows = sqlx::query("SELECT facts FROM dossiers").fetch(&mut **transaction);
            while let Some(row) = rows.try_next().await.map_err(self.failed())? {
                let facts: &[u8] = row.try_get(0).map_err(self.failed())?;
                let read = Reader::read(Arc::default(), facts, &mut asked);
                // Nothing is deleted on the word of what cannot be read.
                if read.is_err() {
                    return Ok(());
                }
            }
        }
        let all: Vec<i64> =
            sqlx::query_scalar("SELECT id FROM texts").fetch_all(&mut **transaction).await.map_err(self.failed())?;
        for number in all.into_iter().filter(|number| !asked.numbers.contains(&number.unsigned_abs())) {
            sqlx::query("DELETE FROM texts WHERE id = ?")
                .bind(number)
                .execute(&mut **transaction)
                .await
                .map_err(self.failed())?;
        }
        sqlx::query(
            "INSERT INTO meta (name, value) VALUES ('texts_generation', '1') \
             ON CONFLICT (name) DO UPDATE SET value = CAST(value AS INTEGER) + 1",
        )
        .execute(&mut **transaction)
        .await
        .map_err(self.failed())?;
        Ok(())
    }
}

/// The names in a dossier that many have.
fn names(dossier: &Dossier) -> impl Iterator<Item = &str> {
    fn of_key(key: &Key) -> &str {
        match key {
            Key::Interface { boot, .. } | Key::Socket { boot, .. } => boot,
            Key::Mac { network, .. } | Key::Ip { network, .. } | Key::Service { network, .. } => network,
        }
    }
    let alias = dossier.alias.iter().map(|alias| &*alias.source);
    let attributes = dossier.attributes.iter().map(|fact| &*fact.source);
    let claims = dossier.claims.iter().flat_map(|ClaimFact { key, source, .. }| [of_key(key), source]);
    let ends = dossier.ends.iter().flat_map(|end| {
        let freed = match &end.frees {
            Frees::All => None,
            Frees::Network(network) => Some(&**network),
            Frees::Key(key) => Some(of_key(key)),
        };
        std::iter::once(&*end.source).chain(freed)
    });
    alias.chain(attributes).chain(claims).chain(ends)
}
