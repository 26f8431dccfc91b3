//! The tagging stage: one task that owns the tagger and the timeline, applies what identity sources learn, persists it, and
//! hands tagged flows and transactions to the store.
//!
//! Identities are persisted before the rows that carry them, unless that takes so long that rows would be lost or missed in answers: what
//! is learned may come without a pause. When the store has no room the stage waits while it writes; meanwhile its queue fills, and
//! workers count what does not fit.
//!
//! The timeline has one owner, so a lookup never waits. What takes long of an event (a source has told of tens of thousands
//! of pods) is done in portions between batches of rows. Others read views of it, which are published here and never change.
//!
//! Slices that are still open are named at once, shown to searches, and handed to the journal. They come before the rows that
//! end them, and are shown before those are stored: then a slice is in an answer once.
//!
//! Followers, receivers and metrics are told of rows before they are stored, without those of what was erased meanwhile.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use wiretag_enrich::IdentityEvent;
use wiretag_enrich::kernel::KernelNumbers;
use wiretag_enrich::tagger::{Links, TaggedRows, Tagger};
use wiretag_enrich::timeline::late::Late;
use wiretag_enrich::timeline::{Dossier, Timeline, View};
use wiretag_enrich::{TaggedFlow, TaggedTransaction};
use wiretag_store::{Store, StoreError};

use crate::checkpoint::OpenRows;
use crate::metrics::{FlowMetrics, STEP};
use crate::peers::Exporters;
use crate::static_identities::StaticInterfaces;
use crate::trouble::{Stage, Troubles};
use crate::worker::{CaptureStatus, RecordBatch, SeenLink};

/// Steps of an event that takes long between two batches of rows.
const PORTION: usize = 128;
/// Rows wait at most for identities to be persisted: so many, and so long.
const MOST_ROWS: usize = 4096;
const LONGEST: Duration = Duration::from_secs(1);
/// Dossiers that are written in one transaction.
const DOSSIERS: usize = 4096;
/// What is old is looked for when so much more time may be forgotten, ns.
const FORGET: i64 = 60_000_000_000;

/// What the timeline knows, for whoever answers questions about identities, and what it is told by them.
pub(crate) struct Published {
    view: Mutex<Arc<View>>,
    lasting: Mutex<Vec<(Arc<str>, u64)>>,
    /// Before when it may forget, and before when it has.
    forget: AtomicI64,
    forgotten: AtomicI64,
    /// What was learned of times whose rows are stored already.
    late: Mutex<Late>,
    /// Interfaces that were seen.
    links: Mutex<Arc<Links>>,
}

impl Published {
    pub(crate) fn new(timeline: &Timeline) -> Self {
        Self {
            view: Mutex::new(Arc::new(timeline.view())),
            lasting: Mutex::new(timeline.lasting()),
            forget: AtomicI64::new(0),
            forgotten: AtomicI64::new(0),
            late: Mutex::default(),
            links: Mutex::default(),
        }
    }

