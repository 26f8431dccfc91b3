//! Who held a key during a span.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use super::attachments::Attachments;
use super::attributes::as_of;
use super::history::{Claim, Ending, History, Sure};
use super::keys::{Names, Place};
use super::ranges::{Ranges, first_of};
use super::sharded::Sharded;
use super::sources::{Sources, UNCERTAIN};
use super::subjects::Subjects;
use super::{Lookup, Span, TOLERANCE};
use crate::event::IdentityEvent;
use crate::identity::{ANY_NETWORK, Identity, Interval, NODE, VRF};

/// Containers that are told of one network namespace at most (see `kernel::guests`).
pub const PLACES: u16 = 16;

/// A history, and beside it what most lookups ask for: whose the key is of late.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    history: Arc<History>,
    sure: Sure,
    /// The latest version of that identity, and since when it holds; as it is asked for.
    named: OnceLock<(Arc<Identity>, i64)>,
}

impl Deref for Entry {
    type Target = History;

    fn deref(&self) -> &History {
        &self.history
    }
}

impl Entry {
    pub(super) fn history_mut(&mut self) -> &mut History {
        Arc::make_mut(&mut self.history)
    }

    /// The history has changed.
    pub(super) fn renew(&mut self) {
        self.sure = self.history.sure();
        self.named = OnceLock::new();
    }

    /// The attributes of the identity have changed.
    pub(super) fn forget_name(&mut self) {
        self.named = OnceLock::new();
    }

    pub(super) fn is_named(&self) -> bool {
        self.named.get().is_some()
    }
}

/// What a timeline knew at one time; a copy shares everything with it.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub(super) names: Arc<Names>,
    pub(super) sources: Arc<Sources>,
    pub(super) histories: Sharded<Place, Entry, 512>,
    /// Networks in which an address is known.
    pub(super) networks_of_ip: Sharded<IpAddr, Vec<u32>, 1024>,
    /// Addresses that are known in several.
    pub(super) in_several: usize,
    pub(super) ranges: Arc<Ranges>,
    pub(super) subjects: Subjects,
    pub(super) attachments: Arc<Attachments>,
}

