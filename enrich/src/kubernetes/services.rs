//! Services, and where each answers: its virtual, external and load balancer addresses, and the addresses of its endpoints.
//!
//! * An endpoint belongs to its service for as long as it is listed, ready or not: what it still serves is the service's.
//! * An address and port that several services claim (a headless one beside another, two that choose the same pods) is
//!   nobody's while they do. Which of them a client meant, its packets to the virtual address tell.
//! * A port on every node (`NodePort`) is one key at the unspecified address of each family, which stands for any node: a
//!   thousand nodes and a thousand such ports are a thousand keys.
//! * Slices may come before their service and outlive it; they count while both are there.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::objects::{Endpoints, Meta, Port, Service, Slice};
use super::tell::{Spot, Teller, When};
use crate::identity::{Identity, Interval};

/// The label of a slice that names its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Stands for the addresses of all nodes.
const ANY_NODE: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

/// Namespace and name.
type Name = (Arc<str>, Arc<str>);

#[derive(Debug)]
struct Known {
    version: u64,
    name: Name,
    identity: Arc<Identity>,
    spots: BTreeSet<Spot>,
}

/// The endpoints of one slice.
#[derive(Debug)]
pub(super) struct Backends {
    uid: Arc<str>,
    version: u64,
    service: Name,
    spots: BTreeSet<Spot>,
    /// The service for which they count.
    claimed: Option<Arc<str>>,
}

#[derive(Debug, Default)]
struct Claims {
    /// A service is there as often as it claims the spot: virtual address, several slices.
    by: Vec<Arc<str>>,
    /// Who was told to be there, and since when.
    told: Option<(Arc<Identity>, i64)>,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Services {
    known: HashMap<Arc<str>, Known>,
    /// The youngest service of each name.
    named: HashMap<Name, Arc<str>>,
    slices: HashMap<Arc<str>, Backends>,
    slices_of: HashMap<Name, HashSet<Arc<str>>>,
    claims: HashMap<Spot, Claims>,
}

impl Services {
    pub(super) fn uids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.known.keys()
    }

