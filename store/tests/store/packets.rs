//! The packet log: only the blocks that are needed are read, failures to write are counted, exports are sorted and named.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashSet;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use wiretag_capture::file::CaptureFile;
use wiretag_capture::{LinkType, Packet, PacketBuffer};
use wiretag_store::export::write_pcap;
use wiretag_store::packets::{FOLDER, SegmentChanges, Wanted, index_path, list, read_flows, recover};
use wiretag_store::{Compression, FlowRef, PacketLog, PacketLogConfig, Selection, StoreError};

const START: i64 = 1_700_000_000_000_000_000;

fn log(dir: &Path, node: &str) -> PacketLog {
    let config = PacketLogConfig { node: node.into(), ..PacketLogConfig::default() };
    PacketLog::open(dir, config, SegmentChanges::default()).unwrap()
}

fn packet(time: i64, data: &[u8]) -> Packet<'_> {
    let (wire_len, link_type) = (data.len() as u32, LinkType::ETHERNET);
    Packet { time: START + time, data, wire_len, link_type, interface: 1, direction: None, vlan: None }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    list(dir).unwrap().iter().map(|path| dir.join(path)).collect()
}

#[test]
fn only_blocks_with_the_flow_in_the_time_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log(dir.path(), "a");
    for block in 0..10 {
        log.append("eth0", &packet(block, &[1; 60]), Some(block as u64 % 2)).unwrap();
        log.append("eth0", &packet(block, &[2; 60]), None).unwrap();
        log.flush().unwrap();
    }
    let range = (START + 2, START + 6);
    let stats = read_flows(&files(dir.path()), Wanted::Flows(&HashSet::from([0])), range, &mut |_, packet, flow| {
        assert_eq!((packet.data, flow), (&[1_u8; 60][..], Some(0)));
        Ok(())
    })
    .unwrap();
    assert_eq!((stats.packets, stats.blocks_read, stats.blocks_skipped), (2, 2, 8));
}

#[test]
fn a_log_that_cannot_write_counts_and_goes_on_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log(dir.path(), "a");
    std::fs::write(dir.path().join("packets"), "in the way").unwrap();
    log.append("eth0", &packet(1, &[1; 60]), Some(1)).unwrap();
    log.append("eth0", &packet(2, &[2; 60]), Some(1)).unwrap();
    assert!(log.flush().is_err());
    std::fs::remove_file(dir.path().join("packets")).unwrap();
    log.append("eth0", &packet(3, &[3; 60]), Some(1)).unwrap();
    log.seal().unwrap();
    let counters = log.counters();
    assert_eq!((counters.appended, counters.written, counters.lost, counters.errors), (3, 1, 2, 1));
    let mut found = Vec::new();
    read_flows(&files(dir.path()), Wanted::Flows(&HashSet::from([1])), (i64::MIN, i64::MAX), &mut |name, packet, _| {
        found.push((name.to_owned(), packet.time - START));
        Ok(())
    })
    .unwrap();
    assert_eq!(found, [("eth0".to_owned(), 3)]);
}

