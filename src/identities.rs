//! The tagging stage: one task that owns the tagger, applies what identity sources learn to the timeline, persists it,
//! and hands tagged flows and transactions to the store.
//!
//! Identities are persisted before the rows that carry them. When the store has no room the stage waits while it writes;
//! meanwhile its queue fills, and workers count what does not fit.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::mpsc;
use wiretag_enrich::event::Snapshot;
use wiretag_enrich::kernel::KernelNumbers;
use wiretag_enrich::static_file::StaticFile;
use wiretag_enrich::tagger::{TaggedRows, Tagger};
use wiretag_enrich::timeline::{Lookup, Timeline};
use wiretag_enrich::{Identity, IdentityEvent, Interval, Key};
use wiretag_store::Store;

use crate::metrics::FlowMetrics;
use crate::trouble::{Stage, Troubles};
use crate::worker::{CaptureStatus, RecordBatch};

/// The timeline, shared with whoever answers questions about identities.
pub(crate) type SharedTimeline = Arc<RwLock<Timeline>>;

/// Whether `interval` answers "who had `ip` at `at`"; absent conditions hold.
pub(crate) fn matches(interval: &Interval, at: Option<i64>, ip: Option<IpAddr>) -> bool {
    let has_ip = ip.is_none_or(|ip| matches!(&interval.key, Key::Ip { ip: own, .. } if *own == ip));
    let lasts = at.is_none_or(|at| interval.valid_from <= at && interval.valid_to.is_none_or(|end| at < end));
    has_ip && lasts
}

/// State of the tagging task.
pub(crate) struct Tagging {
    pub(crate) store: Arc<Store>,
    pub(crate) timeline: SharedTimeline,
    pub(crate) tagger: Tagger,
    pub(crate) metrics: FlowMetrics,
    pub(crate) tail: wiretag_web::Tail,
    /// Identities by name of their interface in wiretag's own namespace, from the static file.
    pub(crate) static_interfaces: HashMap<String, Arc<Identity>>,
    pub(crate) boot: Arc<str>,
    /// Namespaces to capture in, for `src/pipeline.rs`.
    pub(crate) namespaces: mpsc::Sender<IdentityEvent>,
    /// Counts the rows on their way.
    pub(crate) capture: Arc<CaptureStatus>,
    pub(crate) troubles: Arc<Troubles>,
    /// Counts connections that found no room.
    pub(crate) kernel: Arc<KernelNumbers>,
}

impl Tagging {
    /// Runs until every worker has ended and all rows are stored.
    pub(crate) async fn run(
        mut self,
        mut records: mpsc::Receiver<RecordBatch>,
        mut events: mpsc::Receiver<IdentityEvent>,
    ) {
        let mut tick = tokio::time::interval(Duration::from_millis(250));
        let mut learned = Vec::new();
        let mut tagged = TaggedRows::default();
        loop {
            tokio::select! {
                biased;
                Some(event) = events.recv() => self.learn(&event, &mut learned).await,
                batch = records.recv() => match batch {
                    Some(batch) => self.take(batch, &mut learned, &mut tagged),
                    None => break,
                },
                _ = tick.tick() => {
                    self.drain(&mut tagged);
                    self.persist(&mut learned).await;
                }
            }
            if tagged.len() >= 4096 || (!tagged.is_empty() && learned.is_empty()) {
                self.store(&mut tagged).await;
            }
        }
        {
            let timeline = self.timeline.read().unwrap_or_else(PoisonError::into_inner);
            self.tagger.flush(&timeline, &mut tagged);
        }
        self.persist(&mut learned).await;
        self.store(&mut tagged).await;
        self.tail.close();
    }

