//! A record as it was told, and what it says of a flow: addresses, counts and times, in the direction of its source.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::element::{Clock, Element, Side, Way};
use super::sampling::{self, Factor};
use super::time::{self, Clocks};
use super::wire::{address, number, text};
use crate::decode::icmp_ports;
use crate::record::{EndReason, Protocol};

/// Why a record makes no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is not about two addresses.
    NoAddresses,
    /// It counts nothing: an event of a firewall or of a translation.
    NoCounts,
}

impl Refusal {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::NoAddresses => "no_addresses",
            Self::NoCounts => "no_counts",
        }
    }
}

/// An end of a flow; the port as in [`crate::Side::port`].
pub(super) type End = (IpAddr, Option<u16>);

/// What one direction sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sent {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// All flags of its packets; `None` if the exporter does not say.
    pub(super) flags: Option<u8>,
    pub(super) dscp: Option<u8>,
    /// First packet, as the exporter tells it: what it means is not known, only what came before what. Times that are made of it have the jitter
    /// of messages, up to a second in NetFlow v9.
    pub(super) since: Option<(Clock, u64)>,
}

/// A flow as an exporter saw it, not yet with client and server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) exporter: IpAddr,
    pub(super) node: Arc<str>,
    pub(super) interface: Arc<str>,
    /// Seen where packets go out: the other observation of what came in elsewhere.
    pub(super) outgoing: bool,
    pub(super) protocol: Protocol,
    pub(super) ends: [End; 2],
    pub(super) macs: [Option<[u8; 6]>; 2],
    pub(super) there: Sent,
    /// The other direction, if the record has it.
    pub(super) back: Option<Sent>,
    pub(super) start: i64,
    pub(super) end: i64,
    /// The times are of the record's arrival, for the exporter's clock is wrong.
    pub(super) replaced: bool,
    pub(super) end_reason: Option<EndReason>,
    /// Whether the first end is the initiator, where the exporter says who is.
    pub(super) initiator: Option<bool>,
    pub(super) vlan: Option<u16>,
    pub(super) vlan_inner: Option<u16>,
    pub(super) place: Place,
}

/// Where a record was told: the number of its message, and which of its records it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    pub(super) message: u32,
    pub(super) record: u32,
}

/// Counts of one direction, of all kinds in which they are told.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    delta: Option<u64>,
    total: Option<u64>,
    initiator: Option<u64>,
    sent: Option<u64>,
}

impl Counts {
    fn count(&self) -> Option<u64> {
        self.delta.or(self.initiator).or(self.total).or(self.sent)
    }
}

/// The fields of a record.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) addresses: [Option<IpAddr>; 2],
    /// Sides that have an address of zeros, in IPv4 and in IPv6.
    zeros: [[bool; 2]; 2],
    pub(super) ports: [Option<u16>; 2],
    macs: [Option<[u8; 6]>; 2],
    pub(super) protocol: u8,
    bytes: [Counts; 2],
    packets: [Counts; 2],
    flags: [Option<u8>; 2],
    dscp: [Option<u8>; 2],
    icmp_type_code: Option<u16>,
    icmp: [Option<u8>; 2],
    start: Option<(Clock, u64)>,
    end: Option<(Clock, u64)>,
    observed: Option<(Clock, u64)>,
    duration: Option<i64>,
    booted: Option<u64>,
    end_reason: Option<u64>,
    outgoing: bool,
    initiator: Option<u64>,
    interfaces: [Option<u64>; 2],
    interface: Option<String>,
    vlan: Option<u16>,
    vlan_inner: Option<u16>,
    pub(super) sampling: sampling::Told,
}

