//! Real Kubernetes: a node of the test's own (API server, kubelet, containerd, CNI plugins) whose pods talk to each other while wiretag
//! captures on the node. What wiretag says is held against what the API server and the CNI plugins know.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

#[path = "support/cluster/mod.rs"]
mod cluster;
mod support;

use std::cell::Cell;

use cluster::{Cluster, Plan, Pod};
use serde_json::{Value, json};
use support::{Appliance, eventually};

/// A node and wiretag on it.
struct Scene {
    appliance: Option<Appliance>,
    cluster: Cluster,
    data: tempfile::TempDir,
    requests: Cell<u32>,
}

impl Scene {
    fn start() -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let mut scene = Self { appliance: None, cluster: Cluster::start(), data, requests: Cell::new(0) };
        scene.start_wiretag();
        scene
    }

    fn start_wiretag(&mut self) {
        let config = self.data.path().join("wiretag.toml");
        let value = |name: &str| self.cluster.value(name);
        let text = format!(
            "[kubernetes]\nkubeconfig = '{}'\nnode = '{}'\n[cri]\nendpoint = 'unix://{}'\n",
            value("kubeconfig"),
            self.cluster.node(),
            value("containerd_socket"),
        );
        std::fs::write(&config, text).expect("written");
        let config = config.to_str().expect("a path");
        let arguments = ["--config", config, "--docker", "unix:///nowhere/docker.sock"];
        self.appliance = Some(Appliance::start(self.data.path(), &arguments));
    }

    fn stop_wiretag(&mut self) {
        self.appliance.take().expect("wiretag runs").stop();
    }

    fn appliance(&self) -> &Appliance {
        self.appliance.as_ref().expect("wiretag runs")
    }

    /// A path that no other request of the test has.
    fn path(&self) -> String {
        self.requests.set(self.requests.get() + 1);
        format!("/?{}", self.requests.get())
    }

    /// One request from a container of `client` to the web server of `server`; the path it asked for.
    fn request(&self, client: &Pod<'_>, container: &str, server: &Pod<'_>) -> String {
        let path = self.path();
        assert_eq!(client.fetch(container, &format!("http://{}{path}", server.ip())), "hello\n");
        path
    }

    /// All observations of the flow that asked for `path`, once there are `count`.
    fn observations(&self, path: &str, count: usize) -> Vec<Value> {
        let query = format!("http_path == \"{path}\"");
        let all = ["--all-observations"];
        eventually(30, &query, || Some(self.appliance().flows(&query, &all)).filter(|flows| flows.len() >= count))
    }

    /// One request between two pods, seen at the interfaces of both, with the names of both or none.
    fn talk(&self, client: &Pod<'_>, container: &str, server: &Pod<'_>) -> Vec<Value> {
        let path = self.request(client, container, server);
        let flows = self.observations(&path, 2);
        for flow in &flows {
            assert_eq!(flow["client_ip"], client.ip().as_str(), "{flow}");
            assert_eq!(flow["server_ip"], server.ip().as_str(), "{flow}");
            is_pods_or_nobodys(flow, "client", client);
            is_pods_or_nobodys(flow, "server", server);
        }
        // Where its own interface is, a pod that runs is known for certain.
        for (pod, side) in [(client, "client"), (server, "server")] {
            let flow = at_interface_of(&flows, pod);
            assert_eq!(flow[format!("{side}_pod")], pod.name.as_str(), "{flow}");
            assert_eq!(flow[format!("{side}_identity")], pod.uid.as_str(), "{flow}");
        }
        flows
    }
}

/// The observation at a pod's own interface.
fn at_interface_of<'f>(flows: &'f [Value], pod: &Pod<'_>) -> &'f Value {
    let veth = pod.attachment().expect("the plugins' record").veth;
    let found = flows.iter().find(|flow| flow["interface"] == veth.as_str());
    found.unwrap_or_else(|| panic!("{} at {veth}: {flows:?}", pod.name))
}

