//! What is known of single connections for a while: whose sockets, and which addresses on the other side of a translation.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use wiretag_capture::Source;

use super::names::{AMBIGUOUS, Asked, by_ip, tagged};
use super::observation::{End, Observation};
use super::sockets::{Sockets, Whose, any};
use super::translations::Translations;
use crate::event::IdentityEvent;
use crate::identity::Identity;
use crate::tagged::{EndTag, TaggedBy};
use crate::timeline::Lookup;

/// Whose a socket is and where a connection leads is needed until its last row has left, ns: longer than a slice, the idle
/// timeouts and what rows wait.
const LIFE: i64 = 400_000_000_000;

/// See the module documentation.
#[derive(Default)]
pub(super) struct Connections {
    translations: Translations,
    sockets: Sockets,
}

/// Where the socket of an end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The end's own address, as its socket has it.
    pub(super) own: Option<SocketAddr>,
    /// The other end, as its socket sees it.
    pub(super) peer: Option<SocketAddr>,
    /// The end's address on the side of a translation that was not seen, if it is another.
    pub(super) translated: Option<SocketAddr>,
}

impl Place {
    /// Whether the address that was seen is not the end's own.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.translated.is_some() && self.translated == self.own
    }
}

fn address((ip, port): End) -> Option<SocketAddr> {
    Some(SocketAddr::new(ip, port?))
}

impl Connections {
    /// Takes what a source tells of a connection.
    pub(super) fn learn(&mut self, event: &IdentityEvent) {
        match event {
            IdentityEvent::Translated(told) => self.translations.take(told),
            IdentityEvent::Connected(told) => self.sockets.take(told),
            IdentityEvent::Learned(_)
            | IdentityEvent::Described { .. }
            | IdentityEvent::Same { .. }
            | IdentityEvent::Ended { .. }
            | IdentityEvent::Parted { .. }
            | IdentityEvent::Network { .. }
            | IdentityEvent::Reconciled(_)
            | IdentityEvent::Heard { .. }
            | IdentityEvent::Namespace { .. }
            | IdentityEvent::NamespaceGone { .. } => {}
        }
    }

    /// The places of client and server.
    pub(super) fn places(&self, seen: &Observation) -> [Place; 2] {
        let (client, server) = (address(seen.client), address(seen.server));
        let found = Some(seen).filter(|seen| is_of_host(seen)).and_then(|seen| self.translations.find(seen));
        let Some((sides, client_opened)) = found else {
            let place = |own, peer| Place { own, peer, translated: None };
            return [place(client, server), place(server, client)];
        };
        let ([from, to], [arrives_from, arrives_to]) = (sides.original, sides.translated);
        let on_opener_s_side =
            if client_opened { [client, server] } else { [server, client] } == sides.original.map(Some);
        let other = |here: SocketAddr, there: SocketAddr| {
            (here != there).then_some(if on_opener_s_side { there } else { here })
        };
        let opener = Place { own: Some(from), peer: Some(to), translated: other(from, arrives_from) };
        let answerer = Place { own: Some(arrives_to), peer: Some(arrives_from), translated: other(to, arrives_to) };
        if client_opened { [opener, answerer] } else { [answerer, opener] }
    }

    /// Client and server, with the addresses that the connection has wherever it is seen.
    pub(super) fn ends(&self, seen: &Observation) -> [End; 2] {
        let found = Some(seen).filter(|seen| is_of_host(seen)).and_then(|seen| self.translations.find(seen));
        match found {
            Some((sides, opened)) => {
                let [client, server] = sides.original.map(|end| (end.ip(), Some(end.port())));
                if opened { [client, server] } else { [server, client] }
            }
            None => [seen.client, seen.server],
        }
    }

    /// What found no room: sockets and translations.
    pub(super) fn beyond(&self) -> u64 {
        self.sockets.beyond() + self.translations.beyond()
    }

    /// Forgets what is not needed any more.
    pub(super) fn forget(&mut self, now: i64) {
        let before = now.saturating_sub(LIFE);
        self.sockets.forget(before);
        self.translations.forget(before);
    }
}

/// The host translates, and has its sockets, in its own namespace.
fn is_of_host(seen: &Observation) -> bool {
    seen.source == Source::Ring && seen.netns == 0
}

/// An end behind a translation is named by its own address.
pub(super) fn by_translation(asked: &Asked<'_>) -> EndTag {
    let Some(own) = asked.place.own.filter(|_| asked.place.is_elsewhere()) else { return EndTag::NONE };
    let behind = asked.behind(own);
    match by_socket(&behind) {
        EndTag { tagged_by: TaggedBy::None, .. } => by_ip(&behind),
        found => found,
    }
}

