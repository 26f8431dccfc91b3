//! Configuration in two steps: what was written ([`Written`], a TOML file and arguments), then what was checked and
//! defaulted ([`RunConfig`]).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::cli::RunArguments;

/// The file, as written. Unknown keys are refused.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    node: Option<String>,
    data: Option<PathBuf>,
    listen: Option<SocketAddr>,
    docker: Option<String>,
    #[serde(rename = "static")]
    static_file: Option<PathBuf>,
    capture: WrittenCapture,
    flows: WrittenRetention,
    packets: WrittenPackets,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenCapture {
    interfaces: Vec<String>,
    snap_length: Option<u32>,
    ring_mib: Option<u32>,
    workers: Option<u16>,
    max_flows: Option<usize>,
    transactions: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenRetention {
    days: Option<u32>,
    gib: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenPackets {
    days: Option<u32>,
    gib: Option<f64>,
    compression: Option<i32>,
}

/// How long and how much is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// Nanoseconds.
    pub(crate) age: i64,
    /// Bytes on disk.
    pub(crate) bytes: u64,
}

/// What `wiretag run` does, checked.
#[derive(Debug, Clone)]
pub(crate) struct RunConfig {
    pub(crate) node: String,
    pub(crate) data: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) docker: Option<String>,
    pub(crate) static_file: Option<PathBuf>,
    pub(crate) interfaces: Vec<String>,
    pub(crate) snap_length: u32,
    pub(crate) ring_mib: u32,
    pub(crate) workers: u16,
    pub(crate) max_flows: usize,
    pub(crate) transactions: bool,
    pub(crate) flows: Retention,
    pub(crate) packets: Retention,
    pub(crate) compression: i32,
    pub(crate) demo: bool,
}

impl RunConfig {
    /// Reads the file, applies the arguments over it, checks and defaults.
    pub(crate) fn new(arguments: &RunArguments) -> anyhow::Result<Self> {
        let written = match &arguments.config {
            Some(path) => read(path)?,
            None => Written::default(),
        };
        let interfaces =
            if arguments.interfaces.is_empty() { written.capture.interfaces } else { arguments.interfaces.clone() };
        let snap_length = written.capture.snap_length.unwrap_or(65_535);
        if !(64..=262_144).contains(&snap_length) {
            bail!("`capture.snap_length` is {snap_length}; hint: between 64 and 262144 bytes");
        }
        let ring_mib = written.capture.ring_mib.unwrap_or(32);
        if !(1..=1024).contains(&ring_mib) {
            bail!("`capture.ring_mib` is {ring_mib}; hint: between 1 and 1024");
        }
        let workers = written.capture.workers.unwrap_or(1);
        if !(1..=64).contains(&workers) {
            bail!("`capture.workers` is {workers}; hint: between 1 and 64, at most one a core");
        }
        let WrittenPackets { days, gib, compression } = written.packets;
        let compression = compression.unwrap_or(-3);
        if !(-7..=19).contains(&compression) {
            bail!("`packets.compression` is {compression}; hint: zstd's levels, between -7 (fast) and 19 (small)");
        }
        Ok(Self {
            node: written.node.unwrap_or_else(crate::host::node_name),
            data: arguments.data.clone().or(written.data).unwrap_or_else(|| "data".into()),
            listen: arguments.listen.or(written.listen).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8480))),
            docker: arguments.docker.clone().or(written.docker),
            static_file: arguments.static_file.clone().or(written.static_file),
            interfaces,
            snap_length,
            ring_mib,
            workers,
            max_flows: written.capture.max_flows.unwrap_or(1_000_000).max(1_000),
            transactions: written.capture.transactions.unwrap_or(true),
            flows: retention("flows", &written.flows, 90, 20.0)?,
            packets: retention("packets", &WrittenRetention { days, gib }, 7, 20.0)?,
            compression,
            demo: arguments.demo,
        })
    }
}

fn retention(name: &str, written: &WrittenRetention, days: u32, gib: f64) -> anyhow::Result<Retention> {
    const DAY: i64 = 86_400 * 1_000_000_000;
    let days = written.days.unwrap_or(days);
    let gib = written.gib.unwrap_or(gib);
    if days == 0 || !(gib.is_finite() && gib > 0.0) {
        bail!("`{name}` keeps nothing; hint: `days` and `gib` must be greater than 0");
    }
    Ok(Retention { age: i64::from(days) * DAY, bytes: (gib * f64::from(1 << 30)) as u64 })
}

fn read(path: &Path) -> anyhow::Result<Written> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration file `{}`", path.display()))?;
    toml::from_str(&text).with_context(|| format!("in the configuration file `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Written, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn unknown_keys_are_named() {
        let error = check("lisen = '127.0.0.1:1'").unwrap_err();
        assert!(error.contains("lisen") && error.contains("listen"), "{error}");
    }

    #[test]
    fn a_retention_of_nothing_is_refused() {
        assert!(retention("flows", &WrittenRetention { days: Some(0), gib: None }, 1, 1.0).is_err());
        assert!(retention("flows", &WrittenRetention { days: None, gib: Some(-1.0) }, 1, 1.0).is_err());
    }
}
