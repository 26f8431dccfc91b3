//! From what an exporter saw to a row: who is the client, and which id the flow has.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use super::told::{End, Seen, Sent};
use crate::flow::{between, lower_serves};
use crate::record::{EndReason, FlowRecord, ObservedAt, OrientedBy, Protocol, Side, Source};

const SYN: u8 = 2;
const ACK: u8 = 16;

/// Which of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    First,
    Second,
}

/// The row of a flow, as its exporter told it.
pub(super) fn row(seen: Seen) -> FlowRecord {
    let (client, oriented_by) = orient(&seen);
    let flow_id = flow_id(&seen);
    let [first, second] = seen.ends;
    let community_id = between(first, second, seen.protocol);
    let back = seen.back.unwrap_or_default();
    let sides = [side(first, &seen.there, seen.macs[0]), side(second, &back, seen.macs[1])];
    let ([client, server], dscp) = match client {
        Client::First => (sides, seen.there.dscp),
        Client::Second => {
            let [first, second] = sides;
            ([second, first], back.dscp)
        }
    };
    FlowRecord {
        flow_id,
        start: seen.start,
        end: seen.end,
        end_reason: Some(seen.end_reason.unwrap_or(EndReason::Exported)),
        community_id,
        node: seen.node,
        interface: seen.interface,
        // Records made where packets go out are the second observation of what came in elsewhere; both directions of a
        // flow are one observation, whatever interfaces they passed.
        interface_index: u32::from(seen.outgoing),
        source: Source::Netflow,
        observed_at: Some(ObservedAt::Path),
        oriented_by,
        vlan: seen.vlan,
        vlan_inner: seen.vlan_inner,
        dscp,
        ..FlowRecord::new(seen.protocol, client, server)
    }
}

fn side((ip, port): End, sent: &Sent, mac: Option<[u8; 6]>) -> Side {
    let mut side = Side::new(ip, port);
    side.mac = mac;
    side.packets = sent.packets;
    side.bytes = sent.bytes;
    side.tcp_flags = sent.flags;
    side
}

/// Who the exporter says; a SYN that was never followed by an acknowledgement; the ports; the first sender.
///
/// Flags of all packets are in one field, so that one with SYN and ACK may be of either side: only a direction that never
/// acknowledged is the opener's for sure. Which of two directions with a SYN began first comes after the ports: some exporters' times
/// jitter from message to message by more than a handshake takes.
fn orient(seen: &Seen) -> (Client, OrientedBy) {
    if let Some(is_first) = seen.initiator {
        return (if is_first { Client::First } else { Client::Second }, OrientedBy::Exporter);
    }
    let sender = first_sender(seen);
    let has_syn = |sent: &Sent| sent.flags.is_some_and(|flags| flags & SYN != 0);
    let never_acknowledged = |sent: &Sent| sent.flags.is_some_and(|flags| flags & ACK == 0);
    if seen.protocol == Protocol::TCP {
        let back = seen.back.unwrap_or_default();
        if has_syn(&seen.there) && never_acknowledged(&seen.there) {
            return (Client::First, OrientedBy::Syn);
        }
        if has_syn(&back) && never_acknowledged(&back) {
            return (Client::Second, OrientedBy::Syn);
        }
    }
    let [(_, first), (_, second)] = seen.ends;
    let is_icmp = matches!(seen.protocol, Protocol::ICMP | Protocol::ICMP6);
    let ports = first.zip(second).filter(|(first, second)| !is_icmp && lower_serves(*first, *second));
    if let Some((first, second)) = ports {
        return (if first < second { Client::Second } else { Client::First }, OrientedBy::Port);
    }
    let both_open = has_syn(&seen.there) && seen.back.as_ref().is_some_and(has_syn);
    let by = if both_open && sender.is_some() { OrientedBy::Syn } else { OrientedBy::FirstPacket };
    (sender.unwrap_or(Client::First), by)
}

