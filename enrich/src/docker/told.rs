//! What a container's task is told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// See the module documentation.
#[derive(Debug)]
pub(super) enum Told {
    /// It got an endpoint in a network.
    Connected {
        network: Arc<str>,
        at: i64,
        /// [`Changes::partings`] of the network when this was told.
        parting: u64,
    },
    /// It lost it.
    Disconnected { network: Arc<str>, at: i64 },
    /// Its first process runs.
    Started { at: i64, attributes: HashMap<String, String> },
    /// It has a new name.
    Renamed { at: i64 },
    /// Its first process ended.
    Died { at: i64, attributes: HashMap<String, String> },
    /// It was removed.
    Destroyed { at: i64, attributes: HashMap<String, String> },
    /// What happened to it between two times could not be taken.
    Lost { since: i64, at: i64 },
    /// Docker did not answer about it; what was known of it is sure until then.
    Unclear { since: i64 },
}

impl Told {
    /// When it happened.
    pub(super) fn at(&self) -> i64 {
        let (Self::Connected { at, .. }
        | Self::Disconnected { at, .. }
        | Self::Started { at, .. }
        | Self::Renamed { at }
        | Self::Died { at, .. }
        | Self::Destroyed { at, .. }
        | Self::Lost { at, .. }
        | Self::Unclear { since: at }) = self;
        *at
    }
}

/// How often a container was told to have joined and left each network, counted before its task takes the event. An
/// answer about an endpoint that left meanwhile may be about the one that came after it, and one about an endpoint whose
/// event is still to be taken does not say since when it is there.
#[derive(Default)]
pub(super) struct Changes {
    counts: Mutex<HashMap<Arc<str>, Counts>>,
    taken: AtomicI64,
}

#[derive(Default, Clone, Copy)]
pub(super) struct Counts {
    pub(super) connects: u64,
    partings: u64,
}

impl Changes {
    /// The time of the event that the container's task took last, which it may still be busy with; 0: it took none.
    pub(super) fn taken(&self) -> i64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// The container's task takes an event.
    pub(super) fn take(&self, told: &Told) {
        self.taken.store(told.at(), Ordering::Relaxed);
    }

    pub(super) fn of(&self, network: &str) -> Counts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).get(network).copied().unwrap_or_default()
    }

    pub(super) fn partings(&self, network: &str) -> u64 {
        self.of(network).partings
    }

    /// Counts an event that the container's task is about to be told.
    pub(super) fn count(&self, told: &mut Told) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        match told {
            Told::Connected { network, parting, .. } => {
                let counts = counts.entry(network.clone()).or_default();
                counts.connects += 1;
                *parting = counts.partings;
            }
            Told::Disconnected { network, .. } => counts.entry(network.clone()).or_default().partings += 1,
            Told::Started { .. }
            | Told::Renamed { .. }
            | Told::Died { .. }
            | Told::Destroyed { .. }
            | Told::Lost { .. }
            | Told::Unclear { .. } => {}
        }
    }
}
