//! What the kernel itself knows: whose sockets are (`sock_diag`), and which connections the host translates (`ctnetlink`).
//!
//! **Sockets.** Containers on the host's network share its addresses, so no address ever names them; their sockets do.
//! Every second or so all sockets of the host's namespace are dumped, and between dumps the kernel tells the end of each one as
//! it happens. A socket's process (or its control group) names the container. Sockets of processes that are in no
//! container are not told: an honest `none`. Of network namespaces that several containers share (the containers of a
//! pod, or one that borrows another's network) the sockets are told as well, so that the container is known, not only whose
//! namespace it is.
//!
//! **Short-lived clients.** A connection may come and go between two dumps. Where connection tracking is active, the kernel
//! tells each connection with its first packet, and its socket is asked for at once. What ended before anybody saw it is counted.
//!
//! **Connection tracking.** Translated connections (a published port, a service's virtual address, a masqueraded source) are
//! told with the addresses of both sides, from their first packet to the end of the entry.
//!
//! **Costs** are bounded: a round takes at most [`SHARE`] of a core (the interval grows with what a round took, between
//! [`INTERVAL`] and [`LONGEST`]), what is asked for between rounds at most a tenth; every table has a limit. What is missed
//! is counted in [`KernelNumbers`].
//!
//! **Privileges.** Root's, or `CAP_NET_ADMIN` (events, connection tracking, ends of sockets) and `CAP_SYS_PTRACE` with
//! `CAP_DAC_READ_SEARCH` (descriptors of other users' processes), in the host's process namespace; `CAP_SYS_ADMIN` for the sockets
//! of pods.
//!
//! Limits: the kernel tells no beginning of a socket, see [`sockets`] for how it is bounded; connection tracking of other
//! network namespaces is not read; a connection that a process got from another container's process counts as that of the
//! one that is found first.

pub(crate) mod addresses;
mod conntrack;
mod container_id;
mod guests;
mod nat;
mod netlink;
mod numbers;
mod processes;
mod sock_diag;
mod sockets;
mod status;
mod sys;
mod watch_connections;
mod watch_sockets;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use self::watch_connections::WatchConnections;
use self::watch_sockets::WatchSockets;
use crate::event::IdentityEvent;

pub use numbers::KernelNumbers;
pub use status::{KernelStatus, PartStatus};

/// The name of the source in intervals.
const SOURCE: &str = "kernel";
/// Shortest time from one round to the next, ns.
const INTERVAL: i64 = 1_000_000_000;
/// Longest, ns.
const LONGEST: i64 = 30_000_000_000;
/// Of a round's time to the next, the part that it may take: one in so many.
const SHARE: i64 = 50;
/// The thread looks up at least so often.
const PATIENCE: Duration = Duration::from_millis(200);
/// After a failure it is tried again after so long, ns.
const RETRY: i64 = 10_000_000_000;

/// What is asked of the kernel.
#[derive(Debug, Clone)]
pub struct KernelConfig {
    /// This node.
    pub host: Arc<str>,
    /// Boot id: part of socket keys.
    pub boot: Arc<str>,
    /// Whether sockets are followed.
    pub sockets: bool,
    /// Whether translations are followed.
    pub conntrack: bool,
    /// Until when an earlier run listened, if that is known.
    pub heard: Option<i64>,
}

/// See the module documentation.
pub struct KernelSource {
    config: KernelConfig,
    status: watch::Sender<KernelStatus>,
    numbers: Arc<KernelNumbers>,
}

impl KernelSource {
    /// A source for the calling thread's network namespace.
    pub fn new(config: KernelConfig) -> Self {
        let status = watch::Sender::new(KernelStatus::starting(&config));
        Self { config, status, numbers: Arc::default() }
    }

    /// Its state, as it changes.
    pub fn status(&self) -> watch::Receiver<KernelStatus> {
        self.status.subscribe()
    }

    /// What it counts.
    pub fn numbers(&self) -> Arc<KernelNumbers> {
        self.numbers.clone()
    }

    /// Starts its thread, which ends when nobody listens any more.
    pub fn start(self, events: mpsc::Sender<IdentityEvent>) -> std::io::Result<()> {
        if !self.config.sockets && !self.config.conntrack {
            return Ok(());
        }
        let thread = std::thread::Builder::new().name("kernel".into());
        thread.spawn(move || Thread::new(self, events).run()).map(drop)
    }
}

