//! Connections that the host tracks (linux/netfilter/nfnetlink_conntrack.h): the request for all of them, and the messages of dumps
//! and of the multicast groups that tell each one's beginning and end. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::netlink::{at, attribute};
use super::sock_diag::{TCP, UDP};

/// `NETLINK_NETFILTER`.
pub(super) const PROTOCOL: libc::c_int = 12;
/// `NFNLGRP_CONNTRACK_NEW`, `_DESTROY`. A translation is settled before a connection is told and never changes, so that
/// updates tell nothing.
pub(super) const GROUPS: u32 = 0b101;
/// `NFNL_SUBSYS_CTNETLINK`, `IPCTNL_MSG_CT_GET`.
pub(super) const GET: u16 = 0x101;
const NEW: u16 = 0x100;
const DELETE: u16 = 0x102;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_TIMESTAMP: u16 = 20;
const CTA_TIMESTAMP_START: u16 = 1;
const CTA_TIMESTAMP_STOP: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
/// Bytes of `nfgenmsg`.
const HEADER: usize = 4;
const SCTP: u8 = 132;

/// The body of the request for all connections of both families.
pub(super) const ALL: [u8; HEADER] = [libc::AF_UNSPEC as u8, 0, 0, 0];

/// Whether the connection has begun (or is there) or has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    There,
    Gone,
}

/// A tracked connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Connection {
    pub(super) change: Change,
    /// IP protocol.
    pub(super) protocol: u8,
    /// Source and destination of the opener's packets.
    pub(super) original: [SocketAddr; 2],
    /// Source and destination of the packets in reply.
    pub(super) reply: [SocketAddr; 2],
    /// The kernel's number for it, if it tells; may be given again.
    pub(super) id: u32,
    /// Beginning and end, ns since the epoch, where `nf_conntrack_timestamp` is on.
    pub(super) from: Option<i64>,
    pub(super) to: Option<i64>,
}

impl Connection {
    /// Whether an address or a port is not the same on both sides.
    pub(super) fn is_translated(&self) -> bool {
        self.original != [self.reply[1], self.reply[0]]
    }
}

/// A connection of a message; `None` for other messages, and for protocols without ports.
pub(super) fn parse(kind: u16, body: &[u8]) -> Option<Connection> {
    let change = match kind {
        NEW => Change::There,
        DELETE => Change::Gone,
        _ => return None,
    };
    let attributes = body.get(HEADER..)?;
    let (protocol, original) = tuple(attribute(attributes, CTA_TUPLE_ORIG)?)?;
    let (_, reply) = tuple(attribute(attributes, CTA_TUPLE_REPLY)?)?;
    let times = attribute(attributes, CTA_TIMESTAMP).unwrap_or_default();
    let time = |kind| attribute(times, kind).and_then(|value| at(value, 0)).map(i64::from_be_bytes);
    Some(Connection {
        change,
        protocol,
        original,
        reply,
        id: attribute(attributes, CTA_ID).and_then(|value| at(value, 0)).map_or(0, u32::from_be_bytes),
        from: time(CTA_TIMESTAMP_START),
        to: time(CTA_TIMESTAMP_STOP),
    })
}

/// Protocol, source and destination.
fn tuple(bytes: &[u8]) -> Option<(u8, [SocketAddr; 2])> {
    let ends = attribute(bytes, CTA_TUPLE_IP)?;
    let proto = attribute(bytes, CTA_TUPLE_PROTO)?;
    let protocol = *attribute(proto, CTA_PROTO_NUM)?.first()?;
    if !matches!(protocol, TCP | UDP | SCTP) {
        return None;
    }
    let v4 = |kind| attribute(ends, kind).and_then(|value| at::<4>(value, 0)).map(|ip| Ipv4Addr::from(ip).into());
    let v6 = |kind| attribute(ends, kind).and_then(|value| at::<16>(value, 0)).map(|ip| Ipv6Addr::from(ip).into());
    let port = |kind| attribute(proto, kind).and_then(|value| at(value, 0)).map(u16::from_be_bytes);
    let source: IpAddr = v4(CTA_IP_V4_SRC).or_else(|| v6(CTA_IP_V6_SRC))?;
    let destination: IpAddr = v4(CTA_IP_V4_DST).or_else(|| v6(CTA_IP_V6_DST))?;
    let source = SocketAddr::new(source, port(CTA_PROTO_SRC_PORT)?);
    Some((protocol, [source, SocketAddr::new(destination, port(CTA_PROTO_DST_PORT)?)]))
}
