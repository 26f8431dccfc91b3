//! The static identity file (YAML): virtual machines, taps, appliances, and what no other source knows.
//!
//! ```yaml
//! identities:
//!   - name: billing-db          # required, unique
//!     kind: vm                  # container (default), vm or host
//!     ips: [10.0.0.5, 'fd00::5']
//!     network: blue             # where the addresses hold (as `wiretag identities` shows it; `vlan:100`, `vxlan:5001`, `vrf:blue` inside these);
//!                               # without: wherever no other name does
//!     interfaces: [veth-db]     # names in wiretag's network namespace
//!     workload: billing
//!     labels: { tier: gold }
//!   - name: office
//!     kind: host
//!     ips: [192.0.2.0/24]       # each address of the range that has no name of its own; the longest prefix decides
//! ```
//!
//! While wiretag runs it is read again when it changes: [`Watcher`].

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use crate::identity::{ANY_NETWORK, Identity, Interval, Key};
use crate::timeline::first_of;

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticFile {
    /// Intervals by address or range: for ever, and since ever or since the file changed.
    pub intervals: Vec<Interval>,
    /// Interface names, whose indexes the caller knows.
    pub interfaces: Vec<(String, Arc<Identity>)>,
}

/// What is wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum StaticError {
    /// It cannot be read.
    #[error("cannot read the identity file `{path}`: {source}")]
    Io {
        /// File.
        path: String,
        /// Reason.
        source: std::io::Error,
    },
    /// It is not what it should be; the parser says line and column.
    #[error(
        "in the identity file `{path}`: {message}; hint: `identities` is a list of entries with `name` and `ips` or `interfaces`"
    )]
    Content {
        /// File.
        path: String,
        /// What and where.
        message: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    identities: Vec<Entry>,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum EntryKind {
    #[default]
    Container,
    Vm,
    Host,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Arc<str>,
    #[serde(default)]
    kind: EntryKind,
    #[serde(default)]
    ips: Vec<String>,
    network: Option<Arc<str>>,
    #[serde(default)]
    interfaces: Vec<String>,
    cluster: Option<Arc<str>>,
    namespace: Option<Arc<str>>,
    pod: Option<Arc<str>>,
    workload: Option<Arc<str>>,
    service: Option<Arc<str>>,
    image: Option<Arc<str>>,
    zone: Option<Arc<str>>,
    #[serde(default)]
    labels: BTreeMap<Arc<str>, Arc<str>>,
}

/// Reads the file; `now` is when its facts are learned.
pub fn load(path: &Path, now: i64) -> Result<StaticFile, StaticError> {
    Watcher::open(path, now).0
}

/// What a text says, since `from`.
fn parse(text: &str, (from, now): (i64, i64)) -> Result<StaticFile, String> {
    let written: Written = serde_norway::from_str(text).map_err(|error| error.to_string())?;
    let mut file = StaticFile { intervals: Vec::new(), interfaces: Vec::new() };
    let mut names = HashSet::new();
    for entry in written.identities {
        if !names.insert(entry.name.clone()) {
            return Err(format!("`{}` is there twice", entry.name));
        }
        if entry.ips.is_empty() && entry.interfaces.is_empty() {
            return Err(format!("`{}` has neither `ips` nor `interfaces`", entry.name));
        }
        let network = entry.network.clone().unwrap_or_else(|| ANY_NETWORK.into());
        let keys = entry.ips.iter().map(|ip| key(ip, &network).map_err(|error| format!("`{}`: {error}", entry.name)));
        let keys = keys.collect::<Result<Vec<Key>, String>>()?;
        let interfaces = entry.interfaces.clone();
        let identity = Arc::new(identity(entry));
        file.intervals.extend(keys.into_iter().map(|key| Interval {
            key,
            identity: identity.clone(),
            valid_from: from,
            valid_to: None,
            learned_at: now,
            source: "static".into(),
        }));
        file.interfaces.extend(interfaces.into_iter().map(|name| (name, identity.clone())));
    }
    Ok(file)
}

/// An address, or a range in CIDR notation.
fn key(text: &str, network: &Arc<str>) -> Result<Key, String> {
    let not = |what: &str| format!("`{text}` is {what}; hint: an address (10.0.0.5) or a range (10.0.0.0/24)");
    let Some((ip, prefix)) = text.split_once('/') else {
        let ip = text.parse().map_err(|_| not("no address"))?;
        return Ok(Key::Ip { network: network.clone(), ip });
    };
    let ip: IpAddr = ip.parse().map_err(|_| not("no range of addresses"))?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.parse().ok().filter(|prefix| *prefix <= most).ok_or_else(|| not("no range of addresses"))?;
    let first = first_of(ip, prefix);
    if first != ip {
        return Err(format!("`{text}` does not begin at the first address of the range; hint: `{first}/{prefix}`"));
    }
    let network = network.clone();
    Ok(if prefix == most { Key::Ip { network, ip } } else { Key::Range { network, ip, prefix } })
}

/// Reads a file, and says when its content is another.
#[derive(Debug)]
pub struct Watcher {
    path: PathBuf,
    /// The content that was looked at last, or why it could not be read.
    seen: Result<String, String>,
}

impl Watcher {
    /// Reads the file for the first time: what it says holds since ever. One with a mistake is watched, too.
    pub fn open(path: &Path, now: i64) -> (Result<StaticFile, StaticError>, Self) {
        let (file, seen) = understand(path, std::fs::read_to_string(path), (0, now));
        (file, Self { path: path.to_owned(), seen })
    }

    /// What the file says now, if its content is not what it was at the last look; its facts hold since `now`. A mistake is told
    /// once.
    pub fn look(&mut self, now: i64) -> Option<Result<StaticFile, StaticError>> {
        let text = std::fs::read_to_string(&self.path);
        let is_known = match (&text, &self.seen) {
            (Ok(text), Ok(seen)) => text == seen,
            (Err(error), Err(seen)) => error.to_string() == *seen,
            (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
        };
        if is_known {
            return None;
        }
        let (file, seen) = understand(&self.path, text, (now, now));
        self.seen = seen;
        Some(file)
    }
}

/// What was read says, and what there was to see.
fn understand(
    path: &Path,
    text: std::io::Result<String>,
    times: (i64, i64),
) -> (Result<StaticFile, StaticError>, Result<String, String>) {
    let path = path.display().to_string();
    match text {
        Ok(text) => (parse(&text, times).map_err(|message| StaticError::Content { path, message }), Ok(text)),
        Err(source) => {
            let reason = source.to_string();
            (Err(StaticError::Io { path, source }), Err(reason))
        }
    }
}

fn identity(entry: Entry) -> Identity {
    let (container, host) = match entry.kind {
        EntryKind::Container => (Some(entry.name.clone()), None),
        EntryKind::Vm | EntryKind::Host => (None, Some(entry.name.clone())),
    };
    Identity {
        identity: format!("static:{}", entry.name).into(),
        cluster: entry.cluster,
        host,
        namespace: entry.namespace,
        pod: entry.pod,
        container,
        workload: entry.workload,
        workload_kind: None,
        service: entry.service,
        image: entry.image,
        zone: entry.zone,
        containers: Vec::new(),
        labels: entry.labels,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_and_a_machine() {
        let file = parse(
            "identities:\n  - name: web\n    ips: [10.0.0.1, 'fd00::1']\n    labels: { app: shop }\n  - { name: db, kind: vm, interfaces: [tap0] }\n",
            (0, 7),
        )
        .expect("a file");
        assert_eq!(file.intervals.len(), 2);
        assert_eq!(file.intervals[0].identity.container.as_deref(), Some("web"));
        assert_eq!(file.intervals[0].learned_at, 7);
        assert_eq!(file.interfaces[0].0, "tap0");
        assert_eq!(file.interfaces[0].1.host.as_deref(), Some("db"));
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, part: &str| {
            let error = parse(text, (0, 0)).expect_err("a mistake");
            assert!(error.contains(part), "{error}");
        };
        check("identities:\n  - name: a\n    ipz: [10.0.0.1]\n", "ipz");
        check("identities:\n  - name: a\n    ips: [10.0.0.300]\n", "`a`: `10.0.0.300` is no address");
        check("identities:\n  - name: a\n    ips: [10.0.0.0/33]\n", "no range");
        check("identities:\n  - name: a\n    ips: [10.0.0.5/24]\n", "hint: `10.0.0.0/24`");
        check("identities:\n  - { name: a, ips: 7 }\n", "line 2");
        check("identities:\n  - name: a\n", "neither");
        check("identities:\n  - { name: a, ips: [10.0.0.1] }\n  - { name: a, ips: [10.0.0.2] }\n", "twice");
    }

    #[test]
    fn addresses_and_ranges_in_a_network() {
        let text =
            "identities:\n  - { name: a, network: blue, ips: [10.0.0.1/32, 10.0.0.0/8, '2001:db8::/32', '::/0'] }\n";
        let keys: Vec<Key> = parse(text, (0, 7)).expect("a file").intervals.into_iter().map(|own| own.key).collect();
        let network: Arc<str> = "blue".into();
        let range =
            |ip: &str, prefix| Key::Range { network: network.clone(), ip: ip.parse().expect("an address"), prefix };
        let one = Key::Ip { network: network.clone(), ip: "10.0.0.1".parse().expect("an address") };
        assert_eq!(keys, [one, range("10.0.0.0", 8), range("2001:db8::", 32), range("::", 0)]);
    }

    #[test]
    fn a_change_is_told_once_and_a_mistake_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("names.yaml");
        let write =
            |ip: &str| std::fs::write(&path, format!("identities:\n  - {{ name: a, ips: [{ip}] }}\n")).expect("a file");
        write("10.0.0.1");
        let (file, mut watcher) = Watcher::open(&path, 5);
        let file = file.expect("without mistakes");
        assert_eq!((file.intervals[0].valid_from, file.intervals[0].learned_at), (0, 5));
        assert!(watcher.look(6).is_none(), "nothing has changed");
        write("10.0.0.2");
        let file = watcher.look(7).expect("a change").expect("without mistakes");
        assert_eq!((file.intervals[0].valid_from, file.intervals[0].learned_at), (7, 7));
        write("nonsense");
        assert!(watcher.look(8).expect("a change").is_err());
        assert!(watcher.look(9).is_none(), "the mistake was told");
        std::fs::remove_file(&path).expect("removed");
        assert!(matches!(watcher.look(10), Some(Err(StaticError::Io { .. }))));
        assert!(watcher.look(11).is_none(), "that it is gone was told");
        write("10.0.0.2");
        assert!(watcher.look(12).expect("a change").is_ok());
    }

    #[test]
    fn a_file_that_is_missing_or_wrong_at_first_is_read_when_it_is_right() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("names.yaml");
        for text in [None, Some("nonsense")] {
            if let Some(text) = text {
                std::fs::write(&path, text).expect("a file");
            }
            let (file, mut watcher) = Watcher::open(&path, 5);
            assert!(file.is_err());
            assert!(watcher.look(6).is_none(), "the mistake was told");
            std::fs::write(&path, "identities:\n  - { name: a, ips: [10.0.0.1] }\n").expect("a file");
            let file = watcher.look(7).expect("a change").expect("without mistakes");
            assert_eq!(file.intervals[0].valid_from, 7, "who had the address before is not known");
        }
    }
}
