//! The frames that these tests make by hand, as an independent tool reads them.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a tool that is not there fails the test, or is said to be missing"
)]

use std::process::Command;

use wiretag_capture::pcapng::{self, InterfaceBlock};
use wiretag_capture::{LinkType, Packet};

use crate::hellos::{beginnings, google_hellos, sql_server, upgraded};
use crate::seldom::{seldom, tagged};
use crate::tunnels::others;
use crate::wire::*;
use crate::wrapped::{extended, mac_in_mac, macsec, nsh};

/// The values of fields in each frame of Ethernet, several of one field with commas between; `None` where there is no tshark.
fn tshark(frames: &[Vec<u8>], fields: &[&str]) -> Option<Vec<String>> {
    let packets: Vec<_> = frames.iter().map(|frame| (LinkType::ETHERNET, frame.clone())).collect();
    tshark_of(&packets, fields)
}

/// As [`tshark`], each packet of an interface of its own.
fn tshark_of(packets: &[(LinkType, Vec<u8>)], fields: &[&str]) -> Option<Vec<String>> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("frames.pcapng");
    let mut file = Vec::new();
    pcapng::section_header(&mut file, "test");
    for (link_type, _) in packets {
        let (description, link_type) = (None, *link_type);
        pcapng::interface_description(&mut file, &InterfaceBlock { name: "x", description, link_type, snap_len: 0 });
    }
    for ((link_type, data), number) in packets.iter().zip(0_u32..) {
        let (time, wire_len, link_type) = (i64::from(number) * 1000, data.len() as u32, *link_type);
        let packet = Packet { time, data, wire_len, link_type, interface: number, direction: None, vlan: None };
        pcapng::enhanced_packet(&mut file, number, &packet, None);
    }
    std::fs::write(&path, file).expect("written");
    let mut command = Command::new("tshark");
    command.arg("-r").arg(&path).args(["-n", "-T", "fields"]);
    for field in fields {
        command.args(["-e", field]);
    }
    match command.output() {
        Ok(output) => {
            let text = String::from_utf8(output.stdout).expect("text");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(text.lines().map(str::to_owned).collect())
        }
        Err(error) => {
            let ci = std::env::vars_os().any(|(key, value)| key == "CI" && value == "true");
            assert!(!ci, "no tshark: {error}");
            println!("not judged: no tshark");
            None
        }
    }
}

#[test]
fn wrapped_packets_are_what_they_are_meant_to_be() {
    let (packet, inner) = (hello(), frame(&hello()));
    let in_udp = |port, payload: &[u8]| frame(&ipv4(17, (LEFT, RIGHT), &udp(50_000, port, payload)));
    let mut frames = vec![
        ethernet(0x894f, &nsh(1, &[1; 16], &packet)),
        ethernet(0x894f, &nsh(3, &[], &inner)),
        in_udp(4790, &joined(&[&[0x0c, 0, 0, 4, 0, 0, 5, 0], &nsh(1, &[1; 16], &packet)])),
        mac_in_mac(&inner),
        in_udp(6635, &joined(&[&[0, 1, 0, 64, 0, 2, 1, 64], &packet])),
        macsec(0, &joined(&[&[8, 0], &packet])),
    ];
    // All but the last, FabricPath, which the tool takes for a frame with its check sequence.
    frames.extend(extended().into_iter().take(6));
    frames.extend(others().into_iter().map(|(protocol, payload, ..)| frame(&ipv4(protocol, (LEFT, RIGHT), &payload))));
    let Some(lines) = tshark(&frames, &["ip.dst", "udp.dstport", "udp.length"]) else { return };
    for (line, data) in lines.iter().zip(&frames) {
        // The innermost comes last.
        let seen: Vec<_> = line.split('\t').map(|values| values.rsplit(',').next().unwrap_or_default()).collect();
        assert_eq!(seen, ["10.0.0.2", "9", "18"], "{data:02x?}");
    }
    assert_eq!(lines.len(), frames.len());
    let sealed = tshark(&[macsec(0x2c, &packet)], &["frame.protocols"]).expect("it was there");
    assert_eq!(sealed, ["eth:ethertype:macsec:data"]);
}

#[test]
fn link_types_are_what_they_are_meant_to_be() {
    let packets = [seldom(), tagged()].concat();
    let Some(lines) = tshark_of(&packets, &["ip.dst", "udp.dstport", "udp.length"]) else { return };
    for (line, (link_type, data)) in lines.iter().zip(&packets) {
        assert_eq!(line, "10.0.0.2\t9\t18", "{link_type:?} {data:02x?}");
    }
    assert_eq!(lines.len(), packets.len());
}

#[test]
fn hellos_are_what_they_are_meant_to_be() {
    let datagrams: Vec<_> = google_hellos()
        .into_iter()
        .map(|(_, datagram)| frame(&ipv4(17, (ALICE, BOB), &udp(40_000, 443, &datagram))))
        .collect();
    let Some(lines) = tshark(&datagrams, &["gquic.version", "gquic.tag.sni"]) else { return };
    assert_eq!(lines, ["Q043\twww.example.org", "Q046\twww.example.org"]);
    let lines = tshark(&sql_server(1400), &["tls.handshake.extensions_server_name"]).expect("it was there");
    assert_eq!(lines.iter().filter(|line| !line.is_empty()).collect::<Vec<_>>(), ["db.example.org"]);
    for beginning in beginnings() {
        let frames = upgraded(&beginning, 1400);
        let lines = tshark(&frames, &["tls.handshake.extensions_server_name"]).expect("it was there");
        let names: Vec<_> = lines.iter().filter(|line| !line.is_empty()).collect();
        assert_eq!(names, ["db.example.org"], "port {}", beginning.1);
    }
}
