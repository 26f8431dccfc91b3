//! The flow record: one connection (or UDP/ICMP exchange) at one observation point during one slice.
//!
//! The record is a plain value. Its columns, with names, kinds and documentation, are in [`crate::columns`].

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use crate::flow::CommunityId;

pub use crate::packet::Direction;
pub use crate::tunnel::{MAX_TUNNELS, Tunnel, TunnelKind, TunnelStack};

/// Declares a closed enum whose variants have one spelling, used in JSON, Parquet and queries alike.
macro_rules! vocabulary {
    ($(#[$meta:meta])* $vis:vis $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $vis enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every value, in the order of declaration.
            $vis const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The spelling in every interface.
            $vis const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use vocabulary;

vocabulary! {
    /// Why a slice ended.
    pub EndReason {
        /// Both sides closed with FIN, and the linger time passed.
        Fin = "fin",
        /// A reset ended the connection.
        Rst = "rst",
        /// No packet for the idle timeout, or another connection has its addresses and ports.
        Idle = "idle",
        /// The active timeout was over, or the interface was renamed: the next slice follows if the flow speaks again.
        Active = "active",
        /// The flow table was full.
        Evicted = "evicted",
        /// The capture file ended, or the interface is gone.
        EndOfInput = "end_of_input",
        /// The appliance was stopped, or the clock of its machine went back.
        Shutdown = "shutdown",
        /// The appliance was killed or crashed; the row is what its journal had last, as of at most a few seconds before.
        Interrupted = "interrupted",
        /// An exporter sent its record, and did not say why.
        Exported = "exported",
    }
}

vocabulary! {
    /// What kind of source saw the packets.
    pub Source {
        /// `AF_PACKET` ring.
        Ring = "ring",
        /// Capture file.
        File = "file",
        /// Records of an exporter of NetFlow or IPFIX: no packets were seen.
        Netflow = "netflow",
    }
}

vocabulary! {
    /// Where on its way the flow was seen.
    pub ObservedAt {
        /// On the client's own interface.
        Client = "client",
        /// On the server's own interface.
        Server = "server",
        /// Between the two.
        Path = "path",
    }
}

vocabulary! {
    /// What decided which side is the client.
    pub OrientedBy {
        /// A SYN, or SCTP's INIT: its sender is the client.
        Syn = "syn",
        /// A SYN-ACK, or SCTP's INIT ACK: its receiver is the client.
        SynAck = "synack",
        /// Only one side has a well-known port (below 1024), or the ports differ in kind: the lower one serves.
        Port = "port",
        /// The sender of the first packet seen; its receiver if it is an answer of ICMP.
        FirstPacket = "first_packet",
        /// The exporter said who the initiator is (RFC 5103).
        Exporter = "exporter",
    }
}

vocabulary! {
    /// Connection state at the end of the slice; names and meaning as Zeek's `conn_state`.
    pub TcpState {
        /// SYN without answer.
        S0 = "S0",
        /// Established, not closed.
        S1 = "S1",
        /// Established and closed by both sides.
        Sf = "SF",
        /// Refused: SYN answered by RST.
        Rej = "REJ",
        /// Established, client's FIN seen, server's not.
        S2 = "S2",
        /// Established, server's FIN seen, client's not.
        S3 = "S3",
        /// Established, client reset.
        Rsto = "RSTO",
        /// Server reset.
        Rstr = "RSTR",
        /// Client sent SYN then RST, no SYN-ACK seen.
        Rstos0 = "RSTOS0",
        /// Server sent SYN-ACK then RST, no SYN seen.
        Rstrh = "RSTRH",
        /// Client sent SYN then FIN, no SYN-ACK seen.
        Sh = "SH",
        /// Server sent SYN-ACK then FIN, no SYN seen.
        Shr = "SHR",
        /// No SYN seen.
        Oth = "OTH",
    }
}

/// IP protocol number of the innermost packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP, RFC 792.
    pub const ICMP: Self = Self(1);
    /// IGMP, RFC 9776.
    pub const IGMP: Self = Self(2);
    /// TCP, RFC 9293.
    pub const TCP: Self = Self(6);
    /// UDP, RFC 768.
    pub const UDP: Self = Self(17);
    /// Generic routing encapsulation, RFC 2784.
    pub const GRE: Self = Self(47);
    /// Encapsulating security payload, RFC 4303.
    pub const ESP: Self = Self(50);
    /// Authentication header, RFC 4302.
    pub const AH: Self = Self(51);
    /// ICMPv6, RFC 4443.
    pub const ICMP6: Self = Self(58);
    /// SCTP, RFC 9260.
    pub const SCTP: Self = Self(132);
    /// UDP-Lite, RFC 3828.
    pub const UDP_LITE: Self = Self(136);

    /// The protocol of this name, as [`Self::name`] gives it.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "icmp" => Some(Self::ICMP),
            "igmp" => Some(Self::IGMP),
            "tcp" => Some(Self::TCP),
            "udp" => Some(Self::UDP),
            "icmp6" => Some(Self::ICMP6),
            "sctp" => Some(Self::SCTP),
            number => number.parse().ok().map(Self),
        }
    }

    /// The name used in every interface; protocols without one are their number.
    pub fn name(self) -> Cow<'static, str> {
        match self {
            Self::ICMP => "icmp".into(),
            Self::IGMP => "igmp".into(),
            Self::TCP => "tcp".into(),
            Self::UDP => "udp".into(),
            Self::ICMP6 => "icmp6".into(),
            Self::SCTP => "sctp".into(),
            Self(number) => number.to_string().into(),
        }
    }
}

