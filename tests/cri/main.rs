//! Real containerd (Debian's), with pods that the test makes over the CRI as a kubelet does: exit, an address that goes on to
//! another pod at once, containers that restart, wiretag and containerd restarted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]
#![allow(dead_code, unreachable_pub, reason = "modules that test targets share")]

#[path = "../../enrich/tests/cri/containerd.rs"]
mod containerd;
#[path = "../cni/node.rs"]
mod node;
#[path = "../support/mod.rs"]
mod support;
#[path = "../../enrich/tests/cri/wire.rs"]
mod wire;

use std::path::Path;

use containerd::Containerd;
use node::{Node, PLUGINS, Wiretag};
use support::{eventually, has, is_root, require};

fn ready() -> bool {
    let plugins = require("Debian's containernetworking-plugins", Path::new(PLUGINS).join("bridge").exists());
    is_root() && plugins && has("containerd") && has("runc") && has("ctr") && has("busybox") && has("nsenter")
}

fn start(node: &Node, containerd: &Containerd) -> Wiretag {
    let config = node.path("wiretag.toml");
    std::fs::write(&config, format!("[cri]\nendpoint = \"{}\"\n", containerd.socket())).expect("written");
    node.wiretag_with(&["--config", config.to_str().expect("a path")])
}

#[test]
fn cri_names_survive_exit_reuse_of_the_address_and_restarts() {
    if !ready() {
        return;
    }
    let node = Node::new();
    let containerd = Containerd::start(&node.path(""), &node.netns());
    // Before wiretag runs.
    let web = containerd.pod("web", false);
    let server = containerd.serve(&web);
    let wiretag = start(&node, &containerd);
    let visitor = containerd.pod("visitor", false);
    containerd.request(&visitor, &web.ip, "first");
    let flow = node.flow("http_path == /?first and tcp_state == SF");
    assert_eq!((&flow["client_pod"], &flow["server_pod"]), (&"visitor".into(), &"web".into()), "{flow}");
    assert_eq!((&flow["server_identity"], &flow["server_namespace"]), (&"uid-of-web".into(), &"shop".into()), "{flow}");
    assert_eq!((&flow["observed_at"], &flow["client_tagged_by"]), (&"client".into(), &"interface".into()), "{flow}");
    assert_eq!(flow["server_labels"]["app"], "web", "{flow}");
    assert!(flow["server_labels"]["io.kubernetes.pod.name"].is_null(), "{flow}");

    // Another container of the same pod.
    containerd.end_container(&server);
    containerd.serve(&web);
    containerd.request(&visitor, &web.ip, "again");
    assert_eq!(node.flow("http_path == /?again")["server_pod"], "web");

    // The address goes to another pod.
    containerd.end(&web);
    let heir = containerd.pod("heir", false);
    assert_eq!(heir.ip, web.ip);
    containerd.serve(&heir);
    containerd.request(&visitor, &heir.ip, "second");
    assert_eq!(node.flow("http_path == /?second")["server_pod"], "heir");
    assert_eq!(node.flow("http_path == /?first")["server_pod"], "web");

    // containerd goes away and comes back.
    containerd.restart();
    containerd.request(&visitor, &heir.ip, "third");
    let flow = node.flow("http_path == /?third");
    assert_eq!((&flow["client_pod"], &flow["server_pod"]), (&"visitor".into(), &"heir".into()), "{flow}");

    // wiretag is down while the address goes on.
    wiretag.stop();
    containerd.end(&heir);
    let last = containerd.pod("last", false);
    assert_eq!(last.ip, heir.ip);
    containerd.serve(&last);
    let wiretag = start(&node, &containerd);
    let known = || (node.holders(&last.ip).last().map(String::as_str) == Some("last…")).then_some(());
    eventually(60, "the pod that came meanwhile", known);
    containerd.request(&visitor, &last.ip, "fourth");
    assert_eq!(node.flow("http_path == /?fourth")["server_pod"], "last");
    assert_eq!(node.holders(&last.ip), ["web", "heir", "last…"]);
    wiretag.stop();
}

/// A pod on the host's network has no address of its own: others keep theirs.
#[test]
fn cri_pods_of_the_host_network_claim_no_address() {
    if !ready() {
        return;
    }
    let node = Node::new();
    let containerd = Containerd::start(&node.path(""), &node.netns());
    let wiretag = start(&node, &containerd);
    let host = containerd.pod("host", true);
    containerd.serve(&host);
    let visitor = containerd.pod("visitor", false);
    containerd.request(&visitor, "10.214.0.1", "host");
    let flow = node.flow("http_path == /?host");
    assert_eq!(flow["client_pod"], "visitor", "{flow}");
    assert!(flow["server_pod"].is_null() || flow["server_pod"] == "host", "{flow}");
    wiretag.stop();
}
