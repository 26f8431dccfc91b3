//! The exporter: rows become messages where they are stored, and a thread sends them.
//!
//! The queue between the two is bounded, and what finds it full is lost: whoever receives is slow, not there, or has a name that is not found at
//! present, delays nothing. A message that is refused is known to be only when the next one is sent, or a second later: until then it counts neither
//! as sent nor as lost. Templates go first, again every minute, and whenever the receiver may be a new one.

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
/// A receiver that nothing came back from for so long hears, ns.
const CALM: i64 = 5_000_000_000;
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

    /// Records that are lost, for whatever reason.
    fn lost(&self) -> u64 {
        [&self.lost_queue, &self.lost_refused, &self.lost_unreachable]
            .map(|count| count.load(Ordering::Relaxed))
            .iter()
            .sum()
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
    let thread = Thread::new(config, encoder.clone(), status.clone());
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
    reach: Reach,
}

/// Whether what is sent arrives, as far as anybody tells. UDP takes a message that nobody hears, and says so with a later one: a
/// receiver is there again when what was sent was not refused for a while.
#[derive(Default)]
struct Reach {
    trouble: Option<Trouble>,
}

struct Trouble {
    /// Records that had been lost when it began.
    lost_before: u64,
    /// When the first message was sent of which nothing came back.
    sent_at: Option<i64>,
}

impl Reach {
    /// Something was not sent, or refused; `lost` is what had been lost before. Gives whether that is new.
    fn failed(&mut self, lost: u64) -> bool {
        let is_new = self.trouble.is_none();
        self.trouble.get_or_insert(Trouble { lost_before: lost, sent_at: None }).sent_at = None;
        is_new
    }

    /// Something was sent at `now`; `lost` is what has been lost so far. Gives how much of it in a trouble that is over.
    fn sent(&mut self, lost: u64, now: i64) -> Option<u64> {
        let trouble = self.trouble.as_mut()?;
        let since = *trouble.sent_at.get_or_insert(now);
        // A clock that went back keeps nothing.
        if (0..CALM).contains(&now.saturating_sub(since)) {
            return None;
        }
        self.trouble.take().map(|trouble| lost.saturating_sub(trouble.lost_before))
    }
}

impl Thread {
    fn new(config: IpfixConfig, encoder: Encoder, status: Arc<IpfixStatus>) -> Self {
        Self {
            config,
            encoder,
            status,
            socket: None,
            looked_up: None,
            templates_at: None,
            before: 0,
            next_number: 0,
            reach: Reach::default(),
        }
    }

