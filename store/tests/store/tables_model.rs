//! Any history of a store answers as a plain vector of rows does: appends, flushes, merges, restarts, files that were written
//! and never registered, erasures, names that are told late, and questions in between, page by page.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::retag;
use crate::rows::{self, START, flow};
use proptest::prelude::*;
use wiretag_capture::FlowRecord;
use wiretag_capture::record::Tls;
use wiretag_enrich::TaggedFlow;
use wiretag_enrich::timeline::late::LateRows;
use wiretag_store::ErasureRequest;
use wiretag_store::catalog::Catalog;
use wiretag_store::query::{Query, parse};
use wiretag_store::tables::{Engine, FlowStore, Range, SearchOptions, TableStore};

const HOUR: i64 = 3_600_000_000_000;
const ALL: Range = Range { from: 0, to: i64::MAX };

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Sample>),
    Flush,
    /// So many hours after the first row.
    Compact(i64),
    Restart,
    /// A merge was written, and the process killed before the catalog knew.
    Crash,
    /// What passes in these hours goes; the process may be killed after so many µs.
    Erase {
        text: &'static str,
        hours: (i64, i64),
        killed: Option<u64>,
    },
    /// Who 10.0.0.x was in these hours is told; the process may be killed after so many µs.
    Retag {
        client: u8,
        hours: (i64, i64),
        by_address: bool,
        killed: Option<u64>,
    },
    Ask {
        text: &'static str,
        limit: usize,
        all: bool,
        hours: (i64, i64),
    },
}

/// What makes one row differ from another.
#[derive(Debug, Clone)]
struct Sample {
    client: u8,
    server: u8,
    port: u16,
    pod: Option<u8>,
    name: Option<u8>,
    again: Option<u32>,
    /// Minutes after the first row, and how long it lasts.
    at: i64,
    lasts: i64,
    primary: bool,
}

fn sample() -> impl Strategy<Value = Sample> {
    let ends = (0_u8..4, 0_u8..4, prop::sample::select(vec![53_u16, 80, 443]));
    let names = (prop::option::of(0_u8..3), prop::option::of(0_u8..3), prop::option::of(0_u32..3));
    // Few minutes, so that many rows begin together.
    (ends, names, 0_i64..12, 0_i64..90, any::<bool>()).prop_map(
        |((client, server, port), (pod, name, again), at, lasts, primary)| Sample {
            client,
            server,
            port,
            pod,
            name,
            again,
            at: at * 15,
            lasts,
            primary,
        },
    )
}

fn row(sample: &Sample, flow_id: u64) -> TaggedFlow {
    const MINUTE: i64 = HOUR / 60;
    let mut row = flow(flow_id);
    let record = &mut row.record;
    record.start = START + sample.at * MINUTE;
    record.end = record.start + sample.lasts * MINUTE;
    record.client.ip = [10, 0, 0, sample.client].into();
    record.server.ip = [10, 0, 1, sample.server].into();
    record.server.port = Some(sample.port);
    record.client.retransmits = sample.again;
    record.primary = sample.primary;
    record.tls = sample.name.map(|name| {
        let sni: Option<Arc<str>> = Some(format!("name-{name}.example.org").into());
        Box::new(Tls { sni, version: Some("1.3"), alpn: None, ja4: None })
    });
    if let Some(pod) = sample.pod {
        rows::name(&mut row.client, &format!("web-{pod}"), &[("app", if pod == 0 { "a" } else { "b" })]);
    }
    row
}

