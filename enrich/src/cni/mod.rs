//! Identities from CNI: the plugin that a runtime calls for each attachment ([`plugin`]), and the source that receives
//! its records ([`CniSource`]).
//!
//! **When an address is whose.** From the moment that the plugin is called with `ADD`, after the plugins that made
//! interface and address and before any process of the container runs, to the moment that it is called with `DEL`,
//! before they take the address back (a chain is undone from its end). Both are times of this host's clock.
//!
//! **Delivery.** A record is a datagram, or a file in the spool if nobody listens; the spool is emptied at the start and
//! every second. So what happened while the agent was down is told with its own time.
//!
//! **Without a `DEL`** (a reboot, a namespace that was removed by hand, the plugin taken out of the chain) an attachment
//! has ended when its interface is not there any more with the same peer, or its namespace's inode is another's. That is
//! looked at when the source starts and every [`LOOK`]; it ended at some time since the last look, and counts as ended
//! then. A `GC` ends what it does not name.
//!
//! **Networks.** A pod's `eth0` is in the cluster's network; its further attachments, and those of containers that are no
//! pods, are in `CLUSTER/NETWORK`. Traffic of an interface that is no end of a veth of this host (macvlan, a moved
//! device) is captured inside the container's namespace.

mod attachments;
mod inbox;
mod journal;
pub mod plugin;
mod record;
mod spool;

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use wiretag_capture::ring::links::{self, Link, LinkKind};
use wiretag_capture::ring::namespace_inode;

use crate::event::IdentityEvent;
use crate::status::{Reporter, SourceStatus};
use attachments::{Attachments, Place};
use inbox::Inbox;
use journal::Journal;
use record::Record;

pub use record::{socket_path, spool_path};

/// How often the spool is looked into.
const SPOOL: Duration = Duration::from_secs(1);
/// How often attachments are looked at, in rounds of [`SPOOL`].
const LOOK: u32 = 30;

/// Records of the plugin, counted.
#[derive(Debug, Default)]
pub struct CniCounters {
    /// Taken.
    pub taken: AtomicU64,
    /// Not a record, or more attachments than are known at a time.
    pub refused: AtomicU64,
    /// Dropped from the spool because it was full.
    pub dropped: AtomicU64,
}

/// See the module documentation.
pub struct CniSource {
    data: PathBuf,
    place: Place,
    heard: Option<i64>,
    reporter: Reporter,
    counters: Arc<CniCounters>,
}

impl CniSource {
    /// A source that listens in the data directory `data`; `cluster` is the network of the pods' addresses, `host` names this
    /// node, `boot` is part of interface keys, `heard` is until when an earlier run listened, if that is known.
    pub fn new(data: PathBuf, cluster: Arc<str>, host: Arc<str>, boot: Arc<str>, heard: Option<i64>) -> Self {
        let netns = namespace_inode(Path::new("/proc/self/ns/net")).unwrap_or_default();
        let place = Place { cluster, host, boot, netns };
        Self { data, place, heard, reporter: Reporter::new("cni"), counters: Arc::default() }
    }

    /// Its state, as it changes.
    pub fn status(&self) -> watch::Receiver<SourceStatus> {
        self.reporter.subscribe()
    }

    /// What came in.
    pub fn counters(&self) -> Arc<CniCounters> {
        self.counters.clone()
    }

    /// Runs until nobody listens any more.
    pub async fn run(self, events: mpsc::Sender<IdentityEvent>) {
        let journal = loop {
            match Journal::open(journal::path(&self.data)) {
                Ok(journal) => break Arc::new(journal),
                Err(error) => {
                    self.reporter.report(SourceStatus::Absent { reason: error.to_string() });
                }
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(2)) => {}
                () = events.closed() => return,
            }
        };
        let inbox = Inbox::open(&self.data);
        let attachments = Attachments::new(self.place.clone());
        let Self { heard, reporter, counters, .. } = self;
        let unwritten = None;
        let mut listener = Listener { events, inbox, journal, attachments, reporter, counters, heard, unwritten };
        listener.start().await;
        listener.listen().await;
    }
}

struct Listener {
    events: mpsc::Sender<IdentityEvent>,
    inbox: Inbox,
    journal: Arc<Journal>,
    attachments: Attachments,
    reporter: Reporter,
    counters: Arc<CniCounters>,
    /// Until when every attachment is known to have been there.
    heard: Option<i64>,
    /// Why the journal lacks something.
    unwritten: Option<String>,
}

impl Listener {
    /// What was there, then what happened meanwhile, then what is there now.
    async fn start(&mut self) {
        let journal = self.journal.clone();
        let loaded = tokio::task::spawn_blocking(move || journal.load()).await.ok().and_then(Result::ok);
        let events = self.attachments.restore(loaded.unwrap_or_default(), now());
        self.send(events).await;
        self.take_spooled().await;
        self.look(true).await;
        self.say();
    }

    async fn listen(&mut self) {
        let mut tick = tokio::time::interval(SPOOL);
        let mut rounds = 0;
        loop {
            tokio::select! {
                record = self.inbox.receive() => self.take(record).await,
                _ = tick.tick() => {
                    self.inbox.listen();
                    self.take_spooled().await;
                    rounds += 1;
                    if rounds % LOOK == 0 {
                        self.look(false).await;
                    }
                }
                () = self.events.closed() => return,
            }
            self.write().await;
            self.say();
        }
    }

