//! What can go wrong with live capture.

use std::io;

/// Each says what was attempted, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// No right to open packet sockets.
    #[error("no permission to capture: {source}; hint: run as root, or grant cap_net_raw and cap_net_admin")]
    Permission {
        /// Reason.
        source: io::Error,
    },
    /// A system call failed.
    #[error("cannot {what}: {source}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// Reason.
        source: io::Error,
    },
    /// More interfaces than a socket filter can hold.
    #[error(
        "{count} interfaces are more than the {limit} of one socket filter; hint: capture on bridges instead of veths"
    )]
    TooManyInterfaces {
        /// Wanted.
        count: usize,
        /// Possible.
        limit: usize,
    },
    /// A network namespace cannot be entered.
    #[error("cannot enter the network namespace `{path}`: {source}")]
    Namespace {
        /// Its path.
        path: String,
        /// Reason.
        source: io::Error,
    },
}

impl RingError {
    /// The last error of the calling thread.
    pub(super) fn last(what: &'static str) -> Self {
        let source = io::Error::last_os_error();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Permission { source },
            _ => Self::System { what, source },
        }
    }
}