/// Who sent the first packet, where both directions tell when they began, and not at the same time.
fn first_sender(seen: &Seen) -> Option<Client> {
    let ((clock, there), (other, back)) = seen.there.since.zip(seen.back?.since)?;
    if clock != other {
        return None;
    }
    match there.cmp(&back) {
        std::cmp::Ordering::Less => Some(Client::First),
        std::cmp::Ordering::Greater => Some(Client::Second),
        std::cmp::Ordering::Equal => None,
    }
}

/// The same in every run and on every machine: of exporter, ends, times, and the place of the record among all that the exporter told. Records of one
/// connection may begin at the same time, and even be equal; each is a flow of its own.
fn flow_id(seen: &Seen) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(b"netflow");
    let mut address = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => hasher.write(&ip.to_ipv6_mapped().octets()),
        IpAddr::V6(ip) => hasher.write(&ip.octets()),
    };
    let [mut low, mut high] = seen.ends;
    if low > high {
        std::mem::swap(&mut low, &mut high);
    }
    address(seen.exporter);
    address(low.0);
    address(high.0);
    for port in [low.1, high.1] {
        hasher.write(&[u8::from(port.is_some())]);
        hasher.write(&port.unwrap_or_default().to_le_bytes());
    }
    hasher.write(&[seen.protocol.0, u8::from(seen.outgoing)]);
    hasher.write(&seen.start.to_le_bytes());
    hasher.write(&seen.end.to_le_bytes());
    hasher.write(&seen.place.message.to_le_bytes());
    hasher.write(&seen.place.record.to_le_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netflow::element::Clock;
    use crate::netflow::told::Place;

    fn check(there: (u8, u64), back: Option<(u8, u64)>, ports: (u16, u16)) -> (u16, OrientedBy) {
        let sent = |(flags, since): (u8, u64)| Sent {
            packets: 1,
            bytes: 40,
            flags: Some(flags).filter(|flags| *flags != 0),
            dscp: None,
            since: Some((Clock::Uptime, since)),
        };
        let end = |last, port| (IpAddr::from([10, 0, 0, last]), Some(port));
        let record = row(Seen {
            exporter: IpAddr::from([10, 0, 0, 9]),
            node: "10.0.0.9".into(),
            interface: "if1".into(),
            outgoing: false,
            protocol: Protocol::TCP,
            ends: [end(1, ports.0), end(2, ports.1)],
            macs: [None; 2],
            there: sent(there),
            back: back.map(sent),
            start: 0,
            end: 5,
            replaced: false,
            end_reason: None,
            initiator: None,
            vlan: None,
            vlan_inner: None,
            place: Place::default(),
        });
        assert_eq!(record.end_reason, Some(EndReason::Exported));
        (record.client.port.unwrap(), record.oriented_by)
    }

    #[test]
    fn the_client_is_who_surely_opened() {
        const ALL: u8 = 0x1b;
        // A SYN that nobody answered, told by the server's side of the ports.
        assert_eq!(check((SYN, 0), None, (80, 40_000)), (80, OrientedBy::Syn));
        // Both directions have SYN and ACK: the first to begin opened.
        assert_eq!(check((ALL, 7), Some((ALL, 5)), (40_000, 50_000)), (50_000, OrientedBy::Syn));
        assert_eq!(check((ALL, 5), Some((ALL, 5)), (40_000, 80)), (40_000, OrientedBy::Port));
        // One direction alone, which may be either's: the ports, else its sender.
        assert_eq!(check((ALL, 5), None, (80, 40_000)), (40_000, OrientedBy::Port));
        assert_eq!(check((ALL, 5), None, (40_001, 40_000)), (40_001, OrientedBy::FirstPacket));
        // No handshake.
        assert_eq!(check((16, 5), Some((16, 3)), (40_001, 40_000)), (40_000, OrientedBy::FirstPacket));
    }
}
