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

#[cfg(test)]
mod tests {
    use super::super::sock_diag::tests::hex;
    use super::*;

    const TRANSLATED_V4: &str =
        "020000003400018014000180080001007f000001080002007f0000011c00028005000100060000000600020
        09e56000006000300005000003400028014000180080001007f000001080002007f0000011c0002800500010006000000060002001f91
        0000060003009e56000008000300000001ae080008000000000008000c00f1fdc03b08000b0000000001080007000006977e";
    const TRANSLATED_V6: &str =
        "0a0000004c0001802c0001801400030000000000000000000000000000000001140004000000000000000000
        00000000000000011c000280050001000600000006000200a7a4000006000300005000004c0002802c000180140003000000000000000
        000000000000000000114000400000000000000000000000000000000011c0002800500010006000000060002001f9100000600030
        0a7a4000008000300000001ae080008000000000008000c000e56a03e";

    #[test]
    fn a_translated_connection_has_two_tuples() {
        for (bytes, ip, port) in [(TRANSLATED_V4, "127.0.0.1", 40_534), (TRANSLATED_V6, "::1", 42_916)] {
            let end = |port| SocketAddr::new(ip.parse().unwrap(), port);
            let connection = parse(NEW, &hex(bytes)).expect("a connection");
            assert_eq!((connection.original, connection.reply), ([end(port), end(80)], [end(8081), end(port)]), "{ip}");
            assert_eq!((connection.protocol, connection.change), (TCP, Change::There));
            assert!(connection.is_translated());
            assert_eq!((connection.from, connection.to), (None, None));
            assert_eq!(parse(DELETE, &hex(bytes)).map(|own| own.change), Some(Change::Gone));
            assert_eq!(parse(GET, &hex(bytes)), None);
        }
    }

    #[test]
    fn a_connection_that_is_not_translated_has_its_reply_reversed() {
        let mut bytes = hex(TRANSLATED_V4);
        let port = bytes.windows(2).position(|two| two == 8081_u16.to_be_bytes()).expect("the port");
        bytes[port..port + 2].copy_from_slice(&80_u16.to_be_bytes());
        assert!(!parse(NEW, &bytes).expect("a connection").is_translated());
    }

    #[test]
    fn times_are_read_where_the_kernel_keeps_them() {
        let mut bytes = hex(TRANSLATED_V4);
        bytes.extend([16, 0, CTA_TIMESTAMP as u8, 0x80, 12, 0, CTA_TIMESTAMP_START as u8, 0]);
        bytes.extend(1_780_000_000_000_000_000_i64.to_be_bytes());
        assert_eq!(parse(NEW, &bytes).and_then(|own| own.from), Some(1_780_000_000_000_000_000));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_taken(
            kind in proptest::prelude::any::<bool>(),
            at in 0_usize..150,
            value in proptest::prelude::any::<u8>(),
            length in 0_usize..200,
        ) {
            let mut bytes = hex(TRANSLATED_V4);
            let length = length.min(bytes.len());
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            let _ = parse(if kind { NEW } else { DELETE }, &bytes[..length]);
        }
    }
}
