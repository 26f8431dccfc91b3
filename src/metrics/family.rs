//! Series that begin at 0.
//!
//! Prometheus sees what is added between two scrapes: what a series has when it is scraped first is in no rate. So a new series is 0 for
//! [`HELD`], and all that was counted of it meanwhile is added then: whoever scrapes once a minute or more often has seen the 0. It does not
//! depend on who asks and when, of whom there may be several. What is held is in no other series.
//!
//! Series that are known before there is anything to count begin at once ([`Family::begin`]), and nothing of them is held.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use prometheus::core::{Collector, Metric, MetricVec, MetricVecBuilder};
use prometheus::local::{LocalHistogram, LocalIntCounter, LocalMetric};
use prometheus::{Histogram, IntCounter, Registry};

/// Steps of time ([`super::flows::STEP`]) for which a new series is 0: more than a minute, of the first only a part.
pub(super) const HELD: u32 = 6;

/// What a series counts.
pub(super) trait Figure: Metric {
    type Value;
    /// What is not shown yet.
    type Held: LocalMetric;

    fn add(&self, value: Self::Value);
    fn hold(&self) -> Self::Held;
    fn add_held(held: &Self::Held, value: Self::Value);
}

impl Figure for IntCounter {
    type Value = u64;
    type Held = LocalIntCounter;

    fn add(&self, value: u64) {
        self.inc_by(value);
    }

    fn hold(&self) -> LocalIntCounter {
        self.local()
    }

    fn add_held(held: &LocalIntCounter, value: u64) {
        held.inc_by(value);
    }
}

impl Figure for Histogram {
    type Value = f64;
    type Held = LocalHistogram;

    fn add(&self, value: f64) {
        self.observe(value);
    }

    fn hold(&self) -> LocalHistogram {
        self.local()
    }

    fn add_held(held: &LocalHistogram, value: f64) {
        held.observe(value);
    }
}

/// All series of a family, as the registry knows them.
pub(super) trait Shown: Collector + Clone + 'static {
    type Figure: Figure;

    fn figure(&self, labels: &[&str]) -> Self::Figure;
    fn remove(&self, labels: &[String]) -> prometheus::Result<()>;
}

impl<B: MetricVecBuilder + 'static> Shown for MetricVec<B>
where
    B::M: Figure,
{
    type Figure = B::M;

    fn figure(&self, labels: &[&str]) -> B::M {
        self.with_label_values(labels)
    }

    fn remove(&self, labels: &[String]) -> prometheus::Result<()> {
        self.remove_label_values(labels)
    }
}

/// A family of series; see the module documentation.
pub(super) struct Family<S: Shown> {
    shown: S,
    labels: &'static [&'static str],
    /// By a hash of the values of their labels.
    series: HashMap<u64, Series<S::Figure>>,
    hasher: RandomState,
}

struct Series<F: Figure> {
    values: Vec<String>,
    figure: F,
    /// Steps until all is shown, and what was counted.
    held: Option<(u32, F::Held)>,
}

impl<S: Shown> Family<S> {
    /// Registers a family that has these labels.
    pub(super) fn new(registry: &Registry, shown: S, labels: &'static [&'static str]) -> prometheus::Result<Self> {
        registry.register(Box::new(shown.clone()))?;
        Ok(Self { shown, labels, series: HashMap::new(), hasher: RandomState::new() })
    }

    /// Begins a series, if there is none, of which nothing is held.
    pub(super) fn begin(&mut self, values: &[&str]) {
        self.series(values, 0);
    }

    /// Begins a series, if there is none, as if it were added to.
    pub(super) fn hold(&mut self, values: &[&str]) {
        self.series(values, HELD);
    }

    /// Adds to a series.
    pub(super) fn add(&mut self, values: &[&str], value: <S::Figure as Figure>::Value) {
        let series = self.series(values, HELD);
        match &series.held {
            Some((_, held)) => S::Figure::add_held(held, value),
            None => series.figure.add(value),
        }
    }

    fn series(&mut self, values: &[&str], steps: u32) -> &Series<S::Figure> {
        let Self { shown, series, hasher, .. } = self;
        series.entry(hasher.hash_one(values)).or_insert_with(|| {
            let figure = shown.figure(values);
            let held = (steps > 0).then(|| (steps, figure.hold()));
            Series { values: values.iter().map(|value| (*value).to_owned()).collect(), figure, held }
        })
    }

    /// Shows what was held for long enough.
    pub(super) fn step(&mut self) {
        for series in self.series.values_mut() {
            let is_over = |(left, _): &mut (u32, _)| {
                *left = left.saturating_sub(1);
                *left == 0
            };
            if let Some((_, held)) = series.held.take_if(is_over) {
                held.flush();
            }
        }
    }

    /// Ends the series of a client and a server, by whether `has_ended`.
    pub(super) fn end(&mut self, has_ended: impl Fn(Option<&str>, Option<&str>) -> bool) {
        let place = |name: &str| self.labels.iter().position(|label| *label == name);
        let (client, server) = (place("client"), place("server"));
        let shown = &self.shown;
        self.series.retain(|_, series| {
            let value = |place: Option<usize>| series.values.get(place?).map(String::as_str);
            let ends = has_ended(value(client), value(server));
            if ends && let Err(error) = shown.remove(&series.values) {
                tracing::error!("the series of {:?} cannot be ended: {error}", series.values);
            }
            !ends
        });
    }
}

