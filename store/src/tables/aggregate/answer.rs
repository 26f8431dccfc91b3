//! Groups to rows of an answer: figures made of states, ordered, limited.

use std::cmp::Ordering;
use std::sync::Arc;

use super::groups::{Groups, Plan};
use super::row::{GroupRow, Told};
use super::values::{KeyValue, NO_VALUE, Seen};
use super::{AggregateAnswer, AggregateRequest, Period, Range, ServedBy, Table};
use crate::query::plan::{Aggregate, AnswerColumn, Figure, KeyOf, Order};

/// A row of the answer.
#[derive(Debug)]
struct Line {
    key: Vec<KeyValue>,
    figures: Vec<Told>,
    /// Of the period before.
    before: Vec<Told>,
}

/// The lines of some of the groups, in order.
#[derive(Debug, Default)]
pub(super) struct Part {
    lines: Vec<Line>,
    pub(super) groups: u64,
    previous: Option<Range>,
    served_by: ServedBy,
}

/// Groups and how their states are read.
struct Source<'a, R: 'static> {
    plan: &'a Plan<R>,
    groups: &'a Groups,
    range: Range,
    /// Number of the key that is time, and how wide its buckets are.
    time: Option<(usize, i64)>,
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
        let source = Source { plan, groups: &now.groups, range: now.range, time };
        let past = before.as_ref().map(|before| Source { plan, groups: &before.groups, range: before.range, time });
        let chosen = source.chosen(&aggregate.ordered(), aggregate.limit);
        let lines = chosen.into_iter().map(|group| {
            let key: Vec<KeyValue> = (0..plan.by.len()).map(|at| now.groups.key(group, at).clone()).collect();
            let before = past.as_ref().map_or_else(Vec::new, |past| past.figures_of(&key, length));
            Line { figures: source.figures(Some(group)), key, before }
        });
        let mut served_by = now.served_by;
        if let Some(before) = &before {
            served_by.files += before.served_by.files;
            served_by.rows += before.served_by.rows;
            served_by.rollups += before.served_by.rollups;
            served_by.rolled_rows += before.served_by.rolled_rows;
            served_by.resolution = served_by.resolution.max(before.served_by.resolution);
        }
        Self {
            lines: lines.collect(),
            groups: now.groups.len() as u64,
            previous: before.map(|before| before.range).and_then(|_| request.previous()),
            served_by,
        }
    }

    /// Both, in order, as far as they are wanted.
    pub(super) fn with<R: Table>(mut self, other: Self, aggregate: &Aggregate<R>) -> Self {
        self.lines.extend(other.lines);
        self.groups += other.groups;
        self.served_by.rows += other.served_by.rows;
        let order = aggregate.ordered();
        self.lines.sort_by(|a, b| {
            let by_order = order.iter().map(|order| {
                if let (Some(a), Some(b)) = (a.key.get(order.column), b.key.get(order.column)) {
                    return directed(a, b, &KeyValue::Null, order.descending, KeyValue::cmp);
                }
                let figure = |line: &Line| line.figures.get(order.column - line.key.len()).copied();
                let (a, b) = (figure(a).unwrap_or(Told::Nothing), figure(b).unwrap_or(Told::Nothing));
                directed(&a, &b, &Told::Nothing, order.descending, Told::compare)
            });
            by_order.fold(Ordering::Equal, Ordering::then).then_with(|| a.key.cmp(&b.key))
        });
        self.lines.truncate(aggregate.limit.unwrap_or(usize::MAX));
        self
    }

    pub(super) fn answer<R: Table>(self, request: &AggregateRequest<R>) -> AggregateAnswer {
        let mut columns = request.aggregate.columns();
        if request.compare {
            let figures = columns.iter().filter(|column| !column.is_key);
            let before =
                figures.map(|column| AnswerColumn { name: format!("previous_{}", column.name), ..column.clone() });
            columns.extend(before.collect::<Vec<_>>());
        }
        let names: Arc<[String]> = columns.iter().map(|column| column.name.clone()).collect();
        let rows = self.lines.into_iter().map(|mut line| {
            line.figures.extend(line.before);
            GroupRow::new(&names, line.key, line.figures)
        });
        AggregateAnswer {
            rows: rows.collect(),
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

impl<R: Table> Source<'_, R> {
    /// The groups of the answer, in order.
    fn chosen(&self, order: &[Order], limit: Option<usize>) -> Vec<u32> {
        let keys: Vec<Vec<u32>> = (0..self.plan.by.len()).map(|key| self.groups.ranks(key)).collect();
        let all = 0..self.groups.len() as u32;
        let figures = |order: &Order| {
            let number = order.column.checked_sub(keys.len());
            number.map_or_else(Vec::new, |number| all.clone().map(|group| self.figure(number, group)).collect())
        };
        let ordered: Vec<(Vec<Told>, Order)> = order.iter().map(|order| (figures(order), *order)).collect();
        let rank = |key: &Vec<u32>, group: u32| key.get(group as usize).copied().unwrap_or(NO_VALUE);
        let compare = |a: &u32, b: &u32| {
            let by_order = ordered.iter().map(|(figures, order)| {
                if let Some(key) = keys.get(order.column) {
                    return directed(&rank(key, *a), &rank(key, *b), &NO_VALUE, order.descending, u32::cmp);
                }
                let figure = |group: u32| figures.get(group as usize).copied().unwrap_or(Told::Nothing);
                directed(&figure(*a), &figure(*b), &Told::Nothing, order.descending, Told::compare)
            });
            let by_keys = || keys.iter().map(|key| rank(key, *a).cmp(&rank(key, *b)));
            by_order.fold(Ordering::Equal, Ordering::then).then_with(|| by_keys().fold(Ordering::Equal, Ordering::then))
        };
        let mut groups: Vec<u32> = all.clone().collect();
        if let Some(limit) = limit.filter(|limit| *limit < groups.len()) {
            groups.select_nth_unstable_by(limit, compare);
            groups.truncate(limit);
        }
        groups.sort_unstable_by(compare);
        groups
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
            (from, to) = (from.max(*begin), to.min(begin.saturating_add(width)));
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
