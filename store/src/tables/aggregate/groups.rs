//! Partial groups: the values of the keys of each, and its states. Every source of an aggregation makes some, and they are
//! merged to one.

use std::hash::BuildHasher;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use wiretag_enrich::Record;

use super::super::scan::{Among, Starts};
use super::TableError;
use super::states::{Keeps, STEP, States};
use super::values::{Column, Interner, KeyValue, NO_VALUE, Places, Seen};
use crate::limits::{Budget, LimitReached};
use crate::query::ast::Field;
use crate::query::plan::{Aggregate, Figure, Key, KeyOf};

/// An aggregation as states to be kept.
#[derive(Debug)]
pub(crate) struct Plan<R: 'static> {
    /// What makes a group.
    pub(crate) by: Vec<Key<R>>,
    /// What is kept of each; no two the same.
    pub(crate) states: Vec<State<R>>,
    /// Each figure of the answer, and the number of the state that it is made of.
    pub(crate) figures: Vec<(Figure, usize)>,
}

/// What is kept of each group, of the values of which fields.
#[derive(Debug, Clone)]
pub(crate) struct State<R: 'static> {
    pub(crate) keeps: Keeps,
    pub(crate) fields: Vec<Field<R>>,
}

impl<R: Record> State<R> {
    fn is(&self, keeps: Keeps, fields: &[Field<R>]) -> bool {
        let same = || self.fields.iter().zip(fields).all(|(ours, theirs)| ours.is(theirs));
        self.keeps == keeps && self.fields.len() == fields.len() && same()
    }
}

impl<R: Record> Plan<R> {
    pub(crate) fn new(aggregate: &Aggregate<R>) -> Self {
        let mut states: Vec<State<R>> = Vec::new();
        let figures = aggregate.measures.iter().map(|measure| {
            let keeps = match measure.figure {
                Figure::Count => Keeps::Rows,
                Figure::Rate if measure.fields.is_empty() => Keeps::Rows,
                Figure::Sum | Figure::Avg | Figure::Rate => Keeps::Sum,
                Figure::Min => Keeps::Least,
                Figure::Max => Keeps::Greatest,
                Figure::Quantile(_) => Keeps::Sketch,
                Figure::Distinct => Keeps::Distinct,
            };
            let known = states.iter().position(|state| state.is(keeps, &measure.fields));
            let number = known.unwrap_or_else(|| {
                states.push(State { keeps, fields: measure.fields.clone() });
                states.len() - 1
            });
            (measure.figure, number)
        });
        let figures = figures.collect();
        Self { by: aggregate.by.clone(), states, figures }
    }

    /// Whether an answer has figures of a second.
    pub(super) fn has_rates(&self) -> bool {
        self.figures.iter().any(|(figure, _)| *figure == Figure::Rate)
    }

    /// How exactly the starts of rows have to be known.
    pub(super) fn starts(&self) -> Starts {
        let fields = self.states.iter().flat_map(|state| &state.fields);
        let keys = self.by.iter().filter_map(|key| match &key.of {
            KeyOf::Column(field) => Some(field),
            KeyOf::Ends(_) | KeyOf::Time { .. } => None,
        });
        if fields.chain(keys).any(|field| field.column.name() == "start") {
            return Starts::Exact;
        }
        let mut times = self.by.iter().filter_map(|key| match key.of {
            KeyOf::Time { width, origin } => Some(Starts::Within { width, origin }),
            KeyOf::Column(_) | KeyOf::Ends(_) => None,
        });
        match (times.next(), times.next()) {
            (None, _) => Starts::Any,
            (Some(within), None) => within,
            (Some(_), Some(_)) => Starts::Exact,
        }
    }

    /// The columns that rows are read with; `start` is always one of them.
    pub(crate) fn columns(&self) -> Vec<&'static str> {
        let mut names = vec!["start"];
        let keys = self.by.iter().flat_map(|key| match &key.of {
            KeyOf::Column(field) => vec![field.column.name()],
            KeyOf::Ends(fields) => fields.iter().map(|field| field.column.name()).collect(),
            KeyOf::Time { .. } => Vec::new(),
        });
        let fields = self.states.iter().flat_map(|state| state.fields.iter().map(|field| field.column.name()));
        for name in keys.chain(fields) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

/// A part of all groups: those whose keys hash to `number` of `of`. So all groups can be looked at with the memory of some.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) number: u64,
    pub(crate) of: u64,
    /// A group of a period before belongs to the part of the one that it is compared with, whose time is so much later, ns.
    pub(crate) later: i64,
}

