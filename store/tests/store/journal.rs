//! The journal of open slices: what a search shows meanwhile, and what a start makes of it after a kill.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Map, Value};
use wiretag_capture::EndReason;
use wiretag_enrich::TaggedFlow;
use wiretag_store::limits::DEFAULT_MEMORY;
use wiretag_store::query::Query;
use wiretag_store::tables::{Range, Row, SearchOptions};
use wiretag_store::{Journal, Recovery, Role, Store, StoreConfig};

use crate::rows::{self, START};

const SECOND: i64 = 1_000_000_000;

async fn open(dir: &Path) -> (Store, Recovery) {
    Store::open(StoreConfig::new(dir, Role::Appliance)).await.unwrap()
}

/// A version of an open slice that has so many packets by now.
fn version(flow_id: u64, slice: u32, packets: u64) -> TaggedFlow {
    let mut row = rows::flow(flow_id);
    row.record.slice = slice;
    row.record.start += flow_id as i64;
    row.record.end = row.record.start + packets as i64;
    row.record.end_reason = None;
    row.record.client.packets = packets;
    rows::name(&mut row.client, &format!("pod-{flow_id}"), &[("app", "web")]);
    row
}

fn ended(flow_id: u64, slice: u32, packets: u64) -> TaggedFlow {
    let mut row = version(flow_id, slice, packets);
    row.record.end_reason = Some(EndReason::Fin);
    row
}

async fn all(store: &Store) -> Vec<Map<String, Value>> {
    let options = SearchOptions { limit: 10_000, all_observations: true, after: None };
    store.flows.search(&Query::everything(), Range::ALL, options).await.unwrap().rows.iter().map(Row::to_map).collect()
}

/// Packets and end reason of each slice; none is there twice.
async fn found(store: &Store) -> BTreeMap<(u64, u64), (u64, String)> {
    let mut found = BTreeMap::new();
    for row in all(store).await {
        let id = u64::from_str_radix(row["flow_id"].as_str().unwrap(), 16).unwrap();
        let reason = row["end_reason"].as_str().unwrap_or("open").to_owned();
        let before =
            found.insert((id, row["slice"].as_u64().unwrap()), (row["client_packets"].as_u64().unwrap(), reason));
        assert_eq!(before, None, "twice: {id:x}");
    }
    found
}

fn generations(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir.join("journal")) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

async fn show(store: &Store, journal: &mut Journal, versions: Vec<TaggedFlow>, now: i64) {
    let rows: Vec<_> = versions.into_iter().map(Arc::new).collect();
    store.flows.show_open(&rows).await;
    journal.append(&rows, now).unwrap();
}

#[tokio::test]
async fn an_open_slice_is_in_every_answer_until_its_row_comes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    let mut journal = store.journal(START).unwrap();
    show(&store, &mut journal, vec![version(1, 0, 5), version(2, 0, 1)], START).await;
    show(&store, &mut journal, vec![version(1, 0, 9)], START + 5 * SECOND).await;
    let open = |packets| (packets, "open".to_owned());
    assert_eq!(found(&store).await, BTreeMap::from([((1, 0), open(9)), ((2, 0), open(1))]));
    let range = Range { from: START, to: START + SECOND };
    let packets = async || {
        let buckets = store.flows.histogram(&Query::everything(), range, 1, true).await.unwrap().buckets;
        (buckets[0].flows, buckets[0].client_packets)
    };
    assert_eq!(packets().await, (2, 10));
    assert_eq!(slices(&store, 1).await.len(), 1);

    store.flows.append(vec![ended(1, 0, 11)]).await.unwrap();
    let expected = BTreeMap::from([((1, 0), (11, "fin".to_owned())), ((2, 0), open(1))]);
    assert_eq!((found(&store).await, packets().await), (expected.clone(), (2, 12)));
    store.flush().await.unwrap();
    assert_eq!((found(&store).await, packets().await), (expected, (2, 12)));
    assert_eq!((store.flows.counters().open, store.flows.counters().hidden), (1, 0));
    // Not the primary observation any more: what is shown changes, and comes back for the journal.
    let changed = store.flows.demote_open(&[(2, 0), (77, 0)]).await;
    assert_eq!(changed.iter().map(|row| (row.record.flow_id, row.record.primary)).collect::<Vec<_>>(), [(2, false)]);
    let options = SearchOptions { limit: 10, all_observations: false, after: None };
    assert_eq!(store.flows.search(&Query::everything(), Range::ALL, options).await.unwrap().rows.len(), 1);
    // A row that never came: its slice is forgotten when it must have ended.
    store.maintain(START + 229 * SECOND).await.unwrap();
    assert_eq!(found(&store).await.len(), 2);
    store.maintain(START + 231 * SECOND).await.unwrap();
    assert_eq!(found(&store).await.len(), 1);
}

