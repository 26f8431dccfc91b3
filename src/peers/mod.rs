//! Flows of others in ([`netflow`]), ours out ([`ipfix`], [`otlp`]): all are off unless they are configured, and none delays the pipeline.

mod ipfix;
mod netflow;
mod otlp;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::{mpsc, oneshot};
use wiretag_enrich::TaggedFlow;

use self::ipfix::{IpfixSender, IpfixStatus};
use self::netflow::NetflowStatus;
use self::otlp::{OtlpSender, OtlpStatus};
use crate::config::RunConfig;
use crate::metrics::Sample;
use crate::worker::{CaptureStatus, RecordBatch};
use crate::workers::WorkerThreads;

/// What is known of all.
#[derive(Default)]
pub(crate) struct Peers {
    netflow: Option<Arc<NetflowStatus>>,
    ipfix: Option<Arc<IpfixStatus>>,
    otlp: Option<Arc<OtlpStatus>>,
}

/// Where rows leave for receivers.
#[derive(Default)]
pub(crate) struct Exporters {
    ipfix: Option<IpfixSender>,
    otlp: Option<OtlpSender>,
}

impl Exporters {
    /// Hands on the primary ones of these rows; never waits.
    pub(crate) fn publish(&mut self, rows: &[TaggedFlow]) {
        if let Some(sender) = &mut self.ipfix {
            sender.publish(rows);
        }
        if let Some(sender) = &mut self.otlp {
            sender.publish(rows);
        }
    }
}

/// Reads what the configuration names, as a start does; connects nowhere.
pub(crate) fn check(config: &RunConfig) -> anyhow::Result<()> {
    config.otlp.as_ref().map_or(Ok(()), otlp::check)
}

/// Where rows leave, and who tells when all of them have left.
pub(crate) type Export = (Exporters, Vec<oneshot::Receiver<()>>);

impl Peers {
    /// Starts what is configured: the listener is one of the workers, which end when `stop` says so.
    pub(crate) fn start(
        config: &RunConfig,
        (records, capture): (&mpsc::Sender<RecordBatch>, &Arc<CaptureStatus>),
        (workers, stop): (&WorkerThreads, &Arc<AtomicBool>),
    ) -> anyhow::Result<(Arc<Self>, Export)> {
        let mut peers = Self::default();
        if let Some(config) = &config.netflow {
            let (status, thread) = netflow::start(config.clone(), records.clone(), capture.clone(), stop.clone())?;
            workers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(thread);
            peers.netflow = Some(status);
        }
        let mut export = Export::default();
        if let Some(config) = &config.ipfix {
            let (status, sender, done) = ipfix::start(config.clone())?;
            peers.ipfix = Some(status);
            export.0.ipfix = Some(sender);
            export.1.push(done);
        }
        if let Some(own) = &config.otlp {
            let kubernetes = config.kubernetes.is_some();
            let resource = [
                ("service.name", Some("wiretag")),
                ("service.version", Some(env!("CARGO_PKG_VERSION"))),
                ("host.name", Some(&*config.node)),
                ("k8s.node.name", kubernetes.then_some(&*config.node)),
                ("k8s.cluster.name", kubernetes.then_some(&*config.cluster)),
            ];
            let (status, sender, done) = otlp::start(own.clone(), &resource)?;
            peers.otlp = Some(status);
            export.0.otlp = Some(sender);
            export.1.push(done);
        }
        Ok((Arc::new(peers), export))
    }

    /// Rows that exporters sent and that are missing, at least.
    pub(crate) fn missing(&self) -> u64 {
        self.netflow.as_ref().map_or(0, |status| status.counters().missing())
    }

    /// Figures for `/metrics`.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let netflow = self.netflow.iter().flat_map(|status| status.samples());
        let ipfix = self.ipfix.iter().flat_map(|status| status.samples());
        netflow.chain(ipfix).chain(self.otlp.iter().flat_map(|status| status.samples())).collect()
    }

    /// For `health`: where records are heard, and where they go.
    pub(crate) fn words(&self) -> serde_json::Value {
        serde_json::json!({
            "netflow": self.netflow.as_ref().map(|status| status.address.to_string()),
            "ipfix": self.ipfix.as_ref().map(|status| status.words()),
            "otlp": self.otlp.as_ref().map(|status| status.words()),
        })
    }
}
