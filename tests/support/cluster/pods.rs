//! Pods: what one should be ([`Plan`]), and one that is there ([`Pod`]), with the truth about it from the API server and from the
//! record that the CNI plugins left, to hold against what wiretag says.

mod end;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, OnceLock};

use serde_json::{Value, json};

use super::Cluster;
use crate::support::{eventually, run};

/// A pod to be made.
#[derive(Clone)]
pub struct Plan(Value);

impl Plan {
    /// A pod without containers yet, in the namespace `default`.
    pub fn new(name: &str) -> Self {
        Self(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": {}, "ownerReferences": []},
            "spec": {
                "containers": [], "initContainers": [], "restartPolicy": "Always",
                "automountServiceAccountToken": false, "enableServiceLinks": false, "terminationGracePeriodSeconds": 1,
            },
        }))
    }

    /// A pod as a controller makes it of its template.
    pub fn of_template(name: &str, namespace: &str, labels: &Value, spec: Value) -> Self {
        let mut plan = Self::new(name).namespace(namespace).set("/metadata/labels", labels.clone());
        plan.0["spec"] = spec;
        plan
    }

    /// One container `main` that does nothing.
    pub fn idle(name: &str) -> Self {
        Self::new(name).container("main", &["sleep", "1000000000"])
    }

    /// One container `web` that serves /www on port 80.
    pub fn web(name: &str) -> Self {
        Self::new(name).container("web", &["httpd", "-f", "-p", "80", "-h", "/www"])
    }

    /// One container `main` that runs a shell command to its end, once.
    pub fn once(name: &str, command: &str) -> Self {
        Self::new(name).container("main", &["sh", "-c", command]).restart("Never")
    }

    pub fn container(self, name: &str, command: &[&str]) -> Self {
        self.append("/spec/containers", container(name, command))
    }

    pub fn init(self, name: &str, command: &[&str]) -> Self {
        self.append("/spec/initContainers", container(name, command))
    }

    pub fn namespace(self, namespace: &str) -> Self {
        self.set("/metadata/namespace", json!(namespace))
    }

    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.0["metadata"]["labels"][key] = json!(value);
        self
    }

    /// `Always`, `OnFailure` or `Never`.
    pub fn restart(mut self, policy: &str) -> Self {
        self.0["spec"]["restartPolicy"] = json!(policy);
        self
    }

    pub fn host_network(mut self) -> Self {
        self.0["spec"]["hostNetwork"] = json!(true);
        self
    }

    /// Its processes are this user's.
    pub fn user(mut self, uid: u32) -> Self {
        self.0["spec"]["securityContext"] = json!({"runAsUser": uid});
        self
    }

    /// `port` of the container that was added last is published as `host_port` of the node.
    pub fn host_port(mut self, port: u16, host_port: u16) -> Self {
        let last = self.0["spec"]["containers"].as_array_mut().and_then(|all| all.last_mut()).expect("a container");
        last["ports"] = json!([{"containerPort": port, "hostPort": host_port}]);
        self
    }

    /// The object that owns it, which has been created before.
    pub fn owner(self, owner: &Value) -> Self {
        let meta = &owner["metadata"];
        let reference = json!({
            "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": meta["name"], "uid": meta["uid"], "controller": true,
        });
        self.append("/metadata/ownerReferences", reference)
    }

    /// A folder `/scratch` for the container that was added last; a pod that writes more than `limit` to it is evicted.
    pub fn scratch(mut self, limit: &str) -> Self {
        self.0["spec"]["volumes"] = json!([{"name": "scratch", "emptyDir": {"sizeLimit": limit}}]);
        let last = self.0["spec"]["containers"].as_array_mut().and_then(|all| all.last_mut()).expect("a container");
        last["volumeMounts"] = json!([{"name": "scratch", "mountPath": "/scratch"}]);
        self
    }

    /// The node that has it; a plan without one runs on the cluster's own.
    pub fn on_node(mut self, node: &str) -> Self {
        self.0["spec"]["nodeName"] = json!(node);
        self
    }

    fn set(mut self, pointer: &str, value: Value) -> Self {
        *self.0.pointer_mut(pointer).expect("a field of every plan") = value;
        self
    }

    fn append(mut self, pointer: &str, value: Value) -> Self {
        self.0.pointer_mut(pointer).and_then(Value::as_array_mut).expect("a list of every plan").push(value);
        self
    }

    fn text(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).expect("a text of every plan")
    }
}

