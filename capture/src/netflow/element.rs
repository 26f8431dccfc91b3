//! Information elements: what a field of a template means.
//!
//! NetFlow v9's field types and IPFIX' elements of the IANA registry share their numbers up to 127. Elements of the
//! reverse direction have the enterprise number of RFC 5103. What is not known is passed over by its length.

/// Enterprise number of reverse elements (RFC 5103, 6.1).
const REVERSE: u32 = 29_305;

/// Of a record with both directions: that of the source, or the other one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Forward,
    Reverse,
}

/// How a point in time is told, the most exact last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Clock {
    /// Microseconds before the message was exported, which is told in seconds.
    Before,
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since the exporter started.
    Uptime,
    /// Milliseconds since 1970.
    Milliseconds,
    /// Seconds since 1900, and a binary fraction of which microseconds count.
    Microseconds,
    /// Seconds since 1900, and a binary fraction.
    Nanoseconds,
}

/// Which of two equal things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Destination,
}

/// What is read of a record. The rest is [`Element::Unknown`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    Address(Side),
    Port(Side),
    Mac(Side),
    Protocol,
    /// Since the last record of the flow.
    Bytes(Way),
    Packets(Way),
    /// Since the flow began: taken where there is no other.
    TotalBytes(Way),
    TotalPackets(Way),
    /// Of what is sent on: taken where there is no other.
    SentBytes,
    SentPackets,
    /// Of the initiator and of the responder, who are known.
    InitiatorBytes(Way),
    InitiatorPackets(Way),
    TcpFlags(Way),
    /// Type and code of ICMP or ICMPv6, in two bytes.
    IcmpTypeCode,
    IcmpType,
    IcmpCode,
    TypeOfService(Way),
    Dscp,
    Start(Clock),
    End(Clock),
    /// When what the record tells was observed: its end, where there is no other.
    Observed(Clock),
    /// From the first packet to the last, in units of so many nanoseconds.
    Duration(i64),
    /// When the exporter started, milliseconds since 1970.
    Booted,
    EndReason,
    /// Whether the record was made where packets come in or go out.
    Sense,
    /// Which end is the initiator (RFC 5103).
    Initiator,
    Ingress,
    Egress,
    InterfaceName,
    Vlan,
    InnerVlan,
    /// One packet of so many was looked at.
    SamplingInterval,
    /// Packets looked at, and passed over, in turn (RFC 5477).
    SampledPackets,
    SkippedPackets,
    /// So many of a population.
    SampleSize,
    SamplePopulation,
    /// With which probability a packet was looked at.
    SamplingProbability,
    /// Which sampler's figures: told in options.
    Sampler,
    Unknown,
}

/// The element of a field of IPFIX or, without an enterprise, of NetFlow v9.
pub(super) const fn element(enterprise: Option<u32>, id: u16) -> Element {
    match enterprise {
        None => forward(id),
        Some(REVERSE) => reverse(id),
        Some(_) => Element::Unknown,
    }
}

const fn forward(id: u16) -> Element {
    use Element as E;
    match id {
        1 => E::Bytes(Way::Forward),
        2 => E::Packets(Way::Forward),
        4 => E::Protocol,
        5 => E::TypeOfService(Way::Forward),
        6 => E::TcpFlags(Way::Forward),
        7 | 180 | 182 => E::Port(Side::Source),
        8 | 27 => E::Address(Side::Source),
        10 => E::Ingress,
        11 | 181 | 183 => E::Port(Side::Destination),
        12 | 28 => E::Address(Side::Destination),
        14 => E::Egress,
        21 => E::End(Clock::Uptime),
        22 => E::Start(Clock::Uptime),
        23 => E::SentBytes,
        24 => E::SentPackets,
        32 | 139 => E::IcmpTypeCode,
        34 | 50 => E::SamplingInterval,
        48 | 302 => E::Sampler,
        56 | 81 => E::Mac(Side::Source),
        57 | 80 => E::Mac(Side::Destination),
        58 | 243 => E::Vlan,
        61 => E::Sense,
        82 => E::InterfaceName,
        85 => E::TotalBytes(Way::Forward),
        86 => E::TotalPackets(Way::Forward),
        136 => E::EndReason,
        150 => E::Start(Clock::Seconds),
        151 => E::End(Clock::Seconds),
        152 => E::Start(Clock::Milliseconds),
        153 => E::End(Clock::Milliseconds),
        154 => E::Start(Clock::Microseconds),
        155 => E::End(Clock::Microseconds),
        156 => E::Start(Clock::Nanoseconds),
        157 => E::End(Clock::Nanoseconds),
        158 => E::Start(Clock::Before),
        159 => E::End(Clock::Before),
        160 => E::Booted,
        161 => E::Duration(1_000_000),
        162 => E::Duration(1_000),
        176 | 178 => E::IcmpType,
        177 | 179 => E::IcmpCode,
        195 => E::Dscp,
        231 => E::InitiatorBytes(Way::Forward),
        232 => E::InitiatorBytes(Way::Reverse),
        239 => E::Initiator,
        245 => E::InnerVlan,
        298 => E::InitiatorPackets(Way::Forward),
        299 => E::InitiatorPackets(Way::Reverse),
        305 => E::SampledPackets,
        306 => E::SkippedPackets,
        309 => E::SampleSize,
        310 => E::SamplePopulation,
        311 => E::SamplingProbability,
        322 => E::Observed(Clock::Seconds),
        323 => E::Observed(Clock::Milliseconds),
        324 => E::Observed(Clock::Microseconds),
        325 => E::Observed(Clock::Nanoseconds),
        _ => E::Unknown,
    }
}

const fn reverse(id: u16) -> Element {
    use Element as E;
    match id {
        1 => E::Bytes(Way::Reverse),
        2 => E::Packets(Way::Reverse),
        5 => E::TypeOfService(Way::Reverse),
        6 => E::TcpFlags(Way::Reverse),
        85 => E::TotalBytes(Way::Reverse),
        86 => E::TotalPackets(Way::Reverse),
        _ => E::Unknown,
    }
}
