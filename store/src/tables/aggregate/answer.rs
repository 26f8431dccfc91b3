//! Groups to rows of an answer: figures made of states, ordered, limited.

use std::cmp::Ordering;

use super::groups::{Groups, Plan};
use super::row::{GroupRows, Told};
use super::values::{KeyValue, NO_VALUE, Seen};
use super::{AggregateAnswer, AggregateRequest, Period, Range, ServedBy, Table};
use crate::query::plan::{Aggregate, AnswerColumn, Figure, KeyOf, Order, PREVIOUS};
use crate::tables::rollup::serve::Coarse;

/// Groups of which the figures are worth a thread.
const MANY: u32 = 8_192;

/// The rows of some of the groups, in order: their figures, then those of the period before.
#[derive(Debug, Default)]
pub(super) struct Part {
    rows: GroupRows,
    pub(super) groups: u64,
    previous: Option<Range>,
    served_by: ServedBy,
}

/// Groups and how their states are read.
struct Source<'a, R: 'static> {
    plan: &'a Plan<R>,
    groups: &'a Groups,
    range: Range,
    coarse: &'a [Coarse],
    /// Number of the key that is time, and how wide its buckets are.
    time: Option<(usize, i64)>,
    /// All figures of all groups, if all are wanted: groups are gone through once, as they lie in memory.
    known: Vec<Told>,
}

/// A column that orders the answer; of a figure with its value in each group.
struct Ordered {
    order: Order,
    figures: Vec<Told>,
}

impl Part {
    pub(super) fn new<R: Table>(
        request: &AggregateRequest<R>,
        plan: &Plan<R>,
        mut now: Period,
        before: Option<Period>,
    ) -> Self {
        let aggregate = &request.aggregate;
        let time = aggregate.by.iter().position(|key| matches!(key.of, KeyOf::Time { .. })).zip(aggregate.width());
        let length = request.range.to.saturating_sub(request.range.from);
        if plan.by.is_empty() {
            // Figures of nothing are figures, too.
            let _ = now.groups.group(&[]);
        }
        if let Some(before) = before.as_ref().filter(|_| aggregate.limit.is_none()) {
            add_gone(&mut now.groups, before, plan.by.len(), time, length);
        }
        let source = Source::new(plan, &now, time, aggregate.limit.is_none());
        let past = before.as_ref().map(|before| Source::new(plan, before, time, false));
        let ordered = source.ordered(&aggregate.ordered());
        let figures_of_a_period = plan.figures.len();
        let periods = if past.is_some() { 2 } else { 1 };
        let chosen = source.chosen(&ordered, aggregate.limit);
        let mut rows = GroupRows::new(chosen.len(), plan.by.len(), figures_of_a_period * periods);
        for group in chosen {
            let key = (0..plan.by.len()).map(|at| now.groups.key(group, at));
            let before = past.as_ref().map_or_else(Vec::new, |past| {
                past.figures_of(&key.clone().cloned().collect::<Vec<KeyValue>>(), length)
            });
            let figures = (0..figures_of_a_period).map(|at| source.figure(at, group));
            rows.push(key.cloned(), figures.chain(before));
        }
        let mut served_by = now.served_by;
        if let Some(before) = &before {
            served_by.files += before.served_by.files;
            served_by.rows += before.served_by.rows;
            served_by.rollups += before.served_by.rollups;
            served_by.rolled_rows += before.served_by.rolled_rows;
            served_by.resolution = served_by.resolution.max(before.served_by.resolution);
        }
        Self {
            rows,
            groups: now.groups.len() as u64,
            previous: before.map(|before| before.range).and_then(|_| request.previous()),
            served_by,
        }
    }

    /// Both, in order, as far as they are wanted.
    pub(super) fn with<R: Table>(mut self, other: Self, aggregate: &Aggregate<R>) -> Self {
        self.rows.append(other.rows);
        self.groups += other.groups;
        // Each part is made of all rows.
        self.served_by.rows = self.served_by.rows.max(other.served_by.rows);
        self.sort(&aggregate.ordered(), aggregate.limit);
        self
    }

    fn sort(&mut self, order: &[Order], limit: Option<usize>) {
        let rows = &self.rows;
        let mut sorted: Vec<usize> = (0..rows.len()).collect();
        sorted.sort_by(|a, b| {
            let (key_a, key_b) = (rows.key(*a), rows.key(*b));
            let by_order = order.iter().map(|order| {
                if let (Some(a), Some(b)) = (key_a.get(order.column), key_b.get(order.column)) {
                    return directed(a, b, &KeyValue::Null, order.descending, KeyValue::cmp);
                }
                let figure = |row: usize| rows.figures(row).get(order.column - key_a.len()).copied();
                let (a, b) = (figure(*a).unwrap_or(Told::Nothing), figure(*b).unwrap_or(Told::Nothing));
                directed(&a, &b, &Told::Nothing, order.descending, Told::compare)
            });
            by_order.fold(Ordering::Equal, Ordering::then).then_with(|| key_a.cmp(key_b))
        });
        sorted.truncate(limit.unwrap_or(usize::MAX));
        self.rows = rows.taken(&sorted);
    }

