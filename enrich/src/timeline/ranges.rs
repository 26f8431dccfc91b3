//! Names of whole ranges of addresses (CIDR). The longest prefix that has a name decides; an address with a name of its own is
//! not looked up here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::keys::Place;
use super::view::View;
use super::{Lookup, Span};
use crate::identity::ANY_NETWORK;

/// Lengths of prefixes that are known, by network and family of addresses (IPv6?), longest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Ranges {
    lengths: BTreeMap<(u32, bool), Vec<u8>>,
}

impl Ranges {
    /// Whether a range of this length is known already; of other keys there is nothing to know.
    pub(super) fn has(&self, place: Place) -> bool {
        let Place::Range { network, ip, prefix } = place else { return true };
        self.lengths.get(&(network, ip.is_ipv6())).is_some_and(|lengths| lengths.contains(&prefix))
    }

    /// Takes note of a range.
    pub(super) fn note(&mut self, place: Place) {
        let Place::Range { network, ip, prefix } = place else { return };
        let lengths = self.lengths.entry((network, ip.is_ipv6())).or_default();
        let at = lengths.partition_point(|own| *own > prefix);
        if lengths.get(at) != Some(&prefix) {
            lengths.insert(at, prefix);
        }
    }

    fn networks(&self, ip: IpAddr) -> impl Iterator<Item = u32> {
        self.lengths.keys().filter(move |(_, is_ipv6)| *is_ipv6 == ip.is_ipv6()).map(|(network, _)| *network)
    }

    fn around(&self, network: u32, ip: IpAddr) -> impl Iterator<Item = Place> {
        let lengths = self.lengths.get(&(network, ip.is_ipv6())).into_iter().flatten();
        lengths.map(move |prefix| Place::Range { network, ip: first_of(ip, *prefix), prefix: *prefix })
    }
}

/// The first address of the range of this length that an address is in.
pub(crate) fn first_of(ip: IpAddr, prefix: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0);
            IpAddr::V4((ip.to_bits() & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix.into())).unwrap_or(0);
            IpAddr::V6((ip.to_bits() & mask).into())
        }
    }
}

/// Networks that count the same when a range is looked for.
type Level<'a> = &'a dyn Fn(u32) -> bool;

impl View {
    /// Whose range the address was in: of `network`, then of none, then of those that `beside` accepts; where `network` is not known,
    /// of those that `beside` accepts, then of none.
    pub fn range(
        &self,
        network: Option<&str>,
        ip: IpAddr,
        when: impl Into<Span>,
        beside: impl Fn(&str) -> bool,
    ) -> Lookup<'_> {
        let own = network.map(|network| self.names.number(network));
        let is_own = |network| own.flatten() == Some(network);
        let any = self.names.number(ANY_NETWORK);
        let is_any = |network| any == Some(network);
        let is_beside = |network| beside(&self.names.name(network));
        match own {
            Some(_) => self.range_of(&[&is_own, &is_any, &is_beside], ip, when.into()),
            None => self.range_of(&[&is_beside, &is_any], ip, when.into()),
        }
    }

    /// Whose range the address was in, in whichever network `among` accepts: one identity, or `Ambiguous`.
    pub fn range_in_any(&self, ip: IpAddr, when: impl Into<Span>, among: impl Fn(&str) -> bool) -> Lookup<'_> {
        self.range_of(&[&|network| among(&self.names.name(network))], ip, when.into())
    }

    /// The name of a range for a span, unless it ends before and a range that counts less has another name for the rest.
    fn range_of(&self, levels: &[Level<'_>], ip: IpAddr, when: Span) -> Lookup<'_> {
        let (identity, source) = match self.first(levels, ip, when) {
            Lookup::One(identity, source) => (identity, source),
            found @ (Lookup::Ambiguous(_) | Lookup::None) => return found,
        };
        match self.first(levels, ip, when.to.into()) {
            Lookup::One(heir, _) if heir.identity != identity.identity => {
                Lookup::Ambiguous(vec![identity.clone(), heir.clone()])
            }
            several @ Lookup::Ambiguous(_) => several,
            Lookup::One(..) | Lookup::None => Lookup::One(identity, source),
        }
    }

    /// The first level with a name when the span begins, and in it the longest prefix of each network.
    fn first(&self, levels: &[Level<'_>], ip: IpAddr, when: Span) -> Lookup<'_> {
        let mut begins_later = false;
        for level in levels {
            let mut only = Lookup::None;
            for network in self.ranges.networks(ip).filter(|network| level(*network)) {
                only = match (only, self.longest(network, ip, when, &mut begins_later)) {
                    (known, Lookup::None) => known,
                    (Lookup::None, found) => found,
                    (Lookup::One(known, source), Lookup::One(found, _)) if known.identity == found.identity => {
                        Lookup::One(known, source)
                    }
                    (Lookup::One(known, _), Lookup::One(found, _)) => {
                        Lookup::Ambiguous(vec![known.clone(), found.clone()])
                    }
                    (several @ Lookup::Ambiguous(_), _) | (_, several @ Lookup::Ambiguous(_)) => several,
                };
            }
            match only {
                Lookup::None => {}
                // What counts more has another name for the end of the span.
                Lookup::One(identity, _) if begins_later => return Lookup::Ambiguous(vec![identity.clone()]),
                found @ (Lookup::One(..) | Lookup::Ambiguous(_)) => return found,
            }
        }
        Lookup::None
    }

    fn longest(&self, network: u32, ip: IpAddr, when: Span, begins_later: &mut bool) -> Lookup<'_> {
        for place in self.ranges.around(network, ip) {
            match self.pick(&[place], when) {
                Lookup::None => {
                    let history = self.histories.get(&place);
                    *begins_later |= history.is_some_and(|own| own.touching(when.from, when.to).next().is_some());
                }
                found @ (Lookup::One(..) | Lookup::Ambiguous(_)) => return found,
            }
        }
        Lookup::None
    }
}

#[cfg(test)]
mod tests {
    use super::first_of;

    #[test]
    fn a_range_begins_at_its_first_address() {
        for (ip, prefix, first) in [
            ("10.1.2.3", 0, "0.0.0.0"),
            ("10.1.2.3", 12, "10.0.0.0"),
            ("10.1.2.3", 24, "10.1.2.0"),
            ("10.1.2.3", 32, "10.1.2.3"),
            ("2001:db8:1:2::3", 0, "::"),
            ("2001:db8:1:2::3", 48, "2001:db8:1::"),
            ("2001:db8:1:2::3", 128, "2001:db8:1:2::3"),
        ] {
            let ip = ip.parse().expect("an address");
            assert_eq!(first_of(ip, prefix).to_string(), first, "{ip}/{prefix}");
        }
    }
}
