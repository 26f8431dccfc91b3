//! Flush, retention, and the numbers of the store: every two seconds, and when memory or the disk fills faster. Beside that,
//! erasures that did not come to their end, names that were told late, and, once, what searches ask of every file.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use wiretag_store::Store;

use crate::identities::Published;
use crate::retag::Retag;
use crate::stage_numbers::StageNumbers;
use crate::trouble::{Stage, Troubles};

/// Identities that ended less than an hour ago are never forgotten: their flows may still be on their way.
const HOUR: i64 = 3_600_000_000_000;

/// Reads once what every search asks of the files that were there before the start.
async fn warm(store: Arc<Store>) {
    // A catalog that is away is told of by what cannot do without it.
    let _ = tokio::join!(store.flows.warm(), store.transactions.warm());
}

/// See the module documentation.
pub(crate) struct Upkeep {
    pub(crate) store: Arc<Store>,
    pub(crate) published: Arc<Published>,
    pub(crate) stages: Arc<Mutex<StageNumbers>>,
    pub(crate) troubles: Arc<Troubles>,
}

impl Upkeep {
    /// Runs until it is told to finish, then once more.
    pub(crate) async fn run(
        self,
        packets: Arc<Notify>,
        (node, boot): (Arc<str>, Arc<str>),
        mut finish: watch::Receiver<bool>,
    ) {
        let retag = Retag { store: self.store.clone(), published: self.published.clone(), node, boot };
        let retag = tokio::spawn(retag.run(finish.clone()));
        let erasures = tokio::spawn(crate::erasures::go_on(self.store.clone()));
        let warming = tokio::spawn(warm(self.store.clone()));
        let mut tick = tokio::time::interval(Duration::from_secs(2));
        let mut works = true;
        loop {
            let last = tokio::select! {
                _ = finish.changed() => true,
                _ = tick.tick() => false,
                () = self.store.flows.pressed(), if works => false,
                () = self.store.transactions.pressed(), if works => false,
                () = packets.notified() => false,
            };
            works = self.round().await;
            if last {
                // The next start goes on with what is left.
                erasures.abort();
                warming.abort();
                let _ = retag.await;
                return;
            }
        }
    }

    /// True if everything worked.
    async fn round(&self) -> bool {
        let now = crate::host::now();
        let done = self.store.maintain(now).await;
        let (counters, transactions) = (self.store.flows.counters(), self.store.transactions.counters());
        {
            let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
            stages.rows_stored = counters.written;
            stages.rows_dropped = counters.dropped;
            stages.rows_erased = [&counters, &transactions].map(|own| own.erased + own.removed);
            stages.rows_retagged = [counters.retagged, transactions.retagged];
            stages.rollups = counters.rollups;
            stages.failed_rollups = counters.failed_rollups;
            stages.flow_files_unreadable = counters.unreadable_files;
            stages.packet_blocks_damaged = self.store.packets_damaged();
            stages.transaction_files_unreadable = transactions.unreadable_files;
            stages.open_slices = counters.open;
            stages.hidden_slices = counters.hidden;
            stages.transactions_stored = transactions.written;
            stages.transactions_dropped = transactions.dropped;
        }
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                self.troubles.failed(Stage::Rows, &error, now);
                return false;
            }
        };
        self.troubles.works(Stage::Rows, counters.dropped + transactions.dropped, now);
        match &done.undeleted {
            Some(error) => self.troubles.failed(Stage::Deletion, error, now),
            None => self.troubles.works(Stage::Deletion, 0, now),
        }
        if let Some(oldest) = done.oldest {
            self.published.forget(oldest.min(now - HOUR));
        }
        let lasting = self.published.lasting();
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        stages.flow_bytes = done.flows.bytes;
        stages.transaction_bytes = done.transactions.bytes;
        stages.packet_bytes = done.packets.bytes;
        stages.identities = lasting.into_iter().map(|(source, count)| (source.to_string(), count)).collect();
        true
    }
}
