//! wiretag's own way: the sources' events, the timeline, the tagger.

use std::sync::Arc;

use wiretag_capture::record::Side;
use wiretag_capture::{Direction, EndReason, FlowRecord};
use wiretag_enrich::event::Snapshot;
use wiretag_enrich::tagger::{TaggedRows, Tagger, TaggerConfig};
use wiretag_enrich::timeline::Timeline;
use wiretag_enrich::{Identity, IdentityEvent, Interval, Key};

use crate::naming::Naming;
use crate::rows;
use crate::sources::{Told, Version};
use crate::world::{Flow, HERE, Pod, SECOND, World};

/// Network of the cluster's addresses.
const CLUSTER: &str = "kubernetes";

/// See the module documentation.
pub(crate) struct Wiretag {
    timeline: Timeline,
    tagger: Tagger,
    heard: i64,
}

impl Wiretag {
    pub(crate) fn new(world: &World) -> Self {
        let mut tagger = Tagger::new(TaggerConfig { boot: "boot".into(), ..TaggerConfig::default() });
        for pod in &world.pods {
            tagger.set_link(0, pod.interface, true);
        }
        let mut timeline = Timeline::new();
        timeline.apply(&IdentityEvent::Network { index: 0, netns: 0, network: CLUSTER.into(), at: 0 });
        Self { timeline, tagger, heard: 0 }
    }

    fn learn(&mut self, (index, pod): (usize, &Pod), key: Key, source: &str, (from, now): (i64, i64)) {
        let interval = interval(index, pod, key, source, (from, now));
        self.timeline.apply(&IdentityEvent::Learned(interval));
    }

    /// The hook and the runtime know interface and address exactly.
    fn local(&mut self, world: &World, index: usize, source: &str, (from, now): (i64, i64)) {
        let pod = &world.pods[index];
        let (network, at) = (CLUSTER.into(), from);
        self.timeline.apply(&IdentityEvent::Network { index: pod.interface, netns: 0, network, at });
        let interface = Key::Interface { index: pod.interface, netns: 0, boot: "boot".into() };
        self.learn((index, pod), interface, source, (from, now));
        self.learn((index, pod), ip(pod), source, (from, now));
    }

    fn end(&mut self, index: usize, source: &str, (at, now): (i64, i64)) {
        let (identity, source) = (uid(index), source.into());
        self.timeline.apply(&IdentityEvent::Ended { identity, at, learned_at: now, source });
    }

    fn watch(&mut self, world: &World, version: &Version, now: i64) {
        if version.deleted || version.finished.is_some() {
            self.end(version.pod, "kubernetes", (version.finished.unwrap_or(now), now));
        } else {
            let pod = &world.pods[version.pod];
            self.learn((version.pod, pod), ip(pod), "kubernetes", (since(version, pod, now), now));
        }
    }

    fn list(&mut self, world: &World, versions: &[Version], now: i64) {
        let present = versions.iter().filter(|version| version.finished.is_none()).map(|version| {
            let pod = &world.pods[version.pod];
            interval(version.pod, pod, ip(pod), "kubernetes", (since(version, pod, now), now))
        });
        self.timeline.apply(&IdentityEvent::Reconciled(Snapshot {
            source: "kubernetes".into(),
            present: present.collect(),
            stopped: Vec::new(),
            heard: Some(self.heard),
            at: now,
        }));
    }
}

/// Since when a pod surely has its address: its containers run, by the clock of its node, which may be behind.
fn since(version: &Version, pod: &Pod, now: i64) -> i64 {
    let behind = if pod.node == HERE { 0 } else { 2 * SECOND };
    (version.started + SECOND + behind).min(now)
}

fn uid(index: usize) -> Arc<str> {
    format!("{index:08}").into()
}

fn ip(pod: &Pod) -> Key {
    Key::Ip { network: CLUSTER.into(), ip: pod.ip }
}

fn interval(index: usize, pod: &Pod, key: Key, source: &str, (from, now): (i64, i64)) -> Interval {
    let identity = Identity {
        identity: uid(index),
        pod: Some(format!("pod-{index}").into()),
        host: Some(format!("node-{}", pod.node).into()),
        ..Identity::default()
    };
    Interval {
        key,
        identity: Arc::new(identity),
        valid_from: from,
        valid_to: None,
        learned_at: now,
        source: source.into(),
    }
}

impl Naming for Wiretag {
    fn told(&mut self, world: &World, told: &Told, now: i64) {
        match told {
            Told::Hook { pod, added: true, at } => self.local(world, *pod, "cni", (*at, now)),
            Told::Runtime { pod, started: true, at } => self.local(world, *pod, "cri", (*at, now)),
            Told::Hook { pod, added: false, at } => self.end(*pod, "cni", (*at, now)),
            Told::Runtime { pod, started: false, at } => self.end(*pod, "cri", (*at, now)),
            Told::Alive => {
                self.heard = now;
                self.timeline.apply(&IdentityEvent::Heard { source: "kubernetes".into(), at: now });
            }
            Told::Watch(version) => {
                self.watch(world, version, now);
                self.heard = now;
            }
            Told::List(versions) => {
                self.list(world, versions, now);
                self.heard = now;
            }
        }
    }

    fn ended(&mut self, number: usize, flow: &Flow, now: i64) {
        self.tagger.push(0, record(number, flow), now);
    }

    fn named(&mut self, now: Option<i64>) -> Vec<(usize, [Option<usize>; 2])> {
        let mut rows = TaggedRows::default();
        match now {
            Some(now) => self.tagger.drain(now, &self.timeline, &mut rows),
            None => self.tagger.flush(&self.timeline, &mut rows),
        }
        let pod = |identity: &Arc<Identity>| identity.identity.parse().expect("the number of a pod");
        let names = rows.flows.iter().map(|row| {
            let names = [&row.client, &row.server].map(|end| end.identity.as_ref().map(pod));
            (row.record.flow_id as usize, names)
        });
        names.collect()
    }
}

fn record(number: usize, flow: &Flow) -> FlowRecord {
    FlowRecord {
        flow_id: number as u64,
        start: flow.start,
        end: flow.end,
        end_reason: Some(EndReason::Fin),
        interface_index: flow.interface,
        client_direction: Some(if flow.at_client { Direction::Ingress } else { Direction::Egress }),
        client: Side::new(flow.client.0, Some(flow.client.1)),
        server: Side::new(flow.server.0, Some(flow.server.1)),
        ..rows::record(rows::Bridge, 0, 0)
    }
}
