//! What identity sources say.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use crate::identity::{Identity, Interval, Member};

/// One fact, with the time at which it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityEvent {
    /// A key means an identity from a time on. If the same source told that before and it lasts, nothing changes but the
    /// attributes; with `valid_to` that source says when it ended.
    Learned(Interval),
    /// What a source knows of an identity, without a key. Each source fills in what it knows: the answer is all of it.
    Described {
        /// Whose, and the attributes that hold from then on.
        identity: Arc<Identity>,
        /// Since when.
        from: i64,
        /// When that was learned.
        learned_at: i64,
        /// The source.
        source: Arc<str>,
    },
    /// Another name for an identity, as the id of a pod's sandbox or of one of its containers is for the pod's UID:
    /// what was and will be told of `alias` is told of `identity`.
    Same {
        /// The other name.
        alias: Arc<str>,
        /// The identity.
        identity: Arc<str>,
        /// The container of the pod, if the alias is one.
        member: Option<Member>,
        /// When that was learned.
        learned_at: i64,
        /// The source.
        source: Arc<str>,
    },
    /// The host translates the addresses of a connection.
    Translated(Translation),
    /// A socket that is connected, or bound for a moment, belongs to an identity.
    Connected(Connection),
    /// An identity ended: all its keys are free again. Of another name ([`Self::Same`]) it ends what was told of that name: the
    /// end of a container ends its sockets, not its pod.
    Ended {
        /// Whose.
        identity: Arc<str>,
        /// When it ended.
        at: i64,
        /// When that was learned.
        learned_at: i64,
        /// The source.
        source: Arc<str>,
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
        /// The source.
        source: Arc<str>,
    },
    /// An interface belongs to a network, in which addresses are unique.
    Network {
        /// Interface index; 0: none in particular, the host reaches the network.
        index: u32,
        /// Network namespace of the interface; 0: wiretag's own.
        netns: u64,
        /// The network; empty: it left the one where it was.
        network: Arc<str>,
        /// Since when.
        at: i64,
    },
    /// A source has told all that holds.
    Reconciled(Snapshot),
    /// A source that is told of things over a network, and so may be behind, is in touch: what it left open lasts.
    Heard {
        /// The source.
        source: Arc<str>,
        /// Until when.
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
        /// When.
        at: i64,
    },
}

/// Network address translation of one connection, as the kernel's connection tracking tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// IP protocol.
    pub protocol: u8,
    /// Source and destination of the packets of the opener, as they come in.
    pub original: [SocketAddr; 2],
    /// Source and destination of the packets in reply, as they come in: without a translation `original` reversed.
    pub reply: [SocketAddr; 2],
    /// Since when.
    pub from: i64,
    /// First nanosecond after; `None` while it lasts.
    pub to: Option<i64>,
}

/// A socket with both its ends: whose connection it is where an address is shared. One of many that come and go, it is kept
/// for as long as its rows need it and no longer, unlike the sockets that listen ([`crate::Key::Socket`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Network namespace (inode; 0: wiretag's own).
    pub netns: u64,
    /// IP protocol.
    pub protocol: u8,
    /// Its own address; `None`: all.
    pub ip: Option<IpAddr>,
    /// Its own port.
    pub port: u16,
    /// The other end; `None`: it is not connected.
    pub peer: Option<SocketAddr>,
    /// Whose it is.
    pub identity: Arc<str>,
    /// Since when.
    pub from: i64,
    /// First nanosecond after; `None` while it lasts.
    pub to: Option<i64>,
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
    /// Identities of which the source could not learn what holds: what was known of them stays.
    pub unclear: Vec<Arc<str>>,
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
