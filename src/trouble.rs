//! What does not work at present: one log line when it begins, one when it ends, and a part of `health` in between.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Writing works again when it has not failed for so long, ns: a full disk takes a small block now and then.
const CALM: i64 = 5_000_000_000;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// The packet log.
    Packets,
    /// Flows and transactions, and the upkeep of the store.
    Rows,
    /// The journal of open flows.
    Open,
    /// The identity timeline.
    Identities,
    /// Accounts of what was lost.
    Accounts,
}

impl Stage {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Rows => "flows and transactions",
            Self::Open => "open flows",
            Self::Identities => "identities",
            Self::Accounts => "capture statistics",
        }
    }
}

#[derive(Default)]
struct State {
    error: Option<String>,
    failed_at: i64,
    /// What had been lost when all was well last.
    lost_before: u64,
}

/// The state of every stage; shared by those who write and those who ask.
#[derive(Default)]
pub(crate) struct Troubles(Mutex<BTreeMap<Stage, State>>);

impl Troubles {
    /// Writing failed at `now`.
    pub(crate) fn failed(&self, stage: Stage, error: &dyn std::fmt::Display, now: i64) {
        let mut states = self.lock();
        let state = states.entry(stage).or_default();
        state.failed_at = now;
        if state.error.is_none() {
            tracing::error!("{} are not written: {error}", stage.as_str());
        }
        state.error = Some(error.to_string());
    }

    /// Writing worked at `now`; `lost` is what has been lost so far.
    pub(crate) fn works(&self, stage: Stage, lost: u64, now: i64) {
        let mut states = self.lock();
        let state = states.entry(stage).or_default();
        if state.error.is_some() {
            if now.saturating_sub(state.failed_at) < CALM {
                return;
            }
            state.error = None;
            let lost = lost.saturating_sub(state.lost_before);
            tracing::warn!("{} are written again; {lost} were lost meanwhile", stage.as_str());
        }
        state.lost_before = lost;
    }

    /// A sentence for each stage that fails.
    pub(crate) fn sentences(&self) -> Vec<String> {
        let states = self.lock();
        let failing = states.iter().filter_map(|(stage, state)| Some((stage, state.error.as_ref()?)));
        failing.map(|(stage, error)| format!("{} are not written: {error}", stage.as_str())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Stage, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_lasts_until_writing_has_worked_for_a_while() {
        let troubles = Troubles::default();
        troubles.works(Stage::Packets, 3, 0);
        assert!(troubles.sentences().is_empty());
        troubles.failed(Stage::Packets, &"disk full", 10);
        troubles.works(Stage::Packets, 9, 11);
        assert_eq!(troubles.sentences(), ["packets are not written: disk full"]);
        troubles.works(Stage::Packets, 9, 10 + CALM);
        assert!(troubles.sentences().is_empty());
    }
}