    async fn learn(&mut self, event: &IdentityEvent, learned: &mut Vec<Interval>) {
        match event {
            IdentityEvent::Namespace { .. } | IdentityEvent::NamespaceGone { .. } => {
                let _ = self.namespaces.send(event.clone()).await;
            }
            IdentityEvent::Translated(_) | IdentityEvent::Connected(_) => {
                // Of single connections the timeline knows nothing: they are many, and needed for minutes only.
                self.tagger.learn(event);
                return;
            }
            IdentityEvent::Learned(_)
            | IdentityEvent::Described { .. }
            | IdentityEvent::Same { .. }
            | IdentityEvent::Ended { .. }
            | IdentityEvent::Parted { .. }
            | IdentityEvent::Network { .. }
            | IdentityEvent::Reconciled(_) => {}
        }
        learned.extend(self.timeline.write().unwrap_or_else(PoisonError::into_inner).apply(event));
    }

    fn take(&mut self, batch: RecordBatch, learned: &mut Vec<Interval>, tagged: &mut TaggedRows) {
        self.capture.received(batch.len());
        let now = crate::host::now();
        for (index, name, veth) in batch.links {
            self.tagger.set_link(batch.netns, index, veth || batch.netns != 0);
            let Some(identity) = self.static_interfaces.get(&*name).filter(|_| batch.netns == 0) else { continue };
            // Each worker tells of each link.
            let known =
                self.timeline.read().unwrap_or_else(PoisonError::into_inner).interface(index, 0, &self.boot, now);
            if matches!(known, Lookup::One(known, _) if known == *identity) {
                continue;
            }
            let interval = Interval {
                key: Key::Interface { index, netns: 0, boot: self.boot.clone() },
                identity: identity.clone(),
                valid_from: now,
                valid_to: None,
                learned_at: now,
                source: "static".into(),
            };
            let event = IdentityEvent::Learned(interval);
            learned.extend(self.timeline.write().unwrap_or_else(PoisonError::into_inner).apply(&event));
        }
        for record in batch.records {
            self.tagger.push(batch.netns, record, now);
        }
        for transaction in batch.transactions {
            self.tagger.push_transaction(batch.netns, transaction, now);
        }
        if self.tagger.is_full() {
            self.drain(tagged);
        }
    }

    fn drain(&mut self, tagged: &mut TaggedRows) {
        let timeline = self.timeline.read().unwrap_or_else(PoisonError::into_inner);
        self.tagger.drain(crate::host::now(), &timeline, tagged);
        self.kernel.set_forgotten(self.tagger.connections_lost());
    }

    async fn persist(&self, learned: &mut Vec<Interval>) {
        if learned.is_empty() {
            return;
        }
        match self.store.catalog.append_intervals(learned).await {
            Ok(()) => {
                learned.clear();
                self.troubles.works(Stage::Identities, 0, crate::host::now());
            }
            // They are tried again.
            Err(error) => self.troubles.failed(Stage::Identities, &error, crate::host::now()),
        }
    }

    async fn store(&self, tagged: &mut TaggedRows) {
        let TaggedRows { flows, transactions } = std::mem::take(tagged);
        for flow in &flows {
            self.metrics.observe(flow);
        }
        for transaction in &transactions {
            self.metrics.observe_transaction(transaction);
        }
        self.tail.publish(&flows);
        let stored = [self.store.flows.append(flows).await, self.store.transactions.append(transactions).await];
        for error in stored.into_iter().filter_map(Result::err) {
            self.troubles.failed(Stage::Rows, &error, crate::host::now());
        }
    }
}

/// Puts the intervals of a static file into the timeline.
pub(crate) fn apply_static(timeline: &SharedTimeline, file: &StaticFile) -> Vec<Interval> {
    let mut timeline = timeline.write().unwrap_or_else(PoisonError::into_inner);
    let events = file.intervals.iter().cloned().map(IdentityEvent::Learned);
    events.flat_map(|event| timeline.apply(&event)).collect()
}

/// Puts a static file into the timeline that has what an earlier one said: what this one does not say any more ends now.
pub(crate) fn reconcile_static(timeline: &SharedTimeline, file: Option<&StaticFile>) -> Vec<Interval> {
    let present = file.into_iter().flat_map(|file| &file.intervals).cloned().collect();
    let (source, stopped, at) = ("static".into(), Vec::new(), crate::host::now());
    let event = IdentityEvent::Reconciled(Snapshot { source, present, stopped, heard: Some(at), at });
    timeline.write().unwrap_or_else(PoisonError::into_inner).apply(&event)
}
