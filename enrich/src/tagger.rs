//! The join: records to tagged flows, and which of several observations is the primary one.
//!
//! Records are held for a short time after their slice ended, because what identity sources say arrives late. Held
//! records are bounded: beyond the limit the oldest are tagged at once.
//!
//! **Names.** The end whose own interface carried the packets is named by that interface, if the address is one of that
//! identity's (a container may route for others). The other end is named by its address in the network of the
//! interface, then in the networks of the same host, then among static entries. Nobody is named on a guess.
//!
//! **Primary.** Of all observations of the same packets one counts in totals: the client's own interface, else the
//! server's, else the first on the path. The choice is made when the first of them leaves the hold and stays for as long
//! as the flow is seen, so slices never change sides and no packet counts twice.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use wiretag_capture::{Direction, FlowRecord, ObservedAt, Protocol, Source};

use crate::identity::Identity;
use crate::tagged::{EndTag, TaggedBy, TaggedFlow};
use crate::timeline::{Lookup, Span, Timeline};

/// A choice of the primary observation is forgotten after so long without a slice; longer than the idle timeouts, ns.
const CLAIM_LIFE: i64 = 400_000_000_000;
/// Choices that are kept at most.
const MOST_CLAIMS: usize = 1_000_000;

/// Limits of a tagger.
#[derive(Debug, Clone)]
pub struct TaggerConfig {
    /// Boot id: part of interface keys.
    pub boot: Arc<str>,
    /// How long a record waits for names, ns.
    pub hold: i64,
    /// Records held at most.
    pub max_held: usize,
}

impl Default for TaggerConfig {
    fn default() -> Self {
        Self { boot: "".into(), hold: 2_000_000_000, max_held: 200_000 }
    }
}

/// See the module documentation.
pub struct Tagger {
    config: TaggerConfig,
    held: VecDeque<Held>,
    claims: HashMap<FlowKey, Claim>,
    container_side: HashMap<(u64, u32), bool>,
    swept: i64,
}

struct Held {
    netns: u64,
    record: FlowRecord,
    due: i64,
}

/// The same at every observation point, in either orientation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct FlowKey {
    protocol: Protocol,
    ends: [(IpAddr, Option<u16>); 2],
}

impl FlowKey {
    fn of(record: &FlowRecord) -> Self {
        let (client, server) = ((record.client.ip, record.client.port), (record.server.ip, record.server.port));
        let ends = if client <= server { [client, server] } else { [server, client] };
        Self { protocol: record.protocol, ends }
    }
}

/// Which observation point of a flow is the primary one, so far.
struct Claim {
    rank: u8,
    start: i64,
    netns: u64,
    interface: u32,
    /// A slice has left with this choice: it stays.
    settled: bool,
    seen: i64,
}

impl Tagger {
    /// An empty tagger.
    pub fn new(config: TaggerConfig) -> Self {
        Self { config, held: VecDeque::new(), claims: HashMap::new(), container_side: HashMap::new(), swept: 0 }
    }

    /// Says whether an interface is the one of a single container (the host's end of a veth, or inside its namespace).
    pub fn set_link(&mut self, netns: u64, index: u32, container_side: bool) {
        self.container_side.insert((netns, index), container_side);
    }

    /// Takes a record whose slice has ended; `now` is the time from which it waits.
    pub fn push(&mut self, netns: u64, mut record: FlowRecord, now: i64) {
        if record.source == Source::Ring {
            record.observed_at = Some(self.observed_at(netns, &record));
        }
        // The row of a tunnel's own packets never counts in totals: those that it carries do.
        if record.primary {
            self.claim(netns, &record, now);
        }
        self.held.push_back(Held { netns, record, due: now.saturating_add(self.config.hold) });
    }

    /// Whether records wait beyond the limit, so that [`Self::drain`] is due.
    pub fn is_full(&self) -> bool {
        self.held.len() > self.config.max_held
    }

