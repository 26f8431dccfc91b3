//! What kind of flow it is by now: decides how long it may be idle, and how soon it is evicted.

use super::config::{CLOSED_LINGER, CLOSING_TIMEOUT, DNS_IDLE_TIMEOUT, FlowConfig, HALF_OPEN_TIMEOUT};

/// See the module documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// SYNs without an answer, or whose answer was not acknowledged.
    HalfOpen,
    /// One TCP segment, other than a SYN, or one packet of an SCTP association.
    TcpOnce,
    /// One UDP datagram.
    UdpOnce,
    /// One packet of another protocol.
    OtherOnce,
    /// A TCP connection that is closed, and both ends know.
    Closed,
    /// A TCP connection that is closed, but a FIN was not acknowledged.
    Closing,
    /// DNS over UDP with all queries answered.
    Answered,
    /// UDP.
    Udp,
    /// Other protocols.
    Other,
    /// A TCP connection that is not closed, or an SCTP association.
    Tcp,
}

/// Number of classes.
pub(super) const CLASSES: usize = 10;

/// What a flow is worth when the table is full, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    /// HalfOpen, or of one packet: what scans and floods are made of.
    Fleeting,
    /// Over: only repetitions may follow.
    Over,
    /// Packets without a connection.
    Exchange,
    /// A connection.
    Connection,
}

/// Number of values.
pub(super) const VALUES: usize = 4;

impl Value {
    /// In the order of eviction.
    pub(super) const ALL: &'static [Self; VALUES] = &[Self::Fleeting, Self::Over, Self::Exchange, Self::Connection];

    /// Label in metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Fleeting => "fleeting",
            Self::Over => "over",
            Self::Exchange => "exchange",
            Self::Connection => "connection",
        }
    }
}

impl Class {
    /// In the order of declaration.
    pub(super) const ALL: [Self; CLASSES] = [
        Self::HalfOpen,
        Self::TcpOnce,
        Self::UdpOnce,
        Self::OtherOnce,
        Self::Closed,
        Self::Closing,
        Self::Answered,
        Self::Udp,
        Self::Other,
        Self::Tcp,
    ];

    pub(super) fn idle_timeout(self, config: &FlowConfig) -> i64 {
        let tcp = config.tcp_idle_timeout;
        let udp = config.udp_idle_timeout;
        match self {
            Self::HalfOpen => tcp.min(HALF_OPEN_TIMEOUT),
            Self::TcpOnce | Self::Tcp => tcp,
            Self::UdpOnce | Self::Udp => udp,
            Self::OtherOnce | Self::Other => config.other_idle_timeout,
            Self::Closed => tcp.min(CLOSED_LINGER),
            Self::Closing => tcp.min(CLOSING_TIMEOUT),
            Self::Answered => udp.min(DNS_IDLE_TIMEOUT),
        }
    }

    pub(super) const fn value(self) -> Value {
        match self {
            Self::HalfOpen | Self::TcpOnce | Self::UdpOnce | Self::OtherOnce => Value::Fleeting,
            Self::Closed | Self::Closing | Self::Answered => Value::Over,
            Self::Udp | Self::Other => Value::Exchange,
            Self::Tcp => Value::Connection,
        }
    }
}
