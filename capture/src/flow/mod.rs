//! The flow table: packets to flow records.

use std::sync::Arc;

use crate::metrics::CaptureCounters;
use crate::packet::Packet;
use crate::record::{EndReason, FlowRecord, Source};

/// Limits and timeouts of a flow table; times in nanoseconds of packet time.
#[derive(Debug, Clone)]
pub struct FlowConfig {
    /// Name of this node, written into each record.
    pub node: Arc<str>,
    /// Kind of source, written into each record.
    pub source: Source,
    /// Most flows in the table; the least recently active are evicted and counted.
    pub max_flows: usize,
    /// Longest slice.
    pub active_timeout: i64,
    /// Idle TCP flows.
    pub tcp_idle_timeout: i64,
    /// Idle UDP flows.
    pub udp_idle_timeout: i64,
    /// Everything else.
    pub other_idle_timeout: i64,
}

impl FlowConfig {
    /// Defaults: 1 M flows, 60 s slices, 300 s TCP, 30 s UDP, 10 s others.
    pub fn new(node: impl Into<Arc<str>>, source: Source) -> Self {
        const SECOND: i64 = 1_000_000_000;
        Self {
            node: node.into(),
            source,
            max_flows: 1_000_000,
            active_timeout: 60 * SECOND,
            tcp_idle_timeout: 300 * SECOND,
            udp_idle_timeout: 30 * SECOND,
            other_idle_timeout: 10 * SECOND,
        }
    }
}

/// Decoder and flow table of one worker.
pub struct Engine {
    config: FlowConfig,
    counters: CaptureCounters,
}

impl Engine {
    /// An empty table.
    pub fn new(config: FlowConfig) -> Self {
        Self { config, counters: CaptureCounters::default() }
    }

    /// Names an interface; flows on an interface without a name carry `if<number>`.
    pub fn name_interface(&mut self, interface: u32, name: &str) {
        let _ = (interface, name, &self.config);
    }

    /// Decodes and tracks one packet; slices that its time or its flow ends are appended to `out`. Returns the flow's
    /// id, or `None` if the packet belongs to no flow (the reason is counted).
    pub fn packet(&mut self, packet: &Packet<'_>, out: &mut Vec<FlowRecord>) -> Option<u64> {
        let _ = (packet, out);
        None
    }

    /// Expires flows as of `now`; called between bursts so that quiet links expire too.
    pub fn advance(&mut self, now: i64, out: &mut Vec<FlowRecord>) {
        let _ = (now, out);
    }

    /// Ends every flow.
    pub fn finish(&mut self, reason: EndReason, out: &mut Vec<FlowRecord>) {
        let _ = (reason, out);
    }

    /// Counters so far; `flows_active` is now's.
    pub fn counters(&self) -> &CaptureCounters {
        &self.counters
    }
}
