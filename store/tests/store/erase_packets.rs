//! Erasure of packets: those of the erased slices go, all others stay byte for byte, and segments without any are not touched.
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use wiretag_capture::{EndReason, LinkType, Packet};
use wiretag_store::packets::{Wanted, import_node, index_path, list, read_flows, recover};
use wiretag_store::tables::Range;
use wiretag_store::{
    ErasureRequest, ErasureState, Loss, Origin, PacketLog, PacketLogConfig, Role, Selection, Store, TableName,
};

use crate::erase::{NOW, bytes_of, erase, open, request};
use crate::rows::{START, flow};

const SECOND: i64 = 1_000_000_000;

/// A packet as it is read: interface, time, data, direction is none, flow.
type Seen = (String, i64, Vec<u8>, Option<u64>);

fn packet(time: i64, data: &[u8]) -> Packet<'_> {
    let (wire_len, link_type) = (data.len() as u32 + 7, LinkType::ETHERNET);
    Packet { time, data, wire_len, link_type, interface: 1, direction: None, vlan: None }
}

/// Small blocks and segments.
fn log(store: &Store, node: &str) -> PacketLog {
    let config =
        PacketLogConfig { node: node.into(), block_bytes: 600, segment_bytes: 4_000, ..PacketLogConfig::default() };
    store.packet_log(config).unwrap()
}

/// All packets, as whoever downloads them gets them.
async fn seen(store: &Store) -> Vec<Seen> {
    let files = store.segment_files(i64::MIN, i64::MAX).await.unwrap();
    let mut found = Vec::new();
    read_flows(&files, Wanted::All, (i64::MIN, i64::MAX), &mut |interface, packet, flow| {
        found.push((interface.to_owned(), packet.time, packet.data.to_vec(), flow));
        Ok(())
    })
    .unwrap();
    found.sort();
    found
}

/// The pcapng blocks of packets of a segment, as they are on the disk.
fn raw(path: &Path) -> Vec<Vec<u8>> {
    let bytes = zstd::stream::decode_all(std::fs::File::open(path).unwrap()).unwrap();
    let (mut rest, mut found) = (bytes.as_slice(), Vec::new());
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
        if rest[..4] == [6, 0, 0, 0] {
            found.push(rest[..length].to_vec());
        }
        rest = &rest[length..];
    }
    found
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    list(dir).unwrap().iter().map(|path| dir.join(path)).collect()
}

