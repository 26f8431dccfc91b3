//! Figures of primary flows and transactions, with a budget of series.
//!
//! Servers have names in all of them, at most [`MOST_SERVERS`]; clients only beside a server, at most [`MOST_PAIRS`] pairs.
//! Who has one is said by [`Places`]. What finds no place is added to `other`, so nothing is missing from sums: a pair without a place
//! counts at its server, with a client `other`, and sums by server are whole. Every other label has a few values.
//!
//! A series that ends takes with it what it counted: moved to `other` it would be new traffic there. Prometheus has read it before.
//!
//! A new series is 0 for more than a minute ([`Family`]). Those that have no name begin with the appliance, and all classes of a status with the first
//! answer of a server: nobody waits for the first error of a server that is known.

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use wiretag_capture::{EndReason, Protocol};
use wiretag_enrich::{EndTag, TaggedBy, TaggedFlow, TaggedTransaction};

use super::family::{Family, HELD};
use super::places::{LEAVING, Places};

/// Servers that have series of their own.
const MOST_SERVERS: usize = 200;
/// Pairs of a client and a server that have.
const MOST_PAIRS: usize = 1000;

/// Time from one [`FlowMetrics::step`] to the next.
pub(crate) const STEP: Duration = Duration::from_secs(15);
/// Steps from one sweep to the next.
const SWEEP: u32 = 4;
/// What a series that ends counted last is shown, and read once a minute, before.
const _: () = assert!(LEAVING * SWEEP >= HELD + SWEEP);

/// Protocols, classes of a status and response codes that are usual.
const PROTOCOLS: [&str; 4] = ["tcp", "udp", "icmp", "icmp6"];
const STATUSES: [&str; 5] = ["2xx", "3xx", "4xx", "5xx", "none"];
const RCODES: [&str; 6] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];
const ADDRESSES: [&str; 4] = ["private", "public", "multicast", "unspecified"];

/// Figures of primary flows and transactions.
pub(crate) struct FlowMetrics {
    flows: Family<IntCounterVec>,
    bytes: Family<IntCounterVec>,
    /// Ends of flows and their bytes by how the end was named: the figure to watch.
    ends: [Family<IntCounterVec>; 2],
    retransmits: Family<IntCounterVec>,
    handshake_rtt: Family<HistogramVec>,
    dns_latency: Histogram,
    dns_responses: Family<IntCounterVec>,
    connections: Family<IntCounterVec>,
    http_transactions: Family<IntCounterVec>,
    http_latency: Family<HistogramVec>,
    servers: Places<Arc<str>>,
    pairs: Places<(Arc<str>, Arc<str>)>,
    /// Whether lookups are known one by one; a flow has its first one only.
    transactions: bool,
    /// Since the last sweep.
    steps: u32,
    unknown: Arc<str>,
    other: Arc<str>,
}

/// 50 µs to about 6 s.
fn latency_buckets() -> Vec<f64> {
    (0..18).map(|power| 50e-6 * f64::from(1 << power)).collect()
}

