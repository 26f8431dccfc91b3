//! wiretag as it is shipped for Kubernetes: the manifests of `deploy/kubernetes` and the image of `scripts/image.sh`, on the test's node.
//!
//! What a whole cluster does is done here: the controller makes a pod of the DaemonSet and a token's volume of its service account, a proxy
//! translates the API server's address. Only what must differ between machines is changed: folders, the port, the runtime's socket.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::cluster::{self, Cluster, Plan, Pod};
use crate::scene::{End, is_named, visitor};
use crate::support::{eventually, flows, run};

/// The documents of one of the files.
fn documents(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes").join(name);
    let text = std::fs::read_to_string(path).expect("a manifest");
    text.split("\n---\n").map(|text| serde_norway::from_str(text).expect("YAML")).collect()
}

/// Where objects of a kind are made.
fn collection(object: &Value) -> String {
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
    match object["kind"].as_str().expect("a kind") {
        "Namespace" => "/api/v1/namespaces".to_owned(),
        "ServiceAccount" => format!("/api/v1/namespaces/{namespace}/serviceaccounts"),
        "ConfigMap" => format!("/api/v1/namespaces/{namespace}/configmaps"),
        "DaemonSet" => format!("/apis/apps/v1/namespaces/{namespace}/daemonsets"),
        "ClusterRole" => "/apis/rbac.authorization.k8s.io/v1/clusterroles".to_owned(),
        "ClusterRoleBinding" => "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings".to_owned(),
        other => panic!("{other} is made by none of the manifests"),
    }
}

/// What was applied to the cluster, and where the pod's data are on this machine.
pub struct Shipped<'c> {
    cluster: &'c Cluster,
    daemon_set: Value,
    pub data: PathBuf,
}

impl<'c> Shipped<'c> {
    /// Applies all the manifests, with the data in `directory`.
    pub fn apply(cluster: &'c Cluster, directory: &Path) -> Self {
        import_image(cluster, &directory.join("image.tar"));
        translate_api_server(cluster);
        let mut daemon_set = Value::Null;
        for mut object in ["namespace.yaml", "rbac.yaml", "daemonset.yaml"].into_iter().flat_map(documents) {
            if object["kind"] == "ConfigMap" {
                let text = object["data"]["wiretag.toml"].as_str().expect("the configuration").to_owned();
                let own = format!("listen = '127.0.0.1:0'\n{text}\n[cri]\nendpoint = '/run/containerd/sock'\n");
                object["data"]["wiretag.toml"] = json!(own);
            }
            let made = cluster.create(&collection(&object), &object);
            if made["kind"] == "DaemonSet" {
                daemon_set = made;
            }
        }
        // What controllers put into every namespace.
        let authority = std::fs::read_to_string(cluster.value("ca")).expect("the authority");
        let authority = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": authority},
        });
        cluster.create("/api/v1/namespaces/wiretag/configmaps", &authority);
        let data = directory.join("data");
        std::fs::create_dir(&data).expect("a directory");
        Self { cluster, daemon_set, data }
    }

    /// As for large clusters: the names of the node's own pods only, with the role for that in place of the other.
    pub fn narrow(&self) {
        let configuration = "/api/v1/namespaces/wiretag/configmaps/wiretag";
        let object = self.cluster.get(configuration);
        let text = object["data"]["wiretag.toml"].as_str().expect("the configuration");
        let narrow = text.replace("# scope = \"node\"", "scope = \"node\"");
        assert_ne!(narrow, text, "the setting is shown in the manifest");
        self.cluster.patch(configuration, &json!({"data": {"wiretag.toml": narrow}}));
        let mut binding = documents("rbac.yaml").pop().expect("the binding is last");
        let path = collection(&binding);
        self.cluster.delete(&format!("{path}/wiretag"));
        binding["roleRef"]["name"] = json!("wiretag-node");
        self.cluster.create(&path, &binding);
    }

    /// The pod of this node, as the controller of the DaemonSet makes it.
    pub fn run_pod(&self, name: &str) -> Pod<'c> {
        let template = &self.daemon_set["spec"]["template"];
        let mut spec = template["spec"].clone();
        for volume in spec["volumes"].as_array_mut().expect("volumes") {
            let path = match volume["name"].as_str().expect("a name") {
                "data" => self.data.to_str().expect("a path").to_owned(),
                "containerd" => format!("{}/containerd", self.cluster.value("state")),
                _ => continue,
            };
            volume["hostPath"]["path"] = json!(path);
        }
        let token = json!({"name": "token", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        ]}});
        spec["volumes"].as_array_mut().expect("volumes").push(token);
        let mount =
            json!({"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true});
        spec["containers"][0]["volumeMounts"].as_array_mut().expect("mounts").push(mount);
        let mut plan = Plan::of_template(name, "wiretag", &template["metadata"]["labels"], spec);
        plan = plan.owner(&self.daemon_set);
        self.cluster.run_pod(&plan)
    }

    /// Waits until it answers, and has heard of pods from both.
    pub fn hears(&self) {
        let names = || {
            let data = self.data.to_str().expect("a path");
            let told = |source: &str| {
                let output = Command::new(env!("CARGO_BIN_EXE_wiretag"))
                    .args(["identities", "--json", "--now", "--source", source, "--data", data])
                    .output()
                    .expect("wiretag runs");
                output.status.success() && !output.stdout.is_empty()
            };
            (self.data.join("run.json").exists() && told("kubernetes") && told("cri")).then_some(())
        };
        eventually(90, "the pod of wiretag hears of pods", names);
    }
}

