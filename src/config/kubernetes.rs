//! `[kubernetes]`: where the API server is, and what is asked of it.

use std::path::PathBuf;

use anyhow::bail;
use serde::Deserialize;
use wiretag_enrich::kubernetes::{KubernetesConfig, Scope};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table with settings of the Kubernetes source")]
pub(super) struct WrittenKubernetes {
    enabled: Option<bool>,
    kubeconfig: Option<PathBuf>,
    cluster: Option<String>,
    scope: Option<String>,
    node: Option<String>,
}

/// Wanted if a kubeconfig is named, or wiretag runs in a pod, unless it says otherwise.
pub(super) fn config(written: WrittenKubernetes, node: &str) -> anyhow::Result<Option<KubernetesConfig>> {
    let cluster = cluster(&written)?;
    let WrittenKubernetes { enabled, kubeconfig, scope, node: own, .. } = written;
    let scope = match scope.as_deref() {
        Some("cluster") | None => Scope::Cluster,
        Some("node") => Scope::Node,
        Some(other) => {
            bail!("`kubernetes.scope` is `{other}`; hint: `cluster`, or `node` for the pods of this node only")
        }
    };
    let in_cluster = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    if enabled == Some(true) && kubeconfig.is_none() && !in_cluster {
        bail!("`kubernetes.enabled` is true outside of a cluster; hint: name a file in `kubernetes.kubeconfig`");
    }
    let wanted = enabled.unwrap_or(kubeconfig.is_some() || in_cluster);
    let node = own.as_deref().unwrap_or(node).into();
    Ok(wanted.then(|| KubernetesConfig { kubeconfig, cluster: cluster.into(), scope, node }))
}

pub(super) fn cluster(written: &WrittenKubernetes) -> anyhow::Result<String> {
    let cluster = written.cluster.clone().unwrap_or_else(|| "kubernetes".to_owned());
    if cluster.is_empty() || cluster.contains('/') {
        bail!("`kubernetes.cluster` is `{cluster}`; hint: a name without `/`");
    }
    Ok(cluster)
}