/// A disk that fills up in the middle of a segment costs the packets that could not be written; the segment is sealed as
/// soon as there is room, without a restart.
#[test]
fn a_full_disk_costs_packets_and_no_segment() {
    let dir = tempfile::tempdir().unwrap();
    let command = |program: &str, arguments: &[&str]| {
        std::process::Command::new(program).args(arguments).arg(dir.path()).output().unwrap().status.success()
    };
    if !command("mount", &["-t", "tmpfs", "-o", "size=2m", "tmpfs"]) {
        eprintln!("skipped: no right to mount");
        return;
    }
    let changes = SegmentChanges::default();
    let config = PacketLogConfig {
        block_bytes: 4_096,
        segment_bytes: 64 << 10,
        compression: Compression::Level(1),
        ..PacketLogConfig::default()
    };
    let mut log = PacketLog::open(dir.path(), config, changes.clone()).unwrap();
    let mut noise = 1_u64;
    let mut write = |log: &mut PacketLog, count: i64| {
        for time in 0..count {
            let mut data = [0; 1_000];
            for byte in &mut data {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (noise >> 56) as u8;
            }
            let _ = log.append("eth0", &packet(time, &data), Some(1));
        }
    };
    write(&mut log, 3_000);
    let full = log.counters();
    assert!(full.lost > 500 && full.written > 1_000, "{full:?}");
    let first = list(dir.path()).unwrap().remove(0);
    for path in [dir.path().join(&first), index_path(&dir.path().join(&first))] {
        std::fs::remove_file(path).unwrap();
    }
    write(&mut log, 20);
    let sealed = log.seal();
    let noted: Vec<bool> = changes.take().into_iter().map(|segment| segment.sealed).collect();
    let counters = log.counters();
    drop(log);
    assert!(command("umount", &["-l"]));
    sealed.unwrap();
    assert!(noted.iter().all(|sealed| *sealed), "{noted:?}");
    assert_eq!(counters.appended, counters.written + counters.lost);
    assert!(counters.written > full.written);
}

#[test]
fn an_export_is_sorted_across_segments_and_names_the_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (mut one, mut two) = (log(dir.path(), "a"), log(dir.path(), "b"));
    for time in 0..50 {
        let writer = if time % 2 == 0 { &mut one } else { &mut two };
        writer.append(if time % 2 == 0 { "veth-a" } else { "veth-b" }, &packet(time, &[7; 80]), Some(5)).unwrap();
        writer.append("veth-a", &packet(time, &[8; 80]), Some(6)).unwrap();
        if time % 7 == 0 {
            writer.flush().unwrap();
        }
    }
    one.seal().unwrap();
    two.flush().unwrap();
    let flow = |client: Option<&str>, server: Option<&str>| FlowRef {
        flow_id: 5,
        start: START,
        end: START + 50,
        client_name: client.map(Into::into),
        server_name: server.map(Into::into),
    };
    let mut out = Vec::new();
    let named = vec![flow(Some("cart-1"), None)];
    let all = Selection::All(named.clone());
    assert_eq!(write_pcap(&files(dir.path()), &all, (START, START + 40), &mut out).unwrap().packets, 80);
    assert_eq!(String::from_utf8_lossy(&out).matches("client=cart-1").count(), 40, "the other flow has no name");
    out.clear();
    let stats = write_pcap(&files(dir.path()), &Selection::Flows(named), (START, START + 40), &mut out).unwrap();
    assert_eq!(stats.complete().unwrap(), 40);
    let text = String::from_utf8_lossy(&out);
    assert_eq!(text.matches("client=cart-1").count(), 40);
    assert!(!text.contains("server="), "an unknown name is left out");
    let mut capture = CaptureFile::new(Box::new(Cursor::new(out)), "export").unwrap();
    let mut times = Vec::new();
    while let Some(packet) = capture.next_packet().unwrap() {
        assert_eq!(packet.data, [7; 80]);
        times.push(packet.time - START);
    }
    assert_eq!(times, (0..40).collect::<Vec<_>>());
    let names: Vec<_> = capture.interfaces().iter().map(|interface| interface.name.clone()).collect();
    assert_eq!(names, [Some("veth-a".to_owned()), Some("veth-b".to_owned())]);
}

