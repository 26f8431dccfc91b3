//! A node with wiretag on it, and what is asked of every flow: at a pod's own interface its name in every column, elsewhere its name or an
//! honest `ambiguous` or `none`, and few of these.

use std::cell::{Cell, Ref, RefCell};
use std::path::Path;

use serde_json::{Value, json};

use crate::cluster::{Cluster, Plan, Pod};
use crate::support::{Appliance, eventually, rows, wiretag_ok};

/// Who tells wiretag of pods.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sources {
    /// The CNI plugin in the chain of the kubelet's runtime, the runtime, and the API server.
    All,
    /// The runtime and the API server.
    Runtime,
    /// The API server alone.
    Api,
}

/// A node and wiretag on it.
pub struct Scene {
    appliance: RefCell<Option<Appliance>>,
    pub cluster: Cluster,
    data: tempfile::TempDir,
    sources: Sources,
    requests: Cell<u32>,
    /// Ends that had their name, and that had none, where both can be.
    named: Cell<u32>,
    blank: Cell<u32>,
}

/// One end of a flow: a pod, and the container in it that talks.
#[derive(Clone, Copy)]
pub struct End<'a> {
    pub pod: &'a Pod<'a>,
    pub container: &'a str,
}

impl<'a> End<'a> {
    pub fn new(pod: &'a Pod<'a>, container: &'a str) -> Self {
        Self { pod, container }
    }
}

impl Scene {
    pub fn start(sources: Sources) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let plugin = json!({"type": "wiretag-cni", "dataDir": data.path()});
        let cluster = match sources {
            Sources::All => Cluster::start_with_plugin(Path::new(env!("CARGO_BIN_EXE_wiretag")), &plugin),
            Sources::Runtime | Sources::Api => Cluster::start(),
        };
        let node = format!("/api/v1/nodes/{}", cluster.node());
        cluster.patch(&node, &json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "zone-a"}}}));
        let count = || Cell::new(0);
        let scene = Self {
            appliance: RefCell::default(),
            cluster,
            data,
            sources,
            requests: count(),
            named: count(),
            blank: count(),
        };
        scene.start_wiretag();
        scene
    }

    /// Starts it and waits until its sources have told what there is.
    pub fn start_wiretag(&self) {
        let config = self.data.path().join("wiretag.toml");
        let value = |name: &str| self.cluster.value(name);
        let runtime = match self.sources {
            Sources::All | Sources::Runtime => format!("endpoint = 'unix://{}'", value("containerd_socket")),
            Sources::Api => "enabled = false".to_owned(),
        };
        let text = format!(
            "[kubernetes]\nkubeconfig = '{}'\nnode = '{}'\n[cri]\n{runtime}\n[cni]\nenabled = {}\n",
            value("kubeconfig"),
            self.cluster.node(),
            self.sources == Sources::All,
        );
        std::fs::write(&config, text).expect("written");
        let config = config.to_str().expect("a path");
        let arguments = ["--config", config, "--docker", "unix:///nowhere/docker.sock"];
        *self.appliance.borrow_mut() = Some(Appliance::start(self.data.path(), &arguments));
        self.hears("kubernetes");
        if self.sources != Sources::Api {
            self.hears("cri");
        }
    }

    /// What `health` says of a source.
    pub fn source(&self, name: &str) -> String {
        let health = self.appliance().json("/api/v1/health");
        health["sources"][name].as_str().unwrap_or_else(|| panic!("no source {name}: {health}")).to_owned()
    }

    /// Waits until a source is heard.
    pub fn hears(&self, name: &str) {
        eventually(60, &format!("{name} is heard"), || (self.source(name) == "connected").then_some(()));
    }

    pub fn stop_wiretag(&self) {
        self.appliance.take().expect("wiretag runs").stop();
    }

    pub fn kill_wiretag(&self) {
        self.appliance.take().expect("wiretag runs").kill();
    }

    pub fn appliance(&self) -> Ref<'_, Appliance> {
        Ref::map(self.appliance.borrow(), |own| own.as_ref().expect("wiretag runs"))
    }

    /// A path that no other request of the test has.
    pub fn path(&self) -> String {
        self.requests.set(self.requests.get() + 1);
        format!("/?{}", self.requests.get())
    }

    /// One request from a container of `client` to the web server of `server`; the path it asked for.
    pub fn request(&self, client: End<'_>, server: &Pod<'_>) -> String {
        let path = self.path();
        assert_eq!(client.pod.fetch(client.container, &format!("http://{}{path}", server.ip())), "hello\n");
        path
    }

    /// The same over a connection that lasts for seconds, so that its socket is seen.
    pub fn slow_request(&self, client: End<'_>, server: &Pod<'_>) -> String {
        let path = self.path();
        client.pod.slow_fetch(client.container, &server.ip(), &path);
        path
    }

    /// All observations of the flow that asked for `path`, once there are `count` that have ended: while a flow is open, its names may be
    /// on their way.
    pub fn observations(&self, path: &str, count: usize) -> Vec<Value> {
        let query = format!("http_path == \"{path}\" and end_reason exists");
        let all = ["--all-observations"];
        eventually(100, &query, || Some(self.appliance().flows(&query, &all)).filter(|flows| flows.len() >= count))
    }

    /// One request between two pods, seen at the interfaces of both, with their names.
    pub fn talk(&self, client: End<'_>, server: &Pod<'_>) -> Vec<Value> {
        let path = self.request(client, server);
        self.told(&path, client, server)
    }

    /// What was told of a request between two pods of this node.
    pub fn told(&self, path: &str, client: End<'_>, server: &Pod<'_>) -> Vec<Value> {
        let flows = self.observations(path, 2);
        let web = End::new(server, "web");
        for flow in &flows {
            for (side, end) in [("client", client), ("server", web)] {
                if !flow["client_ip"].as_str().is_some_and(|ip| ip.contains(':')) {
                    assert_eq!(flow[format!("{side}_ip")], end.pod.ip().as_str(), "{flow}");
                }
                self.is_honest(flow, side, end);
            }
        }
        // Where its own interface is, a pod that runs is known for certain.
        if self.sources != Sources::Api {
            for (side, end) in [("client", client), ("server", web)] {
                let flow = at_interface_of(&flows, end.pod);
                is_named(flow, side, end);
                assert_eq!(flow[format!("{side}_tagged_by")], "interface", "{flow}");
                assert_eq!(flow["observed_at"], side, "{flow}");
            }
        }
        flows
    }

    /// One end of a flow is this pod's in every column, or has no name and says so: a wrong name is worse than none.
    pub fn is_honest(&self, flow: &Value, side: &str, end: End<'_>) {
        let identity = &flow[format!("{side}_identity")];
        // Whose socket was not seen has the node's address, and no more is said of it.
        let is_nodes = end.pod.is_on_host() && *identity == format!("node:{}", end.pod.node());
        if identity.is_null() {
            is_nobodys(flow, side);
            self.blank.set(self.blank.get() + 1);
        } else if is_nodes {
            assert!(flow[format!("{side}_pod")].is_null() && flow[format!("{side}_tagged_by")] == "ip", "{flow}");
        } else {
            is_named(flow, side, end);
            self.named.set(self.named.get() + 1);
        }
    }

    /// At the end of a test: honest, but not often. At most this share of the ends, percent, had no name.
    pub fn end(&self, percent: u32) {
        let (named, blank) = (self.named.get(), self.blank.get());
        eprintln!("ends with a name: {named}, without: {blank}");
        assert!(named > 0 && blank * 100 <= (named + blank) * percent, "{named} ends with a name, {blank} without");
        self.stop_wiretag();
    }

    /// Rows of `wiretag identities`.
    pub fn identities(&self, options: &[&str]) -> Vec<Value> {
        let data = self.data.path().to_str().expect("a path");
        rows(&wiretag_ok(&[&["identities", "--json", "--data", data], options].concat()))
    }

    /// Who had an address, one after the other, by the source with the most exact times; of the one that has it now with `…`.
    pub fn holders(&self, ip: &str) -> Vec<String> {
        let source = match self.sources {
            Sources::All => "cni",
            Sources::Runtime => "cri",
            Sources::Api => "kubernetes",
        };
        let mut rows = self.identities(&["--ip", ip, "--source", source]);
        rows.retain(|row| row["key_kind"] == "ip");
        rows.sort_by_key(|row| row["valid_from"].as_str().map(str::to_owned));
        let mut holders: Vec<String> = Vec::new();
        for row in &rows {
            let name = row["identity"]["pod"].as_str().unwrap_or_default().to_owned();
            let name = if row["valid_to"].is_null() { format!("{name}…") } else { name };
            // It is told anew when its containers change.
            if holders.last().is_some_and(|last| last.trim_end_matches('…') == name.trim_end_matches('…')) {
                holders.pop();
            }
            holders.push(name);
        }
        holders
    }
}