fn step() -> impl Strategy<Value = Step> {
    let text = || {
        prop::sample::select(vec![
            "*",
            "ip == 10.0.0.1",
            "client_ip == 10.0.0.9",
            "server_ip == 10.0.1.2 and port == 443",
            "server_port == 80 or server_port == 53",
            "not server_port == 80",
            "pod == web-1",
            "pod == web-7",
            "client_pod != web-1",
            "not client_pod == web-1",
            "pod == web-*",
            "labels.app == a",
            "tls_sni == name-2.example.org",
            "tls_sni == nobody.example.org",
            "tls_sni exists",
            "client_pod == late-1",
            "not client_identity exists",
            "client_tagged_by == none and not client_pod exists",
            "not tls_sni exists",
            "client_retransmits > 1",
            "not client_retransmits > 1",
            "flow_id == 0000000000000007",
            "ip in 10.0.1.0/31 and client_retransmits exists",
            "(pod == web-0 or tls_sni == name-0.example.org) and not port == 53",
        ])
    };
    let killed = || prop::option::of(0_u64..30_000);
    let erase = (text(), (-1_i64..4, 0_i64..5), killed()).prop_map(|(text, (from, length), killed)| Step::Erase {
        text,
        hours: (from, from + length),
        killed,
    });
    let retag = (0_u8..4, (-1_i64..4, 0_i64..5), any::<bool>(), killed()).prop_map(
        |(client, (from, length), by_address, killed)| Step::Retag {
            client,
            hours: (from, from + length),
            by_address,
            killed,
        },
    );
    let ask = (text(), 1_usize..9, any::<bool>(), (-1_i64..4, 0_i64..5))
        .prop_map(|(text, limit, all, (from, length))| Step::Ask { text, limit, all, hours: (from, from + length) });
    prop_oneof![
        4 => prop::collection::vec(sample(), 1..12).prop_map(Step::Append),
        4 => Just(Step::Flush),
        3 => (0_i64..8).prop_map(Step::Compact),
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
        1 => erase,
        1 => retag,
        4 => ask,
    ]
}

async fn open(dir: &Path) -> FlowStore {
    begin(dir).await.0
}

async fn begin(dir: &Path) -> (FlowStore, Catalog) {
    let engine = Engine::open(dir).unwrap();
    let catalog = Catalog::open(&dir.join("catalog.sqlite")).await.unwrap();
    (TableStore::<FlowRecord>::open(&engine, catalog.clone()).await.unwrap().0, catalog)
}

/// The condition of an erasure and its range: what is of it goes, also if it comes later.
type Erased = Vec<(Query<FlowRecord>, Range)>;

fn is_erased(erased: &Erased, row: &TaggedFlow) -> bool {
    let record = &row.record;
    let touches = |range: &Range| record.start < range.to && record.end >= range.from;
    erased.iter().any(|(query, range)| touches(range) && query.matches(row))
}

async fn erase(store: &FlowStore, catalog: &Catalog, (text, range): (&str, Range), killed: Option<u64>) {
    let filter = if text == "*" { "start exists" } else { text }.to_owned();
    let Range { from, to } = range;
    let request = ErasureRequest { filter, from, to, only: None, who: "me".into(), reason: "a request".into() };
    let id = catalog.begin_erasure(&request, to).await.unwrap();
    let erasure = catalog.erasures_after(id - 1).await.unwrap().remove(0);
    let clock = || to;
    let Some(after) = killed else {
        assert!(store.erase(&erasure, &clock).await.unwrap().is_empty());
        return;
    };
    cut_short(after, async || drop(store.erase(&erasure, &clock).await.unwrap()));
}

/// Begins the work and drops it after so many µs, as a process that is killed does. What it had given to other threads has ended
/// when this returns: a process that is dead does not write.
fn cut_short(after: u64, work: impl AsyncFnOnce() + Send) {
    let run = || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_micros(after)) => {}
                () = work() => {}
            }
            while runtime.metrics().num_alive_tasks() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap());
}

