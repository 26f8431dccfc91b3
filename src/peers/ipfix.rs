//! The exporter: rows become messages where they are stored, and a thread sends them.
//!
//! The queue between the two is bounded, and what finds it full is lost: whoever receives is slow, not there, or has a name that is not found at
//! present, delays nothing. A message that is refused is known to be only when the next one is sent; it counts as lost then. Templates go first,
//! again every minute, and whenever the receiver may be a new one.

use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};
use tokio::sync::oneshot;
use wiretag_enrich::TaggedFlow;
use wiretag_enrich::ipfix::{Encoder, Message};

use crate::config::IpfixConfig;
use crate::metrics::Sample;

/// Messages that wait at most: some eleven megabytes.
const QUEUE: usize = 8_192;
/// Messages that are sent in one go: more at once would overflow the buffer of who receives.
const BURST: u32 = 32;
/// Time between two such, at least.
const PAUSE: Duration = Duration::from_millis(1);
/// Time after which the receiver's name is looked up again, and after a failure, ns.
const LOOK_UP: i64 = 60_000_000_000;
const LOOK_UP_AGAIN: i64 = 2_000_000_000;

/// What became of rows.
#[derive(Default)]
pub(crate) struct IpfixStatus {
    export: String,
    records: AtomicU64,
    datagrams: AtomicU64,
    /// Records that found the queue full.
    lost_queue: AtomicU64,
    /// Records that the receiver's machine refused: nobody listened.
    lost_refused: AtomicU64,
    /// Records that could not be sent: no name, no way.
    lost_unreachable: AtomicU64,
}

impl IpfixStatus {
    /// Figures for `/metrics`.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let value = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
        let mut samples = vec![
            ("wiretag_ipfix_records_total", vec![], value(&self.records)),
            ("wiretag_ipfix_datagrams_total", vec![], value(&self.datagrams)),
        ];
        for (reason, count) in
            [("queue", &self.lost_queue), ("refused", &self.lost_refused), ("unreachable", &self.lost_unreachable)]
        {
            samples.push(("wiretag_ipfix_lost_records_total", vec![reason.to_owned()], value(count)));
        }
        samples
    }

    /// Where it exports to.
    pub(crate) fn words(&self) -> &str {
        &self.export
    }
}

/// Where rows leave.
pub(crate) struct IpfixSender {
    encoder: Encoder,
    queue: Sender<Message>,
    status: Arc<IpfixStatus>,
    messages: Vec<Message>,
}

impl IpfixSender {
    /// Hands on the primary ones of these rows; never waits.
    pub(crate) fn publish(&mut self, rows: &[TaggedFlow]) {
        let primary = rows.iter().filter(|row| row.record.primary);
        self.encoder.encode(primary, crate::host::now(), &mut self.messages);
        for message in self.messages.drain(..) {
            if let Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) = self.queue.try_send(message)
            {
                self.status.lost_queue.fetch_add(message.records.into(), Ordering::Relaxed);
            }
        }
    }
}

/// Starts the thread.
pub(super) fn start(config: IpfixConfig) -> anyhow::Result<(Arc<IpfixStatus>, IpfixSender, oneshot::Receiver<()>)> {
    let status = Arc::new(IpfixStatus { export: config.export.clone(), ..IpfixStatus::default() });
    let encoder = Encoder::new(config.numbers);
    let (queue, messages) = crossbeam_channel::bounded(QUEUE);
    let (done, is_done) = oneshot::channel();
    let thread = Thread {
        config,
        encoder: encoder.clone(),
        status: status.clone(),
        socket: None,
        looked_up: None,
        templates_at: None,
        before: 0,
        next_number: 0,
        unreachable: false,
    };
    let run = move || {
        thread.run(&messages);
        // Nobody may wait for it any more.
        let _ = done.send(());
    };
    std::thread::Builder::new().name("ipfix".into()).spawn(run).context("cannot start the IPFIX thread")?;
    let sender = IpfixSender { encoder, queue, status: status.clone(), messages: Vec::new() };
    Ok((status, sender, is_done))
}

struct Thread {
    config: IpfixConfig,
    encoder: Encoder,
    status: Arc<IpfixStatus>,
    /// Connected to the receiver.
    socket: Option<(SocketAddr, UdpSocket)>,
    /// When the receiver's name was looked up.
    looked_up: Option<i64>,
    /// When templates were sent.
    templates_at: Option<i64>,
    /// Records of the last message, of which it is not known yet whether it was refused.
    before: u32,
    next_number: u32,
    unreachable: bool,
}

