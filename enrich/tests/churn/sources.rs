//! What the sources tell of the world, and when wiretag hears it: late, twice, out of order, or not at all.

use std::collections::BTreeMap;

use crate::objects::{Version, life};
use crate::random::Random;
use crate::world::{BEGIN, HERE, MS, Pod, SECOND, World};

/// What goes wrong.
#[derive(Debug, Clone)]
pub(crate) struct Faults {
    pub(crate) seed: u64,
    /// Of 10,000 records of the CNI hook.
    pub(crate) hooks_lost: i64,
    /// Of 10,000 events of the container runtime; the listing every ten seconds makes up for them.
    pub(crate) runtime_lost: i64,
    /// Of 10,000 of anything.
    pub(crate) twice: i64,
    /// Mean delay of the API server's watch, ns.
    pub(crate) watch_delay: i64,
    /// Seconds between outages of the watch; each lasts 5 to 30 s.
    pub(crate) outage_every: i64,
    /// The clocks of other nodes and of the API server are off by up to so much, ns.
    pub(crate) skew: i64,
    /// From when to when whoever names does not run.
    pub(crate) downs: Vec<(i64, i64)>,
}

impl Faults {
    /// Whether whoever names runs all the time.
    pub(crate) fn runs(&self, from: i64, to: i64) -> bool {
        self.downs.iter().all(|(down, up)| to < *down || *up <= from)
    }
}

/// When whoever names is stopped and started.
pub(crate) fn downs(faults: &Faults) -> Vec<Heard> {
    faults.downs.iter().flat_map(|(from, to)| [(*from, Told::Down), (*to, Told::Up)]).collect()
}

#[derive(Debug, Clone)]
pub(crate) enum Told {
    /// The CNI hook: the network of a pod was made or removed then.
    Hook { pod: usize, added: bool, at: i64 },
    /// The container runtime: a sandbox began or stopped then.
    Runtime { pod: usize, started: bool, at: i64 },
    /// The container runtime: all sandboxes that there are.
    RuntimeList(Vec<usize>),
    /// The watch. `missed`: it happened while the connection was cut off, or just after.
    Watch { version: Version, missed: bool },
    /// The connection of the watch is alive.
    Alive,
    /// The watch begins anew: all objects that there are.
    List(Vec<Version>),
    /// Whoever names is stopped, and keeps what is persisted.
    Down,
    /// It runs again.
    Up,
}

/// When it is heard, and what.
pub(crate) type Heard = (i64, Told);

/// What the CNI hook of wiretag's node tells.
pub(crate) fn hook(world: &World, faults: &Faults) -> Vec<Heard> {
    let mut random = Random::new(faults.seed ^ 1);
    let mut heard = Vec::new();
    for (index, pod) in own(world) {
        for (added, at) in [(true, pod.up), (false, pod.free)] {
            if !random.happens(faults.hooks_lost) {
                let told = Told::Hook { pod: index, added, at };
                deliver(&mut heard, at + MS + random.around(10 * MS), told, faults, &mut random);
            }
        }
    }
    // Its records wait in files.
    for (at, _) in &mut heard {
        if let Some((_, up)) = faults.downs.iter().find(|(down, up)| down <= at && *at < *up) {
            *at = up + 2 * MS;
        }
    }
    heard
}

/// What the container runtime of wiretag's node tells.
pub(crate) fn runtime(world: &World, faults: &Faults) -> Vec<Heard> {
    let mut random = Random::new(faults.seed ^ 2);
    let mut heard = Vec::new();
    for (index, pod) in own(world) {
        for (started, at) in [(true, pod.up + 5 * MS), (false, pod.down + 5 * MS)] {
            let told = Told::Runtime { pod: index, started, at };
            let lost = random.happens(faults.runtime_lost);
            let at = if lost { at + random.below(10 * SECOND) } else { at + 10 * MS + random.around(100 * MS) };
            deliver(&mut heard, at, told, faults, &mut random);
        }
    }
    heard.retain(|(at, _)| faults.runs(*at, *at));
    for (_, up) in &faults.downs {
        let lives = |pod: &Pod| pod.up + 5 * MS <= *up && *up < pod.down + 5 * MS;
        let list = own(world).filter(|(_, pod)| lives(pod)).map(|(index, _)| index);
        heard.push((up + MS, Told::RuntimeList(list.collect())));
    }
    heard
}

fn own(world: &World) -> impl Iterator<Item = (usize, &Pod)> {
    world.pods.iter().enumerate().filter(|(_, pod)| pod.node == HERE)
}