/// Flow 1 is erased in its first minute, flow 2 stays, and what is of no flow.
#[tokio::test(flavor = "multi_thread")]
async fn packets_of_erased_slices_go_and_their_neighbours_stay_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Role::Appliance).await;
    let mut log = log(&store, "node");
    for second in 0..120 {
        let time = START + second * SECOND;
        for (flow, interface) in [(Some(1), "veth1"), (Some(2), "veth2"), (None, "veth1")] {
            let data = vec![flow.unwrap_or(9) as u8; 40 + second as usize % 50];
            log.append(interface, &packet(time + flow.unwrap_or(9) as i64, &data), flow).unwrap();
        }
    }
    // Of flow 2 alone.
    log.seal().unwrap();
    for second in 0..20 {
        log.append("veth9", &packet(START + second * SECOND, &[3; 99]), Some(2)).unwrap();
    }
    log.seal().unwrap();
    store.record_segments().await.unwrap();
    let mut rows = Vec::new();
    for (id, slice, from, to) in [(1, 0, 0, 60), (1, 1, 60, 120), (2, 0, 0, 120)] {
        let mut row = flow(id);
        row.record.slice = slice;
        row.record.start = START + from * SECOND;
        row.record.end = START + to * SECOND - 1;
        rows.push(row);
    }
    store.flows.append(rows).await.unwrap();
    store.flush().await.unwrap();
    let before = seen(&store).await;
    let on_disk = bytes_of(&dir.path().join("packets"));
    let mut neighbours: Vec<Vec<u8>> = segments(dir.path()).iter().flat_map(|path| raw(path)).collect();

    let filter = "flow_id == 0000000000000001 and slice == 0";
    let refused = store.begin_erasure(&request(filter), NOW).await.unwrap_err();
    assert!(refused.to_string().contains("erase only flows"), "{refused}");
    let only = ErasureRequest { only: Some(TableName::Flows), ..request(filter) };
    let id = store.begin_erasure(&only, NOW).await.unwrap();
    store.continue_erasures(&|| NOW).await.unwrap();
    let erasure = store.erasures().await.unwrap().remove(0);
    assert_eq!((erasure.state, erasure.counts.flows, erasure.counts.packets), (ErasureState::Deleting, 1, 60));
    let goes = |time: i64, flow: Option<u64>| flow == Some(1) && time < START + 60 * SECOND;
    let wanted: Vec<Seen> = before.into_iter().filter(|(_, time, _, flow)| !goes(*time, *flow)).collect();
    assert_eq!(seen(&store).await, wanted);
    let everything = wiretag_store::query::parse("flow_id exists").unwrap();
    let refs = store.flows.refs(&everything, Range::ALL, true, 10).await.unwrap();
    let written = store.write_pcap(Selection::Flows(refs), i64::MIN, i64::MAX, Vec::new()).await.unwrap();
    assert_eq!(written.0, 60 + 120 + 20, "a download has the others");

    store.settle_erasures().await.unwrap();
    let after = bytes_of(&dir.path().join("packets"));
    let files = store.catalog.erased_files(id).await.unwrap();
    let replaced: Vec<&str> =
        files.iter().filter(|file| file.kind == "packets").map(|file| file.path.as_str()).collect();
    assert!(!replaced.is_empty());
    for (path, bytes) in &on_disk {
        let gone = replaced.iter().any(|old| path.contains(old));
        assert_eq!(after.get(path), (!gone).then_some(bytes), "{path}");
    }
    assert!(!after.keys().any(|path| path.contains("zst.tmp")));
    // Packets that stay have the bytes that they had.
    let mut left: Vec<Vec<u8>> = segments(dir.path()).iter().flat_map(|path| raw(path)).collect();
    neighbours.retain(|block| {
        let number = |at: usize| u64::from(u32::from_le_bytes(block[at..at + 4].try_into().unwrap()));
        !(block[28] == 1 && (number(12) << 32 | number(16)) < (START + 60 * SECOND) as u64)
    });
    neighbours.sort();
    left.sort();
    assert!(left == neighbours);
    // And the segments are whole.
    for segment in store.catalog.all_segments().await.unwrap() {
        let recovered = recover(dir.path(), &segment.path).unwrap();
        assert_eq!((recovered.cut, recovered.segment.unwrap().packets), (0, segment.packets));
    }
    assert_eq!(seen(&store).await, wanted);
    assert_eq!(store.erasures().await.unwrap()[0].state, ErasureState::Done);
}

/// After a kill: flow 1 was recovered as it was seen last, flow 2 had ended, and flow 3 began after the last look.
#[tokio::test(flavor = "multi_thread")]
async fn packets_of_the_seconds_before_a_kill_go_with_their_row_or_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Role::Appliance).await;
    let mut log = log(&store, "node");
    for second in 0..15 {
        let flows = if second < 12 { 1..3 } else { 1..4 };
        for flow in flows {
            log.append("veth1", &packet(START + second * SECOND, &[flow as u8; 60]), Some(flow)).unwrap();
        }
        log.append("veth1", &packet(START + second * SECOND, &[9; 60]), None).unwrap();
    }
    log.seal().unwrap();
    store.record_segments().await.unwrap();
    let rows = [(1, EndReason::Interrupted), (2, EndReason::Fin)].map(|(id, reason)| {
        let mut row = flow(id);
        (row.record.end, row.record.end_reason) = (START + 10 * SECOND, Some(reason));
        row.record.client.ip = [10, 0, 0, id as u8].into();
        row
    });
    store.flows.append(rows.to_vec()).await.unwrap();
    let none = erase(&store, "client_ip == 10.0.0.9").await;
    assert_eq!((none.counts.packets, none.counts.packets_unchecked), (0, 0), "nobody was killed");

    let (from, to) = (START + 8 * SECOND, START + 10 * SECOND);
    let kill = Loss { node: "node".into(), from, to, interruptions: 1, ..Loss::default() };
    store.catalog.add_loss(&kill).await.unwrap();
    for (client, packets) in [(1, 15), (2, 11)] {
        let erasure = erase(&store, &format!("client_ip == 10.0.0.{client}")).await;
        let counts = erasure.counts;
        let unchecked = if client == 1 { 3 } else { 3 + 4 };
        assert_eq!((counts.flows, counts.packets, counts.packets_unchecked), (1, packets, unchecked), "{client}");
    }
    // Of flow 2, which was erased, what its row did not tell of; flow 3; and what is of no flow.
    assert_eq!(seen(&store).await.len(), 4 + 3 + 15);
    let before = ErasureRequest { to: START + 5 * SECOND, ..request("client_ip == 10.0.0.3") };
    store.begin_erasure(&before, NOW).await.unwrap();
    store.continue_erasures(&|| NOW).await.unwrap();
    assert_eq!(store.erasures().await.unwrap().pop().unwrap().counts.packets_unchecked, 0, "none was killed by then");
}

