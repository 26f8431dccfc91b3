//! Identities from Kubernetes: pods and their containers, nodes, services and their endpoints, as the API server tells them.
//!
//! ```text
//! [watch] list, watch (one task a resource) ─ Told ─ [state] objects to events ─ IdentityEvent
//!    │ [resource] which, where                          ├─ [pods] ─ [pod], [owners]
//!    └ [client] connection, credentials, errors         ├─ [nodes], [namespaces]
//!                                                       ├─ [services]
//!                                                       └─ [clock] times of other machines
//! ```
//!
//! **Scope.** `node`: the pods of this node and its own node object; the owners of pods are asked for one by one. `cluster`: all pods,
//! nodes, services and endpoints, and the metadata of all ReplicaSets and Jobs. In both: the metadata of all namespaces.
//!
//! **When an address is whose.** From the moment that the API server said so, or from the start of the pod's first container as its
//! node tells it, if that is surely not too early ([`clock`]); so the first second or two of a pod, until the kubelet has told
//! of it, are nobody's for this source (the runtime and the CNI plugin know better). It ends when the last container did if that is
//! told, else with the news.
//!
//! **Gaps.** A watch that was interrupted goes on where it was. What it missed is taken to have happened at once after it was last heard if
//! it is an end, and when it was learned if it is a beginning. After a list everything that holds is told as a
//! snapshot, as soon as each resource has been listed or cannot be had.
//!
//! **Limits.** Host-network pods have no address of their own: they are described, and found by their sockets. The ports that a
//! `NodePort` opens are a service's at the addresses of nodes that are known: in `node` scope its own. An endpoint of several services is nobody's. Clocks of nodes are trusted to be at most a
//! minute behind until they have been heard.

mod client;
mod clock;
mod intern;
mod namespaces;
mod nodes;
mod objects;
mod owners;
mod permissions;
mod pod;
mod pods;
mod resource;
mod services;
mod source;
mod standing;
mod state;
#[cfg(test)]
mod stories;
mod tell;
mod translator;
mod watch;

pub use permissions::{Permissions, check};
pub use source::{KubernetesConfig, KubernetesSource, Scope};
pub use translator::{Translator, Unreadable};

#[expect(clippy::disallowed_methods, reason = "a source stands at the edge: it says when it learned something")]
fn now() -> i64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}
