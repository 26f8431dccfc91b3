//! Sockets as the kernel tells them (`sock_diag(7)`, linux/inet_diag.h): requests, and the messages of dumps and of the
//! multicast groups that tell each socket's end. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::netlink::{at, attribute};

/// `SOCK_DIAG_BY_FAMILY`.
pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `NETLINK_SOCK_DIAG`.
pub(super) const PROTOCOL: libc::c_int = 4;
/// `SKNLGRP_INET_TCP_DESTROY`, `_UDP_DESTROY`, `SKNLGRP_INET6_TCP_DESTROY`, `_UDP_DESTROY`.
pub(super) const DESTROY_GROUPS: u32 = 0b1111;

/// IP protocol numbers.
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

const FAMILIES: [i32; 2] = [libc::AF_INET, libc::AF_INET6];

const TCP_SYN_RECV: u8 = 3;
const TCP_TIME_WAIT: u8 = 6;
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;
const TCP_NEW_SYN_RECV: u8 = 12;
const TCP_BOUND_INACTIVE: u8 = 13;

const INET_DIAG_PROTOCOL: u16 = 10;
const INET_DIAG_SKV6ONLY: u16 = 11;
const INET_DIAG_CGROUP_ID: u16 = 21;
/// Bytes of `inet_diag_msg`.
const MESSAGE: usize = 72;

/// Its own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Own {
    /// Address; `0.0.0.0` or `::`: all of that family; none: all of both.
    pub(super) ip: Option<IpAddr>,
    /// Port.
    pub(super) port: u16,
}

/// A socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Socket {
    /// [`TCP`] or [`UDP`].
    pub(super) protocol: u8,
    /// Its own end.
    pub(super) own: Own,
    /// The other end, if it is connected.
    pub(super) peer: Option<SocketAddr>,
    /// Inode: the number that a descriptor in `/proc/PID/fd` shows; 0: no process has it (any more).
    pub(super) inode: u32,
    /// The kernel's number for it, never given twice.
    pub(super) cookie: u64,
    /// Cgroup (v2) of the process that made it.
    pub(super) cgroup: Option<u64>,
}

/// The requests for all sockets that processes have, of both families and protocols.
pub(super) fn requests() -> Vec<Vec<u8>> {
    // What is half open or waits for its port belongs to nobody.
    let states = !(1_u32 << TCP_SYN_RECV | 1 << TCP_TIME_WAIT | 1 << TCP_NEW_SYN_RECV | 1 << TCP_BOUND_INACTIVE);
    let request = |protocol, family| body(protocol, family, states, &[0; 48]);
    [TCP, UDP].into_iter().flat_map(|protocol| FAMILIES.map(|family| request(protocol, family))).collect()
}

/// The request for one connected socket.
pub(super) fn request_for(protocol: u8, own: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    let mut id = Vec::with_capacity(48);
    id.extend(own.port().to_be_bytes());
    id.extend(peer.port().to_be_bytes());
    for ip in [own.ip(), peer.ip()] {
        match ip {
            IpAddr::V4(ip) => {
                id.extend(ip.octets());
                id.extend([0; 12]);
            }
            IpAddr::V6(ip) => id.extend(ip.octets()),
        }
    }
    id.extend([0; 4]);
    // INET_DIAG_NOCOOKIE
    id.extend([0xff; 8]);
    let family = if own.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    body(protocol, family, u32::MAX, &id)
}

/// `inet_diag_req_v2`.
fn body(protocol: u8, family: i32, states: u32, id: &[u8]) -> Vec<u8> {
    let mut body = vec![family as u8, protocol, 0, 0];
    body.extend(states.to_ne_bytes());
    body.extend(id);
    body
}

/// A socket of a dump's message. `protocol` is the one that was asked for: only messages of groups say it.
pub(super) fn parse(protocol: Option<u8>, body: &[u8]) -> Option<Socket> {
    let attributes = body.get(MESSAGE..)?;
    let [family, state, ..] = at::<4>(body, 0)?;
    let protocol = attribute(attributes, INET_DIAG_PROTOCOL).and_then(|value| value.first().copied()).or(protocol)?;
    let ports = [at(body, 4).map(u16::from_be_bytes)?, at(body, 6).map(u16::from_be_bytes)?];
    let (own, peer) = (address(family, at(body, 8)?)?, address(family, at(body, 24)?)?);
    let v6_only = attribute(attributes, INET_DIAG_SKV6ONLY).is_some_and(|value| value.first() == Some(&1));
    let is_wildcard_of_both = own == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && !v6_only;
    let is_connected = ports[1] != 0 && !(protocol == TCP && state == TCP_LISTEN);
    let cookie = at::<8>(body, 44).map(u64::from_ne_bytes)?;
    Some(Socket {
        protocol,
        own: Own { ip: (!is_wildcard_of_both || is_connected).then_some(own), port: ports[0] },
        peer: is_connected.then(|| SocketAddr::new(peer, ports[1])),
        inode: at(body, 68).map(u32::from_ne_bytes)?,
        cookie,
        cgroup: attribute(attributes, INET_DIAG_CGROUP_ID).and_then(|value| at(value, 0)).map(u64::from_ne_bytes),
    })
}