/// `late-N` was 10.0.0.N in this range: the rows of then that have no client get it.
fn tell(rows: &mut [TaggedFlow], client: u8, range: Range) {
    let is_of = |row: &&mut TaggedFlow| {
        let record = &row.record;
        let is_then = record.start >= range.from && record.start < range.to;
        row.client.identity.is_none() && is_then && record.client.ip == std::net::IpAddr::from([10, 0, 0, client])
    };
    for row in rows.iter_mut().filter(is_of) {
        rows::name(&mut row.client, &format!("late-{client}"), &[]);
    }
}

/// The same to the store, which is opened again if the process is killed.
async fn told(
    store: FlowStore,
    catalog: Catalog,
    (dir, client): (&Path, u8),
    (late, killed): (&LateRows, Option<u64>),
) -> (FlowStore, Catalog) {
    let again = retag::known([10, 0, 0, client].into(), &format!("late-{client}"), (late.from, late.to));
    let Some(after) = killed else {
        retag::retag(&store, late, &again).await;
        return (store, catalog);
    };
    cut_short(after, async || _ = retag::retag(&store, late, &again).await);
    store.flush().await.unwrap();
    drop(store);
    let (store, catalog) = begin(dir).await;
    retag::retag(&store, late, &again).await;
    (store, catalog)
}

/// All pages, as flow ids.
async fn asked(store: &FlowStore, query: &Query<FlowRecord>, range: Range, limit: usize, all: bool) -> Vec<String> {
    let (mut after, mut found) = (None, Vec::new());
    loop {
        let options = SearchOptions { limit, all_observations: all, after };
        let page = store.search(query, range, options).await.unwrap();
        found.extend(page.rows.iter().map(|row| row.get("flow_id").as_str().unwrap().to_owned()));
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

fn expected(rows: &[TaggedFlow], query: &Query<FlowRecord>, range: Range, all: bool) -> Vec<String> {
    let passes = |row: &&TaggedFlow| {
        let record = &row.record;
        (all || record.primary) && record.start < range.to && record.end >= range.from && query.matches(row)
    };
    let mut rows: Vec<&TaggedFlow> = rows.iter().filter(passes).collect();
    rows.sort_by_key(|row| (std::cmp::Reverse(row.record.start), row.record.flow_id));
    rows.iter().map(|row| row.record.flow_id_hex()).collect()
}

/// The files of the table.
fn files(dir: &Path) -> Vec<PathBuf> {
    let (mut open, mut found) = (vec![dir.join("flows")], Vec::new());
    while let Some(dir) = open.pop() {
        let Ok(entries) = fs::read_dir(dir) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "parquet") {
                found.push(path);
            }
        }
    }
    found
}