/// The segment that is being written is sealed, and gone through; one that nobody seals is waited for, and told of.
#[tokio::test(flavor = "multi_thread")]
async fn open_segments_are_sealed_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Role::Appliance).await;
    let mut log = log(&store, "node");
    log.append("veth1", &packet(START, &[1; 60]), Some(1)).unwrap();
    log.append("veth1", &packet(START, &[2; 60]), Some(2)).unwrap();
    log.flush().unwrap();
    let mut other = flow(2);
    other.record.client.ip = [10, 0, 0, 9].into();
    store.flows.append(vec![flow(1), other]).await.unwrap();
    store.begin_erasure(&request("client_ip == 10.0.0.1"), NOW).await.unwrap();
    let waited = store.continue_erasures(&|| NOW).await.unwrap_err();
    assert!(waited.to_string().contains("still being written"), "{waited}");
    let erasure = store.erasures().await.unwrap().remove(0);
    assert_eq!((erasure.state, erasure.counts.flows, erasure.counts.packets), (ErasureState::Running, 1, 0));
    assert!(erasure.problem.unwrap().contains("still being written"));
    drop(store);
    // A restart of the process that erases does not forget them.
    log.flush().unwrap();
    drop(log);
    let store = open(dir.path(), Role::Appliance).await;
    store.continue_erasures(&|| NOW).await.unwrap();
    let erasure = store.erasures().await.unwrap().remove(0);
    assert_eq!((erasure.state, erasure.counts.packets, erasure.problem), (ErasureState::Deleting, 1, None));
    assert_eq!(seen(&store).await.len(), 1);

    // As the thread of the packet log does.
    let mut log = self::log(&store, "node");
    log.append("veth1", &packet(START, &[1; 60]), Some(3)).unwrap();
    log.flush().unwrap();
    let mut late = flow(3);
    late.record.client.ip = [10, 0, 0, 8].into();
    store.flows.append(vec![late]).await.unwrap();
    let flushing = async {
        loop {
            log.flush().unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = flushing => {}
        erasure = erase(&store, "client_ip == 10.0.0.8") => assert_eq!(erasure.counts.packets, 1),
    }
    assert_eq!(seen(&store).await.len(), 1);
}

/// An import that was killed beside the appliance leaves a segment that nobody writes, whether the catalog was told of it or not.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_import_left_is_sealed_and_erased_from() {
    for told in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), Role::Appliance).await;
        let importer = open(dir.path(), Role::Importer).await;
        let import = importer.catalog.begin_import("aa", "a.pcap", 1, NOW - 1).await.unwrap();
        let lock = importer.import_lock("aa").unwrap();
        let origin = Origin { import: Some(import), stored_at: NOW - 1 };
        let config = PacketLogConfig { node: import_node(import), origin, ..PacketLogConfig::default() };
        let mut left = importer.packet_log(config).unwrap();
        let mut log = log(&store, "node");
        log.append("veth1", &packet(NOW, &[3; 60]), Some(3)).unwrap();
        log.flush().unwrap();
        for flow in [1, 2] {
            left.append("a.pcap", &packet(START, &[flow as u8; 60]), Some(flow)).unwrap();
        }
        left.flush().unwrap();
        importer.flows.set_origin(origin);
        let mut other = flow(2);
        other.record.client.ip = [10, 0, 0, 9].into();
        importer.flows.append(vec![flow(1), other]).await.unwrap();
        importer.flows.flush().await.unwrap();
        if told {
            importer.record_segments().await.unwrap();
        }
        let id = store.begin_erasure(&request("client_ip == 10.0.0.1"), NOW).await.unwrap();
        if told {
            let waited = store.continue_erasures(&|| NOW).await.unwrap_err();
            assert!(waited.to_string().contains("still being written"), "{waited}");
        }
        drop((left, lock, importer));
        store.continue_erasures(&|| NOW).await.unwrap();
        let erasure = store.erasures().await.unwrap().remove(0);
        assert_eq!((erasure.id, erasure.state, erasure.counts.packets), (id, ErasureState::Deleting, 1), "{told}");
        assert_eq!(seen(&store).await.len(), 2);
        // What the appliance writes is of later, and was left alone.
        log.flush().unwrap();
        store.record_segments().await.unwrap();
        let segments = store.catalog.all_segments().await.unwrap();
        let sealed: Vec<(&str, bool)> = segments.iter().map(|own| (own.node.as_str(), own.sealed)).collect();
        assert_eq!(sealed, [(import_node(import).as_str(), true), ("node", false)]);
        assert_eq!(segments[0].origin, origin);
    }
}

