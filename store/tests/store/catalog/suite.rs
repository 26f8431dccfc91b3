//! What every catalog does, whichever database it is in.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use wiretag_enrich::timeline::Timeline;
use wiretag_enrich::{Identity, IdentityEvent, Interval, Key};
use wiretag_store::tables::{Range, SearchOptions};
use wiretag_store::{
    Catalog, ErasedCounts, ErasureRequest, ErasureState, FlowFile, ImportState, Origin, PostgresConfig, Retention,
    Role, Segment, Store, StoreConfig, StoreError, Stored, TableName, query,
};

use super::losses;
use crate::rows;

/// Where catalogs are made.
pub(crate) struct World {
    pub(crate) server: Option<PostgresConfig>,
}

impl World {
    async fn open(&self, dir: &Path) -> Catalog {
        Catalog::open_in(dir, self.server.as_ref()).await.unwrap()
    }

    pub(super) async fn begun(&self) -> (TempDir, Catalog) {
        let dir = tempfile::tempdir().unwrap();
        let catalog = self.open(dir.path()).await;
        (dir, catalog)
    }

    async fn store(&self, dir: &Path, flows: Retention) -> Store {
        let config = StoreConfig { catalog: self.server.clone(), flows, ..StoreConfig::new(dir, Role::Appliance) };
        let (store, recovery) = Store::open(config).await.unwrap();
        assert_eq!(recovery.repairs, Vec::<String>::new());
        store
    }
}

/// All of it; each story in catalogs of its own.
pub(crate) async fn pass(world: &World) {
    flow_files_are_found_by_the_time_they_touch(world).await;
    files_are_replaced_all_at_once_for_readers(world).await;
    segments_stay_sealed(world).await;
    facts_are_noted_once(world).await;
    a_timeline_is_the_same_after_a_restart(world).await;
    texts_of_any_length_and_kind_are_kept(world).await;
    losses::add_up_by_node(world).await;
    losses::stay_with_what_answers(world).await;
    readers_and_two_writers_share_it(world).await;
    an_import_is_known_while_its_files_are_kept(world).await;
    numbers_of_imports_whose_packets_are_there_are_not_given_again(world).await;
    a_change_that_is_given_up_leaves_nothing(world).await;
    a_store_lives_on_it(world).await;
    what_is_erased_is_on_record(world).await;
}

pub(crate) fn file(path: &str, start: i64, end: i64) -> FlowFile {
    FlowFile { table: TableName::Flows, path: path.into(), rows: 3, bytes: 10, start, end, origin: Origin::default() }
}

pub(crate) fn interval(id: &str, ip: &str, from: i64, to: Option<i64>) -> Interval {
    let labels = BTreeMap::from([("app".into(), "cart".into())]);
    let identity = Identity { identity: id.into(), pod: Some("cart-1".into()), labels, ..Identity::default() };
    Interval {
        key: Key::Ip { network: "net".into(), ip: ip.parse().unwrap() },
        identity: Arc::new(identity),
        valid_from: from,
        valid_to: to,
        learned_at: from + 1,
        source: "docker".into(),
    }
}

/// What a timeline says, in order.
pub(crate) fn told(timeline: &Timeline) -> Vec<Interval> {
    let mut intervals = timeline.intervals();
    intervals.sort_by(|one, other| (&one.key, one.valid_from).cmp(&(&other.key, other.valid_from)));
    intervals
}

fn names(files: Vec<FlowFile>) -> Vec<String> {
    files.into_iter().map(|file| file.path).collect()
}

