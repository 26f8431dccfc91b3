//! Names for the ends of stored rows that have none, because they were told only later: by the same [`super::names`] as live rows,
//! as of the packets' time.
//!
//! A name, once given, stays: only ends that are `none` or `ambiguous` are asked for, and only one sure identity is an answer.
//!
//! What a stored row does not tell is not guessed either:
//! * whose the sockets of its time were. So an end that was `ambiguous` is named by no socket, and by no address that containers on
//!   the host's network may share with the node;
//! * on which side of a translation its own address is, unless the row was seen on an interface of one of the ends;
//! * the number of its interface, once that is gone. Then it is one of the host's, of no network in particular; on a host with VRFs
//!   it may be in one of these, and nobody is named. Of another node's interfaces nothing is known at all. What was `ambiguous` may have
//!   been so because that interface is one container's and the address another one's of this node: it is not named as that one.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use wiretag_capture::{ObservedAt, Protocol, Source, Wrapping};

use super::MOST_LINKS;
use super::connections::{Connections, Place};
use super::names::Namer;
use super::observation::{End, Observation, when};
use crate::identity::NODE;
use crate::tagged::{EndTag, TaggedBy};
use crate::timeline::View;

/// No interface has this number.
const NO_INTERFACE: u32 = u32::MAX;

/// What is stored of one end.
#[derive(Debug, Clone, Copy)]
pub struct StoredEnd {
    /// Address.
    pub ip: IpAddr,
    /// Port.
    pub port: Option<u16>,
    /// Link-layer address.
    pub mac: Option<[u8; 6]>,
    /// How it was named.
    pub tagged_by: TaggedBy,
    /// The address on the other side of a translation.
    pub translated: Option<SocketAddr>,
}

/// What is stored of a row, as far as its names depend on it.
#[derive(Debug, Clone)]
pub struct StoredRow<'a> {
    /// Kind of source.
    pub source: Source,
    /// Node that captured.
    pub node: &'a str,
    /// Name of the interface.
    pub interface: &'a str,
    /// Where that is.
    pub observed_at: Option<ObservedAt>,
    /// IP protocol.
    pub protocol: Protocol,
    /// What the packets were in.
    pub wrapping: Wrapping,
    /// First packet, ns.
    pub start: i64,
    /// Last packet, ns.
    pub end: i64,
    /// Client.
    pub client: StoredEnd,
    /// Server.
    pub server: StoredEnd,
}

/// Numbers of interfaces by their names in rows; of one that had several none.
#[derive(Debug, Clone, Default)]
pub struct Links {
    numbers: HashMap<Arc<str>, Option<u32>>,
}

impl Links {
    /// An interface was seen.
    pub fn see(&mut self, name: &Arc<str>, index: u32) {
        if self.numbers.len() >= MOST_LINKS && !self.numbers.contains_key(name) {
            self.numbers.clear();
        }
        let known = self.numbers.entry(name.clone()).or_insert(Some(index));
        *known = known.filter(|own| *own == index);
    }

    /// Network namespace (0: wiretag's own) and number, if there is but one.
    fn find(&self, name: &str) -> (u64, Option<u32>) {
        // Those of other namespaces are named so (`src/worker.rs`).
        let netns = name.rsplit_once('@').and_then(|(_, inode)| inode.parse().ok());
        (netns.unwrap_or(0), self.numbers.get(name).copied().flatten())
    }
}

/// See the module documentation.
#[derive(Debug, Clone)]
pub struct Again {
    /// Boot id.
    pub boot: Arc<str>,
    /// This node.
    pub node: Arc<str>,
    /// Interfaces of this node.
    pub links: Arc<Links>,
    /// What is known.
    pub view: Arc<View>,
}

/// Names many rows.
pub struct NamesAgain<'a> {
    again: &'a Again,
    has_vrfs: bool,
    names: Namer,
    connections: Connections,
}

impl Again {
    /// For rows to come.
    pub fn names(&self) -> NamesAgain<'_> {
        NamesAgain {
            again: self,
            has_vrfs: self.view.has_vrfs(),
            names: Namer::default(),
            connections: Connections::default(),
        }
    }
}

