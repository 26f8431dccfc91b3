//! How an identity source is doing.

use std::fmt;

use tokio::sync::watch;

/// State of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceStatus {
    /// The configuration says that it is not wanted.
    Off,
    /// Not tried yet.
    Starting,
    /// It is heard.
    Connected,
    /// Part of it is heard.
    Partial {
        /// What is not, and why.
        missing: String,
    },
    /// It would be heard; nothing has come yet, or nobody is there who would tell.
    Waiting {
        /// For what.
        reason: String,
    },
    /// Not heard, though it was or somebody is there; tried again every few seconds.
    Absent {
        /// Why.
        reason: String,
    },
    /// It cannot be used as it is configured: never tried.
    Unusable {
        /// Why.
        reason: String,
    },
}

impl SourceStatus {
    /// Whether it is heard now.
    pub fn is_up(&self) -> bool {
        match self {
            Self::Connected | Self::Partial { .. } => true,
            Self::Off | Self::Starting | Self::Waiting { .. } | Self::Absent { .. } | Self::Unusable { .. } => false,
        }
    }
}

impl fmt::Display for SourceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Starting => f.write_str("connecting"),
            Self::Connected => f.write_str("connected"),
            Self::Partial { missing } => write!(f, "connected, but without {missing}"),
            Self::Waiting { reason } => write!(f, "waiting ({reason})"),
            Self::Absent { reason } => write!(f, "absent, tried again every few seconds ({reason})"),
            Self::Unusable { reason } => write!(f, "not used: {reason}"),
        }
    }
}

/// Where a source says how it is doing. The log has one line when it is not heard any more, and one when it is heard again, however often it
/// is tried in between.
#[derive(Debug)]
pub(crate) struct Reporter {
    name: &'static str,
    status: watch::Sender<SourceStatus>,
}

impl Reporter {
    /// Of the source with this name, which has not been tried yet.
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, status: watch::Sender::new(SourceStatus::Starting) }
    }

    /// The state, as it changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<SourceStatus> {
        self.status.subscribe()
    }

    /// This is the state now.
    pub(crate) fn report(&self, status: SourceStatus) {
        self.status.send_if_modified(|old| {
            if *old == status {
                return false;
            }
            tracing::debug!("{}: {status}", self.name);
            if let Some(line) = line(old, &status) {
                tracing::warn!("{}: {line}", self.name);
            }
            *old = status;
            true
        });
    }
}

/// What the log says of a change.
fn line(before: &SourceStatus, after: &SourceStatus) -> Option<String> {
    let was_absent = matches!(before, SourceStatus::Absent { .. });
    match after {
        SourceStatus::Absent { reason } => (!was_absent).then(|| format!("it is not heard: {reason}")),
        SourceStatus::Connected | SourceStatus::Partial { .. } | SourceStatus::Waiting { .. } => {
            was_absent.then(|| "it is heard again".to_owned())
        }
        SourceStatus::Off | SourceStatus::Starting | SourceStatus::Unusable { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_a_line_when_it_begins_and_one_when_it_is_over() {
        let absent = |reason: &str| SourceStatus::Absent { reason: reason.to_owned() };
        let states = [
            SourceStatus::Starting,
            SourceStatus::Waiting { reason: "nothing is there yet".to_owned() },
            SourceStatus::Connected,
            absent("the event stream ended"),
            absent("connection refused"),
            SourceStatus::Connected,
            SourceStatus::Connected,
            absent("no answer"),
            SourceStatus::Partial { missing: "a part".to_owned() },
        ];
        let lines: Vec<String> = states.windows(2).filter_map(|pair| line(&pair[0], &pair[1])).collect();
        let (begins, over) = ("it is not heard: the event stream ended", "it is heard again");
        assert_eq!(lines, [begins, over, "it is not heard: no answer", over]);
    }
}
