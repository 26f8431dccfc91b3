//! Who the two ends of an observation were.
//!
//! Each end is asked for by the strongest key first; the first that knows anything decides, be it a name or `ambiguous` (where
//! it is not known whose interface or link-layer address it is, the next may know):
//!
//! 1. the **interface** that carried the packets, for the end on its own side, if the address is one of that identity's (a
//!    container may route for others); if it is the host's, or somebody's who has an interface on this node, it may be either: a
//!    container can send with any address, and what the other one sends itself is seen at its own interface;
//! 2. its **link-layer address** in the network of the interface, under the same conditions (a router's is in all packets that it
//!    forwards: it may be in the other one's network too, and then the address is right);
//! 3. of an end **behind a translation** (a service's address, a published port, a masquerade) its own socket and address, by
//!    the following two; the address that was seen names only the service;
//! 4. its **socket**, at an address of the host, which containers on the host's network share;
//! 5. its **address**: in the network of the interface, then in the networks of the same host, then among static entries (within
//!    a tunnel, or a VLAN on an interface of no network, only pods, nodes and static entries without a network: others' networks may
//!    be numbered as the host's bridges are; or only those of the static file, if it names that VLAN or tunnel); of what
//!    a capture file or an exporter of NetFlow tells, in all networks, and if several have it, it is `ambiguous`;
//! 6. of a server, the **service** that the address belongs to: its only endpoint if it has just one, otherwise the service;
//! 7. the **range** of addresses that a file gives a name: the longest prefix, in the networks of the fifth step. An address of the host
//!    itself is no stranger's: whose it was is a matter of sockets.
//!
//! Whom interface, link-layer address or address name may have guests in its network namespace (`--network container:ID`): then a socket
//! there decides, and without one it is `ambiguous`.
//!
//! Then it is named more exactly: a server by the service of which its address and port are an endpoint, and a pod's
//! container where the pod has just one, one of them has the connection or listens on the port, or just one declares it. Nobody is named on a guess.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use wiretag_capture::{ObservedAt, Source, Wrapping};

use super::connections::{
    Connections, Place, among_residents, by_socket, by_translation, container_of_connection, host_has,
};
use super::observation::{End, Observation};
use super::variants::Variants;
use super::within::Within;
use crate::identity::{ANY_NETWORK, Identity, NODE};
use crate::tagged::{EndTag, TaggedBy};
use crate::timeline::{Lookup, View};

/// Names ends, and keeps the variants of identities that this makes.
#[derive(Default)]
pub(super) struct Namer {
    variants: Variants,
}

/// One end of an observation, and all that it is looked up with.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) boot: &'a str,
    pub(super) view: &'a View,
    pub(super) connections: &'a Connections,
    pub(super) seen: &'a Observation,
    pub(super) within: &'a Within,
    pub(super) end: End,
    pub(super) place: Place,
    mac: Option<[u8; 6]>,
    is_server: bool,
}

impl Asked<'_> {
    /// The same end, asked for by its own address.
    pub(super) fn behind(&self, own: SocketAddr) -> Self {
        Self { end: (own.ip(), Some(own.port())), place: Place { translated: None, ..self.place }, ..*self }
    }
}

impl Namer {
    /// The names of client and server.
    pub(super) fn of(
        &mut self,
        boot: &str,
        seen: &Observation,
        view: &View,
        connections: &Connections,
    ) -> (EndTag, EndTag) {
        self.of_places(boot, seen, (view, connections), connections.places(seen))
    }

    /// The names of client and server, whose sockets are in these places.
    pub(super) fn of_places(
        &mut self,
        boot: &str,
        seen: &Observation,
        (view, connections): (&View, &Connections),
        [client, server]: [Place; 2],
    ) -> (EndTag, EndTag) {
        let within = &Within::of(seen, view);
        let [client, server] = [(seen.client, client, seen.macs[0], false), (seen.server, server, seen.macs[1], true)]
            .map(|(end, place, mac, is_server)| Asked {
                boot,
                view,
                connections,
                seen,
                within,
                end,
                place,
                mac,
                is_server,
            });
        (self.name(&client), self.name(&server))
    }

    fn name(&mut self, asked: &Asked<'_>) -> EndTag {
        let steps = [by_interface, by_mac, by_translation, by_socket, by_own_ip, by_service, by_range];
        let found = steps.into_iter().map(|step| step(asked)).find(|tag| tag.tagged_by != TaggedBy::None);
        let translated = asked.place.translated;
        let EndTag { identity, tagged_by, .. } = among_residents(asked, found.unwrap_or(EndTag::NONE));
        let Some(identity) = identity else { return EndTag { identity, tagged_by, translated } };
        let identity = container(asked, identity);
        let service = service(asked).and_then(|service| service.service.clone());
        // The port of a service is not the container's.
        let port = asked.place.own.map(|own| own.port());
        let port = port.filter(|_| asked.is_server && tagged_by != TaggedBy::Service);
        let port = port.map(|port| (asked.seen.protocol.0, port));
        EndTag { identity: Some(self.variants.of(identity, service, port)), tagged_by, translated }
    }
}

