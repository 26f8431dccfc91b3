//! The vocabulary of the flow record: each column's name, kind and documentation, and how to read it from a record.
//!
//! JSON, CSV, Parquet, the query language, `wiretag fields` and the UI are all made from this table (and the identity
//! columns that the next stage appends), so that a name cannot be spelt in two ways.

use std::borrow::Cow;

use crate::record::{Dns, FlowRecord, Http, Responses, Side, Source, Tls, Tunnel};
use crate::values::{Kind, Value, Values};

/// One column of a table: of the flow record, or of what `R` is a row of.
#[derive(Debug)]
pub struct Column<R = FlowRecord> {
    /// Name in every interface.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Definition, unit and source, one sentence.
    pub doc: &'static str,
    /// Reads it from a row.
    pub get: for<'a> fn(&'a R) -> Value<'a>,
    /// Reads it from rows: the same function, in a loop of its own.
    pub all: for<'a> fn(&[&'a R]) -> Values<'a>,
}

/// A column that is read by an expression.
macro_rules! column {
    ($name:expr, $kind:ident, $doc:expr, |$row:ident| $get:expr) => {
        Column {
            name: $name,
            kind: Kind::$kind,
            doc: $doc,
            get: |$row| $get,
            all: |rows| Values::of(Kind::$kind, rows.iter().copied().map(|$row| $get)),
        }
    };
}

pub(crate) use column;

/// Values that may be absent.
trait IntoValue<'a> {
    fn value(self) -> Value<'a>;
}

impl<'a, T: Into<u64>> IntoValue<'a> for Option<T> {
    fn value(self) -> Value<'a> {
        self.map_or(Value::Null, |number| Value::Number(number.into()))
    }
}

fn text(value: Option<&str>) -> Value<'_> {
    value.map_or(Value::Null, |text| Value::Text(Cow::Borrowed(text)))
}

fn word(value: &'static str) -> Value<'static> {
    Value::Text(Cow::Borrowed(value))
}

/// The letters of every combination of flags.
static FLAGS: std::sync::LazyLock<Vec<String>> = std::sync::LazyLock::new(|| {
    let letters = |flags: u8| {
        let set = "CEUAPRSF".chars().enumerate().filter(move |(bit, _)| flags & (0x80 >> bit) != 0);
        set.map(|(_, letter)| letter).collect()
    };
    (0..=u8::MAX).map(letters).collect()
});

/// Flags as letters in the order of the header, `CEUAPRSF`.
fn flag_letters(flags: Option<u8>) -> Value<'static> {
    text(flags.and_then(|flags| FLAGS.get(usize::from(flags))).map(String::as_str))
}

/// The flags that are shown with these letters.
pub fn flags_of(letters: &str) -> Option<u8> {
    let flags = FLAGS.iter().position(|own| own == letters)?;
    u8::try_from(flags).ok()
}

fn dns(record: &FlowRecord) -> Option<&Dns> {
    record.dns.as_deref()
}

fn tls(record: &FlowRecord) -> Option<&Tls> {
    record.tls.as_deref()
}

fn http(record: &FlowRecord) -> Option<&Http> {
    record.http.as_deref()
}

fn responses(record: &FlowRecord, get: fn(&Responses) -> u32) -> Value<'_> {
    record.responses.as_ref().map(get).value()
}

/// Exporters do not tell it.
fn payload(record: &FlowRecord, side: &Side) -> Value<'static> {
    match record.source {
        Source::Ring | Source::File => Value::Number(side.payload_bytes),
        Source::Netflow => Value::Null,
    }
}

fn tunnel(record: &FlowRecord) -> Option<&Tunnel> {
    record.tunnel.as_ref()
}

/// A pair of columns, `client_` and `server_`, read from the two sides.
macro_rules! sides {
    ($name:literal, $kind:ident, $doc:literal, |$side:ident| $get:expr) => {
        [
            column!(concat!("client_", $name), $kind, concat!($doc, " (client)."), |record| {
                let $side: &Side = &record.client;
                $get
            }),
            column!(concat!("server_", $name), $kind, concat!($doc, " (server)."), |record| {
                let $side: &Side = &record.server;
                $get
            }),
        ]
    };
}

/// A column whose figure is not computed yet: always null.
macro_rules! unseen {
    ($name:expr, $kind:ident, $doc:expr) => {
        column!($name, $kind, $doc, |_row| Value::Null)
    };
}

