//! Sampling: by how much figures are multiplied.
//!
//! Only if the exporter says that it looked at one packet of several: in the record itself, or in options, by the sampler that
//! the record names, for the interface where its packets came in, or for all that it exports. Where nothing is said, counts are as told.

use std::collections::HashMap;

use super::element::Element;
use super::template::Scope;
use super::wire::{float, number};

/// Packets that each packet looked at stands for, as a fraction of at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Factor {
    of: u64,
    looked_at: u64,
}

impl Factor {
    /// Every packet is looked at.
    pub(super) const ALL: Self = Self { of: 1, looked_at: 1 };

    /// One of so many.
    pub(super) fn one_of(interval: u64) -> Self {
        Self::new(interval, 1)
    }

    /// Each with this probability, which exporters give with six digits or more.
    fn with_probability(probability: f64) -> Self {
        const PARTS: f64 = 1e6;
        let is_possible = (1.0 / f64::from(u32::MAX)..1.0).contains(&probability);
        if is_possible { Self::new((PARTS / probability).round() as u64, PARTS as u64) } else { Self::ALL }
    }

    /// What makes no sense is no sampling.
    fn new(of: u64, looked_at: u64) -> Self {
        if looked_at > 0 && of > looked_at { Self { of, looked_at } } else { Self::ALL }
    }

    pub(super) fn times(self, count: u64) -> u64 {
        if self == Self::ALL {
            return count;
        }
        let scaled = u128::from(count) * u128::from(self.of) / u128::from(self.looked_at);
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }
}

/// What a record, of a flow or of options, says of sampling.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    interval: Option<u64>,
    sampled: Option<u64>,
    skipped: Option<u64>,
    size: Option<u64>,
    population: Option<u64>,
    probability: Option<f64>,
    sampler: Option<u64>,
    interface: Option<u64>,
}

impl Told {
    /// Takes a field, if it is one of sampling.
    pub(super) fn take(&mut self, element: Element, contents: &[u8]) {
        let place = match element {
            Element::SamplingInterval => &mut self.interval,
            Element::SampledPackets => &mut self.sampled,
            Element::SkippedPackets => &mut self.skipped,
            Element::SampleSize => &mut self.size,
            Element::SamplePopulation => &mut self.population,
            Element::Sampler => &mut self.sampler,
            Element::Ingress => &mut self.interface,
            Element::SamplingProbability => {
                self.probability = float(contents);
                return;
            }
            _ => return,
        };
        *place = number(contents);
    }

    /// `None` if nothing is said.
    fn factor(&self) -> Option<Factor> {
        if let (Some(sampled), Some(skipped)) = (self.sampled, self.skipped) {
            return Some(Factor::new(sampled.saturating_add(skipped), sampled));
        }
        if let (Some(size), Some(population)) = (self.size, self.population) {
            return Some(Factor::new(population, size));
        }
        self.interval.map(Factor::one_of).or_else(|| self.probability.map(Factor::with_probability))
    }
}

/// What a session's options said.
#[derive(Debug)]
pub(super) struct Samplers {
    by_id: HashMap<u64, Factor>,
    by_interface: HashMap<u64, Factor>,
    all: Factor,
}

impl Default for Samplers {
    fn default() -> Self {
        Self::all(Factor::ALL)
    }
}

impl Samplers {
    /// The same for all that is exported.
    pub(super) fn all(factor: Factor) -> Self {
        Self { by_id: HashMap::new(), by_interface: HashMap::new(), all: factor }
    }

    /// Samplers, and interfaces with a sampling of their own.
    pub(super) fn len(&self) -> usize {
        self.by_id.len() + self.by_interface.len()
    }

    /// Takes a record of options; false if it says something of one more, and there is no room.
    pub(super) fn learn(&mut self, told: &Told, scope: Scope, has_room: bool) -> bool {
        let Some(factor) = told.factor() else { return true };
        let (known, key) = match (told.sampler, told.interface, scope) {
            (Some(id), ..) => (&mut self.by_id, id),
            // Interface 0 is every interface that has no number.
            (None, Some(interface), Scope::Interface) => (&mut self.by_interface, interface),
            (None, _, Scope::Domain) => {
                self.all = factor;
                return true;
            }
            (None, ..) => return true,
        };
        let fits = has_room || known.contains_key(&key);
        if fits {
            known.insert(key, factor);
        }
        fits
    }

