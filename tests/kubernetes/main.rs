//! Real Kubernetes: a node of the test's own (API server, kubelet, containerd, CNI plugins with ours chained behind them) whose pods talk
//! to each other while wiretag captures on the node. What wiretag says is held against what the API server and the CNI plugins know.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]
#![allow(dead_code, unreachable_pub, reason = "modules that test targets share")]

#[path = "../support/cluster/mod.rs"]
mod cluster;
mod far;
mod scene;
mod shipped;
#[path = "../support/mod.rs"]
mod support;

use cluster::{Plan, Pod};
use far::Far;
use scene::{End, Scene, Sources, at_interface_of, is_named, visitor};
use serde_json::json;
use support::eventually;

#[test]
fn traffic_of_pods_is_captured_at_their_own_interfaces_and_accounted_for() {
    if !cluster::ready() {
        return;
    }
    let scene = Scene::start(Sources::All);
    let cluster = &scene.cluster;
    cluster.patch("/api/v1/namespaces/default", &json!({"metadata": {"labels": {"team": "blue"}}}));
    let replicas = cluster.create_deployment("shop", "abc12");
    let web = cluster.run_pod(&Plan::web("shop-abc12-x1").label("app", "shop").owner(&replicas));
    let client = visitor(cluster);
    assert_eq!(scene.source("cni"), "connected", "the kubelet's runtime has called the plugin");
    web.exec("web", &["dd", "if=/dev/zero", "of=/www/blob", "bs=1000", "count=1000"]);
    let body = client.fetch("main", &format!("http://{}/blob", web.ip()));
    assert_eq!(body.len(), 1_000_000);

    let flows = scene.told("/blob", End::new(&client, "main"), &web);
    for (pod, side) in [(&client, "client"), (&web, "server")] {
        let flow = at_interface_of(&flows, pod);
        assert_eq!(flow["tcp_state"], "SF", "{flow}");
        assert_eq!(flow[format!("{side}_mac")], pod.attachment().expect("the plugins' record").mac.as_str(), "{flow}");
        let payload = flow["server_payload_bytes"].as_u64().expect("a number");
        assert!((1_000_000..1_001_000).contains(&payload), "body and head: {flow}");
        // With all sources neither end is in doubt anywhere.
        is_named(flow, "client", End::new(&client, "main"));
        is_named(flow, "server", End::new(&web, "web"));
        assert_eq!(flow["server_workload"], "shop", "{flow}");
        assert_eq!(flow["server_workload_kind"], "Deployment", "{flow}");
        assert_eq!(flow[format!("{side}_labels")]["namespace:team"], "blue", "{flow}");
    }
    assert_eq!(flows.iter().filter(|flow| flow["primary"] == true).count(), 1, "{flows:?}");
    for part in ["client_packets", "server_packets", "client_bytes", "server_bytes"] {
        assert_eq!(at_interface_of(&flows, &client)[part], at_interface_of(&flows, &web)[part], "{part}: {flows:?}");
    }
    the_other_family_has_the_same_names(&scene, &client, &web);
    each_source_says_the_same(&scene, &web);
    accounted_for(&scene);
    scene.end(0);
}

/// Over IPv6.
fn the_other_family_has_the_same_names(scene: &Scene, client: &Pod<'_>, web: &Pod<'_>) {
    let (ip, path) = (web.ip6(), scene.path());
    assert_eq!(client.fetch("main", &format!("http://[{ip}]{path}")), "hello\n");
    for flow in scene.told(&path, End::new(client, "main"), web) {
        assert_eq!((&flow["client_ip"], &flow["server_ip"]), (&client.ip6().into(), &ip.clone().into()), "{flow}");
    }
    assert_eq!(scene.holders(&ip), [format!("{}…", web.name)]);
}