/// Those of a flow.
async fn slices(store: &Store, flow_id: u64) -> Vec<Row> {
    store.flows.flow(flow_id, &Query::everything(), DEFAULT_MEMORY).await.unwrap().rows
}

/// There is room for a bounded number; beyond that, slices are counted, and there once they end.
#[tokio::test]
async fn what_is_shown_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    let rows: Vec<_> = (0..70_000).map(|id| Arc::new(version(id, 0, 1))).collect();
    store.flows.show_open(&rows).await;
    let counters = store.flows.counters();
    assert_eq!((counters.open, counters.hidden), (65_536, 70_000 - 65_536));
    store.flows.show_open(&[Arc::new(version(5, 0, 7)), Arc::new(version(69_999, 0, 7))]).await;
    assert_eq!(store.flows.counters().hidden, 70_001 - 65_536);
    assert_eq!(slices(&store, 5).await[0].get("client_packets"), 7);
    assert!(slices(&store, 69_999).await.is_empty());
    store.flows.append(vec![ended(69_999, 0, 8)]).await.unwrap();
    assert_eq!(slices(&store, 69_999).await[0].get("client_packets"), 8);
}

/// After a kill, what was open has rows: the last version of each slice, with its names, unless it ended in time.
#[tokio::test]
async fn a_kill_leaves_what_was_open() {
    let dir = tempfile::tempdir().unwrap();
    let (store, recovery) = open(dir.path()).await;
    assert!(recovery.repairs.is_empty() && recovery.interrupted.is_none());
    let mut journal = store.journal(START).unwrap();
    show(&store, &mut journal, vec![version(1, 0, 5), version(2, 0, 1), version(3, 0, 4)], START).await;
    store.flows.append(vec![ended(3, 0, 6)]).await.unwrap();
    store.flush().await.unwrap();
    // This row does not reach a file: its last version is what remains.
    store.flows.append(vec![ended(2, 0, 3)]).await.unwrap();
    show(&store, &mut journal, vec![version(1, 0, 9), version(3, 1, 2)], START + 31 * SECOND).await;
    assert_eq!(generations(dir.path()).len(), 2);
    drop((store, journal));

    let (store, recovery) = open(dir.path()).await;
    assert!(recovery.interrupted.is_some() && recovery.repairs.len() == 1, "{recovery:?}");
    assert!(recovery.repairs[0].contains("3 open flows were recovered"), "{recovery:?}");
    let interrupted = |packets| (packets, "interrupted".to_owned());
    let expected = BTreeMap::from([
        ((1, 0), interrupted(9)),
        ((2, 0), interrupted(1)),
        ((3, 0), (6, "fin".to_owned())),
        ((3, 1), interrupted(2)),
    ]);
    assert_eq!(found(&store).await, expected);
    let row = all(&store).await.into_iter().find(|row| row["flow_id"] == "0000000000000001").unwrap();
    assert_eq!((&row["client_pod"], &row["client_labels"]["app"]), (&"pod-1".into(), &"web".into()));
    assert!(generations(dir.path()).is_empty());
    // A clean stop leaves nothing to recover.
    let mut journal = store.journal(START).unwrap();
    show(&store, &mut journal, vec![version(9, 0, 5)], START).await;
    store.flows.append(vec![ended(9, 0, 5)]).await.unwrap();
    store.close().await.unwrap();
    journal.remove().unwrap();
    drop(store);
    let (store, recovery) = open(dir.path()).await;
    assert_eq!(recovery, Recovery::default());
    assert_eq!(found(&store).await.len(), 5);
}