/// Whether a message of a dump is of a socket that packets go to or come from: not of one that is bound and not used yet, or
/// has ended.
pub(super) fn is_used(protocol: Option<u8>, body: &[u8]) -> bool {
    let state = body.get(1).copied().unwrap_or(TCP_CLOSE);
    let [port, peer] = [4, 6].map(|offset| at(body, offset).map_or(0, u16::from_be_bytes));
    match protocol {
        Some(TCP) if peer == 0 => port != 0 && state == TCP_LISTEN,
        Some(TCP) => port != 0 && state != TCP_CLOSE && state != TCP_TIME_WAIT,
        // Datagram sockets that are not connected are "closed".
        _ => port != 0,
    }
}

fn address(family: u8, bytes: [u8; 16]) -> Option<IpAddr> {
    match i32::from(family) {
        libc::AF_INET => {
            let [a, b, c, d, ..] = bytes;
            Some(Ipv4Addr::new(a, b, c, d).into())
        }
        // An IPv6 socket that speaks IPv4 has an IPv4 address on the wire.
        libc::AF_INET6 => Some(IpAddr::V6(bytes.into()).to_canonical()),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Bytes of recorded messages.
    pub(in crate::kernel) fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> =
            text.bytes().filter_map(|byte| char::from(byte).to_digit(16)).map(|digit| digit as u8).collect();
        digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    const CONNECTED_V4: &str =
        "020100009e5600507f0000010000000000000000000000007f000001000000000000000000000000000000002911
        00000000000000000000000000000000000000000000b4211100050008000000000008000f00000000000c0015000100000000000000
        0600160052000000";
    const LISTENING_ON_ALL: &str =
        "0a0a00001f910000000000000000000000000000000000000000000000000000000000000000000000000000
        2a11000000000000000000000000000002000000000000004b261100050008000000000005000b000000000008000f00000000000c00
        150001000000000000000600160012000000";

    #[test]
    fn a_connected_socket_has_two_ends() {
        let socket = parse(Some(TCP), &hex(CONNECTED_V4)).expect("a socket");
        assert_eq!(
            socket,
            Socket {
                protocol: TCP,
                own: Own { ip: Some("127.0.0.1".parse().unwrap()), port: 40_534 },
                peer: Some("127.0.0.1:80".parse().unwrap()),
                inode: 0x0011_21b4,
                cookie: 0x1129,
                cgroup: Some(1),
            }
        );
        assert!(is_used(Some(TCP), &hex(CONNECTED_V4)));
    }

    #[test]
    fn a_socket_that_listens_on_all_addresses_of_both_families_has_none() {
        let mut bytes = hex(LISTENING_ON_ALL);
        let socket = parse(Some(TCP), &bytes).expect("a socket");
        assert_eq!((socket.own, socket.peer), (Own { ip: None, port: 8081 }, None));
        assert!(is_used(Some(TCP), &bytes));
        // With IPV6_V6ONLY it is of one family.
        let flag = bytes.windows(4).position(|four| four == [5, 0, 11, 0]).expect("the attribute");
        bytes[flag + 4] = 1;
        assert_eq!(parse(Some(TCP), &bytes).map(|own| own.own.ip), Some(Some("::".parse().unwrap())));
        // Bound, and not used yet.
        bytes[1] = TCP_CLOSE;
        assert!(!is_used(Some(TCP), &bytes) && is_used(Some(UDP), &bytes));
    }

    #[test]
    fn the_request_for_a_socket_bears_its_addresses() {
        let request = request_for(TCP, "127.0.0.1:40534".parse().unwrap(), "127.0.0.1:80".parse().unwrap());
        assert_eq!(request.len(), 56);
        // The ends are where the answer has them.
        assert_eq!(request.get(8..48), hex(CONNECTED_V4).get(4..44));
        let v6 = request_for(UDP, "[::1]:53".parse().unwrap(), "[fd00::1]:5353".parse().unwrap());
        assert_eq!((v6.len(), &v6[..2], v6[27], v6[28]), (56, &[10, UDP][..], 1, 0xfd));
    }

    #[test]
    fn what_is_cut_off_is_no_socket() {
        let bytes = hex(CONNECTED_V4);
        for length in 0..MESSAGE {
            assert_eq!(parse(Some(TCP), &bytes[..length]), None, "{length}");
        }
        assert_eq!(parse(None, &bytes), None, "which protocol?");
        assert!(parse(Some(TCP), &bytes[..MESSAGE]).is_some_and(|socket| socket.cgroup.is_none()));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..160)) {
            let _ = (parse(Some(TCP), &bytes), parse(None, &bytes), is_used(Some(UDP), &bytes));
        }
    }
}
