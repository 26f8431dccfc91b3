//! What an inspected container and the links in its network namespace say together.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard::Docker;
use bollard::models::{ContainerInspectResponse, EndpointSettings};
use tokio::sync::mpsc;
use wiretag_capture::ring::links::{self, Link, LinkKind};
use wiretag_capture::ring::{in_namespace, namespace_inode};

use crate::event::{IdentityEvent, address};
use crate::identity::{Identity, Interval, Key};

/// Networks by id: driver, and the bridge in the host's namespace.
#[derive(Default)]
pub(super) struct Networks {
    by_id: HashMap<String, Network>,
}

struct Network {
    driver: String,
    bridge: Option<String>,
}

impl Networks {
    pub(super) async fn list(docker: &Docker) -> Result<Self, bollard::errors::Error> {
        let mut by_id = HashMap::new();
        for network in docker.list_networks(None).await? {
            let (Some(id), Some(driver)) = (network.id, network.driver) else { continue };
            let named = network.options.and_then(|mut options| options.remove("com.docker.network.bridge.name"));
            let bridge = named.or_else(|| Some(format!("br-{}", id.get(..12)?))).filter(|_| driver == "bridge");
            by_id.insert(id, Network { driver, bridge });
        }
        Ok(Self { by_id })
    }

    /// Says which bridges belong to which network.
    pub(super) async fn announce(&self, events: &mpsc::Sender<IdentityEvent>) {
        let links = blocking(links::list).await.and_then(Result::ok).unwrap_or_default();
        for (id, network) in &self.by_id {
            let bridge = links.iter().find(|link| Some(&link.name) == network.bridge.as_ref());
            if let Some(bridge) = bridge {
                let event = IdentityEvent::Network { index: bridge.index, netns: 0, network: id.as_str().into() };
                let _ = events.send(event).await;
            }
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// What one look at a container gave.
pub(super) struct Seen {
    pub(super) found: Vec<IdentityEvent>,
    /// Container id, inode and event of a namespace to capture in.
    pub(super) namespace: Option<(String, u64, IdentityEvent)>,
    /// Every network's interface was found.
    pub(super) complete: bool,
}

/// When the container ended, ns.
pub(super) fn finished_at(container: &ContainerInspectResponse) -> Option<i64> {
    time(container.state.as_ref()?.finished_at.as_deref()?)
}

/// RFC 3339 to ns; Docker's zero time is none.
fn time(text: &str) -> Option<i64> {
    chrono::DateTime::parse_from_rfc3339(text).ok()?.timestamp_nanos_opt().filter(|time| *time > 0)
}

/// Keys of a container that has a network namespace of its own; `None` if it has not (or is not known).
pub(super) async fn container(
    container: &ContainerInspectResponse,
    networks: &Networks,
    host: &Arc<str>,
    boot: &Arc<str>,
    now: i64,
) -> Option<Seen> {
    let id = container.id.clone()?;
    let mode = container.host_config.as_ref()?.network_mode.clone().unwrap_or_default();
    if mode == "host" || mode == "none" || mode.starts_with("container:") {
        return None;
    }
    let state = container.state.as_ref()?;
    let from = state.started_at.as_deref().and_then(time)?;
    let to = if state.running == Some(true) { None } else { finished_at(container) };
    let identity = Arc::new(identity(&id, container, host));
    let learned = |key: Key| {
        let identity = identity.clone();
        let source = "docker".into();
        IdentityEvent::Learned(Interval { key, identity, valid_from: from, valid_to: to, learned_at: now, source })
    };
    let endpoints: Vec<EndpointSettings> =
        container.network_settings.as_ref()?.networks.clone().unwrap_or_default().into_values().collect();
    let mut found: Vec<IdentityEvent> = endpoints.iter().flat_map(address_keys).map(&learned).collect();
    let pid = state.pid.filter(|pid| *pid > 0);
    let Some(pid) = pid else { return Some(Seen { found, namespace: None, complete: true }) };
    let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
    let Some(inside) = look_inside(&path).await else { return Some(Seen { found, namespace: None, complete: false }) };

    let mut in_namespace = Vec::new();
    let mut matched = 0;
    for (link, network) in inside.attached(&endpoints) {
        matched += 1;
        let bridged = networks.by_id.get(&network).is_some_and(|network| network.driver == "bridge");
        let outside = inside.outside.iter().find(|outside| bridged && are_pair(link, outside));
        let (index, netns) = if let Some(outside) = outside {
            (outside.index, 0)
        } else {
            in_namespace.push((link.index, link.name.clone()));
            (link.index, inside.inode)
        };
        found.push(IdentityEvent::Network { index, netns, network: network.as_str().into() });
        found.push(learned(Key::Interface { index, netns, boot: boot.clone() }));
    }
    let namespace = (!in_namespace.is_empty()).then(|| {
        let (inode, netns) = (inside.inode, path);
        (id, inode, IdentityEvent::Namespace { identity, netns, inode, interfaces: in_namespace })
    });
    Some(Seen { found, namespace, complete: matched >= endpoints.len() && !endpoints.is_empty() })
}

/// Keys by address of an endpoint.
fn address_keys(endpoint: &EndpointSettings) -> impl Iterator<Item = Key> + use<> {
    let network: Arc<str> = endpoint.network_id.as_deref().unwrap_or("").into();
    let ips = [&endpoint.ip_address, &endpoint.global_ipv6_address].map(|ip| address(ip.as_deref()));
    ips.into_iter().flatten().filter(|ip| !ip.is_unspecified()).map(move |ip| Key::Ip { network: network.clone(), ip })
}

fn identity(id: &str, container: &ContainerInspectResponse, host: &Arc<str>) -> Identity {
    let config = container.config.as_ref();
    let labels = config.and_then(|config| config.labels.clone()).unwrap_or_default();
    let label = |name: &str| labels.get(name).map(String::as_str);
    let compose = label("com.docker.compose.project").zip(label("com.docker.compose.service"));
    let (workload, kind) = match (compose, label("com.docker.swarm.service.name")) {
        (Some((project, service)), _) => (Some(format!("{project}/{service}")), Some("compose")),
        (None, Some(service)) => (Some(service.to_owned()), Some("swarm")),
        (None, None) => (None, None),
    };
    Identity {
        identity: id.into(),
        host: Some(host.clone()),
        container: container.name.as_deref().map(|name| name.trim_start_matches('/').into()),
        workload: workload.map(Into::into),
        workload_kind: kind.map(Into::into),
        image: config.and_then(|config| config.image.as_deref()).map(Into::into),
        labels: labels.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect(),
        ..Identity::default()
    }
}

/// Links inside a container's namespace, and those of the host.
struct Inside {
    inode: u64,
    links: Vec<Link>,
    outside: Vec<Link>,
}

impl Inside {
    /// Links that belong to an endpoint, by address, with the endpoint's network.
    fn attached<'a>(&'a self, endpoints: &'a [EndpointSettings]) -> impl Iterator<Item = (&'a Link, String)> {
        self.links.iter().filter_map(|link| {
            let mac = wiretag_capture::Value::mac_text(link.mac?);
            let endpoint = endpoints.iter().find(|own| own.mac_address.as_deref() == Some(&*mac))?;
            Some((link, endpoint.network_id.clone()?))
        })
    }
}

async fn look_inside(path: &Path) -> Option<Inside> {
    let path = path.to_owned();
    let look = move || {
        let inode = namespace_inode(&path).ok()?;
        let outside = links::list().ok()?;
        let inside = in_namespace(&path, links::list).ok()?.ok()?;
        (namespace_inode(Path::new("/proc/self/ns/net")).ok()? != inode).then_some(Inside {
            inode,
            links: inside,
            outside,
        })
    };
    blocking(look).await.flatten()
}

/// Whether `outside` is the host's end of the veth `inside`: each names the other as its peer.
fn are_pair(inside: &Link, outside: &Link) -> bool {
    let veths = inside.kind == LinkKind::Veth && outside.kind == LinkKind::Veth;
    veths && inside.peer == Some(outside.index) && outside.peer == Some(inside.index)
}
