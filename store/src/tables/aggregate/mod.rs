//! Aggregations: groups of rows and their figures, over everything that is kept.
//!
//! ```text
//! rows in memory ─┐
//! files ──────────┼─ partial groups [groups], [states] ─ merged ─ ordered, limited ─ answer [answer]
//! what others aggregated before ─┘
//! ```
//!
//! * a row counts in the period in which it starts, so that no row is in two periods side by side;
//! * states are merged in any order and grouping with one result, so answers are the same from memory, from files, and from
//!   what was aggregated before;
//! * between two pieces of work others have their turn: there a question ends whose time is over, or whose client went;
//! * memory is bounded by a budget for each query. Where only some groups are wanted, what does not fit at once is looked at
//!   in parts, so that the answer is still made of all groups; else it is an error.
//!
//! The query engine finds and filters rows; grouping is ours, because states must be the same from every source and their
//! memory known.

mod answer;
mod groups;
mod histogram;
mod rolled;
mod row;
mod sketches;
mod states;
mod values;

use std::sync::Arc;

use foldhash::fast::RandomState;
use tokio::task::JoinSet;
use wiretag_enrich::Tagged;

pub(crate) use self::groups::{Groups, Part, Plan};
pub use self::histogram::{Bucket, Histogram, TransactionBucket};
pub(super) use self::rolled::{passing, starts};
pub use self::row::GroupRow;
pub(crate) use self::states::Keeps;
pub(crate) use self::values::KeyValue;
use super::engine::Condition;
use super::error::TableError;
use super::observed::Observed;
use super::rollup::serve::Coarse;
use super::{Range, Snapshot, Table, TableStore, rollup, schema};
use crate::catalog::FlowFile;
use crate::error::StoreError;
use crate::limits::{Budget, LimitReached, MOST_GROUPS};
use crate::query::Query;
use crate::query::plan::{Aggregate, AnswerColumn};

/// Rows from memory that are looked at before others have their turn.
const CHUNK: usize = 8_192;
/// Files that are read by one plan of the engine.
const FILES: usize = 256;
/// Into how many parts groups are divided, when they do not fit at once, then when those do not fit, and so on.
const PARTS: [u64; 3] = [8, 64, 512];

/// An aggregation over rows of a time.
#[derive(Debug, Clone)]
pub struct AggregateRequest<R: 'static> {
    /// Which rows.
    pub filter: Query<R>,
    /// What to tell of them.
    pub aggregate: Aggregate<R>,
    /// Rows that start in it count.
    pub range: Range,
    /// Also rows that are not primary.
    pub all_observations: bool,
    /// Also tell the figures of the period before, of the same length.
    pub compare: bool,
    /// Memory that it may take, bytes.
    pub memory: usize,
}

/// Groups with their figures.
#[derive(Debug, Clone, PartialEq)]
pub struct AggregateAnswer {
    /// Columns of `rows`: keys, then figures; with a comparison those of the period before, too.
    pub columns: Vec<AnswerColumn>,
    /// One for each group, in order.
    pub rows: Vec<GroupRow>,
    /// How many groups there are, of which the answer may have fewer.
    pub groups: u64,
    /// What `compare` compares with.
    pub previous: Option<Range>,
    /// Where the figures come from.
    pub served_by: ServedBy,
}

/// Where the figures of an answer come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServedBy {
    /// Files of rows that were read.
    pub files: u64,
    /// Rows that passed the filter and were added up, of files and memory.
    pub rows: u64,
    /// Files of roll-ups that were read.
    pub rollups: u64,
    /// Rows of these that passed.
    pub rolled_rows: u64,
    /// Only roll-ups are left of a part of the range: what counts there is whole minutes or hours that begin in it, ns.
    pub resolution: Option<i64>,
    /// Roll-ups can answer it where rows are gone.
    pub rollable: bool,
}

/// The groups of one period.
struct Period {
    groups: Groups,
    range: Range,
    served_by: ServedBy,
    coarse: Vec<Coarse>,
}

impl<R: Table> TableStore<R> {
    /// Groups with their figures; `observed` is for who wants to know how it is answered.
    pub(in crate::tables) async fn aggregate_observed(
        &self,
        request: &AggregateRequest<R>,
        observed: Option<&Arc<Observed>>,
    ) -> Result<AggregateAnswer, StoreError> {
        let mut last = None;
        for of in [1].into_iter().chain(PARTS) {
            match self.in_parts(request, of, observed).await {
                Err(StoreError::Limit(limit @ LimitReached::Memory { .. })) if request.can_be_divided() => {
                    last = Some(limit);
                }
                answer => return answer,
            }
        }
        Err(StoreError::Limit(last.unwrap_or(LimitReached::Memory { mib: request.memory >> 20 })))
    }

