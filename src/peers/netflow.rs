//! The listener: one thread that reads the socket, gives each datagram of a known exporter to the collector, and hands rows to the tagger.
//!
//! Like a capture worker it never waits for a later stage before it ends: rows that find the queue full wait here, and beyond a limit they are
//! lost and counted as slices. What the kernel drops because this thread is too slow is counted too, and shows in the sequence
//! numbers of the exporters. A socket that fails is read again, and is a trouble meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc;
use wiretag_capture::FlowRecord;
use wiretag_capture::netflow::{Collector, Exported, NetflowCounters, Socket};

use crate::config::NetflowConfig;
use crate::metrics::Sample;
use crate::trouble::Stage;
use crate::worker::{CaptureStatus, RecordBatch};

/// Datagrams that are read at most before rows are handed on.
const BURST: usize = 256;
/// After a failure the socket is read again after so long.
const PAUSE: Duration = Duration::from_millis(100);
/// Rows that wait at most for room in the queue.
const MOST_WAITING: usize = 65_536;
/// Rows of one exporter handed on at once.
const BATCH: usize = 4_096;

/// The largest datagram.
const DATAGRAM: usize = 65_535;

/// What the listener has heard.
pub(crate) struct NetflowStatus {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    numbers: Mutex<(NetflowCounters, u64)>,
}

impl NetflowStatus {
    pub(crate) fn counters(&self) -> NetflowCounters {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Figures for `/metrics`.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let (counters, kernel_drops) = self.numbers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let single = |name: &'static str, value: u64| (name, vec![], value as f64);
        let mut samples = vec![
            single("wiretag_netflow_strangers_total", counters.strangers),
            single("wiretag_netflow_records_total", counters.records),
            single("wiretag_netflow_joined_records_total", counters.joined),
            single("wiretag_netflow_scaled_records_total", counters.scaled),
            single("wiretag_netflow_replaced_times_total", counters.replaced_times),
            single("wiretag_netflow_rows_total", counters.rows),
            single("wiretag_netflow_hurried_rows_total", counters.hurried),
            single("wiretag_netflow_unknown_templates_total", counters.unknown_templates),
            single("wiretag_netflow_late_datagrams_total", counters.late),
            single("wiretag_netflow_restarts_total", counters.restarts),
            single("wiretag_netflow_forgotten_total", counters.forgotten),
            single("wiretag_netflow_sessions", counters.sessions),
            single("wiretag_netflow_templates", counters.templates),
            single("wiretag_netflow_waiting_rows", counters.waiting),
            single("wiretag_netflow_lost_records_total", counters.lost_records),
            single("wiretag_netflow_lost_datagrams_total", counters.lost_datagrams),
            single("wiretag_netflow_kernel_drops_total", kernel_drops),
        ];
        for (version, count) in counters.datagrams {
            samples.push(("wiretag_netflow_datagrams_total", vec![version.to_string()], count as f64));
        }
        for (reason, count) in counters.malformed {
            samples.push(("wiretag_netflow_malformed_total", vec![reason.to_owned()], count as f64));
        }
        for (reason, count) in counters.refused {
            samples.push(("wiretag_netflow_refused_records_total", vec![reason.to_owned()], count as f64));
        }
        samples
    }
}

struct Listener {
    config: NetflowConfig,
    socket: Socket,
    collector: Collector,
    records: mpsc::Sender<RecordBatch>,
    capture: Arc<CaptureStatus>,
    status: Arc<NetflowStatus>,
    stop: Arc<AtomicBool>,
    exported: Vec<Exported>,
    /// Rows on their way to the tagger, by exporter, in batches.
    waiting: BTreeMap<u64, VecDeque<Vec<FlowRecord>>>,
}

