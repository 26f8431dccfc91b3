//! Configuration in two steps: what was written ([`Written`], a TOML file and arguments), then what was checked and
//! defaulted ([`RunConfig`]).

mod encapsulation;
mod kubernetes;
mod otlp;
mod peers;
mod queries;
mod readers;
mod retention;
mod rollups;

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use serde::Deserialize;
use wiretag_capture::decode::TunnelPorts;
use wiretag_capture::flow::FragmentLimits;
use wiretag_enrich::ipfix::Numbers;
use wiretag_enrich::kubernetes::KubernetesConfig;
use wiretag_store::{Compression, PostgresConfig, QueryLimits, RollupAges};

pub(crate) use self::otlp::{Coding, OtlpConfig, headers};
pub(crate) use self::peers::{IpfixConfig, NetflowConfig};
use self::peers::{WrittenIpfix, WrittenNetflow};
pub(crate) use self::readers::{ReaderConfig, SHORTEST};
pub(crate) use self::retention::Retention;
use self::retention::{WrittenRetention, retention};
use crate::cli::{DATA, RunArguments};

/// The file, as written. Unknown keys are refused.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    node: Option<String>,
    data: Option<PathBuf>,
    listen: Option<SocketAddr>,
    open_metrics: Option<bool>,
    docker: Option<String>,
    #[serde(rename = "static")]
    static_file: Option<PathBuf>,
    catalog: WrittenCatalog,
    capture: WrittenCapture,
    flows: WrittenRetention,
    packets: WrittenPackets,
    rollups: rollups::WrittenRollups,
    queries: queries::WrittenQueries,
    kubernetes: kubernetes::WrittenKubernetes,
    kernel: WrittenKernel,
    cni: WrittenCni,
    cri: WrittenCri,
    netflow: WrittenNetflow,
    ipfix: WrittenIpfix,
    otlp: otlp::WrittenOtlp,
    readers: Vec<readers::WrittenReader>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table with `url` and `password_file`")]