impl FlowMetrics {
    /// Registers all families. DNS counts with its transactions, if there are any, else with its flow.
    pub(crate) fn new(registry: &Registry, transactions: bool) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &'static [&'static str]| {
            Family::new(registry, IntCounterVec::new(Opts::new(name, help), labels)?, labels)
        };
        let histogram = |name: &str, help: &str, labels: &'static [&'static str]| {
            let options = HistogramOpts::new(name, help).buckets(latency_buckets());
            Family::new(registry, HistogramVec::new(options, labels)?, labels)
        };
        let dns = HistogramOpts::new("wiretag_dns_latency_seconds", "Last repetition of a query to its response.");
        let dns_latency = Histogram::with_opts(dns.buckets(latency_buckets()))?;
        registry.register(Box::new(dns_latency.clone()))?;
        let mut metrics = Self {
            flows: counter(
                "wiretag_flows_total",
                "Primary flow slices, by the busiest pairs; all others are `other`. A new series is 0 for a minute.",
                &["protocol", "client", "server"],
            )?,
            bytes: counter(
                "wiretag_flow_bytes_total",
                "IP bytes of primary flows, by the busiest pairs; all others are `other`.",
                &["client", "server", "direction"],
            )?,
            ends: [
                counter(
                    "wiretag_flow_ends_total",
                    "Ends of primary flows by how they were named, and whether their address is a private one.",
                    &["tagged_by", "address"],
                )?,
                counter(
                    "wiretag_flow_end_bytes_total",
                    "IP bytes of primary flows, once for each end, by how that was named.",
                    &["tagged_by", "address"],
                )?,
            ],
            retransmits: counter(
                "wiretag_flow_retransmits_total",
                "Retransmitted segments, by the busiest pairs.",
                &["client", "server"],
            )?,
            handshake_rtt: histogram(
                "wiretag_handshake_rtt_seconds",
                "Halves of TCP handshakes: to client, to server.",
                &["server", "side"],
            )?,
            dns_latency,
            dns_responses: counter("wiretag_dns_responses_total", "DNS responses.", &["rcode"])?,
            connections: counter(
                "wiretag_tcp_connections_total",
                "TCP connections that ended, by the busiest servers.",
                &["server", "state"],
            )?,
            http_transactions: counter(
                "wiretag_http_transactions_total",
                "HTTP requests by class of their response's status.",
                &["server", "status"],
            )?,
            http_latency: histogram(
                "wiretag_http_latency_seconds",
                "Last byte of a request to first byte of its response.",
                &["server"],
            )?,
            servers: Places::new(MOST_SERVERS),
            pairs: Places::new(MOST_PAIRS),
            transactions,
            steps: 0,
            unknown: "unknown".into(),
            other: "other".into(),
        };
        metrics.begin();
        Ok(metrics)
    }

    /// Begins what has no name.
    fn begin(&mut self) {
        for tagged_by in TaggedBy::ALL {
            for address in ADDRESSES {
                self.ends.iter_mut().for_each(|ends| ends.begin(&[tagged_by.as_str(), address]));
            }
        }
        for rcode in RCODES {
            self.dns_responses.begin(&[rcode]);
        }
        for nobody in [&*self.unknown, &*self.other] {
            for protocol in PROTOCOLS {
                self.flows.begin(&[protocol, nobody, nobody]);
            }
            for direction in ["client_to_server", "server_to_client"] {
                self.bytes.begin(&[nobody, nobody, direction]);
            }
            self.retransmits.begin(&[nobody, nobody]);
        }
    }

    /// Adds a flow, if it is a primary one.
    pub(crate) fn observe(&mut self, flow: &TaggedFlow) {
        let record = &flow.record;
        if !record.primary {
            return;
        }
        let both = record.client.bytes.saturating_add(record.server.bytes);
        let server = self.server(&flow.server, both);
        let client = self.client(&flow.client, &server, both);
        let (client, server) = (&*client, &*server);
        self.flows.add(&[protocol(record.protocol), client, server], 1);
        self.bytes.add(&[client, server, "client_to_server"], record.client.bytes);
        self.bytes.add(&[client, server, "server_to_client"], record.server.bytes);
        for (tag, ip) in [(&flow.client, record.client.ip), (&flow.server, record.server.ip)] {
            let labels = [tag.tagged_by.as_str(), address_kind(ip)];
            let [flows, bytes] = &mut self.ends;
            flows.add(&labels, 1);
            bytes.add(&labels, both);
        }
        let [client_retransmits, server_retransmits] =
            [&record.client, &record.server].map(|side| u64::from(side.retransmits.unwrap_or(0)));
        self.retransmits.add(&[client, server], client_retransmits + server_retransmits);
        for (side, rtt) in [("client", record.client.rtt_us), ("server", record.server.rtt_us)] {
            if let Some(rtt) = rtt.filter(|_| record.slice == 0) {
                self.handshake_rtt.add(&[server, side], f64::from(rtt) / 1e6);
            }
        }
        if let Some(dns) = record.dns.as_ref().filter(|_| !self.transactions) {
            self.lookup(dns.rcode.as_deref(), dns.latency_us);
        }
        if let Some(state) = record.tcp_state.filter(|_| record.end_reason != Some(EndReason::Active)) {
            self.connections.add(&[server, state.as_str()], 1);
        }
    }

    /// Adds a transaction, if it is a primary one.
    pub(crate) fn observe_transaction(&mut self, transaction: &TaggedTransaction) {
        let exchange = &transaction.record.exchange;
        if !transaction.record.primary {
            return;
        }
        if exchange.qtype.is_some() {
            self.lookup(exchange.rcode.as_deref(), exchange.latency_us);
        }
        if exchange.method.is_none() && exchange.status.is_none() {
            return;
        }
        // Its bytes are those of its flow.
        let server = self.server(&transaction.server, 0);
        for status in STATUSES {
            self.http_transactions.hold(&[&*server, status]);
        }
        self.http_transactions.add(&[&*server, status_class(exchange.status)], 1);
        if let Some(latency) = exchange.latency_us {
            self.http_latency.add(&[&*server], latency as f64 / 1e6);
        }
    }

    /// Adds a lookup of DNS, if it was answered.
    fn lookup(&mut self, rcode: Option<&str>, latency_us: Option<u64>) {
        if let Some(latency) = latency_us {
            self.dns_latency.observe(latency as f64 / 1e6);
        }
        if let Some(rcode) = rcode {
            self.dns_responses.add(&[rcode], 1);
        }
    }

    /// Shows what was held for long enough, and ends the series of who has no place any more.
    pub(crate) fn step(&mut self) {
        let [ends, end_bytes] = &mut self.ends;
        let counters = [&mut self.flows, &mut self.bytes, ends, end_bytes, &mut self.retransmits];
        counters.into_iter().for_each(Family::step);
        let counters = [&mut self.dns_responses, &mut self.connections, &mut self.http_transactions];
        counters.into_iter().for_each(Family::step);
        [&mut self.handshake_rtt, &mut self.http_latency].into_iter().for_each(Family::step);
        self.steps += 1;
        if self.steps == SWEEP {
            self.steps = 0;
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        let servers = self.servers.sweep(|_| false);
        let pairs = self.pairs.sweep(|(_, server)| servers.contains(server));
        if servers.is_empty() && pairs.is_empty() {
            return;
        }
        let pairs: HashSet<(&str, &str)> = pairs.iter().map(|(client, server)| (&**client, &**server)).collect();
        let has_ended = |client: Option<&str>, server: Option<&str>| {
            // What clients without a place counted at a server ends with the server.
            server.is_some_and(|server| servers.contains(server))
                || client.zip(server).is_some_and(|pair| pairs.contains(&pair))
        };
        for family in [&mut self.flows, &mut self.bytes, &mut self.retransmits] {
            family.end(has_ended);
        }
        for family in [&mut self.connections, &mut self.http_transactions] {
            family.end(has_ended);
        }
        for family in [&mut self.handshake_rtt, &mut self.http_latency] {
            family.end(has_ended);
        }
    }

    /// Workload, else container, else pod, else machine; `unknown` without a name, `other` beyond the budget.
    fn server(&mut self, tag: &EndTag, bytes: u64) -> Arc<str> {
        let Some(name) = name(tag) else { return self.unknown.clone() };
        let has_place = self.servers.observe(name, bytes);
        if has_place { name.clone() } else { self.other.clone() }
    }

    /// As [`Self::server`], beside this server.
    fn client(&mut self, tag: &EndTag, server: &Arc<str>, bytes: u64) -> Arc<str> {
        let pair = (name(tag).unwrap_or(&self.unknown).clone(), server.clone());
        let has_place = self.pairs.observe(&pair, bytes);
        if has_place { pair.0 } else { self.other.clone() }
    }
}

