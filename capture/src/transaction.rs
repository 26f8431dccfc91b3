//! Transactions: one row for each DNS and HTTP exchange, next to the flow record of the connection that carried it.
//!
//! A transaction is a plain value; its columns, with names, kinds and documentation, are in [`columns`]. Names and kinds are
//! those of the flow record where both have the column, so that one query language serves both.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use crate::columns::{Column, column};
use crate::record::{Direction, ObservedAt, Protocol, Source};
use crate::tunnel::Wrapping;
use crate::values::{Kind, Value, Values};

/// What was asked and answered. `None` means not seen, never zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Application protocol.
    pub app: &'static str,
    /// First packet of the request (of the response where that is all that was seen), ns since the epoch.
    pub start: i64,
    /// Last packet that belonged to the exchange, ns since the epoch.
    pub end: i64,
    /// HTTP method.
    pub method: Option<Arc<str>>,
    /// HTTP host or authority.
    pub host: Option<Arc<str>>,
    /// HTTP target as on the wire, but without name and password; for gRPC `/package.Service/Method`.
    pub path: Option<Arc<str>>,
    /// HTTP status of the final response.
    pub status: Option<u16>,
    /// Status of a gRPC call, from the trailers.
    pub grpc_status: Option<u16>,
    /// DNS name of the first question.
    pub query: Option<Arc<str>>,
    /// DNS type of the first question.
    pub qtype: Option<Cow<'static, str>>,
    /// DNS response code.
    pub rcode: Option<Cow<'static, str>>,
    /// DNS answer records.
    pub answers: Option<u64>,
    /// Repetitions of the DNS query.
    pub retries: Option<u64>,
    /// Last byte of the request (last repetition of the query) to first byte of the response, µs.
    pub latency_us: Option<u64>,
    /// Bytes of the request; not known if its head was not captured whole, or whole frames (HTTP/2) may be missing or come after
    /// its answer.
    pub request_bytes: Option<u64>,
    /// Bytes of the response; not known if its head was not captured whole, or whole frames (HTTP/2) may be missing.
    pub response_bytes: Option<u64>,
    /// Whether a (final) response was seen that was not cut off.
    pub complete: bool,
}

impl Exchange {
    /// An exchange of which nothing is known but when it began.
    pub(crate) fn new(app: &'static str, start: i64) -> Self {
        Self {
            app,
            start,
            end: start,
            method: None,
            host: None,
            path: None,
            status: None,
            grpc_status: None,
            query: None,
            qtype: None,
            rcode: None,
            answers: None,
            retries: None,
            latency_us: None,
            request_bytes: None,
            response_bytes: None,
            complete: false,
        }
    }
}

/// One row: see the module documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Id of the flow, as in its records.
    pub flow_id: u64,
    /// Number of the exchange in its flow, in the order in which they ended, from 0.
    pub number: u32,
    /// Node that captured.
    pub node: Arc<str>,
    /// Name of the interface.
    pub interface: Arc<str>,
    /// Interface number as in [`crate::Packet::interface`].
    pub interface_index: u32,
    /// Kind of source.
    pub source: Source,
    /// Direction of the packets of who asked on the interface, where the source knows it.
    pub client_direction: Option<Direction>,
    /// Filled by the tagger.
    pub observed_at: Option<ObservedAt>,
    /// Counts in totals; the tagger clears it for further observations of the same packets.
    pub primary: bool,
    /// IP protocol of the flow.
    pub protocol: Protocol,
    /// Who asked.
    pub client_ip: IpAddr,
    /// Port of who asked.
    pub client_port: Option<u16>,
    /// Who was asked.
    pub server_ip: IpAddr,
    /// Port of who was asked.
    pub server_port: Option<u16>,
    /// What the packets were in.
    pub wrapping: Wrapping,
    /// What was asked and answered.
    pub exchange: Exchange,
}

fn number(value: Option<impl Into<u64>>) -> Value<'static> {
    value.map_or(Value::Null, |number| Value::Number(number.into()))
}

fn text(value: Option<&str>) -> Value<'_> {
    value.map_or(Value::Null, |text| Value::Text(Cow::Borrowed(text)))
}

