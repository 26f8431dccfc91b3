//! The exporter of logs: rows become log records where they are stored, and a thread sends them in batches.
//!
//! The queue between the two is bounded in bytes, and what finds it full is lost: whoever receives is slow or not there delays nothing. A request that the
//! receiver does not take at present is sent again, later each time; one that it does not want is lost at once. When the appliance
//! stops, what waits is sent as long as [`DRAIN`] allows and the receiver takes it.

mod receiver;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use tokio::sync::oneshot;
use wiretag_enrich::TaggedFlow;
use wiretag_enrich::otlp::{self, ENOUGH, Encoder, Records};

use self::receiver::{HttpReceiver, Outcome};
use crate::config::OtlpConfig;
use crate::metrics::Sample;

/// Pieces that wait at most; each is what was stored at once.
const QUEUE: usize = 8_192;
/// Bytes that wait at most.
const MOST_WAITING: usize = 32 << 20;
/// Time that an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time until the second attempt; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Time after which a request is given up, ns.
const GIVE_UP: i64 = 300_000_000_000;
/// Time that sending may take at the end, ns.
const DRAIN: i64 = 4_000_000_000;

/// What became of rows.
#[derive(Default)]
pub(crate) struct OtlpStatus {
    endpoint: String,
    records: AtomicU64,
    requests: AtomicU64,
    retries: AtomicU64,
    /// Bytes in the queue.
    waiting: AtomicUsize,
    /// Records that found the queue full.
    lost_queue: AtomicU64,
    /// Records that the receiver refused of requests that it took.
    lost_rejected: AtomicU64,
    /// Records of requests that the receiver did not want.
    lost_refused: AtomicU64,
    /// Records of requests that were given up.
    lost_unreachable: AtomicU64,
}

impl OtlpStatus {
    /// Figures for `/metrics`.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let value = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
        let mut samples = vec![
            ("wiretag_otlp_records_total", vec![], value(&self.records)),
            ("wiretag_otlp_requests_total", vec![], value(&self.requests)),
            ("wiretag_otlp_retries_total", vec![], value(&self.retries)),
            ("wiretag_otlp_waiting_bytes", vec![], self.waiting.load(Ordering::Relaxed) as f64),
        ];
        for (reason, count) in [
            ("queue", &self.lost_queue),
            ("rejected", &self.lost_rejected),
            ("refused", &self.lost_refused),
            ("unreachable", &self.lost_unreachable),
        ] {
            samples.push(("wiretag_otlp_lost_records_total", vec![reason.to_owned()], value(count)));
        }
        samples
    }

    /// Where it exports to.
    pub(crate) fn words(&self) -> &str {
        &self.endpoint
    }
}

/// Where rows leave.
pub(crate) struct OtlpSender {
    batch: u32,
    queue: Sender<Records>,
    status: Arc<OtlpStatus>,
    /// Its end tells the thread to hurry.
    _running: Sender<()>,
}

impl OtlpSender {
    /// Hands on the primary ones of these rows; never waits.
    pub(crate) fn publish(&mut self, rows: &[TaggedFlow]) {
        let primary = rows.iter().filter(|row| row.record.primary);
        for piece in otlp::encode(primary, self.batch, crate::host::now()) {
            self.offer(piece);
        }
    }

    fn offer(&self, piece: Records) {
        let (bytes, records) = (piece.bytes.len(), u64::from(piece.records));
        let waiting = self.status.waiting.fetch_add(bytes, Ordering::Relaxed);
        if waiting + bytes > MOST_WAITING || self.queue.try_send(piece).is_err() {
            self.status.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.status.lost_queue.fetch_add(records, Ordering::Relaxed);
        }
    }
}

/// Reads the files that the configuration names.
pub(super) fn check(config: &OtlpConfig) -> anyhow::Result<()> {
    HttpReceiver::new(config).map(drop)
}

