//! Checkpoints of what is open: how often workers look, and the thread that writes what they see to the journal.
//!
//! ```text
//! worker ─ open slices ─ tagger ─┬─ store: searches show them
//!                                └─ (64) ─ journal
//! ```
//!
//! A look at a slice costs a worker, the tagger and the journal about [`SLICE_COST`] of one core together, and the table
//! [`SLOT_COST`] a flow. When looking every few seconds would take more than a [`SHARE`]th of a core, looks are further
//! apart: then a crash loses more, and `wiretag_checkpoint_interval_seconds` says how much.
//!
//! Nothing waits for a checkpoint. What finds a queue full, or could not be written, is counted, and the next look gives
//! everything that is open.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use wiretag_enrich::TaggedFlow;
use wiretag_store::{Journal, Store, StoreError};

use crate::stage_numbers::StageNumbers;
use crate::trouble::{Stage, Troubles};
use crate::worker::CaptureStatus;

/// Open slices that one append takes at most.
const ROWS: usize = 8192;

/// Time of a core that an open slice takes from worker to journal, ns.
const SLICE_COST: i64 = 8_000;
/// Time that a look at a flow takes that had no packet, ns.
const SLOT_COST: i64 = 50;
/// The part of a core that checkpoints may take.
const SHARE: i64 = 25;

/// Open slices on their way to the journal.
pub(crate) type OpenRows = Vec<Arc<TaggedFlow>>;

/// See [`JournalWriter::start`].
pub(crate) type JournalThread = std::thread::JoinHandle<Option<Journal>>;

/// When a worker looks at what is open.
#[derive(Debug)]
pub(crate) struct Pace {
    every: i64,
    /// As it is with so many flows as there were last.
    stretched: i64,
    /// When the next look begins; `None` while one goes on.
    due: Option<i64>,
    slices: i64,
    asked: u64,
    /// The next look gives everything.
    everything: bool,
}

impl Pace {
    /// A look every `every` ns, at multiples of that: workers look at the same time, so that the observations of one flow
    /// come together.
    pub(crate) fn new(every: i64) -> Self {
        Self { every, stretched: every, due: Some(i64::MIN), slices: 0, asked: 0, everything: false }
    }

    /// Whether a look begins now.
    pub(crate) fn begins(&mut self, now: i64) -> bool {
        // Nothing is due later than the next look; if it is, the clock went back.
        let latest = now.saturating_add(self.stretched);
        let begins = self.due.is_some_and(|due| due <= now || due > latest);
        if begins {
            (self.due, self.slices) = (None, 0);
        }
        begins
    }

    /// Whether one goes on.
    pub(crate) fn is_looking(&self) -> bool {
        self.due.is_none()
    }

    /// Whether the look that begins gives all that is open: `asked` is how often that was asked for.
    pub(crate) fn takes_everything(&mut self, asked: u64) -> bool {
        let news = std::mem::replace(&mut self.asked, asked) != asked;
        std::mem::take(&mut self.everything) || news
    }

    /// A part of the look gave so many slices.
    pub(crate) fn gave(&mut self, slices: usize) {
        self.slices += slices as i64;
    }

    /// What was given was lost.
    pub(crate) fn lost(&mut self) {
        self.everything = true;
    }

    /// The look is over; the table has so many flows.
    pub(crate) fn ends(&mut self, now: i64, flows: u64) {
        let cost = self.slices * SLICE_COST + flows as i64 * SLOT_COST;
        self.stretched = (cost * SHARE).div_euclid(self.every).saturating_mul(self.every).max(self.every);
        self.due = Some((now.div_euclid(self.stretched) + 1).saturating_mul(self.stretched));
    }

    /// Time between two looks, ns.
    pub(crate) fn interval(&self) -> i64 {
        self.stretched
    }
}

