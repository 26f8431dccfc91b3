//! Rings on real interfaces, in a network namespace of their own; wants root and iproute2.
#![allow(clippy::unwrap_used, reason = "a ring that breaks off fails its test")]

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use wiretag_capture::Direction;
use wiretag_capture::ring::{Fanout, Ring, RingConfig, in_namespace};

/// A network namespace with nothing but loopback, removed when dropped.
struct Namespace {
    name: String,
}

impl Namespace {
    /// `None` where it cannot be made: outside CI the test says that it is skipped, in CI it fails.
    fn new(purpose: &str) -> Option<Self> {
        let namespace = Self { name: format!("wtring-{purpose}-{}", std::process::id()) };
        let made = ip(&["netns", "add", &namespace.name]) && ip(&["-n", &namespace.name, "link", "set", "lo", "up"]);
        let in_ci = std::env::vars_os().any(|(name, value)| name == "CI" && value == "true");
        assert!(made || !in_ci, "CI must have root and iproute2");
        if !made {
            eprintln!("skipped: no root, or no iproute2");
        }
        made.then_some(namespace)
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).output().is_ok_and(|output| output.status.success())
}

/// Index of loopback in every namespace.
const LOOPBACK: u32 = 1;

const SMALL: RingConfig = RingConfig { mib: 4, snap_len: 65_535, fanout: None };

/// Wire length and direction of every packet that comes while `talk` goes on.
fn heard(mut ring: Ring, talk: impl FnOnce()) -> Vec<(u32, Option<Direction>)> {
    talk();
    let mut packets = Vec::new();
    ring.drain(&mut |burst| packets.extend(burst.iter().map(|packet| (packet.wire_len, packet.direction)))).unwrap();
    packets
}

/// A connection over loopback, and a datagram of 20 bytes.
fn talk_to_oneself() {
    let listener = TcpListener::bind("127.0.0.1:5555").unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = [0; 50];
        stream.read_exact(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    });
    let mut client = TcpStream::connect("127.0.0.1:5555").unwrap();
    client.write_all(&[1; 50]).unwrap();
    client.read_exact(&mut [0; 50]).unwrap();
    server.join().unwrap();
    let (sender, receiver) = (UdpSocket::bind("127.0.0.1:6000").unwrap(), UdpSocket::bind("127.0.0.1:7000").unwrap());
    sender.send_to(&[2; 20], receiver.local_addr().unwrap()).unwrap();
}

#[test]
fn a_packet_over_loopback_is_heard_once() {
    let Some(namespace) = Namespace::new("once") else { return };
    let packets = in_namespace(&namespace.path(), || heard(Ring::open(&SMALL, &[LOOPBACK]).unwrap(), talk_to_oneself));
    let packets = packets.unwrap();
    assert!(packets.iter().all(|(_, direction)| *direction == Some(Direction::Ingress)), "{packets:?}");
    // 14 bytes of Ethernet, 20 of IPv4, 8 of UDP.
    assert_eq!(packets.iter().filter(|(length, _)| *length == 14 + 28 + 20).count(), 1, "{packets:?}");
    // 50 bytes each way, with timestamps.
    assert_eq!(packets.iter().filter(|(length, _)| *length == 14 + 20 + 32 + 50).count(), 2, "{packets:?}");
}

/// An interface is gone, or down, before the kernel has handed over the block with its last packets.
#[test]
fn what_an_interface_carried_until_it_is_let_go_is_heard() {
    let Some(namespace) = Namespace::new("last") else { return };
    let packets = in_namespace(&namespace.path(), || {
        let mut ring = Ring::open(&SMALL, &[LOOPBACK]).unwrap();
        talk_to_oneself();
        ring.set_interfaces(&[]).unwrap();
        heard(ring, talk_to_oneself)
    });
    assert_eq!(packets.unwrap().iter().filter(|(length, _)| *length == 14 + 28 + 20).count(), 1);
}

/// Also where two programs capture in one network namespace, whatever numbers their processes have.
#[test]
fn rings_that_were_not_opened_for_one_group_hear_everything_each() {
    let Some(namespace) = Namespace::new("groups") else { return };
    let heard = in_namespace(&namespace.path(), || {
        let shared = RingConfig { fanout: Some(Fanout::New), ..SMALL };
        let rings = [(); 2].map(|()| Ring::open(&shared, &[LOOPBACK]).unwrap());
        for port in 0..64 {
            UdpSocket::bind(("127.0.0.1", 20_000 + port)).unwrap().send_to(&[2; 20], "127.0.0.1:7000").unwrap();
        }
        rings.map(|ring| heard(ring, || {}).iter().filter(|(length, _)| *length == 62).count())
    });
    assert_eq!(heard.unwrap(), [64, 64]);
}