fn deliver(heard: &mut Vec<Heard>, at: i64, told: Told, faults: &Faults, random: &mut Random) {
    if random.happens(faults.twice) {
        heard.push((at + random.below(SECOND), told.clone()));
    }
    heard.push((at, told));
}

/// What the watch of the API server tells, of the pods of all nodes.
pub(crate) fn watch(world: &World, faults: &Faults) -> Vec<Heard> {
    let mut random = Random::new(faults.seed ^ 3);
    let mut skew = |node| if node == HERE { 0 } else { random.below(2 * faults.skew) - faults.skew };
    let (skews, api) = ((0..=255).map(&mut skew).collect::<Vec<i64>>(), skew(usize::MAX));
    let lives = world.pods.iter().enumerate();
    let mut changes: Vec<(i64, Version)> =
        lives.flat_map(|(index, pod)| life(index, pod, [skews[pod.node], api], &mut random)).collect();
    changes.sort_by_key(|(at, version)| (*at, version.pod));
    changes.iter_mut().enumerate().for_each(|(number, (_, version))| version.number = number);
    let end = changes.last().map_or(BEGIN, |(at, _)| *at);
    Watch::new(faults, end, random).hear(&changes, end)
}

/// Until a watch that was cut off is taken to be up to date.
const CATCH_UP: i64 = 350 * MS;

/// The watch is cut off from then to then.
#[derive(Debug, Clone, Copy)]
struct Gap {
    from: i64,
    to: i64,
    /// It goes on where it was; otherwise it begins anew.
    resumes: bool,
}

/// One stream in order, with gaps.
struct Watch<'a> {
    faults: &'a Faults,
    random: Random,
    gaps: std::iter::Peekable<std::vec::IntoIter<Gap>>,
    /// When the connection was made.
    back: i64,
    /// When the last thing was told.
    last: i64,
    objects: BTreeMap<usize, Version>,
    missed: Vec<Version>,
    heard: Vec<Heard>,
}

impl<'a> Watch<'a> {
    fn new(faults: &'a Faults, end: i64, mut random: Random) -> Self {
        let mut gaps: Vec<Gap> =
            faults.downs.iter().map(|(from, to)| Gap { from: *from, to: *to, resumes: false }).collect();
        let mut at = BEGIN;
        while at < end {
            let from = at + faults.outage_every * SECOND / 2 + random.around(faults.outage_every * SECOND / 2);
            at = from + 5 * SECOND + random.below(25 * SECOND);
            if faults.runs(from - SECOND, at + SECOND) {
                gaps.push(Gap { from, to: at, resumes: random.below(2) == 0 });
            }
        }
        gaps.sort_by_key(|gap| gap.from);
        let (objects, missed) = (BTreeMap::new(), Vec::new());
        let gaps = gaps.into_iter().peekable();
        Self { faults, random, gaps, back: BEGIN, last: BEGIN, objects, missed, heard: Vec::new() }
    }

    fn hear(mut self, changes: &[(i64, Version)], end: i64) -> Vec<Heard> {
        for (at, version) in changes {
            while let Some(gap) = self.gaps.next_if(|gap| *at >= gap.to) {
                self.end_gap(gap);
            }
            if version.deleted {
                self.objects.remove(&version.pod);
            } else {
                self.objects.insert(version.pod, *version);
            }
            let told = self.last.max(at + 20 * MS + self.random.around(self.faults.watch_delay));
            // What was on its way when the connection broke comes again.
            if self.gaps.peek().is_some_and(|gap| told >= gap.from) {
                self.missed.push(*version);
            } else {
                self.last = told;
                self.tell(*version);
            }
        }
        let until = self.gaps.next().map_or(end, |gap| gap.from.min(end));
        self.alive(until);
        self.heard.sort_by_key(|(at, _)| *at);
        self.heard
    }

    /// A watch repeats only what it told last.
    fn tell(&mut self, version: Version) {
        let told = Told::Watch { version, missed: self.last < self.back + CATCH_UP };
        self.heard.push((self.last, told.clone()));
        if self.random.happens(self.faults.twice) {
            self.heard.push((self.last, told));
        }
    }

    fn end_gap(&mut self, gap: Gap) {
        self.alive(gap.from);
        self.back = gap.to + 50 * MS;
        self.last = self.back;
        let missed = std::mem::take(&mut self.missed);
        if gap.resumes {
            for version in missed {
                self.tell(version);
            }
        } else {
            self.heard.push((self.last, Told::List(self.objects.values().copied().collect())));
        }
    }

    fn alive(&mut self, until: i64) {
        let beats = (self.back + CATCH_UP..until).step_by(SECOND as usize);
        self.heard.extend(beats.map(|at| (at, Told::Alive)));
    }
}
