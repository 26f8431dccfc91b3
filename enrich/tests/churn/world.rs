//! What really happens: pods come and go on nodes, their addresses go to others, and they talk.
//!
//! The clock is the one of wiretag's host. Nothing here knows of sources; what they see of it is in `sources`.

use std::net::{IpAddr, Ipv4Addr};

use crate::random::Random;

pub(crate) const MS: i64 = 1_000_000;
pub(crate) const SECOND: i64 = 1_000 * MS;
/// The beginning of the world.
pub(crate) const BEGIN: i64 = 1_780_000_000 * SECOND;
/// The node of wiretag; the others are remote.
pub(crate) const HERE: usize = 0;

/// How much happens.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    /// Pods that live at a time on a node.
    pub(crate) slots: usize,
    /// How long, ns.
    pub(crate) length: i64,
    /// Per cent of pods that are jobs, which live for seconds; the others live for minutes.
    pub(crate) jobs: u64,
    /// Mean life of what is no job, ns.
    pub(crate) life: i64,
    /// Flows that begin in a second.
    pub(crate) flows_per_second: i64,
}

/// One pod's life.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    pub(crate) node: usize,
    pub(crate) ip: IpAddr,
    /// Index of the host's end of its veth.
    pub(crate) interface: u32,
    /// It ends by itself, as a job does; else it is deleted.
    pub(crate) is_job: bool,
    /// It has its address and may send.
    pub(crate) up: i64,
    /// Its processes run no more.
    pub(crate) down: i64,
    /// Its address is free.
    pub(crate) free: i64,
}

/// An end of a flow: whose it was, if anyone's.
pub(crate) type Truth = Option<usize>;

/// A flow at one observation point of wiretag's node.
#[derive(Debug, Clone)]
pub(crate) struct Flow {
    pub(crate) interface: u32,
    pub(crate) at_client: bool,
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) client: (IpAddr, u16),
    pub(crate) server: (IpAddr, u16),
    pub(crate) truth: [Truth; 2],
}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) pods: Vec<Pod>,
    /// In the order of their ends.
    pub(crate) flows: Vec<Flow>,
}

impl World {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut random = Random::new(plan.seed);
        let mut pods = Vec::new();
        for node in 0..plan.nodes {
            for slot in 0..plan.slots {
                live(&mut pods, plan, (node, slot), &mut random);
            }
        }
        let flows = talk(&pods, plan, &mut random);
        Self { pods, flows }
    }
}

/// The pods that follow each other in one place of a node. They share a few addresses, so that an address has a new owner
/// after 100 ms, or after the life of another.
fn live(pods: &mut Vec<Pod>, plan: &Plan, (node, slot): (usize, usize), random: &mut Random) {
    let mut now = BEGIN + random.below(60 * SECOND);
    let mut last = 0;
    while now < BEGIN + plan.length {
        let is_job = random.below(100) < plan.jobs.cast_signed();
        let life = if is_job { 2 * SECOND + random.below(20 * SECOND) } else { 5 * SECOND + random.around(plan.life) };
        let same = random.below(100) < 30;
        last = if same { last } else { (last + 1 + random.below(2)) % 3 };
        let number = slot as i64 * 3 + last;
        let down = now + life;
        let free = down + 20 * MS + random.below(300 * MS);
        pods.push(Pod {
            node,
            ip: Ipv4Addr::from_bits(0x0AF4_0000 | (node as u32) << 12 | number as u32).into(),
            interface: 10 + pods.len() as u32,
            is_job,
            up: now,
            down,
            free,
        });
        now = free + 100 * MS + random.around(500 * MS);
    }
}

fn talk(pods: &[Pod], plan: &Plan, random: &mut Random) -> Vec<Flow> {
    let mut flows = Vec::new();
    let alive = Alive::new(pods);
    let mut now = BEGIN + 60 * SECOND;
    while now < BEGIN + plan.length {
        now += random.around(SECOND / plan.flows_per_second);
        let (here, all) = alive.at(pods, now);
        // What is new talks most: a quarter of the flows is of pods of less than ten seconds, if there are any.
        let young: Vec<usize> = here.iter().copied().filter(|pod| now - pods[*pod].up < 10 * SECOND).collect();
        let from = if random.below(4) == 0 && !young.is_empty() { &young } else { &here };
        let (Some(own), Some(other)) = (random.pick(from), random.pick(&all)) else { continue };
        if own == other {
            continue;
        }
        let mut flow = Conversation::new(pods, [own, other], now, random);
        if random.below(2) == 0 {
            flow.ends.reverse();
        }
        flow.observe(pods, &mut flows);
    }
    flows.sort_by_key(|flow| flow.end);
    flows
}

/// Who lives, by the second, so that a flow need not look at all pods.
struct Alive {
    by_second: Vec<Vec<usize>>,
}

impl Alive {
    fn new(pods: &[Pod]) -> Self {
        let mut by_second: Vec<Vec<usize>> = Vec::new();
        for (index, pod) in pods.iter().enumerate() {
            let (from, to) = ((pod.up - BEGIN) / SECOND, (pod.down - BEGIN) / SECOND);
            by_second.resize(by_second.len().max(to as usize + 1), Vec::new());
            by_second[from as usize..=to as usize].iter_mut().for_each(|second| second.push(index));
        }
        Self { by_second }
    }

    /// Those of wiretag's node, and all.
    fn at(&self, pods: &[Pod], now: i64) -> (Vec<usize>, Vec<usize>) {
        let second = self.by_second.get(((now - BEGIN) / SECOND) as usize).map_or(&[] as &[usize], Vec::as_slice);
        let all: Vec<usize> =
            second.iter().copied().filter(|pod| pods[*pod].up <= now && now < pods[*pod].down).collect();
        (all.iter().copied().filter(|pod| pods[*pod].node == HERE).collect(), all)
    }
}

struct Conversation {
    ends: [usize; 2],
    start: i64,
    end: i64,
    port: u16,
}

impl Conversation {
    /// Most are short; some last until an end dies; a few go on for a moment towards one that is dead.
    fn new(pods: &[Pod], ends: [usize; 2], start: i64, random: &mut Random) -> Self {
        let length = match random.below(10) {
            0..7 => MS + random.around(200 * MS),
            7..9 => random.around(5 * SECOND),
            _ => random.around(60 * SECOND),
        };
        let [own, other] = ends.map(|pod| pods[pod].down);
        let lingers = if random.below(100) < 3 { random.below(2 * SECOND) } else { 0 };
        let end = (start + length.min(60 * SECOND)).min(own).min(other + lingers).max(start + 1);
        Self { ends, start, end, port: 32_768 + random.below(28_000) as u16 }
    }

    /// What wiretag sees of it: at the veth of each end that is here.
    fn observe(&self, pods: &[Pod], flows: &mut Vec<Flow>) {
        let [client, server] = self.ends;
        for (at_client, own) in [(true, client), (false, server)] {
            if pods[own].node == HERE {
                flows.push(Flow {
                    interface: pods[own].interface,
                    at_client,
                    start: self.start,
                    end: self.end,
                    client: (pods[client].ip, self.port),
                    server: (pods[server].ip, 8080),
                    truth: [Some(client), Some(server)],
                });
            }
        }
    }
}
