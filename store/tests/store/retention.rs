//! The store as a whole: locks, recovery, ageing, and reading beside a writer.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;
use std::time::Duration;

use crate::rows;
use wiretag_capture::{LinkType, Packet};
use wiretag_store::packets::list;
use wiretag_store::{
    FlowRef, Loss, Origin, PacketLogConfig, Retention, Role, Selection, Store, StoreConfig, StoreError,
};

const START: i64 = 1_700_000_000_000_000_000;
const SECOND: i64 = 1_000_000_000;

fn config(dir: &Path, role: Role, packets: Retention) -> StoreConfig {
    StoreConfig { packets, ..StoreConfig::new(dir, role) }
}

fn packet(time: i64) -> Packet<'static> {
    let (wire_len, link_type) = (60, LinkType::ETHERNET);
    Packet { time, data: &[9; 60], wire_len, link_type, interface: 1, direction: None, vlan: None }
}

fn wanted() -> Selection {
    let flow = FlowRef { flow_id: 1, start: START, end: START, client_name: None, server_name: None };
    Selection::Flows(vec![flow])
}

async fn count(store: &Store) -> u64 {
    store.write_pcap(wanted(), i64::MIN, i64::MAX, Vec::new()).await.unwrap().0
}

#[tokio::test]
async fn a_second_appliance_is_refused_and_an_import_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let _one = Store::open(config(dir.path(), Role::Appliance, Retention::default())).await.unwrap();
    let error = Store::open(config(dir.path(), Role::Appliance, Retention::default())).await.unwrap_err();
    assert!(matches!(error, StoreError::InUse { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
    Store::open(config(dir.path(), Role::Importer, Retention::default())).await.unwrap();
}

#[tokio::test]
async fn packets_of_an_open_segment_are_exported_also_by_a_reader() {
    let dir = tempfile::tempdir().unwrap();
    let error = Store::open_read_only(dir.path()).await.unwrap_err();
    assert!(matches!(error, StoreError::NoData { .. }), "{error}");
    let (store, recovery) = Store::open(config(dir.path(), Role::Appliance, Retention::default())).await.unwrap();
    assert!(recovery.repairs.is_empty(), "{recovery:?}");
    let mut log = store.packet_log(PacketLogConfig::default()).unwrap();
    log.append("eth0", &packet(START), Some(1)).unwrap();
    log.flush().unwrap();
    let reader = Store::open_read_only(dir.path()).await.unwrap();
    assert_eq!((count(&store).await, count(&reader).await), (1, 1), "before the catalog knows of the segment");
    store.maintain(START).await.unwrap();
    log.append("eth0", &packet(START + 1), Some(1)).unwrap();
    assert_eq!(count(&reader).await, 1);
    log.flush().unwrap();
    assert_eq!(count(&reader).await, 2, "as soon as it is flushed");
    assert!(matches!(reader.packet_log(PacketLogConfig::default()), Err(StoreError::ReadOnly)));
}

#[tokio::test]
async fn a_killed_log_is_sealed_by_the_next_start_but_not_beside_a_writer() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(config(dir.path(), Role::Appliance, Retention::default())).await.unwrap();
    let mut log = store.packet_log(PacketLogConfig::default()).unwrap();
    log.append("eth0", &packet(START), Some(1)).unwrap();
    log.flush().unwrap();
    let path = list(dir.path()).unwrap().remove(0);
    let (import, recovery) = Store::open(config(dir.path(), Role::Importer, Retention::default())).await.unwrap();
    assert!(recovery.repairs.is_empty() && import.catalog.all_segments().await.unwrap().is_empty());
    drop((import, store, log));
    let full = dir.path().join(&path);
    let mut bytes = std::fs::read(&full).unwrap();
    bytes.extend([1; 77]);
    std::fs::write(&full, bytes).unwrap();
    let (store, recovery) = Store::open(config(dir.path(), Role::Appliance, Retention::default())).await.unwrap();
    assert!(recovery.repairs.len() == 1 && recovery.repairs[0].contains("77 bytes"), "{recovery:?}");
    let segments = store.catalog.all_segments().await.unwrap();
    assert!(segments.len() == 1 && segments[0].sealed && segments[0].packets == 1 && segments[0].path == path);
    assert_eq!(count(&store).await, 1);
}

/// One segment that cannot be read, as on a disk that begins to fail, costs nothing but itself.
#[tokio::test]
async fn a_segment_that_cannot_be_recovered_stays_and_the_start_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(config(dir.path(), Role::Appliance, Retention::default())).await.unwrap();
    let mut log = store.packet_log(PacketLogConfig::default()).unwrap();
    log.append("eth0", &packet(START), Some(1)).unwrap();
    log.flush().unwrap();
    let good = dir.path().join(list(dir.path()).unwrap().remove(0));
    drop((store, log));
    // Opening a folder for writing fails as opening a bad sector does.
    let bad = good.with_file_name("000000-bad-000001.pcapng.zst");
    std::fs::create_dir(&bad).unwrap();
    for _ in 0..2 {
        let (store, recovery) = Store::open(config(dir.path(), Role::Appliance, Retention::default())).await.unwrap();
        assert_eq!(recovery.repairs.len(), 1, "{recovery:?}");
        assert!(recovery.repairs[0].contains("000000-bad-000001.pcapng.zst` cannot be made whole now"), "{recovery:?}");
        assert!(bad.exists());
        assert_eq!(store.catalog.all_segments().await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn the_oldest_segments_go_first_and_the_open_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let limit = Retention { age: Some(Duration::from_secs(100)), bytes: None };
    let (store, _) = Store::open(config(dir.path(), Role::Appliance, limit)).await.unwrap();
    let mut log = store.packet_log(PacketLogConfig::default()).unwrap();
    for second in [0, 40, 120] {
        log.append("eth0", &packet(START + second * SECOND), Some(1)).unwrap();
        log.seal().unwrap();
        let (from, to) = (START + second * SECOND, START + (second + 1) * SECOND);
        store.catalog.add_loss(&Loss { node: "a".into(), from, to, packets: 1, ..Loss::default() }).await.unwrap();
    }
    log.append("eth0", &packet(START - SECOND), Some(1)).unwrap();
    log.flush().unwrap();
    let done = store.maintain(START + 130 * SECOND).await.unwrap();
    assert_eq!((done.retired.segments, done.retired.deleted, done.packets.files), (1, 0, 3));
    assert_eq!(list(dir.path()).unwrap().len(), 4, "a search that has begun still finds the file");
    assert_eq!(count(&store).await, 3, "a new one does not");
    assert_eq!(
        store.completeness(i64::MIN, i64::MAX, false).await.unwrap().nodes[0].packets,
        3,
        "the open segment is older"
    );
    let done = store.maintain(START + 165 * SECOND).await.unwrap();
    assert_eq!((done.retired.segments, done.retired.deleted), (1, 2));
    log.seal().unwrap();
    store.maintain(START + 170 * SECOND).await.unwrap();
    let done = store.maintain(START + 205 * SECOND).await.unwrap();
    assert_eq!((done.retired.deleted, done.packets.files, done.oldest), (4, 1, Some(START + 120 * SECOND)));
    let left = store.completeness(i64::MIN, i64::MAX, false).await.unwrap();
    assert_eq!((left.nodes[0].packets, left.retired.packets), (1, 3), "and it is told what is gone");
    assert_eq!(store.completeness(START + 7_200 * SECOND, i64::MAX, false).await.unwrap().retired.packets, 0);
    assert_eq!(list(dir.path()).unwrap().len(), 1);
}

/// Somebody made it immutable, to keep it.
#[tokio::test]
async fn a_file_that_cannot_be_deleted_keeps_no_other_one_and_no_start() {
    let dir = tempfile::tempdir().unwrap();
    let limit = Retention { age: Some(Duration::from_secs(100)), bytes: None };
    let open = || Store::open(config(dir.path(), Role::Appliance, limit));
    let store = open().await.unwrap().0;
    let mut log = store.packet_log(PacketLogConfig::default()).unwrap();
    for second in [0, 10, 20] {
        log.append("eth0", &packet(START + second * SECOND), Some(1)).unwrap();
        log.seal().unwrap();
    }
    store.maintain(START + 30 * SECOND).await.unwrap();
    // Deleting a folder fails, too.
    let first = dir.path().join(list(dir.path()).unwrap().remove(0));
    std::fs::remove_file(&first).unwrap();
    std::fs::create_dir(&first).unwrap();
    let done = store.maintain(START + 200 * SECOND).await.unwrap();
    assert!(done.retired.segments == 3 && done.undeleted.is_none(), "{done:?}");
    for deleted in [5, 0] {
        let done = store.maintain(START + 240 * SECOND).await.unwrap();
        let undeleted = done.undeleted.unwrap().to_string();
        assert!(undeleted.contains("delete") && undeleted.contains(first.to_str().unwrap()), "{undeleted}");
        assert_eq!((done.retired.deleted, list(dir.path()).unwrap().len()), (deleted, 1));
        assert!(dir.path().join("reserve").exists(), "the disk is not full");
    }
    store.close().await.unwrap();
    drop((store, log));

    let (store, recovery) = open().await.unwrap();
    assert!(recovery.repairs.len() == 1 && recovery.repairs[0].contains(first.to_str().unwrap()), "{recovery:?}");
    assert!(store.catalog.all_segments().await.unwrap().is_empty() && first.exists(), "it counts no more");
    std::fs::remove_dir(&first).unwrap();
    std::fs::write(&first, "a file again").unwrap();
    let done = store.maintain(START + 250 * SECOND).await.unwrap();
    assert!(done.undeleted.is_none() && !first.exists(), "{done:?}");
}

#[tokio::test]
async fn a_limit_of_bytes_keeps_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let limit = Retention { age: None, bytes: Some(1_000) };
    let (store, _) = Store::open(config(dir.path(), Role::Appliance, limit)).await.unwrap();
    let mut log = store.packet_log(PacketLogConfig::default()).unwrap();
    for second in 0..9 {
        log.append("eth0", &packet(START + second * SECOND), Some(1)).unwrap();
        log.seal().unwrap();
    }
    let done = store.maintain(START + 10 * SECOND).await.unwrap();
    assert!(done.packets.bytes <= 1_000 && done.packets.files >= 1 && done.retired.segments >= 1, "{done:?}");
    assert!(done.oldest > Some(START));
}

/// Bytes of a folder's files.
fn disk(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            let data = entry.metadata().unwrap();
            if data.is_dir() { disk(&entry.path()) } else { data.len() }
        })
        .sum()
}