    /// The answer, made with the memory of a part of the groups at a time.
    async fn in_parts(
        &self,
        request: &AggregateRequest<R>,
        of: u64,
        observed: Option<&Arc<Observed>>,
    ) -> Result<AggregateAnswer, StoreError> {
        // Parts are the same in each pass.
        let hasher = RandomState::default();
        let mut whole: Option<answer::Part> = None;
        for number in 0..of {
            let part = (of > 1).then_some(Part { number, of, later: 0 });
            let part = self.one_part(request, &hasher, part, observed).await?;
            whole = Some(match whole {
                Some(before) => before.with(part, &request.aggregate),
                None => part,
            });
            tokio::task::yield_now().await;
        }
        let whole = whole.unwrap_or_default();
        if request.aggregate.limit.is_none() && whole.groups > MOST_GROUPS as u64 {
            return Err(LimitReached::Groups { groups: whole.groups as usize }.into());
        }
        Ok(whole.answer(request))
    }

    async fn one_part(
        &self,
        request: &AggregateRequest<R>,
        hasher: &RandomState,
        part: Option<Part>,
        observed: Option<&Arc<Observed>>,
    ) -> Result<answer::Part, StoreError> {
        let budget = Arc::new(Budget::new(request.memory));
        let plan = Arc::new(Plan::new(&request.aggregate));
        let groups = Groups::new(&plan, hasher, part, &budget);
        let now = self.period(request, &plan, groups, request.range, observed).await?;
        if !request.compare {
            return Ok(answer::Part::new(request, &plan, now, None));
        }
        let previous = request.previous().ok_or(TableError::Period(
            "the period before begins before all time; hint: compare a range with a beginning",
        ))?;
        let length = request.range.to.saturating_sub(request.range.from);
        let plan_before = Arc::new(Plan::new(&request.aggregate.counted_from(length.saturating_neg())));
        let part = part.map(|part| Part { later: length, ..part });
        let groups = Groups::new(&plan_before, hasher, part, &budget);
        let before = self.period(request, &plan_before, groups, previous, observed).await?;
        Ok(answer::Part::new(request, &plan, now, Some(before)))
    }

    /// All groups of a period, from every source.
    async fn period(
        &self,
        request: &AggregateRequest<R>,
        plan: &Arc<Plan<R>>,
        mut groups: Groups,
        range: Range,
        observed: Option<&Arc<Observed>>,
    ) -> Result<Period, StoreError> {
        let condition = Condition {
            not_before: Some(range.from),
            observed: observed.cloned(),
            ..Condition::new(request.filter.node.clone(), range, request.all_observations)
        };
        let width = rollup::serve::width(plan, &condition.node, condition.all_observations);
        let (mut snapshot, rolled) = self.answerable(range, width.is_some()).await?;
        let mut served_by = ServedBy { rollable: width.is_some(), ..ServedBy::default() };
        served_by.rows += self.add_memory(&mut groups, plan, &condition, &snapshot).await?;
        let (mut oldest, mut coarse) = (None, Vec::new());
        if let Some(width) = width {
            let files = std::mem::take(&mut snapshot.files);
            let read = self.add_rolled(&mut groups, plan, &condition, (width, files, rolled)).await?;
            (served_by.rollups, served_by.rolled_rows) = (read.rollups, read.rows);
            (coarse, snapshot.files, oldest) = (read.coarse, read.files, read.oldest);
            served_by.resolution = coarse.iter().map(|coarse| coarse.width).max();
        }
        let files: Vec<&FlowFile> = snapshot.files.iter().filter(|file| condition.touches(file)).collect();
        served_by.files = files.len() as u64;
        if let Some(observed) = observed {
            observed.looked_at(snapshot.memory().count(), snapshot.files.len(), files.len());
            observed.rolled(served_by.rollups, served_by.rolled_rows);
        }
        for chunk in files.chunks(FILES) {
            served_by.rows += self.add_files(&mut groups, plan, &condition, chunk).await?;
        }
        groups.gather();
        tokio::task::yield_now().await;
        let mut range = range;
        if plan.has_rates() {
            // Rates are of the time of which something is kept.
            let memory = snapshot.memory().map(|row| row.record.key().start);
            let open = self.inner.recent.read().await.open.oldest();
            let kept = self.inner.catalog.totals_of(R::NAME).await?.start;
            let rows = memory.chain(kept).chain(open).min();
            if let Some(width) = served_by.resolution {
                // What counts there is whole: it begins in the range, and may end behind it.
                range.from = rounded_up(range.from, width);
                if rows.is_none_or(|rows| range.to <= rows) {
                    range.to = rounded_up(range.to, width);
                }
            }
            // To those who may not see every row, others' rows do not tell since when anything is kept.
            let since = rows.into_iter().chain(oldest).min().filter(|_| !request.filter.restricted);
            range.from = range.from.max(since.unwrap_or(range.from));
        }
        Ok(Period { groups, range, served_by, coarse })
    }

