//! Who gives the names: wiretag, and the two usual ways to do it.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::sources::Told;
use crate::world::{Flow, World};

/// Somebody who hears what sources tell and names the ends of flows.
pub(crate) trait Naming {
    /// A source tells something.
    fn told(&mut self, world: &World, told: &Told, now: i64);
    /// A flow has ended.
    fn ended(&mut self, number: usize, flow: &Flow, now: i64);
    /// Time passes. What was named since, by the number of the flow: client and server.
    fn named(&mut self, now: Option<i64>) -> Vec<(usize, [Option<usize>; 2])>;
}

/// A cache of the present: an address means whoever has it when the flow is exported.
#[derive(Debug, Default)]
pub(crate) struct CurrentState {
    owners: HashMap<IpAddr, usize>,
    named: Vec<(usize, [Option<usize>; 2])>,
}

impl Naming for CurrentState {
    fn told(&mut self, world: &World, told: &Told, _: i64) {
        match told {
            Told::Hook { pod, added: holds, .. } | Told::Runtime { pod, started: holds, .. } => {
                self.set(world, *pod, *holds);
            }
            Told::RuntimeList(pods) => pods.iter().for_each(|pod| self.set(world, *pod, true)),
            Told::Alive | Told::Up => {}
            Told::Watch { version, .. } if version.is_over() => self.set(world, version.pod, false),
            Told::Watch { version, .. } => {
                if version.started().is_some() {
                    self.set(world, version.pod, true);
                }
            }
            Told::List(versions) => {
                self.owners.clear();
                for version in versions.iter().filter(|version| version.started().is_some()) {
                    self.set(world, version.pod, true);
                }
            }
            Told::Down => self.owners.clear(),
        }
    }

    fn ended(&mut self, number: usize, flow: &Flow, _: i64) {
        let owner = |ip: IpAddr| self.owners.get(&ip).copied();
        self.named.push((number, [owner(flow.client.0), owner(flow.server.0)]));
    }

    fn named(&mut self, _: Option<i64>) -> Vec<(usize, [Option<usize>; 2])> {
        std::mem::take(&mut self.named)
    }
}

impl CurrentState {
    fn set(&mut self, world: &World, pod: usize, holds: bool) {
        let ip = world.pods[pod].ip;
        if holds {
            self.owners.insert(ip, pod);
        } else if self.owners.get(&ip) == Some(&pod) {
            self.owners.remove(&ip);
        }
    }
}

/// A cache of the last owner of each address, who is believed if he was there when the flow began.
#[derive(Debug, Default)]
pub(crate) struct OneCandidate {
    owners: HashMap<IpAddr, Candidate>,
    named: Vec<(usize, [Option<usize>; 2])>,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    pod: usize,
    from: i64,
    to: i64,
}

impl Naming for OneCandidate {
    fn told(&mut self, world: &World, told: &Told, now: i64) {
        match told {
            Told::Hook { pod, added: true, at } | Told::Runtime { pod, started: true, at } => {
                self.begins(world, *pod, *at);
            }
            Told::Hook { pod, added: false, at } | Told::Runtime { pod, started: false, at } => {
                self.ends(world, *pod, *at);
            }
            Told::RuntimeList(pods) => pods.iter().for_each(|pod| self.begins(world, *pod, world.pods[*pod].up)),
            Told::Watch { version, .. } if version.is_over() => {
                self.ends(world, version.pod, version.finished().unwrap_or(now));
            }
            Told::Alive | Told::Up => {}
            Told::Watch { version, .. } => {
                if let Some(started) = version.started() {
                    self.begins(world, version.pod, started);
                }
            }
            Told::List(versions) => {
                for version in versions {
                    if let Some(started) = version.started() {
                        self.begins(world, version.pod, started);
                    }
                }
            }
            Told::Down => self.owners.clear(),
        }
    }

    fn ended(&mut self, number: usize, flow: &Flow, _: i64) {
        let owner = |ip: IpAddr| {
            let candidate = self.owners.get(&ip)?;
            (candidate.from <= flow.start && flow.start < candidate.to).then_some(candidate.pod)
        };
        self.named.push((number, [owner(flow.client.0), owner(flow.server.0)]));
    }

    fn named(&mut self, _: Option<i64>) -> Vec<(usize, [Option<usize>; 2])> {
        std::mem::take(&mut self.named)
    }
}

impl OneCandidate {
    fn begins(&mut self, world: &World, pod: usize, from: i64) {
        let own = self.owners.entry(world.pods[pod].ip).or_insert(Candidate { pod, from, to: i64::MAX });
        if own.pod != pod {
            *own = Candidate { pod, from, to: i64::MAX };
        }
    }

    fn ends(&mut self, world: &World, pod: usize, to: i64) {
        if let Some(own) = self.owners.get_mut(&world.pods[pod].ip).filter(|own| own.pod == pod) {
            own.to = own.to.min(to);
        }
    }
}