/// What `wiretag doctor` says in the pod.
fn may_do_what_it_needs(pod: &Pod<'_>) {
    let told = pod.exec("wiretag", &["wiretag", "doctor", "--config", "/etc/wiretag/wiretag.toml"]);
    assert!(told.contains("everything that cluster `kubernetes` needs is allowed"), "{told}");
    assert!(told.contains("`/run/containerd/sock` answers"), "{told}");
    assert!(told.contains("those of all users can be looked into"), "{told}");
}

/// Makes the image and gives it to the node.
fn import_image(cluster: &Cluster, archive: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/image.sh");
    let archive = archive.to_str().expect("a path");
    run("bash", &[script.to_str().expect("a path"), archive, env!("CARGO_BIN_EXE_wiretag")]);
    cluster.ctr(&["images", "import", archive]);
    std::fs::remove_file(archive).expect("removed");
}

/// The address by which pods find the API server is translated to the one where it listens.
fn translate_api_server(cluster: &Cluster) {
    let service = cluster.get("/api/v1/namespaces/default/services/kubernetes");
    let address = service["spec"]["clusterIP"].as_str().expect("an address").to_owned();
    let (chain, to) = (format!("{}-to", cluster.value("bridge")), format!("127.0.0.1:{}", cluster.value("api_port")));
    let rule = ["-p", "tcp", "-d", &address, "--dport", "443", "-j", "DNAT", "--to-destination", &to];
    run("iptables", &[&["-w", "-t", "nat", "-A", &chain][..], &rule].concat());
}

/// As the README says to go to Kubernetes: the shipped manifests, roles and image, in a pod on the node, with its service account.
#[test]
fn the_shipped_daemon_set_names_pods_with_no_more_rights_than_it_asks_for() {
    if !cluster::ready() {
        return;
    }
    let cluster = Cluster::start();
    let directory = tempfile::tempdir_in("/var/tmp").expect("a directory");
    let web = cluster.run_pod(&Plan::web("web"));
    let shipped = Shipped::apply(&cluster, directory.path());
    let pod = shipped.run_pod("wiretag-1");
    shipped.hears();
    may_do_what_it_needs(&pod);

    let client = visitor(&cluster);
    let seen = |path: &str, count: usize| {
        let query = format!("http_path == \"{path}\" and end_reason exists");
        let found = || Some(flows(&shipped.data, &query, &["--all-observations"]));
        eventually(100, &query, || found().filter(|flows: &Vec<Value>| flows.len() >= count))
    };
    let before = client.fetch("main", &format!("http://{}/?before", web.ip()));
    assert_eq!(before, "hello\n");
    for flow in seen("/?before", 2) {
        is_named(&flow, "client", End::new(&client, "main"));
        is_named(&flow, "server", End::new(&web, "web"));
    }
    let own = seen("/?before", 2).into_iter().find(|flow| flow["observed_at"] == "client").expect("its interface");
    assert_eq!(own["client_tagged_by"], "interface", "by the runtime: {own}");

    // A pod on the host's network is known by its socket, though wiretag sees processes of other users from inside of a pod.
    let host = cluster.run_pod(&Plan::idle("host").host_network().user(65_534));
    host.slow_fetch("main", &web.ip(), "/?host");
    for flow in seen("/?host", 1) {
        is_named(&flow, "client", End::new(&host, "main"));
        assert_eq!(flow["client_tagged_by"], "socket", "{flow}");
    }

    // A rollout: the next pod goes on with what there is, in the narrower scope.
    pod.delete();
    shipped.narrow();
    let stored = flows(&shipped.data, "http_path == \"/?before\"", &[]);
    assert_eq!((stored.len(), &stored[0]["client_pod"]), (1, &json!("visitor")), "{stored:?}");
    let pod = shipped.run_pod("wiretag-2");
    shipped.hears();
    may_do_what_it_needs(&pod);
    client.fetch("main", &format!("http://{}/?after", web.ip()));
    for flow in seen("/?after", 2) {
        is_named(&flow, "client", End::new(&client, "main"));
        is_named(&flow, "server", End::new(&web, "web"));
    }
    assert_eq!(flows(&shipped.data, "http_path == \"/?before\"", &[]).len(), 1);
}