fn container(name: &str, command: &[&str]) -> Value {
    json!({"name": name, "image": "local/box:1", "imagePullPolicy": "Never", "command": command})
}

/// The host's end of a pod's interface, by the CNI plugins' own record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub veth: String,
    /// The container's end.
    pub mac: String,
    pub netns: String,
}

/// A command that runs in a container; killed when dropped.
pub struct Running(Child);

impl Running {
    /// Waits for its good end.
    pub fn ends(mut self) {
        let status = eventually(60, "the command in the container ends", || self.0.try_wait().expect("wait"));
        assert!(status.success(), "{status}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A name that no other command in a container has.
fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("command-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A pod that was made.
pub struct Pod<'c> {
    cluster: &'c Cluster,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    plan: Value,
    ip: OnceLock<String>,
    who: OnceLock<Vec<(&'static str, Value)>>,
    /// Ids of containers as last told, for when the API server is down.
    ids: RefCell<BTreeMap<String, String>>,
}

impl Cluster {
    /// Makes a pod and does not wait.
    pub fn create_pod(&self, plan: &Plan) -> Pod<'_> {
        let mut object = plan.0.clone();
        if object["spec"]["nodeName"].is_null() {
            object["spec"]["nodeName"] = json!(self.node());
        }
        if self.reuses.get() {
            self.forget_last_address();
        }
        let namespace = plan.text("/metadata/namespace").to_owned();
        let made = self.create(&format!("/api/v1/namespaces/{namespace}/pods"), &object);
        debug_assert_eq!(made["metadata"]["namespace"], namespace.as_str());
        Pod::new(self, made)
    }

    /// Makes a pod and waits until all its containers run.
    pub fn run_pod(&self, plan: &Plan) -> Pod<'_> {
        let pod = self.create_pod(plan);
        pod.wait_running();
        pod
    }

    /// The pod of this name in the namespace `default`, as it is now.
    pub fn pod(&self, name: &str) -> Pod<'_> {
        Pod::new(self, self.get(&format!("/api/v1/namespaces/default/pods/{name}")))
    }

    /// Makes a pod of another node by writing its status: `Running` with this address.
    pub fn play_pod(&self, plan: &Plan, node: &str, ip: &str) -> Pod<'_> {
        assert_ne!(node, self.node(), "pods of this node are real");
        let pod = self.create_pod(&plan.clone().on_node(node));
        let statuses: Vec<Value> = plan.0["spec"]["containers"]
            .as_array()
            .expect("containers")
            .iter()
            .map(|own| {
                json!({
                    "name": own["name"], "image": own["image"], "imageID": "", "ready": true, "restartCount": 0,
                    "containerID": format!("containerd://{}", pod.uid.replace('-', "")),
                    "state": {"running": {"startedAt": pod.object()["metadata"]["creationTimestamp"]}},
                })
            })
            .collect();
        pod.write_status(&json!({
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": "192.0.2.200",
            "startTime": pod.object()["metadata"]["creationTimestamp"], "containerStatuses": statuses,
        }));
        pod
    }
}

impl<'c> Pod<'c> {
    fn new(cluster: &'c Cluster, object: Value) -> Self {
        let text = |name: &str| object["metadata"][name].as_str().expect("a text").to_owned();
        let (namespace, name, uid) = (text("namespace"), text("name"), text("uid"));
        Self {
            cluster,
            namespace,
            name,
            uid,
            plan: object,
            ip: OnceLock::new(),
            who: OnceLock::new(),
            ids: RefCell::default(),
        }
    }

