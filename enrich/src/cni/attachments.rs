//! Records of the plugin to identity events. Pure: what is attached now, and since when.
//!
//! * An attachment is a container id and an interface's name; its identity is the pod's UID, or `cni:CONTAINERID` where
//!   that is not told.
//! * Records may come late, twice, or in any order: each is taken as of its own time. A `DEL` that comes before its
//!   `ADD` is remembered ([`MOST_ENDED`]), so that the attachment is told with its end. A `DEL` of what is not known ends
//!   nothing: a runtime repeats it, perhaps when the pod has a new sandbox already.
//! * What has ended stays in the journal for a moment ([`KEPT`]) and is told again after a restart: whoever was told may
//!   have been killed before it was written down.
//! * What ends is exactly the attachment: all of the identity if it was its last one, its network if there is none other
//!   in it, else its keys one by one.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::record::{Call, Record};
use crate::event::{IdentityEvent, Snapshot};
use crate::identity::{Identity, Interval, Key};

/// Attachments that are known at a time, at most.
const MOST_KNOWN: usize = 65_536;
/// Ends that are remembered, at most.
const MOST_ENDED: usize = 4096;
/// How long what has ended stays in the journal, ns.
const KEPT: i64 = 60_000_000_000;

/// Where the agent is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Network of the pods' addresses.
    pub(super) cluster: Arc<str>,
    pub(super) host: Arc<str>,
    pub(super) boot: Arc<str>,
    /// Inode of the agent's own network namespace.
    pub(super) netns: u64,
}

/// Container id and interface.
pub(super) type Id = (String, String);

struct Attachment {
    record: Record,
    identity: Arc<Identity>,
    network: Arc<str>,
}

/// An attachment, for the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    #[serde(flatten)]
    pub(super) record: Record,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ended: Option<i64>,
}

impl Entry {
    /// Reads one; `None` if it is none that can be used.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let Self { ended, .. } = serde_json::from_slice(bytes).ok()?;
        Some(Self { record: Record::parse(bytes)?, ended })
    }
}

/// What became of the attachments, for the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// It is there, or ended a moment ago.
    Kept(Box<Entry>),
    Gone(Id),
}

/// See the module documentation.
pub(super) struct Attachments {
    place: Place,
    known: HashMap<Id, Attachment>,
    ended: HashMap<Id, i64>,
    ended_first: VecDeque<Id>,
    /// What is in the journal though it is over, and since when.
    leaving: HashMap<Id, i64>,
    changes: Vec<Change>,
}

