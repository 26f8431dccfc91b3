//! What the runtime's answers say, in our words.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::generated::runtime::{ContainerState, ContainerStatus, NamespaceMode, PodSandboxStatusResponse};
use crate::event::address;

/// Labels that repeat what is told elsewhere.
const INTERNAL_LABELS: &str = "io.kubernetes.";

/// A pod's sandbox that is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sandbox {
    pub(super) id: Arc<str>,
    pub(super) uid: String,
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) labels: BTreeMap<Arc<str>, Arc<str>>,
    /// When its network was there and none of its containers yet.
    pub(super) from: i64,
    /// It has no network namespace of its own.
    pub(super) host_network: bool,
    pub(super) ips: Vec<IpAddr>,
    /// Paths that may lead to its network namespace: one that is mounted where wiretag does not see it leads nowhere.
    pub(super) netns: Vec<PathBuf>,
    /// What was found inside, once it was looked into.
    pub(super) inside: Option<Inside>,
}

/// A pod's network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inside {
    pub(super) path: PathBuf,
    pub(super) inode: u64,
    pub(super) interfaces: Vec<Interface>,
}

/// An interface in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) index: u32,
    /// Its link-layer address, if that is its own: an ipvlan has the one of the device below.
    pub(super) mac: Option<[u8; 6]>,
    /// The host's end of its veth, and the bridge that this is a port of.
    pub(super) outside: Option<(u32, Option<u32>)>,
    /// Addresses that it has.
    pub(super) ips: Vec<IpAddr>,
    /// Name of the host's device that it is attached to (a bridge, or the one below a macvlan or ipvlan), if it is one.
    pub(super) on: Option<String>,
}

/// A container; a sandbox's own process is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) id: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) image: Option<Arc<str>>,
    /// When it was started, ns; 0: not yet.
    pub(super) from: i64,
    /// When it ended, ns.
    pub(super) to: Option<i64>,
}

impl Sandbox {
    /// From a verbose status; `None` without what makes it a pod.
    pub(super) fn new(answer: PodSandboxStatusResponse) -> Option<Self> {
        let status = answer.status?;
        let metadata = status.metadata?;
        let options = status.linux.and_then(|linux| linux.namespaces).and_then(|namespaces| namespaces.options);
        let host_network = options.is_some_and(|options| options.network() == NamespaceMode::Node);
        let network = status.network.unwrap_or_default();
        let ips = network.additional_ips.iter().map(|own| own.ip.as_str());
        let ips = std::iter::once(network.ip.as_str()).chain(ips).filter_map(|ip| address(Some(ip)));
        let labels = status.labels.into_iter().filter(|(key, _)| !key.starts_with(INTERNAL_LABELS));
        Some(Self {
            id: status.id.into(),
            uid: metadata.uid,
            namespace: metadata.namespace,
            pod: metadata.name,
            labels: labels.map(|(key, value)| (key.into(), value.into())).collect(),
            from: status.created_at,
            host_network,
            ips: if host_network { Vec::new() } else { ips.collect() },
            netns: answer.info.get("info").filter(|_| !host_network).map(|info| netns(info)).unwrap_or_default(),
            inside: None,
        })
    }
}

/// The network namespace, as containerd and CRI-O tell it: that of the OCI configuration, and that of the process.
fn netns(info: &str) -> Vec<PathBuf> {
    let info: Value = serde_json::from_str(info).unwrap_or_default();
    let namespaces = info.pointer("/runtimeSpec/linux/namespaces").and_then(Value::as_array);
    let network = namespaces.into_iter().flatten().filter(|own| own["type"] == "network");
    let paths = network.filter_map(|own| own["path"].as_str()).filter(|path| !path.is_empty()).map(PathBuf::from);
    let pid = info["pid"].as_u64().filter(|pid| *pid > 0);
    paths.chain(pid.map(|pid| format!("/proc/{pid}/ns/net").into())).collect()
}

impl Container {
    pub(super) fn new(status: ContainerStatus) -> Option<Self> {
        let state = status.state();
        let image = status.image.unwrap_or_default();
        // What the pod asked for says more than the digest that it became.
        let images = [image.user_specified_image, image.image, status.image_ref];
        Some(Self {
            id: status.id.into(),
            name: status.metadata?.name.into(),
            image: images.into_iter().find(|image| !image.is_empty()).map(Into::into),
            from: status.started_at,
            to: (state == ContainerState::ContainerExited).then_some(status.finished_at).filter(|at| *at > 0),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::generated::runtime::{PodIp, PodSandboxMetadata, PodSandboxNetworkStatus, PodSandboxStatus};
    use super::*;

    /// A sandbox with two addresses, and what the runtime adds when it is asked for more.
    fn sandbox(info: &[(&str, &str)]) -> Sandbox {
        let metadata = PodSandboxMetadata { name: "cart".into(), uid: "u-cart".into(), namespace: "shop".into() };
        let additional_ips = vec![PodIp { ip: "fd00::7".into() }];
        let status = PodSandboxStatus {
            id: "s1".into(),
            metadata: Some(metadata),
            created_at: 10,
            network: Some(PodSandboxNetworkStatus { ip: "10.1.0.7".into(), additional_ips }),
            ..PodSandboxStatus::default()
        };
        let info = info.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<HashMap<_, _>>();
        Sandbox::new(PodSandboxStatusResponse { status: Some(status), info }).expect("a pod")
    }

    /// What runtimes add is theirs to choose: without it the pod has its name and its addresses.
    #[test]
    fn answers_of_other_runtimes_are_taken_for_what_they_say() {
        let crio = r#"{"image":"registry.k8s.io/pause:3.10","pid":812,"runtimeSpec":{"ociVersion":"1.2.0","linux":{"namespaces":
            [{"type":"network","path":"/var/run/netns/5f0c"},{"type":"ipc","path":"/var/run/ipcns/5f0c"}]}}}"#;
        let flat = r#"{"sandboxID":"s1","pid":"812","runtimeSpec":[]}"#;
        let process = r#"{"pid":812,"sandboxMetadata":{"NetNSPath":"/run/netns/other"}}"#;
        for (info, expected) in [
            (vec![("info", crio)], vec!["/var/run/netns/5f0c", "/proc/812/ns/net"]),
            (vec![("info", process)], vec!["/proc/812/ns/net"]),
            (vec![("info", flat)], vec![]),
            (vec![("info", "")], vec![]),
            (vec![("details", crio)], vec![]),
            (vec![], vec![]),
        ] {
            let found = sandbox(&info);
            let expected: Vec<PathBuf> = expected.into_iter().map(PathBuf::from).collect();
            assert_eq!(found.netns, expected, "{info:?}");
            assert_eq!(found.ips.len(), 2, "{info:?}");
            assert_eq!((found.pod.as_str(), found.from, found.host_network), ("cart", 10, false), "{info:?}");
        }
    }

    fn check(info: &str, expected: &[&str]) {
        let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
        assert_eq!(netns(info), expected, "{info}");
    }

    #[test]
    fn the_namespace_is_where_the_runtime_says() {
        let spec = r#"{"pid":7,"runtimeSpec":{"linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/run/netns/x"}]}}}"#;
        check(spec, &["/run/netns/x", "/proc/7/ns/net"]);
        check(r#"{"pid":7}"#, &["/proc/7/ns/net"]);
        check(r#"{"pid":0,"runtimeSpec":null}"#, &[]);
        check("not JSON", &[]);
    }
}