/// `wiretag identities` tells one pod by three sources, each with the same address, and the exact ones with the interface.
fn each_source_says_the_same(scene: &Scene, web: &Pod<'_>) {
    let attachment = web.attachment().expect("the plugins' record");
    for source in ["cni", "cri", "kubernetes"] {
        let told = scene.identities(&["--now", "--source", source, "--identity", &web.uid]);
        let keys: Vec<&str> = told.iter().filter_map(|row| row["key"].as_str()).collect();
        assert!(keys.contains(&&*web.ip()) && keys.contains(&&*web.ip6()), "{source}: {told:?}");
        assert_eq!(source != "kubernetes", keys.contains(&&*attachment.mac), "{source}: {told:?}");
    }
    let at_interface = scene.identities(&["--now", "--interface", &attachment.veth]);
    assert!(at_interface.iter().all(|row| row["identity"]["pod"] == web.name.as_str()), "{at_interface:?}");
    assert!(!at_interface.is_empty() && scene.holders(&web.ip()) == [format!("{}…", web.name)]);
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
    let scene = Scene::start(Sources::All);
    let cluster = &scene.cluster;
    cluster.reuse_addresses();
    let replicas = cluster.create_deployment("shop", "abc12");
    let shop = cluster.run_pod(&Plan::web("shop-abc12-x1").label("app", "shop").owner(&replicas));
    let visitor = visitor(cluster);
    scene.talk(End::new(&visitor, "main"), &shop);

    completed_and_failed_pods_give_their_address_back(&scene, &shop);
    an_evicted_pod_stays_as_an_object(&scene, &visitor);
    a_pod_of_the_same_name_is_another(&scene, &visitor);

    // Restarted in place: another container of the same pod, at the same interface.
    let (pod, container) = (shop.uid.clone(), shop.container_id("web"));
    let attachment = shop.attachment();
    shop.restart_in_place("web");
    assert!(shop.container_id("web") != container && shop.object()["metadata"]["uid"] == pod.as_str());
    assert_eq!(shop.attachment(), attachment);
    scene.talk(End::new(&visitor, "main"), &shop);
    shop.evict();
    visitor.delete();
    eventually(30, "the end of the visitor", || (scene.holders(&visitor.ip()) == ["visitor"]).then_some(()));
    scene.end(2);
}

/// The object of a pod that ended is there, its address is another's.
fn completed_and_failed_pods_give_their_address_back(scene: &Scene, shop: &Pod<'_>) {
    let mut holders = Vec::new();
    let mut address = None;
    for (name, ending, phase) in [("job", "exit 0", "Succeeded"), ("broken", "exit 3", "Failed")] {
        let path = scene.path();
        let command = format!("wget -q -O /dev/null http://{}{path}; sleep 2; {ending}", shop.ip());
        let pod = scene.cluster.create_pod(&Plan::once(name, &command));
        pod.wait_phase(phase);
        let flows = scene.observations(&path, 2);
        for flow in &flows {
            assert_eq!(flow["client_ip"], pod.ip().as_str(), "{flow}");
            scene.is_honest(flow, "client", End::new(&pod, "main"));
            scene.is_honest(flow, "server", End::new(shop, "web"));
        }
        let own = flows.iter().find(|flow| flow["observed_at"] == "client").expect("seen at its own interface");
        is_named(own, "client", End::new(&pod, "main"));
        eventually(60, "its network is taken down", || pod.attachment().is_none().then_some(()));
        let heir = scene.cluster.run_pod(&Plan::idle(&format!("heir-of-{name}")));
        assert_eq!(heir.ip(), pod.ip());
        assert_eq!(pod.object()["status"]["phase"], phase);
        scene.talk(End::new(&heir, "main"), shop);
        heir.delete();
        pod.delete();
        holders.extend([name.to_owned(), format!("heir-of-{name}")]);
        assert_eq!(*address.get_or_insert_with(|| pod.ip()), pod.ip());
    }
    let address = address.expect("an address");
    eventually(30, "who had the address, one after the other", || (scene.holders(&address) == holders).then_some(()));
}

/// The kubelet evicts a pod that writes more than it may; the object says so and stays, while its address is another's.
fn an_evicted_pod_stays_as_an_object(scene: &Scene, visitor: &Pod<'_>) {
    let greedy = scene.cluster.run_pod(&Plan::web("greedy").scratch("100Ki"));
    scene.talk(End::new(visitor, "main"), &greedy);
    greedy.exec("web", &["dd", "if=/dev/zero", "of=/scratch/file", "bs=1000", "count=1000"]);
    let object = greedy.wait_phase("Failed");
    assert_eq!(object["status"]["reason"], "Evicted", "{object}");
    eventually(60, "its network is taken down", || greedy.attachment().is_none().then_some(()));
    let heir = scene.cluster.run_pod(&Plan::web("heir-of-greedy"));
    assert_eq!(heir.ip(), greedy.ip());
    scene.talk(End::new(visitor, "main"), &heir);
    heir.delete();
    greedy.delete();
}