const RECORD: &[Column] = &[
    column!(
        "flow_id",
        Text,
        "Hash of observation point, flow key and start; the same for all slices of a flow.",
        |r| { Value::Text(r.flow_id_hex().into()) }
    ),
    column!("slice", Number, "Number of the slice in its flow, from 0.", |r| Value::Number(r.slice.into())),
    column!("start", Time, "First packet of the slice.", |r| Value::Time(r.start)),
    column!("end", Time, "Last packet of the slice.", |r| Value::Time(r.end)),
    column!(
        "end_reason",
        Word,
        "Why the slice ended: fin, rst, idle (a TCP connection or SCTP association that is silent for 300 s is over, or when another one has its ports; what comes later is a new flow, without the names of the connection's beginning), active (it has lasted for 60 s: the flow goes on in the next slice, or fell silent for longer than that), evicted, end_of_input (the capture file ended, or the interface is gone), shutdown, interrupted (the appliance was killed: the row is what was known a few seconds before), exported (an exporter did not say why); null while it is open and its figures grow.",
        |r| text(r.end_reason.map(crate::EndReason::as_str))
    ),
    column!("community_id", Text, "Community ID v1, seed 0.", |r| text(r.community_id.as_deref())),
    column!("node", Text, "Node that captured the packets; of flows that an exporter told, its address.", |r| text(
        Some(&r.node)
    )),
    column!(
        "interface",
        Text,
        "Interface on which the packets were captured; of flows that an exporter told, its name or number there.",
        |r| text(Some(&r.interface))
    ),
    column!(
        "source",
        Word,
        "Kind of source: ring, file, netflow (records of an exporter of NetFlow or IPFIX: no packets were seen).",
        |r| word(r.source.as_str())
    ),
    column!("observed_at", Word, "client or server: seen on that end's own interface; path: between.", |r| {
        text(r.observed_at.map(crate::ObservedAt::as_str))
    }),
    column!(
        "primary",
        Bool,
        "The one observation of these packets that counts in totals; false for packets that only carry those of other rows.",
        |r| Value::Bool(r.primary)
    ),
    column!(
        "oriented_by",
        Word,
        "What named the client: syn, synack, port, first_packet, exporter (it said who the initiator is).",
        |r| { word(r.oriented_by.as_str()) }
    ),
    column!("protocol", Word, "tcp, udp, icmp, icmp6, igmp, sctp, or the IP protocol number.", |r| {
        Value::Text(r.protocol.name())
    }),
];

const ADDRESSES: &[[Column; 2]] = &[
    sides!("ip", Ip, "Address in the innermost packet", |s| Value::Ip(s.ip)),
    sides!("port", Number, "Layer 4 port; for ICMP type and code as Community ID orders them", |s| s.port.value()),
    sides!("mac", Mac, "Link-layer address on the observed segment", |s| s.mac.map_or(Value::Null, Value::Mac)),
];

const NETWORK: &[Column] = &[
    column!("vlan", Number, "Outer VLAN id (802.1Q).", |r| r.vlan.value()),
    column!("vlan_inner", Number, "Inner VLAN id (802.1ad).", |r| r.vlan_inner.value()),
    column!("dscp", Number, "DSCP of the client's first packet (RFC 2474).", |r| r.dscp.value()),
    column!("tunnel", Text, "Tunnels around the flow, outermost first, joined by +.", |r| {
        tunnel(r).map_or(Value::Null, |t| Value::Text(t.stack.to_string().into()))
    }),
    column!(
        "tunnel_id",
        Number,
        "VNI, VSID, key, session, call or TEID of the innermost tunnel; the first packet's, if directions differ.",
        |r| tunnel(r).and_then(|t| t.id).value()
    ),
    column!("tunnel_src", Ip, "Outermost source address of the first packet.", |r| tunnel(r)
        .map_or(Value::Null, |t| Value::Ip(t.src))),
    column!("tunnel_dst", Ip, "Outermost destination address of the first packet.", |r| tunnel(r)
        .map_or(Value::Null, |t| Value::Ip(t.dst))),
];

const VOLUME: &[[Column; 2]] = &[
    sides!("packets", Number, "Packets sent", |s| Value::Number(s.packets)),
    sides!("bytes", Size, "IP bytes of the innermost packets sent (IPFIX octetDeltaCount)", |s| Value::Number(s.bytes)),
    [
        column!("client_payload_bytes", Size, "Layer 4 payload sent, TCP without repetitions (client).", |r| payload(
            r, &r.client
        )),
        column!("server_payload_bytes", Size, "Layer 4 payload sent, TCP without repetitions (server).", |r| payload(
            r, &r.server
        )),
    ],
    sides!(
        "packets_missed",
        Number,
        "Segments that never arrived at the capture point although the other side acknowledged them: each gap over the usual segment size, rounded up; null if one direction was not seen",
        |s| s.packets_missed.value()
    ),
];

