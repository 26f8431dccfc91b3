//! What identity sources say.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::identity::{Identity, Interval};

/// One fact, with the time at which it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityEvent {
    /// A key means an identity from a time on.
    Learned(Interval),
    /// An identity ended: all its keys are free again.
    Ended {
        /// Whose.
        identity: Arc<str>,
        /// When it ended.
        at: i64,
        /// When that was learned.
        learned_at: i64,
    },
    /// An identity left one network: the keys that it had there are free again.
    Parted {
        /// Whose.
        identity: Arc<str>,
        /// The network.
        network: Arc<str>,
        /// When it left.
        at: i64,
        /// When that was learned.
        learned_at: i64,
    },
    /// An interface belongs to a network, in which addresses are unique.
    Network {
        /// Interface index.
        index: u32,
        /// Network namespace of the interface; 0: wiretag's own.
        netns: u64,
        /// The network.
        network: Arc<str>,
        /// Since when.
        at: i64,
    },
    /// A source has told all that holds.
    Reconciled(Snapshot),
    /// A container whose traffic passes no interface of the host: it is to be captured inside.
    Namespace {
        /// Whose.
        identity: Arc<Identity>,
        /// Path to the namespace.
        netns: PathBuf,
        /// Its inode.
        inode: u64,
        /// Interfaces to capture on: index and name.
        interfaces: Vec<(u32, String)>,
    },
    /// Such a namespace is gone.
    NamespaceGone {
        /// Its inode.
        inode: u64,
        /// When.
        at: i64,
    },
}

/// All that holds, as a source sees it: what it does not name has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The source.
    pub source: Arc<str>,
    /// What holds now. An interval whose beginning is not known exactly begins late rather than early.
    pub present: Vec<Interval>,
    /// Identities that are known to have ended, and when.
    pub stopped: Vec<Stopped>,
    /// Until when the source told every change; `None`: not known, each interval is sure only until it was learned.
    pub heard: Option<i64>,
    /// When it looked.
    pub at: i64,
}

/// The last run of an identity that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// Whose.
    pub identity: Arc<str>,
    /// Beginning of the run.
    pub from: i64,
    /// Its end.
    pub to: i64,
}

/// An address that was taken apart from its prefix length.
pub(crate) fn address(text: Option<&str>) -> Option<IpAddr> {
    text?.split('/').next()?.parse().ok()
}