    /// `None` is what was not a record.
    async fn take(&mut self, record: Option<Record>) {
        let events = record.and_then(|record| self.attachments.take(record, now()));
        let Some(events) = events else {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.counters.taken.fetch_add(1, Ordering::Relaxed);
        self.send(events).await;
    }

    async fn take_spooled(&mut self) {
        let (records, files, refused) = self.inbox.spooled();
        self.counters.refused.fetch_add(refused, Ordering::Relaxed);
        for record in records {
            self.take(Some(record)).await;
        }
        // Until the journal knows what was in them.
        if self.write().await {
            self.inbox.remove(files);
        } else {
            self.inbox.keep(files);
        }
        let dropped = self.inbox.spool.take_dropped();
        if dropped > 0 {
            self.counters.dropped.fetch_add(dropped, Ordering::Relaxed);
            tracing::warn!("cni: {dropped} records were lost because the spool was full while nobody took them");
        }
    }

    /// Ends what is not there any more; at the start everything is told.
    async fn look(&mut self, all: bool) {
        let at = now();
        let seen = Seen::now().await;
        if all || self.attachments.records().any(|record| !seen.has(record)) {
            let events = self.attachments.reconcile(|record| seen.has(record), self.heard, at);
            self.send(events).await;
        }
        self.heard = Some(at);
        self.write().await;
    }

    async fn send(&self, events: Vec<IdentityEvent>) {
        for event in events {
            // Nobody listens any more: the source ends by itself.
            let _ = self.events.send(event).await;
        }
    }

    /// Writes what changed; whether all of it is written. What is not is tried again.
    async fn write(&mut self) -> bool {
        let changes = self.attachments.take_changes(now());
        if changes.is_empty() {
            return self.unwritten.is_none();
        }
        let journal = self.journal.clone();
        let written = tokio::task::spawn_blocking(move || {
            let result = journal.write(&changes);
            (changes, result)
        });
        let before = self.unwritten.take();
        match written.await {
            Ok((_, Ok(()))) => {}
            Ok((changes, Err(error))) => {
                self.attachments.keep_changes(changes);
                if before.is_none() {
                    tracing::warn!("cni: cannot keep what is attached: {error}");
                }
                self.unwritten = Some(error.to_string());
            }
            Err(error) => tracing::error!("cni: {error}"),
        }
        self.unwritten.is_none()
    }

    fn say(&self) {
        let quiet = self.attachments.is_empty() && self.counters.taken.load(Ordering::Relaxed) == 0;
        let status = match (self.inbox.limit(), &self.unwritten) {
            (Some(reason), _) => SourceStatus::Absent { reason: reason.to_owned() },
            (None, Some(error)) => {
                SourceStatus::Absent { reason: format!("what is attached cannot be kept over a restart: {error}") }
            }
            (None, None) if quiet => {
                let reason = "no plugin has called yet; hint: `wiretag cni --help` says how to install it";
                SourceStatus::Waiting { reason: reason.into() }
            }
            (None, None) => SourceStatus::Connected,
        };
        self.reporter.report(status);
    }
}

/// The interfaces of this host at one time.
struct Seen {
    links: Option<HashMap<u32, Link>>,
    /// Inode of the namespace that they are in.
    netns: u64,
    boot: String,
}

impl Seen {
    async fn now() -> Self {
        let look = || {
            let links = links::list().ok();
            let links = links.map(|links| links.into_iter().map(|link| (link.index, link)).collect());
            let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
            let netns = namespace_inode(Path::new("/proc/self/ns/net")).unwrap_or_default();
            Self { links, netns, boot: boot.trim().to_owned() }
        };
        let nothing = Self { links: None, netns: 0, boot: String::new() };
        tokio::task::spawn_blocking(look).await.unwrap_or(nothing)
    }

    /// Whether the attachment may still be there.
    fn has(&self, record: &Record) -> bool {
        if !self.boot.is_empty() && self.boot != record.boot {
            return false;
        }
        if let (Some(outside), Some(links)) = (&record.outside, &self.links)
            && record.own_netns == self.netns
        {
            let link = links.get(&outside.index);
            return link.is_some_and(|link| link.kind == LinkKind::Veth && link.peer == record.inside);
        }
        match (&record.netns, record.inode) {
            (Some(path), Some(inode)) => may_lead_to(path, inode),
            (None, _) | (_, None) => true,
        }
    }
}

/// Whether the namespace may still be there. An agent in a container may see neither the directory nor what is mounted in it: then
/// nothing is known.
fn may_lead_to(path: &Path, inode: u64) -> bool {
    let namespaces = std::fs::metadata("/proc/self/ns/net").map(|data| data.dev());
    match std::fs::metadata(path) {
        Ok(data) => data.ino() == inode || namespaces.is_ok_and(|namespaces| data.dev() != namespaces),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => !path.parent().is_some_and(Path::exists),
        Err(_) => true,
    }
}

#[expect(clippy::disallowed_methods, reason = "plugin and source stand at the edge: they say when something happened")]
fn now() -> i64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}
