//! Who an end of a flow is, and the intervals during which a key meant that identity.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The name that stands for "network not known" (capture files, static entries without a network).
pub const ANY_NETWORK: &str = "";

/// What the names of VRFs' networks begin with: `vrf:blue`. Their addresses are others than the host's.
pub const VRF: &str = "vrf:";

/// What the ids of a cluster's nodes begin with.
pub(crate) const NODE: &str = "node:";

/// A container, pod, VM or other end, with the attributes of one version.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// The key that never changes: pod UID, container id, `static:NAME`.
    pub identity: Arc<str>,
    /// Cluster.
    pub cluster: Option<Arc<str>>,
    /// Node that runs it.
    pub host: Option<Arc<str>>,
    /// Kubernetes namespace.
    pub namespace: Option<Arc<str>>,
    /// Pod name.
    pub pod: Option<Arc<str>>,
    /// Container name.
    pub container: Option<Arc<str>>,
    /// Owner: deployment, compose `project/service`.
    pub workload: Option<Arc<str>>,
    /// Kind of owner.
    pub workload_kind: Option<Arc<str>>,
    /// Service.
    pub service: Option<Arc<str>>,
    /// Image reference.
    pub image: Option<Arc<str>>,
    /// Zone.
    pub zone: Option<Arc<str>>,
    /// Labels.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Of a pod: its containers. One of several is named only where a port or a socket tells which.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<Member>,
}

/// A container of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
pub struct Member {
    /// Its name.
    pub container: Arc<str>,
    /// Its image reference.
    pub image: Option<Arc<str>>,
    /// Ports that it declares: IP protocol and number.
    pub ports: Vec<(u8, u16)>,
}

/// What identifies an end on the wire, strongest first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Key {
    /// The host's end of a container's veth. `boot` is `/proc/sys/kernel/random/boot_id`; `netns` is the inode of the
    /// network namespace that holds the interface (0 for wiretag's own).
    Interface {
        /// Interface index.
        index: u32,
        /// Network namespace.
        netns: u64,
        /// Boot id.
        boot: Arc<str>,
    },
    /// Link-layer address within a network.
    Mac {
        /// Network (Docker network id), or [`ANY_NETWORK`].
        network: Arc<str>,
        /// Address.
        mac: [u8; 6],
    },
    /// IP address within a network.
    Ip {
        /// Network (Docker network id), or [`ANY_NETWORK`].
        network: Arc<str>,
        /// Address.
        ip: IpAddr,
    },
    /// A range of IP addresses within a network: names each of them that has no name of its own.
    Range {
        /// Network, as of [`Key::Ip`].
        network: Arc<str>,
        /// First address.
        ip: IpAddr,
        /// Length of the prefix, bits.
        prefix: u8,
    },
    /// A socket's own end: whose process it is, where an address is shared (host network, containers of one pod).
    Socket {
        /// Network namespace (inode; 0: wiretag's own).
        netns: u64,
        /// Boot id.
        boot: Arc<str>,
        /// IP protocol.
        protocol: u8,
        /// Own address; none: it listens on all.
        ip: Option<IpAddr>,
        /// Own port.
        port: u16,
    },
    /// Where a service answers: its virtual address, or one of its endpoints.
    Service {
        /// Network, as of [`Key::Ip`].
        network: Arc<str>,
        /// IP protocol.
        protocol: u8,
        /// Address.
        ip: IpAddr,
        /// Port.
        port: u16,
    },
}

/// `key` meant `identity` during `[valid_from, valid_to)`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Interval {
    /// Key on the wire.
    pub key: Key,
    /// Whom it meant.
    pub identity: Arc<Identity>,
    /// First nanosecond (epoch, UTC).
    pub valid_from: i64,
    /// First nanosecond after; `None` while it lasts.
    pub valid_to: Option<i64>,
    /// When wiretag learned it.
    pub learned_at: i64,
    /// Where from: `kubernetes`, `cri`, `docker`, `cni`, `kernel`, `static`.
    pub source: Arc<str>,
}
