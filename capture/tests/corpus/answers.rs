//! The corpus: what its index and its independent answers say of a capture.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

/// The corpus beside the clone. Outside CI its absence skips the test and says so, in CI it is a failure.
pub(crate) fn corpus() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus");
    let there = path.join("index.jsonl").exists();
    let in_ci = std::env::vars_os().any(|(name, value)| name == "CI" && value == "true");
    assert!(there || !in_ci, "CI must have the corpus `../shared/corpus`");
    if !there {
        eprintln!("skipped: no corpus `../shared/corpus`");
    }
    there.then_some(path)
}

/// A capture and its answers.
pub(crate) struct Capture {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// Its row of `index.jsonl`.
    pub(crate) index: Json,
    /// What tshark and the corpus' own scripts say.
    pub(crate) tshark: Json,
    /// What its own project's tests expect; null if nothing.
    pub(crate) upstream: Json,
    /// Its part of `retransmissions_agreed.json`.
    pub(crate) agreed: Vec<Json>,
}

impl Capture {
    /// Every capture of the corpus, in the order of its index.
    pub(crate) fn all(corpus: &Path) -> Vec<Self> {
        let read = |name: &str| std::fs::read_to_string(corpus.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let json = |name: &str| -> Json { serde_json::from_str(&read(name)).expect("JSON") };
        let agreed = json("retransmissions_agreed.json");
        let rows = read("index.jsonl");
        let rows = rows.lines().map(|line| serde_json::from_str::<Json>(line).expect("a row of the index"));
        rows.map(|index| {
            let name = text(&index["name"]).to_owned();
            let path = corpus.join(text(&index["file"]));
            let tshark = json(text(&index["expected"]))["tshark"].clone();
            let upstream = std::fs::read_to_string(corpus.join(format!("upstream_parsed/{name}.json")));
            let upstream = upstream.map_or(Json::Null, |text| serde_json::from_str(&text).expect("JSON"));
            let agreed = list(&agreed[&name]).to_vec();
            Self { name, path, index, tshark, upstream, agreed }
        })
        .collect()
    }

    /// Whether the index says that this may be checked.
    pub(crate) fn may_check(&self, what: &str) -> bool {
        list(&self.index["checks"]).iter().any(|check| text(check).starts_with(what))
    }

    /// Flows at every depth.
    pub(crate) fn flows(&self) -> Vec<Flow<'_>> {
        list(&self.tshark["flows"]).iter().map(Flow).collect()
    }

    /// Entries of a protocol that belong to a flow.
    pub(crate) fn of_stream<'a>(&'a self, protocol: &str, flow: Flow<'_>) -> Vec<&'a Json> {
        let Some(stream) = flow.stream() else { return Vec::new() };
        list(&self.tshark[protocol]).iter().filter(|entry| text(&entry["stream"]) == stream).collect()
    }
}

pub(crate) fn text(value: &Json) -> &str {
    value.as_str().unwrap_or_default()
}

pub(crate) fn list(value: &Json) -> &[Json] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn number(value: &Json) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// UDP ports of tunnels that are opened.
const TUNNEL_PORTS: [u64; 5] = [2152, 3544, 4789, 6081, 8472];

/// Address and port; ICMP has 0 here, for tools differ in how they turn type and code into ports.
pub(crate) type Endpoint = (IpAddr, u64);

/// A flow of the answers.
#[derive(Clone, Copy)]
pub(crate) struct Flow<'a>(pub(crate) &'a Json);

impl<'a> Flow<'a> {
    pub(crate) fn protocol(self) -> &'a str {
        match text(&self.0["proto"]) {
            "icmpv6" => "icmp6",
            other => other,
        }
    }

    /// Sender of the first packet.
    pub(crate) fn a(self) -> Endpoint {
        self.endpoint("a")
    }

    pub(crate) fn b(self) -> Endpoint {
        self.endpoint("b")
    }

    fn endpoint(self, side: &str) -> Endpoint {
        let ip = text(&self.0[side]).parse().expect("an address");
        let port = if self.protocol().starts_with("icmp") { 0 } else { number(&self.0[format!("{side}_port")]) };
        (ip, port)
    }

    pub(crate) fn depth(self) -> u64 {
        number(&self.0["depth"])
    }

    /// As the entries of protocols name it.
    pub(crate) fn stream(self) -> Option<String> {
        self.0["stream"].as_u64().map(|stream| format!("{}/{stream}", self.protocol()))
    }

    /// Whether this is a tunnel around others, `deepest` being the greatest depth in the capture.
    pub(crate) fn is_tunnel(self, deepest: u64) -> bool {
        let ports = [self.a().1, self.b().1];
        self.protocol() == "udp" && self.depth() < deepest && ports.iter().any(|port| TUNNEL_PORTS.contains(port))
    }

    /// A number of both directions.
    pub(crate) fn both(self, name: &str) -> [u64; 2] {
        ["ab", "ba"].map(|direction| number(&self.0[format!("{name}_{direction}")]))
    }

    /// Both directions of what is said of TCP, `at` being a JSON pointer below the direction.
    pub(crate) fn tcp(self, at: &str) -> [u64; 2] {
        ["ab", "ba"].map(|direction| self.0["tcp"][direction].pointer(at).map_or(0, number))
    }

    pub(crate) fn handshake(self) -> &'a Json {
        &self.0["tcp"]["handshake"]
    }

    /// Exactly one SYN and one SYN-ACK.
    pub(crate) fn has_plain_handshake(self) -> bool {
        let sum = |at| self.tcp(at).iter().sum::<u64>();
        sum("/flags/syn_only") == 1 && sum("/flags/syn_ack") == 1
    }
}
