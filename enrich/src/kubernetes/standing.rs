//! How the watches are doing: the source's status, and what the log says of it.
//!
//! The log has one line when the API server is lost and one when it is heard again, however many watches there are and however often each
//! tries; and one of each resource that is not allowed or not there. A watch that broke off and works at the next attempt is not worth a line.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::client::Failure;
use super::state::Kind;
use crate::status::SourceStatus;

/// Objects of a resource that are not understood and are counted, at most.
const MOST_UNREAD: usize = 1000;
/// A resource that failed so often is not waited for.
const GIVEN_UP: u32 = 3;
/// A resource that failed so often is worth a line.
const TOLD: u32 = 2;

/// State of a watch.
#[derive(Debug, Default)]
enum State {
    #[default]
    Starting,
    Works,
    /// It has failed so often in a row, and why it did last.
    Fails(u32, String),
    /// The server does not allow it, or does not have it.
    Refused(String),
}

/// State of one kind of resource.
#[derive(Debug, Default)]
struct Standing {
    state: State,
    /// It has been listed, or is not waited for.
    settled: bool,
    /// The log says that it is refused, and it has not worked since.
    told: bool,
    /// Names of objects that are there but not understood, by UID; of very many not all.
    unread: BTreeMap<Arc<str>, String>,
}

impl Standing {
    fn why(&self) -> Option<&str> {
        match &self.state {
            State::Starting | State::Works => None,
            State::Fails(_, why) | State::Refused(why) => Some(why),
        }
    }

    fn works(&self) -> bool {
        matches!(self.state, State::Works)
    }

    /// It is not waited for.
    fn is_given_up(&self) -> bool {
        match self.state {
            State::Starting | State::Works => false,
            State::Fails(times, _) => times >= GIVEN_UP,
            State::Refused(_) => true,
        }
    }

    /// What is missing of it, and why.
    fn missing(&self, name: &str) -> Option<String> {
        if let Some(why) = self.why() {
            return Some(format!("{name} ({why})"));
        }
        let first = self.unread.values().next()?;
        Some(format!("{} of the {name} (not understood: {first})", self.unread.len()))
    }
}

/// A line for the log, without the source's name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Something is not heard from now on.
    Lost(String),
    /// All is heard again, or what may be.
    Again,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Standings {
    own: BTreeMap<Kind, Standing>,
    /// The log says that the API server is lost.
    is_lost: bool,
}

impl Standings {
    pub(super) fn new(kinds: impl Iterator<Item = Kind>) -> Self {
        Self { own: kinds.map(|kind| (kind, Standing::default())).collect(), is_lost: false }
    }

    fn of(&mut self, kind: Kind) -> &mut Standing {
        self.own.entry(kind).or_default()
    }

    /// It is watched.
    pub(super) fn works(&mut self, kind: Kind) {
        let standing = self.of(kind);
        (standing.state, standing.told) = (State::Works, false);
    }

    /// It is not watched, and is tried again.
    pub(super) fn failed(&mut self, kind: Kind, failure: &Failure) {
        let standing = self.of(kind);
        standing.state = match (failure, &standing.state) {
            (Failure::Forbidden(_) | Failure::NotFound, _) => State::Refused(failure.to_string()),
            (_, State::Fails(times, _)) => State::Fails(times + 1, failure.to_string()),
            (Failure::Unauthorized | Failure::Gone | Failure::Brief | Failure::Unreached(_) | Failure::Other(_), _) => {
                State::Fails(1, failure.to_string())
            }
        };
        standing.settled |= standing.is_given_up();
    }

    /// What the log does not say yet.
    pub(super) fn lines(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        let (mut fails, mut lost) = (false, None);
        for (kind, own) in &mut self.own {
            match &own.state {
                State::Starting | State::Works => {}
                State::Fails(times, why) => {
                    fails = true;
                    lost = lost.or((*times >= TOLD).then_some(why));
                }
                State::Refused(why) => {
                    if !std::mem::replace(&mut own.told, true) {
                        let hint = "`wiretag doctor` says what is missing";
                        lines.push(Line::Lost(format!("{} are not heard: {why}; hint: {hint}", kind.name())));
                    }
                }
            }
        }
        if self.is_lost {
            self.is_lost = fails;
            lines.extend((!fails).then_some(Line::Again));
        } else if let Some(why) = lost {
            self.is_lost = true;
            lines.push(Line::Lost(format!("the API server is not heard: {why}")));
        }
        lines
    }

    /// All objects of it were told: these are all.
    pub(super) fn listed(&mut self, kind: Kind, uids: &HashSet<Arc<str>>) {
        let standing = self.of(kind);
        standing.settled = true;
        standing.unread.retain(|uid, _| uids.contains(uid));
    }

    /// An object of it cannot be understood; whether that is news.
    pub(super) fn unread(&mut self, kind: Kind, uid: &Arc<str>, name: &str) -> bool {
        let unread = &mut self.of(kind).unread;
        let is_news = unread.len() < MOST_UNREAD && !unread.contains_key(uid);
        if is_news {
            unread.insert(uid.clone(), name.to_owned());
        }
        is_news
    }