impl Attachments {
    pub(super) fn new(place: Place) -> Self {
        let (known, ended, leaving) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { place, known, ended, ended_first: VecDeque::new(), leaving, changes: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.known.values().map(|own| &own.record)
    }

    /// What changed since this was taken last.
    pub(super) fn take_changes(&mut self, now: i64) -> Vec<Change> {
        let left = self.leaving.extract_if(|_, since| now.saturating_sub(*since) >= KEPT);
        self.changes.extend(left.map(|(id, _)| Change::Gone(id)));
        std::mem::take(&mut self.changes)
    }

    /// What could not be written is to be written later; of what changed since, the latest counts.
    pub(super) fn keep_changes(&mut self, changes: Vec<Change>) {
        self.changes.splice(..0, changes);
    }

    /// `entry`, which is no longer known, stays in the journal until it is surely known elsewhere.
    fn leave(&mut self, entry: Entry, now: i64) {
        self.leaving.insert(id_of(&entry.record), now);
        self.changes.push(Change::Kept(Box::new(entry)));
    }

    /// Takes a record; the events that follow from it. `None` if there are too many attachments.
    pub(super) fn take(&mut self, record: Record, learned_at: i64) -> Option<Vec<IdentityEvent>> {
        let mut events = Vec::new();
        match record.call {
            Call::Add | Call::Check => self.attached(record, learned_at, &mut events)?,
            Call::Del => self.detached(&record, learned_at, &mut events),
            Call::Gc => self.collected(&record, learned_at, &mut events),
        }
        Some(events)
    }

    fn attached(&mut self, record: Record, learned_at: i64, events: &mut Vec<IdentityEvent>) -> Option<()> {
        if record.boot != *self.place.boot {
            return Some(());
        }
        let id = id_of(&record);
        if let Some(end) = self.ended.get(&id).copied().filter(|end| record.at <= *end) {
            if !self.known.contains_key(&id) {
                self.leave(Entry { record: record.clone(), ended: Some(end) }, learned_at);
            }
            let intervals = self.intervals(&self.attachment(record), Some(end), learned_at);
            events.extend(intervals.into_iter().map(IdentityEvent::Learned));
            return Some(());
        }
        let mut record = record;
        if let Some(old) = self.known.get(&id).map(|own| &own.record) {
            if agree(old, &record) {
                record = together(old, &record);
                if record == *old {
                    return Some(());
                }
            } else if record.at < old.at {
                // How it was before it was told otherwise.
                return Some(());
            } else if let Some(old) = self.known.remove(&id) {
                self.end(&old, record.at, learned_at, events);
            }
        } else if self.known.len() >= MOST_KNOWN {
            return None;
        }
        let attachment = self.attachment(record);
        events.extend(self.circumstances(&attachment, learned_at));
        events.extend(self.intervals(&attachment, None, learned_at).into_iter().map(IdentityEvent::Learned));
        self.leaving.remove(&id);
        self.changes.push(Change::Kept(Box::new(Entry { record: attachment.record.clone(), ended: None })));
        self.known.insert(id, attachment);
        Some(())
    }

    fn detached(&mut self, record: &Record, learned_at: i64, events: &mut Vec<IdentityEvent>) {
        let id = id_of(record);
        if self.known.get(&id).is_some_and(|known| record.at < known.record.at) {
            // A late word of an earlier life.
            self.ended_at(id, |first| first.unwrap_or(record.at));
        } else if let Some(attachment) = self.known.remove(&id) {
            self.end(&attachment, record.at, learned_at, events);
            self.leave(Entry { record: attachment.record, ended: Some(record.at) }, learned_at);
            self.ended_at(id, |_| record.at);
        } else {
            // Runtimes repeat it: the first one is the end.
            self.ended_at(id, |first| first.unwrap_or(record.at));
        }
    }

    /// Remembers an end, given what was remembered of the attachment before.
    fn ended_at(&mut self, id: Id, at: impl FnOnce(Option<i64>) -> i64) {
        let before = self.ended.get(&id).copied();
        self.ended.insert(id.clone(), at(before));
        if before.is_none() {
            self.ended_first.push_back(id);
        }
        while self.ended_first.len() > MOST_ENDED {
            if let Some(oldest) = self.ended_first.pop_front() {
                self.ended.remove(&oldest);
            }
        }
    }

    /// What a garbage collection does not name ended at some time before it: at the latest when another got its address.
    fn collected(&mut self, record: &Record, learned_at: i64, events: &mut Vec<IdentityEvent>) {
        let Some(valid) = &record.valid else { return };
        let valid: HashSet<&Id> = valid.iter().collect();
        let is_over = |(id, own): (&Id, &Attachment)| {
            let in_network = own.record.network == record.network && own.record.at < record.at;
            (in_network && !valid.contains(id)).then(|| id.clone())
        };
        let over: Vec<Id> = self.known.iter().filter_map(is_over).collect();
        for id in over {
            let Some(attachment) = self.known.remove(&id) else { continue };
            let own = &attachment.record;
            let heirs = self.known.values().filter(|other| other.network == attachment.network);
            let heirs = heirs.filter(|other| other.record.ips.iter().any(|ip| own.ips.contains(ip)));
            let begins = heirs.map(|heir| heir.record.at).filter(|at| *at > own.at);
            let end = begins.min().unwrap_or(record.at).min(record.at);
            self.end(&attachment, end, learned_at, events);
            self.leave(Entry { record: attachment.record, ended: Some(end) }, learned_at);
        }
    }

    /// Everything that holds, at the beginning or after a time without news: `alive` says which attachments are still
    /// there. The others are told once more, as whoever was told before may have been killed before it was written down,
    /// and then forgotten; when they ended nobody knows.
    pub(super) fn reconcile(
        &mut self,
        alive: impl Fn(&Record) -> bool,
        heard: Option<i64>,
        at: i64,
    ) -> Vec<IdentityEvent> {
        let gone: Vec<Id> =
            self.known.iter().filter(|(_, own)| !alive(&own.record)).map(|(id, _)| id.clone()).collect();
        let mut events = Vec::new();
        for id in gone {
            if let Some(attachment) = self.known.remove(&id) {
                events.extend(Self::alias(&attachment, at));
                events.extend(self.intervals(&attachment, None, at).into_iter().map(IdentityEvent::Learned));
                events.extend(self.namespace_gone(&attachment, at));
                self.leave(Entry { record: attachment.record, ended: None }, at);
            }
        }
        let known = self.known.values();
        events.extend(known.clone().flat_map(|own| self.circumstances(own, at)));
        let present = known.flat_map(|own| self.intervals(own, None, at)).collect();
        let (source, stopped) = ("cni".into(), Vec::new());
        events.push(IdentityEvent::Reconciled(Snapshot { source, present, stopped, unclear: Vec::new(), heard, at }));
        events
    }

    /// Takes up what an earlier run knew: what follows from what had ended already. The rest is told by
    /// [`Self::reconcile`].
    pub(super) fn restore(&mut self, entries: Vec<Entry>, at: i64) -> Vec<IdentityEvent> {
        let (mut ended, known): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.ended.is_some());
        for Entry { record, .. } in known.into_iter().take(MOST_KNOWN) {
            let id = id_of(&record);
            let attachment = self.attachment(record);
            self.known.insert(id, attachment);
        }
        ended.sort_by_key(|entry| entry.ended);
        let mut events = Vec::new();
        for Entry { record, ended } in ended {
            let Some(end) = ended else { continue };
            let id = id_of(&record);
            let attachment = self.attachment(record);
            events.extend(Self::alias(&attachment, at));
            events.extend(self.intervals(&attachment, Some(end), at).into_iter().map(IdentityEvent::Learned));
            self.end(&attachment, end, at, &mut events);
            self.leaving.insert(id.clone(), at);
            self.ended_at(id, |_| end);
        }
        events
    }