struct WrittenCatalog {
    url: Option<String>,
    password_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table with `sockets` and `conntrack`")]
struct WrittenKernel {
    sockets: Option<bool>,
    conntrack: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table with `enabled`")]
struct WrittenCni {
    enabled: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table with settings of the capture")]
struct WrittenCapture {
    interfaces: Vec<String>,
    snap_length: Option<u32>,
    ring_mib: Option<u32>,
    workers: Option<u16>,
    max_flows: Option<usize>,
    flow_memory_mib: Option<u32>,
    transactions: Option<bool>,
    checkpoint: Option<u32>,
    tunnel_ports: encapsulation::WrittenPorts,
    fragments: encapsulation::WrittenFragments,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table with `days`, `gib` and `compression`")]
struct WrittenPackets {
    days: Option<u32>,
    gib: Option<f64>,
    compression: Option<WrittenCompression>,
}

/// A level of zstd, or a word.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "not a compression, expected a level of zstd or a word in quotes")]
enum WrittenCompression {
    Level(i64),
    Word(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table with `enabled` and `endpoint`")]
struct WrittenCri {
    enabled: Option<bool>,
    endpoint: Option<String>,
}

/// What flows may take: from a table of 30,000 without anything else to 200 times the default.
pub(crate) const FLOW_MEMORY_MIB: std::ops::RangeInclusive<u32> = 16..=102_400;
pub(crate) const DEFAULT_FLOW_MEMORY_MIB: u32 = 512;

/// What the kernel is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KernelSettings {
    pub(crate) sockets: bool,
    pub(crate) conntrack: bool,
}

/// How a container runtime is asked.
#[derive(Debug, Clone)]
pub(crate) struct CriConfig {
    /// Its socket; `None`: the one that there is.
    pub(crate) endpoint: Option<String>,
}

/// What `wiretag run` does, checked.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "settings that are on or off, independent of each other")]
pub(crate) struct RunConfig {
    pub(crate) node: String,
    pub(crate) data: PathBuf,
    /// The catalog is in PostgreSQL; `None`: where it was before, and in SQLite at first.
    pub(crate) catalog: Option<PostgresConfig>,
    pub(crate) listen: SocketAddr,
    /// Whether `/metrics` needs no token from this host.
    pub(crate) open_metrics: bool,
    pub(crate) docker: Option<String>,
    pub(crate) static_file: Option<PathBuf>,
    /// The Kubernetes source, if it is wanted.
    pub(crate) kubernetes: Option<KubernetesConfig>,
    /// Name of the Kubernetes cluster, and of the network of its pods.
    pub(crate) cluster: String,
    /// Whether records of the CNI plugin are taken.
    pub(crate) cni: bool,
    /// How a container runtime is asked over the CRI; `None`: not at all.
    pub(crate) cri: Option<CriConfig>,
    pub(crate) interfaces: Vec<String>,
    pub(crate) snap_length: u32,
    pub(crate) ring_mib: u32,
    pub(crate) workers: u16,
    pub(crate) max_flows: usize,
    /// Bytes.
    pub(crate) flow_memory: usize,
    pub(crate) transactions: bool,
    /// Time between two looks at what is open, ns.
    pub(crate) checkpoint: i64,
    pub(crate) tunnel_ports: TunnelPorts,
    pub(crate) fragments: FragmentLimits,
    pub(crate) flows: Retention,
    pub(crate) packets: Retention,
    pub(crate) compression: Compression,
    pub(crate) rollups: RollupAges,
    pub(crate) queries: QueryLimits,
    pub(crate) kernel: KernelSettings,
    /// Flows of others, if they are wanted.
    pub(crate) netflow: Option<NetflowConfig>,
    /// Where our flows go, if anywhere.
    pub(crate) ipfix: Option<IpfixConfig>,
    /// How files of our flows are numbered, and what is sent.
    pub(crate) ipfix_numbers: Numbers,
    /// The same as logs.
    pub(crate) otlp: Option<OtlpConfig>,
    /// Who may read besides the owner.
    pub(crate) readers: Vec<ReaderConfig>,
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
        if let Some(wrong) = interfaces.iter().find(|name| name.trim() != name.as_str() || name.is_empty()) {
            bail!(
                "an interface is called `{wrong}`; hint: a name or pattern, as in `eth0` or `veth*`; none for every veth, bridge and tap"
            );
        }
        let snap_length = written.capture.snap_length.unwrap_or(262_144);
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
        let checkpoint = written.capture.checkpoint.unwrap_or(5);
        if !(1..=60).contains(&checkpoint) {
            bail!("`capture.checkpoint` is {checkpoint}; hint: between 1 and 60 seconds");
        }
        let WrittenPackets { days, gib, compression } = written.packets;
        let compression = compression.as_ref().map_or(Ok(Compression::default()), compression_of)?;
        let node = node(given(arguments.node.as_ref()).or(written.node))?;
        Ok(Self {
            cluster: kubernetes::cluster(&written.kubernetes)?,
            kubernetes: kubernetes::config(written.kubernetes, &node)?,
            node,
            data: given(arguments.data.as_ref()).or(written.data).unwrap_or_else(|| DATA.into()),
            catalog: catalog(written.catalog)?,
            listen: arguments.listen.or(written.listen).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8480))),
            open_metrics: written.open_metrics.unwrap_or(true),
            docker: given(arguments.docker.as_ref()).or(written.docker),
            static_file: arguments.static_file.clone().or(written.static_file),
            cni: written.cni.enabled.unwrap_or(true),
            cri: cri(written.cri),
            interfaces,
            snap_length,
            ring_mib,
            workers,
            max_flows: max_flows(written.capture.max_flows)?,
            flow_memory: flow_memory(written.capture.flow_memory_mib)?,
            transactions: written.capture.transactions.unwrap_or(true),
            checkpoint: i64::from(checkpoint) * 1_000_000_000,
            tunnel_ports: encapsulation::tunnel_ports(written.capture.tunnel_ports)?,
            fragments: encapsulation::fragments(&written.capture.fragments)?,
            flows: retention("flows", &written.flows, 90, 20.0)?,
            packets: retention("packets", &WrittenRetention { days, gib }, 7, 20.0)?,
            compression,
            rollups: rollups::ages(&written.rollups)?,
            queries: queries::limits(&written.queries)?,
            kernel: KernelSettings {
                sockets: written.kernel.sockets.unwrap_or(true),
                conntrack: written.kernel.conntrack.unwrap_or(true),
            },
            netflow: peers::netflow(&written.netflow)?,
            ipfix_numbers: peers::numbers(&written.ipfix)?,
            ipfix: peers::ipfix(written.ipfix)?,
            otlp: otlp::otlp(written.otlp)?,
            readers: readers::readers(written.readers)?,
            demo: arguments.demo,
        })
    }
}

/// What is given with an argument or in the environment, where an empty text is as good as none.
fn given<T: AsRef<OsStr> + Clone>(text: Option<&T>) -> Option<T> {
    text.filter(|text| !text.as_ref().is_empty()).cloned()
}

/// Flows tracked at once.
fn max_flows(written: Option<usize>) -> anyhow::Result<usize> {
    let flows = written.unwrap_or(1_000_000);
    if flows < 1_000 {
        bail!("`capture.max_flows` is {flows}; hint: at least 1000");
    }
    Ok(flows)
}

/// Bytes that flows may take.
fn flow_memory(mib: Option<u32>) -> anyhow::Result<usize> {
    let mib = mib.unwrap_or(DEFAULT_FLOW_MEMORY_MIB);
    if !FLOW_MEMORY_MIB.contains(&mib) {
        let (least, most) = (FLOW_MEMORY_MIB.start(), FLOW_MEMORY_MIB.end());
        bail!("`capture.flow_memory_mib` is {mib}; hint: between {least} and {most}");
    }
    Ok((mib as usize) << 20)
}

fn compression_of(written: &WrittenCompression) -> anyhow::Result<Compression> {
    const HINT: &str = "`none`, or zstd's level between -7 (fast) and 19 (small)";
    match written {
        WrittenCompression::Level(level) => match i32::try_from(*level) {
            Ok(level @ -7..=19) => Ok(Compression::Level(level)),
            _ => bail!("`packets.compression` is {level}; hint: {HINT}"),
        },
        WrittenCompression::Word(word) => match word.as_str() {
            "none" => Ok(Compression::None),
            _ => bail!("`packets.compression` is `{word}`; hint: {HINT}"),
        },
    }
}

/// What a file says of the catalog.
pub(crate) fn catalog_of(file: &Path) -> anyhow::Result<Option<PostgresConfig>> {
    catalog(read(file)?.catalog)
}

fn catalog(WrittenCatalog { url, password_file }: WrittenCatalog) -> anyhow::Result<Option<PostgresConfig>> {
    match (url, password_file) {
        (Some(url), file) => Ok(Some(PostgresConfig::new(&url, file).context("`catalog.url`")?)),
        (None, Some(_)) => bail!("`catalog.password_file` is for PostgreSQL; hint: name the database in `catalog.url`"),
        (None, None) => Ok(None),
    }
}

fn cri(written: WrittenCri) -> Option<CriConfig> {
    written.enabled.unwrap_or(true).then_some(CriConfig { endpoint: written.endpoint })
}

fn node(name: Option<String>) -> anyhow::Result<String> {
    let name = name.unwrap_or_else(crate::host::node_name);
    let is_odd = |character: char| character.is_control() || character == '/';
    if name.trim() != name || name.is_empty() || name.len() > 253 || name.contains(is_odd) {
        bail!(
            "`node` is `{}`; hint: a name as hosts have, without spaces at its ends and slashes",
            name.escape_debug()
        );
    }
    Ok(name)
}

fn read(path: &Path) -> anyhow::Result<Written> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration file `{}`", path.display()))?;
    toml::from_str(&text).map_err(|error| {
        anyhow!("in the configuration file `{}`: {}", path.display(), in_plain_words(&error.to_string()))
    })
}

