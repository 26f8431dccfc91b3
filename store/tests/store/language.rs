//! What conditions mean, by a second and plain evaluator over rows as JSON; and pages of what they find, while rows arrive.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::rows::{self, START, flow};
use proptest::prelude::*;
use serde_json::{Map, Value};
use wiretag_capture::FlowRecord;
use wiretag_capture::record::Protocol;
use wiretag_enrich::TaggedFlow;
use wiretag_store::catalog::Catalog;
use wiretag_store::query::{Query, parse};
use wiretag_store::tables::{Engine, Range, SearchOptions, TableStore};

const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const ALL: Range = Range { from: 0, to: i64::MAX };

type Row = Map<String, Value>;

fn text<'a>(row: &'a Row, name: &str) -> Option<&'a str> {
    row[name].as_str()
}

fn number(row: &Row, name: &str) -> Option<u64> {
    row[name].as_u64()
}

/// Whether one of both sides passes.
fn either(row: &Row, name: &str, passes: fn(&Value) -> bool) -> bool {
    ["client", "server"].iter().any(|side| passes(&row[&format!("{side}_{name}")]))
}

fn label(labels: &Value) -> Option<&str> {
    labels.get("app").and_then(Value::as_str)
}

fn last_byte(ip: &Value) -> u8 {
    ip.as_str().unwrap().rsplit('.').next().unwrap().parse().unwrap()
}

/// Whether a row passes.
type Meaning = fn(&Row) -> bool;

/// Conditions, and what they mean.
const CONDITIONS: &[(&str, Meaning)] = &[
    ("server_port == 80", |row| number(row, "server_port") == Some(80)),
    ("server_port != 80", |row| number(row, "server_port").is_some_and(|port| port != 80)),
    ("port = 53", |row| either(row, "port", |port| *port == 53)),
    ("server_port in {53, 100..9000}", |row| {
        number(row, "server_port").is_some_and(|port| port == 53 || (100..=9_000).contains(&port))
    }),
    ("server_port not in {80}", |row| number(row, "server_port").is_some_and(|port| port != 80)),
    ("client_pod not in {web-1, web-2}", |row| {
        text(row, "client_pod").is_some_and(|pod| !["web-1", "web-2"].contains(&pod))
    }),
    ("pod not in {web-1}", |row| !either(row, "pod", |pod| pod == "web-1")),
    ("client_labels.app not in {a}", |row| label(&row["client_labels"]).is_some_and(|app| app != "a")),
    ("client_ip not in 10.0.0.0/31", |row| last_byte(&row["client_ip"]) > 1),
    ("client_pod == web-?", |row| text(row, "client_pod").is_some_and(|pod| pod.len() == 5 && pod.starts_with("web-"))),
    ("client_pod != web-1", |row| text(row, "client_pod").is_some_and(|pod| pod != "web-1")),
    ("pod != web-1", |row| !either(row, "pod", |pod| pod == "web-1")),
    ("pod == \"web-*\"", |row| either(row, "pod", |pod| pod.as_str().is_some_and(|pod| pod.starts_with("web-")))),
    ("client_pod ~ \"[12]$\"", |row| text(row, "client_pod").is_some_and(|pod| pod.ends_with(['1', '2']))),
    ("client_pod !~ '[12]$'", |row| text(row, "client_pod").is_some_and(|pod| !pod.ends_with(['1', '2']))),
    ("pod !~ 2", |row| !either(row, "pod", |pod| pod.as_str().is_some_and(|pod| pod.contains('2')))),
    ("client_pod exists", |row| !row["client_pod"].is_null()),
    ("pod not exists", |row| row["client_pod"].is_null() && row["server_pod"].is_null()),
    ("labels.app == a", |row| either(row, "labels", |labels| label(labels) == Some("a"))),
    ("client_labels.app != a", |row| label(&row["client_labels"]).is_some_and(|app| app != "a")),
    ("client_labels.\"app\" exists", |row| label(&row["client_labels"]).is_some()),
    ("ip in 10.0.0.0/31", |row| either(row, "ip", |ip| last_byte(ip) < 2)),
    ("client_ip == 10.0.0.2", |row| text(row, "client_ip") == Some("10.0.0.2")),
    ("10.0.0.3", |row| either(row, "ip", |ip| last_byte(ip) == 3)),
    ("client_ip == 10.0.*", |_| true),
    ("client_bytes >= 1KB", |row| number(row, "client_bytes").unwrap() >= 1_000),
    ("bytes > 1.5KiB", |row| either(row, "bytes", |bytes| bytes.as_u64().unwrap() > 1_536)),
    ("server_rtt_us > 2ms", |row| number(row, "server_rtt_us").is_some_and(|rtt| rtt > 2_000)),
    ("! server_rtt_us <= 0.5s", |row| number(row, "server_rtt_us").is_none_or(|rtt| rtt > 500_000)),
    ("client_retransmits in {1..2}", |row| number(row, "client_retransmits").is_some_and(|n| (1..=2).contains(&n))),
    ("retransmits < 2", |row| either(row, "retransmits", |n| n.as_u64().is_some_and(|n| n < 2))),
    ("protocol == UDP", |row| text(row, "protocol") == Some("udp")),
    ("protocol in {6, icmp}", |row| text(row, "protocol") == Some("tcp")),
    ("start >= 2026-03-01 00:10", |row| text(row, "start").unwrap() >= "2026-03-01T00:10"),
    ("start < 2026-03-01T00:20:00Z", |row| text(row, "start").unwrap() < "2026-03-01T00:20"),
    ("primary", |row| row["primary"] == true),
    ("primary != true", |row| row["primary"] == false),
    ("WEB-1", |row| either(row, "pod", |pod| pod == "web-1")),
    ("\"eb-2\"", |row| either(row, "pod", |pod| pod == "web-2")),
    ("tls_sni exists", |_| false),
    ("*", |_| true),
];

