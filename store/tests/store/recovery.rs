//! Starting after a bad day: no packet is deleted that is whole, whatever became of the index, the segment or the catalog.
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wiretag_capture::file::CaptureFile;
use wiretag_capture::{LinkType, Packet};
use wiretag_store::packets::{import_node, index_path, list};
use wiretag_store::{
    MissingPackets, Origin, PacketLogConfig, Recovery, Retention, Role, Segment, Selection, Store, StoreConfig,
    StoreError,
};

use crate::erase::{NOW, erase};
use crate::rows::{START, flow};

async fn open(dir: &Path) -> (Store, Recovery) {
    Store::open(StoreConfig::new(dir, Role::Appliance)).await.unwrap()
}

/// Ten blocks, of a packet of each of two flows.
fn log(store: &Store, config: PacketLogConfig, sealed: bool) {
    let mut log = store.packet_log(config).unwrap();
    for second in 0..10 {
        for flow in [1, 2] {
            let data = [flow as u8; 90];
            let (time, wire_len) = (START + second, data.len() as u32);
            let (link_type, direction, vlan) = (LinkType::ETHERNET, None, None);
            let packet = Packet { time, data: &data, wire_len, link_type, interface: 1, direction, vlan };
            log.append("veth1", &packet, Some(flow)).unwrap();
        }
        log.flush().unwrap();
    }
    if sealed {
        log.seal().unwrap();
    }
}

fn segment(dir: &Path) -> PathBuf {
    dir.join(list(dir).unwrap().remove(0))
}

async fn packets(store: &Store) -> u64 {
    store.write_pcap(Selection::All(Vec::new()), i64::MIN, i64::MAX, Vec::new()).await.unwrap().0
}

/// Segments that are gone and their packets, as answers about a time tell.
async fn missing(store: &Store, from: i64, to: i64) -> (u64, u64) {
    let MissingPackets { segments, packets } = store.completeness(from, to, false).await.unwrap().missing_packets;
    (segments, packets)
}

/// Packets of the capture files in `set-aside/`.
fn aside(dir: &Path) -> u64 {
    let mut count = 0;
    for file in fs::read_dir(dir.join("set-aside")).into_iter().flatten() {
        let path = file.unwrap().path();
        if !path.to_string_lossy().contains(".index") {
            let file = zstd::stream::Decoder::new(fs::File::open(&path).unwrap()).unwrap();
            let mut capture = CaptureFile::new(Box::new(file), "set aside").unwrap();
            while capture.next_packet().unwrap().is_some() {
                count += 1;
            }
        }
    }
    count
}

fn spoil(file: &Path, at: impl Fn(usize) -> usize) {
    let mut bytes = fs::read(file).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 0xff;
    fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn packets_behind_a_damaged_index_are_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.0;
    log(&store, PacketLogConfig::default(), false);
    drop(store);
    spoil(&index_path(&segment(dir.path())), |length| length / 2);
    let (store, recovery) = open(dir.path()).await;
    let left = packets(&store).await;
    assert!(left > 0 && left < 20 && left + aside(dir.path()) == 20, "{left}");
    assert!(recovery.repairs.len() == 1 && recovery.repairs[0].contains("set-aside/"), "{recovery:?}");
    drop(store);
    let (store, recovery) = open(dir.path()).await;
    assert_eq!((packets(&store).await, aside(dir.path()), recovery.repairs), (left, 20 - left, Vec::new()));
}

/// A block in the middle: whoever is killed while it writes leaves no such thing.
#[tokio::test]
async fn blocks_behind_a_damaged_one_are_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.0;
    log(&store, PacketLogConfig::default(), false);
    drop(store);
    let path = segment(dir.path());
    let before = path.metadata().unwrap().len();
    spoil(&path, |length| length / 2);
    let (store, recovery) = open(dir.path()).await;
    assert!(packets(&store).await > 0);
    assert!(recovery.repairs.len() == 1 && recovery.repairs[0].contains("set-aside/"), "{recovery:?}");
    let kept = fs::read_dir(dir.path().join("set-aside")).unwrap().next().unwrap().unwrap().metadata().unwrap().len();
    assert!(path.metadata().unwrap().len() + kept > before);
}

#[tokio::test]
async fn a_segment_without_an_index_is_set_aside() {
    for spoilt in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await.0;
        log(&store, PacketLogConfig::default(), false);
        store.record_segments().await.unwrap();
        drop(store);
        let index = index_path(&segment(dir.path()));
        if spoilt {
            spoil(&index, |_| 0);
        } else {
            fs::remove_file(&index).unwrap();
        }
        let (store, recovery) = open(dir.path()).await;
        assert_eq!((packets(&store).await, aside(dir.path())), (0, 20));
        assert!(recovery.repairs.len() == 1 && recovery.repairs[0].contains("no index"), "{recovery:?}");
        assert!(store.catalog.all_segments().await.unwrap().is_empty());
    }
}