    /// Who it is by the API server, in the columns of a flow.
    pub fn who(&self) -> &[(&'static str, Value)] {
        self.who.get_or_init(|| {
            let node = self.node();
            let object = self.cluster.get(&format!("/api/v1/nodes/{node}"));
            let owner = self.cluster.top_owner(&self.plan);
            vec![
                ("cluster", json!("kubernetes")),
                ("host", json!(node)),
                ("zone", object["metadata"]["labels"]["topology.kubernetes.io/zone"].clone()),
                ("namespace", json!(self.namespace)),
                ("pod", json!(self.name)),
                ("identity", json!(self.uid)),
                ("workload", owner["name"].clone()),
                ("workload_kind", owner["kind"].clone()),
            ]
        })
    }

    /// The labels that it was made with.
    pub fn labels(&self) -> &Value {
        static NONE: LazyLock<Value> = LazyLock::new(|| json!({}));
        let labels = &self.plan["metadata"]["labels"];
        if labels.is_null() { &NONE } else { labels }
    }

    /// Whether it has several containers, of any kind.
    pub fn is_team(&self) -> bool {
        let count = |list: &str| self.plan["spec"][list].as_array().map_or(0, Vec::len);
        count("containers") + count("initContainers") > 1
    }

    /// Whether it has the addresses of its node.
    pub fn is_on_host(&self) -> bool {
        self.plan["spec"]["hostNetwork"] == true
    }

    /// Name of its node.
    pub fn node(&self) -> &str {
        self.plan["spec"]["nodeName"].as_str().expect("a node")
    }

    pub fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/pods/{}", self.namespace, self.name)
    }

    /// The object as the API server has it now.
    pub fn object(&self) -> Value {
        self.cluster.get(&self.path())
    }

    /// Writes fields of its status: of a pod of another node.
    pub fn write_status(&self, status: &Value) {
        self.cluster.patch(&format!("{}/status", self.path()), &json!({ "status": status }));
    }

    pub fn wait_running(&self) {
        self.wait("runs", |pod| {
            let statuses = pod["status"]["containerStatuses"].as_array()?;
            let running = statuses.iter().all(|own| own["state"]["running"].is_object());
            (running && pod["status"]["phase"] == "Running" && pod["status"]["podIP"].is_string()).then_some(())
        });
    }

    /// Waits for `Succeeded` or `Failed`; the object is still there, and is returned.
    pub fn wait_phase(&self, phase: &str) -> Value {
        self.wait(phase, |pod| (pod["status"]["phase"] == phase).then(|| pod.clone()))
    }

