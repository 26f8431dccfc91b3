//! Flow rows as a cluster makes them, from a seed: a few services have most of the traffic, client ports are random, round trip
//! times log-normal, most application columns null, and a part of the flows is seen at both ends. A workload asks a few others,
//! any of their pods.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use wiretag_capture::flow::CommunityId;
use wiretag_capture::record::{
    Direction, Dns, EndReason, FlowRecord, Http, ObservedAt, OrientedBy, Protocol, Responses, Side, Source, TcpState,
    Tls,
};
use wiretag_enrich::{EndTag, Identity, TaggedBy, TaggedFlow};

const SECOND: i64 = 1_000_000_000;
/// When the rows begin: 2026-03-01, midnight.
pub(crate) const BEGIN: i64 = 1_772_323_200 * SECOND;
const WORKLOADS: usize = 120;
const PODS: usize = 2_000;
const NODES: usize = 25;
/// Workloads that one asks.
const ASKED: usize = 6;
/// Servers outside.
const OUTSIDE: usize = 20_000;
/// Names that somebody asks for.
const NAMES: usize = 4_000;
const PORTS: [u16; 10] = [80, 443, 8080, 5432, 6379, 9092, 3306, 27_017, 8443, 50_051];

/// Random numbers: xorshift64*, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// In [0, 1).
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.unit() * bound as f64) as usize
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Small numbers most often.
    fn skewed(&mut self, bound: usize, skew: f64) -> usize {
        (bound as f64 * self.unit().powf(skew)) as usize
    }

    /// A time that fits a record.
    fn micros(&mut self, median: f64, sigma: f64) -> u32 {
        self.log_normal(median, sigma) as u32
    }

    fn log_normal(&mut self, median: f64, sigma: f64) -> u64 {
        let (radius, angle) = ((-2.0 * (1.0 - self.unit()).ln()).sqrt(), std::f64::consts::TAU * self.unit());
        (median * (sigma * radius * angle.cos()).exp()) as u64
    }

    /// At least one, half of them more than the mean says.
    fn geometric(&mut self, probability: f64) -> u64 {
        1 + ((1.0 - self.unit()).ln() / (1.0 - probability).ln()) as u64
    }
}

/// A pod with its address.
struct Pod {
    ip: IpAddr,
    mac: [u8; 6],
    node: Arc<str>,
    interface: Arc<str>,
    index: u32,
    port: u16,
    workload: usize,
    tag: EndTag,
}

/// Makes rows, in the order in which the flows end.
pub(crate) struct Generator {
    random: Random,
    pods: Vec<Pod>,
    /// Pods behind what each workload asks.
    asked: Vec<Vec<Arc<[usize]>>>,
    names: Vec<Arc<str>>,
    paths: Vec<Arc<str>>,
    words: Words,
    rows: u64,
    made: u64,
    span: i64,
    /// The same flow at its other end.
    other: Option<TaggedFlow>,
}

/// Texts that many rows share.
struct Words {
    h2: Arc<str>,
    ja4: Vec<Arc<str>>,
    get: Arc<str>,
    post: Arc<str>,
    class: Arc<str>,
}

impl Generator {
    /// `rows` rows over `span` nanoseconds.
    pub(crate) fn new(seed: u64, rows: u64, span: i64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let pods: Vec<Pod> = (0..PODS).map(|number| pod(&mut random, number)).collect();
        let asked = asked(&mut random, &pods);
        let names = (0..NAMES)
            .map(|number| format!("{}.shop-{number:04}.example.org", ["api", "www", "cdn", "auth"][number % 4]).into());
        let paths =
            (0..500).map(|number| format!("/api/v1/{}/{number}", ["items", "orders", "users"][number % 3]).into());
        let ja4 =
            (0..40).map(|number| format!("t13d{:02}16h2_8daaf6152771_{:012x}", number % 20, number * 7_919).into());
        let words = Words {
            h2: "h2".into(),
            ja4: ja4.collect(),
            get: "GET".into(),
            post: "POST".into(),
            class: "headers".into(),
        };
        let (names, paths) = (names.collect(), paths.collect());
        Self { random, pods, asked, names, paths, words, rows, made: 0, span, other: None }
    }

