//! Why a packet belongs to no flow.

/// Each is a counted reason that names the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DecodeError {
    /// The link type has no decoder.
    #[error("link type has no decoder")]
    LinkType,
    /// Not IP: ARP, LLDP, STP and the like.
    #[error("not an IP packet")]
    NotIp,
    /// Encrypted on the link (MACsec, IEEE 802.1AE): nobody can say what it is.
    #[error("encrypted on the link")]
    Macsec,
    /// Encrypted on the air (802.11).
    #[error("encrypted on the air")]
    Wlan,
    /// Cut before the end of the link-layer header.
    #[error("cut in the link-layer header")]
    LinkCut,
    /// Fields of the link-layer headers contradict each other, or too many are stacked.
    #[error("malformed link-layer header")]
    LinkMalformed,
    /// Cut before the end of the IP header.
    #[error("cut in the IP header")]
    IpCut,
    /// Version, header length or total length of the IP header contradict each other.
    #[error("malformed IP header")]
    IpMalformed,
    /// Cut before the end of the transport header.
    #[error("cut in the transport header")]
    TransportCut,
    /// Lengths in the transport header contradict each other.
    #[error("malformed transport header")]
    TransportMalformed,
}

impl DecodeError {
    /// Whether there is too little of the packet to say more.
    pub(super) const fn is_cut(self) -> bool {
        match self {
            Self::LinkCut | Self::IpCut | Self::TransportCut => true,
            Self::LinkType
            | Self::NotIp
            | Self::Macsec
            | Self::Wlan
            | Self::LinkMalformed
            | Self::IpMalformed
            | Self::TransportMalformed => false,
        }
    }

    /// Label of the reason in metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::LinkType => "link_type",
            Self::NotIp => "not_ip",
            Self::Macsec => "macsec",
            Self::Wlan => "wlan_encrypted",
            Self::LinkCut => "link_cut",
            Self::LinkMalformed => "link_malformed",
            Self::IpCut => "ip_cut",
            Self::IpMalformed => "ip_malformed",
            Self::TransportCut => "transport_cut",
            Self::TransportMalformed => "transport_malformed",
        }
    }
}