    pub(super) fn answer<R: Table>(mut self, request: &AggregateRequest<R>) -> AggregateAnswer {
        if !request.aggregate.shown.is_empty() {
            self.sort(&request.aggregate.shown, None);
        }
        let mut columns = request.aggregate.columns();
        if request.compare {
            let figures = columns.iter().filter(|column| !column.is_key);
            let before =
                figures.map(|column| AnswerColumn { name: format!("{PREVIOUS}{}", column.name), ..column.clone() });
            columns.extend(before.collect::<Vec<_>>());
        }
        AggregateAnswer {
            rows: self.rows.named(columns.iter().map(|column| column.name.clone()).collect()),
            groups: self.groups,
            previous: self.previous,
            served_by: self.served_by,
            columns,
        }
    }
}

/// Groups that were there only in the period before belong to the answer, with the figures of nothing.
fn add_gone(groups: &mut Groups, before: &Period, keys: usize, time: Option<(usize, i64)>, length: i64) {
    for gone in 0..before.groups.len() as u32 {
        let key: Vec<KeyValue> = (0..keys).map(|at| before.groups.key(gone, at).clone()).collect();
        let key = shifted(&key, time, length);
        let _ = groups.group(&key.iter().map(KeyValue::seen).collect::<Vec<_>>());
    }
}

/// The same key so much later.
fn shifted(key: &[KeyValue], time: Option<(usize, i64)>, by: i64) -> Vec<KeyValue> {
    let mut key = key.to_vec();
    if let Some((at, _)) = time
        && let Some(KeyValue::Time(time)) = key.get_mut(at)
    {
        *time = time.saturating_add(by);
    }
    key
}

impl<'a, R: Table> Source<'a, R> {
    fn new(plan: &'a Plan<R>, period: &'a Period, time: Option<(usize, i64)>, all: bool) -> Self {
        let mut source =
            Self { plan, groups: &period.groups, range: period.range, coarse: &period.coarse, time, known: Vec::new() };
        if all {
            source.known = source.all_figures();
        }
        source
    }

    /// The figures of all groups, one group behind the other; of many groups by as many threads as there are processors.
    fn all_figures(&self) -> Vec<Told> {
        let groups = self.groups.len() as u32;
        let of = |some: std::ops::Range<u32>| -> Vec<Told> {
            some.flat_map(|group| (0..self.plan.figures.len()).map(move |at| self.figure(at, group))).collect()
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from) as u32;
        let share = groups.div_ceil(threads).max(MANY);
        if groups <= share {
            return of(0..groups);
        }
        std::thread::scope(|scope| {
            let start = |first: u32| scope.spawn(move || of(first..groups.min(first + share)));
            let parts: Vec<_> = (0..groups).step_by(share as usize).map(start).collect();
            let figures = |part: std::thread::ScopedJoinHandle<'_, Vec<Told>>| match part.join() {
                Ok(figures) => figures,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            parts.into_iter().flat_map(figures).collect()
        })
    }

    /// What decides about the order.
    fn ordered(&self, order: &[Order]) -> Vec<Ordered> {
        let all = 0..self.groups.len() as u32;
        let by = |order: &Order| {
            let number = order.column.checked_sub(self.plan.by.len());
            let figures =
                number.map_or_else(Vec::new, |number| all.clone().map(|group| self.figure(number, group)).collect());
            Ordered { order: *order, figures }
        };
        order.iter().map(by).collect()
    }

    /// The groups of the answer, in order.
    fn chosen(&self, ordered: &[Ordered], limit: Option<usize>) -> Vec<u32> {
        let keys: Vec<Vec<u32>> = (0..self.plan.by.len()).map(|key| self.groups.ranks(key)).collect();
        let rank = |key: &Vec<u32>, group: u32| key.get(group as usize).copied().unwrap_or(NO_VALUE);
        let compare = |a: &u32, b: &u32| {
            let by_order = ordered.iter().map(|Ordered { order, figures }| {
                if let Some(key) = keys.get(order.column) {
                    return directed(&rank(key, *a), &rank(key, *b), &NO_VALUE, order.descending, u32::cmp);
                }
                let figure = |group: u32| figures.get(group as usize).copied().unwrap_or(Told::Nothing);
                directed(&figure(*a), &figure(*b), &Told::Nothing, order.descending, Told::compare)
            });
            let by_keys = || keys.iter().map(|key| rank(key, *a).cmp(&rank(key, *b)));
            by_order.fold(Ordering::Equal, Ordering::then).then_with(|| by_keys().fold(Ordering::Equal, Ordering::then))
        };
        let mut groups: Vec<u32> = (0..self.groups.len() as u32).collect();
        if let Some(limit) = limit.filter(|limit| *limit < groups.len()) {
            groups.select_nth_unstable_by(limit, compare);
            groups.truncate(limit);
        }
        // Ranks are compared as one number as far as they decide alone: most often time and one name, so all of it.
        let of_order =
            ordered.iter().map_while(|Ordered { order, .. }| Some((keys.get(order.column)?, order.descending)));
        let mut leading: Vec<(&Vec<u32>, bool)> = of_order.collect();
        if leading.len() == ordered.len() {
            let orders = |key: usize| ordered.iter().any(|Ordered { order, .. }| order.column == key);
            leading.extend(keys.iter().enumerate().filter(|(at, _)| !orders(*at)).map(|(_, key)| (key, false)));
        }
        leading.truncate(2);
        let place = |group: u32| {
            let places = leading.iter().map(|(key, descending)| match rank(key, group) {
                NO_VALUE => NO_VALUE,
                rank if *descending => NO_VALUE - 1 - rank,
                rank => rank,
            });
            places.fold(0, |place, next| place << u32::BITS | u64::from(next))
        };
        let mut placed: Vec<(u64, u32)> = groups.into_iter().map(|group| (place(group), group)).collect();
        placed.sort_unstable_by_key(|(place, _)| *place);
        let same = placed.chunk_by_mut(|a, b| a.0 == b.0).filter(|same| same.len() > 1);
        same.for_each(|same| same.sort_unstable_by(|a, b| compare(&a.1, &b.1)));
        placed.into_iter().map(|(_, group)| group).collect()
    }