/// Starts the thread; the socket is open when this returns.
pub(super) fn start(
    config: NetflowConfig,
    records: mpsc::Sender<RecordBatch>,
    capture: Arc<CaptureStatus>,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<(Arc<NetflowStatus>, std::thread::JoinHandle<()>)> {
    let socket = Socket::bind(config.listen, config.buffer).with_context(|| {
        format!("cannot listen on `{}` for NetFlow; hint: `netflow.listen` names the address", config.listen)
    })?;
    let status = Arc::new(NetflowStatus { address: socket.address()?, numbers: Mutex::default() });
    let listener = Listener {
        config,
        socket,
        collector: Collector::default(),
        records,
        capture,
        status: status.clone(),
        stop,
        exported: Vec::new(),
        waiting: BTreeMap::new(),
    };
    let thread = std::thread::Builder::new().name("netflow".into()).spawn(move || listener.run());
    Ok((status, thread.context("cannot start the NetFlow thread")?))
}

impl Listener {
    fn run(mut self) {
        let mut buffer = vec![0; DATAGRAM];
        while !self.stop.load(Ordering::Relaxed) {
            let (outcome, now) = (self.burst(&mut buffer), crate::host::now());
            match outcome {
                Ok(()) => self.capture.works(Stage::Netflow, now),
                Err(error) => {
                    self.capture.failed(Stage::Netflow, &error, now);
                    // What fails at once would be tried without end.
                    std::thread::park_timeout(PAUSE);
                }
            }
            self.collector.take(now, &mut self.exported);
            self.sort();
            self.hand_on();
            self.publish();
        }
        self.collector.flush(&mut self.exported);
        self.sort();
        self.hand_on_the_last();
        self.publish();
    }

    /// Reads what is there, or waits a tenth of a second for the first. Ends early if the collector is full: rows go before more records come.
    fn burst(&mut self, buffer: &mut [u8]) -> std::io::Result<()> {
        for _ in 0..BURST {
            if self.collector.is_full() {
                return Ok(());
            }
            let Some((length, from)) = self.socket.receive(buffer)? else { return Ok(()) };
            if self.config.hears(from.ip()) {
                let datagram = buffer.get(..length).unwrap_or_default();
                self.collector.datagram(from, datagram, crate::host::now());
            } else {
                self.collector.stranger();
            }
        }
        Ok(())
    }

    fn sort(&mut self) {
        for Exported { point, record } in self.exported.drain(..) {
            let batches = self.waiting.entry(point).or_default();
            match batches.back_mut().filter(|batch| batch.len() < BATCH) {
                Some(batch) => batch.push(record),
                None => batches.push_back(vec![record]),
            }
        }
    }

    fn hand_on(&mut self) {
        while let Some((point, rows)) = self.next_batch() {
            if let Err(batch) = self.capture.offer(&self.records, batch(point, rows)) {
                self.waiting.entry(point).or_default().push_front(batch.records);
                break;
            }
        }
        let waiting: usize = self.waiting.values().flatten().map(Vec::len).sum();
        if waiting > MOST_WAITING {
            self.capture.lose_slices(waiting);
            self.waiting.clear();
        }
    }

    /// Hands everything on, and waits for room.
    fn hand_on_the_last(&mut self) {
        while let Some((point, rows)) = self.next_batch() {
            self.capture.hand_on(&self.records, batch(point, rows));
        }
    }

    /// Takes out the batch that is handed on next.
    fn next_batch(&mut self) -> Option<(u64, Vec<FlowRecord>)> {
        let mut batches = self.waiting.first_entry()?;
        let (point, rows) = (*batches.key(), batches.get_mut().pop_front());
        if batches.get().is_empty() {
            batches.remove();
        }
        Some((point, rows?))
    }

    fn publish(&mut self) {
        let numbers = (self.collector.counters(), self.socket.dropped());
        *self.status.numbers.lock().unwrap_or_else(PoisonError::into_inner) = numbers;
    }
}

fn batch(point: u64, records: Vec<FlowRecord>) -> RecordBatch {
    RecordBatch { netns: point, records, transactions: Vec::new(), open: Vec::new(), links: Vec::new() }
}