    fn run(mut self, messages: &Receiver<Message>) {
        let mut burst = 0;
        let never = crossbeam_channel::never::<()>();
        loop {
            // Someone who begins to listen while nothing happens must have the templates too.
            match messages.recv_timeout(Duration::from_secs(1)) {
                Ok(message) => self.send(&message),
                Err(RecvTimeoutError::Timeout) => {
                    self.hear();
                    self.prepare(crate::host::now());
                }
                Err(RecvTimeoutError::Disconnected) => return self.hear(),
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
        if let Err(error) = &sent
            && error.kind() == std::io::ErrorKind::ConnectionRefused
        {
            // That is said of the message before; this one was not sent yet.
            self.refused(error);
            self.send_templates(crate::host::now());
            sent = self.socket.as_ref().map_or(Ok(0), |(_, socket)| socket.send(&message.bytes));
        }
        match sent {
            Ok(_) => {
                self.arrived();
                self.before = message.records;
                self.sent(crate::host::now());
                self.status.datagrams.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                self.failed(&error);
                self.status.lost_unreachable.fetch_add(records, Ordering::Relaxed);
            }
        }
    }

    /// The message before was refused: nobody listens, or somebody new does by now, who has no templates.
    fn refused(&mut self, error: &std::io::Error) {
        self.failed(error);
        let before = u64::from(std::mem::take(&mut self.before));
        self.status.lost_refused.fetch_add(before, Ordering::Relaxed);
    }

    /// The message before was not refused.
    fn arrived(&mut self) {
        let before = u64::from(std::mem::take(&mut self.before));
        self.status.records.fetch_add(before, Ordering::Relaxed);
    }

    /// Nothing was sent for a while: by now it is known what became of the message before.
    fn hear(&mut self) {
        match self.socket.as_ref().and_then(|(_, socket)| socket.take_error().ok().flatten()) {
            Some(error) => {
                self.refused(&error);
                self.templates_at = None;
            }
            None => self.arrived(),
        }
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
        self.templates_at = Some(now);
        let templates = self.encoder.templates(self.next_number, now);
        let send = |thread: &Self| thread.socket.as_ref().map_or(Ok(0), |(_, socket)| socket.send(&templates));
        let mut sent = send(self);
        if let Err(error) = &sent
            && error.kind() == std::io::ErrorKind::ConnectionRefused
        {
            self.refused(error);
            sent = send(self);
        }
        // What comes back is about the templates.
        self.arrived();
        match sent {
            Ok(_) => {
                self.sent(now);
                self.status.datagrams.fetch_add(1, Ordering::Relaxed);
            }
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
            self.arrived();
            (self.socket, self.templates_at) = (Some((address, socket)), None);
            Ok(())
        });
        // A receiver whose name is not found for once stays where it was, and gets what there is.
        if let Err(error) = connected
            && self.socket.is_none()
        {
            self.failed(&error);
        }
    }

    fn failed(&mut self, error: &std::io::Error) {
        if self.reach.failed(self.status.lost()) {
            tracing::warn!("flows are not exported to `{}`: {error}", self.config.export);
        }
    }

    fn sent(&mut self, now: i64) {
        if let Some(lost) = self.reach.sent(self.status.lost(), now) {
            tracing::warn!("flows are exported to `{}` again; {lost} were lost meanwhile", self.config.export);
        }
    }
}

#[cfg(test)]
mod tests {
    use wiretag_enrich::ipfix::Numbers;

    use super::*;

    const SECOND: i64 = 1_000_000_000;

    /// Nobody listens: what is sent is taken, and refused with the next.
    #[test]
    fn what_is_refused_was_never_counted_as_sent() {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a receiver");
        let export = receiver.local_addr().expect("its address").to_string();
        let config = IpfixConfig { export, numbers: Numbers::default(), templates: 60 * SECOND };
        let status = Arc::<IpfixStatus>::default();
        let mut thread = Thread::new(config, Encoder::new(Numbers::default()), status.clone());
        let counted = || [status.records.load(Ordering::Relaxed), status.lost()];
        let message = Message { bytes: vec![0; 16], records: 10 };
        thread.send(&message);
        assert_eq!(counted(), [0, 0], "it is not known yet");
        thread.send(&message);
        assert_eq!(counted(), [10, 0]);
        thread.hear();
        assert_eq!(counted(), [20, 0]);
        drop(receiver);
        let mut before = counted();
        for sent in 3..20 {
            thread.send(&message);
            let now = counted();
            assert!(now[0] >= before[0] && now[1] >= before[1], "{before:?} {now:?}");
            assert_eq!(now.iter().sum::<u64>() + u64::from(thread.before), sent * 10);
            before = now;
        }
        thread.hear();
        assert_eq!((counted(), thread.before), ([20, 170], 0));
    }

    /// Nobody listens: every other message is taken, and each of them comes back.
    #[test]
    fn a_receiver_that_is_not_there_is_told_once() {
        let mut reach = Reach::default();
        assert_eq!(reach.sent(0, 0), None);
        assert!(reach.failed(0));
        for half in 1..100_u64 {
            let now = half.cast_signed() * SECOND / 2;
            assert_eq!(reach.sent(half, now), None);
            assert!(!reach.failed(half));
        }
        assert_eq!(reach.sent(100, 50 * SECOND), None);
        assert_eq!(reach.sent(100, 50 * SECOND + CALM), Some(100));
        assert!(reach.failed(100));
    }

    /// Messages that are far apart: the one that is sent says nothing of itself.
    #[test]
    fn a_pause_is_no_success() {
        let mut reach = Reach::default();
        assert!(reach.failed(7));
        assert_eq!(reach.sent(7, 60 * SECOND), None);
        assert!(!reach.failed(7));
        assert_eq!(reach.sent(8, 120 * SECOND), None);
        assert_eq!(reach.sent(8, 150 * SECOND), Some(1));
    }
}
