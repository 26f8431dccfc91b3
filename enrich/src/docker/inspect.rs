//! What Docker's answers and events say of a container.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use bollard::models::{ContainerInspectResponse, EndpointResource, EndpointSettings};

use crate::event::address;
use crate::identity::Identity;

/// Attributes of container events that are no labels.
const NOT_LABELS: &[&str] = &["name", "image", "exitCode", "execDuration", "signal", "oldName", "container"];

/// Addresses of a container in one network.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    pub(super) ips: Vec<IpAddr>,
    pub(super) mac: Option<[u8; 6]>,
    /// Id of its endpoint there.
    pub(super) endpoint: Option<Arc<str>>,
}

impl Addresses {
    fn of(ips: [Option<&str>; 2], mac: Option<&str>, endpoint: Option<&str>) -> Self {
        let ips = ips.into_iter().filter_map(address).filter(|ip| !ip.is_unspecified()).collect();
        let endpoint = endpoint.filter(|id| !id.is_empty()).map(Into::into);
        Self { ips, mac: mac.and_then(parse_mac), endpoint }
    }

    /// Whether they are the same addresses.
    pub(super) fn are(&self, other: &Self) -> bool {
        self.ips == other.ips && self.mac == other.mac
    }

    /// As the network says it.
    pub(super) fn of_resource(endpoint: &EndpointResource) -> Self {
        Self::of(
            [&endpoint.ipv4_address, &endpoint.ipv6_address].map(Option::as_deref),
            endpoint.mac_address.as_deref(),
            endpoint.endpoint_id.as_deref(),
        )
    }

    /// As the container says it, with the network.
    pub(super) fn of_settings(endpoint: &EndpointSettings) -> Option<(Arc<str>, Self)> {
        let network = endpoint.network_id.as_deref().filter(|id| !id.is_empty())?;
        let ips = [&endpoint.ip_address, &endpoint.global_ipv6_address].map(Option::as_deref);
        let own = Self::of(ips, endpoint.mac_address.as_deref(), endpoint.endpoint_id.as_deref());
        (!own.ips.is_empty() || own.mac.is_some()).then(|| (network.into(), own))
    }
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut parts = text.split(':');
    let mut mac = [0; 6];
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

/// RFC 3339 to ns; Docker's zero time is none.
fn time(text: &str) -> Option<i64> {
    chrono::DateTime::parse_from_rfc3339(text).ok()?.timestamp_nanos_opt().filter(|time| *time > 0)
}

/// When the container was started last, ns.
pub(super) fn started_at(container: &ContainerInspectResponse) -> Option<i64> {
    time(container.state.as_ref()?.started_at.as_deref()?)
}

/// When the container ended last, ns.
pub(super) fn finished_at(container: &ContainerInspectResponse) -> Option<i64> {
    time(container.state.as_ref()?.finished_at.as_deref()?)
}

pub(super) fn is_running(container: &ContainerInspectResponse) -> bool {
    container.state.as_ref().and_then(|state| state.running) == Some(true)
}

/// Its first process, while it runs.
pub(super) fn pid(container: &ContainerInspectResponse) -> Option<i64> {
    container.state.as_ref()?.pid.filter(|pid| *pid > 0)
}

/// Whether the container has a network namespace of its own.
pub(super) fn has_own_namespace(container: &ContainerInspectResponse) -> bool {
    let mode = container.host_config.as_ref().and_then(|config| config.network_mode.as_deref()).unwrap_or_default();
    !(mode == "host" || mode == "none" || mode.starts_with("container:"))
}

/// Names of its networks.
pub(super) fn networks(container: &ContainerInspectResponse) -> impl Iterator<Item = &String> {
    let networks = container.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    networks.into_iter().flatten().map(|(name, _)| name)
}

/// Id of its network sandbox.
pub(super) fn sandbox(container: &ContainerInspectResponse) -> Option<Arc<str>> {
    let id = container.network_settings.as_ref()?.sandbox_id.as_deref()?;
    (!id.is_empty()).then(|| id.into())
}

/// Who the container is.
pub(super) fn identity(id: &str, container: &ContainerInspectResponse, host: &Arc<str>) -> Identity {
    let config = container.config.as_ref();
    let labels = config.and_then(|config| config.labels.clone()).unwrap_or_default();
    let name = container.name.as_deref().map(|name| name.trim_start_matches('/'));
    named(id, name, config.and_then(|config| config.image.as_deref()), &labels, host)
}

/// Who the container is, from the attributes of one of its events: name, image and labels in one map.
pub(super) fn identity_of_event(id: &str, attributes: &HashMap<String, String>, host: &Arc<str>) -> Option<Identity> {
    let name = attributes.get("name")?;
    let labels = attributes.iter().filter(|(key, _)| !NOT_LABELS.contains(&key.as_str()));
    let labels = labels.map(|(key, value)| (key.clone(), value.clone())).collect();
    Some(named(id, Some(name), attributes.get("image").map(String::as_str), &labels, host))
}

fn named(
    id: &str,
    name: Option<&str>,
    image: Option<&str>,
    labels: &HashMap<String, String>,
    host: &Arc<str>,
) -> Identity {
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
        container: name.map(Into::into),
        workload: workload.map(Into::into),
        workload_kind: kind.map(Into::into),
        image: image.map(Into::into),
        labels: labels.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect(),
        ..Identity::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_is_gone_is_known_by_its_last_event() {
        let written = [
            ("name", "one5"),
            ("image", "box:1"),
            ("exitCode", "0"),
            ("com.docker.compose.project", "shop"),
            ("com.docker.compose.service", "web"),
        ];
        let attributes = written.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let found = identity_of_event("id", &attributes, &"node".into()).expect("it has a name");
        assert_eq!(found.container.as_deref(), Some("one5"));
        assert_eq!(found.image.as_deref(), Some("box:1"));
        assert_eq!(found.workload.as_deref(), Some("shop/web"));
        assert_eq!(found.labels.len(), 2, "{:?}", found.labels);
    }

    #[test]
    fn addresses_are_taken_from_a_network_and_nothing_from_an_empty_endpoint() {
        let endpoint = EndpointResource {
            mac_address: Some("02:42:c6:12:c8:03".into()),
            ipv4_address: Some("198.18.200.3/24".into()),
            ipv6_address: Some(String::new()),
            ..EndpointResource::default()
        };
        let found = Addresses::of_resource(&endpoint);
        assert_eq!(found.ips, ["198.18.200.3".parse::<IpAddr>().expect("an address")]);
        assert_eq!(found.mac, Some([0x02, 0x42, 0xc6, 0x12, 0xc8, 0x03]));
        let stopped =
            EndpointSettings { network_id: Some("n".into()), ip_address: Some(String::new()), ..Default::default() };
        assert!(Addresses::of_settings(&stopped).is_none());
    }
}