/// As for somebody who may see some of the slices only.
#[test]
fn an_export_of_slices_has_no_packet_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log(dir.path(), "a");
    for time in 0..50 {
        log.append("eth0", &packet(time, &[5; 60]), Some(5)).unwrap();
        log.append("eth0", &packet(time, &[6; 60]), Some(6)).unwrap();
        if time % 7 == 0 {
            log.flush().unwrap();
        }
    }
    log.seal().unwrap();
    let slice = |flow_id: u64, start: i64, end: i64| FlowRef {
        flow_id,
        start: START + start,
        end: START + end,
        client_name: None,
        server_name: None,
    };
    // Newest first, as rows are found; two meet, and one is in another.
    let slices = vec![slice(5, 30, 39), slice(5, 9, 12), slice(5, 3, 9), slice(5, 4, 5), slice(6, 20, 20)];
    let mut out = Vec::new();
    write_pcap(&files(dir.path()), &Selection::Slices(slices), (START, START + 35), &mut out).unwrap();
    let mut capture = CaptureFile::new(Box::new(Cursor::new(out)), "export").unwrap();
    let mut found = Vec::new();
    while let Some(packet) = capture.next_packet().unwrap() {
        found.push((packet.data[0], packet.time - START));
    }
    let wanted = (3..=12).map(|time| (5, time)).chain([(6, 20)]).chain((30..35).map(|time| (5, time)));
    assert_eq!(found, wanted.collect::<Vec<_>>());
}

/// One of the segment costs its block. One of the index costs none: what it does not speak of has a file of its own.
#[test]
fn a_torn_byte_costs_one_block_and_no_more() {
    for index in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), "a");
        for time in 0..10 {
            log.append("eth0", &packet(time, &[1; 60]), Some(1)).unwrap();
            log.append(&format!("veth{time}"), &packet(time, &[2; 60]), Some(1)).unwrap();
            log.flush().unwrap();
        }
        drop(log);
        let path = list(dir.path()).unwrap().remove(0);
        let torn = if index { index_path(&dir.path().join(&path)) } else { dir.path().join(&path) };
        let length = torn.metadata().unwrap().len();
        std::fs::OpenOptions::new().write(true).open(&torn).unwrap().set_len(length - 1).unwrap();
        let recovered = recover(dir.path(), &path).unwrap();
        assert!(recovered.cut > 0);
        let mut aside = recovered.set_aside.iter().flat_map(|path| capture(path));
        assert_eq!(aside.next().map(|(name, time)| (name, time - START)), index.then(|| ("eth0".to_owned(), 9)));
        assert_eq!(aside.next().map(|(name, time)| (name, time - START)), index.then(|| ("veth9".to_owned(), 9)));
        assert_eq!(recovered.segment.map(|segment| (segment.packets, segment.end)), Some((18, START + 8)));
        let mut names = Vec::new();
        read_flows(&files(dir.path()), Wanted::Flows(&HashSet::from([1])), (START + 8, i64::MAX), &mut |name, _, _| {
            names.push(name.to_owned());
            Ok(())
        })
        .unwrap();
        assert_eq!(names, ["eth0", "veth8"], "interfaces of earlier blocks keep their names");
    }
}

/// Interface and time of the packets of a capture file.
fn capture(path: &Path) -> Vec<(String, i64)> {
    let file = std::fs::File::open(path).unwrap();
    let file = zstd::stream::Decoder::new(file).unwrap();
    let mut capture = CaptureFile::new(Box::new(file), &path.to_string_lossy()).unwrap();
    let mut found = Vec::new();
    while let Some((interface, time)) = capture.next_packet().unwrap().map(|packet| (packet.interface, packet.time)) {
        let name = capture.interfaces().get(interface as usize).and_then(|known| known.name.clone());
        found.push((name.unwrap(), time));
    }
    found
}

/// Six blocks of a packet each, sealed or not.
fn six_blocks(dir: &Path, sealed: bool) -> PathBuf {
    let mut log = log(dir, "a");
    for time in 0..6 {
        log.append("eth0", &packet(time, &noise(time as u64, 900)), Some(1)).unwrap();
        log.flush().unwrap();
    }
    if sealed {
        log.seal().unwrap();
    }
    files(dir).remove(0)
}

fn spoil(file: &Path, at: impl Fn(usize) -> usize) {
    let mut bytes = std::fs::read(file).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 0xff;
    std::fs::write(file, bytes).unwrap();
}

