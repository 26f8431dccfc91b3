//! Places for queries, what each may take, and what became of them.
//!
//! A query waits a moment for its place, runs within the limits, and ends when its client goes: the handler's future is dropped, and
//! with it all that works for it. SQL has half of the places: a search finds one while many reports run.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};
use wiretag_store::{LimitReached, QueryLimits, StoreError};

/// How long a query waits for its place.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Pages of rows, one flow.
    Search,
    /// Groups, histograms.
    Aggregate,
    /// SQL.
    Sql,
    /// Who had a key, and when.
    Identities,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Search, Self::Aggregate, Self::Sql, Self::Identities];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Search => "search",
            Self::Aggregate => "aggregate",
            Self::Sql => "sql",
            Self::Identities => "identities",
        }
    }
}

/// What became of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Answered,
    /// A mistake of the client, or something went wrong.
    Failed,
    /// It found no place.
    Refused,
    /// It wanted more memory, or more groups, than it may have.
    Limited,
    TimedOut,
    /// The client went.
    Cancelled,
}

impl Outcome {
    const ALL: [Self; 6] =
        [Self::Answered, Self::Failed, Self::Refused, Self::Limited, Self::TimedOut, Self::Cancelled];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Limited => "limited",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The places.
pub(crate) struct Queries {
    limits: QueryLimits,
    patience: Duration,
    places: Semaphore,
    sql_places: Semaphore,
    total: IntCounterVec,
    durations: HistogramVec,
    running: IntGauge,
}

impl Queries {
    pub(crate) fn new(registry: &Registry, limits: QueryLimits) -> prometheus::Result<Self> {
        let total = Opts::new("wiretag_queries_total", "Queries by kind and by what became of them.");
        let total = IntCounterVec::new(total, &["kind", "outcome"])?;
        let durations = HistogramOpts::new("wiretag_query_duration_seconds", "Time that queries ran, without waiting.")
            .buckets(vec![0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0]);
        let durations = HistogramVec::new(durations, &["kind"])?;
        let running = IntGauge::new("wiretag_queries_running", "Queries that run now.")?;
        registry.register(Box::new(total.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(running.clone()))?;
        for kind in Kind::ALL {
            for outcome in Outcome::ALL {
                total.with_label_values(&[kind.as_str(), outcome.as_str()]);
            }
        }
        let (patience, places) = (PATIENCE.min(limits.time), Semaphore::new(limits.concurrent));
        let sql_places = Semaphore::new(sql_places(limits));
        Ok(Self { limits, patience, places, sql_places, total, durations, running })
    }

    /// Waits for a place.
    async fn place(&self, kind: Kind) -> Result<(Option<SemaphorePermit<'_>>, SemaphorePermit<'_>), AcquireError> {
        let of_sql = match kind {
            Kind::Sql => Some(self.sql_places.acquire().await?),
            Kind::Search | Kind::Aggregate | Kind::Identities => None,
        };
        Ok((of_sql, self.places.acquire().await?))
    }

    /// Memory that one may take, bytes.
    pub(crate) const fn memory(&self) -> usize {
        self.limits.memory
    }

    /// Does the work of a query in one of the places, within the limit of time.
    pub(crate) async fn run<T>(
        &self,
        kind: Kind,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        // Whoever drops this future before its end is a client that went.
        let mut noted = Noted { queries: self, kind, began: None, outcome: Outcome::Cancelled };
        let Ok(Ok(_place)) = timeout(self.patience, self.place(kind)).await else {
            noted.outcome = Outcome::Refused;
            let concurrent = match kind {
                Kind::Sql => sql_places(self.limits),
                Kind::Search | Kind::Aggregate | Kind::Identities => self.limits.concurrent,
            };
            let seconds = self.patience.as_secs();
            return Err(LimitReached::Busy { concurrent, seconds }.into());
        };
        noted.began = Some(Instant::now());
        self.running.inc();
        let Ok(answer) = timeout(self.limits.time, work).await else {
            noted.outcome = Outcome::TimedOut;
            return Err(LimitReached::Time { seconds: self.limits.time.as_secs() }.into());
        };
        noted.outcome = match &answer {
            Ok(_) => Outcome::Answered,
            Err(StoreError::Limit(_)) => Outcome::Limited,
            Err(_) => Outcome::Failed,
        };
        answer
    }
}

fn sql_places(limits: QueryLimits) -> usize {
    limits.concurrent.div_ceil(2)
}

/// Counts a query when it ends, however it does.
struct Noted<'a> {
    queries: &'a Queries,
    kind: Kind,
    began: Option<Instant>,
    outcome: Outcome,
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        let kind = self.kind.as_str();
        self.queries.total.with_label_values(&[kind, self.outcome.as_str()]).inc();
        if let Some(began) = self.began {
            self.queries.running.dec();
            self.queries.durations.with_label_values(&[kind]).observe(began.elapsed().as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn queries(time: Duration, concurrent: usize) -> Queries {
        Queries::new(&Registry::new(), QueryLimits { time, memory: 1 << 20, concurrent }).expect("metrics")
    }

    fn count(queries: &Queries, outcome: Outcome) -> u64 {
        queries.total.with_label_values(&["search", outcome.as_str()]).get()
    }

    #[tokio::test]
    async fn what_becomes_of_queries_is_counted() {
        let queries = queries(Duration::from_millis(20), 1);
        assert_eq!(queries.run(Kind::Search, ready(Ok(1))).await.expect("an answer"), 1);
        let slow: Result<(), StoreError> = queries.run(Kind::Search, pending()).await;
        assert!(slow.expect_err("no end").to_string().contains("`queries.seconds`"));
        let limit: Result<(), StoreError> = Err(LimitReached::Memory { mib: 1 }.into());
        assert!(queries.run(Kind::Search, ready(limit)).await.is_err());
        let mistake: Result<(), StoreError> = Err(StoreError::Closed);
        assert!(queries.run(Kind::Search, ready(mistake)).await.is_err());
        for outcome in [Outcome::Answered, Outcome::TimedOut, Outcome::Limited, Outcome::Failed] {
            assert_eq!(count(&queries, outcome), 1, "{outcome:?}");
        }
        assert_eq!(queries.running.get(), 0);
    }

    #[tokio::test]
    async fn who_finds_no_place_is_told_so_and_who_goes_is_counted() {
        let mut queries = queries(Duration::from_mins(1), 1);
        queries.patience = Duration::from_millis(20);
        let first = queries.run::<()>(Kind::Search, pending());
        let second = queries.run::<()>(Kind::Search, pending());
        {
            tokio::pin!(first);
            tokio::select! {
                biased;
                _ = &mut first => panic!("it has no end"),
                refused = second => {
                    assert!(refused.expect_err("no place").to_string().contains("`queries.concurrent`"));
                }
            }
            assert_eq!((count(&queries, Outcome::Refused), queries.running.get()), (1, 1));
        }
        assert_eq!((count(&queries, Outcome::Cancelled), queries.running.get()), (1, 0));
        assert_eq!(queries.run(Kind::Search, ready(Ok(1))).await.expect("its place is free"), 1);
    }

    #[tokio::test]
    async fn a_search_finds_a_place_while_sql_has_all_of_its_own() {
        let mut queries = queries(Duration::from_mins(1), 3);
        queries.patience = Duration::from_millis(20);
        let report = || Box::pin(queries.run::<()>(Kind::Sql, pending()));
        let (mut first, mut second) = (report(), report());
        tokio::select! {
            biased;
            _ = &mut first => panic!("it has no end"),
            _ = &mut second => panic!("it has no end"),
            refused = report() => assert!(refused.expect_err("no place").to_string().starts_with("2 queries")),
        }
        assert_eq!(queries.run(Kind::Search, ready(Ok(1))).await.expect("one place is not of SQL"), 1);
        drop(first);
        assert_eq!(queries.run(Kind::Sql, ready(Ok(2))).await.expect("its place is free"), 2);
    }
}
