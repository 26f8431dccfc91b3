//! The account of what was received and what was lost, at every stage, since the last one: written to the catalog every ten
//! seconds and at the end, and added to answers until then.
//!
//! A run that is killed writes no last account: what it received since the one before is nowhere. The next start says so
//! ([`note_interruption`]): answers about that time, to the last that is in its journal, are not complete. Neither are those about the time from an
//! end, of whatever kind, to the next start ([`Account::note_gap`]). Before the first start of all nobody said that anything would be captured.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use wiretag_capture::CaptureCounters;
use wiretag_store::{Loss, Store, StoreError};

use crate::peers::Peers;
use crate::stage_numbers::StageNumbers;
use crate::worker::CaptureStatus;

/// Time between two accounts.
pub(crate) const EVERY: Duration = Duration::from_secs(10);

/// Says that the run before was interrupted, and `written` last to its journal. The rows that it left may have more packets than its
/// accounts.
pub(crate) async fn note_interruption(node: &str, store: &Store, written: i64) -> Result<(), StoreError> {
    let accounts = store.catalog.loss(0, i64::MAX).await?;
    let last = accounts.iter().find(|account| account.node == node).map(|account| account.to);
    let (from, to) = last_known(last, written, crate::host::now());
    store.catalog.add_loss(&Loss { node: node.to_owned(), from, to, interruptions: 1, ..Loss::default() }).await
}

/// From when on something may be missing of a run that was killed, and until when it is known to have captured: its `last` account, or what it has
/// `written` to its journal last, whichever came later. The earlier one may be old: nothing was open.
fn last_known(last: Option<i64>, written: i64, now: i64) -> (i64, i64) {
    let every = EVERY.as_nanos() as i64;
    let last = last.unwrap_or(written.saturating_sub(every));
    (written.clamp(last.saturating_sub(every), last).min(now), last.max(written).min(now))
}

/// Where the numbers are, and what they were when they were written last.
pub(crate) struct Account {
    node: String,
    store: Arc<Store>,
    capture: Arc<CaptureStatus>,
    stages: Arc<Mutex<StageNumbers>>,
    peers: Arc<Peers>,
    written: Mutex<Loss>,
}

impl Account {
    pub(crate) fn new(
        node: &str,
        store: &Arc<Store>,
        capture: &Arc<CaptureStatus>,
        (stages, peers): (&Arc<Mutex<StageNumbers>>, &Arc<Peers>),
    ) -> Self {
        Self {
            node: node.to_owned(),
            store: store.clone(),
            capture: capture.clone(),
            stages: stages.clone(),
            peers: peers.clone(),
            written: Mutex::new(Loss { to: crate::host::now(), ..Loss::default() }),
        }
    }

    /// Sums since the start.
    fn sums(&self) -> Loss {
        let counters = self.capture.counters();
        let refused = |counters: &CaptureCounters| counters.refused.values().sum::<u64>();
        let (flows, transactions) = (self.store.flows.counters(), self.store.transactions.counters());
        Loss {
            node: self.node.clone(),
            from: 0,
            to: crate::host::now(),
            packets: counters.packets,
            kernel_drops: counters.kernel_drops,
            queue_drops: counters.queue_drops,
            refused: refused(&counters),
            unwritten: self.stages.lock().unwrap_or_else(PoisonError::into_inner).packets_dropped,
            flow_rows: self.capture.lost_slices() + flows.dropped + self.peers.missing(),
            transaction_rows: self.capture.lost_transactions() + transactions.dropped,
            interruptions: self.capture.interruptions(),
            not_captured: 0,
        }
    }

    /// Says that nobody captured from the last account to the start, at `started`. Called before the first account of this run.
    pub(crate) async fn note_gap(&self, started: i64) -> Result<(), StoreError> {
        let catalog = &self.store.catalog;
        let from = catalog.accounted_until().await?.unwrap_or(started);
        // After a clock that went back it is not known.
        let Ok(not_captured @ 1..) = u64::try_from(started.saturating_sub(from)) else { return Ok(()) };
        catalog.add_loss(&Loss { node: self.node.clone(), from, to: started, not_captured, ..Loss::default() }).await
    }

    /// What has not been written yet.
    pub(crate) fn pending(&self) -> Loss {
        since(&self.written.lock().unwrap_or_else(PoisonError::into_inner), &self.sums())
    }

    /// Writes it.
    pub(crate) async fn write(&self) -> Result<(), StoreError> {
        self.write_with(0, 0).await
    }

    /// The last account, when every stage has ended: rows that are still in memory could not be written.
    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        self.write_with(self.store.flows.counters().recent, self.store.transactions.counters().recent).await
    }

    async fn write_with(&self, flow_rows: u64, transaction_rows: u64) -> Result<(), StoreError> {
        let sums = self.sums();
        let mut loss = since(&self.written.lock().unwrap_or_else(PoisonError::into_inner), &sums);
        loss.flow_rows += flow_rows;
        loss.transaction_rows += transaction_rows;
        self.store.catalog.add_loss(&loss).await?;
        *self.written.lock().unwrap_or_else(PoisonError::into_inner) = sums;
        Ok(())
    }
}

fn since(before: &Loss, after: &Loss) -> Loss {
    Loss {
        node: after.node.clone(),
        from: before.to,
        to: after.to,
        packets: after.packets.saturating_sub(before.packets),
        kernel_drops: after.kernel_drops.saturating_sub(before.kernel_drops),
        queue_drops: after.queue_drops.saturating_sub(before.queue_drops),
        refused: after.refused.saturating_sub(before.refused),
        unwritten: after.unwritten.saturating_sub(before.unwritten),
        flow_rows: after.flow_rows.saturating_sub(before.flow_rows),
        transaction_rows: after.transaction_rows.saturating_sub(before.transaction_rows),
        interruptions: after.interruptions.saturating_sub(before.interruptions),
        not_captured: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_was_killed_is_known_to_have_captured_until_its_last_account_or_its_journal() {
        const SECOND: i64 = 1_000_000_000;
        let check = |last: Option<i64>, written: i64, now: i64, expected: (i64, i64)| {
            let (from, to) = last_known(last.map(|last| last * SECOND), written * SECOND, now * SECOND);
            assert_eq!((from / SECOND, to / SECOND), expected, "{last:?} {written} {now}");
        };
        check(Some(100), 104, 500, (100, 104));
        check(Some(100), 97, 500, (97, 100));
        // Nothing was open since.
        check(Some(100), 30, 500, (90, 100));
        check(None, 104, 500, (94, 104));
        // The clock went back.
        check(Some(100), 104, 50, (50, 50));
    }
}