/// One end of a flow is this pod's, or has no name: a wrong name is worse than none.
fn is_pods_or_nobodys(flow: &Value, side: &str, pod: &Pod<'_>) {
    let name = &flow[format!("{side}_pod")];
    assert!(name.is_null() || name == pod.name.as_str(), "{name} instead of {}: {flow}", pod.name);
    let identity = &flow[format!("{side}_identity")];
    assert!(name.is_null() || identity == pod.uid.as_str(), "{identity} instead of {}: {flow}", pod.uid);
}

#[test]
fn traffic_of_pods_is_captured_at_their_own_interfaces_and_accounted_for() {
    if !cluster::ready() {
        return;
    }
    let scene = Scene::start();
    scene.cluster.patch("/api/v1/namespaces/default", &json!({"metadata": {"labels": {"team": "blue"}}}));
    let web = scene.cluster.run_pod(&Plan::web("web"));
    let client = scene.cluster.run_pod(&Plan::idle("client"));
    web.exec("web", &["dd", "if=/dev/zero", "of=/www/blob", "bs=1000", "count=1000"]);
    let body = client.fetch("main", &format!("http://{}/blob", web.ip()));
    assert_eq!(body.len(), 1_000_000);

    let flows = scene.observations("/blob", 2);
    for (pod, side) in [(&client, "client"), (&web, "server")] {
        let flow = at_interface_of(&flows, pod);
        assert_eq!(flow["tcp_state"], "SF", "{flow}");
        assert_eq!(flow["observed_at"], side, "{flow}");
        assert_eq!(flow[format!("{side}_ip")], pod.ip().as_str(), "{flow}");
        assert_eq!(flow[format!("{side}_mac")], pod.attachment().expect("the plugins' record").mac.as_str(), "{flow}");
        let payload = flow["server_payload_bytes"].as_u64().expect("a number");
        assert!((1_000_000..1_001_000).contains(&payload), "body and head: {flow}");
        is_pods_or_nobodys(flow, "client", &client);
        is_pods_or_nobodys(flow, "server", &web);
        // The runtime told of this one before it spoke.
        assert_eq!(flow[format!("{side}_pod")], pod.name.as_str(), "{flow}");
        assert_eq!(flow[format!("{side}_tagged_by")], "interface", "{flow}");
        assert_eq!(flow[format!("{side}_labels")]["namespace:team"], "blue", "{flow}");
    }
    assert_eq!(flows.iter().filter(|flow| flow["primary"] == true).count(), 1, "{flows:?}");
    for part in ["client_packets", "server_packets", "client_bytes", "server_bytes"] {
        assert_eq!(at_interface_of(&flows, &client)[part], at_interface_of(&flows, &web)[part], "{part}: {flows:?}");
    }
    accounted_for(&scene);
}

/// Packets that the kernel gave = packets in flows + packets refused.
fn accounted_for(scene: &Scene) {
    let sum = |name: &str| scene.appliance().metric(name, "");
    let received = sum("wiretag_capture_packets_total");
    let (decoded, refused) =
        (sum("wiretag_capture_decoded_packets_total"), sum("wiretag_capture_refused_packets_total"));
    // A packet may come between two readings.
    let again = sum("wiretag_capture_packets_total");
    assert!(
        received - 0.5 < decoded + refused && decoded + refused < again + 0.5,
        "{received} = {decoded} + {refused}"
    );
    assert!(sum("wiretag_capture_queue_drops_total") < 0.5);
}

