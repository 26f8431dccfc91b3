use prometheus::proto::MetricFamily;
use wiretag_capture::flow::{Engine, FlowConfig};
use wiretag_capture::{FlowRecord, LinkType, Packet, Side, Source, TcpState};
use wiretag_enrich::{Identity, TaggedBy};

use super::*;

struct Appliance {
    registry: Registry,
    metrics: FlowMetrics,
}

impl Appliance {
    fn new() -> Self {
        Self::with(true)
    }

    fn with(transactions: bool) -> Self {
        let registry = Registry::new();
        let metrics = FlowMetrics::new(&registry, transactions).expect("families");
        Self { registry, metrics }
    }

    /// A socket asks three times for a name that does not exist.
    fn lookups(&mut self, transactions: bool) {
        let mut engine = Engine::new(FlowConfig { transactions, ..FlowConfig::new("node", Source::File) });
        let (mut records, mut exchanges) = (Vec::new(), Vec::new());
        let (client, server) = ([10, 0, 0, 1, 0x9c, 0x40], [10, 0, 0, 2, 0, 53]);
        for id in 1..=3_u8 {
            for (from, to, flags, late) in [(client, server, [1, 0], 0), (server, client, [0x81, 0x83], 1)] {
                let mut data = vec![0x45, 0, 0, 47, 0, 1, 0, 0, 64, 17, 0, 0];
                data.extend([&from[..4], &to[..4], &from[4..], &to[4..], &[0, 27, 0, 0]].concat());
                data.extend([0, id, flags[0], flags[1], 0, 1, 0, 0, 0, 0, 0, 0, 1, b'x', 0, 0, 1, 0, 1]);
                let time = 1_000_000_000 + i64::from(id) * 10_000_000 + late * 1_000_000;
                let link_type = LinkType(101);
                let packet =
                    Packet { time, data: &data, wire_len: 47, link_type, interface: 0, direction: None, vlan: None };
                engine.packet(&packet, &mut records);
                engine.take_transactions(&mut exchanges);
            }
        }
        engine.finish(EndReason::EndOfInput, &mut records);
        engine.take_transactions(&mut exchanges);
        for mut record in records {
            record.primary = true;
            self.metrics.observe(&TaggedFlow { record, client: EndTag::NONE, server: EndTag::NONE });
        }
        for mut record in exchanges {
            record.primary = true;
            self.metrics.observe_transaction(&TaggedTransaction { record, client: EndTag::NONE, server: EndTag::NONE });
        }
    }

    /// A connection that ended, of so many bytes each way.
    fn flow(&mut self, client: &str, server: &str, bytes: u64) {
        let side = || Side { bytes, rtt_us: Some(100), ..Side::new([10, 0, 0, 1].into(), Some(80)) };
        let record = FlowRecord::new(Protocol::TCP, side(), side());
        let record = FlowRecord { tcp_state: Some(TcpState::Sf), end_reason: Some(EndReason::Fin), ..record };
        self.metrics.observe(&TaggedFlow { record, client: tag(client), server: tag(server) });
    }

    fn sweep(&mut self, times: u32) {
        for _ in 0..SWEEP * times {
            self.metrics.step();
        }
    }

    /// Series of a family with these labels, and the sum of their values.
    fn series(&self, family: &str, labels: &[(&str, &str)]) -> (usize, u64) {
        let families = self.registry.gather();
        let own = families.iter().filter(|own| own.name() == family).flat_map(MetricFamily::get_metric);
        let values = own.filter_map(|series| {
            let has = |(name, value): &(&str, &str)| {
                series.get_label().iter().any(|label| label.name() == *name && label.value() == *value)
            };
            labels.iter().all(has).then(|| series.get_counter().get_value() as u64)
        });
        values.fold((0, 0), |(count, sum), value| (count + 1, sum + value))
    }

    fn bytes(&self, labels: &[(&str, &str)]) -> u64 {
        self.series("wiretag_flow_bytes_total", labels).1
    }
}

fn tag(name: &str) -> EndTag {
    let identity = Identity { workload: Some(name.into()), ..Identity::default() };
    EndTag { identity: Some(Arc::new(identity)), tagged_by: TaggedBy::Interface, translated: None }
}

/// Families that have a label `server`.
const FAMILIES: [&str; 5] = [
    "wiretag_flows_total",
    "wiretag_flow_bytes_total",
    "wiretag_flow_retransmits_total",
    "wiretag_tcp_connections_total",
    "wiretag_handshake_rtt_seconds",
];

#[test]
fn series_of_who_is_gone_end_and_those_of_the_living_go_on() {
    let mut appliance = Appliance::new();
    appliance.flow("cart", "job-1", 500);
    for _ in 0..15 {
        appliance.flow("cart", "web", 500);
        appliance.sweep(1);
    }
    for family in FAMILIES {
        assert!(appliance.series(family, &[("server", "job-1")]).0 > 0, "{family}: quiet, but perhaps alive");
    }
    appliance.flow("cart", "web", 500);
    appliance.sweep(1);
    for family in FAMILIES {
        assert_eq!(appliance.series(family, &[("server", "job-1")]).0, 0, "{family}");
        assert!(appliance.series(family, &[("server", "web")]).0 > 0, "{family}");
    }
    assert_eq!(appliance.bytes(&[("client", "cart"), ("server", "web")]), 16 * 1000);
}

