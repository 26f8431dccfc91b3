use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use wiretag_capture::record::{OrientedBy, Side};
use wiretag_capture::{EndReason, FlowRecord, Protocol, Source};

use super::generated::any_value::Value as Any;
use super::generated::{ExportLogsPartialSuccess, ExportLogsServiceRequest, KeyValue};
use super::*;
use crate::tagged::{EndTag, TaggedBy, all_columns};
use crate::{Identity, TaggedFlow};

fn row(number: u16) -> TaggedFlow {
    let mut client = Side::new([10, 0, 0, 1].into(), Some(40_000 + number));
    (client.bytes, client.packets) = (1 << 40, 3);
    let record = FlowRecord {
        flow_id: u64::MAX,
        start: 1_000,
        end: 2_000,
        end_reason: Some(EndReason::Active),
        node: "node".into(),
        interface: "veth".into(),
        interface_index: 1,
        source: Source::Ring,
        oriented_by: OrientedBy::Syn,
        ..FlowRecord::new(Protocol::TCP, client, Side::new([10, 0, 0, 2].into(), Some(443)))
    };
    let identity = Identity {
        identity: "uid-1".into(),
        pod: Some("shop-1".into()),
        labels: BTreeMap::from([("app".into(), "shop".into())]),
        ..Identity::default()
    };
    let client = EndTag { identity: Some(Arc::new(identity)), tagged_by: TaggedBy::Interface, translated: None };
    TaggedFlow { record, client, server: EndTag::NONE }
}

fn attribute<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Any> {
    let found = attributes.iter().find(|own| own.key == key)?;
    found.value.as_ref()?.value.as_ref()
}

fn string(text: &str) -> Any {
    Any::StringValue(text.to_owned())
}

#[test]
fn pieces_that_are_joined_are_a_request() {
    let rows: Vec<TaggedFlow> = (0..25).map(row).collect();
    let pieces = encode(&rows, 10, 3_000);
    assert_eq!(pieces.iter().map(|piece| piece.records).collect::<Vec<_>>(), [10, 10, 5]);
    let bytes: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.bytes).collect();
    let encoder = Encoder::new(&[("service.name", Some("wiretag")), ("k8s.cluster.name", None)], "1");
    let request = ExportLogsServiceRequest::decode(&*encoder.request(&bytes)).expect("a request");
    let [logs] = &*request.resource_logs else { panic!("{request:?}") };
    let resource = &logs.resource.as_ref().expect("a resource").attributes;
    assert_eq!((resource.len(), attribute(resource, "service.name")), (1, Some(&string("wiretag"))));
    let [scope] = &*logs.scope_logs else { panic!("{request:?}") };
    assert_eq!(scope.scope.as_ref().map(|scope| &*scope.name), Some("wiretag"));
    let ports = scope.log_records.iter().map(|record| attribute(&record.attributes, "client.port").cloned());
    let expected = (0..25).map(|number| Some(Any::IntValue(40_000 + number)));
    assert!(ports.eq(expected), "in their order");
    let first = scope.log_records.first().expect("a record");
    assert_eq!((first.time_unix_nano, first.observed_time_unix_nano, &*first.event_name), (2_000, 3_000, EVENT));
}

#[test]
fn attributes_are_the_columns_that_have_a_value() {
    let own = attributes::attributes(&row(0));
    for (key, expected) in [
        ("network.type", string("ipv4")),
        ("network.transport", string("tcp")),
        ("client.address", string("10.0.0.1")),
        ("client.k8s.pod.name", string("shop-1")),
        ("wiretag.client_bytes", Any::IntValue(1 << 40)),
        ("wiretag.primary", Any::BoolValue(true)),
        ("wiretag.end", Any::IntValue(2_000)),
    ] {
        assert_eq!(attribute(&own, key), Some(&expected), "{key}");
    }
    let labels = attribute(&own, "wiretag.client_labels");
    assert!(matches!(labels, Some(Any::KvlistValue(list)) if list.values == [attributes::text("app", "shop".into())]));
    for unseen in ["network.protocol.name", "server.k8s.pod.name", "wiretag.client_rtt_us"] {
        assert_eq!(attribute(&own, unseen), None, "{unseen}");
    }
}

#[test]
fn names_are_those_of_columns_and_none_is_there_twice() {
    let columns: Vec<&str> = all_columns::<FlowRecord>().map(crate::tagged::AnyColumn::name).collect();
    for (column, _) in SEMANTIC {
        assert!(columns.contains(column), "{column}");
    }
    let mut seen = HashSet::from([NETWORK_TYPE.to_owned()]);
    for column in columns {
        assert!(seen.insert(name(column)), "{column}");
    }
}

#[test]
fn what_was_refused_is_read() {
    let said = ExportLogsPartialSuccess { rejected_log_records: 3, error_message: "too old".into() };
    let answer = ExportLogsServiceResponse { partial_success: Some(said) };
    assert_eq!(partial(&answer.encode_to_vec()), Partial { rejected: 3, message: "too old".into() });
    let negative = ExportLogsPartialSuccess { rejected_log_records: -1, error_message: String::new() };
    let negative = ExportLogsServiceResponse { partial_success: Some(negative) };
    for nothing in [&negative.encode_to_vec()[..], b"", b"<html>", b"{}"] {
        assert_eq!(partial(nothing), Partial::default());
    }
}

/// The table of `docs/otlp.md` is what is written.
#[test]
fn the_documentation_has_the_attributes() {
    let lines: Vec<String> = SEMANTIC.iter().map(|(column, name)| format!("| {name} | {column} |\n")).collect();
    let table = lines.concat();
    let text = include_str!("../../../docs/otlp.md");
    assert!(text.contains(&table), "the table should be:\n{table}");
    assert!(text.contains(NETWORK_TYPE) && text.contains(EVENT));
}