/// The limit is one of the disk: files that wait to be deleted, and the segment that is being written, count.
#[tokio::test]
async fn a_limit_of_bytes_bounds_the_disk() {
    const LIMIT: u64 = 4 << 20;
    let dir = tempfile::tempdir().unwrap();
    let limit = Retention { age: None, bytes: Some(LIMIT) };
    let (store, _) = Store::open(config(dir.path(), Role::Appliance, limit)).await.unwrap();
    let segment_bytes = LIMIT / 16;
    let config = PacketLogConfig { segment_bytes, block_bytes: 64 << 10, ..PacketLogConfig::default() };
    let mut log = store.packet_log(config).unwrap();
    let mut noise = 1_u64;
    let mut most = 0;
    for number in 0..8_000 {
        let mut data = [0; 1_400];
        for byte in &mut data {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (noise >> 56) as u8;
        }
        let packet = Packet { data: &data, wire_len: 1_400, ..packet(START + number) };
        log.append("eth0", &packet, Some(1)).unwrap();
        if number % 50 == 0 {
            log.flush().unwrap();
            store.maintain(START + number).await.unwrap();
            most = most.max(disk(&dir.path().join("packets")));
        }
    }
    assert!(most > LIMIT * 8 / 10, "{most}: nearly all of it is used");
    assert!(most < LIMIT * 11 / 10, "{most} of {LIMIT}");
}

