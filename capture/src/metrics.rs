//! Counters of the capture stage: packets received = packets decoded + packets refused, by reason.

use std::collections::BTreeMap;

use crate::decode::DecodeError;

/// Counts of one source, added up by its worker and published once a burst. Plain values: adding two is [`Self::add`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaptureCounters {
    /// Packets handed on by the source.
    pub packets: u64,
    /// Their bytes on the wire.
    pub bytes: u64,
    /// Packets that the kernel dropped because the ring was full.
    pub kernel_drops: u64,
    /// Packets that could not be handed on because a queue was full.
    pub queue_drops: u64,
    /// Packets that were counted in a flow.
    pub decoded: u64,
    /// Packets that were not, by reason ([`DecodeError::reason`]).
    pub refused: BTreeMap<&'static str, u64>,
    /// Packets in the flows of tunnels that carried a packet which is counted in `decoded`: rows of theirs are extra.
    pub carriers: u64,
    /// Fragmented packets that were put together.
    pub fragments_joined: u64,
    /// Fragmented packets that were not: parts missing or overlapping, or too many at a time. Their fragments are counted
    /// in flows all the same, but what they said is not known.
    pub fragments_given_up: u64,
    /// Flows begun.
    pub flows_started: u64,
    /// Slices emitted.
    pub slices: u64,
    /// Flows evicted because the table was full, or the memory.
    pub flows_evicted: u64,
    /// Transactions kept.
    pub transactions: u64,
    /// These by what they were worth: `fleeting` (half open or of one packet), `over` (closed, answered), `exchange`,
    /// `connection`.
    pub evicted: BTreeMap<&'static str, u64>,
    /// Flows in the table now.
    pub flows_active: u64,
    /// Bytes that the engine holds now ([`Engine::memory_bytes`](crate::flow::Engine::memory_bytes)), for its worker to fill in.
    pub flow_memory: u64,
}

impl CaptureCounters {
    /// Counts a packet that could not be decoded.
    pub fn refuse(&mut self, error: DecodeError) {
        *self.refused.entry(error.reason()).or_default() += 1;
    }

    /// Counts a flow that made room for another.
    pub(crate) fn evict(&mut self, value: &'static str) {
        self.flows_evicted += 1;
        *self.evicted.entry(value).or_default() += 1;
    }

    /// Adds `other`, counter by counter.
    pub fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.kernel_drops += other.kernel_drops;
        self.queue_drops += other.queue_drops;
        self.decoded += other.decoded;
        for (reason, count) in &other.refused {
            *self.refused.entry(reason).or_default() += count;
        }
        self.carriers += other.carriers;
        self.fragments_joined += other.fragments_joined;
        self.fragments_given_up += other.fragments_given_up;
        self.flows_started += other.flows_started;
        self.slices += other.slices;
        self.flows_evicted += other.flows_evicted;
        self.transactions += other.transactions;
        for (value, count) in &other.evicted {
            *self.evicted.entry(value).or_default() += count;
        }
        self.flows_active += other.flows_active;
        self.flow_memory += other.flow_memory;
    }

    /// Packets received that neither became part of a flow nor were refused: always 0.
    pub fn unaccounted(&self) -> u64 {
        self.packets - self.decoded - self.refused.values().sum::<u64>()
    }
}