    pub(super) fn slice_uids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.slices.keys()
    }

    /// A version of a service; `from` is since when it surely has the address that it was created with.
    pub(super) fn apply(&mut self, service: &Service, from: i64, when: When, teller: &mut Teller) {
        let meta = &service.metadata;
        let old = self.known.get(&meta.uid);
        if old.is_some_and(|old| meta.version() != 0 && meta.version() <= old.version) {
            return;
        }
        let name: Name = (meta.namespace.clone().unwrap_or_default(), meta.name.clone());
        let spots = spots(service);
        let (identity, had) = if let Some(old) = self.known.remove(&meta.uid) {
            (old.identity, old.spots)
        } else {
            let identity = Arc::new(identity(meta, teller));
            teller.described(&identity, from, when.at);
            (identity, BTreeSet::new())
        };
        let from = if had.is_empty() { from } else { when.at };
        let new: Vec<Spot> = spots.difference(&had).copied().collect();
        let lost: Vec<Spot> = had.difference(&spots).copied().collect();
        self.known.insert(meta.uid.clone(), Known { version: meta.version(), name: name.clone(), identity, spots });
        self.claim(&meta.uid, &new, from, when, teller);
        self.unclaim(&meta.uid, &lost, when, teller);
        let other = self.named.get(&name).and_then(|uid| self.known.get(uid));
        if other.is_none_or(|other| other.version <= meta.version()) {
            self.named.insert(name.clone(), meta.uid.clone());
            self.match_slices(&name, when, teller);
        }
    }

    /// A service was deleted.
    pub(super) fn gone(&mut self, uid: &Arc<str>, when: When, teller: &mut Teller) {
        let Some(known) = self.known.remove(uid) else { return };
        let spots: Vec<Spot> = known.spots.iter().copied().collect();
        self.unclaim(uid, &spots, when, teller);
        if self.named.get(&known.name).is_some_and(|own| own == uid) {
            let of_name = self.known.iter().filter(|(_, other)| other.name == known.name);
            match of_name.max_by_key(|(_, other)| other.version).map(|(uid, _)| uid.clone()) {
                Some(other) => drop(self.named.insert(known.name.clone(), other)),
                None => drop(self.named.remove(&known.name)),
            }
        }
        self.match_slices(&known.name, when, teller);
        teller.ended(&known.identity.identity, when.sure, when.at);
    }

    /// A version of a slice.
    pub(super) fn apply_slice(&mut self, mut slice: Backends, when: When, teller: &mut Teller) {
        let (uid, service) = (slice.uid.clone(), slice.service.clone());
        if self.slices.get(&uid).is_some_and(|old| slice.version != 0 && slice.version <= old.version) {
            return;
        }
        let old = self.slices.remove(&uid);
        slice.claimed = self.named.get(&service).cloned();
        let had = match &old {
            Some(old) if old.claimed == slice.claimed => old.spots.clone(),
            Some(_) | None => BTreeSet::new(),
        };
        let new: Vec<Spot> = slice.spots.difference(&had).copied().collect();
        if let Some(service) = &slice.claimed {
            self.claim(service, &new, when.at, when, teller);
        }
        if let Some(Backends { claimed: Some(service), spots, .. }) = &old {
            let kept =
                if old.as_ref().map(|old| &old.claimed) == Some(&slice.claimed) { Some(&slice.spots) } else { None };
            let lost: Vec<Spot> =
                spots.iter().filter(|spot| kept.is_none_or(|kept| !kept.contains(spot))).copied().collect();
            self.unclaim(service, &lost, when, teller);
        }
        if let Some(old) = old.filter(|old| old.service != service) {
            self.forget_slice(&old.service, &uid);
        }
        self.slices_of.entry(service).or_default().insert(uid.clone());
        self.slices.insert(uid, slice);
    }

    /// A slice was deleted.
    pub(super) fn gone_slice(&mut self, uid: &Arc<str>, when: When, teller: &mut Teller) {
        let Some(slice) = self.slices.remove(uid) else { return };
        self.forget_slice(&slice.service, uid);
        if let Some(service) = &slice.claimed {
            let spots: Vec<Spot> = slice.spots.iter().copied().collect();
            self.unclaim(service, &spots, when, teller);
        }
    }

    fn forget_slice(&mut self, service: &Name, uid: &Arc<str>) {
        if let Some(slices) = self.slices_of.get_mut(service) {
            slices.remove(uid);
            if slices.is_empty() {
                self.slices_of.remove(service);
            }
        }
    }

    /// Lets the slices of a name count for the service that has it now.
    fn match_slices(&mut self, name: &Name, when: When, teller: &mut Teller) {
        let service = self.named.get(name).cloned();
        for uid in self.slices_of.get(name).cloned().unwrap_or_default() {
            let Some(slice) = self.slices.get_mut(&uid).filter(|slice| slice.claimed != service) else { continue };
            let before = std::mem::replace(&mut slice.claimed, service.clone());
            let spots: Vec<Spot> = slice.spots.iter().copied().collect();
            if let Some(before) = before {
                self.unclaim(&before, &spots, when, teller);
            }
            if let Some(service) = &service {
                self.claim(service, &spots, when.at, when, teller);
            }
        }
    }

    fn claim(&mut self, service: &Arc<str>, spots: &[Spot], from: i64, when: When, teller: &mut Teller) {
        for spot in spots {
            self.claims.entry(*spot).or_default().by.push(service.clone());
            self.settle(*spot, from, when, teller);
        }
    }

    fn unclaim(&mut self, service: &Arc<str>, spots: &[Spot], when: When, teller: &mut Teller) {
        for spot in spots {
            let by = &mut self.claims.entry(*spot).or_default().by;
            if let Some(index) = by.iter().position(|own| own == service) {
                by.swap_remove(index);
            }
            self.settle(*spot, when.at, when, teller);
        }
    }

    /// Tells whose a spot is now, if that is another's than before.
    fn settle(&mut self, spot: Spot, from: i64, when: When, teller: &mut Teller) {
        let Some(claims) = self.claims.get_mut(&spot) else { return };
        let only = claims.by.first().filter(|first| claims.by.iter().all(|own| own == *first));
        let owner = only.and_then(|uid| self.known.get(uid)).map(|known| &known.identity);
        if claims.told.as_ref().map(|(told, _)| &told.identity) == owner.map(|owner| &owner.identity) {
            return;
        }
        if let Some((told, since)) = claims.told.take() {
            let interval = teller.interval(teller.spot(spot), &told, since, when.at);
            teller.learned(Interval { valid_to: Some(when.sure.max(since)), ..interval });
        }
        if let Some(owner) = owner {
            claims.told = Some((owner.clone(), from));
            let interval = teller.interval(teller.spot(spot), owner, from, when.at);
            teller.learned(interval);
        }
        if claims.by.is_empty() {
            self.claims.remove(&spot);
        }
    }

    pub(super) fn present(&self, at: i64, teller: &Teller, present: &mut Vec<Interval>) {
        for (spot, claims) in &self.claims {
            if let Some((identity, from)) = &claims.told {
                present.push(teller.interval(teller.spot(*spot), identity, *from, at));
            }
        }
    }
}

