//! Columns as attributes.

use wiretag_capture::Value;

use super::generated::any_value::Value as Any;
use super::generated::{AnyValue, KeyValue, KeyValueList};
use crate::tagged::{AnyColumn, TaggedFlow, all_columns};

/// The attribute beside those of columns: `ipv4` or `ipv6`.
pub const NETWORK_TYPE: &str = "network.type";

/// Columns that OpenTelemetry's conventions have a name for.
pub const SEMANTIC: &[(&str, &str)] = &[
    ("protocol", "network.transport"),
    ("app", "network.protocol.name"),
    ("interface", "network.interface.name"),
    ("client_ip", "client.address"),
    ("client_port", "client.port"),
    ("server_ip", "server.address"),
    ("server_port", "server.port"),
    ("dns_query", "dns.question.name"),
    ("tls_version", "tls.protocol.version"),
    ("http_method", "http.request.method"),
    ("http_status", "http.response.status_code"),
    ("client_cluster", "client.k8s.cluster.name"),
    ("server_cluster", "server.k8s.cluster.name"),
    ("client_host", "client.host.name"),
    ("server_host", "server.host.name"),
    ("client_namespace", "client.k8s.namespace.name"),
    ("server_namespace", "server.k8s.namespace.name"),
    ("client_pod", "client.k8s.pod.name"),
    ("server_pod", "server.k8s.pod.name"),
    ("client_container", "client.container.name"),
    ("server_container", "server.container.name"),
    ("client_image", "client.container.image.name"),
    ("server_image", "server.container.image.name"),
    ("client_zone", "client.cloud.availability_zone"),
    ("server_zone", "server.cloud.availability_zone"),
];

/// The attribute that a column is.
pub fn name(column: &str) -> String {
    let semantic = SEMANTIC.iter().find(|(own, _)| *own == column);
    semantic.map_or_else(|| format!("wiretag.{column}"), |(_, name)| (*name).to_owned())
}

/// The attributes of a row.
pub(super) fn attributes(row: &TaggedFlow) -> Vec<KeyValue> {
    static NAMED: std::sync::LazyLock<Vec<(String, AnyColumn<wiretag_capture::FlowRecord>)>> =
        std::sync::LazyLock::new(|| all_columns().map(|column| (name(column.name()), column)).collect());
    let version = if row.record.client.ip.is_ipv6() { "ipv6" } else { "ipv4" };
    let mut attributes = vec![text(NETWORK_TYPE, version.to_owned())];
    attributes.extend(NAMED.iter().filter_map(|(name, column)| Some(pair(name, any(column.get(row))?))));
    attributes
}

pub(super) fn text(key: &str, value: String) -> KeyValue {
    pair(key, Any::StringValue(value))
}

fn pair(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

fn any(value: Value<'_>) -> Option<Any> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => Any::BoolValue(value),
        // The protocol has no unsigned numbers. (Flow ids, which use all bits, are a column of text.)
        Value::Number(number) => {
            i64::try_from(number).map_or_else(|_| Any::StringValue(number.to_string()), Any::IntValue)
        }
        Value::Time(time) => Any::IntValue(time),
        Value::Ip(ip) => Any::StringValue(ip.to_string()),
        Value::Mac(mac) => Any::StringValue(Value::mac_text(mac)),
        Value::Text(text) => Any::StringValue(text.into_owned()),
        Value::Map(pairs) => {
            let values = pairs.into_iter().map(|(key, value)| text(key, value.to_owned())).collect();
            Any::KvlistValue(KeyValueList { values })
        }
    })
}