/// What was imported is as old as its import.
#[tokio::test]
async fn old_packets_that_were_imported_now_are_kept() {
    const DAY: i64 = 86_400 * SECOND;
    let dir = tempfile::tempdir().unwrap();
    let now = rows::START + 400 * DAY;
    let (import, _) = Store::open(config(dir.path(), Role::Importer, Retention::default())).await.unwrap();
    let origin = Origin { import: Some(1), stored_at: now };
    import.flows.set_origin(origin);
    let mut log = import.packet_log(PacketLogConfig { origin, ..PacketLogConfig::default() }).unwrap();
    import.flows.append(vec![rows::flow(1)]).await.unwrap();
    log.append("eth0", &packet(rows::START), Some(1)).unwrap();
    log.seal().unwrap();
    import.close().await.unwrap();
    drop(import);
    let limit = Retention { age: Some(Duration::from_hours(90 * 24)), bytes: None };
    let limits = StoreConfig { flows: limit, ..config(dir.path(), Role::Appliance, limit) };
    let (store, _) = Store::open(limits).await.unwrap();
    let kept = store.maintain(now + 89 * DAY).await.unwrap();
    assert_eq!((kept.flows.files, kept.packets.files), (1, 1));
    let kept = store.maintain(now + 91 * DAY).await.unwrap();
    assert_eq!((kept.flows.files, kept.packets.files), (0, 0));
}