    fn attachment(&self, record: Record) -> Attachment {
        let own: Arc<str> = format!("cni:{}", record.container).into();
        let mut identity = Identity { host: Some(self.place.host.clone()), ..Identity::default() };
        if let Some(pod) = &record.pod {
            identity.identity = pod.uid.as_deref().map_or(own, Into::into);
            identity.cluster = Some(self.place.cluster.clone());
            identity.namespace = Some(pod.namespace.as_str().into());
            identity.pod = Some(pod.name.as_str().into());
        } else {
            identity.identity = own;
            identity.container = Some(record.container.as_str().into());
        }
        let network = if record.pod.is_some() && record.ifname == "eth0" {
            self.place.cluster.clone()
        } else {
            format!("{}/{}", self.place.cluster, record.network).into()
        };
        Attachment { record, identity: Arc::new(identity), network }
    }

    /// The interface that carries the attachment's traffic: index and namespace. A plugin in another namespace than the
    /// agent sees other interfaces.
    fn interface(&self, record: &Record) -> Option<(u32, u64)> {
        match &record.outside {
            Some(outside) => (record.own_netns == self.place.netns).then_some((outside.index, 0)),
            None => record.inside.zip(record.inode),
        }
    }

    /// What is told beside the keys.
    fn circumstances(&self, attachment: &Attachment, learned_at: i64) -> Vec<IdentityEvent> {
        let Attachment { record, identity, network } = attachment;
        let mut events = Vec::new();
        if let Some((index, netns)) = self.interface(record) {
            let bridge = record.outside.as_ref().and_then(|outside| outside.bridge);
            for index in bridge.into_iter().chain([index]) {
                let (network, at) = (network.clone(), record.at);
                events.push(IdentityEvent::Network { index, netns, network, at });
            }
        }
        events.extend(Self::alias(attachment, learned_at));
        if let (None, Some(_), Some(inode), Some(netns)) = (&record.outside, record.inside, record.inode, &record.netns)
        {
            let others =
                self.known.values().map(|other| &other.record).filter(|other| {
                    other.inode == Some(inode) && other.outside.is_none() && other.ifname != record.ifname
                });
            let of = |record: &Record| Some((record.inside?, record.ifname.clone()));
            let interfaces = others.chain([record]).filter_map(of).collect();
            let (identity, netns) = (identity.clone(), netns.clone());
            events.push(IdentityEvent::Namespace { identity, netns, inode, interfaces });
        }
        events
    }