/// The observation at a pod's own interface.
pub fn at_interface_of<'f>(flows: &'f [Value], pod: &Pod<'_>) -> &'f Value {
    let veth = pod.attachment().expect("the plugins' record").veth;
    let found = flows.iter().find(|flow| flow["interface"] == veth.as_str());
    found.unwrap_or_else(|| panic!("{} at {veth}: {flows:?}", pod.name))
}

/// One end of a flow has no name and says so.
pub fn is_nobodys(flow: &Value, side: &str) {
    for column in ["identity", "pod", "container", "workload", "namespace"] {
        assert!(flow[format!("{side}_{column}")].is_null(), "{column}: {flow}");
    }
    let way = &flow[format!("{side}_tagged_by")];
    assert!(way == "ambiguous" || way == "none", "{way}: {flow}");
}

/// One end of a flow is this pod's, in every column that says who it is. Of a pod with several containers the container may be unknown.
pub fn is_named(flow: &Value, side: &str, end: End<'_>) {
    for (column, expected) in end.pod.who() {
        assert_eq!(flow[format!("{side}_{column}")], *expected, "{side}_{column} of {}: {flow}", end.pod.name);
    }
    let container = &flow[format!("{side}_container")];
    assert!(container == end.container || (end.pod.is_team() && container.is_null()), "{container}: {flow}");
    let labels = flow[format!("{side}_labels")].as_object().cloned().unwrap_or_default();
    let own: serde_json::Map<_, _> = labels.into_iter().filter(|(key, _)| !key.starts_with("namespace:")).collect();
    assert_eq!(Value::Object(own), *end.pod.labels(), "{flow}");
}

/// A pod that does nothing, and waits for requests to be made from it.
pub fn visitor(cluster: &Cluster) -> Pod<'_> {
    cluster.run_pod(&Plan::idle("visitor").label("app", "visitor"))
}