/// As when a file system is mounted late.
#[tokio::test]
async fn a_segment_that_was_away_counts_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.0;
    let import = store.catalog.begin_import("aa", "a.pcap", 1, NOW).await.unwrap();
    let origin = Origin { import: Some(import), stored_at: NOW };
    log(&store, PacketLogConfig { node: import_node(import), origin, ..PacketLogConfig::default() }, true);
    store.close().await.unwrap();
    drop(store);
    let path = segment(dir.path());
    let elsewhere = dir.path().join("elsewhere");
    fs::rename(&path, &elsewhere).unwrap();
    // The first start says that the import was killed, too.
    for repairs in [2, 1] {
        let (store, recovery) = open(dir.path()).await;
        assert_eq!((missing(&store, 0, i64::MAX).await, recovery.repairs.len()), ((1, 20), repairs), "{recovery:?}");
        // An index alone is no segment that is being written.
        erase(&store, "client_ip == 10.9.9.9").await;
    }
    fs::rename(&elsewhere, &path).unwrap();
    for _ in 0..2 {
        let (store, recovery) = open(dir.path()).await;
        assert_eq!((packets(&store).await, recovery.repairs), (20, Vec::new()));
        assert_eq!(store.catalog.all_segments().await.unwrap()[0].origin, origin);
        assert_eq!(missing(&store, 0, i64::MAX).await, (0, 0));
    }
}

/// The appliance was killed and is started again while an import runs, which goes on with its own segment.
#[tokio::test]
async fn the_last_segment_is_sealed_beside_an_import() {
    let dir = tempfile::tempdir().unwrap();
    let importer = Store::open(StoreConfig::new(dir.path(), Role::Importer)).await.unwrap().0;
    let import = importer.catalog.begin_import("aa", "a.pcap", 1, NOW).await.unwrap();
    let origin = Origin { import: Some(import), stored_at: NOW };
    log(&importer, PacketLogConfig { node: import_node(import), origin, ..PacketLogConfig::default() }, false);
    importer.record_segments().await.unwrap();
    for told in [true, false] {
        let store = open(dir.path()).await.0;
        log(&store, PacketLogConfig::default(), false);
        if told {
            store.record_segments().await.unwrap();
        }
        drop(store);
        let (store, recovery) = open(dir.path()).await;
        assert_eq!(recovery.repairs, Vec::<String>::new());
        for segment in store.catalog.all_segments().await.unwrap() {
            assert_eq!(segment.sealed, segment.origin.import.is_none(), "{segment:?}");
        }
    }
    assert_eq!(packets(&importer).await, 3 * 20);
}

/// What it had replaced is deleted by the next start that is alone, though merges went on in between.
#[tokio::test]
async fn replaced_files_are_not_forgotten_beside_an_import() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).await.0;
    let importer = Store::open(StoreConfig::new(dir.path(), Role::Importer)).await.unwrap().0;
    for _ in 0..2 {
        for id in 0..8 {
            store.flows.append(vec![flow(id)]).await.unwrap();
            store.flush().await.unwrap();
        }
        assert_eq!(store.flows.compact(START).await.unwrap(), 8);
        drop(store);
        store = open(dir.path()).await.0;
    }
    drop((store, importer));
    let (store, recovery) = open(dir.path()).await;
    assert_eq!(recovery.repairs, Vec::<String>::new());
    assert_eq!(store.catalog.all_flow_files().await.unwrap().len(), 2);
    let left = crate::erase::bytes_of(&dir.path().join("flows"));
    assert_eq!(left.len(), 2, "{:?}", left.keys());
}

/// Deleted, or not part of what was restored; whether it had been sealed or not.
#[tokio::test]
async fn a_segment_that_is_gone_is_missed_until_retention_takes_it() {
    for sealed in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await.0;
        log(&store, PacketLogConfig::default(), sealed);
        store.record_segments().await.unwrap();
        drop(store);
        fs::remove_dir_all(dir.path().join("packets")).unwrap();
        for _ in 0..2 {
            let (store, recovery) = open(dir.path()).await;
            assert!(
                recovery.repairs.len() == 1 && recovery.repairs[0].contains("its 20 packets are missing"),
                "{recovery:?}"
            );
            let written = store.write_pcap(Selection::All(Vec::new()), i64::MIN, i64::MAX, Vec::new()).await;
            let error = written.unwrap_err();
            assert!(matches!(error, StoreError::PacketsDamaged { packets: 0, indexes: 1, .. }), "{error}");
            assert_eq!((missing(&store, START, START + 10).await, store.packets_gone().packets), ((1, 20), 20));
            assert_eq!(missing(&store, START + 10, i64::MAX).await, (0, 0));
            assert_eq!(store.catalog.segment_totals().await.unwrap().bytes, 0, "it takes no room");
        }
        let reader = Store::open_read_only(dir.path()).await.unwrap();
        assert_eq!(missing(&reader, START, START + 10).await, (1, 20));
        let packets = Retention { age: Some(Duration::from_hours(1)), bytes: None };
        let (store, _) =
            Store::open(StoreConfig { packets, ..StoreConfig::new(dir.path(), Role::Appliance) }).await.unwrap();
        assert_eq!(store.maintain(NOW).await.unwrap().retired.segments, 1);
        let told = store.completeness(i64::MIN, i64::MAX, false).await.unwrap();
        assert_eq!((told.missing_packets, told.retired.packets), (MissingPackets::default(), 20));
    }
}