async fn live(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, mut catalog) = begin(dir.path()).await;
    let mut rows: Vec<TaggedFlow> = Vec::new();
    let (mut erased, mut number) = (Erased::new(), 0);
    for step in steps {
        match step {
            Step::Append(samples) => {
                let new: Vec<TaggedFlow> =
                    (number..).zip(&samples).map(|(number, sample)| row(sample, number)).collect();
                number += new.len() as u64;
                store.append(new.clone()).await.unwrap();
                // What comes late of what was erased is not in an answer any more when it would come to a file.
                if new.iter().any(|row| is_erased(&erased, row)) {
                    store.flush().await.unwrap();
                }
                rows.extend(new.into_iter().filter(|row| !is_erased(&erased, row)));
            }
            Step::Flush => {
                store.flush().await.unwrap();
            }
            Step::Compact(hours) => while store.compact(START + hours * HOUR).await.unwrap() > 0 {},
            Step::Restart => {
                store.flush().await.unwrap();
                drop(store);
                (store, catalog) = begin(dir.path()).await;
            }
            Step::Erase { text, hours, killed } => {
                let range = Range { from: START + hours.0 * HOUR, to: START + hours.1 * HOUR };
                let query = if text == "*" { Query::everything() } else { parse(text).unwrap() };
                erased.push((query, range));
                rows.retain(|row| !is_erased(&erased, row));
                erase(&store, &catalog, (text, range), killed).await;
                if killed.is_some() {
                    // What was not flushed would be lost with the process, erased or not.
                    store.flush().await.unwrap();
                    drop(store);
                    (store, catalog) = begin(dir.path()).await;
                    for erasure in catalog.erasures_after(0).await.unwrap() {
                        assert!(store.erase(&erasure, &|| range.to).await.unwrap().is_empty());
                    }
                }
            }
            Step::Retag { client, hours, by_address, killed } => {
                let range = Range { from: START + hours.0 * HOUR, to: START + hours.1 * HOUR };
                tell(&mut rows, client, range);
                rows.retain(|row| !is_erased(&erased, row));
                let ranges = if by_address { vec![([10, 0, 0, client].into(), 32)] } else { Vec::new() };
                let late = LateRows { from: range.from, to: range.to, ranges };
                (store, catalog) = told(store, catalog, (dir.path(), client), (&late, killed)).await;
            }
            Step::Crash => {
                store.flush().await.unwrap();
                drop(store);
                for path in files(dir.path()).into_iter().take(1) {
                    fs::copy(&path, path.with_file_name("m99999999999999999999-0000.parquet")).unwrap();
                }
                (store, catalog) = begin(dir.path()).await;
            }
            Step::Ask { text, limit, all, hours } => {
                let query = if text == "*" { Query::everything() } else { parse(text).unwrap() };
                for range in [ALL, Range { from: START + hours.0 * HOUR, to: START + hours.1 * HOUR }] {
                    let wanted = expected(&rows, &query, range, all);
                    assert_eq!(asked(&store, &query, range, limit, all).await, wanted, "{text} {range:?}");
                }
            }
        }
    }
    assert_eq!(asked(&store, &Query::everything(), ALL, 100, true).await.len(), rows.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_history_answers_as_a_vector_of_rows(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(live(steps));
    }
}

/// Rows that came many at a time are copied by a merge, whole row groups with their bloom filters; few are joined to them.
#[tokio::test(flavor = "multi_thread")]
async fn large_row_groups_are_taken_over_by_a_merge() {
    const MANY: u64 = 70_000;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let made = |numbers: std::ops::Range<u64>| -> Vec<TaggedFlow> {
        let one = |number: u64| {
            let mut row = flow(number);
            row.record.start += (number % 1_000) as i64 * 1_000_000_000;
            row.record.end = row.record.start;
            row.record.client.ip = std::net::Ipv4Addr::from(0x0a00_0000 + number as u32).into();
            row
        };
        numbers.map(one).collect()
    };
    for numbers in [0..MANY, MANY..2 * MANY, 2 * MANY..2 * MANY + 3] {
        store.append(made(numbers)).await.unwrap();
        store.flush().await.unwrap();
    }
    let later = START + 3 * HOUR;
    assert_eq!(store.compact(later).await.unwrap(), 3, "the files of a past hour become one");
    store.compact(later + HOUR).await.unwrap();
    assert_eq!(files(dir.path()).len(), 1, "the others are deleted");
    for number in [0, 1, MANY - 1, MANY, 2 * MANY - 1, 2 * MANY + 2] {
        for text in [
            format!("flow_id == {number:016x}"),
            format!("ip == {}", std::net::Ipv4Addr::from(0x0a00_0000 + number as u32)),
        ] {
            let found = asked(&store, &parse(&text).unwrap(), ALL, 10, true).await;
            assert_eq!(found, [format!("{number:016x}")], "{text}");
        }
    }
    let newest = SearchOptions { limit: 50, all_observations: true, after: None };
    let page = store.search(&Query::everything(), ALL, newest).await.unwrap();
    let ids: Vec<String> = page.rows.iter().map(|row| row.get("flow_id").as_str().unwrap().to_owned()).collect();
    let wanted: Vec<String> = (0..50).map(|number| format!("{:016x}", number * 1_000 + 999)).collect();
    assert_eq!(ids, wanted);
}
