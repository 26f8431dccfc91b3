//! Command-line arguments, as written; [`crate::config`] checks them.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Network performance monitoring for containers.
#[derive(Debug, Parser)]
#[command(name = "wiretag", version, about, max_term_width = 100)]
pub(crate) struct Arguments {
    /// More log lines on stderr (-v info, -vv debug)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The appliance: capture, tag, store, serve
    Run(RunArguments),
    /// Capture files into the store, through the same pipeline
    ///
    /// What was imported is kept as long as if it had been captured at the time of the import. A file that was imported before
    /// is refused; one whose import ended early is imported anew, and replaces what there was of it.
    Import(ImportArguments),
    /// Search flows, or transactions
    ///
    /// Behind a condition, `|` begins an aggregation: `wiretag flows 'port == 443 | p99(server_rtt_us) by server_workload, 1m'`.
    Flows(FlowsArguments),
    /// Who has the most: top talkers, slowest servers, most retransmissions
    Top(TopArguments),
    /// Ask in SQL: tables `flows`, `transactions`, `identities`, `segments`
    Sql(SqlArguments),
    /// Packets of matching flows as pcapng, with names
    ///
    /// With an empty query, every packet that was kept in the time range, at every observation point, also packets of no flow
    /// and of flows that have not ended.
    Pcap(PcapArguments),
    /// Remove what concerns somebody, for good, and keep on record that it was done
    ///
    /// Every observation of the flows and transactions that pass goes, with their packets: from memory, files, roll-ups and packet
    /// segments; nothing else is changed. A running appliance does it; without one, this command does, and then waits half a
    /// minute for searches that began before. Not erased: the history of identities, backups, and what was exported.
    Erase(EraseArguments),
    /// What was erased: when, by whom, why, and how much
    Erasures(ErasuresArguments),
    /// Capture file to flow records on stdout (JSON lines), nothing stored
    Replay(ReplayArguments),
    /// Move the catalog of a data directory from SQLite to PostgreSQL
    ///
    /// Neither `wiretag run` nor an import may use the directory meanwhile. All comes in one transaction, into a schema that is made for
    /// it; if anything fails, everything is as it was. Flows and packets stay where they are.
    MoveCatalog(MoveCatalogArguments),
    /// Who had an address, and when
    Identities(IdentitiesArguments),
    /// Columns: name, kind, definition
    Fields(FieldsArguments),
    /// Check privileges, kernel, disk, clock, Docker, Kubernetes, and say what to do
    Doctor(DoctorArguments),
    /// The chained CNI plugin: tells wiretag which pod got which interface and addresses
    ///
    /// Container runtimes call it; people do not. To install it, link this binary as `wiretag-cni` into the runtime's directory of
    /// plugins (`ln -s /usr/local/bin/wiretag /opt/cni/bin/wiretag-cni`), and add it to the end of `plugins` in each
    /// configuration in `/etc/cni/net.d` whose name ends with `.conflist`:
    ///
    ///     { "type": "wiretag-cni", "dataDir": "/var/lib/wiretag" }
    ///
    /// `dataDir` is the data directory of `wiretag run` on this host; the one above is the default. The plugin speaks versions 0.3.1 to
    /// 1.1.0 of the specification, hands the result of the plugins before it on as it is, and never keeps a pod from its
    /// start: what cannot be delivered waits in `DIR/run/cni-spool`.
    #[command(verbatim_doc_comment)]
    Cni,
    /// Print the OpenAPI document of the HTTP interface
    Openapi,
}

/// The data directory where none is named.
pub(crate) const DATA: &str = "data";

/// An empty name is as good as none.
fn data(name: OsString) -> PathBuf {
    if name.is_empty() { DATA.into() } else { name.into() }
}

