//! One engine and what came of it.

use crossbeam_channel::{Receiver, Sender};

use super::batch::Batch;
use super::{Keep, Outcome};
use crate::flow::{Engine, FlowConfig, Share, TOGETHER};
use crate::packet::Packet;
use crate::record::EndReason;

/// Flows that are ended at once where their rows are not kept: no more transactions than wait for us are theirs.
const AT_ONCE: usize = 512;

/// See the module documentation.
pub(super) struct Worker {
    engine: Engine,
    keep: Keep,
    transactions: bool,
    outcome: Outcome,
}

impl Worker {
    pub(super) fn new(config: FlowConfig, share: Share, keep: Keep) -> Self {
        let transactions = config.transactions;
        Self { engine: Engine::with_share(config, share), keep, transactions, outcome: Outcome::default() }
    }

    pub(super) fn name_interface(&mut self, interface: u32, name: &str) {
        self.engine.name_interface(interface, name);
    }

    /// Takes packets in, in order.
    pub(super) fn packets(&mut self, packets: &[Packet<'_>]) {
        for packets in packets.chunks(if self.transactions { TOGETHER } else { packets.len().max(1) }) {
            self.engine.burst(packets, &mut self.outcome.records, |_, _| {});
            if self.transactions {
                self.engine.take_transactions(&mut self.outcome.transactions);
            }
        }
        self.count();
    }

    /// Takes batches until the last one.
    pub(super) fn run(mut self, batches: &Receiver<Batch>, empty: &Sender<Batch>) -> Outcome {
        while let Ok(mut batch) = batches.recv() {
            for (interface, name) in &batch.names {
                self.engine.name_interface(*interface, name);
            }
            batch.each_run(|clock, packets| {
                if let Some(clock) = clock {
                    self.engine.advance(clock, &mut self.outcome.records);
                }
                self.packets(packets);
            });
            if let Some(clock) = batch.clock {
                self.engine.advance(clock, &mut self.outcome.records);
                break;
            }
            batch.clear();
            // There is always room: no more batches exist.
            let _ = empty.try_send(batch);
        }
        self.finish()
    }

    /// Ends all flows.
    pub(super) fn finish(mut self) -> Outcome {
        let at_once = if self.keep == Keep::Records { usize::MAX } else { AT_ONCE };
        while self.engine.finish_some(EndReason::EndOfInput, at_once, &mut self.outcome.records) {
            self.engine.take_transactions(&mut self.outcome.transactions);
            self.count();
        }
        self.engine.take_transactions(&mut self.outcome.transactions);
        self.count();
        if self.keep == Keep::Records {
            self.outcome.slices = self.outcome.records.len() as u64;
        }
        Outcome { counters: self.engine.counters().clone(), ..self.outcome }
    }

    /// Forgets what is not kept.
    fn count(&mut self) {
        if self.keep != Keep::Records {
            self.outcome.slices += self.outcome.records.len() as u64;
            self.outcome.records.clear();
        }
        if self.keep != Keep::Transactions {
            self.outcome.transactions.clear();
        }
    }
}
