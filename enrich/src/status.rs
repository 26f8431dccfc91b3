//! How an identity source is doing.

use std::fmt;

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
    /// It would be heard; nothing has come yet.
    Waiting {
        /// For what.
        reason: String,
    },
    /// Not there; tried again every few seconds.
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
