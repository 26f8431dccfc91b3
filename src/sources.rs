//! The identity sources: which run, and how each is doing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use wiretag_enrich::cni::{CniCounters, CniSource};
use wiretag_enrich::cri::CriSource;
use wiretag_enrich::docker::DockerSource;
use wiretag_enrich::kernel::{KernelSource, KernelStatus};
use wiretag_enrich::kubernetes::KubernetesSource;
use wiretag_enrich::static_file::StaticFile;
use wiretag_enrich::{IdentityEvent, SourceStatus};

use crate::config::RunConfig;
use crate::metrics::Sample;
use crate::static_identities::{self, Watched};

/// What all sources are given.
pub(crate) struct Surroundings {
    pub(crate) boot: Arc<str>,
    /// Until when an earlier run listened, ns.
    pub(crate) heard: Option<i64>,
    pub(crate) events: mpsc::Sender<IdentityEvent>,
    /// It has a thread of its own.
    pub(crate) kernel: KernelSource,
    /// The static file, if there is one, and where its changes go.
    pub(crate) file: Option<(Watched, mpsc::Sender<StaticFile>)>,
}

/// See the module documentation.
#[derive(Clone)]
pub(crate) struct Sources {
    states: Vec<(&'static str, watch::Receiver<SourceStatus>)>,
    /// State of the Docker source.
    pub(crate) docker: watch::Receiver<SourceStatus>,
    /// State of the kernel source.
    pub(crate) kernel: watch::Receiver<KernelStatus>,
    cni: Arc<CniCounters>,
}

impl Sources {
    /// Starts all that are wanted.
    pub(crate) fn start(config: &RunConfig, around: Surroundings) -> anyhow::Result<(Self, Vec<JoinHandle<()>>)> {
        let Surroundings { boot, heard, events, kernel: kernel_source, file } = around;
        let mut tasks = Vec::new();
        let kernel = kernel_source.status();
        kernel_source.start(events.clone()).context("cannot start the kernel source's thread")?;
        let host: Arc<str> = config.node.as_str().into();
        let cluster: Arc<str> = config.cluster.as_str().into();

        let mut kubernetes = off();
        if let Some(config) = config.kubernetes.clone() {
            let source = KubernetesSource::new(config, heard);
            kubernetes = source.status();
            tasks.push(tokio::spawn(source.run(events.clone())));
        }

        let docker = DockerSource::new(config.docker.clone(), host.clone(), boot.clone(), heard);
        let docker_status = docker.status();

        let cni = CniSource::new(config.data.clone(), cluster.clone(), host.clone(), boot.clone(), heard);
        let counters = cni.counters();
        let cri = CriSource::new(config.cri.as_ref().and_then(|cri| cri.endpoint.clone()), cluster, host, boot, heard);
        let mut statics = off();
        if let Some(((watcher, state), changes)) = file {
            let status = watch::Sender::new(state);
            statics = status.subscribe();
            tasks.push(tokio::spawn(static_identities::follow(watcher, changes, status)));
        }
        let states = vec![
            ("static", statics),
            ("kubernetes", kubernetes),
            ("cni", if config.cni { cni.status() } else { off() }),
            ("cri", if config.cri.is_some() { cri.status() } else { off() }),
        ];
        if config.cri.is_some() {
            tasks.push(tokio::spawn(cri.run(events.clone())));
        }
        if config.cni {
            tasks.push(tokio::spawn(cni.run(events.clone())));
        }
        tasks.push(tokio::spawn(docker.run(events)));
        Ok((Self { states, docker: docker_status, kernel, cni: counters }, tasks))
    }

    /// State of the kernel source, in words.
    pub(crate) fn kernel(&self) -> String {
        self.kernel.borrow().to_string()
    }

    /// Name and state of each.
    pub(crate) fn states(&self) -> impl Iterator<Item = (&'static str, SourceStatus)> {
        self.states.iter().map(|(name, state)| (*name, state.borrow().clone()))
    }

    /// Figures for `/metrics`.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let docker = self.docker.borrow().is_up();
        let states = self.states().map(|(name, state)| (name, state.is_up())).chain([("docker", docker)]);
        let mut samples: Vec<Sample> = states
            .map(|(name, is_up)| ("wiretag_identity_source_up", vec![name.to_owned()], f64::from(u8::from(is_up))))
            .collect();
        for (outcome, count) in
            [("taken", &self.cni.taken), ("refused", &self.cni.refused), ("dropped", &self.cni.dropped)]
        {
            let count = count.load(Ordering::Relaxed) as f64;
            samples.push(("wiretag_cni_records_total", vec![outcome.to_owned()], count));
        }
        samples
    }

    /// A sentence for each that is not heard though it should be.
    pub(crate) fn problems(&self) -> Vec<String> {
        let docker = ("docker", self.docker.borrow().clone());
        let absent = |(name, state): (&str, SourceStatus)| match state {
            SourceStatus::Absent { reason } => Some(format!("{name} is not heard: {reason}")),
            SourceStatus::Off
            | SourceStatus::Starting
            | SourceStatus::Connected
            | SourceStatus::Partial { .. }
            | SourceStatus::Waiting { .. }
            | SourceStatus::Unusable { .. } => None,
        };
        self.states().chain([docker]).filter_map(absent).collect()
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