/// A condition made of others.
#[derive(Debug, Clone)]
enum Tree {
    One(usize),
    Not(Box<Tree>, bool),
    Both(Vec<Tree>, bool),
    Any(Vec<Tree>, bool),
}

impl Tree {
    fn text(&self) -> String {
        let joined = |parts: &[Self], word: &str| {
            format!("({})", parts.iter().map(Self::text).collect::<Vec<_>>().join(&format!(" {word} ")))
        };
        match self {
            Self::One(number) => CONDITIONS[*number].0.to_owned(),
            Self::Not(inner, sign) => format!("{}({})", if *sign { "!" } else { "not " }, inner.text()),
            Self::Both(parts, sign) => joined(parts, if *sign { "&&" } else { "AND" }),
            Self::Any(parts, sign) => joined(parts, if *sign { "||" } else { "or" }),
        }
    }

    fn holds(&self, row: &Row) -> bool {
        match self {
            Self::One(number) => CONDITIONS[*number].1(row),
            Self::Not(inner, _) => !inner.holds(row),
            Self::Both(parts, _) => parts.iter().all(|part| part.holds(row)),
            Self::Any(parts, _) => parts.iter().any(|part| part.holds(row)),
        }
    }
}

fn tree() -> impl Strategy<Value = Tree> {
    (0..CONDITIONS.len()).prop_map(Tree::One).prop_recursive(3, 12, 3, |inner| {
        let some = || (prop::collection::vec(inner.clone(), 2..4), any::<bool>());
        prop_oneof![
            (inner.clone(), any::<bool>()).prop_map(|(tree, sign)| Tree::Not(Box::new(tree), sign)),
            some().prop_map(|(trees, sign)| Tree::Both(trees, sign)),
            some().prop_map(|(trees, sign)| Tree::Any(trees, sign)),
        ]
    })
}