    /// Address and identity of each pod.
    pub(crate) fn pods(&self) -> impl Iterator<Item = (IpAddr, Arc<Identity>)> {
        self.pods.iter().filter_map(|pod| Some((pod.ip, pod.tag.identity.clone()?)))
    }

    fn row(&mut self) -> TaggedFlow {
        if let Some(other) = self.other.take() {
            return other;
        }
        let random = &mut self.random;
        let client = random.skewed(PODS, 1.6);
        let behind = &self.asked[self.pods[client].workload][random.skewed(ASKED, 1.6)];
        let server = behind[random.below(behind.len())];
        let tcp = random.chance(0.8);
        let dns = !tcp && random.chance(0.8);
        let outside = random.chance(0.1);
        let jitter = (random.unit() * (self.span as f64 / self.rows as f64)) as i64;
        let end = BEGIN + (self.span as f64 * (self.made as f64 / self.rows as f64)) as i64 + jitter;
        let length = random.log_normal(160_000_000.0, 2.2).min(60_000_000_000) as i64;
        let (own, far) = (&self.pods[client], &self.pods[server]);
        let mut row = plain(random, own, end - length, end, if tcp { Protocol::TCP } else { Protocol::UDP });
        row.client = own.tag.clone();
        let record = &mut row.record;
        record.server.port = Some(if dns { 53 } else { far.port });
        if outside {
            let number = random.skewed(OUTSIDE, 3.0) as u32;
            record.server.ip = Ipv4Addr::from(0x2d00_0000 + number * 9_973).into();
        } else {
            record.server.ip = far.ip;
            record.server.mac = Some(far.mac);
            row.server = far.tag.clone();
        }
        volumes(random, record, tcp);
        if tcp {
            transport(random, record);
        }
        self.application(&mut row.record, tcp, dns, server);
        self.twice(&row, outside, server);
        row
    }

    /// A fifth of the flows within the cluster are seen at the server's end too.
    fn twice(&mut self, row: &TaggedFlow, outside: bool, server: usize) {
        if outside || !self.random.chance(0.2) {
            return;
        }
        let mut other = row.clone();
        let far = &self.pods[server];
        other.record.flow_id = self.random.next();
        other.record.primary = false;
        other.record.observed_at = Some(ObservedAt::Server);
        other.record.client_direction = Some(Direction::Egress);
        (other.record.node, other.record.interface, other.record.interface_index) =
            (far.node.clone(), far.interface.clone(), far.index);
        other.record.start += 20_000;
        other.record.end += 20_000;
        self.other = Some(other);
    }

    fn application(&mut self, record: &mut FlowRecord, tcp: bool, dns: bool, server: usize) {
        let random = &mut self.random;
        let workload = self.pods[server].workload;
        let name = self.names[random.skewed(NAMES, 4.0)].clone();
        if dns {
            record.app = Some("dns");
            let missing = random.chance(0.05);
            record.dns = Some(Box::new(Dns {
                query: Some(name),
                qtype: Some("A".into()),
                rcode: Some(if missing { "NXDOMAIN" } else { "NOERROR" }.into()),
                latency_us: Some(random.log_normal(500.0, 0.8)),
                answers: Some(if missing { 0 } else { random.geometric(0.5) }),
                retries: Some(0),
            }));
        } else if tcp && workload % 10 == 1 {
            record.app = Some("tls");
            let ja4 = self.words.ja4[random.skewed(40, 2.0)].clone();
            let (sni, alpn) = (Some(name), Some(self.words.h2.clone()));
            record.tls = Some(Box::new(Tls { sni, version: Some("1.3"), alpn, ja4: Some(ja4) }));
        } else if tcp && workload.is_multiple_of(10) {
            record.app = Some("http");
            let requests = random.geometric(0.4);
            let failed = random.chance(0.02);
            record.http = Some(Box::new(Http {
                method: Some(if random.chance(0.8) { &self.words.get } else { &self.words.post }.clone()),
                host: Some(name),
                path: Some(self.paths[random.skewed(500, 2.0)].clone()),
                status: Some(if failed { 503 } else { 200 }),
                latency_us: Some(random.log_normal(2_500.0, 1.1)),
                requests,
                errors: u64::from(failed),
            }));
        }
        if record.packets_stored.is_some() {
            record.retention = Some(self.words.class.clone());
        }
    }
}