/// Of a pod of several containers: the one whose socket it is, if that is known.
fn container(asked: &Asked<'_>, identity: Arc<Identity>) -> Arc<Identity> {
    let is_open = identity.container.is_none() && identity.containers.len() > 1;
    let Some(own) = asked.place.own.filter(|_| is_open) else { return identity };
    if let Some(exact) = container_of_connection(asked, &identity) {
        return exact;
    }
    if !asked.is_server {
        return identity;
    }
    let at = (own.ip(), own.port());
    match asked.view.listening(&identity.identity, asked.seen.protocol.0, at, asked.seen.when) {
        Lookup::One(exact, _) if exact.container.is_some() => exact.clone(),
        Lookup::One(..) | Lookup::Ambiguous(_) | Lookup::None => identity,
    }
}

/// The owner of the interface, if it is the one of this end.
fn by_interface(asked: &Asked<'_>) -> EndTag {
    let Asked { boot, view, seen, is_server, .. } = asked;
    let own_side = if *is_server { ObservedAt::Server } else { ObservedAt::Client };
    if seen.source != Source::Ring || seen.observed_at != Some(own_side) {
        return EndTag::NONE;
    }
    match view.interface(seen.interface, seen.netns, boot, seen.when) {
        Lookup::One(owner, _) if owns(asked, owner) => tagged(owner, TaggedBy::Interface),
        Lookup::One(owner, _) if neighbour(asked, owner).is_some() || is_from_host(asked) => AMBIGUOUS,
        Lookup::One(..) | Lookup::Ambiguous(_) | Lookup::None => EndTag::NONE,
    }
}

/// The owner of the link-layer address, if it did not only forward the packets.
fn by_mac(asked: &Asked<'_>) -> EndTag {
    let network = asked.within.network().filter(|_| !asked.within.is_apart());
    let Some((mac, network)) = asked.mac.zip(network) else { return EndTag::NONE };
    match asked.view.mac(network, mac, asked.seen.when) {
        Lookup::One(owner, _) if owns(asked, owner) => tagged(owner, TaggedBy::Mac),
        Lookup::One(owner, _) if neighbour(asked, owner).is_some_and(|other| !routes_for(asked, owner, other)) => {
            AMBIGUOUS
        }
        Lookup::One(..) | Lookup::Ambiguous(_) | Lookup::None => EndTag::NONE,
    }
}

/// Who has the address instead of the owner of the interface or link-layer address, and an interface on this node as well.
fn neighbour<'a>(asked: &Asked<'a>, owner: &Identity) -> Option<&'a Arc<Identity>> {
    let Asked { view, seen, place, .. } = asked;
    // Whose the packets of a tunnel are says nothing of those inside.
    let is_its_own = seen.wrapping.tunnel.is_none() && !place.is_elsewhere();
    let Lookup::One(other, _) = Some(holder(asked)).filter(|_| is_its_own)? else { return None };
    Some(other).filter(|other| other.identity != owner.identity && view.is_attached(&other.identity, seen.when))
}

/// Whether the address is the host's own, which has no need of the interface to send.
fn is_from_host(asked: &Asked<'_>) -> bool {
    let Asked { seen, place, end: (ip, _), .. } = asked;
    seen.netns == 0 && seen.wrapping.tunnel.is_none() && !place.is_elsewhere() && host_has(asked, *ip)
}

/// Whether the owner of a link-layer address is, beside this network, in one in which the other one has the address.
fn routes_for(asked: &Asked<'_>, owner: &Identity, other: &Identity) -> bool {
    let Asked { view, seen, within, end: (ip, _), .. } = asked;
    let is_beside =
        |network: &str| within.network() != Some(network) && view.is_in(&owner.identity, network, seen.when);
    matches!(view.ip_in_any(*ip, seen.when, is_beside), Lookup::One(found, _) if found.identity == other.identity)
}

/// Whether an end with this address can be the owner of the interface or link-layer address itself.
fn owns(asked: &Asked<'_>, owner: &Identity) -> bool {
    let ip = asked.end.0;
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    // Inside a tunnel are others' addresses, unless it is known to be its own.
    let is_inside = asked.seen.wrapping.tunnel.is_some();
    let has_ip = || asked.view.has_ip(&owner.identity, ip, asked.seen.when).unwrap_or(!is_inside);
    (link_local && !is_inside) || (!ip.is_multicast() && has_ip())
}