    /// The figures of the group with the key, whose times are so much later than here.
    fn figures_of(&self, key: &[KeyValue], later: i64) -> Vec<Told> {
        let key = shifted(key, self.time, later.saturating_neg());
        self.figures(self.groups.find(&key.iter().map(KeyValue::seen).collect::<Vec<Seen<'_>>>()))
    }

    /// All figures; without a group those of nothing.
    fn figures(&self, group: Option<u32>) -> Vec<Told> {
        let figure = |at: usize| match group {
            Some(group) => self.figure(at, group),
            None => match self.plan.figures.get(at) {
                Some((Figure::Count | Figure::Distinct, _)) => Told::Whole(0),
                Some((Figure::Rate, state)) if self.plan.states.get(*state).is_some_and(|s| s.fields.is_empty()) => {
                    Told::Fraction(0.0)
                }
                _ => Told::Nothing,
            },
        };
        (0..self.plan.figures.len()).map(figure).collect()
    }

    fn figure(&self, at: usize, group: u32) -> Told {
        if let Some(known) = self.known.get(group as usize * self.plan.figures.len() + at) {
            return *known;
        }
        let Some((figure, number)) = self.plan.figures.get(at) else { return Told::Nothing };
        let Some(state) = self.groups.state(*number) else { return Told::Nothing };
        let fields = self.plan.states.get(*number).map(|state| state.fields.as_slice()).unwrap_or_default();
        let is_time = fields.iter().any(|field| field.kind() == wiretag_capture::Kind::Time);
        match figure {
            Figure::Count | Figure::Distinct => Told::Whole(state.rows(group).into()),
            Figure::Sum => state.sum(group).map_or(Told::Nothing, |(sum, _)| Told::Whole(sum as i128)),
            Figure::Avg => {
                state.sum(group).map_or(Told::Nothing, |(sum, count)| Told::Fraction(sum as f64 / count as f64))
            }
            Figure::Min | Figure::Max => match state.extreme(group) {
                Some(value) if is_time => Told::Time(value as i64),
                Some(value) => Told::Whole(value),
                None => Told::Nothing,
            },
            Figure::Quantile(quantile) => {
                state.quantile(group, *quantile).map_or(Told::Nothing, |value| Told::Whole(value.into()))
            }
            Figure::Rate if fields.is_empty() => Told::Fraction(state.rows(group) as f64 / self.seconds(group)),
            Figure::Rate => {
                state.sum(group).map_or(Told::Nothing, |(sum, _)| Told::Fraction(sum as f64 / self.seconds(group)))
            }
        }
    }

    /// How long the group's rows can have come: the range, or what of it is in the group's bucket.
    fn seconds(&self, group: u32) -> f64 {
        let Range { mut from, mut to } = self.range;
        if let Some((at, width)) = self.time
            && let KeyValue::Time(begin) = self.groups.key(group, at)
        {
            // What of the bucket is only known as a part of something longer has the length of that.
            let coarse = self.coarse.iter().filter(|coarse| coarse.range.from <= *begin && *begin < coarse.range.to);
            let width = coarse.map(|coarse| coarse.width).fold(width, i64::max);
            let end = begin.saturating_add(width);
            // Of what began before all that is known only the whole bucket is.
            (from, to) = (if from < end { from.max(*begin) } else { *begin }, to.min(end));
        }
        (i128::from(to) - i128::from(from)).max(1) as f64 / 1e9
    }
}

/// `nothing` is the last in both directions.
fn directed<T: PartialEq>(a: &T, b: &T, nothing: &T, descending: bool, compare: fn(&T, &T) -> Ordering) -> Ordering {
    match (a == nothing, b == nothing) {
        (false, false) if descending => compare(b, a),
        (false, false) => compare(a, b),
        (a, b) => a.cmp(&b),
    }
}
