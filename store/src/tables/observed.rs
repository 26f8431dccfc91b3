//! What a query did: for those who ask how it was answered, and for nobody else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::metrics::{MetricValue, MetricsSet};
use datafusion::prelude::DataFrame;

/// Plans of the engine that are kept at most: a search that goes far back has many alike.
const MOST_PLANS: usize = 8;

/// Collects while a query runs.
#[derive(Debug, Default)]
pub(super) struct Observed {
    plans: Mutex<Vec<Arc<dyn ExecutionPlan>>>,
    memory: AtomicU64,
    in_range: AtomicU64,
    candidates: AtomicU64,
    opened: AtomicU64,
}

/// What was done for a query.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Rows in memory that were looked at, open slices included.
    pub memory_rows: u64,
    /// Files of the table that have rows in the range of time.
    pub files_in_range: u64,
    /// Those of them that could not be left out: by time, or by the place where the page begins.
    pub files_candidates: u64,
    /// Those of them that were opened: a page is often full before.
    pub files_opened: u64,
    /// Plans that were run.
    pub plans: u64,
    /// Rows that the files gave: those that passed.
    pub rows_found: u64,
    /// Bytes that were read of files.
    pub bytes_read: u64,
    /// Parts of files that were read, and that were left out by the statistics of their columns, by their bloom filters.
    pub row_groups: u64,
    /// By statistics.
    pub row_groups_pruned: u64,
    /// By bloom filters.
    pub row_groups_pruned_by_bloom: u64,
    /// Rows left out by the statistics of pages.
    pub rows_pruned_by_page: u64,
}

impl Observed {
    /// Rows in memory, files of the table in the range, and those that could not be left out.
    pub(super) fn looked_at(&self, memory: usize, in_range: usize, candidates: usize) {
        self.memory.fetch_add(memory as u64, Ordering::Relaxed);
        self.in_range.fetch_add(in_range as u64, Ordering::Relaxed);
        self.candidates.fetch_add(candidates as u64, Ordering::Relaxed);
    }

    /// Files are read.
    pub(super) fn opened(&self, files: usize) {
        self.opened.fetch_add(files as u64, Ordering::Relaxed);
    }

    fn note(&self, plan: &Arc<dyn ExecutionPlan>) {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner).push(plan.clone());
    }

    /// What the plans did, and the first of them in the words of the engine.
    pub(super) fn work(&self) -> (Work, Vec<String>) {
        let plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let mut work = Work {
            memory_rows: self.memory.load(Ordering::Relaxed),
            files_in_range: self.in_range.load(Ordering::Relaxed),
            files_candidates: self.candidates.load(Ordering::Relaxed),
            files_opened: self.opened.load(Ordering::Relaxed),
            plans: plans.len() as u64,
            ..Work::default()
        };
        plans.iter().for_each(|plan| add(&mut work, plan));
        let text = |plan: &Arc<dyn ExecutionPlan>| DisplayableExecutionPlan::new(&**plan).indent(false).to_string();
        (work, plans.iter().take(MOST_PLANS).map(text).collect())
    }
}

/// The plan for a question, noted if somebody wants to know.
pub(super) async fn planned(
    frame: DataFrame,
    observed: Option<&Observed>,
) -> Result<(Arc<dyn ExecutionPlan>, Arc<TaskContext>)> {
    let context = Arc::new(frame.task_ctx());
    let plan = frame.create_physical_plan().await?;
    if let Some(observed) = observed {
        observed.note(&plan);
    }
    Ok((plan, context))
}

fn add(work: &mut Work, plan: &Arc<dyn ExecutionPlan>) {
    plan.children().into_iter().for_each(|child| add(work, child));
    if !plan.children().is_empty() {
        return;
    }
    for metric in plan.metrics().iter().flat_map(MetricsSet::iter) {
        match metric.value() {
            MetricValue::OutputRows(rows) => work.rows_found += rows.value() as u64,
            MetricValue::Count { name, count } if name == "bytes_scanned" => work.bytes_read += count.value() as u64,
            MetricValue::PruningMetrics { name, pruning_metrics } => {
                let (pruned, matched) = (pruning_metrics.pruned() as u64, pruning_metrics.matched() as u64);
                match &**name {
                    "row_groups_pruned_statistics" => {
                        work.row_groups += pruned + matched;
                        work.row_groups_pruned += pruned;
                    }
                    "row_groups_pruned_bloom_filter" => work.row_groups_pruned_by_bloom += pruned,
                    "page_index_rows_pruned" => work.rows_pruned_by_page += pruned,
                    _ => {}
                }
            }
            _ => {}
        }
    }
}