/// What one side of a flow did during the slice. `None` means not seen, never zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// Address in the innermost packet.
    pub ip: IpAddr,
    /// Port; for ICMP the type and code as Community ID defines them; `None` for protocols without ports.
    pub port: Option<u16>,
    /// Link-layer source address of this side's packets (else destination of the other side's).
    pub mac: Option<[u8; 6]>,
    /// Packets sent.
    pub packets: u64,
    /// IP bytes of the innermost packets sent (IPFIX octetDeltaCount).
    pub bytes: u64,
    /// Layer 4 payload bytes sent, for TCP without repetitions; 0 where an exporter told of the flow, which says nothing of it.
    pub payload_bytes: u64,
    /// Sequence gaps that the other side acknowledged but that never arrived at the capture point, in segments.
    pub packets_missed: Option<u32>,
    /// TCP flags seen, or-ed: bit 0 FIN … bit 7 CWR.
    pub tcp_flags: Option<u8>,
    /// Segments whose sequence space was seen before in this direction.
    pub retransmits: Option<u32>,
    /// Payload bytes in repeated sequence space.
    pub retransmit_bytes: Option<u64>,
    /// Of these, those that duplicate acknowledgements asked for (RFC 5681).
    pub fast_retransmits: Option<u32>,
    /// Of these, those that a timeout sent (RFC 6298).
    pub timeout_retransmits: Option<u32>,
    /// Of these, those of data that was acknowledged already.
    pub spurious_retransmits: Option<u32>,
    /// Segments with new data that arrived late.
    pub out_of_order: Option<u32>,
    /// Keep-alives (RFC 9293, 3.8.4).
    pub keep_alives: Option<u32>,
    /// Packets that the capture delivered twice.
    pub capture_duplicates: Option<u32>,
    /// Duplicate acknowledgements.
    pub duplicate_acks: Option<u32>,
    /// Segments other than SYN and RST with a window of zero.
    pub zero_windows: Option<u32>,
    /// Time with a closed window, µs.
    pub zero_window_us: Option<u64>,
    /// RST segments.
    pub resets: Option<u32>,
    /// MSS option of the SYN.
    pub mss: Option<u16>,
    /// Window scale option of the SYN (RFC 7323), a shift count.
    pub window_scale: Option<u8>,
    /// Greatest window offered, scaled, bytes.
    pub window_max: Option<u32>,
    /// This side's half of the handshake: capture point to it and back, µs.
    pub rtt_us: Option<u32>,
    /// Mean time from data to its acknowledgement by this side, µs.
    pub rtt_avg_us: Option<u32>,
    /// Greatest time from data to its acknowledgement by this side, µs.
    pub rtt_max_us: Option<u32>,
}

