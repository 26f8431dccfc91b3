//! Names for stored rows that were told too late: what the tagging stage found to be late is looked for in the store, and named.
//!
//! * What is late is gathered for a round, so that a list of tens of thousands of pods after an outage is one pass over the files of
//!   that time. When nothing is late nothing is read.
//! * A pass works for a quarter of the time at most, on one core: after each file it rests.
//! * The catalog knows until when everything that was learned is in the rows ([`Catalog::retagged`]): what was learned later, or a
//!   little before, is late after a restart. While a source that may be behind is not heard, that time stands still. A catalog that
//!   has none is an old one: it is taken as done.
//!
//! [`Catalog::retagged`]: wiretag_store::Catalog::retagged

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use wiretag_enrich::tagger::Again;
use wiretag_enrich::timeline::late::{Late, LateRows};
use wiretag_store::tables::{Retagging, TableStore};
use wiretag_store::{Store, StoreError, Table};

use crate::identities::Published;

/// How often what is late is looked for.
const ROUND: Duration = Duration::from_secs(10);
/// So many times what a file took is rested.
const REST: u32 = 3;
/// What was learned so long before the time in the catalog may not have been applied by then, ns.
const MARGIN: i64 = 60_000_000_000;
/// How often that time is written while nothing is late, ns.
const NOTED: i64 = 60_000_000_000;
/// A source that was never heard for so long is not waited for, ns.
const FORGOTTEN: i64 = 86_400_000_000_000;

/// See the module documentation.
pub(crate) struct Retag {
    pub(crate) store: Arc<Store>,
    pub(crate) published: Arc<Published>,
    pub(crate) node: Arc<str>,
    pub(crate) boot: Arc<str>,
}

/// What a pass did.
#[derive(Default)]
struct Done {
    rows: u64,
    files: u64,
}

impl Retag {
    /// Runs until it is told to finish; a file that was begun is finished.
    pub(crate) async fn run(self, mut finish: watch::Receiver<bool>) {
        let started = crate::host::now();
        let (mut late, known) = loop {
            match self.begin(started).await {
                Ok(begun) => break begun,
                Err(error) => tracing::warn!(%error, "it is not known which rows were named already; tried again"),
            }
            if rest(ROUND, &mut finish).await {
                return;
            }
        };
        let mut noted = known;
        while !rest(ROUND, &mut finish).await {
            let now = crate::host::now();
            late.merge(self.published.take_late());
            let view = self.published.view();
            let heard = match view.heard() {
                heard if heard > 0 => heard,
                _ if now - started > FORGOTTEN => now,
                _ => noted,
            };
            let again = Again { boot: self.boot.clone(), node: self.node.clone(), links: self.published.links(), view };
            let rows = late.clone().rows(now, known);
            let was_late = !rows.is_empty();
            match self.pass(&rows, &again, &mut finish).await {
                Ok(true) => late = Late::default(),
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, "stored rows did not get the names that were told late; tried again");
                    continue;
                }
            }
            let until = heard.min(now);
            if until > noted && (was_late || until - noted > NOTED) && self.note(until).await {
                noted = until;
            }
        }
    }

    /// What was late when the last run ended, and until when everything is known to be in the rows.
    async fn begin(&self, now: i64) -> Result<(Late, i64), StoreError> {
        let Some(known) = self.store.catalog.retagged().await? else {
            self.store.catalog.set_retagged(now).await?;
            return Ok((Late::default(), now));
        };
        let view = self.published.view();
        let late = tokio::task::spawn_blocking(move || view.late_since(known.saturating_sub(MARGIN))).await;
        Ok((late.map_err(|error| StoreError::Task(error.to_string()))?, known))
    }

    async fn note(&self, until: i64) -> bool {
        let noted = self.store.catalog.set_retagged(until).await;
        if let Err(error) = &noted {
            tracing::warn!(%error, "that rows were named is not noted: the next start looks at them again");
        }
        noted.is_ok()
    }

    /// Looks at all of these rows; false: it is to finish.
    async fn pass(
        &self,
        rows: &[LateRows],
        again: &Again,
        finish: &mut watch::Receiver<bool>,
    ) -> Result<bool, StoreError> {
        for late in rows {
            let mut done = Done::default();
            let whole = table(&self.store.flows, late, again, (&mut done, finish)).await?
                && table(&self.store.transactions, late, again, (&mut done, finish)).await?;
            if done.rows > 0 {
                let Done { rows, files } = done;
                tracing::info!(
                    rows,
                    files,
                    addresses = late.ranges.len(),
                    "stored rows were named: who they were was told late"
                );
            }
            if !whole {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Looks at the rows of a table; false: it is to finish.
async fn table<R: Table>(
    store: &TableStore<R>,
    late: &LateRows,
    again: &Again,
    (done, finish): (&mut Done, &mut watch::Receiver<bool>),
) -> Result<bool, StoreError> {
    let mut progress = Retagging::default();
    loop {
        #[expect(clippy::disallowed_methods, reason = "how long it rests depends on how long it worked")]
        let began = std::time::Instant::now();
        let Some(rows) = store.retag_next(late, (again, &mut progress), crate::host::now()).await? else {
            return Ok(true);
        };
        done.rows += rows;
        done.files += u64::from(rows > 0);
        if rest(began.elapsed() * REST, finish).await {
            return Ok(false);
        }
    }
}

/// Rests; true: it is to finish.
async fn rest(time: Duration, finish: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        () = tokio::time::sleep(time) => false,
        _ = finish.changed() => true,
    }
}
