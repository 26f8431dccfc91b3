//! What the controllers of a whole cluster would make, made by the test: other nodes, owners, services with their
//! endpoints and what a proxy does for them.

use serde_json::{Value, json};

use super::{Cluster, Pod};
use crate::support::run;

impl Cluster {
    /// A node that is nothing but an object.
    pub fn create_node(&self, name: &str, zone: &str) {
        let labels = json!({"topology.kubernetes.io/zone": zone, "kubernetes.io/hostname": name});
        let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
        self.create("/api/v1/nodes", &object);
    }

    /// A Deployment and its ReplicaSet, which is returned: the owner of pods.
    pub fn create_deployment(&self, name: &str, hash: &str) -> Value {
        let path = "/apis/apps/v1/namespaces/default";
        let deployment = self.create(&format!("{path}/deployments"), &workload("Deployment", name, name));
        let mut replicas = workload("ReplicaSet", &format!("{name}-{hash}"), name);
        replicas["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": deployment["metadata"]["uid"], "controller": true,
        }]);
        self.create(&format!("{path}/replicasets"), &replicas)
    }

    /// A StatefulSet: the owner of pods `NAME-0`, `NAME-1`, …
    pub fn create_stateful_set(&self, name: &str) -> Value {
        let mut object = workload("StatefulSet", name, name);
        object["spec"]["serviceName"] = json!(name);
        self.create("/apis/apps/v1/namespaces/default/statefulsets", &object)
    }

    /// The reference to what owns an object at last: the Deployment behind a ReplicaSet. `Null`: nothing does.
    pub fn top_owner(&self, object: &Value) -> Value {
        let owner = &object["metadata"]["ownerReferences"][0];
        if owner["kind"] != "ReplicaSet" {
            return owner.clone();
        }
        let name = owner["name"].as_str().expect("a name");
        let above = self.top_owner(&self.get(&format!("/apis/apps/v1/namespaces/default/replicasets/{name}")));
        if above.is_null() { owner.clone() } else { above }
    }

    /// A service on `port` in front of pods' `target` port, with its Endpoints and its EndpointSlice; its address. Connections to the
    /// address are translated to the first pod as a proxy on the node does it.
    pub fn create_service(&self, name: &str, port: u16, pods: &[&Pod<'_>], target: u16) -> String {
        let service = self.create(
            "/api/v1/namespaces/default/services",
            &json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
                "spec": {"ports": [{"name": "web", "port": port, "targetPort": target}]},
            }),
        );
        let address = service["spec"]["clusterIP"].as_str().expect("an address").to_owned();
        self.write_endpoints(name, pods, target);
        if let Some(first) = pods.first() {
            let chain = format!("{}-to", self.value("bridge"));
            let (port, to) = (port.to_string(), format!("{}:{target}", first.ip()));
            let rule = ["-p", "tcp", "-d", &address, "--dport", &port, "-j", "DNAT", "--to-destination", &to];
            run("iptables", &[&["-w", "-t", "nat", "-A", &chain][..], &rule].concat());
        }
        address
    }

    /// Writes the Endpoints and the EndpointSlice of a service, in place of those that are there.
    pub fn write_endpoints(&self, service: &str, pods: &[&Pod<'_>], target: u16) {
        let reference =
            |pod: &Pod<'_>| json!({"kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid});
        let node = |pod: &Pod<'_>| pod.object()["spec"]["nodeName"].clone();
        let addresses: Vec<Value> = pods
            .iter()
            .map(|pod| json!({"ip": pod.ip(), "nodeName": node(pod), "targetRef": reference(pod)}))
            .collect();
        let slices: Vec<Value> = pods
            .iter()
            .map(|pod| {
                json!({
                    "addresses": [pod.ip()], "conditions": {"ready": true}, "targetRef": reference(pod),
                    "topology": {"kubernetes.io/hostname": node(pod)},
                })
            })
            .collect();
        let path = "/api/v1/namespaces/default/endpoints";
        self.delete(&format!("{path}/{service}"));
        let subsets = json!([{"addresses": addresses, "ports": [{"name": "web", "port": target}]}]);
        self.create(
            path,
            &json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": service}, "subsets": subsets}),
        );
        let path = "/apis/discovery.k8s.io/v1beta1/namespaces/default/endpointslices";
        self.delete(&format!("{path}/{service}-1"));
        self.create(
            path,
            &json!({
                "apiVersion": "discovery.k8s.io/v1beta1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service}},
                "endpoints": slices, "ports": [{"name": "web", "port": target, "protocol": "TCP"}],
            }),
        );
    }
}

/// A workload whose pods bear the label `app`.
fn workload(kind: &str, name: &str, app: &str) -> Value {
    let template = json!({
        "metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "main", "image": "local/box:1"}]},
    });
    json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": app}}, "template": template},
    })
}