/// Names, and what may stand in a set of each.
const MEMBERS: &[(&str, &[&str])] = &[
    (
        "ip",
        &[
            "10.0.0.0",
            "10.0.0.2",
            "10.0.0.3",
            "10.0.0.9",
            "10.0.0.0/31",
            "10.1.0.0/16",
            "10.0.*.1",
            "fd00::1",
            "::ffff:10.0.0.1",
        ],
    ),
    ("client_ip", &["10.0.0.1", "10.0.0.0/32", "10.0.0.?", "fd00::/8"]),
    ("pod", &["web-0", "web-1", "WEB-2", "w*-2", "x"]),
    ("client_pod", &["web-2", "\"web-?\"", "web-11", "y"]),
    ("labels.app", &["a", "b", "z*", "c"]),
    ("port", &["80", "53", "100..9000", "90..8080", "1..52"]),
    ("server_rtt_us", &["0..1000", "3ms", "500..2000", "1s"]),
    ("protocol", &["tcp", "UDP", "6", "i*"]),
    (
        "start",
        &[
            "2026-03-01T00:10:00Z",
            "2026-03-01T00:05:00Z..2026-03-01T00:12:00Z",
            "2026-03-01T00:11:00Z..2026-03-01T00:20:00Z",
        ],
    ),
];

/// Some members of some sets.
fn sets() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let member = (0..MEMBERS.len(), any::<prop::sample::Index>()).prop_map(|(number, index)| {
        let (name, members) = MEMBERS[number];
        (name, members[index.index(members.len())])
    });
    prop::collection::vec(member, 1..40)
}

fn row() -> impl Strategy<Value = TaggedFlow> {
    let numbers = (0_i64..30, 0_u64..3_000, prop::option::of(0_u32..1_000_000), prop::option::of(0_u32..4));
    (0_u8..4, prop::option::of(0_u8..3), prop::option::of(0_u8..3), numbers, any::<bool>()).prop_map(
        |(ip, client, server, (minute, bytes, rtt, retransmits), flag)| {
            let mut row = flow(0);
            row.record.start = START + minute * MINUTE;
            row.record.end = row.record.start + SECOND;
            row.record.client.ip = [10, 0, 0, ip].into();
            row.record.client.bytes = bytes;
            row.record.client.retransmits = retransmits;
            row.record.server.rtt_us = rtt;
            row.record.server.port = rtt.map(|rtt| [80, 53, 8_080][rtt as usize % 3]);
            row.record.protocol = if flag { Protocol::TCP } else { Protocol::UDP };
            row.record.primary = bytes % 3 > 0;
            for (end, pod) in [(&mut row.client, client), (&mut row.server, server)] {
                if let Some(pod) = pod {
                    let labels: &[(&str, &str)] =
                        [&[("app", "a")][..], &[("app", "b")], &[("zone", "z")]][usize::from(pod)];
                    rows::name(end, &format!("web-{pod}"), labels);
                }
            }
            row
        },
    )
}

async fn store(dir: &std::path::Path) -> TableStore<FlowRecord> {
    let engine = Engine::open(dir).unwrap();
    let catalog = Catalog::open(&dir.join("catalog.sqlite")).await.unwrap();
    TableStore::open(&engine, catalog).await.unwrap().0
}

fn id(row: &Row) -> u64 {
    u64::from_str_radix(row["flow_id"].as_str().unwrap(), 16).unwrap()
}

/// The ids of what a condition finds.
async fn found(store: &TableStore<FlowRecord>, text: &str) -> BTreeSet<u64> {
    let query = parse(text).unwrap_or_else(|error| panic!("{error}"));
    let options = SearchOptions { limit: 1_000, all_observations: true, after: None };
    store.search(&query, ALL, options).await.unwrap().rows.iter().map(|row| id(&row.to_map())).collect()
}

