//! What the plugin reads of its network configuration. Each part that is not as expected counts as absent: the plugin
//! says less then, and never fails.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::{LATEST, raw};
use crate::event::address;

/// The data directory of the service.
const DEFAULT_DATA: &str = "/var/lib/wiretag";

/// See the module documentation.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct NetworkConfig {
    #[serde(rename = "cniVersion")]
    version: Option<String>,
    name: Option<String>,
    #[serde(rename = "dataDir")]
    data: Option<PathBuf>,
    #[serde(rename = "cni.dev/valid-attachments", deserialize_with = "lenient")]
    valid: Option<Vec<Valid>>,
    /// The name in an early print of the specification.
    #[serde(rename = "cni.dev/attachments", deserialize_with = "lenient")]
    attachments: Option<Vec<Valid>>,
    #[serde(skip)]
    previous: Previous,
}

#[derive(Debug, Clone, Deserialize)]
struct Valid {
    #[serde(rename = "containerID")]
    container: String,
    ifname: String,
}

/// `prevResult`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Previous {
    interfaces: Vec<Interface>,
    ips: Vec<Ip>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Interface {
    name: String,
    mac: String,
    /// The container's namespace; empty for interfaces of the host.
    sandbox: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Ip {
    address: String,
    /// Which of `interfaces`.
    interface: Option<usize>,
}

/// A list of another shape is none.
fn lenient<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Valid>>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

impl NetworkConfig {
    pub(super) fn parse(text: &[u8]) -> Self {
        let mut config: Self = serde_json::from_slice(text).unwrap_or_default();
        let previous = raw::member(text, "prevResult").and_then(|previous| serde_json::from_slice(previous).ok());
        config.previous = previous.unwrap_or_default();
        config
    }

    /// The specification's version that is spoken.
    pub(super) fn version(&self) -> &str {
        self.version.as_deref().unwrap_or(LATEST)
    }

    pub(super) fn network(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// The agent's data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(|| DEFAULT_DATA.into())
    }

    /// Container id and interface of each attachment that is valid; `None` if that is not told.
    pub(super) fn valid(&self) -> Option<Vec<(String, String)>> {
        let list = self.valid.as_ref().or(self.attachments.as_ref())?;
        Some(list.iter().map(|own| (own.container.clone(), own.ifname.clone())).collect())
    }

    /// Link-layer address of an interface in the container.
    pub(super) fn mac(&self, ifname: &str) -> Option<[u8; 6]> {
        let mut inside = self.previous.interfaces.iter().filter(|own| !own.sandbox.is_empty());
        parse_mac(&inside.find(|own| own.name == ifname)?.mac)
    }

    /// Addresses inside the container.
    pub(super) fn ips(&self) -> Vec<IpAddr> {
        let is_inside = |ip: &&Ip| {
            let interface = ip.interface.and_then(|index| self.previous.interfaces.get(index));
            interface.is_none_or(|interface| !interface.sandbox.is_empty())
        };
        let own = self.previous.ips.iter().filter(is_inside);
        own.filter_map(|ip| address(Some(&ip.address))).collect()
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
