//! Making roll-ups: of the flow files of an hour that is past, and of the minutes of a day that is past.
//!
//! A file is written and synced before the catalog names it. One that the catalog does not name is deleted by the next start: it
//! can be made again. Groups that do not fit in memory at once (an hour in which somebody tried all ports has millions) are made in parts, for
//! each of which everything is read again, one part a turn, so that nothing else of the store waits for long; they are one file all the same,
//! which counts if by then all is there that it adds up. A day with a roll-up that cannot be read stays without; a file of rows that cannot
//! be read is left out, and added up when it can be.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use foldhash::fast::RandomState;
use wiretag_capture::FlowRecord;

use super::write::{Place, Writing};
use super::{DAY, HOUR, MINUTE, aggregate};
use crate::catalog::{FlowFile, Origin, RollupFile, TableName};
use crate::error::StoreError;
use crate::limits::{Budget, DEFAULT_MEMORY, LimitReached};
use crate::query::ast::Node;
use crate::tables::aggregate::{Groups, Part, Plan};
use crate::tables::engine::Condition;
use crate::tables::{FlowStore, Range, TableError, files};

/// Since the end of an hour, ns: by then its flows are in files, and these are merged.
const SETTLED: i64 = HOUR / 6;
/// Files of an hour that has ever so many are not waited for to be merged.
const MOST_FILES: usize = 64;
/// Parts of a roll-up.
const MOST_PARTS: u64 = 1 << 10;

/// What is being made, and what failed.
#[derive(Default)]
pub(in crate::tables) struct Rolling {
    /// Of which some parts are in the file.
    begun: Option<(Begun, Writing)>,
    /// Hours and days that are not tried again.
    given_up: BTreeSet<Place>,
    /// What was said last, and of when; it is not said every two seconds.
    told: Option<(i64, String)>,
}

impl Rolling {
    /// What is begun is of rows as they were: nothing is left of it.
    pub(in crate::tables) fn forget_begun(&mut self) {
        self.begun = None;
    }
}

/// A roll-up that is being made.
struct Begun {
    place: Place,
    of: Of,
    parts: u64,
    made: u64,
    /// Parts are the same in each turn.
    hasher: RandomState,
}

/// What is added up.
enum Of {
    Rows(Vec<FlowFile>),
    Minutes(Vec<RollupFile>),
}

impl Begun {
    fn new(place: Place, of: Of) -> Self {
        Self { place, of, parts: 1, made: 0, hasher: RandomState::default() }
    }

    /// Paths of what is added up.
    fn paths(&self) -> Vec<String> {
        match &self.of {
            Of::Rows(files) => files.iter().map(|file| file.path.clone()).collect(),
            Of::Minutes(files) => files.iter().map(|file| file.path.clone()).collect(),
        }
    }
}

impl FlowStore {
    /// Makes the next roll-up, or a part of it, if an hour or a day is without; its rows by then. To be called now and then, when nothing
    /// is left to merge. While files are exchanged nothing is made.
    pub async fn roll_up(&self, now: i64) -> Result<u64, StoreError> {
        self.roll_up_within(now, DEFAULT_MEMORY).await
    }

    /// As [`FlowStore::roll_up`], with so much memory, bytes.
    pub async fn roll_up_within(&self, now: i64, memory: usize) -> Result<u64, StoreError> {
        let Ok(mut rolling) = self.inner.rolling.try_lock() else { return Ok(0) };
        let (next, file) = match rolling.begun.take() {
            Some((begun, file)) => (Some(begun), Some(file)),
            None => (self.next_rollup(&rolling.given_up, now).await?, None),
        };
        let Some(next) = next else { return Ok(0) };
        let (place, counts) = (next.place, &self.inner.counts);
        match self.make(next, file, memory).await {
            Ok((rows, Some(begun))) => {
                rolling.begun = Some(begun);
                Ok(rows)
            }
            Ok((rows, None)) => {
                rolling.told = None;
                counts.rollups.fetch_add(1, Ordering::Relaxed);
                counts.rollup_rows.fetch_add(rows, Ordering::Relaxed);
                Ok(rows)
            }
            // Retention took a file meanwhile, or none of them can be read: the next time chooses anew.
            Err(StoreError::Gone { .. } | StoreError::Changed) => Ok(0),
            Err(error) => {
                counts.failed_rollups.fetch_add(1, Ordering::Relaxed);
                // Broken or missing roll-ups stay what they are; a full disk or a catalog that is away do not.
                if stays(&error) {
                    rolling.given_up.insert(place);
                }
                let (_, start, _) = place;
                let told = Some((start, error.to_string()));
                if rolling.told != told {
                    tracing::warn!(%error, start, "flows of this time are not rolled up: questions read their rows");
                    rolling.told = told;
                }
                Err(error)
            }
        }
    }

