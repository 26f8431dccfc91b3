//! What the kernel source counts: what there is, what it cost, and what could not be known.

use std::sync::atomic::{AtomicU64, Ordering};

use super::sockets::Count;

/// Figures, written by the source's thread and read by whoever asks.
#[derive(Debug, Default)]
pub struct KernelNumbers {
    rounds: AtomicU64,
    round_ns: AtomicU64,
    sockets: AtomicU64,
    translations: AtomicU64,
    unseen: AtomicU64,
    beyond: AtomicU64,
    unowned: AtomicU64,
    denied: AtomicU64,
    deferred: AtomicU64,
    overruns: AtomicU64,
    untold: AtomicU64,
    forgotten: AtomicU64,
}

impl KernelNumbers {
    /// Dumps of all sockets.
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    /// Processor time that dumps of sockets and the search for their processes took, all together, ns.
    pub fn round_ns(&self) -> u64 {
        self.round_ns.load(Ordering::Relaxed)
    }

    /// Sockets known now.
    pub fn sockets(&self) -> u64 {
        self.sockets.load(Ordering::Relaxed)
    }

    /// Translated connections known now.
    pub fn translations(&self) -> u64 {
        self.translations.load(Ordering::Relaxed)
    }

    /// What was missed, by reason.
    pub fn missed(&self) -> [(&'static str, u64); 8] {
        let value = |number: &AtomicU64| number.load(Ordering::Relaxed);
        [
            // Sockets that ended before they were seen.
            ("socket_unseen", value(&self.unseen)),
            // Sockets beyond the limit.
            ("socket_limit", value(&self.beyond)),
            // Sockets whose process was not found because there were too many descriptors to read.
            ("socket_process", value(&self.unowned)),
            // Sockets whose process was not found because some processes may not be looked into.
            ("socket_denied", value(&self.denied)),
            // Sockets that were not asked for at once, for the cost of it.
            ("socket_deferred", value(&self.deferred)),
            // The kernel told more than was read; a dump makes up for it.
            ("overrun", value(&self.overruns)),
            // Translations beyond the limit.
            ("translation_limit", value(&self.untold)),
            // Connections that the tagger had no room for.
            ("tagger_limit", value(&self.forgotten)),
        ]
    }

    /// So many sockets and translations found no room where they are looked up.
    pub fn set_forgotten(&self, connections: u64) {
        self.forgotten.store(connections, Ordering::Relaxed);
    }

    pub(super) fn add_round(&self, took: i64) {
        self.rounds.fetch_add(1, Ordering::Relaxed);
        self.round_ns.fetch_add(took.max(0).unsigned_abs(), Ordering::Relaxed);
    }

    pub(super) fn set_sockets(&self, sockets: usize, count: Count) {
        let Count { unseen, beyond, unowned, denied } = count;
        self.sockets.store(sockets as u64, Ordering::Relaxed);
        self.unseen.store(unseen, Ordering::Relaxed);
        self.beyond.store(beyond, Ordering::Relaxed);
        self.unowned.store(unowned, Ordering::Relaxed);
        self.denied.store(denied, Ordering::Relaxed);
    }

    pub(super) fn set_translations(&self, translations: usize, untold: u64) {
        self.translations.store(translations as u64, Ordering::Relaxed);
        self.untold.store(untold, Ordering::Relaxed);
    }

    pub(super) fn add_deferred(&self) {
        self.deferred.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_overrun(&self) {
        self.overruns.fetch_add(1, Ordering::Relaxed);
    }
}