    fn wait<T>(&self, what: &str, mut look: impl FnMut(&Value) -> Option<T>) -> T {
        let mut last = Value::Null;
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(90, &format!("pod {} {what}", self.name), || {
                last = self.cluster.find(&self.path())?;
                look(&last)
            })
        }));
        outcome.unwrap_or_else(|panic| {
            eprintln!("its status at the end: {:#}", last["status"]);
            std::panic::resume_unwind(panic)
        })
    }

    /// Its address, also after its end.
    pub fn ip(&self) -> String {
        self.ip
            .get_or_init(|| {
                self.object()["status"]["podIP"].as_str().expect("a pod that ran has an address").to_owned()
            })
            .clone()
    }

    /// Its address of the other family.
    pub fn ip6(&self) -> String {
        let object = self.object();
        let mut all =
            object["status"]["podIPs"].as_array().expect("addresses").iter().filter_map(|own| own["ip"].as_str());
        all.find(|ip| ip.contains(':')).expect("an IPv6 address").to_owned()
    }

    /// The runtime's id of a container of any kind, without `containerd://`; while the API server is down the one that it last had.
    pub fn container_id(&self, name: &str) -> String {
        let mut ids = self.ids.borrow_mut();
        if let Some(object) = self.cluster.find(&self.path()) {
            let status = &object["status"];
            let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
            let mut all = lists.iter().filter_map(|list| status[list].as_array()).flatten();
            let own = all.find(|own| own["name"] == name);
            let id = own.and_then(|own| own["containerID"].as_str()?.strip_prefix("containerd://"));
            let id = id.unwrap_or_else(|| panic!("container {name} of {} has an id: {status}", self.name));
            ids.insert(name.to_owned(), id.to_owned());
        }
        ids.get(name).unwrap_or_else(|| panic!("container {name} of {} was seen before", self.name)).clone()
    }

    /// Runs a command in a container to its end, which must be good; its stdout.
    pub fn exec(&self, container: &str, command: &[&str]) -> String {
        let id = self.container_id(container);
        let output = self.cluster.ctr_output(&[&["tasks", "exec", "--exec-id", &unique(), &id][..], command].concat());
        assert!(output.status.success(), "{command:?} in {} of {}: {output:?}", container, self.name);
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs a command in a container, which goes on for a while.
    pub fn open(&self, container: &str, command: &[&str]) -> Running {
        let id = self.container_id(container);
        let own = ["--address", self.cluster.value("containerd_socket"), "--namespace", "k8s.io"];
        let mut ctr = Command::new("ctr");
        ctr.args(own).args(["tasks", "exec", "--exec-id", &unique(), &id]).args(command);
        Running(ctr.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("ctr is installed"))
    }

    /// GET with wget in a container; the body. It is tried again: a pod runs before its server listens.
    pub fn fetch(&self, container: &str, url: &str) -> String {
        let id = self.container_id(container);
        // Whoever has an address now has another link-layer address than the one before.
        if let Some(Attachment { netns, .. }) = self.attachment() {
            run("nsenter", &[&format!("--net={netns}"), "ip", "neigh", "flush", "all"]);
        }
        let mut last = String::new();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(60, &format!("{} gets {url}", self.name), || {
                // busybox's own limit of time (`wget -T`) crashes in Debian's build.
                let command = ["timeout", "5", "wget", "-O", "-", url];
                let output =
                    self.cluster.ctr_output(&[&["tasks", "exec", "--exec-id", &unique(), &id][..], &command].concat());
                last = String::from_utf8_lossy(&output.stderr).into_owned();
                output.status.success().then(|| String::from_utf8(output.stdout).expect("text"))
            })
        }));
        outcome.unwrap_or_else(|panic| {
            eprintln!("the last attempt: {last}");
            std::panic::resume_unwind(panic)
        })
    }

    /// GET of `path` from a web server over a connection that is open for seconds before, so that its socket is surely seen; the answer
    /// must be good.
    pub fn slow_fetch(&self, container: &str, ip: &str, path: &str) {
        let get = format!("(sleep 3; printf 'GET {path} HTTP/1.0\\r\\n\\r\\n'; sleep 1) | nc {ip} 80");
        assert!(self.exec(container, &["sh", "-c", &get]).ends_with("hello\n"));
    }

    /// Kills a container and waits until the kubelet has started it anew, in the same pod.
    pub fn restart_in_place(&self, container: &str) {
        let before = self.container_id(container);
        self.cluster.ctr(&["tasks", "kill", "--signal", "SIGKILL", &before]);
        self.wait(&format!("restarts {container}"), |pod| {
            let all = pod["status"]["containerStatuses"].as_array()?;
            let own = all.iter().find(|own| own["name"] == container)?;
            let new = own["containerID"].as_str().is_some_and(|id| !id.ends_with(&before));
            (new && own["state"]["running"].is_object()).then_some(())
        });
    }

    /// Adds an ephemeral container (as `kubectl debug` does) and waits until it runs.
    pub fn debug(&self, name: &str, command: &[&str]) {
        let path = format!("{}/ephemeralcontainers", self.path());
        let mut object = self.cluster.get(&path);
        let mut own = container(name, command);
        own["terminationMessagePolicy"] = json!("File");
        object["ephemeralContainers"] = json!([own]);
        self.cluster.replace(&path, &object);
        self.wait(&format!("has {name}"), |pod| {
            let all = pod["status"]["ephemeralContainerStatuses"].as_array()?;
            all.iter().any(|own| own["state"]["running"].is_object()).then_some(())
        });
    }

    /// Where the pod is attached to the node, by what the CNI plugins said when they did it. `None`: its network is the host's, or it is
    /// gone.
    pub fn attachment(&self) -> Option<Attachment> {
        let bridge = self.cluster.value("bridge");
        let records = run("sh", &["-c", &format!("cat /var/lib/cni/results/{bridge}-* 2>/dev/null || true")]);
        let records = serde_json::Deserializer::from_str(&records).into_iter::<Value>().filter_map(Result::ok);
        let uid = json!(["K8S_POD_UID", self.uid]);
        let own = |record: &Value| record["cniArgs"].as_array().is_some_and(|arguments| arguments.contains(&uid));
        let record = records.into_iter().find(own)?;
        let interfaces = record["result"]["interfaces"].as_array()?;
        let inside = interfaces.iter().find(|interface| interface["sandbox"].is_string())?;
        let veth = interfaces
            .iter()
            .find(|interface| interface["name"].as_str().is_some_and(|name| name.starts_with("veth")))?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Some(Attachment { veth: text(&veth["name"])?, mac: text(&inside["mac"])?, netns: text(&inside["sandbox"])? })
    }
}