impl Backends {
    /// The endpoints of a slice; `None` if it belongs to no service.
    pub(super) fn of_slice(slice: &Slice) -> Option<Self> {
        let meta = &slice.metadata;
        let service = meta.labels.get(SERVICE_NAME)?.clone();
        let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
        let spots = cross(addresses.map(String::as_str), &slice.ports).collect();
        Some(Self::new(meta, service, spots))
    }

    /// The endpoints of an older object.
    pub(super) fn of_endpoints(endpoints: &Endpoints) -> Self {
        let mut spots = BTreeSet::new();
        for subset in &endpoints.subsets {
            let addresses = subset.addresses.iter().chain(&subset.not_ready_addresses);
            spots.extend(cross(addresses.map(|own| own.ip.as_str()), &subset.ports));
        }
        Self::new(&endpoints.metadata, endpoints.metadata.name.clone(), spots)
    }

    fn new(meta: &Meta, service: Arc<str>, spots: BTreeSet<Spot>) -> Self {
        let service = (meta.namespace.clone().unwrap_or_default(), service);
        Self { uid: meta.uid.clone(), version: meta.version(), service, spots, claimed: None }
    }
}

fn cross<'a>(addresses: impl Iterator<Item = &'a str>, ports: &[Port]) -> impl Iterator<Item = Spot> {
    let ips = addresses.filter_map(|ip| ip.parse::<IpAddr>().ok()).filter(|ip| !ip.is_unspecified());
    ips.flat_map(|ip| ports.iter().filter_map(Port::number).map(move |(protocol, port)| (protocol, ip, port)))
}

/// Where a service answers itself: a headless one, or one that is a name elsewhere, has no address of its own (`None`).
fn spots(service: &Service) -> BTreeSet<Spot> {
    let Service { spec, status, .. } = service;
    let own = spec.cluster_ip.iter().chain(&spec.cluster_ips).chain(&spec.external_ips);
    let balancers = status.load_balancer.ingress.iter().filter_map(|own| own.ip.as_ref());
    let own = cross(own.chain(balancers).map(String::as_str), &spec.ports);
    let on_nodes = spec.ports.iter().filter_map(Port::on_nodes);
    let on_nodes = on_nodes.flat_map(|(protocol, port)| ANY_NODE.map(|ip| (protocol, ip, port)));
    own.chain(on_nodes).collect()
}

fn identity(meta: &Meta, teller: &Teller) -> Identity {
    Identity {
        identity: format!("service:{}", meta.uid).into(),
        cluster: Some(teller.cluster.clone()),
        namespace: meta.namespace.clone(),
        service: Some(meta.name.clone()),
        ..Identity::default()
    }
}