/// Types of ours as people call them. The message shows the line, and with it the key.
fn in_plain_words(message: &str) -> String {
    const TYPES: &[(&str, &str)] = &[
        ("u16", "a whole number from 0 to 65535"),
        ("u32", "a whole number from 0 to 4294967295"),
        ("usize", "a whole number, 0 or greater"),
        ("i32", "a whole number"),
        ("f64", "a number"),
        ("a sequence", "a list in brackets"),
        ("a boolean", "`true` or `false`"),
        ("path string", "a path in quotes"),
        ("socket address", "an address with a port, as in `127.0.0.1:8480`"),
    ];
    const ADDRESS: &str = ", expected an address with a port, as in `127.0.0.1:8480`";
    let message = message.trim_end();
    let Some((what, expected)) = message.rsplit_once(", expected ") else {
        let address = if message.ends_with("invalid socket address syntax") { ADDRESS } else { "" };
        return format!("{message}{address}");
    };
    let expected = expected.trim_end();
    let plain = TYPES.iter().find(|(own, _)| *own == expected).map_or(expected, |(_, plain)| plain);
    format!("{what}, expected {plain}")
}

#[cfg(test)]
mod tests {
    use wiretag_capture::Source;
    use wiretag_capture::flow::FlowConfig;
    use wiretag_enrich::kubernetes::Scope;