impl View {
    /// Whose interface it was.
    pub fn interface(&self, index: u32, netns: u64, boot: &str, when: impl Into<Span>) -> Lookup<'_> {
        let when = when.into();
        let Some(boot) = self.names.number(boot) else { return Lookup::None };
        let place = Place::Interface { index, netns, boot };
        match self.pick(&[place], when) {
            // What a single life carries before it is told of.
            Lookup::None if netns == 0 => {
                let when = Span { from: when.from, to: when.to.saturating_add(TOLERANCE) };
                let touching = self.histories.get(&place).into_iter().flat_map(|own| own.touching(when.from, when.to));
                self.name(touching, when)
            }
            found => found,
        }
    }

    /// Whose socket it was: of exactly this address, or one that listens on all.
    pub fn socket(
        &self,
        at: (u64, &str),
        protocol: u8,
        (ip, port): (IpAddr, u16),
        when: impl Into<Span>,
    ) -> Lookup<'_> {
        let (when, (netns, boot)) = (when.into(), at);
        let Some(boot) = self.names.number(boot) else { return Lookup::None };
        let socket = |ip| Place::Socket { netns, boot, protocol, ip, port };
        match self.pick(&[socket(Some(ip))], when) {
            Lookup::None => self.pick(&[socket(None)], when),
            found => found,
        }
    }

    /// Whether a socket that is bound so was of several in the span, be it that nobody had it when that began.
    pub fn sockets_in_turn(
        &self,
        at: (u64, &str),
        protocol: u8,
        (bound, port): ([Option<IpAddr>; 3], u16),
        when: impl Into<Span>,
    ) -> bool {
        let (when, (netns, boot)) = (when.into(), at);
        let Some(boot) = self.names.number(boot) else { return false };
        let places = bound.map(|ip| Place::Socket { netns, boot, protocol, ip, port });
        let histories = places.iter().filter_map(|place| self.histories.get(place));
        let mut owners = histories.flat_map(|own| own.touching(when.from, when.to)).map(|claim| claim.who);
        let first = owners.next();
        owners.any(|other| Some(other) != first)
    }

    /// Which of the names of an identity, as the containers of a pod are, listens on a port of an address of its own.
    pub fn listening(
        &self,
        identity: &str,
        protocol: u8,
        (ip, port): (IpAddr, u16),
        when: impl Into<Span>,
    ) -> Lookup<'_> {
        let takes = |bound: Option<IpAddr>| bound.is_none_or(|bound| bound.is_unspecified() || bound == ip);
        let is_asked = |place: &Place| match place {
            Place::Socket { protocol: own, ip: bound, port: at, .. } => {
                *own == protocol && *at == port && takes(*bound)
            }
            Place::Interface { .. }
            | Place::Mac { .. }
            | Place::Ip { .. }
            | Place::Range { .. }
            | Place::Service { .. } => false,
        };
        let places: Vec<Place> = self.keys_of(identity).filter(is_asked).collect();
        self.pick(&places, when.into())
    }

    /// The network namespace that an identity shared with others outside of a pod.
    pub fn shared_namespace(&self, identity: &str, when: impl Into<Span>) -> Option<u64> {
        let when = when.into();
        self.keys_of(identity).find_map(|place| match place {
            Place::Socket { netns: netns @ 1.., protocol: 0, ip: None, .. } => {
                self.held(identity, place, when).then_some(netns)
            }
            Place::Socket { .. }
            | Place::Interface { .. }
            | Place::Mac { .. }
            | Place::Ip { .. }
            | Place::Range { .. }
            | Place::Service { .. } => None,
        })
    }

    /// Who was in a network namespace that several shared: `Ambiguous` unless it was one.
    pub fn resident(&self, at: (u64, &str), when: impl Into<Span>) -> Lookup<'_> {
        let (netns, boot) = at;
        let Some(boot) = self.names.number(boot) else { return Lookup::None };
        let places = (0..PLACES).map(|port| Place::Socket { netns, boot, protocol: 0, ip: None, port });
        self.pick(&places.collect::<Vec<_>>(), when.into())
    }

    /// What was known of an identity, or of the one that it is another name of; `None` if nobody ever told of it.
    pub fn identity(&self, id: &str, when: impl Into<Span>) -> Option<Arc<Identity>> {
        self.version(self.subjects.number(id)?, when.into().from).cloned()
    }

    /// Whose link-layer address it was.
    pub fn mac(&self, network: &str, mac: [u8; 6], when: impl Into<Span>) -> Lookup<'_> {
        let Some(network) = self.names.number(network) else { return Lookup::None };
        self.pick(&[Place::Mac { network, mac }], when.into())
    }

    /// Which service answered there: the identity is the service's. A node answers for all that have a port on every node, whose
    /// keys are at the unspecified address.
    pub fn service(&self, network: &str, protocol: u8, (ip, port): (IpAddr, u16), when: impl Into<Span>) -> Lookup<'_> {
        let Some(network) = self.names.number(network) else { return Lookup::None };
        let when = when.into();
        let spot = |ip| Place::Service { network, protocol, ip, port };
        match self.pick(&[spot(ip)], when) {
            Lookup::None => {
                let any = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                let found = self.pick(&[spot(any)], when);
                let is_node =
                    |found: Lookup<'_>| matches!(found, Lookup::One(node, _) if node.identity.starts_with(NODE));
                let holds = found != Lookup::None && is_node(self.pick(&[Place::Ip { network, ip }], when));
                if holds { found } else { Lookup::None }
            }
            found => found,
        }
    }

    /// Whose address it was, within `network` and, where that knows nothing, among the entries without a network.
    pub fn ip(&self, network: &str, ip: IpAddr, when: impl Into<Span>) -> Lookup<'_> {
        let when = when.into();
        let within = |network: &str| {
            let Some(network) = self.names.number(network) else { return Lookup::None };
            self.pick(&[Place::Ip { network, ip }], when)
        };
        match within(network) {
            Lookup::None if network != ANY_NETWORK => within(ANY_NETWORK),
            found => found,
        }
    }

    /// Whose address it was, in whichever network `among` accepts: one identity, or `Ambiguous`.
    pub fn ip_in_any(&self, ip: IpAddr, when: impl Into<Span>, among: impl Fn(&str) -> bool) -> Lookup<'_> {
        let networks = self.networks_of_ip.get(&ip).into_iter().flatten();
        let accepted = networks.filter(|network| among(&self.names.name(**network)));
        let places: Vec<Place> = accepted.map(|network| Place::Ip { network: *network, ip }).collect();
        self.pick(&places, when.into())
    }

    /// Whether several had the address at once, each in a network of its own: then the network of an interface, as a number, says more.
    pub fn overlapping(&self, ip: IpAddr, when: impl Into<Span>) -> bool {
        let is_several = self.in_several > 0 && self.networks_of_ip.get(&ip).is_some_and(|networks| networks.len() > 1);
        let among = |network: &str| network != ANY_NETWORK;
        is_several && matches!(self.ip_in_any(ip, when, among), Lookup::Ambiguous(several) if several.len() > 1)
    }

    /// A network as a number, which it keeps; of one of which nobody ever told none.
    pub fn network_number(&self, network: &str) -> Option<u32> {
        self.names.number(network)
    }

    /// Whether the network has an interface in wiretag's own namespace, and so is one routing domain with the host.
    pub fn is_on_host(&self, network: &str) -> bool {
        self.attachments.is_on_host(network)
    }

    /// Whether interfaces of wiretag's own namespace are in VRFs, or were: then an interface of which nothing is known may be in one.
    pub fn has_vrfs(&self) -> bool {
        self.attachments.has_vrfs()
    }

    /// Network of an interface.
    pub fn network_of_interface(&self, index: u32, netns: u64, when: impl Into<Span>) -> Option<Arc<str>> {
        self.attachments.network(netns, index, when.into()).filter(|network| !network.is_empty()).cloned()
    }

    /// What follows from an interface of wiretag's own namespace being in a VRF now, or in none: whether it moved. Where containers are
    /// known to be behind it, their network says more.
    pub fn vrf_changed(&self, index: u32, vrf: Option<&str>, at: i64) -> Option<IdentityEvent> {
        let known = self.network_of_interface(index, 0, at);
        if known.as_ref().is_some_and(|known| !known.starts_with(VRF)) {
            return None;
        }
        let now = vrf.map(|name| format!("{VRF}{name}"));
        let network = now.as_deref().unwrap_or(ANY_NETWORK).into();
        (known.as_deref() != now.as_deref()).then_some(IdentityEvent::Network { index, netns: 0, network, at })
    }

    /// Whether `identity` had the address at some time of the span; `None` if no address of it is known.
    pub fn has_ip(&self, identity: &str, ip: IpAddr, when: impl Into<Span>) -> Option<bool> {
        let when = when.into();
        let mut known = None;
        for place in self.keys_of(identity) {
            let own = match place {
                Place::Ip { ip: own, .. } => own == ip,
                Place::Range { ip: first, prefix, .. } => first == first_of(ip, prefix),
                Place::Interface { .. } | Place::Mac { .. } | Place::Socket { .. } | Place::Service { .. } => continue,
            };
            if known.is_some() && !own {
                continue;
            }
            if self.held(identity, place, when) {
                if own {
                    return Some(true);
                }
                known = Some(false);
            }
        }
        known
    }

    /// Whether `identity` has an interface or link-layer address on this node at some time of the span.
    pub fn is_attached(&self, identity: &str, when: impl Into<Span>) -> bool {
        let when = when.into();
        let is_link = |place: &Place| match place {
            Place::Interface { .. } | Place::Mac { .. } => true,
            Place::Ip { .. } | Place::Range { .. } | Place::Socket { .. } | Place::Service { .. } => false,
        };
        self.keys_of(identity).filter(is_link).any(|place| self.held(identity, place, when))
    }

    /// Whether `identity` has an address in the network at some time of the span.
    pub fn is_in(&self, identity: &str, network: &str, when: impl Into<Span>) -> bool {
        let (when, Some(number)) = (when.into(), self.names.number(network)) else { return false };
        let is_there = |place: &Place| matches!(place, Place::Ip { network, .. } if *network == number);
        self.keys_of(identity).filter(is_there).any(|place| self.held(identity, place, when))
    }

    /// The only one that stands behind a service's address, if its endpoints in the same family of addresses are known
    /// and all of one identity. `virtual_ip` is the address that clients speak to.
    pub fn only_endpoint(&self, network: &str, service: &str, virtual_ip: IpAddr, when: impl Into<Span>) -> Lookup<'_> {
        let when = when.into();
        let (mut only, Some(number)) = (Lookup::None, self.names.number(network)) else { return Lookup::None };
        for place in self.keys_of(service) {
            let Place::Service { network: own, ip, .. } = place else { continue };
            let is_endpoint =
                own == number && ip != virtual_ip && !ip.is_unspecified() && ip.is_ipv4() == virtual_ip.is_ipv4();
            if !is_endpoint || !self.held(service, place, when) {
                continue;
            }
            only = match (self.ip(network, ip, when), only) {
                (Lookup::One(found, source), Lookup::None) => Lookup::One(found, source),
                (Lookup::One(found, source), Lookup::One(known, _)) if found.identity == known.identity => {
                    Lookup::One(found, source)
                }
                // More than one, or one of whom nobody knows.
                _ => return Lookup::None,
            };
        }
        only
    }

    /// Keys of an identity and of its other names.
    fn keys_of(&self, identity: &str) -> impl Iterator<Item = Place> {
        let number = self.subjects.number(identity);
        let own = number.and_then(|number| self.subjects.get(number));
        let is_alone = own.is_some_and(|own| own.names.is_empty());
        let names = number.filter(|_| !is_alone).map(|number| self.subjects.with_names(number)).unwrap_or_default();
        let of_names = names.into_iter().filter_map(|name| self.subjects.get(name)).flat_map(|name| name.keys.iter());
        own.filter(|_| is_alone).into_iter().flat_map(|own| own.keys.iter()).chain(of_names).copied()
    }

    fn held(&self, identity: &str, place: Place, when: Span) -> bool {
        let Some(number) = self.subjects.number(identity) else { return false };
        let touching = self.histories.get(&place).into_iter().flat_map(|own| own.touching(when.from, when.to));
        touching.into_iter().any(|claim| claim.who == number && claim.held_from <= when.to && claim.held_to > when.from)
    }

    /// Who held one of the keys when the span began, or may have, and all who did or may have later in it; nobody if nobody
    /// did when it began.
    #[inline]
    pub(super) fn pick(&self, places: &[Place], when: Span) -> Lookup<'_> {
        if let [place] = places {
            let Some(history) = self.histories.get(place) else { return Lookup::None };
            let sure = history.sure;
            if sure.from <= when.from && when.to < sure.to {
                return self.name_sure(history, sure, when);
            }
            if !history.touching(when.from, when.from).any(|claim| claim.may_hold(when.from)) {
                return Lookup::None;
            }
            return self.name(history.touching(when.from, when.to), when);
        }
        let histories = || places.iter().filter_map(|place| self.histories.get(place));
        // In each network by itself: what begins later in another is another's address.
        let begun = |own: &&Entry| own.touching(when.from, when.from).any(|claim| claim.may_hold(when.from));
        self.name(histories().filter(begun).flat_map(|own| own.touching(when.from, when.to)), when)
    }

    /// The identity that alone can have held the key.
    fn name_sure<'a>(&'a self, entry: &'a Entry, sure: Sure, when: Span) -> Lookup<'a> {
        let named = entry.named.get().or_else(|| {
            let versions = self.subjects.versions(sure.subject, &self.sources)?;
            let (from, latest) = versions.last()?;
            let since = if versions.len() == 1 { i64::MIN } else { *from };
            Some(entry.named.get_or_init(|| (latest.clone(), since)))
        });
        let identity = match named {
            Some((identity, since)) if *since <= when.from => Some(identity),
            Some(_) | None => self.version(sure.subject, when.from),
        };
        match identity {
            Some(identity) if sure.to == i64::MAX && self.is_behind(sure.source, when) => {
                Lookup::Ambiguous(vec![identity.clone()])
            }
            Some(identity) => Lookup::One(identity, self.sources.text(sure.source)),
            None => Lookup::None,
        }
    }

    /// One identity, several, or none.
    fn name<'a>(&self, claims: impl Iterator<Item = &'a Claim>, when: Span) -> Lookup<'_> {
        let mut first: Option<&Claim> = None;
        let mut others: Vec<&Claim> = Vec::new();
        for claim in claims {
            match first {
                None => first = Some(claim),
                // The same, told again.
                Some(first) if first.who == claim.who && first.subject == claim.subject => {}
                Some(_) => others.push(claim),
            }
        }
        let Some(first) = first else { return Lookup::None };
        if others.iter().all(|other| other.who == first.who) {
            let best = self.most_exact(first, &others);
            let claims = || std::iter::once(first).chain(others.iter().copied());
            return match self.version(best, when.from) {
                // It may be over, and its key another's, without the source having told yet.
                Some(identity) if claims().all(|claim| self.is_unheard(claim, when)) => {
                    Lookup::Ambiguous(vec![identity.clone()])
                }
                Some(identity) => Lookup::One(identity, self.sources.text(first.source)),
                None => Lookup::None,
            };
        }
        let mut several = Vec::new();
        let mut seen = Vec::new();
        for claim in std::iter::once(first).chain(others) {
            if !seen.contains(&claim.who) {
                seen.push(claim.who);
                several.extend(self.version(claim.who, when.from).cloned());
            }
        }
        Lookup::Ambiguous(several)
    }

    /// Whether a claim lasts only because its source was not heard since, be it to the beginning of the next one that it knows, or ended with
    /// the span or before, give or take what the source may be off, and it may yet tell of the next one.
    fn is_unheard(&self, claim: &Claim, when: Span) -> bool {
        let is_unended = match claim.ending {
            Ending::Open | Ending::Replaced => true,
            Ending::Sure | Ending::Unheard => false,
        };
        let is_doubtful = is_unended || (claim.late && when.to >= claim.sure_to());
        is_doubtful && self.is_behind(claim.source, when)
    }

    /// Whether a source was not heard since.
    fn is_behind(&self, source: u8, when: Span) -> bool {
        self.sources.heard(source) < when.to.saturating_add(UNCERTAIN)
    }

    /// Until when all sources were in touch that may be behind. What is asked of a time of which not all was heard yet may
    /// have another answer later.
    pub fn heard(&self) -> i64 {
        self.sources.all_heard().saturating_sub(UNCERTAIN)
    }

    /// The name to use of claims of one identity: that of a container if it is only one, otherwise the pod's.
    fn most_exact(&self, first: &Claim, others: &[&Claim]) -> u32 {
        if others.is_empty() {
            return first.subject;
        }
        let mut only: Option<u32> = None;
        for subject in std::iter::once(first).chain(others.iter().copied()).map(|claim| claim.subject) {
            let Some(member) = self.subjects.member(subject) else { continue };
            match only.and_then(|only| self.subjects.member(only)) {
                None => only = Some(subject),
                Some(known) if known.container == member.container => {}
                Some(_) => return first.who,
            }
        }
        only.unwrap_or(first.who)
    }

    fn version(&self, subject: u32, at: i64) -> Option<&Arc<Identity>> {
        as_of(self.subjects.versions(subject, &self.sources)?, at)
    }

    /// Every claim, in no particular order.
    pub fn intervals(&self) -> Vec<Interval> {
        let histories = self.histories.iter();
        histories.flat_map(|(place, history)| history.iter().filter_map(|claim| self.interval(*place, claim))).collect()
    }

    /// Claims that hold at `at`, of one address or all.
    pub fn current(&self, at: i64, ip: Option<IpAddr>) -> Vec<Interval> {
        let asked = |place: &Place| ip.is_none_or(|ip| place.names(ip));
        let histories = self.histories.iter().filter(|(place, _)| asked(place));
        let lasting = |claim: &&Claim| claim.from <= at && at < claim.held_to;
        let claims = histories.flat_map(|(place, history)| history.iter().map(|claim| (*place, claim)));
        claims.filter(|(_, claim)| lasting(claim)).filter_map(|(place, claim)| self.interval(place, claim)).collect()
    }

    /// A claim as others see it.
    pub(super) fn interval(&self, place: Place, claim: &Claim) -> Option<Interval> {
        Some(Interval {
            key: self.names.key(place),
            // A listing must not fill the memory with what nobody looks up.
            identity: as_of(&self.subjects.merge(claim.subject, &self.sources)?, claim.from)?.clone(),
            valid_from: claim.from,
            valid_to: (claim.held_to != i64::MAX).then_some(claim.held_to),
            learned_at: claim.learned_at,
            source: self.sources.name(claim.source),
        })
    }
}