    /// The sandbox is the pod.
    fn alias(Attachment { record, identity, .. }: &Attachment, learned_at: i64) -> Option<IdentityEvent> {
        let alias = format!("cni:{}", record.container);
        (*identity.identity != *alias).then(|| {
            let (alias, identity, source) = (alias.into(), identity.identity.clone(), "cni".into());
            IdentityEvent::Same { alias, identity, member: None, learned_at, source }
        })
    }

    fn intervals(&self, attachment: &Attachment, valid_to: Option<i64>, learned_at: i64) -> Vec<Interval> {
        let Attachment { record, identity, network } = attachment;
        let boot = || record.boot.as_str().into();
        let interface = self.interface(record).map(|(index, netns)| Key::Interface { index, netns, boot: boot() });
        let mac = record.mac.map(|mac| Key::Mac { network: network.clone(), mac });
        let ips = record.ips.iter().map(|ip| Key::Ip { network: network.clone(), ip: *ip });
        let interval = |key| {
            let (identity, source) = (identity.clone(), "cni".into());
            Interval { key, identity, valid_from: record.at, valid_to, learned_at, source }
        };
        interface.into_iter().chain(mac).chain(ips).map(interval).collect()
    }

    /// `attachment`, which is not known any more, ended.
    fn end(&self, attachment: &Attachment, at: i64, learned_at: i64, events: &mut Vec<IdentityEvent>) {
        let identity = attachment.identity.identity.clone();
        let others = || self.known.values().filter(|other| other.identity.identity == identity);
        if others().any(|other| other.network == attachment.network) {
            let intervals = self.intervals(attachment, Some(at), learned_at);
            events.extend(intervals.into_iter().map(IdentityEvent::Learned));
        } else if others().next().is_some() {
            let network = attachment.network.clone();
            events.push(IdentityEvent::Parted {
                identity: identity.clone(),
                network,
                at,
                learned_at,
                source: "cni".into(),
            });
        } else {
            events.push(IdentityEvent::Ended { identity: identity.clone(), at, learned_at, source: "cni".into() });
        }
        events.extend(self.namespace_gone(attachment, at));
    }

    /// The end of the capture inside, if this was the last attachment there.
    fn namespace_gone(&self, attachment: &Attachment, at: i64) -> Option<IdentityEvent> {
        let record = &attachment.record;
        let inode = record.inode.filter(|_| record.outside.is_none() && record.inside.is_some())?;
        let is_inside = |other: &Attachment| other.record.inode == Some(inode) && other.record.outside.is_none();
        (!self.known.values().any(is_inside)).then_some(IdentityEvent::NamespaceGone { inode, at })
    }
}

fn id_of(record: &Record) -> Id {
    (record.container.clone(), record.ifname.clone())
}

/// Whether two records can be of the same attachment: what one of them does not tell is unknown, not different. One
/// whose writer could not look inside tells neither interface nor, for sure, link-layer address.
fn agree(one: &Record, other: &Record) -> bool {
    fn fits<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
        one.zip(other).is_none_or(|(one, other)| one == other)
    }
    let ips = |of: &Record| (!of.ips.is_empty()).then(|| of.ips.iter().copied().collect::<HashSet<IpAddr>>());
    let seen = |of: &Record| of.inside.map(|inside| (inside, of.outside.as_ref().map(|outside| outside.index), of.mac));
    fits(one.inode, other.inode) && fits(ips(one), ips(other)) && fits(seen(one), seen(other))
}

/// Two records of the same attachment as one: since the earlier of them, with all that either tells.
fn together(old: &Record, new: &Record) -> Record {
    let is_newer = new.at >= old.at;
    let seen = if new.inside.is_some() && (is_newer || old.inside.is_none()) { new } else { old };
    Record {
        at: old.at.min(new.at),
        own_netns: seen.own_netns,
        netns: old.netns.clone().or_else(|| new.netns.clone()),
        inode: old.inode.or(new.inode),
        mac: seen.mac.or(old.mac).or(new.mac),
        inside: seen.inside,
        outside: seen.outside.clone(),
        // The order says nothing.
        ips: if old.ips.is_empty() { new.ips.clone() } else { old.ips.clone() },
        ..old.clone()
    }
}

#[cfg(test)]
mod tests;
