//! What the CNI plugin tells the agent: one record a call, one line of JSON.
//!
//! A record stands alone: with it the agent knows all that the plugin knew. Fields that a newer plugin adds are ignored
//! by an older agent; a record of another [`VERSION`] is refused and counted.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Version of this format.
pub(super) const VERSION: u8 = 1;
/// Bytes of a record at most: a garbage collection names every attachment of a node.
pub(super) const MOST_BYTES: usize = 128 << 10;
/// Characters of a container id, of an interface's name, and of other texts, at most.
const LONGEST_ID: usize = 200;
const LONGEST_NAME: usize = 15;
const LONGEST_TEXT: usize = 253;

/// The socket that the agent listens on, in its data directory.
pub fn socket_path(data: &Path) -> PathBuf {
    data.join("run/cni.sock")
}

/// Where records wait when nobody listens, in the agent's data directory.
pub fn spool_path(data: &Path) -> PathBuf {
    data.join("run/cni-spool")
}

/// Which call it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Call {
    /// A container was attached to a network.
    Add,
    /// It still is.
    Check,
    /// It is about to be detached.
    Del,
    /// Only the attachments of [`Record::valid`] are left in the network.
    Gc,
}

/// One call of the plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) version: u8,
    pub(super) call: Call,
    /// When the plugin was called, ns since the epoch.
    pub(super) at: i64,
    /// Boot id of the host.
    pub(super) boot: String,
    /// Inode of the plugin's own network namespace.
    pub(super) own_netns: u64,
    /// Name of the network in its configuration.
    pub(super) network: String,
    /// `CNI_CONTAINERID`: of a pod, the sandbox. Empty for a garbage collection.
    pub(super) container: String,
    /// `CNI_IFNAME`.
    pub(super) ifname: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pod: Option<Pod>,
    /// Path to the container's network namespace, and its inode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) netns: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) inode: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mac: Option<[u8; 6]>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) ips: Vec<IpAddr>,
    /// Index of the interface in the container, if both its ends could be looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) inside: Option<u32>,
    /// The other end of its veth, in the plugin's own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) outside: Option<Outside>,
    /// Of a garbage collection: container id and interface of each attachment that is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) valid: Option<Vec<(String, String)>>,
}

/// Whose sandbox it is (`CNI_ARGS`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pod {
    pub(super) namespace: String,
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) uid: Option<String>,
}

/// The host's end of a veth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outside {
    pub(super) index: u32,
    pub(super) name: String,
    /// The bridge that it is a port of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) bridge: Option<u32>,
}

impl Record {
    /// Reads a record; `None` if it is not one that the agent can use.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let record: Self = serde_json::from_slice(bytes.get(..bytes.len().min(MOST_BYTES + 1))?).ok()?;
        (record.version == VERSION && record.at > 0 && record.is_sound()).then_some(record)
    }

    /// Names that can be stored and be part of a file's name.
    fn is_sound(&self) -> bool {
        let attachment = self.call == Call::Gc || (is_container_id(&self.container) && is_interface_name(&self.ifname));
        let text = |text: &str| text.len() <= LONGEST_TEXT;
        let pod = self.pod.as_ref().is_none_or(|pod| {
            text(&pod.namespace) && text(&pod.name) && pod.uid.as_deref().is_none_or(|uid| !uid.is_empty() && text(uid))
        });
        attachment && pod && text(&self.network) && text(&self.boot)
    }
}

/// As the specification has it: it begins with a letter or a digit, then also `_`, `.`, `-`.
fn is_container_id(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    first && text.len() <= LONGEST_ID && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// As the kernel has it.
fn is_interface_name(text: &str) -> bool {
    let fits = (1..=LONGEST_NAME).contains(&text.len()) && text != "." && text != "..";
    fits && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_a_files_name_is_refused() {
        let record = |container: &str, ifname: &str| {
            let text = format!(
                r#"{{"version":1,"call":"ADD","at":1,"boot":"b","own_netns":1,"network":"n","container":"{container}","ifname":"{ifname}"}}"#
            );
            Record::parse(text.as_bytes()).is_some()
        };
        assert!(record("0a.b-c_d", "eth0") && record("a", "net1"));
        for (container, ifname) in
            [("", "eth0"), ("../a", "eth0"), (".a", "eth0"), ("a/b", "eth0"), ("a", ""), ("a", ".."), ("a", "e/0")]
        {
            assert!(!record(container, ifname), "{container} {ifname}");
        }
        assert!(!record("a", "a-name-of-16-chr"));
        assert!(Record::parse(b"{}").is_none() && Record::parse(b"").is_none());
    }
}