const COLUMNS: &[Column<Transaction>] = &[
    column!("flow_id", Text, "The flow that carried the exchange.", |t| {
        Value::Text(format!("{:016x}", t.flow_id).into())
    }),
    column!("exchange", Number, "Number of the exchange in its flow, in the order in which they ended, from 0.", |t| {
        Value::Number(t.number.into())
    }),
    column!("app", Word, "Application protocol: dns, mdns, llmnr, http, http2, grpc.", |t| {
        text(Some(t.exchange.app))
    }),
    column!("start", Time, "First packet of the request.", |t| Value::Time(t.exchange.start)),
    column!("end", Time, "Last packet of the exchange.", |t| Value::Time(t.exchange.end)),
    column!("node", Text, "Node that captured the packets.", |t| text(Some(&t.node))),
    column!("interface", Text, "Interface on which the packets were captured.", |t| text(Some(&t.interface))),
    column!("source", Word, "Kind of packet source: ring, file.", |t| text(Some(t.source.as_str()))),
    column!("observed_at", Word, "client or server: seen on that end's own interface; path: between.", |t| {
        text(t.observed_at.map(ObservedAt::as_str))
    }),
    column!("primary", Bool, "The one observation of this exchange that counts in totals.", |t| Value::Bool(t.primary)),
    column!("protocol", Word, "tcp, udp, or the IP protocol number.", |t| Value::Text(t.protocol.name())),
    column!("client_ip", Ip, "Who asked.", |t| Value::Ip(t.client_ip)),
    column!("client_port", Number, "Port of who asked.", |t| number(t.client_port)),
    column!("server_ip", Ip, "Who was asked.", |t| Value::Ip(t.server_ip)),
    column!("server_port", Number, "Port of who was asked.", |t| number(t.server_port)),
    column!("vlan", Number, "Outer VLAN id (802.1Q).", |t| number(t.wrapping.vlan)),
    column!("vlan_inner", Number, "Inner VLAN id (802.1ad).", |t| number(t.wrapping.vlan_inner)),
    column!("tunnel", Text, "Innermost tunnel around the flow.", |t| {
        text(t.wrapping.tunnel.map(|(kind, _)| kind.as_str()))
    }),
    column!("tunnel_id", Number, "VNI, VSID, key, session, call or TEID of that tunnel.", |t| {
        number(t.wrapping.tunnel.and_then(|(_, id)| id))
    }),
    column!("dns_query", Text, "Name in the first question.", |t| text(t.exchange.query.as_deref())),
    column!("dns_type", Word, "Type in the first question.", |t| text(t.exchange.qtype.as_deref())),
    column!("dns_rcode", Word, "Response code, with the upper bits of EDNS (RFC 6891).", |t| {
        text(t.exchange.rcode.as_deref())
    }),
    column!("dns_answers", Number, "Answer records in the response.", |t| number(t.exchange.answers)),
    column!("dns_retries", Number, "Repetitions of the query.", |t| number(t.exchange.retries)),
    column!("http_method", Word, "Method.", |t| text(t.exchange.method.as_deref())),
    column!("http_host", Text, "Host header, :authority, or authority of the target.", |t| {
        text(t.exchange.host.as_deref())
    }),
    column!("http_path", Text, "Target as on the wire, but without name and password.", |t| {
        text(t.exchange.path.as_deref())
    }),
    column!("http_status", Number, "Status of the final response.", |t| number(t.exchange.status)),
    column!("grpc_status", Number, "Status of a gRPC call, from the trailers.", |t| number(t.exchange.grpc_status)),
    column!("latency_us", Duration, "Last byte of the request to first byte of the final response.", |t| {
        number(t.exchange.latency_us)
    }),
    column!("request_bytes", Size, "Bytes of the request; none of one of HTTP/2 that goes on after its answer.", |t| {
        number(t.exchange.request_bytes)
    }),
    column!("response_bytes", Size, "Bytes of the response.", |t| number(t.exchange.response_bytes)),
    column!("complete", Bool, "Whether a final response was seen that was not cut off.", |t| {
        Value::Bool(t.exchange.complete)
    }),
];

/// Every column of a transaction, in the order of output.
pub fn columns() -> impl Iterator<Item = &'static Column<Transaction>> {
    COLUMNS.iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_mean_the_same_as_those_of_the_flow_record() {
        let mut seen = std::collections::HashSet::new();
        for column in columns() {
            assert!(seen.insert(column.name), "{} is declared twice", column.name);
            assert!(column.doc.ends_with('.'), "{} has no sentence", column.name);
            if let Some(flow) = crate::columns::columns().find(|flow| flow.name == column.name) {
                assert_eq!(flow.kind, column.kind, "{}", column.name);
            }
        }
    }
}
