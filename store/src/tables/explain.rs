//! How a query is answered: it is answered, watched, and the answer thrown away.

use std::sync::Arc;

use super::aggregate::AggregateRequest;
use super::engine::Condition;
use super::observed::{Observed, Work};
use super::rows::Cursor;
use super::{Range, Table, TableStore};
use crate::error::StoreError;
use crate::query::Statement;
use crate::query::plan::{Aggregate, KeyOf};

/// A query, and what a search would be asked with it.
#[derive(Debug, Clone)]
pub struct ExplainRequest<R: 'static> {
    /// A condition, and perhaps an aggregation.
    pub statement: Statement<R>,
    /// When.
    pub range: Range,
    /// Also rows that are not primary.
    pub all_observations: bool,
    /// Rows of a page at most.
    pub limit: usize,
    /// Cursor of the page.
    pub after: Option<String>,
    /// Memory that it may take, bytes.
    pub memory: usize,
}

/// What answering took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What is done, in sentences.
    pub steps: Vec<String>,
    /// Rows or groups that the answer has.
    pub answer_rows: u64,
    /// Files of the table, whatever their time.
    pub files: u64,
    /// Rows in these.
    pub rows: u64,
    /// What was looked at and what was left out.
    pub work: Work,
    /// The engine's plans, the first few.
    pub plans: Vec<String>,
}

impl<R: Table> TableStore<R> {
    pub(super) async fn explained(&self, request: &ExplainRequest<R>) -> Result<Explanation, StoreError> {
        let observed = Arc::new(Observed::default());
        let Statement { filter, aggregate } = &request.statement;
        let answer_rows = match aggregate {
            None => {
                let began = request.after.as_deref().map(Cursor::parse).transpose()?;
                let condition = Condition {
                    observed: Some(observed.clone()),
                    ..Condition::new(filter.node.clone(), request.range, request.all_observations)
                };
                self.fitting(began, &condition, request.limit, request.memory).await?.rows.len()
            }
            Some(aggregate) => {
                let asked = AggregateRequest {
                    filter: filter.clone(),
                    aggregate: aggregate.clone(),
                    range: request.range,
                    all_observations: request.all_observations,
                    compare: false,
                    memory: request.memory,
                };
                self.aggregate_observed(&asked, Some(&observed)).await?.rows.len()
            }
        };
        let all = self.inner.catalog.totals_of(R::NAME).await?;
        let (work, plans) = observed.work();
        let steps = aggregate.as_ref().map_or_else(|| search_steps(request.limit), aggregate_steps);
        Ok(Explanation { steps, answer_rows: answer_rows as u64, files: all.files, rows: all.items, work, plans })
    }
}

fn search_steps(limit: usize) -> Vec<String> {
    vec![
        "rows in memory and open slices are filtered one by one".to_owned(),
        "files are left out whose time does not touch the range, or that are before the cursor".to_owned(),
        format!("files are read from the newest back, until no older one can have a row of the first {limit}"),
        "within a file, parts are left out by statistics, bloom filters and page indexes".to_owned(),
    ]
}

fn aggregate_steps<R: Table>(aggregate: &Aggregate<R>) -> Vec<String> {
    let ends = aggregate.by.iter().any(|key| matches!(key.of, KeyOf::Ends(_)));
    let names: Vec<String> = aggregate.columns().into_iter().map(|column| format!("`{}`", column.name)).collect();
    let mut steps = vec![
        "rows that start in the range count, in memory and in files; files of other times are left out".to_owned(),
        "hours and days that were rolled up, and whose roll-ups have what is asked for, are read there and not row by row".to_owned(),
        "only the columns of the condition, the keys and the figures are read".to_owned(),
        format!("groups and figures: {}", names.join(", ")),
    ];
    if ends {
        steps.push("a row counts for its client and for its server, once if their keys are the same".to_owned());
    }
    if let Some(limit) = aggregate.limit {
        steps.push(format!(
            "the first {limit} of all groups; if these do not fit into memory at once, in several rounds over the files"
        ));
    }
    steps
}