/// Whether it can be written is asked without a trace.
#[tokio::test]
async fn a_probe_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    let mut journal = store.journal(START).unwrap();
    show(&store, &mut journal, vec![version(1, 0, 5)], START).await;
    let content = || generations(dir.path()).iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>();
    let before = content();
    journal.probe(START + SECOND).unwrap();
    assert_eq!(content(), before);
    show(&store, &mut journal, vec![version(2, 0, 1)], START + 2 * SECOND).await;
    drop((store, journal));
    let (store, _) = open(dir.path()).await;
    let interrupted = |packets| (packets, "interrupted".to_owned());
    assert_eq!(found(&store).await, BTreeMap::from([((1, 0), interrupted(5)), ((2, 0), interrupted(1))]));
}

/// An import beside a killed appliance's data leaves the journal to the appliance.
#[tokio::test]
async fn importers_leave_the_journal_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    let mut journal = store.journal(START).unwrap();
    show(&store, &mut journal, vec![version(1, 0, 5)], START).await;
    drop((store, journal));
    let config = StoreConfig::new(dir.path(), Role::Importer);
    let (importer, recovery) = Store::open(config).await.unwrap();
    assert!(recovery.interrupted.is_none());
    importer.close().await.unwrap();
    assert_eq!(generations(dir.path()).len(), 1);
    drop(importer);
    assert_eq!(found(&open(dir.path()).await.0).await.len(), 1);
}

/// A generation is deleted when all of its slices must have rows in files, and not while rows cannot be written.
#[tokio::test]
async fn generations_are_deleted_when_nothing_needs_them() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    let mut journal = store.journal(START).unwrap();
    for seconds in [0, 29, 30, 60, 90, 120] {
        show(&store, &mut journal, vec![version(1, 0, 5)], START + seconds * SECOND).await;
        journal.retire(store.flushed()).unwrap();
    }
    assert_eq!(generations(dir.path()).len(), 5);
    store.maintain(START + 198 * SECOND).await.unwrap();
    journal.retire(store.flushed()).unwrap();
    assert_eq!(generations(dir.path()).len(), 5);
    store.maintain(START + 200 * SECOND).await.unwrap();
    journal.retire(store.flushed()).unwrap();
    assert_eq!(generations(dir.path()).len(), 3);
    let bytes: u64 = generations(dir.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert_eq!(journal.bytes(), bytes);
}

/// What happens to the slices of a few flows.
#[derive(Debug, Clone)]
enum Action {
    /// Packets come, and a look at what is open goes into the journal.
    Look(Vec<u64>),
    /// The current slices of these flows end; the next ones begin.
    End(Vec<u64>),
    Flush,
    Wait(i64),
    /// Killed; so many bytes of what was appended last are torn off.
    Kill(usize),
    /// Killed while it recovered: rows are written, the journal is still there.
    KillTwice,
}

fn action() -> impl Strategy<Value = Action> {
    let flows = || prop::collection::vec(0_u64..6, 1..5);
    prop_oneof![
        4 => flows().prop_map(Action::Look),
        3 => flows().prop_map(Action::End),
        2 => Just(Action::Flush),
        2 => (1_i64..40).prop_map(Action::Wait),
        1 => (0_usize..3000).prop_map(Action::Kill),
        1 => Just(Action::KillTwice),
    ]
}

/// What the model knows of a slice.
#[derive(Debug, Clone, Default)]
struct Slice {
    /// Versions in the journal: where their frame ends, in its generation's path, and packets.
    versions: Vec<(PathBuf, u64, u64)>,
    /// Packets of the row in memory, or in a file; and whether it was recovered.
    recent: Option<u64>,
    stored: Option<(u64, &'static str)>,
}

struct World {
    dir: tempfile::TempDir,
    store: Option<(Store, Journal)>,
    now: i64,
    packets: u64,
    /// Slices by flow, and number of each flow's current one.
    slices: BTreeMap<(u64, u64), Slice>,
    current: BTreeMap<u64, u32>,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(dir.path()).await;
        let journal = store.journal(START).unwrap();
        let (slices, current) = (BTreeMap::new(), BTreeMap::new());
        Self { dir, store: Some((store, journal)), now: START, packets: 0, slices, current }
    }

    fn slice(&mut self, flow: u64) -> (u32, &mut Slice) {
        let number = *self.current.entry(flow).or_default();
        (number, self.slices.entry((flow, number.into())).or_default())
    }