/// What is damaged costs no other packet, and is never silent.
#[test]
fn damage_costs_its_own_packets_and_is_said() {
    let everything = (i64::MIN, i64::MAX);
    let read = |dir: &Path| {
        let mut times = Vec::new();
        let stats = read_flows(&files(dir), Wanted::All, everything, &mut |_, packet, _| {
            times.push(packet.time - START);
            Ok(())
        });
        (times, stats.unwrap())
    };
    let dir = tempfile::tempdir().unwrap();
    let segment = six_blocks(dir.path(), true);
    let (times, stats) = read(dir.path());
    assert_eq!((times.len(), stats.blocks_damaged, stats.indexes_damaged, stats.first_damaged), (6, 0, 0, None));
    // About the middle of the frames: one block.
    spoil(&segment, |length| length / 2);
    let (times, stats) = read(dir.path());
    assert_eq!((times.len(), stats.blocks_damaged, stats.indexes_damaged), (5, 1, 0), "{times:?}");
    let mut out = Vec::new();
    let written = write_pcap(&files(dir.path()), &Selection::All(Vec::new()), everything, &mut out).unwrap();
    let error = written.complete().unwrap_err();
    assert!(matches!(error, StoreError::PacketsDamaged { packets: 5, blocks: 1, indexes: 0, .. }), "{error}");
    let mut written = CaptureFile::new(Box::new(Cursor::new(out)), "export").unwrap();
    let mut count = 0;
    while written.next_packet().unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 5, "what can be read is there");

    // A record in the middle of the index: what follows is not known, and the first of it, too.
    for length in [None, Some(8), Some(0)] {
        let dir = tempfile::tempdir().unwrap();
        let index = index_path(&six_blocks(dir.path(), true));
        match length {
            None => spoil(&index, |length| length / 2),
            Some(length) => std::fs::OpenOptions::new().write(true).open(&index).unwrap().set_len(length).unwrap(),
        }
        let (times, stats) = read(dir.path());
        assert!(times.len() < 6 && times.iter().copied().eq(0..times.len() as i64), "{times:?}");
        assert_eq!((times.is_empty(), stats.indexes_damaged), (length.is_some(), 1));
        assert!(stats.first_damaged.is_some());
    }

    // Of a segment that is being written the index may end anywhere.
    let dir = tempfile::tempdir().unwrap();
    let index = index_path(&six_blocks(dir.path(), false));
    let length = index.metadata().unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&index).unwrap().set_len(length - 3).unwrap();
    let (times, stats) = read(dir.path());
    assert_eq!((times.len(), stats.indexes_damaged, stats.first_damaged), (5, 0, None));
}