#[cfg(test)]
mod tests {
    use prometheus::proto::MetricFamily;
    use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};

    use super::*;

    /// Counters by `server`, and what a scrape sees of them.
    struct Counters {
        registry: Registry,
        family: Family<IntCounterVec>,
    }

    impl Counters {
        fn new() -> Self {
            let (registry, labels) = (Registry::new(), &["server"]);
            let counters = IntCounterVec::new(Opts::new("counters", "help"), labels).expect("a family");
            let family = Family::new(&registry, counters, labels).expect("registered");
            Self { registry, family }
        }

        /// What there is of a server, if there is a series.
        fn scrape(&self, server: &str) -> Option<u64> {
            let families = self.registry.gather();
            let own = families.iter().flat_map(MetricFamily::get_metric);
            let mut own = own.filter(|series| series.get_label().iter().any(|label| label.value() == server));
            own.next().map(|series| series.get_counter().get_value() as u64)
        }
    }

    /// Scrapes every so many steps, from each step on: what is added from one to the next is all that was counted.
    #[test]
    fn whoever_scrapes_once_a_minute_sees_all_of_a_burst() {
        for (every, first) in (1..=4).flat_map(|every| (0..every).map(move |first| (every, first))) {
            let mut counters = Counters::new();
            let (mut before, mut increase) = (None, 0);
            for step in 0..20 {
                if step == 2 {
                    counters.family.add(&["job"], 30);
                    counters.family.add(&["job"], 9);
                }
                if step % every == first {
                    let now = counters.scrape("job");
                    increase += before.zip(now).map_or(0, |(before, now)| now - before);
                    before = now;
                }
                counters.family.step();
            }
            assert_eq!((before, increase), (Some(39), 39), "every {every} steps from {first}");
        }
    }

    #[test]
    fn a_series_that_began_before_there_was_anything_is_not_held() {
        let mut counters = Counters::new();
        counters.family.begin(&["other"]);
        assert_eq!(counters.scrape("other"), Some(0));
        counters.family.add(&["other"], 7);
        counters.family.begin(&["other"]);
        assert_eq!(counters.scrape("other"), Some(7));
    }

    /// As all classes of a status do with the first answer.
    #[test]
    fn series_that_are_held_together_are_shown_together() {
        let mut counters = Counters::new();
        counters.family.hold(&["5xx"]);
        counters.family.add(&["2xx"], 3);
        for _ in 1..HELD {
            counters.family.step();
            counters.family.add(&["5xx"], 1);
            assert_eq!((counters.scrape("2xx"), counters.scrape("5xx")), (Some(0), Some(0)));
        }
        counters.family.step();
        assert_eq!((counters.scrape("2xx"), counters.scrape("5xx")), (Some(3), Some(u64::from(HELD) - 1)));
        counters.family.add(&["5xx"], 1);
        assert_eq!(counters.scrape("5xx"), Some(u64::from(HELD)));
    }

    #[test]
    fn who_comes_again_begins_at_0_again() {
        let mut counters = Counters::new();
        for _ in 0..2 {
            counters.family.add(&["job"], 5);
            assert_eq!(counters.scrape("job"), Some(0));
            (0..HELD).for_each(|_| counters.family.step());
            assert_eq!(counters.scrape("job"), Some(5));
            counters.family.end(|client, server| client.is_none() && server == Some("job"));
            assert_eq!(counters.scrape("job"), None);
        }
    }

    #[test]
    fn times_are_held_as_counts_are() {
        let (registry, labels) = (Registry::new(), &["server"]);
        let times = HistogramVec::new(HistogramOpts::new("times", "help"), labels).expect("a family");
        let mut family = Family::new(&registry, times, labels).expect("registered");
        let count = || registry.gather()[0].get_metric()[0].get_histogram().get_sample_count();
        family.add(&["web"], 0.3);
        assert_eq!(count(), 0);
        (0..HELD).for_each(|_| family.step());
        family.add(&["web"], 0.4);
        assert_eq!(count(), 2);
    }
}