/// Where the data is.
#[derive(Debug, Clone, Args)]
pub(crate) struct DataArguments {
    /// Data directory
    #[arg(long, value_name = "DIR", default_value = DATA, env = "WIRETAG_DATA", value_parser = OsStringValueParser::new().map(data))]
    pub(crate) data: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Name of this node [default: host name]
    #[arg(long, value_name = "NAME", env = "WIRETAG_NODE")]
    pub(crate) node: Option<String>,
    /// Data directory [default: data]
    #[arg(long, value_name = "DIR", env = "WIRETAG_DATA", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub(crate) data: Option<PathBuf>,
    /// Address of the HTTP interface [default: 127.0.0.1:8480]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// Capture on interfaces with this name or pattern (`*`, `?`), instead of every veth, bridge and tap; `eth0@*` is inside containers whose traffic passes none of these; repeatable
    #[arg(long = "interface", short = 'i', value_name = "PATTERN")]
    pub(crate) interfaces: Vec<String>,
    /// Static identities (YAML)
    #[arg(long = "static", value_name = "FILE")]
    pub(crate) static_file: Option<PathBuf>,
    /// Docker's address [default: unix:///var/run/docker.sock]
    #[arg(long, value_name = "URL", env = "DOCKER_HOST")]
    pub(crate) docker: Option<String>,
    /// Make demonstration namespaces whose client, web and DNS server talk to each other
    #[arg(long)]
    pub(crate) demo: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// Capture files (pcap, pcapng; also gzip, zstd)
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Static identities (YAML)
    #[arg(long = "static", value_name = "FILE")]
    pub(crate) static_file: Option<PathBuf>,
    /// Import files also if the same content was imported before
    #[arg(long)]
    pub(crate) again: bool,
    /// No progress bar
    #[arg(long, short)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) memory: MemoryArguments,
    #[command(flatten)]
    pub(crate) data: DataArguments,
}

/// What flows may take.
#[derive(Debug, Clone, Args)]
pub(crate) struct MemoryArguments {
    /// Memory for open flows, MiB; beyond it the least valuable flows end early, and are counted
    #[arg(long = "flow-memory-mib", value_name = "MIB", default_value_t = crate::config::DEFAULT_FLOW_MEMORY_MIB,
          value_parser = clap::value_parser!(u32).range(memory_range()))]
    flow_memory_mib: u32,
}

impl MemoryArguments {
    pub(crate) fn bytes(&self) -> usize {
        (self.flow_memory_mib as usize) << 20
    }
}

fn memory_range() -> std::ops::RangeInclusive<i64> {
    let range = crate::config::FLOW_MEMORY_MIB;
    i64::from(*range.start())..=i64::from(*range.end())
}

/// What to search in.
#[derive(Debug, Clone, Args)]
pub(crate) struct SearchArguments {
    /// Query, for example `container == web and server_port == 80`; empty: everything
    #[arg(default_value = "")]
    pub(crate) query: String,
    /// Begin: RFC 3339, epoch seconds, or relative (`-15m`) [default: everything kept]
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) from: Option<String>,
    /// End, as `--from` [default: everything kept; of rates and comparisons now]
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) to: Option<String>,
    /// Show every observation of a flow or transaction, not only the primary one
    #[arg(long)]
    pub(crate) all_observations: bool,
    #[command(flatten)]
    pub(crate) data: DataArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
    Csv,
}

/// As rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RowsFormat {
    Table,
    Json,
    Csv,
    Parquet,
    Ipfix,
}

impl RowsFormat {
    /// If it is text.
    pub(crate) const fn printed(self) -> Option<Format> {
        match self {
            Self::Table => Some(Format::Table),
            Self::Json => Some(Format::Json),
            Self::Csv => Some(Format::Csv),
            Self::Parquet | Self::Ipfix => None,
        }
    }
}

/// How many rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    Rows(u32),
    All,
}

fn limit(text: &str) -> Result<Limit, String> {
    match text {
        "all" => Ok(Limit::All),
        text => match text.parse() {
            Ok(rows @ 1..) => Ok(Limit::Rows(rows)),
            _ => Err(format!("a number from 1 to {}, or `all`", u32::MAX)),
        },
    }
}

