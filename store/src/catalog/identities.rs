//! The persisted identity timeline.
//!
//! A dossier and the texts that it refers to are written in one transaction. Numbers of texts are remembered between
//! transactions, until a text is deleted by whichever process: then `meta` has another `texts_generation`.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use wiretag_enrich::timeline::dossier::{ClaimFact, Frees};
use wiretag_enrich::timeline::{Dossier, Timeline};
use wiretag_enrich::{Identity, Key};

use super::Catalog;
use super::database::{Change, sql};
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

/// Dossiers that are read at a time.
const PAGE: i64 = 4096;
/// Pages that are read ahead.
const PAGES: usize = 4;

/// Texts by number, read from the table.
#[derive(Default)]
struct Table {
    /// The greatest number.
    last: i64,
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
        let mut change = self.begin().await?;
        let numbers = self.write_dossiers(&mut change, dossiers).await?;
        change.commit().await?;
        if numbers.len() < MOST_TEXTS {
            self.texts.lock().unwrap_or_else(PoisonError::into_inner).numbers = numbers;
        }
        Ok(())
    }

    /// Writes dossiers; gives the numbers of texts that hold if the transaction is committed.
    pub(super) async fn write_dossiers(
        &self,
        change: &mut Change,
        dossiers: &[Dossier],
    ) -> Result<HashMap<String, u64>, StoreError> {
        let mut numbers = self.known_numbers(change).await?;
        for dossier in dossiers {
            let attributes = dossier.attributes.iter();
            let bases = attributes.map(|fact| serde_json::to_string(&*fact.base)).collect::<Result<Vec<_>, _>>();
            let bases = bases.map_err(|source| StoreError::Row { what: "attributes", source })?;
            for text in bases.iter().map(String::as_str).chain(names(dossier)) {
                if !numbers.contains_key(text) {
                    let number = self.number_of(change, text).await?;
                    numbers.insert(text.to_owned(), number);
                }
            }
            let facts = Writer::write(dossier, &bases, &mut |text: &str| numbers.get(text).copied().unwrap_or(0));
            let put = sql("INSERT INTO dossiers (id, until, facts) VALUES ($1, $2, $3) \
                 ON CONFLICT (id) DO UPDATE SET until = excluded.until, facts = excluded.facts");
            change.execute(put.bind(&*dossier.id).bind(dossier.until()).bind(&facts[..])).await?;
        }
        Ok(numbers)
    }

    /// What is remembered, if nobody has deleted texts since. A transaction that fails leaves nothing behind here.
    async fn known_numbers(&self, change: &mut Change) -> Result<HashMap<String, u64>, StoreError> {
        let rows = change.all(sql("SELECT value FROM meta WHERE name = 'texts_generation'")).await?;
        let found: Option<String> = rows.first().map(|row| row.get("value")).transpose().map_err(self.failed())?;
        let generation = found.and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut known = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        if known.generation != generation {
            known.generation = generation;
            known.numbers.clear();
        }
        Ok(std::mem::take(&mut known.numbers))
    }

    async fn number_of(&self, change: &mut Change, text: &str) -> Result<u64, StoreError> {
        let statement = self.database.own().text_number;
        let number = change.number(sql(statement).bind(text), "id").await?;
        let number = number.ok_or_else(|| self.failed()(sqlx::Error::RowNotFound))?;
        Ok(number.unsigned_abs())
    }

    /// The timeline of all dossiers.
    pub async fn timeline(&self) -> Result<Timeline, StoreError> {
        let mut timeline = Timeline::new();
        let (pages, mut read) = tokio::sync::mpsc::channel(PAGES);
        let reader = self.clone();
        // While one page is taken, the next ones are read.
        let reading = tokio::spawn(async move { reader.read_pages(pages).await });
        while let Some(page) = read.recv().await {
            for dossier in page {
                timeline.load_one(dossier);
            }
        }
        reading.await.map_err(|error| StoreError::Task(error.to_string()))??;
        timeline.loaded();
        Ok(timeline)
    }

    /// Reads the texts that came since; false: there are none.
    async fn read_texts(&self, table: &mut Table) -> Result<bool, StoreError> {
        let rows = self.database.all(sql("SELECT id, text FROM texts WHERE id > $1").bind(table.last)).await?;
        for row in &rows {
            let number: i64 = row.get("id").map_err(self.failed())?;
            let text: &str = row.get("text").map_err(self.failed())?;
            table.texts.insert(number.unsigned_abs(), text.into());
            table.last = table.last.max(number);
        }
        Ok(!rows.is_empty())
    }

    async fn read_pages(&self, pages: tokio::sync::mpsc::Sender<Vec<Dossier>>) -> Result<(), StoreError> {
        let mut table = Table::default();
        self.read_texts(&mut table).await?;
        let mut after = String::new();
        while let Some((last, page)) = self.page_after(&after, &mut table).await? {
            after = last;
            if pages.send(page).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Many dossiers as one text: a row of its own for each would take many times as long. With the name of the last of them.
    async fn page_after(&self, after: &str, table: &mut Table) -> Result<Option<(String, Vec<Dossier>)>, StoreError> {
        let statement = self.database.own().dossiers;
        let Some(row) = self.database.first(sql(statement).bind(after).bind(PAGE)).await? else { return Ok(None) };
        let last: Option<String> = row.get("last").map_err(self.failed())?;
        let page: Option<String> = row.get("page").map_err(self.failed())?;
        let (Some(last), Some(page)) = (last, page) else { return Ok(None) };
        let read = read_lines(&page, table);
        // Somebody may have written some of it since the texts were read.
        let dossiers = if read.is_err() && self.read_texts(table).await? { read_lines(&page, table) } else { read };
        Ok(Some((last, dossiers?)))
    }

    /// Forgets dossiers that tell of nothing after `before`, and texts that none has any more.
    pub(super) async fn expire_dossiers(&self, change: &mut Change, before: i64) -> Result<(), StoreError> {
        let deleted = change.execute(sql("DELETE FROM dossiers WHERE until < $1").bind(before)).await?;
        let is_due = {
            let mut known = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
            let is_due = deleted > 0 && before.saturating_sub(known.swept) > SWEEP;
            if is_due {
                known.swept = before;
            }
            is_due
        };
        if is_due { self.sweep_texts(change).await } else { Ok(()) }
    }

    async fn sweep_texts(&self, change: &mut Change) -> Result<(), StoreError> {
        let nothing = Arc::new(Identity::default());
        let mut asked = Asked { numbers: HashSet::new(), nothing: &nothing };
        let mut after = String::new();
        loop {
            let page = sql("SELECT id, facts FROM dossiers WHERE id > $1 ORDER BY id LIMIT $2");
            let rows = change.all(page.bind(&after).bind(PAGE)).await?;
            let Some(last) = rows.last() else { break };
            after = last.get("id").map_err(self.failed())?;
            for row in &rows {
                let facts: &[u8] = row.get("facts").map_err(self.failed())?;
                let read = Reader::read(Arc::default(), facts, &mut asked);
                // Nothing is deleted on the word of what cannot be read.
                if read.is_err() {
                    return Ok(());
                }
            }
        }
        for row in change.all(sql("SELECT id FROM texts")).await? {
            let number: i64 = row.get("id").map_err(self.failed())?;
            if !asked.numbers.contains(&number.unsigned_abs()) {
                change.execute(sql("DELETE FROM texts WHERE id = $1").bind(number)).await?;
            }
        }
        let next = sql("INSERT INTO meta (name, value) VALUES ('texts_generation', '1') \
             ON CONFLICT (name) DO UPDATE SET value = CAST(CAST(meta.value AS BIGINT) + 1 AS TEXT)");
        change.execute(next).await?;
        Ok(())
    }
}

fn read_lines(page: &str, table: &mut Table) -> Result<Vec<Dossier>, StoreError> {
    page.lines().map(|line| read_line(line, table)).collect()
}

/// The dossier of a line of a page.
fn read_line(line: &str, table: &mut Table) -> Result<Dossier, StoreError> {
    let parts = line.split_once(' ').and_then(|(id, facts)| Some((unhex(id)?, unhex(facts)?)));
    let parts = parts.and_then(|(id, facts)| Some((Arc::<str>::from(String::from_utf8(id).ok()?), facts)));
    let Some((id, facts)) = parts else { return Err(StoreError::Dossier { id: line.chars().take(80).collect() }) };
    Reader::read(id.clone(), &facts, table).map_err(|_| StoreError::Dossier { id: id.to_string() })
}

/// The bytes that are written in hexadecimal.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: &u8| DIGITS.get(usize::from(*digit)).copied().unwrap_or(NO_DIGIT);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    // Whether all are digits is asked once, at the end.
    let mut seen = 0;
    let byte = |[high, low]: &[u8; 2]| {
        seen |= digit(high) | digit(low);
        digit(high) << 4 | digit(low)
    };
    let bytes = pairs.iter().map(byte).collect();
    (rest.is_empty() && seen & NO_DIGIT == 0).then_some(bytes)
}

