//! What `/metrics` says: counters of each stage, and figures of primary flows ([`flows`]).

mod family;
mod flows;
mod places;

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, GaugeVec, Opts};
use wiretag_enrich::kernel::KernelNumbers;

pub(crate) use self::flows::{FlowMetrics, STEP};
use crate::peers::Peers;
use crate::sources::Sources;
use crate::stage_numbers::StageNumbers;
use crate::worker::CaptureStatus;

/// A number that a stage keeps: name, help, label names, and whether it only grows.
struct Family {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    counter: bool,
}

/// One value of a family, with its label values.
pub(crate) type Sample = (&'static str, Vec<String>, f64);

const FAMILIES: &[Family] = &[
    counter("wiretag_capture_packets_total", "Packets received.", &["node"]),
    counter("wiretag_capture_bytes_total", "Bytes on the wire of the packets received.", &["node"]),
    counter("wiretag_capture_decoded_packets_total", "Packets counted in flows.", &["node"]),
    counter("wiretag_capture_kernel_drops_total", "Packets the kernel dropped: the ring was full.", &["node"]),
    counter("wiretag_capture_queue_drops_total", "Packets not kept: the queue to the packet log was full.", &["node"]),
    counter("wiretag_capture_refused_packets_total", "Packets in no flow, by reason.", &["node", "reason"]),
    counter("wiretag_capture_carrier_packets_total", "Tunnel packets whose inner packet is in a flow.", &["node"]),
    counter("wiretag_capture_fragmented_packets_total", "Packets in fragments, by outcome.", &["node", "outcome"]),
    gauge("wiretag_capture_interfaces", "Interfaces captured now.", &["node"]),
    gauge("wiretag_flow_table_flows", "Flows in the table now.", &["node"]),
    gauge("wiretag_flow_table_bytes", "Memory of the table and of what its flows hold.", &["node"]),
    counter(
        "wiretag_flow_table_evictions_total",
        "Flows ended because the table was full, by what they were worth.",
        &["node", "value"],
    ),
    counter("wiretag_flow_slices_total", "Slices that the flow table handed on.", &["node"]),
    counter("wiretag_flow_slices_lost_total", "Slices lost: the queue to the tagger was full.", &["node"]),
    gauge(
        "wiretag_checkpoint_interval_seconds",
        "Time between two looks at open flows: what a crash loses at most, nearly. Longer when there are very many.",
        &["node"],
    ),
    counter("wiretag_checkpoint_slices_total", "Open slices that the flow table handed on.", &["node"]),
    counter(
        "wiretag_checkpoint_lost_slices_total",
        "Open slices that found a queue full or could not be written, and are handed on again.",
        &["node"],
    ),
    gauge("wiretag_open_slices", "Open slices that searches show.", &[]),
    counter(
        "wiretag_open_slices_hidden_total",
        "Versions of open slices that searches did not show: too many were open.",
        &[],
    ),
    counter("wiretag_transactions_total", "DNS and HTTP exchanges that the flow table handed on.", &["node"]),
    counter("wiretag_transactions_lost_total", "Transactions lost, by the stage that was full.", &["node", "stage"]),
    counter("wiretag_store_flow_rows_total", "Flow rows stored.", &[]),
    counter("wiretag_store_transaction_rows_total", "Transactions stored.", &[]),
    counter("wiretag_store_erased_rows_total", "Rows that erasures removed.", &["table"]),
    counter("wiretag_store_retagged_rows_total", "Stored rows that got a name later.", &["table"]),
    counter(
        "wiretag_store_rollup_files_total",
        "Files of roll-ups written: an hour by minutes, or a day by hours.",
        &[],
    ),
    counter("wiretag_store_failed_rollups_total", "Hours and days of which no roll-up could be made.", &[]),
    counter(
        "wiretag_store_unreadable_files_total",
        "Files that could not be read, and are left out of answers.",
        &["table"],
    ),
    counter("wiretag_store_dropped_rows_total", "Flow rows lost in the store, by reason.", &["reason"]),
    gauge("wiretag_store_bytes", "Bytes on disk.", &["kind"]),
    counter("wiretag_packet_log_packets_total", "Packets kept.", &[]),
    counter(
        "wiretag_packet_log_damaged_blocks_total",
        "Blocks and indexes of packets that a download could not read, as often as one met them.",
        &[],
    ),
    counter("wiretag_packet_log_dropped_packets_total", "Packets lost in the packet log, by reason.", &["reason"]),
    counter(
        "wiretag_packet_log_less_compressed_blocks_total",
        "Blocks of packets compressed faster than configured or not at all, by reason: too many waited, or they do not shrink.",
        &["reason"],
    ),
    gauge("wiretag_kernel_sockets", "Sockets known now, those of host processes included.", &["node"]),
    gauge("wiretag_kernel_translations", "Translated connections known now.", &["node"]),
    counter("wiretag_kernel_rounds_total", "Dumps of all sockets.", &["node"]),
    counter("wiretag_kernel_round_seconds_total", "Processor time that dumps of all sockets took.", &["node"]),
    counter("wiretag_kernel_missed_total", "Sockets, translations and events missed, by reason.", &["node", "reason"]),
    gauge("wiretag_identities", "Intervals that last now, by source.", &["source"]),
    gauge("wiretag_identity_source_up", "1 if an identity source is heard now.", &["source"]),
    counter("wiretag_cni_records_total", "Records of the CNI plugin, by what became of them.", &["outcome"]),
    counter("wiretag_netflow_datagrams_total", "Datagrams of exporters, by version; 10 is IPFIX.", &["version"]),
    counter("wiretag_netflow_malformed_total", "Datagrams, or parts of them, that make no sense.", &["reason"]),
    counter("wiretag_netflow_strangers_total", "Datagrams from addresses that are not heard.", &[]),
    counter("wiretag_netflow_kernel_drops_total", "Datagrams the kernel dropped: the socket's buffer was full.", &[]),
    counter("wiretag_netflow_records_total", "Records of flows that exporters sent.", &[]),
    counter("wiretag_netflow_refused_records_total", "Of these, records that make no row.", &["reason"]),
    counter("wiretag_netflow_joined_records_total", "Of these, records joined to the other direction's.", &[]),
    counter("wiretag_netflow_scaled_records_total", "Of these, records multiplied by a sampling rate.", &[]),
    counter("wiretag_netflow_replaced_times_total", "Of these, records of an exporter's wrong clock.", &[]),
    counter("wiretag_netflow_rows_total", "Rows made of records.", &[]),
    counter("wiretag_netflow_hurried_rows_total", "Rows that could not wait for the other direction.", &[]),
    counter("wiretag_netflow_unknown_templates_total", "Sets of records whose template is not known.", &[]),
    counter("wiretag_netflow_lost_records_total", "Records that did not arrive, by sequence numbers.", &[]),
    counter("wiretag_netflow_lost_datagrams_total", "Datagrams that did not arrive, by sequence numbers.", &[]),
    counter("wiretag_netflow_late_datagrams_total", "Datagrams that were overtaken by others.", &[]),
    counter("wiretag_netflow_restarts_total", "Exporters that began to count anew.", &[]),
    counter("wiretag_netflow_forgotten_total", "Templates, options and exporters that found no room.", &[]),
    gauge("wiretag_netflow_sessions", "Exporters and observation domains known now.", &[]),
    gauge("wiretag_netflow_templates", "Templates known now.", &[]),
    gauge("wiretag_netflow_waiting_rows", "Records that wait for the other direction now.", &[]),
    counter("wiretag_ipfix_records_total", "Rows sent to the receiver of IPFIX.", &[]),
    counter("wiretag_ipfix_datagrams_total", "Datagrams sent to the receiver of IPFIX.", &[]),
    counter("wiretag_ipfix_lost_records_total", "Rows not sent to the receiver of IPFIX, by reason.", &["reason"]),
    counter("wiretag_otlp_records_total", "Rows that the receiver of OTLP has taken.", &[]),
    counter("wiretag_otlp_requests_total", "Requests sent to the receiver of OTLP.", &[]),
    counter("wiretag_otlp_retries_total", "Of these, requests sent again.", &[]),
    gauge("wiretag_otlp_waiting_bytes", "Rows that wait for the receiver of OTLP now, bytes.", &[]),
    counter("wiretag_otlp_lost_records_total", "Rows that the receiver of OTLP does not have, by reason.", &["reason"]),
    gauge("wiretag_build_info", "Version of the binary.", &["version"]),
];

/// What a flow can be worth (`wiretag_capture::CaptureCounters::evicted`).
const VALUES: &[&str] = &["fleeting", "over", "exchange", "connection"];

const fn counter(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Family {
    Family { name, help, labels, counter: true }
}

const fn gauge(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Family {
    Family { name, help, labels, counter: false }
}

/// Reads the stages' numbers when Prometheus asks.
pub(crate) struct StageCollector {
    pub(crate) node: String,
    pub(crate) capture: Arc<CaptureStatus>,
    pub(crate) stages: Arc<Mutex<StageNumbers>>,
    kernel: Arc<KernelNumbers>,
    sources: Sources,
    peers: Arc<Peers>,
    descriptions: Vec<Desc>,
}

impl StageCollector {
    /// A collector to register.
    pub(crate) fn new(
        node: &str,
        capture: &Arc<CaptureStatus>,
        (stages, kernel): (Arc<Mutex<StageNumbers>>, Arc<KernelNumbers>),
        (sources, peers): (&Sources, &Arc<Peers>),
    ) -> prometheus::Result<Self> {
        let describe = |family: &Family| {
            let labels = family.labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(family.name.to_owned(), family.help.to_owned(), labels, std::collections::HashMap::new())
        };
        let descriptions = FAMILIES.iter().map(describe).collect::<prometheus::Result<_>>()?;
        let (node, capture) = (node.to_owned(), capture.clone());
        let (sources, peers) = (sources.clone(), peers.clone());
        Ok(Self { node, capture, stages, kernel, sources, peers, descriptions })
    }

    fn samples(&self) -> Vec<Sample> {
        let counters = self.capture.counters();
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let node = || vec![self.node.clone()];
        let mut samples: Vec<Sample> = vec![
            ("wiretag_capture_packets_total", node(), counters.packets as f64),
            ("wiretag_capture_bytes_total", node(), counters.bytes as f64),
            ("wiretag_capture_decoded_packets_total", node(), counters.decoded as f64),
            ("wiretag_capture_kernel_drops_total", node(), counters.kernel_drops as f64),
            ("wiretag_capture_queue_drops_total", node(), counters.queue_drops as f64),
            ("wiretag_capture_interfaces", node(), self.capture.interfaces().len() as f64),
            ("wiretag_flow_table_flows", node(), counters.flows_active as f64),
            ("wiretag_flow_table_bytes", node(), counters.flow_memory as f64),
            ("wiretag_capture_carrier_packets_total", node(), counters.carriers as f64),
            ("wiretag_flow_slices_total", node(), counters.slices as f64),
            ("wiretag_flow_slices_lost_total", node(), self.capture.lost_slices() as f64),
            ("wiretag_checkpoint_interval_seconds", node(), self.capture.checkpoint() as f64 / 1e9),
            ("wiretag_checkpoint_slices_total", node(), self.capture.open() as f64),
            ("wiretag_checkpoint_lost_slices_total", node(), self.capture.lost_open() as f64),
            ("wiretag_open_slices", vec![], stages.open_slices as f64),
            ("wiretag_open_slices_hidden_total", vec![], stages.hidden_slices as f64),
            ("wiretag_transactions_total", node(), counters.transactions as f64),
            ("wiretag_build_info", vec![env!("CARGO_PKG_VERSION").into()], 1.0),
        ];
        for (stage, count) in [("queue", self.capture.lost_transactions()), ("store", stages.transactions_dropped)] {
            let labels = vec![self.node.clone(), stage.to_owned()];
            samples.push(("wiretag_transactions_lost_total", labels, count as f64));
        }
        samples.extend(stages.samples());
        for (outcome, count) in [("joined", counters.fragments_joined), ("given_up", counters.fragments_given_up)] {
            let labels = vec![self.node.clone(), outcome.to_owned()];
            samples.push(("wiretag_capture_fragmented_packets_total", labels, count as f64));
        }
        for value in VALUES {
            let count = counters.evicted.get(value).copied().unwrap_or_default();
            let labels = vec![self.node.clone(), (*value).to_owned()];
            samples.push(("wiretag_flow_table_evictions_total", labels, count as f64));
        }
        for (reason, count) in &counters.refused {
            let labels = vec![self.node.clone(), (*reason).to_owned()];
            samples.push(("wiretag_capture_refused_packets_total", labels, *count as f64));
        }
        samples.extend(self.kernel_samples());
        for (source, count) in stages.identities {
            samples.push(("wiretag_identities", vec![source], count as f64));
        }
        samples.extend(self.sources.samples());
        samples.extend(self.peers.samples());
        samples
    }

    fn kernel_samples(&self) -> Vec<Sample> {
        let (kernel, node) = (&self.kernel, || vec![self.node.clone()]);
        let mut samples = vec![
            ("wiretag_kernel_sockets", node(), kernel.sockets() as f64),
            ("wiretag_kernel_translations", node(), kernel.translations() as f64),
            ("wiretag_kernel_rounds_total", node(), kernel.rounds() as f64),
            ("wiretag_kernel_round_seconds_total", node(), kernel.round_ns() as f64 / 1e9),
        ];
        let missed = kernel.missed().into_iter();
        let labels = |reason: &str| vec![self.node.clone(), reason.to_owned()];
        samples.extend(missed.map(|(reason, count)| ("wiretag_kernel_missed_total", labels(reason), count as f64)));
        samples
    }

    fn families(&self) -> prometheus::Result<Vec<MetricFamily>> {
        let samples = self.samples();
        let mut families = Vec::new();
        for family in FAMILIES {
            let own = samples.iter().filter(|(name, ..)| *name == family.name);
            let options = Opts::new(family.name, family.help);
            if family.counter {
                let values = CounterVec::new(options, family.labels)?;
                own.for_each(|(_, labels, value)| values.with_label_values(&as_str(labels)).inc_by(*value));
                families.extend(values.collect());
            } else {
                let values = GaugeVec::new(options, family.labels)?;
                own.for_each(|(_, labels, value)| values.with_label_values(&as_str(labels)).set(*value));
                families.extend(values.collect());
            }
        }
        Ok(families)
    }
}

fn as_str(labels: &[String]) -> Vec<&str> {
    labels.iter().map(String::as_str).collect()
}

impl Collector for StageCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.families().unwrap_or_else(|error| {
            tracing::error!("metrics cannot be collected: {error}");
            Vec::new()
        })
    }
}
