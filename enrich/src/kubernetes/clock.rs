//! Times that other machines tell: whole seconds, cut off, of a clock that is not this host's.
//!
//! What is known of another clock: a time that it gave is over when it is received. So `received - told` is never less than
//! how far that clock is behind this one (negative: ahead), and the least of many of them comes close to it. Of this the
//! two bounds are made that identities need: a beginning is late rather than early, an end early rather than late.
//!
//! Until a clock has been heard it is taken to be at most [`UNKNOWN`] behind, and not ahead. What was heard is forgotten after
//! ten to twenty minutes, because clocks are set.

use std::collections::HashMap;
use std::sync::Arc;

/// How far a clock of which nothing is known may be behind, ns. Clusters whose clocks differ by more do not work.
pub(super) const UNKNOWN: i64 = 60_000_000_000;
/// Resolution of what is told.
const SECOND: i64 = 1_000_000_000;
/// How long a measurement counts, before it is the previous one.
const PERIOD: i64 = 600_000_000_000;

#[derive(Debug, Clone, Copy)]
struct Clock {
    since: i64,
    least: i64,
    previous: i64,
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Clocks {
    own: Arc<str>,
    clocks: HashMap<Arc<str>, Clock>,
}

impl Clocks {
    /// `own` is the node whose clock is this host's.
    pub(super) fn new(own: Arc<str>) -> Self {
        Self { own, clocks: HashMap::new() }
    }

    /// A time of `node` was received as news.
    pub(super) fn heard(&mut self, node: &Arc<str>, told: i64, at: i64) {
        if *node == self.own {
            return;
        }
        let behind = at.saturating_sub(told);
        let fresh = Clock { since: at, least: UNKNOWN, previous: UNKNOWN };
        let clock = self.clocks.entry(node.clone()).or_insert(fresh);
        if at.saturating_sub(clock.since) > PERIOD {
            *clock = Clock { since: at, least: UNKNOWN, previous: clock.least };
        }
        clock.least = clock.least.min(behind);
    }

    /// At most so far is the clock of `node` behind.
    fn behind(&self, node: &str) -> i64 {
        if *node == *self.own {
            return 0;
        }
        self.clocks.get(node).map_or(UNKNOWN, |clock| clock.least.min(clock.previous))
    }

    /// What `node` calls `told` has surely happened by this time of our clock.
    pub(super) fn by(&self, node: &str, told: i64) -> i64 {
        told.saturating_add(SECOND).saturating_add(self.behind(node))
    }

    /// What `node` calls `told` has not happened before this time of our clock, as far as is known.
    pub(super) fn not_before(&self, node: &str, told: i64) -> i64 {
        told.saturating_add(self.behind(node).min(0))
    }

    /// A node is gone.
    pub(super) fn forget(&mut self, node: &str) {
        self.clocks.remove(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = SECOND;

    #[test]
    fn a_clock_that_was_never_heard_is_trusted_little() {
        let clocks = Clocks::new("here".into());
        assert_eq!(clocks.by("there", 100 * S), 161 * S);
        assert_eq!(clocks.not_before("there", 100 * S), 100 * S);
        assert_eq!((clocks.by("here", 100 * S), clocks.not_before("here", 100 * S)), (101 * S, 100 * S));
    }

    #[test]
    fn a_clock_that_is_ahead_is_found_out() {
        let mut clocks = Clocks::new("here".into());
        let there: Arc<str> = "there".into();
        // Two seconds ahead; news takes between 0.2 and 1.5 seconds.
        for (told, at) in [(1002, 1_001_500), (1012, 1_010_900), (1022, 1_020_200)] {
            clocks.heard(&there, told * S, at * 1_000_000);
        }
        assert_eq!(clocks.not_before("there", 1032 * S), 1_030_200 * 1_000_000);
        assert_eq!(clocks.by("there", 1032 * S), 1_031_200 * 1_000_000);
    }

    #[test]
    fn a_measurement_is_forgotten_because_clocks_are_set() {
        let mut clocks = Clocks::new("here".into());
        let there: Arc<str> = "there".into();
        clocks.heard(&there, 1010 * S, 1000 * S);
        clocks.heard(&there, 2000 * S, 2001 * S);
        assert_eq!(clocks.not_before("there", 0), -10 * S, "still the previous one");
        clocks.heard(&there, 3000 * S, 3001 * S);
        assert_eq!(clocks.not_before("there", 0), 0);
    }
}
