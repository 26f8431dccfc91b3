//! How pods end.

use serde_json::json;

use super::Pod;
use crate::support::eventually;

impl Pod<'_> {
    /// Deletes it and waits until the kubelet has taken it down and the object is gone.
    pub fn delete(&self) {
        self.cluster.delete(&self.path());
        self.wait_gone();
    }

    /// Deletes it and waits until its address is free; the object may be there for a while.
    pub fn discard(&self) {
        self.cluster.delete(&self.path());
        self.wait_down();
    }

    /// Deletes it by the eviction interface, as a node drain does.
    pub fn evict(&self) {
        let eviction = json!({
            "apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": self.name, "namespace": self.namespace},
        });
        self.cluster.create(&format!("{}/eviction", self.path()), &eviction);
        self.wait_gone();
    }

    /// Deletes the object at once, before the kubelet has stopped anything, as for a node that is lost.
    pub fn delete_object(&self) {
        self.cluster.delete(&format!("{}?gracePeriodSeconds=0", self.path()));
    }

    /// Waits until the kubelet has taken down its network, and the object is gone. The kubelet may keep the object for a minute, until it
    /// collects what ended; then it is deleted as a person would who has seen that.
    fn wait_gone(&self) {
        self.wait_down();
        let mut tries = 0;
        eventually(60, &format!("pod {} is gone", self.name), || {
            let (status, object) = self.cluster.request("GET", &self.path(), "application/json", None);
            tries += 1;
            if status == 200 && tries == 100 {
                self.delete_object();
            }
            // Another of the same name may have come.
            (status == 404 || (status == 200 && object["metadata"]["uid"] != self.uid.as_str())).then_some(())
        });
    }

    /// Waits until its network is taken down.
    pub fn wait_down(&self) {
        eventually(60, &format!("the network of {} is taken down", self.name), || {
            self.attachment().is_none().then_some(())
        });
    }
}