async fn flow_files_are_found_by_the_time_they_touch(world: &World) {
    let (_dir, catalog) = world.begun().await;
    for number in 0..4 {
        catalog.add_flow_file(&file(&format!("f{number}"), number * 10, number * 10 + 5)).await.unwrap();
    }
    assert_eq!(names(catalog.flow_files(TableName::Flows, 15, 30).await.unwrap()), ["f1", "f2"]);
    catalog.replace_flow_files(&["f1".into(), "f2".into()], &file("merged", 10, 25)).await.unwrap();
    assert_eq!(names(catalog.all_flow_files().await.unwrap()), ["f0", "merged", "f3"]);
    let error = catalog.replace_flow_files(&["f0".into(), "f1".into()], &file("again", 0, 25)).await.unwrap_err();
    assert!(matches!(error, StoreError::Gone { .. }), "{error}");
    assert_eq!(names(catalog.all_flow_files().await.unwrap()), ["f0", "merged", "f3"], "all or nothing");
    catalog.remove_flow_files(&["f0".into()]).await.unwrap();
    assert_eq!(catalog.totals_of(TableName::Flows).await.unwrap().start, Some(10));
    // Told again, it is there once, as it was told last; names are in the order of their bytes.
    for path in ["f3", "F3", "f_3"] {
        catalog.add_flow_file(&FlowFile { rows: 1 << 60, bytes: 11, ..file(path, 30, 35) }).await.unwrap();
    }
    let transactions = FlowFile { table: TableName::Transactions, ..file("t", i64::MIN, i64::MAX) };
    catalog.add_flow_file(&transactions).await.unwrap();
    assert_eq!(names(catalog.files_of(TableName::Flows).await.unwrap()), ["merged", "F3", "f3", "f_3"]);
    assert_eq!(catalog.files_of(TableName::Transactions).await.unwrap(), [transactions]);
    catalog.remove_flow_files(&["F3".into(), "f_3".into()]).await.unwrap();
    let totals = catalog.totals_of(TableName::Flows).await.unwrap();
    assert_eq!((totals.files, totals.bytes), (2, 21));
}

/// Whoever reads sees the rows of the old files or those of the new one, and always all of them.
async fn files_are_replaced_all_at_once_for_readers(world: &World) {
    const ROUNDS: usize = 60;
    let (_dir, catalog) = world.begun().await;
    let part = |path: String| FlowFile { rows: 2, ..file(&path, 0, 1) };
    for number in 0..4 {
        catalog.add_flow_file(&part(format!("0-{number}"))).await.unwrap();
    }
    let writer = catalog.clone();
    let writing = tokio::spawn(async move {
        for round in 0..ROUNDS {
            let old: Vec<String> = (0..4).map(|number| format!("{round}-{number}")).collect();
            let merged = FlowFile { rows: 8, ..file(&format!("{round}-merged"), 0, 1) };
            writer.replace_flow_files(&old, &merged).await.unwrap();
            // The next four in place of it, one of them by the change itself.
            let first = FlowFile { rows: 8, ..file(&format!("{}-0", round + 1), 0, 1) };
            writer.replace_flow_files(std::slice::from_ref(&merged.path), &first).await.unwrap();
            for number in 1..4 {
                writer.add_flow_file(&FlowFile { rows: 0, ..part(format!("{}-{number}", round + 1)) }).await.unwrap();
            }
        }
    });
    let mut reads = 0;
    while !writing.is_finished() {
        let rows: u64 = catalog.files_of(TableName::Flows).await.unwrap().iter().map(|file| file.rows).sum();
        assert_eq!(rows, 8, "half of an exchange was seen");
        reads += 1;
        tokio::task::yield_now().await;
    }
    writing.await.unwrap();
    assert!(reads > 10, "{reads}");
}

async fn segments_stay_sealed(world: &World) {
    let (_dir, catalog) = world.begun().await;
    let segment = |packets, sealed| Segment {
        path: "packets/a".into(),
        node: "n".into(),
        packets,
        bytes: 100,
        start: 5,
        end: 9,
        sealed,
        origin: Origin::default(),
    };
    catalog.add_segments(&[segment(1, false)]).await.unwrap();
    assert_eq!(catalog.segments(100, 200).await.unwrap(), [segment(1, false)], "an open one may have any packet");
    catalog.add_segments(&[segment(2, true), segment(3, false)]).await.unwrap();
    assert_eq!(catalog.all_segments().await.unwrap(), [segment(3, true)]);
    assert!(catalog.segments(100, 200).await.unwrap().is_empty());
    assert_eq!(catalog.segment_totals().await.unwrap().items, 3);
    catalog.remove_segments(&["packets/a".into()]).await.unwrap();
    assert_eq!(catalog.segment_totals().await.unwrap(), wiretag_store::Totals::default());
}

async fn facts_are_noted_once(world: &World) {
    let (dir, catalog) = world.begun().await;
    assert_eq!(catalog.meta("made").await.unwrap(), None);
    for value in ["first", "second"] {
        catalog.set_meta("made", value).await.unwrap();
    }
    catalog.close().await;
    assert_eq!(world.open(dir.path()).await.meta("made").await.unwrap().as_deref(), Some("first"));
}