impl Told {
    /// Takes a field.
    pub(super) fn take(&mut self, element: Element, contents: &[u8]) {
        let value = number(contents);
        let short = value.map(|value| value as u16);
        let byte = value.map(|value| value as u8);
        match element {
            Element::Address(side) => {
                let place = &mut self.addresses[side as usize];
                // A record may have fields for both versions, of which one is all zeros.
                match address(contents) {
                    Some(ip) if ip.is_unspecified() => self.zeros[side as usize][usize::from(ip.is_ipv6())] = true,
                    Some(ip) => *place = Some(ip),
                    None => {}
                }
            }
            Element::Port(side) => self.ports[side as usize] = short,
            Element::Mac(side) => {
                let place = &mut self.macs[side as usize];
                *place = contents.first_chunk().copied().filter(|mac| *mac != [0; 6]).or(*place);
            }
            Element::Protocol => self.protocol = byte.unwrap_or_default(),
            Element::Bytes(way) => self.bytes[way as usize].delta = value,
            Element::Packets(way) => self.packets[way as usize].delta = value,
            Element::TotalBytes(way) => self.bytes[way as usize].total = value,
            Element::TotalPackets(way) => self.packets[way as usize].total = value,
            Element::SentBytes => self.bytes[0].sent = value,
            Element::SentPackets => self.packets[0].sent = value,
            Element::InitiatorBytes(way) => self.bytes[way as usize].initiator = value,
            Element::InitiatorPackets(way) => self.packets[way as usize].initiator = value,
            Element::TcpFlags(way) => self.flags[way as usize] = byte,
            Element::IcmpTypeCode => self.icmp_type_code = short,
            Element::IcmpType => self.icmp[0] = byte,
            Element::IcmpCode => self.icmp[1] = byte,
            Element::TypeOfService(way) => self.dscp[way as usize] = byte.map(|byte| byte >> 2),
            Element::Dscp => self.dscp[0] = byte.map(|byte| byte & 63),
            Element::Start(clock) => finest(&mut self.start, clock, value),
            Element::End(clock) => finest(&mut self.end, clock, value),
            Element::Observed(clock) => finest(&mut self.observed, clock, value),
            Element::Duration(unit) => {
                self.duration = value.and_then(|value| i64::try_from(value).ok()?.checked_mul(unit));
            }
            Element::Booted => self.booted = value,
            Element::EndReason => self.end_reason = value,
            Element::Sense => self.outgoing = value == Some(1),
            Element::Initiator => self.initiator = value,
            Element::Ingress => self.interfaces[0] = value,
            Element::Egress => self.interfaces[1] = value,
            Element::InterfaceName => self.interface = text(contents),
            Element::Vlan => self.vlan = vlan(short),
            Element::InnerVlan => self.vlan_inner = vlan(short),
            Element::SamplingInterval
            | Element::SampledPackets
            | Element::SkippedPackets
            | Element::SampleSize
            | Element::SamplePopulation
            | Element::SamplingProbability
            | Element::Sampler
            | Element::Unknown => {}
        }
        self.sampling.take(element, contents);
    }

    /// What a record of options says of the exporter: when it started, and the name of an interface.
    pub(super) fn options(self) -> (Option<u64>, Option<(u64, String)>) {
        let [ingress, egress] = self.interfaces;
        (self.booted, ingress.or(egress).zip(self.interface))
    }

    /// Number of the interface that made the record.
    pub(super) fn interface_number(&self) -> Option<u64> {
        self.interfaces[usize::from(self.outgoing)].filter(|number| *number != 0)
    }

    /// Name of that interface, if the record has it.
    pub(super) fn interface_name(&mut self) -> Option<String> {
        self.interface.take()
    }

    /// Both addresses. Who has none yet (DHCP, duplicate address detection) sends from zeros.
    fn ends(&self) -> Option<(IpAddr, IpAddr)> {
        let zeros = |side: usize, other: IpAddr| {
            let zero = if other.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            self.zeros[side][usize::from(other.is_ipv6())].then_some(zero)
        };
        match self.addresses {
            [Some(from), Some(to)] => Some((from, to)),
            [None, Some(to)] => Some((zeros(0, to)?, to)),
            [Some(from), None] => Some((from, zeros(1, from)?)),
            [None, None] => None,
        }
    }

    /// The flow.
    pub(super) fn flow(
        &self,
        (exporter, node, interface): (IpAddr, &Arc<str>, Arc<str>),
        clocks: &Clocks,
        factor: Factor,
        now: i64,
    ) -> Result<Seen, Refusal> {
        let (from, to) = self.ends().ok_or(Refusal::NoAddresses)?;
        if from.is_ipv4() != to.is_ipv4() {
            return Err(Refusal::NoAddresses);
        }
        let (start, end, doubted) = self.times(clocks, now);
        let mut there = self.sent(Way::Forward, factor).ok_or(Refusal::NoCounts)?;
        there.since = self.start.filter(|(clock, _)| *clock != Clock::Before);
        let back = self.sent(Way::Reverse, factor);
        if there.packets == 0 && back.is_none_or(|back| back.packets == 0) {
            return Err(Refusal::NoCounts);
        }
        let protocol = Protocol(self.protocol);
        let ports = self.ports(protocol);
        let counts_of_initiator = self.bytes[0].initiator.or(self.packets[0].initiator).is_some();
        Ok(Seen {
            exporter,
            node: node.clone(),
            interface,
            outgoing: self.outgoing,
            protocol,
            ends: [(from, ports.map(|ports| ports.0)), (to, ports.map(|ports| ports.1))],
            macs: self.macs,
            there,
            back,
            start,
            end,
            replaced: doubted,
            end_reason: self.end_reason(protocol),
            // RFC 5103, 6.3: 0 arbitrary, 1 initiator, 2 reverse initiator, 3 perimeter.
            initiator: match self.initiator {
                Some(1) => Some(true),
                Some(2) => Some(false),
                Some(_) | None => counts_of_initiator.then_some(true),
            },
            vlan: self.vlan,
            vlan_inner: self.vlan_inner,
            place: Place::default(),
        })
    }