/// Of one that was being written the catalog does not know all; what comes back may hold nothing.
#[tokio::test]
async fn a_segment_that_comes_back_is_made_whole() {
    for empty in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await.0;
        log(&store, PacketLogConfig::default(), false);
        store.record_segments().await.unwrap();
        drop(store);
        let path = segment(dir.path());
        let mut backup = [&path, &index_path(&path)].map(|file| (file.clone(), fs::read(file).unwrap()));
        fs::remove_dir_all(dir.path().join("packets")).unwrap();
        drop(open(dir.path()).await);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if empty {
            backup[0].1.clear();
        }
        for (file, bytes) in &backup {
            fs::write(file, bytes).unwrap();
        }
        let (store, _) = open(dir.path()).await;
        let told = missing(&store, 0, i64::MAX).await;
        let segments = store.catalog.all_segments().await.unwrap();
        assert!(segments.len() == 1 && segments[0].sealed && (segments[0].bytes == 0) == empty, "{segments:?}");
        assert_eq!(told, if empty { (1, 20) } else { (0, 0) });
        if !empty {
            assert_eq!(packets(&store).await, 20);
        }
    }
}

#[tokio::test]
async fn a_missing_file_of_a_segment_is_damage() {
    for index in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await.0;
        log(&store, PacketLogConfig::default(), true);
        store.close().await.unwrap();
        drop(store);
        let path = segment(dir.path());
        let (store, _) = open(dir.path()).await;
        fs::remove_file(if index { index_path(&path) } else { path }).unwrap();
        let written = store.write_pcap(Selection::All(Vec::new()), i64::MIN, i64::MAX, Vec::new()).await;
        let error = written.unwrap_err();
        assert!(matches!(error, StoreError::PacketsDamaged { packets: 0, indexes: 1, .. }), "{error}");
        assert_eq!(store.packets_damaged(), 1);
        // Not if somebody took it on purpose.
        let known: Vec<Segment> = store.catalog.all_segments().await.unwrap();
        store.catalog.remove_segments(&[known[0].path.clone()]).await.unwrap();
        assert_eq!((packets(&store).await, store.packets_damaged()), (0, 1));
    }
}

#[tokio::test]
async fn an_erased_segment_that_is_copied_back_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.0;
    log(&store, PacketLogConfig::default(), true);
    let rows = [1, 2].map(|id| {
        let mut row = flow(id);
        row.record.client.ip = [10, 0, 0, id as u8].into();
        row.record.end = START + 100;
        row
    });
    store.flows.append(rows.to_vec()).await.unwrap();
    store.maintain(NOW).await.unwrap();
    let path = segment(dir.path());
    let backup = [&path, &index_path(&path)].map(|file| (file.clone(), fs::read(file).unwrap()));
    assert_eq!(erase(&store, "client_ip == 10.0.0.1").await.counts.packets, 10);
    store.settle_erasures().await.unwrap();
    for (file, bytes) in &backup {
        assert!(!file.exists());
        fs::write(file, bytes).unwrap();
    }
    assert_eq!(packets(&store).await, 10, "nobody takes it for one that a writer has begun");
    erase(&store, "client_ip == 10.0.0.3").await;
    store.close().await.unwrap();
    drop(store);
    let (store, recovery) = open(dir.path()).await;
    assert_eq!((packets(&store).await, aside(dir.path())), (10, 20));
    assert!(recovery.repairs.len() == 1 && recovery.repairs[0].contains("were erased"), "{recovery:?}");
    assert!(!path.exists() && !index_path(&path).exists());
}

/// The number of an import may have been another's, in a catalog that was lost.
#[tokio::test]
async fn an_import_is_taken_back_without_the_packets_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.0;
    log(&store, PacketLogConfig { node: import_node(1), ..PacketLogConfig::default() }, true);
    store.record_segments().await.unwrap();
    // And one of a killed import, that nobody told the catalog of.
    log(&store, PacketLogConfig { node: import_node(2), ..PacketLogConfig::default() }, true);
    for import in [1, 2] {
        store.retire_import(import, NOW).await.unwrap();
    }
    assert_eq!(packets(&store).await, 20);
    store.record_segments().await.unwrap();
}
