//! Rows to be tagged: a client and a server, each with a veth of its own, seen at both.
#![allow(dead_code, unreachable_pub, reason = "each test file uses some of it")]

use std::net::IpAddr;

use wiretag_capture::record::{OrientedBy, Side};
use wiretag_capture::{Direction, EndReason, Exchange, FlowRecord, Protocol, Source, Transaction, Wrapping};
use wiretag_enrich::tagger::{Tagger, TaggerConfig};

pub const SECOND: i64 = 1_000_000_000;
/// When the flow begins.
pub const BEGIN: i64 = 1_780_000_000 * SECOND;
pub const CLIENT: (IpAddr, u16) = (IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 40_000);
pub const SERVER: (IpAddr, u16) = (IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2)), 80);

/// Where packets are seen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Point {
    ClientVeth = 11,
    ServerVeth = 12,
    Bridge = 10,
}
pub use Point::{Bridge, ClientVeth, ServerVeth};

impl Point {
    /// Direction of the client's packets there.
    fn direction(self) -> Direction {
        match self {
            ClientVeth | Bridge => Direction::Ingress,
            ServerVeth => Direction::Egress,
        }
    }
}

/// The slice that began so many seconds after the flow.
pub fn record(at: Point, slice: u32, since: i64) -> FlowRecord {
    FlowRecord {
        flow_id: at as u64,
        slice,
        start: BEGIN + since * SECOND,
        end: BEGIN + (since + 60) * SECOND,
        end_reason: Some(EndReason::Active),
        node: "node".into(),
        interface: "veth".into(),
        interface_index: at as u32,
        source: Source::Ring,
        client_direction: Some(at.direction()),
        oriented_by: OrientedBy::Syn,
        ..FlowRecord::new(Protocol::TCP, Side::new(CLIENT.0, Some(CLIENT.1)), Side::new(SERVER.0, Some(SERVER.1)))
    }
}

/// The exchange that was over so many seconds after the flow began.
pub fn transaction(at: Point, number: u32, over: i64) -> Transaction {
    let exchange = Exchange {
        app: "http",
        start: BEGIN + over * SECOND - 1000,
        end: BEGIN + over * SECOND,
        method: Some("GET".into()),
        host: None,
        path: None,
        status: Some(200),
        grpc_status: None,
        query: None,
        qtype: None,
        rcode: None,
        answers: None,
        retries: None,
        latency_us: None,
        request_bytes: None,
        response_bytes: None,
        complete: true,
    };
    Transaction {
        flow_id: at as u64,
        number,
        node: "node".into(),
        interface: "veth".into(),
        interface_index: at as u32,
        source: Source::Ring,
        client_direction: Some(at.direction()),
        observed_at: None,
        primary: true,
        protocol: Protocol::TCP,
        client_ip: CLIENT.0,
        client_port: Some(CLIENT.1),
        server_ip: SERVER.0,
        server_port: Some(SERVER.1),
        wrapping: Wrapping::default(),
        exchange,
    }
}

pub fn tagger() -> Tagger {
    let mut tagger = Tagger::new(TaggerConfig { boot: "boot".into(), ..TaggerConfig::default() });
    for (point, container_side) in [(ClientVeth, true), (ServerVeth, true), (Bridge, false)] {
        tagger.set_link(0, point as u32, container_side);
    }
    tagger
}