const TCP: &[Column] = &[
    column!("tcp_state", Word, "Zeek's conn_state: S0 S1 SF REJ S2 S3 RSTO RSTR RSTOS0 RSTRH SH SHR OTH.", |r| {
        text(r.tcp_state.map(crate::TcpState::as_str))
    }),
    column!("syn_retries", Number, "SYNs after the first with the same sequence number.", |r| r.syn_retries.value()),
];

const TCP_SIDES: &[[Column; 2]] = &[
    sides!("tcp_flags", Text, "TCP flags seen, letters in header order CEUAPRSF", |s| flag_letters(s.tcp_flags)),
    sides!(
        "retransmits",
        Number,
        "Segments whose sequence space was seen before in this direction; keep-alives and copies by the capture are none; with segmentation offload frames are counted",
        |s| s.retransmits.value()
    ),
    sides!("retransmit_bytes", Size, "Payload bytes in repeated sequence space", |s| s.retransmit_bytes.value()),
    sides!(
        "fast_retransmits",
        Number,
        "Retransmissions less than 200 ms after the last segment of their direction, when something behind them was selectively acknowledged (RFC 6675, RFC 8985), or within 200 ms of three duplicate acknowledgements (RFC 5681), or within 20 ms of two; kinds need not add up to all",
        |s| s.fast_retransmits.value()
    ),
    sides!(
        "timeout_retransmits",
        Number,
        "Retransmissions after a silence of their direction of at least 200 ms: sent by a timer, a retransmission timeout (RFC 6298) or a tail loss probe (RFC 8985)",
        |s| s.timeout_retransmits.value()
    ),
    sides!(
        "spurious_retransmits",
        Number,
        "Retransmissions of what had been acknowledged when they passed (as Wireshark), or of which D-SACKs say that all was received twice (RFC 2883)",
        |s| s.spurious_retransmits.value()
    ),
    sides!(
        "keep_alives",
        Number,
        "Keep-alives (RFC 9293, 3.8.4), one old byte or none before the next number: no retransmissions",
        |s| s.keep_alives.value()
    ),
    sides!(
        "capture_duplicates",
        Number,
        "TCP, UDP and ICMP packets that the capture delivered again, with the same IPv4 identification (without one: from another place, or at once) and contents within 5 ms: no retransmissions, no repeated questions, but counted in packets and bytes",
        |s| s.capture_duplicates.value()
    ),
    sides!("out_of_order", Number, "Segments with new data that arrived late", |s| s.out_of_order.value()),
    sides!(
        "duplicate_acks",
        Number,
        "Duplicate acknowledgements: no data, the greatest number again, data outstanding, and the same window (RFC 5681) or a new selective acknowledgement (RFC 6675)",
        |s| s.duplicate_acks.value()
    ),
    sides!("zero_windows", Number, "Segments other than SYN and RST that offer no window", |s| s.zero_windows.value()),
    sides!("zero_window_us", Duration, "Time from a closed window to the first open one, cut at the slices", |s| s
        .zero_window_us
        .value()),
    sides!("resets", Number, "RST segments sent", |s| s.resets.value()),
    sides!("mss", Size, "MSS option of the SYN", |s| s.mss.value()),
    sides!("window_scale", Number, "Window scale option of the SYN, a shift count (RFC 7323)", |s| s
        .window_scale
        .value()),
    sides!(
        "window_max",
        Size,
        "Greatest window offered, scaled if both SYNs have the option (windows of SYNs never); null if that is not known",
        |s| s.window_max.value()
    ),
];

const PERFORMANCE: &[Column] = &[
    column!("handshake_rtt_us", Duration, "SYN to the ACK that completes the handshake.", |r| r
        .handshake_rtt_us
        .value()),
    column!("client_rtt_us", Duration, "SYN-ACK to ACK: capture point to client and back.", |r| r
        .client
        .rtt_us
        .value()),
    column!("server_rtt_us", Duration, "SYN to SYN-ACK: capture point to server and back.", |r| r
        .server
        .rtt_us
        .value()),
];

const PERFORMANCE_SIDES: &[[Column; 2]] = &[
    sides!(
        "rtt_avg_us",
        Duration,
        "Mean time from data to the acknowledgement by this side, capture point to it and back; by Karn's rule or timestamps never from a retransmission",
        |s| s.rtt_avg_us.value()
    ),
    sides!("rtt_max_us", Duration, "Greatest time from data to the acknowledgement by this side", |s| s
        .rtt_max_us
        .value()),
];