/// A thread that does not run for a while loses nothing of few packets: their memory is there.
#[test]
fn a_ring_that_nobody_reads_for_a_second_holds_few_packets() {
    let Some(namespace) = Namespace::new("stall") else { return };
    let (heard, drops) = in_namespace(&namespace.path(), || {
        let mut ring = Ring::open(&SMALL, &[LOOPBACK]).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:6000").unwrap();
        for _ in 0..150 {
            sender.send_to(&[2; 20], "127.0.0.1:7000").unwrap();
            std::thread::park_timeout(Duration::from_millis(10));
        }
        let mut packets = 0;
        ring.drain(&mut |burst| packets += burst.iter().filter(|packet| packet.wire_len == 62).count()).unwrap();
        (packets, ring.drops().unwrap())
    })
    .unwrap();
    assert_eq!((heard, drops), (150, 0));
}

/// Few packets do not wait until a block is full.
#[test]
fn a_packet_is_read_within_a_fraction_of_a_second() {
    let Some(namespace) = Namespace::new("soon") else { return };
    let packets = in_namespace(&namespace.path(), || {
        let mut ring = Ring::open(&SMALL, &[LOOPBACK]).unwrap();
        UdpSocket::bind("127.0.0.1:6000").unwrap().send_to(&[2; 20], "127.0.0.1:7000").unwrap();
        ring.poll(Duration::from_millis(500), None, &mut |_| {}).unwrap()
    });
    assert!(packets.unwrap() > 0);
}

/// The parts of a datagram reach one of the rings that share the traffic, each as it was on the wire.
#[test]
fn fragments_of_a_datagram_stay_together() {
    const DATAGRAMS: u16 = 64;
    let Some(namespace) = Namespace::new("parts") else { return };
    assert!(ip(&["-n", &namespace.name, "link", "set", "lo", "mtu", "1280"]));
    let heard = in_namespace(&namespace.path(), || {
        let open = |fanout| Ring::open(&RingConfig { fanout: Some(fanout), ..SMALL }, &[LOOPBACK]).unwrap();
        let first = open(Fanout::New);
        let second = open(Fanout::Group(first.group().unwrap()));
        let mut rings = [first, second];
        for port in 0..DATAGRAMS {
            let sender = UdpSocket::bind(("127.0.0.1", 20_000 + port)).unwrap();
            for length in [20, 3_000] {
                sender.send_to(&[3; 3_000][..length], "127.0.0.1:7000").unwrap();
            }
        }
        let mut heard = Vec::new();
        for (number, ring) in rings.iter_mut().enumerate() {
            ring.drain(&mut |burst| {
                let datagrams = burst.iter().filter(|packet| packet.data[23] == 17);
                heard.extend(datagrams.map(|packet| (packet.wire_len, packet.data[18..20].to_vec(), number)));
            })
            .unwrap();
        }
        heard
    });
    let (whole, parts): (Vec<_>, Vec<_>) = heard.unwrap().into_iter().partition(|(length, ..)| *length == 14 + 28 + 20);
    let rings: HashSet<usize> = whole.iter().map(|(.., ring)| *ring).collect();
    assert_eq!((whole.len(), rings.len()), (usize::from(DATAGRAMS), 2));
    let mut rings: HashMap<_, Vec<usize>> = HashMap::new();
    for (_, datagram, ring) in parts {
        rings.entry(datagram).or_default().push(ring);
    }
    assert_eq!(rings.len(), usize::from(DATAGRAMS));
    assert!(rings.values().all(|rings| *rings == [rings[0]; 3]), "{rings:?}");
}

/// Loopback, as a veth may, carries frames of an IP packet of 65,535 bytes.
#[test]
fn the_largest_frame_is_whole() {
    let Some(namespace) = Namespace::new("large") else { return };
    let lengths = in_namespace(&namespace.path(), || {
        let mut ring = Ring::open(&RingConfig { mib: 4, ..RingConfig::default() }, &[LOOPBACK]).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:6000").unwrap();
        sender.send_to(&vec![4; 65_507], "127.0.0.1:7000").unwrap();
        let mut lengths = Vec::new();
        ring.drain(&mut |burst| lengths.extend(burst.iter().map(|packet| (packet.wire_len, packet.data.len()))))
            .unwrap();
        lengths
    });
    assert!(lengths.unwrap().contains(&(65_549, 65_549)));
}

#[test]
fn more_than_a_thousand_interfaces_are_let_in_and_replaced() {
    let Some(namespace) = Namespace::new("many") else { return };
    let packets = in_namespace(&namespace.path(), || {
        // Twice as many would be too many for `net.core.optmem_max` as it was before Linux 6.8.
        let others: Vec<u32> = (1000..2200).collect();
        let mut ring = Ring::open(&SMALL, &others).unwrap();
        let with_loopback = [&others[..600], &[LOOPBACK], &others[600..]].concat();
        ring.set_interfaces(&with_loopback).unwrap();
        heard(ring, talk_to_oneself).len()
    });
    assert!(packets.unwrap() > 5);
}
