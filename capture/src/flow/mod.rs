//! The flow table: packets to flow records.
//!
//! A flow is one connection or exchange at one observation point: interface, address pair, port pair, protocol, VLANs and
//! tunnel. Both directions are one flow. Long flows are cut into slices with one `flow_id`, whose counters add up.
//!
//! Invariants:
//! * time is the packets' (the greatest seen) or what [`Engine::advance`] says; calling it more often changes no record;
//! * every packet is counted in exactly one slice or refused with a reason;
//! * memory is bounded: at most `max_flows` flows, each of bounded size; eviction is counted;
//! * cost per packet does not depend on the number of flows: deadlines are at the heads of queues.
//!
//! Limits: a slice is emitted when its deadline passes, so a flow that was cut and never spoke again ends with a slice
//! whose reason is `active`. An engine's clock never goes back except by [`Engine::finish`]; use one for each file.

mod community_id;
mod config;
mod handshake;
mod key;
mod orient;
mod queue;
mod sequence;
mod slice;
mod table;
mod tcp;

use std::collections::HashMap;
use std::sync::Arc;

pub use config::FlowConfig;
pub(crate) use key::End;

use self::config::CLOSED_LINGER;
use self::key::Key;
use self::slice::Flow;
use self::table::{Class, Due, Table};
use crate::app::Application;
use crate::decode::{Decoded, Transport, decode};
use crate::metrics::CaptureCounters;
use crate::packet::Packet;
use crate::record::{EndReason, FlowRecord};
use crate::transaction::Transaction;

/// Most transactions that wait for [`Engine::take_transactions`]; more are lost, and counted.
const MAX_TRANSACTIONS: usize = 1 << 16;

/// Decoder and flow table of one worker.
pub struct Engine {
    config: FlowConfig,
    counters: CaptureCounters,
    interfaces: HashMap<u32, Arc<str>>,
    table: Table,
    transactions: Vec<Transaction>,
    clock: i64,
}

impl Engine {
    /// An empty table.
    pub fn new(config: FlowConfig) -> Self {
        let table = Table::new(&config);
        let (counters, interfaces, transactions) = (CaptureCounters::default(), HashMap::new(), Vec::new());
        Self { config, counters, interfaces, table, transactions, clock: i64::MIN }
    }

    /// Names an interface; flows on an interface without a name carry `if<number>`.
    pub fn name_interface(&mut self, interface: u32, name: &str) {
        self.interfaces.insert(interface, name.into());
    }

    /// Decodes and tracks one packet; slices that its time or its flow ends are appended to `out`. Returns the flow's
    /// id, or `None` if the packet belongs to no flow (the reason is counted).
    pub fn packet(&mut self, packet: &Packet<'_>, out: &mut Vec<FlowRecord>) -> Option<u64> {
        match decode(packet) {
            Ok(decoded) => self.track(&decoded, packet, out),
            Err(error) => {
                self.counters.packets += 1;
                self.counters.bytes += u64::from(packet.wire_len);
                self.counters.refuse(error);
                self.advance(packet.time, out);
                None
            }
        }
    }

    /// Tracks one packet that is decoded already; otherwise as [`Self::packet`].
    pub fn track(&mut self, decoded: &Decoded<'_>, packet: &Packet<'_>, out: &mut Vec<FlowRecord>) -> Option<u64> {
        self.counters.packets += 1;
        self.counters.bytes += u64::from(packet.wire_len);
        self.counters.decoded += 1;
        self.advance(packet.time, out);
        let (key, end) = Key::new(decoded, packet.interface);
        let hash = self.table.hash(&key);
        let mut again = 0;
        let mut found = self.table.find(hash, &key);
        if let Some(slot) = found
            && let Transport::Tcp(segment) = &decoded.transport
            && let Some(flow) = self.table.get_mut(slot)
            && flow.is_reopened_by(end, segment)
        {
            again = if flow.began == packet.time { flow.again + 1 } else { 0 };
            let reason = flow.closed().unwrap_or(EndReason::Idle);
            self.end_flow(slot, reason, out);
            found = None;
        }
        let slot = match found {
            Some(slot) => {
                self.cut_overdue(slot, out);
                slot
            }
            None => self.begin_flow(key, hash, end, (decoded, packet, again), out),
        };
        let clock = self.clock;
        let flow = self.table.get_mut(slot)?;
        let begins = flow.is_empty();
        flow.count(end, decoded, packet);
        if self.config.transactions {
            let each = queue(&mut self.transactions, &mut self.counters);
            flow.take_transactions(&self.config.node, self.config.source, each);
        }
        let (flow_id, class) = (flow.id, flow.class());
        self.table.touch(slot, class, clock);
        if begins {
            self.table.begin_slice(slot, clock);
        }
        Some(flow_id)
    }

