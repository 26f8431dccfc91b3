//! Who the two ends of an observation were.
//!
//! The end whose own interface carried the packets is named by that interface, if the address is one of that identity's
//! (a container may route for others). The other end is named by its address in the network of the interface, then in the
//! networks of the same host, then among static entries. Nobody is named on a guess.

use std::net::IpAddr;
use std::sync::Arc;

use wiretag_capture::{ObservedAt, Source};

use super::observation::Observation;
use crate::identity::Identity;
use crate::tagged::{EndTag, TaggedBy};
use crate::timeline::{Lookup, Span, Timeline};

/// The names of client and server.
pub(super) fn names(boot: &Arc<str>, seen: &Observation, timeline: &Timeline) -> (EndTag, EndTag) {
    let (when, (client, _), (server, _)) = (seen.when, seen.client, seen.server);
    if seen.source == Source::File {
        let by_ip = |ip| by_address(timeline.ip_in_any(ip, when, |_| true));
        return (by_ip(client), by_ip(server));
    }
    let owner = match timeline.interface(seen.interface, seen.netns, boot, when) {
        Lookup::One(identity, _) => Some(identity),
        Lookup::Ambiguous(_) | Lookup::None => None,
    };
    let network = timeline.network_of_interface(seen.interface, seen.netns, when);
    let name = |ip: IpAddr, own_side: bool| {
        let owner = owner.as_ref().filter(|owner| own_side && owns(timeline, owner, ip, when));
        match owner {
            Some(owner) => EndTag { identity: Some(owner.clone()), tagged_by: TaggedBy::Interface },
            None => by_ip(timeline, seen.netns, network.as_deref(), ip, when),
        }
    };
    let at = seen.observed_at;
    (name(client, at == Some(ObservedAt::Client)), name(server, at == Some(ObservedAt::Server)))
}

/// Whether an end with this address can be the owner of the interface itself.
fn owns(timeline: &Timeline, owner: &Identity, ip: IpAddr, when: Span) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    link_local || (!ip.is_multicast() && timeline.has_ip(&owner.identity, ip, when).unwrap_or(true))
}

/// By address: in the interface's network, then on the same host, then static.
fn by_ip(timeline: &Timeline, netns: u64, network: Option<&str>, ip: IpAddr, when: Span) -> EndTag {
    let in_network = network.map_or(Lookup::None, |network| timeline.ip(network, ip, when));
    let found = match in_network {
        Lookup::None if netns == 0 => timeline.ip_in_any(ip, when, |network| timeline.is_on_host(network)),
        found => found,
    };
    let found = match found {
        Lookup::None => timeline.ip(crate::identity::ANY_NETWORK, ip, when),
        found => found,
    };
    by_address(found)
}

fn by_address(found: Lookup) -> EndTag {
    match found {
        Lookup::One(identity, source) => {
            let tagged_by = if &*source == "static" { TaggedBy::Static } else { TaggedBy::Ip };
            EndTag { identity: Some(identity), tagged_by }
        }
        Lookup::Ambiguous(_) => EndTag { identity: None, tagged_by: TaggedBy::Ambiguous },
        Lookup::None => EndTag::NONE,
    }
}