/// Checks once whether the kernel answers, for `wiretag doctor`.
pub fn check() -> KernelStatus {
    let status = |result: std::io::Result<()>| match result {
        Ok(()) => PartStatus::On,
        Err(error) => PartStatus::absent(&error),
    };
    KernelStatus { sockets: status(WatchSockets::check()), conntrack: status(WatchConnections::check()) }
}

struct Thread {
    config: KernelConfig,
    status: watch::Sender<KernelStatus>,
    numbers: Arc<KernelNumbers>,
    events: mpsc::Sender<IdentityEvent>,
    sockets: Part<WatchSockets>,
    connections: Part<WatchConnections>,
}

/// A part that works, or is tried again.
enum Part<T> {
    Off,
    On(T),
    /// Tried again at this time.
    Absent(i64),
}

impl Thread {
    fn new(source: KernelSource, events: mpsc::Sender<IdentityEvent>) -> Self {
        let KernelSource { config, status, numbers } = source;
        let sockets = if config.sockets { Part::Absent(0) } else { Part::Off };
        let connections = if config.conntrack { Part::Absent(0) } else { Part::Off };
        Self { config, status, numbers, events, sockets, connections }
    }

    fn run(mut self) {
        let mut out = Vec::new();
        while !self.events.is_closed() {
            self.open(now());
            self.take(&mut out);
            for event in out.drain(..) {
                if self.events.blocking_send(event).is_err() {
                    return;
                }
            }
            self.wait();
        }
    }

    /// Opens what is not open.
    fn open(&mut self, now: i64) {
        if matches!(self.sockets, Part::Absent(due) if is_due(due, now, RETRY)) {
            let opened = WatchSockets::open(&self.config, self.numbers.clone());
            let status = PartStatus::of(&opened);
            self.sockets = opened.map_or(Part::Absent(now + RETRY), Part::On);
            self.status.send_modify(|all| all.sockets = status);
        }
        if matches!(self.connections, Part::Absent(due) if is_due(due, now, RETRY)) {
            let opened = WatchConnections::open(self.numbers.clone());
            let status = PartStatus::of(&opened);
            self.connections = opened.map_or(Part::Absent(now + RETRY), Part::On);
            self.status.send_modify(|all| all.conntrack = status);
        }
    }

    /// Takes what there is.
    fn take(&mut self, out: &mut Vec<IdentityEvent>) {
        let mut begun = Vec::new();
        if let Part::On(connections) = &mut self.connections
            && let Err(error) = connections.take(&mut begun, out)
        {
            tracing::warn!("connection tracking cannot be read: {error}");
            self.status.send_modify(|all| all.conntrack = PartStatus::absent(&error));
            self.connections = Part::Absent(now() + RETRY);
        }
        if let Part::On(sockets) = &mut self.sockets
            && let Err(error) = sockets.take(&begun, out)
        {
            tracing::warn!("the kernel's sockets cannot be read: {error}");
            self.status.send_modify(|all| all.sockets = PartStatus::absent(&error));
            // What was there in the last round was there until then.
            self.config.heard = sockets.heard();
            self.sockets = Part::Absent(now() + RETRY);
        }
    }

    fn wait(&self) {
        let mut sockets = Vec::new();
        let mut patience = PATIENCE;
        if let Part::On(connections) = &self.connections {
            sockets.push(connections.socket());
        }
        if let Part::On(own) = &self.sockets {
            sockets.extend(own.sockets());
            patience = patience.min(Duration::from_nanos(own.due().saturating_sub(now()).max(0).unsigned_abs()));
        }
        // Rounded up: a wait that ends just before it is due would be followed by many short ones.
        let _ = sys::wait(&sockets, patience + Duration::from_millis(1));
    }
}

/// Whether a time has come that is never set further ahead than `longest`: a clock that goes back does not put it off.
fn is_due(due: i64, now: i64, longest: i64) -> bool {
    due <= now || due > now.saturating_add(longest)
}

#[expect(clippy::disallowed_methods, reason = "a source stands at the edge: it says when it learned something")]
fn now() -> i64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}