/// Who imports something after its erasure wants it, also while the import runs.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_began_later_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Role::Appliance).await;
    store.flows.append(vec![flow(1)]).await.unwrap();
    store.flush().await.unwrap();
    store.begin_erasure(&request("client_ip == 10.0.0.1"), NOW).await.unwrap();
    let importer = open(dir.path(), Role::Importer).await;
    let import = importer.catalog.begin_import("aa", "a.pcap", 1, NOW + 1).await.unwrap();
    let _lock = importer.import_lock("aa").unwrap();
    let origin = Origin { import: Some(import), stored_at: NOW + 1 };
    let config = PacketLogConfig { node: import_node(import), origin, ..PacketLogConfig::default() };
    let mut log = importer.packet_log(config).unwrap();
    log.append("a.pcap", &packet(START, &[1; 60]), Some(1)).unwrap();
    log.flush().unwrap();
    store.continue_erasures(&|| NOW).await.unwrap();
    assert_eq!(store.erasures().await.unwrap()[0].state, ErasureState::Deleting);
    assert_eq!(seen(&store).await.len(), 1);
}

/// Killed between the new segment's name and the catalog: the next start has the old one, and the erasure goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_between_leaves_the_old_or_the_new() {
    for turns in [0, 3, 10, 40, 150, 600] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), Role::Appliance).await;
        let mut log = log(&store, "node");
        for second in 0..60_u8 {
            let flow = u64::from(second % 3);
            log.append("veth1", &packet(START + i64::from(second), &[second; 80]), Some(flow)).unwrap();
        }
        log.seal().unwrap();
        store.record_segments().await.unwrap();
        let rows = (0..3).map(|id| {
            let mut row = flow(id);
            row.record.client.ip = [10, 0, 0, id as u8].into();
            row
        });
        store.flows.append(rows.collect()).await.unwrap();
        store.flush().await.unwrap();
        store.begin_erasure(&request("client_ip == 10.0.0.1"), NOW).await.unwrap();
        tokio::select! {
            biased;
            () = async { for _ in 0..turns { tokio::task::yield_now().await; } } => {}
            done = store.continue_erasures(&|| NOW) => done.unwrap(),
        }
        drop((store, log));
        // What a kill leaves that nobody reads.
        let day = dir.path().join("packets/date=2026-03-01");
        for name in ["000000-node-000009.pcapng.zst.tmp", "000000-node-000009.pcapng.zst.tmp.index"] {
            std::fs::write(day.join(name), b"half").unwrap();
        }
        let store = open(dir.path(), Role::Appliance).await;
        assert!(!bytes_of(&day).values().any(|bytes| bytes == b"half"));
        let packets = seen(&store).await.len();
        assert!(packets == 60 || packets == 40, "{packets}");
        store.continue_erasures(&|| NOW).await.unwrap();
        assert_eq!(seen(&store).await.len(), 40);
        assert_eq!(store.erasures().await.unwrap()[0].counts.packets, 20);
    }
}

/// A store with a sealed segment, of a packet of each of the flows 1 and 2.
async fn with_a_segment(dir: &Path) -> Store {
    let store = open(dir, Role::Appliance).await;
    let mut log = log(&store, "node");
    for flow in [1, 2] {
        log.append("veth1", &packet(START, &[flow as u8; 60]), Some(flow)).unwrap();
    }
    log.seal().unwrap();
    store.record_segments().await.unwrap();
    store
}