impl Side {
    /// A side that has not sent anything yet.
    pub fn new(ip: IpAddr, port: Option<u16>) -> Self {
        Self {
            ip,
            port,
            mac: None,
            packets: 0,
            bytes: 0,
            payload_bytes: 0,
            packets_missed: None,
            tcp_flags: None,
            retransmits: None,
            retransmit_bytes: None,
            fast_retransmits: None,
            timeout_retransmits: None,
            spurious_retransmits: None,
            out_of_order: None,
            keep_alives: None,
            capture_duplicates: None,
            duplicate_acks: None,
            zero_windows: None,
            zero_window_us: None,
            resets: None,
            mss: None,
            window_scale: None,
            window_max: None,
            rtt_us: None,
            rtt_avg_us: None,
            rtt_max_us: None,
        }
    }
}

vocabulary! {
    /// What an ICMP or ICMPv6 error says of the packet that it quotes (RFC 792, 1122, 1812, 4443).
    pub IcmpError {
        /// No route.
        NetUnreachable = "net_unreachable",
        /// No host.
        HostUnreachable = "host_unreachable",
        /// No such protocol there.
        ProtocolUnreachable = "protocol_unreachable",
        /// Nobody listens.
        PortUnreachable = "port_unreachable",
        /// Fragmentation needed, or packet too big.
        PacketTooBig = "packet_too_big",
        /// A source route failed.
        SourceRouteFailed = "source_route_failed",
        /// Forbidden by a filter or a policy.
        AdminProhibited = "admin_prohibited",
        /// Beyond the scope of the source address.
        BeyondScope = "beyond_scope",
        /// Unreachable for a reason without a name.
        Unreachable = "unreachable",
        /// Asked to send less.
        SourceQuench = "source_quench",
        /// There is a better way.
        Redirect = "redirect",
        /// Hop limit or time for reassembly exceeded.
        TimeExceeded = "time_exceeded",
        /// A header field is wrong.
        ParameterProblem = "parameter_problem",
    }
}

/// DNS fields of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dns {
    /// Name of the first question, lower case as on the wire, without the final dot.
    pub query: Option<Arc<str>>,
    /// Type of the first question, IANA mnemonic or `TYPEn`.
    pub qtype: Option<Cow<'static, str>>,
    /// Response code, IANA mnemonic or `RCODEn`.
    pub rcode: Option<Cow<'static, str>>,
    /// Last repetition of the query to its response, µs.
    pub latency_us: Option<u64>,
    /// Number of answer records.
    pub answers: Option<u64>,
    /// Repetitions of queries.
    pub retries: Option<u64>,
}

/// TLS (or QUIC) handshake fields of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// Server name of the ClientHello.
    pub sni: Option<Arc<str>>,
    /// Version that the server chose, else the highest that the client offers: `1.3`, `1.2`, …
    pub version: Option<&'static str>,
    /// Protocol that the server chose, else the first that the client offers.
    pub alpn: Option<Arc<str>>,
    /// JA4 of the ClientHello.
    pub ja4: Option<Arc<str>>,
}

/// HTTP fields of a slice: the first request, its answer, and counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Http {
    /// Method of the first request.
    pub method: Option<Arc<str>>,
    /// Host (or `:authority`) of the first request.
    pub host: Option<Arc<str>>,
    /// Target of the first request, as on the wire, but without name and password.
    pub path: Option<Arc<str>>,
    /// Status of its final response.
    pub status: Option<u16>,
    /// Last byte of that request to first byte of the status line, µs.
    pub latency_us: Option<u64>,
    /// Requests.
    pub requests: u64,
    /// Responses with status 400 or above.
    pub errors: u64,
}

/// Response times of a slice: last byte of a request to first byte of its answer, µs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Responses {
    /// Of the first answer.
    pub first_us: u32,
    /// Mean.
    pub avg_us: u32,
    /// Greatest.
    pub max_us: u32,
    /// Answers.
    pub count: u32,
}