    async fn act(&mut self, action: &Action) {
        match action {
            Action::Look(flows) => self.look(flows).await,
            Action::End(flows) => self.end(flows).await,
            Action::Flush => {
                let (store, journal) = self.store.as_mut().unwrap();
                store.maintain(self.now).await.unwrap();
                journal.retire(store.flushed()).unwrap();
                for slice in self.slices.values_mut() {
                    slice.stored = slice.recent.take().map(|packets| (packets, "fin")).or(slice.stored);
                }
            }
            Action::Wait(seconds) => self.now += seconds * SECOND,
            Action::Kill(torn) => self.kill(*torn, false).await,
            Action::KillTwice => self.kill(0, true).await,
        }
    }

    async fn look(&mut self, flows: &[u64]) {
        let mut rows = Vec::new();
        self.packets += 1;
        let packets = self.packets;
        let flows: std::collections::BTreeSet<u64> = flows.iter().copied().collect();
        for flow in &flows {
            rows.push(version(*flow, self.slice(*flow).0, packets));
        }
        let (store, journal) = self.store.as_mut().unwrap();
        show(store, journal, rows, self.now).await;
        let last = generations(self.dir.path()).pop().unwrap();
        let length = fs::metadata(&last).unwrap().len();
        for flow in &flows {
            self.slice(*flow).1.versions.push((last.clone(), length, packets));
        }
    }

    async fn end(&mut self, flows: &[u64]) {
        self.packets += 1;
        let packets = self.packets;
        let mut rows = Vec::new();
        for flow in flows {
            let (number, slice) = self.slice(*flow);
            slice.recent = Some(packets);
            rows.push(ended(*flow, number, packets));
            self.current.insert(*flow, number + 1);
        }
        self.store.as_ref().unwrap().0.flows.append(rows).await.unwrap();
    }

    async fn kill(&mut self, torn: usize, twice: bool) {
        let begun: Vec<_> = generations(self.dir.path());
        self.store = None;
        let last = begun.last().unwrap();
        let length = fs::metadata(last).unwrap().len();
        let left = length.saturating_sub(torn as u64);
        fs::OpenOptions::new().write(true).open(last).unwrap().set_len(left).unwrap();
        let copies: Vec<_> = begun.iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
        let (mut store, recovery) = open(self.dir.path()).await;
        assert!(recovery.interrupted.is_some() && generations(self.dir.path()).is_empty());
        if twice {
            // As if the journal had not been deleted yet.
            drop(store);
            for (path, bytes) in &copies {
                fs::write(path, bytes).unwrap();
            }
            store = open(self.dir.path()).await.0;
        }
        for slice in self.slices.values_mut() {
            slice.recent = None;
            let kept = |(path, end, _): &&(PathBuf, u64, u64)| begun.contains(path) && (path != last || *end <= left);
            let version = slice.versions.iter().rfind(kept).map(|(.., packets)| (*packets, "interrupted"));
            slice.stored = slice.stored.or(version);
            slice.versions.clear();
        }
        // Ids of the flows after the start are others: their slices begin anew.
        let next = self.slices.keys().map(|(_, number)| *number as u32 + 1).max().unwrap_or(0);
        self.current = (0..6).map(|flow| (flow, next)).collect();
        let journal = store.journal(self.now).unwrap();
        self.store = Some((store, journal));
    }

    async fn check(&self) {
        let store = &self.store.as_ref().unwrap().0;
        let expected: BTreeMap<_, _> = self
            .slices
            .iter()
            .filter_map(|(place, slice)| {
                let row = slice.recent.map(|packets| (packets, "fin")).or(slice.stored);
                let open = slice.versions.last().map(|(.., packets)| (*packets, "open"));
                row.or(open).map(|(packets, reason)| (*place, (packets, reason.to_owned())))
            })
            .collect();
        let found = found(store).await;
        // Slices that nobody ended are forgotten after a while, as far as searches show them.
        let old = |place: &(u64, u64)| !found.contains_key(place) && self.now - START > 200 * SECOND;
        let expected: BTreeMap<_, _> =
            expected.into_iter().filter(|(place, (_, reason))| reason != "open" || !old(place)).collect();
        assert_eq!(found, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Whatever happens: each slice is there once, with its row if that reached a file, else with the last version that the
    /// journal kept.
    #[test]
    fn nothing_is_lost_or_doubled(actions in prop::collection::vec(action(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for action in &actions {
                world.act(action).await;
                world.check().await;
            }
            world.kill(0, false).await;
            world.check().await;
        });
    }
}
