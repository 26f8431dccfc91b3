//! Sessions of the browser, whose they are, and the limit on failed logins. Pure: time is an argument.
//!
//! Only hashes of session ids are kept. Each who has so many sessions: a new one takes the place of their own that ends first, and of nobody
//! else's. Those who have tokens are few, so the table is bounded.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::caller::Who;

/// Hash of a secret.
pub(crate) type Hash = [u8; 32];

/// How long a session lasts.
pub(crate) const SESSION_SECONDS: i64 = 12 * 3600;
const SECOND: i64 = 1_000_000_000;
/// Sessions of one who at the same time.
const MOST_EACH: usize = 256;
/// Failed logins that are allowed at once; one more for each [`REFILL`].
const FAILURES: i64 = 10;
const REFILL: i64 = 6 * SECOND;

/// SHA-256.
pub(crate) fn hash(secret: &str) -> Hash {
    Sha256::digest(secret.as_bytes()).into()
}

/// Equal or not, in a time that does not depend on where they differ.
pub(crate) fn same(left: &Hash, right: &Hash) -> bool {
    let difference = left.iter().zip(right).fold(0, |all, (left, right)| all | (left ^ right));
    std::hint::black_box(difference) == 0
}

/// Who is logged in.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: HashMap<Hash, (i64, Who)>,
}

impl Sessions {
    /// Begins the session with this id.
    pub(crate) fn begin(&mut self, id: &str, who: Who, now: i64) {
        self.open.retain(|_, (end, _)| *end > now);
        let own = || self.open.iter().filter(|(_, (_, other))| other.reader() == who.reader());
        if own().count() >= MOST_EACH
            && let Some(first) = own().min_by_key(|(_, (end, _))| *end).map(|(id, _)| *id)
        {
            self.open.remove(&first);
        }
        self.open.insert(hash(id), (now.saturating_add(SESSION_SECONDS * SECOND), who));
    }

    /// Whose session it is, while it lasts.
    pub(crate) fn whose(&self, id: &str, now: i64) -> Option<Who> {
        self.open.get(&hash(id)).filter(|(end, _)| *end > now).map(|(_, who)| who.clone())
    }

    /// Ends it.
    pub(crate) fn end(&mut self, id: &str) {
        self.open.remove(&hash(id));
    }
}

/// A bucket of failed attempts that drains with time.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    /// When the bucket is empty again.
    empty_at: i64,
}

impl Failures {
    /// Whether one more attempt may be made now.
    pub(crate) fn allow(&self, now: i64) -> bool {
        self.empty_at.saturating_sub(now) <= (FAILURES - 1) * REFILL
    }

    /// Counts a failed attempt.
    pub(crate) fn add(&mut self, now: i64) {
        self.empty_at = self.empty_at.max(now).saturating_add(REFILL);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::caller::Named;

    #[test]
    fn a_session_lasts_twelve_hours_or_until_its_end() {
        let mut sessions = Sessions::default();
        sessions.begin("a", Who::Owner, 0);
        sessions.begin("b", Who::Owner, 0);
        assert!(sessions.whose("a", SESSION_SECONDS * SECOND - 1).is_some());
        assert!(sessions.whose("a", SESSION_SECONDS * SECOND).is_none());
        sessions.end("b");
        assert!(sessions.whose("b", 1).is_none());
        assert!(sessions.whose("c", 1).is_none());
    }

    #[test]
    fn each_has_so_many_sessions_and_takes_nobody_elses() {
        let reader = |name: &str| Who::Reader(Arc::new(Named { name: name.into(), rows: None }));
        let mut sessions = Sessions::default();
        sessions.begin("owner", Who::Owner, 0);
        sessions.begin("other", reader("other"), 0);
        for number in 0..=MOST_EACH {
            sessions.begin(&number.to_string(), reader("one"), number as i64);
        }
        assert_eq!(sessions.open.len(), 2 + MOST_EACH);
        assert!(sessions.whose("0", 2000).is_none(), "the oldest of their own goes");
        for id in ["1", "owner", "other"] {
            assert!(sessions.whose(id, 2000).is_some(), "{id}");
        }
    }

    #[test]
    fn failed_logins_are_limited_and_forgiven() {
        let mut failures = Failures::default();
        for _ in 0..FAILURES {
            assert!(failures.allow(1));
            failures.add(1);
        }
        assert!(!failures.allow(1));
        assert!(failures.allow(1 + REFILL));
    }

    #[test]
    fn hashes_are_compared_whole() {
        assert!(same(&hash("a"), &hash("a")));
        assert!(!same(&hash("a"), &hash("b")));
    }
}