/// Who it was of those that share the network namespace of the one who has the interface or address.
pub(super) fn among_residents(asked: &Asked<'_>, tag: EndTag) -> EndTag {
    let Asked { boot, view, seen, place, .. } = asked;
    let is_owner = matches!(tag.tagged_by, TaggedBy::Interface | TaggedBy::Mac | TaggedBy::Ip);
    let owner = tag.identity.as_ref().filter(|owner| is_owner && seen.source == Source::Ring && owner.pod.is_none());
    let Some(netns) = owner.and_then(|owner| view.shared_namespace(&owner.identity, seen.when)) else { return tag };
    if let Lookup::One(only, _) = view.resident((netns, boot), seen.when)
        && owner.is_some_and(|owner| owner.identity == only.identity)
    {
        return tag;
    }
    match place.own.map_or(EndTag::NONE, |own| by_sockets_of(asked, netns, own)) {
        EndTag { tagged_by: TaggedBy::None, .. } => AMBIGUOUS,
        found => found,
    }
}

/// Which container of a pod it was, by its connection.
pub(super) fn container_of_connection(asked: &Asked<'_>, pod: &Identity) -> Option<Arc<Identity>> {
    let (own, peer) = asked.place.own.zip(asked.place.peer).filter(|_| asked.seen.source == Source::Ring)?;
    match asked.connections.sockets.find_both(false, asked.seen.protocol.0, (own, peer), asked.seen.when) {
        Whose::One(id) => {
            let exact = asked.view.identity(&id, asked.seen.when)?;
            (exact.identity == pod.identity && exact.container.is_some()).then_some(exact)
        }
        Whose::Several | Whose::Nobody => None,
    }
}

/// At an address of the host: whose socket is it?
pub(super) fn by_socket(asked: &Asked<'_>) -> EndTag {
    let Asked { seen, place, .. } = asked;
    let Some(own) = place.own.filter(|_| is_of_host(seen) && !place.is_elsewhere()) else { return EndTag::NONE };
    // A socket tells nothing of an address that is not the host's.
    if !host_has(asked, own.ip()) {
        return EndTag::NONE;
    }
    if asked.within.is_apart() {
        // The host may have that address, and others too: only both ends together are its own.
        return by_connection(asked, own);
    }
    by_sockets_of(asked, 0, own)
}

/// Whether it is an address of the host, as the kernel says.
pub(super) fn host_has(asked: &Asked<'_>, ip: IpAddr) -> bool {
    let Asked { boot, view, seen, .. } = asked;
    ip.is_loopback() || view.socket((0, boot), 0, (ip, 0), seen.when) != Lookup::None
}

/// Whose connection it is in wiretag's own namespace.
fn by_connection(asked: &Asked<'_>, own: SocketAddr) -> EndTag {
    let Asked { seen, place, connections, .. } = asked;
    let whose = place.peer.map(|peer| connections.sockets.find_both(true, seen.protocol.0, (own, peer), seen.when));
    match whose.unwrap_or(Whose::Nobody) {
        Whose::One(id) => tagged(&identity(asked, &id), TaggedBy::Socket),
        Whose::Several => AMBIGUOUS,
        Whose::Nobody => EndTag::NONE,
    }
}

/// Whose socket it is in a network namespace: the connection's, or the one that listens.
fn by_sockets_of(asked: &Asked<'_>, netns: u64, own: SocketAddr) -> EndTag {
    let Asked { boot, view, seen, place, connections, .. } = asked;
    let protocol = seen.protocol.0;
    let connected = place.peer.map(|peer| connections.sockets.find(netns, protocol, own, peer, seen.when));
    match connected.unwrap_or(Whose::Nobody) {
        Whose::One(id) => return tagged(&identity(asked, &id), TaggedBy::Socket),
        Whose::Several => return AMBIGUOUS,
        Whose::Nobody => {}
    }
    let [exact, all] = [own.ip(), any(own.ip())];
    let listening = [exact, all].map(|ip| view.socket((netns, boot), protocol, (ip, own.port()), seen.when));
    match listening.into_iter().find(|found| *found != Lookup::None) {
        Some(Lookup::One(owner, _)) => tagged(owner, TaggedBy::Socket),
        Some(Lookup::Ambiguous(_)) => AMBIGUOUS,
        Some(Lookup::None) | None => {
            let bound = [Some(exact), Some(all), None];
            let in_turn = view.sockets_in_turn((netns, boot), protocol, (bound, own.port()), seen.when);
            if in_turn { AMBIGUOUS } else { EndTag::NONE }
        }
    }
}

/// What is known of a container; at least its id.
fn identity(asked: &Asked<'_>, id: &Arc<str>) -> Arc<Identity> {
    let bare = || Arc::new(Identity { identity: id.clone(), ..Identity::default() });
    asked.view.identity(id, asked.seen.when).unwrap_or_else(bare)
}
