//! Seeds: packets of the corpus.

use std::path::Path;

use wiretag_capture::decode::{Decoded, Transport, decode};
use wiretag_capture::file::CaptureFile;
use wiretag_capture::{LinkType, OwnedPacket, Packet};

/// Packets taken from the front of each capture.
const PACKETS_OF_A_CAPTURE: usize = 48;

/// Packets of captures, by capture; empty where there is no corpus.
pub(crate) struct Corpus {
    pub(crate) captures: Vec<Vec<OwnedPacket>>,
}

impl Corpus {
    pub(crate) fn load() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus/pcaps");
        let Ok(entries) = std::fs::read_dir(&folder) else {
            let ci = std::env::vars_os().any(|(key, value)| key == "CI" && value == "true");
            assert!(!ci, "no corpus at {}", folder.display());
            println!("hand-made seeds only: no corpus at {}", folder.display());
            return Self { captures: Vec::new() };
        };
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let captures = paths.iter().filter_map(|path| CaptureFile::open(path).ok()).map(packets).collect();
        Self { captures }
    }

    /// Payloads that `wanted` chooses, with the end that sent them: 1 if its port is the lower one.
    pub(crate) fn payloads(&self, wanted: fn(&Decoded<'_>, &[u8]) -> bool) -> Vec<(usize, Vec<u8>)> {
        let mut found = Vec::new();
        for packet in self.captures.iter().flatten() {
            let Ok(decoded) = decode(&packet.view()) else { continue };
            let (Transport::Tcp(wiretag_capture::decode::Tcp { payload, .. }) | Transport::Udp { payload, .. }) =
                decoded.transport
            else {
                continue;
            };
            if wanted(&decoded, payload) {
                found.push((usize::from(decoded.src_port < decoded.dst_port), payload.to_vec()));
            }
        }
        found
    }
}

fn packets(mut file: CaptureFile) -> Vec<OwnedPacket> {
    let mut packets = Vec::new();
    while packets.len() < PACKETS_OF_A_CAPTURE {
        let Ok(Some(packet)) = file.next_packet() else { break };
        let Packet { time, data, wire_len, link_type, interface, direction, vlan } = packet;
        packets.push(OwnedPacket { time, data: data.into(), wire_len, link_type, interface, direction, vlan });
    }
    packets
}

/// An Ethernet frame with IPv4 and UDP around `payload`.
pub(crate) fn udp_frame(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    frame(
        17,
        &[&ports.0.to_be_bytes()[..], &ports.1.to_be_bytes(), &length(8 + payload.len()), &[0; 2]].concat(),
        payload,
    )
}

/// An Ethernet frame with IPv4 and TCP around `payload`.
pub(crate) fn tcp_frame(ports: (u16, u16), (seq, flags): (u32, u8), payload: &[u8]) -> Vec<u8> {
    let header = [
        &ports.0.to_be_bytes()[..],
        &ports.1.to_be_bytes(),
        &seq.to_be_bytes(),
        &[0, 0, 0, 1, 0x50, flags, 4, 0, 0, 0, 0, 0],
    ];
    frame(6, &header.concat(), payload)
}

/// Which address is the source follows from the order of ports, so that both directions make one flow.
fn frame(protocol: u8, header: &[u8], payload: &[u8]) -> Vec<u8> {
    let (mut src, mut dst) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    if header[..2] < header[2..4] {
        std::mem::swap(&mut src, &mut dst);
    }
    let total = length(20 + header.len() + payload.len());
    let ip = [&[0x45, 0][..], &total, &[0, 0, 0x40, 0, 64, protocol, 0, 0], &src, &dst].concat();
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0][..], &ip, header, payload].concat()
}

fn length(length: usize) -> [u8; 2] {
    (length as u16).to_be_bytes()
}

/// Number of a link type, before its bytes: how targets take a packet.
pub(crate) fn with_link_type(link_type: LinkType, data: &[u8]) -> Vec<u8> {
    [&link_type.0.to_be_bytes(), data].concat()
}