#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct FlowsArguments {
    #[command(flatten)]
    pub(crate) search: SearchArguments,
    /// Search transactions (one row for each DNS and HTTP exchange) instead of flows
    #[arg(long)]
    pub(crate) transactions: bool,
    /// Most rows, newest first, or `all` [default: 100; with `--output` or a format of files all]
    #[arg(long, value_name = "ROWS", value_parser = limit)]
    pub(crate) limit: Option<Limit>,
    /// Tell how the query is answered, instead of the answer: files, what is left out, the engine's plan, the time
    #[arg(long, conflicts_with_all = ["follow", "compare"])]
    pub(crate) explain: bool,
    /// Of an aggregation, also the figures of the period before, of the same length
    #[arg(long, conflicts_with = "follow")]
    pub(crate) compare: bool,
    /// Output format; `parquet` and `ipfix` (RFC 5655, of flows) are files
    #[arg(long, value_enum, default_value_t = RowsFormat::Table)]
    pub(crate) format: RowsFormat,
    /// File to write, of everything that matches; `-` is stdout
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// New flows of the running appliance as they are stored, until interrupted
    #[arg(long, short, conflicts_with_all = ["from", "to", "limit", "transactions"])]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TopArguments {
    /// What makes a group: a column, or several with `,`, for example `client_workload` or `namespace,app`
    pub(crate) field: String,
    #[command(flatten)]
    pub(crate) search: SearchArguments,
    /// What counts, for example `count`, `client_bytes`, `p99(server_rtt_us)`, `distinct(client_ip)`; the first orders [default:
    /// bytes and rows]
    #[arg(long, value_name = "FIGURES")]
    pub(crate) by: Option<String>,
    /// Most groups, up to 10000
    #[arg(long, short = 'n', default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
    /// Also the figures of the period before, of the same length
    #[arg(long)]
    pub(crate) compare: bool,
    /// Of transactions (one row for each DNS and HTTP exchange) instead of flows
    #[arg(long)]
    pub(crate) transactions: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct SqlArguments {
    /// One statement, for example `select client_pod, sum(client_bytes) from flows group by 1`; `-` is stdin
    pub(crate) query: String,
    /// Most rows
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) limit: u32,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) data: DataArguments,
}

#[derive(Debug, Args)]
pub(crate) struct EraseArguments {
    /// Condition of the query language, for example `namespace == shop`, without relative times; `start exists` is everything
    pub(crate) filter: String,
    /// Begin: RFC 3339, epoch seconds, or relative (`-90d`) [default: everything kept]
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) from: Option<String>,
    /// End, as `--from`; now at the latest [default: now]
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) to: Option<String>,
    /// Why; it stays on record
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    pub(crate) reason: Option<String>,
    /// Who asks; it stays on record [default: the user id of this process]
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
    /// Only rows of this table
    #[arg(long, value_name = "TABLE", value_enum)]
    pub(crate) only: Option<ErasedTable>,
    /// Count what would be removed, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Delete files at once: searches that began before may miss what is in them
    #[arg(long)]
    pub(crate) at_once: bool,
    /// The record as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) data: DataArguments,
}

/// Tables whose rows can be erased by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ErasedTable {
    /// Flows, with their packets
    Flows,
    /// Transactions
    Transactions,
}

#[derive(Debug, Args)]
pub(crate) struct ErasuresArguments {
    /// Only this one, file by file
    pub(crate) id: Option<i64>,
    /// JSON lines
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) data: DataArguments,
}