    async fn next_rollup(&self, given_up: &BTreeSet<Place>, now: i64) -> Result<Option<Begun>, StoreError> {
        let catalog = &self.inner.catalog;
        let mut hours: BTreeMap<(i64, Origin), Vec<_>> = BTreeMap::new();
        for file in self.readable(catalog.unrolled(TableName::Flows).await?) {
            if let Some(hour) = files::hour_of(&file.path) {
                hours.entry((hour, file.origin)).or_default().push(file);
            }
        }
        let past = |start: i64, length: i64| start.saturating_add(length + SETTLED) < now;
        let tried = |width: i64, start: i64, origin: Origin| given_up.contains(&(width, start, origin));
        for ((hour, origin), mut files) in hours {
            if past(hour, HOUR) && !tried(MINUTE, hour, origin) {
                files.truncate(MOST_FILES);
                return Ok(Some(Begun::new((MINUTE, hour, origin), Of::Rows(files))));
            }
        }
        let mut days: BTreeMap<(i64, Origin), Vec<RollupFile>> = BTreeMap::new();
        let without = |file: &RollupFile| file.width == MINUTE && file.day.is_none() && !file.gone;
        for file in catalog.rollups().await?.into_iter().filter(without) {
            days.entry((file.start.div_euclid(DAY) * DAY, file.origin)).or_default().push(file);
        }
        let next = days.into_iter().find(|((day, origin), _)| past(*day, DAY) && !tried(HOUR, *day, *origin));
        Ok(next.map(|((day, origin), minutes)| Begun::new((HOUR, day, origin), Of::Minutes(minutes))))
    }

    /// Makes the next part. If it was the last one the roll-up counts; its rows by then, and what is left to be made.
    async fn make(
        &self,
        begun: Begun,
        file: Option<Writing>,
        memory: usize,
    ) -> Result<(u64, Option<(Begun, Writing)>), StoreError> {
        let (begun, file) = self.with_next_part(begun, file, memory).await?;
        if begun.made < begun.parts {
            return Ok((file.rows(), Some((begun, file))));
        }
        let parts = begun.paths();
        let file = tokio::task::spawn_blocking(move || file.finish()).await.map_err(TableError::from)??;
        let file = RollupFile { files: parts.len() as u64, ..file };
        let change = match file.width {
            MINUTE => self.inner.catalog.prepare_rollup(&file, &parts).await,
            _ => self.inner.catalog.prepare_rollup_of_hours(&file, &parts).await,
        };
        self.inner.exchange(change, Some(&file.path)).await?;
        Ok((file.rows, None))
    }

    /// Adds the next part to the file. If it does not fit in memory there are more parts, and files that cannot be read are left out:
    /// then everything begins again.
    async fn with_next_part(
        &self,
        mut begun: Begun,
        mut file: Option<Writing>,
        memory: usize,
    ) -> Result<(Begun, Writing), StoreError> {
        let mut groups = loop {
            match self.next_groups(&begun, memory).await {
                Ok(groups) => break groups,
                Err(TableError::Limit(LimitReached::Memory { mib })) if begun.parts >= MOST_PARTS => {
                    return Err(TableError::RollUp { mib }.into());
                }
                Err(TableError::Limit(LimitReached::Memory { .. })) => begun.parts *= 2,
                Err(error) => begun.of = Of::Rows(self.rest_of(&begun.of, error).await?),
            }
            (begun.made, file) = (0, None);
        };
        let (dir, place) = (self.inner.engine.data_dir().to_owned(), begun.place);
        let work = move || {
            groups.gather();
            let mut file = match file {
                Some(file) => file,
                None => Writing::begin(&dir, place)?,
            };
            file.write_groups(&groups)?;
            Ok::<_, TableError>(file)
        };
        let file = tokio::task::spawn_blocking(work).await.map_err(TableError::from)??;
        Ok((Begun { made: begun.made + 1, ..begun }, file))
    }

    /// After `error`: what is left to be added up.
    async fn rest_of(&self, of: &Of, error: TableError) -> Result<Vec<FlowFile>, StoreError> {
        let files: Vec<&FlowFile> = match of {
            Of::Rows(files) => files.iter().collect(),
            Of::Minutes(_) => return Err(error.into()),
        };
        let rest = self.without_unreadable(&files, error).await?;
        if rest.is_empty() { Err(StoreError::Changed) } else { Ok(rest.into_iter().cloned().collect()) }
    }

    /// The groups of the next part.
    async fn next_groups(&self, begun: &Begun, memory: usize) -> Result<Groups, TableError> {
        let plan = Arc::new(Plan::<FlowRecord>::new(&aggregate(begun.place.0)));
        let part = (begun.parts > 1).then_some(Part { number: begun.made, of: begun.parts, later: 0 });
        let mut groups = Groups::new(&plan, &begun.hasher, part, &Arc::new(Budget::new(memory)));
        match &begun.of {
            Of::Rows(files) => {
                let condition = Condition::new(Node::All, Range::ALL, false);
                let files: Vec<&FlowFile> = files.iter().collect();
                for part in self.read_groups(&groups, &plan, &condition, &files).await?.0 {
                    groups.merge(part)?;
                }
                Ok(groups)
            }
            Of::Minutes(files) => {
                let dir = self.inner.engine.data_dir();
                let paths: Vec<PathBuf> = files.iter().map(|file| dir.join(&file.path)).collect();
                let work = move || {
                    for path in &paths {
                        groups.add_rolled_file(&plan, &Node::All, Range::ALL, path)?;
                    }
                    Ok::<_, TableError>(groups)
                };
                tokio::task::spawn_blocking(work).await?
            }
        }
    }
}

/// Whether it fails again, however often it is tried.
fn stays(error: &StoreError) -> bool {
    let missing = |source: &io::Error| source.kind() == io::ErrorKind::NotFound;
    match error {
        StoreError::Query(_) => true,
        StoreError::Io { action: "open", source, .. } => missing(source),
        _ => false,
    }
}
