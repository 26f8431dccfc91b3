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
    /// An interface belongs to a network, in which addresses are unique.
    Network {
        /// Interface index.
        index: u32,
        /// Network namespace of the interface; 0: wiretag's own.
        netns: u64,
        /// The network.
        network: Arc<str>,
    },
    /// A source has told all that it knows: what it did not name has ended.
    Reconciled {
        /// The source.
        source: Arc<str>,
        /// Identities that live.
        present: Vec<Arc<str>>,
        /// When it looked.
        at: i64,
    },
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
    },
}

/// An address that was taken apart from its prefix length.
pub(crate) fn address(text: Option<&str>) -> Option<IpAddr> {
    text?.split('/').next()?.parse().ok()
}