/// One row: see the module documentation and [`crate::columns::columns`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowRecord {
    /// Hash of observation point, flow key and start; the same in all slices.
    pub flow_id: u64,
    /// 0 for the first slice.
    pub slice: u32,
    /// First packet of the slice, ns since the epoch.
    pub start: i64,
    /// Last packet of the slice, ns since the epoch.
    pub end: i64,
    /// Why the slice ended; `None` while it is open: its figures may still grow.
    pub end_reason: Option<EndReason>,
    /// Community ID v1, seed 0.
    pub community_id: Option<CommunityId>,
    /// Node that captured, or the exporter's address.
    pub node: Arc<str>,
    /// Name of the interface.
    pub interface: Arc<str>,
    /// Interface number as in [`crate::Packet::interface`].
    pub interface_index: u32,
    /// Kind of source.
    pub source: Source,
    /// Direction of the client's packets on the interface, where the source knows it.
    pub client_direction: Option<Direction>,
    /// Filled by the tagger.
    pub observed_at: Option<ObservedAt>,
    /// Counts in totals; the tagger clears it for further observations of the same packets.
    pub primary: bool,
    /// What named the client.
    pub oriented_by: OrientedBy,
    /// IP protocol.
    pub protocol: Protocol,
    /// The side that opened.
    pub client: Side,
    /// The other side.
    pub server: Side,
    /// Outer VLAN id.
    pub vlan: Option<u16>,
    /// Inner VLAN id.
    pub vlan_inner: Option<u16>,
    /// DSCP of the client's first packet.
    pub dscp: Option<u8>,
    /// Tunnel around the flow.
    pub tunnel: Option<Tunnel>,
    /// Connection state (TCP).
    pub tcp_state: Option<TcpState>,
    /// SYNs after the first with the same sequence number.
    pub syn_retries: Option<u32>,
    /// Whole handshake, µs.
    pub handshake_rtt_us: Option<u32>,
    /// Response times.
    pub responses: Option<Responses>,
    /// Application protocol, if recognised.
    pub app: Option<&'static str>,
    /// DNS fields.
    pub dns: Option<Box<Dns>>,
    /// TLS fields.
    pub tls: Option<Box<Tls>>,
    /// HTTP fields.
    pub http: Option<Box<Http>>,
    /// ICMP error that quoted the flow: `net_unreachable`, `port_unreachable`, `packet_too_big`, `time_exceeded`, …
    pub icmp_error: Option<&'static str>,
    /// Packets of this slice that the packet log kept.
    pub packets_stored: Option<u64>,
    /// Retention class of the packets.
    pub retention: Option<Arc<str>>,
}

impl FlowRecord {
    /// The record of a flow of which nothing is known but its ends: primary, not ended, no time, no place, everything else not seen.
    pub fn new(protocol: Protocol, client: Side, server: Side) -> Self {
        Self {
            flow_id: 0,
            slice: 0,
            start: 0,
            end: 0,
            end_reason: None,
            community_id: None,
            node: Arc::from(""),
            interface: Arc::from(""),
            interface_index: 0,
            source: Source::File,
            client_direction: None,
            observed_at: None,
            primary: true,
            oriented_by: OrientedBy::FirstPacket,
            protocol,
            client,
            server,
            vlan: None,
            vlan_inner: None,
            dscp: None,
            tunnel: None,
            tcp_state: None,
            syn_retries: None,
            handshake_rtt_us: None,
            responses: None,
            app: None,
            dns: None,
            tls: None,
            http: None,
            icmp_error: None,
            packets_stored: None,
            retention: None,
        }
    }

    /// The flow id as users see it: 16 hex digits.
    pub fn flow_id_hex(&self) -> String {
        // Every row has one: without the machinery of `format!`.
        let digit = |at: usize| (self.flow_id >> (60 - 4 * at) & 15) as u8;
        let digits: [u8; 16] = std::array::from_fn(|at| digit(at) + if digit(at) < 10 { b'0' } else { b'a' - 10 });
        String::from_utf8_lossy(&digits).into_owned()
    }
}
