//! Pods as the API server has them, and how each changes from its creation to its end.

use serde_json::{Value, json};

use crate::random::Random;
use crate::world::{BEGIN, MS, Pod, SECOND, World};

/// What the kubelet has told of a pod. Times are whole seconds, by its node's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No node has it.
    Made,
    /// A node has it; it has no address yet.
    Bound,
    /// Its container runs.
    Running { started: i64, restarts: u32 },
    /// Its container has finished. `is_final`: and the pod is over.
    Finished { started: i64, finished: i64, restarts: u32, is_final: bool },
    /// It is over, and of its containers nothing is told.
    Evicted,
}

/// A version of a pod's object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) pod: usize,
    /// Second of its creation, by the API server's clock.
    pub(crate) created: i64,
    pub(crate) stage: Stage,
    /// It is to end.
    pub(crate) ends: bool,
    /// The object is gone.
    pub(crate) deleted: bool,
    /// Number of the change.
    pub(crate) number: usize,
}

impl Version {
    /// Since when its container runs, if it does.
    pub(crate) fn started(&self) -> Option<i64> {
        match self.stage {
            Stage::Running { started, .. } if !self.deleted => Some(started),
            Stage::Made | Stage::Bound | Stage::Running { .. } | Stage::Finished { .. } | Stage::Evicted => None,
        }
    }

    /// When its container finished, if that is told.
    pub(crate) fn finished(&self) -> Option<i64> {
        match self.stage {
            Stage::Finished { finished, .. } => Some(finished),
            Stage::Made | Stage::Bound | Stage::Running { .. } | Stage::Evicted => None,
        }
    }

    /// Whether it has its address no more.
    pub(crate) fn is_over(&self) -> bool {
        self.deleted || matches!(self.stage, Stage::Finished { .. } | Stage::Evicted)
    }

    /// The object.
    pub(crate) fn object(&self, world: &World) -> Value {
        let pod = &world.pods[self.pod];
        let name = format!("pod-{}", self.pod);
        let mut object = json!({
            "metadata": { "name": name, "namespace": "churn", "uid": format!("{:08}", self.pod),
                "resourceVersion": (self.number + 1).to_string(), "creationTimestamp": stamp(self.created),
                "labels": { "app": format!("app-{}", self.pod % 50) } },
            "spec": { "containers": [{ "name": "app", "image": "app:1" }] },
            "status": { "phase": self.phase() },
        });
        if self.ends {
            object["metadata"]["deletionTimestamp"] = json!(stamp(self.created + 3600 * SECOND));
        }
        if self.stage != Stage::Made {
            object["spec"]["nodeName"] = json!(format!("node-{}", pod.node));
        }
        let has_ip = !matches!(self.stage, Stage::Made | Stage::Bound);
        if has_ip {
            object["status"]["podIP"] = json!(pod.ip);
            object["status"]["podIPs"] = json!([{ "ip": pod.ip }]);
        }
        let container = |restarts: u32, state: Value| {
            let id = format!("containerd://{:08}-{restarts}", self.pod);
            json!([{ "name": "app", "containerID": id, "restartCount": restarts, "state": state }])
        };
        object["status"]["containerStatuses"] = match self.stage {
            Stage::Made | Stage::Evicted => Value::Null,
            Stage::Bound => {
                json!([{ "name": "app", "restartCount": 0, "state": { "waiting": { "reason": "ContainerCreating" } } }])
            }
            Stage::Running { started, restarts } => {
                container(restarts, json!({ "running": { "startedAt": stamp(started) } }))
            }
            Stage::Finished { started, finished, restarts, .. } => {
                let run = json!({ "startedAt": stamp(started), "finishedAt": stamp(finished), "exitCode": 0 });
                container(restarts, json!({ "terminated": run }))
            }
        };
        object
    }

    /// The line of a watch.
    pub(crate) fn line(&self, world: &World) -> String {
        let kind = match self.stage {
            _ if self.deleted => "DELETED",
            Stage::Made => "ADDED",
            Stage::Bound | Stage::Running { .. } | Stage::Finished { .. } | Stage::Evicted => "MODIFIED",
        };
        json!({ "type": kind, "object": self.object(world) }).to_string()
    }

    fn phase(&self) -> &'static str {
        match self.stage {
            Stage::Made | Stage::Bound => "Pending",
            Stage::Running { .. } | Stage::Finished { is_final: false, .. } => "Running",
            Stage::Finished { is_final: true, .. } => "Succeeded",
            Stage::Evicted => "Failed",
        }
    }
}

fn stamp(at: i64) -> String {
    let time = chrono::DateTime::from_timestamp(at.div_euclid(SECOND), 0).expect("a time");
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// The life of one pod's object: when the API server has each version. The kubelet tells of an address when the containers run,
/// and of the end when the sandbox may be gone already. `skews` are how far ahead its node's clock and the API server's are.
pub(crate) fn life(index: usize, pod: &Pod, skews: [i64; 2], random: &mut Random) -> Vec<(i64, Version)> {
    let [node, api] = skews;
    let second = |at: i64| (at + node).div_euclid(SECOND) * SECOND;
    let made = (pod.up - 150 * MS - random.around(500 * MS)).max(BEGIN - 10 * SECOND);
    let created = (made + api).div_euclid(SECOND) * SECOND;
    let first = Version { pod: index, created, stage: Stage::Made, ends: false, deleted: false, number: 0 };
    let with = |stage| Version { stage, ..first };
    let bound = made + 10 * MS + random.below(50 * MS);
    let mut started = second(pod.up + 50 * MS);
    let running = pod.up + 200 * MS + random.around(500 * MS);
    let mut life =
        vec![(made, first), (bound, with(Stage::Bound)), (running, with(Stage::Running { started, restarts: 0 }))];
    let mut restarts = 0;
    // Its container fails once, and is started again in the same sandbox.
    if !pod.is_job && pod.down - running > 20 * SECOND && random.below(10) == 0 {
        let at = running + random.below(pod.down - running - 10 * SECOND);
        (started, restarts) = (second(at), 1);
        life.push((at + 100 * MS + random.around(500 * MS), with(Stage::Running { started, restarts })));
    }
    let finished = |is_final| Stage::Finished { started, finished: second(pod.down), restarts, is_final };
    let soon = |random: &mut Random| 100 * MS + random.around(500 * MS);
    if pod.is_job {
        let over = with(if random.below(20) == 0 { Stage::Evicted } else { finished(true) });
        let told = pod.down + soon(random);
        life.push((told, over));
        life.push((told + 5 * SECOND + random.around(60 * SECOND), Version { deleted: true, ..over }));
        return in_order(life);
    }
    let last = with(Stage::Running { started, restarts });
    let asked = pod.down - random.below(3 * SECOND);
    match random.below(4) {
        // By force: it never says that it ended.
        0 | 1 => life.push((pod.free + soon(random), Version { deleted: true, ..last })),
        // In order: older kubelets leave it running, younger ones say that it is over.
        way => {
            let over = Version { ends: true, ..with(finished(way == 3)) };
            let told = pod.down + soon(random);
            life.push((asked, Version { ends: true, ..last }));
            life.push((told, over));
            life.push(((pod.free + soon(random)).max(told + 20 * MS), Version { deleted: true, ..over }));
        }
    }
    in_order(life)
}

/// A change comes after the one before.
fn in_order(mut life: Vec<(i64, Version)>) -> Vec<(i64, Version)> {
    let mut last = i64::MIN;
    for (at, _) in &mut life {
        *at = (*at).max(last + MS);
        last = *at;
    }
    life
}