impl FlowsArguments {
    /// Rows of a page.
    pub(crate) const fn page(&self) -> u32 {
        match self.limit {
            Some(Limit::Rows(rows)) => rows,
            Some(Limit::All) | None => 100,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct PcapArguments {
    #[command(flatten)]
    pub(crate) search: SearchArguments,
    /// File to write; `-` is stdout
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArguments {
    /// Capture file (pcap, pcapng; also gzip, zstd); `-` is stdin
    pub(crate) file: PathBuf,
    /// Transactions (DNS and HTTP exchanges) instead of flows
    #[arg(long)]
    pub(crate) transactions: bool,
    /// Do all the work, print only a summary on stderr
    #[arg(long)]
    pub(crate) null: bool,
    /// Threads that share the flows: sooner done where cores are idle, for half as much work again; the output is the same
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) workers: u8,
    #[command(flatten)]
    pub(crate) memory: MemoryArguments,
}

#[derive(Debug, Args)]
pub(crate) struct MoveCatalogArguments {
    /// Configuration file (TOML) whose `[catalog]` names the database
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    #[command(flatten)]
    pub(crate) data: DataArguments,
}

#[derive(Debug, Args)]
pub(crate) struct IdentitiesArguments {
    /// What held at this time: RFC 3339, epoch seconds, or relative (`-15m`); without it, all that is known
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) at: Option<String>,
    /// What holds now
    #[arg(long, conflicts_with = "at")]
    pub(crate) now: bool,
    /// As it was known at this time, without what was learned later
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) known_at: Option<String>,
    /// Only this address, of a host, a socket or a service
    #[arg(long)]
    pub(crate) ip: Option<IpAddr>,
    /// Only this link-layer address
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) mac: Option<String>,
    /// Only this interface: its name as long as it is there, or its number
    #[arg(long, value_name = "NAME")]
    pub(crate) interface: Option<String>,
    /// Only keys in this network
    #[arg(long)]
    pub(crate) network: Option<String>,
    /// Only who has this as pod, container or host name (`*` stands for anything, here and below)
    #[arg(long, value_name = "PATTERN")]
    pub(crate) name: Option<String>,
    /// Only who is of this namespace
    #[arg(long, value_name = "PATTERN")]
    pub(crate) namespace: Option<String>,
    /// Only who is of this workload
    #[arg(long, value_name = "PATTERN")]
    pub(crate) workload: Option<String>,
    /// Only this service, and who is of it
    #[arg(long, value_name = "PATTERN")]
    pub(crate) service: Option<String>,
    /// Only who has this id
    #[arg(long, value_name = "PATTERN")]
    pub(crate) identity: Option<String>,
    /// Only what this source said
    #[arg(long)]
    pub(crate) source: Option<String>,
    /// Rows at most
    #[arg(long, default_value_t = 10_000)]
    pub(crate) limit: usize,
    /// JSON lines
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) data: DataArguments,
}

#[derive(Debug, Args)]
pub(crate) struct FieldsArguments {
    /// Columns of transactions instead of flows
    #[arg(long)]
    pub(crate) transactions: bool,
    /// JSON lines
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    /// Configuration file (TOML) that `wiretag run` is to have
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Name of this node [default: host name]
    #[arg(long, value_name = "NAME", env = "WIRETAG_NODE")]
    pub(crate) node: Option<String>,
    /// Data directory [default: data]
    #[arg(long, value_name = "DIR", env = "WIRETAG_DATA", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub(crate) data: Option<PathBuf>,
    /// Docker's address [default: unix:///var/run/docker.sock]
    #[arg(long, value_name = "URL", env = "DOCKER_HOST")]
    pub(crate) docker: Option<String>,
    /// JSON lines
    #[arg(long)]
    pub(crate) json: bool,
}

impl DoctorArguments {
    /// The start that is looked into.
    pub(crate) fn run(&self) -> RunArguments {
        let Self { config, node, data, docker, .. } = self;
        RunArguments {
            config: config.clone(),
            node: node.clone(),
            data: data.clone(),
            listen: None,
            interfaces: Vec::new(),
            static_file: None,
            docker: docker.clone(),
            demo: false,
        }
    }
}
