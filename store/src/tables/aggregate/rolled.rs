//! Rows that were added up before: files of roll-ups, as partial groups.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, UInt64Array};
use datafusion::arrow::datatypes::UInt64Type;
use parquet::arrow::ProjectionMask;
use parquet::errors::ParquetError;
use tokio::task::JoinSet;
use wiretag_enrich::Record;

use super::TableError;
use super::groups::{Groups, Plan};
use super::states::{Keeps, States};
use super::values::{Column, Seen};
use crate::catalog::{FlowFile, RollupFile};
use crate::query::ast::{Node, Test};
use crate::query::matches::text_passes;
use crate::sketch::Sketch;
use crate::tables::engine::Condition;
use crate::tables::rollup::{MINUTE, ROWS, serve, sketch_of, values_of};
use crate::tables::{Range, Rolled as Known, Table, TableStore, files};

/// Rows that are looked at together.
const BATCH: usize = 8_192;
/// Files that are read at the same time.
const AT_ONCE: usize = 4;

/// What was read of roll-ups.
#[derive(Default)]
pub(super) struct Read {
    /// Files.
    pub(super) rollups: u64,
    /// Rows that passed.
    pub(super) rows: u64,
    /// See [`serve::Share::coarse`].
    pub(super) coarse: Vec<serve::Coarse>,
    /// Files of rows that are left to be read.
    pub(super) files: Vec<FlowFile>,
    /// For rates: begin of the oldest of the roll-ups that have rows of which only they are left.
    pub(super) oldest: Option<i64>,
}

/// Begin of the oldest roll-up of which not all rows are kept any more.
fn oldest_outliving(used: &[RollupFile], known: &[RollupFile], of: &HashMap<String, String>) -> Option<i64> {
    let mut kept = serve::files_left(of);
    for file in known.iter().filter(|file| file.width == MINUTE && !file.gone) {
        if let Some(day) = file.day.as_deref()
            && kept.get(file.path.as_str()).is_some_and(|files| *files >= file.files)
        {
            *kept.entry(day).or_default() += 1;
        }
    }
    let is_whole = |file: &RollupFile| kept.get(file.path.as_str()).is_some_and(|files| *files >= file.files);
    let outliving = used.iter().filter(|file| !is_whole(file));
    // A day begins with its first hour that has anything.
    let first = |file: &RollupFile| {
        let hours =
            known.iter().filter(|minutes| minutes.day.as_ref() == Some(&file.path)).map(|minutes| minutes.start);
        hours.min().unwrap_or(file.start)
    };
    outliving.map(first).min()
}

impl<R: Table> TableStore<R> {
    /// Adds what roll-ups of this width or a lesser one have of the range. One that cannot be read is counted, and what it adds up is
    /// taken from where else it is.
    pub(super) async fn add_rolled(
        &self,
        groups: &mut Groups,
        plan: &Arc<Plan<R>>,
        condition: &Condition<R>,
        (width, files, known): (i64, Vec<FlowFile>, Known),
    ) -> Result<Read, TableError> {
        let Known { mut rollups, of } = known;
        loop {
            let share = serve::share(width, condition.range, files.clone(), &rollups, &of);
            match self.read_rollups(groups, plan, condition, &share.rollups).await? {
                Ok((part, rows)) => {
                    groups.merge(part)?;
                    let oldest = plan.has_rates().then(|| oldest_outliving(&share.rollups, &rollups, &of)).flatten();
                    let (rollups, coarse) = (share.rollups.len() as u64, share.coarse);
                    return Ok(Read { rollups, rows, coarse, files: share.files, oldest });
                }
                Err(unreadable) => {
                    rollups.retain(|file| file.width == MINUTE || !unreadable.contains(&file.path));
                    for file in &mut rollups {
                        file.gone |= unreadable.contains(&file.path);
                    }
                }
            }
        }
    }