impl NamesAgain<'_> {
    /// The names that client and server have by now, if they had none and it is sure.
    pub fn of(&mut self, row: &StoredRow<'_>) -> [Option<EndTag>; 2] {
        let places = [place(row, &row.client, ObservedAt::Client), place(row, &row.server, ObservedAt::Server)];
        let Some(seen) = self.observation(row).filter(|_| places.iter().any(Option::is_some)) else {
            return [None, None];
        };
        let nowhere = Place { own: None, peer: None, translated: None };
        let asked = places.map(|place| place.unwrap_or(nowhere));
        let Again { boot, view, .. } = self.again;
        let (client, server) = self.names.of_places(boot, &seen, (view, &self.connections), asked);
        let [at_client, at_server] = places;
        [
            Some(client).filter(|tag| at_client.is_some() && self.is_sure(&seen, &row.client, tag)),
            Some(server).filter(|tag| at_server.is_some() && self.is_sure(&seen, &row.server, tag)),
        ]
    }

    /// Whether this is the end's name for sure.
    fn is_sure(&self, seen: &Observation, end: &StoredEnd, tag: &EndTag) -> bool {
        let Some(identity) = &tag.identity else { return false };
        if end.tagged_by != TaggedBy::Ambiguous {
            return true;
        }
        // Perhaps because of its sockets, of which nothing is known any more, or because of whose interface it was.
        let by_socket = tag.tagged_by == TaggedBy::Socket || identity.identity.starts_with(NODE);
        let is_unseen = seen.source == Source::Ring && seen.interface == NO_INTERFACE;
        let by_interface = is_unseen && self.again.view.is_attached(&identity.identity, seen.when);
        !by_socket && !by_interface
    }

    /// Where the row was seen, if that can still be told.
    fn observation(&self, row: &StoredRow<'_>) -> Option<Observation> {
        let Again { node, links, .. } = self.again;
        let (netns, index) = match row.source {
            Source::File | Source::Netflow => (0, None),
            Source::Ring if row.node != &**node => return None,
            Source::Ring => links.find(row.interface),
        };
        if row.source == Source::Ring && netns == 0 && index.is_none() && self.has_vrfs {
            return None;
        }
        let end = |end: &StoredEnd| -> End { (end.ip, end.port) };
        Some(Observation {
            source: row.source,
            netns,
            interface: index.unwrap_or(NO_INTERFACE),
            protocol: row.protocol,
            client: end(&row.client),
            server: end(&row.server),
            macs: [row.client.mac, row.server.mac],
            sent: [true; 2],
            client_direction: None,
            observed_at: row.observed_at,
            since: row.start,
            begins: false,
            over: None,
            wrapping: row.wrapping,
            when: when(row.source, row.start, row.end),
        })
    }
}

/// Where the socket of an end without a name is; `None`: it has a name, or that cannot be told.
fn place(row: &StoredRow<'_>, end: &StoredEnd, own_side: ObservedAt) -> Option<Place> {
    if !is_nameless(end.tagged_by) {
        return None;
    }
    let seen = end.port.map(|port| SocketAddr::new(end.ip, port));
    let own = match (end.translated, row.observed_at) {
        (None, _) => seen,
        (Some(_), Some(at)) if at == own_side => seen,
        (Some(translated), Some(ObservedAt::Client | ObservedAt::Server)) => Some(translated),
        (Some(_), Some(ObservedAt::Path) | None) => return None,
    };
    Some(Place { own, peer: None, translated: end.translated })
}

/// Whether an end that was named so has no name.
const fn is_nameless(tagged_by: TaggedBy) -> bool {
    match tagged_by {
        TaggedBy::None | TaggedBy::Ambiguous => true,
        TaggedBy::Interface
        | TaggedBy::Socket
        | TaggedBy::Mac
        | TaggedBy::Ip
        | TaggedBy::Service
        | TaggedBy::Static => false,
    }
}
