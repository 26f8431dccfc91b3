//! Several engines in threads, for input that is there already: the records of one engine, sooner.
//!
//! Whoever reads the input decodes each packet as far as [`Shards`], and copies it for the engines that it concerns; each has
//! a thread, and a bounded queue of batches, whose buffers come back. With one engine there is no thread and no copy.
//!
//! Invariants:
//! * records, transactions and counters are those of one engine, see [`Shards`], unless a table is full: an engine has its
//!   part of flows and memory. Their order is that of nothing: whoever wants one sorts them;
//! * memory is bounded but for what is kept ([`Keep`]);
//! * a thread that panics ends the whole, with the same panic.

mod batch;
mod worker;

use std::num::NonZeroUsize;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use self::batch::Batch;
use self::worker::Worker;
use crate::decode::Decoder;
use crate::flow::{FlowConfig, MAX_ENGINES, Shards, Share};
use crate::metrics::CaptureCounters;
use crate::packet::Packet;
use crate::record::FlowRecord;
use crate::transaction::Transaction;

/// Batches on their way to an engine.
const QUEUE: usize = 4;

/// What is kept of what the engines give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Flow records.
    Records,
    /// Transactions.
    Transactions,
    /// Neither, only their numbers.
    Counts,
}

/// What came of the input.
#[derive(Debug, Default)]
pub struct Outcome {
    /// If they are kept; in no order.
    pub records: Vec<FlowRecord>,
    /// If they are kept; in no order.
    pub transactions: Vec<Transaction>,
    /// Records given, whether they are kept or not.
    pub slices: u64,
    /// Of all engines.
    pub counters: CaptureCounters,
}

/// See the module documentation.
pub struct Engines(Kind);

enum Kind {
    One(Box<Worker>),
    Several(Box<Dealer>),
}

impl Engines {
    /// So many engines, at most [`MAX_ENGINES`], each with its part of the memory.
    ///
    /// # Errors
    /// Threads cannot be started.
    pub fn start(config: &FlowConfig, engines: NonZeroUsize, keep: Keep) -> std::io::Result<Self> {
        let of = engines.get().min(MAX_ENGINES);
        if of == 1 {
            return Ok(Self(Kind::One(Box::new(Worker::new(config.clone(), Share::WHOLE, keep)))));
        }
        let part = FlowConfig {
            max_flows: config.max_flows.div_ceil(of),
            flow_memory: config.flow_memory / of,
            ..config.clone()
        };
        let started = (0..of).map(|number| Line::start(Worker::new(part.clone(), Share::new(number, of), keep)));
        let lines = started.collect::<std::io::Result<Vec<_>>>()?;
        let decoder = Decoder::new(config.tunnel_ports.clone());
        Ok(Self(Kind::Several(Box::new(Dealer { decoder, lines, clock: i64::MIN }))))
    }

    /// Names an interface, before its first packet.
    pub fn name_interface(&mut self, interface: u32, name: &str) {
        match &mut self.0 {
            Kind::One(worker) => worker.name_interface(interface, name),
            Kind::Several(dealer) => {
                for line in &mut dealer.lines {
                    line.filling.names.push((interface, name.into()));
                }
            }
        }
    }

    /// Takes packets in, in order.
    pub fn burst(&mut self, packets: &[Packet<'_>]) {
        match &mut self.0 {
            Kind::One(worker) => worker.packets(packets),
            Kind::Several(dealer) => packets.iter().for_each(|packet| dealer.deal(packet)),
        }
    }

    /// The input is over.
    pub fn finish(self) -> Outcome {
        match self.0 {
            Kind::One(worker) => worker.finish(),
            Kind::Several(dealer) => dealer.finish(),
        }
    }
}

/// Who hands packets to engines.
struct Dealer {
    decoder: Decoder,
    lines: Vec<Line>,
    /// Greatest time so far.
    clock: i64,
}

impl Dealer {
    fn deal(&mut self, packet: &Packet<'_>) {
        self.clock = self.clock.max(packet.time);
        let shards = match &self.decoder.decode(packet) {
            Ok(decoded) => Shards::of(decoded, self.decoder.carriers(), self.lines.len()),
            Err(_) => Shards::refused(self.decoder.carriers(), self.lines.len()),
        };
        for number in shards.numbers() {
            if let Some(line) = self.lines.get_mut(number) {
                line.filling.push(packet, self.clock);
                if line.filling.is_full() {
                    line.send();
                }
            }
        }
    }

    fn finish(self) -> Outcome {
        let mut outcome = Outcome::default();
        let clock = self.clock;
        let threads: Vec<_> = self.lines.into_iter().map(|line| line.close(clock)).collect();
        for thread in threads {
            match thread.join() {
                Ok(part) => outcome.add(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        outcome
    }
}

impl Outcome {
    fn add(&mut self, mut part: Self) {
        self.records.append(&mut part.records);
        self.transactions.append(&mut part.transactions);
        self.slices += part.slices;
        self.counters.add(&part.counters);
    }
}

/// The way to one engine.
struct Line {
    filling: Batch,
    batches: Sender<Batch>,
    empty: Receiver<Batch>,
    thread: JoinHandle<Outcome>,
}

impl Line {
    fn start(worker: Worker) -> std::io::Result<Self> {
        let (batches, full) = bounded(QUEUE);
        let (give_back, empty) = bounded(QUEUE + 2);
        let thread =
            std::thread::Builder::new().name("engine".to_owned()).spawn(move || worker.run(&full, &give_back))?;
        Ok(Self { filling: Batch::default(), batches, empty, thread })
    }

    /// Waits while the engine has enough to do. One that ended is found out in the end.
    fn send(&mut self) {
        let next = self.empty.try_recv().unwrap_or_default();
        let _ = self.batches.send(std::mem::replace(&mut self.filling, next));
    }

    fn close(mut self, clock: i64) -> JoinHandle<Outcome> {
        self.filling.clock = Some(clock);
        self.send();
        self.thread
    }
}
