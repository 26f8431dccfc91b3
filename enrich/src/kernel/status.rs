//! State of the kernel source, in words.

use std::fmt;

use super::KernelConfig;

/// State of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartStatus {
    /// Not wanted.
    Off,
    /// Not tried yet.
    Starting,
    /// It tells.
    On,
    /// The kernel refuses; tried again now and then.
    Absent {
        /// Why, and what helps.
        reason: String,
    },
}

impl PartStatus {
    pub(super) fn absent(error: &std::io::Error) -> Self {
        let hint = match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => "; hint: it needs root or CAP_NET_ADMIN",
            Some(libc::EPROTONOSUPPORT | libc::EINVAL | libc::ENOENT) => {
                "; hint: the kernel has no module for it (`modprobe nf_conntrack_netlink inet_diag tcp_diag udp_diag`)"
            }
            _ => "",
        };
        Self::Absent { reason: format!("{error}{hint}") }
    }

    pub(super) fn of<T>(opened: &std::io::Result<T>) -> Self {
        opened.as_ref().map_or_else(Self::absent, |_| Self::On)
    }
}

impl fmt::Display for PartStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Starting => f.write_str("starting"),
            Self::On => f.write_str("on"),
            Self::Absent { reason } => write!(f, "absent ({reason})"),
        }
    }
}

/// State of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelStatus {
    /// Sockets.
    pub sockets: PartStatus,
    /// Connection tracking.
    pub conntrack: PartStatus,
}

impl KernelStatus {
    pub(super) fn starting(config: &KernelConfig) -> Self {
        let status = |wanted| if wanted { PartStatus::Starting } else { PartStatus::Off };
        Self { sockets: status(config.sockets), conntrack: status(config.conntrack) }
    }

    /// Whether each part has been tried.
    pub fn is_settled(&self) -> bool {
        ![&self.sockets, &self.conntrack].contains(&&PartStatus::Starting)
    }
}

impl fmt::Display for KernelStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sockets {}, connection tracking {}", self.sockets, self.conntrack)
    }
}
