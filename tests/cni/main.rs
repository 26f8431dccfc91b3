//! Real CNI: Debian's plugins in chains with ours, in namespaces that the test makes. Pods that come and go, that get each
//! other's address within a moment, and while wiretag is down; several networks of one pod.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]
#![allow(dead_code, unreachable_pub, reason = "modules that test targets share")]

mod node;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;

use node::{Network, Node, PLUGINS, Pod, plugin};
use serde_json::{Value, json};
use support::{eventually, has, is_root, require};

const WEB: &str = "10.211.0.9";

fn ready() -> bool {
    let plugins = require("Debian's containernetworking-plugins", Path::new(PLUGINS).join("bridge").exists());
    is_root() && plugins && has("busybox") && has("curl") && has("iptables")
}

/// A bridge with both families; a pod's ports can be published.
fn bridge(node: &Node) -> Network {
    let ranges = json!([[{ "subnet": "10.211.0.0/24" }], [{ "subnet": "fd00:211::/64" }]]);
    let ipam = json!({ "type": "host-local", "ranges": ranges, "dataDir": node.path("ipam") });
    let bridge = json!({ "type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipam": ipam });
    let portmap = json!({ "type": "portmap", "capabilities": { "portMappings": true } });
    Network { name: "podnet", version: "1.0.0", plugins: vec![bridge, portmap, plugin(node)] }
}

/// A pod on the bridge with the address that many get here, and its end.
fn web(node: &Node, network: &Network, name: &str) -> (Pod, Value) {
    let pod = node.pod(name);
    let result = node.add(network, &pod, "eth0", WEB);
    node.serve(&pod);
    (pod, result)
}

fn end(node: &Node, network: &Network, (pod, result): &(Pod, Value)) {
    node.del(network, pod, "eth0", result);
    node.remove(pod);
}

#[test]
fn cni_names_survive_exit_reuse_of_the_address_and_restarts_of_wiretag() {
    if !ready() {
        return;
    }
    let node = Node::new();
    let network = bridge(&node);
    // Before wiretag ever ran.
    let first = web(&node, &network, "web");
    let wiretag = node.wiretag();
    let visitor = node.pod("visitor");
    node.add(&network, &visitor, "eth0", "10.211.0.20");
    visitor.request(&format!("http://{WEB}/?first"));
    let flow = node.flow("http_path == /?first and tcp_state == SF");
    assert_eq!(flow["client_pod"], "visitor", "{flow}");
    assert_eq!(flow["server_pod"], "web", "{flow}");
    assert_eq!(flow["server_identity"], "uid-of-web", "{flow}");
    assert_eq!((&flow["server_namespace"], &flow["server_cluster"]), (&"shop".into(), &"kubernetes".into()), "{flow}");
    assert_eq!((&flow["observed_at"], &flow["client_tagged_by"]), (&"client".into(), &"interface".into()), "{flow}");

    // The address goes to another pod at once.
    end(&node, &network, &first);
    let second = web(&node, &network, "heir");
    visitor.request(&format!("http://{WEB}/?second"));
    assert_eq!(node.flow("http_path == /?second")["server_pod"], "heir");
    assert_eq!(node.flow("http_path == /?first")["server_pod"], "web");

    // While wiretag is down it goes on to a third and a fourth.
    wiretag.stop();
    end(&node, &network, &second);
    let third = web(&node, &network, "third");
    end(&node, &network, &third);
    let fourth = web(&node, &network, "fourth");
    let wiretag = node.wiretag();
    visitor.request(&format!("http://{WEB}/?fourth"));
    let flow = node.flow("http_path == /?fourth");
    assert_eq!((&flow["server_pod"], &flow["client_pod"]), (&"fourth".into(), &"visitor".into()), "{flow}");
    node.await_holders(WEB, &["web", "heir", "third", "fourth…"]);

    // A namespace that is removed without a word, while wiretag was killed.
    drop(wiretag);
    node.remove(&fourth.0);
    let _wiretag = node.wiretag();
    node.await_holders(WEB, &["web", "heir", "third", "fourth"]);
    assert_eq!(node.holders("10.211.0.20"), ["visitor…"], "what is there goes on");
}

