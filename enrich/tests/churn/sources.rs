//! What the sources tell of the world, and when wiretag hears it: late, twice, out of order, or not at all.

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
    /// The clocks of other nodes are off by up to so much, ns.
    pub(crate) skew: i64,
}

/// A pod as the API server has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) pod: usize,
    /// Second at which its container started, by its node's clock.
    pub(crate) started: i64,
    /// Its phase is final; the second at which its container finished, by its node's clock.
    pub(crate) finished: Option<i64>,
    /// The object is gone.
    pub(crate) deleted: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Told {
    /// The CNI hook: the network of a pod was made or removed then.
    Hook { pod: usize, added: bool, at: i64 },
    /// The container runtime: a sandbox began or stopped then.
    Runtime { pod: usize, started: bool, at: i64 },
    /// The watch.
    Watch(Version),
    /// The connection of the watch is alive.
    Alive,
    /// The watch is back after an outage: all objects that there are.
    List(Vec<Version>),
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
    let mut changes = Vec::new();
    let skews: Vec<i64> =
        (0..=255).map(|node| if node == HERE { 0 } else { random.below(2 * faults.skew) - faults.skew }).collect();
    for (index, pod) in world.pods.iter().enumerate() {
        versions(index, pod, skews[pod.node], &mut changes, &mut random);
    }
    changes.sort_by_key(|(at, _)| *at);
    let end = changes.last().map_or(BEGIN, |(at, _)| *at);
    hear(&changes, end, faults, &mut random)
}

/// The life of a pod's object. The kubelet tells of an address when the containers run, and of the end when the sandbox
/// may be gone already.
fn versions(index: usize, pod: &Pod, skew: i64, changes: &mut Vec<(i64, Version)>, random: &mut Random) {
    let second = |at: i64| (at + skew).div_euclid(SECOND) * SECOND;
    let first = Version { pod: index, started: second(pod.up + 50 * MS), finished: None, deleted: false };
    changes.push((pod.up + 200 * MS + random.around(500 * MS), first));
    let ended = Version { finished: Some(second(pod.down)), ..first };
    if pod.is_job {
        let told = pod.down + 100 * MS + random.around(500 * MS);
        changes.push((told, ended));
        changes.push((told + 5 * SECOND + random.around(60 * SECOND), Version { deleted: true, ..ended }));
    } else if random.below(2) == 0 {
        changes.push((pod.free + 100 * MS + random.around(500 * MS), Version { deleted: true, ..ended }));
    } else {
        changes.push((pod.free + 100 * MS + random.around(500 * MS), Version { deleted: true, ..first }));
    }
}

/// One stream in order; in an outage nothing, after it a list.
fn hear(changes: &[(i64, Version)], end: i64, faults: &Faults, random: &mut Random) -> Vec<Heard> {
    let mut heard = Vec::new();
    let mut last = BEGIN;
    let mut back = BEGIN;
    let mut outage = next_outage(BEGIN, faults, random);
    let mut objects = std::collections::BTreeMap::new();
    for (at, version) in changes {
        while *at >= outage.1 {
            heard.extend((back..outage.0).step_by(SECOND as usize).map(|at| (at, Told::Alive)));
            back = outage.1 + 50 * MS;
            last = back;
            heard.push((last, Told::List(objects.values().copied().collect())));
            outage = next_outage(outage.1, faults, random);
        }
        if version.deleted {
            objects.remove(&version.pod);
        } else {
            objects.insert(version.pod, *version);
        }
        if *at < outage.0 {
            last = last.max(at + 20 * MS + random.around(faults.watch_delay));
            deliver_in_order(&mut heard, last, *version, faults, random);
        }
    }
    heard.extend((back..outage.0.min(end)).step_by(SECOND as usize).map(|at| (at, Told::Alive)));
    heard.sort_by_key(|(at, _)| *at);
    heard
}

/// A watch repeats only what it told last.
fn deliver_in_order(heard: &mut Vec<Heard>, at: i64, version: Version, faults: &Faults, random: &mut Random) {
    heard.push((at, Told::Watch(version)));
    if random.happens(faults.twice) {
        heard.push((at, Told::Watch(version)));
    }
}

fn next_outage(after: i64, faults: &Faults, random: &mut Random) -> (i64, i64) {
    let from = after + faults.outage_every * SECOND / 2 + random.around(faults.outage_every * SECOND / 2);
    (from, from + 5 * SECOND + random.below(25 * SECOND))
}
