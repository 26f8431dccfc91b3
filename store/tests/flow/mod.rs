//! A plain flow to start from.

use std::sync::Arc;

use wiretag_capture::record::{EndReason, FlowRecord, OrientedBy, Protocol, Side, Source};
use wiretag_enrich::{EndTag, Identity, TaggedBy, TaggedFlow};

/// A TCP flow 10.0.0.1:40000 to 10.0.0.2:80 with this id, no names.
pub(crate) fn flow(flow_id: u64) -> TaggedFlow {
    let mut client = Side::new([10, 0, 0, 1].into(), Some(40_000));
    (client.packets, client.bytes) = (3, 300);
    let record = FlowRecord {
        flow_id,
        slice: 0,
        start: 1_772_323_200_000_000_000,
        end: 1_772_323_201_000_000_000,
        end_reason: EndReason::Fin,
        community_id: Some("1:abc=".into()),
        node: "node".into(),
        interface: "veth1".into(),
        interface_index: 1,
        source: Source::File,
        client_direction: None,
        observed_at: None,
        primary: true,
        oriented_by: OrientedBy::Syn,
        protocol: Protocol::TCP,
        client,
        server: Side::new([10, 0, 0, 2].into(), Some(80)),
        vlan: None,
        vlan_inner: None,
        dscp: None,
        tunnel: None,
        tcp_state: None,
        syn_retries: None,
        handshake_rtt_us: None,
        responses: None,
        app: None,
        dns: None,
        tls: None,
        http: None,
        icmp_error: None,
        packets_stored: None,
        retention: None,
    };
    TaggedFlow { record, client: EndTag::NONE, server: EndTag::NONE }
}

/// Names an end.
pub(crate) fn name(end: &mut EndTag, pod: &str, labels: &[(&str, &str)]) {
    let labels = labels.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect();
    let identity = Identity { identity: "uid".into(), pod: Some(pod.into()), labels, ..Identity::default() };
    *end = EndTag { identity: Some(Arc::new(identity)), tagged_by: TaggedBy::Ip };
}