/// Pods end in every way there is, others take their addresses and their names.
#[test]
fn pods_that_end_and_return_keep_their_own_traffic() {
    if !cluster::ready() {
        return;
    }
    let scene = Scene::start();
    let cluster = &scene.cluster;
    cluster.reuse_addresses();
    let replicas = cluster.create_deployment("shop", "abc12");
    let shop = cluster.run_pod(&Plan::web("shop-abc12-x1").label("app", "shop").owner(&replicas));
    let visitor = cluster.run_pod(&Plan::idle("visitor"));
    scene.talk(&visitor, "main", &shop);

    completed_and_failed_pods_give_their_address_back(&scene, &shop);
    an_evicted_pod_stays_as_an_object(&scene, &visitor);
    a_pod_of_the_same_name_is_another(&scene, &visitor);

    // Restarted in place: another container of the same pod, at the same interface.
    let (pod, container) = (shop.uid.clone(), shop.container_id("web"));
    let attachment = shop.attachment();
    shop.restart_in_place("web");
    assert!(shop.container_id("web") != container && shop.object()["metadata"]["uid"] == pod.as_str());
    assert_eq!(shop.attachment(), attachment);
    scene.talk(&visitor, "main", &shop);
    shop.evict();
    visitor.delete();
}

/// The object of a pod that ended is there, its address is another's.
fn completed_and_failed_pods_give_their_address_back(scene: &Scene, shop: &Pod<'_>) {
    for (name, ending, phase) in [("job", "exit 0", "Succeeded"), ("broken", "exit 3", "Failed")] {
        let path = scene.path();
        let command = format!("wget -q -O /dev/null http://{}{path}; sleep 2; {ending}", shop.ip());
        let pod = scene.cluster.create_pod(&Plan::once(name, &command));
        let ended = pod.wait_phase(phase);
        let ip = ended["status"]["podIP"].as_str().expect("an address").to_owned();
        for flow in scene.observations(&path, 2) {
            assert_eq!(flow["client_ip"], ip.as_str(), "{flow}");
            is_pods_or_nobodys(&flow, "client", &pod);
        }
        eventually(60, "its network is taken down", || pod.attachment().is_none().then_some(()));
        let heir = scene.cluster.run_pod(&Plan::idle(&format!("heir-of-{name}")));
        assert_eq!(heir.ip(), ip);
        assert_eq!(pod.object()["status"]["phase"], phase);
        scene.talk(&heir, "main", shop);
        heir.delete();
        pod.delete();
    }
}

/// The kubelet evicts a pod that writes more than it may; the object says so and stays.
fn an_evicted_pod_stays_as_an_object(scene: &Scene, visitor: &Pod<'_>) {
    let greedy = scene.cluster.run_pod(&Plan::web("greedy").scratch("100Ki"));
    scene.talk(visitor, "main", &greedy);
    greedy.exec("web", &["dd", "if=/dev/zero", "of=/scratch/file", "bs=1000", "count=1000"]);
    let object = greedy.wait_phase("Failed");
    assert_eq!(object["status"]["reason"], "Evicted", "{object}");
    greedy.delete();
}

/// StatefulSet style: deleted, made again under the same name, with the same address.
fn a_pod_of_the_same_name_is_another(scene: &Scene, visitor: &Pod<'_>) {
    let set = scene.cluster.create_stateful_set("db");
    let plan = Plan::web("db-0").label("app", "db").owner(&set);
    let first = scene.cluster.run_pod(&plan);
    let (ip, before) = (first.ip(), scene.talk(visitor, "main", &first));
    first.delete();
    let second = scene.cluster.run_pod(&plan);
    assert!(second.uid != first.uid && second.ip() == ip);
    let after = scene.talk(visitor, "main", &second);
    assert_ne!(before[0]["flow_id"], after[0]["flow_id"]);
    second.delete();
}