impl Thread {
    fn run(mut self, messages: &Receiver<Message>) {
        let mut burst = 0;
        let never = crossbeam_channel::never::<()>();
        loop {
            // Someone who begins to listen while nothing happens must have the templates too.
            match messages.recv_timeout(Duration::from_secs(1)) {
                Ok(message) => self.send(&message),
                Err(RecvTimeoutError::Timeout) => self.prepare(crate::host::now()),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            burst += 1;
            if burst >= BURST {
                burst = 0;
                let _ = never.recv_timeout(PAUSE);
            }
        }
    }

    fn send(&mut self, message: &Message) {
        self.prepare(crate::host::now());
        let records = u64::from(message.records);
        self.next_number = message.next_number();
        let Some((_, socket)) = &self.socket else {
            self.status.lost_unreachable.fetch_add(records, Ordering::Relaxed);
            return;
        };
        let mut sent = socket.send(&message.bytes);
        if sent.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused) {
            // That is said of the message before; this one was not sent yet.
            self.refused();
            sent = self.socket.as_ref().map_or(Ok(0), |(_, socket)| socket.send(&message.bytes));
        }
        match sent {
            Ok(_) => {
                self.before = message.records;
                self.reached();
                self.status.records.fetch_add(records, Ordering::Relaxed);
                self.status.datagrams.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                self.status.lost_unreachable.fetch_add(records, Ordering::Relaxed);
                self.failed(&error);
            }
        }
    }

    /// The message before was refused: nobody listens, or somebody new does by now, who has no templates.
    fn refused(&mut self) {
        let before = u64::from(std::mem::take(&mut self.before));
        self.status.lost_refused.fetch_add(before, Ordering::Relaxed);
        self.status.records.fetch_sub(before, Ordering::Relaxed);
        self.send_templates(crate::host::now());
    }

    /// A socket that leads to the receiver, and templates, if it is time for them.
    fn prepare(&mut self, now: i64) {
        let age = if self.socket.is_some() { LOOK_UP } else { LOOK_UP_AGAIN };
        if self.looked_up.is_none_or(|at| now.saturating_sub(at) >= age) {
            self.looked_up = Some(now);
            self.look_up();
        }
        let is_due = self.templates_at.is_none_or(|at| now.saturating_sub(at) >= self.config.templates);
        if is_due && self.socket.is_some() {
            self.send_templates(now);
        }
    }

    fn send_templates(&mut self, now: i64) {
        let Some((_, socket)) = &self.socket else { return };
        self.templates_at = Some(now);
        let templates = self.encoder.templates(self.next_number, now);
        let mut sent = socket.send(&templates);
        if sent.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused) {
            let before = u64::from(std::mem::take(&mut self.before));
            self.status.lost_refused.fetch_add(before, Ordering::Relaxed);
            self.status.records.fetch_sub(before, Ordering::Relaxed);
            sent = socket.send(&templates);
        }
        // What comes back is about the templates.
        self.before = 0;
        match sent {
            Ok(_) => drop(self.status.datagrams.fetch_add(1, Ordering::Relaxed)),
            Err(error) => self.failed(&error),
        }
    }

    /// Another address than before is another receiver.
    fn look_up(&mut self) {
        let found = self
            .config
            .export
            .to_socket_addrs()
            .and_then(|mut found| found.next().ok_or_else(|| std::io::Error::other("the name has no address")));
        let connected = found.and_then(|address| {
            if let Some((known, _)) = &self.socket
                && *known == address
            {
                return Ok(());
            }
            let local: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
            let socket = UdpSocket::bind(local)?;
            socket.connect(address)?;
            (self.socket, self.templates_at, self.before) = (Some((address, socket)), None, 0);
            Ok(())
        });
        // A receiver whose name is not found for once stays where it was.
        if let Err(error) = connected {
            self.failed(&error);
        }
    }

    fn failed(&mut self, error: &std::io::Error) {
        if !std::mem::replace(&mut self.unreachable, true) {
            tracing::warn!("flows are not exported to `{}`: {error}", self.config.export);
        }
    }

    fn reached(&mut self) {
        if std::mem::take(&mut self.unreachable) {
            tracing::warn!("flows are exported to `{}` again", self.config.export);
        }
    }
}
