//! Totals of flows or transactions over time, in a given number of stretches: an aggregation by time and by how both ends were named.

use std::sync::Arc;

use foldhash::fast::RandomState;
use futures_util::future::BoxFuture;
use wiretag_capture::{FlowRecord, Transaction};
use wiretag_enrich::TaggedBy;
use wiretag_enrich::tagged::all_columns;

use super::groups::{Groups, Plan};
use super::values::{KeyValue, Seen};
use super::{AggregateRequest, Period, ServedBy, TableError};
use crate::error::StoreError;
use crate::limits::{Budget, DEFAULT_MEMORY};
use crate::query::Query;
use crate::query::ast::Field;
use crate::query::plan::{Aggregate, Figure, Key, KeyOf, Measure};
use crate::tables::rollup::{HOUR, MINUTE};
use crate::tables::{FlowStore, Range, Table, TableStore, TransactionStore};

/// Totals of stretches of equal length that cover a range, and where they come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<B> {
    /// The oldest first. Of a minute or more they begin and end on whole minutes, of two hours or more on whole hours, so that roll-ups can be
    /// their totals; the first then may begin before the range, the last end behind it, and what is outside does not count.
    pub buckets: Vec<B>,
    /// Where the totals come from.
    pub served_by: ServedBy,
}

/// Buckets of so many ns or more are whole hours.
const LONG: i64 = 2 * HOUR;

/// Buckets of a histogram at most.
const MAX_BUCKETS: usize = 10_000;

/// Totals of the flows that start in one stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bucket {
    /// First ns.
    pub start: i64,
    /// Rows.
    pub flows: u64,
    /// Sum of `client_bytes`.
    pub client_bytes: u64,
    /// Sum of `server_bytes`.
    pub server_bytes: u64,
    /// Sum of `client_packets`.
    pub client_packets: u64,
    /// Sum of `server_packets`.
    pub server_packets: u64,
    /// Ends, two a row, that several could have been: no name.
    pub ambiguous_ends: u64,
    /// Ends that nobody known was.
    pub unnamed_ends: u64,
}

/// Totals of the transactions that start in one stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransactionBucket {
    /// First ns.
    pub start: i64,
    /// Rows.
    pub transactions: u64,
    /// Sum of `request_bytes`.
    pub request_bytes: u64,
    /// Sum of `response_bytes`.
    pub response_bytes: u64,
    /// Ends, two a row, that several could have been: no name.
    pub ambiguous_ends: u64,
    /// Ends that nobody known was.
    pub unnamed_ends: u64,
}

/// One stretch of time, with some sums.
#[derive(Debug, Clone, Copy)]
struct Stretch<const SUMS: usize> {
    start: i64,
    rows: u64,
    sums: [u64; SUMS],
    ambiguous_ends: u64,
    unnamed_ends: u64,
}

impl FlowStore {
    /// Totals of the rows that pass and start in the range, in `buckets` stretches of equal length. Open slices count as
    /// they are by now: each slice is in an answer once.
    pub fn histogram<'a>(
        &'a self,
        query: &'a Query<FlowRecord>,
        range: Range,
        buckets: usize,
        all_observations: bool,
    ) -> BoxFuture<'a, Result<Histogram<Bucket>, StoreError>> {
        Box::pin(self.buckets_of(query, (range, buckets), all_observations))
    }

    async fn buckets_of(
        &self,
        query: &Query<FlowRecord>,
        (range, buckets): (Range, usize),
        all_observations: bool,
    ) -> Result<Histogram<Bucket>, StoreError> {
        let sums = ["client_bytes", "server_bytes", "client_packets", "server_packets"];
        let (stretches, served_by) = self.stretches_of(query, (range, buckets), all_observations, sums).await?;
        let bucket = |stretch: Stretch<4>| {
            let Stretch { start, rows: flows, sums, ambiguous_ends, unnamed_ends } = stretch;
            let [client_bytes, server_bytes, client_packets, server_packets] = sums;
            Bucket {
                start,
                flows,
                client_bytes,
                server_bytes,
                client_packets,
                server_packets,
                ambiguous_ends,
                unnamed_ends,
            }
        };
        Ok(Histogram { buckets: stretches.into_iter().map(bucket).collect(), served_by })
    }
}

impl TransactionStore {
    /// Totals of the rows that pass and start in the range, in `buckets` stretches of equal length.
    pub fn histogram<'a>(
        &'a self,
        query: &'a Query<Transaction>,
        range: Range,
        buckets: usize,
        all_observations: bool,
    ) -> BoxFuture<'a, Result<Histogram<TransactionBucket>, StoreError>> {
        Box::pin(self.buckets_of(query, (range, buckets), all_observations))
    }

    async fn buckets_of(
        &self,
        query: &Query<Transaction>,
        (range, buckets): (Range, usize),
        all_observations: bool,
    ) -> Result<Histogram<TransactionBucket>, StoreError> {
        let sums = ["request_bytes", "response_bytes"];
        let (stretches, served_by) = self.stretches_of(query, (range, buckets), all_observations, sums).await?;
        let bucket = |stretch: Stretch<2>| {
            let Stretch { start, rows: transactions, sums, ambiguous_ends, unnamed_ends } = stretch;
            let [request_bytes, response_bytes] = sums;
            TransactionBucket { start, transactions, request_bytes, response_bytes, ambiguous_ends, unnamed_ends }
        };
        Ok(Histogram { buckets: stretches.into_iter().map(bucket).collect(), served_by })
    }
}

