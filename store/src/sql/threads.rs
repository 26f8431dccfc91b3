//! Threads on which questions in SQL are worked on: a question can keep a thread busy for long between two looks at whether
//! anybody still waits, and must not keep the server or the capture waiting meanwhile.

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::error::StoreError;

/// The stack of a thread, bytes; only what is used of it is memory. [`super::statement`] says how deep a question can be. Threads that read
/// files have it, too, so there are no more of these than of the others: address space has limits.
const STACK: usize = 64 << 20;

/// See the module.
pub(super) struct Threads {
    runtime: Option<Runtime>,
}

impl Threads {
    pub(super) fn new() -> Result<Self, StoreError> {
        let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(threads)
            .thread_name("sql")
            .thread_stack_size(STACK)
            .on_thread_start(crate::sys::lower_priority)
            .enable_time()
            .build()
            .map_err(StoreError::io("start the threads of", std::path::Path::new("sql")))?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// The result of `work`, which ends when nobody waits for it any more.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Some(runtime) = &self.runtime else { return Err(StoreError::Closed) };
        let mut task = JoinSet::new();
        task.spawn_on(work, runtime.handle());
        match task.join_next().await {
            Some(joined) => joined.map_err(|error| StoreError::Task(error.to_string()))?,
            None => Err(StoreError::Closed),
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A runtime must not be waited for inside another.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn many_reads_at_once_have_few_threads() {
        let threads = Threads::new().expect("threads");
        let reads = async {
            let mut reads = JoinSet::new();
            for _ in 0..64 {
                reads.spawn_blocking(|| {
                    // A disk that takes its time.
                    let (_sender, receiver) = sync_channel::<()>(1);
                    let _ = receiver.recv_timeout(Duration::from_millis(5));
                    std::thread::current().id()
                });
            }
            Ok(reads.join_all().await.into_iter().collect::<HashSet<_>>())
        };
        let of_reads = threads.run(reads).await.expect("they end");
        assert!((1..=8).contains(&of_reads.len()), "{of_reads:?}");
    }
}
