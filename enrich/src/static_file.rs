//! The static identity file (YAML): virtual machines, taps, appliances, and what no other source knows.
//!
//! ```yaml
//! identities:
//!   - name: billing-db          # required, unique
//!     kind: vm                  # container (default), vm or host
//!     ips: [10.0.0.5]
//!     interfaces: [veth-db]     # names in wiretag's network namespace
//!     workload: billing
//!     labels: { tier: gold }
//! ```

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use crate::identity::{ANY_NETWORK, Identity, Interval, Key};

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticFile {
    /// Intervals by address, since ever and for ever.
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
    ips: Vec<IpAddr>,
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
    let name = || path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| StaticError::Io { path: name(), source })?;
    parse(&text, now).map_err(|message| StaticError::Content { path: name(), message })
}

fn parse(text: &str, now: i64) -> Result<StaticFile, String> {
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
        let (ips, interfaces) = (entry.ips.clone(), entry.interfaces.clone());
        let identity = Arc::new(identity(entry));
        file.intervals.extend(ips.into_iter().map(|ip| Interval {
            key: Key::Ip { network: ANY_NETWORK.into(), ip },
            identity: identity.clone(),
            valid_from: 0,
            valid_to: None,
            learned_at: now,
            source: "static".into(),
        }));
        file.interfaces.extend(interfaces.into_iter().map(|name| (name, identity.clone())));
    }
    Ok(file)
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
            7,
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
            let error = parse(text, 0).expect_err("a mistake");
            assert!(error.contains(part), "{error}");
        };
        check("identities:\n  - name: a\n    ipz: [10.0.0.1]\n", "ipz");
        check("identities:\n  - name: a\n    ips: [10.0.0.300]\n", "line 3");
        check("identities:\n  - name: a\n", "neither");
        check("identities:\n  - { name: a, ips: [10.0.0.1] }\n  - { name: a, ips: [10.0.0.2] }\n", "twice");
    }
}