    /// Tags what has waited long enough, and the oldest beyond the limit.
    pub fn drain(&mut self, now: i64, timeline: &Timeline, out: &mut Vec<TaggedFlow>) {
        while let Some(held) = self.held.front() {
            if held.due > now && self.held.len() <= self.config.max_held {
                break;
            }
            if let Some(held) = self.held.pop_front() {
                out.push(self.tag(held, timeline));
            }
        }
        if now.saturating_sub(self.swept) > 10_000_000_000 {
            self.swept = now;
            self.claims.retain(|_, claim| now.saturating_sub(claim.seen) < CLAIM_LIFE);
        }
    }

    /// Tags everything.
    pub fn flush(&mut self, timeline: &Timeline, out: &mut Vec<TaggedFlow>) {
        while let Some(held) = self.held.pop_front() {
            out.push(self.tag(held, timeline));
        }
    }

    fn observed_at(&self, netns: u64, record: &FlowRecord) -> ObservedAt {
        let container_side = self.container_side.get(&(netns, record.interface_index)).copied().unwrap_or(false);
        let Some(direction) = record.client_direction.filter(|_| container_side) else { return ObservedAt::Path };
        match (netns, direction) {
            // The host's end receives what the container sends; inside the container it is the other way round.
            (0, Direction::Ingress) | (1.., Direction::Egress) => ObservedAt::Client,
            (0, Direction::Egress) | (1.., Direction::Ingress) => ObservedAt::Server,
        }
    }

    fn claim(&mut self, netns: u64, record: &FlowRecord, now: i64) {
        let rank = match record.observed_at {
            Some(ObservedAt::Client) => 0,
            Some(ObservedAt::Server) => 1,
            Some(ObservedAt::Path) | None => 2,
        };
        let key = FlowKey::of(record);
        let (start, interface) = (record.start, record.interface_index);
        let own = Claim { rank, start, netns, interface, settled: false, seen: now };
        let room = self.claims.len() < MOST_CLAIMS;
        match self.claims.get_mut(&key) {
            Some(claim) => {
                claim.seen = now;
                let better = (rank, start, netns, interface) < (claim.rank, claim.start, claim.netns, claim.interface);
                if better && !claim.settled {
                    *claim = own;
                }
            }
            None if room => drop(self.claims.insert(key, own)),
            None => {}
        }
    }

    fn tag(&mut self, held: Held, timeline: &Timeline) -> TaggedFlow {
        let Held { netns, mut record, .. } = held;
        if record.primary
            && let Some(claim) = self.claims.get_mut(&FlowKey::of(&record))
        {
            claim.settled = true;
            record.primary = claim.netns == netns && claim.interface == record.interface_index;
        }
        let (client, server) = self.names(netns, &record, timeline);
        TaggedFlow { record, client, server }
    }

    fn names(&self, netns: u64, record: &FlowRecord, timeline: &Timeline) -> (EndTag, EndTag) {
        if record.source == Source::File {
            let by_ip = |ip| by_address(timeline.ip_in_any(ip, record.start, |_| true));
            return (by_ip(record.client.ip), by_ip(record.server.ip));
        }
        let index = record.interface_index;
        let when = Span { from: record.start, to: record.end };
        let owner = match timeline.interface(index, netns, &self.config.boot, when) {
            Lookup::One(identity, _) => Some(identity),
            Lookup::Ambiguous(_) | Lookup::None => None,
        };
        let network = timeline.network_of_interface(index, netns, when);
        let name = |ip: IpAddr, own_side: bool| {
            let owner = owner.as_ref().filter(|owner| own_side && owns(timeline, owner, ip, when));
            match owner {
                Some(owner) => EndTag { identity: Some(owner.clone()), tagged_by: TaggedBy::Interface },
                None => by_ip(timeline, netns, network.as_deref(), ip, when),
            }
        };
        let at = record.observed_at;
        (name(record.client.ip, at == Some(ObservedAt::Client)), name(record.server.ip, at == Some(ObservedAt::Server)))
    }
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