async fn a_timeline_is_the_same_after_a_restart(world: &World) {
    let (dir, catalog) = world.begun().await;
    let mut timeline = Timeline::new();
    for own in
        [interval("a", "10.0.0.1", 5, None), interval("b", "fd00::1", 6, None), interval("box", "10.0.0.2", 7, None)]
    {
        timeline.apply(&IdentityEvent::Learned(own));
    }
    catalog.put_dossiers(&timeline.take_changes(usize::MAX)).await.unwrap();
    let (alias, identity, source) = ("box".into(), "b".into(), "cri".into());
    timeline.apply(&IdentityEvent::Same { alias, identity, member: None, learned_at: 8, source });
    let (identity, source) = ("a".into(), "docker".into());
    timeline.apply(&IdentityEvent::Ended { identity, at: 9, learned_at: 10, source });
    assert_eq!(timeline.take_changes(usize::MAX).len(), 2);
    assert!(!timeline.has_changes());
    timeline.keep_changes(&[timeline.dossier("a").unwrap(), timeline.dossier("box").unwrap()]);
    catalog.put_dossiers(&timeline.take_changes(usize::MAX)).await.unwrap();
    catalog.close().await;
    let catalog = world.open(dir.path()).await;
    let mut loaded = catalog.timeline().await.unwrap();
    assert_eq!(told(&loaded), told(&timeline));
    assert!(!loaded.has_changes(), "what was read is not to be written");
    // What is told late has the same effect as before.
    let late = IdentityEvent::Learned(Interval { source: "kubernetes".into(), ..interval("a", "10.0.0.1", 9, None) });
    for timeline in [&mut loaded, &mut timeline] {
        timeline.apply(&late);
    }
    assert_eq!(told(&loaded), told(&timeline));
}

/// Labels of many kilobytes, letters of every script, thousands of names; and a text that many have is there once.
async fn texts_of_any_length_and_kind_are_kept(world: &World) {
    let (dir, catalog) = world.begun().await;
    let mut timeline = Timeline::new();
    for number in 0..5_000_u32 {
        let mut own =
            interval(&format!("id-{number}-ß漢'\\%_"), &format!("10.0.{}.{}", number >> 8, number & 255), 5, None);
        let long = "x".repeat(if number % 1_000 == 0 { 20_000 } else { 1 });
        Arc::make_mut(&mut own.identity).labels = [("long".into(), long.into()), ("zero".into(), "\0".into())].into();
        timeline.apply(&IdentityEvent::Learned(own));
    }
    catalog.put_dossiers(&timeline.take_changes(usize::MAX)).await.unwrap();
    catalog.close().await;
    let reader = Catalog::read_in(dir.path()).await.unwrap();
    let loaded = reader.timeline().await.unwrap();
    assert_eq!(told(&loaded), told(&timeline));
}

async fn readers_and_two_writers_share_it(world: &World) {
    let (dir, one) = world.begun().await;
    let two = world.open(dir.path()).await;
    let reader = Catalog::read_in(dir.path()).await.unwrap();
    let write = |catalog: Catalog, name: &'static str| async move {
        for number in 0..40 {
            catalog.add_flow_file(&file(&format!("{name}{number}"), number, number)).await.unwrap();
        }
    };
    tokio::join!(write(one, "a"), write(two, "b"));
    assert_eq!(reader.totals_of(TableName::Flows).await.unwrap().files, 80);
    assert!(reader.is_read_only());
    assert!(matches!(reader.add_flow_file(&file("x", 0, 0)).await, Err(StoreError::ReadOnly)));
}

/// The same content counts once, as long as anything of it is kept.
async fn an_import_is_known_while_its_files_are_kept(world: &World) {
    let (_dir, catalog) = world.begun().await;
    let id = catalog.begin_import("aa", "a.pcap", 100, 7).await.unwrap();
    assert_eq!(catalog.imports_of("aa").await.unwrap()[0].state, ImportState::Open);
    let origin = Origin { import: Some(id), stored_at: 7 };
    catalog.add_flow_file(&FlowFile { origin, ..file("flows/a", 5, 9) }).await.unwrap();
    let stored = Stored { packets: 5, flows: 3, transactions: 0 };
    catalog.end_import(id, ImportState::Done, stored).await.unwrap();
    let known = catalog.imports_of("aa").await.unwrap();
    assert_eq!((known[0].id, known[0].state, known[0].stored), (id, ImportState::Done, stored));
    assert!(catalog.imports_of("bb").await.unwrap().is_empty());
    assert_eq!(catalog.all_flow_files().await.unwrap()[0].origin, origin);
    catalog.remove_flow_files(&["flows/a".into()]).await.unwrap();
    assert!(catalog.imports_of("aa").await.unwrap().is_empty(), "retention took it: it may come again");
    assert!(catalog.begin_import("aa", "a.pcap", 100, 8).await.unwrap() > id, "a number is not used twice");
}