#[test]
fn a_new_log_never_writes_into_an_old_segment() {
    let dir = tempfile::tempdir().unwrap();
    for time in 0..3 {
        let mut log = log(dir.path(), "a");
        log.append("eth0", &packet(time, &[1; 60]), Some(1)).unwrap();
        log.seal().unwrap();
    }
    assert_eq!(list(dir.path()).unwrap().len(), 3);
    assert!(list(dir.path()).unwrap().iter().all(|path| path.starts_with(&format!("{FOLDER}/date=2023-11-14/"))));
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Time, data and interface of packets, one of them much like the other.
fn traffic(count: i64) -> Vec<(i64, Vec<u8>, u32)> {
    let data = |time: i64| if time % 2 == 0 { noise(time as u64, 900) } else { vec![time as u8; 300] };
    (0..count).map(|time| (time, data(time), (time % 3) as u32)).collect()
}

/// Full buffers become blocks as they are, small ones are collected: either way what comes out is what went in, whatever
/// number an interface had in its buffer.
#[test]
fn buffers_of_every_size_are_kept_whole() {
    let names = ["eth0", "veth1", "veth2"];
    for (compression, packets) in [(Compression::None, 7), (Compression::None, 90), (Compression::default(), 90)] {
        let dir = tempfile::tempdir().unwrap();
        let (block_bytes, segment_bytes) = (64 << 10, 1 << 20);
        let config = PacketLogConfig { block_bytes, segment_bytes, compression, ..PacketLogConfig::default() };
        let mut log = PacketLog::open(dir.path(), config, SegmentChanges::default()).unwrap();
        let traffic = traffic(5_000);
        let mut buffer = PacketBuffer::default();
        for batch in traffic.chunks(packets) {
            for (time, data, interface) in batch {
                buffer.push(&Packet { interface: *interface, ..packet(*time, data) }, Some(*time as u64 % 40));
            }
            log.append_buffer(&mut buffer, &|index| names[index as usize]).unwrap();
            assert!(buffer.is_empty());
        }
        // Packets of both kinds of callers go together.
        log.append("eth0", &packet(5_000, &[1; 60]), Some(0)).unwrap();
        log.seal().unwrap();
        let counters = log.counters();
        assert_eq!((counters.appended, counters.written, counters.lost), (5_001, 5_001, 0));
        assert!(counters.segments >= 3, "{counters:?}");
        let mut expected =
            traffic.iter().map(|(time, data, interface)| (*time, data.clone(), names[*interface as usize]));
        let stats =
            read_flows(&files(dir.path()), Wanted::All, (i64::MIN, START + 5_000), &mut |name, packet, flow| {
                let (time, data, interface) = expected.next().unwrap();
                assert_eq!((packet.time - START, packet.data, name), (time, &data[..], interface));
                assert_eq!(flow, Some(time as u64 % 40));
                Ok(())
            });
        assert_eq!(stats.unwrap().packets, 5_000);
        for path in list(dir.path()).unwrap() {
            let recovered = recover(dir.path(), &path).unwrap();
            assert!(recovered.cut == 0 && recovered.segment.is_some_and(|segment| segment.packets > 0));
        }
    }
}

/// A segment is a file that others read as it is, compressed or not. tshark gets it through `zstd -dc`: Wireshark 4.0 stops
/// in any zstd file, also of zstd's own making, where the second frame begins far behind the first.
#[test]
fn zstd_and_tshark_read_a_segment() {
    let has = |program: &str| std::process::Command::new(program).arg("--version").output().is_ok();
    let in_ci = std::env::vars_os().any(|(name, value)| name == "CI" && value == "true");
    if !has("zstd") || !has("tshark") {
        assert!(!in_ci, "CI must have zstd and tshark");
        eprintln!("skipped: zstd or tshark is not installed");
        return;
    }
    for compression in [Compression::None, Compression::default()] {
        let dir = tempfile::tempdir().unwrap();
        let config = PacketLogConfig { compression, ..PacketLogConfig::default() };
        let mut log = PacketLog::open(dir.path(), config, SegmentChanges::default()).unwrap();
        for (time, data, _) in traffic(3_000) {
            log.append("eth0", &packet(time * 1_000_000, &data), None).unwrap();
        }
        log.seal().unwrap();
        let file = files(dir.path()).remove(0);
        let whole = zstd::stream::decode_all(std::fs::File::open(&file).unwrap()).unwrap();
        let zstd = std::process::Command::new("zstd").arg("-dc").arg(&file).output().unwrap();
        assert!(zstd.status.success() && zstd.stdout == whole, "{}", String::from_utf8_lossy(&zstd.stderr));
        let plain = dir.path().join("plain.pcapng");
        std::fs::write(&plain, &zstd.stdout).unwrap();
        let mut tshark = std::process::Command::new("tshark");
        let tshark = tshark.arg("-r").arg(&plain).args(["-T", "fields", "-e", "frame.len"]).output().unwrap();
        assert!(tshark.status.success(), "{}", String::from_utf8_lossy(&tshark.stderr));
        let lengths = String::from_utf8_lossy(&tshark.stdout);
        let lengths: Vec<usize> = lengths.lines().filter_map(|line| line.parse().ok()).collect();
        let sent: Vec<usize> = traffic(3_000).iter().map(|(_, data, _)| data.len()).collect();
        assert_eq!(lengths, sent);
    }
}