    /// The groups of all these files and how many of their rows passed, or the paths of those that cannot be read.
    async fn read_rollups(
        &self,
        like: &Groups,
        plan: &Arc<Plan<R>>,
        condition: &Condition<R>,
        files: &[RollupFile],
    ) -> Result<Result<(Groups, u64), HashSet<String>>, TableError> {
        let (mut whole, mut rows) = (like.empty(plan), 0);
        let (mut waiting, mut unreadable) = (files.iter(), HashSet::new());
        // What is not waited for is not begun, when whoever asked goes away.
        let mut running = JoinSet::new();
        loop {
            for file in waiting.by_ref().take(AT_ONCE - running.len()) {
                let (mut own, plan, path) = (like.empty(plan), plan.clone(), file.path.clone());
                let (node, range) = (condition.node.clone(), condition.range);
                let full = self.inner.engine.data_dir().join(&path);
                running.spawn_blocking(move || {
                    let read = own.add_rolled_file(&plan, &node, range, &full);
                    (path, read.map(|rows| (own, rows)))
                });
            }
            let Some(read) = running.join_next().await else { break };
            match read? {
                (_, Ok((own, some))) => {
                    whole.merge(own)?;
                    rows += some;
                }
                (_, Err(error)) if matches!(error, TableError::Limit(_)) || error.is_of_the_moment() => {
                    return Err(error);
                }
                (path, Err(error)) => {
                    if self.remember(&path) {
                        self.inner.counts.unreadable_files.fetch_add(1, Ordering::Relaxed);
                        tracing::warn!(%error, "a roll-up cannot be read: what it adds up is looked for elsewhere");
                    }
                    unreadable.insert(path);
                }
            }
        }
        Ok(if unreadable.is_empty() { Ok((whole, rows)) } else { Err(unreadable) })
    }
}

impl Groups {
    /// Adds what a file of a roll-up has of the rows that pass, where its minutes or hours begin in the range; their number.
    pub(crate) fn add_rolled_file<R: Record>(
        &mut self,
        plan: &Plan<R>,
        node: &Node<R>,
        range: Range,
        path: &Path,
    ) -> Result<u64, TableError> {
        let unreadable = |source| TableError::Read { path: path.to_owned(), source };
        let builder = files::reader(path)?;
        let wanted = names(plan, node);
        let mask = ProjectionMask::columns(builder.parquet_schema(), wanted.iter().map(String::as_str));
        let reader = builder.with_projection(mask).with_batch_size(BATCH).build().map_err(unreadable)?;
        let mut rows = 0;
        for batch in reader {
            let batch = batch?;
            let passing = passing(node, range, &batch)?;
            rows += passing.len() as u64;
            if !self.add_rolled(plan, &batch, passing)? {
                return Err(unreadable(ParquetError::General("a sketch does not decode".to_owned())));
            }
        }
        Ok(rows)
    }

    fn add_rolled<R: Record>(
        &mut self,
        plan: &Plan<R>,
        batch: &RecordBatch,
        rows: Vec<u32>,
    ) -> Result<bool, TableError> {
        let mut whole = true;
        let parts: Vec<Vec<Rolled>> = plan
            .states
            .iter()
            .map(|state| match state.keeps {
                Keeps::Rows => numbers(batch, ROWS).map(Rolled::Rows).into_iter().collect(),
                Keeps::Sum => {
                    let names = state.fields.iter().map(|field| field.column.name());
                    names
                        .filter_map(|name| Some(Rolled::Sum(numbers(batch, name)?, numbers(batch, &values_of(name))?)))
                        .collect()
                }
                Keeps::Sketch => {
                    let names = state.fields.iter().map(|field| sketch_of(field.column.name()));
                    names
                        .filter_map(|name| Some(Rolled::Sketch(batch.column_by_name(&name)?.as_binary_opt()?.clone())))
                        .collect()
                }
                // Not in roll-ups, which are not asked then.
                Keeps::Least | Keeps::Greatest | Keeps::Distinct => Vec::new(),
            })
            .collect();
        self.each_end(plan, batch, rows, |states, rows, groups| {
            for (state, parts) in states.iter_mut().zip(&parts) {
                for part in parts {
                    whole &= part.add_to(state, rows, groups);
                }
            }
            Ok(())
        })?;
        Ok(whole)
    }
}

/// What a roll-up has for a state.
enum Rolled {
    Rows(UInt64Array),
    Sum(UInt64Array, UInt64Array),
    Sketch(BinaryArray),
}

