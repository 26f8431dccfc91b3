//! Churn: pods that live for seconds, addresses that have a new owner after 100 ms, sources that lose, delay and repeat what
//! they tell, outages, restarts. The truth is known, so that each name is right, wrong or missing; wiretag's are compared with those of the two
//! usual ways. `cargo test -p wiretag-enrich --test churn -- --nocapture` prints the table of `docs/identity.md`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where it fails"
)]
#![allow(clippy::print_stdout, reason = "the table is for people")]

mod naming;
mod objects;
mod random;
#[path = "../rows/mod.rs"]
mod rows;
mod sources;
mod wiretag;
mod world;

use naming::{CurrentState, Naming, OneCandidate};
use random::Random;
use sources::{Faults, Heard};
use wiretag::Wiretag;
use world::{BEGIN, MS, Plan, SECOND, World};

/// What became of the ends of flows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Score {
    right: u64,
    wrong: u64,
    missing: u64,
}

impl Score {
    /// Of the names given, those that are right.
    fn precision(self) -> f64 {
        self.right as f64 / (self.right + self.wrong).max(1) as f64
    }

    fn with(self, other: Self) -> Self {
        Self { right: self.right + other.right, wrong: self.wrong + other.wrong, missing: self.missing + other.missing }
    }

    /// Of the ends that were somebody's, those that got the right name.
    fn recall(self) -> f64 {
        self.right as f64 / (self.right + self.wrong + self.missing).max(1) as f64
    }
}

/// Plays what was heard and the flows in the order of time.
fn play(world: &World, heard: &[Heard], naming: &mut dyn Naming) -> Score {
    let mut random = Random::new(7);
    let mut flows: Vec<(i64, usize)> = (world.flows.iter().enumerate())
        .map(|(number, flow)| (flow.end + 5 * MS + random.around(300 * MS), number))
        .collect();
    flows.sort_unstable();
    let mut score = Score::default();
    let mut flows = flows.into_iter().peekable();
    let mut count = |names: Vec<(usize, [Option<usize>; 2])>| {
        for (number, names) in names {
            for (name, truth) in names.into_iter().zip(world.flows[number].truth) {
                match name {
                    None => score.missing += 1,
                    name if name == truth => score.right += 1,
                    Some(_) => score.wrong += 1,
                }
            }
        }
    };
    for (at, told) in heard {
        while let Some((now, number)) = flows.next_if(|(now, _)| now <= at) {
            naming.ended(number, &world.flows[number], now);
            count(naming.named(Some(now)));
        }
        naming.told(world, told, *at);
    }
    for (now, number) in flows {
        naming.ended(number, &world.flows[number], now);
        count(naming.named(Some(now)));
    }
    count(naming.named(None));
    score
}

fn merged(parts: Vec<Vec<Heard>>) -> Vec<Heard> {
    let mut heard: Vec<Heard> = parts.into_iter().flatten().collect();
    heard.sort_by_key(|(at, _)| *at);
    heard
}

/// Who names, by the sources that it hears.
fn scores(world: &World, heard: &[Heard]) -> [(&'static str, Score); 3] {
    [
        ("wiretag", play(world, heard, &mut Wiretag::new(world))),
        ("current state", play(world, heard, &mut CurrentState::default())),
        ("one candidate", play(world, heard, &mut OneCandidate::default())),
    ]
}

/// Worlds that are played.
const SEEDS: [u64; 3] = [1, 2, 3];
/// Who tells, and the least recall.
const SOURCES: [(&str, f64); 3] =
    [("CNI hook, runtime, API server", 0.99), ("runtime, API server", 0.99), ("API server", 0.97)];

/// The scores of a world, by who tells.
fn scores_of(seed: u64) -> [[(&'static str, Score); 3]; 3] {
    let plan =
        Plan { seed, nodes: 4, slots: 60, length: 1800 * SECOND, jobs: 30, life: 300 * SECOND, flows_per_second: 60 };
    let faults = Faults {
        seed: seed + 1,
        hooks_lost: 10,
        runtime_lost: 50,
        twice: 100,
        watch_delay: 300 * MS,
        outage_every: 600,
        skew: 2 * SECOND,
        downs: [(600, 7), (1100, 25)].map(|(at, down)| (BEGIN + at * SECOND, BEGIN + (at + down) * SECOND)).into(),
    };
    let mut world = World::new(&plan);
    // Nobody sees flows while wiretag is down.
    world.flows.retain(|flow| faults.runs(flow.start, flow.end));
    let downs = sources::downs(&faults);
    let hook = sources::hook(&world, &faults);
    let runtime = sources::runtime(&world, &faults);
    let watch = sources::watch(&world, &faults);
    println!("seed {seed}: {} pods, {} flows", world.pods.len(), world.flows.len());
    [
        merged(vec![downs.clone(), hook, runtime.clone(), watch.clone()]),
        merged(vec![downs.clone(), runtime, watch.clone()]),
        merged(vec![downs, watch]),
    ]
    .map(|heard| scores(&world, &heard))
}

#[test]
fn names_are_right_or_absent() {
    let worlds: Vec<_> = std::thread::scope(|scope| {
        let played: Vec<_> = SEEDS.into_iter().map(|seed| scope.spawn(move || scores_of(seed))).collect();
        played.into_iter().map(|world| world.join().expect("a world")).collect()
    });
    println!("| sources | way | wrong names | precision | recall |\n| --- | --- | --- | --- | --- |");
    for (told, (sources, least_recall)) in SOURCES.into_iter().enumerate() {
        for world in &worlds {
            let [(_, own), others @ ..] = world[told];
            assert!(own.precision() >= 0.9999, "{sources}: {own:?}");
            assert!(own.recall() >= least_recall, "{sources}: {own:?}");
            for (way, other) in others {
                assert!(other.wrong > 10 * own.wrong.max(1), "{sources}: {way} is no worse: {other:?}, {own:?}");
            }
        }
        for way in 0..3 {
            let all = worlds.iter().map(|world| world[told][way].1).fold(Score::default(), Score::with);
            let (precision, recall) = (100.0 * all.precision(), 100.0 * all.recall());
            println!("| {sources} | {} | {} | {precision:.3} % | {recall:.2} % |", worlds[0][told][way].0, all.wrong);
        }
    }
}