/// Rows in memory, open, in files and in merged files.
async fn spread(store: &TableStore<FlowRecord>, rows: &[TaggedFlow]) {
    let (open, whole) = rows.split_at(rows.len() / 8);
    store.show_open(&open.iter().cloned().map(Arc::new).collect::<Vec<_>>()).await;
    for (number, chunk) in whole.chunks((whole.len() / 12).max(1)).enumerate() {
        store.append(chunk.to_vec()).await.unwrap();
        match number {
            0..8 | 9 => drop(store.flush().await.unwrap()),
            8 => while store.compact(START + 48 * 60 * MINUTE).await.unwrap() > 0 {},
            _ => {}
        }
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn conditions_mean_what_they_say(
        mut rows in prop::collection::vec(row(), 1..60),
        trees in prop::collection::vec(tree(), 12),
    ) {
        for (number, row) in rows.iter_mut().enumerate() {
            row.record.flow_id = number as u64;
        }
        let plain: Vec<Row> = rows.iter().map(wiretag_store::json::row).collect();
        block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let store = store(dir.path()).await;
            spread(&store, &rows).await;
            for tree in &trees {
                let expected: BTreeSet<u64> = plain.iter().filter(|row| tree.holds(row)).map(id).collect();
                assert_eq!(found(&store, &tree.text()).await, expected, "{}", tree.text());
            }
        });
    }

    /// Whatever is looked up at once means the same as one after the other, in memory and in files.
    #[test]
    fn sets_mean_what_their_members_mean(
        mut rows in prop::collection::vec(row(), 1..40),
        many in prop::collection::vec(sets(), 6),
    ) {
        for (number, row) in rows.iter_mut().enumerate() {
            row.record.flow_id = number as u64;
        }
        block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let store = store(dir.path()).await;
            spread(&store, &rows).await;
            for members in &many {
                let mut names: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
                for (name, member) in members {
                    names.entry(name).or_default().push(member);
                }
                let sets: Vec<String> =
                    names.iter().map(|(name, members)| format!("{name} in {{{}}}", members.join(", "))).collect();
                let text = sets.join(" or ");
                let one = |(name, member): &(&str, &str)| parse::<FlowRecord>(&format!("{name} in {{{member}}}")).unwrap();
                let each: Vec<Query<FlowRecord>> = members.iter().map(one).collect();
                let whole = parse::<FlowRecord>(&text).unwrap();
                let mut expected = BTreeSet::new();
                for row in &rows {
                    let passes = each.iter().any(|one| one.matches(row));
                    assert_eq!(whole.matches(row), passes, "{text}");
                    if passes {
                        expected.insert(row.record.flow_id);
                    }
                }
                assert_eq!(found(&store, &text).await, expected, "{text}");
                let others: BTreeSet<u64> = (0..rows.len() as u64).filter(|id| !expected.contains(id)).collect();
                assert_eq!(found(&store, &format!("not ({text})")).await, others, "not ({text})");
            }
        });
    }

    /// What was there when the first page was read is on the pages once, in order, whatever comes, is written or merged
    /// meanwhile.
    #[test]
    fn pages_do_not_shift_while_rows_arrive(
        mut before in prop::collection::vec(row(), 1..40),
        mut after in prop::collection::vec(row(), 1..40),
        limit in 1_usize..9,
        steps in prop::collection::vec(0_u8..4, 40),
    ) {
        for (number, row) in before.iter_mut().chain(&mut after).enumerate() {
            row.record.flow_id = number as u64;
            row.record.primary = true;
        }
        let there: BTreeSet<u64> = before.iter().map(|row| row.record.flow_id).collect();
        block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let store = store(dir.path()).await;
            spread(&store, &before).await;
            let (mut cursor, mut seen, mut steps) = (None, Vec::new(), steps.into_iter().cycle());
            loop {
                let options = SearchOptions { limit, all_observations: false, after: cursor };
                let page = store.search(&Query::everything(), ALL, options).await.unwrap();
                assert!(page.rows.len() == limit || page.next.is_none());
                seen.extend(page.rows.iter().map(|row| (std::cmp::Reverse(row.get("start").as_str().unwrap().to_owned()), id(&row.to_map()))));
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
                match steps.next().unwrap_or_default() {
                    0 => store.append(after.pop().into_iter().collect()).await.unwrap(),
                    1 => drop(store.flush().await.unwrap()),
                    2 => drop(store.compact(START + 48 * 60 * MINUTE).await.unwrap()),
                    _ => {}
                }
            }
            assert!(seen.is_sorted() && seen.windows(2).all(|pair| pair[0] != pair[1]), "{seen:?}");
            let seen: BTreeSet<u64> = seen.into_iter().map(|(_, id)| id).collect();
            assert!(seen.is_superset(&there), "{:?}", there.difference(&seen));
        });
    }
}