    /// It can be understood again, or is gone; whether that is news.
    pub(super) fn understood(&mut self, kind: Kind, uid: &Arc<str>) -> bool {
        self.own.get_mut(&kind).is_some_and(|own| own.unread.remove(uid).is_some())
    }

    /// Whether an object with this name is there and not understood.
    pub(super) fn has_unread(&self, kind: Kind, name: &str) -> bool {
        self.own.get(&kind).is_some_and(|own| own.unread.values().any(|own| own == name))
    }

    /// Whether each is watched or not waited for.
    pub(super) fn is_steady(&self) -> bool {
        self.own.values().all(|own| own.works() || own.is_given_up())
    }

    /// Whether each of these was listed once, or is not waited for.
    pub(super) fn has_all(&self, wanted: impl Fn(Kind) -> bool) -> bool {
        self.own.iter().filter(|(kind, _)| wanted(**kind)).all(|(_, own)| own.settled)
    }

    pub(super) fn status(&self) -> SourceStatus {
        let missing: Vec<String> = self.own.iter().filter_map(|(kind, own)| own.missing(kind.name())).collect();
        let works = self.own.values().filter(|own| own.works()).count();
        match (works, self.own.values().find_map(Standing::why)) {
            (0, None) => SourceStatus::Starting,
            (0, Some(reason)) => SourceStatus::Absent { reason: reason.to_owned() },
            (_, Some(_)) => SourceStatus::Partial { missing: missing.join(", ") },
            (works, None) if works < self.own.len() => SourceStatus::Starting,
            (_, None) if !missing.is_empty() => SourceStatus::Partial { missing: missing.join(", ") },
            (_, None) => SourceStatus::Connected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standings() -> Standings {
        Standings::new([Kind::Nodes, Kind::Services, Kind::Pods].into_iter())
    }

    fn failed(all: &mut Standings, kind: Kind, failure: &Failure) -> Vec<Line> {
        all.failed(kind, failure);
        all.lines()
    }

    fn works(all: &mut Standings, kind: Kind) -> Vec<Line> {
        all.works(kind);
        all.lines()
    }

    fn away() -> Failure {
        Failure::Other("connection refused".into())
    }

    /// One line, of something lost, with these words.
    #[track_caller]
    fn assert_lost(lines: &[Line], words: &str) {
        assert!(matches!(lines, [Line::Lost(text)] if text.contains(words)), "{lines:?}");
    }

    #[test]
    fn a_server_that_is_lost_is_told_once_and_so_is_its_return() {
        let mut all = standings();
        for kind in [Kind::Nodes, Kind::Services, Kind::Pods] {
            assert_eq!(works(&mut all, kind), []);
        }
        assert_eq!(all.status(), SourceStatus::Connected);
        // The first failures of all are not told: perhaps the next attempt works.
        assert_eq!(failed(&mut all, Kind::Nodes, &away()), []);
        assert_eq!(failed(&mut all, Kind::Pods, &away()), []);
        assert_lost(&failed(&mut all, Kind::Pods, &away()), "the API server is not heard: connection refused");
        for kind in [Kind::Nodes, Kind::Services, Kind::Services, Kind::Pods, Kind::Pods] {
            assert_eq!(failed(&mut all, kind, &away()), []);
        }
        assert!(matches!(all.status(), SourceStatus::Absent { .. }));
        assert_eq!(works(&mut all, Kind::Pods), []);
        assert_eq!(works(&mut all, Kind::Nodes), []);
        assert_eq!(works(&mut all, Kind::Services), [Line::Again]);
        assert_eq!(works(&mut all, Kind::Services), []);
        assert_eq!(failed(&mut all, Kind::Pods, &away()), []);
        assert_lost(&failed(&mut all, Kind::Pods, &away()), "not heard");
    }

    #[test]
    fn a_watch_that_breaks_off_and_works_again_is_not_told() {
        let mut all = standings();
        for _ in 0..3 {
            assert_eq!(failed(&mut all, Kind::Pods, &away()), []);
            assert_eq!(works(&mut all, Kind::Pods), []);
        }
    }

    #[test]
    fn what_is_not_allowed_is_told_once_and_hides_no_other_trouble() {
        let mut all = standings();
        let forbidden = Failure::Forbidden("services is forbidden".into());
        assert_lost(&failed(&mut all, Kind::Services, &forbidden), "services are not heard: not allowed");
        assert_eq!(failed(&mut all, Kind::Services, &forbidden), []);
        for kind in [Kind::Nodes, Kind::Pods] {
            assert_eq!(works(&mut all, kind), []);
        }
        // The server goes away, for this one too.
        assert_eq!(failed(&mut all, Kind::Services, &away()), []);
        assert_eq!(failed(&mut all, Kind::Pods, &away()), []);
        assert_lost(&failed(&mut all, Kind::Pods, &away()), "the API server");
        assert_eq!(works(&mut all, Kind::Pods), []);
        assert_eq!(failed(&mut all, Kind::Services, &forbidden), [Line::Again]);
        all.works(Kind::Services);
        assert_lost(&failed(&mut all, Kind::Services, &forbidden), "services are not heard");
    }
}
