//! Questions about identities: who had a key at a time, where a pod or workload was over time, and who said so.
//!
//! What is asked for is looked for in all that is known, which takes long where millions of keys are: not for the path of
//! packets.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::attributes::Told;
use super::history::{Claim, Ending};
use super::keys::Place;
use super::view::View;
use super::{Dossier, Timeline};
use crate::identity::Interval;

/// What is asked; conditions that are absent hold. In texts `*` stands for anything.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// What held at this time.
    pub at: Option<i64>,
    /// As it was known then: without what was learned later.
    pub known_at: Option<i64>,
    /// This address, of a host, a socket or a service, and ranges around it.
    pub ip: Option<IpAddr>,
    /// This link-layer address.
    pub mac: Option<[u8; 6]>,
    /// The interface with this number.
    pub interface: Option<u32>,
    /// Keys in this network.
    pub network: Option<String>,
    /// Who has this as pod, container or host name.
    pub name: Option<String>,
    /// Who is of this namespace.
    pub namespace: Option<String>,
    /// Who is of this workload.
    pub workload: Option<String>,
    /// Who is this service, or of it.
    pub service: Option<String>,
    /// Who has this id: of a pod, container or sandbox.
    pub identity: Option<String>,
    /// Said by this source.
    pub source: Option<String>,
}

/// One thing that a source said, as far as it is known to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Key, identity with its attributes then, times, source.
    pub interval: Interval,
    /// By which other name it was told.
    pub told_as: Option<Arc<str>>,
    /// How the end is known: `open`, `sure`, `unheard` (the source was away, and then no longer said so), `replaced` (the
    /// source said that another began).
    pub ending: &'static str,
    /// A source with exact times says the same: its times count.
    pub covered: bool,
}

/// How much an answer may take.
#[derive(Clone, Copy)]
pub struct Bounds<'a> {
    /// Rows, the first by key and time; one more says that there are more.
    pub rows: usize,
    /// Identities whose history is made anew, as it was known at another time.
    pub histories: usize,
    /// Whether somebody still waits: if not, the answer ends where it is.
    pub wanted: &'a dyn Fn() -> bool,
}

/// More identities have to do with what was known at a time than [`Bounds::histories`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {histories} identities have to do with it; hint: ask for one key, pod or workload")]
pub struct TooMany {
    /// The bound.
    pub histories: usize,
}

/// Rows, of which only the first are kept.
struct First {
    most: usize,
    rows: Vec<Known>,
}

impl First {
    fn push(&mut self, row: Known) {
        self.rows.push(row);
        // Seldom, so that sorting costs little a row.
        if self.rows.len() / 2 > self.most.max(512) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.rows.sort_by(|one, other| {
            let order = |own: &Known| (own.interval.valid_from, own.interval.learned_at);
            one.interval.key.cmp(&other.interval.key).then_with(|| order(one).cmp(&order(other)))
        });
        self.rows.truncate(self.most);
    }

    fn finish(mut self) -> Vec<Known> {
        self.cut();
        self.rows
    }
}

impl Query {
    /// Whether it asks for certain keys or identities, and not for all.
    pub fn is_selective(&self) -> bool {
        self.asks_for_somebody() || self.ip.is_some() || self.mac.is_some() || self.interface.is_some()
    }

    fn asks_for_somebody(&self) -> bool {
        let texts = [&self.name, &self.namespace, &self.workload, &self.service, &self.identity];
        texts.into_iter().any(Option::is_some)
    }

    fn fits_place(&self, network: Option<u32>, place: Place) -> bool {
        let (ip, mac, interface) = match place {
            Place::Interface { index, .. } => (None, None, Some(index)),
            Place::Mac { mac, .. } => (None, Some(mac), None),
            Place::Ip { ip, .. } | Place::Service { ip, .. } => (Some(ip), None, None),
            // Of a range it is each one.
            Place::Range { .. } => (self.ip.filter(|asked| place.names(*asked)), None, None),
            Place::Socket { ip, .. } => (ip, None, None),
        };
        (network.is_none() || place.network() == network)
            && self.ip.is_none_or(|asked| ip == Some(asked))
            && self.mac.is_none_or(|asked| mac == Some(asked))
            && self.interface.is_none_or(|asked| interface == Some(asked))
    }

    fn fits_told(&self, id: &str, told: &Told) -> bool {
        let base = &told.base;
        let names = [told.pod.as_ref(), told.container.as_ref(), base.host.as_ref().filter(|_| told.pod.is_none())];
        fits(self.name.as_ref(), names)
            && fits(self.namespace.as_ref(), [base.namespace.as_ref()])
            && fits(self.workload.as_ref(), [base.workload.as_ref()])
            && fits(self.service.as_ref(), [base.service.as_ref()])
            && self.identity.as_ref().is_none_or(|pattern| like(pattern, id))
    }
}

fn fits<'a>(pattern: Option<&String>, texts: impl IntoIterator<Item = Option<&'a Arc<str>>>) -> bool {
    pattern.is_none_or(|pattern| texts.into_iter().flatten().any(|text| like(pattern, text)))
}

/// Whether a text is like a pattern in which `*` stands for anything.
fn like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    true
}

impl View {
    /// What is known, by key and time.
    pub fn query(&self, query: &Query) -> Vec<Known> {
        let all = Bounds { rows: usize::MAX, histories: usize::MAX, wanted: &|| true };
        self.query_within(query, all).unwrap_or_default()
    }

