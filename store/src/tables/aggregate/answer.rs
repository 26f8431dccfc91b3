//! Groups to rows of an answer: figures made of states, ordered, limited.

use std::cmp::Ordering;

use serde_json::{Map, Value as Json};

use super::groups::{Groups, Plan};
use super::values::{KeyValue, Seen};
use super::{AggregateAnswer, AggregateRequest, Period, Range, ServedBy, Table};
use crate::json;
use crate::query::plan::{Aggregate, AnswerColumn, Figure, KeyOf, Order};

/// A figure of a group.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Told {
    Whole(i128),
    Time(i64),
    Fraction(f64),
    Nothing,
}

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
            let columns = |line: &Line, column: usize| match line.key.get(column) {
                Some(key) => Cell::Key(key.clone()),
                None => Cell::Figure(line.figures.get(column - line.key.len()).copied().unwrap_or(Told::Nothing)),
            };
            let by_order = order
                .iter()
                .map(|order| compared(&columns(a, order.column), &columns(b, order.column), order.descending));
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
        let rows = self.lines.into_iter().map(|line| {
            let keys = line.key.iter().map(key_json);
            let cells = keys.chain(line.figures.into_iter().chain(line.before).map(Told::json));
            columns.iter().map(|column| column.name.clone()).zip(cells).collect::<Map<String, Json>>()
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
        let keys = self.plan.by.len();
        let columns: Vec<(Vec<Told>, Order)> = order
            .iter()
            .map(|order| {
                let figures = (0..self.groups.len() as u32).filter(|_| order.column >= keys);
                (figures.map(|group| self.figure(order.column - keys, group)).collect(), *order)
            })
            .collect();
        let compare = |a: &u32, b: &u32| {
            let by_order = columns.iter().map(|(figures, order)| {
                let cell = |group: u32| match figures.get(group as usize) {
                    Some(figure) => Cell::Figure(*figure),
                    None => Cell::Key(self.groups.key(group, order.column).clone()),
                };
                compared(&cell(*a), &cell(*b), order.descending)
            });
            let ordered = by_order.fold(Ordering::Equal, Ordering::then);
            ordered.then_with(|| {
                let key = |group: u32| (0..keys).map(move |at| self.groups.key(group, at));
                key(*a).cmp(key(*b))
            })
        };
        let mut groups: Vec<u32> = (0..self.groups.len() as u32).collect();
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

/// What lines are ordered by.
enum Cell {
    Key(KeyValue),
    Figure(Told),
}

/// Nothing is the last in both directions.
fn compared(a: &Cell, b: &Cell, descending: bool) -> Ordering {
    let directed = |ordering: Ordering| if descending { ordering.reverse() } else { ordering };
    match (a, b) {
        (Cell::Key(a), Cell::Key(b)) => match (a == &KeyValue::Null, b == &KeyValue::Null) {
            (false, false) => directed(a.cmp(b)),
            (a, b) => a.cmp(&b),
        },
        (Cell::Figure(a), Cell::Figure(b)) => match (a == &Told::Nothing, b == &Told::Nothing) {
            (false, false) => directed(a.compare(b)),
            (a, b) => a.cmp(&b),
        },
        (Cell::Key(_), Cell::Figure(_)) | (Cell::Figure(_), Cell::Key(_)) => Ordering::Equal,
    }
}

impl Told {
    /// Figures of one column are of one kind.
    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => a.cmp(b),
            (Self::Time(a), Self::Time(b)) => a.cmp(b),
            (Self::Fraction(a), Self::Fraction(b)) => a.total_cmp(b),
            (Self::Whole(_) | Self::Time(_) | Self::Fraction(_) | Self::Nothing, _) => Ordering::Equal,
        }
    }

    fn json(self) -> Json {
        match self {
            Self::Whole(value) => u64::try_from(value).unwrap_or(u64::MAX).into(),
            Self::Time(value) => json::time(value).into(),
            Self::Fraction(value) => value.into(),
            Self::Nothing => Json::Null,
        }
    }
}

fn key_json(key: &KeyValue) -> Json {
    match key {
        KeyValue::Bool(value) => (*value).into(),
        KeyValue::Number(value) => (*value).into(),
        KeyValue::Time(value) => json::time(*value).into(),
        KeyValue::Text(text) => (&**text).into(),
        KeyValue::Null => Json::Null,
    }
}