/// StatefulSet style: deleted, made again under the same name, with the same address.
fn a_pod_of_the_same_name_is_another(scene: &Scene, visitor: &Pod<'_>) {
    let set = scene.cluster.create_stateful_set("db");
    let plan = Plan::web("db-0").label("app", "db").owner(&set);
    let first = scene.cluster.run_pod(&plan);
    let before = scene.talk(End::new(visitor, "main"), &first);
    first.delete();
    let second = scene.cluster.run_pod(&plan);
    assert!(second.uid != first.uid && second.ip() == first.ip());
    let after = scene.talk(End::new(visitor, "main"), &second);
    assert_ne!(before[0]["flow_id"], after[0]["flow_id"]);
    // Both are the set's, and each its own.
    let told = scene.identities(&["--workload", "db", "--ip", &second.ip()]);
    let mut ids: Vec<_> = told.iter().filter_map(|row| row["identity"]["identity"].as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut expected = [&*first.uid, &*second.uid];
    expected.sort_unstable();
    assert_eq!(ids, expected);
    second.delete();
}

/// Host network, several containers in one pod, a service in front: who talks is not said by an address alone.
#[test]
fn pods_that_share_addresses_have_no_wrong_names() {
    if !cluster::ready() {
        return;
    }
    let scene = Scene::start(Sources::Runtime);
    let cluster = &scene.cluster;
    let visitor = visitor(cluster);
    let web = cluster.run_pod(&Plan::web("web"));
    containers_of_one_pod_are_told_apart(&scene, &visitor, &web);

    // The address of a host-network pod is the node's: its socket says who it is.
    let host = cluster.run_pod(&Plan::idle("host").host_network());
    assert_eq!(host.ip(), cluster.value("node_ip"));
    let path = scene.request(End::new(&host, "main"), &web);
    for flow in scene.observations(&path, 1) {
        scene.is_honest(&flow, "client", End::new(&host, "main"));
        scene.is_honest(&flow, "server", End::new(&web, "web"));
    }
    let path = scene.slow_request(End::new(&host, "main"), &web);
    for flow in scene.observations(&path, 1) {
        is_named(&flow, "client", End::new(&host, "main"));
        assert_eq!(flow["client_tagged_by"], "socket", "{flow}");
        is_named(&flow, "server", End::new(&web, "web"));
    }

    // A service's address is translated to the pod behind it.
    let address = cluster.create_service("front", 8080, &[&web], 80);
    let known = || (!scene.identities(&["--now", "--service", "front", "--ip", &address]).is_empty()).then_some(());
    eventually(30, "the service is known", known);
    let path = scene.path();
    assert_eq!(visitor.fetch("main", &format!("http://{address}:8080{path}")), "hello\n");
    let flows = scene.observations(&path, 2);
    let (near, far) = (at_interface_of(&flows, &visitor), at_interface_of(&flows, &web));
    assert_eq!((&near["server_ip"], &near["server_port"]), (&json!(address), &json!(8080)), "{near}");
    assert_eq!((&near["server_nat_ip"], &near["server_nat_port"]), (&json!(web.ip()), &json!(80)), "{near}");
    assert_eq!((&far["server_ip"], &far["server_nat_ip"]), (&json!(web.ip()), &json!(address)), "{far}");
    for flow in &flows {
        is_named(flow, "client", End::new(&visitor, "main"));
        is_named(flow, "server", End::new(&web, "web"));
        assert_eq!(flow["server_service"], "front", "{flow}");
    }
    scene.end(10);
}

/// Init container, two containers and a debugger share one address: the pod is exact, the container is the right one or not named.
fn containers_of_one_pod_are_told_apart(scene: &Scene, visitor: &Pod<'_>, web: &Pod<'_>) {
    let first = scene.path();
    let warm = format!("wget -q -O /dev/null http://{}{first}; sleep 2", web.ip());
    let team = Plan::web("team").init("warm", &["sh", "-c", &warm]).container("log", &["sleep", "1000000000"]);
    let team = scene.cluster.run_pod(&team);
    team.debug("look", &["sleep", "1000000000"]);
    for container in ["web", "log", "look"] {
        scene.talk(End::new(&team, container), web);
        let path = scene.slow_request(End::new(&team, container), web);
        let flows = scene.told(&path, End::new(&team, container), web);
        assert_eq!(at_interface_of(&flows, &team)["client_container"], container, "its socket was seen: {flows:?}");
    }
    // The one that listens there is the one that was talked to.
    let flows = scene.talk(End::new(visitor, "main"), &team);
    assert_eq!(at_interface_of(&flows, &team)["server_container"], "web", "{flows:?}");
    for flow in scene.told(&first, End::new(&team, "warm"), web) {
        assert_eq!(flow["client_ip"], team.ip().as_str(), "{flow}");
    }
}

/// Only the API server tells: of pods of other nodes always, of those here where there is no plugin and no runtime.
#[test]
fn pods_that_only_the_api_server_knows_have_no_wrong_names() {
    if !cluster::ready() {
        return;
    }
    let scene = Scene::start(Sources::Api);
    let cluster = &scene.cluster;
    cluster.reuse_addresses();
    let (visitor, web) = (visitor(cluster), cluster.run_pod(&Plan::web("web")));
    eventually(30, "a pod of this node is named", || {
        let flows = scene.talk(End::new(&visitor, "main"), &web);
        (flows.iter().all(|flow| flow["client_pod"] == "visitor" && flow["server_pod"] == "web")).then_some(())
    });

    cluster.create_node("elsewhere", "zone-b");
    let replicas = cluster.create_deployment("shop", "def34");
    let ip = "10.244.250.7";
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Far::start(directory.path(), ip, "10.244.250.1");
    let plan = |name: &str| Plan::web(name).label("app", "shop").owner(&replicas);
    let far = cluster.play_pod(&plan("shop-def34-y1"), "elsewhere", ip);
    eventually(30, "the pod of another node is known", || (scene.holders(ip) == ["shop-def34-y1…"]).then_some(()));
    let talks = |pod: &Pod<'_>| {
        let path = scene.request(End::new(&visitor, "main"), pod);
        (path.clone(), scene.observations(&path, 2))
    };
    let (first, flows) = talks(&far);
    for flow in &flows {
        is_named(flow, "server", End::new(&far, "web"));
        assert_eq!((&flow["server_host"], &flow["server_zone"]), (&"elsewhere".into(), &"zone-b".into()), "{flow}");
        assert_eq!((&flow["server_tagged_by"], &flow["server_workload"]), (&"ip".into(), &"shop".into()), "{flow}");
    }
    let path = scene.path();
    machine.request(&format!("http://{}{path}", web.ip()));
    for flow in scene.observations(&path, 2) {
        is_named(&flow, "client", End::new(&far, "web"));
        scene.is_honest(&flow, "server", End::new(&web, "web"));
    }

    // It goes without a word to this node, and another has its address at once.
    far.delete_object();
    let heir = cluster.play_pod(&plan("shop-def34-y2"), "elsewhere", ip);
    let mut doubts = 0;
    eventually(60, "the heir is named", || {
        let (_, flows) = talks(&heir);
        let blank = flows.iter().any(|flow| flow["server_identity"].is_null());
        for flow in &flows {
            scene.is_honest(flow, "server", End::new(&heir, "web"));
        }
        doubts += u32::from(blank);
        (!blank).then_some(())
    });
    assert!(doubts < 6, "{doubts}");
    for flow in scene.observations(&first, 2) {
        is_named(&flow, "server", End::new(&far, "web"));
    }
    assert_eq!(scene.holders(ip), ["shop-def34-y1", "shop-def34-y2…"]);
    an_address_goes_on(&scene, &visitor, &web);
    scene.end(40);
}

