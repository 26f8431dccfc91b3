//! Limits and timeouts of a flow table.

use std::sync::Arc;

use super::fragments::FragmentLimits;
use crate::decode::TunnelPorts;
use crate::record::Source;

/// One second of packet time.
pub(super) const SECOND: i64 = 1_000_000_000;

/// Idle time after which a DNS exchange whose queries are all answered ends.
pub(super) const DNS_IDLE_TIMEOUT: i64 = 5 * SECOND;

/// Idle time after which a closed TCP connection ends: late acknowledgements and repeated FINs still count.
pub(super) const CLOSED_LINGER: i64 = 2 * SECOND;

/// Idle time after which a TCP connection ends whose FINs were seen but not all acknowledged: they may be repeated, each
/// time after a longer pause.
pub(super) const CLOSING_TIMEOUT: i64 = 30 * SECOND;

/// Idle time after which a TCP connection ends that is only half open: longer than the longest pause between the
/// SYNs that Linux sends (64 s, `tcp_syn_retries` = 6).
pub(super) const HALF_OPEN_TIMEOUT: i64 = 75 * SECOND;

/// Limits and timeouts of a flow table; times in nanoseconds of packet time.
#[derive(Debug, Clone)]
pub struct FlowConfig {
    /// Name of this node, written into each record.
    pub node: Arc<str>,
    /// Kind of source, written into each record.
    pub source: Source,
    /// Most flows in the table. When it is full the least valuable flow is evicted and counted: half-open connections and
    /// single packets before closed connections, these before UDP and other exchanges, these before connections; the longest
    /// quiet first.
    pub max_flows: usize,
    /// Most bytes of memory: the table (about 400 bytes a flow, three quarters of the memory at most), what parsers of
    /// applications keep of flows, missing segments, fragments. The least valuable flow that owns some is evicted for more.
    pub flow_memory: usize,
    /// Time from the first packet of a slice after which another one begins the next.
    pub active_timeout: i64,
    /// Idle TCP flows, and SCTP associations, which are asked every 30 s whether they live (RFC 9260, 8.3).
    pub tcp_idle_timeout: i64,
    /// Idle UDP flows.
    pub udp_idle_timeout: i64,
    /// Everything else.
    pub other_idle_timeout: i64,
    /// Ports of tunnels.
    pub tunnel_ports: TunnelPorts,
    /// Bounds of joining fragments.
    pub fragments: FragmentLimits,
    /// Keep a transaction for each exchange, for [`Engine::take_transactions`](super::Engine::take_transactions).
    pub transactions: bool,
}

impl FlowConfig {
    /// Defaults: 1 M flows in 512 MiB, 60 s slices, 300 s TCP, 30 s UDP, 10 s others, no transactions.
    pub fn new(node: impl Into<Arc<str>>, source: Source) -> Self {
        Self {
            node: node.into(),
            source,
            max_flows: 1_000_000,
            flow_memory: 512 << 20,
            active_timeout: 60 * SECOND,
            tcp_idle_timeout: 300 * SECOND,
            udp_idle_timeout: 30 * SECOND,
            other_idle_timeout: 10 * SECOND,
            tunnel_ports: TunnelPorts::default(),
            fragments: FragmentLimits::default(),
            transactions: false,
        }
    }
}
