//! What is read of Kubernetes' objects: only the fields that identities need, so that everything else (managed fields,
//! environments, volumes) is skipped while it is parsed, and an unknown version of an object is no trouble.
//!
//! Source: the API reference of Kubernetes, versions 1.20 to 1.37.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};

/// Go writes an empty list or map as `null`.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(input: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

/// `metadata`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Meta {
    pub(super) name: Arc<str>,
    pub(super) namespace: Option<Arc<str>>,
    pub(super) uid: Arc<str>,
    resource_version: String,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    #[serde(deserialize_with = "nullable")]
    pub(super) labels: BTreeMap<Arc<str>, Arc<str>>,
    #[serde(deserialize_with = "nullable")]
    pub(super) annotations: Annotations,
    #[serde(deserialize_with = "nullable")]
    owner_references: Vec<OwnerReference>,
}

impl Meta {
    /// Versions of one object grow (the number of the change in etcd); 0 if it says none.
    pub(super) fn version(&self) -> u64 {
        self.resource_version.parse().unwrap_or(0)
    }

    /// When it was created, by the API server's clock, ns.
    pub(super) fn created(&self) -> Option<i64> {
        self.creation_timestamp.map(|time| time.0)
    }

    /// Whether it is being deleted, in order.
    pub(super) fn is_ending(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    /// What manages it.
    pub(super) fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|owner| owner.controller)
    }
}

/// The annotations that say what the kubelet calls a static pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Annotations {
    #[serde(rename = "kubernetes.io/config.mirror")]
    pub(super) mirror: Option<Arc<str>>,
}

/// What an object belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct OwnerReference {
    pub(super) kind: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) uid: Arc<str>,
    #[serde(deserialize_with = "nullable")]
    controller: bool,
}

/// A time of whole seconds, ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Time(pub(super) i64);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        let time = chrono::DateTime::parse_from_rfc3339(&text).map_err(serde::de::Error::custom)?;
        Ok(Self(time.timestamp_nanos_opt().unwrap_or(0)))
    }
}

/// An object of which only the metadata matter: the owners of pods.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Bare {
    pub(super) metadata: Meta,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pod {
    pub(super) metadata: Meta,
    pub(super) spec: PodSpec,
    pub(super) status: PodStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodSpec {
    pub(super) node_name: Option<Arc<str>>,
    #[serde(deserialize_with = "nullable")]
    pub(super) host_network: bool,
    #[serde(deserialize_with = "nullable")]
    pub(super) containers: Vec<Container>,
    #[serde(deserialize_with = "nullable")]
    pub(super) init_containers: Vec<Container>,
    #[serde(deserialize_with = "nullable")]
    pub(super) ephemeral_containers: Vec<Container>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Container {
    pub(super) name: Arc<str>,
    pub(super) image: Option<Arc<str>>,
    #[serde(deserialize_with = "nullable")]
    pub(super) ports: Vec<ContainerPort>,
    /// `Always`: an init container that goes on beside the others.
    pub(super) restart_policy: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ContainerPort {
    pub(super) container_port: i64,
    pub(super) protocol: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs", deserialize_with = "nullable")]
    pod_ips: Vec<PodIp>,
    #[serde(deserialize_with = "nullable")]
    pub(super) container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "nullable")]
    pub(super) init_container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "nullable")]
    pub(super) ephemeral_container_statuses: Vec<ContainerStatus>,
}

impl PodStatus {
    /// Whether all its containers have ended for good: its address is free, though the object stays.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    /// Its addresses.
    pub(super) fn ips(&self) -> Vec<IpAddr> {
        let several = self.pod_ips.iter().map(|own| own.ip.as_str());
        let mut ips: Vec<IpAddr> = several.chain(self.pod_ip.as_deref()).filter_map(|ip| ip.parse().ok()).collect();
        ips.sort_unstable();
        ips.dedup();
        ips
    }