    /// By what the figures of a record are multiplied.
    pub(super) fn of(&self, told: &Told) -> Factor {
        if let Some(own) = told.factor() {
            return own;
        }
        let by_id = told.sampler.and_then(|id| self.by_id.get(&id));
        let by_interface = || told.interface.and_then(|interface| self.by_interface.get(&interface));
        by_id.or_else(by_interface).copied().unwrap_or(self.all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(fields: &[(Element, u8)]) -> Told {
        let mut told = Told::default();
        for (element, value) in fields {
            told.take(*element, &[*value]);
        }
        told
    }

    #[test]
    fn a_record_that_says_nothing_is_as_told() {
        let samplers = Samplers::default();
        assert_eq!(samplers.of(&told(&[])), Factor::ALL);
        assert_eq!(samplers.of(&told(&[(Element::Sampler, 3)])), Factor::ALL);
        assert_eq!(samplers.of(&told(&[(Element::SamplingInterval, 1)])), Factor::ALL);
        assert_eq!(samplers.of(&told(&[(Element::SamplingInterval, 0)])), Factor::ALL);
    }

    #[test]
    fn the_nearest_word_counts() {
        let mut samplers = Samplers::default();
        let mut learn = |fields: &[(Element, u8)], scope, has_room| samplers.learn(&told(fields), scope, has_room);
        assert!(learn(&[(Element::SamplingInterval, 2)], Scope::Domain, false));
        assert!(learn(&[(Element::Ingress, 7), (Element::SamplingInterval, 8)], Scope::Interface, true));
        assert!(learn(&[(Element::Ingress, 7), (Element::SamplingInterval, 3)], Scope::Interface, false));
        assert!(!learn(&[(Element::Ingress, 8), (Element::SamplingInterval, 9)], Scope::Interface, false));
        assert!(learn(&[(Element::Sampler, 1), (Element::SamplingInterval, 4)], Scope::Other, true));
        assert!(learn(&[(Element::SamplingInterval, 100)], Scope::Other, true));
        let times = |fields: &[(Element, u8)]| samplers.of(&told(fields)).times(1);
        assert_eq!(times(&[]), 2);
        assert_eq!(times(&[(Element::Ingress, 7)]), 3);
        assert_eq!(times(&[(Element::Ingress, 7), (Element::Sampler, 1)]), 4);
        assert_eq!(times(&[(Element::Sampler, 1), (Element::SamplingInterval, 5)]), 5);
        assert_eq!(times(&[(Element::Sampler, 9)]), 2);
    }

    #[test]
    fn fractions_are_exact() {
        let fields = [(Element::SampledPackets, 2), (Element::SkippedPackets, 3)];
        assert_eq!(Samplers::default().of(&told(&fields)).times(1001), 2502);
        let fields = [(Element::SampleSize, 3), (Element::SamplePopulation, 9)];
        assert_eq!(Samplers::default().of(&told(&fields)).times(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_probability_is_one_of_so_many() {
        let times = |probability: f64, count| {
            let mut told = Told::default();
            told.take(Element::SamplingProbability, &probability.to_be_bytes());
            Samplers::default().of(&told).times(count)
        };
        for interval in [1_u32, 2, 3, 7, 10, 100, 1_000, 4_096, 65_535, 1_000_000] {
            assert_eq!(times(1.0 / f64::from(interval), 1_000), u64::from(interval) * 1_000, "{interval}");
        }
        assert_eq!(times(0.4, 1_000), 2_500);
        for nonsense in [0.0, -0.5, 2.0, 1e-300, f64::NAN, f64::INFINITY] {
            assert_eq!(times(nonsense, 1_000), 1_000, "{nonsense}");
        }
        let mut told = Told::default();
        told.take(Element::SamplingProbability, &0.1_f32.to_be_bytes());
        assert_eq!(Samplers::default().of(&told).times(1_000), 10_000);
    }
}