/// The calls of specification 1.1.0 that Debian's plugins do not know, made to the program itself.
#[test]
fn cni_status_version_check_and_garbage_collection_are_answered() {
    if !ready() {
        return;
    }
    let node = Node::new();
    let network = Network { name: "podnet", version: "1.1.0", plugins: vec![plugin(&node)] };
    let own = network.plugins[0].clone();
    let call = |command: &str, config: &Value, previous: Option<&str>, pod: &Pod| {
        let output = node.call(command, &network, config, previous, (pod, "eth0", ""));
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let (kept, lost) = (node.pod("kept"), node.pod("lost"));
    // Nobody listens yet: pods can start.
    assert_eq!(call("STATUS", &own, None, &kept), "");
    let answer: Value = serde_json::from_str(&call("VERSION", &own, None, &kept)).expect("JSON");
    assert_eq!(answer["cniVersion"], "1.1.0");
    let versions = answer["supportedVersions"].as_array().expect("a list");
    assert!(versions.contains(&"0.3.1".into()) && versions.contains(&"1.1.0".into()), "{answer}");

    let _wiretag = node.wiretag();
    let result = |ip: &str| format!(r#"{{"cniVersion":"1.1.0","ips":[{{"address":"{ip}/24"}}]}}"#);
    for (pod, ip) in [(&kept, WEB), (&lost, "10.211.0.10")] {
        assert_eq!(call("ADD", &own, Some(&result(ip)), pod), result(ip), "handed on as it was");
        assert_eq!(call("CHECK", &own, Some(&result(ip)), pod), "");
    }
    let holds = |ip: &str, pod: &str| eventually(20, pod, || (node.holders(ip) == [pod]).then_some(()));
    holds(WEB, "kept…");
    holds("10.211.0.10", "lost…");
    let mut config = own;
    config["cni.dev/valid-attachments"] = json!([{ "containerID": kept.sandbox, "ifname": "eth0" }]);
    assert_eq!(call("GC", &config, None, &kept), "");
    holds("10.211.0.10", "lost");
    holds(WEB, "kept…");
}

#[test]
fn cni_pods_that_live_for_a_moment_with_one_address_have_their_own_names() {
    if !ready() {
        return;
    }
    let node = Node::new();
    let mut network = bridge(&node);
    network.version = "0.3.1";
    let wiretag = node.wiretag();
    let server = web(&node, &network, "server");
    for number in 0..8 {
        let pod = node.pod(&format!("one{number}"));
        let result = node.add(&network, &pod, "eth0", "10.211.0.30");
        pod.request(&format!("http://{WEB}/?one{number}"));
        end(&node, &network, &(pod, result));
    }
    let query = "http_path == /?one*";
    // A pod may be gone before its own interface is captured; the server's has seen it.
    let flows = eventually(60, "a flow of each", || {
        let flows = node.flows(query, &["--all-observations"]);
        let paths: std::collections::BTreeSet<_> = flows.iter().map(|flow| flow["http_path"].to_string()).collect();
        (paths.len() == 8).then_some(flows)
    });
    for flow in &flows {
        // What it asked for says who it is.
        let own = flow["http_path"].as_str().and_then(|path| path.strip_prefix("/?")).expect("a name");
        assert_eq!(flow["client_pod"], own, "{flow}");
        assert_eq!(flow["server_pod"], "server", "{flow}");
    }
    end(&node, &network, &server);
    wiretag.stop();
}

/// Requests to a published port, behind which connection tracking tells who is there, and over IPv6.
#[test]
fn cni_published_ports_and_ipv6_name_the_pod() {
    if !ready() {
        return;
    }
    let node = Node::new();
    let mut network = bridge(&node);
    network.plugins[1]["runtimeConfig"] =
        json!({ "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }] });
    node.exec(&["ip", "addr", "add", "10.211.9.1/32", "dev", "lo"]);
    let wiretag = node.wiretag();
    let pod = node.pod("web");
    let result = node.add(&network, &pod, "eth0", "");
    let ips: Vec<&str> =
        result["ips"].as_array().expect("a list").iter().filter_map(|ip| ip["address"].as_str()).collect();
    let ip6 = ips.iter().find(|ip| ip.contains(':')).and_then(|ip| ip.split('/').next()).expect("an IPv6 address");
    node.serve(&pod);
    let visitor = node.pod("visitor");
    node.add(&network, &visitor, "eth0", "");
    // Duplicate address detection takes a moment.
    eventually(20, "IPv6 works", || {
        let ping = ["netns", "exec", &visitor.netns, "busybox", "ping", "-6", "-c", "1", "-W", "1", ip6];
        std::process::Command::new("ip").args(ping).output().expect("ip runs").status.success().then_some(())
    });
    visitor.request(&format!("http://[{ip6}]/?six"));
    visitor.request("http://10.211.9.1:8080/?published");
    for path in ["six", "published"] {
        let flow = node.flow(&format!("http_path == /?{path}"));
        assert_eq!(flow["server_pod"], "web", "{flow}");
        assert_eq!(flow["client_pod"], "visitor", "{flow}");
    }
    wiretag.stop();
}

fn local(node: &Node, subnet: &str, name: &str) -> Value {
    json!({ "type": "host-local", "subnet": subnet, "dataDir": node.path(&format!("ipam-{name}")) })
}

/// A macvlan network above a bridge with a port, because a parent without a carrier carries nothing. All have the same addresses.
fn macvlan(node: &Node, name: &'static str) -> Network {
    let (port, far) = (format!("{name}-port"), format!("{name}-far"));
    node.exec(&["ip", "link", "add", name, "type", "bridge"]);
    node.exec(&["ip", "link", "add", &port, "type", "veth", "peer", "name", &far]);
    node.exec(&["ip", "link", "set", &port, "master", name]);
    for link in [name, &port, &far] {
        node.exec(&["ip", "link", "set", link, "up"]);
    }
    let ipam = local(node, "10.213.0.0/24", name);
    let macvlan = json!({ "type": "macvlan", "master": name, "mode": "bridge", "ipam": ipam });
    Network { name, version: "0.4.0", plugins: vec![macvlan, plugin(node)] }
}

/// Inside a pod, packets of one interface are neither lost nor counted twice when it is given others.
#[test]
fn cni_interfaces_that_a_pod_is_given_later_cost_the_first_one_no_packet() {
    if !ready() {
        return;
    }
    let node = Node::new();
    let (red, blue, green) = (macvlan(&node, "red"), macvlan(&node, "blue"), macvlan(&node, "green"));
    let wiretag = node.wiretag();
    let (pod, other) = (node.pod("asks"), node.pod("answers"));
    node.add(&red, &pod, "eth0", "10.213.0.10");
    node.add(&red, &other, "eth0", "10.213.0.9");
    node.serve(&other);
    // It is captured from now on.
    node.flow_of(&pod, "http://10.213.0.9/", "client_ip == 10.213.0.10");
    let ping = ["netns", "exec", &pod.netns, "busybox", "ping", "-q", "-i", "0.01", "-c", "300", "10.213.0.9"];
    let mut ping = std::process::Command::new("ip").args(ping).spawn().expect("ip runs");
    node.add(&blue, &pod, "net1", "10.213.0.11");
    node.add(&green, &pod, "net2", "10.213.0.12");
    assert!(ping.wait().expect("it ends").success());
    eventually(30, "each packet once", || {
        let flows = node.flows("protocol == icmp and client_ip == 10.213.0.10", &[]);
        let packets = |column: &str| flows.iter().filter_map(|flow| flow[column].as_u64()).sum::<u64>();
        ((packets("client_packets"), packets("server_packets")) == (300, 300)).then_some(())
    });
    wiretag.stop();
}

/// As Multus does it: `eth0` of a routed veth, `net1` and `net2` of macvlan networks that use the same addresses.
#[test]
fn cni_networks_of_one_pod_do_not_mix_and_macvlan_is_captured_inside() {
    if !ready() {
        return;
    }
    let node = Node::new();
    let ptp = json!({ "type": "ptp", "ipam": local(&node, "10.212.0.0/24", "ptp") });
    let routed = Network { name: "routed", version: "0.4.0", plugins: vec![ptp, plugin(&node)] };
    let (red, blue) = (macvlan(&node, "red"), macvlan(&node, "blue"));
    let wiretag = node.wiretag();
    let attach = |name: &str, second: &Network, ip: &str| {
        let pod = node.pod(name);
        let result = (node.add(&routed, &pod, "eth0", ""), node.add(second, &pod, "net1", ip));
        (pod, result)
    };
    let (red_web, red_result) = attach("red-web", &red, "10.213.0.9");
    let (red_client, _) = attach("red-client", &red, "10.213.0.10");
    let (blue_web, _) = attach("blue-web", &blue, "10.213.0.9");
    let (blue_client, _) = attach("blue-client", &blue, "10.213.0.10");
    node.serve(&red_web);
    node.serve(&blue_web);
    let ip = red_result.0["ips"][0]["address"].as_str().and_then(|ip| ip.split('/').next()).expect("an address");
    for (path, url, client, server) in [
        ("red", "10.213.0.9", &red_client, "red-web"),
        ("blue", "10.213.0.9", &blue_client, "blue-web"),
        ("routed", ip, &red_client, "red-web"),
    ] {
        let flow = node.flow_of(client, &format!("http://{url}/?{path}"), &format!("http_path == /?{path}"));
        assert_eq!(
            (&flow["client_pod"], &flow["server_pod"]),
            (&client.name.as_str().into(), &server.into()),
            "{flow}"
        );
        assert_eq!(flow["client_tagged_by"], "interface", "{flow}");
    }
    check_the_other_network(&node, (&routed, &red), (&red_web, &red_result), &red_client);
    wiretag.stop();
}

/// One attachment of a pod ends: only that.
fn check_the_other_network(
    node: &Node,
    (routed, red): (&Network, &Network),
    (pod, (eth0, net1)): (&Pod, &(Value, Value)),
    client: &Pod,
) {
    // The plugin is asked whether all is well, and a runtime says twice that it is over.
    let check = node.call("CHECK", routed, &plugin(node), Some(&eth0.to_string()), (pod, "eth0", ""));
    assert!(check.status.success() && check.stdout.is_empty());
    node.del(red, pod, "net1", net1);
    let again = node.call("DEL", red, &plugin(node), Some(&net1.to_string()), (pod, "net1", ""));
    assert!(again.status.success() && again.stdout.is_empty());
    let heir = node.pod("red-heir");
    node.add(red, &heir, "net1", "10.213.0.9");
    node.serve(&heir);
    let flow = node.flow_of(client, "http://10.213.0.9/?heir", "http_path == /?heir");
    assert_eq!(flow["server_pod"], "red-heir");
    let ip = eth0["ips"][0]["address"].as_str().and_then(|ip| ip.split('/').next()).expect("an address");
    client.request(&format!("http://{ip}/?still"));
    assert_eq!(node.flow("http_path == /?still")["server_pod"], "red-web");
}
