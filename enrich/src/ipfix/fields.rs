//! The fields of a record, in order: what they are called, how long they are, and how they are read from a row.

use std::net::IpAddr;

use wiretag_capture::{EndReason, FlowRecord, Protocol, Side};

use crate::tagged::{EndTag, TaggedFlow};

/// Whose element a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// In the registry of IANA.
    Iana,
    /// The same of the other direction (RFC 5103).
    Reverse,
    /// Of the enterprise that is configured.
    Wiretag,
}

/// How a field is written.
#[derive(Debug, Clone, Copy)]
pub enum Format {
    /// A number of so many bytes.
    Number(u16, fn(&TaggedFlow) -> u64),
    /// An address of the version that the template is for.
    Address(fn(&FlowRecord) -> IpAddr),
    /// A link-layer address; zeros where none was seen.
    Mac(fn(&FlowRecord) -> Option<[u8; 6]>),
    /// Nanoseconds since 1970, written as seconds since 1900 and a binary fraction.
    Time(fn(&FlowRecord) -> i64),
    /// Text of variable length; none where there is none.
    Text(for<'a> fn(&'a TaggedFlow) -> Option<&'a str>),
    /// A number of eight bytes; all ones where it was not seen.
    Figure(fn(&FlowRecord) -> Option<u64>),
}

/// A field of the template.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Whose.
    pub owner: Owner,
    /// Its number there: for IPv4, and for IPv6.
    pub ids: [u16; 2],
    /// IANA's name, or that of wiretag's column.
    pub name: &'static str,
    /// How it is written.
    pub format: Format,
}

const fn field(owner: Owner, id: u16, name: &'static str, format: Format) -> Field {
    Field { owner, ids: [id, id], name, format }
}

const fn iana(id: u16, name: &'static str, format: Format) -> Field {
    field(Owner::Iana, id, name, format)
}

const fn address(ids: [u16; 2], name: &'static str, get: fn(&FlowRecord) -> IpAddr) -> Field {
    Field { owner: Owner::Iana, ids, name, format: Format::Address(get) }
}

const fn reverse(id: u16, name: &'static str, format: Format) -> Field {
    field(Owner::Reverse, id, name, format)
}