    /// `None` if there are no counts. Packets without bytes, or bytes without packets, are counts.
    fn sent(&self, way: Way, factor: Factor) -> Option<Sent> {
        let (bytes, packets) = (self.bytes[way as usize].count(), self.packets[way as usize].count());
        if bytes.is_none() && packets.is_none() {
            return None;
        }
        let scaled = |count: Option<u64>| factor.times(count.unwrap_or_default());
        let bytes = scaled(bytes);
        // At least one packet had the bytes.
        let packets = if packets.is_none() { u64::from(bytes > 0) } else { scaled(packets) };
        // No packet of TCP has no flag: an exporter that says so does not know.
        let flags = self.flags[way as usize].filter(|flags| self.protocol == Protocol::TCP.0 && *flags != 0);
        Some(Sent { packets, bytes, flags, dscp: self.dscp[way as usize], since: None })
    }

    fn times(&self, clocks: &Clocks, now: i64) -> (i64, i64, bool) {
        let clocks = Clocks { booted: self.booted.or(clocks.booted), ..*clocks };
        let resolve = |told: Option<(Clock, u64)>| told.and_then(|(clock, value)| clocks.resolve(clock, value));
        let (start, end, observed) = (resolve(self.start), resolve(self.end), resolve(self.observed));
        let (start, end) = match (start, end, self.duration) {
            (Some(start), Some(end), _) => (start, end),
            (Some(start), None, Some(duration)) => (start, start.saturating_add(duration)),
            (Some(start), None, None) => (start, observed.unwrap_or(start)),
            (None, end, duration) => {
                let end = end.or(observed).unwrap_or(clocks.exported);
                (end.saturating_sub(duration.unwrap_or_default()), end)
            }
        };
        time::placed(start, end, now)
    }

    /// Ports; type and code of ICMP as Community ID has them.
    fn ports(&self, protocol: Protocol) -> Option<(u16, u16)> {
        let [from, to] = self.ports;
        match protocol {
            Protocol::ICMP | Protocol::ICMP6 => {
                let type_code = match self.icmp {
                    [Some(kind), code] => Some(u16::from(kind) << 8 | u16::from(code.unwrap_or_default())),
                    // The convention of NetFlow v5: in the destination's port.
                    [None, _] => self.icmp_type_code.filter(|own| *own != 0).or(to).or(self.icmp_type_code),
                }?;
                let [kind, code] = type_code.to_be_bytes();
                Some(icmp_ports(protocol, kind, code))
            }
            Protocol::TCP | Protocol::UDP | Protocol::SCTP | Protocol::UDP_LITE => from.zip(to),
            Protocol(_) => None,
        }
    }

    /// `flowEndReason` (RFC 5102, 5.11.3), or what the flags say; `None` if neither does.
    fn end_reason(&self, protocol: Protocol) -> Option<EndReason> {
        const FIN: u8 = 1;
        const RST: u8 = 4;
        let flags = self.flags.into_iter().flatten().fold(0, |all, flags| all | flags);
        let flags = if protocol == Protocol::TCP { flags } else { 0 };
        let closed = match (flags & RST != 0, flags & FIN != 0) {
            (true, _) => Some(EndReason::Rst),
            (false, true) => Some(EndReason::Fin),
            (false, false) => None,
        };
        match self.end_reason {
            Some(1) => Some(EndReason::Idle),
            Some(2) => Some(EndReason::Active),
            // An end that the exporter detected; of what has no FIN only it knows how.
            Some(3) => closed.or((protocol == Protocol::TCP).then_some(EndReason::Fin)),
            Some(4) => Some(EndReason::Shutdown),
            Some(5) => Some(EndReason::Evicted),
            Some(_) | None => closed,
        }
    }
}

/// Of a point in time that is told in several ways, the most exact one counts.
fn finest(known: &mut Option<(Clock, u64)>, clock: Clock, value: Option<u64>) {
    if let Some(value) = value
        && known.is_none_or(|(known, _)| known <= clock)
    {
        *known = Some((clock, value));
    }
}

fn vlan(id: Option<u16>) -> Option<u16> {
    id.map(|id| id & 0x0fff).filter(|id| *id != 0)
}

/// Which half of a pair a side is.
const _: () = assert!(Side::Source as usize == 0 && Side::Destination as usize == 1);
const _: () = assert!(Way::Forward as usize == 0 && Way::Reverse as usize == 1);
