//! The identity sources: which run, and how each is doing.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use wiretag_enrich::docker::{DockerSource, DockerStatus};
use wiretag_enrich::kernel::KernelStatus;
use wiretag_enrich::kubernetes::KubernetesSource;
use wiretag_enrich::{IdentityEvent, SourceStatus};

use crate::config::RunConfig;

/// What all sources are given.
pub(crate) struct Surroundings {
    pub(crate) boot: Arc<str>,
    /// Until when an earlier run listened, ns.
    pub(crate) heard: Option<i64>,
    pub(crate) events: mpsc::Sender<IdentityEvent>,
    /// State of the kernel source, which has a thread of its own.
    pub(crate) kernel: watch::Receiver<KernelStatus>,
}

/// See the module documentation.
#[derive(Clone)]
pub(crate) struct Sources {
    states: Vec<(&'static str, watch::Receiver<SourceStatus>)>,
    /// State of the Docker source.
    pub(crate) docker: watch::Receiver<DockerStatus>,
    /// State of the kernel source.
    pub(crate) kernel: watch::Receiver<KernelStatus>,
}

impl Sources {
    /// Starts all that are wanted.
    pub(crate) fn start(config: &RunConfig, around: Surroundings) -> (Self, Vec<JoinHandle<()>>) {
        let Surroundings { boot, heard, events, kernel } = around;
        let mut tasks = Vec::new();

        let mut kubernetes = off();
        if let Some(config) = config.kubernetes.clone() {
            let source = KubernetesSource::new(config, heard);
            kubernetes = source.status();
            tasks.push(tokio::spawn(source.run(events.clone())));
        }

        let docker = DockerSource::new(config.docker.clone(), config.node.as_str().into(), boot, heard);
        let docker_status = docker.status();
        tasks.push(tokio::spawn(docker.run(events)));
        (Self { states: vec![("kubernetes", kubernetes)], docker: docker_status, kernel }, tasks)
    }

    /// State of the kernel source, in words.
    pub(crate) fn kernel(&self) -> String {
        self.kernel.borrow().to_string()
    }

    /// Name and state of each.
    pub(crate) fn states(&self) -> impl Iterator<Item = (&'static str, SourceStatus)> {
        self.states.iter().map(|(name, state)| (*name, state.borrow().clone()))
    }

    /// Name and state in words of each, for `health`.
    pub(crate) fn words(&self) -> serde_json::Value {
        self.states()
            .map(|(name, state)| (name.to_owned(), state.to_string().into()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

/// The state of a source that is not wanted.
fn off() -> watch::Receiver<SourceStatus> {
    watch::Sender::new(SourceStatus::Off).subscribe()
}