impl<R: Table> TableStore<R> {
    async fn stretches_of<const SUMS: usize>(
        &self,
        query: &Query<R>,
        (range, buckets): (Range, usize),
        all_observations: bool,
        sums: [&str; SUMS],
    ) -> Result<(Vec<Stretch<SUMS>>, ServedBy), StoreError> {
        let (origin, width, mut totals) = empty(range, buckets)?;
        let aggregate = aggregate(origin, width, &sums);
        let plan = Arc::new(Plan::new(&aggregate));
        let filter = query.clone();
        let request =
            AggregateRequest { filter, aggregate, range, all_observations, compare: false, memory: DEFAULT_MEMORY };
        let groups = Groups::new(&plan, &RandomState::default(), None, &Arc::new(Budget::new(DEFAULT_MEMORY)));
        let Period { groups, served_by, .. } = self.period(&request, &plan, groups, range, None).await?;
        for group in 0..groups.len() as u32 {
            let KeyValue::Time(start) = groups.key(group, 0) else { continue };
            let number = start.saturating_sub(origin) / width;
            let Some(total) = usize::try_from(number).ok().and_then(|number| totals.get_mut(number)) else { continue };
            let rows = groups.state(0).map_or(0, |state| state.rows(group));
            total.rows += rows;
            for (number, total) in total.sums.iter_mut().enumerate() {
                let sum = groups.state(number + 1).and_then(|state| state.sum(group)).map_or(0, |(sum, _)| sum);
                *total = total.saturating_add(u64::try_from(sum).unwrap_or(u64::MAX));
            }
            for end in [1, 2] {
                let how = groups.key(group, end).seen();
                total.ambiguous_ends += if how == Seen::Text(TaggedBy::Ambiguous.as_str()) { rows } else { 0 };
                total.unnamed_ends += if how == Seen::Text(TaggedBy::None.as_str()) { rows } else { 0 };
            }
        }
        Ok((totals, served_by))
    }
}

/// Where the first bucket begins, how wide each is, and the buckets.
fn empty<const SUMS: usize>(range: Range, buckets: usize) -> Result<(i64, i64, Vec<Stretch<SUMS>>), TableError> {
    if buckets == 0 || buckets > MAX_BUCKETS {
        return Err(TableError::Period("a histogram has 1 to 10000 buckets"));
    }
    let Some(length) = range.to.checked_sub(range.from).filter(|length| *length > 0) else {
        return Err(TableError::Period(
            "the range of a histogram ends after it begins, within 292 years; hint: ask for a shorter one",
        ));
    };
    let (mut origin, mut width, mut buckets) = (range.from, (length as u64).div_ceil(buckets as u64) as i64, buckets);
    if width >= MINUTE {
        let unit = if width < LONG { MINUTE } else { HOUR };
        width = (width as u64)
            .checked_next_multiple_of(unit as u64)
            .and_then(|width| i64::try_from(width).ok())
            .unwrap_or(width);
        origin = range.from.saturating_sub(range.from.rem_euclid(unit));
        buckets = (range.to.saturating_sub(origin) as u64).div_ceil(width as u64) as usize;
    }
    let start = |number: usize| origin.saturating_add(width.saturating_mul(number as i64));
    let nothing =
        |number: usize| Stretch { start: start(number), rows: 0, sums: [0; SUMS], ambiguous_ends: 0, unnamed_ends: 0 };
    Ok((origin, width, (0..buckets).map(nothing).collect()))
}

fn aggregate<R: Table>(origin: i64, width: i64, sums: &[&str]) -> Aggregate<R> {
    let field = |name: &str| {
        let column = all_columns::<R>().find(|column| column.name() == name);
        column.map(|column| Field { column, key: None })
    };
    let key = |name: &str| Some(Key { name: name.to_owned(), of: KeyOf::Column(field(name)?) });
    let time = Key { name: "time".into(), of: KeyOf::Time { width, origin } };
    let count = Measure { name: "count".into(), figure: Figure::Count, fields: Vec::new() };
    let sum = |name: &&str| Measure {
        name: (*name).to_owned(),
        figure: Figure::Sum,
        fields: field(name).into_iter().collect(),
    };
    Aggregate {
        by: [Some(time), key("client_tagged_by"), key("server_tagged_by")].into_iter().flatten().collect(),
        measures: [count].into_iter().chain(sums.iter().map(sum)).collect(),
        order: Vec::new(),
        limit: None,
        shown: Vec::new(),
    }
}