impl Iterator for Generator {
    type Item = TaggedFlow;

    fn next(&mut self) -> Option<TaggedFlow> {
        if self.made == self.rows {
            return None;
        }
        let row = self.row();
        self.made += 1;
        Some(row)
    }
}

/// Everybody asks some workloads more often than others.
fn asked(random: &mut Random, pods: &[Pod]) -> Vec<Vec<Arc<[usize]>>> {
    let of = |workload: usize| (0..pods.len()).filter(move |pod| pods[*pod].workload == workload);
    let behind: Vec<Arc<[usize]>> = (0..WORKLOADS).map(|workload| of(workload).collect()).collect();
    let behind: Vec<Arc<[usize]>> = behind.into_iter().filter(|pods| !pods.is_empty()).collect();
    let mut some = || (0..ASKED).map(|_| behind[random.skewed(behind.len(), 2.5)].clone()).collect();
    (0..WORKLOADS).map(|_| some()).collect()
}

fn pod(random: &mut Random, number: usize) -> Pod {
    let workload = random.skewed(WORKLOADS, 1.6);
    let (name, kind) = (["api", "web", "db", "cache", "queue", "auth", "etl", "ml"][workload % 8], workload % 5);
    let (uid, node) = (random.next(), random.below(NODES));
    let workload_name = format!("{name}-svc-{workload:03}");
    let labels = [
        ("app", workload_name.clone()),
        ("app.kubernetes.io/version", format!("1.{}.{}", workload % 7, workload % 3)),
        ("pod-template-hash", format!("{:010x}", workload * 2_654_435_761)),
        ("tier", ["front", "middle", "back"][workload % 3].to_owned()),
    ];
    let host: Arc<str> = format!("node-{node:02}.cluster.local").into();
    let identity = Identity {
        identity: format!("{uid:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}", uid >> 48, number, node, random.next() >> 16)
            .into(),
        cluster: Some("production".into()),
        host: Some(host.clone()),
        namespace: Some(format!("ns-{:02}", workload * 7 % 20).into()),
        pod: Some(
            format!("{workload_name}-{:010x}-{:05x}", workload * 2_654_435_761, number * 40_503 % 1_048_576).into(),
        ),
        container: Some(["app", "app", "app", "envoy"][number % 4].into()),
        workload: Some(workload_name.clone().into()),
        workload_kind: Some(if kind == 0 { "StatefulSet" } else { "Deployment" }.into()),
        service: Some(format!("{name}-{workload:03}").into()),
        image: Some(format!("registry.example.org/shop/{name}:1.{}.{}", workload % 7, workload % 3).into()),
        zone: Some(["eu-1a", "eu-1b", "eu-1c"][node % 3].into()),
        labels: labels.into_iter().map(|(key, value)| (Arc::from(key), Arc::from(value))).collect::<BTreeMap<_, _>>(),
        containers: Vec::new(),
    };
    let [.., high, low] = (number as u32).to_be_bytes();
    Pod {
        ip: Ipv4Addr::new(10, 244, high, low).into(),
        mac: [2, 0x42, 10, 244, high, low],
        node: host,
        interface: format!("veth{:08x}", uid as u32).into(),
        index: number as u32 + 10,
        port: PORTS[workload % 10],
        workload,
        tag: EndTag { identity: Some(Arc::new(identity)), tagged_by: TaggedBy::Interface, translated: None },
    }
}