/// Files of a catalog that was lost keep their names: no new import has the number of one of them.
async fn numbers_of_imports_whose_packets_are_there_are_not_given_again(world: &World) {
    let dir = tempfile::tempdir().unwrap();
    let day = dir.path().join("packets/date=2026-03-01");
    std::fs::create_dir_all(&day).unwrap();
    let name = |import: i64| day.join(format!("000000-import.{import}-000001.pcapng.zst.index"));
    std::fs::write(name(41), b"of a segment that is away").unwrap();
    let store = world.store(dir.path(), Retention::default()).await;
    let id = store.catalog.begin_import("aa", "a.pcap", 100, 7).await.unwrap();
    assert!(id > 41, "{id}");
    store.catalog.end_import(id, ImportState::Partial, Stored::default()).await.unwrap();
    drop(store);
    std::fs::remove_file(name(41)).unwrap();
    for known in [3, id] {
        std::fs::write(name(known), b"of another").unwrap();
    }
    let store = world.store(dir.path(), Retention::default()).await;
    assert_eq!(store.catalog.imports_of("aa").await.unwrap()[0].id, id, "it is not taken for another");
    assert!(store.catalog.begin_import("bb", "b.pcap", 100, 8).await.unwrap() > id);
}

/// A task that is stopped in the middle of changes: the catalog works on, and each change is there or not.
async fn a_change_that_is_given_up_leaves_nothing(world: &World) {
    let (_dir, catalog) = world.begun().await;
    let old: Vec<String> = (0..100).map(|number| format!("old-{number}")).collect();
    for path in &old {
        catalog.add_flow_file(&file(path, 0, 1)).await.unwrap();
    }
    let merged = file("merged", 0, 1);
    let mut given_up = 0;
    for turns in [0, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000] {
        let patience = async {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            changed = catalog.replace_flow_files(&old, &merged) => {
                // The one that was given up last may have been in its commit, and end after its files were looked at.
                let is_done = matches!(&changed, Err(StoreError::Gone { path }) if *path == old[0]);
                assert!(changed.is_ok() || (is_done && given_up > 0), "{changed:?}");
                assert_eq!(catalog.all_flow_files().await.unwrap(), std::slice::from_ref(&merged));
                break;
            }
            () = patience => given_up += 1,
        }
        let files = catalog.all_flow_files().await.unwrap();
        assert!(files.len() == old.len() || files == [merged.clone()], "{} files", files.len());
        if files.len() == 1 {
            break;
        }
    }
    assert!(given_up > 0);
    catalog.add_flow_file(&file("later", 0, 1)).await.unwrap();
}

/// Rows, merges, retention and restarts of a whole store.
async fn a_store_lives_on_it(world: &World) {
    const SECOND: i64 = 1_000_000_000;
    let dir = tempfile::tempdir().unwrap();
    let keep = Retention { age: Some(Duration::from_hours(1)), bytes: None };
    let store = world.store(dir.path(), keep).await;
    for batch in 0..10_i64 {
        let mut row = rows::flow(batch as u64 + 1);
        (row.record.start, row.record.end) = (rows::START + batch * SECOND, rows::START + (batch + 1) * SECOND);
        store.flows.append(vec![row]).await.unwrap();
        store.transactions.append(vec![rows::transaction(batch as u64 + 1, 0)]).await.unwrap();
        store.maintain(rows::START + batch * SECOND).await.unwrap();
    }
    let files = store.catalog.files_of(TableName::Flows).await.unwrap().len();
    assert!(files < 10, "{files} files: they are merged");
    let rows_of = async |store: &Store| {
        let everything = query::parse("").unwrap();
        store
            .flows
            .search(&everything, Range::ALL, SearchOptions { limit: 100, all_observations: true, after: None })
            .await
            .unwrap()
            .rows
            .len()
    };
    let reader = Store::open_read_only(dir.path()).await.unwrap();
    assert_eq!((rows_of(&store).await, rows_of(&reader).await), (10, 10));
    store.close().await.unwrap();
    drop(store);

    let store = world.store(dir.path(), keep).await;
    assert_eq!(rows_of(&store).await, 10);
    let done = store.maintain(rows::START + 7_200 * SECOND).await.unwrap();
    assert!(done.retired.flow_files > 0 && done.flows.files == 0, "{done:?}");
    let done = store.maintain(rows::START + 9_000 * SECOND).await.unwrap();
    assert!(done.retired.deleted > 0, "{done:?}");
    assert_eq!(rows_of(&reader).await, 0);
    let retired = async |rollable| store.completeness(rows::START, i64::MAX, rollable).await.unwrap().retired.flow_rows;
    let rolled: u64 = if store.catalog.rollups().await.unwrap().is_empty() { 0 } else { 10 };
    assert_eq!((retired(false).await, retired(true).await), (10, 10 - rolled));
    store.close().await.unwrap();
}