/// A pod of this node is deleted, another has its address at once.
fn an_address_goes_on(scene: &Scene, visitor: &Pod<'_>, old: &Pod<'_>) {
    old.delete();
    let heir = scene.cluster.run_pod(&Plan::web(&format!("heir-of-{}", old.name)));
    assert_eq!(heir.ip(), old.ip());
    eventually(60, "the heir is named", || {
        let flows = scene.talk(End::new(visitor, "main"), &heir);
        flows.iter().all(|flow| flow["server_pod"] == heir.name.as_str()).then_some(())
    });
    heir.delete();
}

/// Every part fails once while pods talk.
#[test]
fn traffic_is_captured_while_parts_of_kubernetes_are_down() {
    if !cluster::ready() {
        return;
    }
    let scene = Scene::start(Sources::All);
    let cluster = &scene.cluster;
    cluster.reuse_addresses();
    let (web, client) = (cluster.run_pod(&Plan::web("web")), visitor(cluster));
    let talk = || scene.talk(End::new(&client, "main"), &web);
    talk();
    the_api_server_is_away(&scene, &client, &web);

    // Without a kubelet pods go on; one that is made now runs when it is back.
    cluster.stop_part("kubelet");
    talk();
    let waiting = cluster.create_pod(&Plan::web("waits-for-the-kubelet"));
    cluster.start_part("kubelet");
    waiting.wait_running();
    scene.talk(End::new(&client, "main"), &waiting);

    // The runtime is killed: its pods go on.
    cluster.kill_part("containerd");
    cluster.start_part("containerd");
    talk();
    wiretag_is_away(&scene, &client, &waiting);
    scene.end(10);
}

