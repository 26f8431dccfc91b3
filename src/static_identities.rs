//! The static file while wiretag runs: who is told when it changes, and what that means for the timeline.
//!
//! What the file does not say any more ends when the change is seen, what is new begins then. A file with a mistake changes
//! nothing, at the start either: the names of before hold, and the source is `absent`, with the reason, until the file is right again.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use wiretag_capture::ring::links;
use wiretag_enrich::event::Snapshot;
use wiretag_enrich::static_file::{StaticError, StaticFile, Watcher};
use wiretag_enrich::timeline::{Lookup, Timeline};
use wiretag_enrich::{Identity, IdentityEvent, Interval, Key, SourceStatus};

/// How often the file is read.
const PERIOD: Duration = Duration::from_secs(2);
/// Changes on their way to the tagger.
const QUEUE: usize = 4;

/// The name of the source.
fn source() -> Arc<str> {
    "static".into()
}

/// Reads the file again and again, for as long as somebody wants to know.
pub(crate) async fn follow(
    mut watcher: Watcher,
    changes: mpsc::Sender<StaticFile>,
    status: watch::Sender<SourceStatus>,
) {
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        // The file may be on a slow disk.
        let look = tokio::task::spawn_blocking(move || (watcher.look(crate::host::now()), watcher)).await;
        let Ok((found, back)) = look else { return };
        watcher = back;
        let Some(found) = found else { continue };
        status.send_replace(state_of(&found));
        match found {
            Ok(file) => {
                tracing::info!("the identity file has changed, and was read again");
                if changes.send(file).await.is_err() {
                    return;
                }
            }
            Err(error) => warn_of(&error),
        }
    }
}

fn warn_of(error: &StaticError) {
    tracing::warn!("{error}; until it is right the names of before hold");
}

fn state_of(found: &Result<StaticFile, StaticError>) -> SourceStatus {
    match found {
        Ok(_) => SourceStatus::Connected,
        Err(error) => SourceStatus::Absent { reason: format!("{error}; the names of before hold") },
    }
}

/// Puts the intervals of a static file into the timeline.
pub(crate) fn apply_static(timeline: &mut Timeline, file: &StaticFile) {
    for interval in &file.intervals {
        timeline.apply(&IdentityEvent::Learned(interval.clone()));
    }
}

/// A file that is watched, and how the source is doing after the first look.
pub(crate) type Watched = (Watcher, SourceStatus);

/// Puts the file into the timeline that has what an earlier run knew: what it does not say any more ends now.
pub(crate) fn begin(path: Option<&Path>, timeline: &mut Timeline) -> (Option<StaticFile>, Option<Watched>) {
    let now = crate::host::now();
    let Some(path) = path else {
        timeline.apply(&snapshot(Vec::new(), now));
        return (None, None);
    };
    let (found, watcher) = Watcher::open(path, now);
    let watched = Some((watcher, state_of(&found)));
    match found {
        Ok(file) => {
            timeline.apply(&snapshot(file.intervals.clone(), now));
            (Some(file), watched)
        }
        Err(error) => {
            warn_of(&error);
            (None, watched)
        }
    }
}

fn snapshot(present: Vec<Interval>, at: i64) -> IdentityEvent {
    IdentityEvent::Reconciled(Snapshot {
        source: source(),
        present,
        stopped: Vec::new(),
        unclear: Vec::new(),
        heard: Some(at),
        at,
    })
}

/// Identities by name of their interface in wiretag's own namespace.
pub(crate) struct StaticInterfaces {
    by_name: HashMap<String, Arc<Identity>>,
    boot: Arc<str>,
    /// Later versions of the file.
    pub(crate) changes: mpsc::Receiver<StaticFile>,
}

impl StaticInterfaces {
    /// As the file is now; and where to tell of changes.
    pub(crate) fn new(file: Option<StaticFile>, boot: Arc<str>) -> (Self, mpsc::Sender<StaticFile>) {
        let (sender, changes) = mpsc::channel(QUEUE);
        let by_name = file.map(|file| file.interfaces.into_iter().collect()).unwrap_or_default();
        (Self { by_name, boot, changes }, sender)
    }

    /// An interface is there; what that tells if it was not known.
    pub(crate) fn link(&self, (index, name): (u32, &str), timeline: &Timeline, now: i64) -> Option<IdentityEvent> {
        let identity = self.by_name.get(name)?;
        // Each worker tells of each link.
        let known = timeline.interface(index, 0, &self.boot, now);
        let is_known = matches!(known, Lookup::One(known, _) if known == identity);
        (!is_known).then(|| IdentityEvent::Learned(self.interval(index, identity, now)))
    }

    /// The file is another now: all that holds.
    pub(crate) fn change(&mut self, file: StaticFile, now: i64) -> IdentityEvent {
        self.by_name = file.interfaces.into_iter().collect();
        let mut present = file.intervals;
        if !self.by_name.is_empty() {
            match links::list() {
                Ok(links) => present.extend(links.iter().filter_map(|link| {
                    let identity = self.by_name.get(link.name.as_str())?;
                    Some(self.interval(link.index, identity, now))
                })),
                Err(error) => tracing::warn!("interfaces of the identity file are named when they come again: {error}"),
            }
        }
        for interval in &mut present {
            interval.valid_from = now;
        }
        snapshot(present, now)
    }

    fn interval(&self, index: u32, identity: &Arc<Identity>, now: i64) -> Interval {
        Interval {
            key: Key::Interface { index, netns: 0, boot: self.boot.clone() },
            identity: identity.clone(),
            valid_from: now,
            valid_to: None,
            learned_at: now,
            source: source(),
        }
    }
}