/// By the address that was seen, unless that is a translation's.
fn by_own_ip(asked: &Asked<'_>) -> EndTag {
    if asked.place.is_elsewhere() { EndTag::NONE } else { by_ip(asked) }
}

/// By address.
pub(super) fn by_ip(asked: &Asked<'_>) -> EndTag {
    by_address(&holder(asked))
}

/// Whose address it is: in the interface's network, then on the same host, then static. What a file or an exporter tells may be of any
/// network.
fn holder<'a>(asked: &Asked<'a>) -> Lookup<'a> {
    let Asked { view, seen, within, end: (ip, _), .. } = *asked;
    let in_network = || within.network().map_or(Lookup::None, |network| view.ip(network, ip, seen.when));
    let on_host = || match in_network() {
        Lookup::None if seen.netns == 0 => view.ip_in_any(ip, seen.when, |network| view.is_on_host(network)),
        found => found,
    };
    let found = match (within, seen.source) {
        (Within::Named(_), _) => in_network(),
        (Within::Interface(_) | Within::Unknown(_), Source::File | Source::Netflow) => {
            return view.ip_in_any(ip, seen.when, |network| !Wrapping::is_network(network));
        }
        (Within::Interface(_), Source::Ring) => on_host(),
        (Within::Unknown(_), Source::Ring) => Some(on_host()).filter(is_carried).unwrap_or(Lookup::None),
    };
    match found {
        Lookup::None => view.ip(ANY_NETWORK, ip, seen.when),
        found => found,
    }
}

/// Whether a tunnel or VLAN can lead to whom an address of this host's networks names: a cluster's network is that of its tunnels, while
/// a bridge of this host has nothing to do with what somebody else numbers alike within theirs.
fn is_carried(found: &Lookup<'_>) -> bool {
    let is_cluster_s = |own: &Identity| own.pod.is_some() || own.identity.starts_with(NODE);
    match found {
        Lookup::One(own, _) => is_cluster_s(own),
        Lookup::Ambiguous(several) => several.iter().any(|own| is_cluster_s(own)),
        Lookup::None => false,
    }
}

/// The service of an address that no container has: its only endpoint, or the service.
fn by_service(asked: &Asked<'_>) -> EndTag {
    let (Some(service), Some(network)) = (service(asked), asked.within.network()) else { return EndTag::NONE };
    match asked.view.only_endpoint(network, &service.identity, asked.end.0, asked.seen.when) {
        Lookup::One(endpoint, _) => tagged(endpoint, TaggedBy::Service),
        Lookup::Ambiguous(_) | Lookup::None => tagged(service, TaggedBy::Service),
    }
}

/// The range around the end's own address. Everything else is more exact.
fn by_range(asked: &Asked<'_>) -> EndTag {
    let Asked { view, seen, within, .. } = asked;
    let ip = asked.place.own.filter(|_| asked.place.is_elsewhere()).map_or(asked.end.0, |own| own.ip());
    if seen.source == Source::Ring && !within.is_apart() && host_has(asked, ip) {
        return EndTag::NONE;
    }
    by_address(&match (within, seen.source) {
        (Within::Named(network), _) => view.range(Some(network), ip, seen.when, |_| false),
        (Within::Unknown(_), _) => view.range(None, ip, seen.when, |_| false),
        (Within::Interface(_), Source::File) => {
            view.range_in_any(ip, seen.when, |network| !Wrapping::is_network(network))
        }
        (Within::Interface(own), Source::Ring | Source::Netflow) => {
            view.range(own.as_deref(), ip, seen.when, |network| seen.netns == 0 && view.is_on_host(network))
        }
    })
}

/// The one service that answers at a server's address and port.
fn service<'a>(asked: &Asked<'a>) -> Option<&'a Arc<Identity>> {
    let (Some(port), Some(network), true) = (asked.end.1, asked.within.network(), asked.is_server) else { return None };
    let seen = asked.seen;
    match asked.view.service(network, seen.protocol.0, (asked.end.0, port), seen.when) {
        Lookup::One(service, _) => Some(service),
        Lookup::Ambiguous(_) | Lookup::None => None,
    }
}

fn by_address(found: &Lookup<'_>) -> EndTag {
    match found {
        Lookup::One(identity, source) => {
            tagged(identity, if *source == "static" { TaggedBy::Static } else { TaggedBy::Ip })
        }
        Lookup::Ambiguous(_) => AMBIGUOUS,
        Lookup::None => EndTag::NONE,
    }
}

/// It was one of several.
pub(super) const AMBIGUOUS: EndTag = EndTag { tagged_by: TaggedBy::Ambiguous, ..EndTag::NONE };

pub(super) fn tagged(identity: &Arc<Identity>, tagged_by: TaggedBy) -> EndTag {
    EndTag { identity: Some(identity.clone()), tagged_by, translated: None }
}