/// Starts the thread; `resource` is who tells.
pub(super) fn start(
    config: OtlpConfig,
    resource: &[(&str, Option<&str>)],
) -> anyhow::Result<(Arc<OtlpStatus>, OtlpSender, oneshot::Receiver<()>)> {
    let receiver = HttpReceiver::new(&config)?;
    let status = Arc::new(OtlpStatus { endpoint: config.endpoint.clone(), ..OtlpStatus::default() });
    let (queue, pieces) = crossbeam_channel::bounded(QUEUE);
    let (running, stopping) = crossbeam_channel::bounded(0);
    let (done, is_done) = oneshot::channel();
    let sender = OtlpSender { batch: config.batch, queue, status: status.clone(), _running: running };
    let thread = Thread {
        receiver,
        encoder: Encoder::new(resource, env!("CARGO_PKG_VERSION")),
        config,
        status: status.clone(),
        stopping,
        stop_at: None,
        failing: None,
        given_up: 0,
        warned: false,
    };
    let run = move || {
        thread.run(&pieces);
        // Nobody may wait for it any more.
        let _ = done.send(());
    };
    std::thread::Builder::new().name("otlp".into()).spawn(run).context("cannot start the OTLP thread")?;
    Ok((status, sender, is_done))
}

struct Thread {
    config: OtlpConfig,
    receiver: HttpReceiver,
    encoder: Encoder,
    status: Arc<OtlpStatus>,
    /// Never says anything; ends when no more rows come.
    stopping: Receiver<()>,
    /// When sending ends, once the appliance stops.
    stop_at: Option<i64>,
    /// Why the last request was not taken.
    failing: Option<String>,
    /// Records that nobody took in time.
    given_up: u64,
    /// A warning of a receiver that takes a request is logged once.
    warned: bool,
}

impl Thread {
    fn run(mut self, pieces: &Receiver<Records>) {
        let mut next = None;
        while let Some(first) = next.take().or_else(|| self.receive(pieces)) {
            let batch;
            (batch, next) = self.gather(first, pieces);
            self.deliver(&batch);
        }
        if self.given_up > 0 {
            tracing::warn!("{} flows were given up that `{}` did not take", self.given_up, self.receiver.url);
        }
    }

    fn receive(&self, pieces: &Receiver<Records>) -> Option<Records> {
        pieces.recv().ok().inspect(|piece| self.took(piece))
    }

    fn took(&self, piece: &Records) {
        self.status.waiting.fetch_sub(piece.bytes.len(), Ordering::Relaxed);
    }