    /// As [`Self::query`], the first rows of it.
    pub fn query_within(&self, query: &Query, bounds: Bounds<'_>) -> Result<Vec<Known>, TooMany> {
        match query.known_at {
            Some(at) => Ok(self.as_known(query, at, bounds)?.answer(query, bounds)),
            None => Ok(self.answer(query, bounds)),
        }
    }

    fn answer(&self, query: &Query, bounds: Bounds<'_>) -> Vec<Known> {
        let somebody = query.asks_for_somebody().then(|| self.somebody(query, bounds));
        let Ok(network) = self.network(query) else { return Vec::new() };
        let mut known = First { most: bounds.rows, rows: Vec::new() };
        let histories = self.histories.iter().take_while(|_| (bounds.wanted)());
        for (place, history) in histories.filter(|(place, _)| query.fits_place(network, **place)) {
            for claim in history.iter() {
                if somebody.as_ref().is_none_or(|somebody| somebody.contains(&claim.subject)) {
                    self.tell(query, *place, claim, &mut known);
                }
            }
        }
        known.finish()
    }

    /// All names of those who are asked for.
    fn somebody(&self, query: &Query, bounds: Bounds<'_>) -> HashSet<u32> {
        let mut somebody = HashSet::new();
        for chunk in (0..self.subjects.chunks()).take_while(|_| (bounds.wanted)()) {
            for (number, own) in self.subjects.chunk(chunk) {
                let is_id = query.identity.as_ref().is_some_and(|pattern| like(pattern, &own.id));
                let only_by_id = query.identity.is_some() && own.told.is_empty();
                let fits = own.told.iter().any(|told| query.fits_told(&own.id, told));
                if fits || (is_id && only_by_id) {
                    somebody.extend(self.subjects.with_names(self.subjects.canonical(number)));
                }
            }
        }
        somebody
    }

    /// The number of the network that is asked for, if one is; an error if it is not known.
    fn network(&self, query: &Query) -> Result<Option<u32>, ()> {
        query.network.as_deref().map(|network| self.names.number(network).ok_or(())).transpose()
    }

    /// A claim, in one piece for each version of its attributes.
    fn tell(&self, query: &Query, place: Place, claim: &Claim, known: &mut First) {
        let source = self.sources.name(claim.source);
        if query.source.as_ref().is_some_and(|asked| !like(asked, &source)) {
            return;
        }
        let Some(versions) = self.subjects.merge(claim.subject, &self.sources) else { return };
        let told_as = (claim.subject != claim.who).then(|| self.subjects.get(claim.subject).map(|own| own.id.clone()));
        let later = versions.iter().filter(|(from, _)| *from > claim.from && *from < claim.held_to);
        let mut begins: Vec<i64> = std::iter::once(claim.from).chain(later.map(|(from, _)| *from)).collect();
        begins.dedup();
        for (index, from) in begins.iter().enumerate() {
            let next = begins.get(index + 1).copied();
            let to = next.unwrap_or(claim.held_to);
            if query.at.is_some_and(|at| at < *from || at >= to) {
                continue;
            }
            let Some(identity) = super::attributes::as_of(&versions, *from).cloned() else { continue };
            let interval = Interval {
                key: self.names.key(place),
                identity,
                valid_from: *from,
                valid_to: (to != i64::MAX).then_some(to),
                learned_at: claim.learned_at,
                source: source.clone(),
            };
            let ending = if next.is_some() { Ending::Sure } else { claim.ending };
            known.push(Known {
                interval,
                told_as: told_as.clone().flatten(),
                ending: word(ending),
                covered: claim.covered,
            });
        }
    }

    /// What was known at `at` of all who have to do with the question.
    fn as_known(&self, query: &Query, at: i64, bounds: Bounds<'_>) -> Result<Self, TooMany> {
        let somebody = query.asks_for_somebody().then(|| self.somebody(query, bounds));
        let Ok(network) = self.network(query) else { return Ok(Self::default()) };
        let mut subjects: HashSet<u32> = HashSet::new();
        let histories = self.histories.iter().take_while(|_| (bounds.wanted)());
        for (_, history) in histories.filter(|(place, _)| query.fits_place(network, **place)) {
            let concerns = |claim: &Claim| somebody.as_ref().is_none_or(|somebody| somebody.contains(&claim.subject));
            if history.iter().any(concerns) {
                // Who else held the key matters too.
                subjects.extend(history.iter().flat_map(|claim| self.subjects.with_names(claim.who)));
            }
            if subjects.len() > bounds.histories {
                return Err(TooMany { histories: bounds.histories });
            }
        }
        let dossiers = subjects.into_iter().filter_map(|number| self.dossier_of(number));
        let mut timeline = Timeline::new();
        timeline.load(dossiers.filter_map(|dossier: Dossier| dossier.as_known_at(at)));
        Ok(timeline.view())
    }
}

fn word(ending: Ending) -> &'static str {
    match ending {
        Ending::Open => "open",
        Ending::Sure => "sure",
        Ending::Unheard => "unheard",
        Ending::Replaced => "replaced",
    }
}

#[cfg(test)]
mod tests {
    use super::like;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, fits) in [
            ("web", "web", true),
            ("web", "web-1", false),
            ("web*", "web-1", true),
            ("*-1", "web-1", true),
            ("w*b*1", "web-1", true),
            ("w*b*2", "web-1", false),
            ("*", "", true),
            ("a*a", "a", false),
        ] {
            assert_eq!(like(pattern, text), fits, "{pattern} {text}");
        }
    }
}