/// Whatever a merge makes of its files meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn all_of_an_import_is_taken_back_beside_a_merge() {
    for turns in [0, 1, 3, 10, 30, 100, 300, 1_000, 3_000] {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(config(dir.path(), Role::Appliance, Retention::default())).await.unwrap();
        let import = store.catalog.begin_import("aa", "a.pcap", 1, rows::START).await.unwrap();
        store.flows.set_origin(Origin { import: Some(import), stored_at: rows::START });
        for id in 1..=8 {
            store.flows.append(vec![rows::flow(id)]).await.unwrap();
            store.flush().await.unwrap();
        }
        let merge = store.flows.compact(rows::START);
        let retire = async {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            store.retire_import(import, rows::START).await.unwrap();
        };
        let (merged, ()) = tokio::join!(merge, retire);
        assert!(matches!(merged, Ok(_) | Err(StoreError::Gone { .. })), "{merged:?}");
        assert!(store.catalog.all_flow_files().await.unwrap().is_empty(), "{turns}");
        assert!(store.catalog.imports_of("aa").await.unwrap().is_empty());
    }
}

/// Other people's traffic is nobody else's business, whatever the umask; what an earlier release left open is closed.
#[tokio::test]
async fn only_the_owner_can_read() {
    use std::os::unix::fs::PermissionsExt;
    fn open_to_others(path: &Path) -> Vec<std::path::PathBuf> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(open_to_others(&path));
            }
            if std::fs::metadata(&path).unwrap().permissions().mode() & 0o077 != 0 {
                found.push(path);
            }
        }
        found
    }
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    // Somebody made it before.
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).unwrap();
    let fill = async || {
        let (store, _) = Store::open(config(&dir, Role::Appliance, Retention::default())).await.unwrap();
        let mut log = store.packet_log(PacketLogConfig::default()).unwrap();
        log.append("eth0", &packet(START), Some(1)).unwrap();
        log.flush().unwrap();
        store.flows.append(vec![rows::flow(1)]).await.unwrap();
        store.maintain(START).await.unwrap();
        // With the WAL of the catalog still there.
        open_to_others(parent.path())
    };
    assert_eq!(fill().await, Vec::<std::path::PathBuf>::new());
    std::fs::create_dir_all(dir.join("run/cni-spool")).unwrap();
    for path in ["", "run", "run/cni-spool", "flows", "packets", "packets/date=2023-11-14"].map(|name| dir.join(name)) {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    for file in list(&dir).unwrap() {
        std::fs::set_permissions(dir.join(file), PermissionsExt::from_mode(0o644)).unwrap();
    }
    assert!(open_to_others(parent.path()).len() >= 4);
    assert_eq!(fill().await, Vec::<std::path::PathBuf>::new());
}

/// Flows and transactions share one limit: the oldest file of either goes first.
#[tokio::test]
async fn flows_and_transactions_age_together() {
    const HOUR: i64 = 3600 * SECOND;
    let dir = tempfile::tempdir().unwrap();
    let limits = |flows| StoreConfig { flows, ..config(dir.path(), Role::Appliance, Retention::default()) };
    let (store, _) = Store::open(limits(Retention::default())).await.unwrap();
    for hour in 0..6 {
        let by = hour * HOUR;
        if hour % 2 == 0 {
            let mut row = rows::flow(1);
            (row.record.start, row.record.end) = (rows::START + by, rows::START + by);
            store.flows.append(vec![row]).await.unwrap();
        } else {
            let mut row = rows::transaction(1, 0);
            (row.record.exchange.start, row.record.exchange.end) = (rows::START + by, rows::START + by);
            store.transactions.append(vec![row]).await.unwrap();
        }
    }
    let before = store.maintain(rows::START).await.unwrap();
    assert_eq!((before.rows_flushed, before.flows.files, before.transactions.files), (6, 3, 3));
    assert_eq!(before.oldest, Some(rows::START));
    store.close().await.unwrap();
    drop(store);

    // One byte too many: the oldest file goes, a flow's.
    let bytes = Some(before.flows.bytes + before.transactions.bytes - 1);
    let (store, _) = Store::open(limits(Retention { age: None, bytes })).await.unwrap();
    let done = store.maintain(rows::START + 6 * HOUR).await.unwrap();
    assert_eq!((done.flows.files, done.transactions.files, done.oldest), (2, 3, Some(rows::START + HOUR)));
    store.close().await.unwrap();
    drop(store);

    // By age the next ones are a transaction's and a flow's.
    let age = Some(Duration::from_secs(3 * 3600 - 1));
    let (store, _) = Store::open(limits(Retention { age, bytes: None })).await.unwrap();
    let done = store.maintain(rows::START + 6 * HOUR).await.unwrap();
    assert_eq!((done.retired.flow_files, done.flows.files, done.transactions.files), (3, 1, 1));
    let reader = Store::open_read_only(dir.path()).await.unwrap();
    assert_eq!(reader.catalog.all_flow_files().await.unwrap().len(), 2);
}