fn name(tag: &EndTag) -> Option<&Arc<str>> {
    let identity = tag.identity.as_ref()?;
    let name = identity.workload.as_ref().or(identity.container.as_ref()).or(identity.pod.as_ref());
    name.or(identity.host.as_ref())
}

/// Its name; `other` for those that have only a number.
fn protocol(protocol: Protocol) -> &'static str {
    match protocol.name() {
        Cow::Borrowed(name) => name,
        Cow::Owned(_) => "other",
    }
}

/// Whose addresses may be named: containers and machines have private ones (RFC 1918, RFC 4193, link-local, shared);
/// `public` is the Internet's. `unspecified` is nobody's: who has no address yet asks with it (DHCP, duplicate address detection).
fn address_kind(ip: IpAddr) -> &'static str {
    let private = match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b);
            ip.is_private() || ip.is_loopback() || ip.is_link_local() || shared
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    };
    let group = ip.is_multicast() || matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    match (ip.is_unspecified(), group, private) {
        (true, ..) => "unspecified",
        (false, true, _) => "multicast",
        (false, false, true) => "private",
        (false, false, false) => "public",
    }
}

/// `2xx` and its like; `none` without a response.
fn status_class(status: Option<u16>) -> &'static str {
    match status.map(|status| status / 100) {
        Some(1) => "1xx",
        Some(2) => "2xx",
        Some(3) => "3xx",
        Some(4) => "4xx",
        Some(5) => "5xx",
        Some(_) => "other",
        None => "none",
    }
}

#[cfg(test)]
mod tests;