/// Groups and their states.
#[derive(Debug)]
pub(crate) struct Groups {
    keys: Vec<Interner>,
    /// Of each group a number for each key.
    tuples: Vec<u32>,
    places: HashTable<u32>,
    len: usize,
    states: Vec<States>,
    hasher: RandomState,
    part: Option<Part>,
    budget: Arc<Budget>,
    counted: usize,
    /// Room for one tuple.
    tuple: Vec<u32>,
}

impl Groups {
    pub(crate) fn new<R: Record>(
        plan: &Plan<R>,
        hasher: &RandomState,
        part: Option<Part>,
        budget: &Arc<Budget>,
    ) -> Self {
        Self {
            keys: plan.by.iter().map(|_| Interner::new(hasher.clone())).collect(),
            tuples: Vec::new(),
            places: HashTable::new(),
            len: 0,
            states: plan.states.iter().map(|state| States::new(state.keeps, hasher, budget)).collect(),
            hasher: hasher.clone(),
            part,
            budget: budget.clone(),
            counted: 0,
            tuple: Vec::new(),
        }
    }

    /// Others of the same kind, empty.
    pub(super) fn empty<R: Record>(&self, plan: &Plan<R>) -> Self {
        Self::new(plan, &self.hasher, self.part, &self.budget)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn key(&self, group: u32, key: usize) -> &KeyValue {
        let number = self.tuples.get(group as usize * self.keys.len() + key);
        match (self.keys.get(key), number) {
            (Some(values), Some(number)) => values.value(*number),
            _ => &KeyValue::Null,
        }
    }

    /// Of each group, where its value of a key stands among all values of the key, [`NO_VALUE`] without one.
    pub(super) fn ranks(&self, key: usize) -> Vec<u32> {
        let ranks = self.keys.get(key).map(Interner::ranks).unwrap_or_default();
        let numbers = self.tuples.iter().skip(key).step_by(self.keys.len().max(1));
        numbers.map(|number| ranks.get(*number as usize).copied().unwrap_or(NO_VALUE)).collect()
    }

    pub(crate) fn state(&self, number: usize) -> Option<&States> {
        self.states.get(number)
    }

    /// The group with these values of the keys, which may be new. `None`: it belongs to a part that is looked at another time.
    pub(crate) fn group(&mut self, key: &[Seen<'_>]) -> Option<u32> {
        if !self.wanted(key.iter().copied()) {
            return None;
        }
        let tuple: Vec<u32> = key.iter().zip(&mut self.keys).map(|(value, values)| values.number(*value)).collect();
        let group = self.of_tuple(&tuple);
        self.states.iter_mut().for_each(|state| state.resize(self.len));
        Some(group)
    }

    /// The group with these values of the keys, if there is one.
    pub(super) fn find(&self, key: &[Seen<'_>]) -> Option<u32> {
        let numbers = key.iter().zip(&self.keys).map(|(value, values)| values.known(*value));
        let tuple: Vec<u32> = numbers.collect::<Option<_>>()?;
        let (tuples, width) = (&self.tuples, self.keys.len());
        self.places.find(self.hasher.hash_one(&tuple), |group| tuple_at(tuples, width, *group) == tuple).copied()
    }

    fn of_tuple(&mut self, tuple: &[u32]) -> u32 {
        let (tuples, width, hasher) = (&self.tuples, self.keys.len(), &self.hasher);
        let hash = hasher.hash_one(tuple);
        if let Some(group) = self.places.find(hash, |group| tuple_at(tuples, width, *group) == tuple) {
            return *group;
        }
        let group = self.len as u32;
        self.places.insert_unique(hash, group, |group| hasher.hash_one(tuple_at(tuples, width, *group)));
        self.tuples.extend(tuple);
        self.len += 1;
        group
    }

    fn wanted<'a>(&self, key: impl Iterator<Item = Seen<'a>>) -> bool {
        let Some(Part { number, of, later }) = self.part else { return true };
        let compared = key.map(|value| match value {
            Seen::Time(time) => Seen::Time(time.saturating_add(later)),
            other => other,
        });
        // Other bits than those that the tables of values use.
        let hash = compared.fold(0_u64, |hash, value| hash.rotate_left(7) ^ self.hasher.hash_one((value, 0x70_u8)));
        (hash >> 32) % of.max(1) == number
    }

    /// Adds rows, in the columns of [`Plan::columns`].
    pub(super) fn add_batch<R: Record>(&mut self, plan: &Plan<R>, batch: &RecordBatch) -> Result<(), TableError> {
        self.add_rows(plan, batch, (0..batch.num_rows() as u32).collect())
    }

    /// Adds the rows that pass; tells how many.
    pub(super) fn add_among<R: Record>(&mut self, plan: &Plan<R>, among: &Among) -> Result<u64, TableError> {
        let rows: Vec<u32> = match &among.passing {
            Some(passing) => passing.set_indices_u32().collect(),
            None => (0..among.batch.num_rows() as u32).collect(),
        };
        let count = rows.len() as u64;
        self.add_rows(plan, &among.batch, rows)?;
        Ok(count)
    }

    fn add_rows<R: Record>(&mut self, plan: &Plan<R>, batch: &RecordBatch, rows: Vec<u32>) -> Result<(), TableError> {
        let mut fields = Vec::with_capacity(plan.states.len());
        for state in &plan.states {
            fields.push(state.fields.iter().map(|field| column(batch, field)).collect::<Result<Vec<_>, _>>()?);
        }
        self.each_end(plan, batch, rows, |states, rows, groups| {
            for (state, fields) in states.iter_mut().zip(&fields) {
                state.add(&fields.iter().collect::<Vec<_>>(), rows, groups)?;
            }
            Ok(())
        })
    }

    /// Finds the groups of rows, for each end that makes one, and has them added to the states.
    pub(super) fn each_end<R: Record>(
        &mut self,
        plan: &Plan<R>,
        batch: &RecordBatch,
        rows: Vec<u32>,
        mut add: impl FnMut(&mut [States], &[u32], &[u32]) -> Result<(), LimitReached>,
    ) -> Result<(), TableError> {
        let keys = key_columns(plan, batch)?;
        let both_ends = keys.iter().any(|[_, server]| server.is_some());
        let clients: Vec<&Column> =
            keys.iter().map(|[client, _]| client.as_ref().unwrap_or(&Column::Nothing)).collect();
        let servers: Vec<&Column> =
            keys.iter().zip(&clients).map(|([_, server], client)| server.as_ref().unwrap_or(client)).collect();
        // A row is in a group once, also if both its ends are.
        let differs = |row: &u32| {
            let row = *row as usize;
            servers.iter().zip(&clients).any(|(server, client)| server.get(row) != client.get(row))
        };
        let of_servers: Vec<u32> = if both_ends { rows.iter().copied().filter(differs).collect() } else { Vec::new() };
        for (keys, mut rows) in [(&clients, rows), (&servers, of_servers)] {
            let groups = self.groups_of(keys, &mut rows);
            self.states.iter_mut().for_each(|state| state.resize(self.len));
            add(&mut self.states, &rows, &groups)?;
        }
        self.account()
    }

    /// The groups of these rows; leaves out the rows of other parts.
    fn groups_of(&mut self, keys: &[&Column], rows: &mut Vec<u32>) -> Vec<u32> {
        if self.part.is_some() {
            rows.retain(|row| self.wanted(keys.iter().map(|key| key.get(*row as usize))));
        }
        let places: Vec<Places> =
            keys.iter().zip(&mut self.keys).map(|(key, values)| key.places(rows, values)).collect();
        let span = places.iter().try_fold(1_usize, |span, places| span.checked_mul(places.span));
        // The group of each combination of values, found once, if that is less work than finding it for each row.
        match span.filter(|span| *span <= rows.len().saturating_mul(4)) {
            Some(span) => {
                let mut known = vec![NO_VALUE; span];
                let mut combinations = vec![0_u32; rows.len()];
                for places in &places {
                    for (combination, place) in combinations.iter_mut().zip(&places.of_rows) {
                        *combination = *combination * places.span as u32 + place;
                    }
                }
                let mut group = |(at, combination): (usize, u32)| {
                    let Some(known) = known.get_mut(combination as usize) else { return self.group_at(&places, at) };
                    if *known == NO_VALUE {
                        *known = self.group_at(&places, at);
                    }
                    *known
                };
                combinations.into_iter().enumerate().map(&mut group).collect()
            }
            None => (0..rows.len()).map(|at| self.group_at(&places, at)).collect(),
        }
    }

    /// The group of a row.
    fn group_at(&mut self, places: &[Places], at: usize) -> u32 {
        let mut tuple = std::mem::take(&mut self.tuple);
        tuple.clear();
        tuple.extend(places.iter().map(|places| places.number(at)));
        let group = self.of_tuple(&tuple);
        self.tuple = tuple;
        group
    }

    /// Adds groups that another source made.
    pub(crate) fn merge(&mut self, mut other: Self) -> Result<(), TableError> {
        if self.len == 0 && self.keys.len() == other.keys.len() {
            std::mem::swap(self, &mut other);
            return Ok(());
        }
        let numbers: Vec<Vec<u32>> = other
            .keys
            .iter()
            .zip(&mut self.keys)
            .map(|(theirs, ours)| theirs.values().iter().map(|value| ours.number(value.seen())).collect())
            .collect();
        let width = self.keys.len();
        let mut groups = Vec::with_capacity(other.len);
        let mut tuple = vec![0; width];
        for group in 0..other.len as u32 {
            for ((slot, theirs), numbers) in tuple.iter_mut().zip(tuple_at(&other.tuples, width, group)).zip(&numbers) {
                *slot = numbers.get(*theirs as usize).copied().unwrap_or_default();
            }
            groups.push(self.of_tuple(&tuple));
            if groups.len().is_multiple_of(STEP) {
                self.account()?;
            }
        }
        for (ours, theirs) in self.states.iter_mut().zip(std::mem::take(&mut other.states)) {
            ours.resize(self.len);
            ours.merge(theirs, &groups)?;
        }
        self.account()
    }

    /// All rows are added: figures can be asked for.
    pub(crate) fn gather(&mut self) {
        self.states.iter_mut().for_each(States::gather);
    }

    /// Tells the budget what these groups take by now.
    pub(crate) fn account(&mut self) -> Result<(), TableError> {
        let keys: usize = self.keys.iter().map(Interner::bytes).sum();
        let states: usize = self.states.iter().map(States::bytes).sum();
        let now = keys + states + self.tuples.capacity() * 4 + self.places.allocation_size();
        let before = std::mem::replace(&mut self.counted, now);
        Ok(self.budget.change(before, now)?)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        // What is given back cannot be too much.
        let _ = self.budget.change(self.counted, 0);
    }
}

fn tuple_at(tuples: &[u32], width: usize, group: u32) -> &[u32] {
    let first = group as usize * width;
    tuples.get(first..first + width).unwrap_or_default()
}

/// For each key the client's values, or all, and the server's if there are two.
fn key_columns<R: Record>(plan: &Plan<R>, batch: &RecordBatch) -> Result<Vec<[Option<Column>; 2]>, TableError> {
    let columns = plan.by.iter().map(|key| {
        Ok(match &key.of {
            KeyOf::Column(field) => [Some(column(batch, field)?), None],
            KeyOf::Ends([client, server]) => [Some(column(batch, client)?), Some(column(batch, server)?)],
            KeyOf::Time { width, origin } => {
                let start = batch.column_by_name("start");
                [start.map(|start| Column::new(start, None, Some((*origin, *width)))).transpose()?, None]
            }
        })
    });
    columns.collect()
}

fn column<R: Record>(batch: &RecordBatch, field: &Field<R>) -> Result<Column, TableError> {
    match batch.column_by_name(field.column.name()) {
        Some(array) => Ok(Column::new(array, field.key.as_deref(), None)?),
        None => Ok(Column::Nothing),
    }
}