#[test]
fn names_that_come_one_after_the_other_all_have_series() {
    let mut appliance = Appliance::new();
    for job in 0..500 {
        let name = format!("job-{job}");
        appliance.flow("cart", &name, 500);
        appliance.sweep(2);
        assert_eq!(appliance.bytes(&[("server", &name)]), 1000, "{name}");
    }
    assert_eq!(appliance.bytes(&[("server", "other")]), 0);
}

#[test]
fn who_speaks_with_whom_has_a_budget_and_nothing_is_missing_from_sums() {
    let mut appliance = Appliance::new();
    for client in 0..250 {
        for server in 0..250 {
            appliance.flow(&format!("client-{client}"), &format!("server-{server}"), 50);
        }
    }
    appliance.sweep(2);
    let servers = MOST_SERVERS + 1;
    for (family, each) in FAMILIES.iter().zip([1, 2, 1]) {
        let (series, _) = appliance.series(family, &[]);
        assert!(series <= each * (MOST_PAIRS + servers) + 2 * PROTOCOLS.len(), "{family}: {series} series");
    }
    assert_eq!(appliance.series("wiretag_tcp_connections_total", &[]), (servers, 62_500));
    assert_eq!(appliance.series("wiretag_handshake_rtt_seconds", &[]).0, 2 * servers);
    assert_eq!(appliance.series("wiretag_flows_total", &[]).1, 62_500);
    assert_eq!(appliance.bytes(&[]), 6_250_000);
    assert_eq!(appliance.bytes(&[("server", "server-7")]), 25_000, "named, whoever its clients are");
    assert_eq!(appliance.bytes(&[("server", "other")]), 50 * 25_000);
}

#[test]
fn the_largest_have_names_whoever_came_first() {
    let mut appliance = Appliance::new();
    for server in 0..MOST_SERVERS {
        appliance.flow("cart", &format!("server-{server}"), if server == 7 { 50 } else { 50_000 });
    }
    appliance.flow("cart", "late", 500);
    appliance.sweep(1);
    appliance.flow("cart", "late", 500);
    appliance.flow("cart", "server-7", 50);
    appliance.sweep(2);
    assert_eq!(appliance.bytes(&[("server", "server-7")]), 100, "can be read for a minute more");
    assert_eq!(appliance.bytes(&[("server", "other")]), 2100);
    appliance.sweep(1);
    appliance.flow("cart", "late", 500);
    appliance.sweep(2);
    assert_eq!(appliance.bytes(&[("client", "cart"), ("server", "late")]), 1000);
    for family in FAMILIES {
        assert_eq!(appliance.series(family, &[("server", "server-7")]).0, 0, "{family}");
    }
    assert_eq!(appliance.bytes(&[("server", "other")]), 2100, "`other` only grows");
}

#[test]
fn what_clients_without_a_place_counted_ends_with_their_server() {
    let mut appliance = Appliance::new();
    for client in 0..=MOST_PAIRS {
        appliance.flow(&format!("client-{client}"), "job", 50);
    }
    appliance.sweep(2);
    assert_eq!(appliance.bytes(&[("client", "other"), ("server", "job")]), 100);
    appliance.sweep(14);
    assert_eq!(appliance.series("wiretag_flow_bytes_total", &[("server", "job")]).0, 0);
}

#[test]
fn protocols_without_a_name_are_one() {
    let names = [Protocol::TCP, Protocol::ICMP6, Protocol::GRE, Protocol(200)].map(protocol);
    assert_eq!(names, ["tcp", "icmp6", "other", "other"]);
}

#[test]
fn addresses_that_nobody_has_are_not_of_the_internet() {
    for (ip, kind) in [
        ("::", "unspecified"),
        ("0.0.0.0", "unspecified"),
        ("10.0.0.1", "private"),
        ("100.64.0.1", "private"),
        ("fe80::1", "private"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "multicast"),
        ("192.0.2.1", "public"),
        ("2001:db8::1", "public"),
    ] {
        assert_eq!(address_kind(ip.parse().expect("an address")), kind, "{ip}");
    }
}

#[test]
fn each_lookup_of_a_flow_counts_where_transactions_are_kept() {
    for (transactions, lookups) in [(true, 3), (false, 1)] {
        let mut appliance = Appliance::with(transactions);
        appliance.lookups(transactions);
        appliance.sweep(2);
        let responses = |rcode| appliance.series("wiretag_dns_responses_total", &[("rcode", rcode)]).1;
        assert_eq!((responses("NXDOMAIN"), responses("NOERROR")), (lookups, 0), "with transactions: {transactions}");
        assert_eq!(appliance.metrics.dns_latency.get_sample_count(), lookups);
    }
}