const NO_DIGIT: u8 = 0x80;

/// What each byte stands for in hexadecimal.
const DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789ABCDEF"[value] as usize] = value as u8;
        value += 1;
    }
    digits
};

/// The names in a dossier that many have.
fn names(dossier: &Dossier) -> impl Iterator<Item = &str> {
    fn of_key(key: &Key) -> &str {
        match key {
            Key::Interface { boot, .. } | Key::Socket { boot, .. } => boot,
            Key::Mac { network, .. }
            | Key::Ip { network, .. }
            | Key::Range { network, .. }
            | Key::Service { network, .. } => network,
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it fails")]
mod tests {
    use super::*;

    /// By the appliance, while a command reads them.
    #[tokio::test]
    async fn dossiers_that_are_written_while_all_are_read_are_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&dir.path().join(crate::catalog::FILE)).await.unwrap();
        let dossier = |network: &str| {
            let key = Key::Ip { network: network.into(), ip: [10, 0, 0, 1].into() };
            let claim = ClaimFact { key, source: "static".into(), from: 1, learned_at: 1, closed: None };
            Dossier { id: "one".into(), alias: None, attributes: Vec::new(), claims: vec![claim], ends: Vec::new() }
        };
        catalog.put_dossiers(&[dossier("before")]).await.unwrap();
        let mut table = Table::default();
        assert!(catalog.read_texts(&mut table).await.unwrap());
        catalog.put_dossiers(&[dossier("since")]).await.unwrap();
        let (last, page) = catalog.page_after("", &mut table).await.unwrap().unwrap();
        assert_eq!((last.as_str(), page), ("one", vec![dossier("since")]));
        assert!(catalog.page_after(&last, &mut table).await.unwrap().is_none());
        assert!(!catalog.read_texts(&mut table).await.unwrap());
    }

    #[test]
    fn hexadecimal_is_read_and_anything_else_refused() {
        let all: Vec<u8> = (0..=255).collect();
        let digits: Vec<char> = "0123456789ABCDEF".chars().collect();
        let text: String = digits.iter().flat_map(|high| digits.iter().flat_map(move |low| [*high, *low])).collect();
        assert_eq!(unhex(&text), Some(all));
        assert_eq!(unhex(""), Some(Vec::new()));
        for broken in ["A", "ABC", "0G", "g0", "0a", "A ", "Ã€"] {
            assert_eq!(unhex(broken), None, "{broken}");
        }
    }
}
