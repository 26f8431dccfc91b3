//! Flows of others in ([`netflow`]), ours out ([`ipfix`]): both are off unless they are configured, and neither delays the pipeline.

mod ipfix;
mod netflow;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::{mpsc, oneshot};

pub(crate) use self::ipfix::IpfixSender;
use self::ipfix::IpfixStatus;
use self::netflow::NetflowStatus;
use crate::config::RunConfig;
use crate::metrics::Sample;
use crate::worker::{CaptureStatus, RecordBatch};
use crate::workers::WorkerThreads;

/// What is known of both.
#[derive(Default)]
pub(crate) struct Peers {
    netflow: Option<Arc<NetflowStatus>>,
    ipfix: Option<Arc<IpfixStatus>>,
}

/// Where rows leave for a receiver, and who tells when all of them have left.
pub(crate) type Export = (Option<IpfixSender>, Option<oneshot::Receiver<()>>);

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
        let mut export = (None, None);
        if let Some(config) = &config.ipfix {
            let (status, sender, done) = ipfix::start(config.clone())?;
            peers.ipfix = Some(status);
            export = (Some(sender), Some(done));
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
        netflow.chain(self.ipfix.iter().flat_map(|status| status.samples())).collect()
    }

    /// For `health`: where records are heard, and where they go.
    pub(crate) fn words(&self) -> serde_json::Value {
        serde_json::json!({
            "netflow": self.netflow.as_ref().map(|status| status.address.to_string()),
            "ipfix": self.ipfix.as_ref().map(|status| status.words()),
        })
    }
}