    /// Containers of every kind.
    pub(super) fn all(&self) -> impl Iterator<Item = &ContainerStatus> {
        let own = self.container_statuses.iter().chain(&self.init_container_statuses);
        own.chain(&self.ephemeral_container_statuses)
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ContainerStatus {
    pub(super) name: Arc<str>,
    #[serde(rename = "containerID")]
    pub(super) container_id: Option<String>,
    pub(super) restart_count: i64,
    #[serde(deserialize_with = "nullable")]
    pub(super) state: ContainerState,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ContainerState {
    pub(super) running: Option<Run>,
    pub(super) terminated: Option<Run>,
}

/// From when to when a container ran, by its node's clock.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Run {
    pub(super) started_at: Option<Time>,
    pub(super) finished_at: Option<Time>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Node {
    pub(super) metadata: Meta,
    #[serde(deserialize_with = "nullable")]
    pub(super) status: NodeStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct NodeStatus {
    #[serde(deserialize_with = "nullable")]
    pub(super) addresses: Vec<NodeAddress>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct NodeAddress {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) address: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Service {
    pub(super) metadata: Meta,
    #[serde(deserialize_with = "nullable")]
    pub(super) spec: ServiceSpec,
    #[serde(deserialize_with = "nullable")]
    pub(super) status: ServiceStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ServiceSpec {
    #[serde(rename = "clusterIP")]
    pub(super) cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs", deserialize_with = "nullable")]
    pub(super) cluster_ips: Vec<String>,
    #[serde(rename = "externalIPs", deserialize_with = "nullable")]
    pub(super) external_ips: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(super) ports: Vec<Port>,
}

/// A port of a service, an endpoint slice or endpoints.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Port {
    #[serde(rename = "port")]
    pub(super) number: Option<i64>,
    /// Of a service: the port that it has on every node.
    #[serde(rename = "nodePort")]
    pub(super) on_nodes: Option<i64>,
    pub(super) protocol: Option<String>,
}

impl Port {
    /// IP protocol and number; the API's default is TCP.
    pub(super) fn number(&self) -> Option<(u8, u16)> {
        Some((protocol(self.protocol.as_deref())?, port(self.number?)?))
    }

    /// The same of the port on every node, if it has one.
    pub(super) fn on_nodes(&self) -> Option<(u8, u16)> {
        Some((protocol(self.protocol.as_deref())?, port(self.on_nodes?)?))
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ServiceStatus {
    #[serde(deserialize_with = "nullable")]
    pub(super) load_balancer: LoadBalancer,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct LoadBalancer {
    #[serde(deserialize_with = "nullable")]
    pub(super) ingress: Vec<Ingress>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Ingress {
    pub(super) ip: Option<String>,
}

/// An EndpointSlice, `v1` or `v1beta1`: what is read of it is the same in both.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Slice {
    pub(super) metadata: Meta,
    #[serde(deserialize_with = "nullable")]
    pub(super) endpoints: Vec<Endpoint>,
    #[serde(deserialize_with = "nullable")]
    pub(super) ports: Vec<Port>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Endpoint {
    #[serde(deserialize_with = "nullable")]
    pub(super) addresses: Vec<String>,
}

/// Endpoints, the older form of slices: one object for a service, with its name.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Endpoints {
    pub(super) metadata: Meta,
    #[serde(deserialize_with = "nullable")]
    pub(super) subsets: Vec<Subset>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Subset {
    #[serde(deserialize_with = "nullable")]
    pub(super) addresses: Vec<SubsetAddress>,
    #[serde(deserialize_with = "nullable")]
    pub(super) not_ready_addresses: Vec<SubsetAddress>,
    #[serde(deserialize_with = "nullable")]
    pub(super) ports: Vec<Port>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct SubsetAddress {
    pub(super) ip: String,
}

/// The number of an IP protocol that a port can have.
pub(super) fn protocol(name: Option<&str>) -> Option<u8> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(6),
        "UDP" => Some(17),
        "SCTP" => Some(132),
        _ => None,
    }
}

/// A port number.
pub(super) fn port(number: i64) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port > 0)
}