    /// The timeline as of the last moments.
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Claims that last, by source.
    pub(crate) fn lasting(&self) -> Vec<(Arc<str>, u64)> {
        self.lasting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was learned late since this was asked last. The view knows it.
    pub(crate) fn take_late(&self) -> Late {
        std::mem::take(&mut *self.late.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Interfaces that were seen.
    pub(crate) fn links(&self) -> Arc<Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn see_link(&self, name: &Arc<str>, index: u32) {
        Arc::make_mut(&mut *self.links.lock().unwrap_or_else(PoisonError::into_inner)).see(name, index);
    }

    /// What ended before `before` may be forgotten.
    pub(crate) fn forget(&self, before: i64) {
        self.forget.store(before, Ordering::Relaxed);
    }

    /// What is to be forgotten, if that is much more than was.
    fn to_forget(&self) -> Option<i64> {
        let before = self.forget.load(Ordering::Relaxed);
        let is_due = before.saturating_sub(self.forgotten.load(Ordering::Relaxed)) > FORGET;
        is_due.then(|| self.forgotten.store(before, Ordering::Relaxed)).map(|()| before)
    }

    fn publish(&self, timeline: &Timeline) {
        // The old view may be the last of its kind: what it alone holds is freed outside of the lock.
        let (view, lasting) = (Arc::new(timeline.view()), timeline.lasting());
        let old = std::mem::replace(&mut *self.view.lock().unwrap_or_else(PoisonError::into_inner), view);
        *self.lasting.lock().unwrap_or_else(PoisonError::into_inner) = lasting;
        drop(old);
    }
}

/// State of the tagging task.
pub(crate) struct Tagging {
    pub(crate) store: Arc<Store>,
    pub(crate) timeline: Timeline,
    pub(crate) published: Arc<Published>,
    pub(crate) tagger: Tagger,
    pub(crate) metrics: FlowMetrics,
    pub(crate) tail: wiretag_web::Tail,
    /// What the static file says of interfaces, and later versions of it.
    pub(crate) static_interfaces: StaticInterfaces,
    /// Namespaces to capture in, for `src/pipeline.rs`.
    pub(crate) namespaces: mpsc::Sender<IdentityEvent>,
    /// Counts the rows on their way.
    pub(crate) capture: Arc<CaptureStatus>,
    pub(crate) troubles: Arc<Troubles>,
    /// To the journal.
    pub(crate) journal: crossbeam_channel::Sender<OpenRows>,
    /// Counts connections that found no room.
    pub(crate) kernel: Arc<KernelNumbers>,
    /// Where rows leave for receivers.
    pub(crate) export: Exporters,
}

impl Tagging {
    /// Runs until every worker has ended and all rows are stored.
    pub(crate) async fn run(
        mut self,
        mut records: mpsc::Receiver<RecordBatch>,
        mut events: mpsc::Receiver<IdentityEvent>,
    ) {
        let (mut tick, mut step) = (tokio::time::interval(Duration::from_millis(250)), tokio::time::interval(STEP));
        let mut writing = Writing::default();
        let (mut tagged, mut since) = (TaggedRows::default(), None);
        let mut open = OpenRows::new();
        loop {
            let is_busy = self.timeline.is_busy();
            tokio::select! {
                biased;
                Some(event) = events.recv(), if !is_busy => self.learn(event).await,
                Some(file) = self.static_interfaces.changes.recv(), if !is_busy => {
                    let event = self.static_interfaces.change(file, crate::host::now());
                    self.timeline.begin(event);
                }
                // Before the rows, which may come without a pause; and these have a turn before the next.
                _ = tick.tick() => {
                    self.drain(&mut tagged);
                    self.upkeep(&mut writing).await;
                    tick.reset();
                }
                _ = step.tick() => {
                    self.metrics.step();
                    step.reset();
                }
                batch = records.recv() => match batch {
                    Some(batch) => {
                        open = self.take(batch, &mut tagged);
                        self.timeline.advance(PORTION);
                    }
                    None => break,
                },
                () = std::future::ready(()), if is_busy => self.timeline.advance(PORTION),
            }
            self.show(&mut open).await;
            if tagged.is_empty() {
                continue;
            }
            let is_persisted = !self.timeline.has_changes() && writing.is_done();
            let since_first = since.get_or_insert_with(Instant::now).elapsed();
            if is_persisted || tagged.len() >= MOST_ROWS || since_first >= LONGEST {
                self.store(&mut tagged).await;
                since = None;
            }
        }
        self.timeline.advance(usize::MAX);
        self.tagger.flush(&self.timeline, &mut tagged);
        self.written(&mut writing).await;
        while self.timeline.has_changes() && self.write(&mut writing).await {}
        self.store(&mut tagged).await;
        self.tail.close();
    }

    async fn learn(&mut self, event: IdentityEvent) {
        match &event {
            IdentityEvent::Namespace { .. } | IdentityEvent::NamespaceGone { .. } => {
                let _ = self.namespaces.send(event.clone()).await;
            }
            IdentityEvent::Translated(_) | IdentityEvent::Connected(_) => {
                // Of single connections the timeline knows nothing: they are many, and needed for minutes only.
                self.tagger.learn(&event);
                return;
            }
            IdentityEvent::Learned(_)
            | IdentityEvent::Described { .. }
            | IdentityEvent::Same { .. }
            | IdentityEvent::Heard { .. }
            | IdentityEvent::Ended { .. }
            | IdentityEvent::Parted { .. }
            | IdentityEvent::Network { .. }
            | IdentityEvent::Reconciled(_) => {}
        }
        self.timeline.begin(event);
    }

    /// Takes rows into the tagger; those that are open come back with names.
    fn take(&mut self, batch: RecordBatch, tagged: &mut TaggedRows) -> OpenRows {
        self.capture.received(batch.len());
        let now = crate::host::now();
        for SeenLink { index, name, veth, vrf } in batch.links {
            self.tagger.set_link(batch.netns, index, veth || batch.netns != 0);
            self.published.see_link(&name, index);
            if batch.netns == 0 {
                let own = self.static_interfaces.link((index, &name), &self.timeline, now);
                let network = self.timeline.vrf_changed(index, vrf.as_deref(), now);
                own.into_iter().chain(network).for_each(|event| self.timeline.apply(&event));
            }
        }
        let open = self.tagger.name_open(batch.netns, batch.open, now, &self.timeline);
        for record in batch.records {
            self.tagger.push(batch.netns, record, now);
        }
        for transaction in batch.transactions {
            self.tagger.push_transaction(batch.netns, transaction, now);
        }
        if self.tagger.is_full() {
            self.drain(tagged);
        }
        open.into_iter().map(Arc::new).collect()
    }

    /// Shows what is open, and hands it to the journal.
    async fn show(&mut self, open: &mut OpenRows) {
        let mut rows = std::mem::take(open);
        if !rows.is_empty() {
            self.store.flows.show_open(&rows).await;
        }
        let demoted = self.tagger.take_demoted();
        if !demoted.is_empty() {
            rows.extend(self.store.flows.demote_open(&demoted).await);
        }
        if !rows.is_empty()
            && let Err(error) = self.journal.try_send(rows)
        {
            self.capture.lose_open(error.into_inner().len());
        }
    }

    fn drain(&mut self, tagged: &mut TaggedRows) {
        self.tagger.drain(crate::host::now(), &self.timeline, tagged);
        self.kernel.set_forgotten(self.tagger.connections_lost());
    }

    /// Publishes and persists what is new, and forgets what is old, a portion at a time.
    async fn upkeep(&mut self, writing: &mut Writing) {
        if let Some(before) = self.published.to_forget() {
            self.timeline.expire_from(before);
        }
        let forgets = self.timeline.expire_some();
        let has_news = self.timeline.has_changes();
        if writing.is_finished() {
            self.written(writing).await;
        }
        match (writing.is_done(), has_news) {
            (true, true) => self.begin_to_write(writing),
            // Nothing is left to be written.
            (true, false) => self.troubles.works(Stage::Identities, 0, crate::host::now()),
            (false, _) => {}
        }
        let late = self.timeline.take_late(crate::host::now());
        if has_news || forgets || !late.is_empty() {
            self.published.publish(&self.timeline);
        }
        if !late.is_empty() {
            self.published.late.lock().unwrap_or_else(PoisonError::into_inner).merge(late);
        }
    }

    /// Writes beside the tagging: the lookups of rows do not wait for the disk.
    fn begin_to_write(&mut self, writing: &mut Writing) {
        let dossiers = Arc::new(self.timeline.take_changes(DOSSIERS));
        let (catalog, written) = (self.store.catalog.clone(), dossiers.clone());
        let task = tokio::spawn(async move { catalog.put_dossiers(&written).await });
        writing.task = Some((task, dossiers));
    }

    /// Waits for what is being written; false if it failed. Then it is tried again.
    async fn written(&mut self, writing: &mut Writing) -> bool {
        let Some((task, dossiers)) = writing.task.take() else { return true };
        let outcome = task.await.unwrap_or_else(|error| Err(StoreError::Task(error.to_string())));
        match outcome {
            Ok(()) => {
                self.troubles.works(Stage::Identities, 0, crate::host::now());
                true
            }
            Err(error) => {
                self.timeline.keep_changes(&dossiers);
                self.troubles.failed(Stage::Identities, &error, crate::host::now());
                false
            }
        }
    }

    async fn write(&mut self, writing: &mut Writing) -> bool {
        self.begin_to_write(writing);
        self.written(writing).await
    }

    async fn store(&mut self, tagged: &mut TaggedRows) {
        let TaggedRows { flows, transactions } = std::mem::take(tagged);
        self.tell(&self.store.flows.kept(&flows), &self.store.transactions.kept(&transactions));
        let stored = [self.store.flows.append(flows).await, self.store.transactions.append(transactions).await];
        for error in stored.into_iter().filter_map(Result::err) {
            self.troubles.failed(Stage::Rows, &error, crate::host::now());
        }
    }

    /// Tells others of rows that are about to be stored.
    fn tell(&mut self, flows: &[TaggedFlow], transactions: &[TaggedTransaction]) {
        for flow in flows {
            self.metrics.observe(flow);
        }
        for transaction in transactions {
            self.metrics.observe_transaction(transaction);
        }
        self.tail.publish(flows);
        self.export.publish(flows);
    }
}

/// A write that goes on beside the tagging.
type Write = JoinHandle<Result<(), StoreError>>;

/// What is being written to the catalog.
#[derive(Default)]
struct Writing {
    task: Option<(Write, Arc<Vec<Dossier>>)>,
}

impl Writing {
    fn is_done(&self) -> bool {
        self.task.is_none()
    }

    fn is_finished(&self) -> bool {
        self.task.as_ref().is_some_and(|(task, _)| task.is_finished())
    }
}

/// Writes what is new in a timeline.
pub(crate) async fn persist(timeline: &mut Timeline, store: &Store) -> Result<(), StoreError> {
    while timeline.has_changes() {
        store.catalog.put_dossiers(&timeline.take_changes(DOSSIERS)).await?;
    }
    Ok(())
}