const fn text(id: u16, name: &'static str, get: for<'a> fn(&'a TaggedFlow) -> Option<&'a str>) -> Field {
    field(Owner::Wiretag, id, name, Format::Text(get))
}

const fn figure(id: u16, name: &'static str, get: fn(&FlowRecord) -> Option<u64>) -> Field {
    field(Owner::Wiretag, id, name, Format::Figure(get))
}

macro_rules! identity {
    ($id:expr, $name:ident, $client:literal, $server:literal) => {
        [
            text($id, $client, |row| row.client.identity.as_deref()?.$name.as_deref()),
            text($id + 100, $server, |row| row.server.identity.as_deref()?.$name.as_deref()),
        ]
    };
}

macro_rules! sides {
    ($id:expr, $client:literal, $server:literal, |$side:ident| $get:expr) => {
        [
            figure($id, $client, |row| {
                let $side: &Side = &row.client;
                $get
            }),
            figure($id + 100, $server, |row| {
                let $side: &Side = &row.server;
                $get
            }),
        ]
    };
}

/// Elements of IANA and of RFC 5103.
const STANDARD: &[Field] = &[
    iana(156, "flowStartNanoseconds", Format::Time(|row| row.start)),
    iana(157, "flowEndNanoseconds", Format::Time(|row| row.end)),
    // Those who know no nanoseconds.
    iana(152, "flowStartMilliseconds", Format::Number(8, |row| milliseconds(row.record.start))),
    iana(153, "flowEndMilliseconds", Format::Number(8, |row| milliseconds(row.record.end))),
    address([8, 27], "sourceIPv4Address, sourceIPv6Address", |row| row.client.ip),
    address([12, 28], "destinationIPv4Address, destinationIPv6Address", |row| row.server.ip),
    iana(7, "sourceTransportPort", Format::Number(2, |row| ports(&row.record).0.into())),
    iana(11, "destinationTransportPort", Format::Number(2, |row| ports(&row.record).1.into())),
    iana(4, "protocolIdentifier", Format::Number(1, |row| row.record.protocol.0.into())),
    iana(1, "octetDeltaCount", Format::Number(8, |row| row.record.client.bytes)),
    iana(2, "packetDeltaCount", Format::Number(8, |row| row.record.client.packets)),
    reverse(1, "reverseOctetDeltaCount", Format::Number(8, |row| row.record.server.bytes)),
    reverse(2, "reversePacketDeltaCount", Format::Number(8, |row| row.record.server.packets)),
    // nfdump 1.7 has one place for the flags of both directions, and keeps the last.
    reverse(6, "reverseTcpControlBits", Format::Number(2, |row| row.record.server.tcp_flags.unwrap_or(0).into())),
    iana(6, "tcpControlBits", Format::Number(2, |row| row.record.client.tcp_flags.unwrap_or(0).into())),
    iana(136, "flowEndReason", Format::Number(1, |row| end_reason(row.record.end_reason))),
    // The source is the initiator, as far as `oriented_by` can tell.
    iana(239, "biflowDirection", Format::Number(1, |_| 1)),
    iana(195, "ipDiffServCodePoint", Format::Number(1, |row| row.record.dscp.unwrap_or(0).into())),
    iana(243, "dot1qVlanId", Format::Number(2, |row| row.record.vlan.unwrap_or(0).into())),
    iana(245, "dot1qCustomerVlanId", Format::Number(2, |row| row.record.vlan_inner.unwrap_or(0).into())),
    iana(56, "sourceMacAddress", Format::Mac(|row| row.client.mac)),
    iana(80, "destinationMacAddress", Format::Mac(|row| row.server.mac)),
    Field {
        owner: Owner::Iana,
        ids: [32, 139],
        name: "icmpTypeCodeIPv4, icmpTypeCodeIPv6",
        format: Format::Number(2, |row| icmp(&row.record).unwrap_or(0).into()),
    },
    iana(148, "flowId", Format::Number(8, |row| row.record.flow_id)),
    iana(82, "interfaceName", Format::Text(|row| Some(&row.record.interface))),
];

/// Elements of the configured enterprise, of the flow.
const FLOW: &[Field] = &[
    text(1, "node", |row| Some(&row.record.node)),
    text(2, "community_id", |row| row.record.community_id.as_deref()),
    figure(3, "slice", |row| Some(row.slice.into())),
    text(4, "end_reason", |row| row.record.end_reason.map(EndReason::as_str)),
    text(5, "source", |row| Some(row.record.source.as_str())),
    text(6, "observed_at", |row| row.record.observed_at.map(wiretag_capture::ObservedAt::as_str)),
    text(7, "oriented_by", |row| Some(row.record.oriented_by.as_str())),
    text(8, "tcp_state", |row| row.record.tcp_state.map(wiretag_capture::TcpState::as_str)),
    text(9, "app", |row| row.record.app),
    text(10, "dns_query", |row| row.record.dns.as_deref()?.query.as_deref()),
    text(11, "tls_sni", |row| row.record.tls.as_deref()?.sni.as_deref()),
    text(12, "http_host", |row| row.record.http.as_deref()?.host.as_deref()),
    figure(13, "handshake_rtt_us", |row| row.handshake_rtt_us.map(u64::from)),
    figure(14, "response_time_avg_us", |row| row.responses.map(|times| times.avg_us.into())),
];

/// Of each end: the client's, and the server's a hundred above.
const ENDS: &[[Field; 2]] = &[
    identity!(101, cluster, "client_cluster", "server_cluster"),
    identity!(102, host, "client_host", "server_host"),
    identity!(103, namespace, "client_namespace", "server_namespace"),
    identity!(104, pod, "client_pod", "server_pod"),
    identity!(105, container, "client_container", "server_container"),
    identity!(106, workload, "client_workload", "server_workload"),
    identity!(107, workload_kind, "client_workload_kind", "server_workload_kind"),
    identity!(108, service, "client_service", "server_service"),
    identity!(109, image, "client_image", "server_image"),
    identity!(110, zone, "client_zone", "server_zone"),
    [
        text(111, "client_identity", |row| identity_of(&row.client)),
        text(211, "server_identity", |row| identity_of(&row.server)),
    ],
    [
        text(112, "client_tagged_by", |row| Some(row.client.tagged_by.as_str())),
        text(212, "server_tagged_by", |row| Some(row.server.tagged_by.as_str())),
    ],
    sides!(113, "client_retransmits", "server_retransmits", |side| side.retransmits.map(u64::from)),
    sides!(114, "client_rtt_us", "server_rtt_us", |side| side.rtt_us.map(u64::from)),
];

/// Every field of a record, in order.
pub fn fields() -> impl Iterator<Item = &'static Field> {
    STANDARD.iter().chain(FLOW).chain(ENDS.as_flattened())
}

fn identity_of(tag: &EndTag) -> Option<&str> {
    tag.identity.as_deref().map(|identity| &*identity.identity)
}

fn milliseconds(time: i64) -> u64 {
    time.max(0).unsigned_abs() / 1_000_000
}

/// `flowEndReason`: 1 idle, 2 active timeout, 3 the end was seen, 4 forced, 5 lack of room; 0 is none of them.
fn end_reason(reason: Option<EndReason>) -> u64 {
    match reason {
        Some(EndReason::Idle) => 1,
        Some(EndReason::Active) => 2,
        Some(EndReason::Fin | EndReason::Rst) => 3,
        Some(EndReason::EndOfInput | EndReason::Shutdown | EndReason::Interrupted) => 4,
        Some(EndReason::Evicted) => 5,
        Some(EndReason::Exported) | None => 0,
    }
}

/// As a record of a packet has them: of ICMP there are none, but by convention type and code are the destination's.
fn ports(record: &FlowRecord) -> (u16, u16) {
    match icmp(record) {
        Some(type_code) => (0, type_code),
        None => (record.client.port.unwrap_or(0), record.server.port.unwrap_or(0)),
    }
}

/// Type and code of the client's messages. Of those that are answered the code is not kept: it is always 0.
fn icmp(record: &FlowRecord) -> Option<u16> {
    if !matches!(record.protocol, Protocol::ICMP | Protocol::ICMP6) {
        return None;
    }
    let kind = record.client.port? as u8;
    let is_one_way = wiretag_capture::flow::is_one_way(record.protocol, kind);
    let code = if is_one_way { record.server.port? as u8 } else { 0 };
    Some(u16::from_be_bytes([kind, code]))
}