/// A row of the client's own interface.
fn plain(random: &mut Random, own: &Pod, start: i64, end: i64, protocol: Protocol) -> TaggedFlow {
    let mut client = Side::new(own.ip, Some(32_768 + random.below(28_232) as u16));
    client.mac = Some(own.mac);
    let record = FlowRecord {
        flow_id: random.next(),
        start,
        end,
        end_reason: Some(if protocol == Protocol::TCP { EndReason::Fin } else { EndReason::Idle }),
        community_id: community_id(random),
        node: own.node.clone(),
        interface: own.interface.clone(),
        interface_index: own.index,
        source: Source::Ring,
        client_direction: Some(Direction::Ingress),
        observed_at: Some(ObservedAt::Client),
        oriented_by: if protocol == Protocol::TCP { OrientedBy::Syn } else { OrientedBy::Port },
        dscp: Some(0),
        ..FlowRecord::new(protocol, client, Side::new(own.ip, None))
    };
    TaggedFlow { record, client: EndTag::NONE, server: EndTag::NONE }
}

/// As random as a hash is.
fn community_id(random: &mut Random) -> Option<CommunityId> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut text, mut bits) = (String::from("1:"), 0);
    for at in 0..27 {
        if at % 10 == 0 {
            bits = random.next();
        }
        text.push(char::from(LETTERS[(bits & 63) as usize]));
        bits >>= 6;
    }
    text.push('=');
    CommunityId::from_text(&text)
}

fn volumes(random: &mut Random, record: &mut FlowRecord, tcp: bool) {
    let sizes = if tcp { [(0.15, 400.0, 1.5), (0.12, 1_800.0, 1.9)] } else { [(0.6, 60.0, 0.4), (0.6, 120.0, 0.6)] };
    for (side, (packets, median, sigma)) in [&mut record.client, &mut record.server].into_iter().zip(sizes) {
        side.packets = random.geometric(packets) + if tcp { 3 } else { 0 };
        side.payload_bytes = random.log_normal(median, sigma).min(5_000_000_000);
        side.bytes = side.payload_bytes + side.packets * if tcp { 52 } else { 28 };
    }
    if random.chance(0.3) {
        record.packets_stored = Some(record.client.packets + record.server.packets);
    }
}

/// What TCP tells.
fn transport(random: &mut Random, record: &mut FlowRecord) {
    let reset = random.chance(0.04);
    record.tcp_state = Some(if reset { TcpState::Rstr } else { TcpState::Sf });
    if reset {
        record.end_reason = Some(EndReason::Rst);
    }
    record.syn_retries = Some(0);
    let (client, server) = (random.micros(40.0, 0.7), random.micros(250.0, 0.7));
    (record.client.rtt_us, record.server.rtt_us) = (Some(client), Some(server));
    record.handshake_rtt_us = Some(client + server);
    let lossy = random.chance(0.03);
    for (side, window) in [(&mut record.client, 64_240), (&mut record.server, 65_160)] {
        side.packets_missed = Some(0);
        side.tcp_flags = Some(if reset { 0b0001_0110 } else { 0b0001_1011 });
        let again = if lossy { random.geometric(0.5) as u32 } else { 0 };
        side.retransmits = Some(again);
        side.retransmit_bytes = Some(u64::from(again) * 1_448);
        side.fast_retransmits = Some(again / 2);
        side.timeout_retransmits = Some(again % 2);
        side.spurious_retransmits = Some(0);
        side.keep_alives = Some(u32::from(random.chance(0.02)));
        side.capture_duplicates = Some(0);
        side.out_of_order = Some(u32::from(random.chance(0.01)));
        side.duplicate_acks = Some(if random.chance(0.03) { random.geometric(0.4) as u32 } else { 0 });
        let closed = random.chance(0.004);
        side.zero_windows = Some(u32::from(closed));
        side.zero_window_us = Some(if closed { random.log_normal(20_000.0, 1.0) } else { 0 });
        side.resets = Some(u32::from(reset && window == 65_160));
        side.mss = Some(1_460);
        side.window_scale = Some(7);
        side.window_max = Some(window << random.below(3));
        let mean = random.micros(300.0, 0.6);
        (side.rtt_avg_us, side.rtt_max_us) = (Some(mean), Some(mean + random.micros(200.0, 1.0)));
    }
    let (first, count) = (random.micros(2_500.0, 1.1), random.geometric(0.5) as u32);
    let max = if count == 1 { first } else { first + random.micros(500.0, 1.0) };
    record.responses = Some(Responses { first_us: first, avg_us: u32::midpoint(first, max), max_us: max, count });
}