    /// Waits for more, until it is enough or late; also what does not fit any more.
    fn gather(&self, mut batch: Records, pieces: &Receiver<Records>) -> (Records, Option<Records>) {
        let end = crate::host::now().saturating_add(self.config.interval);
        while batch.records < self.config.batch && batch.bytes.len() < ENOUGH {
            let left = end.saturating_sub(crate::host::now()).clamp(0, self.config.interval);
            match pieces.recv_timeout(Duration::from_nanos(left.unsigned_abs())) {
                Ok(piece) => {
                    self.took(&piece);
                    if batch.records + piece.records > self.config.batch {
                        return (batch, Some(piece));
                    }
                    batch.records += piece.records;
                    batch.bytes.extend(piece.bytes);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        (batch, None)
    }

    /// Sends a batch until somebody has it or it is given up.
    fn deliver(&mut self, batch: &Records) {
        let records = u64::from(batch.records);
        let body = match self.receiver.body(self.encoder.request(&batch.bytes)) {
            Ok(body) => body,
            Err(error) => return self.refused(records, format!("cannot compress: {error}")),
        };
        let (begun, mut pause) = (crate::host::now(), FIRST_PAUSE);
        loop {
            let until_next = match self.send(&body) {
                Outcome::Taken(partial) => return self.taken(records, &partial),
                Outcome::Refused(why) => return self.refused(records, why),
                Outcome::Later(why, asked) => {
                    self.failed(why);
                    wait(asked, pause)
                }
            };
            // At the end each batch that is left has one attempt.
            if self.is_stopping() || crate::host::now().saturating_sub(begun) >= GIVE_UP {
                self.status.lost_unreachable.fetch_add(records, Ordering::Relaxed);
                self.given_up += records;
                return;
            }
            // Ends early when the appliance stops.
            let _ = self.stopping.recv_timeout(until_next);
            self.status.retries.fetch_add(1, Ordering::Relaxed);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn send(&mut self, body: &[u8]) -> Outcome {
        let mut patience = PATIENCE;
        if self.is_stopping() {
            let left = self.stop_at.unwrap_or_default().saturating_sub(crate::host::now());
            if left <= 0 {
                return Outcome::Later("there is no time left".to_owned(), None);
            }
            patience = Duration::from_nanos(left.unsigned_abs());
        }
        self.status.requests.fetch_add(1, Ordering::Relaxed);
        self.receiver.send(body, patience)
    }

    fn taken(&mut self, records: u64, partial: &otlp::Partial) {
        let rejected = partial.rejected.min(records);
        self.status.records.fetch_add(records - rejected, Ordering::Relaxed);
        self.status.lost_rejected.fetch_add(rejected, Ordering::Relaxed);
        if self.failing.take().is_some() {
            tracing::warn!("flows are exported to `{}` again", self.receiver.url);
        }
        let is_news = rejected > 0 || !partial.message.is_empty();
        if is_news && !std::mem::replace(&mut self.warned, true) {
            tracing::warn!("`{}` rejects {rejected} of {records} flows: {:?}", self.receiver.url, partial.message);
        }
    }

    fn refused(&mut self, records: u64, why: String) {
        self.status.lost_refused.fetch_add(records, Ordering::Relaxed);
        self.failed(why);
    }

    /// Whether no more rows come; the end is set when that is seen first.
    fn is_stopping(&mut self) -> bool {
        if self.stop_at.is_none() && self.stopping.try_recv() == Err(TryRecvError::Disconnected) {
            self.stop_at = Some(crate::host::now().saturating_add(DRAIN));
        }
        self.stop_at.is_some()
    }

    /// Each reason is told once, until another one or a success.
    fn failed(&mut self, why: String) {
        if self.failing.as_ref() != Some(&why) {
            tracing::warn!("flows are not exported to `{}`: {why}", self.receiver.url);
            self.failing = Some(why);
        }
    }
}

/// Time until the next attempt: what the receiver asked for within limits, so that one that says "at once" is not asked without end.
fn wait(asked: Option<Duration>, own: Duration) -> Duration {
    asked.unwrap_or(own).clamp(FIRST_PAUSE, LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_decides_within_limits_when_it_is_asked_again() {
        let seconds = Duration::from_secs;
        assert_eq!(wait(None, seconds(4)), seconds(4));
        for (asked, expected) in [(0, FIRST_PAUSE), (7, seconds(7)), (86_400, LONGEST_PAUSE)] {
            assert_eq!(wait(Some(seconds(asked)), seconds(4)), expected, "{asked}");
        }
    }

    #[test]
    fn what_finds_the_queue_full_is_counted() {
        let (queue, pieces) = crossbeam_channel::bounded(QUEUE);
        let (running, _stopping) = crossbeam_channel::bounded(0);
        let status = Arc::new(OtlpStatus::default());
        let sender = OtlpSender { batch: 1, queue, status: status.clone(), _running: running };
        let most = MOST_WAITING >> 20;
        for _ in 0..most + 3 {
            sender.offer(Records { bytes: vec![0; 1 << 20], records: 7 });
        }
        assert_eq!((pieces.len(), status.lost_queue.load(Ordering::Relaxed)), (most, 21));
        assert_eq!(status.waiting.load(Ordering::Relaxed), MOST_WAITING);
        let lost = status.samples().into_iter().find(|(_, labels, _)| labels == &["queue".to_owned()]);
        assert_eq!(lost.map(|(name, _, value)| (name, value)), Some(("wiretag_otlp_lost_records_total", 21.0)));
    }
}