    use super::encapsulation::{fragments, tunnel_ports};
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
    fn wrong_values_are_told_in_words_of_the_file() {
        for (text, key, expected) in [
            ("listen = 'localhost:80'", "localhost:80", "an address with a port, as in `127.0.0.1:8480`"),
            ("listen = 80", "listen = 80", "an address with a port, as in `127.0.0.1:8480`"),
            ("flows = 3", "flows = 3", "a table with `days` and `gib`"),
            ("[packets]\ndays = 'ten'", "days = 'ten'", "a whole number from 0 to 4294967295"),
            ("[flows]\ndays = 99999999999", "99999999999", "a whole number from 0 to 4294967295"),
            ("[flows]\ngib = 'much'", "gib = 'much'", "a number"),
            ("[kernel]\nsockets = 1", "sockets = 1", "`true` or `false`"),
            ("[capture]\ninterfaces = 'eth0'", "interfaces = 'eth0'", "a list in brackets"),
            ("[capture.tunnel_ports]\nvxlan = [70000]", "vxlan = [70000]", "a whole number from 0 to 65535"),
        ] {
            let error = in_plain_words(&check(text).unwrap_err());
            assert!(error.contains(key) && error.ends_with(&format!("expected {expected}")), "{error}");
            assert!(!error.contains("Written") && !error.contains("struct"), "{error}");
        }
    }

