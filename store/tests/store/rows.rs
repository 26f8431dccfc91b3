//! Plain rows to start from.
#![allow(dead_code, reason = "each test target uses its own part")]

use std::sync::Arc;

use wiretag_capture::flow::CommunityId;
use wiretag_capture::record::{EndReason, FlowRecord, OrientedBy, Protocol, Side, Source};
use wiretag_capture::{Exchange, Transaction, Wrapping};
use wiretag_enrich::{EndTag, Identity, TaggedBy, TaggedFlow, TaggedTransaction};

/// When the rows begin: 2026-03-01, midnight.
pub(crate) const START: i64 = 1_772_323_200_000_000_000;

/// A TCP flow 10.0.0.1:40000 to 10.0.0.2:80 with this id, no names.
pub(crate) fn flow(flow_id: u64) -> TaggedFlow {
    let mut client = Side::new([10, 0, 0, 1].into(), Some(40_000));
    (client.packets, client.bytes) = (3, 300);
    let record = FlowRecord {
        flow_id,
        start: START,
        end: START + 1_000_000_000,
        end_reason: Some(EndReason::Fin),
        community_id: CommunityId::from_text("1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
        node: "node".into(),
        interface: "veth1".into(),
        interface_index: 1,
        oriented_by: OrientedBy::Syn,
        ..FlowRecord::new(Protocol::TCP, client, Side::new([10, 0, 0, 2].into(), Some(80)))
    };
    TaggedFlow { record, client: EndTag::NONE, server: EndTag::NONE }
}

/// `GET web.demo/` answered by 200, in the flow of [`flow`], with this number.
pub(crate) fn transaction(flow_id: u64, number: u32) -> TaggedTransaction {
    let exchange = Exchange {
        app: "http",
        start: START,
        end: START + 1_000_000_000,
        method: Some("GET".into()),
        host: Some("web.demo".into()),
        path: Some("/".into()),
        status: Some(200),
        grpc_status: None,
        query: None,
        qtype: None,
        rcode: None,
        answers: None,
        retries: None,
        latency_us: Some(1_500),
        request_bytes: Some(40),
        response_bytes: Some(4_000),
        complete: true,
    };
    let record = Transaction {
        flow_id,
        number,
        node: "node".into(),
        interface: "veth1".into(),
        interface_index: 1,
        source: Source::File,
        client_direction: None,
        observed_at: None,
        primary: true,
        protocol: Protocol::TCP,
        client_ip: [10, 0, 0, 1].into(),
        client_port: Some(40_000),
        server_ip: [10, 0, 0, 2].into(),
        server_port: Some(80),
        wrapping: Wrapping::default(),
        exchange,
    };
    TaggedTransaction { record, client: EndTag::NONE, server: EndTag::NONE }
}

/// Names an end.
pub(crate) fn name(end: &mut EndTag, pod: &str, labels: &[(&str, &str)]) {
    let labels = labels.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect();
    let identity = Identity { identity: "uid".into(), pod: Some(pod.into()), labels, ..Identity::default() };
    *end = EndTag { identity: Some(Arc::new(identity)), tagged_by: TaggedBy::Ip, translated: None };
}
