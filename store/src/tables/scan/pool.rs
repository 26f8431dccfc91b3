//! Threads of searches, with lower priority than those that capture.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use super::super::error::TableError;

/// Threads for each processor: one that waits, for a disk or for whoever reads a stream, must not keep all others waiting.
const SHARE: usize = 4;

/// See the module documentation.
pub(super) struct Pool {
    runtime: Option<Runtime>,
    threads: usize,
}

/// Tells tasks that nobody waits for them any more.
struct Ended(Arc<AtomicBool>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Pool {
    pub(super) fn new(threads: usize) -> Result<Self, TableError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(threads * SHARE)
            .thread_name("search")
            .on_thread_start(crate::sys::lower_priority)
            .build()
            .map_err(TableError::io("start the threads of", std::path::Path::new("searches")))?;
        Ok(Self { runtime: Some(runtime), threads })
    }

    /// Tasks that work at the same time.
    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    /// Does `work` some time.
    pub(super) fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn_blocking(work);
        }
    }

    /// The results of all tasks, in their order; the first error ends it. What has not begun when nobody waits any more
    /// does not begin.
    pub(super) async fn all<T: Send + 'static, W>(&self, tasks: impl Iterator<Item = W>) -> Result<Vec<T>, TableError>
    where
        W: FnOnce() -> Result<T, TableError> + Send + 'static,
    {
        let Some(runtime) = &self.runtime else { return Ok(Vec::new()) };
        let ended = Ended(Arc::new(AtomicBool::new(false)));
        let mut set = JoinSet::new();
        for (number, task) in tasks.enumerate() {
            let ended = ended.0.clone();
            let work = move || (number, if ended.load(Ordering::Relaxed) { None } else { Some(task()) });
            set.spawn_blocking_on(work, runtime.handle());
        }
        let mut results: Vec<(usize, T)> = Vec::with_capacity(set.len());
        while let Some(joined) = set.join_next().await {
            let (number, result) = joined?;
            if let Some(result) = result {
                results.push((number, result?));
            }
        }
        results.sort_unstable_by_key(|(number, _)| *number);
        Ok(results.into_iter().map(|(_, result)| result).collect())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A runtime must not be waited for inside another.
            runtime.shutdown_background();
        }
    }
}
