//! One engine and what came of it.

use crossbeam_channel::{Receiver, Sender};

use super::batch::Batch;
use super::{Keep, Outcome};
use crate::flow::{Engine, FlowConfig, Share};
use crate::packet::Packet;
use crate::record::EndReason;

/// Rows that flows give at once when they are ended: not all rows are kept.
const AT_ONCE: usize = 8192;

/// See the module documentation.
pub(super) struct Worker {
    engine: Engine,
    keep: Keep,
    outcome: Outcome,
}

impl Worker {
    pub(super) fn new(config: FlowConfig, share: Share, keep: Keep) -> Self {
        Self { engine: Engine::with_share(config, share), keep, outcome: Outcome::default() }
    }

    pub(super) fn name_interface(&mut self, interface: u32, name: &str) {
        self.engine.name_interface(interface, name);
    }

    /// Takes packets in, in order.
    pub(super) fn packets(&mut self, packets: &[Packet<'_>]) {
        self.engine.burst(packets, &mut self.outcome.records, |_, _| {});
        self.take();
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
        while self.engine.finish_some(EndReason::EndOfInput, AT_ONCE, &mut self.outcome.records) {
            self.take();
        }
        self.take();
        if self.keep == Keep::Records {
            self.outcome.slices = self.outcome.records.len() as u64;
        }
        Outcome { counters: self.engine.counters().clone(), ..self.outcome }
    }

    /// Takes what came, and forgets what is not kept.
    fn take(&mut self) {
        self.engine.take_transactions(&mut self.outcome.transactions);
        if self.keep != Keep::Records {
            self.outcome.slices += self.outcome.records.len() as u64;
            self.outcome.records.clear();
        }
        if self.keep != Keep::Transactions {
            self.outcome.transactions.clear();
        }
    }
}
