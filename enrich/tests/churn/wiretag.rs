//! wiretag's own way: the sources' events, what the Kubernetes source makes of the API server's words, the timeline, the tagger. When
//! it is stopped, what it persisted is all that is left.

use std::collections::HashMap;
use std::sync::Arc;

use wiretag_capture::record::Side;
use wiretag_capture::{Direction, EndReason, FlowRecord};
use wiretag_enrich::event::Snapshot;
use wiretag_enrich::kubernetes::Translator;
use wiretag_enrich::tagger::{TaggedRows, Tagger, TaggerConfig};
use wiretag_enrich::timeline::{Dossier, Timeline};
use wiretag_enrich::{Identity, IdentityEvent, Interval, Key};

use crate::naming::Naming;
use crate::objects::Version;
use crate::rows;
use crate::sources::Told;
use crate::world::{Flow, HERE, MS, Pod, World};

/// Network of the cluster's addresses.
const CLUSTER: &str = "kubernetes";

/// See the module documentation.
pub(crate) struct Wiretag {
    timeline: Timeline,
    tagger: Tagger,
    translator: Translator,
    rows: TaggedRows,
    persisted: HashMap<Arc<str>, Dossier>,
    /// When it was stopped.
    stopped: Option<i64>,
}

impl Wiretag {
    pub(crate) fn new(world: &World) -> Self {
        Self::start(world, HashMap::new(), None)
    }

    fn start(world: &World, persisted: HashMap<Arc<str>, Dossier>, stopped: Option<i64>) -> Self {
        let mut tagger = Tagger::new(TaggerConfig { boot: "boot".into(), ..TaggerConfig::default() });
        for pod in &world.pods {
            tagger.set_link(0, pod.interface, true);
        }
        let mut timeline = Timeline::new();
        timeline.load(persisted.values().cloned());
        timeline.apply(&IdentityEvent::Network { index: 0, netns: 0, network: CLUSTER.into(), at: 0 });
        let translator = Translator::new(CLUSTER.into(), format!("node-{HERE}").into(), stopped);
        Self { timeline, tagger, translator, rows: TaggedRows::default(), persisted, stopped }
    }

    fn stop(&mut self, now: i64) {
        self.tagger.flush(&self.timeline, &mut self.rows);
        while self.timeline.has_changes() {
            let changes = self.timeline.take_changes(1000);
            self.persisted.extend(changes.into_iter().map(|dossier| (dossier.id.clone(), dossier)));
        }
        self.stopped = Some(now);
    }

    fn learn(&mut self, (index, pod): (usize, &Pod), key: Key, source: &str, (from, now): (i64, i64)) {
        let interval = interval(index, pod, key, source, (from, now));
        self.timeline.apply(&IdentityEvent::Learned(interval));
    }

    /// Its interface is in the cluster's network.
    fn attach(&mut self, pod: &Pod, at: i64) {
        let network = CLUSTER.into();
        self.timeline.apply(&IdentityEvent::Network { index: pod.interface, netns: 0, network, at });
    }

    /// The hook and the runtime know interface and address exactly.
    fn local(&mut self, world: &World, index: usize, source: &str, (from, now): (i64, i64)) {
        let pod = &world.pods[index];
        self.attach(pod, from);
        for key in [interface(pod), ip(pod)] {
            self.learn((index, pod), key, source, (from, now));
        }
    }

    fn end(&mut self, index: usize, source: &str, (at, now): (i64, i64)) {
        let (identity, source) = (uid(index), source.into());
        self.timeline.apply(&IdentityEvent::Ended { identity, at, learned_at: now, source });
    }

    /// After a start: all sandboxes, and since when they are there.
    fn runtime(&mut self, world: &World, pods: &[usize], now: i64) {
        let mut present = Vec::new();
        for index in pods {
            let pod = &world.pods[*index];
            let from = pod.up + 5 * MS;
            self.attach(pod, from);
            present.extend([interface(pod), ip(pod)].map(|key| interval(*index, pod, key, "cri", (from, now))));
        }
        let (source, stopped, heard) = ("cri".into(), Vec::new(), self.stopped);
        self.timeline.apply(&IdentityEvent::Reconciled(Snapshot {
            source,
            present,
            stopped,
            unclear: Vec::new(),
            heard,
            at: now,
        }));
    }

    fn list(&mut self, world: &World, versions: &[Version], now: i64) {
        let objects: Vec<String> = versions.iter().map(|version| version.object(world).to_string()).collect();
        self.translator.listed(objects.iter().map(String::as_str), (now - 40 * MS, now));
    }

    /// Applies what the Kubernetes source makes of what it heard.
    fn translated(&mut self) {
        for event in self.translator.events() {
            self.timeline.apply(&event);
        }
    }
}

fn uid(index: usize) -> Arc<str> {
    format!("{index:08}").into()
}

fn interface(pod: &Pod) -> Key {
    Key::Interface { index: pod.interface, netns: 0, boot: "boot".into() }
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
            Told::RuntimeList(pods) => self.runtime(world, pods, now),
            Told::Alive => self.translator.heard(now),
            Told::Watch { version, missed } => {
                self.translator.watched(&version.line(world), *missed, now).expect("a line of a watch");
            }
            Told::List(versions) => self.list(world, versions, now),
            Told::Down => self.stop(now),
            Told::Up => {
                let (rows, persisted) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.persisted));
                *self = Self { rows, ..Self::start(world, persisted, self.stopped) };
            }
        }
        self.translated();
    }

    fn ended(&mut self, number: usize, flow: &Flow, now: i64) {
        self.tagger.push(0, record(number, flow), now);
    }

    fn named(&mut self, now: Option<i64>) -> Vec<(usize, [Option<usize>; 2])> {
        let mut rows = std::mem::take(&mut self.rows);
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
