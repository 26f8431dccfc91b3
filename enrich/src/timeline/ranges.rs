//! Names of whole ranges of addresses (CIDR). The longest prefix that has a name decides; an address with a name of its own is
//! not looked up here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::keys::Place;
use super::view::View;
use super::{Lookup, Span};
use crate::identity::{ANY_NETWORK, Identity};

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

impl View {
    /// Whose range the address was in, within `network` and, where that knows nothing, among the ranges without a network.
    pub fn range(&self, network: &str, ip: IpAddr, when: impl Into<Span>) -> Lookup {
        let when = when.into();
        let within =
            |network: &str| self.names.number(network).map_or(Lookup::None, |network| self.longest(network, ip, when));
        match within(network) {
            Lookup::None if network != ANY_NETWORK => within(ANY_NETWORK),
            found => found,
        }
    }

    /// Whose range the address was in, in whichever network `among` accepts: one identity, or `Ambiguous`.
    pub fn range_in_any(&self, ip: IpAddr, when: impl Into<Span>, among: impl Fn(&str) -> bool) -> Lookup {
        let when = when.into();
        let mut only = Lookup::None;
        for network in self.ranges.networks(ip).filter(|network| among(&self.names.name(*network))) {
            only = match (only, self.longest(network, ip, when)) {
                (known, Lookup::None) => known,
                (Lookup::None, found) => found,
                (Lookup::One(known, source), Lookup::One(found, _)) if known.identity == found.identity => {
                    Lookup::One(known, source)
                }
                (Lookup::One(known, _), Lookup::One(found, _)) => return Lookup::Ambiguous(vec![known, found]),
                (Lookup::Ambiguous(several), _) | (_, Lookup::Ambiguous(several)) => {
                    return Lookup::Ambiguous(several);
                }
            };
        }
        only
    }

    fn longest(&self, network: u32, ip: IpAddr, when: Span) -> Lookup {
        let mut begins_later = false;
        for place in self.ranges.around(network, ip) {
            match self.pick(&[place], when) {
                Lookup::None => {
                    let history = self.histories.get(&place);
                    begins_later |= history.is_some_and(|own| own.touching(when.from, when.to).next().is_some());
                }
                // A longer prefix has another name for the end of the span.
                Lookup::One(identity, _) if begins_later => return Lookup::Ambiguous(vec![identity]),
                Lookup::One(identity, source) => return self.unless_inherited((identity, source), (network, ip, when)),
                several @ Lookup::Ambiguous(_) => return several,
            }
        }
        Lookup::None
    }

    /// The name of a range for a span, unless it ends before and a wider range has another name for the rest.
    fn unless_inherited(
        &self,
        (identity, source): (Arc<Identity>, Arc<str>),
        (network, ip, when): (u32, IpAddr, Span),
    ) -> Lookup {
        let at_the_end = |place| match self.pick(&[place], when.to.into()) {
            Lookup::None => None,
            found => Some(found),
        };
        match self.ranges.around(network, ip).find_map(at_the_end) {
            Some(Lookup::One(heir, _)) if heir.identity != identity.identity => Lookup::Ambiguous(vec![identity, heir]),
            Some(Lookup::Ambiguous(several)) => Lookup::Ambiguous(several),
            Some(Lookup::One(..) | Lookup::None) | None => Lookup::One(identity, source),
        }
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