    /// Expires flows as of `now`; called between bursts so that quiet links expire too.
    #[inline]
    pub fn advance(&mut self, now: i64, out: &mut Vec<FlowRecord>) {
        self.clock = self.clock.max(now);
        if let Some(due) = self.table.due(self.clock) {
            self.expire(due, out);
        }
    }

    /// Ends every flow.
    pub fn finish(&mut self, reason: EndReason, out: &mut Vec<FlowRecord>) {
        let from = out.len();
        for slot in self.table.slots() {
            let closed = self.table.get_mut(slot).and_then(|flow| flow.closed());
            self.end_flow(slot, closed.unwrap_or(reason), out);
        }
        sort(out, from);
        self.clock = i64::MIN;
    }

    /// Appends the transactions that finished since the last call (none unless [`FlowConfig::transactions`]). To be
    /// called once a burst: what does not fit the queue is counted in `transactions_lost`.
    pub fn take_transactions(&mut self, out: &mut Vec<Transaction>) {
        out.append(&mut self.transactions);
    }

    /// Counters so far; `flows_active` is now's.
    pub fn counters(&self) -> &CaptureCounters {
        &self.counters
    }

    /// Deadlines in the order in which they fall, so that a late call gives the same records as many early ones.
    fn expire(&mut self, first: Due, out: &mut Vec<FlowRecord>) {
        let from = out.len();
        let mut due = Some(first);
        while let Some(current) = due {
            match current {
                Due::Idle(slot) => {
                    let closed = self.table.get_mut(slot).and_then(|flow| flow.closed());
                    self.end_flow(slot, closed.unwrap_or(EndReason::Idle), out);
                }
                Due::Active(slot) => {
                    self.table.end_slice(slot);
                    // A closed connection ends in a moment, with the reason why.
                    if self.table.get_mut(slot).is_some_and(|flow| flow.class() != Class::Closed) {
                        self.cut(slot, out);
                    }
                }
            }
            due = self.table.due(self.clock);
        }
        sort(out, from);
    }

    /// Cuts a slice that outlived its timer because its connection was closed and yet goes on.
    fn cut_overdue(&mut self, slot: u32, out: &mut Vec<FlowRecord>) {
        let limit = self.config.active_timeout.saturating_add(CLOSED_LINGER);
        let clock = self.clock;
        if let Some(flow) = self.table.get_mut(slot)
            && clock.saturating_sub(flow.start()) >= limit
            && !flow.is_empty()
            && self.table.slice_began(slot).is_none()
        {
            self.cut(slot, out);
        }
    }

    fn cut(&mut self, slot: u32, out: &mut Vec<FlowRecord>) {
        if let Some(flow) = self.table.get_mut(slot) {
            out.push(flow.record(EndReason::Active, &self.config.node, self.config.source));
            flow.next_slice();
            self.counters.slices += 1;
        }
    }

    fn end_flow(&mut self, slot: u32, reason: EndReason, out: &mut Vec<FlowRecord>) {
        let Some(mut flow) = self.table.remove(slot) else { return };
        if self.config.transactions {
            flow.application.close();
            let each = queue(&mut self.transactions, &mut self.counters);
            flow.take_transactions(&self.config.node, self.config.source, each);
        }
        if !flow.is_empty() {
            out.push(flow.record(reason, &self.config.node, self.config.source));
            self.counters.slices += 1;
        }
        self.counters.flows_active = self.table.len() as u64;
    }

    fn begin_flow(
        &mut self,
        key: Key,
        hash: u64,
        end: End,
        (decoded, packet, again): (&Decoded<'_>, &Packet<'_>, u32),
        out: &mut Vec<FlowRecord>,
    ) -> u32 {
        if self.table.len() >= self.config.max_flows.max(1)
            && let Some(quiet) = self.table.least_recent()
        {
            self.end_flow(quiet, EndReason::Evicted, out);
            self.counters.flows_evicted += 1;
        }
        let number = packet.interface;
        let name = self.interfaces.entry(number).or_insert_with(|| format!("if{number}").into()).clone();
        let mut flow = Flow::new(key, end, decoded, packet.time, name.clone());
        flow.again = again;
        flow.application = Application::new(self.config.transactions);
        flow.id = flow.key.flow_id(&self.config.node, &name, packet.time, again);
        let slot = self.table.insert(hash, flow);
        self.counters.flows_started += 1;
        self.counters.flows_active = self.table.len() as u64;
        slot
    }
}

/// Puts transactions into the queue while there is room.
fn queue(queue: &mut Vec<Transaction>, counters: &mut CaptureCounters) -> impl FnMut(Transaction) {
    |transaction| {
        if queue.len() < MAX_TRANSACTIONS {
            counters.transactions += 1;
            queue.push(transaction);
        } else {
            counters.transactions_lost += 1;
        }
    }
}

/// Records that one call appended, in an order that says nothing of the table's.
fn sort(out: &mut [FlowRecord], from: usize) {
    if let Some(appended) = out.get_mut(from..) {
        appended.sort_by_key(|record| (record.start, record.flow_id, record.slice));
    }
}
