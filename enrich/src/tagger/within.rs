//! In which network the addresses of an observation are. An address says little without it: two bridges, VLANs or tunnels of other
//! people may number their ends alike, and a mirror port carries many of these side by side.

use std::sync::Arc;

use wiretag_capture::Source;

use super::observation::Observation;
use crate::identity::VRF;
use crate::timeline::View;

/// See the module documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Within {
    /// In the interface's, if that is known, and then in those of the host.
    Interface(Option<Arc<str>>),
    /// In that of the VLAN or tunnel around the packets, of which the static file names somebody, or of the VRF that the interface is in.
    Named(Arc<str>),
    /// In that of a VLAN or tunnel of which nobody told; beside it the interface's.
    Unknown(Option<Arc<str>>),
}

impl Within {
    pub(super) fn of(seen: &Observation, view: &View) -> Self {
        let wrapping = seen.wrapping;
        if let Some(name) = wrapping.network().filter(|name| view.network_number(name).is_some()) {
            return Self::Named(name.into());
        }
        match seen.source {
            // They are of any network.
            Source::File | Source::Netflow => Self::Interface(None),
            Source::Ring => {
                let own = view.network_of_interface(seen.interface, seen.netns, seen.when);
                let is_tagged = wrapping.vlan.is_some() || wrapping.vlan_inner.is_some();
                // A VLAN on an interface of a known network is its container's own doing.
                let is_apart = wrapping.tunnel.is_some() || (is_tagged && own.is_none());
                match own {
                    own if is_apart => Self::Unknown(own),
                    Some(own) if own.starts_with(VRF) => Self::Named(own),
                    own => Self::Interface(own),
                }
            }
        }
    }

    /// The network to look in first.
    pub(super) fn network(&self) -> Option<&str> {
        match self {
            Self::Interface(own) | Self::Unknown(own) => own.as_deref(),
            Self::Named(own) => Some(own),
        }
    }

    /// Whether the addresses are in a network that the interface's says nothing of.
    pub(super) const fn is_apart(&self) -> bool {
        match self {
            Self::Interface(_) => false,
            Self::Named(_) | Self::Unknown(_) => true,
        }
    }
}