const APPLICATION: &[Column] = &[
    column!(
        "response_time_first_us",
        Duration,
        "Last byte of the first request to first byte of its answer (if that was lost before the capture point, to the next that passes); whatever the client sends until the server answers is one request, TLS flights too. Of ICMP only echoes have one: to the reply with the same identifier and sequence number, if nothing was asked since.",
        |r| { responses(r, |times| times.first_us) }
    ),
    column!("response_time_avg_us", Duration, "Mean response time.", |r| responses(r, |times| times.avg_us)),
    column!("response_time_max_us", Duration, "Greatest response time.", |r| responses(r, |times| times.max_us)),
    column!("responses", Number, "Answers that the response times are made from.", |r| {
        responses(r, |times| times.count)
    }),
    column!(
        "app",
        Word,
        "Application protocol recognised by content: dns, mdns, llmnr, tls, quic, http, http2, grpc, websocket, ssh and others.",
        |r| text(r.app)
    ),
    column!("dns_query", Text, "Name in the first question.", |r| text(dns(r).and_then(|d| d.query.as_deref()))),
    column!("dns_type", Word, "Type in the first question.", |r| text(dns(r).and_then(|d| d.qtype.as_deref()))),
    column!("dns_rcode", Word, "Response code, with the upper bits of EDNS (RFC 6891).", |r| text(
        dns(r).and_then(|d| d.rcode.as_deref())
    )),
    column!("dns_latency_us", Duration, "Last repetition of the query to its response.", |r| {
        dns(r).and_then(|d| d.latency_us).value()
    }),
    column!("dns_answers", Number, "Answer records in the response.", |r| dns(r).and_then(|d| d.answers).value()),
    column!("dns_retries", Number, "Repetitions of queries.", |r| dns(r).and_then(|d| d.retries).value()),
    column!("tls_sni", Text, "Server name of the ClientHello.", |r| text(tls(r).and_then(|t| t.sni.as_deref()))),
    column!("tls_version", Word, "TLS version that the server chose, else the highest offered.", |r| {
        text(tls(r).and_then(|t| t.version))
    }),
    column!("tls_alpn", Text, "Application protocol that the server chose, else the first offered.", |r| {
        text(tls(r).and_then(|t| t.alpn.as_deref()))
    }),
    column!("tls_ja4", Text, "JA4 fingerprint of the ClientHello.", |r| text(tls(r).and_then(|t| t.ja4.as_deref()))),
    column!("http_method", Word, "Method of the first request.", |r| text(http(r).and_then(|h| h.method.as_deref()))),
    column!("http_host", Text, "Host of the first request.", |r| text(http(r).and_then(|h| h.host.as_deref()))),
    column!("http_path", Text, "Target of the first request, as on the wire, but without name and password.", |r| {
        text(http(r).and_then(|h| h.path.as_deref()))
    }),
    column!(
        "http_status",
        Number,
        "Status of the final response to the first request; 101 where it switched protocols.",
        |r| { http(r).and_then(|h| h.status).value() }
    ),
    column!(
        "http_latency_us",
        Duration,
        "Last byte of the first request (HTTP/2: END_STREAM) to first byte of its final response.",
        |r| { http(r).and_then(|h| h.latency_us).value() }
    ),
    column!("http_requests", Number, "Requests.", |r| http(r).map(|h| h.requests).value()),
    column!("http_errors", Number, "Responses with status 400 or above, and gRPC calls that failed.", |r| http(r)
        .map(|h| h.errors)
        .value()),
    column!(
        "icmp_error",
        Word,
        "Last ICMP or ICMPv6 error in the slice that quoted this flow: net_unreachable, host_unreachable, protocol_unreachable, port_unreachable, packet_too_big, source_route_failed, admin_prohibited, beyond_scope, unreachable, source_quench, redirect, time_exceeded, parameter_problem.",
        |r| text(r.icmp_error)
    ),
    unseen!("drop_reason", Word, "Kernel's reason for dropping packets of this flow; not told yet."),
    column!("packets_stored", Number, "Packets of this slice that the packet log kept; not told yet.", |r| r
        .packets_stored
        .value()),
    column!("retention", Text, "Retention class of the packets; not told yet.", |r| text(r.retention.as_deref())),
];

/// Every column of the flow record, in the order of output.
pub fn columns() -> impl Iterator<Item = &'static Column> {
    RECORD
        .iter()
        .chain(ADDRESSES.as_flattened())
        .chain(NETWORK)
        .chain(VOLUME.as_flattened())
        .chain(TCP)
        .chain(TCP_SIDES.as_flattened())
        .chain(PERFORMANCE)
        .chain(PERFORMANCE_SIDES.as_flattened())
        .chain(APPLICATION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_documented() {
        let mut seen = std::collections::HashSet::new();
        for column in columns() {
            assert!(seen.insert(column.name), "{} is declared twice", column.name);
            assert!(column.doc.ends_with('.'), "{} has no sentence", column.name);
        }
    }

    #[test]
    fn flags_are_letters_in_header_order() {
        assert_eq!(flag_letters(Some(0b0001_1011)), Value::Text("APSF".into()));
        assert_eq!(flag_letters(None), Value::Null);
    }
}