/// Host network, several containers in one pod, a service in front: who talks is not said by an address alone.
#[test]
fn pods_that_share_addresses_have_no_wrong_names() {
    if !cluster::ready() {
        return;
    }
    let scene = Scene::start();
    let cluster = &scene.cluster;
    let visitor = cluster.run_pod(&Plan::idle("visitor"));
    let first = scene.path();
    let web = cluster.run_pod(&Plan::web("web"));
    let warm = format!("wget -q -O /dev/null http://{}{first}", web.ip());

    // Init container, two containers and a debugger share one address.
    let team = Plan::web("team").init("warm", &["sh", "-c", &warm]).container("log", &["sleep", "1000000000"]);
    let team = cluster.run_pod(&team);
    team.debug("look", &["sleep", "1000000000"]);
    for container in ["web", "log", "look"] {
        scene.talk(&team, container, &web);
    }
    scene.talk(&visitor, "main", &team);
    for flow in scene.observations(&first, 2) {
        assert_eq!(flow["client_ip"], team.ip().as_str(), "the init container: {flow}");
        is_pods_or_nobodys(&flow, "client", &team);
    }

    // The address of a host-network pod is the node's.
    let host = cluster.run_pod(&Plan::idle("host").host_network());
    assert_eq!(host.ip(), cluster.value("node_ip"));
    let path = scene.request(&host, "main", &web);
    for flow in scene.observations(&path, 1) {
        is_pods_or_nobodys(&flow, "client", &host);
        is_pods_or_nobodys(&flow, "server", &web);
    }

    // A service's address is translated to the pod behind it.
    let address = cluster.create_service("front", 8080, &[&web], 80);
    let path = scene.path();
    assert_eq!(visitor.fetch("main", &format!("http://{address}:8080{path}")), "hello\n");
    let flows = scene.observations(&path, 2);
    assert_eq!(at_interface_of(&flows, &visitor)["server_ip"], address.as_str(), "{flows:?}");
    assert_eq!(at_interface_of(&flows, &web)["server_ip"], web.ip().as_str(), "{flows:?}");
    for flow in &flows {
        is_pods_or_nobodys(flow, "client", &visitor);
        is_pods_or_nobodys(flow, "server", &web);
    }

    // A pod of another node is known to the API server only.
    cluster.create_node("elsewhere", "zone-b");
    let far = cluster.play_pod(&Plan::web("far"), "elsewhere", "10.244.250.7");
    assert_eq!(far.object()["status"]["podIP"], "10.244.250.7");
}

/// Every part fails once while pods talk.
#[test]
fn traffic_is_captured_while_parts_of_kubernetes_are_down() {
    if !cluster::ready() {
        return;
    }
    let mut scene = Scene::start();
    let web = scene.cluster.run_pod(&Plan::web("web")).name;
    let client = scene.cluster.run_pod(&Plan::idle("client")).name;
    let talk = |scene: &Scene| {
        let (web, client) = (scene.cluster.pod(&web), scene.cluster.pod(&client));
        scene.talk(&client, "main", &web);
    };
    talk(&scene);

    // The API server forgets what watches could go on from, and is away for a while.
    let cluster = &scene.cluster;
    let late = cluster.create_pod(&Plan::idle("before-the-outage"));
    let old = late.object()["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    late.wait_running();
    cluster.stop_part("apiserver");
    assert!(cluster.find("/api/v1/nodes").is_none());
    cluster.compact_etcd();
    cluster.start_part("apiserver");
    let (_, gone) = cluster.request(
        "GET",
        &format!("/api/v1/pods?watch=1&timeoutSeconds=5&resourceVersion={old}"),
        "application/json",
        None,
    );
    assert!(gone["code"] == 410 || gone["object"]["code"] == 410, "{gone}");
    talk(&scene);

    // Without a kubelet pods go on; one that is made now runs when it is back.
    scene.cluster.stop_part("kubelet");
    talk(&scene);
    let waiting = scene.cluster.create_pod(&Plan::idle("waits-for-the-kubelet"));
    scene.cluster.start_part("kubelet");
    waiting.wait_running();

    // Pods come while wiretag is down.
    scene.stop_wiretag();
    let unseen = scene.cluster.run_pod(&Plan::web("made-while-wiretag-was-down")).name;
    scene.start_wiretag();
    talk(&scene);
    let (client, unseen) = (scene.cluster.pod(&client), scene.cluster.pod(&unseen));
    scene.talk(&client, "main", &unseen);
}