/// An erasure with all that it exchanges, and its record after a restart.
async fn what_is_erased_is_on_record(world: &World) {
    const HOUR: i64 = 3_600_000_000_000;
    let dir = tempfile::tempdir().unwrap();
    let now = || rows::START + 30 * HOUR;
    let store = world.store(dir.path(), Retention::default()).await;
    for number in 1..=6_u64 {
        let mut row = rows::flow(number);
        row.record.start += number as i64 % 2 * HOUR;
        row.record.end = row.record.start;
        row.record.client.ip = [10, 0, 0, number as u8].into();
        store.flows.append(vec![row]).await.unwrap();
        store.transactions.append(vec![rows::transaction(number, 0)]).await.unwrap();
    }
    store.flush().await.unwrap();
    while store.flows.roll_up(now()).await.unwrap() > 0 {}
    assert_eq!(store.catalog.rollups().await.unwrap().len(), 3, "two hours and their day");
    let request = ErasureRequest {
        filter: "client_ip == 10.0.0.2".into(),
        from: 0,
        to: i64::MAX,
        only: Some(TableName::Flows),
        who: "Jane".into(),
        reason: "request 1".into(),
    };
    let id = store.begin_erasure(&request, now()).await.unwrap();
    store.continue_erasures(&now).await.unwrap();
    let erasure = store.erasures().await.unwrap().remove(0);
    let asked = ErasureRequest { to: now(), ..request.clone() };
    assert_eq!((erasure.id, erasure.at, &erasure.request), (id, now(), &asked), "nothing of the future is erased");
    assert_eq!((erasure.state, erasure.counts.flows, erasure.counts.transactions), (ErasureState::Deleting, 1, 0));
    let ErasedCounts { minutes_unchecked, packets_unchecked, files_unread, .. } = erasure.counts;
    assert_eq!((minutes_unchecked, packets_unchecked, files_unread, erasure.problem), (0, 0, 0, None));
    let files = store.catalog.erased_files(id).await.unwrap();
    assert_eq!(files.len(), 1, "{files:?}");
    assert!(files[0].became.is_some() && dir.path().join(&files[0].path).exists(), "{files:?}");
    assert_eq!(store.catalog.rollups().await.unwrap().len(), 1, "the other hour has what it had");
    // Nothing takes the second hour's rows twice, or brings one back.
    while store.flows.roll_up(now()).await.unwrap() > 0 {}
    assert_eq!(store.catalog.rollups().await.unwrap().len(), 3);
    store.settle_erasures().await.unwrap();
    assert!(!dir.path().join(&files[0].path).exists());
    assert_eq!(store.erasures().await.unwrap()[0].state, ErasureState::Done);
    // All of an hour.
    let request = ErasureRequest { filter: "start < \"2026-03-01T00:30:00Z\"".into(), only: None, ..request };
    let second = store.begin_erasure(&request, now()).await.unwrap();
    store.continue_erasures(&now).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = world.store(dir.path(), Retention::default()).await;
    let erasures = store.erasures().await.unwrap();
    assert_eq!(erasures.iter().map(|erasure| erasure.id).collect::<Vec<_>>(), [id, second]);
    assert_eq!((erasures[1].counts.flows, erasures[1].counts.transactions), (2, 6));
    assert_eq!(store.catalog.totals_of(TableName::Flows).await.unwrap().items, 3);
    assert_eq!(store.catalog.totals_of(TableName::Transactions).await.unwrap().files, 0);
    let files = store.catalog.erased_files(second).await.unwrap();
    assert!(files.iter().all(|file| file.became.is_none()), "{files:?}");
    store.maintain(now() + HOUR).await.unwrap();
    assert_eq!(store.erasures().await.unwrap()[1].state, ErasureState::Done);
    store.close().await.unwrap();
}