/// The catalog is away at the wrong moment: what was written for nothing does not stay, however often it is tried.
#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_cannot_be_exchanged_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_a_segment(dir.path()).await;
    store.flows.append(vec![flow(1)]).await.unwrap();
    store.flush().await.unwrap();
    let before = bytes_of(&dir.path().join("packets"));
    let options = SqliteConnectOptions::new().filename(dir.path().join("catalog.sqlite"));
    let tool = SqlitePool::connect_with(options).await.unwrap();
    store.begin_erasure(&request("client_ip == 10.0.0.1"), NOW).await.unwrap();
    for refused in [
        "CREATE TRIGGER no BEFORE INSERT ON removals WHEN NEW.path LIKE 'packets/%' BEGIN SELECT RAISE(ABORT, 'no'); END",
        "CREATE TRIGGER no BEFORE INSERT ON segments BEGIN SELECT RAISE(ABORT, 'no'); END",
    ] {
        sqlx::query(refused).execute(&tool).await.unwrap();
        store.continue_erasures(&|| NOW).await.unwrap_err();
        assert_eq!(bytes_of(&dir.path().join("packets")), before, "{refused}");
        assert_eq!(seen(&store).await.len(), 2);
        sqlx::query("DROP TRIGGER no").execute(&tool).await.unwrap();
    }
    store.continue_erasures(&|| NOW).await.unwrap();
    assert_eq!(seen(&store).await.len(), 1);
    store.settle_erasures().await.unwrap();
    assert_eq!((seen(&store).await.len(), bytes_of(&dir.path().join("packets")).len()), (1, 2));
}

/// A segment that cannot be read comes back from a backup: it goes through what was erased before.
#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_is_restored_is_erased_from() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_a_segment(dir.path()).await;
    let rows = [1, 2].map(|id| {
        let mut row = flow(id);
        row.record.client.ip = [10, 0, 0, id as u8].into();
        row
    });
    store.flows.append(rows.to_vec()).await.unwrap();
    let index = index_path(&segments(dir.path())[0]);
    let elsewhere = dir.path().join("elsewhere");
    std::fs::rename(&index, &elsewhere).unwrap();
    let erasure = erase(&store, "client_ip == 10.0.0.1").await;
    let counts = erasure.counts;
    assert_eq!((erasure.state, counts.flows, counts.packets, counts.files_unread), (ErasureState::Running, 1, 0, 1));
    std::fs::rename(&elsewhere, &index).unwrap();
    assert_eq!(seen(&store).await.len(), 2);
    store.continue_erasures(&|| NOW).await.unwrap();
    let erasure = store.erasures().await.unwrap().remove(0);
    assert_eq!((erasure.state, erasure.counts.packets, erasure.problem), (ErasureState::Deleting, 1, None));
    assert_eq!(seen(&store).await.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Any packets of any flows in any segments: what is left is what a filter over all packets leaves.
    #[test]
    fn what_is_left_is_what_a_filter_leaves(
        packets in prop::collection::vec((0..4_u64, 0..90_i64, 0..60_usize, 0..3_u8, prop::bool::weighted(0.05)), 1..300),
        erased in 0..4_u64,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let store = open(dir.path(), Role::Appliance).await;
            let mut log = log(&store, "node");
            for (flow, second, length, interface, seal) in &packets {
                let data = vec![*flow as u8; 20 + length];
                let flow = (*flow < 3).then_some(*flow);
                log.append(&format!("veth{interface}"), &packet(START + second * SECOND, &data), flow).unwrap();
                if *seal {
                    log.seal().unwrap();
                }
            }
            log.seal().unwrap();
            store.record_segments().await.unwrap();
            let row = |id: u64| {
                let mut row = flow(id);
                row.record.end = START + 60 * SECOND;
                row.record.client.ip = [10, 0, 0, id as u8].into();
                row
            };
            store.flows.append((0..3).map(row).collect()).await.unwrap();
            let before = seen(&store).await;
            let erasure = erase(&store, &format!("client_ip == 10.0.0.{erased}")).await;
            let goes = |seen: &&Seen| seen.3 == Some(erased) && seen.1 <= START + 60 * SECOND;
            let wanted: Vec<Seen> = before.iter().filter(|seen| !goes(seen)).cloned().collect();
            assert_eq!(seen(&store).await, wanted);
            assert_eq!(erasure.counts.packets as usize, before.len() - wanted.len());
            store.settle_erasures().await.unwrap();
            assert_eq!(seen(&store).await, wanted);
            for path in segments(dir.path()) {
                assert!(index_path(&path).exists());
            }
        });
    }
}