/// The API server forgets what watches could go on from, and is away for a while.
fn the_api_server_is_away(scene: &Scene, client: &Pod<'_>, web: &Pod<'_>) {
    let cluster = &scene.cluster;
    let old = cluster.create_pod(&Plan::web("before-the-outage"));
    let version = old.object()["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    old.wait_running();
    scene.talk(End::new(client, "main"), &old);
    cluster.stop_part("apiserver");
    assert!(cluster.find("/api/v1/nodes").is_none());
    eventually(60, "it is told that nobody answers", || (scene.source("kubernetes") != "connected").then_some(()));
    let up = || scene.appliance().metric("wiretag_identity_source_up", "source=\"kubernetes\"");
    assert!(up() < 0.5);
    scene.talk(End::new(client, "main"), web);
    cluster.compact_etcd();
    cluster.start_part("apiserver");
    let (_, gone) = cluster.request(
        "GET",
        &format!("/api/v1/pods?watch=1&timeoutSeconds=5&resourceVersion={version}"),
        "application/json",
        None,
    );
    assert!(gone["code"] == 410 || gone["object"]["code"] == 410, "{gone}");
    // Whether wiretag has found it again by now or not.
    an_address_goes_on(scene, client, &old);
    scene.hears("kubernetes");
    assert!(up() > 0.5);
    scene.talk(End::new(client, "main"), web);
}

/// wiretag is stopped, and killed: pods end, others get their addresses, connections go on.
fn wiretag_is_away(scene: &Scene, client: &Pod<'_>, web: &Pod<'_>) {
    let cluster = &scene.cluster;
    let mut old = cluster.run_pod(&Plan::web("old-0"));
    let mut holders = vec!["old-0".to_owned()];
    for (number, kill) in [(1, false), (2, true)] {
        let before = scene.talk(End::new(client, "main"), &old);
        let path = scene.path();
        let late = client.open(
            "main",
            &[
                "sh",
                "-c",
                &format!("(sleep 25; printf 'GET {path} HTTP/1.0\\r\\n\\r\\n'; sleep 2) | nc {} 80", web.ip()),
            ],
        );
        let open = format!("client_ip == {} and server_ip == {} and not end_reason exists", client.ip(), web.ip());
        eventually(20, "the connection is seen", || scene.appliance().flows(&open, &[]).pop());
        if kill {
            scene.kill_wiretag();
        } else {
            scene.stop_wiretag();
        }
        old.delete();
        let heir = cluster.run_pod(&Plan::web(&format!("old-{number}")));
        assert_eq!(heir.ip(), old.ip());
        scene.start_wiretag();
        scene.talk(End::new(client, "main"), &heir);
        late.ends();
        // The rest of the connection, and what was told before.
        let rest = scene.observations(&path, 2);
        for flow in &rest {
            is_named(flow, "client", End::new(client, "main"));
            is_named(flow, "server", End::new(web, "web"));
        }
        let asked = format!("flow_id == {}", before[0]["flow_id"]);
        for flow in scene.appliance().flows(&asked, &["--all-observations"]) {
            scene.is_honest(&flow, "server", End::new(&old, "web"));
        }
        holders.push(heir.name.clone());
        old = heir;
    }
    let last = holders.pop().expect("a holder");
    holders.push(format!("{last}…"));
    let before = scene.holders(&old.ip());
    assert!(before.ends_with(&holders), "{before:?}");
}