/// The thread that writes the journal.
pub(crate) struct JournalWriter {
    store: Arc<Store>,
    capture: Arc<CaptureStatus>,
    stages: Arc<Mutex<StageNumbers>>,
    troubles: Arc<Troubles>,
    /// `None` as long as it cannot be begun.
    journal: Option<Journal>,
}

impl JournalWriter {
    pub(crate) fn new(
        store: &Arc<Store>,
        capture: &Arc<CaptureStatus>,
        stages: &Arc<Mutex<StageNumbers>>,
        troubles: &Arc<Troubles>,
    ) -> Self {
        let (store, capture) = (store.clone(), capture.clone());
        Self { store, capture, stages: stages.clone(), troubles: troubles.clone(), journal: None }
    }

    /// Starts it behind a queue of so many batches. It ends when the queue's other end is gone, and gives the journal back:
    /// to be removed when the last rows are stored.
    pub(crate) fn start(mut self, queue: usize) -> anyhow::Result<(Sender<OpenRows>, JournalThread)> {
        let (sender, rows) = crossbeam_channel::bounded(queue);
        // Before the first packet: that a run was interrupted is known by its journal.
        self.write(&[]);
        let thread = std::thread::Builder::new().name("journal".into());
        let thread = thread.spawn(move || self.run(&rows)).context("cannot start the journal's thread")?;
        Ok((sender, thread))
    }

    fn run(mut self, batches: &Receiver<OpenRows>) -> Option<Journal> {
        loop {
            let mut rows = match batches.recv_timeout(Duration::from_secs(1)) {
                Ok(rows) => rows,
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => return self.journal,
            };
            while rows.len() < ROWS
                && let Ok(more) = batches.try_recv()
            {
                rows.extend(more);
            }
            self.write(&rows);
        }
    }

    fn write(&mut self, rows: &[Arc<TaggedFlow>]) {
        let now = crate::host::now();
        // While nothing is open nothing would tell that it works again.
        let probes = rows.is_empty() && self.troubles.is_failing(Stage::Open);
        match self.append(rows, probes, now) {
            Ok(()) if rows.is_empty() && !probes => {}
            Ok(()) => self.troubles.works(Stage::Open, self.capture.lost_open(), now),
            Err(error) => {
                self.capture.lose_open(rows.len());
                self.troubles.failed(Stage::Open, &error, now);
            }
        }
        let bytes = self.journal.as_ref().map_or(0, Journal::bytes);
        self.stages.lock().unwrap_or_else(PoisonError::into_inner).journal_bytes = bytes;
    }

    fn append(&mut self, rows: &[Arc<TaggedFlow>], probes: bool, now: i64) -> Result<(), StoreError> {
        let journal = match &mut self.journal {
            Some(journal) => journal,
            none => none.insert(self.store.journal(now)?),
        };
        journal.append(rows, now)?;
        if probes {
            journal.probe(now)?;
        }
        journal.retire(self.store.flushed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn looks_are_further_apart_when_there_is_more_to_see() {
        let mut pace = Pace::new(5 * SECOND);
        assert!(pace.begins(101 * SECOND) && pace.is_looking() && !pace.begins(101 * SECOND));
        pace.gave(1000);
        pace.ends(101 * SECOND, 1000);
        assert!(!pace.is_looking() && !pace.begins(104 * SECOND) && pace.begins(105 * SECOND), "at multiples");
        pace.gave(100_000);
        pace.ends(105 * SECOND, 1_000_000);
        assert_eq!(pace.interval(), 20 * SECOND);
        assert!(!pace.begins(119 * SECOND) && pace.begins(120 * SECOND));
        pace.ends(121 * SECOND, 0);
        assert_eq!(pace.interval(), 5 * SECOND);
    }

    #[test]
    fn what_was_lost_is_given_again_once() {
        let mut pace = Pace::new(5 * SECOND);
        assert!(!pace.takes_everything(0));
        assert!(pace.takes_everything(1) && !pace.takes_everything(1));
        pace.lost();
        assert!(pace.takes_everything(1) && !pace.takes_everything(1));
    }
}