    #[test]
    fn ports_and_limits_are_the_defaults_of_the_engine_unless_written() {
        let ports = |text| tunnel_ports(check(text).expect("TOML").capture.tunnel_ports);
        assert_eq!(ports("").expect("ports"), TunnelPorts::default());
        let written = ports("[capture]\ntunnel_ports = { vxlan = [8472], gtpu = [] }").expect("ports");
        assert_eq!((written.vxlan, written.gtpu, written.geneve), (vec![8472], vec![], vec![6081]));
        assert!(ports("[capture.tunnel_ports]\ngeneve = [4789]").is_err(), "a port of two tunnels");
        let limits = |text| fragments(&check(text).expect("TOML").capture.fragments);
        assert_eq!(limits("").expect("limits"), FragmentLimits::default());
        assert_eq!(limits("[capture.fragments]\nmib = 1").expect("limits").bytes, 1 << 20);
        assert!(limits("[capture.fragments]\nseconds = 0").is_err());
        let memory = |text| flow_memory(check(text).expect("TOML").capture.flow_memory_mib);
        assert_eq!(memory("").expect("a limit"), FlowConfig::new("node", Source::Ring).flow_memory);
        assert_eq!(memory("[capture]\nflow_memory_mib = 64").expect("a limit"), 64 << 20);
        let error = memory("[capture]\nflow_memory_mib = 1").expect_err("too little").to_string();
        assert!(error.contains("flow_memory_mib` is 1;") && error.contains("between 16 and"), "{error}");
        let flows = |text| max_flows(check(text).expect("TOML").capture.max_flows);
        assert_eq!(flows("").expect("a limit"), FlowConfig::new("node", Source::Ring).max_flows);
        let error = flows("[capture]\nmax_flows = 0").expect_err("too few").to_string();
        assert!(error.contains("max_flows` is 0; hint: at least 1000"), "{error}");
        let shown: Written = toml::from_str(include_str!("../deploy/wiretag.toml")).expect("the shipped file");
        let compression = shown.packets.compression.as_ref().map(compression_of).expect("shown").expect("compression");
        assert_eq!(compression, Compression::default());
        assert_eq!(tunnel_ports(shown.capture.tunnel_ports).expect("ports"), TunnelPorts::default());
        assert_eq!(fragments(&shown.capture.fragments).expect("limits"), FragmentLimits::default());
        assert_eq!((shown.capture.flow_memory_mib, shown.open_metrics), (Some(DEFAULT_FLOW_MEMORY_MIB), Some(true)));
    }

    #[test]
    fn a_node_has_a_name_as_hosts_have() {
        for name in ["node-7", "ip-10-0-0-1.eu.example", "Knoten 7"] {
            assert_eq!(node(Some(name.into())).expect("a name"), name);
        }
        for name in ["", " a", "../../x", "a\nb"] {
            assert!(node(Some(name.into())).expect_err(name).to_string().contains("hint: "), "{name}");
        }
    }

    #[test]
    fn a_compression_is_a_level_or_a_word() {
        let compression = |text: &str| {
            let written = check(&format!("[packets]\ncompression = {text}")).map_err(|error| in_plain_words(&error))?;
            compression_of(&written.packets.compression.expect("written")).map_err(|error| error.to_string())
        };
        assert_eq!(compression("-5"), Ok(Compression::Level(-5)));
        assert_eq!(compression("'none'"), Ok(Compression::None));
        for wrong in ["20", "-8", "99999999999", "'zip'"] {
            let error = compression(wrong).unwrap_err();
            assert!(error.contains(wrong.trim_matches('\'')) && error.contains("hint: `none`"), "{error}");
        }
        let error = compression("[1]").unwrap_err();
        assert!(error.contains("compression = [1]") && error.ends_with("a word in quotes"), "{error}");
    }

    #[test]
    fn kubernetes_is_used_where_it_is_named() {
        let source = |text: &str| kubernetes::config(check(text).expect("TOML").kubernetes, "here");
        assert_eq!(source("").expect("nothing").map(|own| own.node), None);
        let own = source("[kubernetes]\nkubeconfig = '/k'\ncluster = 'blue'\nscope = 'node'").expect("a source");
        let own = own.expect("wanted");
        assert_eq!((&*own.cluster, &*own.node, own.scope), ("blue", "here", Scope::Node));
        let off = source("[kubernetes]\nkubeconfig = '/k'\nenabled = false").expect("a source");
        assert!(off.is_none());
        for (wrong, part) in
            [("scope = 'pod'", "`cluster`"), ("cluster = 'a/b'", "without `/`"), ("enabled = true", "kubeconfig")]
        {
            let written = format!("[kubernetes]\n{wrong}");
            let error = source(&written).expect_err("a mistake").to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
