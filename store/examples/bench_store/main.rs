//! The flow store under load, for `scripts/bench-store.sh`: `write` fills a directory through the real write path and
//! compacts, `query` answers one of the questions of the benchmark, `name` gives rows names that were told late. Results are lines of
//! JSON.
//!
//! `bench_store write DIR [ROWS] [DAYS] [SEED]`, `bench_store query DIR NAME [RUNS] [warmed]`, `bench_store name DIR [ROWS] [DAYS] [SEED]`
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark prints figures and stops where it fails"
)]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures time")]

mod generate;
mod names;
mod queries;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use wiretag_capture::FlowRecord;
use wiretag_enrich::TaggedFlow;
use wiretag_store::Catalog;
use wiretag_store::tables::{Engine, FlowStore, TableStore};

use self::generate::{BEGIN, Generator};

pub(crate) const DAY: i64 = 86_400_000_000_000;
/// Rows handed to the store at a time, and rows in memory when it writes.
pub(crate) const BATCH: usize = 10_000;
pub(crate) const FLUSH: usize = 100_000;
/// Flushes between merges.
pub(crate) const OFTEN: usize = 4;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let word = |at: usize| arguments.get(at).map(String::as_str);
    let number = |at: usize, otherwise: u64| word(at).map_or(otherwise, |text| text.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match (word(0), word(1)) {
        (Some("write"), Some(dir)) => {
            let (rows, days, seed) = (number(2, 10_000_000), number(3, 7), number(4, 1));
            runtime.block_on(write(Path::new(dir), rows, days as i64 * DAY, seed));
        }
        (Some("name"), Some(dir)) => {
            let (rows, days, seed) = (number(2, 1_000_000), number(3, 1), number(4, 1));
            runtime.block_on(names::run(Path::new(dir), rows, days as i64 * DAY, seed));
        }
        (Some("query"), Some(dir)) => {
            runtime.block_on(queries::run(
                Path::new(dir),
                word(2).unwrap(),
                number(3, 5) as usize,
                word(4) == Some("warmed"),
            ));
        }
        _ => panic!(
            "usage: bench_store write DIR [ROWS] [DAYS] [SEED] | query DIR NAME [RUNS] [warmed] | name DIR [ROWS] [DAYS] [SEED]"
        ),
    }
}

/// The store of a directory.
pub(crate) async fn open(dir: &Path) -> FlowStore {
    let engine = Engine::open(dir).unwrap();
    let catalog = Catalog::open(&dir.join("catalog.sqlite")).await.unwrap();
    TableStore::<FlowRecord>::open(&engine, catalog).await.unwrap().0
}

/// CPU time of parts of the work.
#[derive(Default)]
pub(crate) struct Costs {
    ingest: Duration,
    compaction: Duration,
}

async fn write(dir: &Path, rows: u64, span: i64, seed: u64) {
    std::fs::create_dir_all(dir).unwrap();
    let store = open(dir).await;
    let mut generator = Generator::new(seed, rows, span);
    let mut needles = Needles::default();
    let (mut costs, mut memory, mut flushes, mut now) = (Costs::default(), 0, 0, BEGIN);
    loop {
        let batch: Vec<TaggedFlow> = generator.by_ref().take(BATCH).collect();
        let Some(last) = batch.last() else { break };
        now = last.record.end;
        needles.see(&batch, rows);
        memory += batch.len();
        let before = cpu();
        store.append(batch).await.unwrap();
        if memory >= FLUSH {
            store.flush().await.unwrap();
            memory = 0;
            flushes += 1;
        }
        costs.ingest += cpu().saturating_sub(before);
        if memory == 0 && flushes % OFTEN == 0 {
            compact(&store, now, &mut costs).await;
        }
    }
    let before = cpu();
    store.flush().await.unwrap();
    costs.ingest += cpu().saturating_sub(before);
    let fresh = files(dir);
    compact(&store, now + DAY, &mut costs).await;
    // Replaced files go after their time.
    store.compact(now + 2 * DAY).await.unwrap();
    let (count, bytes) = files(dir);
    std::fs::write(dir.join("needles.json"), needles.json(span).to_string()).unwrap();
    let (ingest, compaction) = (costs.ingest.as_secs_f64(), costs.compaction.as_secs_f64());
    let result = json!({
        "rows": rows, "ingest_cpu_s": ingest, "rows_per_core_s": (rows as f64 / ingest) as u64,
        "compaction_cpu_s": compaction, "compaction_of_ingest": compaction / ingest,
        "files": count, "files_before": fresh.0, "bytes_per_row": bytes as f64 / rows as f64, "peak_rss_mb": peak() / 1_000_000,
    });
    println!("{result}");
}

pub(crate) async fn compact(store: &FlowStore, now: i64, costs: &mut Costs) {
    let before = cpu();
    while store.compact(now).await.unwrap() > 0 {}
    costs.compaction += cpu().saturating_sub(before);
}

/// Number and bytes of the Parquet files.
fn files(dir: &Path) -> (usize, u64) {
    let mut found = (0, 0);
    let mut open = vec![dir.join("flows")];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else if entry.path().extension().is_some_and(|extension| extension == "parquet") {
                found = (found.0 + 1, found.1 + entry.metadata().unwrap().len());
            }
        }
    }
    found
}

/// What the questions look for.
#[derive(Default)]
struct Needles {
    names: HashMap<Arc<str>, u64>,
    servers: HashMap<(std::net::IpAddr, u16), u64>,
    flow_id: Option<String>,
    pod: Option<Arc<str>>,
    seen: u64,
}

impl Needles {
    fn see(&mut self, rows: &[TaggedFlow], all: u64) {
        self.seen += rows.len() as u64;
        for row in rows {
            if let Some(name) = row.record.tls.as_ref().and_then(|tls| tls.sni.clone()) {
                *self.names.entry(name).or_default() += 1;
            }
            if let Some(port) = row.record.server.port {
                *self.servers.entry((row.record.server.ip, port)).or_default() += 1;
            }
        }
        if self.seen > all / 3 && self.flow_id.is_none() {
            let named = rows.iter().find(|row| row.client.identity.is_some());
            self.pod = named.and_then(|row| row.client.identity.as_ref()?.pod.clone());
            self.flow_id = rows.first().map(|row| row.record.flow_id_hex());
        }
    }

    fn json(&self, span: i64) -> serde_json::Value {
        let sni = self.names.iter().min_by_key(|(name, count)| (**count, (*name).clone())).map(|found| &**found.0);
        let rare = self.servers.iter().min_by_key(|(end, count)| (**count, **end)).map(|found| *found.0).unwrap();
        let often = self.servers.iter().max_by_key(|(end, count)| (**count, **end)).map(|found| *found.0).unwrap();
        json!({
            "begin": BEGIN, "span": span, "sni": sni, "flow_id": self.flow_id, "pod": self.pod.as_deref(),
            "rare_ip": rare.0.to_string(), "rare_port": rare.1, "often_ip": often.0.to_string(), "often_port": often.1,
        })
    }
}

/// A line of `/proc/self/status`, bytes.
pub(crate) fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// CPU time of the process.
pub(crate) fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
