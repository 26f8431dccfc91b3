//! Stories of pods, nodes and services: objects in, and what the timeline answers.

mod order;
mod pods;
mod services;

use serde_json::{Value, json};

use super::state::{Kind, Object, State};
use super::tell::When;
use crate::event::IdentityEvent;
use crate::identity::{Identity, Interval, Key};
use crate::timeline::{Lookup, Span, Timeline};

const S: i64 = 1_000_000_000;
/// Stories begin at this second; their times are seconds after it.
const BEGIN: i64 = 1_800_000_000;

fn ns(second: f64) -> i64 {
    BEGIN * S + (second * 1e9) as i64
}

fn stamp(second: i64) -> String {
    chrono::DateTime::from_timestamp(BEGIN + second, 0)
        .expect("a time")
        .to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

fn object(kind: Kind, value: Value) -> Object {
    let parse = "an object";
    match kind {
        Kind::Pods => Object::Pod(Box::new(serde_json::from_value(value).expect(parse))),
        Kind::Nodes => Object::Node(serde_json::from_value(value).expect(parse)),
        Kind::Services => Object::Service(serde_json::from_value(value).expect(parse)),
        Kind::Endpoints => Object::Slice(serde_json::from_value(value).expect(parse)),
        Kind::Owners(owner) => Object::Owner(owner, serde_json::from_value(value).expect(parse)),
        Kind::Namespaces => Object::Namespace(serde_json::from_value(value).expect(parse)),
    }
}

/// A pod on node `n1` whose container `app` is in `state`.
#[allow(clippy::needless_pass_by_value, reason = "it is made for the call")]
fn pod(uid: &str, version: u32, ip: &str, phase: &str, state: Value) -> Value {
    json!({
        "metadata": {
            "name": "web-0", "namespace": "shop", "uid": uid, "resourceVersion": version.to_string(),
            "creationTimestamp": stamp(0), "labels": { "app": "web" },
        },
        "spec": { "nodeName": "n1", "containers": [
            { "name": "app", "image": "web:1", "ports": [{ "containerPort": 8080 }, { "containerPort": 53, "protocol": "UDP" }] },
        ]},
        "status": {
            "phase": phase, "podIP": ip, "podIPs": [{ "ip": ip }],
            "containerStatuses": [{ "name": "app", "containerID": format!("containerd://c-{uid}"), "restartCount": 0, "state": state }],
        },
    })
}

fn running(since: i64) -> Value {
    json!({ "running": { "startedAt": stamp(since) } })
}

fn terminated(from: i64, to: i64) -> Value {
    json!({ "terminated": { "startedAt": stamp(from), "finishedAt": stamp(to), "exitCode": 0 } })
}

struct Story {
    state: State,
    timeline: Timeline,
    told: Vec<IdentityEvent>,
}

impl Story {
    /// `n1` is another host.
    fn begin() -> Self {
        Self::on("here")
    }

    fn on(node: &str) -> Self {
        let state = State::new("blue".into(), node.into());
        let mut timeline = Timeline::new();
        timeline.apply(&IdentityEvent::Heard { source: "kubernetes".into(), at: i64::MAX });
        Self { state, timeline, told: Vec::new() }
    }

    fn hear(&mut self) {
        for event in self.state.take() {
            self.timeline.apply(&event);
            self.told.push(event);
        }
    }

    fn is(&mut self, kind: Kind, value: Value, second: f64) -> &mut Self {
        let at = ns(second);
        self.state.apply(&object(kind, value), When { sure: at, at });
        self.hear();
        self
    }

    fn gone(&mut self, kind: Kind, value: Value, second: f64) -> &mut Self {
        let at = ns(second);
        self.state.gone(&object(kind, value), When { sure: at, at });
        self.hear();
        self
    }

    /// What was missed since `sure`.
    fn missed(&mut self, kind: Kind, value: Value, sure: f64, second: f64, gone: bool) -> &mut Self {
        let (object, when) = (object(kind, value), When { sure: ns(sure), at: ns(second) });
        if gone {
            self.state.gone(&object, when);
        } else {
            self.state.apply(&object, when);
        }
        self.hear();
        self
    }

    fn listed(&mut self, kind: Kind, uids: &[&str], sure: f64, second: f64) -> &mut Self {
        let when = When { sure: ns(sure), at: ns(second) };
        self.state.listed(kind, &uids.iter().map(|uid| (*uid).into()).collect(), when);
        self.hear();
        let event = self.state.snapshot(when, Some(ns(sure)));
        self.timeline.apply(&event);
        self.told.push(event);
        self
    }

    fn who(&self, ip: &str, second: f64) -> String {
        self.during(ip, second, second)
    }

    /// Who is named by what was told; what the timeline makes of the uncertain time before a beginning is its own story.
    fn during(&self, ip: &str, from: f64, to: f64) -> String {
        let (ip, when) = (ip.parse().expect("an address"), Span { from: ns(from), to: ns(to) });
        let key = Key::Ip { network: "blue".into(), ip };
        let told = |own: &Interval| {
            own.key == key && own.valid_from <= when.from && own.valid_to.is_none_or(|end| when.from < end)
        };
        if !self.timeline.intervals().iter().any(told) {
            return "none".into();
        }
        word(self.timeline.ip("blue", ip, when))
    }

    /// The service at an address and port.
    fn service(&self, ip: &str, port: u16, second: f64) -> String {
        let key = Key::Service { network: "blue".into(), protocol: 6, ip: ip.parse().expect("an address"), port };
        let at = ns(second);
        let own = self.timeline.intervals().into_iter().filter(|own| own.key == key);
        let own = own.filter(|own| own.valid_from <= at && own.valid_to.is_none_or(|end| at < end));
        own.map(|own| own.identity.service.as_deref().unwrap_or("?").to_owned()).collect::<Vec<_>>().join(" and ")
    }

    /// The latest description of an identity.
    fn described(&self, id: &str) -> Identity {
        let of = |event: &IdentityEvent| match event {
            IdentityEvent::Described { identity, .. } if &*identity.identity == id => Some((**identity).clone()),
            _ => None,
        };
        self.told.iter().rev().find_map(of).expect("a description")
    }

    fn aliases(&self) -> Vec<(String, Option<String>)> {
        let of = |event: &IdentityEvent| match event {
            IdentityEvent::Same { alias, member, .. } => {
                Some((alias.to_string(), member.as_ref().map(|own| own.container.to_string())))
            }
            _ => None,
        };
        self.told.iter().filter_map(of).collect()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "what was just found")]
fn word(found: Lookup) -> String {
    match found {
        Lookup::One(identity, _) => identity.identity.to_string(),
        Lookup::Ambiguous(_) => "ambiguous".into(),
        Lookup::None => "none".into(),
    }
}

fn service(uid: &str, version: u32, ip: &str) -> Value {
    json!({
        "metadata": { "name": format!("{uid}-svc"), "namespace": "shop", "uid": uid, "resourceVersion": version.to_string() },
        "spec": { "clusterIP": ip, "clusterIPs": [ip], "externalIPs": ["203.0.113.9"], "ports": [{ "port": 80, "targetPort": 8080 }] },
        "status": { "loadBalancer": { "ingress": [{ "ip": "198.51.100.7" }] } },
    })
}

fn slice(uid: &str, version: u32, of: &str, ips: &[&str]) -> Value {
    json!({
        "metadata": { "name": uid, "namespace": "shop", "uid": uid, "resourceVersion": version.to_string(),
            "labels": { "kubernetes.io/service-name": format!("{of}-svc") } },
        "addressType": "IPv4",
        "endpoints": ips.iter().map(|ip| json!({ "addresses": [ip] })).collect::<Vec<_>>(),
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
    })
}
