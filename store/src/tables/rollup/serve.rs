//! Which roll-ups answer an aggregation, and which flow files are left to be read.

use std::collections::{HashMap, HashSet};

use wiretag_enrich::Record;

use super::{DAY, DIMENSIONS, HOUR, MINUTE, SKETCHES, SUMS};
use crate::catalog::{FlowFile, RollupFile, TableName};
use crate::query::ast::{Field, Node};
use crate::query::plan::KeyOf;
use crate::tables::aggregate::{Keeps, Plan};
use crate::tables::{Range, Table};

/// What an aggregation reads.
#[derive(Debug, Default)]
pub(in crate::tables) struct Share {
    pub(in crate::tables) rollups: Vec<RollupFile>,
    pub(in crate::tables) files: Vec<FlowFile>,
    /// Where the rows of a time are gone that is not made of whole minutes or hours: this time, and the length of what is counted
    /// instead, ns.
    pub(in crate::tables) coarse: Vec<Coarse>,
}

/// Time of which what is counted is longer than what was asked for.
#[derive(Debug, Clone, Copy)]
pub(in crate::tables) struct Coarse {
    pub(in crate::tables) range: Range,
    /// ns.
    pub(in crate::tables) width: i64,
}

impl Coarse {
    fn of(file: &RollupFile) -> Self {
        Self { range: file.range(), width: file.width }
    }
}

/// The longest time that a row of a roll-up may add up, for this aggregation; `None`: it asks for what is not in roll-ups.
pub(in crate::tables) fn width<R: Table>(plan: &Plan<R>, node: &Node<R>, all_observations: bool) -> Option<i64> {
    if R::NAME != TableName::Flows || all_observations {
        return None;
    }
    let known = |field: &Field<R>, names: &[&str]| field.key.is_none() && names.contains(&field.column.name());
    let mut filterable = true;
    node.each_field(&mut |field| filterable &= known(field, &DIMENSIONS));
    let states = plan.states.iter().all(|state| match state.keeps {
        Keeps::Rows => true,
        Keeps::Sum => state.fields.iter().all(|field| known(field, &SUMS)),
        Keeps::Sketch => state.fields.iter().all(|field| known(field, &SKETCHES)),
        Keeps::Least | Keeps::Greatest | Keeps::Distinct => false,
    });
    let mut width = (filterable && states).then_some(HOUR);
    for key in &plan.by {
        let fits = match &key.of {
            KeyOf::Column(field) => known(field, &DIMENSIONS).then_some(HOUR),
            KeyOf::Ends(fields) => fields.iter().all(|field| known(field, &DIMENSIONS)).then_some(HOUR),
            KeyOf::Time { width, origin } => {
                [HOUR, MINUTE].into_iter().find(|unit| width % unit == 0 && origin % unit == 0)
            }
        };
        width = width.zip(fits).map(|(width, fits)| width.min(fits));
    }
    width
}

/// Whether it is part of what makes a row of a roll-up.
pub(super) fn is_dimension<R: Record>(field: &Field<R>) -> bool {
    field.key.is_none() && DIMENSIONS.contains(&field.column.name())
}

/// How many of the files of rows that each roll-up adds up are still there.
pub(in crate::tables) fn files_left(rolled: &HashMap<String, String>) -> HashMap<&str, u64> {
    let mut left = HashMap::new();
    for rollup in rolled.values() {
        *left.entry(rollup.as_str()).or_default() += 1;
    }
    left
}

/// Divides what there is. A roll-up is used for all of its flows or for none of them.
pub(in crate::tables) fn share(
    width: i64,
    range: Range,
    files: Vec<FlowFile>,
    rollups: &[RollupFile],
    rolled: &HashMap<String, String>,
) -> Share {
    let whole = |start: i64, length: i64| range.from <= start && start.saturating_add(length) <= range.to;
    let touches = |start: i64, length: i64| start < range.to && start.saturating_add(length) > range.from;
    // The ends of the range within this time are those of minutes, too.
    let even = |start: i64, length: i64| {
        let inside = |end: i64| end <= start || end >= start.saturating_add(length) || end % MINUTE == 0;
        inside(range.from) && inside(range.to)
    };
    let rows_left = files_left(rolled);
    // Retention takes one file of rows after the other: those of which some went would be a part of the answer.
    let has_rows = |file: &RollupFile| rows_left.get(file.path.as_str()) == Some(&file.files);
    let mut share = Share::default();
    let (mut used, mut by_day) = (HashSet::new(), HashSet::new());
    for day in rollups.iter().filter(|file| file.width == HOUR && touches(file.start, DAY)) {
        let exact = width == HOUR && whole(day.start, DAY);
        let mut minutes = rollups.iter().filter(|file| file.day.as_ref() == Some(&day.path));
        // Nothing finer has all of it.
        let last = minutes.any(|file| file.gone && !has_rows(file));
        if exact || last {
            if !exact {
                share.coarse.push(Coarse::of(day));
            }
            by_day.insert(day.path.as_str());
            share.rollups.push(day.clone());
        }
    }
    for minutes in rollups.iter().filter(|file| file.width == MINUTE && touches(file.start, HOUR)) {
        if minutes.day.as_deref().is_some_and(|day| by_day.contains(day)) {
            used.insert(minutes.path.as_str());
            continue;
        }
        let fits = even(minutes.start, HOUR);
        if minutes.gone || !fits && has_rows(minutes) {
            continue;
        }
        if !fits {
            share.coarse.push(Coarse::of(minutes));
        }
        used.insert(minutes.path.as_str());
        share.rollups.push(minutes.clone());
    }
    let left = |file: &FlowFile| rolled.get(&file.path).is_none_or(|rollup| !used.contains(rollup.as_str()));
    share.files = files.into_iter().filter(|file| left(file)).collect();
    share
}

/// Those of the roll-ups that cannot be read (`broken`) whose rows nothing else has: neither files, nor the hours of their day, nor its
/// minutes.
pub(in crate::tables) fn unreplaced<'a>(
    rollups: &'a [RollupFile],
    rolled: &HashMap<String, String>,
    broken: &HashSet<&str>,
) -> Vec<&'a RollupFile> {
    let rows_left = files_left(rolled);
    let is_broken = |path: &str| broken.contains(path);
    let has_rows = |file: &RollupFile| rows_left.get(file.path.as_str()) == Some(&file.files);
    let counts = |minutes: &RollupFile| has_rows(minutes) || !minutes.gone && !is_broken(&minutes.path);
    let lost = |file: &&RollupFile| {
        if file.width == MINUTE {
            let day = rollups.iter().find(|day| file.day.as_ref() == Some(&day.path));
            // Of a day that is broken it is said there.
            return !file.gone && !has_rows(file) && day.is_none();
        }
        let minutes = || rollups.iter().filter(|minutes| minutes.day.as_ref() == Some(&file.path));
        minutes().next().is_none() || !minutes().all(counts)
    };
    rollups.iter().filter(|file| is_broken(&file.path)).filter(lost).collect()
}

impl<R: Record> Node<R> {
    /// Every field that a test looks at.
    pub(crate) fn each_field(&self, look: &mut impl FnMut(&Field<R>)) {
        match self {
            Self::All => {}
            Self::And(nodes) => nodes.iter().for_each(|node| node.each_field(look)),
            Self::Or(nodes) => nodes.iter().for_each(|node| node.each_field(look)),
            Self::Not(node) => node.each_field(look),
            Self::Test(field, _) => look(field),
        }
    }
}