impl Rolled {
    /// False if something could not be read.
    fn add_to(&self, state: &mut States, rows: &[u32], groups: &[u32]) -> bool {
        let mut whole = true;
        for (row, group) in rows.iter().zip(groups) {
            let row = *row as usize;
            match self {
                Self::Rows(counts) => state.add_rows(*group, counts.value(row)),
                Self::Sum(sums, values) if sums.is_valid(row) => {
                    state.add_sum(*group, sums.value(row).into(), values.value(row));
                }
                Self::Sketch(sketches) if sketches.is_valid(row) => match Sketch::decode(sketches.value(row)) {
                    Some(sketch) => state.add_sketch(*group, &sketch),
                    None => whole = false,
                },
                Self::Sum(..) | Self::Sketch(_) => {}
            }
        }
        whole
    }
}

fn numbers(batch: &RecordBatch, name: &str) -> Option<UInt64Array> {
    batch.column_by_name(name)?.as_primitive_opt::<UInt64Type>().cloned()
}

/// Columns that are read.
fn names<R: Record>(plan: &Plan<R>, node: &Node<R>) -> Vec<String> {
    let mut names: Vec<String> = plan.columns().into_iter().map(str::to_owned).chain([ROWS.to_owned()]).collect();
    for state in &plan.states {
        for field in &state.fields {
            match state.keeps {
                Keeps::Sum => names.push(values_of(field.column.name())),
                Keeps::Sketch => names.push(sketch_of(field.column.name())),
                Keeps::Rows | Keeps::Least | Keeps::Greatest | Keeps::Distinct => {}
            }
        }
    }
    node.each_field(&mut |field| names.push(field.column.name().to_owned()));
    names
}

/// The rows that pass and begin in the range.
pub(in crate::tables) fn passing<R: Record>(
    node: &Node<R>,
    range: Range,
    batch: &RecordBatch,
) -> Result<Vec<u32>, TableError> {
    let start = batch.column_by_name("start").map(|start| Column::new(start, None, None)).transpose()?;
    let mut columns: Vec<(&str, Column)> = Vec::new();
    let mut failed = None;
    node.each_field(&mut |field| {
        let name = field.column.name();
        let Some(array): Option<&ArrayRef> = batch.column_by_name(name) else { return };
        if columns.iter().any(|(known, _)| *known == name) {
            return;
        }
        match Column::new(array, None, None) {
            Ok(column) => columns.push((name, column)),
            Err(error) => failed = Some(error),
        }
    });
    if let Some(error) = failed {
        return Err(error.into());
    }
    let begins = |row: usize| match start.as_ref().map(|start| start.get(row)) {
        Some(Seen::Time(start)) => start >= range.from && start < range.to,
        Some(_) | None => false,
    };
    let rows = 0..batch.num_rows() as u32;
    Ok(rows.filter(|row| begins(*row as usize) && passes(node, &columns, *row as usize)).collect())
}

/// When each row begins.
pub(in crate::tables) fn starts(batch: &RecordBatch) -> Result<Vec<i64>, TableError> {
    let Some(array) = batch.column_by_name("start") else { return Err(TableError::Range("a roll-up has no time")) };
    let column = Column::new(array, None, None)?;
    let start = |row: usize| match column.get(row) {
        Seen::Time(start) => start,
        Seen::Null | Seen::Bool(_) | Seen::Number(_) | Seen::Text(_) => 0,
    };
    Ok((0..batch.num_rows()).map(start).collect())
}

fn passes<R: Record>(node: &Node<R>, columns: &[(&str, Column)], row: usize) -> bool {
    match node {
        Node::All => true,
        Node::And(nodes) => nodes.iter().all(|node| passes(node, columns, row)),
        Node::Or(nodes) => nodes.iter().any(|node| passes(node, columns, row)),
        Node::Not(node) => !passes(node, columns, row),
        Node::Test(field, test) => {
            let column = columns.iter().find(|(name, _)| *name == field.column.name());
            column.is_some_and(|(_, column)| seen_passes(test, column.get(row)))
        }
    }
}

fn seen_passes(test: &Test, value: Seen<'_>) -> bool {
    match (test, value) {
        (_, Seen::Null) => false,
        (Test::Exists, _) => true,
        (Test::Bool(wanted), Seen::Bool(value)) => *wanted == value,
        (Test::Number(compare, wanted), Seen::Number(value)) => compare.holds(&value, wanted),
        (Test::Time(compare, wanted), Seen::Time(value)) => compare.holds(&value, wanted),
        (_, Seen::Text(text)) => text_passes(test, text),
        (_, Seen::Bool(_) | Seen::Number(_) | Seen::Time(_)) => false,
    }
}