    async fn add_memory(
        &self,
        groups: &mut Groups,
        plan: &Plan<R>,
        condition: &Condition<R>,
        snapshot: &Snapshot<R>,
    ) -> Result<u64, TableError> {
        let columns = plan.columns();
        let mut waiting: Vec<&Tagged<R>> = Vec::new();
        let mut rows = 0;
        for (at, row) in snapshot.memory().enumerate() {
            if condition.matches(row) {
                waiting.push(row);
                rows += 1;
            }
            if waiting.len() == CHUNK {
                groups.add_batch(plan, &schema::some_columns(&waiting, &columns)?)?;
                waiting.clear();
            }
            if at % CHUNK == CHUNK - 1 {
                tokio::task::yield_now().await;
            }
        }
        groups.add_batch(plan, &schema::some_columns(&waiting, &columns)?)?;
        Ok(rows)
    }

    async fn add_files(
        &self,
        groups: &mut Groups,
        plan: &Arc<Plan<R>>,
        condition: &Condition<R>,
        files: &[&FlowFile],
    ) -> Result<u64, StoreError> {
        let mut rest = files.to_vec();
        let (parts, rows) = loop {
            match self.read_groups(groups, plan, condition, &rest).await {
                Err(error) => rest = self.without_unreadable(&rest, error).await?,
                Ok(read) => break read,
            }
        };
        for part in parts {
            groups.merge(part)?;
            tokio::task::yield_now().await;
        }
        Ok(rows)
    }

    /// The groups of the rows of files, as many sets as the engine works on at the same time.
    pub(in crate::tables) async fn read_groups(
        &self,
        like: &Groups,
        plan: &Arc<Plan<R>>,
        condition: &Condition<R>,
        files: &[&FlowFile],
    ) -> Result<(Vec<Groups>, u64), TableError> {
        let columns = schema::as_stored::<R>(&plan.columns());
        let condition = Condition { starts: plan.starts(), ..condition.clone() };
        let streams = self.inner.engine.among(files, &condition, &columns).await?;
        // What is not waited for is ended, when whoever asked goes away.
        let mut tasks = JoinSet::new();
        for mut stream in streams {
            let (mut groups, plan) = (like.empty(plan), plan.clone());
            tasks.spawn(async move {
                let mut rows = 0;
                while let Some(found) = stream.recv().await {
                    rows += groups.add_among(&plan, &found?)?;
                    // What is read already is taken without a pause, and clocks stand still meanwhile.
                    tokio::task::yield_now().await;
                }
                Ok::<_, TableError>((groups, rows))
            });
        }
        let (mut parts, mut rows) = (Vec::new(), 0);
        while let Some(part) = tasks.join_next().await {
            let (groups, some) = part??;
            parts.push(groups);
            rows += some;
        }
        Ok((parts, rows))
    }
}

/// The first multiple of `width` that is not before.
fn rounded_up(at: i64, width: i64) -> i64 {
    let behind = at.rem_euclid(width);
    if behind == 0 { at } else { at.saturating_add(width - behind) }
}

impl<R: Table> AggregateRequest<R> {
    /// The period before, of the same length.
    fn previous(&self) -> Option<Range> {
        let length = self.range.to.checked_sub(self.range.from)?;
        Some(Range { from: self.range.from.checked_sub(length)?, to: self.range.from })
    }

    /// What the answer is of: with a comparison, the period before too.
    pub fn time(&self) -> Range {
        let previous = self.previous().filter(|_| self.compare);
        Range { from: previous.map_or(self.range.from, |previous| previous.from), ..self.range }
    }

    /// Whether the answer can be made of parts of the groups: it keeps only some of each.
    fn can_be_divided(&self) -> bool {
        self.aggregate.limit.is_some() && !self.aggregate.by.is_empty()
    }
}
