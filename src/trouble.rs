//! What does not work at present: one log line when it begins, one when it ends, and a part of `health` in between.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What failed works again when it has not failed for so long, ns: a full disk takes a small block now and then.
const CALM: i64 = 5_000_000_000;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// The rings.
    Capture,
    /// Which interfaces there are, and capture in the namespaces of containers.
    Interfaces,
    /// The socket of exporters.
    Netflow,
    /// The packet log.
    Packets,
    /// Flows and transactions, and the upkeep of the store.
    Rows,
    /// What is not kept any more.
    Deletion,
    /// The journal of open flows.
    Open,
    /// The identity timeline.
    Identities,
    /// Accounts of what was lost.
    Accounts,
}

impl Stage {
    /// Of what, and what does or does not happen to it.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Capture => ("packets", "captured"),
            Self::Interfaces => ("interfaces", "followed"),
            Self::Netflow => ("records of exporters", "heard"),
            Self::Packets => ("packets", "written"),
            Self::Rows => ("flows and transactions", "written"),
            Self::Deletion => ("old files", "deleted"),
            Self::Open => ("open flows", "written"),
            Self::Identities => ("identities", "written"),
            Self::Accounts => ("capture statistics", "written"),
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
    /// It failed at `now`.
    pub(crate) fn failed(&self, stage: Stage, error: &dyn std::fmt::Display, now: i64) {
        let mut states = self.lock();
        let state = states.entry(stage).or_default();
        state.failed_at = now;
        if state.error.is_none() {
            tracing::error!("{}", sentence(stage, error));
        }
        state.error = Some(error.to_string());
    }

    /// It worked at `now`; `lost` is what has been lost so far.
    pub(crate) fn works(&self, stage: Stage, lost: u64, now: i64) {
        let mut states = self.lock();
        let state = states.entry(stage).or_default();
        if state.error.is_some() {
            // A clock that went back keeps nothing.
            if (0..CALM).contains(&now.saturating_sub(state.failed_at)) {
                return;
            }
            state.error = None;
            let (what, done) = stage.words();
            match lost.saturating_sub(state.lost_before) {
                0 => tracing::warn!("{what} are {done} again"),
                lost => tracing::warn!("{what} are {done} again; {lost} were lost meanwhile"),
            }
        }
        state.lost_before = lost;
    }

    /// Whether it fails at present.
    pub(crate) fn is_failing(&self, stage: Stage) -> bool {
        self.lock().get(&stage).is_some_and(|state| state.error.is_some())
    }

    /// A sentence for each stage that fails.
    pub(crate) fn sentences(&self) -> Vec<String> {
        let states = self.lock();
        let failing = states.iter().filter_map(|(stage, state)| Some((stage, state.error.as_ref()?)));
        failing.map(|(stage, error)| sentence(*stage, error)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Stage, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sentence(stage: Stage, error: &dyn std::fmt::Display) -> String {
    let (what, done) = stage.words();
    format!("{what} are not {done}: {error}")
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
        assert!(troubles.is_failing(Stage::Packets) && !troubles.is_failing(Stage::Open));
        troubles.works(Stage::Packets, 9, 10 + CALM);
        assert!(troubles.sentences().is_empty() && !troubles.is_failing(Stage::Packets));
    }
}
